"""ReduceLROnPlateau: the rate falls when a measured value stops improving."""

import math
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.ops.checks import need_number, one_of, whole
from gpunet.optim.lr_scheduler.base import LRScheduler, each_group, need_optimizer
from gpunet.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """The rate times ``factor`` when a measured value has not improved for more than ``patience`` steps.

    Args:
        optimizer: whose rates are set.
        mode: "min" when lower is better (a loss), "max" when higher is (an accuracy).
        factor: what the rate is multiplied by, below 1.
        patience: number of steps without improvement that are borne.
        threshold: how much better counts as an improvement.
        threshold_mode: "rel" for a share of the best value, which is meant for positive ones; "abs" for a difference.
        cooldown: number of steps after a reduction in which nothing counts as bad.
        min_lr: the lowest rate, or a list of one a group.
        eps: a reduction by no more than this is not made.

    Attributes:
        best: the best value so far.

    Raises:
        ArgumentError: an option out of range.

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=8.0)
        >>> scheduler = gn.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
        >>> [(scheduler.step(loss), scheduler.get_last_lr()[0])[1] for loss in [3.0, 2.0, 2.0, 2.0]]
        [8.0, 8.0, 8.0, 4.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Any = 0.0,
        eps: float = 1e-8,
    ):
        op = "ReduceLROnPlateau"
        need_optimizer(op, optimizer)
        if need_number(op, "factor", factor, 0) >= 1:
            raise ArgumentError(f"{op}: factor must be below 1, got {factor}")
        self.optimizer = optimizer
        self.mode = one_of(op, "mode", mode, ("min", "max"))
        self.threshold_mode = one_of(op, "threshold_mode", threshold_mode, ("rel", "abs"))
        self.factor, self.threshold, self.eps = factor, threshold, eps
        self.patience, self.cooldown = whole(op, "patience", patience, 0), whole(op, "cooldown", cooldown, 0)
        self.min_lrs = each_group(op, "min_lr", min_lr, optimizer)
        self.best = math.inf if mode == "min" else -math.inf
        self.last_epoch = self.num_bad_epochs = self.cooldown_counter = 0
        self._last_lr = self._rates()

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        """Takes note of a value, a number or a tensor with one element, and reduces the rates if it is time."""
        value = float(metrics)
        self.last_epoch += 1
        if self._better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            for group, low in zip(self.optimizer.param_groups, self.min_lrs):
                reduced = max(group["lr"] * self.factor, low)
                if group["lr"] - reduced > self.eps:
                    group["lr"] = reduced
        self._last_lr = self._rates()

    def _better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            bar = self.best * (1 + sign * self.threshold)
        else:
            bar = self.best + sign * self.threshold
        return value > bar if self.mode == "max" else value < bar
