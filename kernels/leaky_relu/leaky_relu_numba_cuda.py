"""leaky_relu on Numba-CUDA: the rungs of leaky_relu.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/leaky_relu.py
#
# Above 0 a value goes through, elsewhere slope times it does. A NaN is not above 0, and stays NaN.

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.elementwise_numba import blocks_of, blocks_of_packs, over_packs, over_two_packs
from ..common.launching import contiguous, empty, is_real, is_wide


def leaky(real):
    """Of one number."""
    zero = real(0)

    @jit.device
    def value(x, slope):
        return x if x > zero else slope * x

    return value


def leaked(real):
    """The gradient, of two numbers."""
    zero = real(0)

    @jit.device
    def value(gy, x, slope):
        return gy if x > zero else slope * gy

    return value


@jit.typed
def leaky_relu_forward_plain_kernel(real):
    """One thread one element."""
    value = leaky(real)

    def forward(y, x, size, slope):
        i = cuda.grid(1)
        if i < size:
            y[i] = value(x[i], slope)

    return forward


@kernel("leaky_relu.forward", backend="numba_cuda", variant="plain", when=lambda x, *, negative_slope: is_real(x))
def leaky_relu_forward_plain(x, *, negative_slope):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    run = leaky_relu_forward_plain_kernel(x)
    run(blocks_of(x), (THREADS,), (y, x, x.size, x.dtype.type(negative_slope)))
    return y


@jit.typed
def leaky_relu_grad_x_plain_kernel(real):
    """One thread one element."""
    value = leaked(real)

    def grad_x(gx, gy, x, size, slope):
        i = cuda.grid(1)
        if i < size:
            gx[i] = value(gy[i], x[i], slope)

    return grad_x


@kernel(
    "leaky_relu.grad_x", backend="numba_cuda", variant="plain", when=lambda gy, x, *, negative_slope: is_real(gy, x)
)
def leaky_relu_grad_x_plain(gy, x, *, negative_slope):
    """One thread an element."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    run = leaky_relu_grad_x_plain_kernel(x)
    run(blocks_of(x), (THREADS,), (gx, gy, x, x.size, x.dtype.type(negative_slope)))
    return gx


@jit.typed
def leaky_relu_forward_vectorised_kernel(real):
    """One thread two packs of 16 bytes at a time, in steps of the grid."""
    walk = over_packs(real, leaky(real))

    def forward(y, x, size, slope):
        walk(y, x, size, slope)

    return forward


@kernel("leaky_relu.forward", backend="numba_cuda", variant="vectorised", when=lambda x, *, negative_slope: is_wide(x))
def leaky_relu_forward_vectorised(x, *, negative_slope):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    run = leaky_relu_forward_vectorised_kernel(x)
    run(blocks_of_packs(x), (THREADS,), (y, x, x.size, x.dtype.type(negative_slope)))
    return y


@jit.typed
def leaky_relu_grad_x_vectorised_kernel(real):
    """As forward, with gy and x read and gx written."""
    walk = over_two_packs(real, leaked(real))

    def grad_x(gx, gy, x, size, slope):
        walk(gx, gy, x, size, slope)

    return grad_x


@kernel(
    "leaky_relu.grad_x",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda gy, x, *, negative_slope: is_wide(gy, x),
)
def leaky_relu_grad_x_vectorised(gy, x, *, negative_slope):
    """As forward."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    run = leaky_relu_grad_x_vectorised_kernel(x)
    run(blocks_of_packs(x), (THREADS,), (gx, gy, x, x.size, x.dtype.type(negative_slope)))
    return gx
