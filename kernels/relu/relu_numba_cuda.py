"""relu on Numba-CUDA: the rungs of relu.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/relu.py

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.cuda.packs import load_pack, store_pack
from gpunet.dispatch import kernel

from ..common.launching import blocks_for, contiguous, empty, is_real, is_wide
from ..common.shapes import cdiv


@jit.typed
def relu_forward_plain_kernel(real):
    """One thread one element."""
    zero = real(0)

    def forward(y, x, size):
        i = cuda.grid(1)
        if i < size:
            y[i] = zero if x[i] < zero else x[i]  # a NaN is not below zero and so goes through

    return forward


@kernel("relu.forward", backend="numba_cuda", variant="plain", when=is_real)
def relu_forward_plain(x):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    relu_forward_plain_kernel(x)((cdiv(x.size, THREADS),), (THREADS,), (y, x, x.size))
    return y


@jit.typed
def relu_forward_vectorised_kernel(real):
    """One thread 16 bytes at a time, in steps of the grid; the first threads take the rest behind the last 16."""
    zero = real(0)
    LANES = 16 // np.dtype(real).itemsize

    def forward(y, x, size):
        first, step = cuda.grid(1), cuda.gridsize(1)
        packs = size // LANES
        for p in range(first, packs, step):
            v = load_pack(x, p)
            if LANES == 4:
                out = (
                    zero if v[0] < zero else v[0],
                    zero if v[1] < zero else v[1],
                    zero if v[2] < zero else v[2],
                    zero if v[3] < zero else v[3],
                )
            else:
                out = (zero if v[0] < zero else v[0], zero if v[1] < zero else v[1])
            store_pack(y, p, out)
        i = packs * LANES + first
        if i < size:
            y[i] = zero if x[i] < zero else x[i]

    return forward


@kernel("relu.forward", backend="numba_cuda", variant="vectorised", when=is_wide)
def relu_forward_vectorised(x):
    """One thread 16 bytes at a time."""
    x = contiguous(x)
    y = empty(x.shape, x)
    blocks = blocks_for(cdiv(x.nbytes, 16), x, THREADS)
    relu_forward_vectorised_kernel(x)((blocks,), (THREADS,), (y, x, x.size))
    return y
