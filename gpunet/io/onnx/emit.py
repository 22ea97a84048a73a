"""Each op of gpunet as nodes of ONNX; convolution and pooling are in emit_images.py."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunet.errors import ArgumentError
from gpunet.io.onnx.builder import Builder
from gpunet.io.onnx.package import NUMBERS
from gpunet.ops import elementwise, pointwise, reduce, shape
from gpunet.ops.batch_norm import BatchNormEval
from gpunet.ops.gelu import CUBIC, Gelu
from gpunet.ops.layer_norm import LayerNorm
from gpunet.ops.leaky_relu import LeakyRelu
from gpunet.ops.log_softmax import LogSoftmax
from gpunet.ops.matmul import MatMul, MatMulBias
from gpunet.ops.prelu import Prelu
from gpunet.ops.relu import Relu, ReluMask
from gpunet.ops.sigmoid import Sigmoid
from gpunet.ops.softmax import Softmax
from gpunet.ops.softplus import Softplus
from gpunet.ops.tanh import Tanh

FIXED = "; give the batch a fixed size with dynamic_batch=False"


class Step(NamedTuple):
    """One op as it was seen in both runs, whose batches differ in size; names stand for the arrays."""

    op: Any
    args: list[Any]
    others: list[Any]  # the arguments in the second run, for what is no array
    params: dict[str, Any]
    shapes: tuple[list[Any], list[Any]]  # of the arguments, in each run
    output: tuple[tuple[int, ...], tuple[int, ...]]  # shape of the result, in each run
    dtypes: list[Any]  # of the arguments
    dtype: Any  # of the result

    def refuse(self, must: str, got: Any, remedy: str = "") -> ArgumentError:
        """The error for an op that has no form in ONNX."""
        return ArgumentError(f"export_onnx: {self.op.__name__}: {must}, got {got}{remedy}")

    def number(self, k: int) -> Any:
        """Argument ``k``, a number that both runs agree on."""
        value, other = self.args[k], self.others[k]
        if value != other and not value != value:
            raise self.refuse("a number must not depend on the input or its size", f"{value} and {other}", FIXED)
        return value


def _operand(b: Builder, s: Step, k: int) -> str:
    """Argument ``k`` as a name: a number becomes a constant of the dtype of the tensor beside it."""
    if isinstance(s.args[k], str):
        return s.args[k]
    return b.constant(s.number(k), next(dtype for dtype in s.dtypes[::-1] if dtype is not None))


def _elements(kind: str) -> Callable[[Builder, Step], str]:
    """The op whose arguments are tensors or numbers, all of them operands."""
    return lambda b, s: b.node(kind, *[_operand(b, s, k) for k in range(len(s.args))])


def _add(b: Builder, s: Step) -> str:
    left, right = (_operand(b, s, k) for k in (0, 1))
    product = b.made.get(left)
    if product and product.kind == "Gemm" and len(product.inputs) == 2 and s.shapes[0][1] == s.output[0][-1:]:
        return b.node("Gemm", *product.inputs, right, **product.attributes)  # the bias of a linear layer
    return b.node("Add", left, right)


def _div(b: Builder, s: Step) -> str:
    total = b.made.get(s.args[0]) if isinstance(s.args[0], str) else None
    if total and b.means.get(total.output) == (s.args[1], s.others[1]):
        axes = b.made[total.inputs[1]].attributes["value"].tolist()
        return b.node("ReduceMean", total.inputs[0], axes=axes, keepdims=total.attributes["keepdims"])
    return b.node("Div", _operand(b, s, 0), _operand(b, s, 1))


def _clip(b: Builder, s: Step) -> str:
    bounds = ["" if s.number(k) is None else b.constant(s.number(k), s.dtype) for k in (1, 2)]
    return b.node("Clip", s.args[0], *bounds)


def _where(b: Builder, s: Step) -> str:
    branches = [s.args[k] if isinstance(s.args[k], str) else b.constant(s.number(k), s.dtype) for k in (1, 2)]
    return b.node("Where", s.args[0], *branches)


def _extreme(b: Builder, s: Step) -> str:
    return b.node({"maximum": "Max", "minimum": "Min"}[s.params["name"]], s.args[0], s.args[1])


def _cast(b: Builder, s: Step) -> str:
    return s.args[0] if s.dtype == s.dtypes[0] else b.node("Cast", s.args[0], to=_number(s))


def _number(s: Step) -> int:
    if s.dtype not in NUMBERS:
        raise s.refuse(f"a dtype must be one of {', '.join(map(str, NUMBERS))}", s.dtype)
    return NUMBERS[s.dtype]


def _sum(b: Builder, s: Step) -> str:
    x = s.args[0] if s.dtype == s.dtypes[0] else b.node("Cast", s.args[0], to=_number(s))
    if not s.params["axes"]:
        return x
    y = b.node("ReduceSum", x, b.sizes(*s.params["axes"]), keepdims=int(s.params["keepdim"]))
    if s.dtype.kind == "f":
        first, second = (math.prod([sizes[0][axis] for axis in s.params["axes"]]) for sizes in s.shapes)
        b.means[y] = first, second
    return y


def _extremum(b: Builder, s: Step) -> str:
    if not s.params["axes"]:
        return s.args[0]
    kind = {"max": "ReduceMax", "min": "ReduceMin"}[s.params["name"]]
    return b.node(kind, s.args[0], axes=list(s.params["axes"]), keepdims=int(s.params["keepdim"]))


def _reshape(b: Builder, s: Step) -> str:
    """Sizes that differ between the runs hang on the batch: one is -1, others must be those of the same axis of x."""
    (before, before2), (after, after2) = (each[0] for each in s.shapes), s.output
    if (before, before2) == (after, after2):
        return s.args[0]
    if len(after) != len(after2) or 0 in after:
        raise s.refuse("a new shape must have as many axes for any batch, none empty", f"{after} and {after2}", FIXED)
    sizes = [size if size == other else -1 for size, other in zip(after, after2)]
    for axis in [axis for axis, size in enumerate(sizes) if size < 0][: sizes.count(-1) - 1]:
        if axis >= len(before) or (before[axis], before2[axis]) != (after[axis], after2[axis]):
            raise s.refuse("at most one size may hang on the batch", f"{before} to {after}", FIXED)
        sizes[axis] = 0  # ONNX for: as it was
    return b.node("Reshape", s.args[0], b.sizes(*sizes))


def _expand(b: Builder, s: Step) -> str:
    """A size that hangs on the batch must be that of x already: 1 in the new shape leaves it as it is."""
    (before, before2), (after, after2) = (each[0] for each in s.shapes), s.output
    lead, sizes = len(after) - len(before), list(after)
    for axis, (size, other) in enumerate(zip(after, after2)):
        if size != other:
            old = axis - lead
            if old < 0 or (before[old], before2[old]) != (size, other):
                raise s.refuse("nothing may be repeated as often as the batch is long", f"{before} to {after}", FIXED)
            sizes[axis] = 1
    return b.node("Expand", s.args[0], b.sizes(*sizes))


def _permute(b: Builder, s: Step) -> str:
    return b.node("Transpose", s.args[0], perm=list(s.params["order"]))


def _index(b: Builder, s: Step) -> str:
    """x[key]: slices, integers and None, or one array of positions between full slices."""
    key = s.params["key"]
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(isinstance(each, str) for each in parts):
        return _gather(b, s, parts)
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        missing = len(s.shapes[0][0]) - sum(each not in (None, Ellipsis) for each in parts)
        parts[at : at + 1] = [slice(None)] * missing
    cuts, gone, new, axis, place = [], [], [], 0, 0
    for part in parts:
        if part is None:
            new.append(place)
        elif isinstance(part, slice):
            cuts += _cut(axis, part)
        else:
            cuts.append((int(part), _END if part == -1 else int(part) + 1, axis, 1))
            gone.append(axis)
        axis += part is not None
        place += part is None or isinstance(part, slice)
    y = b.node("Slice", s.args[0], *[b.sizes(*column) for column in zip(*cuts)]) if cuts else s.args[0]
    y = b.node("Squeeze", y, b.sizes(*gone)) if gone else y
    return b.node("Unsqueeze", y, b.sizes(*new)) if new else y


_END = (1 << 63) - 1  # beyond any axis


def _cut(axis: int, part: slice) -> list[tuple[int, int, int, int]]:
    """(start, end, axis, step), or none where the slice takes all."""
    step = 1 if part.step is None else int(part.step)
    if part.start is None and part.stop is None and step == 1:
        return []
    start = (0 if step > 0 else _END) if part.start is None else int(part.start)
    stop = (_END if step > 0 else -_END) if part.stop is None else int(part.stop)
    return [(start, stop, axis, step)]


def _gather(b: Builder, s: Step, parts: list[Any]) -> str:
    places = [axis for axis, each in enumerate(parts) if isinstance(each, str)]
    if len(places) > 1 or any(each not in (slice(None), Ellipsis) for each in parts if not isinstance(each, str)):
        raise s.refuse("an index must be one array between full slices", f"{len(places)} arrays, or other parts")
    axis = places[0] - len(parts) if Ellipsis in parts[: places[0]] else places[0]
    return b.node("Gather", s.args[0], parts[places[0]], axis=axis)


def _cat(b: Builder, s: Step) -> str:
    return b.node("Concat", *s.args, axis=s.params["axis"])


def _pad(b: Builder, s: Step) -> str:
    """Not every reader takes negative widths: what they cut is cut first."""
    x, widths = s.args[0], s.params["widths"]
    cuts = [(max(-a, 0), -max(-c, 0) or _END, axis) for axis, (a, c) in enumerate(widths) if min(a, c) < 0]
    x = b.node("Slice", x, *[b.sizes(*column) for column in zip(*cuts)]) if cuts else x
    before, after = ([max(width, 0) for width in side] for side in zip(*widths))
    if not any(before + after):
        return x
    return b.node("Pad", x, b.sizes(*before, *after), b.constant(s.params["value"], s.dtype))


def _matmul(b: Builder, s: Step) -> str:
    flags = [bool(s.params.get(name)) for name in ("transpose_a", "transpose_b")]
    if len(s.shapes[0][0]) == len(s.shapes[0][1]) == 2 and any(flags):
        return b.node("Gemm", s.args[0], s.args[1], transA=int(flags[0]), transB=int(flags[1]))
    sides = []
    for name, sizes, flag in zip(s.args, s.shapes[0], flags):
        order = [*range(len(sizes) - 2), len(sizes) - 1, len(sizes) - 2]
        sides.append(b.node("Transpose", name, perm=order) if flag else name)
    return b.node("MatMul", *sides)


def _linear(b: Builder, s: Step) -> str:
    y = b.node("Gemm", *s.args, transB=1)
    return b.node("Relu", y) if s.params["relu"] else y


def _gelu(b: Builder, s: Step) -> str:
    """Opset 17 has no Gelu: x * (1 + erf(x / sqrt(2))) / 2, or x * sigmoid of twice the cubic."""
    x, c = s.args[0], lambda value: b.constant(value, s.dtype)
    if s.params["approximate"] == "none":
        inner = b.node("Erf", b.node("Mul", x, c(math.sqrt(0.5))))
        return b.node("Mul", b.node("Mul", x, b.node("Add", inner, c(1))), c(0.5))
    square = b.node("Mul", b.node("Mul", x, x), c(CUBIC))
    cubic = b.node("Mul", b.node("Mul", x, b.node("Add", square, c(1))), c(2 * math.sqrt(2 / math.pi)))
    return b.node("Mul", x, b.node("Sigmoid", cubic))


def _softplus(b: Builder, s: Step) -> str:
    x, beta, threshold = s.args[0], s.params["beta"], s.params["threshold"]
    z = x if beta == 1 else b.node("Mul", x, b.constant(beta, s.dtype))
    y = b.node("Softplus", z)
    y = y if beta == 1 else b.node("Div", y, b.constant(beta, s.dtype))
    if threshold >= 20:  # there the two differ by 2e-9 / beta
        return y
    return b.node("Where", b.node("Greater", z, b.constant(threshold, s.dtype)), x, y)


def _prelu(b: Builder, s: Step) -> str:
    axes = len(s.shapes[0][0])
    slope = s.args[1]
    if s.shapes[0][1] != (1,) and axes > 2:  # ONNX lines the slopes up with the last axis, not with the channels
        slope = b.node("Reshape", slope, b.sizes(-1, *[1] * (axes - 2)))
    return b.node("PRelu", s.args[0], slope)


def _per_channel(b: Builder, s: Step, size: int) -> list[str]:
    """Weight and bias, ones and zeros where there are none."""
    plain = zip(s.args[1:], (1, 0))
    return [b.constant(np.full(size, fill), s.dtype) if each is None else each for each, fill in plain]


def _batch_norm(b: Builder, s: Step) -> str:
    weight, bias = _per_channel(b, s, s.output[0][1])
    statistics = s.params["mean"], s.params["var"]
    return b.node("BatchNormalization", s.args[0], weight, bias, *statistics, epsilon=s.params["eps"])


def _layer_norm(b: Builder, s: Step) -> str:
    return b.node("LayerNormalization", s.args[0], *_per_channel(b, s, s.output[0][1]), epsilon=s.params["eps"])


COMPARISONS = {
    "equal": "Equal", "not_equal": "Equal", "less": "Less", "less_equal": "LessOrEqual", "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
}  # fmt: skip
LOGICAL = {"bitwise_and": "And", "bitwise_or": "Or", "bitwise_xor": "Xor"}


def _compare(b: Builder, s: Step) -> str:
    """Both sides in one dtype: the op itself casts, unseen, where they differ."""
    sides = {dtype if dtype is not None else np.result_type(other, s.number(k)) for k, dtype, other in
             ((1, s.dtypes[1], s.dtypes[2]), (2, s.dtypes[2], s.dtypes[1]))}  # fmt: skip
    if len(sides) > 1:
        raise s.refuse("both sides must be of one dtype", " and ".join(map(str, sides)), "; use .to()")
    y = b.node(COMPARISONS[s.args[0]], *[_operand(b, s, k) for k in (1, 2)])
    return b.node("Not", y) if s.args[0] == "not_equal" else y


def _logical(b: Builder, s: Step) -> str:
    if s.dtypes[1:] != [np.dtype(bool)] * 2:
        raise s.refuse("both sides must be bool tensors", f"{s.dtypes[1]} and {s.dtypes[2]}")
    return b.node(LOGICAL[s.args[0]], *s.args[1:])


def _invert(b: Builder, s: Step) -> str:
    if s.dtype != bool:
        raise s.refuse("the tensor must hold bools", s.dtype)
    return b.node("Not", s.args[0])


def _position(b: Builder, s: Step) -> str:
    name, x, dim, keep = (*s.args, s.params.get("keepdim", False))[:4]
    if dim is None or not s.shapes[0][1]:
        return b.node(POSITIONS[name], b.node("Reshape", x, b.sizes(-1)), axis=0, keepdims=0)
    return b.node(POSITIONS[name], x, axis=dim, keepdims=int(keep))


POSITIONS = {"argmax": "ArgMax", "argmin": "ArgMin"}


def _take_along(b: Builder, s: Step) -> str:
    """The elements at the places of a maximum are the maximum."""
    x, axis, place = s.args[0], s.params["axis"], b.made.get(s.params["position"])
    of_x = place and place.kind in POSITIONS.values() and place.inputs == (x,) and place.attributes["keepdims"]
    if place and of_x and place.attributes["axis"] % len(s.shapes[0][0]) == axis:
        return b.node(place.kind.replace("Arg", "Reduce"), x, axes=[axis], keepdims=1)
    return b.node("GatherElements", x, s.params["position"], axis=axis)


def _same(_: Builder, s: Step) -> str:
    return s.args[0]


EMIT: dict[Any, Callable[[Builder, Step], str]] = {
    elementwise.Add: _add, elementwise.Sub: _elements("Sub"), elementwise.Mul: _elements("Mul"),
    elementwise.Div: _div, elementwise.Pow: _elements("Pow"), elementwise.Neg: _elements("Neg"),
    elementwise.Extreme: _extreme, elementwise.Where: _where,
    pointwise.Exp: _elements("Exp"), pointwise.Log: _elements("Log"), pointwise.Sqrt: _elements("Sqrt"),
    pointwise.Abs: _elements("Abs"), pointwise.Sin: _elements("Sin"), pointwise.Cos: _elements("Cos"),
    pointwise.Clip: _clip,
    reduce.Sum: _sum, reduce.Extremum: _extremum, reduce.Expand: _expand,
    shape.Reshape: _reshape, shape.Permute: _permute, shape.Index: _index, shape.Cat: _cat, shape.Pad: _pad,
    shape.Cast: _cast, shape.Clone: _same,
    MatMul: _matmul, MatMulBias: _linear,
    Relu: _elements("Relu"), ReluMask: _elements("Relu"), Sigmoid: _elements("Sigmoid"), Tanh: _elements("Tanh"),
    LeakyRelu: lambda b, s: b.node("LeakyRelu", s.args[0], alpha=s.params["negative_slope"]),
    Prelu: _prelu, Gelu: _gelu, Softplus: _softplus,
    Softmax: lambda b, s: b.node("Softmax", s.args[0], axis=s.params["axis"]),
    LogSoftmax: lambda b, s: b.node("LogSoftmax", s.args[0], axis=s.params["axis"]),
    BatchNormEval: _batch_norm, LayerNorm: _layer_norm, shape.TakeAlong: _take_along,
    elementwise.compare: _compare, elementwise.logical: _logical, elementwise.invert: _invert,
    reduce._position: _position,
}  # fmt: skip
