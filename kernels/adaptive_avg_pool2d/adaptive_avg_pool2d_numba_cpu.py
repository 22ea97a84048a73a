"""adaptive_avg_pool2d on Numba for the processor: rows are added up in vectors, then the sums under each window."""
# op: gpunet/ops/adaptive_avg_pool2d.py
#
# task    some planes, of one channel of one image each: over_planes in kernels/common/pooling_numba_cpu.py
# lanes   neighbours in a row; all pixels of a plane where that is one window
# reads   a row of pixels once for each row of windows that holds it
# needs   arrays in rows; others are copied first

from functools import lru_cache

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.pooling_numba_cpu import add_rows, many, over_planes, planes_of, real
from ..common.shapes import adaptive_window


@lru_cache(maxsize=256)
def _windows(size, out):
    """Where the windows of an axis begin and end: (2, out)."""
    return np.array([adaptive_window(i, size, out) for i in range(out)]).T.copy()


@lru_cache(maxsize=256)
def _lengths(size, out, dtype):
    begins, ends = _windows(size, out)
    return (ends - begins).astype(dtype)


@compiled
def window_sums_loop(y, x, rows, columns, heights, widths, forward):
    """The sums under windows of rows[0, i] .. rows[1, i] - 1 and columns likewise, plane by plane.

    Forward each sum is divided by its window's area, heights[i] * widths[j]; backward each of x by its own before.
    """
    (P, H, W), (_, OH, OW) = x.shape, y.shape
    xs, ys = x.reshape(-1), y.reshape(-1)
    sums, shares = np.empty(W, x.dtype), np.empty(0 if forward else H * W, x.dtype)
    for p in range(P):
        if not forward:
            for i in range(H):
                for j in range(W):
                    shares[i * W + j] = x[p, i, j] / (heights[i] * widths[j])
        for i in range(OH):
            if i > 0 and rows[0, i] == rows[0, i - 1] and rows[1, i] == rows[1, i - 1]:  # the same windows again
                for j in range(OW):
                    y[p, i, j] = y[p, i - 1, j]
                continue
            if forward:
                add_rows(sums, 0, xs, p * H * W, W, rows[0, i], rows[1, i])
            else:
                add_rows(sums, 0, shares, 0, W, rows[0, i], rows[1, i])
            for j in range(OW):
                total = sums[columns[0, j]]
                for c in range(columns[0, j] + 1, columns[1, j]):
                    total += sums[np.uint64(c)]
                ys[(p * OH + i) * OW + j] = total / (heights[i] * widths[j]) if forward else total


@compiled(fastmath={"reassoc"})
def means_loop(y, x):
    """The mean of each plane; in vectors, so in an order of the vectors'."""
    P, H, W = x.shape
    planes = x.reshape(P, H * W)
    for p in range(P):
        total = x.dtype.type(0)
        for e in range(H * W):
            total += planes[p, e]
        y[p, 0, 0] = total / x.dtype.type(H * W)


@kernel("adaptive_avg_pool2d.forward", backend="numba_cpu", variant="plain", when=real, pays=many)
def adaptive_avg_pool2d_forward_plain(x, *, output_size):
    """Rows of windows one after the other, or all of a plane at once."""
    y = empty((*x.shape[:2], *output_size), x.dtype)
    if output_size == (1, 1):
        over_planes(means_loop, planes_of(y), planes_of(x))
    else:
        over_planes(window_sums_loop, planes_of(y), planes_of(x), numbers=_tables(x, x.shape[2:], output_size, True))
    return y


@compiled
def fill_loop(gx, gy):
    """One share for all pixels of a plane."""
    P, H, W = gx.shape
    planes, area = gx.reshape(P, H * W), gy.dtype.type(H * W)
    for p in range(P):
        share = gy[p, 0, 0] / area
        for e in range(H * W):
            planes[p, e] = share


@kernel("adaptive_avg_pool2d.grad_x", backend="numba_cpu", variant="plain", when=real)
def adaptive_avg_pool2d_grad_x_plain(gy, *, input_size):
    """The windows that hold a pixel are a window of the outputs, so forward's loop the other way round."""
    gx = empty((*gy.shape[:2], *input_size), gy.dtype)
    if gy.shape[2:] == (1, 1):
        over_planes(fill_loop, planes_of(gx), planes_of(gy))
    else:
        numbers = _tables(gy, input_size, gy.shape[2:], False)
        over_planes(window_sums_loop, planes_of(gx), planes_of(gy), numbers=numbers)
    return gx


def _tables(like, input_size, output_size, forward):
    """What the loop takes beside its arrays: the windows over its second array, and the sides of the op's windows."""
    sizes = list(zip(input_size, output_size, strict=True))
    windows = [_windows(*(each if forward else each[::-1])) for each in sizes]
    return (*windows, *[_lengths(*each, like.dtype) for each in sizes], forward)
