// layer_norm in CUDA C++: the rungs of kernels/layer_norm/__init__.py, in its order.
// op: gpunet/ops/layer_norm.py      launchers: layer_norm_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/layer_norm/layer_norm.cu
//
// Row r of x (R, D) begins at r * D. Where w or b is a null pointer it stands for ones or zeros. Rows are centred in
// two steps, as in the definition: by the mean rounded to `real`, which loses nothing, then by the rest of the mean.

#ifndef real
#error "layer_norm.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

constexpr int WARP = 32;
constexpr int TALL = 8;  // rows of threads in a block that covers columns
constexpr int RUN = 8;   // rows of a column that are summed in `real` before double takes over

// The sums of a block, or of a warp: what the kernels below are written for.
struct OverBlock {
    double* scratch;
    __device__ __forceinline__ double operator()(double value) const { return block_sum(value, scratch); }
};
struct OverWarp {
    __device__ __forceinline__ double operator()(double value) const { return warp_sum(value); }
};

// What the values of a short run are taken relative to, so that their sum in `real` is as good as one in double: the
// first of them. Not an infinity, which would make NaN of an infinite sum.
__device__ __forceinline__ real near(real first) { return first - first == real(0) ? first : real(0); }

// The mean of a row, as rounded and as the rest; and what becomes of a value x: centred, scaled, w and b applied.
struct Centre {
    real mean, rest;
    __device__ __forceinline__ real operator()(real x) const { return (x - mean) - rest; }
};
__device__ __forceinline__ Centre centre(double mean) {
    real rounded = real(mean);
    return {rounded, real(mean - double(rounded))};
}
__device__ __forceinline__ real inverse(double squares, int D, double eps) {
    return real(1.0 / sqrt(squares / double(D) + eps));
}
__device__ __forceinline__ real finished(real centred, real invstd, const real* w, const real* b, int d) {
    real y = centred * invstd;
    if (w) y *= w[d];
    if (b) y += b[d];
    return y;
}

// layer_norm_forward_plain
//
//   thread     every 256th value of a row
//   block      one row
//   shared     a double a warp, for the sums
//   reads      x three times: for the mean, for the variance, for y; a row is in the cache after the first
//   needs      contiguous arrays
//   over definition  rows at the same time, and no copy of x between the passes
extern "C" __global__ void layer_norm_forward_plain(real* __restrict__ y, real* __restrict__ mean,
                                                    real* __restrict__ invstd, const real* __restrict__ x,
                                                    const real* __restrict__ w, const real* __restrict__ b,
                                                    long long R, int D, double eps) {
    __shared__ double scratch[WARP];
    OverBlock total{scratch};
    long long r = blockIdx.x;
    if (r >= R) return;
    const real* row = x + r * D;
    double sum = 0, squares = 0;
    for (int d = threadIdx.x; d < D; d += blockDim.x) sum += double(row[d]);
    Centre centred = centre(total(sum) / double(D));
    for (int d = threadIdx.x; d < D; d += blockDim.x) squares += double(centred(row[d]) * centred(row[d]));
    real factor = inverse(total(squares), D, eps);
    for (int d = threadIdx.x; d < D; d += blockDim.x) y[r * D + d] = finished(centred(row[d]), factor, w, b, d);
    if (threadIdx.x == 0) {
        mean[r] = centred.mean;
        invstd[r] = factor;
    }
}

// layer_norm_grad_wb_plain
//
//   thread     one column, all rows of it
//   block      256 neighbouring columns
//   shared     none
//   reads      gy and x once, neighbouring threads neighbouring columns
//   needs      contiguous arrays
//   over definition  columns at the same time
extern "C" __global__ void layer_norm_grad_wb_plain(real* __restrict__ gw, real* __restrict__ gb,
                                                    const real* __restrict__ gy, const real* __restrict__ x,
                                                    const real* __restrict__ mean,
                                                    const real* __restrict__ invstd, long long R, int D) {
    int d = blockIdx.x * blockDim.x + threadIdx.x;
    if (d >= D) return;
    double products = 0, plain = 0;
    for (long long r = 0; r < R; ++r) {
        real g = gy[r * D + d];
        products += double(g * ((x[r * D + d] - mean[r]) * invstd[r]));
        plain += double(g);
    }
    gw[d] = real(products);
    gb[d] = real(plain);
}

