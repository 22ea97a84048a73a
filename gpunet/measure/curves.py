"""Records of what spans many sizes or many steps: sweeps, break-even sizes, training. Part of a report's rows."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Curve:
    """One training run."""

    lane: str
    """Device, and the backend where it was asked for by name."""
    device: str
    kernels: list[str]
    """Which kernels ran in the first step."""
    losses: list[float]
    """Loss of every step."""
    accuracy: float
    """Share of the test images named rightly, 0 to 1."""
    epochs: float
    """Passes over the training images, with the part of the last one."""
    batch_size: int
    train_images: int
    test_images: int
    seconds_per_epoch: float
    images_per_second: float
    stopped: str
    """Empty when every epoch ran, else what ended it early."""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """Test images with "image" (PNG in base64), "true" and "predicted"."""
    reached: list[list[float]] = field(default_factory=list)
    """(seconds of training so far, share of held-out images named rightly), in the order of time."""
    target: float | None = None
    """The share that the run was to reach."""
    seconds_to_target: float | None = None
    """Seconds of training until it was first reached; None if it was not."""


@dataclass
class Point:
    """One size of a sweep."""

    n: int
    """The extent that the sweep varies."""
    shapes: list[list[int]]
    median: float
    """Seconds a call, arrays where the kernel wants them."""
    low: float
    """Lower end of the median's 95 % interval."""
    high: float
    copied: float | None = None
    """Median seconds with the inputs brought from the host and the result back; None on a device of the host."""
    copied_low: float | None = None
    """Lower end of that median's 95 % interval."""
    copied_high: float | None = None
    launch: float | None = None
    """Seconds in which the host hands one call over: a stream of calls is no faster. None where the host works."""


@dataclass
class Sweep:
    """One entry over sizes, on one device, backend and number of threads: the kernel that runs by itself there."""

    op: str
    entry: str
    device: str
    backend: str
    threads: int
    """As in a row."""
    dtype: str
    axis: str
    """What n is, such as "N of a product of N×N matrices"."""
    points: list[Point]
    """By n."""
    machine: str = ""
    """The machine of another run; empty for this one."""
    time: str = ""
    """When that run was."""


@dataclass
class BreakEven:
    """From which size on the second of two lanes pays."""

    op: str
    entry: str
    dtype: str
    near: str
    """Where small sizes are faster: device, backend, threads."""
    far: str
    copies: bool
    """Whether the far side's copies count."""
    n: float | None
    """The size at which both take as long; None unless there are sizes on both sides of it."""
    low: float | None
    """Between which sizes it lies for certain: the largest at which near is surely faster; None if it never is ..."""
    high: float | None
    """... and the smallest from which far is, and stays so; None if it never does."""
    words: str
    """What to conclude, in a sentence."""


@dataclass
class Step:
    """A network's training step, or one part of it, on one device."""

    model: str
    device: str
    lane: str
    """Device, and the backend or library where it was asked for by name."""
    part: str
    """"step", "forward", "backward", "update", or "epoch" over all training images."""
    batch_size: int
    threads: int
    """As in a row."""
    median: float
    low: float
    high: float
    n: int


@dataclass
class Agreement:
    """How far two training runs from the same weights and batches drift apart."""

    first: str
    second: str
    steps: int
    early: float
    """Largest relative difference of the loss in the first ten steps."""
    overall: float
    """Largest relative difference in all steps."""
