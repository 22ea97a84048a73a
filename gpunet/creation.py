"""Making tensors: from data, filled, or random. Random numbers are drawn on the host, the same for every device."""

from typing import Any

import numpy as np

from gpunet import devices, random
from gpunet.errors import ArgumentError, DTypeError
from gpunet.tensor import Tensor, as_dtype


def tensor(data: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with its own copy of ``data``.

    Args:
        data: a number, a nested list, an array or a tensor.
        dtype: NumPy dtype or name; None keeps an array's dtype, makes Python floats float32 and integers int64.
        device: "cpu", "cuda", "cuda:N", "sim" or "auto"; None for the default device.
        requires_grad: whether backward shall fill ``.grad``.

    Returns:
        A leaf tensor.

    Raises:
        DTypeError: data is no regular nest of numbers, or a gradient is asked of integers.
        DeviceError: the device cannot be used here.

    Example:
        >>> import gpunet as gn
        >>> gn.tensor([[1.0, 2.0]]).shape
        (1, 2)
    """
    return Tensor(data, dtype, device, requires_grad)


def from_numpy(array: np.ndarray) -> Tensor:
    """A CPU tensor that shares memory with ``array``."""
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"from_numpy: array must be a NumPy array, got {type(array).__name__}; use gn.tensor()")
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"from_numpy: array must be floating, integer or bool, got {array.dtype}")
    return Tensor._wrap(np.asarray(array), devices.CPU)


def from_dlpack(array: Any) -> Tensor:
    """A tensor that shares memory with any array or tensor that speaks DLPack (PyTorch, JAX, CuPy, NumPy)."""
    if not hasattr(array, "__dlpack_device__"):
        raise ArgumentError(f"from_dlpack: array must have __dlpack__, got {type(array).__name__}; use gn.tensor()")
    kind, index = array.__dlpack_device__()
    if int(kind) == 1:  # kDLCPU
        return Tensor._wrap(np.from_dlpack(array), devices.CPU)
    place = devices.device(f"cuda:{index}")
    return Tensor._wrap(place.xp.from_dlpack(array), place)


def _shape(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    shape = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
    if any(not isinstance(size, int | np.integer) or size < 0 for size in shape):
        raise ArgumentError(f"shape: sizes must be integers of at least 0, got {shape}")
    return tuple(int(size) for size in shape)


def _make(array: np.ndarray, device: Any, requires_grad: bool) -> Tensor:
    place = devices.device(device)
    out = Tensor._wrap(place.asarray(array), place)
    return out.requires_grad_() if requires_grad else out


def zeros(*size: Any, dtype: Any = np.float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Zeros of shape ``size``."""
    return _make(np.zeros(_shape(size), as_dtype("zeros", dtype)), device, requires_grad)


def ones(*size: Any, dtype: Any = np.float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Ones of shape ``size``."""
    return _make(np.ones(_shape(size), as_dtype("ones", dtype)), device, requires_grad)


def full(size: Any, value: float, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """``value`` in shape ``size``; None takes float32 or int64 after the value."""
    dtype = np.asarray(value).dtype if dtype is None else dtype
    dtype = np.float32 if dtype == np.float64 and isinstance(value, float) else dtype
    shape = _shape(tuple(size) if isinstance(size, tuple | list) else (size,))
    return _make(np.full(shape, value, as_dtype("full", dtype)), device, requires_grad)


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from ``start`` (0 when one number is given) up to, without, ``stop``; int64, or float32 for floats."""
    first, last = (0, start) if stop is None else (start, stop)
    array = np.arange(first, last, step)
    dtype = (np.float32 if array.dtype.kind == "f" else np.int64) if dtype is None else dtype
    return _make(array.astype(as_dtype("arange", dtype)), device, requires_grad)


def eye(
    n: int, m: int | None = None, dtype: Any = np.float32, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The identity matrix, (n, m)."""
    return _make(np.eye(n, m, dtype=as_dtype("eye", dtype)), device, requires_grad)


def rand(*size: Any, dtype: Any = np.float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers in [0, 1)."""
    return _make(random.generator().random(_shape(size), dtype=np.dtype(dtype).type), device, requires_grad)


def randn(*size: Any, dtype: Any = np.float32, device: Any = None, requires_grad: bool = False) -> Tensor:
    """Normal random numbers with mean 0 and deviation 1."""
    array = random.generator().standard_normal(_shape(size), dtype=np.dtype(dtype).type)
    return _make(array, device, requires_grad)


def zeros_like(x: Tensor, dtype: Any = None) -> Tensor:
    """Zeros of the shape, dtype and device of ``x``."""
    return zeros(x.shape, dtype=x.dtype if dtype is None else dtype, device=x.device)


def ones_like(x: Tensor, dtype: Any = None) -> Tensor:
    """Ones of the shape, dtype and device of ``x``."""
    return ones(x.shape, dtype=x.dtype if dtype is None else dtype, device=x.device)


def full_like(x: Tensor, value: float, dtype: Any = None) -> Tensor:
    """``value`` in the shape, dtype and device of ``x``."""
    return full(x.shape, value, dtype=x.dtype if dtype is None else dtype, device=x.device)


def rand_like(x: Tensor, dtype: Any = None) -> Tensor:
    """Uniform random numbers in the shape, dtype and device of ``x``."""
    return rand(x.shape, dtype=x.dtype if dtype is None else dtype, device=x.device)


def randn_like(x: Tensor, dtype: Any = None) -> Tensor:
    """Normal random numbers in the shape, dtype and device of ``x``."""
    return randn(x.shape, dtype=x.dtype if dtype is None else dtype, device=x.device)
