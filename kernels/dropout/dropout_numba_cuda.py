"""dropout on Numba-CUDA: the rungs of dropout.cu in Python, for a GPU and for the simulator."""
# op: gpunet/ops/dropout.py
#
# Mask m is word m % 4 of block m // 4 of the stream (seed, op), and serves `span` elements. The threshold has 64 bits
# because with p = 1 it is 2**32, above every word.

import numpy as np

from gpunet.cuda import jit
from gpunet.cuda.jit import THREADS, cuda
from gpunet.cuda.packs import load_pack, store_pack
from gpunet.dispatch import kernel

from ..common.elementwise_numba import blocks_of, blocks_of_packs, lanes_of
from ..common.launching import contiguous, empty, is_real
from ..common.philox import MASK
from ..common.philox_numba import philox, word_of
from .dropout_cupy import is_walkable


def dropped(real):
    """Of one number: its mask's word, and what says which words drop, (threshold, scale)."""
    zero = real(0)

    @jit.device
    def value(x, word, numbers):
        threshold, scale = numbers
        return x * (zero if np.int64(word) < threshold else scale)

    return value


@jit.typed
def dropout_forward_plain_kernel(real):
    """One thread one element, and the block of four words that its mask is in."""
    value = dropped(real)

    def forward(y, x, size, span, seed_low, seed_high, op_low, op_high, threshold, scale):
        i = cuda.grid(1)
        if i < size:
            m = i if span == 1 else i // span
            words = philox(m >> 2, (seed_low, seed_high, op_low, op_high))
            y[i] = value(x[i], word_of(words, m), (threshold, scale))

    return forward


@kernel("dropout.forward", backend="numba_cuda", variant="plain", when=lambda x, *, p, seed, op, span=1: is_real(x))
def dropout_forward_plain(x, *, p, seed, op, span=1):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    arguments = (y, x, x.size, min(span, max(x.size, 1)), *_mask(x, p, seed, op))
    dropout_forward_plain_kernel(x)(blocks_of(x), (THREADS,), arguments)
    return y


@jit.typed
def dropout_forward_vectorised_kernel(real):
    """One thread two packs of 16 bytes at a time, in steps of the grid. Every element has a mask of its own.

    A pack of floats uses all four words of block p, one of doubles half of those of block p / 2.
    """
    LANES = lanes_of(real)
    value = dropped(real)

    @jit.device
    def dropped_pack(v, p, stream, numbers):
        if LANES == 2:
            w = philox(p >> 1, stream)
            return (
                value(v[0], w[2] if p & 1 else w[0], numbers),
                value(v[1], w[3] if p & 1 else w[1], numbers),
            )
        w = philox(p, stream)
        return (
            value(v[0], w[0], numbers),
            value(v[1], w[1], numbers),
            value(v[2], w[2], numbers),
            value(v[3], w[3], numbers),
        )

    def forward(y, x, size, seed_low, seed_high, op_low, op_high, threshold, scale):
        stream, numbers = (seed_low, seed_high, op_low, op_high), (threshold, scale)
        first, step = cuda.grid(1), cuda.gridsize(1)
        packs = size // LANES
        p = first
        while p + step < packs:
            one, two = load_pack(x, p), load_pack(x, p + step)
            store_pack(y, p, dropped_pack(one, p, stream, numbers))
            store_pack(y, p + step, dropped_pack(two, p + step, stream, numbers))
            p += 2 * step
        if p < packs:
            store_pack(y, p, dropped_pack(load_pack(x, p), p, stream, numbers))
        rest = packs * LANES + first
        if rest < size:
            y[rest] = value(x[rest], word_of(philox(rest >> 2, stream), rest), numbers)

    return forward


@jit.typed
def dropout_forward_vectorised_spans_kernel(real):
    """As dropout_forward_vectorised, for masks that serve several elements.

    The masks of a pack are in one block: the next block begins after a multiple of 4 * span elements, which is where a
    pack begins. One division a thread: the mask moves on by the same amount every round.
    """
    LANES = lanes_of(real)
    value = dropped(real)

    @jit.device
    def moved(m, i, by_m, by_i, span):
        """Mask and place in its span, by_m masks and by_i <= span places further on."""
        over = i + by_i >= span
        return m + by_m + (1 if over else 0), np.int32(i + by_i - (span if over else 0))

    @jit.device
    def dropped_pack(v, m, i, span, stream, numbers):
        w = philox(m >> 2, stream)
        m1, i1 = moved(m, i, 0, 1, span)
        first, second = value(v[0], word_of(w, m), numbers), value(v[1], word_of(w, m1), numbers)
        if LANES == 2:
            return first, second
        m2, i2 = moved(m1, i1, 0, 1, span)
        m3, _ = moved(m2, i2, 0, 1, span)
        return first, second, value(v[2], word_of(w, m2), numbers), value(v[3], word_of(w, m3), numbers)

    def forward(y, x, size, span, seed_low, seed_high, op_low, op_high, threshold, scale):
        stream, numbers = (seed_low, seed_high, op_low, op_high), (threshold, scale)
        first, step = cuda.grid(1), cuda.gridsize(1)
        packs = size // LANES
        m, by_m = np.int64(first * LANES // span), np.int64(step * LANES // span)
        i, by_i = np.int32(first * LANES - m * span), np.int32(step * LANES - by_m * span)
        p = first
        while p < packs:
            store_pack(y, p, dropped_pack(load_pack(x, p), m, i, span, stream, numbers))
            m, i = moved(m, i, by_m, by_i, span)
            p += step
        rest = packs * LANES + first
        if rest < size:
            m = np.int64(rest // span)
            y[rest] = value(x[rest], word_of(philox(m >> 2, stream), m), numbers)

    return forward


@kernel("dropout.forward", backend="numba_cuda", variant="vectorised", when=is_walkable)
def dropout_forward_vectorised(x, *, p, seed, op, span=1):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    if span == 1:
        arguments = (y, x, x.size, *_mask(x, p, seed, op))
        dropout_forward_vectorised_kernel(x)(blocks_of_packs(x), (THREADS,), arguments)
    else:
        arguments = (y, x, x.size, np.int32(span), *_mask(x, p, seed, op))
        dropout_forward_vectorised_spans_kernel(x)(blocks_of_packs(x), (THREADS,), arguments)
    return y


def _mask(x, p, seed, op):
    """The stream as halves of 32 bits, the threshold below which a word drops, and what the rest is scaled by."""
    threshold = min(round(p * 2**32), 2**32)
    scale = 1 / (1 - p) if threshold < 2**32 else 0.0  # every word is below 2**32: nothing is kept
    halves = map(np.uint32, (seed & MASK, seed >> 32 & MASK, op & MASK, op >> 32 & MASK))
    return *halves, threshold, x.dtype.type(scale)
