// softplus in CUDA C++: the rungs of kernels/softplus/__init__.py, in its order.
// op: gpunet/ops/softplus.py      launchers: softplus_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/softplus/softplus.cu

#ifndef real
#error "softplus.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float log_1p(float x) { return log1pf(x); }
__device__ __forceinline__ double log_1p(double x) { return log1p(x); }

// Of z = beta * x: exp gets nothing above 0, and log1p keeps the digits of small results. In z > 0 a NaN gives 0, but
// log1p hands it on. Above the threshold y is x, and the slope 1.
__device__ __forceinline__ real softplus(real x, real beta, real threshold) {
    real z = beta * x;
    return z > threshold ? x : ((z > real(0) ? z : real(0)) + log_1p(exponential(z > real(0) ? -z : z))) / beta;
}
__device__ __forceinline__ real sloped(real gy, real x, real beta, real threshold) {
    real z = beta * x;
    return z > threshold ? gy : gy / (real(1) + exponential(-z));
}

// softplus_forward_plain
//
//   thread     one element y[i]
//   block      256 neighbouring elements
//   shared     none
//   reads      x once; a warp's 32 loads of 4 bytes are one line of 128 bytes
//   needs      contiguous arrays
//   over definition  one pass on the GPU
extern "C" __global__ void softplus_forward_plain(real* __restrict__ y, const real* __restrict__ x, long long size,
                                                  real beta, real threshold) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) y[i] = softplus(x[i], beta, threshold);
}

// softplus_grad_x_plain: as softplus_forward_plain, with gy and x read and gx written.
extern "C" __global__ void softplus_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                 const real* __restrict__ x, long long size, real beta,
                                                 real threshold) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) gx[i] = sloped(gy[i], x[i], beta, threshold);
}

// softplus_forward_vectorised
//
//   thread     every so many packs of 16 bytes, two at a time; the first threads of the grid also take one element each
//              of the rest behind the last pack
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes
//   over plain  a quarter of the load and store instructions, 8 times the bytes under way a thread, and as many blocks
//               as run at once instead of one for 256 elements
extern "C" __global__ void softplus_forward_vectorised(real* __restrict__ y, const real* __restrict__ x, long long size,
                                                       real beta, real threshold) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = softplus(one.v[k], beta, threshold);
            two.v[k] = softplus(two.v[k], beta, threshold);
        }
        store_pack(y, p, one);
        if (more) store_pack(y, p + step, two);
    }
    if (rest < size) y[rest] = softplus(x[rest], beta, threshold);
}

// softplus_grad_x_vectorised: as softplus_forward_vectorised, with gy and x read and gx written.
extern "C" __global__ void softplus_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                      const real* __restrict__ x, long long size, real beta,
                                                      real threshold) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(gy, p), two = more ? load_pack(gy, p + step) : one;
        Pack x_one = load_pack(x, p), x_two = more ? load_pack(x, p + step) : x_one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = sloped(one.v[k], x_one.v[k], beta, threshold);
            two.v[k] = sloped(two.v[k], x_two.v[k], beta, threshold);
        }
        store_pack(gx, p, one);
        if (more) store_pack(gx, p + step, two);
    }
    if (rest < size) gx[rest] = sloped(gy[rest], x[rest], beta, threshold);
}
