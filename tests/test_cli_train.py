"""``gpunet train`` and ``gpunet examples``: options, files of options, curves, going on, and every way to go wrong."""

import csv
import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gpunet import cli, io
from gpunet.train import EarlyStopping, Trainer

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ["train", "--model", "softmax_regression", "--data", "digits8", "--limit", "60"]


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def ran(capsys: Any, *words: str) -> tuple[int, str, str]:
    status = cli.main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


# ------------------------------------------------------------------------------------------------------- train


def test_train_prints_epochs_and_the_test(capsys, tmp_path):
    words = [*TRAIN, "--epochs", "2", "--json", str(tmp_path / "run.json")]
    status, out, _ = ran(capsys, *words)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].startswith("softmax_regression (650 parameters) on digits8 (60 images), cpu: adam, lr 0.01")
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["epoch 1/2", "epoch 2/2", "test"]
    result = json.loads((tmp_path / "run.json").read_text())
    assert result["settings"]["epochs"] == 2
    assert result["test_images"] == 60
    assert f"accuracy {result['test']['accuracy']:.4f}" in lines[-2]
    assert lines[-1] == "no curves drawn; --curves FILE.png draws them, --save FILE does so beside the model"
    assert ran(capsys, *words[:-2], "--quiet") == (0, "", "")


def test_train_goes_on_from_a_file_and_writes_it_on(capsys, tmp_path):
    file = str(tmp_path / "run.safetensors")
    whole = json.loads(ran(capsys, *TRAIN, "--epochs", "3", "--seed", "7", "--json", "-")[1])
    assert ran(capsys, *TRAIN, "--epochs", "1", "--seed", "7", "--save", file)[0] == 0
    assert ran(capsys, "train", "--resume", file, "--epochs", "2", "--quiet") == (0, "", "")
    status, _, err = ran(capsys, "train", "--resume", file, "--epochs", "2")
    assert status == 1
    assert "epochs must be more than what is done already, got 2 with 2 done" in err
    status, out, _ = ran(capsys, "train", "--resume", file, "--epochs", "3", "--json", "-")
    assert status == 0
    assert json.loads(out)["batch_losses"] == whole["batch_losses"]
    status, _, err = ran(capsys, "train", "--resume", file, "--seed", "8")
    assert status == 1
    assert "seed must be that of the run which goes on, 7, got 8" in err


def test_files_that_are_not_there_or_foreign_are_1(capsys, tmp_path):
    status, _, err = ran(capsys, "train", "--resume", str(tmp_path / "none"))
    assert status == 1
    assert err.startswith("gpunet: error: ")
    assert "none" in err
    (tmp_path / "model.pt").write_bytes(b"\x80\x02}q\x00.")
    status, _, err = ran(capsys, "train", "--resume", str(tmp_path / "model.pt"))
    assert status == 1
    assert "Python pickle" in err
    for option in ("--save", "--csv", "--curves"):
        status, out, err = ran(capsys, *TRAIN, "--epochs", "1", option, str(tmp_path / "no" / "file.png"))
        assert (status, out) == (1, "")
        assert err.count("\n") == 1
        assert option[2:] in err


def test_a_run_that_diverges_is_1(capsys):
    status, _, err = ran(capsys, *TRAIN, "--epochs", "3", "--optimizer", "sgd", "--lr", "1e38", "--quiet")
    assert status == 1
    assert "gpunet: error: train: the loss is" in err
    assert "try a lower --lr" in err


def test_a_full_disk_is_1_and_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    file, calls, save = tmp_path / "run.safetensors", [], io.save

    def full(*args: Any, **more: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args, **more)

    monkeypatch.setattr(io, "save", full)
    status, _, err = ran(capsys, *TRAIN, "--epochs", "3", "--save", str(file), "--quiet")
    assert status == 1
    told = f"No space left on device; {file} holds 1 of 3 epochs; go on with: gpunet train --resume {file}\n"
    assert err.endswith(told)
    status, out, _ = ran(capsys, "train", "--resume", str(file), "--json", "-")
    assert (status, json.loads(out)["epochs"]) == (0, [0, 1, 2])


