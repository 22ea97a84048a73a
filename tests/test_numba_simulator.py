"""The simulator of Numba-CUDA kernels: what threads see of each other, what is refused, and whole trainings in it.

It must be chosen before Python starts: ``make sim`` does. Without that, the tests here run in a process of their own.
"""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import config, nn, optim
from gpunet import cuda as door
from gpunet import functional as F
from gpunet.errors import BackendUnavailableError, DeviceError, EmulatorError, KernelError

ROOT = Path(__file__).resolve().parents[1]
OFF = door.why_no_numba_sim()
in_simulator = pytest.mark.skipif(bool(OFF), reason=str(OFF))

jit: Any = None if OFF else importlib.import_module("gpunet.cuda.jit")
packs: Any = None if OFF else importlib.import_module("gpunet.cuda.packs")
simulator: Any = None if OFF else importlib.import_module("gpunet.cuda.simulator")
cuda: Any = jit and jit.cuda
load_pack: Any = packs and packs.load_pack
store_pack: Any = packs and packs.store_pack

pytestmark = pytest.mark.numba_cuda


@pytest.mark.skipif(OFF is None or "is off" not in OFF, reason="the simulator runs here, or cannot")
def test_this_file_in_a_process_with_the_simulator():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(OFF is None or "is off" not in OFF, reason="the simulator runs here, or cannot")
def test_without_the_variable_the_error_says_what_to_set():
    x = gn.tensor([1.0, -1.0], device="sim")
    told = "set NUMBA_ENABLE_CUDASIM=1 before Python starts"
    with pytest.raises(BackendUnavailableError, match=told), gn.use_backend("numba_cuda"):
        F.relu(x)


@in_simulator
@pytest.mark.parametrize("seed", [0, 1])
def test_threads_share_what_a_barrier_orders(seed: int):
    @jit.kernel
    def turned(y, x):
        tile = cuda.shared.array(32, np.float32)
        t = cuda.threadIdx.x
        tile[t] = x[cuda.blockIdx.x * 32 + t]
        cuda.syncthreads()
        y[cuda.blockIdx.x * 32 + t] = tile[31 - t]

    simulator.options.seed = seed
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    turned((2,), (32,), (y, x))
    np.testing.assert_array_equal(y, x.reshape(2, 32)[:, ::-1].ravel())


@in_simulator
def test_a_missing_barrier_shows_as_nan_in_one_order_at_least():
    @jit.kernel
    def turned(y, x):
        tile = cuda.shared.array(32, np.float32)
        t = cuda.threadIdx.x
        tile[t] = x[t]
        y[t] = tile[31 - t]

    x, y = np.arange(32, dtype=np.float32), np.zeros(32, np.float32)
    for seed in (0, 1):
        config.settings.sim_seed = seed
        turned((1,), (32,), (y, x))
        assert np.isnan(y).reshape(2, 16).all(axis=1).tolist() == [seed == 0, seed == 1]  # whose half comes first


@in_simulator
def test_shared_memory_of_the_block_before_is_gone():
    @jit.kernel
    def left(y, x):
        tile = cuda.shared.array(1, np.float32)
        y[cuda.blockIdx.x] = tile[0]
        tile[0] = x[0]

    y = np.zeros(2, np.float32)
    left((2,), (1,), (y, np.ones(1, np.float32)))
    assert np.isnan(y).all()


@in_simulator
def test_a_barrier_that_some_never_reach_is_refused():
    @jit.kernel
    def some(y):
        if cuda.threadIdx.x < 5:
            cuda.syncthreads()
        y[cuda.threadIdx.x] = 1

    with pytest.raises(EmulatorError, match="reached by all threads of a block, got 5 that wait and 27 that ended"):
        some((1,), (32,), (np.zeros(32, np.float32),))


@in_simulator
@pytest.mark.parametrize(("index", "told"), [("t - 1", "at least 0, got -1"), ("t + 1", "out of bounds")])
def test_indices_outside_are_refused(index: str, told: str):
    code: dict = {"cuda": cuda}
    exec(f"def k(y):\n    t = cuda.threadIdx.x\n    y[{index}] = t", code)
    with pytest.raises(EmulatorError, match=told):
        jit.kernel(code["k"])((1,), (32,), (np.zeros(32, np.float32),))


