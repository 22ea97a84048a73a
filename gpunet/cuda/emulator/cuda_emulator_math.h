// Device mathematics in terms of the host's. Functions with rounding in their name round as named only where the host
// does so by default (to nearest); the fast ones (__expf, __fdividef, ...) are as exact as the host's slow ones, so a
// kernel that relies on their error, or must survive it, is not proved by running here.
#pragma once

#define GPUNET_BOTH(T)                                                                                                \
    __forceinline__ T min(T a, T b) { return a < b ? a : b; }                                                         \
    __forceinline__ T max(T a, T b) { return a > b ? a : b; }
GPUNET_BOTH(int)
GPUNET_BOTH(unsigned)
GPUNET_BOTH(long)
GPUNET_BOTH(unsigned long)
GPUNET_BOTH(long long)
GPUNET_BOTH(unsigned long long)
#undef GPUNET_BOTH
// As on the device, a NaN loses against a number.
__forceinline__ float min(float a, float b) { return fminf(a, b); }
__forceinline__ float max(float a, float b) { return fmaxf(a, b); }
__forceinline__ double min(double a, double b) { return fmin(a, b); }
__forceinline__ double max(double a, double b) { return fmax(a, b); }
// The device's header mixes signedness towards unsigned.
__forceinline__ unsigned min(int a, unsigned b) { return min(unsigned(a), b); }
__forceinline__ unsigned min(unsigned a, int b) { return min(a, unsigned(b)); }
__forceinline__ unsigned max(int a, unsigned b) { return max(unsigned(a), b); }
__forceinline__ unsigned max(unsigned a, int b) { return max(a, unsigned(b)); }

__forceinline__ float rsqrtf(float x) { return 1.0f / sqrtf(x); }
__forceinline__ double rsqrt(double x) { return 1.0 / sqrt(x); }
__forceinline__ float rsqrt(float x) { return rsqrtf(x); }
__forceinline__ float __frcp_rn(float x) { return 1.0f / x; }
__forceinline__ float __fsqrt_rn(float x) { return sqrtf(x); }
__forceinline__ float __frsqrt_rn(float x) { return float(1.0 / sqrt(double(x))); }
__forceinline__ float __fadd_rn(float a, float b) { return a + b; }
__forceinline__ float __fsub_rn(float a, float b) { return a - b; }
__forceinline__ float __fmul_rn(float a, float b) { return a * b; }
__forceinline__ float __fdiv_rn(float a, float b) { return a / b; }
__forceinline__ float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
__forceinline__ double __dadd_rn(double a, double b) { return a + b; }
__forceinline__ double __dsub_rn(double a, double b) { return a - b; }
__forceinline__ double __dmul_rn(double a, double b) { return a * b; }
__forceinline__ double __ddiv_rn(double a, double b) { return a / b; }
__forceinline__ double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
__forceinline__ float __expf(float x) { return expf(x); }
__forceinline__ float __exp10f(float x) { return powf(10.0f, x); }
__forceinline__ float __logf(float x) { return logf(x); }
__forceinline__ float __log2f(float x) { return log2f(x); }
__forceinline__ float __log10f(float x) { return log10f(x); }
__forceinline__ float __powf(float x, float y) { return powf(x, y); }
__forceinline__ float __sinf(float x) { return sinf(x); }
__forceinline__ float __cosf(float x) { return cosf(x); }
__forceinline__ float __tanf(float x) { return tanf(x); }
__forceinline__ float __fdividef(float a, float b) { return a / b; }
__forceinline__ float fdividef(float a, float b) { return a / b; }
__forceinline__ float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
__forceinline__ float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752f); }
__forceinline__ double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752); }

__forceinline__ int __mulhi(int a, int b) { return int((static_cast<long long>(a) * b) >> 32); }
__forceinline__ unsigned __umulhi(unsigned a, unsigned b) { return unsigned((std::uint64_t(a) * b) >> 32); }
__forceinline__ unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
__forceinline__ long long __mul64hi(long long a, long long b) {
    return static_cast<long long>((static_cast<__int128>(a) * b) >> 64);
}
__forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
__forceinline__ int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
__forceinline__ int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
__forceinline__ int __clzll(long long x) { return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64; }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
__forceinline__ int __ffsll(long long x) { return __builtin_ffsll(x); }
__forceinline__ unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int bit = 0; bit < 32; ++bit) y |= ((x >> bit) & 1u) << (31 - bit);
    return y;
}
__forceinline__ unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return unsigned((((std::uint64_t(high) << 32) | low) << (shift & 31)) >> 32);
}
__forceinline__ unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return unsigned(((std::uint64_t(high) << 32) | low) >> (shift & 31));
}
__forceinline__ unsigned __byte_perm(unsigned low, unsigned high, unsigned select) {
    std::uint64_t both = (std::uint64_t(high) << 32) | low;
    unsigned y = 0;
    for (int k = 0; k < 4; ++k) y |= unsigned((both >> (8 * ((select >> (4 * k)) & 7))) & 0xff) << (8 * k);
    return y;
}

#define GPUNET_BITS(name, To, From)                                                                                   \
    __forceinline__ To name(From x) {                                                                                 \
        static_assert(sizeof(To) == sizeof(From));                                                                    \
        To y;                                                                                                         \
        __builtin_memcpy(&y, &x, sizeof y);                                                                           \
        return y;                                                                                                     \
    }
GPUNET_BITS(__float_as_int, int, float)
GPUNET_BITS(__float_as_uint, unsigned, float)
GPUNET_BITS(__int_as_float, float, int)
GPUNET_BITS(__uint_as_float, float, unsigned)
GPUNET_BITS(__double_as_longlong, long long, double)
GPUNET_BITS(__longlong_as_double, double, long long)
#undef GPUNET_BITS

__forceinline__ int __float2int_rn(float x) { return int(nearbyintf(x)); }
__forceinline__ int __float2int_rz(float x) { return int(x); }
__forceinline__ int __float2int_rd(float x) { return int(floorf(x)); }
__forceinline__ int __float2int_ru(float x) { return int(ceilf(x)); }
__forceinline__ float __int2float_rn(int x) { return float(x); }
__forceinline__ float __uint2float_rn(unsigned x) { return float(x); }
__forceinline__ float __double2float_rn(double x) { return float(x); }

inline long long clock64() { return 0; }
inline int clock() { return 0; }
