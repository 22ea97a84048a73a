"""What a run prints at its end: one table of times, then what was proved, trained and left out, and the verdict."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from gpunet.measure import break_even
from gpunet.measure.curves import BreakEven, Step, Sweep
from gpunet.measure.rows import Curve, Proof, Report, Row


def seconds_text(value: float | None) -> str:
    """Seconds in the unit that suits them, three digits."""
    if value is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def lane_of(row: Row | Proof) -> str:
    """Device and backend of a row, and the threads where they were told apart."""
    count = row.threads if isinstance(row, Row) else 0
    return f"{row.device} {row.backend}" + (f", {count} thread{'s' if count > 1 else ''}" if count else "")


def lanes(rows: Sequence[Row | Proof]) -> list[str]:
    """The lanes of some rows, in the order they appear."""
    return list(dict.fromkeys(lane_of(each) for each in rows))


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str, str, str, str], list[Row]]:
    """Rows by what they compute: (op, size, dtype, phase, entry)."""
    groups: dict[tuple[str, str, str, str, str], list[Row]] = {}
    for each in rows:
        groups.setdefault((each.op, each.size, each.dtype, each.phase, each.entry), []).append(each)
    return groups


def show(screen: Any, report: Report) -> None:
    """Prints what a run found."""
    if report.rows:
        screen.print(times(report.rows))
    if report.ratios:
        from gpunet.measure import beside

        for line in beside.mean_lines(report):
            screen.print(line, markup=False)
    for line in break_even_lines(report):
        screen.print(line, markup=False)
    if report.steps:
        screen.print(steps(report.steps))
    for line in proof_lines(report.proofs):
        screen.print(line, markup=False)
    for each in report.training:
        screen.print(curve_line(each), markup=False)
    for line in target_lines(report.training):
        screen.print(line, markup=False)
    for each in report.agreement:
        screen.print(
            f"losses of {each.first} and {each.second}: apart by {each.early:.1e} in the first ten steps, "
            f"{each.overall:.1e} in all {each.steps}"
        )
    for line in absent_lines(report.environment):
        screen.print(line, markup=False, style="dim")
    for note in report.notes:
        screen.print(f"note: {note}", markup=False, style="dim")
    for line in report.failed:
        screen.print(f"FAILED {line}", markup=False, style="bold red")
    screen.print(verdict(report), markup=False, style="bold red" if report.failed else "bold green")


def absent_lines(environment: dict[str, Any]) -> list[str]:
    """Why the other backends took no part, a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for place in environment.get("devices", []):
        for each in place["backends"]:
            if not each["runs"]:
                reasons.setdefault(f"cannot run: {each['reason']}", []).append(f"{place['name']} {each['name']}")
            elif not each["kernels"]:
                told = "can run, and this version has no kernels for it"
                reasons.setdefault(told, []).append(f"{place['name']} {each['name']}")
    return [f"{', '.join(names)} {reason}" for reason, names in reasons.items()]


def times(rows: Sequence[Row]) -> Any:
    """The table of times: a line for what is computed, a column for each lane."""
    from rich.markup import escape
    from rich.table import Table

    columns = lanes(rows)
    table = Table(title="median time of a call, with half the distance of its 95 % interval", title_justify="left")
    for name in ("op", "size", "entry"):
        table.add_column(name, overflow="fold")
    for name in (*columns, "GFLOP/s", "GB/s", "% of roof"):
        table.add_column(name, justify="right")
    last = ("", "")
    for (op, size, dtype, *_), group in grouped(rows).items():
        best = {lane: min((r for r in group if lane_of(r) == lane), key=_median, default=None) for lane in columns}
        fastest = min(group, key=_median)
        name = size if dtype == "float32" else f"{size} {dtype}"
        shown = ("" if last[0] == op else op, "" if last == (op, name) else name)
        last = (op, name)
        rates = (f"{fastest.gflops:.3g}", f"{fastest.gbytes:.3g}", roof_text(fastest))
        table.add_row(*shown, escape(short_entry(fastest)), *(time_text(each) for each in best.values()), *rates)
    return table


def _median(row: Row) -> float:
    return row.time.median


def short_entry(row: Row) -> str:
    """The entry without the op's name in front; an op's own forward entry at work in backward is called so."""
    name = row.entry.removeprefix(f"{row.op}.")
    return name.replace("forward", "backward", 1) if row.phase == "backward" and name.startswith("forward") else name


def time_text(row: Row | None) -> str:
    """Median and half the width of its interval."""
    if row is None:
        return "-"
    half = 50 * (row.time.high - row.time.low) / (row.time.median or 1.0)
    return f"{seconds_text(row.time.median)} ±{half:.0f}%"


def roof_text(row: Row) -> str:
    """Percent of the roof, and which roof."""
    return f"{row.roof_percent:.0f} {row.bound}" + (" IMPOSSIBLE" if row.impossible else "")


def proof_counts(proofs: Sequence[Proof]) -> dict[str, Counter[str]]:
    """Lane -> status -> how many; the checks of the definition's gradients have a lane of their own."""
    counts: dict[str, Counter[str]] = {}
    for each in proofs:
        lane = "gradients by central differences" if each.phase == "gradient" else lane_of(each)
        counts.setdefault(lane, Counter())[each.status] += 1
    return counts


