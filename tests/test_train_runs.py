"""Runs by name: what they train with, checkpoints after each epoch, and going on from them bit for bit."""

import errno
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import io, nn, optim
from gpunet.errors import ArgumentError, DataError
from gpunet.train import LambdaCallback, Trainer
from gpunet.train.runs import Run

SMALL = {"model": "softmax_regression", "data": "digits8", "epochs": 4, "limit": 100}
#: everything that remembers something from one epoch to the next
MUCH = {
    **SMALL, "limit": 200, "epochs": 5, "optimizer": "momentum", "batch_size": 32, "validation": 0.25, "early_stop": 4,
    "augment": "shift=0.1,rotate=10,noise=0.05", "label_smoothing": 0.1, "l2": 1e-4, "max_norm": 2.0,
}  # fmt: skip


def interrupted(run: Run, epoch: int, batch: int = 1) -> None:
    """Trains until Ctrl-C is pressed before a batch."""
    seen = [0]

    def press(number: int, logs: Any = None) -> None:
        if seen[0] == epoch and number == batch:
            raise KeyboardInterrupt

    run.callbacks += [
        LambdaCallback(on_epoch_begin=lambda number, logs: seen.__setitem__(0, number), on_batch_begin=press)
    ]
    with pytest.raises(KeyboardInterrupt):
        run.train(verbose=0)


