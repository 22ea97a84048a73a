"""One launch on device ``sim``: arguments into the arena, the runtime, outputs back.

The arena is one stretch of memory with wide gaps, so that an access beside an array is never an access to another one.
Arrays that overlap stay together; an address keeps what it is modulo 256, so that a view is aligned here as it would
be on a GPU.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.config import settings
from gpunet.cuda import guard, table
from gpunet.cuda.emulator import build, fresh, report
from gpunet.cuda.emulator.native import Buffer, Index, Launch, Library
from gpunet.cuda.emulator.report import Segment
from gpunet.cuda.source import Parameter, Signature, Source
from gpunet.errors import EmulatorError

GAP = 65536  # bytes between arrays; an access that far off is still told as "beside" the nearer one
MOST_BLOCKS = 1 << 24  # of one launch here: beyond, it would run for hours

#: compute capability times 100 -> largest shared memory of a block in bytes
SHARED_LIMIT = {750: 65536, 800: 166912, 860: 101376, 870: 166912, 890: 101376, 900: 232448, 1000: 232448, 1200: 101376}
STATIC_LIMIT = 49152


@dataclass
class Options:
    """How launches on ``sim`` run. One instance, :data:`options`; tests change it."""

    workers: int = 1
    """Operating-system threads that share the blocks."""
    arch: int = 900
    """``__CUDA_ARCH__``, and whose limits hold."""
    limit: int = 10**9
    """Memory accesses after which a thread counts as endless."""

    @property
    def seed(self) -> int:
        """Order of threads and blocks: ``GPUNET_SIM_SEED``."""
        return settings.sim_seed

    @seed.setter
    def seed(self, value: int) -> None:
        settings.sim_seed = value


options = Options()


@dataclass
class Program:
    """A kernel file, compiled and loaded for the emulator."""

    source: Source
    library: Library
    arch: int
    granule: int = 2  # of shared memory's shadow; becomes 0 (bytes) once a kernel touches less than 4 bytes
    accesses: int = field(default=0, init=False)  # of the last launch


def program(source: Source) -> Program:
    """Compiles ``source`` for the emulator, or takes it from the cache."""
    return Program(source, Library(Path(build.build(source, options.arch))), options.arch)


def _need_limits(
    program: Program, signature: Signature, grid: Sequence[int], block: Sequence[int], dynamic: int
) -> None:
    threads, arch = int(np.prod(block)), program.arch
    static, bound = program.library.shared_of(signature.name), program.library.bound_of(signature.name)

    def refuse(must: str, got: object) -> None:
        raise EmulatorError(
            f"{signature.name}: launch: {must}, got {got}", "launch", signature.name, (None, signature.line)
        )

    if threads > guard.THREADS_LIMIT or any(n > most for n, most in zip(block, guard.BLOCK_LIMIT)):
        refuse(
            f"a block may have {guard.THREADS_LIMIT} threads and at most {guard.BLOCK_LIMIT}",
            f"{tuple(block)}, {threads} threads",
        )
    if threads > bound:
        refuse(f"its __launch_bounds__ lets a block have {bound} threads", f"{tuple(block)}, {threads} threads")
    if any(n > most for n, most in zip(grid, guard.GRID_LIMIT)):
        refuse(f"a grid may have at most {guard.GRID_LIMIT} blocks", tuple(grid))
    if int(np.prod(grid, dtype=np.int64)) > MOST_BLOCKS:
        refuse(f"the emulator takes at most {MOST_BLOCKS} blocks", tuple(grid))
    if static > STATIC_LIMIT:
        refuse(
            f"static shared memory may have {STATIC_LIMIT} bytes a block", f"{static}; use extern __shared__ for more"
        )
    most = SHARED_LIMIT[max((each for each in SHARED_LIMIT if each <= arch), default=750)]
    if static + dynamic > most:
        refuse(
            f"shared memory may have {most} bytes a block on sm_{arch // 10}", f"{static} static + {dynamic} dynamic"
        )
    taken = table.resources(signature.name, program.source.defines, arch)
    if taken and threads > taken.most_threads:
        refuse(
            f"the kernel takes {taken.registers} registers a thread on sm_{arch // 10}, so a block may have "
            f"{taken.most_threads} threads",
            f"{tuple(block)}, {threads} threads",
        )


class _Arena:
    """The arrays of one launch, copied side by side."""

    def __init__(self, signature: Signature, arguments: Sequence[Any]):
        given = [
            (k, p, a) for k, (p, a) in enumerate(zip(signature.parameters, arguments, strict=True))
            if p.pointer and isinstance(a, np.ndarray)
        ]  # fmt: skip
        self.arrays = list(given)
        given.sort(key=lambda each: _address(each[2]))
        spans: list[list[tuple[int, Parameter, np.ndarray]]] = []
        end = -1
        for each in given:
            begin = _address(each[2])
            if spans and begin < end:
                spans[-1].append(each)
            else:
                spans.append([each])
            end = max(end if begin < end else 0, begin + each[2].nbytes)
        self.segments: list[Segment] = []
        self.place: dict[int, int] = {}  # position of an argument -> its offset in the arena
        top = GAP
        for span in spans:
            low, high = _address(span[0][2]), max(_address(a) + a.nbytes for _, _, a in span)
            # NumPy aligns less than a GPU: an array of its own counts as aligned, a view by its offset in its owner.
            shift = (low - _address(guard.owner(span[0][2]))) % 256
            begin = top + (-top) % 256 + shift
            inside = [(k, p, _address(a) - low, a.nbytes) for k, p, a in span]
            self.segments.append(Segment(begin, high - low, inside))
            for k, _, offset, _ in inside:
                self.place[k] = begin + offset
            top = begin + (high - low) + GAP
        self.memory = np.empty(top + 256, np.uint8)
        self.base = _address(self.memory) + (-_address(self.memory)) % 256
        self.first = self.base - _address(self.memory)
        self.segments = [each._replace(begin=each.begin + self.base) for each in self.segments]
        self.fill()

    def fill(self) -> None:
        """Copies the arrays in."""
        for k, _, array in self.arrays:
            self._view(k, array.nbytes)[:] = array.reshape(-1).view(np.uint8)

    def bring_back(self) -> None:
        """Copies out what the kernel may have written."""
        for k, parameter, array in self.arrays:
            if not parameter.const:
                array.reshape(-1).view(np.uint8)[:] = self._view(k, array.nbytes)

    def _view(self, k: int, count: int) -> np.ndarray:
        begin = self.first + self.place[k]
        return self.memory[begin : begin + count]

    def buffers(self) -> tuple[Any, list[Any]]:
        """The segments as the runtime wants them, and what must stay alive: masks of fresh bytes and of writes."""
        found = (Buffer * max(1, len(self.segments)))()
        alive: list[Any] = []
        by_place = {k: a for k, _, a in self.arrays}
        for slot, segment in zip(found, self.segments):
            sizes = [p.dtype.itemsize for _, p, _, _ in segment.arguments]
            granule = int(np.log2(min(sizes)))
            if any((offset | count) % (1 << granule) for _, _, offset, count in segment.arguments):
                granule = 0
            mask = np.zeros(segment.bytes + 1, np.uint8)
            for k, _, offset, count in segment.arguments:
                part = fresh.mask(by_place[k])
                if part is not None:
                    mask[offset : offset + count] = part
            written = np.zeros((segment.bytes >> granule) + 1, np.uint8)
            writable = any(not p.const for _, p, _, _ in segment.arguments)
            slot.begin, slot.bytes, slot.granule, slot.writable = segment.begin, segment.bytes, granule, writable
            slot.fresh = mask.ctypes.data if mask.any() else None
            slot.written = written.ctypes.data
            alive.append((mask, written, granule))
        return found, alive

    def note_writes(self, alive: list[Any]) -> None:
        """Takes what was written out of the masks of fresh bytes."""
        by_place = {k: a for k, _, a in self.arrays}
        for segment, (mask, written, granule) in zip(self.segments, alive):
            if not mask.any():
                continue
            touched = np.repeat(written, 1 << granule)[: segment.bytes].astype(bool)
            for k, _, offset, count in segment.arguments:
                part = fresh.mask(by_place[k])
                if part is not None:
                    part[touched[offset : offset + count]] = 0
                    fresh.settle(by_place[k])


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def launch(
    program: Program, name: str, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int = 0
) -> None:
    """Runs kernel ``name`` on NumPy arrays; the guard has checked the arguments.

    Raises:
        EmulatorError: the kernel did what it must not do; the message says what, where and which thread.
    """
    signature = program.source.signatures[name]
    _need_limits(program, signature, grid, block, shared)
    arena = _Arena(signature, arguments)
    values: list[Any] = []
    for k, (parameter, value) in enumerate(zip(signature.parameters, arguments, strict=True)):
        if parameter.pointer:
            values.append(ctypes.c_uint64(arena.base + arena.place[k] if k in arena.place else 0))
        else:
            values.append(
                (ctypes.c_char * parameter.dtype.itemsize).from_buffer_copy(
                    np.asarray(value, parameter.dtype).tobytes()
                )
            )
    pointers = (ctypes.c_void_p * max(1, len(values)))(*[ctypes.addressof(each) for each in values])
    while True:
        buffers, alive = arena.buffers()
        request = Launch(
            entry=program.library.entry(name), arguments=ctypes.addressof(pointers),
            grid=Index(*grid), block=Index(*block),
            seed=options.seed, limit=options.limit,
            arena=arena.base, arena_bytes=arena.memory.nbytes - arena.first,
            buffers=ctypes.addressof(buffers), buffer_count=len(arena.segments), workers=max(1, options.workers),
            dynamic_bytes=shared, shared_granule=program.granule,
        )  # fmt: skip
        found = program.library.launch(request)
        program.accesses = request.accesses
        if report.KINDS[found.kind] != "finer_shadow":
            break
        program.granule = 0
        arena.fill()
    if found.kind:
        raise report.error(found, program.library, request.image, signature, shared, arena.segments)
    arena.bring_back()
    arena.note_writes(alive)
