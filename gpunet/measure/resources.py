"""What the kernels take of a GPU: registers, shared memory, stack and spills, for every architecture.

``python -m gpunet.measure.resources`` compiles everything that the launchers load, CUDA C++ and Numba-CUDA, and writes
the table kernels/common/resources.csv. Tests compile again and compare. The emulator reads the table, so that a launch
with more registers than a GPU has is refused without one.
"""

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunet import dispatch
from gpunet.cuda import compile as nvrtc
from gpunet.cuda import source, table
from gpunet.cuda.compile import ARCHITECTURES, Resources

REALS = ("float", "double")
NUMBA_ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")


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

    @property
    def told(self) -> str:
        """The constants as the table writes them."""
        return table.told(dict(self.constants))

    def __str__(self) -> str:
        return " ".join(filter(None, [self.name, self.real, self.told]))


class Signature(NamedTuple):
    """One kernel of Numba-CUDA with the types of its arguments: what a launcher compiles for some arrays."""

    name: str
    """The file: "relu_numba_cuda"."""
    kernel: str
    types: tuple[str, ...]
    entry: str
    variant: str

    @property
    def real(self) -> str:
        """The floating-point type of its arrays, in the table's words."""
        return "double" if any(each.startswith("float64") for each in self.types) else "float"

    @property
    def told(self) -> str:
        """The types as the table's constants."""
        return " ".join(self.types)

    def __str__(self) -> str:
        return f"{self.kernel} {self.told}"


class Row(NamedTuple):
    """One kernel of one build on one architecture."""

    build: Build | Signature
    kernel: str
    arch: str
    resources: Resources

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What :func:`gpunet.cuda.table.recorded` finds it by."""
        return self.kernel, self.build.real, self.build.told, self.arch

    @property
    def line(self) -> tuple[Any, ...]:
        """The cells of the table."""
        return (self.build.name, *self.key[1:3], self.kernel, self.arch, *astuple(self.resources))


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


def compiled(build: Build, arch: str) -> list[Row]:
    """The rows of one build on one architecture, compiled now or found in the cache.

    Raises:
        BackendUnavailableError: NVRTC is not installed.
        CompileError: it refuses the text.
    """
    found = nvrtc.compile_cubin(build.source, arch)
    return [Row(build, kernel, arch, each) for kernel, each in sorted(found.kernels.items())]


def signatures(op: str) -> list[Signature]:
    """Every kernel of Numba-CUDA with every types that the op's proof sizes call it with; nothing is compiled.

    Args:
        op: whose suite makes the calls.

    Raises:
        BackendUnavailableError: numba-cuda is not installed.
    """
    from gpunet.cuda import jit  # imports Numba

    found: dict[Signature, Any] = {}
    for case, rung in _calls_of_numba(op):
        arrays = tuple(_copy(each) for each in case.call.arrays)
        with jit.recording() as launches, np.errstate(all="ignore"):
            rung.function(*arrays, **case.call.params)
        for each in launches:
            name = Path(rung.file).stem
            found[Signature(name, each.kernel.name, each.types, rung.entry, rung.variant)] = each.kernel
    _kernels.update({(each.kernel, each.types): kernel for each, kernel in found.items()})
    return sorted(found)


_kernels: dict[tuple[str, tuple[str, ...]], Any] = {}  # what signatures() found, to be compiled


def _copy(array: Any) -> Any:
    return array if array is None else array.copy()


def _calls_of_numba(op: str) -> Iterator[tuple[Any, Any]]:
    from gpunet.measure import calls

    for size in calls.suites.sizes(op, ("proof",)):
        for dtype in ("float32", "float64"):
            for case in calls.capture(calls.suites.load(op), size, dtype, 0, second=True):
                for rung in dispatch.variants(case.entry, "numba_cuda"):
                    if rung.refusal(case.call.arrays, case.call.params) is None:
                        yield case, rung


def ops_of_numba() -> tuple[str, ...]:
    """The ops whose suites call kernels of Numba-CUDA."""
    from gpunet.measure import calls

    return calls.suites.names()


def compiled_numba(signature: Signature, arch: str) -> Row:
    """The row of one kernel of Numba-CUDA, compiled now or found in the cache.

    Raises:
        BackendUnavailableError: NVVM or nvJitLink is not installed.
        CompileError: Numba refuses the kernel.
    """
    cubin = _kernels[signature.kernel, signature.types].cubin(signature.types, arch)
    (taken,) = cubin.kernels.values()
    return Row(signature, signature.kernel, arch, taken)


def _compiled(job: tuple[Build | str, str]) -> list[Row]:
    what, arch = job
    if isinstance(what, Build):
        return compiled(what, arch)
    return [compiled_numba(each, arch) for each in signatures(what)]


def record(path: Path, workers: int | None = None) -> int:
    """Compiles everything and writes the table.

    Args:
        path: of the table.
        workers: processes at once; None for one a CPU.

    Returns:
        The number of rows.
    """
    jobs: list[tuple[Build | str, str]] = [(build, arch) for build in builds() for arch in ARCHITECTURES]
    jobs += [(op, arch) for op in ops_of_numba() for arch in NUMBA_ARCHITECTURES]
    # Spawned, not forked: a fork would share NVRTC's state.
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        rows = list({row.key: row for rows in pool.map(_compiled, jobs) for row in rows}.values())
    order = [*ARCHITECTURES]
    rows.sort(
        key=lambda row: (row.build.name, REALS.index(row.build.real), row.build.told, row.kernel, order.index(row.arch))
    )
    with path.open("w", newline="") as file:
        file.write(f"{table.VERSION}{nvrtc.version()}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(table.COLUMNS)
        writer.writerows(row.line for row in rows)
    return len(rows)


def main(arguments: Iterable[str] = ()) -> int:
    """Writes the table to where it is recorded, or to the path given."""
    path = Path(next(iter(arguments), source.table()))
    count = record(path)
    print(f"{count} rows, NVRTC {nvrtc.version()}: {path}")  # noqa: T201 the command's output
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
