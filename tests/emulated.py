"""Small CUDA kernels as text, run on the emulator: what the emulator's own tests are made of."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gpunet import cuda
from gpunet.cuda import emulator, store
from gpunet.cuda.source import Source
from gpunet.errors import EmulatorError

SEEDS = range(4)
needs_emulator = pytest.mark.skipif(bool(emulator.why_not()), reason=str(emulator.why_not()))


def source(text: str, **defines: object) -> Source:
    """A kernel file with this text, named by it, so that equal texts are compiled once."""
    path = store.folder("test-kernels") / f"kernel_{store.key(text)[:12]}.cu"
    if not path.exists():
        store.keep(path, lambda target: void(target.write_text(text)))
    return Source(path, defines)


def void(_: object) -> None:
    """Nothing, for a lambda that must return it."""


def line_of(text: str, mark: str = "// here") -> int:
    """Number of the one line of ``text`` that carries the mark."""
    found = [k for k, line in enumerate(text.splitlines(), 1) if mark in line]
    assert len(found) == 1, found
    return found[0]


def run(text: str, grid: Any, block: Any, *args: Any, shared: int = 0, **defines: object) -> emulator.Program:
    """Runs kernel ``k`` of the text on the emulator."""
    program = emulator.program(source(text, **defines))
    emulator.launch(program, "k", three(grid), three(block), args, shared)
    return program


def three(size: int | Sequence[int]) -> tuple[int, ...]:
    """A size as x, y, z."""
    given = (size,) if isinstance(size, int) else tuple(size)
    return (*given, *(1,) * (3 - len(given)))


def refused(
    kind: str, text: str, grid: Any, block: Any, *args: Any, shared: int = 0, **defines: object
) -> EmulatorError:
    """The error of a broken kernel, which must be of ``kind`` and on the marked line, whatever the order of threads."""
    error = None
    for seed in SEEDS:
        emulator.options.seed = seed
        fresh = [emulator.mark(np.copy(a)) if isinstance(a, np.ndarray) and np.isnan(a).all() else a for a in args]
        with pytest.raises(EmulatorError) as caught:
            run(text, grid, block, *fresh, shared=shared, **defines)
        error = caught.value
        assert error.kind == kind, error
        if "// here" in text:
            assert error.line == line_of(text), error
        assert error.kernel == "k"
    assert error is not None
    assert cuda.why_no_sim() is None
    return error


def floats(count: int) -> np.ndarray:
    """0, 1, 2, ... as float32."""
    return np.arange(count, dtype=np.float32)


def unwritten(count: int) -> np.ndarray:
    """An output that nobody has written: all NaN, and known to the emulator as fresh."""
    return np.full(count, np.nan, np.float32)
