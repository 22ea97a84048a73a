"""The commands about kernels: check and kernels."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import gpunet as gn
from gpunet import dispatch
from gpunet.cli import own
from gpunet.cli.tools import UsageError, session, silent, write_json
from gpunet.dispatch import Kernel

# ------------------------------------------------------------------------------------------------------------- check


def check_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    told = "ops to prove, all without; or Python files with kernels of your own: prove those"
    parser.add_argument("what", nargs="*", metavar="OP|FILE", help=told)
    parser.set_defaults(run=check)


def check(args: argparse.Namespace) -> int:
    """Proves every kernel, or those of ops and files; 1 if one fails, or cannot be proved."""
    files = [each for each in args.what if each.endswith(".py") or each not in dispatch.ops()]
    mine = [each for name in dict.fromkeys(files) for each in own.import_kernels(name, "check")]
    ops = [each for each in args.what if each not in files]
    now = session(args, "proof", ops or sorted({each.op for each in mine}) or None)
    rows = _check_project(now, mine) if ops or not mine else []
    if mine:
        rows += own.check_rows(now, mine)
    failed = [each for each in rows if each["status"] != "passed"]
    if not silent(args):
        _show_check(rows, now.report.notes, now.screen)
    write_json(args, {"kernels": rows, "notes": now.report.notes, "failed": len(failed)})
    if args.quiet:
        for each in failed:
            sys.stderr.write(f"gpunet: check: {each['entry']}/{each['backend']}/{each['variant']}: {each['reason']}\n")
    return 1 if failed else 0


def _check_project(now: Any, mine: Sequence[Kernel]) -> list[dict[str, Any]]:
    """The rows of the project's kernels and gradients; a user's among them is proved by itself."""
    from gpunet.measure import passes

    passes.prove_all(now)
    table: dict[tuple[str, ...], list[Any]] = {}
    for each in now.report.proofs:
        table.setdefault((each.entry.partition(" (")[0], each.device, each.backend, each.variant), []).append(each)
    theirs = {(each.entry, each.backend, each.variant) for each in mine}
    return [own.summary(key, proofs) for key, proofs in table.items() if (key[0], *key[2:]) not in theirs]


def _show_check(rows: list[dict[str, Any]], notes: list[str], screen: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    inside = any(each.get("gradient") for each in rows)
    heads = ["entry", "device", "backend", "variant", "proofs", "worst error", "allowed"]
    heads += ["gradients", "worst error", "allowed"] if inside else []
    title = "proofs: values against the definition; gradients: its op with it inside, against central differences"
    table = Table(*heads, "", pad_edge=False, title=title if inside else None, title_justify="left")
    for each in rows:
        good = each["status"] == "passed"
        status = f"[green]{each['status']}" if good else f"[bold red]{each['status']}[/]: {escape(each['reason'])}"
        names = (each["entry"], each["device"], each["backend"], each["variant"])
        table.add_row(*names, *_numbers(each), *(_numbers(each.get("gradient")) if inside else ()), status)
    screen.print(table)
    for note in notes:
        screen.print(f"note: {note}", markup=False, style="dim")
    failed = sum(each["status"] != "passed" for each in rows)
    parts = [part for each in rows for part in (each, each.get("gradient")) if part]
    proofs = sum(part["proofs"] - part["refused"] for part in parts)
    told = f"{proofs} proofs of {len(rows)} kernels and gradients"
    verdict, style = (f"{failed} failed", "bold red") if failed else ("all passed", "bold green")
    screen.print(f"{told}: {verdict}", style=style)


def _numbers(row: dict[str, Any] | None) -> list[str]:
    """How many proofs a row stands for, and the worst of them; a call that the kernel refuses proves nothing."""
    if row is None:
        return ["-"] * 3
    refused = f" ({row['refused']} refused)" if row["refused"] else ""
    errors = ("-" if row[name] is None else f"{row[name]:.1e}" for name in ("reached", "allowed"))
    return [f"{row['proofs'] - row['refused']}{refused}", *errors]


# ----------------------------------------------------------------------------------------------------------- kernels


def kernels_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    parser.add_argument("entry", nargs="?", metavar="ENTRY", help="an op (conv2d) or an entry (conv2d.forward)")
    parser.set_defaults(run=kernels)


def kernels(args: argparse.Namespace) -> int:
    """Lists the kernels."""
    try:
        found = gn.list_kernels(args.entry)
    except LookupError as error:
        raise UsageError(str(error)) from None
    heads = ("entry", "backend", "variant", "place")
    rows = [tuple(getattr(each, name) for name in heads) for each in found]
    if not silent(args):
        widths = [max(map(len, column)) for column in zip(heads, *rows)]
        for row in (heads, *rows):
            line = "  ".join(text.ljust(width) for text, width in zip(row, widths))
            sys.stdout.write(line.rstrip() + "\n")
    write_json(args, [dict(zip(heads, row)) for row in rows])
    return 0
