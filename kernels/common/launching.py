"""What the launchers of CUDA C++ kernels share: outputs, contiguity, constants of a dtype; for NumPy and CuPy alike."""

import sys
from typing import Any

import numpy as np

from gpunet import cuda, devices

from .shapes import cdiv

#: NumPy name of a dtype -> its name in CUDA C++
C_TYPES = {"float32": "float", "float64": "double"}
REAL = frozenset(map(np.dtype, C_TYPES))

THREADS = 256  # of a block, where nothing asks for another number


def library(array: Any) -> Any:
    """The array library that ``array`` belongs to: the module numpy or cupy."""
    return np if isinstance(array, np.ndarray) else sys.modules["cupy"]


def empty(shape: tuple[int, ...], like: Any, dtype: Any = None) -> Any:
    """An output beside ``like``, of its dtype or another; nobody has written it yet, and on sim that is checked."""
    return cuda.fresh(devices.empty(shape, like.dtype if dtype is None else dtype, library(like)))


def contiguous(array: Any) -> Any:
    """``array`` itself if it lies in C order, else a copy that does: kernels take pointers and ignore strides."""
    return array if array.flags.c_contiguous else library(array).ascontiguousarray(array)


def kernels(op: str, like: Any, **constants: object) -> Any:
    """The kernels of ``<op>.cu`` for the dtype of ``like``, which they call ``real``.

    Each set of constants stands in the BUILDS of the launchers' file: what is compiled for every architecture in tests.
    """
    return cuda.load(op, real=C_TYPES[like.dtype.name], **constants)


def is_real(*arrays: Any, **_: Any) -> bool | str:
    """Whether the floating-point arrays are all float32, or all float64."""
    found = None
    for each in arrays:  # step by step, and without names: nearly every launch asks
        if each is not None and (dtype := each.dtype) is not found and dtype.kind == "f":
            if found is not None and dtype != found:  # an array from elsewhere may have an equal one of its own
                break
            found = dtype
    else:
        if found in REAL:
            return True
    names = sorted({each.dtype.name for each in arrays if each is not None and each.dtype.kind == "f"})
    fine = len(names) == 1 and names[0] in C_TYPES
    return fine or f"it takes arrays of one dtype, float32 or float64, got {' and '.join(names) or 'none'}"


def is_wide(*arrays: Any) -> bool | str:
    """Whether the arrays are of one dtype, float32 or float64, and begin at a multiple of 16 bytes."""
    real = is_real(*arrays)
    if real is not True:
        return real
    given = [each for each in arrays if each is not None]
    shifted = [each.flags.c_contiguous and cuda.address(each) % 16 for each in given]
    return not any(shifted) or "it needs arrays that begin at a multiple of 16 bytes"


def blocks_for(threads: int, like: Any, block: int = THREADS, per_multiprocessor: int = 8) -> int:
    """Blocks for kernels whose threads walk on in steps of the grid: as many as run at once, or fewer for less work."""
    return max(1, min(cdiv(threads, block), per_multiprocessor * cuda.multiprocessors(like)))
