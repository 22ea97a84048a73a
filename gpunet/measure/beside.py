"""Tables of ``gpunet bench``: rows alone, and rows with what other libraries take for the same, side by side."""

from collections.abc import Sequence
from typing import Any

from gpunet.measure import against, tables, threads
from gpunet.measure.rows import Ratio, Report, Row

STYLES = {"faster": "green", "slower": "red", "unsure": "yellow"}

Key = tuple[Any, ...]


def rows(found: Sequence[Row]) -> Any:
    """The table of rows: a line each."""
    from rich.markup import escape

    counts = {each.threads for each in found}
    columns = ("size", "entry", "device", "backend", "variant", *(("threads",) if counts != {threads.ALL} else ()))
    table = _table("median time of a call, with half the distance of its 95 % interval", columns)
    for name in ("time", "GFLOP/s", "GB/s", "% of roof"):
        table.add_column(name, justify="right")
    for each in found:
        names = [each.size, each.entry, each.device, each.backend, each.variant, threads.text(each.threads)]
        numbers = (tables.time_text(each), f"{each.gflops:.3g}", f"{each.gbytes:.3g}", tables.roof_text(each))
        table.add_row(*map(escape, names[: len(columns)]), *numbers)
    return table


def ratios(report: Report) -> Any:
    """The table of rows with a column for each peer: its time, how many times as fast the kernel is, the verdict."""
    from rich.markup import escape

    peers = list(dict.fromkeys(each.peer for each in report.ratios))
    held = {(_key(each), each.peer): each for each in report.ratios}
    effects = sorted({f"{100 * each.effect:g} %" for each in report.ratios})
    told = f"; effects below {' or '.join(effects)} do not count" if effects else ""
    title = f"x times as fast as the other, timed in turns, with the 95 % interval of the ratio{told}"
    table = _table(title, ("size", "entry", "kernel", "threads"))
    for name in ("time", "% of roof", *peers):
        table.add_column(escape(name), justify="right")
    last = ""
    for each in report.rows:
        names = [each.size, each.entry, _kernel(each), threads.text(each.threads)]
        if each.op != last:
            table.add_section()
        last = each.op
        cells = [_cell(held.get((_key(each), peer))) for peer in peers]
        table.add_row(*map(escape, names), tables.time_text(each), tables.roof_text(each), *cells)
    return table


def summary(report: Report) -> Any:
    """The table of entries: how each does over all its sizes, beside a library in the faster of its layouts."""
    from rich.markup import escape

    title = "over all sizes of an entry, beside the faster layout of the other: times as fast"
    table = _table(title, ("entry", "kernel's backend", "threads", "peer"))
    for name in ("geometric mean", "lowest", "highest", "sizes"):
        table.add_column(name, justify="right")
    groups: dict[tuple[str, str, str, str], list[Ratio]] = {}
    for each in against.best_layouts(report.ratios):
        place = f"{each.device} {each.backend}"
        groups.setdefault((each.entry, place, threads.text(each.threads), each.peer), []).append(each)
    for names, found in groups.items():
        low, *_, high = sorted((each.ratio, each.size) for each in [*found, *found])
        mean = against.geometric_mean([each.ratio for each in found])
        ends = [escape(f"{ratio:.2f}x {size}") for ratio, size in (low, high)]
        table.add_row(*map(escape, names), f"{mean:.2f}x", *ends, str(len(found)))
    return table


def _table(title: str, names: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _kernel(row: Row) -> str:
    return f"{row.device} {row.backend}" + ("" if row.variant == "reference" else f" {row.variant}")


def _key(row: Row | Ratio) -> Key:
    return row.entry, row.phase, row.size, row.dtype, row.device, row.backend, row.variant, row.threads


def _cell(ratio: Ratio | None) -> str:
    if ratio is None:
        return "-"
    style = STYLES.get(ratio.verdict, "")
    told = f"[{style}]{ratio.verdict}[/]" if style else ratio.verdict
    interval = f"({ratio.low:.2f} to {ratio.high:.2f})"
    return f"{tables.seconds_text(ratio.theirs)}  {ratio.ratio:.2f}x {interval} {told}"


def mean_lines(report: Report) -> list[str]:
    """One line for each peer and number of threads: the geometric mean of its ratios, and how many there are."""
    return [
        f"beside {peer}, {threads.text(count)} threads: {mean:.2f}x as fast in the geometric mean of {pairs} pairs"
        for (peer, count), (mean, pairs) in against.means(report.ratios).items()
    ]
