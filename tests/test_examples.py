"""Every example runs at a small size, and its docstring shows what it prints."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpunet.errors import DeviceError
from tests.registry import own_kernels_forgotten


@pytest.fixture(autouse=True)
def _same_kernels() -> Iterator[None]:
    with own_kernels_forgotten():
        yield


def drawn(name: str) -> bool:
    """Whether the example wrote its picture, and something is on it."""
    return Path(f"{name}.png").stat().st_size > 5_000


@pytest.mark.parametrize(
    ("name", "arguments", "enough"),
    [
        ("linear_regression", {"steps": 100}, lambda result: abs(result[0] - 3) < 0.1),
        ("logistic_regression", {"epochs": 12}, lambda result: result > 0.9),
        ("softmax_digits", {"epochs": 8}, lambda result: result > 0.92),
        ("train_reference_cnn", {"epochs": 1, "images": 64}, lambda result: 0 <= result <= 1),
        ("augmentation", {}, lambda result: len(result) == 16),
        (
            "overfitting",
            {"images": 100, "epochs": 40, "ways": ("too small", "too large")},
            # by heart, and not so on what it has not seen; the small one not even that
            lambda result: (
                result["too large"]["accuracy"] > 0.9 > 0.8 > result["too large"]["val_accuracy"]
                and result["too small"]["accuracy"] < 0.8
            ),
        ),
        ("overfitting", {"images": 300, "epochs": 1}, lambda result: len(result) == 8),
        (
            "optimizers_compared",
            {"epochs": 2, "rates": (0.1, 0.01)},
            lambda result: (
                len(result) == 8
                and result["gradient descent"].last["loss"] == max(each.last["loss"] for each in result.values())
            ),
        ),
        (
            "activations",
            {"epochs": 1},
            lambda result: result["sigmoid"][0] < 1e-4 < 1e-2 < min(result["tanh"][0], result["PReLU"][0]),
        ),
        (
            "ensemble",
            {"seeds": (0, 1), "epochs": 1, "images": 64, "tested": 50},
            lambda result: len(result.members) == 2 and result.samples == 50,
        ),
        (
            "gpu_against_cpu",
            {"images": 8, "tested": 8, "epochs": 1},
            lambda result: len(result) == 2 and min(result.values()) > 0,
        ),
        (
            "transfer",
            {"labels": (20,), "seeds": 1, "epochs": 9},
            lambda result: min(result[20]["frozen"] + result[20]["fine-tuned"]) > result[20]["scratch"][0] + 0.1,
        ),
        ("own_op", {}, lambda result: abs(result - 0.25) < 1e-6),
        ("own_kernel_numpy", {"size": 1000, "repeats": 2}, lambda result: set(result) == {"reference", "bit_mask"}),
    ],
)
def test_examples_run_and_print_what_their_docstring_shows(capsys, tmp_path, monkeypatch, name, arguments, enough):
    monkeypatch.chdir(tmp_path)  # they write a picture
    sys.modules.pop(f"gpunet.examples.{name}", None)  # so that its kernel is registered, whoever imported it before
    module = importlib.import_module(f"gpunet.examples.{name}")
    assert enough(module.main(**arguments))
    out, told = capsys.readouterr().out, module.__doc__ or ""
    assert re.search(rf"\$ python -m gpunet\.examples\.{name}\n    \S", told)  # and its output
    if not name.startswith("own_kernel"):
        assert drawn(name)
        assert out.endswith(f"\n{name}.png written\n")
        assert f"\n    {name}.png written\n" in told
    if name in ("linear_regression", "own_op", "augmentation"):  # nothing but a speed in these depends on the machine
        for line in out.splitlines():
            assert line in told or line.startswith("speed:")


def test_what_cannot_be_measured_without_a_gpu_is_said(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module("gpunet.examples.gpu_against_cpu")

    def none(spec: str) -> None:
        raise DeviceError(f"device: '{spec}' cannot be used here: no driver")

    monkeypatch.setattr(module.gn, "device", none)
    assert set(module.main(images=8, tested=8, epochs=1)) == {"cpu, numpy", "cpu, numba_cpu"}
    out = capsys.readouterr().out
    assert out.startswith("a GPU could not be measured: device: 'cuda' cannot be used here: no driver\n")
    difference = re.search(r"differ by (\S+) of themselves", out)
    assert difference
    assert float(difference.group(1)) < 1e-3
