"""layer_norm on Numba for the processor: vectors along a row, and down columns for the gradients of scale and shift."""
# op: gpunet/ops/layer_norm.py
#
# Sums of up to RUN values are in x's dtype, in the lanes of vectors; they are added up in float64. The statistics of a
# row come from a rough mean and the sums of d = x - rough mean and of d**2, where rounding does not matter any more.
# Scale and shift that are not given come as ones and as -0, which added changes nothing.

import math

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import ranges, run
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.launching import is_real
from ..common.rows_numba_cpu import GRAIN, RUN, STEPS, SUMS, centred_sums, over_rows, rough_mean
from ..common.shapes import cdiv
from ..common.tiles_numba_cpu import registers
from ..common.vectors_numba_cpu import load, spread, store


def takes(*arrays, eps=0.0):
    """Whether the arrays are all float32, or all float64."""
    return is_real(*arrays)


def _given(v, x, other):
    return np.full(x.shape[1], other, x.dtype) if v is None else in_rows(v)


# -- split -------------------------------------------------------------------------------------------------------------
#
# task    rows of together 262,144 values or more; what tasks leave is added up in their order
# lanes   neighbouring columns
# reads   gy and x once
# needs   nothing

PART = 8 * GRAIN  # a task leaves 16 bytes a column: many short ones would leave more than they read
PARTS = 8  # at most, for the same reason


@compiled(fastmath={"contract"})
def layer_norm_grad_wb_split_loop(left, gy, x, mean, invstd, lanes):
    """Sums down the columns, STEPS rows in x's dtype, those in float64."""
    D, gradients, values = x.shape[1], gy.reshape(-1), x.reshape(-1)
    some, part, whole = np.empty(D, x.dtype), np.empty(D, x.dtype), D // lanes * lanes
    products, sums = left[0], left[1]
    products[:], sums[:] = 0, 0
    for start in range(0, x.shape[0], STEPS):
        some[:], part[:] = 0, 0
        for r in range(start, min(start + STEPS, x.shape[0])):
            at, m, factor = r * D, spread(mean[r]), spread(invstd[r])
            for j in range(0, whole, lanes):
                g = load(gradients, at + j)
                store(some, j, load(some, j) + g * ((load(values, at + j) - m) * factor))
                store(part, j, load(part, j) + g)
            for j in range(whole, D):
                some[j] += gy[r, j] * ((x[r, j] - mean[r]) * invstd[r])
                part[j] += gy[r, j]
        for j in range(some.size):
            products[j] += some[j]
            sums[j] += part[j]


@kernel("layer_norm.grad_wb", backend="numba_cpu", variant="split", when=takes)
def layer_norm_grad_wb_split(gy, x, mean, invstd):
    """Parts of the rows, then their sums."""
    R, D = x.shape
    if x.size == 0:
        return np.zeros(D, x.dtype), np.zeros(D, x.dtype)
    rows = tuple(in_rows(each) for each in (gy, x, mean, invstd))
    parts = ranges(R, max(1, PART // D, cdiv(R, PARTS)))
    left, lanes = np.empty((len(parts), 2, D)), registers()[0] // x.itemsize
    if len(parts) == 1:
        layer_norm_grad_wb_split_loop(left[0], *rows, lanes)
        gw, gb = left[0]
    else:
        cut = [[each[slice(*part)] for each in rows] for part in parts]
        run(lambda p: layer_norm_grad_wb_split_loop(left[p], *cut[p], lanes), len(parts))
        gw, gb = left.sum(axis=0)
    return gw.astype(x.dtype), gb.astype(x.dtype)


# -- vectorised --------------------------------------------------------------------------------------------------------
#
# task    rows of together 32,768 values or more, or one longer row
# lanes   neighbours in a row
# reads   everything from memory once where a row stays in the cache
# needs   nothing


@compiled(fastmath={"contract"})
def layer_norm_forward_vectorised_loop(y, mean, invstd, x, w, b, eps):
    """y = ((x - m) - delta) * invstd * w + b, delta what rounding took from the mean."""
    real = x.dtype.type
    for r in range(x.shape[0]):
        row, out = x[r], y[r]
        m = real(rough_mean(row))
        total, squares = centred_sums(row, m)
        away = total / row.size
        spread = squares / row.size - away * away
        if spread < 0:
            spread = 0.0
        factor = real(1 / math.sqrt(spread + eps))
        centre = m + away if abs(m) < np.inf else np.float64(m)
        m = real(centre)
        delta = real(centre - m)
        mean[r], invstd[r] = m, factor
        for j in range(out.size):
            out[j] = (row[j] - m - delta) * factor * w[j] + b[j]


@kernel("layer_norm.forward", backend="numba_cpu", variant="vectorised", when=takes)
def layer_norm_forward_vectorised(x, w, b, *, eps):
    """One vector of a row at a time."""
    R, D = x.shape
    y, mean, invstd = empty((R, D), x.dtype), empty((R,), x.dtype), empty((R,), x.dtype)
    if x.size == 0:
        mean[:], invstd[:] = np.nan, np.nan
        return y, mean, invstd
    options = (_given(w, x, 1), _given(b, x, -0.0), eps)
    over_rows(layer_norm_forward_vectorised_loop, (y, mean, invstd, in_rows(x)), D, *options)
    return y, mean, invstd


@compiled(fastmath=SUMS)
def grad_sums(one, row, w, m, factor):
    """Sums of g and of g * xhat, g = gy * w."""
    sums, products = 0.0, 0.0
    for first in range(0, row.size, RUN):
        g, part, weight = one[first : first + RUN], row[first : first + RUN], w[first : first + RUN]
        sum, product = row.dtype.type(0), row.dtype.type(0)
        for j in range(part.size):
            v = g[j] * weight[j]
            sum += v
            product += v * ((part[j] - m) * factor)
        sums += sum
        products += product
    return sums, products


@compiled
def layer_norm_grad_x_vectorised_loop(gx, gy, x, mean, invstd, w):
    """gx = invstd * (g - level - xhat * slope), row by row; g rounded as in the sums, so that g - level can be 0."""
    real = x.dtype.type
    for r in range(x.shape[0]):
        one, row, out, m, factor = gy[r], x[r], gx[r], mean[r], invstd[r]
        sums, products = grad_sums(one, row, w, m, factor)
        level, slope = real(sums / row.size), real(products / row.size)
        for j in range(out.size):
            out[j] = (one[j] * w[j] - level - (row[j] - m) * factor * slope) * factor


@kernel("layer_norm.grad_x", backend="numba_cpu", variant="vectorised", when=takes)
def layer_norm_grad_x_vectorised(gy, x, w, mean, invstd):
    """One vector of a row at a time."""
    gx = empty(x.shape, x.dtype)
    if x.size:
        rows = tuple(in_rows(each) for each in (gy, x, mean, invstd))
        over_rows(layer_norm_grad_x_vectorised_loop, (gx, *rows), x.shape[1], _given(w, x, 1))
    return gx
