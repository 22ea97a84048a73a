"""softmax, log_softmax and cross_entropy in CUDA C++ on device ``sim``, at the edges of their registers and blocks."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from gpunet import devices, dispatch
from gpunet.cuda import emulator
from gpunet.cuda.source import Source, find
from gpunet.dispatch import Kernel
from gpunet.measure import tolerances
from tests.emulated import needs_emulator
from tests.test_cuda_kernels import holds

pytestmark = [needs_emulator, pytest.mark.cupy]

SIM = devices.device("sim")
OPS = ("softmax", "log_softmax")
DTYPES = ("float32", "float64")
FORWARD = [each for op in OPS for each in dispatch.variants(f"{op}.forward", "cupy")]
GRAD = [each for op in OPS for each in dispatch.variants(f"{op}.grad_x", "cupy")]
LOSS = dispatch.variants("cross_entropy.forward", "cupy")
LOSS_GRAD = dispatch.variants("cross_entropy.grad_x", "cupy")


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


def named(op: str, entry: str, variant: str) -> Kernel:
    return next(each for each in dispatch.variants(f"{op}.{entry}", "cupy") if each.variant == variant)


def definition(kernel: Kernel, *arrays: Any, **params: Any) -> Any:
    """The definition, in float64."""
    wide = (each.astype(np.float64) if each is not None and each.dtype.kind == "f" else each for each in arrays)
    with np.errstate(all="ignore"):
        return dispatch.variants(kernel.entry, "numpy")[0].function(*wide, **params)


def taken(kernel: Kernel, arrays: tuple[Any, ...], **params: Any) -> bool:
    return kernel.refusal(arrays, params) is None


# -- softmax and log_softmax -------------------------------------------------------------------------------------------

#: (shape, axis): sizes around lanes, loads of 16 bytes, what a thread keeps, blocks, and the steps behind that
ROWS = [
    *[((5, D), 1) for D in (1, 2, 3, 4, 5, 8, 12, 31, 32, 33, 36, 63, 64, 68, 100)],
    *[((3, D), -1) for D in (127, 128, 132, 255, 256, 260, 511, 512, 513, 516, 1000, 1023, 1024)],
    *[((2, D), 1) for D in (1025, 1028, 2047, 2048, 4097, 4100)],
    *[((1, D), 1) for D in (8193, 16384, 16385, 16388, 32768, 32772, 34001)],
    *[((200, 3), 1), ((129, 4), 1), ((65, 16), 1)],
    *[((7, 5), 0), ((300, 3), 0), ((2, 16, 33), 1), ((2, 17, 130), 1), ((3, 64, 2), 1), ((1, 129, 2), 1)],
    *[((1, 130, 40), 1), ((2, 257, 3), 1), ((1, 600, 33), 1), ((2, 3, 4, 5), 2), ((2, 5, 1), 1)],
    *[((0, 4), 1), ((4, 0), 1), ((2, 0, 3), 1), ((0, 4, 3), 1)],
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", FORWARD, ids=str)
def test_forward_of_rows(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(0)
    for seed, (shape, axis) in enumerate(ROWS):
        emulator.options.seed = seed
        x = (3 * rng.standard_normal(shape)).astype(dtype)
        if taken(kernel, (x,), axis=axis % x.ndim):
            holds(kernel, x, axis=axis % x.ndim)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", GRAD, ids=str)
def test_gradient_of_rows(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(1)
    forward = dispatch.variants(kernel.entry.replace("grad_x", "forward"), "numpy")[0].function
    for seed, (shape, axis) in enumerate(ROWS):
        emulator.options.seed = seed
        gy = rng.standard_normal(shape).astype(dtype)
        y = forward(2 * rng.standard_normal(shape), axis=axis).astype(dtype)
        if taken(kernel, (gy, y), axis=axis % y.ndim):
            holds(kernel, gy, y, axis=axis % y.ndim)


@pytest.mark.parametrize("kernel", FORWARD + GRAD, ids=str)
def test_rows_in_views(kernel: Kernel):
    rng = np.random.default_rng(2)
    count = 1 if kernel in FORWARD else 2
    for shape, axis in [((3, 64), 1), ((2, 1040), 1), ((2, 12, 5), 1), ((1, 16400), 1)]:
        size = int(np.prod(shape))
        flat = [rng.standard_normal(size + 4).astype(np.float32) for _ in range(count)]
        turned = [rng.standard_normal(shape[::-1]).astype(np.float32).T for _ in range(count)]
        for arrays in ([each[k : k + size].reshape(shape) for each in flat] for k in (1, 4)):
            if taken(kernel, tuple(arrays), axis=axis):
                holds(kernel, *arrays, axis=axis)
        if taken(kernel, tuple(turned), axis=axis):
            holds(kernel, *turned, axis=axis)
        if count == 2 and taken(kernel, (flat[0][:size].reshape(shape), turned[1]), axis=axis):
            holds(kernel, flat[0][:size].reshape(shape), turned[1], axis=axis)
            holds(kernel, flat[0][1 : size + 1].reshape(shape), flat[1][:size].reshape(shape), axis=axis)


def special_rows(dtype: str, D: int) -> np.ndarray:
    """Rows with -inf, inf, NaN, nothing but -inf, and the largest and smallest numbers, at both ends and inside."""
    most = np.finfo(dtype).max
    x = np.random.default_rng(3).standard_normal((16, D)).astype(dtype)
    x[0] = -np.inf
    x[1, 0] = x[2, D // 2] = x[3, -1] = np.nan
    x[4, 0] = x[5, D // 2] = x[6, -1] = np.inf
    x[7, 0] = x[8, D // 2] = x[9, -1] = -np.inf
    x[10, :-1] = x[11, 1:] = -np.inf
    x[12, D // 3] = most / 4
    x[13] = -most / 4
    x[14] = -np.inf
    x[14, D // 2] = np.nan
    x[15, D // 2 :] = -np.inf
    return x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", FORWARD, ids=str)
def test_special_numbers_in_rows(kernel: Kernel, dtype: str):
    for D in (5, 64, 1028, 16388):
        x = special_rows(dtype, D)[:, :, None]
        if D > 5000:
            x = x[::5]  # 0, 5, 10, 15
        x = x[:, :, 0] if "coalesced" not in kernel.variant else np.repeat(x, 3, axis=2)
        if taken(kernel, (x,), axis=1):
            x[12 % len(x)] = np.minimum(x[12 % len(x)], 1e30)  # x - m of log_softmax stays finite in float64 too
            holds(kernel, x, axis=1)


@pytest.mark.parametrize("kernel", GRAD, ids=str)
def test_special_numbers_in_gradients(kernel: Kernel):
    for D in (5, 1028):
        gy, y = (np.random.default_rng(k).random((6, D)).astype(np.float32) for k in range(2))
        gy[0, 1], gy[1, -1], gy[2, 0] = np.nan, np.inf, -np.inf
        y[3, 2] = np.nan
        y[4, 1] = -np.inf if kernel.op == "log_softmax" else 0
        if taken(kernel, (gy, y), axis=1):
            holds(kernel, gy, y, axis=1)


@pytest.mark.parametrize("kernel", FORWARD + GRAD, ids=str)
def test_the_order_of_threads_does_not_matter(kernel: Kernel):
    rng = np.random.default_rng(4)
    arrays = tuple(rng.standard_normal((2, 770)).astype(np.float32) for _ in range(1 if kernel in FORWARD else 2))
    if not taken(kernel, arrays, axis=1):
        arrays = tuple(each[:, :100] for each in arrays)
    results = []
    for seed in range(4):
        emulator.options.seed = seed
        results.append(kernel.function(*arrays, axis=1))
    assert all((each == results[0]).all() for each in results)


@pytest.mark.parametrize("op", OPS)
def test_the_rung_that_is_taken(op: str):
    def chosen(shape: tuple[int, ...], axis: int, entry: str = "forward", dtype: str = "float32") -> str:
        x = np.zeros(shape, dtype)
        arrays = (x,) if entry == "forward" else (x, x)
        return dispatch.find(SIM, f"{op}.{entry}", arrays, {"axis": axis}).variant

    assert chosen((4, 3), 0) == chosen((2, 5, 3), 1) == "coalesced"
    assert chosen((4, 3), 1) == chosen((3, 1024), 1) == chosen((3, 4, 1), 1) == "warp"
    assert chosen((3, 1025), 1) == chosen((3, 600), 1, "grad_x") == chosen((3, 600), 1, dtype="float64") == "block"
    assert chosen((2, 20000), 1) == "block"
    assert chosen((1, 20000), 1) == chosen((1, 20000), 1, "grad_x") == "split"
    warp = named(op, "forward", "warp")
    assert warp.refusal((np.zeros((2, 3, 4), "f4"),), {"axis": 1}) == "it takes rows along the last axis"
    assert "at most 512" in str(named(op, "grad_x", "warp").refusal((np.zeros((2, 513), "f4"),) * 2, {"axis": 1}))


@pytest.mark.parametrize("name", [*OPS, "cross_entropy"])
def test_arrays_may_have_more_elements_than_32_bits_count(name: str):
    signatures = Source(find(name), {"real": "float", "SMOOTH": 0}).signatures
    for kernel, each in signatures.items():
        if not kernel.endswith("_total"):  # which gets one number a class
            assert any(p.dtype == np.int64 and not p.pointer for p in each.parameters), kernel


# -- cross_entropy -----------------------------------------------------------------------------------------------------

OPTIONS = list(product([False, True], [0.0, 0.2, 1.0]))  # weights, label_smoothing


def agrees(kernel: Kernel, got: Any, wanted: Any, terms: int, dtype: Any) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert one.dtype == dtype
        assert one.shape == other.shape
        error = tolerances.compare(one, other, terms)
        assert error.ok, f"{kernel}: {error}"


def scores(shape: tuple[int, int, int], dtype: Any, rng: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, targets of which some are -100, and weights."""
    N, C, S = shape
    x = (3 * rng.standard_normal(shape)).astype(dtype)
    target = rng.integers(0, C, (N, S))
    target[rng.random((N, S)) < 0.2] = -100
    return x, target, (rng.random(C) + 0.1).astype(dtype)


