"""Files of a user's kernels, and what `gpunet check` and `gpunet bench` say of them, on small sizes."""

import copy
import gc
import json
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import gpunet as gn
from gpunet import cli, cuda, dispatch
from gpunet.measure import calls, info
from tests.registry import own_kernels_forgotten

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "gpunet" / "examples"
NAMES = ("numpy", "numba_cpu", "numba_cuda", "cupy", "cupy_file")
no_gpu = pytest.mark.skipif(cuda.why_no_cupy() is None, reason="this machine has a GPU")


COLLECT = info.collect


@cache
def machine() -> dict[str, Any]:
    """What is known of this machine, looked at once; every backend counts as one that has kernels."""
    found = COLLECT()
    for place in found["devices"]:
        for each in place["backends"]:
            each["kernels"] = 1
    return found


@pytest.fixture(autouse=True, scope="module")
def _few_objects() -> Iterator[None]:
    """A proof collects garbage again and again; what is there before need not be looked at each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small sizes alone, and no kernels left behind by the files that tests import."""
    sizes = calls.suites.sizes
    monkeypatch.setattr(calls.suites, "sizes", lambda op, tiers: sizes(op, ("proof",)) if "proof" in tiers else [])
    monkeypatch.setattr(info, "collect", lambda: copy.deepcopy(machine()))
    monkeypatch.setenv("COLUMNS", "200")
    with own_kernels_forgotten():
        yield


def ran(capsys: Any, *words: str) -> tuple[int, str, str]:
    status = cli.main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def written(folder: Path, text: str, name: str = "my_kernels.py") -> str:
    head = "import numpy as np\nimport gpunet as gn\nfrom gpunet.kernels.common.launching import contiguous, empty\n"
    (folder / name).write_text(head + textwrap.dedent(text))
    return str(folder / name)


def checked(capsys: Any, *files: str, status: int = 0) -> list[dict[str, Any]]:
    found, out, _ = ran(capsys, "check", *files, "--json", "-")
    assert found == status, out
    return json.loads(out)["kernels"]


def need_both_proofs(row: dict[str, Any]) -> None:
    for part in (row, row["gradient"]):
        assert part["status"] == "passed"
        assert part["proofs"] - part["refused"] >= 2
        assert part["reached"] <= part["allowed"]


def only_kernel(entry: str, function: Any, backend: str = "numpy", variant: str = "mine", **more: Any) -> Any:
    gn.kernel(entry, backend=backend, variant=variant, **more)(function)
    return next(each for each in dispatch.variants(entry, backend) if each.variant == variant)
