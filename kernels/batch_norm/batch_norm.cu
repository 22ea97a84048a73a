// batch_norm in CUDA C++: the rungs of kernels/batch_norm/__init__.py, in its order.
// op: gpunet/ops/batch_norm.py      launchers: batch_norm_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/batch_norm/batch_norm.cu
//
// x (N, C, ...) is seen as (N, C, S). A channel is N rows of S neighbours, C * S apart. Where w or b is a null pointer
// it stands for ones or zeros. Statistics and factors are computed in double and rounded once; as in the definition,
// values are centred by the rounded mean, and what rounding took from it (delta) goes into the shift. Indices into a
// channel and into an image have 32 bits; N is passed in 64 because the whole of x may need them.

#ifndef real
#error "batch_norm.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

constexpr int WARP = 32;
constexpr int TALL = 8;    // rows of threads in a block that covers columns
constexpr int VALUES = 16;  // of a channel that are summed in `real` before double takes over

__device__ __forceinline__ double or_one(const real* v, int c) { return v ? double(v[c]) : 1.0; }
__device__ __forceinline__ double or_zero(const real* v, int c) { return v ? double(v[c]) : 0.0; }

// Where value j of channel c lies.
__device__ __forceinline__ long long place(long long j, int c, int C, int S) {
    return (j / S * C + c) * S + j % S;
}

// y = (x - mean) * scale + shift
struct Affine {
    real mean, scale, shift;
    __device__ __forceinline__ real operator()(real x) const { return (x - mean) * scale + shift; }
};

// gx = (x - mean) * slope + level + gy * factor
struct Slope {
    real mean, slope, level, factor;
    __device__ __forceinline__ real operator()(real gy, real x) const {
        return (x - mean) * slope + level + gy * factor;
    }
};

// Of a channel: what forward returns, and the factors of y.
struct Channel {
    real var, invstd;
    Affine affine;
};
__device__ __forceinline__ Channel channel(double mean, double var, double w, double b, double eps) {
    double invstd = 1.0 / sqrt(var + eps), scale = invstd * w;
    real rounded = real(mean);
    double delta = mean - double(rounded);
    return {real(var), real(invstd), {rounded, real(scale), real(b - delta * scale)}};
}
__device__ __forceinline__ Affine given(const real* mean, const real* var, const real* w, const real* b, int c,
                                        double eps) {
    return {mean[c], real(1.0 / sqrt(double(var[c]) + eps) * or_one(w, c)), real(or_zero(b, c))};
}
__device__ __forceinline__ Slope slope(const real* w, const real* mean, const real* invstd, const real* gw,
                                       const real* gb, int c, double count) {
    double factor = double(invstd[c]) * or_one(w, c);
    double slope = -factor * double(invstd[c]) * double(gw[c]) / count, level = -factor * double(gb[c]) / count;
    return {mean[c], real(slope), real(level), real(factor)};
}

// batch_norm_forward_plain
//
//   thread     every 256th value of a channel
//   block      one channel
//   shared     a double a warp, for the sums
//   reads      x three times: for the mean, for the variance, for y
//   needs      contiguous arrays
//   over definition  channels at the same time, and no copy of x between the passes
extern "C" __global__ void batch_norm_forward_plain(real* __restrict__ y, real* __restrict__ mean,
                                                    real* __restrict__ var, real* __restrict__ invstd,
                                                    const real* __restrict__ x, const real* __restrict__ w,
                                                    const real* __restrict__ b, int C, int S, long long count,
                                                    double eps) {
    __shared__ double scratch[WARP];
    int c = blockIdx.x;
    double sum = 0;
    for (long long j = threadIdx.x; j < count; j += blockDim.x) sum += double(x[place(j, c, C, S)]);
    double average = block_sum(sum, scratch) / double(count);  // 0 / 0 is the NaN that no values must give
    real m = real(average);
    double delta = average - double(m), squares = 0;
    for (long long j = threadIdx.x; j < count; j += blockDim.x) {
        real d = x[place(j, c, C, S)] - m;
        squares += double(d * d);
    }
    double spread = block_sum(squares, scratch) / double(count) - delta * delta;
    if (spread < 0.0) spread = 0.0;  // not fmax, which would swallow a NaN
    Channel found = channel(average, spread, or_one(w, c), or_zero(b, c), eps);
    if (threadIdx.x == 0) {
        mean[c] = found.affine.mean;
        var[c] = found.var;
        invstd[c] = found.invstd;
    }
    for (long long j = threadIdx.x; j < count; j += blockDim.x) {
        long long i = place(j, c, C, S);
        y[i] = found.affine(x[i]);
    }
}

