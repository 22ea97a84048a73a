"""The roof: what this device can do at best, measured in this run, and how a row stands under it.

A kernel must at least move its bytes and do its operations. Least time = the larger of bytes / bandwidth and
operations / rate, with both rates probed here: copies and inner products by all cores, and the library's matrix
product. A row that is faster than its least time by more than noise is impossible, so something in it is wrong: the
clock, the count of work, or the kernel, which may have left out what it was to do.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from gpunet import dispatch
from gpunet.devices import Device
from gpunet.dispatch import Work
from gpunet.measure import machine
from gpunet.measure.rows import Roof, Timing

MARGIN = 1.15  # how far a row may beat a probe: a probe, too, is only the best that was seen
SLICE = 2**17  # bytes of the arrays of the cache probe: within the second level of any processor of today


class Standing(NamedTuple):
    """A row under the roof."""

    gflops: float
    gbytes: float
    percent: float
    bound: str
    impossible: bool


def probe(device: Device, dtype: Any, seconds: float = 0.6) -> Roof:
    """Measures the roof of a device for one dtype, in about ``seconds``."""
    dtype = np.dtype(dtype)
    if device.kind == "cuda":
        from gpunet.measure import events

        return events.roof(device, dtype.name)
    with _threads(machine.cores()):
        memory = max(_host_copy(seconds / 4), _host_read(seconds / 8))
        cache = max(memory, _cached_copy(seconds / 8))
        flops = _product(device, dtype, 1024, seconds / 4)
    # Threads that wait for each other make the rate of all cores look low on a busy machine; one alone does not.
    with _threads(1):
        flops = max(flops, machine.cores() * _product(device, dtype, 512, seconds / 4))
    return Roof(str(device), dtype.name, flops, memory, cache, 1)


def better(old: Roof, new: Roof) -> Roof:
    """The best of two probes: a roof is never too high, but a busy moment makes it look low."""
    rates = {name: max(getattr(old, name), getattr(new, name)) for name in ("flops", "memory", "cache")}
    return replace(old, **rates, probes=old.probes + new.probes)


def standing(work: Work, timing: Timing, roof: Roof, saving: float = 1.0) -> Standing:
    """Rates of a row, its percent of the roof, and whether it is impossible.

    Args:
        work: what the entry's title page says must be done.
        timing: the row's times. Cold inputs are held against the memory's rate, hot ones against the cache's.
        roof: of the same device and dtype.
        saving: how many times fewer operations the kernel's algorithm needs than the definition (``savings``).
    """
    bandwidth = roof.memory if timing.cache == "cold" else roof.cache
    moved = work.bytes_read + work.bytes_written
    compute, memory = work.flops / saving / roof.flops, moved / bandwidth
    # For the verdict only what cannot be avoided: a result may stay in the cache, and so may a part of cold inputs.
    certain = max(compute, moved / roof.cache)
    median = max(timing.median, 1e-12)
    return Standing(
        gflops=work.flops / median / 1e9,
        gbytes=moved / median / 1e9,
        percent=100 * max(compute, memory) / median,
        bound="compute" if compute > memory else "memory",
        impossible=bool(timing.high * MARGIN < certain),
    )


def savings(op: str, variant: str) -> float:
    """How many times fewer operations a variant needs than the definition counts; 1 unless its title page says more.

    A title page may hold ``SAVINGS``, variant -> factor, for algorithms such as Winograd's, whose rows would otherwise
    look faster than the processor.
    """
    return float(getattr(dispatch.title(op), "SAVINGS", {}).get(variant, 1.0))


def _best(once: Callable[[], Any], amount: float, seconds: float) -> float:
    """Highest amount a second of repeated calls; the first is not counted."""
    once()
    best, end = 0.0, time.perf_counter() + seconds
    while True:
        begin = time.perf_counter()
        once()
        now = time.perf_counter()
        best = max(best, amount / max(now - begin, 1e-9))
        if now >= end:
            return best


def _threads(count: int) -> Any:
    from threadpoolctl import threadpool_limits

    return threadpool_limits(count)


def _large() -> int:
    """Elements of a float32 array that no cache holds, nor a quarter of it."""
    return min(4 * machine.last_level_cache(), machine.memory()["available"] // 16) // 4


def _host_copy(seconds: float) -> float:
    source, target = np.ones(_large(), np.float32), np.zeros(_large(), np.float32)
    threads = machine.cores()
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return _best(lambda: list(pool.map(lambda part: np.copyto(*part), parts)), 2 * source.nbytes, seconds)


def _host_read(seconds: float) -> float:
    a, b = np.ones(_large(), np.float32), np.ones(_large(), np.float32)
    return _best(lambda: np.dot(a, b), a.nbytes + b.nbytes, seconds)


def _cached_copy(seconds: float) -> float:
    """One core's copy within its cache, times the cores: more than they reach together, so no row is wronged."""
    sizes = (SLICE // 8, SLICE // 2, SLICE)
    rates = []
    for size in sizes:
        source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
        rates.append(_best(lambda s=source, t=target: np.copyto(t, s), 2 * size, seconds / len(sizes)))
    return max(rates) * machine.cores()


def _product(device: Device, dtype: np.dtype, n: int, seconds: float) -> float:
    random = np.random.default_rng(0)
    a, b = (device.asarray(random.standard_normal((n, n)).astype(dtype)) for _ in range(2))
    out = device.xp.empty((n, n), dtype)

    def once() -> None:
        device.xp.matmul(a, b, out=out)
        device.synchronize()

    return _best(once, 2.0 * n**3, seconds)
