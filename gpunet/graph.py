"""The graph: what an op leaves behind for backward. The walk that uses it is in backward.py.

An op is a :class:`Function` with ``forward`` and ``backward``. Calling ``apply`` runs forward; where a gradient is
wanted, the Function's instance itself stays as a node: it holds what was saved and one edge per argument, to the
node that made the argument, or to the leaf tensor.
"""

import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from gpunet.devices import Device
from gpunet.errors import GraphError

# ---------------------------------------------------------------------------------------------------------- modes


class _Mode(threading.local):
    grad: bool = True
    anomaly: bool = False


mode = _Mode()


def is_grad_enabled() -> bool:
    """Whether ops record a graph in this thread."""
    return mode.grad


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside the block no graph is recorded; works as a decorator too.

    Example:
        >>> import gpunet as gn
        >>> w = gn.ones(2, requires_grad=True)
        >>> with gn.no_grad():
        ...     (w * 2).requires_grad
        False
    """
    before, mode.grad = mode.grad, False
    try:
        yield
    finally:
        mode.grad = before


@contextmanager
def enable_grad() -> Iterator[None]:
    """Inside the block a graph is recorded again, for use within :func:`no_grad`."""
    before, mode.grad = mode.grad, True
    try:
        yield
    finally:
        mode.grad = before


@contextmanager
def detect_anomaly() -> Iterator[None]:
    """Inside the block every op remembers its line, and backward stops at the first NaN gradient naming that line.

    Raises:
        AnomalyError: in backward, when an op's gradient holds NaN, or its backward fails.

    Example:
        >>> import gpunet as gn
        >>> x = gn.tensor([0.0], requires_grad=True)
        >>> with gn.detect_anomaly():
        ...     try:
        ...         (gn.sqrt(x) * 0).sum().backward()
        ...     except gn.errors.AnomalyError as error:
        ...         print("NaN" in str(error))
        True
    """
    before, mode.anomaly = mode.anomaly, True
    try:
        yield
    finally:
        mode.anomaly = before


# ----------------------------------------------------------------------------------------------- saved values


class Version:
    """How often an array was changed in place, and by whom last. Tensors that share memory share one."""

    __slots__ = ("count", "op", "viewed")

    def __init__(self) -> None:
        self.count = 0
        self.op = ""
        self.viewed = False  # a differentiable view exists: changing the array would leave that view's history behind


def version_of(tensor: Any) -> Version:
    """The tensor's version record, made on first need: most tensors never need one."""
    if tensor._version is None:
        tensor._version = Version()
    return tensor._version


class _Saved(NamedTuple):
    value: Any  # a Tensor, a raw array, or None
    output: int  # which output of the node the array is, or -1
    version: Version | None
    stamp: int  # the version's count when it was saved


class Edge(NamedTuple):
    """Where the gradient of one argument goes: output ``slot`` of node ``target``, or the leaf tensor ``target``."""

    target: Any
    slot: int
    shape: tuple[int, ...]
    dtype: Any


class Output(NamedTuple):
    """What backward must know about an output that got no gradient, to hand over zeros."""

    shape: tuple[int, ...]
    dtype: Any
    device: Device


# ------------------------------------------------------------------------------------------------------ Function


