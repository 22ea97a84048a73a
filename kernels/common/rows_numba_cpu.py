"""What softmax, log_softmax, cross_entropy and the norms share on the processor: maxima, sums, and tasks.

An array is seen as (outer, D, inner) along its axis: rows of D elements, ``inner`` apart. Where inner is 1 a row lies
in one piece, and the lanes of a vector take neighbours in it. Elsewhere they take neighbouring rows: a *unit* is up to
some 1,000 neighbouring rows, few enough to stay in the second-level cache from the pass for the maximum to the last.
"""

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import run, shares

from .launching import is_real
from .shapes import cdiv
from .vexp_numba_cpu import exp_below, from_order, order

SUMS = {"contract", "reassoc"}  # liberties of sums: a lane adds up every 16th element or so, then lanes are added up
RUN = 4096  # terms of a sum in x's dtype; sums of runs are added up in float64
STEPS = 64  # the same where a lane has a row to itself
GRAIN = 2**15  # elements of a task at the least
UNIT = 2**16  # elements of a unit, about
NARROW, WIDE = 64, 1024  # rows of a unit


class Units(NamedTuple):
    """How rows that lie apart are cut: unit u is rows width * (u % across) and so on of array u // across."""

    total: int
    across: int
    width: int
    share: int
    """Units of a task."""


def units(outer: int, D: int, inner: int) -> Units:
    """Units of an array that has elements."""
    width = min(inner, max(NARROW, min(WIDE, UNIT // D)))
    across = cdiv(inner, width)
    return Units(outer * across, across, width, max(1, GRAIN // (D * width)))


def over(walk: Callable[[int, int], Any], count: int, share: int) -> None:
    """Calls ``walk(first, end)`` for a piece of ``count`` on each thread, none below ``share``."""
    pieces = shares(count, share)  # each result comes from one piece, so the cuts change none
    if len(pieces) > 1:
        run(lambda task: walk(*pieces[task]), len(pieces))
    else:
        walk(0, count)


def over_rows(walk: Callable[..., Any], arrays: tuple[np.ndarray, ...], D: int, *numbers: Any) -> None:
    """Calls ``walk(*arrays, *numbers)`` for pieces of the first axis; each row stands for D elements of work."""
    over(lambda first, end: walk(*[each[first:end] for each in arrays], *numbers), len(arrays[0]), max(1, GRAIN // D))


def over_units(walk: Callable[..., Any], shape: tuple[int, int, int], *arguments: Any) -> None:
    """Calls ``walk(*arguments, first, end, across, width)`` for the units of (outer, D, inner)."""
    cut = units(*shape)
    over(lambda first, end: walk(*arguments, first, end, cut.across, cut.width), cut.total, cut.share)


def folded(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    """(outer, D, inner) of an array along an axis."""
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def takes_neighbours(*arrays: Any, axis: int) -> bool | str:
    """Whether rows lie in one piece."""
    real = is_real(*arrays)
    if real is not True:
        return real
    return prod(arrays[-1].shape[axis + 1 :]) == 1 or "it takes rows along the last axis"


def takes_apart(*arrays: Any, axis: int) -> bool | str:
    """Whether the elements of a row lie apart."""
    real = is_real(*arrays)
    if real is not True:
        return real
    return prod(arrays[-1].shape[axis + 1 :]) != 1 or "it takes rows along an axis that is not the last"


# -- one row in one piece ----------------------------------------------------------------------------------------------


@compiled
def largest(row):
    """The largest number; where there is a NaN, that or some number."""
    m = order(row[0])
    for k in range(row.size):
        i = order(row[k])
        m = i if i > m else m
    return from_order(m)


@compiled(fastmath=SUMS)
def exp_sum(row, m):
    """Sum of exp(x - m), in float64."""
    total = 0.0
    for first in range(0, row.size, RUN):
        part = row[first : first + RUN]
        sum = row.dtype.type(0)
        for k in range(part.size):
            sum += exp_below(part[k] - m)
        total += sum
    return total


@compiled(fastmath=SUMS)
def exp_kept_sum(out, row, m):
    """The same, and every exponential in out.

    In two loops: one that also writes has a way without vectors for arrays close to each other, and adds up otherwise.
    """
    total = 0.0
    for first in range(0, row.size, RUN):
        part, kept = row[first : first + RUN], out[first : first + RUN]
        sum = row.dtype.type(0)
        for k in range(part.size):
            kept[k] = exp_below(part[k] - m)
        for k in range(part.size):
            sum += kept[k]
        total += sum
    return total


@compiled(fastmath=SUMS)
def rough_mean(row):
    """Of terms already divided, so that no sum is too large."""
    share = row.dtype.type(1 / row.size)
    total = 0.0
    for first in range(0, row.size, RUN):
        part = row[first : first + RUN]
        sum = row.dtype.type(0)
        for j in range(part.size):
            sum += part[j] * share
        total += sum
    return total


@compiled(fastmath=SUMS)
def centred_sums(row, m):
    """Sums of x - m and of its square."""
    total, squares = 0.0, 0.0
    for first in range(0, row.size, RUN):
        part = row[first : first + RUN]
        sum, square = row.dtype.type(0), row.dtype.type(0)
        for j in range(part.size):
            d = part[j] - m
            sum += d
            square += d * d
        total += sum
        squares += square
    return total, squares


# -- neighbouring rows, element d of each: a[o, d, first:end] ----------------------------------------------------------


@compiled
def largest_apart(m, a, o, first, end):
    """The largest number of each row in m; where there is a NaN, some number."""
    m[:] = -np.inf
    for d in range(a.shape[1]):
        line = a[o, d, first:end]
        for j in range(m.size):
            m[j] = line[j] if line[j] > m[j] else m[j]


@compiled(fastmath={"contract"})
def exp_sum_apart(total, part, m, a, o, first, end):
    """Sums of exp(x - m) of each row in total (float64); part is memory for sums of STEPS terms."""
    total[:] = 0
    for start in range(0, a.shape[1], STEPS):
        part[:] = 0
        for d in range(start, min(start + STEPS, a.shape[1])):
            line = a[o, d, first:end]
            for j in range(m.size):
                part[j] += exp_below(line[j] - m[j])
        for j in range(m.size):
            total[j] += part[j]