def try_loss(kernel: Kernel, x: np.ndarray, target: np.ndarray, w: Any, ignore: int, e: float) -> None:
    options = {"ignore_index": ignore, "label_smoothing": e}
    if not taken(kernel, (x, target, w), **options):
        return
    before = [None if each is None else each.copy() for each in (x, target, w)]
    got = kernel.function(x, target, w, **options)
    agrees(kernel, got, definition(kernel, x, target, w, **options), 4 * x.shape[1], x.dtype)
    assert (got[0][target == ignore] == 0).all()
    for one, other in zip((x, target, w), before, strict=True):
        np.testing.assert_array_equal(one, other)


def try_loss_grad(kernel: Kernel, x: np.ndarray, target: np.ndarray, w: Any, ignore: int, e: float) -> None:
    options = {"ignore_index": ignore, "label_smoothing": e}
    gloss = np.random.default_rng(9).standard_normal(target.shape).astype(x.dtype)
    lse = definition(LOSS[0], x, target, w, **options)[1].astype(x.dtype)
    arrays = (gloss, x, lse, target, w)
    if not taken(kernel, arrays, **options):
        return
    got = kernel.function(*arrays, **options)
    agrees(kernel, (got,), (definition(kernel, *arrays, **options),), 4, x.dtype)
    assert (np.moveaxis(got, 1, 2)[target == ignore] == 0).all()


