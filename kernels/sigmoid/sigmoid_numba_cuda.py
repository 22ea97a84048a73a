"""sigmoid on Numba-CUDA: the rungs of sigmoid.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/sigmoid.py

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.elementwise_numba import (
    blocks_of,
    blocks_of_packs,
    exponential,
    over_packs,
    over_two_packs,
)
from ..common.launching import contiguous, empty, is_real, is_wide


def sigmoid(real):
    """Of one number: exp(-x) may overflow to inf, and then 1 / inf = 0 is right."""
    one = real(1)

    @jit.device
    def value(x, _):
        return one / (one + exponential(-x))

    return value


def sloped(real):
    """The gradient, of two numbers."""
    one = real(1)

    @jit.device
    def value(gy, y, _):
        return gy * y * (one - y)

    return value


@jit.typed
def sigmoid_forward_plain_kernel(real):
    """One thread one element."""
    value = sigmoid(real)

    def forward(y, x, size):
        i = cuda.grid(1)
        if i < size:
            y[i] = value(x[i], ())

    return forward


@kernel("sigmoid.forward", backend="numba_cuda", variant="plain", when=is_real)
def sigmoid_forward_plain(x):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    sigmoid_forward_plain_kernel(x)(blocks_of(x), (THREADS,), (y, x, x.size))
    return y


@jit.typed
def sigmoid_grad_x_plain_kernel(real):
    """One thread one element."""
    value = sloped(real)

    def grad_x(gx, gy, y, size):
        i = cuda.grid(1)
        if i < size:
            gx[i] = value(gy[i], y[i], ())

    return grad_x


@kernel("sigmoid.grad_x", backend="numba_cuda", variant="plain", when=is_real)
def sigmoid_grad_x_plain(gy, y):
    """One thread an element."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    sigmoid_grad_x_plain_kernel(y)(blocks_of(y), (THREADS,), (gx, gy, y, y.size))
    return gx


@jit.typed
def sigmoid_forward_vectorised_kernel(real):
    """One thread two packs of 16 bytes at a time, in steps of the grid."""
    walk = over_packs(real, sigmoid(real))

    def forward(y, x, size):
        walk(y, x, size, ())

    return forward


@kernel("sigmoid.forward", backend="numba_cuda", variant="vectorised", when=is_wide)
def sigmoid_forward_vectorised(x):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    sigmoid_forward_vectorised_kernel(x)(blocks_of_packs(x), (THREADS,), (y, x, x.size))
    return y


@jit.typed
def sigmoid_grad_x_vectorised_kernel(real):
    """As forward, with gy and y read and gx written."""
    walk = over_two_packs(real, sloped(real))

    def grad_x(gx, gy, y, size):
        walk(gx, gy, y, size, ())

    return grad_x


@kernel("sigmoid.grad_x", backend="numba_cuda", variant="vectorised", when=is_wide)
def sigmoid_grad_x_vectorised(gy, y):
    """As forward."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    sigmoid_grad_x_vectorised_kernel(y)(blocks_of_packs(y), (THREADS,), (gx, gy, y, y.size))
    return gx
