// cross_entropy in CUDA C++: the rungs of kernels/cross_entropy/__init__.py, in its order.
// op: gpunet/ops/cross_entropy.py      launchers: cross_entropy_cupy.py
// alone: nvcc -D real=float -D SMOOTH=0 -I kernels -c kernels/cross_entropy/cross_entropy.cu
//
// A row is the C classes of one position, S apart. In all kernels `hit` is 1 - label_smoothing and `spread` is
// label_smoothing / C. SMOOTH says that label_smoothing is not 0: what is needed only then costs registers, so that the
// file is compiled with it and without. w may be null, for ones.

#if !defined(real) || !defined(SMOOTH)
#error "cross_entropy.cu needs -D real=float or -D real=double, and -D SMOOTH=0 or 1"
#endif

#include "common/rows.cuh"

// What the loss of a row adds up: the sum of exponentials, and for label smoothing the sum of w * (x - m) and of w.
// When the maximum grows from m to m', each x - m loses m' - m, and the second sum that times the third.
struct Costs {
    Online row;
    double distance = 0, weight = 0;

    __device__ __forceinline__ void move(real before, real after) {
        // With no weight yet there is nothing to move, and `before` may be so low that the difference is -inf.
        if (weight != 0) distance += weight * (static_cast<double>(before) - after);
    }
    // Weighted distances of loaded units; what stands for missing ones counts nothing.
    template <int UNIT, int N>
    __device__ __forceinline__ void add_distances(const real (&v)[N], const real* w, int first, int hop, int units) {
        real part = 0, part_weight = 0;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            int u = first + k / UNIT * hop;
            if (u >= units) continue;
            real each = w ? w[u * UNIT + k % UNIT] : real(1);
            part += each * (v[k] - row.m);
            part_weight += each;
        }
        distance += part;
        weight += part_weight;
    }
    // All units of a row, or of a segment of one that begins at class 0 of w.
    template <int UNIT, class Group>
    __device__ __forceinline__ void walk(const Group& group, const real* x, const real* w, int units,
                                         long long apart) {
        for (int first = group.at; first < units; first += STEP / UNIT * group.size) {
            real v[STEP], before = row.m;
            load_units<UNIT>(v, x, first, group.size, units, apart, nothing());
            row.add(v);
            if constexpr (SMOOTH) {
                move(before, row.m);
                add_distances<UNIT>(v, w, first, group.size, units);
            }
        }
    }
    template <class Group>
    __device__ __forceinline__ void gather(const Group& group) {
        real before = row.m;
        row.gather(group);
        if constexpr (SMOOTH) {
            move(before, row.m);
            distance = group.total(distance);
            weight = group.total(weight);
        }
    }
};

// What is written for one position: loss and lse. `picked` is the target's x.
__device__ __forceinline__ void write_loss(real* loss, real* lse, long long position, const Costs& costs, real picked,
                                           long long t, const real* w, long long ignore, real hit, real spread) {
    // A row of nothing but -inf has the sum 0 and must give NaN, which log(-1) is.
    real log_sum = logarithm(costs.row.sum == 0 ? real(-1) : static_cast<real>(costs.row.sum));
    lse[position] = costs.row.m + log_sum;
    real cost = 0;
    if (t != ignore) {
        cost = (log_sum - (picked - costs.row.m)) * (hit * (w ? w[t] : real(1)));
        if constexpr (SMOOTH) cost += spread * static_cast<real>(costs.weight * log_sum - costs.distance);
    }
    loss[position] = cost;
}

// The factors of one position's gradient: gx[c] = share * p[c] - taken * [c = t] - level * w[c].
struct Factors {
    real lse, share, taken, level;
    long long t;
    bool ignored;

    __device__ __forceinline__ Factors(long long position, const real* gloss, const real* lses, const long long* target,
                                       const real* w, const double* total, int C, long long ignore, real hit,
                                       real spread) {
        t = target[position];
        ignored = t == ignore;
        real g = gloss[position];
        lse = lses[position];
        taken = ignored ? real(0) : g * (hit * (w ? w[t] : real(1)));
        level = g * spread;
        share = taken + level * (total ? static_cast<real>(*total) : static_cast<real>(C));
    }

