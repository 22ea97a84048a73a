"""softmax on Numba for the processor: vectors along a row, or across neighbouring rows."""
# op: gpunet/ops/softmax.py
#
# A row of nothing but -inf has m = -inf, and x - m is NaN; inf or NaN in a row make its sum NaN.

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.past_caches_numba_cpu import past_caches, settle_stores, store_past
from ..common.rows_numba_cpu import (
    RUN,
    STEPS,
    SUMS,
    exp_kept_sum,
    folded,
    largest,
    largest_apart,
    over_rows,
    over_units,
    takes_apart,
    takes_neighbours,
)
from ..common.tiles_numba_cpu import registers
from ..common.vectors_numba_cpu import load, spread
from ..common.vexp_numba_cpu import exp_below

# -- coalesced ---------------------------------------------------------------------------------------------------------
#
# task    units of up to 1,024 neighbouring rows, 32,768 elements or more
# lanes   neighbouring rows
# reads   x from memory once, then from the second-level cache: for the maximum, and for the exponentials
# needs   rows whose elements lie apart


@compiled(fastmath={"contract"})
def softmax_forward_coalesced_loop(y, x, first, end, across, width):
    """Exponentials go to y and stay in the cache until their sum is known."""
    _, D, inner = x.shape
    m, part, total = np.empty(width, x.dtype), np.empty(width, x.dtype), np.empty(width, np.float64)
    for u in range(first, end):
        o, begin = u // across, u % across * width
        stop = min(begin + width, inner)
        n = stop - begin
        largest_apart(m[:n], x, o, begin, stop)
        total[:n] = 0
        for start in range(0, D, STEPS):
            part[:] = 0
            for d in range(start, min(start + STEPS, D)):
                line, out = x[o, d, begin:stop], y[o, d, begin:stop]
                for j in range(n):
                    e = exp_below(line[j] - m[j])
                    out[j] = e
                    part[j] += e
            for j in range(n):
                total[j] += part[j]
        for j in range(n):
            part[j] = 1 / total[j]
        for d in range(D):
            out = y[o, d, begin:stop]
            for j in range(n):
                out[j] *= part[j]


@kernel("softmax.forward", backend="numba_cpu", variant="coalesced", when=takes_apart)
def softmax_forward_coalesced(x, *, axis):
    """One lane a row."""
    y = empty(x.shape, x.dtype)
    if x.size:
        shape = folded(x.shape, axis)
        over_units(softmax_forward_coalesced_loop, shape, y.reshape(shape), in_rows(x).reshape(shape))
    return y


@compiled(fastmath={"contract"})
def softmax_grad_x_coalesced_loop(gx, gy, y, first, end, across, width):
    """The sums of gy * y, then gx."""
    _, D, inner = y.shape
    part, total = np.empty(width, y.dtype), np.empty(width, np.float64)
    for u in range(first, end):
        o, begin = u // across, u % across * width
        stop = min(begin + width, inner)
        n = stop - begin
        total[:n] = 0
        for start in range(0, D, STEPS):
            part[:] = 0
            for d in range(start, min(start + STEPS, D)):
                one, other = gy[o, d, begin:stop], y[o, d, begin:stop]
                for j in range(n):
                    part[j] += one[j] * other[j]
            for j in range(n):
                total[j] += part[j]
        for j in range(n):
            part[j] = total[j]
        for d in range(D):
            one, other, out = gy[o, d, begin:stop], y[o, d, begin:stop], gx[o, d, begin:stop]
            for j in range(n):
                out[j] = other[j] * (one[j] - part[j])


@kernel("softmax.grad_x", backend="numba_cpu", variant="coalesced", when=takes_apart)
def softmax_grad_x_coalesced(gy, y, *, axis):
    """One lane a row."""
    gx = empty(y.shape, y.dtype)
    if y.size:
        shape = folded(y.shape, axis)
        arrays = (each.reshape(shape) for each in (gx, in_rows(gy), in_rows(y)))
        over_units(softmax_grad_x_coalesced_loop, shape, *arrays)
    return gx


# -- vectorised --------------------------------------------------------------------------------------------------------
#
# task    rows of together 32,768 elements or more, or one longer row
# lanes   neighbours in a row
# reads   x from memory once where a row stays in the cache: for the maximum, and for the exponentials
# needs   rows in one piece


@compiled
def softmax_forward_vectorised_loop(y, x):
    """Row by row; exponentials go to y and are scaled there."""
    for r in range(x.shape[0]):
        row, out = x[r], y[r]
        scale = x.dtype.type(1 / exp_kept_sum(out, row, largest(row)))
        for k in range(out.size):
            out[k] *= scale


@kernel("softmax.forward", backend="numba_cpu", variant="vectorised", when=takes_neighbours)
def softmax_forward_vectorised(x, *, axis):
    """One vector of a row at a time."""
    y = empty(x.shape, x.dtype)
    if x.size:
        D = x.shape[axis]
        over_rows(softmax_forward_vectorised_loop, (y.reshape(-1, D), in_rows(x).reshape(-1, D)), D)
    return y


@compiled(fastmath=SUMS)
def product_sum(one, other):
    """Sum of products, in float64."""
    total = 0.0
    for first in range(0, one.size, RUN):
        a, b = one[first : first + RUN], other[first : first + RUN]
        sum = one.dtype.type(0)
        for k in range(a.size):
            sum += a[k] * b[k]
        total += sum
    return total


@compiled
def softmax_grad_x_vectorised_loop(gx, gy, y):
    """Row by row, in two passes."""
    for r in range(y.shape[0]):
        one, other, out = gy[r], y[r], gx[r]
        dot = y.dtype.type(product_sum(one, other))
        for k in range(out.size):
            out[k] = other[k] * (one[k] - dot)


@compiled
def softmax_grad_x_past_loop(gx, gy, y, lanes):
    """The same, past the caches; rows are of whole vectors."""
    to, one, other, D = gx.reshape(-1), gy.reshape(-1), y.reshape(-1), y.shape[1]
    for r in range(y.shape[0]):
        dot = spread(y.dtype.type(product_sum(gy[r], y[r])))
        for k in range(r * D, (r + 1) * D, lanes):
            store_past(to, k, load(other, k) * (load(one, k) - dot))
    settle_stores()


@kernel("softmax.grad_x", backend="numba_cpu", variant="vectorised", when=takes_neighbours)
def softmax_grad_x_vectorised(gy, y, *, axis):
    """One vector of a row at a time."""
    gx = empty(y.shape, y.dtype)
    if y.size:
        D, lanes = y.shape[axis], registers()[0] // y.itemsize
        arrays = tuple(each.reshape(-1, D) for each in (gx, in_rows(gy), in_rows(y)))
        if past_caches(gx) and D % lanes == 0:
            over_rows(softmax_grad_x_past_loop, arrays, D, lanes)
        else:
            over_rows(softmax_grad_x_vectorised_loop, arrays, D)
    return gx
