// What the pooling kernels share. #include "common/pooling.cuh" behind "common/common.cuh".
//
// The grid of most of them is a box of threads: x along a row, y down the rows, z over the N * C planes. So no thread
// has to divide its number to find out where it is. Where the grid's third axis ends, another launch goes on.
#pragma once

// The thread's plane in a launch that begins with plane `first`.
__device__ __forceinline__ long long plane_of(long long first) {
    return first + static_cast<long long>(blockIdx.z) * blockDim.z + threadIdx.z;
}

#define LOWEST real(__uint_as_float(0xff800000u))  // -inf: what lies outside an image for a maximum

// -- windows that slide -----------------------------------------------------------------------------------------------

// One axis: window i begins at i * stride - pad, and its elements lie `step` apart.
struct Axis {
    int size, out, kernel, stride, pad, step;
};
__device__ __forceinline__ int window_start(const Axis& axis, int i) { return i * axis.stride - axis.pad; }

// The first position of window i that lies inside the image; padding above and left is skipped.
__device__ __forceinline__ int first_inside(const Axis& axis, int i) {
    int start = window_start(axis, i);
    return start < 0 ? ceil_div(-start, axis.step) : 0;
}

// Whether windows are K by K with steps of S both ways, and without holes.
__device__ __forceinline__ bool is_square(const Axis& rows, const Axis& cols, int K, int S) {
    return rows.kernel == K && cols.kernel == K && rows.stride == S && cols.stride == S && rows.step == 1 &&
           cols.step == 1;
}

// The pixel (iy, ix), or `outside` beyond the image.
__device__ __forceinline__ real pixel(const real* image, int iy, int ix, const Axis& rows, const Axis& cols,
                                      real outside) {
    bool inside = unsigned(iy) < unsigned(rows.size) && unsigned(ix) < unsigned(cols.size);
    return inside ? image[iy * cols.size + ix] : outside;
}

// The cells under R windows of one column, K by K with steps of S: cells[0][0] is pixel (iy, ix).
template <int ROWS, int COLS>
__device__ __forceinline__ void load_cells(real (&cells)[ROWS][COLS], const real* image, int iy, int ix,
                                           const Axis& rows, const Axis& cols, real outside) {
#pragma unroll
    for (int t = 0; t < ROWS; ++t) {
#pragma unroll
        for (int l = 0; l < COLS; ++l) cells[t][l] = pixel(image, iy + t, ix + l, rows, cols, outside);
    }
}

// The same by 16 bytes: cells[0][LEFT] is pixel (iy, ix), ix and the columns of the image are multiples of LANES. What
// sticks out to the left and right of the 16 bytes the neighbours load too: those loads hit the first-level cache.
template <int LEFT, int ROWS, int COLS>
__device__ __forceinline__ void load_cells_wide(real (&cells)[ROWS][COLS], const real* image, int iy, int ix,
                                                const Axis& rows, const Axis& cols, real outside) {
#pragma unroll
    for (int t = 0; t < ROWS; ++t) {
        Pack pack;
#pragma unroll
        for (int b = 0; b < LANES; ++b) pack.v[b] = outside;
        if (unsigned(iy + t) < unsigned(rows.size) && ix < cols.size)
            pack = load_pack(image, ((iy + t) * cols.size + ix) / LANES);
#pragma unroll
        for (int l = 0; l < COLS; ++l) {
            bool mine = l >= LEFT && l < LEFT + LANES;
            cells[t][l] = mine ? pack.v[mine ? l - LEFT : 0]
                               : pixel(image, iy + t, ix + l - LEFT, rows, cols, outside);
        }
    }
}

// -- several neighbours at once ---------------------------------------------------------------------------------------

// V neighbours of one type, moved by one instruction; V * sizeof(T) is a power of two up to 16.
template <class T, int V>
struct alignas(V * sizeof(T)) Few {
    T v[V];
};
template <int V, class T>
__device__ __forceinline__ Few<T, V> load_few(const T* from) {
    return *reinterpret_cast<const Few<T, V>*>(from);
}
template <int V, class T>
__device__ __forceinline__ void store_few(T* to, const Few<T, V>& few) {
    *reinterpret_cast<Few<T, V>*>(to) = few;
}

// -- the winner of a window -------------------------------------------------------------------------------------------

struct Best {
    real value;
    int place;
};

// A later element takes over when it is larger or NaN. So the first of equals wins, and the last of several NaN: no
// number is larger than NaN. Winners of neighbouring runs can be folded in this order as single elements can.
__device__ __forceinline__ void challenge(Best& best, real value, int place) {
    bool wins = value > best.value || value != value;
    best.value = wins ? value : best.value;
    best.place = wins ? place : best.place;
}

// -- windows that share an axis out -----------------------------------------------------------------------------------

// Window i of `out` over an axis of `size`: from floor(i * size / out) up to ceil((i + 1) * size / out), not included.
// Seen from an element, the windows that hold it are a window too, with the two sizes exchanged.
template <class T>
__device__ __forceinline__ T share_start(T i, T size, T out) {
    return i * size / out;
}
template <class T>
__device__ __forceinline__ T share_stop(T i, T size, T out) {
    return ((i + 1) * size + out - 1) / out;
}
template <class T>
__device__ __forceinline__ T share_length(T i, T size, T out) {
    return share_stop(i, size, out) - share_start(i, size, out);
}
