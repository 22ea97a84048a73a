"""The trainer: fit, evaluate and predict."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunet import nn
from gpunet.data import DataLoader
from gpunet.data.loader import Augment
from gpunet.errors import ArgumentError, ShapeError
from gpunet.modes import no_grad
from gpunet.tensor import Tensor
from gpunet.train import inputs
from gpunet.train.callbacks import Callback, Callbacks
from gpunet.train.history import History
from gpunet.train.inputs import Pair
from gpunet.train.measures import Measure, Tally, loss_named, metrics_named
from gpunet.train.progress import Progress


class Trainer:
    """A model, its optimiser and its loss, trained and judged in Keras' way.

    Samples are NumPy arrays or tensors of floats, (N, C, H, W) for images; each batch is moved to the device and the
    dtype of the model's parameters. Labels are integers (N,), or floats of the output's shape for a regression. Every
    random choice hangs on ``gn.manual_seed``: the same seed gives the same history, bit for bit.

    Args:
        model: a ``gn.nn.Module``.
        optimizer: one of ``gn.optim`` over the model's parameters, or any object with step() and zero_grad().
        loss: "cross_entropy", "nll", "mse", "l1", "binary_cross_entropy", "binary_cross_entropy_with_logits", or a
            function of (output, target) that returns one number as a tensor.
        metrics: names ("accuracy", "mse", "mae") or functions of (output, target) that return one number for a batch.
        regularizer: function of the model that returns a tensor added to the loss, or None.

    Attributes:
        history: the history of the fit under way, or of the last one.
        stop_training: set to True (by a callback) to end the run after the batch under way.

    Raises:
        ArgumentError: an unknown loss or metric, a metric twice, a model that is no Module, or an optimiser without
            step() and zero_grad().

    Example:
        >>> import gpunet as gn
        >>> gn.manual_seed(0)
        >>> x = gn.rand(64, 2).numpy()
        >>> model = gn.nn.Linear(2, 1)
        >>> trainer = Trainer(model, gn.optim.SGD(model.parameters(), lr=0.3), "mse", metrics=("mae",))
        >>> history = trainer.fit(x, x @ np.float32([[2.0], [-1.0]]), epochs=60, batch_size=16, verbose=0)
        >>> history.last["loss"] < 1e-3, len(history.batch_losses)
        (True, 240)
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: str | Measure,
        metrics: Sequence[str | Measure] = ("accuracy",),
        regularizer: Callable[[Any], Tensor] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(f"Trainer: model must be a gn.nn.Module, got {type(model).__name__}")
        if not (callable(getattr(optimizer, "step", None)) and callable(getattr(optimizer, "zero_grad", None))):
            raise ArgumentError(f"Trainer: optimizer must have step() and zero_grad(), got {optimizer!r}")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss_named(loss)
        self.metrics = metrics_named(metrics)
        self.regularizer = regularizer
        self.history = History()
        self.stop_training = False
        self._reason: str | None = None

    def stop(self, reason: str = "stopped by a callback") -> None:
        """Ends the run after the batch under way; ``reason`` becomes ``History.stopped``."""
        self.stop_training, self._reason = True, reason

    def fit(
        self,
        x: Any,
        y: Any = None,
        epochs: int = 1,
        batch_size: int = 32,
        validation_data: tuple[Any, Any] | None = None,
        validation_split: float = 0.0,
        callbacks: Sequence[Callback] = (),
        shuffle: bool = True,
        verbose: int = 1,
        initial_epoch: int = 0,
        augment: Augment | None = None,
    ) -> History:
        """Trains, and returns the history.

        A model in evaluation mode is put into training mode for the run; parts that were put into evaluation mode by
        hand (a frozen BatchNorm) in a model that is training stay so. Modes are as they were afterwards.

        Args:
            x: samples (N, ...), or a ``DataLoader``, which then decides batches, order and augmentation.
            y: targets (N, ...); None with a loader.
            epochs: number of the epoch to end before, counted from 0: all of them, unless ``initial_epoch`` is given.
            batch_size: samples a step; the last batch of an epoch may have fewer.
            validation_data: (x, y) judged after each epoch; its figures get the prefix "val_".
            validation_split: share of the samples, from 0 to below 1, held back for that: the last ones, before any
                shuffling, so sorted data must be mixed first.
            callbacks: called in this order.
            shuffle: whether each epoch has its own random order.
            verbose: 0 silent; 1 a line an epoch, and a bar on a terminal when the run takes over two seconds; 2 lines.
            initial_epoch: number of the first epoch, for a run that goes on.
            augment: random change of each training batch (``gpunet.data.augment``), made ahead in a thread. Validation
                data, also those split off, stay as they are. None with a loader, which has its own.

        Returns:
            The history. "loss" and metrics are means over the epoch's batches as they were trained, regularizer
            included; "val_..." are measured after the epoch in evaluation mode.

        Raises:
            ArgumentError: no samples, a share outside [0, 1), or a number out of range; labels out of range too.
            ShapeError: x and y differ in length, or x has not the axes that the model's first layer takes.
            DTypeError: x holds integers; images of bytes are divided by 255 first.
        """
        first, epochs = inputs.whole("fit", "initial_epoch", initial_epoch, 0), inputs.whole("fit", "epochs", epochs, 1)
        loader, held_back = self._loader(x, y, (batch_size, shuffle, augment), validation_data, validation_split)
        validation = None if held_back is None else inputs.pair("fit (validation)", self.model, *held_back)
        calls, history = Callbacks(callbacks, self), History()
        self.history = history
        self.stop_training, self._reason = False, None
        unit = "images" if loader.x.ndim == 4 else "samples"
        display = Progress(len(loader.x), (first, epochs), unit, verbose)
        with display, self._modes(training=True):
            calls.call("on_train_begin", None)
            for epoch in range(first, epochs):
                self._epoch(epoch, loader, validation, calls, history, display)
                if self.stop_training:
                    history.stopped = self._reason or "stop_training was set"
                    break
            calls.call("on_train_end", history.last)
        return history

    def evaluate(self, x: Any, y: Any, batch_size: int = 32) -> dict[str, float]:
        """Loss (regularizer included) and metrics on ``x`` and ``y``, in evaluation mode.

        Args:
            x: samples (N, ...).
            y: targets (N, ...).
            batch_size: samples at a time; it changes the time and the last bits alone.

        Returns:
            Name -> mean over the samples, the loss as "loss".

        Raises:
            ArgumentError, ShapeError, DTypeError: as in :meth:`fit`.
        """
        return self._evaluate("evaluate", inputs.pair("evaluate", self.model, x, y), batch_size)

    def predict(self, x: Any, batch_size: int = 32) -> np.ndarray:
        """The model's outputs for ``x`` in evaluation mode, one row a sample, as a NumPy array.

        Args:
            x: samples (N, ...); N may be 0.
            batch_size: samples at a time; it changes the time and the last bits alone.

        Raises:
            ShapeError, DTypeError: x has not the axes that the model's first layer takes, or holds integers.
        """
        x = inputs.samples("predict", self.model, x)
        size = inputs.whole("predict", "batch_size", batch_size, 1)
        device, dtype = inputs.place(self.model)
        outputs = []
        with no_grad(), self._modes(training=False):
            for start in range(0, max(len(x), 1), size):
                output = self.model(inputs.to_tensor(x[start : start + size], device, dtype))
                outputs.append(device.to_host(output.data))
        return np.concatenate(outputs)

    # -- inside --------------------------------------------------------------------------------------------------

    def _loader(
        self,
        x: Any,
        y: Any,
        batches: tuple[int, bool, Augment | None],
        validation: tuple[Any, Any] | None,
        share: float,
    ) -> tuple[DataLoader, Pair | tuple[Any, Any] | None]:
        """The loader of the training data, made with ``batches`` if there is none, and the validation data or None."""
        batch_size, shuffle, augment = batches
        if not isinstance(share, int | float) or not 0 <= share < 1:
            raise ArgumentError(f"fit: validation_split must be from 0 to below 1, got {share!r}")
        if share and validation is not None:
            raise ArgumentError(f"fit: one of validation_data and validation_split={share:g} must be given, got both")
        if isinstance(x, DataLoader):
            if y is not None or share or augment is not None:
                extra = "y" if y is not None else "validation_split" if share else "augment"
                need = "a DataLoader must come without y and validation_split, and without augment"
                raise ArgumentError(f"fit: {need}, got {extra} too; it brings its own")
            if x.augment is None:  # else the samples are what augmentation makes of them
                inputs.pair("fit", self.model, x.x, x.y)
            return x, validation
        if y is None:
            raise ArgumentError("fit: y must be given with x, got None; only a DataLoader brings its own targets")
        train = inputs.pair("fit", self.model, x, y)
        if share:
            train, validation = inputs.split_off(*train, share)
        size = inputs.whole("fit", "batch_size", batch_size, 1)
        return DataLoader(train, size, shuffle=shuffle, augment=augment), validation

    def _epoch(
        self,
        epoch: int,
        loader: DataLoader,
        validation: Pair | None,
        calls: Callbacks,
        history: History,
        display: Progress,
    ) -> None:
        begin, tally = time.perf_counter(), Tally()
        device, dtype = inputs.place(self.model)
        calls.call("on_epoch_begin", epoch, None)
        for number, (x, y) in enumerate(loader):
            calls.call("on_batch_begin", number, None)
            tally.add(len(x), self._step(inputs.to_tensor(x, device, dtype), inputs.to_tensor(y, device, dtype)))
            if calls.wants("on_batch_end"):
                calls.call("on_batch_end", number, tally.last())
            display.batch(epoch, len(x), tally.means)
            if self.stop_training:
                break
        logs = tally.means()
        trained = time.perf_counter() - begin
        if validation is not None:
            judged = self._evaluate("fit (validation)", validation, loader.batch_size)
            logs |= {f"val_{name}": value for name, value in judged.items()}
        seconds = time.perf_counter() - begin
        history.batch_losses += tally.all("loss")
        history.add(epoch, seconds, logs)
        display.epoch(epoch, seconds, tally.samples / trained, logs)
        calls.call("on_epoch_end", epoch, logs)

    def _step(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """One step of the optimiser; the batch's loss and metrics, still on the device."""
        self.optimizer.zero_grad()
        output = self.model(x)
        loss = self._total(output, y)
        loss.backward()
        self.optimizer.step()
        return self._measure(output.detach(), y, loss)

    def _total(self, output: Tensor, y: Tensor) -> Tensor:
        loss = self.loss(output, y)
        if self.regularizer is not None:
            loss = loss + self.regularizer(self.model)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            got = f"shape {loss.shape}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ShapeError(f"fit: the loss must be a tensor of one number, got {got}; use .mean()")
        return loss

    def _measure(self, output: Tensor, y: Tensor, loss: Tensor) -> dict[str, Any]:
        with no_grad():
            found = {name: metric(output, y) for name, metric in self.metrics.items()}
        return {"loss": loss.data, **found}

    def _evaluate(self, op: str, pair: Pair, batch_size: int) -> dict[str, float]:
        size, (x, y), tally = inputs.whole(op, "batch_size", batch_size, 1), pair, Tally()
        device, dtype = inputs.place(self.model)
        with no_grad(), self._modes(training=False):
            for start in range(0, len(x), size):
                part = slice(start, start + size)
                target = inputs.to_tensor(y[part], device, dtype)
                output = self.model(inputs.to_tensor(x[part], device, dtype))
                tally.add(len(target), self._measure(output, target, self._total(output, target)))
        return tally.means()

    @contextmanager
    def _modes(self, training: bool) -> Iterator[None]:
        """Inside the block the model is in that mode; afterwards every part is in its own again."""
        before = [(module, module.training) for module in self.model.modules()]
        if not training or not self.model.training:
            self.model.train(training)
        try:
            yield
        finally:
            for module, mode in before:
                module.training = mode
