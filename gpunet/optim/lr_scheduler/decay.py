"""Schedules that are a function of the epoch: StepLR, MultiStepLR, ExponentialLR, LambdaLR, CosineAnnealingLR."""

import bisect
import math
from collections.abc import Callable, Iterable
from typing import Any

from gpunet.ops.checks import need_number, whole
from gpunet.optim.lr_scheduler.base import LRScheduler, each_group, need_optimizer
from gpunet.optim.optimizer import Optimizer


class StepLR(LRScheduler):
    """The rate times gamma after every ``step_size`` steps: ``lr0 * gamma ** (epoch // step_size)``.

    Args:
        optimizer: whose rates are set.
        step_size: number of steps between two changes.
        gamma: the factor.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: step_size below 1, or gamma below 0.

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=8.0)
        >>> scheduler = gn.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        >>> rates = [(scheduler.get_last_lr()[0], scheduler.step())[0] for _ in range(5)]
        >>> rates
        [8.0, 8.0, 4.0, 4.0, 2.0]
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1):
        self.step_size = whole("StepLR", "step_size", step_size)
        self.gamma = need_number("StepLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Times gamma at each multiple of step_size."""
        due = self.last_epoch and self.last_epoch % self.step_size == 0
        return [lr * self.gamma if due else lr for lr in self._rates()]


class MultiStepLR(LRScheduler):
    """The rate times gamma at each milestone.

    Args:
        optimizer: whose rates are set.
        milestones: epochs of the changes; one named twice counts twice.
        gamma: the factor.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: a milestone that is no integer of at least 0, or gamma below 0.

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=8.0)
        >>> scheduler = gn.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3], gamma=0.5)
        >>> [(scheduler.get_last_lr()[0], scheduler.step())[0] for _ in range(4)]
        [8.0, 4.0, 4.0, 2.0]
    """

    def __init__(self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1):
        self.milestones = sorted(whole("MultiStepLR", "milestones", each, 0) for each in milestones)
        self.gamma = need_number("MultiStepLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Times gamma for each time the epoch is named."""
        stones, epoch = self.milestones, self.last_epoch
        times = bisect.bisect_right(stones, epoch) - bisect.bisect_left(stones, epoch)
        return [lr * self.gamma**times if times else lr for lr in self._rates()]


class ExponentialLR(LRScheduler):
    """The rate times gamma at every step: ``lr0 * gamma ** epoch``.

    Args:
        optimizer: whose rates are set.
        gamma: the factor.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: gamma below 0.

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=8.0)
        >>> scheduler = gn.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
        >>> [(scheduler.get_last_lr()[0], scheduler.step())[0] for _ in range(3)]
        [8.0, 4.0, 2.0]
    """

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = need_number("ExponentialLR", "gamma", gamma, 0)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Times gamma."""
        return [lr if self._starting else lr * self.gamma for lr in self._rates()]


class LambdaLR(LRScheduler):
    """The rate at the start times a function of the epoch.

    Args:
        optimizer: whose rates are set.
        lr_lambda: epoch to factor, or a list of such functions, one a group. They are not saved.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: another number of functions than groups.

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=8.0)
        >>> scheduler = gn.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 / (1 + epoch))
        >>> [(scheduler.get_last_lr()[0], scheduler.step())[0] for _ in range(2)]
        [8.0, 4.0]
    """

    _not_saved = (*LRScheduler._not_saved, "lr_lambdas")

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1):
        need_optimizer("LambdaLR", optimizer)
        self.lr_lambdas: list[Callable[[int], float]] = each_group("LambdaLR", "lr_lambda", lr_lambda, optimizer)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Start rate times the function."""
        return [base * function(self.last_epoch) for function, base in zip(self.lr_lambdas, self.base_lrs)]


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the start rate down to ``eta_min`` in ``T_max`` steps, and up again in as many more.

    Closed form: ``eta_min + (lr0 - eta_min) * (1 + cos(pi * epoch / T_max)) / 2``.

    Args:
        optimizer: whose rates are set.
        T_max: number of steps from top to bottom.
        eta_min: the lowest rate.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        ArgumentError: T_max below 1, or eta_min no number.

    Source:
        Loshchilov and Hutter 2017, "SGDR", equation 5, without the restarts.

    Example:
        >>> import gpunet as gn
        >>> optimizer = gn.optim.SGD([gn.zeros(1, requires_grad=True)], lr=8.0)
        >>> scheduler = gn.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
        >>> [(round(scheduler.get_last_lr()[0], 9), scheduler.step())[0] for _ in range(3)]
        [8.0, 4.0, 0.0]
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_max = whole("CosineAnnealingLR", "T_max", T_max)
        self.eta_min = need_number("CosineAnnealingLR", "eta_min", eta_min)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rate that is there, times the ratio of this step's height to the last one's."""
        if self._starting:
            return self._rates()
        now, before = self._height(self.last_epoch), self._height(self.last_epoch - 1)
        if (self.last_epoch - 1) % (2 * self.T_max) == self.T_max:  # from the bottom no factor leads up
            return [lr + (base - self.eta_min) * now for lr, base in zip(self._rates(), self.base_lrs)]
        return [self.eta_min + (lr - self.eta_min) * now / before for lr in self._rates()]

    def _height(self, epoch: int) -> float:
        return (1 + math.cos(math.pi * epoch / self.T_max)) / 2
