"""conv2d on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/conv2d.py
#
# A convolution is a matrix product, once every window of an image is written out as a column:
#
#       w as rows              columns                       y
#     (F, C*KH*KW)     @    (C*KH*KW, OH*OW)      =      (F, OH*OW)         for each image n, and for each group g
#
#     row f:  filter f, its C*KH*KW weights in a line
#     column i*OW + j:  the pixels under window (i, j), in the same order as the weights
#
# The columns take up to KH*KW times the memory of x, and buy that all arithmetic is one call of a tuned matrix
# product. Below, g = 0 .. groups-1 and FG = F/groups, CG = C/groups are one group's filters and channels.

import numpy as np

from gpunet.dispatch import kernel

from ..common.windows import cropped, padded, positions, windows


@kernel("conv2d.forward", backend="numpy")
def conv2d_forward_reference(x, w, b, *, stride, padding, dilation, groups):
    """y (N, F, OH, OW) from x (N, C, H, W), w (F, CG, KH, KW) and b (F,) or None."""
    N = x.shape[0]
    F, CG, KH, KW = w.shape
    view = windows(padded(x, padding), (KH, KW), stride, dilation)  # (N, C, KH, KW, OH, OW), no memory yet
    OH, OW = view.shape[4:]
    columns = view.reshape(N, groups, CG * KH * KW, OH * OW)  # the one copy
    rows = w.reshape(groups, F // groups, CG * KH * KW)
    y = np.matmul(rows, columns).reshape(N, F, OH, OW)
    if b is not None:
        y += b[:, None, None]
    return y


@kernel("conv2d.forward_relu", backend="numpy")
def conv2d_forward_relu_reference(x, w, b, *, stride, padding, dilation, groups):
    """max(y, 0); np.maximum hands NaN on."""
    y = conv2d_forward_reference(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)
    return np.maximum(y, 0, out=y)


@kernel("conv2d.grad_x", backend="numpy")
def conv2d_grad_x_reference(gy, w, *, input_size, stride, padding, dilation, groups):
    """gx (N, C, H, W) from gy (N, F, OH, OW) and w (F, CG, KH, KW).

    The forward pass in reverse. Transposed weights times gy give the gradient of the columns; each position of the
    window then adds its share to the pixels that it was read from. One position at a time, so that the gradient of
    the columns never exists as a whole.
    """
    N, F, OH, OW = gy.shape
    _, CG, KH, KW = w.shape
    (top, bottom, left, right), (H, W) = padding, input_size
    gy_rows = gy.reshape(N, groups, F // groups, OH * OW)
    taps = np.ascontiguousarray(w.reshape(groups, F // groups, CG, KH * KW).transpose(3, 0, 2, 1))  # (p, g, CG, FG)
    gxp = np.zeros((N, groups * CG, top + H + bottom, left + W + right), dtype=gy.dtype)
    for p, index in positions((OH, OW), (KH, KW), stride, dilation):
        gxp[index] += np.matmul(taps[p], gy_rows).reshape(N, groups * CG, OH, OW)
    return cropped(gxp, padding, input_size)


@kernel("conv2d.grad_w", backend="numpy")
def conv2d_grad_w_reference(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """gw (F, CG, KH, KW) from gy (N, F, OH, OW) and x (N, C, H, W).

    The sum runs over all images and all pixels at once: N*OH*OW is the inner axis of a single matrix product a group.
    """
    N, F, OH, OW = gy.shape
    CG, (KH, KW) = x.shape[1] // groups, kernel_size
    view = windows(padded(x, padding), kernel_size, stride, dilation)[..., :OH, :OW]  # (N, C, KH, KW, OH, OW)
    columns = view.transpose(1, 2, 3, 0, 4, 5).reshape(groups, CG * KH * KW, N * OH * OW)  # the one big copy
    gy_rows = gy.transpose(1, 0, 2, 3).reshape(groups, F // groups, N * OH * OW)
    return np.matmul(gy_rows, columns.swapaxes(1, 2)).reshape(F, CG, KH, KW)


@kernel("conv2d.grad_b", backend="numpy")
def conv2d_grad_b_reference(gy):
    """gb (F,) from gy (N, F, OH, OW): the bias is added to every image and pixel, so it hears from each."""
    return gy.sum(axis=(0, 2, 3))
