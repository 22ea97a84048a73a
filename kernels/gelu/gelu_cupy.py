"""gelu on CUDA C++: launchers of gelu.cu, for a GPU and for sim."""
# op: gpunet/ops/gelu.py

from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, is_wide, kernels
from ..common.shapes import cdiv

BUILDS = {"gelu": [{}]}


@kernel("gelu.forward", backend="cupy", variant="plain", when=lambda x, *, approximate: is_real(x))
def gelu_forward_plain(x, *, approximate):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    _form("gelu_forward_plain", x, approximate)((cdiv(x.size, THREADS),), (THREADS,), (y, x, x.size))
    return y


@kernel("gelu.grad_x", backend="cupy", variant="plain", when=lambda gy, x, *, approximate: is_real(gy, x))
def gelu_grad_x_plain(gy, x, *, approximate):
    """One thread an element."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    _form("gelu_grad_x_plain", x, approximate)((cdiv(x.size, THREADS),), (THREADS,), (gx, gy, x, x.size))
    return gx


@kernel("gelu.forward", backend="cupy", variant="vectorised", when=lambda x, *, approximate: is_wide(x))
def gelu_forward_vectorised(x, *, approximate):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    _form("gelu_forward_vectorised", x, approximate)((_blocks(x),), (THREADS,), (y, x, x.size))
    return y


@kernel("gelu.grad_x", backend="cupy", variant="vectorised", when=lambda gy, x, *, approximate: is_wide(gy, x))
def gelu_grad_x_vectorised(gy, x, *, approximate):
    """As forward."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    _form("gelu_grad_x_vectorised", x, approximate)((_blocks(x),), (THREADS,), (gx, gy, x, x.size))
    return gx


def _form(name, x, approximate):
    """The kernel for one of the two forms."""
    return getattr(kernels("gelu", x), name if approximate == "none" else f"{name}_tanh")


def _blocks(x):
    """Blocks for a thread a pack, or as many as run at once."""
    return blocks_for(cdiv(x.nbytes, 16), x)
