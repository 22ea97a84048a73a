"""adaptive_avg_pool2d on Numba-CUDA: the rungs of adaptive_avg_pool2d.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/adaptive_avg_pool2d.py

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import SIMULATED, THREADS, cuda
from gpunet.dispatch import kernel

from ..common.launching import contiguous, empty
from ..common.pooling_numba import (
    ALL_LANES,
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
from .adaptive_avg_pool2d_cupy import lanes_for, lanes_forward, lanes_pay, packs_grad_x, plain

BATCH = 8  # loads that a thread of the rung "lanes" has under way
BLOCK = 64 if SIMULATED else 256  # threads of its blocks, and for one large window
WARPS = BLOCK // 32

# -- forward -----------------------------------------------------------------------------------------------------------


@jit.typed
def adaptive_avg_pool2d_forward_plain_kernel(real):
    """One thread one output; rows apart, as in the definition: short sums err less than one long one."""
    zero = real(0)

    def forward(y, x, outputs, H, W, OH, OW):
        o = cuda.grid(1)
        if o < outputs:
            plane, i, j = place_of(o, OH, OW)
            top, bottom = share_start(i, H, OH), share_stop(i, H, OH)
            left, right = share_start(j, W, OW), share_stop(j, W, OW)
            total = zero
            for iy in range(top, bottom):
                row = zero
                for ix in range(left, right):
                    row += x[np.uint64((plane * H + iy) * W + ix)]
                total += row
            y[o] = total / real((bottom - top) * (right - left))

    return forward


@kernel("adaptive_avg_pool2d.forward", backend="numba_cuda", variant="plain", when=plain)
def adaptive_avg_pool2d_forward_plain(x, *, output_size):
    """One thread an output."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    run = adaptive_avg_pool2d_forward_plain_kernel(x)
    run((cdiv(y.size, THREADS),), (THREADS,), (y, x, y.size, *x.shape[2:], *output_size))
    return y


