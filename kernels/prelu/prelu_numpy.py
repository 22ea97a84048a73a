"""prelu on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/prelu.py

import numpy as np

from gpunet.dispatch import kernel


def _along_channels(w, x):
    """w as an array that broadcasts against x: without axes, or with w along axis 1."""
    return w.reshape(()) if w.size == 1 else w.reshape(-1, *[1] * (x.ndim - 2))


@kernel("prelu.forward", backend="numpy")
def prelu_forward_reference(x, w):
    """y = x above 0, w * x elsewhere."""
    with np.errstate(all="ignore"):  # 0 * inf, even where x itself is taken
        return np.where(x > 0, x, _along_channels(w, x) * x)


@kernel("prelu.grad_x", backend="numpy")
def prelu_grad_x_reference(gy, x, w):
    """gx = gy above 0, w * gy elsewhere."""
    with np.errstate(all="ignore"):
        return np.where(x > 0, gy, _along_channels(w, x) * gy)


@kernel("prelu.grad_w", backend="numpy")
def prelu_grad_w_reference(gy, x, w):
    """gw = sum of gy * x where w was applied, over everything that shares one w."""
    with np.errstate(all="ignore"):
        slopes = np.where(x > 0, 0, gy * x)
        axes = tuple(axis for axis in range(x.ndim) if axis != 1 or w.size == 1)
        return slopes.sum(axis=axes, dtype=np.float64).astype(x.dtype).reshape(w.shape)
