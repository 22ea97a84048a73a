"""Single faults of a CUDA C++ file, as changes of its text: what tests/mutants_cuda.py puts into the kernels.

Each rule of :data:`RULES` looks at the body of one kernel or device function and says where which text becomes what.
"""

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from gpunet.cuda.source import blank_comments
from tests.mutants_cuda_text import Body, Unit, closing, start, stop, units

Edit = tuple[int, int, str]  # from, to, what stands there now
Rule = Callable[[Body], Iterator[Edit]]
RULES: dict[str, Rule] = {}
OPERAND = r"[\w.]+(?:\[[^\[\]]*\])*"


def rule(kind: str) -> Callable[[Rule], Rule]:
    """The function finds faults of this kind."""

    def note(function: Rule) -> Rule:
        RULES[kind] = function
        return function

    return note


TURNED = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
OPPOSITE = {"max": "min", "min": "max", "fmax": "fmin", "fmin": "fmax", "fmaxf": "fminf", "fminf": "fmaxf"}
PAIRS = (
    ("row", "col"), ("ty", "tx"), ("iy", "ix"), ("oy", "ox"), ("ky", "kx"), ("KH", "KW"), ("H", "W"), ("OH", "OW"),
    ("M", "N"), ("C", "F"), ("warp", "lane"), ("begin", "end"), ("first", "last"), ("i", "j"), ("n", "c"),
    ("rows", "cols"), ("stride_y", "stride_x"), ("pad_y", "pad_x"), ("outer", "inner"), ("a_row", "a_col"),
)  # fmt: skip
ZERO = r"(?:(?:real|T|float|double)\()?-?0(?:\.0?)?f?\)?|(?:real|T|Pack|float4)\{\}"


@rule("barrier dropped")
def _barrier(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?:__syncthreads|__syncwarp|__threadfence)\([^;]*\);"):
        yield *match.span(), ";"


@rule("comparison")
def _comparison(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<= )(<=?|>=?|==|!=)(?= )"):
        if b.part(match.start()) < 0:
            yield *match.span(), TURNED[match.group()]


@rule("loop bound")
def _bound(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<= )(<=?|>=?)(?= )"):
        if b.part(match.start()) == 1:
            yield *match.span(), TURNED[match.group()]


@rule("loop start")
def _loop_start(b: Body) -> Iterator[Edit]:
    for a, second, _, _ in b.loops:
        if " = " in b.text[a:second]:
            place = b.text.index(" = ", a) + 3
            end = stop(b.text, place)
            yield place, end, f"{b.text[place:end]} + 1"


@rule("stride")
def _stride(b: Body) -> Iterator[Edit]:
    for _, _, c, end in b.loops:
        step = b.text[c:end].strip()
        if found := re.fullmatch(r"\+\+(\w+)", step):
            yield c, end, f" {found.group(1)} += 2"
        elif found := re.fullmatch(r"(\w+) ([-+/]|>>)= (.*)", step):
            yield c, end, f" {found.group(1)} {found.group(2)}= {found.group(3)} + 1"
    for match in b.find(rf"({OPERAND}) \* ({OPERAND})(?![\w(<.\[])"):
        one, other = match.groups()
        if b.is_whole(one) and b.is_whole(other):
            yield *match.span(), one
            yield *match.span(), other


@rule("guard dropped")
def _guard(b: Body) -> Iterator[Edit]:
    for match in b.find(r"\bif \("):
        end = closing(b.text, match.end() - 1)
        leaves = re.compile(r"\s*(return|continue|break);").match(b.text, end + 1)
        yield (match.start(), leaves.end(), ";") if leaves else (match.end(), end, "true")
    for match in b.find(r"&&|\|\|"):
        left = start(b.text, match.start())
        right = stop(b.text, match.end() + 1, ",;?")
        further = re.search(r"\s*(&&|\|\||\?)", b.text[match.end() : right])
        right = match.end() + further.start() if further else right
        yield left, match.end() + 1, ""
        yield match.start() - 1, right, ""


