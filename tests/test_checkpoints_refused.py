"""A checkpoint that is refused leaves the trainer, its data and its callbacks as they were."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from gpunet import data, io, nn, optim, random
from gpunet.errors import ArgumentError, DataError
from gpunet.train import Callback, LambdaCallback, LearningRateScheduler, ModelCheckpoint, Trainer
from tests.training import X, Y, bits, fit, model, trainer


def loader(seed: int, **more: Any) -> data.DataLoader:
    x, y = more.pop("x", X), more.pop("y", Y)
    return data.DataLoader((x, y), 8, **{"shuffle": True, "seed": seed, **more})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two epochs and two batches of a run of ``tests.training.model``."""
    fit(trainer(), loader(3), epochs=3, callbacks=[ModelCheckpoint(tmp_path / "a", save_freq=12)])
    return tmp_path / "a"


def edited(file: Path, old: str, new: str) -> Path:
    """A copy with another record."""
    with safetensors.safe_open(file, "numpy") as content:
        arrays, text = {k: content.get_tensor(k) for k in list(content.keys())}, content.metadata()["gpunet"]
    assert text.count(old) >= 1
    safetensors.numpy.save_file(arrays, file.with_name("edited"), {"gpunet": text.replace(old, new, 1)})
    return file.with_name("edited")


class Fragile(Callback):
    """Has no use for what a checkpoint kept of it."""

    def state_dict(self):
        return {"much": 1}

    def load_state_dict(self, state):
        raise KeyError("more")


def refused(one: Trainer, batches: data.DataLoader, file: Path, error: Any, message: str, *callbacks: Callback) -> Any:
    """``fit`` raises, and nothing of trainer, loader, random state and folder has changed; what was called."""
    called: list[Any] = []
    see = LambdaCallback(
        on_train_begin=lambda logs: called.append("train"), on_epoch_begin=lambda epoch, logs: called.append(epoch)
    )

    def state() -> list[Any]:
        optimizer: Any = one.optimizer
        kept = str(optimizer.state_dict()), bits(one.model), str(random.get_state()), one.history
        return [*kept, str(one.history.as_dict()), batches.state_dict()]

    before = state()
    with pytest.raises(error, match=message):
        fit(one, batches, epochs=9, resume=file, callbacks=[see, *callbacks])
    assert state() == before
    one.save(file.with_name("b"))
    kept = io.load_metadata(file.with_name("b"))["trainer"]
    assert (kept["epoch"], kept["loader"]["seed"]) == (1, 7)
    return called


def begun(net: Any = None) -> Trainer:
    """A trainer with an epoch of its own behind it."""
    one = trainer(model(seed=4) if net is None else net)
    fit(one, loader(7))
    return one


def test_of_another_model(file):
    other = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    assert not refused(begun(other), loader(5), file, DataError, "fit: .*/a' must be of this model and optimiser")


def test_of_another_optimizer(tmp_path):
    net = model()
    one = Trainer(net, optim.Adam(net.parameters()), "cross_entropy")
    fit(one, loader(3), epochs=3, callbacks=[ModelCheckpoint(tmp_path / "a", save_freq=12)])
    assert not refused(begun(), loader(5), tmp_path / "a", DataError, "must be of this model and optimiser")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"shuffle": False}, "state must be of a loader with shuffle=False, got shuffle=True"),
        ({"x": X[:36], "y": Y[:36]}, "state must be of a loader with samples=36, got samples=40"),
    ],
)
def test_of_other_data(file, more, message):
    assert not refused(begun(), loader(5, **more), file, ArgumentError, message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"counts": ', '"count": ', "/edited' must hold the state of such a run, got .*counts"),
        ('"stopped": ', '"stop": ', "/edited' must hold the state of such a run, got .*stopped"),
        ('"position": ', '"place": ', r"state must have every key, it lacks \['position'\]"),
        ('"seed": 3', '"seed": -3', "seed must be .*got -3"),
    ],
)
def test_with_a_damaged_state(file, old, new, message):
    assert not refused(begun(), loader(5), edited(file, old, new), (DataError, ArgumentError), message)


def test_by_a_callback(tmp_path):
    fit(trainer(), loader(3), epochs=3, callbacks=[Fragile(), ModelCheckpoint(tmp_path / "a", save_freq=12)])
    refused(begun(), loader(5), tmp_path / "a", DataError, "/a' must hold the state of such a run", Fragile())
    one = begun()
    wrong = optim.SGD(one.model.parameters(), lr=1.0)
    refused(one, loader(5), tmp_path / "a", ArgumentError, "over the trainer's optimizer", Fragile(),
            LearningRateScheduler(optim.lr_scheduler.StepLR(wrong, 1)))  # fmt: skip


def test_what_is_not_refused_goes_on(file):
    straight = fit(trainer(), loader(3), epochs=3)
    assert fit(begun(), loader(5), epochs=3, resume=file).batch_losses == straight.batch_losses
    assert np.isfinite(straight.batch_losses).all()
