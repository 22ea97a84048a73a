"""Augmentations that move pixels: shift, rotate, zoom, shear, flip, random crop.

All but the crop are affine maps. Drawn maps say where an output pixel comes from, so each is the inverse of what is
seen. Ranges are symmetric, and the inverse needs care only for the zoom.
"""

import operator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from gpunet.data.augment.resampling import FILLS
from gpunet.data.augment.step import Augmentation, Geometric, factors, number
from gpunet.errors import ArgumentError

#: names of the fills in np.pad
PAD_MODES = {"nearest": "edge", "constant": "constant", "reflect": "symmetric"}


def shift(width: float = 0.1, height: float | None = None, fill: str = "nearest", value: float = 0.0) -> Geometric:
    """Moves each image along both axes by a random share of its size.

    Args:
        width: largest share of the width, from 0 to 1, to either side. For p pixels: p / W.
        height: largest share of the height; None takes ``width``.
        fill: what lies outside: "nearest" (a a | a b c d | d d), "constant", or "reflect" (b a | a b c d | d c).
        value: the pixel outside for "constant".

    Raises:
        ArgumentError: a number out of range, or an unknown fill.

    Example:
        >>> x = np.arange(4.0).reshape(1, 1, 1, 4)
        >>> shift(0.5, 0, fill="constant")(x, np.random.default_rng(3)).round(1).tolist()
        [[[[1.7, 2.7, 1.0, 0.0]]]]
    """
    across = number("shift", "width", width, 0, 1)
    down = across if height is None else number("shift", "height", height, 0, 1)

    def draw(images: int, h: int, w: int, rng: np.random.Generator) -> np.ndarray:
        maps = _identity(images)
        maps[:, 0, 2] = -w * rng.uniform(-across, across, images)
        maps[:, 1, 2] = -h * rng.uniform(-down, down, images)
        return maps

    return Geometric(f"shift({across:g}, {down:g})", draw, fill, value)


def rotate(degrees: float, fill: str = "nearest", value: float = 0.0) -> Geometric:
    """Turns each image around its middle by a random angle.

    Args:
        degrees: largest angle, from 0 to 180, either way.
        fill: what lies outside: "nearest", "constant" or "reflect", as for :func:`shift`.
        value: the pixel outside for "constant".

    Raises:
        ArgumentError: an angle out of range, or an unknown fill.

    Example:
        >>> x = np.random.default_rng(0).random((8, 3, 32, 20), dtype=np.float32)
        >>> rotate(15)(x, np.random.default_rng(1)).shape
        (8, 3, 32, 20)
    """
    degrees = number("rotate", "degrees", degrees, 0, 180)

    def draw(images: int, h: int, w: int, rng: np.random.Generator) -> np.ndarray:
        angle = np.deg2rad(rng.uniform(-degrees, degrees, images))
        maps = _identity(images)
        # Rows count downwards, so this is a turn against the clock for angles above 0.
        maps[:, 0, 0], maps[:, 0, 1] = np.cos(angle), -np.sin(angle)
        maps[:, 1, 0], maps[:, 1, 1] = np.sin(angle), np.cos(angle)
        return maps

    return Geometric(f"rotate({degrees:g})", draw, fill, value)


def zoom(amount: float | tuple[float, float], fill: str = "nearest", value: float = 0.0) -> Geometric:
    """Enlarges or shrinks each image around its middle by a random factor, the same along both axes.

    Args:
        amount: 0.1 draws factors from 0.9 to 1.1; a pair is (low, high). A factor above 1 enlarges.
        fill: what lies outside: "nearest", "constant" or "reflect", as for :func:`shift`.
        value: the pixel outside for "constant".

    Raises:
        ArgumentError: a factor that is not above 0, or an unknown fill.

    Example:
        >>> zoom((1.0, 1.5))(np.ones((1, 1, 5, 5)), np.random.default_rng(0)).min()
        np.float64(1.0)
    """
    low, high = factors("zoom", amount)
    if low <= 0:
        raise ArgumentError(f"zoom: factors must be above 0, got {amount!r}; that is {low:g} to {high:g}")

    def draw(images: int, h: int, w: int, rng: np.random.Generator) -> np.ndarray:
        maps = _identity(images)
        maps[:, 0, 0] = maps[:, 1, 1] = 1 / rng.uniform(low, high, images)
        return maps

    return Geometric(f"zoom(({low:g}, {high:g}))", draw, fill, value)


