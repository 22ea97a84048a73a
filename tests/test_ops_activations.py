"""What the activations and softmax mean: values by the math module, special values, kinks, and derivatives.

All runs on the NumPy definition; that other backends agree with it is the product tests' matter.
"""

import math

import numpy as np
import pytest
from gpunet.kernels.common.erf import CHUNK, erf

import gpunet as gn
import gpunet.functional as F
from tests.loops import check_derivatives

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def _definition():
    with gn.use_backend("numpy"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def phi(v):
    return 0.5 * math.erfc(-v / math.sqrt(2))


def gelu_tanh(v):
    return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))


def softplus_low(v):
    return v if 2 * v > 1 else math.log1p(math.exp(2 * v)) / 2


#: name -> (the op, the same for one number, the kinks to stay away from)
FUNCTIONS = {
    "relu": (F.relu, lambda v: max(v, 0.0), (0.0,)),
    "leaky_relu": (F.leaky_relu, lambda v: v if v > 0 else 0.01 * v, (0.0,)),
    "leaky_relu_steep": (lambda x: F.leaky_relu(x, -1.5), lambda v: v if v > 0 else -1.5 * v, (0.0,)),
    "sigmoid": (F.sigmoid, lambda v: 1 / (1 + math.exp(-v)), ()),
    "tanh": (F.tanh, math.tanh, ()),
    "gelu": (F.gelu, lambda v: v * phi(v), ()),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), gelu_tanh, ()),
    "softplus": (F.softplus, lambda v: math.log1p(math.exp(v)), ()),
    "softplus_sharp": (lambda x: F.softplus(x, 2.5, 100), lambda v: math.log1p(math.exp(2.5 * v)) / 2.5, ()),
    "softplus_low": (lambda x: F.softplus(x, 2, 1), softplus_low, (0.5,)),
}
each_function = pytest.mark.parametrize(("op", "one", "kinks"), FUNCTIONS.values(), ids=FUNCTIONS)


@each_function
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values(op, one, kinks, dtype):
    x = np.linspace(-9, 9, 721, dtype=dtype)
    y = op(gn.tensor(x)).numpy()
    assert y.dtype == dtype
    expected = np.array([one(float(v)) for v in x])
    bound = 4 * np.finfo(dtype).eps * np.maximum(np.abs(x), 1)  # a few roundings of the largest number in the formula
    assert (np.abs(y - expected) <= bound).all(), np.abs(y - expected).max()


@each_function
def test_derivatives(op, one, kinks, rng):
    x = rng.uniform(-3, 3, (4, 5))
    x = x[np.abs(x[..., None] - np.array([*kinks, 99.0])).min(-1) > 0.01]  # flat; away from kinks
    check_derivatives(op, x)


@each_function
def test_any_shape_and_stride(op, one, kinks, rng):
    x = rng.standard_normal((3, 4, 5))
    turned = gn.from_numpy(x.transpose(2, 0, 1))
    np.testing.assert_array_equal(op(turned).numpy(), op(gn.tensor(x)).numpy().transpose(2, 0, 1))
    for shape in ((), (0,), (2, 0, 3), (1, 1)):
        assert op(gn.zeros(*shape)).shape == shape
    single = gn.tensor(0.75, dtype="float64", requires_grad=True)
    op(single).backward()
    assert single.grad is not None
    assert single.grad.shape == ()


SPECIAL = {
    "relu": ([-INF, -1.0, 0.0, INF, NAN], [0.0, 0.0, 0.0, INF, NAN], [0.0, 0.0, 0.0, 1.0, 1.0]),
    "leaky_relu": ([-INF, 0.0, INF, NAN], [-INF, 0.0, INF, NAN], [0.01, 0.01, 1.0, 0.01]),
    "sigmoid": ([-INF, -1e3, 0.0, 1e3, INF, NAN], [0.0, 0.0, 0.5, 1.0, 1.0, NAN], [0.0, 0.0, 0.25, 0.0, 0.0, NAN]),
    "tanh": ([-INF, -1000.0, 0.0, 1000.0, INF, NAN], [-1.0, -1.0, 0.0, 1.0, 1.0, NAN], [0.0, 0.0, 1.0, 0.0, 0.0, NAN]),
    "gelu": ([-INF, -1000.0, 0.0, 1000.0, INF, NAN], [NAN, 0.0, 0.0, 1000.0, INF, NAN], [NAN, 0.0, 0.5, 1.0, NAN, NAN]),
    "gelu_tanh": ([-INF, -1e3, 0.0, 1e3, INF, NAN], [NAN, 0.0, 0.0, 1e3, INF, NAN], [NAN, 0.0, 0.5, 1.0, NAN, NAN]),
    "softplus": ([-INF, -1000.0, 1000.0, INF, NAN], [0.0, 0.0, 1000.0, INF, NAN], [0.0, 0.0, 1.0, 1.0, NAN]),
}


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_and_their_gradients(name, dtype):
    x, y, gx = SPECIAL[name]
    x = gn.tensor(x, dtype=dtype, requires_grad=True)
    out = FUNCTIONS[name][0](x)
    np.testing.assert_array_equal(out.detach().numpy(), np.array(y, dtype))
    out.backward(gn.ones_like(x))
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), np.array(gx, dtype), rtol=1e-6)