// batch_norm_forward_eval_plain: as batch_norm_forward_plain, but with given statistics: no sums, nothing shared, and x
// is read once.
extern "C" __global__ void batch_norm_forward_eval_plain(real* __restrict__ y, const real* __restrict__ x,
                                                         const real* __restrict__ mean,
                                                         const real* __restrict__ var, const real* __restrict__ w,
                                                         const real* __restrict__ b, int C, int S, long long count,
                                                         double eps) {
    int c = blockIdx.x;
    Affine affine = given(mean, var, w, b, c, eps);
    for (long long j = threadIdx.x; j < count; j += blockDim.x) {
        long long i = place(j, c, C, S);
        y[i] = affine(x[i]);
    }
}

// batch_norm_grad_wb_plain: as the first pass of batch_norm_forward_plain, but with two sums; gy and x are read once.
extern "C" __global__ void batch_norm_grad_wb_plain(real* __restrict__ gw, real* __restrict__ gb,
                                                    const real* __restrict__ gy, const real* __restrict__ x,
                                                    const real* __restrict__ mean,
                                                    const real* __restrict__ invstd, int C, int S,
                                                    long long count) {
    __shared__ double scratch[WARP];
    int c = blockIdx.x;
    real m = mean[c];
    double products = 0, sum = 0;
    for (long long j = threadIdx.x; j < count; j += blockDim.x) {
        long long i = place(j, c, C, S);
        products += double((x[i] - m) * gy[i]);
        sum += double(gy[i]);
    }
    products = block_sum(products, scratch);
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        gw[c] = count ? real(products * double(invstd[c])) : real(0);  // without values invstd is NaN
        gb[c] = real(sum);
    }
}

// batch_norm_grad_x_plain: as the last pass of batch_norm_forward_plain, but gy and x are read once; nothing shared.
extern "C" __global__ void batch_norm_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                   const real* __restrict__ x, const real* __restrict__ w,
                                                   const real* __restrict__ mean, const real* __restrict__ invstd,
                                                   const real* __restrict__ gw, const real* __restrict__ gb, int C,
                                                   int S, long long count) {
    int c = blockIdx.x;
    Slope line = slope(w, mean, invstd, gw, gb, c, double(count));
    for (long long j = threadIdx.x; j < count; j += blockDim.x) {
        long long i = place(j, c, C, S);
        gx[i] = line(gy[i], x[i]);
    }
}

// batch_norm_grad_x_eval_plain: as batch_norm_grad_x_plain, but of gy alone: one product an element.
extern "C" __global__ void batch_norm_grad_x_eval_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                        const real* __restrict__ w,
                                                        const real* __restrict__ invstd, int C, int S,
                                                        long long count) {
    int c = blockIdx.x;
    real factor = real(double(invstd[c]) * or_one(w, c));
    for (long long j = threadIdx.x; j < count; j += blockDim.x) {
        long long i = place(j, c, C, S);
        gx[i] = gy[i] * factor;
    }
}

// -- split and vectorised: how the work is cut ------------------------------------------------------------------------
//
// The grid is groups x parts. All groups of one part come before those of the next, so the blocks that run at a time
// lie close together in memory, and the grid moves through it from one end to the other.
//
//   rows     a group is a channel; a part of it is `chunk` steps of W neighbours, taken row after row:
//
//              n = 0  [ c = 0 |#c = 1#| c = 2 ]      # a channel's rows; its steps are numbered through them
//              n = 1  [ c = 0 |#c = 1#| c = 2 ]
//
//   columns  for short rows: x is a matrix of N rows and C * S columns, a group is 32 neighbouring columns, a part of
//            it `chunk` rows. A column belongs to channel column / S; neighbouring threads have neighbouring columns.

template <int W>
struct __align__(W * sizeof(real)) Few {
    real v[W];
};
template <int W>
__device__ __forceinline__ Few<W> load(const real* from, long long at) {
    return reinterpret_cast<const Few<W>*>(from)[at];
}

struct Part {
    int group, part;
};
__device__ __forceinline__ Part forwards() { return {int(blockIdx.x), int(blockIdx.y)}; }
// From the other end: what the pass before read last, and the cache still holds, is read first.
__device__ __forceinline__ Part backwards() {
    return {int(gridDim.x - 1 - blockIdx.x), int(gridDim.y - 1 - blockIdx.y)};
}

// The steps of one thread. Moving on by a fixed number of steps needs no division.
struct Walk {
    int j, stop, step;                    // this step of the part, the end of the part
    int n, s, step_n, step_s, row_steps;  // the same as a row and a place in it
    long long base, row;                  // in units of W values

