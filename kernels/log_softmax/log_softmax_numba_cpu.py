"""log_softmax on Numba for the processor: vectors along a row, or across neighbouring rows."""
# op: gpunet/ops/log_softmax.py
#
# A row of nothing but -inf has m = -inf, and x - m is NaN; inf or NaN in a row make its sum NaN.

import math

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.rows_numba_cpu import (
    RUN,
    STEPS,
    SUMS,
    exp_sum,
    exp_sum_apart,
    folded,
    largest,
    largest_apart,
    over_rows,
    over_units,
    takes_apart,
    takes_neighbours,
)
from ..common.vexp_numba_cpu import exp_below, log

# -- coalesced ---------------------------------------------------------------------------------------------------------
#
# task    units of up to 1,024 neighbouring rows, 32,768 elements or more
# lanes   neighbouring rows
# reads   x from memory once, then from the second-level cache: for the maximum, the exponentials and the result
# needs   rows whose elements lie apart


@compiled(fastmath={"contract"})
def log_softmax_forward_coalesced_loop(y, x, first, end, across, width):
    """Nothing is kept but maxima and sums."""
    _, D, inner = x.shape
    m, part, total = np.empty(width, x.dtype), np.empty(width, x.dtype), np.empty(width, np.float64)
    for u in range(first, end):
        o, begin = u // across, u % across * width
        stop = min(begin + width, inner)
        n = stop - begin
        largest_apart(m[:n], x, o, begin, stop)
        exp_sum_apart(total[:n], part[:n], m[:n], x, o, begin, stop)
        for j in range(n):
            part[j] = log(x.dtype.type(total[j]))
        for d in range(D):
            line, out = x[o, d, begin:stop], y[o, d, begin:stop]
            for j in range(n):
                out[j] = line[j] - m[j] - part[j]


@kernel("log_softmax.forward", backend="numba_cpu", variant="coalesced", when=takes_apart)
def log_softmax_forward_coalesced(x, *, axis):
    """One lane a row."""
    y = empty(x.shape, x.dtype)
    if x.size:
        shape = folded(x.shape, axis)
        over_units(log_softmax_forward_coalesced_loop, shape, y.reshape(shape), in_rows(x).reshape(shape))
    return y


@compiled(fastmath={"contract"})
def log_softmax_grad_x_coalesced_loop(gx, gy, y, first, end, across, width):
    """The sums of gy, then gx."""
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
                line = gy[o, d, begin:stop]
                for j in range(n):
                    part[j] += line[j]
            for j in range(n):
                total[j] += part[j]
        for j in range(n):
            part[j] = total[j]
        for d in range(D):
            one, other, out = gy[o, d, begin:stop], y[o, d, begin:stop], gx[o, d, begin:stop]
            for j in range(n):
                out[j] = one[j] - exp_below(other[j]) * part[j]


@kernel("log_softmax.grad_x", backend="numba_cpu", variant="coalesced", when=takes_apart)
def log_softmax_grad_x_coalesced(gy, y, *, axis):
    """One lane a row."""
    gx = empty(y.shape, y.dtype)
    if y.size:
        shape = folded(y.shape, axis)
        arrays = (each.reshape(shape) for each in (gx, in_rows(gy), in_rows(y)))
        over_units(log_softmax_grad_x_coalesced_loop, shape, *arrays)
    return gx


# -- vectorised --------------------------------------------------------------------------------------------------------
#
# task    rows of together 32,768 elements or more, or one longer row
# lanes   neighbours in a row
# reads   x from memory once where a row stays in the cache: for the maximum, the exponentials and the result
# needs   rows in one piece


@compiled
def log_softmax_forward_vectorised_loop(y, x):
    """Row by row, in three passes."""
    for r in range(x.shape[0]):
        row, out = x[r], y[r]
        m = largest(row)
        level = x.dtype.type(math.log(exp_sum(row, m)))
        for k in range(out.size):
            out[k] = row[k] - m - level


@kernel("log_softmax.forward", backend="numba_cpu", variant="vectorised", when=takes_neighbours)
def log_softmax_forward_vectorised(x, *, axis):
    """One vector of a row at a time."""
    y = empty(x.shape, x.dtype)
    if x.size:
        D = x.shape[axis]
        over_rows(log_softmax_forward_vectorised_loop, (y.reshape(-1, D), in_rows(x).reshape(-1, D)), D)
    return y


@compiled(fastmath=SUMS)
def plain_sum(row):
    """Sum of a row, in float64."""
    total = 0.0
    for first in range(0, row.size, RUN):
        part = row[first : first + RUN]
        sum = row.dtype.type(0)
        for k in range(part.size):
            sum += part[k]
        total += sum
    return total


@compiled(fastmath={"contract"})
def log_softmax_grad_x_vectorised_loop(gx, gy, y):
    """Row by row, in two passes."""
    for r in range(y.shape[0]):
        one, other, out = gy[r], y[r], gx[r]
        sum = y.dtype.type(plain_sum(one))
        for k in range(out.size):
            out[k] = one[k] - exp_below(other[k]) * sum


@kernel("log_softmax.grad_x", backend="numba_cpu", variant="vectorised", when=takes_neighbours)
def log_softmax_grad_x_vectorised(gy, y, *, axis):
    """One vector of a row at a time."""
    gx = empty(y.shape, y.dtype)
    if y.size:
        arrays = tuple(each.reshape(-1, y.shape[axis]) for each in (gx, in_rows(gy), in_rows(y)))
        over_rows(log_softmax_grad_x_vectorised_loop, arrays, y.shape[axis])
    return gx
