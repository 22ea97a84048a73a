"""How a window slides over an image, for the NumPy definitions.

All functions speak of a *padded* image. One window has KH * KW positions, numbered ``p = k * KW + l`` in row order.
Two ways to look at the same numbers::

    windows(xp)      every window spelled out: (N, C, KH, KW, OH, OW). A view, nothing is copied.
    positions(...)   for one position p at a time, the elements that all OH * OW windows have there: a regular grid
                     with steps of one stride.

                     . a . a . .          stride 2, window 2 x 2, position p = 1 (k = 0, l = 1):
                     . . . . . .          the elements marked a, one for each window
                     . a . a . .

The second way needs a Python loop over KH * KW positions, and no memory beyond one output. It also runs backwards:
adding into such a grid is the adjoint of reading from it, and no two windows share an element of the *same* grid,
so ``+=`` is safe.
"""

import numpy as np

from .shapes import adaptive_window, reach


def padded(x, padding, value=0.0):
    """x (N, C, H, W) with ``padding`` = (top, bottom, left, right) elements of ``value`` around it.

    x itself, not a copy, when there is nothing to add: callers only read the result.
    """
    top, bottom, left, right = padding
    if not any(padding):
        return x
    N, C, H, W = x.shape
    xp = np.full((N, C, top + H + bottom, left + W + right), value, dtype=x.dtype)
    xp[:, :, top : top + H, left : left + W] = x
    return xp


def cropped(xp, padding, input_size):
    """The (N, C, H, W) inside of a padded image, contiguous: the adjoint of ``padded``."""
    if not any(padding):
        return xp
    (top, _, left, _), (H, W) = padding, input_size
    return np.ascontiguousarray(xp[:, :, top : top + H, left : left + W])


def windows(xp, kernel_size, stride, dilation):
    """Every window of the padded image xp (N, C, H, W): a read-only view (N, C, KH, KW, OH, OW).

    An element shared by several windows appears several times, at the same address.
    """
    (KH, KW), (sh, sw), (dh, dw) = kernel_size, stride, dilation
    span = (KH - 1) * dh + 1, (KW - 1) * dw + 1  # the box of one window, the holes of a dilated one included
    boxes = np.lib.stride_tricks.sliding_window_view(xp, span, axis=(2, 3))  # (N, C, all tops, all lefts, box)
    return boxes[:, :, ::sh, ::sw, ::dh, ::dw].transpose(0, 1, 4, 5, 2, 3)


def positions(output_size, kernel_size, stride, dilation=(1, 1)):
    """For p = 0 .. KH*KW-1: ``p, index``, where ``xp[index]`` is the (N, C, OH, OW) grid of position p.

    Row order, which decides who comes first when values tie.
    """
    (OH, OW), (KH, KW), (sh, sw), (dh, dw) = output_size, kernel_size, stride, dilation
    for p in range(KH * KW):
        top, left = p // KW * dh, p % KW * dw  # where position p of the first window lies
        rows = slice(top, top + (OH - 1) * sh + 1, sh)
        cols = slice(left, left + (OW - 1) * sw + 1, sw)
        yield p, (slice(None), slice(None), rows, cols)


def pool_padding(input_size, output_size, kernel_size, stride, padding, dilation=(1, 1)):
    """The (top, bottom, left, right) that makes every pooling window lie inside the padded image.

    At the bottom and on the right this can be more than ``padding``, because the last window may stick out.
    """
    (H, W), (OH, OW), (KH, KW), (sh, sw), (ph, pw), (dh, dw) = (
        input_size, output_size, kernel_size, stride, padding, dilation
    )  # fmt: skip
    bottom = max(0, reach(OH, KH, sh, dh) - ph - H)
    right = max(0, reach(OW, KW, sw, dw) - pw - W)
    return ph, bottom, pw, right


def adaptive_index(size, out):
    """The windows of one axis in adaptive pooling, as arrays: ``index, inside``, both (out, K).

    K is the longest window. index[i, k] is element k of window i (0 .. size-1), and inside[i, k] is False where
    window i is shorter than K; index repeats the last element there, and its value must not be used.
    """
    bounds = np.array([adaptive_window(i, size, out) for i in range(out)])  # (out, 2): start, stop
    starts, stops = bounds[:, :1], bounds[:, 1:]
    index = starts + np.arange((stops - starts).max())
    return np.minimum(index, stops - 1), index < stops
