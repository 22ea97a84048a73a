"""tanh: the hyperbolic tangent. Kernels in kernels/tanh/."""

from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function, GradFunction, of_one, of_two
from gpunet.ops.checks import need_float
from gpunet.tensor import Tensor


class Tanh(Function):
    """tanh(x)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        y = launch(x.device, "tanh.forward", x.data)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (y,) = ctx.saved
        return of_two(TanhGradX, gy, y)


class TanhGradX(GradFunction):
    """gy * (1 - y * y)."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, y: Tensor) -> Any:
        return launch(gy.device, "tanh.grad_x", gy.data, y.data)

    @staticmethod
    def formula(gy: Tensor, y: Tensor) -> Tensor:
        return gy * (1 - y * y)


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent of every element: a sigmoid from -1 to 1.

    Args:
        x: any shape, float32 or float64.

    Returns:
        Tensor of the shape of x, values from -1 to 1.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.

    Precision:
        That of the array library, about one rounding. NaN stays NaN, +-inf give +-1.

    Kernels:
        kernels/tanh/: tanh.forward, tanh.grad_x.

    Source:
        Derived in kernels/tanh/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.tanh(gn.tensor([-1000.0, 0.0, 1000.0])).tolist()
        [-1.0, 0.0, 1.0]
    """
    need_float("tanh", x=x)
    return of_one(Tanh, x)
