"""layer_norm on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/layer_norm.py

import numpy as np

from gpunet.dispatch import kernel


def _row_mean(x):
    """Means over the rows, (R, 1), in float64."""
    return x.sum(axis=1, keepdims=True, dtype=np.float64) / np.float64(x.shape[1])


def _xhat(x, mean, invstd):
    """The normalized rows, from statistics (R,)."""
    xhat = x - mean[:, None]
    xhat *= invstd[:, None]
    return xhat


@kernel("layer_norm.forward", backend="numpy")
def layer_norm_forward_reference(x, w, b, *, eps):
    """Y, mean, invstd. Centred in two steps, as kernels/batch_norm/batch_norm_numpy.py explains at its top."""
    with np.errstate(all="ignore"):  # inf - inf
        mean = _row_mean(x)
        m = mean.astype(x.dtype)
        y = x - m
        y -= (mean - m).astype(x.dtype)
        invstd = (1 / np.sqrt(_row_mean(np.square(y)) + eps)).astype(x.dtype)
        y *= invstd
        if w is not None:
            y *= w
        if b is not None:
            y += b
    return y, m[:, 0], invstd[:, 0]


@kernel("layer_norm.grad_wb", backend="numpy")
def layer_norm_grad_wb_reference(gy, x, mean, invstd):
    """gw = sum over rows of gy * xhat, gb = sum over rows of gy."""
    with np.errstate(all="ignore"):
        gw = (gy * _xhat(x, mean, invstd)).sum(axis=0, dtype=np.float64)
        gb = gy.sum(axis=0, dtype=np.float64)
    return gw.astype(x.dtype), gb.astype(x.dtype)


@kernel("layer_norm.grad_x", backend="numpy")
def layer_norm_grad_x_reference(gy, x, w, mean, invstd):
    """gx = invstd * (g - mean of g - xhat * mean of (g * xhat)), g = gy * w."""
    with np.errstate(all="ignore"):
        xhat = _xhat(x, mean, invstd)
        g = gy if w is None else gy * w
        slope = _row_mean(g * xhat).astype(x.dtype)
        level = _row_mean(g).astype(x.dtype)
        xhat *= slope
        gx = g - level
        gx -= xhat
        gx *= invstd[:, None]
    return gx
