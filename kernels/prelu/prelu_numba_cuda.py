"""prelu on Numba-CUDA: the rungs of prelu.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/prelu.py
#
# x (N, C, ...) is seen as (N, C, S), and with one slope as one row: sizes() of prelu_cupy.py. 32-bit numbers are
# unsigned, and np.uint32(...) stands around what Numba would go on with in 64 bits: a division of those is slow.

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.elementwise_numba import blocks_of_packs, lanes_of
from ..common.launching import contiguous, empty, is_real
from ..common.norms_numba import BLOCK, TALL, loads, stores
from ..common.rows_numba import block_sum
from ..common.shapes import cdiv
from .prelu_cupy import SHORT, WARP, has_packs, is_long, is_walkable, sizes
from .prelu_cupy import _cut as cut

MOST_ROWS = 2 if jit.SIMULATED else 65535  # of blocks: the grid's second axis ends there

double = np.float64
nought = double(0)


def passed(real):
    """Above 0 a value goes through, elsewhere slope times it does. A NaN is not above 0. Forward is gy = x."""
    zero = real(0)

    @jit.device
    def value(gy, x, slope):
        return gy if x > zero else slope * gy

    return value


def shares(real):
    """An element's part of the slope's gradient: a product rounded to ``real``, summed in double."""
    zero = real(0)

    @jit.device
    def value(gy, x):
        return nought if x > zero else double(real(gy * x))

    return value


# -- plain


def over_rows(real):
    """The walk out = passed(gy, x, slope): a thread takes one element out[row, i], and walks on down the rows."""
    value = passed(real)

    @jit.device
    def walk(out, gy, x, w, rows, C, S):
        i, row = cuda.grid(2)
        _, step = cuda.gridsize(2)
        c, by_c = np.uint32(np.uint32(row) % C), np.uint32(np.uint32(step) % C)
        while i < S and row < rows:
            at = row * S + i
            out[at] = value(gy[at], x[at], w[c])
            c, row = np.uint32((c + by_c) % C), row + step

    return walk


@jit.typed
def prelu_forward_plain_kernel(real):
    """One thread one element, or more where the grid's second axis ends."""
    walk = over_rows(real)

    def forward(y, x, w, rows, C, S):
        walk(y, x, x, w, rows, C, S)

    return forward


@kernel("prelu.forward", backend="numba_cuda", variant="plain", when=is_real)
def prelu_forward_plain(x, w):
    """One thread an element, a block along one row or down several short ones."""
    return _plain(prelu_forward_plain_kernel, x, w)


@jit.typed
def prelu_grad_x_plain_kernel(real):
    """As forward."""
    walk = over_rows(real)

    def grad_x(gx, gy, x, w, rows, C, S):
        walk(gx, gy, x, w, rows, C, S)

    return grad_x


@kernel("prelu.grad_x", backend="numba_cuda", variant="plain", when=is_real)
def prelu_grad_x_plain(gy, x, w):
    """As forward."""
    return _plain(prelu_grad_x_plain_kernel, gy, x, w)


