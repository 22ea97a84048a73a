"""The graph: what an op leaves behind for backward. The walk that uses it is in backward.py.

An op is a :class:`Function` with ``forward`` and ``backward``. Calling ``apply`` runs forward; where a gradient is
wanted, the Function's instance itself stays as a node: it holds what was saved and one edge per argument, to the
node that made the argument, or to the leaf tensor.
"""

import itertools
import os
import traceback
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunet.devices import Device
from gpunet.errors import GraphError
from gpunet.floats import IGNORE, float_errors
from gpunet.modes import mode

# ----------------------------------------------------------------------------------------------- saved values


class Version:
    """How often an array was changed in place, and by whom last. Tensors that share memory share one."""

    count = 0
    op = ""
    sharers: list[weakref.ref[Any]] | None = None  # tensors and views of them
    limit = 32  # the list is cleared of the dead when it has grown this long

    def link(self, base: Any, view: Any) -> None:
        """Notes that ``view`` is a view of ``base``: neither may then change in place while gradients are recorded."""
        if self.sharers is None:
            self.sharers = []
        elif len(self.sharers) > self.limit:
            self.sharers = list({id(each): each for each in self.sharers if each() is not None}.values())
            self.limit = 2 * len(self.sharers) + 32
        self.sharers += (weakref.ref(base), weakref.ref(view))

    def sharer(self, tensor: Any) -> Any:
        """Another tensor that is alive and shares memory with ``tensor`` as its base or its view, or None."""
        alive = (each() for each in self.sharers or ())
        return next((each for each in alive if each is not None and each is not tensor), None)


def version_of(tensor: Any) -> Version:
    """The tensor's version record, made on first need: most tensors never need one."""
    if tensor._version is None:
        tensor._version = Version()
    return tensor._version


# One of each is made for every op that runs, so they are bare tuples: a NamedTuple costs three times as much.
Output = tuple[tuple[int, ...], Any, Device]
"""(shape, dtype, device): what the gradient of an output must look like."""

Edge = tuple[Any, int, Output]
"""(target, slot, output): a gradient goes to output number ``slot`` of node ``target``, or to the leaf ``target``."""


def edge_of(tensor: Any) -> Edge:
    """Where the gradient of ``tensor`` goes. A leaf does not keep its own: the two would keep each other alive."""
    return tensor._edge or (tensor, 0, (tensor.data.shape, tensor.data.dtype, tensor.device))


_numbers = itertools.count()
_bare, _ndarray = object.__new__, np.ndarray  # under names of this module: every op looks them up
_PLAIN = frozenset((type(None), float, int))  # saved as they are; a NumPy scalar may be an output