    __device__ __forceinline__ bool inside() const { return j < stop; }
    __device__ __forceinline__ long long at() const { return base + n * row + s; }
    __device__ __forceinline__ void next() {
        j += step;
        n += step_n;
        s += step_s;
        if (s >= row_steps) {
            s -= row_steps;
            ++n;
        }
    }
};
template <int W>
__device__ __forceinline__ Walk along_rows(Part here, int N, int C, int S, int chunk) {
    int row_steps = S / W, first = here.part * chunk, step = blockDim.x, j = first + threadIdx.x;
    return {j, min(first + chunk, N * row_steps), step, j / row_steps, j % row_steps, step / row_steps,
            step % row_steps, row_steps, static_cast<long long>(here.group) * row_steps,
            static_cast<long long>(C) * row_steps};
}
__device__ __forceinline__ Walk down_columns(Part here, int N, int C, int S, int chunk) {
    int first = here.part * chunk, j = first + threadIdx.x / WARP, column = here.group * WARP + threadIdx.x % WARP;
    int stop = column < C * S ? min(first + chunk, N) : 0;
    return {j, stop, TALL, j, 0, TALL, 0, 1, column, static_cast<long long>(C) * S};
}
template <int W>
__device__ __forceinline__ Walk walk(Part here, int N, int C, int S, int chunk, bool columns) {
    return columns ? down_columns(here, N, C, S, chunk) : along_rows<W>(here, N, C, S, chunk);
}

// The factors of the thread's channel. One thread a channel computes them, since double is slow on many GPUs.
template <class Factors, class Make>
__device__ __forceinline__ Factors shared_factors(Part here, int C, int S, bool columns, Make make) {
    __shared__ Factors all[WARP];
    int slot = columns ? threadIdx.x % WARP : 0;
    int c = columns ? (here.group * WARP + slot) / S : here.group;
    if (int(threadIdx.x) == slot && c < C) all[slot] = make(c);
    __syncthreads();
    return all[c < C ? slot : 0];
}

// out = f(in) and out = f(one, other), element by element along a walk; all loads of a round come before its stores.
template <int W, class F>
__device__ __forceinline__ void each(Walk at, real* out, const real* in, F f) {
    constexpr int RUN = VALUES / 2 / W;
    while (at.inside()) {
        long long places[RUN];
        Few<W> values[RUN];
#pragma unroll
        for (int k = 0; k < RUN; ++k, at.next()) {
            places[k] = at.inside() ? at.at() : -1;
            if (places[k] >= 0) values[k] = load<W>(in, places[k]);
        }
#pragma unroll
        for (int k = 0; k < RUN; ++k) {
            if (places[k] < 0) continue;
            Few<W> result;
#pragma unroll
            for (int i = 0; i < W; ++i) result.v[i] = f(values[k].v[i]);
            reinterpret_cast<Few<W>*>(out)[places[k]] = result;
        }
    }
}
template <int W, class F>
__device__ __forceinline__ void each(Walk at, real* out, const real* one, const real* other, F f) {
    constexpr int RUN = VALUES / 2 / W;
    while (at.inside()) {
        long long places[RUN];
        Few<W> left[RUN], right[RUN];
#pragma unroll
        for (int k = 0; k < RUN; ++k, at.next()) {
            places[k] = at.inside() ? at.at() : -1;
            if (places[k] >= 0) left[k] = load<W>(one, places[k]);
            if (places[k] >= 0) right[k] = load<W>(other, places[k]);
        }
#pragma unroll
        for (int k = 0; k < RUN; ++k) {
            if (places[k] < 0) continue;
            Few<W> result;
#pragma unroll
            for (int i = 0; i < W; ++i) result.v[i] = f(left[k].v[i], right[k].v[i]);
            reinterpret_cast<Few<W>*>(out)[places[k]] = result;
        }
    }
}

// -- statistics in one pass -------------------------------------------------------------------------------------------
//
// Short runs of values are centred by their own mean, in `real`; runs, threads and parts are merged in double by Chan,
// Golub and LeVeque's formula. Nowhere are two large numbers subtracted. The means that are merged are relative to the
// channel's first value, so that being far from 0 costs them no digits; the mean that forward returns is sum / count,
// which a wild first value does not touch, and which is infinite where x is.

