"""The exponential and the logarithm of the processor's kernels: how near they are, and that they become vectors."""

import platform
import re

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from gpunet.kernels.common import vexp_numba_cpu as vexp  # noqa: E402

ULPS = 2.0
LEAST = {"float32": -106.0, "float64": -748.0}
MOST = {"float32": 88.72, "float64": 709.78}

pytestmark = pytest.mark.numba_cpu


def over(function):
    """A compiled loop of ``function`` over an array."""

    @numba.njit
    def walk(y, x):
        for i in range(x.size):
            y[i] = function(x[i])

    return walk


WALKS = {name: over(getattr(vexp, name)) for name in ("exp", "exp_below", "log")}


def values(name: str, x: np.ndarray) -> np.ndarray:
    y = np.empty_like(x)
    WALKS[name](y, x)
    return y


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last digit of the exact value."""
    unit = np.spacing(np.abs(exact.astype(got.dtype))).astype(exact.dtype)
    return float((np.abs(got.astype(exact.dtype) - exact) / unit).max())


def wider(x: np.ndarray) -> np.ndarray:
    """In a type with more digits, where there is one."""
    if x.dtype == np.float64 and np.finfo(np.longdouble).nmant <= 52:
        pytest.skip("there is no type here with more digits than float64")
    return x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)


@pytest.mark.parametrize("dtype", LEAST)
@pytest.mark.parametrize("name", ["exp", "exp_below"])
def test_exponential_is_near_on_the_whole_range(name: str, dtype: str):
    most = MOST[dtype] if name == "exp" else 43.0
    near = np.random.default_rng(0).standard_normal(10_000) * 1e-6
    x = np.concatenate([np.linspace(LEAST[dtype], most, 200_001)[:-1], near]).astype(dtype)
    y = values(name, x)
    assert ulps(y, np.exp(wider(x))) < ULPS
    below_normal = (y > 0) & (y < np.finfo(dtype).tiny)
    assert below_normal.any(), "the range reaches below the normal numbers"


@pytest.mark.parametrize("dtype", LEAST)
def test_logarithm_is_near(dtype: str):
    rng = np.random.default_rng(1)
    around = [rng.uniform(-80, 80, 50_000), rng.uniform(-1, 1, 50_000), rng.uniform(0, 1e-5, 50_000)]
    x = np.exp(np.concatenate(around)).astype(dtype)
    assert ulps(values("log", x), np.log(wider(x))) < ULPS


@pytest.mark.parametrize("dtype", LEAST)
def test_ends_of_the_range(dtype: str):
    x = np.array([-np.inf, -1e30, np.nan, 0.0, -0.0, 1e30, np.inf], dtype)
    np.testing.assert_array_equal(values("exp", x), [0, 0, np.nan, 1, 1, np.inf, np.inf])
    np.testing.assert_array_equal(values("exp_below", x[:5]), [0, 0, np.nan, 1, 1])
    x = np.array([1.0, 0.0, -1.0, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(values("log", x), [0, np.nan, np.nan, np.nan, np.nan])


@pytest.mark.parametrize("dtype", LEAST)
def test_order_is_that_of_the_numbers(dtype: str):
    x = np.array([-np.inf, -2.5, -np.finfo(dtype).tiny, -0.0, 0.0, 1.5, np.inf], dtype)
    kept = [vexp.order(each) for each in x]
    assert kept == sorted(kept)
    np.testing.assert_array_equal([vexp.from_order(each) for each in kept], x)


@pytest.mark.skipif(not re.match(r"x86|AMD64", platform.machine()), reason="reads x86 assembly")
@pytest.mark.parametrize("name", WALKS)
def test_loops_become_vectors(name: str):
    values(name, np.ones(8, np.float32))
    (assembly,) = (text for types, text in WALKS[name].inspect_asm().items() if "float32" in str(types[0]))
    assert re.search(r"v?mulps|vfn?m(add|sub)\w*ps", assembly), "products of packed numbers"
