"""batch_norm on Numba-CUDA: the rungs of batch_norm.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/batch_norm.py
#
# Where w or b has no elements it stands for ones or zeros. Statistics and factors are computed in double and rounded
# once; as in the definition, values are centred by the rounded mean, and what rounding took from it (delta) goes into
# the shift. The walks through a channel and the statistics in one pass are in kernels/common/norms_numba.py.

from typing import Any, NamedTuple

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.dispatch import kernel

from ..common import norms_numba as norms
from ..common.launching import empty, is_real
from ..common.norms_numba import BLOCK, TALL, WARP, Line, double, given, nought, one, or_one, or_zero, root, template
from ..common.rows_numba import block_sum, warp_sum
from ..common.shapes import cdiv
from .batch_norm_cupy import cut, has_packs, is_long, is_small, pays_held, sizes_of, when_held, when_packs, when_small

# Elements of shared arrays: four for each warp or channel of a block, or for each thread; the threads of a large block.
ROOM, FOURS, LARGEST = 4 * WARP, 4 * BLOCK, 32 * WARP


class Channel(NamedTuple):
    """Of a channel: what forward returns, and the line of y."""

    var: Any
    invstd: Any
    line: Any


def channel_of(real):
    """The channel of a mean and a variance in double."""
    zero = real(0)

    @jit.device
    def channel(average, var, w, b, eps):
        invstd = one / root(var + eps)
        scale, rounded = invstd * w, real(average)
        delta = average - double(rounded)
        return Channel(real(var), real(invstd), Line(rounded, real(scale), real(b - delta * scale), zero))

    return channel


def statistics_of(real):
    """The channel of a mean in double and of the mean of squares around the rounded mean."""
    channel = channel_of(real)

    @jit.device
    def statistics(average, spread, w, b, eps):
        delta = average - double(real(average))
        var = spread - delta * delta
        return channel(average, nought if var < nought else var, w, b, eps)  # not max, which would swallow a NaN

    return statistics


@jit.device
def affine(x, _, line):
    """The y of x."""
    return (x - line.mean) * line.slope + line.level


@jit.device
def sloped(gy, x, line):
    """The gx of gy and x."""
    return (x - line.mean) * line.slope + line.level + gy * line.factor


@jit.device
def scaled(gy, _, line):
    """The gx of gy alone."""
    return gy * line.factor


@jit.device
def put_channel(mean, var, invstd, c, found):
    """What forward returns of channel c."""
    mean[c], var[c], invstd[c] = found.line.mean, found.var, found.invstd


@jit.device
def value_at(j, c, C, S):
    """Where value j of channel c lies."""
    return np.uint64((j // S * C + c) * S + j % S)


def packed(large, small):
    """has_packs of the large arrays; the small ones, a value a channel, may begin anywhere."""
    real = is_real(*large, *small)
    return has_packs(*large) if real is True else real


def per_channel(count, x):
    """That many unwritten arrays of a value a channel."""
    return tuple(empty(x.shape[1:2], x) for _ in range(count))


def each_cut(made, name, width, x, arrays, *rest):
    """Launches an element-wise kernel over x, cut into steps of ``width``."""
    N, C, S = sizes_of(x)
    grid, chunk, columns = cut(x, width)
    made(name, width)(x)(grid, (BLOCK,), (*arrays, *map(np.int32, (N, C, S, chunk)), columns, *rest))


# -- forward: plain ----------------------------------------------------------------------------------------------------


@jit.typed
def batch_norm_forward_plain_kernel(real):
    """A block a channel: a pass for the mean, one for the variance, one for y."""
    statistics = statistics_of(real)

    def forward(y, mean, var, invstd, x, w, b, C, S, count, eps):
        scratch = cuda.shared.array(WARP, double)
        c, t, threads = cuda.blockIdx.x, cuda.threadIdx.x, cuda.blockDim.x
        sum, squares = nought, nought
        for j in range(t, count, threads):
            sum += x[value_at(j, c, C, S)]
        average = block_sum(sum, scratch) / double(count)  # 0 / 0 is the NaN that no values must give
        m = real(average)
        for j in range(t, count, threads):
            d = x[value_at(j, c, C, S)] - m
            squares += d * d
        spread = block_sum(squares, scratch) / double(count)
        found = statistics(average, spread, or_one(w, c), or_zero(b, c), eps)
        if t == 0:
            put_channel(mean, var, invstd, c, found)
        for j in range(t, count, threads):
            i = value_at(j, c, C, S)
            y[i] = affine(x[i], x[i], found.line)

    return forward


@kernel("batch_norm.forward", backend="numba_cuda", variant="plain", when=lambda x, w, b, *, eps: is_real(x, w, b))
def batch_norm_forward_plain(x, w, b, *, eps):
    """One block a channel, three passes."""
    x, w, b = given(x, x, w, b)
    N, C, S = sizes_of(x)
    outputs = (empty(x.shape, x), *per_channel(3, x))
    batch_norm_forward_plain_kernel(x)((C,), (BLOCK,), (*outputs, x, w, b, C, S, N * S, double(eps)))
    return outputs


# -- forward: split and vectorised -------------------------------------------------------------------------------------


@template
def batch_norm_forward_kernel(real, W):
    """A part of a channel: its count, sum, mean and squares; each thread every 256th step, 16 values at a time."""
    moments = norms.moments_of(real, W)

    def forward(partial, x, N, C, S, chunk):
        warps = cuda.shared.array(ROOM, double)
        here, t = norms.forwards(), cuda.threadIdx.x
        origin = double(x[here.group * np.int64(S)])
        all = norms.warp_merged(moments(norms.along_rows(W, here, N, C, S, chunk), x, origin))
        if t % WARP == 0:
            norms.keep(warps, t // WARP, WARP, all)
        cuda.syncthreads()
        if t == 0:
            for k in range(1, cuda.blockDim.x // WARP):
                all = norms.merged(all, norms.kept(warps, k, WARP))
            norms.keep(partial, np.int64(here.part) * C + here.group, np.int64(cuda.gridDim.y) * C, all)

    return forward


@jit.typed
def batch_norm_forward_split_columns_kernel(real):
    """The same where rows are short: 32 columns, every TALL-th row of the part in each row of threads."""
    moments = norms.moments_of(real, 1)

    def forward(partial, x, N, C, S, chunk):
        rows = cuda.shared.array(FOURS, double)
        here, t, columns = norms.forwards(), cuda.threadIdx.x, np.int64(C) * S
        column = here.group * WARP + t % WARP
        origin = double(x[column // S * S]) if column < columns else nought
        norms.keep(rows, t, BLOCK, moments(norms.down_columns(here, N, C, S, chunk), x, origin))
        cuda.syncthreads()
        if t < WARP and column < columns:
            all = norms.kept(rows, t, BLOCK)
            for k in range(1, TALL):
                all = norms.merged(all, norms.kept(rows, k * WARP + t, BLOCK))
            norms.keep(partial, here.part * columns + column, cuda.gridDim.y * columns, all)

    return forward


@jit.typed
def batch_norm_forward_split_combine_kernel(real):
    """A warp a channel: its parts together, ``slots`` results each, and the factors of y."""
    channel = channel_of(real)

    def forward(mean, var, invstd, scale, shift, partial, w, b, C, parts, slots, eps):
        lane, c = cuda.threadIdx.x % WARP, cuda.grid(1) // WARP
        all = norms.Moments(nought, nought, nought, nought)
        stop = parts * slots if c < C else 0
        for k in range(lane, stop, WARP):
            at = (k // slots * C + c) * slots + k % slots
            all = norms.merged(all, norms.kept(partial, at, parts * C * slots))
        all = norms.warp_merged(all)
        if lane == 0 and c < C:
            # 0 / 0 is the NaN that no values must give
            found = channel(all.sum / all.count, all.squares / all.count, or_one(w, c), or_zero(b, c), eps)
            put_channel(mean, var, invstd, c, found)
            scale[c], shift[c] = found.line.slope, found.line.level

    return forward


@template
def batch_norm_forward_values_kernel(real, W):
    """The values of a part, taken from the end: there x is still in the cache."""
    run, zero = norms.each(real, W, affine), real(0)

    def forward(y, x, mean, scale, shift, N, C, S, chunk, columns):
        room = cuda.shared.array(ROOM, real)
        here = norms.backwards()
        slot, c, computes = norms.slot_of(here, C, S, columns)
        if computes:
            norms.put(room, slot, Line(mean[c], scale[c], shift[c], zero))
        cuda.syncthreads()
        run(norms.walk(W, here, N, C, S, chunk, columns), y, x, x, norms.got(room, slot))

    return forward


def _forward(name, width, x, w, b, eps):
    x, w, b = given(x, x, w, b)
    N, C, S = sizes_of(x)
    (groups, parts), chunk, columns = cut(x, width)
    y, mean, var, invstd = outputs = (empty(x.shape, x), *per_channel(3, x))
    scale, shift = per_channel(2, x)
    slots = S if columns else 1
    partial = empty((4, parts, C * slots), x, double)
    first = batch_norm_forward_split_columns_kernel if columns else batch_norm_forward_kernel(name, width)
    first(x)((groups, parts), (BLOCK,), (partial, x, *map(np.int32, (N, C, S, chunk))))
    arguments = (mean, var, invstd, scale, shift, partial, w, b, C, parts, slots, double(eps))
    batch_norm_forward_split_combine_kernel(x)((cdiv(C, TALL),), (BLOCK,), arguments)
    each_cut(batch_norm_forward_values_kernel, name + "_values", width, x, (y, x, mean, scale, shift))
    return outputs


@kernel("batch_norm.forward", backend="numba_cuda", variant="split", when=when_small)
def batch_norm_forward_split(x, w, b, *, eps):
    """Statistics of the parts of each channel, their combination, then the values."""
    return _forward("batch_norm_forward_split", 1, x, w, b, eps)


@kernel("batch_norm.forward", backend="numba_cuda", variant="vectorised", when=when_packs, pays=is_long)
def batch_norm_forward_vectorised(x, w, b, *, eps):
    """As split, 16 bytes at a time."""
    return _forward("batch_norm_forward_vectorised", 16 // x.itemsize, x, w, b, eps)


# -- forward: resident -------------------------------------------------------------------------------------------------


@template
def batch_norm_forward_resident_kernel(real, W):
    """A block a channel, which stays in dynamic shared memory: read once, both passes there."""
    statistics, load, store = statistics_of(real), norms.loads(W), norms.stores(W)

    def forward(y, mean, var, invstd, x, w, b, N, C, S, eps):
        scratch = cuda.shared.array(WARP, double)
        held = cuda.shared.array(0, real, 16)
        c, t, count = cuda.blockIdx.x, cuda.threadIdx.x, N * S
        begin = norms.along_rows(W, norms.forwards(), N, C, S, count // W)
        v = cuda.local.array(W, real)
        sum, squares = nought, nought
        at = begin
        while at.j < at.stop:
            load(v, 0, x, at.place)
            store(held, at.j, v, 0)
            for i in range(W):
                sum += v[i]
            at = norms.moved(at)
        average = block_sum(sum, scratch) / double(count)  # behind its barriers all see all that is held
        m = real(average)
        for j in range(t, count, cuda.blockDim.x):
            d = held[j] - m
            squares += d * d
        spread = block_sum(squares, scratch) / double(count)
        found = statistics(average, spread, or_one(w, c), or_zero(b, c), eps)
        if t == 0:
            put_channel(mean, var, invstd, c, found)
        at = begin
        while at.j < at.stop:
            load(v, 0, held, at.j)
            for i in range(W):
                v[i] = affine(v[i], v[i], found.line)
            store(y, at.place, v, 0)
            at = norms.moved(at)

    return forward


@jit.device
def column_sum(value, rows):
    """The sum of a column's threads, in a fixed order, for all of them; rows: an element for each thread."""
    t = cuda.threadIdx.x
    rows[t] = value
    cuda.syncthreads()
    all = nought
    for k in range(t % WARP, cuda.blockDim.x, WARP):
        all += rows[k]
    cuda.syncthreads()  # everyone has read before the next sum is written
    return all


