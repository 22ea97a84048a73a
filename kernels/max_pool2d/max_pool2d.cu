// max_pool2d in CUDA C++: the rungs of kernels/max_pool2d/__init__.py, in its order.
// op: gpunet/ops/max_pool2d.py      launchers: max_pool2d_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/max_pool2d/max_pool2d.cu
//
// The index is a byte where windows have at most 256 positions: an output of 2 x 2 windows costs 16 + 4 + 1 bytes, and
// would cost 16 + 4 + 8 with a 64-bit place in the image. Backward reads it instead of x and y.
//
// Backward gathers: each pixel asks the windows that hold it, by falling window number, which is rising position in the
// window and the definition's order. Nothing is added by two threads, so there are no atomics.

#ifndef real
#error "max_pool2d.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"
#include "common/pooling.cuh"

#define ROWS 4   // rows of one column that a thread of the rung "rows" takes
#define AHEAD 3  // rows of windows that it asks for at once in backward

// -- forward ----------------------------------------------------------------------------------------------------------

// The winner under window (i, j) of any size. Padding is skipped and not read.
__device__ __forceinline__ Best winner(const real* image, const Axis& rows, const Axis& cols, int i, int j) {
    int top = window_start(rows, i), left = window_start(cols, j);
    int first_k = first_inside(rows, i), first_l = first_inside(cols, j);
    Best best = {LOWEST, first_k * cols.kernel + first_l};  // -inf does not beat it: the place stays
    for (int k = first_k; k < rows.kernel && top + k * rows.step < rows.size; ++k) {
        const real* line = image + static_cast<long long>(top + k * rows.step) * cols.size;
        for (int l = first_l; l < cols.kernel && left + l * cols.step < cols.size; ++l)
            challenge(best, line[left + l * cols.step], k * cols.kernel + l);
    }
    return best;
}

// The winners under R x V windows, K by K with steps of S, from the cells under all of them. Each row of a window is
// decided once and then serves every window that holds the row. Cells outside the image are -inf and win nothing.
template <int K, int S, int R, int V>
__device__ __forceinline__ void winners(Best (&best)[R][V], const real (&cells)[(R - 1) * S + K][(V - 1) * S + K],
                                        const Axis& rows, const Axis& cols, int i, int j) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int v = 0; v < V; ++v) best[r][v] = {LOWEST, first_inside(rows, i + r) * K + first_inside(cols, j + v)};
    }
#pragma unroll
    for (int t = 0; t < (R - 1) * S + K; ++t) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            Best row = {cells[t][v * S], 0};
#pragma unroll
            for (int l = 1; l < K; ++l) challenge(row, cells[t][v * S + l], l);
#pragma unroll
            for (int r = 0; r < R; ++r) {
                int k = t - r * S;  // row t of the cells is row k of window i + r
                if (k >= 0 && k < K) challenge(best[r][v], row.value, k * K + row.place);
            }
        }
    }
}

// max_pool2d_forward_plain
//
//   thread     one output
//   block      256 neighbouring outputs
//   shared     none
//   reads      every pixel once for each window that holds it; neighbouring threads read neighbouring windows
//   needs      contiguous arrays; `index` where windows have at most 256 positions, else `large_index`
//   over definition  every output has its own thread, and one pass does what KH * KW passes did
extern "C" __global__ void max_pool2d_forward_plain(real* __restrict__ y, unsigned char* __restrict__ index,
                                                    int* __restrict__ large_index, const real* __restrict__ x,
                                                    long long outputs, int H, int W, int OH, int OW, int KH, int KW,
                                                    int sh, int sw, int ph, int pw, int dh, int dw) {
    long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (o >= outputs) return;
    Axis rows = {H, OH, KH, sh, ph, dh}, cols = {W, OW, KW, sw, pw, dw};
    long long line = o / OW, plane = line / OH;
    Best best = winner(x + plane * H * W, rows, cols, static_cast<int>(line % OH), static_cast<int>(o % OW));
    y[o] = best.value;
    if (large_index)
        large_index[o] = best.place;
    else
        index[o] = static_cast<unsigned char>(best.place);
}

