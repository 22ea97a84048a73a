"""Breaks the NumPy kernels on purpose, one small change at a time, and looks whether the tests' product notices.

    python tests/mutants.py [OP or common file ...]

Each mutant is one change to one expression: ``<`` to ``<=``, ``+`` to ``-``, a number by one, two arguments exchanged,
a scaling left out. It is put into the loaded kernel, and every call that tests/cases.py makes of that op is run again:
the float64 result against the oracle, the float32 result against the definition, as in tests/test_forward.py and
tests/test_backward.py; for the helpers in kernels/common also each op as a whole. A mutant that nothing notices is
printed with its line. Those that change no result are listed in :data:`EQUIVALENT`, each with its reason.
"""

import ast
import copy
import importlib
import sys
import types
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import gpunet as gn  # noqa: E402 the checkout comes first
import tests.oracles_pointwise  # noqa: E402
from gpunet import config, dispatch  # noqa: E402
from tests.cases import CASES, Case  # noqa: E402
from tests.oracles import ORACLES  # noqa: E402
from tests.product import DTYPES, calls, definition, random_like, wanted_of  # noqa: E402
from tests.tolerances import assert_near, assert_within  # noqa: E402

assert tests.oracles_pointwise

#: (file, part of a line) -> how many changes of that line make no difference, and why
EQUIVALENT: dict[tuple[str, str], tuple[int, str]] = {
    ("adaptive_avg_pool2d/adaptive_avg_pool2d_numpy.py", "strict=True"): (1, "the lengths are equal"),
    ("adaptive_max_pool2d/adaptive_max_pool2d_numpy.py", "inside_y[:, None"): (
        2,
        "what repeats the last element wins nothing; any negative size is -1",
    ),
    ("adaptive_max_pool2d/adaptive_max_pool2d_numpy.py", "place = "): (1, "any negative size is -1"),
    ("adaptive_max_pool2d/adaptive_max_pool2d_numpy.py", "first_pixel = "): (1, "two axes of size 1"),
    ("avg_pool2d/avg_pool2d_numpy.py", "strict=True"): (1, "the lengths are equal"),
    ("batch_norm/batch_norm_numpy.py", "reshape(-1, "): (1, "any negative size is -1"),
    ("batch_norm/batch_norm_numpy.py", "count = "): (2, "there is a channel"),
    ("batch_norm/batch_norm_numpy.py", "if x.size else 1"): (2, "it multiplies a sum of nothing"),
    ("dropout/dropout_numpy.py", "CHUNK = "): (3, "how much is drawn at once"),
    ("dropout/dropout_numpy.py", "span=1"): (2, "every caller names it"),
    ("dropout/dropout_numpy.py", "if span > 1"): (2, "repeating once changes nothing"),
    ("dropout/dropout_numpy.py", "threshold = "): (2, "a bound above 2**32 is never reached but by p = 1"),
    ("dropout/dropout_numpy.py", "scale = "): (1, "all words are below this threshold"),
    ("dropout/dropout_numpy.py", "in range(0, masks"): (2, "parts that overlap are drawn twice, and are the same"),
    ("dropout/dropout_numpy.py", "count = min(4 * CHUNK"): (1, "parts that overlap are drawn twice, and are the same"),
    ("dropout/dropout_numpy.py", "words = stream_words"): (1, "more words than are used"),
    ("dropout/dropout_numpy.py", "words >= threshold"): (1, "one word of 2**32"),
    ("leaky_relu/leaky_relu_numpy.py", "negative_slope * x"): (1, "at 0 both sides are 0"),
    ("max_pool2d/max_pool2d_numpy.py", "strict=True"): (1, "the lengths are equal"),
    ("prelu/prelu_numpy.py", "w.reshape(())"): (1, "any negative size is -1"),
    ("prelu/prelu_numpy.py", "np.where(x > 0, x, "): (1, "at 0 both sides are 0"),
    ("prelu/prelu_numpy.py", "slopes = "): (1, "at 0 both sides are 0"),
    ("common/erf.py", "CHUNK = "): (3, "how much is computed at once"),
    ("common/erf.py", "reshape(-1)"): (1, "any negative size is -1"),
    ("common/erf.py", "near = "): (1, "what lies beyond 1 is replaced by the tail"),
    ("common/erf.py", "tail = "): (1, "both formulas hold at 1"),
    ("common/erf.py", "u = "): (1, "beyond 6 the tail rounds to nothing"),
    ("common/philox.py", "reshape(-1)"): (1, "any negative size is -1"),
    ("common/philox.py", "broadcast_shapes"): (1, "the order of shapes means nothing"),
    ("common/shapes.py", "dilation: int = 1"): (4, "every caller names it"),
    ("common/shapes.py", "dtype.itemsize"): (2, "counted by tests/test_kernels_contract.py"),
    ("common/shapes.py", "return (out - 1) * stride"): (7, "more padding than is needed"),
    ("common/windows.py", "dilation=(1, 1)"): (2, "every caller names it, or gets room to spare"),
    ("common/windows.py", "bottom = max("): (5, "more padding than is needed"),
    ("common/windows.py", "right = max("): (5, "more padding than is needed"),
    ("common/windows.py", "stops - starts"): (2, "longer windows, of which the rest is masked"),
}

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.BitXor: ast.BitOr, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.RShift: ast.LShift, ast.Pow: ast.Mult,
}  # fmt: skip
NAMES = {"maximum": "minimum", "minimum": "maximum", "max": "min", "min": "max", "argmax": "argmin", "zeros": "ones"}
NAMES |= {"log1p": "expm1", "exp": "log", "sum": "mean", "any": "all", "ones": "zeros"}
COMMUTATIVE = ("maximum", "minimum", "max", "min", "multiply", "swapaxes")  # exchanged arguments change nothing


