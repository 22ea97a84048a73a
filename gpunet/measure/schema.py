"""The written form of report.json as a JSON schema, made from the records of :mod:`gpunet.measure.rows`.

The file report.schema.json beside this one is what ``python -m gpunet.measure.schema`` prints. It changes with the
records; their VERSION changes when a field gets another meaning.
"""

import json
import re
import sys
import types
import typing
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import getsource
from typing import Any

from gpunet.measure import rows

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": ["number", "null"]},  # null for a number that is not finite
    type(None): {"type": "null"},
    Any: {},
}


def schema() -> dict[str, Any]:
    """The schema of a whole report.

    Example:
        >>> from gpunet.measure import schema
        >>> schema.schema()["properties"]["version"]
        {'const': 1}
    """
    found: dict[str, Any] = {}
    report = _record(rows.Report, found)
    head = {
        "format": {"const": rows.FORMAT},
        "version": {"const": rows.VERSION},
        "failed": {"type": "array", "items": {"type": "string"}},
    }
    return {
        "$schema": DIALECT,
        "title": "gpunet report",
        "description": "What gpunet compare and gpunet bench write. Times are seconds, sizes bytes, rates per second.",
        "type": "object",
        "required": [*head, *report["properties"]],  # a report is written whole
        "properties": {**head, **report["properties"]},
        "$defs": dict(sorted(found.items())),
    }


def _record(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The schema of one record; those it holds go to ``found``."""
    hints, told = typing.get_type_hints(kind), _descriptions(kind)
    properties = {}
    for each in fields(kind):
        properties[each.name] = _type(hints[each.name], found)
        if each.name in told:
            properties[each.name] = {**properties[each.name], "description": told[each.name]}
    required = [each.name for each in fields(kind) if _is_required(each)]
    return {"type": "object", "description": _one_line(kind.__doc__), "required": required, "properties": properties}


def _is_required(field: Field) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _descriptions(kind: Any) -> dict[str, str]:
    """Field -> the string under it in the source."""
    pattern = re.compile(r'^    (\w+): [^\n]*\n    """(.*?)"""', re.MULTILINE | re.DOTALL)
    return {name: _one_line(text) for name, text in pattern.findall(getsource(kind))}


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _type(hint: Any, found: dict[str, Any]) -> dict[str, Any]:
    if hint in PLAIN:
        return PLAIN[hint]
    if is_dataclass(hint):
        name = hint.__name__  # type: ignore[union-attr]
        if name not in found:
            found[name] = _record(hint, found)
        return {"$ref": f"#/$defs/{name}"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return {"type": "array", "items": _type(arguments[0], found)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], found)}
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type(each, found) for each in arguments]}
    raise TypeError(f"schema: a field must have a plain type, got {hint}; add it to PLAIN")


def text() -> str:
    """What stands in report.schema.json."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