// The outputs (i .. i + ROWS - 1, j) of one plane, K by K with steps of S.
template <int K, int S>
__device__ __forceinline__ void forward_strip(real* y, unsigned char* index, const real* image, const Axis& rows,
                                              const Axis& cols, int i, int j) {
    real cells[(ROWS - 1) * S + K][K];
    load_cells(cells, image, window_start(rows, i), window_start(cols, j), rows, cols, LOWEST);
    Best best[ROWS][1];
    winners<K, S>(best, cells, rows, cols, i, j);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (i + r >= rows.out) break;
        y[(i + r) * cols.out + j] = best[r][0].value;
        index[(i + r) * cols.out + j] = static_cast<unsigned char>(best[r][0].place);
    }
}

// max_pool2d_forward_rows
//
//   thread     ROWS outputs of one column
//   block      a box of outputs: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      a row of pixels once for all the windows of the thread that hold it
//   needs      contiguous arrays, windows of at most 256 positions, planes of less than 2^31 pixels
//   over plain  no 64-bit division, sizes that the compiler knows in the common cases (loops unrolled, all loads of a
//               thread under way together), and rows that overlapping windows share are read and decided once
extern "C" __global__ void max_pool2d_forward_rows(real* __restrict__ y, unsigned char* __restrict__ index,
                                                   const real* __restrict__ x, long long first, long long planes,
                                                   int H, int W, int OH, int OW, int KH, int KW, int sh, int sw,
                                                   int ph, int pw, int dh, int dw) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, i = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    long long plane = plane_of(first);
    if (i >= OH || j >= OW || plane >= planes) return;
    Axis rows = {H, OH, KH, sh, ph, dh}, cols = {W, OW, KW, sw, pw, dw};
    const real* image = x + plane * H * W;
    real* out = y + plane * OH * OW;
    unsigned char* out_index = index + plane * OH * OW;
    if (is_square(rows, cols, 2, 2)) {
        forward_strip<2, 2>(out, out_index, image, rows, cols, i, j);
    } else if (is_square(rows, cols, 3, 2)) {
        forward_strip<3, 2>(out, out_index, image, rows, cols, i, j);
    } else if (is_square(rows, cols, 3, 1)) {
        forward_strip<3, 1>(out, out_index, image, rows, cols, i, j);
    } else {
        for (int r = 0; r < ROWS && i + r < OH; ++r) {
            Best best = winner(image, rows, cols, i + r, j);
            out[(i + r) * OW + j] = best.value;
            out_index[(i + r) * OW + j] = static_cast<unsigned char>(best.place);
        }
    }
}

// max_pool2d_forward_rows_large: as max_pool2d_forward_rows, for K by K windows at steps of 1, K = 4 or 5. Apart from
// it, because the registers that they take would leave room for fewer threads with smaller windows.
extern "C" __global__ void max_pool2d_forward_rows_large(real* __restrict__ y, unsigned char* __restrict__ index,
                                                         const real* __restrict__ x, long long first,
                                                         long long planes, int H, int W, int OH, int OW, int K,
                                                         int ph, int pw) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, i = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    long long plane = plane_of(first);
    if (i >= OH || j >= OW || plane >= planes) return;
    Axis rows = {H, OH, K, 1, ph, 1}, cols = {W, OW, K, 1, pw, 1};
    const real* image = x + plane * H * W;
    real* out = y + plane * OH * OW;
    unsigned char* out_index = index + plane * OH * OW;
    if (K == 4) {
        forward_strip<4, 1>(out, out_index, image, rows, cols, i, j);
    } else {
        forward_strip<5, 1>(out, out_index, image, rows, cols, i, j);
    }
}

