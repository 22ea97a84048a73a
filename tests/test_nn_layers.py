"""Layers, activations and losses: shapes, start values, modes and refusals. Their arithmetic is the ops' own matter."""

import math
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import functional as F
from gpunet import nn
from gpunet.errors import ArgumentError, DTypeError, ShapeError

# -- weights -----------------------------------------------------------------------------------------------------

WEIGHTED = {
    "linear": (lambda **k: nn.Linear(300, 200, **k), (200, 300), 300),
    "conv2d": (lambda **k: nn.Conv2d(12, 40, (3, 5), groups=2, **k), (40, 6, 3, 5), 90),
    "conv_transpose2d": (lambda **k: nn.ConvTranspose2d(12, 40, (3, 5), groups=2, **k), (12, 20, 3, 5), 300),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_start_uniform_with_bound_of_the_fan(name: str):
    make, shape, fan = WEIGHTED[name]
    layer = make()
    bound = 1 / math.sqrt(fan)
    assert layer.weight.shape == shape
    assert layer.bias.shape == ({"linear": 200}.get(name, 40),)
    for values in (layer.weight.data, layer.bias.data):
        assert np.abs(values).max() <= bound
        assert np.abs(values).max() > 0.85 * bound
    # the deviation of a uniform distribution is bound / sqrt(3); its own error here is under 2 %
    assert layer.weight.data.std() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert abs(layer.weight.data.mean()) < 0.03 * bound


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_are_the_same_for_a_seed_and_rounded_for_a_dtype(name: str):
    make, *_ = WEIGHTED[name]
    layers = []
    for dtype in (np.float64, np.float32, None):
        gn.manual_seed(5)
        layers.append(make(dtype=dtype))
    double, single, usual = (layer.weight.data for layer in layers)
    assert (double.dtype, single.dtype, usual.dtype) == (np.float64, np.float32, np.float32)
    np.testing.assert_array_equal(double.astype(np.float32), single)
    np.testing.assert_array_equal(single, usual)
    assert make(device="cpu").weight.device == "cpu"
    assert make(bias=False).bias is None


def test_reset_parameters_draws_again():
    layer = nn.Linear(3, 3)
    before = layer.weight.data.copy()
    layer.reset_parameters()
    assert not np.array_equal(layer.weight.data, before)


def test_linear_and_convolution_compute_their_formula():
    linear = nn.Linear(2, 1)
    linear.load_state_dict({"weight": [[2.0, 3.0]], "bias": [1.0]})
    assert linear(gn.tensor([[1.0, 10.0]])).tolist() == [[33.0]]
    conv = nn.Conv2d(1, 1, (1, 2), padding="same")
    conv.load_state_dict({"weight": [[[[1.0, 10.0]]]], "bias": [0.5]})
    assert conv(gn.tensor([[[[1.0, 2.0, 3.0]]]])).tolist() == [[[[21.5, 32.5, 3.5]]]]


def test_transposed_convolution_reaches_the_sizes_that_were_lost():
    down, up = nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1)
    for size in (7, 8):
        x = gn.zeros(1, 2, size, size)
        assert up(down(x), output_size=(size, size)).shape == x.shape
    with pytest.raises(ShapeError, match=r"output_size must lie between \(7, 7\) and \(8, 8\) for .* got \(9, 7\)"):
        up(gn.zeros(1, 3, 4, 4), output_size=(9, 7))


# -- normalisation -----------------------------------------------------------------------------------------------