def weights(file: Path, settings: dict[str, Any]) -> np.ndarray:
    """The weight of a softmax regression that the file holds for those who use it."""
    model = nn.SoftmaxRegression(64, 10)
    io.load(file, model)
    return model.state_dict()["1.weight"].numpy()


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether two results have the same numbers, durations apart."""
    return all(a[name] == b[name] for name in a if name != "seconds")


# ------------------------------------------------------------------------------------------------------- going on


@pytest.mark.parametrize("schedule", ["none", "cosine", "step:step_size=2", "exponential", "one_cycle", "plateau"])
def test_an_interrupted_run_ends_where_it_would_have_ended(tmp_path, schedule):
    settings = {**MUCH, "schedule": schedule}
    whole = Run(settings, save=tmp_path / "whole").train(verbose=0)
    run = Run(settings, save=tmp_path / "half", csv=tmp_path / "half.csv")
    interrupted(run, epoch=3)
    assert run.kept == 3
    gn.manual_seed(99)
    again, begun = Run({}, resume=tmp_path / "half", csv=tmp_path / "half.csv"), []
    again.callbacks.append(LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch)))
    rest = again.train(verbose=0)
    assert begun == [3, 4]
    assert rest["epochs"] == [0, 1, 2, 3, 4]
    assert same(rest, whole)
    assert np.array_equal(weights(tmp_path / "half", settings), weights(tmp_path / "whole", settings))
    rows = (tmp_path / "half.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "0", "1", "2", "3", "4"]


def test_a_run_that_is_over_may_be_made_longer_from_its_last_weights(tmp_path):
    settings = {**SMALL, "limit": 200, "lr": 1.0, "early_stop": 50, "validation": 0.3}
    whole = Run({**settings, "epochs": 8}, save=tmp_path / "whole").train(verbose=0)
    losses = whole["history"]["val_loss"]
    first = next(k for k in range(2, 8) if min(losses[:k]) < losses[k - 1])  # the file's weights are not the last
    Run({**settings, "epochs": first}, save=tmp_path / "half").train(verbose=0)
    longer = Run({"epochs": 8}, resume=tmp_path / "half").train(verbose=0)
    assert same(longer, whole)
    with pytest.raises(ArgumentError, match="epochs must be more than what is done already, got 8 with 8 done"):
        Run({}, resume=tmp_path / "half")


@pytest.mark.parametrize("stops", [False, True])
def test_a_disk_that_is_full_after_the_last_epoch_loses_neither_weights_nor_test(tmp_path, monkeypatch, stops):
    settings = {**SMALL, "limit": 200, "lr": 1.0, "validation": 0.3}
    settings |= {"early_stop": 2, "epochs": 50} if stops else {"early_stop": 50, "epochs": 8}
    whole = Run(settings, save=tmp_path / "whole").train(verbose=0)
    assert whole["best_epoch"] < whole["epochs"][-1]
    run = Run(settings, save=tmp_path / "a")

    def full(reason: str | None) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run.checkpoint, "finish", full)
    with pytest.raises(OSError, match="No space left"):
        run.train(verbose=0)
    assert not run.finished
    assert not np.array_equal(weights(tmp_path / "a", settings), weights(tmp_path / "whole", settings))
    again, begun = Run({}, resume=tmp_path / "a"), []
    again.callbacks.append(LambdaCallback(on_epoch_begin=lambda epoch, logs: begun.append(epoch)))
    assert same(again.train(verbose=0), whole)
    assert not begun
    assert again.finished
    assert np.array_equal(weights(tmp_path / "a", settings), weights(tmp_path / "whole", settings))
    with pytest.raises(ArgumentError, match="one that ended: val_loss" if stops else "more than what is done already"):
        Run({}, resume=tmp_path / "a")
    if not stops:  # and it can be made longer from its last weights, as one that was never in trouble
        longer = [Run({"epochs": 10}, resume=tmp_path / name).train(verbose=0) for name in ("a", "whole")]
        assert same(*longer)


def test_fewer_epochs_than_are_done_are_refused_whether_it_is_finished_or_not(tmp_path):
    run = Run({**SMALL, "early_stop": 50}, save=tmp_path / "a")
    interrupted(run, epoch=2)
    with pytest.raises(ArgumentError, match="epochs must be more than what is done already, got 1 with 2 done"):
        Run({"epochs": 1}, resume=tmp_path / "a")


@pytest.mark.parametrize("name", ["schedule", "lr", "model", "epochs"])
def test_a_record_that_lacks_a_setting_is_damaged(tmp_path, name):
    run = Run({**SMALL, "epochs": 1}, save=tmp_path / "a")
    run.train(verbose=0)
    for value in (None, []):
        run.trainer.save(tmp_path / "b", settings={**run.settings, name: value}, ended=None)
        with pytest.raises(DataError, match=r"/b' must be a checkpoint .* with settings that no run has: .*" + name):
            Run({}, resume=tmp_path / "b")


def test_dropout_and_batch_norm_go_on_too(tmp_path):
    cnn = {"model": "reference_cnn", "data": "digits8", "limit": 16, "batch_size": 8, "dropout": 0.4}
    whole = Run({**cnn, "epochs": 2}).train(verbose=0)
    Run({**cnn, "epochs": 1}, save=tmp_path / "a").train(verbose=0)
    assert Run({"epochs": 2}, resume=tmp_path / "a").train(verbose=0)["batch_losses"] == whole["batch_losses"]


def test_the_file_has_the_best_weights_and_a_run_that_ended_stays_so(tmp_path):
    settings = {**SMALL, "limit": 200, "epochs": 50, "lr": 1.0, "early_stop": 2, "validation": 0.3}
    seen: list[np.ndarray] = []
    run = Run(settings, save=tmp_path / "a")
    keep = lambda epoch, logs: seen.append(run.model.state_dict()["1.weight"].numpy().copy())  # noqa: E731 one line says it
    run.callbacks.append(LambdaCallback(on_epoch_end=keep))
    result = run.train(verbose=0)
    losses = result["history"]["val_loss"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 50
    assert result["best_epoch"] == best
    assert result["stopped"] == f"val_loss has not improved since epoch {best + 1}"
    assert not result["diverged"]
    assert np.array_equal(weights(tmp_path / "a", settings), seen[best])
    assert not np.array_equal(seen[best], seen[-1])
    with pytest.raises(ArgumentError, match="must be of a run that can go on, got one that ended: val_loss has not"):
        Run({}, resume=tmp_path / "a")


def test_a_run_refuses_what_contradicts_its_checkpoint(tmp_path):
    Run({**SMALL, "epochs": 1}, save=tmp_path / "a").train(verbose=0)
    with pytest.raises(ArgumentError, match=r"lr must be that of the run which goes on, 0\.01, got 0\.5; leave"):
        Run({"lr": 0.5, "epochs": 2}, resume=tmp_path / "a")
    assert Run({"lr": 0.01, "epochs": 2}, resume=tmp_path / "a").settings["epochs"] == 2
    interrupted(Run({**SMALL, "schedule": "cosine"}, save=tmp_path / "b"), epoch=1)
    with pytest.raises(ArgumentError, match="epochs must be that of the run which goes on with schedule cosine"):
        Run({"epochs": 6}, resume=tmp_path / "b")
    io.save(tmp_path / "c", nn.Linear(2, 2))
    with pytest.raises(DataError, match="must be a checkpoint of a training run"):
        Run({}, resume=tmp_path / "c")


# ------------------------------------------------------------------------------------------------------- files


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    run, file = Run(SMALL, save=tmp_path / "a"), tmp_path / "a"
    save, calls = io.save, []

    def full(*args: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args, **more)

    monkeypatch.setattr(io, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run.train(verbose=0)
    assert run.kept == 2
    monkeypatch.undo()
    whole = Run(SMALL).train(verbose=0)
    assert same(Run({}, resume=file).train(verbose=0), whole)


@pytest.mark.parametrize("name", ["save", "csv"])
def test_a_file_that_cannot_be_written_is_refused_before_training(tmp_path, name):
    with pytest.raises(ArgumentError, match=f"train: {name} must lie in a folder that exists, got .*; make"):
        Run(SMALL, **{name: tmp_path / "no" / "file"})
    with pytest.raises(ArgumentError, match=f"train: {name} must be a file that can be written, got a folder"):
        Run(SMALL, **{name: tmp_path})


def test_braces_in_a_name_are_just_braces(tmp_path):
    run = Run({**SMALL, "epochs": 1}, save=tmp_path / "{epoch}.safetensors")
    run.train(verbose=0)
    assert [each.name for each in tmp_path.iterdir()] == ["{epoch}.safetensors"]


def test_a_run_that_diverges_says_so_and_keeps_the_last_good_file(tmp_path):
    Run({**SMALL, "epochs": 1}, save=tmp_path / "a").train(verbose=0)
    before = Path(tmp_path / "a").read_bytes()
    result = Run({**SMALL, "epochs": 2, "optimizer": "sgd", "lr": 1e38}, save=tmp_path / "a").train(verbose=0)
    assert "the loss is" in result["stopped"]
    assert result["diverged"]
    assert Path(tmp_path / "a").read_bytes() == before


# ------------------------------------------------------------------------------------------------------- what is made


def test_every_update_rule_by_name():
    made = {}
    for name in ("gd", "sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw"):
        made[name] = Run({**SMALL, "optimizer": name}).trainer.optimizer
    kinds = [optim.SGD, optim.SGD, optim.SGD, optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adam, optim.AdamW]
    assert [type(each) for each in made.values()] == kinds
    group = {name: each.param_groups[0] for name, each in made.items()}
    assert [group[name]["momentum"] for name in ("gd", "sgd", "momentum", "nesterov")] == [0.0, 0.0, 0.9, 0.9]
    assert [group[name]["nesterov"] for name in ("momentum", "nesterov")] == [False, True]
    assert [group[name]["lr"] for name in ("sgd", "adam", "adamw")] == [0.1, 0.01, 0.001]
    assert group["adamw"]["weight_decay"] == 0.01


def test_gradient_descent_takes_all_images_in_each_step():
    result = Run({**SMALL, "optimizer": "gd"}).train(verbose=0)
    assert len(result["batch_losses"]) == 4
    losses = result["batch_losses"]
    assert losses == sorted(losses, reverse=True)


def rates(schedule: str, optimizer: str = "sgd", epochs: int = 4, **more: Any) -> list[float]:
    """The rate that each epoch ended with."""
    settings = {**SMALL, "optimizer": optimizer, "lr": 1.0, "epochs": epochs, "schedule": schedule, **more}
    return [round(each, 6) for each in Run(settings).train(verbose=0)["learning_rates"]]


def test_schedules_move_the_rate_as_in_pytorch():
    assert rates("none") == [1.0, 1.0, 1.0, 1.0]
    assert rates("cosine") == [round((1 + math.cos(math.pi * k / 4)) / 2, 6) for k in range(4)]
    assert rates("step", epochs=6) == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    assert rates("step:step_size=1,gamma=0.5") == [1.0, 0.5, 0.25, 0.125]
    assert rates("exponential", epochs=3) == [1.0, 0.1, 0.01]
    one = rates("one_cycle:pct_start=0.5", epochs=2, batch_size=50)  # four steps: the rise, the top, the fall
    scheduler = optim.lr_scheduler.OneCycleLR(
        optim.SGD([gn.zeros(1, requires_grad=True)], lr=1.0), 1.0, 4, pct_start=0.5, cycle_momentum=False
    )
    expected = []
    for _ in range(4):
        expected.append(round(scheduler.get_last_lr()[0], 6))
        scheduler.step()
    assert one == [expected[1], expected[3]]


def test_plateau_lowers_the_rate_when_the_monitor_stands_still():
    settings = {**SMALL, "optimizer": "sgd", "lr": 1e-30, "validation": 0.2}
    settings["schedule"] = "plateau:patience=1,factor=0.1"
    assert Run(settings).train(verbose=0)["learning_rates"] == pytest.approx([1e-30, 1e-30, 1e-31, 1e-32], rel=1e-9)


def test_one_cycle_moves_the_momentum_that_there_is():
    groups = [Run({**SMALL, "optimizer": name, "schedule": "one_cycle"}) for name in ("sgd", "momentum", "adam")]
    plain, momentum, adam = (each.trainer.optimizer.param_groups[0] for each in groups)
    assert (plain["momentum"], momentum["momentum"], adam["betas"][0]) == (0.0, 0.95, 0.95)


def test_validation_images_are_held_back_by_class():
    run = Run({**SMALL, "limit": 300, "validation": 0.2})
    assert run.images.validation is not None
    counts = np.bincount(run.images.validation[1], minlength=10)
    whole = np.bincount(gn.data.load("digits8").y_train[:300], minlength=10)
    assert np.abs(counts - 0.2 * whole).max() < 1
    assert len(run.loader.x) + counts.sum() == 300
    assert len(run.images.test[0]) == 300
    with pytest.raises(ArgumentError, match=r"of each class some images .*got validation 0\.01 of 50"):
        Run({**SMALL, "limit": 50, "validation": 0.01})


def test_only_training_images_are_augmented_and_the_test_is_judged_once(monkeypatch):
    judged: list[Any] = []
    evaluate = Trainer.evaluate

    def counted(self: Trainer, x: Any, *rest: Any, **more: Any) -> Any:
        judged.append(x)
        return evaluate(self, x, *rest, **more)

    monkeypatch.setattr(Trainer, "evaluate", counted)
    run = Run({**SMALL, "augment": "noise=5", "validation": 0.2})
    run.train(verbose=0)
    x = gn.data.load("digits8").x_test
    assert len(judged) == 1
    assert np.array_equal(judged[0], x[:100])
    assert run.images.validation is not None
    assert any(np.array_equal(run.images.validation[0][0], each) for each in gn.data.load("digits8").x_train[:100])
    batch, _ = next(iter(run.loader))
    assert not any(np.array_equal(batch[0], each) for each in run.images.train[0])


def test_regularisation_reaches_the_loss_the_weights_and_the_layers():
    plain = Run({**SMALL, "epochs": 1}).train(verbose=0)
    first = {name: Run({**SMALL, "epochs": 1, name: value}).train(verbose=0)["batch_losses"][0]
             for name, value in (("l1", 0.1), ("l2", 0.1), ("label_smoothing", 0.5))}  # fmt: skip
    assert all(abs(loss - plain["batch_losses"][0]) > 1e-3 for loss in first.values()), first
    run = Run({**SMALL, "max_norm": 0.01})
    run.train(verbose=0)
    norms = np.linalg.norm(run.model.state_dict()["1.weight"].numpy(), axis=1)
    assert norms.max() <= 0.01 * (1 + 1e-6)
    cnn = Run({"model": "reference_cnn", "data": "digits8", "limit": 16, "dropout": 0.25}).model
    assert {each.p for each in cnn.modules() if isinstance(each, nn.Dropout)} == {0.25}
    with pytest.raises(ArgumentError, match="dropout must go with a model that has Dropout layers, got mlp"):
        Run({"model": "mlp", "data": "digits8", "dropout": 0.25})


def test_smoothing_and_penalties_stay_out_of_the_test():
    settings = {**SMALL, "lr": 0.0, "epochs": 1}  # no step changes anything, so that the weights are those at the start
    other = {**settings, "l2": 1.0, "label_smoothing": 0.5}
    plain, penalised = (Run(each).train(verbose=0)["test"] for each in (settings, other))
    assert plain == penalised


def test_softmax_regression_reads_real_digits():
    run = Run({"model": "softmax_regression", "data": "digits8", "epochs": 20})
    assert run.train(verbose=0)["test"]["accuracy"] > 0.94
