"""Kernels of relu: y = max(x, 0), element by element.

Entries:
    relu.forward   x -> y
    relu.grad_x    gy, y -> gx; all of one shape
    relu.forward_mask   x -> y, mask (ceil(size / 32),) uint32
    relu.grad_x_mask    gy, mask -> gx, of gy's shape

    The last two are the first two with fewer bytes: all that the gradient must know of an element is one bit. Bit
    e % 32 of word e // 32 of the mask, e counting in row order, is 1 where the gradient passes: where y <= 0 is false.
    Bits beyond the last element are 0.

Gradient:
    gx = 0 where y <= 0, else gy. It reads y, so x need not be kept. At the kink, x = 0, the slope is 0.

Rules:
    - relu(NaN) is NaN, and there the gradient passes: NaN <= 0 is false.
    - relu(inf) = inf, relu(-inf) = 0. A gradient of inf or NaN on the flat side is dropped, not multiplied by 0.

Work:
    1 flop an element (the comparison), every array once: memory traffic is all there is to it. Backward with a mask
    moves 8.125 bytes a float32 element instead of 12.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes, cdiv

LADDER: dict[str, str] = {
    "plain": "one thread computes one element",
    "vectorised": "one thread moves 16 bytes at once and has two of them under way, in a grid as large as the GPU; on "
    "the processor the compiler turns the loop over a task's elements into vectors",
}

ENTRIES: dict[str, str] = {
    "relu.forward": "the larger of x and 0",
    "relu.grad_x": "the gradient of x: gy where y is not <= 0, else 0",
    "relu.forward_mask": "the larger of x and 0, and one bit an element that says where the gradient passes",
    "relu.grad_x_mask": "the gradient of x from those bits: gy where the bit is 1, else 0",
}


def work(entry: str, *arrays) -> Work:
    """Flops and bytes of one call; ``arrays`` are those of the entry."""
    x = arrays[0]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays)
    mask = 4 * cdiv(prod(x.shape), 32) if entry == "relu.forward_mask" else 0
    return Work(flops=prod(x.shape), bytes_read=read, bytes_written=array_bytes(x.shape, x.dtype) + mask)
