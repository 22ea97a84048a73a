"""conv_transpose2d: the adjoint of conv2d, an image made of filters placed at each pixel of a smaller one.

It owns no kernel: forward is conv2d.grad_x. Kernels: kernels/conv2d/. Cases: tests/cases.py under "conv2d".
"""

from typing import Any

from gpunet.errors import ArgumentError, ShapeError
from gpunet.ops.checks import as_batch, like_input, need_float, need_image, pair
from gpunet.ops.conv2d import Conv2dGradX, need_bias, need_groups, need_weight
from gpunet.tensor import Tensor


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Each pixel of x times the filter, laid down at stride times the pixel's place, all added up, plus the bias.

    What :func:`conv2d` with the same weight, stride, padding and dilation does to gradients: it undoes the *shape* of
    that convolution, not its values. Mind that weight begins with the channels of x, and that ``groups`` stands
    before ``dilation``.

    Args:
        x: images (N, C, H, W), or one image (C, H, W); float32 or float64. N may be 0.
        weight: filters (C, F/groups, KH, KW).
        bias: (F,), or None for no bias.
        stride: pixels of the result between neighbouring pixels of x, an integer or a pair (vertical, horizontal), at
            least 1.
        padding: pixels cut off each side of the result, an integer or a pair, at least 0.
        output_padding: pixels that the result has more at the bottom and on the right, an integer or a pair; below
            stride or below dilation. It settles which of the sizes is meant that conv2d with a stride maps to H.
        groups: number of parts of the channels; divides C and F.
        dilation: pixels between neighbouring weights of a filter, an integer or a pair, at least 1.

    Returns:
        Tensor of shape (N, F, OH, OW), or (F, OH, OW) for one image, with
        ``OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1`` and OW likewise.

    Raises:
        ShapeError: wrong number of axes, an empty axis other than N, channels or bias that do not fit, or a result
            without pixels.
        ArgumentError: stride, dilation or groups below 1, padding or output_padding below 0, output_padding too
            large, or groups that do not divide C and F.
        DTypeError: not a tensor, not float32 or float64, or two dtypes.
        DeviceError: two devices.

    Precision:
        As :func:`conv2d`; sums run over the filters' overlaps, the bias is added last.

    Kernels:
        kernels/conv2d/: conv2d.grad_x; its gradients are conv2d.forward and conv2d.grad_w.

    Source:
        Derived in kernels/conv2d/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([[[[1.0, 2.0]]]])
        >>> gn.functional.conv_transpose2d(x, gn.tensor([[[[1.0, 10.0]]]]), stride=2).tolist()
        [[[[1.0, 10.0, 2.0, 20.0]]]]
    """
    op = "conv_transpose2d"
    need_float(op, x=x, weight=weight, bias=bias)
    need_image(op, x)
    need_weight(op, weight)
    steps, holes = pair(op, "stride", stride, 1), pair(op, "dilation", dilation, 1)
    cut, extra = pair(op, "padding", padding, 0), pair(op, "output_padding", output_padding, 0)
    if x.shape[-3] != weight.shape[0]:
        raise ShapeError(
            f"{op}: x has {x.shape[-3]} channels but weight expects {weight.shape[0]}, "
            f"from x {x.shape} and weight {weight.shape}; weight is (C, F/groups, KH, KW)"
        )
    need_groups(op, groups, x.shape[-3], weight.shape[1] * groups, ("C", "F"))
    need_bias(op, bias, weight.shape[1] * groups)
    for more, step, hole in zip(extra, steps, holes, strict=True):
        if more >= max(step, hole):
            raise ArgumentError(
                f"{op}: output_padding must be below stride or below dilation, got {more} with stride {step} and "
                f"dilation {hole}"
            )
    size = _out_size(x, weight, steps, cut, extra, holes)
    if min(size) < 1:
        raise ShapeError(
            f"{op}: the result must have pixels, got size {size[0]}x{size[1]} from x {x.shape}, weight {weight.shape} "
            f"and padding {cut}; use less padding"
        )
    sides = (cut[0], cut[0], cut[1], cut[1])
    y = Conv2dGradX.apply(
        as_batch(x), weight, input_size=size, stride=steps, padding=sides, dilation=holes, groups=groups
    )
    if bias is not None:
        y = y + bias.reshape(-1, 1, 1)
    return like_input(y, x)


def _out_size(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    output_padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    """(OH, OW) by the formula in the docstring above."""
    sizes = [
        (size - 1) * s - 2 * p + d * (kernel - 1) + more + 1
        for size, kernel, s, p, more, d in zip(
            x.shape[-2:], weight.shape[2:], stride, padding, output_padding, dilation, strict=True
        )
    ]
    return sizes[0], sizes[1]
