// gelu in CUDA C++: the rungs of kernels/gelu/__init__.py, in its order.
// op: gpunet/ops/gelu.py      launchers: gelu_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/gelu/gelu.cu
//
// Each rung has two kernels an entry, for the exact form and the one by tanh: in one kernel, either form would take the
// registers of both.

#ifndef real
#error "gelu.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

#define SQRT_HALF real(0.70710678118654752)
#define DENSITY_AT_0 real(0.39894228040143268)  // 1 / sqrt(2 pi), of the standard normal
#define SLOPE_AT_0 real(0.79788456080286536)    // sqrt(2 / pi), of u in the tanh form
#define CUBIC 0.044715

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float error_function(float x) { return erff(x); }
__device__ __forceinline__ double error_function(double x) { return erf(x); }

// Products are taken in the definition's order, and so are the infinities and NaN of large x.
struct Exact {
    static __device__ __forceinline__ real phi(real x) {
        return real(0.5) * (real(1) + error_function(x * SQRT_HALF));
    }
    static __device__ __forceinline__ real value(real x) { return x * phi(x); }
    static __device__ __forceinline__ real gradient(real gy, real x) {
        return gy * (phi(x) + x * (DENSITY_AT_0 * exponential(real(-0.5) * x * x)));
    }
};

// (1 + tanh(u)) / 2 as sigmoid(2 u), without cancellation: exp overflows to inf where the result is 0 anyway.
struct ByTanh {
    static __device__ __forceinline__ real share(real x) {
        real u = SLOPE_AT_0 * x * (real(1) + real(CUBIC) * x * x);
        return real(1) / (real(1) + exponential(real(-2) * u));
    }
    static __device__ __forceinline__ real value(real x) { return x * share(x); }
    static __device__ __forceinline__ real gradient(real gy, real x) {
        real s = share(x), slope = SLOPE_AT_0 * (real(1) + real(3 * CUBIC) * x * x);
        return gy * (s + real(2) * x * s * (real(1) - s) * slope);
    }
};

// gelu_forward_plain: the exact form
//
//   thread     one element y[i]
//   block      256 neighbouring elements
//   shared     none
//   reads      x once; a warp's 32 loads of 4 bytes are one line of 128 bytes
//   needs      contiguous arrays
//   over definition  one pass on the GPU
extern "C" __global__ void gelu_forward_plain(real* __restrict__ y, const real* __restrict__ x, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) y[i] = Exact::value(x[i]);
}

// gelu_forward_plain_tanh: as gelu_forward_plain, but the form by tanh: one exponential, and no error function.
extern "C" __global__ void gelu_forward_plain_tanh(real* __restrict__ y, const real* __restrict__ x,
                                                   long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) y[i] = ByTanh::value(x[i]);
}

// gelu_grad_x_plain: as gelu_forward_plain, with gy and x read and gx written.
extern "C" __global__ void gelu_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                             const real* __restrict__ x, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) gx[i] = Exact::gradient(gy[i], x[i]);
}

// gelu_grad_x_plain_tanh: as gelu_grad_x_plain, but the form by tanh.
extern "C" __global__ void gelu_grad_x_plain_tanh(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const real* __restrict__ x, long long size) {
    long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < size) gx[i] = ByTanh::gradient(gy[i], x[i]);
}

// The vectorised kernels' common text. Two packs a round are enough bytes under way: unrolled further, a thread would
// take the registers of others.
template <class Form>
__device__ __forceinline__ void values(real* __restrict__ y, const real* __restrict__ x, long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(x, p), two = more ? load_pack(x, p + step) : one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = Form::value(one.v[k]);
            two.v[k] = Form::value(two.v[k]);
        }
        store_pack(y, p, one);
        if (more) store_pack(y, p + step, two);
    }
    if (rest < size) y[rest] = Form::value(x[rest]);
}
template <class Form>
__device__ __forceinline__ void gradients(real* __restrict__ gx, const real* __restrict__ gy,
                                          const real* __restrict__ x, long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x, packs = size / LANES;
    long long first = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x, rest = packs * LANES + first;
#pragma unroll 1
    for (long long p = first; p < packs; p += 2 * step) {
        bool more = p + step < packs;
        Pack one = load_pack(gy, p), two = more ? load_pack(gy, p + step) : one;
        Pack x_one = load_pack(x, p), x_two = more ? load_pack(x, p + step) : x_one;
#pragma unroll
        for (int k = 0; k < LANES; ++k) {
            one.v[k] = Form::gradient(one.v[k], x_one.v[k]);
            two.v[k] = Form::gradient(two.v[k], x_two.v[k]);
        }
        store_pack(gx, p, one);
        if (more) store_pack(gx, p + step, two);
    }
    if (rest < size) gx[rest] = Form::gradient(gy[rest], x[rest]);
}

// gelu_forward_vectorised: the exact form
//
//   thread     every so many packs of 16 bytes, two at a time; the first threads of the grid also take one element each
//              of the rest behind the last pack
//   block      256 neighbouring packs, then as many one grid further on
//   shared     none
//   reads      x once, 16 bytes a load
//   needs      contiguous arrays that begin at a multiple of 16 bytes
//   over plain  a quarter of the load and store instructions, 8 times the bytes under way a thread, and as many blocks
//               as run at once instead of one for 256 elements
extern "C" __global__ void gelu_forward_vectorised(real* __restrict__ y, const real* __restrict__ x,
                                                   long long size) {
    values<Exact>(y, x, size);
}

// gelu_forward_vectorised_tanh: as gelu_forward_vectorised, but the form by tanh.
extern "C" __global__ void gelu_forward_vectorised_tanh(real* __restrict__ y, const real* __restrict__ x,
                                                        long long size) {
    values<ByTanh>(y, x, size);
}

// gelu_grad_x_vectorised: as gelu_forward_vectorised, with gy and x read and gx written.
extern "C" __global__ void gelu_grad_x_vectorised(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const real* __restrict__ x, long long size) {
    gradients<Exact>(gx, gy, x, size);
}

// gelu_grad_x_vectorised_tanh: as gelu_grad_x_vectorised, but the form by tanh.
extern "C" __global__ void gelu_grad_x_vectorised_tanh(real* __restrict__ gx, const real* __restrict__ gy,
                                                       const real* __restrict__ x, long long size) {
    gradients<ByTanh>(gx, gy, x, size);
}
