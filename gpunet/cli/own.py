"""A user's own file of kernels: importing it, its part of ``gpunet check``, its part of ``gpunet bench``."""

import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpunet import devices, dispatch
from gpunet.cli.tools import UsageError
from gpunet.dispatch import Kernel
from gpunet.errors import ArgumentError, BackendUnavailableError

WORDS = {"faster": "faster than", "slower": "slower than", "same": "as fast as", "unsure": "not told apart from"}


def import_kernels(name: str, command: str) -> list[Kernel]:
    """Imports a user's file and returns the kernels that it registered; on an error none of them stays registered.

    Args:
        name: the file.
        command: who asks, for the messages.

    Raises:
        UsageError: there is no such file.
        ArgumentError: it raises, registers nothing, or holds a launcher that cannot be called as its entry is.
    """
    from gpunet.measure import own

    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise UsageError(f"{command}: must be given an op, or a Python file with kernels, got {name!r}")
    before = set(_registered())
    with _undone_on_error(before):
        _run(path, command)
        found = [each for each in _registered() if each not in before and Path(each.file) == path.resolve()]
        if not found:
            remedy = "decorate a launcher with @gn.kernel(...)"
            raise ArgumentError(f"{command}: {name} must register a kernel, got none; {remedy}")
        for each in found:
            try:
                own.need_signature(each)
            except ArgumentError as error:
                raise ArgumentError(f"{command}: {error}") from None
    return sorted(found, key=lambda each: each.line)


def _registered() -> list[Kernel]:
    return [each for table in dispatch._registry.values() for each in table.values()]


def _run(path: Path, command: str) -> None:
    """Runs the file as a module, with its folder on the path as Python has it for a script."""
    name = f"_own_{path.stem}"  # a file of the user's may be called json.py
    path = path.resolve()
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        places = [each.lineno for each in traceback.extract_tb(error.__traceback__) if each.filename == str(path)]
        where = f" at line {places[-1]}" if places else ""
        told = one_line(f"{type(error).__name__}: {error}")
        raise ArgumentError(f"{command}: {path.name} must run when imported, got {told}{where}") from error
    finally:
        sys.path.remove(str(path.parent))


@contextmanager
def _undone_on_error(before: set[Kernel]) -> Iterator[None]:
    """Takes out the kernels that came in since, should the block raise."""
    try:
        yield
    except BaseException:
        for table in dispatch._registry.values():
            for each in [each for each in table.values() if each not in before and "/kernels/" not in each.file]:
                del table[each.variant]
        dispatch._choices.clear()
        dispatch._fusions.clear()
        raise


def one_line(reason: str) -> str:
    """A reason in one line: of a compiler's report the line with the first error, or its beginning and the place."""
    head, *rest = re.split(r"\s*\n\s*", reason.strip())
    errors = [line for line in rest if re.search(r"\berror\b", line)]
    places = [line for line in rest[1:] if re.search(r"\bline \d+", line)]
    return " ".join([head, *(errors[:1] or [*rest[:1], *places[:1]])])


# ------------------------------------------------------------------------------------------------------------- check


def check_rows(session: Any, mine: Sequence[Kernel]) -> list[dict[str, Any]]:
    """Proves the kernels; a row for each on each device, and for each that runs nowhere here."""
    from gpunet.measure import own

    trials = own.prove(session, mine)
    rows = [_row(each) for each in trials]
    tried = {each.kernel.name for each in trials}
    return rows + [_cannot(each) for each in mine if each.name not in tried]


def _row(trial: Any) -> dict[str, Any]:
    kernel = trial.kernel
    names = (kernel.entry, str(trial.device), kernel.backend, kernel.variant)
    row = summary(names, trial.values)
    inside = summary(names, trial.gradients)
    if row["status"] == "passed" and inside["status"] != "passed":
        row |= {"status": inside["status"], "reason": f"gradient, {inside['reason']}"}
    kept = ("status", "proofs", "refused", "failed", "reached", "allowed", "reason")
    row["gradient"] = {name: inside[name] for name in kept} if trial.gradients else None
    return row


def summary(key: Sequence[str], proofs: Sequence[Any]) -> dict[str, Any]:
    """All proofs of one kernel in a row."""
    bad = [each for each in proofs if each.status in ("failed", "untested")]
    shares = [each for each in proofs if each.reached is not None and each.allowed]
    worst = max(shares, key=lambda each: each.reached / each.allowed, default=None)
    where = f"{bad[0].size} {bad[0].dtype}".strip() if bad else ""
    reason = one_line(bad[0].reason) if bad else ""
    return {
        "entry": key[0], "device": key[1], "backend": key[2], "variant": key[3],
        "status": bad[0].status if bad else "passed",
        "proofs": len(proofs), "refused": sum(each.status == "refused" for each in proofs), "failed": len(bad),
        "reached": worst.reached if worst else None, "allowed": worst.allowed if worst else None,
        "reason": f"{where}: {reason}" if where else reason,
    }  # fmt: skip


