"""What the rules of tests/mutants_cuda_faults.py ask about a CUDA C++ file: its functions, loops, brackets, operands.

A file is read as a list of :class:`Unit`, its kernels and device functions, with comments blanked; offsets are those
of the file.
"""

import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from gpunet.cuda.emulator import build
from gpunet.cuda.source import Source, blank_comments


class Unit(NamedTuple):
    """A function of the file: its body lies between ``begin`` and ``end``, braces included."""

    name: str
    head: str
    begin: int
    end: int

    @property
    def is_kernel(self) -> bool:
        return "__global__" in self.head


class Body:
    """The body of one unit, with what the rules ask about it."""

    def __init__(self, text: str, head: str):
        self.text, self.head = text, head

    @cached_property
    def loops(self) -> list[tuple[int, int, int, int]]:
        """Of each ``for (a; b; c)``: where a, b and c begin, and where c ends."""
        found = []
        for match in re.finditer(r"\bfor \(", self.text):
            end = closing(self.text, match.end() - 1)
            first = stop(self.text, match.end(), ";")
            second = stop(self.text, first + 1, ";")
            if second < end:  # else it runs over a range
                found.append((match.end(), first + 1, second + 1, end))
        return found

    @cached_property
    def declared(self) -> list[tuple[int, int]]:
        """Where arrays are declared: their sizes are no indices."""
        types = r"(?:real|T|float|double|int|unsigned|unsigned char|Pack|long long)"
        pattern = rf"__shared__[^;]*;|(?<![\w<(]){types} \w+(?:\[[^\]]*\])+"
        return [match.span() for match in re.finditer(pattern, self.text)]

    @cached_property
    def shared(self) -> set[str]:
        """Names of arrays in shared memory, and of pointers that helpers get to such."""
        names = re.findall(r"__shared__[^;\[]*?(\w+)\s*\[", self.text)
        return {*names, *re.findall(r"\*\s*(scratch|tile|shared)\b", self.head)}

    @cached_property
    def whole(self) -> set[str]:
        """Names of integers."""
        lists = re.findall(r"\b(?:int|unsigned|long long|INDEX)\s+(\w+(?: = [^;]*)?)[;)]", self.text)
        lists += re.findall(r"\b(?:int|unsigned|long long|INDEX) (\w+)[,)]", self.head + ")")
        names = {name for each in lists for name in re.findall(r"(?:^|, )(\w+)(?= = |$|,)", each)}
        return names | set(re.findall(r"\bint (\w+)", self.head))

    def is_whole(self, operand: str) -> bool:
        """Whether an operand is an integer, as far as its text tells."""
        last = operand.rpartition(".")[2]
        fine = re.fullmatch(r"\d+u?|[A-Z][A-Z0-9_]*|(threadIdx|blockIdx|blockDim|gridDim)\.[xyz]", operand)
        return bool(fine) or last in self.whole

    def part(self, at: int) -> int:
        """0, 1, 2 inside the three parts of a loop's head, -1 elsewhere."""
        for a, b, c, end in self.loops:
            if a <= at < end:
                return 0 if at < b else 1 if at < c else 2
        return -1

    def is_declared(self, at: int) -> bool:
        return any(begin <= at < end for begin, end in self.declared)

    def find(self, pattern: str) -> Iterator[re.Match[str]]:
        """Matches outside declarations of arrays and pragmas."""
        for match in re.finditer(pattern, self.text):
            line = self.text.rfind("\n", 0, match.start()) + 1
            if not self.is_declared(match.start()) and not self.text[line:].lstrip().startswith("#"):
                yield match


def closing(text: str, at: int) -> int:
    """Where the bracket that opens at ``at`` closes."""
    depth = 0
    for k in range(at, len(text)):
        depth += (text[k] in "([{") - (text[k] in ")]}")
        if depth == 0:
            return k
    return len(text)


def stop(text: str, at: int, ends: str = ",;") -> int:
    """The first of ``ends`` from ``at`` on that is in no bracket of its own, or the bracket around all of it."""
    depth = 0
    for k in range(at, len(text)):
        depth += (text[k] in "([{") - (text[k] in ")]}")
        if depth < 0 or (depth == 0 and text[k] in ends):
            return k
    return len(text)


_LEFT = re.compile(r"(?:[,;{}]\s*| [-+*]?= | \? | : |\breturn |&& |\|\| )$")


def start(text: str, at: int, through: str = "") -> int:
    """Where the operand that ends at ``at`` begins; operators in ``through`` belong to it."""
    depth, k = 0, at
    while k > 0:
        depth += (text[k - 1] in ")]}") - (text[k - 1] in "([{")
        if depth < 0:
            break
        if depth == 0 and (found := _LEFT.search(text, max(0, k - 8), k)) and found.group().strip() not in through:
            break
        k -= 1
    return k + len(text[k:at]) - len(text[k:at].lstrip())


def units(text: str) -> list[Unit]:
    """The functions of a file, and its structures with functions in them."""
    plain = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.M)
    return list(_units(plain, 0, len(plain)))


def _units(plain: str, at: int, end: int) -> Iterator[Unit]:
    begin = at
    while at < end:
        if plain[at] == ";":
            begin = at + 1
        elif plain[at] == "(":
            at = closing(plain, at)
        elif plain[at] == "{":
            head, close = plain[begin:at].strip(), closing(plain, at)
            if head.startswith("namespace") or head == 'extern "C"':
                yield from _units(plain, at + 1, close)
            elif name := _name(head):
                yield Unit(name, head, at, close + 1)
            at, begin = close, close + 1
        at += 1


def _name(head: str) -> str:
    head = re.sub(r"\b(?:__launch_bounds__|__align__|alignas)\s*\((?:[^()]|\([^()]*\))*\)", "", head)
    kind = re.search(r"\b(struct|union|enum)\s+(?:class\s+)?(\w+)[^()]*$", head)
    if kind:
        return "" if kind.group(1) == "enum" else kind.group(2)
    called = re.search(r"(\w+)\s*\(", head)
    return called.group(1) if called else ""


def active_lines(source: Source) -> dict[str, set[int]]:
    """File -> the lines that are left when the preprocessor has dropped what the emulator does not get."""
    compiler = build.compiler()
    assert compiler is not None
    folders = [flag for each in (build.HERE, *source.includes) for flag in ("-I", str(each))]
    command = [compiler[0], "-E", "-std=c++20", "-DGPUNET_EMULATOR_ARCH=900", "-x", "c++", *folders]
    command += ["-include", str(build.HERE / "cuda_emulator.h"), "-"]
    done = subprocess.run(command, input=build.prepared(source), capture_output=True, text=True, check=True)
    found: dict[str, set[int]] = defaultdict(set)
    name, line = "", 0
    for text in done.stdout.splitlines():
        if marker := re.match(r'# (\d+) "([^"]*)"', text):
            name, line = Path(marker.group(2)).name, int(marker.group(1))
            continue
        if text.strip():
            found[name].add(line)
        line += 1
    return found


def blanked(text: str, keep: set[str]) -> str:
    """``text`` with the bodies of all kernels but some emptied; every line keeps its number."""
    plain = blank_comments(text)
    for unit in reversed(units(plain)):
        if unit.is_kernel and unit.name not in keep:
            inside = re.sub(r"[^\n]", "", text[unit.begin : unit.end])
            text = text[: unit.begin] + "{" + inside + "}" + text[unit.end :]
    return text
