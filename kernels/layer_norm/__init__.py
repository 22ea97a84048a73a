"""Kernels of layer_norm: y = (x - mean) / sqrt(var + eps) * w + b, each row with a mean and a variance of its own.

Entries; the op folds leading axes into R rows and the normalized axes into D columns:
    layer_norm.forward   x (R, D), w (D,) or None, b (D,) or None -> y (R, D), mean (R,), invstd (R,)
    layer_norm.grad_wb   gy, x, mean, invstd -> gw (D,), gb (D,)
    layer_norm.grad_x    gy, x, w or None, mean, invstd -> gx

    eps is a keyword of forward. None stands for w = 1 and b = 0.

Statistics:
    mean = sum of x / D, var = sum of (x - mean)**2 / D (biased: divided by D), invstd = 1 / sqrt(var + eps), in two
    passes, the mean first, for the reason given in kernels/batch_norm/__init__.py.

Gradient; xhat = (x - mean) * invstd is recomputed, not kept, and g = gy * w:
    gw = sum over rows of gy * xhat,  gb = sum over rows of gy
    gx = invstd * (g - mean of g - xhat * mean of (g * xhat)),  means over the row

    That is batch_norm's gradient with the roles of the axes swapped, except that w varies inside the sums here.

Rules:
    - Sums are taken in float64 and rounded once to x's dtype.
    - inf or NaN in a row makes that row NaN. No rows (R = 0) give empty y and gx, and gw and gb of zeros.

Work, in flop an element:
    forward 7, grad_wb 5, grad_x 11; every array once.

Source:
    Ba, Kiros and Hinton, "Layer normalization", 2016, section 3.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one block a row, a pass for each mean; gw and gb: one thread a column",
    "split": "gw and gb: the rows of a column over several blocks, or tasks of the processor, so that few columns fill "
    "it",
    "warp": "a warp a row, the row in registers: read once, no barriers",
    "vectorised": "16 bytes at a time; a row beyond 1024 values in the shared memory of a block; on the processor a "
    "row at a time, in vectors",
}

ENTRIES: dict[str, str] = {
    "layer_norm.forward": "every row brought to mean 0 and variance 1, then scaled and shifted",
    "layer_norm.grad_wb": "the gradients of scale and shift: the sums over rows of gy * xhat and of gy",
    "layer_norm.grad_x": "the gradient of x through values and statistics",
}

FLOPS = {"layer_norm.forward": 7, "layer_norm.grad_wb": 5, "layer_norm.grad_x": 11}


def work(entry: str, *arrays, eps: float = 0.0) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    size, (row, column) = array_bytes(x.shape, x.dtype), (array_bytes((n,), x.dtype) for n in x.shape)
    written = {"layer_norm.forward": size + 2 * row, "layer_norm.grad_wb": 2 * column}.get(entry, size)
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays if a is not None)
    return Work(FLOPS[entry] * prod(x.shape), read, written)
