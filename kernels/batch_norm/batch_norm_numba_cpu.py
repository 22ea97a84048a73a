"""batch_norm on Numba for the processor: vectors along the runs of a channel, or across channels with short runs."""
# op: gpunet/ops/batch_norm.py
#
# x is seen as (N, C, L): a run is the L values of a channel in one image. Sums of up to GROUP values are in x's dtype,
# in the lanes of vectors; they are added up in float64. For the statistics a group is read twice while it is in the
# first cache, first for a rough mean, then for the sums of d = x - rough mean and of d**2, where rounding does not
# matter any more; groups are merged by Chan's formula. Weights and shifts that are not given come as arrays of no
# elements.

import math
from math import prod

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import ranges, run
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.launching import is_real
from ..common.rows_numba_cpu import GRAIN, NARROW, RUN, STEPS, SUMS, UNIT, WIDE, over

GROUP = RUN  # values, about
SHORT = 32  # values of a run below which lanes take neighbouring channels too
CACHED = 2**18  # values of a channel that the second-level cache, or nearly, holds between statistics and result
FEW = 8  # channels


def _sizes(x):
    """(N, C, L)."""
    return x.shape[0], x.shape[1], prod(x.shape[2:])


def _given(v, like):
    return np.empty(0, like.dtype) if v is None else in_rows(v)


def takes(*arrays, eps=0.0):
    """Whether the arrays are all float32, or all float64."""
    return is_real(*arrays)


def short(*arrays, eps=0.0):
    """Pays where a channel has few values in an image."""
    return prod(arrays[0].shape[2:]) < SHORT or f"it pays for fewer than {SHORT} values of a channel in an image"


def cached(x, *_, eps=0.0):
    """Pays where channels are cached and there are some for each thread, or little work in all."""
    N, C, L = _sizes(x)
    fine = N * L <= CACHED and (C >= FEW or x.size <= GRAIN)
    return fine or f"it pays for {FEW} channels or more of at most {CACHED} values"


def _nothing(x):
    """Statistics of no values."""
    return tuple(np.full(x.shape[1], np.nan, x.dtype) for _ in range(3))


# -- statistics --------------------------------------------------------------------------------------------------------


@compiled(fastmath=SUMS)
def rough_mean(x, c, first, end, begin, stop):
    """Of x[first:end, c, begin:stop]; of terms already divided, so that no sum is too large."""
    share = x.dtype.type(1 / ((end - first) * (stop - begin)))
    total = 0.0
    for n in range(first, end):
        run = x[n, c, begin:stop]
        sum = x.dtype.type(0)
        for j in range(run.size):
            sum += run[j] * share
        total += sum
    return total


@compiled(fastmath=SUMS)
def centred_sums(x, c, first, end, begin, stop, m):
    """Sums of x - m and of its square, over the same."""
    total, squares = 0.0, 0.0
    for n in range(first, end):
        run = x[n, c, begin:stop]
        sum, square = x.dtype.type(0), x.dtype.type(0)
        for j in range(run.size):
            d = run[j] - m
            sum += d
            square += d * d
        total += sum
        squares += square
    return total, squares


