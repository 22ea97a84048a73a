"""softmax on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/softmax.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("softmax.forward", backend="numpy")
def softmax_forward_reference(x, *, axis):
    """y = exp(x - m) / sum of exp(x - m), m the maximum along the axis."""
    with np.errstate(all="ignore"):  # inf - inf
        y = x - x.max(axis=axis, keepdims=True, initial=-np.inf)
        np.exp(y, out=y)
        y /= y.sum(axis=axis, keepdims=True)
    return y


@kernel("softmax.grad_x", backend="numpy")
def softmax_grad_x_reference(gy, y, *, axis):
    """gx = y * (gy - sum of gy * y)."""
    with np.errstate(all="ignore"):  # gy may hold inf
        gx = gy * y
        gx = gy - gx.sum(axis=axis, keepdims=True)
        gx *= y
    return gx
