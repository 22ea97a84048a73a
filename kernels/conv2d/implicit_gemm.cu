// conv2d in CUDA C++: the rung implicit_gemm of kernels/conv2d/__init__.py, for all entries that have products.
// op: gpunet/ops/conv2d.py      launchers: implicit_gemm_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/conv2d/implicit_gemm.cu
//
// The matrix product of conv2d_numpy.py, without its columns: a block fetches a piece of a column when it needs it,
// from the image. What makes that cheap is the order of the sum. It walks over the places (k, l) of the window, and
// inside over the channels in steps of BK: then within one step the place is the same for all, so that a thread tests
// once whether its pixel lies in the image, and from channel to channel only adds the size of a plane.
//
//                    pixels of all images, BN of them          forward:  filters x pixels, over places and channels
//                    . . +-----+ . .                           grad_x:   channels x pixels, over places and filters
//      places and    . . |  b  | . .      ^                    grad_w:   filters x (channels and places), over pixels
//      channels      . . +-----+ . .      | BK
//        +---+       +-------------+      v
//     BM | a |       |      y      |      the block walks along the sum; while it multiplies one pair of tiles, the
//        +---+       +-------------+      copies of the next are under way
//
// A warp is 4 x 8 threads, a thread has TM x TN sums: the tile of a warp is 4 TM x 8 TN. Its rows and columns are dealt
// out by packs of 16 bytes, thread after thread, so that all reads of shared memory are 16 bytes wide and a warp reads
// one line at a time. A double takes two registers, so TN is half as long.

#ifndef real
#error "implicit_gemm.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

#define BK 8                // of the sum, in one pair of tiles
#define TN (2 * LANES)      // columns of a thread
#define BLOCKS (LANES / 2)  // of 256 threads on a multiprocessor: with double one, or sums would be spilled

// value, or the positive part of it; NaN is not below 0 and so goes through.
__device__ __forceinline__ real finished(real value, int relu) { return relu && value < real(0) ? real(0) : value; }

// Two pairs of tiles. SKEW elements more in a row keep copies that run along the sum from hitting one bank.
template <int BM, int BN, int SKEW>
struct __align__(16) Tiles {
    real a[2][BK][BM + SKEW], b[2][BK][BN + SKEW];
};

// Where a thread's first row and column lie in the tile of the block; the next pack of either is 4 or 8 packs on.
template <int BN, int TM>
__device__ __forceinline__ int own_row() {
    return threadIdx.x / 32 / (BN / (8 * TN)) * (4 * TM) + threadIdx.x % 32 / 8 * LANES;
}
template <int BN>
__device__ __forceinline__ int own_col() {
    return threadIdx.x / 32 % (BN / (8 * TN)) * (8 * TN) + threadIdx.x % 8 * LANES;
}

// sum += a b, for one pair of tiles. a and b begin at the thread's own row and column.
template <int TM, int ROW_A, int ROW_B>
__device__ __forceinline__ void multiply(real (&sum)[TM][TN], const real* a, const real* b) {
#pragma unroll
    for (int k = 0; k < BK; ++k) {
        real left[TM], right[TN];
#pragma unroll
        for (int i = 0; i < TM; i += LANES) {
            Pack pack = load_pack(a + k * ROW_A + 4 * i, 0);
#pragma unroll
            for (int l = 0; l < LANES; ++l) left[i + l] = pack.v[l];
        }
#pragma unroll
        for (int j = 0; j < TN; j += LANES) {
            Pack pack = load_pack(b + k * ROW_B + 8 * j, 0);
#pragma unroll
            for (int l = 0; l < LANES; ++l) right[j + l] = pack.v[l];
        }
#pragma unroll
        for (int i = 0; i < TM; ++i)
#pragma unroll
            for (int j = 0; j < TN; ++j) sum[i][j] += left[i] * right[j];
    }
}

// -- forward and grad_x -----------------------------------------------------------------------------------------------

