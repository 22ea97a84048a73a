"""conv2d on the processor: the gradient of the filters, rung implicit_gemm."""
# op: gpunet/ops/conv2d.py
#
#     gw[f, c, t] = sum over outputs q of  x[c, places[q] + taps[t]] * gy[f, q]
#
# A tile takes ROWS pairs (c, t) and some vectors of filters, so gy lies with filters side by side: (q, f). Of x a tile
# reads one number after the other, wherever it lies: without padding that is x itself, else a patch with zeros around,
# see patches_numba_cpu.py. Only outputs are summed over, not what lies between two rows of a patch.

from itertools import product
from typing import NamedTuple

import numpy as np

from gpunet.cpu import threads
from gpunet.cpu.buffers import pool
from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.launching import contiguous
from ..common.shapes import cdiv
from ..common.tiles_numba_cpu import ROWS, VECTORS, copy_elements, multiply_tile, registers
from ..common.vectors_numba_cpu import transpose
from .by_filters_numba_cpu import multiples, width_of
from .conv2d_numba_cpu import takes_grad_w
from .patches_numba_cpu import Plan, plan_of, taps_of, windows

SPAN = 1024  # outputs of a sum before it is added to the ones before: short sums err less
SUMS = 2**20  # elements of the gradients of all shares together, about
TASKS = 16  # at the most, where there is work for them
SUMMED = 2**17  # terms of a task that adds up what the others left, at the least
FLOPS = 2**22  # of a task at the least, about
CHANNELS = 64  # pairs of channel and tap of a task at the least


@compiled
def fill_gradient(out, gy, n0, n1, first, count, filters, begin, end, plane, lanes):
    """Outputs ``begin`` to ``end`` of images n0 to n1, of ``count`` filters from ``first`` on.

    They come to lie in columns of up to VECTORS vectors of filters, each (outputs, filters of the column).
    """
    total = (n1 - n0) * (end - begin)
    vectors = (count + lanes - 1) // lanes
    vector = 0
    while vector < vectors:
        wide = width_of(vectors, vector)
        f = vector * lanes
        for n in range(n0, n1):
            source = (n * filters + first + f) * plane + begin
            to = (vector * total + (n - n0) * (end - begin) * wide) * lanes
            some = min(wide * lanes, count - f)
            transpose(gy, source, plane, some, end - begin, out, to, wide * lanes, wide * lanes, lanes)
        vector += wide


@compiled
def conv2d_grad_w_implicit_gemm_kernel(patch, steps, places, g, g_steps, filters, lanes, fresh, part):
    """part[k, f] = sum over q of  patch[steps[k] + places[q]] * g[q, f], or more by that where it is not ``fresh``.

    Task: some channels and some patches.   Lanes: filters.
    Reads: g, in spans that stay in the second cache, once for each ROWS pairs.
    """
    total, K = len(places), len(steps)
    rows, tile = np.empty(ROWS, np.int64), np.empty(ROWS * VECTORS * lanes, g.dtype)
    vectors = (filters + lanes - 1) // lanes
    for q in range(0, total, SPAN):
        size = min(SPAN, total - q)
        vector = 0
        while vector < vectors:
            wide = width_of(vectors, vector)
            at, here = (vector * total + q * wide) * lanes, g_steps[wide - 1]
            for k in range(0, K, ROWS):
                for r in range(ROWS):
                    rows[r] = steps[min(k + r, K - 1)]
                if wide == VECTORS:
                    multiply_tile(patch, rows, places[q:], g, at, here, size, tile, 0, ROWS, VECTORS)
                elif wide == 2:
                    multiply_tile(patch, rows, places[q:], g, at, here, size, tile, 0, ROWS, 2)
                else:
                    multiply_tile(patch, rows, places[q:], g, at, here, size, tile, 0, ROWS, 1)
                some = min(wide * lanes, filters - vector * lanes)
                for r in range(min(ROWS, K - k)):
                    to = (k + r) * filters + vector * lanes
                    if fresh and q == 0:
                        copy_elements(part, to, tile, r * wide * lanes, some)
                    else:
                        for f in range(some):
                            part[np.uint64(to + f)] += tile[np.uint64(r * wide * lanes + f)]
            vector += wide


@compiled
def conv2d_grad_w_implicit_gemm_sum_kernel(partial, k0, k1, turn, gw, lanes):
    """gw[f, k], or gw[k, f] if not ``turn``, = sum over shares of  partial[share, k, f].

    Task: some k.   Lanes: filters, then pairs.
    """
    shares, K, filters = partial.shape
    for share in range(1, shares):
        for k in range(k0, k1):
            for f in range(filters):
                partial[0, k, f] += partial[share, k, f]
    whole = partial.reshape(-1)
    if turn:
        transpose(whole, k0 * filters, filters, k1 - k0, filters, gw, k0, K, k1 - k0, lanes)
    else:
        copy_elements(gw, k0 * filters, whole, k0 * filters, (k1 - k0) * filters)