struct Moments {
    double count, sum, mean, squares;  // squares: the sum of (x - mean)**2
};
__device__ __forceinline__ Moments merged(const Moments& a, const Moments& b) {
    double count = a.count + b.count, share = count > 0.0 ? b.count / count : 0.0, apart = b.mean - a.mean;
    return {count, a.sum + b.sum, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
}
// Over the warp in a fixed order; lane 0 has the result.
__device__ __forceinline__ Moments warp_merged(Moments all) {
#pragma unroll
    for (int apart = WARP / 2; apart > 0; apart /= 2) {
        Moments other = {__shfl_down_sync(ALL_LANES, all.count, apart), __shfl_down_sync(ALL_LANES, all.sum, apart),
                         __shfl_down_sync(ALL_LANES, all.mean, apart),
                         __shfl_down_sync(ALL_LANES, all.squares, apart)};
        all = merged(all, other);
    }
    return all;
}
// The value that a channel's means are relative to. If it is infinite they are NaN, and so is the channel.
__device__ __forceinline__ double origin(const real* x, int c, int S) {
    return double(x[static_cast<long long>(c) * S]);
}
// Of `filled` * W values, filled >= 1.
template <int W>
__device__ __forceinline__ Moments of_run(const Few<W> (&run)[VALUES / W], int filled, double origin) {
    real first = run[0].v[0], sum = 0, squares = 0, count = real(filled * W);
    if (!(first - first == real(0))) first = real(0);  // differences of infinities are NaN, their sum may be infinite
#pragma unroll
    for (int k = 0; k < VALUES / W; ++k)
#pragma unroll
        for (int i = 0; i < W; ++i) sum += k < filled ? run[k].v[i] - first : real(0);
    real mean = sum / count;
#pragma unroll
    for (int k = 0; k < VALUES / W; ++k)
#pragma unroll
        for (int i = 0; i < W; ++i) {
            real d = k < filled ? (run[k].v[i] - first) - mean : real(0);
            squares += d * d;
        }
    return {double(count), double(first) * double(count) + double(sum),
            (double(first) - origin) + double(sum) / double(count), double(squares)};
}
template <int W>
__device__ __forceinline__ Moments moments(Walk at, const real* x, double origin) {
    Moments all = {0, 0, 0, 0};
    while (at.inside()) {
        Few<W> run[VALUES / W];
        int filled = 0;
#pragma unroll
        for (int k = 0; k < VALUES / W; ++k, at.next()) {
            if (!at.inside()) continue;
            run[k] = load<W>(x, at.at());
            filled = k + 1;
        }
        all = merged(all, of_run<W>(run, filled, origin));
    }
    return all;
}
// partial (4, slots): the counts, sums, means and squares, one after the other.
__device__ __forceinline__ void keep(double* partial, long long slot, long long slots, const Moments& all) {
    partial[slot] = all.count;
    partial[slots + slot] = all.sum;
    partial[2 * slots + slot] = all.mean;
    partial[3 * slots + slot] = all.squares;
}
template <int W>
__device__ __forceinline__ void forward_rows(double* partial, const real* x, int N, int C, int S, int chunk) {
    __shared__ Moments warps[WARP];
    Part here = forwards();
    Moments all = warp_merged(moments<W>(along_rows<W>(here, N, C, S, chunk), x, origin(x, here.group, S)));
    if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = all;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int k = 1; k < int(blockDim.x) / WARP; ++k) all = merged(all, warps[k]);
    keep(partial, static_cast<long long>(here.part) * C + here.group, static_cast<long long>(gridDim.y) * C, all);
}

// batch_norm_forward_split
//
//   thread     every 256th value of its part, 16 loads at a time
//   block      a part of a channel; writes count, sum, mean and squares of that part
//   shared     the same of each warp
//   reads      x once
//   needs      contiguous arrays, N * S and C * S below 2^30
//   over plain  as many blocks as the GPU can run at a time, however few channels there are; x is read once for the
//               statistics instead of twice, in runs that are contiguous over neighbouring blocks
extern "C" __global__ void batch_norm_forward_split(double* __restrict__ partial, const real* __restrict__ x,
                                                    long long N, int C, int S, int chunk) {
    forward_rows<1>(partial, x, N, C, S, chunk);
}

// batch_norm_forward_split_columns: as batch_norm_forward_split where rows are short, S = 1 above all. A block has 32
// columns and every 8th row of its part in each row of threads; it writes a result for each column.
extern "C" __global__ void batch_norm_forward_split_columns(double* __restrict__ partial, const real* __restrict__ x,
                                                            long long N, int C, int S, int chunk) {
    __shared__ Moments rows[TALL][WARP];
    Part here = forwards();
    int lane = threadIdx.x % WARP, column = here.group * WARP + lane;
    Walk at = down_columns(here, N, C, S, chunk);
    rows[threadIdx.x / WARP][lane] = moments<1>(at, x, column < C * S ? origin(x, column / S, S) : 0.0);
    __syncthreads();
    if (threadIdx.x >= WARP || column >= C * S) return;
    Moments all = rows[0][lane];
    for (int k = 1; k < TALL; ++k) all = merged(all, rows[k][lane]);
    long long columns = static_cast<long long>(C) * S;
    keep(partial, here.part * columns + column, gridDim.y * columns, all);
}