@jit.typed
def batch_norm_forward_resident_columns_kernel(real):
    """Where a row is one value: a block walks three times down 32 channels, which the first-level cache holds."""
    statistics = statistics_of(real)

    def forward(y, mean, var, invstd, x, w, b, N, C, eps):
        rows = cuda.shared.array(LARGEST, double)
        t, c = cuda.threadIdx.x, cuda.blockIdx.x * WARP + cuda.threadIdx.x % WARP
        row, tall = t // WARP, cuda.blockDim.x // WARP
        stop, some = (N, c) if c < C else (np.int32(0), np.int32(0))
        sum, squares = nought, nought
        for n in range(row, stop, tall):
            sum += x[np.uint64(n * np.int64(C) + c)]
        average = column_sum(sum, rows) / double(N)
        m = real(average)
        for n in range(row, stop, tall):
            d = x[np.uint64(n * np.int64(C) + c)] - m
            squares += d * d
        spread = column_sum(squares, rows) / double(N)
        found = statistics(average, spread, or_one(w, some), or_zero(b, some), eps)
        if c < C and row == 0:
            put_channel(mean, var, invstd, c, found)
        for n in range(row, stop, tall):
            i = np.uint64(n * np.int64(C) + c)
            y[i] = affine(x[i], x[i], found.line)

    return forward


