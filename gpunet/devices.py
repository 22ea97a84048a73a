"""Devices (where arrays live) and backends (who computes on them).

=======  =========  ============================  ==========================================================
device   arrays     backends, first choice first  meaning
=======  =========  ============================  ==========================================================
cpu      NumPy      numba_cpu, numpy              real work on the processor; numpy is the definition
cuda[:N] CuPy       cupy, numba_cuda              real work on a GPU
sim      NumPy      cupy, numba_cuda              the same GPU kernels and launchers, executed on the CPU
=======  =========  ============================  ==========================================================

Asked for by name, a device or backend that cannot run raises with the reason and the remedy. It never falls back.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from gpunet import config, cuda
from gpunet.cpu import buffers
from gpunet.errors import BackendUnavailableError, DeviceError, NoKernelError

KINDS = ("cpu", "cuda", "sim")


class Device:
    """A place for arrays: ``cpu``, ``cuda:N`` or ``sim``. Get one with :func:`device`; compares with strings too."""

    def __init__(self, kind: str, index: int | None):
        self.kind = kind
        self.index = index

    @cached_property
    def xp(self) -> Any:
        """The array library of this device: the module numpy or cupy."""
        return cuda.cupy() if self.kind == "cuda" else np

    def why_not(self) -> str | None:
        """None when arrays can live here, else the reason and the remedy."""
        if self.kind == "cpu":
            return None
        if self.kind == "sim":
            return cuda.why_no_sim()
        reason = cuda.why_no_cupy()
        if reason is None and (self.index or 0) >= cuda.gpu_count():
            return f"this machine has {cuda.gpu_count()} GPU(s), numbered from 0"
        return reason

    def asarray(self, data: Any, dtype: Any = None) -> Any:
        """``data`` as an array of this device, without a copy where none is needed."""
        if self.kind != "cuda":
            return np.asarray(data.get() if hasattr(data, "get") else data, dtype)
        with cuda.cupy().cuda.Device(self.index or 0):
            return cuda.cupy().asarray(data, dtype)

    def to_host(self, array: Any) -> np.ndarray:
        """A NumPy array with the values of ``array``; the same object on cpu and sim."""
        return array.get() if self.kind == "cuda" else array

    def synchronize(self) -> None:
        """Waits until all work given to this device is done."""
        if self.kind == "cuda":
            cuda.cupy().cuda.Device(self.index or 0).synchronize()

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind}:{self.index}"

    def __repr__(self) -> str:
        return f"device('{self}')"

    def __eq__(self, other: object) -> bool:
        return self is other or str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __reduce__(self) -> tuple[Callable[..., "Device"], tuple[str]]:
        return _named, (str(self),)


@cache
def _named(name: str) -> Device:
    kind, colon, number = name.partition(":")
    if kind not in KINDS or (colon and not (kind == "cuda" and number.isdigit())):
        raise DeviceError(f"device: must be one of cpu, cuda, cuda:N, sim, auto, got {name!r}")
    if kind == "cuda":
        return Device("cuda", int(number or 0)) if colon else _named("cuda:0")
    return Device(kind, None)


CPU = _named("cpu")


def device(spec: "str | Device | None" = None) -> Device:
    """The device named by ``spec``, checked to be usable here.

    Args:
        spec: "cpu", "cuda", "cuda:N", "sim", "auto" (a GPU if one can run, else the cpu), a Device, or None for the
            default: ``GPUNET_DEVICE``, else cpu.

    Raises:
        DeviceError: the name is unknown, or the device cannot be used here; the message has reason and remedy.

    Example:
        >>> import gpunet as gn
        >>> gn.device("cpu")
        device('cpu')
    """
    if spec is None:
        spec = config.settings.device
        if spec != "cpu":
            try:
                return device(spec)
            except DeviceError as error:
                raise DeviceError(f"{error}; the name comes from GPUNET_DEVICE") from None
    if isinstance(spec, Device):
        found = spec
    elif spec == "auto":
        found = CPU if cuda.why_no_cupy() else _named("cuda:0")
    else:
        found = _named(str(spec))
    if found is not CPU:
        reason = found.why_not()
        if reason:
            raise DeviceError(f"device: '{found}' cannot be used here: {reason}")
    return found


@dataclass(frozen=True)
class Backend:
    """One way of computing: its name, its devices, and whether it can run here."""

    name: str
    devices: tuple[str, ...]
    language: str
    reasons: dict[str, Callable[[], str | None]]

    def why_not(self, kind: str) -> str | None:
        """None when this backend can run on devices of this kind here, else reason and remedy."""
        if kind not in self.devices:
            return f"it computes on {' and '.join(self.devices)}, not on {kind}"
        return self.reasons[kind]()

    def need(self, kind: str) -> None:
        """Raises :class:`BackendUnavailableError` when it cannot run on devices of this kind here."""
        reason = self.why_not(kind)
        if reason:
            raise BackendUnavailableError(f"backend '{self.name}' cannot run on device '{kind}': {reason}")

    def need_somewhere(self) -> None:
        """Raises :class:`BackendUnavailableError` when it can run on none of its devices here."""
        reasons = {kind: self.why_not(kind) for kind in self.devices}
        if all(reasons.values()):
            told = "; ".join(f"on {kind}: {reason}" for kind, reason in reasons.items())
            raise BackendUnavailableError(f"backend '{self.name}' cannot run here: {told}")


def _no_numba() -> str | None:
    return None if importlib.util.find_spec("numba") else "Numba is not installed; pip install numba"


BACKENDS: dict[str, Backend] = {
    record.name: record
    for record in (
        Backend("numpy", ("cpu",), "NumPy", {"cpu": lambda: None}),
        Backend("numba_cpu", ("cpu",), "Numba", {"cpu": cache(_no_numba)}),
        Backend("cupy", ("cuda", "sim"), "CUDA C++", {"cuda": cuda.why_no_cupy, "sim": cuda.why_no_sim}),
        Backend(
            "numba_cuda", ("cuda", "sim"), "Numba-CUDA", {"cuda": cuda.why_no_numba_cuda, "sim": cuda.why_no_numba_sim}
        ),
    )
}

#: device kind -> backends, first choice first
CHOICE = {"cpu": ("numba_cpu", "numpy"), "cuda": ("cupy", "numba_cuda"), "sim": ("cupy", "numba_cuda")}


def backend(name: str) -> Backend:
    """The record of backend ``name``.

    Raises:
        NoKernelError: no backend has this name.
    """
    if name not in BACKENDS:
        raise NoKernelError(f"backend: must be one of {', '.join(BACKENDS)}, got {name!r}")
    return BACKENDS[name]


def empty(shape: tuple[int, ...], dtype: Any, xp: Any = np) -> Any:
    """An uninitialised output array for a launcher; filled with NaN (or the largest integer) under poisoning.

    Tests and benchmarks switch poisoning on, so that an element a kernel forgot to write shows. On the processor large
    arrays get memory that was used before, see :mod:`gpunet.cpu.buffers`.
    """
    out = buffers.pool.empty(shape, dtype) if xp is np else xp.empty(shape, dtype)
    if config.settings.poison:
        kind = out.dtype.kind
        out.fill(np.nan if kind == "f" else np.iinfo(out.dtype).max if kind in "iu" else 1)
    return out
