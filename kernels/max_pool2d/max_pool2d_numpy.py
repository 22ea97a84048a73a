"""max_pool2d on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/max_pool2d.py
#
# All windows advance together: for position p of the window, ``xp[at]`` is the grid of the elements that the OH * OW
# windows have there (kernels/common/windows.py). Position follows position in row order, as a single thread would
# walk its window, so ties and NaN are settled by the order of the loop.

import numpy as np

from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.windows import cropped, padded, pool_padding, positions


@kernel("max_pool2d.forward", backend="numpy")
def max_pool2d_forward_reference(x, *, kernel_size, stride, padding, dilation, output_size):
    """y and index, both (N, C, OH, OW), from x (N, C, H, W)."""
    N, C = x.shape[:2]
    room = pool_padding(x.shape[2:], output_size, kernel_size, stride, padding, dilation)
    xp = padded(x, room, value=-np.inf)
    y = np.full((N, C, *output_size), -np.inf, dtype=x.dtype)
    index = empty(y.shape, np.uint8 if kernel_size[0] * kernel_size[1] <= 256 else np.int32)
    index[:] = first_inside(output_size, kernel_size, stride, padding, dilation)  # stays where all is -inf
    for p, at in positions(output_size, kernel_size, stride, dilation):
        value = xp[at]
        wins = value > y  # a later equal value does not win, and -inf never does
        wins |= np.isnan(value)  # NaN always wins, and as no number is > NaN it can only lose to a later NaN
        np.maximum(y, value, out=y)  # hands NaN on
        np.maximum(index, wins * index.dtype.type(p), out=index)  # p only grows: the latest winner is the largest
    return y, index


def first_inside(output_size, kernel_size, stride, padding, dilation):
    """For each window the first position k * KW + l inside the image, (OH, OW); padding above and left is skipped."""
    first = []
    for out, s, pad, d in zip(output_size, stride, padding, dilation, strict=True):
        start = np.arange(out) * s - pad  # of each window, negative in the padding
        first.append(np.maximum(0, -(start // d)))  # the smallest k with start + k*d >= 0
    return first[0][:, None] * kernel_size[1] + first[1]


@kernel("max_pool2d.grad_x", backend="numpy")
def max_pool2d_grad_x_reference(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """gx (N, C, H, W) from gy and index, both (N, C, OH, OW).

    A pixel that won in several windows collects from each, in the order of the positions.
    """
    N, C, OH, OW = gy.shape
    room = pool_padding(input_size, (OH, OW), kernel_size, stride, padding, dilation)
    top, bottom, left, right = room
    gxp = np.zeros((N, C, top + input_size[0] + bottom, left + input_size[1] + right), dtype=gy.dtype)
    for p, at in positions((OH, OW), kernel_size, stride, dilation):
        gxp[at] += np.where(index == p, gy, 0)  # chosen, not multiplied: 0 * inf would be NaN
    return cropped(gxp, room, input_size)


@kernel("max_pool2d.gather", backend="numpy")
def max_pool2d_gather_reference(x, index, *, kernel_size, stride, padding, dilation):
    """x (N, C, H, W) at the winning positions index (N, C, OH, OW)."""
    output_size = index.shape[2:]
    xp = padded(x, pool_padding(x.shape[2:], output_size, kernel_size, stride, padding, dilation))
    y = empty(index.shape, x.dtype)
    for p, at in positions(output_size, kernel_size, stride, dilation):
        np.copyto(y, xp[at], where=index == p)  # every element has exactly one p, so all of y is written
    return y
