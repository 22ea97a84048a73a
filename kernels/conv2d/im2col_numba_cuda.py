"""conv2d on Numba-CUDA: the rung im2col of conv2d.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/conv2d.py
# ruff: noqa: E741 k and l are the title page's
#
# The definition's way, for some images at a time: column (n * OH + i) * OW + j of the columns holds the pixels under
# window (i, j) of image n, in the order of the weights. The products are those of matmul. In all these kernels a thread
# has one column and a block walks down the rows, every gridDim.y-th, so that a warp writes lines.

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.conv_numba import image_of, output_at, place_of
from ..common.launching import contiguous, empty
from ..common.pooling_numba import quotient
from ..common.shapes import cdiv
from ..matmul import matmul_numba_cuda
from .conv2d_cupy import MOST_Y, im2col_forward, im2col_grad_w, im2col_grad_x, im2col_pays, output_size, rounds
from .implicit_gemm_numba_cuda import add_parts


@jit.typed
def conv2d_im2col_columns_kernel(real):
    """Columns from images: the row (c, k, l) of a column is the pixel under that place of its window."""
    zero = real(0)

    def columns(to, x, number, C, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top, left):
        col = cuda.grid(1)
        if col < number:
            n, i, j = place_of(col, OH, OW)
            for r in range(cuda.blockIdx.y, C * KH * KW, cuda.gridDim.y):
                c, k, l = place_of(r, KH, KW)
                iy, ix = np.int32(i * sh + k * dh - top), np.int32(j * sw + l * dw - left)
                pixel = zero
                if 0 <= iy < H and 0 <= ix < W:
                    pixel = x[np.uint64((np.int64(n) * C + c) * H * W + np.int32(iy * W + ix))]
                to[np.uint64(np.int64(r) * number + col)] = pixel

    return columns


@jit.typed
def conv2d_im2col_rows_kernel(real):
    """Gradients (images, F, area) as the rows (F, images * area) of a product; every element once."""

    def rows(to, gy, number, F, area):
        col = cuda.grid(1)
        if col < number:
            n = quotient(col, area)
            source = image_of(n, F, 0, area, 1) + col - np.int64(n) * area
            for f in range(cuda.blockIdx.y, F, cuda.gridDim.y):
                to[np.uint64(np.int64(f) * number + col)] = gy[np.uint64(source + np.int64(f) * area)]

    return rows


@jit.typed
def conv2d_forward_im2col_kernel(real):
    """A product (F, images * area) as y (images, F, area), with the bias; every element once."""

    def forward(y, product, b, biased, number, F, area):
        col = cuda.grid(1)
        if col < number:
            n = quotient(col, area)
            to = image_of(n, F, 0, area, 1) + col - np.int64(n) * area
            for f in range(cuda.blockIdx.y, F, cuda.gridDim.y):
                value = product[np.uint64(np.int64(f) * number + col)]
                y[np.uint64(to + np.int64(f) * area)] = value + b[np.uint64(f)] if biased else value

    return forward


@kernel("conv2d.forward", backend="numba_cuda", variant="im2col", when=im2col_forward, pays=im2col_pays)
def conv2d_forward_im2col(x, w, b, *, stride, padding, dilation, groups):
    """Columns in memory, a matrix product, and its result in the order of images."""
    x, w = contiguous(x), contiguous(w)
    (N, C), (F, CG, KH, KW) = x.shape[:2], w.shape
    OH, OW = output_size(x, w, stride, padding, dilation)
    y, rows = empty((N, F, OH, OW), x), w.reshape(groups, F // groups, CG * KH * KW)
    bias = (w, False) if b is None else (contiguous(b), True)
    for first, last in rounds(N, C * KH * KW, OH * OW, x.itemsize):
        columns = _columns(x[first:last], groups, (OH, OW), (KH, KW), stride, dilation, padding)
        number = columns.shape[2]
        product = _multiply(empty((groups, F // groups, number), x), rows, columns)
        _over(conv2d_forward_im2col_kernel, number, F, y[first:last], product, *bias, number, F, OH * OW)
    return y


@jit.typed
def conv2d_grad_x_im2col_kernel(real):
    """Each pixel gathers its share from the gradient of the columns."""
    zero = real(0)

    def grad_x(gx, columns, images, number, C, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top, left):
        n, iy, ix = place_of(cuda.grid(1), H, W)
        if n < images:
            for c in range(cuda.blockIdx.y, C, cuda.gridDim.y):
                sum = zero
                for k in range(KH):
                    i = output_at(np.int32(iy + top - k * dh), sh, OH)
                    for l in range(KW if i >= 0 else 0):
                        j = output_at(np.int32(ix + left - l * dw), sw, OW)
                        if j >= 0:
                            row, col = np.int32((c * KH + k) * KW + l), np.int32((n * OH + i) * OW + j)
                            sum += columns[np.uint64(np.int64(row) * number + col)]
                gx[np.uint64((np.int64(n) * C + c) * H * W + np.int32(iy * W + ix))] = sum

    return grad_x


@kernel("conv2d.grad_x", backend="numba_cuda", variant="im2col", when=im2col_grad_x, pays=im2col_pays)
def conv2d_grad_x_im2col(gy, w, *, input_size, stride, padding, dilation, groups):
    """The gradient of the columns as a product, of which every pixel gathers its share."""
    gy, w = contiguous(gy), contiguous(w)
    (N, F, OH, OW), (_, CG, KH, KW), (H, W) = gy.shape, w.shape, input_size
    C = CG * groups
    gx, rows = empty((N, C, H, W), gy), w.reshape(groups, F // groups, CG * KH * KW)
    sizes = C, H, W, OH, OW, KH, KW, *stride, *dilation, padding[0], padding[2]
    for first, last in rounds(N, C * KH * KW, OH * OW, gy.itemsize):
        gradients = _gradient_rows(gy[first:last], groups)
        images, number = last - first, gradients.shape[2]
        columns = _multiply(empty((groups, CG * KH * KW, number), gy), rows, gradients, transpose_a=True)
        _over(conv2d_grad_x_im2col_kernel, images * H * W, C, gx[first:last], columns, images, number, *sizes)
    return gx


@kernel("conv2d.grad_w", backend="numba_cuda", variant="im2col", when=im2col_grad_w, pays=im2col_pays)
def conv2d_grad_w_im2col(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """Rows of gy against columns, some images at a time; the parts are added in order."""
    gy, x = contiguous(gy), contiguous(x)
    (N, F, OH, OW), C, (KH, KW) = gy.shape, x.shape[1], kernel_size
    all_rounds, shape = rounds(N, C * KH * KW, OH * OW, x.itemsize), (groups, F // groups, C // groups * KH * KW)
    gw, parts = empty((F, C // groups, KH, KW), x), empty((len(all_rounds), *shape), x)
    for part, (first, last) in zip(parts, all_rounds, strict=True):
        columns = _columns(x[first:last], groups, (OH, OW), (KH, KW), stride, dilation, padding)
        _multiply(part, _gradient_rows(gy[first:last], groups), columns, transpose_b=True)
    return add_parts(gw, parts, len(all_rounds))


def _columns(x, groups, output, window, stride, dilation, padding):
    """Columns (groups, CG * KH * KW, N * OH * OW) of the images x."""
    (N, C, H, W), (OH, OW), (KH, KW) = x.shape, output, window
    number = N * OH * OW
    columns = empty((groups, C // groups * KH * KW, number), x)
    sizes = number, C, H, W, OH, OW, KH, KW, *stride, *dilation, padding[0], padding[2]
    _over(conv2d_im2col_columns_kernel, number, C * KH * KW, columns, x, *sizes)
    return columns


def _gradient_rows(gy, groups):
    """The rows (groups, FG, N * OH * OW) of gy."""
    N, F, OH, OW = gy.shape
    rows = empty((groups, F // groups, N * OH * OW), gy)
    _over(conv2d_im2col_rows_kernel, rows.shape[2], F, rows, gy, rows.shape[2], F, OH * OW)
    return rows


def _over(made, number, rows, *arguments):
    """A launch with a thread for each of ``number`` columns, whose blocks walk down the rows."""
    arguments = [np.int32(each) if type(each) is int else each for each in arguments]
    made(arguments[0])((cdiv(number, THREADS), min(rows, MOST_Y)), (THREADS,), arguments)


def _multiply(y, a, b, transpose_a=False, transpose_b=False):
    """Fills y (groups, M, N) with a product for each group; returns y."""
    (groups, M, N), K = y.shape, a.shape[1] if transpose_a else a.shape[2]
    how = {"transpose_a": transpose_a, "transpose_b": transpose_b, "a_batch": M * K, "b_batch": K * N}
    matmul_numba_cuda.multiply(y, a, b, M, N, K, batch=groups, **how)
    return y