// layer_norm_grad_x_plain: as layer_norm_forward_plain, with gy and x read twice: for both means, and for gx.
extern "C" __global__ void layer_norm_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                   const real* __restrict__ x, const real* __restrict__ w,
                                                   const real* __restrict__ mean, const real* __restrict__ invstd,
                                                   long long R, int D) {
    __shared__ double scratch[WARP];
    OverBlock total{scratch};
    long long r = blockIdx.x;
    if (r >= R) return;
    real m = mean[r], factor = invstd[r];
    double products = 0, plain = 0;
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        real xhat = (x[r * D + d] - m) * factor, g = w ? gy[r * D + d] * w[d] : gy[r * D + d];
        products += double(g * xhat);
        plain += double(g);
    }
    real slope = real(total(products) / double(D)), level = real(total(plain) / double(D));
    for (int d = threadIdx.x; d < D; d += blockDim.x) {
        real xhat = (x[r * D + d] - m) * factor, g = w ? gy[r * D + d] * w[d] : gy[r * D + d];
        gx[r * D + d] = (g - level - xhat * slope) * factor;
    }
}

// -- split: the sums over rows ----------------------------------------------------------------------------------------

// W neighbours at once: 1 or LANES.
template <int W>
struct __align__(W * sizeof(real)) Few {
    real v[W];
};
template <int W>
__device__ __forceinline__ Few<W> load(const real* from, long long at) {
    return reinterpret_cast<const Few<W>*>(from)[at];
}

// A block has WARP * W columns and `chunk` rows of them, thread row k the rows k, k + TALL, ... of those. The columns'
// sums go to partial (2, parts, D): first gw's, then gb's.
template <int W>
__device__ __forceinline__ void column_sums(double* partial, const real* gy, const real* x, const real* mean,
                                            const real* invstd, int R, int D, int chunk) {
    __shared__ double sums[2][TALL][W][WARP];
    int lane = threadIdx.x % WARP, row = threadIdx.x / WARP, steps = D / W;
    int step = blockIdx.x * WARP + lane, first = blockIdx.y * chunk;
    int stop = step < steps ? min(first + chunk, R) : 0;
    double products[W] = {}, plain[W] = {};
    for (int r = first + row; r < stop; r += RUN * TALL) {
        Few<W> g[RUN], value[RUN];
        real m[RUN], factor[RUN];
        int filled = 0;
#pragma unroll
        for (int k = 0; k < RUN; ++k) {
            int n = r + k * TALL;
            if (n >= stop) continue;
            g[k] = load<W>(gy, static_cast<long long>(n) * steps + step);
            value[k] = load<W>(x, static_cast<long long>(n) * steps + step);
            m[k] = mean[n];
            factor[k] = invstd[n];
            filled = k + 1;
        }
#pragma unroll
        for (int i = 0; i < W; ++i) {
            real product = 0, sum = 0;
#pragma unroll
            for (int k = 0; k < RUN; ++k) {
                product += k < filled ? g[k].v[i] * ((value[k].v[i] - m[k]) * factor[k]) : real(0);
                sum += k < filled ? g[k].v[i] : real(0);
            }
            products[i] += double(product);
            plain[i] += double(sum);
        }
    }
#pragma unroll
    for (int i = 0; i < W; ++i) {
        sums[0][row][i][lane] = products[i];
        sums[1][row][i][lane] = plain[i];
    }
    __syncthreads();
    // 2 * W * WARP sums of TALL each, in the order of the rows of threads.
    for (int k = threadIdx.x; k < 2 * W * WARP; k += blockDim.x) {
        int which = k / (W * WARP), i = k / WARP % W, column = (blockIdx.x * WARP + k % WARP) * W + i;
        if (column >= D) continue;
        double all = 0;
#pragma unroll
        for (int t = 0; t < TALL; ++t) all += sums[which][t][i][k % WARP];
        partial[(static_cast<long long>(which) * gridDim.y + blockIdx.y) * D + column] = all;
    }
}