@rule("and for or")
def _and_or(b: Body) -> Iterator[Edit]:
    for match in b.find(r"&&|\|\|"):
        yield *match.span(), "||" if match.group() == "&&" else "&&"
    for match in b.find(r"(?<=[( ])!(?=[\w(])"):
        yield *match.span(), ""


def _ternaries(b: Body) -> Iterator[tuple[int, int, int, int, int]]:
    """Of each ``a ? b : c``: where a begins, the ``?``, where b begins, where c begins, the end."""
    for match in b.find(r"\? "):
        text, at = b.text, match.start()
        colon = re.compile(r" : ")
        place, depth = match.end(), 0
        while (found := colon.search(text, place)) is not None:
            depth += text.count("? ", place, found.start())
            inside = text[match.end() : found.start()]
            if depth == 0 and all(inside.count(one) == inside.count(other) for one, other in ("()", "[]", "{}")):
                break
            depth, place = max(0, depth - 1), found.end()
        if found is not None:
            yield start(text, at - 1, "&&||"), at, match.end(), found.start(), stop(text, found.end(), ",;")


@rule("padding lost")
def _padding(b: Body) -> Iterator[Edit]:
    for begin, _, one, colon, end in _ternaries(b):
        if re.fullmatch(ZERO, b.text[colon + 3 : end].strip()):
            yield begin, end, b.text[one:colon].strip()
    for match in b.find(r"\bbool \w+ = ([^;,]+)(?=[;,])"):
        yield *match.span(1), "true"


@rule("arms exchanged")
def _arms(b: Body) -> Iterator[Edit]:
    for _, _, one, colon, end in _ternaries(b):
        yield one, end, f"{b.text[colon + 3 : end].strip()} : {b.text[one:colon].strip()}"


@rule("stale tile")
def _stale(b: Body) -> Iterator[Edit]:
    for name in sorted(b.shared):
        for match in b.find(rf"(?<![\w.])\b{name}\b[^;={{}}<>]*\s=\s[^;]*;"):
            yield *match.span(), ";"
    for match in b.find(r"(?<=[;{})\s])copy_async(?:<\w+>)?\([^;]*;"):
        yield *match.span(), ";"


