"""What a training run shows: lines, a bar on a terminal, durations."""

from io import StringIO
from typing import Any

import numpy as np

from gpunet import nn, optim
from gpunet.train import Trainer
from gpunet.train.progress import Progress, duration


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
