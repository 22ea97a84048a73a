"""sigmoid on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/sigmoid.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("sigmoid.forward", backend="numpy")
def sigmoid_forward_reference(x):
    """y = 1 / (1 + exp(-x))."""
    with np.errstate(all="ignore"):  # exp overflows to inf where y is 0
        return 1 / (1 + np.exp(-x))


@kernel("sigmoid.grad_x", backend="numpy")
def sigmoid_grad_x_reference(gy, y):
    """gx = gy * y * (1 - y)."""
    with np.errstate(all="ignore"):  # gy may hold inf where y is 0
        return gy * y * (1 - y)
