"""Sizes of softmax: scores of a classifier, attention, and the rows of public benchmarks."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, powers, swept
from . import normal as tensors

__all__ = ["AXIS", "SIZES", "SWEEP", "run", "sweep", "tensors"]

SIZES = [
    Size("primes", "own: prime sizes", "proof", {"x": (7, 13)}, {"dim": -1}),
    Size("channels", "own: along an axis that is not the last", "proof", {"x": (2, 5, 3, 4)}, {"dim": 1}),
    Size("imagenet", "ImageNet's 1000 classes, batch 256", "quick", {"x": (256, 1000)}, {"dim": -1}),
    Size("attention", "BERT base, one text: 12 heads of 512 tokens", "standard", {"x": (12, 512, 512)}, {"dim": -1}),
    Size("square_8192", "own: a square of 8192", "full", {"x": (8192, 8192)}, {"dim": -1}),
    Size("rows", "KernelBench level 1", "full", {"x": (4096, 393216)}, {"dim": -1}),
]


AXIS = "N rows of 1000 classes"
SWEEP = powers(1, 65536)


def sweep(n: int) -> Size:
    """n rows of ImageNet's classes."""
    return swept(n, {"x": (n, 1000)}, {"dim": -1})


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.softmax(tensors["x"], **size.arguments)
