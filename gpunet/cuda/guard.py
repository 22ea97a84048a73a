"""The check between a launcher and a kernel: a raw pointer carries no size, dtype or stride, so this is the last place.

Each refusal names kernel and argument, what must hold, what came, and the remedy. Nothing is converted: a float64
array for a float pointer is a launcher's mistake, and reading it as float would be silent.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np

from gpunet.cuda.source import Parameter, Signature
from gpunet.errors import KernelError

GRID_LIMIT = (2**31 - 1, 65535, 65535)
BLOCK_LIMIT = (1024, 1024, 64)
THREADS_LIMIT = 1024
INDEX_LIMIT = 2**31 - 1

_INTEGER = (int, np.integer)  # looked up on every launch: made once
_NUMBER = (int, float, np.integer, np.floating)
_RANGES = {np.dtype(code): (int(np.iinfo(code).min), int(np.iinfo(code).max)) for code in np.typecodes["AllInteger"]}


def owner(array: np.ndarray) -> np.ndarray:
    """The NumPy array whose memory ``array`` is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def address(array: Any) -> int:
    """Where the array begins on its device.

    On ``sim`` an array that owns its memory counts as aligned to 256 bytes, as an allocation on a GPU is, and a view of
    it lies at its offset: NumPy's own addresses say nothing about a GPU's.
    """
    if isinstance(array, np.ndarray):
        root = _begin(owner(array))
        return _begin(array) - root + root // 256 * 256
    return _begin(array)


def _begin(array: Any) -> int:
    return array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else int(array.data.ptr)


def check(signature: Signature, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any]) -> list[Any]:
    """The arguments as they go to the kernel: arrays as they are, scalars in the parameter's own type.

    Raises:
        KernelError: they do not fit the signature, the hardware, or each other.
    """
    parameters = signature.parameters
    if len(arguments) != len(parameters):
        names = ", ".join(each.name for each in parameters)
        must = f"takes {len(parameters)} arguments ({names})"
        _refuse(signature, must, str(len(arguments)), "compare the launcher with the .cu file")
    need_sizes(signature, grid, block)
    checked = []
    for place, (parameter, value) in enumerate(zip(parameters, arguments, strict=True)):
        if parameter.pointer:
            _need_array(signature, place, parameter, value)
            checked.append(value)
        else:
            checked.append(_scalar(signature, place, parameter, value))
    _need_one_place(signature, arguments)
    _need_no_overlap(signature, arguments)
    return checked


def three(sizes: Sequence[int]) -> tuple[int, ...]:
    """Grid or block as three sizes: missing axes are 1."""
    given = tuple(map(int, sizes))
    return given if len(given) >= 3 else (*given, 1, 1, 1)[:3]


class Quick:
    """The same question with the answer yes or no, in a fifth of the time: made once for a kernel, for each launch.

    Called like :func:`check`. None means that something is unusual or wrong, and that :func:`check` must say which.
    """

    def __init__(self, signature: Signature):
        self.plan = [self._of(each) for each in signature.parameters]
        self.long = any(p.dtype.itemsize == 8 for p in signature.parameters if not p.pointer)

    @staticmethod
    def _of(parameter: Parameter) -> tuple[Any, ...]:
        kind = parameter.dtype.kind
        low, high = _RANGES.get(parameter.dtype, (0, 0))
        number = {"f": float, "b": bool}.get(kind, int)
        plain = parameter.pointer and parameter.lanes == 1  # packs are looked at closely
        return plain, parameter.pointer, parameter.dtype, parameter.const, parameter.restrict, number, low, high

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], arguments: Sequence[Any]) -> list[Any] | None:
        """What :func:`check` returns, or None."""
        if len(arguments) != len(self.plan) or not usual_sizes(grid, block):
            return None
        checked: list[Any] = []
        spans = []
        place = None
        for (plain, pointer, dtype, const, restrict, number, low, high), value in zip(self.plan, arguments):
            if not pointer:
                if type(value) is not number or (number is int and not low <= value <= high):
                    return None
                checked.append(dtype.type(value))
                continue
            if value is not None:
                on_host = isinstance(value, np.ndarray)
                if not plain or not (on_host or hasattr(value, "device")) or value.dtype != dtype:
                    return None
                flags = value.flags
                if not flags.c_contiguous or not (const or not on_host or flags.writeable):
                    return None
                here = -1 if on_host else value.device.id
                if (place is not None and place != here) or (not self.long and value.size > INDEX_LIMIT):
                    return None
                place, begin = here, _begin(value)
                spans.append((begin, begin + value.nbytes, const, restrict))
            checked.append(value)
        return checked if _apart(spans) else None


def usual_sizes(grid: tuple[int, ...], block: tuple[int, ...]) -> bool:
    """Whether :func:`need_sizes` has nothing to say, for plain integers."""
    if len(grid) != 3 or len(block) != 3:
        return False
    (gx, gy, gz), (bx, by, bz) = grid, block
    fine = 0 <= gx <= GRID_LIMIT[0] and 0 <= gy <= GRID_LIMIT[1] and 0 <= gz <= GRID_LIMIT[2]
    return fine and bx >= 1 and by >= 1 and 1 <= bz <= BLOCK_LIMIT[2] and bx * by * bz <= THREADS_LIMIT


