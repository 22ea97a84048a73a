"""Rows on Numba-CUDA, rows.cuh in Python: lines of D elements that softmax, log_softmax and cross_entropy reduce.

A row is the work of a group of threads: some lanes of a warp, or a column of a block, which may be all of it. Of a row
that begins at element ``begin``, its elements ``apart``, thread ``at`` of the group's ``size`` takes at, at + size, ...

Factories of functions are C++'s templates. Arrays of a thread (``cuda.local.array``) stay in registers: loops over them
have bounds that the compiler knows. ``np.int32`` says that 32 bits are enough, ``np.uint64`` that an index is not < 0.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from gpunet import cuda as door
from gpunet.cuda import jit
from gpunet.cuda.jit import SIMULATED, THREADS, cuda
from gpunet.cuda.packs import load_pack, store_pack

from . import rows
from .launching import contiguous, empty
from .shapes import cdiv

ALL_LANES = 0xFFFFFFFF
RUN = 256  # terms that one thread adds up before their sum goes to the row's, where it has a row alone

STEP = 32 if SIMULATED else rows.STEP  # bytes that a thread takes at once where it walks along a row
WARPS = 32 if SIMULATED else rows.WARPS  # threads of a block whose warps or columns have rows of their own
LONG = 8 if SIMULATED else 512  # threads of a block that has one row, or a part: one may take 128 registers

double = np.float64
nought = double(0)
#: of one number; math's, given a float32, would return a Python float in the simulator
exponential, logarithm = (np.exp, np.log) if SIMULATED else (math.exp, math.log)


def lowest(real: Any) -> Any:
    """The lowest finite number, where a maximum begins: -inf - -inf would be NaN before a row's first number."""
    return np.finfo(real).min


def elements(real: Any, size: int) -> int:
    """How many elements ``size`` bytes hold."""
    return size // np.dtype(real).itemsize


# -- groups of threads: sums and maxima, in a fixed order. All threads must take part, and get the result --------------


@jit.device
def warp_sum(value):
    """The sum over a warp."""
    for k in range(5):
        value += cuda.shfl_xor_sync(ALL_LANES, value, 16 >> k)
    return value


@jit.device
def block_sum(value, scratch):
    """The sum over a block of whole warps along x; scratch: 32 shared elements, free again on return."""
    lane, warp, warps = cuda.laneid, cuda.threadIdx.x >> 5, cuda.blockDim.x >> 5
    value = warp_sum(value)
    if lane == 0:
        scratch[warp] = value
    cuda.syncthreads()
    value = warp_sum(scratch[lane] if lane < warps else scratch.dtype.type(0))
    cuda.syncthreads()  # everyone has read before the next call writes
    return value


def over_lanes(join: Any) -> Any:
    """Joins the values of a group's lanes, 1, 2, 4, ... or 32 neighbours."""

    @jit.device
    def meet(value, group, scratch):
        apart = group.size >> 1
        while apart > 0:
            value = join(value, cuda.shfl_xor_sync(ALL_LANES, value, apart))
            apart >>= 1
        return value

    return meet


def over_column(join: Any) -> Any:
    """Joins those of a block's column, 1, 2, 4, ... threads: of each two halves, until one is left."""

    @jit.device
    def meet(value, group, scratch):
        width = cuda.blockDim.x
        mine = cuda.threadIdx.y * width + cuda.threadIdx.x
        scratch[mine] = value
        cuda.syncthreads()
        half = group.size >> 1
        while half > 0:
            if group.at < half:
                scratch[mine] = join(scratch[mine], scratch[mine + half * width])
            cuda.syncthreads()
            half >>= 1
        value = scratch[cuda.threadIdx.x]
        cuda.syncthreads()  # everyone has read before the next call writes
        return value

    return meet


class Group(NamedTuple):
    """A thread's group: its place there, its threads, and shared memory where maxima and sums meet, if they need it."""

    at: Any
    size: Any
    tops: Any
    sums: Any


class Kind(NamedTuple):
    """What groups of one kind do: join the values of all threads, given the group and its scratch."""

    largest: Any
    total: Any


larger, added = jit.device(lambda a, b: max(a, b)), jit.device(lambda a, b: a + b)  # a NaN loses
LANES, COLUMN = Kind(over_lanes(larger), over_lanes(added)), Kind(over_column(larger), over_column(added))


@jit.device
def my_lanes(width):
    """The thread's ``width`` lanes, a power of two."""
    return Group(np.int32(cuda.threadIdx.x & (width - 1)), width, 0, 0)


@jit.device
def my_column(tops, sums):
    """The thread's column of the block, the whole of it where blockDim.x is 1; scratch: an element for each thread."""
    return Group(cuda.threadIdx.y, cuda.blockDim.y, tops, sums)


@jit.device
def line(row, rows, units, inner):
    """Where a row begins and its units, elements or packs: 0 behind the last row, where threads only take part."""
    mine = units if row < rows else np.int32(0)
    return row // inner * inner * units + row % inner, mine


