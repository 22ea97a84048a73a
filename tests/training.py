"""A small task and a trainer for it, for the tests of ``gpunet.train``."""

from typing import Any

import numpy as np

import gpunet as gn
from gpunet import nn, optim
from gpunet.train import Trainer

X = np.random.Generator(np.random.Philox(0)).standard_normal((40, 6)).astype(np.float32)
Y = (X[:, 0] > 0).astype(np.int64) + (X[:, 1] > 0)  # three classes
IMAGES = X[:, :4].reshape(40, 1, 2, 2)


def model(drop: float = 0.0, seed: int = 0) -> Any:
    """Two linear layers with dropout and batch normalisation between them."""
    gn.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(drop), nn.BatchNorm1d(8), nn.Linear(8, 3))


def trainer(net: Any = None, loss: Any = "cross_entropy", lr: float = 0.05, **more: Any) -> Trainer:
    """A trainer of that model, or of another."""
    net = model() if net is None else net
    return Trainer(net, optim.SGD(net.parameters(), lr=lr), loss, **more)


def fit(one: Trainer, *args: Any, **more: Any) -> Any:
    """``one.fit`` on X and Y in batches of 8, silent."""
    run: Any = one.fit
    return run(*(args or (X, Y)), **{"verbose": 0, "batch_size": 8, **more})


def small_cnn() -> Any:
    """A model of images 1 x 2 x 2."""
    return nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 3))


def bits(net: Any) -> dict[str, bytes]:
    """Every parameter and buffer, to be compared bit for bit."""
    return {name: value.data.tobytes() for name, value in net.state_dict().items()}
