"""From an entry such as ``conv2d.forward`` to the kernel that runs: registration, choice, launch.

A kernel registers with one decorator; entry and backend spell the module it lives in
(``kernels/<op>/<op>_<backend>.py``), so there are no lists to keep. The choice, in this order:

1. backend: ``use_backend`` or ``GPUNET_BACKEND``, else the first of the device's backends that can run and has a
   rung that takes the arguments;
2. variant: ``use_variant`` or ``GPUNET_VARIANT_<OP>``, else the highest rung of the op's ladder whose ``when``
   accepts the arguments and that ``pays`` and ``least`` call worth its effort for them. A rung outside the ladder
   (a user's own) runs only when asked for by name.

What was asked for by name runs or raises. What was chosen can be asked for: :func:`candidates`, ``gn.trace()``.
"""

import importlib
import math
import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from gpunet import config, devices, watch
from gpunet.devices import Device
from gpunet.errors import ArgumentError, BackendUnavailableError, NoKernelError
from gpunet.watch import Call as Call
from gpunet.watch import Launch as Launch
from gpunet.watch import Trace as Trace
from gpunet.watch import capture as capture
from gpunet.watch import trace as trace

REFERENCE = "reference"  # variant name of a definition; it stands below every rung of the ladder

F = TypeVar("F", bound=Callable[..., Any])


class Work(NamedTuple):
    """What a launch has to do: floating-point operations, and bytes that must be read and written."""

    flops: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True)
class Kernel:
    """One registered launcher."""

    entry: str
    backend: str
    variant: str
    function: Callable[..., Any]
    when: Callable[..., bool | str] | None
    file: str
    line: int
    pays: Callable[..., bool | str] | None = None
    least: int = 0

    @property
    def op(self) -> str:
        """The op's name: the entry's part before the point."""
        return self.entry.partition(".")[0]

    @property
    def name(self) -> str:
        """``entry/backend/variant``, as errors, traces and test ids write it."""
        return f"{self.entry}/{self.backend}/{self.variant}"

    @property
    def place(self) -> str:
        """``file.py:line`` of the launcher."""
        return f"{self.file.rpartition('/')[2]}:{self.line}"

    def refusal(self, arrays: tuple[Any, ...], params: dict[str, Any]) -> str | None:
        """None when this kernel takes the arguments, else why not."""
        return _objection(self.when, arrays, params, "it needs")

    def waste(self, arrays: tuple[Any, ...], params: dict[str, Any]) -> str | None:
        """None when this kernel is worth its effort for these arguments, else why a lower rung is better."""
        if self.least and arrays[0].size < self.least:
            return f"it pays only from {self.least} elements on, got {arrays[0].size}"
        return _objection(self.pays, arrays, params, "it pays only with")

    def __str__(self) -> str:
        return f"{self.name} ({self.place})"


def _objection(
    asked: Callable[..., bool | str] | None, arrays: tuple[Any, ...], params: dict[str, Any], begin: str
) -> str | None:
    """None where ``asked`` says True or is None, else what it says, or what its docstring says it asks for."""
    answer = True if asked is None else asked(*arrays, **params)
    if asked is None or _agrees(answer):
        return None
    if isinstance(answer, str):
        return answer
    about = (asked.__doc__ or "").strip().partition("\n")[0]
    return f"{begin} {about or asked.__name__}"


def _agrees(answer: bool | str) -> bool:
    """Whether a ``when`` or a ``pays`` said yes; anything but an empty string is a reason against."""
    return answer is True or (not answer if isinstance(answer, str) else bool(answer))


_registry: dict[tuple[str, str], dict[str, Kernel]] = {}
_loaded: dict[tuple[str, str], str | None] = {}  # (op, backend) -> None, or why its file could not be imported


