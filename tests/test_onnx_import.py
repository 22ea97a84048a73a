"""gpunet.io.import_onnx: graphs of other programs computed as onnx's reference evaluator does, and trained on."""

import copy
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import io, nn, optim
from gpunet.errors import DTypeError, ShapeError

INSTALL = "onnx is not installed; pip install 'gpunet[onnx]'"
onnx: Any = pytest.importorskip("onnx", reason=INSTALL)
reference: Any = pytest.importorskip("onnx.reference", reason=INSTALL)
helper: Any = pytest.importorskip("onnx.helper", reason=INSTALL)


def draw(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(
    path: Path, nodes: Any, inputs: dict[str, Any], arrays: Any = None, outputs: Any = None, opset: int = 17
) -> Path:
    """A file of these nodes; the shape of each input, and the output of the last node, or those named."""
    outputs = outputs or [nodes[-1].output[0]]
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (arrays or {}).items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path.write_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())  # which says what the outputs are
    return path


def in_onnxruntime(path: Path, feed: Any) -> Any:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; pip install onnxruntime")
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)


def agrees(path: Path, evaluator: bool = True, **feed: np.ndarray) -> Any:
    """The module of the file, after it gave what the reference evaluator gives, or else onnxruntime."""
    module = io.import_onnx(path)
    found = module(*[gn.tensor(feed[name]) for name in module.input_names])
    if evaluator:
        expected = reference.ReferenceEvaluator(onnx.load(path)).run(None, feed)
    else:
        expected = in_onnxruntime(path, feed)
    for a, b in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a.detach().numpy(), b, rtol=1e-5, atol=1e-5)
    return module


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


