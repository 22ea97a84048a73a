"""relu on Numba for the processor: loops that LLVM turns into vector instructions, shared out among threads."""
# op: gpunet/ops/relu.py
#
# task    a share for each thread, of 262,144 elements or more: over_pieces in kernels/common/elementwise_numba_cpu.py
# lanes   as many as the processor's vectors hold; of the mask 32, a word
# reads   each input once, in order
# needs   arrays in rows; others are copied first

import numpy as np

from gpunet.cpu.jit import compiled
from gpunet.cpu.threads import run
from gpunet.devices import empty
from gpunet.dispatch import kernel

from ..common.elementwise_numba_cpu import FEW, flat, over_pieces, pieces, real
from ..common.past_caches_numba_cpu import past_caches, settle_stores, store_past
from ..common.shapes import cdiv
from ..common.tiles_numba_cpu import registers
from ..common.vectors_numba_cpu import at_least, let_through, load, spread

BITS = 32  # of a word


@compiled
def relu_forward_vectorised_loop(y, x):
    """Written as a comparison, so a NaN, which is not below zero or equal, goes through."""
    zero = x.dtype.type(0)
    for i in range(y.size):
        y[i] = zero if x[i] <= zero else x[i]


@compiled
def relu_forward_past_loop(y, x, lanes):
    """The same, past the caches."""
    zero, whole = spread(y.dtype.type(0)), y.size // lanes * lanes
    for i in range(0, whole, lanes):
        store_past(y, i, at_least(load(x, i), zero))
    relu_forward_vectorised_loop(y[whole:], x[whole:])
    settle_stores()


@kernel("relu.forward", backend="numba_cpu", variant="vectorised", when=real, least=FEW)
def relu_forward_vectorised(x):
    """One vector of elements at a time."""
    y = empty(x.shape, x.dtype)
    if past_caches(y):
        over_pieces(relu_forward_past_loop, flat(y), flat(x), numbers=(_lanes(y),))
    else:
        over_pieces(relu_forward_vectorised_loop, flat(y), flat(x))
    return y


def _lanes(array):
    """Numbers of a vector."""
    return registers()[0] // array.itemsize


@compiled
def relu_grad_x_vectorised_loop(gx, gy, y):
    """Both sides are at hand, so no branch."""
    zero = gy.dtype.type(0)
    for i in range(gx.size):
        gx[i] = zero if y[i] <= zero else gy[i]


@compiled
def relu_grad_x_past_loop(gx, gy, y, lanes):
    """The same, past the caches."""
    zero, whole = spread(gx.dtype.type(0)), gx.size // lanes * lanes
    for i in range(0, whole, lanes):
        store_past(gx, i, let_through(load(gy, i), load(y, i), zero))
    relu_grad_x_vectorised_loop(gx[whole:], gy[whole:], y[whole:])
    settle_stores()


@kernel("relu.grad_x", backend="numba_cpu", variant="vectorised", when=real)
def relu_grad_x_vectorised(gy, y):
    """One vector of elements at a time."""
    gx = empty(y.shape, y.dtype)
    if past_caches(gx):
        over_pieces(relu_grad_x_past_loop, flat(gx), flat(gy), flat(y), numbers=(_lanes(gx),))
    else:
        over_pieces(relu_grad_x_vectorised_loop, flat(gx), flat(gy), flat(y))
    return gx


@compiled
def relu_forward_mask_vectorised_loop(y, mask, x):
    """Word by word, each 32 turns that LLVM unrolls to a few vectors; bits beyond the last element stay 0."""
    zero, one = x.dtype.type(0), np.uint32(1)
    whole = x.size // BITS
    for w in range(whole):
        word = np.uint32(0)
        for b in range(BITS):
            v = x[w * BITS + b]
            y[w * BITS + b] = zero if v <= zero else v
            word |= np.uint32(0) if v <= zero else one << np.uint32(b)
        mask[w] = word
    if whole < mask.size:
        word = np.uint32(0)
        for i in range(whole * BITS, x.size):
            y[i] = zero if x[i] <= zero else x[i]
            word |= np.uint32(0) if x[i] <= zero else one << np.uint32(i - whole * BITS)
        mask[whole] = word


@kernel("relu.forward_mask", backend="numba_cpu", variant="vectorised", when=real, least=FEW)
def relu_forward_mask_vectorised(x):
    """One word of the mask at a time, 32 elements."""
    y, mask = empty(x.shape, x.dtype), empty((cdiv(x.size, BITS),), np.uint32)
    _with_words(relu_forward_mask_vectorised_loop, flat(y), mask, flat(x))
    return y, mask


@compiled
def relu_grad_x_mask_vectorised_loop(gx, mask, gy):
    """Word by word; the last one may be cut short."""
    zero, one = gy.dtype.type(0), np.uint32(1)
    whole = gy.size // BITS
    for w in range(whole):
        word = mask[w]
        for b in range(BITS):
            gx[w * BITS + b] = gy[w * BITS + b] if word & one << np.uint32(b) else zero
    for i in range(whole * BITS, gy.size):
        gx[i] = gy[i] if mask[whole] & one << np.uint32(i - whole * BITS) else zero


@kernel("relu.grad_x_mask", backend="numba_cpu", variant="vectorised", when=real)
def relu_grad_x_mask_vectorised(gy, mask):
    """One word of the mask at a time, 32 elements."""
    gx = empty(gy.shape, gy.dtype)
    _with_words(relu_grad_x_mask_vectorised_loop, gx.reshape(-1), flat(mask), flat(gy))
    return gx


def _with_words(walk, out, mask, array):
    """Calls ``walk(out, mask, array)`` for pieces of whole words, on all threads."""
    parts = pieces(out.size)
    if len(parts) == 1:
        walk(out, mask, array)
    else:
        words = [slice(each.start // BITS, cdiv(each.stop, BITS)) for each in parts]
        run(lambda task: walk(out[parts[task]], mask[words[task]], array[parts[task]]), len(parts))
