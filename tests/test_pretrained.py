"""Weights that the package brings along, and beginning from them: io.load without the top, frozen parts, a new head."""

import numpy as np
import pytest

import gpunet as gn
from gpunet import io, nn, optim
from gpunet.errors import ArgumentError, DataError
from gpunet.examples import transfer
from gpunet.train import Trainer
from gpunet.train.pretrained import weights

NAME = "reference_cnn_mnist5k"


def values(model: nn.Module) -> dict[str, np.ndarray]:
    """Copies of everything that a file of the model holds."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


def test_the_weights_lie_in_the_package_small_enough_and_tell_how_they_were_made():
    assert weights(NAME).stat().st_size <= 1.1e6
    record = io.load_metadata(weights(NAME))
    assert record["data"] == "mnist5k"
    assert record["seed"] == 0
    assert record["accuracy"] >= 0.97
    assert record["classes"] == list("0123456789")


def test_the_weights_know_digits_of_other_scanners():
    model = nn.ReferenceCNN()
    io.load(weights(NAME), model)
    digits = gn.data.load("digits8")
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.0), "cross_entropy")
    # 8x8 pixels of other people's hands, never seen in training: far from all right, and far from one in ten
    assert trainer.evaluate(transfer.enlarged(digits.x_test), digits.y_test)["accuracy"] > 0.6


def test_unknown_weights_are_refused_by_name():
    with pytest.raises(ArgumentError, match=r"weights: name must be one of reference_cnn_mnist5k, got 'resnet'"):
        weights("resnet")


def test_without_the_top_everything_below_is_loaded_and_the_top_is_left_alone():
    gn.manual_seed(1)
    whole, model = nn.ReferenceCNN(), nn.ReferenceCNN(num_classes=3)
    io.load(weights(NAME), whole)
    loaded, before = values(whole), values(model)
    assert io.load(weights(NAME), model, include_top=False)["data"] == "mnist5k"
    after = values(model)
    for name, array in after.items():
        assert np.array_equal(array, before[name] if name.startswith("classifier.4.") else loaded[name]), name


def test_the_top_of_a_flat_model_is_its_last_layer_with_parameters(tmp_path):
    old = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.Softmax(1))
    new = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 7), nn.Softmax(1))
    io.save(tmp_path / "old.safetensors", old)
    head = new[2].weight.detach().numpy().copy()
    io.load(tmp_path / "old.safetensors", new, include_top=False)
    assert np.array_equal(new[0].weight.detach().numpy(), old[0].weight.detach().numpy())
    assert np.array_equal(new[2].weight.detach().numpy(), head)


def test_what_lies_below_the_top_must_fit_and_nothing_changes_when_it_does_not():
    model = nn.ReferenceCNN(in_channels=3)
    before = values(model)
    with pytest.raises(DataError, match=r"features\.0\.weight"):
        io.load(weights(NAME), model, include_top=False)
    assert all(np.array_equal(array, before[name]) for name, array in values(model).items())


def test_a_model_that_is_all_top_and_an_optimiser_beside_a_new_top_are_refused():
    with pytest.raises(ArgumentError, match="include_top=False must leave something to load, got a SoftmaxRegression"):
        io.load(weights(NAME), nn.SoftmaxRegression(4, 2), include_top=False)
    model = nn.ReferenceCNN()
    with pytest.raises(ArgumentError, match="must come without an optimizer"):
        io.load(weights(NAME), model, optim.SGD(model.parameters(), lr=0.1), include_top=False)


def test_a_frozen_part_keeps_weights_and_statistics_while_the_new_top_learns():
    gn.manual_seed(0)
    model = nn.ReferenceCNN()
    io.load(weights(NAME), model, include_top=False)
    model.freeze()
    model.features.eval()
    model.classifier[-1].unfreeze()
    before = values(model)
    x, y = transfer.a_few(gn.data.load("digits8"), 20, seed=0)
    trainer = Trainer(model, optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-2), "cross_entropy")
    trainer.fit(transfer.enlarged(x), y, epochs=2, batch_size=10, verbose=0)
    for name, array in values(model).items():
        assert np.array_equal(array, before[name]) == (not name.startswith("classifier.4.")), name
    model.unfreeze()
    model.train()
    trainer.fit(transfer.enlarged(x), y, epochs=1, batch_size=10, verbose=0)
    assert not any(
        np.array_equal(array, before[name]) for name, array in values(model).items() if "tracked" not in name
    )


def test_enlarged_digits_keep_their_corners_and_lie_in_the_middle():
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    big = transfer.enlarged(x)
    assert big.shape == (1, 1, 28, 28)
    assert big.dtype == np.float32
    inside = big[0, 0, 4:24, 4:24]
    assert [inside[0, 0], inside[0, -1], inside[-1, 0], inside[-1, -1]] == [0, 7, 56, 63]
    assert np.allclose(np.diff(inside[0]), 7 / 19, atol=1e-5)
    assert big.sum() == pytest.approx(inside.sum())


def test_a_few_images_are_as_many_of_each_class_and_hang_on_the_seed():
    digits = gn.data.load("digits8")
    x, y = transfer.a_few(digits, 50, seed=3)
    assert x.shape == (50, 1, 8, 8)
    assert np.bincount(y).tolist() == [5] * 10
    assert np.array_equal(x, transfer.a_few(digits, 50, seed=3)[0])
    assert not np.array_equal(x, transfer.a_few(digits, 50, seed=4)[0])
