"""Kernels of adaptive_max_pool2d: the maximum under OH x OW windows that share the image out as evenly as they can.

Window i of the rows is ``floor(i * H / OH) .. ceil((i + 1) * H / OH)``, stop exclusive, 0 <= i < OH; columns likewise.

Entries:
    adaptive_max_pool2d.forward   x (N, C, H, W) -> y (N, C, OH, OW), index (N, C, OH, OW) int64
    adaptive_max_pool2d.grad_x    gy (N, C, OH, OW), index -> gx (N, C, H, W); H and W come as ``input_size``
    adaptive_max_pool2d.gather    x (N, C, H, W), index -> (N, C, OH, OW), x at the winning positions

    index[n, c, i, j] = iy * W + ix is the winner's place in its image. (Not its place in the window, as in max_pool2d:
    here windows differ in size.)

Rules:
    - Ties: the first in row order wins. 0.0 and -0.0 tie.
    - NaN beats every number. Of several NaN in one window the last in row order wins.
    - A window of nothing but -inf points at its first element.
    - y is x at the winner, bit for bit.
    - grad_x adds in the order of the outputs, so it gives the same bits every time. Pixels that win nothing get 0.

How the entries hang together:
    ``gather`` picks, ``grad_x`` is its adjoint: each is the derivative of the other, to any order.

Work:
    forward: one comparison for each element of each window; the windows of one axis have together H + OH - gcd(H, OH)
    elements. grad_x: one addition an output. gather: none. Bytes: every array once.
"""

from math import gcd, prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one output, or asks for one pixel all windows that hold it; on the processor "
    "a window at a time, neighbours of a row in vectors",
    "lanes": "forward: 8 threads, a warp or a block share one window, so that they read neighbours in memory",
    "packs": "grad_x: one thread writes 16 bytes, and divides 32-bit numbers to find their place",
}

ENTRIES: dict[str, str] = {
    "adaptive_max_pool2d.forward": "the maximum under each of OH x OW windows that share the image out, and its place",
    "adaptive_max_pool2d.grad_x": "each output's gradient added to the pixel that won",
    "adaptive_max_pool2d.gather": "the input at the winning places; the adjoint of grad_x",
}


def work(entry: str, *arrays, output_size=(0, 0), input_size=(0, 0)) -> Work:
    """Flops and bytes of one call; ``arrays`` and keywords are those of the entry."""
    x = arrays[0]  # x, or gy for grad_x
    N, C, *size = x.shape
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    if entry == "adaptive_max_pool2d.forward":
        visits = prod(a + b - gcd(a, b) for a, b in zip(size, output_size, strict=True))
        return Work(N * C * visits, read, N * C * prod(output_size) * (x.dtype.itemsize + 8))
    if entry == "adaptive_max_pool2d.grad_x":
        return Work(prod(x.shape), read, array_bytes((N, C, *input_size), x.dtype))
    # A gather reads one element of x for each output: not all of x, and none of it twice.
    index = arrays[1]
    picked = array_bytes(index.shape, x.dtype)
    return Work(0, min(picked, array_bytes(x.shape, x.dtype)) + array_bytes(index.shape, index.dtype), picked)