// One axis of what is computed, y, and of what is read, x: gy for grad_x.
struct Axis {
    int outputs;               // elements of y that are computed: 0 .. outputs-1
    int first, apart;          // element u stands in row first + u * apart of y
    int origin, stride, step;  // and at place t of the window reads row origin + u * stride + t * step of x
    int size;                  // rows of x
    int places;                // places t: 0 .. places-1
    int window, skip;          // place t is row window + t * skip of the filters
};

__device__ __forceinline__ Axis sliding(int outputs, int size, int window, int stride, int dilation, int pad) {
    return {outputs, 0, 1, -pad, stride, dilation, size, window, 0, 1};
}

// Of the gradient's rows iy those with (iy + pad) % stride == residue. Only places k with k * dilation % stride ==
// residue reach them: every skip-th from some first on, or none.
__device__ __forceinline__ Axis gathering(int residue, int outputs, int size, int window, int stride, int dilation,
                                          int pad, int skip) {
    int first = ((residue - pad) % stride + stride) % stride, k = 0;
    while (k < skip && k * dilation % stride != residue) ++k;
    int rows = first < outputs ? (outputs - 1 - first) / stride + 1 : 0;
    int places = k < skip && k < window ? (window - 1 - k) / skip + 1 : 0;
    int origin = (first + pad) / stride - k * dilation / stride;
    return {rows, first, stride, origin, 1, -(skip * dilation / stride), size, places, k, skip};
}