// batch_norm_forward_split_combine
//
//   thread     every 32nd partial result of its channel
//   block      a channel a warp
//   shared     none
//   reads      `slots` results of each part for each channel: 1, or S where parts were summed in columns
extern "C" __global__ void batch_norm_forward_split_combine(
    real* __restrict__ mean, real* __restrict__ var, real* __restrict__ invstd, real* __restrict__ scale,
    real* __restrict__ shift, const double* __restrict__ partial, const real* __restrict__ w,
    const real* __restrict__ b, int C, int parts, int slots, double eps) {
    int lane = threadIdx.x % WARP, c = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (c >= C) return;
    long long size = static_cast<long long>(parts) * C * slots;
    Moments all = {0, 0, 0, 0};
    for (int k = lane; k < parts * slots; k += WARP) {
        long long at = (static_cast<long long>(k / slots) * C + c) * slots + k % slots;
        all = merged(all, {partial[at], partial[size + at], partial[2 * size + at], partial[3 * size + at]});
    }
    all = warp_merged(all);
    if (lane > 0) return;
    // 0 / 0 is the NaN that no values must give.
    Channel found = channel(all.sum / all.count, all.squares / all.count, or_one(w, c), or_zero(b, c), eps);
    mean[c] = found.affine.mean;
    var[c] = found.var;
    invstd[c] = found.invstd;
    scale[c] = found.affine.scale;
    shift[c] = found.affine.shift;
}

// batch_norm_forward_split_values
//
//   thread     every 256th value of its part, or every 8th row of its column, 8 loads at a time
//   block      a part of a channel or of 32 columns, taken from the end: there x is still in the cache
//   shared     the factors of the block's channels
//   reads      x once
extern "C" __global__ void batch_norm_forward_split_values(real* __restrict__ y, const real* __restrict__ x,
                                                           const real* __restrict__ mean,
                                                           const real* __restrict__ scale,
                                                           const real* __restrict__ shift, long long N, int C, int S,
                                                           int chunk, bool columns) {
    auto factors = [=](int c) { return Affine{mean[c], scale[c], shift[c]}; };
    Affine affine = shared_factors<Affine>(backwards(), C, S, columns, factors);
    each<1>(walk<1>(backwards(), N, C, S, chunk, columns), y, x, affine);
}

// batch_norm_forward_eval_split: as batch_norm_forward_split_values, with factors from the given statistics.
extern "C" __global__ void batch_norm_forward_eval_split(real* __restrict__ y, const real* __restrict__ x,
                                                         const real* __restrict__ mean, const real* __restrict__ var,
                                                         const real* __restrict__ w, const real* __restrict__ b,
                                                         long long N, int C, int S, int chunk, bool columns,
                                                         double eps) {
    auto factors = [=](int c) { return given(mean, var, w, b, c, eps); };
    Affine affine = shared_factors<Affine>(forwards(), C, S, columns, factors);
    each<1>(walk<1>(forwards(), N, C, S, chunk, columns), y, x, affine);
}

// The sums of gy * (x - mean) and of gy along a walk: runs of VALUES in `real`, then in double.
struct Sums {
    double products, plain;
};
template <int W>
__device__ __forceinline__ Sums gradient_sums(Walk at, const real* gy, const real* x, real mean) {
    Sums all = {0, 0};
    while (at.inside()) {
        Few<W> g[VALUES / W], values[VALUES / W];
        int filled = 0;
#pragma unroll
        for (int k = 0; k < VALUES / W; ++k, at.next()) {
            if (!at.inside()) continue;
            g[k] = load<W>(gy, at.at());
            values[k] = load<W>(x, at.at());
            filled = k + 1;
        }
        real products = 0, plain = 0;
#pragma unroll
        for (int k = 0; k < VALUES / W; ++k)
#pragma unroll
            for (int i = 0; i < W; ++i) {
                products += k < filled ? (values[k].v[i] - mean) * g[k].v[i] : real(0);
                plain += k < filled ? g[k].v[i] : real(0);
            }
        all.products += double(products);
        all.plain += double(plain);
    }
    return all;
}
template <int W>
__device__ __forceinline__ void grad_wb_rows(double* partial, const real* gy, const real* x, const real* mean, int N,
                                             int C, int S, int chunk) {
    __shared__ double scratch[WARP];
    Part here = forwards();
    Sums all = gradient_sums<W>(along_rows<W>(here, N, C, S, chunk), gy, x, mean[here.group]);
    double products = block_sum(all.products, scratch), plain = block_sum(all.plain, scratch);
    if (threadIdx.x > 0) return;
    long long at = static_cast<long long>(here.part) * C + here.group;
    partial[at] = products;
    partial[static_cast<long long>(gridDim.y) * C + at] = plain;
}

