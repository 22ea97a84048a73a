"""What an augmentation is, and the checks that all of them share."""

import math
from collections.abc import Callable

import numpy as np

from gpunet.data.augment.resampling import FILLS, resample
from gpunet.errors import ArgumentError, DTypeError, ShapeError

#: (x, rng) -> x: what ``DataLoader(augment=...)`` takes
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]
#: (images, height, width, rng) -> maps (images, 3, 3) as ``resample`` takes them
DrawMaps = Callable[[int, int, int, np.random.Generator], np.ndarray]


class Augmentation:
    """A random change of images: ``step(x, rng)`` returns the changed copy of a batch x (N, C, H, W) of floats.

    Dtype and number of images stay; every image has its own random numbers, all drawn from ``rng``.

    Raises:
        ShapeError: x has not four axes.
        DTypeError: x holds integers.
    """

    def __init__(self, text: str, change: Change) -> None:
        self.text, self._change = text, change

    def __repr__(self) -> str:
        return self.text

    def __call__(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The batch, changed; x itself stays as it is."""
        name, x = self.text.partition("(")[0], np.asarray(x)
        if x.ndim != 4:
            remedy = "; add the axis of channels: x[:, None]" if x.ndim == 3 else ""
            raise ShapeError(f"{name}: x must have 4 axes (N, C, H, W), got {x.ndim} in shape {x.shape}{remedy}")
        if x.dtype.kind != "f":
            remedy = "images of bytes: x.astype('float32') / 255" if x.dtype == np.uint8 else "x.astype('float32')"
            raise DTypeError(f"{name}: x must be floating, got {x.dtype}; for {remedy}")
        return self._change(x, rng).astype(x.dtype, copy=False)


class Geometric(Augmentation):
    """A random affine map of each image. Maps that follow each other become one, and one resampling.

    ``fill`` is None for maps that never look outside the image.
    """

    def __init__(self, text: str, draw: DrawMaps, fill: str | None, value: float = 0.0) -> None:
        name = text.partition("(")[0]
        if fill is not None and fill not in FILLS:
            raise ArgumentError(f"{name}: fill must be one of {', '.join(FILLS)}, got {fill!r}")
        super().__init__(text, self._move)
        self.draw, self.fill, self.value = draw, fill, number(name, "value", value)

    def joined(self, after: "Geometric") -> "Geometric | None":
        """This map and then ``after`` as one, or None where the two fill the outside in different ways."""
        if None not in (self.fill, after.fill) and (self.fill, self.value) != (after.fill, after.value):
            return None

        def draw(images: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
            # Maps say where a pixel came from, so the last one is asked first: it stands nearest to the position.
            return self.draw(images, height, width, rng) @ after.draw(images, height, width, rng)

        filled = self if self.fill is not None else after
        return Geometric(f"{self.text}, {after.text}", draw, filled.fill, filled.value)

    def _move(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        count, _, height, width = x.shape
        return resample(x, self.draw(count, height, width, rng), self.fill or "nearest", self.value)


def number(op: str, name: str, value: float, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a finite float from ``low`` to ``high``."""
    ok = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not ok or not math.isfinite(value) or not low <= value <= high:
        span = "" if (low, high) == (-math.inf, math.inf) else f" of at least {low:g}"
        span = f" from {low:g} to {high:g}" if high < math.inf else span
        raise ArgumentError(f"{op}: {name} must be a number{span}, got {value!r}")
    return float(value)


def factors(op: str, amount: float | tuple[float, float]) -> tuple[float, float]:
    """(low, high) of a factor: ``amount`` around 1, or the pair itself."""
    if isinstance(amount, tuple | list) and len(amount) == 2:
        low, high = (number(op, "amount", each, 0.0) for each in amount)
        if low > high:
            raise ArgumentError(f"{op}: amount must be (low, high) with low <= high, got {amount!r}")
        return low, high
    amount = number(op, "amount", amount, 0.0, 1.0)  # type: ignore[arg-type]
    return 1 - amount, 1 + amount
