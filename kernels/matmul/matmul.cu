// matmul in CUDA C++: the rungs of kernels/matmul/__init__.py, in its order.
// op: gpunet/ops/matmul.py      launchers: matmul_cupy.py
// alone: nvcc -D real=float -D TILE=16 -I kernels -c kernels/matmul/matmul.cu
//
// All kernels compute y = a b for one matrix of the batch at a time. Element (i, k) of a lies at i * a_row + k * a_col,
// and likewise for b: a transposed input is the same memory with the two steps exchanged, and a batch that is shared by
// all has the batch step 0. One of the two steps is 1.

#if !defined(real) || !defined(TILE)
#error "matmul.cu needs -D real=float or -D real=double, and -D TILE=16"
#endif

#include "common/common.cuh"

// What becomes of a sum before it is written: the bias of its column, if there are any, and the positive part, if that
// is wanted. A NaN is not below zero and stays.
__device__ __forceinline__ real finished(real sum, const real* __restrict__ bias, int col, int relu) {
    if (bias != nullptr) sum += bias[col];
    return relu && sum < real(0) ? real(0) : sum;
}

// matmul_forward_naive
//
//   thread     one element y[row, col]; neighbouring threads have neighbouring rows
//   block      TILE x TILE elements of y, of one matrix of the batch
//   shared     none
//   reads      a row of a and a column of b for each element, from global memory
//   needs      contiguous matrices, at most 2^31 - 1 elements in each
//   over definition  every element of y has its own thread
extern "C" __global__ void matmul_forward_naive(real* __restrict__ y, const real* __restrict__ a,
                                                const real* __restrict__ b, const real* __restrict__ bias, int relu,
                                                int M, int N, int K, int a_row, int a_col, int b_row, int b_col,
                                                long long a_batch, long long b_batch, int batch) {
    int row = blockIdx.y * TILE + threadIdx.x;
    int col = blockIdx.x * TILE + threadIdx.y;
    if (row >= M || col >= N) return;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        const real* one = a + n * a_batch;
        const real* other = b + n * b_batch;
        real sum = 0;
        for (int k = 0; k < K; ++k) sum += one[row * a_row + k * a_col] * other[k * b_row + col * b_col];
        y[(static_cast<long long>(n) * M + row) * N + col] = finished(sum, bias, col, relu);
    }
}

// matmul_forward_coalesced
//
//   thread     one element y[row, col]; neighbouring threads have neighbouring columns
//   block      TILE x TILE elements of y, of one matrix of the batch
//   shared     none
//   reads      as naive
//   needs      contiguous matrices, at most 2^31 - 1 elements in each
//   over naive  a warp's stores, and its loads of b where b is not transposed, are neighbours in memory: a line of
//               128 bytes serves 32 threads instead of one
extern "C" __global__ void matmul_forward_coalesced(real* __restrict__ y, const real* __restrict__ a,
                                                    const real* __restrict__ b, const real* __restrict__ bias,
                                                    int relu, int M, int N, int K, int a_row, int a_col, int b_row,
                                                    int b_col, long long a_batch, long long b_batch, int batch) {
    int row = blockIdx.y * TILE + threadIdx.y;
    int col = blockIdx.x * TILE + threadIdx.x;
    if (row >= M || col >= N) return;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        const real* one = a + n * a_batch;
        const real* other = b + n * b_batch;
        real sum = 0;
        for (int k = 0; k < K; ++k) sum += one[row * a_row + k * a_col] * other[k * b_row + col * b_col];
        y[(static_cast<long long>(n) * M + row) * N + col] = finished(sum, bias, col, relu);
    }
}