def test_a_step_that_does_not_fit_into_memory_is_1_with_the_remedy(capsys, monkeypatch):
    def full(*args: Any, **more: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Trainer, "fit", full)
    status, _, err = ran(capsys, *TRAIN, "--optimizer", "gd", "--quiet")
    assert status == 1
    assert "must fit into memory, got 60 images; lower --batch-size, or take sgd in place of gd" in err


def test_early_stopping_is_told_and_is_no_error(capsys):
    words = [*TRAIN, "--limit", "200", "--epochs", "50", "--lr", "1", "--early-stop", "1", "--validation", "0.3"]
    status, out, err = ran(capsys, *words)
    assert (status, err) == (0, "")
    told, best, test, _ = out.splitlines()[-4:]
    assert told.startswith("ended early: val_loss has not improved since epoch ")
    assert best == f"the weights are those of epoch {told.split()[-1]}, the best by val_loss"
    assert test.startswith("test  loss ")


def test_the_curves_lie_beside_the_checkpoint_or_where_they_are_wanted(capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: plot)")
    status, out, _ = ran(capsys, *TRAIN, "--epochs", "2", "--save", str(tmp_path / "run.safetensors"))
    assert status == 0
    assert out.splitlines()[-1] == f"{tmp_path / 'run.png'} written"
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    assert ran(capsys, *TRAIN, "--epochs", "1", "--curves", str(tmp_path / "other.svg"), "--quiet")[0] == 0
    assert "<svg" in (tmp_path / "other.svg").read_text()
    status, _, err = ran(capsys, *TRAIN, "--epochs", "1", "--curves", str(tmp_path / "curves.bmp"))
    assert status == 1
    assert "must end in .png, .svg, .pdf" in err


def test_without_matplotlib_a_run_is_told_so_once_and_refused_only_where_curves_were_asked_for(
    capsys, tmp_path, monkeypatch
):
    found = cli.train.importlib.util.find_spec
    monkeypatch.setattr(
        cli.train.importlib.util, "find_spec", lambda name, *more: None if name == "matplotlib" else found(name, *more)
    )
    words = [*TRAIN, "--epochs", "1"]
    status, out, err = ran(capsys, *words, "--save", str(tmp_path / "run.safetensors"))
    assert status == 0
    assert err == "gpunet: note: no curves are drawn without matplotlib; pip install 'gpunet[plot]'\n"
    assert "run.png" not in out
    assert ran(capsys, *words)[2] == ""
    assert "no curves drawn" not in out
    assert ran(capsys, *words, "--save", str(tmp_path / "run.safetensors"), "--quiet") == (0, "", "")
    status, out, err = ran(capsys, *words, "--curves", str(tmp_path / "curves.png"))
    assert (status, out) == (1, "")
    assert "matplotlib must be installed for curves, got none; pip install 'gpunet[plot]'" in err


def test_train_writes_a_line_for_each_epoch(capsys, tmp_path):
    table = tmp_path / "run.csv"
    assert ran(capsys, *TRAIN, "--epochs", "2", "--validation", "0.2", "--limit", "100", "--csv", str(table))[0] == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"} <= set(rows[0])


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is POSIX")
@pytest.mark.parametrize("saved", [False, True])
def test_ctrl_c_in_training_ends_with_130_and_says_how_to_go_on(capsys, tmp_path, saved):
    file = tmp_path / "a run.safetensors"
    command = [sys.executable, "-u", "-m", "gpunet", *TRAIN, "--epochs", "100000"]
    command += ["--save", str(file)] if saved else []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(4):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    if not saved:
        assert err == "gpunet: interrupted; nothing is kept of it without --save FILE\n"
        return
    told = re.search(r"gpunet: interrupted; (.+) holds (\d+) of 100000 epochs; go on with: gpunet (.*)\n", err)
    assert told, err
    assert told[1] == str(file)
    epochs = int(told[2])
    assert epochs >= 2
    words = shlex.split(told[3])
    assert words == ["train", "--resume", str(file)]
    result = json.loads(ran(capsys, *words, "--epochs", str(epochs + 2), "--json", "-")[1])
    assert result["epochs"] == list(range(epochs + 2))


