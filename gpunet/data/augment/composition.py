"""Several augmentations in a row, and a look at what they do."""

from collections.abc import Callable

import numpy as np

from gpunet.data.augment.step import Augmentation, Change, Geometric
from gpunet.data.order import AUGMENT, check_seed, philox
from gpunet.errors import ArgumentError, ShapeError


class Composition(Augmentation):
    """Steps one after another, made by :func:`compose`.

    Attributes:
        steps: the steps as they were given.
        passes: the steps as they run, geometric neighbours joined into one.
    """

    def __init__(self, steps: tuple[Change, ...]) -> None:
        super().__init__(f"compose({', '.join(map(_name, steps))})", self._run)
        self.steps = steps
        self.passes: list[Change] = []
        for step in (each for given in steps for each in (given.passes if isinstance(given, Composition) else [given])):
            last = self.passes[-1] if self.passes else None
            joined = last.joined(step) if isinstance(last, Geometric) and isinstance(step, Geometric) else None
            self.passes[-1 if joined else len(self.passes) :] = [joined or step]

    def _run(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if not all(isinstance(step, Augmentation) for step in self.passes):
            x = x.copy()  # a function of the user may work in place
        for step in self.passes:
            x = step(x, rng)
        return x


def compose(*steps: Change) -> Composition:
    """Steps one after another, in the order given.

    Geometric steps that stand side by side become one affine map and one resampling, so pixels are interpolated once;
    steps with different ``fill`` or ``value`` are not joined. No step at all leaves images as they are.

    Args:
        steps: augmentations of this module, or functions ``(x, rng) -> x`` of your own, which may change x in place.

    Raises:
        ArgumentError: a step that cannot be called.

    Example:
        >>> from gpunet.data.augment import clip, flip, noise, rotate, shift, zoom
        >>> steps = compose(flip(), rotate(10), zoom(0.1), shift(0.1), noise(0.05), clip(0, 1))
        >>> len(steps.steps), len(steps.passes)
        (6, 3)
    """
    for step in steps:
        if not callable(step):
            raise ArgumentError(f"compose: each step must be a function of (x, rng), got {step!r}")
    return Composition(steps)


def preview(image: np.ndarray, change: Change, count: int = 16, seed: int = 0) -> np.ndarray:
    """One image changed in ``count`` ways, to look at.

    Args:
        image: (C, H, W), or (H, W) for one channel.
        change: an augmentation of this module, or a function ``(x, rng) -> x``.
        count: how many.
        seed: an integer from 0 to 2**64 - 1; the same seed gives the same images.

    Returns:
        The images (count, C, H, W).

    Raises:
        ShapeError: image has neither two nor three axes.
        ArgumentError: a count below 1, or a seed out of range.

    Example:
        >>> from gpunet.data.augment import rotate
        >>> preview(np.zeros((1, 28, 28)), rotate(20)).shape
        (16, 1, 28, 28)
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3):
        raise ShapeError(f"preview: image must be (C, H, W) or (H, W), got shape {image.shape}; one image at a time")
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise ArgumentError(f"preview: count must be a whole number of at least 1, got {count!r}")
    rng = np.random.Generator(philox(check_seed("preview", seed), AUGMENT))
    channels = image if image.ndim == 3 else image[None]
    return np.asarray(change(np.repeat(channels[None], count, axis=0), rng))


def _name(step: Callable[..., object]) -> str:
    return repr(step) if isinstance(step, Augmentation) else getattr(step, "__name__", repr(step))
