"""The ready models: structure, sizes, shapes; and the table that summary() makes of any model."""

import copy
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import functional as F
from gpunet import nn, optim, random
from gpunet.errors import ArgumentError, ShapeError


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_reference_cnn_has_the_parameters_of_its_description():
    counted = (9 * 75 + 75) + 2 * 75  # a convolution and its normalisation
    counted += (75 * 9 * 50 + 50) + 2 * 50
    counted += (50 * 9 * 25 + 25) + 2 * 25
    counted += (25 * 4 * 4 * 512 + 512) + (512 * 10 + 10)  # the dense layers
    assert counted == 256_567
    assert parameters(nn.ReferenceCNN()) == counted


def test_reference_cnn_order_of_layers():
    model = nn.ReferenceCNN()
    kinds = [type(layer).__name__ for layer in model.features]
    first = ["Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert kinds == [*first, "Conv2d", "ReLU", "Dropout", "BatchNorm2d", "MaxPool2d", *first]
    assert [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)] == [0.2, 0.3]
    assert [type(layer).__name__ for layer in model.classifier] == ["Flatten", "Linear", "ReLU", "Dropout", "Linear"]
    assert list(model.state_dict())[:2] == ["features.0.weight", "features.0.bias"]


@pytest.mark.parametrize("size", [1, 2, 7, 14, 15, 28])
def test_ceil_mode_is_padding_same_of_keras(size: int):
    # Keras: ceil(size / stride) windows; max((windows - 1) * stride + k - size, 0) padding, the smaller half first.
    x = gn.randn(1, 1, size, size)
    total = max((-(-size // 2) - 1) * 2 + 2 - size, 0)
    framed = F.pad(x, (total // 2, total - total // 2) * 2, value=-np.inf)
    np.testing.assert_array_equal(F.max_pool2d(x, 2, 2, ceil_mode=True).data, F.max_pool2d(framed, 2, 2).data)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("reference_cnn", (3, 32, 32), 9 * 2 * 75 + 256_567),
        ("reference_cnn", (1, 8, 8), 256_567 - 15 * 25 * 512),
        ("reference_cnn", (1, 9, 20), 256_567 - (16 - 2 * 3) * 25 * 512),
        ("lenet5", (1, 28, 28), 61_706),
        ("lenet5", (3, 32, 20), (3 * 25 + 1) * 6 + 2416 + (16 * 6 * 3 + 1) * 120 + 10_164 + 850),
        ("mlp", (1, 8, 8), 64 * 128 + 128 + 128 * 10 + 10),
        ("softmax_regression", (3, 4, 5), 60 * 10 + 10),
    ],
)
def test_named_models_fit_images_of_any_shape(name: str, shape: tuple[int, int, int], count: int):
    model = nn.MODELS[name](shape, 10)
    assert parameters(model) == count
    y = model(gn.randn(2, *shape))
    assert y.shape == (2, 10)
    y.sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())


def test_regressions():
    assert nn.LinearRegression(5, 2)(gn.zeros(3, 5)).shape == (3, 2)
    assert nn.LogisticRegression(12)(gn.zeros(3, 3, 4)).shape == (3, 1)
    assert [type(each).__name__ for each in nn.MLP([4, 3, 2], nn.Tanh)] == ["Flatten", "Linear", "Tanh", "Linear"]


def test_regression_finds_a_line():
    x = gn.randn(64, 1)
    y = x * 3 - 2
    model = nn.LinearRegression(1)
    optimizer = optim.SGD(model.parameters(), lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        nn.MSELoss()(model(x), y).backward()
        optimizer.step()
    assert model[1].weight.item() == pytest.approx(3, abs=1e-4)
    assert model[1].bias.item() == pytest.approx(-2, abs=1e-4)


def test_cnn_learns_to_tell_stripes():
    rng = np.random.default_rng(0)
    x = rng.normal(0, 0.3, (40, 1, 12, 12)).astype(np.float32)
    x[:20, :, ::2] += 1
    x[20:, :, :, ::2] += 1
    target = gn.tensor([0] * 20 + [1] * 20)
    model = nn.LeNet5(2, 1, 12)
    optimizer = optim.Adam(model.parameters(), lr=0.003)
    loss = nn.CrossEntropyLoss()
    for _ in range(25):
        optimizer.zero_grad()
        loss(model(gn.tensor(x)), target).backward()
        optimizer.step()
    assert (model(gn.tensor(x)).argmax(1) == target).data.all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LeNet5(image_size=11), "LeNet5: image_size must be at least 12, got 11; use ReferenceCNN or MLP"),
        (lambda: nn.LeNet5(image_size=(28, 8)), r"LeNet5: image_size must be at least 12, got \(28, 8\)"),
        (lambda: nn.ReferenceCNN(0), "ReferenceCNN: num_classes must be an integer of at least 1, got 0"),
        (lambda: nn.ReferenceCNN(image_size=0), "ReferenceCNN: image_size must be at least 1, got 0"),
        (lambda: nn.MLP([3]), r"MLP: sizes must hold at least two numbers, input and output, got \[3\]"),
    ],
)
def test_refusals(make: Any, message: str):
    with pytest.raises(ArgumentError, match=message):
        make()


