"""What keeps the kernels' house in order: names, ladders, headers, docstrings, and that every kernel is tried."""

import ast
import doctest
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gpunet as gn
import gpunet.kernels
from gpunet import config, devices, dispatch
from gpunet import functional as F
from gpunet.cuda.source import kernel_names
from gpunet.dispatch import REFERENCE, Kernel
from tests.cases import CASES
from tests.product import Proof, calls, definition
from tests.tolerances import outputs

ROOT = Path(__file__).resolve().parents[1]
OPS = dispatch.ops()
ENTRIES = [entry for op in OPS for entry in dispatch.entries(op)]
#: files of gpunet/ops that own no kernels, each with what it is instead
WITHOUT_KERNELS = {
    "checks": "argument checks that ops share",
    "elementwise": "arithmetic, straight to the array library",
    "pointwise": "functions of one number, straight to the array library",
    "reduce": "sums and extremes, straight to the array library",
    "shape": "views, indexing, joining, straight to the array library",
    "inplace": "changes in place, straight to the array library",
    "conv_transpose2d": "conv2d.grad_x under another name",
    "losses": "composed of tensor ops",
}


def own_kernels(entry: str) -> list[Kernel]:
    """The project's kernels of an entry on all backends; a user's own, registered by a doctest, do not count."""
    homes = [str(Path(each).resolve()) for each in gpunet.kernels.__path__]
    found = [kernel for name in devices.BACKENDS for kernel in dispatch.variants(entry, name)]
    return [kernel for kernel in found if any(str(Path(kernel.file).resolve()).startswith(home) for home in homes)]


def test_kernels_and_bench_are_no_top_level_packages():
    # Another package is called kernels, and its build hook breaks a checkout whose root has kernels/__init__.py.
    for room in ("kernels", "bench"):
        assert not (ROOT / room / "__init__.py").exists()
        assert (ROOT / room / "README.md").is_file(), "gpunet finds the folder in a clone by this file"


def test_op_files_and_kernel_folders_agree():
    files = {path.stem for path in (ROOT / "gpunet" / "ops").glob("*.py")} - {"__init__"}
    assert files - set(WITHOUT_KERNELS) == set(OPS)


def launched() -> dict[str, set[str]]:
    """Entry -> the files of gpunet/ops that launch it, read from their source."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "gpunet" / "ops").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "launch":
                entry = node.args[1]
                assert isinstance(entry, ast.Constant), f"{path.name}:{node.lineno}: an entry is written out"
                found.setdefault(str(entry.value), set()).add(path.stem)
    return found


def test_ops_launch_exactly_the_entries_that_exist():
    found = launched()
    assert set(found) == set(ENTRIES)
    assert {entry: files for entry, files in found.items() if entry.partition(".")[0] not in files} == {}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_has_its_definition(entry: str):
    op = entry.partition(".")[0]
    (only,) = [kernel for kernel in own_kernels(entry) if kernel.variant == REFERENCE]
    assert only.backend == "numpy"
    assert only.file.endswith(f"{op}/{op}_numpy.py")


@pytest.mark.parametrize("op", OPS)
def test_ladder_is_what_is_registered(op: str):
    title = dispatch.title(op)
    found = {kernel.variant for entry in dispatch.entries(op) for kernel in own_kernels(entry)} - {REFERENCE}
    assert set(title.LADDER) == found
    assert all(line and line == line.strip() for line in (*title.LADDER.values(), *title.ENTRIES.values()))


@pytest.mark.parametrize("entry", ENTRIES)
def test_launchers_have_their_names_and_one_signature(entry: str):
    op, _, part = entry.partition(".")
    kernels = own_kernels(entry)
    for kernel in kernels:
        assert kernel.function.__name__ == f"{op}_{part}_{kernel.variant}"
        assert Path(kernel.file).parent.name == op
        assert Path(kernel.file).stem.endswith(f"_{kernel.backend}")
    shapes = {
        str(inspect.signature(kernel.function).replace(return_annotation=inspect.Signature.empty)) for kernel in kernels
    }
    assert len(shapes) == 1, f"launchers of {entry} differ: {shapes}"


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_kernel_is_tried_by_a_case(entry: str):
    for kernel in own_kernels(entry):
        taken = any(Proof(case, entry, kernel, "float32").calls for case in CASES)
        assert taken, f"no case in tests/cases.py makes a call that {kernel.name} takes"


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*/[!_]*_*.py")), ids=lambda path: path.stem)
def test_kernel_file_has_its_header(path: Path):
    op = path.parent.name
    if op == "common":
        return
    lines = path.read_text().split("\n")
    assert lines[0].startswith(f'"""{op} on ')
    assert f"# op: gpunet/ops/{op}.py" in lines[1:20]


