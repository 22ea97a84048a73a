"""Sizes of dropout: a dense layer of a network, and a square of a public benchmark."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, powers, swept
from . import normal as tensors

__all__ = ["AXIS", "SIZES", "SWEEP", "run", "sweep", "tensors"]

SIZES = [
    Size("primes", "own: no multiple of a block of four words", "proof", {"x": (7, 11, 3)}, {"p": 0.3}),
    Size("dense", "the reference CNN's dense layer, batch 32", "quick", {"x": (32, 512)}, {"p": 0.5}),
    Size("rows_1024", "own: a part of the square of 8192", "quick", {"x": (512, 1024)}, {"p": 0.2}),
    Size("rows_4096", "own: a part of the square of 8192", "standard", {"x": (2048, 4096)}, {"p": 0.2}),
    Size("rows_8192", "own: a square of 8192", "full", {"x": (8192, 8192)}, {"p": 0.2}),
]


AXIS = "N numbers, half of them dropped"
SWEEP = powers(256, 2**26)


def sweep(n: int) -> Size:
    """n numbers in one axis."""
    return swept(n, {"x": (n,)}, {"p": 0.5})


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.dropout(tensors["x"], training=True, **size.arguments)
