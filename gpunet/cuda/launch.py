"""``load("relu", real="float")``: the kernels of ``kernels/relu/relu.cu``, called with CuPy or with NumPy arrays.

CuPy arrays run on their GPU, on CuPy's current stream. NumPy arrays run on device ``sim``, in the emulator. The
launcher is the same, and so is the guard in front of both.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from gpunet import cuda
from gpunet.config import settings
from gpunet.cuda import compile as nvrtc
from gpunet.cuda import emulator, guard, source, store
from gpunet.errors import KernelError

_NULL = np.uint64(0)
STATIC_SHARED = 49152  # bytes of shared memory a block may have without asking for more


class Module:
    """A kernel file with its constants. Its kernels are its attributes; nothing is compiled before the first launch."""

    def __init__(self, path: str, defines: dict[str, object], fma: bool, specific: bool):
        self.source = source.Source(source.find(path), defines)
        self.fma, self.specific = fma, specific
        self._programs: dict[int, emulator.Program] = {}
        self._cubins: dict[str, nvrtc.Cubin] = {}
        self._modules: dict[str, Any] = {}

    def __getattr__(self, name: str) -> "Kernel":
        signatures = self.source.signatures
        if name.startswith("_") or name not in signatures:
            known = ", ".join(signatures)
            raise AttributeError(f"cuda: {self.source.path.name} has no kernel {name!r}; it has: {known}")
        kernel = Kernel(self, name)
        self.__dict__[name] = kernel
        return kernel

    def program(self) -> emulator.Program:
        """The file as the emulator runs it."""
        arch = emulator.options.arch
        if arch not in self._programs:
            self._programs[arch] = emulator.program(self.source)
        return self._programs[arch]

    def cubin(self, arch: str) -> nvrtc.Cubin:
        """The file as machine code."""
        if arch not in self._cubins:
            self._cubins[arch] = nvrtc.compile_cubin(self.source, arch, self.fma)
        return self._cubins[arch]

    def gpu_arch(self) -> str:
        """What to compile for on the current GPU."""
        return f"sm_{cuda.cupy().cuda.Device().compute_capability}{'a' if self.specific else ''}"

    def raw_module(self, arch: str) -> Any:
        """The file as CuPy's RawModule."""
        if arch not in self._modules:
            self._modules[arch] = cuda.cupy().RawModule(path=str(self.cubin(arch).path))
        return self._modules[arch]


