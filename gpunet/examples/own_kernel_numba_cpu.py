"""A kernel of your own in Python, compiled for the processor by Numba: gelu in one pass over memory.

The definition writes a new array for each step of the formula. Compiled by Numba, a plain loop reads x once and writes
y once. ``when`` says which calls the kernel takes: this one knows erf, not the form with tanh::

    $ python -m gpunet.examples.own_kernel_numba_cpu
    gelu.forward/numpy/reference: 19.3 ms for 1,000,000 numbers
    gelu.forward/numba_cpu/one_pass: 8.04 ms for 1,000,000 numbers

    $ gpunet check gpunet/examples/own_kernel_numba_cpu.py
    $ gpunet bench gpunet/examples/own_kernel_numba_cpu.py
"""

import math
import timeit

import numba
import numpy as np

import gpunet as gn
from gpunet import functional as F

SQRT_HALF = math.sqrt(0.5)


@numba.njit
def one_pass(x, y):
    """y = x * Phi(x) on flat arrays."""
    for i in range(x.size):
        y[i] = x[i] * (0.5 * (1 + math.erf(x[i] * SQRT_HALF)))


@gn.kernel(
    "gelu.forward",
    backend="numba_cpu",
    variant="one_pass",
    when=lambda x, *, approximate: approximate == "none" or "it computes gelu with erf, not with tanh",
)
def gelu_forward_one_pass(x, *, approximate):
    """A launcher is a plain function: it makes the output, and calls what was compiled."""
    y = np.empty(x.shape, x.dtype)
    one_pass(np.ascontiguousarray(x).reshape(-1), y.reshape(-1))
    return y


def main(size: int = 1_000_000, repeats: int = 5) -> dict[str, float]:
    """Runs the definition and the kernel and prints; returns variant -> shortest time in seconds."""
    gn.manual_seed(0)
    x, times = gn.randn(size), {}
    for variant in ("reference", "one_pass"):
        with gn.use_variant("gelu.forward", variant), gn.trace() as launches:
            times[variant] = min(timeit.repeat(lambda: F.gelu(x), number=1, repeat=repeats))  # the first compiles
        ran = launches[0]
        print(f"{ran.entry}/{ran.backend}/{ran.variant}: {1e3 * times[variant]:.3g} ms for {size:,} numbers")
    return times


if __name__ == "__main__":
    main()
