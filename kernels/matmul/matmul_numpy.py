"""matmul on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/matmul.py

import numpy as np

from gpunet.dispatch import kernel


@kernel("matmul.forward", backend="numpy")
def matmul_forward_reference(a, b, *, transpose_a, transpose_b):
    """y (..., M, N) from a (..., M, K) and b (..., K, N), each with its last two axes exchanged if its flag says so.

    Exchanging axes only relabels strides: the matrix product underneath reads either order as it lies.
    """
    if transpose_a:
        a = a.swapaxes(-1, -2)
    if transpose_b:
        b = b.swapaxes(-1, -2)
    return np.matmul(a, b)


@kernel("matmul.forward_bias", backend="numpy")
def matmul_forward_bias_reference(a, b, bias, *, transpose_a, transpose_b):
    """Y plus a bias (N,) for each column."""
    y = matmul_forward_reference(a, b, transpose_a=transpose_a, transpose_b=transpose_b)
    y += bias
    return y


@kernel("matmul.forward_bias_relu", backend="numpy")
def matmul_forward_bias_relu_reference(a, b, bias, *, transpose_a, transpose_b):
    """max(y + bias, 0)."""
    y = matmul_forward_bias_reference(a, b, bias, transpose_a=transpose_a, transpose_b=transpose_b)
    return np.maximum(y, 0, out=y)
