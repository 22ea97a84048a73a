"""The size from which on one lane is faster than another, from two sweeps over the same extents.

At each extent one lane is surely faster if the whole 95 % interval of its median lies below the other's, by more than
5 %: the same code timed as two lanes is apart by less, now and then surely. Else the extent says nothing for sure.

The lane that is surely faster at small extents is called near, the other far. The break-even size lies between the last
extent at which near is surely faster and the first from which far is, and stays so; in between it is interpolated,
logarithm of the ratio against logarithm of the size. Lanes may cross more than once; the last crossing counts then, and
the words say so.

Without copies a GPU's call takes as long as the kernel or as handing it over, whichever is longer: so long it takes in
a stream of calls. With copies it is the host's clock from the inputs on the host to the results on the host.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from gpunet.measure.curves import BreakEven, Point, Sweep

EFFECT = 0.05  # as in pairs; smaller differences are no reason to move work
LISTED = 4  # extents that a sentence names one by one
NEAR, FAR, UNSURE = "near", "far", "unsure"


class Time(NamedTuple):
    """Seconds of a call, and the 95 % interval."""

    median: float
    low: float
    high: float


class _Race(NamedTuple):
    """Two sweeps at their common extents."""

    near: Sweep
    far: Sweep
    copies: bool
    extents: list[int]
    times: list[tuple[Time, Time]]
    winners: list[str]

    @property
    def sure(self) -> list[str]:
        """The winners, without the extents that say nothing."""
        return [each for each in self.winners if each != UNSURE]

    @property
    def range(self) -> str:
        """The extents in words."""
        first, last = (size_text(each) for each in (self.extents[0], self.extents[-1]))
        return first if first == last else f"{first} to {last}"

    @property
    def sides(self) -> tuple[str, str]:
        """The names of near and far; where they differ by threads alone, by both numbers of threads."""
        same = (self.near.device, self.near.backend, self.near.machine) == (
            self.far.device, self.far.backend, self.far.machine,
        )  # fmt: skip
        return lane_name(self.near, same), lane_name(self.far, same)


def time_of(point: Point, copies: bool) -> Time:
    """What a call at a point takes."""
    if copies and point.copied is not None:
        low, high = point.copied_low, point.copied_high
        return Time(point.copied, point.copied if low is None else low, point.copied if high is None else high)
    least = point.launch or 0.0
    return Time(max(point.median, least), max(point.low, least), max(point.high, least))


def find(one: Sweep, other: Sweep, copies: bool = False) -> BreakEven | None:
    """The break-even size of two lanes, and a sentence on it.

    Args:
        one: the lane that is expected to be faster at small sizes; if it is the other way round they change places.
        other: of the same entry, dtype and axis.
        copies: whether a GPU's copies count.

    Returns:
        None if they have no extent in common.
    """
    race = _race(one, other, copies)
    if not race.extents:
        return None
    if race.sure and race.sure[-1] == NEAR and FAR in race.sure:  # at large extents the first one wins
        race = _race(other, one, copies)
    low, high = _bounds(race)
    n = None if low is None or high is None else _crossing(race, low, high)
    least, most = (None if each is None else float(race.extents[each]) for each in (low, high))
    return BreakEven(one.op, one.entry, one.dtype, *race.sides, copies, n, least, most, _words(race, n, low, high))


def _race(near: Sweep, far: Sweep, copies: bool) -> _Race:
    left, right = ({point.n: point for point in each.points} for each in (near, far))
    extents = sorted(left.keys() & right.keys())
    times = [(time_of(left[n], copies), time_of(right[n], copies)) for n in extents]
    return _Race(near, far, copies, extents, times, [_winner(*each) for each in times])


def _winner(near: Time, far: Time) -> str:
    if near.high * (1 + EFFECT) < far.low:
        return NEAR
    return FAR if far.high * (1 + EFFECT) < near.low else UNSURE


def _bounds(race: _Race) -> tuple[int | None, int | None]:
    """Which extent is the last where near is surely faster, and which the first from which far is and stays so."""
    winners = race.winners
    low = max((k for k, each in enumerate(winners) if each == NEAR), default=None)
    high = len(winners)
    while high and winners[high - 1] == FAR:
        high -= 1
    return low, high if high < len(winners) else None


def _crossing(race: _Race, low: int, high: int) -> float:
    """Where the logarithm of near's time over far's passes through 0, between two extents."""
    (x, y), (a, b) = ((math.log(race.extents[k]), _log_ratio(race.times[k])) for k in (low, high))
    return math.exp(x - y * (a - x) / (b - y))


def _log_ratio(times: tuple[Time, Time]) -> float:
    near, far = times
    return math.log(near.median / far.median)


# ------------------------------------------------------------------------------------------------------------- words


def _words(race: _Race, n: float | None, low: int | None, high: int | None) -> str:
    near, far = race.sides
    told = _conclusion(race, n, low, high, near, far)
    copies = ", with copies of inputs and results" if race.copies else ""
    others = [f"{each.device} {each.backend} is {_of_machine(each)}" for each in (race.near, race.far) if each.machine]
    machines = f"; two machines are compared, this one and another: {' and '.join(others)}" if others else ""
    return f"{race.near.entry}{copies}: {told}{machines}"


def _conclusion(race: _Race, n: float | None, low: int | None, high: int | None, near: str, far: str) -> str:
    extents = race.extents
    if low is not None and high is not None and n is not None:
        between = f"between {size_text(extents[low])} and {size_text(extents[high])}"
        again = f"; they cross {_changes(race.sure)} times, this is the last" if _changes(race.sure) > 1 else ""
        return f"below N = {size_text(n)} ({between}) stay on {near}; from there {far} is faster{again}"
    for side, name in ((NEAR, near), (FAR, far)):
        if set(race.winners) == {side}:
            sizes = "at every size tried" if len(extents) > 1 else "at the only size tried"
            return f"{name} is faster {sizes} ({race.range})"
    if not race.sure:
        return f"{near} and {far} are not surely apart at any size tried ({race.range})"
    if set(race.sure) == {NEAR} or set(race.sure) == {FAR}:
        return _one_side(race, near if race.sure[0] == NEAR else far)
    sides = (f"{name} is faster at {_sizes(race, side)}" for side, name in ((NEAR, near), (FAR, far)))
    return f"{', '.join(sides)}; at the largest tried ({race.range}) neither surely"


def _one_side(race: _Race, name: str) -> str:
    """Words where only one side is ever surely faster, and not everywhere."""
    first = race.winners.index(race.sure[0])
    if UNSURE not in race.winners[first:] and len(race.sure) > 1:
        begin = size_text(race.extents[first])
        return f"{name} is faster from N = {begin} on; below ({race.range} tried) neither surely"
    listed = _sizes(race, race.sure[0])
    return f"{name} is faster at {listed}; at the others tried ({race.range}) neither surely"


def _sizes(race: _Race, side: str) -> str:
    """The extents at which a side is surely faster."""
    sizes = [size_text(n) for n, each in zip(race.extents, race.winners, strict=True) if each == side]
    if len(sizes) > LISTED:
        return f"{len(sizes)} sizes from N = {sizes[0]} to {sizes[-1]}"
    return f"N = {' and '.join(sizes) if len(sizes) < 3 else ', '.join(sizes)}"


def _changes(sure: Sequence[str]) -> int:
    """How often the surely faster side changes."""
    return sum(a != b for a, b in pairwise(sure))


def size_text(n: float) -> str:
    """An extent as it is, a size in between with two digits."""
    if float(n).is_integer():
        return f"{int(n):,}"
    rounded = float(f"{n:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def name_of(device: str, backend: str, threads: int, both: bool = False) -> str:
    """A lane in a sentence.

    Args:
        device: such as "cpu".
        backend: such as "numpy".
        threads: 0 for all.
        both: whether to name all threads too.
    """
    count = "" if threads == 0 and not both else " on all threads" if threads == 0 else f" on {_threads(threads)}"
    return f"{device} {backend}{count}"


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def lane_name(sweep: Sweep, both: bool = False) -> str:
    """The lane of a sweep in a sentence; one that was recorded elsewhere is called so."""
    name = name_of(sweep.device, sweep.backend, sweep.threads, both)
    return f"{name} (recorded)" if sweep.machine else name


def _of_machine(sweep: Sweep) -> str:
    return f"{sweep.machine}, recorded {sweep.time.partition('T')[0] or 'on an unknown day'}"


# ------------------------------------------------------------------------------------------------------------- pairs


def all_of(sweeps: Sequence[Sweep]) -> list[BreakEven]:
    """The break-even sizes that a reader may ask for.

    The processor with all threads against each GPU, without and with copies; one thread of the processor against all;
    and the processor's backends against each other.
    """
    found = []
    for group in _groups(sweeps):
        for near, far in _pairs(group):
            found += [find(near, far, copies) for copies in (False, True) if not copies or _has_copies(far)]
    return [each for each in found if each is not None]


def _groups(sweeps: Sequence[Sweep]) -> list[list[Sweep]]:
    """Sweeps of the same entry, dtype and axis."""
    groups: dict[tuple[str, ...], list[Sweep]] = {}
    for each in sweeps:
        groups.setdefault((each.op, each.entry, each.dtype, each.axis), []).append(each)
    return list(groups.values())


def _pairs(group: Sequence[Sweep]) -> list[tuple[Sweep, Sweep]]:
    hosts = [each for each in group if each.device == "cpu" and not each.machine]
    full = [each for each in hosts if each.threads == 0]
    gpus = [each for each in group if each.device.startswith("cuda")]
    threads = [(one, each) for each in full for one in hosts if one.threads and one.backend == each.backend]
    backends = [(one, other) for k, one in enumerate(full) for other in full[k + 1 :]]
    return [(host, gpu) for gpu in gpus for host in full] + backends + threads


def _has_copies(sweep: Sweep) -> bool:
    return any(each.copied is not None for each in sweep.points)
