"""The parts of a run that look at kernels: proving all of them, and timing them op by op."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpunet import dispatch
from gpunet.dispatch import Kernel, Work
from gpunet.measure import calls, events, guard, loop, machine, progress, proof, roof, split, threads, timer, variation
from gpunet.measure.calls import Case, suites
from gpunet.measure.proof import Verdict
from gpunet.measure.rows import Proof, Roof, Row, Timing
from gpunet.measure.session import DTYPES, Lane, Session, kernels_of

COPIES_AT_WORK = 16  # arrays of a size's bytes that are alive at once: float64 twins, gradients, results
FEWEST_SECONDS, MOST_SECONDS = 0.03, 1.0  # for the clock of one row, however short or long the time is

guard.remember()  # before any user's file is imported: what judges kernels must stay what it is now


# ------------------------------------------------------------------------------------------------------------- proof


def prove_all(session: Session) -> None:
    """Proves every kernel of every lane on small and on real sizes, in both dtypes, and the definition's gradients."""
    tasks = [(op, size) for tier in ("proof", "quick") for op in session.ops for size in suites.sizes(op, (tier,))]
    reached: set[tuple[str, str]] = set()
    with progress.shown(session.screen, "proof", len(tasks)) as step:
        for op, size in tasks:
            if session.budget.over:
                session.note(f"proof stopped for lack of time at {op} {size.name}: give it more with --budget")
                return
            step(f"{op} {size.name}")
            for dtype in DTYPES:
                reached |= _prove_size(session, op, size, dtype)
            if size.tier == "proof":
                _gradient(session, op, size)
            session.save()
    _name_untested(session, reached)


def _prove_size(session: Session, op: str, size: Any, dtype: str) -> set[tuple[str, str]]:
    """Proves all kernels that one size reaches; returns those that took it, as (kernel, device)."""
    took = set()
    cases = captured(session, op, size, dtype, session.options.seed)
    if size.tier == "proof":
        cases += _at_other_extents(op, size, dtype, session.options.seed)
    for case in cases:
        for lane in session.lanes:
            if lane.device.kind == "sim" and size.tier != "proof":
                continue  # the simulator needs minutes for what a device does in milliseconds
            for kernel in kernels_of(lane, case.entry):
                if size.tier == "proof":
                    session.small.add((kernel.name, str(lane.device), dtype))
                if _prove(session, case, kernel, lane).status != "refused":
                    took.add((kernel.name, str(lane.device)))
    return took


def captured(session: Session, op: str, size: Any, dtype: str, seed: int) -> list[Case]:
    """The calls of one size, each label once; none, and a failed proof, if the public function raises."""
    try:
        found = calls.capture(suites.load(op), size, dtype, seed, second=size.tier == "proof")
    except Exception as error:  # one op that breaks must not take the others' results with it
        reason = f"it raises {type(error).__name__}: {error}"
        row = Proof(op, op, "", "cpu", calls.DEFINITION, "", "", dtype, size.name, "failed", reason)
        session.report.proofs.append(row)
        return []
    return list({(case.phase, case.label): case for case in found}.values())


def _at_other_extents(op: str, size: Any, dtype: str, seed: int) -> list[Case]:
    """The calls of a size with extents that no kernel could be made for; none where the op takes no others."""
    try:
        found = calls.capture(suites.load(op), variation.other_size(size, seed), dtype, seed, second=True)
    except Exception:  # a keyword of the op names an extent, or shapes must match in another way
        return []
    return list({(case.phase, case.label): case for case in found}.values())


def _prove(session: Session, case: Case, kernel: Kernel, lane: Lane, repeats: int = proof.REPEATS) -> Verdict:
    """One proof, written into the report unless a row of the same case is there already and it passed."""
    verdict = proof.prove(case, kernel, lane.device, repeats)
    if verdict.first_call:
        session.first_call(kernel, lane.device, case.dtype, verdict.first_call)
    row = proof.row(case, kernel, lane.device, verdict)
    known = [(each.entry, each.phase, each.size, each.dtype, each.place, each.device) for each in session.report.proofs]
    if verdict.status == "failed":
        session.wrong.add((kernel.name, str(lane.device)))
        session.report.proofs.append(row)
    elif (row.entry, row.phase, row.size, row.dtype, row.place, row.device) not in known:
        session.report.proofs.append(row)
    return verdict


def _gradient(session: Session, op: str, size: Any) -> None:
    if any(lane.backend == calls.DEFINITION for lane in session.lanes):
        session.report.proofs.append(proof.prove_gradient(suites.load(op), size, session.options.seed))


