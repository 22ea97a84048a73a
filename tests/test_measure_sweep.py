"""Sweeps over sizes: what is proved, what is timed, what is left out, and by which clock."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunet import devices, dispatch
from gpunet.measure import calls, pairs, progress, session, sweep, tables, timer, turns
from gpunet.measure.calls import suites


@pytest.mark.parametrize("op", suites.sweeps())
def test_the_axis_of_a_suite(op: str):
    suite = suites.load(op)
    assert list(suite.SWEEP) == sorted(set(suite.SWEEP))
    assert suite.AXIS.startswith("N")
    sizes = [suite.sweep(n) for n in suite.SWEEP[:3]]
    assert len({each.name for each in sizes}) == 3
    assert sizes[0].elements < sizes[1].elements < sizes[2].elements
    cases = calls.capture(suite, sizes[0], "float32", 0)
    assert {case.phase for case in cases} == {"forward", "backward"}
    assert {case.op for case in cases} == {op}


def test_ops_that_matter_have_a_sweep():
    wanted = {"matmul", "conv2d", "max_pool2d", "relu", "dropout", "softmax", "cross_entropy", "batch_norm"}
    assert wanted <= set(suites.sweeps())


@pytest.fixture
def _clean_registry() -> Iterator[None]:
    dispatch.list_kernels()  # all of them: what is loaded once is not loaded again
    before = {key: dict(table) for key, table in dispatch._registry.items()}
    for entry in dispatch.entries("relu"):  # numba_cpu is the backend that these tests fill
        dispatch._registry.pop((entry, "numba_cpu"), None)
    yield
    dispatch._registry.clear()
    dispatch._registry.update(before)
    dispatch._choices.clear()


def register(entry: str, function: Any, backend: str = "numba_cpu") -> None:
    """A launcher as the definition of a backend that has none of the op."""
    dispatch._registry[entry, backend] = {
        "reference": dispatch.Kernel(entry, backend, "reference", function, None, __file__, len(backend))
    }
    dispatch._choices.clear()


def started(seconds: float, monkeypatch: pytest.MonkeyPatch, extents: tuple[int, ...], *backends: str) -> Any:
    """A run of relu alone on these extents, with all threads."""
    monkeypatch.setattr(suites.load("relu"), "SWEEP", extents)
    monkeypatch.setattr(sweep, "STRIDE", 1)
    monkeypatch.setattr(sweep.threads, "counts", lambda device, wanted: (0,))
    now = session.start(session.Options(ops=("relu",), out=None, quiet=True, budget=1e6))
    now.budget = progress.Budget(seconds)
    now.budget.part(1.0)
    now.lanes = [session.Lane(devices.CPU, each) for each in backends]
    return now


class Clock:
    """The lanes' clock, which moves when somebody says that time passes: no machine is too busy for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(pairs, "timer", SimpleNamespace(**{**vars(timer), "clock": self.read}))

    def read(self) -> float:
        self.now += 1e-6  # else what takes no time would be called without end
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


def costs(clock: Clock, seconds: Any) -> Any:
    """A launcher of relu that is right, and takes so many seconds for an array of n numbers."""

    def relu(x: Any) -> Any:
        clock.passes(seconds(x.size))
        return np.maximum(x, 0)

    return relu


@pytest.mark.usefixtures("_clean_registry")
def test_the_break_even_of_kernels_whose_cost_is_known(monkeypatch: pytest.MonkeyPatch):
    """One takes 5 µs a number, the other 2 ms whatever the size: they meet at 400."""
    clock = Clock(monkeypatch)
    register("relu.forward", costs(clock, lambda n: 5e-6 * n), "numpy")
    register("relu.forward", costs(clock, lambda n: 2e-3), "numba_cpu")
    now = started(600, monkeypatch, (50, 100, 1200, 1600), "numpy", "numba_cpu")
    monkeypatch.setattr(sweep.turns, "MOST", 8)
    sweep.sweep_all(now)
    forward = [each for each in now.report.sweeps if each.entry == "relu.forward"]
    assert [[point.n for point in each.points] for each in forward] == [[50, 100, 1200, 1600]] * 2
    assert [point.median for point in forward[0].points] == pytest.approx([2.5e-4, 5e-4, 6e-3, 8e-3], rel=0.01)
    assert [point.median for point in forward[1].points] == pytest.approx([2e-3] * 4, rel=0.01)
    assert [len(each.points[0].shapes) for each in forward] == [1, 1]
    answer = next(each for each in now.report.break_even if each.entry == "relu.forward")
    assert (answer.near, answer.far) == ("cpu numpy", "cpu numba_cpu")
    assert (answer.low, answer.high) == (100, 1200)
    assert answer.n == pytest.approx(400, rel=0.01)
    assert {(each.backend, each.status) for each in now.report.proofs} == {("numpy", "passed"), ("numba_cpu", "passed")}


@pytest.mark.usefixtures("_clean_registry")
def test_a_lane_whose_kernel_is_wrong_at_one_size_has_no_points(monkeypatch: pytest.MonkeyPatch):
    register("relu.forward", lambda x: np.maximum(x, 0) + np.float32(x.size > 1000))
    now = started(600, monkeypatch, (256, 512, 1024), "numpy", "numba_cpu")
    sweep.sweep_all(now)
    assert {each.backend for each in now.report.sweeps} == {"numpy"}
    assert [point.n for point in now.report.sweeps[0].points] == [256, 512, 1024]
    told = "sweep of relu.forward on cpu numba_cpu has no points: at N = 1024 the proof of"
    assert any(note.startswith(told) for note in now.report.notes)
    assert [each.backend for each in now.report.proofs if each.status == "failed"] == ["numba_cpu"]
    assert not any("relu.grad_x" in note for note in now.report.notes), "a backend without kernels is no finding"


