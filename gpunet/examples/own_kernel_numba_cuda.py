"""A kernel of your own in Python for the GPU: the gradient of relu, compiled by Numba-CUDA.

A kernel gets arrays with one axis, and is launched with grid, block and arguments. Without a GPU it runs in Numba's
simulator, thread by thread, which must be switched on before Python starts::

    $ export NUMBA_ENABLE_CUDASIM=1
    $ python -m gpunet.examples.own_kernel_numba_cuda
    relu.grad_x/numba_cuda/striding on sim: the gradient at [-1.0, 0.0, 2.0, nan] is [0.0, 0.0, 1.0, 1.0]

    $ gpunet check gpunet/examples/own_kernel_numba_cuda.py
    $ gpunet bench gpunet/examples/own_kernel_numba_cuda.py    # on a machine with a GPU, without the export
"""

import math

import gpunet as gn
from gpunet import functional as F
from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.kernels.common.launching import blocks_for, contiguous, empty


@jit.typed
def striding(real):
    """The kernel for one dtype: a plain 0 would be an integer, and the comparison one in float64."""
    zero = real(0)

    def grad_x(gx, gy, y, size):
        for i in range(cuda.grid(1), size, cuda.gridsize(1)):  # any grid covers any size
            if y[i] <= zero:  # NaN is not: there the gradient passes
                gx[i] = zero
            else:
                gx[i] = gy[i]

    return grad_x


@gn.kernel("relu.grad_x", backend="numba_cuda", variant="striding")
def relu_grad_x_striding(gy, y):
    """The launcher: outputs and grid. It gets CuPy arrays on a GPU, NumPy arrays in the simulator."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    striding(y)((blocks_for(y.size, y, THREADS),), (THREADS,), (gx, gy, y, y.size))
    return gx


def main() -> list[float]:
    """Runs relu forward and backward on a GPU, or on sim where there is none; prints and returns the gradient."""
    device = gn.device("sim" if gn.device("auto") == "cpu" else "auto")
    x = gn.tensor([-1.0, 0.0, 2.0, math.nan], device=device, requires_grad=True)
    with gn.use_backend("numba_cuda"), gn.use_variant("relu.grad_x", "striding"), gn.trace() as launches:
        (gx,) = gn.grad(F.relu(x).sum(), [x])
    ran = launches[-1]
    print(f"{ran.entry}/{ran.backend}/{ran.variant} on {device}: the gradient at {x.tolist()} is {gx.tolist()}")
    return gx.tolist()


if __name__ == "__main__":
    main()