def proof_lines(proofs: Sequence[Proof]) -> list[str]:
    """One line a lane: how many proofs, how many passed."""
    lines = []
    for lane, counts in proof_counts(proofs).items():
        rest = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "passed")
        lines.append(f"proofs, {lane}: {counts['passed']} passed" + (f", {rest}" if rest else ""))
    return lines


def curve_line(curve: Curve) -> str:
    """One training run in a line."""
    if not curve.losses:
        return f"training, {curve.lane}: no step was made"
    ended = f"; ended early: {curve.stopped}" if curve.stopped else ""
    first, last = curve.losses[0], curve.losses[-1]
    return (
        f"training, {curve.lane}: {curve.epochs:.2g} epochs of {curve.train_images} images, "
        f"{curve.images_per_second:.0f} images/s, {curve.seconds_per_epoch:.3g} s an epoch, loss {_loss(first)} to "
        f"{_loss(last)}, {100 * (curve.accuracy or 0):.1f} % of {curve.test_images} test images right{ended}"
    )


def _loss(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3f}"


def verdict(report: Report) -> str:
    """The run in one sentence."""
    passed = sum(each.status == "passed" for each in report.proofs)
    done = f"{passed} proofs passed, {len(report.rows)} rows timed"
    if report.failed:
        return f"{done}; {len(report.failed)} failed"
    if not report.complete:
        return f"{done}; the run was interrupted"
    return f"{done}; none failed, none is impossible"


# ------------------------------------------------------------------------------- sweeps, steps, time to an accuracy


def sweeps(found: Sequence[Sweep]) -> Any:
    """The table of sweeps: a line for each entry and lane, with the smallest, a middle and the largest size."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="median time of a call over sizes, with the size N", title_justify="left")
    for name in ("entry", "lane", "smallest", "middle", "largest", "with copies"):
        table.add_column(name, overflow="fold", justify="left" if name in ("entry", "lane") else "right")
    last = ""
    for each in found:
        if not each.points:
            continue
        chosen = [each.points[k] for k in (0, len(each.points) // 2, -1)]
        cells = [f"{seconds_text(point.median)} at {break_even.size_text(point.n)}" for point in chosen]
        entry = each.entry if each.dtype == "float32" else f"{each.entry} {each.dtype}"
        copied = seconds_text(chosen[-1].copied) if chosen[-1].copied is not None else "-"
        table.add_row("" if entry == last else escape(entry), escape(_lane_of_sweep(each)), *cells, copied)
        last = entry
    return table


def _lane_of_sweep(sweep: Sweep) -> str:
    day = sweep.time.partition("T")[0] or "on an unknown day"
    return break_even.lane_name(sweep) + (f", {sweep.machine}, {day}" if sweep.machine else "")


def break_even_lines(report: Report) -> list[str]:
    """What to conclude of the sweeps: a sentence each, and one for all entries where two lanes are not surely apart.

    Numbers of threads against each other are left to the page.
    """
    found = [each for each in report.break_even if each.near.partition(" on ")[0] != each.far.partition(" on ")[0]]
    axes = {each.op: each.axis for each in report.sweeps}
    lines = [each.words for each in found if not _alike(each)]
    groups: dict[tuple[str, str], list[str]] = {}
    for each in found:
        if _alike(each):
            entry = f"{each.entry} with copies" if each.copies else each.entry
            groups.setdefault((each.near, each.far), []).append(entry)
    lines += [f"{a} and {b} are not surely apart at any size tried: {', '.join(of)}" for (a, b), of in groups.items()]
    named = [f"{op}: {axis}" for op, axis in axes.items() if any(each.op == op for each in found)]
    return [*lines, f"N is, for {'; '.join(named)}"] if lines else []


def _alike(found: BreakEven) -> bool:
    """Whether neither lane is surely faster at any size."""
    return found.low is None and found.high is None and "not surely apart" in found.words


def steps(found: Sequence[Step]) -> Any:
    """The table of training steps: a line for each network and lane, a column for each part."""
    from rich.markup import escape
    from rich.table import Table

    parts = tuple(dict.fromkeys(each.part for each in found))
    table = Table(title="training steps: median, with half the distance of its 95 % interval", title_justify="left")
    for name in ("network", "lane", "threads"):
        table.add_column(name)
    for name in parts:
        table.add_column(name, justify="right")
    groups: dict[tuple[str, str, int], dict[str, Step]] = {}
    for each in found:
        groups.setdefault((each.model, each.lane, each.threads), {})[each.part] = each
    for (model, lane, threads), of in groups.items():
        count = str(threads or "all") if next(iter(of.values())).device == "cpu" else "-"
        batch = next(iter(of.values())).batch_size
        cells = (_step_text(of.get(part)) for part in parts)
        table.add_row(escape(f"{model}, batch {batch}"), escape(lane), count, *cells)
    return table


def _step_text(step: Step | None) -> str:
    if step is None:
        return "-"
    half = 50 * (step.high - step.low) / (step.median or 1.0)
    return f"{seconds_text(step.median)} ±{half:.0f}%"


def target_lines(curves: Sequence[Curve]) -> list[str]:
    """How long each training run took to its target: a line for each target.

    Example:
        >>> from gpunet.measure import tables
        >>> from gpunet.measure.rows import Curve
        >>> curve = Curve("cpu", "cpu", [], [1.0], 0.8, 1.0, 32, 1, 1, 1.0, 1.0, "", target=0.7, seconds_to_target=3.14)
        >>> tables.target_lines([curve])
        ['to 70 % right: cpu 3.1 s']
    """
    from gpunet.measure import training

    return training.words(curves)
