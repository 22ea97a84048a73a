"""The runtime's structures (runtime.h) as ctypes, and a compiled kernel file as a loaded library."""

import ctypes
import re
import shutil
import subprocess
from functools import cached_property
from pathlib import Path
from typing import Any

from gpunet.errors import KernelError

_u32, _u64, _pointer = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p


class Index(ctypes.Structure):
    """Three numbers: x, y, z."""

    _fields_ = (("x", _u32), ("y", _u32), ("z", _u32))

    def tuple(self) -> tuple[int, int, int]:
        """As Python numbers."""
        return self.x, self.y, self.z


class Buffer(ctypes.Structure):
    """An argument array in the arena."""

    _fields_ = (
        ("begin", _u64), ("bytes", _u64), ("granule", _u32), ("writable", _u32),
        ("fresh", _pointer), ("written", _pointer),
    )  # fmt: skip


class Report(ctypes.Structure):
    """What was wrong, where, and who did it."""

    _fields_ = (
        ("kind", _u32), ("line", _u32), ("file", ctypes.c_char * 160), ("text", ctypes.c_char * 224),
        ("pc", _u64), ("other_pc", _u64), ("address", _u64), ("shared_begin", _u64),
        ("size", _u32), ("write", _u32), ("other_write", _u32), ("space", _u32),
        ("block", Index), ("thread", Index), ("other_block", Index), ("other_thread", Index),
        ("has_other", _u32), ("buffer", _u32),
    )  # fmt: skip


class Launch(ctypes.Structure):
    """One launch."""

    _fields_ = (
        ("entry", _pointer), ("arguments", _pointer), ("grid", Index), ("block", Index),
        ("seed", _u64), ("limit", _u64),
        ("arena", _u64), ("arena_bytes", _u64), ("buffers", _pointer), ("buffer_count", _u32), ("workers", _u32),
        ("dynamic_bytes", _u32), ("shared_granule", _u32), ("image", _u64), ("image_bytes", _u64), ("accesses", _u64),
    )  # fmt: skip


class Library:
    """A compiled kernel file."""

    def __init__(self, path: Path):
        self.path = path
        self.handle: Any = ctypes.CDLL(str(path))
        self.handle.cuda_emulator_sizes.restype = _u64
        sizes = [self.handle.cuda_emulator_sizes(k) for k in range(3)]
        mine = [ctypes.sizeof(each) for each in (Launch, Buffer, Report)]
        if sizes != mine:
            raise KernelError(f"emulator: runtime.h and native.py must agree on sizes, got {sizes} and {mine}")

    def entry(self, name: str) -> int:
        """Address of the function that calls kernel ``name``."""
        return ctypes.cast(getattr(self.handle, f"cuda_emulator_call_{name}"), _pointer).value or 0

    def bound_of(self, name: str) -> int:
        """Most threads a block of kernel ``name`` may have: what its ``__launch_bounds__`` says, else 1024."""
        return _u32.in_dll(self.handle, f"cuda_emulator_bound_{name}").value

    def launch(self, launch: Launch) -> Report:
        """Runs; a report of kind 0 says that all went well. Other Python threads run meanwhile."""
        report = Report()
        self.handle.cuda_emulator_launch(ctypes.byref(launch), ctypes.byref(report))
        return report

    def line_of(self, offset: int) -> tuple[str | None, int | None]:
        """File and line of the source behind a return address inside the library."""
        tool = shutil.which("addr2line") or shutil.which("llvm-addr2line")
        if tool is None:
            return None, None
        command = [tool, "-i", "-e", str(self.path), hex(offset - 1)]
        lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
        for text in lines:  # innermost first; the project's own helpers in the emulator's headers are not what is meant
            found = re.match(r"(.*):(\d+)", text)
            name = Path(found.group(1)).name if found else ""
            if found and not name.startswith("cuda_emulator") and name != "common.cuh":
                return name, int(found.group(2))
        return None, None

    @cached_property
    def shared(self) -> list[tuple[str, int, int]]:
        """Every ``__shared__`` array of the file: name, place and bytes; from the library's symbols."""
        tool = shutil.which("readelf") or shutil.which("llvm-readelf")
        if tool is None:
            return []
        text = subprocess.run([tool, "-sW", str(self.path)], capture_output=True, text=True, check=False).stdout
        rows = re.findall(r"^\s*\d+:\s+([0-9a-f]+)\s+(\w+)\s+TLS\s+\w+\s+\w+\s+\d+\s+(\S+)", text, re.MULTILINE)
        return sorted({(name, int(place, 16), int(size, 0)) for place, size, name in rows if "touched" not in name})

    def shared_of(self, kernel: str) -> int:
        """Bytes of static shared memory of a kernel, those of device functions of the file counted in."""
        mangled = f"_ZZ{len(kernel)}{kernel}E"
        kernels = [name.removeprefix("cuda_emulator_call_") for name in self._kernels]
        others = tuple(f"_ZZ{len(each)}{each}E" for each in kernels if each != kernel)
        return sum(size for name, _, size in self.shared if name.startswith(mangled) or not name.startswith(others))

    @cached_property
    def _kernels(self) -> list[str]:
        tool = shutil.which("nm") or shutil.which("llvm-nm")
        text = subprocess.run([str(tool), "-D", str(self.path)], capture_output=True, text=True, check=False).stdout
        return re.findall(r"\bcuda_emulator_call_\w+", text)
