"""Training the members of an ensemble, and measuring what they gain by answering together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet import nn, random
from gpunet.data import DataLoader
from gpunet.errors import ArgumentError
from gpunet.modes import no_grad
from gpunet.train import inputs
from gpunet.train.trainer import Trainer


def fit_members(make: Callable[[], Trainer], seeds: Iterable[int], x: Any, y: Any, **options: Any) -> list[Trainer]:
    """Trains one member for each seed: other start weights, another order of the samples, other dropout.

    Args:
        make: builds model, optimizer and trainer anew; called once for each seed, which is set before.
        seeds: for ``gn.manual_seed``; one a member, all different.
        x: samples for ``Trainer.fit``, arrays.
        y: targets.
        options: for ``Trainer.fit``: epochs, batch_size, validation_data, augment, ...

    Returns:
        The trainers, in the order of the seeds: each has ``model`` and ``history``. A member is the same whichever
        others are trained with it, and the random state is afterwards as it was.

    Raises:
        ArgumentError: no seed or one twice, x a DataLoader, or ``make`` gives no Trainer, or the same model again.

    Example:
        >>> import gpunet as gn
        >>> digits = gn.data.load("digits8")
        >>> def make():
        ...     model = gn.nn.SoftmaxRegression(64, 10)
        ...     return Trainer(model, gn.optim.Adam(model.parameters(), lr=0.01), "cross_entropy")
        >>> members = fit_members(make, (0, 1), *digits.train, epochs=2, verbose=0)
        >>> ensemble = gn.nn.Ensemble([each.model for each in members])
        >>> 0.5 < ensemble_gain(ensemble, *digits.test).ensemble < 1
        True
    """
    seeds = list(seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ArgumentError(f"fit_members: seeds must be at least one number, all different, got {seeds}")
    if isinstance(x, DataLoader):
        need = "x must be an array, got a DataLoader, whose order all members would share"
        raise ArgumentError(f"fit_members: {need}; pass x, y and augment")
    before, trainers = random.get_state(), []
    try:
        for seed in seeds:
            random.manual_seed(seed)
            trainer = make()
            if not isinstance(trainer, Trainer) or any(trainer.model is each.model for each in trainers):
                got = "the same model again" if isinstance(trainer, Trainer) else type(trainer).__name__
                raise ArgumentError(f"fit_members: make must give a Trainer with a new model, got {got}")
            trainer.fit(x, y, **options)
            trainers.append(trainer)
    finally:
        random.set_state(before)
    return trainers


@dataclass(frozen=True)
class Gain:
    """What an ensemble gains over its members, in shares of the samples (0.004 is 0.4 points).

    An error is one standard error over the samples: by about so much a gain would differ with as many other samples
    from the same source. It is computed from the differences sample by sample, so it is smaller than the errors of the
    two accuracies would suggest.
    """

    members: tuple[float, ...]
    """Accuracy of each member."""
    ensemble: float
    """Accuracy of the ensemble."""
    over_best: float
    """Gain over the best member, chosen on the same samples, which favours the member."""
    over_best_error: float
    """Its standard error."""
    over_mean: float
    """Gain over the mean of the members: over what one training gives on average."""
    over_mean_error: float
    """Its standard error."""
    samples: int
    """How many samples were judged."""

    @property
    def spread(self) -> float:
        """Standard deviation of the members' accuracies, from one seed to another; NaN for one member."""
        return float(np.std(self.members, ddof=1)) if len(self.members) > 1 else float("nan")

    def __str__(self) -> str:
        def told(gain: float, error: float) -> str:
            return f"{100 * gain:+.1f} ± {100 * error:.1f}"

        best, mean = told(self.over_best, self.over_best_error), told(self.over_mean, self.over_mean_error)
        listed = ", ".join(f"{100 * each:.1f}" for each in self.members)
        spread = (
            f": mean {100 * np.mean(self.members):.1f}, spread {100 * self.spread:.1f}" if len(self.members) > 1 else ""
        )
        head = f"ensemble {100 * self.ensemble:.1f} % of {self.samples:,} right"
        return f"{head}, {best} points over the best member, {mean} over the mean one\nmembers {listed} %{spread}"


def ensemble_gain(ensemble: nn.Ensemble, x: Any, y: Any, batch_size: int = 64) -> Gain:
    """Accuracy of an ensemble and of its members on the same samples, in evaluation mode.

    Args:
        ensemble: the ensemble; modes are afterwards as they were.
        x: samples (N, ...).
        y: labels (N,), integers.
        batch_size: samples at a time.

    Raises:
        ArgumentError: no Ensemble, labels that are no integers or are outside the classes, or no samples.
        ShapeError, DTypeError: as in ``Trainer.evaluate``.
    """
    op = "ensemble_gain"
    if not isinstance(ensemble, nn.Ensemble):
        raise ArgumentError(f"{op}: ensemble must be a gn.nn.Ensemble, got {type(ensemble).__name__}")
    x, y = inputs.pair(op, ensemble, x, y)
    if y.dtype.kind not in "iu" or y.ndim != 1:
        raise ArgumentError(f"{op}: y must be integer labels (N,), got {y.dtype} {y.shape}")
    answers, classes = _answers(ensemble, x, inputs.whole(op, "batch_size", batch_size, 1))
    if not 0 <= y.min() <= y.max() < classes:
        bad = int(y.min()) if y.min() < 0 else int(y.max())
        raise ArgumentError(f"{op}: labels must be 0 to {classes - 1}, got {bad}")
    return gain_of(answers, y)


def gain_of(answers: np.ndarray, y: np.ndarray) -> Gain:
    """What classes chosen together gain over those chosen alone, whoever chose them.

    Args:
        answers: (1 + members, N), classes: row 0 the ensemble's, the others a member's each.
        y: (N,), the right ones.
    """
    right = (answers == y).astype(np.float64)
    own, members = right[0], right[1:]
    accuracies = members.mean(1)
    best, mean = own - members[int(accuracies.argmax())], own - members.mean(0)
    return Gain(
        tuple(map(float, accuracies)), float(own.mean()), float(best.mean()), _error(best), float(mean.mean()),
        _error(mean), len(y),
    )  # fmt: skip


def _answers(ensemble: nn.Ensemble, x: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """The classes that the ensemble (row 0) and its members choose, (1 + members, N); and how many there are."""
    device, dtype = inputs.place(ensemble)
    modes = [(module, module.training) for module in ensemble.modules()]
    found, classes = [], 0
    try:
        ensemble.eval()
        with no_grad():
            for start in range(0, len(x), size):
                outputs = ensemble.member_outputs(inputs.to_tensor(x[start : start + size], device, dtype))
                outputs = [ensemble.combine(outputs), *outputs]
                found.append([device.to_host(each.data).argmax(1) for each in outputs])
                classes = outputs[0].shape[1]
    finally:
        for module, mode in modes:
            module.training = mode
    return np.concatenate(found, axis=1), classes


def _error(differences: np.ndarray) -> float:
    """Standard error of the mean; NaN for one sample."""
    count = len(differences)
    return float(differences.std(ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
