"""What is shown while a run is under way, and how its time is shared out.

On a terminal a bar moves; elsewhere a plain line comes at the start and the end of each part and now and then between.
Colour follows rich's rules, ``NO_COLOR`` among them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EVERY = 10.0  # seconds between plain lines


class Budget:
    """Seconds for a whole run, shared by its parts; what one part leaves over goes to those after it.

    Args:
        seconds: for everything; None for no limit.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.begin = time.monotonic()
        self._end: float | None = None

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begin

    def part(self, until: float) -> None:
        """Starts a part that ends when the share ``until`` (0 to 1) of all seconds is spent."""
        self._end = None if self.seconds is None else self.begin + until * self.seconds

    @property
    def left(self) -> float:
        """Seconds left to this part; infinite without a limit."""
        return float("inf") if self._end is None else self._end - time.monotonic()

    @property
    def over(self) -> bool:
        """Whether this part must stop."""
        return self.left <= 0


def console(quiet: bool = False) -> Any:
    """A rich console; one without a terminal is wide enough for the tables."""
    from rich.console import Console

    made = Console(highlight=False, quiet=quiet)
    return made if made.is_terminal else Console(width=120, highlight=False, quiet=quiet)


@contextmanager
def shown(screen: Any, title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Shows a part of ``total`` steps; yields a function to call, with what comes next, before each of them."""
    if screen.is_terminal and not screen.quiet:
        with _bar(screen) as bar:
            task = bar.add_task(title, total=total, detail="")

            def step(detail: str) -> None:
                bar.update(task, advance=1, detail=detail)

            yield step
        return
    begin = last = time.monotonic()
    done = 0
    screen.print(f"{title}: {total} steps")

    def line(detail: str) -> None:
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last >= EVERY:
            last = now
            screen.print(f"{title}: {done} of {total}, {now - begin:.0f} s, {detail}", markup=False)

    yield line


def _bar(screen: Any) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )  # fmt: skip
    return Progress(*columns, console=screen, transient=True)
