"""A user's own file of kernels: the examples of each backend, both proofs, and the place in the ladder."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import devices, dispatch
from gpunet.cli import own as face
from gpunet.measure import calls, info, own, pairs, passes, rows, timer
from tests.emulated import needs_emulator
from tests.own_files import (  # noqa: F401 fixtures are used by name
    COLLECT,
    EXAMPLES,
    NAMES,
    ROOT,
    _few_objects,
    _quick,
    checked,
    need_both_proofs,
    no_gpu,
    only_kernel,
    ran,
    written,
)

# ---------------------------------------------------------------------------------------------------- the examples


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_short(name: str):
    assert len((EXAMPLES / f"own_kernel_{name}.py").read_text().splitlines()) < 60


def example_row(capsys: Any, name: str) -> dict[str, Any]:
    """The one row of ``gpunet check`` on an example, all right in both proofs."""
    (row,) = checked(capsys, str(EXAMPLES / f"own_kernel_{name}.py"))
    return row


@pytest.mark.parametrize("name", ["numpy", "numba_cpu", *(pytest.param(n, marks=needs_emulator) for n in NAMES[3:])])
def test_check_proves_values_and_gradients_of_the_examples(capsys: Any, name: str):
    need_both_proofs(example_row(capsys, name))


def simulated(*words: str) -> subprocess.CompletedProcess[str]:
    """A program of its own with Numba's simulator on, which is the environment's choice."""
    for module in ("numba_cuda", "greenlet"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed; pip install "gpunet[sim]"')
    if devices._named("sim").why_not():
        pytest.skip(str(devices._named("sim").why_not()))
    env = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT, env=env)


def test_check_proves_the_example_of_numba_cuda():
    done = simulated("-m", "gpunet", "check", str(EXAMPLES / "own_kernel_numba_cuda.py"), "--json", "-")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["kernels"]
    assert (row["device"], row["backend"], row["variant"]) == ("sim", "numba_cuda", "striding")
    need_both_proofs(row)


def test_the_example_of_numba_cuda_prints_what_its_docstring_shows():
    done = simulated("-m", "gpunet.examples.own_kernel_numba_cuda")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in (EXAMPLES / "own_kernel_numba_cuda.py").read_text()


@pytest.mark.parametrize("name", ["numba_cpu", *(pytest.param(n, marks=needs_emulator) for n in NAMES[3:])])
def test_examples_run_as_programs(capsys: Any, name: str):
    sys.modules.pop(f"gpunet.examples.own_kernel_{name}", None)  # so that its kernel is registered again
    module: Any = importlib.import_module(f"gpunet.examples.own_kernel_{name}")
    if name == "numba_cpu":
        assert set(module.main(size=1000, repeats=2)) == {"reference", "one_pass"}
        return
    module.main()
    out = capsys.readouterr().out.strip()
    if devices.device("auto") == "cpu":  # on a GPU the line says so
        assert out in module.__doc__


# ------------------------------------------------------------------------------------------------------ both proofs


def test_the_table_names_both_proofs(capsys: Any):
    status, out, _ = ran(capsys, "check", str(EXAMPLES / "own_kernel_numpy.py"))
    assert status == 0
    assert "values against the definition" in out
    assert "gradients: its op with it inside, against central differences" in out
    row = next(line for line in out.splitlines() if "bit_mask" in line)
    assert [cell.strip() for cell in row.split("│")][5:9:3] == ["4", "2"]
    assert "6 proofs of 1 kernels and gradients: all passed" in out


def gradients(kernel: Any, op: str, device: str = "cpu") -> list[rows.Proof]:
    """The gradient's proofs alone, on every size that is for proof."""
    found = []
    for size in calls.suites.sizes(op, ("proof",)):
        cases = [case for dtype in ("float32", "float64") for case in own._captured(op, size, dtype, 0)]
        mine = [case for case in cases if case.entry == kernel.entry]
        if mine:
            found.append(own.gradient(kernel, devices.device(device), mine, 0))
    return found


