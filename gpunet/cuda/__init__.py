"""The one door to CuPy, Numba-CUDA, NVRTC and the emulator. No other module of gpunet imports them.

Everything is imported on first use, so that ``import gpunet`` costs NumPy alone and a machine without a GPU never
sees an import error, only a reason.
"""

import importlib
import importlib.util
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gpunet.errors import BackendUnavailableError

if TYPE_CHECKING:
    import os

INSTALL = 'pip install "gpunet[cuda13]" (driver 580 or newer) or "gpunet[cuda12]" (driver 525 or newer)'


@cache
def why_no_cupy() -> str | None:
    """None when CuPy can run on a GPU here, else the reason and the remedy."""
    if importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; {INSTALL}"
    try:
        available = cupy().is_available()
    except Exception as error:  # a broken CUDA installation raises anything from ImportError to its own types
        return f"CuPy is installed but does not load ({type(error).__name__}: {error}); run `gpunet info`"
    return None if available else "no usable NVIDIA GPU or driver was found; check that `nvidia-smi` lists a GPU"


@cache
def why_no_numba_cuda() -> str | None:
    """None when Numba's CUDA target can run on a GPU here, else the reason and the remedy."""
    if importlib.util.find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed; {INSTALL}"
    if importlib.import_module("numba").config.ENABLE_CUDASIM:
        return "Numba's simulator is on, and then Numba runs nothing on a GPU; unset NUMBA_ENABLE_CUDASIM"
    try:
        available = numba_cuda().is_available()
    except Exception as error:  # see why_no_cupy
        return f"numba-cuda is installed but does not load ({type(error).__name__}: {error}); run `gpunet info`"
    return None if available else "no usable NVIDIA GPU or driver was found; check that `nvidia-smi` lists a GPU"


def why_no_sim() -> str | None:
    """None when CUDA C++ kernels can run on the CPU here, through the emulator; else the reason and the remedy."""
    from gpunet.cuda import emulator

    return emulator.why_not()


@cache
def why_no_numba_sim() -> str | None:
    """None when Numba's simulator runs its CUDA kernels here, else the reason and the remedy.

    Numba chooses between GPU and simulator when it is imported, so the choice is the environment's.
    """
    for module, package in (("numba_cuda", "numba-cuda"), ("greenlet", "greenlet")):
        if importlib.util.find_spec(module) is None:
            return f'{package} is not installed; pip install "gpunet[sim]"'
    if not importlib.import_module("numba").config.ENABLE_CUDASIM:
        return "Numba's simulator is off; set NUMBA_ENABLE_CUDASIM=1 before Python starts (backend 'cupy' runs without)"
    return None


def load(name: "str | os.PathLike[str]", **options: Any) -> Any:
    """The CUDA C++ kernels of an op, to be launched on CuPy or NumPy arrays; see :func:`gpunet.cuda.launch.load`."""
    from gpunet.cuda import launch

    return launch.load(name, **options)


def compile_text(text: str, name: str, **options: Any) -> Any:
    """One kernel of a text in CUDA C++, to be launched on CuPy or NumPy arrays.

    Nothing is compiled before the first launch; machine code and the emulator's library are kept on disk, by the text.
    What the text includes is looked up beside the project's kernels: ``#include "common/common.cuh"``.

    Args:
        text: kernels written ``extern "C" __global__ void name(...)``. Pointers carry const and ``__restrict__`` where
            they may: the check in front of each launch reads the parameters from the text.
        name: which of them.
        **options: ``real="float"`` or ``real=x.dtype`` and other constants, as -D gives them; ``fma`` and ``specific``
            as for :func:`load`.

    Returns:
        The kernel, called with grid, block and arguments; the same object for the same text, name and options.

    Raises:
        KernelError: the text holds no such kernel, or a type of its parameters is not known.
        CompileError: at the first launch, the compiler refuses the text; the message names the line.

    Example:
        >>> from gpunet import cuda
        >>> text = 'extern "C" __global__ void fill(real* y, int size) { if (threadIdx.x < size) y[threadIdx.x] = 1; }'
        >>> cuda.compile_text(text, "fill", real="float").signature.parameters[1].text
        'int size'
    """
    from gpunet.cuda import launch

    return launch.compile_text(text, name, **options)


def fresh(array: Any) -> Any:
    """``array``, known from here on as written by nobody: on ``sim`` a kernel that reads it first is refused."""
    if type(array).__module__.partition(".")[0] == "numpy":
        from gpunet.cuda import emulator

        emulator.mark(array)
    return array


def address(array: Any) -> int:
    """Where an array begins on its device, for the question whether wide loads are aligned."""
    from gpunet.cuda import guard

    return guard.address(array)


@cache
def _multiprocessors(index: int) -> int:
    return int(cupy().cuda.Device(index).attributes["MultiProcessorCount"])


def multiprocessors(array: Any) -> int:
    """Multiprocessors of the GPU that an array lies on; 2 on ``sim``, so that small arrays need several rounds."""
    on_gpu = type(array).__module__.partition(".")[0] == "cupy"
    return _multiprocessors(array.device.id) if on_gpu else 2


@cache
def _compute_capability(index: int) -> int:
    return int(cupy().cuda.Device(index).compute_capability)


def compute_capability(array: Any) -> int:
    """That of the GPU an array lies on, as in its architecture's name: 90 for sm_90, also on ``sim`` by default."""
    if type(array).__module__.partition(".")[0] == "cupy":
        return _compute_capability(array.device.id)
    from gpunet.cuda import emulator

    return emulator.options.arch // 10  # as in __CUDA_ARCH__


def cupy() -> Any:
    """The module ``cupy``.

    Raises:
        BackendUnavailableError: CuPy is not installed.
    """
    return _import("cupy")


def numba_cuda() -> Any:
    """The module ``numba.cuda``, with what its 0.30 line needs under NumPy 2.5 put back.

    Raises:
        BackendUnavailableError: numba-cuda is not installed.
    """
    import numpy as np

    if not hasattr(np, "row_stack"):  # removed in NumPy 2.5; numba-cuda 0.30 looks it up at the first compile
        np.row_stack = np.vstack  # noqa: NPY201 putting it back is the point
    return _import("numba.cuda")


def nvml() -> Any:
    """The module ``pynvml`` of nvidia-ml-py, which reads a GPU's clocks.

    Raises:
        BackendUnavailableError: it is not installed.
    """
    return _import("pynvml")


def why_no_nvbench() -> str | None:
    """None when NVIDIA's nvbench is installed, else the reason and the remedy. It is not imported."""
    try:
        found = importlib.util.find_spec("cuda.bench")
    except ImportError:  # not even a package called cuda
        found = None
    return None if found else 'cuda-bench is not installed; pip install "cuda-bench[cu13]", or [cu12] beside CUDA 12'


def nvbench() -> tuple[Any, Any]:
    """The modules ``cuda.bench`` and ``cuda.bench.results`` of cuda-bench, NVIDIA's nvbench for Python.

    Raises:
        ImportError: it is not installed, or not for this version of CUDA.
    """
    return importlib.import_module("cuda.bench"), importlib.import_module("cuda.bench.results")


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendUnavailableError(f"{name} cannot be imported ({error}); {INSTALL}") from error


def gpu_count() -> int:
    """Number of GPUs that CuPy can use; 0 where there is none."""
    return 0 if why_no_cupy() else int(cupy().cuda.runtime.getDeviceCount())
