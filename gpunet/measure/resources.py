"""What the CUDA C++ kernels take of a GPU: registers, shared memory, stack and spills, for every architecture.

The table is recorded in ``kernels/resources.csv`` by ``make resources``; tests compile again and compare.
"""

import sys
from collections.abc import Iterator
from typing import NamedTuple

from gpunet import dispatch
from gpunet.cuda import source

REALS = ("float", "double")


class Build(NamedTuple):
    """One way of compiling one kernel file."""

    name: str
    """As :func:`gpunet.cuda.load` takes it: "matmul", or "conv2d/winograd"."""
    real: str
    """The type that the file calls ``real``."""
    constants: tuple[tuple[str, object], ...]

    @property
    def source(self) -> source.Source:
        """The file with its constants."""
        return source.Source(source.find(self.name), {"real": self.real, **dict(self.constants)})

    def __str__(self) -> str:
        return " ".join([self.name, self.real, *(f"{name}={value}" for name, value in self.constants)])


def builds() -> list[Build]:
    """Every way in which a launcher compiles a file, from the BUILDS of each ``<op>_cupy.py``.

    BUILDS maps a file's name to its sets of constants: ``{"matmul": [{"TILE": 16}]}``. A set that is for one dtype
    alone says so: ``{"real": "double", "TILE": 16}``.
    """
    return list(_builds())


def _builds() -> Iterator[Build]:
    for op in dispatch.ops():
        for entry in dispatch.entries(op):
            dispatch.variants(entry, "cupy")
        module = sys.modules.get(f"gpunet.kernels.{op}.{op}_cupy")
        for name, ways in getattr(module, "BUILDS", {}).items():
            for way in ways:
                rest = tuple((key, value) for key, value in way.items() if key != "real")
                for real in [way["real"]] if "real" in way else REALS:
                    yield Build(name, real, rest)
