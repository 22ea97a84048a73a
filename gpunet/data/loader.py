"""Batches in a reproducible order, made ahead by a thread while the model trains."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpunet.data.ahead import made_ahead
from gpunet.data.order import AUGMENT, SHUFFLE, check_seed, philox, shuffled
from gpunet.data.sets import Dataset
from gpunet.errors import ArgumentError, ShapeError

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Pair = tuple[np.ndarray, np.ndarray]


class DataLoader:
    """One pass over the data, batch by batch, for each ``for`` loop.

    With ``shuffle`` every pass has another order, and that order depends on the seed and the number of the pass alone.
    So a run that was stopped goes on exactly where it was: save ``state_dict()`` with the model, and give it to
    ``load_state_dict`` of a loader made in the same way. A loop that is left early counts as a pass; the next loop
    starts the next one.

    With ``augment`` a thread makes batches ahead while the caller works on the last one. The batches are the same
    with any number of threads, and ``state_dict()`` counts those handed out, not those made. An error in a thread
    reaches the loop with its traceback, at the batch it belongs to. The threads end with the loop, also when it is
    left early; one driven by hand, with ``iter`` and ``next``, ends with ``close()`` or the iterator's life.

    Args:
        data: a pair ``(x, y)`` of arrays with one first axis, or a ``Dataset``, whose training part is taken.
        batch_size: samples a batch; the last batch of a pass may have fewer.
        shuffle: whether each pass has its own random order; otherwise the order is that of the arrays.
        augment: called as ``augment(x, rng)`` on each batch; returns as many samples. ``gpunet.data.augment`` has
            many; a function of your own may change x in place. ``rng`` depends on seed, pass and batch alone.
        seed: an integer from 0 to 2**64 - 1. None draws one from gpunet's generator, which ``manual_seed`` sets.
        drop_last: whether to leave out a last batch that is not full.
        workers: threads that make batches ahead; 0 makes each batch when it is asked for. None is 1 with ``augment``
            and 0 without. With more than 1, ``augment`` is called by several threads at once.
        prefetch: batches made ahead at most, or one for each worker if that is more.

    Attributes:
        seed: the seed in use, also when it was drawn.
        epoch: number of the pass under way, or of the next one between two passes; from 0.

    Raises:
        ShapeError: x and y differ in length.
        ArgumentError: data that is neither kind, an augment that cannot be called, a batch size below 1, a seed,
            workers or prefetch out of range, or no batch at all.

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
        workers: int | None = None,
        prefetch: int = 2,
    ) -> None:
        pair = data.train if isinstance(data, Dataset) else data
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise ArgumentError(f"DataLoader: data must be a Dataset or a pair (x, y), got {type(data).__name__}")
        self.x, self.y = np.asarray(pair[0]), np.asarray(pair[1])
        if self.x.ndim < 1 or self.y.ndim < 1 or len(self.x) != len(self.y):
            raise ShapeError(f"DataLoader: x and y must have one length, got x {self.x.shape} and y {self.y.shape}")
        self.batch_size = _whole("batch_size", batch_size, 1)
        if augment is not None and not callable(augment):
            raise ArgumentError(f"DataLoader: augment must be a function of (x, rng) or None, got {augment!r}")
        self.shuffle, self.augment, self.drop_last = bool(shuffle), augment, bool(drop_last)
        self.workers = int(augment is not None) if workers is None else _whole("workers", workers, 0)
        self.prefetch = _whole("prefetch", prefetch, 1)
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

    def __iter__(self) -> Iterator[Pair]:
        """Batches ``(x, y)``: C-contiguous copies, free to be changed."""
        if self._position and not self._resuming:  # the last loop was left early
            self.epoch, self._position = self.epoch + 1, 0
        self._resuming = False
        epoch, first = self.epoch, self._position
        end = len(self) * self.batch_size if self.drop_last else len(self.x)
        stops = [min(start + self.batch_size, end) for start in range(first, end, self.batch_size)]
        batches = made_ahead(self._maker(epoch), zip([first, *stops], stops), self.workers, self.prefetch)
        try:
            for stop, batch in zip(stops, batches):
                # Set before the batch goes out: the state says what comes next, also if the loop is left here.
                self.epoch, self._position = (epoch, stop) if stop < end else (epoch + 1, 0)
                yield batch
        finally:
            batches.close()  # ends the threads

    def _maker(self, epoch: int) -> Callable[[int, int], Pair]:
        """A function that makes the batch of the samples from start to stop of a pass, in any thread."""
        seed, augment = self.seed, self.augment  # as they are now, whenever the batch is made
        order = shuffled(len(self.x), seed, SHUFFLE, epoch) if self.shuffle else None

        def make(start: int, stop: int) -> Pair:
            # A plain slice would be a view, and an augmentation that works in place would change the data set.
            index = np.arange(start, stop) if order is None else order[start:stop]
            x, y = self.x[index], self.y[index]
            if augment is not None:
                x = np.asarray(augment(x, np.random.Generator(philox(seed, AUGMENT, epoch, start))))
                if x.ndim < 1 or len(x) != len(y):
                    got = f"an array of shape {x.shape}"
                    raise ShapeError(f"DataLoader: augment must return {len(y)} samples, got {got}")
            return np.ascontiguousarray(x), np.ascontiguousarray(y)

        return make

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
