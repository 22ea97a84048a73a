"""Kernels that a test registers from outside the project's folder, forgotten again afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from gpunet import dispatch


@contextmanager
def own_kernels_forgotten() -> Iterator[None]:
    """Takes out what was registered inside, but not the project's own kernels: those are loaded once, on first need."""
    before = {each for table in dispatch._registry.values() for each in table.values()}
    try:
        yield
    finally:
        for table in dispatch._registry.values():
            for each in [each for each in table.values() if each not in before and "/kernels/" not in each.file]:
                del table[each.variant]
        dispatch._choices.clear()
        dispatch._fusions.clear()
