"""Fused entries: when ops launch them, and that values and gradients are those of the parts."""

import numpy as np
import pytest

import gpunet as gn
from gpunet import devices, dispatch
from gpunet import functional as F
from gpunet.cuda import emulator
from gpunet.errors import ArgumentError

RNG = np.random.default_rng(0)
ON_SIM = pytest.mark.skipif(bool(emulator.why_not()), reason=str(emulator.why_not()))


def draw(*shape: int, device: str = "cpu") -> gn.Tensor:
    return gn.tensor(RNG.standard_normal(shape), requires_grad=True, device=device)


def values(tensor: gn.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def entries(function, *tensors: gn.Tensor) -> list[str]:
    with gn.trace() as lines:
        function(*tensors).sum().backward()
    return [line.entry for line in lines]


FUNCTIONS = {
    "relu": (lambda x: F.relu(x), [(5, 33)], "relu.forward_mask"),
    "linear": (lambda x, w, b: F.linear(x, w, b), [(5, 4), (3, 4), (3,)], "matmul.forward_bias"),
    "linear_relu": (
        lambda x, w, b: F.linear(x, w, b, activation="relu"),
        [(2, 5, 4), (3, 4), (3,)],
        "matmul.forward_bias_relu",
    ),
    "conv2d_relu": (
        lambda x, w, b: F.conv2d(x, w, b, padding=1, activation="relu"),
        [(2, 3, 5, 4), (4, 3, 3, 3), (4,)],
        "conv2d.forward_relu",
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_fused_is_what_the_parts_are(name: str):
    function, shapes, entry = FUNCTIONS[name]
    tensors = [draw(*shape) for shape in shapes]
    with gn.use_fused(True):
        assert entry in entries(function, *tensors)
        assert gn.gradcheck(function, tensors)
        assert gn.gradgradcheck(function, tensors)
        y = function(*tensors)
        gy = draw(*y.shape)
        fused = (y, *gn.grad(y, tensors, gy))
    with gn.use_fused(False):
        assert entry not in entries(function, *tensors)
        y = function(*tensors)
        plain = (y, *gn.grad(y, tensors, gy))
    for one, other in zip(fused, plain, strict=True):
        np.testing.assert_allclose(values(one), values(other), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_definition_does_not_fuse_by_itself(name: str):
    function, shapes, entry = FUNCTIONS[name]
    with gn.use_backend("numpy"):
        assert entry not in entries(function, *(draw(*shape) for shape in shapes))


@ON_SIM
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_device_with_fused_kernels_does(name: str):
    function, shapes, entry = FUNCTIONS[name]
    assert entry in entries(function, *(draw(*shape, device="sim") for shape in shapes))


@ON_SIM
def test_what_was_asked_for_by_name_is_not_bypassed():
    sim = devices.device("sim")
    lacking = {each.variant for each in dispatch.variants("matmul.forward", "cupy")} - {
        each.variant for each in dispatch.variants("matmul.forward_bias", "cupy")
    }
    for variant in sorted(lacking):
        with gn.use_variant("matmul.forward", variant):
            assert not dispatch.fuses(sim, "matmul.forward_bias", "matmul.forward")
            assert "matmul.forward" in entries(
                F.linear, draw(2, 3, device="sim"), draw(4, 3, device="sim"), draw(4, device="sim")
            )
    with gn.use_variant("matmul", "tiled"):
        assert dispatch.fuses(sim, "matmul.forward_bias", "matmul.forward")


def test_no_gradient_needs_no_mask():
    with gn.use_fused(True), gn.no_grad(), gn.trace() as lines:
        F.relu(draw(3))
    assert [line.entry for line in lines] == ["relu.forward"]


def test_the_mask_does_not_keep_the_output():
    x = draw(4, 5)
    with gn.use_fused(True):
        y = F.relu(x * 2)
        y += 1  # y itself is not needed for backward
        y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.where(values(x) > 0, 2.0, 0.0))


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch):
    x = draw(3)
    for text, wanted in (("1", "relu.forward_mask"), ("0", "relu.forward")):
        monkeypatch.setenv("GPUNET_FUSED", text)
        gn.config.reload()
        assert entries(F.relu, x)[0] == wanted
    monkeypatch.delenv("GPUNET_FUSED")
    gn.config.reload()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda: F.linear(draw(2, 3), draw(4, 3), None, activation="tanh"), "linear"),
        (lambda: F.conv2d(draw(1, 1, 3, 3), draw(1, 1, 2, 2), activation="gelu"), "conv2d"),
        (lambda: gn.nn.Linear(3, 4, activation="tanh"), "Linear"),
        (lambda: gn.nn.Conv2d(3, 4, 2, activation=1), "Conv2d"),
    ],
)
def test_other_activations_are_refused(function, name: str):
    with pytest.raises(ArgumentError, match=rf"{name}: activation must be one of None, 'relu', got"):
        function()


def test_layers_pass_their_activation_on():
    gn.manual_seed(0)
    x = draw(2, 3, 6, 6)
    conv = gn.nn.Conv2d(3, 4, 3, dtype="float64", activation="relu")
    linear = gn.nn.Linear(6, 5, dtype="float64", activation="relu")
    assert "activation='relu'" in repr(conv)
    assert "activation='relu'" in repr(linear)
    np.testing.assert_allclose(values(conv(x)), values(F.relu(F.conv2d(x, conv.weight, conv.bias))))
    np.testing.assert_allclose(values(linear(x)), values(F.relu(F.linear(x, linear.weight, linear.bias))))
