"""The trainer: fit, evaluate and predict."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunet import io, nn
from gpunet.data import DataLoader
from gpunet.data.loader import Augment
from gpunet.errors import ArgumentError, ShapeError
from gpunet.io.checkpoint import need_same
from gpunet.io.container import AnyPath
from gpunet.modes import no_grad
from gpunet.tensor import Tensor
from gpunet.train import inputs
from gpunet.train.callbacks import Callback, Callbacks
from gpunet.train.history import History
from gpunet.train.inputs import Pair
from gpunet.train.measures import Measure, Tally, loss_named, metrics_named
from gpunet.train.progress import Progress
from gpunet.train.state import KEY, RunState, damage_named


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
        regularizer: function of the model that returns a tensor added to the loss, such as ``train.L2(1e-4)``, or None.
        constraint: function of the model called after each step, such as ``train.MaxNorm(3.0)``, or None.

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
        constraint: Callable[[Any], None] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ArgumentError(f"Trainer: model must be a gn.nn.Module, got {type(model).__name__}")
        if not (callable(getattr(optimizer, "step", None)) and callable(getattr(optimizer, "zero_grad", None))):
            raise ArgumentError(f"Trainer: optimizer must have step() and zero_grad(), got {optimizer!r}")
        self.model = model
        self.optimizer = optimizer
        self.loss = loss_named(loss)
        self.metrics = metrics_named(metrics)
        self.regularizer, self.constraint = regularizer, constraint
        self.history = History()
        self.stop_training = False
        self._reason: str | None = None
        self._run: Callable[[], dict[str, Any]] | None = None  # state of the run under way, or of the last one
        self._say: Callable[[str], Any] = print

    def stop(self, reason: str = "stopped by a callback") -> None:
        """Ends the run after the batch under way; ``reason`` becomes ``History.stopped``."""
        self.stop_training, self._reason = True, reason

    def say(self, text: str) -> None:
        """Shows a line: above the bar of the run under way when there is one, else on the standard output."""
        self._say(text)

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
        resume: AnyPath | None = None,
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
            initial_epoch: number of the first epoch, for a run that goes on without a checkpoint.
            augment: random change of each training batch (``gpunet.data.augment``), made ahead in a thread. Validation
                data, also those split off, stay as they are. None with a loader, which has its own.
            resume: checkpoint of ``ModelCheckpoint`` or :meth:`save` to go on from, given with the arguments that the
                run was begun with, to a trainer made in the same way. Weights, optimiser, random state, order of the
                data, callbacks and history come from the file, and the result is that of a run without the pause, bit
                for bit. ``epochs`` counts those before it too.

        Returns:
            The history. "loss" and metrics are means over the epoch's batches as they were trained, regularizer
            included; "val_..." are measured after the epoch in evaluation mode. Epochs before a pause are there too.

        Raises:
            ArgumentError: no samples, a share outside [0, 1), a number out of range, a label that is no class of the
                model's, a callback that watches what is not measured, or a run to go on with that was another.
            ShapeError: x and y differ in length, or the model cannot take samples of that shape.
            DTypeError: x holds integers; images of bytes are divided by 255 first.
            DataError: ``resume`` is damaged, or of another model. All of these come before anything is trained.
        """
        first, epochs = inputs.whole("fit", "initial_epoch", initial_epoch, 0), inputs.whole("fit", "epochs", epochs, 1)
        loader, held_back = self._loader(x, y, (batch_size, shuffle, augment), validation_data, validation_split)
        validation = None if held_back is None else inputs.pair("fit (validation)", self.model, *held_back)
        self._try_out(inputs.first_sample(loader), loader.y)
        if validation is not None:
            self._try_out(validation[0][:1], validation[1])
        calls = Callbacks(callbacks, self)
        state = RunState(loader, calls, self._settings(loader, validation))
        kept = self._kept(state, first, resume)
        display = Progress(len(loader.x), (state.epoch, epochs), "images" if loader.x.ndim == 4 else "samples", verbose)
        self._say = display.line
        with display, self._modes(training=True):
            self._begin(state, kept, resume)
            while state.epoch < epochs and not self.stop_training:
                self._epoch(state, validation, display)
            self.history.stopped = (self._reason or "stop_training was set") if self.stop_training else None
            calls.call("on_train_end", self.history.last)
        done = state.state_dict()  # as it is now, whatever becomes of the loader
        self._run = lambda: done
        return self.history

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

    def save(self, path: AnyPath, **metadata: Any) -> None:
        """Writes a checkpoint: weights, optimiser, random state, and how far the run under way or the last one is.

        ``fit(resume=path)`` goes on from it, and ``gn.io.load(path, model)`` reads the weights alone. A callback calls
        this in ``on_checkpoint``, as ``ModelCheckpoint`` does: all others had their turn then. The file is there whole
        or not at all.

        Args:
            path: the file; its folder must exist.
            metadata: own numbers, text, lists, dictionaries or arrays; ``gn.io.load_metadata`` reads them.

        Raises:
            ArgumentError: metadata called "trainer", an optimiser without state_dict() and load_state_dict(), a value
                that cannot be kept, or a run that was interrupted within a step.
            OSError: the disk is full or the folder is not there; what ``path`` held is then as it was.
        """
        if KEY in metadata:
            raise ArgumentError(f"save: metadata must go by other names than {KEY!r}, got {metadata[KEY]!r}")
        self._need_savable("save")
        run = None if self._run is None else self._run()
        io.save(path, self.model, self.optimizer, **metadata, **{KEY: run})

    # -- inside --------------------------------------------------------------------------------------------------

    def _need_savable(self, op: str) -> None:
        if not all(callable(getattr(self.optimizer, name, None)) for name in ("state_dict", "load_state_dict")):
            need = "optimizer must have state_dict() and load_state_dict()"
            raise ArgumentError(
                f"save: {need}, got {self.optimizer!r}; gn.io.save(path, model) keeps the weights alone"
            )

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
            if x.augment is None:
                inputs.pair("fit", self.model, x.x, x.y)
            else:  # the samples are what augmentation makes of them
                inputs.need_targets("fit", x.x, x.y)
            return x, validation
        if y is None:
            raise ArgumentError("fit: y must be given with x, got None; only a DataLoader brings its own targets")
        train = inputs.pair("fit", self.model, x, y)
        if share:
            train, validation = inputs.split_off(*train, share)
        size = inputs.whole("fit", "batch_size", batch_size, 1)
        return DataLoader(train, size, shuffle=shuffle, augment=augment), validation

    def _try_out(self, sample: np.ndarray | None, y: np.ndarray) -> None:
        """Refuses samples that the model cannot take, and labels it has no class for: one sample goes through it."""
        if sample is None:
            return
        device, dtype = inputs.place(self.model)
        with no_grad(), self._modes(training=False):
            output = inputs.tried("fit", self.model, inputs.to_tensor(sample, device, dtype))
        inputs.need_labels("fit", self.loss, output, y)

    def _settings(self, loader: DataLoader, validation: Pair | None) -> dict[str, Any]:
        """What must be the same in a run that goes on, as far as it can be compared."""
        return {
            "batch_size": loader.batch_size,
            "drop_last": loader.drop_last,
            "augment": loader.augment is not None,
            "metrics": list(self.metrics),
            "validation": validation is not None,
        }

    def _kept(self, state: RunState, first: int, resume: AnyPath | None) -> dict[str, Any]:
        """What the checkpoint holds, once it and the callbacks are known to fit; the state is at its first epoch."""
        kept: dict[str, Any] = {}
        if resume is None:
            state.begin_epoch(first)
        else:
            if first:
                raise ArgumentError(f"fit: initial_epoch must be left out with resume, which knows it, got {first}")
            self._need_savable("fit (resume)")
            with damage_named(resume):
                kept = state.read(resume)
                state.begin_epoch(kept["epoch"])
            need_same("fit", resume, self.model, self.optimizer)
        names = ["loss", *self.metrics]
        names += [f"val_{name}" for name in names if state.settings["validation"]]
        state.calls.need(names, goes_on=bool(kept and kept["history"]["epochs"]))
        return kept

    def _begin(self, state: RunState, kept: dict[str, Any], resume: AnyPath | None) -> None:
        """Makes this the trainer's run, and puts back what ``kept`` holds, over what callbacks do at the beginning.

        If one of them refuses, history, ``save`` and the loader's order are what they were.
        """
        before, order = (self.history, self._run), vars(state.loader).copy()
        self.history, self._run = state.history, state.state_dict
        self.stop_training, self._reason = False, None
        try:
            state.calls.call("on_train_begin", None)
            if resume is not None:
                if kept["batch"]:
                    state.calls.call("on_epoch_begin", kept["epoch"], None)
                with damage_named(resume):
                    state.load_state_dict(kept)
                io.load(resume, self.model, self.optimizer)
        except BaseException:
            self.history, self._run = before
            vars(state.loader).update(order)
            raise

    def _epoch(self, state: RunState, validation: Pair | None, display: Progress) -> None:
        """The epoch that is due, or the rest of the one under way."""
        epoch, loader, calls, tally = state.epoch, state.loader, state.calls, state.tally
        device, dtype = inputs.place(self.model)
        state.start_clock()
        if not state.batch:
            calls.call("on_epoch_begin", epoch, None)
        for x, y in loader if state.batch < len(loader) else ():
            state.whole = False
            calls.call("on_batch_begin", state.batch, None)
            tally.add(len(x), self._step(inputs.to_tensor(x, device, dtype), inputs.to_tensor(y, device, dtype)))
            state.batch, state.whole = state.batch + 1, True
            if calls.wants("on_batch_end"):
                calls.call("on_batch_end", state.batch - 1, tally.last())
            calls.call("on_checkpoint")
            display.batch(epoch, len(x), tally.means)
            if self.stop_training:
                break
        logs, trained = tally.means(), state.seconds
        if validation is not None:
            judged = self._evaluate("fit (validation)", validation, loader.batch_size)
            logs |= {f"val_{name}": value for name, value in judged.items()}
        seconds = state.seconds
        state.end_epoch(seconds, logs, self._rate())
        display.epoch(epoch, seconds, tally.samples / trained, logs)
        calls.call("on_epoch_end", epoch, logs)
        calls.call("on_checkpoint")

    def _rate(self) -> float | None:
        groups = getattr(self.optimizer, "param_groups", None)
        return float(groups[0]["lr"]) if groups and "lr" in groups[0] else None

    def _step(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        """One step of the optimiser; the batch's loss and metrics, still on the device."""
        self.optimizer.zero_grad()
        output = self.model(x)
        loss = self._total(output, y)
        loss.backward()
        self.optimizer.step()
        if self.constraint is not None:
            self.constraint(self.model)
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
