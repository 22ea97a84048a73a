"""Environment variables and devices: what they change, and what a wrong one says."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import gpunet as gn
import gpunet.functional as F
from gpunet import config, devices, watch
from gpunet.cuda import emulator
from gpunet.errors import ArgumentError, DeviceError, KernelError, NoKernelError
from tests.own_kernel import ran, register, registry  # noqa: F401 the fixture is used by name

HERE = Path(__file__).name
VARIABLES = (
    "DEVICE", "BACKEND", "DEBUG", "CHECK", "SEED", "SIM_SEED", "VARIANT_RELU", "VARIANT_CONV", "VARIANT_MATMUL"
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("registry")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets variables and has them read."""

    def change(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"GPUNET_{name}", value)
        config.reload()

    for name in VARIABLES:
        monkeypatch.delenv(f"GPUNET_{name}", raising=False)
    yield change
    monkeypatch.undo()
    config.reload()


# -------------------------------------------------------------------------------------------------------- environment


def test_environment_asks_by_name(environment):
    register()
    environment(VARIANT_RELU="forward=mine", BACKEND="numpy")
    assert ran()
    assert config.wanted_variant("relu.grad_x") is None
    with gn.use_variant("relu.forward", "reference"):  # a context manager beats the environment
        assert not ran()
    environment(VARIANT_RELU="reference")
    assert config.wanted_variant("relu.grad_x") == "reference"
    assert not ran()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DEBUG": "9"}, "GPUNET_DEBUG must be an integer from 0 to 4, got '9'"),
        ({"DEBUG": "yes"}, "GPUNET_DEBUG must be an integer from 0 to 4, got 'yes'"),
        ({"CHECK": "2"}, "GPUNET_CHECK must be an integer from 0 to 1"),
        ({"SEED": "-1"}, "GPUNET_SEED must be an integer from 0 to"),
        ({"SIM_SEED": "odd"}, "GPUNET_SIM_SEED must be an integer from 0 to .*, got 'odd'"),
        ({"VARIANT_RELU": "forward=mine,other"}, "GPUNET_VARIANT_RELU must be a rung, or entry=rung,entry=rung, got"),
        ({"VARIANT_RELU": "forward="}, "GPUNET_VARIANT_RELU must be a rung"),
    ],
)
def test_malformed_variables_are_named(environment, variables, words):
    with pytest.raises(ArgumentError, match=words):
        environment(**variables)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BACKEND": "cuda"}, "GPUNET_BACKEND: must be one of numpy, numba_cpu, cupy, numba_cuda, got 'cuda'"),
        ({"VARIANT_CONV": "tiled"}, "GPUNET_VARIANT_CONV: its end must be one of .*CONV2D.*, got 'CONV'"),
        ({"VARIANT_RELU": "backward=x"}, "GPUNET_VARIANT_RELU: entries must be among forward, .*, got 'backward'"),
        ({"VARIANT_MATMUL": "warp"}, "GPUNET_VARIANT_MATMUL: the rung must be one of .*reference.*, got 'warp'"),
    ],
)
def test_unknown_names_in_variables_stop_the_next_launch(environment, variables, words):
    environment(**variables)
    with pytest.raises(NoKernelError, match=words):
        F.relu(gn.ones(2))


def test_seed_and_blank_variables(environment):
    environment(SEED=" 17 ", SIM_SEED="3", DEBUG="  ", BACKEND=" ")
    assert (config.settings.seed, config.settings.debug, config.settings.backend) == (17, 0, None)
    assert emulator.options.seed == 3


def test_debug_tells_each_choice_once_and_each_launch(environment, capsys):
    watch.told.clear()
    environment(DEBUG="1")
    for _ in range(3):
        F.relu(gn.ones(2))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("gpunet: cpu chose relu.forward/")
    environment(DEBUG="2")
    with gn.use_backend("numpy"):
        F.relu(gn.ones(2, 3))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("gpunet: forward  relu.forward/numpy/reference 2x3 float32 relu_numpy.py:")
    assert line.endswith(" ms")


def test_check_catches_a_kernel_that_makes_nan(environment):
    @gn.kernel("relu.forward", backend="numpy", variant="mine")
    def relu_forward_forgetful(x):
        y = x.copy()
        y[0] = np.nan
        return y

    environment(CHECK="1", VARIANT_RELU="forward=mine")
    with pytest.raises(KernelError, match=rf"numpy/mine at {HERE}:\d+: output 0 holds NaN though no input"):
        F.relu(gn.ones(2))
    assert np.isnan(F.relu(gn.tensor([np.nan, 1.0])).data[0])  # a NaN that came in may go out
    environment(CHECK="0")
    assert np.isnan(F.relu(gn.ones(2)).data[0])


# -------------------------------------------------------------------------------------------------------------- devices


@pytest.mark.parametrize("name", ["tpu", "cpu:0", "cuda:", "cuda:x", "CPU", "", "sim:1"])
def test_unknown_devices(name):
    with pytest.raises(DeviceError, match=rf"device: must be one of cpu, cuda, cuda:N, sim, auto, got '{name}'"):
        gn.device(name)


def test_devices_are_themselves():
    assert gn.device() is gn.device("cpu") is gn.device(gn.device("cpu"))
    assert gn.device("cpu") == "cpu"
    assert gn.device("cpu") != "sim"
    assert repr(gn.device("cpu")) == "device('cpu')"
    assert gn.device("cpu").xp is np


@pytest.mark.skipif(devices.device("auto").kind == "cuda", reason="a GPU can run here")
def test_cuda_without_a_gpu_says_why_and_auto_is_the_cpu(environment):
    with pytest.raises(DeviceError, match=r"'cuda:0' cannot be used here: \w+.*(pip install|nvidia-smi|info)"):
        gn.ones(2, device="cuda")
    with pytest.raises(DeviceError, match="'cuda:3' cannot be used here"):
        gn.ones(2).cuda(3)
    assert gn.ones(2, device="auto").device == "cpu"
    environment(DEVICE="cuda")
    with pytest.raises(DeviceError, match="the name comes from GPUNET_DEVICE"):
        gn.ones(2)


def test_sim_says_why_not_or_runs():
    reason = devices._named("sim").why_not()
    if reason is None:
        assert gn.ones(2, device="sim").device.kind == "sim"
    else:
        with pytest.raises(DeviceError) as caught:
            gn.ones(2, device="sim")
        assert reason in str(caught.value)


def test_default_device_comes_from_the_environment(environment):
    environment(DEVICE="tpu")
    with pytest.raises(DeviceError, match="got 'tpu'; the name comes from GPUNET_DEVICE"):
        gn.ones(2)
    assert gn.ones(2, device="cpu").device == "cpu"
