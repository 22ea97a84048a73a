"""gn.grad, higher derivatives, hooks and kept gradients."""

from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import GraphError


def leaf(*values: Any) -> gn.Tensor:
    return gn.tensor(np.array(values, float), requires_grad=True)


class Counted(gn.Function):
    """a * b that notes which gradients were asked for."""

    asked: list[tuple[bool, ...]] = []  # noqa: RUF012 the tests empty it

    @staticmethod
    def forward(ctx: Any, a: gn.Tensor, b: gn.Tensor) -> gn.Tensor:
        ctx.save_for_backward(a, b)
        return a * b

    @staticmethod
    def backward(ctx: Any, gy: gn.Tensor) -> Any:
        Counted.asked.append(ctx.needs_input_grad)
        a, b = ctx.saved_tensors
        return gy * b, gy * a


@pytest.fixture(autouse=True)
def _nothing_asked_yet():
    Counted.asked.clear()


# ------------------------------------------------------------------------------------------------------------- gn.grad


def test_grad_returns_and_leaves_dot_grad_alone():
    a, b = leaf(2.0), leaf(3.0)
    ga, gb = gn.grad(a * b * b, [a, b])
    assert (ga.tolist(), gb.tolist()) == ([9.0], [12.0])
    assert a.grad is None
    assert b.grad is None


def test_grad_by_a_tensor_on_the_way():
    x = leaf(2.0)
    h = x * x
    y = h * 5 + x
    assert [g.tolist() for g in gn.grad(y, [h, x, y])] == [[5.0], [21.0], [1.0]]


def test_grad_by_an_input_that_leads_to_another_input():
    x = leaf(2.0)
    h = x * 3
    gx, gh = gn.grad(h * h, [x, h])
    assert (gx.tolist(), gh.tolist()) == ([36.0], [12.0])


def test_grad_of_several_outputs_with_weights():
    x = leaf(1.0, 2.0)
    outputs = [x * 2, (x * x).sum()]
    (g,) = gn.grad(outputs, x, [gn.tensor([1.0, 10.0], dtype="float64"), None])
    assert g.tolist() == [4.0, 24.0]
    y = x * 2
    assert gn.grad([y, y], x, [np.ones(2), np.ones(2)])[0].tolist() == [4.0, 4.0]


def test_unused_input_raises_or_is_none():
    x, unused = leaf(1.0), leaf(1.0, 2.0)
    y = x * 2
    with pytest.raises(GraphError, match=r"depend on every input, got input 1 \(2,\) unused; pass allow_unused=True"):
        gn.grad(y, [x, unused], retain_graph=True)
    found = gn.grad(y, [x, unused], allow_unused=True)
    assert found[0].tolist() == [2.0]
    assert found[1] is None


def test_ops_off_the_path_are_not_differentiated():
    a, b, c = leaf(2.0), leaf(3.0), leaf(4.0)
    y = Counted.apply(a, b) + Counted.apply(c, c)
    gn.grad(y, a, retain_graph=True)
    assert Counted.asked == [(True, False)]
    gn.grad(y, [b], retain_graph=True)
    y.backward()  # a walk with chosen inputs leaves nothing behind
    assert Counted.asked == [(True, False), (False, True), (True, True), (True, True)]


def test_arguments_without_gradient_are_not_differentiated():
    a, b = leaf(2.0), gn.ones(1, dtype="float64")
    Counted.apply(a, b).backward()
    Counted.apply(b, b)
    assert Counted.asked == [(True, False)]
    assert b.grad is None


def test_untouched_branches_stay_usable():
    x, w = leaf(2.0), leaf(3.0)
    y = x * x + w * w
    gn.grad(y, x)
    assert gn.grad(y, w)[0].tolist() == [6.0]  # its saved values were not needed, so not freed
    with pytest.raises(GraphError, match="freed"):
        gn.grad(y, x)


def test_unused_outputs_of_a_function_get_zeros():
    x = gn.tensor([[1.0, 5.0], [7.0, 2.0]], requires_grad=True)
    first, _ = x.split(1, dim=1)
    (first * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[3.0, 0.0], [3.0, 0.0]]


# --------------------------------------------------------------------------------------------------- higher derivatives


def test_derivatives_up_to_the_fifth():
    x = leaf(2.0)
    y, found = x**5, []
    for _ in range(5):
        (y,) = gn.grad(y, x, create_graph=True)
        found.append(y.item())
    assert found == [80.0, 160.0, 240.0, 240.0, 120.0]


def test_third_derivative_through_a_kernel():
    x = leaf(0.5)
    y = x.tanh()
    for _ in range(3):
        (y,) = gn.grad(y, x, create_graph=True)
    t = np.tanh(0.5)
    assert y.item() == pytest.approx(-2 * (1 - t * t) * (1 - 3 * t * t))