def kernel(
    entry: str,
    *,
    backend: str,
    variant: str = REFERENCE,
    when: Callable[..., bool | str] | None = None,
    pays: Callable[..., bool | str] | None = None,
    least: int = 0,
) -> Callable[[F], F]:
    """Registers the decorated launcher as one way of computing ``entry``. Returns it unchanged.

    Args:
        entry: "<op>.forward" or "<op>.grad_<input>", as ``gn.list_kernels()`` shows them.
        backend: "numpy", "numba_cpu", "cupy" or "numba_cuda".
        variant: the rung's name: the idea in one or two words.
        when: called with the launcher's arguments; True to accept, False or a string (the reason) to refuse.
        pays: called likewise once ``when`` accepts: whether the rung is worth taking where nobody asked for it by
            name. A tile of 128 x 256 computes a matrix of 3 x 3 correctly, and slowly.
        least: elements of the first array from which on the rung is worth taking; on few, asking takes longer than
            the work.

    Raises:
        ArgumentError: there is no such op or entry, or the name is taken by a launcher at another place.
        NoKernelError: there is no such backend.

    Example:
        >>> import gpunet as gn
        >>> @gn.kernel("relu.forward", backend="numpy", variant="clipped")
        ... def relu_forward_clipped(x):
        ...     return x.clip(0, None)
        >>> with gn.use_variant("relu.forward", "clipped"):
        ...     gn.functional.relu(gn.tensor([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    devices.backend(backend)
    op = entry.partition(".")[0]
    if op not in ops() or entry not in entries(op):
        known = ", ".join(entries(op)) if op in ops() else f"one of the ops {', '.join(ops())}"
        raise ArgumentError(f"kernel: entry must be a known '<op>.<entry>', got {entry!r}; known: {known}")

    def register(function: F) -> F:
        code = getattr(function, "__code__", None)
        if code is None:
            raise ArgumentError(f"kernel: {entry} needs a plain Python function as its launcher, got {function!r}")
        new = Kernel(entry, backend, variant, function, when, code.co_filename, code.co_firstlineno, pays, least)
        table = _registry.setdefault((entry, backend), {})
        old = table.get(variant)
        same = old is not None and (old.file, old.function.__qualname__) == (new.file, function.__qualname__)
        if old is not None and not same and os.path.exists(old.file):  # an interactive session may try again
            places = f"{old.file}:{old.line} and {new.file}:{new.line}"
            raise ArgumentError(f"kernel: {new.name} must be registered once, got two, at {places}; rename a variant")
        table[variant] = new
        _choices.clear()
        _fusions.clear()
        return function

    return register


@cache
def ops() -> tuple[str, ...]:
    """Names of all ops that have a kernel folder, sorted."""
    package = importlib.import_module("gpunet.kernels")
    found = {module.name for module in pkgutil.iter_modules(package.__path__) if module.ispkg}
    return tuple(sorted(found - {"common"}))


@cache
def title(op: str) -> ModuleType:
    """The title page of an op: the module ``gpunet.kernels.<op>`` with ENTRIES, LADDER and work()."""
    if op not in ops():
        raise NoKernelError(f"kernels: no op {op!r}; there are: {', '.join(ops())}")
    return importlib.import_module(f"gpunet.kernels.{op}")


def entries(op: str) -> tuple[str, ...]:
    """Names of the entries of an op, in its title page's order."""
    return tuple(title(op).ENTRIES)


def ladder(op: str) -> tuple[str, ...]:
    """All rungs of an op that may be chosen automatically, lowest first: the definition, then LADDER."""
    return (REFERENCE, *title(op).LADDER)


def _load(op: str, backend: str) -> str | None:
    """Imports ``kernels/<op>/<op>_<backend>.py`` once. None, or why that file could not be imported."""
    key = (op, backend)
    if key not in _loaded:
        name = f"gpunet.kernels.{op}.{op}_{backend}"
        try:
            importlib.import_module(name)
            _loaded[key] = None
        except ModuleNotFoundError as error:
            # Absent file: the op has no kernels there, which is no failure. Absent library: say so.
            _loaded[key] = None if error.name == name else f"{name} needs the package {error.name}"
        except BackendUnavailableError as error:
            _loaded[key] = str(error)
    return _loaded[key]


def variants(entry: str, backend: str) -> list[Kernel]:
    """The kernels of an entry on one backend: rungs in ladder order, then those outside the ladder."""
    op = entry.partition(".")[0]
    _load(op, backend)
    rungs = {name: height for height, name in enumerate(ladder(op))}
    table = _registry.get((entry, backend), {})
    return sorted(table.values(), key=lambda each: rungs.get(each.variant, len(rungs)))


def list_kernels(entry: str | None = None) -> list[Kernel]:
    """Every kernel that can be loaded here, by op, entry, backend and rung.

    Args:
        entry: "conv2d.forward" for one entry, "conv2d" for one op, None for all.

    Returns:
        Records with entry, backend, variant, file and line; printing one shows them.

    Raises:
        NoKernelError: no such op or entry.

    Example:
        >>> import gpunet as gn
        >>> [kernel.variant for kernel in gn.list_kernels("matmul.forward") if kernel.backend == "numpy"]
        ['reference']
    """
    op = (entry or "").partition(".")[0]
    wanted = [each for name in ([op] if op else ops()) for each in entries(name)]
    if entry and "." in entry:
        if entry not in wanted:
            raise NoKernelError(f"kernels: no entry {entry!r}; {op} has: {', '.join(wanted)}")
        wanted = [entry]
    return [each for name in wanted for backend in devices.BACKENDS for each in variants(name, backend)]


