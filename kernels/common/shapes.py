"""Sizes: how many windows fit, and how many bytes an array takes. Plain integers, for every backend."""

import math


def cdiv(a: int, b: int) -> int:
    """The quotient a / b rounded up, for b > 0: how many blocks of b cover a."""
    return -(-a // b)


def out_size(size: int, kernel: int, stride: int, padding: int, dilation: int = 1) -> int:
    """The number of windows along one axis: ``(size + padding - dilation * (kernel - 1) - 1) // stride + 1``.

    Args:
        size: elements on the axis, without padding.
        kernel: elements in the window.
        stride: step between windows.
        padding: elements added on both sides together.
        dilation: step between two elements of one window.

    Returns:
        The size of the output axis; zero or negative when the window does not fit.
    """
    return (size + padding - dilation * (kernel - 1) - 1) // stride + 1


def conv_out_size(input_size, kernel_size, stride, padding, dilation) -> tuple[int, int]:
    """(OH, OW) of a convolution with padding = (top, bottom, left, right)."""
    (H, W), (KH, KW), (sh, sw), (dh, dw) = input_size, kernel_size, stride, dilation
    top, bottom, left, right = padding
    return out_size(H, KH, sh, top + bottom, dh), out_size(W, KW, sw, left + right, dw)


def pool_out_size(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> int:
    """The number of pooling windows along one axis, with ``padding`` elements on *each* side.

    With ``ceil_mode`` a last window may stick out beyond the padded input, so that no element is left over; but a
    window that would start in the padding on the right sees nothing of the input and is dropped.
    """
    if not ceil_mode:
        return out_size(size, kernel, stride, 2 * padding, dilation)
    out = cdiv(size + 2 * padding - dilation * (kernel - 1) - 1, stride) + 1
    if (out - 1) * stride >= size + padding:
        out -= 1
    return out


def reach(out: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """How far ``out`` windows stretch: from the first element of the first to the last element of the last."""
    return (out - 1) * stride + (kernel - 1) * dilation + 1


def adaptive_window(i: int, size: int, out: int) -> tuple[int, int]:
    """Window i (0 .. out-1) of ``out`` that cover an axis of ``size`` elements: ``start, stop``, stop exclusive.

    The windows are as even as whole numbers allow: floor(i * size / out) .. ceil((i + 1) * size / out). They overlap
    by one element where ``out`` does not divide ``size``, and repeat elements where ``out > size``.
    """
    return i * size // out, cdiv((i + 1) * size, out)


def array_bytes(shape: tuple[int, ...], dtype) -> int:
    """Bytes of an array of this shape and dtype."""
    return math.prod(shape) * dtype.itemsize
