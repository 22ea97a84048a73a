"""conv2d: filters slid over images, and the three Functions that its derivatives of any order are made of.

Kernels: kernels/conv2d/. Cases: tests/cases.py under "conv2d". Benchmark: bench/suites/conv2d.py.
"""

from typing import Any

import numpy as np

from gpunet.dispatch import fuses, launch
from gpunet.errors import ArgumentError, ShapeError
from gpunet.graph import Function
from gpunet.kernels.common.shapes import conv_out_size
from gpunet.ops.checks import as_batch, like_input, need_float, need_given, need_image, need_ndim, one_of, pair
from gpunet.ops.reduce import Expand
from gpunet.ops.relu import ReluGradX, relu
from gpunet.tensor import Tensor

# The three products below share one index formula (kernels/conv2d/__init__.py). Each is linear in its two arguments,
# and its derivatives are the other two, as a cycle:
#
#     y  = Conv2d(x, w)            gx = Conv2dGradX(gy, w)          gw = Conv2dGradW(gy, x)
#
# ``geometry`` is stride, padding (top, bottom, left, right), dilation and groups: the same in all three.


class Conv2d(Function):
    """y (N, F, OH, OW) from x (N, C, H, W), w (F, C/groups, KH, KW) and b (F,) or None."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, **geometry: Any) -> Any:
        ctx.geometry, ctx.input_size, ctx.kernel_size = geometry, x.shape[2:], w.shape[2:]
        need_x, need_w, _ = ctx.needs_input_grad
        ctx.save(x if need_w else None, w if need_x else None)  # each is needed for the other's gradient alone
        return launch(x.device, "conv2d.forward", x.data, w.data, None if b is None else b.data, **geometry)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, w = ctx.saved
        return _gradients(ctx, gy, x, w)


def _gradients(ctx: Any, gy: Tensor, x: Tensor, w: Tensor) -> Any:
    """Those of x, w and b that are needed, from the gradient of the sums."""
    need_x, need_w, need_b = ctx.needs_input_grad
    gx = Conv2dGradX.apply(gy, w, input_size=ctx.input_size, **ctx.geometry) if need_x else None
    gw = Conv2dGradW.apply(gy, x, kernel_size=ctx.kernel_size, **ctx.geometry) if need_w else None
    gb = Conv2dGradB.apply(gy) if need_b else None
    return gx, gw, gb


class Conv2dRelu(Function):
    """The positive part of Conv2d, in one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, **geometry: Any) -> Any:
        ctx.geometry, ctx.input_size, ctx.kernel_size = geometry, x.shape[2:], w.shape[2:]
        need_x, need_w, _ = ctx.needs_input_grad
        y = launch(x.device, "conv2d.forward_relu", x.data, w.data, None if b is None else b.data, **geometry)
        ctx.save(x if need_w else None, w if need_x else None, y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, w, y = ctx.saved
        return _gradients(ctx, ReluGradX.apply(gy, y), x, w)


class Conv2dGradX(Function):
    """gx (N, C, H, W) from gy (N, F, OH, OW) and w; on its own, the transposed convolution."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, w: Tensor, *, input_size: tuple[int, int], **geometry: Any) -> Any:
        ctx.geometry, ctx.output_size, ctx.kernel_size = geometry, gy.shape[2:], w.shape[2:]
        need_gy, need_w = ctx.needs_input_grad
        ctx.save(gy if need_w else None, w if need_gy else None)
        return launch(gy.device, "conv2d.grad_x", gy.data, w.data, input_size=input_size, **geometry)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        gy, w = ctx.saved
        need_gy, need_w = ctx.needs_input_grad
        ggy = _windows_of(ctx.output_size, ggx, w, ctx.geometry) if need_gy else None
        gw = Conv2dGradW.apply(gy, ggx, kernel_size=ctx.kernel_size, **ctx.geometry) if need_w else None
        return ggy, gw


class Conv2dGradW(Function):
    """gw (F, C/groups, KH, KW) from gy (N, F, OH, OW) and x (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, *, kernel_size: tuple[int, int], **geometry: Any) -> Any:
        ctx.geometry, ctx.output_size, ctx.input_size = geometry, gy.shape[2:], x.shape[2:]
        need_gy, need_x = ctx.needs_input_grad
        ctx.save(gy if need_x else None, x if need_gy else None)
        return launch(gy.device, "conv2d.grad_w", gy.data, x.data, kernel_size=kernel_size, **geometry)

    @staticmethod
    def backward(ctx: Any, ggw: Tensor) -> Any:
        gy, x = ctx.saved
        need_gy, need_x = ctx.needs_input_grad
        ggy = _windows_of(ctx.output_size, x, ggw, ctx.geometry) if need_gy else None
        gx = Conv2dGradX.apply(gy, ggw, input_size=ctx.input_size, **ctx.geometry) if need_x else None
        return ggy, gx


class Conv2dGradB(Function):
    """gb (F,) from gy (N, F, OH, OW): the sum over images and pixels. Its adjoint repeats a number over them."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor) -> Any:
        ctx.shape = gy.shape
        return launch(gy.device, "conv2d.grad_b", gy.data)

    @staticmethod
    def backward(ctx: Any, ggb: Tensor) -> Any:
        return Expand.apply(ggb.reshape(1, ctx.shape[1], 1, 1), shape=ctx.shape)


def _windows_of(output_size: tuple[int, int], x: Tensor, w: Tensor, geometry: dict[str, Any]) -> Tensor:
    """Conv2d of x and w, cut to the windows that the differentiated product had.

    A transposed convolution may add so many rows (output_padding >= stride) that more windows fit into its result
    than it was made of. Those belong to no element of its input.
    """
    y = Conv2d.apply(x, w, None, **geometry)
    return y if y.shape[2:] == output_size else y[:, :, : output_size[0], : output_size[1]]


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    activation: str | None = None,
) -> Tensor:
    """Every filter's inner product with the window of pixels under each of its positions, plus the filter's bias.

    The filter is not turned round: this is cross-correlation, as in every deep-learning library. With ``groups`` the
    channels are split into that many parts of equal size, each seen by its own F / groups filters; ``groups=C`` is a
    depthwise convolution.

    Args:
        x: images (N, C, H, W), or one image (C, H, W); float32 or float64. N may be 0.
        weight: filters (F, C/groups, KH, KW).
        bias: (F,), or None for no bias.
        stride: step between windows in pixels, an integer or a pair (vertical, horizontal), at least 1.
        padding: pixels of zeros on each side, an integer or a pair (top and bottom, left and right), at least 0;
            "valid" for none; "same" for as many as make OH = H and OW = W, an odd one at the bottom or on the right,
            which needs stride 1.
        dilation: step between the pixels of one window, an integer or a pair, at least 1.
        groups: number of parts; divides C and F.
        activation: None, or "relu" for the positive part of the result, which a GPU kernel can finish before it
            writes the sum.

    Returns:
        Tensor of shape (N, F, OH, OW), or (F, OH, OW) for one image, with
        ``OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1`` and OW likewise.

    Raises:
        ShapeError: wrong number of axes, an empty axis other than N, channels or bias that do not fit, or a window
            larger than the padded input.
        ArgumentError: stride, dilation or groups below 1, padding below 0 or an unknown word, "same" with a stride,
            groups that do not divide C and F, or another activation.
        DTypeError: not a tensor, not float32 or float64, or two dtypes.
        DeviceError: two devices.

    Precision:
        Sums of C/groups * KH * KW products in the dtype of the inputs, in an order that is the kernel's own.
        inf and NaN reach exactly the outputs whose windows hold them; padding beside a weight that is not finite is
        not specified. Deterministic on one machine and one kernel.

    Kernels:
        kernels/conv2d/: conv2d.forward, conv2d.grad_x, conv2d.grad_w, conv2d.grad_b; derivatives of any order run
        through these four. With an activation, conv2d.forward_relu where the device has kernels for it
        (:func:`gpunet.use_fused` decides by name).

    Source:
        Derived in kernels/conv2d/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([[[[1.0, 2.0, 4.0]]]])
        >>> gn.functional.conv2d(x, gn.tensor([[[[-1.0, 1.0]]]])).tolist()
        [[[[1.0, 2.0]]]]
        >>> gn.functional.conv2d(gn.ones(8, 3, 32, 32), gn.ones(16, 3, 5, 5), stride=2, padding=2).shape
        (8, 16, 16, 16)
    """
    need_float("conv2d", x=x, weight=weight, bias=bias)
    need_image("conv2d", x)
    need_weight("conv2d", weight)
    steps, holes = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    need_groups("conv2d", groups, x.shape[-3], weight.shape[0], ("C", "F"))
    if x.shape[-3] != weight.shape[1] * groups:
        raise ShapeError(
            f"conv2d: x has {x.shape[-3]} channels but weight expects {weight.shape[1] * groups}"
            f"{f' ({weight.shape[1]} in each of {groups} groups)' if groups > 1 else ''}, "
            f"from x {x.shape} and weight {weight.shape}"
        )
    need_bias("conv2d", bias, weight.shape[0])
    one_of("conv2d", "activation", activation, (None, "relu"))
    sides = _four_sides(padding, weight.shape[2:], steps, holes)
    if min(conv_out_size(x.shape[-2:], weight.shape[2:], steps, sides, holes)) < 1:
        raise ShapeError(_too_large(x, weight, sides, holes))
    images, geometry = as_batch(x), {"stride": steps, "padding": sides, "dilation": holes, "groups": groups}
    if activation is None:
        y = Conv2d.apply(images, weight, bias, **geometry)
    elif fuses(x.device, "conv2d.forward_relu", "conv2d.forward", "relu.forward"):
        y = Conv2dRelu.apply(images, weight, bias, **geometry)
    else:
        y = relu(Conv2d.apply(images, weight, bias, **geometry))
    return like_input(y, x)


def need_weight(op: str, weight: Tensor) -> None:
    """Filters are there and have four axes, none of them empty."""
    need_given(op, weight=weight)
    need_ndim(op, "weight", weight, (4,), "(F, C/groups, KH, KW)" if op == "conv2d" else "(C, F/groups, KH, KW)")
    if 0 in weight.shape:
        raise ShapeError(f"{op}: every size of weight must be at least 1, got shape {weight.shape}")


def need_bias(op: str, bias: Tensor | None, filters: int) -> None:
    """The bias is one number a filter."""
    if bias is not None and bias.shape != (filters,):
        raise ShapeError(
            f"{op}: bias must have shape ({filters},), one number for each output channel, got {bias.shape}"
        )


def need_groups(op: str, groups: Any, first: int, second: int, names: tuple[str, str]) -> None:
    """``groups`` is an integer that divides both numbers of channels."""
    if isinstance(groups, bool) or not isinstance(groups, int | np.integer) or groups < 1:
        raise ArgumentError(f"{op}: groups must be an integer of at least 1, got {groups!r}")
    for name, size in zip(names, (first, second), strict=True):
        if size % groups:
            divisors = ", ".join(str(each) for each in range(1, size + 1) if size % each == 0)
            raise ArgumentError(f"{op}: groups must divide {name} = {size}, got {groups}; possible are {divisors}")


def _four_sides(
    padding: Any, kernel_size: tuple[int, ...], stride: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """``padding`` as (top, bottom, left, right)."""
    if isinstance(padding, str):
        one_of("conv2d", "padding", padding, ("same", "valid"))
        if padding == "valid":
            return 0, 0, 0, 0
        if stride != (1, 1):
            raise ArgumentError(
                f"conv2d: padding='same' needs stride 1, got stride {stride}; give the padding as a number"
            )
        both = [d * (size - 1) for d, size in zip(dilation, kernel_size, strict=True)]
        return both[0] // 2, both[0] - both[0] // 2, both[1] // 2, both[1] - both[1] // 2
    ph, pw = pair("conv2d", "padding", padding, 0)
    return ph, ph, pw, pw


def _too_large(x: Tensor, weight: Tensor, sides: tuple[int, int, int, int], dilation: tuple[int, int]) -> str:
    (H, W), (KH, KW) = x.shape[-2:], weight.shape[2:]
    span = f"{dilation[0] * (KH - 1) + 1}x{dilation[1] * (KW - 1) + 1}"
    made_of = f" ({KH}x{KW} with dilation {dilation[0]}x{dilation[1]})" if dilation != (1, 1) else ""
    return (
        f"conv2d: the window must fit into the padded input, got a window of {span}{made_of} and an input of "
        f"{H + sides[0] + sides[1]}x{W + sides[2] + sides[3]} ({H}x{W} and padding); "
        "use a smaller window or more padding"
    )
