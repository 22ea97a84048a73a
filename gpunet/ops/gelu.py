"""gelu: x times the normal distribution function of x. Kernels in kernels/gelu/."""

import math
from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function
from gpunet.ops.checks import need_float, one_of
from gpunet.tensor import Tensor

CUBIC = 0.044715  # of the tanh form; kernels/gelu/__init__.py has the formulas


class Gelu(Function):
    """x * Phi(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, approximate: str) -> Any:
        ctx.approximate = approximate
        ctx.save(x)
        return launch(x.device, "gelu.forward", x.data, approximate=approximate)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (x,) = ctx.saved
        return GeluGradX.apply(gy, x, approximate=ctx.approximate)


class GeluGradX(Function):
    """gy * slope(x): linear in gy, so the derivative by gy is itself; the one by x is in tensor ops."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, *, approximate: str) -> Any:
        ctx.approximate = approximate
        ctx.save(gy, x)
        return launch(gy.device, "gelu.grad_x", gy.data, x.data, approximate=approximate)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        gy, x = ctx.saved
        need_gy, need_x = ctx.needs_input_grad
        ggy = GeluGradX.apply(ggx, x, approximate=ctx.approximate) if need_gy else None
        return ggy, ggx * gy * _curvature(x, ctx.approximate) if need_x else None


def _curvature(x: Tensor, approximate: str) -> Tensor:
    """The second derivative of gelu. Smooth tensor ops, so that the third and further ones exist."""
    if approximate == "none":
        # slope = Phi + x * phi, and phi' = -x * phi for the normal density phi
        return (2 - x * x) * (x * x * -0.5).exp() * (1 / math.sqrt(2 * math.pi))
    k = math.sqrt(2 / math.pi)
    u1 = (x * x * (3 * CUBIC) + 1) * k  # u'
    u2 = x * (6 * CUBIC * k)  # u''
    z = (x * x * CUBIC + 1) * x * (2 * k)
    s, t = z.sigmoid(), (-z).sigmoid()  # y = x * s, s = sigmoid(2 * u); t = 1 - s, without the cancellation
    s1 = 2 * u1 * s * t
    s2 = 2 * u2 * s * t + 2 * u1 * (t - s) * s1
    return 2 * s1 + x * s2


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x), element by element, with Phi the distribution function of the standard normal.

    A smooth :func:`relu`, usual in transformers.

    Args:
        x: any shape, float32 or float64.
        approximate: "none" computes Phi with the error function, "tanh" with a tanh of a cubic, at most 5e-4 off.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.
        ArgumentError: approximate is neither "none" nor "tanh".

    Precision:
        A few roundings relative to the larger of 1 and abs(x). gelu(inf) = inf; NaN and -inf give NaN.

    Kernels:
        kernels/gelu/: gelu.forward, gelu.grad_x.

    Source:
        Hendrycks and Gimpel, "Gaussian error linear units", 2016, section 2.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> [round(y, 4) for y in F.gelu(gn.tensor([-1.0, 0.0, 1.0])).tolist()]
        [-0.1587, 0.0, 0.8413]
    """
    need_float("gelu", x=x)
    one_of("gelu", "approximate", approximate, ("none", "tanh"))
    return Gelu.apply(x, approximate=approximate)
