"""What the kernels of conv2d share on Numba-CUDA: numbers of outputs, and the product of a pair of tiles.

Sizes are 32-bit numbers; ``np.int32(...)`` says that 32 bits are enough, and an index ``np.uint64(...)`` is not looked
at for being below 0.
"""

from typing import Any, NamedTuple

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.packs import load_four, load_two

from .pooling_numba import quotient
from .tiles_numba import SQUARE, lanes, pack_store, pitch, warps

BLOCK = SQUARE**2  # threads that multiply a pair of tiles
BK = SQUARE // 2  # of the sum, in one pair of tiles: each thread copies one pack of each of them


# -- numbers of outputs ------------------------------------------------------------------------------------------------


@jit.device
def place_of(number, OH, OW):
    """Output (n, i, j) of N * OH * OW."""
    area = np.int32(OH * OW)
    n = np.int32(np.uint64(number) // np.uint64(area))
    rest = np.int32(number - np.int64(n) * area)
    i = quotient(rest, OW)
    return n, i, np.int32(rest - i * OW)


@jit.device
def advance(place, step, OH, OW):
    """The output ``step`` further on than ``place``, without a division; both are (n, i, j)."""
    j = place[2] + step[2]
    i = place[1] + step[1] + (1 if j >= OW else 0)
    n = place[0] + step[0] + (1 if i >= OH else 0)
    return np.int32(n), np.int32(i - OH if i >= OH else i), np.int32(j - OW if j >= OW else j)


@jit.device
def image_of(n, groups, g, planes, area):
    """Where planes of group g of image n begin."""
    return (np.int64(n) * groups + g) * planes * area


@jit.device
def inside_of(start, step, window, size):
    """The places of a window for which row start + place * step lies inside: the first, and the end."""
    begin = quotient(step - 1 - start, step) if start < 0 else np.int32(0)
    end = quotient(max(size - start, 0) + step - 1, step)
    return begin, np.int32(min(window, end))


@jit.device
def output_at(start, stride, outputs):
    """The output whose window begins at ``start``, counted with the padding; -1 where there is none."""
    i = quotient(max(start, 0), stride)
    return i if start >= 0 and i * stride == start and i < outputs else np.int32(-1)


# -- pairs of tiles ----------------------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """A block's tile of SIDE x SIDE, of which a thread sums T x T elements."""

    LANES: int
    T: int
    SIDE: int
    PITCH: int
    """Elements from one row of a tile of a or b to the next."""
    DOWN: int
    """Of a thread's packs of rows, from one to the next."""
    ACROSS: int
    """Of columns, likewise."""
    place: Any
    """() -> the thread's first row and column."""
    multiply: Any
    """(sum, a, b, at_a, at_b): sum += a b for one pair of tiles, from the thread's own row and column on."""
    store: Any
    """(y, sum, rows, cols, packs): the sums to y[rows[i] + cols[j]], none where one is below 0; or whole packs."""


def tile_of(real: Any) -> Tile:
    """The tile for a dtype: 128 x 128, double 64 x 64."""
    LANES, PACKS = lanes(real), 2
    _, DOWN, ACROSS, place = warps(real, PACKS)
    T, SIDE = PACKS * LANES, SQUARE * PACKS * LANES
    PITCH = pitch(real, SIDE)
    load, store_pack = load_four if LANES == 4 else load_two, pack_store(real)

    @jit.device
    def multiply_packs(sum, first, down, across):
        for i in range(LANES):
            for j in range(LANES):
                sum[first + i * T + j] += down[i] * across[j]

    @jit.device
    def multiply_row(sum, a, b, at_a, at_b):
        upper, lower, near, far = load(a, at_a), load(a, at_a + DOWN), load(b, at_b), load(b, at_b + ACROSS)
        multiply_packs(sum, 0, upper, near)
        multiply_packs(sum, LANES, upper, far)
        multiply_packs(sum, LANES * T, lower, near)
        multiply_packs(sum, LANES * T + LANES, lower, far)

    @jit.device
    def multiply(sum, a, b, at_a, at_b):
        for k in range(0, BK * PITCH, 2 * PITCH):  # two at a time: the compiler unrolls no loop as long as this one
            multiply_row(sum, a, b, at_a + k, at_b + k)
            multiply_row(sum, a, b, at_a + k + PITCH, at_b + k + PITCH)

    @jit.device
    def store_square(y, sum, rows, cols, packs, g, h):
        for i in range(g, g + LANES):
            if rows[i] >= 0 and packs and cols[h] >= 0:
                store_pack(y, rows[i] + cols[h], sum, i * T + h)
            elif rows[i] >= 0 and not packs:
                for j in range(h, h + LANES):
                    if cols[j] >= 0:
                        y[np.uint64(rows[i] + cols[j])] = sum[i * T + j]

    @jit.device
    def store(y, sum, rows, cols, packs):
        store_square(y, sum, rows, cols, packs, 0, 0)
        store_square(y, sum, rows, cols, packs, 0, LANES)
        store_square(y, sum, rows, cols, packs, LANES, 0)
        store_square(y, sum, rows, cols, packs, LANES, LANES)

    return Tile(LANES, T, SIDE, PITCH, DOWN, ACROSS, place, multiply, store)
