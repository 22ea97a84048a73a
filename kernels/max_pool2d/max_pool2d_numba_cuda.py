"""max_pool2d on Numba-CUDA: the rungs of max_pool2d.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/max_pool2d.py
# ruff: noqa: E741 k and l are the title page's
#
# The index is a byte where windows have at most 256 positions, else 32 bits: a kernel is compiled for the one it gets.
# Backward gathers: each pixel asks the windows that hold it, by falling window number, which is rising position in the
# window and the definition's order.

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.launching import contiguous, empty, is_real
from ..common.pooling_numba import (
    challenge,
    first_inside,
    for_windows,
    load_cells,
    load_cells_wide,
    load_few,
    place_in_box,
    place_of,
    quotient,
    sizes_32,
    store_few,
)
from ..common.shapes import cdiv
from .max_pool2d_cupy import ROWS, SMALL, in_32_bits, in_boxes, plain, rows_gather, wide_forward, wide_grad_x

KINDS = {((2, 2), (2, 2)), ((3, 3), (2, 2)), ((3, 3), (1, 1))}  # kernel_size and stride


def common(like, input_size, output_size, kernel_size, stride, padding, dilation=(1, 1)):
    """Whether windows are of a kind that the rung "rows" has, and 32-bit indices do."""
    if (kernel_size, stride) not in KINDS or dilation != (1, 1):
        return "it takes 2 x 2 windows at steps of 2, or 3 x 3 at steps of 1 or 2, without dilation"
    return in_32_bits(input_size, output_size, padding) if is_real(like) is True else is_real(like)


def rows_forward(x, *, output_size, **windows):
    """Whether windows are of a common kind and 32-bit indices do."""
    return common(x, x.shape[2:], output_size, **windows)


def rows_grad_x(gy, index, *, input_size, **windows):
    """Whether windows are of a common kind and 32-bit indices do."""
    return common(gy, input_size, gy.shape[2:], **windows)


# -- forward -----------------------------------------------------------------------------------------------------------


@jit.typed
def max_pool2d_forward_plain_kernel(real):
    """One thread one output. Padding is skipped and not read."""
    lowest = real(-np.inf)

    def forward(y, index, x, outputs, H, W, OH, OW, KH, KW, sh, sw, ph, pw, dh, dw):
        o = cuda.grid(1)
        if o < outputs:
            plane, i, j = place_of(o, OH, OW)
            top, left = np.int32(i * sh - ph), np.int32(j * sw - pw)
            first_k, first_l = first_inside(top, dh), first_inside(left, dw)
            best, place = lowest, np.int32(first_k * KW + first_l)  # -inf does not beat it: the place stays
            for k in range(first_k, KH):
                iy = top + k * dh
                if iy >= H:
                    break
                for l in range(first_l, KW):
                    ix = left + l * dw
                    if ix >= W:
                        break
                    best, place = challenge(best, place, x[np.uint64((plane * H + iy) * W + ix)], k * KW + l)
            y[o] = best
            index[o] = place

    return forward


@kernel("max_pool2d.forward", backend="numba_cuda", variant="plain", when=plain)
def max_pool2d_forward_plain(x, *, kernel_size, stride, padding, dilation, output_size):
    """One thread an output."""
    x, y, index = _outputs(x, kernel_size, output_size)
    sizes = sizes_32(*x.shape[2:], *output_size, *kernel_size, *stride, *padding, *dilation)
    max_pool2d_forward_plain_kernel(x)((cdiv(y.size, THREADS),), (THREADS,), (y, index, x, y.size, *sizes))
    return y, index


@jit.device
def winners(best, place, R, V, K, S, cells, top, left, lowest):
    """The winners under R x V windows, K by K with steps of S, from the cells under all of them, from (top, left) on.

    Each row of a window is decided once and then serves every window that holds the row. Cells outside the image are
    -inf and win nothing.
    """
    for r in range(R):
        for v in range(V):
            best[r * V + v] = lowest
            place[r * V + v] = first_inside(top + r * S, 1) * K + first_inside(left + v * S, 1)
    for t in range((R - 1) * S + K):
        for v in range(V):
            first = t * ((V - 1) * S + K) + v * S
            value, at = cells[first], np.int32(0)
            for l in range(1, K):
                value, at = challenge(value, at, cells[first + l], l)
            for r in range(R):
                k = t - r * S  # row t of the cells is row k of window r
                if 0 <= k < K:
                    w = r * V + v
                    best[w], place[w] = challenge(best[w], place[w], value, k * K + at)


@for_windows
def max_pool2d_forward_rows_kernel(real, K, S):
    """One thread ROWS outputs of one column: a row of pixels is read once for all its windows that hold the row."""
    lowest = real(-np.inf)
    HEIGHT = (ROWS - 1) * S + K
    CELLS = HEIGHT * K

    def forward(y, index, x, first, planes, H, W, OH, OW, ph, pw):
        j, strip, plane = place_in_box(first)
        i = np.int32(strip * ROWS)
        cells, best = cuda.local.array(CELLS, real), cuda.local.array(ROWS, real)
        place = cuda.local.array(ROWS, np.int32)
        if i < OH and j < OW and plane < planes:
            top, left = np.int32(i * S - ph), np.int32(j * S - pw)
            load_cells(cells, HEIGHT, K, x, plane * H * W, top, left, H, W, lowest)
            winners(best, place, ROWS, 1, K, S, cells, top, left, lowest)
            for r in range(ROWS):
                if i + r < OH:
                    o = np.uint64(plane * OH * OW + np.int32((i + r) * OW + j))
                    y[o] = best[r]
                    index[o] = place[r]

    return forward


@kernel("max_pool2d.forward", backend="numba_cuda", variant="rows", when=rows_forward)
def max_pool2d_forward_rows(x, *, kernel_size, stride, padding, dilation, output_size):
    """One thread a few outputs of one column."""
    x, y, index = _outputs(x, kernel_size, output_size)
    planes, (OH, OW) = x.shape[0] * x.shape[1], output_size
    run = max_pool2d_forward_rows_kernel(kernel_size[0], stride[0])(x)
    in_boxes(run, OW, cdiv(OH, ROWS), planes, (y, index, x), sizes_32(*x.shape[2:], OH, OW, *padding))
    return y, index


@for_windows
def max_pool2d_forward_wide_kernel(real, K, S):
    """One thread 2 x V outputs: two rows of the columns that begin in the same 16 bytes of x."""
    lowest = real(-np.inf)
    LANES = 16 // np.dtype(real).itemsize
    V, P = LANES // S, (K - 1) // 2
    WIDTH = (V - 1) * S + K
    CELLS, OUTPUTS = (S + K) * WIDTH, 2 * V

    def forward(y, index, x, first, planes, H, W, OH, OW):
        across, down, plane = place_in_box(first)
        i, j = np.int32(down * 2), np.int32(across * V)
        cells, best = cuda.local.array(CELLS, real), cuda.local.array(OUTPUTS, real)
        place = cuda.local.array(OUTPUTS, np.int32)
        if i < OH and j < OW and plane < planes:
            top, left = np.int32(i * S - P), np.int32(j * S)
            load_cells_wide(cells, S + K, WIDTH, P, LANES, x, plane * H * W, top, left, H, W, lowest)
            winners(best, place, 2, V, K, S, cells, top, left - P, lowest)
            for r in range(2):
                if i + r < OH:
                    o = plane * OH * OW + np.int32((i + r) * OW + j)
                    store_few(y, o, V, best, r * V)
                    store_few(index, o, V, place, r * V)

    return forward


@kernel("max_pool2d.forward", backend="numba_cuda", variant="wide", when=wide_forward)
def max_pool2d_forward_wide(x, *, kernel_size, stride, padding, dilation, output_size):
    """One thread two rows of the outputs that begin in the same 16 bytes."""
    x, y, index = _outputs(x, kernel_size, output_size)
    planes, (OH, OW), S = x.shape[0] * x.shape[1], output_size, stride[0]
    run = max_pool2d_forward_wide_kernel(kernel_size[0], S)(x)
    across = OW * S * x.dtype.itemsize // 16
    in_boxes(run, across, cdiv(OH, 2), planes, (y, index, x), sizes_32(*x.shape[2:], OH, OW))
    return y, index


# -- grad_x ------------------------------------------------------------------------------------------------------------


@jit.typed
def max_pool2d_grad_x_plain_kernel(real):
    """One thread one pixel, which asks all KH * KW windows that can hold it."""
    zero = real(0)

    def grad_x(gx, gy, index, pixels, H, W, OH, OW, KH, KW, sh, sw, ph, pw, dh, dw):
        p = cuda.grid(1)
        if p < pixels:
            plane, iy, ix = place_of(p, H, W)
            total = zero
            for k in range(KH):
                top = np.int32(iy + ph - k * dh)  # where a window begins that has this pixel in its row k, padded
                i = quotient(top, sh) if top >= 0 else OH
                if i < OH and i * sh == top:
                    for l in range(KW):
                        left = np.int32(ix + pw - l * dw)
                        j = quotient(left, sw) if left >= 0 else OW
                        if j < OW and j * sw == left:
                            o = np.uint64((plane * OH + i) * OW + j)
                            if index[o] == k * KW + l:
                                total += gy[o]
            gx[p] = total

    return grad_x


@kernel("max_pool2d.grad_x", backend="numba_cuda", variant="plain", when=plain)
def max_pool2d_grad_x_plain(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """One thread a pixel."""
    gy, index, gx = _pixels(gy, index, input_size)
    sizes = sizes_32(*input_size, *gy.shape[2:], *kernel_size, *stride, *padding, *dilation)
    max_pool2d_grad_x_plain_kernel(gy)((cdiv(gx.size, THREADS),), (THREADS,), (gx, gy, index, gx.size, *sizes))
    return gx


@jit.device
def load_windows(g, won, UP, ACROSS, V, LEFT, gy, index, out, i, j, OH, OW, zero):
    """gy and index of the UP x ACROSS windows from (i, j - LEFT) on, V of each row by one load.

    Where there is no window nothing has won: -1.
    """
    for u in range(UP):
        o = out + np.int32((i + u) * OW + j)
        for n in range(ACROSS):
            g[u * ACROSS + n] = zero
            won[u * ACROSS + n] = -1
            if not LEFT <= n < LEFT + V and 0 <= i + u < OH and 0 <= j + n - LEFT < OW:
                g[u * ACROSS + n] = gy[np.uint64(o + n - LEFT)]
                won[u * ACROSS + n] = index[np.uint64(o + n - LEFT)]
        if 0 <= i + u < OH and j < OW:
            load_few(g, u * ACROSS + LEFT, V, gy, o)
            load_few(won, u * ACROSS + LEFT, V, index, o)


@jit.device
def collected(g, won, UP, ACROSS, K, S, row, col, zero):
    """The gradient of the pixel (row, col) below the first window's corner: from the last window to the first."""
    total = zero
    for u in range(UP - 1, -1, -1):
        for n in range(ACROSS - 1, -1, -1):
            k, l = row - u * S, col - n * S  # the pixel's position in the window
            if 0 <= k < K and 0 <= l < K and won[u * ACROSS + n] == k * K + l:
                total += g[u * ACROSS + n]
    return total


