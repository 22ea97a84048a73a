"""Each op of ONNX that is read, as a function on tensors; convolution and pooling are in operators_images.py.

A *binding* takes the attributes of a node and returns that function, so that what cannot be computed is refused when
the file is read. Its arguments are the node's inputs in order, None for one left out.
"""

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np

from gpunet import functional as F
from gpunet.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpunet.graph import Function
from gpunet.io.onnx.package import DTYPES
from gpunet.modes import no_grad
from gpunet.ops import elementwise, pointwise, shape
from gpunet.ops.reduce import Extremum, axes_of
from gpunet.tensor import Tensor

LARGEST = 1 << 20  # of a size among the attributes: no window or frame of a network comes near
MAX_ELEMENTS = 1 << 31  # that one op may make of an input by repeating it


class Attributes(NamedTuple):
    """The attributes of a node, with their errors: ``where`` begins a message."""

    where: str
    values: dict[str, Any]
    outputs: int

    def refuse(self, what: str, got: Any) -> DataError:
        """The error for an attribute that is not read."""
        return DataError(f"{self.where}: {what}, got {got!r}")

    def whole(self, name: str, default: int) -> int:
        """An integer."""
        return int(self.values.get(name, default))

    def real(self, name: str, default: float) -> float:
        """A number that is no NaN."""
        value = float(self.values.get(name, default))
        if math.isnan(value):
            raise self.refuse(f"{name} must be a number", value)
        return value

    def sizes(self, name: str, default: tuple[int, ...], least: int) -> tuple[int, ...]:
        """As many integers as ``default`` has, none below ``least``, none beyond reason."""
        value = tuple(int(each) for each in self.values.get(name, default))
        if len(value) != len(default) or not all(least <= each <= LARGEST for each in value):
            raise self.refuse(f"{name} must be {len(default)} integers from {least} to {LARGEST}", value)
        return value

    def only(self, name: str, *choices: Any) -> Any:
        """One of the values that are read; the first is the default."""
        value = self.values.get(name, choices[0])
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if value not in choices:
            raise self.refuse(f"{name} must be one of {', '.join(map(repr, choices))}", value)
        return value


Binding = Callable[[Attributes], Callable[..., Any]]


def _integers(x: Tensor | None) -> Any:
    """A list of integers out of a tensor of sizes or axes."""
    if x is None:
        return None
    if x.dtype.kind not in "iu":
        raise DTypeError(f"OnnxModule: sizes and axes must be integers, got {x.dtype}")
    values = x.tolist()
    return values if isinstance(values, list) else [values]


# --------------------------------------------------------------------------------------------------------- elements


