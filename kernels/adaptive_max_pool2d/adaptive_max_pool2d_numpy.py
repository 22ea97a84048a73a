"""adaptive_max_pool2d on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/adaptive_max_pool2d.py

import numpy as np

from gpunet.dispatch import kernel

from ..common.windows import adaptive_index


@kernel("adaptive_max_pool2d.forward", backend="numpy")
def adaptive_max_pool2d_forward_reference(x, *, output_size):
    """y and index (int64, iy * W + ix), both (N, C, OH, OW), from x (N, C, H, W)."""
    N, C, H, W = x.shape
    OH, OW = output_size
    iy, inside_y = adaptive_index(H, OH)  # (OH, KH), iy in 0 .. H-1
    ix, inside_x = adaptive_index(W, OW)  # (OW, KW), ix in 0 .. W-1
    # Each window's elements in row order on the last axis, KH * KW of them: (OH, OW, KH * KW).
    inside = (inside_y[:, None, :, None] & inside_x[None, :, None, :]).reshape(OH, OW, -1)
    place = (iy[:, None, :, None] * W + ix[None, :, None, :]).reshape(OH, OW, -1)
    # Short windows are filled up with -inf. It is never their first element, so it wins nothing.
    window = np.where(inside, x.reshape(N, C, H * W)[:, :, place], -np.inf)  # (N, C, OH, OW, KH * KW)
    winner = window.argmax(axis=-1)  # the first of equals, or the first NaN
    # Of several NaN the last wins: the first one of the window read backwards.
    is_nan = np.isnan(window)
    last_nan = is_nan.shape[-1] - 1 - is_nan[..., ::-1].argmax(axis=-1)
    winner = np.where(is_nan.any(axis=-1), last_nan, winner)
    index = np.take_along_axis(np.broadcast_to(place, window.shape), winner[..., None], axis=-1)[..., 0]
    return adaptive_max_pool2d_gather_reference(x, index), index


@kernel("adaptive_max_pool2d.grad_x", backend="numpy")
def adaptive_max_pool2d_grad_x_reference(gy, index, *, input_size):
    """gx (N, C, H, W) from gy and index, both (N, C, OH, OW)."""
    N, C = gy.shape[:2]
    H, W = input_size
    gx = np.zeros(N * C * H * W, dtype=gy.dtype)
    first_pixel = np.arange(N * C).reshape(N, C, 1, 1) * (H * W)  # where each image's plane begins in gx
    np.add.at(gx, (first_pixel + index).ravel(), gy.ravel())  # unlike +=, counts a pixel that won twice twice
    return gx.reshape(N, C, H, W)


@kernel("adaptive_max_pool2d.gather", backend="numpy")
def adaptive_max_pool2d_gather_reference(x, index):
    """x (N, C, H, W) at the places index (N, C, OH, OW)."""
    N, C, OH, OW = index.shape
    planes = x.reshape(N, C, x.shape[2] * x.shape[3])
    return np.take_along_axis(planes, index.reshape(N, C, OH * OW), axis=2).reshape(N, C, OH, OW)
