"""The command ``gpunet bench``: times kernels, alone or in turns with others."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gpunet as gn
from gpunet import devices, dispatch
from gpunet.cli import own
from gpunet.cli.tools import UsageError, at_least, console, need_ops, session, silent, write_json
from gpunet.dispatch import Kernel
from gpunet.errors import ArgumentError

DTYPES = ("float32", "float64")
TIERS = ("quick", "standard", "full")
AGAINST = (
    "time the chosen kernels in turns with these: numpy, torch, jax, cupy, commit:REF, or BACKEND/VARIANT[@DEVICE]"
)
INTERRUPTED = 130  # 128 + SIGINT, what a shell expects


def bench_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    told = "ops to time, all without; or Python files with kernels of your own: time those beside the project's"
    parser.add_argument("what", nargs="*", metavar="OP|FILE", help=told)
    parser.add_argument("--against", nargs="+", metavar="RIVAL", help=AGAINST)
    parser.add_argument("--effect", type=at_least(float, 0.001), metavar="X", help="smallest effect that counts (0.05)")
    parser.add_argument("--fail-slower", action="store_true", help="exit with 1 if a kernel is slower than a rival")
    told = "numbers of threads on the processor, 0 for all (all; with --against 1 and all)"
    parser.add_argument("--threads", nargs="+", type=at_least(int, 0), metavar="N", help=told)
    parser.add_argument("--backend", choices=list(devices.BACKENDS), help="kernels of this backend alone")
    parser.add_argument("--variant", metavar="NAME", help="kernels of this variant alone")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="float32 without")
    told = "which sizes, one tier or more; full is for a GPU (quick)"
    parser.add_argument("--tier", nargs="+", choices=TIERS, default=["quick"], metavar="TIER", help=told)
    parser.add_argument("--sizes", nargs="+", metavar="NAME", help="these sizes of the tier alone")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one line for each row")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    told = "times over sizes instead, on every device, and from which size on one pays; with and without copies"
    parser.add_argument("--sweep", action="store_true", help=told)
    told = "training steps of LeNet-5 and the reference CNN instead, in turns with --against torch"
    parser.add_argument("--steps", action="store_true", help=told)
    parser.add_argument("--budget", type=at_least(float, 1), metavar="S", help="seconds for --sweep or --steps (60)")
    told = "on a GPU: NVIDIA's nvbench times each row too, and the difference is printed (pip install cuda-bench)"
    parser.add_argument("--nvbench", action="store_true", help=told)
    told = "what a launch costs the host, and an op in a chain, instead; the chains in turns with --against torch"
    parser.add_argument("--host", action="store_true", help=told)
    parser.set_defaults(run=bench)


def bench(args: argparse.Namespace) -> int:
    """Times kernels, each proved before and after.

    Returns:
        0; 1 if a proof fails, a row is impossible, or with ``--fail-slower`` a rival is faster; 130 if interrupted:
        what was finished is shown and written all the same.
    """
    if args.host:
        return _host(args)
    now, ops, mine = _prepared(args)
    begun = True
    try:
        _measure(now, ops, args, mine)
        begun = False
    except KeyboardInterrupt:
        now.note("interrupted: sizes are missing")
    now.report.complete = not begun
    now.note_others()
    _write(args, now, bool(mine))
    if begun:
        sys.stderr.write("gpunet: interrupted\n")
        return INTERRUPTED
    slower = [each for each in now.report.ratios if each.verdict == "slower"] if args.fail_slower else []
    return 1 if now.report.failed or slower else 0


def _measure(now: Any, ops: Sequence[str], args: argparse.Namespace, mine: Sequence[Kernel]) -> None:
    """What was asked for: sweeps, training steps, or the rows of sizes."""
    from gpunet.measure import against, progress, recorded, steps, sweep

    now.budget = progress.Budget(args.budget or 60.0 if args.sweep or args.steps else None)
    if args.sweep:
        sweep.sweep_all(now)
        recorded.beside(now)
    if args.steps:
        steps.steps_all(now, tuple(each for each in args.against or () if each == "torch"))
    if not args.sweep and not args.steps:
        _time(now, ops, args, mine, against.rivals(args.against or ()))


def _prepared(args: argparse.Namespace) -> tuple[Any, Sequence[str], list[Kernel]]:
    """The session, the ops to time, and the user's kernels."""
    from gpunet.measure.calls import suites

    files = [each for each in args.what if each.endswith(".py")]
    ops = [each for each in args.what if each not in files]
    need_ops("bench", ops, suites.names(), ", or a file that ends in .py")
    mine = [each for name in dict.fromkeys(files) for each in own.import_kernels(name, "bench")]
    wanted = list(dict.fromkeys([*ops, *(each.op for each in mine)])) or list(suites.names())
    _need_variant(args.variant, wanted)
    _need_sizes(args, wanted)
    threads = tuple(args.threads) if args.threads else (1, 0) if args.against else (0,)
    now = session(args, "time", wanted, tiers=tuple(args.tier), threads=threads)
    now.lanes = [each for each in now.lanes if args.backend in (None, each.backend) and each.device.kind != "sim"]
    if mine:
        own.need_lanes(now, mine)
        own.only(now, mine, ops)
    if not now.lanes:
        devices.backend(args.backend or "numpy").need_somewhere()
        raise ArgumentError(f"bench: a backend must run and have kernels, got none for {_asked(args)}; see gpunet info")
    _leave_out(now, args.variant)
    return now, wanted, mine


