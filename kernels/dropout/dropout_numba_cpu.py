"""dropout on Numba for the processor: random words and products in one loop, which LLVM turns into vectors."""
# op: gpunet/ops/dropout.py
#
# task    a piece of 262,144 elements or more, or the spans that make about as many
# lanes   blocks of four words, neighbours in the stream: each word depends on its number alone
# reads   x once, in order; the mask is never stored
# needs   x in rows; another is copied first

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import run, shares
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import SMALLEST, flat, pieces, real
from ..common.philox_numba_cpu import key_of, words_of


@compiled
def dropout_forward_vectorised_loop(y, x, first, threshold, scale, key):
    """Block by block from number ``first`` on, four elements each; the last one may be cut short."""
    keep, drop = x.dtype.type(scale), x.dtype.type(0)
    blocks = x.size // 4
    for b in range(blocks):
        w0, w1, w2, w3 = words_of(first + np.uint64(b), key)
        y[4 * b] = x[4 * b] * (drop if w0 < threshold else keep)
        y[4 * b + 1] = x[4 * b + 1] * (drop if w1 < threshold else keep)
        y[4 * b + 2] = x[4 * b + 2] * (drop if w2 < threshold else keep)
        y[4 * b + 3] = x[4 * b + 3] * (drop if w3 < threshold else keep)
    if 4 * blocks < x.size:
        words = words_of(first + np.uint64(blocks), key)
        for e in range(4 * blocks, x.size):
            y[e] = x[e] * (drop if words[e - 4 * blocks] < threshold else keep)


@compiled
def spans_loop(y, x, first, span, threshold, scale, key):
    """Span by span from number ``first`` on; the last one may be cut short."""
    keep, drop = x.dtype.type(scale), x.dtype.type(0)
    for m in range((x.size + span - 1) // span):
        word = words_of(np.uint64(first + m) // np.uint64(4), key)[(first + m) % 4]
        d = drop if word < threshold else keep
        for e in range(m * span, min(x.size, (m + 1) * span)):
            y[e] = x[e] * d


@kernel("dropout.forward", backend="numba_cpu", variant="vectorised", when=real)
def dropout_forward_vectorised(x, *, p, seed, op, span=1):
    """Four words at a time, or one for each span."""
    threshold = min(round(p * 2**32), 2**32)
    numbers = np.uint64(threshold), 1 / (1 - p) if threshold < 2**32 else 0.0, key_of(seed, op)
    y = empty(x.shape, x.dtype)
    ys, xs = y.reshape(-1), flat(x)
    if span == 1:
        parts = pieces(x.size)

        def task(number):
            part = parts[number]
            dropout_forward_vectorised_loop(ys[part], xs[part], np.uint64(part.start // 4), *numbers)
    else:
        parts = [slice(*each) for each in shares(x.size, SMALLEST, unit=span)]

        def task(number):
            part = parts[number]
            spans_loop(ys[part], xs[part], part.start // span, span, *numbers)

    if len(parts) == 1:
        task(0)
    else:
        run(task, len(parts))
    return y
