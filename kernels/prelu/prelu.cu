// prelu in CUDA C++: the rungs of kernels/prelu/__init__.py, in its order.
// op: gpunet/ops/prelu.py      launchers: prelu_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/prelu/prelu.cu
//
// x (N, C, ...) is seen as (N, C, S). One slope for all elements is C = 1: forward and grad_x then take S = 1 with as
// many images as there are elements, grad_w one image of S elements.

#ifndef real
#error "prelu.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

// Above 0 a value goes through, elsewhere slope times it does. A NaN is not above 0, and stays NaN.
__device__ __forceinline__ real scaled(real x, real slope) { return x > real(0) ? x : slope * x; }
__device__ __forceinline__ real passed(real gy, real x, real slope) { return x > real(0) ? gy : slope * gy; }
// An element's part of the slope's gradient: a product rounded to real, summed in double.
__device__ __forceinline__ double share(real gy, real x) { return x > real(0) ? 0.0 : double(gy * x); }

// -- plain ------------------------------------------------------------------------------------------------------------

// prelu_forward_plain
//
//   thread     one element y[row, i]; it walks on down the rows where the grid's second axis ends
//   block      256 elements: along x of one row, along y of as many rows as short rows leave threads for
//   shared     none
//   reads      x once
//   needs      contiguous arrays
//   over definition  one pass on the GPU; row and place come from the grid, so there is no division by S
extern "C" __global__ void prelu_forward_plain(real* __restrict__ y, const real* __restrict__ x,
                                               const real* __restrict__ w, long long rows, unsigned C, long long S) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    unsigned first = blockIdx.y * blockDim.y + threadIdx.y, step = gridDim.y * blockDim.y, c = first % C;
    for (long long row = first; i < S && row < rows; row += step) {
        y[row * S + i] = scaled(x[row * S + i], w[c]);
        c = (c + step % C) % C;
    }
}

// prelu_grad_x_plain: as prelu_forward_plain, with gy and x read and gx written.
extern "C" __global__ void prelu_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                              const real* __restrict__ x, const real* __restrict__ w,
                                              long long rows, unsigned C, long long S) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    unsigned first = blockIdx.y * blockDim.y + threadIdx.y, step = gridDim.y * blockDim.y, c = first % C;
    for (long long row = first; i < S && row < rows; row += step) {
        gx[row * S + i] = passed(gy[row * S + i], x[row * S + i], w[c]);
        c = (c + step % C) % C;
    }
}

// prelu_grad_w_plain
//
//   thread     every so many elements of a channel: `across` threads along a row, the others in further images
//   block      one channel
//   shared     a double a warp, for the sum
//   reads      gy and x once
//   needs      contiguous arrays
//   over definition  channels at the same time, and no array of products
extern "C" __global__ void prelu_grad_w_plain(real* __restrict__ gw, const real* __restrict__ gy,
                                              const real* __restrict__ x, long long N, int C, long long S,
                                              int across) {
    __shared__ double scratch[32];
    int c = blockIdx.x;
    double sum = 0;
    for (long long n = threadIdx.x / across; n < N; n += blockDim.x / across) {
        long long row = (n * C + c) * S;
        for (long long i = threadIdx.x % across; i < S; i += across) sum += share(gy[row + i], x[row + i]);
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) gw[c] = real(sum);
}

// -- split ------------------------------------------------------------------------------------------------------------
//
// The grid of a sum is channels x parts, where all channels of one part come before those of the next: the blocks that
// run at a time lie close together in memory. A part is `chunk` units of a channel, counted row after row; a unit is an
// element or a pack. Part sums go to partial (parts, C, slots), and from there into gw in a fixed order; with one part
// they are gw, and partial is a null pointer.

__device__ __forceinline__ double share(const Pack& gy, const Pack& x) {
    double sum = 0;
#pragma unroll
    for (int k = 0; k < LANES; ++k) sum += share(gy.v[k], x.v[k]);
    return sum;
}

