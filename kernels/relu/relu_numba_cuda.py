"""relu on Numba-CUDA: the rungs of relu.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/relu.py

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.cuda.packs import load_pack, store_pack
from gpunet.dispatch import kernel

from ..common.elementwise_numba import blocks_of_packs, lanes_of, on_pack, over_two_packs
from ..common.launching import blocks_for, contiguous, empty, is_real, is_wide
from ..common.shapes import cdiv

ALL_LANES = 0xFFFFFFFF


def clipped(real):
    """Of one number; written as a comparison, so a NaN, which is not below zero, goes through."""
    zero = real(0)

    @jit.device
    def value(x, _):
        return zero if x < zero else x

    return value


def passed(real):
    """The gradient, of two numbers."""
    zero = real(0)

    @jit.device
    def value(gy, y, _):
        return zero if y <= zero else gy

    return value


def passes(real):
    """The mask's bit, of one number: a NaN passes."""
    zero = real(0)

    @jit.device
    def value(y, _):
        return np.int32(0) if y <= zero else np.int32(1)

    return value


@jit.typed
def relu_forward_plain_kernel(real):
    """One thread one element."""
    zero = real(0)

    def forward(y, x, size):
        i = cuda.grid(1)
        if i < size:
            y[i] = zero if x[i] < zero else x[i]  # a NaN is not below zero and so goes through

    return forward


@kernel("relu.forward", backend="numba_cuda", variant="plain", when=is_real)
def relu_forward_plain(x):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    relu_forward_plain_kernel(x)((cdiv(x.size, THREADS),), (THREADS,), (y, x, x.size))
    return y


@jit.typed
def relu_grad_x_plain_kernel(real):
    """One thread one element."""
    value = passed(real)

    def grad_x(gx, gy, y, size):
        i = cuda.grid(1)
        if i < size:
            gx[i] = value(gy[i], y[i], ())

    return grad_x


