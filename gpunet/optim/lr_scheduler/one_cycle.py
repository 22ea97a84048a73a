"""OneCycleLR: one rise and one long fall."""

import math
from itertools import pairwise
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.ops.checks import need_number, one_of, whole
from gpunet.optim.lr_scheduler.base import LRScheduler, each_group, need_optimizer
from gpunet.optim.optimizer import Optimizer


class OneCycleLR(LRScheduler):
    """Up from ``max_lr / div_factor`` to ``max_lr``, then down to far below the start; momentum goes the other way.

    To be stepped after every batch, ``total_steps - 1`` times.

    Args:
        optimizer: whose rates, and with cycle_momentum whose momentum or first beta, are set.
        max_lr: the highest rate, or a list of one a group.
        total_steps: number of batches; None to have it from ``epochs * steps_per_epoch``.
        epochs: number of epochs, with steps_per_epoch.
        steps_per_epoch: number of batches in an epoch.
        pct_start: share of the steps that go up, from 0 to 1.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether momentum moves too, from max_momentum to base_momentum and back.
        base_momentum: the lowest momentum, or a list of one a group.
        max_momentum: the highest momentum, or a list of one a group.
        div_factor: ``max_lr`` over the rate at the start.
        final_div_factor: rate at the start over that at the end.
        three_phase: whether to come down to the start rate first, in as many steps as it went up.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: no number of steps, an option out of range, an optimizer without momentum, or a step past the
            end.

    Source:
        Smith and Topin 2019, "Super-convergence".

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
        >>> options = {"total_steps": 5, "pct_start": 0.6, "anneal_strategy": "linear", "div_factor": 4}
        >>> scheduler = gn.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4.0, **options)
        >>> [(round(scheduler.get_last_lr()[0], 3), scheduler.step())[0] for _ in range(4)]
        [1.0, 2.5, 4.0, 2.0]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Any,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Any = 0.85,
        max_momentum: Any = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        op = "OneCycleLR"
        need_optimizer(op, optimizer)
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ArgumentError(f"{op}: total_steps must be given, or epochs and steps_per_epoch, got neither")
        if total_steps is None:
            total_steps = whole(op, "epochs", epochs) * whole(op, "steps_per_epoch", steps_per_epoch)
        self.total_steps = whole(op, "total_steps", total_steps)
        self.anneal_strategy = one_of(op, "anneal_strategy", anneal_strategy, ("cos", "linear"))
        up = need_number(op, "pct_start", pct_start, 0, 1) * total_steps
        names = ["initial_lr", "max_lr", "initial_lr", "min_lr"] if three_phase else ["initial_lr", "max_lr", "min_lr"]
        momenta = ["max_momentum", "base_momentum", "max_momentum", "max_momentum"][: len(names)]
        self.ends = [up - 1, 2 * up - 2, total_steps - 1] if three_phase else [up - 1, total_steps - 1]
        self.phases = [(*lr, *m) for lr, m in zip(pairwise(names), pairwise(momenta))]
        self.momentum_name = self._momentum_name(op, optimizer) if cycle_momentum else None
        groups = optimizer.param_groups
        tops = each_group(op, "max_lr", max_lr, optimizer)
        if last_epoch == -1:
            for group, top in zip(groups, tops):
                start = top / div_factor
                group.update(initial_lr=start, max_lr=top, min_lr=start / final_div_factor)
        lows = each_group(op, "base_momentum", base_momentum, optimizer)
        highs = each_group(op, "max_momentum", max_momentum, optimizer)
        if last_epoch == -1 and cycle_momentum:
            for group, low, high in zip(groups, lows, highs):
                group.update(base_momentum=low, max_momentum=high)
        super().__init__(optimizer, last_epoch)

    @staticmethod
    def _momentum_name(op: str, optimizer: Optimizer) -> str:
        for name in ("betas", "momentum"):
            if name in optimizer.defaults:
                return name
        kind = type(optimizer).__name__
        raise ArgumentError(f"{op}: the optimizer must have momentum or betas, got {kind}; pass cycle_momentum=False")

    def get_lr(self) -> list[float]:
        """The point reached in this step's phase; sets the momentum on the way."""
        at = self.last_epoch
        if at > self.total_steps:
            raise ArgumentError(f"OneCycleLR: total_steps is {self.total_steps}, got step {at}; make it longer")
        phase = next((k for k, end in enumerate(self.ends) if at <= end), len(self.ends) - 1)
        begin, end = self.ends[phase - 1] if phase else 0.0, self.ends[phase]
        share = (at - begin) / (end - begin) if end != begin else 1.0
        first_lr, last_lr, first_momentum, last_momentum = self.phases[phase]
        for group in self.optimizer.param_groups:
            if self.momentum_name is None:
                continue
            momentum = self._between(group[first_momentum], group[last_momentum], share)
            moved = (momentum, *group["betas"][1:]) if self.momentum_name == "betas" else momentum
            group[self.momentum_name] = moved
        return [self._between(group[first_lr], group[last_lr], share) for group in self.optimizer.param_groups]

    def _between(self, first: float, last: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return first + (last - first) * share
        return last + (first - last) / 2 * (1 + math.cos(math.pi * share))
