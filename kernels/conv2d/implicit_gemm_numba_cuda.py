"""conv2d on Numba-CUDA: implicit_gemm.cu in Python, in a simpler form, for a GPU and for the simulator."""
# op: gpunet/ops/conv2d.py
# ruff: noqa: E741 k and l are the title page's
#
# The matrix product of conv2d_numpy.py without its columns, in one shape of tile: a block walks along the sum in steps
# of BK with a tile of a and a tile of b in shared memory. For forward and grad_x, a is filters and b columns, fetched
# from the images; the sum runs over the places of the window, and inside over the channels, so that within a step the
# place is the same for all. While a pair of tiles is multiplied, the next one is on its way in registers.

from math import gcd
from typing import NamedTuple

import numpy as np

from gpunet import cuda as door
from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.cuda.packs import load_four, load_two
from gpunet.dispatch import kernel

from ..common.conv_numba import BK, BLOCK, advance, image_of, place_of, tile_of
from ..common.launching import blocks_for, contiguous, empty
from ..common.pooling_numba import quotient, sizes_32
from ..common.shapes import cdiv, conv_out_size
from ..common.tiles_numba import SQUARE, lanes, pack_store
from .implicit_gemm_cupy import (
    MOST_Y,
    SCRATCH,
    fits_forward,
    fits_grad_w,
    fits_grad_x,
    pays_forward,
    pays_grad_w,
    pays_grad_x,
)

SHORTEST = 1 if jit.SIMULATED else 16  # steps of the sum that are worth a part of their own


# -- forward and grad_x ------------------------------------------------------------------------------------------------


class Walk(NamedTuple):
    """How windows slide: output (u, v) of a plane at place (k, l) reads pixel (iy + u * sh + k * dh, ix + ..) of x."""

    U: int
    V: int
    y_first: int
    """Where output (0, 0) lies in a plane of y; then the steps to (1, 0) and (0, 1)."""
    y_row: int
    y_col: int
    iy: int
    ix: int
    sh: int
    sw: int
    dh: int
    dw: int
    K: int
    """Places of the window down, and across."""
    L: int
    w_first: int
    """Which weight of a window place (0, 0) has; then the steps to (1, 0) and (0, 1)."""
    w_row: int
    w_col: int


