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
from gpunet.cli import bench, kernels, report, warmup
from gpunet.cli.tools import UsageError, at_least, console, device_name, seed, silent, write_json
from gpunet.errors import GpunetError

PURPOSE = "gpunet: one op, several kernels, proved against each other and timed, inside a real autograd framework."
COMMANDS = {
    "info": "this machine: devices, backends and libraries, and why one cannot run",
    "compare": "prove and time every kernel on every device, train on real images, write the report",
    "check": "prove every kernel (or those of some ops, or of a file) against its definition; one table",
    "bench": "time the kernels of some ops, or of all",
    "report": "draw recorded reports again on any machine, or say what changed between two",
    "train": "train a named model on a named data set",
    "kernels": "list the kernels: entry, backend, variant, file and line",
    "warmup": "compile the kernels ahead of their first use, and show how far it is",
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


# ------------------------------------------------------------------------------------------------------------- train


def _train_part(parser: argparse.ArgumentParser) -> None:
    from gpunet.train import recipes

    parser.add_argument("--model", choices=recipes.MODELS, help=f"default {recipes.MODEL}")
    parser.add_argument("--data", choices=recipes.DATA, help=f"default {recipes.DATASET}")
    parser.add_argument("--epochs", type=at_least(int, 1), metavar="N", help="passes over the training images in all")
    parser.add_argument("--batch-size", type=at_least(int, 1), metavar="N", help="images a step")
    parser.add_argument("--optimizer", choices=recipes.OPTIMIZERS, help="update rule")
    parser.add_argument("--lr", type=at_least(float, 0), metavar="X", help="learning rate")
    parser.add_argument("--weight-decay", type=at_least(float, 0), metavar="X", help="weight decay of the optimiser")
    parser.add_argument("--limit", type=at_least(int, 1), metavar="N", help="use the first N images of each part")
    parser.add_argument("--save", metavar="FILE", help="write a checkpoint after each epoch")
    parser.add_argument("--resume", metavar="FILE", help="go on from a checkpoint, with its settings, up to --epochs")
    parser.epilog = f"What is not given comes from the model's recipe. {recipes.told()}"
    parser.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    from gpunet.train import recipes
    from gpunet.train.progress import values_text

    given = {name: getattr(args, name) for name in recipes.SETTINGS if getattr(args, name, None) is not None}
    run = recipes.Run(given, save=args.save, resume=args.resume)
    if not silent(args):
        sys.stdout.write(f"{run.title()}\n")
        sys.stdout.flush()
    result = run.train(verbose=0 if silent(args) else 1)
    if not silent(args):
        sys.stdout.write(f"test  {values_text(result['test'])}\n")
    write_json(args, result)
    if result["stopped"]:
        sys.stderr.write(f"gpunet: error: train: {result['stopped']}; try a lower --lr\n")
        return 1
    return 0


PARTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "info": _info_part,
    "compare": _compare_part,
    "check": kernels.check_part,
    "bench": bench.bench_part,
    "report": report.report_part,
    "train": _train_part,
    "kernels": kernels.kernels_part,
    "warmup": warmup.warmup_part,
}
