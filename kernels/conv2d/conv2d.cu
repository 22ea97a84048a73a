// conv2d in CUDA C++: the rungs direct, shared and im2col of kernels/conv2d/__init__.py, in its order.
// op: gpunet/ops/conv2d.py      launchers: conv2d_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/conv2d/conv2d.cu
//
// At place (k, l) the window of output (i, j) reads pixel (i * sh + k * dh - top, j * sw + l * dw - left). FG and CG
// are the filters and channels of one group.

#ifndef real
#error "conv2d.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"

// value, or the positive part of it; NaN is not below 0 and so goes through.
__device__ __forceinline__ real finished(real value, int relu) { return relu && value < real(0) ? real(0) : value; }

// Whether row iy of `size` exists; a negative number is a huge unsigned one.
__device__ __forceinline__ bool inside(int iy, int size) { return static_cast<unsigned>(iy) < unsigned(size); }

// The places k of `window` for which row iy + k * step lies inside an image of `size` rows.
struct Range {
    int begin, end;
    __device__ __forceinline__ Range(int iy, int step, int window, int size) {
        begin = iy < 0 ? ceil_div(-iy, step) : 0;
        end = min(window, ceil_div(size - iy, step));
    }
};

// This thread's number in the grid.
__device__ __forceinline__ long long own_number() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// Output (n, i, j) of N * OH * OW, and the one `step` further on, without a division.
struct Place {
    int n, i, j;
    __device__ __forceinline__ Place(long long number, int OH, int OW) {
        int area = OH * OW;
        n = static_cast<int>(number / area);
        int rest = static_cast<int>(number % area);
        i = rest / OW;
        j = rest % OW;
    }
    __device__ __forceinline__ void advance(const Place& step, int OH, int OW) {
        j += step.j;
        if (j >= OW) j -= OW, ++i;
        i += step.i;
        if (i >= OH) i -= OH, ++n;
        n += step.n;
    }
};

// -- direct -----------------------------------------------------------------------------------------------------------

// conv2d_forward_direct
//
//   thread     one output y[n, f, i, j]
//   block      256 neighbouring outputs, along rows first
//   shared     none
//   reads      x and w as often as they are used, most of it from the caches: a warp reads neighbouring pixels, or
//              every sw-th, and one weight for all
//   needs      contiguous arrays, fewer than 2^31 pixels of a plane
//   over definition  every output has its own thread; no columns
extern "C" __global__ void conv2d_forward_direct(real* __restrict__ y, const real* __restrict__ x,
                                                 const real* __restrict__ w, const real* __restrict__ b, long long size,
                                                 int groups, int CG, int FG, int H, int W, int OH, int OW, int KH,
                                                 int KW, int sh, int sw, int dh, int dw, int top, int left, int relu) {
    long long number = own_number();
    if (number >= size) return;
    Place at(number, OH, OW);  // its n is the number of the plane: n * F + f
    int F = groups * FG, f = at.n % F, g = f / FG;
    int iy = at.i * sh - top, ix = at.j * sw - left;
    Range rows(iy, dh, KH, H), cols(ix, dw, KW, W);
    const real* plane = x + (static_cast<long long>(at.n / F) * groups + g) * CG * H * W;
    const real* weight = w + static_cast<long long>(f) * CG * KH * KW;
    real sum = 0;
    for (int c = 0; c < CG; ++c, plane += H * W, weight += KH * KW)
        for (int k = rows.begin; k < rows.end; ++k)
            for (int l = cols.begin; l < cols.end; ++l)
                sum += plane[(iy + k * dh) * W + ix + l * dw] * weight[k * KW + l];
    y[number] = finished(b ? sum + b[f] : sum, relu);
}

