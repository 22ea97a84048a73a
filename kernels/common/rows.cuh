// Rows: lines of D elements that softmax, log_softmax and cross_entropy reduce. #include "common/rows.cuh"
//
// A row is the work of a group of threads: some lanes of a warp, a block, or a column of a block. It is cut into units
// of UNIT elements, one load each: 16 bytes (UNIT = LANES), or one element, the next one `apart` elements further on.
// Thread `at` of the group's `size` takes the units at, at + size, at + 2 size, ... `wide` says that rows can be
// loaded by 16 bytes: arrays begin at a multiple of 16 bytes, and so do all their rows.
#pragma once

#include "common/common.cuh"

// Elements that a thread keeps in registers, all of whose loads are under way at once: 8 of 16 bytes, or 16 of single
// elements, whose addresses take registers too. A warp alone keeps 128 bytes a thread either way.
#define KEPT int(128 / sizeof(real))
#define KEPT_SINGLE int(64 / sizeof(real))
#define STEP int(64 / sizeof(real))  // elements that a thread takes at once where it walks along a row: 4 loads
#define RUN 256  // terms that one thread adds up before their sum goes to the row's, where it has a row alone

// Threads of a block at most where it, or its columns, walk along rows: double needs more registers.
#define LONG int(4096 / sizeof(real))
#define COLUMNS int(2048 / sizeof(real))

__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ double exponential(double x) { return exp(x); }
__device__ __forceinline__ float logarithm(float x) { return logf(x); }
__device__ __forceinline__ double logarithm(double x) { return log(x); }

// The lowest finite number, where a maximum begins: -inf would give -inf - -inf = NaN in front of a row's first number.
__device__ __forceinline__ float lowest_like(float) { return -3.40282347e38f; }
__device__ __forceinline__ double lowest_like(double) { return -1.7976931348623157e308; }
__device__ __forceinline__ real lowest() { return lowest_like(real(0)); }

// -inf, for places behind the end of a row: no maximum, and its exponential is 0.
__device__ __forceinline__ float nothing_like(float) { return __uint_as_float(0xff800000u); }
__device__ __forceinline__ double nothing_like(double) { return __longlong_as_double(0xfff0000000000000ull); }
__device__ __forceinline__ real nothing() { return nothing_like(real(0)); }

// -- groups of threads ------------------------------------------------------------------------------------------------
//
// largest and total give every thread the same number, in a fixed order. All threads of the warp or block must take
// part, also those without a row. A NaN loses against a number in largest, as in max.

// 1, 2, 4, ... or 32 neighbouring lanes of a warp.
struct Lanes {
    int at, size;

    template <class T>
    __device__ __forceinline__ T largest(T value) const {
        for (int apart = size / 2; apart > 0; apart /= 2) value = max(value, __shfl_xor_sync(ALL_LANES, value, apart));
        return value;
    }
    template <class T>
    __device__ __forceinline__ T total(T value) const {
        for (int apart = size / 2; apart > 0; apart /= 2) value += __shfl_xor_sync(ALL_LANES, value, apart);
        return value;
    }
};

// A whole block of whole warps. scratch: 32 elements of shared memory.
struct Block {
    int at, size;
    double* scratch;

    template <class T>
    __device__ __forceinline__ T largest(T value) const {
        return block_max(value, reinterpret_cast<T*>(scratch));
    }
    template <class T>
    __device__ __forceinline__ T total(T value) const {
        return block_sum(value, reinterpret_cast<T*>(scratch));
    }
};
__device__ __forceinline__ Block whole_block(double* scratch) {
    return Block{static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), scratch};
}

// The threads of a block that have one threadIdx.x. scratch: an element of shared memory for each thread of the block.
struct Column {
    int at, size;
    double* scratch;

