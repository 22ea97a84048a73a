"""A graph of ONNX as a Module."""

from collections.abc import Callable
from typing import Any, NamedTuple

from gpunet.errors import DataError, DTypeError, GpunetError, ShapeError
from gpunet.io.container import AnyPath
from gpunet.io.onnx.operators import OPERATORS, Attributes
from gpunet.io.onnx.operators_images import OPERATORS_IMAGES
from gpunet.io.onnx.package import need_onnx
from gpunet.io.onnx.reader import Graph, label, read, take_apart
from gpunet.nn.module import Module
from gpunet.nn.parameter import Parameter
from gpunet.tensor import Tensor

KINDS = {**OPERATORS, **OPERATORS_IMAGES}
MAX_DEPTH = 16  # of modules that the points in a name make
MULTIPLE = ("Split",)  # ops with more than one output
#: inputs that training must leave alone: statistics, bounds, sizes; of the ops that are not listed none
CONSTANT_INPUTS = {
    "BatchNormalization": (3, 4), "Clip": (1, 2), "Pad": (1, 2), "Reshape": (1,), "Expand": (1,), "Dropout": (1, 2),
    "Greater": (0, 1), "Cast": (0,), "Shape": (0,),
}  # fmt: skip


class Step(NamedTuple):
    """One node: its function, the values it reads (None: left out) and makes, and those nobody reads after it."""

    name: str
    function: Callable[..., Any]
    inputs: list[str | None]
    outputs: list[str]
    done: list[str]


class OnnxModule(Module):
    """What :func:`import_onnx` returns: the graph of a file, with its initializers as parameters and buffers.

    Called with the graph's inputs in order, tensors or arrays; returns the output, or a tuple where there are several.
    Training and evaluation are the same: batch normalisation keeps its statistics and nothing is dropped.

    Attributes:
        input_names: the graph's inputs.
        output_names: the graph's outputs.

    Raises:
        ShapeError: in the call, an input whose sizes are not those that the file fixes, or too few or many inputs.
        DTypeError: in the call, integers where the file says floats, or the reverse.
    """

    def __init__(self, graph: Graph):
        super().__init__()
        self._where, self._inputs = graph.where, graph.inputs
        self.input_names, self.output_names = [each.name for each in graph.inputs], list(graph.outputs)
        trained = _trained(graph)
        self._places: dict[str, tuple[str, ...]] = {}
        for name, array in graph.arrays.items():
            self._place(name, Tensor(array), "parameter" if name in trained else "buffer")
        for name, array in graph.constants.items():
            self._place(name, Tensor(array), "constant")
        self._steps = _steps(graph)

    def _place(self, name: str, value: Tensor, role: str) -> None:
        """Registers ``value`` where its dotted name says, so that a state dict has the names of the file."""
        parts = [part or "_" for part in name.replace(":", "_").split(".")]
        parts = ["_".join(parts)] if len(parts) > MAX_DEPTH or role == "constant" else parts
        module: Module = self
        for k, part in enumerate(parts[:-1]):
            while not isinstance(module._modules.get(part), Module):
                if hasattr(module, part):
                    part += "_"
                else:
                    module.register_module(part, Module())
            parts[k], module = part, module._modules[part]  # type: ignore[assignment]
        while hasattr(module, parts[-1]):
            parts[-1] += "_"
        if role == "parameter":
            module.register_parameter(parts[-1], Parameter(value))
        else:  # sizes and axes are part of the graph, not of its state
            module.register_buffer(parts[-1], value, persistent=role == "buffer" and value.dtype.kind == "f")
        self._places[name] = tuple(parts)

    def forward(self, *inputs: Any) -> Any:
        """Computes the graph's outputs."""
        values: dict[str, Any] = dict(zip(self.input_names, self._checked(inputs)))
        for name, parts in self._places.items():
            module: Any = self
            for part in parts:
                module = getattr(module, part)
            values[name] = module
        for step in self._steps:
            try:
                made = step.function(*[None if name is None else values[name] for name in step.inputs])
            except GpunetError as error:
                error.add_note(f"in {step.name} of {self._where.partition(': ')[2]}")
                raise
            values.update(zip(step.outputs, made if isinstance(made, tuple) else (made,)))
            for name in step.done:
                values.pop(name, None)  # it may be an output that nobody uses and nobody made
        results = [values[name] for name in self.output_names]
        return tuple(results) if len(results) > 1 else results[0]

    def _checked(self, inputs: tuple[Any, ...]) -> list[Tensor]:
        if len(inputs) != len(self._inputs):
            names = ", ".join(self.input_names)
            raise ShapeError(f"OnnxModule: call it with {len(self._inputs)} inputs ({names}), got {len(inputs)}")
        tensors = [each if isinstance(each, Tensor) else Tensor(each) for each in inputs]
        for port, x in zip(self._inputs, tensors):
            if x.dtype.kind != port.kind:
                raise DTypeError(f"OnnxModule: input {port.name!r} must be of kind {port.kind!r}, got {x.dtype}")
            if len(port.shape) != x.ndim or any(a is not None and a != b for a, b in zip(port.shape, x.shape)):
                wanted = ", ".join("any" if size is None else str(size) for size in port.shape)
                raise ShapeError(f"OnnxModule: input {port.name!r} must have shape ({wanted}), got {x.shape}")
        return tensors

    def extra_repr(self) -> str:
        """Inputs, outputs and the number of nodes."""
        return f"{', '.join(self.input_names)} -> {', '.join(self.output_names)}, {len(self._steps)} nodes"


