"""The command line: what each command prints, every exit status, and that an error is one line."""

import csv
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import gpunet as gn
from gpunet import cli, config
from gpunet.cuda import why_no_cupy
from gpunet.errors import GpunetError
from tests.registry import own_kernels_forgotten

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = str(ROOT / "gpunet/examples/own_kernel_numpy.py")


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    """Tables as wide as a pipe gets them, and no kernels left behind by the files that tests import."""
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with own_kernels_forgotten():
        yield


def ran(capsys: Any, *words: str) -> tuple[int, str, str]:
    status = cli.main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def kernel_file(folder: Path, body: str, entry: str = "relu.forward", backend: str = "numpy") -> str:
    text = f"""
        import numpy as np
        import gpunet as gn

        @gn.kernel("{entry}", backend="{backend}", variant="mine")
        def mine(x):
            {body}
    """
    file = folder / "my_kernels.py"
    file.write_text(textwrap.dedent(text))
    return str(file)


# ------------------------------------------------------------------------------------------------------- the whole


def test_help_names_every_command_with_its_purpose(capsys):
    status, out, _ = ran(capsys, "--help")
    assert status == 0
    told = " ".join(out.split())
    for name, purpose in cli.COMMANDS.items():
        assert f"{name} {purpose}" in told
    for name in config.VARIABLES:
        assert name in told
    assert out.count("\n  gpunet ") == 3  # the examples
    assert max(map(len, out.splitlines())) <= 110


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help_and_the_common_options(capsys, command):
    status, out, _ = ran(capsys, command, "--help")
    assert status == 0
    for option in ("--device", "--seed", "--json", "--quiet"):
        assert option in out


def test_the_examples_in_the_help_are_right_usage():
    for line in cli.EXAMPLES.strip().splitlines():
        assert cli._parser().parse_args(line.split()[1:]).run


def test_the_module_runs_as_a_program():
    words = [sys.executable, "-m", "gpunet", "kernels", "relu.forward"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    row = done.stdout.splitlines()[1].split()
    assert row[:3] == ["relu.forward", "numpy", "reference"]
    assert row[3].startswith("relu_numpy.py:")


def test_a_reader_that_leaves_early_is_no_error():
    command = f"{sys.executable} -m gpunet kernels | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout.splitlines()[0].split() == ["entry", "backend", "variant", "place"]
    assert done.stdout.splitlines()[1] in ("0", "141")  # 0 where the pipe held all of it


def test_a_closed_pipe_ends_quietly(capsys, monkeypatch):
    def gone(args: Any) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(cli.kernels, "kernels", gone)
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)
        assert cli.main(["kernels"]) == 141
    assert capsys.readouterr().err == ""


def test_an_interrupt_is_one_line(capsys, monkeypatch):
    def interrupted(args: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.kernels, "kernels", interrupted)
    assert ran(capsys, "kernels") == (130, "", "gpunet: interrupted\n")


def test_errors_are_one_line_without_a_traceback(capsys, monkeypatch):
    def fails(args: Any) -> int:
        raise GpunetError("two things\n  do not fit")

    monkeypatch.setattr(cli.kernels, "kernels", fails)
    assert ran(capsys, "kernels") == (1, "", "gpunet: error: two things do not fit\n")
    config.settings.debug = 1
    status, _, err = ran(capsys, "kernels")
    assert status == 1
    assert err.startswith("Traceback")
    assert err.endswith("gpunet: error: two things do not fit\n")


# ------------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "usage: gpunet"),
        (["fly"], "invalid choice: 'fly'"),
        (["info", "--device", "gpu"], "must be one of auto, cpu, cuda, cuda:N, sim, got 'gpu'"),
        (["info", "--device", "cuda:x"], "got 'cuda:x'"),
        (["info", "--seed", "-1"], "must be an integer from 0 to 2**64 - 1"),
        (["info", "--seed", str(2**64)], "must be an integer from 0 to 2**64 - 1"),
        (["train", "--model", "vgg"], "invalid choice: 'vgg'"),
        (["train", "--data", "imagenet"], "invalid choice: 'imagenet'"),
        (["train", "--optimizer", "lion"], "invalid choice: 'lion'"),
        (["train", "--epochs", "0"], "must be a whole number of at least 1, got '0'"),
        (["train", "--lr", "nan"], "must be a number of at least 0, got 'nan'"),
        (["train", "--limit", "2.5"], "must be a whole number of at least 1, got '2.5'"),
        (["bench", "conv3d"], "bench: OP must be one of "),
        (["bench", "--backend", "rocm"], "invalid choice: 'rocm'"),
        (["bench", "--tier", "huge"], "invalid choice: 'huge'"),
        (["bench", "relu", "--variant", "fastest"], "--variant must be one of"),
        (["bench", "none.py"], "must be given an op, or a Python file with kernels, got 'none.py'"),
        (["check", "none.py"], "must be given an op, or a Python file with kernels, got 'none.py'"),
        (["kernels", "conv3d"], "no op 'conv3d'"),
        (["kernels", "relu.backward"], "no entry 'relu.backward'"),
        (["compare", "--ops", "conv3d"], "invalid choice: 'conv3d'"),
        (["compare", "--budget", "0"], "must be a number of at least 1, got '0'"),
    ],
)
def test_wrong_usage_is_2(capsys, words, message):
    status, out, err = ran(capsys, *words)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.skipif(why_no_cupy() is None, reason="this machine has a GPU")
