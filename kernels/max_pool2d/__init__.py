"""Kernels of max_pool2d: y[n, c, i, j] = max over k, l of x[n, c, i*sh + k*dh - ph, j*sw + l*dw - pw].

Entries, with kernel_size (KH, KW), stride (sh, sw), padding (ph, pw) and dilation (dh, dw):
    max_pool2d.forward   x (N, C, H, W) -> y (N, C, OH, OW), index (N, C, OH, OW); OH and OW come as ``output_size``
    max_pool2d.grad_x    gy (N, C, OH, OW), index -> gx (N, C, H, W); H and W come as ``input_size``
    max_pool2d.gather    x (N, C, H, W), index -> (N, C, OH, OW), x at the winning positions

    index[n, c, i, j] = k * KW + l names the winner's position in its window (0 .. KH*KW-1), as uint8 where
    KH * KW <= 256 and as int32 above: a quarter of the memory of a position in the image, and it does not care how
    large the image is.

Rules:
    - Ties: the first in row order (smallest k * KW + l) wins. 0.0 and -0.0 tie.
    - NaN beats every number. Of several NaN in one window the last in row order wins.
    - The padding is -inf and never wins, not even against -inf: a window of nothing but -inf points at its first
      position that lies inside the image.
    - Windows may reach beyond the padded image at the bottom and on the right (ceil mode); what lies there is padding
      too. Every window holds at least one pixel of the image.
    - y is x at the winner, exactly. Only where 0.0 and -0.0 tie the sign of y is free.
    - grad_x adds in a fixed order, so it gives the same bits every time. Pixels that win nothing get 0.

How the entries hang together:
    Once the winners are known, pooling is a linear map that picks elements. ``gather`` is that map and ``grad_x`` its
    adjoint, so each is the derivative of the other: derivatives of any order run through these two.

Work:
    forward: one comparison a position, N * C * OH * OW * KH * KW, counted as flop. grad_x: one addition an output.
    gather: none. Bytes: every array once.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one output, or asks for one pixel all windows that can hold it; the index is "
    "a byte; on the processor a row of windows at a time, forward in vectors",
    "rows": "one thread takes several rows of one column: rows that overlapping windows share are read once, the sizes "
    "of common windows are known to the compiler, and a box of threads needs no division to find its place; on the "
    "processor the sizes known to the compiler are what is gained",
    "wide": "one thread takes a tile and moves 16 bytes at once, in the common kinds of windows",
}

ENTRIES: dict[str, str] = {
    "max_pool2d.forward": "the largest value under each window, and its position in the window",
    "max_pool2d.grad_x": "each output's gradient added to the pixel that won",
    "max_pool2d.gather": "the input at the winning positions; the adjoint of grad_x",
}


def work(
    entry: str,
    *arrays,
    kernel_size,
    stride=None,
    padding=(0, 0),
    dilation=(1, 1),
    output_size=(0, 0),
    input_size=(0, 0),
) -> Work:
    """Flops and bytes of one call; ``arrays`` and keywords are those of the entry."""
    x = arrays[0]  # x, or gy for grad_x
    N, C = x.shape[:2]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    if entry == "max_pool2d.forward":
        outputs = N * C * prod(output_size)
        index_bytes = 1 if prod(kernel_size) <= 256 else 4
        return Work(outputs * prod(kernel_size), read, outputs * (x.dtype.itemsize + index_bytes))
    if entry == "max_pool2d.grad_x":
        return Work(prod(x.shape), read, array_bytes((N, C, *input_size), x.dtype))
    # A gather reads one element of x for each output: not all of x, and none of it twice.
    index = arrays[1]
    picked = array_bytes(index.shape, x.dtype)
    return Work(0, min(picked, array_bytes(x.shape, x.dtype)) + array_bytes(index.shape, index.dtype), picked)
