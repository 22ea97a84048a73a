"""The clock on a GPU: events on the stream around repeated calls, with the launches' own cost kept out.

A sample is: a kernel that only waits, an event, some calls, an event. While the GPU waits, the host hands over all
calls, so between the events the GPU runs them back to back. Two ways of doing the same are sampled in turns, A B A B,
so that a clock that drifts slows both; the ratio of a pair is one sample of the ratio.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunet import cuda
from gpunet.devices import Device
from gpunet.measure import timer
from gpunet.measure.rows import Roof, Timing

SAMPLE = 2e-4  # seconds of work in a sample at the least
CALLS = 256  # and at most so many calls: a stream takes about a thousand launches before it makes the host wait
L2 = 64 * 2**20  # bytes: more than the second-level cache of any GPU known here

Call = Callable[[], Any]


class Pair(NamedTuple):
    """Times of two ways of doing the same, and how many times longer the second takes."""

    first: Timing
    second: Timing
    ratio: float
    low: float
    high: float


def _probes(real: str = "float") -> Any:
    return cuda.load(str(Path(cuda.__file__).parent / "probes.cu"), real=real)


class Lane:
    """One way of doing the work: calls on different copies of the inputs, taking turns."""

    def __init__(self, calls: Sequence[Call], device: Device):
        self.calls, self.device = calls, device
        self.samples: list[float] = []
        self.looks = device.xp.zeros(1, "int64") if device.kind == "cuda" else None
        self.turn = 0
        begin = time.perf_counter()
        self._next()
        device.synchronize()
        self.first_call = time.perf_counter() - begin
        self.inner = 1
        self.host = 0.0
        for _ in range(2):  # the second time with everything loaded
            once = self._sample()
            self.inner = max(1, min(CALLS, math.ceil(SAMPLE / max(once, 1e-9))))

    def _next(self) -> None:
        self.calls[self.turn % len(self.calls)]()
        self.turn += 1

    def sample(self) -> float:
        """Seconds a call, kept."""
        self.samples.append(self._sample())
        return self.samples[-1]

    def _sample(self) -> float:
        if self.device.kind != "cuda":
            begin = time.perf_counter()
            for _ in range(self.inner):
                self._next()
            return (time.perf_counter() - begin) / self.inner
        return self._events()

    def _events(self) -> float:
        cupy = cuda.cupy()
        with cupy.cuda.Device(self.device.index or 0):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            nanoseconds = int(1e9 * (1e-4 + 1.5 * self.host * self.inner))
            _probes().wait((1,), (1,), (self.looks, nanoseconds))
            started = time.perf_counter()
            begin.record()
            for _ in range(self.inner):
                self._next()
            end.record()
            self.host = (time.perf_counter() - started) / self.inner
            end.synchronize()
            return cupy.cuda.get_elapsed_time(begin, end) / 1e3 / self.inner

    def timing(self, stopped: str) -> Timing:
        """The samples so far as a row's times."""
        return timer._summary(self.samples, stopped, self.inner, self.first_call, len(self.calls), len(self.calls) > 1)


def compare(first: Lane, second: Lane, seconds: float, most: int = 200, least: int = 5) -> Pair:
    """Samples the two in turns until the ratio is known to 1 %, or the time or the number is spent.

    Args:
        first: one way.
        second: the other.
        seconds: when to stop, but not before ``least`` pairs.
        most: pairs.
        least: pairs.
    """
    ratios: list[float] = []
    begin = time.perf_counter()
    stopped = "time"
    while len(ratios) < most:
        one, other = first.sample(), second.sample()
        ratios.append(other / one)
        if len(ratios) < least:
            continue
        if time.perf_counter() - begin > seconds:
            break
        low, high = timer.median_interval(np.sort(ratios))
        if len(ratios) >= 20 and high - low < 0.01 * float(np.median(ratios)):
            stopped = "noise"
            break
    low, high = timer.median_interval(np.sort(ratios))
    return Pair(first.timing(stopped), second.timing(stopped), float(np.median(ratios)), low, high)


def copies_for(nbytes: int) -> int:
    """Copies of inputs that together exceed twice the second-level cache, so that each call finds its own outside."""
    return max(1, min(64, math.ceil(2 * L2 / max(nbytes, 1)))) if nbytes < 2 * L2 else 1


@cache
def roof(device: Device, dtype: str, seconds: float = 1.0) -> Roof:
    """The GPU's roof: its rate of multiplications and additions by a kernel that does nothing else, and of copies.

    The vendor's matrix product is no roof: it can be beaten.
    """
    cupy = cuda.cupy()
    real = {"float32": "float", "float64": "double"}[dtype]
    blocks, threads, rounds = 8 * cuda.multiprocessors(device.asarray(np.zeros(1))), 256, 4096
    y = device.xp.empty(blocks * threads, dtype)
    arguments = (y, 1.0 - 2.0**-20, 2.0**-20, rounds)
    work = Lane([lambda: _probes(real).multiply_add((blocks,), (threads,), arguments)], device)
    big, small = (_copy_rate(device, nbytes) for nbytes in (2**30, 2**24))
    while len(work.samples) < 10:
        work.sample()
    flops = 32.0 * rounds * blocks * threads / min(work.samples)
    cupy.get_default_memory_pool().free_all_blocks()
    return Roof(str(device), dtype, flops, big, max(big, small), 1)


def _copy_rate(device: Device, nbytes: int) -> float:
    source = device.xp.ones(nbytes // 4, "float32")
    target = device.xp.empty_like(source)
    lane = Lane([lambda: device.xp.copyto(target, source)], device)
    for _ in range(10):
        lane.sample()
    return 2 * nbytes / min(lane.samples)
