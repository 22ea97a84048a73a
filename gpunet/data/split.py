"""Cutting a data set into training, validation and test parts."""

import math
from collections.abc import Sequence

import numpy as np

from gpunet.data.order import MIX, SPLIT, check_seed, shuffled
from gpunet.errors import ArgumentError, ShapeError

Pair = tuple[np.ndarray, np.ndarray]


def train_val_test_split(
    x: np.ndarray,
    y: np.ndarray,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    stratify: bool = True,
    classes: int | None = None,
) -> tuple[Pair, Pair, Pair]:
    """Three disjoint parts that together hold every sample once, each in a shuffled order.

    Args:
        x: samples (N, ...).
        y: labels (N,), integers if ``stratify``.
        fractions: shares of training, validation and test, together 1. A part with share 0 stays empty; training
            cannot be.
        seed: an integer from 0 to 2**64 - 1; the same seed gives the same parts everywhere.
        stratify: True cuts each class by itself, so every part has the classes in the proportions of the whole. False
            ignores y.
        classes: how many classes y is to have, 0 to classes - 1; None takes those that are there.

    Returns:
        ``((x_train, y_train), (x_val, y_val), (x_test, y_test))``, copies. A class of n samples gives each part its
        share of n, rounded down, and the samples left over go to the largest remainders, the first part first if they
        tie.

    Raises:
        ShapeError: x and y differ in length, or y has not one axis.
        ArgumentError: fractions that are not three, are negative or do not add up to 1; a class with too few samples
            to give every part at least one, or with none at all; labels that are no integers, or beyond ``classes``.

    Example:
        >>> x, y = np.arange(20), np.repeat([0, 1], 10)
        >>> train, val, test = train_val_test_split(x, y, (0.6, 0.2, 0.2))
        >>> [len(part[0]) for part in (train, val, test)], np.bincount(test[1]).tolist()
        ([12, 4, 4], [2, 2])
    """
    op = "train_val_test_split"
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim < 1 or y.ndim != 1 or len(x) != len(y):
        raise ShapeError(f"{op}: y must be one label for each sample in x, got x {x.shape} and y {y.shape}")
    if not len(x):
        raise ArgumentError(f"{op}: x must have samples enough for every part, got none")
    shares = _check_fractions(op, fractions)
    seed = check_seed(op, seed)
    if stratify and y.dtype.kind not in "uib":
        raise ArgumentError(f"{op}: labels must be integers to stratify, got {y.dtype}; pass stratify=False")
    if classes is not None:
        _need_classes(op, y, classes)
    groups = [np.flatnonzero(y == label) for label in np.unique(y)] if stratify else [np.arange(len(x))]
    parts: list[list[np.ndarray]] = [[], [], []]
    for number, group in enumerate(groups):
        counts = _apportion(len(group), shares)
        if any(share > 0 and count == 0 for share, count in zip(shares, counts)):
            who = f"class {y[group[0]]}" if stratify else "x"
            problem = f"{who} must have samples enough for every part, got {len(group)} for fractions {shares}"
            raise ArgumentError(f"{op}: {problem}; use fewer parts or larger fractions")
        order = group[shuffled(len(group), seed, SPLIT, number)]
        for part, piece in zip(parts, np.split(order, np.cumsum(counts)[:2])):
            part.append(piece)
    train, val, test = (_pick(x, y, part, seed, number) for number, part in enumerate(parts))
    return train, val, test


def _need_classes(op: str, y: np.ndarray, classes: int) -> None:
    """Every class has a sample, and every sample a class."""
    found = set(y.tolist())
    missing, strange = sorted(set(range(classes)) - found), sorted(found - set(range(classes)))
    if missing:
        raise ArgumentError(f"{op}: each of {classes} classes must have samples, got none of {missing}")
    if strange:
        raise ArgumentError(f"{op}: labels must be from 0 to {classes - 1}, got {strange[0]}")


def _check_fractions(op: str, fractions: Sequence[float]) -> tuple[float, ...]:
    shares = tuple(float(share) for share in fractions)
    if len(shares) != 3 or not all(0 <= share <= 1 for share in shares) or shares[0] == 0:
        raise ArgumentError(f"{op}: fractions must be three shares (train, val, test) from 0 to 1, got {fractions!r}")
    if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
        raise ArgumentError(f"{op}: fractions must add up to 1, got {fractions!r} = {sum(shares):g}")
    return shares


def _apportion(count: int, shares: tuple[float, ...]) -> list[int]:
    """``count`` split by ``shares`` into whole numbers, largest remainders first."""
    exact = [round(count * share, 9) for share in shares]  # 10 * 0.7 is 6.999999999999999
    counts = [math.floor(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda part: counts[part] - exact[part])
    for part in by_remainder[: count - sum(counts)]:
        counts[part] += 1
    return counts


def _pick(x: np.ndarray, y: np.ndarray, pieces: list[np.ndarray], seed: int, number: int) -> Pair:
    index = np.concatenate(pieces)
    index = index[shuffled(len(index), seed, MIX, number)]  # the classes came one after the other
    return x[index], y[index]
