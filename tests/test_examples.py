"""Every example runs at a small size, and its docstring shows what it prints."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.registry import own_kernels_forgotten


@pytest.fixture(autouse=True)
def _same_kernels() -> Iterator[None]:
    with own_kernels_forgotten():
        yield


@pytest.mark.parametrize(
    ("name", "arguments", "enough"),
    [
        ("linear_regression", {"steps": 100}, lambda result: abs(result[0] - 3) < 0.1),
        ("softmax_digits", {"epochs": 8}, lambda result: result > 0.92),
        ("train_reference_cnn", {"epochs": 1, "images": 64}, lambda result: 0 <= result <= 1),
        ("augmentation", {}, lambda result: len(result) == 16 and Path("augmentation.png").stat().st_size > 10_000),
        ("own_op", {}, lambda result: abs(result - 0.25) < 1e-6),
        ("own_kernel_numpy", {"size": 1000, "repeats": 2}, lambda result: set(result) == {"reference", "bit_mask"}),
    ],
)
def test_examples_run_and_print_what_their_docstring_shows(capsys, tmp_path, monkeypatch, name, arguments, enough):
    monkeypatch.chdir(tmp_path)  # some write a picture
    sys.modules.pop(f"gpunet.examples.{name}", None)  # so that its kernel is registered, whoever imported it before
    module = importlib.import_module(f"gpunet.examples.{name}")
    assert enough(module.main(**arguments))
    out = capsys.readouterr().out
    assert f"$ python -m gpunet.examples.{name}" in (module.__doc__ or "")
    if name in ("linear_regression", "own_op", "augmentation"):  # nothing but a speed in these depends on the machine
        for line in out.splitlines():
            assert line in module.__doc__ or line.startswith("speed:")
