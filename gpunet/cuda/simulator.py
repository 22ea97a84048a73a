"""Numba's simulator, with threads that take turns: faster, in an order that a seed decides, and stricter.

Numba's own runs a thread of the operating system for each CUDA thread, all at once, and asks them in a loop whether
they have reached a barrier. Here each is a greenlet: a function that can be left and entered again. One runs at a time,
until it ends or waits at a barrier; then the next.

Between two barriers the threads of a block run one after the other, first to last or last to first. So a thread that
needs what another has not written yet reads what was there before: NaN, for shared arrays are filled with it when a
block begins. Refused, and not by Numba's: a barrier that some threads of a block never reach, and an index below 0,
which Python would count from the end. Warp shuffles and votes, which Numba's lacks, are here, for whole warps.
"""

import importlib
import sys
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import numpy as np

from gpunet.config import settings
from gpunet.errors import EmulatorError

greenlet: Any = importlib.import_module("greenlet")


class Options:
    """How blocks are run."""

    @property
    def seed(self) -> int:
        """Even: threads of a block in their order; odd: in reverse. ``GPUNET_SIM_SEED``."""
        return settings.sim_seed

    @seed.setter
    def seed(self, value: int) -> None:
        settings.sim_seed = value


options = Options()


class Thread(greenlet.greenlet):
    """One CUDA thread."""

    block: "Block"
    place: Any
    number: int
    waits: str = "block"
    """For whom, when it is left: its "block" or its "warp"."""
    gives: Any = None
    """What it shows its warp."""
    sees: tuple[Any, ...] = ()
    """What its warp showed, by lane."""


