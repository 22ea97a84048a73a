"""Tiles of matrices on Numba-CUDA: how a block brings them to shared memory, multiplies them, and writes their product.

A block computes a tile of y of SIDE x SIDE: it walks along k in steps of BK with a tile of a and a tile of b in shared
memory. Both lie k by k, [k][i] and [k][j], so that the values of one k which a thread needs are neighbours and come in
16 bytes at once. A pack is 16 bytes of elements.

Arrays of a thread (``cuda.local.array``) stay in registers: all loops over them have bounds that the compiler knows. An
index ``np.uint64(...)`` is not looked at for being below 0.
"""

from typing import Any, NamedTuple

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.cuda.packs import load_four, load_two, store_tuple

SQUARE = 8 if jit.SIMULATED else 16  # a block has SQUARE**2 threads; the simulator pays by the thread
GROUP = 8  # rows of tiles that neighbouring blocks share


def lanes(real: Any) -> int:
    """Elements in 16 bytes."""
    return 16 // np.dtype(real).itemsize


def pitch(real: Any, side: int) -> int:
    """Elements from one k of a tile to the next: a pack more keeps a tile that is turned round off one bank."""
    return side + lanes(real)


def pack_store(real: Any) -> Any:
    """``store(to, at, held, first)``: a pack of a thread's own array, written at once."""
    LANES = lanes(real)

    @jit.device
    def store(to, at, held, first):
        if LANES == 4:
            store_tuple(to, at, (held[first], held[first + 1], held[first + 2], held[first + 3]))
        else:
            store_tuple(to, at, (held[first], held[first + 1]))

    return store


# -- from global to shared memory --------------------------------------------------------------------------------------


class Part(NamedTuple):
    """What a thread loads of each tile: EACH elements from (minor, k) on; minor is the tile's index that is not k."""

    minor: Any
    k: Any
    aside: Any  # from one element to the next, in the tile
    ahead: Any
    hop: Any  # likewise, in memory
    wide: Any  # whether the elements are neighbours there, to be loaded at once
    inside: Any  # how many minors of the tile lie inside of the matrix
    at: Any  # where the first one lies, for the tile at k = 0
    step: Any  # from there to the next tile


class Tiles(NamedTuple):
    """Functions for tiles of one size; see ``tiles``."""

    part: Any
    fetch: Any
    put: Any


