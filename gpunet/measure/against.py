"""The kernel that runs by itself against others doing the same: another library, another kernel, another commit.

Both sides get the same numbers in memory of their own, and take turns in one process (:mod:`gpunet.measure.pairs`). A
rival's result is held against the definition first, as a kernel's is: who computes something else is not timed. On the
processor every pair is timed with each number of threads that was asked for.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from gpunet import config, devices, dispatch
from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.errors import ArgumentError, GpunetError
from gpunet.measure import answers, calls, events, pairs, passes, progress, threads, timer, tolerances
from gpunet.measure.calls import Case, outputs
from gpunet.measure.proof import Verdict
from gpunet.measure.rows import Ratio, Row
from gpunet.measure.session import Session

peers: Any = importlib.import_module("gpunet.bench.peers")  # by name: its files lie in the folder bench/

SECONDS = 1.0  # for one pair
EXACT = ("matmul", "conv2d")  # entries of which a GPU's library may round inputs to TF32, unless told not to
TF32 = 2.0**-10  # last digit of TF32's mantissa, as float32 has 2**-23
TF32_ON, CHANNELS_LAST = ", TF32 on", ", channels_last"  # behind the library's name
NO_MATTER = "makes no difference"  # why a rival is left out without a note
TURNED = {"faster": "slower", "slower": "faster"}  # pairs judge the second, a ratio speaks of the first

Arrays = tuple[Any, ...]


class Rival(Protocol):
    """Something a kernel can be timed against."""

    name: str

    def device(self, device: Device) -> Device:
        """Where it runs when the kernel runs on ``device``."""
        ...

    def why_not(self, case: Case, device: Device, count: int) -> str:
        """Why it cannot do this call there on so many threads; empty if it can."""
        ...

    def bind(self, case: Case, arrays: Arrays, device: Device) -> Callable[[], Any]:
        """The call on these arrays, as a function without arguments."""
        ...

    def wrong(self, case: Case, result: Any, device: Device) -> str:
        """How its result differs from the definition's; empty if it does not."""
        ...

    def setting(self, count: int) -> Any:
        """A context in which it computes on so many threads, with its precision; 0 for all."""
        ...


class Library:
    """A peer of bench/peers as a rival.

    Args:
        asked: its name there.
        tf32: whether products on a GPU may round their inputs to TF32.
        channels_last: whether images lie pixel by pixel.
    """

    def __init__(self, asked: str, tf32: bool = False, channels_last: bool = False):
        self.peer, self.tf32, self.channels_last = peers.load(asked), tf32, channels_last
        self.name = self.peer.NAME + (TF32_ON if tf32 else CHANNELS_LAST if channels_last else "")

    def device(self, device: Device) -> Device:
        """The same."""
        return device

    def why_not(self, case: Case, device: Device, count: int) -> str:
        """Why it cannot do this call there."""
        if count and not self.peer.LIMITS:
            return f"{self.name} cannot be told how many threads to use: it is timed with all of them alone"
        if device.kind not in self.peer.KINDS:
            return f"{self.name} is measured on {' and '.join(self.peer.KINDS)}, not on {device.kind}"
        if self.tf32 and (device.kind != "cuda" or case.op not in EXACT or case.dtype != "float32"):
            return f"{NO_MATTER}: TF32 is for products of float32 on a GPU"
        if self.channels_last and not self.peer.has_layouts(case.call.arrays):
            return f"{NO_MATTER}: layouts are for images of several channels"
        return "" if case.entry in self.peer.entries() else f"{self.name} has no {case.entry}"

    def bind(self, case: Case, arrays: Arrays, device: Device) -> Callable[[], Any]:
        """The library's own call."""
        if self.channels_last:
            return self.peer.bind(case.entry, arrays, case.call.params, channels_last=True)
        return self.peer.bind(case.entry, arrays, case.call.params)

    def wrong(self, case: Case, result: Any, device: Device) -> str:
        """Compares those outputs that the peer names; a generator of another kind has none."""
        wanted = tuple(device.asarray(each) for each in case.expected)
        eps = TF32 / float(np.finfo(np.float32).eps) if self.tf32 else 1.0
        for ours, theirs in self.peer.results(case.entry, wanted, result):
            terms = max(1.0, case.work.flops / max(ours.size, 1))
            allowed = eps * tolerances.allowed(case.dtype, terms)
            reached = self.peer.distance(ours, theirs)
            if not reached <= allowed:
                return f"its result is off by {reached:.1e} of the largest value, allowed is {allowed:.1e}"
        return ""

    @contextmanager
    def setting(self, count: int) -> Iterator[None]:
        """Its own precision and threads, and those of the libraries below."""
        with ExitStack() as stack:
            stack.enter_context(threads.limited(count))
            stack.enter_context(self.peer.precise(tf32=self.tf32))
            stack.enter_context(self.peer.threads(count or threads.machine.cores()))
            yield


