// avg_pool2d in CUDA C++: the rungs of kernels/avg_pool2d/__init__.py, in its order.
// op: gpunet/ops/avg_pool2d.py      launchers: avg_pool2d_cupy.py
// alone: nvcc -D real=float -I kernels -c kernels/avg_pool2d/avg_pool2d.cu
//
// Backward gathers, as in max_pool2d.cu. An output is divided before it is shared out, as in the definition; the sum of
// a row of windows is the same for every pixel below them, so it is made once a column.

#ifndef real
#error "avg_pool2d.cu needs -D real=float or -D real=double"
#endif

#include "common/common.cuh"
#include "common/pooling.cuh"

#define ROWS 4  // rows of one column that a thread of the rung "rows" takes

// How the sum of a window is divided.
struct Divisor {
    bool count_include_pad;
    real override;  // 0: the number of elements counts
};

// The elements of window i that count; nothing beyond the padding does.
__device__ __forceinline__ int counted(const Axis& axis, int i, bool count_include_pad) {
    int start = window_start(axis, i), stop = min(start + axis.kernel, axis.size + axis.pad);
    return count_include_pad ? stop - start : min(stop, axis.size) - max(start, 0);
}
__device__ __forceinline__ real divisor_of(const Axis& rows, const Axis& cols, const Divisor& by, int i, int j) {
    if (by.override != real(0)) return by.override;
    return real(counted(rows, i, by.count_include_pad) * counted(cols, j, by.count_include_pad));
}

// -- forward ----------------------------------------------------------------------------------------------------------

// The sum under window (i, j) of any size, in row order. Padding is skipped and not read.
__device__ __forceinline__ real window_sum(const real* image, const Axis& rows, const Axis& cols, int i, int j) {
    int top = window_start(rows, i), left = window_start(cols, j);
    int first_k = max(0, -top), last_k = min(rows.kernel, rows.size - top);
    int first_l = max(0, -left), last_l = min(cols.kernel, cols.size - left);
    real sum = 0;
    for (int k = first_k; k < last_k; ++k) {
        const real* line = image + static_cast<long long>(top + k) * cols.size + left;
#pragma unroll 4
        for (int l = first_l; l < last_l; ++l) sum += line[l];
    }
    return sum;
}

// The sums under R x V windows, K by K with steps of S, from the cells under all of them; each row of a window is added
// up once and then serves every window that holds the row. Cells outside the image are 0.
template <int K, int S, int R, int V>
__device__ __forceinline__ void window_sums(real (&sums)[R][V],
                                            const real (&cells)[(R - 1) * S + K][(V - 1) * S + K]) {
#pragma unroll
    for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int v = 0; v < V; ++v) sums[r][v] = 0;
    }
#pragma unroll
    for (int t = 0; t < (R - 1) * S + K; ++t) {
#pragma unroll
        for (int v = 0; v < V; ++v) {
            real row = cells[t][v * S];
#pragma unroll
            for (int l = 1; l < K; ++l) row += cells[t][v * S + l];
#pragma unroll
            for (int r = 0; r < R; ++r) {
                int k = t - r * S;  // row t of the cells is row k of window i + r
                if (k >= 0 && k < K) sums[r][v] += row;
            }
        }
    }
}

// avg_pool2d_forward_plain
//
//   thread     one output
//   block      256 neighbouring outputs
//   shared     none
//   reads      every pixel once for each window that holds it; neighbouring threads read neighbouring windows
//   needs      contiguous arrays
//   over definition  every output has its own thread, and one pass does what KH * KW passes did
extern "C" __global__ void avg_pool2d_forward_plain(real* __restrict__ y, const real* __restrict__ x,
                                                    long long outputs, int H, int W, int OH, int OW, int KH, int KW,
                                                    int sh, int sw, int ph, int pw, bool count_include_pad,
                                                    real override) {
    long long o = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (o >= outputs) return;
    Axis rows = {H, OH, KH, sh, ph, 1}, cols = {W, OW, KW, sw, pw, 1};
    Divisor by = {count_include_pad, override};
    long long line = o / OW, plane = line / OH;
    int i = static_cast<int>(line % OH), j = static_cast<int>(o % OW);
    y[o] = window_sum(x + plane * H * W, rows, cols, i, j) / divisor_of(rows, cols, by, i, j);
}