// One tile of BM filters x BN pixels of one group. x is (images, groups, channels, rows.size, cols.size), y is (images,
// groups, filters, OH, OW), w is (groups, window, padded_channels, padded_filters): conv2d_implicit_gemm_filters wrote
// it. POINTWISE: pixel p of y reads pixel p of x and no other, and planes are whole packs. With parts of the sum, each
// has a y of its own, one behind the other.
template <int BM, int BN, int TM, bool POINTWISE>
__device__ __forceinline__ void convolve(Tiles<BM, BN, 0>& tiles, real* y, const real* x, const real* w, const real* b,
                                         int images, int channels, int padded_channels, int filters,
                                         int padded_filters, int OH, int OW, int KH, int KW, const Axis& rows,
                                         const Axis& cols, int relu, int part, int parts) {
    constexpr int THREADS = BM / TM * BN / TN;
    int g = blockIdx.y, groups = gridDim.y, t = threadIdx.x;
    int planes = rows.outputs * cols.outputs, pixels = images * planes, tiles_down = padded_filters / BM;
    int first_filter = blockIdx.x % tiles_down * BM;  // neighbouring blocks read the same pixels
    long long begin = static_cast<long long>(blockIdx.x / tiles_down) * BN;
    if (begin >= pixels) return;
    int first_pixel = static_cast<int>(begin), plane = rows.size * cols.size;

    // What this thread copies of b: one column, or one pack of columns, and of that every DOWN-th channel.
    constexpr int WIDE = POINTWISE ? LANES : 1, DOWN = THREADS * WIDE / BN;
    int col = t % (BN / WIDE) * WIDE, down = t / (BN / WIDE);
    int p = first_pixel + col < pixels ? first_pixel + col : 0;  // behind the last: a copy that nobody stores
    int at = p % planes;
    int iy = rows.origin + at / cols.outputs * rows.stride, ix = cols.origin + at % cols.outputs * cols.stride;
    unsigned height = rows.size, width = cols.size;
    int image = ((p / planes * groups + g) * channels + down) * plane;
    // And of a: one pack, or as many as it takes, one below the other.
    constexpr int ACROSS = BM / LANES, A_DOWN = THREADS / ACROSS;
    int page = padded_channels * padded_filters;
    int filter = g * KH * KW * page + first_filter + t / ACROSS * padded_filters + t % ACROSS * LANES;

    int steps_of_place = padded_channels / BK, all = rows.places * cols.places * steps_of_place;
    int begin_step = static_cast<int>(static_cast<long long>(all) * part / parts);
    int steps = static_cast<int>(static_cast<long long>(all) * (part + 1) / parts) - begin_step;
    int across = max(cols.places, 1), place = begin_step / steps_of_place;
    int k = place / across, l = place % across;             // the place of the next copy,
    int c = begin_step % steps_of_place * BK, skipped = c;  // its first channel, and how many were skipped
    int from = 0, weights = 0, filled = 0;
    bool arrived = true;  // at a place that no copy was made of so far
    auto copy = [&](int stage) {
        if (arrived) {
            int row = iy + k * rows.step, column = ix + l * cols.step;  // a negative number is a huge unsigned one
            bool inside = static_cast<unsigned>(row) < height && static_cast<unsigned>(column) < width;
            filled = inside ? WIDE * sizeof(real) : 0;
            from = image + skipped * plane + (inside ? row * cols.size + column : 0);
            int place = (rows.window + k * rows.skip) * KW + cols.window + l * cols.skip;
            weights = filter + place * page + skipped * padded_filters;
            skipped = 0;
        }
#pragma unroll
        for (int j = 0; j < BK / A_DOWN; ++j)
            copy_async<16>(&tiles.a[stage][t / ACROSS + j * A_DOWN][t % ACROSS * LANES],
                           w + weights + j * A_DOWN * padded_filters);
#pragma unroll
        for (int j = 0; j < BK / DOWN; ++j)
            copy_async<WIDE * sizeof(real)>(&tiles.b[stage][down + j * DOWN][col],
                                            x + from + j * DOWN * plane,
                                            c + down + j * DOWN < channels ? filled : 0);
        copy_async_commit();
        weights += BK * padded_filters;
        from += BK * plane;
        c += BK;
        arrived = c >= channels;
        if (arrived) {
            c = 0;
            if (++l == cols.places) l = 0, ++k;
        }
    };

    real sum[TM][TN] = {};
    int row = own_row<BN, TM>(), column = own_col<BN>();
    if (steps > 0) copy(0);
    for (int s = 0; s < steps; ++s) {
        copy_async_wait<0>();
        __syncthreads();  // the tiles are there for all, and nobody reads the other ones any more
        if (s + 1 < steps) copy((s + 1) % 2);
        multiply<TM, BM, BN>(sum, &tiles.a[s % 2][0][row], &tiles.b[s % 2][0][column]);
    }

    real bias[TM];
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        int f = first_filter + row + i / LANES * 4 * LANES + i % LANES;
        bias[i] = b && f < filters ? b[g * filters + f] : real(0);
    }
    int area = OH * OW;
    y += static_cast<long long>(part) * images * groups * filters * area;
    bool packs = rows.apart == 1 && cols.apart == 1 && area % LANES == 0;  // of neighbours in one image
#pragma unroll
    for (int j = 0; j < TN; ++j) {
        int q = first_pixel + column + j / LANES * 8 * LANES + j % LANES;
        if (q >= pixels || (packs && j % LANES)) continue;
        int u = q % planes / cols.outputs, v = q % planes % cols.outputs;
        real* to = y + (static_cast<long long>(q / planes) * groups + g) * filters * area +
                   (rows.first + u * rows.apart) * OW + cols.first + v * cols.apart;
#pragma unroll
        for (int i = 0; i < TM; ++i) {
            int f = first_filter + row + i / LANES * 4 * LANES + i % LANES;
            if (f >= filters) continue;
            if (packs) {
                Pack pack;
#pragma unroll
                for (int m = 0; m < LANES; ++m)
                    pack.v[m] = finished(sum[i][j / LANES * LANES + m] + bias[i], relu);
                store_pack(to + f * area, 0, pack);
            } else {
                to[f * area] = finished(sum[i][j] + bias[i], relu);
            }
        }
    }
}