// The outputs (i .. i + 1, j .. j + V - 1) of one plane, K by K with steps of S and P of padding.
template <int K, int S, int P>
__device__ __forceinline__ void forward_tile(real* y, unsigned char* index, const real* image, const Axis& rows,
                                             const Axis& cols, int i, int j) {
    constexpr int V = LANES / S;
    real cells[S + K][(V - 1) * S + K];
    load_cells_wide<P>(cells, image, i * S - P, j * S, rows, cols, LOWEST);
    Best best[2][V];
    winners<K, S>(best, cells, rows, cols, i, j);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        Few<real, V> values;
        Few<unsigned char, V> places;
#pragma unroll
        for (int v = 0; v < V; ++v) {
            values.v[v] = best[r][v].value;
            places.v[v] = static_cast<unsigned char>(best[r][v].place);
        }
        if (i + r < rows.out) {
            store_few(y + (i + r) * cols.out + j, values);
            store_few(index + (i + r) * cols.out + j, places);
        }
    }
}

// max_pool2d_forward_wide
//
//   thread     2 x V outputs, V = LANES / S: the columns that begin in the same 16 bytes of x
//   block      a box of such tiles: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      16 bytes a load, K + S of them under way a thread; single pixels left and right where windows overlap
//   needs      as rows; 2 x 2 windows at steps of 2 without padding, or 3 x 3 at steps of 1 or 2 with padding 1; W a
//              multiple of LANES and OW of V, x at a multiple of 16 bytes
//   over rows  a quarter of the load instructions and more bytes under way a thread; outputs leave V at a time
extern "C" __global__ void max_pool2d_forward_wide(real* __restrict__ y, unsigned char* __restrict__ index,
                                                   const real* __restrict__ x, long long first, long long planes,
                                                   int H, int W, int OH, int OW, int K, int S) {
    int j = (blockIdx.x * blockDim.x + threadIdx.x) * (LANES / S);
    int i = (blockIdx.y * blockDim.y + threadIdx.y) * 2;
    long long plane = plane_of(first);
    if (i >= OH || j >= OW || plane >= planes) return;
    int P = K == 3 ? 1 : 0;
    Axis rows = {H, OH, K, S, P, 1}, cols = {W, OW, K, S, P, 1};
    const real* image = x + plane * H * W;
    real* out = y + plane * OH * OW;
    unsigned char* out_index = index + plane * OH * OW;
    if (K == 2) {
        forward_tile<2, 2, 0>(out, out_index, image, rows, cols, i, j);
    } else if (S == 2) {
        forward_tile<3, 2, 1>(out, out_index, image, rows, cols, i, j);
    } else {
        forward_tile<3, 1, 1>(out, out_index, image, rows, cols, i, j);
    }
}

// -- grad_x -----------------------------------------------------------------------------------------------------------

// max_pool2d_grad_x_plain
//
//   thread     one pixel
//   block      256 neighbouring pixels
//   shared     none
//   reads      the index of every window that holds the pixel, and gy where the pixel won
//   needs      contiguous arrays; `index` where windows have at most 256 positions, else `large_index`
//   over definition  one pass that writes each pixel once, where KH * KW passes added
extern "C" __global__ void max_pool2d_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                   const unsigned char* __restrict__ index,
                                                   const int* __restrict__ large_index, long long pixels, int H,
                                                   int W, int OH, int OW, int KH, int KW, int sh, int sw, int ph,
                                                   int pw, int dh, int dw) {
    long long p = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= pixels) return;
    long long line = p / W, plane = line / H;
    int iy = static_cast<int>(line % H), ix = static_cast<int>(p % W);
    real sum = 0;
    for (int k = 0; k < KH; ++k) {
        int top = iy + ph - k * dh;  // where a window begins that has this pixel in its row k, in the padded image
        if (top < 0 || top % sh != 0 || top / sh >= OH) continue;
        for (int l = 0; l < KW; ++l) {
            int left = ix + pw - l * dw;
            if (left < 0 || left % sw != 0 || left / sw >= OW) continue;
            long long o = (plane * OH + top / sh) * OW + left / sw;
            int place = large_index ? large_index[o] : index[o];
            if (place == k * KW + l) sum += gy[o];
        }
    }
    gx[p] = sum;
}

