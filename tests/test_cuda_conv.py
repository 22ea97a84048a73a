"""conv2d in CUDA C++ on device ``sim``: the edges of tiles and patches, classes of pixels, parts of sums, and refusals.

The Winograd rungs have tests of their own, in tests/test_cuda_winograd.py.
"""

from itertools import product
from typing import Any

import numpy as np
import pytest
from gpunet.kernels.common.shapes import conv_out_size
from gpunet.kernels.conv2d import conv2d_cupy, implicit_gemm_cupy

from gpunet import devices, dispatch
from gpunet.cuda import emulator
from gpunet.dispatch import Kernel
from tests.emulated import needs_emulator
from tests.test_cuda_kernels import holds

pytestmark = [needs_emulator, pytest.mark.cupy]

RUNGS = ("direct", "shared", "im2col", "implicit_gemm")
ENTRIES = ("conv2d.forward", "conv2d.forward_relu", "conv2d.grad_x", "conv2d.grad_w")
TILES = implicit_gemm_cupy.TILES

rungs = pytest.mark.parametrize("rung", RUNGS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
tiles = pytest.mark.parametrize("tile", TILES, ids=lambda tile: f"{tile.rows}x{4 * tile.packs}")


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)
    forget()


def forget() -> None:
    """Drops what the launchers remember of their choices."""
    for each in (implicit_gemm_cupy.best, conv2d_cupy.patch_for):
        each.cache_clear()


def only(monkeypatch: pytest.MonkeyPatch, tile: Any) -> None:
    """implicit_gemm has no other tile to choose."""
    monkeypatch.setattr(implicit_gemm_cupy, "TILES", (tile,))
    forget()


def of(entry: str, rung: str) -> Kernel | None:
    return next((each for each in dispatch.variants(entry, "cupy") if each.variant == rung), None)


def need(entry: str, rung: str) -> Kernel:
    found = of(entry, rung)
    assert found is not None
    return found