// batch_norm_grad_wb_split: as batch_norm_forward_split, but gy and x are read, and two sums written for each part.
extern "C" __global__ void batch_norm_grad_wb_split(double* __restrict__ partial, const real* __restrict__ gy,
                                                    const real* __restrict__ x, const real* __restrict__ mean,
                                                    long long N, int C, int S, int chunk) {
    grad_wb_rows<1>(partial, gy, x, mean, N, C, S, chunk);
}

// batch_norm_grad_wb_split_columns: as batch_norm_forward_split_columns, but with the two sums of
// batch_norm_grad_wb_split.
extern "C" __global__ void batch_norm_grad_wb_split_columns(double* __restrict__ partial,
                                                            const real* __restrict__ gy,
                                                            const real* __restrict__ x,
                                                            const real* __restrict__ mean, long long N, int C, int S,
                                                            int chunk) {
    __shared__ Sums rows[TALL][WARP];
    Part here = forwards();
    int lane = threadIdx.x % WARP, column = here.group * WARP + lane;
    Walk at = down_columns(here, N, C, S, chunk);
    rows[threadIdx.x / WARP][lane] = gradient_sums<1>(at, gy, x, column < C * S ? mean[column / S] : real(0));
    __syncthreads();
    if (threadIdx.x >= WARP || column >= C * S) return;
    Sums all = rows[0][lane];
    for (int k = 1; k < TALL; ++k) {
        all.products += rows[k][lane].products;
        all.plain += rows[k][lane].plain;
    }
    long long columns = static_cast<long long>(C) * S;
    partial[here.part * columns + column] = all.products;
    partial[(gridDim.y + here.part) * columns + column] = all.plain;
}

// batch_norm_grad_wb_split_combine: as batch_norm_forward_split_combine, but what it reads are sums, to be added.
extern "C" __global__ void batch_norm_grad_wb_split_combine(real* __restrict__ gw, real* __restrict__ gb,
                                                            const double* __restrict__ partial,
                                                            const real* __restrict__ invstd, int C, int parts,
                                                            int slots) {
    int lane = threadIdx.x % WARP, c = (blockIdx.x * blockDim.x + threadIdx.x) / WARP;
    if (c >= C) return;
    long long size = static_cast<long long>(parts) * C * slots;
    double products = 0, plain = 0;
    for (int k = lane; k < parts * slots; k += WARP) {
        long long at = (static_cast<long long>(k / slots) * C + c) * slots + k % slots;
        products += partial[at];
        plain += partial[size + at];
    }
    products = warp_sum(products);
    plain = warp_sum(plain);
    if (lane > 0) return;
    gw[c] = parts ? real(products * double(invstd[c])) : real(0);  // without values invstd is NaN
    gb[c] = real(plain);
}

// batch_norm_grad_x_split: as batch_norm_forward_split_values, but gy and x are read: grad_wb has just done so.
extern "C" __global__ void batch_norm_grad_x_split(real* __restrict__ gx, const real* __restrict__ gy,
                                                   const real* __restrict__ x, const real* __restrict__ w,
                                                   const real* __restrict__ mean, const real* __restrict__ invstd,
                                                   const real* __restrict__ gw, const real* __restrict__ gb,
                                                   long long N, int C, int S, int chunk, bool columns) {
    auto factors = [=](int c) { return slope(w, mean, invstd, gw, gb, c, double(N) * S); };
    Slope line = shared_factors<Slope>(backwards(), C, S, columns, factors);
    each<1>(walk<1>(backwards(), N, C, S, chunk, columns), gx, gy, x, line);
}

// batch_norm_grad_x_eval_split: as batch_norm_forward_eval_split, but of gy alone: one product an element.
extern "C" __global__ void batch_norm_grad_x_eval_split(real* __restrict__ gx, const real* __restrict__ gy,
                                                        const real* __restrict__ w,
                                                        const real* __restrict__ invstd, long long N, int C, int S,
                                                        int chunk, bool columns) {
    auto factors = [=](int c) { return real(double(invstd[c]) * or_one(w, c)); };
    real factor = shared_factors<real>(forwards(), C, S, columns, factors);
    each<1>(walk<1>(forwards(), N, C, S, chunk, columns), gx, gy, [=](real g) { return g * factor; });
}

