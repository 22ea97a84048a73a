"""What the losses mean: values by hand and by the math module, every option, edges, and derivatives.

All runs on the NumPy definition; that other backends agree with it is the product tests' matter.
"""

import itertools
import math

import numpy as np
import pytest

import gpunet as gn
import gpunet.functional as F
from tests.loops import check_derivatives

INF, NAN = math.inf, math.nan
REDUCTIONS = ("mean", "sum", "none")


@pytest.fixture(autouse=True)
def _definition():
    with gn.use_backend("numpy"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def maybe(array):
    return None if array is None else gn.tensor(array)


# --------------------------------------------------------------------------------------------- cross_entropy, labels


def log_probabilities(row):
    top = max(row)
    lse = top + math.log(math.fsum(math.exp(v - top) for v in row))
    return [v - lse for v in row]


def loop_cross_entropy(x, target, w, ignore_index, e):
    """Losses of target's shape, and the weight that a mean divides by; x (C,), (N, C) or (N, C, ...)."""
    moved = x if x.ndim == 1 else np.moveaxis(x, 1, -1)
    C = moved.shape[-1]
    w = [1.0] * C if w is None else w
    loss, total = np.zeros(target.shape), 0.0
    for at in np.ndindex(*target.shape):
        t = int(target[at])
        if t == ignore_index:
            continue
        costs = [-v for v in log_probabilities(moved[at].tolist())]
        spread = math.fsum(w[c] * costs[c] for c in range(C))
        loss[at] = (1 - e) * w[t] * costs[t] + e / C * spread
        total += w[t]
    return loss, total


def over(loss, total, reduction):
    return loss if reduction == "none" else loss.sum() / (total if reduction == "mean" else 1)


LABELLED = [(4,), (5, 4), (3, 4, 2), (2, 4, 3, 2)]


def labels_for(rng, shape, classes=4):
    return np.asarray(rng.integers(0, classes, () if len(shape) == 1 else (shape[0], *shape[2:])))


@pytest.mark.parametrize("shape", LABELLED)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_with_every_option(rng, shape, reduction):
    x, target = rng.standard_normal(shape) * 3, labels_for(rng, shape)
    for w, ignore_index, e in itertools.product((None, rng.random(4)), (-100, 1, 2), (0.0, 0.2, 1.0)):
        if w is not None and (target == ignore_index).all():
            continue  # the mean of nothing has its own test
        y = F.cross_entropy(gn.tensor(x), gn.tensor(target), maybe(w), ignore_index, reduction, e)
        loss, total = loop_cross_entropy(x, target, w, ignore_index, e)
        if total or reduction != "mean":
            np.testing.assert_allclose(y.numpy(), over(loss, total, reduction), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("shape", LABELLED)
@pytest.mark.parametrize(("e", "weighted"), [(0.0, False), (0.0, True), (0.3, False), (0.3, True)])
def test_cross_entropy_derivatives(rng, shape, e, weighted):
    target = labels_for(rng, shape)
    if target.size > 1:
        target.flat[1] = -100
    w = gn.tensor(rng.random(4)) if weighted else None
    for reduction in REDUCTIONS:
        check_derivatives(
            lambda x: F.cross_entropy(x, gn.tensor(target), w, reduction=reduction, label_smoothing=e),  # noqa: B023
            rng.standard_normal(shape),
        )


def test_cross_entropy_by_hand():
    x = gn.tensor([[0.0, math.log(3.0)], [math.log(7.0), 0.0]], dtype="float64", requires_grad=True)
    loss = F.cross_entropy(x, gn.tensor([0, 0]), reduction="sum")
    assert loss.item() == pytest.approx(math.log(4) + math.log(8 / 7), rel=1e-14)
    loss.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [[-0.75, 0.75], [-0.125, 0.125]], rtol=1e-14)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32", "int64"])
def test_labels_may_be_any_integers(dtype):
    x = gn.tensor([[0.0, 1.0, 2.0]] * 2)
    wanted = F.cross_entropy(x, gn.tensor([2, 0])).item()
    assert F.cross_entropy(x, gn.tensor([2, 0], dtype=dtype)).item() == wanted


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_is_stable(dtype):
    x = gn.tensor([[1e4, 0.0], [-1e4, 0.0], [1e30, -1e30], [0.5, 0.5]], dtype=dtype, requires_grad=True)
    loss = F.cross_entropy(x, gn.tensor([0, 0, 0, 1]), reduction="none")
    np.testing.assert_allclose(loss.detach().numpy(), [0.0, 1e4, 0.0, math.log(2)], rtol=1e-6)
    loss.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [[0, 0], [-1, 1], [0, 0], [0.5, -0.5]], atol=1e-7)
    shifted = F.cross_entropy(gn.tensor([[4096.25, 4095.0]], dtype=dtype), gn.tensor([1]))
    assert shifted.item() == F.cross_entropy(gn.tensor([[1.25, 0.0]], dtype=dtype), gn.tensor([1])).item()