def tiles(real: Any, SIDE: int, BK: int, BLOCK: int) -> Tiles:
    """How BLOCK threads bring tiles of SIDE x BK from global to shared memory, by way of their registers."""
    zero = real(0)
    EACH, PITCH, LANES = SIDE * BK // BLOCK, pitch(real, SIDE), lanes(real)
    load, store = load_four if LANES == 4 else load_two, pack_store(real)

    @jit.device
    def part(begin, first, minor_end, minor_step, k_step, wide):
        """Neighbouring threads read neighbouring memory, whichever index is the fast one."""
        e, aside, ahead = cuda.threadIdx.x, 0, 0
        if wide and k_step == 1:
            minor, k, ahead = e // (BK // LANES), e % (BK // LANES) * LANES, 1
        elif wide:
            minor, k, aside = e % (SIDE // LANES) * LANES, e // (SIDE // LANES), 1
        elif k_step == 1:
            minor, k, aside = e // BK, e % BK, BLOCK // BK
        else:
            minor, k, ahead = e % SIDE, e // SIDE, BLOCK // SIDE
        hop, at = aside * minor_step + ahead * k_step, begin + (first + minor) * minor_step + k * k_step
        return Part(minor, k, aside, ahead, hop, wide, minor_end - first, at, BK * k_step)

    @jit.device
    def fetch(held, part, x, at, left):
        """The part that begins at ``at`` into registers; zeros outside of the matrix. left: of k, from the tile on."""
        if part.wide:  # sizes are whole packs, so a pack lies inside or outside
            if part.minor < part.inside and part.k < left:
                pack = load(x, at)
                for q in range(EACH):
                    held[q] = pack[q]
            else:
                for q in range(EACH):
                    held[q] = zero
        else:
            for q in range(EACH):
                inside = part.minor + q * part.aside < part.inside and part.k + q * part.ahead < left
                held[q] = x[np.uint64(at + q * part.hop)] if inside else zero

    @jit.device
    def put(tile, begin, part, held):
        """The part from registers into the shared tile that begins there."""
        at, hop = begin + part.k * PITCH + part.minor, part.ahead * PITCH + part.aside
        if part.wide and hop == 1:
            store(tile, at, held, 0)
        else:
            for q in range(EACH):
                tile[np.uint64(at + q * hop)] = held[q]

    return Tiles(part, fetch, put)


# -- the product of two tiles ------------------------------------------------------------------------------------------


class Who(NamedTuple):
    """Which elements of a tile a thread sums: PACKS x PACKS packs, the first at (row, col) of ``place()``."""

    PACKS: int
    DOWN: int  # elements from one pack to the next below it
    ACROSS: int  # likewise to its right
    place: Any


def plain(real: Any) -> Who:
    """Threads in SQUARE x SQUARE, each with 2 x 2 packs side by side."""
    LANES = lanes(real)

    @jit.device
    def place():
        return cuda.threadIdx.x // SQUARE * (2 * LANES), cuda.threadIdx.x % SQUARE * (2 * LANES)

    return Who(2, LANES, LANES, place)


def warps(real: Any, PACKS: int) -> Who:
    """Warps in rows of SQUARE / 4, the threads of a warp in 8 x 4.

    A thread's packs lie 8 (4) packs apart, so that those which a warp reads at the same time are neighbours: 16 bytes
    a thread without two threads on one bank.
    """
    LANES, WIDE = lanes(real), SQUARE // 4

    @jit.device
    def place():
        warp, lane = cuda.threadIdx.x // 32, cuda.threadIdx.x % 32
        row, col = warp // WIDE * (8 * PACKS) + lane // 4, warp % WIDE * (4 * PACKS) + lane % 4
        return row * LANES, col * LANES

    return Who(PACKS, 8 * LANES, 4 * LANES, place)


class Product(NamedTuple):
    """The side of a tile of y, and functions for it."""

    SIDE: int
    part: Any
    one_tile: Any
    store_tile: Any


def product(real: Any, who: Who) -> Product:
    """A tile of y in blocks of SQUARE**2 threads."""
    zero, LANES, (PACKS, DOWN, ACROSS, place) = real(0), lanes(real), who
    T, SIDE, BK = PACKS * LANES, SQUARE * PACKS * LANES, SQUARE // PACKS
    PITCH, SUMS, EACH = pitch(real, SIDE), T * T, SIDE * BK // SQUARE**2
    STAGE, CELLS = BK * PITCH, 2 * BK * PITCH
    load, store = load_four if LANES == 4 else load_two, pack_store(real)
    part, fetch, put = tiles(real, SIDE, BK, SQUARE**2)

    @jit.device
    def multiply(sum, left, right, at_left, at_right):
        """Adds to the sums the products of one k."""
        for g in range(PACKS):
            down = load(left, at_left + g * DOWN)
            for h in range(PACKS):
                across = load(right, at_right + h * ACROSS)
                for i in range(LANES):
                    for j in range(LANES):
                        sum[(g * LANES + i) * T + h * LANES + j] += down[i] * across[j]

    @jit.device
    def multiply_tiles(sum, left, right, row, col):
        """Adds to the sums the product of two tiles; the compiler unrolls no loop as long as this one."""
        for t in range(0, BK * PITCH, 4 * PITCH):
            multiply(sum, left, right, t + row, t + col)
            multiply(sum, left, right, t + PITCH + row, t + PITCH + col)
            multiply(sum, left, right, t + 2 * PITCH + row, t + 2 * PITCH + col)
            multiply(sum, left, right, t + 3 * PITCH + row, t + 3 * PITCH + col)

    @jit.device
    def one_tile(a, b, of_a, of_b, k_begin, k_end, a_col, b_row):
        """The tile's sums over k; the next parts are on their way in registers while one is multiplied."""
        left = cuda.shared.array(CELLS, real, 16)
        right = cuda.shared.array(CELLS, real, 16)
        held_a, held_b = cuda.local.array(EACH, real), cuda.local.array(EACH, real)
        sum = cuda.local.array(SUMS, real)
        row, col = place()
        for i in range(SUMS):
            sum[i] = zero
        at_a, at_b = of_a.at + k_begin * a_col, of_b.at + k_begin * b_row
        fetch(held_a, of_a, a, at_a, k_end - k_begin)
        fetch(held_b, of_b, b, at_b, k_end - k_begin)
        put(left, 0, of_a, held_a)
        put(right, 0, of_b, held_b)
        cuda.syncthreads()
        stage = 0
        for k in range(k_begin + BK, k_end + BK, BK):
            at_a += of_a.step
            at_b += of_b.step
            fetch(held_a, of_a, a, at_a, k_end - k)  # zeros behind the last tile
            fetch(held_b, of_b, b, at_b, k_end - k)
            multiply_tiles(sum, left, right, stage + row, stage + col)
            stage = STAGE - stage
            put(left, stage, of_a, held_a)
            put(right, stage, of_b, held_b)
            cuda.syncthreads()  # the other stage is whole, and this one free
        return sum

    @jit.device
    def store_tile(y, begin, sum, first_row, first_col, M, N, y_wide):
        row, col = place()
        for i in range(T):
            down = first_row + row + i // LANES * DOWN + i % LANES
            for h in range(PACKS):
                across, at = first_col + col + h * ACROSS, i * T + h * LANES
                if down < M and across < N:
                    to = begin + down * N + across
                    if y_wide:
                        store(y, to, sum, at)
                    else:
                        for j in range(LANES):
                            if across + j < N:
                                y[np.uint64(to + j)] = sum[at + j]

    return Product(SIDE, part, one_tile, store_tile)


@jit.device
def tile_of(tiles_m, tiles_n):
    """Which tile a block computes: blocks that run at the same time share rows of a and columns of b."""
    block, per_group = cuda.blockIdx.x, GROUP * tiles_n
    group = block // per_group
    rows, within = min(GROUP, tiles_m - group * GROUP), block - group * per_group
    return group * GROUP + within % rows, within // rows
