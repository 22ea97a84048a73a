"""Every example in a docstring runs and shows what it says; so does every Python block of the README."""

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpunet
from gpunet.errors import BackendUnavailableError
from tests.registry import own_kernels_forgotten

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
#: module -> what its examples use, though importing it does not: import name and extra
NEEDS = {
    "gpunet.io.onnx.export": ("onnx", "onnx"),
    "gpunet.io.onnx.module": ("onnx", "onnx"),
    "gpunet.data.readers.image": ("PIL", "data"),
}


def names() -> list[str]:
    """Every importable module of gpunet, the kernels' and the suites' included."""
    found = ["gpunet", *(module.name for module in pkgutil.walk_packages(gpunet.__path__, "gpunet.", onerror=print))]
    return [name for name in found if not name.endswith("__main__")]


@pytest.fixture
def _same_registry() -> Iterator[None]:
    """A kernel that an example registers is gone afterwards."""
    with own_kernels_forgotten():
        yield


@pytest.mark.usefixtures("_same_registry")
@pytest.mark.parametrize("name", names())
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # some write files
    if name in NEEDS:
        package, extra = NEEDS[name]
        pytest.importorskip(package, reason=f"{package} is not installed; pip install 'gpunet[{extra}]'")
    try:
        module = importlib.import_module(name)
    except (ModuleNotFoundError, BackendUnavailableError) as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("gpunet"):
            raise
        pytest.skip(f"{name} needs a package that is not installed: {error}")
    result = doctest.testmod(module, optionflags=OPTIONS)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples failed; see the output above"


def blocks() -> list[str]:
    """The Python blocks of the README, in order."""
    path = ROOT / "README.md"
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL) if path.is_file() else []


@pytest.mark.usefixtures("_same_registry")
def test_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert blocks(), "README.md has no Python block"
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks()):  # one after another, as a reader would type them
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, f"block {number}", "README.md", 0)
            result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, clear_globs=False)
            assert result.failed == 0, f"block {number} of README.md"
            names.update(test.globs)
        else:
            exec(compile(block, f"README.md, block {number}", "exec"), names)
