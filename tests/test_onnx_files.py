"""gpunet.io.import_onnx on files that are broken, hostile, or of what it does not read: each is refused by name."""

import builtins
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import io, nn
from gpunet.errors import ArgumentError, BackendUnavailableError, DataError, GpunetError
from gpunet.io.onnx.package import PARAMETERS

onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed; pip install 'gpunet[onnx]'")
helper: Any = pytest.importorskip("onnx.helper")
FLOAT = onnx.TensorProto.FLOAT


def proto(*nodes: Any, arrays: Any = None, shape: Any = ("N", 3), kind: int = FLOAT) -> Any:
    """A ModelProto from x to y, by default y = x @ w."""
    nodes = nodes or (helper.make_node("MatMul", ["x", "w"], ["y"], name="dense"),)
    arrays = {"w": np.ones((3, 2), np.float32)} if arrays is None else arrays
    graph = helper.make_graph(
        list(nodes), "test", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, ("N", "M"))],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def refused(path: Path, content: Any, *words: str) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(DataError, match=r"^import_onnx: ") as caught:
        io.import_onnx(path)
    for word in words:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder / "m.onnx"


def node(kind: str, *inputs: str, output: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, [output], name="n", **attributes)


# ---------------------------------------------------------------------------------------------- what is not read

NODES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "op": (node("Loop", "x"), ("node 'n' (Loop)", "one of Abs, Add", "got Loop")),
    "domain": (node("Relu", "x", domain="com.evil"), ("ops must be ONNX' own, got one of domain 'com.evil'",)),
    "no_such_op": (node("Rellu", "x"), ("got Rellu",)),
    "auto_pad": (node("ConvTranspose", "x", "w", auto_pad="SAME_UPPER"), ("auto_pad must be one of", "'SAME_UPPER'")),
    "pad_mode": (node("Pad", "x", "s", mode="reflect"), ("mode must be one of 'constant', got 'reflect'",)),
    "training": (node("BatchNormalization", "x", "v", "v", "v", "v", training_mode=1), ("training_mode", "got 1")),
    "half": (node("Cast", "x", to=onnx.TensorProto.FLOAT16), ("to must be one of", "got 10")),
    "volumes": (node("MaxPool", "x", kernel_shape=[2, 2, 2]), ("kernel_shape must be 2 integers",)),
    "huge_pads": (node("AveragePool", "x", kernel_shape=[1, 1], pads=[0, 0, 1 << 40, 0]), ("pads must be 4 integers",)),
    "no_stride": (node("MaxPool", "x", kernel_shape=[1, 1], strides=[0, 1]), ("strides must be 2 integers from 1",)),
    "groups": (node("Conv", "x", "w", group=0), ("group must be from 1",)),
    "nan": (node("LeakyRelu", "x", alpha=float("nan")), ("alpha must be a number",)),
    "attribute": (node("Relu", "x", axis=1), ("ONNX' own checker", "axis")),
    "attribute_type": (node("Softmax", "x", axis="one"), ("ONNX' own checker", "axis")),
    "missing_attribute": (node("Concat", "x", "x"), ("ONNX' own checker", "axis")),
    "inputs": (node("Relu", "x", "x"), ("ONNX' own checker",)),
    "subgraph": (node("Relu", "x", body=proto().graph), ("attributes must be values", "'body'")),
    "second_output": (helper.make_node("MaxPool", ["x"], ["z", "y"], kernel_shape=[1, 1]), ("first output",)),
    "strings": (helper.make_node("Constant", [], ["y"], value_strings=["a"]), ("must be a tensor", "value_strings")),
    "constant": (helper.make_node("Constant", [], ["y"]), ("must have one value", "got 0 and 1")),
    "itself": (node("Add", "x", "y"), ("'y' must be made by an earlier node", "cycle")),
    "unknown_value": (node("Add", "x", "nothing"), ("'nothing' must be made by an earlier node, got none",)),
    "twice": (node("Relu", "x", output="x"), ("'x' must be made once",)),
    "no_result": (node("Relu", "x", output="z"), ("output 'y' must be made by a node",)),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_nodes(name, path):
    made, words = NODES[name]
    arrays = {"w": np.ones((3, 2, 2, 2), np.float32), "v": np.ones(3, np.float32), "s": np.zeros(4, np.int64)}
    refused(path, proto(made, arrays=arrays), *words)


