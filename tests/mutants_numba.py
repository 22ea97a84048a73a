"""Breaks the Numba-CUDA kernels on purpose, one change at a time, and looks whether the proof without a GPU notices.

    python tests/mutants_numba.py [FILE ...] [--each N] [--workers N]

FILE is a file's name without its folder and ending ("relu_numba_cuda", "rows_numba"); none means all. Of each function
that runs on the GPU N faults are tried, of as many kinds as there are (tests/mutants_numba_faults.py); 0 tries every
one. The changed file takes the place of the right one in a process of its own, and its launchers run in the simulator
on the calls that tests/cases.py makes of their entries, in two orders of threads.

A fault counts as caught when a rule of tests/numba_rules.py is broken, when the simulator reports something, when a
result is outside its tolerance, or when the kernel does not end. What nothing notices is printed with its line; what
changes no result is listed in :data:`EQUIVALENT`, each with its reason.
"""

import argparse
import ast
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__" and os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":  # it must be there before Python starts
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"})
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 the checkout comes first

from gpunet import cuda, dispatch  # noqa: E402
from gpunet.config import settings  # noqa: E402
from gpunet.dispatch import Call, Kernel  # noqa: E402
from gpunet.errors import EmulatorError  # noqa: E402
from tests import numba_rules  # noqa: E402
from tests.cases import CASES  # noqa: E402
from tests.mutants_numba_faults import Fault, File, chosen  # noqa: E402
from tests.mutants_numba_known import EQUIVALENT, EXTRA  # noqa: E402
from tests.mutants_table import table  # noqa: E402
from tests.processes import scatter  # noqa: E402
from tests.product import calls, definition, takes  # noqa: E402
from tests.tolerances import assert_within  # noqa: E402

EACH = 3  # faults of one function
ROUNDS = {"float32": (0, 1), "float64": (0,)}  # orders of threads
SECONDS = 20  # of processor time beyond what the right kernel takes; then it counts as endless
HOW = ("rule", "report", "wrong", "refused", "endless", "crash")


class Check(NamedTuple):
    """One rung on one call, and the kernels it launched."""

    entry: str
    variant: str
    number: int
    """Of the call, among those of its op."""
    seconds: float
    uses: frozenset[str]

    @property
    def kernel(self) -> Kernel:
        """The rung as it is."""
        return next(each for each in dispatch.variants(self.entry, "numba_cuda") if each.variant == self.variant)


class Mutant(NamedTuple):
    """One fault of one file, and the checks that can see it."""

    file: File
    fault: Fault
    checks: tuple[Check, ...]

    def __str__(self) -> str:
        line = " ".join(self.file.lines[self.fault.line - 1].split())
        return f"{self.file.name}:{self.fault.line}: {self.fault.kind}: {self.fault.change}    in: {line}"


@cache
def all_calls() -> dict[str, list[tuple[Call, Any]]]:
    """Op -> every call of its entries that a case makes, with what it must give."""
    found: dict[str, list[tuple[Call, Any]]] = defaultdict(list)
    for dtype in ROUNDS:
        for case in (*CASES, *EXTRA):
            for call in calls(case, dtype):
                found[call.entry.partition(".")[0]].append((call, definition(call)))
    return found


def dtype_of(call: Call) -> str:
    """The dtype of its floating-point arrays."""
    return next((each.dtype.name for each in call.arrays if each is not None and each.dtype.kind == "f"), "float32")


def baseline(op: str) -> list[Check] | str:
    """Every rung of the op on every call that it takes; or what is wrong with it before it is changed."""
    from gpunet.cuda import jit

    found = []
    for number, (call, wanted) in enumerate(all_calls()[op]):
        for kernel in dispatch.variants(call.entry, "numba_cuda"):
            if not takes(kernel, call):
                continue
            begin = time.process_time()
            try:
                _run(kernel.function, call, wanted)
            except Exception as error:
                return f"{kernel} is wrong before it is changed: {type(error).__name__}: {error}"
            spent = time.process_time() - begin
            with jit.recording() as launches, np.errstate(all="ignore"):
                kernel.function(*call.arrays, **call.params)
            uses = frozenset(each.kernel.name for each in launches)
            found.append(Check(kernel.entry, kernel.variant, number, spent, uses))
    return found


def _run(function: Any, call: Call, wanted: Any) -> None:
    from gpunet.cuda import simulator

    for seed in ROUNDS[dtype_of(call)]:
        simulator.options.seed = seed
        with np.errstate(all="ignore"):
            result = function(*call.arrays, **call.params)
        assert_within(result, wanted, call, "")


def put(file: File, tree: ast.Module, dependents: Iterable[File]) -> dict[tuple[str, str], Any]:
    """Runs the changed file, and those that import from it, in the places of the right ones; the new launchers."""
    launchers: dict[tuple[str, str], Any] = {}

    def kernel(entry: str, *, backend: str, variant: str, when: Any = None, pays: Any = None) -> Any:
        return lambda function: launchers.setdefault((entry, variant), function)

    dispatch.kernel = kernel  # type: ignore[assignment]
    for each, code in [(file, tree), *((one, one.tree) for one in dependents)]:
        name = "gpunet." + each.name.removesuffix(".py").replace("/", ".")
        exec(compile(code, str(each.path), "exec"), vars(sys.modules[name]))
    return launchers


