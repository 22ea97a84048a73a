"""L1, L2 and max-norm: their formulas, which weights they act on, and that training keeps to them."""

from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import nn, optim
from gpunet.errors import ArgumentError
from gpunet.train import L1, L1L2, L2, MaxNorm, Trainer
from tests.training import IMAGES, X, Y, bits, fit, model, small_cnn, trainer


def values(net: Any) -> list[np.ndarray]:
    """Weights of two axes or more, in float64."""
    return [each.data.astype(float) for each in net.parameters() if each.ndim >= 2]


def test_penalties_are_their_formulas():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.PReLU(), nn.Flatten(), nn.Linear(12, 5))
    absolute = sum(np.abs(w).sum() for w in values(net))
    squared = sum((w**2).sum() for w in values(net))
    assert L1(0.3)(net).item() == pytest.approx(0.3 * absolute, rel=1e-5)
    assert L2(0.2)(net).item() == pytest.approx(0.2 * squared, rel=1e-5)
    assert L1L2(0.3, 0.2)(net).item() == pytest.approx(0.3 * absolute + 0.2 * squared, rel=1e-5)
    assert L2(0.0)(net.double()).dtype == np.float64
    last = np.abs(net[4].weight.data).sum()
    assert L1(1.0, layers=net[4])(net).item() == pytest.approx(last, rel=1e-5)
    assert L1(1.0, layers=[net[3:], net[4]])(net).item() == pytest.approx(last, rel=1e-5)  # each weight once
    net[0].freeze()
    assert L1(1.0)(net).item() == pytest.approx(last, rel=1e-5)


def test_gradients_of_the_penalties():
    net: Any = nn.Linear(3, 2)
    w = net.weight.data.copy()
    L1L2(l1=0.5, l2=0.25)(net).backward()
    np.testing.assert_allclose(net.weight.grad.data, 0.5 * np.sign(w) + 0.5 * w, rtol=1e-6)
    assert net.bias.grad is None


def test_l2_is_weight_decay_in_plain_sgd():
    def run(decay: float, penalty: Any) -> dict[str, Any]:
        net = model().double()
        groups = [{"params": [p], "weight_decay": decay * (p.ndim >= 2)} for p in net.parameters()]
        fit(Trainer(net, optim.SGD(groups, lr=0.1), "cross_entropy", regularizer=penalty), epochs=5)
        return {name: value.data for name, value in net.state_dict().items()}

    decayed, penalised, free = run(0.02, None), run(0.0, L2(0.01)), run(0.0, None)
    for name, value in decayed.items():
        np.testing.assert_allclose(penalised[name], value, rtol=1e-9, atol=1e-12)
    assert np.abs(free["0.weight"]).sum() > np.abs(decayed["0.weight"]).sum() * 1.01


def test_l1_drives_more_weights_to_nearly_nothing_than_l2():
    small = {}
    for name, penalty in (("l1", L1(0.02)), ("l2", L2(0.02))):
        net = model()
        fit(Trainer(net, optim.SGD(net.parameters(), lr=0.05), "cross_entropy", regularizer=penalty), epochs=40)
        small[name] = sum((np.abs(w) < 0.01).mean() for w in values(net))
    assert small["l1"] > 2 * small["l2"]


def norms_of(net: Any) -> list[np.ndarray]:
    """The norm of each unit's incoming weights, by a loop over the units."""
    found = []
    for module in net.modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim < 2:
            continue
        w = weight.data.astype(float)
        if isinstance(module, nn.ConvTranspose2d):
            per = w.shape[0] // module.groups
            units = [w[g * per : (g + 1) * per, o] for g in range(module.groups) for o in range(w.shape[1])]
        else:
            units = list(w)
        found.append(np.array([np.sqrt((unit**2).sum()) for unit in units]))
    return found


def test_max_norm_bounds_each_unit_and_touches_no_other():
    gn.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, groups=2), nn.ConvTranspose2d(6, 4, 2, groups=2), nn.BatchNorm2d(4), nn.Linear(5, 7)
    )
    before = [each.data.copy() for each in net.parameters()]
    norms = norms_of(net)
    bound = float(np.median(np.concatenate(norms)))
    MaxNorm(bound)(net)
    for old, new in zip(norms, norms_of(net)):
        np.testing.assert_allclose(new, np.minimum(old, bound), rtol=1e-6)
    for old, new in zip(before, net.parameters()):
        if old.ndim < 2:
            np.testing.assert_array_equal(new.data, old)
    linear, low = net[3].weight.data, norms[2] < bound
    np.testing.assert_array_equal(linear[low], before[-2][low])  # bit for bit
    assert 0 < low.sum() < 7


def test_max_norm_leaves_zeros_frozen_layers_and_other_layers():
    net = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 3), nn.Linear(3, 2))
    net[0].weight.data[...] = 0
    net[1].freeze()
    before = bits(net)
    MaxNorm(1e-3, layers=[net[0], net[1]])(net)
    assert bits(net) == before
    MaxNorm(1e-3)(net)
    assert {name for name, value in bits(net).items() if value != before[name]} == {"2.weight"}


def test_training_keeps_to_the_bound():
    net = model()
    largest: list[float] = []

    def see(output: Any, target: Any) -> float:
        largest.append(max(norm.max() for norm in norms_of(net)))
        return 0.0

    fit(trainer(net, lr=2.0, metrics=(see,), constraint=MaxNorm(0.7)), epochs=3)
    assert len(largest) == 15
    assert max(largest) <= 0.7 * (1 + 1e-6)
    free = model()
    fit(trainer(free, lr=2.0), epochs=3)
    assert max(norm.max() for norm in norms_of(free)) > 1


def test_a_transposed_weight_is_bounded_in_place():
    net = nn.Linear(3, 4)
    array = np.asfortranarray(net.weight.data * 100)
    net.weight.data = array
    MaxNorm(1.0)(net)
    assert net.weight.data is array
    np.testing.assert_allclose(norms_of(net)[0], 1, rtol=1e-6)


def test_a_graph_that_saved_the_weights_says_so():
    net = nn.Linear(6, 3)
    loss = (net(gn.tensor(X).requires_grad_()) ** 2).sum()
    MaxNorm(1e-3)(net)
    with pytest.raises(gn.errors.GraphError, match="MaxNorm"):
        loss.backward()


def test_penalties_act_on_other_dtypes_and_on_images():
    net = small_cnn().double()
    fit(trainer(net, regularizer=L1L2(1e-3, 1e-3), constraint=MaxNorm(0.5)), IMAGES, Y)
    assert net[0].weight.dtype == np.float64
    assert max(norm.max() for norm in norms_of(net)) <= 0.5 * (1 + 1e-12)


def test_wrong_penalties_are_refused():
    for make, message in (
        (lambda: L1(-1.0), "L1: l1 must be at least 0, got -1"),
        (lambda: L2(float("nan")), "L2: l2 must be at least 0, got nan"),
        (lambda: MaxNorm(0), "max_value must be above 0, got 0"),
        (lambda: MaxNorm(-2), "max_value must be at least 0, got -2"),
        (lambda: L2(layers="0"), "layers must be a module, a list of modules or None, got '0'"),
        (lambda: MaxNorm(layers=[]), "layers must be .*got an empty list"),
        (lambda: L2()(nn.BatchNorm1d(3)), "L2: the model must have a weight of two axes or more.*got none"),
        (lambda: MaxNorm(layers=nn.PReLU())(model()), "MaxNorm: these layers must have a weight"),
    ):
        with pytest.raises(ArgumentError, match=message):
            make()
