"""Callbacks: when they are called, and each of gpunet's own against what Keras documents, its known faults mended."""

import math
from pathlib import Path
from typing import Any

import pytest

from gpunet import nn, optim
from gpunet.errors import ArgumentError, DataError
from gpunet.train import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
    Trainer,
)
from tests.training import X, Y, bits, fit, model, trainer


class Recorder(Callback):
    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_train_begin(self, logs=None):
        self.calls.append(("train begin", logs))

    def on_train_end(self, logs=None):
        self.calls.append(("train end", sorted(logs)))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch begin", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch end", (epoch, sorted(logs))))

    def on_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begin", batch))

    def on_batch_end(self, batch, logs=None):
        self.calls.append(("batch end", (batch, sorted(logs), type(logs["loss"]))))


def test_callbacks_are_called_in_order():
    recorder = Recorder()
    one = trainer()
    fit(one, epochs=1, batch_size=20, callbacks=[recorder], validation_data=(X, Y))
    names = ["accuracy", "loss"]
    end = ["accuracy", "loss", "val_accuracy", "val_loss"]
    assert recorder.calls == [
        ("train begin", None), ("epoch begin", 0),
        ("batch begin", 0), ("batch end", (0, names, float)), ("batch begin", 1), ("batch end", (1, names, float)),
        ("epoch end", (0, end)), ("train end", end),
    ]  # fmt: skip
    assert recorder.trainer is one
    assert recorder.model is one.model


def test_checkpoints_are_for_when_all_others_had_their_turn():
    seen: list[str] = []
    first = LambdaCallback(on_checkpoint=lambda: seen.append("checkpoint"))
    then = LambdaCallback(
        on_batch_end=lambda batch, logs: seen.append("batch"), on_epoch_end=lambda epoch, logs: seen.append("epoch")
    )
    fit(trainer(), batch_size=20, callbacks=[first, then])
    assert seen == ["batch", "checkpoint"] * 2 + ["epoch", "checkpoint"]


def test_a_lambda_callback_calls_what_it_was_given():
    seen = []
    both = {"on_train_begin": lambda logs: seen.append("begin"), "on_epoch_end": lambda epoch, logs: seen.append(epoch)}
    fit(trainer(), epochs=2, callbacks=[LambdaCallback(**both)])
    assert seen == ["begin", 0, 1]
    with pytest.raises(ArgumentError, match=r"must be one of on_train_begin.*got 'on_epoch'"):
        LambdaCallback(on_epoch=lambda: None)
    with pytest.raises(ArgumentError, match="on_epoch_end must be a function, got 3"):
        LambdaCallback(on_epoch_end=3)  # type: ignore[arg-type] wrong on purpose


@pytest.mark.parametrize("by", ["method", "attribute"])
def test_a_callback_can_stop_the_run(by):
    def stop(batch: int, logs: Any) -> None:
        if batch == 2 and by == "method":
            one.stop("enough")
        elif batch == 2:
            one.stop_training = True

    one = trainer()
    history = fit(one, epochs=5, validation_data=(X, Y), callbacks=[LambdaCallback(on_batch_end=stop)])
    assert len(history) == 1
    assert len(history.batch_losses) == 3
    assert {len(values) for values in history.history.values()} == {1}
    assert history.stopped == ("enough" if by == "method" else "stop_training was set")
    assert len(fit(one, epochs=2)) == 2  # the next run starts afresh


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_terminate_on_nan_names_the_batch(bad):
    count = 0

    def loss(output: Any, target: Any) -> Any:
        nonlocal count
        count += 1
        return (output * 0).sum() + (bad if count == 8 else 1.0)

    with pytest.warns(RuntimeWarning, match=rf"the loss is {bad} in epoch 2, batch 3, training ends here; lower the"):
        history = fit(trainer(loss=loss), epochs=5, callbacks=[TerminateOnNaN()])
    assert len(history.batch_losses) == 8
    assert history.stopped == f"the loss is {bad} in epoch 2, batch 3"


def test_without_it_a_nan_stands_in_the_history():
    history = fit(trainer(loss=lambda output, target: (output * 0).sum() + float("nan")), epochs=2)
    assert all(math.isnan(value) for value in history.history["loss"])


# ------------------------------------------------------------------------------------------------------- a number


class Scripted(Callback):
    """Puts one of these values an epoch into the logs, as a metric of the user's own."""

    def __init__(self, values: list[float], name: str = "score") -> None:
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[epoch]


