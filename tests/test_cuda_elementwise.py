"""Element-wise ops in CUDA C++: sizes around packs, warps and rounds of the grid, odd values, masks bit by bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gpunet.kernels.common.philox import stream_words
from gpunet.kernels.prelu import prelu_cupy

from gpunet import devices, dispatch
from gpunet.cuda import emulator
from gpunet.dispatch import Kernel
from gpunet.measure import tolerances
from tests.emulated import needs_emulator, run
from tests.test_dropout import KNOWN
from tests.tolerances import assert_same_bits, outputs

pytestmark = [needs_emulator, pytest.mark.cupy]

DTYPES = ["float32", "float64"]
OPS = ("relu", "leaky_relu", "prelu", "sigmoid", "tanh", "gelu", "softplus", "dropout")
RUNGS = [each for op in OPS for entry in dispatch.entries(op) for each in dispatch.variants(entry, "cupy")]
LIKE_X = [each for each in RUNGS if each.op != "prelu" and "mask" not in each.entry]  # arrays of x's shape in and out
EXACT = ("leaky_relu", "prelu", "dropout")  # comparisons and one product: no rounding may differ, nor a sign of zero
SATURATING = ("sigmoid", "tanh")  # their gradients read y

#: op -> the parameters to run it with
PARAMS: dict[str, list[dict[str, Any]]] = {
    "leaky_relu": [{"negative_slope": 0.01}, {"negative_slope": -0.5}, {"negative_slope": 0.0}],
    "gelu": [{"approximate": "none"}, {"approximate": "tanh"}],
    "softplus": [{"beta": 1.0, "threshold": 20.0}, {"beta": 3.0, "threshold": 1.0}],
    "dropout": [{"p": 0.3, "seed": 2**40 + 5, "op": 2**35 + 3}, {"p": 0.7, "seed": 1, "op": 0, "span": 7}],
}

#: around a pack, a block of packs, and rounds of the grid: 2 multiprocessors of 8 blocks take 4096 packs at a time
SIZES = [0, 1, 3, 4, 5, 255, 1023, 1024, 1025, 8192, 8195, 16383, 16384, 16387, 32771, 49157]


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


def of(*entries: str) -> list[Kernel]:
    return [each for each in RUNGS if each.entry in entries]


def called(function: Callable[..., Any], arrays: tuple[np.ndarray, ...], params: dict[str, Any]) -> Any:
    with np.errstate(all="ignore"):
        return outputs(function(*arrays, **params))


def holds(kernel: Kernel, *arrays: np.ndarray, **params: Any) -> tuple[np.ndarray, ...]:
    """As :func:`agrees`, with the definition in float64."""
    return agrees(kernel, arrays, params, "float64")


def agrees(kernel: Kernel, arrays: tuple[np.ndarray, ...], params: dict[str, Any], dtype: str) -> Any:
    """The kernel's outputs: the definition's, bit by bit where nothing is rounded. Inputs stay as they are."""
    assert kernel.refusal(arrays, params) is None
    definition = dispatch.variants(kernel.entry, "numpy")[0].function
    before = [each.copy() for each in arrays]
    got = called(kernel.function, arrays, params)
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(one, other)
    if kernel.op in EXACT and kernel.entry != "prelu.grad_w":
        assert_same_bits(got, called(definition, arrays, params), str(kernel))
        return got
    if kernel.op == "relu":  # of -0 and 0 either is the larger
        for one, other in zip(got, called(definition, arrays, params), strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
        return got
    (wanted,) = called(definition, tuple(each.astype(dtype) for each in arrays), params)
    (result,) = got
    assert (result.shape, result.dtype) == (wanted.shape, arrays[0].dtype)
    flops = dispatch.title(kernel.op).work(kernel.entry, *arrays, **params).flops
    error = tolerances.compare(result, wanted.astype(np.float64), max(1.0, flops / max(result.size, 1)))
    assert error.ok, f"{kernel} of {[each.shape for each in arrays]} with {params}: {error}"
    return got


def given(kernel: Kernel, x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Arrays of an entry around x, which is y where the gradient reads y."""
    if kernel.entry.endswith("forward"):
        return (x,)
    if kernel.op in SATURATING:
        x = np.asarray(np.tanh(x) if kernel.op == "tanh" else 1 / (1 + np.exp(-x)), x.dtype)
    return np.asarray(rng.standard_normal(x.shape), x.dtype), x


