// tanh in CUDA C++: the rungs of kernels/tanh/__init__.py, in its order.
// op: gpunet/ops/tanh.py      launchers: tanh_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/tanh/tanh.cu

#ifndef real
#error "tanh.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

__device__ __forceinline__ float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ __forceinline__ double hyperbolic_tangent(double x) { return tanh(x); }
__device__ __forceinline__ real sloped(real gy, real y) { return gy * (real(1) - y * y); }

// tanh_forward_plain
//
//   thread     one element y[i]
//   block      256 neighbouring elements
//   shared     none
//   reads      x once; a warp's 32 loads of 4 bytes are one line of 128 bytes
//   needs      contiguous arrays
//   over definition  one pass on the GPU
extern "C" __global__ void tanh_forward_plain(real* __restrict__ y, const real* __restrict__ x, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) y[i] = hyperbolic_tangent(x[i]);
}

// tanh_grad_x_plain: as tanh_forward_plain, with gy and y read and gx written.
extern "C" __global__ void tanh_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                             const real* __restrict__ y, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) gx[i] = sloped(gy[i], y[i]);
}

// tanh_forward_vectorised
//
//   thread     every so many packs of 16 bytes, two at a time; the first threads of the grid also take one element each
//              of the rest behind the last pack
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes
//   over plain  a quarter of the load and store instructions, 8 times the bytes under way a thread, and as many blocks
//               as run at once instead of one for 256 elements
extern "C" __global__ void tanh_forward_vectorised(real* __restrict__ y, const real* __restrict__ x, long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = hyperbolic_tangent(one.v[k]);
            two.v[k] = hyperbolic_tangent(two.v[k]);
        }
        store_pack(y, p, one);
        if (more) store_pack(y, p + step, two);
    }
    if (rest < size) y[rest] = hyperbolic_tangent(x[rest]);
}

// tanh_grad_x_vectorised: as tanh_forward_vectorised, with gy and y read and gx written.
extern "C" __global__ void tanh_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const real* __restrict__ y, long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(gy, p), two = more ? load_pack(gy, p + step) : one;
        Pack y_one = load_pack(y, p), y_two = more ? load_pack(y, p + step) : y_one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = sloped(one.v[k], y_one.v[k]);
            two.v[k] = sloped(two.v[k], y_two.v[k]);
        }
        store_pack(gx, p, one);
        if (more) store_pack(gx, p + step, two);
    }
    if (rest < size) gx[rest] = sloped(gy[rest], y[rest]);
}