class Erf(Function):
    """The error function, by gelu's kernels: gelu(u) = u * Phi(u), and erf(z) = 2 * Phi(z * sqrt(2)) - 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        """An array of the shape of x."""
        ctx.save(x)
        with no_grad():
            u = x.clip(-6.5, 6.5) * math.sqrt(2)  # beyond, erf is 1 to the last digit
            zero = u == 0
            phi = F.gelu(u) / elementwise.where(zero, 1.0, u)
            return elementwise.where(zero, 0.0, phi * 2 - 1).data

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        """The slope is a normal density."""
        (x,) = ctx.saved
        return gy * pointwise.exp(-x * x) * (2 / math.sqrt(math.pi))


def _div(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return elementwise.div(a, b)
    x, y = a.data, b.data  # ONNX cuts the quotient of integers off, Python rounds it down
    return Tensor._wrap(x // y + ((x % y != 0) & ((x < 0) != (y < 0))), a.device)


def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    return x if low is None and high is None else pointwise.clip(x, low, high)


def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    channels = (x.shape[1], *[1] * (x.ndim - 2)) if x.ndim > 1 else ()
    if slope.numel() == 1 or slope.shape in (channels, (1, *channels)):
        return F.prelu(x, slope.reshape(-1))
    return elementwise.where(x > 0, x, slope * x)


def _dropout(x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None) -> Tensor:
    if training is not None and bool(training):
        raise ArgumentError("OnnxModule: Dropout must be off, got training_mode true; export in evaluation mode")
    return x


def _cast(a: Attributes) -> Any:
    number = a.whole("to", 0)
    if number not in DTYPES:
        raise a.refuse(f"to must be one of {', '.join(f'{k} ({v})' for k, v in DTYPES.items())}", number)
    return partial(_cast_to, dtype=DTYPES[number])


def _cast_to(x: Tensor, dtype: Any) -> Tensor:
    return x.to(dtype)


def _variadic(function: Any, *tensors: Tensor) -> Tensor:
    return reduce(function, tensors)


# ---------------------------------------------------------------------------------------------------------- layers


def _gemm(a: Tensor, b: Tensor, c: Tensor | None = None, *, alpha: float, beta: float, ta: int, tb: int) -> Tensor:
    if a.ndim != 2 or b.ndim != 2:
        raise ShapeError(f"OnnxModule: Gemm must have two matrices, got {a.shape} and {b.shape}")
    if tb and not ta and alpha == beta == 1 and (c is None or c.shape == b.shape[:1]):
        return F.linear(a, b, c)
    y = F.matmul(a.T if ta else a, b.T if tb else b)
    y = y if alpha == 1 else y * alpha
    return y if c is None else y + (c if beta == 1 else c * beta)


def _bind_gemm(a: Attributes) -> Any:
    scales = {"alpha": a.real("alpha", 1.0), "beta": a.real("beta", 1.0)}
    return partial(_gemm, ta=a.only("transA", 0, 1), tb=a.only("transB", 0, 1), **scales)


def _batch_norm(x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor, *, eps: float) -> Tensor:
    return F.batch_norm(x, mean.detach(), var.detach(), w, b, training=False, eps=eps)


def _bind_batch_norm(a: Attributes) -> Any:
    a.only("training_mode", 0)
    return partial(_batch_norm, eps=a.real("epsilon", 1e-5))


def _layer_norm(x: Tensor, w: Tensor, b: Tensor | None = None, *, axis: int, eps: float) -> Tensor:
    (first,) = axes_of("OnnxModule: LayerNormalization", axis, x.ndim)
    return F.layer_norm(x, x.shape[first:], w, b, eps)


def _along(function: Any, x: Tensor, *, axis: int) -> Tensor:
    return function(x, axis)


def _softmax(function: Any) -> Binding:
    return lambda a: partial(_along, function, axis=a.whole("axis", -1))


# ------------------------------------------------------------------------------------------------------ reductions


def _reduce(x: Tensor, axes: Any = None, *, kind: str, keep: bool, none: bool = False) -> Tensor:
    axes = _integers(axes) if isinstance(axes, Tensor) else axes
    if not axes and none:
        return x
    dim = axes_of(f"OnnxModule: {kind}", tuple(axes) if axes else None, x.ndim)
    if kind in ("max", "min"):
        return Extremum.apply(x, axes=dim, keepdim=keep, name=kind)
    return getattr(x, kind)(dim, keep)


def _bind_sum(a: Attributes) -> Any:
    none = bool(a.whole("noop_with_empty_axes", 0))
    return partial(_reduce, kind="sum", keep=bool(a.whole("keepdims", 1)), none=none)


def _bind_reduce(kind: str) -> Binding:
    return lambda a: partial(_reduce, axes=a.values.get("axes"), kind=kind, keep=bool(a.whole("keepdims", 1)))


# ----------------------------------------------------------------------------------------------------------- shapes


def _reshape(x: Tensor, sizes: Tensor, *, allowzero: int) -> Tensor:
    wanted = _integers(sizes)
    if not allowzero:
        if any(size == 0 and axis >= x.ndim for axis, size in enumerate(wanted)):
            raise ShapeError(f"OnnxModule: Reshape: 0 must stand at an axis of {x.shape}, got {wanted}")
        wanted = [size or x.shape[axis] for axis, size in enumerate(wanted)]
    return x.reshape(tuple(wanted))


def _flatten(x: Tensor, *, axis: int) -> Tensor:
    if not -x.ndim <= axis <= x.ndim:
        raise ShapeError(f"OnnxModule: Flatten: axis must be from {-x.ndim} to {x.ndim}, got {axis}")
    first = x.shape[: axis + x.ndim if axis < 0 else axis]
    return x.reshape((math.prod(first), math.prod(x.shape[len(first) :])))


def _transpose(x: Tensor, *, perm: Any) -> Tensor:
    return x.permute(*(reversed(range(x.ndim)) if perm is None else perm))


def _squeeze(x: Tensor, axes: Tensor | None = None) -> Tensor:
    ones = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    gone = axes_of("OnnxModule: Squeeze", ones if axes is None else tuple(_integers(axes)), x.ndim)
    if any(x.shape[axis] != 1 for axis in gone):
        raise ShapeError(f"OnnxModule: Squeeze: axes {tuple(gone)} must be of size 1, got {x.shape}")
    return x.reshape(tuple(size for axis, size in enumerate(x.shape) if axis not in gone))


def _unsqueeze(x: Tensor, axes: Tensor) -> Tensor:
    wanted = _integers(axes)
    new = axes_of("OnnxModule: Unsqueeze", tuple(wanted), x.ndim + len(wanted))
    sizes = iter(x.shape)
    return x.reshape(tuple(1 if axis in new else next(sizes) for axis in range(x.ndim + len(wanted))))


def _expand(x: Tensor, sizes: Tensor) -> Tensor:
    wanted = tuple(_integers(sizes))
    try:
        full = np.broadcast_shapes(x.shape, wanted)
    except ValueError:
        raise ShapeError(f"OnnxModule: Expand: the sizes must broadcast with {x.shape}, got {wanted}") from None
    if math.prod(full) > MAX_ELEMENTS:
        raise ShapeError(f"OnnxModule: Expand: the result must have at most {MAX_ELEMENTS} elements, got {full}")
    return x.expand(full)


def _slice(x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None, steps: Tensor | None = None) -> Tensor:
    first, last = _integers(starts), _integers(ends)
    named = list(range(len(first))) if axes is None else _integers(axes)
    strides = [1] * len(first) if steps is None else _integers(steps)
    if not len(first) == len(last) == len(named) == len(strides) or 0 in strides:
        raise ShapeError("OnnxModule: Slice: starts, ends, axes and steps must be as many, and no step 0")
    key = [slice(None)] * x.ndim
    for start, stop, axis, step in zip(first, last, named, strides):
        key[axes_of("OnnxModule: Slice", axis, x.ndim)[0]] = slice(start, stop, step)
    return x[tuple(key)]


def _gather(x: Tensor, places: Tensor, *, axis: int) -> Tensor:
    (at,) = axes_of("OnnxModule: Gather", axis, x.ndim)
    return x[(*[slice(None)] * at, places)]


def _concat(*tensors: Tensor, axis: int) -> Tensor:
    return shape.cat(tensors, axis)


def _split(x: Tensor, sizes: Tensor | None = None, *, axis: int, parts: int) -> Any:
    (at,) = axes_of("OnnxModule: Split", axis, x.ndim)
    if sizes is None and x.shape[at] % parts:
        raise ShapeError(f"OnnxModule: Split: {parts} must divide axis {at}, got {x.shape}")
    return shape.split(x, [x.shape[at] // parts] * parts if sizes is None else _integers(sizes), at)


def _pad(x: Tensor, pads: Tensor, value: Tensor | None = None) -> Tensor:
    widths = _integers(pads)
    if len(widths) != 2 * x.ndim or any(abs(width) > LARGEST for width in widths):
        raise ShapeError(f"OnnxModule: Pad: pads must be {2 * x.ndim} widths up to {LARGEST}, got {str(widths)[:80]}")
    pairs = list(zip(widths[: x.ndim], widths[x.ndim :]))[::-1]
    return shape.pad(x, [width for pair in pairs for width in pair], value=0.0 if value is None else value.item())


def _bind_pad(a: Attributes) -> Any:
    a.only("mode", "constant")
    return _pad


def _shape(x: Tensor, *, start: int, end: int | None) -> Tensor:
    return Tensor(np.array(x.shape[start:end], np.int64), device=x.device)


def _identity(x: Tensor) -> Tensor:
    return x


def _position(x: Tensor, *, kind: str, axis: int, keep: bool) -> Tensor:
    return getattr(x, kind)(axis, keep)


def _bind_position(kind: str) -> Binding:
    def bind(a: Attributes) -> Any:
        a.only("select_last_index", 0)
        return partial(_position, kind=kind, axis=a.whole("axis", 0), keep=bool(a.whole("keepdims", 1)))

    return bind


def _gather_elements(x: Tensor, places: Tensor, *, axis: int) -> Tensor:
    (at,) = axes_of("OnnxModule: GatherElements", axis, x.ndim)
    return shape.take_along(x, places, at)


def _compared(name: str) -> Any:
    return _plain(partial(elementwise.compare, name))


def _logical(name: str) -> Any:
    return _plain(partial(elementwise.logical, name))


def _plain(function: Any) -> Binding:
    """The binding of an op without attributes."""
    return lambda _: function


OPERATORS: dict[str, Binding] = {
    "Add": _plain(elementwise.add), "Sub": _plain(elementwise.sub), "Mul": _plain(elementwise.mul),
    "Div": _plain(_div), "Pow": _plain(elementwise.pow), "Neg": _plain(elementwise.neg),
    "Abs": _plain(pointwise.abs), "Exp": _plain(pointwise.exp), "Log": _plain(pointwise.log),
    "Sqrt": _plain(pointwise.sqrt), "Sin": _plain(pointwise.sin), "Cos": _plain(pointwise.cos),
    "Erf": _plain(Erf.apply), "Clip": _plain(_clip), "Where": _plain(elementwise.where),
    "Max": _plain(partial(_variadic, elementwise.maximum)), "Min": _plain(partial(_variadic, elementwise.minimum)),
    "Equal": _compared("equal"), "Less": _compared("less"), "LessOrEqual": _compared("less_equal"),
    "Greater": _compared("greater"), "GreaterOrEqual": _compared("greater_equal"), "Not": _plain(elementwise.invert),
    "And": _logical("bitwise_and"), "Or": _logical("bitwise_or"), "Xor": _logical("bitwise_xor"),
    "ArgMax": _bind_position("argmax"), "ArgMin": _bind_position("argmin"),
    "GatherElements": lambda a: partial(_gather_elements, axis=a.whole("axis", 0)), "Cast": _cast,
    "Identity": _plain(_identity),
    "Dropout": _plain(_dropout), "Relu": _plain(F.relu), "Sigmoid": _plain(F.sigmoid), "Tanh": _plain(F.tanh),
    "LeakyRelu": lambda a: partial(F.leaky_relu, negative_slope=a.real("alpha", 0.01)), "PRelu": _plain(_prelu),
    "Softplus": _plain(F.softplus), "Softmax": _softmax(F.softmax), "LogSoftmax": _softmax(F.log_softmax),
    "MatMul": _plain(F.matmul), "Gemm": _bind_gemm, "BatchNormalization": _bind_batch_norm,
    "LayerNormalization": lambda a: partial(_layer_norm, axis=a.whole("axis", -1), eps=a.real("epsilon", 1e-5)),
    "ReduceSum": _bind_sum, "ReduceMean": _bind_reduce("mean"), "ReduceMax": _bind_reduce("max"),
    "ReduceMin": _bind_reduce("min"),
    "Reshape": lambda a: partial(_reshape, allowzero=a.whole("allowzero", 0)),
    "Flatten": lambda a: partial(_flatten, axis=a.whole("axis", 1)),
    "Transpose": lambda a: partial(_transpose, perm=a.values.get("perm")),
    "Squeeze": _plain(_squeeze), "Unsqueeze": _plain(_unsqueeze), "Expand": _plain(_expand), "Slice": _plain(_slice),
    "Gather": lambda a: partial(_gather, axis=a.whole("axis", 0)),
    "Concat": lambda a: partial(_concat, axis=a.whole("axis", 0)),
    "Split": lambda a: partial(_split, axis=a.whole("axis", 0), parts=a.outputs),
    "Pad": _bind_pad, "Shape": lambda a: partial(_shape, start=a.whole("start", 0), end=a.values.get("end")),
}  # fmt: skip
