"""adaptive_avg_pool2d on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/adaptive_avg_pool2d.py

import numpy as np

from gpunet.dispatch import kernel

from ..common.windows import adaptive_index


@kernel("adaptive_avg_pool2d.forward", backend="numpy")
def adaptive_avg_pool2d_forward_reference(x, *, output_size):
    """y (N, C, OH, OW) from x (N, C, H, W)."""
    y = window_sums(x, output_size)
    y /= areas(x.shape[2:], output_size).astype(x.dtype)
    return y


@kernel("adaptive_avg_pool2d.grad_x", backend="numpy")
def adaptive_avg_pool2d_grad_x_reference(gy, *, input_size):
    """gx (N, C, H, W) from gy (N, C, OH, OW).

    The windows that hold pixel iy are themselves a window of the outputs, by the same formula with H and OH exchanged
    (title page): so this is again a sum over windows, of each output's share.
    """
    share = gy / areas(input_size, gy.shape[2:]).astype(gy.dtype)
    return window_sums(share, input_size)


def window_sums(x, output_size):
    """The sum under each window, (N, C, OH, OW).

    A window is a rectangle: its rows are added up first, then its columns, KH + KW additions instead of KH * KW.
    """
    index, inside = adaptive_index(x.shape[2], output_size[0])  # (OH, KH)
    # Chosen, not multiplied by 0 or 1: an inf or NaN just beyond a short window must not get in as 0 * inf.
    rows = np.where(inside[:, :, None], x.take(index, axis=2), 0).sum(axis=3)  # (N, C, OH, KH, W) -> (N, C, OH, W)
    index, inside = adaptive_index(x.shape[3], output_size[1])  # (OW, KW)
    return np.where(inside, rows.take(index, axis=3), 0).sum(axis=4)  # (N, C, OH, OW, KW) -> (N, C, OH, OW)


def areas(input_size, output_size):
    """The number of elements in each window, (OH, OW)."""
    lengths = [adaptive_index(size, out)[1].sum(axis=1) for size, out in zip(input_size, output_size, strict=True)]
    return lengths[0][:, None] * lengths[1]
