// Philox4x32-10: four random words from a counter and a key. #include "common/philox.cuh"
//
// The same words as those of kernels/common/philox.py, where a round is drawn and the source is given.
#pragma once

// A stream of words: seed and op as halves of 32 bits. The low halves are the key, the high ones stand in the counter.
struct Stream {
    unsigned seed_low, seed_high, op_low, op_high;
};

struct Words {
    unsigned v[4];

    // Word number m of the stream, where these four are block m / 4 of it. Selects keep them in registers.
    __device__ __forceinline__ unsigned operator[](unsigned long long m) const {
        unsigned even = m & 2 ? v[2] : v[0], odd = m & 2 ? v[3] : v[1];
        return m & 1 ? odd : even;
    }
};

// Words 4 * block to 4 * block + 3 of a stream.
__device__ __forceinline__ Words philox(unsigned long long block, const Stream& stream) {
    constexpr unsigned M0 = 0xD2511F53u, M1 = 0xCD9E8D57u;  // multipliers
    constexpr unsigned W0 = 0x9E3779B9u, W1 = 0xBB67AE85u;  // what the key grows by
    unsigned c0 = static_cast<unsigned>(block), c1 = static_cast<unsigned>(block >> 32);
    unsigned c2 = stream.seed_high, c3 = stream.op_high, k0 = stream.seed_low, k1 = stream.op_low;
#pragma unroll 5  // of all ten the keys would be kept in registers: they are the same for every block
    for (int round = 0; round < 10; ++round) {
        unsigned long long p0 = static_cast<unsigned long long>(M0) * c0;
        unsigned long long p1 = static_cast<unsigned long long>(M1) * c2;
        c0 = static_cast<unsigned>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<unsigned>(p1);
        c2 = static_cast<unsigned>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<unsigned>(p0);
        k0 += W0;
        k1 += W1;
    }
    return {{c0, c1, c2, c3}};
}
