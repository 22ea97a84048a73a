"""Augmentations written as a line of text, for command lines and files of settings."""

from collections.abc import Callable

from gpunet.data.augment.composition import Composition, compose
from gpunet.data.augment.geometry import flip, random_crop, rotate, shear, shift, zoom
from gpunet.data.augment.step import Augmentation
from gpunet.data.augment.values import brightness, channel_shift, clip, contrast, noise
from gpunet.errors import ArgumentError

#: Sets of steps that have proved themselves. Clothes look alike from left and right; mirrored digits are none.
POLICIES = {
    "clothes": "flip,random_crop=2",
    "digits": "shift=0.08,rotate=10,zoom=0.1,shear=5",
}
# What a geometric step uncovers is black: the background of MNIST and its relatives.
DARK = "constant"
#: name of a step -> the step made of the numbers behind it
STEPS: dict[str, Callable[..., Augmentation]] = {
    "flip": flip,
    "shift": lambda *sizes: shift(*sizes, fill=DARK),
    "rotate": lambda degrees: rotate(degrees, fill=DARK),
    "zoom": lambda *ends: zoom(_range(*ends), fill=DARK),
    "shear": lambda degrees: shear(degrees, fill=DARK),
    "random_crop": lambda padding: random_crop(padding=_pixels(padding)),
    "brightness": lambda *ends: brightness(_range(*ends)),
    "contrast": lambda *ends: contrast(_range(*ends)),
    "channel_shift": channel_shift,
    "noise": noise,
}
LEAVE_RANGE = ("brightness", "contrast", "channel_shift", "noise")  # steps after which pixels may leave 0 to 1


def named(text: str) -> Composition:
    """Steps out of a line such as ``"flip,rotate=10,shift=0.1"``, or a policy: ``"clothes"``, ``"digits"``.

    A step may have one number or two, joined by a colon: ``zoom=0.1`` draws factors from 0.9 to 1.1, ``zoom=0.8:1.3``
    from 0.8 to 1.3; ``shift=0.1:0`` moves along the width alone. The number of ``random_crop`` is the padding in
    pixels. What a step uncovers is black. Behind a step that changes values, pixels are cut to 0 and 1 at the end.

    Args:
        text: names of :mod:`gpunet.data.augment`, in the order in which they are applied, or a policy's name.

    Raises:
        ArgumentError: an unknown name, a number that is none or out of range, or too many of them.

    Example:
        >>> named("flip,shift=0.1,rotate=10")
        compose(flip(0.5, 0), shift(0.1, 0.1), rotate(10))
        >>> named("clothes")
        compose(flip(0.5, 0), random_crop(None, padding=2))
    """
    parts = [part.strip() for part in POLICIES.get(text.strip(), text).split(",")]
    steps = [_step(part) for part in parts]
    if any(part.partition("=")[0].strip() in LEAVE_RANGE for part in parts):
        steps.append(clip(0, 1))
    return compose(*steps)


def _step(part: str) -> Augmentation:
    name, equals, numbers = (each.strip() for each in part.partition("="))
    if name not in STEPS:
        choices = f"a policy ({', '.join(POLICIES)}) or steps such as shift=0.1,flip out of {', '.join(STEPS)}"
        raise ArgumentError(f"augment must be {choices}, got {part!r}")
    try:
        values = [float(each) for each in numbers.split(":")] if equals else []
    except ValueError:
        need = f"a number behind {name}, or two as in 0.8:1.2"
        raise ArgumentError(f"augment must have {need}, got {numbers!r}") from None
    try:
        return STEPS[name](*values)
    except TypeError:  # too many numbers, or none where one is needed
        need = f"the numbers that {name} takes"
        raise ArgumentError(f"augment must have {need}, got {part!r}; see gpunet.data.augment") from None
    except ArgumentError as error:
        raise ArgumentError(f"augment must have steps that can be made: {error}") from None


def _range(low: float, high: float | None = None) -> float | tuple[float, float]:
    """One number or two, as the steps with a range take them."""
    return low if high is None else (low, high)


def _pixels(value: float) -> int:
    if not value.is_integer():
        raise ArgumentError(f"random_crop: padding must be whole pixels, got {value:g}")
    return int(value)
