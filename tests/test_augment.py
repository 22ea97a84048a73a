"""Augmentation: each step does what its name says, exactly where that is exact, to every kind of batch, by its seed."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from gpunet.data import augment
from gpunet.data.augment.resampling import BLOCK, FILLS, resample
from gpunet.errors import ArgumentError, DTypeError, ShapeError

STEPS = {
    "shift": augment.shift(0.2),
    "rotate": augment.rotate(40, fill="reflect"),
    "zoom": augment.zoom(0.3, fill="constant"),
    "shear": augment.shear(20),
    "flip": augment.flip(0.5, 0.5),
    "random_crop": augment.random_crop(padding=2),
    "noise": augment.noise(0.1),
    "brightness": augment.brightness(0.3),
    "contrast": augment.contrast(0.3),
    "channel_shift": augment.channel_shift(0.2),
    "clip": augment.clip(0.2, 0.8),
}
STEPS["compose"] = augment.compose(*STEPS.values())


def images(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(dtype)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


class High(np.random.Generator):
    """Draws the highest number of every range, so that what a step does to an image is known."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def uniform(self, low=0.0, high=1.0, size: Any = None) -> Any:  # type: ignore[override]
        return np.full(size, high)


# Every step -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("shape", [(6, 1, 28, 28), (5, 3, 7, 12), (1, 3, 1, 9), (2, 1, 1, 1), (0, 3, 8, 8)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_step_keeps_shape_dtype_and_input(name, shape, dtype):
    x = images(*shape, dtype=dtype)
    before = x.copy()
    out = STEPS[name](x, rng())
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(out, x)


