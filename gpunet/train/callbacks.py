"""Callbacks: what ``fit`` calls before and after the run, each epoch and each batch."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError

if TYPE_CHECKING:
    from gpunet.train.trainer import Trainer

Logs = Any  # dict[str, float], or None; Any spares every override a check for None
MOMENTS = ("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end")


class Callback:
    """Base class: override what you need, and give an instance to ``fit(callbacks=[...])``.

    Inside the methods ``self.trainer`` and ``self.model`` are those of the run. ``self.trainer.stop("why")``, or
    Keras' ``self.trainer.stop_training = True``, ends the run after the batch under way; its epoch is still validated
    and recorded.

    Example:
        >>> class Best(Callback):
        ...     best = float("inf")
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.best = min(self.best, logs["loss"])
    """

    trainer: "Trainer"

    @property
    def model(self) -> Any:
        """The model being trained."""
        return self.trainer.model

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After the last epoch; ``logs`` are those of that epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before epoch number ``epoch``, from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch and its validation; ``logs`` has "loss", the metrics, and both again with "val_"."""

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before batch number ``batch`` of the epoch, from 0."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After the weights took their step; ``logs`` has the loss and metrics of this batch alone."""


class LambdaCallback(Callback):
    """A callback out of plain functions.

    Args:
        functions: any of on_train_begin(logs), on_train_end(logs), on_epoch_begin(epoch, logs),
            on_epoch_end(epoch, logs), on_batch_begin(batch, logs), on_batch_end(batch, logs).

    Raises:
        ArgumentError: another name, or something that cannot be called.

    Example:
        >>> losses = []
        >>> callback = LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    """

    def __init__(self, **functions: Callable[..., Any] | None) -> None:
        for name, function in functions.items():
            if name not in MOMENTS:
                raise ArgumentError(f"LambdaCallback: must be one of {', '.join(MOMENTS)}, got {name!r}")
            if function is not None and not callable(function):
                raise ArgumentError(f"LambdaCallback: {name} must be a function, got {function!r}")
            if function is not None:
                setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Ends the run at the first batch whose loss is NaN or infinite, and warns (RuntimeWarning) which one it was."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remembers the epoch for the message."""
        self.epoch = epoch

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Looks at the batch's loss."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            reason = f"the loss is {loss} in epoch {self.epoch + 1}, batch {batch + 1}"
            remedy = "lower the learning rate, clip gradients, or look for the op with gn.detect_anomaly()"
            warnings.warn(f"fit: {reason}, training ends here; {remedy}", RuntimeWarning, stacklevel=2)
            self.trainer.stop(reason)


class Callbacks:
    """Several callbacks as one, called in the order they were given."""

    def __init__(self, callbacks: Sequence[Callback], trainer: "Trainer") -> None:
        for each in callbacks:
            if not isinstance(each, Callback):
                raise ArgumentError(f"fit: callbacks must be gpunet.train.Callback instances, got {each!r}")
            each.trainer = trainer
        self.table = {moment: [getattr(each, moment) for each in callbacks if _has(each, moment)] for moment in MOMENTS}

    def wants(self, moment: str) -> bool:
        """Whether any callback does something then; reading a loss waits for the device, so it is asked first."""
        return bool(self.table[moment])

    def call(self, moment: str, *args: Any) -> None:
        """Calls that moment's methods."""
        for method in self.table[moment]:
            method(*args)


def _has(callback: Callback, moment: str) -> bool:
    return moment in vars(callback) or getattr(type(callback), moment) is not getattr(Callback, moment)
