"""Kernels of softmax: y = exp(x) / sum of exp(x) along one axis.

Entries, with axis an integer from 0 to ndim - 1:
    softmax.forward   x -> y
    softmax.grad_x    gy, y -> gx; all of one shape, with at least one axis

Formula:
    With m the largest x of a row (a row: the elements along the axis), y = exp(x - m) / sum of exp(x - m): the same
    number, and no exponent is above 0. The largest element adds 1 to the sum, which is therefore never 0.

Gradient:
    gx = y * (gy - sum along the axis of gy * y). It reads y, so x need not be kept.

Rules:
    - -inf among other numbers gives 0. A row of nothing but -inf, or with inf or NaN in it, is NaN throughout.
    - An axis of size 0 gives an empty y.

Work:
    5 flop an element forward (comparison, difference, exp, sum, quotient), 4 backward, every array once.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one row, in a pass for the maximum, one for the sum and one for the result",
    "coalesced": "neighbouring threads take neighbouring rows of an axis that is not the last, and a row has several; "
    "on the processor lanes of vectors do",
    "warp": "lanes of a warp share a short row and keep it in registers: it is read once, 16 bytes a load",
    "block": "a block shares a row, kept in registers up to 128 KB; longer ones give maximum and sum in one pass",
    "split": "several blocks share each of a few long rows, and a second kernel puts their sums together",
    "vectorised": "a vector takes neighbours in a row, which stays in the cache: a row at a time; for the processor",
}

ENTRIES: dict[str, str] = {
    "softmax.forward": "exponentials along an axis, scaled to a sum of 1",
    "softmax.grad_x": "the gradient of x: y * (gy - sum of gy * y)",
}


def work(entry: str, *arrays, axis: int) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    flops = (5 if entry == "softmax.forward" else 4) * prod(x.shape)
    return Work(flops, sum(array_bytes(a.shape, a.dtype) for a in arrays), array_bytes(x.shape, x.dtype))
