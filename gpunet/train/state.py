"""How far a run is: what a checkpoint keeps beside the model, the optimiser and the random state."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunet import io
from gpunet.data import DataLoader
from gpunet.errors import ArgumentError, DataError, GpunetError
from gpunet.io.container import AnyPath
from gpunet.ops.checks import whole
from gpunet.train.callbacks import Callbacks
from gpunet.train.history import History
from gpunet.train.measures import Tally

KEY = "trainer"  # where a checkpoint's metadata holds it


@contextmanager
def damage_named(file: AnyPath) -> Iterator[None]:
    """Inside the block, what a record of the right names and wrong values leads to is a DataError with the file."""
    try:
        yield
    except GpunetError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        need = f"fit: {str(file)!r} must hold the state of such a run"
        raise DataError(f"{need}, got something else: {type(error).__name__} {error}") from error


class RunState:
    """Where a run is: between two batches of an epoch, or between two epochs.

    Args:
        loader: the training data; its state says which samples come next.
        calls: the callbacks of the run.
        settings: what must be the same when the run goes on, by name.

    Attributes:
        history: the epochs that are over.
        epoch: number of the epoch under way, or of the next one.
        batch: how many of its batches are done.
        tally: their losses and metrics.
        whole: False within a step, when weights and optimiser are not those of any batch.
    """

    def __init__(self, loader: DataLoader, calls: Callbacks, settings: dict[str, Any]) -> None:
        self.loader, self.calls, self.settings = loader, calls, settings
        self.history, self.whole = History(), True
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """The next epoch is this one, and nothing of it is done."""
        self.epoch, self.batch, self.tally, self._spent = epoch, 0, Tally(), 0.0

    def start_clock(self) -> None:
        """From here on the epoch takes time."""
        self._begin = time.perf_counter() - self._spent

    @property
    def seconds(self) -> float:
        """What the epoch under way took so far."""
        return time.perf_counter() - self._begin

    def end_epoch(self, seconds: float, logs: dict[str, float], rate: float | None) -> None:
        """The epoch becomes history, and the next one is due."""
        self.history.add(self.epoch, seconds, logs, self.tally.all("loss"), rate)
        self.begin_epoch(self.epoch + 1)

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain values and arrays.

        Raises:
            ArgumentError: the run was interrupted within a step.
        """
        if not self.whole:
            need = "the run must stand between two steps, got one interrupted within a step"
            raise ArgumentError(f"save: {need}; resume from its last checkpoint, or gn.io.save the model alone")
        loader = self.loader.state_dict()
        if not self.batch and loader["position"]:  # the last epoch was ended before its last batch
            loader |= {"epoch": loader["epoch"] + 1, "position": 0}
        return {
            "settings": self.settings,
            "epoch": self.epoch,
            "batch": self.batch,
            "seconds": self.seconds if self.batch else 0.0,
            "tally": self.tally.state_dict(),
            "history": {**self.history.as_dict(), "batch_losses": np.asarray(self.history.batch_losses, np.float64)},
            "loader": loader,
            "callbacks": self.calls.state_dict(),
        }

    def read(self, file: AnyPath) -> dict[str, Any]:
        """The state in a checkpoint, once it is known to fit this run. Nothing is changed.

        Raises:
            DataError: it holds none, or a damaged one.
            ArgumentError: the run that goes on had other settings, callbacks or data.
        """
        kept = io.load_metadata(file).get(KEY)
        if not isinstance(kept, dict) or set(kept) != set(self.state_dict()):
            need = f"fit: {str(file)!r} must be a checkpoint of ModelCheckpoint or Trainer.save"
            raise DataError(f"{need}, got one without a run's state")
        for name in ("epoch", "batch"):
            whole("fit", f"{name} in {str(file)!r}", kept[name], 0)
        for name, mine in self.settings.items():
            if kept["settings"].get(name) != mine:
                got = f"{mine!r} instead of {kept['settings'].get(name)!r}"
                raise ArgumentError(f"fit: {name} must be that of the run which goes on, got {got}")
        self.calls.matched(kept["callbacks"])
        copy.copy(self.loader).load_state_dict(kept["loader"])  # each of these says what is wrong
        _history(kept)
        Tally().load_state_dict(kept["tally"])
        return kept

    def load_state_dict(self, kept: dict[str, Any]) -> None:
        """Goes on from what :meth:`read` gave; the history stays the same object."""
        self.loader.load_state_dict(kept["loader"])
        self.history.__dict__.update(vars(_history(kept)))
        self.begin_epoch(kept["epoch"])
        self.batch, self._spent = kept["batch"], kept["seconds"]
        self.tally.load_state_dict(kept["tally"])
        for callback, state in self.calls.matched(kept["callbacks"]):
            callback.load_state_dict(state)


def _history(kept: dict[str, Any]) -> History:
    """The epochs that are over, out of a kept state."""
    return History.from_dict({**kept["history"], "batch_losses": kept["history"]["batch_losses"].tolist()})
