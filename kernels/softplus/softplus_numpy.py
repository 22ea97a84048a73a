"""softplus on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/softplus.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("softplus.forward", backend="numpy")
def softplus_forward_reference(x, *, beta, threshold):
    """y = log(1 + exp(beta * x)) / beta, and x where beta * x > threshold."""
    with np.errstate(all="ignore"):  # beta * x may overflow
        z = beta * x
        y = (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta
        return np.where(z > threshold, x, y)


@kernel("softplus.grad_x", backend="numpy")
def softplus_grad_x_reference(gy, x, *, beta, threshold):
    """gx = gy * sigmoid(beta * x), and gy where beta * x > threshold."""
    with np.errstate(all="ignore"):  # exp overflows to inf where the slope is 0
        z = beta * x
        return np.where(z > threshold, gy, gy / (1 + np.exp(-z)))
