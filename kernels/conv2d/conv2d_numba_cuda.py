"""conv2d on Numba-CUDA: the rungs of conv2d.cu in Python, for a GPU and for the simulator; others stand beside."""
# op: gpunet/ops/conv2d.py
# ruff: noqa: E741 k and l are the title page's
#
# At place (k, l) the window of output (i, j) reads pixel (i * sh + k * dh - top, j * sw + l * dw - left). FG and CG are
# the filters and channels of one group. Sizes are 32-bit numbers; np.int32(...) says that 32 bits are enough.

from typing import Any

import numpy as np

from gpunet import cuda as door
from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.cuda.packs import load_four, load_two
from gpunet.dispatch import kernel

from ..common.conv_numba import advance, image_of, inside_of, output_at, place_of
from ..common.launching import contiguous, empty, is_real
from ..common.pooling_numba import quotient, sizes_32
from ..common.rows_numba import block_sum
from ..common.shapes import cdiv
from ..common.tiles_numba import lanes
from . import im2col_numba_cuda  # noqa: F401 the launchers of that rung stand beside
from .conv2d_cupy import (
    FILTERS,
    MOST_Y,
    fits_forward,
    fits_grad_w,
    fits_grad_x,
    output_size,
    patch_for,
    shared_forward,
    shared_grad_x,
    shared_pays_forward,
    shared_pays_grad_x,
)
from .implicit_gemm_numba_cuda import add_parts

LEAST = (2 if jit.SIMULATED else 16) * THREADS  # elements of gy in one part of grad_b's sum


# -- direct ------------------------------------------------------------------------------------------------------------


@jit.typed
def conv2d_forward_direct_kernel(real):
    """One thread one output: every place of its window that lies inside, in every channel."""
    zero = real(0)

    def forward(y, x, w, b, biased, size, groups, CG, FG, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top, left):
        number = cuda.grid(1)
        if number < size:
            plane, i, j = place_of(number, OH, OW)
            F = np.int32(groups * FG)
            n = quotient(plane, F)
            f = np.int32(plane - n * F)
            iy, ix = np.int32(i * sh - top), np.int32(j * sw - left)
            k_begin, k_end = inside_of(iy, dh, KH, H)
            l_begin, l_end = inside_of(ix, dw, KW, W)
            pixels, weights = image_of(n, groups, quotient(f, FG), CG, H * W), np.int64(f) * CG * KH * KW
            sum = zero
            for _ in range(CG):
                for k in range(k_begin, k_end):
                    for l in range(l_begin, l_end):
                        pixel = np.int32((iy + k * dh) * W + ix + l * dw)
                        sum += x[np.uint64(pixels + pixel)] * w[np.uint64(weights + np.int32(k * KW + l))]
                pixels += np.int32(H * W)
                weights += np.int32(KH * KW)
            y[number] = sum + b[np.uint64(f)] if biased else sum

    return forward


@kernel("conv2d.forward", backend="numba_cuda", variant="direct", when=fits_forward)
def conv2d_forward_direct(x, w, b, *, stride, padding, dilation, groups):
    """One thread an output."""
    x, w = contiguous(x), contiguous(w)
    OH, OW = output_size(x, w, stride, padding, dilation)
    y = empty((x.shape[0], w.shape[0], OH, OW), x)
    sizes = groups, w.shape[1], w.shape[0] // groups, *x.shape[2:], OH, OW, *w.shape[2:]
    windows = sizes_32(*sizes, *stride, *dilation, padding[0], padding[2])
    arguments = (y, x, w, *_bias(b, w), y.size, *windows)
    conv2d_forward_direct_kernel(x)((cdiv(y.size, THREADS),), (THREADS,), arguments)
    return y


@jit.typed
def conv2d_grad_x_direct_kernel(real):
    """One thread one pixel, which gathers from the outputs whose windows hold it: no two threads add to one pixel."""
    zero = real(0)

    def grad_x(gx, gy, w, size, groups, CG, FG, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top, left):
        number = cuda.grid(1)
        if number < size:
            plane, iy, ix = place_of(number, H, W)
            area, window = np.int32(OH * OW), np.int32(CG * KH * KW)
            group = quotient(plane, CG)
            n = quotient(group, groups)
            g = np.int32(group - n * groups)
            c = np.int32(plane - group * CG)
            sum = zero
            for k in range(KH):
                i = output_at(np.int32(iy + top - k * dh), sh, OH)
                for l in range(KW if i >= 0 else 0):
                    j = output_at(np.int32(ix + left - l * dw), sw, OW)
                    if j >= 0:
                        gradient = image_of(n, groups, g, FG, area) + np.int32(i * OW + j)
                        tap = np.int64(g) * FG * window + np.int32((c * KH + k) * KW + l)
                        for _ in range(FG):
                            sum += gy[np.uint64(gradient)] * w[np.uint64(tap)]
                            gradient += area
                            tap += window
            gx[number] = sum

    return grad_x


