"""Shapes, views, indexing, joining, casting. NumPy or CuPy does it; what can be a view is one."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.devices import Device
from gpunet.errors import ArgumentError, DeviceError, DTypeError, ShapeError
from gpunet.graph import Function
from gpunet.ops.reduce import Expand
from gpunet.tensor import Tensor, as_dtype


class Reshape(Function):
    """The same elements in another shape."""

    view = True

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, shape: tuple[int, ...]) -> Any:
        ctx.shape = x.shape
        return x.data.reshape(shape)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return Reshape.apply(gy, shape=ctx.shape)


class Permute(Function):
    """The axes in another order."""

    view = True

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, order: tuple[int, ...]) -> Any:
        ctx.order = order
        return x.data.transpose(order)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return Permute.apply(gy, order=tuple(int(k) for k in np.argsort(ctx.order)))


class Index(Function):
    """x[key]."""

    view = True

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, key: Any) -> Any:
        ctx.key, ctx.shape = key, x.shape
        if _is_basic(key):  # the Ellipsis keeps a single element a view, where NumPy would hand out a number
            parts = key if isinstance(key, tuple) else (key,)
            return x.data[key if any(each is Ellipsis for each in parts) else (*parts, ...)]
        return x.data[key]

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return IndexAdd.apply(gy, key=ctx.key, shape=ctx.shape)


class IndexAdd(Function):
    """Zeros of ``shape`` with ``gy`` added at ``key``: the adjoint of :class:`Index`. Repeated positions add up."""

    @staticmethod
    def forward(ctx: Any, gy: Tensor, *, key: Any, shape: tuple[int, ...]) -> Any:
        ctx.key = key
        gx = gy.device.xp.zeros(shape, gy.dtype)
        if _is_basic(key):
            gx[key] = gy.data
        else:
            gy.device.xp.add.at(gx, key, gy.data)
        return gx

    @staticmethod
    def backward(ctx: Any, ggx: Tensor) -> Any:
        return Index.apply(ggx, key=ctx.key)


class Cat(Function):
    """Tensors joined along an existing axis."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor, axis: int) -> Any:
        ctx.axis, ctx.sizes = axis, [each.shape[axis] for each in tensors]
        return tensors[0].device.xp.concatenate([each.data for each in tensors], axis)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return split(gy, ctx.sizes, ctx.axis)


class Pad(Function):
    """A frame of one value around the elements; negative widths cut."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, widths: tuple[tuple[int, int], ...], value: float) -> Any:
        ctx.widths = widths
        cut = tuple(slice(max(-a, 0), size - max(-b, 0)) for (a, b), size in zip(widths, x.shape))
        frame = [(max(a, 0), max(b, 0)) for a, b in widths]
        return x.device.xp.pad(x.data[cut], frame, constant_values=value)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return Pad.apply(gy, widths=tuple((-a, -b) for a, b in ctx.widths), value=0.0)


class Cast(Function):
    """Another dtype and/or device; the gradient goes back to where x came from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, dtype: Any, device: Device) -> Any:
        ctx.dtype, ctx.device = x.dtype, x.device
        y = device.asarray(x.data, dtype)
        return Tensor._wrap(y.copy() if y is x.data else y, device)  # cpu and sim could share memory

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return to(gy, ctx.dtype, ctx.device)


