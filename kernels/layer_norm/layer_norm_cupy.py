"""layer_norm on CUDA C++: launchers of layer_norm.cu, for a GPU and for sim."""
# op: gpunet/ops/layer_norm.py

from typing import Any

import numpy as np

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"layer_norm": [{}]}

WARP, TALL = 32, 8  # a block over columns: 32 of them, or of 16 bytes, and 8 rows of threads
RUN = 8  # rows that such a thread takes at a time
SHORT, LONG = 256, 1024  # values of a row that fit a warp's registers, at 8 and at 32 a thread
HELD = 65536 - 8 * WARP  # bytes of rows in shared memory beside the sums; every GPU here has 64 KB a block
WIDE_BLOCK = 4096  # values of a row from which 512 threads share it
PER_MULTIPROCESSOR = 8  # blocks over columns


def fits(*arrays):
    """Whether the arrays are of one dtype, and a row leaves room in 32 bits for an index."""
    real = is_real(*arrays)
    if real is not True:
        return real
    return max(arrays[0].shape) < 2**30 or "it takes fewer than 2**30 rows, of fewer than 2**30 values"


def fits_warp(x, *rest):
    """Whether a row fits into a warp's registers."""
    real = is_real(x, *rest)
    if real is not True:
        return real
    return 1 <= x.shape[1] <= LONG or f"it takes rows of 1 to {LONG} values"


def has_packs(wide, others=()):
    """Whether ``wide``, a matrix and what goes with its rows, can be read by 16 bytes; others may begin anywhere."""
    real = fits(*wide, *others)
    aligned = is_wide(*wide) if real is True else real
    if aligned is not True:
        return aligned
    x = wide[0]
    return (x.shape[1] > 0 and x.shape[1] * x.itemsize % 16 == 0) or "it needs rows of whole 16 bytes"


# -- forward


@kernel("layer_norm.forward", backend="cupy", variant="plain", when=lambda x, w, b, *, eps: fits(x, w, b))
def layer_norm_forward_plain(x, w, b, *, eps):
    """One block a row, three passes."""
    x, w, b, outputs, (R, D) = _forward(x, w, b)
    kernels("layer_norm", x).layer_norm_forward_plain((R,), (THREADS,), (*outputs, x, w, b, R, D, eps))
    return outputs


@kernel("layer_norm.forward", backend="cupy", variant="warp", when=lambda x, w, b, *, eps: fits_warp(x, w, b))
def layer_norm_forward_warp(x, w, b, *, eps):
    """A warp a row."""
    x, w, b, outputs, (R, D) = _forward(x, w, b)
    name = "layer_norm_forward_warp" + ("_short" if D <= SHORT else "")
    _over_warps(name, x, (*outputs, x, w, b, R, D, eps))
    return outputs


@kernel("layer_norm.forward", backend="cupy", variant="vectorised", when=lambda x, w, b, *, eps: has_packs((x, w, b)))
def layer_norm_forward_vectorised(x, w, b, *, eps):
    """A warp a row up to 1024 values, a block a row beyond; 16 bytes at a time."""
    x, w, b, outputs, (R, D) = _forward(x, w, b)
    if D > LONG:
        held, block, shared = _room(x, 1)
        arguments = (*outputs, x, w, b, R, D, held, eps)
        kernels("layer_norm", x).layer_norm_forward_vectorised_long((R,), (block,), arguments, shared)
    else:
        name = "layer_norm_forward_vectorised" + ("_short" if D <= SHORT else "")
        _over_warps(name, x, (*outputs, x, w, b, R, D, eps))
    return outputs


def _forward(x, w, b):
    x, w, b = _contiguous(x, w, b)
    return x, w, b, (empty(x.shape, x), empty(x.shape[:1], x), empty(x.shape[:1], x)), x.shape


# -- grad_wb


@kernel("layer_norm.grad_wb", backend="cupy", variant="plain", when=fits)
def layer_norm_grad_wb_plain(gy, x, mean, invstd):
    """One thread a column."""
    gy, x, mean, invstd = _contiguous(gy, x, mean, invstd)
    R, D = x.shape
    gw, gb = empty((D,), x), empty((D,), x)
    arguments = (gw, gb, gy, x, mean, invstd, R, D)
    kernels("layer_norm", x).layer_norm_grad_wb_plain((cdiv(D, THREADS),), (THREADS,), arguments)
    return gw, gb