def pressed(monkeypatch: Any, epoch: int) -> None:
    """Ctrl-C before the first batch of that epoch."""
    begin = EarlyStopping.on_batch_begin

    def press(self: Any, batch: int, logs: Any = None) -> None:
        if len(self.trainer.history) == epoch:
            raise KeyboardInterrupt
        begin(self, batch, logs)

    monkeypatch.setattr(EarlyStopping, "on_batch_begin", press)


def test_ctrl_c_in_the_first_epoch_of_a_run_that_goes_on_names_the_file_that_has_it(capsys, tmp_path, monkeypatch):
    words = [*TRAIN, "--early-stop", "9", "--validation", "0.5", "--quiet"]
    file, other = str(tmp_path / "a run"), str(tmp_path / "other")
    assert ran(capsys, *words, "--epochs", "2", "--save", file)[0] == 0
    pressed(monkeypatch, 2)
    status, _, err = ran(capsys, "train", "--quiet", "--resume", file, "--epochs", "3")
    told = f"gpunet: interrupted; {file} holds 2 of 3 epochs; go on with: gpunet train --resume '{file}' --epochs 3"
    assert (status, err) == (130, f"{told}\n")
    status, _, err = ran(capsys, "train", "--quiet", "--resume", file, "--epochs", "3", "--save", other)
    assert (status, err) == (130, f"{told} --save {other}\n")
    monkeypatch.undo()
    told = shlex.split(err.partition("go on with: gpunet ")[2])
    assert json.loads(ran(capsys, *told, "--json", "-")[1])["epochs"] == [0, 1, 2]
    assert ran(capsys, "train", "--resume", other)[2].endswith(
        "got 3 with 3 done in '" + other + "'; ask for more epochs\n"
    )


def test_a_disk_that_is_full_after_the_last_epoch_is_1_and_the_command_told_brings_the_test(
    capsys, tmp_path, monkeypatch
):
    words = [*TRAIN, "--limit", "200", "--epochs", "8", "--lr", "1", "--early-stop", "50", "--validation", "0.3"]
    file, save = str(tmp_path / "run"), Trainer.save
    whole = json.loads(ran(capsys, *words, "--json", "-")[1])

    def full(self: Any, path: Any, **metadata: Any) -> None:
        if metadata["ended"] is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, **metadata)

    monkeypatch.setattr(Trainer, "save", full)
    status, _, err = ran(capsys, *words, "--save", file, "--quiet")
    assert status == 1
    command = f"gpunet train --resume {file}"
    assert err.endswith(f"; {file} holds all epochs; put the best weights in and test them with: {command}\n")
    monkeypatch.undo()
    result = json.loads(ran(capsys, *shlex.split(command)[1:], "--json", "-")[1])
    assert (result["test"], result["best_epoch"]) == (whole["test"], whole["best_epoch"])


def test_ctrl_c_in_the_test_says_that_the_rest_is_kept(capsys, tmp_path, monkeypatch):
    def press(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "evaluate", press)
    told = f"gpunet: interrupted; {tmp_path / 'run'} holds all of it but the test\n"
    stopped = ["--limit", "200", "--epochs", "50", "--lr", "1", "--early-stop", "1", "--validation", "0.3"]
    for more in (["--epochs", "1"], stopped):
        assert ran(capsys, *TRAIN, *more, "--save", str(tmp_path / "run"), "--quiet") == (130, "", told)


def test_the_help_says_when_curves_are_drawn(capsys):
    status, out, _ = ran(capsys, "train", "--help")
    assert status == 0
    assert "a png beside the file of --save or --resume, and with none of the three nothing" in " ".join(out.split())


