"""An ONNX file taken apart: nothing that it claims is believed before it was held against what is there."""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunet.errors import DataError
from gpunet.io import container
from gpunet.io.container import AnyPath
from gpunet.io.onnx.package import DTYPES, MAX_BYTES, OLDEST_OPSET, OPSET, PARAMETERS

MAX_AXES = 32
STANDARD = ("", "ai.onnx")
#: where a tensor's numbers lie when they are not raw bytes, by number of its type; the others are in int32_data
FIELDS = {1: "float_data", 11: "double_data", 7: "int64_data"}


class Input(NamedTuple):
    """A graph input: its sizes are None where they are free."""

    name: str
    shape: tuple[int | None, ...]
    kind: str  # of its NumPy dtype


class Graph(NamedTuple):
    """A graph in order, with its arrays."""

    where: str  # begins a message about it
    nodes: list[Any]  # NodeProto, without those that are constants
    inputs: list[Input]
    outputs: list[str]
    arrays: dict[str, np.ndarray]  # initializers
    constants: dict[str, np.ndarray]
    parameters: list[str] | None  # names of those to be trained, where the file says so


def read(onnx: Any, op: str, path: AnyPath, kinds: Iterable[str]) -> Graph:
    """The graph of a file whose ops are among ``kinds``.

    Raises:
        DataError: it is no ONNX file, or one that is damaged, hostile, or of things that are not read.
    """
    from google.protobuf.message import DecodeError  # comes with onnx

    file = container.need_file(op, path)
    where, size = f"{op}: {str(file)!r}", file.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise DataError(f"{where} must be an ONNX file of at most {MAX_BYTES} bytes, got {size} bytes")
    data = file.read_bytes()
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        what = container.foreign(data[:8]) or f"{size} bytes that begin with {data[:8]!r} ({error})"
        raise DataError(f"{where} must be an intact ONNX file, got {what}; truncated?") from None
    return take_apart(onnx, where, proto, kinds, file.resolve().parent)


def take_apart(onnx: Any, where: str, proto: Any, kinds: Iterable[str], folder: Path | None) -> Graph:
    """The graph of a ModelProto, whose initializers are then gone from it. ``folder``: where other files may lie."""
    if not proto.HasField("graph") or not proto.ir_version:
        raise DataError(f"{where} must be an ONNX file with a graph, got none; truncated, or of another kind?")
    graph = proto.graph
    _need_opset(where, proto)
    for field, what in (("sparse_initializer", graph.sparse_initializer), ("training_info", proto.training_info)):
        if what:
            raise DataError(f"{where} must hold plain tensors and nodes, got {field}; export it again without")
    _need_known(where, graph.node, set(kinds))
    arrays = {}
    for tensor in graph.initializer:
        if tensor.name in arrays or not tensor.name:
            raise DataError(f"{where}: initializers must have names of their own, got {_short(tensor.name)} twice")
        arrays[tensor.name] = _array(onnx, f"{where}, initializer {_short(tensor.name)}", tensor, folder)
    constants = {node.output[0]: _constant(onnx, where, node) for node in graph.node if _is_constant(node)}
    inputs = [_input(onnx, where, port) for port in graph.input if port.name not in arrays]
    _need_order(where, graph, [*arrays, *(port.name for port in inputs)])
    for tensor in graph.initializer:  # the checker needs no numbers, and must not open other files
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, tensor.data_type, [0], []))
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        text = str(error).partition("\n")[0]
        raise DataError(f"{where} must be valid by ONNX' own checker, got: {text[:300]}") from None
    nodes = [node for node in graph.node if not _is_constant(node)]
    outputs = [port.name for port in graph.output]
    return Graph(where, nodes, inputs, outputs, arrays, constants, _parameters(where, proto))


def label(node: Any) -> str:
    """How messages name a node."""
    return f"node {_short(node.name or (node.output[0] if node.output else ''))} ({node.op_type[:40]})"


