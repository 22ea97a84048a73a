"""Changes in place, seen by the graph.

Under ``no_grad`` (or where no gradient is wanted) the array is overwritten and its version counted up, so that a
backward which needs the old values says so. Where a gradient is wanted, the tensor's history moves on to the new op.
Two cases cannot be made right and raise: a leaf that needs a gradient, and a tensor that shares memory with a
view of it (or is one): the other's history would not know.
"""

from collections.abc import Callable
from typing import Any

from gpunet.errors import DTypeError, GraphError, ShapeError
from gpunet.graph import Function, version_of
from gpunet.modes import mode
from gpunet.ops.elementwise import RANK
from gpunet.ops.shape import Index, _key
from gpunet.tensor import Tensor


class SetIndex(Function):
    """A copy of x with ``value`` at ``key``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Any, *, key: Any) -> Any:
        ctx.key = key
        y = x.data.copy()
        y[key] = value.data if isinstance(value, Tensor) else value
        return y

    @staticmethod
    def backward(ctx: Any, gy: Tensor) -> Any:
        from gpunet.ops.reduce import sum_to

        need_x, need_value = ctx.needs_input_grad
        gx = SetIndex.apply(gy, 0.0, key=ctx.key) if need_x else None
        if not need_value:
            return gx, None
        gvalue, shape = Index.apply(gy, key=ctx.key), ctx.edges[1][2][0]
        extra = max(len(shape) - gvalue.ndim, 0)  # a value may have leading axes of size 1 more than its place
        return gx, sum_to(gvalue, shape[extra:]).reshape(shape)


def _need_changeable(op: str, x: Tensor, flows: bool) -> None:
    """Raises where the change would go unseen by a gradient; ``flows`` says whether one is recorded here."""
    if not flows:
        return
    if x.requires_grad and x._node is None:
        raise GraphError(
            f"{op}: a leaf that needs a gradient must not change in place, got shape {x.shape}; "
            "change it under gn.no_grad(), or use the form that is not in place"
        )
    other = version_of(x).sharer(x)
    if other is not None:  # the other tensor's history would not know of the change
        raise GraphError(
            f"{op}: a tensor that shares memory with a view of it (or is one) must not change in place while gradients "
            f"are recorded, got shape {x.shape} beside one of shape {other.shape}; use the form that is not in place, "
            "index the whole tensor (x[i, j] = ..., not x[i][j] = ...), or .clone() first"
        )


def _take_over(op: str, x: Tensor, new: Tensor) -> None:
    """``x`` gets the values and the history of ``new``."""
    if new.data.shape != x.data.shape:
        raise ShapeError(
            f"{op}: the result must fit into {x.shape}, got {new.shape}; use the form that is not in place"
        )
    if RANK[new.dtype.kind] > RANK[x.dtype.kind]:
        raise DTypeError(
            f"{op}: the result must fit into {x.dtype}, got {new.dtype}; use the form that is not in place"
        )
    _need_writable(op, x)
    x.data[...] = new.data
    x._bump(op)
    if new.requires_grad:
        new = new.to(x.dtype)
        retained = x._edge and x._node.retained and x._node.retained.pop(x._edge[1], None)
        x.requires_grad, x._edge = True, new._edge
        if retained:
            x.retain_grad()


def _need_writable(op: str, x: Tensor) -> None:
    if not getattr(x.data.flags, "writeable", True):
        raise GraphError(
            f"{op}: the tensor must own writable memory, got one of shape {x.shape} that is expanded or read-only; "
            "use .clone() first"
        )


def update(op: str, x: Tensor, function: Callable[..., Tensor], *args: Any) -> Any:
    """``x`` becomes ``function(x, *args)`` in its own memory."""
    flows = mode.grad and (x.requires_grad or any(isinstance(arg, Tensor) and arg.requires_grad for arg in args))
    _need_changeable(op, x, flows)
    _take_over(op, x, function(_before(x) if flows else x, *args))
    return x


def _before(x: Tensor) -> Tensor:
    """``x`` as it is now, history included: what the op may keep for backward while ``x`` changes."""
    out = Tensor._wrap(x.data.copy(), x.device)
    out.requires_grad, out._edge = x.requires_grad, x._edge
    return out


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
        x.requires_grad, x._edge = False, None  # nothing of the old values is left to have a gradient
    return x


def set_index(x: Tensor, key: Any, value: Any) -> None:
    """x[key] = value."""
    flows = mode.grad and (x.requires_grad or (isinstance(value, Tensor) and value.requires_grad))
    _need_changeable("setitem", x, flows)
    key = _key(x, key)
    try:
        if flows:
            value = value.to(x.dtype) if isinstance(value, Tensor) else value
            _take_over("setitem", x, SetIndex.apply(x, value, key=key))
        else:
            _need_writable("setitem", x)
            x.data[key] = value.data if isinstance(value, Tensor) else value
            x._bump("setitem")
    except (IndexError, ValueError) as error:
        raise ShapeError(f"setitem: {error}, for a tensor of shape {x.shape}") from None
