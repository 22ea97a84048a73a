"""Kernels of gelu: y = x * Phi(x), Phi the distribution function of the standard normal, element by element.

Entries, with approximate "none" or "tanh":
    gelu.forward   x -> y
    gelu.grad_x    gy, x -> gx; all of one shape

Formula:
    none   Phi(x) = (1 + erf(x / sqrt(2))) / 2
    tanh   Phi(x) = (1 + tanh(u)) / 2 with u = sqrt(2 / pi) * (x + 0.044715 * x**3); at most 5e-4 from the first.
           Since (1 + tanh(u)) / 2 = sigmoid(2 * u), it is computed so: 1 + tanh(u) cancels where u is negative.

Gradient:
    none   gx = gy * (Phi(x) + x * exp(-x**2 / 2) / sqrt(2 * pi))
    tanh   gx = gy * (s + 2 * x * s * (1 - s) * u'),  s = sigmoid(2 * u),  u' = sqrt(2 / pi) * (1 + 3 * 0.044715 * x**2)

Rules:
    - gelu(inf) = inf. gelu(-inf) is NaN (inf * 0), and so is the gradient at +-inf.
    - NaN stays NaN. The tanh gradient is also NaN where x**2 overflows: |x| above 1e19 in float32, 1e154 in float64.

Work:
    5 flop an element forward and 9 backward with "none", 9 and 17 with "tanh" (exp, erf and tanh count as one),
    every array once.

Source:
    Hendrycks and Gimpel, "Gaussian error linear units", 2016, section 2.
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
    "gelu.forward": "x times the normal distribution function of x, exact or by tanh",
    "gelu.grad_x": "the gradient of x: gy times the slope of that product",
}


def work(entry: str, *arrays, approximate: str) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    forward, grad_x = (5, 9) if approximate == "none" else (9, 17)
    return Work(
        flops=(forward if entry == "gelu.forward" else grad_x) * prod(x.shape),
        bytes_read=sum(array_bytes(a.shape, a.dtype) for a in arrays),
        bytes_written=array_bytes(x.shape, x.dtype),
    )
