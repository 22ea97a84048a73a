"""softmax: exponentials along an axis, scaled to a sum of 1. Kernels in kernels/softmax/."""

from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import axis_of, need_float
from gpunet.tensor import Tensor


class Softmax(Function):
    """exp(x) / sum of exp(x) along an axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, axis: int) -> Any:
        y = launch(x.device, "softmax.forward", x.data, axis=axis)
        ctx.axis = axis
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (y,) = ctx.saved
        return SoftmaxGradX.apply(gy, y, axis=ctx.axis)


class SoftmaxGradX(GradFunction):
    """y * (gy - sum of gy * y)."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, y: Tensor, *, axis: int) -> Any:
        return launch(gy.device, "softmax.grad_x", gy.data, y.data, axis=axis)

    @staticmethod
    def formula(gy: Tensor, y: Tensor, *, axis: int) -> Tensor:
        return y * (gy - (gy * y).sum(axis, keepdim=True))


def softmax(x: Tensor, dim: int) -> Tensor:
    """exp(x) divided by its sum along one axis: numbers as probabilities.

    For a loss, hand the numbers before the softmax to :func:`cross_entropy`; for logarithms of the probabilities use
    :func:`log_softmax`.

    Args:
        x: any shape, float32 or float64.
        dim: the axis that sums to 1; negative numbers count from the end.

    Returns:
        Tensor of the shape of x, values from 0 to 1.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.
        ArgumentError: dim is no axis of x.

    Precision:
        Sums in the dtype of x. The largest x is subtracted first, so nothing overflows. A row of nothing but -inf, or
        with inf or NaN in it, is NaN.

    Kernels:
        kernels/softmax/: softmax.forward, softmax.grad_x.

    Source:
        Derived in kernels/softmax/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.softmax(gn.tensor([[5.0, 5.0], [0.0, 1000.0]]), dim=1).tolist()
        [[0.5, 0.5], [0.0, 1.0]]
    """
    need_float("softmax", x=x)
    axis = axis_of("softmax", dim, x.ndim)
    if x.ndim == 0:
        return Softmax.apply(x.reshape(1), axis=0).reshape(())
    return Softmax.apply(x, axis=axis)
