"""Checkpoints of a run: one that was interrupted and went on ends as one that was not, bit for bit."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import gpunet as gn
from gpunet import data, io, nn, optim, random
from gpunet.data import augment
from gpunet.errors import ArgumentError, DataError
from gpunet.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    MaxNorm,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
    Trainer,
)
from tests.training import X, Y, bits, fit, model, trainer

GENERATOR = np.random.Generator(np.random.Philox(1))
IMAGES = GENERATOR.random((24, 1, 6, 6)).astype(np.float32)
LABELS = np.arange(24) % 3

OPTIMIZERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (optim.SGD, {}),
    "nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}),
    "adagrad": (optim.Adagrad, {"lr_decay": 0.1}),
    "rmsprop": (optim.RMSprop, {"momentum": 0.5, "centered": True}),
    "adam": (optim.Adam, {"amsgrad": True}),
    "adamw": (optim.AdamW, {}),
}


class Pulled(Exception):
    """The plug, at a moment of the test's choice."""


class Plug(Callback):
    """Ends the process, as it were, after so many batches of the run."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise Pulled


class Task:
    """A run of a small CNN with everything in it that could go on otherwise: 4 epochs of 5 batches."""

    def __init__(self, name: str, folder: Path, seed: int = 0) -> None:
        gn.manual_seed(seed)
        self.net = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(48, 3)
        )
        rule, options = OPTIMIZERS[name]
        self.optimizer = rule(self.net.parameters(), lr=0.02, **options)
        self.trainer = Trainer(self.net, self.optimizer, "cross_entropy", constraint=MaxNorm(1.5))
        self.log = folder / "log.csv"
        cosine = optim.lr_scheduler.CosineAnnealingLR(self.optimizer, T_max=4)
        self.callbacks = [
            LearningRateScheduler(cosine),
            ReduceLROnPlateau(factor=0.5, patience=1, min_delta=10.0),
            EarlyStopping(patience=9, restore_best_weights=True),
            LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(drawn=random.generator().random())),
            CSVLogger(self.log),
        ]

    def fit(self, *more: Callback, **options: Any) -> Any:
        turned = augment.compose(augment.rotate(20), augment.noise(0.1))
        return self.trainer.fit(
            IMAGES, LABELS, epochs=4, batch_size=4, validation_split=0.2, augment=turned, verbose=0,
            callbacks=[*self.callbacks, *more], **options,
        )  # fmt: skip

    def left(self) -> dict[str, Any]:
        """All that a run leaves, as bytes and text."""
        history = self.trainer.history.as_dict()
        del history["seconds"]
        state = self.optimizer.state_dict()
        arrays = {k: {n: np.asarray(v).tobytes() for n, v in each.items()} for k, each in state["state"].items()}
        return {
            "weights": bits(self.net),
            "optimizer": (arrays, str(state["param_groups"])),
            "history": str(history),
            "random": str(random.get_state()),
            "log": self.log.read_text(),
        }


def test_every_optimizer_is_tried():
    assert {rule for rule, _ in OPTIMIZERS.values()} == set(optim.Optimizer.__subclasses__()) | {optim.AdamW}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the run of each optimiser leaves without a pause; made once."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            task = Task(name, tmp_path_factory.mktemp(name))
            task.fit()
            made[name] = task.left()
        return made[name]

    return get


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_an_interrupted_run_goes_on_bit_for_bit(name, save_freq, tmp_path, whole):
    file = tmp_path / "run.safetensors"
    task = Task(name, tmp_path)
    with pytest.raises(Pulled):
        task.fit(ModelCheckpoint(file, save_freq=save_freq), Plug(14))
    second = Task(name, tmp_path, seed=7)
    second.fit(ModelCheckpoint(file, save_freq=save_freq), resume=file)
    for what, expected in whole(name).items():
        assert second.left()[what] == expected, what


@pytest.mark.parametrize("batches", [1, 4, 5, 6, 13, 19])
def test_it_may_be_interrupted_after_any_batch_and_more_than_once(batches, tmp_path, whole):
    file = tmp_path / "run.safetensors"
    with pytest.raises(Pulled):
        Task("nesterov", tmp_path).fit(ModelCheckpoint(file, save_freq=1), Plug(batches + 1))
    task = Task("nesterov", tmp_path, seed=7)
    with pytest.raises(Pulled):
        task.fit(ModelCheckpoint(file, save_freq=1), Plug(1), resume=file)
    last = Task("nesterov", tmp_path, seed=8)
    last.fit(resume=file)
    assert last.left() == whole("nesterov")


def test_rows_after_the_checkpoint_are_written_anew(tmp_path, whole):
    task = Task("sgd", tmp_path)
    with pytest.raises(Pulled):
        task.fit(
            ModelCheckpoint(tmp_path / "run", save_freq=9), Plug(18)
        )  # saved in the second epoch, pulled in the fourth
    with task.log.open("a") as file:
        assert len(task.log.read_text().splitlines()) == 4
        file.write("3,0.25,0.")  # the kill came within a row
    second = Task("sgd", tmp_path, seed=7)
    second.fit(resume=tmp_path / "run")
    assert second.left() == whole("sgd")


def test_more_epochs_are_added_to_a_run_that_is_over(tmp_path):
    one = trainer(model(drop=0.3))
    straight = fit(one, epochs=5)
    two = trainer(model(drop=0.3))
    fit(two, epochs=3)
    two.save(tmp_path / "a", note="three")
    assert io.load_metadata(tmp_path / "a")["note"] == "three"
    three = trainer(model(drop=0.3, seed=3))
    history = fit(three, epochs=5, resume=tmp_path / "a")
    assert history.batch_losses == straight.batch_losses
    assert history.epochs == [0, 1, 2, 3, 4]
    assert bits(three.model) == bits(one.model)
    again = trainer(model(drop=0.3, seed=4))
    assert fit(again, epochs=3, resume=tmp_path / "a").batch_losses == straight.batch_losses[:15]  # nothing left to do


def test_a_loader_goes_on_in_its_own_order(tmp_path):
    def jitter(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x + rng.standard_normal(x.shape, np.float32)

    def loader(seed: int) -> data.DataLoader:
        made = data.DataLoader((X, Y), 8, shuffle=True, seed=seed, augment=jitter)
        made.epoch = 3
        return made

    one = trainer()
    straight = fit(one, loader(5), epochs=2)
    with pytest.raises(Pulled):
        fit(trainer(), loader(5), epochs=2, callbacks=[ModelCheckpoint(tmp_path / "a", save_freq=2), Plug(7)])
    two = trainer(model(seed=2))
    assert fit(two, loader(6), epochs=2, resume=tmp_path / "a").batch_losses == straight.batch_losses
    assert bits(two.model) == bits(one.model)


def test_a_run_that_was_ended_early_stays_so(tmp_path):
    def callbacks(patience: int) -> list[Callback]:
        score = Score(2, 1, 3, 4, 5, 6, 7, 8)
        return [score, EarlyStopping("score", mode="min", patience=patience, restore_best_weights=True)]

    one = trainer()
    first = fit(one, epochs=8, callbacks=[*callbacks(2), ModelCheckpoint(tmp_path / "a")])
    assert first.stopped == "score has not improved since epoch 2"
    two = trainer(model(seed=1))
    second = fit(two, epochs=8, callbacks=callbacks(2), resume=tmp_path / "a")
    assert second.as_dict() == first.as_dict()
    assert bits(two.model) == bits(one.model)
    three = trainer(model(seed=1))
    assert len(fit(three, epochs=8, callbacks=callbacks(4), resume=tmp_path / "a")) == 6
    assert bits(three.model) == bits(one.model)  # of the second epoch, kept in the file


def test_an_epoch_that_was_cut_short_is_over(tmp_path):
    def cut(batch: int, logs: Any) -> None:
        if batch == 1:
            one.stop("enough")

    one = trainer()
    fit(one, epochs=3, callbacks=[LambdaCallback(on_batch_end=cut), ModelCheckpoint(tmp_path / "a")])
    history = fit(trainer(), epochs=3, resume=tmp_path / "a")
    assert len(history.batch_losses) == 2 + 5 + 5
    assert history.stopped is None


# ------------------------------------------------------------------------------------------------------- refusals


def test_a_run_with_other_settings_is_refused(tmp_path):
    file = tmp_path / "a"
    stop = EarlyStopping("loss", patience=5)
    fit(trainer(), epochs=1, callbacks=[stop, ModelCheckpoint(file)])
    net = model(seed=1)
    before = bits(net)
    fine = {"callbacks": [stop], "resume": file}
    for more, message in (
        ({"batch_size": 4}, "batch_size must be that of the run which goes on, got 4 instead of 8"),
        ({"validation_data": (X, Y)}, "validation must be .*got True instead of False"),
        ({"callbacks": []}, "callbacks must be those of the run that goes on, EarlyStopping, got none"),
        ({"callbacks": [CSVLogger("x"), TerminateOnNaN()]}, "EarlyStopping, got CSVLogger, TerminateOnNaN"),
        ({"initial_epoch": 1}, "initial_epoch must be left out with resume, which knows it, got 1"),
        ({"shuffle": False}, "shuffle"),
    ):
        with pytest.raises(ArgumentError, match=message):
            fit(trainer(net), epochs=2, **{**fine, **more})
    with pytest.raises(ArgumentError, match="samples"):
        fit(trainer(net), X[:30], Y[:30], epochs=2, **fine)
    with pytest.raises(ArgumentError, match=r"metrics must be .*got \[\] instead of \['accuracy'\]"):
        fit(trainer(net, metrics=()), epochs=2, **fine)
    with pytest.raises(DataError, match="must be of this model and optimiser"):
        fit(trainer(nn.Linear(6, 3)), epochs=2, **fine)
    with pytest.raises(FileNotFoundError):
        fit(trainer(net), epochs=2, resume=tmp_path / "none")
    assert bits(net) == before


def test_a_file_that_is_no_runs_is_refused(tmp_path):
    net = model()
    io.save(tmp_path / "a", net, optim.SGD(net.parameters(), lr=0.1))
    trainer(net).save(tmp_path / "b")  # before any run
    fit(one := trainer(net), epochs=1)
    one.save(tmp_path / "c")
    with safetensors.safe_open(tmp_path / "c", "numpy") as content:
        arrays, text = {k: content.get_tensor(k) for k in list(content.keys())}, content.metadata()["gpunet"]
    for old, new in (
        ('"counts": []', '"counts": 3'),
        ('"callbacks": []', '"callbacks": [[]]'),
        ('"epoch": 1,', '"epoch": "1",'),
        ('"tally"', '"taly"'),
    ):
        assert old in text
        name = f"d{old[1:3]}"
        safetensors.numpy.save_file(arrays, tmp_path / name, {"gpunet": text.replace(old, new, 1)})
    before = bits(net)
    for name in ("a", "b", "dco", "dca", "dep", "dta"):
        with pytest.raises((DataError, ArgumentError), match=f"/{name}'"):
            fit(trainer(net), epochs=2, resume=tmp_path / name)
    assert bits(net) == before


def test_what_cannot_be_saved_is_refused(tmp_path):
    one = trainer()
    with pytest.raises(ArgumentError, match="metadata must go by other names than 'trainer'"):
        one.save(tmp_path / "a", trainer=1)

    class Plain:
        def __init__(self, rule: Any) -> None:
            self.step, self.zero_grad = rule.step, rule.zero_grad

    other = Trainer(one.model, Plain(one.optimizer), "cross_entropy")
    with pytest.raises(ArgumentError, match=r"optimizer must have state_dict\(\) and load_state_dict\(\)"):
        fit(other, callbacks=[ModelCheckpoint(tmp_path / "a")])
    early = LambdaCallback(on_batch_begin=lambda batch, logs: one.save(tmp_path / "a"))
    with pytest.raises(ArgumentError, match="the run must stand between two steps, got one interrupted within a step"):
        fit(one, callbacks=[early])
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------------------------------- ModelCheckpoint


def epochs_of(folder: Path) -> dict[str, int]:
    """Name of each file, and the epochs that are done in it."""
    return {each.name: io.load_metadata(each)["trainer"]["epoch"] for each in sorted(folder.iterdir())}


class Score(Callback):
    def __init__(self, *values: float) -> None:
        self.values = values

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = self.values[epoch]


def test_names_of_files_are_filled_in(tmp_path, capsys):
    named = ModelCheckpoint(tmp_path / "{epoch:02d}-{score:.1f}", verbose=1)
    fit(trainer(), epochs=2, callbacks=[Score(3, 4), named])
    assert epochs_of(tmp_path) == {"01-3.0": 1, "02-4.0": 2}
    assert capsys.readouterr().out.splitlines()[1] == f"epoch 2: saved {tmp_path / '02-4.0'}"
    fit(trainer(), epochs=2, callbacks=[ModelCheckpoint(tmp_path / "new/{epoch}-{batch}", save_freq=4)])
    assert sorted(each.name for each in (tmp_path / "new").iterdir()) == ["1-4", "2-3"]
    with pytest.raises(ArgumentError, match=r"filepath must be made of epoch, loss, accuracy, got \{val_loss\} in"):
        fit(trainer(), callbacks=[ModelCheckpoint("{epoch}-{val_loss}")])
    with pytest.raises(ArgumentError, match=r"made of epoch, loss, accuracy, batch, got \{val_loss\}"):
        fit(trainer(), callbacks=[ModelCheckpoint("{batch}-{val_loss}", save_freq=2)], validation_split=0.2)


@pytest.mark.parametrize(("threshold", "kept"), [(None, ["1", "2", "5"]), (3.0, ["5"])])
def test_best_is_best_of_all_before(tmp_path, threshold, kept):
    options: dict[str, Any] = {"save_best_only": True, "mode": "max", "initial_value_threshold": threshold}
    best = ModelCheckpoint(tmp_path / "{epoch}", "score", **options)
    fit(trainer(), epochs=5, callbacks=[Score(1, 3, 2, math.nan, 4), best])
    assert sorted(epochs_of(tmp_path)) == kept
    assert best.best == 4


def test_the_best_value_is_known_when_the_run_goes_on(tmp_path):
    def callbacks(*values: float) -> list[Callback]:
        best = ModelCheckpoint(tmp_path / "best-{epoch}", "score", save_best_only=True, mode="max")
        return [Score(*values), ModelCheckpoint(tmp_path / "last"), best]

    fit(trainer(), epochs=2, callbacks=callbacks(1, 9))
    fit(trainer(), epochs=4, callbacks=callbacks(1, 9, 5, 10), resume=tmp_path / "last")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["best-1", "best-2", "best-4", "last"]


def test_weights_alone(tmp_path):
    one = trainer()
    fit(one, callbacks=[ModelCheckpoint(tmp_path / "a", save_weights_only=True, metadata={"note": "n"})])
    assert set(safetensors.numpy.load_file(tmp_path / "a")) == set(one.model.state_dict())
    assert io.load(tmp_path / "a", net := model(seed=1)) == {"note": "n"}
    assert bits(net) == bits(one.model)


def test_a_run_that_diverged_does_not_spoil_the_file(tmp_path):
    def loss(output: Any, target: Any) -> Any:
        return (output * 0).sum() + (math.nan if one.history.epochs else 1.0)

    one = trainer(loss=loss)
    with pytest.warns(RuntimeWarning, match="the loss must be finite for a checkpoint, got nan in epoch 2"):
        fit(one, epochs=2, callbacks=[ModelCheckpoint(tmp_path / "a")])
    assert epochs_of(tmp_path) == {"a": 1}


def test_wrong_checkpoints_are_refused():
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"save_freq": 0}, "save_freq must be an integer of at least 1, got 0"),
        ({"save_freq": "batch"}, "save_freq must be an integer"),
        ({"save_freq": 2, "save_best_only": True}, "save_best_only=True must come with save_freq='epoch', got 2"),
        ({"monitor": "score", "save_best_only": True}, "mode must be 'min' or 'max'"),
    ]
    for more, message in wrong:
        with pytest.raises(ArgumentError, match=message):
            ModelCheckpoint("a", **more)
    assert ModelCheckpoint("a", monitor="score").save_freq == "epoch"
