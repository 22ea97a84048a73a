"""Launchers of kernels that work on rows (rows.cuh): what the rungs of softmax, log_softmax and cross_entropy share.

Along one axis an array is seen as (outer, D, inner): outer * inner rows of D elements, ``inner`` apart. The numbers of
threads here are those that the kernels are compiled for; KEPT, STEP and LONG are spelled in bytes.
"""

from math import prod
from typing import Any, NamedTuple

from gpunet import cuda

from .launching import THREADS, contiguous, empty, is_real, kernels
from .shapes import cdiv

WARP = 32
KEPT = 128  # bytes of a row that a thread keeps in registers, where it loads 16 at a time
KEPT_SINGLE = 64  # and where it loads single elements
STEP = 64  # bytes that a thread takes at once where it walks along a row
LONG = 4096  # threads of a block that walks along a row, times the bytes of an element
WARPS = 128  # threads of a block whose warps have rows of their own
COLUMNS = 512  # and at most of one whose columns have
BLOCK = 1024
MOST_D = 2**30  # positions in a row are counted in 32 bits
PARTS = 256  # segments of a row at most: a block adds up what they leave, one a thread


class Lines(NamedTuple):
    """How an array lies along one axis."""

    outer: int
    D: int
    inner: int

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.outer * self.inner


def lines(shape: tuple[int, ...], axis: int) -> Lines:
    """The rows of an array along an axis."""
    return Lines(prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))


def power(least: int) -> int:
    """The smallest power of two that is not below ``least``."""
    return 1 << max(least - 1, 0).bit_length()


def is_wide(D: int, *arrays: Any) -> bool:
    """Whether rows of D neighbours can be loaded by 16 bytes: arrays begin at a multiple of it, and so do all rows."""
    return D * arrays[0].itemsize % 16 == 0 and not any(cuda.address(each) % 16 for each in arrays)


def lanes(D: int, itemsize: int, wide: bool) -> int:
    """Lanes of a warp for a row of D elements: two loads each, so that short rows leave none idle, or all 32."""
    return min(WARP, power(cdiv(D * itemsize, 32 if wide else 2 * itemsize)))