def test_relu_drops_an_infinite_gradient_on_the_flat_side():
    x = gn.tensor([-1.0, 1.0, -1.0], requires_grad=True)
    F.relu(x).backward(gn.tensor([INF, INF, NAN]))
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, INF, 0.0]


def test_softplus_is_x_itself_above_the_threshold_and_exact_without_one():
    x = gn.tensor([19.9, 20.1], dtype="float64")
    y = F.softplus(x).numpy()
    assert y[0] > 19.9
    assert y[1] == 20.1
    exact = F.softplus(gn.tensor([800.0, 20.1, -800.0], dtype="float64"), threshold=INF).numpy()
    np.testing.assert_allclose(exact, [800.0, 20.1 + math.exp(-20.1), 0.0], rtol=1e-15, atol=1e-300)


def test_the_two_forms_of_gelu_are_close():
    x = gn.tensor(np.linspace(-6, 6, 1001))
    apart = np.abs(F.gelu(x).numpy() - F.gelu(x, "tanh").numpy()).max()
    assert 1e-4 < apart < 5e-4


# ----------------------------------------------------------------------------------------------------------- prelu


@pytest.mark.parametrize(
    ("shape", "channels"), [((4,), 1), ((3, 5), 5), ((3, 5), 1), ((2, 3, 4), 3), ((2, 3, 2, 2), 3), ((2, 1, 3), 1)]
)
def test_prelu_has_a_slope_for_each_channel(rng, shape, channels):
    x, w = rng.standard_normal(shape), rng.standard_normal(channels)
    y = F.prelu(gn.tensor(x), gn.tensor(w)).numpy()
    for at in np.ndindex(*shape):
        slope = w[at[1] if channels > 1 else 0]
        assert y[at] == (x[at] if x[at] > 0 else slope * x[at])
    check_derivatives(F.prelu, x, w)


def test_prelu_at_the_kink():
    x, w = gn.tensor([[0.0, 0.0]], requires_grad=True), gn.tensor([0.5, -2.0], requires_grad=True)
    F.prelu(x, w).sum().backward()
    assert x.grad is not None
    assert w.grad is not None
    assert x.grad.tolist() == [[0.5, -2.0]]
    assert w.grad.tolist() == [0.0, 0.0]


def test_prelu_computes_only_the_gradients_asked_for(rng):
    x, w = gn.tensor(rng.standard_normal((2, 3))), gn.tensor(rng.standard_normal(3), requires_grad=True)
    with gn.trace() as launches:
        F.prelu(x, w).sum().backward()
    assert [each.entry for each in launches] == ["prelu.forward", "prelu.grad_w"]


# ------------------------------------------------------------------------------------------------------------- erf


def test_erf_is_within_two_units_of_the_last_place():
    x = np.concatenate([np.linspace(-6.5, 6.5, 40001), 10.0 ** np.arange(-300, 300, 7), [1.0, -1.0, 6.0, 5e-324]])
    expected = np.array([math.erf(v) for v in x])
    assert (np.abs(erf(x) - expected) <= 2 * np.spacing(np.abs(expected))).all()
    single = erf(x[:40001].astype(np.float32))
    assert single.dtype == np.float32
    exact = np.array([math.erf(float(v)) for v in x[:40001].astype(np.float32)])
    assert (np.abs(single - exact) <= 0.5001 * np.spacing(np.abs(exact.astype(np.float32)))).all()  # rounded once


def test_erf_of_special_values_and_of_more_than_one_chunk():
    np.testing.assert_array_equal(erf(np.array([INF, -INF, NAN, 1e300])), [1.0, -1.0, NAN, 1.0])
    assert np.signbit(erf(np.array([-0.0])))[0]
    x = np.linspace(-2, 2, 2 * (CHUNK + 3)).reshape(2, -1)
    np.testing.assert_array_equal(erf(x.T), erf(x).T)
    assert erf(x)[1, -1] == math.erf(2.0)


