"""Kernels beside other libraries: a line and a small chart of the interval for each, and geometric means.

A mean is taken over the sizes of one entry alone, with one peer, on as many threads: over unlike things it says little.
"""

import math
from collections.abc import Sequence
from html import escape

from gpunet.measure import frame
from gpunet.measure.frame import positive
from gpunet.measure.report_parts import pieces
from gpunet.measure.rows import Ratio, Report

WIDE, TALL = 300.0, 18.0
EDGE = 8.0  # units between the scale's ends and the picture's
REACH = (1.25, 1.5, 2, 3, 5, 10, 30, 100, 1e3, 1e4, 1e6)  # how far a scale may go to both sides of 1
ABOUT = (
    "Both took turns in one process. The ratio is the other's time over the kernel's: above 1 the kernel is faster. "
    "The bar is the 95 % interval of the median, the band what is too small an effect to count; a verdict needs the "
    "whole interval on one side."
)


def section(report: Report) -> str:
    """Ratios by op, and their means."""
    if not report.ratios:
        return ""
    ops: dict[str, list[Ratio]] = {}
    for each in report.ratios:
        ops.setdefault(pieces.op_of(each.entry), []).append(each)
    return f"<p>{escape(ABOUT)}</p>{_means(report.ratios)}{pieces.cards(_card(op, each) for op, each in ops.items())}"


def _card(op: str, ratios: Sequence[Ratio]) -> str:
    reach = _reach(ratios)
    lines = "".join(_line(each, reach) for each in ratios)
    return f"<h3>{escape(op)}</h3>{lines}{_scale(reach)}"


def _reach(ratios: Sequence[Ratio]) -> float:
    """How far the scale of these ratios goes: the least of REACH that holds every interval."""
    values = [v for each in ratios for v in (each.ratio, each.low, each.high) if positive(v)]
    need = max((max(v, 1 / v) for v in values), default=1.0)
    return next((each for each in REACH if each >= need), REACH[-1])


def _line(each: Ratio, reach: float) -> str:
    entry = each.entry.partition(".")[2] or each.entry
    kernel = pieces.joined(each.device, each.backend, each.variant)
    name = f"{entry}, {pieces.sized(each)}: {kernel}{', ✓ chosen' if each.chosen else ''}"
    value = f"{_times(each.ratio)}× · {each.verdict or 'no verdict'}"
    about = pieces.joined(
        f"beside {each.peer}",
        pieces.threads(each.threads),
        f"{pieces.seconds(each.ours)} against {pieces.seconds(each.theirs)}",
        f"{_times(each.low)} to {_times(each.high)} in {each.n} pairs",
        f"effect {pieces.number(100 * each.effect, 'g')}\N{NO-BREAK SPACE}%" if positive(each.effect) else "",
        by="; ",
    )
    return (
        f'<div class="ratio"><span>{escape(name)}</span><b>{escape(value)}</b>'
        f"<small>{escape(about)}</small>{interval(each, reach)}</div>"
    )


def _times(value: float | None) -> str:
    return pieces.number(value, ".2f" if positive(value) and (value or 0) >= 0.1 else ".2g")


def _across(value: float, reach: float) -> float:
    """Where a ratio lies in the picture: 1 in the middle, ``reach`` at the right end, 1 / reach at the left."""
    share = math.log(min(max(value, 1 / reach), reach)) / math.log(reach)
    return WIDE / 2 + share * (WIDE / 2 - EDGE)


def interval(each: Ratio, reach: float) -> str:
    """The interval of one ratio around 1, on a logarithmic scale."""
    middle = TALL / 2
    parts = []
    if positive(each.effect):
        left, right = _across(1 / (1 + each.effect), reach), _across(1 + each.effect, reach)
        parts.append(f'<path class="effect" d="M{left:.1f},0H{right:.1f}V{TALL:g}H{left:.1f}z"/>')
    parts.append(f'<path class="one" d="M{WIDE / 2:g},0V{TALL:g}"/>')
    if positive(each.low) and positive(each.high):
        a, b = _across(each.low, reach), _across(each.high, reach)
        parts.append(f'<path class="whisker" d="M{a:.1f},{middle:g}H{b:.1f}M{a:.1f},5v8M{b:.1f},5v8"/>')
    if positive(each.ratio):
        parts.append(f'<path class="center" d="M{_across(each.ratio, reach):.1f},4l5,5l-5,5l-5,-5z"/>')
    # The numbers stand in words above it.
    return f'<svg class="forest" viewBox="0 0 {WIDE:g} {TALL:g}" aria-hidden="true">{"".join(parts)}</svg>'


def _scale(reach: float) -> str:
    """What the middle and the ends mean."""
    ends = (
        frame.label(0, 12, f"← {reach:g}× slower"),
        frame.label(WIDE / 2, 12, "as fast", "middle"),
        frame.label(WIDE, 12, f"{reach:g}× faster →", "end"),
    )
    return f'<svg class="forest" viewBox="0 0 {WIDE:g} {TALL:g}" aria-hidden="true">{"".join(ends)}</svg>'


# ------------------------------------------------------------------------------------------------------------- means


def means(ratios: Sequence[Ratio]) -> list[tuple[Ratio, str, float, int, int]]:
    """Geometric means over the sizes of one entry, kernel, peer and number of threads, where there are two or more.

    Returns:
        (the first of them, the kernel, the mean, how many comparisons, how many pairs in all) of each group. The chosen
        rungs of a device are one kernel: what runs by itself may change with the size.
    """
    groups: dict[tuple[object, ...], list[Ratio]] = {}
    for each in ratios:
        if positive(each.ratio):
            kernel = "chosen rung" if each.chosen else pieces.joined(each.backend, each.variant)
            key = (each.entry, each.phase, each.dtype, each.device, kernel, each.peer, each.threads)
            groups.setdefault(key, []).append(each)
    return [
        (
            group[0],
            f"{group[0].device} {key[4]}",
            math.exp(sum(math.log(each.ratio) for each in group) / len(group)),
            len(group),
            sum(each.n for each in group),
        )
        for key, group in groups.items()
        if len(group) > 1
    ]


def _means(ratios: Sequence[Ratio]) -> str:
    found = []
    for first, kernel, mean, count, n in means(ratios):
        dtype = "" if first.dtype == "float32" else first.dtype
        about = pieces.joined(f"{kernel} beside {first.peer}", pieces.threads(first.threads), dtype, by="; ")
        found.append(
            (f"{escape(first.entry)}<br>{pieces.soft(about)}", f"{_times(mean)}×", f"{count} sizes, {n} pairs")
        )
    if not found:
        return ""
    heads = ("entry", "geometric mean", "over")
    return f"<h3>Over the sizes of an entry</h3>{pieces.table(heads, found, 2)}"
