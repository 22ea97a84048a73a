"""The command ``gpunet train``: a named model on a named data set, from options or from a file of them."""

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

import gpunet as gn
from gpunet.cli import settings_file
from gpunet.cli.tools import UsageError, silent, write_json
from gpunet.errors import ArgumentError, BackendUnavailableError, GpunetError

#: what else a run can be told, apart from its settings: files
FILES = {
    "save": "write a checkpoint after each epoch; `gpunet predict --model FILE` reads it",
    "resume": "go on from a checkpoint with its settings, up to --epochs, and write it on unless --save says where",
    "curves": "draw loss and accuracy at the end, as png, svg or pdf; without it a png beside the file of --save or "
    "--resume, and with none of the three nothing",
    "csv": "write a line for each epoch",
}
INSTALL = "pip install 'gpunet[plot]'"
COMMON = ("seed", "device")  # options that every command has


def train_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    from gpunet.train import recipes

    for name, option in recipes.OPTIONS.items():
        if name in COMMON:
            continue
        flag, told = f"--{recipes.shown(name)}", option.told.replace("%", "%%")
        if option.choices:
            kind: dict[str, Any] = {"choices": option.choices}
        else:
            kind = {"type": _reader(name), "metavar": {int: "N", float: "X", str: "TEXT"}[option.kind]}
        parser.add_argument(flag, help=told, **kind)
    for name, told in FILES.items():
        parser.add_argument(f"--{name}", metavar="FILE", help=told)
    told = "options from a TOML file, one `name = value` a line; those given here win"
    parser.add_argument("--config", metavar="FILE", help=told)
    told = "print every setting as such a file, and train nothing"
    parser.add_argument("--print-config", action="store_true", help=told)
    rates = ", ".join(f"{name} {rule.lr:g}" for name, rule in recipes.OPTIMIZERS.items())
    parser.epilog = (
        f"What is not given comes from the model's recipe. {recipes.told()}. "
        f"Another update rule than the recipe's brings its own rate: {rates}."
    )
    parser.set_defaults(run=train)


def _reader(name: str) -> Any:
    """Text to the value of an option, or argparse's error."""
    from gpunet.train import recipes

    option = recipes.OPTIONS[name]

    def read(text: str) -> Any:
        try:
            return recipes.check(name, option.kind(text))
        except ValueError as error:  # ArgumentError is one too
            told = str(error).removeprefix("train: ") if option.kind is str else None
            raise argparse.ArgumentTypeError(told or f"must be {recipes.span(option)}, got {text!r}") from None

    return read


def train(args: argparse.Namespace) -> int:
    """Trains, and says how the test images are judged; 1 when the run diverged, 130 when it was interrupted."""
    from gpunet.train.recipes import OPTIONS
    from gpunet.train.runs import Run, settings_of

    told = _told(args)
    given = {name: value for name, value in told.items() if name in OPTIONS}
    if args.print_config:
        files = {name: told[name] for name in FILES if name in told and name != "resume"}
        head = f"# gpunet {gn.__version__}: `gpunet train --config FILE` repeats this run"
        sys.stdout.write(settings_file.text({**settings_of(given, told.get("resume")), **files}, head))
        return 0
    picture = _picture(args, told)
    run = Run(given, save=told.get("save"), resume=told.get("resume"), csv=told.get("csv"))
    if not silent(args):
        sys.stdout.write(f"{run.title()}\n")
        sys.stdout.flush()
    try:
        result = run.train(verbose=0 if silent(args) else 1)
    except KeyboardInterrupt:
        sys.stderr.write(f"gpunet: interrupted; {_how_to_go_on(run)}\n")
        return 130
    except MemoryError:
        got = f"{run.loader.batch_size:,} images"
        need = "the images of a step, and what each layer makes of them, must fit into memory"
        raise GpunetError(f"train: {need}, got {got}; lower --batch-size, or take sgd in place of gd") from None
    except BrokenPipeError:
        raise
    except OSError as error:  # the disk is full, or the folder has gone
        raise GpunetError(f"train: {error}; {_how_to_go_on(run)}") from error
    return _ended(args, run, result, picture)


