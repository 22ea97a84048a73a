"""The recorded table of what each kernel takes of a GPU, kernels/common/resources.csv.

It is read here, and written by ``python -m gpunet.measure.resources``.
"""

import csv
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path

from gpunet.cuda import source
from gpunet.cuda.compile import Resources

NUMBERS = tuple(each.name for each in fields(Resources))
COLUMNS = ("file", "real", "constants", "kernel", "architecture", *NUMBERS)
VERSION = "# NVRTC "  # what the first line begins with


def told(constants: Mapping[str, object]) -> str:
    """Constants as the table writes them: ``TILE=16``, sorted, without ``real``, which has a column of its own."""
    return " ".join(f"{name}={value}" for name, value in sorted(constants.items()) if name != "real")


def recorded(path: Path | None = None) -> tuple[str, dict[tuple[str, str, str, str], Resources]]:
    """NVRTC's version, and the resources by (kernel, real, constants, architecture)."""
    with (path or source.table()).open(newline="") as file:
        version = file.readline().removeprefix(VERSION).strip()
        rows = list(csv.DictReader(file))
    found = {}
    for row in rows:
        key = row["kernel"], row["real"], row["constants"], row["architecture"]
        found[key] = Resources(*(int(row[name]) for name in NUMBERS))
    return version, found


def is_numba(key: tuple[str, str, str, str]) -> bool:
    """Whether a row's kernel is one of Numba-CUDA: they are named after their launcher, with ``_kernel``."""
    return "_kernel" in key[0]


@cache
def _shipped() -> dict[tuple[str, str, str, str], Resources]:
    return recorded()[1] if source.table().is_file() else {}


def resources(kernel: str, defines: Mapping[str, str], arch: int) -> Resources | None:
    """What a shipped kernel takes on ``sm_<arch / 10>``, or None where the table does not know it."""
    return _shipped().get((kernel, defines.get("real", ""), told(defines), f"sm_{arch // 10}"))
