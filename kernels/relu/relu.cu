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

// relu_forward_vectorised
//
//   thread     16 bytes: 4 floats or 2 doubles; the first threads of block 0 also take the rest behind the last 16
//   block      256 neighbouring packs
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes
//   over plain  a quarter of the load and store instructions, and 4 times the bytes under way a thread
extern "C" __global__ void relu_forward_vectorised(real* __restrict__ y, const real* __restrict__ x,
                                                   long long size) {
    long long p = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    long long packs = size / LANES;
    if (p < packs) {
        Pack in = reinterpret_cast<const Pack*>(x)[p], out;
#pragma unroll
        for (int k = 0; k < LANES; ++k) out.v[k] = clipped(in.v[k]);
        reinterpret_cast<Pack*>(y)[p] = out;
    }
    if (p < size - packs * LANES) y[packs * LANES + p] = clipped(x[packs * LANES + p]);
}

// relu_grad_x_vectorised: as relu_forward_vectorised, with gy and y read and gx written.
extern "C" __global__ void relu_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const real* __restrict__ y, long long size) {
    long long p = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    long long packs = size / LANES;
    if (p < packs) {
        Pack g = reinterpret_cast<const Pack*>(gy)[p], at = reinterpret_cast<const Pack*>(y)[p], out;
#pragma unroll
        for (int k = 0; k < LANES; ++k) out.v[k] = passed(g.v[k], at.v[k]);
        reinterpret_cast<Pack*>(gx)[p] = out;
    }
    if (p < size - packs * LANES) gx[packs * LANES + p] = passed(gy[packs * LANES + p], y[packs * LANES + p]);
}
