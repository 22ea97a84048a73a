"""Pictures for the report, as text: SVG curves that take the page's colours, bars of HTML, and small PNG images."""

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from gpunet.measure import frame
from gpunet.measure.frame import COLORS as SERIES
from gpunet.measure.frame import WIDTH, Axis, Frame, finite, nice_ticks

NOTHING = "<p>No numbers to draw.</p>"


def png(image: np.ndarray) -> str:
    """A grey image (H, W), uint8, as PNG in base64."""
    height, width = image.shape
    lines = b"".join(b"\0" + np.ascontiguousarray(row, np.uint8).tobytes() for row in image)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(data)) + kind + data + _sum(kind + data) for kind, data in parts)
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode("ascii")


def _sum(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


class Bar(NamedTuple):
    """One horizontal bar."""

    label: str
    length: float | None
    value: str
    """What stands beside it."""
    color: int
    style: str = ""
    """"chosen" or "other" (of another machine); the label says so in words as well."""


def bars(rows: Sequence[Bar]) -> str:
    """Horizontal bars; the longest fills the width, and one without a length is empty."""
    lengths = [each.length if each.length is not None and frame.positive(each.length) else 0.0 for each in rows]
    longest = max(lengths, default=0.0) or 1.0
    lines = []
    for each, length in zip(rows, lengths, strict=True):
        style = " ".join(part for part in ("track", f"c{each.color % SERIES}", each.style) if part)
        name, told = f"<span>{escape(each.label)}</span>", f"<span>{escape(each.value)}</span>"
        track = f'<span class="{style}" style="--w:{100 * length / longest:.1f}%"></span>'
        lines.append(f'<div class="bar">{name}{told}{track}</div>')
    return f'<div class="bars">{"".join(lines)}</div>'


def curves(series: Sequence[tuple[str, Sequence[float | None]]], x_title: str, y_title: str) -> str:
    """Curves over 1, 2, 3 ...; a missing value leaves a gap. Colours and the font come from the page."""
    numbered = [(name, [(k + 1.0, value) for k, value in enumerate(values)]) for name, values in series]
    steps = max((len(values) for _, values in series), default=0)
    return lines(numbered, x_title, y_title, Axis(x_title, 1.0, max(steps, 2)))


def lines(
    series: Sequence[tuple[str, Sequence[tuple[float, float | None]]]],
    x_title: str,
    y_title: str,
    x: Axis | None = None,
    target: float | None = None,
) -> str:
    """Curves through (x, y); a missing y leaves a gap.

    Args:
        series: (name, points) of each.
        x_title: what x is.
        y_title: what y is.
        x: the axis across; None for one from 0 to the largest x.
        target: a y that is marked with a dashed line of its own.
    """
    drawn = [(a, b) for _, points in series for a, b in points if b is not None and finite(a) and finite(b)]
    if not drawn:
        return NOTHING
    heights = [b for _, b in drawn] + ([target] if target is not None and finite(target) else [])
    picture = Frame(x or frame.linear(x_title, [a for a, _ in drawn]), frame.linear(y_title, heights))
    parts = []
    for number, (_, points) in enumerate(series):
        parts += [frame.line(piece, f"line c{number % SERIES}") for piece in _pieces(points, picture)]
    if target is not None and finite(target):
        y = picture.down(target)
        parts.append(f'<line class="aim" x1="{frame.LEFT}" x2="{WIDTH - frame.RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(frame.label(frame.LEFT + 4, y - 4, f"target {target:g}", more='class="over"'))
    return picture.svg(parts, f"{y_title} over {x_title}: {', '.join(name for name, _ in series)}")


def _pieces(points: Sequence[tuple[float, float | None]], picture: Frame) -> list[list[tuple[float, float]]]:
    """The points of a curve in the picture, cut where a value is missing."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or not finite(x) or not finite(y):
            pieces.append([])
        else:
            pieces[-1].append(picture.place((x, y)))
    return [piece for piece in pieces if piece]


def legend(names: Sequence[str], stroke: bool = False) -> str:
    """The colours by name: of bars, or of curves with their strokes."""
    return keys([(line_key(k) if stroke else _square(k), name) for k, name in enumerate(names)])


def keys(pairs: Sequence[tuple[str, str]]) -> str:
    """A line of explanations: (the sign as SVG or HTML, its name)."""
    marks = "".join(f'<span class="key">{mark}{escape(name)}</span>' for mark, name in pairs)
    return f'<p class="legend">{marks}</p>'


def _square(number: int) -> str:
    return f'<span class="mark c{number % SERIES}"></span>'


def sign_key(number: int, style: str = "dot") -> str:
    """A sign for a legend."""
    return f'<svg class="sign" viewBox="0 0 14 14" aria-hidden="true">{frame.sign(number, 7, 7, 5, style)}</svg>'


def line_key(number: int, style: str = "line", dot: str = "") -> str:
    """A piece of a curve for a legend; where the chart has signs, with its sign, in the style ``dot``."""
    mark = frame.sign(number, 15, 7, 4, dot) if dot else ""
    piece = f'<polyline class="{style} c{number % SERIES}" points="0,7 30,7"/>'
    return f'<svg class="sign long" viewBox="0 0 30 14" aria-hidden="true">{piece}{mark}</svg>'


__all__ = ["SERIES", "WIDTH", "Bar", "bars", "curves", "keys", "legend", "lines", "nice_ticks", "png"]
