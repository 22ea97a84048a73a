"""Sizes of layer_norm: rows of transformers."""

from gpunet import functional as F
from gpunet.tensor import Tensor

from . import Size
from . import normal as tensors

__all__ = ["SIZES", "run", "tensors"]


def _rows(name: str, origin: str, tier: str, rows: int, columns: int) -> Size:
    return Size(name, origin, tier, {"x": (rows, columns), "weight": (columns,), "bias": (columns,)})


SIZES = [
    _rows("primes", "own: prime sizes", "proof", 7, 13),
    _rows("one_row", "own: one row, one past a warp", "proof", 1, 33),
    _rows("whole_packs", "own: rows of whole 16 bytes", "proof", 5, 64),
    _rows("bert_1", "BERT base, one text of 512 tokens", "quick", 512, 768),
    _rows("bert_16", "BERT base, 16 texts of 512 tokens", "standard", 8192, 768),
    _rows("wide", "own: 32768 rows of 4096", "full", 32768, 4096),
]


def run(size: Size, tensors: dict[str, Tensor]) -> Tensor:
    x, weight = tensors["x"], tensors["weight"]
    return F.layer_norm(x, weight.shape, weight, tensors["bias"])
