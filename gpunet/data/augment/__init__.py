"""Augmentation: random changes of images that leave their labels true, made batch by batch while training runs.

    steps = augment.compose(augment.flip(), augment.rotate(10), augment.shift(0.1), augment.noise(0.02))
    loader = DataLoader(data.load("fashion_mini"), batch_size=64, shuffle=True, augment=steps, seed=0)
    trainer.fit(loader, epochs=5)                       # or trainer.fit(x, y, augment=steps, ...)

Every step is called as ``step(x, rng)``, with images (N, C, H, W) of floats, any number of channels and any size; it
returns a changed copy of the same dtype, as does any function of yours. All randomness comes from ``rng``; the loader
makes a new one for each batch out of seed, pass and batch, so a batch is the same whoever makes it, and when.
"""

from gpunet.data.augment.composition import Composition, compose, preview
from gpunet.data.augment.geometry import flip, random_crop, rotate, shear, shift, zoom
from gpunet.data.augment.named import named
from gpunet.data.augment.step import Augmentation
from gpunet.data.augment.values import brightness, channel_shift, clip, contrast, noise

__all__ = [
    "Augmentation",
    "Composition",
    "brightness",
    "channel_shift",
    "clip",
    "compose",
    "contrast",
    "flip",
    "named",
    "noise",
    "preview",
    "random_crop",
    "rotate",
    "shear",
    "shift",
    "zoom",
]
