"""Kernels that cheat or are broken, each with what the tester must say of it. Every one is made anew for a test.

Where a kernel is of relu it does relu and one thing wrong, so that nothing else can be the reason.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunet import config, devices
from gpunet.measure import calls

Launcher = Callable[..., Any]


class Cheat(NamedTuple):
    """A launcher that must be refused."""

    make: Callable[[], Launcher]
    reason: str
    """What the refusal must say, as a pattern."""
    entry: str = "relu.forward"
    dtype: str = "float32"
    timed: bool = False
    """Whether only the timed loop can show it, and the proof before passes."""


CHEATS: dict[str, Cheat] = {}
matmul = calls.definition("matmul.forward").function


def cheat(reason: str, **more: Any) -> Callable[[Callable[[], Launcher]], Callable[[], Launcher]]:
    """Enters a maker into the table; the test is called as the maker."""

    def enter(make: Callable[[], Launcher]) -> Callable[[], Launcher]:
        CHEATS[make.__name__] = Cheat(make, reason, **more)
        return make

    return enter


def relu(x: np.ndarray) -> np.ndarray:
    y = devices.empty(x.shape, x.dtype)
    np.maximum(x, 0, out=y)
    return y


def called_from(*names: str) -> bool:
    """Whether a function of one of these names is on the stack: how a kernel finds out who calls it."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name in names:
            return True
        frame = frame.f_back
    return False


def in_the_loop() -> bool:
    return called_from("_collect")


# ------------------------------------------------------------------------------------------------ answers that are kept


@cheat("run 2 returns run 1's answer to other numbers, in arrays of their own")
def last_calls_output() -> Launcher:
    kept: list[np.ndarray] = []

    def launch(x):
        kept.append(relu(x))
        return (kept.pop(0) if len(kept) > 1 else kept[0]).copy()

    return launch


@cheat("run 2 returns run 1's answer to other numbers, in arrays of their own")
def cache_by_shape() -> Launcher:
    kept: dict[Any, np.ndarray] = {}
    return lambda x: kept.setdefault(x.shape, relu(x)).copy()


@cheat("run 3 returns run 2's answer to other numbers, in the same arrays")
def cache_by_address() -> Launcher:
    kept: dict[Any, np.ndarray] = {}
    return lambda x: kept.setdefault((x.ctypes.data, x.shape), relu(x)).copy()


@cheat("shares memory with an input or with an earlier call's output")
def one_output_for_all_calls() -> Launcher:
    kept: dict[Any, np.ndarray] = {}

    def launch(x):
        y = kept.setdefault(x.shape, np.empty_like(x))
        return np.maximum(x, 0, out=y)

    return launch