@pytest.mark.parametrize(
    ("entry", "function", "status"),
    [
        ("relu.forward", lambda x: np.maximum(x, 0), "passed"),
        ("relu.forward", lambda x: np.maximum(x, 0) * 1.01, "failed"),  # the op's backward knows nothing of 1.01
        ("relu.grad_x", lambda gy, y: np.where(y <= 0, 0, gy), "passed"),
        ("relu.grad_x", lambda gy, y: np.where(y <= 0, 0, gy) * 1.01, "failed"),
        ("relu.grad_x", lambda gy, y: np.where(y <= 0, 0, np.abs(gy)), "failed"),
        ("sigmoid.grad_x", lambda gy, y: gy * (y * (1 - y)), "passed"),
        ("sigmoid.grad_x", lambda gy, y: gy * y, "failed"),
    ],
)
def test_the_gradient_is_proved_by_itself(entry: str, function: Any, status: str):
    found = gradients(only_kernel(entry, function), entry.partition(".")[0])
    assert {each.status for each in found} == {status}
    assert {(each.phase, each.dtype) for each in found} == {("gradient", "float64")}


def single(*arrays: Any) -> bool | str:
    return all(each.dtype == np.float32 for each in arrays) or "it takes float32"


@pytest.mark.parametrize(("factor", "status"), [(1, "passed"), (1.01, "failed")])
def test_a_kernel_of_float32_alone_is_held_against_differences_in_float64(factor: float, status: str):
    def grad_x(gy: Any, y: Any) -> Any:
        assert gy.dtype == np.float32
        return (gy * (y * (1 - y)) * np.float32(factor)).astype(np.float32)

    found = gradients(only_kernel("sigmoid.grad_x", grad_x, when=single), "sigmoid")
    assert {(each.status, each.dtype) for each in found} == {(status, "float32")}


def test_calls_that_a_kernel_refuses_go_to_the_projects():
    """The backward of a product transposes; a kernel for plain products is proved all the same, in forward."""

    def plain(a: Any, b: Any, *, transpose_a: bool, transpose_b: bool) -> Any:
        assert not transpose_a
        assert not transpose_b
        return a @ b

    def when(a: Any, b: Any, *, transpose_a: bool, transpose_b: bool) -> Any:
        return not (transpose_a or transpose_b) or "it takes plain products"

    found = gradients(only_kernel("matmul.forward", plain, when=when), "matmul")
    assert {each.status for each in found} == {"passed"}


def test_a_kernel_of_a_second_derivative_is_checked_there():
    reference = next(each for each in dispatch.variants("max_pool2d.gather", "numpy"))

    def right(gx: Any, winners: Any, *more: Any, **params: Any) -> Any:
        return reference.function(gx, winners, *more, **params)

    def wrong(*arrays: Any, **params: Any) -> Any:
        return 1.01 * right(*arrays, **params)

    assert {each.status for each in gradients(only_kernel("max_pool2d.gather", right), "max_pool2d")} == {"passed"}
    bad = only_kernel("max_pool2d.gather", wrong, variant="bad")
    assert {each.status for each in gradients(bad, "max_pool2d")} == {"failed"}


@pytest.mark.parametrize("backend", ["numpy", "numba_cpu"])
def test_put_in_runs_this_kernel_and_not_its_namesake(backend: str):
    made = {name: only_kernel("relu.forward", lambda x: x.clip(0), name) for name in ("numpy", "numba_cpu")}
    with own.put_in(made[backend], devices.CPU), gn.trace() as launches:
        gn.functional.relu(gn.tensor([-1.0]))
    assert [(each.backend, each.variant) for each in launches] == [(backend, "mine")]
    with gn.trace() as launches:  # and no longer afterwards
        gn.functional.relu(gn.tensor([-1.0]))
    assert [each.variant for each in launches] == ["reference"]
    with gn.use_variant("relu.forward", "mine"), gn.trace() as launches:
        gn.functional.relu(gn.tensor([-1.0]))
    assert [each.backend for each in launches] == ["numba_cpu"]  # which is the device's first


