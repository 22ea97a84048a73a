"""Augmentations that change values and leave pixels in their places: noise, brightness, contrast, channel shift, clip.

Nothing is rescaled or rounded: an image with values from 0 to 1 keeps that scale. Values may leave the old range;
``clip(0, 1)`` as the last step brings them back.
"""

import numpy as np

from gpunet.data.augment.step import Augmentation, factors, number
from gpunet.errors import ArgumentError


def noise(std: float) -> Augmentation:
    """Adds to every pixel its own normally distributed number.

    Args:
        std: standard deviation, in the unit of the pixels.

    Raises:
        ArgumentError: a negative or infinite std.

    Example:
        >>> x = np.zeros((4, 3, 32, 32), np.float32)
        >>> round(float(noise(0.1)(x, np.random.default_rng(0)).std()), 2)
        0.1
    """
    std = number("noise", "std", std, 0.0)

    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        drawn = rng.standard_normal(x.shape, np.float64 if x.dtype == np.float64 else np.float32)
        drawn *= std
        drawn += x
        return drawn

    return Augmentation(f"noise({std:g})", change)


def brightness(amount: float | tuple[float, float]) -> Augmentation:
    """Multiplies each image by a random factor.

    Args:
        amount: 0.2 draws factors from 0.8 to 1.2; a pair is (low, high).

    Raises:
        ArgumentError: a negative factor, or low above high.

    Example:
        >>> brightness((0.5, 0.5))(np.ones((1, 1, 1, 2)), np.random.default_rng(0)).tolist()
        [[[[0.5, 0.5]]]]
    """
    low, high = factors("brightness", amount)
    return Augmentation(f"brightness(({low:g}, {high:g}))", lambda x, rng: x * _each(x, rng, low, high))


def contrast(amount: float | tuple[float, float]) -> Augmentation:
    """Multiplies each image's distance from its own mean by a random factor; the mean stays.

    Args:
        amount: 0.2 draws factors from 0.8 to 1.2; a pair is (low, high). 0 makes an image all grey.

    Raises:
        ArgumentError: a negative factor, or low above high.

    Example:
        >>> contrast((0.5, 0.5))(np.float64([[[[0, 1]]]]), np.random.default_rng(0)).tolist()
        [[[[0.25, 0.75]]]]
    """
    low, high = factors("contrast", amount)

    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        factor = _each(x, rng, low, high)
        mean = x.mean((1, 2, 3), keepdims=True) if x.size else 0
        return mean + (x - mean) * factor

    return Augmentation(f"contrast(({low:g}, {high:g}))", change)


def channel_shift(amount: float) -> Augmentation:
    """Adds a random number to each channel of each image, so colours change.

    Args:
        amount: largest number, in the unit of the pixels, up or down.

    Raises:
        ArgumentError: a negative or infinite amount.

    Example:
        >>> x = channel_shift(0.2)(np.zeros((1, 3, 4, 4)), np.random.default_rng(0))
        >>> x[0, :, 0, 0].round(2).tolist()
        [0.05, -0.09, -0.18]
    """
    amount = number("channel_shift", "amount", amount, 0.0)

    def change(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x + rng.uniform(-amount, amount, (*x.shape[:2], 1, 1)).astype(x.dtype)

    return Augmentation(f"channel_shift({amount:g})", change)


def clip(low: float = 0.0, high: float = 1.0) -> Augmentation:
    """Cuts values off below ``low`` and above ``high``.

    Raises:
        ArgumentError: low above high, or one that is no number.

    Example:
        >>> clip(0, 1)(np.float64([[[[-1, 0.5, 2]]]]), np.random.default_rng(0)).tolist()
        [[[[0.0, 0.5, 1.0]]]]
    """
    low, high = number("clip", "low", low), number("clip", "high", high)
    if low > high:
        raise ArgumentError(f"clip: low must not be above high, got low={low:g} and high={high:g}")
    return Augmentation(f"clip({low:g}, {high:g})", lambda x, rng: x.clip(low, high))


def _each(x: np.ndarray, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """One number for each image, from low to high, in x's dtype: (N, 1, 1, 1)."""
    return rng.uniform(low, high, (len(x), 1, 1, 1)).astype(x.dtype)
