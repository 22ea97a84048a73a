"""conv2d on the processor: transforms of the rung winograd_4x4, filters to U, images to V and products to outputs."""
# op: gpunet/ops/conv2d.py
#
# The launchers, and what U and V are, stand in winograd_numba_cpu.py.

from typing import NamedTuple

import numpy as np

from gpunet.cpu.jit import compiled

from ..common.tiles_numba_cpu import ROWS, copy_elements, registers, width, zero_elements
from ..common.vectors_numba_cpu import (
    at_least,
    load,
    load_every,
    spread,
    store,
    store_every_fourth,
    store_parts,
    transpose_block,
)  # fmt: skip

M = 4  # outputs of a tile down and across
S = 6  # pixels of it
PLACES = S * S
LANES = registers()[0] // 4
WIDE = width(np.float32)  # tiles of a block
PITCH = WIDE + LANES  # from one channel of V to the next: a vector that begins in a block may end behind it
GROUP = 16  # filters: a multiple of ROWS and of LANES


class Sizes(NamedTuple):
    """Of one call, as the compiled code sees them."""

    N: int
    C: int
    H: int
    W: int
    F: int
    OH: int
    OW: int
    TH: int
    """Tiles down and across."""
    TW: int
    top: int
    left: int


@compiled
def filter_values(g0, g1, g2):
    """G g: with a = 3/4 and b = 3/2, 1 / (a a b b), 1 / (2 a a (a a - b b)) and 1 / (2 b b (b b - a a)) in it."""
    a_even = spread(np.float32(-128 / 243)) * g0 - spread(np.float32(8 / 27)) * g2
    b_even = spread(np.float32(32 / 243)) * g0 + spread(np.float32(8 / 27)) * g2
    a_odd, b_odd = spread(np.float32(-32 / 81)) * g1, spread(np.float32(16 / 81)) * g1
    return spread(np.float32(64 / 81)) * g0, a_even + a_odd, a_even - a_odd, b_even + b_odd, b_even - b_odd, g2


@compiled
def pixel_values(d0, d1, d2, d3, d4, d5):
    """B^T d; all numbers of B are exact."""
    a_a, b_b = spread(np.float32(0.5625)), spread(np.float32(2.25))
    both, product = spread(np.float32(2.8125)), spread(np.float32(1.265625))
    a_even, b_even = d4 - b_b * d2, d4 - a_a * d2
    a_odd, b_odd = spread(np.float32(0.75)) * (d3 - b_b * d1), spread(np.float32(1.5)) * (d3 - a_a * d1)
    first, last = (d4 - both * d2) + product * d0, (d5 - both * d3) + product * d1
    return first, a_even + a_odd, a_even - a_odd, b_even + b_odd, b_even - b_odd, last


@compiled
def output_values(z0, z1, z2, z3, z4, z5):
    """A^T z."""
    a_sum, a_difference, b_sum, b_difference = z1 + z2, z1 - z2, z3 + z4, z3 - z4
    second = spread(np.float32(0.75)) * a_difference + spread(np.float32(1.5)) * b_difference
    third = spread(np.float32(0.5625)) * a_sum + spread(np.float32(2.25)) * b_sum
    fourth = spread(np.float32(0.421875)) * a_difference + spread(np.float32(3.375)) * b_difference
    return z0 + (a_sum + b_sum), second, third, fourth + z5


@compiled(inline=True)
def sizes_of(n):
    """Sizes from an array of them, which costs a call a tenth of what a tuple does."""
    return Sizes(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10])


@compiled
def store_six(array, at, step, values):
    """Six vectors, ``step`` apart."""
    v0, v1, v2, v3, v4, v5 = values
    store(array, at, v0)
    store(array, at + step, v1)
    store(array, at + 2 * step, v2)
    store(array, at + 3 * step, v3)
    store(array, at + 4 * step, v4)
    store(array, at + 5 * step, v5)


@compiled(inline=True)
def store_filters(u, to, u_place, u_part, g0, g1, g2, g3, g4, g5, g6, g7, g8):
    """G g G^T of LANES filters."""
    p0, p1, p2, p3, p4, p5 = filter_values(g0, g1, g2)
    q0, q1, q2, q3, q4, q5 = filter_values(g3, g4, g5)
    r0, r1, r2, r3, r4, r5 = filter_values(g6, g7, g8)
    store_column(u, to, u_place, u_part, filter_values(p0, q0, r0))
    store_column(u, to + u_place, u_place, u_part, filter_values(p1, q1, r1))
    store_column(u, to + 2 * u_place, u_place, u_part, filter_values(p2, q2, r2))
    store_column(u, to + 3 * u_place, u_place, u_part, filter_values(p3, q3, r3))
    store_column(u, to + 4 * u_place, u_place, u_part, filter_values(p4, q4, r4))
    store_column(u, to + 5 * u_place, u_place, u_part, filter_values(p5, q5, r5))


