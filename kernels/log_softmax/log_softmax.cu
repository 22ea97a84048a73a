// log_softmax in CUDA C++: the rungs of kernels/log_softmax/__init__.py, in its order.
// op: gpunet/ops/log_softmax.py      launchers: log_softmax_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/log_softmax/log_softmax.cu
//
// The array is seen as (outer, D, inner), D the axis; a row is D elements, `inner` apart. Of a row of nothing but -inf
// the sum is 0, its logarithm -inf, and -inf - -inf = NaN; inf or NaN in a row make the sum NaN. See Online in
// rows.cuh.

#ifndef real
#error "log_softmax.cu needs -D real=float or -D real=double"
#endif

#include "common/rows.cuh"


struct LogSoftmax {
    static __device__ __forceinline__ real kept(real d, real) { return d; }
    static __device__ __forceinline__ real level(real sum) { return logarithm(sum); }
    static __device__ __forceinline__ real y(real d, real log_sum) { return d - log_sum; }
    static __device__ __forceinline__ real term(real gy, real) { return gy; }
    static __device__ __forceinline__ real gx(real gy, real y, real sum) { return gy - exponential(y) * sum; }
};

// log_softmax_forward_plain
//
//   thread     one row: its maximum, its sum, its D results, a pass each
//   block      256 neighbouring rows
//   shared     none
//   reads      x three times; neighbouring threads are D elements apart where the axis is the last
//   needs      contiguous arrays
//   over definition  one kernel; since one thread adds up a whole row, it does so in double, and in runs of RUN terms
extern "C" __global__ void log_softmax_forward_plain(real* __restrict__ y, const real* __restrict__ x, long long rows,
                                                     long long D, long long inner) {
    long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    long long begin = row / inner * inner * D + row % inner;
    x += begin, y += begin;
    real m = lowest();
    for (long long k = 0; k < D; ++k) m = max(m, x[k * inner]);
    double sum = 0;
    for (long long first = 0; first < D; first += RUN) {
        double part = 0;
        for (long long k = first; k < min(first + RUN, D); ++k) part += exponential(x[k * inner] - m);
        sum += part;
    }
    real log_sum = logarithm(static_cast<real>(sum));  // a row of nothing but -inf: -inf, and -inf - -inf = NaN
    for (long long k = 0; k < D; ++k) y[k * inner] = (x[k * inner] - m) - log_sum;
}

// log_softmax_grad_x_plain: as log_softmax_forward_plain, with gy read twice and y once.
extern "C" __global__ void log_softmax_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                    const real* __restrict__ y, long long rows, long long D,
                                                    long long inner) {
    long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    long long begin = row / inner * inner * D + row % inner;
    gx += begin, gy += begin, y += begin;
    double sum = 0;
    for (long long first = 0; first < D; first += RUN) {
        double part = 0;
        for (long long k = first; k < min(first + RUN, D); ++k) part += gy[k * inner];
        sum += part;
    }
    real total = static_cast<real>(sum);
    for (long long k = 0; k < D; ++k) gx[k * inner] = gy[k * inner] - exponential(y[k * inner]) * total;
}

// log_softmax_forward_coalesced
//
//   thread     at most KEPT_SINGLE elements of one row, blockDim.y elements of it apart, in registers
//   block      blockDim.x neighbouring rows, each the work of a column of blockDim.y threads
//   shared     8 bytes a thread, where a column's maxima and sums meet
//   reads      x once; a warp's 32 loads are neighbours where the axes behind the row hold 32 elements
//   needs      contiguous arrays, rows of at most KEPT_SINGLE * blockDim.y elements
//   over plain  neighbouring threads read neighbouring addresses also where the axis is not the last; a row has several
//               threads, and x comes from global memory once instead of three times
extern "C" __global__ void __launch_bounds__(512, 1)
    log_softmax_forward_coalesced(real* __restrict__ y, const real* __restrict__ x, long long rows, int D,
                                  long long inner) {
    __shared__ double scratch[512];
    Strided row(scratch, rows, D, inner);
    forward_kept<LogSoftmax, 1, KEPT_SINGLE>(row.group, y + row.begin, x + row.begin, row.length, inner);
}

// log_softmax_grad_x_coalesced: as log_softmax_forward_coalesced, with KEPT_SINGLE / 2 elements of gy and of y.
extern "C" __global__ void __launch_bounds__(512, 1)
    log_softmax_grad_x_coalesced(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ y,
                                 long long rows, int D, long long inner) {
    __shared__ double scratch[512];
    Strided row(scratch, rows, D, inner);
    gx += row.begin, gy += row.begin, y += row.begin;
    grad_kept<LogSoftmax, 1, KEPT_SINGLE / 2>(row.group, gx, gy, y, row.length, inner);
}

