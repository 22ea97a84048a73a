"""Kernels of dropout: y = x * d, where d is 0 with probability p and 1 / (1 - p) otherwise.

Entries, with p in [0, 1], the integers seed and op (0 .. 2**64-1) and span >= 1:
    dropout.forward   x -> y, of x's shape

    Its gradient is the same entry on gy with the same seed and op: gx = gy * d. Nothing is stored.

The mask:
    d is a pure function of (seed, op, element), so that every backend drops the same elements, whatever its number of
    threads, and backward draws the mask again instead of keeping it.

        element e, in row order       e = 0 .. size-1
        mask m = e // span            span = 1: every element its own; span = H * W: whole channels of an image
        word = Philox word m % 4 of block m // 4          kernels/common/philox.py
        dropped where word < min(round(p * 2**32), 2**32)

    The key of Philox is (low half of seed, low half of op), its counter (low half of the block's number, high half
    of it, high half of seed, high half of op). p is thereby rounded to a multiple of 2**-32.

Rules:
    - Dropped elements are multiplied by 0, so a dropped inf or NaN is NaN, and -1 becomes -0.
    - p = 0 keeps everything as it is; p = 1 multiplies everything by 0.
    - The mask depends neither on the dtype nor on the strides of x.

Work:
    1 flop an element; x and y once. The words cost about 25 integer operations each, which is no flop and no traffic,
    but does take time where memory is fast.

Source:
    Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, "Dropout", JMLR 15, 2014; scaled in training.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one element, and the four random words that its own is among",
    "vectorised": "one thread moves 16 bytes at once and has two of them under way, and uses all four words of a draw; "
    "on the processor vectors draw for neighbouring blocks of four words",
}

ENTRIES: dict[str, str] = {
    "dropout.forward": "x with a random share p of its elements, or spans of elements, set to 0 and the rest scaled up",
}


def work(entry: str, *arrays, p: float, seed: int, op: int, span: int = 1) -> Work:
    """Flops and bytes of one call."""
    (x,) = arrays
    return Work(prod(x.shape), array_bytes(x.shape, x.dtype), array_bytes(x.shape, x.dtype))