@compiled(inline=True)
def store_column(u, to, u_place, u_part, values):
    """A column of the 36 places."""
    v0, v1, v2, v3, v4, v5 = values
    step = S * u_place
    store_parts(u, to, u_part, v0, ROWS)
    store_parts(u, to + step, u_part, v1, ROWS)
    store_parts(u, to + 2 * step, u_part, v2, ROWS)
    store_parts(u, to + 3 * step, u_part, v3, ROWS)
    store_parts(u, to + 4 * step, u_part, v4, ROWS)
    store_parts(u, to + 5 * step, u_part, v5, ROWS)


@compiled
def winograd_filters(w, begin, F, C, u):
    """U of filters begin to begin + GROUP of w (F, C, 3, 3): parts of ROWS filters, and in a part (36, C, ROWS).

    Task: a group of filters, the last taken again where there are none.   Lanes: filters.
    """
    u_place = place_of_filters(C)
    lines, rows = np.empty(9 * LANES * LANES, np.float32), np.empty(LANES, np.int64)
    for f in range(0, GROUP, LANES):
        for lane in range(LANES):
            rows[lane] = min(begin + f + lane, F - 1) * (C * 9)
        for c0 in range(0, C, LANES):  # of so many channels, filters side by side
            some = min(LANES, C - c0)
            if some == LANES:
                for k in range(9):
                    transpose_block(w, rows, c0 * 9 + k * LANES, lines, k * LANES * LANES, LANES)
            else:
                for k in range(9 * some):
                    for lane in range(LANES):
                        lines[k * LANES + lane] = w[rows[lane] + c0 * 9 + k]
            for c in range(some):
                at = c * 9 * LANES
                g0, g1, g2 = load(lines, at), load(lines, at + LANES), load(lines, at + 2 * LANES)
                g3, g4, g5 = load(lines, at + 3 * LANES), load(lines, at + 4 * LANES), load(lines, at + 5 * LANES)
                g6, g7, g8 = load(lines, at + 6 * LANES), load(lines, at + 7 * LANES), load(lines, at + 8 * LANES)
                to = f // ROWS * PLACES * u_place + f % ROWS + (c0 + c) * ROWS
                store_filters(u, to, u_place, PLACES * u_place, g0, g1, g2, g3, g4, g5, g6, g7, g8)


@compiled
def winograd_filters_turned(w, begin, across, C, u):
    """The same of w (C, across, 3, 3), where c and f have changed places and windows are turned by 180 degrees.

    Needs: ``across`` a multiple of LANES, at least begin + GROUP.
    """
    u_place = place_of_filters(C)
    for f in range(0, GROUP, LANES):
        for c in range(C):
            at = (c * across + begin + f) * 9
            g0, g1, g2 = load_every(w, at, 9, 8), load_every(w, at, 9, 7), load_every(w, at, 9, 6)
            g3, g4, g5 = load_every(w, at, 9, 5), load_every(w, at, 9, 4), load_every(w, at, 9, 3)
            g6, g7, g8 = load_every(w, at, 9, 2), load_every(w, at, 9, 1), load_every(w, at, 9, 0)
            to = f // ROWS * PLACES * u_place + f % ROWS + c * ROWS
            store_filters(u, to, u_place, PLACES * u_place, g0, g1, g2, g3, g4, g5, g6, g7, g8)


@compiled(inline=True)
def place_of_filters(C):
    """From one place of a part of U to the next. Places apart by a power of 2 would share few lines of the cache."""
    return C * ROWS + LANES


@compiled(inline=True)
def place_of_images(C):
    """From one place of V to the next."""
    return C * PITCH + LANES


