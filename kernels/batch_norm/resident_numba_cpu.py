"""batch_norm on Numba for the processor: channel after channel, several images of it at a time."""
# op: gpunet/ops/batch_norm.py

from math import prod

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.rows_numba_cpu import GRAIN, RUN, SUMS, over
from .batch_norm_numba_cpu import given, nothing, settle, sizes_of, takes

MIDDLE = 100  # below, merging image by image takes longer than jumping from image to image


def small(x, *_, eps=0.0):
    """Pays where a channel has few values in an image, or there is little to do: one kernel does it all."""
    fine = prod(x.shape[2:]) < MIDDLE or x.size <= GRAIN
    return fine or f"it pays for fewer than {MIDDLE} values of a channel in an image, or {GRAIN} in all"


# -- resident ----------------------------------------------------------------------------------------------------------
#
# task    channels of together 32,768 values or more, or one larger channel
# lanes   neighbours in a run
# reads   x from memory once, then from the second-level cache
# needs   nothing; pays for short runs, whose images are merged several at a time, and for small arrays


@compiled(fastmath=SUMS)
def images_mean(x, c, first, end, begin, stop):
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
def images_sums(x, c, first, end, begin, stop, m):
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
    """Of images first to end of a channel what :func:`settle` wants: so many images at a time that RUN values are."""
    L = x.shape[2]
    images, piece = max(1, RUN // L), min(L, RUN)
    count, mean, squares, rough = 0.0, 0.0, 0.0, 0.0
    for n in range(first, end, images):
        stop = min(n + images, end)
        for begin in range(0, L, piece):
            last = min(begin + piece, L)
            size = float((stop - n) * (last - begin))
            m = x.dtype.type(images_mean(x, c, n, stop, begin, last))
            d, square = images_sums(x, c, n, stop, begin, last, m)
            away = m + d / size - mean
            squares += square - d * d / size + away * away * count * size / (count + size)
            count += size
            mean += away * size / count
            rough += m * size
    return count, mean, 0.0, squares, rough / count


@compiled(fastmath={"contract"})
def batch_norm_forward_resident_loop(y, x, w, b, eps, mean, var, invstd, first, end):
    """Statistics and values, channel by channel."""
    for c in range(first, end):
        m, scale, shift = settle(c, moments(x, c, 0, x.shape[0]), w, b, eps, mean, var, invstd)
        for n in range(x.shape[0]):
            run, out = x[n, c], y[n, c]
            for j in range(out.size):
                out[j] = (run[j] - m) * scale + shift


@kernel("batch_norm.forward", backend="numba_cpu", variant="resident", when=takes, pays=small)
def batch_norm_forward_resident(x, w, b, *, eps):
    """A channel at a time."""
    y = empty(x.shape, x.dtype)
    if x.size == 0:
        return y, *nothing(x)
    N, C, L = sizes_of(x)
    made = tuple(empty((C,), x.dtype) for _ in range(3))
    known = (y.reshape(N, C, L), in_rows(x).reshape(N, C, L), given(w, x), given(b, x), eps, *made)
    over(lambda *piece: batch_norm_forward_resident_loop(*known, *piece), C, max(1, GRAIN // (N * L)))
    return y, *made
