"""Time over size for every lane, and from which size on another lane pays: sentences first, then a chart an entry.

A lane has a sign and a colour. Its line is dashed where copies from and to the host count, dotted where the numbers are
of another machine.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from gpunet.measure import charts, frame
from gpunet.measure.curves import BreakEven, Point, Sweep
from gpunet.measure.frame import COLORS, Frame, positive
from gpunet.measure.report_parts import elsewhere, pieces
from gpunet.measure.rows import Report

MARK = 13.0  # units for the label of one break-even size
TIMES = ("median", "low", "high", "copied", "copied_low", "copied_high")  # of a point, in seconds
Key = tuple[str, str, str]


def section(report: Report) -> str:
    """What to conclude, and the curves."""
    if not report.sweeps and not report.break_even:
        return ""
    told = _conclusions(report.break_even)
    groups: dict[Key, list[Sweep]] = {}
    for each in report.sweeps:
        groups.setdefault(_key(each), []).append(each)
    drawn = [
        _chart(sweeps, [each for each in report.break_even if _key(each) == key]) for key, sweeps in groups.items()
    ]
    return told + (pieces.figures(drawn) if any(drawn) else "")


def _conclusions(found: Sequence[BreakEven]) -> str:
    """The sentences; those about numbers of threads alone, which few readers act on, folded away."""
    groups: dict[bool, dict[str, None]] = {False: {}, True: {}}
    for each in found:
        if each.words:
            groups[_place(each.near) == _place(each.far)][f"{each.words}{_whose(each)}"] = None
    main, threads = (pieces.listed(list(words), "conclusions") if words else "" for words in groups.values())
    title = "<h3>What to conclude</h3>" if main else ""
    folded = f"<details><summary>One thread against all</summary>{threads}</details>" if threads else ""
    return title + main + folded


def _place(lane: str) -> str:
    """Device and backend of a lane's name."""
    return lane.partition(" on ")[0]


def _key(record: Sweep | BreakEven) -> Key:
    return record.op, record.entry, record.dtype


def _source(record: Any) -> str:
    """Machine and day of a record of another run; empty for one of this run."""
    machine, day = (str(getattr(record, name, "") or "") for name in ("machine", "time"))
    return elsewhere.source(machine, day) if machine or day else ""


def _whose(record: Any) -> str:
    source = _source(record)
    return f" (another machine: {source})" if source else ""


def _name(sweep: Sweep) -> str:
    return f"{pieces.lane(sweep)}{_whose(sweep)}"


def _chart(sweeps: Sequence[Sweep], marks: Sequence[BreakEven]) -> str:
    """One entry: a line for each lane, and a mark for each break-even size. Empty if nothing can be drawn."""
    points = [point for each in sweeps for point in each.points if positive(point.n) and positive(point.median)]
    if not points:
        return ""
    shown = [each for each in marks if positive(each.n)]
    heights = [v for each in points for v in (getattr(each, name) for name in TIMES) if positive(v)]
    across = [float(each.n) for each in points]
    picture = Frame(
        frame.logarithmic("n", across, room=0.05),
        frame.logarithmic("time of a call", heights, pieces.seconds),
        above=MARK * len(shown),
    )
    parts = [_mark(picture, each, row) for row, each in enumerate(shown)]
    parts += [_lines(picture, each, number) for number, each in enumerate(sweeps)]
    title = pieces.joined(sweeps[0].entry, sweeps[0].dtype, by=", ")
    names = ", ".join(_name(each) for each in sweeps)
    axis = f'<p class="soft">n: {escape(sweeps[0].axis)}</p>' if sweeps[0].axis else ""
    legend = f"{axis}{_legend(sweeps, shown)}"
    return pieces.figure(title, picture.svg(parts, f"{title}: time over n of {names}"), legend)


def _lines(picture: Frame, sweep: Sweep, number: int) -> str:
    """A lane: the band of the intervals, the medians, and the times with copies."""
    other = " other" if _source(sweep) else ""
    parts = []
    for low, high in (("low", "high"), ("copied_low", "copied_high")):
        ends = [(each.n, getattr(each, low), getattr(each, high)) for each in sweep.points]
        whole = [each for each in ends if all(map(positive, each))]
        if len(whole) > 1:
            around = [(picture.across(n), picture.down(top), picture.down(bottom)) for n, bottom, top in whole]
            parts.append(frame.band(around, f"band c{number % COLORS}"))
    medians = _places(picture, [(each, each.median) for each in sweep.points])
    copied = _places(picture, [(each, each.copied) for each in sweep.points])
    if len(medians) > 1:
        parts.append(frame.line(medians, f"line solid{other} c{number % COLORS}"))
    if len(copied) > 1:
        parts.append(frame.line(copied, f"line copies{other} c{number % COLORS}"))
    parts += [frame.sign(number, x, y, 3) for x, y in frame.thinned(medians, 60)]
    parts += [frame.sign(number, x, y, 3, "dot hollow") for x, y in frame.thinned(copied, 60)]
    return "".join(parts)


def _places(picture: Frame, values: Sequence[tuple[Point, float | None]]) -> list[tuple[float, float]]:
    return [picture.place((each.n, v)) for each, v in values if positive(each.n) and v is not None and positive(v)]


def _mark(picture: Frame, each: BreakEven, row: int) -> str:
    """A vertical line at the size, the span in which it lies for certain, and the number on top."""
    edges = picture.x.low, picture.x.high

    def across(value: float | None, instead: float) -> float:
        inside = value if value is not None and positive(value) else instead
        return picture.across(min(max(inside, edges[0]), edges[1]))

    x, left, right = across(each.n, 0), across(each.low, edges[0]), across(each.high, edges[1])
    top, y = frame.TOP + MARK * row, frame.TOP + MARK * row - 3
    tall = picture.bottom - top
    style = "even copies" if each.copies else "even"
    late = x > frame.WIDTH * 0.6
    text = f"n = {pieces.number(each.n, '.4g')}{' with copies' if each.copies else ''}{_short(each)}"
    return (
        f'<rect class="span" x="{left:.1f}" y="{top:.1f}" width="{max(0.0, right - left):.1f}" height="{tall:.1f}"/>'
        f'<line class="{style}" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8:.1f}" y2="{picture.bottom:.1f}"/>'
        + frame.label(x - 4 if late else x + 4, y, text, "end" if late else "start", 'class="over"')
    )


def _short(each: BreakEven) -> str:
    """The two lanes, where the names are short enough for the picture."""
    names = f": {each.near} | {each.far}" if each.near and each.far else ""
    return names if len(names) <= 28 else ""


def _legend(sweeps: Sequence[Sweep], marks: Sequence[BreakEven]) -> str:
    keys = []
    for number, each in enumerate(sweeps):
        other = " other" if _source(each) else ""
        keys.append((charts.line_key(number, f"line solid{other}", "dot"), _name(each)))
        if any(point.copied is not None for point in each.points):
            keys.append((charts.line_key(number, f"line copies{other}", "dot hollow"), f"{_name(each)}, with copies"))
    if marks:
        keys.append((charts.line_key(0, "even"), "break-even size, in the span where it lies for certain"))
    return charts.keys(keys)
