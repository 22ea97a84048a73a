"""Chains of small ops: what they compute, and that another library that computes something else is not timed."""

from types import SimpleNamespace

import numpy as np
import pytest

import gpunet as gn
from gpunet.cli import main
from gpunet.errors import GpunetError
from gpunet.measure import chains


@pytest.mark.parametrize("name", chains.CHAINS)
def test_a_chain_has_as_many_ops_as_it_says(name: str):
    seen, x = 0, gn.tensor(chains.NUMBERS, requires_grad=True)
    node = chains.CHAINS[name](chains.OURS, x, gn.tensor(chains.SCALE), gn.tensor(chains.SHIFT))._node
    while node is not None:
        seen += 1
        (target,) = {edge[0] for edge in node.edges if edge is not None}
        node = None if target is x else target
    assert seen == chains.OPS


def test_each_call_is_a_pass_of_its_own():
    run = chains.call("add_mul", chains.OURS)
    wanted = 0.99 ** (chains.OPS // 2)
    for _ in range(2):  # a gradient left behind would be added to
        np.testing.assert_allclose(run().numpy(), wanted, rtol=1e-4)


def test_figures_are_of_one_op():
    found = chains.costs(seconds=0.0)
    assert [each.step for each in found] == [f"chain {name}" for name in chains.CHAINS]
    run = chains.call("add_mul", chains.OURS)
    from gpunet.measure import timer

    begin = timer.clock()
    run()
    assert all(each.low <= each.median <= each.high for each in found)
    assert found[0].median < (timer.clock() - begin) / 10  # a thousandth of a chain, not the chain
    assert {each.peer for each in found} == {""}
    assert {each.ratio for each in found} == {None}


def test_a_library_beside_it_is_timed_in_turns():
    row = chains._beside("mixed", chains.OURS, "itself", seconds=0.0)
    assert row.peer == "itself"
    ratio, low, high, theirs = row.ratio or 0.0, row.ratio_low or 0.0, row.ratio_high or 0.0, row.theirs or 0.0
    assert low <= ratio <= high
    assert 0.1 < ratio < 10
    assert theirs == pytest.approx(row.median, rel=10)


def test_a_library_with_other_gradients_is_not_timed():
    wrong = chains.OURS._replace(tanh=lambda x: gn.functional.tanh(x) * 1.001)
    with pytest.raises(GpunetError, match="chain mixed: its gradients must agree with other's"):
        chains._beside("mixed", wrong, "other", seconds=0.0)


def test_the_library_of_a_peer_stands_beside_it(monkeypatch):
    peers = pytest.importorskip("gpunet.bench.peers")
    pytest.importorskip("torch")
    asked = []
    monkeypatch.setattr(chains, "_beside", lambda name, library, peer, seconds: asked.append((name, library, peer)))
    chains.costs("torch", seconds=0.0)
    assert [name for name, _, _ in asked] == list(chains.CHAINS)
    assert {peer for _, _, peer in asked} == {peers.load("torch").NAME}
    y = asked[0][1].tanh(asked[0][1].tensor(chains.NUMBERS, True))
    assert y.requires_grad
    np.testing.assert_allclose(y.detach().numpy(), np.tanh(chains.NUMBERS), rtol=1e-6)


def test_the_command_takes_torch_alone(capsys):
    assert main(["bench", "--host", "--against", "numpy"]) == 2
    assert "--host goes with --against torch alone, got numpy" in capsys.readouterr().err


def test_the_table_shows_ratios_only_beside_a_library():
    from gpunet.cli.bench import _chains_table

    plain = [SimpleNamespace(step="chain relu", median=4e-6, peer="")]
    both = [
        SimpleNamespace(
            step="chain relu", median=4e-6, peer="x 1", theirs=6e-6, ratio=1.5, ratio_low=1.25, ratio_high=2
        )
    ]
    assert [column.header for column in _chains_table(plain).columns] == ["chain", "gpunet"]
    cells = [list(column.cells) for column in _chains_table(both).columns]
    assert cells == [["relu"], ["4.00"], ["6.00"], ["1.50 [1.25, 2.00]"]]
