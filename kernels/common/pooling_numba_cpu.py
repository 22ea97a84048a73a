"""What the pooling kernels share on the processor: planes as tasks, and where windows lie in the image."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import run, shares

from .elementwise_numba_cpu import in_rows, real
from .lanes_numba_cpu import LANES, load, plus, store
from .shapes import cdiv

__all__ = ["add_rows", "common", "inside", "many", "over_planes", "planes_of", "real"]

SMALLEST = 2**18  # elements of a task at the least, about
FEW = 2**8  # elements: below, NumPy is as fast


def planes_of(array: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as (N * C, H, W), in C order."""
    N, C, H, W = array.shape
    return in_rows(array).reshape(N * C, H, W)


def over_planes(walk: Callable[..., Any], *arrays: np.ndarray, numbers: tuple[Any, ...] = ()) -> None:
    """Calls ``walk(*arrays, *numbers)`` for a share of the planes of each array (P, ., .) on each thread.

    Each plane is computed by itself, so cutting changes nothing but the time.
    """
    planes, largest = arrays[0].shape[0], max(each.size for each in arrays)
    parts = shares(planes, cdiv(SMALLEST * planes, largest)) if largest else []
    if len(parts) > 1:
        run(lambda task: walk(*[each[slice(*parts[task])] for each in arrays], *numbers), len(parts))
    else:
        walk(*arrays, *numbers)


def many(x: np.ndarray, *_: Any, **__: Any) -> bool | str:
    """Whether there is enough to do to be worth the call."""
    return x.size >= FEW or f"it pays only from {FEW} elements on, got {x.size}"


def common(
    like: np.ndarray, input_size: tuple[int, int], output_size: tuple[int, int], kernel_size: tuple[int, int],
    stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int] = (1, 1),
) -> bool | str:  # fmt: skip
    """Whether windows are of a kind that has a kernel of its own."""
    kind = kernel_size, stride
    if dilation == (1, 1) and kind in (((3, 3), (2, 2)), ((3, 3), (1, 1))):
        return real(like)
    fits = all(2 * out <= size for size, out in zip(input_size, output_size, strict=True))
    if kind == ((2, 2), (2, 2)) and dilation == (1, 1) and padding == (0, 0) and fits:
        return real(like)
    return "it takes 2 x 2 windows at steps of 2 that lie inside the image, or 3 x 3 at steps of 1 or 2, undilated"


@compiled
def inside(windows, size, kernel, stride, padding):
    """The windows ``first .. stop - 1`` of an axis that lie inside the image; those before and behind stick out.

    Where they are too few for vectors they count as if they stuck out.
    """
    first = min(windows, (padding + stride - 1) // stride)
    stop = (size + padding - kernel) // stride + 1 if size + padding >= kernel else 0
    stop = min(windows, stop)
    return (first, stop) if stop - first >= LANES else (0, 0)


@compiled(inline=True)
def add_rows(sums, s0, x, x0, W, first, stop):
    """The sums of rows first .. stop - 1 of x, W wide, of which row 0 begins at x0."""
    if W < LANES:
        for c in range(W):
            total = x[x0 + first * W + c]
            for k in range(first + 1, stop):
                total += x[x0 + k * W + c]
            sums[s0 + c] = total
    else:
        for t in range(0, W, LANES):
            c = min(t, W - LANES)
            total = load(x, x0 + first * W + c)
            for k in range(first + 1, stop):
                total = plus(total, load(x, x0 + k * W + c))
            store(sums, s0 + c, total)