def test_batch_norm_keeps_running_statistics():
    layer = nn.BatchNorm1d(1, momentum=0.25, dtype=np.float64)
    layer(gn.tensor([[1.0], [3.0]], dtype=np.float64))  # mean 2, unbiased variance 2
    assert layer.state_dict()["running_mean"].tolist() == [0.5]
    assert layer.state_dict()["running_var"].tolist() == [1.25]
    layer(gn.tensor([[6.0], [10.0]], dtype=np.float64))  # mean 8, unbiased variance 8
    assert layer.state_dict()["running_mean"].tolist() == [0.75 * 0.5 + 2]
    assert layer.state_dict()["running_var"].tolist() == [0.75 * 1.25 + 2]
    assert layer.state_dict()["num_batches_tracked"].item() == 2
    before = layer.state_dict()["running_mean"].tolist()
    y = layer.eval()(gn.tensor([[2.375]], dtype=np.float64))  # the running mean itself: one sample is enough
    assert y.tolist() == [[0.0]]
    assert layer.state_dict()["running_mean"].tolist() == before
    assert layer.state_dict()["num_batches_tracked"].item() == 2
    layer.reset_running_stats()
    assert [v.tolist() for n, v in layer.state_dict().items() if "r" in n[:3]][:2] == [[0.0], [1.0]]


def test_batch_norm_without_momentum_averages_all_batches():
    layer = nn.BatchNorm1d(1, momentum=None, dtype=np.float64)
    for mean in (3.0, 6.0, 9.0):
        layer(gn.tensor([[mean - 1], [mean + 1]], dtype=np.float64))
    assert layer.state_dict()["running_mean"].item() == pytest.approx(6)
    assert layer.state_dict()["running_var"].item() == pytest.approx(2)


def test_batch_norm_without_statistics_uses_the_batch_always():
    layer = nn.BatchNorm2d(2, affine=False, track_running_stats=False)
    assert list(layer.state_dict()) == []
    x = gn.randn(3, 2, 4, 4)
    np.testing.assert_array_equal(layer(x).data, layer.eval()(x).data)


