"""Kernels of softplus: y = log(1 + exp(beta * x)) / beta, a smooth relu, element by element.

Entries, with the numbers beta and threshold:
    softplus.forward   x -> y
    softplus.grad_x    gy, x -> gx; all of one shape

Formula:
    With z = beta * x, log(1 + exp(z)) = max(z, 0) + log1p(exp(-abs(z))): exp gets nothing above 0, and log1p keeps the
    digits of small results. Where z > threshold, y = x: the difference, exp(-z) / beta, is then below any interest.

Gradient:
    gx = gy * sigmoid(z), and gy itself where z > threshold.

Rules:
    - softplus(inf) = inf, softplus(-inf) = 0, softplus(NaN) = NaN, for beta > 0.

Work:
    8 flop an element forward (exp and log count as one), 6 backward, every array once.
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
    "softplus.forward": "log(1 + exp(beta * x)) / beta, and x above the threshold",
    "softplus.grad_x": "the gradient of x: gy * sigmoid(beta * x), and gy above the threshold",
}


def work(entry: str, *arrays, beta: float, threshold: float) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    return Work(
        flops=(8 if entry == "softplus.forward" else 6) * prod(x.shape),
        bytes_read=read,
        bytes_written=array_bytes(x.shape, x.dtype),
    )
