"""Checks that ops share. Each raises before anything is computed, naming op, argument, both sides and the remedy."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from gpunet.kernels.common.shapes import pool_out_size
from gpunet.tensor import FLOATS, Tensor

REAL = frozenset(map(np.dtype, FLOATS))


def need_tensor(op: str, **tensors: Any) -> None:
    """Each argument is a Tensor (None passes: it means absent)."""
    for name, value in tensors.items():
        if value is not None and not isinstance(value, Tensor):
            raise DTypeError(f"{op}: {name} must be a gpunet tensor, got {type(value).__name__}; use gn.tensor({name})")


def need_given(op: str, **tensors: Any) -> None:
    """No argument is None."""
    for name, value in tensors.items():
        if value is None:
            raise DTypeError(f"{op}: {name} must be a gpunet tensor, got None")


def need_float(op: str, **tensors: Any) -> None:
    """Each argument is a Tensor of float32 or float64, all of one dtype on one device; None passes but as the first."""
    if len(tensors) == 1:
        (x,) = tensors.values()
        if isinstance(x, Tensor) and x.data.dtype in REAL:  # a dtype takes ten times as long to compare with a name
            return
    need_given(op, **dict([next(iter(tensors.items()))]))
    need_tensor(op, **tensors)
    first: tuple[str, Tensor] | None = None
    for name, value in tensors.items():
        if value is None:
            continue
        if value.dtype not in FLOATS:
            raise DTypeError(f"{op}: {name} must be float32 or float64, got {value.dtype}; use {name}.float()")
        if first is None:
            first = (name, value)
        elif value.dtype != first[1].dtype:
            raise DTypeError(
                f"{op}: {first[0]} and {name} must have one dtype, got {first[1].dtype} and {value.dtype}; "
                f"use {name}.to('{first[1].dtype}')"
            )
        elif value.device != first[1].device:
            raise DeviceError(
                f"{op}: {first[0]} and {name} must be on one device, got {first[1].device} and {value.device}; "
                f"use {name}.to('{first[1].device}')"
            )


def need_integer(op: str, x: Tensor, **tensors: Any) -> None:
    """Each argument is an integer Tensor on the device of ``x``."""
    need_tensor(op, **tensors)
    for name, value in tensors.items():
        if value.dtype.kind not in "iu":
            raise DTypeError(f"{op}: {name} must hold integers, got {value.dtype}; use {name}.long()")
        if value.device != x.device:
            raise DeviceError(
                f"{op}: {name} must be on {x.device} like the input, got {value.device}; use .to('{x.device}')"
            )


def need_ndim(op: str, name: str, tensor: Tensor, ndims: Sequence[int], meaning: str) -> None:
    """``tensor`` has one of the numbers of axes; ``meaning`` names them, as in "(N, C, H, W)"."""
    if tensor.ndim not in ndims:
        many = " or ".join(map(str, ndims))
        raise ShapeError(f"{op}: {name} must have {many} axes {meaning}, got {tensor.ndim} in shape {tensor.shape}")


def pair(op: str, name: str, value: Any, minimum: int) -> tuple[int, int]:
    """``value``, an integer or a pair (vertical, horizontal), as a pair of integers of at least ``minimum``."""
    both = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(both) != 2 or not all(isinstance(each, int | np.integer) and not isinstance(each, bool) for each in both):
        raise ArgumentError(
            f"{op}: {name} must be an integer or a pair of integers (vertical, horizontal), got {value!r}"
        )
    if min(both) < minimum:
        raise ArgumentError(f"{op}: {name} must be at least {minimum}, got {value!r}")
    return int(both[0]), int(both[1])


def axis_of(op: str, dim: Any, ndim: int, name: str = "dim") -> int:
    """``dim`` as an axis from 0 to ndim - 1; negative numbers count from the end."""
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer):
        raise ArgumentError(f"{op}: {name} must be an integer, got {dim!r}")
    low, high = (-ndim, ndim - 1) if ndim else (-1, 0)
    if not low <= dim <= high:
        raise ArgumentError(f"{op}: {name} must be from {low} to {high} for a tensor with {ndim} axes, got {dim}")
    return int(dim) % max(ndim, 1)


def one_of(op: str, name: str, value: Any, choices: Sequence[Any]) -> Any:
    """``value`` when it is one of ``choices``."""
    if value not in choices:
        raise ArgumentError(f"{op}: {name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def need_number(op: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """``value`` as a float when it is a real number from ``low`` to ``high``; NaN is in no range."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise ArgumentError(f"{op}: {name} must be a number, got {value!r}")
    if not low <= value <= high:
        least = f"at least {low:g}" if low > -math.inf else "no NaN"
        bounds = f"from {low:g} to {high:g}" if high < math.inf else least
        raise ArgumentError(f"{op}: {name} must be {bounds}, got {value!r}")
    return float(value)


