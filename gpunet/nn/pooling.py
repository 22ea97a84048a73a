"""Pooling layers: MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, AdaptiveMaxPool2d."""

from typing import Any

from gpunet import functional as F
from gpunet.errors import ArgumentError
from gpunet.nn.module import Module
from gpunet.ops.checks import pair, whole
from gpunet.tensor import Tensor


def _window(op: str, kernel_size: Any, stride: Any, padding: Any) -> None:
    """Refuses at once what the op would refuse at the first batch."""
    size = pair(op, "kernel_size", kernel_size, 1)
    if stride is not None:
        pair(op, "stride", stride, 1)
    sides = pair(op, "padding", padding, 0)
    if any(2 * side > k for side, k in zip(sides, size)):
        raise ArgumentError(f"{op}: padding must be at most half of kernel_size, got {padding} and {kernel_size}")


class MaxPool2d(Module):
    """The largest value under each position of a window; see ``functional.max_pool2d``.

    Args:
        kernel_size: rows and columns of the window, an integer or a pair (vertical, horizontal).
        stride: step between windows in pixels, an integer or a pair; None means kernel_size.
        padding: pixels of minus infinity on each side, at most half of kernel_size.
        dilation: step between the pixels of one window.
        return_indices: whether to return the winners' places too.
        ceil_mode: whether a last window may stick out at the bottom and on the right.

    Returns:
        (N, C, OH, OW), with ``OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1``, rounded up in
        ceil_mode, and OW likewise. With return_indices a pair of that and int64 places ``row * W + column``.

    Raises:
        ArgumentError: a size or step below 1, or too much padding.
        ShapeError: in forward, the window is larger than the padded input.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.MaxPool2d(2, ceil_mode=True)(gn.zeros(1, 3, 7, 7)).shape
        (1, 3, 4, 4)
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        super().__init__()
        _window("MaxPool2d", kernel_size, stride, padding)
        pair("MaxPool2d", "dilation", dilation, 1)
        self.kernel_size, self.padding, self.dilation = kernel_size, padding, dilation
        self.stride = kernel_size if stride is None else stride
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def forward(self, x: Tensor) -> Any:
        """(N, C, H, W) to (N, C, OH, OW)."""
        window = (self.kernel_size, self.stride, self.padding, self.dilation)
        return F.max_pool2d(x, *window, ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        """Arguments of the constructor."""
        text = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{text}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class AvgPool2d(Module):
    """The mean under each position of a window; see ``functional.avg_pool2d``.

    Args:
        kernel_size: rows and columns of the window, an integer or a pair (vertical, horizontal).
        stride: step between windows in pixels, an integer or a pair; None means kernel_size.
        padding: pixels of zeros on each side, at most half of kernel_size.
        ceil_mode: whether a last window may stick out at the bottom and on the right.
        count_include_pad: whether zeros of the padding count in the number of pixels that divides the sum.
        divisor_override: what divides the sum instead of the number of pixels; None for that number.

    Returns:
        (N, C, OH, OW), with ``OH = (H + 2 * padding - KH) // stride + 1``, rounded up in ceil_mode, and OW likewise.

    Raises:
        ArgumentError: a size or step below 1, too much padding, or a divisor of 0.
        ShapeError: in forward, the window is larger than the padded input.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.AvgPool2d(2)(gn.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])).tolist()
        [[[[2.5]]]]
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ):
        super().__init__()
        _window("AvgPool2d", kernel_size, stride, padding)
        if divisor_override is not None and (isinstance(divisor_override, bool) or divisor_override == 0):
            raise ArgumentError(f"AvgPool2d: divisor_override must not be 0, got {divisor_override!r}")
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, OH, OW)."""
        counting = (self.ceil_mode, self.count_include_pad, self.divisor_override)
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, *counting)

    def extra_repr(self) -> str:
        """Window of the constructor."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _Adaptive(Module):
    output_size: Any

    def _set_up(self, output_size: Any) -> None:
        for size in output_size if isinstance(output_size, list | tuple) else (output_size,):
            if size is not None:
                whole(type(self).__name__, "output_size", size)
        self.output_size = output_size

    def extra_repr(self) -> str:
        """Size of the output."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool2d(_Adaptive):
    """The mean under windows chosen so that the output has a given size, whatever the input's.

    Args:
        output_size: (OH, OW), or one integer for both; None in either place keeps the input's size.

    Returns:
        (N, C, OH, OW). Window i covers rows ``floor(i * H / OH)`` to ``ceil((i + 1) * H / OH)``, columns likewise.

    Raises:
        ArgumentError: a size that is no integer of at least 1.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.AdaptiveAvgPool2d(1)(gn.ones(2, 3, 5, 4)).shape
        (2, 3, 1, 1)
    """

    def __init__(self, output_size: Any):
        super().__init__()
        self._set_up(output_size)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, OH, OW)."""
        return F.adaptive_avg_pool2d(x, self.output_size)


class AdaptiveMaxPool2d(_Adaptive):
    """The largest value under windows chosen so that the output has a given size, whatever the input's.

    Args:
        output_size: (OH, OW), or one integer for both; None in either place keeps the input's size.
        return_indices: whether to return the winners' places ``row * W + column`` too.

    Returns:
        (N, C, OH, OW), windows as for :class:`AdaptiveAvgPool2d`; with return_indices a pair of that and int64 places.

    Raises:
        ArgumentError: a size that is no integer of at least 1.

    Example:
        >>> import gpunet as gn
        >>> gn.nn.AdaptiveMaxPool2d((1, 2))(gn.tensor([[[[1.0, 2.0, 3.0, 0.0]]]])).tolist()
        [[[[2.0, 3.0]]]]
    """

    def __init__(self, output_size: Any, return_indices: bool = False):
        super().__init__()
        self._set_up(output_size)
        self.return_indices = return_indices

    def forward(self, x: Tensor) -> Any:
        """(N, C, H, W) to (N, C, OH, OW)."""
        return F.adaptive_max_pool2d(x, self.output_size, return_indices=self.return_indices)
