"""Kernels of log_softmax: y = x - log(sum of exp(x)) along one axis, the logarithm of softmax.

Entries, with axis an integer from 0 to ndim - 1:
    log_softmax.forward   x -> y
    log_softmax.grad_x    gy, y -> gx; all of one shape, with at least one axis

Formula:
    With m the largest x of a row (a row: the elements along the axis), y = (x - m) - log(sum of exp(x - m)). The sum is
    between 1 and the length of the row, so its logarithm is small, and a common offset of the x is gone before it is
    added. log(softmax(x)) would lose every y below the logarithm of the smallest number.

Gradient:
    gx = gy - exp(y) * sum along the axis of gy. It reads y, so x need not be kept.

Rules:
    - -inf among other numbers gives -inf. A row of nothing but -inf, or with inf or NaN in it, is NaN throughout.
    - An axis of size 0 gives an empty y.

Work:
    5 flop an element forward (comparison, two differences, exp, sum), 4 backward, every array once.
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
    "log_softmax.forward": "logarithms of the softmax along an axis",
    "log_softmax.grad_x": "the gradient of x: gy - exp(y) * sum of gy",
}


def work(entry: str, *arrays, axis: int) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    flops = (5 if entry == "log_softmax.forward" else 4) * prod(x.shape)
    return Work(flops, sum(array_bytes(a.shape, a.dtype) for a in arrays), array_bytes(x.shape, x.dtype))