class Mutant(NamedTuple):
    """One change: where, what stood there, what stands there now, and the changed module."""

    file: str
    line: int
    source: str
    old: str
    new: str
    tree: ast.Module

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.old}  ->  {self.new}"


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in place of ``node``."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS:
        yield ast.Compare(node.left, [COMPARISONS[type(node.ops[0])]()], node.comparators)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
        if isinstance(node.op, ast.Mult | ast.Div | ast.Add | ast.Sub):
            yield node.left  # the other side left out
    elif isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield ast.AugAssign(node.target, OPERATORS[type(node.op)](), node.value)
        yield ast.Pass()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield ast.Constant(node.value + 1)
        if node.value:
            yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.Call) and len(node.args) >= 2 and _name(node.func) not in COMMUTATIVE:
        yield ast.Call(node.func, [*node.args[:-2], node.args[-1], node.args[-2]], node.keywords)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield ast.Attribute(node.value, NAMES[node.attr], node.ctx)
    elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, ast.If):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)


def _name(function: ast.expr) -> str:
    return getattr(function, "attr", getattr(function, "id", ""))


def mutants(path: Path) -> Iterator[Mutant]:
    """Every single change of a file."""
    source = path.read_text()
    tree = ast.parse(source)
    quiet = {
        id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for d in f.decorator_list for n in ast.walk(d)
    }
    places = [k for k, node in enumerate(ast.walk(tree)) if id(node) not in quiet]
    for k in places:
        node = list(ast.walk(tree))[k]
        for number, _ in enumerate(changes(node)):
            fresh = copy.deepcopy(tree)
            target = list(ast.walk(fresh))[k]
            new = list(changes(target))[number]
            old_text = ast.unparse(target)
            replaced = _Replace(target, new)
            fresh = ast.fix_missing_locations(replaced.visit(fresh))
            name = str(path.relative_to(ROOT / "kernels"))
            line = getattr(node, "lineno", 1)
            text = source.split("\n")[line - 1]
            yield Mutant(name, line, text, _short(old_text), _short(ast.unparse(new)), fresh)


def _short(text: str) -> str:
    line = text.split("\n")[0]
    return line if len(line) <= 60 else line[:57] + "..."


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


class Loaded:
    """A kernel module whose functions and constants can be exchanged, and put back."""

    def __init__(self, path: Path):
        parts = path.relative_to(ROOT).with_suffix("").parts
        self.module = importlib.import_module(".".join(("gpunet", *parts)))
        own = self.module.__name__
        self.functions = {
            name: value
            for name, value in vars(self.module).items()
            if isinstance(value, types.FunctionType) and value.__module__ == own
        }
        self.codes = {name: _parts(value) for name, value in self.functions.items()}
        self.values = dict(vars(self.module))

    def put(self, tree: ast.Module) -> None:
        """Takes over the code of every function, and every constant, from a changed module."""
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = []
        space = dict(self.values)
        exec(compile(tree, self.module.__name__, "exec"), space)
        for name in names:
            _take(self.functions[name], _parts(space[name]))
        for name, value in space.items():
            if name.isupper():
                setattr(self.module, name, value)

    def restore(self) -> None:
        """Everything as it was."""
        for name, parts in self.codes.items():
            _take(self.functions[name], parts)
        for name, value in self.values.items():
            if name.isupper():
                setattr(self.module, name, value)