    template <class T>
    __device__ __forceinline__ T largest(T value) const {
        if (size == 1) return value;
        const T* column = shown(value);
        for (int t = 0; t < size; ++t) value = max(value, column[t * blockDim.x]);
        __syncthreads();  // everyone has read before the next call writes
        return value;
    }
    template <class T>
    __device__ __forceinline__ T total(T value) const {
        if (size == 1) return value;
        const T* column = shown(value);
        value = column[0];
        for (int t = 1; t < size; ++t) value += column[t * blockDim.x];
        __syncthreads();
        return value;
    }

private:
    // Writes the thread's value; returns where its column's values lie, once all are there.
    template <class T>
    __device__ __forceinline__ const T* shown(T value) const {
        T* mine = reinterpret_cast<T*>(scratch) + threadIdx.x;
        mine[at * blockDim.x] = value;
        __syncthreads();
        return mine;
    }
};
__device__ __forceinline__ Column my_column(double* scratch) {
    return Column{static_cast<int>(threadIdx.y), static_cast<int>(blockDim.y), scratch};
}

// -- loads and stores -------------------------------------------------------------------------------------------------

// The units first, first + hop, first + 2 hop, ... of a row; `rest` stands for those from `units` on.
template <int UNIT, int N>
__device__ __forceinline__ void load_units(real (&v)[N], const real* x, int first, int hop, int units, long long apart,
                                           real rest) {
#pragma unroll
    for (int k = 0; k < N / UNIT; ++k) {
        int u = first + k * hop;
        if constexpr (UNIT == 1) {
            v[k] = u < units ? x[u * apart] : rest;
        } else {
            Pack pack;
#pragma unroll
            for (int j = 0; j < UNIT; ++j) pack.v[j] = rest;
            if (u < units) pack = load_pack(x, u);
#pragma unroll
            for (int j = 0; j < UNIT; ++j) v[k * UNIT + j] = pack.v[j];
        }
    }
}
template <int UNIT, int N>
__device__ __forceinline__ void store_units(real* y, const real (&v)[N], int first, int hop, int units,
                                            long long apart) {
#pragma unroll
    for (int k = 0; k < N / UNIT; ++k) {
        int u = first + k * hop;
        if (u >= units) continue;
        if constexpr (UNIT == 1) {
            y[u * apart] = v[k];
        } else {
            Pack pack;
#pragma unroll
            for (int j = 0; j < UNIT; ++j) pack.v[j] = v[k * UNIT + j];
            store_pack(y, u, pack);
        }
    }
}

// 16 bytes with the hint that nobody reads them soon, so that they leave the second-level cache to the input.
__device__ __forceinline__ void stream(float* y, const float* v) {
    __stcs(reinterpret_cast<float4*>(y), make_float4(v[0], v[1], v[2], v[3]));
}
__device__ __forceinline__ void stream(double* y, const double* v) {
    __stcs(reinterpret_cast<double2*>(y), make_double2(v[0], v[1]));
}
// store_units with that hint.
template <int UNIT, int N>
__device__ __forceinline__ void stream_units(real* y, const real (&v)[N], int first, int hop, int units,
                                             long long apart) {
#pragma unroll
    for (int k = 0; k < N / UNIT; ++k) {
        int u = first + k * hop;
        if (u >= units) continue;
        if constexpr (UNIT == 1) __stcs(y + u * apart, v[k]);
        else stream(y + static_cast<long long>(u) * UNIT, v + k * UNIT);
    }
}

// -- the maximum and the sum of exponentials in one pass --------------------------------------------------------------
//
// Online softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018): whenever the maximum
// grows from m to m', the sum so far is multiplied by exp(m - m'). STEP numbers are added in `real` first, and only
// their sum goes to the running one, which is double: the error does not grow with the row.
//
// A NaN never becomes the maximum, but makes the sum NaN, and so does inf by inf - inf. A row of nothing but -inf has
// the sum 0.
struct Online {
    real m = lowest();
    double sum = 0;

    template <int N>
    __device__ __forceinline__ void add(const real (&v)[N]) {
        real top = m, part = 0;
#pragma unroll
        for (int k = 0; k < N; ++k) top = max(top, v[k]);
#pragma unroll
        for (int k = 0; k < N; ++k) part += exponential(v[k] - top);
        sum = sum * exponential(m - top) + part;
        m = top;
    }
    // The same of all the group's threads together.
    template <class Group>
    __device__ __forceinline__ void gather(const Group& group) {
        real top = group.largest(m);
        sum = group.total(sum * exponential(m - top));
        m = top;
    }
    template <int UNIT, class Group>
    __device__ __forceinline__ void walk(const Group& group, const real* x, int units, long long apart) {
        for (int first = group.at; first < units; first += STEP / UNIT * group.size) {
            real v[STEP];
            load_units<UNIT>(v, x, first, group.size, units, apart, nothing());
            add(v);
        }
    }
};

