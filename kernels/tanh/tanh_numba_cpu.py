"""tanh on Numba for the processor: loops that LLVM turns into vector instructions, shared out among threads."""
# op: gpunet/ops/tanh.py
#
# task    a share for each thread, of 262,144 elements or more: over_pieces in kernels/common/elementwise_numba_cpu.py
# lanes   as many as the processor's vectors hold
# reads   each input once, in order
# needs   arrays in rows; others are copied first

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import FEW, flat, over_pieces, real
from ..common.vmath_numba_cpu import tanh


@compiled(fastmath={"contract"})
def tanh_forward_vectorised_loop(y, x):
    """tanh by exp(-2 |x|) - 1."""
    for i in range(y.size):
        y[i] = tanh(x[i])


@kernel("tanh.forward", backend="numba_cpu", variant="vectorised", when=real, least=FEW)
def tanh_forward_vectorised(x):
    """One vector of elements at a time."""
    y = empty(x.shape, x.dtype)
    over_pieces(tanh_forward_vectorised_loop, flat(y), flat(x))
    return y


@compiled
def tanh_grad_x_vectorised_loop(gx, gy, y):
    """gy * (1 - y * y)."""
    one = y.dtype.type(1)
    for i in range(gx.size):
        gx[i] = gy[i] * (one - y[i] * y[i])


@kernel("tanh.grad_x", backend="numba_cpu", variant="vectorised", when=real)
def tanh_grad_x_vectorised(gy, y):
    """One vector of elements at a time."""
    gx = empty(y.shape, y.dtype)
    over_pieces(tanh_grad_x_vectorised_loop, flat(gx), flat(gy), flat(y))
    return gx
