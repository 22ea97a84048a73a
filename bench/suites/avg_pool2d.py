"""Sizes of avg_pool2d: LeNet-5, the shapes of max_pool2d, and a large window of a public benchmark."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

SIZES = [
    Size(
        "ceil",
        "own: windows beyond the edge, the padding counted",
        "proof",
        {"x": (2, 3, 9, 8)},
        {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 1), "ceil_mode": True},
    ),
    Size(
        "pixels_alone",
        "own: the padding not counted",
        "proof",
        {"x": (1, 2, 7, 5)},
        {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
    ),
    Size("whole_packs", "own: rows of whole 16 bytes", "proof", {"x": (2, 3, 8, 16)}, {"kernel_size": 2}),
    Size("lenet", "LeNet-5, first pooling", "quick", {"x": (64, 6, 24, 24)}, {"kernel_size": 2, "stride": 2}),
    Size(
        "resnet_2",
        "the shape of ResNet-50's pooling, batch 2 of 64",
        "quick",
        {"x": (2, 64, 112, 112)},
        {"kernel_size": 3, "stride": 2, "padding": 1},
    ),
    Size("vgg_28", "the shape of VGG's fourth pooling", "standard", {"x": (64, 512, 28, 28)}, {"kernel_size": 2}),
    Size("window_11", "KernelBench level 1", "full", {"x": (16, 64, 2048, 2048)}, {"kernel_size": 11}),
]


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.avg_pool2d(tensors["x"], **size.arguments)