@kernel("conv2d.grad_x", backend="numba_cuda", variant="direct", when=fits_grad_x)
def conv2d_grad_x_direct(gy, w, *, input_size, stride, padding, dilation, groups):
    """One thread a pixel, which gathers."""
    gy, w = contiguous(gy), contiguous(w)
    gx = empty((gy.shape[0], w.shape[1] * groups, *input_size), gy)
    sizes = groups, w.shape[1], w.shape[0] // groups, *input_size, *gy.shape[2:], *w.shape[2:]
    windows = sizes_32(*sizes, *stride, *dilation, padding[0], padding[2])
    conv2d_grad_x_direct_kernel(gy)((cdiv(gx.size, THREADS),), (THREADS,), (gx, gy, w, gx.size, *windows))
    return gx


@jit.typed
def conv2d_grad_w_direct_kernel(real):
    """One block one weight: its threads share out the outputs of all images, and add up in a fixed order."""
    zero = real(0)

    def grad_w(gw, gy, x, images, groups, CG, FG, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top, left):
        scratch = cuda.shared.array(32, real)
        line = quotient(cuda.blockIdx.x, KW)
        channel = quotient(line, KH)
        f = quotient(channel, CG)
        down = np.int32((line - channel * KH) * dh - top)
        right = np.int32((cuda.blockIdx.x - line * KW) * dw - left)
        c = np.int32(quotient(f, FG) * CG + channel - f * CG)
        F, C = np.int32(groups * FG), np.int32(groups * CG)
        at, hop = place_of(cuda.threadIdx.x, OH, OW), place_of(cuda.blockDim.x, OH, OW)
        sum = zero
        while at[0] < images:
            n, i, j = at
            iy, ix = np.int32(i * sh + down), np.int32(j * sw + right)
            gradient = gy[np.uint64((np.int64(n) * F + f) * OH * OW + np.int32(i * OW + j))]
            pixel = zero  # the padding counts: beside it a gradient of inf makes NaN, as in the definition
            if 0 <= iy < H and 0 <= ix < W:
                pixel = x[np.uint64((np.int64(n) * C + c) * H * W + np.int32(iy * W + ix))]
            sum += gradient * pixel
            at = advance(at, hop, OH, OW)
        sum = block_sum(sum, scratch)
        if cuda.threadIdx.x == 0:
            gw[cuda.blockIdx.x] = sum

    return grad_w


