"""layer_norm on Numba-CUDA: the rungs of layer_norm.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/layer_norm.py
#
# Row r of x (R, D) begins at r * D. Where w or b has no elements it stands for ones or zeros. Rows are centred in two
# steps, as in the definition: by the mean rounded to ``real``, which loses nothing, then by the rest of the mean.

from typing import Any, NamedTuple

import numpy as np

from gpunet import cuda as gpu
from gpunet.cuda import jit
from gpunet.cuda.jit import cuda
from gpunet.dispatch import kernel

from ..common.launching import empty
from ..common.norms_numba import BLOCK, TALL, WARP, double, given, loads, nought, one, root, stores, template
from ..common.rows_numba import block_sum, warp_sum
from ..common.shapes import cdiv
from .layer_norm_cupy import HELD, LONG, PER_MULTIPROCESSOR, RUN, SHORT, WIDE_BLOCK, fits, fits_warp, has_packs

# -- what becomes of a row ---------------------------------------------------------------------------------------------


class Centre(NamedTuple):
    """The mean of a row, as rounded and as the rest."""

    mean: Any
    rest: Any


def centre_of(real):
    """The centre of a row with that sum."""

    @jit.device
    def centre(sum, D):
        mean = sum / double(D)
        return Centre(real(mean), real(mean - double(real(mean))))

    return centre


def inverse_of(real):
    """The invstd of a row with that sum of squares."""

    @jit.device
    def inverse(squares, D, eps):
        return real(one / root(squares / double(D) + eps))

    return inverse


@jit.device
def centred(x, centre):
    """The distance of x from the mean."""
    return (x - centre.mean) - centre.rest


@jit.device
def near(first, zero):
    """What a short run is taken relative to: its first value, not an infinity, which would make NaN of an inf sum."""
    return first if first - first == zero else zero


@jit.device
def weighted(v, w, d):
    """v * w[d], or v where there is no w."""
    return v * w[d] if w.size > 0 else v


@jit.device
def finished(v, w, b, d):
    """The y of xhat."""
    v = weighted(v, w, d)
    return v + b[d] if b.size > 0 else v


# -- plain -------------------------------------------------------------------------------------------------------------


@jit.typed
def layer_norm_forward_plain_kernel(real):
    """A block a row: a pass for the mean, one for the variance, one for y."""
    centre_, inverse = centre_of(real), inverse_of(real)

    def forward(y, mean, invstd, x, w, b, D, eps):
        scratch = cuda.shared.array(WARP, double)
        t, threads, r = cuda.threadIdx.x, cuda.blockDim.x, np.int64(cuda.blockIdx.x)
        sum, squares = nought, nought
        for d in range(t, D, threads):
            sum += x[r * D + d]
        centre = centre_(block_sum(sum, scratch), D)
        for d in range(t, D, threads):
            v = centred(x[r * D + d], centre)
            squares += v * v
        factor = inverse(block_sum(squares, scratch), D, eps)
        for d in range(t, D, threads):
            y[r * D + d] = finished(centred(x[r * D + d], centre) * factor, w, b, d)
        if t == 0:
            mean[r], invstd[r] = centre.mean, factor

    return forward


@kernel("layer_norm.forward", backend="numba_cuda", variant="plain", when=lambda x, w, b, *, eps: fits(x, w, b))
def layer_norm_forward_plain(x, w, b, *, eps):
    """One block a row, three passes."""
    arrays, outputs, (R, D) = _forward(x, w, b)
    layer_norm_forward_plain_kernel(x)((R,), (BLOCK,), (*outputs, *arrays, D, double(eps)))
    return outputs


def _forward(x, w, b):
    return given(x, x, w, b), (empty(x.shape, x), empty(x.shape[:1], x), empty(x.shape[:1], x)), x.shape


@jit.typed
def layer_norm_grad_wb_plain_kernel(real):
    """A thread a column, all rows of it."""

    def grad_wb(gw, gb, gy, x, mean, invstd, R, D):
        d = cuda.grid(1)
        if d >= D:
            return
        products, plain = nought, nought
        for r in range(R):
            g = gy[r * D + d]
            products += g * ((x[r * D + d] - mean[r]) * invstd[r])
            plain += g
        gw[d], gb[d] = real(products), real(plain)

    return grad_wb


@kernel("layer_norm.grad_wb", backend="numba_cuda", variant="plain", when=fits)
def layer_norm_grad_wb_plain(gy, x, mean, invstd):
    """One thread a column."""
    arrays, (R, D) = given(x, gy, x, mean, invstd), x.shape
    gw, gb = empty((D,), x), empty((D,), x)
    layer_norm_grad_wb_plain_kernel(x)((cdiv(D, BLOCK),), (BLOCK,), (gw, gb, *arrays, R, D))
    return gw, gb


@jit.typed
def layer_norm_grad_x_plain_kernel(real):
    """As layer_norm_forward_plain_kernel, with gy and x read twice: for both means, and for gx."""

    def grad_x(gx, gy, x, w, mean, invstd, D):
        scratch = cuda.shared.array(WARP, double)
        t, threads, r = cuda.threadIdx.x, cuda.blockDim.x, np.int64(cuda.blockIdx.x)
        m, factor = mean[r], invstd[r]
        products, plain = nought, nought
        for d in range(t, D, threads):
            g = weighted(gy[r * D + d], w, d)
            products += g * ((x[r * D + d] - m) * factor)
            plain += g
        slope = real(block_sum(products, scratch) / double(D))
        level = real(block_sum(plain, scratch) / double(D))
        for d in range(t, D, threads):
            g = weighted(gy[r * D + d], w, d)
            gx[r * D + d] = (g - level - (x[r * D + d] - m) * factor * slope) * factor

    return grad_x


@kernel("layer_norm.grad_x", backend="numba_cuda", variant="plain", when=fits)
def layer_norm_grad_x_plain(gy, x, w, mean, invstd):
    """One block a row, two passes."""
    arrays, gx, (R, D) = given(x, gy, x, w, mean, invstd), empty(x.shape, x), x.shape
    layer_norm_grad_x_plain_kernel(x)((R,), (BLOCK,), (gx, *arrays, D))
    return gx


# -- grad_wb: split and vectorised -------------------------------------------------------------------------------------


@template
def layer_norm_grad_wb_kernel(real, W):
    """A part of the rows of 32 * W columns: every TALL-th a thread, RUN of them at a time, summed in ``real`` first."""
    N, ROOM, load, zero = RUN * W, W * BLOCK, loads(W), real(0)

    def grad_wb(partial, gy, x, mean, invstd, R, D, chunk):
        room_products = cuda.shared.array(ROOM, double)
        room_plain = cuda.shared.array(ROOM, double)
        t, steps, first = cuda.threadIdx.x, D // W, cuda.blockIdx.y * chunk
        step = cuda.blockIdx.x * WARP + t % WARP
        stop = min(first + chunk, R) if step < steps else 0
        for i in range(W):
            room_products[i * BLOCK + t], room_plain[i * BLOCK + t] = nought, nought
        for r in range(first + t // WARP, stop, RUN * TALL):
            g = cuda.local.array(N, real)
            v = cuda.local.array(N, real)
            for k in range(RUN):
                n = r + k * TALL
                if n < stop:
                    load(g, k * W, gy, n * steps + step)
                    load(v, k * W, x, n * steps + step)
                    for i in range(k * W, k * W + W):
                        v[i] = g[i] * ((v[i] - mean[n]) * invstd[n])
                else:
                    for i in range(k * W, k * W + W):
                        g[i], v[i] = zero, zero
            for i in range(W):
                product, sum = zero, zero
                for k in range(RUN):
                    product += v[k * W + i]
                    sum += g[k * W + i]
                room_products[i * BLOCK + t] += double(product)
                room_plain[i * BLOCK + t] += double(sum)
        cuda.syncthreads()
        for k in range(t, W * WARP, BLOCK):
            i, lane = k // WARP, k % WARP
            column = (cuda.blockIdx.x * WARP + lane) * W + i
            if column < D:
                products, plain = nought, nought
                for row in range(TALL):
                    products += room_products[i * BLOCK + row * WARP + lane]
                    plain += room_plain[i * BLOCK + row * WARP + lane]
                partial[cuda.blockIdx.y * D + column] = products
                partial[(np.int64(cuda.gridDim.y) + cuda.blockIdx.y) * D + column] = plain

    return grad_wb


@jit.typed
def layer_norm_grad_wb_split_combine_kernel(real):
    """32 columns a block: every TALL-th part a thread, then the sums of those."""

    def grad_wb(gw, gb, partial, D, parts):
        room_products = cuda.shared.array(BLOCK, double)
        room_plain = cuda.shared.array(BLOCK, double)
        t, column = cuda.threadIdx.x, cuda.blockIdx.x * WARP + cuda.threadIdx.x % WARP
        products, plain = nought, nought
        stop = parts if column < D else 0
        for k in range(t // WARP, stop, TALL):
            products += partial[k * D + column]
            plain += partial[(parts + k) * D + column]
        room_products[t], room_plain[t] = products, plain
        cuda.syncthreads()
        if t < WARP and column < D:
            for row in range(1, TALL):
                products += room_products[row * WARP + t]
                plain += room_plain[row * WARP + t]
            gw[column], gb[column] = real(products), real(plain)

    return grad_wb


def _grad_wb(name, width, gy, x, mean, invstd):
    arrays, (R, D) = given(x, gy, x, mean, invstd), x.shape
    groups = cdiv(D, WARP * width)
    most = cdiv(PER_MULTIPROCESSOR * gpu.multiprocessors(x), max(groups, 1))
    chunk = max(1, cdiv(R, most * TALL * RUN)) * TALL * RUN
    parts = cdiv(R, chunk)
    partial = empty((2, parts, D), x, double)
    gw, gb = empty((D,), x), empty((D,), x)
    layer_norm_grad_wb_kernel(name, width)(x)((groups, parts), (BLOCK,), (partial, *arrays, R, D, chunk))
    layer_norm_grad_wb_split_combine_kernel(x)((cdiv(D, WARP),), (BLOCK,), (gw, gb, partial, D, parts))
    return gw, gb


@kernel("layer_norm.grad_wb", backend="numba_cuda", variant="split", when=fits)
def layer_norm_grad_wb_split(gy, x, mean, invstd):
    """Sums of parts of the rows, then their sums."""
    return _grad_wb("layer_norm_grad_wb_split", 1, gy, x, mean, invstd)


@kernel(
    "layer_norm.grad_wb",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda gy, x, mean, invstd: has_packs((x, gy), (mean, invstd)),
)
def layer_norm_grad_wb_vectorised(gy, x, mean, invstd):
    """As split, 16 bytes of columns a thread."""
    return _grad_wb("layer_norm_grad_wb_vectorised", 16 // x.itemsize, gy, x, mean, invstd)


# -- forward: a row in the registers of a warp, or in the shared memory of a block -------------------------------------


@template
def layer_norm_forward_row_kernel(real, W, N):
    """A warp a row of at most 32 * N values: lane l has the values (l + 32 k) * W, ... of it, N of them."""
    centre_, inverse, load, store = centre_of(real), inverse_of(real), loads(W), stores(W)
    zero, LENGTH = real(0), 4 if W == 1 else W

    def forward(y, mean, invstd, x, w, b, eps, R, D):
        lane, r = np.int32(cuda.threadIdx.x % WARP), cuda.grid(1) // WARP
        steps = D // W if r < R else np.int32(0)
        row = cuda.local.array(N, real)
        sum, squares = nought, nought
        for k in range(0, N, W):
            s = np.int32(lane + k // W * WARP)
            for i in range(k, k + W):
                row[i] = zero
            if s < steps:
                load(row, k, x, r * steps + s)
        for run in range(N // LENGTH):  # 4 values, or 2 doubles, are summed in real
            origin, part, count = near(row[run * LENGTH], zero), zero, np.int32(0)
            for j in range(LENGTH):
                inside = np.int32(lane + (run * LENGTH + j) // W * WARP) < steps
                part += row[run * LENGTH + j] - origin if inside else zero
                count = np.int32(count + inside)
            sum += double(origin) * double(count) + double(part)
        centre = centre_(warp_sum(sum), D)
        for run in range(N // LENGTH):
            part = zero
            for j in range(LENGTH):
                v = centred(row[run * LENGTH + j], centre)
                row[run * LENGTH + j] = v
                part += v * v if np.int32(lane + (run * LENGTH + j) // W * WARP) < steps else zero
            squares += double(part)
        factor = inverse(warp_sum(squares), D, eps)
        few = cuda.local.array(W, real)
        for i in range(N):
            row[i] *= factor
        if w.size > 0:
            for k in range(N // W):
                if lane + k * WARP < steps:
                    load(few, 0, w, lane + k * WARP)
                    for i in range(W):
                        row[k * W + i] *= few[i]
        if b.size > 0:
            for k in range(N // W):
                if lane + k * WARP < steps:
                    load(few, 0, b, lane + k * WARP)
                    for i in range(W):
                        row[k * W + i] += few[i]
        for k in range(N // W):
            if lane + k * WARP < steps:
                store(y, r * steps + (lane + k * WARP), row, k * W)
        if lane == 0 and r < R:
            mean[r], invstd[r] = centre.mean, factor

    return forward


def over_warps(made, name, width, x, *arguments):
    """Launches a kernel that gives each row a warp, the one for short rows where it is enough."""
    R, D = x.shape
    short, most = ("_short", SHORT) if D <= SHORT else ("", LONG)
    made(name + short, width, most // WARP)(x)((cdiv(R, TALL),), (BLOCK,), (*arguments, R, np.int32(D)))


@kernel("layer_norm.forward", backend="numba_cuda", variant="warp", when=lambda x, w, b, *, eps: fits_warp(x, w, b))
def layer_norm_forward_warp(x, w, b, *, eps):
    """A warp a row."""
    arrays, outputs, _ = _forward(x, w, b)
    over_warps(layer_norm_forward_row_kernel, "layer_norm_forward_warp", 1, x, *outputs, *arrays, double(eps))
    return outputs


@template
def layer_norm_forward_long_kernel(real, W, HOLDS):
    """A block a row, 16 bytes at a time; the row in dynamic shared memory where it fits, else read three times."""
    centre_, inverse, load, store, zero = centre_of(real), inverse_of(real), loads(W), stores(W), real(0)

    def forward(y, mean, invstd, x, w, b, eps, D):
        scratch = cuda.shared.array(WARP, double)
        held = cuda.shared.array(0, real, 16)
        t, threads, r = cuda.threadIdx.x, cuda.blockDim.x, np.int64(cuda.blockIdx.x)
        steps = D // W
        v = cuda.local.array(W, real)
        few = cuda.local.array(W, real)
        sum, squares = nought, nought
        for s in range(t, steps, threads):
            load(v, 0, x, r * steps + s)
            if HOLDS:
                store(held, s, v, 0)
            origin, run = near(v[0], zero), zero
            for i in range(W):
                run += v[i] - origin
            sum += double(origin) * double(W) + double(run)
        # A thread reads only what it kept itself, so there is nothing to wait for but the sums.
        centre = centre_(block_sum(sum, scratch), D)
        for s in range(t, steps, threads):
            if HOLDS:
                load(v, 0, held, s)
            else:
                load(v, 0, x, r * steps + s)
            run = zero
            for i in range(W):
                run += centred(v[i], centre) * centred(v[i], centre)
            squares += double(run)
        factor = inverse(block_sum(squares, scratch), D, eps)
        for s in range(t, steps, threads):
            if HOLDS:
                load(v, 0, held, s)
            else:
                load(v, 0, x, r * steps + s)
            for i in range(W):
                v[i] = centred(v[i], centre) * factor
            if w.size > 0:
                load(few, 0, w, s)
                for i in range(W):
                    v[i] *= few[i]
            if b.size > 0:
                load(few, 0, b, s)
                for i in range(W):
                    v[i] += few[i]
            store(y, r * steps + s, v, 0)
        if t == 0:
            mean[r], invstd[r] = centre.mean, factor

    return forward


def over_blocks(made, name, rows, x, *arguments):
    """Launches a kernel that gives each row a block, which holds ``rows`` rows in shared memory where they fit."""
    (R, D), size = x.shape, rows * x.shape[1] * x.itemsize
    holds, block = size <= HELD, BLOCK if D < WIDE_BLOCK else 2 * BLOCK
    of_dtype = made(name + ("_held" if holds else ""), 16 // x.itemsize, holds)(x)
    of_dtype((R,), (block,), (*arguments, np.int32(D)), size if holds else 0)


@kernel(
    "layer_norm.forward",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda x, w, b, *, eps: has_packs((x, w, b)),
)
def layer_norm_forward_vectorised(x, w, b, *, eps):
    """A warp a row up to 1024 values, a block a row beyond; 16 bytes at a time."""
    arrays, outputs, (_, D) = _forward(x, w, b)
    name, arguments = "layer_norm_forward_vectorised", (*outputs, *arrays, double(eps))
    if D > LONG:
        over_blocks(layer_norm_forward_long_kernel, name + "_long", 1, x, *arguments)
    else:
        over_warps(layer_norm_forward_row_kernel, name, 16 // x.itemsize, x, *arguments)
    return outputs


# -- grad_x: the same --------------------------------------------------------------------------------------------------


@template
def layer_norm_grad_x_row_kernel(real, W, N):
    """As layer_norm_forward_row_kernel, with gy and x in registers."""
    load, store, zero = loads(W), stores(W), real(0)

    def grad_x(gx, gy, x, w, mean, invstd, R, D):
        lane, r = np.int32(cuda.threadIdx.x % WARP), cuda.grid(1) // WARP
        steps, some = (D // W, r) if r < R else (np.int32(0), R - 1)
        m, factor = mean[some], invstd[some]
        g = cuda.local.array(N, real)
        xhat = cuda.local.array(N, real)
        few = cuda.local.array(W, real)
        for k in range(0, N, W):
            s = np.int32(lane + k // W * WARP)
            if s < steps:
                load(g, k, gy, r * steps + s)
                load(xhat, k, x, r * steps + s)
        products, plain = nought, nought
        for k in range(0, N, W):
            s = np.int32(lane + k // W * WARP)
            if s < steps:
                if w.size > 0:
                    load(few, 0, w, s)
                    for i in range(W):
                        g[k + i] *= few[i]
                product, sum = zero, zero
                for i in range(k, k + W):
                    xhat[i] = (xhat[i] - m) * factor
                    product += g[i] * xhat[i]
                    sum += g[i]
                products += double(product)
                plain += double(sum)
        slope, level = real(warp_sum(products) / double(D)), real(warp_sum(plain) / double(D))
        for k in range(0, N, W):
            s = np.int32(lane + k // W * WARP)
            if s < steps:
                for i in range(k, k + W):
                    g[i] = (g[i] - level - xhat[i] * slope) * factor
                store(gx, r * steps + s, g, k)

    return grad_x


@kernel(
    "layer_norm.grad_x",
    backend="numba_cuda",
    variant="warp",
    when=lambda gy, x, w, mean, invstd: fits_warp(x, gy, w, mean, invstd),
)
def layer_norm_grad_x_warp(gy, x, w, mean, invstd):
    """A warp a row."""
    arrays = (empty(x.shape, x), *given(x, gy, x, w, mean, invstd))
    over_warps(layer_norm_grad_x_row_kernel, "layer_norm_grad_x_warp", 1, x, *arrays)
    return arrays[0]


@template
def layer_norm_grad_x_long_kernel(real, W, HOLDS):
    """As layer_norm_forward_long_kernel, with g and xhat held."""
    load, store, zero = loads(W), stores(W), real(0)

    @jit.device
    def fetch(g, xhat, few, s, at, gy, x, w, m, factor):
        load(g, 0, gy, at)
        load(xhat, 0, x, at)
        if w.size > 0:
            load(few, 0, w, s)
            for i in range(W):
                g[i] *= few[i]
        for i in range(W):
            xhat[i] = (xhat[i] - m) * factor

    def grad_x(gx, gy, x, w, mean, invstd, D):
        scratch = cuda.shared.array(WARP, double)
        held = cuda.shared.array(0, real, 16)
        t, threads, r = cuda.threadIdx.x, cuda.blockDim.x, np.int64(cuda.blockIdx.x)
        m, factor, steps = mean[r], invstd[r], D // W
        g = cuda.local.array(W, real)
        xhat = cuda.local.array(W, real)
        few = cuda.local.array(W, real)
        products, plain = nought, nought
        for s in range(t, steps, threads):
            fetch(g, xhat, few, s, r * steps + s, gy, x, w, m, factor)
            if HOLDS:
                store(held, s, g, 0)
                store(held, steps + s, xhat, 0)
            product, sum = zero, zero
            for i in range(W):
                product += g[i] * xhat[i]
                sum += g[i]
            products += double(product)
            plain += double(sum)
        slope = real(block_sum(products, scratch) / double(D))
        level = real(block_sum(plain, scratch) / double(D))
        for s in range(t, steps, threads):
            if HOLDS:
                load(g, 0, held, s)
                load(xhat, 0, held, steps + s)
            else:
                fetch(g, xhat, few, s, r * steps + s, gy, x, w, m, factor)
            for i in range(W):
                g[i] = (g[i] - level - xhat[i] * slope) * factor
            store(gx, r * steps + s, g, 0)

    return grad_x


@kernel(
    "layer_norm.grad_x",
    backend="numba_cuda",
    variant="vectorised",
    when=lambda gy, x, w, mean, invstd: has_packs((x, gy, w), (mean, invstd)),
)
def layer_norm_grad_x_vectorised(gy, x, w, mean, invstd):
    """A warp a row up to 1024 values, a block a row beyond; 16 bytes at a time."""
    arrays, name = (empty(x.shape, x), *given(x, gy, x, w, mean, invstd)), "layer_norm_grad_x_vectorised"
    if x.shape[1] > LONG:
        over_blocks(layer_norm_grad_x_long_kernel, name + "_long", 2, x, *arrays)
    else:
        over_warps(layer_norm_grad_x_row_kernel, name, 16 // x.itemsize, x, *arrays)
    return arrays[0]
