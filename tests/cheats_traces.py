"""More kernels that cheat: with threads, with the clock, and with what a kernel must leave as it finds it."""

import gc
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpunet as gn
from gpunet import config, devices
from gpunet.measure import proof, timer, tolerances
from tests.cheats import CHEATS, Cheat, Launcher, cheat, in_the_loop, relu

# ----------------------------------------------------------------------------------------------------- threads and time


@cheat("output 0 still changes after the call has returned")
def thread_that_is_not_waited_for() -> Launcher:
    def launch(x):
        y, values = devices.empty(x.shape, x.dtype), x.copy()

        def work() -> None:
            time.sleep(0.1)
            np.maximum(values, 0, out=y)

        threading.Thread(target=work).start()
        return y

    return launch


@cheat("leaves a thread running")
def thread_that_goes_on() -> Launcher:
    def launch(x):
        threading.Thread(target=time.sleep, args=(1.5,), daemon=True).start()
        return relu(x)

    return launch


@cheat("a call of the proof took .* it must do the same work in both", timed=True)
def sleep_in_the_proof() -> Launcher:
    def launch(x):
        if config.settings.poison:
            time.sleep(0.1)
        return relu(x)

    return launch


# ------------------------------------------------------------------------------------ what it must leave as it finds it


def replacing(owner: Any, name: str) -> Callable[[], Launcher]:
    """A maker of a kernel that puts a wrapper in the place of ``owner.name``."""

    def make() -> Launcher:
        def launch(x):
            old = getattr(owner, name)
            setattr(owner, name, lambda *args, **more: old(*args, **more))
            return relu(x)

        return launch

    return make


REPLACED = [
    (time, "perf_counter"), (time, "perf_counter_ns"), (time, "monotonic"), (np, "isnan"), (np, "allclose"),
    (timer, "_clock"), (tolerances, "compare"), (tolerances, "allowed"), (proof, "wrong_values"), (proof, "prove"),
]  # fmt: skip
for _owner, _name in REPLACED:
    CHEATS[f"replaces_{_owner.__name__}.{_name}"] = Cheat(
        replacing(_owner, _name), f"it replaces {_owner.__name__}.{_name}"
    )


@cheat(r"it replaces gpunet\.measure\.tolerances\.allowed")
def other_code_in_a_judges_function() -> Launcher:
    def launch(x):
        tolerances.allowed.__code__ = (lambda dtype, terms: 1e9).__code__
        return relu(x)

    return launch


@cheat("take as long by one clock as by another", timed=True)
def clock_that_is_put_back_by_its_first_look() -> Launcher:
    def launch(x):
        real, now = timer._clock, timer._clock()
        time.sleep(0.002)

        def stopped() -> float:
            timer._clock = real
            return now

        if in_the_loop():
            timer._clock = stopped
        return relu(x)

    return launch


STATES: dict[str, tuple[Callable[[], Any], str]] = {
    "numpy_random": (lambda: np.random.seed(1), "NumPy's global random state"),  # noqa: NPY002
    "python_random": (lambda: random.seed(1), "Python's global random state"),
    "gpunet_random": (lambda: gn.manual_seed(987), "gpunet's random state"),
    "errstate": (lambda: np.seterr(all="raise"), "np.errstate"),
    "collector": (gc.disable, "the garbage collector's settings"),
    "settings": (lambda: setattr(config.settings, "check", True), "gpunet's settings"),
}


def changing(change: Callable[[], Any]) -> Callable[[], Launcher]:
    def make() -> Launcher:
        def launch(x):
            change()
            return relu(x)

        return launch

    return make


for _name, (_change, _told) in STATES.items():
    CHEATS[f"changes_{_name}"] = Cheat(changing(_change), f"it changes {_told}")


@cheat(r"every call keeps \d+ bytes or more")
def memory_kept_at_every_call() -> Launcher:
    kept: list[np.ndarray] = []

    def launch(x):
        kept.append(relu(x))
        return kept[-1].copy()

    return launch


@cheat(r"calls let the process grow by \d+ MiB", timed=True)
def memory_kept_in_the_loop_only() -> Launcher:
    kept: list[bytes] = []

    def launch(x):
        if in_the_loop() and len(kept) < 12:
            kept.append(b"\1" * 2**24)
        return relu(x)

    return launch


@cheat("it raises ValueError: now and then")
def error_now_and_then() -> Launcher:
    state = {"calls": 0}

    def launch(x):
        state["calls"] += 1
        if state["calls"] % 3 == 0:
            raise ValueError("now and then")
        return relu(x)

    return launch


@cheat("it raises ValueError in the timed loop: now and then", timed=True)
def error_in_the_loop_only() -> Launcher:
    def launch(x):
        if in_the_loop():
            raise ValueError("now and then")
        return relu(x)

    return launch
