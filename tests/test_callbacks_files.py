"""Callbacks that write files: what they look at before the run, and what they keep when a loss is no number."""

import math
from pathlib import Path
from typing import Any

import pytest

from gpunet import io
from gpunet.errors import DataError
from gpunet.train import Callback, CSVLogger, LambdaCallback, ModelCheckpoint
from tests.training import X, Y, bits, fit, model, trainer


@pytest.mark.parametrize("goes_on", [False, True])
def test_other_columns_are_refused_before_the_run(tmp_path, goes_on):
    log, net = tmp_path / "log.csv", model()
    fit(trainer(), epochs=1, callbacks=[CSVLogger(log), ModelCheckpoint(tmp_path / "a")], validation_data=(X, Y))
    log.write_text(log.read_text().replace("val_loss", "judged"))
    more: dict[str, Any] = {"epochs": 2, "validation_data": (X, Y)}
    more |= {"resume": tmp_path / "a"} if goes_on else {}
    logger, before, table = CSVLogger(log, append=not goes_on), bits(net), log.read_text()
    remedy = "use another file$" if goes_on else "use another file, or append=False$"
    with pytest.raises(DataError, match=f"columns epoch, loss, accuracy, val_loss, val_accuracy, .*got .*; {remedy}"):
        fit(trainer(net), callbacks=[logger], **more)
    assert (bits(net), log.read_text()) == (before, table)
    steps: list[int] = []
    own = LambdaCallback(on_batch_end=lambda batch, logs: steps.append(batch))  # it might add names of its own
    with pytest.raises(DataError, match="must have the columns"):
        fit(trainer(net), callbacks=[own, logger], **more)
    assert len(steps) == 5
    fit(trainer(net), callbacks=[CSVLogger(log)], validation_data=(X, Y))  # a new table asks for nothing
    assert "judged" not in log.read_text()


def test_the_same_columns_are_gone_on_with(tmp_path):
    log = tmp_path / "log.csv"
    for _ in range(2):
        fit(trainer(), epochs=1, callbacks=[CSVLogger(log, append=True)], validation_data=(X, Y))
    assert [row.split(",")[0] for row in log.read_text().splitlines()] == ["epoch", "0", "0"]


class Score(Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = [3, 9, 5][epoch]


def test_an_epoch_that_cannot_be_kept_is_not_the_best(tmp_path: Path):
    file = tmp_path / "{epoch}"
    best = ModelCheckpoint(file, "score", save_best_only=True, mode="max")

    def loss(output: Any, target: Any) -> Any:
        return (output * 0).sum() + (math.inf if len(one.history) == 1 else 1.0)

    one = trainer(loss=loss)
    with pytest.warns(RuntimeWarning, match="the loss must be finite for a checkpoint, got inf in epoch 2"):
        fit(one, epochs=3, callbacks=[Score(), best])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["1", "3"]
    assert best.best == 5
    kept = dict(io.load_metadata(tmp_path / "3")["trainer"]["callbacks"])
    assert kept["ModelCheckpoint"] == {"best": 5}
