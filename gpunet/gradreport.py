"""What a gradient check found, and how it reads."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

SHOWN = 20  # rows that the table prints; .rows has them all
VERDICTS = ("FAIL", "kink", "ok")


class GradRow(NamedTuple):
    """One comparison: along a direction, or of one element of the Jacobian."""

    verdict: str  # "ok", "FAIL" or "kink"
    input: str  # which input was moved
    where: str  # the direction's number, or the element that was moved
    output: str  # which output (and element) was compared; all together along a direction
    analytic: float
    numeric: float
    error: float
    allowed: float

    @property
    def ratio(self) -> float:
        """How much of what is allowed the error takes: 1 is the limit."""
        if self.error <= self.allowed:
            return self.error / self.allowed if self.allowed else 0.0
        return self.error / self.allowed if self.allowed and np.isfinite(self.error) else np.inf


@dataclass
class GradReport:
    """What :func:`gradcheck` found. True when passed; ``str()`` is one table, the worst rows first."""

    name: str
    rows: list[GradRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What is wrong beside the numbers: a changed input, a result that differs between two calls."""

    @property
    def passed(self) -> bool:
        """No row failed, nothing else is wrong, and not every row sits on a kink."""
        verdicts = {row.verdict for row in self.rows}
        return not self.problems and "FAIL" not in verdicts and verdicts != {"kink"}

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        count = {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in VERDICTS}
        told = f"{count['ok']} ok, {count['FAIL']} wrong, {count['kink']} on a kink"
        lines = [f"{self.name}: {'passed' if self.passed else 'FAILED'} ({told})"]
        lines += [f"  problem: {problem}" for problem in self.problems]
        if any(row.verdict == "FAIL" and row.where.startswith("direction") for row in self.rows):
            lines.append("  mode='full' names the elements that are wrong")
        if count["kink"]:
            rest = "" if count["ok"] else "; nothing else was compared: move the inputs away from ties and corners"
            lines.append(f"  kink: the slopes left and right of it differ, so no gradient is right or wrong{rest}")
        worst = sorted(self.rows, key=lambda row: (VERDICTS.index(row.verdict), -row.ratio))
        lines += _table([GradRow._fields, *(_as_text(row) for row in worst[:SHOWN])])
        if len(worst) > SHOWN:
            lines.append(f"  ... and {len(worst) - SHOWN} rows more, none of them worse")
        return "\n".join(lines)


def _as_text(row: GradRow) -> tuple[str, ...]:
    return (*row[:4], *(f"{number: .6e}" for number in row[4:6]), *(f"{number:.1e}" for number in row[6:]))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    if len(rows) < 2:
        return []
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
