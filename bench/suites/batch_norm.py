"""Sizes of batch_norm: layers of networks, in training and with given statistics."""

from typing import Any

import numpy as np

from gpunet import functional as F
from gpunet.creation import tensor
from gpunet.tensor import Tensor

from . import Size, leaf, powers, swept


def _layer(name: str, origin: str, tier: str, x: tuple[int, ...], training: bool = True) -> Size:
    channels = (x[1],)
    return Size(name, origin, tier, {"x": x, "weight": channels, "bias": channels}, {"training": training})


SIZES = [
    _layer("images", "own: prime sizes", "proof", (3, 5, 7, 2)),
    _layer("rows", "own: no axes behind the channels", "proof", (13, 3)),
    _layer("images_eval", "own: prime sizes, given statistics", "proof", (3, 5, 7, 2), training=False),
    _layer("whole_packs", "own: images of whole 16 bytes", "proof", (2, 3, 4, 4)),
    _layer("whole_packs_eval", "own: the same with given statistics", "proof", (2, 3, 4, 4), training=False),
    _layer("reference_cnn", "the reference CNN's first normalisation, batch 32", "quick", (32, 75, 28, 28)),
    _layer("reference_cnn_eval", "the same with given statistics", "quick", (32, 75, 28, 28), training=False),
    _layer("resnet", "ResNet-50, after the stem, batch 16 of 64", "standard", (16, 64, 112, 112)),
    _layer("resnet_eval", "the same with given statistics", "standard", (16, 64, 112, 112), training=False),
    _layer("images_512", "KernelBench level 1", "full", (64, 64, 512, 512)),
]


AXIS = "N images of 75 x 14 x 14, the reference CNN's second block"
SWEEP = powers(1, 2048)


def sweep(n: int) -> Size:
    """n images, normalised in training."""
    shapes = {"x": (n, 75, 14, 14), "weight": (75,), "bias": (75,)}
    return swept(n, shapes, {"training": True})


def tensors(size: Size, dtype: Any, device: Any, seed: int) -> dict[str, Tensor]:
    """Images, scale and shift, and running statistics as a trained layer has them: a variance is above 0."""
    random = np.random.Generator(np.random.Philox(seed))
    made = {name: leaf(random.standard_normal(shape), dtype, device) for name, shape in size.shapes.items()}
    channels = size.shapes["weight"]
    made["running_mean"] = tensor(random.standard_normal(channels).astype(dtype), device=device)
    made["running_var"] = tensor(random.uniform(0.5, 2.0, channels).astype(dtype), device=device)
    return made


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    # A copy of the statistics: training changes them in place, and every run must do the same.
    mean, var = tensors["running_mean"].clone(), tensors["running_var"].clone()
    return F.batch_norm(tensors["x"], mean, var, tensors["weight"], tensors["bias"], **size.arguments)
