"""cross_entropy on Numba for the processor: vectors along the classes, or across neighbouring positions."""
# op: gpunet/ops/cross_entropy.py
#
# The weights come as an array of no elements where there are none. A position of nothing but -inf has m = -inf, and
# x - m is NaN; inf or NaN make the sum NaN.

import math

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import in_rows
from ..common.launching import is_real
from ..common.rows_numba_cpu import (
    RUN,
    SUMS,
    exp_sum,
    exp_sum_apart,
    largest,
    largest_apart,
    over_rows,
    over_units,
)
from ..common.vexp_numba_cpu import exp_below, log


def takes_neighbours(*arrays, ignore_index, label_smoothing):
    """Whether the classes of a position lie in one piece, and there are some."""
    return _takes(arrays, apart=False)


def takes_apart(*arrays, ignore_index, label_smoothing):
    """Whether the classes of a position lie apart, and there are some."""
    return _takes(arrays, apart=True)


def _takes(arrays, apart):
    real = is_real(*arrays)
    if real is not True:
        return real
    _, C, S = next(each for each in arrays if each is not None and each.ndim == 3).shape
    if C == 0:
        return "it takes at least one class"
    side = "with" if apart else "without"
    return (S != 1) == apart or f"it takes classes {side} axes behind them"


def _weights(w, like):
    return np.empty(0, like.dtype) if w is None else in_rows(w)


# -- coalesced ---------------------------------------------------------------------------------------------------------
#
# task    units of up to 1,024 neighbouring positions, 32,768 numbers or more
# lanes   neighbouring positions
# reads   x from memory once, then from the second-level cache: for the maximum and the exponentials, and for the
#         costs of all classes where labels are smoothed
# needs   axes behind the classes


@compiled(fastmath={"contract"})
def cross_entropy_forward_coalesced_loop(loss, lse, x, target, w, ignored, e, first, end, across, width):
    """Maxima and sums of neighbouring positions, then their losses."""
    _, C, S = x.shape
    real = x.dtype.type
    m, part, total = np.empty(width, x.dtype), np.empty(width, x.dtype), np.empty(width, np.float64)
    for u in range(first, end):
        o, begin = u // across, u % across * width
        stop = min(begin + width, S)
        n = stop - begin
        largest_apart(m[:n], x, o, begin, stop)
        exp_sum_apart(total[:n], part[:n], m[:n], x, o, begin, stop)
        out, logs = loss[o, begin:stop], lse[o, begin:stop]
        for j in range(n):
            part[j] = log(real(total[j]))
            logs[j] = m[j] + part[j]
        if e != 0:
            total[:] = 0
            for c in range(C):
                line = x[o, c, begin:stop]
                factor = real(1) if w.size == 0 else w[c]
                for j in range(n):
                    total[j] += (part[j] - (line[j] - m[j])) * factor
        for j in range(n):
            t = target[o, begin + j]
            if t == ignored:
                out[j] = 0
                continue
            hit = (1 - e) if w.size == 0 else (1 - e) * w[t]
            cost = (part[j] - (x[o, t, begin + j] - m[j])) * real(hit)
            out[j] = cost + real(e / C * total[j]) if e != 0 else cost


@kernel("cross_entropy.forward", backend="numba_cpu", variant="coalesced", when=takes_apart)
def cross_entropy_forward_coalesced(x, target, w, *, ignore_index, label_smoothing):
    """One lane a position."""
    loss, lse = empty(target.shape, x.dtype), empty(target.shape, x.dtype)
    if x.size:
        given = (in_rows(x), in_rows(target), _weights(w, x), ignore_index, float(label_smoothing))
        over_units(cross_entropy_forward_coalesced_loop, x.shape, loss, lse, *given)
    return loss, lse


@compiled(fastmath={"contract"})
def cross_entropy_grad_x_coalesced_loop(gx, gloss, x, lse, target, w, ignored, e, sum_w, first, end, across, width):
    """Of each position three factors: share of p, spread of w, and hit of the target, all 0 where it is ignored."""
    _, C, S = x.shape
    real = x.dtype.type
    share, spread, top = np.empty(width, x.dtype), np.empty(width, x.dtype), np.empty(width, x.dtype)
    for u in range(first, end):
        o, begin = u // across, u % across * width
        stop = min(begin + width, S)
        n = stop - begin
        any_ignored = False
        for j in range(n):
            t = target[o, begin + j]
            any_ignored |= t == ignored
            g = gloss[o, begin + j]
            factor = real(1) if w.size == 0 or t == ignored else w[t]
            spread[j] = g * real(e / C)
            share[j] = g * (real(1 - e) * factor) + spread[j] * real(sum_w)
            top[j] = lse[o, begin + j]
        for c in range(C):
            line, out = x[o, c, begin:stop], gx[o, c, begin:stop]
            if e == 0:
                for j in range(n):
                    out[j] = exp_below(line[j] - top[j]) * share[j]
            else:
                factor = real(1) if w.size == 0 else w[c]
                for j in range(n):
                    out[j] = exp_below(line[j] - top[j]) * share[j] - spread[j] * factor
        for j in range(n):
            t = target[o, begin + j]
            if t != ignored:
                factor = real(1) if w.size == 0 else w[t]
                gx[o, t, begin + j] -= gloss[o, begin + j] * (real(1 - e) * factor)
        if any_ignored:
            for c in range(C):
                out, at = gx[o, c, begin:stop], target[o, begin:stop]
                for j in range(n):
                    out[j] = real(0) if at[j] == ignored else out[j]


