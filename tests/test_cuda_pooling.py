"""The CUDA C++ kernels of pooling on device ``sim``: sizes around their tiles, special values, refusals."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from gpunet import devices, dispatch
from gpunet.cuda import emulator
from gpunet.dispatch import Kernel
from gpunet.measure import tolerances
from tests.emulated import needs_emulator

pytestmark = [needs_emulator, pytest.mark.cupy]

OPS = ("max_pool2d", "avg_pool2d", "adaptive_max_pool2d", "adaptive_avg_pool2d")
DTYPES = ["float32", "float64"]


@pytest.fixture(autouse=True)
def _options():
    before = dict(emulator.options.__dict__)
    yield
    emulator.options.__dict__.update(before)


def of(*entries: str) -> list[Kernel]:
    return [each for entry in entries for each in dispatch.variants(entry, "cupy")]


def rung(entry: str, variant: str) -> Kernel:
    return next(each for each in of(entry) if each.variant == variant)


def definition(entry: str, *arrays: np.ndarray, **params: Any) -> Any:
    with np.errstate(all="ignore"):
        return dispatch.variants(entry, "numpy")[0].function(*arrays, **params)


def holds(kernel: Kernel, *arrays: np.ndarray, **params: Any) -> bool:
    """The kernel's results are the definition's, and its inputs are as they were; False where it refuses the call."""
    if kernel.refusal(arrays, params) is not None:
        return False
    before = [each.copy() for each in arrays]
    precise = [each.astype(np.float64) if each.dtype.kind == "f" else each for each in arrays]
    wanted = definition(kernel.entry, *precise, **params)
    got = kernel.function(*arrays, **params)
    for one, other in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(one, other)
    work = dispatch.title(kernel.op).work(kernel.entry, *arrays, **params)
    as_tuples = [each if isinstance(each, tuple) else (each,) for each in (got, wanted)]
    for one, other in zip(*as_tuples, strict=True):
        assert one.dtype == (arrays[0].dtype if other.dtype.kind == "f" else other.dtype)
        error = tolerances.compare(one, other, max(1.0, work.flops / max(one.size, 1)))
        assert error.ok, f"{kernel} of {arrays[0].shape} with {params}: {error}"
    return True


def numbers(shape: tuple[int, ...], dtype: str, kind: str = "ordinary", seed: int = 0) -> np.ndarray:
    """Random numbers, or few different ones so that they tie, or NaN, infinities and both zeros among them."""
    rng = np.random.default_rng(seed)
    if kind == "ordinary":
        return rng.standard_normal(shape).astype(dtype)
    values = [-1, 0, 1] if kind == "ties" else [np.nan, np.inf, -np.inf, -np.inf, -np.inf, 0.0, -0.0, 1.0]
    return rng.choice(np.array(values, dtype), shape)


def out_size(size: int, k: int, s: int, p: int, d: int, ceil: bool) -> int:
    """Windows along one axis, as the op counts them."""
    room = size + 2 * p - d * (k - 1) - 1
    out = (-(-room // s) if ceil else room // s) + 1
    return out - (ceil and (out - 1) * s >= size + p)


def windows(shape: tuple[int, ...], k: int, s: int, p: int, d: int = 1, ceil: bool = False) -> dict[str, Any]:
    """The keywords of a max_pool2d.forward."""
    output_size = tuple(out_size(size, k, s, p, d, ceil) for size in shape[2:])
    assert min(output_size) > 0
    return {"kernel_size": (k, k), "stride": (s, s), "padding": (p, p), "dilation": (d, d), "output_size": output_size}


# kernel, stride, padding: the kinds that some rung has a text of its own for, and others
KINDS = [(2, 2, 0), (3, 2, 1), (3, 2, 0), (3, 1, 1), (3, 1, 0), (4, 1, 2), (5, 1, 2), (2, 1, 1), (3, 3, 1), (2, 3, 0)]
# one pixel and more than it, around 4 rows and 8 columns, more columns than a block has threads, more planes than one
SIZES = [(2, 3, 8, 8), (1, 2, 5, 7), (1, 1, 9, 12), (3, 1, 7, 4), (1, 1, 5, 261), (1, 70, 5, 5), (0, 2, 6, 8)]
LARGE = [(1, 1, 5, 1032), (1, 2, 67, 20)]


def calls(seed: int = 0) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
    """Shapes and keywords, ceil mode among them, and dilation."""
    for number, (shape, (k, s, p)) in enumerate(product(SIZES, KINDS)):
        yield shape, windows(shape, k, s, p, ceil=number % 3 == seed)
    for shape in LARGE:
        yield from ((shape, windows(shape, *kind)) for kind in KINDS[:4])
    yield from (((1, 2, 11, 12), windows((1, 2, 11, 12), *kind)) for kind in [(2, 2, 1, 3), (3, 1, 1, 2), (3, 2, 1, 4)])


def without(params: dict[str, Any], *names: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in names} | more


@pytest.mark.parametrize("variant", ["plain", "rows", "wide"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["ordinary", "ties", "special"])
def test_max_pool2d(variant: str, dtype: str, kind: str):
    taken = 0
    for number, (shape, params) in enumerate(calls(("ordinary", "ties", "special").index(kind))):
        emulator.options.seed = number % 4
        x = numbers(shape, dtype, kind, number)
        taken += holds(rung("max_pool2d.forward", variant), x, **params)
        _, index = definition("max_pool2d.forward", x, **params)
        backward = without(params, "output_size")
        if variant != "wide":
            assert holds(rung("max_pool2d.gather", variant), x, index, **backward)
        backward["input_size"] = shape[2:]
        kernel = rung("max_pool2d.grad_x", variant)
        gy = numbers(index.shape, dtype, "special" if kind == "special" else "ordinary", number)
        if holds(kernel, gy, index, **backward):  # to the bit: the sums have one order
            got, wanted = kernel.function(gy, index, **backward), definition(kernel.entry, gy, index, **backward)
            np.testing.assert_array_equal(got, wanted)
            np.testing.assert_array_equal(np.signbit(got), np.signbit(np.where(np.isnan(got), got, wanted)))
    assert taken >= (15 if variant == "wide" else 70)


@pytest.mark.parametrize("variant", ["plain", "rows", "wide"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("divisor", [(True, None), (False, None), (True, -3)], ids=["all", "image", "given"])
def test_avg_pool2d(variant: str, dtype: str, divisor: tuple[bool, int | None]):
    taken = 0
    for number, (shape, params) in enumerate(calls(number_of(divisor))):
        if params["dilation"] != (1, 1):
            continue
        emulator.options.seed = number % 4
        by = {"count_include_pad": divisor[0], "divisor_override": divisor[1]}
        params = without(params, "dilation", **by)
        kind = "special" if number % 4 == 3 else "ordinary"
        taken += holds(rung("avg_pool2d.forward", variant), numbers(shape, dtype, kind, number), **params)
        backward = without(params, "output_size", input_size=shape[2:])
        gy = numbers((*shape[:2], *params["output_size"]), dtype, kind, number)
        holds(rung("avg_pool2d.grad_x", variant), gy, **backward)
    assert taken >= (15 if variant == "wide" else 70)


def number_of(divisor: tuple[bool, int | None]) -> int:
    return 2 * (divisor[1] is not None) + (not divisor[0])


@pytest.mark.parametrize("kernel", of("avg_pool2d.forward"), ids=str)
def test_sums_of_whole_numbers_are_divided_and_not_multiplied_by_a_reciprocal(kernel: Kernel):
    for k, s, p in [(2, 2, 0), (3, 2, 1), (3, 1, 1)]:
        params = without(windows((1, 1, 8, 8), k, s, p), "dilation", count_include_pad=False, divisor_override=None)
        x = np.random.default_rng(0).integers(0, 100, (1, 9, 8, 8)).astype(np.float32)
        np.testing.assert_array_equal(kernel.function(x, **params), definition(kernel.entry, x, **params))
        planes = np.arange(1, 100, dtype=np.float32).reshape(1, -1, 1, 1)
        y = kernel.function(np.broadcast_to(planes, (1, 99, 8, 8)), **params)
        np.testing.assert_array_equal(y, np.broadcast_to(planes, y.shape))


@pytest.mark.parametrize("kernel", of("avg_pool2d.grad_x"), ids=str)
def test_a_share_is_divided_and_not_multiplied_by_a_reciprocal(kernel: Kernel):
    gy = numbers((1, 5, 4, 4), "float32")
    params = without(windows((1, 5, 8, 8), 2, 2, 0), "dilation", "output_size", input_size=(8, 8))
    gx = kernel.function(gy, **params, count_include_pad=True, divisor_override=3)
    np.testing.assert_array_equal(gx, np.repeat(np.repeat(gy / np.float32(3), 2, 2), 2, 3))


@pytest.mark.parametrize("k", [16, 17])
def test_positions_that_a_byte_can_tell_apart_and_more(k: int):
    shape = (2, 2, k + 3, k + 2)
    params = windows(shape, k, 1, 0)
    x = numbers(shape, "float32")
    y, index = definition("max_pool2d.forward", x, **params)
    assert index.max() > 200
    assert index.dtype == (np.uint8 if k == 16 else np.int32)
    backward = without(params, "output_size")
    for variant in ["plain", "rows"][: 18 - k]:
        assert holds(rung("max_pool2d.forward", variant), x, **params)
        assert holds(rung("max_pool2d.gather", variant), x, index, **backward)
        assert holds(rung("max_pool2d.grad_x", variant), y, index, **backward, input_size=shape[2:])


@pytest.mark.parametrize("variant", ["plain", "rows"])
def test_windows_that_are_not_square(variant: str):
    rng = np.random.default_rng(3)
    for number in range(24):
        emulator.options.seed = number % 4
        size = rng.integers(5, 14, 2)
        k, d = rng.integers(1, 6, 2), rng.integers(1, 3, 2) if number % 2 else np.ones(2, int)
        d = np.where((k - 1) * d + 1 > size, 1, d)
        p = np.where(d == 1, rng.integers(0, k // 2 + 1), 0)
        s = rng.integers(1, 4, 2)
        axes = [tuple(int(v) for v in each) for each in (k, s, p, d)]
        sides = [tuple(int(each[axis]) for each in (size, k, s, p, d)) for axis in (0, 1)]
        outs = tuple(out_size(*side, ceil=number % 3 > 0) for side in sides)
        params = dict(zip(("kernel_size", "stride", "padding", "dilation"), axes, strict=True))
        shape = (2, 2, *map(int, size))
        x = numbers(shape, "float32", "ties", number)
        assert holds(rung("max_pool2d.forward", variant), x, **params, output_size=outs)
        _, index = definition("max_pool2d.forward", x, **params, output_size=outs)
        gy = numbers(index.shape, "float32", seed=number)
        assert holds(rung("max_pool2d.grad_x", variant), gy, index, **params, input_size=shape[2:])
        assert holds(rung("max_pool2d.gather", variant), x, index, **params)
        if params.pop("dilation") == (1, 1):
            params |= {"count_include_pad": False, "divisor_override": None}
            assert holds(rung("avg_pool2d.forward", variant), x, **params, output_size=outs)
            assert holds(rung("avg_pool2d.grad_x", variant), gy, **params, input_size=shape[2:])


def test_more_planes_than_one_launch_has(monkeypatch: pytest.MonkeyPatch):
    shape = (7, 100, 4, 4)
    x = numbers(shape, "float32")
    params = windows(shape, 2, 2, 0)
    _, index = definition("max_pool2d.forward", x, **params)
    monkeypatch.setattr("gpunet.kernels.max_pool2d.max_pool2d_cupy.MOST_Z", 3)
    backward = without(params, "output_size", input_size=(4, 4))
    by = {"count_include_pad": True, "divisor_override": None}
    for variant in ("rows", "wide"):
        assert holds(rung("max_pool2d.forward", variant), x, **params)
        assert holds(rung("max_pool2d.grad_x", variant), numbers(index.shape, "float32"), index, **backward)
        assert holds(rung("avg_pool2d.forward", variant), x, **without(params, "dilation", **by))
        gy = numbers(index.shape, "float32")
        assert holds(rung("avg_pool2d.grad_x", variant), gy, **without(backward, "dilation", **by))
    assert holds(rung("max_pool2d.gather", "rows"), x, index, **without(params, "output_size"))


def test_views_that_are_not_contiguous_or_begin_off_16_bytes():
    base = numbers((2 * 3 * 8 * 8 + 4,), "float32")
    shifted, aligned = (base[k : k + 384].reshape(2, 3, 8, 8) for k in (1, 4))
    turned = numbers((8, 8, 3, 2), "float32").T
    params = windows((2, 3, 8, 8), 2, 2, 0)
    wide = rung("max_pool2d.forward", "wide")
    assert wide.refusal((shifted,), params) == "it needs arrays that begin at a multiple of 16 bytes"
    assert dispatch.find(devices.device("sim"), "max_pool2d.forward", (shifted,), params).variant == "rows"
    assert dispatch.find(devices.device("sim"), "max_pool2d.forward", (aligned,), params).variant == "wide"
    assert holds(wide, aligned, **params)
    for kernel in of("max_pool2d.forward"):
        assert holds(kernel, turned, **params)
    assert holds(rung("max_pool2d.forward", "rows"), shifted, **params)
    _, index = definition("max_pool2d.forward", turned, **params)
    held = np.zeros(97, np.uint8)[1:].reshape(index.shape)
    held[:] = index
    backward = without(params, "output_size", input_size=(8, 8))
    gy = numbers(index.T.shape, "float32").T
    wide = rung("max_pool2d.grad_x", "wide")
    assert wide.refusal((gy, held), backward) == "it needs arrays that begin at a multiple of 16 bytes"
    assert holds(wide, gy, np.asfortranarray(index), **backward)
    assert holds(rung("max_pool2d.grad_x", "rows"), gy, held, **backward)
    for kernel in of("adaptive_avg_pool2d.forward", "adaptive_max_pool2d.forward"):
        assert holds(kernel, shifted, output_size=(1, 1))
        assert holds(kernel, turned, output_size=(3, 2))
    for kernel in of("adaptive_avg_pool2d.grad_x"):
        assert holds(kernel, turned, input_size=(5, 7))


def test_what_the_rungs_refuse():
    def why(variant: str, shape: tuple[int, ...], dtype: str = "float32", **given: Any) -> str | None:
        params = windows(shape, **given)
        x = np.broadcast_to(np.zeros((), dtype), shape)  # huge ones take no memory
        return rung("max_pool2d.forward", variant).refusal((x,), params)

    assert why("plain", (1, 1, 40, 40), k=17, s=1, p=0) is None
    assert why("rows", (1, 1, 40, 40), k=17, s=1, p=0) == "it takes windows of at most 256 positions"
    assert why("rows", (1, 1, 40, 40), k=16, s=1, p=0) is None
    for huge in [(1, 1, 65536, 65536), (1, 1, 262141, 4)]:
        assert why("rows", huge, k=2, s=2, p=0) == "it takes images of fewer than 2**31 pixels and 262140 rows"
    assert why("wide", (1, 1, 8, 8), k=2, s=2, p=0, d=2) == "it takes windows without dilation"
    assert "3 x 3 at steps of 1 or 2" in str(why("wide", (1, 1, 8, 8), k=3, s=2, p=0))
    assert "width is a multiple of 4" in str(why("wide", (1, 1, 8, 10), k=2, s=2, p=0))
    assert why("wide", (1, 1, 8, 10), "float64", k=2, s=2, p=0) is None
    assert "as many windows across" in str(why("wide", (1, 1, 8, 8), k=3, s=2, p=1, ceil=True))
    for variant in ("plain", "rows", "wide"):
        assert "float32 or float64" in str(why(variant, (1, 1, 8, 8), "float16", k=2, s=2, p=0))


# to one output: 8 threads, a warp, a block, and a block that comes back for more; runs and rows; overlaps; repeats
ADAPTIVE = [
    ((2, 5, 7, 7), (1, 1)), ((3, 11, 8, 8), (1, 1)), ((1, 3, 13, 9), (1, 1)), ((1, 2, 33, 32), (1, 1)),
    ((1, 2, 47, 53), (1, 1)), ((1, 1, 1, 1), (1, 1)), ((5, 3, 1, 3), (1, 1)), ((1, 2, 12, 5), (3, 1)),
    ((1, 2, 40, 40), (2, 1)), ((1, 2, 17, 23), (3, 4)), ((1, 1, 70, 70), (2, 2)), ((2, 2, 3, 4), (5, 7)),
    ((1, 3, 5, 6), (5, 3)), ((0, 2, 4, 4), (1, 1)), ((2, 3, 9, 1), (4, 1)), ((1, 1, 2, 300), (2, 3)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["ordinary", "ties", "special"])
def test_adaptive(dtype: str, kind: str):
    for number, (shape, output_size) in enumerate(ADAPTIVE):
        emulator.options.seed = number % 4
        x = numbers(shape, dtype, kind, number)
        for kernel in of("adaptive_avg_pool2d.forward", "adaptive_max_pool2d.forward"):
            assert holds(kernel, x, output_size=output_size)
        _, index = definition("adaptive_max_pool2d.forward", x, output_size=output_size)
        gy = numbers(index.shape, dtype, kind, number)
        for kernel in of("adaptive_avg_pool2d.grad_x"):
            assert holds(kernel, gy, input_size=shape[2:])
        for kernel in of("adaptive_max_pool2d.grad_x"):
            assert holds(kernel, gy, index, input_size=shape[2:])
        for kernel in of("adaptive_max_pool2d.gather"):
            assert holds(kernel, x, index)


@pytest.mark.parametrize("kernel", of("adaptive_max_pool2d.forward"), ids=str)
@pytest.mark.parametrize("size", [(7, 7), (20, 20), (41, 40)], ids=str)
def test_which_of_equals_wins_does_not_depend_on_the_thread(kernel: Kernel, size: tuple[int, int]):
    rng = np.random.default_rng(0)
    for value, other in product([np.nan, np.inf, 1.0, -np.inf], [-np.inf, 0.0]):
        if np.isnan(value) or value >= other:
            x = np.full((1, 6, *size), other, np.float32)
            for plane in x.reshape(6, -1):
                plane[rng.integers(0, plane.size, 3)] = value
            assert holds(kernel, x, output_size=(1, 1))


def test_adaptive_rungs_are_taken_where_they_pay():
    def taken(entry: str, shape: tuple[int, ...], **params: Any) -> str:
        arrays: list[np.ndarray] = [np.zeros(shape, np.float32)]
        if entry == "adaptive_max_pool2d.grad_x":
            arrays.append(np.zeros(shape, np.int64))
        return dispatch.find(devices.device("sim"), entry, tuple(arrays), params).variant

    for op in OPS[2:]:
        assert taken(f"{op}.forward", (2, 3, 7, 7), output_size=(1, 1)) == "lanes"
        assert taken(f"{op}.forward", (2, 3, 64, 64), output_size=(2, 2)) == "lanes"
        assert taken(f"{op}.forward", (2, 3, 13, 13), output_size=(6, 6)) == "plain"
        assert taken(f"{op}.grad_x", (2, 3, 1, 1), input_size=(7, 7)) == "packs"
    huge = np.broadcast_to(np.float32(0), (2**15, 2**10, 8, 8))
    for op in OPS[2:]:
        refusal = rung(f"{op}.forward", "lanes").refusal((huge,), {"output_size": (1, 1)})
        assert refusal == "it takes arrays of fewer than 2**31 elements, and axes as small"
        assert rung(f"{op}.forward", "plain").refusal((huge,), {"output_size": (1, 1)}) is None
