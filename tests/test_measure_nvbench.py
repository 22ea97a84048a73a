"""nvbench's second opinion, with a cuda.bench and a CuPy of the tests' own in its process.

The fake follows cuda-bench 0.3: ``register``, ``run_all_benchmarks`` once a process, ``State.exec``,
``Launch.get_stream``, ``BenchmarkResult.from_json``. What it was asked goes into a file.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from gpunet import cuda, devices
from gpunet.dispatch import Kernel
from gpunet.measure import calls, nvbench
from gpunet.measure.calls import Case, suites
from gpunet.measure.rows import Timing

GPU = devices._named("cuda:1")

BENCH = """
import json, os, pathlib
import cupy

LOG = pathlib.Path(os.environ["FAKE_LOG"])
HOW = os.environ.get("FAKE_HOW", "")
asked = {"options": {}, "streams": [], "exec": {}, "calls": 0}
registered, ran = [], []


class CudaStream:
    def __init__(self, number): self.number = number
    def addressof(self): return self.number


class State:
    def get_stream(self): return CudaStream(100)

    def exec(self, fn, /, *, batched=None, sync=False, timer=False):
        asked["exec"] = {"batched": batched, "sync": sync}
        asked["streams"] = list(cupy.streams)
        class Launch:
            def get_stream(self): return CudaStream(200)
        for _ in range(5):
            fn(Launch())
        asked["launched"] = cupy.streams[len(asked["streams"]):]


class Benchmark:
    def __init__(self, fn): self.fn = fn
    def __getattr__(self, name):
        if not name.startswith("set_"): raise AttributeError(name)
        def keep(value):
            asked["options"][name[4:]] = value
            return self
        return keep


def register(fn):
    if ran: raise RuntimeError("Can not register more benchmarks after benchmark was run")
    registered.append(Benchmark(fn))
    return registered[-1]


def run_all_benchmarks(argv):
    if ran: raise RuntimeError("Benchmarks were already executed")
    if HOW == "deadlock": raise RuntimeError("Deadlock detected -- missing nvbench::exec_tag::sync?")
    ran.append(argv)
    for each in registered: each.fn(State())
    asked["argv"] = argv
    path = pathlib.Path(argv[argv.index("--jsonbin") + 1])
    path.write_text(json.dumps([] if HOW == "no samples" else [5e-6, 3e-6, 4e-6]))
    LOG.write_text(json.dumps(asked))
"""
RESULTS = """
import json, pathlib


class BenchmarkResult:
    @classmethod
    def from_json(cls, path):
        class State: samples = json.loads(pathlib.Path(path).read_text())
        class Sub: states = [State()]
        return {"gpunet": Sub()}
"""
CUPY = """
from numpy import *
from numpy import asarray as _asarray

streams, placed = [], []
is_available = lambda: True


def asarray(data, dtype=None):
    placed.append(len(streams))
    return _asarray(data, dtype)


class _Place:
    def __init__(self, *arguments): self.arguments = arguments
    def __enter__(self): return self
    def __exit__(self, *_): return None
    def synchronize(self): pass


class _Stream(_Place):
    def __enter__(self): streams.append(self.arguments)


class cuda:
    Device, ExternalStream = _Place, _Stream
    class runtime:
        getDeviceCount = staticmethod(lambda: 2)
"""
OWN = """
import gpunet as gn
import helper


@gn.kernel("relu.forward", backend="cupy", variant="mine")
def relu_forward_mine(x):
    helper.note(x)
    return x.clip(0, None)
"""
HELPER = """
import os
import pathlib


def note(x):
    pathlib.Path(os.environ["FAKE_INPUT"]).write_bytes(x.tobytes())
"""


@pytest.fixture
def case() -> Case:
    size = suites.sizes("relu", ("proof",))[0]
    return next(each for each in calls.capture(suites.load("relu"), size, "float32", 0) if each.entry == "relu.forward")


@pytest.fixture
def own(tmp_path: Path) -> Kernel:
    """A user's kernel in a file of its own, which imports another beside it."""
    path = tmp_path / "own" / "mine.py"
    path.parent.mkdir()
    path.write_text(OWN)
    path.with_name("helper.py").write_text(HELPER)
    return Kernel("relu.forward", "cupy", "mine", lambda x: x, None, str(path), 6)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the fakes where nvbench's process finds them; the file into which they write what they were asked."""
    home = tmp_path / "fakes"
    (home / "cuda" / "bench").mkdir(parents=True)
    (home / "cuda" / "bench" / "__init__.py").write_text(BENCH)
    (home / "cuda" / "bench" / "results.py").write_text(RESULTS)
    (home / "cupy.py").write_text(CUPY)
    monkeypatch.setenv("PYTHONPATH", str(home))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAKE_INPUT", str(tmp_path / "input"))
    monkeypatch.setattr(cuda, "why_no_nvbench", lambda: None)
    return tmp_path / "log"


