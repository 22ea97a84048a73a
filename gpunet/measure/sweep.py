"""Each op over sizes that grow, on every device, backend and number of threads: from where on does a GPU pay?

The axis and its extents are in the suites (bench/suites: ``sweep``, ``SWEEP``, ``AXIS``). At each extent the calls of
the op, forward and backward, are captured, and the kernel that runs by itself on each lane is proved there and timed,
all lanes in turns. Small extents of all ops come first; what the time does not suffice for is left out with a note.

On a GPU there are two clocks: the kernel alone, on arrays that lie there, with the time in which the host hands a call
over beside it; and the host's clock around inputs brought from ordinary memory, the kernel, and its results brought
back. Every lane finds its inputs where its last call left them: caches are hot on all sides alike.
"""

import gc
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunet import config, dispatch
from gpunet.dispatch import Kernel
from gpunet.errors import GpunetError
from gpunet.measure import break_even, events, guard, loop, pairs, passes, progress, proof, threads, timer, turns
from gpunet.measure.calls import Case, outputs, suites
from gpunet.measure.curves import Point, Sweep
from gpunet.measure.session import DTYPES, Lane, Session

STRIDE = 2  # a quick pass takes every second extent
GROWTH = 4.0  # times as long as the second extent the third will take
LONGEST = 30.0  # seconds that one extent of one op may take, by what the one before took
FEWEST_SECONDS, MOST_SECONDS = 0.01, 0.3  # for the clock of one lane
REPEATS = 2  # calls of a proof: kept answers show; that bits repeat is looked at in the other proofs
COPIES_SHARE = 0.5  # of the clock of the kernel alone, for the one with copies


@dataclass
class Place:
    """A lane with a number of threads: what one curve belongs to."""

    lane: Lane
    threads: int

    @property
    def name(self) -> str:
        """As break-even sentences call it."""
        return break_even.name_of(str(self.lane.device), self.lane.backend, self.threads)


@dataclass
class _Op:
    """An op on its way through the extents."""

    name: str
    dtype: str
    extents: deque[int]
    spent: list[float] = field(default_factory=list)
    """Seconds that each extent took."""
    sweeps: dict[tuple[str, str], Sweep | None] = field(default_factory=dict)
    """(label, place) -> its curve; None once a proof failed."""

    @property
    def next(self) -> float:
        """Seconds that the next extent will take, by those before; of the first nothing follows, for it compiles."""
        if len(self.spent) < 3:
            return GROWTH * self.spent[-1] if len(self.spent) == 2 else 0.0
        return self.spent[-1] * max(1.0, self.spent[-1] / self.spent[-2])


def sweep_all(session: Session) -> None:
    """Times the sweeps of all ops of the session, and puts them and their break-even sizes into its report.

    Args:
        session: the run; its budget says how many extents are reached, its options which ops and dtypes.
    """
    places = places_of(session)
    dtypes = session.options.dtypes or (DTYPES if session.options.full else DTYPES[:1])
    queue = deque(
        _Op(name, dtype, deque(_extents(name, session.options.full)))
        for dtype in dtypes
        for name in suites.sweeps()
        if name in session.ops
    )
    everything, earlier = list(queue), list(session.report.sweeps)
    total = sum(len(each.extents) for each in queue)
    with progress.shown(session.screen, "sweep", total) as step, _settled_memory():
        while queue and places:
            op = queue.popleft()
            step(f"{op.name} N = {op.extents[0]}")
            if _one_extent(session, op, places, sum(len(each.extents) for each in (op, *queue))):
                queue.append(op)
            found = [each for ran in everything for each in ran.sweeps.values() if each is not None and each.points]
            session.report.sweeps = earlier + found  # after each extent: an interrupted run keeps what it has
            session.report.break_even = break_even.all_of(session.report.sweeps)
            session.save()


