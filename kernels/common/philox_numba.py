"""Philox4x32-10 on Numba-CUDA, philox.cuh in Python: four random words from a counter and a key.

The same words as those of kernels/common/philox.py, where a round is drawn and the source is given.
"""

import numpy as np

from gpunet.cuda import jit

from .philox import HALF, M0, M1, W0, W1

W0_64, W1_64 = np.uint64(W0), np.uint64(W1)


@jit.device
def grown(key, by):
    """The key of the next round: a 32-bit sum. That of two 64-bit numbers loses nothing before it is cut."""
    return np.uint32(np.uint64(key) + by & np.uint64(0xFFFFFFFF))


@jit.device
def philox(block, stream):
    """Words 4 * block to 4 * block + 3 of a stream.

    The stream is (seed_low, seed_high, op_low, op_high), its seed and op as halves of 32 bits: the low halves are the
    key, the high ones stand in the counter.
    """
    seed_low, seed_high, op_low, op_high = stream
    c0, c1 = np.uint32(block & 0xFFFFFFFF), np.uint32(block >> 32)
    c2, c3, k0, k1 = seed_high, op_high, seed_low, op_low
    for _ in range(10):
        p0, p1 = M0 * np.uint64(c0), M1 * np.uint64(c2)
        c0, c1 = np.uint32(p1 >> HALF) ^ c1 ^ k0, np.uint32(p1 & np.uint64(0xFFFFFFFF))
        c2, c3 = np.uint32(p0 >> HALF) ^ c3 ^ k1, np.uint32(p0 & np.uint64(0xFFFFFFFF))
        k0, k1 = grown(k0, W0_64), grown(k1, W1_64)
    return c0, c1, c2, c3


@jit.device
def word_of(words, m):
    """Word number m of the stream, where these four are block m // 4 of it. Selects keep them in registers."""
    even = words[2] if m & 2 else words[0]
    odd = words[3] if m & 2 else words[1]
    return odd if m & 1 else even
