"""Kernels of matmul: y[..., i, j] = sum over k of a[..., i, k] * b[..., k, j].

Entries:
    matmul.forward             a (..., M, K), b (..., K, N) -> y (..., M, N)
    matmul.forward_bias        a, b, bias (N,) -> y + bias
    matmul.forward_bias_relu   a, b, bias (N,) -> max(y + bias, 0)

    The last two finish each sum while it is still in a register: a pass over y less, or two.

Rules:
    - The axes in front of the last two are a batch and broadcast against each other, as in NumPy.
    - ``transpose_a`` says that a is stored as (..., K, M), ``transpose_b`` that b is stored as (..., N, K). The kernel
      reads them turned round; nothing is copied first. This is what closes the family: with gy the gradient of y,
      ga = gy @ b^T and gb = a^T @ gy are this same entry, for every derivative of any order.
    - K = 0 gives zeros, an empty batch an empty result.
    - inf and NaN follow the sum: 0 * inf is NaN. No element is skipped because it is zero.
    - The bias is added last; then NaN stays NaN, as in relu.
    - Result and sum are in the dtype of the inputs; the order of the sum is the kernel's own.

Work:
    2 * batch * M * N * K flop, one more an element of y for the bias and for the positive part. Every element of a and
    b read once and every element of y written once is the least that any kernel can do; how often a kernel really reads
    them is what its tiles are about.
"""

from math import prod

from gpunet.dispatch import Work

from ..common.shapes import array_bytes

LADDER: dict[str, str] = {
    "naive": "one thread computes one element of y and reads its row of a and its column of b from global memory",
    "coalesced": "neighbouring threads take neighbouring columns, so that a warp's accesses share memory lines",
    "tiled": "a block keeps a tile of a and a tile of b in shared memory and uses every value TILE times",
    "register_1d": "a thread sums 8 elements of a column in registers, so a value of b is read once for all of them",
    "register_2d": "a thread sums a small matrix in registers: 16 reads from shared memory for 64 products",
    "double_buffered": "16 bytes a load, and the next tile is on its way while this one is multiplied",
    "warp_tiled": "each warp has a tile of its own, whose values it reads from shared memory without bank conflicts",
    "cp_async": "16 x 8 sums a thread in tiles of 128 x 256, copied past the registers two tiles ahead",
    "split_k": "a small y with a long k: blocks sum over parts of k, which are added in a fixed order",
    "blas": "on the processor: NumPy's BLAS, on one thread in tasks that the sizes alone decide about",
    "packed": "on the processor: a and b are copied, panel by panel, into the order in which register tiles read them",
}

ENTRIES: dict[str, str] = {
    "matmul.forward": "the matrix product, batched and broadcast, of inputs read as they lie or transposed",
    "matmul.forward_bias": "the matrix product plus a bias for each column",
    "matmul.forward_bias_relu": "the matrix product plus a bias for each column, and of that the positive part",
}


def work(entry: str, *arrays, transpose_a: bool, transpose_b: bool) -> Work:
    """Flops and bytes of one call."""
    a, b, *bias = arrays
    (M, K) = a.shape[:-3:-1] if transpose_a else a.shape[-2:]
    N = b.shape[-2] if transpose_b else b.shape[-1]
    batch = broadcast_batch(a.shape[:-2], b.shape[:-2])
    return Work(
        flops=(2 * K + len(entry.split("_")) - 1) * prod(batch) * M * N,
        bytes_read=sum(array_bytes(each.shape, each.dtype) for each in (a, b, *bias)),
        bytes_written=array_bytes((*batch, M, N), a.dtype),
    )


def broadcast_batch(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The batch axes of the result, from those of two inputs that broadcast."""
    ndim = max(len(a), len(b))
    a, b = (1,) * (ndim - len(a)) + a, (1,) * (ndim - len(b)) + b
    return tuple(n if m == 1 else m for m, n in zip(a, b, strict=True))
