"""conv2d on the processor: where windows find their numbers, in a patch or in the images themselves."""
# op: gpunet/ops/conv2d.py
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

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gpunet.cpu import threads
from gpunet.cpu.buffers import pool
from gpunet.cpu.jit import compiled

from ..common.shapes import cdiv
from ..common.tiles_numba_cpu import registers, zero_elements
from ..common.vectors_numba_cpu import copy_row

ALONE = 2**22  # multiplications that one thread has done before it would have shared them out: some 0.1 ms
MANY = 2**27  # multiplications from which on there are TASKS: who is done early takes another
PATCH = 2**17  # elements of a patch, about: half of a second-level cache of 1 MiB in float32
LINE = 240  # outputs in a patch at the least, where there are so many: five tiles
TASKS = 16  # at the least, where there is work for them: enough for the threads of today, fixed so that sums are


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
    inside: bool
    """Whether no window reaches over the edge, so that numbers can be read where they lie in the images."""
    steps: np.ndarray
    """(channels * T,), taps fastest: from an output's place to each number under its window, in the images if the plan
    is ``inside``, else in a patch."""


@lru_cache(maxsize=512)
def plan_of(
    channels: int, size: tuple[int, int], out: tuple[int, int], step: tuple[int, int],
    taps: tuple[tuple[int, int], ...], images: int, tasks: int = TASKS,
) -> Plan:  # fmt: skip
    """The plan of a walk over ``images`` images of ``channels`` channels and ``size``.

    Args:
        channels: of one group.
        size: H and W of what is walked over.
        out: U and V.
        step: sh and sw.
        taps: (dy, dx) of each tap; at least one.
        images: N.
        tasks: patches at the least, where there is work for them.
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
    blocks = _blocks(walk, images, len(planes), tasks)
    most = max(((n1 - n0 - 1) * down + rows_of(walk, u1 - u0)) * across + wide for n0, n1, u0, u1 in blocks)
    far = [(U - 1) * sh + max(dy for dy, _ in taps), (V - 1) * sw + max(dx for _, dx in taps)]
    inside = min(y, x) >= 0 and far[0] < H and far[1] < W
    plan = Plan(
        walk, np.array(planes, np.int64), np.array(table, np.int64), blocks, most, inside, np.empty(0, np.int64)
    )
    if not inside:
        return plan._replace(steps=steps_of(plan, channels, most))
    flat = np.array([dy * W + dx for dy, dx in taps])
    return plan._replace(steps=(np.arange(channels)[:, None] * (H * W) + flat).ravel())


def rows_of(walk: Walk, rows: int) -> int:
    """Rows of a patch for so many rows of outputs of one image."""
    return rows + walk.tall - walk.U


def _blocks(walk: Walk, images: int, planes: int, tasks: int) -> tuple[tuple[int, int, int, int], ...]:
    line = max(LINE, PATCH // (walk.channels * planes))
    image = walk.down * walk.across
    if image <= line:
        several = max(1, min(line // image, cdiv(images, tasks) if images * image > tasks * 4 * LINE else images))
        return tuple((n, min(n + several, images), 0, walk.U) for n in range(0, images, several))
    rows = cdiv(walk.U, cdiv(image, line))
    return tuple((n, n + 1, u, min(u + rows, walk.U)) for n in range(images) for u in range(0, walk.U, rows))


def tasks_of(products: int) -> int:
    """Tasks for so many multiplications where the cut is free, as no sum is cut: one a thread if there are few."""
    return TASKS if products >= MANY else threads.get_num_threads()


def each_task(task: Callable[[int], None], count: int, products: int) -> None:
    """Runs the tasks of ``products`` multiplications on all threads, or where these are few on this one alone."""
    if products < ALONE:
        for number in range(count):
            task(number)
    else:
        threads.run(task, count)


# ---------------------------------------------------------------------------------------------------------- the patch


@compiled
def fill_patch(patch, pitch, x, N0, N1, first, channels_of_all, U0, U1, walk, planes, lanes):
    """Copies ``walk.channels`` channels from ``first`` on, of images N0 to N1, for outputs U0 to U1 down."""
    rows, zero = U1 - U0 + walk.tall - walk.U, patch.dtype.type(0)
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
                        for j in range(to, to + start):
                            patch[np.uint64(j)] = zero
                        source = (image + row) * walk.W + left
                        if walk.sw == 1:
                            copy_row(patch, to + start, x, source + start, stop - start, lanes)
                        else:
                            for j in range(start, stop):
                                patch[np.uint64(to + j)] = x[np.uint64(source + j * walk.sw)]
                        for j in range(to + stop, to + walk.across):
                            patch[np.uint64(j)] = zero
                    end = to + walk.across
            zero_elements(patch, end, base + pitch - end)


def steps_of(plan, channels, pitch):
    """(channels * taps,) from an output's place to each number under its window, in a patch of so many channels."""
    planes, rows, columns = plan.taps.T
    steps = planes * (channels * pitch) + rows * plan.walk.across + columns
    return (steps + np.arange(channels)[:, None] * pitch).ravel()


@lru_cache(maxsize=512)
def taps_of(kernel_size, padding, dilation) -> tuple[tuple[int, int], ...]:
    """(dy, dx) of each tap, from where output (0, 0) stands in the image."""
    (KH, KW), (dh, dw) = kernel_size, dilation
    return tuple((k * dh - padding[0], l * dw - padding[2]) for k in range(KH) for l in range(KW))  # noqa: E741 the title page's


# ---------------------------------------------------------------------------------------------------------- windows


def windows(plan: Plan, x: np.ndarray, first: int, channels: int):
    """A function from a block to the numbers its windows are in, steps of taps and places of outputs therein.

    Args:
        plan: of the walk.
        x: (N, C, H, W) in C order.
        first: channel of x.
        channels: how many, from the first on; at the most those of the plan.
    """
    walk, flat, C = plan.walk._replace(channels=channels), x.reshape(-1), x.shape[1]
    if plan.inside:
        row, plane, steps = walk.sh * walk.W, walk.H * walk.W, plan.steps[: channels * len(plan.taps)]

        def itself(n0, n1, u0, u1):
            here = flat[(n0 * C + first) * plane + u0 * row :]
            return here, steps, _places(C * plane, row, walk.sw, n1 - n0, u1 - u0, walk.V)

        return itself
    patch = pool.empty((len(plan.planes) * channels * plan.most,), x.dtype)
    lanes = registers()[0] // x.itemsize
    steps = plan.steps if channels == plan.walk.channels else steps_of(plan, channels, plan.most)

    def copied(n0, n1, u0, u1):
        fill_patch(patch, plan.most, flat, n0, n1, first, C, u0, u1, walk, plan.planes, lanes)
        return patch, steps, _places(walk.down * walk.across, walk.across, 1, n1 - n0, u1 - u0, walk.V)

    return copied


@lru_cache(maxsize=512)
def _places(image: int, row: int, step: int, images: int, rows: int, columns: int) -> np.ndarray:
    """Where outputs lie that are so far apart from image to image, row to row and column to column."""
    places = np.arange(images)[:, None, None] * image + np.arange(rows)[:, None] * row + np.arange(columns) * step
    return places.ravel()
