"""Rows that other machines recorded: beside this run's bars, and in a section of their own with a warning."""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from gpunet.measure import tables
from gpunet.measure.charts import Bar
from gpunet.measure.frame import positive
from gpunet.measure.report_parts import pieces
from gpunet.measure.report_parts.pieces import Column
from gpunet.measure.rows import Report, Row

WARNING = (
    "These numbers are not of this run: they were recorded on other machines and other days, and are here to be looked "
    "at beside it. A ratio of a time here to a time of this run compares two machines, not two kernels."
)
UNKNOWN = "another machine"


class Recorded(NamedTuple):
    """A row of another run, as plain values: a file may be older than this version."""

    source: str
    """Machine and day."""
    row: dict[str, Any]

    @property
    def median(self) -> float | None:
        """Seconds a call; None where the file has none."""
        time = self.row.get("time")
        return time.get("median") if isinstance(time, dict) else None

    def text(self, name: str) -> str:
        """A field as text."""
        value = self.row.get(name)
        return "" if value is None else str(value)

    @property
    def kernel(self) -> str:
        """Where it ran, and which it was."""
        return pieces.joined(self.text("device"), self.text("backend"), self.text("variant"))

    def value(self, name: str) -> float | None:
        """A field as a number."""
        value = self.row.get(name)
        return value if isinstance(value, int | float) else None


Call = tuple[str, ...]
Beside = dict[Call, list[Recorded]]

FIELDS = ("op", "size", "dtype", "phase", "entry")


def source(machine: str, day: str) -> str:
    """Whose numbers they are, with the day alone of a point in time."""
    return pieces.joined(machine or UNKNOWN, day.partition("T")[0], by=", ")


def recorded(entries: Sequence[dict[str, Any]]) -> list[Recorded]:
    """What a report holds of other runs."""
    return [
        Recorded(source(str(each.get("machine") or ""), str(each.get("time") or "")), each["row"])
        for each in entries
        if isinstance(each.get("row"), dict)
    ]


def beside(entries: Sequence[dict[str, Any]]) -> Beside:
    """For each call, the fastest row of each machine and device."""
    best: dict[tuple[Call, str, str], Recorded] = {}
    for each in recorded(entries):
        key = (tuple(each.text(name) for name in FIELDS), each.source, each.text("device"))
        if positive(each.median) and (key not in best or (each.median or 0) < (best[key].median or 0)):
            best[key] = each
    found: Beside = {}
    for (call, _, _), each in best.items():
        found.setdefault(call, []).append(each)
    return found


def bars(others: Beside, row: Row) -> list[Bar]:
    """Bars of the same call on other machines; the style sheet hatches them."""
    call = tuple(str(getattr(row, name)) for name in FIELDS)
    # a size of the same name may have changed
    same = [each for each in others.get(call, ()) if each.row.get("shapes") in (None, row.shapes)]
    return [
        Bar(
            f"{tables.short_entry(row)} {each.kernel}, other machine: {each.source}",
            each.median,
            pieces.seconds(each.median),
            5,
            "other",
        )
        for each in same
    ]


def section(report: Report) -> str:
    """The warning and a table for each machine and day."""
    found: dict[str, list[Recorded]] = {}
    for each in recorded(report.recorded):
        found.setdefault(each.source, []).append(each)
    if not found:
        return ""
    parts = [f'<p class="warning">{escape(WARNING)}</p>']
    for name, rows in found.items():
        title = f"{name}: {len(rows)} row{'s' if len(rows) > 1 else ''}"
        head = f"<details open><summary>{escape(title)}</summary>"
        parts.append(f"{head}{pieces.columns(COLUMNS, rows)}</details>")
    return "".join(parts)


def _threads(each: Recorded) -> str:
    return "" if each.text("threads") == "0" else each.text("threads")


COLUMNS = (
    Column("op", lambda each: each.text("op")),
    Column("size", lambda each: each.text("size")),
    Column("entry", lambda each: each.text("entry")),
    Column("kernel", lambda each: each.kernel),
    Column("dtype", lambda each: each.text("dtype")),
    Column("threads", _threads, True),
    Column("median", lambda each: pieces.seconds(each.median), True),
    Column("launch", lambda each: pieces.seconds(each.value("launch")), True),
    Column("copy in", lambda each: pieces.seconds(each.value("copy_in")), True),
    Column("copy out", lambda each: pieces.seconds(each.value("copy_out")), True),
    Column("GFLOP/s", lambda each: pieces.number(each.value("gflops")), True),
    Column("GB/s", lambda each: pieces.number(each.value("gbytes")), True),
    Column("% of its roof", lambda each: pieces.number(each.value("roof_percent"), ".0f"), True),
)
