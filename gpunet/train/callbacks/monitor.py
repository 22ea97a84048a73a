"""Watching one of the run's numbers: which way is better, and by how much."""

import math
from collections.abc import Sequence
from typing import Any

from gpunet.errors import ArgumentError
from gpunet.ops.checks import need_number, one_of
from gpunet.train.callbacks.base import Callback, Logs

LOWER = ("loss", "mse", "mae", "error")  # what a name ends with that is better when it is lower
HIGHER = ("accuracy", "acc", "auc", "precision", "recall", "f1")  # and when it is higher


class Monitor(Callback):
    """Base class of callbacks that watch a number of the logs.

    Args:
        monitor: its name: "loss", a metric, or one of these with "val_".
        mode: "min" when lower is better, "max" when higher is, "auto" to tell by the name.
        min_delta: a change must be larger than this to count as an improvement; its sign does not matter.

    Raises:
        ArgumentError: another mode, or "auto" for a name that does not tell.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0) -> None:
        op = type(self).__name__
        self.monitor = monitor
        self.mode = one_of(op, "mode", mode, ("auto", "min", "max"))
        self.min_delta = abs(need_number(op, "min_delta", min_delta))
        self._sign = _sign(op, monitor, mode)

    def _value(self, logs: Logs) -> float:
        """The number in these logs."""
        if self.monitor not in (logs or {}):
            self._need(list(logs or {}))
        return float(logs[self.monitor])

    def _better(self, value: float, best: float | None) -> bool:
        """Whether ``value`` improves on ``best``; the first number does, NaN never does."""
        if best is None:
            return not math.isnan(value)
        return self._sign * (value - best) > self.min_delta

    def _need(self, names: Sequence[str], goes_on: bool = False) -> None:
        if self.monitor in names:
            return
        known, plain = ", ".join(names), self.monitor.removeprefix("val_")
        validated = plain != self.monitor and plain in names
        remedy = "; give fit validation_data or validation_split" if validated else ""
        op = type(self).__name__
        raise ArgumentError(f"{op}: monitor must be one of {known}, got {self.monitor!r}{remedy}")


def _sign(op: str, monitor: Any, mode: str) -> int:
    """1 when higher is better, -1 when lower is."""
    if not isinstance(monitor, str):
        raise ArgumentError(f"{op}: monitor must be the name of a number in the logs, got {monitor!r}")
    if mode == "auto":
        last = monitor.rpartition("_")[2]
        if last not in LOWER + HIGHER:
            raise ArgumentError(f"{op}: mode must be 'min' or 'max' for monitor={monitor!r}, got 'auto'")
        return 1 if last in HIGHER else -1
    return 1 if mode == "max" else -1
