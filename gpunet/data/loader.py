"""Batches in a reproducible order."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpunet.data.order import AUGMENT, SHUFFLE, check_seed, philox, shuffled
from gpunet.data.sets import Dataset
from gpunet.errors import ArgumentError, ShapeError

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class DataLoader:
    """One pass over the data, batch by batch, for each ``for`` loop.

    With ``shuffle`` every pass has another order, and that order depends on the seed and the number of the pass alone.
    So a run that was stopped goes on exactly where it was: save ``state_dict()`` with the model, and give it to
    ``load_state_dict`` of a loader made in the same way. A loop that is left early counts as a pass; the next loop
    starts the next one.

    Args:
        data: a pair ``(x, y)`` of arrays with one first axis, or a ``Dataset``, whose training part is taken.
        batch_size: samples a batch; the last batch of a pass may have fewer.
        shuffle: whether each pass has its own random order; otherwise the order is that of the arrays.
        augment: called as ``augment(x, rng)`` on each batch; returns as many samples. It may change x in place. ``rng``
            depends on seed, pass and batch alone.
        seed: an integer from 0 to 2**64 - 1. None draws one from gpunet's generator, which ``manual_seed`` sets.
        drop_last: whether to leave out a last batch that is not full.

    Attributes:
        seed: the seed in use, also when it was drawn.
        epoch: number of the pass under way, or of the next one between two passes; from 0.

    Raises:
        ShapeError: x and y differ in length.
        ArgumentError: data that is neither kind, a batch size below 1, a seed out of range, or no batch at all.

    Example:
        >>> loader = DataLoader((np.arange(5.0), np.arange(5)), batch_size=2, shuffle=True, seed=0)
        >>> [len(y) for x, y in loader], len(loader)
        ([2, 2, 1], 3)
    """

    def __init__(
        self,
        data: Dataset | tuple[np.ndarray, np.ndarray],
        batch_size: int,
        shuffle: bool = False,
        augment: Augment | None = None,
        seed: int | None = None,
        drop_last: bool = False,
    ) -> None:
        pair = data.train if isinstance(data, Dataset) else data
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ArgumentError(f"DataLoader: data must be a Dataset or a pair (x, y), got {type(data).__name__}")
        self.x, self.y = np.asarray(pair[0]), np.asarray(pair[1])
        if self.x.ndim < 1 or self.y.ndim < 1 or len(self.x) != len(self.y):
            raise ShapeError(f"DataLoader: x and y must have one length, got x {self.x.shape} and y {self.y.shape}")
        self.batch_size = _whole("batch_size", batch_size, 1)
        self.shuffle, self.augment, self.drop_last = bool(shuffle), augment, bool(drop_last)
        if len(self) == 0:
            what = f"{len(self.x)} samples with batch_size={self.batch_size}, drop_last={self.drop_last}"
            raise ArgumentError(f"DataLoader: data must fill at least one batch, got {what}")
        self.seed = _drawn_seed() if seed is None else check_seed("DataLoader", seed)
        self.epoch = 0
        self._position = 0  # samples handed out in this pass
        self._resuming = False  # the next loop continues the pass instead of starting one

    def __len__(self) -> int:
        """Batches in a whole pass."""
        whole, rest = divmod(len(self.x), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __repr__(self) -> str:
        order = f"shuffled with seed {self.seed}" if self.shuffle else "in order"
        return f"DataLoader({len(self.x)} samples {order}, batch_size={self.batch_size}, {len(self)} batches)"

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches ``(x, y)``: C-contiguous copies, free to be changed."""
        if self._position and not self._resuming:  # the last loop was left early
            self.epoch, self._position = self.epoch + 1, 0
        self._resuming = False
        epoch, start = self.epoch, self._position
        order = shuffled(len(self.x), self.seed, SHUFFLE, epoch) if self.shuffle else None
        end = len(self) * self.batch_size if self.drop_last else len(self.x)
        while start < end:
            stop = min(start + self.batch_size, end)
            batch = self._batch(order, epoch, start, stop)
            # Set before the batch goes out: the state says what comes next, also if the loop is left here.
            self.epoch, self._position = (epoch, stop) if stop < end else (epoch + 1, 0)
            yield batch
            start = stop

    def _batch(self, order: np.ndarray | None, epoch: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        # A plain slice would be a view, and an augmentation that works in place would change the data set.
        index = np.arange(start, stop) if order is None else order[start:stop]
        x, y = self.x[index], self.y[index]
        if self.augment is not None:
            rng = np.random.Generator(philox(self.seed, AUGMENT, epoch, start))
            x = np.asarray(self.augment(x, rng))
            if x.ndim < 1 or len(x) != len(y):
                raise ShapeError(f"DataLoader: augment must return {len(y)} samples, got an array of shape {x.shape}")
        return np.ascontiguousarray(x), np.ascontiguousarray(y)

    def state_dict(self) -> dict[str, Any]:
        """What comes next, as plain values: seed, epoch, position in samples, and what the order depends on."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "position": self._position,
            "samples": len(self.x),
            "shuffle": self.shuffle,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a ``state_dict()``: the next loop gives the rest of the pass that was under way.

        Raises:
            ArgumentError: a key is missing or out of range, or the state is that of a loader with another number of
                samples or another ``shuffle``.
        """
        missing = self.state_dict().keys() - state.keys()
        if missing:
            raise ArgumentError(f"DataLoader.load_state_dict: state must have every key, it lacks {sorted(missing)}")
        for key, mine in (("samples", len(self.x)), ("shuffle", self.shuffle)):
            if state[key] != mine:
                problem = f"state must be of a loader with {key}={mine}, got {key}={state[key]}"
                raise ArgumentError(f"DataLoader.load_state_dict: {problem}")
        seed = check_seed("DataLoader.load_state_dict", state["seed"])
        epoch, position = _whole("epoch", state["epoch"], 0), _whole("position", state["position"], 0)
        if position >= len(self.x):
            raise ArgumentError(f"DataLoader.load_state_dict: position must be below {len(self.x)}, got {position}")
        self.seed, self.epoch, self._position, self._resuming = seed, epoch, position, True


def _whole(name: str, value: object, low: int) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = low - 1
    if number < low:
        raise ArgumentError(f"DataLoader: {name} must be a whole number of at least {low}, got {value!r}")
    return number


def _drawn_seed() -> int:
    from gpunet import random  # read here, so that readers and data sets work without it

    return int(random.generator().integers(2**63))
