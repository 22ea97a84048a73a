"""Kernels of prelu: y = x where x > 0, else w * x, with a learned slope w for all elements or one for each channel.

Entries:
    prelu.forward   x (N, C, ...), w (C,) or (1,) -> y
    prelu.grad_x    gy, x, w -> gx
    prelu.grad_w    gy, x, w -> gw, of w's shape

    The channel is axis 1. With w (1,), x has any number of axes.

Gradient:
    gx = gy where x > 0, else w * gy
    gw[c] = sum of gy * x over the elements of channel c where x is not > 0

    At the kink, x = 0, the slope is w, as for leaky_relu, and the contribution to gw is 0.

Rules:
    - NaN takes the second branch: it gives NaN in y, and in gw of its channel.
    - Sums are taken in float64 and rounded once.

Work:
    2 flop an element forward and for grad_x, 3 for grad_w (comparison, product, sum), every array once.

Source:
    He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015, section 2.1.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "plain": "one thread computes one element; one block sums one channel",
    "split": "a channel is summed in parts by many blocks, or tasks of the processor, short rows as columns; the parts "
    "are added up in a fixed order",
    "vectorised": "one thread moves 16 bytes at once and has two of them under way; on the processor the compiler "
    "turns the loop over a task's elements into vectors",
}

ENTRIES: dict[str, str] = {
    "prelu.forward": "x where it is positive, else its channel's slope times x",
    "prelu.grad_x": "the gradient of x: gy where x is positive, else the slope times gy",
    "prelu.grad_w": "the gradient of the slopes: gy * x summed over the elements that were scaled",
}


def work(entry: str, *arrays) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x, w = arrays[0], arrays[-1]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    if entry == "prelu.grad_w":
        read -= array_bytes(w.shape, w.dtype)  # only its shape is looked at
        return Work(3 * prod(x.shape), read, array_bytes(w.shape, w.dtype))
    return Work(2 * prod(x.shape), read, array_bytes(x.shape, x.dtype))
