"""avg_pool2d on Numba-CUDA: the rungs of avg_pool2d.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/avg_pool2d.py
# ruff: noqa: E741 k and l are the title page's
#
# Backward gathers, as in max_pool2d_numba_cuda.py. An output is divided before it is shared out, as in the definition.

from typing import Any, NamedTuple

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.launching import contiguous, empty
from ..common.pooling_numba import (
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
from ..max_pool2d.max_pool2d_cupy import ROWS, in_boxes, plain
from ..max_pool2d.max_pool2d_numba_cuda import common
from .avg_pool2d_cupy import wide_forward, wide_grad_x


def rows_forward(x, *, output_size, count_include_pad, divisor_override, **windows):
    """Whether windows are of a common kind and 32-bit indices do."""
    return common(x, x.shape[2:], output_size, **windows)


def rows_grad_x(gy, *, input_size, count_include_pad, divisor_override, **windows):
    """Whether windows are of a common kind and 32-bit indices do."""
    return common(gy, input_size, gy.shape[2:], **windows)


class Axis(NamedTuple):
    """One axis: window i begins at i * stride - pad; ``border`` is the padding that counts, all of it or none."""

    size: Any
    kernel: Any
    stride: Any
    pad: Any
    border: Any


@jit.device
def counted(axis, i):
    """The elements of window i that count; nothing beyond the padding does."""
    start = i * axis.stride - axis.pad
    return min(start + axis.kernel, axis.size + axis.border) - max(start, -axis.border)


@jit.device
def divisor_of(real, rows, cols, i, j, override):
    """What the sum of window (i, j) is divided by; an override of 0 is none."""
    return override if override != real(0) else real(np.int32(counted(rows, i) * counted(cols, j)))


# -- forward -----------------------------------------------------------------------------------------------------------


@jit.typed
def avg_pool2d_forward_plain_kernel(real):
    """One thread one output, summed in row order. Padding is skipped and not read."""
    zero = real(0)

    def forward(y, x, outputs, H, W, OH, OW, KH, KW, sh, sw, ph, pw, bh, bw, override):
        o = cuda.grid(1)
        if o < outputs:
            plane, i, j = place_of(o, OH, OW)
            top, left = i * sh - ph, j * sw - pw
            total = zero
            for iy in range(max(top, 0), min(top + KH, H)):
                for ix in range(max(left, 0), min(left + KW, W)):
                    total += x[np.uint64((plane * H + iy) * W + ix)]
            rows, cols = Axis(H, KH, sh, ph, bh), Axis(W, KW, sw, pw, bw)
            y[o] = total / divisor_of(real, rows, cols, i, j, override)

    return forward


@kernel("avg_pool2d.forward", backend="numba_cuda", variant="plain", when=plain)
def avg_pool2d_forward_plain(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """One thread an output."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    sizes = sizes_32(*x.shape[2:], *output_size, *kernel_size, *stride, *padding)
    arguments = (y, x, y.size, *sizes, *_divisor(x, padding, count_include_pad, divisor_override))
    avg_pool2d_forward_plain_kernel(x)((cdiv(y.size, THREADS),), (THREADS,), arguments)
    return y


@jit.device
def window_sums(sums, R, V, K, S, cells, zero):
    """The sums under R x V windows, K by K with steps of S, from the cells under all of them.

    Each row of a window is added up once and then serves every window that holds the row. Cells outside are 0.
    """
    for w in range(R * V):
        sums[w] = zero
    for t in range((R - 1) * S + K):
        for v in range(V):
            first = t * ((V - 1) * S + K) + v * S
            row = cells[first]
            for l in range(1, K):
                row += cells[first + l]
            for r in range(R):
                if 0 <= t - r * S < K:  # row t of the cells is in window r
                    sums[r * V + v] += row


