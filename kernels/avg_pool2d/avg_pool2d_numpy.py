"""avg_pool2d on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/avg_pool2d.py
#
# All windows advance together: for position p of the window, ``xp[at]`` is the grid of the elements that the OH * OW
# windows have there (kernels/common/windows.py).

import numpy as np

from gpunet.dispatch import kernel

from ..common.windows import cropped, padded, pool_padding, positions


@kernel("avg_pool2d.forward", backend="numpy")
def avg_pool2d_forward_reference(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """y (N, C, OH, OW) from x (N, C, H, W)."""
    N, C, H, W = x.shape
    xp = padded(x, pool_padding((H, W), output_size, kernel_size, stride, padding))
    y = np.zeros((N, C, *output_size), dtype=x.dtype)
    for _, at in positions(output_size, kernel_size, stride):
        y += xp[at]
    divisor = divisors((H, W), output_size, kernel_size, stride, padding, count_include_pad, divisor_override)
    y /= divisor.astype(x.dtype)
    return y


@kernel("avg_pool2d.grad_x", backend="numpy")
def avg_pool2d_grad_x_reference(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """gx (N, C, H, W) from gy (N, C, OH, OW): every position of a window gets the same share."""
    N, C, *output_size = gy.shape
    divisor = divisors(input_size, output_size, kernel_size, stride, padding, count_include_pad, divisor_override)
    share = gy / divisor.astype(gy.dtype)
    room = pool_padding(input_size, output_size, kernel_size, stride, padding)
    top, bottom, left, right = room
    gxp = np.zeros((N, C, top + input_size[0] + bottom, left + input_size[1] + right), dtype=gy.dtype)
    for _, at in positions(output_size, kernel_size, stride):
        gxp[at] += share
    return cropped(gxp, room, input_size)


def divisors(input_size, output_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """What each window is divided by, (OH, OW), or () where ``divisor_override`` says it for all."""
    if divisor_override is not None:
        return np.asarray(divisor_override)
    counts = []
    for size, out, kernel_length, s, pad in zip(input_size, output_size, kernel_size, stride, padding, strict=True):
        start = np.arange(out) * s - pad  # negative in the padding
        stop = np.minimum(start + kernel_length, size + pad)  # beyond the padding nothing counts
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, size)
        counts.append(stop - start)
    return counts[0][:, None] * counts[1]