# -- summary -----------------------------------------------------------------------------------------------------


def test_summary_of_a_small_model():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    model[3].freeze()
    table = nn.summary(model, (1, 4, 4))
    assert [(r.name, r.kind, r.output_shape, r.parameters, r.trainable) for r in table.rows] == [
        ("0", "Conv2d", (1, 2, 2, 2), 20, 20),
        ("1", "BatchNorm2d", (1, 2, 2, 2), 4, 4),
        ("2", "Flatten", (1, 8), 0, 0),
        ("3", "Linear", (1, 3), 27, 0),
    ]
    assert (table.total, table.trainable, table.non_trainable, table.buffers) == (51, 24, 27, 5)
    assert table.parameter_bytes == 4 * (51 + 4) + 8
    assert table.rows[0].flops >= 2 * 9 * 8  # each output is nine multiplications and additions
    assert table.rows[3].flops >= 2 * 8 * 3
    assert table.flops == sum(row.flops for row in table.rows)


def test_summary_counts_work_in_proportion_to_the_batch():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    one, four = (nn.summary(model, (1, 6, 6), batch) for batch in (1, 4))
    assert four.flops == 4 * one.flops
    assert four.rows[0].output_shape == (4, 2, 4, 4)


def test_summary_prints_a_table():
    text = str(nn.summary(nn.ReferenceCNN(), (1, 28, 28)))
    lines = text.splitlines()
    assert lines[0] == "ReferenceCNN"
    assert lines[1].split() == ["layer", "kind", "output", "shape", "parameters", "flops"]
    assert lines[3].split()[:8] == ["features.0", "Conv2d", "1", "x", "75", "x", "28", "x"]
    assert "parameters 256,567: 256,567 trainable, 0 not trainable" in text
    assert len({len(line) for line in lines[3:21]}) == 1  # columns stand under one another


def test_summary_leaves_everything_as_it_was():
    model = nn.ReferenceCNN()
    model.features[0].eval()
    state, drawn = copy.deepcopy(model.state_dict()), random.get_state()["ops"]
    modes = [module.training for module in model.modules()]
    nn.summary(model, (1, 28, 28))
    assert [module.training for module in model.modules()] == modes
    assert random.get_state()["ops"] == drawn
    assert all(np.array_equal(value.data, state[name].data) for name, value in model.state_dict().items())
    assert not any(module._hooks or module._pre_hooks for module in model.modules())
    with pytest.raises(ShapeError):
        nn.summary(model, (2, 28, 28))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._hooks or module._pre_hooks for module in model.modules())


def test_summary_of_several_inputs_shared_layers_and_own_parameters():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 3)
            self.scale = nn.Parameter(gn.ones(1))

        def forward(self, a: Any, b: Any) -> Any:
            return F.relu(self.layer(self.layer(a)) * self.scale), b

    table = nn.summary(Pair().double(), [(3,), (2, 2)], batch=2)
    assert table.input_shape == ((2, 3), (2, 2, 2))
    rows = [(r.name, r.parameters, r.output_shape) for r in table.rows]
    assert rows == [("layer", 12, (2, 3)), ("layer", 0, (2, 3)), ("Pair", 1, ((2, 3), (2, 2, 2)))]
    assert table.total == 13
    assert all(row.flops > 0 for row in table.rows)
    assert table.flops == sum(row.flops for row in table.rows)
    assert "2 x 3, 2 x 2 x 2" in str(table)


def test_summary_of_a_model_without_parameters():
    assert nn.summary(nn.Flatten(), (2, 3)).total == 0
    assert nn.summary(nn.Identity(), 5).rows[0].output_shape == (1, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nn.summary(3, (1,)), "summary: model must be a Module, got int"),  # type: ignore[arg-type]
        (lambda: nn.summary(nn.ReLU(), "1x28"), "summary: input_size must be a sample's shape, .* got '1x28'"),
        (lambda: nn.summary(nn.ReLU(), (0, 2)), r"summary: input_size must be a sample's shape, .* got \(0, 2\)"),
        (lambda: nn.summary(nn.ReLU(), (2,), batch=0), "summary: batch must be an integer of at least 1, got 0"),
    ],
)
def test_summary_refusals(call: Any, message: str):
    with pytest.raises(ArgumentError, match=message):
        call()
