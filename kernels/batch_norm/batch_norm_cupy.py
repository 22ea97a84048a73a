"""batch_norm on CUDA C++: launchers of batch_norm.cu, for a GPU and for sim."""
# op: gpunet/ops/batch_norm.py

from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"batch_norm": [{}]}

WARP, TALL = 32, 8  # a block over columns: 32 columns, 8 rows of threads
SHORT = 16  # rows of fewer values are taken as columns: a row would fill a part of each line of memory that it touches
ROUND = 16  # values, or 16 bytes, that a thread takes in one round
WAVE = 32  # blocks a multiprocessor that a grid aims at: more than run at a time, so that the last ones even out
HELD = 65536 - 8 * WARP  # bytes of a channel in shared memory beside the sums; every GPU here has 64 KB a block
MOST_ROWS = 2048  # of columns that one block takes alone


class Sizes(NamedTuple):
    """x as (N, C, S)."""

    N: int
    C: int
    S: int


class Cut(NamedTuple):
    """How a kernel's blocks share x: see batch_norm.cu, above its struct Walk."""

    grid: tuple[int, int]
    chunk: int
    columns: bool


def sizes_of(x):
    """(N, C, S) of x, with N = 0 wherever there are no values."""
    N, C, S = x.shape[0], x.shape[1], prod(x.shape[2:])
    return Sizes(N, C, S) if x.size else Sizes(0, C, 1)


