"""adaptive_max_pool2d on Numba-CUDA: the rungs of adaptive_max_pool2d.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/adaptive_max_pool2d.py

from math import prod

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..adaptive_avg_pool2d.adaptive_avg_pool2d_numba_cuda import BATCH, BLOCK, WARPS
from ..common.launching import contiguous, empty
from ..common.pooling_numba import (
    ALL_LANES,
    challenge,
    place_of,
    quotient,
    share_start,
    share_start_32,
    share_stop,
    share_stop_32,
    sizes_32,
    store_few,
)
from ..common.shapes import cdiv
from .adaptive_max_pool2d_cupy import lanes_for, lanes_forward, lanes_pay, packs_grad_x, plain

# -- forward -----------------------------------------------------------------------------------------------------------


@jit.typed
def adaptive_max_pool2d_forward_plain_kernel(real):
    """One thread one output."""

    def forward(y, index, x, outputs, H, W, OH, OW):
        o = cuda.grid(1)
        if o < outputs:
            plane, i, j = place_of(o, OH, OW)
            left, right = share_start(j, W, OW), share_stop(j, W, OW)
            place = share_start(i, H, OH) * W + left
            best = x[np.uint64(plane * H * W + place)]
            for iy in range(share_start(i, H, OH), share_stop(i, H, OH)):
                for ix in range(left, right):
                    value = x[np.uint64((plane * H + iy) * W + ix)]
                    wins = value > best or value != value  # the first of equals, the last NaN
                    best = value if wins else best
                    place = iy * W + ix if wins else place
            y[o] = best
            index[o] = place

    return forward


@kernel("adaptive_max_pool2d.forward", backend="numba_cuda", variant="plain", when=plain)
def adaptive_max_pool2d_forward_plain(x, *, output_size):
    """One thread an output."""
    x, y, index = _outputs(x, output_size)
    run = adaptive_max_pool2d_forward_plain_kernel(x)
    run((cdiv(y.size, THREADS),), (THREADS,), (y, index, x, y.size, *x.shape[2:], *output_size))
    return y, index


@jit.device
def better(a, a_place, b, b_place):
    """Of two winners of one window, seen by different threads, the one that wins both.

    Of NaN the last in row order, else the larger, of equals the first.
    """
    if b != b:
        b_wins = a == a or b_place > a_place
    else:
        b_wins = b > a or (b == a and b_place < a_place)  # neither, where a is NaN
    return (b if b_wins else a), (b_place if b_wins else a_place)


@jit.typed
def adaptive_max_pool2d_forward_lanes_kernel(real):
    """8 threads, a warp or a block one window: neighbouring threads read neighbouring pixels, BATCH loads under way."""
    lowest = real(-np.inf)
    whole = np.int32

    def forward(y, index, x, outputs, H, W, OH, OW, lanes):
        of_warps = cuda.shared.array(WARPS, real)
        places = cuda.shared.array(WARPS, whole)
        part = cuda.local.array(BATCH, real)
        thread = np.int32(cuda.threadIdx.x)
        group = quotient(thread, lanes)
        lane = np.int32(thread - group * lanes)
        first = cuda.blockIdx.x * quotient(BLOCK, lanes) + group
        o = np.int32(first if first < outputs else 0)  # who has no window stays for the shuffles, with the first one
        line = quotient(o, OW)
        plane = quotient(line, OH)
        i, j = np.int32(line - plane * OH), np.int32(o - line * OW)
        top, left = share_start_32(i, H, OH), share_start_32(j, W, OW)
        rows, cols = share_stop_32(i, H, OH) - top, share_stop_32(j, W, OW) - left
        image, start = np.int64(plane) * H * W, np.int32(top * W + left)
        if cols == W:  # one run of memory
            rows, cols = 1, rows * cols
        best, place = lowest, start  # the first place, which stays where all is -inf
        for k in range(rows):
            row = np.int32(start + k * W)
            for at in range(lane, cols, BATCH * lanes):
                for b in range(BATCH):
                    part[b] = lowest
                    if at + b * lanes < cols:
                        part[b] = x[np.uint64(image + np.int32(row + at + b * lanes))]
                for b in range(BATCH):
                    best, place = challenge(best, place, part[b], row + at + b * lanes)
        apart = min(lanes, 32) // 2
        while apart > 0:
            other = cuda.shfl_xor_sync(ALL_LANES, best, apart)
            best, place = better(best, place, other, cuda.shfl_xor_sync(ALL_LANES, place, apart))
            apart //= 2
        if lanes > 32:
            if thread % 32 == 0:
                of_warps[thread // 32] = best
                places[thread // 32] = place
            cuda.syncthreads()
            for w in range(WARPS):
                best, place = better(best, place, of_warps[w], places[w])
        if first < outputs and lane == 0:
            y[o] = best
            index[o] = place

    return forward


@kernel("adaptive_max_pool2d.forward", backend="numba_cuda", variant="lanes", when=lanes_forward, pays=lanes_pay)
def adaptive_max_pool2d_forward_lanes(x, *, output_size):
    """A group of lanes, or a block, one output."""
    x, y, index = _outputs(x, output_size)
    lanes = min(lanes_for(x.shape[2:], output_size), BLOCK)
    run = adaptive_max_pool2d_forward_lanes_kernel(x)
    sizes = sizes_32(y.size, *x.shape[2:], *output_size, lanes)
    run((cdiv(y.size, BLOCK // lanes),), (BLOCK,), (y, index, x, *sizes))
    return y, index


# -- grad_x ------------------------------------------------------------------------------------------------------------


@jit.typed
def adaptive_max_pool2d_grad_x_plain_kernel(real):
    """One thread one pixel, which asks every window that holds it, in the order of the outputs."""
    zero = real(0)

    def grad_x(gx, gy, index, pixels, H, W, OH, OW):
        p = cuda.grid(1)
        if p < pixels:
            plane, iy, ix = place_of(p, H, W)
            total = zero
            for i in range(share_start(iy, OH, H), share_stop(iy, OH, H)):
                for j in range(share_start(ix, OW, W), share_stop(ix, OW, W)):
                    o = np.uint64((plane * OH + i) * OW + j)
                    if index[o] == iy * W + ix:
                        total += gy[o]
            gx[p] = total

    return grad_x


@kernel("adaptive_max_pool2d.grad_x", backend="numba_cuda", variant="plain", when=plain)
def adaptive_max_pool2d_grad_x_plain(gy, index, *, input_size):
    """One thread a pixel."""
    gy, index, gx = contiguous(gy), contiguous(index), empty((*gy.shape[:2], *input_size), gy)
    run = adaptive_max_pool2d_grad_x_plain_kernel(gy)
    run((cdiv(gx.size, THREADS),), (THREADS,), (gx, gy, index, gx.size, *input_size, *gy.shape[2:]))
    return gx


@jit.typed
def adaptive_max_pool2d_grad_x_packs_kernel(real):
    """One thread 16 bytes of gx, over the ends of rows and planes, with 32-bit divisions."""
    zero = real(0)
    LANES = 16 // np.dtype(real).itemsize

    def grad_x(gx, gy, index, pixels, H, W, OH, OW):
        first, area = cuda.grid(1) * LANES, np.int32(H * W)
        out = cuda.local.array(LANES, real)
        if first < pixels:
            plane = quotient(first, area)
            rest = np.int32(first - plane * area)
            for b in range(LANES):
                if rest == area:
                    rest = np.int32(0)
                    plane = np.int32(plane + 1)
                out[b] = zero
                if first + b < pixels:
                    first_i, last_i, first_j, last_j = 0, 1, 0, 1
                    if OH * OW > 1:  # one window an image needs no division
                        iy = quotient(rest, W)
                        ix = np.int32(rest - iy * W)
                        first_i, last_i = share_start_32(iy, OH, H), share_stop_32(iy, OH, H)
                        first_j, last_j = share_start_32(ix, OW, W), share_stop_32(ix, OW, W)
                    for i in range(first_i, last_i):
                        for j in range(first_j, last_j):
                            o = np.uint64(np.int32((plane * OH + i) * OW + j))
                            if index[o] == rest:
                                out[b] += gy[o]
                rest = np.int32(rest + 1)
            if first + LANES <= pixels:
                store_few(gx, first, LANES, out, 0)
            else:
                for b in range(LANES):
                    if first + b < pixels:
                        gx[np.uint64(first + b)] = out[b]

    return grad_x


@kernel("adaptive_max_pool2d.grad_x", backend="numba_cuda", variant="packs", when=packs_grad_x)
def adaptive_max_pool2d_grad_x_packs(gy, index, *, input_size):
    """One thread 16 bytes of the gradient."""
    gy, index, gx = contiguous(gy), contiguous(index), empty((*gy.shape[:2], *input_size), gy)
    run = adaptive_max_pool2d_grad_x_packs_kernel(gy)
    sizes = sizes_32(gx.size, *input_size, *gy.shape[2:])
    run((cdiv(cdiv(gx.nbytes, 16), THREADS),), (THREADS,), (gx, gy, index, *sizes))
    return gx


# -- gather ------------------------------------------------------------------------------------------------------------


@jit.typed
def adaptive_max_pool2d_gather_plain_kernel(real):
    """One thread one output: the index, and the one pixel it names."""

    def gather(y, x, index, outputs, pixels, windows):
        o = cuda.grid(1)
        if o < outputs:
            y[o] = x[np.uint64(o // windows * pixels + index[o])]

    return gather


@kernel("adaptive_max_pool2d.gather", backend="numba_cuda", variant="plain", when=plain)
def adaptive_max_pool2d_gather_plain(x, index):
    """One thread an output."""
    x, index = contiguous(x), contiguous(index)
    y = empty(index.shape, x)
    run = adaptive_max_pool2d_gather_plain_kernel(x)
    run((cdiv(y.size, THREADS),), (THREADS,), (y, x, index, y.size, prod(x.shape[2:]), prod(index.shape[2:])))
    return y


def _outputs(x, output_size):
    """x in C order, and room for y and index."""
    shape = (*x.shape[:2], *output_size)
    return contiguous(x), empty(shape, x), empty(shape, x, np.int64)
