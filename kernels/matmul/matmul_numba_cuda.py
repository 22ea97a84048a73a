"""matmul on Numba-CUDA: the rungs of matmul.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/matmul.py
#
# All kernels compute y = a b for one matrix of the batch at a time. Element (i, k) of a lies at i * a_row + k * a_col,
# and likewise for b: a transposed input is the same memory with the two steps exchanged, and a batch that is shared by
# all has the batch step 0. One of the two steps is 1.

from collections import namedtuple
from math import prod

import numpy as np

from gpunet import cuda as door
from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.dispatch import kernel

from ..common.launching import blocks_for, empty
from ..common.shapes import cdiv
from ..common.tiles_numba import SQUARE, lanes, pitch, plain, product, tile_of, tiles, warps
from . import broadcast_batch
from .matmul_cupy import MOST_Z, SHORTEST_PART, batched, fills_64, fills_128, fits, fits_split, is_long

# The simulator pays by the thread, so its tiles have fewer.
TILE = 4 if jit.SIMULATED else 16  # side of a block's tile of y in the first rungs
COLUMN = 16 if jit.SIMULATED else 64  # side of register_1d's tile


@jit.typed
def matmul_forward_naive_kernel(real):
    """One thread one element y[row, col]; neighbouring threads have neighbouring rows."""
    zero = real(0)

    def forward(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch):
        row = cuda.blockIdx.y * TILE + cuda.threadIdx.x
        col = cuda.blockIdx.x * TILE + cuda.threadIdx.y
        if row < M and col < N:
            for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
                left, right, sum = n * a_batch + row * a_row, n * b_batch + col * b_col, zero
                for k in range(K):
                    sum += a[np.uint64(left + k * a_col)] * b[np.uint64(right + k * b_row)]
                y[(n * M + row) * N + col] = sum

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="naive", when=fits)
def matmul_forward_naive(a, b, *, transpose_a, transpose_b):
    """One thread an element, neighbouring threads along the rows."""
    return _run("naive", a, b, transpose_a, transpose_b)


@jit.typed
def matmul_forward_coalesced_kernel(real):
    """As naive, but neighbouring threads have neighbouring columns: their stores and loads of b share memory lines."""
    zero = real(0)

    def forward(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch):
        row = cuda.blockIdx.y * TILE + cuda.threadIdx.y
        col = cuda.blockIdx.x * TILE + cuda.threadIdx.x
        if row < M and col < N:
            for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
                left, right, sum = n * a_batch + row * a_row, n * b_batch + col * b_col, zero
                for k in range(K):
                    sum += a[np.uint64(left + k * a_col)] * b[np.uint64(right + k * b_row)]
                y[(n * M + row) * N + col] = sum

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="coalesced", when=fits)
def matmul_forward_coalesced(a, b, *, transpose_a, transpose_b):
    """One thread an element, neighbouring threads along the columns."""
    return _run("coalesced", a, b, transpose_a, transpose_b)


@jit.typed
def matmul_forward_tiled_kernel(real):
    """A block walks along k with a tile of a and a tile of b in shared memory, and uses every value TILE times."""
    zero = real(0)
    PITCH = TILE + 1  # the column more keeps a tile that is stored turned round from hitting one bank with a whole warp
    CELLS = TILE * PITCH

    def forward(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch):
        left = cuda.shared.array(CELLS, real)  # [i][k]
        right = cuda.shared.array(CELLS, real)  # [k][j]
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        first_row, first_col = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
        # Which element of a tile a thread loads: the one that makes neighbouring threads read neighbouring memory.
        ai, ak = (ty, tx) if a_col == 1 else (tx, ty)
        bk, bj = (ty, tx) if b_col == 1 else (tx, ty)
        for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
            sum = zero
            a_begin = n * a_batch + (first_row + ai) * a_row
            b_begin = n * b_batch + (first_col + bj) * b_col
            for k in range(0, K, TILE):
                inside = first_row + ai < M and k + ak < K
                left[np.uint64(ai * PITCH + ak)] = a[np.uint64(a_begin + (k + ak) * a_col)] if inside else zero
                inside = first_col + bj < N and k + bk < K
                right[np.uint64(bk * PITCH + bj)] = b[np.uint64(b_begin + (k + bk) * b_row)] if inside else zero
                cuda.syncthreads()  # both tiles are there before anyone uses them
                for t in range(TILE):
                    sum += left[np.uint64(ty * PITCH + t)] * right[np.uint64(t * PITCH + tx)]
                cuda.syncthreads()  # everyone is done with them before the next step overwrites them
            row, col = first_row + ty, first_col + tx
            if row < M and col < N:
                y[(n * M + row) * N + col] = sum

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="tiled", when=fits)
def matmul_forward_tiled(a, b, *, transpose_a, transpose_b):
    """A block walks along K with a tile of a and a tile of b in shared memory."""
    return _run("tiled", a, b, transpose_a, transpose_b)


@jit.typed
def matmul_forward_register_1d_kernel(real):
    """A thread sums TM elements of a column in registers, so a value of b is read once for all of them."""
    zero, TM, SIDE, BK = real(0), 8, COLUMN, 8
    BLOCK, PITCH = SIDE * SIDE // TM, pitch(real, SIDE)
    CELLS, EACH = BK * PITCH, SIDE * BK // BLOCK
    part, fetch, put = tiles(real, SIDE, BK, BLOCK)

    def forward(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch):
        left = cuda.shared.array(CELLS, real)
        right = cuda.shared.array(CELLS, real)
        held = cuda.local.array(EACH, real)
        sum = cuda.local.array(TM, real)
        first_row, first_col = cuda.blockIdx.y * SIDE, cuda.blockIdx.x * SIDE
        tx, ty = cuda.threadIdx.x % SIDE, cuda.threadIdx.x // SIDE
        for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
            of_a = part(n * a_batch, first_row, M, a_row, a_col, False)
            of_b = part(n * b_batch, first_col, N, b_col, b_row, False)
            for i in range(TM):
                sum[i] = zero
            for k in range(0, K, BK):
                fetch(held, of_a, a, of_a.at + k * a_col, K - k)
                put(left, 0, of_a, held)
                fetch(held, of_b, b, of_b.at + k * b_row, K - k)
                put(right, 0, of_b, held)
                cuda.syncthreads()
                for t in range(BK):
                    value = right[np.uint64(t * PITCH + tx)]
                    for i in range(TM):
                        sum[i] += left[np.uint64(t * PITCH + ty * TM + i)] * value
                cuda.syncthreads()
            for i in range(TM):
                row, col = first_row + ty * TM + i, first_col + tx
                if row < M and col < N:
                    y[(n * M + row) * N + col] = sum[i]

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="register_1d", when=fits, pays=fills_64)
def matmul_forward_register_1d(a, b, *, transpose_a, transpose_b):
    """One thread 8 elements of a column."""
    return _run("register_1d", a, b, transpose_a, transpose_b)


@jit.typed
def matmul_forward_register_2d_kernel(real):
    """A thread sums T x T elements in registers: 2 T reads from shared memory for T * T products."""
    zero, T, BK, BLOCK = real(0), 2 * lanes(real), SQUARE // 2, SQUARE**2
    SIDE = SQUARE * T
    PITCH, EACH, SUMS = pitch(real, SIDE), SIDE * BK // BLOCK, T * T
    CELLS = BK * PITCH
    part, fetch, put = tiles(real, SIDE, BK, BLOCK)

    def forward(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch):
        left = cuda.shared.array(CELLS, real)
        right = cuda.shared.array(CELLS, real)
        held = cuda.local.array(EACH, real)
        sum = cuda.local.array(SUMS, real)
        down = cuda.local.array(T, real)
        first_row, first_col = cuda.blockIdx.y * SIDE, cuda.blockIdx.x * SIDE
        row, col = cuda.threadIdx.x // SQUARE * T, cuda.threadIdx.x % SQUARE * T
        for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
            of_a = part(n * a_batch, first_row, M, a_row, a_col, False)
            of_b = part(n * b_batch, first_col, N, b_col, b_row, False)
            for i in range(SUMS):
                sum[i] = zero
            for k in range(0, K, BK):
                fetch(held, of_a, a, of_a.at + k * a_col, K - k)
                put(left, 0, of_a, held)
                fetch(held, of_b, b, of_b.at + k * b_row, K - k)
                put(right, 0, of_b, held)
                cuda.syncthreads()
                for t in range(BK):
                    for i in range(T):
                        down[i] = left[np.uint64(t * PITCH + row + i)]
                    for j in range(T):
                        value = right[np.uint64(t * PITCH + col + j)]
                        for i in range(T):
                            sum[i * T + j] += down[i] * value
                cuda.syncthreads()
            for i in range(T):
                for j in range(T):
                    at_row, at_col = first_row + row + i, first_col + col + j
                    if at_row < M and at_col < N:
                        y[np.uint64((n * M + at_row) * N + at_col)] = sum[i * T + j]

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="register_2d", when=fits, pays=fills_128)
def matmul_forward_register_2d(a, b, *, transpose_a, transpose_b):
    """One thread a small matrix of elements."""
    return _run("register_2d", a, b, transpose_a, transpose_b)


@jit.typed
def matmul_forward_double_buffered_kernel(real):
    """The next tile is on its way while this one is multiplied; 16 bytes a load."""
    SIDE, part, one_tile, store_tile = product(real, plain(real))

    def forward(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch, a_wide, b_wide, y_wide):
        first_row, first_col = cuda.blockIdx.y * SIDE, cuda.blockIdx.x * SIDE
        for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
            of_a = part(n * a_batch, first_row, M, a_row, a_col, a_wide)
            of_b = part(n * b_batch, first_col, N, b_col, b_row, b_wide)
            sum = one_tile(a, b, of_a, of_b, 0, K, a_col, b_row)
            store_tile(y, n * M * N, sum, first_row, first_col, M, N, y_wide)

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="double_buffered", when=fits, pays=fills_128)
def matmul_forward_double_buffered(a, b, *, transpose_a, transpose_b):
    """The next tile is on its way while one is multiplied."""
    return _run("double_buffered", a, b, transpose_a, transpose_b)


@jit.typed
def matmul_forward_warp_tiled_kernel(real):
    """As double_buffered; each warp has a tile of its own, which it reads from shared memory without bank conflicts."""
    SIDE, part, one_tile, store_tile = product(real, warps(real, 2))

    def forward(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch, a_wide, b_wide, y_wide):
        tile_m, tile_n = tile_of((M + SIDE - 1) // SIDE, (N + SIDE - 1) // SIDE)
        first_row, first_col = tile_m * SIDE, tile_n * SIDE
        for n in range(cuda.blockIdx.z, batch, cuda.gridDim.z):
            of_a = part(n * a_batch, first_row, M, a_row, a_col, a_wide)
            of_b = part(n * b_batch, first_col, N, b_col, b_row, b_wide)
            sum = one_tile(a, b, of_a, of_b, 0, K, a_col, b_row)
            store_tile(y, n * M * N, sum, first_row, first_col, M, N, y_wide)

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="warp_tiled", when=fits, pays=fills_128)
def matmul_forward_warp_tiled(a, b, *, transpose_a, transpose_b):
    """Each warp a tile of its own, read from shared memory without conflicts."""
    return _run("warp_tiled", a, b, transpose_a, transpose_b)


@jit.typed
def matmul_forward_split_k_pieces_kernel(real):
    """As warp_tiled with a fourth of the sums; a block's are over a part of k, and y is left in ``parts`` pieces."""
    SIDE, part, one_tile, store_tile = product(real, warps(real, 1))

    def pieces(
        piece, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch, a_wide, b_wide, y_wide, parts, length
    ):  # fmt: skip
        first_row, first_col = cuda.blockIdx.y * SIDE, cuda.blockIdx.x * SIDE
        n, which = cuda.blockIdx.z // parts, cuda.blockIdx.z % parts
        of_a = part(n * a_batch, first_row, M, a_row, a_col, a_wide)
        of_b = part(n * b_batch, first_col, N, b_col, b_row, b_wide)
        k_begin, k_end = which * length, min(K, (which + 1) * length)
        sum = one_tile(a, b, of_a, of_b, k_begin, k_end, a_col, b_row)
        store_tile(piece, (which * batch + n) * M * N, sum, first_row, first_col, M, N, y_wide)

    return pieces