@cheat("a result of the timed loop is wrong, though a proof has passed", timed=True)
def cache_by_address_and_a_few_numbers() -> Launcher:
    kept: dict[Any, np.ndarray] = {}

    def launch(x):
        key = (x.ctypes.data, x.strides, *(float(x.flat[k]) for k in (0, x.size // 3, x.size - 1)))
        if key not in kept:
            kept[key] = relu(x)
        return kept[key].copy()

    return launch


# -------------------------------------------------------------------------------------------------------- work left out


@cheat("output 0 is 0.0 everywhere, the definition is not")
def zeros() -> Launcher:
    return np.zeros_like


@cheat("output 0 is 0.25 everywhere, the definition is not", entry="matmul.forward")
def constant() -> Launcher:
    return lambda a, b, **params: np.full_like(matmul(a, b, **params), 0.25)


@cheat("output 0 holds NaN", entry="softmax.forward")
def not_a_number() -> Launcher:
    return lambda x, **params: np.full_like(x, np.nan)


@cheat("output 0 holds NaN")
def a_part_of_a_poisoned_output() -> Launcher:
    def launch(x):
        y = devices.empty(x.shape, x.dtype)
        np.maximum(x.reshape(-1)[:-1], 0, out=y.reshape(-1)[:-1])
        return y

    return launch


@cheat("output 0 holds NaN")
def a_part_of_an_output_from_the_heap() -> Launcher:
    def launch(x):
        y = np.empty(x.shape, x.dtype)
        np.maximum(x.reshape(-1)[:-1], 0, out=y.reshape(-1)[:-1])
        return y

    return launch


@cheat("its first run is right and run 2 is wrong")
def what_lay_in_the_output_before() -> Launcher:
    def launch(x):
        y = devices.empty(x.shape, x.dtype)
        return np.where(np.isnan(y), np.maximum(x, 0), y)  # right where it was poisoned

    return launch


@cheat("a result of the timed loop is wrong, though a proof has passed", timed=True, entry="matmul.forward")
def ready_answer_once_warmed_up() -> Launcher:
    kept: dict[Any, np.ndarray] = {}

    def launch(a, b, **params):
        if in_the_loop() and (a.shape, b.shape) in kept:
            return kept[a.shape, b.shape].copy()
        y = kept[a.shape, b.shape] = matmul(a, b, **params)
        return y.copy()

    return launch


@cheat("a result of the timed loop is wrong, though a proof has passed", timed=True)
def every_second_call_left_out() -> Launcher:
    state = {"calls": 0}

    def launch(x):
        state["calls"] += 1
        return relu(x) if state["calls"] % 2 or not in_the_loop() else np.empty_like(x)

    return launch


# ----------------------------------------------------------------------------------------------- right under conditions


@cheat("its first run is right and run 2 is wrong")
def right_in_the_first_call_only() -> Launcher:
    state = {"calls": 0}

    def launch(x):
        state["calls"] += 1
        return relu(x) if state["calls"] == 1 else relu(x) * 2

    return launch


@cheat("only its first run is wrong")
def right_from_the_second_call_on() -> Launcher:
    state = {"calls": 0}

    def launch(x):
        state["calls"] += 1
        return relu(x) if state["calls"] > 1 else relu(x) * 2

    return launch


@cheat("its first run is right and run 2 is wrong")
def right_where_outputs_are_poisoned() -> Launcher:
    return lambda x: relu(x) * (1 if config.settings.poison else 2)


@cheat("a result of the timed loop is wrong, though a proof has passed", timed=True)
def right_where_a_proof_is_on_the_stack() -> Launcher:
    return lambda x: relu(x) * (1 if called_from("prove") else 2)


@cheat("a result of the timed loop is wrong, though a proof has passed", timed=True)
def right_where_inputs_come_twice() -> Launcher:
    seen: set[bytes] = set()

    def launch(x):
        known = x.tobytes() in seen
        seen.add(x.tobytes())
        return relu(x) * (1 if known or not in_the_loop() else 2)

    return launch


@cheat("output 0 is off by")
def right_at_the_tested_sizes_only() -> Launcher:
    return lambda x: relu(x) * (1 if x.shape in ((1, 3, 7, 5), (131,), (32, 75, 28, 28)) else 2)


@cheat("on inputs that are not contiguous")
def right_for_contiguous_inputs_only() -> Launcher:
    return lambda x: relu(np.lib.stride_tricks.as_strided(x, x.shape, np.empty(x.shape, x.dtype).strides))


@cheat("on inputs that are not aligned to 16 bytes")
def right_for_aligned_inputs_only() -> Launcher:
    return lambda x: relu(x) * (2 if x.flags.c_contiguous and x.ctypes.data % 16 else 1)


# --------------------------------------------------------------------------------------------------- inputs and outputs


@cheat("changes input 0")
def input_restored_in_the_next_call() -> Launcher:
    changed: list[tuple[np.ndarray, np.ndarray]] = []

    def launch(x):
        if changed:
            old, values = changed.pop()
            old[...] = values
        y = relu(x)
        changed.append((x, x.copy()))
        x[...] = y
        return y.copy()

    return launch


@cheat("changes input 0", timed=True)
def input_changed_in_the_loop_only() -> Launcher:
    def launch(x):
        y = relu(x)
        if in_the_loop():
            x.flat[0] += 1
        return y

    return launch


@cheat("shares memory with an input")
def view_of_an_input() -> Launcher:
    return lambda x: x[...]


@cheat("shares memory with an input", entry="softmax.forward")
def the_input() -> Launcher:
    return lambda x, **params: x


@cheat("must be float32 .* got float64")
def wrong_dtype() -> Launcher:
    return lambda x: relu(x).astype(np.float64)


@cheat(r"must be float32 \(17, 13\), got float32 \(13, 17\)", entry="matmul.forward")
def wrong_shape() -> Launcher:
    return lambda a, b, **params: matmul(a, b, **params).swapaxes(-1, -2).copy()


@cheat("must return 1 arrays, got 2")
def too_many_outputs() -> Launcher:
    return lambda x: (relu(x), relu(x))


class Lazy:
    """Looks like an array and computes when it is asked."""

    def __init__(self, x: np.ndarray):
        self.x, self.dtype, self.shape, self.size = x, x.dtype, x.shape, x.size

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return relu(self.x)


class LazyArray(np.ndarray):
    """Is an array even, of another class, whose elements may be computed late."""


@cheat("must be an array of the device, got Lazy$")
def lazy_object() -> Launcher:
    return Lazy


@cheat("must be an array of the device, got LazyArray$")
def lazy_subclass() -> Launcher:
    return lambda x: relu(x).view(LazyArray)


# ------------------------------------------------------------------------------------------------------------ precision


@cheat("output 0 is off by", entry="matmul.forward", dtype="float64")
def float32_inside_float64() -> Launcher:
    return lambda a, b, **params: matmul(a.astype(np.float32), b.astype(np.float32), **params).astype(np.float64)


@cheat("output 0 is off by", entry="softmax.forward")
def float16_inside_float32() -> Launcher:
    def launch(x, axis=-1):
        z = x.astype(np.float16)
        e = np.exp(z - z.max(axis, keepdims=True))
        return (e / e.sum(axis, keepdims=True)).astype(np.float32)

    return launch


@cheat("differ in their bits", entry="matmul.forward")
def not_deterministic() -> Launcher:
    own = np.random.default_rng(0)
    return lambda a, b, **params: matmul(a, b, **params) * np.float32(1 + 3e-7 * own.random())
