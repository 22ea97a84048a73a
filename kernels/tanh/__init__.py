"""Kernels of tanh: y = (exp(x) - exp(-x)) / (exp(x) + exp(-x)), element by element.

Entries:
    tanh.forward   x -> y
    tanh.grad_x    gy, y -> gx; all of one shape

Gradient:
    gx = gy * (1 - y * y). It reads y, so x need not be kept.

Rules:
    - tanh(+-inf) = +-1, tanh(NaN) = NaN.

Work:
    1 flop forward (tanh counts as one), 3 backward, every array once.
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
    "tanh.forward": "the hyperbolic tangent",
    "tanh.grad_x": "the gradient of x: gy * (1 - y * y)",
}


def work(entry: str, *arrays) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    return Work(
        flops=(1 if entry == "tanh.forward" else 3) * prod(x.shape),
        bytes_read=read,
        bytes_written=array_bytes(x.shape, x.dtype),
    )
