// relu in CUDA C++: the rungs of kernels/relu/__init__.py, in its order.
// op: gpunet/ops/relu.py      launchers: relu_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/relu/relu.cu

#ifndef real
#error "relu.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

// Written as a comparison and not as fmax: a NaN is not below zero and so goes through.
__device__ __forceinline__ real clipped(real x) { return x < real(0) ? real(0) : x; }
__device__ __forceinline__ real passed(real gy, real y) { return y <= real(0) ? real(0) : gy; }
__device__ __forceinline__ bool passes(real y) { return !(y <= real(0)); }  // the mask's bit: a NaN passes

// relu_forward_plain
//
//   thread     one element y[i]
//   block      256 neighbouring elements
//   shared     none
//   reads      x once; a warp's 32 loads of 4 bytes are one line of 128 bytes
//   needs      contiguous arrays
//   over definition  one pass on the GPU
extern "C" __global__ void relu_forward_plain(real* __restrict__ y, const real* __restrict__ x, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) y[i] = clipped(x[i]);
}

// relu_grad_x_plain: as relu_forward_plain, with gy and y read and gx written.
extern "C" __global__ void relu_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                             const real* __restrict__ y, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) gx[i] = passed(gy[i], y[i]);
}

// relu_forward_mask_plain
//
//   thread     one element y[i] and its bit
//   block      256 neighbouring elements, 8 words of the mask
//   shared     none
//   reads      x once
//   needs      contiguous arrays
//   over definition  one pass on the GPU: the bits of a warp's 32 elements become a word by one vote
//
// All lanes vote, those behind the last element with 0.
extern "C" __global__ void relu_forward_mask_plain(real* __restrict__ y, unsigned* __restrict__ mask,
                                                   const real* __restrict__ x, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    real out = i < size ? clipped(x[i]) : real(0);
    unsigned word = __ballot_sync(ALL_LANES, passes(out));
    if (i >= size) return;
    y[i] = out;
    if (threadIdx.x % 32 == 0) mask[i / 32] = word;
}

// relu_grad_x_mask_plain: as relu_grad_x_plain, with a bit of mask read instead of y.
extern "C" __global__ void relu_grad_x_mask_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const unsigned* __restrict__ mask, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) gx[i] = mask[i / 32] >> (i % 32) & 1 ? gy[i] : real(0);
}

// relu_forward_vectorised
//
//   thread     every so many packs of 16 bytes, two at a time; the first threads of the grid also take one element each
//              of the rest behind the last pack
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes
//   over plain  a quarter of the load and store instructions, 8 times the bytes under way a thread, and as many blocks
//               as run at once instead of one for 256 elements
extern "C" __global__ void relu_forward_vectorised(real* __restrict__ y, const real* __restrict__ x,
                                                   long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = clipped(one.v[k]);
            two.v[k] = clipped(two.v[k]);
        }
        store_pack(y, p, one);
        if (more) store_pack(y, p + step, two);
    }
    if (rest < size) y[rest] = clipped(x[rest]);
}

// relu_grad_x_vectorised: as relu_forward_vectorised, with gy and y read and gx written.
extern "C" __global__ void relu_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const real* __restrict__ y, long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(gy, p), two = more ? load_pack(gy, p + step) : one;
        Pack y_one = load_pack(y, p), y_two = more ? load_pack(y, p + step) : y_one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = passed(one.v[k], y_one.v[k]);
            two.v[k] = passed(two.v[k], y_two.v[k]);
        }
        store_pack(gx, p, one);
        if (more) store_pack(gx, p + step, two);
    }
    if (rest < size) gx[rest] = passed(gy[rest], y[rest]);
}

// relu_forward_mask_vectorised
//
//   thread     every so many packs of 16 bytes, two at a time; the last pack of the array may be cut short
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes
//   over plain  as relu_forward_vectorised; a word is put together by SHARING lanes in three steps (doubles: four)
//
//   lane            0       1      ...      7          floats: 4 bits each, 8 lanes a word
//   word     bits 0-3    4-7      ...   28-31          doubles: 2 bits each, 16 lanes a word
//
// The lanes of a warp stay together in the loop, since they need each other's bits: also those behind the last element,
// for which zeros stand.
#define SHARING int(32 / LANES)

__device__ __forceinline__ Pack load_cut(const real* x, long long p, long long size) {
    if ((p + 1) * LANES <= size) return load_pack(x, p);
    Pack pack;
#pragma unroll
    for (int k = 0; k < LANES; ++k) pack.v[k] = p * LANES + k < size ? x[p * LANES + k] : real(0);
    return pack;
}
__device__ __forceinline__ void store_cut(real* y, long long p, long long size, const Pack& pack) {
    if ((p + 1) * LANES <= size) {
        store_pack(y, p, pack);
        return;
    }
#pragma unroll
    for (int k = 0; k < LANES; ++k)
        if (p * LANES + k < size) y[p * LANES + k] = pack.v[k];
}
// Bit k of the result, moved to the lane's place in its word, is that of element k; every lane returns the whole word.
__device__ __forceinline__ unsigned word_of(const Pack& pack) {
    unsigned bits = 0;
#pragma unroll
    for (int k = 0; k < LANES; ++k) bits |= static_cast<unsigned>(passes(pack.v[k])) << k;
    bits <<= threadIdx.x % SHARING * LANES;
#pragma unroll
    for (int apart = SHARING / 2; apart > 0; apart /= 2) bits |= __shfl_xor_sync(ALL_LANES, bits, apart);
    return bits;
}
extern "C" __global__ void relu_forward_mask_vectorised(real* __restrict__ y, unsigned* __restrict__ mask,
                                                        const real* __restrict__ x, long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    int lane = threadIdx.x % 32;
    bool writes = lane % SHARING == 0;
#pragma unroll 1
    for (long long p = first, q = first + step; (p - lane) * LANES < size; p += 2 * step, q += 2 * step) {
        Pack one = load_cut(x, p, size), two = load_cut(x, q, size);
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = clipped(one.v[k]);
            two.v[k] = clipped(two.v[k]);
        }
        unsigned word = word_of(one), other = word_of(two);
        store_cut(y, p, size, one);
        store_cut(y, q, size, two);
        if (writes && p * LANES < size) mask[p / SHARING] = word;
        if (writes && q * LANES < size) mask[q / SHARING] = other;
    }
}

// relu_grad_x_mask_vectorised: as relu_forward_vectorised, with gy and mask read and gx written; SHARING lanes read one
// word, which is one access.
__device__ __forceinline__ Pack let_through(Pack gy, unsigned bits) {
#pragma unroll
    for (int k = 0; k < LANES; ++k) gy.v[k] = bits >> k & 1 ? gy.v[k] : real(0);
    return gy;
}
extern "C" __global__ void relu_grad_x_mask_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                       const unsigned* __restrict__ mask, long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
    int place = threadIdx.x % SHARING * LANES;  // of the pack's bits in its word: blocks are of whole warps
#pragma unroll 1
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(gy, p), two = more ? load_pack(gy, p + step) : one;
        unsigned word = mask[p / SHARING], other = more ? mask[(p + step) / SHARING] : word;
        store_pack(gx, p, let_through(one, word >> place));
        if (more) store_pack(gx, p + step, let_through(two, other >> place));
    }
    if (rest < size) gx[rest] = mask[rest / 32] >> (rest % 32) & 1 ? gy[rest] : real(0);
}
