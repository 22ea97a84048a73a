"""conv2d on the processor: the rung direct, for groups with so few filters that tiles of a product are mostly empty."""
# op: gpunet/ops/conv2d.py
#
# Forward and the gradient of the input are the walk of conv2d_numba_cpu.py, but one row of a at a time, and some rows
# of one image's group a patch, which stays in the first cache: the line of outputs q is summed as it lies in the patch,
# and its pieces are copied to y. Of grad_w each number is a dot product of such a line with one of the gradient.

import numpy as np

from gpunet.cpu import threads
from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.launching import contiguous, is_real
from ..common.shapes import cdiv
from ..common.tiles_numba_cpu import DOTS, dot_tile, multiply_tile, registers, zero_elements
from ..common.vectors_numba_cpu import at_least, copy_row, load, spread, store
from .conv2d_numba_cpu import backward_x, forward, takes, takes_grad_w, takes_grad_x
from .patches_numba_cpu import fill_patch, plan_of, rows_of, steps_of, taps_of

PATCH = 2**13  # elements of a patch and a line of outputs, about: half of a first-level cache of 64 KiB in float32
VECTORS = 6  # sums side by side
TALL, TAPS = DOTS
SINGLE = 9  # taps at once, of a filter alone
WORK = 2**20  # products of a task, about
TERMS = 2**18  # of the sums of a task of grad_b at the least


# ------------------------------------------------------------------------------------------------- forward and grad_x


@compiled
def conv2d_forward_direct_kernel(
    x, groups, a, a_steps, a_row, a_group, rows, bias, positive, y, y_first, y_image, y_row, y_down, y_across, walk,
    planes, steps, slides, pitch, height, begin, end, lanes,
):  # fmt: skip
    """Strips ``begin`` to ``end`` of the strips of ``height`` rows of outputs, counted over images, groups and rows.

    Task: some strips.   Lanes: outputs of a line.   Needs: a patch of one group in the first cache.
    """
    wide, strips, zero = VECTORS * lanes, (walk.U + height - 1) // height, x.dtype.type(0)
    patch = np.zeros(len(planes) * walk.channels * pitch + wide, x.dtype)
    line, base = np.empty(height * walk.across + wide, x.dtype), np.empty(1, np.int64)
    floor = zero if positive else x.dtype.type(-np.inf)
    for strip in range(begin, end):
        plane, u0 = strip // strips, strip % strips * height
        n, g, u1 = plane // groups, plane % groups, min(u0 + height, walk.U)
        fill_patch(patch, pitch, x, n, n + 1, g * walk.channels, groups * walk.channels, u0, u1, walk, planes, lanes)
        last = (u1 - u0 - 1) * walk.across + walk.V
        last = (u1 - u0 - 1) * walk.across + walk.V
        for r in range(rows):
            base[0] = g * a_group + r * a_row
            more = bias[g * rows + r] if len(bias) else zero
            to = y_first + n * y_image + (g * rows + r) * y_row + u0 * y_down
            if slides and lanes <= walk.V and y_across == 1:
                slide_3x3(patch, a, base[0], a_steps, more, floor, y, to, y_down, u1 - u0, walk, lanes)
                continue
            for q in range(0, last, wide):
                multiply_tile(a, base, a_steps, patch, q, steps, len(steps), line, q, 1, VECTORS)
            for u in range(u1 - u0):
                at, here = u * walk.across, to + u * y_down
                for v in range(walk.V):
                    value = line[np.uint64(at + v)] + more
                    y[np.uint64(here + v * y_across)] = floor if value <= floor else value


@compiled
def slide_3x3(patch, a, base, a_steps, more, floor, y, to, y_down, rows, walk, lanes):
    """A window of 3x3 down each vector of columns: every row of pixels is read once for the three rows of outputs."""
    a0, a1, a2 = spread(a[base + a_steps[0]]), spread(a[base + a_steps[1]]), spread(a[base + a_steps[2]])
    b0, b1, b2 = spread(a[base + a_steps[3]]), spread(a[base + a_steps[4]]), spread(a[base + a_steps[5]])
    c0, c1, c2 = spread(a[base + a_steps[6]]), spread(a[base + a_steps[7]]), spread(a[base + a_steps[8]])
    bias, least = spread(more), spread(floor)
    for column in range(0, walk.V, lanes):
        at = min(column, walk.V - lanes)  # the last vector may begin before the end of the one before
        here, row = to + at, at + 2 * walk.across
        left, mid, right = load(patch, at), load(patch, at + 1), load(patch, at + 2)
        above = bias + left * a0 + mid * a1 + right * a2
        at += walk.across
        left, mid, right = load(patch, at), load(patch, at + 1), load(patch, at + 2)
        this = above + left * b0 + mid * b1 + right * b2
        above = bias + left * a0 + mid * a1 + right * a2
        for at in range(row, row + rows * walk.across, walk.across):
            left, mid, right = load(patch, at), load(patch, at + 1), load(patch, at + 2)
            store(y, here, at_least(this + left * c0 + mid * c1 + right * c2, least))
            this = above + left * b0 + mid * b1 + right * b2
            above = bias + left * a0 + mid * a1 + right * a2
            here += y_down


