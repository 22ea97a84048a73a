"""Long training keeps nothing: no graph nodes, no tensors, no memory, step after step."""

import gc
from pathlib import Path

import numpy as np
import pytest

import gpunet as gn
from gpunet import nn, optim
from gpunet.graph import Function

STATUS = Path("/proc/self/status")
STEPS, SAMPLES = 2000, 10


def resident() -> int:
    """Resident memory in bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def alive(kind: type) -> int:
    return sum(issubclass(type(each), kind) for each in gc.get_objects())  # isinstance would wake lazy modules


class Training:
    """A small CNN with every kind of layer that keeps something, and an optimizer with state."""

    def __init__(self) -> None:
        self.model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding="same"),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.BatchNorm2d(4),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Flatten(),
            nn.Linear(64, 3),
        )
        self.optimizer = optim.Adam(self.model.parameters(), lr=1e-3)
        self.schedule = optim.lr_scheduler.ExponentialLR(self.optimizer, 0.999)
        self.loss = nn.CrossEntropyLoss()
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((64, 1, 8, 8)).astype(np.float32)
        self.t = rng.integers(0, 3, 64)

    def run(self, steps: int) -> None:
        for k in range(steps):
            rows = slice(k % 8 * 8, k % 8 * 8 + 8)
            loss = self.loss(self.model(gn.tensor(self.x[rows])), gn.tensor(self.t[rows]))
            self.optimizer.zero_grad()
            loss.backward()
            optim.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()


def test_two_thousand_steps_keep_no_graph_and_no_memory():
    training = Training()
    training.run(100)  # caches and pools are filled now
    gc.collect()
    others = alive(Function)  # what earlier tests hold
    nodes, tensors, memory = [], [], []
    for _ in range(SAMPLES):
        training.run(STEPS // SAMPLES)
        gc.collect()
        nodes.append(alive(Function))
        tensors.append(alive(gn.Tensor))
        memory.append(resident() if STATUS.exists() else 0)
    assert nodes == [others] * SAMPLES
    assert tensors == tensors[:1] * SAMPLES
    # One step's graph holds some 100 KiB. The median slope between any two samples does not see the allocator taking
    # one more piece from the system, and sees every leak that goes on.
    pairs = [(a, b) for b in range(SAMPLES) for a in range(b)]
    slope = np.median([(memory[b] - memory[a]) / (b - a) for a, b in pairs]) / (STEPS // SAMPLES)
    assert slope < 200, f"resident memory grows by {slope:.0f} bytes a step: {memory}"


def test_graph_goes_without_the_collector():
    training = Training()
    training.run(2)
    gc.collect()
    gc.disable()
    try:
        before = alive(Function)
        training.run(20)
        assert alive(Function) == before  # nodes are in no reference cycle: a step's memory is free when it ends
    finally:
        gc.enable()


def test_forward_that_is_never_differentiated_keeps_nothing():
    training = Training()
    x = gn.tensor(training.x[:8])
    gc.collect()
    before = alive(Function)
    y = training.model(x)
    assert alive(Function) > before
    del y
    gc.collect()
    assert alive(Function) == before


def test_loss_kept_after_backward_holds_no_saved_values():
    w = gn.ones(10_007, requires_grad=True)
    kept = []
    for _ in range(3):
        loss = (w.exp() * w).sum()
        loss.backward()
        kept.append(loss)
    gc.collect()
    big = [each for each in gc.get_objects() if issubclass(type(each), gn.Tensor) and each.numel() == 10_007]
    assert {id(each) for each in big} == {id(w), id(w.grad)}
    with pytest.raises(gn.errors.GraphError, match="already used and freed"):
        kept[0].backward()
