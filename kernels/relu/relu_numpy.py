"""relu on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/relu.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("relu.forward", backend="numpy")
def relu_forward_reference(x):
    """y = max(x, 0); np.maximum, unlike a comparison, hands NaN on."""
    return np.maximum(x, 0)


@kernel("relu.grad_x", backend="numpy")
def relu_grad_x_reference(gy, y):
    """The gy of every element that was let through."""
    return np.where(y <= 0, 0, gy)