def test_cross_entropy_of_infinite_logits():
    x = [[-INF, 0.0, 0.0], [0.0, -INF, 0.0], [-INF] * 3, [INF, 0.0, 0.0], [NAN, 0.0, 0.0]]
    target = gn.tensor([1, 1, 0, 0, 1])
    loss = F.cross_entropy(gn.tensor(x), target, reduction="none").numpy()
    np.testing.assert_allclose(loss, [math.log(2), INF, NAN, NAN, NAN], rtol=1e-6)
    smoothed = F.cross_entropy(gn.tensor(x[:1]), target[:1], label_smoothing=0.1)
    assert smoothed.item() == INF  # some of the target lies on a class of probability 0


def test_what_is_ignored_counts_nothing_whatever_it_holds():
    x = gn.tensor([[NAN, INF], [0.0, 0.0]], dtype="float64", requires_grad=True)
    loss = F.cross_entropy(x, gn.tensor([-100, 1]), label_smoothing=0.5)
    assert loss.item() == pytest.approx(math.log(2))
    (gx,) = gn.grad(loss, x, create_graph=True)
    np.testing.assert_allclose(gx.detach().numpy(), [[0, 0], [0.25, -0.25]], atol=1e-15)
    (ggx,) = gn.grad(gx[1, 0], x)
    np.testing.assert_allclose(ggx.numpy(), [[0, 0], [0.25, -0.25]], atol=1e-15)


def test_the_mean_of_nothing_is_nan_and_its_sum_is_0():
    x, target = gn.zeros(2, 3, requires_grad=True), gn.tensor([-100, -100])
    for loss in (F.cross_entropy, F.nll_loss):
        assert math.isnan(loss(x, target).item())
        assert loss(x, target, reduction="sum").item() == 0.0
        assert loss(x, target, reduction="none").tolist() == [0.0, 0.0]
        assert math.isnan(loss(gn.zeros(0, 3), gn.zeros(0, dtype="int64")).item())
    zero = gn.zeros(3)
    assert math.isnan(F.cross_entropy(x, gn.tensor([0, 1]), zero).item())


def test_cross_entropy_in_one_launch_forward_and_one_backward(rng):
    x = gn.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    with gn.trace() as launches:
        F.cross_entropy(x, gn.tensor([0, 1, 2, 0])).backward()
    assert [each.entry for each in launches] == ["cross_entropy.forward", "cross_entropy.grad_x"]


# ------------------------------------------------------------------------------- cross_entropy, class probabilities


@pytest.mark.parametrize("shape", LABELLED)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_class_probabilities(rng, shape, reduction):
    x, share = rng.standard_normal(shape), rng.random(shape)
    axis = min(len(shape) - 1, 1)
    positions = x.size // 4
    log_p = np.apply_along_axis(lambda row: np.array(log_probabilities(row.tolist())), axis, x)
    for w, e in itertools.product((None, rng.random(4)), (0.0, 0.4)):
        factor = np.ones(4) if w is None else w
        factor = factor.reshape(4, *[1] * (len(shape) - axis - 1))
        loss = -(log_p * factor * (share * (1 - e) + e / 4)).sum(axis)
        y = F.cross_entropy(gn.tensor(x), gn.tensor(share), maybe(w), reduction=reduction, label_smoothing=e)
        np.testing.assert_allclose(y.numpy(), over(loss, positions, reduction), rtol=1e-12)