def _apart(spans: list[tuple[int, int, bool, bool]]) -> bool:
    """Whether no array lies in another's place; two that are only read, and empty ones, are left to the long way."""
    spans.sort()
    end = 0
    for each in spans:
        if each[0] < end or each[0] == each[1]:
            return False
        end = each[1]
    return True


def need_sizes(signature: Signature, grid: Sequence[int], block: Sequence[int]) -> None:
    """Grid and block are three sizes that the hardware takes."""
    for what, sizes, limits in (("grid", grid, GRID_LIMIT), ("block", block, BLOCK_LIMIT)):
        if len(sizes) != 3 or not all(isinstance(n, _INTEGER) for n in sizes):
            _refuse(signature, f"{what} must be three integers", repr(tuple(sizes)), "give unused axes the size 1")
        if any(n < (what == "block") or n > most for n, most in zip(sizes, limits, strict=True)):
            remedy = "let each thread do more, or move the large axis to x"
            _refuse(signature, f"{what} must be at most {limits}, and a block at least 1", str(tuple(sizes)), remedy)
    threads = int(block[0]) * int(block[1]) * int(block[2])
    if threads > THREADS_LIMIT:
        got = f"{tuple(block)}, {threads} threads"
        _refuse(signature, f"block must have at most {THREADS_LIMIT} threads", got, "use a smaller block")


def _refuse(signature: Signature, must: str, got: str, remedy: str) -> NoReturn:
    raise KernelError(f"{signature.name}: {must}, got {got}; {remedy}")


def _need_array(signature: Signature, place: int, parameter: Parameter, array: Any) -> None:
    if array is None:
        return  # a null pointer, for what a kernel takes optionally
    who = f"argument {place} '{parameter.text}'"
    if not hasattr(array, "dtype") or not hasattr(array, "flags"):
        _refuse(signature, f"{who} must be a NumPy or CuPy array, or None", type(array).__name__, "pass the raw array")
    if array.dtype != parameter.dtype:
        must = f"{who} must be {parameter.dtype}"
        _refuse(signature, must, str(array.dtype), "cast it, or load the kernel for another dtype")
    if not array.flags.c_contiguous:
        must = f"{who} must be C-contiguous"
        _refuse(
            signature,
            must,
            f"shape {array.shape} with strides {array.strides}",
            "use ascontiguousarray, or pass strides",
        )
    if not parameter.const and isinstance(array, np.ndarray) and not array.flags.writeable:
        _refuse(signature, f"{who} must be writable", "a read-only array", "copy it, or declare the pointer const")
    wide = parameter.lanes * parameter.dtype.itemsize
    if parameter.lanes > 1 and (address(array) % wide or array.size % parameter.lanes):
        got = f"{array.size} elements at an address {address(array) % wide} past one"
        must = f"{who} must have a multiple of {parameter.lanes} elements and begin at a multiple of {wide} bytes"
        _refuse(signature, must, got, "use the kernel for single elements")
    if array.size > INDEX_LIMIT and not any(p.dtype.itemsize == 8 for p in signature.parameters if not p.pointer):
        must = f"{who} must have at most {INDEX_LIMIT} elements, since the kernel takes its sizes in 32 bits"
        _refuse(signature, must, str(array.size), "split the batch, or use a kernel with long long sizes")


def _scalar(signature: Signature, place: int, parameter: Parameter, value: Any) -> np.generic:
    who = f"argument {place} '{parameter.text}'"
    kind = parameter.dtype.kind
    if kind == "f":
        if isinstance(value, bool) or not isinstance(value, _NUMBER):
            _refuse(signature, f"{who} must be a number", repr(value), "pass a Python float")
        return parameter.dtype.type(value)
    if kind == "b":
        if not isinstance(value, bool | np.bool_):
            _refuse(signature, f"{who} must be True or False", repr(value), "pass a bool")
        return np.bool_(value)
    if isinstance(value, bool) or not isinstance(value, _INTEGER):
        _refuse(signature, f"{who} must be an integer", repr(value), "pass a Python int")
    low, high = _RANGES[parameter.dtype]
    if not low <= value <= high:
        _refuse(signature, f"{who} must be from {low} to {high}", str(value), "use a wider parameter")
    return parameter.dtype.type(value)


def _need_one_place(signature: Signature, arguments: Sequence[Any]) -> None:
    pointers = [(k, arguments[k]) for k, each in enumerate(signature.parameters) if each.pointer]
    arrays = [(k, each) for k, each in pointers if each is not None]
    places = {"sim" if isinstance(each, np.ndarray) else f"cuda:{each.device.id}": k for k, each in arrays}
    if len(places) > 1:
        told = ", ".join(f"argument {k} '{signature.parameters[k].name}' on {place}" for place, k in places.items())
        _refuse(signature, "all arrays must be on one device", told, "move them with .to(device)")


def _need_no_overlap(signature: Signature, arguments: Sequence[Any]) -> None:
    spans = [
        (_begin(a), _begin(a) + a.nbytes, k, p)
        for k, (p, a) in enumerate(zip(signature.parameters, arguments, strict=True))
        if p.pointer and a is not None and a.nbytes
    ]
    spans.sort(key=lambda each: each[0])
    for (_, end, k, one), (begin, _, j, other) in pairwise(spans):
        written = not (one.const and other.const)
        if begin < end and written and (one.restrict or other.restrict):
            got = f"arguments {k} '{one.name}' and {j} '{other.name}' in one place"
            _refuse(signature, "arrays behind __restrict__ must not overlap", got, "copy one of them")