def whole(op: str, name: str, value: Any, minimum: int = 1) -> int:
    """``value`` when it is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        raise ArgumentError(f"{op}: {name} must be an integer of at least {minimum}, got {value!r}")
    return int(value)


def need_shape(op: str, name: str, tensor: Tensor | None, shape: tuple[int, ...], why: str) -> None:
    """``tensor`` is absent or has exactly this shape; ``why`` says where the shape comes from."""
    if tensor is not None and tensor.shape != shape:
        raise ShapeError(f"{op}: {name} must have shape {shape}, {why}, got {tensor.shape}")


def need_image(op: str, x: Tensor) -> None:
    """``x`` is a batch of images (N, C, H, W) or one image (C, H, W); only the batch may be empty."""
    need_ndim(op, "x", x, (3, 4), "(N, C, H, W) or (C, H, W)")
    if 0 in x.shape[-3:]:
        raise ShapeError(f"{op}: sizes of x must be at least 1, got shape {x.shape}; only the batch may be empty")


def as_batch(x: Tensor) -> Tensor:
    """(N, C, H, W) out of that, or out of one image (C, H, W)."""
    return x if x.ndim == 4 else x.reshape(1, *x.shape)


def like_input(y: Tensor, x: Tensor) -> Tensor:
    """``y`` (N, ...) without its batch axis where ``x`` came without one: undoes :func:`as_batch`."""
    return y if x.ndim == 4 else y.reshape(*y.shape[1:])


def pool_geometry(
    op: str, x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> dict[str, tuple[int, int]]:
    """The arguments of a pooling as pairs, checked, with the ``output_size`` they make of ``x`` (..., H, W)."""
    kernel = pair(op, "kernel_size", kernel_size, 1)
    step = kernel if stride is None else pair(op, "stride", stride, 1)
    pad, hole = pair(op, "padding", padding, 0), pair(op, "dilation", dilation, 1)
    for side, k in zip(pad, kernel, strict=True):
        if side > k // 2:
            raise ArgumentError(
                f"{op}: padding must be at most half of the window, got {side} for a window of {k}; at most {k // 2}"
            )
    size = x.shape[-2:]
    out = [pool_out_size(*each, bool(ceil_mode)) for each in zip(size, kernel, step, pad, hole, strict=True)]
    if min(out) < 1:
        span = [(k - 1) * d + 1 for k, d in zip(kernel, hole, strict=True)]
        room = [n + 2 * p for n, p in zip(size, pad, strict=True)]
        raise ShapeError(
            f"{op}: the window must fit into the padded input, got a window of {span[0]}x{span[1]} and an input of "
            f"{room[0]}x{room[1]} ({size[0]}x{size[1]} and padding); use a smaller window or more padding"
        )
    return {"kernel_size": kernel, "stride": step, "padding": pad, "dilation": hole, "output_size": (out[0], out[1])}


def adaptive_size(op: str, x: Tensor, output_size: Any) -> tuple[int, int]:
    """``output_size``, an integer or a pair, with None replaced by the size that ``x`` (..., H, W) has."""
    both = tuple(output_size) if isinstance(output_size, list | tuple) else (output_size, output_size)
    if len(both) == 2:
        both = tuple(n if wanted is None else wanted for wanted, n in zip(both, x.shape[-2:], strict=True))
    return pair(op, "output_size", both, 1)