IMAGE = (2, 3, 7, 6)
BEYOND = ("conv_upper", "conv_lower", "conv_valid")  # what the evaluators of onnx before 1.21 compute otherwise
#: op, shape of x, arrays after it, attributes: what gpunet's own files never hold
FOREIGN: dict[str, tuple[str, tuple[int, ...], dict[str, Any], dict[str, Any]]] = {
    "gemm": ("Gemm", (2, 3), {"b": draw(3, 4), "c": draw(4)}, {"alpha": 0.5, "beta": 2.0}),
    "gemm_a": ("Gemm", (3, 2), {"b": draw(4, 3), "c": draw(2, 1)}, {"transA": 1, "transB": 1}),
    "conv_asymmetric": ("Conv", IMAGE, {"w": draw(4, 3, 3, 3), "b": draw(4)}, {"pads": [0, 1, 2, 0]}),
    "conv_upper": ("Conv", IMAGE, {"w": draw(4, 3, 3, 2)}, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "conv_lower": ("Conv", IMAGE, {"w": draw(4, 3, 2, 4)}, {"auto_pad": "SAME_LOWER", "kernel_shape": [2, 4]}),
    "conv_valid": ("Conv", IMAGE, {"w": draw(4, 3, 2, 2)}, {"auto_pad": "VALID"}),
    "conv_t_asymmetric": ("ConvTranspose", IMAGE, {"w": draw(3, 2, 3, 3)}, {"pads": [1, 0, 0, 2], "strides": [2, 2]}),
    "max_asymmetric": ("MaxPool", IMAGE, {}, {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1]}),
    "max_large_pads": ("MaxPool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    "max_upper": ("MaxPool", IMAGE, {}, {"kernel_shape": [2, 3], "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "max_ceil": ("MaxPool", IMAGE, {}, {"kernel_shape": [2, 3], "ceil_mode": 1, "strides": [2, 2]}),
    "avg_asymmetric": ("AveragePool", IMAGE, {}, {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1]}),
    "avg_counted": ("AveragePool", IMAGE, {}, {"kernel_shape": [3, 2], "pads": [1, 0, 0, 1], "count_include_pad": 1}),
    "avg_even": ("AveragePool", IMAGE, {}, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    "global_max": ("GlobalMaxPool", IMAGE, {}, {}),
    "flatten": ("Flatten", IMAGE, {}, {"axis": 2}),
    "flatten_end": ("Flatten", IMAGE, {}, {"axis": -1}),
    "transpose": ("Transpose", IMAGE, {}, {}),
    "reshape": ("Reshape", (2, 3, 4), {"s": ints(0, -1)}, {}),
    "squeeze": ("Squeeze", (2, 1, 3, 1), {"a": ints(-1)}, {}),
    "squeeze_all": ("Squeeze", (2, 1, 3, 1), {}, {}),
    "unsqueeze": ("Unsqueeze", (2, 3), {"a": ints(-1, 0)}, {}),
    "expand": ("Expand", (3, 1), {"s": ints(2, 1, 4)}, {}),
    "slice": ("Slice", (5, 6, 7), {"s": ints(-1, 1), "e": ints(-9999, 5), "a": ints(2, 0), "p": ints(-2, 3)}, {}),
    "slice_plain": ("Slice", (5, 6), {"s": ints(1, 0), "e": ints(4, -1)}, {}),
    "gather": ("Gather", (4, 5), {"i": ints(3, -1, 0).reshape(3, 1)}, {"axis": 1}),
    "gather_one": ("Gather", (4, 5), {"i": np.array(2)}, {}),
    "pad": ("Pad", (2, 3), {"p": ints(1, 0, 0, 2), "v": np.float32(2.5)}, {}),
    "clip_below": ("Clip", (4, 5), {"low": np.float32(-0.3)}, {}),
    "max_three": ("Max", (4, 5), {"b": draw(5), "c": draw(4, 1)}, {}),
    "reduce_last": ("ReduceMean", (2, 3, 4), {}, {"axes": [-1], "keepdims": 0}),
    "reduce_all": ("ReduceMax", (2, 3, 4), {}, {}),
    "sum_none": ("ReduceSum", (2, 3), {"a": ints()}, {"noop_with_empty_axes": 1}),
    "sum_all": ("ReduceSum", (2, 3), {}, {"keepdims": 0}),
    "softmax": ("Softmax", (2, 3, 4), {}, {}),
    "softmax_first": ("LogSoftmax", (2, 3, 4), {}, {"axis": 0}),
    "prelu_whole": ("PRelu", (2, 3, 4), {"s": draw(3, 4)}, {}),
    "prelu_channels": ("PRelu", (2, 3, 4), {"s": draw(3, 1)}, {}),
    "layer_norm": ("LayerNormalization", (2, 3, 4), {"w": draw(3, 4), "b": draw(3, 4)}, {"axis": 1, "epsilon": 0.1}),
    "erf": ("Erf", (4, 5), {}, {}),
    "dropout": ("Dropout", (4, 5), {"r": np.float32(0.5)}, {}),
    "shape": ("Shape", (4, 5, 6), {}, {"start": 1}),
    "arg_min": ("ArgMin", (4, 5), {}, {"axis": -1, "keepdims": 0}),
    "pow": ("Pow", (4, 5), {"p": np.float32(2)}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_nodes(name, tmp_path):
    kind, shape, arrays, attributes = FOREIGN[name]
    node = helper.make_node(kind, ["x", *arrays], ["y"], name="n", **attributes)
    path = write(tmp_path / "m.onnx", [node], {"x": list(shape)}, arrays)
    agrees(path, evaluator=name not in BEYOND, x=draw(*shape, seed=5))


def test_erf_is_accurate_and_differentiable():
    from math import erf

    from gpunet.io.onnx.operators import Erf

    values = [-30.0, -3.0, -1e-9, 0.0, 1e-5, 0.3, 2.0, 8.0]
    x = gn.tensor(values, dtype="float64", requires_grad=True)
    np.testing.assert_allclose(Erf.apply(x).detach().numpy(), [erf(value) for value in values], rtol=0, atol=1e-15)
    gn.gradcheck(Erf.apply, (gn.tensor([-1.0, 0.0, 0.4], dtype="float64", requires_grad=True),))
    assert np.isnan(Erf.apply(gn.tensor([np.nan])).numpy()).all()


def test_max_pooling_with_ceil_drops_a_window_of_padding(tmp_path):
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[3, 3], pads=[1] * 4, ceil_mode=1)
    x = gn.tensor(draw(1, 1, 7, 6))
    found = io.import_onnx(write(tmp_path / "m.onnx", [node], {"x": [1, 1, 7, 6]}))(x)
    expected = gn.functional.max_pool2d(x, 2, stride=3, padding=1, ceil_mode=True)
    assert found.tolist() == expected.tolist()


def test_the_same_where_the_padding_is_wider_than_gpunets_own_takes(tmp_path):
    sizes = {"kernel_shape": [3, 1], "strides": [4, 1], "pads": [2, 0, 2, 0]}
    node = helper.make_node("MaxPool", ["x"], ["y"], ceil_mode=1, **sizes)
    module = io.import_onnx(write(tmp_path / "m.onnx", [node], {"x": [1, 1, 6, 1]}))
    x = gn.tensor([3.0, 9.0, 1.0, 5.0, 2.0, 8.0]).reshape(1, 1, 6, 1)
    assert module(x).flatten().tolist() == [3.0, 5.0]  # a third window would begin in the padding


def test_a_window_that_fits_by_its_padding_alone(tmp_path):
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[0, 0, 1, 1])
    module = io.import_onnx(write(tmp_path / "m.onnx", [node], {"x": [1, 1, 2, 2]}))
    assert module(gn.tensor([[[[-4.0, -3.0], [-2.0, -5.0]]]])).tolist() == [[[[-2.0]]]]


def test_integers_are_cut_off_when_divided(tmp_path):
    nodes = [helper.make_node("Cast", ["x"], ["k"], to=7), helper.make_node("Div", ["k", "two"], ["y"])]
    module = io.import_onnx(write(tmp_path / "m.onnx", nodes, {"x": [4]}, {"two": ints(2)}))
    assert module(gn.tensor([-7.0, 7.0, -6.0, 1.0])).tolist() == [-3, 3, -3, 0]


def test_values_are_let_go_when_nobody_reads_them_any_more(tmp_path):
    nodes = [helper.make_node("Neg", ["x" if k == 0 else f"v{k}"], [f"v{k + 1}"]) for k in range(30)]
    module = io.import_onnx(write(tmp_path / "m.onnx", nodes, {"x": [None]}))
    x = gn.ones(250_000)
    tracemalloc.start()
    module(x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * x.data.nbytes


def test_split_constants_and_left_out_inputs(tmp_path):
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1),
        helper.make_node("Constant", [], ["two"], value_float=2.0),
        helper.make_node("Clip", ["a", "", "two"], ["d"]),
        helper.make_node("Constant", [], ["k"], value_ints=[1, 2]),
        helper.make_node("Dropout", ["c"], ["c1", "nobody"]),
        helper.make_node("Split", ["c1", "k"], ["e", "f"], axis=0),
        helper.make_node("Concat", ["e", "f", "b", "d"], ["y"], axis=0),
    ]
    agrees(write(tmp_path / "m.onnx", nodes, {"x": [3, 6]}, outputs=["y", "f"]), x=draw(3, 6) * 3)