// log_softmax_forward_coalesced_long: as log_softmax_forward_coalesced, for rows of any length, in steps of STEP
// elements: maximum and sum in one pass (Online), then a second one that writes, from the end back to what is still in
// the cache.
extern "C" __global__ void __launch_bounds__(COLUMNS, 1)
    log_softmax_forward_coalesced_long(real* __restrict__ y, const real* __restrict__ x, long long rows, int D,
                                       long long inner) {
    __shared__ double scratch[COLUMNS];
    Strided row(scratch, rows, D, inner);
    forward_walked<LogSoftmax, 1>(row.group, y + row.begin, x + row.begin, row.length, inner);
}

// log_softmax_grad_x_coalesced_long: as log_softmax_forward_coalesced_long, but the first pass adds up one sum, and
// each reads gy and y.
extern "C" __global__ void __launch_bounds__(COLUMNS, 1)
    log_softmax_grad_x_coalesced_long(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ y,
                                      long long rows, int D, long long inner) {
    __shared__ double scratch[COLUMNS];
    Strided row(scratch, rows, D, inner);
    gx += row.begin, gy += row.begin, y += row.begin;
    grad_walked<LogSoftmax, 1>(row.group, gx, gy, y, row.length, inner);
}

// log_softmax_forward_warp
//
//   thread     at most KEPT elements of one row, in registers: 8 loads of 16 bytes under way at once
//   block      128 threads; `width` neighbouring lanes, 1 to 32, take a row, so that short rows leave no lane idle
//   shared     none: maxima and sums go from lane to lane
//   reads      x once, 16 bytes a load where all rows begin at a multiple of 16 bytes
//   needs      contiguous arrays, neighbours along the axis, rows of at most 32 * KEPT elements
//   over coalesced  a row along the last axis is read by neighbouring lanes, and nobody waits for a whole block
extern "C" __global__ void __launch_bounds__(128, 4)
    log_softmax_forward_warp(real* __restrict__ y, const real* __restrict__ x, long long rows, int D, int width,
                             bool wide) {
    Several row(rows, D, width);
    if (wide) forward_kept<LogSoftmax, LANES, KEPT>(row.group, y + row.begin, x + row.begin, row.length, 1);
    else forward_kept<LogSoftmax, 1, KEPT>(row.group, y + row.begin, x + row.begin, row.length, 1);
}

// log_softmax_grad_x_warp: as log_softmax_forward_warp, with KEPT / 2 elements of gy and of y, so rows are half as long
// at most.
extern "C" __global__ void __launch_bounds__(128, 4)
    log_softmax_grad_x_warp(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ y,
                            long long rows, int D, int width, bool wide) {
    Several row(rows, D, width);
    gx += row.begin, gy += row.begin, y += row.begin;
    if (wide) grad_kept<LogSoftmax, LANES, KEPT / 2>(row.group, gx, gy, y, row.length, 1);
    else grad_kept<LogSoftmax, 1, KEPT / 2>(row.group, gx, gy, y, row.length, 1);
}

// log_softmax_forward_block
//
//   thread     at most KEPT elements of the block's row, in registers; KEPT_SINGLE where it loads single elements
//   block      one row; 128 to 1024 threads
//   shared     32 numbers, where the warps' maxima and sums meet
//   reads      x once, 16 bytes a load where all rows begin at a multiple of 16 bytes
//   needs      contiguous arrays, neighbours along the axis, rows of at most 1024 times that
//   over warp  rows up to 128 KB stay in registers; a warp alone would have to read a long one again
extern "C" __global__ void __launch_bounds__(1024, 1)
    log_softmax_forward_block(real* __restrict__ y, const real* __restrict__ x, long long D, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    x += blockIdx.x * D, y += blockIdx.x * D;
    if (wide) forward_kept<LogSoftmax, LANES, KEPT>(group, y, x, int(D), 1);
    else forward_kept<LogSoftmax, 1, KEPT_SINGLE>(group, y, x, int(D), 1);
}

// log_softmax_grad_x_block: as log_softmax_forward_block, with KEPT / 2 elements of gy and of y.
extern "C" __global__ void __launch_bounds__(1024, 1)
    log_softmax_grad_x_block(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ y,
                             long long D, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    long long begin = blockIdx.x * D;
    gx += begin, gy += begin, y += begin;
    if (wide) grad_kept<LogSoftmax, LANES, KEPT / 2>(group, gx, gy, y, int(D), 1);
    else grad_kept<LogSoftmax, 1, KEPT_SINGLE / 2>(group, gx, gy, y, int(D), 1);
}

