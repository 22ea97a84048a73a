"""matmul on CUDA C++: launchers of matmul.cu, for a GPU and for sim."""
# op: gpunet/ops/matmul.py

from math import prod
from typing import Any, NamedTuple

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, kernels, library
from ..common.shapes import cdiv
from . import broadcast_batch

TILE = 16  # side of a block's tile of y in the first rungs; 256 threads
BUILDS = {"matmul": [{"TILE": TILE}]}
MOST_Z = 65535  # of a grid's third axis, over the batch; the kernels walk on from there
SHORTEST_PART = 256  # of k, that a block of split_k is worth


def fits(a, b, *, transpose_a, transpose_b):
    """Whether the matrices are float32 or float64 and small enough for 32-bit indices."""
    real = is_real(a, b)
    if real is not True:
        return real
    M = a.shape[-1] if transpose_a else a.shape[-2]
    if max(prod(a.shape[-2:]), prod(b.shape[-2:])) >= 2**31 or M > 65535 * TILE:
        return f"it takes matrices of fewer than 2**31 elements and {65535 * TILE} rows"
    return True


def fits_bias(a, b, bias, *, transpose_a, transpose_b):
    """Whether the matrices are float32 or float64 and small enough for 32-bit indices."""
    real = is_real(a, b, bias)
    return fits(a, b, transpose_a=transpose_a, transpose_b=transpose_b) if real is True else real


def fits_split(a, b, bias=None, *, transpose_a, transpose_b):
    """As :func:`fits`; and one axis of the grid holds the matrices and the parts of each."""
    if _sizes(a, b, transpose_a, transpose_b)[3] > MOST_Z:
        return f"it takes at most {MOST_Z} matrices"
    if bias is not None:
        return fits_bias(a, b, bias, transpose_a=transpose_a, transpose_b=transpose_b)
    return fits(a, b, transpose_a=transpose_a, transpose_b=transpose_b)


# Who pays when. The thresholds follow from how many tiles there are for how many multiprocessors; they are estimates,
# and a measurement on a GPU may move them.


def fills_64(a, b, bias=None, *, transpose_a, transpose_b):
    """Whether tiles of 64 x 64 are mostly full."""
    M, N, _, _ = _sizes(a, b, transpose_a, transpose_b)
    return min(M, N) >= 48 or f"its tiles have 64 x 64 elements, and y has {M} x {N}"


