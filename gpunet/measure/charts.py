"""Pictures for the report, as text: SVG curves that take the page's colours, bars of HTML, and small PNG images."""

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 440, 240
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 34
SERIES = 6  # the style sheet has this many colours of curves and bars


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


def bars(rows: Sequence[tuple[str, float, str, int]]) -> str:
    """Horizontal bars from (label, length, text beside it, number of the colour); the longest fills the width."""
    longest = max((length for _, length, _, _ in rows), default=0) or 1.0
    lines = []
    for label, length, value, color in rows:
        fill = f'<span class="fill c{color % SERIES}" style="width:{100 * length / longest:.2f}%"></span>'
        name, told = f'<span class="name">{escape(label)}</span>', f'<span class="value">{escape(value)}</span>'
        lines.append(f'<div class="bar">{name}<span class="track">{fill}</span>{told}</div>')
    return f'<div class="bars">{"".join(lines)}</div>'


def curves(series: Sequence[tuple[str, Sequence[float | None]]], x_title: str, y_title: str) -> str:
    """Curves over 1, 2, 3 ...; a missing value leaves a gap. Colours and the font come from the page."""
    points = [value for _, values in series for value in values if value is not None and math.isfinite(value)]
    if not points:
        return "<p>No numbers to draw.</p>"
    steps = max(len(values) for _, values in series)
    ticks = nice_ticks(min(0.0, min(points)), max(points))
    low, high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - 1) / max(1, steps - 1) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(ticks, steps, place)]
    for number, (_, values) in enumerate(series):
        parts += [_path(piece, number) for piece in _pieces(values, place)]
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>')
    turned = f'transform="rotate(-90 10 {middle:.0f})"'
    parts.append(f'<text x="10" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(y_title)}</text>')
    names = ", ".join(name for name, _ in series)
    label = escape(f"{y_title} over {x_title}: {names}", quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def legend(names: Sequence[str]) -> str:
    """The colours of curves, by name."""
    marks = (
        f'<span class="key"><span class="mark c{k % SERIES}"></span>{escape(name)}</span>'
        for k, name in enumerate(names)
    )
    return f'<p class="legend">{"".join(marks)}</p>'


def _grid(ticks: Sequence[float], steps: int, place) -> str:
    lines = []
    for value in ticks:
        _, y = place(1, value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in sorted({1, max(1, (steps + 1) // 2), steps}):
        x, _ = place(step, ticks[0])
        anchor = "end" if step == steps and steps > 1 else "middle"
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{anchor}">{step}</text>')
    return "".join(lines)


def _pieces(values: Sequence[float | None], place) -> list[list[tuple[float, float]]]:
    """The points of a curve, cut where a value is missing."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for k, value in enumerate(values):
        if value is None or not math.isfinite(value):
            pieces.append([])
        else:
            pieces[-1].append(place(k + 1, value))
    return [piece for piece in pieces if piece]


def _path(points: Sequence[tuple[float, float]], number: int) -> str:
    if len(points) == 1:
        ((x, y),) = points
        return f'<circle class="dot c{number % SERIES}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line c{number % SERIES}" points="{line}"/>'


def nice_ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers that reach from ``low`` or below to ``high`` or above."""
    spread = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / 4))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if spread / (power * each) <= 5)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(k * step, 12) for k in range(first, max(last, first + 1) + 1)]
