"""conv2d on CUDA C++: launchers of implicit_gemm.cu, for a GPU and for sim."""
# op: gpunet/ops/conv2d.py

from functools import lru_cache
from math import gcd
from typing import NamedTuple

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, kernels
from ..common.shapes import cdiv, conv_out_size

BUILDS = {"conv2d/implicit_gemm": [{}]}

BK = 8  # as in the .cu file
MOST = 2**31 - 2**17  # elements that 32-bit indices reach, with room for the tile in which they end
MOST_Y = 65535  # the grid's second and third axes end there
SCRATCH = 256 * 2**20  # bytes that the parts of sums may take

# On an H200 in float32 60 TF stand beside 4.3 TB/s: 56 flop in the time of moving one element, and half of it on
# elements twice as wide in float64. A multiprocessor, of 132, has a million in the time of a launch more. Only the
# choice of tiles and parts depends on it.
FLOPS_PER_ELEMENT = 56
FLOPS_OF_LAUNCH = 2**20


class Tile(NamedTuple):
    """One shape of a block's tile."""

    suffix: str
    """Of the kernel's name."""
    rows: int
    packs: int
    """Columns are as many packs of 16 bytes."""
    threads: int
    speed: float
    """Products in the time of one, beside the widest tile: the smaller ones read shared memory more often."""


TILES = (Tile("", 128, 32, 256, 1.0), Tile("_64", 64, 32, 128, 0.97), Tile("_64x64", 64, 16, 128, 0.88))


@lru_cache(4096)
def best(rows, columns, steps, lanes, many, multiprocessors, most):
    """The tile for ``many`` matrices of rows x columns, and in how many parts to take their sums of ``steps`` steps.

    It is the choice with the least work for the multiprocessor that has most of it. ``most`` limits the parts.
    """

    def cost(choice):
        tile, parts = choice
        blocks = count(tile, rows, columns, lanes) * many * parts
        products = _load(tile, blocks, multiprocessors, lanes) * (cdiv(steps, parts) + BK) * BK
        moved = 2 * parts * rows * columns * many if parts > 1 else 0
        return 2 * products + FLOPS_PER_ELEMENT * moved / multiprocessors + FLOPS_OF_LAUNCH * (parts > 1)

    choices = []
    for tile in TILES:
        full = cdiv(8 * multiprocessors, count(tile, rows, columns, lanes) * many)
        choices += [(tile, parts) for parts in range(1, max(1, min(full, steps, most, MOST_Y)) + 1)]
    return min(choices, key=cost)


def count(tile, rows, columns, lanes):
    """Tiles of one matrix."""
    return cdiv(rows, tile.rows) * cdiv(columns, tile.packs * lanes)


