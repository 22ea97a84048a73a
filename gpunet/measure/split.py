"""What belongs to a call beside its kernel's time: handing it over, bringing arrays to the device and back, memory.

None of it is in a row's time. On the processor nothing is handed over and nothing is copied, so those are None.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunet.cpu import buffers
from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.measure import timer
from gpunet.measure.calls import Case, outputs

SAMPLES = 5
LAUNCHES = 64  # in a row, waited for afterwards: far fewer than a stream takes before it makes the host wait


class Split(NamedTuple):
    """Seconds, and bytes; None where there is no such part."""

    launch: float | None = None
    copy_in: float | None = None
    copy_out: float | None = None
    peak: int | None = None


def split(case: Case, kernel: Kernel, device: Device) -> Split:
    """Measures the parts of one call.

    Args:
        case: its arguments.
        kernel: of the case's entry.
        device: where it runs.
    """
    arrays = case.arrays_on(device)

    def call() -> Any:
        return kernel.function(*arrays, **case.call.params)

    if device.kind == "sim":
        return Split()
    if device.kind == "cpu":
        return Split(peak=_host_peak(call))
    result = outputs(call())
    device.synchronize()
    return Split(
        launch=_seconds(lambda: [call() for _ in range(LAUNCHES)], device.synchronize, wait=False) / LAUNCHES,
        copy_in=_seconds(lambda: case.arrays_on(device), device.synchronize),
        copy_out=_seconds(lambda: [device.to_host(each) for each in result], device.synchronize),
        peak=_device_peak(call, device),
    )


def _seconds(call: Callable[[], Any], synchronize: Callable[[], Any], wait: bool = True) -> float:
    """Median of a few calls; with ``wait`` until the device is done."""
    samples = []
    for _ in range(SAMPLES):
        synchronize()
        begin = timer.clock()
        kept = call()
        if wait:
            synchronize()
        samples.append(timer.clock() - begin)
        synchronize()
        del kept
    return float(np.median(samples))


def _host_peak(call: Callable[[], Any]) -> int | None:
    """Bytes that Python and NumPy hold at most during a call beyond what they held; compiled code's own are unseen."""
    if tracemalloc.is_tracing():
        return None  # somebody else counts
    limit = buffers.pool.size().limit
    buffers.pool.set_limit(0)  # what it would hand out again counts as well
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
        del result
        return max(0, peak - before)
    finally:
        tracemalloc.stop()
        buffers.pool.set_limit(limit)


def _device_peak(call: Callable[[], Any], device: Device) -> int:
    """Bytes that a memory pool of its own grows to during a call, in the pool's steps of 512."""
    pool = device.xp.cuda.MemoryPool()
    with device.xp.cuda.using_allocator(pool.malloc):
        result = call()
        device.synchronize()
        peak = pool.total_bytes()
        del result
    return int(peak)