@for_windows
def avg_pool2d_forward_rows_kernel(real, K, S):
    """One thread ROWS outputs of one column: a row of pixels is read once for all its windows that hold the row."""
    zero = real(0)
    HEIGHT = (ROWS - 1) * S + K
    CELLS = HEIGHT * K

    def forward(y, x, first, planes, H, W, OH, OW, ph, pw, bh, bw, override):
        j, strip, plane = place_in_box(first)
        i = np.int32(strip * ROWS)
        cells, sums = cuda.local.array(CELLS, real), cuda.local.array(ROWS, real)
        if i < OH and j < OW and plane < planes:
            rows, cols = Axis(H, K, S, ph, bh), Axis(W, K, S, pw, bw)
            load_cells(cells, HEIGHT, K, x, plane * H * W, i * S - ph, j * S - pw, H, W, zero)
            window_sums(sums, ROWS, 1, K, S, cells, zero)
            for r in range(ROWS):
                if i + r < OH:
                    by = divisor_of(real, rows, cols, i + r, j, override)
                    y[np.uint64(plane * OH * OW + np.int32((i + r) * OW + j))] = sums[r] / by

    return forward


@kernel("avg_pool2d.forward", backend="numba_cuda", variant="rows", when=rows_forward)
def avg_pool2d_forward_rows(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """One thread a few outputs of one column."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    planes, (OH, OW) = x.shape[0] * x.shape[1], output_size
    run = avg_pool2d_forward_rows_kernel(kernel_size[0], stride[0])(x)
    sizes = (*sizes_32(*x.shape[2:], OH, OW, *padding), *_divisor(x, padding, count_include_pad, divisor_override))
    in_boxes(run, OW, cdiv(OH, ROWS), planes, (y, x), sizes)
    return y


@for_windows
def avg_pool2d_forward_wide_kernel(real, K, S):
    """One thread 2 x V outputs: two rows of the columns that begin in the same 16 bytes of x."""
    zero = real(0)
    LANES = 16 // np.dtype(real).itemsize
    V, P = LANES // S, (K - 1) // 2
    WIDTH = (V - 1) * S + K
    CELLS, OUTPUTS = (S + K) * WIDTH, 2 * V

    def forward(y, x, first, planes, H, W, OH, OW, bh, bw, override):
        across, down, plane = place_in_box(first)
        i, j = np.int32(down * 2), np.int32(across * V)
        cells, sums = cuda.local.array(CELLS, real), cuda.local.array(OUTPUTS, real)
        if i < OH and j < OW and plane < planes:
            rows, cols = Axis(H, K, S, P, bh), Axis(W, K, S, P, bw)
            load_cells_wide(cells, S + K, WIDTH, P, LANES, x, plane * H * W, i * S - P, j * S, H, W, zero)
            window_sums(sums, 2, V, K, S, cells, zero)
            for r in range(2):
                if i + r < OH:
                    for v in range(V):
                        by = divisor_of(real, rows, cols, i + r, j + v, override)
                        sums[r * V + v] = sums[r * V + v] / by
                    store_few(y, plane * OH * OW + np.int32((i + r) * OW + j), V, sums, r * V)

    return forward


@kernel("avg_pool2d.forward", backend="numba_cuda", variant="wide", when=wide_forward)
def avg_pool2d_forward_wide(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """One thread two rows of the outputs that begin in the same 16 bytes."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    planes, (OH, OW), S = x.shape[0] * x.shape[1], output_size, stride[0]
    run = avg_pool2d_forward_wide_kernel(kernel_size[0], S)(x)
    across = OW * S * x.dtype.itemsize // 16
    sizes = (*sizes_32(*x.shape[2:], OH, OW), *_divisor(x, padding, count_include_pad, divisor_override))
    in_boxes(run, across, cdiv(OH, 2), planes, (y, x), sizes)
    return y


# -- grad_x ------------------------------------------------------------------------------------------------------------


@jit.typed
def avg_pool2d_grad_x_plain_kernel(real):
    """One thread one pixel: a share of every window that holds it, from the last to the first."""
    zero = real(0)

    def grad_x(gx, gy, pixels, H, W, OH, OW, KH, KW, sh, sw, ph, pw, bh, bw, override):
        p = cuda.grid(1)
        if p < pixels:
            plane, iy, ix = place_of(p, H, W)
            row, col = np.int32(iy + ph), np.int32(ix + pw)  # in the padded image
            first_i = quotient(row - KH, sh) + 1 if row >= KH else 0
            first_j = quotient(col - KW, sw) + 1 if col >= KW else 0
            rows, cols = Axis(H, KH, sh, ph, bh), Axis(W, KW, sw, pw, bw)
            total = zero
            for i in range(min(OH, quotient(row, sh) + 1) - 1, first_i - 1, -1):
                for j in range(min(OW, quotient(col, sw) + 1) - 1, first_j - 1, -1):
                    by = divisor_of(real, rows, cols, i, j, override)
                    total += gy[np.uint64((plane * OH + i) * OW + j)] / by
            gx[p] = total

    return grad_x


@kernel("avg_pool2d.grad_x", backend="numba_cuda", variant="plain", when=plain)
def avg_pool2d_grad_x_plain(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """One thread a pixel."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    sizes = sizes_32(*input_size, *gy.shape[2:], *kernel_size, *stride, *padding)
    arguments = (gx, gy, gx.size, *sizes, *_divisor(gy, padding, count_include_pad, divisor_override))
    avg_pool2d_grad_x_plain_kernel(gy)((cdiv(gx.size, THREADS),), (THREADS,), arguments)
    return gx


@jit.device
def load_shares(real, g, UP, ACROSS, V, LEFT, gy, out, i, j, OH, OW, rows, cols, override):
    """What the UP x ACROSS windows from (i, j - LEFT) on give to a pixel, V of each row by one load; 0 for no window.

    All loads come before the first division.
    """
    for u in range(UP):
        o = out + np.int32((i + u) * OW + j)
        for n in range(ACROSS):
            g[u * ACROSS + n] = real(0)
            if not LEFT <= n < LEFT + V and 0 <= i + u < OH and 0 <= j + n - LEFT < OW:
                g[u * ACROSS + n] = gy[np.uint64(o + n - LEFT)]
        if 0 <= i + u < OH and j < OW:
            load_few(g, u * ACROSS + LEFT, V, gy, o)
    for u in range(UP):
        for n in range(ACROSS):
            if 0 <= i + u < OH and 0 <= j + n - LEFT < OW:
                by = divisor_of(real, rows, cols, i + u, j + n - LEFT, override)
                g[u * ACROSS + n] = g[u * ACROSS + n] / by


@jit.device
def collected(g, UP, ACROSS, K, S, row, col, zero):
    """The gradient of the pixel (row, col) below the first window's corner: from the last window to the first."""
    total = zero
    for u in range(UP - 1, -1, -1):
        for n in range(ACROSS - 1, -1, -1):
            if 0 <= row - u * S < K and 0 <= col - n * S < K:
                total += g[u * ACROSS + n]
    return total


@for_windows
def avg_pool2d_grad_x_rows_kernel(real, K, S):
    """One thread ROWS pixels of one column: a window is read and divided once for all of them that it holds."""
    zero = real(0)
    ABOVE, LEFT = (K - 1) // S, (K + S - 1) // S - 1  # windows that begin earlier and still hold the first pixel
    UP, ACROSS = (ROWS - 1) // S + ABOVE + 1, LEFT + 1
    ASKED = UP * ACROSS

    def grad_x(gx, gy, first, planes, H, W, OH, OW, ph, pw, bh, bw, override):
        ix, strip, plane = place_in_box(first)
        row, col = np.int32(strip * ROWS), np.int32(ix + pw)  # in the padded image; ROWS is a multiple of S
        iy = np.int32(row - ph)
        g = cuda.local.array(ASKED, real)
        if iy < H and ix < W and plane < planes:
            rows, cols = Axis(H, K, S, ph, bh), Axis(W, K, S, pw, bw)
            i, j = np.int32(quotient(row, S) - ABOVE), quotient(col, S)
            load_shares(real, g, UP, ACROSS, 1, LEFT, gy, plane * OH * OW, i, j, OH, OW, rows, cols, override)
            right = np.int32(col - (j - LEFT) * S)
            for a in range(ROWS):
                if 0 <= iy + a < H:
                    total = collected(g, UP, ACROSS, K, S, a + ABOVE * S, right, zero)
                    gx[np.uint64(plane * H * W + np.int32((iy + a) * W + ix))] = total

    return grad_x


@kernel("avg_pool2d.grad_x", backend="numba_cuda", variant="rows", when=rows_grad_x)
def avg_pool2d_grad_x_rows(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """One thread a few pixels of one column."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    planes, (H, W) = gy.shape[0] * gy.shape[1], input_size
    run = avg_pool2d_grad_x_rows_kernel(kernel_size[0], stride[0])(gy)
    sizes = (*sizes_32(H, W, *gy.shape[2:], *padding), *_divisor(gy, padding, count_include_pad, divisor_override))
    in_boxes(run, W, cdiv(H + padding[0], ROWS), planes, (gx, gy), sizes)
    return gx


@for_windows
def avg_pool2d_grad_x_wide_kernel(real, K, S):
    """One thread 2 * S rows by LANES columns of pixels: gx leaves 16 bytes at a time."""
    zero = real(0)
    LANES = 16 // np.dtype(real).itemsize
    V, P = LANES // S, (K - 1) // 2
    BEFORE = (K - 1 - P) // S  # windows that begin earlier and still hold the first pixel
    UP, ACROSS = (2 * S - 1 + P) // S + BEFORE + 1, (LANES - 1 + P) // S + BEFORE + 1
    ASKED, CORNER = UP * ACROSS, P + BEFORE * S

    def grad_x(gx, gy, first, planes, H, W, OH, OW, bh, bw, override):
        across, down, plane = place_in_box(first)
        i, j = np.int32(down * 2), np.int32(across * V)
        g, sums = cuda.local.array(ASKED, real), cuda.local.array(LANES, real)
        if i * S < H and j * S < W and plane < planes:
            rows, cols = Axis(H, K, S, P, bh), Axis(W, K, S, P, bw)
            out, top = plane * OH * OW, i - BEFORE
            load_shares(real, g, UP, ACROSS, V, BEFORE, gy, out, top, j, OH, OW, rows, cols, override)
            for a in range(2 * S):
                for b in range(LANES):
                    sums[b] = collected(g, UP, ACROSS, K, S, a + CORNER, b + CORNER, zero)
                if i * S + a < H:
                    store_few(gx, plane * H * W + np.int32((i * S + a) * W + j * S), LANES, sums, 0)

    return grad_x


@kernel("avg_pool2d.grad_x", backend="numba_cuda", variant="wide", when=wide_grad_x)
def avg_pool2d_grad_x_wide(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """One thread a tile of pixels, 16 bytes across."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    planes, (H, W), S = gy.shape[0] * gy.shape[1], input_size, stride[0]
    run = avg_pool2d_grad_x_wide_kernel(kernel_size[0], S)(gy)
    across = W * gy.dtype.itemsize // 16
    sizes = (*sizes_32(H, W, *gy.shape[2:]), *_divisor(gy, padding, count_include_pad, divisor_override))
    in_boxes(run, across, cdiv(H, 2 * S), planes, (gx, gy), sizes)
    return gx


def _divisor(like, padding, count_include_pad, divisor_override):
    """How sums are divided, as kernels take it: the border that counts, and the override or 0."""
    return *sizes_32(*(padding if count_include_pad else (0, 0))), like.dtype.type(divisor_override or 0)
