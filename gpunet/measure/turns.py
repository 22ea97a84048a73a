"""Any number of lanes timed in turns, one sample each a round: what hits the machine meanwhile hits all of them alike.

Two lanes and a verdict are :mod:`gpunet.measure.pairs`; here is the same clock for many, as sweeps and training steps
need it. A round goes through the lanes in one order, the next in the other.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from gpunet.devices import Device
from gpunet.measure import events, loop, pairs, threads, timer

LEAST = 6  # rounds: of fewer samples the smallest and the largest are no 95 % interval of the median
MOST = 200
CLOSING = 1  # samples whose results are looked at


class Sampled(Protocol):
    """What can take turns: each call of ``sample`` takes a sample and keeps it."""

    def sample(self) -> Any:
        """Takes one."""
        ...


S = TypeVar("S", bound=Sampled)


class Watched(events.Lane):
    """A kernel's calls under the eyes of the judge of timed loops, on a number of threads.

    The judge changes some inputs before each sample, and holds the results of the last samples against the definition.

    Args:
        judge: holds the kernel, its inputs, and what is known of its results.
        device: where the kernel runs.
        count: of threads; 0 for all.
    """

    def __init__(self, judge: loop.Loop, device: Device, count: int):
        self.judge, self.closing = judge, False
        self.kept: dict[int, Any] = {}
        setting = partial(threads.limited, count, pools())
        super().__init__([pairs.Around(each, setting) for each in judge.calls], device)

    def next(self) -> None:
        """One call, on the next copy; the results of the first and the last of a closing sample are kept."""
        result = self.calls[self.turn % len(self.calls)]()
        if self.closing and (not self.kept or self.turn + 1 == self.end):
            self.kept[self.turn] = result
        self.turn += 1

    def ready(self) -> None:
        """Nothing to do: all lanes are gpunet's, with the same threads, and the judge has a say before each call."""

    def _sample(self) -> float:
        self.end = self.turn + self.inner
        self.judge.before(range(self.turn, self.end), self.closing)
        self.synchronize()
        return super()._sample()

    def close(self) -> str:
        """Takes the last samples and says what is wrong with their results; empty if nothing is."""
        self.closing = True
        for _ in range(CLOSING):
            self.sample()
            for turn, result in self.kept.items():
                self.judge.after(turn, result)
            self.kept.clear()
        return self.judge.reason


def pools() -> Any:
    """The thread pools that are loaded now, for :func:`gpunet.measure.threads.limited`."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def sample(
    lanes: Sequence[S],
    seconds: float,
    failed: Callable[[S, Exception], None],
    least: int = LEAST,
    most: int | None = None,
) -> list[S]:
    """Samples the lanes in turns.

    Args:
        lanes: those that take part.
        seconds: after which no round begins, once there were ``least``.
        failed: told of each lane that raises; it takes no further part.
        least: rounds.
        most: rounds; None for MOST.

    Returns:
        The lanes that came to the end.
    """
    left, begin, rounds, most = list(lanes), timer.clock(), 0, most or MOST
    while left and rounds < most and (rounds < least or timer.clock() - begin < seconds):
        for lane in left[:: -1 if rounds % 2 else 1]:
            try:
                lane.sample()
            except Exception as error:  # whatever a kernel raises must not end the run
                failed(lane, error)
                left.remove(lane)
        rounds += 1
    return left