def geometry(
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, ...] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> dict[str, Any]:
    return {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def normal(seed: int, dtype: str, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def check(
    entry: str, rung: str, seed: int, dtype: str, x: tuple[int, ...], filters: int, window: tuple[int, int], **how: Any
) -> bool:
    """One call of one entry with input sizes ``x`` holds; False where the rung is not for it."""
    kernel = of(entry, rung)
    if kernel is None:
        return False
    emulator.options.seed = seed
    windows = geometry(**how)
    output = conv_out_size(x[2:], window, windows["stride"], windows["padding"], windows["dilation"])
    weights = filters, x[1] // windows["groups"], *window
    shapes = {
        "conv2d.forward": (x, weights, (filters,)),
        "conv2d.forward_relu": (x, weights, (filters,)),
        "conv2d.grad_x": ((x[0], filters, *output), weights),
        "conv2d.grad_w": ((x[0], filters, *output), x),
    }
    more = {"conv2d.grad_x": {"input_size": x[2:]}, "conv2d.grad_w": {"kernel_size": window}}
    arrays, params = normal(seed, dtype, *shapes[entry]), {**windows, **more.get(entry, {})}
    if rung == "shared" and entry == "conv2d.grad_x" and windows["stride"] != (1, 1):
        assert "stride 1" in (kernel.refusal(tuple(arrays), params) or "")
        return False
    holds(kernel, *arrays, **params)
    return True


# (x, filters, window, how)
LAYERS: list[tuple[tuple[int, ...], int, tuple[int, int], dict[str, Any]]] = [
    ((1, 1, 1, 1), 1, (1, 1), {}),
    ((2, 3, 9, 11), 5, (3, 3), {"padding": (1, 1, 1, 1)}),
    ((3, 8, 7, 7), 9, (3, 2), {"padding": (0, 1, 2, 3)}),
    ((2, 9, 12, 10), 8, (3, 3), {"stride": (2, 2), "padding": (1, 1, 1, 1)}),
    ((1, 2, 13, 17), 3, (5, 4), {"stride": (3, 2), "padding": (2, 0, 1, 3)}),
    ((2, 4, 11, 12), 6, (3, 3), {"dilation": (2, 3), "padding": (2, 2, 3, 3)}),
    ((1, 3, 15, 14), 4, (3, 4), {"stride": (2, 3), "dilation": (2, 3), "padding": (1, 2, 3, 0)}),
    ((1, 2, 16, 15), 2, (4, 3), {"stride": (4, 6), "dilation": (6, 4), "padding": (5, 5, 4, 4)}),
    ((2, 6, 8, 9), 4, (2, 2), {"stride": (3, 3)}),
    ((2, 8, 6, 5), 12, (3, 3), {"groups": 4, "padding": (1, 1, 1, 1)}),
    ((2, 5, 9, 8), 10, (3, 3), {"groups": 5, "stride": (2, 1), "padding": (1, 1, 1, 1)}),
    ((1, 17, 5, 40), 19, (1, 7), {"padding": (0, 0, 3, 3)}),
    ((4, 3, 6, 6), 5, (6, 6), {}),
    ((1, 1, 2, 3), 2, (3, 3), {"padding": (4, 3, 3, 4), "stride": (2, 2)}),
]


@rungs
@dtypes
@pytest.mark.parametrize("entry", ENTRIES)
def test_layers(entry: str, rung: str, dtype: str):
    ran = [
        check(entry, rung, seed, dtype, x, filters, window, **how)
        for seed, (x, filters, window, how) in enumerate(LAYERS)
    ]
    assert any(ran) == (of(entry, rung) is not None)


@rungs
def test_every_stride_dilation_and_padding_of_one_axis(rung: str):
    """And its adjoint: grad_x of every size that conv_transpose2d may ask for."""
    seed = 0
    for stride, dilation, pad, size in product((1, 2, 3, 4), (1, 2, 3, 4), (0, 2), (1, 3)):
        seed += 1
        how = {"stride": (stride, 1), "dilation": (dilation, 1), "padding": (pad, 1, 0, 0)}
        rows = 4 * size + 5
        if conv_out_size((rows, 3), (size, 2), (stride, 1), how["padding"], (dilation, 1))[0] < 1:
            continue
        check("conv2d.forward", rung, seed, "float64", (1, 2, rows, 3), 2, (size, 2), **how)
        check("conv2d.grad_x", rung, seed, "float64", (1, 2, rows, 3), 2, (size, 2), **how)
        check("conv2d.grad_w", rung, seed, "float64", (1, 2, rows, 3), 2, (size, 2), **how)


@rungs
def test_grad_x_takes_any_size_of_gy(rung: str):
    """As conv_transpose2d with output_padding: more rows than windows reach, and than forward would make gy of."""
    kernel = need("conv2d.grad_x", rung)
    for seed, (stride, dilation, more) in enumerate([(1, 3, 2), (2, 1, 1), (3, 2, 2), (1, 2, 1)]):
        if rung == "shared" and stride > 1:
            continue
        emulator.options.seed = seed
        gy, w = normal(seed, "float32", (2, 3, 4, 5), (3, 2, 2, 3))
        rows = (4 - 1) * stride + dilation + 1 + more - 1
        cols = (5 - 1) * stride + 2 * dilation + 1 + more - 1
        windows = geometry((stride, stride), (1, 0, 0, 1), (dilation, dilation))
        holds(kernel, gy, w, input_size=(rows, cols), **windows)
        one = normal(seed, "float32", (3, 2, 1, 1))[0]  # a window of one pixel, and a size that no window reaches
        holds(kernel, gy, one, input_size=(4 + more, 5), **geometry(dilation=(3, 3)))


@rungs
@pytest.mark.parametrize("entry", ENTRIES)
def test_views_and_no_images(entry: str, rung: str):
    kernel = of(entry, rung)
    if kernel is None:
        return
    windows = geometry(padding=(1, 1, 1, 1))
    x, w, b, gy = normal(3, "float32", (2, 7, 6, 4), (6, 4, 3, 3), (12,), (2, 6, 6, 7))
    x, w, b = x.transpose(0, 3, 2, 1), w[:, :, ::-1, ::-1], b[::2]  # (2, 4, 6, 7)
    if entry == "conv2d.grad_x":
        holds(kernel, gy[:, ::-1], w, input_size=(6, 7), **windows)
        holds(kernel, gy[:0], w, input_size=(6, 7), **windows)
    elif entry == "conv2d.grad_w":
        holds(kernel, gy[:, ::-1], x, kernel_size=(3, 3), **windows)
        holds(kernel, gy[:0], x[:0], kernel_size=(3, 3), **windows)
    else:
        holds(kernel, x, w, b, **windows)
        holds(kernel, x[:0], w, b, **windows)
        without = kernel.function(x, w, None, **windows)
        np.testing.assert_array_equal(without, kernel.function(x, w, np.zeros(6, "f4"), **windows))


@rungs
@dtypes
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_goes_where_it_belongs(rung: str, dtype: str, value: float):
    windows = geometry((2, 1) if rung != "shared" else (1, 1), (1, 1, 2, 2))
    x, w, b = normal(5, dtype, (2, 9, 7, 6), (5, 9, 3, 3), (5,))
    output = conv_out_size((7, 6), (3, 3), windows["stride"], windows["padding"], (1, 1))
    (gy,) = normal(6, dtype, (2, 5, *output))
    x[1, 8, 6, 5] = x[0, 2, 3, 0] = gy[0, 4, 0, 3] = gy[1, 1, 2, 0] = b[3] = value
    for entry in ENTRIES[:2]:
        holds(need(entry, rung), x, w, b, **windows)
    holds(need("conv2d.grad_x", rung), gy, w, input_size=(7, 6), **windows)
    kernel = of("conv2d.grad_w", rung)
    if kernel is not None:
        holds(kernel, gy, x, kernel_size=(3, 3), **windows)


# -- implicit_gemm -----------------------------------------------------------------------------------------------------


@tiles
@dtypes
def test_edges_of_tiles(tile: Any, dtype: str, monkeypatch: pytest.MonkeyPatch):
    only(monkeypatch, tile)
    columns = tile.packs * 16 // np.dtype(dtype).itemsize
    for seed, (rows, pixels, channels) in enumerate(
        [(1, -1, 7), (0, 0, 8), (-1, 1, 9), (1 - tile.rows, 3, 17), (1, 5, 1)]
    ):
        filters, size = tile.rows + rows, columns + pixels
        x = (1, channels, 1, size)  # one line of pixels
        check("conv2d.forward", "implicit_gemm", seed, dtype, x, filters, (1, 3), padding=(0, 0, 1, 1))
        x = (1, filters, 1, size)
        check("conv2d.grad_x", "implicit_gemm", seed, dtype, x, channels, (1, 3), padding=(0, 0, 1, 1))
        x = (1, size, 2, 5)  # now columns of gw
        check("conv2d.grad_w", "implicit_gemm", seed, dtype, x, filters, (1, 1))


@tiles
@dtypes
def test_a_window_of_one_pixel(tile: Any, dtype: str, monkeypatch: pytest.MonkeyPatch):
    only(monkeypatch, tile)
    cases = [((3, 9, 4, 11), 5, 1), ((2, 16, 5, 8), 70, 1), ((5, 6, 2, 2), 130, 1), ((2, 8, 6, 6), 12, 4)]
    for seed, (x, filters, groups) in enumerate(cases):
        assert implicit_gemm_cupy.is_pointwise(np.zeros(x, dtype), np.zeros((1, 1, 1, 1)), (1, 1), (0, 0, 0, 0))
        for entry in ENTRIES:
            check(entry, "implicit_gemm", seed, dtype, x, filters, (1, 1), groups=groups)
    check("conv2d.forward", "implicit_gemm", 5, dtype, (2, 9, 5, 5), 7, (1, 1))  # planes that are no whole packs
    check("conv2d.forward", "implicit_gemm", 6, dtype, (2, 9, 8, 8), 7, (1, 1), stride=(2, 2))
    check("conv2d.grad_x", "implicit_gemm", 7, dtype, (2, 9, 8, 8), 7, (1, 1), stride=(2, 2))
    flat, w = normal(8, dtype, (1 + 2 * 9 * 16,), (7, 9, 1, 1))
    kernel = need("conv2d.forward", "implicit_gemm")
    holds(kernel, flat[1:].reshape(2, 9, 4, 4), w, np.ones(7, dtype), **geometry())  # off its 16 bytes


def test_images_in_several_launches_change_no_bit(monkeypatch: pytest.MonkeyPatch):
    calls = []
    for entry, window in product(ENTRIES[:3], [(3, 3), (1, 1)]):
        x, w, b = normal(1, "float32", (5, 8, 4, 8), (8, 8, *window), (8,))
        params = geometry(padding=(window[0] // 2,) * 4)
        if entry == "conv2d.grad_x":
            calls.append((need(entry, "implicit_gemm"), (x, w), {**params, "input_size": (4, 8)}))
        else:
            calls.append((need(entry, "implicit_gemm"), (x, w, b), params))
    once = [kernel.function(*arrays, **params) for kernel, arrays, params in calls]
    monkeypatch.setattr(implicit_gemm_cupy, "MOST", 2 * 8 * 32 + 8 * 32)
    forget()
    assert implicit_gemm_cupy.at_once(*[calls[0][1][0]] * 2) == 2
    for (kernel, arrays, params), wanted in zip(calls, once, strict=True):
        np.testing.assert_array_equal(kernel.function(*arrays, **params), wanted)


@tiles
@dtypes
@pytest.mark.parametrize("parts", [1, 2, 5, 13])
def test_parts_of_a_sum(tile: Any, dtype: str, parts: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(implicit_gemm_cupy, "best", lambda *_: (tile, parts))
    layers: list[tuple[tuple[int, ...], int, tuple[int, int], dict[str, Any]]] = [
        ((3, 2, 7, 6), 3, (3, 2), {}),
        ((2, 5, 1, 1), 4, (1, 1), {}),  # most parts are empty
        ((2, 42, 3, 4), 18, (1, 1), {}),
        ((1, 18, 5, 4), 38, (2, 3), {"stride": (2, 2), "dilation": (1, 2), "padding": (1, 0, 2, 2), "groups": 2}),
    ]
    for seed, (x, filters, window, how) in enumerate(layers):
        for entry in ENTRIES:
            check(entry, "implicit_gemm", seed, dtype, x, filters, window, **how)


def test_the_choice_of_tiles_and_parts():
    def chosen(rows: int, columns: int, steps: int, most: int = 1000) -> tuple[str, int]:
        tile, parts = implicit_gemm_cupy.best(rows, columns, steps, 4, 1, 132, most)
        return tile.suffix, parts

    assert chosen(512, 16 * 56 * 56, 9 * 64) == ("", 1)
    assert chosen(64, 16 * 112 * 112, 9 * 8) == ("_64", 1)
    assert chosen(512, 16 * 7 * 7, 9 * 64, most=1) == ("_64x64", 1)
    assert chosen(512, 16 * 7 * 7, 9 * 64)[1] > 1
    assert chosen(4096, 4096, 64) == ("", 1)
    suffix, parts = chosen(64, 64 * 9, 32 * 56 * 56 // 8)
    assert suffix != ""
    assert 132 <= parts * 9 <= 8 * 132
    assert chosen(6, 25, 64 * 24 * 24 // 8)[1] >= 100
    assert chosen(6, 25, 1)[1] == 1


# -- shared ------------------------------------------------------------------------------------------------------------


def test_the_choice_of_patches():
    first = conv2d_cupy.patch_for(1, 6, (24, 24), (5, 5), (1, 1), (1, 1), 4)
    assert first is not None
    assert (first.chunks, first.threads, first.depth) == (1, 128, 1)
    assert first.down * first.across <= 4 * first.threads
    stem = conv2d_cupy.patch_for(3, 64, (112, 112), (7, 7), (2, 2), (1, 1), 4)
    assert stem is not None
    assert stem.chunks * 8 == 64
    assert stem.depth < 3
    for itemsize, channels, filters, size, window, stride in product(
        (4, 8), (1, 40), (1, 9, 70, 1000), ((1, 1), (3, 50), (100, 7)), ((1, 1), (5, 3), (11, 11), (60, 60)), (1, 4)
    ):
        found = conv2d_cupy.patch_for(channels, filters, size, window, (stride, stride), (1, 1), itemsize)
        if found is None:
            assert window == (60, 60)
            continue
        assert found.shared <= conv2d_cupy.STATIC
        assert found.threads % 32 == 0
        assert found.threads * found.chunks <= 256
        assert found.down * found.across <= found.threads * 16 // itemsize
        assert 1 <= found.depth <= channels


@dtypes
def test_patches_of_several_rounds_of_channels_and_filters(dtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conv2d_cupy, "PATCH", 4096)
    forget()
    for seed, (x, filters, window, how) in enumerate(
        [
            ((1, 13, 8, 33), 70, (3, 3), {"padding": (1, 1, 1, 1)}),
            ((2, 7, 21, 35), 9, (2, 5), {"stride": (2, 4), "padding": (0, 1, 2, 2)}),
            ((1, 4, 12, 9), 150, (3, 3), {"groups": 2, "dilation": (1, 2)}),
            ((1, 2, 40, 40), 3, (7, 7), {"stride": (3, 3), "dilation": (2, 1), "padding": (6, 6, 3, 3)}),
        ]
    ):
        for entry in ENTRIES[:3]:
            check(entry, "shared", seed, dtype, x, filters, window, **how)


def test_a_window_too_large_for_a_patch_is_refused():
    kernel = need("conv2d.forward", "shared")
    x, w = np.zeros((1, 1, 120, 120), "f4"), np.zeros((8, 1, 110, 110), "f4")
    assert "48 KB" in (kernel.refusal((x, w, None), geometry()) or "")


# -- im2col and grad_b -------------------------------------------------------------------------------------------------


@dtypes
def test_columns_in_rounds(dtype: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conv2d_cupy, "SCRATCH", 2 * 27 * 30 * 8)
    monkeypatch.setattr(conv2d_cupy, "MOST_Y", 5)
    assert conv2d_cupy.rounds(5, 27, 30, 8) == [(0, 2), (2, 4), (4, 5)]
    assert conv2d_cupy.rounds(2, 10**6, 10**6, 8) == [(0, 1), (1, 2)]
    for seed, entry in enumerate(ENTRIES):
        check(entry, "im2col", seed, dtype, (5, 3, 5, 6), 4, (3, 3), padding=(1, 1, 1, 1))
        check(entry, "im2col", seed, dtype, (5, 4, 5, 6), 4, (3, 3), padding=(1, 1, 1, 1), groups=2)


@dtypes
def test_grad_b(dtype: str, monkeypatch: pytest.MonkeyPatch):
    kernel = need("conv2d.grad_b", "direct")
    shapes = [(0, 3, 2, 2), (1, 1, 1, 1), (2, 3, 5, 7), (3, 2, 16, 17), (9, 1, 1, 1), (300, 2, 1, 3), (5, 2, 33, 32)]
    for least in (conv2d_cupy.LEAST, 1):  # then in several parts
        monkeypatch.setattr(conv2d_cupy, "LEAST", least)
        for seed, shape in enumerate(shapes):
            emulator.options.seed = seed
            holds(kernel, *normal(seed, dtype, shape))
        flat = normal(1, dtype, (1 + 3 * 4 * 16,))[0]
        holds(kernel, flat[1:].reshape(3, 4, 4, 4))  # off its 16 bytes
        holds(kernel, flat[:-1].reshape(3, 4, 4, 4).transpose(0, 2, 1, 3))


# -- which rung runs ---------------------------------------------------------------------------------------------------


def test_which_rung_runs():
    def taken(entry: str, x: tuple[int, ...], filters: int, window: int, **how: Any) -> str:
        windows = geometry(**how)
        size = (window, window)
        output = conv_out_size(x[2:], size, windows["stride"], windows["padding"], windows["dilation"])
        one = np.zeros((), "f4")
        image, weight = np.broadcast_to(one, x), np.broadcast_to(one, (filters, x[1] // windows["groups"], *size))
        gy = np.broadcast_to(one, (x[0], filters, *output))
        arrays, more = {
            "conv2d.forward": ((image, weight, None), {}),
            "conv2d.forward_relu": ((image, weight, None), {}),
            "conv2d.grad_x": ((gy, weight), {"input_size": x[2:]}),
            "conv2d.grad_w": ((gy, image), {"kernel_size": size}),
        }[entry]
        return dispatch.find(devices.device("sim"), entry, arrays, {**windows, **more}).variant

    stem, same = {"stride": (2, 2), "padding": (3, 3, 3, 3)}, {"padding": (1, 1, 1, 1)}
    assert taken("conv2d.forward", (64, 1, 28, 28), 6, 5) == "shared"
    assert taken("conv2d.forward_relu", (16, 3, 224, 224), 64, 7, **stem) == "shared"
    assert taken("conv2d.forward", (32, 64, 56, 56), 256, 1) == "implicit_gemm"
    assert taken("conv2d.forward", (32, 64, 56, 56), 64, 3, **same, stride=(2, 2)) == "implicit_gemm"
    assert taken("conv2d.forward", (32, 64, 56, 56), 64, 3, **same, groups=64) == "direct"
    assert taken("conv2d.grad_x", (32, 64, 56, 56), 64, 3, **same, stride=(2, 2)) == "implicit_gemm"
    assert taken("conv2d.grad_x", (64, 6, 12, 12), 16, 5) == "shared"
    assert taken("conv2d.grad_x", (16, 3, 224, 224), 64, 7, **stem) == "direct"
    assert taken("conv2d.grad_w", (64, 1, 28, 28), 6, 5) == "implicit_gemm"
    assert taken("conv2d.grad_w", (32, 64, 56, 56), 64, 3, **same, groups=64) == "direct"
    assert taken("conv2d.grad_w", (32, 64, 56, 56), 64, 3, **same) == "implicit_gemm"


def test_sizes_beyond_32_bits_are_refused():
    one = np.zeros((), "f4")
    large = np.broadcast_to(one, (1, 2**20, 64, 64))
    filters = np.broadcast_to(one, (1, 2**20, 1, 1))
    for rung in ("shared", "im2col", "implicit_gemm"):
        assert "fewer than" in (need("conv2d.forward", rung).refusal((large, filters, None), geometry()) or "")
    assert need("conv2d.forward", "direct").refusal((large, filters, None), geometry()) is None
    kernel = need("conv2d.grad_w", "implicit_gemm")
    many = np.broadcast_to(one, (2**20, 4, 32, 32))
    assert "fewer than" in (kernel.refusal((many, many), {**geometry(), "kernel_size": (1, 1)}) or "")
