"""What a launch costs the host: the time from the public function to the driver, step by step, for each backend.

A kernel on few numbers takes longer to launch than to run. The steps, each measured by itself on 16 numbers of relu:

    op         ``F.relu(x)``: the checks, the choice of a kernel, the launcher, the result as a tensor
    choice     of which: finding the kernel among the rungs
    launcher   of which: the kernel's Python function, with the making of its output
    check      of which: holding the arguments against the kernel's signature, and binding them
    launch     of which: handing the bound launch to the driver, which a loop over the same arrays pays alone

The device is waited for between samples, outside the clock. On ``sim``, and for steps that a backend has not, there is
no figure: the emulator and the simulator run a kernel instead of launching it.
"""

import importlib
import importlib.util
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from gpunet import config, devices, dispatch, functional
from gpunet.creation import tensor as tensor_of
from gpunet.devices import Device
from gpunet.measure import timer
from gpunet.modes import no_grad

STEPS = ("op", "choice", "launcher", "check", "launch")
ENTRY = "relu.forward"
NUMBERS = np.linspace(-1, 1, 16, dtype=np.float32)
CALLS = 100  # of a sample; a stream takes about a thousand launches before it makes the host wait

Steps = dict[str, Callable[[], Any]]


class Cost(NamedTuple):
    """One step on one backend: seconds of a call."""

    device: str
    backend: str
    step: str
    median: float
    low: float
    """The median's 95 % interval."""
    high: float
    peer: str = ""
    """Another library that did the same in turns, see :mod:`gpunet.measure.chains`."""
    theirs: float | None = None
    """Its median."""
    ratio: float | None = None
    """Median over the pairs of its time over ours, and the 95 % interval."""
    ratio_low: float | None = None
    ratio_high: float | None = None


def costs(seconds: float = 0.2) -> list[Cost]:
    """Every step that can be measured here, of every backend that runs here.

    Args:
        seconds: for one step.
    """
    found = []
    for kind in ("cpu", "cuda", "sim"):
        for backend in devices.BACKENDS.values():
            if kind in backend.devices and dispatch.variants(ENTRY, backend.name):
                steps = (
                    _steps(kind, backend.name) if backend.why_not(kind) is None else _steps_of_stopped(kind, backend)
                )
                found += [_cost(kind, backend.name, step, steps[step], seconds) for step in STEPS if step in steps]
    return found


def _steps(kind: str, backend: str) -> Steps:
    """The steps of a backend that runs on this kind of device."""
    device = devices.device(kind)
    x = device.asarray(NUMBERS)
    tensor = tensor_of(x, device=str(device))
    with config.use_backend(backend):
        rung = dispatch.find(device, ENTRY, (x,), {})

    def op() -> None:
        functional.relu(tensor)

    bind = _binding(backend, x)
    found: Steps = {"choice": lambda: dispatch.find(device, ENTRY, (x,), {})}
    if kind != "sim":
        found |= {"op": op, "launcher": lambda: rung.function(x)}
    if bind is not None:
        found["check"] = bind
        if kind == "cuda":
            found["launch"] = bind()
    return found


def _steps_of_stopped(kind: str, backend: devices.Backend) -> Steps:
    """Arguments are checked alike whether the simulator is on or not: that step alone."""
    if kind != "sim" or (backend.name == "numba_cuda" and importlib.util.find_spec("numba") is None):
        return {}
    bind = _binding(backend.name, NUMBERS) if backend.name == "numba_cuda" else None
    return {} if bind is None else {"check": bind}


def _binding(backend: str, x: Any) -> Callable[[], Callable[[], None]] | None:
    """What binds one launch of the plain rung; None for a backend whose kernels are Python functions."""
    if backend == "cupy":
        kernel = importlib.import_module("gpunet.cuda").load("relu", real="float").relu_forward_plain
    elif backend == "numba_cuda":
        kernel = importlib.import_module("gpunet.kernels.relu.relu_numba_cuda").relu_forward_plain_kernel(x)
    else:
        return None
    arguments = (x.copy(), x, x.size)
    return lambda: kernel.bind((1,), (32,), arguments)


def _cost(kind: str, backend: str, step: str, call: Callable[[], Any], seconds: float) -> Cost:
    device: Device = devices.device(kind)
    samples: list[float] = []
    runs = devices.backend(backend).why_not(kind) is None
    with no_grad(), config.use_backend(backend) if runs else nullcontext():
        call()
        end = time.perf_counter() + seconds
        while len(samples) < 10 or time.perf_counter() < end:
            device.synchronize()
            begin = time.perf_counter()
            for _ in range(CALLS):
                call()
            samples.append((time.perf_counter() - begin) / CALLS)
        device.synchronize()
    ordered = np.sort(samples[1:])
    return Cost(str(device), backend, step, float(np.median(ordered)), *timer.median_interval(ordered))
