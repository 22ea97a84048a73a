"""Optimizers: first steps computed by hand, groups, state, refusals."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import nn, optim
from gpunet.errors import ArgumentError, DTypeError, GraphError, ShapeError


def leaf(*values: float) -> gn.Tensor:
    return gn.tensor(np.array(values), requires_grad=True)


def steps(optimizer: optim.Optimizer, p: gn.Tensor, *gradients: float) -> list[float]:
    """The value of ``p`` after a step with each gradient."""
    values = []
    for g in gradients:
        p.grad = gn.tensor(np.full(p.shape, g))
        optimizer.step()
        values.append(p.data.flat[0].item())
    return values


# -- rules, by hand ----------------------------------------------------------------------------------------------

# p starts at 1, the gradients are 2, then -1, then 4; expected are the values after each step.
BY_HAND = {
    "sgd": (lambda p: optim.SGD([p], lr=0.1), [0.8, 0.9, 0.5]),
    "sgd_momentum": (lambda p: optim.SGD([p], 0.1, 0.5), [0.8, 0.8, 0.4]),  # v: 2, 0, 4
    "sgd_dampening": (lambda p: optim.SGD([p], 0.1, 0.5, 0.5), [0.8, 0.75, 0.525]),  # v: 2, 1 - 0.5, 0.25 + 2
    "sgd_nesterov": (lambda p: optim.SGD([p], 0.1, 0.5, nesterov=True), [0.7, 0.8, 0.2]),  # g + v/2: 3, -1, 6
    "sgd_decay": (lambda p: optim.SGD([p], 0.1, weight_decay=1.0), [0.7, 0.73, 0.257]),  # g + p: 3, -0.3, 4.73
    "sgd_maximize": (lambda p: optim.SGD([p], 0.1, maximize=True), [1.2, 1.1, 1.5]),
    "sgd_maximize_decay": (lambda p: optim.SGD([p], 0.1, weight_decay=1.0, maximize=True), [1.1, 0.89, 1.201]),
    "adagrad": (  # s: 4, 5, 21
        lambda p: optim.Adagrad([p], 0.1, eps=0.0),
        [0.9, 0.9 + 0.1 / math.sqrt(5), 0.9 + 0.1 / math.sqrt(5) - 0.4 / math.sqrt(21)],
    ),
    "adagrad_options": (  # s: 5, then 6 with rate 0.1 / 1.5, and 22 with 0.1 / 2
        lambda p: optim.Adagrad([p], 0.1, 0.5, initial_accumulator_value=1.0, eps=1.0),
        list(np.cumsum([1 - 0.2 / (5**0.5 + 1), 0.1 / 1.5 / (6**0.5 + 1), -0.05 * 4 / (22**0.5 + 1)])),
    ),
    "rmsprop": (  # s: 1, 1, 4.75
        lambda p: optim.RMSprop([p], 0.1, 0.75, 0.0),
        [0.8, 0.9, 0.9 - 0.4 / math.sqrt(4.75)],
    ),
    "rmsprop_eps": (lambda p: optim.RMSprop([p], 0.1, 0.75, 1.0), [0.9, 0.95, 0.95 - 0.4 / (math.sqrt(4.75) + 1)]),
    "rmsprop_momentum": (  # v: 2, 0.5 * 2 - 1 = 0, 4 / sqrt(4.75)
        lambda p: optim.RMSprop([p], 0.1, 0.75, 0.0, momentum=0.5),
        [0.8, 0.8, 0.8 - 0.4 / math.sqrt(4.75)],
    ),
    "rmsprop_centered": (  # s: 1, 1, 4.75; m: 0.5, 0.125, 1.09375
        lambda p: optim.RMSprop([p], 0.1, 0.75, 0.0, centered=True),
        list(np.cumsum([1 - 0.2 / 0.75**0.5, 0.1 / (1 - 1 / 64) ** 0.5, -0.4 / (4.75 - 1.09375**2) ** 0.5])),
    ),
    "adam": (  # m: 1, 0, 2 over 1/2, 3/4, 7/8; v: 1, 1, 4.75 over 1/4, 7/16, 37/64
        lambda p: optim.Adam([p], 0.1, (0.5, 0.75), 0.0),
        [0.9, 0.9, 0.9 - 0.1 * (2 / (7 / 8)) / math.sqrt(4.75 / (37 / 64))],
    ),
    "adam_eps_decay": (  # g + p = 3: m 1.5, v 2.25, so 3 / (3 + eps)
        lambda p: optim.Adam([p], 0.1, (0.5, 0.75), 1.0, 1.0),
        [1 - 0.1 * 3 / 4],
    ),
    "adam_maximize": (lambda p: optim.Adam([p], 0.1, eps=0.0, maximize=True), [1.1]),
    "adamw": (lambda p: optim.AdamW([p], 0.1, (0.5, 0.75), 0.0, 1.0), [0.9 - 0.1, 0.8 * 0.9]),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_steps_are_those_computed_by_hand(name: str):
    make, expected = BY_HAND[name]
    p = leaf(1.0, 1.0)
    found = steps(make(p), p, 2.0, -1.0, 4.0)
    np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-12)
    assert p.data[0] == p.data[1]


def test_amsgrad_divides_by_the_largest_so_far():
    plain, largest = leaf(0.0), leaf(0.0)
    a = steps(optim.Adam([plain], 1.0, (0.0, 0.5), 0.0), plain, 8.0, 1.0)
    b = steps(optim.Adam([largest], 1.0, (0.0, 0.5), 0.0, amsgrad=True), largest, 8.0, 1.0)
    assert a[0] == b[0]
    # v: 32, then 16.5, corrected by 1 - 0.25
    assert a[1] - a[0] == pytest.approx(-1 / math.sqrt(16.5 / 0.75))
    assert b[1] - b[0] == pytest.approx(-1 / math.sqrt(32 / 0.75))


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.05, 0.9, weight_decay=1e-4, nesterov=True),
        lambda p: optim.Adagrad(p, 0.9),
        lambda p: optim.RMSprop(p, 0.02, 0.9, momentum=0.5),
        lambda p: optim.RMSprop(p, 0.02, 0.9, centered=True),
        lambda p: optim.Adam(p, 0.1, amsgrad=True),
        lambda p: optim.AdamW(p, 0.1, weight_decay=1e-4),
    ],
)
def test_every_rule_finds_the_bottom_of_a_bowl(make: Any):
    p = gn.tensor(np.array([3.0, -2.0]), requires_grad=True)
    optimizer = make([p])
    curvature, bottom = gn.tensor(np.array([1.0, 4.0])), gn.tensor(np.array([1.0, 0.5]))
    for _ in range(400):
        optimizer.zero_grad()
        (curvature * (p - bottom) * (p - bottom)).sum().backward()
        optimizer.step()
    # RMSprop's steps stay as long as lr = 0.02 near the bottom, so it circles there at that distance.
    np.testing.assert_allclose(p.data, bottom.data, atol=0.02)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", BY_HAND)
def test_step_keeps_array_dtype_and_gradient(name: str, dtype: Any):
    p = gn.ones(2, 3, dtype=dtype, requires_grad=True)
    scalar = gn.tensor(np.ones((), dtype), requires_grad=True)
    optimizer = BY_HAND[name][0](p)
    optimizer.add_param_group({"params": scalar, "lr": np.float64(0.1)})
    for _ in range(2):
        array, place = p.data, scalar.data
        p.grad, scalar.grad = gn.full((2, 3), 2.0).to(dtype), gn.tensor(np.full((), 2.0, dtype))
        before = p.grad.data.copy()
        optimizer.step()
        assert p.data is array
        assert scalar.data is place
        assert (p.dtype, scalar.dtype) == (dtype, dtype)
        np.testing.assert_array_equal(p.grad.data, before)
        np.testing.assert_allclose(scalar.data, p.data[0, 0], rtol=1e-6)
    assert all(v.dtype == dtype for v in optimizer.state.get(p, {}).values() if hasattr(v, "dtype"))


def test_parameter_without_gradient_stays():
    a, b = leaf(1.0), leaf(1.0)
    optimizer = optim.Adam([a, b], 0.1)
    a.grad = gn.tensor(np.array([1.0]))
    optimizer.step()
    assert b.item() == 1.0
    assert b not in optimizer.state


def test_step_is_seen_by_a_graph_that_needs_the_old_values():
    w = leaf(2.0)
    y = (w * w).sum()
    y.backward(retain_graph=True)
    optim.SGD([w], 0.1).step()
    with pytest.raises(GraphError, match=r"changed in place by SGD.step"):
        y.backward()


def test_infinite_gradients_warn_of_nothing():
    p = leaf(1.0)
    steps(optim.Adam([p], 0.1), p, math.inf, math.nan)
    assert math.isnan(p.item())


def test_closure_is_run_with_gradients_and_its_loss_returned():
    w = leaf(1.0)
    optimizer = optim.SGD([w], 0.25)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        return loss

    with gn.no_grad():
        assert optimizer.step(closure).item() == 1.0
    assert w.item() == 0.5
    assert optimizer.step() is None


# -- groups ------------------------------------------------------------------------------------------------------


def test_groups_have_their_own_options():
    a, b = leaf(1.0), leaf(1.0)
    optimizer = optim.SGD([{"params": [a], "lr": 0.5}, {"params": b, "momentum": 0.5}], lr=0.1, weight_decay=0.0)
    for _ in range(2):
        a.grad = b.grad = gn.tensor(np.array([1.0]))
        optimizer.step()
    assert a.item() == pytest.approx(1 - 0.5 - 0.5)
    assert b.item() == pytest.approx(1 - 0.1 - 0.15)
    optimizer.param_groups[0]["lr"] = 2.0
    optimizer.step()
    assert a.item() == pytest.approx(-2.0)


def test_group_added_later_takes_the_defaults():
    a, b = leaf(1.0), leaf(1.0)
    optimizer = optim.SGD([a], lr=0.1)
    optimizer.add_param_group({"params": [b]})
    assert optimizer.param_groups[1]["lr"] == 0.1
    b.grad = gn.tensor(np.array([1.0]))
    optimizer.step()
    assert (a.item(), b.item()) == (1.0, 0.9)


def test_zero_grad_reaches_every_group():
    a, b = leaf(1.0), leaf(1.0)
    optimizer = optim.SGD([{"params": [a]}, {"params": [b]}], 0.1)
    a.grad = b.grad = gn.tensor(np.array([1.0]))
    optimizer.zero_grad(set_to_none=False)
    assert (a.grad.tolist(), b.grad.tolist()) == ([0.0], [0.0])
    optimizer.zero_grad()
    assert a.grad is None
    assert b.grad is None


def test_printing_shows_groups():
    text = repr(optim.SGD([{"params": [leaf(1.0)]}, {"params": [leaf(2.0), leaf(3.0)], "lr": 0.5}], 0.1))
    assert text.splitlines()[0] == "SGD("
    assert "group 1: 2 tensors, lr=0.5, momentum=0.0" in text


# -- state -------------------------------------------------------------------------------------------------------

MAKERS = {
    "SGD": lambda p: optim.SGD(p, 0.05, 0.9, weight_decay=0.01),
    "Adagrad": lambda p: optim.Adagrad(p, 0.1, 0.1),
    "RMSprop": lambda p: optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    "Adam": lambda p: optim.Adam(p, 0.05, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, 0.05),
}


def problem() -> tuple[nn.Module, list[gn.Tensor]]:
    gn.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), [gn.randn(5, 3) for _ in range(6)]


def train(model: nn.Module, optimizer: optim.Optimizer, batches: list[gn.Tensor]) -> None:
    for x in batches:
        optimizer.zero_grad()
        (model(x) ** 2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("way", ["state_dict", "pickled state", "deepcopy", "pickle"])
def test_resumed_is_bitwise_uninterrupted(name: str, way: str):
    model, batches = problem()
    optimizer = MAKERS[name](model.parameters())
    train(model, optimizer, batches[:3])
    if way in ("deepcopy", "pickle"):
        pair = (model, optimizer)
        twin, again = copy.deepcopy(pair) if way == "deepcopy" else pickle.loads(pickle.dumps(pair))
    else:
        twin, _ = problem()
        twin.load_state_dict(copy.deepcopy(model.state_dict()))
        again = MAKERS[name](twin.parameters())
        state = optimizer.state_dict()
        again.load_state_dict(pickle.loads(pickle.dumps(state)) if way == "pickled state" else state)
    train(model, optimizer, batches[3:])
    train(twin, again, batches[3:])
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert a is not b
        np.testing.assert_array_equal(a.data, b.data)


def test_state_dict_has_plain_values_and_copies():
    p, q = leaf(1.0), leaf(2.0)
    optimizer = optim.Adam([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=0.1)
    steps(optimizer, q, 1.0)
    state = optimizer.state_dict()
    assert list(state) == ["state", "param_groups"]
    assert [group["params"] for group in state["param_groups"]] == [[0], [1]]
    assert state["param_groups"][1]["lr"] == 0.5
    assert list(state["state"]) == [1]
    assert {name: type(value) for name, value in state["state"][1].items()} == {
        "step": int,
        "exp_avg": np.ndarray,
        "exp_avg_sq": np.ndarray,
    }
    kept = state["state"][1]["exp_avg"].copy()
    steps(optimizer, q, 1.0)
    np.testing.assert_array_equal(state["state"][1]["exp_avg"], kept)


def test_load_state_dict_restores_options_and_casts():
    p, q = leaf(1.0), gn.ones(1, requires_grad=True)
    optimizer, other = optim.SGD([p], 0.1, 0.5), optim.SGD([q], 0.7)
    steps(optimizer, p, 1.0)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == 0.1
    assert other.param_groups[0]["params"] == [q]
    assert other.state[q]["momentum_buffer"].dtype == np.float32


def test_loaded_state_is_a_copy_and_follows_a_cast():
    layer = nn.Linear(1, 1, bias=False)
    optimizer, other = (optim.Adam(layer.parameters(), 0.1) for _ in range(2))
    steps(optimizer, layer.double().weight, 1.0)
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    state["param_groups"][0]["betas"] = [0.5, 0.75]  # as JSON gives it back
    other.load_state_dict(state)
    assert other.param_groups[0]["betas"] == (0.5, 0.75)
    steps(other, layer.weight, 1.0)
    assert state["state"][0]["exp_avg"].tolist() == kept["state"][0]["exp_avg"].tolist()
    layer.float().weight.grad = gn.ones(1, 1)
    other.load_state_dict(kept)
    layer.double()
    other.step()
    assert other.state[layer.weight]["exp_avg"].dtype == np.float64


def test_pickled_optimizer_leaves_its_scratch_memory_out():
    p = gn.zeros(10_000, requires_grad=True)
    optimizer = optim.SGD([p], 0.1)
    before = len(pickle.dumps(optimizer))
    p.grad = gn.ones(10_000)
    optimizer.step()
    assert len(pickle.dumps(optimizer)) < before + 100


def test_load_state_dict_refuses_and_changes_nothing():
    p = leaf(1.0)
    optimizer = optim.Adam([p], 0.1)
    steps(optimizer, p, 1.0)
    good = optimizer.state_dict()
    sgd = optim.SGD([leaf(1.0)], 0.3, 0.5)
    steps(sgd, sgd.param_groups[0]["params"][0], 1.0)
    for change, message in [
        ({"state": {}}, r"Adam.load_state_dict: state_dict must hold .* got keys \['state'\]"),
        ({**good, "param_groups": [{"params": [0, 1]}]}, r"groups .* the same sizes, got \[2\] in the state and \[1\]"),
        ({**good, "param_groups": [{"params": [0], "lr": -1.0}]}, r"lr must be at least 0, got -1"),
        (sgd.state_dict(), r"must hold step, exp_avg, .* got momentum_buffer; whose state is it"),
        ({**good, "state": {0: {**good["state"][0], "exp_avg": np.ones(2)}}}, r"'exp_avg' must .* \(1,\), got \(2,\)"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            optimizer.load_state_dict(change)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.state_dict()["state"][0]["exp_avg"].tolist() == good["state"][0]["exp_avg"].tolist()


# -- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD([], 0.1), ArgumentError, "SGD: params must hold at least one tensor, got none"),
        (lambda p: optim.SGD(p, 0.1), ArgumentError, "params must be an iterable of tensors or groups, got Tensor"),
        (lambda p: optim.SGD(nn.ReLU(), 0.1), ArgumentError, "got ReLU; pass model.parameters"),
        (lambda p: optim.SGD([3], 0.1), DTypeError, "SGD: params must be tensors, got int"),
        (lambda p: optim.SGD(nn.Linear(1, 1).named_parameters()), DTypeError, "got tuple; pass model.parameters"),
        (lambda p: optim.SGD([gn.tensor([1])], 0.1), DTypeError, "SGD: params must be float32 or float64, got int64"),
        (lambda p: optim.SGD([p * 2], 0.1), GraphError, "SGD: params must be leaves, got a tensor made by Mul"),
        (lambda p: optim.SGD([p, p], 0.1), ArgumentError, r"SGD: each tensor may be given once, .* shape \(1,\)"),
        (lambda p: optim.SGD([{"params": [p]}, {"params": [p]}]), ArgumentError, "each tensor may be given once"),
        (lambda p: optim.SGD([{"lr": 1.0}]), ArgumentError, r"SGD: a group must .* 'params', got keys \['lr'\]"),
        (lambda p: optim.SGD([{"params": []}]), ArgumentError, "SGD: a group must hold at least one tensor, got none"),
        (lambda p: optim.SGD([{"params": [p], "rate": 1}]), ArgumentError, "options .* must be among lr, .* 'rate'"),
        (lambda p: optim.SGD([{"params": [p], "lr": -1}]), ArgumentError, "SGD: lr must be at least 0, got -1"),
        (lambda p: optim.SGD([p], -0.1), ArgumentError, "SGD: lr must be at least 0, got -0.1"),
        (lambda p: optim.SGD([p], math.nan), ArgumentError, "SGD: lr must be at least 0, got nan"),
        (lambda p: optim.SGD([p], "fast"), ArgumentError, "SGD: lr must be a number, got 'fast'"),  # type: ignore[arg-type]
        (lambda p: optim.SGD([p], 0.1, -1), ArgumentError, "SGD: momentum must be at least 0, got -1"),
        (lambda p: optim.SGD([p], 0.1, nesterov=True), ArgumentError, "nesterov needs momentum above 0"),
        (lambda p: optim.SGD([p], 0.1, 0.9, 0.1, nesterov=True), ArgumentError, "got momentum=0.9 and dampening=0.1"),
        (lambda p: optim.Adagrad([p], lr_decay=-1), ArgumentError, "Adagrad: lr_decay must be at least 0, got -1"),
        (lambda p: optim.RMSprop([p], alpha=1.5), ArgumentError, "RMSprop: alpha must be from 0 to 1, got 1.5"),
        (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ArgumentError, r"Adam: betas\[1\] must be below 1, got 1.0"),
        (lambda p: optim.Adam([p], betas=(-1, 0.9)), ArgumentError, r"Adam: betas\[0\] must be at least 0, got -1"),
        (lambda p: optim.Adam([p], betas=0.9), ArgumentError, "Adam: betas must be two numbers, got 0.9"),  # type: ignore[arg-type]
        (lambda p: optim.AdamW([p], eps=-1.0), ArgumentError, "AdamW: eps must be at least 0, got -1.0"),
    ],
)  # fmt: skip
def test_refusals(make: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        make(leaf(1.0))


def test_gradient_set_by_hand_must_fit():
    p, q = gn.ones(2, 3, requires_grad=True), gn.ones(2, requires_grad=True)
    optimizer = optim.SGD([p, q], 0.1)
    p.grad, q.grad = gn.ones(2, 3), gn.ones(1)  # NumPy would broadcast it
    with pytest.raises(ShapeError, match=r"SGD.step: a gradient must have its parameter's shape \(2,\), got \(1,\)"):
        optimizer.step()
    q.grad = gn.ones(2).double()
    with pytest.raises(DTypeError, match=r"dtype and device, float32 on cpu, got float64 on cpu; use .to\(\)"):
        optimizer.step()
    assert p.data.min() == 1.0
