"""Sizes of softplus: activations of networks, and rows of a public benchmark."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, elementwise_sizes
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

SIZES = elementwise_sizes(beta=1.0, threshold=20.0)


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.softplus(tensors["x"], **size.arguments)
