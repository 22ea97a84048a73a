"""Sizes of adaptive_max_pool2d: heads of networks."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

SIZES = [
    Size("uneven", "own: windows of several sizes that overlap", "proof", {"x": (2, 3, 7, 5)}, {"output_size": (3, 4)}),
    Size("growing", "own: more outputs than pixels", "proof", {"x": (1, 2, 3, 2)}, {"output_size": (5, 3)}),
    Size("head_16", "the shape of ResNet-50's head, batch 16", "quick", {"x": (16, 2048, 7, 7)}, {"output_size": 1}),
    Size("head", "the shape of ResNet-50's head", "standard", {"x": (64, 2048, 7, 7)}, {"output_size": 1}),
]


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.adaptive_max_pool2d(tensors["x"], **size.arguments)