@kernel("relu.grad_x", backend="numba_cuda", variant="plain", when=is_real)
def relu_grad_x_plain(gy, y):
    """One thread an element."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    relu_grad_x_plain_kernel(y)((cdiv(y.size, THREADS),), (THREADS,), (gx, gy, y, y.size))
    return gx


@jit.typed
def relu_forward_mask_plain_kernel(real):
    """One thread one element and its bit: the 32 of a warp become a word by one vote. All lanes vote."""
    zero = real(0)
    value, bit = clipped(real), passes(real)

    def forward_mask(y, mask, x, size):
        i = cuda.grid(1)
        out = value(x[i], ()) if i < size else zero  # whose bit is 0
        word = cuda.ballot_sync(ALL_LANES, bit(out, ()) == 1)
        if i < size:
            y[i] = out
            if cuda.laneid == 0:
                mask[i >> 5] = word

    return forward_mask


@kernel("relu.forward_mask", backend="numba_cuda", variant="plain", when=is_real)
def relu_forward_mask_plain(x):
    """One thread an element, one warp a word of the mask."""
    x = contiguous(x)
    y, mask = empty(x.shape, x), _words(x)
    relu_forward_mask_plain_kernel(x)((cdiv(x.size, THREADS),), (THREADS,), (y, mask, x, x.size))
    return y, mask


@jit.typed
def relu_grad_x_mask_plain_kernel(real):
    """One thread one element."""
    zero = real(0)

    def grad_x_mask(gx, gy, mask, size):
        i = cuda.grid(1)
        if i < size:
            gx[i] = gy[i] if mask[i >> 5] >> np.uint32(i & 31) & np.uint32(1) else zero

    return grad_x_mask


@kernel("relu.grad_x_mask", backend="numba_cuda", variant="plain", when=is_real)
def relu_grad_x_mask_plain(gy, mask):
    """One thread an element."""
    gy, mask = contiguous(gy), contiguous(mask)
    gx = empty(gy.shape, gy)
    relu_grad_x_mask_plain_kernel(gy)((cdiv(gy.size, THREADS),), (THREADS,), (gx, gy, mask, gy.size))
    return gx


@jit.typed
def relu_forward_vectorised_kernel(real):
    """One thread 16 bytes at a time, in steps of the grid; the first threads take the rest behind the last 16."""
    zero = real(0)
    LANES = 16 // np.dtype(real).itemsize

    def forward(y, x, size):
        first, step = cuda.grid(1), cuda.gridsize(1)
        packs = size // LANES
        for p in range(first, packs, step):
            v = load_pack(x, p)
            if LANES == 4:
                out = (
                    zero if v[0] < zero else v[0],
                    zero if v[1] < zero else v[1],
                    zero if v[2] < zero else v[2],
                    zero if v[3] < zero else v[3],
                )
            else:
                out = (zero if v[0] < zero else v[0], zero if v[1] < zero else v[1])
            store_pack(y, p, out)
        i = packs * LANES + first
        if i < size:
            y[i] = zero if x[i] < zero else x[i]

    return forward


@kernel("relu.forward", backend="numba_cuda", variant="vectorised", when=is_wide)
def relu_forward_vectorised(x):
    """One thread 16 bytes at a time."""
    x = contiguous(x)
    y = empty(x.shape, x)
    blocks = blocks_for(cdiv(x.nbytes, 16), x, THREADS)
    relu_forward_vectorised_kernel(x)((blocks,), (THREADS,), (y, x, x.size))
    return y


@jit.typed
def relu_grad_x_vectorised_kernel(real):
    """One thread two packs of 16 bytes at a time, in steps of the grid."""
    walk = over_two_packs(real, passed(real))

    def grad_x(gx, gy, y, size):
        walk(gx, gy, y, size, ())

    return grad_x


@kernel("relu.grad_x", backend="numba_cuda", variant="vectorised", when=is_wide)
def relu_grad_x_vectorised(gy, y):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    gy, y = contiguous(gy), contiguous(y)
    gx = empty(y.shape, y)
    relu_grad_x_vectorised_kernel(y)(blocks_of_packs(y), (THREADS,), (gx, gy, y, y.size))
    return gx


@jit.typed
def relu_forward_mask_vectorised_kernel(real):
    """One thread two packs at a time; SHARING neighbouring lanes put the bits of theirs together to a word.

    The lanes of a warp stay together in the loop, since they need each other's bits: also those behind the last
    element, for which zeros stand. The last pack of the array may be cut short.
    """
    zero = real(0)
    LANES = lanes_of(real)
    SHARING = 32 // LANES
    STEPS = SHARING.bit_length() - 1
    clip, bits_of = on_pack(real, clipped(real)), on_pack(real, passes(real))

    @jit.device
    def element(x, i, size):
        return x[i] if i < size else zero

    @jit.device
    def load_cut(x, p, size):
        i = p * LANES
        if i + LANES <= size:
            return load_pack(x, p)
        if LANES == 2:
            return element(x, i, size), zero
        return element(x, i, size), element(x, i + 1, size), element(x, i + 2, size), zero

    @jit.device
    def store_cut(y, p, size, v):
        i = p * LANES
        if i + LANES <= size:
            store_pack(y, p, v)
        else:
            if i < size:
                y[i] = v[0]
            if LANES == 4 and i + 1 < size:
                y[i + 1] = v[1]
            if LANES == 4 and i + 2 < size:
                y[i + 2] = v[2]

    @jit.device
    def word_of(v):
        bits = bits_of(v, ())
        word = bits[0] | bits[1] << 1
        if LANES == 4:
            word |= bits[2] << 2 | bits[3] << 3
        word = np.int32(word << cuda.laneid % SHARING * LANES)  # the pack's place in its word
        for k in range(STEPS):
            word |= cuda.shfl_xor_sync(ALL_LANES, np.int32(word), 1 << k)
        return np.int32(word)

    def forward_mask(y, mask, x, size):
        lane, step = cuda.laneid, cuda.gridsize(1)
        p = cuda.grid(1)
        while (p - lane) * LANES < size:
            q = p + step
            one, two = clip(load_cut(x, p, size), ()), clip(load_cut(x, q, size), ())
            word, other = word_of(one), word_of(two)
            store_cut(y, p, size, one)
            store_cut(y, q, size, two)
            if lane % SHARING == 0 and p * LANES < size:
                mask[p // SHARING] = word
            if lane % SHARING == 0 and q * LANES < size:
                mask[q // SHARING] = other
            p = q + step

    return forward_mask


@kernel("relu.forward_mask", backend="numba_cuda", variant="vectorised", when=is_wide)
def relu_forward_mask_vectorised(x):
    """As forward; neighbouring lanes put the bits of their packs together."""
    x = contiguous(x)
    y, mask = empty(x.shape, x), _words(x)
    relu_forward_mask_vectorised_kernel(x)(blocks_of_packs(x), (THREADS,), (y, mask, x, x.size))
    return y, mask


@jit.typed
def relu_grad_x_mask_vectorised_kernel(real):
    """One thread two packs at a time; SHARING lanes read one word, which is one access."""
    zero, bit = real(0), np.uint32(1)
    LANES = lanes_of(real)
    SHARING = 32 // LANES

    @jit.device
    def let_through(gy, bits):
        if LANES == 2:
            return gy[0] if bits & bit else zero, gy[1] if bits & bit << 1 else zero
        return (
            gy[0] if bits & bit else zero,
            gy[1] if bits & bit << 1 else zero,
            gy[2] if bits & bit << 2 else zero,
            gy[3] if bits & bit << 3 else zero,
        )

    def grad_x_mask(gx, gy, mask, size):
        first, step = cuda.grid(1), cuda.gridsize(1)
        place = np.uint32(cuda.laneid % SHARING * LANES)  # of the pack's bits in its word: blocks are of whole warps
        packs = size // LANES
        p = first
        while p + step < packs:
            one, two = load_pack(gy, p), load_pack(gy, p + step)
            word, other = mask[p // SHARING], mask[(p + step) // SHARING]
            store_pack(gx, p, let_through(one, word >> place))
            store_pack(gx, p + step, let_through(two, other >> place))
            p += 2 * step
        if p < packs:
            store_pack(gx, p, let_through(load_pack(gy, p), mask[p // SHARING] >> place))
        rest = packs * LANES + first
        if rest < size:
            gx[rest] = gy[rest] if mask[rest >> 5] >> np.uint32(rest & 31) & bit else zero

    return grad_x_mask


@kernel("relu.grad_x_mask", backend="numba_cuda", variant="vectorised", when=is_wide)
def relu_grad_x_mask_vectorised(gy, mask):
    """As grad_x."""
    gy, mask = contiguous(gy), contiguous(mask)
    gx = empty(gy.shape, gy)
    relu_grad_x_mask_vectorised_kernel(gy)(blocks_of_packs(gy), (THREADS,), (gx, gy, mask, gy.size))
    return gx


def _words(x):
    """A mask: a bit for each element of x."""
    return empty((cdiv(x.size, 32),), x, np.uint32)
