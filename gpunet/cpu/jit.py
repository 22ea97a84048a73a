"""Compiling kernels of the processor with Numba: without the interpreter's lock, and kept on disk.

A kernel is compiled at its first call with arguments of those types. The next process finds it on disk. As the first
use of many kernels takes a while, a terminal is told once what it waits for.
"""

import hashlib
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba.extending
from numba.core import event as events
from numba.core.caching import IndexDataCacheFile

from gpunet import config

PATIENCE = 1.0  # seconds of compiling before a terminal is told
NOTE = (
    "gpunet: compiling kernels for this processor, once: later runs find them on disk; "
    "`gpunet warmup` compiles all of them ahead\n"
)

#: ``numba.extending.intrinsic``: a function whose code for LLVM the decorated one writes; types cannot say that
intrinsic: Any = numba.extending.intrinsic


def compiled(function: Callable[..., Any] | None = None, *, fastmath: Any = False, inline: bool = False) -> Any:
    """Compiles ``function`` when it is first called.

    Args:
        function: loops over arrays; no Python objects.
        fastmath: which liberties LLVM may take, such as {"contract"} for fused multiply-adds or {"reassoc"} for sums in
            vectors; never True, which also assumes that there are no NaN and infinities.
        inline: whether to paste it into its callers.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        made = numba.njit(
            nogil=True, cache=True, fastmath=fastmath, error_model="numpy", boundscheck=False,
            inline="always" if inline else "never",
        )(function)  # fmt: skip
        _kept_apart(made)
        return made

    return decorate if function is None else decorate(function)


def _kept_apart(dispatcher: Any) -> None:
    """Gives what is kept on disk a file for each kernel and its arguments' types, valid while its sources are the same.

    Numba numbers those files in an index, which two processes that compile at the same time may write in turns: one
    kernel's code then lies under the other's types, and is run on arrays that it was not made for. And it looks at the
    file of the function alone, but a kernel is compiled together with what it calls from its folder and from the folder
    ``common`` beside that.
    """
    kept: Any = getattr(dispatcher, "_cache", None)
    file = getattr(kept, "_cache_file", None)
    if isinstance(file, IndexDataCacheFile):
        folder = Path(dispatcher.py_func.__code__.co_filename).parent
        stamp = (file._source_stamp, _stamps(folder), _stamps(folder.parent / "common"))
        kept._cache_file = OneFileEach(file._cache_path, file._index_name.removesuffix(".nbi"), stamp)


class OneFileEach(IndexDataCacheFile):
    """Numba's cache without an index: a file's name says the kernel, the types, and what it was compiled from."""

    def save(self, key: Any, data: Any) -> None:
        """Writes the code for ``key`` at once, or not at all, and removes what is out of date."""
        types, sources = self._names(key)
        name = f"{types}.{sources}.nbc"
        self._save_data(name, data)
        for other in Path(self._cache_path).glob(f"{types}.*.nbc"):
            if other.name != name:
                other.unlink(missing_ok=True)

    def load(self, key: Any) -> Any:
        """The code for ``key``, or None."""
        try:
            return self._load_data("{}.{}.nbc".format(*self._names(key)))
        except OSError:
            return None

    def flush(self) -> None:
        """Nothing is out of date while it has a name."""

    def _names(self, key: Any) -> tuple[str, str]:
        types, processor, code = key
        sources = (self._version, self._source_stamp, code)
        base = self._index_name.removesuffix(".nbi")
        return f"{base}.{_short((types, processor))}", _short(sources)


def _short(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:20]


@cache
def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file of this backend in a folder."""
    found = sorted(folder.glob("*_numba_cpu.py"))
    return tuple((each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in found)


class Teller(events.Listener):
    """Tells a terminal once that kernels are being compiled; with GPUNET_DEBUG=3 each of them, and how long it took."""

    def __init__(self) -> None:
        self.quiet = False  # whether somebody else shows it
        self.told = False
        self.begun: list[float] = []  # of those that are being compiled: each may need others
        self.seconds = 0.0

    def on_start(self, event: Any) -> None:
        """A function is being compiled, gpunet's or anybody's."""
        silent = self.quiet or self.told or self.begun or self.seconds <= PATIENCE
        if not silent and _is_ours(event) and sys.stderr.isatty():
            self.told = True
            sys.stderr.write(NOTE)
            sys.stderr.flush()
        self.begun.append(time.perf_counter())

    def on_end(self, event: Any) -> None:
        """It is done, or cannot be compiled."""
        seconds = time.perf_counter() - self.begun.pop()
        if not self.begun and _is_ours(event):
            self.seconds += seconds
            if config.settings.debug >= 3:
                sys.stderr.write(f"gpunet: compiled {event.data['dispatcher'].__name__} in {seconds:.1f} s\n")


def _is_ours(event: Any) -> bool:
    return event.data["dispatcher"].__module__.startswith("gpunet.")


teller = Teller()
events.register("numba:compile", teller)
