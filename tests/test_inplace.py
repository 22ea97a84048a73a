"""Changes in place: same memory, history that moves on, and the cases that cannot be made right and are refused."""

from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import DTypeError, GraphError, ShapeError


def leaf(*values: Any) -> gn.Tensor:
    return gn.tensor(np.array(values, float), requires_grad=True)


CHANGES = {
    "add_": (lambda x: x.add_(2), [3.0, 6.0]),
    "sub_": (lambda x: x.sub_(gn.tensor([1.0, 2.0])), [0.0, 2.0]),
    "mul_": (lambda x: x.mul_(np.float64(3)), [3.0, 12.0]),
    "div_": (lambda x: x.div_(2), [0.5, 2.0]),
    "clip_": (lambda x: x.clip_(2, 3), [2.0, 3.0]),
    "clamp_": (lambda x: x.clamp_(max=2), [1.0, 2.0]),
    "copy_": (lambda x: x.copy_(np.array([7, 8])), [7.0, 8.0]),
    "fill_": (lambda x: x.fill_(5), [5.0, 5.0]),
    "zero_": (lambda x: x.zero_(), [0.0, 0.0]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_value_memory_and_return(name):
    change, expected = CHANGES[name]
    array = np.array([1.0, 4.0], np.float32)
    x = gn.from_numpy(array)
    assert change(x) is x
    assert x.data is array
    assert array.tolist() == expected
    assert x.dtype == np.float32
    assert x._version.op.replace("clip", "clamp") == name.replace("clip", "clamp")


def test_operators_change_in_place():
    x = same = gn.tensor([8.0])
    x += 2
    x -= 1
    x *= 4
    x /= 2
    assert x is same
    assert same.tolist() == [18.0]


def test_setitem():
    x = gn.zeros(2, 3)
    x[0, 1] = 5
    x[1] = gn.tensor([1, 2, 3])
    x[:, 2:] = np.array([[7.0], [8.0]])
    x[gn.tensor([[True, False, False], [False, False, False]])] = -1.0
    assert x.tolist() == [[-1.0, 5.0, 7.0], [1.0, 2.0, 8.0]]
    x[[0, 1], [1, 0]] += 10.0
    assert x.tolist() == [[-1.0, 15.0, 7.0], [11.0, 2.0, 8.0]]


# --------------------------------------------------------------------------------------------------------- with history


def test_history_moves_on():
    x, w = leaf(2.0, 3.0), leaf(5.0, 7.0)
    h = x * 1
    h.mul_(w)  # w's gradient needs h as it was
    h += x
    h[0] = w[1] * 2
    h.sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    assert x.grad.tolist() == [0.0, 8.0]
    assert w.grad.tolist() == [0.0, 5.0]


def test_a_tensor_without_gradient_gets_history():
    w = leaf(2.0)
    out = gn.zeros(3, dtype="float64")
    for k in range(3):
        out[k] = w[0] * k if k == 0 else out[k - 1] + w[0] * k  # reads what was written before
    assert out.requires_grad
    out.sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [0 + 1 + 3]


def test_overwriting_cuts_history():
    x = leaf(1.0, 2.0)
    h = x * 2
    h.copy_(gn.ones(2))
    assert not h.requires_grad
    h = x * 2
    h.copy_(x * 3)
    h.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]


def test_repeated_positions_of_setitem_each_get_the_gradient():
    v = leaf(1.0, 2.0)
    x = gn.zeros(3, dtype="float64")
    x[[1, 2]] = v
    (x * gn.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert v.grad is not None
    assert v.grad.tolist() == [10.0, 100.0]


def test_leaf_may_change_under_no_grad_alone():
    x = leaf(1.0, 2.0)
    for change in (lambda: x.add_(1), lambda: x.__setitem__(0, 1.0), lambda: x.zero_()):
        with pytest.raises(GraphError, match=r"a leaf that needs a gradient must not change.*got shape \(2,\)"):
            change()
    with gn.no_grad():
        x.add_(1)
        x[0] = 9.0
    assert x.tolist() == [9.0, 3.0]
    assert x.requires_grad
    assert x.is_leaf


# --------------------------------------------------------------------------------------------------------------- views


def test_change_through_a_view_without_gradient():
    x = gn.zeros(2, 3)
    x.reshape(6)[4:].fill_(1)
    x.T[0].add_(2)
    assert x.tolist() == [[2.0, 0.0, 0.0], [2.0, 1.0, 1.0]]


VIEWS = [lambda x: x[0], lambda x: x.reshape(4), lambda x: x.T, lambda x: x.expand(3, 2, 2), lambda x: x.view(4)]


@pytest.mark.parametrize("make_view", VIEWS)
def test_neither_view_nor_base_change_while_gradients_flow(make_view):
    w = leaf(2.0)
    base = w.expand(2, 2) * 1
    view = make_view(base)
    with pytest.raises(GraphError, match="shares memory with a view of it"):
        base.add_(1)
    with pytest.raises(GraphError, match="shares memory with a view of it"):
        view.add_(1)
    del view
    base.add_(1)  # nobody is left who could be wrong


def test_history_through_a_view_of_a_plain_tensor_is_refused_with_the_remedy():
    """out's own history would not know: silently no gradient is the worst answer."""
    w = leaf(2.0, 3.0)
    out = gn.zeros(2, 2, dtype="float64")
    for change in (lambda: out[0].add_(w), lambda: out[0].__setitem__(1, w[0]), lambda: out.T[0].copy_(w)):
        with pytest.raises(GraphError, match=r"index the whole tensor \(x\[i, j\] = ..., not x\[i\]\[j\] = ...\)"):
            change()
    out[0, 1] = w[0]
    assert out.requires_grad


def test_a_view_whose_base_is_gone_is_free_to_change():
    w = leaf(2.0)
    x = gn.zeros(4, dtype="float64").reshape(2, 2)
    x[0] = w
    h = (w.expand(4) * 1).reshape(2, 2)
    h[0] = 5.0
    (x + h).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [4.0]


def test_views_that_died_are_forgotten():
    base = gn.zeros(3)
    kept = [base[k % 3] for k in range(50)]
    for _ in range(1000):
        base.reshape(3, 1)
    assert len(base._version.sharers) < 400
    with pytest.raises(GraphError, match="shares memory"):
        base.add_(leaf(1.0))
    del kept
    base.add_(leaf(1.0))


def test_detached_tensor_sees_the_change():
    x = leaf(1.0) * 2
    d = x.detach()
    x.add_(1)
    assert d.tolist() == [3.0]


# -------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x: x.add_(gn.ones(3, 2)), ShapeError, r"add_: the result must fit into \(2,\), got \(3, 2\)"),
        (lambda x: x.copy_(gn.ones(3)), ShapeError, r"copy_: the source must broadcast to \(2,\), got \(3,\)"),
        (lambda x: x.long().add_(0.5), DTypeError, r"add_: the result must fit into int64, got float32; use the form"),
        (lambda x: x.long().div_(2), DTypeError, "div_: the result must fit into int64, got float32"),
        (lambda x: (x > 0).add_(2), DTypeError, "add_: the result must fit into bool, got int64"),
        (lambda x: x.reshape(2, 1).expand(2, 3).add_(1), GraphError, "writable memory.*expanded or read-only"),
        (lambda x: x.expand(3, 2).__setitem__(0, 1.0), GraphError, "setitem: the tensor must own writable memory"),
        (lambda x: x.__setitem__(5, 1.0), ShapeError, r"setitem: index 5 is out of bounds.*of shape \(2,\)"),
        (lambda x: x.__setitem__(slice(None), gn.ones(3)), ShapeError, r"setitem: .*of shape \(2,\)"),
        (lambda x: x.__setitem__(0.5, 1.0), DTypeError, "index: must be made of integers"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, words):
    x = gn.ones(2)
    with pytest.raises(error, match=words):
        change(x)
    assert x.tolist() == [1.0, 1.0]


def test_read_only_memory_is_refused():
    array = np.ones(2)
    array.flags.writeable = False
    with pytest.raises(GraphError, match="read-only"):
        gn.from_numpy(array).add_(1)


def test_wider_values_are_rounded_into_place():
    x = gn.ones(2)
    x.add_(gn.full(2, 0.1, dtype="float64"))
    assert x.dtype == np.float32
    assert x.tolist() == [np.float32(1.1)] * 2
    k = gn.zeros(2, dtype="int64")
    k.copy_(gn.tensor([1.9, -1.9]))
    assert k.tolist() == [1, -1]
