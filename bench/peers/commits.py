"""Another commit of gpunet as a peer: ``load("commit:HEAD~3")`` runs its kernels beside the present ones.

The commit's tree is unpacked into a folder of its own (``git archive``: the repository is only read) and imported in
this process a second time. Both are called gpunet, so one of them at a time stands in ``sys.modules``: the present one,
but for as long as the other is at work, so that what a launcher imports while it runs is its own too. Changing places
takes about 0.1 ms, and a lane does it once a sample, outside the clock (:class:`gpunet.measure.pairs.Around`): both
sides are timed as bare calls.

The other commit compiles into a folder of its own, and Numba names its cache by a file's folder, so neither side finds
what the other has compiled.
"""

import inspect
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpunet import config
from gpunet.errors import ArgumentError, BackendUnavailableError
from gpunet.measure.pairs import Around

PREFIX = "commit:"
ROOT = Path(config.__file__).resolve().parents[1]  # the checkout whose code is running
PACKAGE = "gpunet"
CODE = ("gpunet", "kernels")  # folders that decide what a kernel does

_loaded: dict[tuple[Path, str], "Commit"] = {}


def why_not(ref: str, root: Path | None = None) -> str | None:
    """None when commit ``ref`` can be unpacked here, else the reason and the remedy."""
    try:
        _resolve(ref, root or ROOT)
    except (ArgumentError, BackendUnavailableError) as error:
        return str(error).removeprefix("against: ")
    return None


def load(ref: str, root: Path | None = None) -> "Commit":
    """The commit as a peer; imported once, however often it is asked for.

    Args:
        ref: anything that names a commit for git: a hash, a tag, a branch, HEAD~3.
        root: the checkout; None for the one whose code is running.

    Raises:
        ArgumentError: there is no such commit, or its gpunet cannot be imported here.
        BackendUnavailableError: git is not installed, or the code that is running lies in no checkout.
    """
    root = root or ROOT
    key = root, _resolve(ref, root)
    if key not in _loaded:
        _loaded[key] = Commit(key[1], root)
    return _loaded[key]


class Commit:
    """One commit, imported beside the present code.

    Args:
        commit: its full hash.
        root: the checkout that knows it.
    """

    KINDS = ("cpu", "cuda")
    LIMITS = True

    def __init__(self, commit: str, root: Path):
        self.hash, date = _git(root, "show", "-s", "--format=%h %cs", commit).decode().split()
        self.folder = Path(tempfile.mkdtemp(prefix="gpunet-commit-"))
        self.close = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)  # at exit at the latest
        with tarfile.open(fileobj=io.BytesIO(_git(root, "archive", "--format=tar", commit))) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 has it, 3.11.2 not
            archive.extractall(self.folder)
        same = not changed(self.folder, root)
        self.NAME = f"commit {self.hash} of {date}{', the same code' if same else ''}"
        self._modules: dict[str, ModuleType] = {}
        self._finder = _Finder(self.folder)
        self.config, self.devices, self.dispatch = map(
            self._import, ("gpunet.config", "gpunet.devices", "gpunet.dispatch")
        )
        self.config.settings.cache = str(self.folder / "cache")

    def _import(self, name: str) -> Any:
        try:
            with self.inside():
                __import__(name)
                return sys.modules[name]
        except Exception as error:  # an old commit may need a library or a Python of its time
            told = f"{type(error).__name__}: {error}"
            raise ArgumentError(
                f"against: gpunet of {self.hash} must import here, got {told}; name a later commit"
            ) from (error)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Inside, ``sys.modules`` holds this commit's modules, and what is imported comes from its tree alone."""
        ours = _of_gpunet()
        try:
            _take_out(ours)
            sys.modules.update(self._modules)
            sys.meta_path.insert(0, self._finder)
            yield
        finally:  # also when Ctrl-C came in between
            if self._finder in sys.meta_path:
                sys.meta_path.remove(self._finder)
            theirs = _of_gpunet()
            self._modules = {name: each for name, each in theirs.items() if ours.get(name) is not each}
            _take_out(theirs)
            sys.modules.update(ours)

    def entries(self) -> tuple[str, ...]:
        """The entries that this commit has."""
        with self.inside():
            return tuple(entry for op in self.dispatch.ops() for entry in self.dispatch.entries(op))

    def bind(
        self, entry: str, arrays: Sequence[Any], params: dict[str, Any],
        backend: str | None = None, variant: str | None = None,
    ) -> Around:  # fmt: skip
        """The commit's own kernel on these arrays, as a call without arguments.

        Args:
            entry: such as "conv2d.grad_w".
            arrays: what the launcher gets: NumPy for the processor, CuPy for a GPU.
            params: its keywords.
            backend: None for what ``use_backend`` asks for at this moment, and without that for the commit's choice.
            variant: likewise.

        Raises:
            ArgumentError: the commit lacks entry, backend or variant, its kernels do not take these arguments, or its
                launcher has other parameters.
        """
        backend, variant = backend or config.wanted_backend(), variant or config.wanted_variant(entry)
        self.config.settings.poison = config.settings.poison  # outputs cost the same on both sides
        with self.inside():
            kernel = self._find(entry, tuple(arrays), params, backend, variant)
        try:
            inspect.signature(kernel.function).bind(*arrays, **params)
        except TypeError as error:
            given = ", ".join([f"{len(arrays)} arrays", *params])
            told = f"launcher {kernel.function.__name__} of {entry} in {self.hash} must take ({given})"
            got = inspect.signature(kernel.function)
            raise ArgumentError(f"against: {told}, got {got}; its calls differ ({error}): compare outside") from None
        return Around(partial(kernel.function, *arrays, **params), self.inside)

    def _find(
        self, entry: str, arrays: tuple[Any, ...], params: dict[str, Any], backend: str | None, variant: str | None
    ) -> Any:
        """The kernel; called inside."""
        dispatch, op = self.dispatch, entry.partition(".")[0]
        if op not in dispatch.ops() or entry not in dispatch.entries(op):
            raise ArgumentError(f"against: the commit must have entry {entry}, {self.hash} lacks it; name a later one")
        try:
            with _asked(self.config.use_backend, backend), _asked(partial(self.config.use_variant, entry), variant):
                return dispatch.find(self._place(arrays), entry, arrays, params)
        except Exception as error:  # the other commit's errors are classes of its own
            asked = "/".join(each for each in (backend, variant) if each) or "a kernel"
            told = f"{self.hash} must have {asked} for this call of {entry}"
            raise ArgumentError(f"against: {told}, got {error}") from error

    def _place(self, arrays: tuple[Any, ...]) -> Any:
        """The other commit's device that the arrays lie on."""
        on_gpu = [each.device.id for each in arrays if type(each).__module__.partition(".")[0] == "cupy"]
        return self.devices.device(f"cuda:{on_gpu[0]}" if on_gpu else "cpu")

    def results(self, entry: str, ours: Any, theirs: Any) -> list[tuple[Any, Any]]:
        """Pairs of outputs that must agree: every one with its own.

        Raises:
            ArgumentError: one side returns more than the other.
        """
        first, second = (each if isinstance(each, tuple) else (each,) for each in (ours, theirs))
        if len(first) != len(second):
            told = f"{entry} must return as many arrays in {self.hash} as here, {len(first)}"
            raise ArgumentError(f"against: {told}, got {len(second)}; name a later commit")
        return [pair for pair in zip(first, second, strict=True) if pair[0] is not None]

    def distance(self, ours: Any, theirs: Any) -> float:
        """Largest difference over the largest value; inf for another shape, or for NaN on one side alone."""
        wanted, got = (np.asarray(each.get() if hasattr(each, "get") else each, np.float64) for each in (ours, theirs))
        if got.shape != wanted.shape:
            return float("inf")
        apart = (got != wanted) & ~(np.isnan(got) & np.isnan(wanted))
        if not apart.any():
            return 0.0
        with np.errstate(invalid="ignore"):
            found = float(np.abs(got - wanted)[apart].max()) / (float(np.abs(wanted).max()) or 1.0)
        return found if np.isfinite(found) else float("inf")

    def precise(self, tf32: bool = False) -> AbstractContextManager[None]:
        """Nothing to set: kernels compute in the dtype of their arrays."""
        return nullcontext()

    def threads(self, count: int) -> AbstractContextManager[Any]:
        """Inside, the thread pools that both sides share have so many threads."""
        from threadpoolctl import threadpool_limits

        return threadpool_limits(count)