class Clone(Function):
    """A copy with its own memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Any:
        return x.data.copy()

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return gy


class TakeAlong(Function):
    """x[..., position, ...] along one axis, one element for each position (torch's gather)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, position: Any, axis: int) -> Any:
        ctx.position, ctx.axis, ctx.size = position, axis, x.shape[axis]
        return x.device.xp.take_along_axis(x.data, position, axis)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        xp, shape = gy.device.xp, list(gy.shape)
        shape[ctx.axis] = ctx.size
        key = [xp.arange(size).reshape(-1, *[1] * (gy.ndim - axis - 1)) for axis, size in enumerate(gy.shape)]
        key[ctx.axis] = ctx.position
        return IndexAdd.apply(gy, key=tuple(key), shape=tuple(shape))


# ------------------------------------------------------------------------------------------------ public functions


def _sizes(shape: Any) -> tuple[int, ...]:
    """``(2, 3)`` out of either reshape(2, 3) or reshape((2, 3))."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = shape[0]
    return tuple(int(size) for size in shape)


def _resolve(op: str, x: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """``shape`` with its -1 worked out."""
    known = math.prod([size for size in shape if size != -1])
    free = shape.count(-1)
    total = x.numel()
    fits = (known > 0 and total % known == 0) if free else known == total
    if free > 1 or min(shape, default=0) < -1 or not fits:
        raise ShapeError(f"{op}: the new shape must hold {total} elements like {x.shape}, got {shape}")
    return tuple(total // known if size == -1 else size for size in shape)


def reshape(x: Tensor, shape: Any) -> Tensor:
    """The same elements in another shape; one size may be -1."""
    shape = _resolve("reshape", x, _sizes(shape))
    return x if shape == x.data.shape and x._node is not None else Reshape.apply(x, shape=shape)


def view(x: Tensor, shape: Any) -> Tensor:
    """:func:`reshape` that never copies."""
    out = reshape(x, shape)
    if x.numel() and not x.device.xp.may_share_memory(out.data, x.data):
        raise ShapeError(f"view: {x.shape} in this memory order has no view of shape {out.shape}; use reshape")
    return out


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes start_dim to end_dim joined into one."""
    from gpunet.ops.checks import axis_of

    first, last = axis_of("flatten", start_dim, x.ndim, "start_dim"), axis_of("flatten", end_dim, x.ndim, "end_dim")
    if first > last:
        raise ArgumentError(f"flatten: start_dim must not come after end_dim, got {start_dim} and {end_dim}")
    joined = math.prod(x.shape[first : last + 1])
    return reshape(x, ((*x.shape[:first], joined, *x.shape[last + 1 :]),))


def permute(x: Tensor, dims: Any) -> Tensor:
    """The axes in another order."""
    from gpunet.ops.checks import axis_of

    order = tuple(axis_of("permute", dim, x.ndim, "dims") for dim in _sizes(dims))
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"permute: dims must name each of the {x.ndim} axes once, got {_sizes(dims)}")
    return Permute.apply(x, order=order)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    from gpunet.ops.checks import axis_of

    a, b = axis_of("transpose", dim0, x.ndim, "dim0"), axis_of("transpose", dim1, x.ndim, "dim1")
    order = list(range(x.ndim))
    if order:
        order[a], order[b] = order[b], order[a]
    return Permute.apply(x, order=tuple(order))


def squeeze(x: Tensor, dim: int | None = None) -> Tensor:
    """Without axes of size 1."""
    from gpunet.ops.checks import axis_of

    chosen = range(x.ndim) if dim is None else (axis_of("squeeze", dim, x.ndim),)
    return reshape(x, (tuple(size for axis, size in enumerate(x.shape) if size != 1 or axis not in chosen),))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new axis of size 1."""
    from gpunet.ops.checks import axis_of

    axis = axis_of("unsqueeze", dim, x.ndim + 1)
    return reshape(x, ((*x.shape[:axis], 1, *x.shape[axis:]),))


def expand(x: Tensor, shape: Any) -> Tensor:
    """Axes of size 1 repeated without copying; -1 keeps a size."""
    sizes = _sizes(shape)
    lead = len(sizes) - x.ndim
    full = tuple(x.shape[k - lead] if size == -1 and k >= lead else size for k, size in enumerate(sizes))
    if lead < 0 or any(new != old and old != 1 for new, old in zip(full[lead:], x.shape)) or min(full, default=0) < 0:
        raise ShapeError(f"expand: only axes of size 1 can be repeated, got {x.shape} to {sizes}")
    return Expand.apply(x, shape=full)


def broadcast_to(x: Tensor, shape: Any) -> Tensor:
    """:func:`expand` under NumPy's name."""
    return expand(x, shape)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along axis ``dim``; their other sizes are equal."""
    from gpunet.ops.checks import axis_of, need_tensor

    tensors = list(tensors)
    if not tensors:
        raise ArgumentError("cat: tensors must hold at least one tensor, got an empty list")
    for each in tensors:
        need_tensor("cat", tensors=each)
    axis = axis_of("cat", dim, tensors[0].ndim)
    for each in tensors[1:]:
        same = each.ndim == tensors[0].ndim and all(
            a == b for k, (a, b) in enumerate(zip(each.shape, tensors[0].shape)) if k != axis
        )
        if not same:
            raise ShapeError(f"cat: sizes must be equal but along axis {axis}, got {tensors[0].shape} and {each.shape}")
        if each.device != tensors[0].device:
            raise DeviceError(f"cat: tensors must be on one device, got {tensors[0].device} and {each.device}")
    dtype = np.result_type(*[each.dtype for each in tensors])
    return Cat.apply(*[each.to(dtype) for each in tensors], axis=axis)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis ``dim``."""
    tensors = list(tensors)
    if any(each.shape != tensors[0].shape for each in tensors):
        raise ShapeError(f"stack: shapes must be equal, got {', '.join(str(each.shape) for each in tensors)}")
    return cat([unsqueeze(each, dim) for each in tensors], dim)


