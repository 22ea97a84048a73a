"""How often the verdict of a comparison is right on this machine: ``python -m gpunet.measure.calibrate``.

A piece of NumPy work of about 0.1 ms is compared in pairs with itself, where "same" is right, and with a tenth more of
it, where "slower" is: eleven repetitions of one inner call against ten, on the same arrays, so that the truth is known
and no model of a machine is needed. The target is 95 % and 90 %.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from gpunet.measure import pairs

SECONDS = 1e-4  # of ten inner calls, about
TARGETS = {"same": 0.95, "slower": 0.90}  # shares of right verdicts


class Finding(NamedTuple):
    """What came of comparing two known amounts of work many times."""

    right: str
    """The verdict that is right."""
    verdicts: Counter[str]
    ratios: list[float]

    @property
    def share(self) -> float:
        """Right verdicts, of all."""
        return self.verdicts[self.right] / max(1, len(self.ratios))

    def __str__(self) -> str:
        low, middle, high = np.percentile(self.ratios, (2.5, 50, 97.5))
        told = ", ".join(f"{self.verdicts[each]} {each}" for each in pairs.VERDICTS if self.verdicts[each])
        return f"{told}; ratio {middle:.3f}, 95 % of them within {low:.3f} to {high:.3f}"


@cache
def _arrays(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Shared by both sides: where an array begins makes a percent or two of such work's time."""
    return np.linspace(-1.0, 1.0, size), np.empty(size)


def work(repetitions: int, size: int) -> Callable[[], None]:
    """So many passes over an array of ``size`` numbers, which stays in the caches."""
    x, y = _arrays(size)

    def call() -> None:
        for _ in range(repetitions):
            np.tanh(x, out=y)

    return call


def fitting_size() -> int:
    """How many numbers make ten inner calls take about 0.1 ms here."""
    size = 64
    while size < 2**20 and min(_seconds(size) for _ in range(5)) < SECONDS:
        size *= 2
    return size


def _seconds(size: int) -> float:
    return pairs.Lane([work(10, size)]).sample()


def trial(more: int, count: int, limits: pairs.Limits, size: int) -> Finding:
    """Compares ten inner calls with ten and ``more`` of them, ``count`` times.

    Args:
        more: inner calls that the second does beyond the first's ten.
        count: comparisons.
        limits: of each.
        size: of the arrays, from :func:`fitting_size`.
    """
    found = Finding("slower" if more else "same", Counter(), [])
    for _ in range(count):
        pair = pairs.compare(pairs.Lane([work(10, size)]), pairs.Lane([work(10 + more, size)]), limits)
        found.verdicts[pair.verdict] += 1
        found.ratios.append(pair.ratio)
    return found


def main(arguments: list[str] | None = None) -> int:
    """Prints both shares; 1 if one is below its target."""
    parser = argparse.ArgumentParser(prog="python -m gpunet.measure.calibrate", description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="comparisons of each kind (default 200)")
    parser.add_argument("--seconds", type=float, default=1.0, help="for one comparison at most (default 1)")
    args = parser.parse_args(arguments)
    limits, size, good = pairs.Limits(args.seconds), fitting_size(), True
    for name, more in (("A against A", 0), ("A against 1.10 A", 1)):
        found = trial(more, args.count, limits, size)
        target = TARGETS[found.right]
        good = good and found.share >= target
        sys.stdout.write(f"{name}: {found.right} in {100 * found.share:.1f} % (target {100 * target:.0f} %); {found}\n")
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