@jit.typed
def matmul_forward_split_k_kernel(real):
    """Then each element of y is the sum of its pieces, in their order."""
    zero = real(0)

    def forward(y, piece, parts, size):
        for e in range(cuda.grid(1), size, cuda.gridsize(1)):
            sum = zero
            for p in range(parts):
                sum += piece[np.uint64(p * size + e)]
            y[np.uint64(e)] = sum

    return forward


@kernel("matmul.forward", backend="numba_cuda", variant="split_k", when=fits_split, pays=is_long)
def matmul_forward_split_k(a, b, *, transpose_a, transpose_b):
    """Blocks sum over parts of k; the parts are added in their order."""
    return _run("split_k", a, b, transpose_a, transpose_b)


#: what every kernel gets: y = a b for each matrix of a batch, all in one piece of memory
_Product = namedtuple("_Product", "y a b M N K a_row a_col b_row b_col a_batch b_batch batch")


def _run(rung, a, b, transpose_a, transpose_b):
    batch = broadcast_batch(a.shape[:-2], b.shape[:-2])
    a, a_batch = batched(a, batch)
    b, b_batch = batched(b, batch)
    M, K = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    N = b.shape[-2] if transpose_b else b.shape[-1]
    y = empty((*batch, M, N), a)
    multiply(
        y, a, b, M, N, K, transpose_a=transpose_a, transpose_b=transpose_b, batch=prod(batch), a_batch=a_batch,
        b_batch=b_batch, rung=rung,
    )  # fmt: skip
    return y