def split(x: Tensor, sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along an axis: of one size (the last may be smaller), or of the sizes listed."""
    from gpunet.ops.checks import axis_of

    axis = axis_of("split", dim, x.ndim)
    total = x.shape[axis]
    if isinstance(sizes, int):
        if sizes < 1:
            raise ArgumentError(f"split: the size of a piece must be at least 1, got {sizes}")
        sizes = [min(sizes, total - start) for start in range(0, total, sizes)] or [0]
    if sum(sizes) != total:
        raise ShapeError(f"split: sizes must add up to {total}, axis {axis} of {x.shape}, got {list(sizes)}")
    ends = np.cumsum(sizes)
    lead = (slice(None),) * axis
    return tuple(index(x, (*lead, slice(int(end - size), int(end)))) for size, end in zip(sizes, ends))


def pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    """A frame of ``value`` around the elements.

    Args:
        x: any shape and dtype.
        pad: two widths for each axis, from the last axis on: (left, right, top, bottom, ...); an even number of them,
            for at most all axes. A negative width cuts.
        mode: "constant".
        value: of the frame.

    Returns:
        Tensor with the size of each named axis grown by its two widths.

    Raises:
        ArgumentError: an odd number of widths, more than x has axes for, or another mode.
        ShapeError: an axis would shrink below 0.

    Precision:
        Exact: elements are copied. Deterministic.

    Kernels:
        None: NumPy or CuPy copies.

    Source:
        The adjoint of a frame is the cut that takes it away.

    Example:
        >>> import gpunet as gn
        >>> gn.pad(gn.ones(1, 2), (1, 0, 0, 1)).tolist()
        [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    """
    from gpunet.ops.checks import need_given, need_tensor, one_of

    need_given("pad", x=x)
    need_tensor("pad", x=x)
    one_of("pad", "mode", mode, ("constant",))
    if not isinstance(pad, Sequence) or not all(isinstance(width, int | np.integer) for width in pad):
        raise ArgumentError(f"pad: pad must be a sequence of integers (left, right, top, bottom, ...), got {pad!r}")
    widths = [int(width) for width in pad]
    if len(widths) % 2 or len(widths) > 2 * x.ndim:
        raise ArgumentError(f"pad: pad must hold two widths for each of at most {x.ndim} axes, got {tuple(pad)}")
    pairs = [(0, 0)] * (x.ndim - len(widths) // 2) + list(zip(widths[::2], widths[1::2]))[::-1]
    if any(size + a + b < 0 for size, (a, b) in zip(x.shape, pairs)):
        raise ShapeError(f"pad: no axis may shrink below 0, got widths {tuple(pad)} for {x.shape}")
    return Pad.apply(x, widths=tuple(pairs), value=value)


def _key(x: Tensor, key: Any) -> Any:
    """The index with raw arrays in place of tensors and lists."""
    raw = tuple(_key_part(x, each) for each in (key if isinstance(key, tuple) else (key,)))
    return raw if isinstance(key, tuple) else raw[0]


def _key_part(x: Tensor, part: Any) -> Any:
    if isinstance(part, Tensor):
        part = x.device.asarray(part.data)
    elif isinstance(part, list):
        part = x.device.asarray(part, None if part else np.int64)
    if hasattr(part, "dtype") and part.dtype.kind not in "iub":
        raise DTypeError(f"index: an index array must hold integers or bools, got {part.dtype}; use .long()")
    if isinstance(part, float | str):
        raise DTypeError(f"index: must be made of integers, slices, None, ... and arrays, got {part!r}")
    return part


def _is_basic(key: Any) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return all(each is None or each is Ellipsis or isinstance(each, slice | int | np.integer) for each in parts)


def index(x: Tensor, key: Any) -> Tensor:
    """x[key]: integers, slices, None, Ellipsis (a view), integer arrays or bool masks (a copy)."""
    key = _key(x, key)
    try:
        return Index.apply(x, key=key)
    except IndexError as error:
        raise ShapeError(f"index: {error}, for a tensor of shape {x.shape}") from None


def take_along(x: Tensor, position: Tensor, dim: int) -> Tensor:
    """One element of ``x`` along axis ``dim`` for each entry of ``position`` (torch's gather, sizes as NumPy's)."""
    return TakeAlong.apply(x, position=position.data, axis=dim)


def to(x: Tensor, dtype: Any = None, device: Device | None = None) -> Tensor:
    """``x`` as another dtype and/or on another device; itself when nothing changes."""
    dtype = x.data.dtype if dtype is None else as_dtype("to", dtype)
    device = x.device if device is None else device
    if dtype == x.data.dtype and device is x.device:
        return x
    return Cast.apply(x, dtype=dtype, device=device)


def clone(x: Tensor) -> Tensor:
    """A copy with its own memory."""
    return Clone.apply(x)
