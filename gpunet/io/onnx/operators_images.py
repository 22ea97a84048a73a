"""Convolution and pooling of ONNX as functions on tensors. Images only: one-dimensional and volume ops are refused."""

from functools import partial
from typing import Any, NamedTuple

from gpunet import functional as F
from gpunet.creation import ones
from gpunet.errors import ShapeError
from gpunet.io.onnx.operators import LARGEST, Attributes, Binding
from gpunet.ops.shape import pad
from gpunet.tensor import Tensor

AUTO = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


class Windows(NamedTuple):
    """The geometry of a sliding window: pairs are (vertical, horizontal), pads (top, left, bottom, right)."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto: str
    ceil: bool

    def along(self, axis: int, size: int) -> tuple[int, int, int, int]:
        """Of one axis: padding before, padding after, what windows need beyond that, and the number of windows."""
        k, s, d = self.kernel[axis], self.strides[axis], self.dilations[axis]
        before, after, span = self.pads[axis], self.pads[axis + 2], d * (k - 1) + 1
        if self.auto.startswith("SAME"):
            total = max(((size - 1) // s) * s + span - size, 0)
            before = total // 2 if self.auto == "SAME_UPPER" else total - total // 2
            after = total - before
        out = self.fitting(axis, size, before, after)
        if out < 1:
            raise ShapeError(f"OnnxModule: a window of {span} must fit into {size} pixels with {before} + {after} more")
        return before, after, max(0, (out - 1) * s + span - size - before - after), out

    def fitting(self, axis: int, size: int, before: int, after: int) -> int:
        """The number of windows along one axis with this padding; below 1 when none fits."""
        s = self.strides[axis]
        room = size + before + after - self.dilations[axis] * (self.kernel[axis] - 1) - 1
        out = (-(-room // s) if self.ceil else room // s) + 1
        return out - (self.ceil and (out - 1) * s >= size + before)  # the last would see nothing of the image


def _windows(a: Attributes, pooling: bool) -> Windows:
    auto = a.only("auto_pad", *AUTO)
    pads = a.sizes("pads", (0, 0, 0, 0), 0)
    if auto != "NOTSET" and any(pads):
        raise a.refuse("pads must be left out beside auto_pad", pads)
    kernel = a.sizes("kernel_shape", (1, 1), 1) if pooling or "kernel_shape" in a.values else (1, 1)
    strides, dilations = a.sizes("strides", (1, 1), 1), a.sizes("dilations", (1, 1), 1)
    return Windows(kernel, strides, dilations, pads, auto, bool(a.only("ceil_mode", 0, 1)))


def _need_image(kind: str, x: Tensor) -> None:
    if x.ndim != 4:
        raise ShapeError(f"OnnxModule: {kind} must have images (N, C, H, W), got shape {x.shape}")


def _framed(x: Tensor, sides: Any, value: float = 0.0) -> Tensor:
    """x with a frame: ``sides`` is (before, after) of the rows, then of the columns."""
    (top, bottom), (left, right) = sides
    return pad(x, (left, right, top, bottom), value=value) if any((top, bottom, left, right)) else x


# ------------------------------------------------------------------------------------------------------ convolution


def _conv(x: Tensor, w: Tensor, b: Tensor | None = None, *, windows: Windows, groups: int) -> Tensor:
    _need_image("Conv", x)
    if w.ndim != 4:
        raise ShapeError(f"OnnxModule: Conv must have filters (F, C/groups, KH, KW), got shape {w.shape}")
    windows = windows._replace(kernel=w.shape[2:])
    sides = [windows.along(axis, size)[:2] for axis, size in enumerate(x.shape[2:])]
    even = all(before == after for before, after in sides)
    padding = tuple(before for before, _ in sides) if even else 0
    x = x if even else _framed(x, sides)
    return F.conv2d(x, w, b, windows.strides, padding, windows.dilations, groups)


def _bind_conv(a: Attributes) -> Any:
    return partial(_conv, windows=_windows(a, pooling=False), groups=_groups(a))


def _groups(a: Attributes) -> int:
    groups = a.whole("group", 1)
    if not 1 <= groups <= LARGEST:
        raise a.refuse(f"group must be from 1 to {LARGEST}", groups)
    return groups


def _conv_transpose(
    x: Tensor, w: Tensor, b: Tensor | None = None, *, windows: Windows, more: tuple[int, ...], groups: int
) -> Tensor:
    _need_image("ConvTranspose", x)
    top, left, bottom, right = windows.pads
    cut = min(top, bottom), min(left, right)
    y = F.conv_transpose2d(x, w, b, windows.strides, cut, more, groups, windows.dilations)
    return _framed(y, ((cut[0] - top, bottom - cut[0]), (cut[1] - left, cut[1] - right)))


def _bind_conv_transpose(a: Attributes) -> Any:
    if "output_shape" in a.values:
        raise a.refuse("output_shape must be left out; pads and output_padding say it", a.values["output_shape"])
    a.only("auto_pad", "NOTSET", "VALID")
    more = a.sizes("output_padding", (0, 0), 0)
    return partial(_conv_transpose, windows=_windows(a, pooling=False), more=more, groups=_groups(a))


# ---------------------------------------------------------------------------------------------------------- pooling


def _pooled_by(windows: Windows, x: Tensor, axes: Any) -> dict[str, Any]:
    """The keywords under which gpunet's own pooling has these windows, or nothing where it has none."""
    before = tuple(axis[0] for axis in axes)
    if any(p > k // 2 for p, k in zip(before, windows.kernel)):
        return {}
    for ceil in (False, True):
        other = windows._replace(ceil=ceil)
        counts = [other.fitting(axis, size, before[axis], before[axis]) for axis, size in enumerate(x.shape[2:])]
        if counts == [axis[3] for axis in axes]:
            return {"stride": windows.strides, "padding": before, "ceil_mode": ceil}
    return {}


def _max_pool(x: Tensor, *, windows: Windows) -> Tensor:
    _need_image("MaxPool", x)
    axes = [windows.along(axis, size) for axis, size in enumerate(x.shape[2:])]
    own = _pooled_by(windows, x, axes)
    if not own:
        x = _framed(x, [(before, after + beyond) for before, after, beyond, _ in axes], float("-inf"))
        own["stride"] = windows.strides
    return F.max_pool2d(x, windows.kernel, dilation=windows.dilations, **own)


def _bind_max_pool(a: Attributes) -> Any:
    a.only("storage_order", 0)
    return partial(_max_pool, windows=_windows(a, pooling=True))


def _avg_pool(x: Tensor, *, windows: Windows, include: bool) -> Tensor:
    """The sum of each window over the number of its elements that count."""
    _need_image("AveragePool", x)
    axes = [windows.along(axis, size) for axis, size in enumerate(x.shape[2:])]
    own = _pooled_by(windows, x, axes)
    if own and (not include or all(before == after for before, after, _, _ in axes)):
        return F.avg_pool2d(x, windows.kernel, count_include_pad=include, **own)
    sides, rest = [axis[:2] for axis in axes], [(0, axis[2]) for axis in axes]
    counted = _framed(ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device), sides, float(include))
    sums = [
        F.avg_pool2d(_framed(each, rest), windows.kernel, windows.strides, divisor_override=1)
        for each in (_framed(x, sides), counted)
    ]
    return sums[0] / sums[1]


def _bind_avg_pool(a: Attributes) -> Any:
    return partial(_avg_pool, windows=_windows(a, pooling=True), include=bool(a.only("count_include_pad", 0, 1)))


def _global(x: Tensor, *, kind: str) -> Tensor:
    _need_image(f"Global{kind}", x)
    return {"AveragePool": F.adaptive_avg_pool2d, "MaxPool": F.adaptive_max_pool2d}[kind](x, 1)


OPERATORS_IMAGES: dict[str, Binding] = {
    "Conv": _bind_conv, "ConvTranspose": _bind_conv_transpose, "MaxPool": _bind_max_pool,
    "AveragePool": _bind_avg_pool, "GlobalAveragePool": lambda _: partial(_global, kind="AveragePool"),
    "GlobalMaxPool": lambda _: partial(_global, kind="MaxPool"),
}  # fmt: skip