@kernel("batch_norm.forward", backend="numba_cuda", variant="resident", when=when_held, pays=pays_held)
def batch_norm_forward_resident(x, w, b, *, eps):
    """One launch: a block holds a channel, or walks down 32 columns."""
    x, w, b = given(x, x, w, b)
    N, C, S = sizes_of(x)
    outputs = (empty(x.shape, x), *per_channel(3, x))
    arrays = (*outputs, x, w, b, np.int32(N), np.int32(C))
    if S == 1:
        block = WARP * min(32, max(TALL, cdiv(N, 4)))
        batch_norm_forward_resident_columns_kernel(x)((cdiv(C, WARP),), (block,), (*arrays, double(eps)))
    else:
        name, width = "batch_norm_forward_resident", 16 // x.itemsize if has_packs(x) is True else 1
        made = batch_norm_forward_resident_kernel(name + ("_wide" if width > 1 else ""), width)(x)
        made((C,), (2 * BLOCK,), (*arrays, np.int32(S), double(eps)), N * S * x.itemsize)
    return outputs


# -- forward_eval ------------------------------------------------------------------------------------------------------


def given_line(real):
    """The line of y with given statistics."""
    zero = real(0)

    @jit.device
    def line(mean, var, w, b, c, eps):
        scale = one / root(double(var[c]) + eps) * or_one(w, c)
        return Line(mean[c], real(scale), real(or_zero(b, c)), zero)

    return line


