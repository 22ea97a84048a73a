"""Writing past the caches, for results too large to be still there when somebody reads them.

A store to memory that is not in a cache reads it first, though all of it is overwritten: of three bytes moved by y =
f(x) one is for nothing. Stores past the caches do without. Kernels compute a block in the first cache and hand it on.
"""

from llvmlite import ir
from numba.core import types

from gpunet.cpu.jit import compiled, intrinsic

from .vectors_numba_cpu import Vector, load, pointer_to

LARGE = 2**23  # bytes of a result from which on it pays: smaller ones their reader still finds in a cache
BLOCK = 2**11  # elements computed before they are written: they stay in the first cache
LINE = 64  # bytes; vectors are no longer


@intrinsic
def store_past(typingctx, array, at, vector):
    """As ``store``, past the caches; array[at] lies where a whole vector begins."""

    def code(context, builder, signature, args):
        kind, number = signature.args[0], ir.IntType(32)
        stored = builder.store(args[2], pointer_to(context, builder, kind, *args[:2]))
        stored.align = Vector(kind.dtype).lanes * kind.dtype.bitwidth // 8
        stored.set_metadata("nontemporal", builder.module.add_metadata([number(1)]))
        return context.get_dummy_value()

    return types.void(array, types.int64, vector), code


@intrinsic
def settle_stores(typingctx):
    """All stores so far are seen by other threads before any that follows; those past the caches else need not be."""

    def code(context, builder, signature, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


@compiled
def write_past(out, block, lanes):
    """out[:] = block[: out.size], past the caches; ``lanes`` is how many numbers a vector holds."""
    item = out.itemsize
    first = min(out.size, -(out.ctypes.data // item) % (LINE // item))
    for k in range(first):
        out[k] = block[k]
    end = first + (out.size - first) // lanes * lanes
    for k in range(first, end, lanes):
        store_past(out, k, load(block, k))
    for k in range(end, out.size):
        out[k] = block[k]
