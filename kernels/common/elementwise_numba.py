"""What the element-wise kernels share on Numba-CUDA: a walk over packs of 16 bytes, and functions of one number.

An op's formula is a device function ``value(x, numbers)`` of one number, or ``value(gy, x, numbers)`` of two; numbers
is what the op takes beside arrays, whatever it is: a slope, a tuple, () where there is nothing. The factories here make
of it what handles a pack, and what handles an array: the C++ kernels' loop, written once.
"""

import math

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.cuda.packs import load_pack, store_pack

from .launching import blocks_for
from .shapes import cdiv

#: of one number; NumPy's in the simulator: math's would refuse exp(1000), and turn a float32 into Python's float
exponential, log_1p, hyperbolic_tangent = (
    (np.exp, np.log1p, np.tanh) if jit.SIMULATED else (math.exp, math.log1p, math.tanh)
)
error_function = math.erf


def lanes_of(real):
    """Elements in 16 bytes: 4 floats or 2 doubles."""
    return 16 // np.dtype(real).itemsize


def on_pack(real, value):
    """``value`` for each element of a pack."""
    if lanes_of(real) == 2:

        @jit.device
        def pack(x, numbers):
            return value(x[0], numbers), value(x[1], numbers)
    else:

        @jit.device
        def pack(x, numbers):
            return value(x[0], numbers), value(x[1], numbers), value(x[2], numbers), value(x[3], numbers)

    return pack


def on_two_packs(real, value):
    """``value`` for each pair of elements of two packs."""
    if lanes_of(real) == 2:

        @jit.device
        def pack(gy, x, numbers):
            return value(gy[0], x[0], numbers), value(gy[1], x[1], numbers)
    else:

        @jit.device
        def pack(gy, x, numbers):
            return (
                value(gy[0], x[0], numbers),
                value(gy[1], x[1], numbers),
                value(gy[2], x[2], numbers),
                value(gy[3], x[3], numbers),
            )

    return pack


def over_packs(real, value):
    """The walk y = value(x, numbers).

    A thread takes every so many packs, two at a time, until there are none left; the first threads of the grid also
    take one element each of the rest behind the last pack.
    """
    LANES, pack = lanes_of(real), on_pack(real, value)

    @jit.device
    def walk(y, x, size, numbers):
        first, step = cuda.grid(1), cuda.gridsize(1)
        packs = size // LANES
        p = first
        while p + step < packs:
            one, two = load_pack(x, p), load_pack(x, p + step)
            store_pack(y, p, pack(one, numbers))
            store_pack(y, p + step, pack(two, numbers))
            p += 2 * step
        if p < packs:
            store_pack(y, p, pack(load_pack(x, p), numbers))
        rest = packs * LANES + first
        if rest < size:
            y[rest] = value(x[rest], numbers)

    return walk


def over_two_packs(real, value):
    """The walk gx = value(gy, x, numbers), as over_packs."""
    LANES, pack = lanes_of(real), on_two_packs(real, value)

    @jit.device
    def walk(gx, gy, x, size, numbers):
        first, step = cuda.grid(1), cuda.gridsize(1)
        packs = size // LANES
        p = first
        while p + step < packs:
            one, x_one = load_pack(gy, p), load_pack(x, p)
            two, x_two = load_pack(gy, p + step), load_pack(x, p + step)
            store_pack(gx, p, pack(one, x_one, numbers))
            store_pack(gx, p + step, pack(two, x_two, numbers))
            p += 2 * step
        if p < packs:
            store_pack(gx, p, pack(load_pack(gy, p), load_pack(x, p), numbers))
        rest = packs * LANES + first
        if rest < size:
            gx[rest] = value(gy[rest], x[rest], numbers)

    return walk


def blocks_of(x):
    """Blocks for a thread an element."""
    return (cdiv(x.size, THREADS),)


def blocks_of_packs(x):
    """Blocks for a thread a pack, or as many as run at once."""
    return (blocks_for(cdiv(x.nbytes, 16), x, THREADS),)
