"""A report's rows for other programs: CSV for tables, Markdown for people who read text."""

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

from gpunet.measure import tables
from gpunet.measure.rows import Ratio, Report, Row, Step, Timing

PLAIN = ("op", "entry", "phase", "device", "backend", "variant", "dtype", "size", "tier", "threads", "proof")
COUNTS = ("flops", "bytes_read", "bytes_written", "gflops", "gbytes", "roof_percent", "bound", "impossible")
SPLIT = ("launch", "copy_in", "copy_out", "peak", "deterministic")
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
    """Times, ratios, break-even sizes and training steps as Markdown, with what they were measured on."""
    parts = [f"# gpunet report\n\n{tables.verdict(report)}.\n"]
    if about := _about(report):
        parts.append(f"{about}\n")
    if report.rows:
        parts.append(_table(*_rows(report.rows)))
    if report.ratios:
        parts.append("## Beside other libraries, in turns\n\n" + _table(*_ratios(report.ratios)))
    if words := [each.words for each in report.break_even if each.words]:
        parts.append("## Break-even sizes\n\n" + "".join(f"- {_cell(each)}\n" for each in words))
    if report.steps:
        parts.append("## What a training step takes\n\n" + _table(*_steps(report.steps)))
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
    """The main columns, then those that some row fills."""
    rest = [each for each in LATER if any(each.text(row) for row in rows)]
    heads = ["op", "size", "entry", "kernel", "dtype", "time", "GFLOP/s", "GB/s", "% of roof", "error", "allowed"]
    return [*heads, *(each.head for each in rest)], [
        [
            row.op, row.size, row.entry, f"{row.device} {row.backend} {row.variant}{_threads(row.threads)}", row.dtype,
            _time(row), _number(row.gflops, ".3g"), _number(row.gbytes, ".3g"), _roof(row),
            _number(row.reached, ".1e"), _number(row.allowed, ".1e"), *(each.text(row) for each in rest),
        ]
        for row in rows
    ]  # fmt: skip


class Later(NamedTuple):
    """A column of the Markdown table that is left out where no row fills it."""

    head: str
    text: Callable[[Row], str]


LATER = (
    Later("launch", lambda row: _seconds(row.launch)),
    Later("copy in", lambda row: _seconds(row.copy_in)),
    Later("copy out", lambda row: _seconds(row.copy_out)),
    Later("peak bytes", lambda row: "" if row.peak is None else str(row.peak)),
    Later("outliers", lambda row: f"{row.time.outliers} of {row.time.n}" if row.time.outliers else ""),
    Later("same bits", lambda row: {True: "yes", False: "no", None: ""}[row.deterministic]),
)


def _time(row: Row) -> str:
    numbers = row.time.median, row.time.low, row.time.high  # None for one that was not finite
    return tables.time_text(row) if None not in numbers else _seconds(row.time.median)


def _roof(row: Row) -> str:
    mark = " IMPOSSIBLE" if row.impossible else ""
    return f"{_number(row.roof_percent, '.0f')} {row.bound}{mark}"


def _ratios(ratios: Sequence[Ratio]) -> tuple[list[str], list[list[str]]]:
    heads = [
        "entry", "size", "dtype", "kernel", "chosen", "peer", "ours", "theirs", "theirs / ours", "95 % interval",
        "pairs", "verdict", "effect",
    ]  # fmt: skip
    return heads, [
        [
            each.entry, each.size, each.dtype, f"{each.device} {each.backend} {each.variant}{_threads(each.threads)}",
            "yes" if each.chosen else "", each.peer, _seconds(each.ours), _seconds(each.theirs),
            _ratio(each.ratio), f"{_ratio(each.low)} to {_ratio(each.high)}", str(each.n),
            each.verdict, "" if each.effect is None else f"{100 * each.effect:g} %",
        ]
        for each in ratios
    ]  # fmt: skip


def _steps(steps: Sequence[Step]) -> tuple[list[str], list[list[str]]]:
    heads = ["model", "where", "part", "batch", "threads", "median", "95 % interval", "samples"]
    return heads, [
        [
            each.model, each.lane, each.part, str(each.batch_size), str(each.threads or "all"), _seconds(each.median),
            f"{_seconds(each.low)} to {_seconds(each.high)}", str(each.n),
        ]
        for each in steps
    ]  # fmt: skip


def _threads(count: int) -> str:
    return f", {count} thread{'s' if count > 1 else ''}" if count else ""


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _ratio(value: float | None) -> str:
    return _number(value, ".2g" if value is not None and value < 0.1 else ".2f")


def _seconds(value: float | None) -> str:
    return "" if value is None else tables.seconds_text(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(map(_cell, each)) + " |\n" for each in lines)


def _cell(text: str) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")