// conv2d_implicit_gemm_filters
//
//   thread     all places of the window of one filter and one channel
//   block      8 rows x 32 columns of w for each place; columns are filters for forward, channels for grad_x
//   shared     none
//   reads      w once: the elements between two of a warp's reads are those of its next reads, or of the block's other
//              warps, from the first-level cache. What is written is written in lines
//   needs      contiguous arrays, fewer than 2^31 elements of a group
extern "C" __global__ void conv2d_implicit_gemm_filters(real* __restrict__ to, const real* __restrict__ w, int rows,
                                                        int cols, int padded_rows, int padded_cols, int places,
                                                        int row_step, int col_step) {
    int col = blockIdx.x * 32 + threadIdx.x, row = blockIdx.y * 8 + threadIdx.y;
    if (row >= padded_rows || col >= padded_cols) return;
    bool inside = row < rows && col < cols;
    w += static_cast<long long>(blockIdx.z) * rows * cols * places;
    to += static_cast<long long>(blockIdx.z) * places * padded_rows * padded_cols;
    for (int p = 0; p < places; ++p)
        to[(p * padded_rows + row) * padded_cols + col] = inside ? w[row * row_step + col * col_step + p] : real(0);
}

// conv2d_implicit_gemm_finish: y[e] is the sum of the `number` parts[p * size + e], plus bias, or the positive part.
//
//   thread     one element of y
//   block      256 neighbouring elements
//   shared     none
//   reads      each part once, in lines
//   needs      contiguous arrays
extern "C" __global__ void conv2d_implicit_gemm_finish(real* __restrict__ y, const real* __restrict__ parts,
                                                       const real* __restrict__ b, long long size, int number, int F,
                                                       int area, int relu) {
    long long e = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (e >= size) return;
    real sum = 0;
    for (int p = 0; p < number; ++p) sum += parts[p * size + e];
    y[e] = finished(b ? sum + b[e / area % F] : sum, relu);
}

// conv2d_forward_implicit_gemm
//
//   thread     8 filters x 8 pixels (double: 4), and of each tile of a step 4 weights and 4 pixels to copy
//   block      128 filters x 128 pixels (double: 64); the pixels of all images are one line. Where that gives a device
//              too few blocks, gridDim.z parts of the sum run side by side, and conv2d_implicit_gemm_finish adds them
//   shared     two pairs of tiles: 16 KB, for double 24 KB
//   reads      x F/128 times for each place, in lines where the stride is 1; w once a block, 16 bytes a copy
//   needs      w as conv2d_implicit_gemm_filters writes it; y at a multiple of 16 bytes; fewer than 2^31 pixels and
//              elements of a group of an image
//   over im2col  the columns, KH * KW times the size of x, are neither written nor read; sums in registers use each
//              value of shared memory 8 times, and copies run beside the products
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
    conv2d_forward_implicit_gemm(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ w,
                                 const real* __restrict__ b, int images, int channels, int padded_channels,
                                 int filters, int padded_filters, int H, int W, int OH, int OW, int KH, int KW, int sh,
                                 int sw, int dh, int dw, int top, int left, int relu) {
    __shared__ Tiles<128, 32 * LANES, 0> tiles;
    convolve<128, 32 * LANES, 8, false>(tiles, y, x, w, b, images, channels, padded_channels, filters, padded_filters,
                                        OH, OW, KH, KW, sliding(OH, H, KH, sh, dh, top),
                                        sliding(OW, W, KW, sw, dw, left), relu, blockIdx.z, gridDim.z);
}

