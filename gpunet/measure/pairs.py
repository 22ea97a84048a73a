"""Two ways of doing the same, timed in turns: A B, B A, A B, ... in one process, and a verdict that may be "unsure".

A machine's clock drifts, and other programs come and go. What hits two samples that lie side by side hits both, so the
ratio of a pair is steadier than either time. The ratio reported is the median over the pairs, with the 95 % interval by
order statistics, which assumes nothing of how the ratios are spread. The verdict holds that interval against the
smallest effect that matters, 5 % if nobody says otherwise:

    same      the whole interval lies within the effect
    slower    the whole interval lies beyond it: the second takes longer than the first
    faster    likewise, the second takes less
    unsure    anything else: the time was over before the interval was narrow enough

Pairs are taken until one of the first three holds at a planned look, or the time is over. Looks are few (each after a
third more pairs), since every look is a chance to be wrong.

Where the processor computes on several threads, each side computes a while alone before its clock starts. The threads
of a library go on watching for work when theirs is done, OpenMP's for some 10 ms, and hold a core that the other side's
turn needs: a kernel of 0.7 ms took 3 ms in turns with one of PyTorch's. And threads that sleep take some calls until
they are awake and each has a core of its own, which no loop of a program's sees but at its start.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from gpunet.cpu import threads
from gpunet.devices import Device
from gpunet.measure import timer
from gpunet.measure.rows import Timing

Call = Callable[[], Any]
EFFECT = 0.05
ALONE = 0.02  # seconds
VERDICTS = ("same", "slower", "faster", "unsure")


class Pair(NamedTuple):
    """Times of two ways of doing the same, and how many times longer the second takes."""

    first: Timing
    second: Timing
    ratio: float
    """Median over the pairs of second / first."""
    low: float
    """Lower end of the median's 95 % interval."""
    high: float
    n: int
    """Pairs."""
    verdict: str
    """What the second is beside the first; see above."""


class Limits(NamedTuple):
    """When to stop."""

    seconds: float = 1.0
    """Not before ``least`` pairs."""
    effect: float = EFFECT
    """The smallest that matters, as a part of the first's time."""
    least: int = 12
    """Pairs before the first look."""
    most: int = 1000


def alone(device: Device) -> float:
    """Seconds that a lane should compute on ``device`` before each sample, with the threads that are set now."""
    return ALONE if device.kind != "cuda" and threads.get_num_threads() > 1 else 0.0


class Around:
    """A call that needs something set up before it and put back after it, such as the modules of another commit.

    Called by itself it does both. A :class:`Lane` does both once a sample, outside the clock, and times the bare call.

    Args:
        call: the work alone.
        setting: makes the context that it needs; all calls of a lane share one.
    """

    def __init__(self, call: Call, setting: Callable[[], AbstractContextManager[Any]]):
        self.call, self.setting = call, setting

    def __call__(self) -> Any:
        """The work in its setting."""
        with self.setting():
            return self.call()


class Lane:
    """One way of doing the work: calls on different copies of the inputs, taking turns, timed by the host's clock.

    Args:
        calls: at least one callable, all of them :class:`Around` or none; its result is let go.
        synchronize: waits until the device has done what it was given.
        cold: whether the copies are so many that each call finds its inputs outside the caches.
        sample: seconds of work in a sample at the least.
        alone: seconds that it computes before each sample; :func:`alone` says how long it should.
    """

    def __init__(
        self, calls: Sequence[Call], synchronize: Call = lambda: None, cold: bool = False, sample: float = 1e-4,
        alone: float = 0.0,
    ):  # fmt: skip
        self.calls = [each.call if isinstance(each, Around) else each for each in calls]
        self.setting = calls[0].setting if isinstance(calls[0], Around) else nullcontext
        self.synchronize, self.cold, self.seconds, self.alone = synchronize, cold, sample, alone
        self.samples: list[float] = []
        self.turn, self.inner = 0, 1
        with self.setting():
            begin = timer.clock()
            self.next()
            synchronize()
            self.first_call = timer.clock() - begin
            for _ in range(3):  # the first of them still loads and allocates
                once = self._sample()
                self.inner = self.calls_of(once)

    def calls_of(self, once: float) -> int:
        """Calls in a sample, for a call of so many seconds."""
        return max(1, math.ceil(self.seconds / max(once, 1e-9)))

    def next(self) -> None:
        """One call, on the next copy."""
        self.calls[self.turn % len(self.calls)]()
        self.turn += 1

    def sample(self) -> float:
        """Seconds a call, kept."""
        with self.setting():
            self.ready()
            self.samples.append(self._sample())
        return self.samples[-1]

    def ready(self) -> None:
        """Computes until the threads of others sleep and its own are awake."""
        if not self.alone:
            return
        end, over = timer.clock() + self.alone, False
        while not over:  # one call at the least
            self.next()
            self.synchronize()
            over = timer.clock() >= end

    def _sample(self) -> float:
        begin = timer.clock()
        for _ in range(self.inner):
            self.next()
        self.synchronize()
        return (timer.clock() - begin) / self.inner

    def timing(self, stopped: str) -> Timing:
        """The samples so far as a row's times."""
        return timer.summary(self.samples, stopped, self.inner, self.first_call, len(self.calls), self.cold)


def compare(first: Lane, second: Lane, limits: Limits = Limits()) -> Pair:  # noqa: B008 a tuple never changes
    """Samples the two in turns until a verdict is reached, or the time or the number of pairs is.

    Args:
        first: one way.
        second: the other.
        limits: when to stop, and what effect matters.
    """
    ratios: list[float] = []
    begin, look, stopped = timer.clock(), limits.least, "time"
    with timer.no_collector():
        while len(ratios) < limits.most:
            if len(ratios) % 2:  # so that neither always comes second
                other, one = second.sample(), first.sample()
            else:
                one, other = first.sample(), second.sample()
            ratios.append(other / max(one, 1e-12))
            over = timer.clock() - begin > limits.seconds
            if len(ratios) < limits.least or not (over or len(ratios) >= look):
                continue
            look = len(ratios) + max(1, len(ratios) // 3)
            if judge(*interval(ratios)[1:], limits.effect) != "unsure":
                stopped = "noise"
                break
            if over:
                break
    middle, low, high = interval(ratios)
    verdict = judge(low, high, limits.effect)
    return Pair(first.timing(stopped), second.timing(stopped), middle, low, high, len(ratios), verdict)


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """The median and its 95 % interval."""
    ordered = np.sort(ratios)
    return float(np.median(ordered)), *timer.median_interval(ordered)


def judge(low: float, high: float, effect: float = EFFECT) -> str:
    """The verdict on a ratio whose interval is known; effects count alike in both directions."""
    if low > 1 + effect:
        return "slower"
    if high < 1 / (1 + effect):
        return "faster"
    return "same" if low >= 1 / (1 + effect) and high <= 1 + effect else "unsure"
