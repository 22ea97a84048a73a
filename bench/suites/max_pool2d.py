"""Sizes of max_pool2d: LeNet-5, VGG, ResNet-50 and rows of a public benchmark."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, powers, swept
from . import normal as tensors

__all__ = ["AXIS", "SIZES", "SWEEP", "run", "sweep", "tensors"]

HALVING = {"kernel_size": 2, "stride": 2}
RESNET = {"kernel_size": 3, "stride": 2, "padding": 1}

SIZES = [
    Size(
        "ceil",
        "own: windows beyond the edge, each side its own size",
        "proof",
        {"x": (2, 3, 9, 8)},
        {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0), "ceil_mode": True},
    ),
    Size(
        "dilated",
        "own: windows with holes",
        "proof",
        {"x": (1, 2, 11, 7)},
        {"kernel_size": 3, "stride": 1, "dilation": 2},
    ),
    Size("whole_packs", "own: rows of whole 16 bytes", "proof", {"x": (2, 3, 8, 16)}, HALVING),
    Size("whole_packs_overlapping", "own: the same, windows that overlap", "proof", {"x": (1, 2, 8, 16)}, RESNET),
    Size("lenet", "LeNet-5, first pooling", "quick", {"x": (64, 6, 24, 24)}, HALVING),
    Size("reference_cnn", "the reference CNN, first pooling, batch 32", "quick", {"x": (32, 75, 28, 28)}, HALVING),
    Size("resnet_2", "ResNet-50, after the stem, batch 2 of 64", "quick", {"x": (2, 64, 112, 112)}, RESNET),
    Size("vgg_28", "VGG, fourth pooling", "standard", {"x": (64, 512, 28, 28)}, HALVING),
    Size("resnet", "ResNet-50, after the stem", "standard", {"x": (64, 64, 112, 112)}, RESNET),
    Size("vgg_224", "VGG, first pooling", "full", {"x": (64, 64, 224, 224)}, HALVING),
    Size(
        "overlapping",
        "KernelBench level 1",
        "full",
        {"x": (32, 64, 512, 512)},
        {"kernel_size": 4, "stride": 1, "padding": 1},
    ),
]


AXIS = "N images of 6 x 24 x 24, LeNet-5's first pooling"
SWEEP = powers(1, 8192)


def sweep(n: int) -> Size:
    """LeNet-5's first pooling of n images."""
    return swept(n, {"x": (n, 6, 24, 24)}, HALVING)


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.max_pool2d(tensors["x"], **size.arguments)
