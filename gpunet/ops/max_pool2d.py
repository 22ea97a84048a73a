"""max_pool2d: the largest value under each position of a window, and where it was.

Kernels: kernels/max_pool2d/. Cases: tests/cases.py under "max_pool2d". Benchmark: bench/suites/max_pool2d.py.
"""

from typing import Any

from gpunet.dispatch import launch
from gpunet.errors import ArgumentError
from gpunet.graph import Function
from gpunet.ops.checks import as_batch, like_input, need_float, need_image, pool_geometry
from gpunet.tensor import Tensor

# Once the winners are known, pooling picks elements and its gradient puts them back. Picking (Gather) and putting back
# (GradX) are adjoint, so each is the other's derivative and derivatives of any order run through these two.
# ``index`` is the winner's position in its window, k * KW + l; ``windows`` is kernel_size, stride, padding, dilation.


class MaxPool2d(Function):
    """y (N, C, OH, OW) from x (N, C, H, W); with ``with_index`` also the winners."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, output_size: tuple[int, int], with_index: bool, **windows: Any) -> Any:
        ctx.windows, ctx.input_size = windows, x.shape[2:]
        y, index = launch(x.device, "max_pool2d.forward", x.data, output_size=output_size, **windows)
        ctx.save(index)
        return (y, index) if with_index else y

    @staticmethod
    def backward(ctx: Any, gy: Tensor, *_: Any) -> Any:
        (index,) = ctx.saved
        return MaxPool2dGradX.apply(gy, index=index, input_size=ctx.input_size, **ctx.windows)


class MaxPool2dGradX(Function):
    """gx (N, C, H, W) from gy (N, C, OH, OW): each gradient added to the pixel that won."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, *, index: Any, input_size: tuple[int, int], **windows: Any) -> Any:
        ctx.windows = windows
        ctx.save(index)
        return launch(gy.device, "max_pool2d.grad_x", gy.data, index, input_size=input_size, **windows)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        (index,) = ctx.saved
        return MaxPool2dGather.apply(ggx, index=index, **ctx.windows)


class MaxPool2dGather(Function):
    """(N, C, OH, OW) from x (N, C, H, W): the values at the winning positions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, index: Any, **windows: Any) -> Any:
        ctx.windows, ctx.input_size = windows, x.shape[2:]
        ctx.save(index)
        return launch(x.device, "max_pool2d.gather", x.data, index, **windows)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (index,) = ctx.saved
        return MaxPool2dGradX.apply(gy, index=index, input_size=ctx.input_size, **ctx.windows)


def max_pool2d(
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """The largest value under each position of a window.

    Args:
        x: images (N, C, H, W), or one image (C, H, W); float32 or float64. N may be 0.
        kernel_size: rows and columns of the window, an integer or a pair (vertical, horizontal), at least 1.
        stride: step between windows in pixels, an integer or a pair, at least 1. None means kernel_size: windows do
            not overlap.
        padding: pixels of minus infinity on each side, an integer or a pair; at most half of kernel_size.
        dilation: step between the pixels of one window, an integer or a pair, at least 1.
        ceil_mode: whether a last window may stick out at the bottom and on the right, so that no pixel is left over;
            it must still start inside the image or in the padding before it.
        return_indices: whether to return the winners' places too.

    Returns:
        Tensor of shape (N, C, OH, OW), or (C, OH, OW) for one image, with
        ``OH = (H + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1`` and OW likewise; with ceil_mode
        the division rounds up. With return_indices a pair of that and an int64 tensor of the same shape: the
        winner's place ``row * W + column`` in its image.

    Raises:
        ShapeError: x has not 3 or 4 axes or an empty one other than N, or the window is larger than the padded input.
        ArgumentError: kernel_size, stride or dilation below 1, padding below 0 or above half of kernel_size, or a
            dilation so large that a window would see nothing but padding.
        DTypeError: x is not a tensor of float32 or float64.

    Precision:
        Exact. When values tie the first in row order wins, and gets the gradient. A window that holds NaN gives NaN,
        and its last NaN in row order gets the gradient. Deterministic.

    Kernels:
        kernels/max_pool2d/: max_pool2d.forward, max_pool2d.grad_x, and max_pool2d.gather for second derivatives.

    Source:
        Derived in kernels/max_pool2d/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([[[1.0, 5.0, 2.0, 2.0], [3.0, 4.0, 2.0, 0.0]]])
        >>> y, place = gn.functional.max_pool2d(x, 2, return_indices=True)
        >>> y.tolist(), place.tolist()
        ([[[5.0, 2.0]]], [[[1, 2]]])
    """
    need_float("max_pool2d", x=x)
    need_image("max_pool2d", x)
    windows = pool_geometry("max_pool2d", x, kernel_size, stride, padding, dilation, ceil_mode)
    _need_pixels(x, windows)
    out = MaxPool2d.apply(as_batch(x), with_index=return_indices, **windows)
    if not return_indices:
        return like_input(out, x)
    y, index = out
    return like_input(y, x), like_input(_places(index, x.shape[-1], windows), x)


def _need_pixels(x: Tensor, windows: dict[str, tuple[int, int]]) -> None:
    """Every window holds a pixel of the image: one that starts in the padding must not step over all of it."""
    names = ("kernel_size", "stride", "padding", "dilation", "output_size")
    for size, k, s, p, d, out in zip(x.shape[-2:], *(windows[name] for name in names), strict=True):
        for start in range(-p, min(0, out * s - p), s):  # of each window that begins in the padding
            if start % d >= size:  # its first pixel at 0 or beyond
                raise ArgumentError(
                    f"max_pool2d: every window must hold a pixel of the image, got one of {k} with dilation {d} "
                    f"that starts {-start} before an axis of {size} and steps over it; use less padding or dilation"
                )


def _places(index: Tensor, W: int, windows: dict[str, tuple[int, int]]) -> Tensor:
    """Positions in the window, k * KW + l, as places in the image, row * W + column."""
    xp = index.device.xp
    (_, KW), (sh, sw), (ph, pw), (dh, dw) = (windows[n] for n in ("kernel_size", "stride", "padding", "dilation"))
    OH, OW = windows["output_size"]
    position = index.data.astype(xp.int64)
    row = xp.arange(OH).reshape(-1, 1) * sh - ph + position // KW * dh
    column = xp.arange(OW) * sw - pw + position % KW * dw
    return Tensor._wrap(row * W + column, index.device)