def scripted(values: list[float], *callbacks: Callback, name: str = "score") -> Any:
    """A run of an epoch a value, whose first weight is the number of the epoch that is over."""
    net = nn.Linear(6, 3)

    def mark(epoch: int, logs: Any) -> None:
        net.weight.data[0, 0] = epoch + 1

    before = [LambdaCallback(on_epoch_end=mark), Scripted(values, name)]
    return fit(trainer(net), epochs=len(values), callbacks=[*before, *callbacks], batch_size=40), net


@pytest.mark.parametrize("make", [EarlyStopping, ReduceLROnPlateau, lambda **k: ModelCheckpoint("a", **k)])
def test_an_unknown_monitor_is_refused(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = {"save_best_only": True} if not isinstance(make, type) else {}
    net = model()
    before = bits(net)
    known = "monitor must be one of loss, accuracy, got 'val_loss'; give fit validation_data or validation_split"
    with pytest.raises(ArgumentError, match=known):
        fit(trainer(net), callbacks=[make(**more)])
    with pytest.raises(ArgumentError, match=r"one of loss, accuracy, val_loss, val_accuracy, got 'val_mae'"):
        fit(trainer(net), callbacks=[make(monitor="val_mae", **more)], validation_split=0.2)
    assert bits(net) == before  # both came before the run
    epochs: list[int] = []
    own = LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    with pytest.raises(ArgumentError, match="monitor must be one of loss, accuracy, got 'val_loss'"):
        fit(trainer(net), epochs=3, callbacks=[own, make(**more)])
    assert epochs == [0]  # a callback of the user's might have added it, so this one came after the first epoch


@pytest.mark.parametrize("make", [EarlyStopping, ReduceLROnPlateau])
def test_a_name_that_does_not_tell_its_direction_needs_a_mode(make):
    with pytest.raises(ArgumentError, match="mode must be 'min' or 'max' for monitor='score', got 'auto'"):
        make("score")
    with pytest.raises(ArgumentError, match="mode must be one of 'auto', 'min', 'max', got 'up'"):
        make("loss", mode="up")
    assert [make(name)._sign for name in ("loss", "val_mae", "val_accuracy", "my_acc")] == [-1, -1, 1, 1]


# ------------------------------------------------------------------------------------------------------- stopping


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([3, 2, 1, 2, 0, 0], {"patience": 1}, 4, 2),
        ([3, 2, 1, 2, 0, 0], {"patience": 0}, 4, 2),
        ([3, 2, 1, 2, 0, 0], {"patience": 2}, 6, 4),
        ([3, 2, 2, 2, 2, 0], {"patience": 3}, 5, 1),
        ([3, 2.5, 2.1, 1.9, 1.8], {"patience": 2, "min_delta": 0.5}, 5, 2),
        ([3, 2.5, 2.1, 1.9, 1.8], {"patience": 2, "min_delta": -0.5}, 5, 2),
        ([1, 2, 3, 3, 4], {"patience": 1, "mode": "max"}, 4, 2),
        ([9, 8, 7, 6, 5], {"patience": 3, "baseline": 1}, 3, 2),  # Keras goes on here, as each is better than the last
        ([9, 0, 7, 6, 5], {"patience": 3, "baseline": 1}, 5, 1),
        ([1, 2, 3, 4, 5], {"patience": 1, "start_from_epoch": 2}, 4, 2),
        ([math.nan, 2, 1, 1], {"patience": 1}, 1, None),
        ([math.nan, 2, 1, 1], {"patience": 2}, 4, 2),  # in Keras nothing is ever better than a NaN at the beginning
        ([2, math.nan, 1, 1], {"patience": 2}, 4, 2),
    ],
)
def test_early_stopping_waits_as_long_as_it_is_told(values, options, epochs, best):
    stop = EarlyStopping("score", **{"mode": "min", **options}, restore_best_weights=True)
    history, net = scripted(values, stop)
    assert len(history) == epochs
    assert (history.stopped is None) == (epochs == len(values) and stop._wait < max(stop.patience, 1))
    if best is None:
        assert stop.best is None
    else:
        assert (stop.best, stop.best_epoch) == (values[best], best)
        assert net.weight.data[0, 0] == best + 1


def test_the_best_weights_come_back_on_a_normal_end_too():
    stop = EarlyStopping("score", mode="min", patience=10, restore_best_weights=True)
    history, net = scripted([2, 1, 3], stop)
    assert history.stopped is None
    assert net.weight.data[0, 0] == 2
    _, other = scripted([2, 1, 3], EarlyStopping("score", mode="min", patience=10))
    assert other.weight.data[0, 0] == 3


def test_running_statistics_come_back_with_the_weights():
    net, kept = model(), []
    see = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.append(bits(net)))
    stop = EarlyStopping("score", mode="min", patience=9, restore_best_weights=True)
    fit(trainer(net), epochs=3, callbacks=[see, Scripted([1, 0, 2]), stop])
    assert bits(net) == kept[1]
    assert len({each["3.running_mean"] for each in kept}) == 3


