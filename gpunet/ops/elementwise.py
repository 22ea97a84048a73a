"""Arithmetic on each element, with broadcasting. No kernels of our own: NumPy or CuPy computes it.

Dtypes promote as in PyTorch: a Python number never widens a tensor, integers meet floats as that float, and a division
of integers is float32.
"""

from typing import Any

import numpy as np

from gpunet.errors import DeviceError, DTypeError, ShapeError
from gpunet.graph import Function, of_one, of_two
from gpunet.tensor import Tensor

SCALARS = (int, float, bool)
RANK = {"b": 0, "u": 1, "i": 1, "f": 2}  # kinds of dtype: a higher one wins


def is_operand(value: Any) -> bool:
    """Whether ``value`` can stand beside a tensor in an expression."""
    return isinstance(value, (Tensor, np.generic, *SCALARS)) or (hasattr(value, "dtype") and hasattr(value, "shape"))


def _operand(op: str, value: Any, like: Tensor) -> Any:
    """A tensor or a Python number out of whatever stands beside a tensor in an expression."""
    if isinstance(value, np.generic):
        value = value.item()  # a NumPy scalar is a number, and must not widen a float32 tensor to float64
    if isinstance(value, (Tensor, *SCALARS)):
        return value
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return Tensor(value, device=like.device)
    raise DTypeError(f"{op}: both sides must be tensors, arrays or numbers, got {type(value).__name__}")


def promoted(a: Tensor, b: Tensor) -> np.dtype[Any]:
    """The dtype in which ``a`` and ``b`` meet, by PyTorch's rule."""
    kind_a, kind_b = RANK[a.dtype.kind], RANK[b.dtype.kind]
    if kind_a != kind_b:
        return a.dtype if kind_a > kind_b else b.dtype
    if (a.ndim == 0) != (b.ndim == 0):  # a single number yields to an array of its kind
        return b.dtype if a.ndim == 0 else a.dtype
    return np.promote_types(a.dtype, b.dtype)


def _scalar_dtype(x: Tensor, number: Any) -> Any:
    """The dtype in which a tensor meets a Python number: only a float beside integers changes anything."""
    if isinstance(number, float) and x.dtype.kind != "f":
        return np.dtype(np.float32)
    return np.dtype(np.int64) if x.dtype.kind == "b" and not isinstance(number, bool) else x.dtype


def pair_up(op: str, a: Any, b: Any) -> tuple[Any, Any]:
    """Both operands on one device, in one dtype, of shapes that broadcast; at least one is a Tensor."""
    if type(a) is Tensor:  # the two common cases first
        x = a.data
        if type(b) is Tensor:
            y = b.data
            if x.dtype == y.dtype and a.device is b.device:
                if x.shape != y.shape:
                    _need_broadcast(op, a, b)
                return a, b
        elif type(b) in SCALARS and x.dtype.kind == "f":
            return a, b
    like = a if isinstance(a, Tensor) else b
    if not isinstance(like, Tensor):
        like = Tensor(a if hasattr(a, "dtype") else b)
    a, b = _operand(op, a, like), _operand(op, b, like)
    if not isinstance(a, Tensor):
        if not isinstance(b, Tensor):
            a = Tensor(a, device=like.device)
        else:
            return a, b.to(_scalar_dtype(b, a))
    if not isinstance(b, Tensor):
        return a.to(_scalar_dtype(a, b)), b
    if a.device != b.device:
        raise DeviceError(f"{op}: both sides must be on one device, got {a.device} and {b.device}; use .to()")
    _need_broadcast(op, a, b)
    dtype = promoted(a, b)
    return a.to(dtype), b.to(dtype)


def _need_broadcast(op: str, a: Tensor, b: Tensor) -> None:
    try:
        np.broadcast_shapes(a.data.shape, b.data.shape)
    except ValueError:
        raise ShapeError(
            f"{op}: shapes must be equal or broadcast (trailing sizes equal or 1), got {a.shape} and {b.shape}"
        ) from None


