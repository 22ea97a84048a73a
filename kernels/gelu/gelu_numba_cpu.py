"""gelu on Numba for the processor: loops that LLVM turns into vector instructions, shared out among threads."""
# op: gpunet/ops/gelu.py
#
# task    a share for each thread, of 262,144 elements or more: over_pieces in kernels/common/elementwise_numba_cpu.py
# lanes   as many as the processor's vectors hold
# reads   each input once, in order
# needs   arrays in rows; others are copied first

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import flat, over_pieces, real
from ..common.vexp_numba_cpu import exp
from ..common.vmath_numba_cpu import erf
from .gelu_numpy import CUBIC, DENSITY_AT_0, SLOPE_AT_0, SQRT_HALF


@compiled(fastmath={"contract"})
def forward_by_erf(y, x):
    """x * (1 + erf(x / sqrt(2))) / 2."""
    half, one, root = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(SQRT_HALF)
    for i in range(y.size):
        y[i] = x[i] * (half * (one + erf(x[i] * root)))


@compiled(fastmath={"contract"})
def forward_by_tanh(y, x):
    """x * sigmoid(2 * u); exp overflows to inf where the sigmoid is 0."""
    one, cubic, twice = x.dtype.type(1), x.dtype.type(CUBIC), x.dtype.type(-2 * SLOPE_AT_0)
    for i in range(y.size):
        y[i] = x[i] * (one / (one + exp(twice * x[i] * (one + cubic * x[i] * x[i]))))


@kernel("gelu.forward", backend="numba_cpu", variant="vectorised", when=real)
def gelu_forward_vectorised(x, *, approximate):
    """One vector of elements at a time."""
    y = empty(x.shape, x.dtype)
    over_pieces(forward_by_erf if approximate == "none" else forward_by_tanh, y.reshape(-1), flat(x))
    return y


@compiled(fastmath={"contract"})
def grad_x_by_erf(gx, gy, x):
    """gy * (Phi(x) + x * Phi'(x))."""
    half, one, root = x.dtype.type(0.5), x.dtype.type(1), x.dtype.type(SQRT_HALF)
    height = x.dtype.type(DENSITY_AT_0)
    for i in range(gx.size):
        density = height * exp(-half * x[i] * x[i])
        gx[i] = gy[i] * (half * (one + erf(x[i] * root)) + x[i] * density)


@compiled(fastmath={"contract"})
def grad_x_by_tanh(gx, gy, x):
    """gy * (s + 2 * x * s * (1 - s) * u')."""
    one, two, cubic, twice = x.dtype.type(1), x.dtype.type(2), x.dtype.type(CUBIC), x.dtype.type(-2 * SLOPE_AT_0)
    slope_0, cubic_3 = x.dtype.type(SLOPE_AT_0), x.dtype.type(3 * CUBIC)
    for i in range(gx.size):
        s = one / (one + exp(twice * x[i] * (one + cubic * x[i] * x[i])))
        slope = slope_0 * (one + cubic_3 * x[i] * x[i])
        gx[i] = gy[i] * (s + two * x[i] * s * (one - s) * slope)


@kernel("gelu.grad_x", backend="numba_cpu", variant="vectorised", when=real)
def gelu_grad_x_vectorised(gy, x, *, approximate):
    """One vector of elements at a time."""
    gx = empty(x.shape, x.dtype)
    loop = grad_x_by_erf if approximate == "none" else grad_x_by_tanh
    over_pieces(loop, gx.reshape(-1), flat(gy), flat(x))
    return gx
