"""relu: the larger of x and 0. Kernels in kernels/relu/."""

from typing import Any

from gpunet.dispatch import fuses, launch
from gpunet.graph import Function, of_one, of_two
from gpunet.modes import is_grad_enabled
from gpunet.ops.checks import REAL, need_float
from gpunet.tensor import Tensor


class Relu(Function):
    """max(x, 0)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        y = launch(x.device, "relu.forward", x.data)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (y,) = ctx.saved
        return of_two(ReluGradX, gy, y)


class ReluGradX(Function):
    """gy where y is not <= 0: linear in gy, so it is its own derivative; flat in y."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, y: Tensor) -> Any:
        ctx.save(y)
        return launch(gy.device, "relu.grad_x", gy.data, y.data)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        (y,) = ctx.saved
        return of_two(ReluGradX, ggx, y) if ctx.needs_input_grad[0] else None, None


class ReluMask(Function):
    """max(x, 0) that keeps one bit an element for backward, instead of y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        y, mask = launch(x.device, "relu.forward_mask", x.data)
        ctx.save(mask)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (mask,) = ctx.saved
        return of_two(ReluGradXMask, gy, mask)


class ReluGradXMask(Function):
    """gy where the bit is 1: linear in gy, so it is its own derivative."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, mask: Any) -> Any:
        ctx.save(mask)
        return launch(gy.device, "relu.grad_x_mask", gy.data, mask)

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        (mask,) = ctx.saved
        return of_two(ReluGradXMask, ggx, mask), None


def relu(x: Tensor) -> Tensor:
    """The larger of x and 0, element by element.

    The usual activation between layers. Half of its inputs get no gradient; a unit whose inputs are all negative
    stops learning, which :func:`leaky_relu` avoids.

    Args:
        x: any shape, float32 or float64.

    Returns:
        Tensor of the shape of x.

    Raises:
        DTypeError: x is no tensor, or does not hold floats.

    Precision:
        Exact. The gradient at x = 0 is 0. NaN stays NaN, and its gradient passes.

    Kernels:
        kernels/relu/: relu.forward, relu.grad_x; where a gradient is needed and the device has kernels for it,
        relu.forward_mask and relu.grad_x_mask, which keep one bit an element (:func:`gpunet.use_fused` decides by
        name).

    Source:
        Derived in kernels/relu/__init__.py.

    Example:
        >>> import gpunet as gn
        >>> import gpunet.functional as F
        >>> F.relu(gn.tensor([-1.0, 0.0, 2.0])).tolist()
        [0.0, 0.0, 2.0]
    """
    if not isinstance(x, Tensor) or x.data.dtype not in REAL:  # in a chain of small tensors the call would show
        need_float("relu", x=x)
    masked = (
        x.requires_grad
        and is_grad_enabled()
        and fuses(x.device, "relu.forward_mask", "relu.forward", "relu.grad_x", size=x.data.size)
    )
    return of_one(ReluMask if masked else Relu, x)
