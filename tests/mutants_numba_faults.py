"""Single faults of a Numba-CUDA file, as changes of its syntax tree: what tests/mutants_numba.py puts into the kernels.

Each rule of :data:`RULES` gets one node of a kernel or device function and yields what may stand in its place.
"""

import ast
import copy
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests import numba_rules

Rule = Callable[[Any], Iterator[ast.AST]]
RULES: dict[str, Rule] = {}

TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
OPPOSITE: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
BARRIERS = ("syncthreads", "syncwarp")
SHUFFLES = ("shfl_sync", "shfl_xor_sync", "shfl_down_sync", "shfl_up_sync", "ballot_sync")


def rule(kind: str) -> Callable[[Rule], Rule]:
    """The function finds faults of this kind."""

    def note(function: Rule) -> Rule:
        RULES[kind] = function
        return function

    return note


def _range(node: Any) -> list[Any]:
    """The arguments of the range that a loop goes over; none for another loop."""
    over = node.iter if isinstance(node, ast.For) else None
    return over.args if isinstance(over, ast.Call) and _called(over) == "range" else []


def _over(node: Any, *args: ast.expr) -> ast.For:
    """The loop over another range."""
    return ast.For(node.target, ast.Call(node.iter.func, list(args), []), node.body, [])


def _called(node: ast.AST) -> str:
    """The last name of what a call calls: "range", "syncthreads"."""
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


@rule("barrier dropped")
def _barrier(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.Expr) and _called(node.value) in BARRIERS:
        yield ast.Pass()