def test_batch_norm_bias_can_be_left_out():
    assert list(nn.BatchNorm1d(2, track_running_stats=False, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(2, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(2, elementwise_affine=False).state_dict()) == []


def test_batch_norm_counts_only_batches_it_took():
    layer = nn.BatchNorm1d(2)
    with pytest.raises(ShapeError):
        layer(gn.zeros(1, 2))  # one value for a channel has no variance
    assert layer.state_dict()["num_batches_tracked"].item() == 0
    assert layer.state_dict()["running_mean"].tolist() == [0.0, 0.0]


# -- dropout and activations -------------------------------------------------------------------------------------


def test_dropout_acts_in_training_alone():
    layer, x = nn.Dropout(0.25), gn.ones(100, 100)
    y = layer(x).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert layer.eval()(x) is x


@pytest.mark.parametrize(
    ("layer", "function"),
    [
        (nn.ReLU(inplace=True), F.relu),
        (nn.ReLU(max_value=0.5), lambda x: F.relu(x).clip(max=0.5)),
        (nn.ReLU(negative_slope=0.2), lambda x: F.leaky_relu(x, 0.2)),
        (nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2)),
        (nn.Sigmoid(), F.sigmoid),
        (nn.Tanh(), F.tanh),
        (nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (nn.Softplus(2.0, 3.0), lambda x: F.softplus(x, 2.0, 3.0)),
        (nn.Softmax(dim=1), lambda x: F.softmax(x, 1)),
        (nn.LogSoftmax(dim=0), lambda x: F.log_softmax(x, 0)),
        (nn.Flatten(0, 1), lambda x: x.reshape(-1)),
        (nn.MaxPool2d((1, 2), padding=(0, 1)), lambda x: F.max_pool2d(x, (1, 2), None, (0, 1))),
        (nn.AvgPool2d(2, 1, divisor_override=3), lambda x: F.avg_pool2d(x, 2, 1, 0, False, True, 3)),
        (nn.AdaptiveAvgPool2d((None, 2)), lambda x: F.adaptive_avg_pool2d(x, (None, 2))),
        (nn.AdaptiveMaxPool2d(2), lambda x: F.adaptive_max_pool2d(x, 2)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_layer_hands_its_arguments_on(layer: nn.Module, function: Any):
    x = gn.randn(3, 4) if "Pool" not in type(layer).__name__ else gn.randn(2, 3, 4)
    kept = x.data.copy()
    np.testing.assert_array_equal(layer(x).data, function(x).data)
    np.testing.assert_array_equal(x.data, kept)


def test_pooling_returns_places_when_asked():
    x = gn.tensor([[[[1.0, 5.0], [3.0, 2.0]]]])
    for layer in (nn.MaxPool2d(2, return_indices=True), nn.AdaptiveMaxPool2d(1, return_indices=True)):
        y, place = layer(x)
        assert (y.item(), place.item()) == (5.0, 1)


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 1.0])
@pytest.mark.parametrize("slope", [0.0, 0.25])
@pytest.mark.parametrize("top", [None, 2.0])
def test_generalised_relu_is_keras_formula_with_its_slopes(threshold: float, slope: float, top: float | None):
    x = gn.tensor([-math.inf, -3.0, -0.75, -0.25, 0.25, 0.75, 1.5, 3.0, math.inf, math.nan], requires_grad=True)
    y = nn.ReLU(max_value=top, negative_slope=slope, threshold=threshold)(x)
    (gx,) = gn.grad(y.sum(), [x])
    for value, found, g in zip(x.tolist(), y.tolist(), gx.tolist()):
        if top is not None and value >= top:
            expected, slope_here = top, 0.0
        elif value < threshold:
            expected, slope_here = slope * (value - threshold) if slope else 0.0, slope
        else:
            expected, slope_here = value, 1.0
        assert found == expected or (math.isnan(value) and math.isnan(found))
        assert g == slope_here or math.isnan(value)
    assert repr(nn.ReLU(max_value=6, threshold=1)) == "ReLU(max_value=6.0, threshold=1.0)"


def test_prelu_learns_its_slope():
    layer = nn.PReLU(2, init=0.5)
    layer(gn.tensor([[-2.0, -4.0], [3.0, -1.0]])).sum().backward()
    assert layer.weight.tolist() == [0.5, 0.5]
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [-2.0, -5.0]


# -- losses ------------------------------------------------------------------------------------------------------


def test_losses_reduce_as_told():
    x, t = gn.tensor([1.0, 2.0, 6.0]), gn.tensor([1.0, 4.0, 3.0])
    for reduction, squared, absolute in (("mean", 13 / 3, 5 / 3), ("sum", 13.0, 5.0), ("none", [0, 4, 9], [0, 2, 3])):
        np.testing.assert_allclose(nn.MSELoss(reduction=reduction)(x, t).data, squared, rtol=1e-6)
        np.testing.assert_allclose(nn.L1Loss(reduction=reduction)(x, t).data, absolute, rtol=1e-6)


def test_classification_losses_agree_with_one_another():
    x, t, w = gn.randn(6, 3, dtype=np.float64), gn.tensor([0, 1, 2, 2, 1, 0]), gn.tensor([1.0, 2.0, 3.0]).double()
    whole = nn.CrossEntropyLoss(w, ignore_index=1, reduction="sum")(x, t)
    parts = nn.NLLLoss(w, ignore_index=1, reduction="sum")(nn.LogSoftmax(1)(x), t)
    assert whole.item() == pytest.approx(parts.item(), rel=1e-12)
    yes = gn.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0]).double()
    logit = x[:, 0]
    one, two = nn.BCEWithLogitsLoss()(logit, yes), nn.BCELoss()(nn.Sigmoid()(logit), yes)
    assert one.item() == pytest.approx(two.item(), rel=1e-12)
    assert nn.CrossEntropyLoss(label_smoothing=1.0)(gn.zeros(1, 4), gn.tensor([2])).item() == pytest.approx(math.log(4))


def test_loss_weights_are_buffers_that_move_along():
    loss = nn.BCEWithLogitsLoss(pos_weight=gn.ones(2)).double()
    assert list(loss.state_dict()) == ["pos_weight"]
    assert loss.pos_weight is not None
    assert loss.pos_weight.dtype == np.float64
    assert list(nn.CrossEntropyLoss().state_dict()) == []


# -- printing and refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (nn.Conv2d(1, 2, 3), "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1))"),
        (
            nn.Conv2d(2, 2, 3, 2, 1, 3, 2, False),
            "Conv2d(2, 2, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(3, 3), groups=2, bias=False)",
        ),
        (nn.Conv2d(2, 2, 3, padding="same"), "Conv2d(2, 2, kernel_size=(3, 3), stride=(1, 1), padding=same)"),
        (
            nn.ConvTranspose2d(2, 2, 3, 2, output_padding=1),
            "ConvTranspose2d(2, 2, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1))",
        ),
        (nn.Linear(2, 3), "Linear(in_features=2, out_features=3, bias=True)"),
        (nn.Flatten(), "Flatten(start_dim=1, end_dim=-1)"),
        (
            nn.BatchNorm2d(3),
            "BatchNorm2d(3, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)",
        ),
        (nn.LayerNorm(3), "LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)"),
        (nn.MaxPool2d(2), "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)"),
        (nn.AvgPool2d(2, 1), "AvgPool2d(kernel_size=2, stride=1, padding=0)"),
        (nn.AdaptiveAvgPool2d((2, None)), "AdaptiveAvgPool2d(output_size=(2, None))"),
        (nn.Dropout(0.1), "Dropout(p=0.1)"),
        (nn.GELU(), "GELU(approximate='none')"),
        (nn.LeakyReLU(), "LeakyReLU(negative_slope=0.01)"),
        (nn.Softplus(), "Softplus(beta=1.0, threshold=20.0)"),
        (nn.Softmax(1), "Softmax(dim=1)"),
        (nn.PReLU(3), "PReLU(num_parameters=3)"),
        (nn.MSELoss(), "MSELoss()"),
        (nn.L1Loss(reduction="sum"), "L1Loss(reduction='sum')"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, nn.Module) else "",
)
def test_layers_print_their_arguments(layer: nn.Module, text: str):
    assert repr(layer) == text


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 1), "Linear: in_features must be an integer of at least 1, got 0"),
        (lambda: nn.Linear(1, True), "Linear: out_features must be an integer of at least 1, got True"),
        (lambda: nn.Linear(2.0, 1), "Linear: in_features must be an integer of at least 1, got 2.0"),  # type: ignore[arg-type]
        (lambda: nn.Conv2d(0, 1, 1), "Conv2d: in_channels must be an integer of at least 1, got 0"),
        (lambda: nn.Conv2d(1, -1, 1), "Conv2d: out_channels must be an integer of at least 1, got -1"),
        (lambda: nn.Conv2d(1, 1, 0), "Conv2d: kernel_size must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, (1, 2, 3)), "Conv2d: kernel_size must be an integer or a pair of integers"),
        (lambda: nn.Conv2d(1, 1, 1, stride=0), "Conv2d: stride must be at least 1, got 0"),
        (lambda: nn.Conv2d(1, 1, 1, padding=-1), "Conv2d: padding must be at least 0, got -1"),
        (lambda: nn.Conv2d(1, 1, 1, padding="full"), "Conv2d: padding must be one of 'same', 'valid', got 'full'"),
        (lambda: nn.Conv2d(1, 1, 3, 2, "same"), "Conv2d: padding='same' needs stride 1, got 2"),
        (lambda: nn.Conv2d(4, 6, 1, groups=4), "Conv2d: groups must divide out_channels = 6, got 4"),
        (lambda: nn.Conv2d(3, 6, 1, groups=2), "Conv2d: groups must divide in_channels = 3, got 2"),
        (lambda: nn.Conv2d(1, 1, 1, padding_mode="reflect"), "Conv2d: padding_mode must be one of 'zeros', got"),
        (lambda: nn.ConvTranspose2d(1, 1, 1, padding="same"), "ConvTranspose2d: padding must be an integer or a pair"),
        (lambda: nn.BatchNorm2d(0), "BatchNorm2d: num_features must be an integer of at least 1, got 0"),
        (lambda: nn.BatchNorm1d(1, eps=-1.0), "BatchNorm1d: eps must be at least 0, got -1.0"),
        (lambda: nn.BatchNorm1d(1, momentum=2.0), "BatchNorm1d: momentum must be from 0 to 1, got 2.0"),
        (lambda: nn.LayerNorm((2, 0)), "LayerNorm: normalized_shape must be an integer of at least 1, got 0"),
        (lambda: nn.MaxPool2d(2, padding=2), "MaxPool2d: padding must be at most half of kernel_size, got 2 and 2"),
        (lambda: nn.MaxPool2d(2, dilation=0), "MaxPool2d: dilation must be at least 1, got 0"),
        (lambda: nn.AvgPool2d(0), "AvgPool2d: kernel_size must be at least 1, got 0"),
        (lambda: nn.AvgPool2d(2, divisor_override=0), "AvgPool2d: divisor_override must not be 0, got 0"),
        (lambda: nn.AdaptiveAvgPool2d(0), "AdaptiveAvgPool2d: output_size must be an integer of at least 1, got 0"),
        (lambda: nn.Dropout(1.5), "Dropout: p must be from 0 to 1, got 1.5"),
        (lambda: nn.Dropout2d(-0.1), "Dropout2d: p must be from 0 to 1, got -0.1"),
        (lambda: nn.GELU("sigmoid"), "GELU: approximate must be one of 'none', 'tanh', got 'sigmoid'"),
        (lambda: nn.Softmax(), "Softmax: dim must be an integer, got None; for logits (N, C) pass dim=1"),
        (lambda: nn.ReLU(negative_slope=-0.1), "ReLU: negative_slope must be at least 0, got -0.1"),
        (lambda: nn.ReLU(max_value=1, threshold=2), "ReLU: max_value must be at least 2, got 1"),
        (lambda: nn.LeakyReLU("a"), "LeakyReLU: negative_slope must be a number, got 'a'"),  # type: ignore[arg-type]
        (lambda: nn.PReLU(0), "PReLU: num_parameters must be an integer of at least 1, got 0"),
        (lambda: nn.MSELoss(reduction="max"), "MSELoss: reduction must be one of 'none', 'mean', 'sum', got 'max'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2.0), "CrossEntropyLoss: label_smoothing must be from 0 to 1"),
        (lambda: nn.CrossEntropyLoss(ignore_index=0.5), "CrossEntropyLoss: ignore_index must"),  # type: ignore[arg-type]
    ],
)
def test_wrong_arguments_are_refused_when_the_layer_is_made(make: Any, message: str):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Linear(1, 1, dtype=np.int64), DTypeError, "Linear: dtype must be float32 or float64, got int64"),
        (lambda: nn.CrossEntropyLoss(np.ones(2)), DTypeError, "CrossEntropyLoss: weight must be a gpunet tensor"),  # type: ignore[arg-type]
        (lambda: nn.BatchNorm2d(3)(gn.zeros(2, 3)), ShapeError, "BatchNorm2d: x must have 4 axes (N, C, H, W), got 2"),
        (lambda: nn.BatchNorm1d(3)(gn.zeros(3)), ShapeError, "BatchNorm1d: x must have 2 or 3 axes (N, C) or"),
        (lambda: nn.BatchNorm2d(3)(np.zeros((1, 3, 2, 2))), DTypeError, "BatchNorm2d: x must be a gpunet tensor"),
        (lambda: nn.Conv2d(3, 1, 1)(gn.zeros(1, 2, 4, 4)), ShapeError, "conv2d: x has 2 channels but weight expects 3"),
    ],
)  # fmt: skip
def test_wrong_tensors_are_refused(call: Any, error: type[Exception], message: str):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
