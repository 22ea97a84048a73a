// CUDA C++ for an ordinary C++20 compiler: what a kernel file of this project may use, as host code.
//
// A kernel file is compiled with this header in front of it. Qualifiers become storage classes or nothing, threadIdx
// and its relatives become calls, and barriers, warp operations and atomics go to the runtime (threads.cpp), which runs
// every CUDA thread as a fiber. Loads and stores stay what they are: the compiler's own instrumentation reports each
// of them to the runtime (memory.cpp), so the checks see plain C++ text.
//
//   __shared__ T v           static thread_local: one copy for the operating-system thread that runs the block
//   extern __shared__ T v[]  rewritten to a pointer before compiling, see build.py; the line stays the same line
//   #pragma unroll           unknown to the host compiler, ignored
#pragma once

#include <math.h>  // not <cmath>: this one overloads exp(float) and the like, as CUDA does
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#define GPUNET_EMULATOR 1
#define __CUDA_ARCH__ GPUNET_EMULATOR_ARCH

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)  // the first number comes back by GPUNET_KERNEL
#define __maxnreg__(n)
#define __cluster_dims__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __CUDACC_RTC__ 1

// -- vector types, with the sizes and alignments that the device uses ------------------------------------------------

#define GPUNET_VECTOR(T, name, one, two, three, four)                                                                 \
    struct name##1 { T x; };                                                                                          \
    struct alignas(two) name##2 { T x, y; };                                                                          \
    struct alignas(three) name##3 { T x, y, z; };                                                                     \
    struct alignas(four) name##4 { T x, y, z, w; };                                                                   \
    inline name##1 make_##name##1(T x) { return {x}; }                                                                \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                        \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                                \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

GPUNET_VECTOR(signed char, char, 1, 2, 1, 4)
GPUNET_VECTOR(unsigned char, uchar, 1, 2, 1, 4)
GPUNET_VECTOR(short, short, 2, 4, 2, 8)
GPUNET_VECTOR(unsigned short, ushort, 2, 4, 2, 8)
GPUNET_VECTOR(int, int, 4, 8, 4, 16)
GPUNET_VECTOR(unsigned, uint, 4, 8, 4, 16)
GPUNET_VECTOR(long long, longlong, 8, 16, 8, 16)
GPUNET_VECTOR(unsigned long long, ulonglong, 8, 16, 8, 16)
GPUNET_VECTOR(float, float, 4, 8, 4, 16)
GPUNET_VECTOR(double, double, 8, 16, 8, 16)
#undef GPUNET_VECTOR

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

// -- the runtime's side ----------------------------------------------------------------------------------------------

extern "C" {
// Constant within one CUDA thread, so the compiler may keep the answer.
uint3 cuda_emulator_thread_index() __attribute__((const));
uint3 cuda_emulator_block_index() __attribute__((const));
uint3 cuda_emulator_block_size() __attribute__((const));
uint3 cuda_emulator_grid_size() __attribute__((const));
void* cuda_emulator_dynamic_shared() __attribute__((const));
unsigned cuda_emulator_active_lanes();

// how: 0 plain, 1 count, 2 and, 3 or
int cuda_emulator_barrier(int how, int predicate, const char* file, int line);
std::uint64_t cuda_emulator_warp(int kind, unsigned mask, std::uint64_t value, int parameter, int width,
                                 const char* file, int line);
void cuda_emulator_fence();
void cuda_emulator_atomic(const void* address, int size);
void cuda_emulator_copy(void* to, const void* from, std::size_t bytes);
void cuda_emulator_fill(void* to, int value, std::size_t bytes);
void cuda_emulator_async_copy(void* to, const void* from, int bytes, int filled);
void cuda_emulator_async_commit();
void cuda_emulator_async_wait(int groups_left);
[[noreturn]] void cuda_emulator_trap(const char* what, const char* file, int line);
}

#define threadIdx (cuda_emulator_thread_index())
#define blockIdx (cuda_emulator_block_index())
#define blockDim (cuda_emulator_block_size())
#define gridDim (cuda_emulator_grid_size())
inline constexpr int warpSize = 32;

