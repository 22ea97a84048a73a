"""A user's own kernels: held against their definition, tried inside their op, and timed against the project's.

Two proofs, since each sees what the other cannot:

* **values**: the kernel alone on random inputs, against the definition in float64 (``measure/proof.py``);
* **gradient**: the op with the kernel put into it by name, forward and backward, against central differences. A kernel
  of a forward entry must return and keep what the backward of the op needs; one of a backward entry must be the
  gradient. In float64; for a kernel that takes float32 alone, its float32 against differences in float64.

The kernel is then timed in turns with every rung that the project has for the same entry, and with the definition.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gpunet import config, devices, dispatch
from gpunet.devices import Device
from gpunet.dispatch import Kernel
from gpunet.errors import ArgumentError
from gpunet.gradcheck import gradcheck, gradgradcheck
from gpunet.measure import calls, events, pairs, progress, proof, timer
from gpunet.measure.calls import Case, suites
from gpunet.measure.rows import Proof, Ratio, Row
from gpunet.measure.session import DTYPES, Session

SECONDS = 1.0  # for the comparison with one rung, at the most
TURNED = {"slower": "faster", "faster": "slower"}  # pairs judge the second, a ratio speaks of the first
RAISED = "it raises "  # in the reason of a kernel that does not come to its end


def need_signature(kernel: Kernel) -> None:
    """Raises unless the launcher can be called as the definition of its entry is.

    Raises:
        ArgumentError: it cannot; the message has both lists of parameters.
    """
    wanted, given = (inspect.signature(each.function) for each in (calls.definition(kernel.entry), kernel))
    named = {each.name: None for each in wanted.parameters.values() if each.kind is each.KEYWORD_ONLY}
    try:
        given.bind(*[None] * (len(wanted.parameters) - len(named)), **named)
    except TypeError as error:
        name = kernel.function.__name__
        told = f"{kernel.place}: launcher {name} of {kernel.entry} must take {wanted}, got {given}"
        raise ArgumentError(f"{told}; {error}") from None


# ------------------------------------------------------------------------------------------------------------- proof


@dataclass
class Trial:
    """One of the user's kernels on one device, and what was found."""

    kernel: Kernel
    device: Device
    values: list[Proof] = field(default_factory=list)
    gradients: list[Proof] = field(default_factory=list)

    @property
    def raised(self) -> bool:
        """Whether it raised once: then it is not tried again."""
        return any(RAISED in each.reason for each in (*self.values, *self.gradients))

    def look(self, size: Any, cases: Sequence[Case], seed: int) -> None:
        """Proves the kernel on one size, whose calls were captured in both dtypes."""
        mine = [case for case in cases if case.entry == self.kernel.entry]
        for case in mine:
            if not self.raised:
                self.values.append(proof.row(case, self.kernel, self.device, self._prove(case)))
        if mine and size.tier == "proof" and not self.raised:
            self.gradients.append(gradient(self.kernel, self.device, mine, seed))

    def _prove(self, case: Case) -> proof.Verdict:
        return proof.prove(case, self.kernel, self.device)

    def end(self) -> None:
        """Says so where a proof is missing: that is as bad as one that failed."""
        if all(each.status == "refused" for each in self.values):
            self.values.append(proof.untested(self.kernel, self.device))
        elif all(each.status == "refused" for each in self.gradients) and not self.raised:
            row = proof.untested(self.kernel, self.device)
            row.phase, row.reason = "gradient", "no size of a suite runs it inside its op"
            self.gradients.append(row)


