"""Kernels beside others: who takes part, on how many threads, what is said of it, and what else belongs to a call."""

import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gpunet import cli, devices, dispatch
from gpunet.errors import ArgumentError, BackendUnavailableError
from gpunet.measure import against, beside, calls, machine, pairs, passes, roof, rows, session, split, threads, timer
from gpunet.measure.rows import Ratio, Report

from .own_kernel import register, registry  # noqa: F401 a fixture

CPU = devices.device("cpu")
SOON = pairs.Limits(0.05, least=6)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, registry: None) -> None:  # noqa: F811
    """Small copies and short probes: these tests look at what is done, not at the numbers."""
    probe = roof.probe
    monkeypatch.setattr(roof, "probe", lambda device, dtype, seconds=0.05: probe(device, dtype, 0.05))
    monkeypatch.setattr(timer, "MEMORY", 2**18)
    monkeypatch.setattr(passes, "MOST_SECONDS", 0.02)
    monkeypatch.setattr(against, "SECONDS", 0.05)


def run(monkeypatch: pytest.MonkeyPatch, asked: list[str], op: str = "relu", count: int = 1, **more: Any) -> Any:
    """The session after every row of the op's smallest size was held against ``asked``."""
    now = session.start(session.Options(device="cpu", out=None, parts=("time",), ops=(op,), quiet=True))
    now.lanes = [each for each in now.lanes if each.backend == "numpy"]
    size = calls.suites.sizes(op, ("proof",))[0]
    monkeypatch.setattr(now.options, "threads", (count,))
    now.report.rows += passes.time_size(now, now.lanes, op, size, "float32", 5.0)
    cases = passes.captured(now, op, size, "float32", 1)
    against.compare(now, now.report.rows, cases, against.rivals(asked), SOON, **more)
    return now


# ------------------------------------------------------------------------------------------------------------- rivals


def test_every_chosen_kernel_has_a_ratio_to_the_library(monkeypatch: pytest.MonkeyPatch):
    now = run(monkeypatch, ["numpy"], count=0)
    told = {(each.entry, each.peer, each.threads, each.chosen) for each in now.report.ratios}
    assert told == {(entry, f"numpy {np.__version__}", 0, True) for entry in ("relu.forward", "relu.grad_x")}
    assert all(each.low <= each.ratio <= each.high for each in now.report.ratios)
    assert all(each.n >= SOON.least for each in now.report.ratios)
    assert {each.verdict for each in now.report.ratios} <= set(pairs.VERDICTS)
    assert now.report.failed == []


def test_a_slow_rival_is_slower_and_the_kernel_faster(monkeypatch: pytest.MonkeyPatch):
    @dispatch.kernel("relu.forward", backend="numpy", variant="slow")
    def relu_forward_slow(x: Any) -> Any:
        time.sleep(0.002)
        return np.maximum(x, 0)

    found = run(monkeypatch, ["numpy/slow"]).report.ratios
    assert [(each.entry, each.variant, each.peer, each.verdict) for each in found] == [
        ("relu.forward", "reference", "numpy/slow", "faster")
    ]
    assert found[0].ratio > 10  # milliseconds against microseconds
    assert found[0].theirs > found[0].ours


def test_a_rival_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    register("wrong")  # it returns -7 for what is not above 0
    now = run(monkeypatch, ["numpy/wrong"])
    assert now.report.ratios == []
    assert any("against numpy/wrong: relu.forward" in note and "not timed" in note for note in now.report.notes)


def test_a_librarys_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    peer = against.peers.load("numpy")
    monkeypatch.setitem(peer.table, "relu.forward", lambda x: np.maximum(x, np.float32(1e-4)))
    now = run(monkeypatch, ["numpy"])
    assert {each.entry for each in now.report.ratios} == {"relu.grad_x"}
    assert any("relu.forward" in note and "allowed is" in note for note in now.report.notes)


def test_an_entry_that_a_library_lacks_is_noted(monkeypatch: pytest.MonkeyPatch):
    peer = against.peers.load("numpy")
    monkeypatch.delitem(peer.table, "relu.grad_x")
    now = run(monkeypatch, ["numpy"])
    assert {each.entry for each in now.report.ratios} == {"relu.forward"}
    assert now.report.notes == [f"against {peer.NAME} has no relu.grad_x"]


def test_a_library_whose_threads_nobody_can_set_is_timed_with_all_alone(monkeypatch: pytest.MonkeyPatch):
    peer = against.peers.load("numpy")
    monkeypatch.setattr(peer, "LIMITS", False)
    assert run(monkeypatch, ["numpy"], count=0).report.ratios
    now = run(monkeypatch, ["numpy"], count=1)
    assert machine.cores() == 1 or (now.report.ratios == [] and "how many threads" in now.report.notes[0])