@pytest.mark.parametrize("kernel", LIKE_X, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_many_sizes(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(0)
    params = PARAMS.get(kernel.op, [{}])
    for seed, size in enumerate(SIZES):
        emulator.options.seed = seed
        x = rng.standard_normal(size).astype(dtype)
        holds(kernel, *given(kernel, x, rng), **params[seed % len(params)])
    for x in (np.asarray(rng.standard_normal(()), dtype), rng.standard_normal((3, 1, 5, 7)).astype(dtype)):
        for each in params:
            holds(kernel, *given(kernel, x, rng), **each)


@pytest.mark.parametrize("kernel", LIKE_X, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_views(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(1)
    params = PARAMS.get(kernel.op, [{}])[0]
    x = rng.standard_normal((9, 40)).astype(dtype)
    for view in (x.T, x[:, 1::3], x[::-1], x[4:], np.broadcast_to(x[0], (3, 40))):
        holds(kernel, *given(kernel, view, rng), **params)
    flat = rng.standard_normal(1030).astype(dtype)
    arrays = given(kernel, flat, rng)
    shifted = (*arrays[:-1], arrays[-1].copy())
    for start in (1, 2, 3, 4):  # the arrays begin at different places
        cut = (*(each[: 1030 - start] for each in shifted[:-1]), shifted[-1][start:])
        if kernel.variant == "plain" or start * flat.itemsize % 16 == 0:
            holds(kernel, *cut, **params)
        else:
            assert kernel.refusal(cut, params) == "it needs arrays that begin at a multiple of 16 bytes"


def test_the_ladders_highest_rung_is_taken_where_it_can():
    sim = devices.device("sim")
    x = np.zeros((5, 36), np.float32)
    for kernel in LIKE_X:
        arrays = (x,) * (1 if kernel.entry.endswith("forward") else 2)
        params = PARAMS.get(kernel.op, [{}])[0]
        assert dispatch.find(sim, kernel.entry, arrays, params).variant == "vectorised"
        shifted = tuple(each.reshape(-1)[1:] for each in arrays)
        assert dispatch.find(sim, kernel.entry, shifted, params).variant == "plain"


@pytest.mark.parametrize("kernel", LIKE_X, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_odd_values(kernel: Kernel, dtype: str):
    tiny, small = np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal
    odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, small, -small, 30, -30, 80, -80, 95, -95, 1e15, -1e15]
    x = np.array(odd, dtype)
    gy = np.array([1, -2.5, np.inf, -np.inf, np.nan, 0.0, -0.0], dtype)
    for params in PARAMS.get(kernel.op, [{}]):
        if kernel.entry.endswith("forward"):
            for each in odd:  # beside 1 alone, so that no large value widens what is allowed
                holds(kernel, np.array([each, 1, each, each, each], dtype), **params)
            continue
        if kernel.op in SATURATING:
            x = np.array([0, 1, -1, 0.5, tiny, np.nan] if kernel.op == "tanh" else [0, 1, 0.5, tiny, np.nan], dtype)
        for each in gy:
            arrays = (np.full(x.shape, each, dtype), x)
            agrees(kernel, arrays, params, dtype)  # in float64, inf times what overflows here is another thing


@pytest.mark.parametrize("kernel", of("gelu.forward", "gelu.grad_x"), ids=str)
def test_gelu_where_powers_overflow(kernel: Kernel):
    x = np.array([1e13, -1e13, 4e19, -4e19, 6e19, -6e19, 1e20, -1e20, 3e38, -3e38], np.float32)
    arrays = (x,) if kernel.entry.endswith("forward") else (np.ones_like(x), x)
    definition = dispatch.variants(kernel.entry, "numpy")[0].function
    for params in PARAMS["gelu"]:
        wanted = called(definition, arrays, params)
        assert_same_bits(called(kernel.function, arrays, params), wanted, str(kernel))


# -- masks of relu


WORDS = [0, 1, 2, 5, 31, 32, 33, 63, 64, 65, 127, 128, 130, 255, 256, 257, 1021, 1024, 1027, 8193, 16389, 32801, 49187]


@pytest.mark.parametrize("kernel", of("relu.forward_mask"), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_puts_a_bit_an_element(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(2)
    for seed, size in enumerate(WORDS):
        emulator.options.seed = seed
        x = rng.standard_normal(size).astype(dtype)
        x[rng.random(size) < 0.1] = np.nan
        y, mask = holds(kernel, x)
        assert mask.dtype == np.uint32
        assert mask.shape == (-(-size // 32),)
        bits = np.array([mask[e // 32] >> (e % 32) & 1 for e in range(size)], bool)
        np.testing.assert_array_equal(bits, ~(y <= 0))
        assert int(np.bitwise_count(mask).sum()) == bits.sum(), "bits beyond the last element are 0"
        holds(kernel, np.ones(size, dtype))
    holds(kernel, rng.standard_normal((7, 33)).astype(dtype).T)
    holds(kernel, np.asarray(rng.standard_normal(()), dtype))


@pytest.mark.parametrize("kernel", of("relu.grad_x_mask"), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_gradient_from_bits(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(3)
    for seed, size in enumerate(WORDS):
        emulator.options.seed = seed
        mask = rng.integers(0, 2**32, -(-size // 32), np.uint32)
        gy = rng.standard_normal(size).astype(dtype)
        gy[rng.random(size) < 0.1] = np.nan
        holds(kernel, gy, mask)
        holds(kernel, gy, np.full_like(mask, 2**32 - 1))
    holds(kernel, rng.standard_normal((7, 33)).astype(dtype).T, rng.integers(0, 2**32, 8, np.uint32))


# -- dropout


PHILOX = """
#include "common/philox.cuh"
extern "C" __global__ void k(unsigned* words, const unsigned* counter, const unsigned* key) {
    unsigned long long block = static_cast<unsigned long long>(counter[1]) << 32 | counter[0];
    Words found = philox(block, {key[0], counter[2], key[1], counter[3]});
    for (int m = 0; m < 4; ++m) words[m] = found[4 * block + m];
}
"""


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_the_published_words(counter: tuple[int, ...], key: tuple[int, ...], answer: tuple[int, ...]):
    words = np.zeros(4, np.uint32)
    run(PHILOX, 1, 1, words, np.array(counter, np.uint32), np.array(key, np.uint32))
    np.testing.assert_array_equal(words, np.array(answer, np.uint32))


@pytest.mark.parametrize("kernel", of("dropout.forward"), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_masks(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(4)
    streams = [(0, 0), (1, 2), (2**64 - 1, 2**64 - 1), (2**63 + 12345, 2**32), (7, 2**40 + 1)]
    for k, p in enumerate([0.0, 0.1, 0.5, 0.999, 1e-12, 2.0**-32, 1 - 2.0**-32, 1 - 2.0**-40, 1.0]):
        seed, op = streams[k % len(streams)]
        holds(kernel, rng.standard_normal(1031).astype(dtype), p=p, seed=seed, op=op)
    odd = np.tile(np.array([np.inf, np.nan, -1, -0.0, -np.inf], dtype), 9)
    for p in (0.0, 0.5, 1.0):
        holds(kernel, odd, p=p, seed=3, op=4)


@pytest.mark.parametrize("kernel", of("dropout.forward"), ids=str)
def test_a_word_at_the_threshold_keeps(kernel: Kernel):
    words = stream_words(0, 2, seed=5, op=6)
    for m, word in enumerate(words.tolist()):
        for span in (1, 3):
            x = np.ones(span * len(words), np.float64)
            (y,) = holds(kernel, x, p=word / 2**32, seed=5, op=6, span=span)
            assert y[span * m] > 0
            (y,) = holds(kernel, x, p=(word + 1) / 2**32, seed=5, op=6, span=span)
            assert y[span * m] == 0


@pytest.mark.parametrize("kernel", of("dropout.forward"), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_of_spans(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(5)
    for seed, span in enumerate([1, 2, 3, 4, 5, 7, 16, 49, 255, 256, 1000, 16384, 16385, 70000]):
        emulator.options.seed = seed
        for size in (1, 49, 1030, 40003):
            holds(kernel, rng.standard_normal(size).astype(dtype), p=0.5, seed=11, op=12, span=span)


def test_dropout_of_spans_longer_than_the_array():
    x = np.random.default_rng(9).standard_normal(4099).astype(np.float32)
    key = {"p": 0.5, "seed": 1, "op": 2}
    plain, wide = of("dropout.forward")
    wanted = plain.function(x, **key, span=x.size)
    for span in (2**29, 2**30 - 1, 2**30, 2**70):
        assert_same_bits(plain.function(x, **key, span=span), wanted, "plain")
        if span < 2**30:
            assert_same_bits(wide.function(x, **key, span=span), wanted, "vectorised")
        else:
            assert wide.refusal((x,), {**key, "span": span}) == "it takes spans below 1073741824"


# -- prelu


#: (x, slopes): one value a row, short rows, rows of odd lengths and of whole packs, few and many channels, none
CHANNELS: list[tuple[tuple[int, ...], int]] = [
    *[((1, 1), 1), ((5, 3), 3), ((7, 33), 33), ((300, 5), 5), ((1300, 2), 2), ((2, 1030), 1030)],
    *[((3, 2, 2), 2), ((5, 11, 3), 11), ((37, 3, 31), 3), ((4, 5, 2, 4), 5), ((2, 3, 17), 3)],
    *[((3, 2, 32), 2), ((5, 3, 7, 7), 3), ((3, 2, 1028), 2), ((2, 1, 4099), 1), ((9, 2, 33, 32), 2), ((2, 2, 8203), 2)],
    *[((), 1), ((0,), 1), ((3,), 1), ((1030,), 1), ((4, 5, 6), 1), ((33, 1000), 1), ((50003,), 1), ((200, 7, 36), 7)],
    *[((0, 3), 3), ((0, 2, 5), 2), ((2, 3, 0), 3), ((2, 0, 3), 0), ((2, 0), 0)],
]


def prelu_given(kernel: Kernel, shape: tuple[int, ...], slopes: int, dtype: str) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(6)
    gy, x = (np.asarray(np.round(rng.standard_normal(shape) * 64) / 64, dtype) for _ in range(2))
    w = rng.standard_normal(slopes).astype(dtype)
    return (x, w) if kernel.entry.endswith("forward") else (gy, x, w)


@pytest.mark.parametrize("kernel", of(*dispatch.entries("prelu")), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_prelu_at_many_sizes(kernel: Kernel, dtype: str):
    taken = 0
    for seed, (shape, slopes) in enumerate(CHANNELS):
        emulator.options.seed = seed
        arrays = prelu_given(kernel, shape, slopes, dtype)
        if kernel.refusal(arrays, {}) is None:
            holds(kernel, *arrays)
            taken += 1
    assert taken >= (12 if kernel.entry == "prelu.grad_w" and kernel.variant == "vectorised" else len(CHANNELS))


@pytest.mark.parametrize("kernel", of("prelu.forward", "prelu.grad_x"), ids=str)
def test_plain_prelu_walks_on_where_the_grid_ends(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prelu_cupy, "MOST_ROWS", 2)
    for shape in [(700, 3), (11, 5, 3), (3, 7, 300), (2, 1030)]:
        holds(kernel, *prelu_given(kernel, shape, shape[1], "float32"))


@pytest.mark.parametrize("kernel", of(*dispatch.entries("prelu")), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_prelu_of_odd_values_and_views(kernel: Kernel, dtype: str):
    for shape, slopes in [((6, 5, 36), 5), ((9, 40), 40), ((6, 5, 36), 1)]:
        arrays = prelu_given(kernel, shape, slopes, dtype)
        x = arrays[-2]
        x[0, 1], x[2, 2], x[3, 0], x[4, 4], x[1, 3] = np.nan, np.inf, -np.inf, 0.0, -0.0
        if kernel.refusal(arrays, {}) is not None:
            continue
        holds(kernel, *arrays)
        *large, w = arrays
        holds(kernel, *(np.asfortranarray(each) for each in large), np.repeat(w, 2)[::2])


def test_prelu_off_16_bytes_is_split():
    base = np.random.default_rng(7).standard_normal((2, 4 * 5 * 36 + 1)).astype(np.float32)
    gy, x = (each[1:].reshape(4, 5, 36) for each in base)
    sim = devices.device("sim")
    for slopes in (1, 5):
        w = np.ones(slopes, np.float32)
        assert dispatch.find(sim, "prelu.grad_w", (gy, x, w), {}).variant == "split"
        assert dispatch.find(sim, "prelu.grad_w", (gy.copy(), x.copy(), w), {}).variant == "vectorised"
        assert dispatch.find(sim, "prelu.forward", (x, w), {}).variant == "plain"
        for kernel in of("prelu.grad_w")[:2]:
            holds(kernel, gy, x, w)


@pytest.mark.parametrize("kernel", of("prelu.grad_w"), ids=str)
def test_prelu_sums_in_one_order(kernel: Kernel):
    rng = np.random.default_rng(8)
    for shape, slopes in [((40, 3, 132), 3), ((1500, 20), 20), ((60000,), 1)]:
        w = np.ones(slopes, np.float64)
        gy, x = rng.standard_normal((2, *shape))
        if kernel.refusal((gy, x, w), {}) is not None:
            continue
        found = []
        for seed in range(3):
            emulator.options.seed = seed
            found.append(kernel.function(gy, x, w).tobytes())
        assert len(set(found)) == 1
