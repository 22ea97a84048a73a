// adaptive_avg_pool2d in CUDA C++: the rungs of kernels/adaptive_avg_pool2d/__init__.py, in its order.
// op: gpunet/ops/adaptive_avg_pool2d.py      launchers: adaptive_avg_pool2d_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/adaptive_avg_pool2d/adaptive_avg_pool2d.cu

#ifndef real
#error "adaptive_avg_pool2d.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"
#include "common/pooling.cuh"

#define BATCH 8  // loads that a thread of the rung "lanes" has under way

// adaptive_avg_pool2d_forward_plain
//
//   thread     one output
//   block      256 neighbouring outputs
//   shared     none
//   reads      every pixel once for each window that holds it
//   needs      contiguous arrays
//   over definition  one pass, and no array of padded windows
extern "C" __global__ void adaptive_avg_pool2d_forward_plain(real* __restrict__ y, const real* __restrict__ x,
                                                             long long outputs, long long H, long long W,
                                                             long long OH, long long OW) {
    long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (o >= outputs) return;
    long long line = o / OW, i = line % OH, j = o % OW;
    const real* image = x + line / OH * H * W;
    long long top = share_start(i, H, OH), bottom = share_stop(i, H, OH);
    long long left = share_start(j, W, OW), right = share_stop(j, W, OW);
    real sum = 0;
    for (long long iy = top; iy < bottom; ++iy) {
        real row = 0;  // rows apart, as in the definition: short sums err less than one long one
        for (long long ix = left; ix < right; ++ix) row += image[iy * W + ix];
        sum += row;
    }
    y[o] = sum / real((bottom - top) * (right - left));
}

// adaptive_avg_pool2d_grad_x_plain
//
//   thread     one pixel
//   block      256 neighbouring pixels
//   shared     none
//   reads      gy of every window that holds the pixel
//   needs      contiguous arrays
//   over definition  one pass, and no array of padded windows
extern "C" __global__ void adaptive_avg_pool2d_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                            long long pixels, long long H, long long W,
                                                            long long OH, long long OW) {
    long long p = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= pixels) return;
    long long line = p / W, iy = line % H, ix = p % W;
    const real* g = gy + line / H * OH * OW;
    long long last_i = share_stop(iy, OH, H), first_j = share_start(ix, OW, W), last_j = share_stop(ix, OW, W);
    real sum = 0;
    for (long long i = share_start(iy, OH, H); i < last_i; ++i) {
        for (long long j = first_j; j < last_j; ++j)
            sum += g[i * OW + j] / real(share_length(i, H, OH) * share_length(j, W, OW));
    }
    gx[p] = sum;
}

// adaptive_avg_pool2d_forward_lanes
//
//   thread     every lanes-th pixel of a window's rows
//   block      256 threads: 256 / lanes windows
//   shared     32 elements, where a window has the whole block
//   reads      every pixel once for each window that holds it, neighbouring threads neighbouring pixels; a window as
//              wide as the image is one run of memory
//   needs      contiguous arrays, 32-bit indices; lanes 8, 32 or 256
//   over plain  a warp's loads are neighbours in memory, where plain reads one pixel of 32 windows; BATCH loads of a
//               thread are under way together, and few large windows still fill the device
extern "C" __global__ void adaptive_avg_pool2d_forward_lanes(real* __restrict__ y, const real* __restrict__ x,
                                                             int outputs, int H, int W, int OH, int OW, int lanes) {
    __shared__ real scratch[32];
    int windows = blockDim.x / lanes, lane = threadIdx.x % lanes;
    long long first = static_cast<long long>(blockIdx.x) * windows + threadIdx.x / lanes;
    bool mine = first < outputs;  // who has no window stays for the shuffles, with the first one
    int o = mine ? static_cast<int>(first) : 0;
    int line = o / OW, i = line % OH, j = o % OW;
    int top = share_start(i, H, OH), rows = share_stop(i, H, OH) - top;
    int left = share_start(j, W, OW), cols = share_stop(j, W, OW) - left;
    int area = rows * cols;
    const real* from = x + (static_cast<long long>(line / OH) * H + top) * W + left;
    if (cols == W) {
        cols = area;
        rows = 1;
    }
    real sum = 0;
    for (int k = 0; k < rows; ++k, from += W) {
        for (int l = lane; l < cols; l += BATCH * lanes) {
            real part[BATCH];
#pragma unroll
            for (int b = 0; b < BATCH; ++b) part[b] = l + b * lanes < cols ? from[l + b * lanes] : real(0);
#pragma unroll
            for (int b = 0; b < BATCH; ++b) sum += part[b];
        }
    }
    if (lanes > 32) {
        sum = block_sum(sum, scratch);
    } else {
        for (int apart = lanes / 2; apart > 0; apart /= 2) sum += __shfl_xor_sync(ALL_LANES, sum, apart);
    }
    if (mine && lane == 0) y[o] = sum / real(area);
}

// adaptive_avg_pool2d_grad_x_packs
//
//   thread     16 bytes of gx: LANES neighbouring pixels, over the ends of rows and planes
//   block      256 neighbouring packs
//   shared     none
//   reads      as plain; under one window an image reads its one gy, from the first-level cache
//   needs      contiguous arrays of fewer than 2^31 elements, 32-bit products of sizes
//   over plain  32-bit divisions, one chain of them for 16 bytes; under one window a share is divided once for a run of
//               pixels; wide stores
extern "C" __global__ void adaptive_avg_pool2d_grad_x_packs(real* __restrict__ gx, const real* __restrict__ gy,
                                                            int pixels, int H, int W, int OH, int OW) {
    long long pack = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pack * LANES >= pixels) return;
    int first = static_cast<int>(pack) * LANES, area = H * W;
    int plane = first / area, rest = first % area;
    bool one = OH * OW == 1;
    real share = one ? gy[plane] / real(area) : real(0);
    Pack out;
#pragma unroll
    for (int b = 0; b < LANES; ++b) {
        if (rest == area) {
            rest = 0;
            ++plane;
            if (one && first + b < pixels) share = gy[plane] / real(area);
        }
        real sum = share;
        if (!one && first + b < pixels) {
            const real* g = gy + plane * OH * OW;
            int iy = rest / W, ix = rest % W;
            int last_i = share_stop(iy, OH, H), first_j = share_start(ix, OW, W), last_j = share_stop(ix, OW, W);
            for (int i = share_start(iy, OH, H); i < last_i; ++i) {
                for (int j = first_j; j < last_j; ++j)
                    sum += g[i * OW + j] / real(share_length(i, H, OH) * share_length(j, W, OW));
            }
        }
        out.v[b] = sum;
        ++rest;
    }
    if (first <= pixels - LANES) {
        store_pack(gx, pack, out);
    } else {
#pragma unroll
        for (int b = 0; b < LANES; ++b) {
            if (first + b < pixels) gx[first + b] = out.v[b];
        }
    }
}
