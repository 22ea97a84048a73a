"""No cheat gets a row: each is refused, for its own reason, on the way that `gpunet check` and `gpunet bench` take."""

import gc
import re
import time
import types
from typing import Any

import numpy as np
import pytest

from gpunet import config, devices
from gpunet.dispatch import Kernel
from gpunet.measure import calls, guard, loop, passes, progress, proof, timer, tolerances, variation
from gpunet.measure.calls import Case, suites
from gpunet.measure.rows import Report, Roof, Row
from gpunet.measure.session import Lane, Options, Session
from tests import cheats, cheats_traces
from tests.cheats import CHEATS, Cheat

CPU = devices.CPU
assert cheats_traces.STATES  # importing it enters its kernels into the table
SLOW_ROOF = 1e30  # operations and bytes a second: nothing can be faster


@pytest.fixture(autouse=True)
def _small_copies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timer, "MEMORY", 2**16)


def case_of(entry: str, dtype: str = "float32", seed: int = 0) -> Case:
    """An entry's call at its op's first proof size."""
    op = entry.partition(".")[0]
    size = suites.sizes(op, ("proof",))[0]
    return next(each for each in calls.capture(suites.load(op), size, dtype, seed) if each.entry == entry)


def session(rate: float = SLOW_ROOF) -> Session:
    """A run whose roof is known, so that nothing is probed."""
    roofs = [Roof("cpu", dtype, rate, rate, rate, 1) for dtype in ("float32", "float64")]
    options = Options(out=None, quiet=True)
    return Session(options, progress.console(True), Report(roofs=roofs), progress.Budget(None), [Lane(CPU, "numpy")])


def kernel_of(function: Any, entry: str = "relu.forward") -> Kernel:
    return Kernel(entry, "numpy", "cheat", function, None, __file__, 1)


def timed(kernel: Kernel, dtype: str = "float32", now: Session | None = None, seconds: float = 0.03) -> Row | None:
    """What `gpunet bench` does with one kernel on one size."""
    now = now or session()
    first, again = (case_of(kernel.entry, dtype, seed) for seed in (10, 20))
    return passes.time_kernel(now, first, again, now.lanes[0], kernel, seconds)


@pytest.mark.parametrize("name", CHEATS)
def test_no_cheat_gets_a_row(name: str):
    each = CHEATS[name]
    now = session()
    row = timed(kernel_of(each.make(), each.entry), each.dtype, now)
    reasons = [found.reason for found in now.report.proofs if found.status == "failed"]
    assert row is None
    assert reasons, "nothing was found"
    assert re.search(each.reason, reasons[0]), reasons[0]
    if each.timed:  # the proof had passed: nothing but the loop could tell
        assert [found.status for found in now.report.proofs].count("passed") >= 2
    assert Report(proofs=now.report.proofs).failed  # so the command's status is 1


@pytest.mark.parametrize("name", [name for name, each in CHEATS.items() if not each.timed])
def test_check_alone_refuses_what_a_proof_can_see(name: str):
    each: Cheat = CHEATS[name]
    if name == "right_at_the_tested_sizes_only":
        op, size = "relu", variation.other_size(suites.sizes("relu", ("proof",))[0], 0)
        case = next(c for c in calls.capture(suites.load(op), size, "float32", 0) if c.entry == each.entry)
    else:
        case = case_of(each.entry, each.dtype)
    verdict = proof.prove(case, kernel_of(each.make(), each.entry), CPU)
    assert verdict.status == "failed"
    assert re.search(each.reason, verdict.reason), verdict.reason


@pytest.mark.parametrize("entry", ["relu.forward", "matmul.forward", "softmax.forward"])
def test_an_honest_kernel_gets_its_row(entry: str):
    now = session()
    row = timed(calls.definition(entry), now=now)
    assert row is not None, [each.reason for each in now.report.proofs]
    assert (row.proof, row.deterministic, row.impossible) == ("passed", True, False)
    assert row.reached is not None
    assert row.allowed is not None
    assert row.reached <= row.allowed
    assert 0 <= row.time.outliers <= row.time.n
    assert {each.status for each in now.report.proofs} == {"passed"}


