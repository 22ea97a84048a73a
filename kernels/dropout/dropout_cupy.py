"""dropout on CUDA C++: launchers of dropout.cu, for a GPU and for sim."""
# op: gpunet/ops/dropout.py

from gpunet.dispatch import kernel

from ..common.launching import THREADS, blocks_for, contiguous, empty, is_real, is_wide, kernels
from ..common.philox import MASK
from ..common.shapes import cdiv

BUILDS = {"dropout": [{}]}
MOST_SPAN = 2**30  # in 32 bits, two places in a span can then be added


def is_walkable(x, *, p, seed, op, span=1):
    """Whether the array can be moved by 16 bytes, and a place in a span fits into 32 bits."""
    wide = is_wide(x)
    if wide is not True:
        return wide
    return span < MOST_SPAN or f"it takes spans below {MOST_SPAN}"


@kernel("dropout.forward", backend="cupy", variant="plain", when=lambda x, *, p, seed, op, span=1: is_real(x))
def dropout_forward_plain(x, *, p, seed, op, span=1):
    """One thread an element."""
    x = contiguous(x)
    y = empty(x.shape, x)
    arguments = (y, x, x.size, min(span, max(x.size, 1)), *_mask(p, seed, op))
    kernels("dropout", x).dropout_forward_plain((cdiv(x.size, THREADS),), (THREADS,), arguments)
    return y


@kernel("dropout.forward", backend="cupy", variant="vectorised", when=is_walkable)
def dropout_forward_vectorised(x, *, p, seed, op, span=1):
    """One thread two packs of 16 bytes at a time, until there are none left."""
    x = contiguous(x)
    y = empty(x.shape, x)
    grid, file = (blocks_for(cdiv(x.nbytes, 16), x),), kernels("dropout", x)
    if span == 1:
        file.dropout_forward_vectorised(grid, (THREADS,), (y, x, x.size, *_mask(p, seed, op)))
    else:
        file.dropout_forward_vectorised_spans(grid, (THREADS,), (y, x, x.size, span, *_mask(p, seed, op)))
    return y


def _mask(p, seed, op):
    """The stream as halves of 32 bits, the threshold below which a word drops, and what the rest is scaled by."""
    threshold = min(round(p * 2**32), 2**32)
    scale = 1 / (1 - p) if threshold < 2**32 else 0.0  # every word is below 2**32: nothing is kept
    return seed & MASK, seed >> 32 & MASK, op & MASK, op >> 32 & MASK, threshold, scale
