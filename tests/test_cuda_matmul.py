"""The ladder of matmul on device ``sim``: sizes around the tiles, views, batches, epilogues, the choice of a rung."""

from itertools import product

import numpy as np
import pytest
from gpunet.kernels.matmul import matmul_cupy

from gpunet import devices, dispatch
from gpunet.cuda import emulator
from gpunet.dispatch import Kernel
from tests.emulated import needs_emulator
from tests.test_cuda_kernels import holds, of

pytestmark = [needs_emulator, pytest.mark.cupy]

FLAGS = list(product([False, True], repeat=2))
NAMES = ["NN", "NT", "TN", "TT"]
FORWARD = of("matmul.forward")
FUSED = [*of("matmul.forward_bias"), *of("matmul.forward_bias_relu")]

#: M, N, K around tiles of 64, 128 and 256, steps of 8 and packs of 4: just below, just above, and in packs
TILES = [(63, 65, 9), (128, 256, 8), (129, 260, 12), (132, 68, 17), (4, 300, 20), (257, 4, 7)]


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


def operands(M: int, N: int, K: int, flags: tuple[bool, bool], dtype: str, batch: tuple[int, ...] = ()) -> list:
    """a and b, stored as the flags have it."""
    rng = np.random.default_rng(M + N + K)
    shapes = (K, M) if flags[0] else (M, K), (N, K) if flags[1] else (K, N)
    return [rng.standard_normal((*batch, *shape)).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("kernel", FORWARD, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("flags", FLAGS, ids=NAMES)
def test_sizes_around_the_tiles(kernel: Kernel, dtype: str, flags: tuple[bool, bool]):
    for seed, (M, N, K) in enumerate(TILES):
        emulator.options.seed = seed
        holds(kernel, *operands(M, N, K, flags, dtype), transpose_a=flags[0], transpose_b=flags[1])


@pytest.mark.parametrize("kernel", FORWARD, ids=str)
@pytest.mark.parametrize("flags", FLAGS, ids=NAMES)
def test_views_off_their_16_bytes(kernel: Kernel, flags: tuple[bool, bool]):
    a, b = operands(36, 72, 24, flags, "float32")
    for skip in (1, 2):
        moved = [np.empty(each.size + skip, each.dtype)[skip:].reshape(each.shape) for each in (a, b)]
        moved[0][:], moved[1][:] = a, b
        for one, other in [(moved[0], b), (a, moved[1])]:
            holds(kernel, one, other, transpose_a=flags[0], transpose_b=flags[1])


@pytest.mark.parametrize("kernel", FORWARD, ids=str)
def test_views_that_are_no_matrices_in_memory(kernel: Kernel):
    a, b = operands(40, 36, 20, (False, False), "float64")
    holds(kernel, np.asfortranarray(a), b[:, ::-1], transpose_a=False, transpose_b=False)
    holds(kernel, np.repeat(a, 2, axis=0)[::2], b, transpose_a=False, transpose_b=False)


@pytest.mark.parametrize("kernel", FORWARD, ids=str)
@pytest.mark.parametrize("K", [1, 2, 7, 8, 9, 15, 16, 17, 24, 25, 100])
def test_every_remainder_of_the_sums(kernel: Kernel, K: int):
    """Stages of 8, two of them on their way, at both ends of their ring."""
    holds(kernel, *operands(12, 20, K, (False, False), "float32"), transpose_a=False, transpose_b=False)


@pytest.mark.parametrize("kernel", FORWARD, ids=str)
def test_more_matrices_than_the_grid_is_deep(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(matmul_cupy, "MOST_Z", 2)
    a, b = operands(9, 20, 12, (False, True), "float32", (5,))
    if kernel.variant == "split_k":  # its third axis holds the parts too
        params = {"transpose_a": False, "transpose_b": True}
        assert kernel.refusal((a, b), params) == "it takes at most 2 matrices"
        a, b = a[:2], b[:2]
    holds(kernel, a, b, transpose_a=False, transpose_b=True)


@pytest.mark.parametrize("kernel", FUSED, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_epilogues(kernel: Kernel, dtype: str):
    for flags, (M, N, K) in product(
        [(False, False), (False, True)], [(130, 258, 9), (5, 36, 40), (64, 64, 3), (3, 7, 0)]
    ):
        bias = np.random.default_rng(N).standard_normal(N).astype(dtype)
        holds(kernel, *operands(M, N, K, flags, dtype), bias, transpose_a=flags[0], transpose_b=flags[1])


@pytest.mark.parametrize("kernel", of("matmul.forward_bias_relu"), ids=str)
def test_the_positive_part_keeps_nan(kernel: Kernel):
    a, b = operands(8, 8, 8, (False, False), "float32")
    a[3] = np.nan
    y = kernel.function(a, b, np.zeros(8, np.float32), transpose_a=False, transpose_b=False)
    assert np.isnan(y[3]).all()
    assert not np.isnan(np.delete(y, 3, axis=0)).any()


@pytest.mark.parametrize("kernel", of("matmul.forward"), ids=str)
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_inf_and_nan_reach_their_row_and_column_alone(kernel: Kernel, value: float):
    a, b = operands(70, 68, 20, (False, False), "float32")
    a[41, 3] = value
    y = kernel.function(a, b, transpose_a=False, transpose_b=False)
    assert not np.isfinite(y[41]).any()
    assert np.isfinite(np.delete(y, 41, axis=0)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_split_k_gives_the_same_bits_again(dtype: str):
    kernel = next(each for each in FORWARD if each.variant == "split_k")
    a, b = operands(20, 24, 3000, (False, False), dtype)
    results = []
    for seed in range(3):
        emulator.options.seed = seed
        results.append(kernel.function(a, b, transpose_a=False, transpose_b=False).tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize(
    ("sizes", "rung"),
    [
        ((8, 8, 8), "tiled"),
        ((50, 50, 16), "register_1d"),
        ((128, 128, 16), "warp_tiled"),
        ((128, 256, 16), "cp_async"),
        ((16, 16, 2000), "split_k"),
    ],
)
def test_the_best_rung_for_the_size(sizes: tuple[int, int, int], rung: str):
    a, b = operands(*sizes, (False, False), "float32")
    params = {"transpose_a": False, "transpose_b": False}
    assert dispatch.find(devices.device("sim"), "matmul.forward", (a, b), params).variant == rung
    product = matmul_cupy._Product(a, a, b, None, 0, *sizes, sizes[2], 1, sizes[1], 1, 0, 0, 1)
    assert matmul_cupy._best(product) == rung


def test_without_asynchronous_copies_the_rung_below_is_taken():
    a, b = operands(128, 256, 16, (False, False), "float32")
    emulator.options.arch = 750
    params = {"transpose_a": False, "transpose_b": False}
    assert dispatch.find(devices.device("sim"), "matmul.forward", (a, b), params).variant == "warp_tiled"
    text = next(each for each in FORWARD if each.variant == "cp_async").waste((a, b), params)
    assert "before sm_80" in str(text)


@pytest.mark.parametrize("rung", sorted(matmul_cupy._RUNGS))
def test_products_for_other_ops(rung: str):
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((3, 10, 24)).astype(np.float32), rng.standard_normal((3, 10, 36)).astype(np.float32)
    y = np.empty((3, 24, 36), np.float32)
    matmul_cupy.multiply(y, a, b, 24, 36, 10, transpose_a=True, batch=3, a_batch=240, b_batch=360, rung=rung)
    np.testing.assert_allclose(y, a.transpose(0, 2, 1) @ b, rtol=1e-5, atol=1e-5)
