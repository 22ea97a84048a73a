"""matmul on the processor: sums of several parts, rows that are copied first, panels that are not full, many tasks."""

from itertools import product

import numpy as np
import pytest

import gpunet as gn
from gpunet import devices, dispatch

RUNS = devices.BACKENDS["numba_cpu"].why_not("cpu") is None
RUNGS = dispatch.variants("matmul.forward_bias_relu", "numba_cpu") if RUNS else []
FLAGS = list(product([False, True], repeat=2))

#: M, N, K: sums of one part and of three; full panels and not; few rows and many; vectors
SIZES = [(9, 50, 513), (70, 100, 1030), (300, 145, 70), (530, 49, 520), (1, 300, 700), (300, 1, 700), (20, 96, 64)]


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = gn.get_num_threads()
    yield
    gn.set_num_threads(before)


@pytest.mark.parametrize("kernel", RUNGS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [(), (2,)], ids=["one", "two"])
def test_sizes_around_panels_and_parts(kernel, dtype, batch):
    rng = np.random.default_rng(0)
    for (M, N, K), (ta, tb) in product(SIZES, FLAGS):
        a = rng.standard_normal((*batch, *((K, M) if ta else (M, K)))).astype(dtype)
        b = rng.standard_normal((N, K) if tb else (K, N)).astype(dtype)
        bias = rng.standard_normal(N).astype(dtype)
        left, right = (a.swapaxes(-1, -2) if ta else a), (b.T if tb else b)
        wanted = np.maximum(left.astype(np.longdouble) @ right.astype(np.longdouble) + bias, 0)
        results = []
        for count in (1, 2, 3):
            gn.set_num_threads(count)
            results.append(kernel.function(a, b, bias, transpose_a=ta, transpose_b=tb))
        room = 8 * float(np.finfo(dtype).eps) * np.sqrt(K) * (abs(left).max() * abs(right).max())
        assert abs(results[0] - wanted).max() <= room, (M, N, K, ta, tb)
        assert len({each.tobytes() for each in results}) == 1, (M, N, K, ta, tb)
