"""Callbacks that write files: checkpoints, and the numbers of each epoch."""

import csv
import io as text_io
import math
import string
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpunet import io
from gpunet.errors import ArgumentError, DataError
from gpunet.io.container import AnyPath, atomically
from gpunet.ops.checks import need_number, whole
from gpunet.train.callbacks.base import Callback, Logs
from gpunet.train.callbacks.monitor import Monitor


class ModelCheckpoint(Monitor):
    """Writes a checkpoint after each epoch, or every so many batches: ``fit(resume=filepath)`` goes on from it.

    The file is whole or absent, whatever interrupts the writing (:func:`gpunet.io.save`). It is written after all other
    callbacks had their turn. An epoch whose loss is NaN or infinite is not saved: the last good file stays.

    Args:
        filepath: the file, in which ``{epoch}`` (from 1), ``{batch}`` and the numbers of the logs are filled in, as in
            ``"runs/{epoch:02d}-{val_loss:.2f}.safetensors"``. Folders are made. A name without them is written over.
        monitor: name of the number that says what is best.
        verbose: 1 prints a line for each file.
        save_best_only: whether to write only after an epoch that was better than all before.
        save_weights_only: whether to leave out what a run needs to go on.
        mode: "min", "max", or "auto" to tell by the name.
        save_freq: "epoch", or a number of batches, counted over all epochs.
        initial_value_threshold: with save_best_only, the value to be beaten by the first file.
        metadata: own numbers, text, lists and dictionaries that go into the file; ``gn.io.load_metadata`` reads them.

    Attributes:
        best: the best value so far, or None.

    Raises:
        ArgumentError: a number out of range, a mode that cannot be told, save_best_only with batches, whose numbers say
            little. In ``fit``: a monitor or a name in ``filepath`` that is not measured, before the run if all
            callbacks are gpunet's own, else when first needed.
        OSError: in ``fit``, when the disk is full or the folder cannot be written. The last file is as it was, and
            ``trainer.save`` can write what there is to another place.

    Example:
        >>> import tempfile, gpunet as gn
        >>> from gpunet.train import ModelCheckpoint, Trainer
        >>> def trainer():
        ...     model = gn.nn.Linear(2, 1)
        ...     return Trainer(model, gn.optim.Adam(model.parameters()), "mse", metrics=())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file, data = f"{folder}/run.safetensors", (gn.ones(8, 2), gn.ones(8, 1))
        ...     first = trainer().fit(*data, epochs=2, callbacks=[ModelCheckpoint(file)], verbose=0)
        ...     second = trainer().fit(*data, epochs=5, resume=file, verbose=0)
        >>> second.epochs, second.batch_losses[:2] == first.batch_losses
        ([0, 1, 2, 3, 4], True)
    """

    def __init__(
        self,
        filepath: AnyPath,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        op, threshold = "ModelCheckpoint", initial_value_threshold
        super().__init__(monitor, mode if save_best_only else "min")
        self.filepath, self.metadata, self.verbose = str(filepath), dict(metadata or {}), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.threshold = None if threshold is None else need_number(op, "initial_value_threshold", threshold)
        self.save_freq = save_freq if save_freq == "epoch" else whole(op, "save_freq", save_freq)
        if save_best_only and save_freq != "epoch":
            raise ArgumentError(f"{op}: save_best_only=True must come with save_freq='epoch', got {save_freq!r}")
        if save_freq != "epoch":  # on the instance: fit reads no loss of a batch otherwise
            self.on_batch_end = self._after_batch
        self.best = self.threshold
        self._due: Path | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets an earlier run, and looks whether this one can be saved."""
        self.best, self._due = self.threshold, None
        if not self.save_weights_only:
            self.trainer._need_savable("ModelCheckpoint")

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remembers the epoch for the file's name."""
        self._epoch = epoch

    def _after_batch(self, batch: int, logs: Logs = None) -> None:
        done = len(self.trainer.history.batch_losses) + batch + 1
        if done % int(self.save_freq) == 0:
            self._ask({"batch": batch + 1, **logs})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Decides whether this epoch is kept."""
        if self.save_freq != "epoch":
            return
        if not self.save_best_only:
            self._ask(logs)
        elif self._better(value := self._value(logs), self.best):
            self._ask(logs)
            if self._due is not None:  # else there is no file of this value, and a worse one may be the best there is
                self.best = value

    def _ask(self, logs: Logs) -> None:
        """Has the file written when all callbacks had their turn."""
        self._need_fields(list(logs))
        if not math.isfinite(logs["loss"]):
            need = f"the loss must be finite for a checkpoint, got {logs['loss']} in epoch {self._epoch + 1}"
            warnings.warn(f"ModelCheckpoint: {need}; the last file stays", RuntimeWarning, stacklevel=2)
            return
        self._due = Path(self.filepath.format(epoch=self._epoch + 1, **logs))

    def on_checkpoint(self) -> None:
        """Writes the file that was asked for."""
        if self._due is None:
            return
        file, self._due = self._due, None
        file.parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            io.save(file, self.model, **self.metadata)
        else:
            self.trainer.save(file, **self.metadata)
        if self.verbose:
            self.trainer.say(f"epoch {self._epoch + 1}: saved {file}")

    def state_dict(self) -> dict[str, Any]:
        """The best value, where it counts."""
        return {"best": self.best} if self.save_best_only else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.best = state["best"]

    def _need(self, names: Sequence[str], goes_on: bool = False) -> None:
        if self.save_best_only:
            super()._need(names)
        self._need_fields(names if self.save_freq == "epoch" else [n for n in names if not n.startswith("val_")])

    def _need_fields(self, names: Sequence[str]) -> None:
        known = ["epoch", *names] + ["batch"] * (self.save_freq != "epoch" and "batch" not in names)
        for _, field, _, _ in string.Formatter().parse(self.filepath):
            if field is not None and field not in known:
                got = f"{{{field}}} in {self.filepath!r}"
                raise ArgumentError(f"ModelCheckpoint: filepath must be made of {', '.join(known)}, got {got}")


class CSVLogger(Callback):
    """Writes a row for each epoch: its number from 0, the logs, and the learning rate.

    Each row is on the disk as soon as its epoch is over. In a run that goes on (``fit(resume=...)``) rows of epochs
    after the checkpoint, which are trained again, are taken out first, so that the file is that of a run without the
    pause.

    Args:
        filename: the file; its folder is made.
        separator: one character between two values.
        append: whether to leave what the file holds, and to write below it.

    Raises:
        ArgumentError: a separator that is not one character.
        DataError: in ``fit``, when the file that is appended to has other columns; before the run if all callbacks are
            gpunet's own, else after its first epoch.

    Example:
        >>> import tempfile, pathlib, gpunet as gn
        >>> from gpunet.train import CSVLogger, Trainer
        >>> model = gn.nn.Linear(2, 1)
        >>> trainer = Trainer(model, gn.optim.SGD(model.parameters(), lr=0.5), "mse", metrics=())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log = pathlib.Path(folder) / "log.csv"
        ...     history = trainer.fit(gn.zeros(8, 2), gn.zeros(8, 1), epochs=2, callbacks=[CSVLogger(log)], verbose=0)
        ...     print(log.read_text().splitlines()[0])
        epoch,loss,learning_rate
    """

    def __init__(self, filename: AnyPath, separator: str = ",", append: bool = False) -> None:
        if not isinstance(separator, str) or len(separator) != 1:
            raise ArgumentError(f"CSVLogger: separator must be one character, got {separator!r}")
        self.filename, self.separator, self.append = Path(filename), separator, append

    def on_train_begin(self, logs: Logs = None) -> None:
        """Forgets an earlier run."""
        self._columns: list[str] = []

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the row."""
        rate = self.trainer.history.learning_rates[-1]
        values = {"epoch": epoch, **(logs or {}), **({} if rate is None else {"learning_rate": rate})}
        if not self._columns:
            self._begin(epoch, list(values))
        row = [values.get(name, "NA") for name in self._columns]
        with self.filename.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=self.separator).writerow(row)

    def _begin(self, epoch: int, columns: list[str]) -> None:
        """Brings the file to where this run's next row belongs, whole or not at all."""
        goes_on = len(self.trainer.history) > 1  # epochs of this run were there before the first row that we write
        rows = self._rows(columns, goes_on)
        while goes_on and len(rows) > 1 and not _is_before(rows[-1], epoch, len(rows[0])):
            rows.pop()
        text = text_io.StringIO()
        csv.writer(text, delimiter=self.separator).writerows(rows or [columns])
        self.filename.parent.mkdir(parents=True, exist_ok=True)
        atomically(self.filename, lambda file: file.write(text.getvalue().encode()))
        self._columns = columns

    def _rows(self, columns: list[str], goes_on: bool) -> list[list[str]]:
        """The rows of a file that is written on, the header first; it must be this one."""
        if not (self.append or goes_on) or not self.filename.exists():
            return []
        with self.filename.open(newline="", encoding="utf-8", errors="replace") as file:
            rows = [row for row in csv.reader(file, delimiter=self.separator) if row]
        if rows and rows[0] != columns:
            remedy = "use another file" + ("" if goes_on else ", or append=False")
            raise DataError(
                f"CSVLogger: {str(self.filename)!r} must have the columns {', '.join(columns)}, "
                f"got {', '.join(rows[0])}; {remedy}"
            )
        return rows

    def _need(self, names: Sequence[str], goes_on: bool = False) -> None:
        rate = [] if self.trainer._rate() is None else ["learning_rate"]
        self._rows(list(dict.fromkeys(["epoch", *names, *rate])), goes_on)


def _is_before(row: list[str], epoch: int, columns: int) -> bool:
    """Whether it is a whole row of an epoch before this one; a kill may have cut the last row."""
    return len(row) == columns and row[0].isdecimal() and int(row[0]) < epoch
