"""The graph and the walk over it: what is summed, what is kept, what is freed, and what is refused."""

import gc
import re
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import AnomalyError, DeviceError, GraphError, ShapeError
from gpunet.graph import Function


def leaf(*values: Any) -> gn.Tensor:
    return gn.tensor(np.array(values, float), requires_grad=True)


def gradient_of(tensor: gn.Tensor) -> list[Any]:
    assert tensor.grad is not None
    return tensor.grad.tolist()


def nodes_alive() -> int:
    return sum(issubclass(type(each), Function) for each in gc.get_objects())  # isinstance would wake lazy modules


# --------------------------------------------------------------------------------------------------------- the sums


def test_a_chain_of_100_000_ops_needs_no_recursion():
    x = leaf(1.0, 2.0)
    y = x
    for _ in range(50_000):
        y = y * 1.00001
        y = y + 0.00001
    y.sum().backward()
    assert gradient_of(x) == pytest.approx([1.00001**50_000] * 2)
    begin = time.perf_counter()
    del y
    assert time.perf_counter() - begin < 5


def test_fan_out_and_diamond_add_up():
    x = leaf(2.0)
    a, b = x * 3, x * x
    y = a * b + a + b  # 3x^3 + 3x + x^2
    y.backward()
    assert gradient_of(x) == [9 * 4 + 3 + 4]


def test_one_tensor_as_both_arguments():
    x = leaf(3.0)
    (x * x + x - x / x).backward()
    assert gradient_of(x) == [7.0]