@in_simulator
def test_warps_shuffle_and_vote():
    @jit.kernel
    def warp(sums, down, votes):
        t = cuda.threadIdx.x
        value = np.float32(t)
        total, apart = value, 16
        while apart > 0:
            total += cuda.shfl_xor_sync(0xFFFFFFFF, total, apart)
            apart //= 2
        sums[t] = total
        down[t] = cuda.shfl_down_sync(0xFFFFFFFF, value, 3)
        votes[t] = cuda.ballot_sync(0xFFFFFFFF, t % 2 == 0)

    sums, down, votes = np.zeros(64, np.float32), np.zeros(64, np.float32), np.zeros(64, np.uint32)
    warp((1,), (64,), (sums, down, votes))
    np.testing.assert_array_equal(sums, np.repeat([sum(range(32)), sum(range(32, 64))], 32))
    lanes = np.arange(64)
    np.testing.assert_array_equal(down, np.where(lanes % 32 < 29, lanes + 3, lanes))
    assert set(votes) == {0x55555555}


@in_simulator
def test_packs_are_sixteen_bytes():
    @jit.kernel
    def swapped(y, x):
        v = load_pack(x, cuda.threadIdx.x)
        store_pack(y, cuda.threadIdx.x, (v[1], v[0]))

    x, y = np.arange(8.0), np.zeros(8)
    swapped((1,), (4,), (y, x))
    np.testing.assert_array_equal(y, [1, 0, 3, 2, 5, 4, 7, 6])


@in_simulator
def test_arguments_that_do_not_fit_are_refused():
    @jit.kernel
    def k(y, n):
        y[0] = n

    y = np.zeros((4, 4), np.float32)
    with pytest.raises(KernelError, match=r"k: takes 2 arguments \(y, n\), got 1"):
        k((1,), (1,), (y,))
    with pytest.raises(KernelError, match="y must be C-contiguous, got shape"):
        k((1,), (1,), (y.T[:2], 1))
    with pytest.raises(KernelError, match=r"n must be a NumPy .*, got float; wrap a Python float in the dtype"):
        k((1,), (1,), (y, 0.5))
    with pytest.raises(KernelError, match="n must fit into 64 bits"):
        k((1,), (1,), (y, 2**63))
    with pytest.raises(KernelError, match="block must have at most 1024 threads"):
        k((1,), (64, 32), (y, 1))
    k((0,), (1,), (y, 1))  # no blocks: nothing to do
    assert not y.any()


def _train(device: str, steps: int) -> tuple[list[float], set[str]]:
    gn.manual_seed(3)
    rng = np.random.default_rng(3)
    images = gn.tensor(rng.standard_normal((4, 1, 6, 6)).astype(np.float32), device=device)
    labels = gn.tensor(rng.integers(0, 3, 4), device=device)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25), nn.Linear(18, 3)
    ).to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    losses = []
    with gn.trace() as lines:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses, {f"{line.entry}/{line.backend}" for line in lines}


@in_simulator
def test_a_tiny_network_trains_as_on_the_cpu():
    with gn.use_backend("numba_cuda"):
        simulated, kernels = _train("sim", 3)
    expected, _ = _train("cpu", 3)
    np.testing.assert_allclose(simulated, expected, rtol=1e-5)
    assert simulated[-1] < simulated[0]
    assert {each.partition("/")[2] for each in kernels} == {"numba_cuda"}
    entries = {each.partition("/")[0] for each in kernels}
    assert entries >= {"conv2d.forward", "conv2d.grad_w", "max_pool2d.grad_x", "dropout.forward", "matmul.forward"}
    assert entries & {"relu.forward", "relu.forward_mask"}


@in_simulator
def test_gpu_arrays_are_asked_for_by_their_device():
    with pytest.raises(DeviceError):
        gn.tensor([1.0], device="cuda")