def test_class_probabilities_of_one_are_labels(rng):
    x, target = rng.standard_normal((3, 4, 2)), labels_for(rng, (3, 4, 2))
    certain = np.moveaxis(np.eye(4)[target], -1, 1)
    for e in (0.0, 0.3):
        one = F.cross_entropy(gn.tensor(x), gn.tensor(certain), label_smoothing=e)
        other = F.cross_entropy(gn.tensor(x), gn.tensor(target), label_smoothing=e)
        assert one.item() == pytest.approx(other.item(), rel=1e-14)


def test_class_probabilities_derivatives(rng):
    check_derivatives(
        lambda x, share, w: F.cross_entropy(x, share, w, label_smoothing=0.1),
        rng.standard_normal((3, 4, 2)), rng.random((3, 4, 2)), rng.random(4),
    )  # fmt: skip


# -------------------------------------------------------------------------------------------------------- nll_loss


@pytest.mark.parametrize("shape", LABELLED)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_loss_after_log_softmax_is_cross_entropy(rng, shape, reduction):
    x, target = gn.tensor(rng.standard_normal(shape)), gn.tensor(labels_for(rng, shape))
    axis = min(len(shape) - 1, 1)
    for w, ignore_index in itertools.product((None, gn.tensor(rng.random(4))), (-100, 3)):
        one = F.nll_loss(F.log_softmax(x, axis), target, w, ignore_index, reduction).numpy()
        np.testing.assert_allclose(one, F.cross_entropy(x, target, w, ignore_index, reduction).numpy(), rtol=1e-12)


def test_nll_loss_by_hand_and_its_gradient():
    x = gn.tensor([[-1.0, -2.0], [-3.0, NAN]], requires_grad=True)
    loss = F.nll_loss(x, gn.tensor([1, 0]), gn.tensor([0.5, 3.0]))
    assert loss.item() == pytest.approx((3 * 2 + 0.5 * 3) / 3.5)
    loss.backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [[0, -3 / 3.5], [-0.5 / 3.5, 0]], rtol=1e-6)


def test_nll_loss_ignores_what_a_position_holds():
    x = gn.tensor([[NAN, INF], [-1.0, -2.0]], requires_grad=True)
    loss = F.nll_loss(x, gn.tensor([7, 0]), ignore_index=7)
    loss.backward()
    assert x.grad is not None
    assert (loss.item(), x.grad.tolist()) == (1.0, [[0.0, 0.0], [-1.0, 0.0]])


# ------------------------------------------------------------------------------------------------ mse_loss, l1_loss


@pytest.mark.parametrize(("loss", "one"), [(F.mse_loss, lambda d: d * d), (F.l1_loss, abs)])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_losses_of_numbers(rng, loss, one, shape):
    x, target = np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))
    expected = np.array([one(a - b) for a, b in zip(x.ravel().tolist(), target.ravel().tolist())]).reshape(shape)
    np.testing.assert_allclose(loss(gn.tensor(x), gn.tensor(target), reduction="none").numpy(), expected, rtol=1e-14)
    assert loss(gn.tensor(x), gn.tensor(target), "sum").item() == pytest.approx(expected.sum(), rel=1e-13)
    mean = loss(gn.tensor(x), gn.tensor(target)).item()
    assert mean == pytest.approx(expected.mean(), rel=1e-13) if x.size else math.isnan(mean)
    if x.size:
        check_derivatives(loss, x, target)


def test_l1_loss_is_flat_at_its_target():
    x = gn.tensor([1.0, 2.0], requires_grad=True)
    F.l1_loss(x, gn.tensor([1.0, 0.0]), "sum").backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0]