@jit.device
def segment(D, parts):
    """``parts`` blocks for each row of neighbours: where this block's segment begins, its elements, its offset."""
    row, part = cuda.blockIdx.x // parts, cuda.blockIdx.x % parts
    offset = D * part // parts
    return row * D + offset, np.int32(D * (part + 1) // parts - offset), offset


def loads(N: int) -> Any:
    """The elements first, first + hop, ... of a row into v, N of them; ``rest`` stands for those from D on."""

    @jit.device
    def load(v, x, begin, first, hop, D, apart, rest):
        for k in range(N):
            u = np.int32(first + k * hop)
            v[k] = x[np.uint64(begin + u * apart)] if u < D else rest

    return load


def stores(N: int) -> Any:
    """The reverse."""

    @jit.device
    def store(y, v, begin, first, hop, D, apart):
        for k in range(N):
            u = np.int32(first + k * hop)
            if u < D:
                y[np.uint64(begin + u * apart)] = v[k]

    return store


# Online softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018): whenever the maximum grows
# from m to m', the sum so far is multiplied by exp(m - m'). The numbers of a step are added in ``real``, their sums in
# double. A NaN never becomes the maximum, but makes the sum NaN, and so does inf by inf - inf.


def gathered(kind: Kind) -> Any:
    """(m, sum) of all the group's threads together."""
    largest, total = kind

    @jit.device
    def gather(m, sum, group):
        top = largest(m, group, group.tops)
        return top, total(sum * exponential(m - top), group, group.sums)

    return gather


def walked(real: Any) -> Any:
    """(m, sum) of the elements of a row that this thread takes."""
    N, low, nothing, zero = elements(real, STEP), lowest(real), real(-np.inf), real(0)
    load = loads(N)

    @jit.device
    def walk(group, x, begin, D, apart):
        m, sum = low, nought
        for first in range(group.at, D, N * group.size):
            v = cuda.local.array(N, real)
            load(v, x, begin, first, group.size, D, apart, nothing)
            top, part = m, zero
            for k in range(N):
                top = max(top, v[k])
            for k in range(N):
                part += exponential(v[k] - top)
            m, sum = top, sum * exponential(m - top) + part
        return m, sum

    return walk


# -- softmax and log_softmax -------------------------------------------------------------------------------------------


class Op(NamedTuple):
    """What the two do not share; d = x - m, e = exp(d), sum the row's sum of e."""

    kept: Any  # (d, e): what a thread keeps of an element until the sum is known
    level: Any  # (sum): what all elements of the row need of the sum
    y: Any  # (kept, level): the result
    term: Any  # (gy, y): what the gradient adds up
    gx: Any  # (gy, y, sum): the gradient, of that sum


def forward_kept(real: Any, op: Op, kind: Kind) -> Any:
    """A row of packs of 16 bytes, of which a thread has so few that it keeps them: it is read once."""
    UNIT, N = elements(real, 16), elements(real, rows.KEPT)
    zero, low, nothing = real(0), lowest(real), real(-np.inf)
    (largest, total), (kept, level, result, _, _) = kind, op

    @jit.device
    def run(group, y, x, begin, packs):
        v = cuda.local.array(N, real)
        for k in range(0, N, UNIT):
            u = np.int32(group.at + k // UNIT * group.size)
            for j in range(UNIT):
                v[k + j] = nothing
            if u < packs:
                pack = load_pack(x, begin + u)
                for j in range(UNIT):
                    v[k + j] = pack[j]
        m, sum = low, zero
        for k in range(N):
            m = max(m, v[k])
        m = largest(m, group, group.tops)
        for four in range(0, N, 4):  # four exponentials are under way between two branches
            if four // UNIT * group.size < packs:
                for k in range(four, four + 4):
                    d = v[k] - m
                    e = exponential(d)
                    v[k] = kept(d, e)
                    sum += e
        scale = level(total(sum, group, group.tops))
        for k in range(N):
            v[k] = result(v[k], scale)
        for k in range(0, N, UNIT):
            u = np.int32(group.at + k // UNIT * group.size)
            if u < packs:
                if UNIT == 2:
                    store_pack(y, begin + u, (v[k], v[k + 1]))
                else:
                    store_pack(y, begin + u, (v[k], v[k + 1], v[k + 2], v[k + 3]))

    return run


def forward_write(real: Any, op: Op) -> Any:
    """The y of elements whose row has maximum m and ``sum``."""
    N, nothing = elements(real, STEP), real(-np.inf)
    load, store, (kept, level, result, _, _) = loads(N), stores(N), op

    @jit.device
    def write(group, m, sum, y, x, begin, D, apart):
        scale = level(real(sum))
        for first in range(group.at, D, N * group.size):
            v = cuda.local.array(N, real)
            load(v, x, begin, first, group.size, D, apart, nothing)
            for k in range(N):
                d = v[k] - m
                v[k] = result(kept(d, exponential(d)), scale)
            store(y, v, begin, first, group.size, D, apart)

    return write


def grad_summed(real: Any, op: Op) -> Any:
    """A thread's share of the sum that the gradient needs: the terms of a step in ``real``, their sums in double."""
    N, zero, term = elements(real, STEP // 2), real(0), op.term

    @jit.device
    def share(group, gy, y, begin, D, apart):
        sum = nought
        for first in range(group.at, D, N * group.size):
            part = zero
            for k in range(N):
                u = np.int32(first + k * group.size)
                if u < D:
                    place = np.uint64(begin + u * apart)
                    part += term(gy[place], y[place])
            sum += part
        return sum

    return share


def grad_write(real: Any, op: Op) -> Any:
    """The gx of elements whose row has this sum."""
    N, zero, gradient = elements(real, STEP // 2), real(0), op.gx
    load, store = loads(N), stores(N)

    @jit.device
    def write(group, sum, gx, gy, y, begin, D, apart):
        for first in range(group.at, D, N * group.size):
            g = cuda.local.array(N, real)
            p = cuda.local.array(N, real)
            load(g, gy, begin, first, group.size, D, apart, zero)
            load(p, y, begin, first, group.size, D, apart, zero)
            for k in range(N):
                g[k] = gradient(g[k], p[k], sum)
            store(gx, g, begin, first, group.size, D, apart)

    return write


# -- launches of softmax and log_softmax: kernels, axis, inputs; as in rows.py -----------------------------------------


def columns(count: int, D: int, like: Any) -> tuple[int, int]:
    """A block (rows, threads a row) for rows whose elements are apart."""
    share = rows.columns(count, D, like, D, rows.LONG // 2 // like.itemsize)[1]
    return max(4 if SIMULATED else 32, WARPS // share), share


def parts_of(count: int, D: int, like: Any) -> int:
    """Segments of a row that occupy all multiprocessors twice, none shorter than one step of a block."""
    return max(1, min(LONG, cdiv(2 * door.multiprocessors(like), max(count, 1)), D * like.itemsize // (LONG * STEP)))


def _launch(kernel: Any, grid: int, block: tuple[int, ...], out: Any, arrays: tuple[Any, ...], *sizes: Any) -> Any:
    """Launches a kernel, unless there is nothing to compute; returns the output."""
    if arrays[-1].size:
        kernel(arrays[-1])((grid,), block, (out, *arrays, *sizes))
    return out


def _given(arrays: tuple[Any, ...], axis: int) -> tuple[Any, tuple[Any, ...], rows.Lines]:
    """The output, the inputs in C order, and the rows."""
    arrays = tuple(contiguous(each) for each in arrays)
    return empty(arrays[-1].shape, arrays[-1]), arrays, rows.lines(arrays[-1].shape, axis)


def coalesced(kernel: Any, axis: int, *arrays: Any, block: tuple[int, int] | None = None) -> Any:
    """Neighbouring threads on neighbouring rows; where those of a row are neighbours, it is alone in its block."""
    out, arrays, (outer, D, inner) = _given(arrays, axis)
    block = block or (columns(outer * inner, D, out) if inner > 1 else (1, LONG))
    return _launch(kernel, cdiv(outer * inner, block[0]), block, out, arrays, outer * inner, np.int32(D), inner)


def plain(kernel: Any, axis: int, *arrays: Any) -> Any:
    """One thread a row."""
    return coalesced(kernel, axis, *arrays, block=(THREADS, 1))


def warp(kernel: Any, kernel_packs: Any, axis: int, *arrays: Any) -> Any:
    """Some lanes of a warp a row; one kernel for elements, one for packs of 16 bytes where they fit."""
    out, arrays, (outer, D, _) = _given(arrays, axis)
    wide = rows.is_wide(D, *arrays)
    width = rows.lanes(D, out.itemsize, wide)
    if wide and kernel_packs is not None:
        kernel, D = kernel_packs, D * out.itemsize // 16
    return _launch(kernel, cdiv(outer, WARPS // width), (WARPS,), out, arrays, outer, np.int32(D), np.int32(width))


def block(kernel: Any, kernel_packs: Any, axis: int, x: Any) -> Any:
    """A block a row, kept in registers where it fits, in packs of 16 bytes."""
    out, (x,), (outer, D, _) = _given((x,), axis)
    size = D * x.itemsize
    if not rows.is_wide(D, x) or size > rows.KEPT * 512:
        return coalesced(kernel, axis, x)
    block = 1, max(LONG // 4, rows.power(cdiv(size, rows.KEPT)))
    return _launch(kernel_packs, outer, block, out, (x,), np.int32(size // 16))


def split(kernel: Any, kernel_write: Any, axis: int, *arrays: Any) -> Any:
    """Several blocks a row: first what each leaves, a maximum (forward) and a sum, then the output."""
    out, arrays, (outer, D, _) = _given(arrays, axis)
    parts = parts_of(outer, D, out)
    grid, block, sizes = (outer * parts if out.size else 0,), (1, LONG), (np.int32(D), np.int32(parts))
    left = (empty(grid, out, "float64"),)
    if len(arrays) == 1:
        left = (empty(grid, out), *left)
    kernel(out)(grid, block, (*left, *arrays, *sizes))
    kernel_write(out)(grid, block, (out, *arrays, *left, *sizes))
    return out
