"""max_pool2d on CUDA C++: launchers of max_pool2d.cu, for a GPU and for sim."""
# op: gpunet/ops/max_pool2d.py

import numpy as np

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"max_pool2d": [{}]}

ROWS = 4  # as in max_pool2d.cu
MOST_Y = 65535  # the grid's second axis ends there
MOST_Z = 65535  # and its third, over the planes: another launch goes on
SMALL = 256  # positions that a byte can tell apart
WIDE = {((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((3, 3), (1, 1), (1, 1))}  # kernel_size, stride, padding

LARGE = {((K, K), (1, 1), (1, 1)) for K in (4, 5)}  # kernel_size, stride, dilation


def in_boxes(run, cols, rows, planes, arrays, sizes):
    """Runs a kernel with one thread for each column, row and plane: blocks of at most THREADS, evenly shared out."""
    x = _even(cols, THREADS)
    y = _even(rows, THREADS // x)
    z = max(1, min(planes, 64, THREADS // (x * y)))  # a block ends at 64 there
    for first in range(0, planes, MOST_Z * z):
        grid = (cdiv(cols, x), cdiv(rows, y), min(cdiv(planes - first, z), MOST_Z))
        run(grid, (x, y, z), (*arrays, first, planes, *sizes))


def _even(count, most):
    """The side of a block, at most ``most``, that covers ``count`` in as few blocks of one size as possible."""
    return cdiv(count, cdiv(count, most))


def plain(*arrays, **windows):
    """Whether the arrays are all float32, or all float64."""
    return is_real(*arrays)


def in_32_bits(input_size, output_size, padding, rows=ROWS):
    """Whether a plane has 32-bit indices, and the grid room for its rows, of which a thread takes ``rows``."""
    (H, W), (OH, OW) = input_size, output_size
    small = max((H + 8) * W, (OH + 8) * OW) < 2**31  # kernels count a few rows beyond the last
    fits = small and max(H + padding[0], OH) <= MOST_Y * rows
    return fits or f"it takes images of fewer than 2**31 pixels and {MOST_Y * rows} rows"


def _rows(real, index_fits, input_size, output_size, padding):
    if real is not True:
        return real
    if not index_fits:
        return f"it takes windows of at most {SMALL} positions"
    return in_32_bits(input_size, output_size, padding)


def rows_forward(x, *, kernel_size, stride, padding, dilation, output_size):
    """Whether windows have at most 256 positions and 32-bit indices do."""
    return _rows(is_real(x), kernel_size[0] * kernel_size[1] <= SMALL, x.shape[2:], output_size, padding)


def rows_grad_x(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """Whether windows have at most 256 positions and 32-bit indices do."""
    return _rows(is_real(gy), index.dtype == np.uint8, input_size, gy.shape[2:], padding)


def rows_gather(x, index, *, kernel_size, stride, padding, dilation):
    """Whether windows have at most 256 positions and 32-bit indices do."""
    return _rows(is_real(x), index.dtype == np.uint8, x.shape[2:], index.shape[2:], padding)


def wide(like, input_size, output_size, kernel_size, stride, padding):
    """Whether windows are of a kind that the rung "wide" has, and rows are whole packs of 16 bytes."""
    aligned = is_wide(like)
    if aligned is not True:
        return aligned
    if (kernel_size, stride, padding) not in WIDE:
        return "it takes 2 x 2 windows at steps of 2, or 3 x 3 at steps of 1 or 2 with padding 1"
    lanes = 16 // like.dtype.itemsize
    if input_size[1] % lanes or output_size[1] % (lanes // stride[1]):
        return f"it takes images whose width is a multiple of {lanes}, and as many windows across"
    return in_32_bits(input_size, output_size, padding, 2)


def wide_forward(x, *, kernel_size, stride, padding, dilation, output_size):
    """Whether windows are of a common kind and rows whole packs of 16 bytes."""
    if dilation != (1, 1):
        return "it takes windows without dilation"
    return wide(x, x.shape[2:], output_size, kernel_size, stride, padding)


def wide_grad_x(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """Whether windows are of a common kind and rows whole packs of 16 bytes."""
    if dilation != (1, 1):
        return "it takes windows without dilation"
    if index.flags.c_contiguous and cuda.address(index) % 16:
        return "it needs arrays that begin at a multiple of 16 bytes"
    return wide(gy, input_size, gy.shape[2:], kernel_size, stride, padding)


@kernel("max_pool2d.forward", backend="cupy", variant="plain", when=plain)
def max_pool2d_forward_plain(x, *, kernel_size, stride, padding, dilation, output_size):
    """One thread an output."""
    x, y, index = _outputs(x, kernel_size, output_size)
    sizes = (y.size, *x.shape[2:], *output_size, *kernel_size, *stride, *padding, *dilation)
    run = kernels("max_pool2d", x).max_pool2d_forward_plain
    run((cdiv(y.size, THREADS),), (THREADS,), (y, *_either(index), x, *sizes))
    return y, index


@kernel("max_pool2d.forward", backend="cupy", variant="rows", when=rows_forward)
def max_pool2d_forward_rows(x, *, kernel_size, stride, padding, dilation, output_size):
    """One thread a few outputs of one column."""
    x, y, index = _outputs(x, kernel_size, output_size)
    planes, (OH, OW) = x.shape[0] * x.shape[1], output_size
    sizes = (*x.shape[2:], OH, OW, *kernel_size, *stride, *padding, *dilation)
    run = kernels("max_pool2d", x).max_pool2d_forward_rows
    if (kernel_size, stride, dilation) in LARGE:
        run = kernels("max_pool2d", x).max_pool2d_forward_rows_large
        sizes = (*x.shape[2:], OH, OW, kernel_size[0], *padding)
    in_boxes(run, OW, cdiv(OH, ROWS), planes, (y, index, x), sizes)
    return y, index


@kernel("max_pool2d.forward", backend="cupy", variant="wide", when=wide_forward)
def max_pool2d_forward_wide(x, *, kernel_size, stride, padding, dilation, output_size):
    """One thread two rows of the outputs that begin in the same 16 bytes."""
    x, y, index = _outputs(x, kernel_size, output_size)
    planes, (OH, OW), S = x.shape[0] * x.shape[1], output_size, stride[0]
    sizes = (*x.shape[2:], OH, OW, kernel_size[0], S)
    run = kernels("max_pool2d", x).max_pool2d_forward_wide
    in_boxes(run, OW * S * x.dtype.itemsize // 16, cdiv(OH, 2), planes, (y, index, x), sizes)
    return y, index


@kernel("max_pool2d.grad_x", backend="cupy", variant="plain", when=plain)
def max_pool2d_grad_x_plain(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """One thread a pixel."""
    gy, index, gx = _pixels(gy, index, input_size)
    sizes = (gx.size, *input_size, *gy.shape[2:], *kernel_size, *stride, *padding, *dilation)
    run = kernels("max_pool2d", gy).max_pool2d_grad_x_plain
    run((cdiv(gx.size, THREADS),), (THREADS,), (gx, gy, *_either(index), *sizes))
    return gx


@kernel("max_pool2d.grad_x", backend="cupy", variant="rows", when=rows_grad_x)
def max_pool2d_grad_x_rows(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """One thread a few pixels of one column."""
    gy, index, gx = _pixels(gy, index, input_size)
    planes, (H, W) = gy.shape[0] * gy.shape[1], input_size
    sizes = (H, W, *gy.shape[2:], *kernel_size, *stride, *padding, *dilation)
    run = kernels("max_pool2d", gy).max_pool2d_grad_x_rows
    if (kernel_size, stride, dilation) in LARGE:
        run = kernels("max_pool2d", gy).max_pool2d_grad_x_rows_large
        sizes = (H, W, *gy.shape[2:], kernel_size[0], *padding)
    in_boxes(run, W, cdiv(H + padding[0], ROWS), planes, (gx, gy, index), sizes)
    return gx


@kernel("max_pool2d.grad_x", backend="cupy", variant="wide", when=wide_grad_x)
def max_pool2d_grad_x_wide(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """One thread a tile of pixels, 16 bytes across."""
    gy, index, gx = _pixels(gy, index, input_size)
    planes, (H, W), S = gy.shape[0] * gy.shape[1], input_size, stride[0]
    sizes = (H, W, *gy.shape[2:], kernel_size[0], S)
    run = kernels("max_pool2d", gy).max_pool2d_grad_x_wide
    in_boxes(run, W * gy.dtype.itemsize // 16, cdiv(H, 2 * S), planes, (gx, gy, index), sizes)
    return gx


@kernel("max_pool2d.gather", backend="cupy", variant="plain", when=plain)
def max_pool2d_gather_plain(x, index, *, kernel_size, stride, padding, dilation):
    """One thread an output."""
    x, index = contiguous(x), contiguous(index)
    y = empty(index.shape, x)
    sizes = (y.size, *x.shape[2:], *index.shape[2:], kernel_size[1], *stride, *padding, *dilation)
    run = kernels("max_pool2d", x).max_pool2d_gather_plain
    run((cdiv(y.size, THREADS),), (THREADS,), (y, x, *_either(index), *sizes))
    return y


@kernel("max_pool2d.gather", backend="cupy", variant="rows", when=rows_gather)
def max_pool2d_gather_rows(x, index, *, kernel_size, stride, padding, dilation):
    """One thread a few outputs of one column."""
    x, index = contiguous(x), contiguous(index)
    y = empty(index.shape, x)
    planes, (OH, OW) = x.shape[0] * x.shape[1], index.shape[2:]
    sizes = (*x.shape[2:], OH, OW, kernel_size[1], *stride, *padding, *dilation)
    in_boxes(kernels("max_pool2d", x).max_pool2d_gather_rows, OW, cdiv(OH, ROWS), planes, (y, x, index), sizes)
    return y


def _outputs(x, kernel_size, output_size):
    """x in C order, and room for y and index."""
    shape = (*x.shape[:2], *output_size)
    index = np.uint8 if kernel_size[0] * kernel_size[1] <= SMALL else np.int32
    return contiguous(x), empty(shape, x), empty(shape, x, index)


def _pixels(gy, index, input_size):
    """gy and index in C order, and room for gx."""
    return contiguous(gy), contiguous(index), empty((*gy.shape[:2], *input_size), gy)


def _either(index):
    """The index as the two pointers of which a kernel takes one."""
    return (index, None) if index.dtype == np.uint8 else (None, index)