def test_backward_with_create_graph_leaves_a_differentiable_grad():
    x = leaf(3.0)
    (x**3).backward(create_graph=True)
    g = x.grad
    assert g is not None
    assert g.item() == 27.0
    assert gn.grad(g, x)[0].item() == 18.0


def test_penalty_on_a_gradient():
    """The gradient of |dy/dx|^2 by a weight: first derivatives by x, then by w."""
    x, w = leaf(0.3, -0.2), leaf(1.5, 0.5)
    (g,) = gn.grad((x * w).tanh().sum(), x, create_graph=True)
    (g * g).sum().backward()
    t = np.tanh(x.data * w.data)
    slope = w.data * (1 - t * t)
    expected = 2 * slope * ((1 - t * t) - 2 * w.data * t * (1 - t * t) * x.data)
    assert w.grad is not None
    np.testing.assert_allclose(w.grad.data, expected)


def test_without_create_graph_gradients_have_no_history():
    x = leaf(2.0)
    (g,) = gn.grad(x * x, x)
    assert not g.requires_grad


def test_second_derivative_costs_no_walk_over_the_whole_graph():
    """Each kernel's gradient is differentiated where it stands: doubling the depth doubles the work."""
    import time

    def seconds(depth: int) -> float:
        x = leaf(0.1)
        y = x
        for _ in range(depth):
            y = y.tanh()
        (g,) = gn.grad(y, x, create_graph=True)
        begin = time.perf_counter()
        gn.grad(g, x)
        return time.perf_counter() - begin

    seconds(20)
    short, long = min(seconds(100) for _ in range(3)), min(seconds(800) for _ in range(3))
    assert long < 30 * short


# ------------------------------------------------------------------------------------------------------ hooks and grads


def test_hook_sees_replaces_and_is_removed():
    x = leaf(1.0, 2.0)
    seen = []
    handle = x.register_hook(lambda gy: seen.append(gy.tolist()))
    (x * 3).sum().backward()
    assert seen == [[3.0, 3.0]]
    handle.remove()
    handle.remove()
    double = x.register_hook(lambda gy: gy * 2)
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6.0, 6.0]
    double.remove()
    (x * 3).sum().backward()
    assert len(seen) == 1
    assert x.grad.tolist() == [9.0, 9.0]


def test_hook_runs_once_with_the_whole_gradient():
    for tensor_of in (lambda x: x, lambda x: x * 1):
        x = leaf(1.0)
        h = tensor_of(x)
        seen = []
        h.register_hook(lambda gy, seen=seen: seen.append(gy.item()))
        (h * 2 + h * h + h).backward()
        assert seen == [5.0]


def test_hooks_run_in_order_each_on_the_result_of_the_last():
    x = leaf(1.0)
    h = x * 1
    h.register_hook(lambda gy: gy + 1)
    h.register_hook(lambda gy: gy * 10)
    h.backward()
    assert x.grad is not None
    assert x.grad.item() == 20.0


def test_retained_and_returned_gradients_come_after_the_hooks():
    x = leaf(1.0)
    h = x * 2
    h.retain_grad()
    h.register_hook(lambda gy: gy * 10)
    y = h * 3
    assert gn.grad(y, h, retain_graph=True)[0].item() == 30.0
    h.grad = None
    y.backward()
    assert h.grad is not None
    assert x.grad is not None
    assert (h.grad.item(), x.grad.item()) == (30.0, 60.0)


def test_later_nodes_hooks_run_first():
    x = leaf(1.0)
    a = x * 2
    b = a * 2
    seen = []
    for name, tensor in (("x", x), ("a", a), ("b", b)):
        tensor.register_hook(lambda gy, name=name: seen.append(name))
    (b + x).backward()
    assert seen == ["b", "a", "x"]


@pytest.mark.parametrize("wrong", [3, gn.ones(2), "x"])
def test_hook_must_return_a_gradient(wrong):
    x = leaf(1.0)
    h = x * 2
    h.register_hook(lambda gy: wrong)
    with pytest.raises(GraphError, match=r"hook: must return None or a gradient tensor of shape \(1,\), got"):
        h.backward()
    assert x.grad is None


def test_retain_grad_keeps_and_accumulates():
    x = leaf(1.0)
    h = x * 2
    assert h.grad is None
    h.retain_grad()
    y = h * 5
    y.backward(retain_graph=True)
    y.backward()
    assert h.grad is not None
    assert h.grad.item() == 10.0
    x.retain_grad()  # of a leaf: nothing to do


def test_retained_gradient_follows_a_change_in_place():
    x = leaf(1.0)
    h = x * 2
    h.retain_grad()
    h.add_(1.0)
    (h * 7).backward()
    assert h.grad is not None
    assert h.grad.item() == 7.0


def test_retain_grad_of_a_tensor_that_died_is_forgotten():
    x = leaf(1.0)
    h = x * 2
    h.retain_grad()
    y = h * 5
    del h
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 10.0
