"""tanh on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/tanh.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("tanh.forward", backend="numpy")
def tanh_forward_reference(x):
    """y = tanh(x)."""
    return np.tanh(x)


@kernel("tanh.grad_x", backend="numpy")
def tanh_grad_x_reference(gy, y):
    """gx = gy * (1 - y * y)."""
    with np.errstate(all="ignore"):  # gy may hold inf where the slope is 0
        return gy * (1 - y * y)
