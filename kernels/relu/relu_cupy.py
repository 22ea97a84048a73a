"""relu on CUDA C++: launchers of relu.cu, for a GPU and for sim."""
# op: gpunet/ops/relu.py

from gpunet import cuda
from gpunet.dispatch import kernel

from ..common.launching import THREADS, contiguous, empty, is_real, kernels
from ..common.shapes import cdiv


def is_wide(*arrays):
    """Whether the arrays are float32 or float64 and begin at a multiple of 16 bytes."""
    real = is_real(*arrays)
    if real is not True:
        return real
    shifted = [each.flags.c_contiguous and cuda.address(each) % 16 for each in arrays]
    return not any(shifted) or "it needs arrays that begin at a multiple of 16 bytes"


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
