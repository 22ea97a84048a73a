"""Every setting: the environment variables, and the context managers that override them in one thread.

Precedence: argument, then context manager, then environment, then automatic. Nothing else in gpunet reads the
environment. The variables are read once, at import; ``reload()`` reads them again.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gpunet.errors import ArgumentError

#: name -> what it does. The table in README.md is held against this one by a test.
VARIABLES = {
    "GPUNET_DEVICE": "device of new tensors: cpu (default), cuda, cuda:N, sim, or auto (a GPU if one can run)",
    "GPUNET_BACKEND": "backend every kernel must come from: numpy, numba_cpu, cupy, numba_cuda",
    "GPUNET_VARIANT_<OP>": "rung every entry of that op must use, or entry=rung,entry=rung",
    "GPUNET_FUSED": "1 or 0: whether ops launch fused kernels (default: where the device has them)",
    "GPUNET_DEBUG": "1 devices and automatic choices, 2 and every launch, 3 and what is compiled, 4 and kernel sources",
    "GPUNET_CHECK": "1 synchronises after each launch and refuses a NaN that was not in the inputs",
    "GPUNET_DATA": "folder searched first for data sets",
    "GPUNET_SEED": "seed of the first random state (default 0)",
    "GPUNET_SIM_SEED": "seed of the order in which device sim runs threads and blocks (default 0)",
    "GPUNET_NUM_THREADS": "threads of the processor's kernels (default: OMP_NUM_THREADS and its like, else all cores)",
    "GPUNET_CACHE": "folder of compiled kernels and records (default: the user's cache folder)",
}


@dataclass
class Settings:
    """What the environment says. One instance, :data:`settings`."""

    device: str = "cpu"
    """Device of new tensors."""
    backend: str | None = None
    """Backend every kernel must come from; None: the first that can run."""
    variants: dict[str, str] = field(default_factory=dict)
    """Op or entry -> rung that must be used."""
    fused: bool | None = None
    """Whether ops launch fused entries; None: where the device has kernels for them."""
    debug: int = 0
    """0 to 4, each level adds to the last."""
    check: bool = False
    """Look for new NaN after every launch."""
    data: str | None = None
    """Folder searched first for data sets."""
    seed: int = 0
    """Seed of the first random state."""
    sim_seed: int = 0
    """Seed of the order in which device ``sim`` runs threads and blocks."""
    threads: int | None = None
    """Threads of the processor's kernels; None: as many as there are cores."""
    cache: str | None = None
    """Folder of compiled kernels and records; None: ``~/.cache/gpunet``."""
    poison: bool = False
    """Fill every output that a launcher allocates with NaN (tests and benchmarks set this)."""


