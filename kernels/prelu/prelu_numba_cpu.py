"""prelu on Numba for the processor: loops that LLVM turns into vector instructions, shared out among threads."""
# op: gpunet/ops/prelu.py
#
# x is looked at as (rows, C, inner), the channel in the middle; with one slope for all as (1, 1, inner).
#
# task    some rows, about 262,144 elements; tasks depend on the sizes alone, so grad_w adds in the same order always
# lanes   as many as the processor's vectors hold, neighbours of one channel, or channels where inner is 1
# reads   each input once, in order
# needs   arrays in rows; others are copied first

from math import prod

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import ranges, run
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import FEW, SMALLEST, flat, in_rows, real


def _shares(w, *arrays):
    """The tasks: each array's share as (rows, C, inner)."""
    shape = arrays[0].shape
    if w.size == 1:
        flats = [flat(each) for each in arrays]
        return [[each[a:b].reshape(1, 1, b - a) for each in flats] for a, b in ranges(flats[0].size, SMALLEST)]
    rows, C, inner = shape[0], shape[1], prod(shape[2:])
    whole = [in_rows(each).reshape(rows, C, inner) for each in arrays]
    return [[each[a:b] for each in whole] for a, b in ranges(rows, max(1, SMALLEST // max(1, C * inner)))]


def _each(task, count):
    """Calls ``task`` with 0 .. count - 1, on all threads where there is more than one."""
    if count == 1:
        task(0)
    else:
        run(task, count)


@compiled
def scaled_loop(y, a, x, w):
    """y = a where x > 0, else the channel's slope times a."""
    rows, C, inner = x.shape
    zero = x.dtype.type(0)
    for r in range(rows):
        if inner == 1:
            for c in range(C):
                y[r, c, 0] = a[r, c, 0] if x[r, c, 0] > zero else w[c] * a[r, c, 0]
        else:
            for c in range(C):
                slope = w[c]
                for i in range(inner):
                    y[r, c, i] = a[r, c, i] if x[r, c, i] > zero else slope * a[r, c, i]


def _scaled(a, x, w):
    y, slopes = empty(x.shape, x.dtype), flat(w)
    shares = _shares(w, y, a, x)
    _each(lambda number: scaled_loop(*shares[number], slopes), len(shares))
    return y


@kernel("prelu.forward", backend="numba_cpu", variant="vectorised", when=real, least=FEW)
def prelu_forward_vectorised(x, w):
    """One vector of elements at a time."""
    return _scaled(x, x, w)


@kernel("prelu.grad_x", backend="numba_cpu", variant="vectorised", when=real, least=FEW)
def prelu_grad_x_vectorised(gy, x, w):
    """One vector of elements at a time."""
    return _scaled(gy, x, w)


@compiled(fastmath={"reassoc"})
def sums_loop(sums, gy, x):
    """For each row and channel the sum of gy * x where x is not > 0; in vectors, so in an order of the vectors'."""
    rows, C, inner = x.shape
    zero = x.dtype.type(0)
    for r in range(rows):
        for c in range(C):
            total = 0.0
            for i in range(inner):
                total += np.float64(zero if x[r, c, i] > zero else gy[r, c, i] * x[r, c, i])
            sums[r, c] = total


@compiled
def column_sums_loop(sums, gy, x):
    """The same where inner is 1, added up over the rows: neighbours are of different channels. One row of sums."""
    rows, C, _ = x.shape
    zero = x.dtype.type(0)
    sums[:] = 0
    for r in range(rows):
        for c in range(C):
            sums[0, c] += np.float64(zero if x[r, c, 0] > zero else gy[r, c, 0] * x[r, c, 0])


@kernel("prelu.grad_w", backend="numba_cpu", variant="split", when=real)
def prelu_grad_w_split(gy, x, w):
    """Sums in float64 for each task, then the sum of those."""
    shares = _shares(w, gy, x)
    loop = column_sums_loop if w.size > 1 and prod(x.shape[2:]) == 1 else sums_loop
    sums = [np.zeros((share[0].shape[0] if loop is sums_loop else 1, w.size)) for share in shares]
    _each(lambda number: loop(sums[number], *shares[number]), len(shares))
    gw = empty(w.shape, x.dtype)
    gw[...] = np.concatenate([*sums, np.zeros((1, w.size))]).sum(axis=0)
    return gw