class Other:
    """Another kernel of the same entry, on the same device or another.

    Args:
        asked: "BACKEND/VARIANT" or "BACKEND/VARIANT@DEVICE"; VARIANT may be *, for the one that backend would choose.
    """

    def __init__(self, asked: str):
        rung, _, where = asked.partition("@")
        self.backend, _, self.variant = rung.partition("/")
        self.name, self.where = asked, where
        if self.backend not in devices.BACKENDS or not self.variant:
            known = ", ".join(devices.BACKENDS)
            raise ArgumentError(f"against: must be BACKEND/VARIANT with BACKEND one of {known}, got {asked!r}")
        if where:
            devices.device(where)  # raises with the reason where it cannot run

    def device(self, device: Device) -> Device:
        """The kernel's own, unless another was named."""
        return devices.device(self.where) if self.where else device

    def kernel(self, case: Case, device: Device) -> Kernel | None:
        """The kernel for a call; None if there is none or it does not take it."""
        arrays = case.arrays_on(device)
        if self.variant == "*":
            with config.use_backend(self.backend):
                try:
                    return dispatch.find(device, case.entry, arrays, case.call.params)
                except GpunetError:
                    return None
        named = [each for each in dispatch.variants(case.entry, self.backend) if each.variant == self.variant]
        return next((each for each in named if each.refusal(arrays, case.call.params) is None), None)

    def why_not(self, case: Case, device: Device, count: int) -> str:
        """Why it cannot do this call there."""
        reason = devices.backend(self.backend).why_not(device.kind)
        if reason:
            return f"{self.name}: {reason}"
        return "" if self.kernel(case, device) else f"{self.name} does not take {case.label}"

    def bind(self, case: Case, arrays: Arrays, device: Device) -> Callable[[], Any]:
        """The launcher."""
        found = self.kernel(case, device)
        assert found is not None
        return partial(found.function, *arrays, **case.call.params)

    def wrong(self, case: Case, result: Any, device: Device) -> str:
        """Every output, as in a proof."""
        host = tuple(device.to_host(each) for each in outputs(result))
        return answers.wrong_form(case, host) or answers.wrong_values(case, host, Verdict())

    def setting(self, count: int) -> Any:
        """Threads alone."""
        return threads.limited(count)


def rivals(asked: Sequence[str]) -> list[Rival]:
    """What ``--against`` names: peers of bench/peers, and BACKEND/VARIANT[@DEVICE].

    PyTorch is there three times: its images in the other layout too, and on a GPU its products with TF32.

    Raises:
        ArgumentError: there is no such peer or backend.
        BackendUnavailableError: the library is not installed, or the device does not run.
    """
    found: list[Rival] = []
    for name in dict.fromkeys(asked):
        if "/" in name and not name.startswith("commit:"):
            found.append(Other(name))
            continue
        found.append(Library(name))
        if name == "torch":
            found += [Library(name, channels_last=True), Library(name, tf32=True)]
    return found