// matmul_forward_tiled
//
//   thread     one element y[row, col], and one element of each tile of a and b
//   block      TILE x TILE elements of y, of one matrix of the batch
//   shared     2 * TILE * (TILE + 1) elements: a tile of a and a tile of b; the column more keeps a tile that is
//              stored turned round from hitting one bank with a whole warp
//   reads      each element of a N / TILE times and of b M / TILE times, in runs of TILE neighbours
//   needs      contiguous matrices, at most 2^31 - 1 elements in each
//   over coalesced  every value fetched from global memory is used TILE times
//
//          k                     N
//      . . +---+ . .         . . . .
//    M . . | a | . .   K     +---+ .      the block walks along k; each step it loads
//      . . +---+ . .         | b | .      the two tiles, then all threads use them
//                            +---+ .
extern "C" __global__ void matmul_forward_tiled(real* __restrict__ y, const real* __restrict__ a,
                                                const real* __restrict__ b, const real* __restrict__ bias, int relu,
                                                int M, int N, int K, int a_row, int a_col, int b_row, int b_col,
                                                long long a_batch, long long b_batch, int batch) {
    __shared__ real as[TILE][TILE + 1];  // as[i][k]
    __shared__ real bs[TILE][TILE + 1];  // bs[k][j]
    int tx = threadIdx.x, ty = threadIdx.y;  // 0 .. TILE-1
    int first_row = blockIdx.y * TILE, first_col = blockIdx.x * TILE;
    // Which element of a tile a thread loads: the one that makes neighbouring threads read neighbouring memory.
    int ai = a_col == 1 ? ty : tx, ak = a_col == 1 ? tx : ty;
    int bk = b_col == 1 ? ty : tx, bj = b_col == 1 ? tx : ty;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        const real* one = a + n * a_batch;
        const real* other = b + n * b_batch;
        real sum = 0;
        for (int k = 0; k < K; k += TILE) {
            bool a_inside = first_row + ai < M && k + ak < K;
            bool b_inside = k + bk < K && first_col + bj < N;
            as[ai][ak] = a_inside ? one[(first_row + ai) * a_row + (k + ak) * a_col] : real(0);
            bs[bk][bj] = b_inside ? other[(k + bk) * b_row + (first_col + bj) * b_col] : real(0);
            __syncthreads();  // both tiles are there before anyone uses them
#pragma unroll
            for (int t = 0; t < TILE; ++t) sum += as[ty][t] * bs[t][tx];
            __syncthreads();  // everyone is done with them before the next step overwrites them
        }
        int row = first_row + ty, col = first_col + tx;
        if (row < M && col < N)
            y[(static_cast<long long>(n) * M + row) * N + col] = finished(sum, bias, col, relu);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// From here on a thread computes several elements, and a block a tile of BM x BN: it walks along k in steps of BK with
// a tile of a and a tile of b in shared memory. Both lie k by k, as[k][i] and bs[k][j], so that the values of one k
// which a thread needs are neighbours and come in 16 bytes at once.

#define BK 8

// Which tile of y a block computes. Neighbouring blocks, which run at the same time, share GROUP rows of tiles: so they
// read the same few columns of b and rows of a, which then come from the second-level cache.
#define GROUP 8
__device__ __forceinline__ void tile_of(int block, int tiles_m, int tiles_n, int& tile_m, int& tile_n) {
    int group = block / (GROUP * tiles_n);
    int rows = min(GROUP, tiles_m - group * GROUP);
    int within = block - group * GROUP * tiles_n;
    tile_m = group * GROUP + within % rows;
    tile_n = within / rows;
}

// Loads one element of a tile where it lies inside the matrix, else 0. minor: the tile's index that is not k.
__device__ __forceinline__ real element(const real* from, int minor, int k, int minor_end, int k_end, int minor_step,
                                        int k_step) {
    return minor < minor_end && k < k_end ? from[minor * minor_step + k * k_step] : real(0);
}

// Fills tile[k][minor] for SIZE minors with THREADS threads, element by element, whichever index is the fast one.
template <int SIZE, int THREADS, int PITCH>
__device__ __forceinline__ void fill(real (*tile)[PITCH], const real* from, int first, int k, int minor_end, int k_end,
                                     int minor_step, int k_step) {
#pragma unroll
    for (int round = 0; round < SIZE * BK / THREADS; ++round) {
        int e = round * THREADS + threadIdx.x;
        int m = k_step == 1 ? e / BK : e % SIZE, t = k_step == 1 ? e % BK : e / SIZE;
        tile[t][m] = element(from, first + m, k + t, minor_end, k_end, minor_step, k_step);
    }
}

// matmul_forward_register_1d
//
//   thread     TM = 8 elements of one column of y
//   block      BM x BN = 64 x 64 elements, 512 threads
//   shared     2 * 64 * BK elements
//   reads      a N / 64 times, b M / 64 times
//   needs      matrices of fewer than 2^31 elements
//   over tiled  a value of b is read from shared memory once for 8 sums: 9 reads for 8 products instead of 16
extern "C" __global__ void __launch_bounds__(512, 2)
    matmul_forward_register_1d(real* __restrict__ y, const real* __restrict__ a, const real* __restrict__ b,
                               const real* __restrict__ bias, int relu, int M, int N, int K, int a_row, int a_col,
                               int b_row, int b_col, long long a_batch, long long b_batch, int batch) {
    constexpr int SIDE = 64, TM = 8;
    __shared__ real as[BK][SIDE + 1];  // the odd pitch keeps a tile that is stored turned round off one bank
    __shared__ real bs[BK][SIDE + 1];
    int first_row = blockIdx.y * SIDE, first_col = blockIdx.x * SIDE;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        real sum[TM] = {};
        for (int k = 0; k < K; k += BK) {
            fill<SIDE, 512>(as, a + n * a_batch, first_row, k, M, K, a_row, a_col);
            fill<SIDE, 512>(bs, b + n * b_batch, first_col, k, N, K, b_col, b_row);
            __syncthreads();
#pragma unroll
            for (int t = 0; t < BK; ++t) {
                real right = bs[t][tx];
#pragma unroll
                for (int i = 0; i < TM; ++i) sum[i] += as[t][ty * TM + i] * right;
            }
            __syncthreads();
        }
        int col = first_col + tx;
#pragma unroll
        for (int i = 0; i < TM; ++i) {
            int row = first_row + ty * TM + i;
            if (row < M && col < N)
                y[(static_cast<long long>(n) * M + row) * N + col] = finished(sum[i], bias, col, relu);
        }
    }
}

