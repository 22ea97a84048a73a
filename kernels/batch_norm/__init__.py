"""Kernels of batch_norm: y = (x - mean) / sqrt(var + eps) * w + b, each channel with a mean and a variance of its own.

Entries; M = N * (elements after the channel axis) is how many values share a channel's statistics:
    batch_norm.forward        x (N, C, ...), w (C,) or None, b (C,) or None -> y, mean (C,), var (C,), invstd (C,)
    batch_norm.forward_eval   x, mean (C,), var (C,), w or None, b or None -> y
    batch_norm.grad_wb        gy, x, mean, invstd -> gw (C,), gb (C,)
    batch_norm.grad_x         gy, x, w or None, mean, invstd, gw, gb -> gx
    batch_norm.grad_x_eval    gy, w or None, invstd -> gx

    eps is a keyword of the two forward entries. None stands for w = 1 and b = 0.

Statistics:
    mean = sum of x / M, var = sum of (x - mean)**2 / M (biased: divided by M), invstd = 1 / sqrt(var + eps).
    Two passes, the mean first: sum of x**2 minus M * mean**2 would subtract two large numbers and be left with noise
    where the mean is large against the spread.

Gradient; xhat = (x - mean) * invstd is recomputed, not kept:
    gb = sum of gy,  gw = sum of gy * xhat
    gx = w * invstd * (gy - gb / M - xhat * gw / M)      with the statistics of the batch, which depend on x
    gx = w * invstd * gy                                 with given statistics (eval)

Rules:
    - Sums and the per-channel factors are in float64 or compensated to the like, and rounded once to x's dtype.
    - inf or NaN in a channel makes that channel NaN in training; in eval it stays where it is.
    - No values (N = 0) give NaN statistics, and gw and gb of zeros; one value a channel gives var = 0 and y = b.
      Whether that is an error is the op's decision.

Work, in flop an element:
    forward 7 (sum, difference, square, sum, product, product or sum twice), forward_eval 3, grad_wb 4, grad_x 6,
    grad_x_eval 1. Bytes: every array once, although forward must see x at least twice: what a cache does not hold is
    read again.

Source:
    Ioffe and Szegedy, "Batch normalization", 2015, algorithm 1; the gradient is its chain rule, collected.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one block a channel: a pass for the mean, one for the variance, one for the values",
    "split": "a channel over several blocks, so that few channels fill the GPU; statistics in one pass, merged by "
    "Chan; on the processor some images a task, in the order of memory",
    "vectorised": "the same with 16 bytes at a time, or a vector of the processor",
    "resident": "a channel that fits into shared memory is read once, and one launch does it all",
    "columns": "a vector takes neighbouring channels, where each has few values in an image; for the processor",
}

ENTRIES: dict[str, str] = {
    "batch_norm.forward": "every channel brought to mean 0 and variance 1 over the batch, then scaled and shifted",
    "batch_norm.forward_eval": "the same with a given mean and variance",
    "batch_norm.grad_wb": "the gradients of scale and shift: the sums of gy * xhat and of gy",
    "batch_norm.grad_x": "the gradient of x through values and statistics",
    "batch_norm.grad_x_eval": "the gradient of x under a given mean and variance",
}

FLOPS = {
    "batch_norm.forward": 7,
    "batch_norm.forward_eval": 3,
    "batch_norm.grad_wb": 4,
    "batch_norm.grad_x": 6,
    "batch_norm.grad_x_eval": 1,
}


def work(entry: str, *arrays, eps: float = 0.0) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    size, channel = array_bytes(x.shape, x.dtype), array_bytes(x.shape[1:2], x.dtype)
    written = {"batch_norm.forward": size + 3 * channel, "batch_norm.grad_wb": 2 * channel}.get(entry, size)
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays if a is not None)
    return Work(FLOPS[entry] * prod(x.shape), read, written)