@rule("comparison")
def _comparison(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in TURNED:
        yield ast.Compare(node.left, [TURNED[type(node.ops[0])]()], node.comparators)


@rule("guard dropped")
def _guard(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and not node.orelse:
        yield ast.If(ast.Constant(True), node.body, [])
    if isinstance(node, ast.BoolOp):
        yield ast.BoolOp(node.op, node.values[1:]) if len(node.values) > 2 else node.values[1]
        yield ast.BoolOp(node.op, node.values[:-1]) if len(node.values) > 2 else node.values[0]


@rule("padding lost")
def _padding(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.IfExp):
        yield node.body


@rule("arms exchanged")
def _arms(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.If) and node.orelse:
        yield ast.If(node.test, node.orelse, node.body)


@rule("loop bound")
def _bound(node: Any) -> Iterator[ast.AST]:
    for change in (ast.Sub(), ast.Add()) if _range(node) else ():
        args = list(_range(node))
        place = min(1, len(args) - 1)
        args[place] = ast.BinOp(args[place], change, ast.Constant(1))
        yield _over(node, *args)


@rule("loop start")
def _loop_start(node: Any) -> Iterator[ast.AST]:
    if len(_range(node)) > 1:
        first, *rest = _range(node)
        yield _over(node, ast.BinOp(first, ast.Add(), ast.Constant(1)), *rest)


@rule("stride")
def _stride(node: Any) -> Iterator[ast.AST]:
    if len(_range(node)) == 3:
        first, last, step = _range(node)
        yield _over(node, first, last, ast.BinOp(step, ast.Add(), ast.Constant(1)))
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        yield node.left
        yield node.right


@rule("operator")
def _operator(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp) and type(node.op) in OPPOSITE:
        yield ast.BinOp(node.left, OPPOSITE[type(node.op)](), node.right)


@rule("term lost")
def _term(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        yield node.left


@rule("off by one")
def _one(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield ast.Constant(node.value + 1)


@rule("wrong axis")
def _axis(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.Attribute) and node.attr in ("x", "y") and _called(node.value)[-3:] in ("Idx", "Dim"):
        yield ast.Attribute(node.value, "y" if node.attr == "x" else "x", node.ctx)


@rule("store lost")
def _store(node: Any) -> Iterator[ast.AST]:
    stores = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript)
    if stores or (isinstance(node, ast.Expr) and _called(node.value).startswith("store_")):
        yield ast.Pass()


@rule("sum forgotten")
def _sum(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value)


@rule("early exit")
def _exit(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.For | ast.While):
        changed = copy.copy(node)
        changed.body = [*node.body, ast.Break()]
        yield changed


@rule("lane or bit")
def _lane(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.Call) and _called(node) in SHUFFLES and len(node.args) == 3:
        yield ast.Call(node.func, [*node.args[:2], ast.BinOp(node.args[2], ast.Add(), ast.Constant(1))], [])
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.LShift | ast.RShift):
        yield ast.BinOp(node.left, node.op, ast.BinOp(node.right, ast.Add(), ast.Constant(1)))


@rule("arguments exchanged")
def _arguments(node: Any) -> Iterator[ast.AST]:
    skipped = ("range", "max", "min", "shfl_sync", "array", "fma", *SHUFFLES)
    if isinstance(node, ast.Call) and len(node.args) >= 2 and _called(node) not in skipped:
        yield ast.Call(node.func, [*node.args[:-2], node.args[-1], node.args[-2]], node.keywords)


@rule("largest and smallest")
def _largest(node: Any) -> Iterator[ast.AST]:
    if isinstance(node, ast.Name) and node.id in ("max", "min") and isinstance(node.ctx, ast.Load):
        yield ast.Name("min" if node.id == "max" else "max", node.ctx)


class Fault(NamedTuple):
    """One change: the function it is in, its kind, its place in a walk over the tree, and which of the rule's."""

    function: str
    kind: str
    place: int
    number: int
    line: int
    change: str
    """What stood there, and what stands there now."""


def _mentioned(node: ast.AST) -> str:
    """The name by which a function may be meant here: its own, or behind its module's."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


class File:
    """A kernel file: its functions that run on the GPU, and their faults."""

    def __init__(self, path: Path, root: Path):
        self.path, self.name = path, str(path.relative_to(root))
        self.text = path.read_text()
        self.tree = ast.parse(self.text)
        self.lines = self.text.splitlines()
        #: top-level function on the GPU -> the names that its body mentions
        self.functions = {
            node.name: {_mentioned(each) for each in ast.walk(node)}
            for node in self.tree.body
            if isinstance(node, ast.FunctionDef) and numba_rules.on_gpu(node)
        }

    def faults(self) -> Iterator[Fault]:
        """Every fault that the rules find."""
        nodes = list(ast.walk(self.tree))
        owner: dict[int, str] = {}
        quiet: set[int] = set()
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name in self.functions:
                owner |= {id(each): node.name for each in ast.walk(node)}
                for each in ast.walk(node):
                    if isinstance(each, ast.FunctionDef):
                        quiet |= {id(inner) for place in each.decorator_list for inner in ast.walk(place)}
                        quiet |= {id(inner) for inner in ast.walk(each.args)}
                    elif isinstance(each, ast.Return) and isinstance(each.value, ast.Name):
                        quiet |= {id(inner) for inner in ast.walk(each)}
        for place, node in enumerate(nodes):
            if id(node) in owner and id(node) not in quiet:
                for kind, find in RULES.items():
                    for number, new in enumerate(find(node)):
                        told = f"{_short(node)} -> {_short(new)}"
                        yield Fault(owner[id(node)], kind, place, number, getattr(node, "lineno", 1), told)

    def changed(self, fault: Fault) -> ast.Module:
        """The file's tree with the fault in it."""
        tree = copy.deepcopy(self.tree)
        node = list(ast.walk(tree))[fault.place]
        new = list(RULES[fault.kind](node))[fault.number]
        return ast.fix_missing_locations(_Replace(node, new).visit(tree))


def _short(node: ast.AST) -> str:
    text = "; ".join(map(str.strip, ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).split("\n")))
    return text if len(text) <= 60 else f"{text[:40]} ... {text[-15:]}"


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


def chosen(file: File, each: int) -> Iterator[Fault]:
    """``each`` faults of every function, of kinds that the file has had least of; the same at every run; 0: all."""
    by_function: dict[str, list[Fault]] = defaultdict(list)
    for fault in file.faults():
        by_function[fault.function].append(fault)
    had: Counter[str] = Counter()
    for faults in by_function.values():
        left = sorted(faults, key=lambda fault: zlib.crc32(repr((fault.kind, fault.place, fault.number)).encode()))
        for _ in range(min(each, len(left)) if each else len(left)):
            fault = min(left, key=lambda fault: had[fault.kind])
            left.remove(fault)
            had[fault.kind] += 1
            yield fault