@kernel("cross_entropy.grad_x", backend="numba_cpu", variant="coalesced", when=takes_apart)
def cross_entropy_grad_x_coalesced(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """One lane a position."""
    gx = empty(x.shape, x.dtype)
    if x.size:
        given = (gx, *(in_rows(each) for each in (gloss, x, lse, target)))
        options = _options(w, x, ignore_index, label_smoothing)
        over_units(cross_entropy_grad_x_coalesced_loop, x.shape, *given, *options)
    return gx


def _options(w, x, ignore_index, label_smoothing):
    """Weights, label that counts nothing, smoothing, sum of weights."""
    weights = _weights(w, x)
    return weights, ignore_index, float(label_smoothing), float(x.shape[1] if w is None else weights.sum())


# -- vectorised --------------------------------------------------------------------------------------------------------
#
# task    positions of together 32,768 numbers or more, or one with more classes
# lanes   neighbouring classes
# reads   x from memory once where the classes of a position stay in the cache: for the maximum and the exponentials,
#         and for the costs of all classes where labels are smoothed
# needs   no axes behind the classes


@compiled(fastmath=SUMS)
def cost_sum(row, m, log_sum, w):
    """Sum over the classes of w * (lse - x), in float64."""
    total = 0.0
    for first in range(0, row.size, RUN):
        part = row[first : first + RUN]
        factor = w[first : first + RUN]
        sum = row.dtype.type(0)
        if w.size == 0:
            for c in range(part.size):
                sum += log_sum - (part[c] - m)
        else:
            for c in range(part.size):
                sum += (log_sum - (part[c] - m)) * factor[c]
        total += sum
    return total


@compiled
def cross_entropy_forward_vectorised_loop(loss, lse, x, target, w, ignored, e):
    """Position by position."""
    real = x.dtype.type
    for r in range(x.shape[0]):
        row, t = x[r], target[r]
        m = largest(row)
        log_sum = real(math.log(exp_sum(row, m)))
        lse[r] = m + log_sum
        if t == ignored:
            loss[r] = 0
            continue
        hit = (1 - e) if w.size == 0 else (1 - e) * w[t]
        loss[r] = (log_sum - (row[t] - m)) * real(hit)
        if e != 0:
            loss[r] += real(e / row.size * cost_sum(row, m, log_sum, w))


@kernel("cross_entropy.forward", backend="numba_cpu", variant="vectorised", when=takes_neighbours)
def cross_entropy_forward_vectorised(x, target, w, *, ignore_index, label_smoothing):
    """One vector of classes at a time."""
    loss, lse = empty(target.shape, x.dtype), empty(target.shape, x.dtype)
    if x.size:
        arrays = (loss.reshape(-1), lse.reshape(-1), in_rows(x).reshape(x.shape[:2]), in_rows(target).reshape(-1))
        options = (_weights(w, x), ignore_index, float(label_smoothing))
        over_rows(cross_entropy_forward_vectorised_loop, arrays, x.shape[1], *options)
    return loss, lse


@compiled(fastmath={"contract"})
def cross_entropy_grad_x_vectorised_loop(gx, gloss, x, lse, target, w, ignored, e, sum_w):
    """Position by position: share * p - spread * w, and at the target less by hit."""
    real = x.dtype.type
    for r in range(x.shape[0]):
        row, out, top, t = x[r], gx[r], lse[r], target[r]
        if t == ignored:
            out[:] = 0
            continue
        hit = gloss[r] * (real(1 - e) * (real(1) if w.size == 0 else w[t]))
        spread = gloss[r] * real(e / row.size)
        share = hit + spread * real(sum_w)
        if w.size == 0 or e == 0:
            for c in range(out.size):
                out[c] = exp_below(row[c] - top) * share - spread
        else:
            for c in range(out.size):
                out[c] = exp_below(row[c] - top) * share - spread * w[c]
        out[t] -= hit


@kernel("cross_entropy.grad_x", backend="numba_cpu", variant="vectorised", when=takes_neighbours)
def cross_entropy_grad_x_vectorised(gloss, x, lse, target, w, *, ignore_index, label_smoothing):
    """One vector of classes at a time."""
    gx = empty(x.shape, x.dtype)
    if x.size:
        rows = (in_rows(gloss).reshape(-1), in_rows(x).reshape(x.shape[:2]))
        rows += (in_rows(lse).reshape(-1), in_rows(target).reshape(-1))
        options = _options(w, x, ignore_index, label_smoothing)
        over_rows(cross_entropy_grad_x_vectorised_loop, (gx.reshape(x.shape[:2]), *rows), x.shape[1], *options)
    return gx
