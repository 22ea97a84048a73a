"""softplus on CUDA C++: launchers of softplus.cu, for a GPU and for sim."""
# op: gpunet/ops/softplus.py

from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"softplus": [{}]}


@kernel("softplus.forward", backend="cupy", variant="plain", when=lambda x, *, beta, threshold: is_real(x))
def softplus_forward_plain(x, *, beta, threshold):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("softplus", x).softplus_forward_plain((cdiv(x.size, THREADS),), (THREADS,), (y, x, x.size, beta, threshold))
    return y


@kernel("softplus.grad_x", backend="cupy", variant="plain", when=lambda gy, x, *, beta, threshold: is_real(gy, x))
def softplus_grad_x_plain(gy, x, *, beta, threshold):
    """One thread an element."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    kernels("softplus", x).softplus_grad_x_plain(
        (cdiv(x.size, THREADS),), (THREADS,), (gx, gy, x, x.size, beta, threshold)
    )
    return gx


@kernel("softplus.forward", backend="cupy", variant="vectorised", when=lambda x, *, beta, threshold: is_wide(x))
def softplus_forward_vectorised(x, *, beta, threshold):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("softplus", x).softplus_forward_vectorised((_blocks(x),), (THREADS,), (y, x, x.size, beta, threshold))
    return y


@kernel("softplus.grad_x", backend="cupy", variant="vectorised", when=lambda gy, x, *, beta, threshold: is_wide(gy, x))
def softplus_grad_x_vectorised(gy, x, *, beta, threshold):
    """As forward."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    kernels("softplus", x).softplus_grad_x_vectorised((_blocks(x),), (THREADS,), (gx, gy, x, x.size, beta, threshold))
    return gx


def _blocks(x):
    """Blocks for a thread a pack, or as many as run at once."""
    return blocks_for(cdiv(x.nbytes, 16), x)