// -- softmax and log_softmax ------------------------------------------------------------------------------------------
//
// Op says what the two do not share. With d = x - m, e = exp(d) and sum the row's sum of e:
//     kept(d, e)      what a thread keeps of an element until the sum is known
//     level(sum)      what all elements of the row need of the sum
//     y(kept, level)  the result
//     term(gy, y)     what the gradient adds up
//     gx(gy, y, sum)  the gradient, of that sum

// The sum of exp(v - m), and what is kept of each v. From v[used] on there is nothing in any thread of the group. In
// fours, so that four exponentials are under way between two branches.
template <class Op, int N>
__device__ __forceinline__ real exponentials(real (&v)[N], real m, int used) {
    real sum = 0;
#pragma unroll
    for (int four = 0; four < N; four += 4) {
        if (four >= used) continue;
#pragma unroll
        for (int k = four; k < four + 4; ++k) {
            real d = v[k] - m, e = exponential(d);
            v[k] = Op::kept(d, e);
            sum += e;
        }
    }
    return sum;
}

// A row of at most N elements a thread: it is read once.
template <class Op, int UNIT, int N, class Group>
__device__ __forceinline__ void forward_kept(const Group& group, real* y, const real* x, int D, long long apart) {
    int units = D / UNIT, used = ceil_div(units, group.size) * UNIT;
    real v[N], m = lowest();
    load_units<UNIT>(v, x, group.at, group.size, units, apart, nothing());
#pragma unroll
    for (int k = 0; k < N; ++k) m = max(m, v[k]);
    m = group.largest(m);
    real sum = exponentials<Op>(v, m, used);
    real level = Op::level(group.total(sum));
#pragma unroll
    for (int k = 0; k < N; ++k) v[k] = Op::y(v[k], level);
    store_units<UNIT>(y, v, group.at, group.size, units, apart);
}

// The y of units whose row has the maximum and sum of `row`. From the end to the beginning: what was read last is in
// the cache.
template <class Op, int UNIT, class Group>
__device__ __forceinline__ void forward_write(const Group& group, const Online& row, real* y, const real* x, int units,
                                              long long apart) {
    real level = Op::level(static_cast<real>(row.sum));
    int hop = STEP / UNIT * group.size;
    for (int first = (ceil_div(units, hop) - 1) * hop + group.at; first >= 0; first -= hop) {
        real v[STEP];
        load_units<UNIT>(v, x, first, group.size, units, apart, nothing());
#pragma unroll
        for (int k = 0; k < STEP; ++k) {
            real d = v[k] - row.m;
            v[k] = Op::y(Op::kept(d, exponential(d)), level);
        }
        stream_units<UNIT>(y, v, first, group.size, units, apart);
    }
}

// A row of any length, read twice.
template <class Op, int UNIT, class Group>
__device__ __forceinline__ void forward_walked(const Group& group, real* y, const real* x, int D, long long apart) {
    Online row;
    row.walk<UNIT>(group, x, D / UNIT, apart);
    row.gather(group);
    forward_write<Op, UNIT>(group, row, y, x, D / UNIT, apart);
}

// As forward_kept; two arrays, N elements of each a thread.
template <class Op, int UNIT, int N, class Group>
__device__ __forceinline__ void grad_kept(const Group& group, real* gx, const real* gy, const real* y, int D,
                                          long long apart) {
    int units = D / UNIT;
    real g[N], p[N], sum = 0;
    load_units<UNIT>(g, gy, group.at, group.size, units, apart, real(0));
    load_units<UNIT>(p, y, group.at, group.size, units, apart, real(0));
#pragma unroll
    for (int k = 0; k < N; ++k) sum += Op::term(g[k], p[k]);
    sum = group.total(sum);
#pragma unroll
    for (int k = 0; k < N; ++k) g[k] = Op::gx(g[k], p[k], sum);
    store_units<UNIT>(gx, g, group.at, group.size, units, apart);
}

