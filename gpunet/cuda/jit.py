"""Kernels written in Python: compiled by Numba to PTX, linked to machine code, and launched like the CUDA C++ ones.

Numba is asked for one thing, PTX for a signature. Everything after that is the path of the CUDA C++ kernels: a cubin on
disk, CuPy's module, CuPy's current stream, arrays by their address. So both languages pay the same price for a launch,
a kernel is looked up once a signature, nothing is copied, and another compiler of Python needs a change here alone.

Arrays arrive in a kernel with one axis, in C order, whatever they were: it indexes them as CUDA C++ does.

Under ``NUMBA_ENABLE_CUDASIM=1`` the same kernels run on NumPy arrays in Numba's simulator, thread by thread in Python.
"""

import importlib
import importlib.metadata
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunet import cuda as door
from gpunet.config import settings
from gpunet.cuda import guard, store
from gpunet.cuda.compile import Cubin, Resources, parse_resources
from gpunet.cuda.emulator import fresh
from gpunet.cuda.launch import STATIC_SHARED
from gpunet.cuda.source import Signature
from gpunet.errors import BackendUnavailableError, CompileError, KernelError

#: numba.cuda, or its simulator; what kernels call ``cuda``
cuda: Any = door.numba_cuda()
SIMULATED = door.why_no_numba_sim() is None
#: threads of a block where nothing asks for another number; few in the simulator, which makes each a Python thread
THREADS = 32 if SIMULATED else 256
if SIMULATED:
    importlib.import_module("gpunet.cuda.simulator").install()

INSTALL = 'pip install "gpunet[sim]", which brings NVVM and nvJitLink'


_name = cache(lambda dtype: str(dtype.name))  # NumPy composes it anew each time


class Launch(NamedTuple):
    """One launch that was recorded instead of run: the kernel and the types of its arguments."""

    kernel: "Kernel"
    types: tuple[str, ...]


_recorded: list[list[Launch]] = []


@contextmanager
def recording() -> Iterator[list[Launch]]:
    """Inside, launches are written down and nothing runs: what a launcher would compile for these arguments."""
    found: list[Launch] = []
    _recorded.append(found)
    try:
        yield found
    finally:
        _recorded.remove(found)