// conv2d_grad_x_direct
//
//   thread     one pixel gx[n, c, iy, ix]: gathers from the outputs whose windows hold it
//   block      256 neighbouring pixels
//   shared     none
//   reads      gy and w as often as they are used; with a stride only every sh-th and sw-th place of a window fits
//   needs      contiguous arrays, fewer than 2^31 pixels of a plane
//   over definition  gathered, not scattered: no two threads add to one pixel
extern "C" __global__ void conv2d_grad_x_direct(real* __restrict__ gx, const real* __restrict__ gy,
                                                const real* __restrict__ w, long long size, int groups, int CG, int FG,
                                                int H, int W, int OH, int OW, int KH, int KW, int sh, int sw, int dh,
                                                int dw, int top, int left) {
    long long number = own_number();
    if (number >= size) return;
    Place at(number, H, W);  // its n is the number of the plane: n * C + c
    int C = groups * CG, g = at.n % C / CG, c = at.n % CG;
    const real* image = gy + (static_cast<long long>(at.n / C) * groups + g) * FG * OH * OW;
    const real* weight = w + (static_cast<long long>(g) * FG * CG + c) * (KH * KW);
    long long window = static_cast<long long>(CG) * KH * KW;  // from filter to filter
    real sum = 0;
    for (int k = 0; k < KH; ++k) {
        int row = at.i + top - k * dh, i = row / sh;
        if (row < 0 || row % sh || i >= OH) continue;
        for (int l = 0; l < KW; ++l) {
            int col = at.j + left - l * dw, j = col / sw;
            if (col < 0 || col % sw || j >= OW) continue;
            const real *gradient = image + i * OW + j, *tap = weight + k * KW + l;
            for (int f = 0; f < FG; ++f, gradient += OH * OW, tap += window) sum += *gradient * *tap;
        }
    }
    gx[number] = sum;
}

// conv2d_grad_w_direct
//
//   thread     every 256th output of all images, for one weight
//   block      one weight gw[f, c, k, l]; its threads' sums are added in a fixed order
//   shared     32 sums
//   reads      a filter's gy and a channel's x once for each weight, in lines
//   needs      contiguous arrays, fewer than 2^31 pixels of a plane, and weights
//   over definition  a block a weight, and no columns
extern "C" __global__ void conv2d_grad_w_direct(real* __restrict__ gw, const real* __restrict__ gy,
                                                const real* __restrict__ x, int images, int groups, int CG, int FG,
                                                int H, int W, int OH, int OW, int KH, int KW, int sh, int sw, int dh,
                                                int dw, int top, int left) {
    __shared__ real scratch[32];
    int l = blockIdx.x % KW, k = blockIdx.x / KW % KH, c = blockIdx.x / (KW * KH) % CG, f = blockIdx.x / (KW * KH * CG);
    int g = f / FG, F = groups * FG, C = groups * CG;
    int down = k * dh - top, right = l * dw - left;
    const Place step(blockDim.x, OH, OW);
    real sum = 0;
    for (Place at(threadIdx.x, OH, OW); at.n < images; at.advance(step, OH, OW)) {
        int iy = at.i * sh + down, ix = at.j * sw + right;
        const real* gradients = gy + (static_cast<long long>(at.n) * F + f) * OH * OW;
        const real* pixels = x + (static_cast<long long>(at.n) * C + g * CG + c) * H * W;
        // The padding counts as zeros: beside it a gradient of inf makes NaN, as in the definition.
        sum += gradients[at.i * OW + at.j] * (inside(iy, H) && inside(ix, W) ? pixels[iy * W + ix] : real(0));
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) gw[blockIdx.x] = sum;
}