def test_early_stopping_says_why_and_starts_anew(capsys):
    stop = EarlyStopping("score", mode="min", patience=1, verbose=1, restore_best_weights=True)
    history, _ = scripted([1, 2, 3], stop)
    assert history.stopped == "score has not improved since epoch 1"
    assert capsys.readouterr().out == "epoch 2: early stopping\nweights of epoch 1 restored\n"
    history, net = scripted([9, 8, 7], stop)  # the 1 of the first run is forgotten
    assert len(history) == 3
    assert net.weight.data[0, 0] == 3


def test_early_stopping_on_validation_in_a_real_run():
    stop = EarlyStopping(patience=2, restore_best_weights=True)
    one = trainer(lr=0.5)
    history = fit(one, epochs=60, validation_split=0.5, callbacks=[stop])
    values = history.history["val_loss"]
    assert 3 <= len(history) < 60
    assert stop.best == min(values)
    assert values.index(min(values)) == len(values) - 3
    assert one.evaluate(X[20:], Y[20:], batch_size=8)["loss"] == stop.best


# ------------------------------------------------------------------------------------------------------- rates


@pytest.mark.parametrize(
    ("values", "options", "rates"),
    [
        ([5, 5, 5, 5, 5], {"patience": 2}, [8, 8, 8, 4, 4]),
        ([5, 5, 5, 5, 5], {"patience": 1}, [8, 8, 4, 2, 1]),
        ([5, 5, 5, 5, 5], {"patience": 0}, [8, 8, 4, 2, 1]),
        ([5, 4, 3, 3, 3], {"patience": 1}, [8, 8, 8, 8, 4]),
        ([5, 5, 5, 5, 5, 5], {"patience": 1, "cooldown": 2}, [8, 8, 4, 4, 4, 2]),
        ([5, 5, 5, 5, 5], {"patience": 1, "min_lr": 3}, [8, 8, 4, 3, 3]),
        ([5, 5, 5, 5, 5], {"patience": 1, "min_lr": 9}, [8, 8, 8, 8, 8]),
        ([5, 4.99995, 4.9999, 4], {"patience": 1}, [8, 8, 4, 2]),  # min_delta is 1e-4
        ([1, 2, 2, 2], {"patience": 1, "mode": "max"}, [8, 8, 8, 4]),
        ([math.nan, 5, 5, 5], {"patience": 2}, [8, 8, 8, 8]),
    ],
)
def test_the_rate_falls_on_a_plateau(values, options, rates):
    net = nn.Linear(6, 3)
    one = Trainer(net, optim.SGD(net.parameters(), lr=8.0), lambda output, target: (output * 0).sum())
    reduce = ReduceLROnPlateau("score", **{"factor": 0.5, "mode": "min", **options})
    history = fit(one, epochs=len(values), batch_size=40, callbacks=[Scripted(values), reduce])
    assert history.learning_rates == rates


def test_keras_defaults():
    reduce, stop = ReduceLROnPlateau(), EarlyStopping()
    told = (reduce.monitor, reduce.factor, reduce.patience, reduce.min_delta, reduce.cooldown, reduce.min_lr)
    assert told == ("val_loss", 0.1, 10, 1e-4, 0, 0)
    told = (stop.monitor, stop.min_delta, stop.patience, stop.baseline, stop.restore_best_weights)
    assert (*told, stop.start_from_epoch) == ("val_loss", 0, 0, None, False, 0)


def test_a_plateau_lowers_every_group():
    net = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    groups = [{"params": net[0].parameters(), "lr": 1.0}, {"params": net[1].parameters(), "lr": 0.5}]
    one = Trainer(net, optim.SGD(groups, lr=1.0), "cross_entropy")
    fit(one, epochs=2, callbacks=[Scripted([1, 1]), ReduceLROnPlateau("score", mode="min", patience=1, min_lr=0.07)])
    assert [group["lr"] for group in one.optimizer.param_groups] == [0.1, 0.07]


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda epoch, lr: lr if epoch < 2 else lr / 2, [4, 4, 2, 1]),
        (lambda epoch: 3 - 0.5 * epoch, [3, 2.5, 2, 1.5]),
        (lambda epoch, lr, factor=0.5: lr * factor, [2, 1, 0.5, 0.25]),
    ],
)
def test_a_schedule_sets_the_rate(schedule, rates):
    assert fit(trainer(lr=4.0), epochs=4, callbacks=[LearningRateScheduler(schedule)]).learning_rates == rates


