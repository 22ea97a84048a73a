"""Kernels of sigmoid: y = 1 / (1 + exp(-x)), element by element.

Entries:
    sigmoid.forward   x -> y
    sigmoid.grad_x    gy, y -> gx; all of one shape

Formula:
    As it stands. exp(-x) overflows to inf below x = -88 in float32 and -709 in float64, where y = 1 / inf = 0 is right:
    the exact value is below the smallest normal number. Small y keep all their digits, as 1 + exp(-x) does not cancel.

Gradient:
    gx = gy * y * (1 - y). It reads y, so x need not be kept.

Rules:
    - sigmoid(inf) = 1, sigmoid(-inf) = 0, sigmoid(NaN) = NaN.

Work:
    4 flop forward (sign, exp, sum, quotient), 3 backward, every array once.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one element",
    "vectorised": "one thread moves 16 bytes at once and has two of them under way, in a grid as large as the GPU; on "
    "the processor the compiler turns the loop over a task's elements into vectors",
}

ENTRIES: dict[str, str] = {
    "sigmoid.forward": "1 / (1 + exp(-x))",
    "sigmoid.grad_x": "the gradient of x: gy * y * (1 - y)",
}


def work(entry: str, *arrays) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    return Work(
        flops=(4 if entry == "sigmoid.forward" else 3) * prod(x.shape),
        bytes_read=read,
        bytes_written=array_bytes(x.shape, x.dtype),
    )
