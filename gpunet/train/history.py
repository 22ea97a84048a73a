"""What a training run leaves behind."""

from typing import Any


class History:
    """The numbers of one ``fit``.

    Attributes:
        history: name ("loss", "accuracy", "val_loss", ...) -> one float an epoch.
        epochs: the numbers of the epochs that ran, from 0.
        seconds: duration of each epoch, its validation included.
        batch_losses: loss of every batch of every epoch, in order.
        learning_rates: the rate each epoch ended with, of the optimiser's first group; None where it has none.
        stopped: why training ended before its last epoch, or None when it did not.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epochs: list[int] = []
        self.seconds: list[float] = []
        self.batch_losses: list[float] = []
        self.learning_rates: list[float | None] = []
        self.stopped: str | None = None

    def add(self, epoch: int, seconds: float, logs: dict[str, float], losses: list[float], rate: float | None) -> None:
        """Appends one epoch: its logs, the loss of each of its batches, and its learning rate."""
        self.epochs.append(epoch)
        self.seconds.append(seconds)
        self.batch_losses += losses
        self.learning_rates.append(rate)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    @property
    def last(self) -> dict[str, float]:
        """The values of the last epoch; empty before the first."""
        return {name: values[-1] for name, values in self.history.items()}

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {
            "history": self.history,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "batch_losses": self.batch_losses,
            "learning_rates": self.learning_rates,
            "stopped": self.stopped,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "History":
        """The history that :meth:`as_dict` was asked of."""
        new = cls()
        new.__dict__.update({name: values[name] for name in new.__dict__})
        return new

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value:.4f}" for name, value in self.last.items())
        return f"History({len(self)} epochs in {sum(self.seconds):.1f} s{': ' if values else ''}{values})"
