"""sigmoid on Numba for the processor: loops that LLVM turns into vector instructions, shared out among threads."""
# op: gpunet/ops/sigmoid.py
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


@compiled(fastmath={"contract"})
def sigmoid_forward_vectorised_loop(y, x):
    """exp overflows to inf where y is 0."""
    one = x.dtype.type(1)
    for i in range(y.size):
        y[i] = one / (one + exp(-x[i]))


@kernel("sigmoid.forward", backend="numba_cpu", variant="vectorised", when=real)
def sigmoid_forward_vectorised(x):
    """One vector of elements at a time."""
    y = empty(x.shape, x.dtype)
    over_pieces(sigmoid_forward_vectorised_loop, y.reshape(-1), flat(x))
    return y


@compiled
def sigmoid_grad_x_vectorised_loop(gx, gy, y):
    """gy * y * (1 - y)."""
    one = y.dtype.type(1)
    for i in range(gx.size):
        gx[i] = gy[i] * y[i] * (one - y[i])


@kernel("sigmoid.grad_x", backend="numba_cpu", variant="vectorised", when=real)
def sigmoid_grad_x_vectorised(gy, y):
    """One vector of elements at a time."""
    gx = empty(y.shape, y.dtype)
    over_pieces(sigmoid_grad_x_vectorised_loop, gx.reshape(-1), flat(gy), flat(y))
    return gx
