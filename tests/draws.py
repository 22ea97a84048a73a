"""How the tensors of a test case are drawn, and what a case is; the cases themselves are in tests/cases.py."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import gpunet as gn
from gpunet import functional as F
from gpunet import random


@dataclass(frozen=True)
class Draw:
    """How one tensor of a case is made: the values in float64, from a generator."""

    values: Callable[[np.random.Generator], np.ndarray]
    grad: bool = True


def normal(*shape: int, grad: bool = True) -> Draw:
    """Standard normal numbers."""
    return Draw(lambda rng: rng.standard_normal(shape), grad)


def ramp(*shape: int) -> Draw:
    """Numbers 0.05 apart in random order: no ties, and no step of gradcheck changes who is largest."""
    size = int(np.prod(shape))
    return Draw(lambda rng: (rng.permutation(size).reshape(shape) - size / 2 + 0.25) * 0.05)


def away(*shape: int, low: float = 0.2) -> Draw:
    """Numbers of both signs, at least ``low`` from 0."""
    return Draw(lambda rng: rng.uniform(low, 2, shape) * rng.choice([-1.0, 1.0], shape))


def positive(*shape: int, grad: bool = True) -> Draw:
    """Numbers from 0.5 to 1.5: variances, weights of classes."""
    return Draw(lambda rng: rng.uniform(0.5, 1.5, shape), grad)


def uniform(*shape: int, low: float, high: float) -> Draw:
    """Numbers from ``low`` to ``high``."""
    return Draw(lambda rng: rng.uniform(low, high, shape))


def shifted(*shape: int, by: float) -> Draw:
    """Standard normal numbers around ``by``."""
    return Draw(lambda rng: rng.standard_normal(shape) + by)


def constant(*shape: int, value: float) -> Draw:
    """One number everywhere."""
    return Draw(lambda rng: np.full(shape, value))


def unit(*shape: int, grad: bool = True) -> Draw:
    """Probabilities from 0.05 to 0.95."""
    return Draw(lambda rng: rng.uniform(0.05, 0.95, shape), grad)


def special(*shape: int) -> Draw:
    """Normal numbers with NaN, infinities and zeros of both signs among them."""

    def values(rng: np.random.Generator) -> np.ndarray:
        odd = rng.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
        return np.where(rng.random(shape) < 0.15, odd, rng.standard_normal(shape))

    return Draw(values)


def ties(*shape: int) -> Draw:
    """Few whole numbers, so that many are equal, and many are 0."""
    return Draw(lambda rng: rng.integers(-1, 2, shape).astype(float))


def labels(*shape: int, classes: int, ignored: int | None = None) -> Draw:
    """Class numbers; with ``ignored`` about a third of them is that number instead."""

    def values(rng: np.random.Generator) -> np.ndarray:
        target = rng.integers(0, classes, shape)
        return target if ignored is None else np.where(rng.random(shape) < 0.35, ignored, target)

    return Draw(values, grad=False)


@dataclass(frozen=True, eq=False)
class Case:
    """One call of ``gpunet.functional.<op>``: how its tensors are drawn, and its other arguments."""

    op: str
    name: str
    tensors: tuple[Draw | None, ...]
    args: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # of the last tensors, where they are passed by keyword
    smooth: bool = True  # False: NaN, infinities or ties on purpose, where differences mean nothing

    def __str__(self) -> str:
        return f"{self.op}-{self.name}"

    def draw(self, dtype: Any, requires_grad: bool = True) -> list[gn.Tensor | None]:
        """Fresh tensors, the same at every call; integers stay integers."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        out: list[gn.Tensor | None] = []
        for each in self.tensors:
            if each is None:
                out.append(None)
                continue
            values = np.asarray(each.values(rng))
            floating = values.dtype.kind == "f"
            made = gn.tensor(values, dtype=dtype if floating else np.int64)
            out.append(made.requires_grad_() if floating and each.grad and requires_grad else made)
        return out

    def run(self, *tensors: gn.Tensor | None) -> gn.Tensor:
        """The op on ``tensors``; of several outputs the first. Dropout gets the same mask at every run."""
        if self.op.startswith("dropout"):  # both numbers of the key beyond 32 bits
            gn.manual_seed(3 + 2**40)
            random.set_state({**random.get_state(), "ops": 5 + 2**33})
        y = self.call(*tensors)
        return y[0] if isinstance(y, tuple) else y

    def call(self, *tensors: Any) -> Any:
        """The op on ``tensors``, and nothing else."""
        first = len(tensors) - len(self.names)
        named = dict(zip(self.names, tensors[first:], strict=True))
        return getattr(F, self.op)(*tensors[:first], **named, **self.args)
