"""avg_pool2d on Numba for the processor: sums of rows in vectors, sizes of common windows known to the compiler."""
# op: gpunet/ops/avg_pool2d.py
# ruff: noqa: E741 k and l are the title page's
#
# task    some planes, of one channel of one image each: over_planes in kernels/common/pooling_numba_cpu.py
# lanes   neighbours in a row; the last ones of a row may be taken twice, with the same result
# reads   a row of pixels once for each row of windows that holds it
# needs   arrays in rows; others are copied first
#
# A window is a rectangle: its rows are added up first, pixel by pixel, then the sums under each window; backward
# likewise, the rows of windows that hold a row of pixels first. The row in between has zeros for the padding.
# Loops walk flat arrays by places, x0 the place where a row of x begins: a view of a row costs its reference count.

from functools import cache, lru_cache

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.lanes_numba_cpu import LANES, load, load_pairs, load_step, over, plus, same, store, store_pairs, times
from ..common.pooling_numba_cpu import add_rows, common, many, over_planes, planes_of, real


def rows_forward(x, *, output_size, kernel_size, stride, padding, **_):
    """Whether windows are of a kind that has a kernel of its own."""
    return common(x, x.shape[2:], output_size, kernel_size, stride, padding)


def rows_grad_x(gy, *, input_size, kernel_size, stride, padding, **_):
    """Whether windows are of a kind that has a kernel of its own."""
    return common(gy, input_size, gy.shape[2:], kernel_size, stride, padding)