def _slides(plan, steps) -> bool:
    """Whether the taps, in their order in the patch, are a window of 3x3 over one channel."""
    across = plan.walk.across
    grid = np.arange(3)[:, None] * across + np.arange(3)
    return plan.walk.channels == 1 and len(plan.planes) == 1 and np.array_equal(steps, grid.ravel())


def walk_by_lines(x, a, a_rows, plan, a_steps, groups, bias, positive, y, y_first, y_steps):
    """As ``walk_by_tiles`` of conv2d_numba_cpu.py."""
    rows, a_row, a_group = a_rows
    walk, height = plan.walk, _height(plan)
    pitch = _pitch(plan, height)
    flat, out, y_row = x.reshape(-1), y.reshape(-1), y.shape[2] * y.shape[3]
    lanes, bias = registers()[0] // x.itemsize, np.empty(0, x.dtype) if bias is None else contiguous(bias)
    strips = x.shape[0] * groups * cdiv(walk.U, height)
    work = height * walk.across * walk.channels * len(plan.taps) * rows // groups
    parts = threads.shares(strips, max(1, WORK // work))
    steps = steps_of(plan, walk.channels, pitch)
    order = np.argsort(steps, kind="stable")  # grad_x has them the other way round
    steps, a_steps = steps[order], a_steps[order]
    slides = _slides(plan, steps)
    threads.run(
        lambda number: conv2d_forward_direct_kernel(
            flat, groups, a, a_steps, a_row, a_group, rows // groups, bias, positive, out, y_first, rows * y_row, y_row,
            *y_steps, walk, plan.planes, steps, slides, pitch, height, *parts[number], lanes,
        ),
        len(parts),
    )  # fmt: skip


def _height(plan) -> int:
    """Rows of outputs of a strip."""
    walk = plan.walk
    fit = PATCH // (walk.across * (walk.channels * len(plan.planes) + 1))
    return max(1, min(walk.U, fit))


def _pitch(plan, height: int) -> int:
    """Elements of a channel of a patch for so many rows."""
    return rows_of(plan.walk, height) * plan.walk.across + plan.walk.wide


@kernel("conv2d.forward", backend="numba_cpu", variant="direct", when=takes)
def conv2d_forward_direct(x, w, b, *, stride, padding, dilation, groups):
    """y (N, F, OH, OW)."""
    return forward(x, w, b, False, stride, padding, dilation, groups, walk_by_lines)


@kernel("conv2d.forward_relu", backend="numba_cpu", variant="direct", when=takes)
def conv2d_forward_relu_direct(x, w, b, *, stride, padding, dilation, groups):
    """max(y, 0), NaN handed on."""
    return forward(x, w, b, True, stride, padding, dilation, groups, walk_by_lines)


@kernel("conv2d.grad_x", backend="numba_cpu", variant="direct", when=takes_grad_x)
def conv2d_grad_x_direct(gy, w, *, input_size, stride, padding, dilation, groups):
    """gx (N, C, H, W)."""
    return backward_x(gy, w, input_size, stride, padding, dilation, groups, walk_by_lines)


# ------------------------------------------------------------------------------------------------------------- grad_w


@compiled
def conv2d_grad_w_direct_kernel(x, gy, N, groups, FG, walk, planes, steps, pitch, height, begin, end, gw, lanes):
    """gw of parts ``begin`` to ``end``, each TALL filters of a group or less.

    Task: some parts.   Lanes: outputs of a line, whose sums are added up for each strip.   Needs: as forward.
    """
    K, size, parts = len(steps), (height * walk.across + lanes - 1) // lanes * lanes, (FG + TALL - 1) // TALL
    patch = np.zeros(len(planes) * walk.channels * pitch + lanes, x.dtype)
    lines = np.zeros(TALL * size, x.dtype)
    total = np.zeros(((end - begin) * TALL, K), np.float64)
    for n in range(N):  # outside, so that memory is read in its order
        for number in range(begin, end):
            g, f0, to = number // parts, number % parts * TALL, (number - begin) * TALL
            sums = total[to : to + min(TALL, FG - f0)]
            for u0 in range(0, walk.U, height):
                u1 = min(u0 + height, walk.U)
                fill_patch(
                    patch, pitch, x, n, n + 1, g * walk.channels, groups * walk.channels, u0, u1, walk, planes, lanes
                )
                source = ((n * groups + g) * FG + f0) * walk.U * walk.V
                add_dots(lines, size, gy, source, u0, u1, walk, patch, steps, sums, lanes)
    for number in range(begin, end):
        f0 = number % parts * TALL
        for f in range(min(TALL, FG - f0)):
            for k in range(K):
                gw[(number // parts * FG + f0 + f) * K + k] = total[(number - begin) * TALL + f, k]


@compiled
def add_dots(lines, size, gy, source, u0, u1, walk, patch, steps, total, lanes):
    """Adds to total[f, k] the product of filter f's rows u0 to u1 of gy with the patch from step k on."""
    filters, K = total.shape
    tall, wide = (1, SINGLE) if filters < TALL else (TALL, TAPS)
    rows, places, sums = np.empty(TALL, np.int64), np.empty(SINGLE, np.int64), np.empty(TALL * SINGLE, patch.dtype)
    last = (u1 - u0 - 1) * walk.across + walk.V
    for f in range(filters):
        for u in range(u0, u1):
            to = f * size + (u - u0) * walk.across
            copy_row(lines, to, gy, source + (f * walk.U + u) * walk.V, walk.V, lanes)
        zero_elements(lines, f * size + last, min(size - last, lanes))
    for f in range(0, filters, tall):
        for r in range(tall):
            rows[r] = (f + r) * size
        for k in range(0, K, wide):
            for t in range(wide):
                places[t] = steps[min(k + t, K - 1)]
            if tall == 1:
                dot_tile(lines, rows, patch, places, last, sums, 0, 1, SINGLE)
            else:
                dot_tile(lines, rows, patch, places, last, sums, 0, TALL, TAPS)
            for r in range(tall):
                for t in range(min(wide, K - k)):
                    total[f + r, k + t] += sums[r * wide + t]


@kernel("conv2d.grad_w", backend="numba_cpu", variant="direct", when=takes_grad_w)
def conv2d_grad_w_direct(gy, x, *, kernel_size, stride, padding, dilation, groups):
    """gw (F, CG, KH, KW). Where a sum is not finite the definition says which: zeros between rows met NaN."""
    gy, x = contiguous(gy), contiguous(x)
    (N, F, *out), (_, C, *size) = gy.shape, x.shape
    gw = empty((F, C // groups, *kernel_size), gy.dtype)
    if not gy.size:
        gw[...] = 0
    if not gw.size or not gy.size:
        return gw
    taps = taps_of(tuple(kernel_size), tuple(padding), tuple(dilation))
    plan = plan_of(C // groups, tuple(size), tuple(out), tuple(stride), taps, N)
    height = _height(plan)
    pitch = _pitch(plan, height)
    steps = steps_of(plan, C // groups, pitch)
    FG, lanes = F // groups, registers()[0] // x.itemsize
    work = gy.size // groups * len(steps) // cdiv(FG, TALL)
    parts = threads.shares(groups * cdiv(FG, TALL), max(1, WORK // work))
    args = x.reshape(-1), gy.reshape(-1), N, groups, FG, plan.walk, plan.planes, steps, pitch, height
    flat = gw.reshape(-1)
    threads.run(lambda number: conv2d_grad_w_direct_kernel(*args, *parts[number], flat, lanes), len(parts))
    if not np.isfinite(gw).all():
        from .conv2d_numpy import conv2d_grad_w_reference

        gw[...] = conv2d_grad_w_reference(
            gy, x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
    return gw


# ------------------------------------------------------------------------------------------------------------- grad_b


@compiled
def conv2d_grad_b_direct_kernel(gy, f_begin, f_end, filters, images, plane, gb, lanes):
    """Task: some filters.   Lanes: pixels of an image, in four sums; images are added in their order, in float64."""
    sums, zero = np.empty(lanes, gy.dtype), gy.dtype.type(0)
    totals = np.zeros(f_end - f_begin, np.float64)
    most, whole = plane // (4 * lanes) * (4 * lanes), plane // lanes * lanes
    for n in range(images):  # outside, so that memory is read in its order
        for f in range(f_begin, f_end):
            begin = (n * filters + f) * plane
            a, b, c, d = spread(zero), spread(zero), spread(zero), spread(zero)
            for i in range(begin, begin + most, 4 * lanes):
                a += load(gy, i)
                b += load(gy, i + lanes)
                c += load(gy, i + 2 * lanes)
                d += load(gy, i + 3 * lanes)
            for i in range(begin + most, begin + whole, lanes):
                a += load(gy, i)
            store(sums, 0, (a + b) + (c + d))
            inside = zero
            for lane in range(lanes):
                inside += sums[lane]
            for i in range(begin + whole, begin + plane):
                inside += gy[np.uint64(i)]
            totals[f - f_begin] += inside
    for f in range(f_begin, f_end):
        gb[f] = totals[f - f_begin]


@kernel("conv2d.grad_b", backend="numba_cpu", variant="direct", when=lambda gy: is_real(gy))
def conv2d_grad_b_direct(gy):
    """gb (F,)."""
    gy = contiguous(gy)
    N, F, OH, OW = gy.shape
    gb = empty((F,), gy.dtype)
    flat, parts = gy.reshape(-1), threads.shares(F, max(1, cdiv(TERMS, max(1, N * OH * OW))))
    lanes = registers()[0] // gy.itemsize
    threads.run(lambda k: conv2d_grad_b_direct_kernel(flat, *parts[k], F, N, OH * OW, gb, lanes), len(parts))
    return gb