@kernel("conv2d.grad_w", backend="numba_cuda", variant="direct", when=fits_grad_w)
def conv2d_grad_w_direct(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """One block a weight."""
    gy, x = contiguous(gy), contiguous(x)
    (N, F, OH, OW), CG = gy.shape, x.shape[1] // groups
    gw = empty((F, CG, *kernel_size), x)
    sizes = N, groups, CG, F // groups, *x.shape[2:], OH, OW, *kernel_size
    windows = sizes_32(*sizes, *stride, *dilation, padding[0], padding[2])
    conv2d_grad_w_direct_kernel(x)((gw.size,), (THREADS,), (gw, gy, x, *windows))
    return gw


@jit.typed
def conv2d_grad_b_direct_kernel(real):
    """One block one filter in some of the images, 16 bytes at a time where planes are whole packs."""
    zero, LANES = real(0), lanes(real)
    load = load_four if LANES == 4 else load_two

    def grad_b(gb, gy, images, F, area, packs):
        scratch = cuda.shared.array(32, real)
        f, part, parts, width = cuda.blockIdx.x, cuda.blockIdx.y, cuda.gridDim.y, LANES if packs else 1
        begin, end = np.int32(np.int64(images) * part // parts), np.int32(np.int64(images) * (part + 1) // parts)
        each = quotient(area, width)  # what the threads share out: packs of a plane, or elements
        at, hop = place_of(cuda.threadIdx.x, np.int32(1), each), place_of(cuda.blockDim.x, np.int32(1), each)
        sum = zero
        while begin + at[0] < end:
            first = (np.int64(begin + at[0]) * F + f) * area + at[2] * width
            if packs:
                pack = load(gy, first)
                for m in range(LANES):
                    sum += pack[m]
            else:
                sum += gy[np.uint64(first)]
            at = advance(at, hop, np.int32(1), each)
        sum = block_sum(sum, scratch)
        if cuda.threadIdx.x == 0:
            gb[part * F + f] = sum

    return grad_b


@kernel("conv2d.grad_b", backend="numba_cuda", variant="direct", when=is_real)
def conv2d_grad_b_direct(gy):
    """Some blocks a filter, of which each sums over some of the images."""
    gy = contiguous(gy)
    N, F, OH, OW = gy.shape
    gb = empty((F,), gy)
    # With all filters no more parts than keep a device busy.
    parts = max(1, min(N, N * OH * OW // LEAST, cdiv(8 * door.multiprocessors(gy), max(F, 1)), MOST_Y))
    to = gb if parts == 1 else empty((parts, F), gy)
    packs = OH * OW % lanes(gy.dtype) == 0 and door.address(gy) % 16 == 0
    conv2d_grad_b_direct_kernel(gy)((F, parts), (THREADS,), (to, gy, *sizes_32(N, F, OH * OW), packs))
    return gb if parts == 1 else add_parts(gb, to, parts)


# -- shared ------------------------------------------------------------------------------------------------------------


@jit.typed
def conv2d_forward_shared_kernel(real):
    """A block a patch of down x across outputs of one image, a thread PIXELS pixels of FILTERS filters.

    What the patch reads of ``depth`` channels, and the weights for it, lie in shared memory. Columns with the same
    ix % sw lie side by side: a warp reads neighbours at any stride. w_f, w_c and w_k are the steps in w from filter to
    filter, channel to channel and place to place; the first one is w[w_first].
    """
    zero, PIXELS = real(0), lanes(real)
    SUMS, LANES = FILTERS * PIXELS, lanes(real)
    load = load_four if LANES == 4 else load_two

    def forward(
        y, x, w, b, biased, groups, channels, filters, depth, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top, left,
        down, across, w_first, w_f, w_c, w_k,
    ):  # fmt: skip
        room = cuda.shared.array(0, real, 16)  # weights [depth][places][pitch], then the patch [depth][rows][sw][run]
        tx, ty, wide = np.int32(cuda.threadIdx.x), np.int32(cuda.threadIdx.y), np.int32(cuda.blockDim.x)
        places, width = np.int32(KH * KW), np.int32(FILTERS * cuda.blockDim.y)
        pitch = np.int32(width + LANES)  # so that rows begin in other banks
        rows, cols = np.int32((down - 1) * sh + (KH - 1) * dh + 1), np.int32((across - 1) * sw + (KW - 1) * dw + 1)
        run = quotient(cols + sw - 1, sw)
        row_step, patch = np.int32(run * sw), np.int32(depth * places * pitch)

        tiles_across, tiles_down = quotient(OW + across - 1, across), quotient(OH + down - 1, down)
        tiles_f = quotient(filters + width - 1, width)
        tile_f, tile_y, tile_x = place_of(cuda.blockIdx.x, tiles_down, tiles_across)
        n, g, tile_f = place_of(tile_f, groups, tiles_f)
        first_f, first_y, first_x = np.int32(tile_f * width), np.int32(tile_y * down), np.int32(tile_x * across)
        iy, ix = np.int32(first_y * sh - top), np.int32(first_x * sw - left)
        image, of_group = image_of(n, groups, g, channels, H * W), w_first + np.int64(g) * filters * channels * places

        own = cuda.local.array(PIXELS, np.int32)
        pixel = cuda.local.array(PIXELS, real)
        sum = cuda.local.array(SUMS, real)
        for i in range(SUMS):
            sum[i] = zero
        for j in range(PIXELS):
            p = np.int32(tx + j * wide)
            row = quotient(p, across)
            own[j] = row * sh * row_step + p - row * across if row < down else 0  # or computes another one's pixel
        t = np.int32(ty * wide + tx)
        warp, lane, warps = t >> 5, t & 31, np.int32(wide * cuda.blockDim.y) >> 5
        for first_c in range(0, channels, depth):
            some = np.int32(min(depth, channels - first_c))
            cuda.syncthreads()  # nobody reads the channels before these any more
            for r in range(warp, some * rows, warps):  # a warp a row
                c = quotient(r, rows)
                row = np.int32(iy + r - c * rows)
                source = image + np.int64(first_c + c) * H * W + np.int32(row * W + ix)
                for col in range(lane, cols, 32):
                    run_of = quotient(col, sw)
                    to = np.int32(patch + r * row_step + (col - run_of * sw) * run + run_of)
                    room[np.uint64(to)] = x[np.uint64(source + col)] if 0 <= row < H and 0 <= ix + col < W else zero
            for f in range(warp, width, warps):  # a warp a filter
                source = of_group + np.int32((first_f + f) * w_f + first_c * w_c)
                for e in range(lane, some * places, 32):
                    c = quotient(e, places)
                    tap = source + np.int32(c * w_c + (e - c * places) * w_k)
                    room[np.uint64(e * pitch + f)] = w[np.uint64(tap)] if first_f + f < filters else zero
            cuda.syncthreads()  # patch and weights are there
            for k in range(KH):
                for l in range(KW):
                    right = quotient(l * dw, sw)
                    place = np.int32(patch + k * dh * row_step + (l * dw - right * sw) * run + right)
                    taps = np.int32((k * KW + l) * pitch + FILTERS * ty)
                    for _ in range(some):
                        for j in range(PIXELS):
                            pixel[j] = room[np.uint64(place + own[j])]
                        for i in range(0, FILTERS, LANES):
                            pack = load(room, taps + i)
                            for m in range(LANES):
                                for j in range(PIXELS):
                                    sum[(i + m) * PIXELS + j] += pack[m] * pixel[j]
                        place = np.int32(place + rows * row_step)
                        taps = np.int32(taps + places * pitch)
        for j in range(PIXELS):
            row = quotient(tx + j * wide, across)
            oy, ox = np.int32(first_y + row), np.int32(first_x + tx + j * wide - row * across)
            own[j] = oy * OW + ox if row < down and oy < OH and ox < OW else -1
        result = image_of(n, groups, g, filters, OH * OW)
        for i in range(FILTERS):
            f = np.int32(first_f + FILTERS * ty + i)
            if f < filters:
                bias = b[np.uint64(g * filters + f)] if biased else zero
                for j in range(PIXELS):
                    if own[j] >= 0:
                        y[np.uint64(result + np.int32(f * OH * OW + own[j]))] = sum[i * PIXELS + j] + bias

    return forward


@kernel("conv2d.forward", backend="numba_cuda", variant="shared", when=shared_forward, pays=shared_pays_forward)
def conv2d_forward_shared(x, w, b, *, stride, padding, dilation, groups):
    """A block keeps a patch of x and the weights for it in shared memory."""
    y = empty((x.shape[0], w.shape[0], *output_size(x, w, stride, padding, dilation)), x)
    _, CG, KH, KW = w.shape
    steps = 0, CG * KH * KW, KH * KW, 1
    return _slide(y, x, w, b, stride, (padding[0], padding[2]), dilation, groups, steps)


@kernel("conv2d.grad_x", backend="numba_cuda", variant="shared", when=shared_grad_x, pays=shared_pays_grad_x)
def conv2d_grad_x_shared(gy, w, *, input_size, stride, padding, dilation, groups):
    """As forward: the convolution of gy with turned windows, filters and channels exchanged."""
    gx = empty((gy.shape[0], w.shape[1] * groups, *input_size), gy)
    _, CG, KH, KW = w.shape
    corner = dilation[0] * (KH - 1) - padding[0], dilation[1] * (KW - 1) - padding[2]
    steps = KH * KW - 1, KH * KW, CG * KH * KW, -1  # of w: the first place, then from channel to channel and so on
    return _slide(gx, gy, w, None, stride, corner, dilation, groups, steps)


def _slide(y, x, w, b, stride, corner, dilation, groups, steps):
    """Fills y with the convolution of x."""
    if y.size == 0:
        return y
    x, w = contiguous(x), contiguous(w)
    (N, C, H, W), (_, F, OH, OW), window = x.shape, y.shape, tuple(w.shape[2:])
    channels, filters = C // groups, F // groups
    sizes = channels, filters, (OH, OW), window, tuple(stride), tuple(dilation), x.itemsize
    patch: Any = patch_for(*sizes)  # there is one: `when` has asked
    tiles = cdiv(OH, patch.down) * cdiv(OW, patch.across) * cdiv(filters, FILTERS * patch.chunks)
    sizes = groups, channels, filters, patch.depth, H, W, OH, OW, *window, *stride, *dilation, *corner
    arguments = (y, x, w, *_bias(b, w), *sizes_32(*sizes, patch.down, patch.across, *steps))
    block = patch.threads, patch.chunks
    conv2d_forward_shared_kernel(x)((tiles * groups * N,), block, arguments, patch.shared)
    return y


def _bias(b, w):
    """The bias, or another array that nobody reads, and which of the two."""
    return (w, False) if b is None else (contiguous(b), True)