// batch_norm_forward_vectorised
//
//   thread     every 256th 16 bytes of its part, 16 values at a time
//   block      a part of a channel, as in split; batch_norm_forward_split_combine follows
//   shared     as split
//   reads      x once, 16 bytes a load
//   needs      as split; S a multiple of the values in 16 bytes, arrays that begin at a multiple of 16 bytes
//   over split  a quarter of the load instructions and of the index arithmetic, half in double
extern "C" __global__ void batch_norm_forward_vectorised(double* __restrict__ partial, const real* __restrict__ x,
                                                         long long N, int C, int S, int chunk) {
    forward_rows<LANES>(partial, x, N, C, S, chunk);
}

// batch_norm_forward_vectorised_values: as batch_norm_forward_split_values along rows, but 16 bytes a load, and needs
// as batch_norm_forward_vectorised.
extern "C" __global__ void batch_norm_forward_vectorised_values(real* __restrict__ y, const real* __restrict__ x,
                                                                const real* __restrict__ mean,
                                                                const real* __restrict__ scale,
                                                                const real* __restrict__ shift, long long N, int C,
                                                                int S, int chunk) {
    int c = backwards().group;
    each<LANES>(along_rows<LANES>(backwards(), N, C, S, chunk), y, x, Affine{mean[c], scale[c], shift[c]});
}

// batch_norm_forward_eval_vectorised: as batch_norm_forward_eval_split along rows, but 16 bytes a load, and needs as
// batch_norm_forward_vectorised.
extern "C" __global__ void batch_norm_forward_eval_vectorised(real* __restrict__ y, const real* __restrict__ x,
                                                              const real* __restrict__ mean,
                                                              const real* __restrict__ var,
                                                              const real* __restrict__ w,
                                                              const real* __restrict__ b, long long N, int C, int S,
                                                              int chunk, double eps) {
    auto factors = [=](int c) { return given(mean, var, w, b, c, eps); };
    Affine affine = shared_factors<Affine>(forwards(), C, S, false, factors);
    each<LANES>(along_rows<LANES>(forwards(), N, C, S, chunk), y, x, affine);
}

// batch_norm_grad_wb_vectorised: as batch_norm_grad_wb_split, but 16 bytes a load, and needs as
// batch_norm_forward_vectorised.
extern "C" __global__ void batch_norm_grad_wb_vectorised(double* __restrict__ partial, const real* __restrict__ gy,
                                                         const real* __restrict__ x, const real* __restrict__ mean,
                                                         long long N, int C, int S, int chunk) {
    grad_wb_rows<LANES>(partial, gy, x, mean, N, C, S, chunk);
}

// batch_norm_grad_x_vectorised: as batch_norm_grad_x_split along rows, but 16 bytes a load, and needs as
// batch_norm_forward_vectorised.
extern "C" __global__ void batch_norm_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                        const real* __restrict__ x, const real* __restrict__ w,
                                                        const real* __restrict__ mean,
                                                        const real* __restrict__ invstd,
                                                        const real* __restrict__ gw, const real* __restrict__ gb,
                                                        long long N, int C, int S, int chunk) {
    auto factors = [=](int c) { return slope(w, mean, invstd, gw, gb, c, double(N) * S); };
    Slope line = shared_factors<Slope>(backwards(), C, S, false, factors);
    each<LANES>(along_rows<LANES>(backwards(), N, C, S, chunk), gx, gy, x, line);
}

// batch_norm_grad_x_eval_vectorised: as batch_norm_grad_x_eval_split along rows, but 16 bytes a load, and needs as
// batch_norm_forward_vectorised.
extern "C" __global__ void batch_norm_grad_x_eval_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                             const real* __restrict__ w,
                                                             const real* __restrict__ invstd, long long N, int C, int S,
                                                             int chunk) {
    auto factors = [=](int c) { return real(double(invstd[c]) * or_one(w, c)); };
    real factor = shared_factors<real>(forwards(), C, S, false, factors);
    each<LANES>(along_rows<LANES>(forwards(), N, C, S, chunk), gx, gy, [=](real g) { return g * factor; });
}

// The factors of a channel whose statistics are sums over the block, mean first.
template <class Sum, class Squares>
__device__ __forceinline__ Channel two_passes(double count, double w, double b, double eps, Sum sum, Squares squares) {
    double average = sum() / count;
    real m = real(average);
    double delta = average - double(m), spread = squares(m) / count - delta * delta;
    return channel(average, spread < 0.0 ? 0.0 : spread, w, b, eps);
}

