"""A model as an ONNX file."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.errors import ArgumentError, GpunetError
from gpunet.io import container
from gpunet.io.container import AnyPath
from gpunet.io.onnx.builder import Builder, Port
from gpunet.io.onnx.emit import EMIT, FIXED, Step
from gpunet.io.onnx.emit_images import EMIT_IMAGES
from gpunet.io.onnx.module import module_of
from gpunet.io.onnx.package import MAX_BYTES, NUMBERS, need_onnx
from gpunet.io.onnx.record import Call, Recording, Ref, record
from gpunet.modes import no_grad
from gpunet.nn.module import Module
from gpunet.ops.reduce import Expand
from gpunet.ops.shape import Reshape
from gpunet.tensor import Tensor

KNOWN = {**EMIT, **EMIT_IMAGES}
CLOSE = {"float32": 1e-5, "float64": 1e-9}  # relative to the largest value of an output


def export_onnx(
    model: Any,
    path: AnyPath,
    example: Any,
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
) -> None:
    """Writes what ``model`` computes in evaluation mode as an ONNX file of opset 17, for any batch size.

    The model runs on the example and on a second input made of it, and every op it uses is noted, whatever its code
    looks like; a branch that ``forward`` does not take is not in the file. What was found is read back with
    :func:`import_onnx` and must give the same results on both inputs before anything is written. The file appears
    whole or not at all. Initializers go by the names of ``model.state_dict()``; dropout and unused parameters leave
    no trace.

    Args:
        model: a ``gn.nn.Module`` in float32 or float64; as it was before when the call returns.
        path: the file; its folder must exist.
        example: what the model is called with: a tensor or an array, or a tuple of them. The first axis of each is
            the batch; the other sizes are those that the file will take.
        input_names: one name for each input; None gives "input", or "input_0", "input_1", ...
        output_names: one name for each tensor that the model returns; None gives "output", or "output_0", ...
        dynamic_batch: False keeps every size of the example, the batch too.

    Raises:
        BackendUnavailableError: the package onnx is not installed; ``pip install 'gpunet[onnx]'``.
        ArgumentError: the model uses an op without a form in ONNX (the message names it), computes something outside
            gpunet's ops, or cannot take another batch size; or names that are empty or not unique; or an example that
            is no tensor; or a file of more than 2 GiB.
        OSError: the disk is full or the folder is not there; what ``path`` held is then as it was.

    Example:
        >>> import tempfile, gpunet as gn
        >>> model = gn.nn.Sequential(gn.nn.Linear(3, 2), gn.nn.ReLU())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gn.io.export_onnx(model, f"{folder}/model.onnx", gn.zeros(1, 3))
        ...     gn.io.import_onnx(f"{folder}/model.onnx")(gn.zeros(5, 3)).shape
        (5, 2)
    """
    onnx = need_onnx("export_onnx")
    if not isinstance(model, Module):
        raise ArgumentError(f"export_onnx: model must be a gn.nn.Module, got {type(model).__name__}")
    inputs = _inputs(example, dynamic_batch)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        runs = [_run(model, inputs, None), _run(model, _others(inputs, dynamic_batch), inputs)]
    finally:
        for module, training in modes.items():
            module.training = training
    proto = _proto(onnx, model, runs, input_names, output_names, dynamic_batch)
    _prove(onnx, proto, runs)
    data = proto.SerializeToString()
    container.atomically(path, lambda file: file.write(data))


# ---------------------------------------------------------------------------------------------------- the two runs


class _Run:
    """One run: its inputs as they were, what was noted, and its results."""

    def __init__(self, inputs: list[Tensor], recording: Recording, result: Any):
        self.inputs, self.recording = inputs, recording
        self.outputs = list(result) if isinstance(result, tuple | list) else [result]
        if not self.outputs or not all(isinstance(each, Tensor) for each in self.outputs):
            raise ArgumentError(
                f"export_onnx: the model must return a tensor or a tuple of tensors, got {type(result).__name__}"
            )


def _inputs(example: Any, dynamic_batch: bool) -> list[Tensor]:
    values = example if isinstance(example, tuple) else (example,)
    inputs = [each if isinstance(each, Tensor) else Tensor(each) for each in values]
    sizes = [each.shape[:1] for each in inputs]
    if dynamic_batch and (len(set(sizes)) != 1 or sizes[0] in ((), (0,))):
        raise ArgumentError(
            "export_onnx: the inputs of the example must have one first axis in common, the batch, and it must not be "
            f"empty, got shapes {', '.join(str(each.shape) for each in inputs)}{FIXED}"
        )
    return inputs


def _others(inputs: list[Tensor], dynamic_batch: bool) -> list[Tensor]:
    """Other values in a larger batch: the example's rows in turn, each scaled a little further towards 0."""
    made = []
    for x in inputs:
        array = x.device.to_host(x.data)
        if dynamic_batch:
            array = array[np.arange(len(array) + 1) % len(array)]
        if array.dtype.kind == "f":
            lead = len(array) if array.ndim else 1
            scale = 1 - (1 + np.arange(lead).reshape(-1, *[1] * (array.ndim - 1))) / (2 * lead + 1)
            array = array * (scale if array.ndim else scale[0])
        made.append(Tensor(array.astype(x.dtype), device=x.device))
    return made


