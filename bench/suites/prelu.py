"""Sizes of prelu: one slope a channel, or one for all."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

SIZES = [
    Size("channels", "own: prime sizes, one slope a channel", "proof", {"x": (2, 3, 7, 5), "weight": (3,)}),
    Size("shared", "own: one slope for all", "proof", {"x": (3, 11), "weight": (1,)}),
    Size(
        "reference_cnn",
        "the reference CNN's first activation, batch 32",
        "quick",
        {"x": (32, 75, 28, 28), "weight": (75,)},
    ),
    Size("resnet", "ResNet-50, conv2 of batch 32", "standard", {"x": (32, 64, 56, 56), "weight": (64,)}),
    Size("resnet_256", "ResNet-50, conv2 of batch 256", "full", {"x": (256, 256, 56, 56), "weight": (256,)}),
]


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.prelu(tensors["x"], tensors["weight"])
