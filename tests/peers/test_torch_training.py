"""Whole runs of ``gpunet train`` against the same run in PyTorch."""

import importlib
from typing import Any

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
    ours = Run(given).train(verbose=0)["test"]["accuracy"]
    assert ours > 0.65
    assert training.theirs(Run(given)) == pytest.approx(ours, abs=0.002)  # two images of 1,000 near the border


def test_every_run_is_one_that_gpunet_train_takes():
    for given in training.RUNS.values():
        assert given["model"] in training.networks.NETWORKS
