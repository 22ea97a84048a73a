"""What the framework itself costs: chains of 1,000 ops on 16 numbers, forward and backward, on one thread.

Hardly anything is computed, so the time is that of the graph, of the choice of kernels and of the walk backwards. With
another library beside it, whole chains take turns, and the gradients must agree before anything is timed.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpunet import functional as F
from gpunet.creation import tensor
from gpunet.errors import GpunetError
from gpunet.measure import pairs, threads, timer
from gpunet.measure.host import Cost

OPS = 1000
NUMBERS = np.linspace(0.5, 1.5, 16, dtype=np.float32)
SCALE, SHIFT = np.full(16, 0.99, np.float32), np.full(16, 0.01, np.float32)
AGREE = 1e-4  # of the largest gradient

Call = Callable[[], Any]


class Library(NamedTuple):
    """What a chain needs of a library."""

    tensor: Callable[[np.ndarray, bool], Any]
    """Makes a tensor of an array; True where it shall get a gradient."""
    relu: Callable[[Any], Any]
    tanh: Callable[[Any], Any]


def add_mul(library: Library, y: Any, a: Any, b: Any) -> Any:
    """Sums and products."""
    for _ in range(OPS // 2):
        y = y * a + b
    return y


def mixed(library: Library, y: Any, a: Any, b: Any) -> Any:
    """Sums, products and activations."""
    relu, tanh = library.relu, library.tanh
    for _ in range(OPS // 4):
        y = relu(tanh(y * a + b))
    return y


def relu(library: Library, y: Any, a: Any, b: Any) -> Any:
    """An activation alone."""
    relu = library.relu
    for _ in range(OPS):
        y = relu(y)
    return y


CHAINS: dict[str, Callable[[Library, Any, Any, Any], Any]] = {"add_mul": add_mul, "mixed": mixed, "relu": relu}
OURS = Library(lambda array, wanted: tensor(array, requires_grad=wanted), F.relu, F.tanh)


def call(name: str, library: Library) -> Call:
    """One chain in a library, forward and backward, as a call that returns the gradient of its 16 numbers."""
    chain, x = CHAINS[name], library.tensor(NUMBERS, True)
    a, b, ones = (library.tensor(each, False) for each in (SCALE, SHIFT, np.ones_like(NUMBERS)))

    def run() -> Any:
        x.grad = None
        chain(library, x, a, b).backward(ones)
        return x.grad

    return run


def costs(against: str = "", seconds: float = 2.0) -> list[Cost]:
    """Seconds an op of every chain, and the ratios to another library.

    Args:
        against: "torch", or nothing.
        seconds: for one chain; with another library for one chain in both.

    Raises:
        BackendUnavailableError: the library is not installed.
        GpunetError: the gradients differ.
    """
    if not against:
        with threads.limited(1):
            return [_alone(name, seconds) for name in CHAINS]
    peer = importlib.import_module("gpunet.bench.peers").load(against)
    theirs = importlib.import_module(f"gpunet.bench.peers.{peer.__name__.rpartition('.')[2]}_chains").LIBRARY
    with threads.limited(1), peer.threads(1):
        return [_beside(name, theirs, peer.NAME, seconds) for name in CHAINS]


def _alone(name: str, seconds: float) -> Cost:
    lane = pairs.Lane([call(name, OURS)])
    end = timer.clock() + seconds
    with timer.no_collector():
        while len(lane.samples) < pairs.Limits().least or timer.clock() < end:
            lane.sample()
    return _cost(name, lane.timing("time"))


def _beside(name: str, library: Library, peer: str, seconds: float) -> Cost:
    first, second = call(name, OURS), call(name, library)
    ours, theirs = (np.asarray(each().tolist()) for each in (first, second))
    apart = float(np.abs(ours - theirs).max())
    if not apart <= AGREE * float(np.abs(theirs).max()):
        raise GpunetError(f"chain {name}: its gradients must agree with {peer}'s to {AGREE:g}, got {apart:g} apart")
    pair = pairs.compare(pairs.Lane([first]), pairs.Lane([second]), pairs.Limits(seconds))
    return _cost(name, pair.first)._replace(
        peer=peer, theirs=pair.second.median / OPS, ratio=pair.ratio, ratio_low=pair.low, ratio_high=pair.high
    )


def _cost(name: str, time: Any) -> Cost:
    return Cost("cpu", "", f"chain {name}", time.median / OPS, time.low / OPS, time.high / OPS)