class Kernel:
    """A function of Python as a kernel; called with grid, block and arguments as the CUDA C++ kernels are."""

    def __init__(self, function: Callable[..., None], max_registers: int | None, name: str | None = None):
        self.function, self.max_registers = function, max_registers
        self.name = name or function.__name__
        names = list(inspect.signature(function).parameters)
        self.signature = Signature(self.name, (), function.__code__.co_firstlineno)
        self.parameters = names
        self._cubins: dict[tuple[tuple[str, ...], str], Cubin] = {}
        self._functions: dict[tuple[tuple[str, ...], int], Any] = {}
        self._simulated: Any = None

    def __call__(self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int = 0) -> None:
        """Launches the kernel; on a GPU it returns before the kernel has run.

        Args:
            grid: blocks along x, y, z; missing axes are 1. No blocks: nothing to do.
            block: threads of a block along x, y, z.
            arguments: C-contiguous arrays, and NumPy numbers or Python integers (64 bits) and booleans.
            shared: bytes of dynamic shared memory.

        Raises:
            KernelError: an argument does not fit.
        """
        self.bind(grid, block, arguments, shared)()

    def bind(
        self, grid: Sequence[int], block: Sequence[int], arguments: Sequence[Any], shared: int = 0
    ) -> Callable[[], None]:
        """The launch, checked and ready: each call of the result runs it on the same arguments."""
        grid, block = guard.three(grid), guard.three(block)
        if not guard.usual_sizes(grid, block):
            guard.need_sizes(self.signature, grid, block)
        types = self._types(arguments)
        if _recorded:
            _recorded[-1].append(Launch(self, types))
            return _nothing
        if 0 in grid:
            return _nothing
        if settings.debug >= 2:
            print(f"gpunet: {self.name} grid {grid} block {block} shared {shared}", file=sys.stderr)  # noqa: T201
        array = next((each for each in arguments if hasattr(each, "flags")), None)
        if array is None or isinstance(array, np.ndarray):
            return partial(self._simulate, grid, block, arguments, shared)
        with array.device:
            function = self._function(types, array.device.id, block, shared)
        return partial(_run_on, array.device, function, grid, block, _flat(arguments), shared)

    def _types(self, arguments: Sequence[Any]) -> tuple[str, ...]:
        if len(arguments) != len(self.parameters):
            told = f"takes {len(self.parameters)} arguments ({', '.join(self.parameters)})"
            raise KernelError(f"{self.name}: {told}, got {len(arguments)}; compare the launcher with the kernel")
        return tuple(map(self._type, self.parameters, arguments))

    def _type(self, name: str, value: Any) -> str:
        """How a value is named in a signature: "float32[]", "int64", "bool"."""
        kind = type(value)
        if kind is int and -(2**63) <= value < 2**63:
            return "int64"
        if kind is bool:
            return "bool"
        if isinstance(value, np.generic):
            return _name(value.dtype)
        if hasattr(value, "strides"):
            if not value.flags.c_contiguous:
                told = f"shape {value.shape} with strides {value.strides}"
                raise KernelError(f"{self.name}: {name} must be C-contiguous, got {told}; use ascontiguousarray")
            return f"{_name(value.dtype)}[]"
        if isinstance(value, int):
            raise KernelError(f"{self.name}: {name} must fit into 64 bits, got {value}; split it")
        must = "must be a NumPy or CuPy array, a NumPy number, an integer or a boolean"
        remedy = "wrap a Python float in the dtype it is to have"
        raise KernelError(f"{self.name}: {name} {must}, got {kind.__name__}; {remedy}")

    def _simulate(self, grid: Any, block: Any, arguments: Sequence[Any], shared: int) -> None:
        if not SIMULATED:
            raise BackendUnavailableError(f"{self.name}: NumPy arrays need the simulator: {door.why_no_numba_sim()}")
        if self._simulated is None:
            self._simulated = cuda.jit(self.function)
        flat = [each.reshape(-1) if isinstance(each, np.ndarray) else each for each in arguments]
        self._simulated[grid, block, 0, shared](*flat)
        for each in arguments:
            if isinstance(each, np.ndarray):
                fresh.forget(each)  # the emulator does not see what is written here

    def _function(self, types: tuple[str, ...], index: int, block: tuple[int, ...], shared: int) -> Any:
        """CuPy's function for a signature on GPU ``index``, the current one."""
        found = self._functions.get((types, index))
        if found is None:
            cubin = self.cubin(types, f"sm_{door.cupy().cuda.Device().compute_capability}")
            ((name, resources),) = cubin.kernels.items()
            function = door.cupy().RawModule(path=str(cubin.path)).get_function(name)
            found = self._functions[types, index] = function, resources
        function, resources = found
        threads = block[0] * block[1] * block[2]
        if threads > resources.most_threads:
            must = (
                f"takes {resources.registers} registers a thread, so a block may have {resources.most_threads} threads"
            )
            raise KernelError(f"{self.name}: {must}, got {threads}; use a smaller block, or max_registers")
        if resources.shared + shared > STATIC_SHARED and function.max_dynamic_shared_size_bytes < shared:
            function.max_dynamic_shared_size_bytes = shared
        return function

    def cubin(self, types: tuple[str, ...], arch: str) -> Cubin:
        """The machine code for one signature and architecture, from the cache or compiled now; its name is Numba's.

        Raises:
            BackendUnavailableError: NVVM or nvJitLink is not installed.
            CompileError: Numba refuses the function.
        """
        key = types, arch
        if key not in self._cubins:
            self._cubins[key] = _cubin(self, types, arch)
        return self._cubins[key]


def kernel(function: Callable[..., None] | None = None, *, max_registers: int | None = None) -> Any:
    """Makes a function of Python a kernel, for :mod:`gpunet.cuda.jit`'s launches.

    Args:
        function: of arrays with one axis and numbers; it returns nothing.
        max_registers: a bound for the compiler, in registers a thread.
    """
    if function is None:
        return partial(kernel, max_registers=max_registers)
    return Kernel(function, max_registers)


def typed(factory: Callable[[Any], Callable[..., None]]) -> Callable[[Any], Kernel]:
    """Makes a kernel for each dtype: of a function that gets the NumPy type and returns the kernel's function.

    What the dtype decides is constant in the kernel: the type of its shared arrays and of its zeros.

    Args:
        factory: ``real -> function``; its name is the kernel's.

    Returns:
        ``like -> kernel``, for an array of the dtype; made once for each.
    """

    @cache
    def made(name: str) -> Kernel:
        return Kernel(factory(getattr(np, name)), None, factory.__name__)

    return lambda like: made(like.dtype.name)


def device(function: Callable[..., Any]) -> Any:
    """Makes a function one that kernels can call; it becomes part of each."""
    return cuda.jit(device=True)(function) if SIMULATED else cuda.jit(device=True, inline="always")(function)


@cache
def why_no_compiler() -> str | None:
    """None when kernels can be compiled here, GPU or not; else the reason and the remedy."""
    if SIMULATED:
        return "NUMBA_ENABLE_CUDASIM=1 is set, and the simulator compiles nothing"
    try:
        importlib.import_module("cuda.core").Linker  # noqa: B018 that it is there is what is asked
        importlib.import_module("cuda.bindings.nvjitlink").version()  # else the driver would link, where there is one
        importlib.import_module("numba.cuda.cudadrv.nvvm").NVVM()
    except Exception as error:  # a missing library raises types of Numba's own
        return f"NVVM or nvJitLink does not load ({type(error).__name__}: {error}); {INSTALL}"
    return None


