"""batch_norm on Numba for the processor: vectors along the runs of a channel, or across channels with short runs."""
# op: gpunet/ops/batch_norm.py
#
# x is seen as (N, C, L): a run is the L values of a channel in one image. Runs are read in the order in which they lie
# in memory, whatever their channel: jumping from image to image takes several times as long. Sums of up to RUN values
# are in x's dtype, in the lanes of vectors; they are added up in float64. For the statistics a run is read twice while
# it is in the cache, first for a rough mean, then for the sums of d = x - rough mean and of d**2, where rounding does
# not matter any more; runs are merged by Chan's formula. Weights and shifts that are not given come as arrays of no
# elements.
#
# Gradients stand in grad_numba_cpu.py, the way for short runs and small arrays in resident_numba_cpu.py.

import math
from math import prod

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import ranges, run
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.launching import is_real
from ..common.rows_numba_cpu import GRAIN, NARROW, STEPS, UNIT, WIDE, centred_sums, over, rough_mean
from ..common.shapes import cdiv

SHORT = 32  # values of a run below which lanes take neighbouring channels too


def sizes_of(x):
    """(N, C, L)."""
    return x.shape[0], x.shape[1], prod(x.shape[2:])


def given(v, like):
    """Scale or shift, or an array of no elements."""
    return np.empty(0, like.dtype) if v is None else in_rows(v)


def takes(*arrays, eps=0.0):
    """Whether the arrays are all float32, or all float64."""
    return is_real(*arrays)


def short(*arrays, eps=0.0):
    """Pays where a channel has few values in an image."""
    return prod(arrays[0].shape[2:]) < SHORT or f"it pays for fewer than {SHORT} values of a channel in an image"


def nothing(x):
    """Statistics of no values."""
    return tuple(np.full(x.shape[1], np.nan, x.dtype) for _ in range(3))


@compiled
def settle(c, moments, w, b, eps, mean, var, invstd):
    """Writes the statistics of a channel; returns m, scale and shift: y = (x - m) * scale + shift.

    ``moments`` are the number of values, a value near their mean, how far the mean lies from that, the sum of squares
    around the mean, and a rough mean, which is inf where the others are NaN since there is an inf.
    """
    count, near, far, squares, rough = moments
    real = mean.dtype.type
    centre = near + far
    if not abs(centre) < np.inf:
        centre = rough
    spread = max(squares / count, 0.0)
    if squares != squares:
        spread = np.nan
    factor = 1 / math.sqrt(spread + eps)
    m = real(centre)
    mean[c], var[c], invstd[c] = m, spread, factor
    scale = factor if w.size == 0 else factor * w[c]
    shift = -(near - m + far) * scale
    return m, real(scale), real(shift if b.size == 0 else b[c] + shift)


# -- split -------------------------------------------------------------------------------------------------------------
#
# task    neighbouring channels of some images, 32,768 values or more: a *part* is some images
# lanes   neighbours in a run
# reads   x in the order of its memory, once for the statistics and once for the values
# needs   nothing


