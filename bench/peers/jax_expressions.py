"""JAX as a peer: each entry as one compiled function, waited for; windows and convolutions as its own operations."""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .arrays import Expression, Peer, expressions

jax: Any = importlib.import_module("jax")
jnp, lax = jax.numpy, jax.lax


def _conv2d(x, w, b, *, stride, padding, dilation, groups):
    top, bottom, left, right = padding
    sides = ((top, bottom), (left, right))
    y = lax.conv_general_dilated(x, w, stride, sides, rhs_dilation=dilation, feature_group_count=groups)
    return y if b is None else y + b.reshape(-1, 1, 1)


def _grad_x(gy, w, *, input_size, groups, **geometry):
    shape = (gy.shape[0], w.shape[1] * groups, *input_size)
    _, back = jax.vjp(lambda x: _conv2d(x, w, None, groups=groups, **geometry), jnp.zeros(shape, gy.dtype))
    return back(gy)[0]


def _grad_w(gy, x, *, kernel_size, groups, **geometry):
    shape = (gy.shape[1], x.shape[1] // groups, *kernel_size)
    _, back = jax.vjp(lambda w: _conv2d(x, w, None, groups=groups, **geometry), jnp.zeros(shape, gy.dtype))
    return back(gy)[0]


def _max_pool2d(x, *, output_size, kernel_size, stride, padding, dilation):
    ends = [
        (o - 1) * s + d * (k - 1) + 1 - n - p
        for o, s, d, k, n, p in zip(output_size, stride, dilation, kernel_size, x.shape[2:], padding, strict=True)
    ]
    sides = [(0, 0), (0, 0), (padding[0], ends[0]), (padding[1], ends[1])]
    size, step, holes = ((1, 1, *each) for each in (kernel_size, stride, dilation))
    return lax.reduce_window(x, -np.inf, lax.max, size, step, sides, window_dilation=holes)


def _dropout(x, *, p, seed, op, span=1):
    kept = jax.random.bernoulli(jax.random.key(seed), 1 - p, x.shape)
    return jnp.where(kept, x / (1 - p), 0)


_compiled: dict[tuple[Expression, str], Callable[..., Any]] = {}


def _prepare(expression: Expression, arrays: Sequence[Any], params: dict[str, Any]) -> Callable[[], Any]:
    key = expression, repr(sorted(params.items()))  # so that copies of the inputs share one compilation
    compiled = _compiled.setdefault(key, jax.jit(partial(expression, **params)))
    given = [None if each is None else jnp.asarray(each) for each in arrays]
    return lambda: compiled(*given).block_until_ready()


TABLE = {
    **expressions(jnp),
    "conv2d.forward": _conv2d,
    "conv2d.forward_relu": lambda x, w, b, **geometry: jnp.maximum(_conv2d(x, w, b, **geometry), 0),
    "conv2d.grad_x": _grad_x,
    "conv2d.grad_w": _grad_w,
    "max_pool2d.forward": _max_pool2d,
    "dropout.forward": _dropout,
}

PEER = Peer(f"jax {jax.__version__}", ("cpu",), TABLE, _prepare, limits=False)
