"""Parameter: a leaf that wants a gradient, whatever it was made from."""

import copy
import pickle
from typing import Any

import pytest

import gpunet as gn
from gpunet import nn
from gpunet.errors import DTypeError


def test_parameter_is_a_leaf_that_wants_a_gradient():
    w = nn.Parameter(gn.ones(2, 3))
    assert isinstance(w, gn.Tensor)
    assert w.requires_grad
    assert w.is_leaf
    (w * 3).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [[3.0] * 3] * 2
    assert type(w * 2) is gn.Tensor


def test_parameter_shares_memory_with_a_tensor_and_leaves_its_history():
    made = gn.ones(2, requires_grad=True) * 2
    w = nn.Parameter(made)
    assert w.data is made.data
    assert w.is_leaf
    assert nn.Parameter(gn.ones(1), requires_grad=False).requires_grad is False
    assert nn.Parameter([1.0, 2.0]).tolist() == [1.0, 2.0]


def test_parameter_of_integers_is_refused():
    with pytest.raises(DTypeError, match=r"only floating tensors have gradients, got int64"):
        nn.Parameter(gn.tensor([1]))


def test_parameter_prints_as_one():
    assert repr(nn.Parameter(gn.zeros(1))) == "Parameter:\ntensor([0.], requires_grad=True)"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda w: pickle.loads(pickle.dumps(w))])
def test_parameter_copies_stay_parameters(copied: Any):
    w = nn.Parameter(gn.ones(2))
    twin = copied(w)
    assert type(twin) is nn.Parameter
    assert twin.requires_grad
    twin.data[...] = 5
    assert w.tolist() == [1.0, 1.0]
