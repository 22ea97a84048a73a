"""log_softmax on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/log_softmax.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("log_softmax.forward", backend="numpy")
def log_softmax_forward_reference(x, *, axis):
    """y = (x - m) - log(sum of exp(x - m)), m the maximum along the axis."""
    with np.errstate(all="ignore"):  # inf - inf
        y = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
        y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return y


@kernel("log_softmax.grad_x", backend="numpy")
def log_softmax_grad_x_reference(gy, y, *, axis):
    """gx = gy - exp(y) * sum of gy."""
    with np.errstate(all="ignore"):  # gy may hold inf
        gx = np.exp(y)
        gx *= gy.sum(axis=axis, keepdims=True)
        return np.subtract(gy, gx, out=gx)