// matmul_forward_register_2d
//
//   thread     TM x TN elements of y: 8 x 8 floats or 4 x 4 doubles
//   block      BM x BN: 128 x 128 floats or 64 x 64 doubles, 256 threads
//   shared     2 * BM * BK elements
//   reads      a N / BN times, b M / BM times
//   needs      matrices of fewer than 2^31 elements
//   over register_1d  TM + TN reads from shared memory for TM * TN products: 16 for 64
extern "C" __global__ void __launch_bounds__(256, 1)
    matmul_forward_register_2d(real* __restrict__ y, const real* __restrict__ a, const real* __restrict__ b,
                               const real* __restrict__ bias, int relu, int M, int N, int K, int a_row, int a_col,
                               int b_row, int b_col, long long a_batch, long long b_batch, int batch) {
    constexpr int T = 2 * LANES, SIDE = 16 * T;
    __shared__ real as[BK][SIDE + 1];
    __shared__ real bs[BK][SIDE + 1];
    int first_row = blockIdx.y * SIDE, first_col = blockIdx.x * SIDE;
    int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        real sum[T][T] = {};
        for (int k = 0; k < K; k += BK) {
            fill<SIDE, 256>(as, a + n * a_batch, first_row, k, M, K, a_row, a_col);
            fill<SIDE, 256>(bs, b + n * b_batch, first_col, k, N, K, b_col, b_row);
            __syncthreads();
#pragma unroll 1  // unrolled, the compiler keeps the reads of several t in registers, and the sums no longer fit
            for (int t = 0; t < BK; ++t) {
                real left[T], right[T];
#pragma unroll
                for (int i = 0; i < T; ++i) left[i] = as[t][ty * T + i];
#pragma unroll
                for (int j = 0; j < T; ++j) right[j] = bs[t][tx * T + j];
#pragma unroll
                for (int i = 0; i < T; ++i)
#pragma unroll
                    for (int j = 0; j < T; ++j) sum[i][j] += left[i] * right[j];
            }
            __syncthreads();
        }
#pragma unroll
        for (int i = 0; i < T; ++i)
#pragma unroll
            for (int j = 0; j < T; ++j) {
                int row = first_row + ty * T + i, col = first_col + tx * T + j;
                if (row < M && col < N)
                    y[(static_cast<long long>(n) * M + row) * N + col] = finished(sum[i][j], bias, col, relu);
            }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// The rungs from here on differ in who computes what (Plain, Warps) and in how a tile comes (Piece, copied).

// Threads in 16 x 16, each with 2 x 2 packs side by side.
struct Plain {
    static constexpr int THREADS = 256, PACKS_M = 2, PACKS_N = 2, BM = 32 * LANES, BN = 32 * LANES;
    static __device__ __forceinline__ int row(int g) { return threadIdx.x / 16 * (2 * LANES) + g * LANES; }
    static __device__ __forceinline__ int col(int h) { return threadIdx.x % 16 * (2 * LANES) + h * LANES; }
};

// 8 warps in 2 x 4; the threads of a warp in DOWN x ACROSS. A thread's packs lie DOWN (ACROSS) packs apart, so that
// those which a warp reads at the same time are neighbours: 16 bytes a thread without two threads on one bank.
template <int DOWN, int ACROSS, int PACKS_DOWN, int PACKS_ACROSS>
struct Warps {
    static constexpr int THREADS = 256, PACKS_M = PACKS_DOWN, PACKS_N = PACKS_ACROSS;
    static constexpr int WM = DOWN * PACKS_M * LANES, WN = ACROSS * PACKS_N * LANES, BM = 2 * WM, BN = 4 * WN;
    static __device__ __forceinline__ int row(int g) {
        return threadIdx.x / 128 * WM + (g * DOWN + threadIdx.x % 32 / ACROSS) * LANES;
    }
    static __device__ __forceinline__ int col(int h) {
        return threadIdx.x / 32 % 4 * WN + (h * ACROSS + threadIdx.x % ACROSS) * LANES;
    }
};

// What one thread carries of a tile of SIZE minors by BK, from global to shared memory by way of its registers. HOW it
// is read: 0 element by element, 1 packs along the minor index, 2 packs along k, turned round when they are put.
template <int SIZE, int THREADS, int HOW>
struct Piece {
    static constexpr int PER = HOW == 0 ? 1 : LANES, COUNT = SIZE * BK / PER / THREADS;
    Pack held[HOW == 0 ? 1 : COUNT];
    real single[HOW == 0 ? COUNT : 1];

    // The minor index and k of the first element of the piece's part.
    static __device__ __forceinline__ void place(int round, int k_step, int& minor, int& k) {
        int e = round * THREADS + threadIdx.x;
        if constexpr (HOW == 1) {
            minor = e % (SIZE / LANES) * LANES, k = e / (SIZE / LANES);
        } else if constexpr (HOW == 2) {
            minor = e / (BK / LANES), k = e % (BK / LANES) * LANES;
        } else {
            minor = k_step == 1 ? e / BK : e % SIZE, k = k_step == 1 ? e % BK : e / SIZE;
        }
    }
    __device__ __forceinline__ void fetch(const real* from, int first, int k0, int minor_end, int k_end, int minor_step,
                                          int k_step) {
#pragma unroll
        for (int round = 0; round < COUNT; ++round) {
            int minor, k;
            place(round, k_step, minor, k);
            minor += first, k += k0;
            if constexpr (HOW == 0) {
                single[round] = element(from, minor, k, minor_end, k_end, minor_step, k_step);
            } else {  // sizes are whole packs, so a pack lies inside or outside
                bool inside = minor < minor_end && k < k_end;
                held[round] = inside ? load_pack(from + minor * minor_step + k * k_step, 0) : Pack{};
            }
        }
    }
    template <int PITCH>
    __device__ __forceinline__ void put(real (*tile)[PITCH], int k_step) const {
#pragma unroll
        for (int round = 0; round < COUNT; ++round) {
            int minor, k;
            place(round, k_step, minor, k);
            if constexpr (HOW == 0) {
                tile[k][minor] = single[round];
            } else if constexpr (HOW == 1) {
                store_pack(&tile[k][minor], 0, held[round]);
            } else {
#pragma unroll
                for (int q = 0; q < LANES; ++q) tile[k + q][minor] = held[round].v[q];
            }
        }
    }
};

// sum += the product of two tiles.
template <class Who, int PITCH_A, int PITCH_B>
__device__ __forceinline__ void multiply_tiles(real (&sum)[Who::PACKS_M * LANES][Who::PACKS_N * LANES],
                                               const real (*as)[PITCH_A], const real (*bs)[PITCH_B]) {
#pragma unroll
    for (int t = 0; t < BK; ++t) {
        Pack left[Who::PACKS_M], right[Who::PACKS_N];
#pragma unroll
        for (int g = 0; g < Who::PACKS_M; ++g) left[g] = load_pack(&as[t][Who::row(g)], 0);
#pragma unroll
        for (int h = 0; h < Who::PACKS_N; ++h) right[h] = load_pack(&bs[t][Who::col(h)], 0);
#pragma unroll
        for (int i = 0; i < Who::PACKS_M * LANES; ++i)
#pragma unroll
            for (int j = 0; j < Who::PACKS_N * LANES; ++j)
                sum[i][j] += left[i / LANES].v[i % LANES] * right[j / LANES].v[j % LANES];
    }
}

template <class Who>
__device__ __forceinline__ void store_tile(real* y, const real (&sum)[Who::PACKS_M * LANES][Who::PACKS_N * LANES],
                                           const real* bias, int relu, int first_row, int first_col, int M, int N,
                                           int y_wide) {
#pragma unroll
    for (int i = 0; i < Who::PACKS_M * LANES; ++i) {
        int row = first_row + Who::row(i / LANES) + i % LANES;
        if (row >= M) continue;
        real* line = y + static_cast<long long>(row) * N;
#pragma unroll
        for (int h = 0; h < Who::PACKS_N; ++h) {
            int col = first_col + Who::col(h);
            Pack out;
#pragma unroll
            for (int j = 0; j < LANES; ++j)
                out.v[j] = col + j < N ? finished(sum[i][h * LANES + j], bias, col + j, relu) : real(0);
            if (y_wide) {
                if (col < N) store_pack(line + col, 0, out);
            } else {
#pragma unroll
                for (int j = 0; j < LANES; ++j)
                    if (col + j < N) line[col + j] = out.v[j];
            }
        }
    }
}

// The tile's sum over k from k_begin to k_end; the next pieces are on their way in registers while one is multiplied.
template <class Who, int HOW_A, int HOW_B, int PITCH_A, int PITCH_B>
__device__ __forceinline__ void prefetched(real (&sum)[Who::PACKS_M * LANES][Who::PACKS_N * LANES],
                                           real (*as)[BK][PITCH_A], real (*bs)[BK][PITCH_B], const real* a,
                                           const real* b, int first_row, int first_col, int M, int N, int k_begin,
                                           int k_end, int a_row, int a_col, int b_row, int b_col) {
    Piece<Who::BM, Who::THREADS, HOW_A> left;
    Piece<Who::BN, Who::THREADS, HOW_B> right;
    left.fetch(a, first_row, k_begin, M, k_end, a_row, a_col);
    right.fetch(b, first_col, k_begin, N, k_end, b_col, b_row);
    left.put(as[0], a_col);
    right.put(bs[0], b_row);
    __syncthreads();
    int stage = 0;
    for (int k = k_begin; k < k_end; k += BK) {
        bool more = k + BK < k_end;
        if (more) {
            left.fetch(a, first_row, k + BK, M, k_end, a_row, a_col);
            right.fetch(b, first_col, k + BK, N, k_end, b_col, b_row);
        }
        multiply_tiles<Who>(sum, as[stage], bs[stage]);
        if (more) {
            left.put(as[stage ^ 1], a_col);
            right.put(bs[stage ^ 1], b_row);
        }
        __syncthreads();  // the other stage is whole, and this one free
        stage ^= 1;
    }
}

// One tile of y, by the two ways in which pieces are read: a mode of 1 or 2 says that the matrix lies in whole packs.
template <class Who, int PITCH_A, int PITCH_B>
__device__ __forceinline__ void one_tile(real (&sum)[Who::PACKS_M * LANES][Who::PACKS_N * LANES],
                                         real (*as)[BK][PITCH_A], real (*bs)[BK][PITCH_B], const real* a, const real* b,
                                         int first_row, int first_col, int M, int N, int k_begin, int k_end, int a_row,
                                         int a_col, int b_row, int b_col, int a_mode, int b_mode) {
    if (a_mode == 2 && b_mode == 1)  // NN
        prefetched<Who, 2, 1>(sum, as, bs, a, b, first_row, first_col, M, N, k_begin, k_end, a_row, a_col,
                               b_row, b_col);
    else if (a_mode == 2 && b_mode == 2)  // NT
        prefetched<Who, 2, 2>(sum, as, bs, a, b, first_row, first_col, M, N, k_begin, k_end, a_row, a_col,
                               b_row, b_col);
    else if (a_mode == 1 && b_mode == 1)  // TN
        prefetched<Who, 1, 1>(sum, as, bs, a, b, first_row, first_col, M, N, k_begin, k_end, a_row, a_col,
                               b_row, b_col);
    else  // TT, and what does not lie in whole packs
        prefetched<Who, 0, 0>(sum, as, bs, a, b, first_row, first_col, M, N, k_begin, k_end, a_row, a_col,
                               b_row, b_col);
}

// matmul_forward_double_buffered
//
//   thread     2 x 2 packs of y: 8 x 8 floats or 4 x 4 doubles
//   block      BM x BN: 128 x 128 floats or 64 x 64 doubles, 256 threads
//   shared     2 stages of both tiles, rows a pack longer: tiles that are stored turned round miss each other's banks
//   reads      a N / BN times, b M / BM times, 16 bytes at once where they lie in whole packs
//   needs      matrices of fewer than 2^31 elements
//   over register_2d  the next tile is on its way while this one is multiplied, one barrier a tile instead of two, and
//                     a quarter of the load and store instructions
extern "C" __global__ void __launch_bounds__(256)
    matmul_forward_double_buffered(real* __restrict__ y, const real* __restrict__ a, const real* __restrict__ b,
                                   const real* __restrict__ bias, int relu, int M, int N, int K, int a_row, int a_col,
                                   int b_row, int b_col, long long a_batch, long long b_batch, int batch, int a_mode,
                                   int b_mode, int y_wide) {
    __shared__ __align__(16) real as[2][BK][Plain::BM + LANES];
    __shared__ __align__(16) real bs[2][BK][Plain::BN + LANES];
    int first_row = blockIdx.y * Plain::BM, first_col = blockIdx.x * Plain::BN;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        real sum[2 * LANES][2 * LANES] = {};
        one_tile<Plain>(sum, as, bs, a + n * a_batch, b + n * b_batch, first_row, first_col, M, N, 0, K, a_row, a_col,
                        b_row, b_col, a_mode, b_mode);
        store_tile<Plain>(y + static_cast<long long>(n) * M * N, sum, bias, relu, first_row, first_col, M, N, y_wide);
    }
}