@contextmanager
def _settled_memory() -> Iterator[None]:
    """What is alive now is left out of garbage collections inside: one before each extent would look at all of it."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def places_of(session: Session) -> list[Place]:
    """Every lane that is timed; on the processor once with one thread and once with all."""
    return [
        Place(lane, count)
        for lane in session.lanes
        if lane.device.kind != "sim"
        for count in threads.counts(lane.device, (1, threads.ALL))
    ]


def _extents(op: str, full: bool) -> Sequence[int]:
    return suites.load(op).SWEEP[:: 1 if full else STRIDE]


def _one_extent(session: Session, op: _Op, places: Sequence[Place], remaining: int) -> bool:
    """Does the next extent of an op; False when the op is through, or the time is too short for more of it."""
    if session.budget.over or op.next > min(LONGEST, 0.5 * session.budget.left):
        told = f"N = {op.extents[0]}" + (f" to {op.extents[-1]}" if len(op.extents) > 1 else "")
        session.note(f"sweep of {op.name} {op.dtype}: {told} left out for lack of time")
        return False
    n, begin = op.extents.popleft(), timer.clock()
    size = suites.load(op.name).sweep(n)
    if not passes.fits(session, op.name, size, op.dtype):
        return False
    cases = passes.captured(session, op.name, size, op.dtype, session.options.seed + 40)
    if not cases:
        return False
    clocks = len(cases) * len(places)
    seconds = max(FEWEST_SECONDS, min(MOST_SECONDS, 0.3 * session.budget.left / remaining / clocks))
    with timer.no_collector():
        for case in {each.label: each for each in reversed(cases)}.values():  # of two with one label the first
            _one_case(session, op, n, case, places, seconds)
    op.spent.append(timer.clock() - begin)
    return bool(op.extents)


def _one_case(session: Session, op: _Op, n: int, case: Case, places: Sequence[Place], seconds: float) -> None:
    """Proves and times one call on every place, and adds a point to each curve."""
    proved: dict[tuple[str, str], bool] = {}
    lanes: dict[turns.Watched, Place] = {}

    def fail(place: Place, reason: str) -> None:
        op.sweeps[case.label, place.name] = None
        session.note(f"sweep of {case.label} on {place.name} has no points: at N = {n} {reason}")

    for place in places:
        if op.sweeps.get((case.label, place.name), ...) is None:
            continue
        kernel = chosen(place.lane, case)
        if kernel is None:
            if dispatch.variants(case.entry, place.lane.backend):
                session.note(f"sweep of {case.label} on {place.lane}: no kernel there takes N = {n}")
            continue
        key = (kernel.name, str(place.lane.device))
        if key not in proved:
            proved[key] = _proved(session, case, place.lane, kernel)
        if not proved[key]:
            fail(place, f"the proof of {kernel.name} failed")
            continue
        try:
            lanes[_watched(case, kernel, place)] = place
        except Exception as error:  # as in a proof, whatever a kernel raises must not end the run
            fail(place, f"{kernel.name} raises {type(error).__name__}: {error}")
    for lane in _timed(lanes, seconds * len(lanes), fail):
        place = lanes[lane]
        curve = op.sweeps.setdefault((case.label, place.name), _new(op, case, place))
        if curve is not None:
            curve.points.append(_point(n, case, lane, place, seconds))


def chosen(lane: Lane, case: Case) -> Kernel | None:
    """The kernel that runs by itself on a lane for a call; None where there is none."""
    with config.use_backend(lane.backend):
        try:
            return dispatch.find(lane.device, case.entry, case.arrays_on(lane.device), case.call.params)
        except GpunetError:
            return None


def _proved(session: Session, case: Case, lane: Lane, kernel: Kernel) -> bool:
    """Whether the kernel is right on small sizes, tried once a run, and on this call."""
    if (kernel.name, str(lane.device)) in session.wrong:
        return False
    right = passes._proved_on_small_sizes(session, case, lane, kernel)
    return right and passes._prove(session, case, kernel, lane, REPEATS).status == "passed"


def _watched(case: Case, kernel: Kernel, place: Place) -> turns.Watched:
    guard.need_originals()
    fresh = case.permuted.permuted  # numbers that no proof has used
    fresh.exchanged.expected  # noqa: B018 the definition runs now, before anything is watched or timed
    with proof.poisoned(False), threads.limited(place.threads):
        return turns.Watched(loop.Loop(fresh, kernel, place.lane.device), place.lane.device, place.threads)


def _timed(lanes: dict[turns.Watched, Place], seconds: float, fail: Any) -> list[turns.Watched]:
    """Samples the lanes in turns; those whose samples all came, and whose last results were right."""
    modules = {id(each): each for place in lanes.values() for each in proof.device_modules(place.lane.device)}
    good: list[turns.Watched] = []
    try:
        with proof.poisoned(False), guard.untouched(tuple(modules.values())):
            ended = turns.sample(list(lanes), seconds, lambda lane, error: fail(lanes[lane], f"it raises {error}"))
            for lane in ended:
                reason = lane.close()
                if reason:
                    fail(lanes[lane], reason)
                else:
                    good.append(lane)
    except guard.TamperedError as error:  # somebody replaced what judges: none of the times can be trusted
        for place in lanes.values():
            fail(place, str(error))
        return []
    return good


def _new(op: _Op, case: Case, place: Place) -> Sweep:
    axis = suites.load(op.name).AXIS
    device, backend = str(place.lane.device), place.lane.backend
    return Sweep(op.name, case.label, device, backend, place.threads, op.dtype, axis, [])


def _point(n: int, case: Case, lane: turns.Watched, place: Place, seconds: float) -> Point:
    time = lane.timing("time")
    point = Point(n, case.shapes, time.median, time.low, time.high)
    if place.lane.device.kind == "cuda":
        point.launch = lane.host
        copies = with_copies(case, lane.judge.kernel, place.lane.device, COPIES_SHARE * seconds)
        point.copied, point.copied_low, point.copied_high = copies
    return point


def with_copies(case: Case, kernel: Kernel, device: Any, seconds: float) -> tuple[float, float, float]:
    """Median seconds, and its 95 % interval, of a call with its inputs brought from the host and its results back.

    Args:
        case: its arguments, in ordinary (pageable) memory of the host, as a program has them.
        kernel: of the case's entry.
        device: where it runs.
        seconds: for the clock.
    """

    def call() -> list[Any]:
        given = tuple(device.asarray(each) if isinstance(each, np.ndarray) else each for each in case.call.arrays)
        return [device.to_host(each) for each in outputs(kernel.function(*given, **case.call.params))]

    def failed(lane: pairs.Lane, error: Exception) -> None:
        raise error

    with proof.poisoned(False):
        lane = pairs.Lane([call], device.synchronize, sample=events.SAMPLE)
        turns.sample([lane], seconds, failed)
    time = lane.timing("time")
    return time.median, time.low, time.high


__all__ = ["Place", "chosen", "places_of", "sweep_all", "with_copies"]