// The gradient of pixel (iy, ix), for windows of any kind: from the last window that holds it to the first.
__device__ __forceinline__ real collected(const real* gy, const unsigned char* index, const Axis& rows,
                                          const Axis& cols, int iy, int ix) {
    int row = iy + rows.pad, col = ix + cols.pad;  // in the padded image
    real sum = 0;
    for (int i = row / rows.stride, from_top = row % rows.stride; i >= 0; --i, from_top += rows.stride) {
        if (from_top > (rows.kernel - 1) * rows.step) break;
        if (i >= rows.out || from_top % rows.step != 0) continue;
        int k = from_top / rows.step;
        for (int j = col / cols.stride, from_left = col % cols.stride; j >= 0; --j, from_left += cols.stride) {
            if (from_left > (cols.kernel - 1) * cols.step) break;
            if (j >= cols.out || from_left % cols.step != 0) continue;
            int o = i * cols.out + j;
            if (index[o] == k * cols.kernel + from_left / cols.step) sum += gy[o];
        }
    }
    return sum;
}

// The gradients of ROWS pixels of one column, from row `row` of the padded image on, which is a multiple of ROWS: so
// which windows hold a row is known when the text is compiled.
template <int K, int S>
__device__ __forceinline__ void collect_strip(real (&sums)[ROWS], const real* gy, const unsigned char* index,
                                              const Axis& rows, const Axis& cols, int row, int ix) {
    constexpr int FIRST = -((K - 1) / S), UP = (ROWS - 1) / S - FIRST + 1, ACROSS = (K + S - 1) / S;
    int col = ix + cols.pad;
#pragma unroll
    for (int a = 0; a < ROWS; ++a) sums[a] = 0;
#pragma unroll
    for (int last = UP - 1; last >= 0; last -= AHEAD) {  // a window further down holds the pixel in an earlier row
        real g[AHEAD][ACROSS];
        int won[AHEAD][ACROSS];  // k * K of the winner if it is in this column of its window
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
#pragma unroll
            for (int n = 0; n < ACROSS; ++n) {
                int i = row / S + FIRST + last - u, j = col / S - n, l = col % S + n * S;
                bool inside = unsigned(i) < unsigned(rows.out) && unsigned(j) < unsigned(cols.out) && l < K;
                g[u][n] = inside ? gy[i * cols.out + j] : real(0);
                won[u][n] = inside ? index[i * cols.out + j] - l : -1;
            }
        }
#pragma unroll
        for (int u = 0; u < AHEAD; ++u) {
#pragma unroll
            for (int a = 0; a < ROWS; ++a) {
                int k = a - (last - u + FIRST) * S;
#pragma unroll
                for (int n = 0; n < ACROSS; ++n) {
                    if (k >= 0 && k < K && won[u][n] == k * K) sums[a] += g[u][n];
                }
            }
        }
    }
}

__device__ __forceinline__ void store_strip(real* image, const real (&sums)[ROWS], const Axis& rows, const Axis& cols,
                                            int iy, int ix) {
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
        if (unsigned(iy + a) < unsigned(rows.size)) image[(iy + a) * cols.size + ix] = sums[a];
    }
}

// max_pool2d_grad_x_rows
//
//   thread     ROWS pixels of one column
//   block      a box of pixels: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      gy and index once for all the pixels of the thread that a window holds
//   needs      contiguous arrays, windows of at most 256 positions, planes of less than 2^31 pixels
//   over plain  no 64-bit division; it asks only the windows that hold the pixel, about KH * KW / (sh * sw) instead of
//               KH * KW; in the common cases all loads of a thread are under way together
extern "C" __global__ void max_pool2d_grad_x_rows(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const unsigned char* __restrict__ index, long long first,
                                                  long long planes, int H, int W, int OH, int OW, int KH, int KW,
                                                  int sh, int sw, int ph, int pw, int dh, int dw) {
    int ix = blockIdx.x * blockDim.x + threadIdx.x;
    int row = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS, iy = row - ph;  // row counts from the padding's first
    long long plane = plane_of(first);
    if (iy >= H || ix >= W || plane >= planes) return;
    Axis rows = {H, OH, KH, sh, ph, dh}, cols = {W, OW, KW, sw, pw, dw};
    const real* g = gy + plane * OH * OW;
    const unsigned char* won = index + plane * OH * OW;
    real sums[ROWS];
    if (is_square(rows, cols, 2, 2)) {
        collect_strip<2, 2>(sums, g, won, rows, cols, row, ix);
    } else if (is_square(rows, cols, 3, 2)) {
        collect_strip<3, 2>(sums, g, won, rows, cols, row, ix);
    } else if (is_square(rows, cols, 3, 1)) {
        collect_strip<3, 1>(sums, g, won, rows, cols, row, ix);
    } else {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            sums[a] = unsigned(iy + a) < unsigned(H) ? collected(g, won, rows, cols, iy + a, ix) : real(0);
    }
    store_strip(gx + plane * H * W, sums, rows, cols, iy, ix);
}

