"""matmul on the processor: tiles of vector registers in Numba; NumPy's BLAS for small products and for vectors."""
# op: gpunet/ops/matmul.py
#
# blas     task    all of a small product, which BLAS computes on one thread whatever it was told; for others some
#                  rows, or some columns where there is one row, and BLAS is told to use one thread
# packed   task    some rows and some columns of y, of one matrix of the batch
#          lanes   neighbouring columns, up to VECTORS vectors of them, for ROWS rows: a tile, see
#                  kernels/common/tiles_numba_cpu.py
#          reads   a tile reads panel and rows in the order in which they lie:
#
#                          panel of b: DEPTH rows, as wide as a tile           b is copied panel by panel, each into the
#                          k |#|                                               same place: it stays in the second cache
#                            |#|                                               while all rows of the task pass by
#                     k      |#|
#          ROWS |###########| # -> y          rows of a: as they lie if there is one panel, or if a row is at most
#               |###########| #               DEPTH long and in one piece; else copied, once for all panels
#
#          needs   one order of sums for all: k upwards, DEPTH products at a time in a register, then added to y. So an
#                  element has the same bits wherever it stands in a tile, and however the work is cut.

from functools import lru_cache
from itertools import product
from math import prod

import numpy as np

from gpunet.cpu import threads
from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.launching import is_real
from ..common.shapes import cdiv
from ..common.tiles_numba_cpu import ROWS, VECTORS, copy_elements, multiply_tile, registers, width, width_of
from ..common.vectors_numba_cpu import at_least, load, prefetch, spread, store, store_parts, transpose
from . import broadcast_batch

ONE_THREAD = 2**18  # M * N * K up to which OpenBLAS computes on one thread, whatever it was told
ONE_VECTOR = 9216  # K, M * K or K * N up to which it does so for products with vectors
SHARE = 2**18  # elements of the matrix in a task of a product with a vector, about
DEPTH = 512  # products that are summed up in a register
BLOCK = 2**19  # bytes of the rows of a task: half of a second cache of 1 MiB
WHOLE = 16  # rows of a task are a multiple of this
TASKS = 16  # about, of large products: who is done early takes another
FLOPS = 2**21  # of a task at the least: some 25 us
LARGE = 2**28  # flops from which on a product is large; a smaller one is cut once for each thread
MATRICES = 2**16  # products of the small matrices of a task
STRIP, AHEAD = 4, 8  # vectors of a's columns that are copied at once, and how many lines ahead they are asked for
VECTOR = registers()[0]  # bytes


# ------------------------------------------------------------------------------------------------------------ packed


@compiled
def pack_panel(out, b, at, step, column, depth, columns, width, lanes):
    """(depth, width) from ``columns`` columns of b, whose rows lie ``step`` apart, or whose columns ``column``."""
    if column != 1:
        transpose(b, at, column, columns, depth, out, 0, width, width, lanes)
    elif columns == width:
        for k in range(depth):
            for v in range(0, width, lanes):
                store(out, k * width + v, load(b, at + k * step + v))
    else:
        for k in range(depth):
            copy_elements(out, k * width, b, at + k * step, columns)
            for j in range(columns, width):
                out[np.uint64(k * width + j)] = 0


@compiled
def pack_rows(out, a, at, row, step, rows, depth, lanes):
    """Rows of a, in groups of ROWS: each (ROWS, depth), or (depth, ROWS) where a lies transposed."""
    if step == 1:
        for m in range(rows):
            copy_elements(out, m * depth, a, at + m * row, depth)
        return
    whole = rows // lanes * lanes
    for begin in range(0, whole, STRIP * lanes):
        for k in range(depth):
            for m in range(begin, min(begin + STRIP * lanes, whole), lanes):
                source, to = at + k * step + m, m // ROWS * ROWS * depth + k * ROWS + m % ROWS
                prefetch(a, source + AHEAD * step, 0)
                store_parts(out, to, ROWS * depth, load(a, source), ROWS)
    for m in range(whole, rows):
        to = m // ROWS * ROWS * depth + m % ROWS
        for k in range(depth):
            out[np.uint64(to + k * ROWS)] = a[np.uint64(at + k * step + m)]


