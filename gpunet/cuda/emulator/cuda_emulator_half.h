// half and bfloat16: storage in 16 bits, arithmetic in float and one rounding to nearest even, as the device rounds.
// (float has more than twice the bits of either, so rounding twice gives the same result for + - * /.)
#pragma once

namespace cuda_emulator {
inline float bits_to_float(std::uint32_t u) { return __uint_as_float(u); }

inline float half_to_float(std::uint16_t h) {
    std::uint32_t sign = std::uint32_t(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu;
    if (exponent == 31) return bits_to_float(sign | 0x7f800000u | (fraction << 13));
    if (exponent) return bits_to_float(sign | ((exponent + 112) << 23) | (fraction << 13));
    float small = float(fraction) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -small : small;
}

inline std::uint16_t float_to_half(float x) {
    std::uint32_t u = __float_as_uint(x), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    if (rest > 0x7f800000u) return 0x7fff;
    if (rest >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);  // 65520 and above round to infinity
    if (rest < 0x38800000u) {                                       // below 2^-14: subnormal halves, steps of 2^-24
        float steps = bits_to_float(rest) * 16777216.0f;
        return std::uint16_t(sign | std::uint32_t(nearbyintf(steps)));
    }
    std::uint32_t odd = (rest >> 13) & 1u;
    return std::uint16_t(sign | ((rest - 0x38000000u + 0xfffu + odd) >> 13));
}

inline float bfloat_to_float(std::uint16_t b) { return bits_to_float(std::uint32_t(b) << 16); }
inline std::uint16_t float_to_bfloat(float x) {
    std::uint32_t u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return std::uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
}  // namespace cuda_emulator

#define GPUNET_HALF(name, pair, to, from)                                                                             \
    struct name {                                                                                                     \
        std::uint16_t bits;                                                                                           \
        name() = default;                                                                                             \
        name(float x) : bits(cuda_emulator::from(x)) {}                                                               \
        name(double x) : bits(cuda_emulator::from(float(x))) {}                                                       \
        name(int x) : bits(cuda_emulator::from(float(x))) {}                                                          \
        operator float() const { return cuda_emulator::to(bits); }                                                    \
    };                                                                                                                \
    struct alignas(4) pair {                                                                                          \
        name x, y;                                                                                                    \
    };                                                                                                                \
    inline name operator+(name a, name b) { return name(float(a) + float(b)); }                                       \
    inline name operator-(name a, name b) { return name(float(a) - float(b)); }                                       \
    inline name operator*(name a, name b) { return name(float(a) * float(b)); }                                       \
    inline name operator/(name a, name b) { return name(float(a) / float(b)); }                                       \
    inline name operator-(name a) { return name(-float(a)); }                                                         \
    inline bool operator<(name a, name b) { return float(a) < float(b); }                                             \
    inline bool operator>(name a, name b) { return float(a) > float(b); }                                             \
    inline name __hadd(name a, name b) { return a + b; }                                                              \
    inline name __hsub(name a, name b) { return a - b; }                                                              \
    inline name __hmul(name a, name b) { return a * b; }                                                              \
    inline name __hfma(name a, name b, name c) { return name(float(double(float(a)) * float(b) + float(c))); }        \
    inline name __hmax(name a, name b) { return name(fmaxf(a, b)); }                                                  \
    inline name __hmin(name a, name b) { return name(fminf(a, b)); }                                                  \
    inline pair __hadd2(pair a, pair b) { return {a.x + b.x, a.y + b.y}; }                                            \
    inline pair __hmul2(pair a, pair b) { return {a.x * b.x, a.y * b.y}; }                                            \
    inline pair __hfma2(pair a, pair b, pair c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }

GPUNET_HALF(__half, __half2, half_to_float, float_to_half)
GPUNET_HALF(__nv_bfloat16, __nv_bfloat162, bfloat_to_float, float_to_bfloat)
#undef GPUNET_HALF
using half = __half;
using half2 = __half2;

inline float __half2float(__half x) { return x; }
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline float2 __half22float2(__half2 a) { return {float(a.x), float(a.y)}; }
inline float __bfloat162float(__nv_bfloat16 x) { return x; }
inline __nv_bfloat16 __float2bfloat16(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __nv_bfloat16(x); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline float2 __bfloat1622float2(__nv_bfloat162 a) { return {float(a.x), float(a.y)}; }