@jit.typed
def conv2d_forward_implicit_gemm_kernel(real):
    """One tile of filters x pixels of one group, of all images; grad_x's too. blockIdx.z: a part of the channels."""
    zero = real(0)
    LANES, T, SIDE, PITCH, FAR, ACROSS, place, multiply, store = tile_of(real)
    WIDE, DOWN, EACH = SIDE // LANES, BLOCK // SIDE, SIDE * BK // BLOCK
    STAGE, CELLS, SUMS = BK * PITCH, 2 * BK * PITCH, T * T
    load, store_pack = load_four if LANES == 4 else load_two, pack_store(real)

    def forward(
        y, x, w, b, biased, packs, images, channels, filters, padded, page, places, length, H, W, area,
        U, V, y_first, y_row, y_col, iy, ix, sh, sw, dh, dw, K, L, w_first, w_row, w_col,
    ):  # fmt: skip
        left = cuda.shared.array(CELLS, real, 16)
        right = cuda.shared.array(CELLS, real, 16)
        weights = cuda.local.array(LANES, real)
        pixels = cuda.local.array(EACH, real)
        sum = cuda.local.array(SUMS, real)
        g, part, groups = cuda.blockIdx.y, cuda.blockIdx.z, cuda.gridDim.y
        t = cuda.threadIdx.x
        tiles_down, all_pixels, plane = quotient(padded, SIDE), np.int64(images) * U * V, np.int32(H * W)
        tile = quotient(cuda.blockIdx.x, tiles_down)  # neighbouring blocks read the same pixels
        first_f, first_p = np.int32((cuda.blockIdx.x - tile * tiles_down) * SIDE), np.int64(tile) * SIDE

        # This thread copies of b a column, every DOWN-th channel of it, and of a one pack.
        own = first_p + t % SIDE
        n, u, v = place_of(own if own < all_pixels else first_p, U, V)
        top, side, down = np.int32(iy + u * sh), np.int32(ix + v * sw), t // SIDE
        image = image_of(n, groups, g, channels, plane) + down * plane
        weight = np.int32(g * places * page + t // WIDE * padded + first_f + t % WIDE * LANES)
        to_left, to_right = np.int32(t // WIDE * PITCH + t % WIDE * LANES), np.int32(down * PITCH + t % SIDE)

        first_c = np.int32(part * length)
        end_c = np.int32(min(channels, first_c + length))
        steps = K * L * quotient(end_c - first_c + BK - 1, BK)
        c, k, l, stage, inside, from_x, from_w = (
            first_c,
            np.int32(0),
            np.int32(0),
            np.int32(0),
            False,
            np.int32(0),
            weight,
        )
        row, col = place()
        for i in range(SUMS):
            sum[i] = zero
        for s in range(steps + 1):
            if s < steps:
                if c == first_c:  # another place of the window
                    at_y, at_x = np.int32(top + k * dh), np.int32(side + l * dw)
                    inside = 0 <= at_y < H and 0 <= at_x < W
                    from_x = np.int32(c * plane + (at_y * W + at_x if inside else 0))
                    from_w = np.int32(weight + (w_first + k * w_row + l * w_col) * page + c * padded)
                pack = load(w, np.int64(from_w))
                for q in range(LANES):
                    weights[q] = pack[q]
                for q in range(EACH):
                    there = inside and c + down + q * DOWN < end_c
                    pixels[q] = x[np.uint64(image + np.int32(from_x + q * DOWN * plane))] if there else zero
                from_x = np.int32(from_x + BK * plane)
                from_w = np.int32(from_w + BK * padded)
                c = np.int32(c + BK)
                if c >= end_c:
                    c, l = first_c, np.int32(l + 1)
                    if l == L:
                        k, l = np.int32(k + 1), np.int32(0)
            if s > 0:
                multiply(sum, left, right, np.int32(stage + row), np.int32(stage + col))
            if s < steps:
                stage = np.int32(STAGE - stage)
                store_pack(left, stage + to_left, weights, 0)
                for q in range(EACH):
                    right[np.uint64(stage + to_right + q * DOWN * PITCH)] = pixels[q]
            cuda.syncthreads()  # these tiles are whole, and the other ones free

        to_part = np.int64(part) * images * groups * filters * area
        rows, cols = cuda.local.array(T, np.int64), cuda.local.array(T, np.int64)
        for i in range(T):
            f = first_f + row + i // LANES * FAR + i % LANES
            bias = b[np.uint64(g * filters + f)] if biased and f < filters else zero
            for j in range(T):
                sum[i * T + j] += bias
            rows[i] = to_part + np.int64(f) * area if f < filters else -1
        for j in range(T):
            p = first_p + col + j // LANES * ACROSS + j % LANES
            n, u, v = place_of(p, U, V)
            to = image_of(n, groups, g, filters, area) + np.int32(y_first + u * y_row + v * y_col)
            cols[j] = to if p < all_pixels else -1
        store(y, sum, rows, cols, packs)

    return forward


@jit.typed
def conv2d_implicit_gemm_filters_kernel(real):
    """The weights as tiles want them, (groups, places, padded_rows, padded_cols): a thread all places of one window."""
    zero = real(0)

    def filters(to, w, rows, cols, padded_rows, padded_cols, places, row_step, col_step):
        col, g = cuda.grid(1), np.int64(cuda.blockIdx.z)
        if col < padded_cols:
            for row in range(cuda.blockIdx.y, padded_rows, cuda.gridDim.y):
                inside = row < rows and col < cols
                source = g * rows * cols * places + row * row_step + col * col_step
                for p in range(places):
                    at = ((g * places + p) * padded_rows + row) * padded_cols + col
                    to[np.uint64(at)] = w[np.uint64(source + p)] if inside else zero

    return filters


@jit.typed
def conv2d_sum_parts_kernel(real):
    """One thread one element at a time: the sum of its parts in their order, plus the bias of its plane of ``area``."""
    zero = real(0)

    def sum_parts(total, parts, b, biased, number, size, area, F):
        for e in range(cuda.grid(1), size, cuda.gridsize(1)):
            sum = zero
            for p in range(number):
                sum += parts[np.uint64(p * size + e)]
            total[e] = sum + b[np.uint64(e // area % F)] if biased else sum

    return sum_parts


@kernel("conv2d.forward", backend="numba_cuda", variant="implicit_gemm", when=fits_forward, pays=pays_forward)
def conv2d_forward_implicit_gemm(x, w, b, *, stride, padding, dilation, groups):
    """The matrix product whose columns are fetched from the images."""
    KH, KW = w.shape[2:]
    OH, OW = conv_out_size(x.shape[2:], (KH, KW), stride, padding, dilation)
    y = empty((x.shape[0], w.shape[0], OH, OW), x)
    (sh, sw), (dh, dw), (top, _, left, _) = stride, dilation, padding
    walk = Walk(OH, OW, 0, OW, 1, -top, -left, sh, sw, dh, dw, KH, KW, 0, KW, 1)
    return _product(y, x, w, b, groups, [walk], turned=False)


@kernel("conv2d.grad_x", backend="numba_cuda", variant="implicit_gemm", when=fits_grad_x, pays=pays_grad_x)
def conv2d_grad_x_implicit_gemm(gy, w, *, input_size, stride, padding, dilation, groups):
    """The same product with gy and transposed weights; with a stride one for each class of pixels."""
    gx = empty((gy.shape[0], w.shape[1] * groups, *input_size), gy)
    (H, W), (KH, KW), walks = input_size, w.shape[2:], []
    for residue in range(stride[0]):
        U, first_y, iy, dh, K, k, row_skip = _gathering(residue, H, KH, stride[0], dilation[0], padding[0])
        for other in range(stride[1]):
            V, first_x, ix, dw, L, l, skip = _gathering(other, W, KW, stride[1], dilation[1], padding[2])
            to, row, col = first_y * W + first_x, stride[0] * W, stride[1]
            walks.append(Walk(U, V, to, row, col, iy, ix, 1, 1, dh, dw, K, L, k * KW + l, row_skip * KW, skip))
    return _product(gx, gy, w, None, groups, walks, turned=True)


def _gathering(residue, outputs, window, stride, dilation, pad):
    """Of the gradient's rows those with (row + pad) % stride == residue, and the places of the window that reach them.

    These are every skip-th place from some first one on, or none: those with place * dilation % stride == residue.

    Returns:
        how many rows, the first, the row of gy that it reads at its first place, the step there from place to place,
        how many places, the first, and skip.
    """
    skip, first = stride // gcd(stride, dilation), (residue - pad) % stride
    place = next((k for k in range(skip) if k * dilation % stride == residue), window)
    origin = (first + pad) // stride - place * dilation // stride
    rows, places = max(0, cdiv(outputs - first, stride)), max(0, cdiv(window - place, skip))
    return rows, first, origin, -(skip * dilation // stride), places, place, skip


def _product(y, x, w, b, groups, walks, turned):
    """Fills y with the products of filters, or ``turned`` ones, and columns of x: one for each walk."""
    if y.size == 0:
        return y
    x, w, b = contiguous(x), contiguous(w), None if b is None else contiguous(b)
    LANES, SIDE = lanes(x.dtype), 2 * SQUARE * lanes(x.dtype)
    (N, rows, *plane), channels, area = (
        (y.shape[0], y.shape[1] // groups, *x.shape[2:]),
        x.shape[1] // groups,
        y[0, 0].size,
    )
    places, padded = w.shape[2] * w.shape[3], (cdiv(channels, BK) * BK, cdiv(rows, SIDE) * SIDE)
    turn = (channels, rows, *padded, places, *((rows * places, places) if turned else (places, channels * places)))
    filters = empty((groups, places, *padded), w)
    grid = cdiv(padded[1], THREADS), min(padded[0], MOST_Y), groups
    conv2d_implicit_gemm_filters_kernel(w)(grid, (THREADS,), (filters, w, *turn))

    largest = max(cdiv(N * walk.U * walk.V, SIDE) for walk in walks) * cdiv(rows, SIDE) * groups
    parts = parts_for(largest, padded[0] // BK, y)
    length = cdiv(padded[0] // BK, parts) * BK
    parts = cdiv(padded[0], length)
    to = y if parts == 1 else empty((parts, *y.shape), y)
    bias = b is not None
    for walk in walks:
        packs = walk.y_col == 1 and walk.y_row == walk.V and area % LANES == 0
        sizes = sizes_32(N, channels, rows, padded[1], padded[0] * padded[1], places, length, *plane, area, *walk)
        grid = cdiv(N * walk.U * walk.V, SIDE) * cdiv(rows, SIDE), groups, parts
        arguments = to, x, filters, b if bias else w, bias and parts == 1, packs, *sizes
        conv2d_forward_implicit_gemm_kernel(x)(grid, (BLOCK,), arguments)
    return y if parts == 1 else add_parts(y, to, parts, b)


def parts_for(blocks, steps, result):
    """In how many parts to take sums of so many steps: enough for two blocks on each multiprocessor."""
    wanted = 2 * door.multiprocessors(result) // max(blocks, 1)
    return max(1, min(wanted, steps // SHORTEST, SCRATCH // max(result.nbytes, 1), MOST_Y))


def add_parts(total, parts, number, b=None):
    """Fills ``total`` with the sum over the ``number`` arrays of its size in ``parts``, plus a bias; returns it."""
    grid, sizes = (blocks_for(total.size, total, THREADS),), (number, total.size)
    bias = (total, False) if b is None else (b, True)
    planes = (1, 1) if b is None else (total[0, 0].size, total.shape[1])
    conv2d_sum_parts_kernel(total)(grid, (THREADS,), (total, parts, *bias, *sizes, *planes))
    return total


# -- grad_w ------------------------------------------------------------------------------------------------------------


@jit.typed
def conv2d_grad_w_implicit_gemm_kernel(real):
    """One tile of filters x columns (c, k, l) of one group's gw; blockIdx.z: a part of the pixels of all images."""
    zero = real(0)
    LANES, T, SIDE, PITCH, DOWN, ACROSS, place, multiply, store = tile_of(real)
    LINES, EACH = BLOCK // BK, SIDE * BK // BLOCK
    STAGE, CELLS, SUMS = BK * PITCH, 2 * BK * PITCH, T * T
    FAR = np.int32(-(2**30))  # so far above the image that no pixel gets inside

    def grad_w(gw, gy, x, images, CG, FG, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top, left):
        of_gy = cuda.shared.array(CELLS, real, 16)
        of_x = cuda.shared.array(CELLS, real, 16)
        held_gy, held_x = cuda.local.array(EACH, real), cuda.local.array(EACH, real)
        down, right = cuda.local.array(EACH, np.int32), cuda.local.array(EACH, np.int32)
        offset = cuda.local.array(EACH, np.int32)
        sum = cuda.local.array(SUMS, real)
        g, part, groups = cuda.blockIdx.y, cuda.blockIdx.z, cuda.gridDim.y
        t = cuda.threadIdx.x
        window, area, plane = np.int32(KH * KW), np.int32(OH * OW), np.int32(H * W)
        cols, tiles_down = np.int32(CG * window), quotient(FG + SIDE - 1, SIDE)
        tile = quotient(cuda.blockIdx.x, tiles_down)
        first_f, first_q = np.int32((cuda.blockIdx.x - tile * tiles_down) * SIDE), np.int32(tile * SIDE)

        # This thread copies every LINES-th filter and column, of one pixel of the BK: neighbours neighbouring pixels.
        line = t // BK
        for e in range(EACH):
            q = np.int32(first_q + line + e * LINES)
            c = quotient(q, window)
            k = quotient(q - c * window, KW)
            l = q - c * window - k * KW
            down[e] = k * dh - top if q < cols else FAR
            right[e] = l * dw - left
            offset[e] = (c * H + down[e]) * W + right[e] if q < cols else 0
        steps = quotient(images * area + BK - 1, BK)
        begin = np.int32(np.int64(steps) * part // cuda.gridDim.z)
        end = np.int32(np.int64(steps) * (part + 1) // cuda.gridDim.z)
        at, hop = place_of(begin * BK + t % BK, OH, OW), place_of(BK, OH, OW)
        to, stage = np.int32(t % BK * PITCH + line), np.int32(0)
        row, col = place()
        for i in range(SUMS):
            sum[i] = zero
        for s in range(begin, end + 1):
            if s < end:
                n, i, j = at
                there = n < images
                from_gy = np.int32(((n * groups + g) * FG + first_f + line) * area + i * OW + j)
                iy, ix = np.int32(i * sh), np.int32(j * sw)
                from_x = np.int32((n * groups + g) * CG * plane + iy * W + ix)
                for e in range(EACH):
                    whole = there and first_f + line + e * LINES < FG
                    held_gy[e] = gy[np.uint64(np.int32(from_gy + e * LINES * area))] if whole else zero
                    inside = there and 0 <= np.int32(iy + down[e]) < H and 0 <= np.int32(ix + right[e]) < W
                    held_x[e] = x[np.uint64(np.int32(from_x + offset[e]))] if inside else zero
                at = advance(at, hop, OH, OW)
            if s > begin:
                multiply(sum, of_gy, of_x, np.int32(stage + row), np.int32(stage + col))
            if s < end:
                stage = np.int32(STAGE - stage)
                for e in range(EACH):
                    of_gy[np.uint64(stage + to + e * LINES)] = held_gy[e]
                    of_x[np.uint64(stage + to + e * LINES)] = held_x[e]
            cuda.syncthreads()  # these tiles are whole, and the other ones free

        to_group = (np.int64(part) * groups + g) * FG * cols
        rows_to, cols_to = cuda.local.array(T, np.int64), cuda.local.array(T, np.int64)
        for i in range(T):
            f, q = first_f + row + i // LANES * DOWN + i % LANES, first_q + col + i // LANES * ACROSS + i % LANES
            rows_to[i] = to_group + np.int64(f) * cols if f < FG else -1
            cols_to[i] = q if q < cols else -1
        store(gw, sum, rows_to, cols_to, cols % LANES == 0)

    return grad_w


@kernel("conv2d.grad_w", backend="numba_cuda", variant="implicit_gemm", when=fits_grad_w, pays=pays_grad_w)
def conv2d_grad_w_implicit_gemm(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """A product of few elements with a long sum: parts of the sum side by side, added up in order."""
    gy, x = contiguous(gy), contiguous(x)
    (N, F, OH, OW), C, SIDE = gy.shape, x.shape[1], 2 * SQUARE * lanes(x.dtype)
    gw, CG, FG = empty((F, C // groups, *kernel_size), x), C // groups, F // groups
    tiles = cdiv(FG, SIDE) * cdiv(CG * kernel_size[0] * kernel_size[1], SIDE)
    parts = parts_for(tiles * groups, cdiv(N * OH * OW, BK), gw)
    to = gw if parts == 1 else empty((parts, *gw.shape), x)
    windows = *kernel_size, *stride, *dilation, padding[0], padding[2]
    arguments = to, gy, x, *sizes_32(N, CG, FG, *x.shape[2:], OH, OW, *windows)
    conv2d_grad_w_implicit_gemm_kernel(x)((tiles, groups, parts), (BLOCK,), arguments)
    return gw if parts == 1 else add_parts(gw, to, parts)
