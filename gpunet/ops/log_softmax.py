"""log_softmax: the logarithm of softmax, without taking one of small numbers. Kernels in kernels/log_softmax/."""

from typing import Any

from gpunet.dispatch import launch
from gpunet.graph import Function, GradFunction
from gpunet.ops.checks import axis_of, need_float
from gpunet.tensor import Tensor


class LogSoftmax(Function):
    """x - log(sum of exp(x)) along an axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, axis: int) -> Any:
        y = launch(x.device, "log_softmax.forward", x.data, axis=axis)
        ctx.axis = axis
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (y,) = ctx.saved
        return LogSoftmaxGradX.apply(gy, y, axis=ctx.axis)


class LogSoftmaxGradX(GradFunction):
    """gy - exp(y) * sum of gy."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, y: Tensor, *, axis: int) -> Any:
        return launch(gy.device, "log_softmax.grad_x", gy.data, y.data, axis=axis)

    @staticmethod
    def formula(gy: Tensor, y: Tensor, *, axis: int) -> Tensor:
        return gy - y.exp() * gy.sum(axis, keepdim=True)


def log_softmax(x: Tensor, dim: int) -> Tensor:
    """x minus the logarithm of the sum of exp(x) along one axis: logarithms of probabilities.

    What :func:`nll_loss` takes. :func:`cross_entropy` does both in one.

    Args:
        x: any shape, float32 or float64.
        dim: the axis whose probabilities sum to 1; negative numbers count from the end.

    Returns:
        Tensor of the shape of x, values of at most 0.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.
        ArgumentError: dim is no axis of x.

    Precision:
        Sums in the dtype of x. Exact to a few roundings of x minus its largest, also where the probability itself would
        be 0. A row of nothing but -inf, or with inf or NaN in it, is NaN.

    Kernels:
        kernels/log_softmax/: log_softmax.forward, log_softmax.grad_x.

    Source:
        Derived in kernels/log_softmax/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.log_softmax(gn.tensor([[0.0, 1000.0]]), dim=1).tolist()
        [[-1000.0, 0.0]]
    """
    need_float("log_softmax", x=x)
    axis = axis_of("log_softmax", dim, x.ndim)
    if x.ndim == 0:
        return LogSoftmax.apply(x.reshape(1), axis=0).reshape(())
    return LogSoftmax.apply(x, axis=axis)
