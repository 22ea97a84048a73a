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
from ..common.tiles_numba_cpu import copy_elements, multiply_tile, registers, zero_elements
from ..common.vectors_numba_cpu import load, spread, store
from .conv2d_numba_cpu import (
    backward_x,
    fill_patch,
    forward,
    plan_of,
    rows_of,
    steps_of,
    takes,
    takes_grad_w,
    takes_grad_x,
    taps_of,
)

PATCH = 2**13  # elements of a patch and a line of outputs, about: half of a first-level cache of 64 KiB in float32
VECTORS = 6  # sums side by side
WORK = 2**20  # products of a task, about


# ------------------------------------------------------------------------------------------------- forward and grad_x


@compiled
def conv2d_forward_direct_kernel(
    x, groups, a, a_steps, a_row, a_group, rows, bias, positive, y, y_first, y_image, y_row, y_down, y_across, walk,
    planes, steps, pitch, height, begin, end, lanes,
):  # fmt: skip
    """Strips ``begin`` to ``end`` of the strips of ``height`` rows of outputs, counted over images, groups and rows.

    Task: some strips.   Lanes: outputs of a line.   Needs: a patch of one group in the first cache.
    """
    wide, strips, zero = VECTORS * lanes, (walk.U + height - 1) // height, x.dtype.type(0)
    patch = np.zeros(len(planes) * walk.channels * pitch + wide, x.dtype)
    line, base = np.empty(height * walk.across + wide, x.dtype), np.empty(1, np.int64)
    for strip in range(begin, end):
        plane, u0 = strip // strips, strip % strips * height
        n, g, u1 = plane // groups, plane % groups, min(u0 + height, walk.U)
        fill_patch(patch, pitch, x, n, n + 1, g * walk.channels, groups * walk.channels, u0, u1, walk, planes)
        last = (u1 - u0 - 1) * walk.across + walk.V
        for r in range(rows):
            base[0] = g * a_group + r * a_row
            for q in range(0, last, wide):
                multiply_tile(a, base, a_steps, patch, q, steps, len(steps), line, q, 1, VECTORS)
            more = bias[g * rows + r] if len(bias) else zero
            to = y_first + n * y_image + (g * rows + r) * y_row + u0 * y_down
            for u in range(u1 - u0):
                at, here = u * walk.across, to + u * y_down
                if len(bias) == 0 and not positive and y_across == 1:
                    copy_elements(y, here, line, at, walk.V)
                else:
                    for v in range(walk.V):
                        value = line[np.uint64(at + v)] + more
                        y[np.uint64(here + v * y_across)] = zero if positive and value <= 0 else value


def walk_by_lines(x, a, a_rows, plan, a_steps, groups, bias, positive, y, y_first, y_steps):
    """As ``walk_by_tiles`` of conv2d_numba_cpu.py."""
    rows, a_row, a_group = a_rows
    walk, height = plan.walk, _height(plan)
    pitch = _pitch(plan, height)
    flat, out, y_row = x.reshape(-1), y.reshape(-1), y.shape[2] * y.shape[3]
    lanes, bias = registers()[0] // x.itemsize, np.empty(0, x.dtype) if bias is None else contiguous(bias)
    strips = x.shape[0] * groups * cdiv(walk.U, height)
    work = height * walk.across * walk.channels * len(plan.taps) * rows // groups
    parts = threads.ranges(strips, max(1, WORK // work))
    steps = steps_of(plan, walk.channels, pitch)
    threads.run(
        lambda number: conv2d_forward_direct_kernel(
            flat, groups, a, a_steps, a_row, a_group, rows // groups, bias, positive, out, y_first, rows * y_row, y_row,
            *y_steps, walk, plan.planes, steps, pitch, height, *parts[number], lanes,
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
    """gw of groups ``begin`` to ``end``.

    Task: some groups.   Lanes: outputs of a line, whose sums are added up for each strip.   Needs: as forward.
    """
    zero, K, sums = x.dtype.type(0), len(steps), np.empty(lanes, x.dtype)
    size = (height * walk.across + 2 * lanes - 1) // (2 * lanes) * (2 * lanes)
    patch, line = np.zeros(len(planes) * walk.channels * pitch + 2 * lanes, x.dtype), np.zeros(size, x.dtype)
    for g in range(begin, end):
        total = np.zeros(FG * K, np.float64)
        for n in range(N):
            for u0 in range(0, walk.U, height):
                u1 = min(u0 + height, walk.U)
                fill_patch(patch, pitch, x, n, n + 1, g * walk.channels, groups * walk.channels, u0, u1, walk, planes)
                last = (u1 - u0 - 1) * walk.across + walk.V
                zero_elements(line, last, min(size - last, 2 * lanes))
                for f in range(FG):
                    for u in range(u1 - u0):
                        source = (((n * groups + g) * FG + f) * walk.U + u0 + u) * walk.V
                        copy_elements(line, u * walk.across, gy, source, walk.V)
                    for k in range(K):
                        one, other, at = spread(zero), spread(zero), steps[k]
                        for q in range(0, last, 2 * lanes):
                            one += load(line, q) * load(patch, at + q)
                            other += load(line, q + lanes) * load(patch, at + q + lanes)
                        store(sums, 0, one + other)
                        for lane in range(lanes):
                            total[f * K + k] += sums[lane]
        for k in range(FG * K):
            gw[g * FG * K + k] = total[k]


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
    parts = threads.ranges(groups, max(1, WORK // (gy.size // groups * len(steps))))
    lanes = registers()[0] // x.itemsize
    args = x.reshape(-1), gy.reshape(-1), N, groups, F // groups, plan.walk, plan.planes, steps, pitch, height
    flat = gw.reshape(-1)
    threads.run(lambda number: conv2d_grad_w_direct_kernel(*args, *parts[number], flat, lanes), len(parts))
    if not np.isfinite(gw).all():
        from .conv2d_numpy import conv2d_grad_w_reference

        gw[...] = conv2d_grad_w_reference(
            gy, x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation, groups=groups
        )
    return gw


# ------------------------------------------------------------------------------------------------------------- grad_b


@compiled(fastmath={"reassoc"})
def conv2d_grad_b_direct_kernel(gy, f_begin, f_end, filters, images, plane, gb):
    """Task: some filters.   Lanes: pixels of an image; images are added in their order, in float64."""
    for f in range(f_begin, f_end):
        total = 0.0
        for n in range(images):
            begin = (n * filters + f) * plane
            inside = gy.dtype.type(0)
            for i in range(begin, begin + plane):
                inside += gy[i]
            total += inside
        gb[f] = total


@kernel("conv2d.grad_b", backend="numba_cpu", variant="direct", when=lambda gy: is_real(gy))
def conv2d_grad_b_direct(gy):
    """gb (F,)."""
    gy = contiguous(gy)
    N, F, OH, OW = gy.shape
    gb = empty((F,), gy.dtype)
    flat, parts = gy.reshape(-1), threads.ranges(F, max(1, cdiv(2**16, max(1, N * OH * OW))))
    threads.run(lambda k: conv2d_grad_b_direct_kernel(flat, *parts[k], F, N, OH * OW, gb), len(parts))
    return gb