class Kernel:
    """One kernel of a file, callable."""

    def __init__(self, module: Module, name: str):
        self.module, self.name = module, name
        self.signature = module.source.signatures[name]
        self._quick = guard.Quick(self.signature)
        self._functions: dict[Any, Any] = {}

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared: int = 0,
        *,
        empty: str = "skip",
    ) -> None:
        """Launches the kernel; on a GPU it returns before the kernel has run.

        Args:
            grid: blocks along x, y, z; missing axes are 1.
            block: threads of a block along x, y, z.
            arguments: arrays and numbers in the kernel's order; None is a null pointer.
            shared: bytes of dynamic shared memory.
            empty: what a grid without blocks means: "skip" (nothing to do) or "refuse".

        Raises:
            KernelError: an argument does not fit the kernel.
            EmulatorError: on ``sim``, the kernel did what it must not do.
        """
        self.bind(grid, block, arguments, shared, empty=empty)()

    def bind(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared: int = 0,
        *,
        empty: str = "skip",
    ) -> Callable[[], None]:
        """The launch, checked and ready: each call of the result runs it on the same arrays and numbers.

        What a launch costs the host beside the driver is the check; bound once, it is paid once. Arguments and errors
        are those of a call.
        """
        grid, block = guard.three(grid), guard.three(block)
        values = self._quick(grid, block, arguments) or guard.check(self.signature, grid, block, arguments)
        if 0 in grid:
            if empty == "skip":
                return _nothing
            raise KernelError(
                f"{self.name}: grid must have at least one block, got {grid}; skip empty arrays in the launcher"
            )
        pointers = (each for each, p in zip(arguments, self.signature.parameters, strict=True) if p.pointer)
        array = next((each for each in pointers if each is not None), None)
        if array is None or isinstance(array, np.ndarray):
            program = self.module.program()
            run = partial(emulator.launch, program, self.name, grid, block, values, shared)
        else:
            told = tuple(_NULL if each is None else each for each in values)  # CuPy knows no null pointer
            with array.device:
                function = self._function(array.device.id, block, shared)
            run = partial(_run_on, array.device, function, grid, block, told, shared)
        if settings.debug >= 2:
            line = f"gpunet: {self.name} grid {grid} block {block} shared {shared}"
            return partial(_told, line, run)
        return run

    def _function(self, index: int, block: tuple[int, ...], shared: int) -> Any:
        """CuPy's function for GPU ``index``, the current one, once the block is known to fit its registers."""
        found = self._functions.get(index)
        if found is None:
            arch = self.module.gpu_arch()
            resources = self.module.cubin(arch).kernels.get(self.name, nvrtc.Resources(registers=1))
            found = self._functions[index] = self.module.raw_module(arch).get_function(self.name), resources
        function, resources = found
        threads = block[0] * block[1] * block[2]
        if threads > resources.most_threads:
            must = (
                f"takes {resources.registers} registers a thread, so a block may have {resources.most_threads} threads"
            )
            raise KernelError(f"{self.name}: {must}, got {threads}; use a smaller block, or __launch_bounds__")
        if resources.shared + shared > STATIC_SHARED and function.max_dynamic_shared_size_bytes < shared:
            function.max_dynamic_shared_size_bytes = shared
        return function


def _run_on(device: Any, function: Any, grid: Any, block: Any, arguments: tuple[Any, ...], shared: int) -> None:
    with device:
        function(grid, block, arguments, shared_mem=shared)


def _nothing() -> None:
    """A launch without blocks."""


def _told(line: str, run: Callable[[], None]) -> None:
    print(line, file=sys.stderr)  # noqa: T201 asked for by GPUNET_DEBUG
    run()


def load(name: str | os.PathLike[str], *, fma: bool = True, specific: bool = False, **defines: object) -> Module:
    """The kernels of one file.

    Args:
        name: an op, for ``kernels/<op>/<op>.cu``; or a path ending in ``.cu``.
        fma: whether the compiler may contract a product and a sum into one rounding.
        specific: compile with the instructions that only this generation of GPU has (sm_90a for sm_90).
        **defines: constants, as -D gives them: ``real="float", TILE=16``; a NumPy dtype stands for its type.

    Returns:
        The module; the same object for the same arguments.

    Raises:
        KernelError: there is no such file.
    """
    return _loaded(os.fspath(name), fma, specific, tuple(sorted(defines.items())))


@cache
def _loaded(name: str, fma: bool, specific: bool, defines: tuple[tuple[str, object], ...]) -> Module:
    return Module(name, dict(defines), fma, specific)


def compile_text(text: str, name: str, *, fma: bool = True, specific: bool = False, **defines: object) -> Kernel:
    """One kernel of a text in CUDA C++; see :func:`gpunet.cuda.compile_text`."""
    return getattr(load(_file_of(text, name), fma=fma, specific=specific, **defines), name)


@cache
def _file_of(text: str, name: str) -> str:
    """The text as a file of the cache, called by its first kernel: compilers and errors name files and lines."""
    found = source.kernel_names(text)
    if name not in found:
        remedy = f'write it as extern "C" __global__ void {name}(...)'
        got = f"the kernels {', '.join(found)}" if found else "none"
        raise KernelError(f"cuda: the text must hold a kernel called {name!r}, got {got}; {remedy}")
    path = store.folder(f"text/{store.key(text)}") / f"{found[0]}.cu"
    store.keep(path, lambda target: target.write_text(text))
    return str(path)