// conv2d_forward_implicit_gemm_64: 64 filters x 128 pixels (double: 64), for layers of up to 64 filters.
extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_forward_implicit_gemm_64(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ w,
                                    const real* __restrict__ b, int images, int channels, int padded_channels,
                                    int filters, int padded_filters, int H, int W, int OH, int OW, int KH, int KW,
                                    int sh, int sw, int dh, int dw, int top, int left, int relu) {
    __shared__ Tiles<64, 32 * LANES, 0> tiles;
    convolve<64, 32 * LANES, 8, false>(tiles, y, x, w, b, images, channels, padded_channels, filters, padded_filters,
                                       OH, OW, KH, KW, sliding(OH, H, KH, sh, dh, top),
                                       sliding(OW, W, KW, sw, dw, left), relu, blockIdx.z, gridDim.z);
}

// conv2d_forward_implicit_gemm_64x64: 64 filters x 64 pixels (double: 32), 4 filters a thread. Two to four times as
// many blocks, for layers that have too few tiles for a device.
extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_forward_implicit_gemm_64x64(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ w,
                                       const real* __restrict__ b, int images, int channels, int padded_channels,
                                       int filters, int padded_filters, int H, int W, int OH, int OW, int KH, int KW,
                                       int sh, int sw, int dh, int dw, int top, int left, int relu) {
    __shared__ Tiles<64, 16 * LANES, 0> tiles;
    convolve<64, 16 * LANES, 4, false>(tiles, y, x, w, b, images, channels, padded_channels, filters, padded_filters,
                                       OH, OW, KH, KW, sliding(OH, H, KH, sh, dh, top),
                                       sliding(OW, W, KW, sw, dw, left), relu, blockIdx.z, gridDim.z);
}

// conv2d_forward_implicit_gemm_1x1
//
//   thread, block, shared  as conv2d_forward_implicit_gemm; grad_x is this kernel too, with gy for x
//   reads      pixel p of y needs pixel p of x alone: x is copied by 16 bytes, a quarter of the copies and of the tests
//   needs      also: a window of 1x1, stride 1, no padding; H * W a multiple of 4 (double: 2), x at a multiple of 16
//              bytes
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
    conv2d_forward_implicit_gemm_1x1(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ w,
                                     const real* __restrict__ b, int images, int channels, int padded_channels,
                                     int filters, int padded_filters, int area, int relu) {
    __shared__ Tiles<128, 32 * LANES, 0> tiles;
    convolve<128, 32 * LANES, 8, true>(tiles, y, x, w, b, images, channels, padded_channels, filters, padded_filters, 1,
                                       area, 1, 1, sliding(1, 1, 1, 1, 1, 0), sliding(area, area, 1, 1, 1, 0), relu,
                                       blockIdx.z, gridDim.z);
}

// conv2d_forward_implicit_gemm_1x1_64: as conv2d_forward_implicit_gemm_1x1, but 64 filters x 128 pixels (double: 64) a
// block, for layers of up to 64 filters.
extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_forward_implicit_gemm_1x1_64(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ w,
                                        const real* __restrict__ b, int images, int channels, int padded_channels,
                                        int filters, int padded_filters, int area, int relu) {
    __shared__ Tiles<64, 32 * LANES, 0> tiles;
    convolve<64, 32 * LANES, 8, true>(tiles, y, x, w, b, images, channels, padded_channels, filters, padded_filters, 1,
                                      area, 1, 1, sliding(1, 1, 1, 1, 1, 0), sliding(area, area, 1, 1, 1, 0), relu,
                                      blockIdx.z, gridDim.z);
}

// conv2d_forward_implicit_gemm_1x1_64x64: as conv2d_forward_implicit_gemm_1x1, but 64 filters x 64 pixels (double: 32)
// a block and 4 filters a thread, for layers that have too few tiles for a device.
extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_forward_implicit_gemm_1x1_64x64(real* __restrict__ y, const real* __restrict__ x, const real* __restrict__ w,
                                           const real* __restrict__ b, int images, int channels, int padded_channels,
                                           int filters, int padded_filters, int area, int relu) {
    __shared__ Tiles<64, 16 * LANES, 0> tiles;
    convolve<64, 16 * LANES, 4, true>(tiles, y, x, w, b, images, channels, padded_channels, filters, padded_filters, 1,
                                      area, 1, 1, sliding(1, 1, 1, 1, 1, 0), sliding(area, area, 1, 1, 1, 0), relu,
                                      blockIdx.z, gridDim.z);
}

