// adaptive_max_pool2d in CUDA C++: the rungs of kernels/adaptive_max_pool2d/__init__.py, in its order.
// op: gpunet/ops/adaptive_max_pool2d.py      launchers: adaptive_max_pool2d_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/adaptive_max_pool2d/adaptive_max_pool2d.cu

#ifndef real
#error "adaptive_max_pool2d.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"
#include "common/pooling.cuh"

#define BATCH 8  // loads that a thread of the rung "lanes" has under way

// adaptive_max_pool2d_forward_plain
//
//   thread     one output
//   block      256 neighbouring outputs
//   shared     none
//   reads      every pixel once for each window that holds it
//   needs      contiguous arrays
//   over definition  one pass, and no array of padded windows
extern "C" __global__ void adaptive_max_pool2d_forward_plain(real* __restrict__ y, long long* __restrict__ index,
                                                             const real* __restrict__ x, long long outputs,
                                                             long long H, long long W, long long OH, long long OW) {
    long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (o >= outputs) return;
    long long line = o / OW, i = line % OH, j = o % OW;
    const real* image = x + line / OH * H * W;
    long long top = share_start(i, H, OH), bottom = share_stop(i, H, OH);
    long long left = share_start(j, W, OW), right = share_stop(j, W, OW);
    long long place = top * W + left;
    real best = image[place];
    for (long long iy = top; iy < bottom; ++iy) {
        for (long long ix = left; ix < right; ++ix) {
            real value = image[iy * W + ix];
            bool wins = value > best || value != value;  // the first of equals, the last NaN
            best = wins ? value : best;
            place = wins ? iy * W + ix : place;
        }
    }
    y[o] = best;
    index[o] = place;
}

// adaptive_max_pool2d_grad_x_plain
//
//   thread     one pixel
//   block      256 neighbouring pixels
//   shared     none
//   reads      the index of every window that holds the pixel, and gy where the pixel won
//   needs      contiguous arrays
//   over definition  one pass without atomics: pixels ask the windows, in the order of the outputs
extern "C" __global__ void adaptive_max_pool2d_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                            const long long* __restrict__ index, long long pixels,
                                                            long long H, long long W, long long OH, long long OW) {
    long long p = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= pixels) return;
    long long line = p / W, iy = line % H, ix = p % W, first = line / H * OH * OW;
    long long last_i = share_stop(iy, OH, H), first_j = share_start(ix, OW, W), last_j = share_stop(ix, OW, W);
    real sum = 0;
    for (long long i = share_start(iy, OH, H); i < last_i; ++i) {
        for (long long j = first_j; j < last_j; ++j) {
            long long o = first + i * OW + j;
            if (index[o] == iy * W + ix) sum += gy[o];
        }
    }
    gx[p] = sum;
}

// adaptive_max_pool2d_gather_plain
//
//   thread     one output
//   block      256 neighbouring outputs
//   shared     none
//   reads      the index, and the one pixel it names
//   needs      contiguous arrays; `pixels` and `windows` are those of one plane
//   over definition  every output has its own thread
extern "C" __global__ void adaptive_max_pool2d_gather_plain(real* __restrict__ y, const real* __restrict__ x,
                                                            const long long* __restrict__ index, long long outputs,
                                                            long long pixels, long long windows) {
    long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (o < outputs) y[o] = x[o / windows * pixels + index[o]];
}

// Of two winners of one window, seen by different threads, the one that wins both: of NaN the last in row order, else
// the larger, of equals the first.
__device__ __forceinline__ Best better(const Best& a, const Best& b) {
    bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    bool b_wins = b_nan ? !a_nan || b.place > a.place
                        : !a_nan && (b.value > a.value || (b.value == a.value && b.place < a.place));
    return {b_wins ? b.value : a.value, b_wins ? b.place : a.place};
}
__device__ __forceinline__ Best better_of_lanes(Best best, int lanes) {
    for (int apart = lanes / 2; apart > 0; apart /= 2) {
        Best other = {__shfl_xor_sync(ALL_LANES, best.value, apart), __shfl_xor_sync(ALL_LANES, best.place, apart)};
        best = better(best, other);
    }
    return best;
}