def _time(now: Any, ops: Sequence[str], args: argparse.Namespace, mine: Sequence[Kernel], rivals: Any) -> None:
    """Times the ops; a user's kernels in turns with the project's, the chosen ones in turns with the rivals."""
    from gpunet.measure import against, nvbench, pairs, passes, progress
    from gpunet.measure import own as users
    from gpunet.measure.calls import suites

    tasks = [(op, size) for op in ops for size in _sizes(args, op, suites)]
    limits = pairs.Limits(against.SECONDS, args.effect or pairs.EFFECT)
    with progress.shown(now.screen, "time", len(tasks)) as step:
        for op, size in tasks:
            step(f"{op} {size.name}")
            if passes.fits(now, op, size, args.dtype):
                before = len(now.report.rows)
                for row in passes.time_size(now, now.lanes, op, size, args.dtype, now.budget.left):
                    now.report.rows.append(row)
                rows = now.report.rows[before:]
                users.compare(now, mine, rows, op, size, args.dtype)
                if args.nvbench:
                    nvbench.opinions(now, rows, passes.captured(now, op, size, args.dtype, now.options.seed + 10))
                if rivals:
                    cases = passes.captured(now, op, size, args.dtype, now.options.seed + 40)
                    against.compare(now, rows, cases, rivals, limits, mine)


def _sizes(args: argparse.Namespace, op: str, suites: Any) -> list[Any]:
    return [each for each in suites.sizes(op, args.tier) if not args.sizes or each.name in args.sizes]


def _host(args: argparse.Namespace) -> int:
    """Prints the time that each step of a launch takes the host, and an op in a chain."""
    from gpunet.measure import chains, host

    if args.against not in (None, ["torch"]):
        raise UsageError(f"bench: --host goes with --against torch alone, got {' '.join(args.against)}")
    steps, ops = host.costs(), chains.costs("torch" if args.against else "")
    if not silent(args):
        screen = console(False)
        screen.print(_steps_table(steps, host.STEPS))
        screen.print("choice and launcher are within op; check and launch within launcher; - not measured here")
        screen.print(_chains_table(ops))
        screen.print("forward and backward of 1,000 ops, over 1,000; above 1 the other library takes longer")
    write_json(args, [each._asdict() for each in (*steps, *ops)])
    return 0