// matmul_forward_warp_tiled
//
//   thread     2 x 2 packs of y, a warp's width apart
//   block      BM x BN: 128 x 128 floats or 64 x 64 doubles; 8 warps, each with a tile of BM/2 x BN/4 of its own
//   shared     as double_buffered
//   reads      as double_buffered; blocks that run together share rows of a and columns of b (tile_of)
//   needs      matrices of fewer than 2^31 elements, fewer than 2^31 tiles
//   over double_buffered  a warp reads 8 packs of a and 4 of b that lie side by side, no two on one bank
extern "C" __global__ void __launch_bounds__(256)
    matmul_forward_warp_tiled(real* __restrict__ y, const real* __restrict__ a, const real* __restrict__ b,
                              const real* __restrict__ bias, int relu, int M, int N, int K, int a_row, int a_col,
                              int b_row, int b_col, long long a_batch, long long b_batch, int batch, int a_mode,
                              int b_mode, int y_wide) {
    using Who = Warps<8, 4, 2, 2>;
    __shared__ __align__(16) real as[2][BK][Who::BM + LANES];
    __shared__ __align__(16) real bs[2][BK][Who::BN + LANES];
    int tile_m, tile_n;
    tile_of(blockIdx.x, ceil_div(M, Who::BM), ceil_div(N, Who::BN), tile_m, tile_n);
    int first_row = tile_m * Who::BM, first_col = tile_n * Who::BN;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        real sum[2 * LANES][2 * LANES] = {};
        one_tile<Who>(sum, as, bs, a + n * a_batch, b + n * b_batch, first_row, first_col, M, N, 0, K, a_row, a_col,
                      b_row, b_col, a_mode, b_mode);
        store_tile<Who>(y + static_cast<long long>(n) * M * N, sum, bias, relu, first_row, first_col, M, N, y_wide);
    }
}

