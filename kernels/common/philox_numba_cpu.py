"""Philox4x32-10 in compiled loops: the words of kernels/common/philox.py, drawn wherever they are needed.

Everything is 32 bits wide and kept in 64, so that a product is one instruction of the processor's vectors.
"""

import numpy as np

from gpunet.cpu.jit import compiled

from .philox import HALF, LOW, M0, M1, MASK, W0, W1

W0, W1 = np.uint64(W0), np.uint64(W1)


def key_of(seed: int, op: int) -> tuple[np.uint64, ...]:
    """What :func:`words_of` takes beside a block's number: the low and the high halves of seed and op."""
    return tuple(np.uint64(each) for each in (seed & MASK, op & MASK, seed >> 32 & MASK, op >> 32 & MASK))


@compiled(inline=True)
def words_of(block, key):
    """The four words of a block, 0 .. 2**64-1, of the stream with this key: uint64 below 2**32."""
    k0, k1, c2, c3 = key
    c0, c1 = block & LOW, block >> HALF
    for _ in range(10):
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & LOW, (p0 >> HALF) ^ c3 ^ k1, p0 & LOW
        k0, k1 = (k0 + W0) & LOW, (k1 + W1) & LOW
    return c0, c1, c2, c3
