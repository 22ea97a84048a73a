"""What schedules have in common: start rates, counting, state."""

from typing import Any

from gpunet.errors import ArgumentError
from gpunet.ops.checks import whole
from gpunet.optim.optimizer import Optimizer


def each_group(op: str, name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """One value a group: ``value`` for all, or a list of as many."""
    count = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * count
    if len(value) != count:
        raise ArgumentError(f"{op}: {name} must be one value or one for each of {count} groups, got {len(value)}")
    return list(value)


def need_optimizer(op: str, optimizer: Any) -> None:
    """Raises unless it is one."""
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError(f"{op}: optimizer must be an Optimizer, got {type(optimizer).__name__}")


class LRScheduler:
    """Base class: a subclass gives in ``get_lr`` the rates, one a group, at ``self.last_epoch``.

    Args:
        optimizer: whose rates are set.
        last_epoch: number of steps already made when resuming without a state dict; -1 for a fresh start.

    Attributes:
        last_epoch: number of steps made; 0 after construction.
        base_lrs: the rates at the start, one a group.

    Raises:
        ArgumentError: not an optimizer, or last_epoch given for one that no scheduler has touched.
    """

    _not_saved: tuple[str, ...] = ("optimizer", "_starting")

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        op = type(self).__name__
        need_optimizer(op, optimizer)
        self.optimizer = optimizer
        for k, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ArgumentError(f"{op}: with last_epoch={last_epoch} groups need 'initial_lr', got none in {k}")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = whole(op, "last_epoch", last_epoch, -1)
        self._starting = True  # the step that construction makes: rates that are there already stay
        self.step()
        self._starting = False

    def get_lr(self) -> list[float]:
        """The rates at ``last_epoch``, one a group. To be overridden."""
        raise NotImplementedError

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Counts one epoch (or batch) and sets the rates."""
        self.last_epoch += 1
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr
        self._last_lr = self._rates()

    def get_last_lr(self) -> list[float]:
        """The rates set last, one a group."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer and functions, as plain values."""
        return {name: value for name, value in self.__dict__.items() if name not in self._not_saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a state; the rates themselves are in the optimizer's state dict.

        Raises:
            ArgumentError: the state is another scheduler's.
        """
        own = set(self.state_dict())
        if set(state_dict) != own:
            differ = sorted(own ^ set(state_dict))
            raise ArgumentError(
                f"{type(self).__name__}.load_state_dict: the state must have this scheduler's names, "
                f"got a difference in {', '.join(differ)}; is it another scheduler's?"
            )
        self.__dict__.update(state_dict)
