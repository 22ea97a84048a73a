"""Convolutional layers: Conv2d, ConvTranspose2d."""

from typing import Any

from gpunet import functional as F
from gpunet.errors import ArgumentError, ShapeError
from gpunet.nn.linear import draw_weights, empty
from gpunet.nn.module import Module
from gpunet.nn.parameter import Parameter
from gpunet.ops.checks import one_of, pair, whole
from gpunet.tensor import Tensor


class _Conv(Module):
    """What both have in common: checked sizes, weight and bias."""

    bias: Parameter | None
    weight: Parameter

    def _set_up(self, channels: tuple[int, int], geometry: dict[str, Any], groups: int, padding_mode: str) -> None:
        op = type(self).__name__
        self.in_channels = whole(op, "in_channels", channels[0])
        self.out_channels = whole(op, "out_channels", channels[1])
        self.groups = whole(op, "groups", groups)
        for name, size in (("in_channels", channels[0]), ("out_channels", channels[1])):
            if size % groups:
                raise ArgumentError(f"{op}: groups must divide {name} = {size}, got {groups}")
        for name, value in geometry.items():
            minimum = 0 if "padding" in name else 1
            setattr(self, name, value if isinstance(value, str) else pair(op, name, value, minimum))
        self.padding_mode = one_of(op, "padding_mode", padding_mode, ("zeros",))

    def _make(self, shape: tuple[int, ...], bias: bool, device: Any, dtype: Any) -> None:
        op = type(self).__name__
        self.weight = empty(op, shape, device, dtype)
        self.register_parameter("bias", empty(op, (self.out_channels,), device, dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new start values."""
        draw_weights(self.weight, self.bias)

    def extra_repr(self) -> str:
        """Channels, then the geometry; what has its usual value is left out."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        usual = {"padding": (0, 0), "output_padding": (0, 0), "dilation": (1, 1), "groups": 1}
        for name, value in usual.items():
            if getattr(self, name, value) != value:
                text += f", {name}={getattr(self, name)}"
        return text if self.bias is not None else f"{text}, bias=False"


class Conv2d(_Conv):
    """Cross-correlation of images with learned filters, plus a bias for each filter; see ``functional.conv2d``.

    Args:
        in_channels: C of the input.
        out_channels: F, the number of filters.
        kernel_size: (KH, KW) in pixels, or one integer for both.
        stride: step between windows in pixels, an integer or a pair (vertical, horizontal).
        padding: pixels of zeros on each side, an integer or a pair; or "valid" for none, "same" for as many as keep
            height and width, which needs stride 1.
        dilation: step between the pixels of one window, an integer or a pair.
        groups: number of parts into which channels and filters are split; divides both.
        bias: whether each filter adds a number.
        padding_mode: "zeros" alone.
        device: where the parameters live; None for the default device.
        dtype: float32 or float64; None for float32.
        activation: None, or "relu" for the positive part of the result, in the same pass where the device can.

    Attributes:
        weight: (F, C/groups, KH, KW), uniform with bound 1 / sqrt(C/groups * KH * KW).
        bias: (F,), uniform with the same bound; or None.

    Returns:
        (N, F, OH, OW) for an input (N, C, H, W), with
        ``OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1`` and OW likewise.

    Raises:
        ArgumentError: a size that is no integer of at least 1 (padding: 0), groups that do not divide the channels,
            "same" with a stride, another padding mode or another activation.
        ShapeError: in forward, the input does not have C channels or is smaller than the window.

    Source:
        Start values as in PyTorch: He et al. 2015 with slope sqrt(5).

    Example:
        >>> import gpunet as gn
        >>> gn.nn.Conv2d(3, 8, 3, padding="same")(gn.zeros(2, 3, 9, 9)).shape
        (2, 8, 9, 9)
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: Any
    dilation: tuple[int, int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        activation: str | None = None,
    ):
        super().__init__()
        geometry = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        self._set_up((in_channels, out_channels), geometry, groups, padding_mode)
        if isinstance(padding, str):
            one_of("Conv2d", "padding", padding, ("same", "valid"))
            if padding == "same" and self.stride != (1, 1):
                raise ArgumentError(f"Conv2d: padding='same' needs stride 1, got {stride!r}; give it as a number")
        self.activation = one_of("Conv2d", "activation", activation, (None, "relu"))
        self._make((out_channels, in_channels // groups, *self.kernel_size), bias, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, F, OH, OW)."""
        geometry = self.stride, self.padding, self.dilation, self.groups
        return F.conv2d(x, self.weight, self.bias, *geometry, self.activation)

    def extra_repr(self) -> str:
        """Channels, geometry, and the activation if there is one."""
        text = super().extra_repr()
        return text if self.activation is None else f"{text}, activation={self.activation!r}"


class ConvTranspose2d(_Conv):
    """The adjoint of :class:`Conv2d`: from an image of its output size to one of its input size.

    Args:
        in_channels: C of the input.
        out_channels: F of the output.
        kernel_size: (KH, KW) in pixels, or one integer for both.
        stride: step in the output between the windows of neighbouring inputs, an integer or a pair.
        padding: rows and columns cut from each side of the output, an integer or a pair.
        output_padding: rows and columns more at the bottom and on the right, an integer or a pair; below stride or
            dilation.
        groups: number of parts into which the channels are split; divides both.
        bias: whether each output channel adds a number.
        dilation: step between the pixels of one window, an integer or a pair.
        padding_mode: "zeros" alone.
        device: where the parameters live; None for the default device.
        dtype: float32 or float64; None for float32.

    Attributes:
        weight: (C, F/groups, KH, KW), uniform with bound 1 / sqrt(F/groups * KH * KW).
        bias: (F,), uniform with the same bound; or None.

    Returns:
        (N, F, OH, OW) for an input (N, C, H, W), with
        ``OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1`` and OW likewise.

    Raises:
        ArgumentError: a size that is no integer of at least 1 (padding: 0), groups that do not divide the channels,
            or another padding mode.
        ShapeError: in forward, the input does not have C channels, or an output_size that cannot be reached.

    Source:
        Start values as in PyTorch: He et al. 2015 with slope sqrt(5).

    Example:
        >>> import gpunet as gn
        >>> up = gn.nn.ConvTranspose2d(8, 3, 2, stride=2)
        >>> up(gn.zeros(1, 8, 5, 5)).shape, up(gn.zeros(1, 8, 5, 5), output_size=(11, 10)).shape
        ((1, 3, 10, 10), (1, 3, 11, 10))
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__()
        geometry = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
        geometry |= {"output_padding": output_padding, "dilation": dilation}
        if isinstance(padding, str):
            raise ArgumentError(f"ConvTranspose2d: padding must be an integer or a pair, got {padding!r}")
        self._set_up((in_channels, out_channels), geometry, groups, padding_mode)
        self._make((in_channels, out_channels // groups, *self.kernel_size), bias, device, dtype)

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        """(N, C, H, W) to (N, F, OH, OW); ``output_size`` (OH, OW) chooses the output_padding for this call."""
        extra = self.output_padding if output_size is None else self._extra_for(x, output_size)
        geometry = (self.stride, self.padding, extra, self.groups, self.dilation)
        return F.conv_transpose2d(x, self.weight, self.bias, *geometry)

    def _extra_for(self, x: Tensor, output_size: Any) -> tuple[int, int]:
        wanted = tuple(output_size)[-2:]
        least = [
            (size - 1) * s - 2 * p + d * (k - 1) + 1
            for size, s, p, d, k in zip(x.shape[-2:], self.stride, self.padding, self.dilation, self.kernel_size)
        ]
        most = [low + max(s, d) - 1 for low, s, d in zip(least, self.stride, self.dilation)]
        if len(wanted) != 2 or not all(low <= size <= high for low, size, high in zip(least, wanted, most)):
            raise ShapeError(
                f"ConvTranspose2d: output_size must lie between {tuple(least)} and {tuple(most)} for an input of shape "
                f"{x.shape}, got {tuple(output_size)}"
            )
        return wanted[0] - least[0], wanted[1] - least[1]