def shear(degrees: float, fill: str = "nearest", value: float = 0.0) -> Geometric:
    """Slants each image: its rows slide along each other, the one in the middle stays.

    Args:
        degrees: largest angle, from 0 to 80, by which a vertical line leans to either side.
        fill: what lies outside: "nearest", "constant" or "reflect", as for :func:`shift`.
        value: the pixel outside for "constant".

    Raises:
        ArgumentError: an angle out of range, or an unknown fill.

    Example:
        >>> shear(0)(np.eye(3)[None, None], np.random.default_rng(0)).tolist()[0][0]
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    degrees = number("shear", "degrees", degrees, 0, 80)

    def draw(images: int, h: int, w: int, rng: np.random.Generator) -> np.ndarray:
        maps = _identity(images)
        maps[:, 0, 1] = np.tan(np.deg2rad(rng.uniform(-degrees, degrees, images)))
        return maps

    return Geometric(f"shear({degrees:g})", draw, fill, value)


def flip(horizontal: float = 0.5, vertical: float = 0.0) -> Geometric:
    """Mirrors some of the images.

    Args:
        horizontal: probability, for each image, that left and right change places.
        vertical: probability that top and bottom do.

    Raises:
        ArgumentError: a probability outside 0 to 1.

    Example:
        >>> flip(horizontal=1)(np.arange(3.0).reshape(1, 1, 1, 3), np.random.default_rng(0)).tolist()
        [[[[2.0, 1.0, 0.0]]]]
    """
    chances = number("flip", "horizontal", horizontal, 0, 1), number("flip", "vertical", vertical, 0, 1)

    def draw(images: int, h: int, w: int, rng: np.random.Generator) -> np.ndarray:
        maps = _identity(images)
        for axis, chance in enumerate(chances):
            maps[:, axis, axis] = np.where(rng.random(images) < chance, -1.0, 1.0)
        return maps

    return _Flip(f"flip({chances[0]:g}, {chances[1]:g})", draw, None)


class _Flip(Geometric):
    """Flips that stand alone need no resampling."""

    def _move(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, _, height, width = x.shape
        maps, x = self.draw(count, height, width, rng), x.copy()
        mirrored, upside_down = maps[:, 0, 0] < 0, maps[:, 1, 1] < 0
        x[mirrored] = x[mirrored][..., ::-1]
        x[upside_down] = x[upside_down][:, :, ::-1]
        return x


def random_crop(
    size: int | tuple[int, int] | None = None, padding: int = 0, fill: str = "constant", value: float = 0.0
) -> Augmentation:
    """Cuts a window out of each image at a random place, after making the image larger by ``padding``.

    Nothing is interpolated: ``random_crop(padding=4)`` moves images by whole pixels and keeps their size.

    Args:
        size: (height, width) of the window in pixels, one number for a square, or None for the size of the images.
        padding: pixels added on each of the four sides.
        fill: what is added: "nearest", "constant" or "reflect", as for :func:`shift`.
        value: the pixel added for "constant".

    Raises:
        ArgumentError: a number out of range, an unknown fill, or (when called) a window larger than the padded image.

    Example:
        >>> random_crop(24)(np.zeros((8, 3, 28, 28)), np.random.default_rng(0)).shape
        (8, 3, 24, 24)
    """
    window = None if size is None else _window(size)
    border = _pixels("padding", padding, 0)
    if fill not in FILLS:
        raise ArgumentError(f"random_crop: fill must be one of {', '.join(FILLS)}, got {fill!r}")
    constant = {"constant_values": number("random_crop", "value", value)} if fill == "constant" else {}

    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = window or x.shape[2:]
        if border:
            sides = ((0, 0), (0, 0), (border, border), (border, border))
            x = np.pad(x, sides, mode=PAD_MODES[fill], **constant)  # type: ignore[call-overload]
        if height > x.shape[2] or width > x.shape[3]:
            got = f"{height}x{width} of {x.shape[2]}x{x.shape[3]} pixels"
            raise ArgumentError(f"random_crop: size must fit into the padded images, got {got}; use more padding")
        top = rng.integers(x.shape[2] - height + 1, size=len(x))
        left = rng.integers(x.shape[3] - width + 1, size=len(x))
        windows = sliding_window_view(x, (height, width), axis=(2, 3))  # type: ignore[call-overload]
        return windows[np.arange(len(x)), :, top, left]  # a copy of the windows alone

    return Augmentation(f"random_crop({size}, padding={border})", change)


def _identity(images: int) -> np.ndarray:
    return np.tile(np.eye(3), (images, 1, 1))


def _window(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(sides) != 2:
        raise ArgumentError(f"random_crop: size must be (height, width), one number or None, got {size!r}")
    return _pixels("size", sides[0], 1), _pixels("size", sides[1], 1)


def _pixels(name: str, value: object, low: int) -> int:
    try:
        pixels = low - 1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pixels = low - 1
    if pixels < low:
        raise ArgumentError(f"random_crop: {name} must be whole pixels, {low} or more, got {value!r}")
    return pixels
