"""Training the reference CNN on real images, on every device, from the same weights and the same batches.

What is compared is what a user gets: loss curves, accuracy on images the model has not seen, and images a second. Only
the time of the steps counts; reading the data and testing are left out of it. So is the look at held-out images every
few steps, by which the time to a given accuracy is known; nothing is chosen by it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet import config, data, dispatch, nn, optim
from gpunet import functional as F
from gpunet.creation import tensor
from gpunet.devices import Device
from gpunet.measure import calls
from gpunet.measure.charts import png
from gpunet.measure.rows import Agreement, Curve
from gpunet.modes import no_grad

DATA = "fashion_mini"
BATCH = 32
LEARNING_RATE = 1e-3
EARLY = 10  # steps within which two devices must still walk together: later, rounding has grown
TESTED = 100  # images in a batch of the test
SHOWN = 20  # test images whose names the report shows
HELD_OUT, EVERY = 200, 16  # test images that are looked at during training, and steps from one look to the next
#: Share of them to be named rightly, whose time is taken. With seeds 0, 1 and 2 the quick plan of 188 steps gets there
#: after 48 to 64, so a run that the time cuts short mostly does too; 80 % takes 112 steps, and noise moves it by more.
TARGET = 0.75


@dataclass(frozen=True)
class Plan:
    """How much to train."""

    images: int | None
    """Training images, from each class alike; None for all."""
    test_images: int | None
    epochs: int
    seed: int


QUICK, FULL = (None, None, 2), (None, None, 5)  # images, test images, epochs


def plan(full: bool, seed: int) -> Plan:
    """The quick plan, or all images for five epochs."""
    images, test_images, epochs = FULL if full else QUICK
    return Plan(images, test_images, epochs, seed)


def train(
    device: Device,
    backend: str | None,
    todo: Plan,
    left: Callable[[], float],
    step: Callable[[str], None] = lambda detail: None,
) -> Curve:
    """One training run.

    Args:
        device: where to train.
        backend: the backend every kernel must come from; None for the device's own choice.
        todo: how much.
        left: asked after each step for the seconds that are left; the run stops at none.
        step: called with a line of text after each step.
    """
    if backend is not None:
        with config.use_backend(backend):
            return _train(device, f"{device} {backend}", todo, left, step)
    return _train(device, str(device), todo, left, step)


def _train(device: Device, lane: str, todo: Plan, left: Callable[[], float], step: Callable[[str], None]) -> Curve:
    images = data.load(DATA)
    x, y = _spread(*images.train, todo.images)
    with calls.seeded(todo.seed):
        model = nn.ReferenceCNN(num_classes=len(images.classes)).to(device)  # drawn on the host, so alike everywhere
        optimizer = optim.Adam(model.parameters(), lr=LEARNING_RATE)
        loader = data.DataLoader((x, y), BATCH, shuffle=True, seed=todo.seed)
        x_test, y_test = _spread(*images.test, todo.test_images)
        run = _Run(device, model, optimizer, _spread(x_test, y_test, HELD_OUT))
        most = 0.2 * left()  # for the test: the first steps may be slow and tell too little of it
        stopped = _epochs(run, loader, todo.epochs, lambda: left() - min(most, run.testing(len(x_test))), step)
        guesses = predict(model, x_test, device, left)
    x_test, y_test = x_test[: len(guesses)], y_test[: len(guesses)]
    seen = run.seen / len(x)
    return Curve(
        lane=lane,
        device=str(device),
        kernels=run.kernels,
        losses=run.losses,
        accuracy=float((guesses == y_test).mean()),
        epochs=seen,
        batch_size=BATCH,
        train_images=len(x),
        test_images=len(x_test),
        seconds_per_epoch=run.seconds / max(seen, 1e-9),
        images_per_second=run.seen / max(run.seconds, 1e-9),
        stopped=stopped,
        samples=_samples(x_test, y_test, guesses, images.classes),
        reached=run.reached,
        target=TARGET,
        seconds_to_target=seconds_to(run.reached, TARGET),
    )


def seconds_to(reached: Sequence[Sequence[float]], target: float) -> float | None:
    """Seconds of training at the first look that found the target reached; None if none did.

    Args:
        reached: (seconds, share) of each look, in the order of time.
        target: a share.
    """
    return next((seconds for seconds, share in reached if share >= target), None)


def words(curves: Sequence[Curve]) -> list[str]:
    """What a reader should conclude of the time to the target: a line for each target, "not reached" included."""
    lines = []
    for target in dict.fromkeys(each.target for each in curves if each.target is not None):
        told = [
            f"{each.lane} {_seconds(each.seconds_to_target)}"
            for each in curves
            if each.target == target and each.losses
        ]
        if told:
            lines.append(f"to {100 * target:.0f} % right: {', '.join(told)}")
    return lines


def _seconds(value: float | None) -> str:
    return "did not get there" if value is None else f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


class _Run:
    """A model under training, what its steps took, and how it did on held-out images meanwhile."""

    def __init__(
        self, device: Device, model: Any, optimizer: Any, held_out: tuple[np.ndarray, np.ndarray] | None = None
    ) -> None:
        self.device, self.model, self.optimizer, self.held_out = device, model.train(), optimizer, held_out
        self.reached: list[list[float]] = []
        self.losses: list[float] = []
        self.kernels: list[str] = []
        self.seconds = 0.0
        self.seen = 0

    def step(self, x: np.ndarray, y: np.ndarray) -> None:
        """One batch: forward, backward, update. The first one is traced, and its time counts like any other's."""
        begin = time.perf_counter()
        if self.losses:
            loss = self._update(x, y)
        else:
            with dispatch.trace() as launches:
                loss = self._update(x, y)
            self.kernels = sorted({f"{each.entry}/{each.backend}/{each.variant}" for each in launches})
        self.losses.append(float(loss))  # waits for the device
        self.seconds += time.perf_counter() - begin
        self.seen += len(x)

    def look(self) -> None:
        """Notes the share of held-out images named rightly, every so many steps; the clock stands still meanwhile."""
        if self.held_out is None or len(self.losses) % EVERY:
            return
        x, y = self.held_out
        guesses = predict(self.model, x, self.device, lambda: 1.0)
        self.model.train()
        self.reached.append([self.seconds, float((guesses == y).mean())])

    def testing(self, count: int) -> float:
        """Seconds that a forward pass over ``count`` images will take, by what the steps took."""
        return 0.5 * count * self.seconds / max(self.seen, 1)

    def _update(self, x: np.ndarray, y: np.ndarray) -> Any:
        self.optimizer.zero_grad()
        logits = self.model(tensor(x, device=self.device))
        loss = F.cross_entropy(logits, tensor(y, device=self.device))
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def _epochs(run: _Run, loader: Any, epochs: int, left: Callable[[], float], step: Callable[[str], None]) -> str:
    """Trains until all epochs are done, the time is spent or the loss is no number; returns what ended it early."""
    for _ in range(epochs):
        for x, y in loader:
            run.step(x, y)
            run.look()
            step(f"loss {run.losses[-1]:.3f}, {run.seen / run.seconds:.0f} images/s")
            if not np.isfinite(run.losses[-1]):
                return f"the loss became {run.losses[-1]} in step {len(run.losses)}"
            if left() <= 0:
                return f"the time was up after step {len(run.losses)}"
    return ""