def parts_of(sizes):
    """Images of a part, channels of a task, parts, and tasks of a part."""
    N, C, L = sizes
    images, channels = max(1, GRAIN // (C * L)), min(C, max(1, GRAIN // L))
    return images, channels, cdiv(N, images), cdiv(C, channels)


@compiled
def batch_norm_forward_split_loop(left, x, images, channels, first, end):
    """Of each channel of tasks first to end what :func:`settle` wants: far, squares, sum of rough means, near."""
    C = left.shape[2]
    L, across = float(x.shape[1]), (C + channels - 1) // channels
    for t in range(first, end):
        p, begin = t // across, t % across * channels
        for n in range(min(images, x.shape[0] // C - p * images)):
            share, weight = 1 / (n + 1.0), L * n / (n + 1.0)
            for c in range(begin, min(begin + channels, C)):
                row = x[(p * images + n) * C + c]
                m = x.dtype.type(rough_mean(row))
                total, squares = centred_sums(row, m)
                d = total / L
                if n == 0:
                    left[p, 3, c] = m
                away = m - left[p, 3, c] + d - left[p, 0, c]
                left[p, 0, c] += away * share
                left[p, 1, c] += squares - d * total + away * away * weight
                left[p, 2, c] += m


@compiled
def batch_norm_forward_split_merge(left, N, L, images, w, b, eps, mean, var, invstd, factors):
    """All parts of each channel, in order, by Chan's formula."""
    for c in range(left.shape[2]):
        count, far, squares, rough, near = 0.0, 0.0, 0.0, 0.0, left[0, 3, c]
        for p in range(left.shape[0]):
            size = float(min(images, N - p * images) * L)
            away = left[p, 3, c] - near + left[p, 0, c] - far
            squares += left[p, 1, c] + away * away * count * size / (count + size)
            count += size
            far += away * size / count
            rough += left[p, 2, c]
        found = settle(c, (count, near, far, squares, rough / N), w, b, eps, mean, var, invstd)
        factors[0, c], factors[1, c], factors[2, c] = found


@kernel("batch_norm.forward", backend="numba_cpu", variant="split", when=takes)
def batch_norm_forward_split(x, w, b, *, eps):
    """Statistics of the parts of all channels, their merger, then the values."""
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y, *nothing(x)
    N, C, L = sizes_of(x)
    flat = in_rows(x).reshape(N * C, L)
    made = tuple(empty((C,), x.dtype) for _ in range(3))
    images, channels, parts, across = parts_of((N, C, L))
    left, factors = np.zeros((parts, 4, C)), np.empty((3, C), x.dtype)
    over(lambda *piece: batch_norm_forward_split_loop(left, flat, images, channels, *piece), parts * across, 1)
    batch_norm_forward_split_merge(left, N, L, images, given(w, x), given(b, x), eps, *made, factors)
    over_runs(scaled_runs, (y, flat), factors, (N, C, L))
    return y, *made


# -- vectorised --------------------------------------------------------------------------------------------------------
#
# task    runs of together 32,768 values or more, or one longer run
# lanes   neighbours in a run
# reads   everything once
# needs   nothing


@compiled(fastmath={"contract"})
def scaled_runs(y, x, factors, first):
    """Run r belongs to channel (first + r) % C."""
    for r in range(x.shape[0]):
        c = (first + r) % factors.shape[1]
        m, scale, shift = factors[0, c], factors[1, c], factors[2, c]
        run, out = x[r], y[r]
        for j in range(out.size):
            out[j] = (run[j] - m) * scale + shift


def over_runs(walk, arrays, factors, sizes):
    """Calls ``walk(*arrays, factors, first)`` for pieces of N * C runs."""
    N, C, L = sizes
    runs = [each.reshape(N * C, L) for each in arrays]
    share = max(1, GRAIN // L)
    over(lambda first, end: walk(*[each[first:end] for each in runs], factors, first), N * C, share)


@compiled
def eval_factors(factors, mean, var, w, b, eps):
    """M, scale and shift of each channel."""
    for c in range(mean.size):
        scale = 1 / math.sqrt(np.float64(var[c]) + eps)
        factors[0, c] = mean[c]
        factors[1, c] = scale if w.size == 0 else scale * w[c]
        factors[2, c] = -0.0 if b.size == 0 else b[c]  # adding -0 changes nothing, not even a -0


def _eval_factors(x, mean, var, w, b, eps):
    factors = np.empty((3, x.shape[1]), x.dtype)
    eval_factors(factors, in_rows(mean), in_rows(var), given(w, x), given(b, x), eps)
    return factors


@kernel("batch_norm.forward_eval", backend="numba_cpu", variant="vectorised", when=takes)
def batch_norm_forward_eval_vectorised(x, mean, var, w, b, *, eps):
    """One vector of a run at a time."""
    y = empty(x.shape, x.dtype)
    if x.size:
        over_runs(scaled_runs, (y, in_rows(x)), _eval_factors(x, mean, var, w, b, eps), sizes_of(x))
    return y


# -- columns -----------------------------------------------------------------------------------------------------------
#
# task    neighbouring channels, up to 1,024 values in each image; or images, where channels need no sums
# lanes   neighbours in an image, across channels
# reads   x from memory once where the channels of a task fit into the second-level cache, else three times
# needs   nothing; pays for short runs


@compiled(fastmath={"contract"})
def column_means(total, part, x, begin, share):
    """Rough means of the columns, of terms already divided; part is memory for sums of STEPS terms."""
    total[:] = 0
    for start in range(0, x.shape[0], STEPS):
        part[:] = 0
        for n in range(start, min(start + STEPS, x.shape[0])):
            row = x[n, begin : begin + part.size]
            for j in range(part.size):
                part[j] += row[j] * share
        for j in range(part.size):
            total[j] += part[j]


@compiled(fastmath={"contract"})
def column_sums(total, squares, part, square, x, m, begin):
    """Sums down the columns of x - m and of its square."""
    total[:], squares[:] = 0, 0
    for start in range(0, x.shape[0], STEPS):
        part[:], square[:] = 0, 0
        for n in range(start, min(start + STEPS, x.shape[0])):
            row = x[n, begin : begin + part.size]
            for j in range(part.size):
                d = row[j] - m[j]
                part[j] += d
                square[j] += d * d
        for j in range(part.size):
            total[j] += part[j]
            squares[j] += square[j]


@compiled(fastmath={"contract"})
def batch_norm_forward_columns_loop(y, x, L, w, b, eps, mean, var, invstd, first, end):
    """Of channels first to end a rough mean, sums around it, values. Scale and shift are memory for the sums first."""
    begin, stop = first * L, end * L
    width, count = stop - begin, float(x.shape[0] * L)
    m, scale, shift = np.empty(width, x.dtype), np.empty(width, x.dtype), np.empty(width, x.dtype)
    sums, squares = np.empty(width), np.empty(width)
    column_means(sums, shift, x, begin, x.dtype.type(1 / count))
    for j in range(0, width, L):
        m[j : j + L] = sums[j : j + L].sum()
    column_sums(sums, squares, scale, shift, x, m, begin)
    for j in range(0, width, L):
        away, rough = sums[j : j + L].sum() / count, np.float64(m[j])
        known = (count, rough, away, squares[j : j + L].sum() - away * away * count, rough)
        found = settle(first + j // L, known, w, b, eps, mean, var, invstd)
        m[j : j + L], scale[j : j + L], shift[j : j + L] = found
    for n in range(x.shape[0]):
        row, out = x[n, begin:stop], y[n, begin:stop]
        for j in range(width):
            out[j] = (row[j] - m[j]) * scale[j] + shift[j]


def channels_of(x):
    """Channels of a task, so that they fit into the cache; and (N, C, L)."""
    N, C, L = sizes_of(x)
    return max(1, max(NARROW, min(WIDE, UNIT // N)) // L), (N, C, L)


@kernel("batch_norm.forward", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_forward_columns(x, w, b, *, eps):
    """Some channels at a time."""
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y, *nothing(x)
    share, (N, C, L) = channels_of(x)
    made = tuple(empty((C,), x.dtype) for _ in range(3))
    known = (y.reshape(N, C * L), in_rows(x).reshape(N, C * L), L, given(w, x), given(b, x), eps, *made)
    each_piece(lambda *piece: batch_norm_forward_columns_loop(*known, *piece), ranges(C, share))
    return y, *made


def each_piece(walk, pieces):
    """Calls ``walk(first, end)`` for each piece, also on one thread: their memory is made for a piece."""
    if len(pieces) == 1:
        walk(*pieces[0])
    else:
        run(lambda task: walk(*pieces[task]), len(pieces))


@compiled(fastmath={"contract"})
def scaled_columns(y, x, factors):
    """As scaled_runs, with factors of each column."""
    m, scale, shift = factors[0], factors[1], factors[2]
    for n in range(x.shape[0]):
        row, out = x[n], y[n]
        for j in range(out.size):
            out[j] = (row[j] - m[j]) * scale[j] + shift[j]


def over_images(walk, arrays, factors, sizes):
    """Calls ``walk(*arrays, factors)`` for pieces of N images."""
    N, C, L = sizes
    images = [each.reshape(N, C * L) for each in arrays]
    columns = np.repeat(factors, L, axis=1) if L > 1 else factors
    share = max(1, GRAIN // (C * L))
    over(lambda first, end: walk(*[each[first:end] for each in images], columns), N, share)


@kernel("batch_norm.forward_eval", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_forward_eval_columns(x, mean, var, w, b, *, eps):
    """One vector of an image at a time."""
    y = empty(x.shape, x.dtype)
    if x.size:
        over_images(scaled_columns, (y, in_rows(x)), _eval_factors(x, mean, var, w, b, eps), sizes_of(x))
    return y


from . import grad_numba_cpu, resident_numba_cpu  # noqa: E402, F401 the launchers of those stand beside these
