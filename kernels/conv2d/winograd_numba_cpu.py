"""conv2d on the processor: the rung winograd_4x4, for windows of 3x3 that move by single pixels."""
# op: gpunet/ops/conv2d.py
#
# The mathematics stands in winograd.cu: with U = G g G^T of each filter, V = B^T d B of each tile of 6x6 pixels and
# Z = U V, summed over channels for each of the 36 places, 4x4 outputs are A^T Z A. The points are the same as there,
# 0, +-3/4, +-3/2 and infinity, whose error is a fifth of that of 0, +-1, +-2. The gradient of x is the convolution of
# gy with filters that are turned, and exchange filters and channels.
#
# Tiles are taken in rounds, each of two or three parts that run on all threads:
#
#     filters    w (F, C, 3, 3)           ->  U  (F / ROWS, 36, C, ROWS)
#     images     the round's tiles of x   ->  V  (tiles / WIDE, 36, C, WIDE)
#     products   U, V  ->  Z (36, ROWS, WIDE)  ->  A^T Z A + bias  ->  y
#
# A product is multiply_tile, at the rate of the processor's arithmetic: U and V lie in the order in which it reads
# them. With one round alone, a group of filters is transformed by the task that multiplies it, so U stays in the cache.
#
# The transforms stand in winograd_transforms_numba_cpu.py. V of one channel, in vectors of tiles: a row of pixels is
# transformed first, then columns of what came out.
#
#     pixels    row r of a strip of tile rows stands in plane r % 4, line r // 4, padding as zeros: pixel k of tile t is
#               at 4 t + k of its line, and row r + 4 is the next line
#     rows      six lines B^T d for each, each a number a tile
#     columns   six vectors of a tile row, B^T of them, into V

import numpy as np

from gpunet.cpu import threads
from gpunet.cpu.buffers import pool
from gpunet.cpu.jit import compiled
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.launching import contiguous, is_real
from ..common.shapes import cdiv, conv_out_size
from ..common.tiles_numba_cpu import ROWS, VECTORS, multiply_tile
from ..common.vectors_numba_cpu import spread
from .winograd_transforms_numba_cpu import (
    GROUP,
    LANES,
    PITCH,
    PLACES,
    WIDE,
    M,
    Sizes,
    place_of_filters,
    place_of_images,
    place_outputs,
    sizes_of,
    winograd_exact,
    winograd_filters,
    winograd_filters_turned,
    winograd_images,
    winograd_outputs,
)  # fmt: skip

STRIP = 128  # tiles of a strip, about: with what becomes of them they stay in the first two caches
ROUND = 2**21  # elements of V in a round, about: 8 MiB
TASKS = 16  # at the least, where there is work for them
FLOPS_PER_ELEMENT = 20  # that are done while one element of U, V or Z is transformed, measured
FLOPS_OF_CALLS = 3 * 10**6  # and while the tasks are handed out


