"""A ``.cu`` file into a shared library: the host's C++ compiler, the emulator's header and its runtime."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

from gpunet.cuda import store
from gpunet.cuda.guard import THREADS_LIMIT
from gpunet.cuda.source import Source, blank_comments
from gpunet.errors import BackendUnavailableError, CompileError

HERE = Path(__file__).parent
HEADERS = tuple(sorted(path.name for path in HERE.glob("*.h")))
RUNTIME = tuple(sorted(path.name for path in HERE.glob("*.cpp")))
COMPILERS = ("g++", "clang++")
INSTALL = "install g++ 11 or newer (Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++)"

_BASE = ("-std=c++20", "-g", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread")
# Every load and store is announced to the runtime. Structures stay whole, so that a float4 is one access of 16 bytes.
_WATCHED = (
    "-O1", "-fsanitize=thread", "-fsanitize=alignment,bounds,signed-integer-overflow,integer-divide-by-zero,shift",
    "-fsanitize-recover=all",
    "-Wno-unknown-pragmas", "-Werror=frame-larger-than=49152",  # what a stack of a thread has room for
)  # fmt: skip
_ONLY_GCC = ("-fno-tree-sra", "-fno-gnu-unique", "--param", "tsan-instrument-func-entry-exit=0")
_ONLY_CLANG = ("-mllvm", "-tsan-instrument-func-entry-exit=0")

_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+((?:(?:__align__|alignas)\s*\(\s*\d+\s*\)\s*)?)([\w\s]*?\w)\s+"
    r"((?:(?:__align__|alignas)\s*\(\s*\d+\s*\)\s*)?)(\w+)\s*\[\s*\]\s*;"
)


@cache
def compiler() -> tuple[str, str] | None:
    """Path and version of the C++ compiler, or None where there is none that knows C++20."""
    for name in COMPILERS:
        path = shutil.which(name)
        if path is None:
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        version = done.stdout.partition("\n")[0]
        number = re.search(r"(\d+)\.\d+\.\d+", version)
        if done.returncode == 0 and number and int(number.group(1)) >= (11 if name == "g++" else 14):
            return path, version
    return None


def _need_compiler() -> tuple[str, str]:
    found = compiler()
    if found is None:
        raise BackendUnavailableError(f"emulator: it compiles kernels with a C++20 compiler, got none; {INSTALL}")
    return found


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"emulator: {what} must compile as C++20, got these errors:\n{done.stderr.strip()}")


@cache
def runtime() -> Path:
    """The runtime as one object file, compiled once for each compiler."""
    path, version = _need_compiler()
    texts = [(HERE / name).read_text() for name in (*RUNTIME, "runtime.h")]
    flags = [*_BASE, "-O2"]

    def make(target: Path) -> None:
        units = "".join(f'#include "{HERE / name}"\n' for name in RUNTIME)
        unit = target.with_suffix(".cpp")
        unit.write_text(units)
        try:
            _run([path, *flags, "-c", str(unit), "-o", str(target)], "the runtime")
        finally:
            unit.unlink()

    return store.keep(store.folder("emulator") / f"runtime-{store.key(version, flags, HERE, *texts)}.o", make)


def prepared(source: Source) -> str:
    """The text that is compiled: the file's own, line for line, and one line a kernel that makes it callable.

    There stands its launch bound too: only the compiler knows what a constant's name is worth.
    """
    text = _DYNAMIC.sub(r"\2* const \4 = static_cast<\2*>(cuda_emulator_dynamic_shared());", source.text)
    calls = "\n".join(
        f"GPUNET_KERNEL({name}, {each.bound or THREADS_LIMIT})" for name, each in source.signatures.items()
    )
    # Constants come after the emulator's own header, which may use their names for something else.
    constants = "\n".join(f"#define {name} {value}" for name, value in source.defines.items())
    return f'{constants}\n#line 1 "{source.path.name}"\n{text}\n{calls}\n'


def dynamic_at_file_scope(source: Source) -> bool:
    """Whether an ``extern __shared__`` array stands outside every kernel, where its rewriting would not work."""
    plain = blank_comments(source.text)
    found = _DYNAMIC.search(plain)
    return bool(found) and plain.count("{", 0, found.start()) == plain.count("}", 0, found.start())


def build(source: Source, arch: int) -> Path:
    """The shared library of a kernel file, from the cache or compiled now.

    Raises:
        BackendUnavailableError: there is no C++ compiler.
        CompileError: the compiler refuses the text; its message names the lines of the ``.cu`` file.
    """
    path, version = _need_compiler()
    if dynamic_at_file_scope(source):
        raise CompileError(
            f"emulator: {source.path.name}: `extern __shared__` must be declared inside the kernel that uses it"
        )
    special = _ONLY_GCC if Path(path).name.startswith("g++") else _ONLY_CLANG
    flags = [*_BASE, *_WATCHED, *special, f"-DGPUNET_EMULATOR_ARCH={arch}"]
    text = prepared(source)
    headers = [(HERE / name).read_text() for name in HEADERS]
    name = store.key(version, flags, text, sorted(source.included.items()), *headers, runtime().name)

    def make(target: Path) -> None:
        unit, thing = target.with_suffix(".cu.cpp"), target.with_suffix(".o")
        unit.write_text(text)
        folders = [flag for each in (HERE, *source.includes) for flag in ("-I", str(each))]
        try:
            header = ["-include", str(HERE / "cuda_emulator.h")]
            # Of a file that includes nothing, the debugger's table keeps the unit's own name beside its #line.
            called = f"-ffile-prefix-map={unit}={source.path.name}"
            _run([path, *flags, called, *folders, *header, "-c", str(unit), "-o", str(thing)], source.path.name)
            # The sanitizer's own library must not come in, so linking is a step of its own, without its flag.
            _run(
                [path, "-shared", "-pthread", "-Wl,-Bsymbolic", str(thing), str(runtime()), "-o", str(target)],
                "linking",
            )
        finally:
            unit.unlink(missing_ok=True)
            thing.unlink(missing_ok=True)

    return store.keep(store.folder("emulator") / f"{source.path.stem}-{name}.so", make)