#define memcpy(to, from, bytes) cuda_emulator_copy(to, from, bytes)
#define memset(to, value, bytes) cuda_emulator_fill(to, value, bytes)
#undef assert
#define assert(condition) ((condition) ? void() : cuda_emulator_trap("assert(" #condition ")", __FILE__, __LINE__))
#define __trap() cuda_emulator_trap("__trap()", __FILE__, __LINE__)

// The place of a call, filled in by the compiler where the call stands.
#define GPUNET_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// -- barriers and fences ---------------------------------------------------------------------------------------------

inline void __syncthreads(GPUNET_HERE) { cuda_emulator_barrier(0, 0, file, line); }
inline int __syncthreads_count(int p, GPUNET_HERE) { return cuda_emulator_barrier(1, p != 0, file, line); }
inline int __syncthreads_and(int p, GPUNET_HERE) { return cuda_emulator_barrier(2, p != 0, file, line); }
inline int __syncthreads_or(int p, GPUNET_HERE) { return cuda_emulator_barrier(3, p != 0, file, line); }
inline void __threadfence() { cuda_emulator_fence(); }
inline void __threadfence_block() {}
inline void __threadfence_system() { cuda_emulator_fence(); }

// -- warp operations -------------------------------------------------------------------------------------------------

namespace cuda_emulator {
enum WarpKind {  // the same list stands in warp.cpp
    SYNC, SHFL, SHFL_UP, SHFL_DOWN, SHFL_XOR, BALLOT, ANY, ALL, MATCH, ADD, MIN, MAX, AND, OR, XOR, MIN_S, MAX_S,
};

template <class T>
inline T exchange(int kind, unsigned mask, T value, int parameter, int width, const char* file, int line) {
    static_assert(sizeof(T) <= 8, "a warp exchange moves at most 8 bytes");
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    bits = cuda_emulator_warp(kind, mask, bits, parameter, width, file, line);
    __builtin_memcpy(&value, &bits, sizeof(T));
    return value;
}
}  // namespace cuda_emulator

inline void __syncwarp(unsigned mask = 0xffffffffu, GPUNET_HERE) {
    cuda_emulator_warp(cuda_emulator::SYNC, mask, 0, 0, 32, file, line);
}
inline unsigned __activemask() { return cuda_emulator_active_lanes(); }