// This thread's sum over its units of the block's part. Moving on by a fixed number of units needs no division.
template <class Unit, int UNDER_WAY>
__device__ __forceinline__ double part_sum(const real* __restrict__ gy, const real* __restrict__ x, long long N,
                                           int C, long long S, long long chunk) {
    const Unit* left = reinterpret_cast<const Unit*>(gy);
    const Unit* right = reinterpret_cast<const Unit*>(x);
    long long row = S * sizeof(real) / sizeof(Unit);  // units in a row
    long long begin = blockIdx.y * chunk + threadIdx.x, end = min((blockIdx.y + 1) * chunk, N * row);
    if (begin >= end) return 0;
    int step = blockDim.x;
    long long i = begin % row, at = (begin / row * C + blockIdx.x) * row + i;
    long long by_i = step % row, by = step / row * C * row + by_i, wrap = (C - 1) * row;
    double sum = 0;
    for (long long j = begin; j < end;) {
        Unit a[UNDER_WAY], b[UNDER_WAY];
#pragma unroll
        for (int k = 0; k < UNDER_WAY; ++k, j += step) {
            a[k] = j < end ? left[at] : Unit{};
            b[k] = j < end ? right[at] : Unit{};
            i += by_i;
            at += by;
            if (i >= row) {  // into the row after, past those of the other channels
                i -= row;
                at += wrap;
            }
        }
#pragma unroll
        for (int k = 0; k < UNDER_WAY; ++k) sum += share(a[k], b[k]);
    }
    return sum;
}
__device__ __forceinline__ void put_part(real* gw, double* partial, double sum) {
    if (threadIdx.x) return;
    if (partial) {
        partial[static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x] = sum;
    } else {
        gw[blockIdx.x] = real(sum);
    }
}

// prelu_grad_w_split
//
//   thread     every 256th element of a part, four at a time
//   block      a part of one channel
//   shared     a double a warp, for the sum
//   reads      gy and x once
//   needs      contiguous arrays
//   over plain  a channel has as many blocks as the GPU needs, also where there are few channels
extern "C" __global__ void prelu_grad_w_split(real* __restrict__ gw, double* __restrict__ partial,
                                              const real* __restrict__ gy, const real* __restrict__ x, long long N,
                                              int C, long long S, long long chunk) {
    __shared__ double scratch[32];
    put_part(gw, partial, block_sum(part_sum<real, 4>(gy, x, N, C, S, chunk), scratch));
}

// prelu_grad_w_split_columns: short rows as columns of a matrix of N rows
//
//   thread     every eighth element down one column c, i, four at a time
//   block      `chunk` rows of 32 neighbouring columns; a warp reads along a row
//   shared     a double a thread
//   reads      gy and x once
//   needs      contiguous arrays
//   over split  a warp's loads are neighbours in memory where the row of one channel is shorter than a warp
extern "C" __global__ void prelu_grad_w_split_columns(double* __restrict__ partial, const real* __restrict__ gy,
                                                      const real* __restrict__ x, long long N, long long columns,
                                                      long long chunk) {
    __shared__ double sums[8][32];
    int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
    long long column = static_cast<long long>(blockIdx.x) * 32 + tx;
    long long end = column < columns ? min((blockIdx.y + 1) * chunk, N) : 0;
    double sum = 0;
    for (long long n = blockIdx.y * chunk + ty; n < end; n += 4 * 8) {
        real a[4], b[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            bool inside = n + k * 8 < end;
            a[k] = inside ? gy[(n + k * 8) * columns + column] : real(0);
            b[k] = inside ? x[(n + k * 8) * columns + column] : real(0);
        }
#pragma unroll
        for (int k = 0; k < 4; ++k) sum += share(a[k], b[k]);
    }
    sums[ty][tx] = sum;
    __syncthreads();
    if (ty > 0 || column >= columns) return;
#pragma unroll
    for (int k = 1; k < 8; ++k) sum += sums[k][tx];
    partial[blockIdx.y * columns + column] = sum;
}

// prelu_grad_w_split_sum: the last step of every rung from split on
//
//   thread     every so many of a channel's parts and slots
//   block      one channel
//   shared     a double a warp, for the sum
//   reads      partial (parts, C, slots) once
//   needs      contiguous arrays
extern "C" __global__ void prelu_grad_w_split_sum(real* __restrict__ gw, const double* __restrict__ partial, int parts,
                                                  int C, int slots) {
    __shared__ double scratch[32];
    int c = blockIdx.x;
    double sum = 0;
    for (int j = threadIdx.x; j < parts * slots; j += blockDim.x)
        sum += partial[(static_cast<long long>(j / slots) * C + c) * slots + j % slots];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) gw[c] = real(sum);
}

// -- vectorised -------------------------------------------------------------------------------------------------------

// Where an element is: in which channel, and how far into its row.
struct Place {
    int c, i;