// conv2d_grad_x_implicit_gemm
//
//   thread     8 channels x 8 pixels (double: 4) of gx
//   block      128 channels x 128 pixels (double: 64). With a stride the pixels are dealt into sh * sw classes by what
//              (iy + top) % sh and (ix + left) % sw leave; a block has pixels of the class blockIdx.z
//   shared     as forward
//   reads      gy C/128 times for each place that reaches the class; pixels of one class are neighbours in gy
//   needs      w as conv2d_implicit_gemm_filters writes it; fewer than 2^31 pixels and elements of a group of an image
//   over im2col  as forward. All pixels of a class meet the same places of the window: of a 3x3 window with stride 2
//              that is 4, 2, 2 or 1 of 9, and no others are walked
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
    conv2d_grad_x_implicit_gemm(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ w,
                                int images, int filters, int padded_filters, int channels, int padded_channels, int H,
                                int W, int OH, int OW, int KH, int KW, int sh, int sw, int dh, int dw, int top,
                                int left, int row_skip, int col_skip) {
    __shared__ Tiles<128, 32 * LANES, 0> tiles;
    int classes = sh * sw;
    convolve<128, 32 * LANES, 8, false>(tiles, gx, gy, w, nullptr, images, filters, padded_filters, channels,
                                        padded_channels, H, W, KH, KW,
                                        gathering(blockIdx.z % classes / sw, H, OH, KH, sh, dh, top, row_skip),
                                        gathering(blockIdx.z % sw, W, OW, KW, sw, dw, left, col_skip), 0,
                                        blockIdx.z / classes, gridDim.z / classes);
}

// conv2d_grad_x_implicit_gemm_64: as conv2d_grad_x_implicit_gemm, but 64 channels x 128 pixels (double: 64) a block,
// for layers of up to 64 channels.
extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_grad_x_implicit_gemm_64(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ w,
                                   int images, int filters, int padded_filters, int channels, int padded_channels,
                                   int H, int W, int OH, int OW, int KH, int KW, int sh, int sw, int dh, int dw,
                                   int top, int left, int row_skip, int col_skip) {
    __shared__ Tiles<64, 32 * LANES, 0> tiles;
    int classes = sh * sw;
    convolve<64, 32 * LANES, 8, false>(tiles, gx, gy, w, nullptr, images, filters, padded_filters, channels,
                                       padded_channels, H, W, KH, KW,
                                       gathering(blockIdx.z % classes / sw, H, OH, KH, sh, dh, top, row_skip),
                                       gathering(blockIdx.z % sw, W, OW, KW, sw, dw, left, col_skip), 0,
                                       blockIdx.z / classes, gridDim.z / classes);
}

// conv2d_grad_x_implicit_gemm_64x64: as conv2d_grad_x_implicit_gemm, but 64 channels x 64 pixels (double: 32) a block
// and 4 channels a thread, for layers that have too few tiles for a device.
extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_grad_x_implicit_gemm_64x64(real* __restrict__ gx, const real* __restrict__ gy, const real* __restrict__ w,
                                      int images, int filters, int padded_filters, int channels, int padded_channels,
                                      int H, int W, int OH, int OW, int KH, int KW, int sh, int sw, int dh, int dw,
                                      int top, int left, int row_skip, int col_skip) {
    __shared__ Tiles<64, 16 * LANES, 0> tiles;
    int classes = sh * sw;
    convolve<64, 16 * LANES, 4, false>(tiles, gx, gy, w, nullptr, images, filters, padded_filters, channels,
                                       padded_channels, H, W, KH, KW,
                                       gathering(blockIdx.z % classes / sw, H, OH, KH, sh, dh, top, row_skip),
                                       gathering(blockIdx.z % sw, W, OW, KW, sw, dw, left, col_skip), 0,
                                       blockIdx.z / classes, gridDim.z / classes);
}

