"""adaptive_max_pool2d on CUDA C++: launchers of adaptive_max_pool2d.cu, for a GPU and for sim."""
# op: gpunet/ops/adaptive_max_pool2d.py

from math import prod

import numpy as np

from gpunet.dispatch import kernel

from ..adaptive_avg_pool2d.adaptive_avg_pool2d_cupy import in_32_bits, lanes_for, lanes_forward, lanes_pay, plain
from ..common.launching import THREADS, contiguous, empty, kernels
from ..common.shapes import cdiv

BUILDS = {"adaptive_max_pool2d": [{}]}


def packs_grad_x(gy, index, *, input_size):
    """Whether 32-bit indices reach everything."""
    return in_32_bits(gy, input_size, gy.shape[2:])


@kernel("adaptive_max_pool2d.forward", backend="cupy", variant="plain", when=plain)
def adaptive_max_pool2d_forward_plain(x, *, output_size):
    """One thread an output."""
    x, y, index = _outputs(x, output_size)
    run = kernels("adaptive_max_pool2d", x).adaptive_max_pool2d_forward_plain
    run((cdiv(y.size, THREADS),), (THREADS,), (y, index, x, y.size, *x.shape[2:], *output_size))
    return y, index


@kernel("adaptive_max_pool2d.forward", backend="cupy", variant="lanes", when=lanes_forward, pays=lanes_pay)
def adaptive_max_pool2d_forward_lanes(x, *, output_size):
    """A group of lanes, or a block, one output."""
    x, y, index = _outputs(x, output_size)
    lanes = lanes_for(x.shape[2:], output_size)
    run = kernels("adaptive_max_pool2d", x).adaptive_max_pool2d_forward_lanes
    run((cdiv(y.size, THREADS // lanes),), (THREADS,), (y, index, x, y.size, *x.shape[2:], *output_size, lanes))
    return y, index


@kernel("adaptive_max_pool2d.grad_x", backend="cupy", variant="plain", when=plain)
def adaptive_max_pool2d_grad_x_plain(gy, index, *, input_size):
    """One thread a pixel."""
    gy, index, gx = contiguous(gy), contiguous(index), empty((*gy.shape[:2], *input_size), gy)
    run = kernels("adaptive_max_pool2d", gy).adaptive_max_pool2d_grad_x_plain
    run((cdiv(gx.size, THREADS),), (THREADS,), (gx, gy, index, gx.size, *input_size, *gy.shape[2:]))
    return gx


@kernel("adaptive_max_pool2d.grad_x", backend="cupy", variant="packs", when=packs_grad_x)
def adaptive_max_pool2d_grad_x_packs(gy, index, *, input_size):
    """One thread 16 bytes of the gradient."""
    gy, index, gx = contiguous(gy), contiguous(index), empty((*gy.shape[:2], *input_size), gy)
    run = kernels("adaptive_max_pool2d", gy).adaptive_max_pool2d_grad_x_packs
    run((cdiv(cdiv(gx.nbytes, 16), THREADS),), (THREADS,), (gx, gy, index, gx.size, *input_size, *gy.shape[2:]))
    return gx


@kernel("adaptive_max_pool2d.gather", backend="cupy", variant="plain", when=plain)
def adaptive_max_pool2d_gather_plain(x, index):
    """One thread an output."""
    x, index = contiguous(x), contiguous(index)
    y = empty(index.shape, x)
    run = kernels("adaptive_max_pool2d", x).adaptive_max_pool2d_gather_plain
    run((cdiv(y.size, THREADS),), (THREADS,), (y, x, index, y.size, prod(x.shape[2:]), prod(index.shape[2:])))
    return y


def _outputs(x, output_size):
    """x in C order, and room for y and index."""
    shape = (*x.shape[:2], *output_size)
    return contiguous(x), empty(shape, x), empty(shape, x, np.int64)