@pytest.mark.usefixtures("_clean_registry")
def test_a_kernel_that_is_wrong_only_while_it_is_timed_has_no_points(monkeypatch: pytest.MonkeyPatch):
    timed = {"now": False}
    register("relu.forward", lambda x: np.maximum(x, 0) + np.float32(timed["now"]))
    now = started(600, monkeypatch, (256,), "numba_cpu")
    proved = sweep._proved
    monkeypatch.setattr(sweep, "_proved", lambda *a: (timed.update(now=False), proved(*a), timed.update(now=True))[1])
    sweep.sweep_all(now)
    assert now.report.sweeps == []
    assert any("a result of the timed loop is wrong" in note for note in now.report.notes)


@pytest.mark.usefixtures("_clean_registry")
def test_a_kernel_that_raises_ends_its_lane_alone(monkeypatch: pytest.MonkeyPatch):
    counted = {"calls": 0}

    def tired(x: Any) -> Any:
        counted["calls"] += 1
        if counted["calls"] > 400:
            raise RuntimeError("enough")
        return np.maximum(x, 0)

    register("relu.forward", tired)
    now = started(600, monkeypatch, (256,), "numpy", "numba_cpu")
    sweep.sweep_all(now)
    assert {each.backend for each in now.report.sweeps} == {"numpy"}
    assert any("enough" in note for note in now.report.notes)


def test_what_the_time_does_not_suffice_for_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch):
    now = started(0.0, monkeypatch, (256, 512, 1024), "numpy")
    sweep.sweep_all(now)
    assert now.report.sweeps == []
    assert now.report.notes == ["sweep of relu float32: N = 256 to 1024 left out for lack of time"]


def test_an_interrupted_sweep_keeps_its_points(monkeypatch: pytest.MonkeyPatch):
    now = started(600, monkeypatch, (256, 512, 1024), "numpy")
    one, tried = sweep._one_extent, []

    def interrupted(*given: Any) -> bool:
        tried.append(given)
        if len(tried) == 2:
            raise KeyboardInterrupt
        return one(*given)

    monkeypatch.setattr(sweep, "_one_extent", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep_all(now)
    assert [[point.n for point in each.points] for each in now.report.sweeps] == [[256], [256]]


def test_growth_is_foreseen():
    op = sweep._Op("relu", "float32", sweep.deque([4]))
    seen = []
    for seconds in (9.0, 0.5, 2.0, 16.0):
        seen.append(op.next)
        op.spent.append(seconds)
    assert seen == [0.0, 0.0, 2.0, 8.0]
    assert op.next == 128.0
    now: Any = session.start(session.Options(ops=("relu",), out=None, quiet=True))
    now.budget = progress.Budget(20.0)
    now.budget.part(1.0)
    assert not sweep._one_extent(now, op, [], 1)
    assert "N = 4 left out for lack of time" in now.report.notes[-1]


def test_relu_for_real():
    now = session.start(session.Options(ops=("relu",), out=None, quiet=True, device="cpu", budget=1e6))
    now.budget = progress.Budget(1.5)
    now.budget.part(1.0)
    sweep.sweep_all(now)
    report = now.report
    assert {each.entry for each in report.sweeps} == {"relu.forward", "relu.grad_x"}
    assert {each.axis for each in report.sweeps} == {"N numbers"}
    assert {each.threads for each in report.sweeps} <= {0, 1}
    assert all(point.median > 0 and point.copied is None for each in report.sweeps for point in each.points)
    assert all(each.status == "passed" for each in report.proofs)
    assert "relu.forward" in str(tables.sweeps(report.sweeps).columns[0]._cells)


def test_rounds_go_there_and_back_and_a_lane_that_fails_leaves():
    order: list[str] = []

    class Lane:
        def __init__(self, name: str, fails: int = 99):
            self.name, self.left = name, fails

        def sample(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise ValueError(self.name)
            order.append(self.name)

    lost: list[str] = []
    lanes = [Lane("a"), Lane("b", 3), Lane("c")]
    rest = turns.sample(lanes, 0.0, lambda lane, error: lost.append(f"{lane.name} {error}"), least=4)
    assert "".join(order) == "abccbaabcca"
    assert lost == ["b b"]
    assert [each.name for each in rest] == ["a", "c"]


class FarDevice:
    """A device whose copies take a known time, as a GPU's do."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.log = clock, []

    def asarray(self, array: Any) -> Any:
        self.log.append("in")
        self.clock.passes(2e-3)
        return array

    def to_host(self, array: Any) -> Any:
        self.log.append("out")
        self.clock.passes(3e-3)
        return array

    def synchronize(self) -> None:
        self.log.append("wait")
        self.clock.passes(1e-3)


def test_the_clock_with_copies_holds_inputs_kernel_and_results(monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    case = next(
        each
        for each in calls.capture(suites.load("relu"), suites.load("relu").sweep(256), "float32", 0)
        if each.entry == "relu.grad_x"  # two inputs, one result
    )

    def slow(gy: Any, y: Any) -> Any:
        clock.passes(4e-3)
        return gy * (y > 0)

    device = FarDevice(clock)
    kernel = dispatch.Kernel("relu.grad_x", "cupy", "slow", slow, None, __file__, 1)
    median, low, high = sweep.with_copies(case, kernel, device, 0.05)
    assert device.log[:4] == ["in", "in", "out", "wait"]
    assert (median, low, high) == pytest.approx([0.012] * 3, rel=0.01)
