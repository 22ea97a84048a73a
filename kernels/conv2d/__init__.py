"""Kernels of conv2d: y[n, f, i, j] = b[f] + sum over c, k, l of x[n, c, iy, ix] * w[f, c, k, l].

The pixel read is ``iy = i * sh + k * dh - top`` and ``ix = j * sw + l * dw - left``; outside the image x counts as 0.
With groups, filter f belongs to group ``f // (F / groups)`` and c runs over the C / groups channels of that group.
This is cross-correlation, what every deep-learning library calls convolution: the window is not flipped.

Entries, with stride (sh, sw), padding (top, bottom, left, right) and dilation (dh, dw):
    conv2d.forward   x (N, C, H, W), w (F, C/groups, KH, KW), b (F,) or None -> y (N, F, OH, OW)
    conv2d.forward_relu   the same -> max(y, 0), finished while each sum is still in a register
    conv2d.grad_x    gy (N, F, OH, OW), w -> gx (N, C, H, W); H and W come as ``input_size``
    conv2d.grad_w    gy, x -> gw (F, C/groups, KH, KW); KH and KW come as ``kernel_size``
    conv2d.grad_b    gy -> gb (F,)

Sizes:
    OH = (H + top + bottom - dh * (KH - 1) - 1) // sh + 1, and OW likewise. Rows at the bottom that no window reaches
    take no part: their gx is 0.

How the entries hang together:
    y is linear in x, in w and in b, so each gradient is a sum over the same products, collected by another index:

        gx[n, c, iy, ix] = sum over f, k, l, i, j that read this pixel of  gy[n, f, i, j] * w[f, c, k, l]
        gw[f, c, k, l]   = sum over n, i, j of                             gy[n, f, i, j] * x[n, c, iy, ix]
        gb[f]            = sum over n, i, j of                             gy[n, f, i, j]

    Each of the first three is linear in two of (x, w, gy), and its derivatives are the other two: the family is
    closed, and derivatives of any order run through these entries. grad_x alone is the transposed convolution.

Rules:
    - padding is at least 0 on each of the four sides, which may differ; stride and dilation are at least 1.
    - The padding counts as zeros. With weights that are all finite it makes no difference whether a kernel multiplies
      by those zeros or skips them. Where a weight is inf or NaN, windows that touch the padding are not specified.
    - inf and NaN in x reach exactly the outputs whose windows hold them.
    - Result and sums are in the dtype of the inputs; the order of the sums is the kernel's own.
    - The Winograd rungs round relative to the largest pixel of a tile, not of a window. A tile in which they meet inf
      or NaN is computed anew by the definition, exact but slow.
    - N = 0 gives empty y and gx, and gw and gb of zeros.

Work:
    2 * N * F * OH * OW * (C/groups) * KH * KW flop for each of forward, grad_x and grad_w, one more an output for the
    bias and one for the positive part. Multiplications by the padding count, as is usual. Bytes: every array once.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes, conv_out_size

LADDER: dict[str, str] = {
    "direct": "one thread computes one element and reads what it needs of images and filters from global memory",
    "shared": "a block keeps a patch of the images, and the filters for it, in shared memory",
    "im2col": "windows are written out as columns, some images at a time, and a matrix product does the rest",
    "implicit_gemm": "the same product by tiles in registers, whose columns are fetched from the images as it goes",
    "winograd_2x2": "tiles of 2x2 outputs as a polynomial product: 16 multiplications a channel for 36, in one matmul",
    "winograd_4x4": "tiles of 4x4 outputs likewise: 36 multiplications a channel for 144",
}

#: how many times fewer multiplications a rung takes than ``work`` counts
SAVINGS = {"winograd_2x2": 36 / 16, "winograd_4x4": 144 / 36}

ENTRIES: dict[str, str] = {
    "conv2d.forward": "every filter under every position of its window, plus the bias",
    "conv2d.forward_relu": "the positive part of the same: convolution, bias and activation in one pass",
    "conv2d.grad_x": "the gradient of the input: each output's gradient spread over the pixels it was made of",
    "conv2d.grad_w": "the gradient of the filters: outputs' gradients against the pixels they met",
    "conv2d.grad_b": "the gradient of the bias: the sum of gy over images and pixels",
}


def work(
    entry: str,
    *arrays,
    stride=(1, 1),
    padding=(0, 0, 0, 0),
    dilation=(1, 1),
    groups=1,
    input_size=(0, 0),
    kernel_size=(0, 0),
) -> Work:
    """Flops and bytes of one call; ``arrays`` and keywords are those of the entry."""
    first = arrays[0]
    N = first.shape[0]
    read = sum(array_bytes(a.shape, a.dtype) for a in arrays if a is not None)
    if entry in ("conv2d.forward", "conv2d.forward_relu"):
        x, w, b = arrays
        shape = (N, w.shape[0], *conv_out_size(x.shape[2:], w.shape[2:], stride, padding, dilation))
        flops = 2 * prod(shape) * prod(w.shape[1:]) + (b is not None) * prod(shape)
        flops += (entry == "conv2d.forward_relu") * prod(shape)
    elif entry == "conv2d.grad_x":
        gy, w = arrays
        shape = (N, w.shape[1] * groups, *input_size)
        flops = 2 * prod(gy.shape) * prod(w.shape[1:])
    elif entry == "conv2d.grad_w":
        gy, x = arrays
        shape = (gy.shape[1], x.shape[1] // groups, *kernel_size)
        flops = 2 * prod(gy.shape) * prod(shape[1:])
    else:
        shape = first.shape[1:2]
        flops = prod(first.shape)
    return Work(flops=flops, bytes_read=read, bytes_written=array_bytes(shape, first.dtype))