class Function:
    """An op with a gradient. Subclass it with static ``forward(ctx, ...)`` and ``backward(ctx, *grads)``, call ``apply``.

    ``forward`` gets the arguments of ``apply`` (tensors, or anything else) and returns one tensor or a tuple of them;
    no graph is recorded inside. ``backward`` gets one gradient tensor per output and returns one gradient or None per
    positional argument of forward. ``ctx`` is the node: set any attribute on it, and

    * ``ctx.save_for_backward(*values)`` keeps tensors (inputs or outputs), read back as ``ctx.saved_tensors``;
    * ``ctx.needs_input_grad[i]`` says whether anybody wants the gradient of argument i;
    * ``ctx.mark_non_differentiable(*outputs)`` marks outputs that carry no gradient.

    Written with tensor ops, backward is differentiable itself, so second derivatives need nothing more.

    Raises:
        GraphError: backward returned the wrong number of gradients, or a saved value was changed in place or freed.
        ShapeError: backward returned a gradient of another shape than its argument.

    Example:
        >>> import gpunet as gn
        >>> class Cube(gn.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x * x
        ...
        ...     @staticmethod
        ...     def backward(ctx, gy):
        ...         (x,) = ctx.saved_tensors
        ...         return gy * 3 * x * x
        >>> x = gn.tensor([2.0], requires_grad=True)
        >>> Cube.apply(x).backward()
        >>> x.grad.tolist()
        [12.0]
    """

    view = False  # outputs may share memory with the first argument
    keeps_arguments = False  # GradFunction: the arguments are saved without being asked

    needs_input_grad: tuple[bool, ...] = ()
    edges: tuple[Edge | None, ...] = ()
    outputs: tuple[Output, ...] = ()
    params: dict[str, Any] = {}  # noqa: RUF012 never changed in place
    hooks: dict[int, dict[int, Callable[[Any], Any]]] | None = None
    retained: dict[int, weakref.ref[Any]] | None = None
    origin: str | None = None
    _saved: list[_Saved] | None = None
    _freed = False
    _silent: tuple[Any, ...] = ()

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs from (ctx, ...). To be overridden."""
        raise NotImplementedError

    @staticmethod
    def backward(*args: Any, **kwargs: Any) -> Any:
        """Computes one gradient per argument from (ctx, one gradient per output). To be overridden."""
        raise NotImplementedError(f"{args[0].name}: it has no backward; define one, or call it under gn.no_grad()")

    # -- what forward may call -----------------------------------------------------------------------------------

    def save(self, *values: Any) -> None:
        """Keeps values for backward: tensors, raw arrays (outputs come back as tensors of the graph), or None."""
        self._saved = [_Saved(value, -1, None, 0) for value in values]

    save_for_backward = save

    def mark_non_differentiable(self, *outputs: Any) -> None:
        """These outputs carry no gradient (indices, masks)."""
        self._silent = outputs

    # -- what backward may call ----------------------------------------------------------------------------------

    @property
    def saved(self) -> tuple[Any, ...]:
        """The saved values in order; raises :class:`GraphError` when freed or changed in place since."""
        if self._freed:
            raise GraphError(
                f"{self.name}: backward needs saved values, but this graph was already used and freed; "
                "pass retain_graph=True to the first backward, or run forward again"
            )
        return tuple(self._read(each) for each in self._saved or ())

    saved_tensors = saved

    def _read(self, saved: _Saved) -> Any:
        version = saved.version
        if version is not None and version.count != saved.stamp:
            shape = tuple(saved.value.shape)
            raise GraphError(
                f"{self.name}: a value saved for backward, of shape {shape}, must be unchanged, got one changed in place "
                f"by {version.op} (version {version.count}, saved at {saved.stamp}); use the form that is not in place, "
                "or change a .clone()"
            )
        if saved.output < 0:
            return saved.value
        # An output is stored as a bare array, so that node and output do not keep each other alive.
        out = Tensor._wrap(saved.value, self.outputs[saved.output].device)
        out.requires_grad, out._node, out._index, out._version = True, self, saved.output, version
        return out

    # -- apply ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the op in messages and pictures."""
        return type(self).__name__

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and, where a gradient is wanted, leaves a node in the graph. Keywords get no gradient."""
        node = cls()
        before = mode.grad
        wanted = [before and isinstance(arg, Tensor) and arg.requires_grad for arg in args]
        recording = True in wanted
        node.needs_input_grad = tuple(wanted)
        if cls.keeps_arguments:
            node.params = kwargs
            if recording:
                node.save(*args)
        mode.grad = False
        try:
            with np.errstate(all="ignore"):  # 1/0 is inf and 0/0 is NaN, as IEEE says; NumPy need not warn of it
                result = cls.forward(node, *args, **kwargs)
        finally:
            mode.grad = before
        first = next((arg for arg in args if isinstance(arg, Tensor)), None)
        if type(result) is not tuple:
            return node._finish((result,), first, args, recording)[0]
        return node._finish(result, first, args, recording)

    def _finish(self, results: tuple[Any, ...], first: Any, args: tuple[Any, ...], recording: bool) -> tuple[Any, ...]:
        """Wraps forward's results in tensors and, if recording, ties them to this node and the node to its arguments."""
        outs = tuple(self._wrap_output(result, first) for result in results)
        if not recording:
            return outs
        self.edges = tuple(_edge(arg) if need else None for arg, need in zip(args, self.needs_input_grad, strict=True))
        self.outputs = tuple(Output(out.data.shape, out.data.dtype, out.device) for out in outs)
        for index, (out, result) in enumerate(zip(outs, results, strict=True)):
            if out.data.dtype.kind == "f" and not any(result is silent for silent in self._silent):
                out.requires_grad, out._node, out._index = True, self, index
        if self._saved:
            self._saved = [self._seal(each.value, outs, results) for each in self._saved]
        self._silent = ()
        if mode.anomaly:
            self.origin = "".join(traceback.format_stack()[:-2])
        return outs

    def _wrap_output(self, result: Any, first: Any) -> Any:
        if isinstance(result, Tensor):  # a user's forward returns tensors, the project's own return arrays
            out = Tensor._wrap(result.data, result.device)
        else:
            out = Tensor._wrap(result, first.device)
        if self.view and first is not None and out.device.xp.may_share_memory(out.data, first.data):
            out._version = version_of(first)
            if first.requires_grad and mode.grad:
                out._version.viewed = True
        elif isinstance(result, Tensor) and result._version is not None:
            out._version = result._version
        return out

    def _seal(self, value: Any, outs: tuple[Any, ...], results: tuple[Any, ...]) -> _Saved:
        for index, (out, result) in enumerate(zip(outs, results, strict=True)):
            if value is result or value is out:
                version = version_of(out)
                if out.requires_grad:
                    return _Saved(out.data, index, version, version.count)
                return _Saved(out if isinstance(value, Tensor) else out.data, -1, version, version.count)
        if isinstance(value, Tensor):
            version = version_of(value)
            return _Saved(value, -1, version, version.count)
        return _Saved(value, -1, None, 0)

    def release(self) -> None:
        """Lets go of what was saved; a second backward through this node then says so."""
        if self._saved:
            self._saved, self._freed = None, True