def test_a_users_kernel_takes_part_though_nobody_would_choose_it(monkeypatch: pytest.MonkeyPatch):
    @dispatch.kernel("relu.forward", backend="numpy", variant="mine")
    def relu_forward_mine(x: Any) -> Any:
        return np.where(x > 0, x, 0).astype(x.dtype)

    mine = [each for each in dispatch.variants("relu.forward", "numpy") if each.variant == "mine"]
    assert "mine" not in {each.variant for each in run(monkeypatch, ["numpy"]).report.ratios}
    assert "mine" in {each.variant for each in run(monkeypatch, ["numpy"], always=mine).report.ratios}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("nunpy", "against: must be one of numpy, torch, jax, cupy"),
        ("rocm/fast", "against: must be BACKEND/VARIANT with BACKEND one of numpy"),
        ("numpy/", "against: must be BACKEND/VARIANT"),
    ],
)
def test_rivals_that_there_are_not(asked: str, told: str):
    with pytest.raises(ArgumentError, match=told):
        against.rivals([asked])


def test_a_library_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(against.peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match=re.escape("pip install torch==2.13.0")):
        against.rivals(["torch"])


def test_the_mean_is_the_geometric_one():
    def ratio(value: float, count: int) -> Ratio:
        return Ratio(
            "e", f"{value}", "float32", "cpu", "b", "v", True, "p", 1, value, value, value, value, 9, threads=count
        )

    found = against.means([ratio(2.0, 0), ratio(0.5, 0), ratio(3.0, 1)])
    assert found == {("p", 0): (pytest.approx(1.0), 2), ("p", 1): (pytest.approx(3.0), 1)}
    report = Report(ratios=[ratio(2.0, 0), ratio(0.5, 0)])
    assert beside.mean_lines(report) == ["beside p, all threads: 1.00x as fast in the geometric mean of 2 pairs"]


# ------------------------------------------------------------------------------------------------------------ threads


def test_of_two_layouts_the_faster_counts():
    def ratio(size: str, peer: str, value: float) -> Ratio:
        numbers = 1.0, 1.0, value, value, value, 9
        return Ratio("conv2d.forward", size, "float32", "cpu", "numba_cpu", "v", True, peer, *numbers)

    found = [ratio("a", "p", 3.0), ratio("a", "p, channels_last", 2.0), ratio("b", "p", 8.0)]
    found += [ratio("b", "p, channels_last", 9.0), ratio("a", "p, TF32 on", 1.0)]
    assert against.means(found) == {("p", 0): (pytest.approx(4.0), 2), ("p, TF32 on", 0): (1.0, 1)}
    lines = [list(each.cells) for each in beside.summary(Report(ratios=found)).columns]
    assert lines[3:6] == [["p", "p, TF32 on"], ["4.00x", "1.00x"], ["2.00x a", "1.00x a"]]
    assert lines[6:] == [["8.00x b", "1.00x a"], ["2", "1"]]


def test_inside_limited_the_pools_have_so_many_threads():
    before = {pool["num_threads"] for pool in machine.blas() if pool.get("user_api") == "blas"}
    with threads.limited(1):
        assert {pool["num_threads"] for pool in machine.blas() if pool.get("user_api") == "blas"} <= {1}
    assert {pool["num_threads"] for pool in machine.blas() if pool.get("user_api") == "blas"} == before


def test_inside_limited_numba_has_so_many_threads_and_afterwards_what_it_had(monkeypatch: pytest.MonkeyPatch):
    now = [2]
    fake = SimpleNamespace(
        get_num_threads=lambda: now[-1], set_num_threads=now.append, config=SimpleNamespace(NUMBA_NUM_THREADS=2)
    )
    monkeypatch.setitem(threads.sys.modules, "numba", fake)
    with threads.limited(1):
        assert now[-1] == 1
    assert now == [2, 1, 2]


def test_numbers_of_threads_that_make_no_difference_are_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "cores", lambda: 4)
    assert threads.counts(CPU, (1, 4, 0, 8)) == (1, 0)
    assert threads.counts(devices._named("cuda"), (1, 0)) == (0,)
    monkeypatch.setattr(machine, "cores", lambda: 1)
    assert threads.counts(CPU, (1, 0)) == (0,)


