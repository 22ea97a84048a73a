"""Learning-rate schedules by name, as callbacks that step them where PyTorch's users do."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.optim import lr_scheduler
from gpunet.train.callbacks import Callback, LearningRateScheduler, ReduceLROnPlateau

#: name -> class of gn.optim.lr_scheduler; plateau is the callback, which is given the value that it watches
SCHEDULES = {
    "none": None,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "step": lr_scheduler.StepLR,
    "exponential": lr_scheduler.ExponentialLR,
    "one_cycle": lr_scheduler.OneCycleLR,
    "plateau": ReduceLROnPlateau,
}
#: What a schedule is given where nothing is said, as a function of epochs and batches an epoch. The last epoch's rate
#: is a hundredth of the first with step and exponential; with cosine and one_cycle it goes to 0.
LAYOUT: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "cosine": lambda epochs, batches: {"T_max": epochs},
    "step": lambda epochs, batches: {"step_size": math.ceil(epochs / 3)},
    "exponential": lambda epochs, batches: {"gamma": 0.01 ** (1 / max(epochs - 1, 1))},
    "one_cycle": lambda epochs, batches: {"total_steps": epochs * batches},
}
PLATEAU = {"factor": 0.5, "patience": 2}  # the usual patience of 10 epochs is longer than most runs here
#: what is the run's own, or no single value
OWN = ("optimizer", "last_epoch", "max_lr", "mode", "epochs", "steps_per_epoch", "monitor", "verbose")


class Schedule:
    """A schedule out of text: ``"cosine"``, ``"step:step_size=3,gamma=0.5"``, ``"none"``.

    Args:
        text: one of ``SCHEDULES``, and behind a colon options of that class by their names.

    Attributes:
        name: the name alone.
        options: those that were given.

    Raises:
        ArgumentError: an unknown name or option.

    Example:
        >>> Schedule("step:step_size=3,gamma=0.5").options
        {'step_size': 3, 'gamma': 0.5}
        >>> Schedule("cosine").hangs_on_epochs, Schedule("plateau").hangs_on_epochs
        (True, False)
    """

    def __init__(self, text: str) -> None:
        name, colon, rest = text.partition(":")
        self.name = name.strip()
        if self.name not in SCHEDULES:
            raise ArgumentError(f"schedule must be one of {', '.join(SCHEDULES)}, got {self.name!r}")
        kind = SCHEDULES[self.name]
        known = [each for each in inspect.signature(kind).parameters if each not in OWN] if kind else []
        self.options: dict[str, Any] = {}
        for part in rest.split(",") if colon else ():
            option, equals, value = (each.strip() for each in part.partition("="))
            if option not in known or not equals:
                form = f"{self.name}:option=value with options out of {', '.join(known)}" if known else self.name
                raise ArgumentError(f"schedule must be {form}, got {text!r}")
            self.options[option] = _value(value)

    @property
    def hangs_on_epochs(self) -> bool:
        """Whether the rates depend on the number of epochs, so that a run cannot be made longer afterwards."""
        return self.name in LAYOUT and not set(LAYOUT[self.name](1, 1)) <= set(self.options)

    def callback(self, optimizer: Any, epochs: int, batches: int, monitor: str) -> Callback | None:
        """What steps it in ``fit``, or None for "none".

        OneCycleLR is stepped after each batch, the others after each epoch.

        Args:
            optimizer: whose rates are set; its rate is the start, with one_cycle the top.
            epochs: epochs of the whole run.
            batches: batches an epoch.
            monitor: name of the value that plateau watches.

        Raises:
            ArgumentError: an option out of range.
        """
        kind = SCHEDULES[self.name]
        if kind is None:
            return None
        options = {**LAYOUT.get(self.name, lambda epochs, batches: {})(epochs, batches), **self.options}
        try:
            if self.name == "plateau":
                return ReduceLROnPlateau(monitor, **{**PLATEAU, **options})
            if self.name == "one_cycle":
                options = {"max_lr": optimizer.param_groups[0]["lr"], "cycle_momentum": _moves(optimizer), **options}
            return LearningRateScheduler(kind(optimizer, **options), every=_every(self.name))
        except (ArgumentError, TypeError) as error:  # TypeError: text where a number is needed
            raise ArgumentError(f"schedule {self.name} must have options that fit it: {error}") from None


def _every(name: str) -> str:
    return "batch" if name == "one_cycle" else "epoch"


def _moves(optimizer: Any) -> bool:
    """Whether there is a momentum to move; one of 0 was chosen to be 0."""
    return "betas" in optimizer.defaults or bool(optimizer.defaults.get("momentum"))


def _value(text: str) -> Any:
    """An integer, a number, a truth value, or the text itself."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