class _Finder:
    """Finds this commit's modules in its tree, and nowhere else: an editable install would offer the present ones."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """The place of a module of gpunet; None for any other, which is shared."""
        if not _is_ours(name):
            return None
        spec = PathFinder.find_spec(name, [self.folder] if path is None else path, target)
        if spec is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return spec


def _is_ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _of_gpunet() -> dict[str, ModuleType]:
    """The modules of gpunet in ``sys.modules``."""
    return {name: each for name, each in sys.modules.items() if _is_ours(name)}


def _take_out(modules: dict[str, ModuleType]) -> None:
    for name in modules:
        sys.modules.pop(name, None)


def _asked(setting: Callable[[str], AbstractContextManager[None]], name: str | None) -> AbstractContextManager[None]:
    return nullcontext() if name is None else setting(name)


def changed(folder: Path, root: Path) -> list[str]:
    """Files of the code, tests and documents aside, that are not the same in both trees."""

    def texts(place: Path) -> dict[str, bytes]:
        files = [
            each for part in CODE for each in (place / part).rglob("*") if each.suffix in (".py", ".cu", ".cuh", ".h")
        ]
        return {str(each.relative_to(place)): each.read_bytes() for each in files}

    one, other = texts(folder), texts(root)
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


def _resolve(ref: str, root: Path) -> str:
    """The full hash of a commit."""
    try:
        _git(root, "ls-files", "--error-unmatch", f"{PACKAGE}/config.py")
    except FileNotFoundError:
        raise BackendUnavailableError("against: another commit needs git, which is not installed; install it") from None
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().partition("\n")[0]
        remedy = "run gpunet from a clone of its repository"
        raise BackendUnavailableError(f"against: another commit needs a git checkout, got {told}; {remedy}") from None
    try:
        return _git(root, "rev-parse", "--verify", f"{ref}^{{commit}}").decode().strip()
    except subprocess.CalledProcessError:
        remedy = "`git log --oneline` lists commits; a shallow clone holds few of them"
        raise ArgumentError(f"against: commit:REF must name a commit, got {ref!r}; {remedy}") from None


def _git(root: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True).stdout