// The outputs (i .. i + ROWS - 1, j) of one plane, K by K with steps of S.
template <int K, int S>
__device__ __forceinline__ void forward_strip(real* y, const real* image, const Axis& rows, const Axis& cols,
                                              const Divisor& by, int i, int j) {
    real cells[(ROWS - 1) * S + K][K];
    load_cells(cells, image, window_start(rows, i), window_start(cols, j), rows, cols, real(0));
    real sums[ROWS][1];
    window_sums<K, S>(sums, cells);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (i + r < rows.out) y[(i + r) * cols.out + j] = sums[r][0] / divisor_of(rows, cols, by, i + r, j);
    }
}

// avg_pool2d_forward_rows
//
//   thread     ROWS outputs of one column
//   block      a box of outputs: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      a row of pixels once for all the windows of the thread that hold it
//   needs      contiguous arrays, planes of less than 2^31 pixels
//   over plain  no 64-bit division, sizes that the compiler knows in the common cases (loops unrolled, all loads of a
//               thread under way together), and rows that overlapping windows share are read and added up once
extern "C" __global__ void avg_pool2d_forward_rows(real* __restrict__ y, const real* __restrict__ x,
                                                   long long first, long long planes, int H, int W, int OH, int OW,
                                                   int KH, int KW, int sh, int sw, int ph, int pw,
                                                   bool count_include_pad, real override) {
    int j = blockIdx.x * blockDim.x + threadIdx.x, i = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS;
    long long plane = plane_of(first);
    if (i >= OH || j >= OW || plane >= planes) return;
    Axis rows = {H, OH, KH, sh, ph, 1}, cols = {W, OW, KW, sw, pw, 1};
    Divisor by = {count_include_pad, override};
    const real* image = x + plane * H * W;
    real* out = y + plane * OH * OW;
    if (is_square(rows, cols, 2, 2)) {
        forward_strip<2, 2>(out, image, rows, cols, by, i, j);
    } else if (is_square(rows, cols, 3, 2)) {
        forward_strip<3, 2>(out, image, rows, cols, by, i, j);
    } else if (is_square(rows, cols, 3, 1)) {
        forward_strip<3, 1>(out, image, rows, cols, by, i, j);
    } else {
        for (int r = 0; r < ROWS && i + r < OH; ++r)
            out[(i + r) * OW + j] = window_sum(image, rows, cols, i + r, j) /
                                    divisor_of(rows, cols, by, i + r, j);
    }
}

// The outputs (i .. i + 1, j .. j + V - 1) of one plane, K by K with steps of S and P of padding.
template <int K, int S, int P>
__device__ __forceinline__ void forward_tile(real* y, const real* image, const Axis& rows, const Axis& cols,
                                             const Divisor& by, int i, int j) {
    constexpr int V = LANES / S;
    real cells[S + K][(V - 1) * S + K];
    load_cells_wide<P>(cells, image, i * S - P, j * S, rows, cols, real(0));
    real sums[2][V];
    window_sums<K, S>(sums, cells);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        Few<real, V> means;
#pragma unroll
        for (int v = 0; v < V; ++v) means.v[v] = sums[r][v] / divisor_of(rows, cols, by, i + r, j + v);
        if (i + r < rows.out) store_few(y + (i + r) * cols.out + j, means);
    }
}

