"""A ``.cu`` file as text: where it lies, what it includes, and the parameters of its kernels."""

import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from gpunet.errors import KernelError

_FLOATS = {"float": ("f4", 1), "double": ("f8", 1), "half": ("f2", 1), "__half": ("f2", 1), "__half2": ("f2", 2)}
_INTEGERS = {
    "bool": "b1", "char": "i1", "signed char": "i1", "unsigned char": "u1", "short": "i2", "unsigned short": "u2",
    "int": "i4", "unsigned": "u4", "unsigned int": "u4", "long long": "i8", "unsigned long long": "u8",
    "int8_t": "i1", "uint8_t": "u1", "int16_t": "i2", "uint16_t": "u2", "int32_t": "i4", "uint32_t": "u4",
    "int64_t": "i8", "uint64_t": "u8", "size_t": "u8",
}  # fmt: skip
_VECTORS = {
    f"{name}{n}": (code, n)
    for name, code in (
        ("float", "f4"),
        ("double", "f8"),
        ("int", "i4"),
        ("uint", "u4"),
        ("char", "i1"),
        ("uchar", "u1"),
    )
    for n in (2, 4)
}
#: type in a kernel's parameter list -> NumPy code of its scalar, and how many of them it holds
TYPES = {**_FLOATS, **{name: (code, 1) for name, code in _INTEGERS.items()}, **_VECTORS}

_BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
_KERNEL = re.compile(rf'extern\s+"C"\s+{_BOUNDS}__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(([^)]*)\)')
_BOUND = re.compile(r"__launch_bounds__\s*\(([^,)]*)")
_INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel."""

    name: str
    text: str
    """As the source spells it."""
    dtype: np.dtype
    """Of one scalar; a float4 has float32."""
    lanes: int
    """Scalars in one element: 4 for float4."""
    pointer: bool
    const: bool
    """A pointer to what the kernel only reads."""
    restrict: bool


@dataclass(frozen=True)
class Signature:
    """A kernel's name, parameters, the line it begins on, and what ``__launch_bounds__`` says."""

    name: str
    parameters: tuple[Parameter, ...]
    line: int
    bound: str = ""
    """Most threads of a block, as the source spells it: ``256``, or a constant's name; empty where it says nothing."""


def blank_comments(text: str) -> str:
    """``text`` with comments and string contents blanked; every line keeps its number."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?!C")(?:\\.|[^"\\\n])*"', re.DOTALL)
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), text)


class Source:
    """A kernel file with the constants it is compiled with.

    Args:
        path: the ``.cu`` file.
        defines: macro -> value, what a compiler would get as ``-D``.
    """

    def __init__(self, path: Path, defines: Mapping[str, object] | None = None):
        self.path = path
        self.defines = {name: _spelled(value) for name, value in (defines or {}).items()}
        if not path.is_file():
            raise KernelError(f"cuda: there is no kernel file {path.name!r} in {path.parent}")
        self.text = path.read_text()

    @property
    def includes(self) -> list[Path]:
        """Folders that ``#include "..."`` is looked up in, after the file's own."""
        return [self.path.parent, *_kernel_folders()]

    @cached_property
    def included(self) -> dict[str, str]:
        """Every file this one includes, directly or not, with its text; part of the name in the cache."""
        found: dict[str, str] = {}
        queue = _INCLUDE.findall(self.text)
        while queue:
            name = queue.pop()
            paths = [each / name for each in self.includes if (each / name).is_file()]
            if paths and name not in found:
                found[name] = paths[0].read_text()
                queue += _INCLUDE.findall(found[name])
        return found

    @cached_property
    def signatures(self) -> dict[str, Signature]:
        """Every ``extern "C" __global__`` kernel of the file."""
        plain = blank_comments(self.text)
        found = {}
        for match in _KERNEL.finditer(plain):
            name, inside = match.groups()
            pieces = [each for each in (part.strip() for part in inside.split(",")) if each and each != "void"]
            line = plain.count("\n", 0, match.start(1)) + 1
            bound = _BOUND.search(match.group())
            parameters = tuple(self._parameter(name, each) for each in pieces)
            found[name] = Signature(name, parameters, line, bound.group(1).strip() if bound else "")
        return found

    def _parameter(self, kernel: str, text: str) -> Parameter:
        words = re.findall(r"\w+|\*", text)
        name = words.pop()
        restrict = any(each in ("__restrict__", "__restrict", "restrict") for each in words)
        pointer = "*" in words
        before = words[: words.index("*")] if pointer else words
        kept = [each for each in before if each not in ("const", "volatile", "__grid_constant__")]
        spelled = " ".join(str(self.defines.get(each, each)) for each in kept)
        if spelled not in TYPES:
            told = f"{spelled!r} in {text!r}"
            raise KernelError(f"{kernel}: type of parameter {name!r} must be one of {', '.join(TYPES)}, got {told}")
        code, lanes = TYPES[spelled]
        return Parameter(
            name, " ".join(text.split()), np.dtype(code), lanes, pointer, pointer and "const" in before, restrict
        )


def kernel_names(text: str) -> list[str]:
    """Names of the ``extern "C" __global__`` kernels of a text, in its order."""
    return [match[1] for match in _KERNEL.finditer(blank_comments(text))]


def _spelled(value: object) -> str:
    """A constant as CUDA C++ writes it; a dtype by its type's name there."""
    if isinstance(value, np.dtype):
        names = [name for name, (code, lanes) in TYPES.items() if lanes == 1 and np.dtype(code) == value]
        if not names:
            raise KernelError(f"cuda: a constant's dtype must have a type in CUDA C++, got {value}; cast the array")
        return names[0]
    return str(int(value)) if isinstance(value, bool) else str(value)


def _kernel_folders() -> list[Path]:
    """The folders that hold the ops' folders, so that ``common/common.cuh`` is found from each."""
    package = sys.modules.get("gpunet.kernels")
    if package is None:
        spec = importlib.util.find_spec("gpunet")
        home = Path((spec and spec.origin) or __file__).resolve().parent
        places = [home / "kernels", home.parent / "kernels"]
    else:
        places = [Path(each) for each in package.__path__]
    return [each for each in places if (each / "common").is_dir()]


def table() -> Path:
    """Where the recorded table of the kernels' resources lies, whether or not there is one: beside the ops' folders."""
    return _kernel_folders()[0] / "common" / "resources.csv"


def find(name: str) -> Path:
    """The file of ``load(name)``.

    ``kernels/<name>/<name>.cu`` for an op, ``kernels/<op>/<file>.cu`` for "<op>/<file>", else ``name`` as a path
    ending in ``.cu``.
    """
    if name.endswith(".cu"):
        return Path(name)
    op, _, file = name.partition("/")
    places = [each / op / f"{file or op}.cu" for each in _kernel_folders()]
    for path in places:
        if path.is_file():
            return path
    folders = " or ".join(str(each.parent) for each in places)
    raise KernelError(f"cuda: op {op!r} has no file {file or op}.cu in {folders}")
