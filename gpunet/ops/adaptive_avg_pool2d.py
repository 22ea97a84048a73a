"""adaptive_avg_pool2d: the mean under windows that share the image out to a given size.

Kernels: kernels/adaptive_avg_pool2d/. Cases: tests/cases.py under "adaptive_avg_pool2d".
"""

from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function
from gpunet.ops.checks import adaptive_size, as_batch, like_input, need_float, need_image
from gpunet.tensor import Tensor

# The mean is linear, and the two Functions are each other's adjoint: derivatives of any order run through them.


class AdaptiveAvgPool2d(Function):
    """y (N, C, OH, OW) from x (N, C, H, W)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, output_size: tuple[int, int]) -> Any:
        ctx.input_size = x.shape[2:]
        return launch(x.device, "adaptive_avg_pool2d.forward", x.data, output_size=output_size)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return AdaptiveAvgPool2dGradX.apply(gy, input_size=ctx.input_size)


class AdaptiveAvgPool2dGradX(Function):
    """gx (N, C, H, W) from gy (N, C, OH, OW): each gradient shared out over its window."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, *, input_size: tuple[int, int]) -> Any:
        ctx.output_size = gy.shape[2:]
        return launch(gy.device, "adaptive_avg_pool2d.grad_x", gy.data, input_size=input_size)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        return AdaptiveAvgPool2d.apply(ggx, output_size=ctx.output_size)


def adaptive_avg_pool2d(x: Tensor, output_size: Any) -> Tensor:
    """The mean under OH x OW windows that share the image out as evenly as whole pixels allow.

    For an output of a fixed size from images of any size; ``output_size=1`` is the mean of each channel. Window i
    of the rows is ``floor(i * H / OH)`` up to ``ceil((i + 1) * H / OH)``, the latter not included.

    Args:
        x: images (N, C, H, W), or one image (C, H, W); float32 or float64. N may be 0.
        output_size: OH and OW, an integer or a pair, at least 1; None in a pair keeps that size of x.

    Returns:
        Tensor of shape (N, C, OH, OW), or (C, OH, OW) for one image.

    Raises:
        ShapeError: x has not 3 or 4 axes, or an empty one other than N.
        ArgumentError: output_size is not one or two integers of at least 1.
        DTypeError: x is not a tensor of float32 or float64.

    Precision:
        The sum of a window in the dtype of x, then one division. inf and NaN reach exactly the windows that hold
        them. Deterministic.

    Kernels:
        kernels/adaptive_avg_pool2d/: adaptive_avg_pool2d.forward, adaptive_avg_pool2d.grad_x.

    Source:
        Derived in kernels/adaptive_avg_pool2d/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([[[1.0, 3.0, 8.0]]])
        >>> gn.functional.adaptive_avg_pool2d(x, (1, 2)).tolist()
        [[[2.0, 5.5]]]
    """
    need_float("adaptive_avg_pool2d", x=x)
    need_image("adaptive_avg_pool2d", x)
    size = adaptive_size("adaptive_avg_pool2d", x, output_size)
    return like_input(AdaptiveAvgPool2d.apply(as_batch(x), output_size=size), x)
