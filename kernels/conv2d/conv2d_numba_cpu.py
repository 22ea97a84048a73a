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
# Where a walk finds its numbers is told in patches_numba_cpu.py.

from itertools import product
from math import prod
from typing import Any

import numpy as np

from gpunet.cpu import threads
from gpunet.cpu.buffers import pool
from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.launching import contiguous, is_real
from ..common.shapes import cdiv, conv_out_size
from ..common.tiles_numba_cpu import ROWS, VECTORS, multiply_tile, registers, width
from ..common.vectors_numba_cpu import copy_row
from ..matmul.matmul_numba_cpu import matmul_forward_packed
from .by_filters_numba_cpu import LARGE, fills_lanes, walk_by_filters
from .patches_numba_cpu import each_task, fill_patch, plan_of, steps_of, taps_of, tasks_of

FILTERS = 32  # of a task at the least
PLANE = 256  # pixels of an image from which on its product with 1x1 filters fills tiles
ROW = 512  # pixels of a row of folded images at the most
HALF, MOST = ROWS // 2, ROWS // 4 * 3  # rows of the tiles for the last rows of a


# ------------------------------------------------------------------------------------------------- forward and grad_x


@compiled
def conv2d_forward_implicit_gemm_kernel(
    patch, tile, steps, a, a_steps, a_row, r_begin, r_end, bias, positive, y, y_first, y_image, y_row, y_down, y_across,
    N, rows, walk, lanes,
):  # fmt: skip
    """Rows r_begin to r_end of a, over a patch of N images and ``rows`` rows of outputs.

    Task: some rows of a and one patch.   Lanes: outputs, some vectors of them beside each other for ROWS rows of a.
    Reads: the patch once for each ROWS rows; a once a tile.   Needs: the patch and those rows in the second cache, or
    else, where the patch is too large for that, what one tile reads of it.
    """
    last = ((N - 1) * walk.down + rows - 1) * walk.across + walk.V
    bases, width = np.empty(ROWS, np.int64), VECTORS * lanes
    tall, long = (r_end - r_begin + ROWS - 1) // ROWS, (last + width - 1) // width
    large = len(patch) > LARGE
    for number in range(tall * long):
        r = r_begin + ROWS * (number % tall if large else number // long)
        q = width * (number // tall if large else number % long)
        height, count = min(ROWS, r_end - r), min(width, last - q)
        for k in range(ROWS):
            bases[k] = min(r + k, r_end - 1) * a_row
        vectors = (count + lanes - 1) // lanes
        if height <= HALF:
            vectors = VECTORS
            multiply_tile(a, bases, a_steps, patch, q, steps, len(steps), tile, 0, HALF, VECTORS)
        elif height <= MOST:
            vectors = VECTORS
            multiply_tile(a, bases, a_steps, patch, q, steps, len(steps), tile, 0, MOST, VECTORS)
        elif vectors == VECTORS:
            multiply_tile(a, bases, a_steps, patch, q, steps, len(steps), tile, 0, ROWS, VECTORS)
        elif vectors == 2:
            multiply_tile(a, bases, a_steps, patch, q, steps, len(steps), tile, 0, ROWS, 2)
        else:
            multiply_tile(a, bases, a_steps, patch, q, steps, len(steps), tile, 0, ROWS, 1)
        place_tile(
            tile, vectors * lanes, height, q, count, bias[r:], len(bias) > 0, positive, y, y_first + r * y_row, y_image,
            y_row, y_down, y_across, rows, walk, lanes,
        )  # fmt: skip


@compiled
def place_tile(
    tile, width, height, q, count, bias, has_bias, positive, y, y_first, y_image, y_row, y_down, y_across, rows, walk,
    lanes,
):  # fmt: skip
    """Outputs q to q + count of some rows of a, from the tile to y: a piece for each row of outputs."""
    zero, begin = tile.dtype.type(0), 0
    line = q // walk.across
    v = q - line * walk.across
    while begin < count:
        n = line // walk.down
        u = line - n * walk.down
        some = min(count - begin, walk.V - v)
        if u < rows and some > 0:
            to = y_first + n * y_image + u * y_down + v * y_across
            for k in range(height):
                at, here = k * width + begin, to + k * y_row
                if has_bias or positive or y_across > 1:
                    more = bias[k] if has_bias else zero
                    for j in range(some):
                        value = tile[np.uint64(at + j)] + more
                        value = zero if positive and value <= 0 else value
                        y[np.uint64(here + j * y_across)] = value
                else:
                    copy_row(y, here, tile, at, some, lanes)
        begin += walk.across - v
        line += 1
        v = 0


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
    lanes = registers()[0] // x.itemsize
    if y_steps == (y.shape[3], 1) and fills_lanes(group_rows, plan, lanes):
        walk_by_filters(x, a, a_rows, plan, a_steps, groups, bias, positive, y, y_first)
        return
    pitch = plan.most
    steps = steps_of(plan, walk.channels, pitch) if plan.inside else plan.steps
    wide = width(x.dtype)
    channels, (y_down, y_across) = x.shape[1], y_steps
    y_row = y.shape[2] * y.shape[3]
    products = walk.channels * len(plan.taps) * y.size
    pieces = max(1, min(cdiv(tasks_of(products), groups * len(plan.blocks)), group_rows // FILTERS))
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
        fill_patch(patch, pitch, flat, n0, n1, g * walk.channels, channels, u0, u1, walk, plan.planes, lanes)
        conv2d_forward_implicit_gemm_kernel(
            patch, tile, steps, a[g * a_group :], a_steps, a_row, begin, end,
            none if bias is None else bias[g * group_rows :], positive, out,
            y_first + (n0 * rows + g * group_rows) * y_row + u0 * y_down, rows * y_row, y_row, y_down, y_across,
            n1 - n0, u1 - u0, walk, lanes,
        )  # fmt: skip

    each_task(task, len(todo), products)


def forward(x, w, b, positive, stride, padding, dilation, groups, walk=walk_by_tiles):
    """y, by a function that runs one walk."""
    x, w = contiguous(x), contiguous(w)
    (N, _, *size), (F, CG, *window) = x.shape, w.shape
    out = conv_out_size(size, window, stride, padding, dilation)
    y = empty((N, F, *out), x.dtype)
    if y.size:
        taps = taps_of(tuple(window), tuple(padding), tuple(dilation))
        K = CG * len(taps)
        x, seen = (folded(each, taps, size, out) if tuple(stride) == (1, 1) else each for each in (x, y))
        plan = plan_of(CG, x.shape[2:], seen.shape[2:], tuple(stride), taps, N, tasks_of(K * y.size))
        steps = np.arange(K)
        walk(x, w.reshape(-1), (F, K, F // groups * K), plan, steps, groups, b, positive, seen, 0, (seen.shape[3], 1))
    return y


def folded(images, taps, size, out):
    """The same images with longer rows, where windows are one pixel and each pixel has one; their step is 1."""
    N, C, H, W = images.shape
    if taps != ((0, 0),) or tuple(size) != tuple(out):
        return images
    rows = max(k for k in range(1, H + 1) if H % k == 0 and (k == 1 or k * W <= ROW))
    return images.reshape(N, C, H // rows, rows * W)


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
    each_pixel = w.shape[2:] == (1, 1) and tuple(stride) == (1, 1) and gy.shape[2:] == tuple(input_size)
    if each_pixel and groups == 1 and prod(input_size) >= PLANE and w.size:
        (N, F), C = gy.shape[:2], w.shape[1]  # a product for each image, whose kernel copies less
        gx = matmul_forward_packed(w.reshape(F, C), gy.reshape(N, F, -1), transpose_a=True, transpose_b=False)
        return gx.reshape(N, C, *input_size)
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
    stride, FG = tuple(stride), F // groups
    sh, sw = stride
    down = _remainders(H, KH, sh, padding[0], dilation[0])
    across = _remainders(W, KW, sw, padding[2], dilation[1])
    if not all(found for _, found in down + across):
        gx[...] = 0  # all at once, in the order of memory
    for (py, ys), (px, xs) in product(down, across):
        taps = tuple((dy, dx) for _, dy in ys for _, dx in xs)
        places = np.array([k * KW + l for k, _ in ys for l, _ in xs], np.int64)  # noqa: E741
        if not taps:
            continue
        out = cdiv(H - py, sh), cdiv(W - px, sw)
        if stride == (1, 1):
            gy, gx = folded(gy, taps, size, out), folded(gx, taps, size, out)
            size, out = gy.shape[2:], gx.shape[2:]
        plan = plan_of(FG, tuple(size), tuple(out), (1, 1), taps, N, tasks_of(FG * len(taps) * gx.size))
        steps = (np.arange(FG)[:, None] * (CG * KH * KW) + places).ravel()
        rows = groups * CG, KH * KW, FG * CG * KH * KW
        walk(gy, w.reshape(-1), rows, plan, steps, groups, None, False, gx, py * W + px, (sh * gx.shape[3], sw))
    return gx.reshape(N, groups * CG, H, W)


def _remainders(size: int, window: int, stride: int, before: int, dilation: int) -> list[tuple[int, list]]:
    """For each remainder of pixels: it, and the taps that read such pixels, each with its step in gy."""
    found = []
    for remainder in range(min(stride, size)):
        taps = [(k, remainder + before - k * dilation) for k in range(window)]
        found.append((remainder, [(k, far // stride) for k, far in taps if far % stride == 0]))
    return found


from . import direct_numba_cpu, grad_w_numba_cpu, winograd_numba_cpu  # noqa: E402, F401 the launchers of those stand beside
