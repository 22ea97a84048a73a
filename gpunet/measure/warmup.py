"""Compiling ahead: every kernel that has to be compiled is called on small arrays once, and lies on disk from then on.

A compiler holds the interpreter's lock, so several processes share the ops among them; the cache takes what they write
at the same time. A GPU's kernels are compiled in this process, one op after the other.
"""

import gc
import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, NamedTuple

from gpunet import devices, dispatch
from gpunet.cpu import threads
from gpunet.errors import BackendUnavailableError, KernelError
from gpunet.measure import calls, progress
from gpunet.measure.session import DTYPES, Lane, kernels_of

COMPILED = ("numba_cpu", "cupy", "numba_cuda")  # backends whose kernels are
MOST = 2**21  # elements of a size that is worth calling for what it compiles: large results have loops of their own
GARBAGE = 50_000  # objects between two searches for cycles while compiling, for 10 MB more
FIRST = ("conv2d", "matmul", "max_pool2d", "avg_pool2d", "batch_norm")  # they take longest, so they begin


class Warmed(NamedTuple):
    """What was compiled for one op."""

    op: str
    device: str
    backend: str
    dtype: str
    kernels: int
    """That were called; each may consist of several compiled functions."""
    seconds: float
    """In its process: for compiling, or for reading what was compiled before."""


def lanes(asked: str | None = None) -> list[Lane]:
    """Where there are kernels to compile: on every device that runs here but the simulator, or on the one asked for.

    Raises:
        BackendUnavailableError: none of the backends with such kernels runs there.
    """
    places = ["cpu", "cuda"] if asked in (None, "auto") else [str(devices.device(asked))]
    kinds = [(place, place.partition(":")[0]) for place in places]
    backends = [devices.BACKENDS[name] for name in COMPILED]
    runs = [(place, each) for place, kind in kinds for each in backends if _why_not(each, kind) is None]
    if not runs:
        reasons = "; ".join(f"{each.name}: {_why_not(each, kind)}" for _, kind in kinds for each in backends)
        raise BackendUnavailableError(f"warmup: a backend with kernels to compile must run here, got none; {reasons}")
    return [Lane(devices._named(place), each.name) for place, each in runs]


def _why_not(backend: devices.Backend, kind: str) -> str | None:
    return "sim compiles nothing that would be kept" if kind == "sim" else backend.why_not(kind)


def warm_all(places: Sequence[Lane], ops: Sequence[str], screen: Any, dtypes: Sequence[str] = DTYPES) -> list[Warmed]:
    """Compiles the kernels of ``ops`` and shows how far it is.

    Args:
        places: from :func:`lanes`.
        ops: names; a kernel of another op that one of them calls is compiled too.
        screen: a rich console.
        dtypes: "float32", "float64", or both.

    Raises:
        KernelError: a kernel cannot be compiled, or raises when it is called.
    """
    ordered = sorted(ops, key=lambda op: (op not in FIRST, op))
    tasks = [(lane, op, dtype) for lane in places for op in ordered for dtype in dtypes]
    apart = [each for each in tasks if each[0].device.kind == "cpu"]
    found = []
    with progress.shown(screen, "warmup", len(tasks)) as step:
        workers = min(threads.cores(), len(apart))
        if workers > 1:
            with ProcessPoolExecutor(workers, get_context("spawn"), _prepare) as pool:
                for done in as_completed([pool.submit(_warm_named, *_names(each)) for each in apart]):
                    found.append(done.result())
                    step(f"{found[-1].op} {found[-1].dtype}")
        _hush()
        for lane, op, dtype in tasks[len(apart) if workers > 1 else 0 :]:
            step(f"{op} {dtype} on {lane}")
            found.append(warm(lane, op, dtype))
    return found


def _hush() -> None:
    """Nobody else need tell that kernels are being compiled."""
    if importlib.util.find_spec("numba") is not None:
        importlib.import_module("gpunet.cpu.jit").teller.quiet = True


def _prepare() -> None:
    """What a process that compiles needs once."""
    threads.set_num_threads(1)
    _hush()
    gc.set_threshold(GARBAGE)  # a compiler makes far more objects than the 700 after which Python looks for cycles


def _names(task: tuple[Lane, str, str]) -> tuple[str, str, str, str]:
    lane, op, dtype = task
    return str(lane.device), lane.backend, op, dtype


def _warm_named(device: str, backend: str, op: str, dtype: str) -> Warmed:
    """:func:`warm` in another process, which gets names: kernels do not travel."""
    return warm(Lane(devices._named(device), backend), op, dtype)


def warm(lane: Lane, op: str, dtype: str) -> Warmed:
    """Calls every kernel of an op that takes the op's small sizes, once each.

    Raises:
        KernelError: a kernel raises; its name and what it raised.
    """
    begin, called = time.perf_counter(), set()
    sizes = [each for each in calls.suites.sizes(op, ("proof", "quick")) if each.elements <= MOST]
    for size in sizes:
        for case in calls.capture(calls.suites.load(op), size, dtype, 0, second=size.tier == "proof"):
            arrays = case.arrays_on(lane.device)
            for kernel in kernels_of(lane, case.entry):
                if kernel.refusal(arrays, case.call.params) is None:
                    _call(kernel, arrays, case.call.params)
                    called.add(kernel.name)
    return Warmed(op, str(lane.device), lane.backend, dtype, len(called), time.perf_counter() - begin)


def _call(kernel: dispatch.Kernel, arrays: tuple[Any, ...], params: dict[str, Any]) -> None:
    try:
        kernel.function(*arrays, **params)
    except Exception as error:  # whatever it is, it must be told with the kernel's name
        raise KernelError(f"warmup: {kernel} must run, got {type(error).__name__}: {error}") from error
