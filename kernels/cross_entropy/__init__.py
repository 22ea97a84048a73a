"""Kernels of cross_entropy: -log of the softmax of x at the target class, at every position.

Entries; S is the product of all axes behind the classes, 1 when there are none:
    cross_entropy.forward   x (N, C, S), target (N, S) int64, w (C,) or None -> loss (N, S), lse (N, S)
    cross_entropy.grad_x    gloss (N, S), x, lse, target, w or None -> gx (N, C, S)

    Both take ignore_index, an integer, and label_smoothing, a number e from 0 to 1. None stands for w = 1.

Formula, at one position with target t:
    lse  = log of the sum over c of exp(x[c]), taken as m + log of the sum of exp(x[c] - m) with m the largest x[c]
    loss = (1 - e) * w[t] * (lse - x[t]) + e / C * (sum over c of w[c] * (lse - x[c]))

    Softmax, logarithm, choice of the class and smoothing in one pass: no array of probabilities leaves the kernel.

Gradient; p[c] = exp(x[c] - lse) is the softmax, W the sum of w:
    gx[c] = gloss * ((1 - e) * w[t] * (p[c] - [c = t]) + e / C * (W * p[c] - w[c]))

Rules:
    - Where target = ignore_index, the loss and the gradient are exactly 0, whatever x holds there. Elsewhere targets
      lie in 0 .. C-1, which the op has checked.
    - A class with x = -inf has p = 0; as a target, or with e > 0, it costs inf. A position of nothing but -inf, or with
      inf or NaN in it, gives NaN.
    - loss is computed from x - m, so a common offset of the x costs no digits; lse carries it, and p has the relative
      error of lse's rounding.

Work:
    4 flop an element of x forward (comparison, difference, exp, sum) and 3 backward (difference, exp, product), with
    label smoothing 2 more in each; every array once.

Source:
    Label smoothing: Szegedy and others, "Rethinking the Inception architecture", 2015, section 7.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread takes one position, in a pass for the maximum and one for the sums",
    "coalesced": "neighbouring threads, or lanes of the processor's vectors, take neighbouring positions where axes "
    "follow the classes, in one pass",
    "warp": "lanes of a warp share the few classes of a position and keep them in registers, 16 bytes a load",
    "block": "a block takes a position's many classes in one pass, maximum and sum together, 16 bytes a load",
    "split": "several blocks share each of a few positions, and a second kernel puts their sums together",
    "vectorised": "a vector takes neighbouring classes of a position, which stay in the cache; for the processor",
}

ENTRIES: dict[str, str] = {
    "cross_entropy.forward": "the loss of every position, and the logarithm of the sum of exponentials for backward",
    "cross_entropy.grad_x": "the gradient of x: softmax minus the target, weighted",
}


def work(entry: str, *arrays, ignore_index: int, label_smoothing: float) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    forward = entry == "cross_entropy.forward"
    x = arrays[0] if forward else arrays[1]
    N, _, S = x.shape
    flops = ((4 if forward else 3) + (2 if label_smoothing else 0)) * prod(x.shape)
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays if a is not None)
    written = 2 * array_bytes((N, S), x.dtype) if forward else array_bytes(x.shape, x.dtype)
    return Work(flops, read, written)
