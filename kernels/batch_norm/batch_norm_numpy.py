"""batch_norm on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/batch_norm.py
#
# Where float32 needs help: with a mean of 10000 and a spread of 1, the mean rounded to float32 is off by up to
# 0.0005, which would show in every y. So the values are centred by the rounded mean m, which loses nothing (x - m is
# exact where x is near m), and the rest of the mean, delta = mean - m, is subtracted where numbers are small again.

import numpy as np

from gpunet.dispatch import kernel


def _axes(x):
    """All axes but the channel's."""
    return (0, *range(2, x.ndim))


def _along_channels(v, x):
    """v (C,), in x's dtype, with axes of length 1 so that it broadcasts against x (N, C, ...)."""
    return v.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 2))


def _channel_sum(x):
    """Sums (C,) in float64."""
    return x.sum(axis=_axes(x), dtype=np.float64)


@kernel("batch_norm.forward", backend="numpy")
def batch_norm_forward_reference(x, w, b, *, eps):
    """Y, mean, var, invstd, with the statistics of x itself."""
    with np.errstate(all="ignore"):  # inf - inf, and 0 / 0 when there are no values
        count = np.float64(x.size // max(x.shape[1], 1))
        mean = _channel_sum(x) / count
        m = mean.astype(x.dtype)
        delta = mean - m
        d = x - _along_channels(m, x)
        y = np.square(d)
        var = np.maximum(_channel_sum(y) / count - delta * delta, 0)  # rounding can leave a zero variance below 0
        invstd = 1 / np.sqrt(var + eps)
        scale = invstd if w is None else invstd * w
        shift = -delta * scale if b is None else b - delta * scale
        np.multiply(d, _along_channels(scale, x), out=y)
        y += _along_channels(shift, x)
    return y, m, var.astype(x.dtype), invstd.astype(x.dtype)


@kernel("batch_norm.forward_eval", backend="numpy")
def batch_norm_forward_eval_reference(x, mean, var, w, b, *, eps):
    """y with given statistics."""
    with np.errstate(all="ignore"):
        scale = 1 / np.sqrt(var.astype(np.float64) + eps)
        y = x - _along_channels(mean, x)
        y *= _along_channels(scale if w is None else scale * w, x)
        if b is not None:
            y += _along_channels(b, x)
    return y


@kernel("batch_norm.grad_wb", backend="numpy")
def batch_norm_grad_wb_reference(gy, x, mean, invstd):
    """gw = sum of gy * xhat, gb = sum of gy."""
    with np.errstate(all="ignore"):
        d = x - _along_channels(mean, x)
        d *= gy
        gw = _channel_sum(d) * (invstd if x.size else 1)  # without values invstd is NaN, and the sum of nothing 0
        gb = _channel_sum(gy)
    return gw.astype(x.dtype), gb.astype(x.dtype)


@kernel("batch_norm.grad_x", backend="numpy")
def batch_norm_grad_x_reference(gy, x, w, mean, invstd, gw, gb):
    """gx = w * invstd * (gy - gb / M - xhat * gw / M), as factor * gy + slope * (x - mean) + level."""
    with np.errstate(all="ignore"):
        count = np.float64(x.size // max(x.shape[1], 1))
        factor = invstd.astype(np.float64) if w is None else invstd.astype(np.float64) * w
        slope = -factor * invstd * gw / count
        level = -factor * gb / count
        gx = x - _along_channels(mean, x)
        gx *= _along_channels(slope, x)
        gx += _along_channels(level, x)
        gx += gy * _along_channels(factor, x)
    return gx


@kernel("batch_norm.grad_x_eval", backend="numpy")
def batch_norm_grad_x_eval_reference(gy, w, invstd):
    """gx = w * invstd * gy."""
    with np.errstate(all="ignore"):
        return gy * _along_channels(invstd if w is None else invstd.astype(np.float64) * w, gy)