def _edge(tensor: Any) -> Edge:
    target = tensor if tensor._node is None else tensor._node
    return Edge(target, tensor._index, tensor.data.shape, tensor.data.dtype)


class GradFunction(Function):
    """A gradient kernel as a Function: its own derivative comes from ``formula``.

    ``formula`` is the same computation in differentiable tensor ops, with the arguments and keywords of forward. So
    the first derivative runs through the kernel, and the second and higher ones through the formula.
    """

    keeps_arguments = True

    @staticmethod
    def formula(*args: Any, **params: Any) -> Any:
        """The same values as forward, in differentiable tensor ops. To be overridden."""
        raise NotImplementedError

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Differentiates ``formula`` at the saved arguments."""
        from gpunet.backward import differentiate  # the walk stands above the graph it walks

        return differentiate(type(ctx).formula, ctx.saved, ctx.params, grads, ctx.needs_input_grad)


class Alias(Function):
    """The same values under a new name in the graph: a point where a walk can be made to stop."""

    view = True

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """``x`` itself."""
        return x.data

    @staticmethod
    def backward(ctx: Any, gy: Any) -> Any:
        """``gy`` itself."""
        return gy


from gpunet.tensor import Tensor  # noqa: E402 the two modules need each other; Tensor's class needs nothing of this one