def test_sums_do_not_leak_into_one_another():
    """Random linear graphs: add hands one gradient to both arguments, so a sum made in place must be nobody else's."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        leaves = [leaf(0.0, 0.0) for _ in range(4)]
        pool, shares = list(leaves), [np.eye(4)[k] for k in range(4)]
        for _ in range(40):
            a, b = rng.integers(0, len(pool), 2)
            if rng.random() < 0.5:
                pool.append(pool[a] + pool[b])
                shares.append(shares[a] + shares[b])
            else:
                pool.append((pool[a] - pool[b]) * 0.5)
                shares.append((shares[a] - shares[b]) * 0.5)
        total = pool[0]
        for each in pool[1:]:
            total = total + each
        total.sum().backward()
        for each, share in zip(leaves, np.sum(shares, axis=0), strict=True):
            assert gradient_of(each) == pytest.approx([share, share])


@pytest.mark.parametrize(
    ("a", "b"), [((2, 3), (3,)), ((2, 3), ()), ((2, 1), (1, 3)), ((4, 1, 3), (2, 1)), ((1,), (2, 3)), ((0, 3), (3,))]
)
@pytest.mark.parametrize("op", [gn.Tensor.__add__, gn.Tensor.__sub__, gn.Tensor.__mul__, gn.Tensor.__truediv__])
def test_broadcast_gradients_are_summed_back(op, a, b):
    rng = np.random.default_rng(1)
    inputs = [gn.tensor(rng.uniform(1, 2, shape), requires_grad=True) for shape in (a, b)]
    assert gn.gradcheck(op, inputs, directions=1)


def test_gradients_accumulate_until_they_are_dropped():
    x = leaf(1.0)
    for _ in range(3):
        (x * 2).backward()
    assert gradient_of(x) == [6.0]
    x.grad = None
    (x * 2).backward()
    assert gradient_of(x) == [2.0]


def test_leaves_do_not_share_their_gradients():
    x, y = leaf(1.0), leaf(1.0)
    start = gn.ones(1, dtype="float64")
    for create_graph in (False, True):
        x.grad = y.grad = None
        (x + y).backward(start, create_graph=create_graph)
        assert x.grad is not None
        with gn.no_grad():
            x.grad.mul_(5.0)
        assert gradient_of(y) == [1.0]
        assert start.tolist() == [1.0]


def test_backward_from_a_leaf_and_into_another_dtype():
    x = leaf(4.0)
    x.backward()
    assert gradient_of(x) == [1.0]
    h = gn.ones(2, requires_grad=True)
    (h.double() * 3.0).sum().backward()
    assert h.grad is not None
    assert h.grad.dtype == np.float32


def test_integers_carry_no_gradient():
    x = leaf(1.0, 5.0, 2.0)
    values, positions = x.reshape(1, 3).max(1)
    assert values.requires_grad
    assert not positions.requires_grad
    assert not x.long().requires_grad
    assert not (x > 1).requires_grad


# ---------------------------------------------------------------------------------------------------------- the modes


def test_no_grad_as_block_decorator_and_nested():
    x = leaf(1.0)

    @gn.no_grad()
    def silent() -> gn.Tensor:
        return x * 2

    assert not silent().requires_grad
    assert not silent().requires_grad  # a second call too
    with gn.no_grad():
        assert not gn.is_grad_enabled()
        with gn.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad


def test_modes_end_with_an_exception():
    with pytest.raises(ZeroDivisionError), gn.no_grad():
        raise ZeroDivisionError
    assert gn.is_grad_enabled()


def test_modes_belong_to_their_thread():
    seen = []
    with gn.no_grad():
        thread = threading.Thread(target=lambda: seen.append(gn.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_detach_stops_the_gradient_and_shares_memory():
    x = leaf(3.0)
    cut = (x * 2).detach()
    assert not cut.requires_grad
    (x * cut).backward()
    assert gradient_of(x) == [6.0]
    d = x.detach()
    assert d.data is x.data


# ------------------------------------------------------------------------------------------------- freeing, and errors


def test_retain_graph_allows_a_second_backward():
    x = leaf(3.0)
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert gradient_of(x) == [12.0]


def test_freed_graph_says_so():
    x = leaf(3.0)
    y = x * x
    y.backward()
    with pytest.raises(GraphError, match=r"Mul: .*already used and freed; pass retain_graph=True to the first"):
        y.backward()
    assert gradient_of(x) == [6.0]


def test_activations_die_during_backward():
    x = leaf(1.0, 2.0)
    early = x * 2
    late = early.exp()
    saved = weakref.ref(late.data)
    (late * late).sum().backward(retain_graph=True)
    assert saved() is not None
    alive = []
    early.register_hook(lambda gy: alive.append(saved() is not None))
    loss = (late * late).sum()
    del late
    loss.backward()
    assert alive == [False]


def test_no_reference_cycles():
    gc.collect()
    gc.disable()
    try:
        before = nodes_alive()
        x = leaf(1.0, 2.0)
        y = (x.exp() * x).reshape(1, 2)[0]
        y[0] = 3.0
        z = y.sum() + (x / x.exp()).sum()
        z.backward(retain_graph=True)
        (g,) = gn.grad(z, x, create_graph=True)
        assert nodes_alive() > before
        x.grad = None
        del y, z, g
        assert nodes_alive() == before
    finally:
        gc.enable()


class Fails(gn.Function):
    """The identity, whose backward raises."""

    @staticmethod
    def forward(ctx: Any, x: gn.Tensor) -> gn.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, gy: gn.Tensor) -> gn.Tensor:
        raise ZeroDivisionError("on purpose")


def test_backward_that_raises_changes_no_gradient():
    x, y = leaf(1.0), leaf(2.0)
    (x * y).backward()
    for _ in range(2):
        loss = Fails.apply(x * 2) + x * 3 + y
        with pytest.raises(ZeroDivisionError):
            loss.backward()
        assert (gradient_of(x), gradient_of(y)) == ([2.0], [1.0])
    assert gn.is_grad_enabled()


@pytest.mark.parametrize(
    ("run", "error", "words"),
    [
        (lambda x: gn.ones(1).backward(), GraphError, "must come from one with requires_grad=True"),
        (lambda x: (x * 2).backward(), GraphError, r"got shape \(2,\); reduce it first, for example with .sum\(\)"),
        (lambda x: (x * 2).backward(gn.ones(3)), ShapeError, r"must have the tensor's shape \(2,\), got \(3,\)"),
        (lambda x: gn.grad(x * 2, x, [None, None]), GraphError, "one entry per output, that is 1, got 2"),
        (lambda x: gn.grad(gn.ones(1), x), GraphError, "grad: the tensor must come from"),
        (lambda x: gn.grad(x.sum(), gn.ones(2)), GraphError, r"input 0 \(2,\) must have requires_grad=True"),
        (lambda x: gn.tensor([1], requires_grad=True), TypeError, "only floating tensors have gradients, got int64"),
        (lambda x: (x * 2).requires_grad_(False), GraphError, "must stay on for a tensor made by Mul"),
        (lambda x: gn.ones(1).retain_grad(), GraphError, "retain_grad: the tensor must need a gradient"),
        (lambda x: gn.ones(1).register_hook(print), GraphError, "register_hook: the tensor must need a gradient"),
        (lambda x: x.to("cuda"), DeviceError, "device: 'cuda:0' cannot be used here"),
    ],
)
def test_misuse_is_refused(run, error, words):
    with pytest.raises(error, match=words):
        run(leaf(1.0, 2.0))


def test_version_counter_names_the_op_that_changed_a_saved_value():
    x = leaf(1.0, 2.0)
    for change, name in ((lambda t: t.add_(1), "add_"), (lambda t: t.__setitem__(0, 5.0), "setitem")):
        h = x * 2
        y = h * h
        change(h)
        with pytest.raises(GraphError, match=rf"Mul: .*\(2,\).* changed in place by {name} \(version 1, saved at 0\)"):
            y.sum().backward()


def test_version_counter_sees_views_outputs_and_detached():
    x = leaf(1.0, 2.0)
    for change in (lambda t: t.detach().mul_(2), lambda t: t.detach()[1:].zero_()):
        y = (x * 2).exp()  # exp keeps its output
        change(y)
        with pytest.raises(GraphError, match="changed in place"):
            y.sum().backward()
    w = leaf(1.0)
    y = w * w
    with gn.no_grad():
        w.sub_(0.1)  # as an optimiser does, but before backward
    with pytest.raises(GraphError, match="changed in place by sub_"):
        y.backward()


# ------------------------------------------------------------------------------------------------------ anomaly mode


def test_anomaly_mode_names_the_forward_line():
    here = Path(__file__).name
    x = leaf(0.0)
    with gn.detect_anomaly():
        root = gn.sqrt(x)  # the guilty line
        y = root * 0
        with pytest.raises(AnomalyError, match=r"Sqrt: the gradient of argument 0 holds NaN") as caught:
            y.backward()
    text = str(caught.value)
    assert re.search(rf'{here}", line \d+, in test_anomaly_mode_names_the_forward_line\n    root = gn.sqrt\(x\)', text)
    assert "root = gn.sqrt(x)" in "".join(text.rstrip().splitlines()[-2:])  # the last frame is the user's


def test_anomaly_mode_names_the_op_whose_backward_fails():
    with gn.detect_anomaly(), pytest.raises(AnomalyError, match=r"Fails: backward failed \(on purpose\); its forward"):
        Fails.apply(leaf(1.0)).backward()


def test_anomaly_mode_lets_given_nan_pass():
    x = leaf(1.0)
    with gn.detect_anomaly():
        (x * 2).backward(gn.tensor([np.nan], dtype="float64"))
    assert np.isnan(gradient_of(x)[0])


def test_anomaly_mode_off_lets_nan_through():
    x = leaf(0.0)
    (gn.sqrt(x) * 0).backward()
    assert np.isnan(gradient_of(x)[0])


# ---------------------------------------------------------------------------------------------------------- the picture


def test_graph_dot_draws_every_node_and_edge():
    x, w = leaf(1.0, 2.0), leaf(3.0)
    text = gn.graph_dot(((x * w).exp() + x).sum())
    assert text.startswith("digraph gpunet {")
    assert text.endswith("}")
    assert text.count("{") == text.count("}")
    nodes = re.findall(r"^  (n\d+) \[shape=(box|ellipse).*label=\"(.*)\"\];$", text, re.M)
    ops = sorted(label.partition("\\n")[0] for _, kind, label in nodes if kind == "box")
    assert ops == ["Add", "Exp", "Mul", "Sum"]
    assert sorted(label for _, kind, label in nodes if kind == "ellipse") == ["1", "2"]
    edges = re.findall(r"^  (n\d+) -> (n\d+);$", text, re.M)
    assert len(edges) == 6
    assert {name for edge in edges for name in edge} == {name for name, _, _ in nodes}
    assert len(nodes) + len(edges) + 3 == len(text.splitlines())


# -------------------------------------------------------------------------------------------------------------- threads


def test_backward_in_two_threads_at_once():
    shared = leaf(*[1.0] * 50)
    owns = [leaf(*[1.0] * 50) for _ in range(4)]

    def work(own: gn.Tensor) -> None:
        for _ in range(50):
            (shared * 2 + own * own + own).sum().backward()

    threads = [threading.Thread(target=work, args=(own,)) for own in owns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gradient_of(shared) == [400.0] * 50
    assert all(gradient_of(own) == [150.0] * 50 for own in owns)