// avg_pool2d_forward_wide
//
//   thread     2 x V outputs, V = LANES / S: the columns that begin in the same 16 bytes of x
//   block      a box of such tiles: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      16 bytes a load, K + S of them under way a thread; single pixels left and right where windows overlap
//   needs      as rows; 2 x 2 windows at steps of 2 without padding, or 3 x 3 at steps of 1 or 2 with padding 1; W a
//              multiple of LANES and OW of V, x at a multiple of 16 bytes
//   over rows  a quarter of the load instructions and more bytes under way a thread; outputs leave V at a time
extern "C" __global__ void avg_pool2d_forward_wide(real* __restrict__ y, const real* __restrict__ x,
                                                   long long first, long long planes, int H, int W, int OH, int OW,
                                                   int K, int S, bool count_include_pad, real override) {
    int j = (blockIdx.x * blockDim.x + threadIdx.x) * (LANES / S);
    int i = (blockIdx.y * blockDim.y + threadIdx.y) * 2;
    long long plane = plane_of(first);
    if (i >= OH || j >= OW || plane >= planes) return;
    int P = K == 3 ? 1 : 0;
    Axis rows = {H, OH, K, S, P, 1}, cols = {W, OW, K, S, P, 1};
    Divisor by = {count_include_pad, override};
    const real* image = x + plane * H * W;
    real* out = y + plane * OH * OW;
    if (K == 2) {
        forward_tile<2, 2, 0>(out, image, rows, cols, by, i, j);
    } else if (S == 2) {
        forward_tile<3, 2, 1>(out, image, rows, cols, by, i, j);
    } else {
        forward_tile<3, 1, 1>(out, image, rows, cols, by, i, j);
    }
}

// -- grad_x -----------------------------------------------------------------------------------------------------------

// The first window that holds position `at` of the padded image, and the one behind the last.
__device__ __forceinline__ int first_window(const Axis& axis, int at) {
    return at < axis.kernel ? 0 : (at - axis.kernel) / axis.stride + 1;
}
__device__ __forceinline__ int stop_window(const Axis& axis, int at) { return min(axis.out, at / axis.stride + 1); }

// The gradient of pixel (iy, ix): a share of every window that holds it, from the last to the first, which is the
// definition's order.
template <class Index>
__device__ __forceinline__ real collected(const real* gy, const Axis& rows, const Axis& cols, const Divisor& by,
                                          int iy, int ix) {
    int first_i = first_window(rows, iy + rows.pad), first_j = first_window(cols, ix + cols.pad);
    int last_j = stop_window(cols, ix + cols.pad) - 1;
    real sum = 0;
    for (int i = stop_window(rows, iy + rows.pad) - 1; i >= first_i; --i) {
        for (int j = last_j; j >= first_j; --j)
            sum += gy[static_cast<Index>(i) * cols.out + j] / divisor_of(rows, cols, by, i, j);
    }
    return sum;
}

// avg_pool2d_grad_x_plain
//
//   thread     one pixel
//   block      256 neighbouring pixels
//   shared     none
//   reads      gy of every window that holds the pixel
//   needs      contiguous arrays
//   over definition  one pass that writes each pixel once, where KH * KW passes added
extern "C" __global__ void avg_pool2d_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gy,
                                                   long long pixels, int H, int W, int OH, int OW, int KH, int KW,
                                                   int sh, int sw, int ph, int pw, bool count_include_pad,
                                                   real override) {
    long long p = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (p >= pixels) return;
    Axis rows = {H, OH, KH, sh, ph, 1}, cols = {W, OW, KW, sw, pw, 1};
    Divisor by = {count_include_pad, override};
    long long line = p / W, plane = line / H;
    gx[p] = collected<long long>(gy + plane * OH * OW, rows, cols, by, static_cast<int>(line % H),
                                 static_cast<int>(p % W));
}

// Where this says no, the kernels below take a gy of 0 and divide it all the same: the place of a window that holds a
// pixel counts at least that one, so the share is 0.
__device__ __forceinline__ bool is_window(const Axis& rows, const Axis& cols, int i, int j) {
    return unsigned(i) < unsigned(rows.out) && unsigned(j) < unsigned(cols.out);
}

