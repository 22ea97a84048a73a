"""What a model computes, noted op by op while it runs.

Every op of gpunet is a :class:`gpunet.Function` whose ``forward(ctx, ...)`` gets all its arguments. While a model is
recorded, each ``forward`` is replaced by one that notes its arguments and results, and calls the first; likewise the
few plain functions in :data:`PLAIN`, whose results have no gradient. So whatever the model's own code looks like, the
ops are seen; and nothing is spent on it while nobody records.

Arrays are known by identity: an argument is an input, a parameter or buffer, or the result of an earlier call, when it
is that very array. Any other array is a constant. That it is one, and no number computed outside gpunet's ops, shows
in a second run on other inputs: there it must be the same.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from gpunet.graph import Function
from gpunet.modes import no_grad
from gpunet.ops import elementwise, reduce
from gpunet.tensor import Tensor

#: comparisons and positions, as the modules' functions that everything goes through
PLAIN = ((elementwise, "compare"), (elementwise, "logical"), (elementwise, "invert"), (reduce, "_position"))

_recording = threading.Lock()  # the replaced functions are the process's


class Ref(NamedTuple):
    """Where an array comes from: kind is "input", "state", "call", "constant" or "unknown".

    ``key`` is the input's position, the state's name, (call, output) by number, the array, or the name of the op.
    """

    kind: str
    key: Any


class Call(NamedTuple):
    """One op: its class or function, and its arguments with a :class:`Ref` in place of each array."""

    op: Any
    args: list[Any]
    params: dict[str, Any]
    forms: list[Any]  # (shape, dtype) of each argument; (None, None) where it is no array
    outputs: list[Any]  # (shape, dtype) of each result


class Recording:
    """The calls of one run.

    Args:
        state: parameters and buffers by name.
        inputs: the arguments of the run.
        known: the ops that are noted; inside any other, the ops that it is made of are.
    """

    def __init__(self, state: dict[str, Tensor], inputs: Sequence[Tensor], known: Any):
        self.known, self.calls, self._busy = known, [], False
        self._thread = threading.get_ident()
        self._refs: dict[int, tuple[Any, Ref]] = {}  # with the array itself: an id counts while its owner lives
        for name, tensor in reversed(list(state.items())):  # a shared one keeps its first name
            self._name(tensor.data, Ref("state", name))
        for position, tensor in enumerate(inputs):
            self._name(tensor.data, Ref("input", position))

    def _name(self, array: Any, ref: Ref) -> None:
        self._refs[id(array)] = (array, ref)

    def ref(self, value: Any) -> Any:
        """A :class:`Ref` for a tensor or an array, anything else as it is; also inside tuples."""
        if isinstance(value, tuple):
            return tuple(self.ref(each) for each in value)
        if isinstance(value, Tensor):
            value = value.data
        if not _is_array(value):
            return value
        found = self._refs.get(id(value))
        return Ref("constant", value) if found is None else found[1]

    def spy(self, op: Any, function: Callable[..., Any], own: int) -> Callable[..., Any]:
        """``function`` of ``op``, and a note of each call, without the first ``own`` arguments: a Function's ctx."""

        def run(*args: Any, **params: Any) -> Any:
            if self._busy or self._thread != threading.get_ident():
                return function(*args, **params)
            self._busy = op in self.known  # the ops inside a known one are its own affair
            try:
                result = function(*args, **params)
            finally:
                self._busy = False
            return self._note(op, args[own:], params, result)

        return run

    def _note(self, op: Any, args: Any, params: Any, result: Any) -> Any:
        # Of a reduction to a single number NumPy makes no array; the tensor around it must hold the one named here.
        results = [np.asarray(each) if isinstance(each, np.generic) else each for each in _listed(result)]
        arrays = [each.data if isinstance(each, Tensor) else each for each in results]
        if op in self.known:
            noted = {name: self.ref(value) for name, value in params.items()}
            forms, outputs = ([_form(each) for each in side] for side in (args, arrays))
            self.calls.append(Call(op, [self.ref(each) for each in args], noted, forms, outputs))
        for slot, array in enumerate(arrays):
            if op in self.known and (id(array) not in self._refs or self._refs[id(array)][1].kind == "unknown"):
                self._name(array, Ref("call", (len(self.calls) - 1, slot)))
            elif id(array) not in self._refs:
                self._name(array, Ref("unknown", op.__name__))
        return tuple(results) if isinstance(result, tuple) else results[0]


def _listed(result: Any) -> list[Any]:
    return list(result) if isinstance(result, tuple) else [result]


def _form(value: Any) -> tuple[Any, Any]:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) or _is_array(value) else (None, None)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, np.generic | Tensor)


def _functions(base: type[Function]) -> Iterator[type[Function]]:
    for each in base.__subclasses__():
        yield each
        yield from _functions(each)


@contextmanager
def _watched(recording: Recording) -> Iterator[None]:
    """Inside the block every op of this thread is noted."""
    with _recording:
        ops = [op for op in dict.fromkeys(_functions(Function)) if "forward" in vars(op)]
        before = [(op, "forward", vars(op)["forward"]) for op in ops]
        before += [(module, name, getattr(module, name)) for module, name in PLAIN]
        try:
            for op in ops:
                op.forward = staticmethod(recording.spy(op, op.forward, 1))
            for module, name in PLAIN:
                function = getattr(module, name)
                setattr(module, name, recording.spy(function, function, 0))
            yield
        finally:
            for owner, name, function in before:
                setattr(owner, name, function)


def record(model: Any, state: dict[str, Tensor], inputs: Sequence[Tensor], known: Any) -> tuple[Recording, Any]:
    """Runs ``model`` on ``inputs`` without gradients; returns what was noted, and the model's result."""
    recording = Recording(state, inputs, known)
    with _watched(recording), no_grad():
        return recording, model(*inputs)
