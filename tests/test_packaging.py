"""What is built holds every kernel and nothing that would clash, and works from a wheel, an sdist and a plain clone."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IGNORED = shutil.ignore_patterns(
    ".git", "__pycache__", "*.egg-info", "build", "dist", ".*_cache", ".hypothesis", "*.pyc", ".venv", "gpunet-report"
)
JOB = """
import gpunet as gn
a = gn.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
(a @ a).sum().backward()
print(gn.__file__)
print((a @ a).tolist(), a.grad.tolist())
print(len(gn.list_kernels()))
"""


def kernels_here() -> int:
    """How many kernels of its own the checkout has, counted in a fresh process."""
    return int(python("import gpunet as gn; print(len(gn.list_kernels()))", ROOT, path=str(ROOT)))


def python(code: str, cwd: Path, path: str) -> str:
    """Standard output of ``code`` run from ``cwd``, with ``path`` as PYTHONPATH."""
    env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def check_job(output: str, home: Path) -> None:
    """The job ran on the gpunet under ``home``, gave the right numbers and found every kernel."""
    file, numbers, kernels = output.split("\n")
    assert Path(file).is_relative_to(home), f"{file} is not under {home}"
    assert numbers == "[[7.0, 10.0], [15.0, 22.0]] [[7.0, 11.0], [9.0, 13.0]]"
    assert int(kernels) == kernels_here()


def version_of(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree as a clone has it, so that a build leaves nothing in the checkout."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("clone") / "gpunet", ignore=IGNORED))


@pytest.fixture(scope="module")
def built(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with an sdist, and the wheel built from that sdist."""
    if version_of("build") is None:  # find_spec would take a folder build/ in the checkout for it
        pytest.skip('the package build is not installed; pip install ".[test]"')
    fresh = int((version_of("setuptools") or "0").partition(".")[0]) >= 77
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(clone)]
    command += ["--no-isolation"] if fresh else []  # else build fetches what pyproject.toml asks for
    done = subprocess.run(command, cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


def wanted() -> dict[str, str]:
    """File of the checkout -> its place in the wheel."""
    places = {}
    for path in (ROOT / "gpunet").rglob("*"):
        if path.suffix in (".py", ".npz", ".html", ".css") or path.name in ("py.typed", "LICENSES.md"):
            places[str(path.relative_to(ROOT))] = str(path.relative_to(ROOT))
    for room in ("kernels", "bench"):
        for init in (ROOT / room).glob("*/__init__.py"):
            for path in init.parent.rglob("*"):
                if path.suffix in (".py", ".cu", ".cuh", ".h"):
                    places[str(path.relative_to(ROOT))] = f"gpunet/{path.relative_to(ROOT)}"
    return {file: place for file, place in places.items() if "__pycache__" not in file}


@pytest.mark.slow
def test_wheel_holds_everything_and_no_more(wheel: Path):
    held = set(zipfile.ZipFile(wheel).namelist())
    missing = {place for place in wanted().values() if place not in held}
    assert not missing
    tops = {name.partition("/")[0] for name in held}
    assert tops == {"gpunet", *(name for name in tops if name.endswith(".dist-info"))}, tops
    assert any(name.endswith(".npz") for name in held)
    assert any("LICENSE" in name and ".dist-info" in name for name in held)


@pytest.mark.slow
def test_wheel_names_its_metadata(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
    text = archive.read(name).decode()
    assert "License-Expression: MIT" in text
    assert text.count("License-File: ") >= 2
    entry = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "gpunet = gpunet.cli:main" in entry


@pytest.mark.slow
def test_sdist_holds_everything(built: Path):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert set(wanted()) <= held
    assert {"README.md", "LICENSE", "CHANGELOG.md", "kernels/README.md", "bench/README.md", "setup.py"} <= held
    assert "tests/cases.py" in held
    assert "kernels/__init__.py" not in held


@pytest.mark.slow
def test_wheel_works_from_elsewhere(wheel: Path, tmp_path: Path):
    home = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(home), str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    check_job(python(JOB, elsewhere, path=str(home)), home)
    python("import gpunet.functional, gpunet.nn, gpunet.optim, gpunet.kernels.conv2d", elsewhere, path=str(home))


@pytest.mark.slow
def test_unpacked_sdist_works(built: Path, tmp_path: Path):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 has it, 3.11.2 not
        archive.extractall(tmp_path)
    (home,) = tmp_path.iterdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    check_job(python(JOB, elsewhere, path=str(home)), home)


def test_plain_clone_works(clone: Path, tmp_path: Path):
    check_job(python(JOB, tmp_path, path=str(clone)), clone)


def test_another_package_called_kernels_wins(clone: Path, tmp_path: Path):
    for name in ("kernels", "bench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("WHO = 'the other one'")
    code = "import kernels, bench; print(kernels.WHO, bench.WHO); import gpunet.kernels.conv2d as c; print(c.__name__)"
    # In the clone's own folder, where a kernels/__init__.py would come first.
    lines = python(code, clone, path=str(tmp_path) + os.pathsep + str(clone)).split("\n")
    assert lines == ["the other one the other one", "gpunet.kernels.conv2d"]