    // gx of the units that a thread of the group has; `offset` is the class of the first.
    template <int UNIT, class Group>
    __device__ __forceinline__ void write(const Group& group, real* gx, const real* x, const real* w, int offset,
                                          int units, long long apart) const {
        int target = ignored ? -1 : static_cast<int>(t) - offset;
        for (int first = group.at; first < units; first += STEP / UNIT * group.size) {
            real v[STEP];
            if (ignored) {
#pragma unroll
                for (int k = 0; k < STEP; ++k) v[k] = 0;
            } else {
                load_units<UNIT>(v, x, first, group.size, units, apart, real(0));
#pragma unroll
                for (int k = 0; k < STEP; ++k) {
                    int u = first + k / UNIT * group.size, c = u * UNIT + k % UNIT;
                    v[k] = exponential(v[k] - lse) * share;
                    if (c == target) v[k] -= taken;
                    if constexpr (SMOOTH)
                        if (u < units) v[k] -= w ? level * w[offset + c] : level;
                }
            }
            store_units<UNIT>(gx, v, first, group.size, units, apart);
        }
    }
};

// cross_entropy_forward_plain
//
//   thread     one position: a pass for the maximum, one for the sums
//   block      256 neighbouring positions
//   shared     none
//   reads      x twice; neighbouring threads are C elements apart where S is 1
//   needs      contiguous arrays
//   over definition  one kernel; since one thread adds up a whole row, it does so in double, and in runs of RUN terms
extern "C" __global__ void cross_entropy_forward_plain(real* __restrict__ loss, real* __restrict__ lse,
                                                       const real* __restrict__ x,
                                                       const long long* __restrict__ target,
                                                       const real* __restrict__ w, long long positions, int C,
                                                       long long S, long long ignore, real hit, real spread) {
    long long position = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (position >= positions) return;
    x += position / S * S * C + position % S;
    Costs costs;
    real m = lowest();
    for (int c = 0; c < C; ++c) m = max(m, x[c * S]);
    costs.row.m = m;
    for (int first = 0; first < C; first += RUN) {
        double sum = 0, distance = 0, weight = 0;
        for (int c = first; c < min(first + RUN, C); ++c) {
            real d = x[c * S] - m, each = w ? w[c] : real(1);
            sum += exponential(d);
            distance += each * d;
            weight += each;
        }
        costs.row.sum += sum, costs.distance += distance, costs.weight += weight;
    }
    long long t = target[position];
    real picked = t == ignore ? real(0) : x[t * S];
    write_loss(loss, lse, position, costs, picked, t, w, ignore, hit, spread);
}

// cross_entropy_grad_x_total
//
//   thread     every 256th weight
//   block      one: the sum of w, which label smoothing needs once for all positions, in a fixed order
//   shared     32 numbers
//   reads      w once
//   needs      a contiguous array
extern "C" __global__ void cross_entropy_grad_x_total(double* __restrict__ total, const real* __restrict__ w, int C) {
    __shared__ double scratch[32];
    double sum = 0;
    for (int c = threadIdx.x; c < C; c += blockDim.x) sum += w[c];
    sum = whole_block(scratch).total(sum);
    if (threadIdx.x == 0) *total = sum;
}

// cross_entropy_grad_x_plain: one thread a position, in one pass; total holds the sum of w, or is null for C.
extern "C" __global__ void cross_entropy_grad_x_plain(real* __restrict__ gx, const real* __restrict__ gloss,
                                                      const real* __restrict__ x, const real* __restrict__ lse,
                                                      const long long* __restrict__ target,
                                                      const real* __restrict__ w, const double* __restrict__ total,
                                                      long long positions, int C, long long S, long long ignore,
                                                      real hit, real spread) {
    long long position = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (position >= positions) return;
    long long begin = position / S * S * C + position % S;
    x += begin, gx += begin;
    Factors row(position, gloss, lse, target, w, total, C, ignore, hit, spread);
    for (int c = 0; c < C; ++c) {
        real g = row.ignored ? real(0) : exponential(x[c * S] - row.lse) * row.share;
        if (c == row.t && !row.ignored) g -= row.taken;
        if (SMOOTH && !row.ignored) g -= w ? row.level * w[c] : row.level;
        gx[c * S] = g;
    }
}

// cross_entropy_forward_coalesced
//
//   thread     classes of one position, blockDim.y apart, STEP at a time
//   block      blockDim.x neighbouring positions, each the work of a column of blockDim.y threads
//   shared     8 bytes a thread, where a column's sums meet
//   reads      x once (Online); a warp's 32 loads are neighbours where S is 32 or more
//   needs      contiguous arrays
//   over plain  neighbouring threads read neighbouring addresses where S is not 1, maximum and sums come from one pass,
//               and STEP loads a thread are under way at once
extern "C" __global__ void __launch_bounds__(COLUMNS, 1)
    cross_entropy_forward_coalesced(real* __restrict__ loss, real* __restrict__ lse, const real* __restrict__ x,
                                    const long long* __restrict__ target, const real* __restrict__ w,
                                    long long positions, int C, long long S, long long ignore, real hit, real spread) {
    __shared__ double scratch[COLUMNS];
    Strided row(scratch, positions, C, S);
    long long position = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    bool writes = row.length > 0 && row.group.at == 0;
    long long t = writes ? target[position] : ignore;
    Costs costs;
    costs.walk<1>(row.group, x + row.begin, w, row.length, S);
    real picked = t == ignore ? real(0) : x[row.begin + t * S];
    costs.gather(row.group);
    if (writes) write_loss(loss, lse, position, costs, picked, t, w, ignore, hit, spread);
}

