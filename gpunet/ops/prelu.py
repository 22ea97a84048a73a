"""prelu: leaky_relu with a learned slope. Kernels in kernels/prelu/."""

from typing import Any

from gpunet.dispatch import launch
from gpunet.errors import ShapeError
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import need_float, need_given
from gpunet.ops.elementwise import where
from gpunet.tensor import Tensor


class Prelu(Function):
    """x where positive, else w * x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Any:
        ctx.save(x, w)
        return launch(x.device, "prelu.forward", x.data, w.data)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, w = ctx.saved
        need_x, need_w = ctx.needs_input_grad
        return PreluGradX.apply(gy, x, w) if need_x else None, PreluGradW.apply(gy, x, w) if need_w else None


def _along_channels(w: Tensor, x: Tensor) -> Tensor:
    """w so that it broadcasts against x: one number, or along axis 1."""
    return w.reshape(()) if w.numel() == 1 else w.reshape(-1, *[1] * (x.ndim - 2))


class PreluGradX(GradFunction):
    """gy where x is positive, else w * gy."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, w: Tensor) -> Any:
        return launch(gy.device, "prelu.grad_x", gy.data, x.data, w.data)

    @staticmethod
    def formula(gy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return where(x > 0, gy, _along_channels(w, x) * gy)


class PreluGradW(GradFunction):
    """gy * x summed, for each w, over the elements it scaled."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, w: Tensor) -> Any:
        return launch(gy.device, "prelu.grad_w", gy.data, x.data, w.data)

    @staticmethod
    def formula(gy: Tensor, x: Tensor, w: Tensor) -> Tensor:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1 or w.numel() == 1)
        return where(x > 0, 0.0, gy * x).sum(axes).reshape(w.shape)


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """x where it is positive, else weight * x, with one weight for all or one for each channel.

    :func:`leaky_relu` with a slope that is trained.

    Args:
        x: (N, C, ...), float32 or float64; any shape when weight holds one number.
        weight: (C,) or (1,), in x's dtype.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: an argument is no tensor, does not hold floats, or the two dtypes differ.
        DeviceError: x and weight are on two devices.
        ShapeError: weight has neither shape (1,) nor (C,).

    Precision:
        One rounding; the sums of weight's gradient are taken in float64 on NumPy. At x = 0 the slope is weight. NaN
        stays NaN.

    Kernels:
        kernels/prelu/: prelu.forward, prelu.grad_x, prelu.grad_w.

    Source:
        He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, section 2.1.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.prelu(gn.tensor([[-2.0, -2.0]]), gn.tensor([0.5, 0.25])).tolist()
        [[-1.0, -0.5]]
    """
    need_given("prelu", weight=weight)
    need_float("prelu", x=x, weight=weight)
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        of_channels = f" or ({channels},), one for each channel" if x.ndim > 1 else ""
        raise ShapeError(f"prelu: weight must have shape (1,){of_channels}, got {weight.shape} with x {x.shape}")
    return Prelu.apply(x, weight)
