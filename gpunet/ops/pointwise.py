"""Functions of one number at each element: exp, log, sqrt, abs, sin, cos, clip. NumPy or CuPy computes them."""

from typing import Any

import numpy as np

from gpunet.errors import ArgumentError
from gpunet.graph import Function
from gpunet.ops.elementwise import as_float, unary, where
from gpunet.tensor import Tensor


class Exp(Function):
    """e to the power x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        y = x.device.xp.exp(x.data)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (y,) = ctx.saved
        return gy * y


class Log(Function):
    """Natural logarithm: log(0) is -inf, of a negative number NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save(x)
        return x.device.xp.log(x.data)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (x,) = ctx.saved
        return gy / x


class Sqrt(Function):
    """Square root: of a negative number NaN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        y = x.device.xp.sqrt(x.data)
        ctx.save(y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (y,) = ctx.saved
        return gy / (y * 2)


class Abs(Function):
    """|x|; the gradient at 0 and at NaN is 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save(x)
        return x.data.__abs__()  # the built-in abs is hidden by the op of that name

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (x,) = ctx.saved
        sign = (x.data > 0).astype(x.dtype) - (x.data < 0)  # 0 beside NaN too, unlike the library's sign
        return gy * Tensor._wrap(sign, x.device)


class Sin(Function):
    """Sine."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save(x)
        return x.device.xp.sin(x.data)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (x,) = ctx.saved
        return gy * cos(x)


class Cos(Function):
    """Cosine."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        ctx.save(x)
        return x.device.xp.cos(x.data)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (x,) = ctx.saved
        return -(gy * sin(x))


class Clip(Function):
    """x held between two bounds; the gradient passes where x lies inside or on a bound."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Any, high: Any) -> Any:
        y = x.data
        if low is not None:
            y = x.device.xp.maximum(y, x.dtype.type(low))
        if high is not None:
            y = x.device.xp.minimum(y, x.dtype.type(high))
        inside = y == x.data
        ctx.save(inside)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (inside,) = ctx.saved
        return where(Tensor._wrap(inside, gy.device), gy, 0.0), None, None


def exp(x: Any) -> Tensor:
    """e to the power of each element."""
    return unary(Exp, x)


def log(x: Any) -> Tensor:
    """Natural logarithm of each element."""
    return unary(Log, x)


def sqrt(x: Any) -> Tensor:
    """Square root of each element."""
    return unary(Sqrt, x)


def abs(x: Any) -> Tensor:
    """Absolute value of each element."""
    return unary(Abs, x, keep_integers=True)


def sin(x: Any) -> Tensor:
    """Sine of each element, in radians."""
    return unary(Sin, x)


def cos(x: Any) -> Tensor:
    """Cosine of each element, in radians."""
    return unary(Cos, x)


def clip(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Each element, no smaller than ``min`` and no larger than ``max`` (numbers or None)."""
    if min is None and max is None:
        raise ArgumentError("clip: min or max must be a number, got None for both")
    for bound in (min, max):
        if isinstance(bound, Tensor) and (bound.requires_grad or bound.data.size != 1):
            raise ArgumentError(
                f"clip: min and max must be numbers, got a tensor of shape {bound.shape}; use gn.maximum and gn.minimum"
            )
    low, high = (each.item() if isinstance(each, Tensor | np.generic) else each for each in (min, max))
    if any(isinstance(bound, float) for bound in (low, high)):
        x = as_float(x)
    return Clip.apply(x, low, high)