// The gradients of ROWS pixels of one column, from row `row` of the padded image on, which is a multiple of ROWS: so
// which windows hold a row is known when the text is compiled.
template <int K, int S>
__device__ __forceinline__ void collect_strip(real (&sums)[ROWS], const real* gy, const Axis& rows, const Axis& cols,
                                              const Divisor& by, int row, int ix) {
    constexpr int FIRST = -((K - 1) / S), UP = (ROWS - 1) / S - FIRST + 1, ACROSS = (K + S - 1) / S;
    int i = row / S + FIRST, last_j = (ix + cols.pad) / S, l = (ix + cols.pad) % S;
    real g[UP][ACROSS];  // all loads before the first division: the compiler moves none across
#pragma unroll
    for (int u = 0; u < UP; ++u) {
#pragma unroll
        for (int n = 0; n < ACROSS; ++n) {
            bool there = is_window(rows, cols, i + u, last_j - n) && l + n * S < K;
            g[u][n] = there ? gy[(i + u) * cols.out + last_j - n] : real(0);
        }
    }
    real line[UP];  // what one row of windows gives to this column
#pragma unroll
    for (int u = 0; u < UP; ++u) {
        line[u] = 0;
#pragma unroll
        for (int n = 0; n < ACROSS; ++n) {
            if (l + n * S < K) line[u] += g[u][n] / divisor_of(rows, cols, by, i + u, last_j - n);
        }
    }
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
        sums[a] = 0;
#pragma unroll
        for (int k = 0; k < K; ++k) {
            if ((a - k) % S == 0) sums[a] += line[(a - k) / S - FIRST];
        }
    }
}

// avg_pool2d_grad_x_rows
//
//   thread     ROWS pixels of one column
//   block      a box of pixels: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      gy once for all the pixels of the thread that a window holds
//   needs      contiguous arrays, planes of less than 2^31 pixels
//   over plain  no 64-bit division; in the common cases a window is divided once for all the pixels of the thread, and
//               all loads are under way together
extern "C" __global__ void avg_pool2d_grad_x_rows(real* __restrict__ gx, const real* __restrict__ gy,
                                                  long long first, long long planes, int H, int W, int OH, int OW,
                                                  int KH, int KW, int sh, int sw, int ph, int pw,
                                                  bool count_include_pad, real override) {
    int ix = blockIdx.x * blockDim.x + threadIdx.x;
    int row = (blockIdx.y * blockDim.y + threadIdx.y) * ROWS, iy = row - ph;  // row counts from the padding's first
    long long plane = plane_of(first);
    if (iy >= H || ix >= W || plane >= planes) return;
    Axis rows = {H, OH, KH, sh, ph, 1}, cols = {W, OW, KW, sw, pw, 1};
    Divisor by = {count_include_pad, override};
    const real* g = gy + plane * OH * OW;
    real sums[ROWS];
    if (is_square(rows, cols, 2, 2)) {
        collect_strip<2, 2>(sums, g, rows, cols, by, row, ix);
    } else if (is_square(rows, cols, 3, 2)) {
        collect_strip<3, 2>(sums, g, rows, cols, by, row, ix);
    } else if (is_square(rows, cols, 3, 1)) {
        collect_strip<3, 1>(sums, g, rows, cols, by, row, ix);
    } else {
#pragma unroll
        for (int a = 0; a < ROWS; ++a)
            sums[a] = unsigned(iy + a) < unsigned(H) ? collected<int>(g, rows, cols, by, iy + a, ix) : real(0);
    }
    real* image = gx + plane * H * W;
#pragma unroll
    for (int a = 0; a < ROWS; ++a) {
        if (unsigned(iy + a) < unsigned(H)) image[(iy + a) * W + ix] = sums[a];
    }
}