# --------------------------------------------------------------------------------------------- softmax, log_softmax


def softmax_row(row):
    top = max(row)
    total = math.fsum(math.exp(v - top) for v in row)
    return [math.exp(v - top) / total for v in row]


@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (2, 1, 3, 2)])
def test_softmax_along_every_axis(rng, shape):
    x = rng.standard_normal(shape) * 5
    for axis in range(-len(shape), len(shape)):
        y, log_y = F.softmax(gn.tensor(x), axis).numpy(), F.log_softmax(gn.tensor(x), axis).numpy()
        expected = np.apply_along_axis(softmax_row, axis, x)
        np.testing.assert_allclose(y, expected, rtol=1e-14)
        np.testing.assert_allclose(log_y, np.log(expected), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax_derivatives(rng, axis):
    x = rng.standard_normal((3, 4, 2))
    check_derivatives(lambda x: F.softmax(x, axis), x)
    check_derivatives(lambda x: F.log_softmax(x, axis), x)


def test_softmax_of_large_and_infinite_numbers():
    x = gn.tensor([[1e30, -1e30, 0.0], [-INF, 1.0, 1.0], [-INF, -INF, -INF], [INF, 1.0, 2.0], [NAN, 1.0, 2.0]])
    np.testing.assert_array_equal(
        F.softmax(x, 1).numpy(), np.array([[1, 0, 0], [0, 0.5, 0.5], [NAN] * 3, [NAN] * 3, [NAN] * 3], "f4")
    )
    log_y = F.log_softmax(x, 1).numpy()
    np.testing.assert_array_equal(log_y[0], np.array([0, -2e30, -1e30], "f4"))
    np.testing.assert_allclose(log_y[1], [-INF, -math.log(2), -math.log(2)], rtol=1e-6)
    assert np.isnan(log_y[2:]).all()


def test_softmax_forgets_a_common_offset():
    x = np.array([[0.25, 1.5, -2.0]], "f4")
    for op in (F.softmax, F.log_softmax):
        np.testing.assert_array_equal(op(gn.tensor(x + 4096), 1).numpy(), op(gn.tensor(x), 1).numpy())


@pytest.mark.parametrize("op", [F.softmax, F.log_softmax])
def test_softmax_of_single_numbers_and_of_nothing(op):
    x = gn.tensor(3.0, requires_grad=True)
    y = op(x, -1)
    assert (y.shape, y.item()) == ((), 1.0 if op is F.softmax else 0.0)
    y.backward()
    assert x.grad is not None
    assert (x.grad.shape, x.grad.item()) == ((), 0.0)
    for shape, axis in (((0, 3), 1), ((0, 3), 0), ((3, 0), 1)):
        empty = gn.zeros(*shape, requires_grad=True)
        op(empty, axis).sum().backward()
        assert empty.grad is not None
        assert empty.grad.shape == shape


# -------------------------------------------------------------------------------------------------- kernels alone


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_raise_no_floating_point_warning(dtype):
    """What NumPy could warn of is legal input here; the raw launchers are called by benchmarks without the ops."""
    from gpunet import dispatch

    x = np.array([[INF, -INF, NAN, 1e30, -1e30, 0.0, 1000.0, -1000.0, 1e-30, 3.0]], dtype)
    g = np.array([[INF, NAN, 1.0, -INF, 1.0, INF, INF, -INF, 1e-30, 1.0]], dtype)
    w = np.array([-0.0], dtype)
    params = {
        "relu": {}, "sigmoid": {}, "tanh": {}, "leaky_relu": {"negative_slope": 0.0}, "softmax": {"axis": 1},
        "softplus": {"beta": 2.0, "threshold": 20.0}, "gelu": {"approximate": "none"}, "log_softmax": {"axis": 1},
    }  # fmt: skip
    calls = [(f"{op}.forward", (x,), given) for op, given in params.items()]
    calls += [(f"{op}.grad_x", (g, x), given) for op, given in params.items()]
    calls += [("gelu.forward", (x,), {"approximate": "tanh"}), ("gelu.grad_x", (g, x), {"approximate": "tanh"})]
    calls += [("prelu.forward", (x, w), {}), ("prelu.grad_x", (g, x, w), {}), ("prelu.grad_w", (g, x, w), {})]
    for entry, arrays, given in calls:
        before = [each.copy() for each in arrays]
        with np.errstate(all="raise"):
            out = dispatch.variants(entry, "numpy")[0].function(*arrays, **given)
        assert out.dtype == dtype, entry
        for one, other in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=f"{entry} changed its input")