// log_softmax_forward_block_long: as log_softmax_forward_block, for rows of any length, in steps of STEP elements a
// thread: maximum and sum in one pass (Online), then one that writes. That is two passes over x and not three; and the
// second goes from the row's end to its beginning, with stores that stay out of the cache's way, to meet there what the
// first has just read. One block of 1024 threads a multiprocessor keeps the rows under way few, so that much of each
// still lies there.
extern "C" __global__ void __launch_bounds__(LONG, 1)
    log_softmax_forward_block_long(real* __restrict__ y, const real* __restrict__ x, long long D, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    x += blockIdx.x * D, y += blockIdx.x * D;
    if (wide) forward_walked<LogSoftmax, LANES>(group, y, x, int(D), 1);
    else forward_walked<LogSoftmax, 1>(group, y, x, int(D), 1);
}

// log_softmax_grad_x_block_long: as log_softmax_forward_block_long, but the first pass adds up one sum, and each reads
// gy and y.
extern "C" __global__ void __launch_bounds__(LONG, 1)
    log_softmax_grad_x_block_long(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ y,
                                  long long D, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    long long begin = blockIdx.x * D;
    gx += begin, gy += begin, y += begin;
    if (wide) grad_walked<LogSoftmax, LANES>(group, gx, gy, y, int(D), 1);
    else grad_walked<LogSoftmax, 1>(group, gx, gy, y, int(D), 1);
}

// log_softmax_forward_split
//
//   thread     elements of the block's segment, STEP at a time
//   block      one of the `parts` segments of one row; 256 threads
//   shared     32 numbers
//   reads      x once, and log_softmax_forward_split_write once more
//   needs      contiguous arrays, neighbours along the axis, at most 256 parts
//   over block  few long rows occupy all multiprocessors: a block leaves the maximum and sum of its segment, and a
//               second kernel, for which all are there, puts those of a row together and writes
extern "C" __global__ void __launch_bounds__(256, 2)
    log_softmax_forward_split(real* __restrict__ tops, double* __restrict__ sums, const real* __restrict__ x,
                              long long D, int parts, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    Online part = wide ? segment_online<LANES>(group, x, int(D), parts) : segment_online<1>(group, x, int(D), parts);
    if (threadIdx.x == 0) tops[blockIdx.x] = part.m, sums[blockIdx.x] = part.sum;
}

// log_softmax_forward_split_write: as log_softmax_forward_split, but it puts the maxima and sums of the row's segments
// together (each thread of a block one of them) and writes its own segment.
template <int UNIT>
__device__ __forceinline__ void write_segment(const Block& group, const Online& row, real* y, const real* x, int D,
                                              int parts) {
    Segment part(D, parts, UNIT);
    forward_write<LogSoftmax, UNIT>(group, row, y + part.begin, x + part.begin, part.units, 1);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    log_softmax_forward_split_write(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ tops,
                                    const double* __restrict__ sums, long long D, int parts, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    Online row;
    int first = static_cast<int>(blockIdx.x / parts) * parts;
    if (group.at < parts) row.m = tops[first + group.at], row.sum = sums[first + group.at];
    row.gather(group);
    if (wide) write_segment<LANES>(group, row, y, x, int(D), parts);
    else write_segment<1>(group, row, y, x, int(D), parts);
}

// log_softmax_grad_x_split: as log_softmax_forward_split, but gy and y are read, and a segment leaves its share of one
// sum.
template <int UNIT>
__device__ __forceinline__ double sum_segment(const Block& group, const real* gy, const real* y, int D, int parts) {
    Segment part(D, parts, UNIT);
    return group.total(grad_sum<LogSoftmax, UNIT>(group, gy + part.begin, y + part.begin, part.units, 1));
}
extern "C" __global__ void __launch_bounds__(256, 2)
    log_softmax_grad_x_split(double* __restrict__ sums, const real* __restrict__ gy, const real* __restrict__ y,
                             long long D, int parts, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    double sum = wide ? sum_segment<LANES>(group, gy, y, int(D), parts) : sum_segment<1>(group, gy, y, int(D), parts);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// log_softmax_grad_x_split_write: as log_softmax_forward_split_write, but with one sum a segment, and gy and y read
// once more.
template <int UNIT>
__device__ __forceinline__ void grad_segment(const Block& group, real sum, real* gx, const real* gy, const real* y,
                                             int D, int parts) {
    Segment part(D, parts, UNIT);
    gx += part.begin, gy += part.begin, y += part.begin;
    grad_write<LogSoftmax, UNIT>(group, sum, gx, gy, y, part.units, 1);
}
extern "C" __global__ void __launch_bounds__(256, 2)
    log_softmax_grad_x_split_write(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ y,
                                   const double* __restrict__ sums, long long D, int parts, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    int first = static_cast<int>(blockIdx.x / parts) * parts;
    real sum = static_cast<real>(group.total(group.at < parts ? sums[first + group.at] : 0.0));
    if (wide) grad_segment<LANES>(group, sum, gx, gy, y, int(D), parts);
    else grad_segment<1>(group, sum, gx, gy, y, int(D), parts);
}
