"""The peers that are expressions of arrays compute what the definitions do."""

import importlib
import importlib.util
from typing import Any

import numpy as np
import pytest

from gpunet.errors import ArgumentError, BackendUnavailableError
from tests.cases import CASES
from tests.product import calls, definition

peers: Any = importlib.import_module("gpunet.bench.peers")
DTYPES = {"numpy": "float64", "jax": "float32"}
INSTALLED = [name for name in ("numpy", "jax") if peers.why_not(name) is None]


@pytest.mark.parametrize("name", INSTALLED)
def test_expressions_agree_with_the_definitions(name: str):
    peer = peers.load(name)
    seen: set[str] = set()
    for case in CASES:
        if any(word in case.name for word in ("special", "empty", "inf", "far", "large")):
            continue  # plain expressions lose digits there, and more
        for call in calls(case, DTYPES[name]):
            known = call.entry not in peer.entries() or (name == "jax" and call.entry in seen)  # compiling takes time
            if known or not all(each is None or each.size for each in call.arrays):
                continue
            seen.add(call.entry)
            theirs = peer.bind(call.entry, call.arrays, call.params)()
            for one, other in peer.results(call.entry, definition(call), theirs):
                if np.isfinite(one).all():
                    assert peer.distance(one, other) < 1e-5, (call.entry, str(case))
    assert seen == set(peer.entries())


def test_unknown_and_missing_peers():
    with pytest.raises(
        ArgumentError, match="against: must be one of numpy, torch, jax, cupy or commit:REF, got 'theano'"
    ):
        peers.load("theano")
    if importlib.util.find_spec("cupy") is None:
        with pytest.raises(BackendUnavailableError, match="cupy is not installed; pip install"):
            peers.load("cupy")


def test_dropout_has_nothing_to_compare():
    peer = peers.load("numpy")
    x = np.ones((64, 64), np.float32)
    y = peer.bind("dropout.forward", (x,), {"p": 0.25, "seed": 0, "op": 0})()
    assert peer.results("dropout.forward", y, y) == []
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert 0.7 < np.mean(y > 0) < 0.8
