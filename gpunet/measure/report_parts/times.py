"""Times: a bar for what runs on each lane, the ladders where more than one rung was timed, and every row in numbers."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from gpunet import devices, dispatch
from gpunet.errors import GpunetError
from gpunet.measure import charts, tables
from gpunet.measure.charts import Bar
from gpunet.measure.report_parts import elsewhere, pieces
from gpunet.measure.report_parts.pieces import Column
from gpunet.measure.rows import Report, Row

CHOSEN = "✓ chosen"


def section(report: Report) -> str:
    """Bars of what runs by itself on every lane, with other machines' beside, the roofs, and the table of all."""
    if not report.rows:
        return ""
    lanes = list(dict.fromkeys(pieces.lane(each) for each in report.rows))
    picked = [each for group in _by_lane(report.rows) for each in _shown(group)]
    beside = elsewhere.beside(report.recorded)
    bodies = (_op_card(op, rows, lanes, beside) for op, rows in _by_op(picked).items())
    roofs = [
        (escape(each.device), escape(each.dtype), *(pieces.number(_billions(rate)) for rate in _rates(each)))
        for each in report.roofs
    ]
    heads = ("device", "dtype", "GFLOP/s", "memory GB/s", "cache GB/s")
    return (
        f"{charts.legend(lanes)}{pieces.cards(bodies)}"
        f"<h3>The roof</h3>{pieces.table(heads, roofs, 3)}"
        f"<details><summary>Every row in numbers</summary>{pieces.columns(COLUMNS, report.rows, 'row-')}</details>"
    )


def _rates(roof: Any) -> tuple[float | None, ...]:
    return roof.flops, roof.memory, roof.cache


def _billions(rate: float | None) -> float | None:
    return None if rate is None else rate / 1e9


# ------------------------------------------------------------------------------------------------------------ groups


