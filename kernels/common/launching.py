"""What the launchers of CUDA C++ kernels share: outputs, contiguity, constants of a dtype; for NumPy and CuPy alike."""

import sys
from typing import Any

import numpy as np

from gpunet import cuda, devices

#: NumPy name of a dtype -> its name in CUDA C++
C_TYPES = {"float32": "float", "float64": "double"}

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
    """The kernels of ``<op>.cu`` for the dtype of ``like``, which they call ``real``."""
    return cuda.load(op, real=C_TYPES[like.dtype.name], **constants)


def is_real(*arrays: Any) -> bool | str:
    """Whether the floating-point arrays are all float32, or all float64."""
    names = sorted({each.dtype.name for each in arrays if each is not None and each.dtype.kind == "f"})
    fine = len(names) == 1 and names[0] in C_TYPES
    return fine or f"it takes arrays of one dtype, float32 or float64, got {' and '.join(names) or 'none'}"
