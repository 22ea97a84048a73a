"""Eight numbers at a time in kernels of the processor: values that LLVM keeps in vector registers.

LLVM turns long loops into vectors by itself, but takes several vectors a turn: a row of 28 numbers is then all rest,
one number after the other, and a comparison that may go either way costs a wrong guess each time. These say it
outright. LLVM fits the eight to whatever the processor has: one register of AVX, two of SSE or NEON.

Arrays are of one axis, in rows. Nothing checks the bounds.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import extending
from numba.core.extending import models, register_model

LANES = 8
I32 = ir.IntType(32)
intrinsic: Any = extending.intrinsic  # to a type checker, what it decorates would take the typing context too


class Lanes(types.Type):
    """LANES numbers of a type; booleans make a mask."""

    def __init__(self, element: Any):  # of Numba's types
        self.element = element
        super().__init__(f"Lanes({element})")

    @property
    def vector(self) -> ir.VectorType:
        """As LLVM has it."""
        widths = {types.boolean: ir.IntType(1), types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
        return ir.VectorType(widths.get(self.element) or ir.IntType(self.element.bitwidth), LANES)


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """A vector register."""

    def __init__(self, manager: Any, kind: Lanes):
        super().__init__(manager, kind, kind.vector)


MASK = Lanes(types.boolean)


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [place])


def _wide(builder: Any, kind: Any, address: Any, count: int) -> tuple[Any, int]:
    """The address as one of ``count`` numbers, and the bytes of one, which they are aligned to."""
    element = Lanes(kind.dtype).vector.element
    vector = ir.VectorType(element, count)
    return builder.bitcast(address, vector.as_pointer()), kind.dtype.bitwidth // 8


def _picked(builder: Any, a: Any, b: Any, places: Any) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(places)), [I32(k) for k in places]))


@intrinsic
def load(typingctx, array, place):
    """array[place : place + LANES]."""

    def generate(context, builder, signature, args):
        address, align = _wide(builder, array, _address(context, builder, array, *args), LANES)
        return builder.load(address, align=align)

    return Lanes(array.dtype)(array, types.intp), generate


@intrinsic
def load_step(typingctx, array, place, step):
    """array[place], array[place + step], ...; LANES of them."""

    def generate(context, builder, signature, args):
        address = _address(context, builder, array, *args[:2])
        lanes = ir.Constant(Lanes(array.dtype).vector, ir.Undefined)
        for k in range(LANES):
            far = builder.mul(args[2], ir.Constant(args[2].type, k))
            lanes = builder.insert_element(lanes, builder.load(builder.gep(address, [far])), I32(k))
        return lanes

    return Lanes(array.dtype)(array, types.intp, types.intp), generate


@intrinsic
def load_pairs(typingctx, array, place):
    """The even and the odd ones of array[place : place + 2 * LANES]."""
    kind = Lanes(array.dtype)

    def generate(context, builder, signature, args):
        address, align = _wide(builder, array, _address(context, builder, array, *args), 2 * LANES)
        both = builder.load(address, align=align)
        none = ir.Constant(both.type, ir.Undefined)
        parts = [_picked(builder, both, none, range(odd, 2 * LANES, 2)) for odd in (0, 1)]
        return context.make_tuple(builder, signature.return_type, parts)

    return types.UniTuple(kind, 2)(array, types.intp), generate


@intrinsic
def store(typingctx, array, place, lanes):
    """array[place : place + LANES] = lanes."""

    def generate(context, builder, signature, args):
        address, align = _wide(builder, array, _address(context, builder, array, *args[:2]), LANES)
        builder.store(args[2], address, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def store_pairs(typingctx, array, place, even, odd):
    """The two in turns to array[place : place + 2 * LANES]."""

    def generate(context, builder, signature, args):
        address, align = _wide(builder, array, _address(context, builder, array, *args[:2]), 2 * LANES)
        places = [k // 2 + k % 2 * LANES for k in range(2 * LANES)]
        builder.store(_picked(builder, args[2], args[3], places), address, align=align)
        return context.get_dummy_value()

    return types.void(array, types.intp, even, odd), generate


@intrinsic
def same(typingctx, number, like):
    """LANES times the number, as numbers of the array ``like``."""
    element = like.dtype

    def generate(context, builder, signature, args):
        value = context.cast(builder, args[0], number, element)
        vector = Lanes(element).vector
        one = builder.insert_element(ir.Constant(vector, ir.Undefined), value, I32(0))
        return _picked(builder, one, ir.Constant(vector, ir.Undefined), [0] * LANES)

    return Lanes(element)(number, like), generate


@intrinsic
def beats(typingctx, value, best):
    """Where a later value wins: it is larger, or NaN."""

    def generate(context, builder, signature, args):
        larger = builder.fcmp_ordered(">", *args)
        return builder.or_(larger, builder.fcmp_unordered("uno", args[0], args[0]))

    return MASK(value, best), generate


@intrinsic
def equal(typingctx, a, b):
    """Where two lanes of integers are equal."""

    def generate(context, builder, signature, args):
        return builder.icmp_unsigned("==", *args)

    return MASK(a, b), generate


@intrinsic
def where(typingctx, mask, yes, no):
    """``yes`` where the mask says so, else ``no``."""

    def generate(context, builder, signature, args):
        return builder.select(*args)

    return yes(mask, yes, no), generate


@intrinsic
def plus(typingctx, a, b):
    """The sums."""
    real = isinstance(a.element, types.Float)

    def generate(context, builder, signature, args):
        return builder.fadd(*args) if real else builder.add(*args)

    return a(a, b), generate


@intrinsic
def times(typingctx, a, b):
    """The products, of floating-point numbers."""

    def generate(context, builder, signature, args):
        return builder.fmul(*args)

    return a(a, b), generate


@intrinsic
def over(typingctx, a, b):
    """The quotients, of floating-point numbers."""

    def generate(context, builder, signature, args):
        return builder.fdiv(*args)

    return a(a, b), generate