@rule("store lost")
def _lost(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<=[;{})\s])(?:\w+\[[^;=]*\] [-+*]?= [^;]*;|store_\w+\([^;]*;|\w+ [+*]= [^;()]*;)"):
        if not any(match.group().startswith(name) for name in b.shared) and b.part(match.start()) < 0:
            yield *match.span(), ";"


@rule("wait missing")
def _wait(b: Body) -> Iterator[Edit]:
    for match in b.find(r"copy_async_wait<([^>]*)>\(\);"):
        yield *match.span(), ";"
        yield *match.span(1), f"{match.group(1)} + 1"
    for match in b.find(r"copy_async_commit\(\);"):
        yield *match.span(), ";"


@rule("indices exchanged")
def _swapped(b: Body) -> Iterator[Edit]:
    for pair in PAIRS:
        if all(re.search(rf"\b{each}\b", b.text + b.head) for each in pair):
            for one, other in (pair, pair[::-1]):
                for match in b.find(rf"(?<![\w.])\b{one}\b(?! =[^=])(?!,? \w+ =[^=])(?!\()"):
                    if b.part(match.start()) < 0:
                        yield *match.span(), other
    for match in b.find(r"(?:threadIdx|blockIdx)\.([xyz])"):
        yield *match.span(1), "y" if match.group(1) == "x" else "x"
    for match in b.find(r"\[([^\[\]]+)\]\[([^\[\]]+)\]"):
        if match.group(1) != match.group(2):
            yield *match.span(), f"[{match.group(2)}][{match.group(1)}]"


@rule("wrong array")
def _array(b: Body) -> Iterator[Edit]:
    kinds: dict[str, list[str]] = {}
    for kind, name in re.findall(r"(const \w+(?: \w+)?)\* __restrict__ (\w+)", b.head):
        kinds.setdefault(kind, []).append(name)
    for names in kinds.values():
        for one, other in zip(names, names[1:] + names[:1]):
            for match in b.find(rf"(?<![\w.])\b{one}\b(?! =[^=])") if one != other else ():
                yield *match.span(), other


@rule("constant off")
def _constant(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<![\w.<{])(?<!= )(?<!-)(\d+)(?=u?(?![\w.>(]))(?!\.)"):
        if b.part(match.start()) != 0 and not b.text[: match.start()].endswith(("real(", "T(", "float(", "double(")):
            yield *match.span(), str(int(match.group()) + 1)
            if int(match.group()) > 1:
                yield *match.span(), str(int(match.group()) - 1)


@rule("scale")
def _scale(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<![\w.])(?:(?<=real\()[1-9]\d*|(?<=T\()[1-9]\d*|\d+\.\d*(?:e[-+]?\d+)?)(?=[f)\s;,])"):
        changed = float(match.group()) * 1.0625
        yield *match.span(), f"{changed!r}"
    for match in b.find(rf"({OPERAND}) ([*/]) ({OPERAND})(?![\w(<.\[])"):
        one, _, other = match.groups()
        if not (b.is_whole(one) and b.is_whole(other)):
            yield *match.span(), one
            if not re.fullmatch(r"[\d.]+f?", other):
                yield *match.span(), other


@rule("mask bit")
def _mask(b: Body) -> Iterator[Edit]:
    for match in b.find(r"\bALL_LANES\b|\b0xffffffffu\b"):
        yield *match.span(), "0x7fffffffu"
    for match in b.find(r" (?:<<|>>) (\w+)"):
        yield *match.span(1), f"({match.group(1)} + 1)"
    for match in b.find(r"(?<=\w) & (\w+)"):
        yield *match.span(1), f"({match.group(1)} >> 1)"
    for match in b.find(r" [/%] (32)\b"):
        yield *match.span(1), "16"


@rule("quotient for remainder")
def _quotient(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<=[\w)]) ([/%]) (\w+)"):
        if b.is_whole(match.group(2)) and not match.group(2).isdigit():
            yield *match.span(1), "%" if match.group(1) == "/" else "/"


@rule("sign")
def _sign(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<=[\w)\]] )([-+])(?== | )"):
        if b.part(match.start()) < 0:
            yield *match.span(), "-" if match.group() == "+" else "+"
    for match in b.find(r"(?<=[(=?:,] )-(?=[\w(])|(?<=[(])-(?=[\w(])|(?<=return )-"):
        yield *match.span(), ""


@rule("initial value")
def _initial(b: Body) -> Iterator[Edit]:
    for match in b.find(r"(?<= = )((?:(?:real|T|float|double)\()?)([01])(\.0?f?)?(?=\)?[;,])"):
        if b.part(match.start()) < 0:
            yield *match.span(), f"{match.group(1)}{1 - int(match.group(2))}"
    for match in re.finditer(r"(?<= = )\{0?\}(?=;)", b.text):
        yield *match.span(), "{1}"
    for match in b.find(r"(?<= = )-INFINITY\b|(?<=\()-INFINITY\b|-real\(INFINITY\)"):
        yield *match.span(), "0"


@rule("shuffle distance")
def _shuffle(b: Body) -> Iterator[Edit]:
    for match in b.find(r"__shfl_\w+\("):
        first = stop(b.text, match.end())
        second = stop(b.text, first + 1)
        end = stop(b.text, second + 1)
        if end > second + 1:
            yield second + 1, end, f" ({b.text[second + 1 : end].strip()}) / 2"
            yield second + 1, end, f" ({b.text[second + 1 : end].strip()}) + 1"


@rule("max for min")
def _extreme(b: Body) -> Iterator[Edit]:
    for match in b.find(rf"(?<![\w.])({'|'.join(OPPOSITE)})(?=\()"):
        yield *match.span(), OPPOSITE[match.group()]
    for match in b.find(r"(?<= )[<>](?= )"):
        if b.part(match.start()) < 0:
            yield *match.span(), "<" if match.group() == ">" else ">"


@rule("narrow type")
def _narrow(b: Body) -> Iterator[Edit]:
    for match in b.find(r"\b(double|real)(?= \w+(?: =|;|\[|,))|\b(double|real)(?=\((?!\d))|(?<=<)double(?=>)"):
        yield *match.span(), "float"


@rule("early exit")
def _exit(b: Body) -> Iterator[Edit]:
    for _, _, _, end in b.loops:
        opened = re.compile(r"\)\s*\{").match(b.text, end)
        if opened:
            close = closing(b.text, opened.end() - 1)
            yield close, close, "break; "
    if "__global__" in b.head:
        yield 1, 1, " if (threadIdx.x == 1) return;"


@rule("lane frozen")
def _frozen(b: Body) -> Iterator[Edit]:
    for match in b.find(r"\.v\[(\w+)\]"):
        if match.group(1) != "0":
            yield *match.span(1), "0"
    for match in b.find(r"(?<=\w)\.([xyzw])\b(?!\()"):
        if not re.search(r"(threadIdx|blockIdx|blockDim|gridDim)$", b.text[: match.start()]):
            yield *match.span(1), "y" if match.group(1) == "x" else "x"


class Fault(NamedTuple):
    """One change of a file: its kind, its place in the text, and what stands there now."""

    unit: Unit
    kind: str
    begin: int
    end: int
    new: str


def faults(text: str) -> Iterator[Fault]:
    """Every fault that the rules find in a file, unit by unit."""
    plain = blank_comments(text)
    for unit in units(plain):
        body = Body(plain[unit.begin : unit.end], unit.head)
        for kind, find in RULES.items():
            for begin, end, new in dict.fromkeys(find(body)):
                if body.text[begin:end] != new:
                    yield Fault(unit, kind, unit.begin + begin, unit.begin + end, new)


class File:
    """A kernel file (or common.cuh): its functions, who uses whom, and the faults that a GPU-less build sees."""

    def __init__(self, name: str, path: Path, active: set[int]):
        self.name, self.path = name, path
        self.text = path.read_text()
        self.plain = blank_comments(self.text)
        self.units = units(self.plain)
        self.active = active

    def users(self, names: set[str]) -> set[str]:
        """The functions that reach one of ``names``; themselves among them."""
        found, more = set(names), set(names)
        while more:
            word = re.compile(rf"\b(?:{'|'.join(more)})\b")
            more = {u.name for u in self.units if word.search(u.head + self.plain[u.begin : u.end])} - found
            found |= more
        return found

    def faults(self) -> Iterator[Fault]:
        for fault in faults(self.text):
            if self.line(fault) in self.active:
                yield fault

    def line(self, fault: Fault) -> int:
        return self.text.count("\n", 0, fault.begin) + 1

    def changed(self, fault: Fault) -> str:
        lost = self.text.count("\n", fault.begin, fault.end) - fault.new.count("\n")
        return self.text[: fault.begin] + fault.new + "\n" * lost + self.text[fault.end :]


def chosen(file: File, each: int) -> list[Fault]:
    """``each`` faults of every function, of kinds that the file has had least of; the same at every run."""
    by_unit: dict[Unit, list[Fault]] = defaultdict(list)
    for fault in file.faults():
        by_unit[fault.unit].append(fault)
    taken: Counter[str] = Counter()
    picked = []
    for found in by_unit.values():
        left = sorted(found, key=lambda fault: _lot(file, fault))
        own: Counter[str] = Counter()
        for _ in range(min(each or len(found), len(found))):
            fault = min(left, key=lambda one: (own[one.kind], taken[one.kind]))
            left.remove(fault)
            own[fault.kind] += 1
            taken[fault.kind] += 1
            picked.append(fault)
    return picked


def _lot(file: File, fault: Fault) -> int:
    begin = file.plain.rfind("\n", 0, fault.begin) + 1
    end = file.plain.find("\n", fault.end)
    around = file.plain[begin : fault.begin] + "|" + fault.new + "|" + file.plain[fault.end : end]
    return zlib.crc32(f"{fault.unit.name} {fault.kind} {around.strip()}".encode())