// max_pool2d_grad_x_rows_large: as max_pool2d_grad_x_rows, for K by K windows at steps of 1, K = 4 or 5, as in forward.
extern "C" __global__ void max_pool2d_grad_x_rows_large(real* __restrict__ gx, const real* __restrict__ gy,
                                                        const unsigned char* __restrict__ index, long long first,
                                                        long long planes, int H, int W, int OH, int OW, int K,
                                                        int ph, int pw) {
    int ix = blockIdx.x * blockDim.x + threadIdx.x;
    int row = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS, iy = row - ph;
    long long plane = plane_of(first);
    if (iy >= H || ix >= W || plane >= planes) return;
    Axis rows = {H, OH, K, 1, ph, 1}, cols = {W, OW, K, 1, pw, 1};
    const real* g = gy + plane * OH * OW;
    const unsigned char* won = index + plane * OH * OW;
    real sums[ROWS];
    if (K == 4) {
        collect_strip<4, 1>(sums, g, won, rows, cols, row, ix);
    } else {
        collect_strip<5, 1>(sums, g, won, rows, cols, row, ix);
    }
    store_strip(gx + plane * H * W, sums, rows, cols, iy, ix);
}

// The gradients of 2 * S rows by LANES columns of pixels from (i * S, j * S) on.
template <int K, int S, int P>
__device__ __forceinline__ void grad_tile(real* gx, const real* gy, const unsigned char* index, const Axis& rows,
                                          const Axis& cols, int i, int j) {
    constexpr int V = LANES / S, FIRST = -((K - 1 - P) / S);  // windows from (i + FIRST, j + FIRST) on hold them
    constexpr int UP = (2 * S - 1 + P) / S - FIRST + 1, ACROSS = (LANES - 1 + P) / S - FIRST + 1;
    real g[UP][ACROSS];
    int won[UP][ACROSS];
#pragma unroll
    for (int u = 0; u < UP; ++u) {
        int o = (i + FIRST + u) * cols.out + j;  // V of them, then the neighbours'
        bool inside = unsigned(i + FIRST + u) < unsigned(rows.out);
        Few<real, V> values = {};
        Few<unsigned char, V> places = {};
        bool mine = inside && j < cols.out;
        if (mine) {
            values = load_few<V>(gy + o);
            places = load_few<V>(index + o);
        }
#pragma unroll
        for (int n = 0; n < ACROSS; ++n) {
            int v = n + FIRST;
            bool few = v >= 0 && v < V;
            bool there = inside && unsigned(j + v) < unsigned(cols.out);
            g[u][n] = few ? values.v[few ? v : 0] : there ? gy[o + v] : real(0);
            won[u][n] = few ? (mine ? places.v[few ? v : 0] : -1) : there ? index[o + v] : -1;
        }
    }
#pragma unroll
    for (int a = 0; a < 2 * S; ++a) {
        Pack sums;
#pragma unroll
        for (int b = 0; b < LANES; ++b) {
            sums.v[b] = 0;
#pragma unroll
            for (int k = 0; k < K; ++k) {
#pragma unroll
                for (int l = 0; l < K; ++l) {
                    if ((a + P - k) % S != 0 || (b + P - l) % S != 0) continue;
                    int u = (a + P - k) / S - FIRST, n = (b + P - l) / S - FIRST;
                    if (won[u][n] == k * K + l) sums.v[b] += g[u][n];
                }
            }
        }
        if (i * S + a < rows.size) store_pack(gx, ((i * S + a) * cols.size + j * S) / LANES, sums);
    }
}

