"""Breaks the CUDA C++ kernels on purpose, one change at a time, and looks whether the proof without a GPU notices.

    python tests/mutants_cuda.py [FILE ...] [--each N] [--workers N]

FILE is a name from BUILDS ("relu", "conv2d/winograd"), or "common" for what they include; none means all. Of each
kernel and each device function N faults are tried, of as many kinds as there are (tests/mutants_cuda_faults.py); 0
tries every one. A fault is put into the text that the launchers load, every other kernel of the file is emptied, and
the launchers run on the calls that tests/cases.py makes of their entries, and on :data:`EXTRA`, in several orders of
threads.

A fault counts as caught when the emulator reports something, when a result is outside its tolerance, when the text
does not compile, or when the kernel does not end. What nothing notices is printed with its line; what changes no
result is listed in :data:`EQUIVALENT`, each with its reason.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gpunet import dispatch  # noqa: E402 the checkout comes first
from gpunet.config import settings  # noqa: E402
from gpunet.cuda import emulator, launch, store  # noqa: E402
from gpunet.cuda.emulator import build  # noqa: E402
from gpunet.cuda.source import Source  # noqa: E402
from gpunet.dispatch import Call, Kernel  # noqa: E402
from gpunet.errors import CompileError, EmulatorError  # noqa: E402
from gpunet.measure.resources import builds  # noqa: E402
from tests.cases import CASES  # noqa: E402
from tests.mutants_cuda_faults import Fault, File, chosen  # noqa: E402
from tests.mutants_cuda_known import EQUIVALENT, EXTRA, SMALL  # noqa: E402
from tests.mutants_cuda_text import active_lines, blanked  # noqa: E402
from tests.mutants_table import table  # noqa: E402
from tests.processes import scatter  # noqa: E402
from tests.product import calls, definition, takes  # noqa: E402
from tests.tolerances import assert_within  # noqa: E402

EACH = 1  # faults of one kernel or device function
#: orders of threads in which the calls of a dtype are run; float64 shows what float32's tolerance hides
ROUNDS = {"float32": (0, 1), "float64": (0,)}
LIMIT = 4_000_000  # memory accesses of one thread; honest ones make a hundredth of that here
SECONDS = 20  # of processor time beyond what the right kernel takes; then it counts as endless
COMMON = "common"
CONTROL = "no fault"  # one of each file: its text goes the same way, and nothing must be noticed
#: what a whole run must make: as many kinds of faults, as many faults
KINDS, FAULTS = 12, 150
HOW = ("report", "wrong", "refused", "endless", "crash")


@dataclass(frozen=True, eq=False)
class Check:
    """One rung on one call, with the kernels it launched."""

    kernel: Kernel
    call: Call
    wanted: Any
    seconds: float
    uses: frozenset[tuple[str, str]]
    """(file, kernel) of each launch."""


@dataclass(frozen=True, eq=False)
class Mutant:
    """One fault of one file, and the checks that can see it."""

    file: str
    fault: Fault
    line: int
    source: str
    """The line, as the file has it."""
    change: str
    texts: dict[str, str] = field(repr=False)
    """File -> what stands there now."""
    checks: list[Check] = field(repr=False)

    @property
    def kind(self) -> str:
        return self.fault.kind

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.change}    in: {' '.join(self.source.split())}"


# -- the launchers, with exchanged text -------------------------------------------------------------------------------


class Shelf:
    """Stands in for the cache of loaded files: it can hand out other text, and notes which kernels are launched."""

    def __init__(self):
        self.modules: dict[Any, launch.Module] = {}
        self.texts: dict[str, str] = {}
        self.launched: set[tuple[str, str]] = set()

    def load(self, name: str, fma: bool, specific: bool, defines: tuple[tuple[str, object], ...]) -> launch.Module:
        key = (name, fma, specific, defines)
        if key not in self.modules:
            module = self.modules[key] = _Noting(self, name, dict(defines), fma, specific)
            _ = module.source.signatures  # of the right text
            changed = {each: text for each, text in self.texts.items() if each in module.source.included}
            module.source = _Exchanged(module.source, self.texts.get(name), changed)
        return self.modules[key]


class _Exchanged(Source):
    """A kernel file with other text, and with other text in what it includes."""

    def __init__(self, right: Source, text: str | None, headers: dict[str, str]):
        self.__dict__.update(right.__dict__)
        self.text = right.text if text is None else text
        self.__dict__["included"] = {**right.included, **headers}  # part of its name in the cache
        self.headers = store.folder("headers") / store.key(*headers.values())
        for name, each in headers.items():
            (self.headers / name).parent.mkdir(parents=True, exist_ok=True)
            (self.headers / name).write_text(each)

    @property
    def includes(self) -> list[Path]:
        return [self.headers, *super().includes]


class _Noting(launch.Module):
    def __init__(self, shelf: Shelf, name: str, defines: dict[str, object], fma: bool, specific: bool):
        super().__init__(name, defines, fma, specific)
        self.shelf, self.name = shelf, name

    def __getattr__(self, name: str) -> launch.Kernel:
        kernel = super().__getattr__(name)
        self.__dict__.pop(name)  # so that the next launch comes by here too
        self.shelf.launched.add((self.name, name))
        return kernel


SHELF = Shelf()


def prepare() -> None:
    """What all processes share: the exchangeable launchers, poisoned outputs, the compiled runtime."""
    launch._loaded = SHELF.load  # type: ignore[assignment]
    settings.poison = True
    emulator.options.limit = LIMIT
    build.runtime()
    for (launchers, name), value in SMALL.items():
        module = importlib.import_module(f"gpunet.kernels.{launchers}_cupy")
        assert hasattr(module, name), f"{launchers}_cupy.py has no {name} any more; take it out of SMALL"
        setattr(module, name, value)


# -- what the right kernels do ----------------------------------------------------------------------------------------


@cache
def all_calls() -> dict[str, list[Call]]:
    """Op -> every call of its entries that a case makes, float32 first."""
    found: dict[str, list[Call]] = defaultdict(list)
    for dtype in ROUNDS:
        for case in (*CASES, *EXTRA):
            with np.errstate(over="ignore"):  # what is huge in float64 is infinite in float32
                for call in calls(case, dtype):
                    found[call.entry.partition(".")[0]].append(call)
    return found


def baseline(op: str) -> list[tuple[str, str, int, Any, float, frozenset[tuple[str, str]]]] | str:
    """Of every rung of the op on every call that it takes: what a check is made of; or what is wrong with it."""
    found = []
    for number, call in enumerate(all_calls()[op]):
        wanted = definition(call)
        for kernel in dispatch.variants(call.entry, "cupy"):
            SHELF.launched.clear()
            begin = time.process_time()
            try:
                if not takes(kernel, call):
                    continue
                for seed in ROUNDS[dtype_of(call)]:
                    emulator.options.seed = seed
                    run(kernel, call, wanted)
            except Exception as error:
                return f"{kernel} is wrong before it is changed: {type(error).__name__}: {error}"
            spent = time.process_time() - begin
            found.append((call.entry, kernel.variant, number, wanted, spent, frozenset(SHELF.launched)))
    return found


def dtype_of(call: Call) -> str:
    """The dtype of its floating-point arrays."""
    return next((each.dtype.name for each in call.arrays if each is not None and each.dtype.kind == "f"), "float32")


def run(kernel: Kernel, call: Call, wanted: Any) -> None:
    """Raises where the rung does not give what the definition gives."""
    with np.errstate(all="ignore"):
        result = kernel.function(*call.arrays, **call.params)
    assert_within(result, wanted, call, "")


def judge(mutant: Mutant) -> tuple[str, str]:
    """How the fault is noticed, and by what: ("", "") where it is not."""
    SHELF.modules.clear()
    SHELF.texts = mutant.texts
    try:
        _run_all(mutant)
    except EmulatorError as error:
        return "report", error.kind
    except CompileError as error:
        return "refused", str(error)
    except Exception as error:  # a wrong result, or whatever else the launcher raises
        return "wrong", f"{type(error).__name__}: {error}"
    return "", ""


def _run_all(mutant: Mutant) -> None:
    for dtype, seeds in ROUNDS.items():
        for seed in seeds:
            emulator.options.seed = seed
            for check in mutant.checks:
                if dtype_of(check.call) == dtype:
                    run(check.kernel, check.call, check.wanted)


class Workshop:
    """All files with their checks."""

    def __init__(self, names: list[str], workers: int):
        known = {each.name: each for each in reversed(builds())}
        unknown = set(names) - set(known) - {COMMON}
        if unknown:
            raise SystemExit(f"no kernel file {', '.join(unknown)}; there are: {', '.join([*known, COMMON])}")
        wanted = [name for name in known if not names or name in names or COMMON in names]
        self.files: dict[str, File] = {}
        self.headers: dict[str, File] = {}
        for name in wanted:
            source = known[name].source
            active = active_lines(source)
            self.files[name] = File(name, source.path, active[source.path.name])
            for header in source.included:
                path = ROOT / "kernels" / header
                file = self.headers.setdefault(header, File(header, path, set()))
                file.active |= active[path.name]
        self.wanted = [each for each in self.files.values() if not names or each.name in names]
        if not names or COMMON in names:
            self.wanted += self.headers.values()
        self.broken: list[str] = []
        all_calls()  # once, before processes part
        self.checks = list(self._checks(sorted({name.partition("/")[0] for name in self.files}), workers))
        self.checks.sort(key=lambda check: check.seconds)

    def _checks(self, ops: list[str], workers: int) -> Iterator[Check]:
        for op, found in scatter(baseline, ops, workers, lambda _: 600):
            if not isinstance(found, list):
                self.broken.append(found if isinstance(found, str) else f"{op}: the right kernels do not end")
                self.wanted = [file for file in self.wanted if file.name.partition("/")[0] != op]
                continue
            for entry, variant, number, wanted, seconds, uses in found:
                kernel = next(each for each in dispatch.variants(entry, "cupy") if each.variant == variant)
                yield Check(kernel, all_calls()[op][number], wanted, seconds, uses)

    def mutants(self, each: int) -> Iterator[Mutant]:
        for file in self.wanted:
            if any(file.name == name for check in self.checks for name, _ in check.uses):
                yield self.control(file)
            for fault in chosen(file, each):
                mutant = self.mutant(file, fault)
                if mutant.checks or file.name not in self.headers:  # what nobody uses yet, nobody can prove
                    yield mutant

    def control(self, file: File) -> Mutant:
        """No fault, on all checks of the file."""
        checks = [check for check in self.checks if any(name == file.name for name, _ in check.uses)]
        keep = {kernel for check in checks for name, kernel in check.uses if name == file.name}
        nothing = Fault(file.units[0], CONTROL, 0, 0, "")
        return Mutant(file.name, nothing, 0, "", "", {file.name: blanked(file.text, keep)}, checks)

    def mutant(self, file: File, fault: Fault) -> Mutant:
        if file.name in self.headers:
            texts, checks = self._through_header(file, fault)
        else:
            kernels = {(file.name, name) for name in file.users({fault.unit.name})}
            checks = [check for check in self.checks if check.uses & kernels]
            keep = {name for check in checks for one, name in check.uses if one == file.name}
            texts = {file.name: blanked(file.changed(fault), keep)}
        old = " ".join(file.text[fault.begin : fault.end].split())
        line = file.line(fault)
        source = file.text.splitlines()[line - 1]
        return Mutant(file.name, fault, line, source, f"{old} -> {fault.new.strip()}", texts, checks)

    def _through_header(self, header: File, fault: Fault) -> tuple[dict[str, str], list[Check]]:
        """The three files with the cheapest checks stand for all that use the function."""
        names: set[str] = set()
        more = {fault.unit.name}
        while more - names:
            names |= more
            more = set().union(*(each.users(names) for each in self.headers.values()))
        reach = {(name, user) for name, file in self.files.items() for user in file.users(names) - names}
        found = [check for check in self.checks if check.uses & reach]
        kept = list(dict.fromkeys(name for check in found for name, _ in sorted(check.uses & reach)))[:3]
        checks = [check for check in found if any(name in kept for name, _ in check.uses & reach)]
        texts = {header.name: header.changed(fault)}
        for name in kept:
            used = {kernel for check in checks for one, kernel in check.uses if one == name}
            texts[name] = blanked(self.files[name].text, used)
        return texts, checks


# -- the report -------------------------------------------------------------------------------------------------------


def reason(mutant: Mutant) -> str | None:
    """Why this fault changes no result, if that is known."""
    for (file, part, kind, change), why in EQUIVALENT.items():
        line = mutant.source + mutant.texts[mutant.file].splitlines()[mutant.line - 1]
        if (file, kind, change) == (mutant.file, mutant.kind, mutant.change) and part in line:
            return why
    return None


def main(arguments: list[str]) -> int:
    """Prints the tables and the survivors; 1 if too few are caught, or one survived that is not known to be equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--each", type=int, default=EACH, help="faults of one function; 0: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--kind", default="", help="only kinds whose name contains this")
    parser.add_argument("-v", action="store_true", help="print each fault and how it was noticed")
    given = parser.parse_args(arguments)
    if why := emulator.why_not():
        print(f"no kernel can be broken here: {why}")
        return 1
    prepare()
    begin = time.monotonic()
    shop = Workshop(given.files, given.workers)
    made = [each for each in shop.mutants(given.each) if given.kind in each.kind or each.kind == CONTROL]
    print(f"{len(made)} faults, {len(shop.checks)} checks after {time.monotonic() - begin:.0f} s", flush=True)
    outcomes: list[tuple[Mutant, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        settings.cache = folder
        limit = lambda mutant: SECONDS + 4 * sum(check.seconds for check in mutant.checks)  # noqa: E731
        for mutant, result in scatter(judge, made, given.workers, limit):
            how, told = result if isinstance(result, tuple) else ("endless", "") if result is None else ("crash", "")
            if mutant.kind == CONTROL:
                shop.broken += [f"{mutant.file}: without a fault: {how} {told}"] if how else []
                continue
            if not how:
                how = "equivalent" if reason(mutant) else "survived"
            outcomes.append((mutant, how, told))
            if given.v or how == "survived":
                print(f"{how} {told.splitlines()[0] if told else ''}  {mutant}", flush=True)
    outcomes.sort(key=lambda each: made.index(each[0]))
    table("kind", HOW, sorted((mutant.kind, how) for mutant, how, _ in outcomes))
    table("file", HOW, ((mutant.file, how) for mutant, how, _ in outcomes))
    return verdict(shop, outcomes, whole=not given.files and not given.kind)


def verdict(shop: Workshop, outcomes: list[tuple[Mutant, str, str]], whole: bool) -> int:
    """Prints what is not as it should be, and returns 1 if there is something."""
    wrong = list(shop.broken)
    kinds = {mutant.kind for mutant, _, _ in outcomes}
    if whole and (len(kinds) < KINDS or len(outcomes) < FAULTS):
        wrong.append(f"a whole run must make {FAULTS} faults of {KINDS} kinds, got {len(outcomes)} of {len(kinds)}")
    wrong += [f"survived  {mutant}" for mutant, how, _ in outcomes if how == "survived"]
    for mutant in (mutant for mutant, how, _ in outcomes if how in HOW):
        if reason(mutant):
            wrong.append(f"EQUIVALENT lists what was caught: {mutant}")
    for file in shop.wanted:
        left = {key for key in EQUIVALENT if key[0] == file.name}
        for fault in file.faults() if left else ():
            old = " ".join(file.text[fault.begin : fault.end].split())
            source = "".join(each.splitlines()[file.line(fault) - 1] for each in (file.text, file.changed(fault)))
            left -= {k for k in left if k[1] in source and k[2:] == (fault.kind, f"{old} -> {fault.new.strip()}")}
        wrong += [f"EQUIVALENT has an entry that is no fault any more: {key}" for key in left]
    caught = sum(how in HOW for _, how, _ in outcomes)
    share = caught / max(1, sum(how != "equivalent" for _, how, _ in outcomes))
    print(f"\n{caught} of {len(outcomes)} noticed, {share:.1%} of those that change a result")
    print("\n".join(wrong))
    return int(bool(wrong) or share < 0.95)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