@lru_cache(maxsize=256)
def _divisors(dtype, input_size, output_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """What windows are divided by is rows[i] * columns[j]: these two."""
    if divisor_override is not None:
        return np.full(output_size[0], divisor_override, dtype), np.ones(output_size[1], dtype)
    counts = []
    for size, out, length, s, pad in zip(input_size, output_size, kernel_size, stride, padding, strict=True):
        start = np.arange(out) * s - pad
        stop = np.minimum(start + length, size + pad)
        if not count_include_pad:
            start, stop = np.maximum(start, 0), np.minimum(stop, size)
        counts.append((stop - start).astype(dtype))
    return counts


# -- forward -----------------------------------------------------------------------------------------------------------


@compiled(inline=True)
def few_means(y, y0, OW, sums, KW, sw, rows, columns, i):
    """The means of a row shorter than LANES."""
    for j in range(OW):
        total = sums[j * sw]
        for l in range(1, KW):
            total += sums[j * sw + l]
        y[y0 + j] = total / (rows[i] * columns[j])


@compiled
def avg_pool2d_forward_plain_loop(y, x, rows, columns, KH, KW, sh, sw, ph, pw):
    """Plane by plane."""
    (P, H, W), (_, OH, OW) = x.shape, y.shape
    ys, xs = y.reshape(-1), x.reshape(-1)
    sums = np.zeros(max(pw + W, (OW - 1) * sw + KW), x.dtype)
    for p in range(P):
        for i in range(OH):
            top, y0 = i * sh - ph, (p * OH + i) * OW
            add_rows(sums, pw, xs, (p * H + top) * W, W, max(0, -top), min(KH, H - top))
            if OW < LANES:
                few_means(ys, y0, OW, sums, KW, sw, rows, columns, i)
            else:
                for t in range(0, OW, LANES):
                    j = min(t, OW - LANES)
                    total = load_step(sums, j * sw, sw)
                    for l in range(1, KW):
                        total = plus(total, load_step(sums, j * sw + l, sw))
                    store(ys, y0 + j, over(total, times(same(rows[i], y), load(columns, j))))


@kernel("avg_pool2d.forward", backend="numba_cpu", variant="plain", when=real, pays=many)
def avg_pool2d_forward_plain(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """Windows of any kind."""
    y = empty((*x.shape[:2], *output_size), x.dtype)
    windows = kernel_size, stride, padding
    rows, columns = _divisors(x.dtype, x.shape[2:], output_size, *windows, count_include_pad, divisor_override)
    numbers = (rows, columns, *kernel_size, *stride, *padding)
    over_planes(avg_pool2d_forward_plain_loop, planes_of(y), planes_of(x), numbers=numbers)
    return y


@compiled
def avg_pool2d_forward_halves_loop(y, x, divisor):
    """2 x 2 windows at steps of 2, all inside: two rows of pixels make one of outputs."""
    (P, OH, OW), (_, H, W) = y.shape, x.shape
    ys, xs, size = y.reshape(-1), x.reshape(-1), y.dtype.type(divisor)
    for p in range(P):
        for i in range(OH):
            y0, above = (p * OH + i) * OW, (p * H + 2 * i) * W
            below = above + W
            if OW < LANES:
                for j in range(OW):
                    upper = xs[above + 2 * j] + xs[above + 2 * j + 1]
                    ys[y0 + j] = (upper + (xs[below + 2 * j] + xs[below + 2 * j + 1])) / size
            else:
                for t in range(0, OW, LANES):
                    j = min(t, OW - LANES)
                    (a, b), (c, d) = load_pairs(xs, above + 2 * j), load_pairs(xs, below + 2 * j)
                    store(ys, y0 + j, over(plus(plus(a, b), plus(c, d)), same(size, y)))


@cache
def avg_pool2d_forward_rows_loop(S):
    """The loop for 3 x 3 windows at steps of S, 1 or 2, which the compiler knows."""

    @compiled
    def loop(y, x, rows, columns, ph, pw):
        (P, H, W), (_, OH, OW) = x.shape, y.shape
        ys, xs = y.reshape(-1), x.reshape(-1)
        sums = np.zeros(max(pw + W, (OW - 1) * S + 3), x.dtype)
        for p in range(P):
            for i in range(OH):
                top, y0 = i * S - ph, (p * OH + i) * OW
                add_rows(sums, pw, xs, (p * H + top) * W, W, max(0, -top), min(3, H - top))
                if OW < LANES:
                    few_means(ys, y0, OW, sums, 3, S, rows, columns, i)
                else:
                    for t in range(0, OW, LANES):
                        j = min(t, OW - LANES)
                        if S == 2:
                            a, b = load_pairs(sums, 2 * j)
                            c = load_pairs(sums, 2 * j + 1)[1]
                        else:
                            a, b, c = load(sums, j), load(sums, j + 1), load(sums, j + 2)
                        total = plus(plus(a, b), c)
                        store(ys, y0 + j, over(total, times(same(rows[i], y), load(columns, j))))

    return loop


@kernel("avg_pool2d.forward", backend="numba_cpu", variant="rows", when=rows_forward, pays=many)
def avg_pool2d_forward_rows(x, *, kernel_size, stride, padding, output_size, count_include_pad, divisor_override):
    """Windows of a common kind."""
    y = empty((*x.shape[:2], *output_size), x.dtype)
    if kernel_size == (2, 2):
        size = 4 if divisor_override is None else divisor_override
        over_planes(avg_pool2d_forward_halves_loop, planes_of(y), planes_of(x), numbers=(float(size),))
        return y
    windows = kernel_size, stride, padding
    rows, columns = _divisors(x.dtype, x.shape[2:], output_size, *windows, count_include_pad, divisor_override)
    loop = avg_pool2d_forward_rows_loop(stride[0])
    over_planes(loop, planes_of(y), planes_of(x), numbers=(rows, columns, *padding))
    return y


# -- grad_x ------------------------------------------------------------------------------------------------------------


@compiled(inline=True)
def add_shares(sums, s0, g, g0, OW, rows, columns, last, count):
    """The sums of the shares of ``count`` rows of windows, the last one first; row 0 of the plane begins at g0."""
    if OW < LANES:
        for j in range(OW):
            total = sums.dtype.type(0)
            for i in range(last, last - count, -1):
                total += g[g0 + i * OW + j] / (rows[i] * columns[j])
            sums[s0 + j] = total
    else:
        for t in range(0, OW, LANES):
            j = min(t, OW - LANES)
            total, column = same(0, sums), load(columns, j)
            for i in range(last, last - count, -1):
                share = over(load(g, g0 + i * OW + j), times(same(rows[i], sums), column))
                total = plus(total, share)
            store(sums, s0 + j, total)


@compiled
def avg_pool2d_grad_x_plain_loop(gx, gy, rows, columns, KH, KW, sh, sw, ph, pw):
    """Plane by plane; a row of pixels held by the same windows as the row above it is a copy of that."""
    (P, OH, OW), (_, H, W) = gy.shape, gx.shape
    to, g = gx.reshape(-1), gy.reshape(-1)
    sums, wide = np.zeros(OW, gx.dtype), np.zeros(max(pw + W, (OW - 1) * sw + KW), gx.dtype)
    for p in range(P):
        last, count = -1, -1
        for r in range(H):
            above = last, count
            last = min(OH - 1, (r + ph) // sh)
            count = max(0, last - max(0, (r + ph - KH + sh) // sh) + 1)
            if (last, count) != above:
                add_shares(sums, 0, g, p * OH * OW, OW, rows, columns, last, count)
                wide[:] = 0
                for l in range(KW):
                    for j in range(OW):
                        wide[np.uint64(j * sw + l)] += sums[j]
            x0 = (p * H + r) * W
            for c in range(W):
                to[x0 + c] = wide[pw + c]


@kernel("avg_pool2d.grad_x", backend="numba_cpu", variant="plain", when=real, pays=many)
def avg_pool2d_grad_x_plain(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """Windows of any kind."""
    gx = empty((*gy.shape[:2], *input_size), gy.dtype)
    windows = kernel_size, stride, padding
    rows, columns = _divisors(gy.dtype, input_size, gy.shape[2:], *windows, count_include_pad, divisor_override)
    numbers = (rows, columns, *kernel_size, *stride, *padding)
    over_planes(avg_pool2d_grad_x_plain_loop, planes_of(gx), planes_of(gy), numbers=numbers)
    return gx


@compiled
def avg_pool2d_grad_x_halves_loop(gx, gy, divisor):
    """2 x 2 windows at steps of 2, all inside: one row of outputs makes two of pixels."""
    (P, OH, OW), (_, H, W) = gy.shape, gx.shape
    to, g, size, zero = gx.reshape(-1), gy.reshape(-1), gy.dtype.type(divisor), gy.dtype.type(0)
    for p in range(P):
        for i in range(OH):
            o, above = (p * OH + i) * OW, (p * H + 2 * i) * W
            below = above + W
            if OW < LANES:
                for j in range(OW):
                    share = g[o + j] / size
                    to[above + 2 * j], to[above + 2 * j + 1] = share, share
                    to[below + 2 * j], to[below + 2 * j + 1] = share, share
            else:
                for t in range(0, OW, LANES):
                    j = min(t, OW - LANES)
                    share = over(load(g, o + j), same(size, gy))
                    store_pairs(to, above + 2 * j, share, share)
                    store_pairs(to, below + 2 * j, share, share)
            for c in range(2 * OW, W):
                to[above + c] = zero
                to[below + c] = zero
        for e in range((p * H + 2 * OH) * W, (p + 1) * H * W):
            to[e] = zero


@cache
def avg_pool2d_grad_x_rows_loop(S):
    """The loop for 3 x 3 windows at steps of S, 1 or 2, which the compiler knows.

    The sums have LANES zeros on both sides, for windows that do not exist.
    """

    @compiled(inline=True)
    def few(gx, x0, start, stop, sums, pw):
        """Pixels start .. stop - 1 of a row, one by one."""
        for c in range(start, stop):
            s = LANES + (c + pw) // S
            if S == 2:
                gx[x0 + c] = sums[s] if (c + pw) % 2 else sums[s] + sums[s - 1]
            else:
                gx[x0 + c] = sums[s] + sums[s - 1] + sums[s - 2]

    @compiled
    def loop(gx, gy, rows, columns, ph, pw):
        (P, OH, OW), (_, H, W) = gy.shape, gx.shape
        to, g = gx.reshape(-1), gy.reshape(-1)
        first, stop = (pw + S - 1) // S, (W + pw) // S  # whole groups of S pixels, the padding in front counted
        sums = np.zeros(3 * LANES + max(OW, stop), gx.dtype)
        for p in range(P):
            for r in range(H):
                last = min(OH - 1, (r + ph) // S)
                count = max(0, last - max(0, (r + ph - 3 + S) // S) + 1)
                add_shares(sums, LANES, g, p * OH * OW, OW, rows, columns, last, count)
                x0 = (p * H + r) * W
                if stop - first < LANES:
                    few(to, x0, 0, W, sums, pw)
                    continue
                few(to, x0, 0, first * S - pw, sums, pw)
                few(to, x0, stop * S - pw, W, sums, pw)
                for t in range(first, stop, LANES):
                    m = min(t, stop - LANES)
                    own, left = load(sums, LANES + m), load(sums, LANES + m - 1)
                    if S == 2:
                        store_pairs(to, x0 + 2 * m - pw, plus(own, left), own)
                    else:
                        store(to, x0 + m - pw, plus(plus(own, left), load(sums, LANES + m - 2)))

    return loop


@kernel("avg_pool2d.grad_x", backend="numba_cpu", variant="rows", when=rows_grad_x, pays=many)
def avg_pool2d_grad_x_rows(gy, *, input_size, kernel_size, stride, padding, count_include_pad, divisor_override):
    """Windows of a common kind."""
    gx = empty((*gy.shape[:2], *input_size), gy.dtype)
    if kernel_size == (2, 2):
        size = 4 if divisor_override is None else divisor_override
        over_planes(avg_pool2d_grad_x_halves_loop, planes_of(gx), planes_of(gy), numbers=(float(size),))
        return gx
    windows = kernel_size, stride, padding
    rows, columns = _divisors(gy.dtype, input_size, gy.shape[2:], *windows, count_include_pad, divisor_override)
    loop = avg_pool2d_grad_x_rows_loop(stride[0])
    over_planes(loop, planes_of(gx), planes_of(gy), numbers=(rows, columns, *padding))
    return gx