def against_all(session: Session, rivals: Sequence[Rival]) -> None:
    """Times the chosen kernels of all rows so far in turns with the rivals, until the time is over."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in session.report.rows:
        groups.setdefault((row.op, row.size, row.dtype), []).append(row)
    with progress.shown(session.screen, "against", len(groups)) as step:
        for done, ((op, name, dtype), rows) in enumerate(groups.items()):
            step(f"{op} {name}")
            if session.budget.over:
                left = len(groups) - done
                session.note(f"pairs stopped for lack of time with {left} of {len(groups)} sizes left: see --budget")
                return
            size = next(each for each in calls.suites.sizes(op, calls.suites.TIERS) if each.name == name)
            seconds = session.budget.left / (len(groups) - done) / max(1, len(rows) * len(rivals))
            cases = passes.captured(session, op, size, dtype, session.options.seed + 40)
            compare(session, rows, cases, rivals, pairs.Limits(min(SECONDS, seconds)))
            session.save()


def compare(
    session: Session,
    rows: Sequence[Row],
    cases: Sequence[Case],
    against: Sequence[Rival],
    limits: pairs.Limits,
    always: Sequence[Kernel] = (),
) -> None:
    """Times the chosen kernel of each row's call and device in turns with every rival; see Report.ratios.

    Args:
        session: its report gets a ratio for each pair, and a note for each rival that took no part.
        rows: of one size and dtype: only what was proved and timed takes part, with the threads it was timed with.
        cases: the calls of that size.
        against: from :func:`rivals`.
        limits: for each pair.
        always: kernels that take part though they would not be chosen, such as a user's.
    """
    known = {(each.phase, each.label): each for each in cases}
    for row in rows:
        case = known.get((row.phase, row.entry))
        kernel = case and _contestant(case, row, always)
        if case is None or kernel is None:
            continue
        for rival in against:
            if isinstance(rival, Other) and (row.backend, row.variant) == (rival.backend, rival.variant):
                continue
            _pair(session, row, case, kernel, rival, limits)


def _contestant(case: Case, row: Row, always: Sequence[Kernel]) -> Kernel | None:
    """The row's kernel, if it is the one that its backend would choose for this call, or one of ``always``."""
    asked = [k for k in always if (k.entry, k.backend, k.variant) == (case.entry, row.backend, row.variant)]
    if asked:
        return asked[0]
    device = devices._named(row.device)
    with config.use_backend(row.backend):
        found = dispatch.find(device, case.entry, case.arrays_on(device), case.call.params)
    return found if found.variant == row.variant else None


def _pair(session: Session, row: Row, case: Case, kernel: Kernel, rival: Rival, limits: pairs.Limits) -> None:
    device = devices._named(row.device)
    place = rival.device(device)
    reason = rival.why_not(case, place, row.threads)
    if reason:
        if not reason.startswith(NO_MATTER):
            session.note(f"against {reason}")
        return
    with rival.setting(row.threads):
        with config.use_backend(row.backend):  # another commit is asked for the same backend
            call = rival.bind(case, case.arrays_on(place), place)
        reason = rival.wrong(case, call(), place)
        if reason:
            session.note(f"against {rival.name}: {row.entry}, {row.size} {row.dtype}: {reason}; it was not timed")
            return
        first = _lane(case, lambda arrays: partial(kernel.function, *arrays, **case.call.params), device)
        with config.use_backend(row.backend):
            second = _lane(case, lambda arrays: rival.bind(case, arrays, place), place)
        found = pairs.compare(first, second, limits)
    told = rival.name if place == device else f"{rival.name} on {place}"
    session.report.ratios.append(
        Ratio(
            row.entry, row.size, row.dtype, row.device, row.backend, row.variant, True, told, found.first.median,
            found.second.median, found.ratio, found.low, found.high, found.n, TURNED.get(found.verdict, found.verdict),
            limits.effect, row.threads, row.phase,
        )
    )  # fmt: skip


def _lane(case: Case, bind: Callable[[Arrays], Callable[[], Any]], device: Device) -> events.Lane:
    """Calls on so many copies of the inputs that each finds its own outside the caches."""
    count = events.copies_for(case.nbytes) if device.kind == "cuda" else timer.copies_for(case.nbytes)[0]
    return events.Lane([bind(case.arrays_on(device)) for _ in range(count)], device)


def best_layouts(ratios: Sequence[Ratio]) -> list[Ratio]:
    """One ratio for each call and library: where it was timed in both layouts of images, that in which it is faster."""
    found: dict[tuple[Any, ...], Ratio] = {}
    for each in ratios:
        peer = each.peer.removesuffix(CHANNELS_LAST)
        kernel = each.device, each.backend, each.variant, each.threads
        key = each.entry, each.phase, each.size, each.dtype, *kernel, peer
        if key not in found or each.ratio < found[key].ratio:
            found[key] = replace(each, peer=peer)
    return list(found.values())


def means(ratios: Sequence[Ratio]) -> dict[tuple[str, int], tuple[float, int]]:
    """(peer, threads) -> geometric mean of its ratios, in the faster of its layouts, and how many they are."""
    groups: dict[tuple[str, int], list[float]] = {}
    for each in best_layouts(ratios):
        groups.setdefault((each.peer, each.threads), []).append(each.ratio)
    return {key: (geometric_mean(found), len(found)) for key, found in groups.items()}


def geometric_mean(ratios: Sequence[float]) -> float:
    """The mean that does not care which of the two a ratio has on top."""
    return float(np.exp(np.mean(np.log(ratios))))


__all__ = ["Library", "Other", "Rival", "best_layouts", "compare", "geometric_mean", "means", "rivals"]
