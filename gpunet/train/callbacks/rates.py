"""Changing the learning rate: by a schedule, or when a number no longer improves."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.errors import ArgumentError
from gpunet.ops.checks import need_number, one_of, whole
from gpunet.optim import lr_scheduler
from gpunet.train.callbacks.base import Callback, Logs
from gpunet.train.callbacks.monitor import Monitor

Schedule = Callable[..., float]


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by ``factor`` when a number has not improved for ``patience`` epochs.

    Args:
        monitor: name of the number: "loss", a metric, or one of these with "val_".
        factor: what each group's rate is multiplied by, from 0 to below 1.
        patience: epochs without improvement after which the rate falls.
        verbose: 1 prints a line when it does.
        mode: "min", "max", or "auto" to tell by the name.
        min_delta: how much larger than this a change must be to count as an improvement.
        cooldown: epochs after a reduction in which nothing counts as bad.
        min_lr: the lowest rate.

    Attributes:
        best: the best value so far, or None.

    Raises:
        ArgumentError: a number out of range, or a mode that cannot be told. In ``fit``: a monitor that is not measured,
            before the run if all callbacks are gpunet's own, else after its first epoch; an optimiser without
            ``param_groups``.

    Example:
        >>> import gpunet as gn
        >>> from gpunet.train import ReduceLROnPlateau, Trainer
        >>> model = gn.nn.Linear(2, 1)
        >>> trainer = Trainer(model, gn.optim.SGD(model.parameters(), lr=1e-9), "mse", metrics=())
        >>> reduce = ReduceLROnPlateau("loss", factor=0.5, patience=2)
        >>> history = trainer.fit(gn.ones(8, 2), gn.ones(8, 1), epochs=6, callbacks=[reduce], verbose=0)
        >>> history.learning_rates
        [1e-09, 1e-09, 1e-09, 5e-10, 5e-10, 2.5e-10]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        op = "ReduceLROnPlateau"
        super().__init__(monitor, mode, min_delta)
        if need_number(op, "factor", factor, 0) >= 1:
            raise ArgumentError(f"{op}: factor must be below 1, got {factor}")
        self.patience, self.cooldown = whole(op, "patience", patience, 0), whole(op, "cooldown", cooldown, 0)
        self.factor, self.min_lr, self.verbose = factor, need_number(op, "min_lr", min_lr, 0), verbose
        self.on_train_begin()

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets an earlier run."""
        self.best: float | None = None
        self._wait = self._cooling = 0

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Looks at the number, and lowers the rate if it is time."""
        value = self._value(logs)
        cooling = self._cooling > 0
        if cooling:
            self._cooling, self._wait = self._cooling - 1, 0
        if self._better(value, self.best):
            self.best, self._wait = value, 0
        elif not cooling:
            self._wait += 1
            if self._wait >= self.patience:
                self._reduce(epoch)

    def _reduce(self, epoch: int) -> None:
        groups = _groups("ReduceLROnPlateau", self)
        rates = [max(group["lr"] * self.factor, self.min_lr) for group in groups]
        if not any(rate < group["lr"] for rate, group in zip(rates, groups)):
            return  # all are at the bottom
        for rate, group in zip(rates, groups):
            group["lr"] = min(rate, group["lr"])  # one below min_lr already stays
        self._cooling, self._wait = self.cooldown, 0
        if self.verbose:
            self.trainer.say(f"epoch {epoch + 1}: learning rate reduced to {rates[0]:g}")

    def state_dict(self) -> dict[str, Any]:
        """The best value, and how long ago it and the last reduction were."""
        return {"best": self.best, "wait": self._wait, "cooling": self._cooling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.best, self._wait, self._cooling = state["best"], state["wait"], state["cooling"]


class LearningRateScheduler(Callback):
    """Sets the learning rate by a schedule.

    Args:
        schedule: a function of (epoch, lr), or of the epoch alone, that returns the rate; asked before each epoch,
            counted from 0, for each group of the optimiser. Or one of ``gn.optim.lr_scheduler``, which is stepped
            before each epoch but the first, and goes on where it was when the run does.
        verbose: 1 prints the rate of each epoch.
        every: what a schedule of ``gn.optim`` is stepped before: each "epoch", or each "batch", as OneCycleLR is
            meant.

    Raises:
        ArgumentError: no schedule, one that needs the value it watches (ReduceLROnPlateau is a callback too), or
            another word for ``every``. In ``fit``: a schedule over another optimiser than the trainer's, an optimiser
            without ``param_groups``, or a rate that is no number of at least 0.

    Example:
        >>> import gpunet as gn
        >>> from gpunet.train import LearningRateScheduler, Trainer
        >>> model = gn.nn.Linear(2, 1)
        >>> trainer = Trainer(model, gn.optim.SGD(model.parameters(), lr=0.5), "mse", metrics=())
        >>> halve = LearningRateScheduler(lambda epoch, lr: lr / 2 if epoch else lr)
        >>> history = trainer.fit(gn.ones(8, 2), gn.ones(8, 1), epochs=3, callbacks=[halve], verbose=0)
        >>> history.learning_rates
        [0.5, 0.25, 0.125]
    """

    def __init__(self, schedule: Schedule | lr_scheduler.LRScheduler, verbose: int = 0, every: str = "epoch") -> None:
        op = "LearningRateScheduler"
        if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
            raise ArgumentError(f"{op}: schedule must not watch a value, got {schedule}; use train.ReduceLROnPlateau")
        if not callable(schedule) and not isinstance(schedule, lr_scheduler.LRScheduler):
            raise ArgumentError(f"{op}: schedule must be a function or one of gn.optim.lr_scheduler, got {schedule!r}")
        self.verbose, self.every = verbose, one_of(op, "every", every, ("epoch", "batch"))
        self.scheduler = schedule if isinstance(schedule, lr_scheduler.LRScheduler) else None
        self.schedule: Schedule | None = None if isinstance(schedule, lr_scheduler.LRScheduler) else schedule
        self._both = self.schedule is not None and _takes_two(self.schedule)
        self._first = True  # the rate that is there is the first one
        if self.schedule is None and every == "batch":
            self.on_batch_begin = self._before_batch

    def on_train_begin(self, logs: Logs = None) -> None:
        """Looks whether the schedule is for this run's optimiser."""
        _groups("LearningRateScheduler", self)
        if self.scheduler is not None and self.scheduler.optimizer is not self.trainer.optimizer:
            need = "schedule must be over the trainer's optimizer"
            raise ArgumentError(f"LearningRateScheduler: {need}, got one over another")

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Sets the rate of this epoch."""
        groups = _groups("LearningRateScheduler", self)
        if self.schedule is not None:
            for group, rate in zip(groups, [self._asked(epoch, group["lr"]) for group in groups]):
                group["lr"] = rate
        elif self.every == "epoch":
            self._step()
        if self.verbose:
            self.trainer.say(f"epoch {epoch + 1}: learning rate {groups[0]['lr']:g}")

    def _before_batch(self, batch: int, logs: Logs = None) -> None:
        self._step()

    def _step(self) -> None:
        if self.scheduler is not None and not self._first:
            self.scheduler.step()
        self._first = False

    def _asked(self, epoch: int, lr: float) -> float:
        assert self.schedule is not None
        rate = self.schedule(epoch, lr) if self._both else self.schedule(epoch)
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0 <= rate < math.inf:
            need = "schedule must return a rate of at least 0"
            raise ArgumentError(f"LearningRateScheduler: {need}, got {rate!r} for epoch {epoch}")
        return float(rate)

    def state_dict(self) -> dict[str, Any]:
        """The state of a schedule of gn.optim; that of a function is the optimiser's rate alone."""
        return {} if self.scheduler is None else {"first": self._first, "scheduler": self.scheduler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        if self.scheduler is None:
            raise ArgumentError("LearningRateScheduler: schedule must be of gn.optim as in the run that goes on")
        self._first = state["first"]
        self.scheduler.load_state_dict(state["scheduler"])


def _takes_two(function: Schedule) -> bool:
    """Whether the function takes (epoch, lr). A call that fails may fail for reasons of its own."""
    try:
        inspect.signature(function).bind(0, 0.0)
    except TypeError:
        return False
    except ValueError:  # built-in functions may have no signature
        return True
    return True


def _groups(op: str, callback: Callback) -> list[dict[str, Any]]:
    """The groups of the trainer's optimiser."""
    optimizer = callback.trainer.optimizer
    groups = getattr(optimizer, "param_groups", None)
    if not groups:
        raise ArgumentError(f"{op}: the optimizer must have param_groups with a rate 'lr', got {optimizer!r}")
    return groups
