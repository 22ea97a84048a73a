"""Runs that end early: Ctrl-C and kill leave whole files with complete rows, whenever they come."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import gpunet
from gpunet import cli
from gpunet.measure import passes, rows
from gpunet.measure.rows import Report

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = json.loads((Path(gpunet.__file__).parent / "measure" / "report.schema.json").read_text())
PATIENCE = 120.0  # seconds for what takes some: other programs may have the cores
GRACE = 30.0  # seconds after Ctrl-C until it is pressed again, as people do

#: moment -> whether a report that is under way has come to it
MOMENTS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "in the proofs": lambda report: bool(report["proofs"]) and "proof" not in report["seconds"],
    "after the first row": lambda report: bool(report["rows"]),
    "in the training": lambda report: "time" in report["seconds"],
}


class Run:
    """``python -m gpunet compare`` in a process of its own."""

    def __init__(self, out: Path):
        self.report = out / "report.json"
        # One op, so that the rows come soon, and a budget that leaves the training much longer than a moment.
        arguments = ["compare", "--budget", "60", "--device", "cpu", "--ops", "relu", "--out", str(out)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpunet", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def wait_for(self, moment: Callable[[dict[str, Any]], bool]) -> None:
        """Reads the report again and again, which must be whole each time, until it has come to a moment."""
        end = time.monotonic() + PATIENCE
        while not (self.report.exists() and moment(json.loads(self.report.read_text()))):
            assert self.process.poll() is None, self.told()
            assert time.monotonic() < end, "the moment did not come"
            time.sleep(0.01)

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        for _ in range(3):
            self.process.send_signal(signal.SIGINT)
            try:
                return self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                continue
        raise AssertionError("Ctrl-C did not end it")

    def told(self) -> str:
        """What it printed, once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.process.kill()
    made.process.communicate()


def need_whole(path: Path) -> dict[str, Any]:
    """The report in a file, valid, not complete, and readable by gpunet itself."""
    report = json.loads(path.read_text())
    jsonschema.validate(report, SCHEMA)
    assert report["complete"] is False
    assert [each.time.n > 0 for each in rows.read(path).rows] == [True] * len(report["rows"])
    return report


@pytest.mark.parametrize(
    "moment", [pytest.param(each, marks=() if each == "in the proofs" else pytest.mark.slow) for each in MOMENTS]
)
def test_ctrl_c_keeps_what_was_finished(run: Run, moment: str):
    run.wait_for(MOMENTS[moment])
    before = json.loads(run.report.read_text())
    status = run.interrupt()
    told = run.told()
    assert "Traceback" not in told
    report = need_whole(run.report)
    assert status == (1 if report["failed"] else 130), told
    assert any(note.startswith("interrupted") for note in report["notes"])
    assert report["rows"][: len(before["rows"])] == before["rows"] or moment != "after the first row"
    assert len(report["rows"]) >= len(before["rows"])
    assert bool(report["rows"]) == (moment != "in the proofs")
    assert run.report.with_name("report.html").read_text().startswith("<!doctype html>")
    assert sorted(each.name for each in run.report.parent.iterdir()) == ["report.html", "report.json"]


@pytest.mark.slow
def test_a_killed_run_leaves_a_whole_report_and_the_next_one_clears_up(run: Run):
    run.wait_for(MOMENTS["after the first row"])
    run.process.kill()
    assert run.process.wait(GRACE) == -signal.SIGKILL
    report = need_whole(run.report)
    assert report["rows"]
    hidden = [each.name for each in run.report.parent.iterdir() if each.name.startswith(".")]
    assert len(hidden) <= 1
    Report().write(run.report)
    assert [each.name for each in run.report.parent.iterdir()] == ["report.json"]


# ---------------------------------------------------------------------------------------------------------- the file


def killed_while_writing(path: Path) -> int:
    """A process that is killed when its temporary file is written and not yet moved; its number."""
    code = (
        "import os, signal, pathlib; from gpunet.measure import rows; "
        "rows.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL); "
        f"rows.write_text(pathlib.Path({str(path)!r}), 'half')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    assert process.wait(PATIENCE) == -signal.SIGKILL
    return process.pid


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path):
    path = tmp_path / "report[1].json"
    path.write_text("old")
    number = killed_while_writing(path)
    left = tmp_path / f".report[1].json.{number}.tmp"
    assert left.read_text() == "half"
    assert path.read_text() == "old"
    others = {tmp_path / f".report[1].json.{os.getppid()}.tmp", tmp_path / ".report2.json.1.tmp", tmp_path / ".x.tmp"}
    for each in others:  # of a process that is running, of another file, of nobody
        each.write_text("theirs")
    rows.write_text(path, "new")
    assert path.read_text() == "new"
    assert set(tmp_path.iterdir()) == {path, *others}


def test_ctrl_c_while_a_file_is_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "report.json"
    path.write_text("old")
    move = os.replace

    def before(*names: Any) -> None:
        raise KeyboardInterrupt

    def after(*names: Any) -> None:
        move(*names)
        raise KeyboardInterrupt

    for text, interrupted, kept in (("half", before, "old"), ("new", after, "new")):
        monkeypatch.setattr(rows.os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rows.write_text(path, text)
        assert path.read_text() == kept
        assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_a_pipe_is_written_to(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "report.json")
    rows.write_text(tmp_path / "link.json", "new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real" / "report.json").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    rows.write_text(tmp_path / "pipe", "new")
    assert os.read(reader, 10) == b"new"
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


# ------------------------------------------------------------------------------------------------------------- bench


def test_bench_keeps_the_rows_that_were_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    real, finished = passes.time_size, []

    def interrupted(*arguments: Any) -> Iterator[Any]:
        for row in real(*arguments):
            finished.append(row.entry)
            yield row
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(passes, "time_size", interrupted)
    monkeypatch.setattr(passes, "MOST_SECONDS", 0.05)
    path = tmp_path / "bench.json"
    status = cli.main(["bench", "relu", "--backend", "numpy", "--device", "cpu", "--json", str(path), "--quiet"])
    assert status == 130
    assert "gpunet: interrupted" in capsys.readouterr().err
    report = need_whole(path)
    assert [each["entry"] for each in report["rows"]] == finished[:1]
    assert any(re.match("interrupted", note) for note in report["notes"])
    assert [each.name for each in tmp_path.iterdir()] == ["bench.json"]