// max_pool2d_grad_x_wide
//
//   thread     2 * S rows by LANES columns of pixels
//   block      a box of such tiles: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      V = LANES / S outputs a load, and single ones beside them where windows overlap
//   needs      as max_pool2d_forward_wide, with gy and index in place of x
//   over rows  gx, most of the bytes, leaves 16 bytes at a time; without overlap a window is read once and writes its
//              own pixels, with overlap one read serves all pixels of the tile
extern "C" __global__ void max_pool2d_grad_x_wide(real* __restrict__ gx, const real* __restrict__ gy,
                                                  const unsigned char* __restrict__ index, long long first,
                                                  long long planes, int H, int W, int OH, int OW, int K, int S) {
    int j = (blockIdx.x * blockDim.x + threadIdx.x) * (LANES / S);
    int i = (blockIdx.y * blockDim.y + threadIdx.y) * 2;
    long long plane = plane_of(first);
    if (i * S >= H || j * S >= W || plane >= planes) return;
    int P = K == 3 ? 1 : 0;
    Axis rows = {H, OH, K, S, P, 1}, cols = {W, OW, K, S, P, 1};
    real* image = gx + plane * H * W;
    const real* g = gy + plane * OH * OW;
    const unsigned char* won = index + plane * OH * OW;
    if (K == 2) {
        grad_tile<2, 2, 0>(image, g, won, rows, cols, i, j);
    } else if (S == 2) {
        grad_tile<3, 2, 1>(image, g, won, rows, cols, i, j);
    } else {
        grad_tile<3, 1, 1>(image, g, won, rows, cols, i, j);
    }
}

// -- gather -----------------------------------------------------------------------------------------------------------

// max_pool2d_gather_plain
//
//   thread     one output
//   block      256 neighbouring outputs
//   shared     none
//   reads      the index, and the one pixel it names
//   needs      contiguous arrays; `index` where windows have at most 256 positions, else `large_index`
//   over definition  one pass instead of KH * KW
extern "C" __global__ void max_pool2d_gather_plain(real* __restrict__ y, const real* __restrict__ x,
                                                   const unsigned char* __restrict__ index,
                                                   const int* __restrict__ large_index, long long outputs, int H,
                                                   int W, int OH, int OW, int KW, int sh, int sw, int ph, int pw,
                                                   int dh, int dw) {
    long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (o >= outputs) return;
    long long line = o / OW, plane = line / OH;
    int place = large_index ? large_index[o] : index[o];
    int iy = static_cast<int>(line % OH) * sh - ph + place / KW * dh;
    int ix = static_cast<int>(o % OW) * sw - pw + place % KW * dw;
    y[o] = x[(plane * H + iy) * W + ix];
}

// max_pool2d_gather_rows
//
//   thread     ROWS outputs of one column
//   block      a box of outputs: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      as plain
//   needs      contiguous arrays, windows of at most 256 positions, planes of less than 2^31 pixels
//   over plain  no 64-bit division, and ROWS indices under way before the first pixel is asked for
extern "C" __global__ void max_pool2d_gather_rows(real* __restrict__ y, const real* __restrict__ x,
                                                  const unsigned char* __restrict__ index, long long first,
                                                  long long planes, int H, int W, int OH, int OW, int KW, int sh,
                                                  int sw, int ph, int pw, int dh, int dw) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, i = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    long long plane = plane_of(first);
    if (i >= OH || j >= OW || plane >= planes) return;
    const real* image = x + plane * H * W;
    long long out = plane * OH * OW;
    int place[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) place[r] = i + r < OH ? index[out + (i + r) * OW + j] : 0;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (i + r >= OH) break;
        int k = place[r] / KW, l = place[r] - k * KW;
        y[out + (i + r) * OW + j] = image[((i + r) * sh - ph + k * dh) * W + j * sw - pw + l * dw];
    }
}
