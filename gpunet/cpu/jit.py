"""Compiling kernels of the processor with Numba: without the interpreter's lock, and kept on disk.

A kernel is compiled at its first call with arguments of those types. The next process finds it on disk.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numba.extending

#: ``numba.extending.intrinsic``: a function whose code for LLVM the decorated one writes; types cannot say that
intrinsic: Any = numba.extending.intrinsic

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: Callable[..., Any] | None = None, *, fastmath: Any = False, inline: bool = False) -> Any:
    """Compiles ``function`` when it is first called.

    Args:
        function: loops over arrays; no Python objects.
        fastmath: which liberties LLVM may take, such as {"contract"} for fused multiply-adds or {"reassoc"} for sums in
            vectors; never True, which also assumes that there are no NaN and infinities.
        inline: whether to paste it into its callers.
    """

    def decorate(function: F) -> Any:
        made = numba.njit(
            nogil=True, cache=True, fastmath=fastmath, error_model="numpy", boundscheck=False,
            inline="always" if inline else "never",
        )(function)  # fmt: skip
        _need_neighbours_unchanged(made)
        return made

    return decorate if function is None else decorate(function)


def _need_neighbours_unchanged(dispatcher: Any) -> None:
    """Makes what is kept on disk valid only while the files beside the function's are what they were.

    Numba looks at the file of the function alone, but a kernel is compiled together with what it calls from its folder
    and from the folder ``common`` beside that.
    """
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if file is not None and hasattr(file, "_source_stamp"):
        folder = Path(dispatcher.py_func.__code__.co_filename).parent
        file._source_stamp = (file._source_stamp, _stamps(folder), _stamps(folder.parent / "common"))


@cache
def _stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every file of this backend in a folder."""
    found = sorted(folder.glob("*_numba_cpu.py"))
    return tuple((each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in found)
