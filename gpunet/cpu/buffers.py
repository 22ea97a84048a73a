"""Memory for results and temporaries of the processor's kernels, used again when nobody holds it any more.

Fresh memory costs a page fault for each 4 KiB on its first touch: more than a ReLU's whole work. So memory whose array
is gone is kept, up to a limit, and handed out again. It comes back by itself when the last array that looks
at it is let go, views included, so nothing in use is ever handed out.
"""

import threading
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpunet.errors import ArgumentError

SMALLEST = 2**20  # bytes; below, the allocator of the system is as fast and its pages stay
FEW = SMALLEST // 16  # elements that are fewer bytes than that in any dtype of ours
ALIGNMENT = 64  # bytes: a cache line, and the widest vector
LIMIT = 2**30  # bytes kept at most


class Size(NamedTuple):
    """Bytes of the pool."""

    used: int
    """In arrays that somebody holds."""
    kept: int
    """Free, ready to be handed out."""
    limit: int
    """Kept at most."""


class _Memory(NamedTuple):
    """Bytes, and where they begin: asking NumPy for that takes longer than all the rest."""

    array: np.ndarray
    address: int


class _Block:
    """A piece of memory as NumPy sees it. When no array refers to it any more, its memory goes back."""

    __slots__ = ("__array_interface__", "kind", "memory", "pool")

    def __init__(self, memory: "_Memory", kind: int, shape: tuple[int, ...], dtype: np.dtype, pool: "Pool"):
        self.memory, self.kind, self.pool = memory, kind, pool
        place = memory.address, False
        self.__array_interface__ = {"shape": shape, "typestr": dtype.str, "data": place, "version": 3}

    def __del__(self) -> None:
        self.pool._back(self.memory, self.kind)


class Pool:
    """Free memory by size class. Thread-safe.

    Args:
        limit: bytes kept at most.
    """

    def __init__(self, limit: int = LIMIT):
        self._limit, self._used, self._kept = limit, 0, 0
        self._free: dict[int, list[_Memory]] = {}
        self._lock = threading.RLock()  # a collection inside may give memory back in the same thread

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array whose values are whatever stood there, in rows, aligned to 64 bytes."""
        count = prod(shape)
        if count < FEW:  # nothing is asked of the dtype
            return np.empty(shape, dtype)
        dtype = np.dtype(dtype)
        nbytes = count * dtype.itemsize
        if nbytes < SMALLEST:
            return np.empty(shape, dtype)
        kind = _class_of(nbytes)
        with self._lock:
            found = self._free.get(kind)
            memory = found.pop() if found else None
            self._used += kind
            if memory is not None:
                self._kept -= kind
        if memory is None:
            memory = _aligned(kind)
        return np.asarray(_Block(memory, kind, shape, dtype, self))

    def _back(self, memory: _Memory, kind: int) -> None:
        with self._lock:
            self._used -= kind
            if self._kept + kind <= self._limit:
                self._free.setdefault(kind, []).append(memory)
                self._kept += kind

    def size(self) -> Size:
        """Bytes in use and kept."""
        with self._lock:
            return Size(self._used, self._kept, self._limit)

    def release(self) -> int:
        """Gives the free memory back to the system; returns how many bytes."""
        with self._lock:
            freed, self._kept = self._kept, 0
            self._free.clear()
        return freed

    def set_limit(self, nbytes: int) -> None:
        """Keeps so many bytes at most from now on; 0 keeps none.

        Raises:
            ArgumentError: not a whole number of at least 0.
        """
        if isinstance(nbytes, bool) or not isinstance(nbytes, int) or nbytes < 0:
            raise ArgumentError(f"buffers: limit must be a whole number of bytes, at least 0, got {nbytes!r}")
        with self._lock:
            self._limit = nbytes
            if self._kept > nbytes:
                self.release()


def _class_of(nbytes: int) -> int:
    """The size class: eight in each power of two, so that a block is at most an eighth larger than its array."""
    step = max(ALIGNMENT, 1 << (nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


def _aligned(nbytes: int) -> _Memory:
    array = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = array.ctypes.data
    return _Memory(array, start + -start % ALIGNMENT)


pool = Pool()
"""The one that results of kernels come from: ``gn.memory_pool``.

Example:
    >>> import gpunet as gn
    >>> gn.memory_pool.set_limit(2**28)
    >>> y = gn.functional.relu(gn.zeros(1000, 1000))
    >>> del y
    >>> gn.memory_pool.size().kept > 0, gn.memory_pool.release() > 0, gn.memory_pool.size().kept
    (True, True, 0)
    >>> gn.memory_pool.set_limit(2**30)
"""
