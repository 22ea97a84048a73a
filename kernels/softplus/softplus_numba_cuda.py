"""softplus on Numba-CUDA: the rungs of softplus.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/softplus.py

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.elementwise_numba import (
    blocks_of,
    blocks_of_packs,
    exponential,
    log_1p,
    over_packs,
    over_two_packs,
)
from ..common.launching import contiguous, empty, is_real, is_wide


def softplus(real):
    """Of one number.

    Of z = beta * x: exp gets nothing above 0, and log1p keeps the digits of small results. In z > 0 a NaN gives 0, but
    log1p hands it on. Above the threshold y is x.
    """
    zero = real(0)

    @jit.device
    def value(x, numbers):
        beta, threshold = numbers
        z = beta * x
        if z > threshold:
            return x
        return ((z if z > zero else zero) + log_1p(exponential(-z if z > zero else z))) / beta

    return value


def sloped(real):
    """The gradient, of two numbers; above the threshold the slope is 1."""
    one = real(1)

    @jit.device
    def value(gy, x, numbers):
        beta, threshold = numbers
        z = beta * x
        return gy if z > threshold else gy / (one + exponential(-z))

    return value


@jit.typed
def softplus_forward_plain_kernel(real):
    """One thread one element."""
    value = softplus(real)

    def forward(y, x, size, beta, threshold):
        i = cuda.grid(1)
        if i < size:
            y[i] = value(x[i], (beta, threshold))

    return forward


@kernel("softplus.forward", backend="numba_cuda", variant="plain", when=lambda x, *, beta, threshold: is_real(x))
def softplus_forward_plain(x, *, beta, threshold):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    softplus_forward_plain_kernel(x)(blocks_of(x), (THREADS,), (y, x, x.size, *_numbers(x, beta, threshold)))
    return y


@jit.typed
def softplus_grad_x_plain_kernel(real):
    """One thread one element."""
    value = sloped(real)

    def grad_x(gx, gy, x, size, beta, threshold):
        i = cuda.grid(1)
        if i < size:
            gx[i] = value(gy[i], x[i], (beta, threshold))

    return grad_x


@kernel("softplus.grad_x", backend="numba_cuda", variant="plain", when=lambda gy, x, *, beta, threshold: is_real(gy, x))
def softplus_grad_x_plain(gy, x, *, beta, threshold):
    """One thread an element."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    softplus_grad_x_plain_kernel(x)(blocks_of(x), (THREADS,), (gx, gy, x, x.size, *_numbers(x, beta, threshold)))
    return gx


@jit.typed
def softplus_forward_vectorised_kernel(real):
    """One thread two packs of 16 bytes at a time, in steps of the grid."""
    walk = over_packs(real, softplus(real))

    def forward(y, x, size, beta, threshold):
        walk(y, x, size, (beta, threshold))

    return forward


@kernel("softplus.forward", backend="numba_cuda", variant="vectorised", when=lambda x, *, beta, threshold: is_wide(x))
def softplus_forward_vectorised(x, *, beta, threshold):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    softplus_forward_vectorised_kernel(x)(blocks_of_packs(x), (THREADS,), (y, x, x.size, *_numbers(x, beta, threshold)))
    return y


@jit.typed
def softplus_grad_x_vectorised_kernel(real):
    """As forward, with gy and x read and gx written."""
    walk = over_two_packs(real, sloped(real))

    def grad_x(gx, gy, x, size, beta, threshold):
        walk(gx, gy, x, size, (beta, threshold))

    return grad_x


@kernel(
    "softplus.grad_x", backend="numba_cuda", variant="vectorised", when=lambda gy, x, *, beta, threshold: is_wide(gy, x)
)
def softplus_grad_x_vectorised(gy, x, *, beta, threshold):
    """As forward."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    softplus_grad_x_vectorised_kernel(x)(
        blocks_of_packs(x), (THREADS,), (gx, gy, x, x.size, *_numbers(x, beta, threshold))
    )
    return gx


def _numbers(x, beta, threshold):
    """Both in x's dtype."""
    return x.dtype.type(beta), x.dtype.type(threshold)
