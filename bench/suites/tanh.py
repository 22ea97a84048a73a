"""Sizes of tanh: activations of networks, and rows of a public benchmark."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, elementwise_sizes
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

SIZES = elementwise_sizes()


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.tanh(tensors["x"])