@compiled
def winograd_images(x, c0, c1, first, last, numbers, tall, V):
    """V of tiles first to last, channels c0 to c1.

    Task: some channels, all tiles of a round.   Lanes: neighbouring tiles.   Needs: a strip in the second cache.
    """
    sizes = sizes_of(numbers)
    lines = sizes.TW + 1  # tiles of a line: the last has two pixels behind its own four
    start, stop = min(sizes.left, M * lines), min(sizes.left + sizes.W, M * lines)
    copied, skipped = max(0, stop - max(start, 0)), max(0, -sizes.left)
    start = max(start, 0)
    far = M * (tall + 1) * lines + 2 * LANES  # from one line of rows to the next
    pixels, rows = np.zeros(M * far, np.float32), np.empty(S * far, np.float32)  # zeros beside the image stay there
    v_place = place_of_images(sizes.C)
    for c in range(c0, c1):
        at = first // sizes.TW
        end = (last + sizes.TW - 1) // sizes.TW
        while at < end:  # strips
            n = at // sizes.TH
            i = at - n * sizes.TH
            count = min(tall, sizes.TH - i, end - at)
            plane = (count + 1) * lines  # tiles of a quarter of the rows
            image = (n * sizes.C + c) * sizes.H
            for r in range(M * count + 2):
                to = M * ((r % M) * plane + (r // M) * lines)
                row = M * i + r - sizes.top
                if row < 0 or row >= sizes.H:
                    zero_elements(pixels, to, M * lines)
                else:
                    copy_elements(pixels, to + start, x, (image + row) * sizes.W + skipped, copied)
            for q in range(0, M * plane, LANES):
                p = M * q
                d0, d1 = load_every(pixels, p, 4, 0), load_every(pixels, p, 4, 1)
                d2, d3 = load_every(pixels, p, 4, 2), load_every(pixels, p, 4, 3)
                d4, d5 = load_every(pixels, p + M, 4, 0), load_every(pixels, p + M, 4, 1)
                store_six(rows, q, far, pixel_values(d0, d1, d2, d3, d4, d5))
            for k in range(count):
                begin = (at + k) * sizes.TW - first  # in the round
                j = max(0, -begin)
                until = min(sizes.TW, last - first - begin)
                while j < until:
                    block = (begin + j) // WIDE
                    lane = begin + j - block * WIDE
                    for place in range(S):
                        q = place * far + k * lines + j
                        d0, d1, d2 = load(rows, q), load(rows, q + plane), load(rows, q + 2 * plane)
                        d3, d4, d5 = load(rows, q + 3 * plane), load(rows, q + lines), load(rows, q + plane + lines)
                        to = (block * PLACES + place) * v_place + c * PITCH + lane
                        store_six(V, to, S * v_place, pixel_values(d0, d1, d2, d3, d4, d5))
                    j += min(LANES, WIDE - lane)
            at += count


@compiled
def output_column(Z, at):
    """A^T of a column of Z."""
    step = S * ROWS * WIDE
    first, second, third = load(Z, at), load(Z, at + step), load(Z, at + 2 * step)
    return output_values(first, second, third, load(Z, at + 3 * step), load(Z, at + 4 * step), load(Z, at + 5 * step))


@compiled
def store_row(array, at, z0, z1, z2, z3, z4, z5, bias, floor):
    """A row of four outputs a tile; returns their sum, before any is cut off at ``floor``."""
    y0, y1, y2, y3 = output_values(z0, z1, z2, z3, z4, z5)
    y0, y1, y2, y3 = y0 + bias, y1 + bias, y2 + bias, y3 + bias
    store_every_fourth(array, at, at_least(y0, floor), at_least(y1, floor), at_least(y2, floor), at_least(y3, floor))
    return (y0 + y1) + (y2 + y3)


@compiled
def winograd_outputs(Z, wide, to, bias, floor, out, checks):
    """A^T Z A of one filter and ``wide`` tiles: four rows of outputs, and for each tile the sum of its outputs."""
    step = ROWS * WIDE
    for v in range(0, wide, LANES):
        at = to + v
        p0, q0, r0, s0 = output_column(Z, at)
        p1, q1, r1, s1 = output_column(Z, at + step)
        p2, q2, r2, s2 = output_column(Z, at + 2 * step)
        p3, q3, r3, s3 = output_column(Z, at + 3 * step)
        p4, q4, r4, s4 = output_column(Z, at + 4 * step)
        p5, q5, r5, s5 = output_column(Z, at + 5 * step)
        check = store_row(out, M * v, p0, p1, p2, p3, p4, p5, bias, floor)
        check += store_row(out, M * (WIDE + v), q0, q1, q2, q3, q4, q5, bias, floor)
        check += store_row(out, M * (2 * WIDE + v), r0, r1, r2, r3, r4, r5, bias, floor)
        check += store_row(out, M * (3 * WIDE + v), s0, s1, s2, s3, s4, s5, bias, floor)
        store(checks, v, check)


@compiled
def place_outputs(out, tile, count, f, y, sizes):
    """Copies outputs of so many tiles from ``tile`` on to where they belong; those outside the image are left out."""
    line = tile // sizes.TW
    j = tile - line * sizes.TW
    t = 0
    while t < count:  # tiles of one line
        n = line // sizes.TH
        i = line - n * sizes.TH
        some = min(sizes.TW - j, count - t)
        to = ((n * sizes.F + f) * sizes.OH + M * i) * sizes.OW + M * j
        wide = min(M * some, sizes.OW - M * j)
        for r in range(min(M, sizes.OH - M * i)):
            copy_elements(y, to + r * sizes.OW, out, M * (r * WIDE + t), wide)
        t += some
        line += 1
        j = 0


@compiled
def winograd_exact(tile, f, bias, floor, y, x, w, w_steps, sizes):
    """Outputs of a tile by the definition: what lies in it is inf or NaN, or became so on the way."""
    line = tile // sizes.TW
    n, oy, ox = line // sizes.TH, line % sizes.TH * M, tile % sizes.TW * M
    for i in range(oy, min(oy + M, sizes.OH)):
        for j in range(ox, min(ox + M, sizes.OW)):
            total = 0.0
            for c in range(sizes.C):
                image, window = (n * sizes.C + c) * sizes.H, w_steps[0] + f * w_steps[1] + c * w_steps[2]
                for k in range(3):
                    for m in range(3):
                        row, column = i + k - sizes.top, j + m - sizes.left
                        if 0 <= row < sizes.H and 0 <= column < sizes.W:
                            weight = w[window + (3 * k + m) * w_steps[3]]
                            total += np.float64(x[(image + row) * sizes.W + column]) * np.float64(weight)
            value = np.float32(total) + bias
            y[((n * sizes.F + f) * sizes.OH + i) * sizes.OW + j] = floor if value <= floor else value