class Block:
    """One block of a launch; it takes the place of the simulator's BlockManager."""

    now: "Thread"  # the one that runs

    def __init__(self, function: Callable[..., None], grid: Any, size: Any, debug: bool):
        self.function, self.size = function, tuple(size)
        self.name = function.__name__
        self.votes = np.zeros(int(np.prod(self.size)), bool)

    def run(self, place: Any, *arguments: Any) -> None:
        """Runs the block at ``place`` of the grid to its end."""
        api = importlib.import_module("numba.cuda.simulator.kernelapi")
        importlib.import_module("numba.cuda.simulator.kernel")._get_kernel_context().shared.begin()
        self.place = api.Dim3(*place)
        nx, ny, nz = self.size
        threads = []
        for number, (z, y, x) in enumerate(np.ndindex(nz, ny, nx)):
            one = Thread(self.function)
            one.block, one.place, one.number = self, api.Dim3(x, y, z), number
            one.gr_context = copy_context()  # NumPy's errstate is kept there
            threads.append(one)
        if options.seed % 2:
            threads.reverse()
        ready, given = threads, arguments
        while ready:
            for each in ready:
                self._go_on(each, given)
            given = ()
            ready = self._released(threads)

    def _released(self, threads: list[Thread]) -> list[Thread]:
        """The threads that may go on: those of warps that are complete, else all if the block is at its barrier."""
        alive = [each for each in threads if not each.dead]
        warps: dict[int, list[Thread]] = {}
        for each in alive:
            warps.setdefault(each.number // 32, []).append(each)
        ready = []
        for members in warps.values():
            if all(each.waits == "warp" for each in members):
                shown = {each.number % 32: each.gives for each in members}
                for each in members:
                    each.sees = tuple(shown.get(lane) for lane in range(32))
                ready += members
        if ready or not alive:
            return ready
        if len(alive) < len(threads):
            must = "a barrier must be reached by all threads of a block"
            told = f"{must}, got {len(alive)} that wait and {len(threads) - len(alive)} that ended"
            raise self._error("barrier", told, 0)
        if any(each.waits == "warp" for each in alive):
            raise self._error("barrier", "threads of one warp wait for the warp and for the block", 0)
        return alive

    def _go_on(self, thread: Thread, arguments: tuple[Any, ...]) -> None:
        Block.now = thread
        try:
            thread.switch(*arguments)
        except Exception as error:
            told = f"block {self.place} thread {thread.place}: {type(error).__name__}: {error}"
            raise self._error("python", told, _line(error)) from error

    def _error(self, kind: str, told: str, line: int) -> EmulatorError:
        return EmulatorError(f"{self.name}: {told}", kind, self.name, (None, line))


def _line(error: BaseException) -> int:
    """The kernel's line that raised."""
    trace, line = error.__traceback__, 0
    while trace is not None:
        if "simulator" not in trace.tb_frame.f_code.co_filename:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _votes(value: Any) -> np.ndarray:
    """What every thread of the block said at this barrier."""
    thread = Block.now
    thread.block.votes[thread.number] = bool(value)
    _barrier()
    found = thread.block.votes.copy()
    _barrier()
    return found


def _barrier() -> None:
    """Leaves this thread; the block goes on with it when all others are here."""
    Block.now.waits = "block"
    Block.now.parent.switch()


def _shown(value: Any) -> tuple[Any, ...]:
    """What the lanes of this thread's warp show, once all have."""
    thread = Block.now
    thread.waits, thread.gives = "warp", value
    thread.parent.switch()
    return thread.sees


def _shuffled(value: Any, lane: int) -> Any:
    """What lane ``lane`` shows; a thread's own value where there is no such lane."""
    own = Block.now.number % 32
    seen = _shown(value)
    if not 0 <= lane < 32:
        lane = own
    if seen[lane] is None:
        raise IndexError(f"lane {lane} of the warp takes no part in this shuffle")
    return seen[lane]


class Shared:
    """Shared arrays of a launch: one for each place that makes one, filled with NaN when a block begins."""

    def __init__(self, dynamic: int):
        self.dynamic = np.zeros(dynamic, np.uint8)
        self.begin()

    def begin(self) -> None:
        """A new block: what the last one left is gone."""
        self.arrays: dict[tuple[Any, int], Any] = {}
        self.dynamic[:] = 255

    def array(self, shape: Any, dtype: Any, alignment: Any = None) -> Any:
        """The array of the place that calls; with shape 0 the launch's dynamic shared memory."""
        kind = np.dtype(dtype if isinstance(dtype, type | np.dtype) else str(dtype))
        if shape == 0:
            return Checked(self.dynamic[: self.dynamic.nbytes // kind.itemsize * kind.itemsize].view(kind))
        frame = sys._getframe(1)
        place = frame.f_code, frame.f_lasti
        found = self.arrays.get(place)
        if found is None:
            made = np.empty(shape, kind)
            made.reshape(-1).view(np.uint8)[:] = 255  # NaN, or -1 in an array of integers
            found = self.arrays[place] = Checked(made)
        return found


class Checked:
    """An array in a kernel: elements by index, and no index below 0 or beyond the end."""

    __slots__ = ("array", "dtype", "itemsize", "ndim", "shape", "size")

    def __init__(self, array: np.ndarray):
        self.array = array
        self.dtype, self.itemsize, self.ndim = array.dtype, array.itemsize, array.ndim
        self.shape, self.size = array.shape, array.size

    def __getitem__(self, index: Any) -> Any:
        self._check(index)
        return self.array[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._check(index)
        self.array[index] = value

    def __len__(self) -> int:
        return len(self.array)

    def _check(self, index: Any) -> None:
        for k in index if isinstance(index, tuple) else (index,):
            if k < 0:
                raise IndexError(f"an index must be at least 0, got {index}")


class _Argument:
    """An array handed to a kernel as it is: Numba's own would copy it in and, even where only read, out again."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def to_device(self, after: list[Any], stream: Any = 0) -> Checked:
        """What the kernel gets."""
        return Checked(self.array)


def install() -> None:
    """Puts these into the simulator that is loaded."""
    kernel: Any = importlib.import_module("numba.cuda.simulator.kernel")
    api: Any = importlib.import_module("numba.cuda.simulator.kernelapi")

    class Module(api.FakeCUDAModule):
        """What kernels call ``cuda``."""

        threadIdx = property(lambda self: Block.now.place)
        blockIdx = property(lambda self: Block.now.block.place)
        laneid = property(lambda self: Block.now.number % 32)

        def syncthreads(self) -> None:
            _barrier()

        def syncthreads_count(self, value: Any) -> int:
            return int(np.count_nonzero(_votes(value)))

        def syncthreads_and(self, value: Any) -> int:
            return int(np.all(_votes(value)))

        def syncthreads_or(self, value: Any) -> int:
            return int(np.any(_votes(value)))

        def syncwarp(self, mask: int = -1) -> None:
            _shown(0)

        def shfl_sync(self, mask: int, value: Any, lane: int) -> Any:
            return _shuffled(value, lane)

        def shfl_xor_sync(self, mask: int, value: Any, lanes: int) -> Any:
            return _shuffled(value, Block.now.number % 32 ^ lanes)

        def shfl_down_sync(self, mask: int, value: Any, apart: int) -> Any:
            return _shuffled(value, Block.now.number % 32 + apart)

        def shfl_up_sync(self, mask: int, value: Any, apart: int) -> Any:
            return _shuffled(value, Block.now.number % 32 - apart)

        def ballot_sync(self, mask: int, value: Any) -> int:
            return sum(1 << lane for lane, each in enumerate(_shown(bool(value))) if each)

    kernel.BlockManager = Block
    kernel.FakeCUDAModule = Module
    kernel.InOut = _Argument
    api.FakeCUDAShared = Shared