def prove(session: Session, kernels: Sequence[Kernel]) -> list[Trial]:
    """Proves the kernels wherever their backends run, on the sizes of their ops; the report gets the rows as well."""
    trials = [Trial(k, lane.device) for k in kernels for lane in session.lanes if lane.backend == k.backend]
    real = any(each.device.kind != "sim" for each in trials)
    ops = dict.fromkeys(each.kernel.op for each in trials)
    tasks = [(op, size) for tier in ("proof", "quick")[: 1 + real] for op in ops for size in suites.sizes(op, (tier,))]
    seed = session.options.seed
    with progress.shown(session.screen, "proof", len(tasks)) as step:
        for op, size in tasks:
            step(f"{op} {size.name}")
            cases = [case for dtype in DTYPES for case in _captured(op, size, dtype, seed)]
            for each in trials:
                # The simulator needs minutes for what a device does in milliseconds.
                if each.kernel.op == op and (size.tier == "proof" or each.device.kind != "sim"):
                    each.look(size, cases, seed)
    for each in trials:
        each.end()
        session.report.proofs += each.values + each.gradients
    return trials


def _captured(op: str, size: Any, dtype: str, seed: int) -> list[Case]:
    """The calls of one size, each once."""
    found = calls.capture(suites.load(op), size, dtype, seed, second=size.tier == "proof")
    return list({(case.phase, case.label): case for case in found}.values())


def gradient(kernel: Kernel, device: Device, cases: Sequence[Case], seed: int) -> Proof:
    """Proves the gradient of an op with ``kernel`` in it, on ``device``.

    Args:
        kernel: of any entry of the op.
        device: where the op runs.
        cases: the calls of the kernel's entry on one size, in both dtypes.
        seed: of inputs, directions, and dropout's masks.
    """
    first = cases[0]
    row = Proof(
        first.op, kernel.entry, "gradient", str(device), kernel.backend, kernel.variant, kernel.place, "float64",
        first.size.name, "passed",
    )  # fmt: skip
    try:
        refusals = {name: _refusal(kernel, device, [each for each in cases if each.dtype == name]) for name in DTYPES}
        if all(refusals.values()):
            row.status, row.reason = "refused", refusals["float64"] or ""
            return row
        row.dtype = "float32" if refusals["float64"] else "float64"
        with dispatch.trace() as launches, put_in(kernel, device):
            report = _gradcheck(first, device, seed, row.dtype, all(case.phase == "second" for case in cases))
    except Exception as error:  # as in proof.prove: whatever a kernel raises is its own fault
        row.status, row.reason = "failed", f"{RAISED}{type(error).__name__}: {error}"
        return row
    worst = max(report.rows, key=lambda each: each.ratio, default=None)
    if worst is not None:
        row.reached, row.allowed = worst.error, worst.allowed
    ran = {(each.entry, each.backend, each.variant) for each in launches}
    if (kernel.entry, kernel.backend, kernel.variant) not in ran:
        row.status, row.reason = "failed", "the op did not run it"
    elif not report:
        row.status, row.reason = "failed", "; ".join(line.strip() for line in str(report).splitlines()[:3])
    return row


def _refusal(kernel: Kernel, device: Device, cases: Sequence[Case]) -> str | None:
    """Why the kernel takes none of the calls; None where it takes one."""
    reasons = [kernel.refusal(case.arrays_on(device), case.call.params) for case in cases]
    return None if None in reasons else next(iter(reasons), "no call has this dtype")


def _gradcheck(case: Case, device: Device, seed: int, dtype: str, second: bool) -> Any:
    suite, size = suites.load(case.op), case.size
    tensors = suite.tensors(size, np.float64, device, seed)
    names = [name for name, each in tensors.items() if each.requires_grad]

    def function(*inputs: Any) -> Any:
        with calls.seeded(seed):  # the same dropout mask at each of the points compared
            rest = suite.tensors(size, np.float64, device, seed)
            return suite.run(size, {**rest, **dict(zip(names, inputs, strict=True))})

    check = gradgradcheck if second else gradcheck
    with config.use_fused(size.fused):
        return check(function, [tensors[name] for name in names], raise_exception=False, analytic_dtype=dtype)


