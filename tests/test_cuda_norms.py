"""batch_norm and layer_norm in CUDA C++: sizes around their tiles and cuts, shifted and strided arrays, odd values."""

import numpy as np
import pytest

from gpunet import devices, dispatch
from gpunet.cuda import emulator
from gpunet.dispatch import Kernel
from gpunet.measure import tolerances
from tests.emulated import needs_emulator
from tests.tolerances import assert_same_bits, outputs

pytestmark = [needs_emulator, pytest.mark.cupy]

EPS = 0.5  # with a small one the gradient of two values is all rounding
DTYPES = ["float32", "float64"]
OPS = ("batch_norm", "layer_norm")
RUNGS = [each for op in OPS for entry in dispatch.entries(op) for each in dispatch.variants(entry, "cupy")]
Given = tuple[tuple[np.ndarray | None, ...], dict[str, float]]


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


def of(*entries: str) -> list[Kernel]:
    return [each for each in RUNGS if each.entry in entries]


def rung(entry: str, variant: str) -> Kernel:
    return next(each for each in of(entry) if each.variant == variant)


def definition(entry: str, given: Given) -> tuple[np.ndarray, ...]:
    arrays, params = given
    with np.errstate(all="ignore"):
        return outputs(dispatch.variants(entry, "numpy")[0].function(*arrays, **params))


def holds(kernel: Kernel, given: Given) -> bool:
    """Every output is the definition's and the inputs are as they were; False where the kernel refuses the call."""
    arrays, params = given
    if kernel.refusal(arrays, params) is not None:
        return False
    before = [None if each is None else each.copy() for each in arrays]
    wide = tuple(None if each is None else each.astype(np.float64) for each in arrays)
    wanted = definition(kernel.entry, (wide, params))
    got = outputs(kernel.function(*arrays, **params))
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(got) == len(wanted)
    dtype = next(each.dtype for each in arrays if each is not None)
    flops = dispatch.title(kernel.op).work(kernel.entry, *arrays, **params).flops
    for k, (one, other) in enumerate(zip(got, wanted, strict=True)):
        assert (one.shape, one.dtype) == (other.shape, dtype)
        error = tolerances.compare(one, other, max(1.0, flops / max(one.size, 1)))
        assert error.ok, f"{kernel}: output {k} of {[None if a is None else a.shape for a in arrays]}: {error}"
    return True


def some(rng: np.random.Generator, dtype: str, *shape: int, by: float = 0.0) -> np.ndarray:
    """Normal numbers, in all digits of the dtype; around ``by`` in steps of 1/128, so that sums are exact."""
    x = rng.standard_normal(shape)
    return (np.round(x * 128) / 128 + by if by else x).astype(dtype)


def given(entry: str, x: np.ndarray, rng: np.random.Generator, affine: bool = True, eps: float = 1e-5) -> Given:
    """Arguments of an entry around x, with statistics and gradients that belong to it; x itself is handed on."""
    op = entry.partition(".")[0]
    dtype, size = x.dtype.name, x.shape[1]
    w, b = (some(rng, dtype, size), some(rng, dtype, size)) if affine else (None, None)
    if entry.endswith(".forward"):
        return (x, w, b), {"eps": eps}
    gy = np.asarray(some(rng, dtype, *x.shape))
    if op == "layer_norm":
        _, mean, invstd = definition("layer_norm.forward", ((x, w, b), {"eps": eps}))
        return ((gy, x, mean, invstd) if entry.endswith("wb") else (gy, x, w, mean, invstd)), {}
    _, mean, var, invstd = definition("batch_norm.forward", ((x, w, b), {"eps": eps}))
    if entry.endswith("grad_wb"):
        return (gy, x, mean, invstd), {}
    if entry.endswith("grad_x_eval"):
        return (gy, w, invstd), {}
    if entry.endswith("forward_eval"):
        return (x, mean, var, w, b), {"eps": eps}
    gw, gb = definition("batch_norm.grad_wb", ((gy, x, mean, invstd), {}))
    return (gy, x, w, mean, invstd, gw, gb), {}


BATCH = dispatch.entries("batch_norm")
LAYER = dispatch.entries("layer_norm")

#: around 32 columns, 8 rows of threads, short rows (below 16), 256 threads, 16 values a round, and several parts
CHANNELS = [
    *[(2, 1), (7, 31), (9, 33), (40, 32), (300, 3), (1100, 2)],  # one value a row
    *[(3, 2, 2), (5, 11, 3), (37, 3, 15), (300, 1, 15), (4, 5, 2, 4)],  # short rows
    *[(3, 2, 16), (2, 3, 17), (5, 3, 7, 7), (6, 1, 14, 14), (3, 2, 1028), (2, 1, 4099), (9, 1, 33, 32)],
    *[(0, 3), (0, 2, 5), (2, 3, 0), (2, 0, 3)],
]