// adaptive_max_pool2d_forward_lanes
//
//   thread     every lanes-th pixel of a window's rows
//   block      256 threads: 256 / lanes windows
//   shared     8 winners, where a window has the whole block
//   reads      every pixel once for each window that holds it, neighbouring threads neighbouring pixels; a window as
//              wide as the image is one run of memory
//   needs      contiguous arrays, 32-bit indices; lanes 8, 32 or 256
//   over plain  a warp's loads are neighbours in memory, where plain reads one pixel of 32 windows; BATCH loads of a
//               thread are under way together, and few large windows still fill the device
extern "C" __global__ void adaptive_max_pool2d_forward_lanes(real* __restrict__ y, long long* __restrict__ index,
                                                             const real* __restrict__ x, int outputs, int H, int W,
                                                             int OH, int OW, int lanes) {
    __shared__ Best of_warps[8];
    int windows = blockDim.x / lanes, lane = threadIdx.x % lanes;
    long long first = static_cast<long long>(blockIdx.x) * windows + threadIdx.x / lanes;
    bool mine = first < outputs;  // who has no window stays for the shuffles, with the first one
    int o = mine ? static_cast<int>(first) : 0;
    int line = o / OW, i = line % OH, j = o % OW;
    int top = share_start(i, H, OH), rows = share_stop(i, H, OH) - top;
    int left = share_start(j, W, OW), cols = share_stop(j, W, OW) - left;
    const real* image = x + static_cast<long long>(line / OH) * H * W;
    int from = top * W + left;  // place of the row
    if (cols == W) {
        cols *= rows;
        rows = 1;
    }
    Best best = {LOWEST, from};  // the first place, which stays where all is -inf
    for (int k = 0; k < rows; ++k, from += W) {
        for (int l = lane; l < cols; l += BATCH * lanes) {
            real part[BATCH];
#pragma unroll
            for (int b = 0; b < BATCH; ++b) part[b] = l + b * lanes < cols ? image[from + l + b * lanes] : LOWEST;
#pragma unroll
            for (int b = 0; b < BATCH; ++b) challenge(best, part[b], from + l + b * lanes);
        }
    }
    best = better_of_lanes(best, min(lanes, 32));
    if (lanes > 32) {
        if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = best;
        __syncthreads();
        best = better_of_lanes(of_warps[threadIdx.x % 8], 8);
    }
    if (mine && lane == 0) {
        y[o] = best.value;
        index[o] = best.place;
    }
}

// adaptive_max_pool2d_grad_x_packs
//
//   thread     16 bytes of gx: LANES neighbouring pixels, over the ends of rows and planes
//   block      256 neighbouring packs
//   shared     none
//   reads      as plain; under one window an image reads its one index and gy, from the first-level cache
//   needs      contiguous arrays of fewer than 2^31 elements, 32-bit products of sizes
//   over plain  32-bit divisions, one chain of them for 16 bytes, and wide stores
extern "C" __global__ void adaptive_max_pool2d_grad_x_packs(real* __restrict__ gx, const real* __restrict__ gy,
                                                            const long long* __restrict__ index, int pixels, int H,
                                                            int W, int OH, int OW) {
    long long pack = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pack * LANES >= pixels) return;
    int first = static_cast<int>(pack) * LANES, area = H * W;
    int plane = first / area, rest = first % area;
    bool one = OH * OW == 1;
    Pack out;
#pragma unroll
    for (int b = 0; b < LANES; ++b) {
        if (rest == area) {
            rest = 0;
            ++plane;
        }
        real sum = 0;
        if (first + b < pixels) {
            int iy = one ? 0 : rest / W, ix = one ? 0 : rest % W;
            int last_i = one ? 1 : share_stop(iy, OH, H), last_j = one ? 1 : share_stop(ix, OW, W);
            int first_j = one ? 0 : share_start(ix, OW, W);
            for (int i = one ? 0 : share_start(iy, OH, H); i < last_i; ++i) {
                for (int j = first_j; j < last_j; ++j) {
                    int o = plane * OH * OW + i * OW + j;
                    if (index[o] == rest) sum += gy[o];
                }
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
