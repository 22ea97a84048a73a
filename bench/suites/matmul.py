"""Sizes of matmul: layers of networks, and the shapes of public GEMM benchmarks.

``transpose_b`` stores b as (N, K), as a dense layer stores its weight. Backward adds the products with a transposed.
"""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size, powers, swept
from . import normal as tensors

__all__ = ["AXIS", "SIZES", "SWEEP", "run", "sweep", "tensors"]


def _product(name: str, origin: str, tier: str, m: int, n: int, k: int, transpose_b: bool = False) -> Size:
    shapes = {"a": (m, k), "b": (n, k) if transpose_b else (k, n)}
    return Size(name, origin, tier, shapes, {"transpose_b": transpose_b})


def _batched(name: str, origin: str, tier: str, a: tuple[int, ...], b: tuple[int, ...]) -> Size:
    return Size(name, origin, tier, {"a": a, "b": b}, {"transpose_b": False})


def _layer(name: str, origin: str, tier: str, rows: int, into: int, out: int, activation: str | None = None) -> Size:
    shapes = {"a": (rows, into), "b": (out, into), "bias": (out,)}
    return Size(name, origin, tier, shapes, {"activation": activation}, fused=True)


SIZES: list[Size] = [
    _product("primes", "own: prime sizes", "proof", 17, 13, 31),
    _product("one_past_a_tile", "own: one past a tile of 32", "proof", 33, 65, 33, transpose_b=True),
    _batched("broadcast", "own: batch axes that broadcast", "proof", (2, 1, 5, 7), (3, 7, 4)),
    _layer("bias", "own: prime sizes", "proof", 17, 31, 13),
    _layer("bias_relu", "own: one past a tile of 32", "proof", 33, 33, 65, "relu"),
    _product("dense", "LeNet-5's first dense layer, batch 64", "quick", 64, 120, 400, transpose_b=True),
    _product(
        "reference_cnn", "the reference CNN's first dense layer, batch 32", "quick", 32, 512, 400, transpose_b=True
    ),
    _layer("dense_bias_relu", "LeNet-5's first dense layer, batch 64", "quick", 64, 400, 120, "relu"),
    _product("square_512", "own: square, within a last-level cache", "quick", 512, 512, 512),
    _product("square_2048", "own: square, beyond a cache", "standard", 2048, 2048, 2048),
    _product("m1760_n128", "DeepBench", "standard", 1760, 128, 1760),
    _product("m2560_n64", "DeepBench", "standard", 2560, 64, 2560),
    _product("m35_n8457", "DeepBench", "standard", 35, 8457, 2560),
    _product("m7680_n16", "DeepBench", "standard", 7680, 16, 2560),
    _product("m1760_n7000", "DeepBench", "full", 1760, 7000, 1760),
    _product("m4096_n7000", "DeepBench", "full", 4096, 7000, 4096),
    _product("m5124_n9124", "DeepBench", "full", 5124, 9124, 2560),
    _product("k500000", "DeepBench: a long sum", "full", 512, 8, 500000),
    _product("m3072_n7435_nt", "DeepBench, b stored transposed", "full", 3072, 7435, 1024, transpose_b=True),
    _product("classifier", "own: a large classifier", "full", 32768, 1000, 2048),
    _layer("classifier_bias", "own: a large classifier", "full", 32768, 2048, 1000),
    _layer("square_4096_bias_relu", "own: a square layer", "full", 4096, 4096, 4096, "relu"),
    _product("square_4096", "fast.cu and KernelBench", "full", 4096, 4096, 4096),
    _product("square_8192", "fast.cu and KernelBench", "full", 8192, 8192, 8192),
    _product("waves_132", "simplegemm: whole waves on 132 multiprocessors", "full", 8448, 9216, 8192),
]


AXIS = "N of a product of N x N matrices"
SWEEP = powers(16, 8192)


def sweep(n: int) -> Size:
    """A product of two square matrices."""
    return swept(n, {"a": (n, n), "b": (n, n)}, {"transpose_b": False})


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    b = tensors["b"]
    if size.fused:
        return F.linear(tensors["a"], b, tensors["bias"], **size.arguments)
    return F.matmul(tensors["a"], b.transpose(-1, -2) if size.arguments["transpose_b"] else b)