@jit.typed
def adaptive_avg_pool2d_forward_lanes_kernel(real):
    """8 threads, a warp or a block one window: neighbouring threads read neighbouring pixels, BATCH loads under way."""
    zero = real(0)

    def forward(y, x, outputs, H, W, OH, OW, lanes):
        of_warps = cuda.shared.array(WARPS, real)
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
        area = rows * cols
        start = (np.int64(plane) * H + top) * W + left
        if cols == W:  # one run of memory
            rows, cols = 1, area
        total = zero
        for k in range(rows):
            for at in range(lane, cols, BATCH * lanes):
                for b in range(BATCH):
                    part[b] = zero
                    if at + b * lanes < cols:
                        part[b] = x[np.uint64(start + k * W + at + b * lanes)]
                for b in range(BATCH):
                    total += part[b]
        apart = min(lanes, 32) // 2
        while apart > 0:
            total += cuda.shfl_xor_sync(ALL_LANES, total, apart)
            apart //= 2
        if lanes > 32:
            if thread % 32 == 0:
                of_warps[thread // 32] = total
            cuda.syncthreads()
            total = zero
            for w in range(WARPS):
                total += of_warps[w]
        if first < outputs and lane == 0:
            y[o] = total / real(area)

    return forward


@kernel("adaptive_avg_pool2d.forward", backend="numba_cuda", variant="lanes", when=lanes_forward, pays=lanes_pay)
def adaptive_avg_pool2d_forward_lanes(x, *, output_size):
    """A group of lanes, or a block, one output."""
    x, y = contiguous(x), empty((*x.shape[:2], *output_size), x)
    lanes = min(lanes_for(x.shape[2:], output_size), BLOCK)
    run = adaptive_avg_pool2d_forward_lanes_kernel(x)
    sizes = sizes_32(y.size, *x.shape[2:], *output_size, lanes)
    run((cdiv(y.size, BLOCK // lanes),), (BLOCK,), (y, x, *sizes))
    return y


# -- grad_x ------------------------------------------------------------------------------------------------------------


@jit.typed
def adaptive_avg_pool2d_grad_x_plain_kernel(real):
    """One thread one pixel, which adds a share of gy of every window that holds it."""
    zero = real(0)

    def grad_x(gx, gy, pixels, H, W, OH, OW):
        p = cuda.grid(1)
        if p < pixels:
            plane, iy, ix = place_of(p, H, W)
            total = zero
            for i in range(share_start(iy, OH, H), share_stop(iy, OH, H)):
                rows = share_stop(i, H, OH) - share_start(i, H, OH)
                for j in range(share_start(ix, OW, W), share_stop(ix, OW, W)):
                    cols = share_stop(j, W, OW) - share_start(j, W, OW)
                    total += gy[np.uint64((plane * OH + i) * OW + j)] / real(rows * cols)
            gx[p] = total

    return grad_x


@kernel("adaptive_avg_pool2d.grad_x", backend="numba_cuda", variant="plain", when=plain)
def adaptive_avg_pool2d_grad_x_plain(gy, *, input_size):
    """One thread a pixel."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    run = adaptive_avg_pool2d_grad_x_plain_kernel(gy)
    run((cdiv(gx.size, THREADS),), (THREADS,), (gx, gy, gx.size, *input_size, *gy.shape[2:]))
    return gx


@jit.device
def share_of(real, gy, out, H, W, OH, OW, iy, ix):
    """The gradient of pixel (iy, ix), with 32-bit divisions."""
    total = real(0)
    for i in range(share_start_32(iy, OH, H), share_stop_32(iy, OH, H)):
        rows = share_stop_32(i, H, OH) - share_start_32(i, H, OH)
        for j in range(share_start_32(ix, OW, W), share_stop_32(ix, OW, W)):
            cols = share_stop_32(j, W, OW) - share_start_32(j, W, OW)
            total += gy[np.uint64(out + np.int32(i * OW + j))] / real(np.int32(rows * cols))
    return total


@jit.typed
def adaptive_avg_pool2d_grad_x_packs_kernel(real):
    """One thread 16 bytes of gx, over the ends of rows and planes; under one window an image one share serves a run."""
    LANES = 16 // np.dtype(real).itemsize

    def grad_x(gx, gy, pixels, H, W, OH, OW):
        first, area = cuda.grid(1) * LANES, np.int32(H * W)
        out = cuda.local.array(LANES, real)
        if first < pixels:
            plane = quotient(first, area)
            rest = np.int32(first - plane * area)
            if OH * OW == 1 and first + LANES <= pixels:
                share = gy[np.uint64(plane)] / real(area)
                for b in range(LANES):
                    if rest + b == area:
                        plane = np.int32(plane + 1)
                        rest = np.int32(rest - area)
                        share = gy[np.uint64(plane)] / real(area)
                    out[b] = share
                store_few(gx, first, LANES, out, 0)
            else:
                for p in range(first, min(first + LANES, pixels)):
                    iy = quotient(rest, W)
                    gx[np.uint64(p)] = share_of(real, gy, plane * OH * OW, H, W, OH, OW, iy, np.int32(rest - iy * W))
                    rest = np.int32(rest + 1)
                    if rest == area:
                        plane, rest = np.int32(plane + 1), np.int32(0)

    return grad_x


@kernel("adaptive_avg_pool2d.grad_x", backend="numba_cuda", variant="packs", when=packs_grad_x)
def adaptive_avg_pool2d_grad_x_packs(gy, *, input_size):
    """One thread 16 bytes of the gradient."""
    gy, gx = contiguous(gy), empty((*gy.shape[:2], *input_size), gy)
    run = adaptive_avg_pool2d_grad_x_packs_kernel(gy)
    sizes = sizes_32(gx.size, *input_size, *gy.shape[2:])
    run((cdiv(cdiv(gx.nbytes, 16), THREADS),), (THREADS,), (gx, gy, *sizes))
    return gx
