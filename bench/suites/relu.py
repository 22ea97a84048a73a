"""Sizes of relu: activations of networks, and rows of a public benchmark."""

from dataclasses import replace

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, elementwise_sizes
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

#: Each once with y kept for backward, and once with one bit an element.
SIZES = [*elementwise_sizes(), *(replace(each, name=f"{each.name}_mask", fused=True) for each in elementwise_sizes())]


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.relu(tensors["x"])