class Workshop:
    """All files with their checks."""

    def __init__(self, names: list[str], workers: int):
        paths = sorted([*(ROOT / "kernels").glob("*/*_numba_cuda.py"), *(ROOT / "kernels").glob("*/*_numba.py")])
        self.files = [File(path, ROOT) for path in paths]
        unknown = set(names) - {file.path.stem for file in self.files}
        if unknown:
            told = ", ".join(file.path.stem for file in self.files)
            raise SystemExit(f"no file {', '.join(unknown)}; there are: {told}")
        self.wanted = [file for file in self.files if not names or file.path.stem in names]
        self.users: dict[str, set[str]] = defaultdict(set)  # function -> those that mention it
        for file in self.files:
            for name, mentioned in file.functions.items():
                for each in mentioned:
                    self.users[each].add(name)
        self.broken: list[str] = []
        all_calls()  # once, before processes part
        ops = [op for op in dispatch.ops() if any(dispatch.variants(e, "numba_cuda") for e in dispatch.entries(op))]
        if names:
            near = {each.path.parent.name for file in self.wanted for each in (file, *self.dependents(file))}
            ops = [op for op in ops if op in near]
        self.checks: list[Check] = []
        for op, found in scatter(baseline, ops, workers, lambda _: 900):
            if isinstance(found, list):
                self.checks += found
            else:
                self.broken.append(found if isinstance(found, str) else f"{op}: the right kernels do not end")
        self.checks.sort(key=lambda check: check.seconds)

    def dependents(self, file: File) -> list[File]:
        """The files that import from a file, those first that others of them import from."""
        found: list[File] = []
        for each in self.files:
            if (
                each is not file and f"import {file.path.stem}" in each.text
            ) or f"{file.path.stem} import" in each.text:
                found += [one for one in (each, *self.dependents(each)) if one not in found]
        return found

    def mutants(self, each: int) -> Iterator[Mutant]:
        for file in self.wanted:
            for fault in chosen(file, each):
                names: set[str] = set()
                more = {fault.function}
                while more - names:
                    names |= more
                    more = set().union(*(self.users[name] for name in names))
                checks = tuple(check for check in self.checks if check.uses & names)
                if checks:  # what no case reaches belongs to a rung that another test holds
                    yield Mutant(file, fault, checks)


SHOP: list[Workshop] = []


def judge(mutant: Mutant) -> tuple[str, str]:
    """How the fault is noticed, and by what: ("", "") where it is not."""
    tree = mutant.file.changed(mutant.fault)
    if broken := list(numba_rules.faults(tree)):
        return "rule", str(broken[0])
    try:
        launchers = put(mutant.file, tree, SHOP[0].dependents(mutant.file))
    except Exception as error:
        return "refused", f"{type(error).__name__}: {error}"
    for check in mutant.checks:
        call, wanted = all_calls()[check.entry.partition(".")[0]][check.number]
        try:
            _run(launchers.get((check.entry, check.variant)) or check.kernel.function, call, wanted)
        except EmulatorError as error:
            return "report", str(error)
        except Exception as error:  # a wrong result, or whatever else the launcher raises
            return "wrong", f"{type(error).__name__}: {error}"
    return "", ""


def reason(mutant: Mutant) -> str | None:
    """Why this fault changes no result, if that is known."""
    line = mutant.file.lines[mutant.fault.line - 1]
    for (file, part, kind, change), why in EQUIVALENT.items():
        if (file, kind, change) == (mutant.file.path.stem, mutant.fault.kind, mutant.fault.change) and part in line:
            return why
    return None


def main(arguments: list[str]) -> int:
    """Prints the tables and the survivors; 1 if too few are caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--each", type=int, default=EACH, help="faults of one function; 0: all")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("-v", action="store_true", help="print each fault and how it was noticed")
    given = parser.parse_args(arguments)
    if why := cuda.why_no_numba_sim():
        print(f"nothing is broken here: {why}")
        return 0
    settings.poison = True
    begin = time.monotonic()
    shop = Workshop(given.files, given.workers)
    SHOP.append(shop)
    made = list(shop.mutants(given.each))
    print(f"{len(made)} faults, {len(shop.checks)} checks after {time.monotonic() - begin:.0f} s", flush=True)
    outcomes: list[tuple[Mutant, str]] = []
    limit = lambda mutant: SECONDS + 4 * sum(check.seconds for check in mutant.checks)  # noqa: E731
    for mutant, result in scatter(judge, made, given.workers, limit):
        how, told = result if isinstance(result, tuple) else ("endless", "") if result is None else ("crash", "")
        if not how:
            how = "equivalent" if reason(mutant) else "survived"
        outcomes.append((mutant, how))
        if given.v or how == "survived":
            print(f"{how} {told.splitlines()[0] if told else ''}  {mutant}", flush=True)
    order = {id(mutant): k for k, mutant in enumerate(made)}
    outcomes.sort(key=lambda each: order[id(each[0])])
    table("kind", HOW, sorted((mutant.fault.kind, how) for mutant, how in outcomes))
    table("file", HOW, ((mutant.file.path.stem, how) for mutant, how in outcomes))
    caught = sum(how in HOW for _, how in outcomes)
    share = caught / max(1, sum(how != "equivalent" for _, how in outcomes))
    took = time.monotonic() - begin
    print(f"\n{caught} of {len(outcomes)} noticed, {share:.1%} of those that change a result; {took:.0f} s")
    wrong = list(shop.broken)
    wrong += [f"survived  {mutant}" for mutant, how in outcomes if how == "survived"]
    wrong += [
        f"EQUIVALENT lists what was caught: {mutant}" for mutant, how in outcomes if how in HOW and reason(mutant)
    ]
    print("\n".join(wrong))
    return int(bool(shop.broken) or share < 0.9)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