template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, GPUNET_HERE) {
    return cuda_emulator::exchange(cuda_emulator::SHFL, mask, value, lane, width, file, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, GPUNET_HERE) {
    return cuda_emulator::exchange(cuda_emulator::SHFL_UP, mask, value, int(delta), width, file, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, GPUNET_HERE) {
    return cuda_emulator::exchange(cuda_emulator::SHFL_DOWN, mask, value, int(delta), width, file, line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, GPUNET_HERE) {
    return cuda_emulator::exchange(cuda_emulator::SHFL_XOR, mask, value, lanes, width, file, line);
}

#define GPUNET_VOTE(name, kind)                                                                                       \
    inline unsigned name(unsigned mask, int predicate, GPUNET_HERE) {                                                 \
        return unsigned(cuda_emulator_warp(cuda_emulator::kind, mask, predicate != 0, 0, 32, file, line));            \
    }
GPUNET_VOTE(__ballot_sync, BALLOT)
GPUNET_VOTE(__any_sync, ANY)
GPUNET_VOTE(__all_sync, ALL)
#undef GPUNET_VOTE

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, GPUNET_HERE) {
    std::uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof(T));
    return unsigned(cuda_emulator_warp(cuda_emulator::MATCH, mask, bits, 0, 32, file, line));
}

#define GPUNET_REDUCE(name, T, kind)                                                                                  \
    inline T name(unsigned mask, T value, GPUNET_HERE) {                                                              \
        return T(cuda_emulator_warp(cuda_emulator::kind, mask, std::uint32_t(value), 0, 32, file, line));             \
    }
GPUNET_REDUCE(__reduce_add_sync, unsigned, ADD)
GPUNET_REDUCE(__reduce_add_sync, int, ADD)
GPUNET_REDUCE(__reduce_min_sync, unsigned, MIN)
GPUNET_REDUCE(__reduce_max_sync, unsigned, MAX)
GPUNET_REDUCE(__reduce_min_sync, int, MIN_S)
GPUNET_REDUCE(__reduce_max_sync, int, MAX_S)
GPUNET_REDUCE(__reduce_and_sync, unsigned, AND)
GPUNET_REDUCE(__reduce_or_sync, unsigned, OR)
GPUNET_REDUCE(__reduce_xor_sync, unsigned, XOR)
#undef GPUNET_REDUCE

// -- atomics: reported as atomic, then done with the host's own ------------------------------------------------------

namespace cuda_emulator {
template <class T, class F>
__attribute__((no_sanitize("thread"))) inline T update(T* address, F change) {
    cuda_emulator_atomic(address, sizeof(T));
    T old, now;
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do {
        now = change(old);
    } while (!__atomic_compare_exchange(address, &old, &now, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return old;
}
}  // namespace cuda_emulator

// T of the value is not deduced, so that atomicAdd(float*, 1) means what it means on the device.
#define GPUNET_ATOMIC(name, expression)                                                                               \
    template <class T>                                                                                                \
    inline T name(T* address, std::type_identity_t<T> value) {                                                        \
        return cuda_emulator::update(address, [value](T old) __attribute__((no_sanitize("thread"))) -> T {            \
            return expression;                                                                                        \
        });                                                                                                           \
    }
GPUNET_ATOMIC(atomicAdd, old + value)
GPUNET_ATOMIC(atomicSub, old - value)
GPUNET_ATOMIC(atomicExch, (void(old), value))
GPUNET_ATOMIC(atomicMin, old < value ? old : value)
GPUNET_ATOMIC(atomicMax, old > value ? old : value)
GPUNET_ATOMIC(atomicAnd, old & value)
GPUNET_ATOMIC(atomicOr, old | value)
GPUNET_ATOMIC(atomicXor, old ^ value)
GPUNET_ATOMIC(atomicInc, old >= value ? T(0) : T(old + 1))
GPUNET_ATOMIC(atomicDec, old == 0 || old > value ? value : T(old - 1))
#undef GPUNET_ATOMIC

template <class T>
inline T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
    return cuda_emulator::update(address, [=](T old) __attribute__((no_sanitize("thread"))) -> T {
        return old == compare ? value : old;
    });
}

// -- loads and stores with a cache hint: the hint has no meaning here ------------------------------------------------

#define GPUNET_LOAD(name)                                                                                             \
    template <class T>                                                                                                \
    __forceinline__ T name(const T* address) { return *address; }
GPUNET_LOAD(__ldg)
GPUNET_LOAD(__ldca)
GPUNET_LOAD(__ldcg)
GPUNET_LOAD(__ldcs)
GPUNET_LOAD(__ldcv)
GPUNET_LOAD(__ldlu)
#undef GPUNET_LOAD
#define GPUNET_STORE(name)                                                                                            \
    template <class T>                                                                                                \
    __forceinline__ void name(T* address, std::type_identity_t<T> value) { *address = value; }
GPUNET_STORE(__stwb)
GPUNET_STORE(__stcg)
GPUNET_STORE(__stcs)
GPUNET_STORE(__stwt)
#undef GPUNET_STORE

#include "cuda_emulator_math.h"

// -- how the runtime calls a kernel: arguments by address, as cuLaunchKernel takes them ------------------------------

namespace cuda_emulator {
template <class... P, std::size_t... I>
__attribute__((no_sanitize("thread"))) inline void call(void (*kernel)(P...), void** arguments,
                                                         std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cvref_t<P>*>(arguments[I])...);
}
template <class... P>
__attribute__((no_sanitize("thread"))) inline void call(void (*kernel)(P...), void** arguments) {
    call(kernel, arguments, std::index_sequence_for<P...>());
}
}  // namespace cuda_emulator

#define GPUNET_KERNEL(name, bound)                                                                                    \
    extern "C" {                                                                                                      \
    __attribute__((visibility("default"))) unsigned cuda_emulator_bound_##name = bound;                               \
    __attribute__((visibility("default"), no_sanitize("thread"))) void cuda_emulator_call_##name(void** arguments) {  \
        cuda_emulator::call(&name, arguments);                                                                        \
    }                                                                                                                 \
    }