// A thread's share of the sum that the gradient needs: STEP / 2 terms in `real`, their sums in double.
template <class Op, int UNIT, class Group>
__device__ __forceinline__ double grad_sum(const Group& group, const real* gy, const real* y, int units,
                                           long long apart) {
    double sum = 0;
    for (int first = group.at; first < units; first += STEP / 2 / UNIT * group.size) {
        real g[STEP / 2], p[STEP / 2], part = 0;
        load_units<UNIT>(g, gy, first, group.size, units, apart, real(0));
        load_units<UNIT>(p, y, first, group.size, units, apart, real(0));
#pragma unroll
        for (int k = 0; k < STEP / 2; ++k) part += Op::term(g[k], p[k]);
        sum += part;
    }
    return sum;
}

// The gx of units whose row has this sum, from the end to the beginning.
template <class Op, int UNIT, class Group>
__device__ __forceinline__ void grad_write(const Group& group, real sum, real* gx, const real* gy, const real* y,
                                           int units, long long apart) {
    int hop = STEP / 2 / UNIT * group.size;
    for (int first = (ceil_div(units, hop) - 1) * hop + group.at; first >= 0; first -= hop) {
        real g[STEP / 2], p[STEP / 2];
        load_units<UNIT>(g, gy, first, group.size, units, apart, real(0));
        load_units<UNIT>(p, y, first, group.size, units, apart, real(0));
#pragma unroll
        for (int k = 0; k < STEP / 2; ++k) g[k] = Op::gx(g[k], p[k], sum);
        stream_units<UNIT>(gx, g, first, group.size, units, apart);
    }
}

template <class Op, int UNIT, class Group>
__device__ __forceinline__ void grad_walked(const Group& group, real* gx, const real* gy, const real* y, int D,
                                            long long apart) {
    double sum = group.total(grad_sum<Op, UNIT>(group, gy, y, D / UNIT, apart));
    grad_write<Op, UNIT>(group, static_cast<real>(sum), gx, gy, y, D / UNIT, apart);
}

// -- which rows a thread works on ---------------------------------------------------------

// A column of a block for each row: D elements, one every `inner`. Rows are counted along the inner axes first, so
// neighbouring threads have neighbouring elements.
struct Strided {
    Column group;
    long long begin;
    int length;  // D, but 0 for a thread behind the last row, which only takes part in barriers

    __device__ __forceinline__ Strided(double* scratch, long long rows, int D, long long inner)
        : group(my_column(scratch)), begin(0), length(0) {
        long long row = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
        if (row >= rows) return;
        begin = row / inner * inner * D + row % inner;
        length = D;
    }
};

// `width` lanes for each row of D neighbours.
struct Several {
    Lanes group;
    long long number, begin;
    int length;

    __device__ __forceinline__ Several(long long rows, int D, int width)
        : group{static_cast<int>(threadIdx.x) % width, width}, begin(0), length(0) {
        number = static_cast<long long>(blockIdx.x) * (blockDim.x / width) + threadIdx.x / width;
        if (number >= rows) return;
        begin = number * D;
        length = D;
    }
};

// `parts` blocks for each row of D neighbours, each with a segment of whole units.
struct Segment {
    long long row, begin;
    int units, offset;  // offset: of the segment in its row, in units

    __device__ __forceinline__ Segment(int D, int parts, int unit) {
        int part = static_cast<int>(blockIdx.x % parts), all = D / unit, each = ceil_div(all, parts);
        row = blockIdx.x / parts;
        offset = min(part * each, all);
        units = min(each, all - offset);
        begin = row * D + static_cast<long long>(offset) * unit;
    }
};

// The sum of exponentials of a segment.
template <int UNIT>
__device__ __forceinline__ Online segment_online(const Block& group, const real* x, int D, int parts) {
    Segment part(D, parts, UNIT);
    Online row;
    row.walk<UNIT>(group, x + part.begin, part.units, 1);
    row.gather(group);
    return row;
}