def multiply(y, a, b, M, N, K, *, transpose_a=False, transpose_b=False, batch=1, a_batch=0, b_batch=0, rung=None):
    """Writes ``batch`` products of (M, K) and (K, N) to y; for other ops' launchers too.

    The arguments are those of matmul_cupy.multiply, without bias and positive part.
    """
    a_row, a_col = (1, M) if transpose_a else (K, 1)
    b_row, b_col = (1, K) if transpose_b else (N, 1)
    if M and N and batch:
        product = _Product(y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch)
        _RUNGS[rung or _best(product)](product)


def _best(product):
    """The rung for a product of another op: as ``pays`` has it, by sizes alone."""
    M, N, K, count = product.M, product.N, product.K, product.batch
    side, processors = 32 * lanes(product.a.dtype), door.multiprocessors(product.a)
    if 0 < count * cdiv(M, side // 2) * cdiv(N, side // 2) <= processors // 2 and K >= 4 * SHORTEST_PART:
        return "split_k"
    if min(M, N) >= 3 * side // 4 and count * cdiv(M, side) * cdiv(N, side) >= processors // 4:
        return "warp_tiled"
    return "register_1d" if min(M, N) >= 48 else "tiled"


def _rung(made, threads, side, wide=False, grouped=False):
    """A rung with ``threads`` for a tile of ``side(lanes)``; wide: it reads packs, grouped: it asks tile_of."""

    def run(product):
        across, down = _tiles(product, side(lanes(product.a.dtype)))
        grid = (across * down, 1) if grouped else (across, down)
        arguments = (*product, *_wide(product)) if wide else product
        made(product.a)((*grid, min(product.batch, MOST_Z)), threads, arguments)

    return run


def _tiles(product, side):
    return cdiv(product.N, side), cdiv(product.M, side)


def _split_k(product):
    tiles = _tiles(product, SQUARE * lanes(product.a.dtype))
    wanted = cdiv(2 * door.multiprocessors(product.a), prod(tiles) * product.batch)
    parts = max(1, min(cdiv(product.K, SHORTEST_PART), wanted, MOST_Z // product.batch))
    length = cdiv(cdiv(max(1, product.K), parts), SQUARE) * SQUARE  # whole steps of k
    parts = max(1, cdiv(product.K, length))
    piece = empty((parts, product.batch, product.M, product.N), product.a)
    pieces = matmul_forward_split_k_pieces_kernel(product.a)
    inner = product._replace(y=piece)
    pieces((*tiles, product.batch * parts), (SQUARE**2,), (*inner, *_wide(inner), parts, length))
    size = product.batch * product.M * product.N
    add = matmul_forward_split_k_kernel(product.a)
    add((blocks_for(size, product.a, jit.THREADS),), (jit.THREADS,), (product.y, piece, parts, size))


def _wide(product):
    """Whether a, b and y lie in whole packs: each row (or column) in one piece begins at a multiple of 16 bytes."""
    y, a, b, _, N, _, a_row, a_col, b_row, b_col, a_batch, b_batch, _ = product
    steps = (a, a_batch, max(a_row, a_col)), (b, b_batch, max(b_row, b_col)), (y, 0, N)
    LANES = lanes(a.dtype)
    return [door.address(x) % 16 == 0 and apart % LANES == 0 and step % LANES == 0 for x, apart, step in steps]


_ONE = {"threads": (TILE, TILE), "side": lambda lanes: TILE}
_MANY = {"threads": (SQUARE**2,), "side": lambda lanes: 2 * SQUARE * lanes}
_RUNGS = {
    "naive": _rung(matmul_forward_naive_kernel, **_ONE),
    "coalesced": _rung(matmul_forward_coalesced_kernel, **_ONE),
    "tiled": _rung(matmul_forward_tiled_kernel, **_ONE),
    "register_1d": _rung(matmul_forward_register_1d_kernel, (COLUMN * COLUMN // 8,), lambda lanes: COLUMN),
    "register_2d": _rung(matmul_forward_register_2d_kernel, **_MANY),
    "double_buffered": _rung(matmul_forward_double_buffered_kernel, **_MANY, wide=True),
    "warp_tiled": _rung(matmul_forward_warp_tiled_kernel, **_MANY, wide=True, grouped=True),
    "split_k": _split_k,
}
