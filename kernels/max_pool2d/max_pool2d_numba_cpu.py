"""max_pool2d on Numba for the processor: rows of windows in vectors, sizes of common windows known to the compiler."""
# op: gpunet/ops/max_pool2d.py
# ruff: noqa: E741 k and l are the title page's
#
# task    some planes, of one channel of one image each: over_planes in kernels/common/pooling_numba_cpu.py
# lanes   windows of one row, neighbours
# reads   each pixel once: what a row of pixels gives its windows is kept for the windows below
# needs   arrays in rows; others are copied first
#
# Loops walk flat arrays by places, x0 the place where a row of x begins: a view of a row costs its reference count, and
# so does handing an array to a function that is not pasted in.

from functools import cache

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.lanes_numba_cpu import (
    LANES,
    beats,
    equal,
    load,
    load_pairs,
    load_step,
    plus,
    same,
    store,
    store_pairs,
    where,
)  # fmt: skip
from ..common.pooling_numba_cpu import common, inside, many, over_planes, planes_of, real


def rows_forward(x, *, output_size, **windows):
    """Whether windows are of a kind that has a kernel of its own."""
    return common(x, x.shape[2:], output_size, **windows)


def rows_grad_x(gy, index, *, input_size, kernel_size, stride, **windows):
    """Whether windows are of a kind that has a kernel of its own; 3 x 3 at steps of 2 are faster one by one."""
    known = common(gy, input_size, gy.shape[2:], kernel_size=kernel_size, stride=stride, **windows)
    if known is not True or kernel_size == stride or stride == (1, 1):
        return known
    return "it takes 2 x 2 windows at steps of 2, or 3 x 3 at steps of 1"


# -- forward -----------------------------------------------------------------------------------------------------------
# A window is decided in two steps: the winner of each of its rows, left to right, then the winner among those, top to
# bottom. That is row order, so ties and NaN end as in the definition. Windows are taken LANES at a time; the last ones
# of a row may be taken twice, with the same result.


@compiled(inline=True)
def challenge(best, place, value, position, like):
    """The winner of best and a later value, and its place."""
    wins = beats(value, best)
    return where(wins, value, best), where(wins, same(position, like), place)


@compiled(inline=True)
def decide_few(best, place, b0, OW, x, x0, W, first, stop, KW, sw, pw, dw):
    """The winners of a row of pixels under windows but first .. stop - 1: parts of these may lie outside."""
    for e in range(first + OW - stop):
        j = e if e < first else e - first + stop
        left = j * sw - pw
        start = 0 if left >= 0 else (-left + dw - 1) // dw
        winner, at = x[x0 + left + start * dw], start
        for l in range(start + 1, KW):
            if left + l * dw >= W:
                break
            value = x[x0 + left + l * dw]
            wins = (value > winner) | (value != value)
            winner, at = value if wins else winner, l if wins else at
        best[b0 + j], place[b0 + j] = winner, at


@compiled(inline=True)
def decide(best, place, b0, OW, x, x0, W, first, stop, KW, sw, pw, dw):
    """The winners of a row of pixels under all windows; first .. stop - 1 lie inside, none or LANES at the least."""
    decide_few(best, place, b0, OW, x, x0, W, first, stop, KW, sw, pw, dw)
    for t in range(first, stop, LANES):
        j = min(t, stop - LANES)
        left = x0 + j * sw - pw
        b, at = load_step(x, left, sw), same(0, place)
        for l in range(1, KW):
            b, at = challenge(b, at, load_step(x, left + l * dw, sw), l, place)
        store(best, b0 + j, b)
        store(place, b0 + j, at)


@compiled(inline=True)
def meet(y, index, y0, OW, best, place, b0, first, stop, KW, dh):
    """The winners of windows from those of their rows k = first .. stop - 1, which begin at b0, dh rows apart."""
    if OW < LANES:
        for j in range(OW):
            winner, at = best[b0 + j], first * KW + place[b0 + j]
            for k in range(1, stop - first):
                value = best[b0 + k * dh * OW + j]
                wins = (value > winner) | (value != value)
                winner, at = value if wins else winner, (first + k) * KW + place[b0 + k * dh * OW + j] if wins else at
            y[y0 + j], index[y0 + j] = winner, at
        return
    for t in range(0, OW, LANES):
        j = min(t, OW - LANES)
        b, at = load(best, b0 + j), plus(load(place, b0 + j), same(first * KW, index))
        for k in range(1, stop - first):
            b1 = b0 + k * dh * OW + j
            value = load(best, b1)
            wins = beats(value, b)
            b, at = where(wins, value, b), where(wins, plus(load(place, b1), same((first + k) * KW, index)), at)
        store(y, y0 + j, b)
        store(index, y0 + j, at)


