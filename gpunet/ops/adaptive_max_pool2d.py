"""adaptive_max_pool2d: the maximum under windows that share the image out to a given size.

Kernels: kernels/adaptive_max_pool2d/. Cases: tests/cases.py under "adaptive_max_pool2d".
"""

from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function
from gpunet.ops.checks import adaptive_size, as_batch, like_input, need_float, need_image
from gpunet.tensor import Tensor

# As in max_pool2d: picking (Gather) and putting back (GradX) are each other's derivative. Here ``index`` is the
# winner's place in its image, row * W + column.


class AdaptiveMaxPool2d(Function):
    """y (N, C, OH, OW) from x (N, C, H, W); with ``with_index`` also the winners' places."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, output_size: tuple[int, int], with_index: bool) -> Any:
        ctx.input_size = x.shape[2:]
        y, index = launch(x.device, "adaptive_max_pool2d.forward", x.data, output_size=output_size)
        ctx.save(index)
        return (y, index) if with_index else y

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Any) -> Any:
        (index,) = ctx.saved
        return AdaptiveMaxPool2dGradX.apply(gy, index=index, input_size=ctx.input_size)


class AdaptiveMaxPool2dGradX(Function):
    """gx (N, C, H, W) from gy (N, C, OH, OW): each gradient added to the pixel that won."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, *, index: Any, input_size: tuple[int, int]) -> Any:
        ctx.save(index)
        return launch(gy.device, "adaptive_max_pool2d.grad_x", gy.data, index, input_size=input_size)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        (index,) = ctx.saved
        return AdaptiveMaxPool2dGather.apply(ggx, index=index)


class AdaptiveMaxPool2dGather(Function):
    """(N, C, OH, OW) from x (N, C, H, W): the values at the winning places."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, index: Any) -> Any:
        ctx.input_size = x.shape[2:]
        ctx.save(index)
        return launch(x.device, "adaptive_max_pool2d.gather", x.data, index)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (index,) = ctx.saved
        return AdaptiveMaxPool2dGradX.apply(gy, index=index, input_size=ctx.input_size)


def adaptive_max_pool2d(x: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maximum under OH x OW windows that share the image out as evenly as whole pixels allow.

    For an output of a fixed size from images of any size. Window i of the rows is ``floor(i * H / OH)`` up to
    ``ceil((i + 1) * H / OH)``, the latter not included.

    Args:
        x: images (N, C, H, W), or one image (C, H, W); float32 or float64. N may be 0.
        output_size: OH and OW, an integer or a pair, at least 1; None in a pair keeps that size of x.
        return_indices: whether to return the winners' places too.

    Returns:
        Tensor of shape (N, C, OH, OW), or (C, OH, OW) for one image. With return_indices a pair of that and an int64
        tensor of the same shape: the winner's place ``row * W + column`` in its image.

    Raises:
        ShapeError: x has not 3 or 4 axes, or an empty one other than N.
        ArgumentError: output_size is not one or two integers of at least 1.
        DTypeError: x is not a tensor of float32 or float64.

    Precision:
        Exact. When values tie the first in row order wins, and gets the gradient. A window that holds NaN gives NaN,
        and its last NaN in row order gets the gradient. Deterministic.

    Kernels:
        kernels/adaptive_max_pool2d/: adaptive_max_pool2d.forward, adaptive_max_pool2d.grad_x, and
        adaptive_max_pool2d.gather for second derivatives.

    Source:
        Derived in kernels/adaptive_max_pool2d/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([[[1.0, 3.0, 8.0]]])
        >>> y, place = gn.functional.adaptive_max_pool2d(x, (1, 2), return_indices=True)
        >>> y.tolist(), place.tolist()
        ([[[3.0, 8.0]]], [[[1, 2]]])
    """
    need_float("adaptive_max_pool2d", x=x)
    need_image("adaptive_max_pool2d", x)
    size = adaptive_size("adaptive_max_pool2d", x, output_size)
    out = AdaptiveMaxPool2d.apply(as_batch(x), output_size=size, with_index=return_indices)
    if not return_indices:
        return like_input(out, x)
    y, index = out
    return like_input(y, x), like_input(index, x)