@compiled
def moments(x, c, first, end):
    """Count, mean and sum of squares around it, of images first to end of a channel, and the mean in rough."""
    L = x.shape[2]
    images, piece = max(1, GROUP // L), min(L, GROUP)
    count, mean, squares, rough = 0.0, 0.0, 0.0, 0.0
    for n in range(first, end, images):
        stop = min(n + images, end)
        for begin in range(0, L, piece):
            last = min(begin + piece, L)
            size = float((stop - n) * (last - begin))
            m = x.dtype.type(rough_mean(x, c, n, stop, begin, last))
            d, square = centred_sums(x, c, n, stop, begin, last, m)
            away = m + d / size - mean
            squares += square - d * d / size + away * away * count * size / (count + size)
            count += size
            mean += away * size / count
            rough += m * size
    return count, mean, squares, rough / count


@compiled
def settle(c, moments, w, b, eps, mean, var, invstd):
    """Writes the statistics of a channel; returns m, scale and shift: y = (x - m) * scale + shift."""
    count, centre, squares, rough = moments
    real = mean.dtype.type
    if not abs(centre) < np.inf:  # inf in x: differences of inf are NaN, their mean is not
        centre = rough
    spread = max(squares / count, 0.0)
    if squares != squares:
        spread = np.nan
    factor = 1 / math.sqrt(spread + eps)
    m = real(centre)
    mean[c], var[c], invstd[c] = m, spread, factor
    scale = factor if w.size == 0 else factor * w[c]
    shift = -(centre - m) * scale
    return m, real(scale), real(shift if b.size == 0 else b[c] + shift)


# -- split -------------------------------------------------------------------------------------------------------------
#
# task    some images of one channel, 32,768 values or more, or one image's
# lanes   neighbours in a run
# reads   forward x twice, grad_wb gy and x once
# needs   nothing


def _parts(x):
    """Images of a task."""
    return ranges(x.shape[0], max(1, GRAIN // x.shape[2]))


@compiled
def batch_norm_forward_split_loop(left, x, c, first, end, part):
    """What is known of one part of a channel."""
    left[c, part, 0], left[c, part, 1], left[c, part, 2], left[c, part, 3] = moments(x, c, first, end)


@compiled
def batch_norm_forward_split_merge(left, w, b, eps, mean, var, invstd, factors):
    """All parts of each channel, in order, by Chan's formula."""
    for c in range(left.shape[0]):
        count, centre, squares, rough = 0.0, 0.0, 0.0, 0.0
        for p in range(left.shape[1]):
            size = left[c, p, 0]
            away = left[c, p, 1] - centre
            squares += left[c, p, 2] + away * away * count * size / (count + size)
            count += size
            centre += away * size / count
            rough += left[c, p, 3] * size
        found = settle(c, (count, centre, squares, rough / count), w, b, eps, mean, var, invstd)
        factors[0, c], factors[1, c], factors[2, c] = found


@kernel("batch_norm.forward", backend="numba_cpu", variant="split", when=takes)
def batch_norm_forward_split(x, w, b, *, eps):
    """Statistics of the parts of all channels, their merger, then the values."""
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y, *_nothing(x)
    N, C, L = _sizes(x)
    flat = in_rows(x).reshape(N, C, L)
    mean, var, invstd = (empty((C,), x.dtype) for _ in range(3))
    parts = _parts(flat)
    left, factors = np.empty((C, len(parts), 4)), np.empty((3, C), x.dtype)

    def task(k):
        c, part = k % C, k // C
        batch_norm_forward_split_loop(left, flat, c, *parts[part], part)

    run(task, C * len(parts))
    batch_norm_forward_split_merge(left, _given(w, x), _given(b, x), eps, mean, var, invstd, factors)
    _over_runs(scaled_runs, (y, flat), factors, (N, C, L))
    return y, mean, var, invstd


@compiled(fastmath=SUMS)
def product_sums(gy, x, c, first, end, m):
    """Sums of gy * (x - m) and of gy, over images first to end of a channel."""
    products, sums = 0.0, 0.0
    for n in range(first, end):
        for begin in range(0, x.shape[2], GROUP):
            one, other = gy[n, c, begin : begin + GROUP], x[n, c, begin : begin + GROUP]
            product, sum = x.dtype.type(0), x.dtype.type(0)
            for j in range(one.size):
                product += one[j] * (other[j] - m)
                sum += one[j]
            products += product
            sums += sum
    return products, sums


@compiled
def batch_norm_grad_wb_split_loop(left, gy, x, mean, starts, first, end):
    """Parts of channels first to end, numbered channel after channel."""
    parts = starts.size - 1
    for k in range(first, end):
        c, p = k // parts, k % parts
        left[0, c, p], left[1, c, p] = product_sums(gy, x, c, starts[p], starts[p + 1], mean[c])


@kernel("batch_norm.grad_wb", backend="numba_cpu", variant="split", when=takes)
def batch_norm_grad_wb_split(gy, x, mean, invstd):
    """Sums of the parts of all channels, then those of the channels."""
    N, C, L = _sizes(x)
    if x.size == 0:
        return np.zeros(C, x.dtype), np.zeros(C, x.dtype)
    gy, x = in_rows(gy).reshape(N, C, L), in_rows(x).reshape(N, C, L)
    starts = np.array([0, *(end for _, end in _parts(x))])
    count = C * (starts.size - 1)
    left = np.empty((2, C, starts.size - 1))
    share = max(1, GRAIN * count // x.size)
    mean = in_rows(mean)
    over(lambda *piece: batch_norm_grad_wb_split_loop(left, gy, x, mean, starts, *piece), count, share)
    gw, gb = left.sum(axis=2)
    return (gw * invstd).astype(x.dtype), gb.astype(x.dtype)


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
def batch_norm_grad_x_eval_vectorised_loop(gx, gy, factors, first):
    """One product an element."""
    for r in range(gy.shape[0]):
        factor = factors[0, (first + r) % factors.shape[1]]
        one, out = gy[r], gx[r]
        for j in range(out.size):
            out[j] = one[j] * factor


def _over_runs(walk, arrays, factors, sizes):
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


@compiled
def grad_eval_factors(factors, w, invstd):
    """The factor of each channel."""
    for c in range(invstd.size):
        factors[0, c] = invstd[c] if w.size == 0 else np.float64(invstd[c]) * w[c]


def _eval_factors(x, mean, var, w, b, eps):
    factors = np.empty((3, x.shape[1]), x.dtype)
    eval_factors(factors, in_rows(mean), in_rows(var), _given(w, x), _given(b, x), eps)
    return factors


def _grad_factors(x, w, mean, invstd, gw, gb):
    factors, count = np.empty((4, x.shape[1]), x.dtype), float(x.size // x.shape[1])
    grad_factors(factors, _given(w, x), in_rows(mean), in_rows(invstd), in_rows(gw), in_rows(gb), count)
    return factors


def _grad_eval_factors(gy, w, invstd):
    factors = np.empty((1, gy.shape[1]), gy.dtype)
    grad_eval_factors(factors, _given(w, gy), in_rows(invstd))
    return factors


@kernel("batch_norm.forward_eval", backend="numba_cpu", variant="vectorised", when=takes)
def batch_norm_forward_eval_vectorised(x, mean, var, w, b, *, eps):
    """One vector of a run at a time."""
    y = empty(x.shape, x.dtype)
    if x.size:
        _over_runs(scaled_runs, (y, in_rows(x)), _eval_factors(x, mean, var, w, b, eps), _sizes(x))
    return y


@kernel("batch_norm.grad_x", backend="numba_cpu", variant="vectorised", when=takes)
def batch_norm_grad_x_vectorised(gy, x, w, mean, invstd, gw, gb):
    """One vector of a run at a time."""
    gx = empty(x.shape, x.dtype)
    if x.size:
        factors = _grad_factors(x, w, mean, invstd, gw, gb)
        _over_runs(batch_norm_grad_x_vectorised_loop, (gx, in_rows(gy), in_rows(x)), factors, _sizes(x))
    return gx


@kernel("batch_norm.grad_x_eval", backend="numba_cpu", variant="vectorised", when=takes)
def batch_norm_grad_x_eval_vectorised(gy, w, invstd):
    """One vector of a run at a time."""
    gx = empty(gy.shape, gy.dtype)
    if gy.size:
        arrays = (gx, in_rows(gy))
        _over_runs(batch_norm_grad_x_eval_vectorised_loop, arrays, _grad_eval_factors(gy, w, invstd), _sizes(gy))
    return gx


# -- resident ----------------------------------------------------------------------------------------------------------
#
# task    channels of together 32,768 values or more, or one larger channel
# lanes   neighbours in a run
# reads   x from memory once, then from the second-level cache
# needs   nothing; pays for channels that the cache holds


@compiled(fastmath={"contract"})
def batch_norm_forward_resident_loop(y, x, w, b, eps, mean, var, invstd, first, end):
    """Statistics and values, channel by channel."""
    for c in range(first, end):
        m, scale, shift = settle(c, moments(x, c, 0, x.shape[0]), w, b, eps, mean, var, invstd)
        for n in range(x.shape[0]):
            run, out = x[n, c], y[n, c]
            for j in range(out.size):
                out[j] = (run[j] - m) * scale + shift


@kernel("batch_norm.forward", backend="numba_cpu", variant="resident", when=takes, pays=cached)
def batch_norm_forward_resident(x, w, b, *, eps):
    """A channel at a time."""
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y, *_nothing(x)
    N, C, L = _sizes(x)
    made = tuple(empty((C,), x.dtype) for _ in range(3))
    given = (y.reshape(N, C, L), in_rows(x).reshape(N, C, L), _given(w, x), _given(b, x), eps, *made)
    over(lambda *piece: batch_norm_forward_resident_loop(*given, *piece), C, max(1, GRAIN // (N * L)))
    return y, *made


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
        known = (count, rough + away, squares[j : j + L].sum() - away * away * count, rough)
        found = settle(first + j // L, known, w, b, eps, mean, var, invstd)
        m[j : j + L], scale[j : j + L], shift[j : j + L] = found
    for n in range(x.shape[0]):
        row, out = x[n, begin:stop], y[n, begin:stop]
        for j in range(width):
            out[j] = (row[j] - m[j]) * scale[j] + shift[j]


def _channels(x):
    """Channels of a task, so that they fit into the cache; and (N, C, L)."""
    N, C, L = _sizes(x)
    return max(1, max(NARROW, min(WIDE, UNIT // N)) // L), (N, C, L)


@kernel("batch_norm.forward", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_forward_columns(x, w, b, *, eps):
    """Some channels at a time."""
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y, *_nothing(x)
    share, (N, C, L) = _channels(x)
    made = tuple(empty((C,), x.dtype) for _ in range(3))
    given = (y.reshape(N, C * L), in_rows(x).reshape(N, C * L), L, _given(w, x), _given(b, x), eps, *made)
    _each(lambda *piece: batch_norm_forward_columns_loop(*given, *piece), ranges(C, share))
    return y, *made


def _each(walk, pieces):
    """Calls ``walk(first, end)`` for each piece, also on one thread: their memory is made for a piece."""
    if len(pieces) == 1:
        walk(*pieces[0])
    else:
        run(lambda task: walk(*pieces[task]), len(pieces))


@compiled(fastmath={"contract"})
def batch_norm_grad_wb_columns_loop(gw, gb, gy, x, L, mean, invstd, first, end):
    """Sums down the columns, then those of the columns of a channel."""
    begin, stop = first * L, end * L
    width = stop - begin
    m = np.repeat(mean[first:end], L)
    some, part = np.empty(width, x.dtype), np.empty(width, x.dtype)
    products, sums = np.zeros(width), np.zeros(width)
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
    share, (N, C, L) = _channels(x)
    gw, gb = empty((C,), x.dtype), empty((C,), x.dtype)
    flat = (in_rows(each).reshape(N, C * L) for each in (gy, x))
    given = (gw, gb, *flat, L, in_rows(mean), in_rows(invstd))
    _each(lambda *piece: batch_norm_grad_wb_columns_loop(*given, *piece), ranges(C, share))
    return gw, gb


@compiled(fastmath={"contract"})
def scaled_columns(y, x, factors):
    """As scaled_runs, with factors of each column."""
    m, scale, shift = factors[0], factors[1], factors[2]
    for n in range(x.shape[0]):
        row, out = x[n], y[n]
        for j in range(out.size):
            out[j] = (row[j] - m[j]) * scale[j] + shift[j]


@compiled(fastmath={"contract"})
def batch_norm_grad_x_columns_loop(gx, gy, x, factors):
    """As the run's, with factors of each column."""
    m, slope, level, factor = factors[0], factors[1], factors[2], factors[3]
    for n in range(x.shape[0]):
        one, row, out = gy[n], x[n], gx[n]
        for j in range(out.size):
            out[j] = (row[j] - m[j]) * slope[j] + level[j] + one[j] * factor[j]


@compiled
def batch_norm_grad_x_eval_columns_loop(gx, gy, factors):
    """As the run's, with factors of each column."""
    factor = factors[0]
    for n in range(gy.shape[0]):
        one, out = gy[n], gx[n]
        for j in range(out.size):
            out[j] = one[j] * factor[j]


def _over_images(walk, arrays, factors, sizes):
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
        _over_images(scaled_columns, (y, in_rows(x)), _eval_factors(x, mean, var, w, b, eps), _sizes(x))
    return y


@kernel("batch_norm.grad_x", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_grad_x_columns(gy, x, w, mean, invstd, gw, gb):
    """One vector of an image at a time."""
    gx = empty(x.shape, x.dtype)
    if x.size:
        factors = _grad_factors(x, w, mean, invstd, gw, gb)
        _over_images(batch_norm_grad_x_columns_loop, (gx, in_rows(gy), in_rows(x)), factors, _sizes(x))
    return gx


@kernel("batch_norm.grad_x_eval", backend="numba_cpu", variant="columns", when=takes, pays=short)
def batch_norm_grad_x_eval_columns(gy, w, invstd):
    """One vector of an image at a time."""
    gx = empty(gy.shape, gy.dtype)
    if gy.size:
        arrays = (gx, in_rows(gy))
        _over_images(batch_norm_grad_x_eval_columns_loop, arrays, _grad_eval_factors(gy, w, invstd), _sizes(gy))
    return gx