def _told(args: argparse.Namespace) -> dict[str, Any]:
    """Settings and files by name: those of the file of options, and over them those of the command line."""
    from gpunet.train import recipes

    names = [*recipes.OPTIONS, *FILES]
    told = {} if args.config is None else settings_file.read(args.config, names)
    for name, value in told.items():
        try:
            if name in recipes.OPTIONS:
                told[name] = recipes.check(name, value)
            elif not isinstance(value, str):
                raise ArgumentError(f"train: {name} must be the name of a file, got {value!r}")
        except ArgumentError as error:
            raise UsageError(f"{error}; in config {args.config!r}") from None
    told |= {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    files = [Path(told[name]).resolve() for name in FILES if name in told and name != "resume"]
    if len(set(files)) < len(files):
        raise UsageError(f"train: save, curves and csv must be different files, got {', '.join(map(str, files))}")
    return told


def _picture(args: argparse.Namespace, told: dict[str, Any]) -> Path | None:
    """Where the curves are drawn, or None where nobody wants them or nothing can draw."""
    asked, beside = told.get("curves"), told.get("save") or told.get("resume")
    able = importlib.util.find_spec("matplotlib") is not None
    if asked is not None:
        if not able:
            raise BackendUnavailableError(f"train: matplotlib must be installed for curves, got none; {INSTALL}")
        from gpunet.plot.canvas import need_path

        need_path("train: curves", asked)
        return Path(asked)
    if beside is None:
        return None
    if not able:
        if not args.quiet:
            sys.stderr.write(f"gpunet: note: no curves are drawn without matplotlib; {INSTALL}\n")
        return None
    picture = Path(beside).with_suffix(".png")
    return None if picture == Path(beside) else picture


def _how_to_go_on(run: Any) -> str:
    """What is kept of a run that ended in the middle, in words."""
    if run.save is None:
        return "nothing is kept of it without --save FILE"
    if run.finished:
        return f"{run.save} holds all of it but the test"
    if not run.kept:
        return "no epoch was done, so nothing is kept"
    total, file = run.settings["epochs"], run.save if run.begun else run.resume
    words = ["gpunet", "train", "--resume", str(file)]
    if not run.begun:  # the file knows nothing of what this run was told
        words += ["--epochs", str(total)] + (["--save", str(run.save)] if str(run.save) != str(file) else [])
    if run.kept == total:
        return f"{file} holds all epochs; put the best weights in and test them with: {shlex.join(words)}"
    return f"{file} holds {run.kept} of {total} epochs; go on with: {shlex.join(words)}"


def _ended(args: argparse.Namespace, run: Any, result: dict[str, Any], picture: Path | None) -> int:
    """Shows and writes the result; the exit status."""
    from gpunet.train.progress import values_text

    if not silent(args):
        if result["stopped"] and not result["diverged"]:
            sys.stdout.write(f"ended early: {result['stopped']}\n")
        if result["best_epoch"] is not None:
            by = result["settings"]["monitor"]
            sys.stdout.write(f"the weights are those of epoch {result['best_epoch'] + 1}, the best by {by}\n")
        sys.stdout.write(f"test  {values_text(result['test'])}\n")
    write_json(args, result)
    if picture is not None and result["epochs"]:
        from gpunet import plot

        settings = result["settings"]
        plot.curves(run.history, picture, title=f"{settings['model']} on {settings['data']}")
        if not silent(args):
            sys.stdout.write(f"{picture} written\n")
    elif run.save is None and not silent(args):
        sys.stdout.write("no curves drawn; --curves FILE.png draws them, --save FILE does so beside the model\n")
    if result["diverged"]:
        sys.stderr.write(f"gpunet: error: train: {result['stopped']}; try a lower --lr\n")
        return 1
    return 0
