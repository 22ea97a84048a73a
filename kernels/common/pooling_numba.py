"""What the pooling kernels share on Numba-CUDA: pooling.cuh in Python.

Two things are said here that CUDA C++ leaves unsaid. Numba adds 32-bit integers as 64-bit ones, so ``np.int32(...)``
around an expression says that 32 bits are enough. And it looks at each index for one below 0, which counts from the
end in Python; one that is ``np.uint64(...)`` it takes as it is.

Small arrays of a thread come from ``cuda.local.array``. Loops over them have bounds that the compiler knows, so it
unrolls them and keeps the elements in registers.
"""
# ruff: noqa: E741 k and l are the title pages'

from functools import cache

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.cuda.packs import load_four, load_two, store_tuple

ALL_LANES = 0xFFFFFFFF


def for_windows(factory):
    """Makes a kernel for each kind of window, K by K at steps of S, and dtype: ``factory(real, K, S)`` -> function.

    What the templates of CUDA C++ are: the kind is constant in the kernel, which is compiled when it is first needed.
    """

    @cache
    def made(K, S):
        def of_dtype(real):
            return factory(real, K, S)

        of_dtype.__name__ = f"{factory.__name__}_{K}x{K}_{S}"
        return jit.typed(of_dtype)

    return made


def sizes_32(*sizes):
    """Sizes as 32-bit numbers, which kernels calculate faster with."""
    return tuple(np.int32(each) for each in sizes)


@jit.device
def quotient(a, b):
    """a // b of integers from 0 up to 2**31: one 32-bit division, without the steps that round below 0."""
    return np.int32(np.uint32(a) // np.uint32(b))


@jit.device
def place_of(element, H, W):
    """Plane, row and column of an element of planes of H x W."""
    line = element // W
    plane = line // H
    return plane, np.int32(line - plane * H), np.int32(element - line * W)


@jit.device
def place_in_box(first):
    """The thread's column, row and plane, in a launch that begins with plane ``first``."""
    x = np.int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    y = np.int32(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y)
    return x, y, first + cuda.blockIdx.z * cuda.blockDim.z + cuda.threadIdx.z


# -- windows that slide ------------------------------------------------------------------------------------------------


@jit.device
def first_inside(start, step):
    """The first position inside the image of a window that begins at ``start``, below 0 in the padding."""
    return np.int32(np.uint32(step - 1 - start) // np.uint32(step) if start < 0 else 0)


@jit.device
def load_cells(cells, HEIGHT, WIDTH, x, image, iy, ix, H, W, outside):
    """The HEIGHT x WIDTH pixels from (iy, ix) on of the image that begins at ``image``; ``outside`` beyond it."""
    for t in range(HEIGHT):
        for l in range(WIDTH):
            cells[t * WIDTH + l] = outside
            if 0 <= iy + t < H and 0 <= ix + l < W:
                cells[t * WIDTH + l] = x[np.uint64(image + np.int32((iy + t) * W + ix + l))]


@jit.device
def load_cells_wide(cells, HEIGHT, WIDTH, LEFT, LANES, x, image, iy, ix, H, W, outside):
    """The same from (iy, ix - LEFT) on, LANES pixels of each row by one load: ix and W are multiples of LANES.

    What sticks out to the left and right the neighbours load too: those loads hit the first-level cache.
    """
    for t in range(HEIGHT):
        for l in range(WIDTH):
            cells[t * WIDTH + l] = outside
            if not LEFT <= l < LEFT + LANES and 0 <= iy + t < H and 0 <= ix + l - LEFT < W:
                cells[t * WIDTH + l] = x[np.uint64(image + np.int32((iy + t) * W + ix + l - LEFT))]
        if 0 <= iy + t < H and ix < W:
            load_few(cells, t * WIDTH + LEFT, LANES, x, image + np.int32((iy + t) * W + ix))


@jit.device
def load_few(few, at, V, x, first):
    """few[at], few[at + 1], ... from V neighbours of x, by one load; V is 1, 2 or 4, and first a multiple of it."""
    if V == 4:
        four = load_four(x, first)
        few[at], few[at + 1], few[at + 2], few[at + 3] = four[0], four[1], four[2], four[3]
    elif V == 2:
        two = load_two(x, first)
        few[at], few[at + 1] = two[0], two[1]
    else:
        few[at] = x[np.uint64(first)]


@jit.device
def store_few(y, first, V, few, at):
    """V neighbours of y from few[at], few[at + 1], ..., by one store."""
    if V == 4:
        store_tuple(y, first, (few[at], few[at + 1], few[at + 2], few[at + 3]))
    elif V == 2:
        store_tuple(y, first, (few[at], few[at + 1]))
    else:
        y[np.uint64(first)] = few[at]


# -- the winner of a window --------------------------------------------------------------------------------------------


@jit.device
def challenge(best, place, value, at):
    """The winner so far, ``best`` at ``place``, or a later element, which takes over when it is larger or NaN.

    So the first of equals wins, and the last of several NaN: no number is larger than NaN. Winners of neighbouring
    runs can be folded in this order as single elements can.
    """
    wins = value > best or value != value
    return (value if wins else best), (np.int32(at) if wins else np.int32(place))


# -- windows that share an axis out ------------------------------------------------------------------------------------


@jit.device
def share_start(i, size, out):
    """Where window i of ``out`` over an axis of ``size`` begins: floor(i * size / out).

    Seen from an element, the windows that hold it are a window too, with the two sizes exchanged.
    """
    return i * size // out


@jit.device
def share_stop(i, size, out):
    """Where it ends, not included: ceil((i + 1) * size / out)."""
    return ((i + 1) * size + out - 1) // out


@jit.device
def share_start_32(i, size, out):
    """As share_start, where products fit into 32 bits."""
    return quotient(i * size, out)


@jit.device
def share_stop_32(i, size, out):
    """As share_stop, where products fit into 32 bits."""
    return quotient((i + 1) * size + out - 1, out)