# ------------------------------------------------------------------------------------------------------ Function


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
    keeps_arguments = False  # GradFunction: the arguments are saved without being asked

    needs_input_grad: tuple[bool, ...] = ()
    edges: Sequence[Edge | None] = ()  # one for each positional argument; None: nobody wants its gradient
    outputs: Sequence[Output] = ()
    params: dict[str, Any] = {}  # noqa: RUF012 never changed in place
    hooks: dict[int, dict[int, Callable[[Any], Any]]] | None = None
    retained: dict[int, weakref.ref[Any]] | None = None
    origin: str | None = None
    number = 0  # nodes count up, so an edge leads from a higher number to a lower one
    _saved: Any = ()  # what save() got; once recorded, one (value, output, version, count) for each
    _freed = False
    _silent: tuple[Any, ...] = ()

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
    def saved(self) -> tuple[Any, ...]:
        """The saved values in order; raises :class:`GraphError` when freed or changed in place since."""
        if self._freed:
            raise GraphError(
                f"{self.name}: backward needs saved values, but this graph was already used and freed; "
                "pass retain_graph=True to the first backward, or run forward again"
            )
        values = []
        for each in self._saved:
            value, _, version, _ = each
            plain = version is None and (not isinstance(value, Tensor) or value._version is None)
            values.append(value if plain else self._read(*each))
        return tuple(values)

    saved_tensors = saved

    def _read(self, value: Any, output: int, version: Version | None, count: int) -> Any:
        if version is None:
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
        out = Tensor._wrap(value, self.outputs[output][2])
        out.requires_grad, out._edge, out._version = True, (self, output, self.outputs[output]), version
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
        before, recording = mode.grad, False
        if before:
            for arg in args:
                if isinstance(arg, Tensor) and arg.requires_grad:
                    recording = True
                    node.needs_input_grad = tuple([isinstance(each, Tensor) and each.requires_grad for each in args])
                    break
            mode.grad = False
        if not recording:
            node.needs_input_grad = (False,) * len(args)
        if cls.keeps_arguments:
            node.params, node._saved = kwargs, args
        token = None if float_errors.get(None) is IGNORE else float_errors.set(IGNORE)
        try:
            result = cls.forward(node, *args, **kwargs) if kwargs else cls.forward(node, *args)
        finally:
            if token is not None:
                float_errors.reset(token)
            if before:
                mode.grad = True
        if type(result) is tuple:
            outs = tuple([node._output(each, args) for each in result])
            if recording:
                node._record(args, outs, result)
            return outs
        out = node._output(result, args)
        if recording:
            node._record(args, (out,), (result,))
        return out

    def _output(self, result: Any, args: tuple[Any, ...]) -> Any:
        """One of forward's results as a new tensor."""
        first = args[0] if args else None
        if type(result) is _ndarray and not self.view and isinstance(first, Tensor):  # most ops end here
            out = _bare(Tensor)
            out.data, out.device = result, first.device
            return out
        if isinstance(result, Tensor):  # a user's forward returns tensors, the project's own return arrays
            out = Tensor._wrap(result.data, result.device)
            out._version = version_of(result)
            if out._version.sharers is not None or any(result is arg for arg in args):
                out._version.link(result, out)
            return out
        if not isinstance(first, Tensor):
            first = next((arg for arg in args if isinstance(arg, Tensor)), None)
        if first is None or not hasattr(result, "dtype"):
            raise GraphError(f"{self.name}: forward must return a tensor or a tuple, got {type(result).__name__}")
        out = Tensor._wrap(result, first.device)
        if self.view and first.device.xp.may_share_memory(out.data, first.data):
            out._version = version_of(first)
            out._version.link(first, out)
        return out

    def _record(self, args: tuple[Any, ...], outs: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        """Ties the outputs to this node, and the node to its arguments."""
        self.number = next(_numbers)
        edges, outputs = [], []
        for arg, need in zip(args, self.needs_input_grad):
            edges.append((arg._edge or edge_of(arg)) if need else None)
        for out in outs:
            array = out.data
            output = (array.shape, array.dtype, out.device)
            if array.dtype.kind == "f":
                out.requires_grad, out._edge = True, (self, len(outputs), output)
            outputs.append(output)
        self.edges, self.outputs = edges, outputs
        if self._silent:
            self._mute(outs, results)
        if self._saved:
            self._saved = [
                (value, -1, None, 0) if type(value) in _PLAIN else self._seal(value, outs, results)
                for value in self._saved
            ]
        if mode.anomaly:
            self.origin = _users_stack()

    def _mute(self, outs: tuple[Any, ...], results: tuple[Any, ...]) -> None:
        for out, result in zip(outs, results):
            if any(result is silent for silent in self._silent):
                out.requires_grad, out._edge = False, None
        self._silent = ()

    def _seal(self, value: Any, outs: tuple[Any, ...], results: tuple[Any, ...]) -> tuple[Any, ...]:
        """What :meth:`_read` takes: a saved value with the state of its version."""
        for index, result in enumerate(results):
            if value is result:
                out = outs[index]
                version = version_of(out)
                if out.requires_grad:
                    return out.data, index, version, version.count
                return (out if isinstance(value, Tensor) else out.data), -1, version, version.count
        if isinstance(value, Tensor) and value._version is not None:
            return value, -1, value._version, value._version.count
        return value, -1, None, 0

    def release(self) -> None:
        """Lets go of what was saved; a second backward through this node then says so."""
        if self._saved:
            self._saved, self._freed = (), True


_OWN = tuple(os.path.join(os.path.dirname(__file__), name) for name in ("graph.py", "tensor.py", "ops"))


def _users_stack() -> str:
    """The lines that led to the op, outermost first, without gpunet's own at the end."""
    frames = traceback.extract_stack()
    while frames and frames[-1].filename.startswith(_OWN):
        frames.pop()
    return "".join(traceback.format_list(frames[-8:]))


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
