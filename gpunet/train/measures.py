"""Losses and metrics by name, and their running means over an epoch."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunet import functional
from gpunet.errors import ArgumentError, ShapeError
from gpunet.tensor import Tensor

Measure = Callable[[Any, Any], Any]

#: name -> function of gpunet.functional; looked up when asked for
LOSSES = {
    "cross_entropy": "cross_entropy",
    "nll": "nll_loss",
    "mse": "mse_loss",
    "l1": "l1_loss",
    "binary_cross_entropy": "binary_cross_entropy",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
}


def loss_named(loss: str | Measure) -> Measure:
    """The loss of that name, or ``loss`` itself when it can be called.

    Raises:
        ArgumentError: an unknown name, or neither name nor function.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ArgumentError(f"Trainer: loss must be a function or one of {', '.join(LOSSES)}, got {loss!r}")
    return getattr(functional, LOSSES[loss])


def accuracy(output: Tensor, target: Tensor) -> Any:
    """Share of positions where the largest score along axis 1 is that of the target's class; the first wins a tie."""
    classes = output.shape[1] if output.ndim >= 2 else 1
    if classes < 2 or target.dtype.kind not in "iu" or target.shape != output.shape[:1] + output.shape[2:]:
        problem = "output must be class scores (N, C, ...) and target integer labels (N, ...)"
        got = f"output {output.shape} and target {target.dtype} {target.shape}"
        raise ShapeError(f"accuracy: {problem}, got {got}; for a regression pass metrics=('mae',)")
    return (output.data.argmax(1) == target.data).mean()


def mse(output: Tensor, target: Tensor) -> Any:
    """Mean of the squared differences."""
    difference = _difference("mse", output, target)
    return (difference * difference).mean()


def mae(output: Tensor, target: Tensor) -> Any:
    """Mean of the absolute differences."""
    return abs(_difference("mae", output, target)).mean()


def _difference(name: str, output: Tensor, target: Tensor) -> Any:
    if output.shape != target.shape:  # (N, 1) - (N,) would broadcast to (N, N), a wrong number without a word
        raise ShapeError(f"{name}: output and target must have one shape, got {output.shape} and {target.shape}")
    return output.data - target.data


METRICS: dict[str, Measure] = {"accuracy": accuracy, "mse": mse, "mae": mae}


def metrics_named(metrics: Sequence[str | Measure]) -> dict[str, Measure]:
    """Name -> metric, for names and functions; a function goes by its own name.

    Raises:
        ArgumentError: an unknown name, one that is taken, or neither name nor function.
    """
    if isinstance(metrics, str):
        raise ArgumentError(f"Trainer: metrics must be a list, got the string {metrics!r}; pass ({metrics!r},)")
    table: dict[str, Measure] = {}
    for each in metrics:
        if not callable(each) and each not in METRICS:
            raise ArgumentError(f"Trainer: a metric must be a function or one of {', '.join(METRICS)}, got {each!r}")
        name = each if isinstance(each, str) else getattr(each, "__name__", type(each).__name__)
        if name in table or name == "loss":
            raise ArgumentError(f"Trainer: metrics names must differ, and none be 'loss', got {name!r} again")
        table[name] = METRICS[each] if isinstance(each, str) else each
    return table


class Tally:
    """Means over batches, weighted by their samples. Values stay on the device until somebody reads them."""

    def __init__(self) -> None:
        self._counts: list[int] = []
        self._values: dict[str, list[Any]] = {}

    def add(self, count: int, values: dict[str, Any]) -> None:
        """Takes the values of one batch of ``count`` samples."""
        self._counts.append(count)
        for name, value in values.items():
            self._values.setdefault(name, []).append(value)

    @property
    def samples(self) -> int:
        """Samples so far."""
        return sum(self._counts)

    def last(self) -> dict[str, float]:
        """The values of the last batch."""
        return {name: self._read(name, -1) for name in self._values}

    def all(self, name: str) -> list[float]:
        """One value per batch."""
        return [self._read(name, k) for k in range(len(self._counts))]

    def means(self) -> dict[str, float]:
        """The means so far; summed in float64 in batch order, so that the same batches give the same bits."""
        weights = np.asarray(self._counts, np.float64)
        return {name: float(np.dot(weights, self.all(name)) / weights.sum()) for name in self._values}

    def state_dict(self) -> dict[str, Any]:
        """The batches so far, as plain values."""
        return {"counts": list(self._counts), "values": {name: self.all(name) for name in self._values}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on after these batches."""
        self._counts, self._values = list(state["counts"]), {name: list(each) for name, each in state["values"].items()}

    def _read(self, name: str, position: int) -> float:
        values = self._values[name]
        if type(values[position]) is not float:  # NumPy's own float64 is one too, and prints otherwise
            try:
                values[position] = float(values[position])
            except (TypeError, ValueError):
                raise ArgumentError(f"fit: {name} must be one number for a batch, got {values[position]!r}") from None
        return values[position]
