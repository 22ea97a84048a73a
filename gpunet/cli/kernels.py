"""The commands about kernels: check, bench and kernels."""

import argparse
import csv
import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpunet as gn
from gpunet import config, devices, dispatch
from gpunet.cli.tools import UsageError, console, silent, write_json
from gpunet.dispatch import Kernel
from gpunet.errors import ArgumentError

DTYPES = ("float32", "float64")
TIERS = ("quick", "standard", "full")
TIMES = ("median", "p25", "p75", "low", "high", "minimum", "maximum", "first_call")  # seconds, in a row's "time"


def import_kernels(name: str) -> list[Kernel]:
    """Imports a user's file and returns the kernels that it registered.

    Raises:
        UsageError: there is no such file.
        ArgumentError: it raises, or registers nothing.
    """
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if path.suffix != ".py" or not path.is_file() or spec is None or spec.loader is None:
        raise UsageError(f"check: must be given an op, or a Python file with kernels, got {name!r}")
    before = set(gn.list_kernels())
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ArgumentError(f"check: {name} must run when imported, got {type(error).__name__}: {error}") from error
    found = [each for each in gn.list_kernels() if each not in before]
    if not found:
        raise ArgumentError(f"check: {name} must register a kernel, got none; decorate a launcher with @gn.kernel(...)")
    return found


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
    """Proves every kernel, or those of a file; 1 if one fails, or cannot be proved."""
    from gpunet.measure import passes

    files = [each for each in args.what if each.endswith(".py") or each not in dispatch.ops()]
    mine = [each for name in files for each in import_kernels(name)] if files else None
    ops = {*(each for each in args.what if each not in files), *(each.op for each in mine or ())}
    now = _session(args, "proof", sorted(ops) or None)
    passes.prove_all(now)
    table: dict[tuple[str, ...], list[Any]] = {}
    for each in now.report.proofs:
        table.setdefault((each.entry.partition(" (")[0], each.device, each.backend, each.variant), []).append(each)
    if mine is not None:
        wanted = {(each.entry, each.backend, each.variant) for each in mine}
        wanted |= {(key[0], *key[2:]) for key in table if key[0].partition(".")[0] in args.what}
        table = {key: proofs for key, proofs in table.items() if (key[0], *key[2:]) in wanted}
        missing = wanted - {(key[0], *key[2:]) for key in table}
    else:
        missing = set()
    rows = [_summary(key, proofs) for key, proofs in table.items()] + [_cannot(*each) for each in sorted(missing)]
    failed = [each for each in rows if each["status"] != "passed"]
    if not silent(args):
        _show_check(rows, now.report.notes, now.screen)
    write_json(args, {"kernels": rows, "notes": now.report.notes, "failed": len(failed)})
    if args.quiet:
        for each in failed:
            sys.stderr.write(f"gpunet: check: {each['entry']}/{each['backend']}/{each['variant']}: {each['reason']}\n")
    return 1 if failed else 0


def _summary(key: tuple[str, ...], proofs: list[Any]) -> dict[str, Any]:
    """All proofs of one kernel in a row."""
    bad = [each for each in proofs if each.status in ("failed", "untested")]
    shares = [each for each in proofs if each.reached is not None and each.allowed]
    worst = max(shares, key=lambda each: each.reached / each.allowed, default=None)
    where = f"{bad[0].size} {bad[0].dtype}".strip() if bad else ""
    return {
        "entry": key[0], "device": key[1], "backend": key[2], "variant": key[3],
        "status": bad[0].status if bad else "passed",
        "proofs": len(proofs), "refused": sum(each.status == "refused" for each in proofs), "failed": len(bad),
        "reached": worst.reached if worst else None, "allowed": worst.allowed if worst else None,
        "reason": f"{where}: {bad[0].reason}" if where else bad[0].reason if bad else "",
    }  # fmt: skip


def _cannot(entry: str, backend: str, variant: str) -> dict[str, Any]:
    """The row of a user's kernel whose backend took no part."""
    reasons = [f"{kind}: {devices.backend(backend).why_not(kind)}" for kind in devices.backend(backend).devices]
    return {
        "entry": entry, "device": "", "backend": backend, "variant": variant, "status": "untested", "proofs": 0,
        "refused": 0, "failed": 0, "reached": None, "allowed": None,
        "reason": f"its backend does not run where the check ran; {'; '.join(reasons)}",
    }  # fmt: skip


