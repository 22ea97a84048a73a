"""matmul on CUDA C++: launchers of matmul.cu, for a GPU and for sim."""
# op: gpunet/ops/matmul.py

from math import prod

from gpunet.dispatch import kernel

from ..common.launching import contiguous, empty, is_real, kernels, library
from ..common.shapes import cdiv
from . import broadcast_batch

TILE = 16  # side of a block's tile of y; 256 threads
MOST_ROWS = 65535 * TILE  # the grid's second axis ends there
BUILDS = {"matmul": [{"TILE": TILE}]}
MOST_Z = 65535  # and its third, over the batch; the kernel walks on from there


def fits(a, b, *, transpose_a, transpose_b):
    """Whether the matrices are float32 or float64 and small enough for 32-bit indices."""
    real = is_real(a, b)
    if real is not True:
        return real
    M = a.shape[-1] if transpose_a else a.shape[-2]
    if max(prod(a.shape[-2:]), prod(b.shape[-2:])) >= 2**31 or M > MOST_ROWS:
        return f"it takes matrices of fewer than 2**31 elements and {MOST_ROWS} rows"
    return True


@kernel("matmul.forward", backend="cupy", variant="naive", when=fits)
def matmul_forward_naive(a, b, *, transpose_a, transpose_b):
    """One thread an element, neighbouring threads along the rows."""
    return _run("matmul_forward_naive", a, b, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="coalesced", when=fits)
def matmul_forward_coalesced(a, b, *, transpose_a, transpose_b):
    """One thread an element, neighbouring threads along the columns."""
    return _run("matmul_forward_coalesced", a, b, transpose_a, transpose_b)


@kernel("matmul.forward", backend="cupy", variant="tiled", when=fits)
def matmul_forward_tiled(a, b, *, transpose_a, transpose_b):
    """A block walks along K with a tile of a and a tile of b in shared memory."""
    return _run("matmul_forward_tiled", a, b, transpose_a, transpose_b)


def _run(name, a, b, transpose_a, transpose_b):
    batch = broadcast_batch(a.shape[:-2], b.shape[:-2])
    a, a_batch = _batched(a, batch)
    b, b_batch = _batched(b, batch)
    (M, K), (a_row, a_col) = _steps(a, transpose_a)
    (_, N), (b_row, b_col) = _steps(b, transpose_b)
    y = empty((*batch, M, N), a)
    count = prod(batch)
    grid = (cdiv(N, TILE), cdiv(M, TILE), min(count, MOST_Z))
    arguments = (y, a, b, M, N, K, a_row, a_col, b_row, b_col, a_batch, b_batch, count)
    getattr(kernels("matmul", a, TILE=TILE), name)(grid, (TILE, TILE), arguments)
    return y


def _steps(a, transpose):
    """Rows and columns of a matrix as the product sees it, and the step in memory along each."""
    rows, cols = a.shape[-2:]
    return ((cols, rows), (1, cols)) if transpose else ((rows, cols), (cols, 1))


def _batched(a, batch):
    """The matrices in C order, and the step from one of the batch to the next: 0 where one matrix serves all."""
    if prod(a.shape[:-2]) == 1:
        return contiguous(a), 0
    if a.shape[:-2] != batch:  # some axes are shared and others not: no single step does it
        a = library(a).broadcast_to(a, (*batch, *a.shape[-2:]))
    return contiguous(a), prod(a.shape[-2:])
