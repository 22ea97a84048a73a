"""From a benchmark suite to the kernel calls behind it: what every launcher of an op gets, forward and backward.

A suite only calls a public function. It is run here on the host, on the NumPy definition, with a random gradient for
its result; every launch on the way is captured. So all kernels of all devices are held against each other on the same
arrays, and the arrays of the backward entries come from the definition, never from the kernel that is on trial.
"""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from gpunet import config, devices, dispatch, random
from gpunet.backward import grad
from gpunet.creation import tensor
from gpunet.devices import Device
from gpunet.dispatch import Call, Kernel, Work
from gpunet.measure import variation
from gpunet.tensor import Tensor

suites: Any = importlib.import_module("gpunet.bench.suites")  # by name: its files lie in the folder bench/
DEFINITION = "numpy"  # the backend that holds the definitions
OTHER = 7919  # seed of what is made from a case


@dataclass(frozen=True)
class Case:
    """One captured call of an op: the suite, size and half of the pass it came from, and its arguments on the host."""

    op: str
    size: Any
    dtype: str
    phase: str
    label: str
    """The entry; with the flags that are set, where one size calls it in two ways."""
    call: Call

    @property
    def entry(self) -> str:
        """The entry's name."""
        return self.call.entry

    @property
    def shapes(self) -> list[list[int]]:
        """Shapes of the arrays among the arguments."""
        return [list(array.shape) for array in self.call.arrays if hasattr(array, "shape")]

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays among the arguments."""
        return sum(array.nbytes for array in self.call.arrays if hasattr(array, "nbytes"))

    @property
    def work(self) -> Work:
        """Operations and bytes, from the entry's title page."""
        op = self.entry.partition(".")[0]
        return dispatch.title(op).work(self.entry, *self.call.arrays, **self.call.params)

    @cached_property
    def expected(self) -> tuple[np.ndarray, ...]:
        """What the definition makes of the same arguments in float64; computed once."""
        arrays = tuple(_as_double(array) for array in self.call.arrays)
        return outputs(definition(self.entry).function(*arrays, **self.call.params))

    @cached_property
    def permuted(self) -> "Case":
        """The same call on the same numbers in another order."""
        return replace(self, call=self.call._replace(arrays=variation.permuted(self.call.arrays, OTHER)))

    @cached_property
    def exchanges(self) -> list[variation.Exchange]:
        """A few pairs of elements of its arrays."""
        return variation.exchanges(self.call.arrays, OTHER)

    @cached_property
    def exchanged(self) -> "Case":
        """The same call once those elements have changed places."""
        arrays = tuple(each.copy(order="K") if isinstance(each, np.ndarray) else each for each in self.call.arrays)
        variation.apply(self.exchanges, arrays)
        return replace(self, call=self.call._replace(arrays=arrays))

    def arrays_on(self, device: Device) -> tuple[Any, ...]:
        """A fresh copy of the arguments on ``device``."""
        return tuple(
            device.asarray(each.copy(order="K")) if isinstance(each, np.ndarray) else each for each in self.call.arrays
        )


def _as_double(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    return array.astype(np.float64) if array.dtype.kind == "f" else array.copy()


def outputs(result: Any) -> tuple[Any, ...]:
    """What a launcher returned, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def definition(entry: str) -> Kernel:
    """The kernel that says what ``entry`` computes."""
    return next(each for each in dispatch.variants(entry, DEFINITION) if each.variant == dispatch.REFERENCE)


def capture(suite: ModuleType, size: Any, dtype: Any, seed: int, second: bool = False) -> list[Case]:
    """Every call behind one size of a suite; whether ops run fused, the size says.

    Args:
        suite: module with ``tensors`` and ``run``, from ``gpunet.bench.suites``.
        size: one of its sizes.
        dtype: "float32" or "float64".
        seed: of the random inputs, the random gradient, and dropout's masks.
        second: whether to add the entries that only a second derivative reaches, such as gather of max pooling.
    """
    op, name = suite.__name__.rpartition(".")[2], np.dtype(dtype).name
    with seeded(seed), definitions(), config.use_fused(size.fused):
        tensors = suite.tensors(size, dtype, devices.CPU, seed)
        wanted = [each for each in tensors.values() if each.requires_grad]
        with dispatch.capture() as forward:
            y = suite.run(size, tensors)
        gy = _like(y, seed + 1)
        with dispatch.capture() as backward:
            grads = grad(y, wanted, gy, create_graph=second)
        after = _second(grads, wanted, gy, seed + 2) if second else []
    known = {call.entry for call in (*forward, *backward)}
    phases = {"forward": forward, "backward": backward, "second": [each for each in after if each.entry not in known]}
    named = [(phase, call) for phase, calls in phases.items() for call in calls]
    ways = {entry: {_flags(call) for _, call in named if call.entry == entry} for entry in {c.entry for _, c in named}}
    return [
        Case(op, size, name, phase, call.entry + (_flags(call) if len(ways[call.entry]) > 1 else ""), call)
        for phase, call in named
    ]


def _flags(call: Call) -> str:
    names = [name for name, value in call.params.items() if value is True]
    return f" ({', '.join(names)})" if names else ""


def _second(grads: tuple[Tensor, ...], wanted: list[Tensor], gy: Tensor, seed: int) -> list[Call]:
    """The calls of a second derivative, each entry once."""
    with dispatch.capture() as calls:
        grad(grads, [*wanted, gy], [_like(each, seed + k) for k, each in enumerate(grads)], allow_unused=True)
    return list({call.entry: call for call in calls}.values())


def _like(like: Tensor, seed: int) -> Tensor:
    values = np.random.Generator(np.random.Philox(seed)).standard_normal(like.shape)
    return tensor(values.astype(like.dtype), device=like.device, requires_grad=True)


@contextmanager
def definitions() -> Iterator[None]:
    """Inside, every op runs on its definition, whatever the environment or a ladder says."""
    before = config.local.variants
    with config.use_backend(DEFINITION):
        config.local.variants = dict.fromkeys(dispatch.ops(), dispatch.REFERENCE)
        try:
            yield
        finally:
            config.local.variants = before


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, gpunet's random state is that of ``seed``; afterwards it is the caller's again."""
    state = random.get_state()
    random.manual_seed(seed)
    try:
        yield
    finally:
        random.set_state(state)