def need_variant(entry: str, variant: str) -> None:
    """Raises :class:`NoKernelError` when no backend has this rung for the entry (or for any entry of the op)."""
    names = sorted({each.variant for each in list_kernels(entry)})
    if variant not in names:
        raise NoKernelError(f"no variant {variant!r} of {entry}; it has: {', '.join(names)}")


class Candidate(NamedTuple):
    """One kernel that was looked at for a call, and what became of it."""

    name: str
    place: str
    taken: bool
    reason: str


def candidates(device: Device, entry: str, arrays: tuple[Any, ...], params: dict[str, Any]) -> list[Candidate]:
    """Every kernel of the entry, whether it would be taken for these arguments, and why."""
    try:
        chosen, failure = find(device, entry, arrays, params), None
    except (NoKernelError, BackendUnavailableError) as error:
        chosen, failure = None, str(error)
    rows = []
    for each in list_kernels(entry):
        if chosen is not None and each.name == chosen.name:
            rows.append(Candidate(each.name, each.place, True, _why_taken(device, each)))
        else:
            rows.append(Candidate(each.name, each.place, False, _why_not(device, each, arrays, params)))
    op = entry.partition(".")[0]
    rows += [Candidate(f"{entry}/{name}", "", False, why) for name in devices.BACKENDS if (why := _load(op, name))]
    if failure is not None:
        rows.append(Candidate(entry, "", False, failure))
    return rows


def _why_taken(device: Device, kernel: Kernel) -> str:
    by_name = [
        f"{what} {name!r} was asked for"
        for what, name in (("backend", config.wanted_backend()), ("variant", config.wanted_variant(kernel.entry)))
        if name
    ]
    return "; ".join(by_name) or f"the highest rung that takes these arguments on the first backend of {device}"


def _why_not(device: Device, kernel: Kernel, arrays: tuple[Any, ...], params: dict[str, Any]) -> str:
    unusable = devices.backend(kernel.backend).why_not(device.kind)
    if unusable:
        return unusable
    backend, variant = config.wanted_backend(), config.wanted_variant(kernel.entry)
    if backend and backend != kernel.backend:
        return f"backend {backend!r} was asked for"
    if variant and variant != kernel.variant:
        return f"variant {variant!r} was asked for"
    refusal = kernel.refusal(arrays, params)
    if refusal:
        return refusal
    if kernel.variant not in ladder(kernel.op):
        return f"it is outside the ladder: ask for it with use_variant({kernel.entry!r}, {kernel.variant!r})"
    waste = None if variant else kernel.waste(arrays, params)
    if waste:
        return f"not worth it here: {waste}"
    return "a higher rung or an earlier backend takes these arguments"


_choices: dict[tuple[Any, ...], list[Kernel]] = {}  # request -> kernels to try, best first
config.on_reload.append(_choices.clear)


def find(device: Device, entry: str, arrays: tuple[Any, ...], params: dict[str, Any]) -> Kernel:
    """The kernel that will run for these arguments.

    Raises:
        BackendUnavailableError: the backend asked for cannot run on this device.
        NoKernelError: no kernel of the entry takes these arguments here.
    """
    backend, variant = config.wanted(entry)
    request = (entry, device.kind, backend, variant)
    tries = _choices.get(request)
    if tries is None:
        tries = _choices[request] = _order(device.kind, entry, backend, variant)
    for each in tries:
        if each.least and not variant and arrays[0].size < each.least:
            continue
        if each.when is not None and (answer := each.when(*arrays, **params)) is not True and not _agrees(answer):
            continue
        if variant or each.pays is None or _agrees(each.pays(*arrays, **params)):
            return each
    for each in tries:  # no rung is worth it, but this one can
        if each.refusal(arrays, params) is None:
            return each
    raise NoKernelError(_nothing_takes(entry, tries, arrays, params))


_fusions: dict[tuple[Any, ...], float] = {}  # request -> elements from which on the fused entry is launched
config.on_reload.append(_fusions.clear)


