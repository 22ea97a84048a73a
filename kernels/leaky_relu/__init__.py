"""Kernels of leaky_relu: y = x where x > 0, else negative_slope * x, element by element.

Entries, with the number negative_slope:
    leaky_relu.forward   x -> y
    leaky_relu.grad_x    gy, x -> gx; all of one shape

Gradient:
    gx = gy where x > 0, else negative_slope * gy. It needs x, since y does not tell the sides apart when the slope is
    negative or 0. At the kink, x = 0, the slope is negative_slope.

Rules:
    - NaN takes the second branch and stays NaN; so does -inf, and 0 * -inf is NaN when negative_slope is 0.

Work:
    2 flop an element (comparison, product), every array once.
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
    "leaky_relu.forward": "x where it is positive, else negative_slope * x",
    "leaky_relu.grad_x": "the gradient of x: gy where x is positive, else negative_slope * gy",
}


def work(entry: str, *arrays, negative_slope: float) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    return Work(flops=2 * prod(x.shape), bytes_read=read, bytes_written=array_bytes(x.shape, x.dtype))