@jit.typed
def prelu_grad_w_plain_kernel(real):
    """One block one channel: ``across`` threads along a row, the others in further images."""
    share = shares(real)

    def grad_w(gw, gy, x, N, C, S, across):
        scratch = cuda.shared.array(32, double)
        t, c = cuda.threadIdx.x, cuda.blockIdx.x
        sum = nought
        for n in range(t // across, N, cuda.blockDim.x // across):
            row = (n * C + c) * S
            for i in range(t % across, S, across):
                sum += share(gy[row + i], x[row + i])
        sum = block_sum(sum, scratch)
        if t == 0:
            gw[c] = real(sum)

    return grad_w


@kernel("prelu.grad_w", backend="numba_cuda", variant="plain", when=is_real)
def prelu_grad_w_plain(gy, x, w):
    """One block a channel."""
    gy, x = contiguous(gy), contiguous(x)
    gw = empty(w.shape, x)
    N, C, S = sizes(x, w)
    prelu_grad_w_plain_kernel(x)((C,), (THREADS,), (gw, gy, x, N, C, S, _across(S)))
    return gw


def _plain(of_dtype, *arrays):
    *_, x, w = arrays = tuple(map(contiguous, arrays))
    out = empty(x.shape, x)
    N, C, S = sizes(x, w)
    across = _across(S)
    down = THREADS // across
    grid = (cdiv(S, across), min(cdiv(N * C, down), MOST_ROWS))
    of_dtype(x)(grid, (across, down), (out, *arrays, N * C, np.uint32(C), S))
    return out


def _across(S):
    """Threads of a block along a row of S elements: the next power of two."""
    return min(THREADS, 1 << max(S - 1, 0).bit_length())


# -- split
#
# The grid of a sum is channels x parts. A part is ``chunk`` units of a channel, counted row after row; a unit is W
# neighbours: one element, or a pack. Part sums go to partial (parts, C, slots), and from there into gw in a fixed
# order; with one part they are gw, and partial has no elements.


def part_sums(real, W, COUNT):
    """The block's part sum: a thread takes every so many units, COUNT elements at a time; no division to move on."""
    load, share = loads(W), shares(real)

    @jit.device
    def part_sum(gw, partial, gy, x, N, C, S, chunk):
        scratch = cuda.shared.array(32, double)
        t, c, part, step = cuda.threadIdx.x, cuda.blockIdx.x, cuda.blockIdx.y, cuda.blockDim.x
        units = S // W
        row = max(units, 1)
        j, end = part * chunk + t, min((part + 1) * chunk, N * units)
        i, at = j % row, (j // row * C + c) * row + j % row
        by_i, by = step % row, step // row * C * row + step % row
        sum = nought
        while j < end:
            g = cuda.local.array(COUNT, real)
            v = cuda.local.array(COUNT, real)
            filled = 0
            for k in range(0, COUNT, W):
                if j < end:
                    load(g, k, gy, at)
                    load(v, k, x, at)
                    filled = k + W
                j, i, at = j + step, i + by_i, at + by
                if i >= row:  # into the row after, past those of the other channels
                    i, at = i - row, at + (C - 1) * row
            for k in range(COUNT):
                sum += share(g[k], v[k]) if k < filled else nought
        rest = units * W + t  # only one row has one: its own place is that in the array
        if part == cuda.gridDim.y - 1 and rest < S:
            sum += share(gy[rest], x[rest])
        sum = block_sum(sum, scratch)
        if t == 0 and partial.size > 0:
            partial[part * C + c] = sum
        elif t == 0:
            gw[c] = real(sum)

    return part_sum


@jit.typed
def prelu_grad_w_split_kernel(real):
    """One block a part of one channel, one thread four elements at a time."""
    part_sum = part_sums(real, 1, 4)

    def grad_w(gw, partial, gy, x, N, C, S, chunk):
        part_sum(gw, partial, gy, x, N, C, S, chunk)

    return grad_w


@jit.typed
def prelu_grad_w_split_columns_kernel(real):
    """One block ``chunk`` rows of 32 neighbouring columns of a matrix of N rows; a warp reads along a row."""
    share, zero = shares(real), real(0)

    def columns_of(partial, gy, x, N, columns, chunk):
        sums = cuda.shared.array(BLOCK, double)
        t = cuda.threadIdx.x
        down, column = t // WARP, cuda.blockIdx.x * WARP + t % WARP
        first = cuda.blockIdx.y * chunk
        end = min(first + chunk, N) if column < columns else 0
        sum = nought
        for n in range(first + down, end, 4 * TALL):
            g = cuda.local.array(4, real)
            v = cuda.local.array(4, real)
            for k in range(4):
                at = (n + k * TALL) * columns + column
                g[k] = gy[at] if n + k * TALL < end else zero
                v[k] = x[at] if n + k * TALL < end else zero
            for k in range(4):
                sum += share(g[k], v[k])
        sums[t] = sum
        cuda.syncthreads()
        if down == 0 and column < columns:
            for k in range(1, TALL):
                sum += sums[k * WARP + t]
            partial[cuda.blockIdx.y * columns + column] = sum

    return columns_of


@jit.typed
def prelu_grad_w_split_sum_kernel(real):
    """The last step of every rung from split on: one block a channel's parts and slots."""

    def sum_of(gw, partial, parts, C, slots):
        scratch = cuda.shared.array(32, double)
        t, c = cuda.threadIdx.x, cuda.blockIdx.x
        sum = nought
        for j in range(t, parts * slots, cuda.blockDim.x):
            part = np.int64(np.uint32(j) // slots)
            sum += partial[(part * C + c) * slots + (j - part * slots)]
        sum = block_sum(sum, scratch)
        if t == 0:
            gw[c] = real(sum)

    return sum_of


@kernel("prelu.grad_w", backend="numba_cuda", variant="split", when=is_real)
def prelu_grad_w_split(gy, x, w):
    """Sums of the parts of each channel, or of each column, then their sums."""
    gy, x = contiguous(gy), contiguous(x)
    N, C, S = sizes(x, w)
    if w.size == 1 or S >= SHORT:
        return _sum(prelu_grad_w_split_kernel, 1, gy, x, w)
    gw = empty(w.shape, x)
    groups = cdiv(C * S, WARP)
    chunk, parts = cut(N, groups, TALL, x)
    partial = empty((parts, C, S), x, double)
    prelu_grad_w_split_columns_kernel(x)((groups, parts), (BLOCK,), (partial, gy, x, N, C * S, chunk))
    _finish(gw, partial)
    return gw


@jit.typed
def prelu_grad_w_vectorised_kernel(real):
    """As split, two packs of 16 bytes at a time; the last block also takes the rest behind the last pack."""
    part_sum = part_sums(real, lanes_of(real), 2 * lanes_of(real))

    def grad_w(gw, partial, gy, x, N, C, S, chunk):
        part_sum(gw, partial, gy, x, N, C, S, chunk)

    return grad_w


@kernel("prelu.grad_w", backend="numba_cuda", variant="vectorised", when=has_packs, pays=is_long)
def prelu_grad_w_vectorised(gy, x, w):
    """As split, 16 bytes at a time."""
    return _sum(prelu_grad_w_vectorised_kernel, lanes_of(x.dtype), contiguous(gy), contiguous(x), w)


def _sum(of_dtype, width, gy, x, w):
    N, C, S = sizes(x, w)
    gw = empty(w.shape, x)
    chunk, parts = cut(N * (S // width), C, THREADS, x)
    partial = empty((parts if parts > 1 else 0, C, 1), x, double)
    of_dtype(x)((C, parts), (THREADS,), (gw, partial, gy, x, N, C, S, chunk))
    if partial.size:
        _finish(gw, partial)
    return gw


def _finish(gw, partial):
    parts, C, slots = partial.shape
    block = THREADS if parts * slots > THREADS else WARP
    prelu_grad_w_split_sum_kernel(gw)((C,), (block,), (gw, partial, parts, C, np.uint32(slots)))


# -- vectorised


@jit.device
def moved(c, i, by_c, by_i, C, S):
    """Channel and place in its row, by_c <= C channels and by_i <= S places further on."""
    c, i = np.uint32(c + by_c), np.uint32(i + by_i)
    if i >= S:
        c, i = np.uint32(c + np.uint32(1)), np.uint32(i - S)
    return np.uint32(c - C) if c >= C else c, i


def over_packs(real):
    """The walk out = passed(gy, x, slope), two packs at a time; one may go on into the next channel. No divisions."""
    LANES, value, none, one = lanes_of(real), passed(real), np.uint32(0), np.uint32(1)
    BOTH, load, store = 2 * LANES, loads(LANES), stores(LANES)

    @jit.device
    def walk(out, gy, x, w, size, C, S):
        first, step = cuda.grid(1), cuda.gridsize(1)
        begin, by = np.uint32(first * LANES), np.uint32(step * LANES)
        c, i = np.uint32(begin // S % C), np.uint32(begin % S)
        by_c, by_i = np.uint32(by // S % C), np.uint32(by % S)
        packs = size // LANES
        for p in range(first, packs, 2 * step):
            g = cuda.local.array(BOTH, real)
            v = cuda.local.array(BOTH, real)
            for k in range(2):
                if p + k * step < packs:
                    load(g, k * LANES, gy, p + k * step)
                    load(v, k * LANES, x, p + k * step)
            for k in range(2):
                if p + k * step < packs:
                    now, place = c, i
                    for e in range(k * LANES, k * LANES + LANES):
                        g[e] = value(g[e], v[e], w[now])
                        now, place = moved(now, place, none, one, C, S)
                    store(out, p + k * step, g, k * LANES)
                c, i = moved(c, i, by_c, by_i, C, S)
        rest = packs * LANES + first
        if rest < size:  # the array ends with the last row of channel C - 1
            c = np.uint32(C - one - np.uint32(size - 1 - rest) // S % C)
            out[rest] = value(gy[rest], x[rest], w[c])

    return walk


@jit.typed
def prelu_forward_vectorised_kernel(real):
    """One thread two packs of 16 bytes at a time, in steps of the grid."""
    walk = over_packs(real)

    def forward(y, x, w, size, C, S):
        walk(y, x, x, w, size, C, S)

    return forward


@kernel("prelu.forward", backend="numba_cuda", variant="vectorised", when=is_walkable)
def prelu_forward_vectorised(x, w):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    return _vectorised(prelu_forward_vectorised_kernel, x, w)


@jit.typed
def prelu_grad_x_vectorised_kernel(real):
    """As forward, with gy and x read and gx written."""
    walk = over_packs(real)

    def grad_x(gx, gy, x, w, size, C, S):
        walk(gx, gy, x, w, size, C, S)

    return grad_x


@kernel("prelu.grad_x", backend="numba_cuda", variant="vectorised", when=is_walkable)
def prelu_grad_x_vectorised(gy, x, w):
    """As forward."""
    return _vectorised(prelu_grad_x_vectorised_kernel, gy, x, w)


def _vectorised(of_dtype, *arrays):
    *_, x, w = arrays = tuple(map(contiguous, arrays))
    out = empty(x.shape, x)
    _, C, S = sizes(x, w)
    blocks = blocks_of_packs(x) if x.size else (0,)  # without elements there may be no channels to count
    row = 1 if w.size == 1 else S
    of_dtype(x)(blocks, (THREADS,), (out, *arrays, x.size, np.uint32(C), np.uint32(row)))
    return out
