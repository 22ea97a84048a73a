"""tanh on CUDA C++: launchers of tanh.cu, for a GPU and for sim."""
# op: gpunet/ops/tanh.py

from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"tanh": [{}]}


@kernel("tanh.forward", backend="cupy", variant="plain", when=is_real)
def tanh_forward_plain(x):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("tanh", x).tanh_forward_plain((cdiv(x.size, THREADS),), (THREADS,), (y, x, x.size))
    return y


@kernel("tanh.grad_x", backend="cupy", variant="plain", when=is_real)
def tanh_grad_x_plain(gy, y):
    """One thread an element."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    kernels("tanh", y).tanh_grad_x_plain((cdiv(y.size, THREADS),), (THREADS,), (gx, gy, y, y.size))
    return gx


@kernel("tanh.forward", backend="cupy", variant="vectorised", when=is_wide)
def tanh_forward_vectorised(x):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("tanh", x).tanh_forward_vectorised((_blocks(x),), (THREADS,), (y, x, x.size))
    return y


@kernel("tanh.grad_x", backend="cupy", variant="vectorised", when=is_wide)
def tanh_grad_x_vectorised(gy, y):
    """As forward."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    kernels("tanh", y).tanh_grad_x_vectorised((_blocks(y),), (THREADS,), (gx, gy, y, y.size))
    return gx


def _blocks(x):
    """Blocks for a thread a pack, or as many as run at once."""
    return blocks_for(cdiv(x.nbytes, 16), x)