def _name_untested(session: Session, reached: set[tuple[str, str]]) -> None:
    ops = [op for op in dispatch.ops() if op in session.ops]
    for lane in session.lanes:
        for entry in (entry for op in ops for entry in dispatch.entries(op)):
            for kernel in kernels_of(lane, entry):
                if (kernel.name, str(lane.device)) not in reached:
                    session.report.proofs.append(proof.untested(kernel, lane.device))


# -------------------------------------------------------------------------------------------------------------- time


def time_all(session: Session) -> None:
    """Times the kernels of every lane but the simulator's, each proved on the size itself before and after."""
    lanes = [lane for lane in session.lanes if lane.device.kind != "sim"]
    if len(lanes) < len(session.lanes):
        session.note("sim is not timed: it executes GPU kernels on the processor, and its times mean nothing")
    tasks = [
        (op, size, dtype)
        for op in session.ops
        for size in suites.sizes(op, _tiers(session, lanes))
        for dtype in session.options.dtypes or (DTYPES if session.options.full else DTYPES[:1])
    ]
    try:
        _time_tasks(session, lanes, tasks)
    finally:
        settle(session)


def _time_tasks(session: Session, lanes: Sequence[Lane], tasks: Sequence[tuple[str, Any, str]]) -> None:
    with progress.shown(session.screen, "time", len(tasks)) as step:
        for done, (op, size, dtype) in enumerate(tasks):
            if session.budget.over:
                left = len(tasks) - done
                session.note(f"timing stopped for lack of time with {left} of {len(tasks)} sizes left: see --budget")
                return
            step(f"{op} {size.name} {dtype}")
            if fits(session, op, size, dtype):
                share = session.budget.left / (len(tasks) - done)
                session.report.rows.extend(time_size(session, lanes, op, size, dtype, share))
            session.save()


def _tiers(session: Session, lanes: Sequence[Lane]) -> tuple[str, ...]:
    if session.options.tiers is not None:
        return session.options.tiers
    if not session.options.full:
        return ("quick",)
    if any(lane.device.kind == "cuda" for lane in lanes):
        return ("quick", "standard", "full")
    session.note("sizes of tier 'full' are left out: they are for a GPU, and none runs here")
    return ("quick", "standard")


def fits(session: Session, op: str, size: Any, dtype: str) -> bool:
    """Whether memory suffices for a size; a note says so if it does not."""
    needed = size.elements * np.dtype(dtype).itemsize * COPIES_AT_WORK
    if needed <= machine.memory()["available"]:
        return True
    session.note(f"{op} {size.name} {dtype} left out: it needs about {needed / 2**30:.0f} GiB, more than is available")
    return False


def time_size(session: Session, lanes: Sequence[Lane], op: str, size: Any, dtype: str, share: float) -> Iterator[Row]:
    """The rows of one size, within about ``share`` seconds; on the processor one for each number of threads asked for.

    Args:
        session: the run.
        lanes: where to time.
        op: whose suite the size is of.
        size: one of its sizes.
        dtype: "float32" or "float64".
        share: seconds, proofs included.
    """
    seed = session.options.seed
    cases = captured(session, op, size, dtype, seed + 10)
    after = {(each.phase, each.label): each for each in captured(session, op, size, dtype, seed + 20)}
    todo = [
        (case, lane, kernel, count)
        for case in cases
        for lane in lanes
        for kernel in _contestants(session, case, lane)
        for count in threads.counts(lane.device, session.options.threads)
    ]
    # Half of the share goes to proofs and copies.
    seconds = max(FEWEST_SECONDS, min(MOST_SECONDS, 0.5 * share / max(1, len(todo))))
    for case, lane, kernel, count in todo:
        with threads.limited(count):
            row = time_kernel(session, case, after.get((case.phase, case.label)), lane, kernel, seconds, count)
        if row is not None:
            yield row


def _contestants(session: Session, case: Case, lane: Lane) -> list[Kernel]:
    """The kernels to time: in a quick pass the one that would be chosen, in a full one every rung."""
    found = [
        each
        for each in kernels_of(lane, case.entry)
        if (each.name, str(lane.device)) not in session.wrong
        and each.refusal(case.arrays_on(lane.device) if each.when else (), case.call.params) is None
    ]
    rungs = dispatch.ladder(case.entry.partition(".")[0])
    ladder = [each for each in found if each.variant in rungs]
    return found if session.options.full or session.options.ops else ladder[-1:]


