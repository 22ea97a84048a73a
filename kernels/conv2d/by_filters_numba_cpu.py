"""conv2d on the processor: the walk with rows of a along the lanes, for outputs too narrow to fill vectors."""
# op: gpunet/ops/conv2d.py
#
# The walk of conv2d_numba_cpu.py the other way round: a tile takes ROWS outputs and some vectors of rows of a (filters
# in forward), so a lies with its rows side by side: (c, t, r). Of x it spreads one number after the other, wherever
# that lies, so nothing between two rows of outputs is computed. What comes out, (q, r), is turned around into y.

from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from gpunet.cpu.buffers import pool
from gpunet.cpu.jit import compiled

from ..common.shapes import cdiv
from ..common.tiles_numba_cpu import ROWS, VECTORS, multiply_tile, registers, width_of
from ..common.vectors_numba_cpu import at_least, load, spread, store, transpose
from .patches_numba_cpu import Plan, each_task, windows

STRIP = 256  # outputs that are turned around together, about: they stay in the first cache
TURN = 4  # products in whose time a result is turned around
LARGE = 2**18  # elements of a patch that are too many for the second cache
OUTSIDE = 0.7  # of their rate have tiles of outputs then
COPIED = 0.9  # and with a patch that the other way does without


@lru_cache(maxsize=64)
def multiples(lanes: int, count: int) -> np.ndarray:
    """(VECTORS, count): steps from a row to the next, in a column of 1, 2, .. vectors."""
    return np.arange(1, VECTORS + 1)[:, None] * lanes * np.arange(count)


@compiled
def side_by_side(a, first, a_row, a_steps, rows, out, lanes):
    """Rows of a come to lie in columns of up to VECTORS vectors, each (steps, rows of the column), filled with 0."""
    vectors, K, vector, zero = (rows + lanes - 1) // lanes, len(a_steps), 0, a.dtype.type(0)
    whole = K > 0 and a_steps[K - 1] - a_steps[0] == K - 1
    while vector < vectors:
        wide = width_of(vectors, vector) * lanes
        r, to = vector * lanes, vector * lanes * K
        some = min(wide, rows - r)
        if some < wide:
            for k in range(K * wide):
                out[to + k] = zero
        if whole:  # the steps go up by 1
            transpose(a, first + r * a_row + a_steps[0], a_row, some, K, out, to, wide, some, lanes)
        else:
            for k in range(K):
                for i in range(some):
                    out[np.uint64(to + k * wide + i)] = a[np.uint64(first + (r + i) * a_row + a_steps[k])]
        vector += wide // lanes


@compiled
def conv2d_forward_implicit_gemm_by_filters_kernel(
    patch, steps, places, a, a_steps, rows, bias, positive, y, y_first, y_image, y_row, plane, strip, lanes
):  # fmt: skip
    """Outputs at ``places`` of some images, ``plane`` of each, for all rows of a group.

    Task: one group and some outputs.   Lanes: rows of a.   Reads: a once for ROWS outputs, x once a column of a.
    """
    zero, K, vectors = patch.dtype.type(0), len(steps), (rows + lanes - 1) // lanes
    out, more = np.empty((strip + ROWS) * VECTORS * lanes, patch.dtype), np.zeros(vectors * lanes, patch.dtype)
    for row in range(len(bias)):  # to a slice, Numba would compile what writes the error of wrong lengths: seconds
        more[row] = bias[row]
    here, region = np.empty(ROWS, np.int64), max(1, strip // plane) * plane  # outputs of some whole images
    strips = (region + strip - 1) // strip
    vector = 0
    while vector < vectors:
        wide = width_of(vectors, vector)
        at, a_here, some = vector * lanes * K, a_steps[wide - 1], min(wide * lanes, rows - vector * lanes)
        for number in range((len(places) + region - 1) // region * strips):
            begin, q0 = number // strips * region, number % strips * strip
            size = min(strip, min(region, len(places) - begin) - q0)
            for q in range(0, size, ROWS):
                for r in range(ROWS):
                    here[r] = places[begin + q0 + min(q + r, size - 1)]
                to = q * wide * lanes
                if wide == VECTORS:
                    multiply_tile(patch, here, steps, a, at, a_here, K, out, to, ROWS, VECTORS)
                elif wide == 2:
                    multiply_tile(patch, here, steps, a, at, a_here, K, out, to, ROWS, 2)
                else:
                    multiply_tile(patch, here, steps, a, at, a_here, K, out, to, ROWS, 1)
            if len(bias) or positive:
                for q in range(size):
                    for v in range(wide):
                        value = load(out, (q * wide + v) * lanes) + load(more, (vector + v) * lanes)
                        store(out, (q * wide + v) * lanes, at_least(value, spread(zero)) if positive else value)
            for q in range(0, size, plane):
                to, count = y_first + (begin + q) // plane * y_image + vector * lanes * y_row + q0, min(plane, size - q)
                transpose(out, q * wide * lanes, wide * lanes, count, some, y, to, y_row, count, lanes)
        vector += wide


def fills_lanes(rows: int, plan: Plan, lanes: int) -> bool:
    """Whether it is less work with rows of a along the lanes than with outputs."""
    walk, K = plan.walk, plan.walk.channels * len(plan.taps)
    n0, n1, u0, u1 = plan.blocks[0]
    last = ((n1 - n0 - 1) * walk.down + u1 - u0 - 1) * walk.across + walk.V
    plane = (u1 - u0) * walk.V
    by_rows = _full(rows, lanes) * _full((n1 - n0) * plane, ROWS)
    by_outputs = _full(rows, ROWS // 2) * (n1 - n0) * plane / last * _full(last, lanes)
    if plan.inside:
        by_outputs *= COPIED
    if len(plan.planes) * walk.channels * plan.most > LARGE:
        by_outputs *= OUTSIDE
    return (K + TURN) * by_outputs < K * by_rows


def _full(size: int, unit: int) -> float:
    """How much of whole units is in use."""
    return size / (cdiv(size, unit) * unit)


def walk_by_filters(x, a, a_rows, plan, a_steps, groups, bias, positive, y, y_first):
    """As ``walk_by_tiles``, for outputs that lie beside each other."""
    rows, a_row, a_group = a_rows
    walk, flat, lanes = plan.walk, y.reshape(-1), registers()[0] // x.itemsize
    y_row, K, R = y.shape[2] * y.shape[3], len(a_steps), rows // groups
    room = cdiv(R, lanes) * lanes * K
    turned = pool.empty((groups, room), x.dtype)
    for g in range(groups):
        side_by_side(a, g * a_group, a_row, a_steps, R, turned[g], lanes)
    bias = np.empty(0, x.dtype) if bias is None else bias
    todo: list[tuple[Any, ...]] = list(product(range(groups), plan.blocks))
    ahead = multiples(lanes, K)

    def task(number: int) -> None:
        g, block = todo[number]
        patch, steps, places = windows(plan, x, g * walk.channels, walk.channels)(*block)
        conv2d_forward_implicit_gemm_by_filters_kernel(
            patch, steps, places, turned[g], ahead, R, bias[g * R : (g + 1) * R], positive, flat,
            y_first + (block[0] * rows + g * R) * y_row + block[2] * walk.V, rows * y_row, y_row,
            (block[3] - block[2]) * walk.V, STRIP, lanes,
        )  # fmt: skip

    each_task(task, len(todo), K * y.size)
