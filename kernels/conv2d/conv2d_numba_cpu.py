"""conv2d on the processor: the implicit product by tiles in vector registers."""
# op: gpunet/ops/conv2d.py
#
# Forward and the gradient of the input are one walk over an image:
#
#     out[n, r, u, v] = sum over channels c and taps t of  a[r, c, t] * x[n, c, u * sh + dy[t], v * sw + dx[t]]
#
# forward:  x the image, a the filters, tap (k, l) at dy = k * dh - top, dx = l * dw - left.
# grad_x:   x the gradient of the outputs. Pixels of one remainder by the stride, (iy % sh, ix % sw), are read by the
#           same taps, at dy = (iy + top - k * dh) / sh where that is whole: a walk with step 1 for each two remainders.
#
# A task copies what it walks over into a patch, with the padding as zeros and, for a step above 1, each remainder of
# rows and columns in a plane of its own. In the patch both steps are 1, and a tap is a number: how far it lies from the
# output. So outputs of many rows, and of many images, are one line q = (n * down + u) * across + v, and a tile takes
# WIDTH of them at once, whatever the width of the image. Some q are no outputs (the end of a row and the start of the
# next under one window); they are computed and left out. Zeros to the right of a row are those to the left of the next.
#
#     patch of one channel, 3x3, padding 1:     0 0 0 0 0 0
#                                               0 . . . . .     <- across = W + 1
#                                               0 . . . . .
#                                               0 0 0 0 0 0 ...

from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from gpunet.cpu import threads
from gpunet.cpu.buffers import pool
from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.launching import contiguous, is_real
from ..common.shapes import cdiv, conv_out_size
from ..common.tiles_numba_cpu import (
    ROWS,
    VECTORS,
    copy_elements,
    multiply_tile,
    width,
    zero_elements,
)  # fmt: skip

PATCH = 2**17  # elements of a patch, about: half of a second-level cache of 1 MiB in float32
LINE = 240  # outputs in a patch at the least, where there are so many: five tiles
TASKS = 16  # at the least, where there is work for them: enough for the threads of today, fixed so that sums are
FILTERS = 32  # of a task at the least


class Walk(NamedTuple):
    """Sizes of one walk, as the compiled code sees them."""

    channels: int
    """Of one group."""
    H: int
    """Of the image that is walked over."""
    W: int
    U: int
    """Outputs down and across."""
    V: int
    sh: int
    sw: int
    y: int
    """The least dy and dx: where the patch of output (0, 0) begins."""
    x: int
    tall: int
    """Rows that the outputs of one image reach over, in a plane."""
    wide: int
    down: int
    """Rows from one image of a patch to the next."""
    across: int
    """Columns from one row to the next."""


class Blocks(NamedTuple):
    """How the outputs are cut into patches: whole images, or rows of one."""

    images: int
    rows: int


class Plan(NamedTuple):
    """A walk, its tables and its tasks; the same for every call with the same sizes."""

    walk: Walk
    planes: np.ndarray
    """(P, 2): remainders of row and column of each plane of the patch."""
    taps: np.ndarray
    """(T, 3): plane, row and column of each tap in the patch."""
    blocks: tuple[tuple[int, int, int, int], ...]
    """First and last image, first and last row of outputs, of each patch."""
    most: int
    """Elements of the largest channel of a patch."""


