"""Files of settings for ``gpunet train --config``: TOML with the names of the options."""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from gpunet.cli.tools import UsageError


def read(path: str, known: Iterable[str]) -> dict[str, Any]:
    """The settings in a TOML file, dashes in their names made underscores.

    Args:
        path: the file; no tables, one ``name = value`` a line.
        known: the names that there are, with underscores.

    Raises:
        UsageError: no TOML, or a name that is not known; the nearest one is named. FileNotFoundError as usual.
    """
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"train: config {path!r} must be a TOML file, got: {error}") from None
    names, found = {each.replace("_", "-"): each for each in known}, {}
    for written, value in content.items():
        dashed = written.replace("_", "-")
        if dashed not in names:
            raise UsageError(f"train: config {path!r}: {_unknown(written, dashed, list(names))}")
        if names[dashed] in found:
            raise UsageError(f"train: config {path!r}: {dashed} must be set once, got it twice")
        found[names[dashed]] = value
    return found


def _unknown(written: str, dashed: str, names: list[str]) -> str:
    near = difflib.get_close_matches(dashed, names, 1)
    remedy = f"did you mean {near[0]}?" if near else f"the names are {', '.join(names)}"
    return f"a name must be that of an option, got {written!r}; {remedy}"


def text(settings: Mapping[str, Any], head: str = "") -> str:
    """TOML that :func:`read` gives back; settings of None are left out.

    Example:
        >>> print(text({"model": "mlp", "batch_size": 64, "lr": 0.001, "limit": None}, "# made today"), end="")
        # made today
        model = "mlp"
        batch-size = 64
        lr = 0.001
    """
    lines = [head] if head else []
    for name, value in settings.items():
        if value is not None:
            lines.append(f"{name.replace('_', '-')} = {_quoted(value) if isinstance(value, str) else repr(value)}")
    return "\n".join([*lines, ""])


def _quoted(value: str) -> str:
    # JSON's text is TOML's basic string but for one sign, which it leaves as it is and TOML does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
