"""A kernel of your own in CUDA C++, as a string: leaky relu, float32 and float64 from one text.

``compile_text`` returns one kernel of a text, called with grid, block and arguments. On CuPy arrays it runs on the GPU,
on NumPy arrays on device ``sim``, where every load and store is checked::

    $ python -m gpunet.examples.own_kernel_cupy
    leaky_relu.forward/cupy/mine on sim: [-1.0, 0.0, 2.0] becomes [-0.25, 0.0, 2.0]

    $ gpunet check gpunet/examples/own_kernel_cupy.py
    $ gpunet bench gpunet/examples/own_kernel_cupy.py    # on a machine with a GPU
"""

import gpunet as gn
from gpunet import functional as F
from gpunet.cuda import compile_text
from gpunet.kernels.common.launching import contiguous, empty

TEXT = """
extern "C" __global__ void leaky_relu_mine(real* __restrict__ y, const real* __restrict__ x, int size, real slope) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < size) y[i] = x[i] > 0 ? x[i] : slope * x[i];
}
"""
THREADS = 256


@gn.kernel("leaky_relu.forward", backend="cupy", variant="mine")
def leaky_relu_forward_mine(x, *, negative_slope):
    """The launcher: ``real`` is the dtype of x, arguments come in the kernel's order."""
    x = contiguous(x)
    y = empty(x.shape, x)
    kernel = compile_text(TEXT, "leaky_relu_mine", real=x.dtype)  # made once for each dtype
    kernel((-(-x.size // THREADS),), (THREADS,), (y, x, x.size, negative_slope))
    return y


def main() -> list[float]:
    """Runs the kernel on a GPU, or on sim where there is none; prints and returns what comes out."""
    device = gn.device("sim" if gn.device("auto") == "cpu" else "auto")
    x = gn.tensor([-1.0, 0.0, 2.0], device=device)
    with gn.use_variant("leaky_relu.forward", "mine"), gn.trace() as launches:
        y = F.leaky_relu(x, negative_slope=0.25)
    ran = launches[0]
    print(f"{ran.entry}/{ran.backend}/{ran.variant} on {device}: {x.tolist()} becomes {y.tolist()}")
    return y.tolist()


if __name__ == "__main__":
    main()