def _trained(graph: Graph) -> set[str]:
    """The initializers that become parameters: those the file lists, else floating arrays where ops have weights."""
    floats = {name for name, array in graph.arrays.items() if array.dtype.kind == "f"}
    if graph.parameters is not None:
        return floats & set(graph.parameters)
    kept, used = set(), set()
    for node in graph.nodes:
        used.update(node.input)
        kept.update(node.input[k] for k in CONSTANT_INPUTS.get(node.op_type, ()) if k < len(node.input))
    return {name for name in floats & used - kept if graph.arrays[name].ndim}


def _steps(graph: Graph) -> list[Step]:
    last = {name: k for k, node in enumerate(graph.nodes) for name in [*node.output, *node.input]}
    keep, steps = {"", *graph.outputs}, []
    used = {*graph.outputs, *(name for node in graph.nodes for name in node.input)}
    for k, node in enumerate(graph.nodes):
        where, outputs = f"{graph.where}, {label(node)}", [name for name in node.output if name]
        if node.op_type not in MULTIPLE and any(name in used for name in node.output[1:]):
            raise DataError(f"{where}: only its first output is computed, got another one in use")
        attributes = {each.name: _value(each) for each in node.attribute}
        function = KINDS[node.op_type](Attributes(where, attributes, len(outputs)))
        done = [name for name in {*node.output, *node.input} if last[name] == k and name not in keep]
        steps.append(Step(label(node), function, [name or None for name in node.input], outputs, done))
    return steps


def _value(attribute: Any) -> Any:
    """The value of an AttributeProto; lists as Python's."""
    from onnx.helper import get_attribute_value

    value = get_attribute_value(attribute)
    return list(value) if hasattr(value, "__len__") and not isinstance(value, bytes | str) else value


def module_of(onnx: Any, proto: Any, op: str) -> OnnxModule:
    """The module of a ModelProto in memory."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return OnnxModule(take_apart(onnx, f"{op}: the graph", copy, KINDS, None))


def import_onnx(path: AnyPath) -> OnnxModule:
    """Reads an ONNX file of opset 13 to 17 as a module that computes its graph.

    The parameters are trainable, and names in ``state_dict()`` are those of the file's initializers: a model written
    by :func:`export_onnx` gets its weights back by ``model.load_state_dict(module.state_dict(), strict=False)``, not
    strict because what evaluation does not use, such as a count of batches, is not in the file. In a file of another
    program, floating arrays are parameters, but for running statistics, bounds and single numbers.

    Nothing that the file says is believed: sizes are held against the bytes that are there, and no path out of its
    folder is followed. Weights may lie in another file beside it. What a graph computes may need as much memory as it
    likes, though: run files of strangers under a limit.

    Args:
        path: the file.

    Returns:
        A ``gn.nn.Module`` on the CPU, called with the graph's inputs in order. Sizes that the file leaves open may be
        any; the others are checked.

    Raises:
        BackendUnavailableError: the package onnx is not installed; ``pip install 'gpunet[onnx]'``.
        DataError: no ONNX file, or one that is truncated, damaged or hostile, or of an op, an attribute, an opset or a
            type that is not read; the message names it.
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile, gpunet as gn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gn.io.export_onnx(gn.nn.Linear(2, 1), f"{folder}/model.onnx", gn.zeros(1, 2))
        ...     module = gn.io.import_onnx(f"{folder}/model.onnx")
        >>> [name for name, _ in module.named_parameters()], module(gn.zeros(8, 2)).shape
        (['weight', 'bias'], (8, 1))
    """
    onnx = need_onnx("import_onnx")
    return OnnxModule(read(onnx, "import_onnx", path, KINDS))
