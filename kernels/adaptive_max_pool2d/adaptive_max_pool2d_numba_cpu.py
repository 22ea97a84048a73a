"""adaptive_max_pool2d on Numba for the processor: window by window, first how large, then where."""
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

from ..common.lanes_numba_cpu import LANES, beats, load, store, where
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
def winner(xs, first, height, width, W, room):
    """The same for rows of LANES pixels or more: the largest of each lane, of those, and then the first that equals it.

    The last lanes of a row may be taken twice. NaN goes the slow way.
    """
    best = load(xs, first)
    for r in range(height):
        for t in range(0, width, LANES):
            value = load(xs, first + r * W + min(t, width - LANES))
            best = where(beats(value, best), value, best)
    store(room, 0, best)
    top = room[0]
    for k in range(1, LANES):
        top = room[k] if beats_one(room[k], top) else top
    if top != top:
        return winner_of_few(xs, first, height, width, W)
    r, c = 0, 0
    while xs[np.uint64(first + r * W + c)] != top:
        c += 1
        if c == width:
            r, c = r + 1, 0
    return xs[np.uint64(first + r * W + c)], r * W + c


@compiled(inline=True)
def beats_one(value, best):
    """Whether a later value wins: it is larger, or NaN."""
    return (value > best) | (value != value)


@compiled
def adaptive_max_pool2d_forward_plain_loop(y, index, x):
    """Window by window; one as wide as the image is a single row."""
    (P, H, W), (_, OH, OW) = x.shape, y.shape
    xs, room = x.reshape(-1), np.empty(LANES, x.dtype)
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
                    best, place = winner(xs, first, rows, wide, W, room)
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
