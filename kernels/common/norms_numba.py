"""What batch_norm and layer_norm share on Numba-CUDA, and how batch_norm's kernels walk through a channel.

The batch_norm part is that of batch_norm.cu: x (N, C, ...) is seen as (N, C, S), a channel is N rows of S neighbours,
and the grid is groups x parts. A group is a channel, or 32 neighbouring columns of the matrix (N, C * S) where rows are
short; a part of it is ``chunk`` steps of W neighbours, or ``chunk`` rows.

Functions for kernels whose text depends on constants come from factories, as in rows_numba.py: what the templates of
CUDA C++ are. Numba adds 32-bit integers as 64-bit ones; ``np.int32(...)`` around an expression says that 32 bits are
enough, and an index ``np.uint64(...)`` is not looked at for being below 0.
"""

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.cuda.packs import load_pack, store_pack

from .launching import contiguous, empty

WARP = 32
TALL = 2 if jit.SIMULATED else 8  # rows of threads in a block that covers columns
BLOCK = TALL * WARP  # threads of a block; few in the simulator, which makes each a Python thread
VALUES = 16  # of a channel that a thread takes in one round
ALL_LANES = 0xFFFFFFFF

double = np.float64
nought, one = double(0), double(1)
root = np.sqrt if jit.SIMULATED else math.sqrt


def template(factory: Any) -> Any:
    """Makes kernels of ``factory(real, *constants)``: ``made(name, *constants)(like)`` is the one for like's dtype."""

    @cache
    def made(name: str, *constants: Any) -> Any:
        def of_dtype(real: Any) -> Any:
            return factory(real, *constants)

        of_dtype.__name__ = f"{name}_kernel"
        return jit.typed(of_dtype)

    return made


def given(like: Any, *arrays: Any) -> tuple[Any, ...]:
    """The arrays in C order; None, which kernels cannot take, becomes an array without elements."""
    return tuple(empty((0,), like) if each is None else contiguous(each) for each in arrays)


@jit.device
def or_one(v, c):
    """v[c] in double, or 1 where v has no elements."""
    return double(v[c]) if v.size > 0 else one


@jit.device
def or_zero(v, c):
    """Likewise, or 0."""
    return double(v[c]) if v.size > 0 else nought


# -- W neighbours at once: 1, or those in 16 bytes ---------------------------------------------------------------------


def loads(W: int) -> Any:
    """v[k], v[k + 1], ... from the W neighbours at ``place``, counted in units of W."""

    @jit.device
    def load(v, k, x, place):
        if W == 1:
            v[k] = x[np.uint64(place)]
        elif W == 2:
            pack = load_pack(x, place)
            v[k], v[k + 1] = pack[0], pack[1]
        else:
            pack = load_pack(x, place)
            v[k], v[k + 1], v[k + 2], v[k + 3] = pack[0], pack[1], pack[2], pack[3]

    return load


def stores(W: int) -> Any:
    """The reverse."""

    @jit.device
    def store(y, place, v, k):
        if W == 1:
            y[np.uint64(place)] = v[k]
        elif W == 2:
            store_pack(y, place, (v[k], v[k + 1]))
        else:
            store_pack(y, place, (v[k], v[k + 1], v[k + 2], v[k + 3]))

    return store


# -- which part of x is a block's, and how a thread walks through it ---------------------------------------------------


class Part(NamedTuple):
    """A block's group, and its part of that."""

    group: Any
    part: Any


class Walk(NamedTuple):
    """The steps of one thread. Moving on by a fixed number of steps needs no division."""

    j: Any  # this step of the group
    stop: Any  # the end of the part
    step: Any
    s: Any  # the place of j in its row
    step_s: Any
    row_steps: Any
    place: Any  # where j lies, in units of W values; 64 bits, as the next two
    hop: Any  # from one step's place to the next one's
    over: Any  # and more where that is in the next row


@jit.device
def forwards():
    """Parts in their order."""
    return Part(np.int32(cuda.blockIdx.x), np.int32(cuda.blockIdx.y))


