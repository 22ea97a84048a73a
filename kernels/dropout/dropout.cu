// dropout in CUDA C++: the rungs of kernels/dropout/__init__.py, in its order.
// op: gpunet/ops/dropout.py      launchers: dropout_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/dropout/dropout.cu
//
// Mask m is word m % 4 of block m // 4 of the stream (seed, op), and serves `span` elements. The words cost about 15
// instructions an element where four of them are used; all else is memory.

#ifndef real
#error "dropout.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"
#include "common/philox.cuh"

// d of one mask. The threshold has 64 bits because with p = 1 it is 2**32, above every word.
__device__ __forceinline__ real factor(unsigned word, long long threshold, real scale) {
    return static_cast<long long>(word) < threshold ? real(0) : scale;
}

// dropout_forward_plain
//
//   thread     one element y[i], and the block of four words that its mask is in
//   block      256 neighbouring elements
//   shared     none
//   reads      x once
//   needs      contiguous arrays
//   over definition  one pass on the GPU, and no mask in memory
extern "C" __global__ void dropout_forward_plain(real* __restrict__ y, const real* __restrict__ x, long long size,
                                                 long long span, unsigned seed_low, unsigned seed_high,
                                                 unsigned op_low, unsigned op_high, long long threshold,
                                                 real scale) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    long long m = span == 1 ? i : i / span;
    Words words = philox(m / 4, {seed_low, seed_high, op_low, op_high});
    y[i] = x[i] * factor(words[m], threshold, scale);
}

// dropout_forward_vectorised: every element has a mask of its own
//
//   thread     every so many packs of 16 bytes, two at a time; the first threads of the grid also take one element each
//              of the rest behind the last pack
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes; span = 1
//   over plain  all four words of a block are used, by the four floats of a pack (two of them by two doubles); a
//               quarter of the load and store instructions, and 8 times the bytes under way a thread
//
//     pack p of floats    [ 4p | 4p+1 | 4p+2 | 4p+3 ]      of doubles   [ 2p | 2p+1 ]
//     block p             [ w0 |  w1  |  w2  |  w3  ]      block p / 2  [ w0 | w1 ] for even p, [ w2 | w3 ] for odd p
__device__ __forceinline__ Pack dropped(Pack in, long long p, const Stream& stream, long long threshold, real scale) {
    Words words = philox(p * LANES / 4, stream);
#pragma unroll
    for (int k = 0; k < LANES; ++k) {
        unsigned word = LANES == 4 || p % 2 == 0 ? words.v[k] : words.v[(2 + k) % 4];
        in.v[k] *= factor(word, threshold, scale);
    }
    return in;
}
extern "C" __global__ void dropout_forward_vectorised(real* __restrict__ y, const real* __restrict__ x,
                                                      long long size, unsigned seed_low, unsigned seed_high,
                                                      unsigned op_low, unsigned op_high, long long threshold,
                                                      real scale) {
    Stream stream = {seed_low, seed_high, op_low, op_high};
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
        store_pack(y, p, dropped(one, p, stream, threshold, scale));
        if (more) store_pack(y, p + step, dropped(two, p + step, stream, threshold, scale));
    }
    if (rest < size) y[rest] = x[rest] * factor(philox(rest / 4, stream)[rest], threshold, scale);
}

// dropout_forward_vectorised_spans: as dropout_forward_vectorised, for masks that serve several elements
//
//   thread     as dropout_forward_vectorised. The masks of a pack are in one block: the next block begins after a
//              multiple of 4 * span elements, which is where a pack begins
//   block      as dropout_forward_vectorised
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes; span below 2^30
//   over plain  one division a thread instead of one an element: the mask moves on by the same amount every round

// Where an element is: in which mask, and how far into its span.
struct Place {
    long long m;
    int i;

    __device__ __forceinline__ void move(int by_m, int by_i, int span) {
        m += by_m;
        i += by_i;
        if (i >= span) {
            i -= span;
            ++m;
        }
    }
};
__device__ __forceinline__ Pack dropped(Pack in, Place at, int span, const Stream& stream, long long threshold,
                                        real scale) {
    Words words = philox(at.m / 4, stream);
#pragma unroll
    for (int k = 0; k < LANES; ++k) {
        in.v[k] *= factor(words[at.m], threshold, scale);
        at.move(0, 1, span);
    }
    return in;
}
extern "C" __global__ void dropout_forward_vectorised_spans(real* __restrict__ y, const real* __restrict__ x,
                                                            long long size, int span, unsigned seed_low,
                                                            unsigned seed_high, unsigned op_low, unsigned op_high,
                                                            long long threshold, real scale) {
    Stream stream = {seed_low, seed_high, op_low, op_high};
    int step = gridDim.x * blockDim.x, first = blockIdx.x * blockDim.x + threadIdx.x;
    int by_m = step * LANES / span, by_i = step * LANES % span;
    long long packs = size / LANES, rest = packs * LANES + first;
    Place at = {first * LANES / span, first * LANES % span};
#pragma unroll 1
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
        store_pack(y, p, dropped(one, at, span, stream, threshold, scale));
        at.move(by_m, by_i, span);
        if (more) store_pack(y, p + step, dropped(two, at, span, stream, threshold, scale));
        at.move(by_m, by_i, span);
    }
    if (rest < size) {
        long long m = rest / span;
        y[rest] = x[rest] * factor(philox(m / 4, stream)[m], threshold, scale);
    }
}