# ------------------------------------------------------------------------------------------------------- settings


def test_a_printed_config_repeats_the_run(capsys, tmp_path):
    words = [*TRAIN, "--epochs", "3", "--optimizer", "nesterov", "--schedule", "cosine"]
    words += [
        "--augment",
        "shift=0.1,noise=0.1",
        "--early-stop",
        "2",
        "--validation",
        "0.2",
        "--limit",
        "100",
        "--seed",
        "3",
    ]
    status, text, _ = ran(capsys, *words, "--print-config")
    assert status == 0
    assert 'augment = "shift=0.1,noise=0.1"\n' in text
    assert "early-stop = 2\n" in text
    assert "learning" not in text
    file = tmp_path / "run.toml"
    file.write_text(text)
    first, second = (
        json.loads(ran(capsys, *each, "--json", "-")[1]) for each in (words, ["train", "--config", str(file)])
    )
    assert first["settings"] == second["settings"]
    assert first["batch_losses"] == second["batch_losses"]
    assert ran(capsys, "train", "--config", str(file), "--print-config")[1] == text


def test_the_command_line_wins_over_the_file(capsys, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('data = "digits8"  # real digits\nepochs = 9\nbatch_size = 8\nlr = 1\nsave = "a.safetensors"\n')
    out = ran(capsys, "train", "--config", str(file), "--epochs", "2", "--print-config")[1]
    assert {"epochs = 2", "batch-size = 8", "lr = 1.0", 'data = "digits8"', 'save = "a.safetensors"'} <= set(
        out.splitlines()
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 5", "a name must be that of an option, got 'epoch'; did you mean epochs?"),
        ("batchsize = 5", "got 'batchsize'; did you mean batch-size?"),
        ("xyzzy = 5", "got 'xyzzy'; the names are model, data, "),
        ("[train]\nepochs = 5", "got 'train'"),
        ("batch-size = 5\nbatch_size = 6", "batch-size must be set once, got it twice"),
        ("epochs = ", "must be a TOML file, got: "),
        ("epochs = 0", "epochs must be a whole number of at least 1, got 0; in config"),
        ("epochs = '5'", "epochs must be a whole number of at least 1, got '5'; in config"),
        ("lr = true", "lr must be a number of at least 0, got True; in config"),
        ("model = 'vgg'", "model must be one of reference_cnn, "),
        ("schedule = 'slow'", "schedule must be one of none, cosine, "),
        ("save = 3", "save must be the name of a file, got 3; in config"),
        ("save = 'a'\ncsv = './a'", "save, curves and csv must be different files, got "),
    ],
)
def test_a_wrong_config_is_2_with_name_and_remedy(capsys, tmp_path, text, message):
    (tmp_path / "run.toml").write_text(text)
    status, out, err = ran(capsys, "train", "--config", str(tmp_path / "run.toml"))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err


def test_a_config_that_is_not_there_is_1(capsys, tmp_path):
    status, _, err = ran(capsys, "train", "--config", str(tmp_path / "none.toml"))
    assert status == 1
    assert "none.toml" in err


# ------------------------------------------------------------------------------------------------------- examples


def test_the_examples_are_listed_and_found(capsys):
    status, out, _ = ran(capsys, "examples")
    assert status == 0
    names = [line.split()[0] for line in out.splitlines() if line and not line.startswith(("run one", "read one"))]
    files = sorted((ROOT / "gpunet/examples").glob("[a-z]*.py"))
    assert names == [file.stem for file in files]
    assert "linear_regression" in names
    told = json.loads(ran(capsys, "examples", "--json", "-")[1])
    for each in told:
        assert each["purpose"].endswith((".", "?", "!")), each
        assert each["run"] == f"python -m gpunet.examples.{each['name']}"
    assert ran(capsys, "examples", "own_op")[1] == f"{ROOT / 'gpunet/examples/own_op.py'}\n"
    status, _, err = ran(capsys, "examples", "own_opp")
    assert status == 2
    assert "NAME must be one of " in err