def test_a_wrong_gradient_alone_fails_the_check(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = written(tmp_path, """
        @gn.kernel("sigmoid.grad_x", backend="numpy", variant="mine")
        def mine(gy, y):
            return gy * y
    """)  # fmt: skip
    monkeypatch.setattr(own.proof, "prove", lambda *_: own.proof.Verdict())  # as if the values were right
    (row,) = checked(capsys, file, status=1)
    assert row["status"] == "failed"
    assert row["reason"].startswith("gradient, ")
    assert row["gradient"]["failed"] >= 1


def test_wrong_values_alone_fail_the_check(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = written(tmp_path, """
        @gn.kernel("relu.forward", backend="numpy", variant="mine")
        def mine(x):
            return np.maximum(x, 0) * x.dtype.type(1.001)
    """)  # fmt: skip
    right = rows.Proof("relu", "relu.forward", "gradient", "cpu", "numpy", "mine", "", "float64", "", "passed")
    monkeypatch.setattr(own, "gradient", lambda *_: right)
    (row,) = checked(capsys, file, status=1)
    assert "is off by" in row["reason"]
    assert row["gradient"]["status"] == "passed"


def test_a_kernel_that_refuses_everything_is_untested(capsys: Any, tmp_path: Path):
    file = written(tmp_path, """
        @gn.kernel("relu.forward", backend="numpy", variant="mine", when=lambda x: "not today")
        def mine(x):
            return x
    """)  # fmt: skip
    (row,) = checked(capsys, file, status=1)
    assert (row["status"], row["refused"]) == ("untested", row["proofs"] - 1)


def test_files_and_ops_may_be_checked_together(capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sizes = calls.suites.sizes
    monkeypatch.setattr(calls.suites, "sizes", lambda op, tiers: sizes(op, tiers)[:1])
    file = written(tmp_path, """
        @gn.kernel("sigmoid.grad_x", backend="numpy", variant="mine")
        def mine(gy, y):
            return gy * (y * (1 - y))
    """)  # fmt: skip
    found = checked(capsys, "sigmoid", file, "--device", "cpu")
    names = [(each["entry"], each["backend"], each["variant"]) for each in found]
    assert len(names) == len(set(names))
    assert ("sigmoid.grad_x", "numpy", "reference") in names
    assert [each["variant"] for each in found if each.get("gradient")] == ["mine"]


# ------------------------------------------------------------------------------------------------------------- bench


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small size, and clocks that stop soon."""
    sizes = calls.suites.sizes
    monkeypatch.setattr(calls.suites, "sizes", lambda op, tiers: sizes(op, ("proof",))[:1])
    limits = timer.Limits(warmup=0, min_time=0, max_time=0.002, min_samples=3)
    monkeypatch.setattr(passes.timer, "Limits", lambda **more: limits)
    monkeypatch.setattr(own, "SECONDS", 0.2)


SLEEPY = """
    import time

    @gn.kernel("relu.forward", backend="{backend}", variant="sleepy")
    def sleepy(x):
        time.sleep(0.002)
        return np.maximum(x, 0)
"""


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("backend", ["numpy", "numba_cpu"])
def test_bench_times_beside_the_ladder_and_the_definition(capsys: Any, tmp_path: Path, backend: str):
    file = written(tmp_path, SLEEPY.format(backend=backend))
    report = tmp_path / "report.json"
    status, out, _ = ran(capsys, "bench", file, "--json", str(report))
    assert status == 0, out
    found = rows.read(report)
    assert {each.entry for each in found.rows} == {"relu.forward"}  # other entries of the op are left alone
    assert {("numpy", "reference"), (backend, "sleepy")} <= {(each.backend, each.variant) for each in found.rows}
    ratio = next(each for each in found.ratios if each.peer == "cpu numpy/reference, the definition")
    assert (ratio.entry, ratio.backend, ratio.variant) == ("relu.forward", backend, "sleepy")
    assert ratio.verdict == "slower"  # two milliseconds of sleep beside microseconds of work
    assert ratio.low <= ratio.ratio <= ratio.high < 1 / 3
    assert ratio.n >= 12
    rungs = {(each.backend, each.variant) for each in found.rows} - {(backend, "sleepy")}
    assert {each.peer.split()[1].rstrip(",") for each in found.ratios} == {"/".join(each) for each in rungs}
    (line,) = [line for line in out.splitlines() if line.startswith(f"relu.forward/{backend}/sleepy on cpu, ")]
    assert f"place {1 + len(rungs)} of {1 + len(rungs)}; slower than cpu numpy/reference" in line
    assert " of the " in line
    assert "% of the " in line
    assert "timed in turns" in out


@pytest.mark.usefixtures("_short")
def test_bench_says_faster_where_it_is(monkeypatch: pytest.MonkeyPatch):
    """The other way round: the definition sleeps."""
    mine = only_kernel("relu.forward", lambda x: np.maximum(x, 0))
    size = calls.suites.sizes("relu", ("proof",))[0]
    (case,) = [each for each in own._captured("relu", size, "float32", 0) if each.entry == "relu.forward"]

    def slow(x: Any) -> Any:
        time.sleep(0.002)
        return np.maximum(x, 0)

    slow_one = only_kernel("relu.forward", slow, variant="slow")
    lanes = [own._lane(case, each, devices.CPU) for each in (mine, slow_one)]
    pair = pairs.compare(lanes[0], lanes[1], pairs.Limits(0.2))
    row = rows.Row(
        "relu", "relu.forward", "forward", "cpu", "numpy", "mine", "", "float32", "primes", "", "proof", [], {},
        "passed", 0, 0, pair.first, 1, 1, 1, 1, 1, 12.0, "memory", False,
    )  # fmt: skip
    ratio = own._ratio(row, slow_one, devices.CPU, pair, 0.05)
    assert ratio.verdict == "faster"
    assert ratio.ratio > 3
    report = rows.Report(rows=[row], ratios=[ratio])
    told = "place 1 of 2; faster than cpu numpy/slow; 12 % of the memory roof"
    assert face.standings(report) == [f"relu.forward/numpy/mine on cpu, primes float32: {told}"]


@pytest.mark.usefixtures("_short")
def test_a_wrong_kernel_has_no_ratio(capsys: Any, tmp_path: Path):
    file = written(tmp_path, """
        @gn.kernel("relu.forward", backend="numpy", variant="mine")
        def mine(x):
            return x * 1
    """)  # fmt: skip
    status, out, _ = ran(capsys, "bench", file, "--json", "-")
    assert status == 1
    report = json.loads(out)
    assert report["ratios"] == []
    assert "mine" not in {each["variant"] for each in report["rows"]}
    assert any("relu.forward/numpy/mine" in line for line in report["failed"])


@no_gpu
@pytest.mark.parametrize("backend", ["cupy", "numba_cuda"])
def test_bench_of_a_gpu_kernel_needs_a_gpu(capsys: Any, tmp_path: Path, backend: str):
    file = written(tmp_path, SLEEPY.format(backend=backend))
    status, out, err = ran(capsys, "bench", file)
    assert (status, out) == (1, "")
    begin = f"gpunet: error: bench: relu.forward/{backend}/sleepy must run on a device to be timed; cuda: "
    assert err.startswith(begin)
    assert err.endswith("`gpunet check` proves it on sim\n")
    assert err.count("\n") == 1


@no_gpu
def test_check_of_a_gpu_kernel_without_gpu_and_compiler_says_what_is_missing(
    capsys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from gpunet.cuda import emulator

    monkeypatch.setattr(info, "collect", COLLECT)
    monkeypatch.setattr(emulator, "why_not", lambda: "no C++20 compiler was found; install g++")
    status, _, err = ran(capsys, "check", written(tmp_path, SLEEPY.format(backend="cupy")), "--quiet")
    assert status == 1
    assert "relu.forward/cupy/sleepy: its backend does not run where the check ran; cuda: " in err
    assert "sim: no C++20 compiler was found; install g++" in err
    assert err.count("\n") == 1
