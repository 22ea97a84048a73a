"""Module: names, state, modes, moves, hooks, copies, printing, messages."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet import nn, optim
from gpunet.errors import ArgumentError, DTypeError, GraphError, ShapeError


class Scale(nn.Module):
    """x * factor + shift, with a buffer that is saved and one that is not."""

    def __init__(self, factor: float = 2.0):
        super().__init__()
        self.factor = nn.Parameter(gn.tensor([factor]))
        self.register_buffer("shift", gn.tensor([1.0]))
        self.register_buffer("calls", gn.tensor([0]), persistent=False)

    def forward(self, x: Any) -> Any:
        return x * self.factor + self.shift

    def extra_repr(self) -> str:
        return "scale"


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


# -- names -------------------------------------------------------------------------------------------------------


def test_names_follow_attributes_in_order_of_assignment():
    model = nn.Sequential(Scale(), nn.Sequential(Scale(), nn.Linear(1, 1)))
    assert [name for name, _ in model.named_parameters()] == ["0.factor", "1.0.factor", "1.1.weight", "1.1.bias"]
    assert [name for name, _ in model.named_buffers()] == ["0.shift", "0.calls", "1.0.shift", "1.0.calls"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "1.0", "1.1"]
    assert [name for name, _ in model.named_children()] == ["0", "1"]
    assert list(model.parameters(recurse=False)) == []
    assert [name for name, _ in model[0].named_parameters("head", recurse=False)] == ["head.factor"]


def test_assigning_again_keeps_the_place_in_the_order():
    layer = nn.Linear(2, 2)
    layer.weight = nn.Parameter(gn.zeros(2, 2))
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_a_name_can_change_its_kind():
    layer = Scale()
    layer.plain = 1
    layer.plain = nn.Parameter(gn.ones(1))
    assert "plain" in dict(layer.named_parameters())
    layer.plain = nn.ReLU()
    assert "plain" not in dict(layer.named_parameters())
    assert "plain" in dict(layer.named_children())
    del layer.plain
    assert not hasattr(layer, "plain")
    assert list(dict(layer.named_parameters())) == ["factor"]
    layer.nothing = None
    del layer.nothing
    assert not hasattr(layer, "nothing")


def test_absent_parameter_keeps_its_name():
    layer = nn.Linear(2, 2, bias=False)
    assert layer.bias is None
    assert list(layer.state_dict()) == ["weight"]
    layer.bias = nn.Parameter(gn.zeros(2))
    assert list(layer.state_dict()) == ["weight", "bias"]
    layer.bias = None
    assert list(layer.state_dict()) == ["weight"]


def test_shared_parameter_is_given_once_but_saved_by_every_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert len(list(model.parameters())) == 3
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    shared = nn.Sequential(model[0], model[0])
    assert len(list(shared.modules())) == 2
    assert len(list(shared.children())) == 1
    assert list(shared.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_dir_lists_registered_names():
    assert {"factor", "shift"} <= set(dir(Scale()))


def test_missing_attribute_says_whose():
    with pytest.raises(AttributeError, match=r"^Scale: there is no attribute 'fcator'$"):
        _ = Scale().fcator


class Forgetful(nn.Module):
    def __init__(self, use: Any):
        use(self)


@pytest.mark.parametrize(
    ("use", "name"),
    [
        (lambda self: setattr(self, "weight", nn.Parameter(gn.ones(1))), "weight"),
        (lambda self: setattr(self, "layer", nn.ReLU()), "layer"),
        (lambda self: self.register_buffer("mean", gn.ones(1)), "mean"),
        (lambda self: list(self.parameters()), "_parameters"),
        (lambda self: self(gn.ones(1)), "_pre_hooks"),
    ],
)
def test_forgotten_super_init_is_named(use: Any, name: str):
    with pytest.raises(ArgumentError, match=r"Forgetful: super\(\).__init__\(\) must run before .* got '" + name):
        Forgetful(use)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"Scale.register_parameter: name must be a non-empty word without a point, got ''"),
        ("a.b", r"without a point, got 'a.b'"),
        (3, r"without a point, got 3"),
        ("forward", r"name must be free, got 'forward', which is an attribute already"),
        ("shift", r"name must be free, got 'shift'"),
    ],
)
def test_bad_names_are_refused(name: Any, message: str):
    with pytest.raises(ArgumentError, match=message):
        Scale().register_parameter(name, nn.Parameter(gn.ones(1)))


def test_wrong_kind_for_a_name_is_refused():
    layer: Any = Scale()
    with pytest.raises(DTypeError, match=r"Scale: 'factor' must be a Parameter or None, got Tensor; delete"):
        layer.factor = gn.ones(1)
    with pytest.raises(DTypeError, match=r"Scale: 'shift' must be a Tensor or None, got float"):
        layer.shift = 1.0
    with pytest.raises(DTypeError, match=r"Scale.register_module: 'head' must be a Module or None, got int"):
        layer.register_module("head", 3)
    with pytest.raises(DTypeError, match=r"Scale.register_buffer: 'mean' must be a Tensor or None, got ndarray"):
        layer.register_buffer("mean", np.ones(1))


def test_forward_must_be_defined():
    with pytest.raises(NotImplementedError, match=r"Module: the class must define forward"):
        nn.Module()(1)


# -- modes and gradients -----------------------------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    model = small()
    assert model.eval() is model
    assert not any(module.training for module in model.modules())
    model.train()
    assert all(module.training for module in model.modules())
    with pytest.raises(ArgumentError, match=r"Sequential.train: mode must be True or False, got 'no'"):
        model.train("no")  # type: ignore[arg-type]


def test_freeze_stops_gradients_and_unfreeze_brings_them_back():
    model = small()
    model[0].freeze()
    model(gn.randn(5, 3)).sum().backward()
    assert model[0].weight.grad is None
    assert model[3].weight.grad is not None
    model.unfreeze()
    assert all(p.requires_grad for p in model.parameters())


def test_zero_grad_takes_gradients_away_or_zeroes_them():
    model = small()
    model(gn.randn(5, 3)).sum().backward()
    model.zero_grad(set_to_none=False)
    assert all(p.grad is not None and not p.grad.data.any() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_apply_visits_children_first():
    order: list[str] = []
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    assert model.apply(lambda module: order.append(type(module).__name__)) is model
    assert order == ["Linear", "ReLU", "Sequential", "Sequential"]


# -- dtype and device --------------------------------------------------------------------------------------------


def test_to_dtype_keeps_identity_and_integers():
    model = small()
    before = list(model.parameters())
    model(gn.randn(5, 3)).sum().backward()
    assert model.to("float64") is model
    assert all(a is b for a, b in zip(model.parameters(), before, strict=True))
    assert all(p.dtype == np.float64 and p.grad is not None and p.grad.dtype == np.float64 for p in model.parameters())
    assert model[1].running_mean.dtype == np.float64
    assert model[1].num_batches_tracked.dtype == np.int64
    assert model(gn.randn(5, 3, dtype=np.float64)).dtype == np.float64
    model.float()
    assert {p.dtype for p in model.parameters()} == {np.dtype(np.float32)}
    assert model.double().cpu()[0].weight.dtype == np.float64


def test_to_leaves_what_fits_alone():
    model = small()
    arrays = [p.data for p in model.parameters()]
    model.to("cpu", np.float32)
    assert all(p.data is array for p, array in zip(model.parameters(), arrays, strict=True))


def test_optimizer_made_before_a_cast_still_trains():
    model = nn.Linear(1, 1, bias=False)
    optimizer = optim.Adam(model.parameters(), lr=0.5)
    for dtype in (np.float32, np.float64):
        model.to(dtype)
        start = model.weight.item()
        (model(gn.ones(1, 1, dtype=dtype)) ** 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert abs(model.weight.item() - start) > 0.1
    assert optimizer.state[model.weight]["exp_avg"].dtype == np.float64
    assert optimizer.state[model.weight]["step"] == 2


@pytest.mark.parametrize("versioned", [True, False])
def test_backward_through_parameters_that_were_cast_says_so(versioned: bool):
    layer = Scale()
    layer.factor = nn.Parameter([2.0])  # nothing has changed or shared it yet
    if versioned:
        layer.factor.detach()
    y = layer(gn.ones(2, requires_grad=True)).sum()
    layer.double()
    with pytest.raises(GraphError, match=r"changed in place by Module.to"):
        y.backward()


def test_to_refuses_what_is_no_float():
    with pytest.raises(DTypeError, match=r"Sequential.to: dtype must be float32 or float64, got int64"):
        small().to(np.int64)


# -- state -------------------------------------------------------------------------------------------------------


def test_state_dict_shares_memory_and_has_no_gradient():
    layer = Scale()
    state = layer.state_dict()
    assert list(state) == ["factor", "shift"]
    assert state["factor"].data is layer.factor.data
    assert not state["factor"].requires_grad


def test_load_state_dict_round_trip():
    source, target = small(), small()
    source(gn.randn(6, 3))
    report = target.load_state_dict(copy.deepcopy(source.state_dict()))
    assert report == ([], [])
    for name, value in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[name].data, value.data)
    assert target[1].num_batches_tracked.item() == 1
    target[0].weight.data[...] = 0
    assert source[0].weight.data.any()


def test_load_state_dict_casts_and_takes_arrays():
    layer = nn.Linear(1, 2).double()
    layer.load_state_dict({"weight": np.array([[1], [2]]), "bias": [0.5, 0.25]})
    assert layer.weight.dtype == np.float64
    assert layer.weight.tolist() == [[1.0], [2.0]]
    assert layer.bias is not None
    assert layer.bias.tolist() == [0.5, 0.25]


def test_load_state_dict_lists_every_difference_and_changes_nothing():
    model = small()
    before = copy.deepcopy(model.state_dict())
    state = {name: value + 1 for name, value in before.items() if name != "0.bias"}
    state |= {"3.weight": gn.ones(5, 4), "extra": gn.ones(1), "1.weight": np.array(["a"] * 4)}
    with pytest.raises(ArgumentError) as caught:
        model.load_state_dict(state)
    for part in (
        "Sequential.load_state_dict: the state must match the module, got 4 differences; nothing was changed",
        "missing '0.bias' (4,)",
        "unexpected 'extra'",
        "'3.weight' has shape (5, 4) but the module's is (2, 4)",
        "'1.weight' has dtype <U1, which is no number",
        "strict=False passes over missing and unexpected names",
    ):
        assert part in str(caught.value)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.data, before[name].data)


def test_load_state_dict_not_strict_passes_over_names_but_not_shapes():
    layer = nn.Linear(2, 1)
    report = layer.load_state_dict({"weight": gn.ones(1, 2), "other": gn.ones(1)}, strict=False)
    assert report.missing_keys == ["bias"]
    assert report.unexpected_keys == ["other"]
    assert layer.weight.tolist() == [[1.0, 1.0]]
    with pytest.raises(ArgumentError, match=r"got 1 difference; nothing was changed:"):
        layer.load_state_dict({"weight": gn.ones(1, 3), "bias": gn.ones(1)}, strict=False)
    with pytest.raises(ArgumentError, match=r"state must be a mapping of names to tensors, got list"):
        layer.load_state_dict([1])


def test_loading_under_a_graph_is_noticed():
    layer = nn.Linear(2, 1)
    y = layer(gn.ones(1, 2, requires_grad=True)).sum()
    layer.load_state_dict(copy.deepcopy(layer.state_dict()))
    with pytest.raises(GraphError, match=r"changed in place by load_state_dict"):
        y.backward()


def test_buffer_registered_anew_is_saved_again():
    layer = Scale()
    del layer.calls
    layer.calls = gn.ones(1)
    assert "calls" not in layer.state_dict()  # a plain tensor is no buffer
    del layer.calls
    layer._buffers["calls"] = gn.ones(1)
    assert "calls" in layer.state_dict()


# -- copies, hooks, printing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent_and_compute_the_same(copied: Any):
    model = small()
    model[3].weight = nn.Parameter(model[3].weight)
    twin = copied(model).eval()
    x = gn.randn(4, 3)
    np.testing.assert_array_equal(twin(x).data, model.eval()(x).data)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
    for p in twin.parameters():
        p.data[...] = 0
    assert all(p.data.any() for p in model.parameters() if p.ndim == 2)
    assert list(twin.state_dict()) == list(model.state_dict())


def test_copies_keep_sharing():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin[1].weight is twin[0].weight


def test_forward_hooks_see_and_replace():
    layer, seen = nn.ReLU(), []
    before = layer.register_forward_pre_hook(lambda module, args: (args[0] * -1,))
    after = layer.register_forward_hook(lambda m, args, y: seen.append((m is layer, args[0].item(), y.item())))
    twice = layer.register_forward_hook(lambda module, args, y: y * 2)
    assert layer(gn.tensor([-3.0])).item() == 6.0
    assert seen == [(True, 3.0, 3.0)]
    for handle in (before, after, twice, twice):
        handle.remove()
    assert layer(gn.tensor([-3.0])).item() == 0.0
    assert len(seen) == 1


def test_pre_hook_may_return_one_value():
    layer = nn.ReLU()
    layer.register_forward_pre_hook(lambda module, args: gn.tensor([7.0]))
    assert layer(gn.tensor([1.0])).item() == 7.0


def test_printing_is_a_tree():
    assert repr(nn.Sequential(Scale(), nn.Sequential(nn.ReLU()), nn.Sequential())) == (
        "Sequential(\n  (0): Scale(scale)\n  (1): Sequential(\n    (0): ReLU()\n  )\n  (2): Sequential()\n)"
    )


def test_error_inside_names_the_layers_on_the_way():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(5, 2)))
    with pytest.raises(ShapeError) as caught:
        model(gn.zeros(1, 3))
    where = "in Linear(in_features=5, out_features=2, bias=True)"
    assert caught.value.__notes__ == [where, "in Sequential()", "in Sequential()"]
