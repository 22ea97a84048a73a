"""The graph: what an op leaves behind for backward. The walk that uses it is in backward.py.

An op is a :class:`Function` with ``forward`` and ``backward``. Calling ``apply`` runs forward; where a gradient is
wanted, the Function's instance itself stays as a node: it holds what was saved and one edge per argument, to the
node that made the argument, or to the leaf tensor.
"""

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from gpunet.anomaly import users_stack
from gpunet.devices import Device
from gpunet.errors import GraphError
from gpunet.floats import IGNORE, float_errors
from gpunet.modes import mode
from gpunet.versions import Version, version_of

# One of each is made for every op that runs, so they are bare tuples: a NamedTuple costs three times as much.
Output = tuple[tuple[int, ...], Any, Device]
"""(shape, dtype, device): what the gradient of an output must look like."""

Edge = tuple[Any, int, Output]
"""(target, slot, output): a gradient goes to output number ``slot`` of node ``target``, or to the leaf ``target``."""


def edge_of(tensor: Any) -> Edge:
    """Where the gradient of ``tensor`` goes. A leaf does not keep its own: the two would keep each other alive."""
    return tensor._edge or (tensor, 0, (tensor.data.shape, tensor.data.dtype, tensor.device))


def _edge_to(argument: Any) -> Edge | None:
    """Where the gradient of an argument goes, or None where nobody wants it."""
    if isinstance(argument, Tensor) and argument.requires_grad:
        return argument._edge or edge_of(argument)
    return None


Seal = tuple[int, Version | None, int]
"""(output, version, count): which output a saved value is (-1: none), and how often it had been changed by then."""

_UNSEALED: Seal = (-1, None, 0)  # a tensor that had no version record yet, or what is no tensor

_numbers = itertools.count()
_new, _ndarray = object.__new__, np.ndarray  # under names of this module: every op looks them up
F = TypeVar("F", bound="Function")