# --------------------------------------------------------------------------------------------- binary cross entropy


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight_shape", [None, (3,), (2, 1), (2, 3), ()])
def test_binary_cross_entropy(rng, reduction, weight_shape):
    p, t = rng.uniform(0.05, 0.95, (2, 3)), rng.random((2, 3))
    w = None if weight_shape is None else np.asarray(rng.random(weight_shape))
    loss = -(t * np.log(p) + (1 - t) * np.log(1 - p)) * (1 if w is None else w)
    y = F.binary_cross_entropy(gn.tensor(p), gn.tensor(t), maybe(w), reduction)
    np.testing.assert_allclose(y.numpy(), over(loss, 6, reduction), rtol=1e-12)
    x = np.log(p / (1 - p))
    y = F.binary_cross_entropy_with_logits(gn.tensor(x), gn.tensor(t), maybe(w), reduction)
    np.testing.assert_allclose(y.numpy(), over(loss, 6, reduction), rtol=1e-12)


def test_binary_cross_entropy_derivatives(rng):
    p, t, w, more = rng.uniform(0.1, 0.9, (2, 3)), rng.uniform(0.1, 0.9, (2, 3)), rng.random((2, 1)), rng.random(3)
    check_derivatives(lambda p, t, w: F.binary_cross_entropy(p, t, w), p, t, w, step=1e-7)
    check_derivatives(lambda p: F.binary_cross_entropy(p, gn.tensor(t)), p, step=1e-7)
    check_derivatives(F.binary_cross_entropy_with_logits, p * 6 - 3, t)
    check_derivatives(
        lambda x, t, w, more: F.binary_cross_entropy_with_logits(x, t, w, pos_weight=more), p * 6 - 3, t, w, more
    )


def test_binary_cross_entropy_holds_its_logarithms_at_100():
    p = gn.tensor([0.0, 1.0, 0.0, 1.0, 1e-50], dtype="float64", requires_grad=True)
    loss = F.binary_cross_entropy(p, gn.tensor([1.0, 0.0, 0.0, 1.0, 1.0], dtype="float64"), reduction="none")
    np.testing.assert_allclose(loss.detach().numpy(), [100, 100, 0, 0, 100])
    loss.sum().backward()
    assert p.grad is not None
    np.testing.assert_allclose(p.grad.numpy(), [-1e12, 1e12, 0, 0, -1e12])


def test_pos_weight_counts_class_1_alone():
    x, t = gn.zeros(2, 2), gn.tensor([[1.0, 1.0], [0.0, 0.0]])
    y = F.binary_cross_entropy_with_logits(x, t, reduction="none", pos_weight=gn.tensor([3.0, 0.5]))
    np.testing.assert_allclose(y.numpy(), np.array([[3.0, 0.5], [1.0, 1.0]]) * math.log(2), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_with_logits_of_large_numbers(dtype):
    x = gn.tensor([-1000.0, 1000.0, 1000.0, -1000.0, 30.0], dtype=dtype, requires_grad=True)
    t = gn.tensor([1.0, 1.0, 0.0, 0.0, 1.0], dtype=dtype)
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    np.testing.assert_allclose(loss.detach().numpy(), [1000, 0, 1000, 0, math.exp(-30)], rtol=1e-6)
    loss.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [-1, 0, 1, 0, -math.exp(-30)], rtol=1e-6, atol=1e-7)


def test_binary_cross_entropy_with_logits_has_no_step():
    x, t = gn.tensor([-19.0, -21.0, -40.0], dtype="float64"), gn.ones(3, dtype="float64")
    expected = [v + math.log1p(math.exp(-v)) for v in (19.0, 21.0, 40.0)]
    loss = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-15)


def test_losses_read_any_stride(rng):
    x, t = rng.random((4, 3)), rng.random((4, 3))
    for loss in (F.mse_loss, F.l1_loss, F.binary_cross_entropy, F.binary_cross_entropy_with_logits, F.cross_entropy):
        turned = loss(gn.from_numpy(x.T), gn.from_numpy(t.T), reduction="sum").item()
        straight = loss(gn.tensor(x.T.copy()), gn.tensor(t.T.copy()), reduction="sum").item()
        assert turned == pytest.approx(straight, rel=1e-13)