def test_it_runs_on_the_same_inputs_and_on_the_stream_that_nvbench_gives(case: Case, own: Kernel, log: Path):
    before = set(sys.modules)
    found = nvbench.second_opinion(own, case, GPU, seconds=2.5)
    assert found == nvbench.Opinion(4e-6, "")
    assert "cuda.bench" not in set(sys.modules) - before
    asked = json.loads(log.read_text())
    assert asked["launched"] == [[200, 1]] * 5
    assert asked["streams"] == [[100, 1]] * nvbench.WARM_UP
    assert asked["exec"] == {"batched": False, "sync": False}
    assert asked["options"] == {"name": "gpunet", "timeout": 2.5, "throttle_threshold": 0.0}
    assert asked["argv"][:4] == ["gpunet", "--quiet", "--devices", "1"]
    read = np.frombuffer(log.with_name("input").read_bytes(), np.float32)
    assert np.array_equal(read, case.call.arrays[0].ravel())
    assert not Path(asked["argv"][5]).exists()


def test_a_kernel_of_the_project_is_found_by_its_place(case: Case, log: Path):
    assert nvbench.second_opinion(calls.definition("relu.forward"), case, GPU).median == 4e-6
    gone = Kernel("relu.forward", "numpy", "gone", lambda x: x, None, "nowhere.py", 1)
    found = nvbench.second_opinion(gone, case, GPU)
    assert found.median is None
    assert "there must be a kernel relu.forward/gone in nowhere.py, got none" in found.reason


@pytest.mark.parametrize(
    ("how", "reason"),
    [("deadlock", "status 1: RuntimeError: Deadlock detected"), ("no samples", "RuntimeError: nvbench took no sample")],
)
def test_when_nvbench_fails_its_last_word_is_the_reason(
    case: Case, log: Path, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
):
    monkeypatch.setenv("FAKE_HOW", how)
    found = nvbench.second_opinion(calls.definition("relu.forward"), case, GPU)
    assert found.median is None
    assert reason in found.reason


def test_a_process_that_does_not_end_is_given_up(case: Case, log: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(nvbench, "STARTING", 0.01)
    found = nvbench.second_opinion(calls.definition("relu.forward"), case, GPU, seconds=0.0)
    assert found == nvbench.Opinion(None, "nvbench did not end within 0 s")


def test_not_installed_the_reason_names_the_remedy(case: Case, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cuda", None)
    found = nvbench.second_opinion(calls.definition("relu.forward"), case, GPU)
    assert found.median is None
    assert 'not installed; pip install "cuda-bench[cu13]"' in found.reason
    assert nvbench.second_opinion(calls.definition("relu.forward"), case, devices.CPU).reason.startswith(
        "nvbench measures"
    )


def timing(median: float, cache: str = "cold") -> Timing:
    return Timing(median, median, median, median, median, median, median, 10, 1, median, 0.0, 4, cache, "noise")


def test_the_difference_is_a_sentence():
    assert nvbench.difference("relu.forward, n", timing(4e-6), nvbench.Opinion(4.2e-6)) == (
        "relu.forward, n: nvbench 4.2 us, gpunet 4.0 us, +5.0 %; they agree"
    )
    assert nvbench.difference("x", timing(4e-6), nvbench.Opinion(3e-6)).endswith("-25.0 %; they do not agree")
    assert "were in the cache" in nvbench.difference("x", timing(4e-6, "hot"), nvbench.Opinion(4e-6))
    assert nvbench.difference("x", timing(1.0), nvbench.Opinion(None, "why")) == "no second opinion on x: why"


def test_a_row_of_the_processor_gets_the_reason_once():
    from types import SimpleNamespace

    from gpunet.measure import calls, rows, session

    now = session.Session(SimpleNamespace(), None, rows.Report(), None)  # type: ignore[arg-type]
    size = calls.suites.sizes("relu", ("proof",))[0]
    cases = calls.capture(calls.suites.load("relu"), size, "float32", 0)
    found = [
        SimpleNamespace(device="cpu", phase=c.phase, entry=c.label, backend="numpy", variant="reference", size="s")
        for c in cases
    ]
    nvbench.opinions(now, found, cases)  # type: ignore[arg-type]
    assert now.report.notes == ["nvbench: nvbench measures GPUs alone, and cpu is none"]