@pytest.mark.parametrize("name", STEPS)
def test_every_step_repeats_with_the_seed_and_gives_each_image_its_own(name):
    x = np.repeat(images(1, 3, 12, 12), 8, axis=0)
    first, again, other = (STEPS[name](x, rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    if name != "clip":
        assert not np.array_equal(first, other)
        assert len(np.unique(first.reshape(8, -1), axis=0)) > 2
        assert not np.array_equal(first, x)


def test_float32_and_float64_agree():
    x = images(9, 3, 20, 31)
    single, double = (augment.compose(*list(STEPS.values())[:5])(x.astype(d), rng()) for d in ("float32", "float64"))
    np.testing.assert_allclose(single, double, atol=2e-5)


# Resampling -----------------------------------------------------------------------------------------------------------


def pixel(image: np.ndarray, row: int, column: int, fill: str, value: float) -> float:
    """One pixel of (H, W), also outside: the definition of the fills."""
    height, width = image.shape
    if fill == "constant":
        return image[row, column] if 0 <= row < height and 0 <= column < width else value
    places = []
    for place, size in ((row, height), (column, width)):
        line = list(range(size))
        # Mirrored at the edge, the edge itself twice, again and again; or cut off.
        mirrored = (line + line[::-1])[place % (2 * size)]
        places.append(mirrored if fill == "reflect" else min(max(place, 0), size - 1))
    return float(image[places[0], places[1]])


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("shape", [(4, 2, 5, 8), (3, 1, 1, 6), (3, 1, 6, 1), (2, 3, 1, 1)])
def test_resampling_is_bilinear_with_each_fill(fill, shape):
    x, draw = images(*shape), rng(7)
    count, _, height, width = shape
    inverse = np.tile(np.eye(3), (count, 1, 1))
    inverse[:, :2] += draw.normal(0, 0.7, (count, 2, 3))
    inverse[:, :2, 2] *= 6  # some are read from far outside
    want = np.empty(shape)
    for n, c, i, j in itertools.product(*map(range, shape)):
        place = inverse[n] @ (j - (width - 1) / 2, i - (height - 1) / 2, 1)
        column, row = place[0] + (width - 1) / 2, place[1] + (height - 1) / 2
        top, left = math.floor(row), math.floor(column)
        want[n, c, i, j] = sum(
            pixel(x[n, c], top + a, left + b, fill, 0.3) * (1 - abs(row - top - a)) * (1 - abs(column - left - b))
            for a in (0, 1)
            for b in (0, 1)
        )
    np.testing.assert_allclose(resample(x, inverse, fill, 0.3), want, atol=1e-12)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("size", [1, 2, 27, 28, 100])
def test_a_map_that_moves_nothing_changes_no_bit(fill, size):
    for dtype in ("float16", "float32", "float64"):
        x = images(3, 2, size, size + 3, dtype=dtype)
        np.testing.assert_array_equal(resample(x, np.tile(np.eye(3), (3, 1, 1)), fill), x, strict=True)


def test_blocks_of_a_large_batch_make_no_difference():
    x = images(2 * BLOCK // (30 * 30) + 3, 1, 30, 30)
    step = augment.rotate(30)
    maps = step.draw(len(x), 30, 30, rng(5))
    alone = [resample(x[[n]], maps[[n]])[0] for n in (0, len(x) // 2, len(x) - 1)]
    np.testing.assert_array_equal(step(x, rng(5))[[0, len(x) // 2, len(x) - 1]], alone)


# Geometry: the largest change of each, against what NumPy does by moving whole pixels ---------------------------------


@pytest.mark.parametrize("size", [4, 5, 28])
def test_rotate_turns_around_the_middle_against_the_clock(size):
    x = images(2, 3, size, size)
    for fill in FILLS:
        turned = augment.rotate(90, fill)(x, High())
        np.testing.assert_allclose(turned, np.rot90(x, axes=(2, 3)), atol=1e-12)
    wide = images(2, 1, size, size + 3)
    np.testing.assert_allclose(augment.rotate(180)(wide, High()), wide[:, :, ::-1, ::-1], atol=1e-12)


def test_shift_moves_right_and_down_by_shares_of_each_size():
    x = images(2, 3, 4, 10)
    want = np.zeros_like(x)
    want[:, :, 1:, 2:] = x[:, :, :-1, :-2]
    np.testing.assert_allclose(augment.shift(0.2, 0.25, fill="constant")(x, High()), want, atol=1e-12)
    for fill, mode in (("nearest", "edge"), ("reflect", "symmetric")):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 0), (2, 0)), mode=mode)[:, :, :4, :10]  # type: ignore[call-overload]
        np.testing.assert_allclose(augment.shift(0.2, 0.25, fill)(x, High()), padded, atol=1e-12)


def test_zoom_above_one_enlarges_both_axes_alike():
    x = images(1, 1, 9, 9)
    np.testing.assert_allclose(augment.zoom((3, 3))(x, rng())[0, 0, 1::3, 1::3], x[0, 0, 3:6, 3:6], atol=1e-12)
    smaller = augment.zoom((1 / 3, 1 / 3), fill="constant")(x, rng())[0, 0]
    np.testing.assert_allclose(smaller[3:6, 3:6], x[0, 0, 1::3, 1::3], atol=1e-12)
    assert not smaller[:2].any()


def test_shear_slides_rows_and_leaves_the_middle_one():
    x = np.zeros((1, 1, 5, 9))
    x[..., 4] = 1
    slanted = augment.shear(45, fill="constant")(x, High())
    np.testing.assert_allclose(slanted[0, 0].argmax(1), [6, 5, 4, 3, 2])


def test_flips_have_their_probability_and_move_whole_pixels():
    x = images(4000, 1, 3, 2)
    out = augment.flip(0.3, 0.6)(x, rng())
    kinds = [x, x[..., ::-1], x[:, :, ::-1], x[:, :, ::-1, ::-1]]
    counts = [(out == kind).all((1, 2, 3)).mean() for kind in kinds]
    # of 4,000 images a share strays by 0.008 at the most, one standard deviation
    np.testing.assert_allclose(counts, [0.7 * 0.4, 0.3 * 0.4, 0.7 * 0.6, 0.3 * 0.6], atol=0.03)
    np.testing.assert_array_equal(augment.flip(1, 1)(x, rng()), kinds[3])
    np.testing.assert_array_equal(augment.flip(0, 0)(x, rng()), x)
    joined = augment.compose(augment.flip(1, 0), augment.shift(0))(x, rng())
    np.testing.assert_array_equal(joined, kinds[1])


@pytest.mark.parametrize(("fill", "mode"), [("nearest", "edge"), ("constant", "constant"), ("reflect", "symmetric")])
def test_random_crop_cuts_windows_from_everywhere(fill, mode):
    x = np.arange(500 * 2 * 5 * 6, dtype=np.float32).reshape(500, 2, 5, 6)
    out = augment.random_crop((4, 3), padding=2, fill=fill)(x, rng())
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)), mode=mode)
    found = set()
    for before, after in zip(padded, out):
        places = [(i, j) for i in range(6) for j in range(8)]
        fits = [(i, j) for i, j in places if np.array_equal(before[:, i : i + 4, j : j + 3], after)]
        assert fits
        found.update(fits)
    assert len(found) == 6 * 8
    assert augment.random_crop(5)(x, rng()).shape == (500, 2, 5, 5)
    with pytest.raises(ArgumentError, match=r"8x8 of 7x8.*padding"):
        augment.random_crop(8, padding=1)(x, rng())


# Values ---------------------------------------------------------------------------------------------------------------


def test_values_keep_their_scale_and_change_by_the_drawn_amount():
    x = images(3, 3, 6, 6)
    np.testing.assert_allclose(augment.brightness(0.2)(x, High()), x * 1.2)
    np.testing.assert_array_equal(augment.brightness(0)(x, rng()), x)
    np.testing.assert_allclose(augment.channel_shift(0.25)(x, High()), x + 0.25)
    mean = x.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(augment.contrast((0, 0.5))(x, High()), mean + (x - mean) / 2)
    np.testing.assert_array_equal(augment.clip(0.4, 0.6)(x, rng()), np.clip(x, 0.4, 0.6))
    for dtype in ("float32", "float64"):
        plain = images(40, 1, 50, 50, dtype=dtype)
        added = augment.noise(0.1)(plain, rng()) - plain
        assert added.std() == pytest.approx(0.1, rel=0.02)
        assert abs(added.mean()) < 0.002


@pytest.mark.parametrize(("step", "low", "high", "shape"), [
    (augment.brightness(0.2), 0.8, 1.2, (400, 1)), (augment.brightness((0.5, 3)), 0.5, 3, (400, 1)),
    (augment.channel_shift(0.5), 0.5, 1.5, (400, 3)),
])  # fmt: skip
def test_values_are_drawn_from_the_whole_range(step, low, high, shape):
    out = step(np.ones((400, 3, 2, 2)), rng())
    assert np.ptp(out, axis=(2, 3)).max() == 0  # one number a channel, or an image
    drawn = out[:, :, 0, 0]
    assert low <= drawn.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < drawn.max() <= high
    assert len(np.unique(drawn)) == math.prod(shape)


# Composition ----------------------------------------------------------------------------------------------------------


def test_geometric_neighbours_are_joined_into_one_resampling_that_does_all_of_them():
    x = images(3, 2, 8, 8)
    steps = [augment.flip(1, 0), augment.rotate(90), augment.shift(0.25, 0.125, "reflect")]
    apart = x
    for step in steps:
        apart = step(apart, High())
    joined = augment.compose(*steps[:2], augment.shift(0.25, 0.125))
    assert len(joined.passes) == 1
    # Whole pixels and the same order: only what comes from outside may differ.
    np.testing.assert_allclose(joined(x, High())[:, :, 1:, 2:], apart[:, :, 1:, 2:], atol=1e-12)
    other = augment.compose(steps[2], steps[1], steps[0])(x, High())
    assert not np.allclose(other[:, :, 1:, 2:], apart[:, :, 1:, 2:])


def test_what_is_joined_and_what_is_not():
    a, b, c = augment.rotate(5), augment.shift(0.1), augment.zoom(0.1, fill="constant", value=1.0)
    flip, noise = augment.flip(), augment.noise(0.1)
    compose = augment.compose
    counts = [len(compose(*steps).passes) for steps in ([a, b], [a, c], [a, flip, c], [flip, c, flip], [a, noise, b])]
    assert counts == [1, 2, 2, 1, 3]
    assert len(compose(compose(noise, a), compose(b, noise)).passes) == 3
    assert compose().passes == []
    x = images(2, 1, 4, 4)
    np.testing.assert_array_equal(compose()(x, rng()), x)
    assert repr(compose(flip, b, noise)) == "compose(flip(0.5, 0), shift(0.1, 0.1), noise(0.1))"
    ones = compose(flip, augment.zoom((0.01, 0.01), fill="constant", value=1.0))(np.zeros((1, 1, 9, 9)), rng())
    assert ones[0, 0, 0, 0] == 1


def test_functions_of_the_user_join_in_and_cannot_change_the_input():
    def blank(x, rng):
        x[:, :, rng.integers(x.shape[2])] = 0
        return x

    x = images(3, 1, 6, 6) + 1
    out = augment.compose(blank, augment.brightness((2, 2)))(x, rng())
    assert (out == 0).all((1, 3)).sum() == 3
    assert x.min() >= 1
    with pytest.raises(ArgumentError, match="function of"):
        augment.compose(augment.flip(), 3)  # type: ignore[arg-type]


def test_preview_gives_16_images_of_one():
    image = images(3, 9, 7, dtype="float32")
    ways = augment.preview(image, augment.rotate(30))
    assert (ways.shape, ways.dtype) == ((16, 3, 9, 7), np.dtype("float32"))
    assert len(np.unique(ways.reshape(16, -1), axis=0)) == 16
    np.testing.assert_array_equal(ways, augment.preview(image, augment.rotate(30)))
    assert not np.array_equal(ways, augment.preview(image, augment.rotate(30), seed=1))
    assert augment.preview(image[0], augment.flip(), count=3).shape == (3, 1, 9, 7)
    with pytest.raises(ShapeError, match="one image at a time"):
        augment.preview(image[None], augment.flip())
    for count in (0, 2.5, True):
        with pytest.raises(ArgumentError, match="count"):
            augment.preview(image, augment.flip(), count=count)  # type: ignore[arg-type]


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STEPS)
def test_images_that_are_none_are_refused(name):
    with pytest.raises(DTypeError, match=rf"{name}: x must be floating, got uint8.*255"):
        STEPS[name](np.zeros((2, 1, 4, 4), np.uint8), rng())
    with pytest.raises(ShapeError, match=rf"{name}: x must have 4 axes.*x\[:, None\]"):
        STEPS[name](np.zeros((2, 4, 4)), rng())


@pytest.mark.parametrize(("make", "words"), [
    (lambda: augment.shift(2), "width must be a number from 0 to 1, got 2"),
    (lambda: augment.shift(0.1, -0.1), "height"),
    (lambda: augment.rotate(181), "degrees must be a number from 0 to 180"),
    (lambda: augment.rotate(math.nan), "degrees"),
    (lambda: augment.shear(90), "degrees"),
    (lambda: augment.zoom(1), "above 0"),
    (lambda: augment.zoom((1.2, 0.8)), "low <= high"),
    (lambda: augment.flip(1.5), "horizontal"),
    (lambda: augment.flip(0, "yes"), "vertical"),  # type: ignore[arg-type]
    (lambda: augment.noise(-1), "std must be a number of at least 0, got -1"),
    (lambda: augment.brightness(True), "amount"),
    (lambda: augment.contrast((-1, 1)), "amount"),
    (lambda: augment.channel_shift(math.inf), "amount"),
    (lambda: augment.clip(1, 0), "low=1 and high=0"),
    (lambda: augment.rotate(5, fill="wrap"), "rotate: fill must be one of nearest, constant, reflect, got 'wrap'"),
    (lambda: augment.shift(0.1, fill="constant", value=math.nan), "value must be a number, got nan"),
    (lambda: augment.random_crop(0), "size"),
    (lambda: augment.random_crop((3, 4, 5)), "size"),  # type: ignore[arg-type]
    (lambda: augment.random_crop(4, padding=1.5), "padding"),  # type: ignore[arg-type]
    (lambda: augment.random_crop(4, fill="wrap"), "random_crop: fill"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
