"""CUDA C++ to machine code with NVRTC, with the project's own options. Needs no GPU and no driver.

CuPy's own way to NVRTC always flushes denormals and cannot name architectures such as sm_90a, so kernels are compiled
here and handed to it as cubin files.
"""

import importlib
import io
import json
import re
import sys
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpunet.config import settings
from gpunet.cuda import store
from gpunet.cuda.source import Source
from gpunet.errors import ArgumentError, BackendUnavailableError, CompileError

#: what kernels are compiled for in tests; NVRTC 13 knows nothing below sm_75
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_120")

INSTALL = 'pip install "cuda-core>=1,<2" "cuda-bindings==13.*" "cuda-toolkit[nvrtc,cudart,crt]==13.*"'


@dataclass(frozen=True)
class Resources:
    """What one kernel takes, by the assembler's own account."""

    registers: int
    """A thread's."""
    shared: int = 0
    """Bytes of static shared memory a block."""
    stack: int = 0
    """Bytes a thread: local arrays that did not fit registers."""
    spill_stores: int = 0
    """Bytes a thread that are stored only because registers ran out."""
    spill_loads: int = 0
    """Bytes a thread that are loaded for the same reason."""

    @property
    def most_threads(self) -> int:
        """Threads a block can have with 65536 registers, in whole warps: registers come in units of 8 a thread."""
        per_thread = -(-max(self.registers, 1) // 8) * 8
        return min(1024, 65536 // (32 * per_thread) * 32)


@dataclass(frozen=True)
class Cubin:
    """A compiled file: machine code on disk, and the resources of each kernel."""

    path: Path
    arch: str
    kernels: dict[str, Resources]


@cache
def why_not() -> str | None:
    """None when NVRTC can compile here, else the reason and the remedy."""
    try:
        _nvrtc()
    except (ImportError, RuntimeError) as error:  # a wheel without its library raises RuntimeError
        return f"NVRTC does not load ({type(error).__name__}: {error}); {INSTALL}"
    return None


@cache
def _nvrtc() -> tuple[str, Any, Any]:
    """NVRTC's version and the two classes of cuda.core that drive it."""
    core = importlib.import_module("cuda.core")
    if not hasattr(core, "Program"):  # before 1.0
        core = importlib.import_module("cuda.core.experimental")
    _, major, minor = importlib.import_module("cuda.bindings.nvrtc").nvrtcVersion()
    return f"{major}.{minor}", core.Program, core.ProgramOptions


def version() -> str:
    """NVRTC's version.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    reason = why_not()
    if reason:
        raise BackendUnavailableError(f"cuda: {reason}")
    return _nvrtc()[0]


@cache
def _toolkit_headers() -> tuple[str, ...]:
    """Folders of cuda_fp16.h and its like."""
    found = importlib.import_module("cuda.pathfinder").find_nvidia_header_directory("cudart")
    return (found,) if found else ()


def compile_cubin(source: Source, arch: str, fma: bool = True) -> Cubin:
    """The machine code of a kernel file, from the cache or compiled now.

    Args:
        source: the file with its constants.
        arch: "sm_75" to "sm_120", or with the architecture's own instructions "sm_90a".
        fma: whether a product and a sum may become one instruction with one rounding.

    Raises:
        BackendUnavailableError: NVRTC is not installed.
        CompileError: NVRTC refuses the text; the message has its lines.
    """
    nvrtc = version()
    if not re.fullmatch(r"sm_\d+[af]?", arch):
        raise ArgumentError(f"cuda: arch must be sm_<number>, such as {', '.join(ARCHITECTURES)}, got {arch!r}")
    options = _options(source, arch, fma)
    name = store.key(nvrtc, sorted(options.items()), source.text, sorted(source.included.items()))
    path = store.folder("cubin") / f"{source.path.stem}-{arch}-{name}.cubin"
    table = path.with_suffix(".json")

    def make(target: Path) -> None:
        code, log = _compile(source, options)
        told = json.dumps({kernel: asdict(each) for kernel, each in parse_resources(log).items()})
        # First the table, then the code: whoever finds the code finds the table too.
        table.unlink(missing_ok=True)
        store.keep(table, lambda temporary: temporary.write_text(told))
        target.write_bytes(code)

    store.keep(path, make)
    rows = json.loads(table.read_text())
    return Cubin(path, arch, {kernel: Resources(**row) for kernel, row in rows.items()})


def _options(source: Source, arch: str, fma: bool) -> dict[str, Any]:
    """What a file is compiled with, under cuda.core's names; each of them is part of the cubin's name in the cache."""
    return {
        "name": source.path.name,
        "arch": arch,
        "std": "c++20",
        "fma": fma,
        "ftz": False,
        "prec_div": True,
        "prec_sqrt": True,
        "lineinfo": True,
        "include_path": [*map(str, source.includes), *_toolkit_headers()],
        "define_macro": sorted(source.defines.items()) or None,
        "ptxas_options": ["-v"],
    }


def _compile(source: Source, options: dict[str, Any]) -> tuple[bytes, str]:
    _, program, core_options = _nvrtc()
    asked, arch = core_options(**options), options["arch"]
    if settings.debug >= 3:
        print(f"gpunet: compiling {source.path.name} for {arch}: {asked}", file=sys.stderr)  # noqa: T201 asked for
    if settings.debug >= 4:
        print(source.text, file=sys.stderr)  # noqa: T201 asked for
    log = io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notes on an older driver; what matters raises
            code = program(source.text, "c++", asked).compile("cubin", logs=log).code
    except Exception as error:  # cuda.core has its own error types
        raise CompileError(f"cuda: {source.path.name} must compile for {arch}, got these errors:\n{error}") from error
    return bytes(code), log.getvalue()


def parse_resources(log: str) -> dict[str, Resources]:
    """The resources of every kernel in an assembler's verbose log."""
    found = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        name = part.partition("'")[0]

        def number(pattern: str, part: str = part) -> int:
            match = re.search(pattern, part)
            return int(match.group(1)) if match else 0

        found[name] = Resources(
            registers=number(r"Used (\d+) registers"),
            shared=number(r"(\d+) bytes smem"),
            stack=number(r"(\d+) bytes stack frame"),
            spill_stores=number(r"(\d+) bytes spill stores"),
            spill_loads=number(r"(\d+) bytes spill loads"),
        )
    return found