// Starts the copies of one tile: packs along the minor index where HOW is 1, else single elements, turned round.
template <int SIZE, int THREADS, int HOW, int PITCH>
__device__ __forceinline__ void start_copies(real (*tile)[PITCH], const real* from, int first, int k0, int minor_end,
                                             int k_end, int minor_step, int k_step) {
    constexpr int BYTES = HOW == 1 ? 16 : int(sizeof(real)), COUNT = SIZE * BK * int(sizeof(real)) / BYTES / THREADS;
#pragma unroll
    for (int round = 0; round < COUNT; ++round) {
        int minor, k;
        Piece<SIZE, THREADS, HOW == 1 ? 1 : 0>::place(round, k_step, minor, k);
        bool inside = first + minor < minor_end && k0 + k < k_end;
        const real* source = inside ? from + (first + minor) * minor_step + (k0 + k) * k_step : from;
        copy_async<BYTES>(&tile[k][minor], source, inside ? BYTES : 0);
    }
}

#define STAGES 3

// The tile's sum over k, with two tiles on their way past the registers while a third is multiplied.
template <class Who, int HOW_A, int HOW_B, int PITCH_A, int PITCH_B>
__device__ __forceinline__ void streamed(real (&sum)[Who::PACKS_M * LANES][Who::PACKS_N * LANES],
                                         real (*as)[BK][PITCH_A], real (*bs)[BK][PITCH_B], const real* a, const real* b,
                                         int first_row, int first_col, int M, int N, int K, int a_row, int a_col,
                                         int b_row, int b_col) {
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage * BK < K) {
            start_copies<Who::BM, Who::THREADS, HOW_A>(as[stage], a, first_row, stage * BK, M, K, a_row, a_col);
            start_copies<Who::BN, Who::THREADS, HOW_B>(bs[stage], b, first_col, stage * BK, N, K, b_col, b_row);
        }
        copy_async_commit();
    }
    int stage = 0;
    for (int k = 0; k < K; k += BK) {
        copy_async_wait<STAGES - 2>();  // this thread's share of the tile at k is there
        __syncthreads();                // everyone's is, and everyone is done with the tile before
        int next = k + (STAGES - 1) * BK, free = stage == 0 ? STAGES - 1 : stage - 1;
        if (next < K) {
            start_copies<Who::BM, Who::THREADS, HOW_A>(as[free], a, first_row, next, M, K, a_row, a_col);
            start_copies<Who::BN, Who::THREADS, HOW_B>(bs[free], b, first_col, next, N, K, b_col, b_row);
        }
        copy_async_commit();  // a group a tile, empty at the end: the wait above counts groups
        multiply_tiles<Who>(sum, as[stage], bs[stage]);
        stage = stage == STAGES - 1 ? 0 : stage + 1;
    }
    copy_async_wait<0>();
    __syncthreads();  // the stages are free for the next matrix
}

