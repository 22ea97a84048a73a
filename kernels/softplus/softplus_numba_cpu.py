"""softplus on Numba for the processor: loops that LLVM turns into vector instructions, shared out among threads."""
# op: gpunet/ops/softplus.py
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
from ..common.vmath_numba_cpu import log1p_of_share


@compiled(fastmath={"contract"})
def softplus_forward_vectorised_loop(y, x, beta, threshold):
    """exp gets nothing above 0, and log1p keeps the digits of small results."""
    zero, factor, top = x.dtype.type(0), x.dtype.type(beta), x.dtype.type(threshold)
    for i in range(y.size):
        z = factor * x[i]
        value = ((z if z > zero else zero) + log1p_of_share(exp(-abs(z)))) / factor
        y[i] = x[i] if z > top else value


@kernel("softplus.forward", backend="numba_cpu", variant="vectorised", when=real)
def softplus_forward_vectorised(x, *, beta, threshold):
    """One vector of elements at a time."""
    y = empty(x.shape, x.dtype)
    over_pieces(softplus_forward_vectorised_loop, y.reshape(-1), flat(x), numbers=(beta, threshold))
    return y


@compiled(fastmath={"contract"})
def softplus_grad_x_vectorised_loop(gx, gy, x, beta, threshold):
    """exp overflows to inf where the slope is 0."""
    one, factor, top = x.dtype.type(1), x.dtype.type(beta), x.dtype.type(threshold)
    for i in range(gx.size):
        z = factor * x[i]
        value = gy[i] / (one + exp(-z))
        gx[i] = gy[i] if z > top else value


@kernel("softplus.grad_x", backend="numba_cpu", variant="vectorised", when=real)
def softplus_grad_x_vectorised(gy, x, *, beta, threshold):
    """One vector of elements at a time."""
    gx = empty(x.shape, x.dtype)
    over_pieces(softplus_grad_x_vectorised_loop, gx.reshape(-1), flat(gy), flat(x), numbers=(beta, threshold))
    return gx
