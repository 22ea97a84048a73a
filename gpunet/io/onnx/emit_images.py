"""Convolution and pooling as nodes of ONNX.

ONNX counts padding as all tops and lefts, then all bottoms and rights. What its rounding up of sizes (``ceil_mode``)
means differs between its versions and readers, so windows that stick out are written as padding that is there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.io.onnx.builder import Builder
from gpunet.io.onnx.emit import Step
from gpunet.ops.adaptive_avg_pool2d import AdaptiveAvgPool2d
from gpunet.ops.adaptive_max_pool2d import AdaptiveMaxPool2d
from gpunet.ops.avg_pool2d import AvgPool2d
from gpunet.ops.conv2d import Conv2d, Conv2dGradX, Conv2dRelu
from gpunet.ops.max_pool2d import MaxPool2d


def _geometry(s: Step) -> dict[str, Any]:
    top, bottom, left, right = s.params["padding"]
    return {
        "kernel_shape": list(s.shapes[0][1][2:]), "pads": [top, left, bottom, right],
        "strides": list(s.params["stride"]), "dilations": list(s.params["dilation"]), "group": s.params["groups"],
    }  # fmt: skip


def _conv(b: Builder, s: Step) -> str:
    inputs = [each for each in s.args if each is not None]
    y = b.node("Conv", *inputs, **_geometry(s))
    return b.node("Relu", y) if s.op is Conv2dRelu else y


def _conv_transpose(b: Builder, s: Step) -> str:
    geometry = _geometry(s)
    top, left, bottom, right = geometry["pads"]
    reach = [
        (size - 1) * stride + dilation * (kernel - 1) + 1 - pads
        for size, stride, dilation, kernel, pads in zip(
            s.shapes[0][0][2:], geometry["strides"], geometry["dilations"], geometry["kernel_shape"],
            (top + bottom, left + right),
        )
    ]  # fmt: skip
    more = [wanted - size for wanted, size in zip(s.params["input_size"], reach)]
    if all(extra < stride for extra, stride in zip(more, geometry["strides"])):
        return b.node("ConvTranspose", s.args[0], s.args[1], output_padding=more, **geometry)
    # Readers refuse so much of it. Its rows and columns are those that padding had cut off, then zeros.
    geometry["pads"] = [top, left, max(bottom - more[0], 0), max(right - more[1], 0)]
    zeros = [max(more[0] - bottom, 0), max(more[1] - right, 0)]
    return _framed(b, b.node("ConvTranspose", s.args[0], s.args[1], **geometry), s.dtype, [0, 0], zeros, 0.0)


def _windows(s: Step) -> tuple[dict[str, Any], list[int], list[int]]:
    """kernel_shape and strides, the padding before each axis, and the padding after it that all windows reach."""
    names = ("kernel_size", "stride", "padding", "output_size")
    kernel, stride, padding, output = (s.params[name] for name in names)
    dilation = s.params.get("dilation", (1, 1))
    after = [
        max(p, (o - 1) * step + d * (k - 1) + 1 - size - p)
        for k, step, p, o, d, size in zip(kernel, stride, padding, output, dilation, s.shapes[0][0][2:])
    ]
    return {"kernel_shape": list(kernel), "strides": list(stride)}, list(padding), after


def _framed(b: Builder, x: str, dtype: Any, before: list[int], after: list[int], value: float) -> str:
    """x with a frame around its pixels."""
    if not any(before + after):
        return x
    return b.node("Pad", x, b.sizes(0, 0, *before, 0, 0, *after), b.constant(value, dtype))


def _max_pool(b: Builder, s: Step) -> str:
    windows, before, after = _windows(s)
    windows["dilations"] = list(s.params["dilation"])
    if all(pad < k for pad, k in zip(before + after, windows["kernel_shape"] * 2)):
        return b.node("MaxPool", s.args[0], pads=before + after, **windows)
    # Readers refuse padding as large as the window, which a dilated one may need.
    return b.node("MaxPool", _framed(b, s.args[0], s.dtype, before, after, -np.inf), **windows)


def _avg_pool(b: Builder, s: Step) -> str:
    windows, before, after = _windows(s)
    divisor, area = s.params["divisor_override"], int(np.prod(windows["kernel_shape"]))
    if divisor is not None:
        y = b.node("AveragePool", s.args[0], pads=before + after, count_include_pad=1, **windows)
        return b.node("Mul", y, b.constant(area / divisor, s.dtype))
    if not s.params["count_include_pad"] or after == before:
        counts = int(s.params["count_include_pad"])
        return b.node("AveragePool", s.args[0], pads=before + after, count_include_pad=counts, **windows)
    # The padding counts, and what sticks out beyond it does not: so the padding becomes pixels.
    beyond = [a - p for a, p in zip(after, before)]
    pixels = _framed(b, s.args[0], s.dtype, before, before, 0.0)
    return b.node("AveragePool", pixels, pads=[0, 0, *beyond], **windows)


def _adaptive(s: Step) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    size, output = s.shapes[0][0][2:], s.params["output_size"]
    return size, output, all(n % o == 0 for n, o in zip(size, output))


def _window(i: int, size: int, output: int) -> tuple[int, int]:
    """Start and stop of window i of an axis, as adaptive pooling shares it out."""
    return i * size // output, -(-(i + 1) * size // output)


def _evenly(b: Builder, s: Step, kind: str) -> str:
    """Windows of one size, none overlapping."""
    size, output, _ = _adaptive(s)
    if tuple(output) == (1, 1):
        return b.node(f"Global{kind}", s.args[0])
    windows = [n // o for n, o in zip(size, output)]
    return b.node(kind, s.args[0], kernel_shape=windows, strides=windows)


def _adaptive_avg_pool(b: Builder, s: Step) -> str:
    """Uneven windows: the means along an axis are a product with a matrix of shares, rows first, then columns."""
    size, output, even = _adaptive(s)
    if even:
        return _evenly(b, s, "AveragePool")
    rows, columns = (np.zeros((o, n)) for n, o in zip(size, output))
    for shares in (rows, columns):
        for i, share in enumerate(shares):
            start, stop = _window(i, share.size, len(shares))
            share[start:stop] = 1 / (stop - start)
    y = b.node("MatMul", b.constant(rows, s.dtype), s.args[0])
    return b.node("MatMul", y, b.constant(columns.T, s.dtype))


def _adaptive_max_pool(b: Builder, s: Step) -> str:
    """Uneven windows: cut out one by one, rows first, then columns."""
    size, output, even = _adaptive(s)
    if even:
        return _evenly(b, s, "MaxPool")
    y = s.args[0]
    for axis, n, o in zip((2, 3), size, output):
        windows = [_window(i, n, o) for i in range(o)]
        cuts = [b.node("Slice", y, b.sizes(first), b.sizes(stop), b.sizes(axis)) for first, stop in windows]
        y = b.node("Concat", *[b.node("ReduceMax", cut, axes=[axis], keepdims=1) for cut in cuts], axis=axis)
    return y


EMIT_IMAGES: dict[type[Any], Callable[[Builder, Step], str]] = {
    Conv2d: _conv, Conv2dRelu: _conv, Conv2dGradX: _conv_transpose, MaxPool2d: _max_pool, AvgPool2d: _avg_pool,
    AdaptiveAvgPool2d: _adaptive_avg_pool, AdaptiveMaxPool2d: _adaptive_max_pool,
}  # fmt: skip
