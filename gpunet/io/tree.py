"""Nested Python values as JSON, with arrays beside it: how an optimiser's state and the random state are kept.

JSON knows neither tuples nor keys that are numbers, so both are marked; decoding gives back exactly what was encoded.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunet.errors import ArgumentError, DataError
from gpunet.tensor import Tensor

ARRAY, NUMBERS, TUPLE, ITEMS = "$array", "$numbers", "$tuple", "$items"
MAX_DEPTH = 32


def encode(value: Any, name: str, arrays: dict[str, np.ndarray] | None = None) -> Any:
    """``value`` as JSON; arrays go into ``arrays`` under dotted names beginning with ``name``, or inline if None."""
    if isinstance(value, Tensor):
        value = value.device.to_host(value.data)
    elif type(value).__module__.partition(".")[0] == "cupy":
        value = value.get()
    if isinstance(value, np.ndarray):
        if arrays is None:
            return {NUMBERS: [str(value.dtype), list(value.shape), value.reshape(-1).tolist()]}
        while name in arrays:  # {"a.b": x, "a": {"b": y}}
            name += "'"
        arrays[name] = value
        return {ARRAY: name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return _encode_mapping(value, name, arrays)
    if isinstance(value, list | tuple):
        parts = [encode(each, _join(name, k), arrays) for k, each in enumerate(value)]
        return {TUPLE: parts} if isinstance(value, tuple) else parts
    if value is None or isinstance(value, bool | int | float | str):
        return value
    got = type(value).__name__
    raise ArgumentError(f"save: {name} must hold numbers, text, lists, dictionaries and arrays, got {got}")


def _join(name: str, part: Any) -> str:
    return f"{name}{part}" if name.endswith(":") else f"{name}.{part}"


def _encode_mapping(value: Mapping[Any, Any], name: str, arrays: dict[str, np.ndarray] | None) -> Any:
    if all(isinstance(key, str) and not key.startswith("$") for key in value):
        return {key: encode(each, _join(name, key), arrays) for key, each in value.items()}
    items = [[encode(key, name, None), encode(each, _join(name, key), arrays)] for key, each in value.items()]
    return {ITEMS: items}


def decode(value: Any, arrays: Mapping[str, np.ndarray], depth: int = 0) -> Any:
    """The value that :func:`encode` was given.

    Raises:
        DataError: a mark without its content, an array that is not there, or nesting deeper than any real state.
    """
    if depth > MAX_DEPTH:
        raise DataError(f"load: the record must nest at most {MAX_DEPTH} deep, got more")
    if isinstance(value, list):
        return [decode(each, arrays, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    try:
        if ARRAY in value:
            return arrays[value[ARRAY]]
        if NUMBERS in value:
            dtype, shape, numbers = value[NUMBERS]
            return np.array(numbers, _number_dtype(dtype)).reshape(shape)
        if TUPLE in value:
            return tuple(decode(each, arrays, depth + 1) for each in value[TUPLE])
        if ITEMS in value:
            return {_key(decode(key, arrays, depth + 1)): decode(each, arrays, depth + 1) for key, each in value[ITEMS]}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(f"load: the record must hold what save wrote, got {str(value)[:80]!r} ({error})") from None
    return {key: decode(each, arrays, depth + 1) for key, each in value.items()}


def _key(key: Any) -> Any:
    hash(key)  # TypeError for a list
    return key


def _number_dtype(name: Any) -> np.dtype[Any]:
    dtype = np.dtype(str(name))
    if dtype.kind not in "fiub":
        raise ValueError(f"dtype {dtype}")
    return dtype