// matmul_forward_cp_async
//
//   thread     4 x 2 packs of y: 16 x 8 floats or 8 x 4 doubles; with its 128 sums it has most of 255 registers
//   block      BM x BN: 128 x 256 floats or 64 x 128 doubles; 8 warps, one block on a multiprocessor
//   shared     3 stages of both tiles, 37 KB
//   reads      a N / BN times, b M / BM times
//   needs      matrices of fewer than 2^31 elements, fewer than 2^31 tiles; before sm_80 the copies are ordinary ones
//   over warp_tiled  6 reads of 16 bytes from shared memory for 128 products instead of 4 for 64, and copies that pass
//                    by the registers, two tiles ahead
extern "C" __global__ void __launch_bounds__(256, 1)
    matmul_forward_cp_async(real* __restrict__ y, const real* __restrict__ a, const real* __restrict__ b,
                            const real* __restrict__ bias, int relu, int M, int N, int K, int a_row, int a_col,
                            int b_row, int b_col, long long a_batch, long long b_batch, int batch, int a_mode,
                            int b_mode, int y_wide) {
    using Who = Warps<4, 8, 4, 2>;
    __shared__ __align__(16) real as[STAGES][BK][Who::BM + LANES];
    __shared__ __align__(16) real bs[STAGES][BK][Who::BN + LANES];
    int tile_m, tile_n;
    tile_of(blockIdx.x, ceil_div(M, Who::BM), ceil_div(N, Who::BN), tile_m, tile_n);
    int first_row = tile_m * Who::BM, first_col = tile_n * Who::BN;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        real sum[4 * LANES][2 * LANES] = {};
        const real* one = a + n * a_batch;
        const real* other = b + n * b_batch;
        if (a_mode == 1 && b_mode == 1)  // TN
            streamed<Who, 1, 1>(sum, as, bs, one, other, first_row, first_col, M, N, K, a_row, a_col, b_row, b_col);
        else if (b_mode == 1)  // NN
            streamed<Who, 0, 1>(sum, as, bs, one, other, first_row, first_col, M, N, K, a_row, a_col, b_row, b_col);
        else  // NT, TT, and what does not lie in whole packs
            streamed<Who, 0, 0>(sum, as, bs, one, other, first_row, first_col, M, N, K, a_row, a_col, b_row, b_col);
        store_tile<Who>(y + static_cast<long long>(n) * M * N, sum, bias, relu, first_row, first_col, M, N, y_wide);
    }
}

