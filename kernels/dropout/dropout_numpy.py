"""dropout on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/dropout.py

import numpy as np

from gpunet.dispatch import kernel

from ..common.philox import stream_words
from ..common.shapes import cdiv

CHUNK = 1 << 13  # blocks of four words that are drawn at once: what they need fits in the cache


@kernel("dropout.forward", backend="numpy")
def dropout_forward_reference(x, *, p, seed, op, span=1):
    """y = x * d, d = 0 or 1 / (1 - p), one d for each span of elements."""
    masks = cdiv(x.size, span)
    d = _mask(masks, p, seed, op, x.dtype)
    if span > 1:
        d = np.repeat(d, span)[: x.size]  # the last span may be cut short
    y = d.reshape(x.shape)
    with np.errstate(invalid="ignore", over="ignore"):  # inf * 0
        return np.multiply(x, y, out=y)


def _mask(masks, p, seed, op, dtype):
    """d for mask 0 .. masks-1, in x's dtype."""
    threshold = min(round(p * 2**32), 2**32)
    scale = 1 / (1 - p) if threshold < 2**32 else 0.0  # every word is below 2**32: nothing is kept
    d = np.empty(masks, dtype)
    for first in range(0, masks, 4 * CHUNK):
        count = min(4 * CHUNK, masks - first)
        words = stream_words(first // 4, cdiv(count, 4), seed=seed, op=op)[:count]
        np.multiply(words >= threshold, scale, out=d[first : first + count], dtype=dtype)
    return d
