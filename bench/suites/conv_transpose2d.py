"""Sizes of conv_transpose2d. It has no kernels of its own: its entries are those of conv2d, with roles exchanged."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

DOUBLING = {"stride": 2, "padding": 1}  # with a 4x4 window: twice as many pixels on each side

SIZES = [
    Size(
        "output_padding",
        "own: rows that belong to no window",
        "proof",
        {"x": (2, 4, 5, 3), "weight": (4, 3, 3, 3), "bias": (3,)},
        {"stride": 2, "padding": 1, "output_padding": 1},
    ),
    Size(
        "groups",
        "own: two groups",
        "proof",
        {"x": (1, 4, 4, 5), "weight": (4, 3, 2, 3), "bias": (6,)},
        {"groups": 2},
    ),
    Size(
        "dcgan_4",
        "DCGAN's generator at 8 pixels, batch 4 of 64",
        "quick",
        {"x": (4, 256, 8, 8), "weight": (256, 128, 4, 4), "bias": (128,)},
        DOUBLING,
    ),
    Size(
        "dcgan_64",
        "DCGAN's generator at 8 pixels",
        "standard",
        {"x": (64, 256, 8, 8), "weight": (256, 128, 4, 4), "bias": (128,)},
        DOUBLING,
    ),
]


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.conv_transpose2d(tensors["x"], tensors["weight"], tensors["bias"], **size.arguments)