@pytest.mark.parametrize("words", [["info"], ["train", "--limit", "8"], ["check"], ["bench", "relu"], ["compare"]])
def test_a_gpu_asked_for_where_there_is_none_is_1(capsys, words):
    status, out, err = ran(capsys, *words, "--device", "cuda")
    assert (status, out) == (1, "")
    assert err.startswith("gpunet: error: device: 'cuda:0' cannot be used here: ")
    assert err.count("\n") == 1


@pytest.mark.skipif(why_no_cupy() is None, reason="this machine has a GPU")
def test_a_backend_that_cannot_run_is_1(capsys):
    status, _, err = ran(capsys, "bench", "relu", "--backend", "numba_cuda")
    assert status == 1
    assert "backend 'numba_cuda' cannot run here" in err


# ------------------------------------------------------------------------------------------------------- commands


def test_info_shows_and_writes(capsys, tmp_path):
    status, out, _ = ran(capsys, "info", "--json", str(tmp_path / "info.json"))
    assert status == 0
    assert "numpy" in out
    found = json.loads((tmp_path / "info.json").read_text())
    assert found["devices"][0]["name"] == "cpu"
    status, out, _ = ran(capsys, "info", "--json", "-")
    assert json.loads(out)["devices"][0]["runs"]
    assert ran(capsys, "info", "--quiet")[:2] == (0, "")


def test_kernels_are_listed(capsys):
    status, out, _ = ran(capsys, "kernels", "relu")
    assert status == 0
    assert out.splitlines()[1].split()[:3] == ["relu.forward", "numpy", "reference"]
    rows = json.loads(ran(capsys, "kernels", "--json", "-")[1])
    assert len(rows) == len(gn.list_kernels())
    assert set(rows[0]) == {"entry", "backend", "variant", "place"}


def test_check_proves_every_kernel(capsys, monkeypatch):
    from gpunet.measure import passes

    sizes = passes.suites.sizes
    monkeypatch.setattr(passes.suites, "sizes", lambda op, tiers: sizes(op, tiers) if tiers == ("proof",) else [])
    status, out, _ = ran(capsys, "check", "--json", "-")
    found = json.loads(out)
    failed = [each for each in found["kernels"] if each["status"] == "failed"]
    assert [f"{each['entry']} {each['backend']} {each['variant']}: {each['reason']}" for each in failed] == []
    assert status == 0
    assert found["failed"] == 0
    proved = {each["entry"] for each in found["kernels"]}
    assert {each.entry for each in gn.list_kernels()} <= proved
    assert {"conv2d gradients", "relu gradients"} <= proved


def test_check_proves_a_users_file_alone(capsys, tmp_path):
    status, out, _ = ran(capsys, "check", EXAMPLE)
    assert status == 0
    assert [line for line in out.splitlines() if "bit_mask" in line]
    table = [line for line in out.splitlines() if not line.startswith("proof:")]  # what is under way names sizes
    assert "reference" not in "".join(table)
    assert "all passed" in out


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return np.maximum(x, 0) * 1.001", "is off by"),
        ("return x.astype(np.float64).clip(0)", "must be float32"),
        ("x[x < 0] = 0; return x + 0", "changes input 0"),
        ("return np.zeros_like(x)", "is 0.0 everywhere, the definition is not"),
        ("raise ValueError('no')", "raises ValueError: no"),
    ],
)
def test_a_wrong_kernel_is_1_with_the_reason(capsys, tmp_path, body, reason):
    status, out, err = ran(capsys, "check", kernel_file(tmp_path, body), "--quiet")
    assert (status, out) == (1, "")
    assert "relu.forward/numpy/mine" in err
    assert reason in err