def test_there_are_at_least_24_cheats_and_each_is_wrong_in_its_own_way():
    assert len(CHEATS) >= 24


def test_every_change_is_put_back():
    functions, state = guard.snapshot(), {name: read() for name, (read, _) in guard.STATE.items()}
    for name, each in CHEATS.items():
        if name.startswith(("replaces", "changes", "other_code")):
            proof.prove(case_of(each.entry), kernel_of(each.make()), CPU)
    assert guard.replaced(functions) is None
    assert {name: read() for name, (read, _) in guard.STATE.items()} == state
    assert gc.isenabled()
    assert tolerances.allowed("float32", 1) < 1e-5


def test_what_a_file_replaced_when_it_was_imported_is_found(monkeypatch: pytest.MonkeyPatch):
    honest = tolerances.compare
    monkeypatch.setattr(tolerances, "compare", lambda *args: honest(*args)._replace(reached=0.0))
    verdict = proof.prove(case_of("relu.forward"), kernel_of(lambda x: x * 2), CPU)
    assert verdict.reason.startswith("it replaces gpunet.measure.tolerances.compare, when its file is imported")
    assert tolerances.compare is honest


def test_answers_kept_for_equal_inputs_are_never_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timer, "COPIES", 1)
    hits: list[bool] = []
    kept: dict[bytes, np.ndarray] = {}

    def remembering(a: np.ndarray, b: np.ndarray, **params: Any) -> np.ndarray:
        key = a.tobytes() + b.tobytes()
        if cheats.in_the_loop():
            hits.append(key in kept)
        kept[key] = cheats.matmul(a, b, **params)
        return kept[key].copy()

    case = case_of("matmul.forward", seed=20)
    run = loop.Loop(case, kernel_of(remembering, "matmul.forward"), CPU)
    limits = timer.Limits(warmup=0, min_time=0, max_time=0.05, sample=0)
    assert run.time(limits, cold=False) is not None
    # The last samples share their numbers; of the others two may meet by chance.
    assert hits.count(True) <= timer.CLOSING + 0.05 * len(hits)
    assert len(hits) > timer.CLOSING


def test_a_row_faster_than_the_roof_fails_the_run(monkeypatch: pytest.MonkeyPatch):
    now = session(rate=1.0)  # one operation and one byte a second: whatever runs here is faster
    monkeypatch.setattr(now, "raise_roof", lambda device, dtype: now.report.roofs[0])
    row = timed(calls.definition("relu.forward"), now=now)
    assert row is not None
    assert row.impossible
    now.report.rows.append(row)
    assert any("impossible" in line for line in now.report.failed)


def test_inputs_of_the_loop_are_not_those_of_a_proof():
    seen: dict[bool, set[bytes]] = {True: set(), False: set()}

    def watching(x: np.ndarray) -> np.ndarray:
        seen[cheats.called_from("time")].add(x.tobytes())
        return cheats.relu(x)

    assert timed(kernel_of(watching)) is not None
    assert len(seen[True]) > 10
    assert not seen[True] & seen[False]


# ------------------------------------------------------------------------------------------------------------ a GPU


