"""Sizes of relu: activations of networks, and rows of a public benchmark."""

from dataclasses import replace

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, elementwise_sizes, powers, swept
from . import normal as tensors

__all__ = ["AXIS", "SIZES", "SWEEP", "run", "sweep", "tensors"]

#: Each once with y kept for backward, and once with one bit an element.
SIZES = [*elementwise_sizes(), *(replace(each, name=f"{each.name}_mask", fused=True) for each in elementwise_sizes())]


AXIS = "N numbers"
SWEEP = powers(256, 2**26)


def sweep(n: int) -> Size:
    """n numbers in one axis."""
    return swept(n, {"x": (n,)})


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    return F.relu(tensors["x"])
