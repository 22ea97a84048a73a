"""The same call on other numbers, in other memory, at another size: what a proof asks for beside the case itself.

A kernel that keeps answers, or was made for one size or one memory layout, is right on the case alone and wrong here.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpunet.devices import Device

ALIGNMENT = 16  # bytes of the widest single load
PAIRS = 16  # pairs of elements exchanged in an array, so that its results change in several places
PART = 24  # but no more than one pair in so many elements: a kernel that looks at a few of them must not meet them
SMALL = 5  # extents below this are windows and channels, which other extents depend on


class Exchange(NamedTuple):
    """Two elements of one array that change places; done twice, nothing has changed."""

    position: int
    """Which of the arguments."""
    first: tuple[int, ...]
    second: tuple[int, ...]


def floats(arrays: Sequence[Any]) -> list[int]:
    """Positions of the arrays that hold numbers to be varied; indices and bit masks are left as they are."""
    return [k for k, each in enumerate(arrays) if hasattr(each, "dtype") and each.dtype.kind == "f" and each.size > 1]


def permuted(arrays: Sequence[Any], seed: int) -> tuple[Any, ...]:
    """Copies of host arrays with the numbers of each in another order: as valid as before, different everywhere."""
    generator = np.random.Generator(np.random.Philox(seed))
    result = list(arrays)
    for k in floats(arrays):
        result[k] = np.empty_like(arrays[k])
        result[k][...] = generator.permutation(arrays[k].ravel()).reshape(arrays[k].shape)
    return tuple(result)


def exchanges(arrays: Sequence[Any], seed: int) -> list[Exchange]:
    """Pairs of elements to exchange in every array of numbers, the same for the same seed."""
    numbers = random.Random(seed)
    counts = {k: max(1, min(PAIRS, arrays[k].size // PART)) for k in floats(arrays)}
    return [exchange(arrays, k, numbers) for k, count in counts.items() for _ in range(count)]


def exchange(arrays: Sequence[Any], position: int, numbers: random.Random) -> Exchange:
    """One pair of elements of one array."""
    first = second = tuple(numbers.randrange(n) for n in arrays[position].shape)
    while second == first:
        second = tuple(numbers.randrange(n) for n in arrays[position].shape)
    return Exchange(position, first, second)


def apply(pairs: Sequence[Exchange], arrays: Sequence[Any]) -> None:
    """Exchanges elements in place, on the host or on a device; the pairs in reverse order take it back."""
    for position, i, j in pairs:
        array = arrays[position]
        first, second = array[i].copy(), array[j].copy()
        array[i], array[j] = second, first


def strided(array: Any, device: Device) -> Any:
    """The same numbers with a gap after each, so that no two are neighbours in memory."""
    room = device.xp.full((*array.shape, 2), _gap(array.dtype), array.dtype)
    room[..., 0] = array
    return room[..., 0]


def unaligned(array: Any, device: Device) -> Any:
    """The same numbers, contiguous, at an address where a load of 16 bytes may not begin."""
    room = device.xp.full(array.size + ALIGNMENT, _gap(array.dtype), array.dtype)
    address = room.data.ptr if hasattr(room.data, "ptr") else room.ctypes.data  # of CuPy, of NumPy
    size = array.dtype.itemsize
    start = next((k for k in range(ALIGNMENT) if (address + k * size) % ALIGNMENT), 0)
    view = room[start : start + array.size].reshape(array.shape)
    view[...] = array
    return view


#: What inputs may be beside contiguous and aligned -> how they become so. A kernel may refuse them, not get them wrong.
LAYOUTS = {"not contiguous": strided, "not aligned to 16 bytes": unaligned}


def _gap(dtype: Any) -> Any:
    return np.nan if dtype.kind == "f" else np.iinfo(dtype).max if dtype.kind in "iu" else 0


def other_size(size: Any, seed: int) -> Any:
    """A size of a suite with extents that no kernel could know: each one from 5 up grows by 1 to 3.

    Equal extents stay equal, so that what had to match still does; where a keyword of the op names an extent as well,
    the op refuses the result.
    """
    numbers = random.Random(seed)
    extents = sorted({n for shape in size.shapes.values() for n in shape if n >= SMALL})
    grown = {n: n + numbers.randint(1, 3) for n in extents}
    shapes = {name: tuple(grown.get(n, n) for n in shape) for name, shape in size.shapes.items()}
    return replace(size, name=f"{size.name}_other", origin=f"{size.origin}, other extents", shapes=shapes)
