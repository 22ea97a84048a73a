"""Whole runs of ``gpunet train`` against the same run in PyTorch."""

import importlib
import json
from typing import Any

import numpy as np
import pytest

from gpunet.train.runs import Run

pytest.importorskip("torch", reason='PyTorch is not installed; pip install "gpunet[peers]"')
pytestmark = pytest.mark.peers
training = importlib.import_module("gpunet.bench.peers.training")  # it imports PyTorch
RULE: dict[str, Any] = {"epochs": 3, "lr": 0.01, "weight_decay": 1e-3}


@pytest.mark.parametrize(
    "more", [{"schedule": "cosine"}, {"schedule": "one_cycle", "augment": "clothes"}, {"schedule": "step"}, {}]
)
def test_without_dropout_the_twin_ends_at_the_same_accuracy(more):
    given = {
        "model": "softmax_regression",
        "data": "fashion_mini",
        "epochs": 3,
        "lr": 0.01,
        "weight_decay": 1e-3,
        **more,
    }
    run = Run(given)
    ours = run.train(verbose=0)["test"]["accuracy"]
    assert ours > 0.65
    x, y = run.images.test
    model, epochs = training.theirs(Run(given))
    found = training.probabilities(model, x)
    assert found.sum(1) == pytest.approx(np.ones(len(x)), abs=1e-5)
    assert (found.argmax(1) == y).mean() == pytest.approx(ours, abs=0.002)  # two images of 1,000 near the border
    assert [set(each) for each in epochs] == 3 * [{"loss", "test"}]
    assert epochs[-1]["test"]["accuracy"] == (found.argmax(1) == y).mean()


def test_the_twin_goes_on_training_after_it_was_judged():
    """Judging puts it into evaluation mode, in which running statistics would stand still and nothing be dropped."""
    run = Run({"model": "reference_cnn", "data": "fashion_mini", "epochs": 2, "limit": 130})
    model, epochs = training.theirs(run)
    norms = [each for each in model.modules() if isinstance(each, training.torch.nn.BatchNorm2d)]
    assert [int(each.num_batches_tracked) for each in norms] == 3 * [2 * len(run.loader)]
    assert len(epochs) == 2


def test_the_table_and_the_file(monkeypatch, tmp_path, capsys):
    """Two seeds of a short run: what is printed is what is written, and both libraries' ensembles are judged."""
    given = {"model": "softmax_regression", "data": "fashion_mini", "epochs": 2, "limit": 500}
    monkeypatch.setitem(training.RUNS, "short", given)
    monkeypatch.setenv("COLUMNS", "120")
    assert training.main(["short", "--seeds", "0", "1", "--json", str(tmp_path / "found.json")]) == 0
    told, found = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    assert [each["seed"] for each in found["runs"]] == [0, 1]
    (together,) = found["ensembles"]
    for library in ("gpunet", "torch"):
        first, second = (
            each[library]["test"]["accuracy"] if library == "gpunet" else each[library]["accuracy"]
            for each in found["runs"]
        )
        assert together[library]["members"] == [first, second]
        assert together[library]["ensemble"] == pytest.approx(max(first, second), abs=0.05)
        curves = [each[library]["judged"] for each in found["runs"]]
        assert [curve[-1]["test"]["accuracy"] for curve in curves] == [first, second]
        assert all(curve[1]["loss"] < curve[0]["loss"] for curve in curves)
        assert all(f"{share:.2%}" in told for share in (first, second, together[library]["ensemble"]))
    assert "batch_losses" not in found["runs"][0]["gpunet"]
    assert len(found["runs"][0]["gpunet"]["history"]["loss"]) == 2


def test_an_unknown_run_is_refused(capsys):
    with pytest.raises(SystemExit):
        training.main(["softmax_regresion/fashion"])
    assert "RUN must be one of" in capsys.readouterr().err


def test_every_run_is_one_that_gpunet_train_takes():
    for given in training.RUNS.values():
        assert given["model"] in training.networks.NETWORKS