def test_the_table_of_check_shows_what_failed(capsys, tmp_path):
    status, out, _ = ran(capsys, "check", kernel_file(tmp_path, "return x * 1.0"))
    assert status == 1
    told = " ".join(out.replace("│", " ").split())
    assert "mine" in told
    assert "failed: " in told
    assert "proofs of 1 kernels and gradients: 1 failed" in told


@pytest.mark.skipif(why_no_cupy() is None, reason="this machine has a GPU")
def test_a_kernel_that_cannot_run_here_is_not_proved(capsys, tmp_path):
    status, _, err = ran(capsys, "check", kernel_file(tmp_path, "return x", backend="numba_cuda"), "--quiet")
    assert status == 1
    assert "relu.forward/numba_cuda/mine: its backend does not run where the check ran; cuda: " in err


def test_files_that_hold_no_kernel_are_1(capsys, tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    assert "must register a kernel, got none" in ran(capsys, "check", str(tmp_path / "empty.py"))[2]
    (tmp_path / "broken.py").write_text("x = 1 / 0\n")
    status, _, err = ran(capsys, "check", str(tmp_path / "broken.py"))
    assert status == 1
    assert "must run when imported, got ZeroDivisionError: division by zero" in err
    assert "entry must be a known" in ran(capsys, "check", kernel_file(tmp_path, "return x", entry="relu.sideways"))[2]


def test_bench_times_what_was_asked_for(capsys, tmp_path, monkeypatch):
    from gpunet.measure import passes, timer

    short = timer.Limits(warmup=0, min_time=0, max_time=0.002, min_samples=3)
    monkeypatch.setattr(passes.timer, "Limits", lambda **more: short)
    table, report = tmp_path / "rows.csv", tmp_path / "rows.json"
    words = ["bench", EXAMPLE, "--backend", "numpy", "--dtype", "float64", "--csv", str(table), "--json", str(report)]
    status, out, _ = ran(capsys, *words, "--variant", "bit_mask")
    assert status == 0
    assert "bit_mask" in out
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {(row["entry"], row["variant"], row["dtype"], row["proof"]) for row in rows} == {
        ("relu.grad_x", "bit_mask", "float64", "passed")
    }
    assert all(0 < float(row["minimum_s"]) <= float(row["median_s"]) for row in rows)
    assert [each["variant"] for each in json.loads(report.read_text())["rows"]] == ["bit_mask"] * len(rows)
    found = {(each.backend, each.variant) for each in _rows(capsys, "relu")}
    assert found >= {("numpy", "reference"), ("numpy", "bit_mask")}


def _rows(capsys: Any, op: str) -> list[Any]:
    report = json.loads(ran(capsys, "bench", op, "--json", "-")[1])
    return [type("Row", (), each) for each in report["rows"]]


def test_bench_of_a_wrong_kernel_is_1_and_has_no_row(capsys, tmp_path):
    status, out, _ = ran(capsys, "bench", kernel_file(tmp_path, "return x * 1.0"), "--variant", "mine", "--json", "-")
    assert status == 1
    report = json.loads(out)
    assert report["rows"] == []
    assert "relu.forward/numpy/mine" in report["failed"][0]


def test_compare_passes_its_options_on(capsys, monkeypatch, tmp_path):
    from gpunet.measure import compare

    seen: list[Any] = []

    def execute(options: Any) -> Any:
        seen.append(options)
        return compare.Report(complete=True)

    monkeypatch.setattr(compare, "execute", execute)
    words = ["--full", "--budget", "30", "--ops", "relu", "matmul", "--out", str(tmp_path), "--seed", "5", "--quiet"]
    assert ran(capsys, "compare", *words)[0] == 0
    (options,) = seen
    assert (options.full, options.budget, options.ops) == (True, 30.0, ("relu", "matmul"))
    assert (options.out, options.seed, options.quiet, options.device) == (tmp_path, 5, True, None)


def test_bench_host_shows_each_step_of_a_launch(tmp_path):
    path = tmp_path / "host.json"
    assert cli.main(["bench", "--host", "--quiet", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    steps = {(each["device"], each["backend"], each["step"]) for each in found}
    assert {("cpu", "numpy", "op"), ("cpu", "numpy", "choice"), ("cpu", "numpy", "launcher")} <= steps
    assert all(0 < each["low"] <= each["median"] <= each["high"] < 1 for each in found)
    op, launcher = (
        next(each["median"] for each in found if each["backend"] == "numpy" and each["step"] == step)
        for step in ("op", "launcher")
    )
    assert op > launcher
