"""gpunet.io.export_onnx: onnxruntime and onnx's reference evaluator compute what the model does, at any batch size."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import functional as F
from gpunet import io, nn
from gpunet.errors import ArgumentError, ShapeError

INSTALL = "onnx is not installed; pip install 'gpunet[onnx]'"
onnx: Any = pytest.importorskip("onnx", reason=INSTALL)
reference: Any = pytest.importorskip("onnx.reference", reason=INSTALL)
TOLERANCE = 1e-5
BEYOND = ("transposed_groups",)  # what onnx's reference evaluator raises at, though it is valid


class Fn(nn.Module):
    """A function as a module; parameters by name are handed to it."""

    def __init__(self, function: Callable[..., Any], **parameters: Any):
        super().__init__()
        self.function, self.names = function, list(parameters)
        for name, value in parameters.items():
            setattr(self, name, nn.Parameter(value))

    def forward(self, *inputs: Any) -> Any:
        return self.function(*inputs, *(getattr(self, name) for name in self.names))


def draw(*shape: int, seed: int = 1, dtype: str = "float32") -> Any:
    return gn.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


def listed(result: Any) -> list[np.ndarray]:
    return [each.detach().numpy() for each in (result if isinstance(result, tuple) else (result,))]


def close(found: Any, expected: list[np.ndarray], tolerance: float = TOLERANCE) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert np.shape(a) == b.shape
        scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def agree(model: Any, path: Path, *inputs: Any, evaluator: bool = True, **options: Any) -> Any:
    """Exports on ``inputs``, then holds every reader against the model on a larger batch of other values."""
    model.train()
    io.export_onnx(model, path, inputs, **options)
    assert all(module.training for module in model.modules())
    model.eval()
    others = inputs
    if options.get("dynamic_batch", True):
        others = [gn.tensor(np.resize(np.flip(x.numpy(), 0), (3 * len(x) + 2, *x.shape[1:]))) for x in inputs]
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    for values in (inputs, others):
        expected = listed(model(*values))
        feed = {port.name: x.numpy() for port, x in zip(proto.graph.input, values)}
        if evaluator:
            close(reference.ReferenceEvaluator(proto).run(None, feed), expected)
        close(listed(io.import_onnx(path)(*values)), expected)
        close(in_onnxruntime(path, feed), expected)
    return proto


def in_onnxruntime(path: Path, feed: dict[str, np.ndarray]) -> Any:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed; pip install onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feed)


def kinds(proto: Any) -> list[str]:
    return [node.op_type for node in proto.graph.node if node.op_type not in ("Constant", "Identity")]


# ------------------------------------------------------------------------------------------------------ whole models

MODELS = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3, bias=False)), (6,)),
    "lenet": (lambda: nn.LeNet5(image_size=16), (1, 16, 16)),
    "reference": (lambda: nn.ReferenceCNN(image_size=14), (1, 14, 14)),
    "norms": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.LayerNorm((4, 5, 5)),
                                    nn.Dropout(0.5), nn.Dropout2d(0.5), nn.Flatten(), nn.BatchNorm1d(100)), (3, 7, 7)),
    "activations": (lambda: nn.Sequential(nn.LeakyReLU(0.2), nn.PReLU(3), nn.Sigmoid(), nn.Tanh(), nn.Softmax(1)),
                    (3, 4, 5)),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1),
                                         nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 5, 4)),
    "transposed_groups": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models(name, tmp_path):
    gn.manual_seed(0)
    make, shape = MODELS[name]
    model = make()
    for _ in range(3):  # so that running statistics are no zeros and ones
        model(draw(8, *shape, seed=7) * 2 + 1)
    agree(model, tmp_path / "m.onnx", draw(2, *shape), evaluator=name not in BEYOND)


def test_a_linear_layer_is_one_node_and_weights_keep_their_names(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    proto = agree(model, tmp_path / "m.onnx", draw(2, 6))
    assert kinds(proto) == ["Gemm", "Relu"]
    assert {each.name for each in proto.graph.initializer} == set(model.state_dict())
    assert [(each.domain, each.version) for each in proto.opset_import] == [("", 17)]
    assert proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


# --------------------------------------------------------------------------------------------------------- single ops

IMAGE = (2, 3, 7, 6)
W = {"w": draw(4, 3, 3, 2, seed=2), "b": draw(4, seed=3)}
IMAGES: dict[str, Any] = {
    "conv": Fn(lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 2), dilation=(1, 2)), **W),
    "conv_same": Fn(lambda x, w, b: F.conv2d(x, w, b, padding="same"), **W),
    "conv_relu": Fn(lambda x, w, b: F.conv2d(x, w, b, activation="relu"), **W),
    "conv_groups": Fn(lambda x, w: F.conv2d(x, w, None, groups=3), w=draw(6, 1, 3, 3)),
    "conv_one_image": Fn(lambda x, w: F.conv2d(x.sum(0), w, None).unsqueeze(0), w=draw(2, 3, 3, 3)),
    "conv_t": Fn(lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=(1, 0), output_padding=1),
                 w=draw(3, 2, 3, 2), b=draw(2)),
    "conv_t_dilated": Fn(lambda x, w: F.conv_transpose2d(x, w, None, stride=1, dilation=3, output_padding=(2, 0)),
                         w=draw(3, 2, 2, 2)),
    "conv_t_more": Fn(lambda x, w, b: F.conv_transpose2d(x, w, b, padding=(1, 2), dilation=3, output_padding=(2, 1)),
                      w=draw(3, 2, 2, 2), b=draw(2)),
    "max": Fn(lambda x: F.max_pool2d(x, (3, 2), stride=2, padding=1)),
    "max_ceil": Fn(lambda x: F.max_pool2d(x, 2, stride=2, ceil_mode=True)),
    "max_ceil_padded": Fn(lambda x: F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)),
    "max_ceil_dropped": Fn(lambda x: F.max_pool2d(x, 2, stride=3, padding=1, ceil_mode=True)),
    "max_dilated": Fn(lambda x: F.max_pool2d(x, 2, stride=4, dilation=3, ceil_mode=True)),
    "max_values_of_pair": Fn(lambda x: F.max_pool2d(x, 2, return_indices=True)[0]),
    "avg": Fn(lambda x: F.avg_pool2d(x, 3, stride=2, padding=1)),
    "avg_uncounted": Fn(lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)),
    "avg_ceil": Fn(lambda x: F.avg_pool2d(x, 2, ceil_mode=True)),
    "avg_ceil_padded": Fn(lambda x: F.avg_pool2d(x, 4, stride=3, padding=1, ceil_mode=True)),
    "avg_ceil_uncounted": Fn(lambda x: F.avg_pool2d(x, 4, 3, padding=1, ceil_mode=True, count_include_pad=False)),
    "avg_divisor": Fn(lambda x: F.avg_pool2d(x, 3, stride=2, padding=1, ceil_mode=True, divisor_override=5)),
    "adaptive_avg": Fn(lambda x: F.adaptive_avg_pool2d(x, (1, 1))),
    "adaptive_avg_even": Fn(lambda x: F.adaptive_avg_pool2d(x, (7, 3))),
    "adaptive_avg_uneven": Fn(lambda x: F.adaptive_avg_pool2d(x, (3, 4))),
    "adaptive_avg_more": Fn(lambda x: F.adaptive_avg_pool2d(x, (9, 8))),
    "adaptive_max": Fn(lambda x: F.adaptive_max_pool2d(x, 1)),
    "adaptive_max_even": Fn(lambda x: F.adaptive_max_pool2d(x, (1, 2))),
    "adaptive_max_uneven": Fn(lambda x: F.adaptive_max_pool2d(x, (3, 4))),
    "prelu": Fn(F.prelu, w=draw(3)),
    "prelu_one": Fn(F.prelu, w=draw(1)),
    "batch_norm": Fn(lambda x, w: F.batch_norm(x, gn.tensor([1.0, 2.0, 3.0]), gn.ones(3) * 2, w, eps=1e-3), w=draw(3)),
    "layer_norm": Fn(lambda x: F.layer_norm(x, (7, 6), eps=1e-3)),
    "log_softmax": Fn(lambda x: F.log_softmax(x * 5, 1)),
    "softmax": Fn(lambda x: F.softmax(x, -1)),
    "gelu_tanh": Fn(lambda x: F.gelu(x * 3, approximate="tanh")),
    "gelu": Fn(lambda x: F.gelu(x * 5)),
    "softplus": Fn(lambda x: F.softplus(x * 9, beta=2.0)),
    "softplus_threshold": Fn(lambda x: F.softplus(x, beta=2.0, threshold=0.5)),
    "leaky": Fn(lambda x: F.leaky_relu(x, 0.3)),
}  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_ops_of_images(name, tmp_path):
    proto = agree(IMAGES[name], tmp_path / "m.onnx", draw(*IMAGE), evaluator=name not in BEYOND)
    assert "ceil_mode" not in str(proto.graph)  # readers differ in what it means


ROWS = (4, 3, 6)
ARRAYS: dict[str, Any] = {
    "arithmetic": lambda x: (2 - x * 3 + x / 2 - 1 / (x * x + 1)) ** 2 - (-x),
    "power": lambda x: abs(x) ** 1.5 + 2**x,
    "functions": lambda x: x.exp() + (x * x + 1).log() + abs(x).sqrt() + x.sin() * x.cos(),
    "clip": lambda x: x.clip(-0.5) + x.clip(max=0.25) + x.clip(-1, 1),
    "extremes": lambda x: gn.maximum(x, 0.3) * gn.minimum(x, x[:, :1]),
    "compared": lambda x: gn.where((x > 0) & ~(x >= 1) | (x <= -1), x, x * 2 + (x != x[:, :1]).float()),
    "equal": lambda x: gn.where((x == x[:1]) ^ (x < 0.5), 1.0, x),
    "argmax": lambda x: (x.argmax(1), x.argmin(-1, True), x.argmax(), (x * x).max(2)[1]),
    "where_constant": lambda x: gn.where(gn.tensor([[True, False, True]]).T, x, -1.0),
    "matmul": lambda x: x @ x.transpose(1, 2) @ gn.ones(3, 2),
    "matmul_rows": lambda x: x.reshape(-1, 6) @ gn.eye(6),
    "flatten": lambda x: x.flatten(1),
    "flatten_batch": lambda x: x.flatten(0, 1),
    "view": lambda x: x.view(x.shape[0], -1),
    "split_and_back": lambda x: x.reshape(x.shape[0] * 3, 2, 3).permute(0, 2, 1).reshape(-1, 3, 6),
    "keeps_two": lambda x: (x.sum((1, 2)).unsqueeze(1) * x[:, 0, 0]).unsqueeze(1),
    "linear_plus_more": lambda x: F.linear(x.flatten(0, 1), gn.ones(4, 6)) + gn.ones(2, 1, 4),
    "axes": lambda x: x.unsqueeze(0).squeeze(0).unsqueeze(-1).squeeze().permute(0, 2, 1),
    "cat": lambda x: gn.cat([x, x * 2, x[:, :1]], 1),
    "stack": lambda x: gn.stack([x, -x], 2),
    "pad": lambda x: gn.pad(x, (1, 2, -1, 0), value=7.0),
    "pad_batch": lambda x: gn.pad(x, (0, 0, 0, 0, 1, 0)),
    "slices": lambda x: x[:, 1:, ::2] + x[:, -2:, -1:0:-2],
    "backwards": lambda x: x[:, ::-1, ::-1] - x[:, :, ::-1],
    "integers": lambda x: x[:, -1] * x[..., 2, :] + x[:, 0, None, 3],
    "last_of_batch": lambda x: x + x[-1:],
    "positions": lambda x: x[:, [2, 0, 0]] + x[..., gn.tensor([1, 0, 3, 3, 2, 5])],
    "sums": lambda x: x.sum(1, keepdim=True) + x.sum((1, 2), keepdim=True) + x.sum(),
    "means": lambda x: x.mean(-1, keepdim=True) + x.mean(0) * x.mean(),
    "variance": lambda x: x.var(1) + x.std(2, correction=0).sum(1, keepdim=True),
    "max_of_all": lambda x: x.max(1)[0] - x.min(-1, keepdim=True)[0].sum(1) + x.max(),
    "expand": lambda x: x[:, :1].expand(-1, 5, -1) * gn.ones(6).expand(5, 6),
    "cast": lambda x: (x * 4).to("int64").to("float32") + x.long().sum(1).float().unsqueeze(1),
    "zeros_alike": lambda x: (x.double() + 0.0).float() + (x.long() + 0).float(),
    "clone": lambda x: x.clone() + x.contiguous(),
    "itself": lambda x: x,
    "several": lambda x: (x + 1, x.sum(1), x + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_ops_of_arrays(name, tmp_path):
    agree(Fn(ARRAYS[name]), tmp_path / "m.onnx", draw(*ROWS))


def test_means_are_one_node(tmp_path):
    assert kinds(agree(Fn(lambda x: x.mean((0, 2))), tmp_path / "m.onnx", draw(*ROWS))) == ["ReduceMean"]


def test_float64(tmp_path):
    model = nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Tanh()).double()
    x = draw(3, 6, dtype="float64")
    agree(model, tmp_path / "m.onnx", x)
    assert io.import_onnx(tmp_path / "m.onnx")(x).dtype == np.float64


def test_integers_choose_rows_of_a_table(tmp_path):
    model = Fn(lambda ids, table: table[ids].mean(1), table=draw(9, 4))
    agree(model, tmp_path / "m.onnx", gn.tensor([[1, 8, 0], [3, 3, 2]]))


def test_several_inputs_with_names(tmp_path):
    model = Fn(lambda a, b, w: (a @ w + b, b), w=draw(3, 2))
    names: Any = {"input_names": ["image", "offset"], "output_names": ["sum", "same"]}
    proto = agree(model, tmp_path / "m.onnx", draw(2, 3), draw(2, 2), **names)
    assert [port.name for port in proto.graph.input] == ["image", "offset"]
    assert [port.name for port in proto.graph.output] == ["sum", "same"]


def test_a_shared_parameter_is_written_once(tmp_path):
    layer = nn.Linear(3, 3)
    proto = agree(nn.Sequential(layer, nn.Tanh(), layer), tmp_path / "m.onnx", draw(2, 3))
    assert [each.name for each in proto.graph.initializer] == ["0.weight", "0.bias"]


def test_a_custom_function_of_tensor_ops_is_seen_through(tmp_path):
    class Cube(gn.Function):
        @staticmethod
        def forward(ctx, x):
            return x * x * x

        @staticmethod
        def backward(ctx, gy):
            return gy

    proto = agree(Fn(lambda x: Cube.apply(x) + 1), tmp_path / "m.onnx", draw(2, 3))
    assert kinds(proto) == ["Mul", "Mul", "Add"]


def test_a_fixed_batch_may_have_any_form(tmp_path):
    model = Fn(lambda x: x.reshape(2, 2, 3).sum(0) * x.shape[0])
    proto = agree(model, tmp_path / "m.onnx", draw(4, 3), dynamic_batch=False)
    assert [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim] == [4, 3]


# ------------------------------------------------------------------------------------------------------------ refused

REFUSED: dict[str, tuple[Any, str]] = {
    "numpy": (lambda x: gn.tensor(np.abs(x.numpy())) + x, "computed in NumPy"),
    "mixed": (lambda x: x < x.argmax(1, True), "one dtype"),
    "bits": (lambda x: x.long() & x.long(), "bool tensors"),
    "set_item": (lambda x: gn.cat([x, x]).__setitem__(0, 1.0) or x.sqrt().clone().copy_(x * 3), "in place"),
    "indices": (lambda x: x[[0, 1], [0, 1]], "one array between full slices"),
    "random": (lambda x: x + gn.randn(3), "at random"),
    "dropout": (lambda x: F.dropout(x, 0.5, training=True) + 0, "Dropout"),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), "BatchNorm"),
    "loss": (lambda x: F.cross_entropy(x, gn.zeros(x.shape[0], dtype="int64")), "CrossEntropy"),
    "batch_in_number": (lambda x: x * x.shape[0], "dynamic_batch=False"),
    "batch_in_shape": (lambda x: x.reshape(2, 2, 3), "dynamic_batch=False"),
    "batch_in_cut": (lambda x: x[: x.shape[0] - 1], "dynamic_batch=False"),
    "batch_repeated": (lambda x: x.sum(0).expand(x.shape[0], 3), "dynamic_batch=False"),
    "branch": (lambda x: x + 1 if float(x.data[0, 0]) > 0.48 else x * 2 + 1, "same ops on any input"),
    "value": (lambda x: x * float(x.data[0, 0]), "dynamic_batch=False"),
    "in_place": (lambda x: x.add_(1.0) * 2, "in place"),
    "result": (lambda x: {"y": x}, "got dict"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name_and_nothing_is_written(name, tmp_path):
    function, words = REFUSED[name]
    path = tmp_path / "m.onnx"
    path.write_bytes(b"before")
    with pytest.raises(ArgumentError, match="export_onnx") as caught:
        io.export_onnx(Fn(function), path, gn.tensor(np.linspace(0.5, 3, 12).reshape(4, 3), dtype="float32"))
    assert words in str(caught.value)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["m.onnx"]


def test_positions_of_a_maximum_are_refused(tmp_path):
    model = Fn(lambda x: F.adaptive_max_pool2d(x, 1, return_indices=True)[1])
    with pytest.raises(ArgumentError, match="position"):
        io.export_onnx(model, tmp_path / "m.onnx", draw(1, 1, 4, 4))


@pytest.mark.parametrize("names", [["a", "b"], [""], ["w"], [3]])
def test_bad_names(names, tmp_path):
    with pytest.raises(ArgumentError, match="input_names must be 1"):
        io.export_onnx(Fn(lambda x, w: x * w, w=draw(3)), tmp_path / "m.onnx", draw(2, 3), input_names=names)


@pytest.mark.parametrize("example", [(draw(2, 3), draw(3, 3)), gn.tensor(1.0), gn.zeros(0, 3)])
def test_an_example_must_have_a_batch(example, tmp_path):
    with pytest.raises(ArgumentError, match="first axis in common"):
        io.export_onnx(Fn(lambda *x: x[0] * 2), tmp_path / "m.onnx", example)


def test_a_model_must_be_a_module(tmp_path):
    with pytest.raises(ArgumentError, match=r"must be a gn\.nn\.Module, got builtin_function_or_method"):
        io.export_onnx(abs, tmp_path / "m.onnx", draw(2, 3))


def test_an_error_of_the_model_is_its_own_and_modes_come_back(tmp_path):
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    model[1].eval()
    with pytest.raises(ShapeError, match="linear"):
        io.export_onnx(model, tmp_path / "m.onnx", draw(2, 4))
    assert [module.training for module in model.modules()] == [True, True, False]
    x = gn.ones(2, 3)
    assert (x * 2).relu().tolist() == [[2.0] * 3] * 2  # the ops are as they were


def test_other_threads_are_not_noted(tmp_path):
    import threading

    def forward(x: Any) -> Any:
        for _ in range(len(x)):  # not as often in each run
            thread = threading.Thread(target=lambda: F.relu(gn.ones(3)) * 2)
            thread.start()
            thread.join()
        return x + 1

    assert kinds(agree(Fn(forward), tmp_path / "m.onnx", draw(2, 3))) == ["Add"]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    model = nn.Linear(3, 2)
    io.export_onnx(model, path, draw(2, 3))
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpunet.io.container.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        io.export_onnx(nn.Linear(3, 4), path, draw(2, 3))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["m.onnx"]