def even(count: int) -> int:
    """The largest power of two up to ``count``, at least 1: the threads of most machines share them evenly."""
    return 1 << (max(1, count).bit_length() - 1)


def pays_grad_w(gy, x, *, groups, **params) -> bool | str:
    """Enough filters a group, else a vector is mostly empty."""
    filters, channels = gy.shape[1] // groups, x.shape[1] // groups
    few = filters <= 2 or filters * channels <= 16
    return not few or f"groups with more filters and channels, got {filters} and {channels}"


@kernel("conv2d.grad_w", backend="numba_cpu", variant="implicit_gemm", when=takes_grad_w, pays=pays_grad_w)
def conv2d_grad_w_implicit_gemm(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """gw (F, CG, KH, KW)."""
    gy, x = contiguous(gy), contiguous(x)
    gw = empty((gy.shape[1], x.shape[1] // groups, *kernel_size), gy.dtype)
    if not gy.size:
        gw[...] = 0
    elif gw.size:
        _fill(gw, gy, x, tuple(stride), taps_of(tuple(kernel_size), tuple(padding), tuple(dilation)))
    return gw


def _fill(gw, gy, x, stride, taps):
    # With one pixel a window both sides look alike, and the one with fewer channels is turned around faster.
    turn = not (gy.shape[2:] == x.shape[2:] and len(taps) == 1 and gw.shape[1] == x.shape[1] < gy.shape[1])
    if not turn:
        gw, gy, x = gw.reshape(gw.shape[1], gw.shape[0], 1, 1), x, gy
    (N, F, *out), (_, C, *size), CG = gy.shape, x.shape, gw.shape[1]
    groups, K = C // CG, CG * len(taps)
    # As many sums side by side as take little memory; then parts of the channels. By the sizes alone: sums are cut.
    tasks = max(1, min(TASKS, even(2 * gy.size * K // FLOPS)) // groups)
    shares = max(1, min(tasks, SUMS // gw.size))
    grain = max(cdiv(CG, cdiv(tasks, shares)), min(CG, cdiv(CHANNELS, len(taps))))
    plan = plan_of(grain, tuple(size), tuple(out), stride, taps, N, shares)
    call = _Call(gy, x, plan, taps, groups, F // groups, CG)
    parts = threads.ranges(len(plan.blocks), cdiv(len(plan.blocks), shares))
    partial = pool.empty((groups, len(parts), K, F // groups), gy.dtype)
    todo = list(product(range(groups), threads.ranges(CG, grain), range(len(parts))))
    threads.run(lambda number: call.sum(*todo[number], parts, partial), len(todo))
    lanes, flat = registers()[0] // gy.itemsize, gw.reshape(groups, -1)
    least = max(lanes, SUMMED // (len(parts) * (F // groups)))  # the cut is free: each sum is over all parts
    last = list(product(range(groups), threads.shares(K, least, unit=lanes)))

    def finish(number: int) -> None:
        g, (begin, end) = last[number]
        conv2d_grad_w_implicit_gemm_sum_kernel(partial[g], begin, end, turn, flat[g], lanes)

    threads.run(finish, len(last))


class _Call(NamedTuple):
    """What the tasks of one call share."""

    gy: np.ndarray
    x: np.ndarray
    plan: Plan
    taps: tuple[tuple[int, int], ...]
    groups: int
    FG: int
    CG: int

    def sum(self, g, channels, share, parts, partial):
        """Sums over a share of the outputs, for some channels of a group."""
        begin, end = channels
        walk, lanes = self.plan.walk, registers()[0] // self.x.itemsize
        blocks = self.plan.blocks[slice(*parts[share])]
        most = max((n1 - n0) * (u1 - u0) for n0, n1, u0, u1 in blocks) * walk.V
        outputs = pool.empty((most * cdiv(self.FG, lanes) * lanes,), self.x.dtype)
        part = partial[g, share, begin * len(self.taps) : end * len(self.taps)].reshape(-1)
        source = windows(self.plan, self.x, g * self.CG + begin, end - begin)
        for k, (n0, n1, u0, u1) in enumerate(blocks):
            patch, steps, places = source(n0, n1, u0, u1)
            fill_gradient(
                outputs, self.gy.reshape(-1), n0, n1, g * self.FG, self.FG, self.groups * self.FG, u0 * walk.V,
                u1 * walk.V, walk.U * walk.V, lanes,
            )  # fmt: skip
            conv2d_grad_w_implicit_gemm_kernel(
                patch, steps, places, outputs, multiples(lanes, SPAN), self.FG, lanes, k == 0, part
            )
