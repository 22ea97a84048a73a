"""What batch_norm and layer_norm mean: statistics by exact sums, running averages by hand, and derivatives.

All runs on the NumPy definition; that other backends agree with it is the product tests' matter.
"""

import math

import numpy as np
import pytest

import gpunet as gn
import gpunet.functional as F
from gpunet.errors import GpunetError, GraphError
from tests.loops import check_derivatives


@pytest.fixture(autouse=True)
def _definition():
    with gn.use_backend("numpy"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def statistics(values):
    """Mean and biased variance of a flat list, with exact sums."""
    mean = math.fsum(values) / len(values)
    return mean, math.fsum((v - mean) ** 2 for v in values) / len(values)


def normalized(x, groups, eps, w=None, b=None):
    """x with each group (an index into x) brought to mean 0 and variance 1; w and b of x's shape."""
    y = np.empty(x.shape)
    for group in groups:
        mean, var = statistics(x[group].astype(np.float64).ravel().tolist())
        y[group] = (x[group].astype(np.float64) - mean) / math.sqrt(var + eps)
    return y * (1 if w is None else w) + (0 if b is None else b)


def wide(v, ndim):
    return v.reshape(-1, *[1] * (ndim - 2))


SHAPES = [(5, 3), (4, 3, 5), (2, 3, 4, 3), (1, 2, 3), (2, 1, 1, 1), (7, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("affine", [(False, False), (True, False), (False, True), (True, True)])
def test_batch_norm_in_training(rng, shape, affine):
    x, C = rng.standard_normal(shape) * 2 + 3, shape[1]
    w, b = (rng.standard_normal(C) if given else None for given in affine)
    weight, bias = (None if v is None else gn.tensor(v) for v in (w, b))
    y = F.batch_norm(gn.tensor(x), None, None, weight, bias, training=True, eps=1e-3)
    scale, shift = (None if v is None else wide(v, x.ndim) for v in (w, b))
    expected = normalized(x, [(slice(None), c) for c in range(C)], 1e-3, scale, shift)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 2), (3, 2, 2, 2)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [(False, False), (True, False), (False, True), (True, True)])
def test_batch_norm_derivatives(rng, shape, training, affine):
    x = rng.standard_normal(shape)
    given = [rng.standard_normal(2) for is_given in affine if is_given]
    mean, var = gn.tensor(rng.standard_normal(2)), gn.tensor(rng.random(2) + 0.5)
    running = (None, None) if training else (mean, var)

    def function(x, *given):
        rest = iter(given)
        w, b = (next(rest) if is_given else None for is_given in affine)
        return F.batch_norm(x, *running, w, b, training, eps=0.1)

    check_derivatives(function, x, *given)


def test_batch_norm_running_statistics(rng):
    x = rng.standard_normal((4, 2, 3)) + 5
    mean, var = gn.tensor([1.0, 2.0], dtype="float64"), gn.tensor([3.0, 4.0], dtype="float64")
    arrays = mean.data, var.data
    F.batch_norm(gn.tensor(x), mean, var, training=True, momentum=0.25)
    assert arrays[0] is mean.data  # in their own memory
    assert arrays[1] is var.data
    for c, (old_mean, old_var) in enumerate([(1.0, 3.0), (2.0, 4.0)]):
        batch_mean, batch_var = statistics(x[:, c].ravel().tolist())
        unbiased = batch_var * 12 / 11
        np.testing.assert_allclose(mean.numpy()[c], 0.75 * old_mean + 0.25 * batch_mean, rtol=1e-14)
        np.testing.assert_allclose(var.numpy()[c], 0.75 * old_var + 0.25 * unbiased, rtol=1e-14)


@pytest.mark.parametrize("momentum", [0, 1])
def test_batch_norm_momentum_at_its_ends(rng, momentum):
    x = rng.standard_normal((6, 1))
    mean, var = gn.zeros(1, dtype="float64"), gn.ones(1, dtype="float64")
    F.batch_norm(gn.tensor(x), mean, var, training=True, momentum=momentum)
    expected = (x.mean(), x.var(ddof=1)) if momentum else (0.0, 1.0)
    np.testing.assert_allclose((mean.item(), var.item()), expected, rtol=1e-13)


def test_batch_norm_in_use_takes_the_running_statistics(rng):
    x, w, b = rng.standard_normal((2, 3, 2)), rng.standard_normal(3), rng.standard_normal(3)
    mean, var = rng.standard_normal(3), rng.random(3)
    kept = gn.tensor(mean), gn.tensor(var)
    y = F.batch_norm(gn.tensor(x), *kept, gn.tensor(w), gn.tensor(b), eps=0.5)
    expected = (x - wide(mean, 3)) / np.sqrt(wide(var, 3) + 0.5) * wide(w, 3) + wide(b, 3)
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-13)
    np.testing.assert_array_equal(kept[0].numpy(), mean)
    np.testing.assert_array_equal(kept[1].numpy(), var)
    one = F.batch_norm(gn.tensor(x[:1]), *kept, gn.tensor(w), gn.tensor(b), eps=0.5)
    np.testing.assert_array_equal(one.numpy(), y.numpy()[:1])  # one image's result is its own


