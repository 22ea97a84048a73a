"""Compiling ahead: what is compiled is found on disk by the next process, and what cannot be is said by name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gpunet import cli, devices, dispatch
from gpunet.errors import BackendUnavailableError, KernelError
from gpunet.measure import warmup
from gpunet.measure.session import Lane

from .own_kernel import registry  # noqa: F401 a fixture

CPU = Lane(devices.CPU, "numba_cpu")
USES = """
import numpy, gpunet as gn
from gpunet import functional as F
for dtype in ("float32", "float64"):
    for shape in ((7,), (1000, 3)):
        x = gn.tensor(numpy.ones(shape, dtype), requires_grad=True)
        F.relu(x).sum().backward()
"""


@pytest.mark.numba_cpu
def test_after_it_nothing_is_compiled(tmp_path: Path):
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def ran(*words: str) -> tuple[str, set[str]]:
        done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=True)
        return done.stdout, {each.name for each in tmp_path.rglob("*.nbc")}

    half = json.loads(ran("-m", "gpunet", "warmup", "relu", "--dtype", "float32", "--json", "-")[0])["warmed"]
    assert [each["dtype"] for each in half] == ["float32"]
    out, compiled = ran("-m", "gpunet", "warmup", "relu", "--device", "cpu", "--json", "-")
    found = json.loads(out)["warmed"]
    assert {(each["op"], each["backend"], each["dtype"]) for each in found} == {
        ("relu", "numba_cpu", dtype) for dtype in ("float32", "float64")
    }
    rungs = [kernel for kernel in dispatch.list_kernels("relu") if kernel.backend == "numba_cpu"]
    assert [each["kernels"] for each in found] == [len(rungs)] * 2
    assert compiled
    assert ran("-c", USES)[1] == compiled


@pytest.mark.numba_cpu
def test_a_kernel_that_raises_is_named(registry: None):  # noqa: F811
    @dispatch.kernel("relu.forward", backend="numba_cpu", variant="broken")
    def broken(x: np.ndarray) -> np.ndarray:
        raise ValueError("no such type")

    with pytest.raises(KernelError, match=r"relu.forward/numba_cpu/broken .* must run, got ValueError: no such"):
        warmup.warm(CPU, "relu", "float32")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["nix"], 2, "warmup: OP must be one of matmul, conv2d,"),
        (
            ["relu", "--device", "sim"],
            1,
            "a backend with kernels to compile must run here, got none; numba_cpu",
        ),
    ],
)
def test_wrong_use(words: list[str], status: int, told: str, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["warmup", *words]) == status
    assert told in capsys.readouterr().err


def test_the_simulator_is_left_out():
    with pytest.raises(BackendUnavailableError, match="sim compiles nothing that would be kept"):
        warmup.lanes("sim")