@compiled
def place_tile(y, to, pitch, tile, width, rows, columns, more, bias, line, positive, lanes):
    """y[to + r * pitch + j] = tile[r * width + j], or ``more`` by that; then comes the bias, then the positive part.

    Where the tile is wider than its columns, y is read and written by way of other memory: whole vectors do not fit.
    """
    zeros = spread(y.dtype.type(0))
    for r in range(rows):
        here, at = to + r * pitch, r * width
        if more or len(bias) or positive:
            old, start = y, here
            if more and columns < width:
                copy_elements(line, 0, y, here, columns)
                old, start = line, 0
            for j in range(0, width, lanes):
                value = load(tile, at + j)
                if more:
                    value = load(old, start + j) + value
                if len(bias):
                    value = value + load(bias, j)
                if positive:
                    value = at_least(value, zeros)
                store(tile, at + j, value)
        if columns == width:
            for j in range(0, width, lanes):
                store(y, here + j, load(tile, at + j))
        else:
            copy_elements(y, here, tile, at, columns)


@compiled
def multiply_panel(
    y, to, pitch, a, at, group, row, a_steps, panel, steps, rows, columns, wide, size, more, bias, positive, scratch
):  # fmt: skip
    """``rows`` rows of y, as wide as a panel; from a group of ROWS rows of a to the next it is ``group``."""
    lanes = VECTOR // y.itemsize
    bases, tile, line = scratch
    for m in range(0, rows, ROWS):
        count, here = min(ROWS, rows - m), to + m * pitch
        for r in range(ROWS):
            bases[r] = at + min(r, count - 1) * row
        at += group
        for r in range(count):  # by the time the sums are done, y is in the cache
            for v in range(0, wide * lanes, lanes):
                prefetch(y, here + r * pitch + v, 1)
        if wide == VECTORS:
            multiply_tile(a, bases, a_steps, panel, 0, steps, size, tile, 0, ROWS, VECTORS)
        elif wide == 2:
            multiply_tile(a, bases, a_steps, panel, 0, steps, size, tile, 0, ROWS, 2)
        else:
            multiply_tile(a, bases, a_steps, panel, 0, steps, size, tile, 0, ROWS, 1)
        place_tile(y, here, pitch, tile, wide * lanes, count, columns, more, bias, line, positive, lanes)