def cut(x, width):
    """The cut of x for steps of ``width`` neighbours; short rows are taken as columns where width is 1."""
    N, C, S = sizes_of(x)
    columns = width == 1 and S < SHORT
    groups, steps, span = (cdiv(C * S, WARP), N, TALL) if columns else (C, N * S // width, THREADS)
    parts = cdiv(WAVE * cuda.multiprocessors(x), max(groups, 1))
    rounds = max(cdiv(steps, parts * span), ROUND // width)
    chunk = rounds * span
    return Cut((groups, cdiv(steps, chunk)), chunk, columns)


def is_small(x, *rest):
    """Whether the arrays are of one dtype, and the sizes leave room in 32 bits for an index into a channel."""
    real = is_real(x, *rest)
    if real is not True:
        return real
    N, C, S = sizes_of(x)
    return max(N * S, C * S) < 2**30 or "it takes channels and images of fewer than 2**30 values"


def has_packs(x, *rest):
    """Whether every row begins at a multiple of 16 bytes."""
    small = is_small(x, *rest)
    wide = is_wide(x, *rest) if small is True else small
    if wide is not True:
        return wide
    return sizes_of(x).S * x.itemsize % 16 == 0 or "it needs rows (elements after the channel axis) of whole 16 bytes"


def is_long(x, *_rest, **_params):
    """Rows of 16 values at least: shorter ones are read better as columns."""
    return sizes_of(x).S >= SHORT


def when_small(x, w, b, *, eps):
    """As is_small."""
    return is_small(x, w, b)


def when_packs(x, w, b, *, eps):
    """As has_packs, of the large array alone."""
    return is_real(x, w, b) if is_real(x, w, b) is not True else has_packs(x)


def when_held(x, w, b, *, eps):
    """Whether a channel fits into shared memory; or has one value a row, which needs none."""
    small = is_small(x, w, b)
    if small is not True:
        return small
    N, _, S = sizes_of(x)
    return S == 1 or N * S * x.itemsize <= HELD or f"it takes channels of at most {HELD} bytes"


def pays_held(x, w, b, *, eps):
    """Few rows where a block walks down 32 columns: many would leave most of the GPU idle."""
    N, _, S = sizes_of(x)
    return S > 1 or N <= MOST_ROWS


# -- forward


@kernel("batch_norm.forward", backend="cupy", variant="plain", when=lambda x, w, b, *, eps: is_real(x, w, b))
def batch_norm_forward_plain(x, w, b, *, eps):
    """One block a channel, three passes."""
    x, w, b = _contiguous(x, w, b)
    N, C, S = sizes_of(x)
    y, mean, var, invstd = empty(x.shape, x), *_channels(3, x)
    arguments = (y, mean, var, invstd, x, w, b, C, S, N * S, eps)
    kernels("batch_norm", x).batch_norm_forward_plain((C,), (THREADS,), arguments)
    return y, mean, var, invstd


@kernel("batch_norm.forward", backend="cupy", variant="split", when=when_small)
def batch_norm_forward_split(x, w, b, *, eps):
    """Statistics of the parts of each channel, their combination, then the values."""
    return _forward("batch_norm_forward_split", 1, x, w, b, eps)


@kernel("batch_norm.forward", backend="cupy", variant="vectorised", when=when_packs, pays=is_long)
def batch_norm_forward_vectorised(x, w, b, *, eps):
    """As split, 16 bytes at a time."""
    return _forward("batch_norm_forward_vectorised", 16 // x.itemsize, x, w, b, eps)


def _forward(name, width, x, w, b, eps):
    x, w, b = _contiguous(x, w, b)
    N, C, S = sizes_of(x)
    grid, chunk, columns = cut(x, width)
    y, mean, var, invstd = empty(x.shape, x), *_channels(3, x)
    scale, shift = _channels(2, x)
    slots = S if columns else 1
    partial = empty((4, grid[1], C * slots), x, np.float64)
    file = kernels("batch_norm", x)
    first = file.batch_norm_forward_split_columns if columns else getattr(file, name)
    first(grid, (THREADS,), (partial, x, N, C, S, chunk))
    arguments = (mean, var, invstd, scale, shift, partial, w, b, C, grid[1], slots, eps)
    file.batch_norm_forward_split_combine((cdiv(C, THREADS // WARP),), (THREADS,), arguments)
    last = (columns,) if width == 1 else ()
    getattr(file, name + "_values")(grid, (THREADS,), (y, x, mean, scale, shift, N, C, S, chunk, *last))
    return y, mean, var, invstd


@kernel("batch_norm.forward", backend="cupy", variant="resident", when=when_held, pays=pays_held)
def batch_norm_forward_resident(x, w, b, *, eps):
    """One launch: a block holds a channel, or walks down 32 columns."""
    x, w, b = _contiguous(x, w, b)
    N, C, S = sizes_of(x)
    y, mean, var, invstd = outputs = (empty(x.shape, x), *_channels(3, x))
    file = kernels("batch_norm", x)
    if S == 1:
        block = min(32 * WARP, max(TALL, cdiv(N, 4)) * WARP)
        arguments = (y, mean, var, invstd, x, w, b, N, C, eps)
        file.batch_norm_forward_resident_columns((cdiv(C, WARP),), (block,), arguments)
    else:
        arguments = (y, mean, var, invstd, x, w, b, N, C, S, has_packs(x) is True, eps)
        file.batch_norm_forward_resident((C,), (2 * THREADS,), arguments, 8 * WARP + N * S * x.itemsize)
    return outputs


# -- forward_eval


@kernel(
    "batch_norm.forward_eval",
    backend="cupy",
    variant="plain",
    when=lambda x, mean, var, w, b, *, eps: is_real(x, mean, var, w, b),
)
def batch_norm_forward_eval_plain(x, mean, var, w, b, *, eps):
    """One block a channel."""
    x, mean, var, w, b = _contiguous(x, mean, var, w, b)
    N, C, S = sizes_of(x)
    y = empty(x.shape, x)
    arguments = (y, x, mean, var, w, b, C, S, N * S, eps)
    kernels("batch_norm", x).batch_norm_forward_eval_plain((C,), (THREADS,), arguments)
    return y


@kernel(
    "batch_norm.forward_eval",
    backend="cupy",
    variant="split",
    when=lambda x, mean, var, w, b, *, eps: is_small(x, mean, var, w, b),
)
def batch_norm_forward_eval_split(x, mean, var, w, b, *, eps):
    """Each channel over several blocks."""
    x, mean, var, w, b = _contiguous(x, mean, var, w, b)
    y = empty(x.shape, x)
    _each("batch_norm_forward_eval_split", 1, x, (y, x, mean, var, w, b), eps)
    return y


@kernel(
    "batch_norm.forward_eval",
    backend="cupy",
    variant="vectorised",
    when=lambda x, mean, var, w, b, *, eps: _packed((x,), (mean, var, w, b)),
    pays=is_long,
)
def batch_norm_forward_eval_vectorised(x, mean, var, w, b, *, eps):
    """As split, 16 bytes at a time."""
    x, mean, var, w, b = _contiguous(x, mean, var, w, b)
    y = empty(x.shape, x)
    _each("batch_norm_forward_eval_vectorised", 16 // x.itemsize, x, (y, x, mean, var, w, b), eps)
    return y


# -- grad_wb


@kernel("batch_norm.grad_wb", backend="cupy", variant="plain", when=is_real)
def batch_norm_grad_wb_plain(gy, x, mean, invstd):
    """One block a channel."""
    gy, x, mean, invstd = _contiguous(gy, x, mean, invstd)
    N, C, S = sizes_of(x)
    gw, gb = _channels(2, x)
    arguments = (gw, gb, gy, x, mean, invstd, C, S, N * S)
    kernels("batch_norm", x).batch_norm_grad_wb_plain((C,), (THREADS,), arguments)
    return gw, gb


@kernel("batch_norm.grad_wb", backend="cupy", variant="split", when=is_small)
def batch_norm_grad_wb_split(gy, x, mean, invstd):
    """Sums of the parts of each channel, then their sums."""
    return _grad_wb("batch_norm_grad_wb_split", 1, gy, x, mean, invstd)


@kernel(
    "batch_norm.grad_wb",
    backend="cupy",
    variant="vectorised",
    when=lambda gy, x, mean, invstd: _packed((gy, x), (mean, invstd)),
    pays=is_long,
)
def batch_norm_grad_wb_vectorised(gy, x, mean, invstd):
    """As split, 16 bytes at a time."""
    return _grad_wb("batch_norm_grad_wb_vectorised", 16 // x.itemsize, gy, x, mean, invstd)


def _grad_wb(name, width, gy, x, mean, invstd):
    gy, x, mean, invstd = _contiguous(gy, x, mean, invstd)
    N, C, S = sizes_of(x)
    grid, chunk, columns = cut(x, width)
    gw, gb = _channels(2, x)
    slots = S if columns else 1
    partial = empty((2, grid[1], C * slots), x, np.float64)
    file = kernels("batch_norm", x)
    first = file.batch_norm_grad_wb_split_columns if columns else getattr(file, name)
    first(grid, (THREADS,), (partial, gy, x, mean, N, C, S, chunk))
    arguments = (gw, gb, partial, invstd, C, grid[1], slots)
    file.batch_norm_grad_wb_split_combine((cdiv(C, THREADS // WARP),), (THREADS,), arguments)
    return gw, gb


# -- grad_x and grad_x_eval


@kernel("batch_norm.grad_x", backend="cupy", variant="plain", when=is_real)
def batch_norm_grad_x_plain(gy, x, w, mean, invstd, gw, gb):
    """One block a channel."""
    gy, x, w, mean, invstd, gw, gb = _contiguous(gy, x, w, mean, invstd, gw, gb)
    N, C, S = sizes_of(x)
    gx = empty(x.shape, x)
    arguments = (gx, gy, x, w, mean, invstd, gw, gb, C, S, N * S)
    kernels("batch_norm", x).batch_norm_grad_x_plain((C,), (THREADS,), arguments)
    return gx


@kernel("batch_norm.grad_x", backend="cupy", variant="split", when=is_small)
def batch_norm_grad_x_split(gy, x, w, mean, invstd, gw, gb):
    """Each channel over several blocks."""
    given = _contiguous(gy, x, w, mean, invstd, gw, gb)
    gx = empty(x.shape, x)
    _each("batch_norm_grad_x_split", 1, x, (gx, *given))
    return gx


@kernel(
    "batch_norm.grad_x",
    backend="cupy",
    variant="vectorised",
    when=lambda gy, x, w, mean, invstd, gw, gb: _packed((gy, x), (w, mean, invstd, gw, gb)),
    pays=is_long,
)
def batch_norm_grad_x_vectorised(gy, x, w, mean, invstd, gw, gb):
    """As split, 16 bytes at a time."""
    given = _contiguous(gy, x, w, mean, invstd, gw, gb)
    gx = empty(x.shape, x)
    _each("batch_norm_grad_x_vectorised", 16 // x.itemsize, x, (gx, *given))
    return gx


@kernel("batch_norm.grad_x_eval", backend="cupy", variant="plain", when=is_real)
def batch_norm_grad_x_eval_plain(gy, w, invstd):
    """One block a channel."""
    gy, w, invstd = _contiguous(gy, w, invstd)
    N, C, S = sizes_of(gy)
    gx = empty(gy.shape, gy)
    arguments = (gx, gy, w, invstd, C, S, N * S)
    kernels("batch_norm", gy).batch_norm_grad_x_eval_plain((C,), (THREADS,), arguments)
    return gx


@kernel("batch_norm.grad_x_eval", backend="cupy", variant="split", when=is_small)
def batch_norm_grad_x_eval_split(gy, w, invstd):
    """Each channel over several blocks."""
    given = _contiguous(gy, w, invstd)
    gx = empty(gy.shape, gy)
    _each("batch_norm_grad_x_eval_split", 1, gy, (gx, *given))
    return gx


@kernel(
    "batch_norm.grad_x_eval",
    backend="cupy",
    variant="vectorised",
    when=lambda gy, w, invstd: _packed((gy,), (w, invstd)),
    pays=is_long,
)
def batch_norm_grad_x_eval_vectorised(gy, w, invstd):
    """As split, 16 bytes at a time."""
    given = _contiguous(gy, w, invstd)
    gx = empty(gy.shape, gy)
    _each("batch_norm_grad_x_eval_vectorised", 16 // gy.itemsize, gy, (gx, *given))
    return gx


def _each(name, width, x, arrays, *rest):
    """Launches an element-wise kernel over x, cut into steps of ``width``."""
    grid, chunk, columns = cut(x, width)
    last = (columns, *rest) if width == 1 else rest
    getattr(kernels("batch_norm", x), name)(grid, (THREADS,), (*arrays, *sizes_of(x), chunk, *last))


def _packed(large, small):
    """has_packs of the large arrays; the small ones, a value a channel, may begin anywhere."""
    real = is_real(*large, *small)
    return has_packs(*large) if real is True else real


def _channels(count, x):
    """That many unwritten arrays of a value a channel."""
    return tuple(empty(x.shape[1:2], x) for _ in range(count))


def _contiguous(*arrays: Any) -> tuple[Any, ...]:
    return tuple(None if each is None else contiguous(each) for each in arrays)