// layer_norm_grad_wb_split
//
//   thread     every 8th row of its part of a column, 8 rows of gy and x at a time
//   block      a part of the rows of 32 columns
//   shared     two doubles a thread
//   reads      gy and x once, a warp 32 neighbouring columns
//   needs      fewer than 2^30 rows and columns; contiguous arrays
//   over plain  as many blocks as the GPU can run at a time, however few columns there are
extern "C" __global__ void layer_norm_grad_wb_split(double* __restrict__ partial, const real* __restrict__ gy,
                                                    const real* __restrict__ x, const real* __restrict__ mean,
                                                    const real* __restrict__ invstd, long long R, int D, int chunk) {
    column_sums<1>(partial, gy, x, mean, invstd, R, D, chunk);
}

// layer_norm_grad_wb_split_combine
//
//   thread     every 8th part of a column
//   block      32 columns
//   shared     two doubles a thread
//   reads      the parts once, neighbouring threads neighbouring columns
extern "C" __global__ void layer_norm_grad_wb_split_combine(real* __restrict__ gw, real* __restrict__ gb,
                                                            const double* __restrict__ partial, int D, int parts) {
    __shared__ double sums[2][TALL][WARP];
    int lane = threadIdx.x % WARP, row = threadIdx.x / WARP, column = blockIdx.x * WARP + lane;
    double products = 0, plain = 0;
#pragma unroll 4
    for (int k = row; k < parts; k += TALL) {
        if (column >= D) break;
        products += partial[static_cast<long long>(k) * D + column];
        plain += partial[static_cast<long long>(parts + k) * D + column];
    }
    sums[0][row][lane] = products;
    sums[1][row][lane] = plain;
    __syncthreads();
    if (row > 1 || column >= D) return;
    double all = 0;
#pragma unroll
    for (int t = 0; t < TALL; ++t) all += sums[row][t][lane];
    (row == 0 ? gw : gb)[column] = real(all);
}

// -- warp: a row in the registers of a warp ---------------------------------------------------------------------------

// Lane l has the values (l + 32 k) * W ..., k < STEPS, of its warp's row. What is behind the row's end is 0 and is left
// out of the sums of squares.
template <int W, int STEPS>
__device__ __forceinline__ void forward_row(real* y, real* mean, real* invstd, const real* x, const real* w,
                                            const real* b, long long R, int D, double eps) {
    int lane = threadIdx.x % WARP, steps = D / W;
    long long r = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (r >= R) return;
    Few<W> row[STEPS];
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        row[k] = {};
        if (lane + k * WARP < steps) row[k] = load<W>(x, r * steps + lane + k * WARP);
    }
    constexpr int LONG = W > 1 ? 1 : 4;  // steps of a run: 4 values or, of doubles, 2
    double sum = 0;
#pragma unroll
    for (int k = 0; k < STEPS; k += LONG) {
        real origin = near(row[k].v[0]), run = 0;
        int count = 0;
#pragma unroll
        for (int j = k; j < k + LONG; ++j) {
            count += lane + j * WARP < steps ? W : 0;
#pragma unroll
            for (int i = 0; i < W; ++i) run += lane + j * WARP < steps ? row[j].v[i] - origin : real(0);
        }
        sum += double(origin) * double(count) + double(run);
    }
    Centre centred = centre(warp_sum(sum) / double(D));
    double squares = 0;
#pragma unroll
    for (int k = 0; k < STEPS; k += LONG) {
        real run = 0;
#pragma unroll
        for (int j = k; j < k + LONG; ++j)
#pragma unroll
            for (int i = 0; i < W; ++i) {
                row[j].v[i] = centred(row[j].v[i]);
                run += lane + j * WARP < steps ? row[j].v[i] * row[j].v[i] : real(0);
            }
        squares += double(run);
    }
    real factor = inverse(warp_sum(squares), D, eps);
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        int s = lane + k * WARP;
        if (s >= steps) continue;
        Few<W> scale = {}, shift = {}, result;
        if (w) scale = load<W>(w, s);
        if (b) shift = load<W>(b, s);
