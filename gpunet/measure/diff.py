"""Two recorded reports, row by row: faster, slower, same or unsure.

Two runs, even of the same code, differ by what the machine did meanwhile. Three things keep that from being read as a
change: intervals (a row's ratio lies between the ends of its two medians' intervals), drift (where both runs probed the
roof of a device, no difference smaller than that of the probes is believed), and peers (where both runs timed a row in
turns with the same library, the two ratios to it are compared instead of the times: what slowed the machine slowed
both).
"""

from collections.abc import Iterator
from typing import NamedTuple

from gpunet.measure import pairs
from gpunet.measure.rows import Ratio, Report, Roof, Row

EFFECT = 0.10  # the smallest change that counts: runs differ by more than pairs do

Key = tuple[object, ...]


class Change(NamedTuple):
    """One row of both reports."""

    row: Row
    """The second report's."""
    before: float
    """Seconds a call."""
    after: float
    ratio: float
    """Time after / time before."""
    low: float
    high: float
    verdict: str
    """What the second is beside the first: see :mod:`gpunet.measure.pairs`."""
    basis: str
    """"times", or the peer whose ratios were compared."""


class Diff(NamedTuple):
    """What two reports say of each other."""

    changes: list[Change]
    missing: list[Key]
    """In the first alone."""
    new: list[Key]
    """In the second alone."""
    notes: list[str]

    def count(self, verdict: str) -> int:
        """Rows with this verdict."""
        return sum(each.verdict == verdict for each in self.changes)


def key(row: Row) -> Key:
    """What makes two rows the same measurement."""
    return (
        row.op, row.entry, row.phase, row.device, row.backend, row.variant, row.dtype, row.size, row.threads,
        row.time.cache,
    )  # fmt: skip


def compare(first: Report, second: Report, effect: float = EFFECT) -> Diff:
    """Holds the rows of two reports against each other.

    Args:
        first: before.
        second: after.
        effect: the smallest change that counts, as a part of the time.
    """
    before = {key(row): row for row in first.rows}
    after = {key(row): row for row in second.rows}
    changes = [_change(before[each], row, first, second, effect) for each, row in after.items() if each in before]
    missing = [each for each in before if each not in after]
    return Diff(changes, missing, [each for each in after if each not in before], list(_notes(first, second)))


def _change(one: Row, other: Row, first: Report, second: Report, effect: float) -> Change:
    basis, ratio, low, high = _by_peer(one, other, first, second) or _by_time(one, other, first, second)
    verdict = pairs.judge(low, high, effect)
    return Change(other, one.time.median, other.time.median, ratio, low, high, verdict, basis)


def _by_peer(one: Row, other: Row, first: Report, second: Report) -> tuple[str, float, float, float] | None:
    """The change of the ratio to a peer that both runs measured."""
    mine, yours = _ratios(one, first), _ratios(other, second)
    both = [peer for peer in mine if peer in yours]
    if not both:
        return None
    # The peer whose two intervals are narrowest says most.
    peer = min(both, key=lambda each: mine[each].high / mine[each].low * yours[each].high / yours[each].low)
    a, b = mine[peer], yours[peer]
    return peer, a.ratio / b.ratio, a.low / b.high, a.high / b.low


def _ratios(row: Row, report: Report) -> dict[str, Ratio]:
    names = ("entry", "phase", "device", "backend", "variant", "dtype", "size", "threads")
    return {
        each.peer: each
        for each in report.ratios
        if each.low > 0 and all(getattr(each, name) == getattr(row, name) for name in names)
    }


def _by_time(one: Row, other: Row, first: Report, second: Report) -> tuple[str, float, float, float]:
    a, b, drift = one.time, other.time, 1 + _drift(one, first, second)
    return "times", b.median / a.median, b.low / a.high / drift, b.high / a.low * drift


def _drift(row: Row, first: Report, second: Report) -> float:
    """By what part the probes of the two runs differ; 0 where one of them has none."""
    one, other = (_roof(row, each) for each in (first, second))
    if one is None or other is None:
        return 0.0
    rates = [(getattr(one, name), getattr(other, name)) for name in ("flops", "memory", "cache")]
    return max((max(pair) / min(pair) - 1 for pair in rates if min(pair) > 0), default=0.0)


def _roof(row: Row, report: Report) -> Roof | None:
    return next((each for each in report.roofs if (each.device, each.dtype) == (row.device, row.dtype)), None)


def _notes(first: Report, second: Report) -> Iterator[str]:
    for name, told in (("processor", "processors"), ("gpus", "GPUs"), ("packages", "packages"), ("python", "Python")):
        one, other = first.environment.get(name), second.environment.get(name)
        if one != other:
            yield f"the two runs had different {told}"
    for report, which in ((first, "first"), (second, "second")):
        if not report.complete:
            yield f"the {which} run was interrupted: its report holds a part of the rows"
