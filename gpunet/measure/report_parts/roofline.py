"""Rows under their roofs: operations a byte across, operations a second upwards, both logarithmic.

A chart holds at most six ops, so that each has a shape and a colour of its own; charts of one device and dtype have the
same axes. A row whose inputs came from the caches is drawn hollow, and under the cache's roof, not the memory's.
"""

import math
from collections.abc import Sequence
from html import escape

from gpunet.measure import charts, frame
from gpunet.measure.frame import COLORS, Axis, Frame, positive
from gpunet.measure.report_parts import pieces
from gpunet.measure.rows import Report, Roof, Row

BESIDE = 30.0  # how far the axis across reaches to both sides of the ridge, as a factor: room for the roofs' labels
NEAR = 2.5  # rates closer than that leave no room for a label between their lines
OVER, UNDER = -5.0, 13.0  # units from a line to its label
SAFE = 'class="over"'  # of a label over lines

Numbered = tuple[int, Row]


def section(report: Report) -> str:
    """All charts; empty if no row can be drawn."""
    parts, undrawn = [], 0
    for roof in report.roofs:
        mine = [
            each for each in enumerate(report.rows, 1) if (each[1].device, each[1].dtype) == (roof.device, roof.dtype)
        ]
        drawn = [each for each in mine if _point(each[1]) is not None]
        undrawn += len(mine) - len(drawn)
        if not drawn or not (positive(roof.flops) and positive(roof.memory)):
            continue
        parts.append(f"<h3>{escape(pieces.joined(roof.device, roof.dtype))}</h3>")
        axes = _axes(roof, [row for _, row in drawn])
        ops = list(dict.fromkeys(row.op for _, row in drawn))
        parts.append(pieces.figures(_panel(roof, drawn, group, axes) for group in _groups(ops)))
    if not parts:
        return ""
    rest = f"<p>{undrawn} rows without arithmetic are in the table of every row alone.</p>" if undrawn else ""
    about = (
        "Each sign is a kernel on one size; the nearer to the line over it, the better the machine is used. Its "
        "numbers appear under the mouse, and it leads to its line in the table."
    )
    return f"<p>{about}</p>{''.join(parts)}{rest}"


def _point(row: Row) -> tuple[float, float] | None:
    """(operations a byte, billions of operations a second); None where there is no place for it."""
    moved = row.bytes_read + row.bytes_written
    if not (positive(row.flops) and positive(moved) and positive(row.gflops)):
        return None
    return row.flops / moved, row.gflops


def _groups(ops: Sequence[str]) -> list[list[str]]:
    """The ops in groups of nearly the same size, none larger than there are colours."""
    count = math.ceil(len(ops) / COLORS)
    return [list(ops[k * len(ops) // count : (k + 1) * len(ops) // count]) for k in range(count)]


def _axes(roof: Roof, rows: Sequence[Row]) -> tuple[Axis, Axis]:
    points = [point for row in rows if (point := _point(row)) is not None]
    ridge = roof.flops / roof.memory
    across = [*(x for x, _ in points), ridge / BESIDE, ridge * BESIDE]
    up = [*(y for _, y in points), roof.flops / 1e9]
    return (
        frame.logarithmic("operations a byte", across, room=0.1),
        frame.logarithmic("GFLOP/s", up, room=0.25),
    )


def _panel(roof: Roof, rows: Sequence[Numbered], ops: Sequence[str], axes: tuple[Axis, Axis]) -> str:
    """One chart of up to six ops."""
    picture = Frame(*axes)
    mine = [each for each in rows if each[1].op in ops]
    hot = any(row.time.cache == "hot" for _, row in mine)
    parts = [_roofs(picture, roof, hot)]
    parts += [_dot(picture, number, row, ops.index(row.op)) for number, row in mine]
    keys = [(charts.sign_key(k), op) for k, op in enumerate(ops)]
    if hot:
        keys.append((charts.sign_key(0, "dot hollow"), "hollow: hot cache"))
    told = f"Roofline of {roof.device} {roof.dtype}: {', '.join(ops)}; numbers in the table of every row"
    title = f"{roof.device} {roof.dtype}: {', '.join(ops)}"
    return pieces.figure(title, picture.svg(parts, told), charts.keys(keys))


def _roofs(picture: Frame, roof: Roof, hot: bool) -> str:
    """The slanted roof of the memory, the level one of the arithmetic, and the cache's where a row needs it."""
    top, right = roof.flops / 1e9, picture.x.high
    parts = [frame.line([picture.place((roof.flops / roof.memory, top)), picture.place((right, top))], "roof")]
    text = f"arithmetic {pieces.number(top)} GFLOP/s"
    parts.append(frame.label(frame.WIDTH - frame.RIGHT, picture.down(top) - 5, text, "end", SAFE))
    slopes = [("memory", roof.memory, "roof", UNDER if hot and roof.memory * NEAR > (roof.cache or 0) else OVER)]
    if hot and positive(roof.cache) and roof.cache > roof.memory:
        slopes.append(("cache", roof.cache, "roof cache", OVER))
    for name, rate, style, away in slopes:
        parts.append(_slope(picture, f"{name} {pieces.number(rate / 1e9)} GB/s", rate / 1e9, top, style, away))
    return "".join(parts)


def _slope(picture: Frame, text: str, rate: float, top: float, style: str, away: float) -> str:
    """The line of a rate in GB/s, from the edge of the picture to the level roof, with its text along it."""
    begin = max(picture.x.low, picture.y.low / rate)
    ends = [picture.place((begin, begin * rate)), picture.place((top / rate, top))]
    (x0, y0), (x1, y1) = ends
    along = 0.5 if away < 0 else 0.72  # below the line stand most kernels, fewest near the ridge
    x, y = x0 + along * (x1 - x0), y0 + along * (y1 - y0)
    angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
    turned = f'transform="rotate({angle:.1f} {x:.1f} {y:.1f})" {SAFE}'
    return frame.line(ends, style) + frame.label(x, y + away, text, "middle", turned)


def _dot(picture: Frame, number: int, row: Row, op: int) -> str:
    point = _point(row)
    assert point is not None  # only such rows are drawn
    percent = f"{pieces.number(row.roof_percent, '.0f')} % of the {row.bound} roof"
    told = ", ".join((
        row.entry, pieces.sized(row), f"{pieces.lane(row)}, {row.variant}", f"{pieces.number(row.gflops)} GFLOP/s",
        percent, *(["impossible"] if row.impossible else []),
    ))  # fmt: skip
    style = "dot hollow" if row.time.cache == "hot" else "dot"
    return f'<a href="#row-{number}" tabindex="-1">{frame.sign(op, *picture.place(point), 3.5, style, told)}</a>'
