"""The Winograd rungs of conv2d on device ``sim``: edge tiles, every padding, rounds of tiles, and what they refuse."""

from itertools import product

import numpy as np
import pytest
from gpunet.kernels.common.shapes import conv_out_size
from gpunet.kernels.conv2d import winograd_cupy

from gpunet import dispatch
from gpunet.cuda import emulator
from gpunet.dispatch import Kernel
from gpunet.measure import tolerances
from tests.emulated import needs_emulator
from tests.test_cuda_kernels import holds

pytestmark = [needs_emulator, pytest.mark.cupy]

RUNGS = ("winograd_2x2", "winograd_4x4")
PADDINGS = [(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3), (0, 1, 2, 3), (3, 0, 1, 2), (2, 3, 0, 0)]
SIZES = [(1, 1), (1, 9), (2, 3), (3, 2), (4, 4), (5, 6), (6, 5), (7, 1), (8, 7), (9, 8)]

rungs = pytest.mark.parametrize("rung", RUNGS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


def of(entry: str, rung: str) -> Kernel:
    return next(each for each in dispatch.variants(entry, "cupy") if each.variant == rung)


def geometry(padding: tuple[int, ...] = (1, 1, 1, 1)) -> dict:
    return {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}


def normal(seed: int, dtype: str, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def calls() -> list[tuple[int, tuple[int, int], tuple[int, ...]]]:
    """Every size under every padding, where a window fits, with a number to draw from."""
    every = [
        (size, padding)
        for size, padding in product(SIZES, PADDINGS)
        if min(conv_out_size(size, (3, 3), (1, 1), padding, (1, 1))) > 0
    ]
    return [(seed, size, padding) for seed, (size, padding) in enumerate(every)]


@rungs
@dtypes
@pytest.mark.parametrize("entry", ["conv2d.forward", "conv2d.forward_relu"])
def test_forward(entry: str, rung: str, dtype: str):
    kernel = of(entry, rung)
    for seed, size, padding in calls()[:: 1 if entry == "conv2d.forward" else 4]:
        emulator.options.seed = seed
        x, w, b = normal(seed, dtype, (2, 3, *size), (5, 3, 3, 3), (5,))
        holds(kernel, x, w, b, **geometry(padding))


@rungs
@dtypes
def test_grad_x(rung: str, dtype: str):
    kernel = of("conv2d.grad_x", rung)
    for seed, size, padding in calls():
        emulator.options.seed = seed
        output = conv_out_size(size, (3, 3), (1, 1), padding, (1, 1))
        gy, w = normal(seed, dtype, (2, 3, *output), (3, 5, 3, 3))
        holds(kernel, gy, w, input_size=size, **geometry(padding))


@rungs
def test_grad_x_is_the_adjoint_of_forward(rung: str):
    for seed, size, padding in calls()[::3]:
        x, w = normal(seed, "float64", (2, 3, *size), (4, 3, 3, 3))
        y = of("conv2d.forward", rung).function(x, w, None, **geometry(padding))
        (gy,) = normal(seed + 1, "float64", y.shape)
        gx = of("conv2d.grad_x", rung).function(gy, w, input_size=size, **geometry(padding))
        assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-11, abs=1e-11)


@rungs
@dtypes
def test_more_tiles_than_a_block_and_views(rung: str, dtype: str):
    x, w, b = normal(1, dtype, (3, 31, 30, 2), (4, 2, 3, 3), (8,))
    holds(of("conv2d.forward", rung), x.transpose(0, 3, 2, 1), w[:, :, ::-1, ::-1], b[::2], **geometry())
    gy, w = normal(2, dtype, (3, 2, 30, 31), (2, 3, 3, 4))
    holds(of("conv2d.grad_x", rung), gy[:, ::-1], w.swapaxes(1, 3)[:, :3], input_size=(30, 31), **geometry())


@rungs
def test_sizes_that_are_no_multiple_of_anything(rung: str):
    for seed, (N, C, F) in enumerate([(1, 1, 1), (3, 17, 1), (1, 1, 33), (2, 19, 37)]):
        emulator.options.seed = seed
        x, w, b = normal(seed, "float32", (N, C, 7, 6), (F, C, 3, 3), (F,))
        holds(of("conv2d.forward", rung), x, w, b, **geometry())
        (gy,) = normal(seed + 9, "float32", (N, F, 7, 6))
        holds(of("conv2d.grad_x", rung), gy, w, input_size=(7, 6), **geometry())


@rungs
def test_rounds_of_tiles_and_of_the_grid_change_no_bit(rung: str, monkeypatch: pytest.MonkeyPatch):
    kernel, (x, w, b) = of("conv2d.forward", rung), normal(3, "float32", (3, 5, 19, 21), (7, 5, 3, 3), (7,))
    once = kernel.function(x, w, b, **geometry())
    for name, value in {"LINE": 8, "FEWEST": 8, "CACHED": 1, "MOST_Y": 2}.items():
        monkeypatch.setattr(winograd_cupy, name, value)
    np.testing.assert_array_equal(kernel.function(x, w, b, **geometry()), once)
    holds(kernel, x, w, b, **geometry())


def test_tiles_of_a_round():
    def at_once(count: int, channels: int) -> int:
        return winograd_cupy._tiles_at_once(count, 36 * channels, 36 * 2 * channels * 4)

    assert at_once(1, 64) == 128
    assert at_once(3500, 64) == 3584  # 64 MB
    assert at_once(7000, 64) == 3584  # two rounds of about 64 MB, and not one of that and a small one
    assert at_once(10**6, 512) == 1024  # too many channels for the cache
    assert at_once(10**6, 4096) == 128  # and for the scratch memory
    assert at_once(10**6, 450_000) == 128


@rungs
def test_the_bias_may_be_absent_and_the_batch_empty(rung: str):
    x, w = normal(4, "float32", (2, 3, 6, 5), (4, 3, 3, 3))
    for entry in ("conv2d.forward", "conv2d.forward_relu"):
        without = of(entry, rung).function(x, w, None, **geometry())
        np.testing.assert_array_equal(without, of(entry, rung).function(x, w, np.zeros(4, "f4"), **geometry()))
        empty = of(entry, rung).function(x[:0], w, None, **geometry())
        assert empty.shape == (0, 4, 6, 5)
    gx = of("conv2d.grad_x", rung).function(np.zeros((0, 4, 6, 5), "f4"), w, input_size=(6, 5), **geometry())
    assert gx.shape == (0, 3, 6, 5)


@rungs
@dtypes
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_goes_where_it_belongs(rung: str, dtype: str, special: float):
    for size in ((13, 14), (12, 16)):  # with stores of single elements and of many
        x, w, b, gy = normal(5, dtype, (2, 3, *size), (4, 3, 3, 3), (4,), (2, 4, *size))
        x[1, 2, 6, 9] = x[0, 1, 0, 0] = gy[0, 1, 11, 3] = special
        holds(of("conv2d.forward", rung), x, w, b, **geometry())
        holds(of("conv2d.forward_relu", rung), x, w, b, **geometry())
        holds(of("conv2d.grad_x", rung), gy, w, input_size=size, **geometry())
    w[2, 1, 1, 1] = special
    holds(of("conv2d.forward", rung), x, w, b, **geometry((0, 0, 0, 0)))


@rungs
def test_an_overflow_on_the_way_is_none_in_the_result(rung: str):
    x, w = normal(7, "float32", (1, 2, 9, 8), (3, 2, 3, 3))
    x *= np.float32(2e36) / np.abs(x).max()
    w *= np.float32(20) / np.abs(w).max()
    holds(of("conv2d.forward", rung), x, w, np.zeros(3, "f4"), **geometry())


@rungs
def test_error_in_float32(rung: str):
    """At most half of the tolerance, at any number of channels."""
    for seed, C in enumerate([1, 3, 16, 64, 256]):
        x, w = normal(seed, "float32", (1, C, 8, 9), (3, C, 3, 3))
        got = of("conv2d.forward", rung).function(x, w, None, **geometry())
        definition = dispatch.variants("conv2d.forward", "numpy")[0].function
        error = tolerances.compare(got, definition(x.astype(float), w.astype(float), None, **geometry()), 18 * C)
        assert error.reached < 0.5 * error.allowed, C


@rungs
def test_what_is_refused(rung: str):
    forward, grad_x = of("conv2d.forward", rung), of("conv2d.grad_x", rung)
    x, w = normal(6, "float32", (1, 4, 8, 8), (4, 4, 3, 3))
    assert forward.refusal((x, w, None), geometry()) is None
    for name, value in (("stride", (1, 2)), ("dilation", (2, 1)), ("groups", 2)):
        told = "it takes stride 1, dilation 1 and one group, got"
        assert (forward.refusal((x, w, None), {**geometry(), name: value}) or "").startswith(told)
        assert (grad_x.refusal((x, w), {**geometry(), "input_size": (8, 8), name: value}) or "").startswith(told)
    assert forward.refusal((x, w[:, :, :2], None), geometry()) == "it takes windows of 3x3, got 2x3"
    assert "float16" in (forward.refusal((x.astype("f2"), w, None), geometry()) or "")
    assert "got float32 and float64" in (forward.refusal((x, w.astype("f8"), None), geometry()) or "")
    many = np.broadcast_to(np.float32(0), (1, 2**20, 4, 4))
    filters = np.broadcast_to(np.float32(0), (1, 2**20, 3, 3))
    assert "2**31" in (forward.refusal((many, filters, None), geometry()) or "")


def test_when_the_detour_pays():
    def pays(rung: str, N: int, C: int, F: int, size: int, dtype: str = "float32") -> bool:
        shapes = (N, C, size, size), (F, C, 3, 3), (N, F, size, size)
        x, w, gy = (np.broadcast_to(np.zeros((), dtype), shape) for shape in shapes)
        forward = of("conv2d.forward", rung).waste((x, w, None), geometry()) is None
        back = of("conv2d.grad_x", rung).waste((gy, w), {**geometry(), "input_size": (size, size)}) is None
        assert forward == back
        return forward

    assert pays("winograd_4x4", 32, 64, 64, 56)
    assert pays("winograd_4x4", 16, 256, 512, 28)
    assert pays("winograd_4x4", 16, 256, 512, 28, "float64")
    assert not pays("winograd_4x4", 16, 3, 64, 224)  # the traffic of V and Z costs more than 3 channels' products
    assert not pays("winograd_4x4", 1, 64, 64, 7)  # too little work for four launches
    assert not pays("winograd_2x2", 32, 64, 64, 56)
    assert pays("winograd_2x2", 32, 128, 128, 28)
    assert pays("winograd_2x2", 2048, 256, 256, 2)
    assert not pays("winograd_4x4", 2048, 256, 256, 2)  # a quarter of each tile is used: nothing is saved
