"""Another commit as a peer: two trees of gpunet in one process, each running its own kernels."""

import importlib
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpunet import config, devices, dispatch
from gpunet.errors import ArgumentError, BackendUnavailableError
from gpunet.measure import pairs

peers: Any = importlib.import_module("gpunet.bench.peers")
commits: Any = importlib.import_module("gpunet.bench.peers.commits")

MARK_FILE = "/".join(("gpunet", "_mark.py"))  # of the other tree alone
ROOT = Path(__file__).resolve().parents[1]
KERNEL = "kernels/relu/relu_numpy.py"
HONEST = "    return np.maximum(x, 0)\n"
NUMBA = "import numba\n\n\n@numba.njit(cache=True)\ndef filled(x):\n    return x * 0 + {}\n"
#: commit -> what stands in relu's kernel there instead, and what else is written
EDITS = {
    "slow": ("    return [np.maximum(x, 0) for _ in range(20)][0]\n", {}),
    "wrong": ("    return np.maximum(x, 1)\n", {}),
    "lazy": (
        "    from gpunet._mark import MARK\n\n    return np.full_like(x, MARK)\n",
        {MARK_FILE: "MARK = 7.0\n"},
    ),
    "numba_five": (
        "    from gpunet._mark import filled\n\n    return filled(x)\n",
        {MARK_FILE: NUMBA.format(5)},
    ),
    "numba_six": (
        "    from gpunet._mark import filled\n\n    return filled(x)\n",
        {MARK_FILE: NUMBA.format(6)},
    ),
    "broken": (HONEST, {}),
    "other_parameters": (HONEST, {}),
}
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "-c", "commit.gpgsign=false")


