"""The command ``gpunet examples``: the programs that come with the package, to read and to run."""

import argparse
import ast
import re
import sys
from pathlib import Path

from gpunet.cli.tools import UsageError, silent, write_json

FOLDER = Path(__file__).parents[1] / "examples"


def examples_part(parser: argparse.ArgumentParser) -> None:
    """Its own arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="print where its source lies")
    parser.epilog = "To read one: less $(gpunet examples NAME). To run one: python -m gpunet.examples.NAME"
    parser.set_defaults(run=examples)


def examples(args: argparse.Namespace) -> int:
    """Lists them, or prints the path of each that was named."""
    known = {file.stem: file for file in sorted(FOLDER.glob("*.py")) if not file.stem.startswith("_")}
    for name in args.names:
        if name not in known:
            raise UsageError(f"examples: NAME must be one of {', '.join(known)}, got {name!r}")
    chosen = {name: known[name] for name in args.names or known}
    if not silent(args):
        lines = [str(file) for file in chosen.values()] if args.names else _listed(chosen)
        sys.stdout.write("\n".join(lines) + "\n")
    told = [
        {"name": name, "purpose": purpose(file), "run": f"python -m gpunet.examples.{name}", "file": str(file)}
        for name, file in chosen.items()
    ]
    write_json(args, told)
    return 0


def purpose(file: Path) -> str:
    """The first sentence of a module's docstring, without importing it: some need a GPU."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


def _listed(chosen: dict[str, Path]) -> list[str]:
    wide = max(map(len, chosen))
    lines = [f"{name:<{wide}}  {purpose(file)}" for name, file in chosen.items()]
    return [*lines, "", "run one:  python -m gpunet.examples.NAME", "read one: less $(gpunet examples NAME)"]