def test_schedules_of_optim_are_stepped():
    net = model()
    sgd = optim.SGD(net.parameters(), lr=8.0)
    halve = LearningRateScheduler(optim.lr_scheduler.StepLR(sgd, 1, 0.5))
    assert fit(Trainer(net, sgd, "cross_entropy"), epochs=3, callbacks=[halve]).learning_rates == [8, 4, 2]
    rates: list[float] = []
    sgd = optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
    cycle = optim.lr_scheduler.OneCycleLR(sgd, max_lr=4.0, total_steps=10)
    see = LambdaCallback(on_batch_end=lambda batch, logs: rates.append(sgd.param_groups[0]["lr"]))
    fit(Trainer(net, sgd, "cross_entropy"), epochs=2, callbacks=[LearningRateScheduler(cycle, every="batch"), see])
    sgd = optim.SGD(net.parameters(), lr=1.0, momentum=0.9)
    cycle = optim.lr_scheduler.OneCycleLR(sgd, max_lr=4.0, total_steps=10)
    assert rates[0] == cycle.get_last_lr()[0]
    assert rates[1:] == [(cycle.step(), cycle.get_last_lr()[0])[1] for _ in range(9)]


def test_an_error_inside_a_schedule_is_not_hidden():
    def schedule(epoch: int, lr: float) -> float:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        fit(trainer(), callbacks=[LearningRateScheduler(schedule)])


def test_wrong_schedules_are_refused():
    sgd = optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    for wrong, message in (
        (3, "schedule must be a function or one of gn.optim.lr_scheduler, got 3"),
        (optim.lr_scheduler.ReduceLROnPlateau(sgd), "must not watch a value.*use train.ReduceLROnPlateau"),
    ):
        with pytest.raises(ArgumentError, match=message):
            LearningRateScheduler(wrong)  # type: ignore[arg-type] wrong on purpose
    with pytest.raises(ArgumentError, match="schedule must be over the trainer's optimizer"):
        fit(trainer(), callbacks=[LearningRateScheduler(optim.lr_scheduler.StepLR(sgd, 1))])
    wrong_rates: list[Any] = [-1.0, math.nan, math.inf, None, "0.1"]
    for rate in wrong_rates:
        with pytest.raises(ArgumentError, match=r"schedule must return a rate of at least 0, got .* for epoch 0"):
            fit(trainer(), callbacks=[LearningRateScheduler(lambda epoch, lr, rate=rate: rate)])


# ------------------------------------------------------------------------------------------------------- CSV


def rows(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_row_an_epoch(tmp_path):
    file = tmp_path / "new" / "log.csv"
    history = fit(trainer(lr=0.5), epochs=2, callbacks=[CSVLogger(file)])
    expected = [f"{k},{history.history['loss'][k]!r},{history.history['accuracy'][k]!r},0.5" for k in range(2)]
    assert rows(file) == ["epoch,loss,accuracy,learning_rate", *expected]
    fit(trainer(), epochs=1, callbacks=[CSVLogger(file, separator=";")])
    assert [line.count(";") for line in rows(file)] == [3, 3]
    with pytest.raises(ArgumentError, match="separator must be one character, got ', '"):
        CSVLogger(file, separator=", ")


def test_rows_are_appended_below_the_same_columns(tmp_path):
    file = tmp_path / "log.csv"
    logger = CSVLogger(file, append=True)
    fit(trainer(), epochs=2, callbacks=[logger])
    fit(trainer(), epochs=2, callbacks=[logger])
    assert [line.split(",")[0] for line in rows(file)] == ["epoch", "0", "1", "0", "1"]
    before = file.read_text()
    with pytest.raises(DataError, match="must have the columns epoch, loss, learning_rate, got epoch, loss, accuracy"):
        fit(trainer(metrics=()), callbacks=[logger])
    assert file.read_text() == before
    fit(trainer(metrics=()), callbacks=[CSVLogger(file)])
    assert rows(file)[0] == "epoch,loss,learning_rate"


def test_a_column_that_goes_missing_is_na(tmp_path):
    class Sometimes(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                logs["score"] = 1.0

    fit(trainer(metrics=()), epochs=2, callbacks=[Sometimes(), CSVLogger(tmp_path / "log.csv")])
    assert rows(tmp_path / "log.csv")[2].split(",")[2] == "NA"


def test_rows_are_there_after_each_epoch(tmp_path):
    counts: list[int] = []
    see = LambdaCallback(on_epoch_end=lambda epoch, logs: counts.append(len(rows(tmp_path / "log.csv"))))
    fit(trainer(), epochs=3, callbacks=[CSVLogger(tmp_path / "log.csv"), see])
    assert counts == [2, 3, 4]
