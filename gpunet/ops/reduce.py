"""Sums, means, variances and extremes over axes. NumPy or CuPy computes them.

``dim`` is an axis, a tuple of axes, or None for all; negative axes count from the end.
"""

import builtins
import math
from typing import Any

import numpy as np

from gpunet.errors import DTypeError, ShapeError
from gpunet.graph import Function
from gpunet.tensor import Tensor


def axes_of(op: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """``dim`` as a sorted tuple of axes from 0 to ndim - 1."""
    from gpunet.ops.checks import axis_of  # checks needs Tensor, which needs this module

    if dim is None:
        return tuple(range(ndim))
    dims = dim if isinstance(dim, tuple | list) else (dim,)
    axes = tuple(sorted(axis_of(op, each, ndim) for each in dims))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"{op}: each axis may be named once, got dim={dim} for a tensor with {ndim} axes")
    return axes if ndim else ()


def _kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape))


class Sum(Function):
    """Sum over axes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, axes: tuple[int, ...], keepdim: bool) -> Any:
        ctx.shape, ctx.axes = x.shape, axes
        return x.data.sum(axes, keepdims=keepdim) if axes else x.data.copy()

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return Expand.apply(gy.reshape(_kept(ctx.shape, ctx.axes)), shape=ctx.shape)


class Expand(Function):
    """Axes of size 1 repeated, and new leading axes; a view."""

    view = True

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, shape: tuple[int, ...]) -> Any:
        ctx.shape = x.shape
        return x.device.xp.broadcast_to(x.data, shape)

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        return sum_to(gy, ctx.shape)


class Extremum(Function):
    """The largest or smallest element over axes; elements that tie share the gradient evenly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *, axes: tuple[int, ...], keepdim: bool, name: str) -> Any:
        y = getattr(x.data, name)(axes, keepdims=True)
        ctx.axes, ctx.kept = axes, y.shape
        y = y if keepdim else y.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])
        ctx.save(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        x, y = ctx.saved
        xp, peak = x.device.xp, y.data.reshape(ctx.kept)
        hit = (x.data == peak) | (xp.isnan(x.data) & xp.isnan(peak))
        share = Tensor._wrap((hit / hit.sum(ctx.axes, keepdims=True)).astype(x.dtype), x.device)
        return Expand.apply(gy.reshape(ctx.kept), shape=x.shape) * share


def sum_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """``x`` summed down to ``shape``, the adjoint of broadcasting ``shape`` up to ``x``."""
    if x.data.shape == shape:
        return x
    lead = x.ndim - len(shape)
    axes = (*range(lead), *(axis + lead for axis, size in enumerate(shape) if size == 1 and x.shape[axis + lead] != 1))
    out = Sum.apply(x, axes=axes, keepdim=True)
    return out.reshape(shape) if lead else out


def sum(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Sum over ``dim``; integers and bools sum as int64."""
    if x.dtype.kind in "bu":
        x = x.to(np.int64)
    return Sum.apply(x, axes=axes_of("sum", dim, x.ndim), keepdim=keepdim)


def mean(x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Mean over ``dim``; of no elements NaN."""
    if x.dtype.kind != "f":
        raise DTypeError(f"mean: the tensor must be floating, got {x.dtype}; use .float()")
    axes = axes_of("mean", dim, x.ndim)
    count = math.prod([x.shape[axis] for axis in axes])
    return Sum.apply(x, axes=axes, keepdim=keepdim) / count


def var(x: Tensor, dim: Any = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Mean of the squared distance from the mean, with divisor n - correction; two passes, so no cancellation."""
    axes = axes_of("var", dim, x.ndim)
    count = math.prod([x.shape[axis] for axis in axes])
    away = x - mean(x, axes, keepdim=True)
    total = Sum.apply(away * away, axes=axes, keepdim=keepdim)
    return total / builtins.max(count - correction, 0)


def std(x: Tensor, dim: Any = None, correction: int = 1, keepdim: bool = False) -> Tensor:
    """Square root of :func:`var`; where that is 0, so is the gradient."""
    from gpunet.ops.elementwise import where

    variance = var(x, dim, correction, keepdim)
    flat = variance == 0
    return where(flat, 0.0, where(flat, 1.0, variance).sqrt())


def _extremum(op: str, x: Tensor, dim: int | None, keepdim: bool) -> Any:
    from gpunet.ops.shape import take_along

    if dim is None:
        _need_elements(op, x, None)
        return Extremum.apply(x, axes=tuple(range(x.ndim)), keepdim=False, name=op)
    axes = axes_of(op, dim, x.ndim)
    if not axes:  # a single number along its only, missing, axis
        return Extremum.apply(x, axes=(), keepdim=True, name=op), _position(f"arg{op}", x, None, keepdim=True)
    (axis,) = axes
    _need_elements(op, x, axis)
    position = _position(f"arg{op}", x, dim, keepdim=True)
    values = take_along(x, position, axis)
    return (values, position) if keepdim else (values.squeeze(axis), position.squeeze(axis))


def max(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The largest element (ties share the gradient), or along one axis (values, positions): the first of a tie.

    NaN counts as the largest.
    """
    return _extremum("max", x, dim, keepdim)


def min(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest element (ties share the gradient), or along one axis (values, positions): the first of a tie.

    NaN counts as the smallest.
    """
    return _extremum("min", x, dim, keepdim)


def _need_elements(op: str, x: Tensor, dim: int | None) -> None:
    if 0 in (x.shape if dim is None else x.shape[dim : dim + 1]):
        where = "the tensor" if dim is None else f"axis {dim}"
        raise ShapeError(f"{op}: {where} must have an element, got shape {x.shape}")


def _position(name: str, x: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    axes = axes_of(name, dim, x.ndim)
    _need_elements(name, x, axes[0] if dim is not None and axes else None)
    axis = axes[0] if dim is not None and axes else None
    return Tensor._wrap(getattr(x.data, name)(axis, keepdims=keepdim and axis is not None), x.device)


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the largest element, flat or along an axis; the first of a tie; the first NaN if there is one."""
    return _position("argmax", x, dim, keepdim)


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the smallest element, flat or along an axis; the first of a tie; the first NaN if there is one."""
    return _position("argmin", x, dim, keepdim)


def logsumexp(x: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(x))) along ``dim`` without overflow."""
    axes = axes_of("logsumexp", dim, x.ndim)
    top = x.detach().data.max(axes, keepdims=True)
    top = Tensor._wrap(np.where(abs(top) < np.inf, top, 0).astype(x.dtype), x.device)  # an infinite top stays outside
    total = Sum.apply((x - top).exp(), axes=axes, keepdim=True).log() + top
    return total if keepdim else total.reshape([size for axis, size in enumerate(x.shape) if axis not in axes])


abs = builtins.abs  # the built-in, beside max, min and sum, which this module names anew
