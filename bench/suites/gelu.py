"""Sizes of gelu: activations of networks and rows of a public benchmark, and the tanh form on the small ones."""

from dataclasses import replace

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, elementwise_sizes
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]

SIZES = [
    *elementwise_sizes(approximate="none"),
    *(
        replace(size, name=f"{size.name}_tanh")
        for size in elementwise_sizes(approximate="tanh")
        if size.tier in ("proof", "standard")
    ),
]


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.gelu(tensors["x"], **size.arguments)
