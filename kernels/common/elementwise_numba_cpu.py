"""What the element-wise kernels share on the processor: arrays as one axis, and a walk over them in pieces."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.cpu.threads import run, shares

from .launching import is_real

SMALLEST = 2**18  # elements of a task at the least: a task out of fewer is done before another thread is awake
FEW = 2**12  # elements: below, NumPy has done a single pass before a compiled kernel has looked at its arguments


class _Open:
    """The memory of an array as NumPy sees it, with no word on whether it may be written."""

    __slots__ = ("__array_interface__", "array")

    def __init__(self, array: np.ndarray):
        self.array = array  # kept alive by whoever looks at its memory
        self.__array_interface__ = {**array.__array_interface__, "data": (array.ctypes.data, False)}


def in_rows(array: np.ndarray) -> np.ndarray:
    """``array`` in C order, itself or a copy.

    Numba compiles a kernel a second time for memory that may not be written; as kernels leave their inputs alone, they
    do not get to know.
    """
    flags = array.flags
    if not flags.c_contiguous:
        return np.ascontiguousarray(array)
    return array if flags.writeable else np.asarray(_Open(array))


def flat(array: np.ndarray) -> np.ndarray:
    """``array`` in C order as one axis."""
    if array.ndim == 1 and array.flags.carray:  # in rows, aligned, and writeable
        return array
    return in_rows(array).reshape(-1)


def over_pieces(walk: Callable[..., Any], *arrays: np.ndarray, numbers: tuple[Any, ...] = ()) -> None:
    """Calls ``walk(*arrays, *numbers)`` for pieces of the arrays, all of one axis and size, on all threads."""
    size = arrays[0].size
    if size < 2 * SMALLEST or len(parts := pieces(size)) == 1:
        walk(*arrays, *numbers)
    else:
        run(lambda task: walk(*[each[parts[task]] for each in arrays], *numbers), len(parts))


def pieces(size: int) -> list[slice]:
    """A task for each thread out of ``size`` elements, each of whole words of 32 elements but for the last.

    Where each element is computed by itself, cutting changes nothing but the time.
    """
    return [slice(*each) for each in shares(size, SMALLEST, unit=32)] or [slice(0, 0)]


real = is_real
