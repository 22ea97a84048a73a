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

// matmul_forward_naive
//
//   thread     one element y[row, col]; neighbouring threads have neighbouring rows
//   block      TILE x TILE elements of y, of one matrix of the batch
//   shared     none
//   reads      a row of a and a column of b for each element, from global memory
//   needs      contiguous matrices, at most 2^31 - 1 elements in each
//   over definition  every element of y has its own thread
extern "C" __global__ void matmul_forward_naive(real* __restrict__ y, const real* __restrict__ a,
                                                const real* __restrict__ b, int M, int N, int K, int a_row,
                                                int a_col, int b_row, int b_col, long long a_batch,
                                                long long b_batch, int batch) {
    int row = blockIdx.y * TILE + threadIdx.x;
    int col = blockIdx.x * TILE + threadIdx.y;
    if (row >= M || col >= N) return;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        const real* one = a + n * a_batch;
        const real* other = b + n * b_batch;
        real sum = 0;
        for (int k = 0; k < K; ++k) sum += one[row * a_row + k * a_col] * other[k * b_row + col * b_col];
        y[(static_cast<long long>(n) * M + row) * N + col] = sum;
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
                                                    const real* __restrict__ b, int M, int N, int K, int a_row,
                                                    int a_col, int b_row, int b_col, long long a_batch,
                                                    long long b_batch, int batch) {
    int row = blockIdx.y * TILE + threadIdx.y;
    int col = blockIdx.x * TILE + threadIdx.x;
    if (row >= M || col >= N) return;
    for (int n = blockIdx.z; n < batch; n += gridDim.z) {
        const real* one = a + n * a_batch;
        const real* other = b + n * b_batch;
        real sum = 0;
        for (int k = 0; k < K; ++k) sum += one[row * a_row + k * a_col] * other[k * b_row + col * b_col];
        y[(static_cast<long long>(n) * M + row) * N + col] = sum;
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
                                                const real* __restrict__ b, int M, int N, int K, int a_row,
                                                int a_col, int b_row, int b_col, long long a_batch,
                                                long long b_batch, int batch) {
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
        if (row < M && col < N) y[(static_cast<long long>(n) * M + row) * N + col] = sum;
    }
}