def _steps_table(found: Sequence[Any], steps: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table("device", "backend", title="one launch of relu on 16 numbers, microseconds", title_justify="left")
    for step in steps:
        table.add_column(step, justify="right")
    for device, backend in dict.fromkeys((each.device, each.backend) for each in found):
        known = {each.step: each for each in found if (each.device, each.backend) == (device, backend)}
        table.add_row(device, backend, *(f"{known[step].median * 1e6:.2f}" if step in known else "-" for step in steps))
    return table


def _chains_table(found: Sequence[Any]) -> Any:
    from rich.table import Table

    table = Table("chain", title="an op in a chain on 16 numbers, one thread, microseconds", title_justify="left")
    peer = found[0].peer
    for head in ("gpunet", *((peer, f"{peer} / gpunet") if peer else ())):
        table.add_column(head, justify="right")
    for each in found:
        cells = [each.step.removeprefix("chain "), f"{each.median * 1e6:.2f}"]
        if peer:
            cells += [f"{each.theirs * 1e6:.2f}", f"{each.ratio:.2f} [{each.ratio_low:.2f}, {each.ratio_high:.2f}]"]
        table.add_row(*cells)
    return table


# ------------------------------------------------------------------------------------------------------------- usage


def _need_variant(variant: str | None, ops: Sequence[str]) -> None:
    known = {each.variant for op in ops if op in dispatch.ops() for each in gn.list_kernels(op)}
    if variant is not None and variant not in known:
        raise UsageError(f"bench: --variant must be one of {', '.join(sorted(known))}, got {variant!r}")


def _need_sizes(args: argparse.Namespace, ops: Sequence[str]) -> None:
    from gpunet.measure.calls import suites

    known = [each.name for op in ops for each in suites.sizes(op, args.tier)]
    for name in args.sizes or ():
        if name not in known:
            told = ", ".join(dict.fromkeys(known))
            raise UsageError(f"bench: --sizes must be among {told} in tier {' and '.join(args.tier)}, got {name!r}")


def _asked(args: argparse.Namespace) -> str:
    given = [f"--{name} {getattr(args, name)}" for name in ("device", "backend") if getattr(args, name)]
    return " ".join(given) or "this machine"


def _leave_out(now: Any, variant: str | None) -> None:
    """Keeps the kernels that nobody asked for from being timed."""
    if variant is not None:
        unwanted = [each for each in gn.list_kernels() if each.variant != variant]
        now.wrong.update((each.name, str(lane.device)) for each in unwanted for lane in now.lanes)


# ------------------------------------------------------------------------------------------------------------ output


def _write(args: argparse.Namespace, now: Any, mine: bool) -> None:
    """Shows what was found, and writes the files that were asked for."""
    from gpunet.measure import export
    from gpunet.measure.rows import write_text

    if not silent(args):
        _show(now, args, mine)
    write_json(args, now.report.to_dict())
    for path, text in ((args.csv, export.csv_text), (args.markdown, None)):
        if path is not None:
            write_text(path, export.markdown(now.report) if text is None else text(now.report.rows))
    for line in now.report.failed if args.quiet else ():
        sys.stderr.write(f"gpunet: bench: {own.one_line(line)}\n")


def _show(now: Any, args: argparse.Namespace, mine: bool) -> None:
    from gpunet.measure import beside, tables

    if now.report.rows or not (args.sweep or args.steps):
        now.screen.print(beside.ratios(now.report) if args.against else beside.rows(now.report.rows))
    if now.report.sweeps:
        now.screen.print(tables.sweeps(now.report.sweeps))
    for line in tables.break_even_lines(now.report):
        now.screen.print(line, markup=False)
    if now.report.steps:
        now.screen.print(tables.steps(now.report.steps))
    if now.report.ratios:
        now.screen.print(beside.summary(now.report))
    for line in beside.mean_lines(now.report):
        now.screen.print(line, markup=False)
    if mine:
        own.show_ratios(now)
    for note in now.report.notes:
        now.screen.print(f"note: {note}", markup=False, style="dim")
    for line in now.report.failed:
        now.screen.print(f"FAILED {own.one_line(line)}", markup=False, style="bold red")
