"""gelu on Numba-CUDA: the rungs of gelu.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/gelu.py
#
# Each rung has two kernels an entry, for the exact form and the one by tanh: in one kernel, either form would take the
# registers of both. Products are taken in the definition's order, and so are the infinities and NaN of large x.

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.dispatch import kernel

from ..common.elementwise_numba import (
    blocks_of,
    blocks_of_packs,
    error_function,
    exponential,
    over_packs,
    over_two_packs,
)
from ..common.launching import contiguous, empty, is_real, is_wide
from .gelu_numpy import CUBIC, DENSITY_AT_0, SLOPE_AT_0, SQRT_HALF


def exact(real):
    """Value and gradient of the exact form."""
    half, one = real(0.5), real(1)
    sqrt_half, density_at_0 = real(SQRT_HALF), real(DENSITY_AT_0)

    @jit.device
    def phi(x):
        return half * (one + error_function(x * sqrt_half))

    @jit.device
    def value(x, _):
        return x * phi(x)

    @jit.device
    def gradient(gy, x, _):
        return gy * (phi(x) + x * (density_at_0 * exponential(-half * x * x)))

    return value, gradient


def by_tanh(real):
    """Those of (1 + tanh(u)) / 2 as sigmoid(2 u), without cancellation: exp overflows to inf where it is 0 anyway."""
    one, two = real(1), real(2)
    slope_at_0, cubic, cubic_3 = real(SLOPE_AT_0), real(CUBIC), real(3 * CUBIC)

    @jit.device
    def share(x):
        u = slope_at_0 * x * (one + cubic * x * x)
        return one / (one + exponential(-two * u))

    @jit.device
    def value(x, _):
        return x * share(x)

    @jit.device
    def gradient(gy, x, _):
        s = share(x)
        slope = slope_at_0 * (one + cubic_3 * x * x)
        return gy * (s + two * x * s * (one - s) * slope)

    return value, gradient


# -- plain: one thread one element -------------------------------------------------------------------------------------


@jit.typed
def gelu_forward_plain_kernel(real):
    """The exact form."""
    value = exact(real)[0]

    def forward(y, x, size):
        i = cuda.grid(1)
        if i < size:
            y[i] = value(x[i], ())

    return forward


@jit.typed
def gelu_forward_plain_tanh_kernel(real):
    """The form by tanh."""
    value = by_tanh(real)[0]

    def forward(y, x, size):
        i = cuda.grid(1)
        if i < size:
            y[i] = value(x[i], ())

    return forward


@kernel("gelu.forward", backend="numba_cuda", variant="plain", when=lambda x, *, approximate: is_real(x))
def gelu_forward_plain(x, *, approximate):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    form = gelu_forward_plain_kernel if approximate == "none" else gelu_forward_plain_tanh_kernel
    form(x)(blocks_of(x), (THREADS,), (y, x, x.size))
    return y


@jit.typed
def gelu_grad_x_plain_kernel(real):
    """The exact form."""
    gradient = exact(real)[1]

    def grad_x(gx, gy, x, size):
        i = cuda.grid(1)
        if i < size:
            gx[i] = gradient(gy[i], x[i], ())

    return grad_x


@jit.typed
def gelu_grad_x_plain_tanh_kernel(real):
    """The form by tanh."""
    gradient = by_tanh(real)[1]

    def grad_x(gx, gy, x, size):
        i = cuda.grid(1)
        if i < size:
            gx[i] = gradient(gy[i], x[i], ())

    return grad_x


@kernel("gelu.grad_x", backend="numba_cuda", variant="plain", when=lambda gy, x, *, approximate: is_real(gy, x))
def gelu_grad_x_plain(gy, x, *, approximate):
    """One thread an element."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    form = gelu_grad_x_plain_kernel if approximate == "none" else gelu_grad_x_plain_tanh_kernel
    form(x)(blocks_of(x), (THREADS,), (gx, gy, x, x.size))
    return gx


# -- vectorised: one thread two packs of 16 bytes at a time, in steps of the grid --------------------------------------


@jit.typed
def gelu_forward_vectorised_kernel(real):
    """The exact form."""
    walk = over_packs(real, exact(real)[0])

    def forward(y, x, size):
        walk(y, x, size, ())

    return forward


@jit.typed
def gelu_forward_vectorised_tanh_kernel(real):
    """The form by tanh."""
    walk = over_packs(real, by_tanh(real)[0])

    def forward(y, x, size):
        walk(y, x, size, ())

    return forward


@kernel("gelu.forward", backend="numba_cuda", variant="vectorised", when=lambda x, *, approximate: is_wide(x))
def gelu_forward_vectorised(x, *, approximate):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    form = gelu_forward_vectorised_kernel if approximate == "none" else gelu_forward_vectorised_tanh_kernel
    form(x)(blocks_of_packs(x), (THREADS,), (y, x, x.size))
    return y


@jit.typed
def gelu_grad_x_vectorised_kernel(real):
    """The exact form."""
    walk = over_two_packs(real, exact(real)[1])

    def grad_x(gx, gy, x, size):
        walk(gx, gy, x, size, ())

    return grad_x


@jit.typed
def gelu_grad_x_vectorised_tanh_kernel(real):
    """The form by tanh."""
    walk = over_two_packs(real, by_tanh(real)[1])

    def grad_x(gx, gy, x, size):
        walk(gx, gy, x, size, ())

    return grad_x


@kernel("gelu.grad_x", backend="numba_cuda", variant="vectorised", when=lambda gy, x, *, approximate: is_wide(gy, x))
def gelu_grad_x_vectorised(gy, x, *, approximate):
    """As forward."""
    gy, x = contiguous(gy), contiguous(x)
    gx = empty(x.shape, x)
    form = gelu_grad_x_vectorised_kernel if approximate == "none" else gelu_grad_x_vectorised_tanh_kernel
    form(x)(blocks_of_packs(x), (THREADS,), (gx, gy, x, x.size))
    return gx