// cross_entropy_grad_x_coalesced: the same threads for the same classes; nothing has to meet.
extern "C" __global__ void __launch_bounds__(COLUMNS, 1)
    cross_entropy_grad_x_coalesced(real* __restrict__ gx, const real* __restrict__ gloss, const real* __restrict__ x,
                                   const real* __restrict__ lse, const long long* __restrict__ target,
                                   const real* __restrict__ w, const double* __restrict__ total, long long positions,
                                   int C, long long S, long long ignore, real hit, real spread) {
    long long position = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (position >= positions) return;
    Strided row(nullptr, positions, C, S);
    Factors factors(position, gloss, lse, target, w, total, C, ignore, hit, spread);
    gx += row.begin, x += row.begin;
    factors.write<1>(row.group, gx, x, w, 0, C, S);
}

// cross_entropy_forward_warp
//
//   thread     at most KEPT classes of one position, in registers: 8 loads of 16 bytes under way at once
//   block      128 threads; `width` neighbouring lanes, 1 to 32, take a row, so that short rows leave no lane idle
//   shared     none: maxima and sums go from lane to lane
//   reads      x once, 16 bytes a load where all rows begin at a multiple of 16 bytes
//   needs      contiguous arrays, S = 1, at most 32 * KEPT classes
//   over coalesced  a row is read by neighbouring lanes, and nobody waits for a whole block
struct Nothing {  // is kept of a class but its part in the sum
    static __device__ __forceinline__ real kept(real d, real) { return d; }
};
template <int UNIT>
__device__ __forceinline__ void warp_costs(Costs& costs, const Several& row, const real* x, const real* w) {
    int units = row.length / UNIT;
    real v[KEPT], m = lowest();
    load_units<UNIT>(v, x + row.begin, row.group.at, row.group.size, units, 1, nothing());
#pragma unroll
    for (int k = 0; k < KEPT; ++k) m = max(m, v[k]);
    costs.row.m = row.group.largest(m);
    if constexpr (SMOOTH) costs.add_distances<UNIT>(v, w, row.group.at, row.group.size, units);
    real sum = exponentials<Nothing>(v, costs.row.m, ceil_div(units, row.group.size) * UNIT);
    costs.row.sum = row.group.total(sum);
    if constexpr (SMOOTH) {
        costs.distance = row.group.total(costs.distance);
        costs.weight = row.group.total(costs.weight);
    }
}
extern "C" __global__ void __launch_bounds__(128, 4)
    cross_entropy_forward_warp(real* __restrict__ loss, real* __restrict__ lse, const real* __restrict__ x,
                               const long long* __restrict__ target, const real* __restrict__ w, long long positions,
                               int C, int width, long long ignore, real hit, real spread, bool wide) {
    Several row(positions, C, width);
    bool writes = row.length > 0 && row.group.at == 0;
    long long t = writes ? target[row.number] : ignore;
    Costs costs;
    if (wide) warp_costs<LANES>(costs, row, x, w);
    else warp_costs<1>(costs, row, x, w);
    real picked = t == ignore ? real(0) : x[row.begin + t];
    if (writes) write_loss(loss, lse, row.number, costs, picked, t, w, ignore, hit, spread);
}

// cross_entropy_grad_x_warp: the same lanes for the same row, STEP elements at a time.
extern "C" __global__ void __launch_bounds__(128, 4)
    cross_entropy_grad_x_warp(real* __restrict__ gx, const real* __restrict__ gloss, const real* __restrict__ x,
                              const real* __restrict__ lse, const long long* __restrict__ target,
                              const real* __restrict__ w, const double* __restrict__ total, long long positions, int C,
                              int width, long long ignore, real hit, real spread, bool wide) {
    Several row(positions, C, width);
    if (row.length == 0) return;
    Factors factors(row.number, gloss, lse, target, w, total, C, ignore, hit, spread);
    gx += row.begin, x += row.begin;
    if (wide) factors.write<LANES>(row.group, gx, x, w, 0, C / LANES, 1);
    else factors.write<1>(row.group, gx, x, w, 0, C, 1);
}

