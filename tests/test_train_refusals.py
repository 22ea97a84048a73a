"""What fit refuses, before anything is trained, and in what words."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from gpunet import data, nn, optim, random
from gpunet import functional as F
from gpunet.errors import ArgumentError, DTypeError, ShapeError
from gpunet.train import Trainer
from tests.training import IMAGES, X, Y, bits, fit, model, small_cnn, trainer


@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X[:0], Y[:0], ArgumentError, r"fit: x must hold at least one sample, got shape \(0, 6\)"),
        (X, Y[:-1], ShapeError, r"one target for each sample of x, got x \(40, 6\) and y \(39,\)"),
        (X, None, ArgumentError, "y must be given with x"),
        (np.uint8(X > 0), Y, DTypeError, r"x must be floating, got uint8; .*astype\('float32'\) / 255"),
        (np.int64(X), Y, DTypeError, "x must be floating, got int64"),
        (X, Y + 1, ArgumentError, r"y must be labels from 0 to 2, one for each class of the .*, got 3 at sample \d+"),
        (X, Y - 1, ArgumentError, r"y must be labels from 0 to 2, .*, got -1 at sample"),
        (X, Y.astype(str), DTypeError, "y must be integers or floats"),
        (
            X[:, :5],
            Y,
            ShapeError,
            r"samples that the model takes, got some of shape \(5,\); linear: .*\(in Linear",
        ),
        (np.float32(3), Y, ShapeError, "axis of samples"),
    ],
)
def test_wrong_data_is_refused(x, y, error, message):
    with pytest.raises(error, match=message):
        fit(trainer(), x, y)


def test_wrong_images_are_refused_before_training():
    one = trainer(small_cnn())
    with pytest.raises(ShapeError, match=r"4 axes \(N, C, H, W\).*Conv2d, got 3 in shape \(40, 2, 2\).*x\[:, None\]"):
        fit(one, IMAGES[:, 0], Y)
    with pytest.raises(ShapeError, match=r"1 channels.*got 2 in shape \(40, 2, 2, 1\).*x\.transpose\(0, 3, 1, 2\)"):
        fit(one, IMAGES.transpose(0, 2, 3, 1), Y)
    for judge in (one.predict, lambda x: one.evaluate(x, Y)):
        with pytest.raises(ShapeError, match="4 axes"):
            judge(IMAGES[:, 0])
    assert fit(one, IMAGES, Y)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"validation_split": 1.0}, r"validation_split must be from 0 to below 1, got 1\.0"),
        ({"validation_split": -0.1}, "validation_split must be"),
        ({"validation_split": float("nan")}, "validation_split must be"),
        ({"validation_split": 0.01}, r"both parts must hold at least one sample, got validation_split=0\.01 of 40"),
        ({"validation_split": 0.5, "validation_data": (X, Y)}, "got both"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"epochs": 1.5}, r"epochs must be a whole number of at least 1, got 1\.5"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"initial_epoch": -1}, "initial_epoch must be"),
        ({"callbacks": [print]}, "callbacks must be gpunet.train.Callback instances"),
    ],
)
def test_wrong_settings_are_refused(more, message):
    with pytest.raises(ArgumentError, match=message):
        fit(trainer(), **more)


def test_wrong_trainers_are_refused():
    net = model()
    sgd = optim.SGD(net.parameters(), lr=0.1)
    wrong: list[tuple[tuple[Any, ...], str]] = [
        ((net, sgd, "hinge"), "loss must be a function or one of cross_entropy, .*got 'hinge'"),
        ((net, sgd, "mse", ("f1",)), "a metric must be a function or one of accuracy, mse, mae, got 'f1'"),
        ((net, sgd, "mse", "mae"), "metrics must be a list, got the string 'mae'"),
        ((net, sgd, "mse", ("mae", "mae")), "names must differ"),
        ((net, None, "mse"), r"optimizer must have step\(\) and zero_grad\(\)"),
        ((lambda x: x, sgd, "mse"), "model must be a gn.nn.Module"),
    ]
    for args, message in wrong:
        with pytest.raises(ArgumentError, match=message):
            Trainer(*args)


def test_wrong_measures_are_refused():
    with pytest.raises(ShapeError, match=r"the loss must be a tensor of one number, got shape \(8, 3\)"):
        fit(trainer(loss=lambda output, target: output))
    with pytest.raises(ShapeError, match=r"accuracy: .*pass metrics=\('mae',\)"):
        fit(trainer(nn.Linear(6, 1), "mse"), X, X[:, :1])
    with pytest.raises(ShapeError, match=r"mae: output and target must have one shape, got \(8, 1\) and \(8,\)"):
        fit(trainer(nn.Linear(6, 1), lambda o, t: (o * 0).sum(), metrics=("mae",)), X, X[:, 0])

    def rows(output: Any, target: Any) -> Any:
        return output.sum(1)

    with pytest.raises(ArgumentError, match="rows must be one number for a batch"):
        fit(trainer(metrics=(rows,)))


def test_a_loader_comes_alone():
    loader = data.DataLoader((X, Y), 8)
    with pytest.raises(ArgumentError, match="without y and validation_split"):
        fit(trainer(), loader, Y)
    with pytest.raises(DTypeError, match="x must be floating"):
        fit(trainer(), data.DataLoader((X.astype(np.int64), Y), 8))


@pytest.mark.parametrize("where", ["training", "validation"])
@pytest.mark.parametrize("what", ["size", "label"])
def test_what_cannot_be_trained_on_is_refused_before_anything_changes(where, what):
    net = nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    before = bits(net)
    good = (IMAGES, Y)
    bad = (np.zeros((40, 1, 3, 3), np.float32), Y) if what == "size" else (IMAGES, np.where(np.arange(40) == 39, 3, Y))
    error, message = {
        "size": (ShapeError, r"x must hold samples that the model takes, got some of shape \(1, 3, 3\); linear"),
        "label": (ArgumentError, r"y must be labels from 0 to 2, .*, got 3 at sample 39"),
    }[what]
    with pytest.raises(error, match=message):
        fit(
            trainer(net),
            *(bad if where == "training" else good),
            validation_data=bad if where == "validation" else None,
        )
    assert bits(net) == before
    fit(trainer(net), *good, validation_data=good)
    assert bits(net) != before


def test_labels_that_count_nothing_are_no_error():
    y = np.where(np.arange(40) % 5 == 0, -100, Y)
    assert fit(trainer(metrics=()), X, y).last["loss"] > 0
    for loss in (nn.CrossEntropyLoss(ignore_index=9), partial(F.cross_entropy, ignore_index=9)):
        assert fit(trainer(loss=loss, metrics=()), X, np.where(y < 0, 9, y)).last["loss"] > 0
        with pytest.raises(ArgumentError, match="got -100 at sample 0"):
            fit(trainer(loss=loss, metrics=()), X, y)


def test_labels_in_a_loader_are_looked_at_too():
    with pytest.raises(ArgumentError, match="got 3 at sample 0"):
        fit(trainer(), data.DataLoader((X, np.full(40, 3)), 8))


@pytest.mark.parametrize("given", ["arrays", "loader"])
@pytest.mark.parametrize("what", ["label", "shape", "text"])
def test_augmented_data_are_looked_at_before_training_too(given, what):
    def turned(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x[:, :5] if what == "shape" else x + rng.standard_normal(x.shape, np.float32)

    y = {"label": np.where(np.arange(40) == 39, 3, Y), "shape": Y, "text": Y.astype(str)}[what]
    error, message = {
        "label": (ArgumentError, "y must be labels from 0 to 2, .*, got 3 at sample 39"),
        "shape": (ShapeError, r"x must hold samples that the model takes, got some of shape \(5,\)"),
        "text": (DTypeError, "y must be integers or floats"),
    }[what]
    net = model()
    before, order = bits(net), random.get_state()
    batches = (X, y) if given == "arrays" else (data.DataLoader((X, y), 8, augment=turned, seed=1),)
    with pytest.raises(error, match=message):
        fit(trainer(net), *batches, augment=turned if given == "arrays" else None)
    assert bits(net) == before
    assert given == "arrays" or str(random.get_state()) == str(order)


def test_an_augmentation_that_needs_a_batch_is_no_error():
    def mixed(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return (x + x[[*range(1, len(x)), 0]]) / 2 if x[1] is not None else x

    assert fit(trainer(), X, Y, augment=mixed).last["loss"] > 0


def test_bytes_that_augmentation_makes_floats_are_no_error():
    def scaled(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x.astype(np.float32) / 255

    assert fit(trainer(), data.DataLoader(((X > 0).astype(np.uint8), Y), 8, augment=scaled)).last["loss"] > 0
