"""CUDA C++ without a GPU: the shipped ``.cu`` text, compiled by the host's compiler and run under strict checks.

``build`` makes a library of a file, ``run`` launches a kernel of it on NumPy arrays, ``report`` puts into words what
was wrong. The C++ side is small: ``cuda_emulator*.h`` stand in front of the kernel file, ``threads.cpp`` runs threads
as fibers, ``memory.cpp`` sees every load and store.

What it proves: indices, barriers, races, alignment, masks, uninitialised reads, on the sizes it is run on. What it does
not: speed, registers, the device's rounding in the fast intrinsics, memory order beyond barriers and fences.
"""

import sys
from functools import cache

from gpunet.cuda.emulator import build
from gpunet.cuda.emulator.fresh import mark
from gpunet.cuda.emulator.run import Program, launch, options, program

__all__ = ["Program", "launch", "mark", "options", "program", "why_not"]


@cache
def why_not() -> str | None:
    """None when kernels can be emulated here, else the reason and the remedy."""
    if sys.platform != "linux":
        return f"device `sim` runs CUDA C++ on Linux alone, this is {sys.platform}; use device 'cpu'"
    if build.compiler() is None:
        return f"device `sim` runs CUDA C++ through a C++20 compiler and found none; {build.INSTALL}"
    return None