def _parts(function: Any) -> tuple[Any, Any, Any]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _take(function: Any, parts: tuple[Any, Any, Any]) -> None:
    function.__code__, function.__defaults__, function.__kwdefaults__ = parts


class Jury:
    """All calls that the cases make of some ops, with what they must give."""

    def __init__(self, ops: set[str], whole: bool):
        self.checks = []
        for case in CASES:
            for dtype in DTYPES:
                for call in calls(case, dtype):
                    if call.entry.partition(".")[0] in ops:
                        exact = dtype == "float64"
                        wanted = ORACLES[call.entry](*call.arrays, **call.params) if exact else definition(call)
                        kernel = dispatch.variants(call.entry, "numpy")[0]
                        self.checks.append((kernel.function, call, wanted))
        used = {
            case for case in CASES if whole and any(c.entry.partition(".")[0] in ops for c in calls(case, "float64"))
        }
        self.whole = [(case, _results(case)) for case in CASES if case in used]

    def notices(self) -> bool:
        """Whether some result is wrong, or some call fails."""
        try:
            with np.errstate(all="ignore"):
                for function, call, wanted in self.checks:
                    assert_within(function(*call.arrays, **call.params), wanted, call, "")
                for case, wanted in self.whole:
                    for one, other in zip(_results(case), wanted, strict=True):
                        assert_near(one, other, np.float64, 10 + other.size, "")
        except Exception:  # a mutant that raises, whatever it raises, is noticed too
            return True
        return False


def _results(case: Case) -> list[np.ndarray]:
    tensors = case.draw("float64")
    y = case.run(*tensors)
    grads = gn.grad(y, wanted_of(tensors), random_like(y, np.random.default_rng(5)), allow_unused=True)
    return [each.data.copy() for each in (y, *grads) if each is not None]


def files(wanted: list[str]) -> list[tuple[Path, set[str]]]:
    """Each file to be mutated, with the ops that its functions run in."""
    kernels = sorted((ROOT / "kernels").glob("*/*_numpy.py"))
    text = {path.parent.name: path.read_text() for path in kernels}
    found = [(path, {path.parent.name}) for path in kernels]
    for path in sorted((ROOT / "kernels" / "common").glob("[!_]*.py")):
        users = {op for op, source in text.items() if f"common.{path.stem} import" in source}
        if path.stem == "shapes":  # windows.py builds on it, and so do the op files
            users |= {op for op, source in text.items() if "common.windows import" in source}
        if users:  # what serves other backends alone is broken in those backends' own tests
            found.append((path, users))
    return [(path, ops) for path, ops in found if not wanted or path.stem.removesuffix("_numpy") in wanted]


def tell_apart(found: list[Mutant], known: Counter[tuple[str, str]]) -> list[Mutant]:
    """Those of the survivors that EQUIVALENT does not explain; what it explains is counted in ``known``."""
    unknown = []
    for mutant in found:
        rule = next((key for key in EQUIVALENT if key[0] == mutant.file and key[1] in mutant.source), None)
        if rule is not None and known[rule] < EQUIVALENT[rule][0]:
            known[rule] += 1
        else:
            unknown.append(mutant)
    return unknown


def main(wanted: list[str]) -> int:
    """Prints the table and the survivors; 1 if one survived that is not known to be equivalent."""
    config.settings.poison = True
    survivors: list[Mutant] = []
    known: Counter[tuple[str, str]] = Counter()
    print(f"{'file':<60} mutants  caught  equivalent  survived")
    for path, ops in files(wanted):
        loaded, jury = Loaded(path), Jury(ops, whole=path.parent.name == "common")
        assert not jury.notices(), f"{path} is wrong before it is changed"
        total, alive = 0, []
        for mutant in mutants(path):
            total += 1
            try:
                loaded.put(mutant.tree)
                noticed = jury.notices()
            except Exception:  # it does not even load
                noticed = True
            finally:
                loaded.restore()
            if not noticed:
                alive.append(mutant)
        unknown = tell_apart(alive, known)
        survivors += unknown
        equal = len(alive) - len(unknown)
        name = str(path.relative_to(ROOT))
        print(f"{name:<60} {total:>7}  {total - len(alive):>6}  {equal:>10}  {len(unknown):>8}", flush=True)
    for mutant in survivors:
        print(f"survived  {mutant}    in: {mutant.source.strip()}")
    for key, (count, _) in EQUIVALENT.items() if not wanted else ():
        if known[key] != count:
            print(f"EQUIVALENT says {count} for {key}, and {known[key]} survived")
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
