"""What runs on other machines have recorded, shown beside this one: rows and sweeps of GPUs from bench/results/.

Any file there that :meth:`gpunet.measure.rows.Report.write` wrote counts. Everything that comes from one carries its
machine and its time; two machines are never compared without both being named.
"""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

from gpunet.errors import DataError
from gpunet.measure import break_even, rows
from gpunet.measure.curves import BreakEven, Sweep
from gpunet.measure.rows import Report, Row
from gpunet.measure.session import Session


class Run(NamedTuple):
    """One recorded run."""

    machine: str
    """Its GPUs, or its processor if it knows none."""
    time: str
    """When it was, as its environment has it; empty if it does not say."""
    report: Report


def folders() -> list[Path]:
    """Where recorded runs may lie: ``results`` in each folder of gpunet.bench."""
    return [Path(each) / "results" for each in importlib.import_module("gpunet.bench").__path__]


def load(places: Sequence[Path] | None = None) -> tuple[list[Run], list[str]]:
    """The recorded runs, by name of file, and a line for each file that could not be read.

    Args:
        places: folders; None for those of gpunet.bench. One that is not there has no runs.
    """
    found, notes = [], []
    for file in sorted(path for each in (folders() if places is None else places) for path in each.glob("*.json")):
        try:
            report = rows.read(file)
        except (DataError, OSError) as error:
            notes.append(f"recorded run left out: {str(error).replace(str(file), file.name)}")
            continue
        found.append(Run(_machine(report), str(report.environment.get("time") or ""), report))
    return found, notes


def _machine(report: Report) -> str:
    names = [each.get("name", "") for each in report.environment.get("gpus") or ()]
    return ", ".join(dict.fromkeys(filter(None, names))) or str(
        (report.environment.get("processor") or {}).get("model") or "an unnamed machine"
    )


def beside(session: Session, places: Sequence[Path] | None = None) -> None:
    """Puts into the report what recorded runs have for the same work: rows, sweeps, and break-even sizes with them.

    Args:
        session: a run whose own rows and sweeps are there.
        places: as in :func:`load`.
    """
    runs, notes = load(places)
    for note in notes:
        session.note(note)
    report = session.report
    wanted = {_key(row) for row in report.rows}
    report.recorded += [
        {"machine": run.machine, "time": run.time, "row": asdict(row)}
        for run in runs
        for row in _best(row for row in run.report.rows if row.device.startswith("cuda") and _key(row) in wanted)
    ]
    mine = [each for each in report.sweeps if not each.machine]
    theirs = [each for run in runs for each in _sweeps(run) if any(_same_axis(each, own) for own in mine)]
    report.sweeps += theirs
    report.break_even += _break_even(mine, theirs)


def _key(row: Row) -> tuple[Any, ...]:
    """What two runs must share to have done the same work: the flags that tell calls of one entry apart are in params.

    A run of the ladder alone labels an entry without its flags and counts its phases otherwise: neither takes part.
    """
    shapes = tuple(tuple(each) for each in row.shapes)
    flags = tuple(sorted(name for name, value in row.params.items() if value is True))
    return row.op, row.entry.partition(" (")[0], row.size, row.dtype, shapes, flags


def _best(found: Iterator[Row]) -> list[Row]:
    """Of each backend on each device the fastest rung: a run of the ladder has many."""
    best: dict[tuple[Any, ...], Row] = {}
    for row in found:
        key = (*_key(row), row.device, row.backend)
        if key not in best or row.time.median < best[key].time.median:
            best[key] = row
    return list(best.values())


def _sweeps(run: Run) -> list[Sweep]:
    """A run's own sweeps on GPUs, marked with its machine and time."""
    return [
        replace(each, machine=run.machine, time=run.time)
        for each in run.report.sweeps
        if each.device.startswith("cuda") and not each.machine
    ]


def _same_axis(one: Sweep, other: Sweep) -> bool:
    names = ("op", "entry", "dtype", "axis")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _break_even(mine: Sequence[Sweep], theirs: Sequence[Sweep]) -> list[BreakEven]:
    """This machine's processor, on all threads, against the recorded GPUs, without and with copies."""
    found = [
        break_even.find(host, gpu, copies)
        for gpu in theirs
        for host in mine
        if host.device == "cpu" and host.threads == 0 and _same_axis(host, gpu)
        for copies in (False, True)
        if not copies or any(each.copied is not None for each in gpu.points)
    ]
    return [each for each in found if each is not None]


__all__ = ["Run", "beside", "folders", "load"]