@pytest.mark.parametrize("path", sorted((ROOT / "kernels").glob("*/*.cu")), ids=lambda path: path.stem)
def test_every_cuda_kernel_has_its_header(path: Path):
    text = path.read_text()
    titles = re.findall(r"^// (\w+)(?=:|$)", text, re.MULTILINE)
    lacking = [name for name in kernel_names(text) if name not in titles]
    assert not lacking, "above it write // <name> and the fixed fields, or // <name>: as <another>, but ..."


@pytest.mark.parametrize("entry", ENTRIES)
def test_work_counts_what_is_read_and_written(entry: str):
    title = dispatch.title(entry.partition(".")[0])
    for case in CASES:
        for call in calls(case, "float32"):
            if call.entry != entry:
                continue
            work = title.work(entry, *call.arrays, **call.params)
            # The definition in float64 writes twice the bytes, but for integers; so its arrays are counted one by one.
            wrote = sum(4 * a.size if a.dtype.kind == "f" else a.nbytes for a in outputs(definition(call)))
            assert all(isinstance(each, int) and each >= 0 for each in work), f"{case}: {work}"
            assert work.bytes_written == wrote, f"{case}: {work}, but the outputs hold {wrote} bytes"
            assert work.bytes_read <= sum(a.nbytes for a in call.arrays if a is not None), f"{case}: {work}"


PATH = re.compile(r"(?<![\w./-])((?:gpunet|kernels|bench|tests)/[\w./-]*\w(?:\.\w+|/)?)")


ABSENT = ("kernels/__init__.py", "bench/__init__.py")  # named to say that they must not exist


def _sources() -> list[Path]:
    found = [p for room in ("gpunet", "kernels", "bench", "tests") for p in (ROOT / room).rglob("*.py")]
    found += (ROOT / "kernels").rglob("*.cu*")
    return sorted(p for p in found if "__pycache__" not in p.parts)


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_named_in_comments_and_docstrings_exist(path: Path):
    text = path.read_text()
    for match in PATH.finditer(text):
        named = match.group(1).rstrip(".")
        if text[match.end() : match.end() + 1] in ("<", "*", "{"):  # a pattern, such as kernels/<op>/
            continue
        assert named in ABSENT or (ROOT / named).exists(), (
            f"{path.relative_to(ROOT)} names {named}, which does not exist"
        )


# ------------------------------------------------------------------------------------------------ public functions

SECTIONS = ("Args", "Returns", "Raises", "Precision", "Kernels", "Source", "Example")
FUNCTIONS = {name: value for name, value in vars(F).items() if inspect.isfunction(value)}


def sections(function: Callable[..., Any]) -> list[str]:
    """The section headings of a docstring, in order."""
    return re.findall(r"^([A-Z]\w+):$", inspect.getdoc(function) or "", re.MULTILINE)


def documented(function: Callable[..., Any]) -> list[str]:
    """The parameters that the Args section lists, in order."""
    doc = inspect.getdoc(function) or ""
    block = re.search(r"^Args:\n((?:(?:    .*)?\n)+)", doc + "\n", re.MULTILINE)
    return re.findall(r"^    (\w+(?:, \w+)*):", block.group(1), re.MULTILINE) if block else []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional_docstring_is_complete(name: str):
    function = FUNCTIONS[name]
    assert [each for each in sections(function) if each in SECTIONS] == list(SECTIONS)
    assert documented(function) == list(inspect.signature(function).parameters)
    assert doctest.DocTestParser().get_examples(inspect.getdoc(function) or ""), "the example must run"
    first = (inspect.getdoc(function) or "").split("\n")[0]
    assert first.endswith((".", ")")), "the first line is a sentence"
    assert not first.startswith("This function"), "the first line says the result"


PUBLIC = {name: value for name, value in vars(gn).items() if not name.startswith("_") and inspect.isfunction(value)}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_docstring_fits_the_signature(name: str):
    function = PUBLIC[name]
    parameters = [each for each in inspect.signature(function).parameters if each not in ("args", "kwargs")]
    assert (inspect.getdoc(function) or "").strip(), f"gn.{name} has no docstring"
    if documented(function):
        assert documented(function) == parameters


def test_every_op_is_public_under_its_name():
    assert set(OPS) <= set(FUNCTIONS)


def _readme() -> str:
    return (ROOT / "README.md").read_text()


def test_readme_has_the_table_of_variables():
    rows = dict(re.findall(r"^\|\s*`(GPUNET_[A-Z_<>]+)`\s*\|\s*(.+?)\s*\|\s*$", _readme(), re.MULTILINE))
    assert set(rows) == set(config.VARIABLES)
