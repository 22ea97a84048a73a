"""relu on CUDA C++: launchers of relu.cu, for a GPU and for sim."""
# op: gpunet/ops/relu.py

from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, is_wide, kernels
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


@kernel("relu.forward", backend="cupy", variant="vectorised", when=is_wide)
def relu_forward_vectorised(x):
    """One thread 16 bytes; the rest behind the last 16 goes to the first threads."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernels("relu", x).relu_forward_vectorised((_packs(x),), (THREADS,), (y, x, x.size))
    return y


@kernel("relu.grad_x", backend="cupy", variant="vectorised", when=is_wide)
def relu_grad_x_vectorised(gy, y):
    """One thread 16 bytes."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    kernels("relu", y).relu_grad_x_vectorised((_packs(y),), (THREADS,), (gx, gy, y, y.size))
    return gx


def _packs(x):
    """Blocks for one thread per 16 bytes, the last of them perhaps not full."""
    return cdiv(cdiv(x.nbytes, 16), THREADS)