// conv2d_grad_b_direct
//
//   thread     every 256th element of one filter's gy, in some of the images; 16 bytes at a time where planes are whole
//   block      one filter, and of gridDim.y parts of the images one
//   shared     32 sums
//   reads      gy once, in lines
//   needs      contiguous arrays; gy at a multiple of 16 bytes where OH * OW is a multiple of 4 (double: 2)
//   over definition  parts of the sum run side by side; conv2d_sum_parts adds them in order
extern "C" __global__ void conv2d_grad_b_direct(real* __restrict__ gb, const real* __restrict__ gy, int images, int F,
                                                int area, bool packs) {
    __shared__ real scratch[32];
    int f = blockIdx.x, part = blockIdx.y, parts = gridDim.y;
    int n = static_cast<int>(static_cast<long long>(images) * part / parts);
    int end = static_cast<int>(static_cast<long long>(images) * (part + 1) / parts);
    int width = packs ? LANES : 1, each = area / width;  // what the threads share out: packs of a plane, or elements
    const Place step(blockDim.x, 1, each);
    Place at(threadIdx.x, 1, each);
    real sum = 0;
    for (at.n += n; at.n < end; at.advance(step, 1, each)) {
        const real* plane = gy + (static_cast<long long>(at.n) * F + f) * area;
        if (packs) {
            Pack pack = load_pack(plane, at.j);
#pragma unroll
            for (int m = 0; m < LANES; ++m) sum += pack.v[m];
        } else {
            sum += plane[at.j];
        }
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) gb[part * F + f] = sum;
}

// conv2d_sum_parts: total[e] is the sum of the `number` parts[p * size + e].
//
//   thread     every 8th part of one element
//   block      32 neighbouring elements x 8 threads, whose sums are added in order
//   shared     256 sums
//   reads      each part once, in lines
//   needs      contiguous arrays
extern "C" __global__ void conv2d_sum_parts(real* __restrict__ total, const real* __restrict__ parts, int size,
                                            int number) {
    __shared__ real sums[8][32];
    long long e = static_cast<long long>(blockIdx.x) * 32 + threadIdx.x;
    real sum = 0;
    if (e < size)
        for (int p = threadIdx.y; p < number; p += 8) sum += parts[static_cast<long long>(p) * size + e];
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y > 0 || e >= size) return;
    for (int p = 1; p < 8; ++p) sum += sums[p][threadIdx.x];
    total[e] = sum;
}

// -- shared -----------------------------------------------------------------------------------------------------------

// conv2d_forward_shared: also grad_x for stride 1, which is this convolution with its windows turned by 180 degrees,
// filters and channels exchanged, and (dh * (KH - 1) - top, ..) for the padding. w_f, w_c and w_k are the steps in w
// from filter to filter, channel to channel and place to place; the first place of the first window is w[w_first].
//
//   thread     4 pixels (double: 2) of 8 filters; its pixels are blockDim.x apart
//   block      a patch of down x across outputs of one image, of 8 * blockDim.y filters. A warp's filters are the same
//   shared     what the patch reads of `depth` channels, the weights for it, and where in the patch each place of the
//              window begins. Columns with the same ix % sw lie side by side: a warp reads neighbours at any stride
//   reads      x once for every 8 * blockDim.y filters, and the rim of patches again; weights once for every patch
//   needs      contiguous arrays, fewer than 2^31 elements of an image; down * across pixels for the threads
//   over direct  each value of x and w is fetched once a block, and each load from shared memory serves 8 or 4 (double:
//              2) products
extern "C" __global__ void conv2d_forward_shared(real* __restrict__ y, const real* __restrict__ x,
                                                 const real* __restrict__ w, const real* __restrict__ b, int groups,
                                                 int channels, int filters, int depth, int H, int W, int OH, int OW,
                                                 int KH, int KW, int sh, int sw, int dh, int dw, int top, int left,
                                                 int down, int across, int w_first, int w_f, int w_c, int w_k,
                                                 int relu) {
    extern __shared__ __align__(16) unsigned char room[];
    const int PIXELS = LANES, FILTERS = 8;
    int places = KH * KW, width = FILTERS * blockDim.y, pitch = width + LANES;  // so that 8 rows begin in other banks
    int rows = (down - 1) * sh + (KH - 1) * dh + 1, cols = (across - 1) * sw + (KW - 1) * dw + 1;
    int run = ceil_div(cols, sw), row_step = run * sw, patch_step = rows * row_step;
    real* weights = reinterpret_cast<real*>(room);  // [depth][places][pitch]
    real* patch = weights + depth * places * pitch;  // [depth][rows][sw][run]
    int* begins = reinterpret_cast<int*>(patch + depth * patch_step);

    int tiles_across = ceil_div(OW, across), tiles_down = ceil_div(OH, down), tiles_f = ceil_div(filters, width);
    int tile = blockIdx.x;
    int first_ox = tile % tiles_across * across;
    tile /= tiles_across;
    int first_oy = tile % tiles_down * down;
    tile /= tiles_down;
    int first_f = tile % tiles_f * width;
    tile /= tiles_f;
    int g = tile % groups, n = tile / groups;
    int first_iy = first_oy * sh - top, first_ix = first_ox * sw - left;
    const real* image = x + (static_cast<long long>(n) * groups + g) * channels * H * W;
    const real* of_group = w + w_first + static_cast<long long>(g) * filters * channels * places;

    int t = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int q = t; q < places; q += threads)
        begins[q] = q / KW * dh * row_step + q % KW * dw % sw * run + q % KW * dw / sw;
    int own[PIXELS];
