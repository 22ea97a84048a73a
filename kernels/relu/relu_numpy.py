"""relu on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/relu.py

import numpy as np

from gpunet.dispatch import kernel

from ..common.shapes import cdiv


@kernel("relu.forward", backend="numpy")
def relu_forward_reference(x):
    """y = max(x, 0); np.maximum, unlike a comparison, hands NaN on."""
    return np.maximum(x, 0)


@kernel("relu.grad_x", backend="numpy")
def relu_grad_x_reference(gy, y):
    """The gy of every element that was let through."""
    return np.where(y <= 0, 0, gy)


@kernel("relu.forward_mask", backend="numpy")
def relu_forward_mask_reference(x):
    """Y, and a bit an element: 1 where y <= 0 is false."""
    y = np.maximum(x, 0)
    bits = np.packbits(np.logical_not(y <= 0), bitorder="little")
    words = np.zeros(4 * cdiv(x.size, 32), np.uint8)
    words[: bits.size] = bits
    return y, words.view("<u4").astype(np.uint32)


@kernel("relu.grad_x_mask", backend="numpy")
def relu_grad_x_mask_reference(gy, mask):
    """The gy of every element whose bit is 1."""
    bits = np.unpackbits(np.ascontiguousarray(mask, "<u4").view(np.uint8), count=gy.size, bitorder="little")
    return np.where(bits.reshape(gy.shape), gy, 0)
