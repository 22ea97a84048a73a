// conv2d in CUDA C++: the rungs winograd_2x2 and winograd_4x4 of kernels/conv2d/__init__.py.
// op: gpunet/ops/conv2d.py      launchers: winograd_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/conv2d/winograd.cu

#ifndef real
#error "winograd.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

// A 3x3 window with stride 1 under M x M neighbouring outputs at once takes (M+2) x (M+2) multiplications a channel
// instead of 9 M M: 16 for 36 with M = 2, 36 for 144 with M = 4. Lavin & Gray, "Fast algorithms for convolutional
// neural networks", 2015.
//
// Why, for one row. Filter g and pixels d are read as what a polynomial product p = g q, of degree M+1, is made of: p
// is known by its values at M+1 points and by its highest coefficient, "the value at infinity", and a value of p is
// one multiplication, g(t) q(t). So: values of g at the points, values times values, and back. The convolution here is
// the transpose of that product, which exchanges the first and the last step and keeps the middle:
//
//       y = A^T [ (G g) . (B^T d) ]                  M = A^T: M x S     G: S x 3     B^T: S x S     with S = M+2
//
//   row t of G     (1, t, t^2) / N, with N the product of t - s over the other points s; (0, 0, 1) for infinity
//   row t of B^T   the coefficients of the product of z - s over the other points s; for infinity of z - s over all
//   column t of A^T   (1, t, t^2, ..), and (0, .., 0, 1) for infinity
//
// In two dimensions each matrix goes over rows and columns, and sums over channels are taken between the middle and
// the last step. That makes the middle a matrix product for each of the S * S places k of a tile:
//
//       U[k] (F, C)  =  G g G^T     of every filter         filters
//       V[k] (C, P)  =  B^T d B     of every tile           input, tiles of S x S pixels, M apart
//       Z[k] (F, P)  =  U[k] V[k]                           the kernels of matmul.cu
//       y            =  A^T Z A     + bias                  output
//
// Points: 0, 1, -1, infinity for M = 2. For M = 4 the usual 0, 1, -1, 2, -2, infinity times 3/4, that is +-3/4 and
// +-3/2: powers up to 8 (or 1/8) are where float32 loses its digits, and points on both sides of 1 keep them small.
// It costs two multiplications more a row of the output; the error was a third of that of the usual points (NumPy
// model in float32, normal numbers, 1 to 64 channels). All numbers of A and B are exact.
//
// An inf or NaN, or an overflow on the way, spoils a whole tile: the transforms add and subtract what an output has
// nothing to do with. It never goes unseen, since no sum makes a number of inf or NaN again. The output kernel computes
// such tiles anew, by the definition, so that inf and NaN come out exactly where they belong.
//
// Every transform below works on one row or column in place, its elements STEP apart, all in registers: the loops
// around it are unrolled, so that every index is a constant.

template <int M>
struct Winograd;

template <>
struct Winograd<2> {
    // u = G g for g = (g0, g1, g2)
    template <int STEP>
    static __device__ __forceinline__ void filter(real* u, real g0, real g1, real g2) {
        real even = real(0.5) * (g0 + g2), odd = real(0.5) * g1;
        u[0] = g0;  // here N = -1: the sign stands in B instead
        u[STEP] = even + odd;
        u[2 * STEP] = even - odd;
        u[3 * STEP] = g2;
    }
    // d = B^T d
    template <int STEP>
    static __device__ __forceinline__ void input(real* d) {
        real d0 = d[0], d1 = d[STEP], d2 = d[2 * STEP], d3 = d[3 * STEP];
        d[0] = d0 - d2;         // -(z - 1)(z + 1)
        d[STEP] = d2 + d1;      // z (z + 1)
        d[2 * STEP] = d2 - d1;  // z (z - 1)
        d[3 * STEP] = d3 - d1;  // z (z - 1)(z + 1)
    }
    // A^T z, in the first two places of z
    template <int STEP>
    static __device__ __forceinline__ void output(real* z) {
        real z0 = z[0], z1 = z[STEP], z2 = z[2 * STEP], z3 = z[3 * STEP];
        z[0] = z0 + (z1 + z2);
        z[STEP] = (z1 - z2) + z3;
    }
};