@for_windows
def max_pool2d_grad_x_rows_kernel(real, K, S):
    """One thread ROWS pixels of one column: gy and index are read once for all of them that a window holds."""
    zero = real(0)
    ABOVE, LEFT = (K - 1) // S, (K + S - 1) // S - 1  # windows that begin earlier and still hold the first pixel
    UP, ACROSS = (ROWS - 1) // S + ABOVE + 1, LEFT + 1
    ASKED = UP * ACROSS

    def grad_x(gx, gy, index, first, planes, H, W, OH, OW, ph, pw):
        ix, strip, plane = place_in_box(first)
        row, col = np.int32(strip * ROWS), np.int32(ix + pw)  # in the padded image; ROWS is a multiple of S
        iy = np.int32(row - ph)
        g, won = cuda.local.array(ASKED, real), cuda.local.array(ASKED, np.int32)
        if iy < H and ix < W and plane < planes:
            i, j = np.int32(quotient(row, S) - ABOVE), quotient(col, S)
            load_windows(g, won, UP, ACROSS, 1, LEFT, gy, index, plane * OH * OW, i, j, OH, OW, zero)
            right = np.int32(col - (j - LEFT) * S)
            for a in range(ROWS):
                total = collected(g, won, UP, ACROSS, K, S, a + ABOVE * S, right, zero)
                if 0 <= iy + a < H:
                    gx[np.uint64(plane * H * W + np.int32((iy + a) * W + ix))] = total

    return grad_x


