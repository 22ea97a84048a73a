"""Philox4x32-10: random words from a counter, without a state to carry along.

A block cipher of 10 rounds takes a counter of four 32-bit words and a key of two, and gives four words that pass every
known test of randomness. Word number m of a stream is word m % 4 of block m // 4, so any part of a stream can be
computed alone, in any order, on any device, and comes out the same. One round, all words 32 bits::

    c0  c1  c2  c3                hi, lo: the halves of the 64-bit products  hi0:lo0 = M0 * c0  and  hi1:lo1 = M1 * c2
    |                             k0, k1: the key; before each further round it grows by the odd constants W0, W1
    v
    hi1^c1^k0  lo1  hi0^c3^k1  lo0

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3. The
constants are those of table 2 there; the three published known answers hold (tests/test_dropout.py).
"""

import numpy as np

M0, M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)  # multipliers
W0, W1 = 0x9E3779B9, 0xBB67AE85  # golden ratio and sqrt(3) - 1, as fractions of 2**32
MASK = 0xFFFFFFFF
HALF = np.uint64(32)
LOW = np.uint64(MASK)


def philox4x32_10(counter, key):
    """Four random words for each counter.

    Args:
        counter: four words, c0 to c3, each an integer or an integer array, 0 .. 2**32-1; they broadcast.
        key: two integers, 0 .. 2**32-1.

    Returns:
        uint32 array of the counters' broadcast shape and one more axis of length 4.
    """
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in counter)
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * M0, c2 * M1  # below 2**64: nothing is lost
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ np.uint64(k0), p1 & LOW, (p0 >> HALF) ^ c3 ^ np.uint64(k1), p0 & LOW
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    words = np.empty((*np.broadcast_shapes(c0.shape, c1.shape, c2.shape, c3.shape), 4), np.uint32)
    for i, c in enumerate((c0, c1, c2, c3)):
        words[..., i] = c
    return words


def stream_words(first_block, blocks, *, seed, op):
    """The 4 * blocks words of stream (seed, op) from block ``first_block`` on, as one uint32 vector.

    Args:
        first_block: 0 .. 2**64-1.
        blocks: how many blocks, of four words each.
        seed: 0 .. 2**64-1; its low half is in the key, its high half in the counter.
        op: 0 .. 2**64-1, the number of the stream under this seed; divided likewise.
    """
    number = np.arange(blocks, dtype=np.uint64) + np.uint64(first_block)
    counter = (number & LOW, number >> HALF, seed >> 32 & MASK, op >> 32 & MASK)
    return philox4x32_10(counter, (seed & MASK, op & MASK)).reshape(-1)