// cross_entropy_forward_block
//
//   thread     STEP classes of the block's position at a time: 4 loads of 16 bytes under way at once
//   block      one position; 64 to 512 threads, so that a vocabulary takes several steps and 4096 classes one
//   shared     32 numbers, where the warps' maxima and sums meet
//   reads      x once, 16 bytes a load where all rows begin at a multiple of 16 bytes
//   needs      contiguous arrays, S = 1
//   over warp  rows of any length in one pass: maximum and sum together (Online), loss and lse at its end, and no array
//              of probabilities
template <int UNIT>
__device__ __forceinline__ Costs block_costs(const Block& group, const real* x, const real* w, int C, int parts) {
    Segment part(C, parts, UNIT);
    Costs costs;
    costs.walk<UNIT>(group, x + part.begin, w ? w + part.offset * UNIT : w, part.units, 1);
    return costs;
}
extern "C" __global__ void __launch_bounds__(512, 1)
    cross_entropy_forward_block(real* __restrict__ loss, real* __restrict__ lse, const real* __restrict__ x,
                                const long long* __restrict__ target, const real* __restrict__ w, int C,
                                long long ignore, real hit, real spread, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    long long position = blockIdx.x, t = target[position];
    Costs costs = wide ? block_costs<LANES>(group, x, w, C, 1) : block_costs<1>(group, x, w, C, 1);
    real picked = t == ignore ? real(0) : x[position * C + t];  // not earlier: x need not wait for the target
    costs.gather(group);
    if (group.at == 0) write_loss(loss, lse, position, costs, picked, t, w, ignore, hit, spread);
}

// cross_entropy_grad_x_block: `parts` blocks a position, each with a segment of its classes, since nothing has to meet.
template <int UNIT>
__device__ __forceinline__ void grad_segment(const Factors& factors, real* gx, const real* x, const real* w, int C,
                                             int parts) {
    Segment part(C, parts, UNIT);
    Block group = whole_block(nullptr);
    factors.write<UNIT>(group, gx + part.begin, x + part.begin, w, part.offset * UNIT, part.units, 1);
}
extern "C" __global__ void __launch_bounds__(256, SMOOTH ? 2 : LONG / 256)
    cross_entropy_grad_x_block(real* __restrict__ gx, const real* __restrict__ gloss, const real* __restrict__ x,
                               const real* __restrict__ lse, const long long* __restrict__ target,
                               const real* __restrict__ w, const double* __restrict__ total, int C, int parts,
                               long long ignore, real hit, real spread, bool wide) {
    Factors factors(blockIdx.x / parts, gloss, lse, target, w, total, C, ignore, hit, spread);
    if (wide) grad_segment<LANES>(factors, gx, x, w, C, parts);
    else grad_segment<1>(factors, gx, x, w, C, parts);
}

// cross_entropy_forward_split
//
//   thread     STEP classes of the block's segment at a time
//   block      one of the `parts` segments of one position; 256 threads
//   shared     32 numbers
//   reads      x once
//   needs      contiguous arrays, S = 1, at most 256 parts
//   over block  few positions occupy all multiprocessors: a block leaves what its segment adds up, and a second kernel,
//               for which all is there, puts those of a position together
extern "C" __global__ void __launch_bounds__(256, 2)
    cross_entropy_forward_split(real* __restrict__ tops, double* __restrict__ sums, const real* __restrict__ x,
                                const real* __restrict__ w, long long C, int parts, bool wide) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    Costs costs = wide ? block_costs<LANES>(group, x, w, int(C), parts) : block_costs<1>(group, x, w, int(C), parts);
    costs.gather(group);
    if (group.at > 0) return;
    tops[blockIdx.x] = costs.row.m;
    sums += 3LL * blockIdx.x;
    sums[0] = costs.row.sum, sums[1] = costs.distance, sums[2] = costs.weight;
}

// cross_entropy_forward_split_write: as cross_entropy_forward_split, but a block has a position: each thread reads what
// one of its segments left, and what they add up to gives loss and lse.
extern "C" __global__ void __launch_bounds__(256, 2)
    cross_entropy_forward_split_write(real* __restrict__ loss, real* __restrict__ lse, const real* __restrict__ x,
                                      const long long* __restrict__ target, const real* __restrict__ w,
                                      const real* __restrict__ tops, const double* __restrict__ sums, int C, int parts,
                                      long long ignore, real hit, real spread) {
    __shared__ double scratch[32];
    Block group = whole_block(scratch);
    long long position = blockIdx.x, t = target[position], at = position * parts + group.at;
    Costs costs;
    if (group.at < parts) {
        costs.row.m = tops[at], costs.row.sum = sums[3 * at];
        costs.distance = sums[3 * at + 1], costs.weight = sums[3 * at + 2];
    }
    costs.gather(group);
    real picked = t == ignore ? real(0) : x[position * C + t];
    if (group.at == 0) write_loss(loss, lse, position, costs, picked, t, w, ignore, hit, spread);
}