def test_a_shape_computed_in_the_graph(tmp_path):
    """How PyTorch writes x.view(x.size(0), -1)."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    arrays = {"zero": np.array(0), "axis": ints(0), "rest": ints(-1)}
    path = write(tmp_path / "m.onnx", nodes, {"x": ["N", 3, 4]}, arrays)
    module = agrees(path, x=draw(2, 3, 4))
    assert module(gn.zeros(7, 3, 4)).shape == (7, 12)


def net() -> Any:
    gn.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4, bias=False))


def test_an_imported_model_trains_as_the_one_it_was(tmp_path):
    model = net()
    model(gn.tensor(draw(9, 1, 6, 6)))
    io.export_onnx(model, tmp_path / "m.onnx", gn.zeros(2, 1, 6, 6))
    module = io.import_onnx(tmp_path / "m.onnx")
    model.eval()
    x, labels = gn.tensor(draw(5, 1, 6, 6)), gn.tensor([0, 1, 2, 3, 0])
    for each in (model, module):
        optimizer = optim.SGD(each.parameters(), lr=0.5)
        for _ in range(3):
            optimizer.zero_grad()
            gn.functional.cross_entropy(each(x), labels).backward()
            optimizer.step()
    mine, theirs = dict(model.named_parameters()), dict(module.named_parameters())
    assert list(mine) == list(theirs)
    assert not np.array_equal(net().state_dict()["4.weight"].numpy(), mine["4.weight"].detach().numpy())
    for name, value in mine.items():
        np.testing.assert_allclose(theirs[name].detach().numpy(), value.detach().numpy(), rtol=1e-4, atol=1e-6)
    fresh = net()
    report = fresh.load_state_dict(module.state_dict(), strict=False)
    assert not report.unexpected_keys
    assert all("num_batches" in name for name in report.missing_keys)
    np.testing.assert_allclose(fresh.eval()(x).detach().numpy(), module(x).detach().numpy(), rtol=0, atol=1e-5)


def test_buffers_of_gpunet_stay_buffers(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", gn.tensor([1.0, 2.0]))
            self.factor = nn.Parameter(gn.tensor(3.0))

        def forward(self, x):
            return (x - self.mean) * self.factor

    io.export_onnx(Scaled(), tmp_path / "m.onnx", gn.ones(1, 2))
    module = io.import_onnx(tmp_path / "m.onnx")
    assert [name for name, _ in module.named_parameters()] == ["factor"]
    assert sorted(module.state_dict()) == ["factor", "mean"]


def test_what_is_trained_in_a_foreign_file(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "a.w"], ["t"]),
        helper.make_node("BatchNormalization", ["t", "scale", "bias", "mean:0", "var"], ["u"]),
        helper.make_node("Mul", ["u", "one"], ["v"]),
        helper.make_node("Clip", ["v", "low"], ["y"]),
    ]
    arrays = {"a.w": draw(3, 2), "scale": draw(2), "bias": draw(2), "mean:0": draw(2), "var": draw(2) ** 2,
              "one": np.float32(1.5), "low": np.float32(-1), "unused": draw(2)}  # fmt: skip
    module = agrees(write(tmp_path / "m.onnx", nodes, {"x": [None, 3]}, arrays), x=draw(4, 3))
    assert sorted(name for name, _ in module.named_parameters()) == ["a.w", "bias", "scale"]
    assert "mean_0" in module.state_dict()
    module(gn.tensor(draw(4, 3))).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


NAMES = ["forward", "a", "a.b", "a.b.c", ".", "..x", "training", "_modules", "x:0", "x_0", "ü/ß", ".".join("q" * 99)]


def test_any_names_of_initializers(tmp_path):
    nodes = [helper.make_node("Max", ["x", *NAMES], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, {"x": [2]}, {name: draw(2, seed=k) for k, name in enumerate(NAMES)})
    module = agrees(path, x=draw(2))
    assert len(module.state_dict()) == len(NAMES)
    module.load_state_dict(module.state_dict())


def test_an_input_is_checked(tmp_path):
    module = io.import_onnx(write(tmp_path / "m.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": ["N", 3]}))
    assert module(draw(2, 3)).shape == (2, 3)
    with pytest.raises(ShapeError, match=r"input 'x' must have shape \(any, 3\), got \(2, 4\)"):
        module(gn.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"must have shape \(any, 3\)"):
        module(gn.zeros(3))
    with pytest.raises(ShapeError, match="with 1 inputs"):
        module(gn.zeros(2, 3), gn.zeros(2, 3))
    with pytest.raises(DTypeError, match="kind 'f', got int64"):
        module(gn.zeros(2, 3, dtype="int64"))


def test_an_error_names_the_node(tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")
    module = io.import_onnx(write(tmp_path / "m.onnx", [node], {"x": [None, None]}, {"w": draw(3, 2)}))
    with pytest.raises(ShapeError) as caught:
        module(gn.zeros(2, 4))
    assert any("'dense' (MatMul)" in note for note in caught.value.__notes__)


def test_copies_and_dtypes(tmp_path):
    io.export_onnx(net(), tmp_path / "m.onnx", gn.zeros(2, 1, 6, 6))
    module, x = io.import_onnx(tmp_path / "m.onnx"), gn.tensor(draw(2, 1, 6, 6))
    expected = module(x).detach().numpy()
    other = copy.deepcopy(module)
    other.requires_grad_(False)
    for parameter in other.parameters():
        parameter.data *= 0
    assert np.array_equal(module(x).detach().numpy(), expected)
    assert not np.array_equal(other(x).numpy(), expected)
    wide = copy.deepcopy(module).double()(x.double())
    assert wide.dtype == np.float64
    np.testing.assert_allclose(wide.detach().numpy(), expected, rtol=0, atol=1e-5)
    assert np.array_equal(pickle.loads(pickle.dumps(module))(x).detach().numpy(), expected)


@pytest.mark.parametrize("opset", [13, 15, 17])
def test_older_opsets(opset, tmp_path):
    nodes = [helper.make_node("Gemm", ["x", "w"], ["t"]), helper.make_node("Softmax", ["t"], ["y"])]
    agrees(write(tmp_path / "m.onnx", nodes, {"x": [2, 3]}, {"w": draw(3, 4)}, opset=opset), x=draw(2, 3))


def test_weights_in_another_file(tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    path = write(tmp_path / "m.onnx", [node], {"x": [2, 64]}, {"w": draw(64, 9)})
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    assert path.stat().st_size < (tmp_path / "m.bin").stat().st_size
    agrees(path, x=draw(2, 64))