@compiled
def matmul_forward_packed_kernel(y, a, b, bias, positive, places, sizes, tasks, begin, end):
    """y[batch, m, n] = sum over k of a[m, k] * b[k, n], for the tasks ``begin`` to ``end``.

    Arrays are flat; bias is (N,) or empty, places (2, batch) says where the matrices of a and of b begin, sizes are
    M, N, K, from one row of a to the next and from one column, the same of b, and products that are summed up in a
    register; tasks (T, 6) are first and last matrix, row and column of y.
    """
    M, N, K, a_row, a_step, b_step, b_column, depth = sizes
    lanes = VECTOR // y.itemsize
    room = np.empty((VECTORS * depth + 1) * lanes, y.dtype)
    panel = room[-room.ctypes.data % VECTOR // y.itemsize :]  # a vector that lies across two cache lines takes longer
    scratch = np.empty(ROWS, np.int64), np.empty(ROWS * VECTORS * lanes, y.dtype), np.zeros(VECTORS * lanes, y.dtype)
    added = np.zeros(VECTORS * lanes if len(bias) else 0, y.dtype)
    a_steps, b_steps = np.empty(depth, np.int64), np.empty((VECTORS, depth), np.int64)
    for v in range(VECTORS):
        for k in range(depth):
            b_steps[v, k] = k * (v + 1) * lanes
    for task in range(begin, end):
        first, last, m0, m1, n0, n1 = tasks[task]
        vectors = (n1 - n0 + lanes - 1) // lanes
        packs = vectors > VECTORS and (a_step > 1 or depth < K)
        block = np.empty((m1 - m0 + ROWS) * depth if packs else 0, y.dtype)
        for k in range(depth):
            a_steps[k] = k * (ROWS if packs and a_step > 1 else a_step)
        for batch in range(first, last):
            for k0 in range(0, K, depth):
                size, ends = min(depth, K - k0), k0 + depth >= K
                source, here, group, row = places[0, batch] + m0 * a_row + k0 * a_step, a, ROWS * a_row, a_row
                if packs:
                    pack_rows(block, a, source, a_row, a_step, m1 - m0, size, lanes)
                    source, here, group, row = 0, block, ROWS * size, size if a_step == 1 else 1
                vector = 0
                while vector < vectors:
                    wide, n = width_of(vectors, vector), n0 + vector * lanes
                    columns = min(wide * lanes, n1 - n)
                    at = places[1, batch] + k0 * b_step + n * b_column
                    pack_panel(panel, b, at, b_step, b_column, size, columns, wide * lanes, lanes)
                    if len(bias):
                        copy_elements(added, 0, bias, n, columns)
                    multiply_panel(
                        y, (batch * M + m0) * N + n, N, here, source, group, row, a_steps, panel, b_steps[wide - 1],
                        m1 - m0, columns, wide, size, k0 > 0, added if ends else added[:0], positive and ends, scratch,
                    )  # fmt: skip
                    vector += wide


@lru_cache(maxsize=512)
def _plan(a_shape, b_shape, transpose_a, transpose_b, dtype, workers):
    """Shape of y, and the last arguments of the kernel, of matrices in C order, for so many threads."""
    (M, K) = a_shape[:-3:-1] if transpose_a else a_shape[-2:]
    N = b_shape[-2] if transpose_b else b_shape[-1]
    batch = broadcast_batch(a_shape[:-2], b_shape[:-2])
    count, depth = prod(batch), cdiv(K, cdiv(K, DEPTH))
    sizes = M, N, K, *((1, M) if transpose_a else (K, 1)), *((1, K) if transpose_b else (N, 1)), depth
    flops = 2 * count * M * N * K
    wanted = 1 if workers == 1 else min(TASKS if flops >= LARGE else workers, flops // FLOPS)
    several = max(1, MATRICES // max(1, M * N * K))
    unit = width(dtype) if wanted > workers else registers()[0] // dtype.itemsize
    tasks = _tasks(cdiv(count, several), M, N, BLOCK // (depth * dtype.itemsize), unit, wanted)
    tasks = [(*each, *task) for each in threads.ranges(count, several) for task in tasks]
    places = [_places(shape[:-2], batch, size) for shape, size in ((a_shape, M * K), (b_shape, K * N))]
    return (*batch, M, N), np.array(places), np.array(sizes), np.array(tasks, np.int64).reshape(-1, 6)


def _tasks(count, M, N, tall, unit, wanted):
    """Parts of y, at most ``tall`` rows each and whole ``unit`` columns; of ``count`` matrices, ``wanted`` or so."""
    cuts = max(1, cdiv(wanted, max(1, count)))
    if M > N:  # what a part of the rows has to copy again is b, and a part of the columns a
        tall = min(tall, max(4 * WHOLE, cdiv(M, cuts)))
    rows = threads.ranges(M, max(WHOLE, cdiv(tall, WHOLE) * WHOLE))
    cuts = max(1, cuts // max(1, len(rows)))
    columns = threads.ranges(N, cdiv(cdiv(N, cuts), unit) * unit) if N else []
    return [(*m, *n) for m, n in product(rows, columns)]


def _places(shape, batch, size):
    """Where the matrices begin that a batch is broadcast from."""
    return np.broadcast_to(np.arange(prod(shape)).reshape(shape) * size, batch).reshape(-1)


def _as_it_lies(array, transposed):
    """The array in C order and whether its matrices are transposed: a copy where neither order is C."""
    if not array.flags.c_contiguous:
        turned = array.swapaxes(-1, -2)
        if turned.flags.c_contiguous:
            return in_rows(turned), not transposed
    return in_rows(array), transposed


def _packed(a, b, bias, positive, transpose_a, transpose_b):
    a, transpose_a = _as_it_lies(a, transpose_a)
    b, transpose_b = _as_it_lies(b, transpose_b)
    workers = threads.get_num_threads()  # where elements are the same in any task, how y is cut is free
    shape, places, sizes, tasks = _plan(a.shape, b.shape, transpose_a, transpose_b, a.dtype, workers)
    y, count = empty(shape, a.dtype), len(tasks)
    flat = y.reshape(-1), a.reshape(-1), b.reshape(-1), np.empty(0, a.dtype) if bias is None else in_rows(bias)
    if workers == 1 or count < 2:
        matmul_forward_packed_kernel(*flat, positive, places, sizes, tasks, 0, count)
    else:
        threads.run(
            lambda task: matmul_forward_packed_kernel(*flat, positive, places, sizes, tasks, task, task + 1), count
        )
    return y


def _sizes(a, b, transpose_a, transpose_b):
    """M, N and K."""
    return a.shape[-1 if transpose_a else -2], b.shape[-2 if transpose_b else -1], a.shape[-2 if transpose_a else -1]


def adds(a, b, bias=None, *, transpose_a, transpose_b):
    """Arrays of one dtype, and something to add up."""
    real = is_real(a, b, bias)
    if real is not True:
        return real
    return _sizes(a, b, transpose_a, transpose_b)[2] > 0 or "it needs a K of at least 1, got 0"


def pays(a, b, bias=None, *, transpose_a, transpose_b):
    """Large products of matrices with matrices."""
    M, N, K = _sizes(a, b, transpose_a, transpose_b)
    return (M * N * K > ONE_THREAD and M > 1 and N > 1) or f"larger matrices, got M, N, K = {M}, {N}, {K}"


@kernel("matmul.forward", backend="numba_cpu", variant="packed", when=adds, pays=pays)
def matmul_forward_packed(a, b, *, transpose_a, transpose_b):
    """y (..., M, N)."""
    return _packed(a, b, None, False, transpose_a, transpose_b)


@kernel("matmul.forward_bias", backend="numba_cpu", variant="packed", when=adds, pays=pays)
def matmul_forward_bias_packed(a, b, bias, *, transpose_a, transpose_b):
    """The bias is added when a tile is placed."""
    return _packed(a, b, bias, False, transpose_a, transpose_b)


@kernel("matmul.forward_bias_relu", backend="numba_cpu", variant="packed", when=adds, pays=pays)
def matmul_forward_bias_relu_packed(a, b, bias, *, transpose_a, transpose_b):
    """So is the positive part taken."""
    return _packed(a, b, bias, True, transpose_a, transpose_b)


# -------------------------------------------------------------------------------------------------------------- blas


def _blas(a, b, bias, positive, transpose_a, transpose_b):
    a = a.swapaxes(-1, -2) if transpose_a else a
    b = b.swapaxes(-1, -2) if transpose_b else b
    (M, K), N = a.shape[-2:], b.shape[-1]
    if M * N * K <= (ONE_VECTOR if M == 1 or N == 1 else ONE_THREAD):  # noqa: SIM300 no constant is compared
        return _finish(a.dot(b) if a.ndim == b.ndim == 2 else np.matmul(a, b), bias, positive)  # of two, dot is faster
    y = empty((*broadcast_batch(a.shape[:-2], b.shape[:-2]), M, N), a.dtype)
    _blas_tasks(y, a, b, bias, positive)
    return y


def _blas_tasks(y, a, b, bias, positive):
    """Fills y with BLAS on one thread in each task: how many it has would decide about the bits."""
    (M, K), N = a.shape[-2:], b.shape[-1]
    grain = max(1, SHARE // K) if M == 1 or N == 1 else cdiv(M, TASKS)
    parts = threads.ranges(N if M == 1 else M, grain)

    def task(number):
        part = slice(*parts[number])
        rows, columns = (slice(None), part) if M == 1 else (part, slice(None))
        here = y[..., rows, columns]
        np.matmul(a[..., rows, :], b[..., columns], out=here)
        _finish(here, None if bias is None else bias[columns], positive)

    threads.run(task, len(parts), blas=True)


def _finish(y, bias, positive):
    if bias is not None:
        y += bias
    return np.maximum(y, 0, out=y) if positive else y


def real(a, b, bias=None, **flags):
    """Arrays of one dtype."""
    return is_real(a, b, bias)


@kernel("matmul.forward", backend="numba_cpu", variant="blas", when=real)
def matmul_forward_blas(a, b, *, transpose_a, transpose_b):
    """y (..., M, N)."""
    return _blas(a, b, None, False, transpose_a, transpose_b)


@kernel("matmul.forward_bias", backend="numba_cpu", variant="blas", when=real)
def matmul_forward_bias_blas(a, b, bias, *, transpose_a, transpose_b):
    """The bias is added to some rows after the other."""
    return _blas(a, b, bias, False, transpose_a, transpose_b)


@kernel("matmul.forward_bias_relu", backend="numba_cpu", variant="blas", when=real)
def matmul_forward_bias_relu_blas(a, b, bias, *, transpose_a, transpose_b):
    """As forward_bias; then the positive part is taken."""
    return _blas(a, b, bias, True, transpose_a, transpose_b)
