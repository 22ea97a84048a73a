"""Orders and random generators that depend on a seed alone, and not on what was drawn before."""

import numpy as np

from gpunet.errors import ArgumentError

# First number of every key: what the randomness is for, so that two uses of one seed never share numbers.
SHUFFLE, AUGMENT, SPLIT, MIX = range(4)


def philox(seed: int, *key: int) -> np.random.Philox:
    """The Philox stream of ``seed`` and ``key``. Different keys give independent streams."""
    return np.random.Philox(np.random.SeedSequence(seed, spawn_key=key))


def shuffled(count: int, seed: int, *key: int) -> np.ndarray:
    """0 to count - 1 in the order of ``seed`` and ``key``, the same on every platform and NumPy version.

    NumPy keeps a bit generator's words stable over versions but not ``Generator.permutation``, so this sorts words.
    """
    return np.argsort(philox(seed, *key).random_raw(count), kind="stable")


def check_seed(op: str, seed: object) -> int:
    """``seed`` as a Python integer, or ArgumentError."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**64:
        raise ArgumentError(f"{op}: seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
    return int(seed)