@kernel("layer_norm.grad_wb", backend="cupy", variant="split", when=fits)
def layer_norm_grad_wb_split(gy, x, mean, invstd):
    """Sums of parts of the rows, then their sums."""
    return _grad_wb("layer_norm_grad_wb_split", 1, gy, x, mean, invstd)


@kernel(
    "layer_norm.grad_wb",
    backend="cupy",
    variant="vectorised",
    when=lambda gy, x, mean, invstd: has_packs((x, gy), (mean, invstd)),
)
def layer_norm_grad_wb_vectorised(gy, x, mean, invstd):
    """As split, 16 bytes of columns a thread."""
    return _grad_wb("layer_norm_grad_wb_vectorised", 16 // x.itemsize, gy, x, mean, invstd)


def _grad_wb(name, width, gy, x, mean, invstd):
    gy, x, mean, invstd = _contiguous(gy, x, mean, invstd)
    R, D = x.shape
    groups = cdiv(D, WARP * width)
    most = cdiv(PER_MULTIPROCESSOR * cuda.multiprocessors(x), max(groups, 1))
    chunk = max(1, cdiv(R, most * TALL * RUN)) * TALL * RUN
    parts = cdiv(R, chunk)
    partial = empty((2, parts, D), x, np.float64)
    gw, gb = empty((D,), x), empty((D,), x)
    file = kernels("layer_norm", x)
    getattr(file, name)((groups, parts), (THREADS,), (partial, gy, x, mean, invstd, R, D, chunk))
    file.layer_norm_grad_wb_split_combine((cdiv(D, WARP),), (THREADS,), (gw, gb, partial, D, parts))
    return gw, gb


# -- grad_x


@kernel("layer_norm.grad_x", backend="cupy", variant="plain", when=fits)
def layer_norm_grad_x_plain(gy, x, w, mean, invstd):
    """One block a row, two passes."""
    given, gx, (R, D) = _grad_x(gy, x, w, mean, invstd)
    kernels("layer_norm", x).layer_norm_grad_x_plain((R,), (THREADS,), (gx, *given, R, D))
    return gx


@kernel(
    "layer_norm.grad_x",
    backend="cupy",
    variant="warp",
    when=lambda gy, x, w, mean, invstd: fits_warp(x, gy, w, mean, invstd),
)
def layer_norm_grad_x_warp(gy, x, w, mean, invstd):
    """A warp a row."""
    given, gx, (R, D) = _grad_x(gy, x, w, mean, invstd)
    name = "layer_norm_grad_x_warp" + ("_short" if D <= SHORT else "")
    _over_warps(name, x, (gx, *given, R, D))
    return gx


@kernel(
    "layer_norm.grad_x",
    backend="cupy",
    variant="vectorised",
    when=lambda gy, x, w, mean, invstd: has_packs((x, gy, w), (mean, invstd)),
)
def layer_norm_grad_x_vectorised(gy, x, w, mean, invstd):
    """A warp a row up to 1024 values, a block a row beyond; 16 bytes at a time."""
    given, gx, (R, D) = _grad_x(gy, x, w, mean, invstd)
    if D > LONG:
        held, block, shared = _room(x, 2)
        arguments = (gx, *given, R, D, held)
        kernels("layer_norm", x).layer_norm_grad_x_vectorised_long((R,), (block,), arguments, shared)
    else:
        name = "layer_norm_grad_x_vectorised" + ("_short" if D <= SHORT else "")
        _over_warps(name, x, (gx, *given, R, D))
    return gx


def _grad_x(gy, x, w, mean, invstd):
    return _contiguous(gy, x, w, mean, invstd), empty(x.shape, x), x.shape


def _over_warps(name, x, arguments):
    """Launches a kernel that gives each row a warp."""
    grid = (cdiv(x.shape[0], THREADS // WARP),)
    getattr(kernels("layer_norm", x), name)(grid, (THREADS,), arguments)


def _room(x, rows):
    """Whether that many rows fit into shared memory, the threads of a block, and its bytes of shared memory."""
    D = x.shape[1]
    held = rows * D * x.itemsize <= HELD
    return held, THREADS if D < WIDE_BLOCK else 2 * THREADS, 8 * WARP + (rows * D * x.itemsize if held else 0)


def _contiguous(*arrays: Any) -> tuple[Any, ...]:
    return tuple(None if each is None else contiguous(each) for each in arrays)