#pragma unroll
        for (int i = 0; i < W; ++i) {
            real value = row[k].v[i] * factor;
            if (w) value *= scale.v[i];
            result.v[i] = b ? value + shift.v[i] : value;
        }
        reinterpret_cast<Few<W>*>(y)[r * steps + s] = result;
    }
    if (lane == 0) {
        mean[r] = centred.mean;
        invstd[r] = factor;
    }
}

template <int W, int STEPS>
__device__ __forceinline__ void grad_x_row(real* gx, const real* gy, const real* x, const real* w, const real* mean,
                                           const real* invstd, long long R, int D) {
    int lane = threadIdx.x % WARP, steps = D / W;
    long long r = (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
    if (r >= R) return;
    real m = mean[r], factor = invstd[r];
    Few<W> g[STEPS], xhat[STEPS];
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        int s = lane + k * WARP;
        g[k] = {};
        xhat[k] = {};
        if (s < steps) {
            g[k] = load<W>(gy, r * steps + s);
            xhat[k] = load<W>(x, r * steps + s);
        }
    }
    double products = 0, plain = 0;
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        int s = lane + k * WARP;
        if (s >= steps) continue;
        Few<W> scale = {};
        if (w) scale = load<W>(w, s);
        real product = 0, sum = 0;
#pragma unroll
        for (int i = 0; i < W; ++i) {
            xhat[k].v[i] = (xhat[k].v[i] - m) * factor;
            if (w) g[k].v[i] *= scale.v[i];
            product += g[k].v[i] * xhat[k].v[i];
            sum += g[k].v[i];
        }
        products += double(product);
        plain += double(sum);
    }
    real slope = real(warp_sum(products) / double(D)), level = real(warp_sum(plain) / double(D));
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        int s = lane + k * WARP;
        if (s >= steps) continue;
        Few<W> result;
#pragma unroll
        for (int i = 0; i < W; ++i) result.v[i] = (g[k].v[i] - level - xhat[k].v[i] * slope) * factor;
        reinterpret_cast<Few<W>*>(gx)[r * steps + s] = result;
    }
}

// layer_norm_forward_warp
//
//   thread     every 32nd value of a row, at most 32 of them, in registers
//   block      8 rows, a warp a row
//   shared     none: the sums go through warp shuffles, without a barrier
//   reads      x once, a warp 32 neighbours at a time
//   needs      D from 1 to 1024; contiguous arrays
//   over plain  x is read once, no barriers, and a short row does not idle most of a block
extern "C" __global__ void layer_norm_forward_warp(real* __restrict__ y, real* __restrict__ mean,
                                                   real* __restrict__ invstd, const real* __restrict__ x,
                                                   const real* __restrict__ w, const real* __restrict__ b,
                                                   long long R, int D, double eps) {
    forward_row<1, 32>(y, mean, invstd, x, w, b, R, D, eps);
}

// layer_norm_forward_warp_short: as layer_norm_forward_warp, but for D up to 256, with a quarter of the registers and
// so more rows at a time.
extern "C" __global__ void layer_norm_forward_warp_short(real* __restrict__ y, real* __restrict__ mean,
                                                         real* __restrict__ invstd, const real* __restrict__ x,
                                                         const real* __restrict__ w, const real* __restrict__ b,
                                                         long long R, int D, double eps) {
    forward_row<1, 8>(y, mean, invstd, x, w, b, R, D, eps);
}

// layer_norm_grad_x_warp: as layer_norm_forward_warp, but gy and x are read once and kept: twice the registers.
extern "C" __global__ void layer_norm_grad_x_warp(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const real* __restrict__ x, const real* __restrict__ w,
                                                  const real* __restrict__ mean, const real* __restrict__ invstd,
                                                  long long R, int D) {
    grad_x_row<1, 32>(gx, gy, x, w, mean, invstd, R, D);
}