class FakeGpu:
    """Stands for a device with streams: work that is not on the current one is done when all are waited for."""

    kind, index = "cuda", 0

    def __init__(self):
        self.late: list[Any] = []
        self.xp: Any = types.ModuleType("fake_cupy")
        vars(self.xp).update({name: value for name, value in vars(np).items() if not name.startswith("__")})
        stream = types.SimpleNamespace(synchronize=lambda: None)
        self.xp.cuda = types.SimpleNamespace(get_current_stream=lambda: stream)
        self.xp.get_default_memory_pool = lambda: types.SimpleNamespace(used_bytes=lambda: 0)

    def asarray(self, data: Any, dtype: Any = None) -> np.ndarray:
        return np.array(data, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        return array.copy()

    def synchronize(self) -> None:
        while self.late:
            self.late.pop()()


def other_stream(device: Any) -> Any:
    def launch(x):
        y, values = devices.empty(x.shape, x.dtype, device.xp), x.copy()
        device.late.append(lambda: np.maximum(values, 0, out=y))
        return y

    return launch


def test_work_on_another_stream_is_refused():
    device: Any = FakeGpu()
    verdict = proof.prove(case_of("relu.forward"), kernel_of(other_stream(device)), device)
    assert "output 0 still changes after the call has returned: a thread or another stream" in verdict.reason


def test_work_on_the_current_stream_passes():
    device: Any = FakeGpu()
    verdict = proof.prove(case_of("relu.forward"), kernel_of(cheats.relu), device)
    assert (verdict.status, verdict.reason, verdict.deterministic) == ("passed", "", True)


def test_work_on_another_stream_in_the_loop_alone_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loop.events, "Stopwatch", lambda device: None)  # the made-up device has no events
    device: Any = FakeGpu()
    late = other_stream(device)
    kernel = kernel_of(lambda x: late(x) if cheats.in_the_loop() else cheats.relu(x))
    run = loop.Loop(case_of("relu.forward", seed=20), kernel, device)
    run.time(timer.Limits(warmup=0, min_time=0, max_time=0.02), cold=False)
    # The clock waits for the whole device, so what another stream does is within the time, and the result is right.
    assert run.reason == ""
    device.synchronize = lambda: None
    run = loop.Loop(case_of("relu.forward", seed=20), kernel, device)
    run.time(timer.Limits(warmup=0, min_time=0, max_time=0.02), cold=False)
    assert "a result of the timed loop is wrong" in run.reason


# ------------------------------------------------------------------------------------------------- what is varied


def test_other_numbers_are_the_same_in_another_order():
    case = case_of("matmul.forward")
    for before, after in zip(case.call.arrays, case.permuted.call.arrays, strict=True):
        assert before.shape == after.shape
        assert not np.array_equal(before, after)
        np.testing.assert_array_equal(np.sort(before, None), np.sort(after, None))


def test_exchanges_are_undone_in_reverse_order():
    case = case_of("matmul.forward")
    arrays = case.arrays_on(CPU)
    variation.apply(case.exchanges, arrays)
    assert not np.array_equal(arrays[0], case.call.arrays[0])
    np.testing.assert_array_equal(arrays[0], case.exchanged.call.arrays[0])
    variation.apply(case.exchanges[::-1], arrays)
    for before, after in zip(case.call.arrays, arrays, strict=True):
        np.testing.assert_array_equal(before, after)


def test_other_layouts_hold_the_same_numbers():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    strided, unaligned = variation.strided(x, CPU), variation.unaligned(x, CPU)
    np.testing.assert_array_equal(strided, x)
    np.testing.assert_array_equal(unaligned, x)
    assert not strided.flags.c_contiguous
    assert unaligned.flags.c_contiguous
    assert unaligned.ctypes.data % 16


@pytest.mark.parametrize("op", ["relu", "matmul", "softmax", "conv2d", "max_pool2d", "batch_norm"])
def test_other_extents_can_be_computed(op: str):
    found = [passes._at_other_extents(op, size, "float32", 0) for size in suites.sizes(op, ("proof",))]
    assert any(found)
    assert passes._at_other_extents(op, suites.sizes(op, ("proof",))[0], "float32", 0)


def test_settings_are_poisoned_for_the_proof_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config.settings, "poison", False)
    seen: list[bool] = []

    def looking(x: np.ndarray) -> np.ndarray:
        seen.append(config.settings.poison)
        return cheats.relu(x)

    assert proof.prove(case_of("relu.forward"), kernel_of(looking), CPU).status == "passed"
    assert seen[:3] == [True, False, True]
    assert config.settings.poison is False


def test_the_clock_is_the_one_that_was_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    found = timer.measure([lambda: time.sleep(0.002)], lambda: None, timer.Limits(0, 0, 0.02))
    assert found.median >= 0.002
