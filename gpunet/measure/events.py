"""The clock on a GPU: events on the stream around repeated calls, with the launches' own cost kept out.

A sample is: a kernel that only waits, an event, some calls, an event. While the GPU waits, the host hands over all
calls, so between the events the GPU runs them back to back. Two ways of doing the same are compared by
:mod:`gpunet.measure.pairs`.
"""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gpunet import cuda
from gpunet.devices import Device
from gpunet.measure import pairs, timer
from gpunet.measure.rows import Roof

SAMPLE = 2e-4  # seconds of work in a sample at the least
CALLS = 256  # and at most so many calls: a stream takes about a thousand launches before it makes the host wait
L2 = 64 * 2**20  # bytes: more than the second-level cache of any GPU known here


def _probes(real: str = "float") -> Any:
    return cuda.load(str(Path(cuda.__file__).parent / "probes.cu"), real=real)


class Stopwatch:
    """Events on the current stream, for :func:`gpunet.measure.timer.measure`; launches are handed over while it waits.

    Args:
        device: a GPU.
    """

    def __init__(self, device: Device):
        self.device, self.looks, self.wait = device, device.xp.zeros(1, "int64"), _probes().wait
        self.handed = 1e-3  # seconds in which the host hands one call over; the first sample shows it
        self.count, self.started, self.waited = 1, 0.0, 0.0
        self.begin, self.end = (device.xp.cuda.Event() for _ in range(2))

    def start(self, count: int) -> None:
        """Lets the GPU wait, long enough for the host to hand over so many calls, then marks the beginning."""
        nanoseconds = int(1e9 * (1e-4 + 1.5 * self.handed * min(count, CALLS)))
        self.wait((1,), (1,), (self.looks, nanoseconds))
        self.waited = nanoseconds / 1e9
        self.count, self.started = count, timer.clock()
        self.begin.record()

    def stop(self) -> None:
        """Marks the end behind all calls."""
        self.end.record()
        self.handed = (timer.clock() - self.started) / self.count

    def seconds(self) -> float:
        """Between the two marks, on the GPU's clock."""
        self.end.synchronize()
        return float(self.device.xp.cuda.get_elapsed_time(self.begin, self.end)) / 1e3


class Lane(pairs.Lane):
    """One way of doing the work on a device; on a GPU its samples are timed between events on the stream."""

    def __init__(self, calls: Sequence[pairs.Call], device: Device):
        self.device = device
        self.looks, self.wait = None, None
        if device.kind == "cuda":  # found now: during a sample the modules may be another commit's
            self.looks, self.wait = device.xp.zeros(1, "int64"), _probes().wait
        self.host = 0.0  # seconds in which a call is handed over
        super().__init__(calls, device.synchronize, len(calls) > 1, SAMPLE, pairs.alone(device))

    def calls_of(self, once: float) -> int:
        """Calls in a sample."""
        return min(CALLS, super().calls_of(once))

    def _sample(self) -> float:
        if self.wait is None:
            return super()._sample()
        cupy = cuda.cupy()
        with cupy.cuda.Device(self.device.index or 0):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            nanoseconds = int(1e9 * (1e-4 + 1.5 * self.host * self.inner))
            self.wait((1,), (1,), (self.looks, nanoseconds))
            started = timer.clock()
            begin.record()
            for _ in range(self.inner):
                self.next()
            end.record()
            self.host = (timer.clock() - started) / self.inner
            end.synchronize()
            return cupy.cuda.get_elapsed_time(begin, end) / 1e3 / self.inner


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