def _load(tile, blocks, multiprocessors, lanes):
    """Elements of the tiles of one multiprocessor, as far as it has enough threads to be busy: 256."""
    most = max(cdiv(blocks, multiprocessors), 256 // tile.threads)
    return most * tile.rows * tile.packs * lanes / tile.speed


def fits(real, source, result, w_shape, stride, groups):
    """Whether indices of an image and of the weights go with 32 bits; ``source`` and ``result`` are one image's."""
    if real is not True:
        return real
    F, CG, KH, KW = w_shape
    weights = KH * KW * groups * (cdiv(CG, 128) * 128) * (cdiv(F // groups, 128) * 128)
    image = max((each[0] + BK * groups) * each[1] * each[2] for each in (source, result))
    widest = max(cdiv(CG, BK), cdiv(F // groups, BK), groups, stride[0] * stride[1])
    fine = max(weights, image) < MOST and widest <= MOST_Y
    return fine or f"it takes images and weights of fewer than {MOST} elements, and {MOST_Y} groups"


def fits_forward(x, w, b, *, stride, padding, dilation, groups):
    """``when`` of forward and forward_relu."""
    result = w.shape[0], *conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return fits(is_real(x, w, b), x.shape[1:], result, w.shape, (1, 1), groups)


def fits_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """``when`` of grad_x."""
    return fits(is_real(gy, w), gy.shape[1:], (w.shape[1] * groups, *input_size), w.shape, stride, groups)


def fits_grad_w(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """``when`` of grad_w: the sum is over all images, so all of them must go with 32 bits."""
    real = is_real(gy, x)
    if real is not True:
        return real
    columns = x.shape[1] // groups * kernel_size[0] * kernel_size[1]
    fine = max(gy.size, x.size, gy.shape[1] // groups * columns) < MOST and groups <= MOST_Y
    return fine or f"it takes fewer than {MOST} elements in gy and x, and {MOST_Y} groups"


def worth(filters, channels, pixels):
    """Whether a tile and the steps of the sum are filled well enough."""
    if filters >= 16 and channels >= 8 and pixels >= 32:
        return True
    return f"it pays from 16 rows, 8 channels a step and 32 pixels on, got {filters}, {channels} and {pixels}"


def pays_forward(x, w, b, *, stride, padding, dilation, groups):
    """``pays`` of forward and forward_relu."""
    OH, OW = conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    return worth(w.shape[0] // groups, w.shape[1], x.shape[0] * OH * OW)


def pays_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """``pays`` of grad_x: filters are what is summed over."""
    return worth(w.shape[1], w.shape[0] // groups, gy.shape[0] * input_size[0] * input_size[1])


def pays_grad_w(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """``pays`` of grad_w."""
    weights = gy.shape[1] * x.shape[1] // groups**2 * kernel_size[0] * kernel_size[1]
    return weights >= 128 or f"it pays from 128 weights a group on, got {weights}"


@kernel("conv2d.forward", backend="cupy", variant="implicit_gemm", when=fits_forward, pays=pays_forward)
def conv2d_forward_implicit_gemm(x, w, b, *, stride, padding, dilation, groups):
    """The matrix product whose columns are fetched from the images."""
    return _forward(x, w, b, stride, padding, dilation, groups, relu=0)


@kernel("conv2d.forward_relu", backend="cupy", variant="implicit_gemm", when=fits_forward, pays=pays_forward)
def conv2d_forward_relu_implicit_gemm(x, w, b, *, stride, padding, dilation, groups):
    """As forward; the positive part is taken before y is written."""
    return _forward(x, w, b, stride, padding, dilation, groups, relu=1)


@kernel("conv2d.grad_x", backend="cupy", variant="implicit_gemm", when=fits_grad_x, pays=pays_grad_x)
def conv2d_grad_x_implicit_gemm(gy, w, *, input_size, stride, padding, dilation, groups):
    """The same product with gy and transposed weights; with a stride one for each class of pixels."""
    gy, w = contiguous(gy), contiguous(w)
    gx = empty((gy.shape[0], w.shape[1] * groups, *input_size), gy)
    if gx.size == 0:
        return gx
    (OH, OW), (H, W), (KH, KW), (sh, sw), (dh, dw) = gy.shape[2:], input_size, w.shape[2:], stride, dilation
    if (OH, OW) == (H, W) and is_pointwise(gy, w, stride, padding):
        return _pointwise(gx, gy, w, None, groups, turned=True, relu=0)
    pixels, places = cdiv(H, sh) * cdiv(W, sw), cdiv(KH, sh) * cdiv(KW, sw)  # about; of pixels the largest class
    windows = H, W, OH, OW, KH, KW, sh, sw, dh, dw, padding[0], padding[2], sh // gcd(sh, dh), sw // gcd(sw, dw)
    name = "conv2d_grad_x_implicit_gemm"
    return _product(name, gx, gy, w, None, groups, pixels, places, windows, turned=True, classes=sh * sw)


@kernel("conv2d.grad_w", backend="cupy", variant="implicit_gemm", when=fits_grad_w, pays=pays_grad_w)
def conv2d_grad_w_implicit_gemm(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """A product of few elements with a long sum: parts of the sum side by side, added up in order."""
    gy, x = contiguous(gy), contiguous(x)
    (N, F, OH, OW), (_, C, H, W), (KH, KW) = gy.shape, x.shape, kernel_size
    gw, CG, FG = empty((F, C // groups, KH, KW), x), C // groups, F // groups
    most = max(1, SCRATCH // max(gw.nbytes, 1))
    tile, parts = _best(x, FG, CG * KH * KW, cdiv(N * OH * OW, BK), groups, most)
    grid = count(tile, FG, CG * KH * KW, lanes(x)), groups, parts
    sizes = N, CG, FG, H, W, OH, OW, KH, KW, *stride, *dilation, padding[0], padding[2]
    to = gw if parts == 1 else empty((parts, gw.size), x)
    run = getattr(kernels("conv2d/implicit_gemm", x), f"conv2d_grad_w_implicit_gemm{tile.suffix}")
    run(grid, (tile.threads,), (to, gy, x, *sizes))
    if parts > 1:
        add_parts(gw, to, parts)
    return gw


def _forward(x, w, b, stride, padding, dilation, groups, relu):
    x, w, b = contiguous(x), contiguous(w), None if b is None else contiguous(b)
    (N, _, H, W), (F, _, KH, KW) = x.shape, w.shape
    OH, OW = conv_out_size((H, W), (KH, KW), stride, padding, dilation)
    y = empty((N, F, OH, OW), x)
    if y.size == 0:
        return y
    if is_pointwise(x, w, stride, padding):
        return _pointwise(y, x, w, b, groups, turned=False, relu=relu)
    windows, name = (H, W, OH, OW, KH, KW, *stride, *dilation, padding[0], padding[2]), "conv2d_forward_implicit_gemm"
    return _product(name, y, x, w, b, groups, OH * OW, KH * KW, windows, turned=False, relu=relu)


def is_pointwise(x, w, stride, padding):
    """Whether pixel p of the result reads pixel p of x alone, and planes are whole packs of 16 bytes."""
    alone = tuple(w.shape[2:]) == (1, 1) and tuple(stride) == (1, 1) and not any(padding)
    return alone and x.shape[2] * x.shape[3] % lanes(x) == 0 and cuda.address(x) % 16 == 0


def _pointwise(y, x, w, b, groups, turned, relu):
    """The product for a window of one pixel: of forward, and of grad_x with w ``turned``."""
    area = x.shape[2] * x.shape[3]
    return _product("conv2d_forward_implicit_gemm_1x1", y, x, w, b, groups, area, 1, (area,), turned, relu)


def _product(name, y, x, w, b, groups, pixels, places, windows, turned, relu=None, classes=1):
    """Fills y with the products of the kernel ``name``, in as few launches as 32-bit indices allow.

    ``pixels`` are those of an image, or of the largest of its ``classes``; ``windows`` are sizes for the kernel.
    ``relu`` is None for a kernel that takes neither bias nor relu.
    """
    N, channels, rows = x.shape[0], x.shape[1] // groups, y.shape[1] // groups
    most, many = at_once(x, y), groups * classes
    parts = min(SCRATCH // y.nbytes, MOST_Y // classes) if most >= N else 1
    tile, parts = _best(x, rows, min(N, most) * pixels, places * cdiv(channels, BK), many, parts)
    filters, padded = _filters(w, groups, tile, turned)
    run = getattr(kernels("conv2d/implicit_gemm", x), name + tile.suffix)
    to = y if parts == 1 else empty((parts, *y.shape), y)
    last = () if relu is None else (relu if parts == 1 else 0,)
    bias = () if relu is None else (b if parts == 1 else None,)
    for first in range(0, N, most):
        images = min(most, N - first)
        grid = count(tile, rows, images * pixels, lanes(x)), groups, classes * parts
        sizes = images, channels, padded[0], rows, padded[1], *windows
        target = to[first : first + images] if parts == 1 else to
        run(grid, (tile.threads,), (target, x[first : first + images], filters, *bias, *sizes, *last))
    if parts > 1:
        arguments = y, to, b, y.size, parts, y.shape[1], y.shape[2] * y.shape[3], relu or 0
        kernels("conv2d/implicit_gemm", x).conv2d_implicit_gemm_finish((cdiv(y.size, THREADS),), (THREADS,), arguments)
    return y


def _filters(w, groups, tile, turned):
    """The weights as tiles want them, (groups, KH * KW, summed, rows), and the last two sizes, which are padded."""
    F, CG, KH, KW = w.shape
    FG, places = F // groups, KH * KW
    (summed, row), steps = ((FG, CG), (CG * places, places)) if turned else ((CG, FG), (places, CG * places))
    padded = cdiv(summed, BK) * BK, cdiv(row, tile.rows) * tile.rows
    to = empty((groups, places, *padded), w)
    grid = cdiv(padded[1], 32), cdiv(padded[0], 8), groups
    run = kernels("conv2d/implicit_gemm", w).conv2d_implicit_gemm_filters
    run(grid, (32, 8), (to, w, summed, row, *padded, places, *steps))
    return to, padded


def add_parts(total, parts, number):
    """Fills ``total`` with the sum over the ``number`` arrays of its size that ``parts`` holds one behind the other."""
    run = kernels("conv2d", total).conv2d_sum_parts
    run((cdiv(total.size, 32),), (32, 8), (total, parts, total.size, number))


def at_once(x, y):
    """Images of one launch, with 32-bit indices into all of x and over the pixels of y."""
    plane = x.shape[2] * x.shape[3]
    return max(1, min((MOST - BK * plane) // max(x.shape[1] * plane, 1), MOST // max(y.shape[2] * y.shape[3], 1)))


def lanes(x):
    """Elements in 16 bytes."""
    return 16 // x.itemsize


def _best(x, rows, columns, steps, many, most):
    return best(rows, columns, steps, lanes(x), many, cuda.multiprocessors(x), most)
