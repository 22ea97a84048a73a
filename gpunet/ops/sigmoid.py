"""sigmoid: 1 / (1 + exp(-x)). Kernels in kernels/sigmoid/."""

from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import need_float
from gpunet.tensor import Tensor


class Sigmoid(Function):
    """1 / (1 + exp(-x))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        y = launch(x.device, "sigmoid.forward", x.data)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (y,) = ctx.saved
        return SigmoidGradX.apply(gy, y)


class SigmoidGradX(GradFunction):
    """gy * y * (1 - y)."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, y: Tensor) -> Any:
        return launch(gy.device, "sigmoid.grad_x", gy.data, y.data)

    @staticmethod
    def formula(gy: Tensor, y: Tensor) -> Tensor:
        return gy * y * (1 - y)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)), element by element: any number as a probability.

    For a loss, hand the numbers before the sigmoid to :func:`binary_cross_entropy_with_logits`, which does not lose
    the digits that a probability near 1 has no room for.

    Args:
        x: any shape, float32 or float64.

    Returns:
        Tensor of the shape of x, values from 0 to 1.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.

    Precision:
        A few roundings; no overflow at any x. NaN stays NaN, +-inf give 1 and 0.

    Kernels:
        kernels/sigmoid/: sigmoid.forward, sigmoid.grad_x.

    Source:
        Derived in kernels/sigmoid/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.sigmoid(gn.tensor([-1000.0, 0.0, 1000.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    need_float("sigmoid", x=x)
    return Sigmoid.apply(x)