def steps(todo: Plan) -> int:
    """How many steps a plan has."""
    images = todo.images or len(data.load(DATA).x_train)
    return -(-images // BATCH) * todo.epochs


def predict(model: Any, x: np.ndarray, device: Device, left: Callable[[], float]) -> np.ndarray:
    """The class with the largest logit, for each image; for the first of them where the time runs out."""
    model.eval()
    found: list[np.ndarray] = []
    with no_grad():
        for start in range(0, len(x), TESTED):
            logits = model(tensor(x[start : start + TESTED], device=device))
            found.append(device.to_host(logits.data).argmax(axis=1))
            if left() <= 0:
                break
    return np.concatenate(found)


def _spread(x: np.ndarray, y: np.ndarray, count: int | None) -> tuple[np.ndarray, np.ndarray]:
    """``count`` of the images, as many from each class as from the others, in the order they have."""
    if count is None or count >= len(y):
        return x, y
    rank = np.empty(len(y), np.int64)  # which image of its class each one is
    for label in np.unique(y):
        mine = np.flatnonzero(y == label)
        rank[mine] = np.arange(len(mine))
    chosen = np.sort(np.argsort(rank, kind="stable")[:count])
    return x[chosen], y[chosen]


def _samples(x: np.ndarray, y: np.ndarray, guesses: np.ndarray, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Images for the report: evenly through the test part, so that the share of wrong ones is not arranged."""
    chosen = np.linspace(0, len(x) - 1, min(SHOWN, len(x))).round().astype(int)
    grey = (x[chosen, 0] * 255).round().astype(np.uint8)
    return [
        {"image": png(image), "true": classes[y[k]], "predicted": classes[guesses[k]]}
        for k, image in zip(chosen, grey, strict=True)
    ]


def agreement(first: Curve, second: Curve) -> Agreement:
    """How far the losses of two runs drift apart, over the steps that both made."""
    count = min(len(first.losses), len(second.losses))
    a, b = (np.array(each.losses[:count], np.float64) for each in (first, second))
    difference = np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-12)
    early = float(difference[:EARLY].max()) if count else 0.0
    return Agreement(first.lane, second.lane, count, early, float(difference.max()) if count else 0.0)