template <>
struct Winograd<4> {
    // With a = 3/4 and b = 3/2: N = a^2 b^2 = 81/64 at 0, 2 a^2 (a^2 - b^2) = -243/128 at +-a,
    // 2 b^2 (b^2 - a^2) = 243/32 at +-b. A point and its negative share the even and the odd part of their row.
    template <int STEP>
    static __device__ __forceinline__ void filter(real* u, real g0, real g1, real g2) {
        real a_even = real(-128) / real(243) * g0 - real(8) / real(27) * g2, a_odd = real(-32) / real(81) * g1;
        real b_even = real(32) / real(243) * g0 + real(8) / real(27) * g2, b_odd = real(16) / real(81) * g1;
        u[0] = real(64) / real(81) * g0;
        u[STEP] = a_even + a_odd;
        u[2 * STEP] = a_even - a_odd;
        u[3 * STEP] = b_even + b_odd;
        u[4 * STEP] = b_even - b_odd;
        u[5 * STEP] = g2;
    }
    template <int STEP>
    static __device__ __forceinline__ void input(real* d) {
        constexpr real a = real(0.75), b = real(1.5);
        real d0 = d[0], d1 = d[STEP], d2 = d[2 * STEP], d3 = d[3 * STEP], d4 = d[4 * STEP], d5 = d[5 * STEP];
        real a_even = d4 - b * b * d2, a_odd = a * (d3 - b * b * d1);  // z (z +- a)(z^2 - b^2)
        real b_even = d4 - a * a * d2, b_odd = b * (d3 - a * a * d1);  // z (z +- b)(z^2 - a^2)
        d[0] = (d4 - (a * a + b * b) * d2) + a * a * b * b * d0;         // (z^2 - a^2)(z^2 - b^2)
        d[STEP] = a_even + a_odd;
        d[2 * STEP] = a_even - a_odd;
        d[3 * STEP] = b_even + b_odd;
        d[4 * STEP] = b_even - b_odd;
        d[5 * STEP] = (d5 - (a * a + b * b) * d3) + a * a * b * b * d1;  // z (z^2 - a^2)(z^2 - b^2)
    }
    // A^T z, in the first four places of z
    template <int STEP>
    static __device__ __forceinline__ void output(real* z) {
        constexpr real a = real(0.75), b = real(1.5);
        real z0 = z[0], z5 = z[5 * STEP];
        real a_sum = z[STEP] + z[2 * STEP], a_difference = z[STEP] - z[2 * STEP];
        real b_sum = z[3 * STEP] + z[4 * STEP], b_difference = z[3 * STEP] - z[4 * STEP];
        z[0] = z0 + (a_sum + b_sum);
        z[STEP] = a * a_difference + b * b_difference;
        z[2 * STEP] = a * a * a_sum + b * b * b_sum;
        z[3 * STEP] = (a * a * a * a_difference + b * b * b * b_difference) + z5;
    }
};

// U of one filter and one channel. back: the window turned by 180 degrees, as the gradient of x needs it.
template <int M>
__device__ __forceinline__ void transform_filters(real* u, const real* w, int pairs, bool back) {
    constexpr int S = M + 2;
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    if (q >= pairs) return;
    real g[9], rows[3 * S], out[S * S];
#pragma unroll
    for (int k = 0; k < 9; ++k) g[k] = w[9LL * q + (back ? 8 - k : k)];
#pragma unroll
    for (int k = 0; k < 3; ++k)
        Winograd<M>::template filter<1>(rows + S * k, g[3 * k], g[3 * k + 1], g[3 * k + 2]);
#pragma unroll
    for (int j = 0; j < S; ++j)
        Winograd<M>::template filter<S>(out + j, rows[j], rows[S + j], rows[2 * S + j]);
#pragma unroll
    for (int k = 0; k < S * S; ++k) u[k * pairs + q] = out[k];
}

// V of one tile and channel. Tile `first + p` stands in column p of the `columns` columns; those from `tiles` on are
// zeros, and there only to let every row of V begin at a multiple of 16 bytes.
template <int M>
__device__ __forceinline__ void transform_input(real* v, const real* x, int C, int H, int W, int TH, int TW, int top,
                                                int left, int first, int tiles, int columns) {
    constexpr int S = M + 2;
    int p = blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= columns) return;
    int tile = first + p, n = tile / (TH * TW);
    int iy = tile / TW % TH * M - top, ix = tile % TW * M - left;  // the first pixel; outside the image they are 0
    unsigned rows = p < tiles ? H : 0, cols = W;
    int plane = C * columns;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        const real* image = x + (static_cast<long long>(n) * C + c) * (H * W);
        real d[S * S];
