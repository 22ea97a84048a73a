"""What the commands share: kinds of arguments, and where output goes."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpunet import config, devices
from gpunet.errors import ArgumentError


class UsageError(ArgumentError):
    """Wrong usage that shows only after the arguments were parsed; exit status 2."""


def device_name(text: str) -> str:
    """The name of a device, whether it can be used here or not."""
    kind, colon, number = text.partition(":")
    if kind not in (*devices.KINDS, "auto") or (colon and not (kind == "cuda" and number.isdigit())):
        raise argparse.ArgumentTypeError(f"must be one of auto, cpu, cuda, cuda:N, sim, got {text!r}")
    return text


def seed(text: str) -> int:
    """An integer from 0 to 2**64 - 1."""
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**64:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**64 - 1, got {text!r}")
    return int(text)


def at_least(kind: type, low: float) -> Callable[[str], Any]:
    """A reader of finite numbers of that kind, no smaller than ``low``."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value < float("inf"):
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {what} of at least {low}, got {text!r}")
        return value

    return read


def need_ops(command: str, ops: Sequence[str], known: Sequence[str], more: str = "") -> None:
    """Raises :class:`UsageError` for a name that is no op's; ``more`` says what else it may be."""
    for name in ops:
        if name not in known:
            raise UsageError(f"{command}: OP must be one of {', '.join(known)}{more}, got {name!r}")


def console(quiet: bool = False) -> Any:
    """A rich console, which honours NO_COLOR; one without a terminal is wide enough for the tables."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:  # rich's own ends the program with status 1
            raise BrokenPipeError

    made = Screen(highlight=False, quiet=quiet)
    return made if made.is_terminal else Screen(width=140, highlight=False, quiet=quiet)


def silent(args: argparse.Namespace) -> bool:
    """Whether nothing for people goes to the standard output: asked for, or JSON goes there."""
    return args.quiet or args.json == "-"


def write_json(args: argparse.Namespace, content: Any) -> None:
    """Writes the result where ``--json`` says, if it was given."""
    if args.json is None:
        return
    text = json.dumps(content, indent=1) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
        return
    from gpunet.measure.rows import write_text

    write_text(Path(args.json), text)


def session(args: argparse.Namespace, part: str, ops: Sequence[str] | None, **more: Any) -> Any:
    """A run of one part without a report of its own, on the device that was asked for."""
    from gpunet.measure import session as sessions

    options = sessions.Options(
        device=args.device, seed=config.settings.seed, out=None, parts=(part,), ops=tuple(ops) if ops else None,
        quiet=silent(args), budget=1e9, **more,
    )  # fmt: skip
    now = sessions.start(options)
    now.screen = console(silent(args))
    return now