    // by_c <= C and by_i <= S further on.
    __device__ __forceinline__ void move(int by_c, int by_i, int C, int S) {
        c += by_c;
        i += by_i;
        if (i >= S) {
            i -= S;
            ++c;
        }
        if (c >= C) c -= C;
    }
};
__device__ __forceinline__ Pack scaled(Pack x, Place at, const real* __restrict__ w, int C, int S) {
#pragma unroll
    for (int k = 0; k < LANES; ++k, at.move(0, 1, C, S)) x.v[k] = scaled(x.v[k], w[at.c]);
    return x;
}
__device__ __forceinline__ Pack passed(Pack gy, const Pack& x, Place at, const real* __restrict__ w, int C, int S) {
#pragma unroll
    for (int k = 0; k < LANES; ++k, at.move(0, 1, C, S)) gy.v[k] = passed(gy.v[k], x.v[k], w[at.c]);
    return gy;
}
// The channel of one of the last elements; the array ends with the last row of channel C - 1.
__device__ __forceinline__ int last_channel(long long e, long long size, int C, int S) {
    return C - 1 - int(size - 1 - e) / S % C;
}

// prelu_forward_vectorised
//
//   thread     every so many packs of 16 bytes, two at a time; the first threads of the grid also take one element each
//              of the rest behind the last pack
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load; w from the cache
//   needs      contiguous arrays that begin at a multiple of 16 bytes; C and S below 2^30
//   over plain  a quarter of the load and store instructions, 8 times the bytes under way a thread, and no idle threads
//               beside rows: a pack may go on into the next channel. Channel and place move on without a division.
extern "C" __global__ void prelu_forward_vectorised(real* __restrict__ y, const real* __restrict__ x,
                                                    const real* __restrict__ w, long long size, int C, int S) {
    int step = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
    int by_c = step * LANES / S % C, by_i = step * LANES % S;
    long long packs = size / LANES, rest = packs * LANES + first;
    Place at = {first * LANES / S % C, first * LANES % S};
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
        store_pack(y, p, scaled(one, at, w, C, S));
        at.move(by_c, by_i, C, S);
        if (more) store_pack(y, p + step, scaled(two, at, w, C, S));
        at.move(by_c, by_i, C, S);
    }
    if (rest < size) y[rest] = scaled(x[rest], w[last_channel(rest, size, C, S)]);
}

// prelu_grad_x_vectorised: as prelu_forward_vectorised, with gy and x read and gx written.
extern "C" __global__ void prelu_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                   const real* __restrict__ x, const real* __restrict__ w,
                                                   long long size, int C, int S) {
    int step = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
    int by_c = step * LANES / S % C, by_i = step * LANES % S;
    long long packs = size / LANES, rest = packs * LANES + first;
    Place at = {first * LANES / S % C, first * LANES % S};
#pragma unroll 1
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(gy, p), two = more ? load_pack(gy, p + step) : one;
        Pack x_one = load_pack(x, p), x_two = more ? load_pack(x, p + step) : x_one;
        store_pack(gx, p, passed(one, x_one, at, w, C, S));
        at.move(by_c, by_i, C, S);
        if (more) store_pack(gx, p + step, passed(two, x_two, at, w, C, S));
        at.move(by_c, by_i, C, S);
    }
    if (rest < size) gx[rest] = passed(gy[rest], x[rest], w[last_channel(rest, size, C, S)]);
}

// prelu_grad_w_vectorised
//
//   thread     every 256th pack of a part, two at a time; the last block also the rest behind the last pack
//   block      a part of one channel
//   shared     a double a warp, for the sum
//   reads      gy and x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes; rows of whole packs, or one row
//   over split  a quarter of the load instructions, twice the bytes under way a thread
extern "C" __global__ void prelu_grad_w_vectorised(real* __restrict__ gw, double* __restrict__ partial,
                                                   const real* __restrict__ gy, const real* __restrict__ x,
                                                   long long N, int C, long long S, long long chunk) {
    __shared__ double scratch[32];
    double sum = part_sum<Pack, 2>(gy, x, N, C, S, chunk);
    long long rest = S / LANES * LANES + threadIdx.x;  // only one row has one: its own place is that in the array
    if (blockIdx.y == gridDim.y - 1 && rest < S) sum += share(gy[rest], x[rest]);
    put_part(gw, partial, block_sum(sum, scratch));
}
