"""The clock: repeated calls, the first one apart, until the noise is small, nothing new is seen, or the time is spent.

A sample is one call, or as many as make a tenth of a millisecond. No sample is left out, however late it came in;
outliers are counted. The 95 % interval is that of the median by order statistics, which assumes nothing of how the
times are spread.

Three things end it, none before ``min_time``: the quartiles lie close together ("noise"); the entropy of the samples'
histogram has stopped growing, so that more samples would only repeat what is known, however wide it is ("entropy", the
idea and the angle of nvbench's entropy criterion); ``max_time`` ("time").

What is timed runs in the same process and could replace the clock. So the clock is kept from when this file was
imported, and every sample is taken by a second clock as well.
"""

import gc
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gpunet.errors import KernelError
from gpunet.measure import machine
from gpunet.measure.rows import Timing

COPIES = 1024  # more copies of the inputs than this are not made, however small they are
MEMORY = 512 * 2**20  # nor more bytes of them
CLOSING = 4  # samples whose results are looked at, so that work left out every second or third time shows
BIN = math.log(1.02)  # of the histogram behind the entropy: 2 % of the time
ANGLE = math.tan(math.radians(0.048))  # entropy gained a sample, below which it grows no more; nvbench's default
CLOCKS = 0.1  # two clocks may differ by this share, and by what reading one takes
READING = 5e-6
HIDDEN, HIDDEN_SECONDS = 2.0, 2e-3  # work that a device's clock does not see: this share of what it sees, and seconds

_clock = time.perf_counter
clock = _clock  # for whoever else times: this one is kept from import on


def _raw_clock() -> Callable[[], float]:
    """A second clock that shares no function with the first, and where there is one no source either."""
    gettime, source = getattr(time, "clock_gettime", None), getattr(time, "CLOCK_MONOTONIC_RAW", None)
    return time.monotonic if gettime is None or source is None else lambda: gettime(source)


_second_clock = _raw_clock()
_resolution = 1e-9 if hasattr(time, "clock_gettime") else time.get_clock_info("monotonic").resolution


class ClockError(KernelError):
    """Two clocks disagree about the same samples."""


class Between(Protocol):
    """What is done between the samples, while no clock runs."""

    def before(self, turns: range, closing: bool) -> None:
        """Called before a sample with the numbers of its calls; ``closing`` for the last few samples."""
        ...

    def after(self, turn: int, result: Any) -> None:
        """Called after each of the last few samples with its first call and what that returned, and with its last."""
        ...


class Stopwatch(Protocol):
    """A device's own clock, started and stopped in the order of its work."""

    waited: float
    """Seconds that the device was made to wait before the last start."""

    def start(self, count: int) -> None:
        """Called before so many calls are handed over."""
        ...

    def stop(self) -> None:
        """Called after the last was handed over, whether the device is done or not."""
        ...

    def seconds(self) -> float:
        """From start to stop; called once the device has been waited for."""
        ...


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
    calls: Sequence[Callable[[], Any]],
    synchronize: Callable[[], Any],
    limits: Limits,
    cold: bool = False,
    between: Between | None = None,
    stopwatch: Stopwatch | None = None,
) -> Timing:
    """Times ``calls``, which do the same work on different copies of the inputs, taking turns.

    Args:
        calls: at least one callable; its result is let go.
        synchronize: waits until the device has done what it was given; called before the clock is read.
        limits: when to stop.
        cold: whether the copies are so many that each call finds its inputs outside the caches; noted in the result.
        between: told before every sample, and given the results of the last few.
        stopwatch: of the device; its times are the samples, and the host's two clocks are held against each other only.

    Returns:
        Median, quartiles, interval and count, in seconds a call.

    Raises:
        ClockError: the second clock says otherwise.
    """
    loop = _Loop(calls, synchronize, between, stopwatch)
    with no_collector():
        first = loop.sample(1)
        inner = _calls_in_a_sample(_warm_up(loop, limits), limits)
        samples, stopped = _collect(loop, inner, limits)
        for _ in range(2):
            one = loop.median_again(len(samples))
            if inner * one >= limits.sample / 4:
                break
            inner = _calls_in_a_sample(one, limits)  # calls were slow at first only, so samples were too short
            samples, stopped = _collect(loop, inner, limits)
    loop.need_two_clocks_alike(len(samples), inner)
    if stopwatch is not None:
        loop.need_nothing_hidden(len(samples), inner)
    return summary(samples, stopped, inner, first, len(calls), cold)


