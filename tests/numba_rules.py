"""Rules for the source of Numba-CUDA kernels: what the simulator cannot show, read off the text.

The simulator runs threads one after the other in Python. So it sees no types, no races that its order hides, and no
limits of a GPU. These rules refuse what leads there:

    two shared arrays on one line      Numba's simulator makes them one
    a shared array of another type     shared tiles have the data's own dtype, which the factory gets as ``real``
    a barrier that not all may reach   under a condition, in a loop or after a return that depends on the thread
    a negative index                   Numba counts it from the end, at the cost of a branch a load
    a bare number with a point         Numba computes everything it meets in float64
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BARRIERS = ("syncthreads", "syncthreads_and", "syncthreads_or", "syncthreads_count", "syncwarp")
WARP = ("shfl_sync", "shfl_xor_sync", "shfl_down_sync", "shfl_up_sync", "ballot_sync")
OF_THREAD = ("threadIdx", "laneid", "grid")  # attributes of cuda whose value differs between threads of a block
FACTORIES = (
    "typed",
    "for_windows",
    "template",
)  # what makes kernels: of each dtype, and more
KINDS = ("shared_line", "shared_type", "barrier", "negative_index", "bare_float")


class Fault(NamedTuple):
    """One place that breaks a rule."""

    kind: str
    line: int
    told: str


def check(path: Path) -> list[Fault]:
    """The faults of one file."""
    return sorted(faults(ast.parse(path.read_text())), key=lambda each: each.line)


def faults(tree: ast.Module) -> Iterator[Fault]:
    """The faults of every kernel and device function of a module."""
    yield from _shared_lines(tree)
    for function in tree.body:
        if isinstance(function, ast.FunctionDef):
            for each in on_gpu(function):
                yield from _Kernel(each).faults()


def on_gpu(function: ast.FunctionDef) -> list[ast.FunctionDef]:
    """The functions that run on a GPU: itself, those that a factory of kernels makes, or device functions in it."""
    if _marked(function, ("kernel", "device")):
        return [function]
    if _marked(function, FACTORIES):
        return [each for each in function.body if isinstance(each, ast.FunctionDef)]
    inner = [each for each in ast.walk(function) if isinstance(each, ast.FunctionDef)]
    return [each for each in inner if _marked(each, ("device",))]


def _marked(function: ast.FunctionDef, names: tuple[str, ...]) -> bool:
    """Whether a decorator is ``jit.<name>``, or one of the factories' by its own name."""
    told = [each.func if isinstance(each, ast.Call) else each for each in function.decorator_list]
    of_jit = [each.attr for each in told if isinstance(each, ast.Attribute) and _name(each.value) == "jit"]
    return bool({*of_jit, *(_name(each) for each in told if _name(each) in FACTORIES)} & set(names))


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _is_cuda(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Attribute) and _name(node.value) == "cuda" and node.attr in names


def _is_shared(node: ast.AST) -> bool:
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "array"
    return call and _is_cuda(node.func.value, "shared")  # type: ignore[attr-defined]


def _shared_lines(tree: ast.Module) -> Iterator[Fault]:
    seen: set[int] = set()
    for node in ast.walk(tree):
        if _is_shared(node):
            if node.lineno in seen:  # type: ignore[attr-defined]
                yield Fault("shared_line", node.lineno, "two shared arrays on one line")  # type: ignore[attr-defined]
            seen.add(node.lineno)  # type: ignore[attr-defined]
            kind = node.args[1] if len(node.args) > 1 else None  # type: ignore[attr-defined]
            if isinstance(kind, ast.Attribute) or _name(kind or node) in ("float32", "float64", "float"):
                yield Fault("shared_type", node.lineno, "a shared array has the type that the factory gets")  # type: ignore[attr-defined]


class _Kernel:
    """One kernel's text, with the names that hold something of the thread."""

    def __init__(self, function: ast.FunctionDef):
        self.function = function
        self.own: set[str] = set()
        before = -1
        while before != len(self.own):  # what depends on what depends on the thread
            before = len(self.own)
            self._spread(function.body, False)

    def faults(self) -> Iterator[Fault]:
        yield from self._barriers(self.function.body, False)
        for node in ast.walk(self.function):
            if isinstance(node, ast.Subscript) and _is_negative(node.slice):
                yield Fault("negative_index", node.lineno, "a negative index")
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                yield Fault("bare_float", node.lineno, f"{node.value} is float64: make it real({node.value}) outside")

    def _of_thread(self, node: ast.AST) -> bool:
        return any(_is_cuda(each, *OF_THREAD) or _name(each) in self.own for each in ast.walk(node))

    def _spread(self, body: list[ast.stmt], under: bool) -> None:
        """Names that are given a value of the thread, or given any value where only some threads come."""
        for node in body:
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                value = node.value
                if under or (value is not None and self._of_thread(value)):
                    plain = [t for t in targets if not isinstance(t, ast.Subscript)]  # an element is not the thread's
                    self.own.update(n.id for t in plain for n in ast.walk(t) if isinstance(n, ast.Name))
            elif isinstance(node, ast.For):
                inside = under or self._of_thread(node.iter)
                if inside:
                    self.own.update(n.id for n in ast.walk(node.target) if isinstance(n, ast.Name))
                self._spread(node.body, inside)
            elif isinstance(node, ast.While | ast.If):
                inside = under or self._of_thread(node.test)
                self._spread(node.body, inside)
                self._spread(node.orelse, inside)

    def _barriers(self, body: list[ast.stmt], under: bool) -> Iterator[Fault]:
        """Barriers in ``body`` that not all threads reach; ``under``: only some threads come here at all."""
        for node in body:
            if isinstance(node, ast.If | ast.While):
                inside = under or self._of_thread(node.test)
                yield from self._barriers(node.body, inside)
                yield from self._barriers(node.orelse, inside)
                under = under or (inside and any(isinstance(n, ast.Return) for n in ast.walk(node)))
            elif isinstance(node, ast.For):
                inside = under or self._of_thread(node.iter)
                yield from self._barriers(node.body, inside)
            elif under:
                for each in ast.walk(node):
                    if isinstance(each, ast.Call) and _is_cuda(each.func, *BARRIERS):
                        yield Fault("barrier", each.lineno, "a barrier that depends on the thread")


def _is_negative(node: ast.AST) -> bool:
    if isinstance(node, ast.Tuple):
        return any(_is_negative(each) for each in node.elts)
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