def _short(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")


def _is_constant(node: Any) -> bool:
    return node.op_type == "Constant"


def _need_opset(where: str, proto: Any) -> None:
    versions = [each.version for each in proto.opset_import if each.domain in STANDARD]
    if len(versions) != 1 or not OLDEST_OPSET <= versions[0] <= OPSET:
        got = ", ".join(map(str, versions)) or "none"
        raise DataError(
            f"{where} must be of one opset from {OLDEST_OPSET} to {OPSET}, got {got}; export it with opset {OPSET}, or "
            "use onnx.version_converter"
        )


def _need_known(where: str, nodes: Any, kinds: set[str]) -> None:
    for node in nodes:
        if node.domain not in STANDARD:
            raise DataError(f"{where}, {label(node)}: ops must be ONNX' own, got one of domain {_short(node.domain)}")
        if node.op_type not in kinds and not _is_constant(node):
            raise DataError(f"{where}, {label(node)}: the op must be one of {', '.join(sorted(kinds))}, got "
                            f"{node.op_type[:40]}")  # fmt: skip
        for attribute in node.attribute:
            if attribute.ref_attr_name or attribute.HasField("g") or attribute.graphs:
                raise DataError(f"{where}, {label(node)}: attributes must be values, got {_short(attribute.name)}")


def _need_order(where: str, graph: Any, known: list[str]) -> None:
    """Every value is made once, before it is used: so there is no cycle."""
    seen = set(known)
    if len(seen) != len(known):
        raise DataError(f"{where}: inputs and initializers must have names of their own, got one twice")
    later = {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name and name not in seen:
                what = "one that comes later or is itself: a cycle, or nodes out of order" if name in later else "none"
                raise DataError(f"{where}, {label(node)}: {_short(name)} must be made by an earlier node, got {what}")
        for name in node.output:
            if name and name in seen:
                raise DataError(f"{where}, {label(node)}: {_short(name)} must be made once, got it twice")
            seen.add(name)
    if not graph.output:
        raise DataError(f"{where}: the graph must have an output, got none")
    for port in graph.output:
        if port.name not in seen:
            raise DataError(f"{where}: output {_short(port.name)} must be made by a node, got none that does")


def _dtype(onnx: Any, where: str, number: int) -> np.dtype[Any]:
    if number not in DTYPES:
        types = onnx.TensorProto.DataType
        got = types.Name(number) if number in types.values() else f"number {number}"
        choices = ", ".join(types.Name(each) for each in DTYPES)
        raise DataError(f"{where}: the type must be one of {choices}, got {got}; convert the model to float")
    return DTYPES[number]


def _input(onnx: Any, where: str, port: Any) -> Input:
    where = f"{where}, input {_short(port.name)}"
    if not port.type.HasField("tensor_type"):
        raise DataError(f"{where}: it must be a tensor, got {port.type.WhichOneof('value') or 'no type'}")
    tensor = port.type.tensor_type
    kind = _dtype(onnx, where, tensor.elem_type).kind
    sizes = tuple(int(size.dim_value) if size.HasField("dim_value") else None for size in tensor.shape.dim)
    if len(sizes) > MAX_AXES or any(size is not None and size < 0 for size in sizes):
        raise DataError(f"{where}: it must have at most {MAX_AXES} axes of sizes from 0, got {str(sizes)[:80]}")
    return Input(port.name, sizes, kind)


def _parameters(where: str, proto: Any) -> list[str] | None:
    text = next((each.value for each in proto.metadata_props if each.key == PARAMETERS), None)
    if text is None:
        return None
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where}: {PARAMETERS} must be a JSON list of names, got {text[:80]!r}")
    return names


# ------------------------------------------------------------------------------------------------------- the arrays


def _constant(onnx: Any, where: str, node: Any) -> np.ndarray:
    where = f"{where}, {label(node)}"
    values = {each.name: each for each in node.attribute}
    if len(values) != 1 or len(node.output) != 1:
        raise DataError(f"{where}: it must have one value and one output, got {len(values)} and {len(node.output)}")
    ((name, value),) = values.items()
    if name == "value":
        return _array(onnx, where, value.t, None)
    plain = {
        "value_float": (value.f, np.float32), "value_floats": (list(value.floats), np.float32),
        "value_int": (value.i, np.int64), "value_ints": (list(value.ints), np.int64),
    }  # fmt: skip
    if name not in plain:
        raise DataError(f"{where}: the value must be a tensor, numbers or a number, got {_short(name)}")
    return np.array(*plain[name])


def _array(onnx: Any, where: str, tensor: Any, folder: Path | None) -> np.ndarray:
    """The numbers of a TensorProto: as many as its sizes say, or none at all."""
    dtype, shape = _dtype(onnx, where, tensor.data_type), tuple(tensor.dims)
    if len(shape) > MAX_AXES or min(shape, default=0) < 0 or tensor.HasField("segment"):
        raise DataError(f"{where}: it must be whole, with at most {MAX_AXES} sizes from 0, got {str(shape)[:80]}")
    count = math.prod(shape)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        data = _external(where, tensor, count * dtype.itemsize, folder)
    elif tensor.HasField("raw_data"):
        data = tensor.raw_data
    else:
        values = getattr(tensor, FIELDS.get(tensor.data_type, "int32_data"))
        if len(values) != count:
            raise DataError(f"{where}: shape {shape} must come with {count} numbers, got {len(values)}")
        try:
            return np.array(list(values), dtype).reshape(shape)
        except OverflowError as error:
            raise DataError(f"{where}: numbers must fit into {dtype}, got: {error}") from None
    if len(data) != count * dtype.itemsize:
        wanted = count * dtype.itemsize
        raise DataError(f"{where}: shape {shape} of {dtype} must come with {wanted} bytes, got {len(data)}")
    little = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
    return (little != 0) if dtype.kind == "b" else little.astype(dtype)


def _external(where: str, tensor: Any, size: int, folder: Path | None) -> bytes:
    """The bytes of a tensor that lie in another file, which must be in the model's folder."""
    entries = {each.key: each.value for each in tensor.external_data}
    location = entries.get("location", "")
    if folder is None or not location or "\0" in location:
        raise DataError(f"{where}: its numbers must be in the file itself, got external data {_short(location)}")
    file = Path(os.path.realpath(folder / location))
    if os.path.isabs(location) or not file.is_relative_to(os.path.realpath(folder)):
        raise DataError(f"{where}: external data must lie in the folder of the model, got {_short(location)}; hostile")
    if not file.is_file():
        raise DataError(f"{where}: external data must be a file beside the model, {_short(location)} is none")
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or size)
    except ValueError:
        raise DataError(f"{where}: offset and length must be integers, got {str(entries)[:80]}") from None
    there = file.stat().st_size
    if length != size or not 0 <= offset <= there - size:
        raise DataError(
            f"{where}: {size} bytes must lie in {_short(location)} of {there}, got offset {offset}, length {length}"
        )
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)
