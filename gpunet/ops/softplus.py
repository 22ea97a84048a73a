"""softplus: log(1 + exp(beta * x)) / beta. Kernels in kernels/softplus/."""

from typing import Any

from gpunet.dispatch import launch
from gpunet.errors import ArgumentError
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import need_float, need_number
from gpunet.ops.elementwise import where
from gpunet.tensor import Tensor


class Softplus(Function):
    """log(1 + exp(beta * x)) / beta, and x above the threshold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, beta: float, threshold: float) -> Any:
        ctx.beta, ctx.threshold = beta, threshold
        ctx.save(x)
        return launch(x.device, "softplus.forward", x.data, beta=beta, threshold=threshold)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (x,) = ctx.saved
        return SoftplusGradX.apply(gy, x, beta=ctx.beta, threshold=ctx.threshold)


class SoftplusGradX(GradFunction):
    """gy * sigmoid(beta * x), and gy above the threshold."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, x: Tensor, *, beta: float, threshold: float) -> Any:
        return launch(gy.device, "softplus.grad_x", gy.data, x.data, beta=beta, threshold=threshold)

    @staticmethod
    def formula(gy: Tensor, x: Tensor, *, beta: float, threshold: float) -> Tensor:
        z = x * beta
        return where(z > threshold, gy, gy * z.sigmoid())


def softplus(x: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, element by element: a smooth relu, positive everywhere.

    Args:
        x: any shape, float32 or float64.
        beta: sharpness of the bend; not 0.
        threshold: where ``beta * x`` is above it, the result is x itself; inf means never.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.
        ArgumentError: beta is 0, infinite or no number, or threshold is no number.

    Precision:
        A few roundings below the threshold, for large and small results alike. At the threshold of 20 the step to x
        is exp(-20) / beta, 2e-9 / beta. NaN stays NaN.

    Kernels:
        kernels/softplus/: softplus.forward, softplus.grad_x.

    Source:
        Derived in kernels/softplus/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> [round(y, 4) for y in F.softplus(gn.tensor([-1000.0, 0.0, 1000.0])).tolist()]
        [0.0, 0.6931, 1000.0]
    """
    need_float("softplus", x=x)
    beta = need_number("softplus", "beta", beta)
    if beta == 0 or abs(beta) == float("inf"):
        raise ArgumentError(f"softplus: beta must be finite and not 0, got {beta}; 1 is usual")
    threshold = need_number("softplus", "threshold", threshold)
    return Softplus.apply(x, beta=beta, threshold=threshold)