@lru_cache(maxsize=512)
def plan_of(
    channels: int, size: tuple[int, int], out: tuple[int, int], step: tuple[int, int],
    taps: tuple[tuple[int, int], ...], images: int,
) -> Plan:  # fmt: skip
    """The plan of a walk over ``images`` images of ``channels`` channels and ``size``.

    Args:
        channels: of one group.
        size: H and W of what is walked over.
        out: U and V.
        step: sh and sw.
        taps: (dy, dx) of each tap; at least one.
        images: N.
    """
    (H, W), (U, V), (sh, sw) = size, out, step
    y, x = min(dy for dy, _ in taps), min(dx for _, dx in taps)
    tall = U + (max(dy for dy, _ in taps) - y) // sh
    wide = V + (max(dx for _, dx in taps) - x) // sw
    # Zeros after the last column are those before the first of the next row, if the step is 1.
    across = max(V, min(wide, W - x), wide - max(0, -x)) if sw == 1 else wide
    down = max(U, min(tall, H - y), tall - max(0, -y)) if sh == 1 else tall
    planes = sorted({((dy - y) % sh, (dx - x) % sw) for dy, dx in taps})
    table = [(planes.index(((dy - y) % sh, (dx - x) % sw)), (dy - y) // sh, (dx - x) // sw) for dy, dx in taps]
    walk = Walk(channels, H, W, U, V, sh, sw, y, x, tall, wide, down, across)
    blocks = _blocks(walk, images, len(planes))
    most = max(((n1 - n0 - 1) * down + rows_of(walk, u1 - u0)) * across + wide for n0, n1, u0, u1 in blocks)
    return Plan(walk, np.array(planes, np.int64), np.array(table, np.int64), blocks, most)


def rows_of(walk: Walk, rows: int) -> int:
    """Rows of a patch for so many rows of outputs of one image."""
    return rows + walk.tall - walk.U


def _blocks(walk: Walk, images: int, planes: int) -> tuple[tuple[int, int, int, int], ...]:
    line = max(LINE, PATCH // (walk.channels * planes))
    image = walk.down * walk.across
    if image <= line:
        several = max(1, min(line // image, cdiv(images, TASKS) if images * image > TASKS * 4 * LINE else images))
        return tuple((n, min(n + several, images), 0, walk.U) for n in range(0, images, several))
    rows = cdiv(walk.U, cdiv(image, line))
    return tuple((n, n + 1, u, min(u + rows, walk.U)) for n in range(images) for u in range(0, walk.U, rows))


# ---------------------------------------------------------------------------------------------------------- the patch


@compiled
def fill_patch(patch, pitch, x, N0, N1, first, channels_of_all, U0, U1, walk, planes):
    """Copies ``walk.channels`` channels from ``first`` on, of images N0 to N1, for outputs U0 to U1 down."""
    rows = U1 - U0 + walk.tall - walk.U
    for p in range(len(planes)):
        top, left = planes[p, 0] + walk.y + U0 * walk.sh, planes[p, 1] + walk.x
        # Columns start to stop of a row are in the image.
        start = min(walk.across, max(0, -(left // walk.sw)))
        stop = max(start, min(walk.across, (walk.W - 1 - left) // walk.sw + 1))
        for c in range(walk.channels):
            base = (p * walk.channels + c) * pitch
            end = base
            for n in range(N0, N1):
                image = (n * channels_of_all + first + c) * walk.H
                count = rows if n == N1 - 1 else walk.down
                for i in range(count):
                    to = base + ((n - N0) * walk.down + i) * walk.across
                    row = top + i * walk.sh
                    if row < 0 or row >= walk.H:
                        zero_elements(patch, to, walk.across)
                    else:
                        zero_elements(patch, to, start)
                        source = (image + row) * walk.W + left
                        if walk.sw == 1:
                            copy_elements(patch, to + start, x, source + start, stop - start)
                        else:
                            for j in range(start, stop):
                                patch[np.uint64(to + j)] = x[np.uint64(source + j * walk.sw)]
                        zero_elements(patch, to + stop, walk.across - stop)
                    end = to + walk.across
            zero_elements(patch, end, base + pitch - end)


# ------------------------------------------------------------------------------------------------- forward and grad_x


@compiled
def conv2d_forward_implicit_gemm_kernel(
    patch, pitch, tile, steps, a, a_steps, a_row, r_begin, r_end, bias, has_bias, positive, y, y_first, y_image, y_row,
    y_down, y_across, N, rows, walk, width,
):  # fmt: skip
    """Rows r_begin to r_end of a, over a patch of N images and ``rows`` rows of outputs.

    Task: some rows of a and one patch.   Lanes: outputs, width of them beside each other for ROWS rows of a.
    Reads: the patch once for each ROWS rows; a once a tile.   Needs: the patch and those rows in the second cache.
    """
    zero = patch.dtype.type(0)
    last = ((N - 1) * walk.down + rows - 1) * walk.across + walk.V
    bases = np.empty(ROWS, np.int64)
    for r in range(r_begin, r_end, ROWS):
        for k in range(ROWS):
            bases[k] = min(r + k, r_end - 1) * a_row
        for q in range(0, last, width):
            multiply_tile(a, bases, a_steps, patch, q, steps, len(steps), tile, 0, ROWS, VECTORS)
            line = q // walk.across
            v = q - line * walk.across
            begin, stop = 0, min(width, last - q)
            while begin < stop:  # a piece of the tile for each row of outputs
                n = line // walk.down
                u = line - n * walk.down
                count = min(stop - begin, walk.V - v)
                if u < rows and count > 0:
                    to = y_first + n * y_image + u * y_down + v * y_across
                    for k in range(min(ROWS, r_end - r)):
                        at, here = k * width + begin, to + (r + k) * y_row
                        if has_bias or positive or y_across > 1:
                            more = bias[r + k] if has_bias else zero
                            for j in range(count):
                                value = tile[np.uint64(at + j)] + more
                                value = zero if positive and value <= 0 else value
                                y[np.uint64(here + j * y_across)] = value
                        else:
                            copy_elements(y, here, tile, at, count)
                begin += walk.across - v
                line += 1
                v = 0


def steps_of(plan, channels, pitch):
    """(channels * taps,) from an output's place to each number under its window, in a patch of so many channels."""
    planes, rows, columns = plan.taps.T
    steps = planes * (channels * pitch) + rows * plan.walk.across + columns
    return (steps + np.arange(channels)[:, None] * pitch).ravel()


def walk_by_tiles(x, a, a_rows, plan, a_steps, groups, bias, positive, y, y_first, y_steps):
    """Runs one walk: tasks are patches, and where these are few, parts of the rows of a as well.

    Args:
        x: (N, C, H, W) in C order.
        a: flat, of all groups.
        a_rows: rows of a in all groups, from one row to the next, and from one group to the next.
        plan: of the walk.
        a_steps: (channels * taps,) from the first weight of a row to each of it, taps fastest.
        groups: how many.
        bias: (rows,) or None.
        positive: whether to keep positive parts alone.
        y: the output, in C order.
        y_first: index of output (0, 0) of its first image and row.
        y_steps: in y, from one output to the next down and across.
    """
    rows, a_row, a_group = a_rows
    walk, group_rows = plan.walk, rows // groups
    pitch = plan.most
    steps = steps_of(plan, walk.channels, pitch)
    wide = width(x.dtype)
    channels, (y_down, y_across) = x.shape[1], y_steps
    y_row = y.shape[2] * y.shape[3]
    pieces = max(1, min(cdiv(TASKS, groups * len(plan.blocks)), group_rows // FILTERS))
    share = cdiv(cdiv(group_rows, pieces), ROWS) * ROWS
    parts = threads.ranges(group_rows, share)
    todo: list[tuple[Any, ...]] = list(product(range(groups), plan.blocks, parts))
    flat, out = x.reshape(-1), y.reshape(-1)
    none = np.empty(0, x.dtype)

    def task(number: int) -> None:
        g, (n0, n1, u0, u1), (begin, end) = todo[number]
        patch = pool.empty((len(plan.planes) * walk.channels * pitch + wide,), x.dtype)
        tile = pool.empty((ROWS * wide,), x.dtype)
        patch[-wide:] = 0
        fill_patch(patch, pitch, flat, n0, n1, g * walk.channels, channels, u0, u1, walk, plan.planes)
        conv2d_forward_implicit_gemm_kernel(
            patch, pitch, tile, steps, a[g * a_group :], a_steps, a_row, begin, end,
            none if bias is None else bias[g * group_rows :], bias is not None, positive, out,
            y_first + (n0 * rows + g * group_rows) * y_row + u0 * y_down, rows * y_row, y_row, y_down, y_across,
            n1 - n0, u1 - u0, walk, wide,
        )  # fmt: skip

    threads.run(task, len(todo))


@lru_cache(maxsize=512)
def taps_of(kernel_size, padding, dilation) -> tuple[tuple[int, int], ...]:
    """(dy, dx) of each tap, from where output (0, 0) stands in the image."""
    (KH, KW), (dh, dw) = kernel_size, dilation
    return tuple((k * dh - padding[0], l * dw - padding[2]) for k in range(KH) for l in range(KW))  # noqa: E741 the title page's


def forward(x, w, b, positive, stride, padding, dilation, groups, walk=walk_by_tiles):
    """y, by a function that runs one walk."""
    x, w = contiguous(x), contiguous(w)
    (N, _, *size), (F, CG, *window) = x.shape, w.shape
    out = conv_out_size(size, window, stride, padding, dilation)
    y = empty((N, F, *out), x.dtype)
    if y.size:
        taps = taps_of(tuple(window), tuple(padding), tuple(dilation))
        plan = plan_of(CG, tuple(size), out, tuple(stride), taps, N)
        K = CG * len(taps)
        steps = np.arange(K)
        walk(x, w.reshape(-1), (F, K, F // groups * K), plan, steps, groups, b, positive, y, 0, (out[1], 1))
    return y


def takes(x, w, b=None, **params) -> bool | str:
    """Whether the dtypes are alike, and there is something to add up."""
    real = is_real(x, w, b)
    return real if real is not True else w.size > 0 or "it needs filters that have elements"


def takes_grad_x(gy, w, **params) -> bool | str:
    """As forward."""
    return takes(gy, w)


def takes_grad_w(gy, x, **params) -> bool | str:
    """As forward."""
    real = is_real(gy, x)
    return real if real is not True else x.size > 0 or "it needs images that have elements"


def fills_tiles(rows: int, others: int) -> bool | str:
    """Whether ``rows`` rows of a group, each over ``others`` channels, fill tiles well enough to beat rung direct."""
    few = rows <= 2 or (rows <= 4 and rows * others <= 9)
    return not few or f"groups with more rows and channels, got {rows} and {others}"


def pays(x, w, b=None, *, groups, **params) -> bool | str:
    """Enough filters a group."""
    return fills_tiles(w.shape[0] // groups, w.shape[1])


def pays_grad_x(gy, w, *, groups, **params) -> bool | str:
    """Enough channels a group."""
    return fills_tiles(w.shape[1], w.shape[0] // groups)


@kernel("conv2d.forward", backend="numba_cpu", variant="implicit_gemm", when=takes, pays=pays)
def conv2d_forward_implicit_gemm(x, w, b, *, stride, padding, dilation, groups):
    """y (N, F, OH, OW)."""
    return forward(x, w, b, False, stride, padding, dilation, groups)


@kernel("conv2d.forward_relu", backend="numba_cpu", variant="implicit_gemm", when=takes, pays=pays)
def conv2d_forward_relu_implicit_gemm(x, w, b, *, stride, padding, dilation, groups):
    """max(y, 0), NaN handed on."""
    return forward(x, w, b, True, stride, padding, dilation, groups)


@kernel("conv2d.grad_x", backend="numba_cpu", variant="implicit_gemm", when=takes_grad_x, pays=pays_grad_x)
def conv2d_grad_x_implicit_gemm(gy, w, *, input_size, stride, padding, dilation, groups):
    """gx (N, C, H, W)."""
    return backward_x(gy, w, input_size, stride, padding, dilation, groups)


def backward_x(gy, w, input_size, stride, padding, dilation, groups, walk=walk_by_tiles):
    """gx: a walk over gy for each pair of remainders of pixels by the stride."""
    gy, w = contiguous(gy), contiguous(w)
    (N, F, *size), (_, CG, KH, KW), (H, W) = gy.shape, w.shape, input_size
    gx = empty((N, groups * CG, H, W), gy.dtype)
    if not gx.size:
        return gx
    if not gy.size:
        gx[...] = 0
        return gx
    (sh, sw), FG = stride, F // groups
    for (py, ys), (px, xs) in product(
        _remainders(H, KH, sh, padding[0], dilation[0]), _remainders(W, KW, sw, padding[2], dilation[1])
    ):
        taps = tuple((dy, dx) for _, dy in ys for _, dx in xs)
        places = np.array([k * KW + l for k, _ in ys for l, _ in xs], np.int64)  # noqa: E741
        if not taps:
            gx[:, :, py::sh, px::sw] = 0
            continue
        out = cdiv(H - py, sh), cdiv(W - px, sw)
        plan = plan_of(FG, tuple(size), out, (1, 1), taps, N)
        steps = (np.arange(FG)[:, None] * (CG * KH * KW) + places).ravel()
        rows = groups * CG, KH * KW, FG * CG * KH * KW
        walk(gy, w.reshape(-1), rows, plan, steps, groups, None, False, gx, py * W + px, (sh * W, sw))
    return gx


def _remainders(size: int, window: int, stride: int, before: int, dilation: int) -> list[tuple[int, list]]:
    """For each remainder of pixels: it, and the taps that read such pixels, each with its step in gy."""
    found = []
    for remainder in range(min(stride, size)):
        taps = [(k, remainder + before - k * dilation) for k in range(window)]
        found.append((remainder, [(k, far // stride) for k, far in taps if far % stride == 0]))
    return found


from . import direct_numba_cpu, grad_w_numba_cpu, winograd_numba_cpu  # noqa: E402, F401 the launchers of those stand beside