#pragma unroll
    for (int j = 0; j < PIXELS; ++j) {
        int p = threadIdx.x + j * blockDim.x, row = p / across;
        own[j] = row < down ? row * sh * row_step + p % across : 0;  // threads without a pixel compute another one's
    }
    real sum[FILTERS][PIXELS] = {};
    for (int first_c = 0; first_c < channels; first_c += depth) {
        int some = min(depth, channels - first_c);
        __syncthreads();  // nobody reads the channels before these any more
        for (int r = t / 32; r < some * rows; r += threads / 32) {  // a warp a row
            int c = r / rows, iy = first_iy + r % rows;
            const real* from = image + (first_c + c) * H * W + iy * W + first_ix;
            for (int col = t % 32; col < cols; col += 32) {
                bool there = inside(iy, H) && inside(first_ix + col, W);
                patch[r * row_step + col % sw * run + col / sw] = there ? from[col] : real(0);
            }
        }
        for (int f = t / 32; f < width; f += threads / 32) {  // a warp a filter
            const real* from = of_group + (first_f + f) * w_f + first_c * w_c;
            for (int e = t % 32; e < some * places; e += 32)
                weights[e * pitch + f] = first_f + f < filters ? from[e / places * w_c + e % places * w_k] : real(0);
        }
        __syncthreads();  // patch and weights are there
        const real* taps = weights + FILTERS * threadIdx.y;
        for (int c = 0; c < some; ++c) {
            const real* plane = patch + c * patch_step;
#pragma unroll 2
            for (int q = 0; q < places; ++q, taps += pitch) {
                const real* place = plane + begins[q];
                real pixel[PIXELS];
#pragma unroll
                for (int j = 0; j < PIXELS; ++j) pixel[j] = place[own[j]];
#pragma unroll
                for (int i = 0; i < FILTERS; i += LANES) {
                    Pack pack = load_pack(taps + i, 0);
#pragma unroll
                    for (int m = 0; m < LANES; ++m)
#pragma unroll
                        for (int j = 0; j < PIXELS; ++j) sum[i + m][j] += pack.v[m] * pixel[j];
                }
            }
        }
    }
    y += (static_cast<long long>(n) * groups + g) * filters * OH * OW;
#pragma unroll
    for (int j = 0; j < PIXELS; ++j) {
        int p = threadIdx.x + j * blockDim.x, oy = first_oy + p / across, ox = first_ox + p % across;
        if (p >= down * across || oy >= OH || ox >= OW) continue;
#pragma unroll
        for (int i = 0; i < FILTERS; ++i) {
            int f = first_f + FILTERS * threadIdx.y + i;
            if (f >= filters) continue;
            real bias = b ? b[g * filters + f] : real(0);
            y[(f * OH + oy) * OW + ox] = finished(sum[i][j] + bias, relu);
        }
    }
}

// -- im2col -----------------------------------------------------------------------------------------------------------
//
// The definition's way, for some images at a time: column (n * OH + i) * OW + j of the columns holds the pixels under
// window (i, j) of image n, in the order of the weights. The products are those of matmul.