// The gradients of 2 * S rows by LANES columns of pixels from (i * S, j * S) on.
template <int K, int S, int P>
__device__ __forceinline__ void grad_tile(real* gx, const real* gy, const Axis& rows, const Axis& cols,
                                          const Divisor& by, int i, int j) {
    constexpr int V = LANES / S, FIRST = -((K - 1 - P) / S);  // windows from (i + FIRST, j + FIRST) on hold them
    constexpr int UP = (2 * S - 1 + P) / S - FIRST + 1, ACROSS = (LANES - 1 + P) / S - FIRST + 1;
    real g[UP][ACROSS];  // all loads before the first division: the compiler moves none across
#pragma unroll
    for (int u = 0; u < UP; ++u) {
        int o = (i + FIRST + u) * cols.out + j;  // V of them, then the neighbours'
        Few<real, V> values = {};
        if (is_window(rows, cols, i + FIRST + u, j)) values = load_few<V>(gy + o);
#pragma unroll
        for (int n = 0; n < ACROSS; ++n) {
            int v = n + FIRST;
            bool few = v >= 0 && v < V;
            bool there = !few && is_window(rows, cols, i + FIRST + u, j + v);
            g[u][n] = few ? values.v[few ? v : 0] : there ? gy[o + v] : real(0);
        }
    }
    real lines[UP][LANES];  // what one row of windows gives to these columns
#pragma unroll
    for (int u = 0; u < UP; ++u) {
        real shares[ACROSS];
#pragma unroll
        for (int n = 0; n < ACROSS; ++n)
            shares[n] = g[u][n] / divisor_of(rows, cols, by, i + FIRST + u, j + FIRST + n);
#pragma unroll
        for (int b = 0; b < LANES; ++b) {
            lines[u][b] = 0;
#pragma unroll
            for (int l = 0; l < K; ++l) {
                if ((b + P - l) % S == 0) lines[u][b] += shares[(b + P - l) / S - FIRST];
            }
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
                if ((a + P - k) % S == 0) sums.v[b] += lines[(a + P - k) / S - FIRST][b];
            }
        }
        if (i * S + a < rows.size) store_pack(gx, ((i * S + a) * cols.size + j * S) / LANES, sums);
    }
}

// avg_pool2d_grad_x_wide
//
//   thread     2 * S rows by LANES columns of pixels
//   block      a box of such tiles: as much of a row as there is, then rows, then planes
//   shared     none
//   reads      V = LANES / S outputs a load, and single ones beside them where windows overlap
//   needs      as avg_pool2d_forward_wide, with gy in place of x
//   over rows  gx, most of the bytes, leaves 16 bytes at a time; without overlap a window is read and divided once and
//              writes its own pixels, with overlap once for all pixels of the tile
extern "C" __global__ void avg_pool2d_grad_x_wide(real* __restrict__ gx, const real* __restrict__ gy,
                                                  long long first, long long planes, int H, int W, int OH, int OW,
                                                  int K, int S, bool count_include_pad, real override) {
    int j = (blockIdx.x * blockDim.x + threadIdx.x) * (LANES / S);
    int i = (blockIdx.y * blockDim.y + threadIdx.y) * 2;
    long long plane = plane_of(first);
    if (i * S >= H || j * S >= W || plane >= planes) return;
    int P = K == 3 ? 1 : 0;
    Axis rows = {H, OH, K, S, P, 1}, cols = {W, OW, K, S, P, 1};
    Divisor by = {count_include_pad, override};
    real* image = gx + plane * H * W;
    const real* g = gy + plane * OH * OW;
    if (K == 2) {
        grad_tile<2, 2, 0>(image, g, rows, cols, by, i, j);
    } else if (S == 2) {
        grad_tile<3, 2, 1>(image, g, rows, cols, by, i, j);
    } else {
        grad_tile<3, 1, 1>(image, g, rows, cols, by, i, j);
    }
}