def _raw(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


class Add(Function):
    """a + b."""

    broadcasts = True

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        return _raw(a) + _raw(b)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return gy, gy


class Sub(Function):
    """a - b."""

    broadcasts = True

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        return _raw(a) - _raw(b)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return gy, -gy if ctx.edges[1] else None


class Mul(Function):
    """a * b."""

    broadcasts = True

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        to_a, to_b = ctx.edges
        if to_a or to_b:
            ctx.save(a if to_b else None, b if to_a else None)  # each is needed for the other's gradient alone
        return _raw(a) * _raw(b)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        a, b = ctx.saved
        to_a, to_b = ctx.edges
        return of_two(Mul, gy, b) if to_a else None, of_two(Mul, gy, a) if to_b else None


class Div(Function):
    """a / b."""

    broadcasts = True

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        y = _raw(a) / _raw(b)
        ctx.save(b, y if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        b, y = ctx.saved
        need_a, need_b = ctx.needs_input_grad
        ga = gy / b
        return ga if need_a else None, -ga * y if need_b else None


class Pow(Function):
    """a to the power b."""

    broadcasts = True

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        y = _raw(a) ** _raw(b)
        ctx.save(a, b, y if ctx.needs_input_grad[1] else None)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        a, b, y = ctx.saved
        need_a, need_b = ctx.needs_input_grad
        ga = gb = None
        if need_a:
            if isinstance(b, Tensor):
                # x**0 is flat, also at 0 where x**-1 is not finite
                ga = gy * where(b == 0, 0.0, b * pow(a, where(b == 0, 1.0, b - 1)))
            else:
                ga = gy * (0.0 if b == 0 else b * pow(a, b - 1))
        if need_b:
            base = a if isinstance(a, Tensor) else Tensor(a, gy.dtype, gy.device)
            from gpunet.ops.pointwise import log  # pointwise builds on this module

            # 0**b is flat for b >= 0, where log(0) is not finite
            zero = (base == 0) & (b >= 0)
            gb = gy * where(zero, 0.0, y * log(where(zero, 1.0, base)))
        return ga, gb


class Neg(Function):
    """-x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        return -x.data

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return -gy


class Extreme(Function):
    """The larger or the smaller of two elements; a tie shares the gradient, beside NaN it goes to both."""

    broadcasts = True

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, *, name: str) -> Any:
        ctx.name_of = name
        ctx.save(a, b)
        return getattr(a.device.xp, name)(a.data, b.data)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        a, b = ctx.saved
        loses = np.less if ctx.name_of == "maximum" else np.greater

        def share(mine: Any, other: Any) -> Tensor:
            weight = gy.device.xp.where(mine == other, 0.5, 1.0 - loses(mine, other)).astype(gy.dtype)
            return Tensor._wrap(weight, gy.device)

        need_a, need_b = ctx.needs_input_grad
        ga = gy * share(a.data, b.data) if need_a else None
        gb = gy * share(b.data, a.data) if need_b else None
        return ga, gb


class Where(Function):
    """a where the condition holds, else b."""

    broadcasts = True

    @staticmethod
    def forward(ctx: Any, condition: Tensor, a: Any, b: Any) -> Any:
        ctx.save(condition)
        return condition.device.xp.where(condition.data, _raw(a), _raw(b))

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        (condition,) = ctx.saved
        _, need_a, need_b = ctx.needs_input_grad
        ga = where(condition, gy, 0.0) if need_a else None
        gb = where(condition, 0.0, gy) if need_b else None
        return None, ga, gb


def add(a: Any, b: Any) -> Tensor:
    """a + b."""
    a, b = pair_up("add", a, b)
    return of_two(Add, a, b)


def sub(a: Any, b: Any) -> Tensor:
    """a - b."""
    a, b = pair_up("sub", a, b)
    if (a if isinstance(a, Tensor) else b).data.dtype.kind == "b":
        raise DTypeError("sub: one side must hold numbers, got bool and bool; use ^ for exclusive or, or .long()")
    return of_two(Sub, a, b)


def mul(a: Any, b: Any) -> Tensor:
    """a * b."""
    a, b = pair_up("mul", a, b)
    return of_two(Mul, a, b)


def div(a: Any, b: Any) -> Tensor:
    """a / b; integers are divided as float32."""
    a, b = pair_up("div", a, b)
    return of_two(Div, as_float(a), as_float(b))


def pow(a: Any, b: Any) -> Tensor:
    """a to the power b."""
    a, b = pair_up("pow", a, b)
    if (a if isinstance(a, Tensor) else b).data.dtype.kind == "b":
        raise DTypeError("pow: one side must hold numbers, got bool and bool; use .long()")
    return of_two(Pow, a, b)


def as_float(x: Any) -> Any:
    """Integers as float32, anything else as it is."""
    return x.to(np.float32) if isinstance(x, Tensor) and x.dtype.kind != "f" else x


def unary(function: type[Function], x: Any, keep_integers: bool = False) -> Tensor:
    """``function`` of x, which may be an array or a number; integers become float32 unless kept."""
    x = x if isinstance(x, Tensor) else Tensor(x)
    return of_one(function, x if keep_integers else as_float(x))


def neg(x: Any) -> Tensor:
    """-x."""
    if isinstance(x, Tensor) and x.dtype.kind == "b":
        raise DTypeError("neg: the tensor must hold numbers, got bool; use ~x for not, or x.long()")
    return unary(Neg, x, keep_integers=True)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """``a`` where ``condition`` holds, else ``b``; all three broadcast."""
    if not isinstance(condition, Tensor):
        like = a if isinstance(a, Tensor) else b if isinstance(b, Tensor) else None
        condition = Tensor(condition, device=None if like is None else like.device)
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a = Tensor(a, device=condition.device)
    a, b = pair_up("where", a, b)
    shapes = [condition.shape, *(each.shape for each in (a, b) if isinstance(each, Tensor))]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(f"where: condition and values must broadcast, got {', '.join(map(str, shapes))}") from None
    return Where.apply(condition.detach() if condition.requires_grad else condition, a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of two elements; NaN wins; where they tie each gets half the gradient."""
    return _extreme("maximum", a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of two elements; NaN wins; where they tie each gets half the gradient."""
    return _extreme("minimum", a, b)


def _extreme(op: str, a: Any, b: Any) -> Tensor:
    a, b = pair_up(op, a, b)
    a, b = (x if isinstance(x, Tensor) else Tensor(x, y.dtype, y.device) for x, y in ((a, b), (b, a)))
    return Extreme.apply(a, b, name=op)


def compare(name: str, a: Any, b: Any) -> Tensor:
    """A bool tensor; ``name`` is NumPy's: equal, less, greater_equal ..."""
    a, b = pair_up(name, a, b)
    like = a if isinstance(a, Tensor) else b
    return Tensor._wrap(getattr(like.device.xp, name)(_raw(a), _raw(b)), like.device)


def invert(x: Tensor) -> Tensor:
    """Not x, for bool and integer tensors."""
    if x.dtype.kind == "f":
        raise DTypeError(f"invert: the tensor must hold bools or integers, got {x.dtype}")
    return Tensor._wrap(~x.data, x.device)


def logical(name: str, a: Any, b: Any) -> Tensor:
    """Bitwise and/or/xor of bool or integer tensors; ``name`` is NumPy's."""
    a, b = pair_up(name, a, b)
    like = a if isinstance(a, Tensor) else b
    return Tensor._wrap(getattr(like.device.xp, name)(_raw(a), _raw(b)), like.device)
