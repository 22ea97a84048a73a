"""The command: ``python -m gpunet.bench.gpu [--device cuda] [--seconds 240] [--out FILE] [--ops matmul,conv2d]``."""

import argparse
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

from gpunet import devices

gpu: Any = importlib.import_module("gpunet.bench.gpu")  # by name: its files lie in the folder bench/


def main(arguments: list[str] | None = None) -> int:
    """Runs the ladder and prints a line a row; 1 if a kernel was wrong or faster than the roof allows."""
    parser = argparse.ArgumentParser(prog="python -m gpunet.bench.gpu", description=gpu.__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or sim to see that the command works")
    parser.add_argument("--seconds", type=float, default=240.0, help="for everything (default 240)")
    parser.add_argument("--each", type=float, default=0.6, help="for one comparison (default 0.6)")
    parser.add_argument("--tiers", default=None, help="of the suites, comma-separated (default: quick,standard,full)")
    parser.add_argument("--ops", default=None, help="comma-separated (default: all)")
    parser.add_argument("--out", type=Path, default=None, help="file for the report")
    args = parser.parse_args(arguments)
    device = devices.device(args.device)
    tiers = args.tiers or ("proof" if device.kind == "sim" else "quick,standard,full")
    ops = tuple(args.ops.split(",")) if args.ops else gpu.suites.names()
    plan = gpu.Plan(device, tuple(tiers.split(",")), ops, args.seconds, args.each)
    peer = importlib.import_module("gpunet.bench.peers.pytorch")
    report = gpu.run(plan, peer, partial(print, flush=True), args.out)
    for line in (*report.notes, *report.failed):
        print(line)
    print(f"{len(report.rows)} rows, {len(report.failed)} failed, {report.seconds['all']:.0f} s")
    return int(bool(report.failed))


if __name__ == "__main__":
    sys.exit(main())