def _cannot(kernel: Kernel) -> dict[str, Any]:
    """The row of a kernel whose backend took no part."""
    row = summary((kernel.entry, "", kernel.backend, kernel.variant), [])
    reason = f"its backend does not run where the check ran; {why_nowhere(kernel)}"
    return {**row, "status": "untested", "reason": reason, "gradient": None}


def why_nowhere(kernel: Kernel) -> str:
    """For each device of the kernel's backend, why it does not run there."""
    record = devices.backend(kernel.backend)
    places = {kind: devices._named(kind).why_not() or record.why_not(kind) for kind in record.devices}
    return "; ".join(f"{kind}: {reason or 'not asked for'}" for kind, reason in places.items())


# ------------------------------------------------------------------------------------------------------------- bench


def need_lanes(session: Any, mine: Sequence[Kernel]) -> None:
    """Refuses kernels none of which can be timed here; notes those that cannot beside others.

    Raises:
        BackendUnavailableError: no kernel's backend runs on a device that may be timed.
    """
    backends = {lane.backend for lane in session.lanes}
    without = [each for each in mine if each.backend not in backends]
    for each in without:
        record = devices.backend(each.backend)
        reasons = [f"{kind}: {record.why_not(kind) or 'not asked for'}" for kind in record.devices if kind != "sim"]
        told = f"{each.name} must run on a device to be timed; {'; '.join(reasons)}"
        told += "; `gpunet check` proves it on sim" if "sim" in record.devices else ""
        if len(without) == len(mine):
            raise BackendUnavailableError(f"bench: {told}")
        session.note(told)


def only(session: Any, mine: Sequence[Kernel], ops: Sequence[str]) -> None:
    """Keeps entries from being timed that the files have no kernel for, unless their op was named too."""
    entries = {each.entry for each in mine}
    for op in {each.op for each in mine} - set(ops):
        unwanted = [each for each in dispatch.list_kernels(op) if each.entry not in entries]
        session.wrong.update((each.name, str(lane.device)) for each in unwanted for lane in session.lanes)


def show_ratios(session: Any) -> None:
    """Prints how the user's kernels stand beside the others."""
    from rich.markup import escape
    from rich.table import Table

    from gpunet.measure import tables

    ratios = session.report.ratios
    if not ratios:
        return
    title = "yours beside the project's, timed in turns: how many times as fast, with its 95 % interval"
    table = Table(title=title, title_justify="left")
    for name in ("size", "yours", "beside"):
        table.add_column(name, overflow="fold")
    for name in ("yours", "other", "as fast", "interval", "pairs", ""):
        table.add_column(name, justify="right")
    for each in ratios:
        names = (each.size, f"{each.entry} {each.backend}/{each.variant}", each.peer)
        times = (tables.seconds_text(each.ours), tables.seconds_text(each.theirs))
        interval = f"{each.low:.2f} to {each.high:.2f}"
        table.add_row(*map(escape, names), *times, f"{each.ratio:.2f}x", interval, str(each.n), each.verdict)
    session.screen.print(table)
    for line in standings(session.report):
        session.screen.print(line, markup=False)


def standings(report: Any) -> list[str]:
    """Where each of the user's kernels stands among those it was timed beside, a line for each size."""
    lines = []
    rows = {_key(each): each for each in report.rows}
    for key in dict.fromkeys(map(_key, report.ratios)):
        against: dict[str, list[str]] = {verdict: [] for verdict in WORDS}
        for each in report.ratios:
            if _key(each) == key:
                against[each.verdict].append(each.peer)
        row = rows[key]
        told = [f"{word} {_listed(against[verdict])}" for verdict, word in WORDS.items() if against[verdict]]
        share = f"{row.roof_percent:.0f} % of the {row.bound} roof"
        name = f"{row.entry}/{row.backend}/{row.variant} on {row.device}, {row.size} {row.dtype}"
        place = 1 + len(against["slower"])
        lines.append(f"{name}: place {place} of {1 + sum(map(len, against.values()))}; {'; '.join(told)}; {share}")
    return lines


def _listed(names: Sequence[str]) -> str:
    return ", ".join(each.removesuffix(", the definition") for each in names)


def _key(row: Any) -> tuple[str, ...]:
    return row.entry, row.phase, row.size, row.dtype, row.device, row.backend, row.variant
