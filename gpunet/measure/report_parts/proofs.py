"""Proofs: how many passed on each lane, and for every kernel its largest error beside what was allowed there."""

from collections.abc import Sequence
from html import escape

from gpunet.measure import tables
from gpunet.measure.frame import finite, positive
from gpunet.measure.report_parts import pieces
from gpunet.measure.rows import Proof, Report

WORDS = ("passed", "failed", "untested", "refused")


def section(report: Report) -> str:
    """Counts by lane, then the error of every kernel."""
    if not report.proofs:
        return ""
    counts = [
        (escape(lane), *(_count(word, table[word]) for word in WORDS))
        for lane, table in tables.proof_counts(report.proofs).items()
    ]
    groups: dict[tuple[str, str, str], list[Proof]] = {}
    for each in report.proofs:
        groups.setdefault((each.entry, tables.lane_of(each), each.variant), []).append(each)
    heads = ("kernel, and its worst case", "passed", "error", "allowed", "share")
    rows = pieces.table(heads, [_cells(key, each) for key, each in groups.items()], 4)
    return (
        f"{pieces.table(('where', *WORDS), counts, 4)}"
        f"<details open><summary>The largest error of every kernel</summary>{rows}</details>"
    )


def _count(word: str, count: int) -> str:
    return pieces.mark(False, str(count)) if count and word in ("failed", "untested") else str(count)


def _cells(key: tuple[str, str, str], proofs: Sequence[Proof]) -> list[str]:
    counted = [each for each in proofs if each.status != "refused"]
    passed = sum(each.status == "passed" for each in counted)
    bits = [each.deterministic for each in counted if each.deterministic is not None]
    entry, lane, variant = key
    about = pieces.joined(lane, variant, "same bits" if bits and all(bits) else "", by=", ")
    found = worst(counted)
    worst_case = f"worst: {pieces.joined(found.dtype, found.size, by=', ')}" if found else ""
    lines = [escape(entry), pieces.soft(pieces.joined(about, worst_case, by="; "))]
    lines += [pieces.mark(False, _wrong(each)) for each in counted if each.status != "passed"]
    return [
        "<br>".join(lines),
        pieces.mark(passed == len(counted), f"{passed} of {len(counted)}"),
        pieces.number(found.reached if found else None, ".1e"),
        pieces.number(found.allowed if found else None, ".1e"),
        _share_text(_share(found)) if found else pieces.NONE,
    ]


def worst(proofs: Sequence[Proof]) -> Proof | None:
    """The proof whose error comes nearest to its bound, or goes farthest beyond it; None if none has both."""
    known = [each for each in proofs if finite(each.reached) and positive(each.allowed)]
    return max(known, key=_share, default=None)


def _share(each: Proof) -> float:
    return (each.reached or 0.0) / (each.allowed or 1.0)


def _wrong(each: Proof) -> str:
    return f"{pieces.joined(each.size, each.dtype)}: {each.reason}"


def _share_text(share: float) -> str:
    return "0 %" if share == 0 else "&lt; 0.1 %" if share < 1e-3 else f"{100 * share:.2g} %"