// -- grad_w -----------------------------------------------------------------------------------------------------------

// One tile of BM filters x BN columns of one group's gw, summed over the blockIdx.z-th part of all pixels. Column q is
// channel and place as they lie in gw: (c * KH + k) * KW + l.
template <int BM, int BN, int TM>
__device__ __forceinline__ void correlate(Tiles<BM, BN, LANES>& tiles, real* gw, const real* gy, const real* x,
                                          int images, int channels, int filters, int H, int W, int OH, int OW, int KH,
                                          int KW, int sh, int sw, int dh, int dw, int top, int left) {
    constexpr int THREADS = BM / TM * BN / TN, LINES = THREADS / BK;
    int g = blockIdx.y, groups = gridDim.y, part = blockIdx.z, parts = gridDim.z;
    int cols = channels * KH * KW, tiles_down = ceil_div(filters, BM), area = OH * OW;
    int first_filter = blockIdx.x % tiles_down * BM, first_col = blockIdx.x / tiles_down * BN;

    // This thread copies every LINES-th filter and column, of one pixel of the BK: neighbours copy neighbouring pixels.
    int t = threadIdx.x, line = t / BK;
    int rows_left = filters - first_filter - line, offset[BN / LINES], down[BN / LINES], right[BN / LINES];
#pragma unroll
    for (int j = 0; j < BN / LINES; ++j) {
        int q = first_col + line + j * LINES, c = q / (KH * KW), k = q / KW % KH, l = q % KW;
        down[j] = q < cols ? k * dh - top : -(1 << 30);  // so far above the image that no pixel gets inside
        right[j] = l * dw - left;
        offset[j] = q < cols ? (c * H + down[j]) * W + right[j] : 0;
    }
    int steps = ceil_div(images * area, BK);
    int step = static_cast<int>(static_cast<long long>(steps) * part / parts);
    int end = static_cast<int>(static_cast<long long>(steps) * (part + 1) / parts);
    int p = step * BK + t % BK, n = p / area, oy = p % area / OW, ox = p % OW;
    int more_images = BK / area, more_rows = BK % area / OW, more_cols = BK % area % OW;

    auto copy = [&](int stage) {
        bool there = n < images;
        int from_gy = there ? ((n * groups + g) * filters + first_filter + line) * area + oy * OW + ox : 0;
        int iy = oy * sh, ix = ox * sw, from_x = (n * groups + g) * channels * H * W + iy * W + ix;
        unsigned height = there ? H : 0, width = W;
#pragma unroll
        for (int j = 0; j < BM / LINES; ++j)
            copy_async<sizeof(real)>(&tiles.a[stage][t % BK][line + j * LINES], gy + from_gy + j * LINES * area,
                                     there && j * LINES < rows_left ? sizeof(real) : 0);
#pragma unroll
        for (int j = 0; j < BN / LINES; ++j) {
            bool inside = static_cast<unsigned>(iy + down[j]) < height && static_cast<unsigned>(ix + right[j]) < width;
            copy_async<sizeof(real)>(&tiles.b[stage][t % BK][line + j * LINES], x + (inside ? from_x + offset[j] : 0),
                                     inside ? sizeof(real) : 0);
        }
        copy_async_commit();
        ox += more_cols;
        if (ox >= OW) ox -= OW, ++oy;
        oy += more_rows;
        if (oy >= OH) oy -= OH, ++n;
        n += more_images;
    };

    real sum[TM][TN] = {};
    int row = own_row<BN, TM>(), column = own_col<BN>();
    if (step < end) copy(0);
    for (int s = 0; step + s < end; ++s) {
        copy_async_wait<0>();
        __syncthreads();  // the tiles are there for all, and nobody reads the other ones any more
        if (step + s + 1 < end) copy((s + 1) % 2);
        multiply<TM, BM + LANES, BN + LANES>(sum, &tiles.a[s % 2][0][row], &tiles.b[s % 2][0][column]);
    }

    gw += (static_cast<long long>(part) * groups + g) * filters * cols;
    bool packs = cols % LANES == 0;
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        int f = first_filter + row + i / LANES * 4 * LANES + i % LANES;
        if (f >= filters) continue;
#pragma unroll
        for (int j = 0; j < TN; ++j) {
            int q = first_col + column + j / LANES * 8 * LANES + j % LANES;
            if (q >= cols || (packs && j % LANES)) continue;
            if (packs) {
                Pack pack;
#pragma unroll
                for (int m = 0; m < LANES; ++m) pack.v[m] = sum[i][j / LANES * LANES + m];
                store_pack(gw + f * cols + q, 0, pack);
            } else {
                gw[f * cols + q] = sum[i][j];
            }
        }
    }
}