@jit.typed
def batch_norm_forward_eval_plain_kernel(real):
    """As batch_norm_forward_plain_kernel without its first two passes."""
    line = given_line(real)

    def forward_eval(y, x, mean, var, w, b, C, S, count, eps):
        c = cuda.blockIdx.x
        found = line(mean, var, w, b, c, eps)
        for j in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            i = value_at(j, c, C, S)
            y[i] = affine(x[i], x[i], found)

    return forward_eval


@kernel(
    "batch_norm.forward_eval",
    backend="numba_cuda",
    variant="plain",
    when=lambda x, mean, var, w, b, *, eps: is_real(x, mean, var, w, b),
)
def batch_norm_forward_eval_plain(x, mean, var, w, b, *, eps):
    """One block a channel."""
    x, mean, var, w, b = given(x, x, mean, var, w, b)
    N, C, S = sizes_of(x)
    y = empty(x.shape, x)
    arguments = (y, x, mean, var, w, b, C, S, N * S, double(eps))
    batch_norm_forward_eval_plain_kernel(x)((C,), (BLOCK,), arguments)
    return y


@template
def batch_norm_forward_eval_kernel(real, W):
    """As batch_norm_forward_values_kernel, with factors from the given statistics."""
    line, run = given_line(real), norms.each(real, W, affine)

    def forward_eval(y, x, mean, var, w, b, N, C, S, chunk, columns, eps):
        room = cuda.shared.array(ROOM, real)
        here = norms.forwards()
        slot, c, computes = norms.slot_of(here, C, S, columns)
        if computes:
            norms.put(room, slot, line(mean, var, w, b, c, eps))
        cuda.syncthreads()
        run(norms.walk(W, here, N, C, S, chunk, columns), y, x, x, norms.got(room, slot))

    return forward_eval


