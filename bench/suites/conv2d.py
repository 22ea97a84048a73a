"""Sizes of conv2d: layers of LeNet-5, VGG, GoogLeNet and ResNet-50, most of them DeepBench's."""

from typing import Any

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, powers, swept
from . import normal as tensors

__all__ = ["AXIS", "SIZES", "SWEEP", "run", "sweep", "tensors"]


def _layer(
    name: str, origin: str, tier: str, x: tuple[int, int, int, int], filters: int, window: Any, **arguments: Any
) -> Size:
    kh, kw = window if isinstance(window, tuple) else (window, window)
    weight = (filters, x[1] // arguments.get("groups", 1), kh, kw)
    shapes = {"x": x, "weight": weight, "bias": (filters,)}
    return Size(name, origin, tier, shapes, arguments, fused="activation" in arguments)


SIZES: list[Size] = [
    _layer("uneven", "own: each side with its own stride, padding and dilation", "proof", (2, 3, 9, 8), 5, (3, 2),
           stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
    _layer("groups", "own: two groups, one image", "proof", (1, 4, 7, 5), 6, 3, padding=1, groups=2),
    _layer("depthwise", "own: one filter a channel", "proof", (3, 5, 6, 6), 5, 3, padding=1, groups=5),
    _layer("pixel", "own: images of one pixel", "proof", (3, 2, 1, 1), 4, 1),
    _layer("relu", "own: uneven sizes", "proof", (2, 3, 9, 8), 5, 3, padding=1, activation="relu"),
    _layer("lenet_1", "LeNet-5, first convolution", "quick", (64, 1, 28, 28), 6, 5),
    _layer("lenet_2", "LeNet-5, second convolution", "quick", (64, 6, 12, 12), 16, 5),
    _layer("reference_cnn_1", "reference CNN, first layer, batch 32", "quick", (32, 1, 28, 28), 75, 3, padding=1),
    _layer("reference_cnn_2", "reference CNN, second layer, batch 32", "quick", (32, 75, 14, 14), 50, 3, padding=1),
    _layer("reference_cnn_2_relu", "reference CNN, second layer, batch 32", "quick", (32, 75, 14, 14), 50, 3, padding=1,
           activation="relu"),
    _layer("resnet_56", "ResNet-50, 3x3 at 56 pixels, batch 2 of 32", "quick", (2, 64, 56, 56), 64, 3, padding=1),
    _layer("stem", "DeepBench and ResNet-50, stem", "standard", (16, 3, 224, 224), 64, 7, stride=2, padding=3),
    _layer("resnet_7", "DeepBench, 3x3 at 7 pixels", "standard", (16, 512, 7, 7), 512, 3, padding=1),
    _layer("pointwise", "ResNet-50, 1x1 (DeepBench has batch 16)", "standard", (32, 64, 56, 56), 256, 1),
    _layer("pointwise_2", "DeepBench, 1x1 with stride 2", "standard", (16, 256, 56, 56), 128, 1, stride=2),
    _layer("googlenet", "DeepBench and GoogLeNet, 5x5", "standard", (16, 192, 28, 28), 32, 5, padding=2),
    _layer("resnet_56_32", "ResNet-50, 3x3 at 56 pixels", "full", (32, 64, 56, 56), 64, 3, padding=1),
    _layer("resnet_56_32_relu", "ResNet-50, 3x3 at 56 pixels", "full", (32, 64, 56, 56), 64, 3, padding=1,
           activation="relu"),
    _layer("vgg_224", "DeepBench and VGG, first convolution", "full", (16, 3, 224, 224), 64, 3, padding=1),
    _layer("vgg_112", "DeepBench and VGG", "full", (16, 64, 112, 112), 128, 3, padding=1),
    _layer("vgg_56", "DeepBench and VGG", "full", (16, 128, 56, 56), 256, 3, padding=1),
    _layer("vgg_28", "DeepBench and VGG", "full", (16, 256, 28, 28), 512, 3, padding=1),
]  # fmt: skip


AXIS = "N images of 6 x 12 x 12 under 16 filters of 5 x 5, LeNet-5's second convolution"
SWEEP = powers(1, 4096)


def sweep(n: int) -> Size:
    """LeNet-5's second convolution on n images."""
    return swept(n, {"x": (n, 6, 12, 12), "weight": (16, 6, 5, 5), "bias": (16,)})


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.conv2d(tensors["x"], tensors["weight"], tensors["bias"], **size.arguments)
