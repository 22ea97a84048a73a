"""What the emulator saw, in words.

The kinds:

====================  ============================================================================================
out_of_bounds         a load or store outside every argument array
shared_out_of_bounds  outside the block's shared memory
index_out_of_range    an index beyond the declared length of a shared or local array
uninitialised         a load of shared memory, or of an output, that nobody has written
race                  two threads at one address, one of them writing, with no barrier between
misaligned            a float4 (or other wide type) at an address that is no multiple of its size
const_write           a store through a pointer that the kernel declares const
barrier_divergent     threads of a block at two different barriers
barrier_not_reached   some threads of a block wait at a barrier that others never reach
warp_lanes            a warp operation whose mask and callers do not fit together
pending_copy          memory that an asynchronous copy is on its way to, touched before the wait
arithmetic            a signed overflow, a division by zero, a shift too far
stack_overflow        local variables beyond what a thread has here
trap                  assert or __trap
endless               more memory accesses than any honest thread makes
launch                block, grid or shared memory beyond what the hardware takes
====================  ============================================================================================
"""

from typing import NamedTuple

from gpunet.cuda.emulator.native import Library, Report
from gpunet.cuda.source import Parameter, Signature
from gpunet.errors import EmulatorError

KINDS = (
    "", "out_of_bounds", "shared_out_of_bounds", "index_out_of_range", "uninitialised", "race", "misaligned",
    "const_write", "barrier_divergent", "barrier_not_reached", "warp_lanes", "pending_copy", "arithmetic",
    "stack_overflow", "trap", "endless", "finer_shadow",
)  # fmt: skip

MUST = {
    "out_of_bounds": "must stay inside its arrays",
    "shared_out_of_bounds": "must stay inside the block's shared memory",
    "index_out_of_range": "must stay inside the arrays it declares",
    "uninitialised": "must read only what was written",
    "race": "must have a barrier between a write and other threads' use of the same memory",
    "misaligned": "must align wide loads and stores",
    "const_write": "must not write through a const pointer",
    "barrier_divergent": "must bring all threads of a block to the same barrier",
    "barrier_not_reached": "must bring all threads of a block to a barrier",
    "warp_lanes": "must call a warp operation with every lane its mask names",
    "pending_copy": "must wait for an asynchronous copy before its memory is touched",
    "arithmetic": "must stay inside the range of its integers",
    "stack_overflow": "must keep its local variables below 60 KiB a thread",
    "trap": "must not stop itself",
    "endless": "must end",
}

REMEDY = {
    "out_of_bounds": "compare the index with the size that was passed",
    "uninitialised": "write it first, and put a barrier between if another thread does",
    "race": "put __syncthreads() (or __syncwarp() inside one warp) between the two",
    "misaligned": "use the wide type only where address and length are multiples of it",
    "barrier_not_reached": "let threads with nothing to do skip the work, not the barrier",
    "barrier_divergent": "move the barrier out of the branch",
    "pending_copy": "call the matching wait, then __syncthreads()",
    "arithmetic": "use 64-bit indices, or a launcher's proof that 32 bits are enough",
}


class Segment(NamedTuple):
    """One stretch of the arena, and the arguments whose arrays lie in it: (position, parameter, first byte, bytes)."""

    begin: int
    bytes: int
    arguments: list[tuple[int, Parameter, int, int]]


def _where(report: Report, library: Library, dynamic: int, segments: list[Segment]) -> str:
    """What the address means: an element of an argument, of shared memory, or nothing that is known."""
    if report.space in (2, 3):
        return _in_shared(report, library, dynamic)
    near = min(segments, key=lambda each: _distance(report.address, each), default=None)
    if near is None or _distance(report.address, near) > 32768:
        return f"address {report.address:#x}, far from every argument" if report.address else ""
    offset = report.address - near.begin
    place, parameter, first, count = min(near.arguments, key=lambda each: _outside(offset, each[2], each[3]))
    each = parameter.dtype.itemsize
    byte = offset - first
    rest = f" (byte {byte % each} of it)" if byte % each else ""
    return f"element {byte // each}{rest} of argument {place} '{parameter.name}', which has {count // each}"


def _outside(offset: int, first: int, count: int) -> int:
    return 0 if first <= offset < first + count else min(abs(offset - first), abs(offset - first - count))


def _distance(address: int, segment: Segment) -> int:
    return _outside(address, segment.begin, segment.bytes)


def _in_shared(report: Report, library: Library, dynamic: int) -> str:
    if report.space == 3:
        return f"byte {report.address - report.shared_begin} of dynamic shared memory, which has {dynamic} bytes"
    offset = report.address - report.shared_begin
    for name, begin, size in library.shared:
        if begin <= offset < begin + size:
            return f"byte {offset - begin} of shared array '{_plain(name)}', which has {size} bytes"
    return "static shared memory, outside its arrays"


def _plain(mangled: str) -> str:
    """``_ZZ2mmE4tile`` -> ``tile``: the last length-and-name pair."""
    text = mangled.rpartition("E")[2].rstrip("_0123456789") if mangled.startswith("_ZZ") else mangled
    return text.lstrip("0123456789") or mangled


def _who(block: tuple[int, ...], thread: tuple[int, ...]) -> str:
    several = 2**32 - 1
    told_block = "several blocks" if block[0] == several else f"block {block}"
    return told_block + (" several threads" if thread[0] == several else f" thread {thread}")


def error(
    report: Report, library: Library, image: int, signature: Signature, dynamic: int, segments: list[Segment]
) -> EmulatorError:
    """The report as the error that the launch raises."""
    kind = KINDS[report.kind]
    if report.pc:
        place = library.line_of(report.pc - image)
    else:
        place = (report.file.decode() or None, report.line or None)
    if place[1] is None:
        place = (place[0], None)
    block, thread = report.block.tuple(), report.thread.tuple()
    parts = [report.text.decode()] if report.text else []
    if report.address:
        verb = "store" if report.write else "load"
        about = _where(report, library, dynamic, segments)
        parts.append(f"{verb} of {report.size} bytes at {about}" if report.size else about)
    if report.has_other:
        parts.append(_other(report, library, image, kind))
    got = "; ".join(each for each in parts if each)
    where = f"{place[0]}:{place[1]}" if place[1] else "an unknown line"
    remedy = f"; {REMEDY[kind]}" if kind in REMEDY else ""
    message = f"{signature.name}: {kind}: it {MUST[kind]}, got at {where}, {_who(block, thread)}: {got}{remedy}"
    return EmulatorError(message, kind, signature.name, place, block, thread)


def _other(report: Report, library: Library, image: int, kind: str) -> str:
    who = _who(report.other_block.tuple(), report.other_thread.tuple())
    if not report.other_pc:
        return f"the other is {who}"
    file, line = library.line_of(report.other_pc - image)
    where = f"{file}:{line}" if line else "an unknown line"
    if kind == "pending_copy":
        return f"the copy was started at {where} by {who}"
    return f"{'written' if report.other_write else 'read'} at {where} by {who}"
