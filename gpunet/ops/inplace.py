"""Changes in place, seen by the graph.

Under ``no_grad`` (or where no gradient is wanted) the array is overwritten and its version counted up, so that a
backward which needs the old values says so. Where a gradient is wanted, the tensor's history moves on to the new op.
Two cases cannot be made right and raise: a leaf that needs a gradient, and a tensor that shares memory with a
differentiable view.
"""

from collections.abc import Callable
from typing import Any

from gpunet.errors import GraphError, ShapeError
from gpunet.graph import Function, mode, version_of
from gpunet.ops.shape import Index, _key
from gpunet.tensor import Tensor


class SetIndex(Function):
    """A copy of x with ``value`` at ``key``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Any, *, key: Any) -> Any:
        ctx.key = key
        y = x.data.copy()
        y[key] = value.data if isinstance(value, Tensor) else value
        ctx.value_shape = getattr(value, "shape", None)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        from gpunet.ops.reduce import sum_to

        need_x, need_value = ctx.needs_input_grad
        gx = SetIndex.apply(gy, 0.0, key=ctx.key) if need_x else None
        return gx, sum_to(Index.apply(gy, key=ctx.key), ctx.value_shape) if need_value else None


def _need_changeable(op: str, x: Tensor, flows: bool) -> None:
    if not flows:
        return
    if x.requires_grad and x._node is None:
        raise GraphError(
            f"{op}: a leaf that needs a gradient must not change in place, got shape {x.shape}; "
            "change it under gn.no_grad(), or use the form that is not in place"
        )
    if version_of(x).viewed or (x._node is not None and x._node.view):
        raise GraphError(
            f"{op}: a tensor that shares memory with a differentiable view must not change in place while gradients are "
            f"recorded, got shape {x.shape}; use the form that is not in place, or .clone() it first"
        )


def _take_over(op: str, x: Tensor, new: Tensor) -> None:
    """``x`` gets the values and the history of ``new``."""
    if new.data.shape != x.data.shape:
        raise ShapeError(f"{op}: the result must fit in place into {x.shape}, got {new.shape}; use the form that is not in place")
    x.data[...] = new.data
    x._bump(op)
    if new.requires_grad:
        x.requires_grad, x._node, x._index = True, new._node, new._index


def update(op: str, x: Tensor, function: Callable[..., Tensor], *args: Any) -> Any:
    """``x`` becomes ``function(x, *args)`` in its own memory."""
    flows = mode.grad and (x.requires_grad or any(isinstance(arg, Tensor) and arg.requires_grad for arg in args))
    _need_changeable(op, x, flows)
    _take_over(op, x, function(x, *args).to(x.dtype))
    return x


def copy(x: Tensor, source: Any, op: str = "copy_") -> Any:
    """``x`` takes over the values of ``source``, broadcast and cast."""
    flows = mode.grad and (x.requires_grad or (isinstance(source, Tensor) and source.requires_grad))
    _need_changeable(op, x, flows)
    if not isinstance(source, Tensor):
        source = Tensor(source, x.dtype, x.device)
    new = source.to(dtype=x.dtype, device=x.device)
    try:
        new = new.expand(x.shape)
    except ShapeError:
        raise ShapeError(f"{op}: the source must broadcast to {x.shape}, got {source.shape}") from None
    _take_over(op, x, new)
    if flows and not new.requires_grad:
        x.requires_grad, x._node, x._index = False, None, 0  # nothing of the old values is left to have a gradient
    return x


def set_index(x: Tensor, key: Any, value: Any) -> None:
    """x[key] = value."""
    flows = mode.grad and (x.requires_grad or (isinstance(value, Tensor) and value.requires_grad))
    _need_changeable("setitem", x, flows)
    key = _key(x, key)
    try:
        if flows:
            _take_over("setitem", x, SetIndex.apply(x, value.to(x.dtype) if isinstance(value, Tensor) else value, key=key))
        else:
            x.data[key] = value.data if isinstance(value, Tensor) else value
            x._bump("setitem")
    except (IndexError, ValueError) as error:
        raise ShapeError(f"setitem: {error}, for a tensor of shape {x.shape}") from None
