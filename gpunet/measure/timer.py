"""The clock: repeated calls, the first one apart, until the noise is small or the time is spent.

A sample is one call, or as many as make a tenth of a millisecond. No sample is left out, however late it came in. The
95 % interval is that of the median by order statistics, which assumes nothing of how the times are spread.
"""

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.measure import machine
from gpunet.measure.rows import Timing

COPIES = 1024  # more copies of the inputs than this are not made, however small they are
MEMORY = 512 * 2**20  # nor more bytes of them


@dataclass(frozen=True)
class Limits:
    """When to stop; seconds."""

    warmup: float = 0.05
    """Calls before the first sample go on this long."""
    min_time: float = 0.1
    """No stop for small noise before this."""
    max_time: float = 1.0
    """Stop after this, but not before three samples, unless even those take twice as long."""
    min_samples: int = 10
    """No stop for small noise with fewer."""
    noise: float = 0.05
    """Small enough: distance of the quartiles over the median."""
    sample: float = 1e-4
    """Shorter calls are timed several at once."""


def measure(
    calls: Sequence[Callable[[], Any]], synchronize: Callable[[], Any], limits: Limits, cold: bool = False
) -> Timing:
    """Times ``calls``, which do the same work on different copies of the inputs, taking turns.

    Args:
        calls: at least one callable; its result is let go.
        synchronize: waits until the device has done what it was given; called before the clock is read.
        limits: when to stop.
        cold: whether the copies are so many that each call finds its inputs outside the caches; noted in the result.

    Returns:
        Median, quartiles, interval and count, in seconds a call.
    """
    turn = 0

    def sample(count: int) -> float:
        nonlocal turn
        begin = time.perf_counter()
        for _ in range(count):
            calls[turn % len(calls)]()
            turn += 1
        synchronize()
        return (time.perf_counter() - begin) / count

    synchronize()
    with no_collector():
        first = sample(1)
        one = _warm_up(sample, first, limits)
        inner = max(1, math.ceil(limits.sample / max(one, 1e-9)))
        samples, stopped = _collect(sample, inner, limits)
    return summary(samples, stopped, inner, first, len(calls), cold)


def _warm_up(sample: Callable[[int], float], first: float, limits: Limits) -> float:
    """Calls until the warm-up time is over; the shortest of them. A call beyond all limits is not repeated for it."""
    if first >= limits.max_time:
        return first
    end, best = time.perf_counter() + limits.warmup, sample(1)
    while time.perf_counter() < end:
        best = min(best, sample(1))
    return best


def _collect(sample: Callable[[int], float], inner: int, limits: Limits) -> tuple[list[float], str]:
    samples: list[float] = []
    begin = time.perf_counter()
    check = limits.min_samples
    while True:
        samples.append(sample(inner))
        spent = time.perf_counter() - begin
        if spent >= limits.max_time and (len(samples) >= 3 or spent >= 2 * limits.max_time):
            return samples, "time"
        if len(samples) >= check and spent >= limits.min_time:
            if _noise(samples) <= limits.noise:
                return samples, "noise"
            check = len(samples) + max(1, len(samples) // 4)  # looking after every sample would cost more than it


def _noise(samples: Sequence[float]) -> float:
    p25, median, p75 = np.percentile(samples, (25, 50, 75))
    return float((p75 - p25) / median) if median else 0.0


def summary(samples: Sequence[float], stopped: str, inner: int, first: float, buffers: int, cold: bool) -> Timing:
    """Samples, in seconds a call, as a row's times."""
    ordered = np.sort(samples)
    p25, median, p75 = (float(each) for each in np.percentile(ordered, (25, 50, 75)))
    low, high = median_interval(ordered)
    return Timing(
        median, p25, p75, low, high, float(ordered[0]), float(ordered[-1]), len(samples), inner, first,
        _noise(samples), buffers, "cold" if cold else "hot", stopped,
    )  # fmt: skip


def median_interval(ordered: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the median of sorted samples: those at ranks n/2 ± 0.98 sqrt(n), or all of them if few."""
    n = len(ordered)
    half = 0.98 * math.sqrt(n)
    low, high = math.floor(n / 2 - half), math.ceil(n / 2 + half)
    return float(ordered[max(0, low)]), float(ordered[min(n - 1, high)])


@contextmanager
def no_collector() -> Iterator[None]:
    """Python's garbage collector stands still inside: it would run in some samples and not in others."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def copies_for(nbytes: int, cache: int | None = None) -> tuple[int, bool]:
    """How many copies of inputs of ``nbytes`` make every call find its own outside the caches, and whether they do.

    Copies exceed twice the last-level cache together, so the one that comes next was pushed out since its last turn.
    """
    cache = machine.last_level_cache() if cache is None else cache
    room = min(MEMORY, machine.memory()["available"] // 8)
    wanted = 1 + math.ceil(2 * cache / max(nbytes, 1))
    copies = min(wanted, COPIES, max(1, room // max(nbytes, 1)))
    return (copies, True) if copies == wanted or (copies == 1 and nbytes > 2 * cache) else (1, False)