def parts_of(rows: int, D: int, like: Any) -> int:
    """Segments of a row that occupy all multiprocessors twice, none shorter than one step of a block."""
    wanted = cdiv(2 * cuda.multiprocessors(like), max(rows, 1))
    return max(1, min(PARTS, wanted, D * like.itemsize // (THREADS * STEP)))


def columns(rows: int, D: int, like: Any, kept: int, most: int) -> tuple[int, int]:
    """A block (rows, threads a row) for rows whose elements are apart.

    More threads a row where one could not keep its D elements, ``kept`` each, or where rows are too few for the GPU.
    """
    share, busy = 1, 1024 * cuda.multiprocessors(like)
    while share * WARP < most and (share * kept < D or (share * 4 < D and share * rows < busy)):
        share *= 2
    return max(WARP, WARPS // share), share


# -- when a rung can, and when it pays; for the entries of softmax and log_softmax ------------------------------------


def takes(*arrays: Any, axis: int) -> bool | str:
    """Whether the arrays are of one dtype, float32 or float64, and rows short enough to be counted in 32 bits."""
    real = is_real(*arrays)
    if real is not True:
        return real
    return arrays[-1].shape[axis] < MOST_D or f"it takes rows of fewer than {MOST_D} elements"


def takes_neighbours(*arrays: Any, axis: int) -> bool | str:
    """Whether, besides, the elements of a row are neighbours."""
    fine = takes(*arrays, axis=axis)
    if fine is not True:
        return fine
    return prod(arrays[-1].shape[axis + 1 :]) == 1 or "it takes rows along the last axis"


def takes_short(*arrays: Any, axis: int) -> bool | str:
    """Whether, besides, a warp can keep a row of each array in its registers."""
    fine = takes_neighbours(*arrays, axis=axis)
    if fine is not True:
        return fine
    most = WARP * KEPT // len(arrays) // arrays[-1].itemsize
    return arrays[-1].shape[axis] <= most or f"it takes rows of at most {most} elements"


def apart(*arrays: Any, axis: int) -> bool | str:
    """Pays where the elements of a row are not neighbours."""
    return prod(arrays[-1].shape[axis + 1 :]) > 1 or "it pays where axes follow the row's"


def long(*arrays: Any, axis: int) -> bool | str:
    """Pays for rows that a warp could not keep."""
    return takes_short(*arrays, axis=axis) is not True or "it pays for rows that a warp cannot keep in registers"


def few(*arrays: Any, axis: int) -> bool | str:
    """Pays for long rows, fewer than half the multiprocessors."""
    x = arrays[-1]
    return is_few(prod(x.shape[:axis]), x.shape[axis], x) or "it pays for few long rows"


def is_few(rows: int, D: int, like: Any) -> bool:
    """Whether rows of D neighbours would leave half the multiprocessors idle, and are worth a second launch."""
    return D * like.itemsize >= 65536 and 2 * rows <= cuda.multiprocessors(like)


# -- launches of softmax and log_softmax: op, entry, axis, inputs ------------------------------------------------------


class _Call:
    """One call: inputs in C order, the output, and the rows. The last input has the output's shape."""

    def __init__(self, op: str, entry: str, axis: int, arrays: tuple[Any, ...]):
        self.name = f"{op}_{entry}"
        self.arrays = tuple(contiguous(each) for each in arrays)
        self.like = self.arrays[-1]
        self.out = empty(self.like.shape, self.like)
        self.lines = lines(self.like.shape, axis)
        self.wide = is_wide(self.lines.D, *self.arrays)
        self.kernels = kernels(op, self.like)

    def kept(self, most: int) -> int:
        """Elements of each array that a thread keeps, out of ``most`` bytes for all of them."""
        return most // len(self.arrays) // self.like.itemsize

    def launch(self, rung: str, grid: int, block: tuple[int, ...], *arguments: Any) -> Any:
        """Launches a kernel, unless there is nothing to compute; returns the output."""
        if self.out.size:
            getattr(self.kernels, f"{self.name}_{rung}")((grid,), block, arguments)
        return self.out


def plain(op: str, entry: str, axis: int, *arrays: Any) -> Any:
    """One thread a row."""
    call = _Call(op, entry, axis, arrays)
    rows, (_, D, inner) = call.lines.rows, call.lines
    return call.launch("plain", cdiv(rows, THREADS), (THREADS,), call.out, *call.arrays, rows, D, inner)


def coalesced(op: str, entry: str, axis: int, *arrays: Any) -> Any:
    """Neighbouring threads on neighbouring rows."""
    call = _Call(op, entry, axis, arrays)
    rows, (_, D, inner) = call.lines.rows, call.lines
    kept = call.kept(KEPT_SINGLE)
    block = columns(rows, D, call.like, kept, COLUMNS)
    rung = "coalesced"
    if block[1] * kept < D:
        rung, block = "coalesced_long", columns(rows, D, call.like, kept, LONG // 2 // call.like.itemsize)
    return call.launch(rung, cdiv(rows, block[0]), block, call.out, *call.arrays, rows, D, inner)


def warp(op: str, entry: str, axis: int, *arrays: Any) -> Any:
    """Some lanes of a warp a row."""
    call = _Call(op, entry, axis, arrays)
    outer, D, _ = call.lines
    width = lanes(D, call.like.itemsize, call.wide)
    grid = cdiv(outer, WARPS // width)
    return call.launch("warp", grid, (WARPS,), call.out, *call.arrays, outer, D, width, call.wide)


def block(op: str, entry: str, axis: int, *arrays: Any) -> Any:
    """A block a row."""
    call = _Call(op, entry, axis, arrays)
    outer, D, _ = call.lines
    kept = call.kept(KEPT if call.wide else KEPT_SINGLE)
    if kept * BLOCK >= D:
        rung, threads = "block", max(WARPS, power(cdiv(D, kept)))
    else:
        rung, threads = "block_long", LONG // call.like.itemsize
    return call.launch(rung, outer, (threads,), call.out, *call.arrays, D, call.wide)


def split(op: str, entry: str, axis: int, *arrays: Any) -> Any:
    """Several blocks a row: first what each leaves, a maximum (forward) and a sum, then the output."""
    call = _Call(op, entry, axis, arrays)
    outer, D, _ = call.lines
    parts = parts_of(outer, D, call.like)
    left = [empty((outer * parts,), call.like)] if entry == "forward" else []
    left.append(empty((outer * parts,), call.like, "float64"))
    call.launch("split", outer * parts, (THREADS,), *left, *call.arrays, D, parts, call.wide)
    write = (call.out, *call.arrays, *left, D, parts, call.wide)
    return call.launch("split_write", outer * parts, (THREADS,), *write)
