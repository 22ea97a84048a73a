"""Looking at launches: traces, captures, GPUNET_DEBUG and GPUNET_CHECK.

:func:`gpunet.dispatch.launch` goes through here only while somebody looks.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpunet import config
from gpunet.devices import Device
from gpunet.errors import KernelError

if TYPE_CHECKING:
    from gpunet.dispatch import Kernel


class Launch(NamedTuple):
    """One line of a trace: which kernel ran, on what."""

    entry: str
    backend: str
    variant: str
    device: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: str
    place: str
    phase: str
    by_name: bool

    def __str__(self) -> str:
        shapes = " ".join("x".join(map(str, shape)) or "()" for shape in self.shapes)
        return f"{self.phase:8} {self.entry}/{self.backend}/{self.variant} {shapes} {self.dtype} {self.place}"


class Trace(list[Launch]):
    """The launches of a ``gn.trace()`` block, in order; printing it gives one line a launch."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))


traces: list[Trace] = []  # not per thread: a trace is meant to see every launch of the program


@contextmanager
def trace() -> Iterator[Trace]:
    """Records which kernel ran for each op inside the block, forward and backward.

    Example:
        >>> import gpunet as gn
        >>> x = gn.ones(2, 3, requires_grad=True)
        >>> with gn.trace() as launches:
        ...     gn.functional.sigmoid(x).sum().backward()
        >>> [(each.phase, each.entry) for each in launches]
        [('forward', 'sigmoid.forward'), ('backward', 'sigmoid.grad_x')]
    """
    record = Trace()
    traces.append(record)
    try:
        yield record
    finally:
        traces[:] = [each for each in traces if each is not record]


class Call(NamedTuple):
    """One launch as it can be repeated: the entry and exactly what its launcher got."""

    entry: str
    device: Device
    arrays: tuple[Any, ...]
    params: dict[str, Any]

    def run(self, kernel: "Kernel") -> Any:
        """What ``kernel`` makes of these arguments."""
        return kernel.function(*self.arrays, **self.params)


captures: list[list[Call]] = []


@contextmanager
def capture() -> Iterator[list[Call]]:
    """Collects every launch inside the block with its arguments: proof and timing repeat it on any kernel."""
    calls: list[Call] = []
    captures.append(calls)
    try:
        yield calls
    finally:
        captures[:] = [each for each in captures if each is not calls]


told: set[tuple[str, str]] = set()


def _tell_choice(kernel: "Kernel", device: Device) -> None:
    """For GPUNET_DEBUG: each automatic choice once."""
    by_name = config.wanted_backend() or config.wanted_variant(kernel.entry)
    if not by_name and (kernel.name, str(device)) not in told:
        told.add((kernel.name, str(device)))
        print(f"gpunet: {device} chose {kernel}", file=sys.stderr)  # noqa: T201 asked for by GPUNET_DEBUG


def watched(kernel: "Kernel", device: Device, arrays: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """A launch with whatever a trace, a capture, GPUNET_DEBUG or GPUNET_CHECK asks for around the call."""
    if config.settings.debug:
        _tell_choice(kernel, device)
    for calls in captures:
        calls.append(Call(kernel.entry, device, arrays, params))
    begin = time.perf_counter()
    result = kernel.function(*arrays, **params)
    given = [each for each in arrays if hasattr(each, "shape")]
    by_name = bool(config.wanted_backend() or config.wanted_variant(kernel.entry))
    line = Launch(
        kernel.entry, kernel.backend, kernel.variant, str(device), tuple(tuple(each.shape) for each in given),
        str(given[0].dtype) if given else "", kernel.place, config.local.phase, by_name,
    )  # fmt: skip
    for record in traces:
        record.append(line)
    if config.settings.check or config.settings.debug >= 2:
        device.synchronize()
    if config.settings.debug >= 2:
        print(f"gpunet: {line} {1e3 * (time.perf_counter() - begin):.3f} ms", file=sys.stderr)  # noqa: T201 asked for by GPUNET_DEBUG
    if config.settings.check:
        _need_no_new_nan(kernel, device, given, result)
    return result


def _need_no_new_nan(kernel: "Kernel", device: Device, given: list[Any], result: Any) -> None:
    def has_nan(array: Any) -> bool:
        return array.dtype.kind == "f" and bool(np.isnan(device.to_host(array)).any())

    outputs = result if isinstance(result, tuple) else (result,)
    bad = [k for k, array in enumerate(outputs) if hasattr(array, "dtype") and has_nan(array)]
    if bad and not any(has_nan(array) for array in given):
        raise KernelError(
            f"{kernel.name} at {kernel.place}: output {bad[0]} holds NaN though no input does; look for an element "
            "that was not written, a division by zero, or an overflow in an earlier layer"
        )
