"""leaky_relu: x, or a fraction of x where it is negative. Kernels in kernels/leaky_relu/."""

from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function
from gpunet.ops.checks import need_float, need_number
from gpunet.tensor import Tensor


class LeakyRelu(Function):
    """x where positive, else negative_slope * x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, negative_slope: float) -> Any:
        ctx.negative_slope = negative_slope
        ctx.save(x)
        return launch(x.device, "leaky_relu.forward", x.data, negative_slope=negative_slope)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (x,) = ctx.saved
        return LeakyReluGradX.apply(gy, x, negative_slope=ctx.negative_slope)


class LeakyReluGradX(Function):
    """gy, scaled where x is not positive: linear in gy, so it is its own derivative; flat in x."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, *, negative_slope: float) -> Any:
        ctx.negative_slope = negative_slope
        ctx.save(x)
        return launch(gy.device, "leaky_relu.grad_x", gy.data, x.data, negative_slope=negative_slope)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        (x,) = ctx.saved
        need_gy, _ = ctx.needs_input_grad
        return LeakyReluGradX.apply(ggx, x, negative_slope=ctx.negative_slope) if need_gy else None, None


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else negative_slope * x, element by element.

    Like :func:`relu`, but a gradient flows everywhere. :func:`prelu` learns the slope.

    Args:
        x: any shape, float32 or float64.
        negative_slope: factor of the values that are not positive; any number.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.
        ArgumentError: negative_slope is no number, or NaN.

    Precision:
        One rounding. The slope at x = 0 is negative_slope. NaN stays NaN.

    Kernels:
        kernels/leaky_relu/: leaky_relu.forward, leaky_relu.grad_x.

    Source:
        Derived in kernels/leaky_relu/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.leaky_relu(gn.tensor([-2.0, 3.0]), negative_slope=0.25).tolist()
        [-0.5, 3.0]
    """
    need_float("leaky_relu", x=x)
    slope = need_number("leaky_relu", "negative_slope", negative_slope)
    return LeakyRelu.apply(x, negative_slope=slope)
