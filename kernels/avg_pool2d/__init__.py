"""Kernels of avg_pool2d: y[n, c, i, j] = 1/divisor[i, j] * sum over k, l of x[n, c, i*sh + k - ph, j*sw + l - pw].

Entries, with kernel_size (KH, KW), stride (sh, sw) and padding (ph, pw):
    avg_pool2d.forward   x (N, C, H, W) -> y (N, C, OH, OW); OH and OW come as ``output_size``
    avg_pool2d.grad_x    gy (N, C, OH, OW) -> gx (N, C, H, W); H and W come as ``input_size``

Rules:
    The divisor is the number of elements in the window, and what counts as one is the whole difficulty. For rows
    (columns likewise), window i stretches from ``start = i*sh - ph`` to ``stop = min(start + KH, H + ph)``:

        count_include_pad     stop - start: the padding counts, but nothing beyond it. Only a window that sticks out
                              in ceil mode has fewer than KH.
        not                   min(stop, H) - max(start, 0): only the image counts.

    The divisor is rows times columns. ``divisor_override`` replaces it for every window; None leaves it.

    - The padding adds 0. Every window holds at least one pixel of the image.
    - inf and NaN reach exactly the windows that hold them.
    - The sum is in the dtype of x; division, not multiplication by a reciprocal, so a window of equal small whole
      numbers gives exactly that number.
    - grad_x adds in a fixed order, so it gives the same bits every time. Pixels that no window holds get 0.

How the entries hang together:
    Pooling is linear in x, and grad_x is its adjoint: each is the derivative of the other, to any order.

Work:
    One addition a position and one division an output: N * C * OH * OW * (KH * KW + 1) flop, both entries.
    Bytes: every array once.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one output, or asks for one pixel all windows that hold it; on the processor "
    "a row of windows at a time, in vectors",
    "rows": "one thread takes several rows of one column: rows that overlapping windows share are read and added up "
    "once, the sizes of common windows are known to the compiler, and a box of threads needs no division to find its "
    "place; on the processor the sizes known to the compiler are what is gained",
    "wide": "one thread takes a tile and moves 16 bytes at once, in the common kinds of windows",
}

ENTRIES: dict[str, str] = {
    "avg_pool2d.forward": "the mean under each window",
    "avg_pool2d.grad_x": "each output's gradient shared out evenly over its window",
}


def work(
    entry: str,
    *arrays,
    kernel_size,
    stride=None,
    padding=(0, 0),
    output_size=(0, 0),
    input_size=(0, 0),
    count_include_pad=True,
    divisor_override=None,
) -> Work:
    """Flops and bytes of one call; ``arrays`` and keywords are those of the entry."""
    (x,) = arrays  # x, or gy for grad_x
    N, C, *size = x.shape
    forward = entry == "avg_pool2d.forward"
    windows = N * C * prod(output_size if forward else size)
    written = array_bytes((N, C, *(output_size if forward else input_size)), x.dtype)
    return Work(windows * (prod(kernel_size) + 1), array_bytes(x.shape, x.dtype), written)
