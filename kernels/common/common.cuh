// What the CUDA kernels of all ops share. #include "common/common.cuh"
//
// The asynchronous copies are the one place where a GPU and the emulator get different text: inline PTX there, calls of
// its runtime here, which fill the target only at the matching wait and refuse any use of it before.
#pragma once

// Sums of 64-bit indices: a launcher that proved 32 bits enough may pass -D INDEX=int.
#ifndef INDEX
#define INDEX long long
#endif

__device__ __forceinline__ int ceil_div(int a, int b) { return (a + b - 1) / b; }

// -- 16 bytes at once -------------------------------------------------------------------------------------------------

#ifdef real
#define LANES int(16 / sizeof(real))  // elements in 16 bytes, the widest load there is: 4 floats or 2 doubles

struct __align__(16) Pack {
    real v[16 / sizeof(real)];
};

// The p-th 16 bytes of an array that begins at a multiple of 16 bytes.
__device__ __forceinline__ Pack load_pack(const real* from, long long p) {
    return reinterpret_cast<const Pack*>(from)[p];
}
__device__ __forceinline__ void store_pack(real* to, long long p, const Pack& pack) {
    reinterpret_cast<Pack*>(to)[p] = pack;
}
#endif

// -- sums and maxima over threads -------------------------------------------------------------------------------------
//
// The order is fixed, so the same numbers give the same bits every time. All threads must take part, and get the result.

#define ALL_LANES 0xffffffffu

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) value += __shfl_xor_sync(ALL_LANES, value, apart);
    return value;
}
// The larger of two, where a NaN wins against every number.
template <class T>
__device__ __forceinline__ T larger(T a, T b) {
    return a > b || a != a ? a : b;
}
template <class T>
__device__ __forceinline__ T warp_max(T value) {
#pragma unroll
    for (int apart = 16; apart > 0; apart /= 2) value = larger(value, __shfl_xor_sync(ALL_LANES, value, apart));
    return value;
}
// Over a block of whole warps along x. scratch: 32 elements of shared memory, free again when the call returns.
template <class T>
__device__ __forceinline__ T block_sum(T value, T* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_sum(value);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = warp_sum(lane < warps ? scratch[lane] : T(0));
    __syncthreads();  // everyone has read before the next call writes
    return value;
}
template <class T>
__device__ __forceinline__ T block_max(T value, T* scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    value = warp_max(value);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    value = warp_max(scratch[lane < warps ? lane : 0]);
    __syncthreads();
    return value;
}

// -- asynchronous copies ----------------------------------------------------------------------------------------------

#ifdef GPUNET_EMULATOR

// Copies BYTES (4, 8 or 16) from global to shared memory, both addresses at a multiple of BYTES; of these the first
// `filled` are read, the rest is set to zero. Nothing may touch the target until the wait.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int filled = BYTES) {
    cuda_emulator_async_copy(shared, global, BYTES, filled);
}
// Ends a group: what was started since the last call.
__device__ __forceinline__ void copy_async_commit() { cuda_emulator_async_commit(); }
// Waits until at most LEFT of this thread's groups are still under way. Other threads see the data after a barrier.
template <int LEFT>
__device__ __forceinline__ void copy_async_wait() {
    cuda_emulator_async_wait(LEFT);
}

#elif __CUDA_ARCH__ >= 800

template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int filled = BYTES) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "an asynchronous copy moves 4, 8 or 16 bytes");
    unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(shared));
    if constexpr (BYTES == 16) {  // 16 bytes may pass by the first-level cache: a tile is read once
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(global), "r"(filled) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(to), "l"(global), "n"(BYTES), "r"(filled)
                     : "memory");
    }
}
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;\n" ::: "memory"); }
template <int LEFT>
__device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;\n" ::"n"(LEFT) : "memory");
}

#else  // before sm_80 there is no such copy: an ordinary one, done at once

template <int BYTES>
__device__ __forceinline__ void copy_async(void* shared, const void* global, int filled = BYTES) {
    for (int k = 0; k < BYTES / 4; ++k)
        static_cast<unsigned*>(shared)[k] = 4 * k < filled ? static_cast<const unsigned*>(global)[k] : 0u;
}
__device__ __forceinline__ void copy_async_commit() {}
template <int LEFT>
__device__ __forceinline__ void copy_async_wait() {}

#endif
