"""batch_norm on Numba for the processor: its gradients, in the same ways as the values in batch_norm_numba_cpu.py."""
# op: gpunet/ops/batch_norm.py

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import ranges
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.rows_numba_cpu import RUN, STEPS, SUMS, over
from .batch_norm_numba_cpu import (
    channels_of,
    each_piece,
    given,
    over_images,
    over_runs,
    parts_of,
    scaled_columns,
    scaled_runs,
    short,
    sizes_of,
    takes,
)

# -- split -------------------------------------------------------------------------------------------------------------
#
# task    neighbouring channels of some images, as forward's
# lanes   neighbours in a run
# reads   gy and x once, in the order of their memory
# needs   nothing


@compiled(fastmath=SUMS)
def product_sums(gy, x, m):
    """Sums of gy * (x - m) and of gy."""
    products, sums = 0.0, 0.0
    for begin in range(0, x.size, RUN):
        one, other = gy[begin : begin + RUN], x[begin : begin + RUN]
        product, sum = x.dtype.type(0), x.dtype.type(0)
        for j in range(one.size):
            product += one[j] * (other[j] - m)
            sum += one[j]
        products += product
        sums += sum
    return products, sums


@compiled
def batch_norm_grad_wb_split_loop(left, gy, x, mean, images, channels, first, end):
    """Of each channel of tasks first to end both sums."""
    C = left.shape[2]
    across = (C + channels - 1) // channels
    for t in range(first, end):
        p, begin = t // across, t % across * channels
        for n in range(p * images, min((p + 1) * images, x.shape[0] // C)):
            for c in range(begin, min(begin + channels, C)):
                product, sum = product_sums(gy[n * C + c], x[n * C + c], mean[c])
                left[p, 0, c] += product
                left[p, 1, c] += sum


@kernel("batch_norm.grad_wb", backend="numba_cpu", variant="split", when=takes)
def batch_norm_grad_wb_split(gy, x, mean, invstd):
    """Sums of the parts of all channels, then those of the channels."""
    N, C, L = sizes_of(x)
    if x.size == 0:
        return np.zeros(C, x.dtype), np.zeros(C, x.dtype)
    gy, x, mean = in_rows(gy).reshape(N * C, L), in_rows(x).reshape(N * C, L), in_rows(mean)
    images, channels, parts, across = parts_of((N, C, L))
    left = np.zeros((parts, 2, C))
    over(lambda *piece: batch_norm_grad_wb_split_loop(left, gy, x, mean, images, channels, *piece), parts * across, 1)
    gw, gb = left[0] if parts == 1 else left.sum(axis=0)
    return (gw * invstd).astype(x.dtype), gb.astype(x.dtype)


# -- vectorised --------------------------------------------------------------------------------------------------------
#
# task    runs of together 32,768 values or more, or one longer run
# lanes   neighbours in a run
# reads   everything once
# needs   nothing


@compiled(fastmath={"contract"})
def batch_norm_grad_x_vectorised_loop(gx, gy, x, factors, first):
    """gx = factor * gy + slope * (x - m) + level."""
    for r in range(x.shape[0]):
        c = (first + r) % factors.shape[1]
        m, slope, level, factor = factors[0, c], factors[1, c], factors[2, c], factors[3, c]
        one, run, out = gy[r], x[r], gx[r]
        for j in range(out.size):
            out[j] = (run[j] - m) * slope + level + one[j] * factor


@compiled
def grad_factors(factors, w, mean, invstd, gw, gb, count):
    """M, slope, level and factor of each channel."""
    for c in range(mean.size):
        factor = np.float64(invstd[c])
        if w.size:
            factor *= w[c]
        factors[0, c] = mean[c]
        factors[1, c] = -factor * invstd[c] * gw[c] / count
        factors[2, c] = -factor * gb[c] / count
        factors[3, c] = factor


def _grad_factors(x, w, mean, invstd, gw, gb):
    factors, count = np.empty((4, x.shape[1]), x.dtype), float(x.size // x.shape[1])
    grad_factors(factors, given(w, x), in_rows(mean), in_rows(invstd), in_rows(gw), in_rows(gb), count)
    return factors


def _eval_factors(gy, w, invstd):
    """M, scale and shift of each channel: under given statistics gx is gy scaled, as forward_eval scales x."""
    factors = np.zeros((3, gy.shape[1]), gy.dtype)
    factors[1] = invstd if w is None else invstd * w
    factors[2] = -0.0  # adding -0 changes nothing, not even a -0
    return factors


@kernel("batch_norm.grad_x", backend="numba_cpu", variant="vectorised", when=takes)
def batch_norm_grad_x_vectorised(gy, x, w, mean, invstd, gw, gb):
    """One vector of a run at a time."""
    gx = empty(x.shape, x.dtype)
    if x.size:
        factors = _grad_factors(x, w, mean, invstd, gw, gb)
        over_runs(batch_norm_grad_x_vectorised_loop, (gx, in_rows(gy), in_rows(x)), factors, sizes_of(x))
    return gx


@kernel("batch_norm.grad_x_eval", backend="numba_cpu", variant="vectorised", when=takes)
def batch_norm_grad_x_eval_vectorised(gy, w, invstd):
    """One vector of a run at a time."""
    gx = empty(gy.shape, gy.dtype)
    if gy.size:
        over_runs(scaled_runs, (gx, in_rows(gy)), _eval_factors(gy, w, invstd), sizes_of(gy))
    return gx


# -- columns -----------------------------------------------------------------------------------------------------------
#
# task    as forward's
# lanes   neighbouring columns, of one channel or several
# reads   everything once
# needs   nothing; pays for short runs


@compiled(fastmath={"contract"})
def batch_norm_grad_wb_columns_loop(gw, gb, gy, x, L, mean, invstd, first, end):
    """Sums down the columns, then those of the columns of a channel."""
    begin, stop = first * L, end * L
    width = stop - begin
    m, some, part = np.empty(width, mean.dtype), np.empty(width, x.dtype), np.empty(width, x.dtype)
    products, sums = np.zeros(width), np.zeros(width)
    for j in range(width):
        m[j] = mean[first + j // L]
    for start in range(0, x.shape[0], STEPS):
        some[:], part[:] = 0, 0
        for n in range(start, min(start + STEPS, x.shape[0])):
            one, row = gy[n, begin:stop], x[n, begin:stop]
            for j in range(width):
                some[j] += one[j] * (row[j] - m[j])
                part[j] += one[j]
        for j in range(width):
            products[j] += some[j]
            sums[j] += part[j]
    for c in range(first, end):
        j = (c - first) * L
        gw[c], gb[c] = products[j : j + L].sum() * invstd[c], sums[j : j + L].sum()


@kernel("batch_norm.grad_wb", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_grad_wb_columns(gy, x, mean, invstd):
    """Some channels at a time."""
    if x.size == 0:
        return np.zeros(x.shape[1], x.dtype), np.zeros(x.shape[1], x.dtype)
    share, (N, C, L) = channels_of(x)
    gw, gb = empty((C,), x.dtype), empty((C,), x.dtype)
    flat = (in_rows(each).reshape(N, C * L) for each in (gy, x))
    known = (gw, gb, *flat, L, in_rows(mean), in_rows(invstd))
    each_piece(lambda *piece: batch_norm_grad_wb_columns_loop(*known, *piece), ranges(C, share))
    return gw, gb


@compiled(fastmath={"contract"})
def batch_norm_grad_x_columns_loop(gx, gy, x, factors):
    """As the run's, with factors of each column."""
    m, slope, level, factor = factors[0], factors[1], factors[2], factors[3]
    for n in range(x.shape[0]):
        one, row, out = gy[n], x[n], gx[n]
        for j in range(out.size):
            out[j] = (row[j] - m[j]) * slope[j] + level[j] + one[j] * factor[j]


@kernel("batch_norm.grad_x", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_grad_x_columns(gy, x, w, mean, invstd, gw, gb):
    """One vector of an image at a time."""
    gx = empty(x.shape, x.dtype)
    if x.size:
        factors = _grad_factors(x, w, mean, invstd, gw, gb)
        over_images(batch_norm_grad_x_columns_loop, (gx, in_rows(gy), in_rows(x)), factors, sizes_of(x))
    return gx


@kernel("batch_norm.grad_x_eval", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_grad_x_eval_columns(gy, w, invstd):
    """One vector of an image at a time."""
    gx = empty(gy.shape, gy.dtype)
    if gy.size:
        over_images(scaled_columns, (gx, in_rows(gy)), _eval_factors(gy, w, invstd), sizes_of(gy))
    return gx
