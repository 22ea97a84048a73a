"""A kernel of your own in CUDA C++, in a file beside this one: own_kernel.cu, the gradient of sigmoid.

``cuda.load`` takes a path, and gives an object whose attributes are the kernels of the file::

    $ python -m gpunet.examples.own_kernel_cupy_file
    sigmoid.grad_x/cupy/mine on sim: the gradient at [-2.0, 0.0, 2.0] is [0.105, 0.25, 0.105]

    $ gpunet check gpunet/examples/own_kernel_cupy_file.py
    $ gpunet bench gpunet/examples/own_kernel_cupy_file.py    # on a machine with a GPU
"""

from pathlib import Path

import gpunet as gn
from gpunet import cuda
from gpunet import functional as F
from gpunet.kernels.common.launching import blocks_for, contiguous, empty

FILE = Path(__file__).with_name("own_kernel.cu")
THREADS = 256


@gn.kernel("sigmoid.grad_x", backend="cupy", variant="mine")
def sigmoid_grad_x_mine(gy, y):
    """The launcher: ``real`` is the dtype of y, arguments come in the kernel's order."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    kernels = cuda.load(FILE, real=y.dtype)  # made once for each dtype
    kernels.sigmoid_grad_x_mine((blocks_for(y.size, y, THREADS),), (THREADS,), (gx, gy, y, y.size))
    return gx


def main() -> list[float]:
    """Runs sigmoid forward and backward on a GPU, or on sim where there is none; prints and returns the gradient."""
    device = gn.device("sim" if gn.device("auto") == "cpu" else "auto")
    x = gn.tensor([-2.0, 0.0, 2.0], device=device, requires_grad=True)
    with gn.use_variant("sigmoid.grad_x", "mine"), gn.trace() as launches:
        (gx,) = gn.grad(F.sigmoid(x).sum(), [x])
    ran = launches[-1]
    told = [round(each, 3) for each in gx.tolist()]
    print(f"{ran.entry}/{ran.backend}/{ran.variant} on {device}: the gradient at {x.tolist()} is {told}")
    return told


if __name__ == "__main__":
    main()
