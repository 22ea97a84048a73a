"""The command ``gpunet warmup``: compiles kernels ahead of their first use."""

import argparse
import time

from gpunet.cli.tools import console, need_ops, silent, write_json

DTYPES = ("float32", "float64")


def warmup_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    parser.add_argument("ops", nargs="*", metavar="OP", help="ops whose kernels to compile, all without")
    told = "numbers that the kernels are for; both without"
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES), metavar="DTYPE", help=told)
    parser.set_defaults(run=warmup)


def warmup(args: argparse.Namespace) -> int:
    """Compiles, shows how far it is, and says what it took."""
    from gpunet.measure import warmup as ahead
    from gpunet.measure.calls import suites

    screen, begin = console(silent(args)), time.perf_counter()
    need_ops("warmup", args.ops, suites.names())
    ops = [each for each in suites.names() if not args.ops or each in args.ops]
    found = ahead.warm_all(ahead.lanes(args.device), ops, screen, args.dtype)
    seconds = time.perf_counter() - begin
    count = sum(each.kernels for each in found)
    screen.print(
        f"{count} kernels of {len(ops)} ops are ready, in {seconds:.1f} s; they lie on disk for other processes"
    )
    write_json(args, {"seconds": seconds, "warmed": [each._asdict() for each in found]})
    return 0
