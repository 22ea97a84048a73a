"""The main job: proves and times every kernel that can run here, trains on real images, and writes the report.

    from gpunet.measure import compare
    report = compare.execute(compare.Options(budget=60))
    compare.run(compare.Options(full=True))  # prints, writes, and returns the exit status

Report.json is written again and again while the run grows, so that what was finished stays, however the run ends.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from gpunet.devices import Device
from gpunet.errors import GpunetError
from gpunet.measure import against, health, passes, progress, recorded, session, steps, sweep, tables, training
from gpunet.measure.rows import Report, write_text
from gpunet.measure.session import Options, Session

#: part -> share of the budget that is spent when it must end
SHARES: dict[str, float] = {
    "proof": 0.26, "time": 0.52, "against": 0.60, "sweep": 0.74, "steps": 0.82, "training": 0.97,
}  # fmt: skip
INTERRUPTED = 130  # 128 + SIGINT, what a shell expects


def run(options: Options) -> int:
    """Runs everything that ``options`` asks for.

    Returns:
        0; 1 if a proof failed or a row is impossible; 130 if it was interrupted, with the finished rows written.

    Raises:
        DeviceError: a device was asked for by name that cannot run here.
        ArgumentError: wrong options.
    """
    return status(execute(options))


def status(report: Report) -> int:
    """The exit status that belongs to a report."""
    if report.failed:
        return 1
    return 0 if report.complete else INTERRUPTED


def execute(options: Options) -> Report:
    """Like ``run``, but returns the report itself, complete or not.

    Example:
        >>> from gpunet.measure import compare
        >>> options = compare.Options(parts=("proof",), ops=("relu",), out=None, quiet=True)
        >>> report = compare.execute(options)
        >>> report.complete, report.failed
        (True, [])
    """
    now = session.start(options)
    rivals = against.rivals(options.against)  # before anything takes its time: one may not be there
    before = {str(place): health.look(place) for place in _places(now)}
    try:
        _announce(now)
        for part, function in PARTS.items():
            if part in options.parts:
                _do(now, part, function if part != "against" else partial(against.against_all, rivals=rivals))
        now.report.complete = True
    except KeyboardInterrupt:
        now.note("interrupted: what was finished until then is here")
    recorded.beside(now)
    now.note_others()
    for place in _places(now):
        for line in health.changes(before[str(place)], health.look(place)):
            now.note(line)
    now.report.environment["health"] = before
    now.report.seconds["all"] = round(now.budget.spent, 1)
    _write(now)
    tables.show(now.screen, now.report)
    if options.out is not None:
        now.screen.print(
            f"written: {options.out / 'report.html'} and report.json, {now.budget.spent:.0f} s", markup=False
        )
    return now.report


def _announce(now: Session) -> None:
    where = ", ".join(str(lane) for lane in now.lanes) or "nowhere"
    limit = "no limit of time" if now.options.seconds is None else f"at most {now.options.seconds:.0f} s"
    now.screen.print(f"gpunet compare: kernels run on {where}; {limit}", markup=False)


def _places(now: Session) -> list[Device]:
    return list(dict.fromkeys(lane.device for lane in now.lanes if lane.device.kind != "sim"))


def _do(now: Session, part: str, function: Callable[[Session], None]) -> None:
    begin = time.monotonic()
    now.budget.part(SHARES[part])
    try:
        function(now)
    finally:
        now.report.seconds[part] = round(time.monotonic() - begin, 1)
        now.save(now=True)
    now.screen.print(f"{part}: done in {now.report.seconds[part]:.1f} s", markup=False)


def _write(now: Session) -> None:
    if now.options.out is None:
        return
    now.save(now=True)
    from gpunet.measure import report

    write_text(now.options.out / "report.html", report.html(now.report))


def train_all(now: Session) -> None:
    """Trains on every device but the simulator, and on the definition beside a cpu that has faster kernels."""
    lanes = _training_lanes(now)
    todo = training.plan(now.options.full, now.options.seed)
    with progress.shown(now.screen, "training", training.steps(todo) * len(lanes)) as step:
        for number, (device, backend) in enumerate(lanes):
            end = time.monotonic() + now.budget.left / (len(lanes) - number)
            name = f"{device} {backend or ''}".strip()
            try:
                curve = training.train(device, backend, todo, lambda end=end: end - time.monotonic(), lambda t: step(t))
            except GpunetError as error:  # an op without a kernel there is a finding, not the end of the run
                now.note(f"training on {name} did not run: {error}")
                continue
            now.report.training.append(curve)
            if curve.stopped:
                now.note(f"training on {name} ended early: {curve.stopped}")
            now.save()
    curves = now.report.training
    now.report.agreement = [training.agreement(curves[0], each) for each in curves[1:]]


def _training_lanes(now: Session) -> Sequence[tuple[Device, str | None]]:
    """(device, backend or None for the device's own choice); the first is what the others are compared with."""
    places = list(dict.fromkeys(lane.device for lane in now.lanes if lane.device.kind != "sim"))
    backends = {place: [lane.backend for lane in now.lanes if lane.device == place] for place in places}
    alone = [(place, "numpy") for place in places if "numpy" in backends[place] and len(backends[place]) > 1]
    return [*alone, *((place, None) for place in places)]


PARTS: dict[str, Callable[..., None]] = {
    "proof": passes.prove_all,
    "time": passes.time_all,
    "against": against.against_all,
    "sweep": sweep.sweep_all,
    "steps": steps.steps_all,
    "training": train_all,
}

__all__ = ["Options", "execute", "run", "status"]
