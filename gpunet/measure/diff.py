"""Recorded reports before and after a change, row by row: faster, slower, same or unsure.

Two runs, even of the same code, differ by what the machine did meanwhile. Four things keep that from being read as a
change: intervals (a row's ratio lies between the ends of its two medians' intervals), drift (where both runs probed the
roof of a device, no difference smaller than that of the probes is believed), and peers (where both runs timed a row in
turns with the same library, the two ratios to it are compared instead of the times: what slowed the machine slowed
both), and runs. For a process keeps some of its luck, such as where its arrays lie, for as long as it lives, and no
interval within it can tell: of 246 rows of two runs of the same code, 21 had intervals that lay 10 to 80 % apart. So
one run on each side says "slower" only beyond a factor of two. With five or more on each side the interval reaches from
the lowest to the highest of all runs, and is believed: five runs lie above five others by chance once in 252 times.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from gpunet.measure import pairs
from gpunet.measure.rows import Ratio, Report, Roof, Row

EFFECT = 0.10  # the smallest change that counts: runs differ by more than pairs do
RUNS = 5  # on each side, from which on their own spread says what changes by chance
CHANCE = 2.0  # the factor by which rows of two runs may differ for no reason

TIMES = "times"

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


def compare(first: Report | Sequence[Report], second: Report | Sequence[Report], effect: float = EFFECT) -> Diff:
    """Holds the rows of reports against each other.

    Args:
        first: before; one run, or several.
        second: after.
        effect: the smallest change that counts, as a part of the time.
    """
    befores = [first] if isinstance(first, Report) else list(first)
    afters = [second] if isinstance(second, Report) else list(second)
    sides = [[{key(row): row for row in run.rows} for run in side] for side in (befores, afters)]
    old, new = ([each for each in side[0] if all(each in run for run in side)] for side in sides)
    changes = []
    for each in new:
        if each in old:
            rows = [[run[each] for run in side] for side in sides]
            changes.append(_change(rows[0], rows[1], befores, afters, effect))
    notes = list(dict.fromkeys(each for pair in product(befores, afters) for each in _notes(*pair)))
    if min(len(befores), len(afters)) < RUNS:
        notes.append(
            f"with fewer than {RUNS} runs on each side, changes below a factor of {CHANCE:g} are left unsure: give "
            "more runs, or time both in one process: gpunet bench --against commit:REF"
        )
    return Diff(changes, [each for each in old if each not in new], [each for each in new if each not in old], notes)


def _change(
    ones: Sequence[Row], others: Sequence[Row], befores: list[Report], afters: list[Report], effect: float
) -> Change:
    """The change of one row: every run before beside every run after."""
    couples = list(product(zip(ones, befores, strict=True), zip(others, afters, strict=True)))
    found = [_ratios_of(one, other, first, second) for (one, first), (other, second) in couples]
    known = [basis for basis in found[0] if all(basis in each for each in found)]
    spans = {basis: _span([each[basis] for each in found]) for basis in known}
    # Times only where no peer was measured by all; of the peers the one whose interval is narrowest says most.
    basis = min(known, key=lambda each: (each == TIMES, spans[each].high / spans[each].low))
    ratio, low, high = spans[basis]
    verdict = pairs.judge(low, high, effect)
    few = min(len(ones), len(others)) < RUNS
    if few and verdict in ("slower", "faster") and 1 / CHANCE <= (low if verdict == "slower" else high) <= CHANCE:
        verdict = "unsure"
    before, after = (float(np.median([each.time.median for each in side])) for side in (ones, others))
    return Change(others[0], before, after, ratio, low, high, verdict, basis)


class _Span(NamedTuple):
    """Time after / time before, and its interval."""

    ratio: float
    low: float
    high: float


def _span(found: Sequence[_Span]) -> _Span:
    """The middle of several, from the lowest end to the highest."""
    return _Span(
        float(np.median([each.ratio for each in found])),
        min(each.low for each in found),
        max(each.high for each in found),
    )


def _ratios_of(one: Row, other: Row, first: Report, second: Report) -> dict[str, _Span]:
    """The change by times, and by the ratio to each peer that both runs measured."""
    mine, yours = _ratios(one, first), _ratios(other, second)
    found = {
        peer: _Span(a.ratio / b.ratio, a.low / b.high, a.high / b.low)
        for peer, a in mine.items()
        if (b := yours.get(peer)) is not None
    }
    a, b, drift = one.time, other.time, 1 + _drift(one, first, second)
    return {**found, TIMES: _Span(b.median / a.median, b.low / a.high / drift, b.high / a.low * drift)}


def _ratios(row: Row, report: Report) -> dict[str, Ratio]:
    names = ("entry", "phase", "device", "backend", "variant", "dtype", "size", "threads")
    return {
        each.peer: each
        for each in report.ratios
        if each.low > 0 and all(getattr(each, name) == getattr(row, name) for name in names)
    }


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