@contextmanager
def put_in(kernel: Kernel, device: Device) -> Iterator[None]:
    """Inside, the op on ``device`` runs this very kernel, and the project's own where the kernel refuses a call.

    ``use_variant`` alone would take the first backend that has a variant of this name, and would raise at a call that
    the kernel refuses: matmul's backward transposes, which a kernel for plain products need not do.
    """
    backend = config.wanted_backend()
    request = (kernel.entry, device.kind, backend, kernel.variant)
    rest = dispatch._order(device.kind, kernel.entry, backend, None)
    with config.use_variant(kernel.entry, kernel.variant):
        dispatch._choices[request] = [kernel, *rest]
        try:
            yield
        finally:
            dispatch._choices.pop(request, None)


# -------------------------------------------------------------------------------------------------------------- time


def compare(session: Session, kernels: Sequence[Kernel], rows: Sequence[Row], op: str, size: Any, dtype: str) -> None:
    """Times the kernels in turns with every other row's of the same call, and with the definition; see Report.ratios.

    Args:
        session: its report gets a ratio for each pair.
        kernels: the user's.
        rows: of this op, size and dtype: only what was proved and timed takes part.
        op: whose suite the size is of.
        size: one of its sizes.
        dtype: "float32" or "float64".
    """
    names = {(each.backend, each.variant, each.place) for each in kernels}
    ours = [row for row in rows if (row.backend, row.variant, row.place) in names]
    if not ours:
        return
    cases = {(case.phase, case.label): case for case in _captured(op, size, dtype, session.options.seed + 30)}
    for row in ours:
        case = cases[row.phase, row.entry]
        lane = _lane(case, _kernel(case, row.backend, row.variant), devices._named(row.device))
        for device, rival in _rivals(case, row, rows):
            limits = pairs.Limits(SECONDS)
            pair = pairs.compare(lane, _lane(case, rival, device), limits)
            session.report.ratios.append(_ratio(row, rival, device, pair, limits.effect))


def _rivals(case: Case, row: Row, rows: Sequence[Row]) -> list[tuple[Device, Kernel]]:
    """The definition, on the processor, then the other kernels that were timed on the row's device."""
    found = {("cpu", calls.DEFINITION, dispatch.REFERENCE): None}
    same = [each for each in rows if (each.phase, each.entry, each.device) == (row.phase, row.entry, row.device)]
    found |= {(each.device, each.backend, each.variant): None for each in same}
    found.pop((row.device, row.backend, row.variant), None)
    return [(devices._named(device), _kernel(case, backend, variant)) for device, backend, variant in found]


def _kernel(case: Case, backend: str, variant: str) -> Kernel:
    return next(each for each in dispatch.variants(case.entry, backend) if each.variant == variant)


def _lane(case: Case, kernel: Kernel, device: Device) -> events.Lane:
    """The kernel's calls on so many copies of the inputs that each finds its own outside the caches."""
    on_gpu = device.kind == "cuda"
    copies = events.copies_for(case.nbytes) if on_gpu else timer.copies_for(case.nbytes)[0]
    made = [case.arrays_on(device) for _ in range(copies)]
    return events.Lane([partial(kernel.function, *arrays, **case.call.params) for arrays in made], device)


def _ratio(row: Row, rival: Kernel, device: Device, pair: pairs.Pair, effect: float) -> Ratio:
    told = f"{device} {rival.backend}/{rival.variant}"
    if (rival.backend, rival.variant) == (calls.DEFINITION, dispatch.REFERENCE):
        told += ", the definition"
    return Ratio(
        row.entry, row.size, row.dtype, row.device, row.backend, row.variant, False, told, pair.first.median,
        pair.second.median, pair.ratio, pair.low, pair.high, pair.n, TURNED.get(pair.verdict, pair.verdict), effect,
        phase=row.phase,
    )  # fmt: skip


__all__ = ["Trial", "compare", "gradient", "need_signature", "prove", "put_in"]
