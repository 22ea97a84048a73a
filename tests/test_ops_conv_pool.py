"""What the convolutions and the poolings mean: every option, and derivatives of first and second order.

The oracles are loops over float64 (tests/loops.py). All runs on the NumPy definition; that other backends agree with
it is the product tests' matter.
"""

import math

import numpy as np
import pytest

import gpunet as gn
import gpunet.functional as F
from gpunet import devices
from gpunet.tensor import Tensor
from tests.loops import (
    check_derivatives,
    loop_adaptive,
    loop_avg_pool,
    loop_conv,
    loop_conv_transpose,
    loop_max_pool,
    winner,
)


@pytest.fixture(autouse=True)
def _definition():
    with gn.use_backend("numpy"):
        yield


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def ramp(rng, *shape):
    """Values without ties, far apart: safe beside the kinks of a maximum."""
    return rng.permutation(np.arange(math.prod(shape), dtype=float)).reshape(shape) / 4


# --------------------------------------------------------------------------------------------------- convolution

CONVS = {
    "plain": ((2, 3, 5, 4), (4, 3, 3, 2), {}),
    "one_pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "stride": ((1, 2, 7, 6), (3, 2, 3, 3), {"stride": (2, 3)}),
    "padding": ((1, 2, 3, 4), (2, 2, 3, 2), {"padding": (2, 1)}),
    "dilation": ((1, 2, 7, 6), (2, 2, 3, 2), {"dilation": (2, 3)}),
    "groups": ((2, 4, 4, 4), (6, 2, 2, 2), {"groups": 2}),
    "depthwise": ((1, 3, 4, 5), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
    "all": ((2, 4, 8, 7), (2, 2, 2, 3), {"stride": (2, 1), "padding": (1, 3), "dilation": (3, 2), "groups": 2}),
    "same": ((1, 2, 5, 6), (2, 2, 3, 3), {"padding": "same"}),
    "same_even": ((1, 1, 5, 6), (2, 1, 2, 4), {"padding": "same", "dilation": (1, 2)}),
    "valid": ((1, 1, 4, 4), (1, 1, 3, 3), {"padding": "valid"}),
    "empty_batch": ((0, 2, 4, 4), (3, 2, 3, 3), {"padding": 1}),
}


def four_sides(padding, kernel, dilation):
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel)]
        return total[0] // 2, (total[0] + 1) // 2, total[1] // 2, (total[1] + 1) // 2
    ph, pw = two(0 if padding == "valid" else padding)
    return ph, ph, pw, pw


def two(value):
    return value if isinstance(value, tuple) else (value, value)


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("with_bias", [False, True])
def test_conv2d_is_the_sum_over_the_window(rng, name, with_bias):
    x, w, options = CONVS[name]
    x, w = rng.standard_normal(x), rng.standard_normal(w)
    b = rng.standard_normal(len(w)) if with_bias else None
    y = F.conv2d(gn.tensor(x), gn.tensor(w), None if b is None else gn.tensor(b), **options)
    dilation = two(options.get("dilation", 1))
    sides = four_sides(options.get("padding", 0), w.shape[2:], dilation)
    expected = loop_conv(x, w, b, two(options.get("stride", 1)), sides, dilation, options.get("groups", 1))
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "stride", "padding", "dilation", "groups", "all", "same_even"])
def test_conv2d_derivatives(rng, name):
    x, w, options = CONVS[name]
    arrays = [rng.standard_normal(shape) for shape in (x, w, w[:1])]
    check_derivatives(lambda x, w, b: F.conv2d(x, w, b, **options), *arrays)


def test_conv2d_same_puts_the_odd_zero_at_the_bottom_and_right():
    x, w = gn.tensor([[[[1.0, 2.0, 3.0]]]]), gn.tensor([[[[1.0, 10.0]]]])
    assert F.conv2d(x, w, padding="same").tolist() == [[[[21.0, 32.0, 3.0]]]]


def test_conv2d_keeps_nan_to_the_windows_that_hold_it():
    x = np.ones((1, 1, 1, 6))
    x[..., 1] = np.nan
    y = F.conv2d(gn.tensor(x), gn.ones(1, 1, 1, 2, dtype="float64")).numpy()
    assert np.isnan(y).tolist() == [[[[True, True, False, False, False]]]]


