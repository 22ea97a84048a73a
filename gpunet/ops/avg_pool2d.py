"""avg_pool2d: the mean under each position of a window.

Kernels: kernels/avg_pool2d/. Cases: tests/cases.py under "avg_pool2d". Benchmark: bench/suites/avg_pool2d.py.
"""

from typing import Any

import numpy as np

from gpunet.dispatch import launch
from gpunet.errors import ArgumentError
from gpunet.graph import Function
from gpunet.ops.checks import as_batch, like_input, need_float, need_image, pool_geometry
from gpunet.tensor import Tensor

# The mean is linear, and the two Functions are each other's adjoint: derivatives of any order run through them.
# ``windows`` is kernel_size, stride, padding, count_include_pad, divisor_override.


class AvgPool2d(Function):
    """y (N, C, OH, OW) from x (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, output_size: tuple[int, int], **windows: Any) -> Any:
        ctx.windows, ctx.input_size = windows, x.shape[2:]
        return launch(x.device, "avg_pool2d.forward", x.data, output_size=output_size, **windows)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return AvgPool2dGradX.apply(gy, input_size=ctx.input_size, **ctx.windows)


class AvgPool2dGradX(Function):
    """gx (N, C, H, W) from gy (N, C, OH, OW): each gradient shared out over its window."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, *, input_size: tuple[int, int], **windows: Any) -> Any:
        ctx.windows, ctx.output_size = windows, gy.shape[2:]
        return launch(gy.device, "avg_pool2d.grad_x", gy.data, input_size=input_size, **windows)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        return AvgPool2d.apply(ggx, output_size=ctx.output_size, **ctx.windows)


def avg_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean under each position of a window.

    Args:
        x: images (N, C, H, W), or one image (C, H, W); float32 or float64. N may be 0.
        kernel_size: rows and columns of the window, an integer or a pair (vertical, horizontal), at least 1.
        stride: step between windows in pixels, an integer or a pair, at least 1. None means kernel_size: windows do
            not overlap.
        padding: pixels of zeros on each side, an integer or a pair; at most half of kernel_size.
        ceil_mode: whether a last window may stick out at the bottom and on the right, so that no pixel is left over;
            it must still start inside the image or in the padding before it.
        count_include_pad: whether the padding counts in the divisor. What lies beyond it, in ceil_mode, never does.
        divisor_override: what the sum under each window is divided by, an integer other than 0; None for the number
            of elements.

    Returns:
        Tensor of shape (N, C, OH, OW), or (C, OH, OW) for one image, with
        ``OH = (H + 2 * padding - kernel_size) // stride + 1`` and OW likewise; with ceil_mode the division rounds up.

    Raises:
        ShapeError: x has not 3 or 4 axes or an empty one other than N, or the window is larger than the padded input.
        ArgumentError: kernel_size or stride below 1, padding below 0 or above half of kernel_size, or a
            divisor_override that is 0 or no integer.
        DTypeError: x is not a tensor of float32 or float64.

    Precision:
        The sum of a window in the dtype of x, then one division. inf and NaN reach exactly the windows that hold
        them. Deterministic.

    Kernels:
        kernels/avg_pool2d/: avg_pool2d.forward, avg_pool2d.grad_x.

    Source:
        Derived in kernels/avg_pool2d/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([[[1.0, 3.0, 8.0]]])
        >>> gn.functional.avg_pool2d(x, (1, 2), ceil_mode=True).tolist()
        [[[2.0, 8.0]]]
    """
    need_float("avg_pool2d", x=x)
    need_image("avg_pool2d", x)
    windows = pool_geometry("avg_pool2d", x, kernel_size, stride, padding, 1, ceil_mode)
    del windows["dilation"]  # averaging knows none
    if divisor_override is not None:
        whole = isinstance(divisor_override, int | np.integer) and not isinstance(divisor_override, bool)
        if not whole or divisor_override == 0:
            raise ArgumentError(
                f"avg_pool2d: divisor_override must be an integer other than 0, got {divisor_override!r}; "
                "None divides by the number of elements"
            )
    y = AvgPool2d.apply(
        as_batch(x), count_include_pad=bool(count_include_pad), divisor_override=divisor_override, **windows
    )
    return like_input(y, x)
