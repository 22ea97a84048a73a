"""Kernels of adaptive_avg_pool2d: the mean under OH x OW windows that share the image out as evenly as they can.

Window i of the rows is ``floor(i * H / OH) .. ceil((i + 1) * H / OH)``, stop exclusive, 0 <= i < OH; columns likewise:

    y[n, c, i, j] = mean of x[n, c, iy, ix] over iy in window i of the rows and ix in window j of the columns

Entries:
    adaptive_avg_pool2d.forward   x (N, C, H, W) -> y (N, C, OH, OW); OH and OW come as ``output_size``
    adaptive_avg_pool2d.grad_x    gy (N, C, OH, OW) -> gx (N, C, H, W); H and W come as ``input_size``

Rules:
    - Windows overlap by one row where OH does not divide H, and OH > H repeats rows.
    - inf and NaN reach exactly the windows that hold them.
    - The sum is in the dtype of x; grad_x adds in a fixed order, so it gives the same bits every time.

How the entries hang together:
    Pooling is linear in x, and grad_x is its adjoint: each is the derivative of the other, to any order. Pixel iy
    lies in window i exactly if

        floor(i * H / OH) <= iy < ceil((i + 1) * H / OH),   that is   floor(iy * OH / H) <= i < ceil((iy + 1) * OH / H)

    and the right side is window iy of an axis of OH shared out to H. So the adjoint has no need to scatter: it is the
    same sum over windows, the other way round.

Work:
    One addition for each element of each window and one division an output; the windows of one axis have together
    H + OH - gcd(H, OH) elements. Bytes: every array once.
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
    "adaptive_avg_pool2d.forward": "the mean under each of OH x OW windows that share the image out evenly",
    "adaptive_avg_pool2d.grad_x": "each output's gradient shared out evenly over its window",
}


def work(entry: str, *arrays, output_size=None, input_size=None) -> Work:
    """Flops and bytes of one call; ``arrays`` and keywords are those of the entry."""
    (x,) = arrays  # x, or gy for grad_x
    N, C, *size = x.shape
    other = output_size or input_size or (0, 0)
    visits = prod(a + b - gcd(a, b) for a, b in zip(size, other, strict=True))  # the same seen from either side
    windows = prod(output_size or size)
    return Work(N * C * (visits + windows), array_bytes(x.shape, x.dtype), array_bytes((N, C, *other), x.dtype))
