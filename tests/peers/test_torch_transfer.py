"""Transfer learning in both libraries."""

import importlib
import json

import numpy as np
import pytest

from gpunet import data
from gpunet.examples import transfer as ours

pytest.importorskip("torch", reason='PyTorch is not installed; pip install "gpunet[peers]"')
pytestmark = pytest.mark.peers
transfer = importlib.import_module("gpunet.bench.peers.transfer")  # it imports PyTorch


def test_what_is_frozen_stays_and_the_rest_moves():
    digits = data.load("digits8")
    images, labels = ours.a_few(digits, 20, 0)
    x = ours.enlarged(images)
    states = {way: transfer.theirs(way, x, labels, 3, 0).state_dict() for way in ours.WAYS}
    frozen, tuned = ([each.numpy() for each in states[way].values()] for way in ("frozen", "fine-tuned"))
    state = ours.trained("frozen", x, labels, 3, 0).model.state_dict()
    for here, there in zip([np.array(each.data) for each in state.values()][:-2], frozen[:-2], strict=True):
        np.testing.assert_array_equal(here, there)  # below the last layer the weights of the package, in both
    assert all((one != other).any() for one, other in zip(frozen[:2], tuned[:2], strict=True))


def test_the_table_and_the_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    asked = ["--labels", "50", "--seeds", "1", "--epochs", "12", "--json", str(tmp_path / "found.json")]
    assert transfer.main(asked) == 0
    told, found = capsys.readouterr().out, json.loads((tmp_path / "found.json").read_text())
    (run,) = found["runs"]
    assert list(run["ways"]) == ["scratch", "frozen", "fine-tuned"]
    for library in ("gpunet", "torch"):
        (accuracy,) = run["ways"]["fine-tuned"][library]
        assert accuracy > 0.8
        assert f"{accuracy:.1%}" in told


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--labels", "5"], "--labels must be as many of each of the ten digits, 10, 20 and so on, got 5"),
        (["--labels", "50", "55"], "and so on, got 55"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--epochs", "-1"], "--epochs must be at least 1, got -1"),
    ],
)
def test_what_cannot_be_done_is_refused(asked, told, capsys):
    with pytest.raises(SystemExit):
        transfer.main(asked)
    assert told in " ".join(capsys.readouterr().err.split())