def _forward_eval(name, width, arrays, eps):
    arrays = given(arrays[0], *arrays)
    y = empty(arrays[0].shape, arrays[0])
    each_cut(batch_norm_forward_eval_kernel, name, width, arrays[0], (y, *arrays), double(eps))
    return y


@kernel(
    "batch_norm.forward_eval",
    backend="numba_cuda",
    variant="split",
    when=lambda x, mean, var, w, b, *, eps: is_small(x, mean, var, w, b),
)
def batch_norm_forward_eval_split(x, mean, var, w, b, *, eps):
    """Each channel over several blocks."""
    return _forward_eval("batch_norm_forward_eval_split", 1, (x, mean, var, w, b), eps)


@kernel(
    "batch_norm.forward_eval",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda x, mean, var, w, b, *, eps: packed((x,), (mean, var, w, b)),
    pays=is_long,
)
def batch_norm_forward_eval_vectorised(x, mean, var, w, b, *, eps):
    """As split, 16 bytes at a time."""
    return _forward_eval("batch_norm_forward_eval_vectorised", 16 // x.itemsize, (x, mean, var, w, b), eps)


# -- grad_wb -----------------------------------------------------------------------------------------------------------


@jit.typed
def batch_norm_grad_wb_plain_kernel(real):
    """As the first pass of batch_norm_forward_plain_kernel, with two sums."""
    zero = real(0)

    def grad_wb(gw, gb, gy, x, mean, invstd, C, S, count):
        scratch = cuda.shared.array(WARP, double)
        c, t, m = cuda.blockIdx.x, cuda.threadIdx.x, mean[cuda.blockIdx.x]
        products, sum = nought, nought
        for j in range(t, count, cuda.blockDim.x):
            i = value_at(j, c, C, S)
            products += (x[i] - m) * gy[i]
            sum += gy[i]
        products = block_sum(products, scratch)
        sum = block_sum(sum, scratch)
        if t == 0:
            gw[c] = real(products * double(invstd[c])) if count > 0 else zero  # without values invstd is NaN
            gb[c] = real(sum)

    return grad_wb


@kernel("batch_norm.grad_wb", backend="numba_cuda", variant="plain", when=is_real)
def batch_norm_grad_wb_plain(gy, x, mean, invstd):
    """One block a channel."""
    gy, x, mean, invstd = given(x, gy, x, mean, invstd)
    N, C, S = sizes_of(x)
    gw, gb = per_channel(2, x)
    batch_norm_grad_wb_plain_kernel(x)((C,), (BLOCK,), (gw, gb, gy, x, mean, invstd, C, S, N * S))
    return gw, gb


@template
def batch_norm_grad_wb_kernel(real, W):
    """As batch_norm_forward_kernel, with gy and x read and two sums written for each part."""
    sums = norms.sums_of(real, W)

    def grad_wb(partial, gy, x, mean, N, C, S, chunk):
        scratch = cuda.shared.array(WARP, double)
        here = norms.forwards()
        products, plain = sums(norms.along_rows(W, here, N, C, S, chunk), gy, x, mean[here.group])
        products = block_sum(products, scratch)
        plain = block_sum(plain, scratch)
        if cuda.threadIdx.x == 0:
            at = np.int64(here.part) * C + here.group
            partial[at] = products
            partial[np.int64(cuda.gridDim.y) * C + at] = plain

    return grad_wb


@jit.typed
def batch_norm_grad_wb_split_columns_kernel(real):
    """As batch_norm_forward_split_columns_kernel, with those two sums."""
    sums, zero = norms.sums_of(real, 1), real(0)

    def grad_wb(partial, gy, x, mean, N, C, S, chunk):
        rows = cuda.shared.array(BLOCK, double)
        here, t, columns = norms.forwards(), cuda.threadIdx.x, np.int64(C) * S
        column = here.group * WARP + t % WARP
        m = mean[column // S] if column < columns else zero
        products, plain = sums(norms.down_columns(here, N, C, S, chunk), gy, x, m)
        products = column_sum(products, rows)
        plain = column_sum(plain, rows)
        if t < WARP and column < columns:
            partial[here.part * columns + column] = products
            partial[(cuda.gridDim.y + here.part) * columns + column] = plain

    return grad_wb


@jit.typed
def batch_norm_grad_wb_split_combine_kernel(real):
    """As batch_norm_forward_split_combine_kernel, with sums to add."""
    zero = real(0)

    def grad_wb(gw, gb, partial, invstd, C, parts, slots):
        lane, c = cuda.threadIdx.x % WARP, cuda.grid(1) // WARP
        products, plain = nought, nought
        stop = parts * slots if c < C else 0
        for k in range(lane, stop, WARP):
            at = (k // slots * C + c) * slots + k % slots
            products += partial[at]
            plain += partial[parts * C * slots + at]
        products, plain = warp_sum(products), warp_sum(plain)
        if lane == 0 and c < C:
            gw[c] = real(products * double(invstd[c])) if parts > 0 else zero  # without values invstd is NaN
            gb[c] = real(plain)

    return grad_wb


def _grad_wb(name, width, gy, x, mean, invstd):
    gy, x, mean, invstd = given(x, gy, x, mean, invstd)
    N, C, S = sizes_of(x)
    (groups, parts), chunk, columns = cut(x, width)
    gw, gb = per_channel(2, x)
    slots = S if columns else 1
    partial = empty((2, parts, C * slots), x, double)
    first = batch_norm_grad_wb_split_columns_kernel if columns else batch_norm_grad_wb_kernel(name, width)
    first(x)((groups, parts), (BLOCK,), (partial, gy, x, mean, *map(np.int32, (N, C, S, chunk))))
    arguments = (gw, gb, partial, invstd, C, parts, slots)
    batch_norm_grad_wb_split_combine_kernel(x)((cdiv(C, TALL),), (BLOCK,), arguments)
    return gw, gb


@kernel("batch_norm.grad_wb", backend="numba_cuda", variant="split", when=is_small)
def batch_norm_grad_wb_split(gy, x, mean, invstd):
    """Sums of the parts of each channel, then their sums."""
    return _grad_wb("batch_norm_grad_wb_split", 1, gy, x, mean, invstd)


@kernel(
    "batch_norm.grad_wb",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda gy, x, mean, invstd: packed((gy, x), (mean, invstd)),
    pays=is_long,
)
def batch_norm_grad_wb_vectorised(gy, x, mean, invstd):
    """As split, 16 bytes at a time."""
    return _grad_wb("batch_norm_grad_wb_vectorised", 16 // x.itemsize, gy, x, mean, invstd)


# -- grad_x ------------------------------------------------------------------------------------------------------------


def slope_line(real):
    """The line of gx."""

    @jit.device
    def line(w, mean, invstd, gw, gb, c, count):
        factor = double(invstd[c]) * or_one(w, c)
        slope = -factor * double(invstd[c]) * double(gw[c]) / count
        return Line(mean[c], real(slope), real(-factor * double(gb[c]) / count), real(factor))

    return line


@jit.typed
def batch_norm_grad_x_plain_kernel(real):
    """As the last pass of batch_norm_forward_plain_kernel, with gy and x read."""
    line = slope_line(real)

    def grad_x(gx, gy, x, w, mean, invstd, gw, gb, C, S, count):
        c = cuda.blockIdx.x
        found = line(w, mean, invstd, gw, gb, c, double(count))
        for j in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            i = value_at(j, c, C, S)
            gx[i] = sloped(gy[i], x[i], found)

    return grad_x


@kernel("batch_norm.grad_x", backend="numba_cuda", variant="plain", when=is_real)
def batch_norm_grad_x_plain(gy, x, w, mean, invstd, gw, gb):
    """One block a channel."""
    arrays = given(x, gy, x, w, mean, invstd, gw, gb)
    N, C, S = sizes_of(x)
    gx = empty(x.shape, x)
    batch_norm_grad_x_plain_kernel(x)((C,), (BLOCK,), (gx, *arrays, C, S, N * S))
    return gx


@template
def batch_norm_grad_x_kernel(real, W):
    """As batch_norm_forward_values_kernel, with gy and x read: grad_wb has just done so."""
    line, run = slope_line(real), norms.each(real, W, sloped)

    def grad_x(gx, gy, x, w, mean, invstd, gw, gb, N, C, S, chunk, columns):
        room = cuda.shared.array(ROOM, real)
        here = norms.backwards()
        slot, c, computes = norms.slot_of(here, C, S, columns)
        if computes:
            norms.put(room, slot, line(w, mean, invstd, gw, gb, c, double(N) * double(S)))
        cuda.syncthreads()
        run(norms.walk(W, here, N, C, S, chunk, columns), gx, gy, x, norms.got(room, slot))

    return grad_x


@kernel("batch_norm.grad_x", backend="numba_cuda", variant="split", when=is_small)
def batch_norm_grad_x_split(gy, x, w, mean, invstd, gw, gb):
    """Each channel over several blocks."""
    arrays = (empty(x.shape, x), *given(x, gy, x, w, mean, invstd, gw, gb))
    each_cut(batch_norm_grad_x_kernel, "batch_norm_grad_x_split", 1, x, arrays)
    return arrays[0]


@kernel(
    "batch_norm.grad_x",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda gy, x, w, mean, invstd, gw, gb: packed((gy, x), (w, mean, invstd, gw, gb)),
    pays=is_long,
)
def batch_norm_grad_x_vectorised(gy, x, w, mean, invstd, gw, gb):
    """As split, 16 bytes at a time."""
    arrays = (empty(x.shape, x), *given(x, gy, x, w, mean, invstd, gw, gb))
    each_cut(batch_norm_grad_x_kernel, "batch_norm_grad_x_vectorised", 16 // x.itemsize, x, arrays)
    return arrays[0]


# -- grad_x_eval -------------------------------------------------------------------------------------------------------


@jit.typed
def batch_norm_grad_x_eval_plain_kernel(real):
    """As batch_norm_grad_x_plain_kernel, of gy alone."""

    def grad_x_eval(gx, gy, w, invstd, C, S, count):
        c = cuda.blockIdx.x
        factor = real(double(invstd[c]) * or_one(w, c))
        for j in range(cuda.threadIdx.x, count, cuda.blockDim.x):
            i = value_at(j, c, C, S)
            gx[i] = gy[i] * factor

    return grad_x_eval


@kernel("batch_norm.grad_x_eval", backend="numba_cuda", variant="plain", when=is_real)
def batch_norm_grad_x_eval_plain(gy, w, invstd):
    """One block a channel."""
    gy, w, invstd = given(gy, gy, w, invstd)
    N, C, S = sizes_of(gy)
    gx = empty(gy.shape, gy)
    batch_norm_grad_x_eval_plain_kernel(gy)((C,), (BLOCK,), (gx, gy, w, invstd, C, S, N * S))
    return gx


@template
def batch_norm_grad_x_eval_kernel(real, W):
    """As batch_norm_forward_eval_kernel, of gy alone."""
    run, zero = norms.each(real, W, scaled), real(0)

    def grad_x_eval(gx, gy, w, invstd, N, C, S, chunk, columns):
        room = cuda.shared.array(ROOM, real)
        here = norms.forwards()
        slot, c, computes = norms.slot_of(here, C, S, columns)
        if computes:
            norms.put(room, slot, Line(zero, zero, zero, real(double(invstd[c]) * or_one(w, c))))
        cuda.syncthreads()
        run(norms.walk(W, here, N, C, S, chunk, columns), gx, gy, gy, norms.got(room, slot))

    return grad_x_eval


@kernel("batch_norm.grad_x_eval", backend="numba_cuda", variant="split", when=is_small)
def batch_norm_grad_x_eval_split(gy, w, invstd):
    """Each channel over several blocks."""
    arrays = (empty(gy.shape, gy), *given(gy, gy, w, invstd))
    each_cut(batch_norm_grad_x_eval_kernel, "batch_norm_grad_x_eval_split", 1, gy, arrays)
    return arrays[0]


@kernel(
    "batch_norm.grad_x_eval",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda gy, w, invstd: packed((gy,), (w, invstd)),
    pays=is_long,
)
def batch_norm_grad_x_eval_vectorised(gy, w, invstd):
    """As split, 16 bytes at a time."""
    arrays = (empty(gy.shape, gy), *given(gy, gy, w, invstd))
    each_cut(batch_norm_grad_x_eval_kernel, "batch_norm_grad_x_eval_vectorised", 16 // gy.itemsize, gy, arrays)
    return arrays[0]
