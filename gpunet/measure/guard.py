"""What a kernel must leave as it found it: the clock, NumPy, the code that judges it, random state, threads, memory.

A kernel is called in this process, so it could replace what it is measured with. Before its calls the guard notes which
functions stand where and what the state is; after them it compares, puts back what was changed, and says what it was.
Nothing within one process withstands a kernel that is written against this very file; it withstands every trick known
from public benchmarks, and it finds honest mistakes.
"""

import builtins
import contextlib
import gc
import math
import random as python_random
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from gpunet import config, random
from gpunet.cpu import threads as pool
from gpunet.errors import KernelError

GRACE = 0.5  # seconds in which a thread that has done its work may disappear
JUDGES = ("answers", "calls", "guard", "loop", "passes", "proof", "roof", "rows", "timer", "tolerances", "variation")
_sleep, _now = time.sleep, time.monotonic  # of our own: a kernel may replace those in the module


class TamperedError(KernelError):
    """A kernel changed what it must leave alone; the message says what."""


class _Known(NamedTuple):
    """One function, or class, as it was."""

    owner: Any
    attribute: str
    value: Any
    code: Any
    defaults: Any


Snapshot = dict[str, _Known]


def _modules(device_modules: tuple[Any, ...] = ()) -> list[types.ModuleType]:
    names = [f"gpunet.measure.{name}" for name in JUDGES] + ["gpunet.config", "gpunet.devices"]
    judges = [sys.modules[name] for name in names if name in sys.modules]
    return [builtins, math, time, gc, np, np.linalg, *judges, *device_modules]


def snapshot(device_modules: tuple[Any, ...] = ()) -> Snapshot:
    """Which function stands where, in all that judges a kernel."""
    found: Snapshot = {}
    for module in _modules(device_modules):
        for name, value in vars(module).items():
            if not callable(value):
                continue
            _note(found, module, module.__name__, name, value)
            if isinstance(value, type) and value.__module__.startswith("gpunet."):
                for member, inside in vars(value).items():
                    if callable(inside) or isinstance(inside, property):
                        _note(found, value, f"{module.__name__}.{name}", member, inside)
    return found


def _note(found: Snapshot, owner: Any, where: str, name: str, value: Any) -> None:
    code, defaults = getattr(value, "__code__", None), getattr(value, "__defaults__", None)
    found[f"{where}.{name}"] = _Known(owner, name, value, code, defaults)


def replaced(before: Snapshot) -> str | None:
    """The name of the first function that is no longer what it was, or None; all are put back."""
    first = None
    for name, known in before.items():
        now = vars(known.owner).get(known.attribute)
        if now is not known.value:
            setattr(known.owner, known.attribute, known.value)
        elif known.code is not None and (now.__code__ is not known.code or now.__defaults__ is not known.defaults):
            now.__code__, now.__defaults__ = known.code, known.defaults
        else:
            continue
        first = first or name
    return first


_baseline: Snapshot = {}


def remember() -> None:
    """Keeps what stands now, before any file of a user is imported; :func:`need_originals` compares with it."""
    if not _baseline:
        kinds = (types.FunctionType, types.BuiltinFunctionType)
        outside = ("gpunet.measure.roof", "gc.")  # the roof may be probed in other ways; collecting may be put off
        for name, each in snapshot().items():
            if isinstance(each.value, kinds) and not name.startswith(outside):
                _baseline[name] = each


def need_originals() -> None:
    """Raises :class:`TamperedError` if a function was replaced since :func:`remember`."""
    name = replaced(_baseline)
    if name is not None:
        raise TamperedError(f"it replaces {name}, when its file is imported or in an earlier call; leave it as it is")


# ------------------------------------------------------------------------------------------------------------- state


def _global_numpy() -> Any:
    state: Any = np.random.get_state(legacy=True)  # noqa: NPY002 it is the old global state that is guarded
    kind, keys, *rest = state
    return kind, keys.tobytes(), *rest


def _set_global_numpy(state: Any) -> None:
    kind, keys, *rest = state
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))  # noqa: NPY002


def _gpunet() -> Any:
    return _plain(random.get_state())


def _plain(value: Any) -> Any:
    """Arrays as lists, so that two states can be compared."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def _set_gc(state: Any) -> None:
    (gc.enable if state[0] else gc.disable)()
    gc.set_threshold(*state[1])


def _set_settings(state: Any) -> None:
    vars(config.settings).update(state)


def _set_tracing(state: Any) -> None:
    sys.settrace(state[0])
    sys.setprofile(state[1])


#: What it is -> how it is read, how it is put back.
STATE: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "NumPy's global random state": (_global_numpy, _set_global_numpy),
    "Python's global random state": (python_random.getstate, python_random.setstate),
    "gpunet's random state": (_gpunet, random.set_state),
    "np.errstate": (np.geterr, lambda state: np.seterr(**state)),
    "the garbage collector's settings": (lambda: (gc.isenabled(), gc.get_threshold()), _set_gc),
    "gpunet's settings": (lambda: dict(vars(config.settings)), _set_settings),
    "the tracing of Python": (lambda: (sys.gettrace(), sys.getprofile()), _set_tracing),
    "the interpreter's switch interval": (sys.getswitchinterval, sys.setswitchinterval),
}


@contextmanager
def untouched(device_modules: tuple[Any, ...] = ()) -> Iterator[None]:
    """Inside, kernels are called; what they changed is put back, and raised, when the block ends.

    Args:
        device_modules: array libraries of the device beside NumPy, such as cupy.

    Raises:
        TamperedError: something was changed. An error from the block itself goes first, once all is put back.
    """
    functions, compare = snapshot(device_modules), replaced
    before = {name: read() for name, (read, _) in STATE.items()}
    changed: str | None = None
    try:
        yield
    finally:
        name = compare(functions)  # first: what follows relies on them
        changed = f"it replaces {name}; the clock and the judge must stay as they are" if name else None
        for what, (read, put_back) in STATE.items():
            if read() != before[what]:
                put_back(before[what])
                changed = changed or f"it changes {what}, which it must leave as it is"
    if changed:
        raise TamperedError(changed)


# --------------------------------------------------------------------------------------------------- threads, memory


def threads() -> frozenset[int]:
    """Threads of this process that run Python, those that no module lists included.

    The workers of gpunet's own pool are started first: they are nobody's left-overs, and stay.
    """
    pool.start()
    return frozenset(sys._current_frames())


def wait_for(before: frozenset[int]) -> bool:
    """Whether threads begun since ``before`` are still there after a moment of grace."""
    end = _now() + GRACE
    while threads() - before:
        if _now() > end:
            return True
        _sleep(0.005)
    return False


def resident() -> int | None:
    """Bytes of this process that lie in memory; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096
    return None
