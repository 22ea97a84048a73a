"""leaky_relu on Numba for the processor: loops that LLVM turns into vector instructions, shared out among threads."""
# op: gpunet/ops/leaky_relu.py
#
# task    a share for each thread, of 262,144 elements or more: over_pieces in kernels/common/elementwise_numba_cpu.py
# lanes   as many as the processor's vectors hold
# reads   each input once, in order
# needs   arrays in rows; others are copied first

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import flat, over_pieces, real


@compiled
def leaky_relu_forward_vectorised_loop(y, x, negative_slope):
    """NaN takes the second branch."""
    zero, slope = x.dtype.type(0), x.dtype.type(negative_slope)
    for i in range(y.size):
        y[i] = x[i] if x[i] > zero else slope * x[i]


@kernel("leaky_relu.forward", backend="numba_cpu", variant="vectorised", when=real)
def leaky_relu_forward_vectorised(x, *, negative_slope):
    """One vector of elements at a time."""
    y = empty(x.shape, x.dtype)
    over_pieces(leaky_relu_forward_vectorised_loop, y.reshape(-1), flat(x), numbers=(negative_slope,))
    return y


@compiled
def leaky_relu_grad_x_vectorised_loop(gx, gy, x, negative_slope):
    """NaN takes the second branch."""
    zero, slope = x.dtype.type(0), x.dtype.type(negative_slope)
    for i in range(gx.size):
        gx[i] = gy[i] if x[i] > zero else slope * gy[i]


@kernel("leaky_relu.grad_x", backend="numba_cpu", variant="vectorised", when=real)
def leaky_relu_grad_x_vectorised(gy, x, *, negative_slope):
    """One vector of elements at a time."""
    gx = empty(x.shape, x.dtype)
    over_pieces(leaky_relu_grad_x_vectorised_loop, gx.reshape(-1), flat(gy), flat(x), numbers=(negative_slope,))
    return gx
