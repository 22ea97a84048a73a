"""How many threads the processor computes on: gpunet's own, BLAS', OpenMP's and Numba's together."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpunet.cpu import threads as own
from gpunet.devices import Device
from gpunet.measure import machine

ALL = 0  # in a row: as many threads as this process has cores


@contextmanager
def limited(count: int, pools: Any = None) -> Iterator[None]:
    """Inside, every thread pool that is loaded now has so many threads.

    Args:
        count: of threads; 0 for as many as this process has cores.
        pools: a threadpoolctl.ThreadpoolController, for who does this often: looking for the pools takes milliseconds.
    """
    from threadpoolctl import threadpool_limits

    wanted, ours = count or machine.cores(), own.get_num_threads()
    numba = sys.modules.get("numba")
    before = numba.get_num_threads() if numba is not None else 0
    own.set_num_threads(wanted)
    with pools.limit(limits=wanted) if pools else threadpool_limits(wanted):
        try:
            if numba is not None:
                numba.set_num_threads(min(wanted, numba.config.NUMBA_NUM_THREADS))
            yield
        finally:
            own.set_num_threads(ours)
            if numba is not None:
                numba.set_num_threads(before)


def counts(device: Device, wanted: Sequence[int]) -> tuple[int, ...]:
    """Those of ``wanted`` that make a difference on a device: a GPU's kernels know no threads of the host."""
    if device.kind != "cpu":
        return (ALL,)
    named = {ALL if count >= machine.cores() else count: None for count in wanted}
    return tuple(named) if machine.cores() > 1 else (ALL,)


def text(count: int) -> str:
    """What a table calls it."""
    return "all" if count == ALL else str(count)
