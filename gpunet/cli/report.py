"""The command ``gpunet report``: draws recorded reports again, or holds two against each other."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from gpunet.cli.tools import UsageError, at_least, console, silent, write_json

DIFF = "of two files: which rows became slower, 1 if any did; of 2 N files: the first N are runs before, the rest after"


def report_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="report.json of a run, on whatever machine it was")
    parser.add_argument("--diff", action="store_true", help=DIFF)
    parser.add_argument(
        "--effect", type=at_least(float, 0.001), metavar="X", help="smallest change that counts in --diff (0.1)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of report.html (the first file's own)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line for each row")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.set_defaults(run=report)


def report(args: argparse.Namespace) -> int:
    """Draws the page from recorded rows, or compares; 1 for a report that failed, or a row that became slower."""
    from gpunet.measure import rows

    if args.diff:
        return _diff(args)
    found = [rows.read(each) for each in args.files]
    merged = _merged(found)
    written = _write(args, merged)
    if not silent(args):
        from gpunet.measure import tables

        screen = console(False)
        tables.show(screen, merged)
        for path in written:
            screen.print(f"wrote {path}", markup=False)
    write_json(args, merged.to_dict())
    return 1 if merged.failed else 0


def _merged(found: list[Any]) -> Any:
    """All reports as one: the first's machine, everybody's rows, marked by where they come from."""
    first = found[0]
    for each in found[1:]:
        about = each.environment.get("processor", {}).get("model", "another machine")
        names = [*(gpu.get("name", "a GPU") for gpu in each.environment.get("gpus", [])), about]
        first.recorded.extend(
            {"machine": ", ".join(names), "time": each.environment.get("time", ""), "row": dataclasses.asdict(row)}
            for row in each.rows
        )
        first.notes.extend(each.notes)
    return first


def _write(args: argparse.Namespace, merged: Any) -> list[Path]:
    from gpunet.measure import export
    from gpunet.measure import report as page
    from gpunet.measure.rows import write_text

    folder = args.out or Path(args.files[0]).parent
    files = {folder / "report.html": page.html(merged)}
    if args.csv is not None:
        files[args.csv] = export.csv_text(merged.rows)
    if args.markdown is not None:
        files[args.markdown] = export.markdown(merged)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def _diff(args: argparse.Namespace) -> int:
    from gpunet.measure import diff, rows

    if len(args.files) % 2:
        raise UsageError(f"report: --diff must be given two files, or as many before as after, got {len(args.files)}")
    effect = diff.EFFECT if args.effect is None else args.effect
    runs, half = [rows.read(each) for each in args.files], len(args.files) // 2
    found = diff.compare(runs[:half], runs[half:], effect=effect)
    if not silent(args):
        _show(found, effect)
    plain = [{**each._asdict(), "row": diff.key(each.row)} for each in found.changes]
    write_json(args, {**found._asdict(), "changes": plain})
    return 1 if found.count("slower") else 0


def _show(found: Any, effect: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gpunet.measure import pairs, tables

    colors = {"slower": "bold red", "faster": "green", "unsure": "yellow"}
    table = Table(title="time after / time before, with its interval", title_justify="left")
    for name in ("entry", "size", "kernel", "before", "after", "ratio", "interval", "by", "verdict"):
        table.add_column(name, overflow="fold")
    for each in sorted(found.changes, key=lambda change: -change.ratio):
        row = each.row
        kernel = " ".join([row.device, row.backend, row.variant, *([f"{row.threads} thr."] if row.threads else [])])
        style = colors.get(each.verdict, "")
        cells = (
            row.entry, f"{row.size} {row.dtype}", kernel, tables.seconds_text(each.before),
            tables.seconds_text(each.after), f"{each.ratio:.2f}", f"{each.low:.2f} to {each.high:.2f}", each.basis,
            each.verdict,
        )  # fmt: skip
        table.add_row(*map(escape, cells), style=style)
    screen = console(False)
    screen.print(table)
    for note in found.notes:
        screen.print(f"note: {note}", markup=False, style="dim")
    for told, keys in (("only in the first", found.missing), ("only in the second", found.new)):
        if keys:
            screen.print(f"{told}: {len(keys)} rows", style="dim")
    counts = ", ".join(f"{found.count(each)} {each}" for each in pairs.VERDICTS)
    screen.print(f"{counts}; changes below {100 * effect:g} % do not count")
