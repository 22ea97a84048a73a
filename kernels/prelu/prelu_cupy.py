"""prelu on CUDA C++: launchers of prelu.cu, for a GPU and for sim."""
# op: gpunet/ops/prelu.py

from math import prod

import numpy as np

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"prelu": [{}]}

WARP, TALL = 32, 8  # a block over columns: 32 columns, 8 rows of threads
MOST_ROWS = 65535  # of blocks: the grid's second axis ends there
MOST_STEPS = 2**30  # in 32 bits, two places in a row, or two channels, can then be added
SHORT = 32  # rows of fewer elements are summed as columns: a warp would be longer than a row
WAVE = 32  # blocks a multiprocessor that a sum aims at: more than run at a time, so that the last ones even out
ROUND = 16  # units that a thread of a sum takes at least, where there are so many


def sizes(x, w):
    """(N, C, S) of x, with one row of all elements where there is one slope, and N = 0 where there are no elements."""
    if w.size == 1:
        return 1, 1, x.size
    return (x.shape[0], w.size, prod(x.shape[2:])) if x.size else (0, w.size, 1)


def is_walkable(*arrays):
    """Whether the arrays can be moved by 16 bytes, and a place in a row and a channel fit into 32 bits."""
    wide = is_wide(*arrays)
    if wide is not True:
        return wide
    x, w = arrays[-2:]
    _, C, S = sizes(x, w)
    return w.size == 1 or max(C, S) < MOST_STEPS or f"it takes fewer than {MOST_STEPS} channels, and elements in a row"


def has_packs(gy, x, w):
    """Whether every row begins at a multiple of 16 bytes."""
    wide = is_wide(gy, x, w)
    if wide is not True:
        return wide
    whole = sizes(x, w)[2] * x.itemsize % 16 == 0
    return w.size == 1 or whole or "it needs rows (elements after the channel axis) of whole 16 bytes"


def is_long(gy, x, w):
    """Rows as long as a warp, or one slope: shorter ones are read better as columns."""
    return w.size == 1 or sizes(x, w)[2] >= SHORT or f"rows of fewer than {SHORT} elements are summed as columns"


# -- plain


@kernel("prelu.forward", backend="cupy", variant="plain", when=is_real)
def prelu_forward_plain(x, w):
    """One thread an element, a block along one row or down several short ones."""
    x, w = contiguous(x), contiguous(w)
    y = empty(x.shape, x)
    grid, block, shape = _rows(x, w)
    kernels("prelu", x).prelu_forward_plain(grid, block, (y, x, w, *shape))
    return y


@kernel("prelu.grad_x", backend="cupy", variant="plain", when=is_real)
def prelu_grad_x_plain(gy, x, w):
    """As forward."""
    gy, x, w = contiguous(gy), contiguous(x), contiguous(w)
    gx = empty(x.shape, x)
    grid, block, shape = _rows(x, w)
    kernels("prelu", x).prelu_grad_x_plain(grid, block, (gx, gy, x, w, *shape))
    return gx


@kernel("prelu.grad_w", backend="cupy", variant="plain", when=is_real)
def prelu_grad_w_plain(gy, x, w):
    """One block a channel."""
    gy, x = contiguous(gy), contiguous(x)
    gw = empty(w.shape, x)
    N, C, S = sizes(x, w)
    kernels("prelu", x).prelu_grad_w_plain((C,), (THREADS,), (gw, gy, x, N, C, S, _across(S)))
    return gw


def _rows(x, w):
    """Grid and block of a thread an element, and what the kernel takes of the shape: rows, channels, row length."""
    N, C, S = sizes(x, w)
    across = _across(S)
    down = THREADS // across
    grid = (cdiv(S, across), min(cdiv(N * C, down), MOST_ROWS))
    return grid, (across, down), (N * C, C, S)


def _across(S):
    """Threads of a block along a row of S elements: the next power of two."""
    return min(THREADS, 1 << max(S - 1, 0).bit_length())


# -- split


@kernel("prelu.grad_w", backend="cupy", variant="split", when=is_real)
def prelu_grad_w_split(gy, x, w):
    """Sums of the parts of each channel, or of each column, then their sums."""
    gy, x = contiguous(gy), contiguous(x)
    N, C, S = sizes(x, w)
    if w.size == 1 or S >= SHORT:
        return _sum("prelu_grad_w_split", 1, gy, x, w)
    gw = empty(w.shape, x)
    chunk, parts = _cut(N, cdiv(C * S, WARP), TALL, x)
    partial = empty((parts, C, S), x, np.float64)
    file = kernels("prelu", x)
    file.prelu_grad_w_split_columns((cdiv(C * S, WARP), parts), (THREADS,), (partial, gy, x, N, C * S, chunk))
    _finish(gw, partial)
    return gw


@kernel("prelu.grad_w", backend="cupy", variant="vectorised", when=has_packs, pays=is_long)
def prelu_grad_w_vectorised(gy, x, w):
    """As split, 16 bytes at a time."""
    return _sum("prelu_grad_w_vectorised", 16 // x.itemsize, contiguous(gy), contiguous(x), w)


def _sum(name, width, gy, x, w):
    N, C, S = sizes(x, w)
    gw = empty(w.shape, x)
    chunk, parts = _cut(N * (S // width), C, THREADS, x)
    partial = empty((parts, C, 1), x, np.float64) if parts > 1 else None
    getattr(kernels("prelu", x), name)((C, parts), (THREADS,), (gw, partial, gy, x, N, C, S, chunk))
    if partial is not None:
        _finish(gw, partial)
    return gw


def _cut(units, groups, threads, x):
    """Units of a part, and the number of parts, for blocks of ``threads`` threads along the units of each group."""
    parts = cdiv(WAVE * cuda.multiprocessors(x), max(groups, 1))
    chunk = max(cdiv(units, parts * threads), ROUND) * threads
    return chunk, max(cdiv(units, chunk), 1)


def _finish(gw, partial):
    parts, C, slots = partial.shape
    block = THREADS if parts * slots > THREADS else WARP
    kernels("prelu", gw).prelu_grad_w_split_sum((C,), (block,), (gw, partial, parts, C, slots))


# -- vectorised


@kernel("prelu.forward", backend="cupy", variant="vectorised", when=is_walkable)
def prelu_forward_vectorised(x, w):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x, w = contiguous(x), contiguous(w)
    y = empty(x.shape, x)
    grid, shape = _packs(x, w)
    kernels("prelu", x).prelu_forward_vectorised(grid, (THREADS,), (y, x, w, *shape))
    return y


@kernel("prelu.grad_x", backend="cupy", variant="vectorised", when=is_walkable)
def prelu_grad_x_vectorised(gy, x, w):
    """As forward."""
    gy, x, w = contiguous(gy), contiguous(x), contiguous(w)
    gx = empty(x.shape, x)
    grid, shape = _packs(x, w)
    kernels("prelu", x).prelu_grad_x_vectorised(grid, (THREADS,), (gx, gy, x, w, *shape))
    return gx


def _packs(x, w):
    """Grid of a thread a pack, or as many as run at once; and size, channels, row length as the kernel takes them."""
    _, C, S = sizes(x, w)
    blocks = blocks_for(cdiv(x.nbytes, 16), x) if x.size else 0  # without elements there may be no channels to count
    return (blocks,), (x.size, C, 1 if w.size == 1 else S)