class Function:
    """An op with a gradient: a subclass has static ``forward(ctx, ...)`` and ``backward(ctx, *grads)``.

    ``apply`` runs it. ``forward`` gets the arguments of ``apply`` (tensors, or anything else) and returns one tensor or
    a tuple of them; no graph is recorded inside. ``backward`` gets one gradient tensor per output and returns one
    gradient or None per positional argument of forward. ``ctx`` is the node: set any attribute on it, and

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
    broadcasts = False  # a gradient may be larger than its argument: it is summed over the axes that joined
    keeps_arguments = False  # GradFunction: the arguments are saved without being asked

    # A default in the class would make each of them slow to read and to set; apply gives them their first values.
    __slots__ = (
        "__weakref__", "_saved", "_seals", "_silent",
        "edges", "hooks", "number", "origin", "outputs", "params", "retained",
    )  # fmt: skip

    edges: Sequence[Edge | None]  # one for each positional argument; None: nobody wants its gradient
    outputs: Sequence[Output]
    hooks: dict[int, dict[int, Callable[[Any], Any]]] | None
    retained: dict[int, weakref.ref[Any]] | None
    origin: str | None  # the user's lines that led here, under detect_anomaly
    number: int  # nodes count up, so an edge leads from a higher number to a lower one
    _saved: tuple[Any, ...] | None  # what save() got, an output as a bare array; None when released
    _seals: dict[int, Seal] | None  # position in _saved -> what its value was when the op ran
    _silent: tuple[Any, ...]
    params: dict[str, Any]  # of those that keep their arguments: the keywords

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs from (ctx, ...). To be overridden."""
        raise GraphError(f"{args[0].name}: it has no forward; define a static method forward(ctx, ...)")

    @staticmethod
    def backward(*args: Any, **kwargs: Any) -> Any:
        """Computes one gradient per argument from (ctx, one gradient per output). To be overridden."""
        raise GraphError(f"{args[0].name}: it has no backward; define one, or call it under gn.no_grad()")

    # -- what forward may call -----------------------------------------------------------------------------------

    def save(self, *values: Any) -> None:
        """Keeps values for backward: tensors, raw arrays (outputs come back as tensors of the graph), or None."""
        self._saved = values

    save_for_backward = save

    def mark_non_differentiable(self, *outputs: Any) -> None:
        """These outputs carry no gradient (indices, masks)."""
        self._silent = outputs

    # -- what backward may call ----------------------------------------------------------------------------------

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each argument, whether anybody wants its gradient."""
        return tuple([edge is not None for edge in self.edges])

    @property
    def saved(self) -> tuple[Any, ...]:
        """The saved values in order; raises :class:`GraphError` when freed or changed in place since."""
        saved, seals = self._saved, self._seals
        if saved is None:
            raise GraphError(
                f"{self.name}: backward needs saved values, but this graph was already used and freed; "
                "pass retain_graph=True to the first backward, or run forward again"
            )
        if seals is None:
            for value in saved:
                if isinstance(value, Tensor) and value._version is not None:
                    break
            else:
                return saved  # as it is nearly always: no outputs, and nothing that ever changed in place
        if len(saved) == 1 and seals:
            return (self._read(saved[0], *seals[0]),)
        values, seals = [], seals or {}
        for position, value in enumerate(saved):
            output, version, count = seals.get(position, _UNSEALED)
            values.append(self._read(value, output, version, count))
        return tuple(values)

    saved_tensors = saved

    def _read(self, value: Any, output: int, version: Version | None, count: int) -> Any:
        if version is None and isinstance(value, Tensor):
            version = value._version
        if version is not None and version.count != count:
            raise GraphError(
                f"{self.name}: a value saved for backward, of shape {tuple(value.shape)}, must be unchanged, got one "
                f"changed in place by {version.op} (version {version.count}, saved at {count}); use the form that is "
                "not in place, or change a .clone()"
            )
        if output < 0:
            return value
        # An output is stored as a bare array, so that node and output do not keep each other alive.
        form = self.outputs[output]
        out = bare(value, form[2])
        out.requires_grad, out._edge, out._version = True, (self, output, form), version
        return out

    # -- apply ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Name of the op in messages and pictures."""
        return type(self).__name__

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Runs forward and, where a gradient is wanted, leaves a node in the graph. Keywords get no gradient."""
        here = mode.__dict__
        before, node = here["grad"], _node(cls, here)
        node.edges = tuple([_edge_to(arg) for arg in args]) if before else (None,) * len(args)
        if cls.keeps_arguments:
            node._saved, node.params = args, kwargs
        token = None if float_errors.get(None) is IGNORE else float_errors.set(IGNORE)
        here["grad"] = False
        try:
            result = cls.forward(node, *args, **kwargs)
        finally:
            here["grad"] = before
            if token is not None:
                float_errors.reset(token)
        recording = before and node.edges.count(None) < len(args)
        if type(result) is _ndarray and args and isinstance(args[0], Tensor) and not (cls.view or node._silent):
            return _only_output(node, result, args[0].device, recording)
        results = result if type(result) is tuple else (result,)
        outs = tuple([node._output(each, args) for each in results])
        if recording:
            node._record(outs, results)
        return outs if type(result) is tuple else outs[0]

    def _output(self, result: Any, args: tuple[Any, ...]) -> Any:
        """One of forward's results as a new tensor."""
        if isinstance(result, Tensor):  # a user's forward returns tensors, the project's own return arrays
            out = Tensor._wrap(result.data, result.device)
            out._version = version_of(result)
            if out._version.sharers is not None or any(result is arg for arg in args):
                out._version.link(result, out)
            return out
        first = next((arg for arg in args if isinstance(arg, Tensor)), None)
        if first is None or not hasattr(result, "dtype"):
            raise GraphError(f"{self.name}: forward must return a tensor or a tuple, got {type(result).__name__}")
        out = Tensor._wrap(result, first.device)
        if self.view and first.device.xp.may_share_memory(out.data, first.data):
            out._version = version_of(first)
            out._version.link(first, out)
        return out

    def _record(self, outs: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        """Ties the outputs to this node."""
        self.number = next(_numbers)
        self.outputs = tuple([(out.data.shape, out.data.dtype, out.device) for out in outs])
        for slot, (out, form) in enumerate(zip(outs, self.outputs)):
            if form[1].kind == "f":
                out.requires_grad, out._edge = True, (self, slot, form)
        if self._silent:
            self._mute(outs, results)
        if self._saved:
            self._seal(outs, results)

    def _mute(self, outs: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        for out, result in zip(outs, results):
            if any(result is silent for silent in self._silent):
                out.requires_grad, out._edge = False, None
        self._silent = ()

    def _seal(self, outs: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        """Notes for the saved values what :meth:`_read` takes: which are outputs, and the state of their versions."""
        kept: list[Any] = []
        seals: dict[int, Seal] = {}
        for value in self._saved or ():
            for index, result in enumerate(results):
                if value is result:
                    out = outs[index]
                    version = version_of(out)
                    seals[len(kept)] = (index if out.requires_grad else -1, version, version.count)
                    value = out if isinstance(value, Tensor) and not out.requires_grad else out.data
                    break
            else:
                if isinstance(value, Tensor) and value._version is not None:
                    seals[len(kept)] = (-1, value._version, value._version.count)
            kept.append(value)
        self._saved, self._seals = tuple(kept), seals

    def release(self) -> None:
        """Lets go of what was saved; a second backward through this node then says so."""
        if self._saved:
            self._saved = self._seals = None


def _node(function: type[F], here: dict[str, Any]) -> F:
    """A node before forward; ``here`` is the thread's mode."""
    node = _new(function)
    node._saved = node._silent = ()
    node._seals = node.hooks = node.retained = None
    node.origin = users_stack() if here["anomaly"] else None
    return node


class _Nowhere:
    """Stands in for a node where no gradient is wanted: forward may ask it and give it things to keep, in vain."""

    __slots__ = ()
    edges = needs_input_grad = (None, None)

    def save(self, *values: Any) -> None:
        """Lets them go."""


_nowhere: Any = _Nowhere()


def of_one(function: type[Function], x: Any) -> Any:
    """``function.apply(x)`` in half the time, where forward computes one new array from arrays."""
    here, node = mode.__dict__, _nowhere
    if here["grad"] and x.requires_grad:
        node = _node(function, here)
        node.edges = (x._edge or edge_of(x),)
    token = None if float_errors.get(None) is IGNORE else float_errors.set(IGNORE)
    try:
        array = function.forward(node, x)
    finally:
        if token is not None:
            float_errors.reset(token)
    if node is _nowhere and type(array) is _ndarray:
        return bare(array, x.device)
    return _only_output(node, array, x.device, node is not _nowhere)


def of_two(function: type[Function], a: Any, b: Any) -> Any:
    """:func:`of_one` for two arguments; one of them may be a number or a bare array."""
    here, node = mode.__dict__, _nowhere
    if here["grad"]:
        to_a, to_b = _edge_to(a), _edge_to(b)
        if to_a is not None or to_b is not None:
            node = _node(function, here)
            node.edges = (to_a, to_b)
            if function.keeps_arguments:
                node._saved, node.params = (a, b), {}
    token = None if float_errors.get(None) is IGNORE else float_errors.set(IGNORE)
    try:
        array = function.forward(node, a, b)
    finally:
        if token is not None:
            float_errors.reset(token)
    device = a.device if isinstance(a, Tensor) else b.device
    if node is _nowhere and type(array) is _ndarray:
        return bare(array, device)
    return _only_output(node, array, device, node is not _nowhere)


def _only_output(node: Function, result: Any, device: Device, recording: bool) -> Any:
    """The one output of a node as a tensor, tied to it where a gradient is wanted: see :meth:`Function._record`."""
    number = type(result) is not _ndarray and isinstance(result, np.generic)  # NumPy makes them of arrays without axes
    array = np.asarray(result) if number else result
    out = bare(array, device)
    if recording:
        dtype = array.dtype
        form = (array.shape, dtype, device)
        node.number, node.outputs = next(_numbers), (form,)
        if dtype.kind == "f":
            out.requires_grad, out._edge = True, (node, 0, form)
        saved = node._saved
        if saved:
            _seal_one(node, saved, out, result, array)
    return out


def _seal_one(node: Function, saved: tuple[Any, ...], out: Any, result: Any, array: Any) -> None:
    """:meth:`Function._seal` for one output, sooner where that is all that was saved, or no part of it."""
    if saved[0] is array and len(saved) == 1 and out.requires_grad:
        out._version = Version()
        node._seals = {0: (0, out._version, 0)}
        return
    for value in saved:
        if value is result or (isinstance(value, Tensor) and value._version is not None):
            node._seal((out,), (result,))
            return


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


from gpunet.tensor import Tensor, bare  # noqa: E402 the two modules need each other; Tensor's class needs nothing of this one