@compiled
def max_pool2d_forward_plain_loop(y, index, x, KH, KW, sh, sw, ph, pw, dh, dw):
    """Plane by plane."""
    (P, H, W), (_, OH, OW) = x.shape, y.shape
    ys, at, xs = y.reshape(-1), index.reshape(-1), x.reshape(-1)
    best, place = np.empty(H * OW, x.dtype), np.empty(H * OW, index.dtype)
    first, stop = inside(OW, W, (KW - 1) * dw + 1, sw, pw)
    for p in range(P):
        done = 0
        for i in range(OH):
            top = i * sh - ph
            begin = 0 if top >= 0 else (-top + dh - 1) // dh
            end = min(KH, (H - top + dh - 1) // dh)
            for r in range(max(done, top), top + (end - 1) * dh + 1):
                decide(best, place, r * OW, OW, xs, (p * H + r) * W, W, first, stop, KW, sw, pw, dw)
                done = r + 1
            meet(ys, at, (p * OH + i) * OW, OW, best, place, (top + begin * dh) * OW, begin, end, KW, dh)


@kernel("max_pool2d.forward", backend="numba_cpu", variant="plain", when=real, pays=many)
def max_pool2d_forward_plain(x, *, kernel_size, stride, padding, dilation, output_size):
    """Windows of any kind."""
    y, index = _outputs(x, kernel_size, output_size)
    numbers = (*kernel_size, *stride, *padding, *dilation)
    over_planes(max_pool2d_forward_plain_loop, planes_of(y), planes_of(index), planes_of(x), numbers=numbers)
    return y, index


@compiled
def max_pool2d_forward_halves_loop(y, index, x):
    """2 x 2 windows at steps of 2, all inside: two rows of pixels make one of outputs."""
    (P, OH, OW), (_, H, W) = y.shape, x.shape
    ys, place, xs = y.reshape(-1), index.reshape(-1), x.reshape(-1)
    for p in range(P):
        for i in range(OH):
            y0, above = (p * OH + i) * OW, (p * H + 2 * i) * W
            below = above + W
            if OW < LANES:
                for j in range(OW):
                    winner, at = xs[above + 2 * j], 0
                    for l in range(1, 4):
                        value = xs[above + 2 * j + l] if l < 2 else xs[below + 2 * j + l - 2]
                        wins = (value > winner) | (value != value)
                        winner, at = value if wins else winner, l if wins else at
                    ys[y0 + j], place[y0 + j] = winner, at
            else:
                for t in range(0, OW, LANES):
                    j = min(t, OW - LANES)
                    b, value = load_pairs(xs, above + 2 * j)
                    b, at = challenge(b, same(0, place), value, 1, place)
                    even, odd = load_pairs(xs, below + 2 * j)
                    b, at = challenge(b, at, even, 2, place)
                    b, at = challenge(b, at, odd, 3, place)
                    store(ys, y0 + j, b)
                    store(place, y0 + j, at)


@cache
def max_pool2d_forward_rows_loop(S):
    """The loop for 3 x 3 windows at steps of S, 1 or 2, which the compiler knows."""

    @compiled(inline=True)
    def decide_three(best, place, b0, OW, x, x0, W, first, stop, pw):
        decide_few(best, place, b0, OW, x, x0, W, first, stop, 3, S, pw, 1)
        for t in range(first, stop, LANES):
            j = min(t, stop - LANES)
            left = x0 + j * S - pw
            if S == 2:
                b, one = load_pairs(x, left)
                two = load_pairs(x, left + 1)[1]
            else:
                b, one, two = load(x, left), load(x, left + 1), load(x, left + 2)
            b, at = challenge(b, same(0, place), one, 1, place)
            b, at = challenge(b, at, two, 2, place)
            store(best, b0 + j, b)
            store(place, b0 + j, at)

    @compiled(inline=True)
    def meet_three(y, index, y0, OW, best, place, b0):
        b1, b2 = b0 + OW, b0 + 2 * OW
        for t in range(0, OW, LANES):
            j = min(t, OW - LANES)
            b, value = load(best, b0 + j), load(best, b1 + j)
            wins = beats(value, b)
            b = where(wins, value, b)
            at = where(wins, plus(load(place, b1 + j), same(3, index)), load(place, b0 + j))
            value = load(best, b2 + j)
            wins = beats(value, b)
            store(y, y0 + j, where(wins, value, b))
            store(index, y0 + j, where(wins, plus(load(place, b2 + j), same(6, index)), at))

    @compiled
    def loop(y, index, x, ph, pw):
        (P, H, W), (_, OH, OW) = x.shape, y.shape
        ys, at, xs = y.reshape(-1), index.reshape(-1), x.reshape(-1)
        best, place = np.empty(H * OW, x.dtype), np.empty(H * OW, np.uint8)
        first, stop = inside(OW, W, 3, S, pw)
        for p in range(P):
            for r in range(H):
                decide_three(best, place, r * OW, OW, xs, (p * H + r) * W, W, first, stop, pw)
            for i in range(OH):
                top, y0 = i * S - ph, (p * OH + i) * OW
                if top >= 0 and top + 3 <= H and OW >= LANES:
                    meet_three(ys, at, y0, OW, best, place, top * OW)
                else:
                    begin = max(0, -top)
                    meet(ys, at, y0, OW, best, place, (top + begin) * OW, begin, min(3, H - top), 3, 1)

    return loop


@kernel("max_pool2d.forward", backend="numba_cpu", variant="rows", when=rows_forward, pays=many)
def max_pool2d_forward_rows(x, *, kernel_size, stride, padding, dilation, output_size):
    """Windows of a common kind."""
    y, index = _outputs(x, kernel_size, output_size)
    arrays = planes_of(y), planes_of(index), planes_of(x)
    if kernel_size == (2, 2):
        over_planes(max_pool2d_forward_halves_loop, *arrays)
    else:
        over_planes(max_pool2d_forward_rows_loop(stride[0]), *arrays, numbers=padding)
    return y, index


def _outputs(x, kernel_size, output_size):
    """y, and the winners' positions: bytes where they fit."""
    shape = (*x.shape[:2], *output_size)
    return empty(shape, x.dtype), empty(shape, np.uint8 if kernel_size[0] * kernel_size[1] <= 256 else np.int32)


# -- grad_x ------------------------------------------------------------------------------------------------------------


def _offsets(kernel_size, dilation, W):
    """How far each position of a window lies behind its first, in a plane of rows of W: (KH * KW,)."""
    k, l = np.divmod(np.arange(kernel_size[0] * kernel_size[1]), kernel_size[1])
    return k * dilation[0] * W + l * dilation[1]


@compiled
def max_pool2d_grad_x_plain_loop(gx, gy, index, offsets, sh, sw, ph, pw):
    """Window by window, the last one first: a pixel then collects by rising position, the definition's order."""
    (P, OH, OW), (_, H, W) = gy.shape, gx.shape
    to, g, place = gx.reshape(-1), gy.reshape(-1), index.reshape(-1)
    for p in range(P):
        first = p * H * W
        to[first : first + H * W] = 0
        for i in range(OH - 1, -1, -1):
            left, o = first + (i * sh - ph) * W - pw, (p * OH + i) * OW
            for j in range(OW - 1, -1, -1):
                e = left + j * sw + offsets[place[np.uint64(o + j)]]
                to[np.uint64(e)] += g[np.uint64(o + j)]  # unsigned: else Numba asks each index whether it is below 0


@kernel("max_pool2d.grad_x", backend="numba_cpu", variant="plain", when=real, pays=many)
def max_pool2d_grad_x_plain(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """Windows of any kind."""
    gx = empty((*gy.shape[:2], *input_size), gy.dtype)
    numbers = (_offsets(kernel_size, dilation, input_size[1]), *stride, *padding)
    over_planes(max_pool2d_grad_x_plain_loop, planes_of(gx), planes_of(gy), planes_of(index), numbers=numbers)
    return gx


@compiled
def max_pool2d_grad_x_halves_loop(gx, gy, index):
    """2 x 2 windows at steps of 2, all inside: one row of outputs makes two of pixels."""
    (P, OH, OW), (_, H, W) = gy.shape, gx.shape
    to, g, place = gx.reshape(-1), gy.reshape(-1), index.reshape(-1)
    zero = gy.dtype.type(0)
    for p in range(P):
        for i in range(OH):
            o, above = (p * OH + i) * OW, (p * H + 2 * i) * W
            below = above + W
            if OW < LANES:
                for j in range(OW):
                    v, at = g[o + j], place[o + j]
                    to[above + 2 * j] = v if at == 0 else zero
                    to[above + 2 * j + 1] = v if at == 1 else zero
                    to[below + 2 * j] = v if at == 2 else zero
                    to[below + 2 * j + 1] = v if at == 3 else zero
            else:
                for t in range(0, OW, LANES):
                    j = min(t, OW - LANES)
                    v, at, none = load(g, o + j), load(place, o + j), same(0, g)
                    even, odd = equal(at, same(0, place)), equal(at, same(1, place))
                    store_pairs(to, above + 2 * j, where(even, v, none), where(odd, v, none))
                    even, odd = equal(at, same(2, place)), equal(at, same(3, place))
                    store_pairs(to, below + 2 * j, where(even, v, none), where(odd, v, none))
            for c in range(2 * OW, W):
                to[above + c] = zero
                to[below + c] = zero
        for e in range((p * H + 2 * OH) * W, (p + 1) * H * W):
            to[e] = zero


@compiled(inline=True)
def add_row(line, g, place, o, count, k):
    """Adds what row k of the windows gives to ``count`` pixels; g[o] is the first window."""
    for e in range(0, count, LANES):
        a, zero = load(line, e), same(0, g)
        at, v = load(place, o + e), load(g, o + e)
        a = plus(a, where(equal(at, same(3 * k, place)), v, zero))
        at, v = load(place, o + e - 1), load(g, o + e - 1)
        a = plus(a, where(equal(at, same(3 * k + 1, place)), v, zero))
        at, v = load(place, o + e - 2), load(g, o + e - 2)
        store(line, e, plus(a, where(equal(at, same(3 * k + 2, place)), v, zero)))


@compiled
def max_pool2d_grad_x_rows_loop(gx, gy, index, ph, pw):
    """3 x 3 windows at steps of 1.

    A row of pixels asks the up to three rows of windows over it, by rising position. Windows lie in memory of their own
    with zeros on either side, so that each pixel may ask as many neighbours as any; so does the row of pixels, whose
    first is that under the first window, in the image or not.
    """
    (P, OH, OW), (_, H, W) = gy.shape, gx.shape
    to, gs, winners = gx.reshape(-1), gy.reshape(-1), index.reshape(-1)
    before = 2  # windows that reach to the right as far as the first pixel under a window
    count = max(OW + before, W + pw)
    pitch = before + count + LANES
    g, place = np.zeros(OH * pitch, gy.dtype), np.zeros(OH * pitch, index.dtype)
    line = np.zeros(count + LANES, gy.dtype)
    for p in range(P):
        for i in range(OH):
            for j in range(OW):
                g[np.uint64(i * pitch + before + j)] = gs[np.uint64((p * OH + i) * OW + j)]
            for j in range(OW):
                place[np.uint64(i * pitch + before + j)] = winners[np.uint64((p * OH + i) * OW + j)]
        for r in range(H):
            for e in range(0, count, LANES):
                store(line, e, same(0, line))
            for k in range(3):
                i = r + ph - k
                if 0 <= i < OH:
                    add_row(line, g, place, i * pitch + before, count, k)
            x0 = (p * H + r) * W
            if W < LANES:
                for c in range(W):
                    to[x0 + c] = line[pw + c]
            else:
                for t in range(0, W, LANES):
                    c = min(t, W - LANES)
                    store(to, x0 + c, load(line, pw + c))


@kernel("max_pool2d.grad_x", backend="numba_cpu", variant="rows", when=rows_grad_x, pays=many)
def max_pool2d_grad_x_rows(gy, index, *, input_size, kernel_size, stride, padding, dilation):
    """Windows of a common kind."""
    gx = empty((*gy.shape[:2], *input_size), gy.dtype)
    arrays = planes_of(gx), planes_of(gy), planes_of(index)
    if kernel_size == (2, 2):
        over_planes(max_pool2d_grad_x_halves_loop, *arrays)
    else:
        over_planes(max_pool2d_grad_x_rows_loop, *arrays, numbers=padding)
    return gx


# -- gather ------------------------------------------------------------------------------------------------------------


@compiled
def max_pool2d_gather_plain_loop(y, x, index, offsets, sh, sw, ph, pw):
    """Window by window."""
    (P, OH, OW), (_, H, W) = y.shape, x.shape
    ys, xs, place = y.reshape(-1), x.reshape(-1), index.reshape(-1)
    for p in range(P):
        for i in range(OH):
            for j in range(OW):
                o = np.uint64((p * OH + i) * OW + j)
                ys[o] = xs[np.uint64((p * H + i * sh - ph) * W + j * sw - pw + offsets[place[o]])]


@kernel("max_pool2d.gather", backend="numba_cpu", variant="plain", when=real, pays=many)
def max_pool2d_gather_plain(x, index, *, kernel_size, stride, padding, dilation):
    """Windows of any kind."""
    y = empty(index.shape, x.dtype)
    numbers = (_offsets(kernel_size, dilation, x.shape[3]), *stride, *padding)
    over_planes(max_pool2d_gather_plain_loop, planes_of(y), planes_of(x), planes_of(index), numbers=numbers)
    return y