// conv2d_im2col_columns
//
//   thread     one column; a block walks down the rows (c, k, l)
//   block      256 neighbouring columns, and of the rows every gridDim.y-th
//   shared     none
//   reads      x up to KH * KW times, most of it from the caches; writes are lines
//   needs      contiguous arrays, fewer than 2^31 columns, and elements of an image of x
extern "C" __global__ void conv2d_im2col_columns(real* __restrict__ columns, const real* __restrict__ x, int number,
                                                 int C, int H, int W, int OH, int OW, int KH, int KW, int sh, int sw,
                                                 int dh, int dw, int top, int left) {
    long long col = own_number();
    if (col >= number) return;
    Place at(col, OH, OW);
    const real* image = x + static_cast<long long>(at.n) * C * H * W;
    for (int r = blockIdx.y; r < C * KH * KW; r += gridDim.y) {
        int iy = at.i * sh + r / KW % KH * dh - top, ix = at.j * sw + r % KW * dw - left;
        const real* pixel = image + (r / (KH * KW) * H + iy) * W + ix;
        columns[static_cast<long long>(r) * number + col] = inside(iy, H) && inside(ix, W) ? *pixel : real(0);
    }
}

// conv2d_im2col_rows: gy (images, F, area) as the rows (F, images * area) of a product. Threads and blocks as
// conv2d_im2col_columns; every element once.
extern "C" __global__ void conv2d_im2col_rows(real* __restrict__ rows, const real* __restrict__ gy, int number, int F,
                                              int area) {
    long long col = own_number();
    if (col >= number) return;
    const real* from = gy + col / area * F * area + col % area;
    for (int f = blockIdx.y; f < F; f += gridDim.y) rows[static_cast<long long>(f) * number + col] = from[f * area];
}

// conv2d_forward_im2col: a product (F, images * area) as y (images, F, area), with bias and positive part. Threads and
// blocks as conv2d_im2col_columns; every element once.
//
//   over shared  all arithmetic is a matrix product, at its speed, for any window and any number of channels
extern "C" __global__ void conv2d_forward_im2col(real* __restrict__ y, const real* __restrict__ product,
                                                 const real* __restrict__ b, int number, int F, int area, int relu) {
    long long col = own_number();
    if (col >= number) return;
    real* to = y + col / area * F * area + col % area;
    for (int f = blockIdx.y; f < F; f += gridDim.y) {
        real value = product[static_cast<long long>(f) * number + col];
        to[f * area] = finished(b ? value + b[f] : value, relu);
    }
}

// conv2d_grad_x_im2col: gathers each pixel from the gradient of the columns.
//
//   thread     one pixel of some channels; a block walks through the channels
//   block      256 neighbouring pixels, and of the channels every gridDim.y-th
//   shared     none
//   reads      every column once; neighbours in a warp read neighbours in a row of the columns, where the stride is 1
//   needs      contiguous arrays, fewer than 2^31 columns, and elements of an image of gx
extern "C" __global__ void conv2d_grad_x_im2col(real* __restrict__ gx, const real* __restrict__ columns, int images,
                                                int number, int C, int H, int W, int OH, int OW, int KH, int KW, int sh,
                                                int sw, int dh, int dw, int top, int left) {
    Place at(own_number(), H, W);
    if (at.n >= images) return;
    real* image = gx + static_cast<long long>(at.n) * C * H * W + at.i * W + at.j;
    for (int c = blockIdx.y; c < C; c += gridDim.y) {
        real sum = 0;
        for (int k = 0; k < KH; ++k) {
            int row = at.i + top - k * dh, i = row / sh;
            if (row < 0 || row % sh || i >= OH) continue;
            for (int l = 0; l < KW; ++l) {
                int col = at.j + left - l * dw, j = col / sw;
                if (col < 0 || col % sw || j >= OW) continue;
                sum += columns[(static_cast<long long>(c * KH + k) * KW + l) * number + (at.n * OH + i) * OW + j];
            }
        }
        image[c * H * W] = sum;
    }
}
