"""The commands about kernels: check, bench and kernels."""

import argparse
import csv
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpunet as gn
from gpunet import config, devices, dispatch
from gpunet.cli import own
from gpunet.cli.tools import UsageError, console, silent, write_json
from gpunet.dispatch import Kernel
from gpunet.errors import ArgumentError

DTYPES = ("float32", "float64")
TIERS = ("quick", "standard", "full")
TIMES = ("median", "p25", "p75", "low", "high", "minimum", "maximum", "first_call")  # seconds, in a row's "time"


def _session(args: argparse.Namespace, part: str, ops: Sequence[str] | None, **more: Any) -> Any:
    from gpunet.measure import session

    options = session.Options(
        device=args.device, seed=config.settings.seed, out=None, parts=(part,), ops=tuple(ops) if ops else None,
        quiet=silent(args), budget=1e9, **more,
    )  # fmt: skip
    now = session.start(options)
    now.screen = console(silent(args))
    return now


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
    now = _session(args, "proof", ops or sorted({each.op for each in mine}) or None)
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


# ------------------------------------------------------------------------------------------------------------- bench


def bench_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    told = "ops to time, all without; or Python files with kernels of your own: time those beside the project's"
    parser.add_argument("what", nargs="*", metavar="OP|FILE", help=told)
    parser.add_argument("--backend", choices=list(devices.BACKENDS), help="kernels of this backend alone")
    parser.add_argument("--variant", metavar="NAME", help="kernels of this variant alone")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="float32 without")
    parser.add_argument("--tier", choices=TIERS, default="quick", help="which sizes; full is for a GPU (quick)")
    parser.add_argument("--csv", metavar="FILE", help="write one line for each row")
    parser.add_argument("--host", action="store_true", help="what a launch costs the host, step by step, instead")
    parser.set_defaults(run=bench)


def bench(args: argparse.Namespace) -> int:
    """Times kernels, each proved before and after; 1 if a proof fails or a row is impossible."""
    from gpunet.measure.calls import suites

    if args.host:
        return _host(args)
    files = [each for each in args.what if each.endswith(".py")]
    ops = [each for each in args.what if each not in files]
    _need_ops(ops, suites.names())
    mine = [each for name in dict.fromkeys(files) for each in own.import_kernels(name, "bench")]
    wanted = list(dict.fromkeys([*ops, *(each.op for each in mine)])) or list(suites.names())
    _need_variant(args.variant, wanted)
    now = _session(args, "time", wanted, tiers=(args.tier,))
    now.lanes = [each for each in now.lanes if args.backend in (None, each.backend) and each.device.kind != "sim"]
    if mine:
        own.need_lanes(now, mine)
        own.only(now, mine, ops)
    if not now.lanes:
        devices.backend(args.backend or "numpy").need_somewhere()
        raise ArgumentError(f"bench: a backend must run and have kernels, got none for {_asked(args)}; see gpunet info")
    _leave_out(now, args.variant)
    _time(now, wanted, args, mine)
    if not silent(args):
        _show_bench(now)
        own.show_ratios(now)
    now.report.complete = True
    write_json(args, now.report.to_dict())
    if args.csv is not None:
        _write_csv(args.csv, now.report.rows)
    for line in now.report.failed if args.quiet else ():
        sys.stderr.write(f"gpunet: bench: {own.one_line(line)}\n")
    return 1 if now.report.failed else 0


def _time(now: Any, ops: Sequence[str], args: argparse.Namespace, mine: Sequence[Kernel]) -> None:
    """Times the ops, and a user's kernels in turns with the project's."""
    from gpunet.measure import own as beside
    from gpunet.measure import passes, progress
    from gpunet.measure.calls import suites

    tasks = [(op, size) for op in ops for size in suites.sizes(op, (args.tier,))]
    with progress.shown(now.screen, "time", len(tasks)) as step:
        for op, size in tasks:
            step(f"{op} {size.name}")
            if passes._fits(now, op, size, args.dtype):
                rows = list(passes._time_size(now, now.lanes, op, size, args.dtype, now.budget.left))
                now.report.rows.extend(rows)
                beside.compare(now, mine, rows, op, size, args.dtype)


def _host(args: argparse.Namespace) -> int:
    """Prints the time that each step of a launch takes the host."""
    from rich.table import Table

    from gpunet.measure import host

    found = host.costs()
    if not silent(args):
        table = Table("device", "backend", title="one launch of relu on 16 numbers, microseconds", title_justify="left")
        for step in host.STEPS:
            table.add_column(step, justify="right")
        for device, backend in dict.fromkeys((each.device, each.backend) for each in found):
            steps = {each.step: each for each in found if (each.device, each.backend) == (device, backend)}
            cells = (f"{steps[step].median * 1e6:.2f}" if step in steps else "-" for step in host.STEPS)
            table.add_row(device, backend, *cells)
        screen = console(False)
        screen.print(table)
        screen.print("choice and launcher are within op; check and launch within launcher; - not measured here")
    write_json(args, [each._asdict() for each in found])
    return 0


def _need_ops(ops: Sequence[str], known: Sequence[str]) -> None:
    for name in ops:
        if name not in known:
            raise UsageError(f"bench: OP must be one of {', '.join(known)}, or a file that ends in .py, got {name!r}")


def _need_variant(variant: str | None, ops: Sequence[str]) -> None:
    known = {each.variant for op in ops if op in dispatch.ops() for each in gn.list_kernels(op)}
    if variant is not None and variant not in known:
        raise UsageError(f"bench: --variant must be one of {', '.join(sorted(known))}, got {variant!r}")


def _asked(args: argparse.Namespace) -> str:
    given = [f"--{name} {getattr(args, name)}" for name in ("device", "backend") if getattr(args, name)]
    return " ".join(given) or "this machine"


def _leave_out(now: Any, variant: str | None) -> None:
    """Keeps the kernels that nobody asked for from being timed."""
    if variant is not None:
        unwanted = [each for each in gn.list_kernels() if each.variant != variant]
        now.wrong.update((each.name, str(lane.device)) for each in unwanted for lane in now.lanes)


def _show_bench(now: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    from gpunet.measure import tables

    table = Table(title="median time of a call, with half the distance of its 95 % interval", title_justify="left")
    for name in ("size", "entry", "device", "backend", "variant"):
        table.add_column(name, overflow="fold")
    for name in ("time", "GFLOP/s", "GB/s", "% of roof"):
        table.add_column(name, justify="right")
    for each in now.report.rows:
        names = (each.size, each.entry, each.device, each.backend, each.variant)
        numbers = (tables.time_text(each), f"{each.gflops:.3g}", f"{each.gbytes:.3g}", tables.roof_text(each))
        table.add_row(*map(escape, names), *numbers)
    now.screen.print(table)
    for note in now.report.notes:
        now.screen.print(f"note: {note}", markup=False, style="dim")
    for line in now.report.failed:
        now.screen.print(f"FAILED {own.one_line(line)}", markup=False, style="bold red")


def _write_csv(name: str, rows: Sequence[Any]) -> None:
    plain = ("op", "entry", "phase", "device", "backend", "variant", "dtype", "size", "tier", "proof")
    counts = ("flops", "bytes_read", "bytes_written", "gflops", "gbytes", "roof_percent", "bound", "impossible")
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*plain, *(f"{each}_s" for each in TIMES), "n", *counts])
        for row in rows:
            values = dataclasses.asdict(row)
            times = values["time"]
            head, tail = ([values[each] for each in names] for names in (plain, counts))
            writer.writerow([*head, *(times[each] for each in TIMES), times["n"], *tail])


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