#pragma unroll
        for (int k = 0; k < S * S; ++k) {
            int row = iy + k / S, col = ix + k % S;  // a negative number is a huge unsigned one
            bool inside = static_cast<unsigned>(row) < rows && static_cast<unsigned>(col) < cols;
            d[k] = inside ? image[row * W + col] : real(0);
        }
#pragma unroll
        for (int i = 0; i < S; ++i) Winograd<M>::template input<1>(d + S * i);
#pragma unroll
        for (int j = 0; j < S; ++j) Winograd<M>::template input<S>(d + j);
        real* to = v + c * columns + p;
#pragma unroll
        for (int k = 0; k < S * S; ++k) to[k * plane] = d[k];
    }
}

// value, or the positive part of it; NaN is not below 0 and so goes through.
__device__ __forceinline__ real positive(real value, bool relu) { return relu && value < real(0) ? real(0) : value; }

// One output by the definition, its window beginning at pixel (iy, ix) of the image x (C, H, W).
__device__ __forceinline__ real defined(const real* x, const real* w, int f, int F, int C, int H, int W, int iy, int ix,
                                        bool back) {
    real sum = 0;
    for (int c = 0; c < C; ++c, x += H * W) {
        const real* window = w + 9LL * (back ? c * F + f : f * C + c);
        for (int k = 0; k < 9; ++k) {
            int row = iy + k / 3, col = ix + k % 3;
            bool inside = static_cast<unsigned>(row) < unsigned(H) && static_cast<unsigned>(col) < unsigned(W);
            if (inside) sum += x[row * W + col] * window[back ? 8 - k : k];
        }
    }
    return sum;
}

// The M x M outputs of one tile and filter, of which those outside the image are dropped. x and w are for tiles that
// hold inf or NaN alone.
template <int M>
__device__ __forceinline__ void transform_output(real* y, const real* z, const real* b, const real* x, const real* w,
                                                 int C, int H, int W, int F, int OH, int OW, int TH, int TW, int top,
                                                 int left, int first, int tiles, int columns, bool back, bool relu) {
    constexpr int S = M + 2, WIDE = M < LANES ? M : LANES;
    struct __align__(WIDE * sizeof(real)) Row {
        real v[WIDE];
    };
    int p = blockIdx.x * blockDim.x + threadIdx.x;
    if (p >= tiles) return;
    int tile = first + p, n = tile / (TH * TW);
    int oy = tile / TW % TH * M, ox = tile % TW * M;
    int plane = F * columns;
    for (int f = blockIdx.y; f < F; f += gridDim.y) {
        const real* from = z + f * columns + p;
        real out[S * S];
#pragma unroll
        for (int k = 0; k < S * S; ++k) out[k] = from[k * plane];
#pragma unroll
        for (int i = 0; i < S; ++i) Winograd<M>::template output<1>(out + S * i);
#pragma unroll
        for (int j = 0; j < M; ++j) Winograd<M>::template output<S>(out + j);
        real bias = b ? b[f] : real(0), sum = 0;
#pragma unroll
        for (int i = 0; i < M; ++i) {
#pragma unroll
            for (int j = 0; j < M; ++j) {
                real value = out[S * i + j] + bias;
                out[S * i + j] = positive(value, relu);
                sum += value;
            }
        }
        real* to = y + (static_cast<long long>(n) * F + f) * (OH * OW) + oy * OW + ox;
        if (sum - sum != real(0)) {  // inf or NaN
            const real* image = x + static_cast<long long>(n) * C * (H * W);
            for (int i = 0; i < M && oy + i < OH; ++i)
                for (int j = 0; j < M && ox + j < OW; ++j) {
                    real value = defined(image, w, f, F, C, H, W, oy + i - top, ox + j - left, back) + bias;
                    to[i * OW + j] = positive(value, relu);
                }
        } else if (OW % M == 0) {  // a row of a tile is whole, and begins at a multiple of its own size
#pragma unroll
            for (int i = 0; i < M; ++i) {
                if (oy + i >= OH) break;
#pragma unroll
                for (int j = 0; j < M; j += WIDE) {
                    Row row;
#pragma unroll
                    for (int l = 0; l < WIDE; ++l) row.v[l] = out[S * i + j + l];
                    *reinterpret_cast<Row*>(to + i * OW + j) = row;
                }
            }
        } else {
#pragma unroll
            for (int k = 0; k < M * M; ++k)
                if (oy + k / M < OH && ox + k % M < OW) to[k / M * OW + k % M] = out[S * (k / M) + k % M];
        }
    }
}

