"""Waiting without falling asleep, compiled: a thread that sleeps takes some 100 microseconds to wake on many machines.

So a worker with nothing to do watches a number in memory for a while before it sleeps, as the pools of OpenMP do. It
watches without the interpreter's lock. A thread that asks for that lock while another holds it falls asleep, too;
therefore a change is announced only when the lock is free, and :func:`call` gives who has seen it a moment to pass.
"""

import platform

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function

from gpunet.cpu.jit import compiled, intrinsic

TURNS = 20_000  # of a wait: some half a millisecond
PASS = 100  # until who took a job has begun to compute: some microseconds
WORD = ir.IntType(64)
X86, ARM = ("llvm.x86.sse2.pause", ()), ("llvm.aarch64.isb", (15,))  # some tens of nanoseconds
PAUSE = {"x86_64": X86, "AMD64": X86, "aarch64": ARM, "arm64": ARM}.get(platform.machine())


def _pointer(builder, address):
    return builder.inttoptr(address, ir.PointerType(WORD))


@intrinsic
def _read(typingctx, address):
    """The number at an address, read anew each time."""

    def generate(context, builder, signature, args):
        return builder.load_atomic(_pointer(builder, args[0]), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def _add(typingctx, address, number):
    """Adds to the number at an address, in one step for all threads."""

    def generate(context, builder, signature, args):
        return builder.atomic_rmw("add", _pointer(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _pause(typingctx):
    """Tells the core that this thread only waits."""

    def generate(context, builder, signature, args):
        if PAUSE:
            name, numbers = PAUSE
            given = [ir.Constant(ir.IntType(32), number) for number in numbers]
            kind = ir.FunctionType(ir.VoidType(), [each.type for each in given])
            builder.call(get_or_insert_function(builder.module, kind, name), given)
        return context.get_dummy_value()

    return types.void(), generate


@compiled
def watch(place, seen, turns):
    """Whether the number at address ``place`` is another than ``seen`` within so many turns."""
    for _ in range(turns):
        if _read(place) != seen:
            return True
        _pause()
    return False


@compiled
def rest(done, resting, posts, seen, turns):
    """A worker says that it is done with its job, and watches for the next."""
    _add(done, 1)
    _add(resting, 1)
    found = watch(posts, seen, turns)
    _add(resting, -1)
    return found


@compiled
def call(resting, posts, taken, turns):
    """Announces a job to the workers that watch, and lets the first of them pass."""
    before = _read(taken)
    _add(posts, 1)
    if _read(resting) > 0 and watch(taken, before, turns):
        for _ in range(PASS):
            _pause()
