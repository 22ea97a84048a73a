"""A report's rows for other programs: CSV for tables, Markdown for people who read text."""

import csv
import dataclasses
import io
from collections.abc import Sequence

from gpunet.measure import tables
from gpunet.measure.rows import Ratio, Report, Row, Timing

PLAIN = ("op", "entry", "phase", "device", "backend", "variant", "dtype", "size", "tier", "threads", "proof")
COUNTS = ("flops", "bytes_read", "bytes_written", "gflops", "gbytes", "roof_percent", "bound", "impossible")
SPLIT = ("launch", "copy_in", "copy_out", "peak")
TIMES = [each.name for each in dataclasses.fields(Timing)]
SECONDS = ("median", "p25", "p75", "low", "high", "minimum", "maximum", "first_call")  # the columns end in _s


def csv_text(rows: Sequence[Row]) -> str:
    """One line a row; times in seconds, with every field of the clock."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{each}_s" if each in SECONDS else each for each in TIMES]
    writer.writerow([*PLAIN, *names, *SPLIT, "reached", "allowed", *COUNTS])
    for row in rows:
        times = [getattr(row.time, each) for each in TIMES]
        head, split, counts = ([getattr(row, each) for each in names] for names in (PLAIN, SPLIT, COUNTS))
        writer.writerow([*head, *times, *split, row.reached, row.allowed, *counts])
    return text.getvalue()


def markdown(report: Report) -> str:
    """The times and ratios as tables of Markdown, with what they were measured on."""
    parts = [f"# gpunet report\n\n{tables.verdict(report)}.\n"]
    if about := _about(report):
        parts.append(f"{about}\n")
    if report.rows:
        parts.append(_table(*_rows(report.rows)))
    if report.ratios:
        parts.append("## Beside other libraries, in turns\n\n" + _table(*_ratios(report.ratios)))
    if report.notes:
        parts.append("## Left out, and why\n\n" + "".join(f"- {_cell(each)}\n" for each in report.notes))
    return "\n".join(parts)


def _about(report: Report) -> str:
    environment = report.environment
    names = [
        environment.get("time"),
        environment.get("processor", {}).get("model"),
        *(each.get("name") for each in environment.get("gpus", [])),
    ]
    return ", ".join(str(each) for each in names if each)


def _rows(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    heads = ["op", "size", "entry", "kernel", "dtype", "time", "GFLOP/s", "GB/s", "% of roof", "error", "allowed"]
    return heads, [
        [
            row.op, row.size, row.entry, f"{row.device} {row.backend} {row.variant}{_threads(row.threads)}", row.dtype,
            tables.time_text(row), f"{row.gflops:.3g}", f"{row.gbytes:.3g}", tables.roof_text(row),
            _number(row.reached), _number(row.allowed),
        ]
        for row in rows
    ]  # fmt: skip


def _ratios(ratios: Sequence[Ratio]) -> tuple[list[str], list[list[str]]]:
    heads = ["entry", "size", "kernel", "peer", "ours", "theirs", "theirs / ours", "95 % interval", "verdict"]
    return heads, [
        [
            each.entry, each.size, f"{each.device} {each.backend} {each.variant}{_threads(each.threads)}", each.peer,
            tables.seconds_text(each.ours), tables.seconds_text(each.theirs), f"{each.ratio:.2f}",
            f"{each.low:.2f} to {each.high:.2f}", each.verdict,
        ]
        for each in ratios
    ]  # fmt: skip


def _threads(count: int) -> str:
    return f", {count} thread{'s' if count > 1 else ''}" if count else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(map(_cell, each)) + " |\n" for each in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