def time_kernel(
    session: Session, case: Case, fresh: Case | None, lane: Lane, kernel: Kernel, seconds: float, count: int = 0
) -> Row | None:
    """One row: proof on small sizes and on this one, time on other inputs, and proof again on inputs not seen before.

    Args:
        session: the run; proofs go into its report, those that fail included.
        case: the inputs of the first proof.
        fresh: the same call on other inputs, for the clock and, in another order, for the last proof; None: made here.
        lane: where it runs.
        kernel: any kernel of the case's entry.
        seconds: for the clock.
        count: threads that the pools have now, for the row; 0 for all.

    Returns:
        The row, or None if a proof failed or the timed calls were not what was proved.
    """
    if not _proved_on_small_sizes(session, case, lane, kernel):
        return None
    before = _prove(session, case, kernel, lane)
    if before.status != "passed":
        return None
    fresh = fresh or case.permuted
    copies, cold = timer.copies_for(fresh.nbytes)
    if lane.device.kind == "cuda":
        copies, cold = events.copies_for(fresh.nbytes), True
    timed = loop.Loop(fresh, kernel, lane.device, copies)
    limits = timer.Limits(warmup=0.1 * seconds, min_time=0.3 * seconds, max_time=seconds)
    timing = timed.time(limits, cold)
    if timing is None:
        return _failed(session, case, lane, kernel, timed.reason)
    timing.first_call = session.first_call(kernel, lane.device, case.dtype, timing.first_call)
    after = _prove(session, fresh.permuted, kernel, lane, repeats=1)
    if after.status != "passed":
        return None
    slower = loop.slower_in_proof(min(before.later_call, after.first_call), timing)
    if slower:
        return _failed(session, case, lane, kernel, slower)
    row = _row(session, case, lane, kernel, timing, before)
    row.threads = count
    row.launch, row.copy_in, row.copy_out, row.peak = split.split(fresh, kernel, lane.device)
    return row


def _failed(session: Session, case: Case, lane: Lane, kernel: Kernel, reason: str) -> None:
    """Writes down why there is no row, as a proof that failed."""
    session.wrong.add((kernel.name, str(lane.device)))
    session.report.proofs.append(proof.row(case, kernel, lane.device, Verdict(reason)))


def _proved_on_small_sizes(session: Session, case: Case, lane: Lane, kernel: Kernel) -> bool:
    """Whether the kernel is right on the op's sizes of tier "proof"; they are tried once a run for each dtype.

    A kernel may be right on the sizes that are timed and on no other.
    """
    key = (kernel.name, str(lane.device), case.dtype)
    if key not in session.small:
        for size in suites.sizes(case.op, ("proof",)):
            cases = captured(session, case.op, size, case.dtype, session.options.seed)
            for each in [*cases, *_at_other_extents(case.op, size, case.dtype, session.options.seed)]:
                if each.entry == kernel.entry:
                    _prove(session, each, kernel, lane)
        session.small.add(key)
    return (kernel.name, str(lane.device)) not in session.wrong


def _row(session: Session, case: Case, lane: Lane, kernel: Kernel, timing: Timing, verdict: Verdict) -> Row:
    work = case.work
    stands = roof.standing(work, timing, session.roof(lane.device, case.dtype), roof.savings(kernel.op, kernel.variant))
    if stands.impossible:  # or the roof was probed in a busy moment, which made it too low
        best = session.raise_roof(lane.device, case.dtype)
        stands = roof.standing(work, timing, best, roof.savings(kernel.op, kernel.variant))
    return Row(
        case.op, case.label, case.phase, str(lane.device), kernel.backend, kernel.variant, kernel.place, case.dtype,
        case.size.name, case.size.origin, case.size.tier, case.shapes, _plain(case.call.params),
        verdict.status, verdict.reached, verdict.allowed, timing,
        work.flops, work.bytes_read, work.bytes_written, *stands, deterministic=verdict.deterministic,
    )  # fmt: skip


def settle(session: Session) -> None:
    """Holds all rows against the best roof seen; while one is impossible, the roof is probed again, up to three times.

    A roof that was probed in a busy moment is too low, and would make honest rows look impossible.
    """
    for again in range(3):
        for row in session.report.rows:
            _stand(row, session.report.roofs)
        low = {(row.device, row.dtype) for row in session.report.rows if row.impossible}
        if not low or again == 2:
            return
        for lane in session.lanes:
            for dtype in {dtype for device, dtype in low if device == str(lane.device)}:
                session.raise_roof(lane.device, dtype)


def _stand(row: Row, roofs: Sequence[Roof]) -> None:
    over = next(each for each in roofs if (each.device, each.dtype) == (row.device, row.dtype))
    saving = roof.savings(row.entry.partition(".")[0], row.variant)
    stands = roof.standing(Work(row.flops, row.bytes_read, row.bytes_written), row.time, over, saving)
    row.gflops, row.gbytes, row.roof_percent, row.bound, row.impossible = stands


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in params.items()}
