"""Writing past the caches, for results too large to be still there when somebody reads them.

A store to memory that is in no cache reads it first, though all of it is overwritten: of three bytes that y = f(x)
moves, one is for nothing. Stores past the caches do without. They are written one by one among the loads: a block
computed first and then written in one go took as long as before, for then nothing is read meanwhile.
"""

from llvmlite import ir
from numba.core import types

from gpunet.cpu.jit import intrinsic

from .tiles_numba_cpu import registers
from .vectors_numba_cpu import Vector, pointer_to

LARGE = 7 * 2**20  # bytes of a result from which on it pays: a smaller one its reader still finds in a cache


def past_caches(out) -> bool:
    """Whether a result is to be written so; it begins where a vector may, as memory of the pool does."""
    return out.nbytes >= LARGE and out.ctypes.data % registers()[0] == 0


@intrinsic
def store_past(typingctx, array, at, vector):
    """As ``store``, past the caches; array[at] lies where a vector of memory begins."""

    def code(context, builder, signature, args):
        kind = signature.args[0]
        stored = builder.store(args[2], pointer_to(context, builder, kind, *args[:2]))
        stored.align = Vector(kind.dtype).lanes * kind.dtype.bitwidth // 8
        stored.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), code


@intrinsic
def settle_stores(typingctx):
    """Stores so far are seen before those that follow: past the caches they may come later than any other."""

    def code(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code