@kernel("max_pool2d.grad_x", backend="numba_cuda", variant="rows", when=rows_grad_x)
def max_pool2d_grad_x_rows(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """One thread a few pixels of one column."""
    gy, index, gx = _pixels(gy, index, input_size)
    planes, down = gy.shape[0] * gy.shape[1], cdiv(input_size[0] + padding[0], ROWS)
    run = max_pool2d_grad_x_rows_kernel(kernel_size[0], stride[0])(gy)
    in_boxes(run, input_size[1], down, planes, (gx, gy, index), sizes_32(*input_size, *gy.shape[2:], *padding))
    return gx


@for_windows
def max_pool2d_grad_x_wide_kernel(real, K, S):
    """One thread 2 * S rows by LANES columns of pixels: gx leaves 16 bytes at a time."""
    zero = real(0)
    LANES = 16 // np.dtype(real).itemsize
    V, P = LANES // S, (K - 1) // 2
    BEFORE = (K - 1 - P) // S  # windows that begin earlier and still hold the first pixel
    UP, ACROSS = (2 * S - 1 + P) // S + BEFORE + 1, (LANES - 1 + P) // S + BEFORE + 1
    ASKED, CORNER = UP * ACROSS, P + BEFORE * S

    def grad_x(gx, gy, index, first, planes, H, W, OH, OW):
        across, down, plane = place_in_box(first)
        i, j = np.int32(down * 2), np.int32(across * V)
        g, won = cuda.local.array(ASKED, real), cuda.local.array(ASKED, np.int32)
        sums = cuda.local.array(LANES, real)
        if i * S < H and j * S < W and plane < planes:
            load_windows(g, won, UP, ACROSS, V, BEFORE, gy, index, plane * OH * OW, i - BEFORE, j, OH, OW, zero)
            for a in range(2 * S):
                for b in range(LANES):
                    sums[b] = collected(g, won, UP, ACROSS, K, S, a + CORNER, b + CORNER, zero)
                if i * S + a < H:
                    store_few(gx, plane * H * W + np.int32((i * S + a) * W + j * S), LANES, sums, 0)

    return grad_x


@kernel("max_pool2d.grad_x", backend="numba_cuda", variant="wide", when=wide_grad_x)
def max_pool2d_grad_x_wide(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """One thread a tile of pixels, 16 bytes across."""
    gy, index, gx = _pixels(gy, index, input_size)
    planes, (H, W), S = gy.shape[0] * gy.shape[1], input_size, stride[0]
    run = max_pool2d_grad_x_wide_kernel(kernel_size[0], S)(gy)
    across = W * gy.dtype.itemsize // 16
    in_boxes(run, across, cdiv(H, 2 * S), planes, (gx, gy, index), sizes_32(H, W, *gy.shape[2:]))
    return gx


# -- gather ------------------------------------------------------------------------------------------------------------


@jit.typed
def max_pool2d_gather_plain_kernel(real):
    """One thread one output: the index, and the one pixel it names."""

    def gather(y, x, index, outputs, H, W, OH, OW, KW, sh, sw, ph, pw, dh, dw):
        o = cuda.grid(1)
        if o < outputs:
            plane, i, j = place_of(o, OH, OW)
            place = np.int32(index[o])
            k = quotient(place, KW)
            iy, ix = i * sh - ph + k * dh, j * sw - pw + (place - k * KW) * dw
            y[o] = x[np.uint64((plane * H + iy) * W + ix)]

    return gather


@kernel("max_pool2d.gather", backend="numba_cuda", variant="plain", when=plain)
def max_pool2d_gather_plain(x, index, *, kernel_size, stride, padding, dilation):
    """One thread an output."""
    x, index = contiguous(x), contiguous(index)
    y = empty(index.shape, x)
    sizes = sizes_32(*x.shape[2:], *index.shape[2:], kernel_size[1], *stride, *padding, *dilation)
    max_pool2d_gather_plain_kernel(x)((cdiv(y.size, THREADS),), (THREADS,), (y, x, index, y.size, *sizes))
    return y


@jit.typed
def max_pool2d_gather_rows_kernel(real):
    """One thread ROWS outputs of one column: as many indices under way before the first pixel is asked for."""

    def gather(y, x, index, first, planes, H, W, OH, OW, KW, sh, sw, ph, pw, dh, dw):
        j, strip, plane = place_in_box(first)
        i = np.int32(strip * ROWS)
        place = cuda.local.array(ROWS, np.int32)
        if i < OH and j < OW and plane < planes:
            image, out = plane * H * W, plane * OH * OW
            for r in range(ROWS):
                place[r] = 0
                if i + r < OH:
                    place[r] = index[np.uint64(out + np.int32((i + r) * OW + j))]
            for r in range(ROWS):
                if i + r < OH:
                    k = quotient(place[r], KW)
                    iy, ix = (i + r) * sh - ph + k * dh, j * sw - pw + (place[r] - k * KW) * dw
                    y[np.uint64(out + np.int32((i + r) * OW + j))] = x[np.uint64(image + np.int32(iy * W + ix))]

    return gather


@kernel("max_pool2d.gather", backend="numba_cuda", variant="rows", when=rows_gather)
def max_pool2d_gather_rows(x, index, *, kernel_size, stride, padding, dilation):
    """One thread a few outputs of one column."""
    x, index = contiguous(x), contiguous(index)
    y = empty(index.shape, x)
    planes, (OH, OW) = x.shape[0] * x.shape[1], index.shape[2:]
    sizes = sizes_32(*x.shape[2:], OH, OW, kernel_size[1], *stride, *padding, *dilation)
    in_boxes(max_pool2d_gather_rows_kernel(x), OW, cdiv(OH, ROWS), planes, (y, x, index), sizes)
    return y


def _outputs(x, kernel_size, output_size):
    """x in C order, and room for y and index."""
    shape, small = (*x.shape[:2], *output_size), kernel_size[0] * kernel_size[1] <= SMALL
    return contiguous(x), empty(shape, x), empty(shape, x, np.uint8 if small else np.int32)


def _pixels(gy, index, input_size):
    """gy and index in C order, and room for gx."""
    return contiguous(gy), contiguous(index), empty((*gy.shape[:2], *input_size), gy)
