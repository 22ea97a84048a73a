"""What is promised: ``make gpu`` its time, ``--require-gpu`` that nothing stands in, ``make mutants`` its tables."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.product import GPU_BACKENDS

ROOT = Path(__file__).resolve().parents[1]
ENDLESS = "trap '' TERM; for second in $(seq 60); do sleep 1; done"  # a step that does not want to end


def run(folder: Path, *command: str, stubs: dict[str, str], **variables: str) -> tuple[int, str]:
    """Exit status and output of a command that finds ``stubs``, shell scripts, before everything else."""
    for name, script in stubs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **variables}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout


@pytest.mark.skipif(not shutil.which("timeout"), reason="the command needs coreutils")
class TestGpu:
    """The steps of ``.ci/gpu``, with commands in place of Python that need no GPU."""

    def run(self, folder: Path, python: str, **variables: str) -> tuple[int, str]:
        stubs = {"python3": python, "compute-sanitizer": python}
        told = {"OUT": str(folder), "GPUNET_CACHE": str(folder), **variables}
        return run(folder, "bash", ".ci/gpu", stubs=stubs, **told)

    def test_the_ladder_gets_what_is_left(self, tmp_path: Path):
        code, told = self.run(tmp_path, 'echo "$@"')
        assert code == 0, told
        assert "CUT" not in told
        assert "--require-gpu" in told
        seconds = re.search(r"gpunet\.bench\.gpu --seconds (\d+)", told)
        assert seconds
        assert 440 < int(seconds.group(1)) <= 500  # of 540: 10 kept back, 30 for the size that it is at

    def test_the_limit_is_held_and_what_was_cut_is_said(self, tmp_path: Path):
        code, told = self.run(tmp_path, ENDLESS, LIMIT="12")
        assert code == 1
        cut = re.findall(r"^CUT: (\w+): (.*)$", told, re.MULTILINE)
        assert [name for name, _ in cut] == ["install", "info", "tests", "memcheck", "racecheck", "ladder"], told
        assert re.fullmatch(r"ended after [12] s", cut[0][1])
        assert {why for _, why in cut[1:]} == {"not run, no time was left"}

    def test_a_step_that_fails_is_no_step_that_was_cut(self, tmp_path: Path):
        code, told = self.run(tmp_path, 'case "$*" in *pytest*) exit 3;; esac')
        assert code == 1
        assert "FAILED: tests, exit status 3" in told
        assert "CUT" not in told


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make")
@pytest.mark.parametrize("wrong", ["mutants", "mutants_cuda", "mutants_numba", "none"])
def test_make_mutants_prints_every_table_and_fails_if_one_does(tmp_path: Path, wrong: str):
    code, told = run(tmp_path, "make", "-s", "mutants", stubs={"python": f'echo "$@"; [ "$1" != tests/{wrong}.py ]'})
    ran = [line for line in told.splitlines() if line.startswith("tests/")]
    assert ran == ["tests/mutants.py", "tests/mutants_cuda.py", "tests/mutants_numba.py"]
    assert (code == 0) == (wrong == "none")


def test_with_require_gpu_nothing_runs_in_place_of_a_gpu(tmp_path: Path):
    files = ("test_forward", "test_inputs", "test_agreement")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--require-gpu"]
    command += ["-m", "cupy or numba_cuda", "-k", "(relu.forward and plain) or all-cupy or all-numba_cuda"]
    command += ["--junitxml", str(tmp_path / "tests.xml"), *(f"tests/{each}.py" for each in files)]
    code, told = run(tmp_path, *command, stubs={}, CUDA_VISIBLE_DEVICES="")
    assert code == 1, told
    tests = list(ElementTree.parse(tmp_path / "tests.xml").iter("testcase"))
    for each in tests:  # none passes, none is skipped
        wrong = each.find("error")
        assert wrong is not None, each.attrib
        assert "--require-gpu was given, and this cannot run: no GPU (cuda: " in str(wrong.text)
    ran = {(each.get("classname"), name) for each in tests for name in GPU_BACKENDS if name in str(each.get("name"))}
    assert ran == {(f"tests.{file}", name) for file in files for name in GPU_BACKENDS}