// conv2d_grad_w_implicit_gemm
//
//   thread     8 filters x 8 columns (double: 4) of gw, and of each tile of a step 4 gradients and 4 pixels to copy
//   block      128 filters x 128 columns (double: 64), for one of gridDim.z parts of the pixels of all images
//   shared     two pairs of tiles, 4 banks more in a row: 16.5 KB, for double 24.5 KB. Copies run along the pixels and
//              the products across: with them 8 pixels x 4 lines of a warp lie in 32 banks
//   reads      gy once for every 128 columns, x for each place and every 128 filters, in runs of 8 pixels: a sector of
//              32 bytes, or two
//   needs      contiguous arrays, gw at a multiple of 16 bytes; fewer than 2^31 elements of x and gy
//   over im2col  no columns in memory. The sum over all pixels is so long, and gw so small, that only parts of the sum
//              give every multiprocessor something to do
extern "C" __global__ void __launch_bounds__(256, BLOCKS)
    conv2d_grad_w_implicit_gemm(real* __restrict__ gw, const real* __restrict__ gy, const real* __restrict__ x,
                                int images, int channels, int filters, int H, int W, int OH, int OW, int KH, int KW,
                                int sh, int sw, int dh, int dw, int top, int left) {
    __shared__ Tiles<128, 32 * LANES, LANES> tiles;
    correlate<128, 32 * LANES, 8>(tiles, gw, gy, x, images, channels, filters, H, W, OH, OW, KH, KW, sh, sw, dh, dw,
                                  top, left);
}

// conv2d_grad_w_implicit_gemm_64: 64 filters x 128 columns (double: 64), for layers of up to 64 filters.
extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_grad_w_implicit_gemm_64(real* __restrict__ gw, const real* __restrict__ gy, const real* __restrict__ x,
                                   int images, int channels, int filters, int H, int W, int OH, int OW, int KH, int KW,
                                   int sh, int sw, int dh, int dw, int top, int left) {
    __shared__ Tiles<64, 32 * LANES, LANES> tiles;
    correlate<64, 32 * LANES, 8>(tiles, gw, gy, x, images, channels, filters, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top,
                                 left);
}

// conv2d_grad_w_implicit_gemm_64x64: 64 filters x 64 columns (double: 32), for small windows of few channels.
extern "C" __global__ void __launch_bounds__(128, 4)
    conv2d_grad_w_implicit_gemm_64x64(real* __restrict__ gw, const real* __restrict__ gy, const real* __restrict__ x,
                                      int images, int channels, int filters, int H, int W, int OH, int OW, int KH,
                                      int KW, int sh, int sw, int dh, int dw, int top, int left) {
    __shared__ Tiles<64, 16 * LANES, LANES> tiles;
    correlate<64, 16 * LANES, 4>(tiles, gw, gy, x, images, channels, filters, H, W, OH, OW, KH, KW, sh, sw, dh, dw, top,
                                 left);
}