def fuses(device: Device, entry: str, *parts: str, size: float = math.inf) -> bool:
    """Whether an op should launch the fused ``entry`` instead of its ``parts``, entries that it does the work of.

    Asked for or ruled out by ``use_fused`` or ``GPUNET_FUSED``, that settles it. Else: where the backend that would run
    the first part has the fused entry too, as more than its definition, worth it for an array of so many elements, and
    with the rung that was asked for of a part.
    """
    asked, backend, any_variant = config.wanted_of_fused()
    if asked is not None:
        return asked
    request = (device.kind, backend, entry, tuple(map(config.wanted_variant, parts)) if any_variant else ())
    least = _fusions.get(request)
    if least is None:
        least = _fusions[request] = _fused_from(*request, parts[0])
    return size >= least


def _fused_from(kind: str, backend: str | None, entry: str, rungs: tuple[str | None, ...], part: str) -> float:
    usable = [name for name in devices.CHOICE[kind] if devices.BACKENDS[name].why_not(kind) is None]
    names = [name for name in ([backend] if backend else usable) if variants(part, name)]
    have = {each.variant: each.least for each in variants(entry, names[0])} if names else {}
    least = [each for variant, each in have.items() if variant != REFERENCE]
    return min(least) if least and all(each is None or each in have for each in rungs) else math.nan


def _order(kind: str, entry: str, backend: str | None, variant: str | None) -> list[Kernel]:
    _need_known_names()
    if backend is not None:
        devices.backend(backend).need(kind)
        names = [backend]
    else:
        names = [name for name in devices.CHOICE[kind] if devices.BACKENDS[name].why_not(kind) is None]
    rungs = ladder(entry.partition(".")[0])
    found = []
    for name in names:
        on_backend = variants(entry, name)
        if variant is None:
            found += [each for each in reversed(on_backend) if each.variant in rungs]
        else:
            found += [each for each in on_backend if each.variant == variant]
    if not found:
        raise NoKernelError(_nothing_there(kind, entry, backend, variant))
    return found


def _need_known_names() -> None:
    """Refuses names that only the environment can bring in: the context managers refuse theirs at once."""
    backend = config.settings.backend
    if backend is not None and backend not in devices.BACKENDS:
        raise NoKernelError(f"GPUNET_BACKEND: must be one of {', '.join(devices.BACKENDS)}, got {backend!r}")
    for asked, rung in config.settings.variants.items():
        op, _, entry = asked.partition(".")
        variable = f"GPUNET_VARIANT_{op.upper()}"
        if op not in ops():
            raise NoKernelError(f"{variable}: its end must be one of {', '.join(ops()).upper()}, got {op.upper()!r}")
        if entry and asked not in entries(op):
            known = ", ".join(each.partition(".")[2] for each in entries(op))
            raise NoKernelError(f"{variable}: entries must be among {known}, got {entry!r}")
        rungs = sorted({each.variant for each in list_kernels(asked)})
        if rung not in rungs:
            raise NoKernelError(f"{variable}: the rung must be one of {', '.join(rungs)}, got {rung!r}")


def _nothing_there(kind: str, entry: str, backend: str | None, variant: str | None) -> str:
    have = {name: [each.variant for each in variants(entry, name)] for name in devices.BACKENDS}
    has = "; ".join(f"{name}: {', '.join(rungs)}" for name, rungs in have.items() if rungs) or "none"
    asked = f" variant {variant!r}" if variant else ""
    where = f"backend {backend!r}" if backend else f"the backends of device '{kind}'"
    broken = [reason for name in devices.BACKENDS if (reason := _load(entry.partition(".")[0], name))]
    return f"no{asked} kernel for {entry} on {where}; it has {has}" + "".join(f"; {reason}" for reason in broken)


def _nothing_takes(entry: str, tries: list[Kernel], arrays: tuple[Any, ...], params: dict[str, Any]) -> str:
    refusals = "; ".join(f"{each.backend}/{each.variant}: {each.refusal(arrays, params)}" for each in tries)
    takers = [
        each.variant
        for each in list_kernels(entry)
        if each not in tries and each.backend == tries[0].backend and each.refusal(arrays, params) is None
    ]
    shapes = " ".join(str(tuple(each.shape)) for each in arrays if hasattr(each, "shape"))
    other = f"; variants that take this: {', '.join(takers)}" if takers else ""
    return f"{entry}: no kernel asked for takes {shapes} with {params}: {refusals}{other}"


def launch(device: Device, entry: str, *arrays: Any, **params: Any) -> Any:
    """Runs the chosen kernel of ``entry`` on raw arrays of ``device`` and returns what it returns."""
    chosen = find(device, entry, arrays, params)
    if not watch.traces and not watch.captures and not config.settings.check and not config.settings.debug:
        return chosen.function(*arrays, **params)
    return watch.watched(chosen, device, arrays, params)