def _show_check(rows: list[dict[str, Any]], notes: list[str], screen: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("entry", "device", "backend", "variant", "proofs", "worst error", "allowed", "", pad_edge=False)
    for each in rows:
        good = each["status"] == "passed"
        numbers = ["-" if each[name] is None else f"{each[name]:.1e}" for name in ("reached", "allowed")]
        status = f"[green]{each['status']}" if good else f"[bold red]{each['status']}[/]: {escape(each['reason'])}"
        names = (each["entry"], each["device"], each["backend"], each["variant"])
        table.add_row(*names, str(each["proofs"]), *numbers, status)
    screen.print(table)
    for note in notes:
        screen.print(f"note: {note}", markup=False, style="dim")
    failed = sum(each["status"] != "passed" for each in rows)
    told = f"{sum(each['proofs'] for each in rows)} proofs of {len(rows)} kernels and gradients"
    verdict, style = (f"{failed} failed", "bold red") if failed else ("all passed", "bold green")
    screen.print(f"{told}: {verdict}", style=style)


# ------------------------------------------------------------------------------------------------------------- bench


def bench_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    parser.add_argument("ops", nargs="*", metavar="OP", help="ops to time, all without; or a Python file with kernels")
    parser.add_argument("--backend", choices=list(devices.BACKENDS), help="kernels of this backend alone")
    parser.add_argument("--variant", metavar="NAME", help="kernels of this variant alone")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="float32 without")
    parser.add_argument("--tier", choices=TIERS, default="quick", help="which sizes; full is for a GPU (quick)")
    parser.add_argument("--csv", metavar="FILE", help="write one line for each row")
    parser.add_argument("--host", action="store_true", help="what a launch costs the host, step by step, instead")
    parser.set_defaults(run=bench)


def bench(args: argparse.Namespace) -> int:
    """Times kernels, each proved before and after; 1 if a proof fails or a row is impossible."""
    from gpunet.measure import passes, progress
    from gpunet.measure.calls import suites

    if args.host:
        return _host(args)
    ops = _ops(args, suites.names())
    now = _session(args, "time", ops, tiers=(args.tier,))
    now.lanes = [each for each in now.lanes if args.backend in (None, each.backend) and each.device.kind != "sim"]
    if not now.lanes:
        devices.backend(args.backend or "numpy").need_somewhere()
        raise ArgumentError(f"bench: a backend must run and have kernels, got none for {_asked(args)}; see gpunet info")
    _leave_out(now, args.variant)
    tasks = [(op, size) for op in ops for size in suites.sizes(op, (args.tier,))]
    with progress.shown(now.screen, "time", len(tasks)) as step:
        for op, size in tasks:
            step(f"{op} {size.name}")
            if passes._fits(now, op, size, args.dtype):
                now.report.rows.extend(passes._time_size(now, now.lanes, op, size, args.dtype, now.budget.left))
    if not silent(args):
        _show_bench(now)
    now.report.complete = True
    write_json(args, now.report.to_dict())
    if args.csv is not None:
        _write_csv(args.csv, now.report.rows)
    for line in now.report.failed if args.quiet else ():
        sys.stderr.write(f"gpunet: bench: {line}\n")
    return 1 if now.report.failed else 0


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


def _ops(args: argparse.Namespace, known: Sequence[str]) -> list[str]:
    """The ops that were named; a file stands for the ops that its kernels belong to."""
    ops: list[str] = []
    for name in args.ops:
        found = [each.op for each in import_kernels(name)] if name.endswith(".py") else [name]
        if found[0] not in known:
            raise UsageError(f"bench: OP must be one of {', '.join(known)}, or a file that ends in .py, got {name!r}")
        ops += found
    ops = list(dict.fromkeys(ops)) or list(known)
    variants = {each.variant for op in ops if op in dispatch.ops() for each in gn.list_kernels(op)}
    if args.variant is not None and args.variant not in variants:
        raise UsageError(f"bench: --variant must be one of {', '.join(sorted(variants))}, got {args.variant!r}")
    return ops


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
        now.screen.print(f"FAILED {line}", markup=False, style="bold red")


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