def _nothing() -> None:
    """A launch without blocks."""


def _run_on(place: Any, function: Any, grid: Any, block: Any, arguments: tuple[Any, ...], shared: int) -> None:
    with place:
        function(grid, block, arguments, shared_mem=shared)


def _flat(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments as Numba's kernels take them: of an array with one axis 7 words, of a number itself."""
    found: list[Any] = []
    for each in arguments:
        if isinstance(each, np.generic):
            found.append(each)
        elif isinstance(each, bool):
            found.append(np.bool_(each))
        elif isinstance(each, int):
            found.append(np.int64(each))
        else:  # owner and parent (none), elements, bytes of one, address, size and step of the axis
            size, step = np.int64(each.size), np.int64(each.itemsize)
            found += [np.uint64(0), np.uint64(0), size, step, each, size, step]
    return tuple(found)


def _numba_type(name: str) -> Any:
    types = importlib.import_module("numba").types
    scalar = types.boolean if name.startswith("bool") else getattr(types, name.removesuffix("[]"))
    return types.Array(scalar, 1, "C") if name.endswith("[]") else scalar


def _cubin(kernel: Kernel, types: tuple[str, ...], arch: str) -> Cubin:
    reason = why_no_compiler()
    if reason:
        raise BackendUnavailableError(f"{kernel.name}: {reason}")
    file = Path(inspect.getfile(kernel.function))
    shared = [path for path in file.parent.parent.glob("common/*.py") if not path.stem.endswith("_numba_cpu")]
    texts = [path.read_text() for path in (file, *sorted(shared))]
    versions = [importlib.metadata.version(name) for name in ("numba", "numba-cuda", "cuda-core")]
    key = store.key(*versions, *texts, kernel.name, types, arch, kernel.max_registers, _constants(kernel.function))
    path = store.folder("cubin") / f"{kernel.name}-{arch}-{key}.cubin"
    table = path.with_suffix(".json")

    def make(target: Path) -> None:
        code, rows = _compile(kernel, types, arch)
        told = json.dumps({name: asdict(each) for name, each in rows.items()})
        table.unlink(missing_ok=True)
        store.keep(table, lambda temporary: temporary.write_text(told))
        target.write_bytes(code)

    store.keep(path, make)
    rows = json.loads(table.read_text())
    return Cubin(path, arch, {name: Resources(**row) for name, row in rows.items()})


def _constants(function: Any) -> Any:
    """What a function closes over, in a form that is the same in every process: the source says only the names."""
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = cell.cell_contents
        inner = getattr(value, "py_func", None)  # of a device function
        if inner is not None:
            found.append((name, inner.__qualname__, _constants(inner)))
        else:
            found.append((name, value.__name__ if isinstance(value, type) else repr(value)))
    return tuple(found)


def _compile(kernel: Kernel, types: tuple[str, ...], arch: str) -> tuple[bytes, dict[str, Resources]]:
    core = importlib.import_module("cuda.core")
    number = re.fullmatch(r"sm_(\d+)(\d)[af]?", arch)
    if number is None:
        raise CompileError(f"{kernel.name}: arch must be sm_<number>, got {arch!r}")
    signature = importlib.import_module("numba").types.void(*map(_numba_type, types))
    try:
        ptx, _ = cuda.compile(
            kernel.function, signature, device=False, cc=(int(number[1]), int(number[2])), output="ptx", abi="numba",
            lineinfo=True,
        )  # fmt: skip
        options = core.LinkerOptions(arch=arch, ptxas_options=["-v"], max_register_count=kernel.max_registers)
        linker = core.Linker(core.ObjectCode.from_ptx(ptx.encode()), options=options)
        code = bytes(linker.link("cubin").code)
    except Exception as error:  # Numba and cuda.core have error types of their own
        told = ", ".join(types)
        raise CompileError(f"{kernel.name}: must compile for ({told}) on {arch}, got {error}") from error
    # Numba's shared arrays are visible from outside the kernel, so the assembler does not count them as the kernel's.
    shared = sum(int(size) for size in re.findall(r"\.shared \.align \d+ \.b8 \w+\[(\d+)\]", ptx))
    found = parse_resources(linker.get_info_log())
    return code, {name: replace(each, shared=shared) for name, each in found.items()}


@typed
def total_kernel(real: Any) -> Callable[..., None]:
    """One thread sums an array: what ``gpunet info`` tries, to see that kernels run here."""
    zero = real(0)

    def total(y: Any, x: Any, size: int) -> None:
        if cuda.grid(1) == 0:
            s = zero
            for k in range(size):
                s += x[k]
            y[0] = s

    return total
