"""Kernels of relu: y = max(x, 0), element by element.

Entries:
    relu.forward   x -> y
    relu.grad_x    gy, y -> gx; all of one shape

Gradient:
    gx = 0 where y <= 0, else gy. It reads y, so x need not be kept. At the kink, x = 0, the slope is 0.

Rules:
    - relu(NaN) is NaN, and there the gradient passes: NaN <= 0 is false.
    - relu(inf) = inf, relu(-inf) = 0. A gradient of inf or NaN on the flat side is dropped, not multiplied by 0.

Work:
    1 flop an element (the comparison), every array once: memory traffic is all there is to it.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one element",
    "vectorised": "one thread moves 16 bytes at once: fewer instructions and more bytes under way for the same traffic",
}

ENTRIES: dict[str, str] = {
    "relu.forward": "the larger of x and 0",
    "relu.grad_x": "the gradient of x: gy where y is not <= 0, else 0",
}


def work(entry: str, *arrays) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    return Work(flops=prod(x.shape), bytes_read=read, bytes_written=array_bytes(x.shape, x.dtype))
