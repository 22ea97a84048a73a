"""Ending a run early: when a number no longer improves, or is no number any more."""

import math
import warnings
from typing import Any

from gpunet.ops.checks import need_number, whole
from gpunet.train.callbacks.base import Callback, Logs
from gpunet.train.callbacks.monitor import Monitor


class EarlyStopping(Monitor):
    """Ends the run when a number has not improved for ``patience`` epochs.

    Args:
        monitor: name of the number: "loss", a metric, or one of these with "val_".
        min_delta: how much larger than this a change must be to count as an improvement.
        patience: epochs without improvement after which the run ends; 0 and 1 both end it at the first one.
        verbose: 1 prints a line when it ends the run or puts weights back.
        mode: "min", "max", or "auto" to tell by the name.
        baseline: the run also ends when for ``patience`` epochs nothing was better than this.
        restore_best_weights: whether the model has the weights (and running statistics) of the best epoch afterwards,
            however the run ended; with an error it keeps those it has.
        start_from_epoch: epochs at the beginning that are not looked at.

    Attributes:
        best: the best value so far, or None.
        best_epoch: number of its epoch, from 0.
        stopped_epoch: number of the epoch after which the run was ended; 0 also when it was not.

    Raises:
        ArgumentError: a number out of range, or a mode that cannot be told. In ``fit``: a monitor that is not measured,
            before the run if all callbacks are gpunet's own, else after its first epoch.

    Example:
        >>> import gpunet as gn
        >>> from gpunet.train import EarlyStopping, Trainer
        >>> model = gn.nn.Linear(2, 1)
        >>> trainer = Trainer(model, gn.optim.SGD(model.parameters(), lr=0.0), "mse", metrics=())
        >>> stop = EarlyStopping("loss", patience=3)
        >>> history = trainer.fit(gn.ones(8, 2), gn.ones(8, 1), epochs=100, callbacks=[stop], verbose=0)
        >>> len(history), history.stopped
        (4, 'loss has not improved since epoch 1')
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = whole("EarlyStopping", "patience", patience, 0)
        self.start_from_epoch = whole("EarlyStopping", "start_from_epoch", start_from_epoch, 0)
        self.baseline = None if baseline is None else need_number("EarlyStopping", "baseline", baseline)
        self.restore_best_weights, self.verbose = restore_best_weights, verbose
        self.on_train_begin()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets an earlier run."""
        self.best: float | None = None
        self.best_epoch = self.stopped_epoch = self._wait = 0
        self._weights: dict[str, Any] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Looks at the number, keeps the weights if it is the best, and ends the run if it is time."""
        value = self._value(logs)
        if epoch < self.start_from_epoch:
            return
        better = self._better(value, self.best)
        if better:
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:  # copies, where they are: on a GPU they stay there
                self._weights = {name: each.data.copy() for name, each in self.model.state_dict().items()}
        if better and (self.baseline is None or self._better(value, self.baseline)):
            self._wait = 0
            return
        self._wait += 1
        if self._is_over():
            self.stopped_epoch = epoch
            self._stop()

    def _is_over(self) -> bool:
        return self._wait >= max(self.patience, 1)

    def _stop(self) -> None:
        since = "epoch 1" if self.best is None else f"epoch {self.best_epoch + 1}"
        bar = "" if self.baseline is None else f" or is not better than {self.baseline:g}"
        self.trainer.stop(f"{self.monitor} has not improved since {since}{bar}")

    def on_train_end(self, logs: Logs = None) -> None:
        """Puts the best weights back."""
        if self.verbose and self._is_over():
            self.trainer.say(f"epoch {self.stopped_epoch + 1}: early stopping")
        if self._weights is not None:
            self.model.load_state_dict(self._weights)
            if self.verbose:
                self.trainer.say(f"weights of epoch {self.best_epoch + 1} restored")

    def state_dict(self) -> dict[str, Any]:
        """The best value, its epoch and weights, and how long ago it was."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "stopped_epoch": self.stopped_epoch,
            "wait": self._wait,
            "weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there; a run that was ended stays so unless it is given more patience now."""
        self.best, self.best_epoch, self._wait = state["best"], state["best_epoch"], state["wait"]
        self._weights = state["weights"] if self.restore_best_weights else None
        self.stopped_epoch = state["stopped_epoch"]
        if self._is_over():
            self._stop()


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