@pytest.mark.parametrize("kernel", of(*BATCH), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_at_many_sizes(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(0)
    taken = 0
    for seed, shape in enumerate(CHANNELS):
        emulator.options.seed = seed
        taken += holds(kernel, given(kernel.entry, some(rng, dtype, *shape), rng, seed % 3 > 0, EPS))
    assert taken >= (4 if kernel.variant == "vectorised" else len(CHANNELS) - 2)


@pytest.mark.parametrize("kernel", of(*BATCH), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_where_a_thread_has_several_rounds(kernel: Kernel, dtype: str, monkeypatch):
    monkeypatch.setattr("gpunet.kernels.batch_norm.batch_norm_cupy.WAVE", 1)
    rng = np.random.default_rng(10)
    shapes = [(1, 2, 8300), (5, 3, 852), (300, 70)]
    taken = [holds(kernel, given(kernel.entry, some(rng, dtype, *shape), rng)) for shape in shapes]
    assert sum(taken) >= 2 - (kernel.variant == "resident")


#: around 32 lanes, 256 and 1024 values of a warp, 4096 of a block, 64 rows a part, and none at all
ROWS = [
    *[(1, 1), (3, 2), (9, 31), (7, 33), (2, 255), (8, 256), (17, 257), (2, 260), (3, 516), (2, 1023), (9, 1024)],
    *[(2, 1025), (2, 1028), (1, 4092), (2, 4096), (1, 8200), (1, 16392)],
    *[(65, 4), (130, 130), (1100, 3), (1100, 4), (0, 8)],
]


@pytest.mark.parametrize("kernel", of(*LAYER), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm_at_many_sizes(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(1)
    taken = 0
    for seed, shape in enumerate(ROWS):
        emulator.options.seed = seed
        taken += holds(kernel, given(kernel.entry, some(rng, dtype, *shape), rng, seed % 3 > 0, EPS))
    assert taken >= 11


def test_layer_norm_of_rows_without_values():
    x = np.zeros((3, 0), np.float32)
    for entry in LAYER:
        kernel = of(entry)[0]
        arrays = (x, None, None) if entry.endswith("forward") else given(entry, x, np.random.default_rng(0), False)[0]
        assert holds(kernel, (arrays, {"eps": 1e-5} if entry.endswith("forward") else {}))


@pytest.mark.parametrize("kernel", of(*BATCH, *LAYER), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_far_from_zero(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(2)
    shapes = [(40, 6), (6, 3, 68), (3, 2, 5)] if kernel.op == "batch_norm" else [(3, 32), (2, 300), (2, 1032)]
    for shape in shapes:
        for by in (1e5, -1e5):
            holds(kernel, given(kernel.entry, some(rng, dtype, *shape, by=by), rng))


@pytest.mark.parametrize("kernel", of("batch_norm.forward", "layer_norm.forward"), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wild_first_value_costs_no_digits(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(3)
    for shape in [(2000, 1), (3, 1, 1024)] if kernel.op == "batch_norm" else [(1, 1024), (1, 4096)]:
        x = some(rng, dtype, *shape) / 128
        x[(0,) * x.ndim] = 64
        holds(kernel, given(kernel.entry, x.astype(dtype), rng))


@pytest.mark.parametrize("kernel", of(*BATCH, *LAYER), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [[np.nan], [np.inf], [-np.inf], [np.inf, -np.inf]], ids=str)
def test_odd_values_stay_in_their_channel_or_row(kernel: Kernel, dtype: str, value: list[float]):
    rng = np.random.default_rng(4)
    shapes = [(9, 5), (3, 4, 20), (5, 3, 3)] if kernel.op == "batch_norm" else [(4, 40), (3, 1028)]
    for shape in shapes:
        for first in (True, False):  # the first value is what others are taken relative to
            x = some(rng, dtype, *shape)
            line = x[:, 1] if kernel.op == "batch_norm" else x[1]
            place = (0,) * line.ndim if first else tuple(n - 1 for n in line.shape)
            line[place] = value[0]
            if len(value) > 1:
                line[tuple(n // 2 for n in line.shape)] = value[1]
            arrays, params = given(kernel.entry, x, rng)
            holds(kernel, (arrays, params))
            if not kernel.entry.endswith("forward"):  # the same in gy, which comes first
                gy = some(rng, dtype, *shape)
                gy[tuple(n - 1 for n in shape)] = value[0]
                clean = given(kernel.entry, some(rng, dtype, *shape), rng)
                holds(kernel, ((gy, *clean[0][1:]), clean[1]))


@pytest.mark.parametrize("kernel", of("batch_norm.forward", "layer_norm.forward"), ids=str)
def test_equal_values_have_no_variance(kernel: Kernel):
    for shape in [(5, 3), (1, 4), (2, 3, 40), (1, 2, 1)]:
        if kernel.op == "layer_norm" and len(shape) > 2:
            continue
        x = np.full(shape, 1e5 / 3, np.float32)
        arrays, params = given(kernel.entry, x, np.random.default_rng(5))
        if kernel.refusal(arrays, params) is None:
            y, *_ = kernel.function(*arrays, **params)
            b = arrays[2]
            assert b is not None
            wanted = b.reshape(1, -1, *[1] * (x.ndim - 2))
            np.testing.assert_allclose(y, np.broadcast_to(wanted, y.shape), rtol=0, atol=1e-5)
            assert holds(kernel, (arrays, params))


@pytest.mark.parametrize("kernel", of(*BATCH, *LAYER), ids=str)
def test_views(kernel: Kernel):
    rng = np.random.default_rng(6)
    for shape in [(6, 8, 20), (6, 8)] if kernel.op == "batch_norm" else [(6, 8), (8, 40)]:
        turned = np.swapaxes(some(rng, "float32", *shape[::-1]), 0, len(shape) - 1)
        stepped = some(rng, "float32", *shape[:-1], 2 * shape[-1])[..., ::2]
        assert not turned.flags.c_contiguous
        assert not stepped.flags.c_contiguous
        taken = [holds(kernel, given(kernel.entry, x, rng)) for x in (turned, stepped)]
        if kernel.variant != "vectorised":
            assert all(taken)


def shifted(array: np.ndarray) -> np.ndarray:
    """The same values, one element past a multiple of 16 bytes."""
    room = np.empty(array.size + 1, array.dtype)
    room[1:] = array.reshape(-1)
    return room[1:].reshape(array.shape)


@pytest.mark.parametrize("kernel", of(*BATCH, *LAYER), ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_off_their_16_bytes(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(7)
    shape = (3, 4, 20) if kernel.op == "batch_norm" else (5, 40)
    arrays, params = given(kernel.entry, some(rng, dtype, *shape), rng)
    assert holds(kernel, (arrays, params))
    off = tuple(None if each is None else shifted(each) for each in arrays)
    assert holds(kernel, (off, params)) == (kernel.variant != "vectorised")
    # What holds a value a channel, or a value a row, may begin anywhere.
    large = 1 if kernel.op == "batch_norm" else 0
    mixed = tuple(
        shifted(each) if each is not None and each.ndim == 1 and (large or each.size != shape[1]) else each
        for each in arrays
    )
    assert holds(kernel, (mixed, params))


@pytest.mark.parametrize("kernel", of(*BATCH, *LAYER), ids=str)
def test_the_order_of_threads_changes_no_bit(kernel: Kernel):
    rng = np.random.default_rng(8)
    for shape in [(70, 5), (4, 3, 700)] if kernel.op == "batch_norm" else [(150, 40), (2, 1100)]:
        arrays, params = given(kernel.entry, some(rng, "float32", *shape), rng)
        if kernel.refusal(arrays, params) is not None:
            continue
        found = []
        for seed in range(4):
            emulator.options.seed = seed
            found.append(kernel.function(*arrays, **params))
        for other in found[1:]:
            assert_same_bits(other, found[0], str(kernel))


@pytest.mark.parametrize(
    ("entry", "shape", "wanted"),
    [
        ("batch_norm.forward", (64, 3, 8, 8), "resident"),
        ("batch_norm.forward", (64, 3, 32, 32), "vectorised"),
        ("batch_norm.forward", (64, 3, 31, 31), "split"),
        ("batch_norm.forward", (100, 8), "resident"),
        ("batch_norm.forward", (5000, 8), "split"),
        ("batch_norm.grad_wb", (64, 3, 8, 8), "vectorised"),
        ("batch_norm.grad_wb", (64, 3, 2, 2), "split"),
        ("batch_norm.grad_x", (64, 3, 7, 7), "split"),
        ("batch_norm.forward_eval", (2, 3, 4, 4), "vectorised"),
        ("batch_norm.grad_x_eval", (20, 3), "split"),
        ("layer_norm.forward", (4, 64), "vectorised"),
        ("layer_norm.forward", (4, 63), "warp"),
        ("layer_norm.forward", (4, 1025), "plain"),
        ("layer_norm.grad_x", (4, 2048), "vectorised"),
        ("layer_norm.grad_wb", (4, 63), "split"),
    ],
)
def test_the_rung_that_is_taken(entry: str, shape: tuple[int, ...], wanted: str):
    arrays, params = given(entry, np.ones(shape, np.float32), np.random.default_rng(9))
    assert dispatch.find(devices.device("sim"), entry, arrays, params).variant == wanted


def test_what_a_rung_refuses_it_says():
    x, w = np.zeros((4, 2, 9000), np.float32), np.zeros(2, np.float32)
    held = rung("batch_norm.forward", "resident").refusal((x, w, w), {"eps": 0.0})
    assert held == "it takes channels of at most 65280 bytes"
    packs = rung("batch_norm.forward", "vectorised").refusal((x[..., :1], w, w), {"eps": 0.0})
    assert packs == "it needs rows (elements after the channel axis) of whole 16 bytes"
    rows = rung("layer_norm.forward", "warp").refusal((x[0], None, None), {"eps": 0.0})
    assert rows == "it takes rows of 1 to 1024 values"
    mixed = rung("layer_norm.forward", "vectorised").refusal((x[0], np.zeros(9000), None), {"eps": 0.0})
    assert mixed == "it takes arrays of one dtype, float32 or float64, got float32 and float64"
