"""The command line: ``gpunet COMMAND`` or ``python -m gpunet COMMAND``.

Exit status: 0 done, 1 a check failed or an error, 2 wrong usage, 130 interrupted.
"""

import argparse
import contextlib
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import gpunet as gn
from gpunet import config, devices, dispatch
from gpunet.cli import bench, examples, kernels, predict, report, train, warmup
from gpunet.cli.tools import UsageError, at_least, console, device_name, seed, silent, write_json
from gpunet.errors import GpunetError

PURPOSE = "gpunet: one op, several kernels, proved against each other and timed, inside a real autograd framework."
COMMANDS = {
    "info": "this machine: devices, backends and libraries, and why one cannot run",
    "compare": "prove and time every kernel on every device, train on real images, write the report",
    "check": "prove every kernel (or those of some ops, or of a file) against its definition; one table",
    "bench": "time the kernels of some ops, or of all",
    "report": "draw recorded reports again on any machine, or say what changed between two",
    "train": "train a named model on a named data set; curves, checkpoint, going on",
    "predict": "say what a trained model sees in image files",
    "kernels": "list the kernels: entry, backend, variant, file and line",
    "warmup": "compile the kernels ahead of their first use, and show how far it is",
    "examples": "list the programs that come with the package, to read and to run",
}
EXAMPLES = """\
  gpunet info
  gpunet train --model reference_cnn --data fashion_mini --epochs 5 --save cnn.safetensors
  gpunet bench conv2d --tier quick --json conv2d.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help(sys.stderr)
        return 2
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has said what is wrong, or shown the help
        return int(stop.code or 0)
    try:
        _common(args)
        status = args.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        sys.stderr.write("gpunet: interrupted\n")
        return 130
    except BrokenPipeError:  # whoever read our output has gone, as with `| head`
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # 128 + SIGPIPE, what a shell expects
    except (GpunetError, OSError) as error:
        if config.settings.debug >= 1:
            traceback.print_exc()
        sys.stderr.write(f"gpunet: error: {' '.join(str(error).split())}\n")
        return 2 if isinstance(error, UsageError) else 1


# ------------------------------------------------------------------------------------------------------------ parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpunet", description=PURPOSE, epilog=_epilog(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"gpunet {gn.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name, purpose in COMMANDS.items():
        each = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        common = each.add_argument_group("for every command")
        common.add_argument("--device", type=device_name, metavar="D", help="auto, cpu, cuda, cuda:N or sim")
        common.add_argument("--seed", type=seed, metavar="N", help=f"seed of all randomness ({config.settings.seed})")
        common.add_argument("--json", metavar="FILE", help="write the result as JSON; - is the standard output")
        common.add_argument("--quiet", action="store_true", help="print errors alone")
        PARTS[name](each)
    return parser


def _epilog() -> str:
    names = textwrap.fill(", ".join(config.VARIABLES), 78, initial_indent="  ", subsequent_indent="  ")
    return (
        f"examples:\n{EXAMPLES}\n`gpunet COMMAND --help` shows a command's options.\n"
        "exit status: 0 done, 1 a check failed or an error, 2 wrong usage\n\n"
        f"environment (`pydoc gpunet.config` explains each):\n{names}"
    )


def _common(args: argparse.Namespace) -> None:
    """What every command does first: the device is looked at, the seed set."""
    if args.device is not None:
        config.settings.device = str(devices.device(args.device))
    if args.seed is not None:
        config.settings.seed = args.seed
    gn.manual_seed(config.settings.seed)


# -------------------------------------------------------------------------------------------------------------- info


def _info_part(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_info)


def _info(args: argparse.Namespace) -> int:
    from gpunet.measure import info

    found = info.collect()
    if not silent(args):
        console().print(info.render(found))
    write_json(args, found)
    return 0


# ----------------------------------------------------------------------------------------------------------- compare


def _compare_part(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--full", action="store_true", help="every size, dtype and variant, five epochs")
    parser.add_argument("--budget", type=at_least(float, 1), metavar="S", help="seconds for it all (160; --full: any)")
    parser.add_argument("--ops", nargs="+", choices=dispatch.ops(), metavar="OP", help="look at these ops alone")
    parser.add_argument("--against", nargs="+", default=["numpy"], metavar="RIVAL", help=bench.AGAINST)
    parser.add_argument("--out", type=Path, default=Path("gpunet-report"), metavar="DIR", help="folder of the report")
    parser.set_defaults(run=_compare)


def _compare(args: argparse.Namespace) -> int:
    from gpunet.measure import compare

    options = compare.Options(
        full=args.full, budget=args.budget, device=args.device, seed=config.settings.seed, out=args.out,
        ops=tuple(args.ops) if args.ops else None, quiet=silent(args), against=tuple(args.against), threads=(1, 0),
    )  # fmt: skip
    found = compare.execute(options)
    write_json(args, found.to_dict())
    return compare.status(found)


PARTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "info": _info_part,
    "compare": _compare_part,
    "check": kernels.check_part,
    "bench": bench.bench_part,
    "report": report.report_part,
    "train": train.train_part,
    "predict": predict.predict_part,
    "kernels": kernels.kernels_part,
    "warmup": warmup.warmup_part,
    "examples": examples.examples_part,
}