@compiled
def winograd_products(u, V, f0, f1, b0, b1, first, last, bias, floor, y, numbers, steps, x, w, w_steps):
    """Outputs of tiles first to last: of their blocks b0 to b1, and of filters f0 to f1, whose transform is u.

    Task: some filters and some blocks.   Lanes: tiles.   Reads: u once a block, V once for each ROWS filters.
    """
    sizes = sizes_of(numbers)
    Z = np.empty(PLACES * ROWS * WIDE, np.float32)
    out, checks = np.empty(M * M * WIDE, np.float32), np.empty(WIDE, np.float32)
    u_place, v_place = place_of_filters(sizes.C), place_of_images(sizes.C)
    u_steps, v_steps, bases = steps[0], steps[1], steps[2]
    zero = np.float32(0)
    for f in range(f0, f1, ROWS):
        for b in range(b0, b1):
            count = min(WIDE, last - first - b * WIDE)
            vectors = (count + LANES - 1) // LANES
            for place in range(PLACES):
                here = u[((f - f0) // ROWS * PLACES + place) * u_place :]
                at, to = (b * PLACES + place) * v_place, place * ROWS * WIDE
                if vectors == VECTORS:
                    multiply_tile(here, bases, u_steps, V, at, v_steps, sizes.C, Z, to, ROWS, VECTORS)
                elif vectors == 2:
                    multiply_tile(here, bases, u_steps, V, at, v_steps, sizes.C, Z, to, ROWS, 2)
                else:
                    multiply_tile(here, bases, u_steps, V, at, v_steps, sizes.C, Z, to, ROWS, 1)
            for k in range(min(ROWS, f1 - f)):
                more = bias[f + k] if len(bias) else zero
                winograd_outputs(Z, vectors * LANES, k * vectors * LANES, spread(more), spread(floor), out, checks)
                place_outputs(out, first + b * WIDE, count, f + k, y, sizes)
                for t in range(count):
                    if not np.isfinite(checks[t]):
                        winograd_exact(first + b * WIDE + t, f + k, more, floor, y, x, w, w_steps, sizes)


class _Convolution:
    """One call: what its tasks share. ``back`` says that w is (C, F, 3, 3) and its windows are turned."""

    def __init__(self, y, x, w, b, top, left, relu, back):
        (N, C, H, W), (_, F, OH, OW) = x.shape, y.shape
        self.sizes = sizes = Sizes(N, C, H, W, F, OH, OW, cdiv(OH, M), cdiv(OW, M), top, left)
        self.numbers = np.array(sizes)
        self.across = cdiv(F, GROUP) * GROUP
        self.x, self.y, self.back = contiguous(x).reshape(-1), y.reshape(-1), back
        self.w = (_filled_up(w, self.across) if back else contiguous(w)).reshape(-1)
        # From the start of w to the first weight of filter 0; to the next filter, channel and weight.
        self.w_steps = np.array((8, 9, self.across * 9, -1) if back else (0, C * 9, 9, 1))
        self.bias = np.empty(0, np.float32) if b is None else contiguous(b)
        self.floor = np.float32(0 if relu else -np.inf)
        self.steps = np.arange(max(C, ROWS)) * np.array((ROWS, PITCH, 1))[:, None]  # in U, in V; rows of U
        self.tall = max(1, min(sizes.TH, STRIP // sizes.TW))
        self.groups = threads.ranges(F, GROUP)
        self.channels = threads.ranges(C, cdiv(C, TASKS))

    def run(self):
        """Fills y."""
        C, tiles = self.sizes.C, self.sizes.N * self.sizes.TH * self.sizes.TW
        v_block, u_group = PLACES * (C * PITCH + LANES), GROUP // ROWS * PLACES * (C * ROWS + LANES)
        blocks = cdiv(tiles, WIDE)
        rounds = threads.ranges(tiles, cdiv(blocks, cdiv(blocks, max(1, ROUND // v_block))) * WIDE)
        V = pool.empty((cdiv(rounds[0][1], WIDE) * v_block,), np.float32)
        u = None
        if len(rounds) > 1 or len(self.groups) < TASKS // 2:
            u = pool.empty((len(self.groups), u_group), np.float32)
            threads.run(lambda number: self.filters(number, u[number]), len(self.groups))
        for first, last in rounds:
            self.round(first, last, V, u, u_group)

    def round(self, first, last, V, u_all, u_group):
        """Outputs of tiles first to last; ``u_all`` is None where the tasks transform their filters themselves."""
        blocks = cdiv(last - first, WIDE)
        parts = threads.ranges(blocks, cdiv(blocks, cdiv(TASKS, len(self.groups))))

        def images(number: int) -> None:
            winograd_images(self.x, *self.channels[number], first, last, self.numbers, self.tall, V)

        def products(number: int) -> None:
            group, part = divmod(number, len(parts))
            u = pool.empty((u_group,), np.float32) if u_all is None else u_all[group]
            if u_all is None:
                self.filters(group, u)
            winograd_products(
                u, V, *self.groups[group], *parts[part], first, last, self.bias, self.floor, self.y, self.numbers,
                self.steps, self.x, self.w, self.w_steps,
            )  # fmt: skip

        threads.run(images, len(self.channels))
        threads.run(products, len(self.groups) * len(parts))

    def filters(self, number, u):
        """Transforms a group."""
        begin, C = self.groups[number][0], self.sizes.C
        if self.back:
            winograd_filters_turned(self.w, begin, self.across, C, u)
        else:
            winograd_filters(self.w, begin, self.sizes.F, C, u)


def _filled_up(w, across):
    """w with its second axis filled up with zeros."""
    if across == w.shape[1]:
        return contiguous(w)
    wide = np.zeros((w.shape[0], across, 3, 3), w.dtype)
    wide[:, : w.shape[1]] = w
    return wide


def fits(real, dtype, w, stride, dilation, groups):
    """Whether the window is 3x3 and moves by single pixels, in float32."""
    if real is not True:
        return real
    if dtype != np.float32:
        return f"it takes float32, for float64 is summed in the definition's order, got {dtype}"
    if tuple(w.shape[2:]) != (3, 3) or w.size == 0:
        return f"it takes filters of 3x3 that have channels, got {tuple(w.shape)}"
    fine = tuple(stride) == (1, 1) and tuple(dilation) == (1, 1) and groups == 1
    return fine or f"it takes stride 1, dilation 1 and one group, got {tuple(stride)}, {tuple(dilation)} and {groups}"


def worth(images, channels, filters, output):
    """Whether the multiplications that are saved take longer than the transforms."""
    tiles = images * cdiv(output[0], M) * cdiv(output[1], M)
    saved = 2 * channels * filters * (9 * images * output[0] * output[1] - PLACES * tiles)
    moved = PLACES * (channels * filters + tiles * (channels + filters))
    cost = FLOPS_PER_ELEMENT * moved + FLOPS_OF_CALLS
    return saved >= cost or f"it saves {max(saved, 0):.2g} flop and loses the time of {cost:.2g}"


def fits_forward(x, w, b, *, stride, padding, dilation, groups):
    """A 3x3 window that moves by single pixels."""
    return fits(is_real(x, w, b), x.dtype, w, stride, dilation, groups)


def pays_forward(x, w, b, *, stride, padding, dilation, groups):
    """Enough channels, filters and tiles."""
    return worth(x.shape[0], x.shape[1], w.shape[0], conv_out_size(x.shape[2:], (3, 3), stride, padding, dilation))


def fits_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """A 3x3 window that moves by single pixels."""
    return fits(is_real(gy, w), gy.dtype, w, stride, dilation, groups)


def pays_grad_x(gy, w, *, input_size, stride, padding, dilation, groups):
    """Enough channels, filters and tiles."""
    return worth(gy.shape[0], gy.shape[1], w.shape[1], input_size)


def _forward(x, w, b, padding, relu):
    y = empty((x.shape[0], w.shape[0], *conv_out_size(x.shape[2:], (3, 3), (1, 1), padding, (1, 1))), x.dtype)
    if y.size:
        _Convolution(y, x, w, b, padding[0], padding[2], relu, back=False).run()
    return y


@kernel("conv2d.forward", backend="numba_cpu", variant="winograd_4x4", when=fits_forward, pays=pays_forward)
def conv2d_forward_winograd_4x4(x, w, b, *, stride, padding, dilation, groups):
    """Tiles of 4x4 outputs at once, by 36 products a channel instead of 144."""
    return _forward(x, w, b, padding, relu=False)


@kernel("conv2d.forward_relu", backend="numba_cpu", variant="winograd_4x4", when=fits_forward, pays=pays_forward)
def conv2d_forward_relu_winograd_4x4(x, w, b, *, stride, padding, dilation, groups):
    """As forward; the positive part is taken before y is written."""
    return _forward(x, w, b, padding, relu=True)


@kernel("conv2d.grad_x", backend="numba_cpu", variant="winograd_4x4", when=fits_grad_x, pays=pays_grad_x)
def conv2d_grad_x_winograd_4x4(gy, w, *, input_size, stride, padding, dilation, groups):
    """The convolution of gy with turned filters, by tiles of 4x4."""
    gx = empty((gy.shape[0], w.shape[1], *input_size), gy.dtype)
    if gx.size:
        _Convolution(gx, gy, w, None, 2 - padding[0], 2 - padding[2], relu=False, back=True).run()
    return gx
