"""A second opinion on a GPU's times: NVIDIA's nvbench, through the package cuda-bench (optional).

Both clocks leave the launch out: nvbench holds the stream behind a blocking kernel while the host hands the launch
over, and :mod:`gpunet.measure.events` does likewise, so what lies between the events is the GPU's work alone. Both are
cold: nvbench flushes the second-level cache before each sample, gpunet takes turns on copies beyond it. What nvbench
adds is that nobody here wrote it.

nvbench runs its benchmarks once a process, so it gets one of its own, with the same inputs; CuPy launches there on the
stream that nvbench gives.
"""

import importlib.util
import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunet import cuda, devices, dispatch
from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.errors import NoKernelError
from gpunet.measure.calls import Case
from gpunet.measure.rows import Row, Timing
from gpunet.measure.session import Session

SECONDS = 3.0  # nvbench stops by itself when the noise is small, and after this
STARTING = 120.0  # beyond it for the process: importing, compiling, copying
WARM_UP = 3  # calls before nvbench's own, so that modules are loaded and memory is in the pool of its stream
AGREE = 0.10  # medians that lie closer are said to agree
ROOT = Path(__file__).resolve().parents[2]  # where gpunet is imported from


class Opinion(NamedTuple):
    """What nvbench says of one call."""

    median: float | None
    """Seconds a call on the GPU, with a cold second-level cache; None if nvbench could not measure."""
    reason: str = ""
    """Why it could not, and the remedy; empty if it could."""


def second_opinion(kernel: Kernel, case: Case, device: Device, seconds: float = SECONDS) -> Opinion:
    """Times one kernel on a case's inputs with nvbench, in a process of its own.

    Args:
        kernel: of the case's entry; a user's own is imported from its file.
        case: the inputs.
        device: a GPU.
        seconds: for nvbench's samples, at the most.
    """
    if device.kind != "cuda":
        return Opinion(None, f"nvbench measures GPUs alone, and {device} is none")
    reason = cuda.why_no_nvbench()
    if reason:
        return Opinion(None, reason)
    job = {
        "entry": kernel.entry, "backend": kernel.backend, "variant": kernel.variant, "file": kernel.file,
        "arrays": case.call.arrays, "params": case.call.params, "index": device.index or 0, "seconds": seconds,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="gpunet-nvbench-") as folder:
        (Path(folder) / "job").write_bytes(pickle.dumps(job))
        return _in_a_process(Path(folder), seconds)


def opinions(session: Session, rows: Sequence[Row], cases: Sequence[Case]) -> None:
    """A note for each row of a GPU: what nvbench says of it, or once why it says nothing.

    Args:
        session: its report gets the notes.
        rows: of one size.
        cases: the calls of that size.
    """
    known = {(each.phase, each.label): each for each in cases}
    for row in rows:
        device, case = devices._named(row.device), known[row.phase, row.entry]
        kernel = next(k for k in dispatch.variants(case.entry, row.backend) if k.variant == row.variant)
        found = second_opinion(kernel, case, device)
        name = f"{row.entry}/{row.backend}/{row.variant}, {row.size}"
        session.note(difference(name, row.time, found) if found.median else f"nvbench: {found.reason}")


def _in_a_process(folder: Path, seconds: float) -> Opinion:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from gpunet.measure import nvbench; nvbench.main(sys.argv[1])"
    )
    command = [sys.executable, "-c", code, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + STARTING, check=False)
    except subprocess.TimeoutExpired:
        return Opinion(None, f"nvbench did not end within {seconds + STARTING:.0f} s")
    result = folder / "result"
    if done.returncode or not result.is_file():
        lines = [line for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
        return Opinion(
            None, f"nvbench ended with status {done.returncode}: {lines[-1] if lines else 'it said nothing'}"
        )
    return Opinion(json.loads(result.read_text())["median"])


def difference(entry: str, ours: Timing, theirs: Opinion) -> str:
    """A sentence for the report's notes: what nvbench says beside gpunet.

    Args:
        entry: what was timed, as the note should call it.
        ours: from the clock of :mod:`gpunet.measure.events`.
        theirs: from :func:`second_opinion`.
    """
    if theirs.median is None:
        return f"no second opinion on {entry}: {theirs.reason}"
    share = theirs.median / ours.median - 1
    verdict = "they agree" if abs(share) <= AGREE else "they do not agree"
    if ours.cache != "cold":
        verdict = "gpunet's inputs were in the cache, nvbench's were not"
    times = f"nvbench {1e6 * theirs.median:.1f} us, gpunet {1e6 * ours.median:.1f} us"
    return f"{entry}: {times}, {100 * share:+.1f} %; {verdict}"


# --------------------------------------------------------------------------------------------- in nvbench's process


def main(folder: str) -> None:
    """What the process does: reads the job in ``folder``, lets nvbench run it, and writes the median beside it."""
    home = Path(folder)
    job = pickle.loads((home / "job").read_bytes())
    bench, results = cuda.nvbench()
    benchmark = bench.register(_benchmark(job))
    benchmark.set_name("gpunet")
    benchmark.set_timeout(job["seconds"])
    benchmark.set_throttle_threshold(0.0)  # gpunet keeps samples of a throttled GPU too, and says so
    options = ["--quiet", "--devices", str(job["index"]), "--jsonbin", str(home / "nvbench.json")]
    bench.run_all_benchmarks(["gpunet", *options])
    states = results.BenchmarkResult.from_json(home / "nvbench.json")["gpunet"].states
    samples = states[0].samples if states else None
    if not samples:
        raise RuntimeError("nvbench took no sample")
    (home / "result").write_text(json.dumps({"median": float(np.median(samples)), "n": len(samples)}))


def _benchmark(job: dict[str, Any]) -> Any:
    """The benchmark as nvbench calls it."""
    device = devices.device(f"cuda:{job['index']}")
    kernel, params = _kernel(job), job["params"]
    arrays = [None if each is None else device.asarray(each) for each in job["arrays"]]
    stream_of = cuda.cupy().cuda.ExternalStream

    def run(state: Any) -> None:
        def launch(launch: Any) -> None:
            with stream_of(launch.get_stream().addressof(), device.index):
                kernel.function(*arrays, **params)

        for _ in range(WARM_UP):
            launch(state)
        device.synchronize()
        state.exec(launch, batched=False)  # a batch would find its inputs in the cache

    return run


def _kernel(job: dict[str, Any]) -> Kernel:
    """The kernel that a job names; its file is imported if it is a user's own."""
    for again in (False, True):
        for each in dispatch.variants(job["entry"], job["backend"]):
            if (each.variant, each.file) == (job["variant"], job["file"]):
                return each
        if not again and Path(job["file"]).is_file():
            _import(Path(job["file"]))
    raise NoKernelError(f"nvbench: there must be a kernel {job['entry']}/{job['variant']} in {job['file']}, got none")


def _import(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(f"_own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)


__all__ = ["Opinion", "difference", "second_opinion"]