// conv2d_winograd_2x2_filters
//
//   thread     one filter and one channel: 9 weights in, 16 numbers out
//   block      neighbouring channels
//   shared     none
//   reads      w once, 9 neighbours a thread; a warp's stores are lines of 128 bytes, one for each of the 16 places
//   needs      contiguous arrays, fewer than 2^31 elements of u
extern "C" __global__ void conv2d_winograd_2x2_filters(real* __restrict__ u, const real* __restrict__ w, int pairs,
                                                       bool back) {
    transform_filters<2>(u, w, pairs, back);
}

// conv2d_winograd_2x2_input
//
//   thread     one tile of one channel: 16 pixels in, 16 numbers out
//   block      neighbouring tiles, those of a row side by side, of one channel
//   shared     none
//   reads      each pixel 4 times, since tiles overlap; three of them from the first-level cache. V is written once, in
//              lines
//   needs      contiguous arrays, fewer than 2^31 elements of v, of one image and tiles
extern "C" __global__ void conv2d_winograd_2x2_input(real* __restrict__ v, const real* __restrict__ x, int C, int H,
                                                     int W, int TH, int TW, int top, int left, int first, int tiles,
                                                     int columns) {
    transform_input<2>(v, x, C, H, W, TH, TW, top, left, first, tiles, columns);
}

// conv2d_winograd_2x2_output
//
//   thread     one tile of one filter: 16 numbers in, 4 outputs out
//   block      neighbouring tiles of one filter
//   shared     none
//   reads      Z once, in lines; y is written once, two elements a store where OW is even. Tiles with inf or NaN: x and
//              w, 9 C times an output, in no good order
//   needs      contiguous arrays, y at a multiple of 16 bytes; fewer than 2^31 elements of z, of one image and tiles
//   over the direct rungs  2.25 times fewer multiplications; paid with writing and reading V and Z, 16 numbers for
//              every 4 pixels of every channel and filter
extern "C" __global__ void conv2d_winograd_2x2_output(real* __restrict__ y, const real* __restrict__ z,
                                                      const real* __restrict__ b, const real* __restrict__ x,
                                                      const real* __restrict__ w, int C, int H, int W, int F, int OH,
                                                      int OW, int TH, int TW, int top, int left, int first, int tiles,
                                                      int columns, bool back, bool relu) {
    transform_output<2>(y, z, b, x, w, C, H, W, F, OH, OW, TH, TW, top, left, first, tiles, columns, back, relu);
}

// conv2d_winograd_4x4_filters: as conv2d_winograd_2x2_filters, with 36 numbers out.
extern "C" __global__ void conv2d_winograd_4x4_filters(real* __restrict__ u, const real* __restrict__ w, int pairs,
                                                       bool back) {
    transform_filters<4>(u, w, pairs, back);
}

// conv2d_winograd_4x4_input
//
//   thread     one tile of one channel: 36 pixels in, 36 numbers out
//   block      neighbouring tiles, those of a row side by side, of one channel
//   shared     none
//   reads      each pixel 2.25 times; V is written once, in lines. Neighbours in a warp read 4 elements apart, so that
//              a load touches 4 lines: fewer turns of the first-level cache than the bytes of V take to leave
//   needs      as conv2d_winograd_2x2_input
extern "C" __global__ void conv2d_winograd_4x4_input(real* __restrict__ v, const real* __restrict__ x, int C, int H,
                                                     int W, int TH, int TW, int top, int left, int first, int tiles,
                                                     int columns) {
    transform_input<4>(v, x, C, H, W, TH, TW, top, left, first, tiles, columns);
}

// conv2d_winograd_4x4_output
//
//   thread     one tile of one filter: 36 numbers in, 16 outputs out
//   block      neighbouring tiles of one filter
//   shared     none
//   reads      Z once, in lines; y is written once, 16 bytes a store where OW is a multiple of 4
//   needs      as conv2d_winograd_2x2_output
//   over winograd_2x2  4 times fewer multiplications than direct, not 2.25, and 36 numbers for every 16 pixels, not 64
extern "C" __global__ void conv2d_winograd_4x4_output(real* __restrict__ y, const real* __restrict__ z,
                                                      const real* __restrict__ b, const real* __restrict__ x,
                                                      const real* __restrict__ w, int C, int H, int W, int F, int OH,
                                                      int OW, int TH, int TW, int top, int left, int first, int tiles,
                                                      int columns, bool back, bool relu) {
    transform_output<4>(y, z, b, x, w, C, H, W, F, OH, OW, TH, TW, top, left, first, tiles, columns, back, relu);
}
