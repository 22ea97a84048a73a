"""leaky_relu on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/leaky_relu.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("leaky_relu.forward", backend="numpy")
def leaky_relu_forward_reference(x, *, negative_slope):
    """y = x above 0, negative_slope * x elsewhere."""
    with np.errstate(all="ignore"):  # 0 * inf, even where x itself is taken
        return np.where(x > 0, x, negative_slope * x)


@kernel("leaky_relu.grad_x", backend="numpy")
def leaky_relu_grad_x_reference(gy, x, *, negative_slope):
    """gx = gy above 0, negative_slope * gy elsewhere."""
    with np.errstate(all="ignore"):
        return np.where(x > 0, gy, negative_slope * gy)
