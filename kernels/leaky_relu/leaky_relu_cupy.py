"""leaky_relu on CUDA C++: launchers of leaky_relu.cu, for a GPU and for sim."""
# op: gpunet/ops/leaky_relu.py

from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"leaky_relu": [{}]}


@kernel("leaky_relu.forward", backend="cupy", variant="plain", when=lambda x, *, negative_slope: is_real(x))
def leaky_relu_forward_plain(x, *, negative_slope):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("leaky_relu", x).leaky_relu_forward_plain(
        (cdiv(x.size, THREADS),), (THREADS,), (y, x, x.size, negative_slope)
    )
    return y


@kernel("leaky_relu.grad_x", backend="cupy", variant="plain", when=lambda gy, x, *, negative_slope: is_real(gy, x))
def leaky_relu_grad_x_plain(gy, x, *, negative_slope):
    """One thread an element."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    kernels("leaky_relu", x).leaky_relu_grad_x_plain(
        (cdiv(x.size, THREADS),), (THREADS,), (gx, gy, x, x.size, negative_slope)
    )
    return gx


@kernel("leaky_relu.forward", backend="cupy", variant="vectorised", when=lambda x, *, negative_slope: is_wide(x))
def leaky_relu_forward_vectorised(x, *, negative_slope):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("leaky_relu", x).leaky_relu_forward_vectorised((_blocks(x),), (THREADS,), (y, x, x.size, negative_slope))
    return y


@kernel("leaky_relu.grad_x", backend="cupy", variant="vectorised", when=lambda gy, x, *, negative_slope: is_wide(gy, x))
def leaky_relu_grad_x_vectorised(gy, x, *, negative_slope):
    """As forward."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    kernels("leaky_relu", x).leaky_relu_grad_x_vectorised(
        (_blocks(x),), (THREADS,), (gx, gy, x, x.size, negative_slope)
    )
    return gx


def _blocks(x):
    """Blocks for a thread a pack, or as many as run at once."""
    return blocks_for(cdiv(x.nbytes, 16), x)
