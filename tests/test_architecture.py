"""Who may import whom: each module only what stands on its own floor or below, and GPU libraries through one door."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: module or room -> its floor; the longest name that fits decides
FLOORS = {
    "gpunet.config": 0, "gpunet.errors": 0, "gpunet.floats": 0, "gpunet.modes": 0, "gpunet.versions": 0,
    "gpunet.cpu": 0, "gpunet.cuda": 0,
    "gpunet.dispatch": 1, "gpunet.watch": 1, "gpunet.devices": 1, "gpunet.random": 1, "gpunet.kernels": 1,
    "gpunet.tensor": 2, "gpunet.graph": 2, "gpunet.anomaly": 2, "gpunet.backward": 2, "gpunet.picture": 2,
    "gpunet.creation": 2, "gpunet.ops": 2,
    "gpunet.functional": 2, "gpunet.gradcheck": 2, "gpunet.gradreport": 2, "gpunet.explain": 2,
    "gpunet.nn": 3, "gpunet.optim": 3,
    "gpunet.train": 4, "gpunet.data": 4, "gpunet.io": 4, "gpunet.plot": 4,
    "gpunet.measure": 5, "gpunet.bench": 5,
    "gpunet.cli": 6, "gpunet.__main__": 6, "gpunet.examples": 6,
    "gpunet.bench.peers.transfer": 6,  # a program about one of the examples
    "gpunet": 6,
}  # fmt: skip

#: imports that go up on purpose, inside a function: (module, imported) -> why
UPWARDS = {
    ("gpunet.config", "gpunet.devices"): "use_backend refuses unknown names at once, and only devices knows them",
    ("gpunet.config", "gpunet.dispatch"): "use_variant refuses unknown rungs at once, and only dispatch knows them",
}

#: rooms that must not know kernels or backends, though those stand below
BLIND = {"gpunet.nn": ("gpunet.kernels",), "gpunet.optim": ("gpunet.kernels",), "gpunet.train": ("gpunet.kernels",)}

GPU_LIBRARIES = ("cupy", "cupyx", "cuda", "numba_cuda", "pynvml")
TOP_OF_IMPORT = ("numba", "numba_cuda", "cupy", "matplotlib", "rich", "torch", "safetensors", "PIL", "onnx")


class Import(NamedTuple):
    """One import statement: the module it is in, what it names, and where."""

    importer: str
    imported: str
    line: int
    local: bool


def modules() -> dict[str, Path]:
    """Every module of gpunet, kernels and bench under its import name."""
    found = {}
    for room in ("gpunet", "kernels", "bench"):
        for path in sorted((ROOT / room).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if room == "gpunet" else ("gpunet", *parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path
    return found


MODULES = modules()


def imports(name: str, path: Path) -> Iterator[Import]:
    """Every import of a module, also those inside functions and by import_module("...")."""
    tree = ast.parse(path.read_text())
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([node.module] if node.module else [])])
            full = [f"{base}.{each.name}" for each in node.names]
            targets = [each if each in MODULES else base for each in full]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module" and node.args:
            argument = node.args[0]
            targets = [argument.value] if isinstance(argument, ast.Constant) and isinstance(argument.value, str) else []
        for target in targets:
            yield Import(name, target, getattr(node, "lineno", 0), id(node) in inside)


def named(name: str, table: dict[str, int]) -> str | None:
    """The longest name in the table that is ``name`` or a package around it."""
    while name and name not in table:
        name = name.rpartition(".")[0]
    return name or None


def floor_of(name: str) -> int:
    """The floor of a module of gpunet."""
    found = named(name, FLOORS)
    assert found is not None, name
    return FLOORS[found]


@pytest.mark.parametrize("name", MODULES)
def test_module_imports_only_its_own_floor_and_below(name: str):
    assert named(name, FLOORS) != "gpunet" or name == "gpunet", f"{name} needs a floor in tests/test_architecture.py"
    for each in imports(name, MODULES[name]):
        if each.imported.partition(".")[0] != "gpunet" or floor_of(each.imported) <= floor_of(name):
            continue
        allowed = each.local and (name, each.imported) in UPWARDS
        assert allowed, (
            f"{name}:{each.line} (floor {floor_of(name)}) imports {each.imported} (floor {floor_of(each.imported)})"
        )


def test_allowed_upward_imports_are_still_there():
    found = {(each.importer, each.imported) for name, path in MODULES.items() for each in imports(name, path)}
    assert set(UPWARDS) <= found


@pytest.mark.parametrize("room", BLIND)
def test_room_does_not_know_kernels(room: str):
    for name, path in MODULES.items():
        if name == room or name.startswith(f"{room}."):
            for each in imports(name, path):
                assert not each.imported.startswith(BLIND[room]), f"{name}:{each.line} imports {each.imported}"


@pytest.mark.parametrize("name", MODULES)
def test_gpu_libraries_are_imported_by_one_door(name: str):
    if name == "gpunet.cuda" or name.startswith("gpunet.cuda."):
        return
    for each in imports(name, MODULES[name]):
        wrong = each.imported.partition(".")[0] in GPU_LIBRARIES or each.imported.startswith("numba.cuda")
        assert not wrong, f"{name}:{each.line} imports {each.imported}; go through gpunet.cuda"


@pytest.mark.parametrize("name", MODULES)
def test_only_config_reads_the_environment(name: str):
    if name == "gpunet.config":
        return
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
            reads = isinstance(node.value, ast.Name) and node.value.id == "os"
            assert not reads, f"{name}:{node.lineno} reads the environment; gpunet/config.py does"


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("gpunet.ops.")])
def test_ops_do_not_know_backends(name: str):
    for each in imports(name, MODULES[name]):
        parts = each.imported.split(".")
        in_kernels = each.imported.startswith("gpunet.kernels.")
        assert not in_kernels or parts[2] == "common", f"{name}:{each.line} imports {each.imported}, a kernel by name"


def test_import_is_light_and_silent(tmp_path):
    code = f"import sys, gpunet; print([name for name in {TOP_OF_IMPORT!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert done.stderr == ""
