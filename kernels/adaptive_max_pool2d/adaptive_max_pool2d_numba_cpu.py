"""adaptive_max_pool2d on Numba for the processor: window by window, eight pixels at a time where rows are long."""
# op: gpunet/ops/adaptive_max_pool2d.py
#
# task    some planes, of one channel of one image each: over_planes in kernels/common/pooling_numba_cpu.py
# lanes   neighbours in a row of a window that is wide enough; else one
# reads   a pixel once for each window that holds it
# needs   arrays in rows; others are copied first

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.lanes_numba_cpu import LANES, beats, load, plus, same, store, where
from ..common.pooling_numba_cpu import many, over_planes, planes_of, real


@compiled(inline=True)
def winner_of_few(xs, first, height, width, W):
    """The largest value of a window, and how far behind its first pixel it lies: one after the other, in row order."""
    best, place = xs[first], 0
    for r in range(height):
        for e in range(r * W, r * W + width):
            value = xs[np.uint64(first + e)]
            wins = (value > best) | (value != value)
            best, place = value if wins else best, e if wins else place
    return best, place


@compiled(inline=True)
def winner(xs, first, height, width, W, room, places):
    """The same for rows of LANES pixels or more: each lane's winner, then the winner of those.

    The last lanes of a row may be taken twice. Of equal values the first wins, of NaN the last, whatever its lane.
    ``room`` is memory for LANES values, ``places`` holds 0 .. LANES - 1 and has room for as many behind them.
    """
    best, place = load(xs, first), load(places, 0)
    for r in range(height):
        for t in range(0, width, LANES):
            e = r * W + min(t, width - LANES)
            value = load(xs, first + e)
            wins = beats(value, best)
            best, place = where(wins, value, best), where(wins, plus(load(places, 0), same(e, places)), place)
    store(room, 0, best)
    store(places, LANES, place)
    top, at = room[0], places[LANES]
    for k in range(1, LANES):
        value, e = room[k], places[LANES + k]
        later = (value != value) & ((top == top) | (e > at))
        wins = later | (value > top) | ((value == top) & (e < at))
        top, at = value if wins else top, e if wins else at
    return top, np.int64(at)


@compiled
def adaptive_max_pool2d_forward_plain_loop(y, index, x):
    """Window by window; one as wide as the image is a single row."""
    (P, H, W), (_, OH, OW) = x.shape, y.shape
    xs, room, places = x.reshape(-1), np.empty(LANES, x.dtype), np.arange(2 * LANES).astype(np.int32)
    for p in range(P):
        for i in range(OH):
            top = i * H // OH
            height = ((i + 1) * H + OH - 1) // OH - top
            for j in range(OW):
                left = j * W // OW
                width = ((j + 1) * W + OW - 1) // OW - left
                first = (p * H + top) * W + left
                rows, wide = (1, height * W) if width == W else (height, width)
                if wide < LANES:
                    best, place = winner_of_few(xs, first, rows, wide, W)
                else:
                    best, place = winner(xs, first, rows, wide, W, room, places)
                y[p, i, j], index[p, i, j] = best, top * W + left + place


@kernel("adaptive_max_pool2d.forward", backend="numba_cpu", variant="plain", when=real, pays=many)
def adaptive_max_pool2d_forward_plain(x, *, output_size):
    """One window after the other."""
    shape = (*x.shape[:2], *output_size)
    y, index = empty(shape, x.dtype), empty(shape, np.int64)
    over_planes(adaptive_max_pool2d_forward_plain_loop, planes_of(y), planes_of(index), planes_of(x))
    return y, index


@compiled
def adaptive_max_pool2d_grad_x_plain_loop(gx, gy, index):
    """Each plane set to 0, then the outputs in their order."""
    (P, OH, OW), (_, H, W) = gy.shape, gx.shape
    planes = gx.reshape(P, H * W)
    for p in range(P):
        planes[p] = 0
        for i in range(OH):
            for j in range(OW):
                planes[p, np.uint64(index[p, i, j])] += gy[p, i, j]


@kernel("adaptive_max_pool2d.grad_x", backend="numba_cpu", variant="plain", when=real)
def adaptive_max_pool2d_grad_x_plain(gy, index, *, input_size):
    """One output after the other."""
    gx = empty((*gy.shape[:2], *input_size), gy.dtype)
    over_planes(adaptive_max_pool2d_grad_x_plain_loop, planes_of(gx), planes_of(gy), planes_of(index))
    return gx


@compiled
def adaptive_max_pool2d_gather_plain_loop(y, x, index):
    """Output by output."""
    (P, OH, OW), (_, H, W) = y.shape, x.shape
    planes = x.reshape(P, H * W)
    for p in range(P):
        for i in range(OH):
            for j in range(OW):
                y[p, i, j] = planes[p, np.uint64(index[p, i, j])]


@kernel("adaptive_max_pool2d.gather", backend="numba_cpu", variant="plain", when=real)
def adaptive_max_pool2d_gather_plain(x, index):
    """One output after the other."""
    y = empty(index.shape, x.dtype)
    over_planes(adaptive_max_pool2d_gather_plain_loop, planes_of(y), planes_of(x), planes_of(index))
    return y