@pytest.mark.parametrize("shape", [(64, 2), (16, 2, 8, 8)])
def test_batch_norm_of_a_large_mean_in_float32(rng, shape):
    x = (rng.standard_normal(shape) + 1e4).astype("f4")
    mean, var = gn.zeros(2), gn.ones(2)
    y = F.batch_norm(gn.tensor(x), mean, var, training=True, momentum=1.0)
    expected = normalized(x, [(slice(None), c) for c in range(2)], 1e-5)
    assert np.abs(y.numpy() - expected).max() < 4e-6  # with the mean rounded to float32 it would be 5e-4
    shifted = F.batch_norm(gn.tensor(x), None, None, gn.tensor([1.0, 2.0]), gn.tensor([0.5, -1.0]), training=True)
    expected = expected * wide(np.array([1.0, 2.0]), x.ndim) + wide(np.array([0.5, -1.0]), x.ndim)
    assert np.abs(shifted.numpy() - expected).max() < 8e-6
    exact = [statistics(x[:, c].astype(float).ravel().tolist()) for c in range(2)]
    count = x.size / 2
    np.testing.assert_allclose(mean.numpy(), [m for m, _ in exact], rtol=1e-7)
    np.testing.assert_allclose(var.numpy(), [v * count / (count - 1) for _, v in exact], rtol=1e-6)


def test_batch_norm_of_a_constant_channel_is_the_bias():
    x = gn.full((4, 1), 0.1, requires_grad=True)
    y = F.batch_norm(x, None, None, gn.tensor([2.0]), gn.tensor([0.5]), True)
    np.testing.assert_allclose(y.detach().numpy(), 0.5, atol=1e-5)
    y.backward(gn.tensor([[1.0], [0.0], [0.0], [0.0]]))
    assert x.grad is not None
    assert np.isfinite(x.grad.numpy()).all()


def test_batch_norm_keeps_channels_apart():
    x = np.ones((3, 4, 2))
    x[:, :, 0] = np.arange(12).reshape(3, 4)
    x[0, 1, 0], x[0, 2, 0], x[0, 3, 0] = np.inf, np.nan, -np.inf
    y = F.batch_norm(gn.tensor(x), None, None, training=True).numpy()
    assert np.isfinite(y[:, 0]).all()
    assert np.isnan(y[:, 2]).all()
    np.testing.assert_array_equal(np.isfinite(y[:, 1]).any(), False)
    kept = gn.zeros(4, dtype="float64"), gn.ones(4, dtype="float64")
    y = F.batch_norm(gn.tensor(x), *kept, eps=0.0).numpy()
    np.testing.assert_array_equal(y, x)  # in use each element is its own


def test_batch_norm_of_an_empty_batch_leaves_the_running_statistics():
    mean, var = gn.zeros(3), gn.ones(3)
    for training in (True, False):
        x = gn.zeros(0, 3, 4, requires_grad=True)
        w = gn.ones(3, requires_grad=True)
        y = F.batch_norm(x, mean, var, w, training=training)
        assert y.shape == (0, 3, 4)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == (0, 3, 4)
    assert (mean.tolist(), var.tolist()) == ([0.0] * 3, [1.0] * 3)


def test_batch_norm_reads_any_stride(rng):
    x = rng.standard_normal((5, 6, 4))
    turned = F.batch_norm(gn.from_numpy(x.transpose(1, 2, 0)), None, None, training=True)
    straight = F.batch_norm(gn.tensor(np.ascontiguousarray(x.transpose(1, 2, 0))), None, None, training=True)
    np.testing.assert_allclose(turned.numpy(), straight.numpy(), rtol=1e-13, atol=1e-14)


def test_batch_norm_changes_the_running_statistics_in_the_sight_of_the_graph(rng):
    mean, var = gn.zeros(2), gn.ones(2)
    scale = gn.ones(2, requires_grad=True)
    product = (mean * scale).sum()  # saves mean
    F.batch_norm(gn.tensor(rng.standard_normal((4, 2)), dtype="float32"), mean, var, training=True)
    with pytest.raises(GraphError, match=r"changed in place by batch_norm \(version 1"):
        product.backward()


def test_batch_norm_in_use_differentiates_with_the_statistics_it_used(rng):
    x = gn.tensor(rng.standard_normal((4, 2)), requires_grad=True)
    w = gn.ones(2, dtype="float64", requires_grad=True)
    mean, var = gn.zeros(2, dtype="float64"), gn.ones(2, dtype="float64")
    y = F.batch_norm(x, mean, var, w, eps=0.0).sum()
    F.batch_norm(gn.tensor(rng.standard_normal((4, 2)) * 9), mean, var, training=True)  # moves the statistics on
    y.backward()
    assert x.grad is not None
    assert w.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), 1.0)
    np.testing.assert_allclose(w.grad.numpy(), x.detach().numpy().sum(0))


