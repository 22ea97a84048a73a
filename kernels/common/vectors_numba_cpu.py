"""Vectors of the processor as values in compiled code: loads, stores, + - *, and numbers that lie apart in memory.

LLVM finds vectors in plain loops by itself, but not where numbers lie several apart or a loop is short. Here a kernel
says what it wants: ``Vector`` is one register of numbers, and arithmetic on it is arithmetic on all its lanes.
"""

import operator

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import lower_builtin, models, register_model, type_callable

from gpunet.cpu.jit import compiled, intrinsic

from .tiles_numba_cpu import registers

KEPT = ("contract",)  # a product and a sum may become one operation, with one rounding


class Vector(types.Type):
    """As many numbers of ``dtype`` as a register holds."""

    def __init__(self, dtype: types.Float):
        self.dtype = dtype
        self.lanes = registers()[0] * 8 // dtype.bitwidth
        super().__init__(f"Vector({dtype}, {self.lanes})")

    @property
    def key(self):
        """Vectors of one dtype are one type."""
        return self.dtype, self.lanes


def _llvm(vector: Vector) -> ir.VectorType:
    return ir.VectorType(ir.FloatType() if vector.dtype == types.float32 else ir.DoubleType(), vector.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, _llvm(vector))


def pointer_to(context, builder, kind, array, *steps):
    """In LLVM, to a vector in a flat array."""
    pointer = context.make_array(kind)(context, builder, array).data
    for step in steps:
        pointer = builder.gep(pointer, [step if isinstance(step, ir.Value) else ir.Constant(ir.IntType(64), step)])
    return builder.bitcast(pointer, _llvm(Vector(kind.dtype)).as_pointer())


def _load(builder, pointer, item):
    found = builder.load(pointer)
    found.align = item
    return found