def _run(model: Any, inputs: list[Tensor], before: Any) -> _Run:
    """Records one run on copies, which the model may change; ``before``: the inputs of the first, in the second."""
    copies = [Tensor(x.data.copy(), device=x.device) for x in inputs]
    try:
        recording, result = record(model, model.state_dict(), copies, KNOWN)
    except (GpunetError, ValueError, TypeError, IndexError) as error:
        if before is None:
            raise
        sizes = ", ".join(str(x.shape) for x in inputs)
        raise ArgumentError(f"export_onnx: the model must run on inputs {sizes} too, got: {error}{FIXED}") from error
    return _Run(inputs, recording, result)


# ------------------------------------------------------------------------------------------------------- the graph


def _proto(onnx: Any, model: Any, runs: list[_Run], input_names: Any, output_names: Any, dynamic: bool) -> Any:
    state = model.state_dict()
    ins = _names("input", input_names, len(runs[0].inputs), set(state))
    outs = _names("output", output_names, len(runs[0].outputs), set(state) | set(ins))
    builder = Builder([*state, *ins, *outs])
    values = _Values(builder, ins)
    pairs = list(zip(runs[0].recording.calls, runs[1].recording.calls))
    if [a.op for a in runs[0].recording.calls] != [b.op for b in runs[1].recording.calls]:
        counts = " and ".join(str(len(run.recording.calls)) for run in runs)
        raise ArgumentError(
            "export_onnx: forward must run the same ops on any input, got other ones on a second input "
            f"({counts} of them); a branch on values or on the batch size has no form in ONNX"
        )
    for first, second in pairs:
        step = values.step(first, second)
        values.results.append(KNOWN[first.op](builder, step))
    outputs = []
    for name, first, second in zip(outs, runs[0].outputs, runs[1].outputs):
        result = values.name(runs[0].recording.ref(first), runs[1].recording.ref(second), "the model's result")
        builder.result(result, name)
        outputs.append(_output(name, first, second, runs[0].inputs))
    inputs = []
    for name, x in zip(ins, runs[0].inputs):
        inputs.append(Port(name, ("batch", *x.shape[1:]) if dynamic else x.shape, _dtype(x)))
    arrays = {name: np.ascontiguousarray(x.device.to_host(x.data)).reshape(x.shape) for name, x in state.items()}
    if sum(array.nbytes for array in arrays.values()) > MAX_BYTES:
        raise ArgumentError(f"export_onnx: the weights must be at most {MAX_BYTES} bytes, got more; use save()")
    parameters = [name for name, _ in model.named_parameters()]
    return builder.model(onnx, inputs, outputs, arrays, parameters)


def _dtype(x: Tensor) -> np.dtype[Any]:
    if x.dtype not in NUMBERS:
        choices = ", ".join(map(str, NUMBERS))
        raise ArgumentError(f"export_onnx: inputs and outputs must be of {choices}, got {x.dtype}; cast them")
    return x.dtype


def _names(word: str, given: Sequence[str] | None, count: int, taken: set[str]) -> list[str]:
    if given is None:
        names = [word] if count == 1 else [f"{word}_{k}" for k in range(count)]
        return [name if name not in taken else f"{name}_of_graph" for name in names]
    names = [given] if isinstance(given, str) else list(given)
    good = all(isinstance(name, str) and name for name in names)
    if len(names) != count or not good or len({*names, *taken}) != count + len(taken):
        raise ArgumentError(
            f"export_onnx: {word}_names must be {count} different words that name no parameter or other port, "
            f"got {given!r}"
        )
    return names


def _output(name: str, first: Tensor, second: Tensor, inputs: list[Tensor]) -> Port:
    batch = inputs[0].shape[:1]
    sizes: list[int | str] = []
    for axis, (size, other) in enumerate(zip(first.shape, second.shape)):
        sizes.append(size if size == other else "batch" if (size,) == batch else f"{name}_{axis}")
    return Port(name, sizes, _dtype(first))