SIZES = [
    *[(5, C, 1) for C in (1, 2, 3, 4, 5, 10, 31, 32, 33, 64, 100)],
    *[(3, C, 1) for C in (127, 128, 511, 512, 513, 1000, 1023, 1024)],
    *[(2, C, 1) for C in (1025, 1028, 4095, 4096, 4100)],
    (1, 20000, 1),
    *[(200, 3, 1), (129, 4, 1), (2, 3, 33), (3, 21, 40), (2, 65, 5), (1, 300, 3), (2, 5, 130), (0, 4, 1), (2, 3, 0)],
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", LOSS, ids=str)
def test_loss(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(5)
    for seed, shape in enumerate(SIZES):
        emulator.options.seed = seed
        x, target, w = scores(shape, dtype, rng)
        for weighted, e in OPTIONS if shape[1] < 1100 else OPTIONS[seed % 2 :: 3]:
            try_loss(kernel, x, target, w if weighted else None, -100, e)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", LOSS_GRAD, ids=str)
def test_gradient_of_the_loss(kernel: Kernel, dtype: str):
    rng = np.random.default_rng(6)
    for seed, shape in enumerate(SIZES):
        emulator.options.seed = seed
        x, target, w = scores(shape, dtype, rng)
        for weighted, e in OPTIONS if shape[1] < 1100 else OPTIONS[seed % 2 :: 3]:
            if shape[1] > 1 or e == 0:  # of one class it is 0 but for the rounding of weights, which has no tolerance
                try_loss_grad(kernel, x, target, w if weighted else None, -100, e)


@pytest.mark.parametrize("kernel", LOSS + LOSS_GRAD, ids=str)
def test_loss_of_views_and_of_an_ignored_class(kernel: Kernel):
    attempt = try_loss if kernel in LOSS else try_loss_grad
    rng = np.random.default_rng(7)
    for N, C, S in [(3, 64, 1), (2, 1040, 1), (2, 6, 5)]:
        _, target, w = scores((N, C, S), np.float32, rng)
        target[target < 0] = 1
        flat = rng.standard_normal(N * C * S + 4).astype(np.float32)
        spread = rng.standard_normal((C, N, S)).astype(np.float32).transpose(1, 0, 2)
        for x in (flat[1:-3].reshape(N, C, S), flat[4:].reshape(N, C, S), spread):
            attempt(kernel, x, target, np.stack([w, w], 1)[:, 0], 1, 0.1)
            attempt(kernel, x, np.stack([target, target], 2)[:, :, 0], None, 1, 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kernel", LOSS + LOSS_GRAD, ids=str)
def test_special_numbers_in_logits(kernel: Kernel, dtype: str):
    attempt = try_loss if kernel in LOSS else try_loss_grad
    for C in (5, 68, 1100):
        x = special_rows(dtype, C)
        x[12:14] = np.clip(x[12:14], -1e30, 1e30)
        x = np.ascontiguousarray(np.repeat(x[:, :, None], 1 if kernel.variant in ("warp", "block", "split") else 2, 2))
        target = np.full((16, x.shape[2]), C // 2)
        for t, e in product((C // 2, -100), (0.0, 0.1)):
            target[::3] = t
            attempt(kernel, x, target, None, -100, e)
        target[:] = -100  # whatever x holds: nothing
        attempt(kernel, x, target, np.ones(C, dtype), -100, 0.5)


@pytest.mark.parametrize("kernel", LOSS, ids=str)
def test_a_common_offset_of_the_logits_costs_no_digits(kernel: Kernel):
    rng = np.random.default_rng(8)
    for shape in [(4, 40, 1), (2, 1028, 1), (1, 20000, 1), (2, 40, 3)]:
        x, target, w = scores(shape, np.float32, rng)
        x = np.round(x * 64) / 64  # so that the sum with the offset is exact
        for e in (0.0, 0.3):
            options = {"ignore_index": -100, "label_smoothing": e}
            if taken(kernel, (x, target, w), **options):
                near = kernel.function(x, target, w, **options)[0]
                far = kernel.function(x + np.float32(65536), target, w, **options)[0]
                np.testing.assert_allclose(far, near, rtol=2e-6)


@pytest.mark.parametrize("kernel", LOSS + LOSS_GRAD, ids=str)
def test_weights_of_zero(kernel: Kernel):
    attempt = try_loss if kernel in LOSS else try_loss_grad
    x, target, w = scores((4, 70, 1), np.float32, np.random.default_rng(9))
    w[:40] = 0
    attempt(kernel, x, target, w, -100, 0.1)
    attempt(kernel, np.sort(x, 1), target, w, -100, 0.1)  # the maximum grows before any weight counts
    attempt(kernel, x, target, 0 * w, -100, 0.1)


@pytest.mark.parametrize("kernel", LOSS, ids=str)
def test_logits_so_large_that_their_difference_from_the_lowest_number_overflows(kernel: Kernel):
    rng = np.random.default_rng(10)
    for C, dtype, size in [(9, "float32", 1e36), (9, "float64", 1e300), (1028, "float64", 1e300)]:
        x, target, w = scores((3, C, 1), dtype, rng)
        try_loss(kernel, (x * size).astype(dtype), target, w, -100, 0.1)


def test_the_rung_that_is_taken_for_a_loss():
    def chosen(shape: tuple[int, int, int], entry: str = "forward") -> str:
        x, target = np.zeros(shape, np.float32), np.zeros((shape[0], shape[2]), np.int64)
        loss = np.zeros(target.shape, np.float32)
        arrays = (x, target, None) if entry == "forward" else (loss, x, loss, target, None)
        options = {"ignore_index": -100, "label_smoothing": 0.0}
        return dispatch.find(SIM, f"cross_entropy.{entry}", arrays, options).variant

    for entry in ("forward", "grad_x"):
        assert chosen((2, 3, 4), entry) == "coalesced"
        assert chosen((2, 10, 1), entry) == chosen((2, 1024, 1), entry) == "warp"
        assert chosen((2, 1025, 1), entry) == chosen((3, 20000, 1), entry) == "block"
    assert chosen((1, 20000, 1)) == "split"
    assert chosen((1, 20000, 1), "grad_x") == "block"
