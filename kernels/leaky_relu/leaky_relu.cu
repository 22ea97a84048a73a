// leaky_relu in CUDA C++: the rungs of kernels/leaky_relu/__init__.py, in its order.
// op: gpunet/ops/leaky_relu.py      launchers: leaky_relu_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/leaky_relu/leaky_relu.cu

#ifndef real
#error "leaky_relu.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

// Above 0 a value goes through, elsewhere slope times it does. A NaN is not above 0, and stays NaN.
__device__ __forceinline__ real leaky(real x, real slope) { return x > real(0) ? x : slope * x; }
__device__ __forceinline__ real leaked(real gy, real x, real slope) { return x > real(0) ? gy : slope * gy; }

// leaky_relu_forward_plain
//
//   thread     one element y[i]
//   block      256 neighbouring elements
//   shared     none
//   reads      x once; a warp's 32 loads of 4 bytes are one line of 128 bytes
//   needs      contiguous arrays
//   over definition  one pass on the GPU
extern "C" __global__ void leaky_relu_forward_plain(real* __restrict__ y, const real* __restrict__ x, long long size,
                                                    real slope) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) y[i] = leaky(x[i], slope);
}

// leaky_relu_grad_x_plain: as leaky_relu_forward_plain, with gy and x read and gx written.
extern "C" __global__ void leaky_relu_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                   const real* __restrict__ x, long long size, real slope) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) gx[i] = leaked(gy[i], x[i], slope);
}

// leaky_relu_forward_vectorised
//
//   thread     every so many packs of 16 bytes, two at a time; the first threads of the grid also take one element each
//              of the rest behind the last pack
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes
//   over plain  a quarter of the load and store instructions, 8 times the bytes under way a thread, and as many blocks
//               as run at once instead of one for 256 elements
extern "C" __global__ void leaky_relu_forward_vectorised(real* __restrict__ y, const real* __restrict__ x,
                                                         long long size, real slope) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = leaky(one.v[k], slope);
            two.v[k] = leaky(two.v[k], slope);
        }
        store_pack(y, p, one);
        if (more) store_pack(y, p + step, two);
    }
    if (rest < size) y[rest] = leaky(x[rest], slope);
}

// leaky_relu_grad_x_vectorised: as leaky_relu_forward_vectorised, with gy and x read and gx written.
extern "C" __global__ void leaky_relu_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                        const real* __restrict__ x, long long size, real slope) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1  // unrolled further, a thread would take the registers of others
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(gy, p), two = more ? load_pack(gy, p + step) : one;
        Pack x_one = load_pack(x, p), x_two = more ? load_pack(x, p + step) : x_one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = leaked(one.v[k], x_one.v[k], slope);
            two.v[k] = leaked(two.v[k], x_two.v[k], slope);
        }
        store_pack(gx, p, one);
        if (more) store_pack(gx, p + step, two);
    }
    if (rest < size) gx[rest] = leaked(gy[rest], x[rest], slope);
}