class _Values:
    """Names of what the two runs agree on."""

    def __init__(self, builder: Builder, inputs: list[str]):
        self.builder, self.inputs, self.results = builder, inputs, list[str]()

    def name(self, first: Ref, second: Ref, what: str) -> str:
        """The name in the graph of an array that was seen in both runs."""
        if first.kind == "constant" == second.kind:
            return self._constant(first.key, second.key, what)
        for ref in (first, second):
            if ref.kind == "unknown":
                raise ArgumentError(
                    f"export_onnx: {what} must be made of ops that have a form in ONNX opset 17, got {ref.key}, which "
                    "has none here; write it with tensor ops, or leave it out of the model"
                )
        if first != second:
            raise _outside(what)
        if first.kind == "call":
            call, slot = first.key
            if slot:
                raise ArgumentError(f"export_onnx: {what} must be no position out of pooling, got one; leave it out")
            return self.results[call]
        return self.inputs[first.key] if first.kind == "input" else first.key

    def _constant(self, first: Any, second: Any, what: str) -> str:
        one, other = (np.asarray(each.get() if hasattr(each, "get") else each) for each in (first, second))
        if one.shape != other.shape or not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            raise _outside(what)
        if one.dtype not in NUMBERS:
            raise ArgumentError(f"export_onnx: {what} must be of {', '.join(map(str, NUMBERS))}, got {one.dtype}")
        return self.builder.constant(one)

    def _resolved(self, first: Any, second: Any, what: str) -> Any:
        """``first`` with names in place of arrays."""
        if isinstance(first, Ref) and isinstance(second, Ref):
            return self.name(first, second, what)
        if isinstance(first, tuple) and isinstance(second, tuple) and len(first) == len(second):
            return tuple(self._resolved(a, b, what) for a, b in zip(first, second))
        if isinstance(first, Ref) or isinstance(second, Ref):
            raise _outside(what)
        return first

    def step(self, first: Call, second: Call) -> Step:
        """One op as both runs saw it."""
        name = first.op.__name__
        args = [self._resolved(a, b, f"an argument of {name}") for a, b in zip(first.args, second.args)]
        params = {}
        for key, value in first.params.items():
            params[key] = self._resolved(value, second.params[key], f"{key} of {name}")
            refs = isinstance(value, Ref) or (isinstance(value, tuple) and any(isinstance(v, Ref) for v in value))
            if first.op not in (Reshape, Expand) and not refs and not _equal(value, second.params[key]):
                raise ArgumentError(
                    f"export_onnx: {name}: {key} must not hang on the input or its size, got {value} and "
                    f"{second.params[key]}{FIXED}"
                )
        shapes = tuple([shape for shape, _ in call.forms] for call in (first, second))
        (shape, dtype), (shape2, _) = first.outputs[0], second.outputs[0]
        dtypes = [dtype for _, dtype in first.forms]
        return Step(first.op, args, second.args, params, shapes, (shape, shape2), dtypes, dtype)  # type: ignore


def _equal(first: Any, second: Any) -> bool:
    return first == second or (isinstance(first, float) and math.isnan(first) and second != second)


def _outside(what: str) -> ArgumentError:
    return ArgumentError(
        f"export_onnx: {what} must come from gpunet's ops, or be the same for every input, got numbers that change "
        f"with the input: computed in NumPy, at random, or from the batch size{FIXED} where that is the reason"
    )


# ------------------------------------------------------------------------------------------------------- the proof


def _prove(onnx: Any, proto: Any, runs: list[_Run]) -> None:
    """Runs what will be written, on both inputs, and holds it against the model's own results."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ArgumentError(f"export_onnx: the model must make a valid graph, got: {error}") from None
    module = module_of(onnx, proto, "export_onnx").to(runs[0].inputs[0].device)
    for run in runs:
        with no_grad():
            found = module(*run.inputs)
        for mine, theirs in zip(run.outputs, found if isinstance(found, tuple) else (found,)):
            a, b = (np.asarray(each.device.to_host(each.data)) for each in (mine, theirs))
            size = np.abs(np.where(np.isfinite(a), a, 0)).max(initial=1)
            limit = CLOSE.get(str(a.dtype), 0) * float(size)
            if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=limit, equal_nan=True):
                raise ArgumentError(
                    "export_onnx: the graph must compute what the model computes, got another result; forward must not "
                    "change tensors in place, nor draw random numbers, nor compute outside gpunet's ops"
                )
