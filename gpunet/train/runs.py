"""Training by name: one run with its checkpoint after each epoch, and going on from it bit for bit."""

import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gpunet import data, functional, io, nn, optim, random
from gpunet.data.augment.named import named
from gpunet.errors import ArgumentError, DataError
from gpunet.train.callbacks import Callback, CSVLogger, EarlyStopping, ModelCheckpoint, TerminateOnNaN
from gpunet.train.callbacks.base import Logs
from gpunet.train.history import History
from gpunet.train.penalties import L1L2, MaxNorm
from gpunet.train.recipes import FREE, OPTIMIZERS, OPTIONS, check, completed, shown
from gpunet.train.schedules import Schedule
from gpunet.train.state import KEY
from gpunet.train.trainer import Trainer

Pair = tuple[np.ndarray, np.ndarray]
DONE = "all its epochs are done"  # why a run ended that nothing cut short
JUDGED = 256  # images at a time where the test images are judged


@dataclass(frozen=True)
class Images:
    """The parts of a data set that a run uses."""

    train: Pair
    validation: Pair | None
    test: Pair
    classes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of an image."""
        return self.train[0].shape[1:]


class Run:
    """One training run by name, new or gone on with.

    Args:
        given: any of ``recipes.OPTIONS``; the rest comes from the checkpoint, or from the model's recipe.
        save: checkpoint file, written after each epoch and at the end; None writes none, or goes on with the one of
            ``resume``.
        resume: checkpoint file to go on from, up to ``epochs`` in all. The result is that of a run without the pause,
            bit for bit. A run with early stopping that was interrupted after its last epoch gets its best weights.
        csv: file with a line for each epoch, or None.

    Attributes:
        settings: all of them, by name.
        save: where checkpoints are written, or None.
        history: the epochs so far, those before a pause included.

    Raises:
        ArgumentError: an unknown name, a value out of range, settings that do not go together or differ from the
            checkpoint's, no epoch left to train, or a folder that is not there.
        DataError: the checkpoint is damaged, or not one of a run.

    Example:
        >>> run = Run({"model": "softmax_regression", "data": "digits8", "limit": 100, "epochs": 3})
        >>> result = run.train(verbose=0)
        >>> len(result["epochs"]), result["train_images"], result["diverged"]
        (3, 100, False)
    """

    def __init__(self, given: Mapping[str, Any], save: Any = None, resume: Any = None, csv: Any = None) -> None:
        self.settings = s = settings_of(given, resume)
        self._before = 0 if resume is None else _kept(resume)[1]
        self.save, self.resume = resume if save is None else save, resume
        for name, file in (("save", self.save), ("csv", csv)):
            _need_place(name, file)
        random.manual_seed(s["seed"])
        self.images = _images(s)
        self.model = _model(s, self.images)
        loss = partial(functional.cross_entropy, label_smoothing=s["label_smoothing"] or 0.0)
        penalty = L1L2(s["l1"] or 0.0, s["l2"] or 0.0) if s["l1"] or s["l2"] else None
        bound = None if s["max_norm"] is None else MaxNorm(s["max_norm"])
        self.trainer = Trainer(self.model, _optimizer(s, self.model), loss, regularizer=penalty, constraint=bound)
        changes = None if s["augment"] == "none" else named(s["augment"])
        size = s["batch_size"] or len(self.images.train[0])
        self.loader = data.DataLoader(self.images.train, size, shuffle=True, augment=changes, seed=s["seed"])
        record = {"settings": s, "classes": list(self.images.classes), "shape": list(self.images.shape)}
        self.checkpoint = None if self.save is None else Checkpoint(self.save, record)
        self.callbacks = self._callbacks(csv)

    def _callbacks(self, csv: Any) -> list[Callback]:
        """All that ``fit`` calls, in order: the last weights are kept before early stopping puts the best ones back."""
        s = self.settings
        schedule = Schedule(s["schedule"]).callback(self.trainer.optimizer, s["epochs"], len(self.loader), s["monitor"])
        stop = self.stopper = None
        if s["early_stop"] is not None:
            stop = self.stopper = EarlyStopping(s["monitor"], patience=s["early_stop"], restore_best_weights=True)
        log = None if csv is None else CSVLogger(csv)
        keep = None if stop is None or self.checkpoint is None else LastWeights()
        return [each for each in (schedule, keep, stop, TerminateOnNaN(), log, self.checkpoint) if each is not None]

    @property
    def history(self) -> History:
        """The epochs so far."""
        return self.trainer.history

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def begun(self) -> bool:
        """Whether the file of ``save`` has an epoch of this run."""
        return self.checkpoint is not None and self.checkpoint.epochs > 0

    @property
    def kept(self) -> int:
        """Epochs whose state is in the file of ``save``, or until that is written in that of ``resume``."""
        return self.checkpoint.epochs if self.checkpoint is not None and self.begun else self._before

    @property
    def finished(self) -> bool:
        """Whether the file of ``save`` has all epochs, and the weights that are to be used."""
        if self.checkpoint is None or self.settings["early_stop"] is not None:
            return self.checkpoint is not None and self.checkpoint.finished
        return self.checkpoint.epochs == self.settings["epochs"]

    def title(self) -> str:
        """What is about to be trained, in a line."""
        s = self.settings
        what = f"{s['model']} ({self.parameters:,} parameters) on {s['data']} ({len(self.loader.x):,} images)"
        batch = "all" if s["batch_size"] is None else s["batch_size"]
        return f"{what}, {s['device']}: {s['optimizer']}, lr {s['lr']:g}{_more(s)}, batch {batch}, seed {s['seed']}"

    def train(self, verbose: int = 1) -> dict[str, Any]:
        """Trains to the end and judges the test images, once.

        Returns:
            "settings", "parameters", "train_images", "validation_images", "test_images", "test" (cross-entropy as
            "loss", and accuracy), "best_epoch" (whose weights these are with early stopping, from 0; else None),
            "diverged" (whether a loss became infinite or NaN), and what a ``History`` has: "history", "epochs",
            "seconds", "batch_losses", "learning_rates", "stopped".

        Raises:
            OSError: a checkpoint cannot be written; the last one is whole.
        """
        s = self.settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the result says so
            history = self.trainer.fit(
                self.loader, epochs=s["epochs"], validation_data=self.images.validation, callbacks=self.callbacks,
                verbose=verbose, resume=self.resume,
            )  # fmt: skip
        diverged = not all(math.isfinite(value) for value in history.last.values())
        if self.checkpoint is not None and not diverged and s["early_stop"] is not None:
            self.checkpoint.finish(history.stopped or DONE)
        judge = Trainer(self.model, self.trainer.optimizer, "cross_entropy")  # without smoothing or penalties
        return {
            "settings": s,
            "parameters": self.parameters,
            "train_images": len(self.loader.x),
            "validation_images": 0 if self.images.validation is None else len(self.images.validation[0]),
            "test_images": len(self.images.test[0]),
            "test": judge.evaluate(*self.images.test, batch_size=min(s["batch_size"] or JUDGED, JUDGED)),
            "best_epoch": None if self.stopper is None else self.stopper.best_epoch,
            "diverged": diverged,
            **history.as_dict(),
        }


class Checkpoint(ModelCheckpoint):
    """The run's file: after each epoch the state to go on from, at the end with the weights that are to be used.

    Args:
        file: where it is written.
        record: what the file says about the run, for those who resume it or ask its model.
    """

    def __init__(self, file: Any, record: dict[str, Any]) -> None:
        super().__init__(str(file).replace("{", "{{").replace("}", "}}"), metadata={**record, "ended": None})
        self.file, self.epochs, self.finished = file, 0, False

    def on_checkpoint(self) -> None:
        """Writes when an epoch is over, and counts it."""
        due = self._due is not None
        super().on_checkpoint()
        self.epochs = self._epoch + 1 if due else self.epochs

    def finish(self, reason: str) -> None:
        """Writes the file once more: early stopping has put the best weights back, and the run is over."""
        self.trainer.save(self.file, **{**self.metadata, "ended": reason})
        self.finished = True


class LastWeights(Callback):
    """Keeps the weights of the last epoch where early stopping puts others into the model, so that a run can go on."""

    def __init__(self) -> None:
        self._weights: dict[str, Any] | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Puts them into the model of a run that goes on."""
        if self._weights is not None:
            self.model.load_state_dict(self._weights)
            self._weights = None

    def on_train_end(self, logs: Logs = None) -> None:
        """Copies them; callbacks after this one may change the model."""
        self._weights = {name: each.data.copy() for name, each in self.model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """The weights, at the end of a run."""
        return {} if self._weights is None else {"weights": self._weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them over; the model's own come later."""
        self._weights = state["weights"]


def settings_of(given: Mapping[str, Any], resume: Any = None) -> dict[str, Any]:
    """All settings of a run: those given, over those of the checkpoint it goes on from, over the model's recipe.

    Raises:
        ArgumentError: a name or value that does not fit, or one that contradicts the checkpoint.
        DataError: the checkpoint is not one of a run.
    """
    given = {name: value for name, value in given.items() if value is not None}
    if resume is None:
        return completed(given)
    kept, epoch, ended = _kept(resume)
    laid_out = Schedule(kept["schedule"]).hangs_on_epochs
    for name, value in given.items():
        free = name in FREE and not (name == "epochs" and laid_out)
        if not free and kept.get(name) != check(name, value):
            why = f" with schedule {kept['schedule']}, which is laid out over them" if name == "epochs" else ""
            need = f"{shown(name)} must be that of the run which goes on{why}, {kept.get(name)!r}"
            raise ArgumentError(f"train: {need}, got {value!r}; leave it out")
    if ended not in (None, DONE):
        got = f"one that ended: {ended}"
        raise ArgumentError(f"train: {str(resume)!r} must be of a run that can go on, got {got}; begin a new one")
    settings = completed({**kept, **given})
    # After the last epoch a run with early stopping still has the best weights to put in, unless the file says DONE.
    waits = ended is None and settings["early_stop"] is not None and epoch == settings["epochs"]
    if epoch >= settings["epochs"] and not waits:
        got = f"{settings['epochs']} with {epoch} done in {str(resume)!r}"
        raise ArgumentError(f"train: epochs must be more than what is done already, got {got}; ask for more epochs")
    return settings


def _kept(file: Any) -> tuple[dict[str, Any], int, Any]:
    """What a checkpoint says of its run: the settings, the epochs that are done, and why it ended or None."""
    metadata = io.load_metadata(file)
    kept, state = metadata.get("settings"), metadata.get(KEY)
    epoch = state.get("epoch") if isinstance(state, dict) else None
    need = f"train: {str(file)!r} must be a checkpoint of a training run"
    if not isinstance(kept, dict) or set(kept) != set(OPTIONS) or not isinstance(epoch, int):
        raise DataError(f"{need}, got one without its settings; `gpunet train --save FILE` writes them")
    plain = {**kept, "device": "cpu"}  # its own device may not be here
    try:
        whole = completed(plain)
    except ArgumentError as error:
        raise DataError(f"{need}, got one with settings that no run has: {error}") from None
    lost = [name for name in plain if plain[name] != whole[name]]
    if lost:
        raise DataError(f"{need}, got one with settings that no run has: {', '.join(lost)}")
    return kept, epoch, metadata.get("ended")


def _need_place(name: str, file: Any) -> None:
    """Refuses a file that could not be written, before the training that it is for."""
    if file is None:
        return
    folder = Path(file).parent
    if not folder.is_dir():
        raise ArgumentError(f"train: {name} must lie in a folder that exists, got {str(file)!r}; make {str(folder)!r}")
    if Path(file).is_dir() or not os.access(folder, os.W_OK):
        got = "a folder" if Path(file).is_dir() else "one in a folder that you may not write to"
        raise ArgumentError(f"train: {name} must be a file that can be written, got {got}: {str(file)!r}")


def _images(s: Mapping[str, Any]) -> Images:
    """The data set's first images, some of each class held back where that is asked for."""
    found = data.load(s["data"])
    (x, y), test = ((images[: s["limit"]], labels[: s["limit"]]) for images, labels in (found.train, found.test))
    validation, share = None, s["validation"]
    if share:
        try:
            (x, y), validation, _ = data.train_val_test_split(x, y, (1 - share, share, 0.0), seed=s["seed"])
        except ArgumentError as error:
            got = f"validation {share:g} of {len(x)} images"
            need = "of each class some images must be held back and some left to train on"
            raise ArgumentError(f"train: {need}, got {got} ({error}); raise limit or validation") from None
    return Images((x, y), validation, test, found.classes)


def _model(s: Mapping[str, Any], images: Images) -> nn.Module:
    """The model by name, with the dropout that was asked for, on the run's device."""
    channels, height, width = images.shape
    model = nn.MODELS[s["model"]]((channels, height, width), len(images.classes))
    if s["dropout"] is not None:
        layers = [each for each in model.modules() if isinstance(each, nn.Dropout)]
        if not layers:
            need = "dropout must go with a model that has Dropout layers"
            raise ArgumentError(f"train: {need}, got {s['model']}; leave it out, or take reference_cnn")
        for each in layers:
            each.p = s["dropout"]
    return model.to(s["device"])


def _optimizer(s: Mapping[str, Any], model: nn.Module) -> Any:
    rule = OPTIMIZERS[s["optimizer"]]
    options = {"lr": s["lr"], "weight_decay": s["weight_decay"], **rule.more}
    if rule.momentum is not None:
        options["momentum"] = s["momentum"]
    return getattr(optim, rule.kind)(model.parameters(), **options)


def _more(s: Mapping[str, Any]) -> str:
    """The settings that are not always there, for the title."""
    numbers = ("momentum", "weight_decay", "l1", "l2", "max_norm", "dropout", "label_smoothing")
    parts = [f"{name.replace('_', ' ')} {s[name]:g}" for name in numbers if s[name]]
    parts += [f"{name} {s[name]}" for name in ("schedule", "augment") if s[name] != "none"]
    if s["validation"]:
        parts.append(f"validation {s['validation']:g}")
    if s["early_stop"] is not None:
        parts.append(f"early stop after {s['early_stop']} by {s['monitor']}")
    return "".join(f", {part}" for part in parts)