// layer_norm_grad_x_warp_short: as layer_norm_grad_x_warp, but for D up to 256, with a quarter of the registers.
extern "C" __global__ void layer_norm_grad_x_warp_short(real* __restrict__ gx, const real* __restrict__ gy,
                                                        const real* __restrict__ x, const real* __restrict__ w,
                                                        const real* __restrict__ mean,
                                                        const real* __restrict__ invstd, long long R, int D) {
    grad_x_row<1, 8>(gx, gy, x, w, mean, invstd, R, D);
}

// layer_norm_forward_vectorised
//
//   thread     every 32nd 16 bytes of a row, at most 32 values
//   block      8 rows, a warp a row
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      D from 1 to 1024 and a multiple of the values in 16 bytes; arrays that begin at a multiple of 16 bytes
//   over warp  a quarter of the load and store instructions, half in double
extern "C" __global__ void layer_norm_forward_vectorised(real* __restrict__ y, real* __restrict__ mean,
                                                         real* __restrict__ invstd, const real* __restrict__ x,
                                                         const real* __restrict__ w, const real* __restrict__ b,
                                                         long long R, int D, double eps) {
    forward_row<LANES, 32 / LANES>(y, mean, invstd, x, w, b, R, D, eps);
}

// layer_norm_forward_vectorised_short: as layer_norm_forward_vectorised, but for D up to 256, with a quarter of the
// registers.
extern "C" __global__ void layer_norm_forward_vectorised_short(real* __restrict__ y, real* __restrict__ mean,
                                                               real* __restrict__ invstd,
                                                               const real* __restrict__ x,
                                                               const real* __restrict__ w,
                                                               const real* __restrict__ b, long long R, int D,
                                                               double eps) {
    forward_row<LANES, 8 / LANES>(y, mean, invstd, x, w, b, R, D, eps);
}

// layer_norm_forward_vectorised_long
//
//   thread     every 256th (of 512 threads: 512th) 16 bytes of a row
//   block      one row
//   shared     the row where it fits (`held`), and a double a warp for the sums
//   reads      x once where the row is held, else three times
//   needs      D above 0 and a multiple of the values in 16 bytes; arrays that begin at a multiple of 16 bytes
//   over plain  a long row comes from memory once, 16 bytes a load
extern "C" __global__ void layer_norm_forward_vectorised_long(real* __restrict__ y, real* __restrict__ mean,
                                                              real* __restrict__ invstd, const real* __restrict__ x,
                                                              const real* __restrict__ w, const real* __restrict__ b,
                                                              long long R, int D, bool held, double eps) {
    extern __shared__ double room[];
    OverBlock total{room};
    real* copy = reinterpret_cast<real*>(room + WARP);
    long long r = blockIdx.x;
    if (r >= R) return;
    const real* row = x + r * D;
    double sum = 0, squares = 0;
#pragma unroll 4
    for (int s = threadIdx.x; s < D / LANES; s += blockDim.x) {
        Pack pack = load_pack(row, s);
        if (held) store_pack(copy, s, pack);
        real origin = near(pack.v[0]), run = 0;
#pragma unroll
        for (int i = 0; i < LANES; ++i) run += pack.v[i] - origin;
        sum += double(origin) * double(LANES) + double(run);
    }
    // A thread reads only what it kept itself, so there is nothing to wait for but the sums.
    if (held) row = copy;
    Centre centred = centre(total(sum) / double(D));
#pragma unroll 4
    for (int s = threadIdx.x; s < D / LANES; s += blockDim.x) {
        Pack pack = load_pack(row, s);
        real run = 0;
#pragma unroll
        for (int i = 0; i < LANES; ++i) run += centred(pack.v[i]) * centred(pack.v[i]);
        squares += double(run);
    }
    real factor = inverse(total(squares), D, eps);
#pragma unroll 2
    for (int s = threadIdx.x; s < D / LANES; s += blockDim.x) {
        Pack pack = load_pack(row, s), scale = {}, shift = {};
        if (w) scale = load_pack(w, s);
        if (b) shift = load_pack(b, s);
#pragma unroll
        for (int i = 0; i < LANES; ++i) {
            real value = centred(pack.v[i]) * factor;
            if (w) value *= scale.v[i];
            pack.v[i] = b ? value + shift.v[i] : value;
        }
        store_pack(y + r * D, s, pack);
    }
    if (threadIdx.x == 0) {
        mean[r] = centred.mean;
        invstd[r] = factor;
    }
}

