"""What ``fit`` shows: one line an epoch, and on a terminal a bar while a run takes longer than two seconds."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

DELAY = 2.0  # seconds before a bar appears: shorter runs are over before it can be read
REFRESH = 0.1  # seconds between two updates of the bar


def values_text(logs: dict[str, float]) -> str:
    """``loss 0.4123  accuracy 0.8500``."""
    return "  ".join(f"{name} {value:.4f}" for name, value in logs.items())


class Progress:
    """The display of one run. Silent, lines alone, or lines and a bar.

    Args:
        samples: samples a pass over the training data.
        epochs: (first, last) of the run; the last is not run any more.
        unit: "images" or "samples".
        verbose: 0 silent, 1 lines and bar, 2 lines alone.
        stream: where to write; None is the standard output at the time.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        samples: int,
        epochs: tuple[int, int],
        unit: str,
        verbose: int,
        stream: Any = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.samples, self.unit, self.verbose, self.clock = samples, unit, verbose, clock
        self.first, self.epochs = epochs
        self.stream = sys.stdout if stream is None else stream
        self._begin = self._shown = clock()
        self._passed = 0  # samples since the run began
        self._bar: Any = None
        self._terminal = verbose == 1 and getattr(self.stream, "isatty", bool)()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def batch(self, epoch: int, count: int, logs: Callable[[], dict[str, float]]) -> None:
        """``count`` more samples of ``epoch`` are done; ``logs`` is asked only when the bar is drawn."""
        self._passed += count
        if not self._terminal:
            return
        now = self.clock()
        if now - self._begin < DELAY or now - self._shown < REFRESH:
            return
        self._shown = now
        if self._bar is None:
            self._start()
        if self._bar is not None:
            rate = self._passed / (now - self._begin)
            left = ((self.epochs - self.first) * self.samples - self._passed) / rate
            text = f"{rate:,.0f} {self.unit}/s  {duration(left)} left  {values_text(logs())}"
            title = f"epoch {epoch + 1}/{self.epochs}"
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=self._passed, description=title, text=text, refresh=True)

    def epoch(self, epoch: int, seconds: float, rate: float, logs: dict[str, float]) -> None:
        """The line of an epoch that is done."""
        if not self.verbose:
            return
        line = f"epoch {epoch + 1}/{self.epochs}  {values_text(logs)}  {seconds:.1f} s  {rate:,.0f} {self.unit}/s"
        self.line(line)

    def line(self, text: str) -> None:
        """Shows a line, above the bar when there is one, whatever ``verbose`` is."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        console = Console(file=self.stream)  # reads NO_COLOR and TERM
        if not console.is_terminal or console.is_dumb_terminal:
            self._terminal = False
            return
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[text]}"))
        self._bar = Bar(*columns, console=console, transient=True, auto_refresh=False)
        self._bar.add_task("", total=(self.epochs - self.first) * self.samples, text="")
        self._bar.start()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def duration(seconds: float) -> str:
    """``4 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