def git(root: Path, *arguments: str) -> str:
    done = subprocess.run([*GIT, *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the present code, and one branch for each edit of relu's kernel."""
    root = tmp_path_factory.mktemp("repository") / "clone"
    unwanted = shutil.ignore_patterns("__pycache__", "embedded", "measure", "nn", "train", "optim", "examples", "cli")
    for part in ("gpunet", "kernels", "bench"):
        shutil.copytree(ROOT / part, root / part, ignore=unwanted)
    git(root, "init", "--quiet", "--initial-branch=main")
    honest = (root / KERNEL).read_text()
    assert honest.count(HONEST) == 1
    _commit(root)
    for name, (code, files) in EDITS.items():
        git(root, "checkout", "--quiet", "-b", name, "main")
        text = honest.replace(HONEST, code)
        if name == "other_parameters":
            text = text.replace("def relu_forward_reference(x", "def relu_forward_reference(x, slope")
        if name == "broken":
            text = text.replace("import numpy", "import no_such_module\nimport numpy")
        (root / KERNEL).write_text(text)
        for path, content in files.items():
            (root / path).write_text(content)
        _commit(root)
    git(root, "checkout", "--quiet", "main")
    return root


def _commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "x", "--date", "2026-01-02T03:04:05Z")


@pytest.fixture(autouse=True)
def _checkout(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(commits, "ROOT", repository)
    monkeypatch.setattr(config.settings, "poison", False)
    with config.use_backend("numpy"):
        yield
    for each in commits._loaded.values():
        each.close()
    commits._loaded.clear()


X = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)


def ours() -> Any:
    return partial(dispatch.find(devices.CPU, "relu.forward", (X,), {}).function, X)


def modules() -> dict[str, int]:
    return {name: id(each) for name, each in sys.modules.items() if name.partition(".")[0] == "gpunet"}


def test_the_same_commit_is_called_the_same_code(repository: Path):
    peer = peers.load("commit:main")
    assert peer.NAME.endswith(", the same code")
    assert peer.NAME.startswith(f"commit {git(repository, 'rev-parse', '--short', 'main')} of 20")
    assert np.array_equal(peer.bind("relu.forward", (X,), {})(), ours()())
    assert peer is peers.load("commit:main")
    slow = peers.load("commit:slow")
    assert "same" not in slow.NAME
    assert commits.changed(slow.folder, repository) == [KERNEL]


def test_two_commits_run_their_own_code_in_one_process_and_ours_is_left_alone():
    before, path, finders = modules(), list(sys.path), list(sys.meta_path)
    wrong, slow = peers.load("commit:wrong"), peers.load("commit:slow")
    assert np.array_equal(wrong.bind("relu.forward", (X,), {})(), np.maximum(X, 1))
    assert np.array_equal(slow.bind("relu.forward", (X,), {})(), np.maximum(X, 0))
    assert np.array_equal(ours()(), np.maximum(X, 0))
    assert modules() == before
    assert sys.path == path
    assert sys.meta_path == finders


def test_what_a_launcher_imports_while_it_runs_is_its_own():
    call = peers.load("commit:lazy").bind("relu.forward", (X,), {})
    assert (call() == 7).all()
    lane = pairs.Lane([call])
    lane.sample()
    assert "gpunet.mark" not in sys.modules


def test_a_module_that_the_commit_lacks_is_not_taken_from_the_present_tree():
    peer = peers.load("commit:main")
    assert importlib.util.find_spec("gpunet.measure")
    with peer.inside(), pytest.raises(ModuleNotFoundError, match=r"No module named 'gpunet\.measure'"):
        importlib.import_module("gpunet.measure")
    with peer.inside():
        assert Path(sys.modules["gpunet"].__file__ or "").is_relative_to(peer.folder)


def test_modules_are_put_back_when_a_call_raises():
    peer, before = peers.load("commit:main"), modules()
    call = peer.bind("relu.forward", (X,), {})
    with pytest.raises(KeyboardInterrupt):
        pairs.Around(lambda: (_ for _ in ()).throw(KeyboardInterrupt()), call.setting)()
    assert modules() == before
    assert np.array_equal(call(), ours()())


def test_a_slower_commit_is_found_to_be_slower_and_only_its_bare_call_is_timed():
    call = peers.load("commit:slow").bind("relu.forward", (X,), {})
    lane = pairs.Lane([call, call])
    assert lane.calls == [call.call] * 2
    found = pairs.compare(pairs.Lane([ours()]), lane, pairs.Limits(seconds=0.5))
    assert found.verdict == "slower"
    assert found.ratio > 20 / 3


def test_the_setting_is_entered_once_a_sample_and_outside_the_clock(monkeypatch: pytest.MonkeyPatch):
    events: list[str] = []

    class Setting:
        def __enter__(self) -> None:
            events.append("in")

        def __exit__(self, *_: Any) -> None:
            events.append("out")

    lane = pairs.Lane([pairs.Around(lambda: events.append("call"), Setting)] * 2, sample=0)
    assert events == ["in", *["call"] * 4, "out"]
    events.clear()
    monkeypatch.setattr(pairs.timer, "clock", lambda: events.append("clock") or 0.0)
    lane.sample()
    assert events == ["in", "clock", "call", "clock", "out"]


def test_both_sides_compile_into_folders_of_their_own():
    peer = peers.load("commit:main")
    with peer.inside():
        store = importlib.import_module("gpunet.cuda.store")
        assert store.folder("cubin").is_relative_to(peer.folder)
    assert config.settings.cache != peer.config.settings.cache


def test_numba_finds_in_its_cache_what_the_same_commit_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    numba: Any = importlib.import_module("numba")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # one folder for both, as NUMBA_CACHE_DIR makes it
    for name, value in (("numba_five", 5), ("numba_six", 6)):
        assert (peers.load(f"commit:{name}").bind("relu.forward", (X,), {})() == value).all()
    assert len([*tmp_path.rglob("*.nbi")]) == 2


def test_backend_and_variant_can_be_asked_for():
    peer = peers.load("commit:main")
    assert "relu.forward" in peer.entries()
    found = peer.bind("relu.forward", (X,), {}, backend="numpy", variant="reference")
    assert found.call.func.__name__ == "relu_forward_reference"
    with pytest.raises(ArgumentError, match=r"must have numpy/nonsense for this call of relu\.forward, got no variant"):
        peer.bind("relu.forward", (X,), {}, backend="numpy", variant="nonsense")
    with pytest.raises(
        ArgumentError, match=r"must have cupy for this call of relu\.forward, got backend 'cupy' cannot"
    ):
        peer.bind("relu.forward", (X,), {}, backend="cupy")


def test_outputs_are_compared_all():
    peer = peers.load("commit:main")
    one, other = np.array([1.0, np.nan, -np.inf]), np.array([1.0, np.nan, -np.inf])
    assert peer.distance(one, other) == 0
    assert peer.distance(one, np.array([1.0, 2.0, -np.inf])) == float("inf")
    assert peer.distance(np.array([4.0, 1.0]), np.array([4.0, 3.0])) == 0.5
    assert peer.distance(np.zeros((2, 1)), np.zeros(2)) == float("inf")
    assert len(peer.results("x.forward", (one, other), (one, other))) == 2
    with pytest.raises(ArgumentError, match=r"must return as many arrays in .* as here, 1, got 2"):
        peer.results("x.forward", one, (one, other))


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("no_such_branch", r"commit:REF must name a commit, got 'no_such_branch'; `git log"),
        ("--all", r"commit:REF must name a commit, got '--all'"),
        ("", r"commit:REF must name a commit, got ''"),
    ],
)
def test_no_such_commit(ref: str, reason: str):
    assert peers.why_not("commit:main") is None
    with pytest.raises(ArgumentError, match=reason):
        peers.load(f"commit:{ref}")
    assert (peers.why_not(f"commit:{ref}") or "").startswith("commit:REF must")


def test_no_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commits, "ROOT", tmp_path)
    with pytest.raises(BackendUnavailableError, match="needs a git checkout, got fatal: not a git repository"):
        peers.load("commit:HEAD")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git, which is not installed" in (peers.why_not("commit:HEAD") or "")


def test_what_a_commit_lacks_is_said():
    with pytest.raises(ArgumentError, match=r"the commit must have entry matmul\.backward, .* lacks it"):
        peers.load("commit:main").bind("matmul.backward", (X,), {})
    with pytest.raises(ArgumentError, match=r"launcher relu_forward_reference of relu\.forward in .* must take"):
        peers.load("commit:other_parameters").bind("relu.forward", (X,), {})
    with pytest.raises(ArgumentError, match=r"must have numpy for this call of relu\.forward, got"):
        peers.load("commit:broken").bind("relu.forward", (X,), {})


def test_the_folder_is_gone_when_the_process_ends(repository: Path, tmp_path: Path):
    code = (
        "import importlib, pathlib; commits = importlib.import_module('gpunet.bench.peers.commits'); "
        f"peer = commits.load('main', pathlib.Path({str(repository)!r})); print(peer.folder, peer.folder.is_dir())"
    )
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    folder, there = done.stdout.split()
    assert there == "True"
    assert Path(folder).parent == tmp_path
    assert not Path(folder).exists()
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "worktree", "list").count("\n") == 0
