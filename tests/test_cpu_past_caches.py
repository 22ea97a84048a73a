"""Large results of the processor's kernels, which are written past the caches: the same as the definition's."""

import numpy as np
import pytest

import gpunet as gn
from gpunet import dispatch
from gpunet.devices import CPU, empty

pytest.importorskip("numba")
from gpunet.kernels.common.past_caches_numba_cpu import past_caches

ENTRIES = ["relu.forward", "relu.grad_x", "softmax.grad_x"]


@pytest.fixture(autouse=True)
def two_threads():
    before = gn.get_num_threads()
    gn.set_num_threads(2)
    yield
    gn.set_num_threads(before)


def arguments(entry, dtype, generator):
    """Large ones, with what comparisons get wrong in some places; no whole number of vectors where that may be."""
    shape = (1024, 2048) if entry == "softmax.grad_x" else (2**21 + 3,)
    found = [generator.standard_normal(shape).astype(dtype) for _ in range(1 if entry == "relu.forward" else 2)]
    for each, special in zip(found, (np.nan, np.inf), strict=False):
        each.flat[::4099], each.flat[1::4099], each.flat[-1] = special, 0.0, -np.inf
    return found, {"axis": 1} if entry == "softmax.grad_x" else {}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_large_results_agree_with_the_definition(entry, dtype):
    arrays, options = arguments(entry, dtype, np.random.default_rng(0))
    wanted = dispatch.variants(entry, "numpy")[0].function(*arrays, **options)
    chosen = dispatch.find(CPU, entry, tuple(arrays), options)
    assert chosen.backend == "numba_cpu"
    found = chosen.function(*arrays, **options)
    assert past_caches(found)
    np.testing.assert_allclose(found, wanted, rtol=1e-3 if dtype == "float32" else 1e-9, atol=1e-4)
    again = [empty(each.shape, each.dtype) for each in arrays]
    for one, other in zip(again, arrays, strict=True):
        one[...] = other  # memory that begins elsewhere
    gn.set_num_threads(1)
    np.testing.assert_array_equal(found.view("u1"), chosen.function(*again, **options).view("u1"))
