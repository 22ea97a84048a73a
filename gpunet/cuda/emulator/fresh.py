"""Which bytes of an array nobody has written yet, from its allocation by a launcher on, across launches."""

import weakref
from typing import Any

import numpy as np

from gpunet.cuda.guard import owner

_fresh: dict[int, tuple[Any, np.ndarray]] = {}  # id of the array that owns the memory -> (weak reference, byte mask)


def mark(array: np.ndarray) -> np.ndarray:
    """Says that nothing has been written to ``array`` yet; returns it. A kernel that reads it first is refused."""
    root = owner(array)
    number = id(root)
    if root.nbytes and root.flags.c_contiguous:
        reference = weakref.ref(root, lambda _: _fresh.pop(number, None))
        _fresh[number] = (reference, np.ones(root.nbytes, np.uint8))
    return array


def mask(array: np.ndarray) -> np.ndarray | None:
    """A byte for each byte of a contiguous ``array``, 1 where nothing was written. None: all is written, or unknown."""
    root = owner(array)
    found = _fresh.get(id(root))
    if found is None or found[0]() is not root:
        return None
    begin = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return found[1][begin : begin + array.nbytes]


def settle(array: np.ndarray) -> None:
    """Forgets an array that is written from end to end."""
    root = owner(array)
    found = _fresh.get(id(root))
    if found is not None and not found[1].any():
        del _fresh[id(root)]


def forget(array: np.ndarray) -> None:
    """Says that ``array`` has been written by others, who tell nothing of where."""
    _fresh.pop(id(owner(array)), None)