// layer_norm_grad_wb_vectorised: as layer_norm_grad_wb_split, but 16 bytes of neighbouring columns a thread; needs as
// layer_norm_forward_vectorised, with D of any length.
extern "C" __global__ void layer_norm_grad_wb_vectorised(double* __restrict__ partial, const real* __restrict__ gy,
                                                         const real* __restrict__ x, const real* __restrict__ mean,
                                                         const real* __restrict__ invstd, long long R, int D,
                                                         int chunk) {
    column_sums<LANES>(partial, gy, x, mean, invstd, R, D, chunk);
}

// layer_norm_grad_x_vectorised: as layer_norm_forward_vectorised, but gy and x are read once and kept.
extern "C" __global__ void layer_norm_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                        const real* __restrict__ x, const real* __restrict__ w,
                                                        const real* __restrict__ mean,
                                                        const real* __restrict__ invstd, long long R, int D) {
    grad_x_row<LANES, 32 / LANES>(gx, gy, x, w, mean, invstd, R, D);
}

// layer_norm_grad_x_vectorised_short: as layer_norm_grad_x_vectorised, but for D up to 256, with a quarter of the
// registers.
extern "C" __global__ void layer_norm_grad_x_vectorised_short(real* __restrict__ gx, const real* __restrict__ gy,
                                                              const real* __restrict__ x,
                                                              const real* __restrict__ w,
                                                              const real* __restrict__ mean,
                                                              const real* __restrict__ invstd, long long R, int D) {
    grad_x_row<LANES, 8 / LANES>(gx, gy, x, w, mean, invstd, R, D);
}

// layer_norm_grad_x_vectorised_long: as layer_norm_forward_vectorised_long, but g and xhat are held: twice the room.
extern "C" __global__ void layer_norm_grad_x_vectorised_long(real* __restrict__ gx, const real* __restrict__ gy,
                                                             const real* __restrict__ x, const real* __restrict__ w,
                                                             const real* __restrict__ mean,
                                                             const real* __restrict__ invstd, long long R, int D,
                                                             bool held) {
    extern __shared__ double room[];
    OverBlock total{room};
    real *held_g = reinterpret_cast<real*>(room + WARP), *held_xhat = held_g + D;
    long long r = blockIdx.x;
    if (r >= R) return;
    real m = mean[r], factor = invstd[r];
    // The s-th packs of g = gy * w and of xhat.
    auto fetch = [&](int s, Pack& g, Pack& xhat) {
        g = load_pack(gy + r * D, s);
        xhat = load_pack(x + r * D, s);
        Pack scale = {};
        if (w) scale = load_pack(w, s);
#pragma unroll
        for (int i = 0; i < LANES; ++i) {
            if (w) g.v[i] *= scale.v[i];
            xhat.v[i] = (xhat.v[i] - m) * factor;
        }
    };
    double products = 0, plain = 0;
#pragma unroll 2
    for (int s = threadIdx.x; s < D / LANES; s += blockDim.x) {
        Pack g, xhat;
        fetch(s, g, xhat);
        if (held) store_pack(held_g, s, g);
        if (held) store_pack(held_xhat, s, xhat);
        real product = 0, sum = 0;
#pragma unroll
        for (int i = 0; i < LANES; ++i) {
            product += g.v[i] * xhat.v[i];
            sum += g.v[i];
        }
        products += double(product);
        plain += double(sum);
    }
    real slope = real(total(products) / double(D)), level = real(total(plain) / double(D));
#pragma unroll 2
    for (int s = threadIdx.x; s < D / LANES; s += blockDim.x) {
        Pack g, xhat;
        if (held) {
            g = load_pack(held_g, s);
            xhat = load_pack(held_xhat, s);
        } else {
            fetch(s, g, xhat);
        }
#pragma unroll
        for (int i = 0; i < LANES; ++i) g.v[i] = (g.v[i] - level - xhat.v[i] * slope) * factor;
        store_pack(gx + r * D, s, g);
    }
}