TRANSPOSED = {
    "plain": ((2, 3, 3, 2), (3, 2, 2, 3), {}),
    "stride": ((1, 2, 3, 2), (2, 1, 3, 2), {"stride": (2, 3)}),
    "padding": ((1, 2, 4, 4), (2, 3, 3, 2), {"stride": 2, "padding": (1, 1)}),
    "output_padding": ((1, 2, 3, 3), (2, 2, 3, 3), {"stride": (2, 3), "padding": 1, "output_padding": (1, 2)}),
    "output_padding_below_dilation": ((1, 1, 3, 2), (1, 1, 2, 2), {"dilation": 3, "output_padding": (2, 1)}),
    "groups": ((2, 4, 2, 3), (4, 3, 2, 2), {"groups": 2, "stride": 2, "dilation": (2, 1)}),
    "empty_batch": ((0, 2, 3, 3), (2, 3, 2, 2), {"stride": 2}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
@pytest.mark.parametrize("with_bias", [False, True])
def test_conv_transpose2d_lays_filters_down(rng, name, with_bias):
    x, w, options = TRANSPOSED[name]
    x, w = rng.standard_normal(x), rng.standard_normal(w)
    groups = options.get("groups", 1)
    b = rng.standard_normal(w.shape[1] * groups) if with_bias else None
    y = F.conv_transpose2d(gn.tensor(x), gn.tensor(w), None if b is None else gn.tensor(b), **options)
    names = (("stride", 1), ("padding", 0), ("output_padding", 0), ("groups", 1), ("dilation", 1))
    values = [groups if key == "groups" else two(options.get(key, default)) for key, default in names]
    np.testing.assert_allclose(y.numpy(), loop_conv_transpose(x, w, b, *values), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["plain", "output_padding", "output_padding_below_dilation", "groups"])
def test_conv_transpose2d_derivatives(rng, name):
    x, w, options = TRANSPOSED[name]
    arrays = [rng.standard_normal(shape) for shape in (x, w, (w[1] * options.get("groups", 1),))]
    check_derivatives(lambda x, w, b: F.conv_transpose2d(x, w, b, **options), *arrays)


def test_conv_transpose2d_is_the_adjoint_of_conv2d(rng):
    x, w = gn.tensor(rng.standard_normal((2, 3, 7, 8))), gn.tensor(rng.standard_normal((4, 3, 3, 2)))
    y = F.conv2d(x, w, stride=2, padding=1)
    z = gn.tensor(rng.standard_normal(y.shape))
    back = F.conv_transpose2d(z, w, stride=2, padding=1, output_padding=(0, 0))
    assert back.shape == (2, 3, 7, 8)
    np.testing.assert_allclose(float((y * z).sum()), float((x * back).sum()), rtol=1e-12)


def test_every_derivative_of_conv2d_runs_through_its_kernels(rng):
    x, w = (gn.tensor(rng.standard_normal(s), requires_grad=True) for s in ((1, 2, 5, 5), (3, 2, 3, 3)))
    gx, gw = gn.grad((F.conv2d(x, w) ** 2).sum(), [x, w], create_graph=True)
    with gn.trace() as second:
        ggx, _ = gn.grad((gx**2).sum() + (gw**2).sum(), [x, w], create_graph=True)
    with gn.trace() as third:
        gn.grad((ggx**2).sum(), [x, w])
    entries = {"conv2d.forward", "conv2d.grad_x", "conv2d.grad_w"}
    assert {launch.entry for launch in second} == entries == {launch.entry for launch in third}


def test_conv2d_computes_no_gradient_that_nobody_asked_for(rng):
    x, w = (
        gn.tensor(rng.standard_normal((1, 2, 4, 4))),
        gn.tensor(rng.standard_normal((3, 2, 3, 3)), requires_grad=True),
    )
    with gn.trace() as launches:
        F.conv2d(x, w).sum().backward()
    assert [launch.entry for launch in launches] == ["conv2d.forward", "conv2d.grad_w"]


# ------------------------------------------------------------------------------------------------------- pooling

POOLS = {
    "plain": ((2, 2, 6, 6), {"kernel_size": 2}),
    "left_over": ((1, 1, 5, 7), {"kernel_size": 2}),
    "overlap": ((1, 2, 6, 7), {"kernel_size": (3, 2), "stride": (1, 2)}),
    "padding": ((1, 1, 5, 6), {"kernel_size": (3, 4), "stride": 2, "padding": (1, 2)}),
    "ceil": ((1, 1, 6, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    "ceil_padding": ((1, 1, 6, 5), {"kernel_size": (3, 2), "stride": (2, 3), "padding": 1, "ceil_mode": True}),
    "ceil_drops_window_in_padding": ((1, 1, 5, 4), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
    "ceil_larger_than_image": ((1, 1, 2, 3), {"kernel_size": 4, "stride": 3, "ceil_mode": True}),
    "one_pixel": ((1, 1, 1, 1), {"kernel_size": 1}),
    "empty_batch": ((0, 2, 4, 4), {"kernel_size": 2}),
}
DILATED = {
    "dilation": ((1, 2, 7, 8), {"kernel_size": 2, "stride": 2, "dilation": (3, 2)}),
    "dilation_padding": ((1, 1, 5, 6), {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2}),
    "dilation_ceil": ((1, 1, 6, 7), {"kernel_size": 2, "stride": 3, "padding": 1, "dilation": 3, "ceil_mode": True}),
}
INPUTS = {
    "ramp": lambda rng, *shape: ramp(rng, *shape),
    "ties": lambda rng, *shape: rng.integers(-1, 2, shape).astype(float),
    "nan": lambda rng, *shape: np.where(rng.random(shape) < 0.4, np.nan, ramp(rng, *shape)),
    "minus_inf": lambda rng, *shape: np.where(rng.random(shape) < 0.8, -np.inf, ramp(rng, *shape)),
}


@pytest.mark.parametrize("name", [*POOLS, *DILATED])
@pytest.mark.parametrize("kind", INPUTS)
def test_max_pool2d_and_its_places(rng, name, kind):
    shape, options = {**POOLS, **DILATED}[name]
    x = INPUTS[kind](rng, *shape)
    kernel = two(options["kernel_size"])
    stride, padding = two(options.get("stride", kernel)), two(options.get("padding", 0))
    dilation, ceil_mode = two(options.get("dilation", 1)), options.get("ceil_mode", False)
    y, place = loop_max_pool(x, kernel, stride, padding, dilation, ceil_mode)
    found, index = F.max_pool2d(gn.tensor(x), **options, return_indices=True)
    assert found.shape == y.shape
    assert index.dtype == np.int64
    np.testing.assert_array_equal(found.numpy(), y)
    np.testing.assert_array_equal(index.numpy(), place)
    np.testing.assert_array_equal(F.max_pool2d(gn.tensor(x), **options).numpy(), y)


@pytest.mark.parametrize("kind", INPUTS)
def test_max_pool2d_gradient_goes_to_the_winner(rng, kind):
    x = gn.tensor(INPUTS[kind](rng, 2, 2, 5, 6), requires_grad=True)
    y, place = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    gy = rng.standard_normal(y.shape)
    (gx,) = gn.grad(y, [x], gn.tensor(gy))
    expected = np.zeros((2, 2, 30))
    for n, c, i, j in np.ndindex(*gy.shape):
        expected[n, c, place.numpy()[n, c, i, j]] += gy[n, c, i, j]
    np.testing.assert_allclose(gx.numpy().reshape(2, 2, 30), expected, rtol=1e-12)


def test_max_pool2d_keeps_an_infinite_gradient_to_its_winner():
    x = gn.tensor([[[1.0, 2.0, 3.0, 0.0]]], requires_grad=True)
    (gx,) = gn.grad(F.max_pool2d(x, (1, 2)), [x], gn.tensor([[[np.inf, 1.0]]]))
    assert gx.tolist() == [[[0.0, np.inf, 1.0, 0.0]]]


@pytest.mark.parametrize("side", [16, 17])  # 256 positions fit a byte, 289 do not
def test_max_pool2d_of_a_large_window(rng, side):
    x = np.zeros((1, 1, 17, 17))
    x[0, 0, side - 1, side - 1] = 1.0
    y, place = F.max_pool2d(gn.tensor(x), side, 1, return_indices=True)
    assert (y.numpy() == 1.0).all()
    assert (place.numpy() == (side - 1) * 17 + side - 1).all()


@pytest.mark.parametrize("name", ["overlap", "padding", "ceil_padding", "dilation_padding"])
def test_max_pool2d_derivatives(rng, name):
    shape, options = {**POOLS, **DILATED}[name]
    check_derivatives(lambda x: F.max_pool2d(x, **options), ramp(rng, *shape))


def test_max_pool2d_second_derivative_gathers(rng):
    x, gy = (
        gn.tensor(ramp(rng, 1, 1, 4, 4), requires_grad=True),
        gn.ones(1, 1, 2, 2, dtype="float64", requires_grad=True),
    )
    (gx,) = gn.grad(F.max_pool2d(x, 2), [x], gy, create_graph=True)
    with gn.trace() as launches:
        (ggy,) = gn.grad((gx * x).sum(), [gy], create_graph=True)
    assert [launch.entry for launch in launches] == ["max_pool2d.gather"]
    np.testing.assert_array_equal(ggy.detach().numpy(), F.max_pool2d(x.detach(), 2).numpy())


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("divisor", [None, 3, -2])
def test_avg_pool2d_counts_what_it_should(rng, name, count_include_pad, divisor):
    shape, options = POOLS[name]
    x = rng.standard_normal(shape)
    kernel = two(options["kernel_size"])
    stride, padding = two(options.get("stride", kernel)), two(options.get("padding", 0))
    expected = loop_avg_pool(x, kernel, stride, padding, options.get("ceil_mode", False), count_include_pad, divisor)
    y = F.avg_pool2d(gn.tensor(x), **options, count_include_pad=count_include_pad, divisor_override=divisor)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", ["overlap", "padding", "ceil_padding", "ceil_larger_than_image"])
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_avg_pool2d_derivatives(rng, name, count_include_pad):
    shape, options = POOLS[name]
    function = lambda x: F.avg_pool2d(x, **options, count_include_pad=count_include_pad)  # noqa: E731
    check_derivatives(lambda x: function(x) * function(x), rng.standard_normal(shape))


def test_avg_pool2d_by_hand():
    x = gn.tensor([[[4.0, 8.0, 12.0]]])
    assert F.avg_pool2d(x, (1, 2), 2, (0, 1)).tolist() == [[[2.0, 10.0]]]
    assert F.avg_pool2d(x, (1, 2), 2, (0, 1), count_include_pad=False).tolist() == [[[4.0, 10.0]]]
    assert F.avg_pool2d(x, (1, 2), 2, (0, 1), divisor_override=1).tolist() == [[[4.0, 20.0]]]


ADAPTIVE = [
    ((2, 2, 6, 6), (3, 2)),
    ((1, 2, 5, 7), (3, 4)),
    ((1, 1, 3, 2), (5, 4)),
    ((1, 1, 7, 5), (1, 1)),
    ((0, 1, 4, 4), (2, 3)),
]


@pytest.mark.parametrize(("shape", "size"), ADAPTIVE)
def test_adaptive_avg_pool2d_shares_the_image_out(rng, shape, size):
    x = rng.standard_normal(shape)
    expected = loop_adaptive(x, size, lambda plane, cells: sum(plane[cell] for cell in cells) / len(cells))
    np.testing.assert_allclose(F.adaptive_avg_pool2d(gn.tensor(x), size).numpy(), expected, rtol=1e-12, atol=1e-13)
    if len(x):
        check_derivatives(lambda x: F.adaptive_avg_pool2d(x, size), x)


def test_adaptive_avg_pool2d_keeps_inf_and_nan_to_their_windows():
    x = np.ones((1, 1, 1, 5))
    x[..., 0], x[..., 4] = np.nan, np.inf  # windows 0..1, 1..3, 3..4
    along_rows = F.adaptive_avg_pool2d(gn.tensor(x), (1, 3))
    along_columns = F.adaptive_avg_pool2d(gn.tensor(x.reshape(1, 1, 5, 1)), (3, 1))
    for y in (along_rows.numpy().ravel(), along_columns.numpy().ravel()):
        assert np.isnan(y[0])
        assert y[1:].tolist() == [1.0, np.inf]


@pytest.mark.parametrize(("shape", "size"), ADAPTIVE)
@pytest.mark.parametrize("kind", INPUTS)
def test_adaptive_max_pool2d_and_its_places(rng, shape, size, kind):
    x = INPUTS[kind](rng, *shape)
    y, place = F.adaptive_max_pool2d(gn.tensor(x), size, return_indices=True)
    width = x.shape[3]
    np.testing.assert_array_equal(y.numpy(), loop_adaptive(x, size, lambda plane, cells: plane[winner(plane, cells)]))
    where = loop_adaptive(x, size, lambda plane, cells: np.ravel_multi_index(winner(plane, cells), (99, width)))
    assert place.dtype == np.int64
    np.testing.assert_array_equal(place.numpy(), where)
    np.testing.assert_array_equal(F.adaptive_max_pool2d(gn.tensor(x), size).numpy(), y.numpy())


@pytest.mark.parametrize(("shape", "size"), ADAPTIVE[1:4])
def test_adaptive_max_pool2d_derivatives(rng, shape, size):
    check_derivatives(lambda x: F.adaptive_max_pool2d(x, size), ramp(rng, *shape))


def test_adaptive_sizes_may_be_one_number_or_none(rng):
    x = gn.tensor(rng.standard_normal((2, 3, 5, 4)))
    assert F.adaptive_avg_pool2d(x, 2).shape == (2, 3, 2, 2)
    assert F.adaptive_max_pool2d(x, (None, 2)).shape == (2, 3, 5, 2)
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, None).numpy(), x.numpy())


# ------------------------------------------------------------------------------------------ what holds for all ops

CALLS = {
    "conv2d": lambda x, w: F.conv2d(x, w, stride=2, padding=1),
    "conv_transpose2d": lambda x, w: F.conv_transpose2d(x, w.transpose(0, 1), stride=2),
    "max_pool2d": lambda x, w: F.max_pool2d(x, 3, 2, 1),
    "avg_pool2d": lambda x, w: F.avg_pool2d(x, 3, 2, 1),
    "adaptive_avg_pool2d": lambda x, w: F.adaptive_avg_pool2d(x, (3, 2)),
    "adaptive_max_pool2d": lambda x, w: F.adaptive_max_pool2d(x, (3, 2)),
}


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


def test_one_image_is_a_batch_of_one_without_its_axis(rng, call):
    x, w = rng.standard_normal((2, 5, 6)), gn.tensor(rng.standard_normal((3, 2, 3, 3)))
    one = gn.tensor(x, requires_grad=True)
    batch = gn.tensor(x[None], requires_grad=True)
    np.testing.assert_array_equal(call(one, w).detach().numpy(), call(batch, w).detach().numpy()[0])
    gone, gbatch = (gn.grad((call(x, w) ** 2).sum(), [x])[0] for x in (one, batch))
    np.testing.assert_array_equal(gone.numpy(), gbatch.numpy()[0])


def test_places_of_one_image_have_no_batch_axis(rng):
    x = gn.tensor(ramp(rng, 2, 5, 6))
    for y, place in (F.max_pool2d(x, 2, return_indices=True), F.adaptive_max_pool2d(x, 2, return_indices=True)):
        assert y.shape == place.shape
        np.testing.assert_array_equal(
            np.take_along_axis(x.numpy().reshape(2, 30), place.numpy().reshape(2, -1), 1), y.numpy().reshape(2, -1)
        )


def test_an_empty_batch_has_an_empty_result_and_zero_gradients(call):
    x, w = gn.zeros(0, 2, 5, 6, requires_grad=True), gn.ones(3, 2, 3, 3, requires_grad=True)
    y = call(x, w)
    assert y.shape[0] == 0
    gx, gw = gn.grad(y.sum(), [x, w], allow_unused=True)
    assert gx.shape == x.shape
    assert gw is None or not gw.numpy().any()


def test_float32_stays_float32_and_memory_order_does_not_matter(rng, call):
    raw_x = rng.standard_normal((2, 5, 6, 2)).astype("f4").transpose(0, 3, 1, 2)
    raw_w = rng.standard_normal((3, 3, 3, 2)).astype("f4").transpose(0, 3, 1, 2)
    before = raw_x.copy(), raw_w.copy()
    results = []
    for order in (lambda a: a, np.ascontiguousarray):
        x, w = (Tensor._wrap(order(a), devices.CPU).requires_grad_() for a in (raw_x, raw_w))
        y = call(x, w)
        results += [[y.detach(), *gn.grad(y.sum(), [x])]]
    for strided, contiguous in zip(*results):
        assert strided.dtype == np.float32
        np.testing.assert_allclose(strided.numpy(), contiguous.numpy(), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(raw_x, before[0])
    np.testing.assert_array_equal(raw_w, before[1])