@jit.device
def backwards():
    """From the other end: what the pass before read last, and the cache still holds, is read first."""
    return Part(
        np.int32(cuda.gridDim.x - np.int32(1) - cuda.blockIdx.x),
        np.int32(cuda.gridDim.y - np.int32(1) - cuda.blockIdx.y),
    )


@jit.device
def along_rows(W, here, N, C, S, chunk):
    """Steps of W neighbours, the rows of a channel one after the other."""
    row_steps, step = np.uint32(S // W), np.uint32(cuda.blockDim.x)
    first = here.part * chunk
    j, stop = np.uint32(first + cuda.threadIdx.x), np.int32(min(first + chunk, N * (S // W)))
    s, step_s = np.int32(j % row_steps), np.int32(step % row_steps)
    row = np.int64(C) * np.int64(row_steps)
    place = np.int64(here.group) * np.int64(row_steps) + np.int64(j // row_steps) * row + s
    hop, over = np.int64(step // row_steps) * row + step_s, row - np.int64(row_steps)
    return Walk(np.int32(j), stop, np.int32(step), s, step_s, np.int32(row_steps), place, hop, over)


@jit.device
def down_columns(here, N, C, S, chunk):
    """Every TALL-th row of one of 32 columns."""
    zero, row = np.int32(0), np.int64(C) * np.int64(S)
    first, column = here.part * chunk, here.group * WARP + cuda.threadIdx.x % WARP
    j = np.int32(first + cuda.threadIdx.x // WARP)
    stop = np.int32(min(first + chunk, N)) if column < row else zero
    return Walk(j, stop, np.int32(TALL), zero, zero, np.int32(1), j * row + column, TALL * row, row)


@jit.device
def walk(W, here, N, C, S, chunk, columns):
    """The thread's walk: down a column, or along the rows of a channel."""
    return down_columns(here, N, C, S, chunk) if columns else along_rows(W, here, N, C, S, chunk)


@jit.device
def moved(at):
    """The next step."""
    s, place = np.int32(at.s + at.step_s), at.place + at.hop
    if s >= at.row_steps:
        s, place = np.int32(s - at.row_steps), place + at.over
    return Walk(np.int32(at.j + at.step), at.stop, at.step, s, at.step_s, at.row_steps, place, at.hop, at.over)


# -- factors of a channel ----------------------------------------------------------------------------------------------


class Line(NamedTuple):
    """What becomes of a value: (x - mean) * slope + level, and of a gradient gy: gy * factor."""

    mean: Any
    slope: Any
    level: Any
    factor: Any


@jit.device
def slot_of(here, C, S, columns):
    """The thread's place among the block's channels, its channel, and whether it is the one that computes its line."""
    slot = np.int32(cuda.threadIdx.x % WARP) if columns else np.int32(0)
    c = np.int32((here.group * WARP + slot) // S) if columns else here.group
    return slot, c, cuda.threadIdx.x == slot and c < C


@jit.device
def put(room, slot, line):
    """Shares a channel's line with the block; room: four elements for each slot."""
    room[slot], room[WARP + slot] = line.mean, line.slope
    room[2 * WARP + slot], room[3 * WARP + slot] = line.level, line.factor


@jit.device
def got(room, slot):
    """The line at ``slot``, behind a barrier."""
    return Line(room[slot], room[WARP + slot], room[2 * WARP + slot], room[3 * WARP + slot])


def each(real: Any, W: int, f: Any) -> Any:
    """out = f(one, other, line) along a walk; all loads of a round come before its stores."""
    N, load, store = VALUES // 2, loads(W), stores(W)

    @jit.device
    def run(at, out, one, other, line):
        while at.j < at.stop:
            left = cuda.local.array(N, real)
            right = cuda.local.array(N, real)
            places = cuda.local.array(N, np.int64)
            for k in range(0, N, W):
                places[k] = np.int64(-1)
                if at.j < at.stop:
                    places[k] = at.place
                    load(left, k, one, places[k])
                    load(right, k, other, places[k])
                at = moved(at)
            for k in range(0, N, W):
                if places[k] >= 0:
                    for i in range(k, k + W):
                        left[i] = f(left[i], right[i], line)
                    store(out, places[k], left, k)

    return run


# -- statistics in one pass --------------------------------------------------------------------------------------------
#
# Short runs of values are centred by their own mean, in ``real``; runs, threads and parts are merged in double by Chan,
# Golub and LeVeque's formula. Nowhere are two large numbers subtracted. The means that are merged are relative to the
# channel's first value, so that being far from 0 costs them no digits; the mean that forward returns is sum / count,
# which a wild first value does not touch, and which is infinite where x is.


class Moments(NamedTuple):
    """Of some values."""

    count: Any
    sum: Any
    mean: Any
    squares: Any  # the sum of (x - mean)**2


@jit.device
def merged(a, b):
    """Of both together."""
    count = a.count + b.count
    share = b.count / count if count > nought else nought
    apart = b.mean - a.mean
    squares = a.squares + b.squares + apart * apart * a.count * share
    return Moments(count, a.sum + b.sum, a.mean + apart * share, squares)


@jit.device
def warp_merged(all):
    """Over the warp in a fixed order; lane 0 has the result."""
    for k in range(5):
        count = cuda.shfl_down_sync(ALL_LANES, all.count, 16 >> k)
        sum = cuda.shfl_down_sync(ALL_LANES, all.sum, 16 >> k)
        mean = cuda.shfl_down_sync(ALL_LANES, all.mean, 16 >> k)
        squares = cuda.shfl_down_sync(ALL_LANES, all.squares, 16 >> k)
        all = merged(all, Moments(count, sum, mean, squares))
    return all


@jit.device
def keep(array, at, apart, all):
    """The four, ``apart`` elements from one to the next."""
    array[at], array[apart + at] = all.count, all.sum
    array[2 * apart + at], array[3 * apart + at] = all.mean, all.squares


@jit.device
def kept(array, at, apart):
    """The reverse."""
    return Moments(array[at], array[apart + at], array[2 * apart + at], array[3 * apart + at])


def moments_of(real: Any, W: int) -> Any:
    """The moments of the values along a walk; if ``origin`` is infinite they are NaN, and so is the channel."""
    load, zero = loads(W), real(0)

    @jit.device
    def moments(at, x, origin):
        all = Moments(nought, nought, nought, nought)
        while at.j < at.stop:
            run = cuda.local.array(VALUES, real)
            filled = np.int32(0)
            for k in range(0, VALUES, W):
                if at.j < at.stop:
                    load(run, k, x, at.place)
                    filled = np.int32(k + W)
                at = moved(at)
            # What the values are taken relative to: not an infinity, which would make NaN of an infinite sum.
            first = run[0] if run[0] - run[0] == zero else zero
            sum, squares = zero, zero
            for k in range(VALUES):
                sum += run[k] - first if k < filled else zero
            mean = sum / real(filled)
            for k in range(VALUES):
                d = (run[k] - first) - mean if k < filled else zero
                squares += d * d
            count, begin = double(filled), double(first)
            away = (begin - origin) + double(sum) / count
            all = merged(all, Moments(count, begin * count + double(sum), away, double(squares)))
        return all

    return moments


def sums_of(real: Any, W: int) -> Any:
    """The sums of gy * (x - mean) and of gy along a walk: rounds in ``real``, then in double."""
    load, zero = loads(W), real(0)

    @jit.device
    def sums(at, gy, x, mean):
        products, plain = nought, nought
        while at.j < at.stop:
            g = cuda.local.array(VALUES, real)
            v = cuda.local.array(VALUES, real)
            filled = np.int32(0)
            for k in range(0, VALUES, W):
                if at.j < at.stop:
                    load(g, k, gy, at.place)
                    load(v, k, x, at.place)
                    filled = np.int32(k + W)
                at = moved(at)
            product, sum = zero, zero
            for k in range(VALUES):
                product += (v[k] - mean) * g[k] if k < filled else zero
                sum += g[k] if k < filled else zero
            products += double(product)
            plain += double(sum)
        return products, plain

    return sums
