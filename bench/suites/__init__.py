"""The benchmark suites: one module an op, holding the sizes it is proved and timed at. See bench/README.md.

A suite has ``SIZES``, ``tensors(size, dtype, device, seed)`` and ``run(size, tensors)``. It names no kernel and no
entry: those come out when ``run`` and its backward are captured.

A suite may also have ``sweep(n)``, the size at extent n, ``SWEEP``, the extents, and ``AXIS``, what n is.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from gpunet.creation import tensor
from gpunet.errors import ArgumentError
from gpunet.tensor import Tensor

#: What a size is for, from the smallest: proof alone, the default pass, a thorough pass, what only a GPU does in time.
TIERS = ("proof", "quick", "standard", "full")
HEAVY = ("matmul", "conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "batch_norm", "relu")


@dataclass(frozen=True)
class Size:
    """One case of an op: the shapes of its tensors and the keywords of the call."""

    name: str
    """What rows and messages call it; unique within the suite."""
    origin: str
    """Where the numbers come from: a network, a public benchmark, or "own" and the reason."""
    tier: str
    """One of ``TIERS``."""
    shapes: dict[str, tuple[int, ...]]
    """Tensor name -> shape, in the order of the public function's arguments."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Keywords of the public function."""
    fused: bool = False
    """Whether the op launches its fused entries."""

    @property
    def elements(self) -> int:
        """Elements of all its tensors together."""
        return sum(prod(shape) for shape in self.shapes.values())


def names() -> tuple[str, ...]:
    """The ops that have a suite: those that take most of the time of networks first, then by name."""
    found = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(found, key=lambda name: HEAVY.index(name) if name in HEAVY else len(HEAVY)))


def load(op: str) -> ModuleType:
    """The suite of ``op``.

    Raises:
        ArgumentError: there is none.
    """
    if op not in names():
        raise ArgumentError(f"suites: op must be one of {', '.join(names())}, got {op!r}")
    return importlib.import_module(f"{__name__}.{op}")


def sizes(op: str, tiers: Iterable[str]) -> list[Size]:
    """The sizes of ``op`` in these tiers, in the suite's order."""
    wanted = set(tiers)
    return [size for size in load(op).SIZES if size.tier in wanted]


def sweeps() -> tuple[str, ...]:
    """The ops whose suites have a sweep, in the order of :func:`names`."""
    return tuple(op for op in names() if hasattr(load(op), "sweep"))


def swept(n: int, shapes: dict[str, tuple[int, ...]], arguments: dict[str, Any] | None = None) -> Size:
    """The size of a sweep at extent ``n``."""
    return Size(f"n_{n}", "own: one of a sweep", "standard", shapes, arguments or {})


def powers(first: int, last: int) -> tuple[int, ...]:
    """From ``first`` to ``last``, each twice as large as the one before."""
    return tuple(first << k for k in range((last // first).bit_length()))


def normal(size: Size, dtype: Any, device: Any, seed: int) -> dict[str, Tensor]:
    """Every tensor of ``size`` drawn from the normal distribution, each wanting a gradient.

    Never zeros: they multiply faster on some processors, and a kernel that writes nothing would pass with them.
    """
    random = np.random.Generator(np.random.Philox(seed))
    return {name: leaf(random.standard_normal(shape), dtype, device) for name, shape in size.shapes.items()}


def leaf(array: np.ndarray, dtype: Any, device: Any) -> Tensor:
    """A tensor that wants a gradient."""
    return tensor(array.astype(dtype, copy=False), device=device, requires_grad=True)


def elementwise_sizes(**arguments: Any) -> list[Size]:
    """Sizes of an op that takes one tensor and treats each element alone."""
    shapes = [
        ("primes", "own: prime sizes, one image", "proof", (1, 3, 7, 5)),
        ("vector", "own: one axis", "proof", (131,)),
        ("reference_cnn", "the reference CNN's first activation, batch 32", "quick", (32, 75, 28, 28)),
        ("rows_16m", "own: 64 MiB, beyond any cache", "standard", (4096, 4096)),
        ("bias_relu", "ResNet-50, conv2 of batch 256", "full", (256, 256, 56, 56)),
        ("rows", "KernelBench level 1, activations", "full", (4096, 393216)),
    ]
    return [Size(name, origin, tier, {"x": shape}, arguments) for name, origin, tier, shape in shapes]
