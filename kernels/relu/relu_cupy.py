"""relu on CUDA C++: launchers of relu.cu, for a GPU and for sim."""
# op: gpunet/ops/relu.py

import numpy as np

from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"relu": [{}]}


@kernel("relu.forward", backend="cupy", variant="plain", when=is_real)
def relu_forward_plain(x):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("relu", x).relu_forward_plain((cdiv(x.size, THREADS),), (THREADS,), (y, x, x.size))
    return y


@kernel("relu.grad_x", backend="cupy", variant="plain", when=is_real)
def relu_grad_x_plain(gy, y):
    """One thread an element."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    kernels("relu", y).relu_grad_x_plain((cdiv(y.size, THREADS),), (THREADS,), (gx, gy, y, y.size))
    return gx


@kernel("relu.forward_mask", backend="cupy", variant="plain", when=is_real)
def relu_forward_mask_plain(x):
    """One thread an element, one warp a word of the mask."""
    x = contiguous(x)
    y, mask = empty(x.shape, x), _words(x)
    kernels("relu", x).relu_forward_mask_plain((cdiv(x.size, THREADS),), (THREADS,), (y, mask, x, x.size))
    return y, mask


@kernel("relu.grad_x_mask", backend="cupy", variant="plain", when=is_real)
def relu_grad_x_mask_plain(gy, mask):
    """One thread an element."""
    gy, mask = contiguous(gy), contiguous(mask)
    gx = empty(gy.shape, gy)
    kernels("relu", gy).relu_grad_x_mask_plain((cdiv(gy.size, THREADS),), (THREADS,), (gx, gy, mask, gy.size))
    return gx


@kernel("relu.forward", backend="cupy", variant="vectorised", when=is_wide)
def relu_forward_vectorised(x):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("relu", x).relu_forward_vectorised((_blocks(x),), (THREADS,), (y, x, x.size))
    return y


@kernel("relu.grad_x", backend="cupy", variant="vectorised", when=is_wide)
def relu_grad_x_vectorised(gy, y):
    """As forward."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    kernels("relu", y).relu_grad_x_vectorised((_blocks(y),), (THREADS,), (gx, gy, y, y.size))
    return gx


@kernel("relu.forward_mask", backend="cupy", variant="vectorised", when=is_wide)
def relu_forward_mask_vectorised(x):
    """As forward; neighbouring lanes put the bits of their packs together."""
    x = contiguous(x)
    y, mask = empty(x.shape, x), _words(x)
    kernels("relu", x).relu_forward_mask_vectorised((_blocks(x),), (THREADS,), (y, mask, x, x.size))
    return y, mask


@kernel("relu.grad_x_mask", backend="cupy", variant="vectorised", when=is_wide)
def relu_grad_x_mask_vectorised(gy, mask):
    """As forward."""
    gy, mask = contiguous(gy), contiguous(mask)
    gx = empty(gy.shape, gy)
    kernels("relu", gy).relu_grad_x_mask_vectorised((_blocks(gy),), (THREADS,), (gx, gy, mask, gy.size))
    return gx


def _words(x):
    """A mask: a bit for each element of x."""
    return empty((cdiv(x.size, 32),), x, np.uint32)


def _blocks(x):
    """Blocks for a thread a pack, or as many as run at once."""
    return blocks_for(cdiv(x.nbytes, 16), x)
