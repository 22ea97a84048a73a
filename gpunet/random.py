"""Random numbers: one seed, the same numbers on every device and backend.

Two sources hang on the seed. A NumPy Philox generator on the host draws initial weights, orders and ``rand``; its
numbers are copied to the device. Dropout draws nothing: each call takes the next number from a counter, and its
mask is a pure function of (seed, that number, element), computed inside the kernel and computed again in backward.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet import config
from gpunet.errors import ArgumentError


@dataclass
class _State:
    seed: int
    ops: int
    generator: np.random.Generator


def _fresh(seed: int) -> _State:
    return _State(seed, 0, np.random.Generator(np.random.Philox(seed)))


_state = _fresh(config.settings.seed)
_lock = threading.Lock()


def manual_seed(seed: int) -> None:
    """Starts every random source anew from ``seed``: weights, orders, ``rand``, and dropout's counter.

    Args:
        seed: an integer from 0 to 2**64 - 1.

    Raises:
        ArgumentError: seed is not such an integer.

    Example:
        >>> import gpunet as gn
        >>> gn.manual_seed(7)
        >>> a = gn.rand(3)
        >>> gn.manual_seed(7)
        >>> bool((a == gn.rand(3)).data.all())
        True
    """
    global _state
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= int(seed) < 2**64:
        raise ArgumentError(f"manual_seed: seed must be an integer from 0 to 2**64 - 1, got {seed!r}")
    with _lock:
        _state = _fresh(int(seed))


def generator() -> np.random.Generator:
    """The host generator that draws weights and ``rand``."""
    return _state.generator


def next_dropout_key() -> tuple[int, int]:
    """(seed, op): the key of the next dropout call. The op number counts calls since the seed was set."""
    with _lock:
        key = (_state.seed, _state.ops)
        _state.ops += 1
    return key


def get_state() -> dict[str, Any]:
    """Everything needed to continue the random sources, as plain values; for :func:`set_state`."""
    return {"seed": _state.seed, "ops": _state.ops, "generator": _state.generator.bit_generator.state}


def set_state(state: dict[str, Any]) -> None:
    """Continues from a state that :func:`get_state` returned.

    Raises:
        ArgumentError: a key is missing.
    """
    global _state
    missing = {"seed", "ops", "generator"} - set(state)
    if missing:
        raise ArgumentError(f"random.set_state: state must have seed, ops and generator, it lacks {sorted(missing)}")
    fresh = _fresh(int(state["seed"]))
    fresh.ops = int(state["ops"])
    fresh.generator.bit_generator.state = state["generator"]
    with _lock:
        _state = fresh