class _Loop:
    """The calls in turn, timed by two clocks."""

    def __init__(
        self, calls: Sequence[Callable[[], Any]], synchronize: Callable[[], Any], between: Between | None,
        stopwatch: Stopwatch | None,
    ):  # fmt: skip
        self.calls, self.synchronize, self.between, self.stopwatch = calls, synchronize, between, stopwatch
        self.turn = 0
        self.host: list[float] = []  # the samples by the host's clock
        self.again: list[float] = []  # and by its second clock
        self.seen: list[float] = []  # and by the device's
        self.hidden: list[float] = []  # what the host saw beyond that

    def sample(self, count: int, closing: bool = False) -> float:
        """Seconds a call."""
        calls, begun, turn = self.calls, self.turn, self.turn + 1
        if self.between is not None:
            self.between.before(range(begun, begun + count), closing)
        self.synchronize()
        early = _second_clock()
        begin = _clock()
        if self.stopwatch is not None:
            self.stopwatch.start(count)
        first = result = calls[begun % len(calls)]()
        for _ in range(count - 1):
            result = calls[turn % len(calls)]()
            turn += 1
        if self.stopwatch is not None:
            self.stopwatch.stop()
        self.synchronize()
        end = _clock()
        late = _second_clock()
        self.turn = turn
        self.again.append((late - early) / count)
        self.host.append((end - begin) / count)
        if closing and self.between is not None:
            self.between.after(begun, first)  # the first call met new inputs for certain, the last is another of them
            if count > 1:
                self.between.after(turn - 1, result)
        if self.stopwatch is None:
            return self.host[-1]
        self.seen.append(self.stopwatch.seconds() / count)
        self.hidden.append(self.host[-1] - self.stopwatch.waited / count - self.seen[-1])
        return self.seen[-1]

    def median_again(self, count: int) -> float:
        """Median of the last ``count`` samples by the second clock, which decides how many calls are made."""
        return float(np.median(self.again[-count:]))

    def need_nothing_hidden(self, count: int, inner: int) -> None:
        """Raises if the host waited far longer than the device's clock explains: another stream was at work."""
        hidden, seen = (float(np.median(each[-count:])) for each in (self.hidden, self.seen))
        if hidden > HIDDEN * seen + HIDDEN_SECONDS / inner:
            raise ClockError(
                f"its calls must be done on the current stream, got {seen:.2e} seconds there and {hidden:.2e} more "
                "until the device is idle; launch on the current stream alone"
            )

    def need_two_clocks_alike(self, count: int, inner: int) -> None:
        """Raises unless both clocks say the same of the median; single samples may be interrupted in between."""
        one, other = float(np.median(self.host[-count:])), self.median_again(count)
        if abs(one - other) > CLOCKS * max(one, other) + (READING + 2 * _resolution) / inner:
            raise ClockError(
                f"its calls must take as long by one clock as by another, got {one:.2e} and {other:.2e} seconds; "
                "it replaces a clock"
            )


def _calls_in_a_sample(seconds: float, limits: Limits) -> int:
    return max(1, math.ceil(limits.sample / max(seconds, 1e-9)))


def _warm_up(loop: _Loop, limits: Limits) -> float:
    """Calls until the warm-up time is over; the shortest of them. A call beyond all limits is not repeated for it."""
    if loop.again[0] >= limits.max_time:
        return loop.again[0]
    end = _second_clock() + limits.warmup
    loop.sample(1)
    while _second_clock() < end:
        loop.sample(1)
    return min(loop.again[1:])


def _collect(loop: _Loop, inner: int, limits: Limits) -> tuple[list[float], str]:
    samples: list[float] = []
    begin = _second_clock()
    check, stopped = limits.min_samples, ""
    while not stopped:
        samples.append(loop.sample(inner))
        spent = _second_clock() - begin
        if spent >= limits.max_time and (len(samples) >= 3 or spent >= 2 * limits.max_time):
            stopped = "time"
        elif len(samples) >= check and spent >= limits.min_time:
            stopped = "noise" if _noise(samples) <= limits.noise else "entropy" if settled(samples) else ""
            check = len(samples) + max(1, len(samples) // 4)  # looking after every sample would cost more than it
    if loop.between is not None:
        short = inner * samples[-1] * CLOSING <= limits.max_time
        samples += [loop.sample(inner, closing=True) for _ in range(CLOSING if short else 1)]
    return samples, stopped


def _noise(samples: Sequence[float]) -> float:
    p25, median, p75 = np.percentile(samples, (25, 50, 75))
    return float((p75 - p25) / median) if median else 0.0


def settled(samples: Sequence[float]) -> bool:
    """Whether the entropy of the samples' histogram has stopped growing.

    That of the first n samples, for each n, is fitted by a line over its second half; it must be as flat as nvbench's
    (nvbench/detail/entropy_criterion). nvbench counts a GPU's times as they are, which its clock has rounded; here
    times are rounded to 2 %, since a host's clock gives no two alike. Its second condition, how well the line fits, is
    left out: over the second half alone a flat line is a good fit of what has ended and of nothing else.
    """
    counts: Counter[int] = Counter()
    entropy, total = [], 0.0  # total: the sum of c log2(c) over the bins
    for n, seconds in enumerate(samples, 1):
        key = round(math.log(max(seconds, 1e-12)) / BIN)
        count = counts[key]
        counts[key] = count + 1
        total += (count + 1) * math.log2(count + 1) - (count * math.log2(count) if count else 0.0)
        entropy.append(math.log2(n) - total / n)
    half = entropy[len(entropy) // 2 :]
    return len(half) > 1 and abs(float(np.polyfit(np.arange(len(half)), half, 1)[0])) <= ANGLE


def summary(samples: Sequence[float], stopped: str, inner: int, first: float, buffers: int, cold: bool) -> Timing:
    """Samples, in seconds a call, as a row's times."""
    ordered = np.sort(samples)
    p25, median, p75 = (float(each) for each in np.percentile(ordered, (25, 50, 75)))
    low, high = median_interval(ordered)
    return Timing(
        median, p25, p75, low, high, float(ordered[0]), float(ordered[-1]), len(samples), inner, first,
        _noise(samples), buffers, "cold" if cold else "hot", stopped, outliers(ordered, p25, p75),
    )  # fmt: skip


def outliers(samples: np.ndarray, p25: float, p75: float) -> int:
    """How many samples lie beyond 1.5 times the quartiles' distance from the nearer quartile (Tukey's fences)."""
    reach = 1.5 * (p75 - p25)
    return int(np.count_nonzero((samples < p25 - reach) | (samples > p75 + reach)))


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
    gc.collect(1)  # what is young: looking at everything would take longer than most rows
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