// batch_norm_forward_resident
//
//   thread     every 512th step of a channel: 16 bytes of a row where its length and the addresses allow, else a value
//   block      one channel
//   shared     the channel, and a double a warp for the sums
//   reads      x once; mean and variance in two passes over shared memory
//   needs      a channel that fits into 64 KB together with 256 bytes; contiguous arrays
//   over vectorised  one launch instead of three, and x comes from memory once instead of twice
extern "C" __global__ void batch_norm_forward_resident(real* __restrict__ y, real* __restrict__ mean,
                                                       real* __restrict__ var, real* __restrict__ invstd,
                                                       const real* __restrict__ x, const real* __restrict__ w,
                                                       const real* __restrict__ b, long long N, int C, int S, bool wide,
                                                       double eps) {
    extern __shared__ double room[];
    double* scratch = room;
    real* kept = reinterpret_cast<real*>(room + WARP);
    int c = blockIdx.x;
    Part here = {c, 0};
    double sum = 0;
    if (wide) {
        for (Walk at = along_rows<LANES>(here, N, C, S, N * (S / LANES)); at.inside(); at.next()) {
            Pack pack = load_pack(x, at.at());
            store_pack(kept, at.j, pack);
#pragma unroll
            for (int i = 0; i < LANES; ++i) sum += double(pack.v[i]);
        }
    } else {
        for (Walk at = along_rows<1>(here, N, C, S, N * S); at.inside(); at.next()) {
            kept[at.j] = x[at.at()];
            sum += double(kept[at.j]);
        }
    }
    __syncthreads();  // the second pass reads single values, which other threads may have written as parts of packs
    auto squares = [=](real m) {
        double all = 0;
        for (int j = threadIdx.x; j < N * S; j += blockDim.x) all += double((kept[j] - m) * (kept[j] - m));
        return block_sum(all, scratch);
    };
    Channel found = two_passes(double(N) * S, or_one(w, c), or_zero(b, c), eps,
                               [=] { return block_sum(sum, scratch); }, squares);
    if (threadIdx.x == 0) {
        mean[c] = found.affine.mean;
        var[c] = found.var;
        invstd[c] = found.invstd;
    }
    if (wide) {
        for (Walk at = along_rows<LANES>(here, N, C, S, N * (S / LANES)); at.inside(); at.next()) {
            Pack pack = load_pack(kept, at.j);
#pragma unroll
            for (int i = 0; i < LANES; ++i) pack.v[i] = found.affine(pack.v[i]);
            store_pack(y, at.at(), pack);
        }
    } else {
        for (Walk at = along_rows<1>(here, N, C, S, N * S); at.inside(); at.next())
            y[at.at()] = found.affine(kept[at.j]);
    }
}

// batch_norm_forward_resident_columns
//
//   thread     every TALL-th row of a column
//   block      32 channels of one value a row
//   shared     a double a thread for the sums
//   reads      x three times, the second and third from the multiprocessor's cache where 32 columns fit it
//   needs      S = 1
//   over split  one launch instead of three
extern "C" __global__ void batch_norm_forward_resident_columns(real* __restrict__ y, real* __restrict__ mean,
                                                               real* __restrict__ var, real* __restrict__ invstd,
                                                               const real* __restrict__ x,
                                                               const real* __restrict__ w,
                                                               const real* __restrict__ b, long long N, int C,
                                                               double eps) {
    __shared__ double rows[WARP][WARP];
    int lane = threadIdx.x % WARP, row = threadIdx.x / WARP, tall = blockDim.x / WARP;
    int c = blockIdx.x * WARP + lane;
    bool real_column = c < C;
    // The sum over a column of what its threads have, in a fixed order; all get it.
    auto column_sum = [&](double value) {
        rows[row][lane] = value;
        __syncthreads();
        double all = 0;
        for (int k = 0; k < tall; ++k) all += rows[k][lane];
        __syncthreads();  // everyone has read before the next sum is written
        return all;
    };
    int stop = real_column ? N : 0;
    auto sum = [&] {
        double all = 0;
#pragma unroll 4
        for (int n = row; n < stop; n += tall) all += double(x[static_cast<long long>(n) * C + c]);
        return column_sum(all);
    };
    auto squares = [&](real m) {
        double all = 0;
#pragma unroll 4
        for (int n = row; n < stop; n += tall) {
            real d = x[static_cast<long long>(n) * C + c] - m;
            all += double(d * d);
        }
        return column_sum(all);
    };
    int some = real_column ? c : 0;
    Channel found = two_passes(double(N), or_one(w, some), or_zero(b, some), eps, sum, squares);
    if (real_column && row == 0) {
        mean[c] = found.affine.mean;
        var[c] = found.var;
        invstd[c] = found.invstd;
    }
#pragma unroll 4
    for (int n = row; n < stop; n += tall) {
        long long i = static_cast<long long>(n) * C + c;
        y[i] = found.affine(x[i]);
    }
}