def _by_op(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for each in rows:
        found.setdefault(each.op, []).append(each)
    return found


def _same(row: Row) -> tuple[str, ...]:
    """What one call is: rows that agree in it can be held against each other."""
    return row.op, row.size, row.dtype, row.phase, row.entry


def _by_lane(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same call on the same lane, lowest rung first."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for each in rows:
        found.setdefault((*_same(each), pieces.lane(each)), []).append(each)
    return [sorted(group, key=_rung) for group in found.values()]


def _ladder(entry: str) -> tuple[str, ...]:
    """The rungs of an op; none for one that this version does not know."""
    try:
        return dispatch.ladder(pieces.op_of(entry))
    except GpunetError:
        return ()


def _rung(row: Row) -> int:
    """The place on the ladder; kernels that are not on it come last."""
    rungs = _ladder(row.entry)
    return rungs.index(row.variant) if row.variant in rungs else len(rungs)


def _on_ladder(row: Row) -> bool:
    return row.variant in _ladder(row.entry)


def _shown(group: Sequence[Row]) -> list[Row]:
    """Of one lane: the highest rung, which is what runs there, or everything if nothing is on the ladder."""
    rungs = [each for each in group if _on_ladder(each)]
    return rungs[-1:] or list(group)


# ----------------------------------------------------------------------------------------------------------- ladders


def ladders(report: Report) -> str:
    """Rungs in the order of the ladder, for each call of which more than one was timed on a backend."""
    calls: dict[tuple[str, ...], list[Row]] = {}
    for group in _by_lane(report.rows):
        if len({(each.variant, each.place) for each in group}) > 1:
            calls.setdefault(_same(group[0]), []).extend(group)
    if not calls:
        return ""
    chosen = {id(row) for group in calls.values() for row in _chosen(group, report)}
    cards: dict[str, list[str]] = {}
    for (op, *_), group in calls.items():
        lanes = list(dict.fromkeys(pieces.lane(each) for each in group))
        head = f"{tables.short_entry(group[0])}, {pieces.sized(group[0])}"
        bars = charts.bars([_rung_bar(each, id(each) in chosen, lanes) for each in group])
        cards.setdefault(op, [f"<h3>{escape(op)}</h3>"]).append(f'<p class="size">{escape(head)}</p>{bars}')
    about = (
        f"From the lowest rung of the ladder to the highest. {CHOSEN}: what runs when nobody asks for a rung by name."
    )
    return f"<p>{about}</p>{pieces.cards(''.join(each) for each in cards.values())}"


def _chosen(group: Sequence[Row], report: Report) -> list[Row]:
    """The rows of one call that run by themselves, one for each device and number of threads."""
    told = {
        (each.entry, each.size, each.dtype, each.device, each.backend, each.variant)
        for each in report.ratios
        if each.chosen
    }
    named = [each for each in group if _key(each) in told]
    rest = {(each.device, each.threads) for each in group} - {(each.device, each.threads) for each in named}
    for device, threads in rest:
        mine = [each for each in group if (each.device, each.threads) == (device, threads) and _on_ladder(each)]
        named += sorted(mine, key=lambda row: (-_preference(row), _rung(row)))[-1:]
    return named


def _key(row: Row) -> tuple[str, ...]:
    return row.entry, row.size, row.dtype, row.device, row.backend, row.variant


def _preference(row: Row) -> int:
    """Which choice the backend is on its device; 0 for the first."""
    order = devices.CHOICE.get(row.device.partition(":")[0], ())
    return order.index(row.backend) if row.backend in order else len(order)


def _rung_bar(row: Row, chosen: bool, lanes: Sequence[str]) -> Bar:
    lane = pieces.lane(row)
    rung = row.variant if _on_ladder(row) else f"{row.variant} (not on the ladder)"
    name = pieces.joined(lane if len(lanes) > 1 else "", rung, CHOSEN if chosen else "")
    return Bar(name, row.time.median, _told(row), lanes.index(lane), "chosen" if chosen else "")


# -------------------------------------------------------------------------------------------------------------- bars


def _op_card(op: str, rows: Sequence[Row], lanes: Sequence[str], beside: elsewhere.Beside) -> str:
    """The bars of one op, a group for each size: times of different sizes have nothing in common."""
    parts = [f"<h3>{escape(op)}</h3>"]
    for size, dtype in dict.fromkeys((each.size, each.dtype) for each in rows):
        mine = [each for each in rows if (each.size, each.dtype) == (size, dtype)]
        parts.append(f'<p class="size">{escape(pieces.sized(mine[0]))} {pieces.soft(mine[0].origin)}</p>')
        bars: list[Bar] = []
        for call in dict.fromkeys(_same(each) for each in mine):
            group = [each for each in mine if _same(each) == call]
            bars += [_bar(each, lanes) for each in group] + elsewhere.bars(beside, group[0])
        parts.append(charts.bars(bars))
    return "".join(parts)


def _bar(row: Row, lanes: Sequence[str]) -> Bar:
    lane = pieces.lane(row)
    rung = "" if row.variant == dispatch.REFERENCE else row.variant
    name = pieces.joined(tables.short_entry(row), lane if len(lanes) > 1 else "", rung)
    return Bar(name, row.time.median, _told(row), lanes.index(lane))


def _told(row: Row) -> str:
    percent = f"{pieces.number(row.roof_percent, '.0f')} % of roof"
    return f"{pieces.seconds(row.time.median)} · {percent}{', IMPOSSIBLE' if row.impossible else ''}"


# ------------------------------------------------------------------------------------------------------------- table


def _shapes(row: Row) -> str:
    return " ".join("×".join(map(str, shape)) or "()" for shape in row.shapes)


def _bytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**20:.3g} MiB"


def _cache(row: Row) -> str:
    return f"{row.time.cache}, {row.time.buffers} copies" if row.time.buffers > 1 else row.time.cache


def _same_bits(row: Row) -> str:
    return "" if row.deterministic is None else "yes" if row.deterministic else "no"


def _percent(row: Row) -> str:
    told = f"{pieces.number(row.roof_percent, '.0f')} {row.bound}"
    return f"{told}, impossible" if row.impossible else told


#: the table of every row; a column that no row fills is left out
COLUMNS = (
    Column("op", lambda row: row.op),
    Column("size", lambda row: row.size),
    Column("entry", lambda row: row.entry),
    Column("kernel", lambda row: f"{row.device} {row.backend} {row.variant} {row.place}"),
    Column("dtype", lambda row: row.dtype),
    Column("threads", lambda row: str(row.threads or ""), True, "all"),
    Column("shapes", _shapes),
    Column("median", lambda row: pieces.seconds(row.time.median), True),
    Column("95 % interval", lambda row: f"{pieces.seconds(row.time.low)} to {pieces.seconds(row.time.high)}", True),
    Column("samples", lambda row: f"{row.time.n}{f'×{row.time.inner}' if row.time.inner > 1 else ''}", True),
    Column("outliers", lambda row: str(row.time.outliers), True),
    Column("first call", lambda row: pieces.seconds(row.time.first_call), True),
    Column("launch", lambda row: pieces.seconds(row.launch), True),
    Column("copy in", lambda row: pieces.seconds(row.copy_in), True),
    Column("copy out", lambda row: pieces.seconds(row.copy_out), True),
    Column("peak memory", lambda row: _bytes(row.peak), True),
    Column("cache", _cache),
    Column("GFLOP/s", lambda row: pieces.number(row.gflops), True),
    Column("GB/s", lambda row: pieces.number(row.gbytes), True),
    Column("% of roof", _percent, True),
    Column("error", lambda row: pieces.number(row.reached, ".1e"), True),
    Column("allowed", lambda row: pieces.number(row.allowed, ".1e"), True),
    Column("same bits", _same_bits),
)  # fmt: skip
