"""The CUDA C++ kernels on device ``sim``, held against the NumPy definition; and a training step through them."""

from itertools import product

import numpy as np
import pytest

import gpunet as gn
from gpunet import devices, dispatch, functional, optim
from gpunet.cuda import emulator
from gpunet.cuda.source import Source, find
from gpunet.dispatch import Kernel
from gpunet.measure import tolerances
from tests.emulated import needs_emulator

pytestmark = [needs_emulator, pytest.mark.cupy]

OPS = tuple(op for op in dispatch.ops() if any(dispatch.variants(entry, "cupy") for entry in dispatch.entries(op)))
RUNGS = [each for op in OPS for entry in dispatch.entries(op) for each in dispatch.variants(entry, "cupy")]


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


def of(entry: str) -> list[Kernel]:
    return [each for each in RUNGS if each.entry == entry]


def holds(kernel: Kernel, *arrays: np.ndarray, **params: object) -> None:
    """The kernel's result is the definition's, and its inputs are as they were."""
    assert kernel.refusal(arrays, params) is None
    definition = dispatch.variants(kernel.entry, "numpy")[0].function
    before = [each.copy() for each in arrays]
    with np.errstate(all="ignore"):
        wanted = definition(*(each.astype(np.float64) for each in arrays), **params)
    got = kernel.function(*arrays, **params)
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert got.shape == wanted.shape
    assert got.dtype == arrays[0].dtype
    flops = dispatch.title(kernel.op).work(kernel.entry, *arrays, **params).flops
    error = tolerances.compare(got, wanted, max(1.0, flops / max(got.size, 1)))
    assert error.ok, f"{kernel}: {error}"


@pytest.mark.parametrize("kernel", of("relu.forward"), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_forward(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(0)
    for seed, shape in enumerate([(0,), (1,), (3,), (4, 257), (2, 3, 5, 7), (1023,), (1024,), (1025,), ()]):
        emulator.options.seed = seed
        holds(kernel, rng.standard_normal(shape).astype(dtype)[...])
    holds(kernel, np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40], dtype))
    holds(kernel, rng.standard_normal((8, 6)).astype(dtype).T)


@pytest.mark.parametrize("kernel", of("relu.grad_x"), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_grad_x(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(0)
    for seed, size in enumerate([0, 1, 3, 255, 256, 257, 1027]):
        emulator.options.seed = seed
        holds(kernel, rng.standard_normal(size).astype(dtype), np.maximum(rng.standard_normal(size), 0).astype(dtype))
    holds(kernel, np.array([1, np.nan, np.inf, 5], dtype), np.array([np.nan, 0, 0, np.inf], dtype))


def test_vectorised_relu_refuses_a_view_off_its_16_bytes():
    x = np.zeros(101, np.float32)
    wide = next(each for each in of("relu.forward") if each.variant == "vectorised")
    assert wide.refusal((x[1:],), {}) == "it needs arrays that begin at a multiple of 16 bytes"
    assert wide.refusal((x[4:],), {}) is None
    taken = dispatch.find(devices.device("sim"), "relu.forward", (x[1:],), {})
    assert taken.variant == "plain"


SIZES = [(1, 1, 1), (16, 16, 16), (17, 15, 33), (1, 40, 3), (31, 1, 2), (5, 7, 0), (0, 3, 2)]


@pytest.mark.parametrize("kernel", of("matmul.forward"), ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flags", list(product([False, True], repeat=2)), ids=["NN", "NT", "TN", "TT"])
def test_matmul(kernel: Kernel, dtype: str, flags: tuple[bool, bool]):
    rng = np.random.default_rng(1)
    for seed, (M, N, K) in enumerate(SIZES):
        emulator.options.seed = seed
        a = rng.standard_normal((K, M) if flags[0] else (M, K)).astype(dtype)
        b = rng.standard_normal((N, K) if flags[1] else (K, N)).astype(dtype)
        holds(kernel, a, b, transpose_a=flags[0], transpose_b=flags[1])


@pytest.mark.parametrize("kernel", of("matmul.forward"), ids=str)
def test_matmul_batched(kernel: Kernel):
    rng = np.random.default_rng(2)
    batches = [((3,), (3,)), ((2, 3), ()), ((), (4,)), ((2, 1), (1, 3)), ((1,), (3,)), ((0,), (0,)), ((2, 3), (3,))]
    for left, right in batches:
        a = rng.standard_normal((*left, 5, 18)).astype(np.float32)
        b = rng.standard_normal((*right, 18, 4)).astype(np.float32)
        holds(kernel, a, b, transpose_a=False, transpose_b=False)


@pytest.mark.parametrize("kernel", RUNGS, ids=str)
def test_every_rung_is_in_the_ladder_and_in_the_file(kernel: Kernel):
    assert kernel.variant in dispatch.ladder(kernel.op)
    defines = {"real": "float"}
    files = sorted(find(kernel.op).parent.glob("*.cu"))
    names = {name for path in files for name in Source(path, defines).signatures}
    # A fused entry, and every step of a rung that has several, may share kernels: the rung's name is in theirs.
    assert any(kernel.variant in name for name in names), f"no kernel of {kernel.op} is called {kernel.variant}"


def test_training_on_sim_gives_what_the_cpu_gives():
    def train(device: str) -> tuple[list[float], list[str]]:
        gn.manual_seed(3)
        rng = np.random.default_rng(3)
        x = gn.tensor(rng.standard_normal((24, 5)).astype(np.float32), device=device)
        y = gn.tensor(rng.standard_normal((24, 2)).astype(np.float32), device=device)
        w = gn.tensor(rng.standard_normal((5, 19)).astype(np.float32) * 0.5, device=device, requires_grad=True)
        v = gn.tensor(rng.standard_normal((19, 2)).astype(np.float32) * 0.5, device=device, requires_grad=True)
        optimizer = optim.SGD([w, v], lr=0.05)
        losses = []
        with gn.trace() as lines:
            for _ in range(8):
                optimizer.zero_grad()
                loss = ((functional.relu(x @ w) @ v - y) ** 2).mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return losses, [f"{line.entry}/{line.backend}" for line in lines]

    on_sim, kernels = train("sim")
    on_cpu, _ = train("cpu")
    np.testing.assert_allclose(on_sim, on_cpu, rtol=1e-5)
    assert on_sim[-1] < 0.8 * on_sim[0]
    assert set(kernels) == {"matmul.forward/cupy", "relu.forward_mask/cupy", "relu.grad_x_mask/cupy"}
