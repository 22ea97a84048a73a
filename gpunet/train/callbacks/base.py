"""What a callback is, callbacks out of plain functions, and several callbacks as one."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError

if TYPE_CHECKING:
    from gpunet.train.trainer import Trainer

Logs = Any  # dict[str, float], or None; Any spares every override a check for None
MOMENTS = (
    "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_batch_begin", "on_batch_end",
    "on_checkpoint",
)  # fmt: skip


class Callback:
    """Base class: override what you need, and give an instance to ``fit(callbacks=[...])``.

    Inside the methods ``self.trainer`` and ``self.model`` are those of the run. ``self.trainer.stop("why")``, or
    Keras' ``self.trainer.stop_training = True``, ends the run after the batch under way; its epoch is still validated
    and recorded.

    A callback that remembers something from one epoch to the next starts anew in ``on_train_begin``, and hands its
    memory to checkpoints by ``state_dict`` and ``load_state_dict``: then a run that was interrupted goes on as if it
    had not been.

    Example:
        >>> class Best(Callback):
        ...     best = float("inf")
        ...     def on_epoch_end(self, epoch, logs=None):
        ...         self.best = min(self.best, logs["loss"])
    """

    trainer: "Trainer"

    @property
    def model(self) -> Any:
        """The model being trained."""
        return self.trainer.model

    def on_train_begin(self, logs: Logs = None) -> None:
        """Before the first epoch; in a run that goes on, before its state is put back."""

    def on_train_end(self, logs: Logs = None) -> None:
        """After the last epoch; ``logs`` are those of that epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Before epoch number ``epoch``, from 0; again when a run goes on in its middle, before the state is back."""

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """After an epoch and its validation; ``logs`` has "loss", the metrics, and both again with "val_"."""

    def on_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Before batch number ``batch`` of the epoch, from 0."""

    def on_batch_end(self, batch: int, logs: Logs = None) -> None:
        """After the weights took their step; ``logs`` has the loss and metrics of this batch alone."""

    def on_checkpoint(self) -> None:
        """After every batch and every epoch, once all callbacks had their turn: ``trainer.save`` keeps a whole state.

        A file written sooner would hold callbacks of which some have seen the epoch and others have not.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint shall keep: numbers, text, lists, dictionaries and arrays. Empty means nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`state_dict` gave, when a run goes on."""

    def _need(self, names: Sequence[str], goes_on: bool = False) -> None:
        """Raises when the callback cannot do with logs of these names; ``goes_on`` when epochs of the run are over."""


class LambdaCallback(Callback):
    """A callback out of plain functions.

    Args:
        functions: any of on_train_begin(logs), on_train_end(logs), on_epoch_begin(epoch, logs),
            on_epoch_end(epoch, logs), on_batch_begin(batch, logs), on_batch_end(batch, logs), on_checkpoint().

    Raises:
        ArgumentError: another name, or something that cannot be called.

    Example:
        >>> losses = []
        >>> callback = LambdaCallback(on_epoch_end=lambda epoch, logs: losses.append(logs["loss"]))
    """

    def __init__(self, **functions: Callable[..., Any] | None) -> None:
        for name, function in functions.items():
            if name not in MOMENTS:
                raise ArgumentError(f"LambdaCallback: must be one of {', '.join(MOMENTS)}, got {name!r}")
            if function is not None and not callable(function):
                raise ArgumentError(f"LambdaCallback: {name} must be a function, got {function!r}")
            if function is not None:
                setattr(self, name, function)


class Callbacks:
    """Several callbacks as one, called in the order they were given."""

    def __init__(self, callbacks: Sequence[Callback], trainer: "Trainer") -> None:
        for each in callbacks:
            if not isinstance(each, Callback):
                raise ArgumentError(f"fit: callbacks must be gpunet.train.Callback instances, got {each!r}")
            each.trainer = trainer
        self.all = list(callbacks)
        self.table = {moment: [getattr(each, moment) for each in callbacks if _has(each, moment)] for moment in MOMENTS}

    def wants(self, moment: str) -> bool:
        """Whether any callback does something then; reading a loss waits for the device, so it is asked first."""
        return bool(self.table[moment])

    def call(self, moment: str, *args: Any) -> None:
        """Calls that moment's methods."""
        for method in self.table[moment]:
            method(*args)

    def need(self, names: Sequence[str], goes_on: bool) -> None:
        """Refuses before the run what monitors a name that logs will not have, or keeps a table of other names.

        A callback that is not gpunet's own may add names of its own to the logs. With one of these around, a monitor
        can be judged only after the first epoch, and is judged there.
        """
        if all(_is_own(each) for each in self.all):
            for each in self.all:
                each._need(names, goes_on)

    def state_dict(self) -> list[list[Any]]:
        """Class and state of each callback that has one, in order."""
        kept = [[type(each).__name__, each.state_dict()] for each in self.all]
        return [pair for pair in kept if pair[1]]

    def matched(self, kept: list[list[Any]]) -> list[tuple[Callback, dict[str, Any]]]:
        """Each kept state with the callback it is for: the first of its class that has none yet and keeps something.

        Raises:
            ArgumentError: a state has no callback here, so that the run would go on otherwise than it began.
        """
        pairs = []
        rest = sorted(self.all, key=lambda each: not each.state_dict())  # a checkpoint of each epoch keeps nothing
        for name, state in kept:
            found = next((each for each in rest if type(each).__name__ == name), None)
            if found is None:
                got = ", ".join(type(each).__name__ for each in self.all) or "none"
                need = f"callbacks must be those of the run that goes on, {', '.join(name for name, _ in kept)}"
                raise ArgumentError(f"fit: {need}, got {got}")
            rest.remove(found)
            pairs.append((found, state))
        return pairs


def _is_own(callback: Callback) -> bool:
    """Whether it is gpunet's, and does nothing but what is known here."""
    return type(callback).__module__.partition(".")[0] == "gpunet" and not isinstance(callback, LambdaCallback)


def _has(callback: Callback, moment: str) -> bool:
    return moment in vars(callback) or getattr(type(callback), moment) is not getattr(Callback, moment)
