"""Sequential, ModuleList, ModuleDict: indexing, changing, names, messages."""

from collections import OrderedDict
from typing import Any

import pytest

import gpunet as gn
from gpunet import nn
from gpunet.errors import ArgumentError, DTypeError

ANY: Any = None


def names(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_children()]


def test_sequential_runs_in_order():
    model = nn.Sequential(nn.Flatten(), nn.Identity("any", argument=1), nn.ReLU())
    assert model(gn.tensor([[[1.0], [-1.0]]])).tolist() == [[1.0, 0.0]]
    x = gn.ones(1)
    assert nn.Sequential()(x) is x


@pytest.mark.parametrize("mapping", [OrderedDict, dict])
def test_sequential_from_names(mapping: Any):
    model = nn.Sequential(mapping([("conv", nn.Conv2d(1, 2, 1)), ("relu", nn.ReLU())]))
    assert list(model.state_dict()) == ["conv.weight", "conv.bias"]
    assert model.conv is model[0]
    assert names(model[1:]) == ["relu"]


def test_sequential_indexing_and_slicing_share_modules():
    layers = [nn.Linear(1, 1) for _ in range(4)]
    model = nn.Sequential(*layers)
    assert model[-1] is layers[3]
    assert list(model) == layers
    part = model[1:3]
    assert isinstance(part, nn.Sequential)
    assert list(part) == layers[1:3]
    assert names(part) == ["1", "2"]


def test_sequential_changes():
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    model = nn.Sequential(a).append(b)
    model[0] = c
    assert list(model) == [c, b]
    model.extend([a, a])
    assert names(model) == ["0", "1", "2"]  # the last two are one module
    assert len(model) == 4
    del model[1]
    assert list(model) == [c, a, a]
    assert list(model._modules) == ["0", "1", "2"]
    del model[1:]
    assert list(model) == [c]


def test_deleting_keeps_given_names():
    model = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh(), "c": nn.Sigmoid()})
    del model[1]
    assert names(model) == ["a", "c"]
    model.append(nn.ReLU())
    assert names(model) == ["a", "c", "2"]


def test_append_finds_a_free_number():
    model = nn.Sequential({"1": nn.ReLU()}).append(nn.Tanh())
    assert names(model) == ["1", "2"]


def test_list_behaves_like_one():
    a, b, c = nn.Linear(1, 1), nn.Tanh(), nn.Sigmoid()
    layers = nn.ModuleList([a, b])
    layers.append(c)
    layers += [nn.ReLU()]
    layers.insert(0, c)
    assert [type(each).__name__ for each in layers] == ["Sigmoid", "Linear", "Tanh", "Sigmoid", "ReLU"]
    assert list(layers.state_dict()) == ["1.weight", "1.bias"]
    assert isinstance(layers[1:3], nn.ModuleList)
    assert list(layers[1:3]) == [a, b]
    assert len(nn.ModuleList()) == 0
    with pytest.raises(NotImplementedError, match=r"ModuleList: the class must define forward"):
        layers(gn.ones(1))


def test_dict_behaves_like_one():
    heads = nn.ModuleDict({"a": nn.Linear(1, 1)})
    heads["b"] = nn.ReLU()
    heads.update([("c", nn.Tanh())])
    assert list(heads) == list(heads.keys()) == ["a", "b", "c"]
    assert [type(each).__name__ for each in heads.values()] == ["Linear", "ReLU", "Tanh"]
    assert dict(heads.items())["b"] is heads["b"]
    assert "b" in heads
    assert isinstance(heads.pop("b"), nn.ReLU)
    del heads["c"]
    assert len(heads) == 1
    assert list(heads.state_dict()) == ["a.weight", "a.bias"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.ReLU), r"Sequential: each entry must be a Module, got the class ReLU; write"),
        (lambda: nn.Sequential({"a": 3}), r"Sequential: each entry must be a Module, got int"),
        (lambda: nn.Sequential(nn.ReLU()).append(ANY), r"Sequential: each entry must be a Module, got NoneType"),
        (lambda: nn.ModuleList([nn.ReLU(), ANY]), r"ModuleList: each entry must be a Module, got NoneType"),
        (lambda: nn.ModuleDict({"a": dict}), r"ModuleDict: each entry must be a Module, got the class dict"),
        (lambda: nn.Sequential(nn.ReLU())[ANY], r"Sequential: index must be an integer or a slice, got NoneType"),
    ],
)
def test_wrong_entries_are_named(make: Any, message: str):
    with pytest.raises(DTypeError, match=message):
        make()


def test_out_of_range_is_an_index_error_too():
    model = nn.Sequential(nn.ReLU(), nn.ReLU())
    for kind in (ArgumentError, IndexError):
        with pytest.raises(kind, match=r"Sequential: index must be from -2 to 1, got 2"):
            model[2]
    with pytest.raises(IndexError):
        model[-3] = nn.ReLU()


def test_unknown_key_lists_the_names():
    heads = nn.ModuleDict({"a": nn.ReLU(), "b": nn.ReLU()})
    for kind in (ArgumentError, KeyError):
        with pytest.raises(kind, match=r"^ModuleDict: there is no module 'c'; it has: a, b$"):
            heads["c"]
    with pytest.raises(ArgumentError, match=r"name must be free, got 'keys'"):
        heads["keys"] = nn.ReLU()
    with pytest.raises(ArgumentError, match=r"without a point, got 'a.b'"):
        heads["a.b"] = nn.ReLU()
