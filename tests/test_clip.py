"""Clipping gradients: by their norm together, and by value."""

import math

import numpy as np
import pytest

import gpunet as gn
from gpunet import nn, optim
from gpunet.errors import ArgumentError, DTypeError, GraphError


def with_gradients(*gradients: list[float]) -> list[gn.Tensor]:
    """Tensors whose gradients are these."""
    tensors = [gn.zeros(len(g), dtype=np.float64, requires_grad=True) for g in gradients]
    for tensor, g in zip(tensors, gradients, strict=True):
        tensor.grad = gn.tensor(np.array(g))
    return tensors


@pytest.mark.parametrize(
    ("norm_type", "norm"), [(2.0, 13.0), (1.0, 19.0), (math.inf, 12.0), (3.0, (27 + 64 + 1728) ** (1 / 3))]
)
def test_one_factor_brings_the_norm_of_all_to_the_bound(norm_type: float, norm: float):
    tensors = [*with_gradients([3.0, -4.0], [], [12.0]), gn.zeros(3, requires_grad=True)]
    total = optim.clip_grad_norm_(tensors, 2.0, norm_type)
    assert total.shape == ()
    assert total.item() == pytest.approx(norm, rel=1e-12)
    factor = 2.0 / (norm + 1e-6)
    found = [each.grad.tolist() for each in tensors if each.grad is not None]
    assert found == [pytest.approx([3 * factor, -4 * factor], rel=1e-12), [], pytest.approx([12 * factor], rel=1e-12)]


def test_small_gradients_stay():
    (tensor,) = with_gradients([0.3, 0.4])
    assert optim.clip_grad_norm_(tensor, 1.0).item() == pytest.approx(0.5)
    assert tensor.grad is not None
    assert tensor.grad.tolist() == [0.3, 0.4]


def test_no_gradients_have_norm_zero():
    assert optim.clip_grad_norm_(nn.Linear(2, 2).parameters(), 1.0).item() == 0.0
    assert optim.clip_grad_norm_(with_gradients([]), 1.0).item() == 0.0


def test_two_gradients_in_one_memory_are_scaled_once_each():
    a, b = with_gradients([3.0], [3.0])
    b.grad = a.grad
    optim.clip_grad_norm_([a, b], math.sqrt(18) / 2)
    assert b.grad is not None
    assert b.grad.item() == pytest.approx(1.5, rel=1e-5)
    a, b = with_gradients([3.0], [3.0])
    assert a.grad is not None
    assert b.grad is not None
    b.grad.data = a.grad.data
    optim.clip_grad_norm_([a, b], math.sqrt(18) / 2)
    assert (a.grad.item(), b.grad.item()) == pytest.approx((1.5, 1.5), rel=1e-5)


def test_gradient_that_cannot_be_written_is_clipped_too():
    (tensor,) = with_gradients([1.0, 1.0])
    assert tensor.grad is not None
    tensor.grad.data = np.broadcast_to(np.float64(4.0), (2,))
    optim.clip_grad_value_([tensor], 1.0)
    assert tensor.grad.tolist() == [1.0, 1.0]


def test_not_finite_norm_raises_only_when_asked():
    a, b = with_gradients([math.inf], [1.0])
    with pytest.raises(GraphError, match=r"clip_grad_norm_: the norm .* must be finite, got inf; nothing was scaled"):
        optim.clip_grad_norm_([a, b], 1.0, error_if_nonfinite=True)
    assert b.grad is not None
    assert b.grad.item() == 1.0
    optim.clip_grad_norm_([a, b], 1.0)
    assert b.grad.item() == 0.0  # 1 / inf, as in PyTorch


def test_values_are_cut_on_both_sides():
    a, b = with_gradients([3.0, -4.0, 0.5], [2.0])
    nn.utils.clip_grad_value_([a, b], 1.0)
    assert a.grad is not None
    assert b.grad is not None
    assert (a.grad.tolist(), b.grad.tolist()) == ([1.0, -1.0, 0.5], [1.0])


def test_refusals():
    (p,) = with_gradients([1.0])
    with pytest.raises(ArgumentError, match=r"clip_grad_norm_: max_norm must be at least 0, got -1"):
        optim.clip_grad_norm_(p, -1)
    with pytest.raises(ArgumentError, match=r"clip_grad_norm_: norm_type must be above 0, got 0"):
        optim.clip_grad_norm_(p, 1, 0)
    with pytest.raises(ArgumentError, match=r"clip_grad_value_: clip_value must be at least 0, got -1"):
        optim.clip_grad_value_(p, -1)
    with pytest.raises(DTypeError, match=r"clip_grad_norm_: parameters must be a gpunet tensor, got int"):
        optim.clip_grad_norm_([3], 1)  # type: ignore[list-item]
