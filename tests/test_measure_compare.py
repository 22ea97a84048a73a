"""The main job: a small run of everything, what it does with wrong kernels, and how it ends early."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunet import devices, dispatch
from gpunet.errors import ArgumentError, DeviceError
from gpunet.measure import calls, compare, loop, passes, progress, rows, session, timer, training
from gpunet.measure.rows import Curve, Report


@pytest.fixture
def _quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small copies, few images and short probes: these tests look at what is done, not at the numbers."""
    from gpunet.measure import roof

    probe = roof.probe
    monkeypatch.setattr(roof, "probe", lambda device, dtype, seconds=0.05: probe(device, dtype, 0.05))
    monkeypatch.setattr(timer, "MEMORY", 2**20)
    monkeypatch.setattr(passes, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(training, "QUICK", (64, 40, 1))


@pytest.fixture
def _own_kernel() -> Iterator[None]:
    """A wrong kernel of relu on the highest rung, gone afterwards."""
    dispatch.list_kernels("relu")
    title = dispatch.title("relu")
    before = {key: dict(table) for key, table in dispatch._registry.items()}

    @dispatch.kernel("relu.forward", backend="numpy", variant="broken")
    def relu_forward_broken(x: Any) -> Any:
        return np.maximum(x, 0) + np.float32(0.001)

    title.LADDER["broken"] = "a rung that adds a little"
    yield
    del title.LADDER["broken"]
    dispatch._registry.clear()
    dispatch._registry.update(before)
    dispatch._choices.clear()


@pytest.mark.usefixtures("_quick_clock")
def test_small_run_of_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = compare.Options(budget=600, ops=("relu", "softmax"), out=tmp_path / "out", device="cpu", seed=3)
    assert compare.run(options) == 0
    found = rows.read(tmp_path / "out" / "report.json")
    assert found.complete
    assert {each.op for each in found.rows} == {"relu", "softmax"}
    assert {(each.op, each.phase) for each in found.rows} == {
        (op, phase) for op in ("relu", "softmax") for phase in ("forward", "backward")
    }
    assert {each.status for each in found.proofs} <= {"passed", "refused"}
    assert all(each.status == "passed" for each in found.proofs if each.backend == "numpy")
    assert {each.dtype for each in found.proofs} == {"float32", "float64"}
    assert {each.phase for each in found.proofs} >= {"forward", "backward", "gradient"}
    assert found.training[0].losses
    assert found.training[0].samples
    assert found.options["seed"] == 3
    assert set(found.seconds) == {*session.PARTS, "all"}
    text = capsys.readouterr().out
    assert "none failed, none is impossible" in text
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.usefixtures("_quick_clock", "_own_kernel")
def test_wrong_kernel_fails_the_run_and_is_not_timed():
    options = compare.Options(budget=600, ops=("relu",), parts=("proof", "time"), out=None, quiet=True)
    found = compare.execute(options)
    assert compare.status(found) == 1
    wrong = {(each.entry, each.variant) for each in found.proofs if each.status == "failed"}
    assert wrong == {("relu.forward", "broken")}
    assert ("relu.forward", "broken") not in {(each.entry, each.variant) for each in found.rows}
    assert ("relu.forward", "reference") in {(each.entry, each.variant) for each in found.rows}


@pytest.mark.usefixtures("_quick_clock")
def test_kernel_that_fails_only_after_the_timing_has_no_row(monkeypatch: pytest.MonkeyPatch):
    def changing(x: Any, runs: list[int] = []) -> Any:  # noqa: B006 it counts its own calls
        runs.append(1)
        return np.maximum(x, 0) if len(runs) <= timed["calls"] else np.maximum(x, 0.1)

    timed = {"calls": 10**9}
    measure = timer.measure

    def measured(*args: Any, **more: Any) -> Any:
        found = measure(*args, **more)
        timed["calls"] = 0  # from now on it is wrong
        return found

    monkeypatch.setattr(loop, "timer", SimpleNamespace(**{**vars(timer), "measure": measured}))
    broken = dispatch.Kernel("relu.forward", "numpy", "tired", changing, None, __file__, 1)
    now = session.start(compare.Options(ops=("relu",), out=None, quiet=True))
    size = calls.suites.sizes("relu", ("proof",))[0]
    first, again = (calls.capture(calls.suites.load("relu"), size, "float32", seed)[0] for seed in (0, 1))
    assert passes.time_kernel(now, first, again, now.lanes[0], broken, 0.01) is None
    statuses = [each.status for each in now.report.proofs]
    assert (set(statuses[:-1]), statuses[-1]) == ({"passed"}, "failed")


def test_kernel_that_no_case_reaches_fails_the_run():
    untaken = dispatch.Kernel("relu.forward", "numpy", "picky", lambda x: x, lambda x: "never", __file__, 1)
    table = dispatch._registry[("relu.forward", "numpy")]
    table["picky"] = untaken
    try:
        found = compare.execute(compare.Options(ops=("relu",), parts=("proof",), out=None, quiet=True))
    finally:
        del table["picky"]
    assert [each.variant for each in found.proofs if each.status == "untested"] == ["picky"]
    assert {each.reason for each in found.proofs if each.status == "refused"} == {"never"}
    assert compare.status(found) == 1


def test_op_that_raises_is_a_finding_and_not_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(calls.suites.load("tanh"), "run", lambda size, tensors: 1 / 0)
    found = compare.execute(compare.Options(ops=("tanh", "relu"), parts=("proof",), out=None, quiet=True))
    assert {each.op for each in found.proofs if each.status == "passed"} == {"relu"}
    assert any("ZeroDivisionError" in line for line in found.failed)


def test_time_that_runs_out_is_said(tmp_path: Path):
    found = compare.execute(compare.Options(budget=0.01, out=tmp_path, quiet=True))
    assert found.complete
    assert any(note.startswith("proof stopped for lack of time") for note in found.notes)
    assert any(note.startswith("timing stopped for lack of time") for note in found.notes)
    assert any("ended early: the time was up" in note for note in found.notes)
    assert compare.status(found) == 0


@pytest.mark.parametrize("part", ["proof", "time", "training"])
def test_interrupted_run_keeps_what_was_finished(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(now: session.Session) -> None:
        now.note(f"{part} began")
        raise KeyboardInterrupt

    monkeypatch.setitem(compare.PARTS, part, interrupted)
    options = compare.Options(ops=("relu",), parts=("proof", part), out=tmp_path, quiet=True, device="cpu")
    assert compare.run(options) == compare.INTERRUPTED
    found = rows.read(tmp_path / "report.json")
    assert not found.complete
    assert f"{part} began" in found.notes
    assert bool(found.proofs) == (part != "proof")
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ops": ("conv3d",)}, "ops must be among matmul, .* got 'conv3d'"),
        ({"parts": ("prove",)}, "parts must be among proof, time, against, sweep, steps, training, got 'prove'"),
        ({"tiers": ("huge",)}, "tiers must be among proof, quick, standard, full, got 'huge'"),
        ({"dtypes": ("float16",)}, "dtypes must be among float32, float64, got 'float16'"),
        ({"budget": 0}, "budget must be above 0 seconds, got 0"),
        ({"budget": float("nan")}, "budget must be above 0 seconds, got nan"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], message: str):
    with pytest.raises(ArgumentError, match=f"compare: {message}"):
        compare.Options(**given)


def test_device_that_cannot_run_is_refused():
    if devices._named("sim").why_not() is None:
        pytest.skip("the simulator runs here")
    with pytest.raises(DeviceError, match="'sim' cannot be used here"):
        compare.execute(compare.Options(device="sim", out=None, quiet=True))


def test_budget_is_shared_and_handed_on(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    budget = progress.Budget(10)
    budget.part(0.3)
    assert budget.left == pytest.approx(3)
    clock[0] += 1
    budget.part(0.7)
    assert budget.left == pytest.approx(6)
    assert not budget.over
    clock[0] += 6
    assert budget.over
    assert budget.spent == 7
    endless = progress.Budget(None)
    endless.part(0.1)
    assert endless.left == float("inf")


def test_sizes_beyond_the_memory_are_left_out_with_a_note():
    now = session.start(compare.Options(ops=("relu",), out=None, quiet=True))
    size = calls.suites.Size("huge", "own", "full", {"x": (2**20, 2**20)})
    assert not passes.fits(now, "relu", size, "float32")
    assert "needs about 65536 GiB" in now.report.notes[-1]


def test_plain_lines_come_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch):
    import io

    from rich.console import Console

    screen = Console(file=io.StringIO(), width=100)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with progress.shown(screen, "proof", 2) as step:
        step("[relu]")
        step("tanh")
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert text.splitlines()[0] == "proof: 2 steps"
    assert "proof: 1 of 2, 0 s, [relu]" in text
    assert "\x1b" not in text


def test_training_is_the_same_twice_and_stops_in_time():
    todo = training.Plan(images=70, test_images=40, epochs=1, seed=1)
    runs = [training.train(devices.CPU, backend, todo, lambda: float("inf")) for backend in (None, "numpy")]
    assert len(runs[0].losses) == 3
    again = training.train(devices.CPU, "numpy", todo, lambda: float("inf"))
    assert again.losses == runs[1].losses
    assert (runs[0].train_images, runs[0].test_images, runs[0].stopped) == (70, 40, "")
    assert any(name.startswith("conv2d.grad_w/") for name in runs[0].kernels)
    assert [each.lane for each in runs] == ["cpu", "cpu numpy"]
    assert training.agreement(again, runs[1]).overall == 0
    assert training.agreement(*runs).overall < 1e-4  # other kernels, so other roundings
    short = training.train(devices.CPU, None, todo, lambda: 0.0)
    assert len(short.losses) == 1
    assert short.stopped == "the time was up after step 1"
    assert training.agreement(runs[0], short).steps == 1
    assert training.steps(todo) == 3


def test_agreement_is_the_largest_relative_difference():
    def curve(losses: list[float]) -> Curve:
        return Curve("a", "cpu", [], losses, 0.5, 1.0, 32, 1, 1, 1.0, 1.0, "")

    found = training.agreement(curve([2.0] * 12), curve([2.0] * 9 + [1.98, 2.0, 4.0, 1.0]))
    assert found.steps == 12
    assert found.early == pytest.approx(0.01)
    assert found.overall == pytest.approx(0.5)


def test_a_part_of_the_images_has_as_many_of_each_class():
    x = np.arange(12)
    y = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    part, labels = training._spread(x, y, 6)
    assert part.tolist() == [0, 1, 6, 7, 9, 10]
    assert np.bincount(labels).tolist() == [2, 2, 2]
    assert training._spread(x, y, None)[0] is x


def test_command_line_writes_the_report(tmp_path: Path):
    command = [sys.executable, "-m", "gpunet", "compare", "--budget", "3", "--ops", "softplus", "--out", "made"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    content = json.loads((tmp_path / "made" / "report.json").read_text())
    assert content["complete"]
    assert {each["op"] for each in content["rows"]} <= {"softplus"}
    assert "\x1b" not in done.stdout
    assert str(tmp_path) not in json.dumps(content)


def test_status_of_reports():
    assert compare.status(Report(complete=True)) == 0
    assert compare.status(Report(complete=False)) == 130