def test_a_cycle_of_two(path):
    refused(path, proto(node("Add", "x", "b", output="y"), node("Relu", "y", output="b")), "'b'", "cycle")


def change(edit: Callable[[Any], Any]) -> Any:
    model = proto()
    edit(model)
    return model


def opsets(*versions: tuple[str, int]) -> Any:
    def edit(model: Any) -> None:
        del model.opset_import[:]
        model.opset_import.extend([helper.make_opsetid(*each) for each in versions])

    return change(edit)


def weight(**fields: Any) -> Any:
    """The model with fields of its one initializer set."""

    def edit(model: Any) -> None:
        tensor = model.graph.initializer[0]
        for name, value in fields.items():
            tensor.ClearField(name)
            if isinstance(value, list):
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return change(edit)


HUGE = 1 << 62
FILES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "empty": (b"", ("got 0 bytes",)),
    "text": (b"hello world, this is no model", ("must be an intact ONNX file",)),
    "pickle": (pickle.dumps({"w": 1}), ("a Python pickle",)),
    "zip": (b"PK\x03\x04" + bytes(40), ("a zip file",)),
    "no_graph": (change(lambda m: m.ClearField("graph")), ("with a graph, got none",)),
    "opset_new": (opsets(("", 18)), ("opset from 13 to 17, got 18", "version_converter")),
    "opset_old": (opsets(("", 12)), ("got 12",)),
    "opset_none": (opsets(), ("got none",)),
    "opset_two": (opsets(("", 17), ("ai.onnx", 13)), ("got 17, 13",)),
    "ir_version": (change(lambda m: setattr(m, "ir_version", 999)), ("ONNX' own checker",)),
    "type_half": (weight(data_type=10), ("initializer 'w'", "got FLOAT16")),
    "type_text": (weight(data_type=8), ("got STRING",)),
    "type_unknown": (weight(data_type=99), ("got number 99",)),
    "sizes_huge": (weight(dims=[HUGE, HUGE]), (f"must come with {HUGE * HUGE * 4} bytes, got 24",)),
    "sizes_negative": (weight(dims=[-3, -2]), ("sizes from 0, got (-3, -2)",)),
    "sizes_many": (weight(dims=[1] * 99), ("at most 32 sizes",)),
    "sizes_wrong": (weight(dims=[3, 3]), ("must come with 36 bytes, got 24",)),
    "no_data": (weight(raw_data=b""), ("must come with 24 bytes, got 0",)),
    "few_numbers": (change(lambda m: m.graph.initializer[0].CopyFrom(
        onnx.TensorProto(name="w", dims=[3, 2], data_type=FLOAT, float_data=[1.0] * 5))), ("6 numbers, got 5",)),
    "too_large_number": (change(lambda m: m.graph.initializer[0].CopyFrom(
        onnx.TensorProto(name="w", dims=[1], data_type=3, int32_data=[300]))), ("must fit into int8",)),
    "initializers_alike": (change(lambda m: m.graph.initializer.append(m.graph.initializer[0])), ("'w' twice",)),
    "initializer_without_name": (weight(name=""), ("names of their own",)),
    "inputs_alike": (change(lambda m: m.graph.input.append(m.graph.input[0])), ("names of their own",)),
    "input_type": (proto(kind=onnx.TensorProto.BFLOAT16), ("input 'x'", "BFLOAT16")),
    "input_sequence": (change(lambda m: m.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None)))), ("sequence_type",)),
    "input_negative": (proto(shape=(-4, 3)), ("sizes from 0, got (-4, 3)",)),
    "no_outputs": (change(lambda m: m.graph.ClearField("output")), ("must have an output",)),
    "sparse": (change(lambda m: m.graph.sparse_initializer.add()), ("sparse_initializer",)),
    "training": (change(lambda m: m.training_info.add()), ("training_info",)),
    "parameters": (change(lambda m: helper.set_model_props(m, {PARAMETERS: "[[]]"})), ("JSON list of names",)),
    "parameters_deep": (change(lambda m: helper.set_model_props(m, {PARAMETERS: "[" * 99999})), ("JSON list",)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files(name, path):
    content, words = FILES[name]
    refused(path, content, "m.onnx", *words)


def test_a_message_stays_short(path):
    long = "n" * 100_000
    model = proto(helper.make_node("Loop" * 9999, ["x"], ["y"], name=long))
    assert len(refused(path, model, "...'")) < 2000


# ------------------------------------------------------------------------------------------------ external data


def external(location: str, **entries: Any) -> Any:
    def edit(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=str(value))

    return change(edit)


def test_external_data_stays_in_the_folder(path, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(24))
    (path.parent / "inside").write_bytes(np.arange(8, dtype="<f4").tobytes())
    os.symlink(tmp_path / "secret", path.parent / "link")
    os.symlink(tmp_path, path.parent / "folder")
    os.mkfifo(path.parent / "pipe")
    for location in ("../secret", str(tmp_path / "secret"), "a/../../secret", "link", "folder/secret",
                     str(path.parent / "inside")):  # fmt: skip
        refused(path, external(location), "must lie in the folder of the model", "hostile")
    for location in ("none", "pipe", ".", "a\0b", ""):
        refused(path, external(location), "initializer 'w'")
    path.write_bytes(external("inside", offset=8, length=24).SerializeToString())
    assert io.import_onnx(path)(gn.tensor([[1.0, 0.0, 0.0]])).tolist() == [[2.0, 3.0]]


ENTRIES: Any = [
    {"offset": 16}, {"offset": -8}, {"offset": HUGE}, {"length": 25}, {"length": HUGE}, {"offset": "many"},
    {"length": -1},
]  # fmt: skip


@pytest.mark.parametrize("entries", ENTRIES)
def test_external_data_must_be_there(path, entries):
    (path.parent / "inside").write_bytes(bytes(32))
    refused(path, external("inside", **entries), "initializer 'w'")


def test_a_constant_is_never_external(path):
    value = external("inside").graph.initializer[0]
    refused(path, proto(node("Constant", value=value)), "must be in the file itself")


# ----------------------------------------------------------------------------------------- damage, and what computes


def test_truncated_and_damaged_files_are_refused_or_harmless(path):
    gn.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    io.export_onnx(model, path, gn.zeros(1, 1, 4, 4))
    whole = path.read_bytes()
    random = np.random.default_rng(4)
    ends = random.choice(len(whole), 60, replace=False)
    damaged = [whole[:end] for end in ends]
    for _ in range(150):
        content = bytearray(whole)
        content[random.integers(len(whole))] ^= 1 << random.integers(8)
        damaged.append(bytes(content))
    refusals = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            with np.errstate(all="ignore"):
                io.import_onnx(path)(gn.zeros(1, 1, 4, 4))
        except GpunetError:
            refusals += 1
    assert refusals > 100


BOMBS = {
    "expand": (node("Expand", "x", "s"), np.array([1 << 40, 1, 3], np.int64), "at most"),
    "pad": (node("Pad", "x", "s"), np.array([0, 0, 1 << 40, 0], np.int64), "widths up to"),
    "reshape": (node("Reshape", "x", "s"), np.array([1 << 40, 3], np.int64), "must hold 3 elements"),
    "reshape_zero": (node("Reshape", "x", "s"), np.array([1, 3, 0], np.int64), "0 must stand at an axis"),
    "squeeze": (node("Squeeze", "x", "s"), np.array([1], np.int64), "must be of size 1"),
    "slice_step": (node("Slice", "x", "s", "s", "", "s"), np.array([0], np.int64), "no step 0"),
    "axis": (node("ReduceSum", "x", "s"), np.array([7], np.int64), "7"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_sizes_that_a_graph_asks_for_are_checked(name, path):
    made, sizes, words = BOMBS[name]
    path.write_bytes(proto(made, arrays={"s": sizes}).SerializeToString())
    with pytest.raises(GpunetError, match=words):
        io.import_onnx(path)(gn.zeros(1, 3))


def test_dropout_that_drops_is_refused(path):
    arrays = {"r": np.array(0.5, np.float32), "t": np.array(True)}
    path.write_bytes(proto(node("Dropout", "x", "r", "t"), arrays=arrays).SerializeToString())
    with pytest.raises(ArgumentError, match="training_mode"):
        io.import_onnx(path)(gn.zeros(1, 3))


def test_no_file_and_no_package(path, monkeypatch):
    with pytest.raises(FileNotFoundError):
        io.import_onnx(path)
    with pytest.raises(DataError, match="must be a regular file"):
        io.import_onnx(path.parent)
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "onnx")
    monkeypatch.setattr(builtins, "__import__", without)
    for call in (lambda: io.import_onnx(path), lambda: io.export_onnx(nn.ReLU(), path, gn.zeros(1))):
        with pytest.raises(BackendUnavailableError, match=r"pip install 'gpunet\[onnx\]'"):
            call()