// matmul_forward_split_k_pieces: each block sums over a part of k, and y is left in `parts` pieces.
//
//   thread     1 pack x 1 pack of a piece
//   block      BM x BN: 64 x 64 floats or 32 x 32 doubles, of one piece of one matrix
//   shared     2 stages of both tiles
//   reads      a N / BN times, b M / BM times, element by element: a tile has fewer packs than the block threads
//   needs      matrices of fewer than 2^31 elements; batch * parts of at most 65535
//   over cp_async  a small y with a long k has few tiles: parts of k give every multiprocessor work. The pieces are
//                  added in their order, so the same bits come out each time
extern "C" __global__ void __launch_bounds__(256)
    matmul_forward_split_k_pieces(real* __restrict__ piece, const real* __restrict__ a, const real* __restrict__ b,
                                  int M, int N, int K, int a_row, int a_col, int b_row, int b_col, long long a_batch,
                                  long long b_batch, int batch, int parts, int part, int y_wide) {
    using Who = Warps<8, 4, 1, 1>;
    __shared__ __align__(16) real as[2][BK][Who::BM + LANES];
    __shared__ __align__(16) real bs[2][BK][Who::BN + LANES];
    int first_row = blockIdx.y * Who::BM, first_col = blockIdx.x * Who::BN;
    int n = blockIdx.z / parts, k_begin = blockIdx.z % parts * part;
    real sum[LANES][LANES] = {};
    prefetched<Who, 0, 0>(sum, as, bs, a + n * a_batch, b + n * b_batch, first_row, first_col, M, N, k_begin,
                          min(K, k_begin + part), a_row, a_col, b_row, b_col);
    long long place = (static_cast<long long>(blockIdx.z % parts) * batch + n) * M * N;
    store_tile<Who>(piece + place, sum, nullptr, 0, first_row, first_col, M, N, y_wide);
}

// matmul_forward_split_k: the second step, y[e] = the sum of its pieces, in their order.
//
//   thread     one element of y after the other, in steps of the grid
extern "C" __global__ void matmul_forward_split_k(real* __restrict__ y, const real* __restrict__ piece,
                                                  const real* __restrict__ bias, int relu, int N, int parts,
                                                  long long size) {
    long long step = static_cast<long long>(gridDim.x) * blockDim.x;
    for (long long e = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; e < size; e += step) {
        real sum = 0;
        for (int p = 0; p < parts; ++p) sum += piece[p * size + e];
        y[e] = finished(sum, bias, static_cast<int>(e % N), relu);
    }
}
