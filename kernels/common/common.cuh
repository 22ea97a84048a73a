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
