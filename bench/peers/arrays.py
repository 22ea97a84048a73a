"""Entries as somebody writes them who has an array library and no kernels: expressions of whole arrays.

``expressions(xp)`` makes them for NumPy, CuPy or jax.numpy. They take what gpunet's launchers take and return the first
output. They need not be fast; they are what most people's own code would be.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np

Expression = Callable[..., Any]


def expressions(xp: Any) -> dict[str, Expression]:
    """Entry -> function of the launcher's arguments.

    Args:
        xp: numpy, cupy or jax.numpy.
    """
    return {**_products(xp), **_windows(xp), **_elementwise(xp), **_rows(xp), **_norms(xp)}


def _products(xp: Any) -> dict[str, Expression]:
    def matmul(a, b, *, transpose_a, transpose_b):
        return xp.matmul(a.swapaxes(-1, -2) if transpose_a else a, b.swapaxes(-1, -2) if transpose_b else b)

    return {
        "matmul.forward": matmul,
        "matmul.forward_bias": lambda a, b, bias, **flags: matmul(a, b, **flags) + bias,
        "matmul.forward_bias_relu": lambda a, b, bias, **flags: xp.maximum(matmul(a, b, **flags) + bias, 0),
    }


def windows(xp: Any, x: Any, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """A view (N, C, OH, OW, KH, KW) of the windows of x."""
    reach = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    found = xp.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    return found[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _windows(xp: Any) -> dict[str, Expression]:
    def pad(x, padding, value=0.0):
        top, bottom, left, right = padding
        return xp.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=value) if any(padding) else x

    def conv2d(x, w, b, *, stride, padding, dilation, groups):
        under = windows(xp, pad(x, padding), w.shape[2:], stride, dilation)
        if groups == 1:
            y = xp.tensordot(under, w, axes=((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
        else:
            parts = zip(xp.split(under, groups, axis=1), xp.split(w, groups, axis=0), strict=True)
            made = [xp.tensordot(u, v, axes=((1, 4, 5), (1, 2, 3))) for u, v in parts]
            y = xp.concatenate(made, axis=3).transpose(0, 3, 1, 2)
        return y if b is None else y + b.reshape(-1, 1, 1)

    def grad_w(gy, x, *, kernel_size, stride, padding, dilation, groups):
        under = windows(xp, pad(x, padding), kernel_size, stride, dilation)[:, :, : gy.shape[2], : gy.shape[3]]
        parts = zip(xp.split(gy, groups, axis=1), xp.split(under, groups, axis=1), strict=True)
        made = [xp.tensordot(g, u, axes=((0, 2, 3), (0, 2, 3))) for g, u in parts]
        return made[0] if groups == 1 else xp.concatenate(made, axis=0)

    def pooled(x, fill, output_size, kernel_size, stride, padding, dilation=(1, 1)):
        ends = [
            max(0, (o - 1) * s + d * (k - 1) + 1 - n - p)
            for o, s, d, k, n, p in zip(output_size, stride, dilation, kernel_size, x.shape[2:], padding, strict=True)
        ]
        full = pad(x, (padding[0], ends[0], padding[1], ends[1]), fill)
        return windows(xp, full, kernel_size, stride, dilation)[:, :, : output_size[0], : output_size[1]]

    def max_pool2d(x, *, output_size, kernel_size, stride, padding, dilation):
        return pooled(x, -np.inf, output_size, kernel_size, stride, padding, dilation).max((4, 5))

    return {
        "conv2d.forward": conv2d,
        "conv2d.forward_relu": lambda x, w, b, **geometry: xp.maximum(conv2d(x, w, b, **geometry), 0),
        "conv2d.grad_w": grad_w,
        "conv2d.grad_b": lambda gy: gy.sum((0, 2, 3)),
        "max_pool2d.forward": max_pool2d,
    }


def _elementwise(xp: Any) -> dict[str, Expression]:
    def dropout(x, *, p, seed, op, span=1):
        kept = xp.random.random(x.shape if span == 1 else (*x.shape[:2], *[1] * (x.ndim - 2))) >= p
        return x * kept * x.dtype.type(1 / (1 - p) if p < 1 else 0)

    return {
        "relu.forward": lambda x: xp.maximum(x, 0),
        "relu.grad_x": lambda gy, y: gy * (y > 0),
        "leaky_relu.forward": lambda x, *, negative_slope: xp.where(x > 0, x, x * x.dtype.type(negative_slope)),
        "leaky_relu.grad_x": lambda gy, x, *, negative_slope: xp.where(x > 0, gy, gy * x.dtype.type(negative_slope)),
        "sigmoid.forward": lambda x: 1 / (1 + xp.exp(-x)),
        "sigmoid.grad_x": lambda gy, y: gy * y * (1 - y),
        "tanh.forward": xp.tanh,
        "tanh.grad_x": lambda gy, y: gy * (1 - y * y),
        "dropout.forward": dropout,
    }


def _rows(xp: Any) -> dict[str, Expression]:
    def softmax(x, *, axis):
        e = xp.exp(x - x.max(axis, keepdims=True))
        return e / e.sum(axis, keepdims=True)

    def log_softmax(x, *, axis):
        x = x - x.max(axis, keepdims=True)
        return x - xp.log(xp.exp(x).sum(axis, keepdims=True))

    return {
        "softmax.forward": softmax,
        "softmax.grad_x": lambda gy, y, *, axis: y * (gy - (gy * y).sum(axis, keepdims=True)),
        "log_softmax.forward": log_softmax,
        "log_softmax.grad_x": lambda gy, y, *, axis: gy - xp.exp(y) * gy.sum(axis, keepdims=True),
    }


def _norms(xp: Any) -> dict[str, Expression]:
    def across(x, axes, w, b, shape, eps):
        mean = x.mean(axes, keepdims=True)
        y = (x - mean) / xp.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + x.dtype.type(eps))
        y = y if w is None else y * w.reshape(shape)
        return y if b is None else y + b.reshape(shape)

    def batch_norm(x, w, b, *, eps):
        return across(x, (0, *range(2, x.ndim)), w, b, (-1, *[1] * (x.ndim - 2)), eps)

    def batch_norm_eval(x, mean, var, w, b, *, eps):
        shape = (-1, *[1] * (x.ndim - 2))
        y = (x - mean.reshape(shape)) / xp.sqrt(var.reshape(shape) + x.dtype.type(eps))
        y = y if w is None else y * w.reshape(shape)
        return y if b is None else y + b.reshape(shape)

    def layer_norm(x, w, b, *, eps):
        return across(x, tuple(range(1, x.ndim)), w, b, x.shape[1:], eps)

    return {
        "batch_norm.forward": batch_norm,
        "batch_norm.forward_eval": batch_norm_eval,
        "layer_norm.forward": layer_norm,
    }


class Peer:
    """An array library as a peer.

    Args:
        name: what a report calls it.
        kinds: devices it can be measured on.
        table: entry -> expression.
        prepare: makes of an expression, its arrays and its keywords the call that is timed.
        to_host: makes an array of the library, or a NumPy array, a NumPy array.
        limits: whether the number of its threads can be set.
    """

    def __init__(
        self, name: str, kinds: tuple[str, ...], table: dict[str, Expression],
        prepare: Callable[[Expression, Sequence[Any], dict[str, Any]], Callable[[], Any]] | None = None,
        to_host: Callable[[Any], np.ndarray] = np.asarray, limits: bool = True,
    ):  # fmt: skip
        self.NAME, self.KINDS, self.table, self.to_host = name, kinds, table, to_host
        self.LIMITS = limits
        self.prepare = prepare or (lambda expression, arrays, params: partial(expression, *arrays, **params))

    def entries(self) -> tuple[str, ...]:
        """The entries that :meth:`bind` knows."""
        return tuple(self.table)

    def bind(self, entry: str, arrays: Sequence[Any], params: dict[str, Any]) -> Callable[[], Any]:
        """The entry on these arrays as a call without arguments.

        Raises:
            KeyError: there is no expression of it here.
        """
        return self.prepare(self.table[entry], arrays, params)

    def results(self, entry: str, ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
        """Pairs of outputs that must agree: the first of each, but of dropout none, whose mask is another."""
        first = ours[0] if isinstance(ours, tuple) else ours
        return [] if entry.startswith("dropout") else [(first, theirs)]

    def distance(self, ours: Any, theirs: Any) -> float:
        """Largest difference over the largest value; inf for NaN or another shape."""
        wanted, got = (np.asarray(self.to_host(each), np.float64) for each in (ours, theirs))
        if got.shape != wanted.shape:
            return float("inf")
        if got.size == 0:
            return 0.0
        found = float(np.abs(got - wanted).max()) / (float(np.abs(wanted).max()) or 1.0)
        return found if found == found else float("inf")

    def precise(self, tf32: bool = False) -> Any:
        """Nothing to set: these compute in the dtype of their arrays."""
        return nullcontext()

    @contextmanager
    def threads(self, count: int) -> Iterator[None]:
        """Inside, the library's thread pools have so many threads."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(count):
            yield


__all__ = ["Peer", "expressions", "windows"]