def _picked(builder, one, other, lanes):
    """The lanes of ``one``, then those of ``other``, by number."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes))


@intrinsic
def load(typingctx, array, at):
    """The numbers array[at], array[at + 1], ... of a flat array; nothing is checked."""

    def code(context, builder, signature, args):
        kind = signature.args[0]
        return _load(builder, pointer_to(context, builder, kind, *args), kind.dtype.bitwidth // 8)

    return Vector(array.dtype)(array, types.int64), code


@intrinsic
def store(typingctx, array, at, vector):
    """The other way round."""

    def code(context, builder, signature, args):
        kind = signature.args[0]
        builder.store(args[2], pointer_to(context, builder, kind, *args[:2])).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), code


@intrinsic(prefer_literal=True)
def prefetch(typingctx, array, at, writes):
    """Asks for the cache line of array[at], which will be read soon, or written: 0 or 1, written as a number."""
    write = writes.literal_value

    def code(context, builder, signature, args):
        pointer = builder.bitcast(
            pointer_to(context, builder, signature.args[0], *args[:2]), ir.IntType(8).as_pointer()
        )
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        near, data = ir.Constant(word, 3), ir.Constant(word, 1)
        builder.call(ask, [pointer, ir.Constant(word, write), near, data])
        return context.get_dummy_value()

    return types.void(array, types.int64, writes), code


@intrinsic
def spread(typingctx, number):
    """The same number in every lane."""

    def code(context, builder, signature, args):
        kind = _llvm(signature.return_type)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), args[0], ir.Constant(ir.IntType(32), 0))
        return _picked(builder, one, one, [0] * kind.count)

    return Vector(number)(number), code


@intrinsic(prefer_literal=True)
def load_every(typingctx, array, at, step, first):
    """The numbers array[at + first], array[at + first + step], ...; step and first are written as numbers.

    Whole vectors are read: ``step`` of them from array[at] on.
    """
    apart, begin = step.literal_value, first.literal_value
    lanes = Vector(array.dtype).lanes

    def code(context, builder, signature, args):
        kind = signature.args[0]
        places = [begin + apart * lane for lane in range(lanes)]
        found = ir.Constant(_llvm(signature.return_type), ir.Undefined)
        for k in range(apart):
            here = _load(builder, pointer_to(context, builder, kind, *args[:2], k * lanes), kind.dtype.bitwidth // 8)
            chosen = [place - k * lanes + lanes if place // lanes == k else lane for lane, place in enumerate(places)]
            found = _picked(builder, found, here, chosen)
        return found

    return Vector(array.dtype)(array, types.int64, step, first), code


@intrinsic
def store_every_fourth(typingctx, array, at, a, b, c, d):
    """array[at + 4 * lane + k] for the lanes of the four vectors, k = 0, 1, 2, 3."""

    def code(context, builder, signature, args):
        kind, lanes = signature.args[0], signature.args[2].lanes
        joined = list(range(2 * lanes))
        both = _picked(builder, args[2], args[3], joined), _picked(builder, args[4], args[5], joined)
        for part in range(4):
            places = [part * lanes + lane for lane in range(lanes)]
            chosen = [place % 4 * lanes + place // 4 for place in places]
            piece = _picked(builder, *both, chosen)
            pointer = pointer_to(context, builder, kind, *args[:2], part * lanes)
            builder.store(piece, pointer).align = kind.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.int64, a, b, c, d), code


@intrinsic(prefer_literal=True)
def store_parts(typingctx, array, at, step, vector, size):
    """The lanes in parts of ``size``, written as a number, each ``step`` behind the one before."""
    count = min(size.literal_value, vector.lanes)

    def code(context, builder, signature, args):
        kind, to = signature.args[0], args[1]
        for first in range(0, vector.lanes, count):
            part = _picked(builder, args[3], args[3], list(range(first, first + count)))
            pointer = builder.bitcast(pointer_to(context, builder, kind, args[0], to), part.type.as_pointer())
            builder.store(part, pointer).align = kind.dtype.bitwidth // 8
            to = builder.add(to, args[2])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, vector, size), code


@intrinsic
def transpose_block(typingctx, array, rows, at, out, to, pitch):
    """out[to + j * pitch + i] = array[rows[i] + at + j] for as many i, and j, as a vector has lanes; rows are int64."""

    def code(context, builder, signature, args):
        kind, (_, table, begin, _, to, pitch) = signature.args[0], args
        lanes, item = Vector(kind.dtype).lanes, kind.dtype.bitwidth // 8
        rows_at = context.make_array(signature.args[1])(context, builder, table).data
        found = []
        for i in range(lanes):
            row = builder.load(builder.gep(rows_at, [ir.Constant(ir.IntType(64), i)]))
            found.append(_load(builder, pointer_to(context, builder, kind, args[0], row, begin), item))
        size = 1
        while size < lanes:  # squares of this size beside the diagonal change places
            kept = [lane if not lane & size else lane - size + lanes for lane in range(lanes)]
            other = [lane + size if not lane & size else lane + lanes for lane in range(lanes)]
            for i in (i for i in range(lanes) if not i & size):
                pair = found[i], found[i + size]
                found[i], found[i + size] = (_picked(builder, *pair, chosen) for chosen in (kept, other))
            size *= 2
        for vector in found:
            builder.store(vector, pointer_to(context, builder, kind, args[3], to)).align = item
            to = builder.add(to, pitch)
        return context.get_dummy_value()

    return types.void(array, rows, types.int64, out, types.int64, types.int64), code


@compiled
def transpose(array, first, pitch, rows, columns, out, to, out_pitch, room, lanes):
    """out[to + j * out_pitch + i] = array[first + i * pitch + j] for so many rows i and columns j.

    Where lines of out have ``room`` for more than ``rows`` numbers, anything may come to stand there; ``lanes`` is how
    many numbers a vector holds.
    """
    lines = np.empty(lanes, np.int64)
    for begin in range(0, rows, lanes):
        i = min(begin, room - lanes)  # the last block may begin before the end of the one before
        for lane in range(lanes):
            lines[lane] = first + max(0, min(i + lane, rows - 1)) * pitch
        if i < 0 or columns < lanes:
            for j in range(columns):
                for k in range(max(i, 0), min(i + lanes, rows)):
                    out[to + j * out_pitch + k] = array[first + k * pitch + j]
        else:
            for start in range(0, columns, lanes):
                j = min(start, columns - lanes)
                transpose_block(array, lines, j, out, to + j * out_pitch + i, out_pitch)


@compiled
def copy_row(out, to, array, at, count, lanes):
    """out[to : to + count] = array[at : at + count], which do not overlap; faster than a call for short rows."""
    if count < lanes:
        for k in range(count):
            out[np.uint64(to + k)] = array[np.uint64(at + k)]
    else:
        for k in range(0, count - lanes, lanes):
            store(out, to + k, load(array, at + k))
        store(out, to + count - lanes, load(array, at + count - lanes))


@intrinsic
def at_least(typingctx, vector, floor):
    """The larger of both in each lane; NaN of ``vector`` goes through."""

    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<=", *args), args[1], args[0])

    return vector(vector, floor), code


@intrinsic
def let_through(typingctx, vector, gate, floor):
    """``vector`` in lanes where ``gate`` is above ``floor`` or NaN, else ``floor``."""

    def code(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<=", *args[1:]), args[2], args[0])

    return vector(vector, gate, floor), code


def _arithmetic(name, *signs):
    """One instruction: a function for each sign, pasted in by LLVM, takes as long again to compile."""

    def typed(context):
        return lambda one, other: one if isinstance(one, Vector) and one == other else None

    def code(context, builder, signature, args):
        return getattr(builder, name)(*args, flags=KEPT)

    for sign in signs:
        type_callable(sign)(typed)
        lower_builtin(sign, Vector, Vector)(code)


_arithmetic("fadd", operator.add, operator.iadd)
_arithmetic("fsub", operator.sub, operator.isub)
_arithmetic("fmul", operator.mul, operator.imul)
