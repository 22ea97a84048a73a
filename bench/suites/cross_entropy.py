"""Sizes of cross_entropy: classifiers from ten classes to a vocabulary."""

from typing import Any

import numpy as np

from gpunet import functional as F
from gpunet.creation import tensor
from gpunet.tensor import Tensor

from . import Size, leaf, powers, swept

SIZES = [
    Size("smoothed", "own: prime sizes, label smoothing", "proof", {"logits": (7, 5)}, {"label_smoothing": 0.1}),
    Size("pixels", "own: a label for each pixel", "proof", {"logits": (2, 3, 5, 4)}),
    Size("fashion", "the reference CNN: ten classes, batch 32", "quick", {"logits": (32, 10)}),
    Size("imagenet", "ImageNet's 1000 classes, batch 256", "quick", {"logits": (256, 1000)}),
    Size("imagenet_4096", "ImageNet's 1000 classes, batch 4096", "standard", {"logits": (4096, 1000)}),
    Size("rows_4096", "KernelBench level 1", "full", {"logits": (32768, 4096)}),
    Size("vocabulary", "a language model's 128256 words", "full", {"logits": (8192, 128256)}),
]


AXIS = "N rows of 1000 classes"
SWEEP = powers(1, 65536)


def sweep(n: int) -> Size:
    """n rows of ImageNet's classes."""
    return swept(n, {"logits": (n, 1000)})


def tensors(size: Size, dtype: Any, device: Any, seed: int) -> dict[str, Tensor]:
    """Normal scores, and a class drawn for each position."""
    random = np.random.Generator(np.random.Philox(seed))
    shape = size.shapes["logits"]
    logits = leaf(random.standard_normal(shape), dtype, device)
    target = random.integers(0, shape[1], (shape[0], *shape[2:]), dtype=np.int64)
    return {"logits": logits, "target": tensor(target, device=device)}


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(tensors["logits"], tensors["target"], **size.arguments)
