"""LeNet-5 and the reference CNN in PyTorch, to be trained beside gpunet's from the same weights.

PyTorch is imported with this module, and this module only when somebody asks for it.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

torch: Any = importlib.import_module("torch")
t = torch.nn


def lenet5() -> Any:
    """``gpunet.nn.LeNet5`` with its usual arguments."""
    return t.Sequential(
        t.Conv2d(1, 6, 5, padding=2), t.ReLU(), t.AvgPool2d(2), t.Conv2d(6, 16, 5), t.ReLU(), t.AvgPool2d(2),
        t.Flatten(), t.Linear(400, 120), t.ReLU(), t.Linear(120, 84), t.ReLU(), t.Linear(84, 10),
    )  # fmt: skip


def reference_cnn() -> Any:
    """``gpunet.nn.ReferenceCNN`` with its usual arguments."""

    def block(channels: int, filters: int, drop: float = 0.0) -> list[Any]:
        dropout = [t.Dropout(drop)] if drop else []
        pool = t.MaxPool2d(2, stride=2, ceil_mode=True)
        return [t.Conv2d(channels, filters, 3, padding="same"), t.ReLU(), *dropout, t.BatchNorm2d(filters), pool]

    features = t.Sequential(*block(1, 75), *block(75, 50, drop=0.2), *block(50, 25))
    classifier = t.Sequential(t.Flatten(), t.Linear(400, 512), t.ReLU(), t.Dropout(0.3), t.Linear(512, 10))
    return t.Sequential(features, classifier)


def softmax_regression() -> Any:
    """``gpunet.nn.SoftmaxRegression`` of 28x28 images of ten classes."""
    return t.Sequential(t.Flatten(), t.Linear(784, 10))


NETWORKS = {"lenet5": lenet5, "reference_cnn": reference_cnn, "softmax_regression": softmax_regression}


class Training:
    """A network under training by Adam.

    Args:
        name: of :data:`NETWORKS`.
        state: the arrays of gpunet's ``state_dict``, in its order.
        device: "cpu" or "cuda:N".
        lr: learning rate.
        dropout: False lets dropout pass everything.
    """

    def __init__(self, name: str, state: Sequence[np.ndarray], device: str, lr: float, dropout: bool = True):
        self.device = torch.device(device)
        model = NETWORKS[name]()
        names = list(model.state_dict())
        model.load_state_dict({key: torch.tensor(value) for key, value in zip(names, state, strict=True)})
        for module in model.modules():
            if isinstance(module, t.Dropout) and not dropout:
                module.p = 0.0
        self.model = model.to(self.device).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)

    def step(self, x: np.ndarray, labels: np.ndarray) -> Any:
        """One batch: forward, backward, update; returns the loss before it."""
        self.optimizer.zero_grad()
        logits = self.model(torch.from_numpy(x).to(self.device))
        loss = t.functional.cross_entropy(logits, torch.from_numpy(labels).to(self.device))
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def synchronize(self) -> None:
        """Waits until the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
