"""The frame of a chart as SVG text: two axes, linear or logarithmic, with round ticks, and the signs drawn in it.

A picture is drawn for a telephone: 360 units wide, and the page stretches it. Colours come from the page's style sheet
(classes c0 to c5), so that they follow the reader's light or dark. Every sign has a shape as well as a colour.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

WIDTH, HEIGHT = 360, 264
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 26, 38  # what is left for the curves: 300 × 200
COLORS = 6  # the style sheet has this many, and there are as many shapes
FEW = 0.05  # decades: an axis is never shorter, whatever its values

#: corners of the signs on a circle of radius 1, y downwards; none for the circle itself
SHAPES: tuple[tuple[tuple[float, float], ...], ...] = (
    (),
    ((-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)),
    ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
    ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
    ((-1, -1), (1, 1), (1, -1), (-1, 1)),
)


def finite(value: Any) -> bool:
    """Whether it is a number that can be drawn: records hold None for one that was not finite."""
    return isinstance(value, int | float) and math.isfinite(value)


def positive(value: Any) -> bool:
    """Whether it has a place on a logarithmic axis."""
    return finite(value) and value > 0


class Axis(NamedTuple):
    """One direction of a chart."""

    title: str
    low: float
    high: float
    log: bool = False
    text: Callable[[float], str] = "{:g}".format
    """What stands at a tick."""

    def share(self, value: float) -> float:
        """How far along the axis a value lies: 0 at its beginning, 1 at its end."""
        low, high = (self._scaled(each) for each in (self.low, self.high))
        return (self._scaled(value) - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self) -> list[float]:
        """Round numbers within the axis."""
        found = log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high)
        rest = 1e-9 * (self.high - self.low)
        return [each for each in found if self.low - rest <= each <= self.high + rest]


def linear(title: str, values: Sequence[float], text: Callable[[float], str] = "{:g}".format) -> Axis:
    """An axis from 0, or from below, to a round number beyond all values; ``values`` must not be empty."""
    ticks = nice_ticks(min(0.0, *values), max(0.0, *values))
    return Axis(title, ticks[0], ticks[-1], text=text)


def logarithmic(
    title: str, values: Sequence[float], text: Callable[[float], str] = "{:g}".format, room: float = 0.15
) -> Axis:
    """A logarithmic axis around positive values, with ``room`` decades beyond them; ``values`` must not be empty."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(room, FEW)
    return Axis(title, 10 ** (low - room), 10 ** (high + room), True, text)


def nice_ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that reach from ``low`` or below to ``high`` or above."""
    spread = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if spread / (power * each) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """At most seven round numbers from ``low`` to ``high``: powers of ten, or parts of them where those are too few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = range(first, last + 1)
    if len(powers) >= 3:
        return [10.0**each for each in powers[:: math.ceil(len(powers) / 6)]]
    for parts in ((1, 2, 5), (1, 3)):
        found = [m * 10.0**k for k in range(first - 1, last + 1) for m in parts]
        found = [each for each in found if low <= each * (1 + 1e-9) and each <= high * (1 + 1e-9)]
        if 2 <= len(found) <= 7:
            return found
    return [each for each in nice_ticks(low, high) if low <= each <= high and each > 0]


class Frame:
    """Where values lie in the picture, and the grid behind them.

    Args:
        x: the axis across.
        y: the axis upwards.
        above: units kept free over the curves, for labels of their own.
    """

    def __init__(self, x: Axis, y: Axis, above: float = 0.0):
        self.x, self.y = x, y
        self.top, self.height = TOP + above, HEIGHT + above

    def across(self, value: float) -> float:
        """Units from the left edge of the picture."""
        return LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)

    def down(self, value: float) -> float:
        """Units from its upper edge."""
        return self.bottom - self.y.share(value) * (self.bottom - self.top)

    @property
    def bottom(self) -> float:
        """Where the axis across lies."""
        return self.height - BOTTOM

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        """Both at once."""
        return self.across(point[0]), self.down(point[1])

    def grid(self) -> str:
        """Lines and numbers of both axes, and their titles."""
        parts = []
        for value in self.y.ticks():
            y = self.down(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(label(LEFT - 5, y + 4, self.y.text(value), "end"))
        for value in self.x.ticks():
            x = self.across(value)
            edge = x > WIDTH - RIGHT - 14
            parts.append(
                f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{self.bottom:.1f}" y2="{self.bottom + 4:.1f}"/>'
            )
            at = WIDTH - 2 if edge else x
            parts.append(label(at, self.bottom + 16, self.x.text(value), "end" if edge else "middle"))
        parts.append(label((LEFT + WIDTH - RIGHT) / 2, self.height - 5, self.x.title, "middle"))
        parts.append(label(2, 12, self.y.title))
        return "".join(parts)

    def svg(self, parts: Iterable[str], told: str) -> str:
        """The picture.

        Args:
            parts: what is drawn on the grid, as SVG.
            told: what it shows, for those who do not see it.
        """
        head = f'class="plot" viewBox="0 0 {WIDTH} {self.height:g}" role="img"'
        return f'<svg {head} aria-label="{escape(told, quote=True)}">{self.grid()}{"".join(parts)}</svg>'


def label(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    """A line of text; ``more`` are further attributes, already safe."""
    where = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{where}{f" {more}" if more else ""}>{escape(words)}</text>'


def sign(number: int, x: float, y: float, radius: float = 4.0, style: str = "dot", told: str = "") -> str:
    """The shape and colour of a number, at a place; ``told`` appears under the mouse."""
    corners = SHAPES[number % len(SHAPES)]
    inside = f"><title>{escape(told)}</title></" if told else ""
    css = f'class="{style} c{number % COLORS}"'
    if not corners:
        tag, body = "circle", f'{css} cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"'
    else:
        points = " ".join(f"{x + radius * a:.1f},{y + radius * b:.1f}" for a, b in corners)
        tag, body = "polygon", f'{css} points="{points}"'
    return f"<{tag} {body}{inside}{tag}>" if told else f"<{tag} {body}/>"


def line(points: Sequence[tuple[float, float]], style: str) -> str:
    """A line through points of the picture; a single one is a dot, and many are thinned."""
    if len(points) == 1:
        ((x, y),) = points
        return f'<circle class="{style.replace("line", "dot")}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    return f'<polyline class="{style}" points="{_text(thinned(points))}"/>'


def band(points: Sequence[tuple[float, float, float]], style: str) -> str:
    """A surface from (x, upper, lower), in units of the picture."""
    around = [(x, y) for x, y, _ in points] + [(x, y) for x, _, y in reversed(points)]
    return f'<polygon class="{style}" points="{_text(around)}"/>'


def _text(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def thinned(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most ``most`` of the points; of each stretch the lowest and the highest stay, so no spike is lost."""
    if len(points) <= most:
        return list(points)
    inner, stretches = points[1:-1], (most - 2) // 2
    kept = [points[0]]
    for k in range(stretches):
        part = inner[k * len(inner) // stretches : (k + 1) * len(inner) // stretches]
        ends = sorted({part.index(min(part, key=_height)), part.index(max(part, key=_height))})
        kept += [part[each] for each in ends]
    return [*kept, points[-1]]


def _height(point: tuple[float, float]) -> float:
    return point[1]