def _integer(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.lstrip("-").isdigit() or not low <= int(text) <= high:
        raise ArgumentError(f"config: {name} must be an integer from {low} to {high}, got {text!r}")
    return int(text)


def parse_variants(op: str, text: str) -> dict[str, str]:
    """``"tiled"`` -> every entry of op; ``"forward=tiled,grad_w=split_k"`` -> those entries alone."""
    if "=" not in text:
        return {op: text.strip()}
    pairs = [part.split("=", 1) for part in text.split(",") if part.strip()]
    if any(len(pair) != 2 or not pair[1].strip() for pair in pairs):
        raise ArgumentError(
            f"config: GPUNET_VARIANT_{op.upper()} must be a rung, or entry=rung,entry=rung, got {text.strip()!r}"
        )
    return {f"{op}.{entry.strip()}": rung.strip() for entry, rung in pairs}


def _threads() -> int | None:
    """The first of the usual variables that is set; OMP_NUM_THREADS may list a number for each level of nesting."""
    asked = _integer("GPUNET_NUM_THREADS", 0, 1, 2**16)
    usual = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    texts = [os.environ.get(name, "").partition(",")[0].strip() for name in usual]
    return asked or next((int(text) for text in texts if text.isdigit() and int(text) > 0), None)


def _read_environment() -> Settings:
    variants: dict[str, str] = {}
    for name, text in os.environ.items():
        if name.startswith("GPUNET_VARIANT_") and text.strip():
            variants.update(parse_variants(name.removeprefix("GPUNET_VARIANT_").lower(), text))
    return Settings(
        device=os.environ.get("GPUNET_DEVICE", "").strip() or "cpu",
        backend=os.environ.get("GPUNET_BACKEND", "").strip() or None,
        variants=variants,
        fused=bool(_integer("GPUNET_FUSED", 0, 0, 1)) if os.environ.get("GPUNET_FUSED", "").strip() else None,
        debug=_integer("GPUNET_DEBUG", 0, 0, 4),
        check=bool(_integer("GPUNET_CHECK", 0, 0, 1)),
        data=os.environ.get("GPUNET_DATA", "").strip() or None,
        seed=_integer("GPUNET_SEED", 0, 0, 2**64 - 1),
        sim_seed=_integer("GPUNET_SIM_SEED", 0, 0, 2**64 - 1),
        threads=_threads(),
        cache=os.environ.get("GPUNET_CACHE", "").strip() or None,
    )


settings = _read_environment()
on_reload: list[Callable[[], None]] = []  # what others derived from the settings and must forget


def reload() -> None:
    """Reads the environment again, for a program that changes it after the import."""
    settings.__dict__.update(_read_environment().__dict__)
    for forget in on_reload:
        forget()


class _Local(threading.local):
    """What the context managers of this thread ask for. Every launch asks: ``local.__dict__`` is found but once."""

    def __init__(self) -> None:
        self.backend: str | None = None
        self.variants: dict[str, str] | None = None
        self.fused: bool | None = None
        self.free = False  # neither these nor the environment's count: gn.explain looks at what would run by itself
        self.phase = "forward"  # which half of training is running; the graph sets it, traces show it


local = _Local()


def wanted_backend() -> str | None:
    """The backend asked for by name in this thread or by the environment, or None."""
    own = local.__dict__
    return None if own["free"] else own["backend"] or settings.backend


def wanted_variant(entry: str) -> str | None:
    """The rung asked for by name for this entry, or None. An entry's own request beats its op's."""
    op = entry.partition(".")[0]
    for table in (local.variants, settings.variants):
        if table and not local.free:
            found = table.get(entry) or table.get(op)
            if found:
                return found
    return None


def wanted(entry: str) -> tuple[str | None, str | None]:
    """Backend and rung asked for by name for this entry: both at once, for every launch asks."""
    own = local.__dict__
    if own["free"]:
        return None, None
    rung = wanted_variant(entry) if own["variants"] or settings.variants else None
    return own["backend"] or settings.backend, rung


def wanted_of_fused() -> tuple[bool | None, str | None, bool]:
    """What decides about fused entries; all at once, for many ops ask.

    Whether they were asked for (True) or ruled out (False), the backend asked for, and whether any rung was.
    """
    own = local.__dict__
    if own["free"]:
        return own["fused"], None, False
    fused = own["fused"]
    return (
        settings.fused if fused is None else fused,
        own["backend"] or settings.backend,
        bool(own["variants"] or settings.variants),
    )


@contextmanager
def no_requests() -> Iterator[None]:
    """Inside the block kernels are chosen as if none had been asked for by name."""
    before, local.free, local.fused = (local.free, local.fused), True, None
    try:
        yield
    finally:
        local.free, local.fused = before


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Inside the block every kernel comes from backend ``name``, or the call raises; nothing falls back.

    Args:
        name: "numpy", "numba_cpu", "cupy" or "numba_cuda".

    Raises:
        NoKernelError: no backend has this name.
        BackendUnavailableError: it cannot run here; the message says why and what to install.

    Example:
        >>> import gpunet as gn
        >>> with gn.use_backend("numpy"):
        ...     float((gn.ones(2, 3) @ gn.ones(3, 2)).sum())
        12.0
    """
    from gpunet import devices  # devices stands one floor up and reads this module

    devices.backend(name).need_somewhere()
    before, local.backend = local.backend, name
    try:
        yield
    finally:
        local.backend = before


@contextmanager
def use_variant(entry: str, variant: str) -> Iterator[None]:
    """Inside the block ``entry`` (or every entry of an op) runs rung ``variant``, or the call raises.

    Args:
        entry: an entry such as "matmul.forward", or an op such as "matmul" for all its entries.
        variant: the rung's name, as ``gn.list_kernels(entry)`` shows it.

    Raises:
        NoKernelError: the entry has no such rung on any backend.

    Example:
        >>> import gpunet as gn
        >>> with gn.use_variant("matmul.forward", "reference"):
        ...     (gn.ones(2, 3) @ gn.ones(3, 2)).shape
        (2, 2)
    """
    from gpunet import dispatch

    dispatch.need_variant(entry, variant)
    before = local.variants
    local.variants = {**(before or {}), entry: variant}
    try:
        yield
    finally:
        local.variants = before


@contextmanager
def use_fused(fused: bool) -> Iterator[None]:
    """Inside the block ops launch fused entries wherever they can (True) or nowhere (False).

    A fused entry does in one pass what would be two: matmul.forward_bias adds the bias while the product is still in
    registers. Without this, ops use them where the device has kernels for them beyond the definition, and nobody asked
    by name for a rung that a fused entry lacks.

    Args:
        fused: True or False.

    Example:
        >>> import gpunet as gn
        >>> with gn.use_fused(True), gn.trace() as lines:
        ...     y = gn.functional.linear(gn.ones(2, 3), gn.ones(4, 3), gn.ones(4))
        >>> [line.entry for line in lines]
        ['matmul.forward_bias']
    """
    before, local.fused = local.fused, bool(fused)
    try:
        yield
    finally:
        local.fused = before