@pytest.mark.parametrize("bad", ["shape", "dtype", "momentum", "eps", "one_value", "bias"])
def test_batch_norm_leaves_the_running_statistics_when_it_refuses(bad):
    mean, var = gn.zeros(3), gn.ones(3)
    given = {"weight": gn.ones(2) if bad == "shape" else gn.ones(3), "bias": gn.ones(3, 1) if bad == "bias" else None}
    x = gn.rand(1 if bad == "one_value" else 4, 3, dtype="float64" if bad == "dtype" else "float32")
    momentum, eps = 2.0 if bad == "momentum" else 0.1, -1.0 if bad == "eps" else 1e-5
    with pytest.raises(GpunetError, match="batch_norm: "):
        F.batch_norm(x, mean, var, **given, training=True, momentum=momentum, eps=eps)
    assert (mean.tolist(), var.tolist()) == ([0.0] * 3, [1.0] * 3)


@pytest.mark.parametrize(
    ("wanted", "entries"),
    [("x", ["grad_wb", "grad_x"]), ("w", ["grad_wb"]), ("xw", ["grad_wb", "grad_x"])],
)
def test_batch_norm_computes_only_the_gradients_asked_for(rng, wanted, entries):
    x = gn.tensor(rng.standard_normal((4, 3)), requires_grad="x" in wanted)
    w = gn.ones(3, dtype="float64", requires_grad="w" in wanted)
    with gn.trace() as launches:
        F.batch_norm(x, None, None, w, training=True).sum().backward()
    assert [each.entry.removeprefix("batch_norm.") for each in launches if each.phase == "backward"] == entries
    kept = gn.zeros(3, dtype="float64"), gn.ones(3, dtype="float64")
    with gn.trace() as launches:
        F.batch_norm(x, *kept, w).sum().backward()
    used = [each.entry.removeprefix("batch_norm.") for each in launches if each.phase == "backward"]
    assert used == (["grad_x_eval"] if "x" in wanted else []) + (["grad_wb"] if "w" in wanted else [])


# ------------------------------------------------------------------------------------------------------ layer_norm


@pytest.mark.parametrize(
    ("shape", "sizes"), [((4, 6), 6), ((4, 6), (6,)), ((5,), 5), ((2, 3, 4), (3, 4)), ((2, 3, 4), 4), ((3, 1), 1)]
)
@pytest.mark.parametrize("affine", [(False, False), (True, False), (False, True), (True, True)])
def test_layer_norm(rng, shape, sizes, affine):
    x, inner = rng.standard_normal(shape) * 2 + 3, (sizes,) if isinstance(sizes, int) else sizes
    w, b = (rng.standard_normal(inner) if given else None for given in affine)
    y = F.layer_norm(gn.tensor(x), sizes, *(None if v is None else gn.tensor(v) for v in (w, b)), eps=1e-3)
    rows = [tuple(at) for at in np.ndindex(*shape[: len(shape) - len(inner)])]
    np.testing.assert_allclose(y.numpy(), normalized(x, rows, 1e-3, w, b), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("affine", [(False, False), (True, False), (False, True), (True, True)])
def test_layer_norm_derivatives(rng, affine):
    given = [rng.standard_normal((2, 3)) for is_given in affine if is_given]

    def function(x, *given):
        rest = iter(given)
        w, b = (next(rest) if is_given else None for is_given in affine)
        return F.layer_norm(x, (2, 3), w, b, eps=0.1)

    check_derivatives(function, rng.standard_normal((4, 2, 3)), *given)


def test_layer_norm_of_a_large_mean_in_float32(rng):
    x = (rng.standard_normal((8, 64)) + 1e4).astype("f4")
    y = F.layer_norm(gn.tensor(x), 64).numpy()
    assert np.abs(y - normalized(x, range(8), 1e-5)).max() < 4e-6


def test_layer_norm_keeps_rows_apart():
    x = np.arange(12.0).reshape(4, 3)
    x[1, 0], x[2, 1] = np.inf, np.nan
    y = F.layer_norm(gn.tensor(x), 3).numpy()
    np.testing.assert_array_equal(np.isnan(y).all(1), [False, True, True, False])
    assert np.isfinite(y[[0, 3]]).all()


def test_layer_norm_of_no_rows_and_of_another_memory_order(rng):
    x, w = gn.zeros(0, 3, requires_grad=True), gn.ones(3, requires_grad=True)
    F.layer_norm(x, 3, w).sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    assert (x.grad.shape, w.grad.tolist()) == ((0, 3), [0.0] * 3)
    x = rng.standard_normal((4, 5))
    turned = F.layer_norm(gn.from_numpy(x.T), 4).numpy()
    np.testing.assert_allclose(turned, F.layer_norm(gn.tensor(x.T.copy()), 4).numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("wanted", "entries"), [("x", ["grad_x"]), ("w", ["grad_wb"]), ("xw", ["grad_x", "grad_wb"])])
def test_layer_norm_computes_only_the_gradients_asked_for(rng, wanted, entries):
    x = gn.tensor(rng.standard_normal((4, 3)), requires_grad="x" in wanted)
    w = gn.ones(3, dtype="float64", requires_grad="w" in wanted)
    with gn.trace() as launches:
        F.layer_norm(x, 3, w).sum().backward()
    assert [each.entry.removeprefix("layer_norm.") for each in launches if each.phase == "backward"] == entries
