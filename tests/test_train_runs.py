"""What a training run shows, and runs by name: recipes, checkpoints after each epoch, and going on from them."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import nn, optim
from gpunet.errors import ArgumentError, DataError
from gpunet.io import save
from gpunet.train import Trainer, recipes
from gpunet.train.progress import Progress, duration

# ------------------------------------------------------------------------------------------------------- display


class Screen(StringIO):
    def isatty(self) -> bool:
        return True


def drive(stream: Any, verbose: int, seconds: float) -> str:
    """Four batches of 25 images, each of a quarter of the seconds."""
    now = [0.0]
    with Progress(50, (0, 2), "images", verbose, stream, lambda: now[0]) as display:
        for epoch in range(2):
            for _ in range(2):
                now[0] += seconds / 4
                display.batch(epoch, 25, lambda: {"loss": 0.5})
            display.epoch(epoch, seconds / 2, 100 / seconds, {"loss": 0.5, "accuracy": 0.75})
    return stream.getvalue()


def test_lines_are_plain_where_there_is_no_terminal(capsys):
    expected = "epoch 1/2  loss 0.5000  accuracy 0.7500  4.0 s  12 images/s\n"
    assert drive(StringIO(), 1, 8.0).startswith(expected)
    assert drive(Screen(), 1, 1.0).startswith("epoch 1/2  loss 0.5000  accuracy 0.7500  0.5 s  100 images/s\n")
    assert drive(Screen(), 2, 8.0).startswith(expected)
    assert drive(Screen(), 0, 8.0) == ""
    assert "\x1b" not in drive(StringIO(), 1, 8.0)


def test_a_long_run_on_a_terminal_has_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    text = drive(Screen(), 1, 8.0)
    assert "12 images/s" in text
    assert "2 s left" in text
    assert "loss 0.5000" in text
    assert "epoch 2/2  loss 0.5000  accuracy 0.7500  4.0 s" in text
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38" not in drive(Screen(), 1, 8.0)
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in drive(Screen(), 1, 8.0)


def test_fit_prints_a_line_an_epoch(capsys):
    net = nn.Linear(6, 3)
    one = Trainer(net, optim.SGD(net.parameters(), lr=0.1), "cross_entropy")
    x, y = np.ones((40, 6), np.float32), np.arange(40) % 3
    one.fit(x, y, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2  loss ")
    assert lines[1].endswith("samples/s")
    one.fit(x, y, verbose=0)
    assert capsys.readouterr().out == ""


def test_durations():
    told = ["0 s", "59 s", "1 min 01 s", "1 h 00 min", "2 h 05 min"]
    assert [duration(each) for each in (0.4, 59, 61, 3600, 7500)] == told


# ------------------------------------------------------------------------------------------------------- recipes

SMALL = {"model": "softmax_regression", "data": "digits8", "epochs": 4, "limit": 100}


def test_a_run_goes_on_where_it_stopped(tmp_path):
    whole = recipes.Run(SMALL, save=tmp_path / "whole").train(verbose=0)
    recipes.Run({**SMALL, "epochs": 2}, save=tmp_path / "half").train(verbose=0)
    gn.manual_seed(99)
    rest = recipes.Run({"epochs": 4}, save=tmp_path / "half", resume=tmp_path / "half").train(verbose=0)
    assert rest["batch_losses"] == whole["batch_losses"]
    assert rest["history"] == whole["history"]
    assert rest["test"] == whole["test"]
    assert rest["epochs"] == [0, 1, 2, 3]
    with pytest.raises(ArgumentError, match="epochs must be more than what is done already, got 4 with 4 done"):
        recipes.Run({}, resume=tmp_path / "half")


def test_dropout_and_batch_norm_go_on_too(tmp_path):
    cnn = {"model": "reference_cnn", "data": "digits8", "limit": 16, "batch_size": 8}
    whole = recipes.Run({**cnn, "epochs": 2}).train(verbose=0)
    recipes.Run({**cnn, "epochs": 1}, save=tmp_path / "a").train(verbose=0)
    assert recipes.Run({"epochs": 2}, resume=tmp_path / "a").train(verbose=0)["batch_losses"] == whole["batch_losses"]


def test_a_run_refuses_what_contradicts_its_checkpoint(tmp_path):
    recipes.Run({**SMALL, "epochs": 1}, save=tmp_path / "a").train(verbose=0)
    with pytest.raises(ArgumentError, match=r"lr must be that of the run which goes on, 0\.01, got 0\.5; leave"):
        recipes.Run({"lr": 0.5, "epochs": 2}, resume=tmp_path / "a")
    save(tmp_path / "b", nn.Linear(2, 2))
    with pytest.raises(DataError, match="must be a checkpoint of a training run"):
        recipes.Run({}, resume=tmp_path / "b")
    for name in ("model", "data", "optimizer"):
        with pytest.raises(ArgumentError, match=f"train: {name} must be one of .*got 'nope'"):
            recipes.Run({name: "nope"})


def test_a_run_that_diverges_says_so_and_keeps_the_last_good_file(tmp_path):
    recipes.Run({**SMALL, "epochs": 1}, save=tmp_path / "a").train(verbose=0)
    before = Path(tmp_path / "a").read_bytes()
    run = recipes.Run({**SMALL, "epochs": 2, "optimizer": "sgd", "lr": 1e38}, save=tmp_path / "a")
    result = run.train(verbose=0)
    assert "the loss is" in result["stopped"]
    assert Path(tmp_path / "a").read_bytes() == before


def test_softmax_regression_reads_real_digits():
    run = recipes.Run({"model": "softmax_regression", "data": "digits8", "epochs": 20})
    assert run.train(verbose=0)["test"]["accuracy"] > 0.94
