"""What every section of the page is made of: tables, lists, cards, and how numbers are written."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from gpunet.measure import tables
from gpunet.measure.frame import finite

NONE = "–"


class Column(NamedTuple):
    """One column of a table that leaves out what nobody fills."""

    head: str
    text: Callable[[Any], str | None]
    """From a record to the cell; None or "" where it has nothing to say."""
    number: bool = False
    empty: str = NONE
    """What stands in a cell with nothing to say."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int = 0, ids: str = "") -> str:
    """A table of cells that are HTML already. Many columns scroll.

    The end tags of cells and lines are left out, as HTML allows: they would be a third of a long table.

    Args:
        heads: titles of the columns.
        rows: cells of each line.
        numbers: how many of the last columns are set right.
        ids: what the lines' ids begin with, before a number from 1; none if empty.
    """
    wide = "wide " if len(heads) > 9 else "broad " if len(heads) > 5 else ""
    lines = (f"<tr{f' id={ids}{k}' if ids else ''}><td>{'<td>'.join(row)}" for k, row in enumerate(rows, 1))
    kind = f"{wide}from{len(heads) - numbers + 1}" if numbers else wide.strip()
    begin = f'<table class="{kind}">' if kind else "<table>"
    head = f"<thead><tr><th>{'<th>'.join(heads)}</thead>"
    return f'<div class="scroll">{begin}{head}<tbody>{"".join(lines)}</tbody></table></div>'


def columns(wanted: Sequence[Column], records: Sequence[Any], ids: str = "") -> str:
    """A table of records without the columns that none of them fills; numbers come last. Cells are escaped here."""
    texts = [[each.text(record) or "" for each in wanted] for record in records]
    kept = [k for k in range(len(wanted)) if any(row[k] not in ("", NONE) for row in texts)]
    kept.sort(key=lambda k: wanted[k].number)
    numbers = sum(wanted[k].number for k in kept)
    body = [[escape(row[k] or wanted[k].empty) for k in kept] for row in texts]
    return table([escape(wanted[k].head) for k in kept], body, numbers, ids)


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they are."""
    return f'<dl class="facts">{"".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in pairs)}</dl>'


def listed(lines: Iterable[str], kind: str = "") -> str:
    """A list of sentences."""
    return f"<ul{f' class={kind}' if kind else ''}>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def mark(good: bool, text: str) -> str:
    """A word in the colour of what is well, or of what is not."""
    return f'<span class="{"good" if good else "bad"}">{escape(text)}</span>'


def soft(text: str) -> str:
    """A remark."""
    return f'<span class="soft">{escape(text)}</span>'


def cards(bodies: Iterable[str]) -> str:
    """Boxes in columns, as many as fit."""
    return f'<div class="cards">{"".join(f"""<div class="card">{body}</div>""" for body in bodies)}</div>'


def figure(title: str, *body: str) -> str:
    """A chart with its title above and its legend below."""
    return f'<figure class="chart"><figcaption>{escape(title)}</figcaption>{"".join(body)}</figure>'


def figures(bodies: Iterable[str]) -> str:
    """Charts side by side, as many as fit."""
    return f'<div class="charts">{"".join(bodies)}</div>'


def number(value: float | None, form: str = ".3g") -> str:
    """A number, or a dash where there is none; three digits are written without an exponent up to millions."""
    if value is not None and finite(value) and form == ".3g" and 1e3 <= abs(value) < 1e7:
        form = ".0f"
    return f"{value:{form}}" if value is not None and finite(value) else NONE


def seconds(value: float | None) -> str:
    """Seconds in the unit that suits them, or a dash."""
    return tables.seconds_text(value) if value is not None and finite(value) else NONE


def threads(count: int) -> str:
    """How many threads, in words; empty for as many as there are."""
    return f"{count} thread{'s' if count > 1 else ''}" if count else ""


def joined(*parts: str, by: str = " ") -> str:
    """What is not empty, with something between."""
    return by.join(part for part in parts if part)


def lane(record: Any) -> str:
    """Device, backend and threads of a row, a ratio or a sweep."""
    return joined(joined(record.device, record.backend), threads(record.threads), by=", ")


def sized(record: Any) -> str:
    """The size's name, with the dtype where it is not the usual one."""
    return record.size if record.dtype == "float32" else f"{record.size} {record.dtype}"


def op_of(entry: str) -> str:
    """The op whose kernel it is."""
    return entry.partition(".")[0]
