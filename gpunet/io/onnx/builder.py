"""Collects the nodes of an ONNX graph, and makes the file's content of them."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpunet.io.onnx.package import IR_VERSION, NUMBERS, OPSET, PARAMETERS


class Node(NamedTuple):
    """One node: its kind, the names it reads ("" for one left out), the name it makes, and its attributes."""

    kind: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Port(NamedTuple):
    """An input or output of the graph; a size may be a word, for one that is free."""

    name: str
    shape: Sequence[int | str]
    dtype: np.dtype[Any]


class Builder:
    """Nodes in the order of their making.

    Args:
        taken: names that are not to be given to a node: those of inputs, outputs and state.
    """

    def __init__(self, taken: Sequence[str]):
        self.nodes: list[Node] = []
        self.made: dict[str, Node] = {}  # the node of each name
        self.means: dict[str, tuple[int, int]] = {}  # of a sum, how many numbers it added in the two runs
        self._taken, self._counts = set(taken), dict[str, int]()
        self._constants: dict[Any, str] = {}

    def _free_name(self, kind: str) -> str:
        while True:
            number = self._counts.get(kind, 0)
            self._counts[kind] = number + 1
            name = f"{kind.lower()}_{number}"
            if name not in self._taken:
                self._taken.add(name)
                return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        node = Node(kind, inputs, self._free_name(kind), attributes)
        self.nodes.append(node)
        self.made[node.output] = node
        return node.output

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of a constant; equal ones are written once."""
        array = np.asarray(value, dtype)
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.node("Constant", value=array)
        return self._constants[key]

    def sizes(self, *values: int) -> str:
        """The name of a constant list of integers: axes, a shape, pads."""
        return self.constant(values, np.int64)

    def result(self, name: str, output: str) -> None:
        """Gives the value called ``name`` the graph's name for an output."""
        self.nodes.append(Node("Identity", (name,), output, {}))

    def _needed(self, outputs: Sequence[Port]) -> list[Node]:
        """The nodes that an output depends on, in order."""
        wanted, kept = {port.name for port in outputs}, []
        for node in reversed(self.nodes):
            if node.output in wanted:
                wanted.update(node.inputs)
                kept.append(node)
        return kept[::-1]

    def model(
        self, onnx: Any, inputs: Sequence[Port], outputs: Sequence[Port], state: dict[str, Any], parameters: list[str]
    ) -> Any:
        """The ModelProto; of ``state`` (arrays by name) only what is used."""
        nodes = self._needed(outputs)
        used = {name for node in nodes for name in node.inputs}
        arrays = [onnx.numpy_helper.from_array(array, name) for name, array in state.items() if name in used]
        graph = onnx.helper.make_graph(
            [_proto(onnx, node) for node in nodes], "gpunet",
            [_port(onnx, port) for port in inputs], [_port(onnx, port) for port in outputs], arrays,
        )  # fmt: skip
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)])
        model.ir_version, model.producer_name = IR_VERSION, "gpunet"
        onnx.helper.set_model_props(model, {PARAMETERS: json.dumps([name for name in parameters if name in used])})
        return model


def _proto(onnx: Any, node: Node) -> Any:
    attributes = {
        name: onnx.numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        for name, value in node.attributes.items()
    }
    return onnx.helper.make_node(node.kind, node.inputs, [node.output], name=node.output, **attributes)


def _port(onnx: Any, port: Port) -> Any:
    return onnx.helper.make_tensor_value_info(port.name, NUMBERS[port.dtype], list(port.shape))