def fills_128(a, b, bias=None, *, transpose_a, transpose_b):
    """Whether there are tiles enough for a quarter of the GPU, and they are mostly full."""
    M, N, _, count = _sizes(a, b, transpose_a, transpose_b)
    side = 32 * (16 // a.dtype.itemsize)
    tiles = count * cdiv(M, side) * cdiv(N, side)
    enough = min(M, N) >= 3 * side // 4 and tiles >= cuda.multiprocessors(a) // 4
    return enough or f"its tiles have {side} x {side} elements, and y has {M} x {N} of {count} matrices"


def fills_256(a, b, bias=None, *, transpose_a, transpose_b):
    """Whether there are tiles enough for half of the GPU, they are mostly full, and it copies asynchronously."""
    if cuda.compute_capability(a) < 80:
        return "before sm_80 copies to shared memory go through registers, of which there are none left"
    M, N, _, count = _sizes(a, b, transpose_a, transpose_b)
    lanes = 16 // a.dtype.itemsize
    BM, BN = 32 * lanes, 64 * lanes
    tiles = count * cdiv(M, BM) * cdiv(N, BN)
    enough = M >= 3 * BM // 4 and N >= 3 * BN // 4 and tiles >= cuda.multiprocessors(a) // 2
    return enough or f"its tiles have {BM} x {BN} elements, and y has {M} x {N} of {count} matrices"


def is_long(a, b, bias=None, *, transpose_a, transpose_b):
    """Whether y has fewer tiles than the GPU multiprocessors, and k is long."""
    M, N, K, count = _sizes(a, b, transpose_a, transpose_b)
    side = 16 * (16 // a.dtype.itemsize)
    tiles = count * cdiv(M, side) * cdiv(N, side)
    few = 0 < tiles <= cuda.multiprocessors(a) // 2 and count < MOST_Z // 2
    return (few and K >= 4 * SHORTEST_PART) or f"it is for few tiles and a long k, and y has {tiles} tiles, k {K}"


def _sizes(a, b, transpose_a, transpose_b):
    """M, N, K and how many matrices."""
    M, K = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    N = b.shape[-2] if transpose_b else b.shape[-1]
    return M, N, K, prod(broadcast_batch(a.shape[:-2], b.shape[:-2]))


@kernel("matmul.forward", backend="cupy", variant="naive", when=fits)
def matmul_forward_naive(a, b, *, transpose_a, transpose_b):
    """One thread an element, neighbouring threads along the rows."""
    return _run("naive", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="coalesced", when=fits)
def matmul_forward_coalesced(a, b, *, transpose_a, transpose_b):
    """One thread an element, neighbouring threads along the columns."""
    return _run("coalesced", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="tiled", when=fits)
def matmul_forward_tiled(a, b, *, transpose_a, transpose_b):
    """A block walks along K with a tile of a and a tile of b in shared memory."""
    return _run("tiled", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias", backend="cupy", variant="tiled", when=fits_bias)
def matmul_forward_bias_tiled(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with the bias."""
    return _run("tiled", a, b, bias, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias_relu", backend="cupy", variant="tiled", when=fits_bias)
def matmul_forward_bias_relu_tiled(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with bias and positive part."""
    return _run("tiled", a, b, bias, 1, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="register_1d", when=fits, pays=fills_64)
def matmul_forward_register_1d(a, b, *, transpose_a, transpose_b):
    """One thread 8 elements of a column."""
    return _run("register_1d", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="register_2d", when=fits, pays=fills_128)
def matmul_forward_register_2d(a, b, *, transpose_a, transpose_b):
    """One thread a small matrix of elements."""
    return _run("register_2d", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="double_buffered", when=fits, pays=fills_128)
def matmul_forward_double_buffered(a, b, *, transpose_a, transpose_b):
    """The next tile is on its way while one is multiplied."""
    return _run("double_buffered", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="warp_tiled", when=fits, pays=fills_128)
def matmul_forward_warp_tiled(a, b, *, transpose_a, transpose_b):
    """Each warp a tile of its own, read from shared memory without conflicts."""
    return _run("warp_tiled", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias", backend="cupy", variant="warp_tiled", when=fits_bias, pays=fills_128)
def matmul_forward_bias_warp_tiled(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with the bias."""
    return _run("warp_tiled", a, b, bias, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias_relu", backend="cupy", variant="warp_tiled", when=fits_bias, pays=fills_128)
def matmul_forward_bias_relu_warp_tiled(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with bias and positive part."""
    return _run("warp_tiled", a, b, bias, 1, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="cp_async", when=fits, pays=fills_256)
def matmul_forward_cp_async(a, b, *, transpose_a, transpose_b):
    """Tiles are copied past the registers, two ahead; 128 sums a thread."""
    return _run("cp_async", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias", backend="cupy", variant="cp_async", when=fits_bias, pays=fills_256)
def matmul_forward_bias_cp_async(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with the bias."""
    return _run("cp_async", a, b, bias, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias_relu", backend="cupy", variant="cp_async", when=fits_bias, pays=fills_256)
def matmul_forward_bias_relu_cp_async(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with bias and positive part."""
    return _run("cp_async", a, b, bias, 1, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="split_k", when=fits_split, pays=is_long)
def matmul_forward_split_k(a, b, *, transpose_a, transpose_b):
    """Blocks sum over parts of k; the parts are added in their order."""
    return _run("split_k", a, b, None, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias", backend="cupy", variant="split_k", when=fits_split, pays=is_long)
def matmul_forward_bias_split_k(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with the bias."""
    return _run("split_k", a, b, bias, 0, transpose_a, transpose_b)


@kernel("matmul.forward_bias_relu", backend="cupy", variant="split_k", when=fits_split, pays=is_long)
def matmul_forward_bias_relu_split_k(a, b, bias, *, transpose_a, transpose_b):
    """The same, finished with bias and positive part."""
    return _run("split_k", a, b, bias, 1, transpose_a, transpose_b)


class _Product(NamedTuple):
    """What every kernel of matmul.cu gets: y = a b for each matrix of a batch, all in one piece of memory."""

    y: Any
    a: Any
    b: Any
    bias: Any
    relu: int
    M: int
    N: int
    K: int
    a_row: int
    a_col: int
    b_row: int
    b_col: int
    a_batch: int
    b_batch: int
    batch: int


def _run(rung, a, b, bias, relu, transpose_a, transpose_b):
    batch = broadcast_batch(a.shape[:-2], b.shape[:-2])
    a, a_batch = batched(a, batch)
    b, b_batch = batched(b, batch)
    M, K = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    N = b.shape[-2] if transpose_b else b.shape[-1]
    y = empty((*batch, M, N), a)
    bias = None if bias is None else contiguous(bias)
    multiply(
        y, a, b, M, N, K, transpose_a=transpose_a, transpose_b=transpose_b, batch=prod(batch), a_batch=a_batch,
        b_batch=b_batch, bias=bias, relu=relu, rung=rung,
    )  # fmt: skip
    return y


def multiply(
    y, a, b, M, N, K, *, transpose_a=False, transpose_b=False, batch=1, a_batch=0, b_batch=0, bias=None, relu=0,
    rung=None,
):  # fmt: skip
    """Writes ``batch`` products of (M, K) and (K, N) to y; for other ops' launchers too.

    Args:
        y: C-contiguous, of batch * M * N elements.
        a: C-contiguous; its matrices lie ``a_batch`` elements apart (0: one for all), turned round if ``transpose_a``.
        b: likewise.
        M: rows of y.
        N: columns of y.
        K: length of the sums.
        transpose_a: whether a matrix of a is stored as (K, M).
        transpose_b: whether a matrix of b is stored as (N, K).
        batch: how many products.
        a_batch: elements from one matrix of a to the next.
        b_batch: likewise.
        bias: (N,) or None.
        relu: whether the positive part is written.
        rung: which kernel; None for the best for these sizes.
    """
    a_row, a_col = (1, M) if transpose_a else (K, 1)
    b_row, b_col = (1, K) if transpose_b else (N, 1)
    product = _Product(y, a, b, bias, int(relu), M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, batch)
    if M and N and batch:
        (_RUNGS[rung or _best(product)])(product, kernels("matmul", a, TILE=TILE))


def _best(product):
    """The rung for a product of another op: as ``pays`` has it, by sizes alone."""
    M, N, K, count = product.M, product.N, product.K, product.batch
    lanes, processors = 16 // product.a.dtype.itemsize, cuda.multiprocessors(product.a)
    side = 32 * lanes
    if 0 < count * cdiv(M, side // 2) * cdiv(N, side // 2) <= processors // 2 and K >= 4 * SHORTEST_PART:
        return "split_k"
    is_wide = min(M, N // 2) >= 3 * side // 4
    is_wide = is_wide and cuda.compute_capability(product.a) >= 80
    if is_wide and count * cdiv(M, side) * cdiv(N, 2 * side) >= processors // 2:
        return "cp_async"
    if min(M, N) >= 3 * side // 4 and count * cdiv(M, side) * cdiv(N, side) >= processors // 4:
        return "warp_tiled"
    return "register_1d" if min(M, N) >= 48 else "tiled"


def _simple(name):
    """A rung with one thread an element, in blocks of TILE x TILE."""

    def run(product, module):
        grid = (cdiv(product.N, TILE), cdiv(product.M, TILE), min(product.batch, MOST_Z))
        getattr(module, f"matmul_forward_{name}")(grid, (TILE, TILE), tuple(product))

    return run


def _register(name, threads, side):
    """A rung with tiles of ``side`` x ``side``, loaded element by element; ``side(lanes)`` elements."""

    def run(product, module):
        length = side(16 // product.a.dtype.itemsize)
        grid = (cdiv(product.N, length), cdiv(product.M, length), min(product.batch, MOST_Z))
        getattr(module, f"matmul_forward_{name}")(grid, (threads,), tuple(product))

    return run


def _double_buffered(product, module):
    side = 32 * (16 // product.a.dtype.itemsize)
    grid = (cdiv(product.N, side), cdiv(product.M, side), min(product.batch, MOST_Z))
    module.matmul_forward_double_buffered(grid, (THREADS,), (*product, *_modes(product)))


def _swizzled(name, across):
    """A rung whose blocks find their tile from one number; a tile is ``across`` times as wide as it is high."""

    def run(product, module):
        side = 32 * (16 // product.a.dtype.itemsize)
        tiles = cdiv(product.M, side) * cdiv(product.N, across * side)
        grid = (tiles, 1, min(product.batch, MOST_Z))
        getattr(module, f"matmul_forward_{name}")(grid, (THREADS,), (*product, *_modes(product)))

    return run


def _split_k(product, module):
    side = 16 * (16 // product.a.dtype.itemsize)
    tiles = (cdiv(product.N, side), cdiv(product.M, side))
    wanted = cdiv(2 * cuda.multiprocessors(product.a), tiles[0] * tiles[1] * product.batch)
    parts = max(1, min(cdiv(product.K, SHORTEST_PART), wanted, MOST_Z // product.batch))
    part = max(8, cdiv(cdiv(product.K, parts), 8) * 8)  # whole steps of BK = 8
    parts = max(1, cdiv(product.K, part))
    piece = empty((parts, product.batch, product.M, product.N), product.a)
    inner = (*product[1:3], *product[5:], parts, part, int(product.N % (16 // piece.dtype.itemsize) == 0))
    module.matmul_forward_split_k_pieces((*tiles, product.batch * parts), (THREADS,), (piece, *inner))
    size = product.batch * product.M * product.N
    arguments = (product.y, piece, product.bias, product.relu, product.N, parts, size)
    module.matmul_forward_split_k((blocks_for(size, product.a),), (THREADS,), arguments)


_RUNGS = {
    "naive": _simple("naive"),
    "coalesced": _simple("coalesced"),
    "tiled": _simple("tiled"),
    "register_1d": _register("register_1d", 512, lambda lanes: 64),
    "register_2d": _register("register_2d", 256, lambda lanes: 32 * lanes),
    "double_buffered": _double_buffered,
    "warp_tiled": _swizzled("warp_tiled", 1),
    "cp_async": _swizzled("cp_async", 2),
    "split_k": _split_k,
}


def _modes(product):
    """How a and b can be read (0 by element, 1 packs along rows or columns of y, 2 packs along k), and y written."""
    lanes = 16 // product.a.dtype.itemsize
    a_mode = (2 if product.a_col == 1 else 1) * _in_packs(product.a, product.a_batch, product.a_row, product.a_col)
    b_mode = (1 if product.b_col == 1 else 2) * _in_packs(product.b, product.b_batch, product.b_row, product.b_col)
    y_wide = product.N % lanes == 0 and cuda.address(product.y) % 16 == 0
    return a_mode, b_mode, int(y_wide)


def _in_packs(array, batch_step, *steps):
    """Whether every row (or column) that lies in one piece begins at a multiple of 16 bytes."""
    lanes = 16 // array.dtype.itemsize
    return cuda.address(array) % 16 == 0 and batch_step % lanes == 0 and max(steps) % lanes == 0


def batched(a, batch):
    """The matrices in C order, and the step from one of the batch to the next: 0 where one matrix serves all."""
    if prod(a.shape[:-2]) == 1:
        return contiguous(a), 0
    if a.shape[:-2] != batch:  # some axes are shared and others not: no single step does it
        a = library(a).broadcast_to(a, (*batch, *a.shape[-2:]))
    return contiguous(a), prod(a.shape[-2:])