def test_rows_say_their_threads_and_ran_on_them(monkeypatch: pytest.MonkeyPatch):
    seen: list[int] = []

    @dispatch.kernel("relu.forward", backend="numpy", variant="looks")
    def relu_forward_looks(x: Any) -> Any:
        seen.extend(pool["num_threads"] for pool in machine.blas() if pool.get("user_api") == "blas")
        return np.maximum(x, 0)

    monkeypatch.setattr(machine, "cores", lambda: 2)
    now = session.start(session.Options(device="cpu", out=None, ops=("relu",), threads=(1, 0), quiet=True))
    now.lanes = [each for each in now.lanes if each.backend == "numpy"]
    size = calls.suites.sizes("relu", ("proof",))[0]
    found = [r for r in passes.time_size(now, now.lanes, "relu", size, "float32", 1.0) if r.variant == "looks"]
    assert [each.threads for each in found] == [1, 0]
    assert 1 in seen


# -------------------------------------------------------------------------------------------------------------- split


def test_the_peak_is_what_a_call_allocates_at_most():
    @dispatch.kernel("relu.forward", backend="numpy", variant="greedy")
    def relu_forward_greedy(x: Any) -> Any:
        copies = [x.copy() for _ in range(3)]
        return np.maximum(copies[-1], 0)

    size = calls.suites.sizes("relu", ("quick",))[0]
    case = next(c for c in calls.capture(calls.suites.load("relu"), size, "float32", 0) if c.entry == "relu.forward")
    kernels = {each.variant: each for each in dispatch.variants("relu.forward", "numpy")}
    plain, greedy = (split.split(case, kernels[name], CPU) for name in ("reference", "greedy"))
    assert plain.peak == pytest.approx(case.nbytes, rel=0.01)
    assert greedy.peak == pytest.approx(4 * case.nbytes, rel=0.01)
    assert plain[:3] == (None, None, None)  # nothing is handed over or copied on the processor


def test_a_row_has_its_peak(monkeypatch: pytest.MonkeyPatch):
    found = run(monkeypatch, ["numpy"]).report.rows
    assert all(row.peak is not None and row.peak > 0 for row in found)


# ------------------------------------------------------------------------------------------------------- command line


def bench(*words: str) -> int:
    return cli.main(["bench", "relu", "--device", "cpu", "--backend", "numpy", "--sizes", "reference_cnn", *words])


@pytest.mark.usefixtures("_small")
def test_the_command_prints_one_table_and_writes_the_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, table = tmp_path / "r.json", tmp_path / "r.md"
    assert bench("--against", "numpy", "--threads", "0", "--json", str(path), "--markdown", str(table)) == 0
    out = capsys.readouterr().out
    assert f"numpy {np.__version__}" in out
    assert "geometric mean of 2 pairs" in out
    found = rows.read(path)
    assert {(each.entry, each.threads) for each in found.ratios} == {("relu.forward", 0), ("relu.grad_x", 0)}
    assert "relu.grad_x" in table.read_text()


@pytest.mark.usefixtures("_small")
def test_a_slower_kernel_fails_only_where_that_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    found = [Ratio("e", "s", "float32", "cpu", "b", "v", True, "p", 2, 1, 0.5, 0.4, 0.6, 9, "slower")]
    monkeypatch.setattr(against, "compare", lambda now, *rest: now.report.ratios.extend(found))
    assert bench("--against", "numpy", "--quiet") == 0
    assert bench("--against", "numpy", "--quiet", "--fail-slower") == 1


@pytest.mark.usefixtures("_small")
def test_an_interrupted_bench_writes_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys):
    whole = passes.time_size

    def stops(*args: Any) -> Any:
        yield next(whole(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(passes, "time_size", stops)
    path = tmp_path / "r.json"
    assert bench("--json", str(path)) == 130
    content = json.loads(path.read_text())
    assert (len(content["rows"]), content["complete"]) == (1, False)
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sizes", "huge"], "bench: --sizes must be among"),
        (["--threads", "-1"], "must be a whole number of at least 0"),
        (["--effect", "0"], "must be a number of at least 0.001"),
        (["--against", "nunpy"], "against: must be one of"),
    ],
)
def test_wrong_usage(words: list[str], told: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["bench", "relu", *words]) in (1, 2)
    assert told in capsys.readouterr().err


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's quick size shrunk, so that it is over at once."""
    suite = calls.suites.load("relu")
    small = next(each for each in suite.SIZES if each.tier == "proof")
    shrunk = type(small)("reference_cnn", small.origin, "quick", small.shapes, small.arguments)
    monkeypatch.setattr(suite, "SIZES", [*(each for each in suite.SIZES if each.tier == "proof"), shrunk])
