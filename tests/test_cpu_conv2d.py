"""conv2d on the processor at the sizes where its ways part: filters or outputs along the lanes, windows that slide."""

from types import SimpleNamespace

import numpy as np
import pytest
from gpunet.kernels.common.shapes import conv_out_size
from gpunet.kernels.conv2d import conv2d_numpy

from gpunet import config, dispatch

pytestmark = pytest.mark.numba_cpu
DTYPES = ["float32", "float64"]
#: x, filters, window, stride, padding, groups
BY_FILTERS = {
    "inside": ((5, 6, 12, 12), 16, (5, 5), 1, 0, 1),
    "padded": ((3, 5, 7, 5), 16, (3, 3), 1, 1, 1),
    "strided": ((2, 4, 15, 13), 33, (3, 2), 2, 1, 1),
    "groups": ((2, 12, 9, 9), 32, (3, 3), 1, 0, 2),
    "many_outputs": ((1, 17, 23, 29), 48, (1, 1), 1, 0, 1),
    "few_outputs": ((7, 9, 2, 1), 19, (1, 1), 1, 0, 1),
    "last_rows": ((2, 3, 40, 3), 17, (3, 3), 1, 0, 1),
}
SLIDING = {
    "wide": ((2, 3, 9, 21), 3, (3, 3), 1, 1, 3),
    "two_filters": ((2, 2, 6, 16), 4, (3, 3), 1, 1, 2),
    "narrow": ((2, 3, 9, 5), 3, (3, 3), 1, 1, 3),
    "no_padding": ((1, 2, 3, 40), 2, (3, 3), 1, 0, 2),
    "dilated": ((2, 3, 9, 21), 3, (3, 3), 1, 2, 3),
}


def of(entry: str, variant: str):
    return next(each for each in dispatch.variants(entry, "numba_cpu") if each.variant == variant).function


def made(case, dtype, dilation: int = 1):
    """Arrays and geometry of a case, and the definition's results in float64."""
    shape, filters, window, stride, padding, groups = case
    rng = np.random.default_rng(0)
    how = {"stride": (stride,) * 2, "padding": (padding,) * 4, "dilation": (dilation,) * 2, "groups": groups}
    out = conv_out_size(shape[2:], window, how["stride"], how["padding"], how["dilation"])
    shapes = (shape, (filters, shape[1] // groups, *window), (filters,), (shape[0], filters, *out))
    x, w, b, gy = (rng.standard_normal(each).astype(dtype) for each in shapes)
    return SimpleNamespace(x=x, w=w, b=b, gy=gy, how=how, size=shape[2:], window=window)


def near(found, wanted):
    limit = 1e-5 if found.dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit * np.abs(wanted).max())


def check(variant, c):
    """Forward, with bias and without, fused with relu, and grad_x against the definition."""
    x, w, b, gy = (each.astype(np.float64) for each in (c.x, c.w, c.b, c.gy))
    y = conv2d_numpy.conv2d_forward_reference(x, w, b, **c.how)
    near(of("conv2d.forward", variant)(c.x, c.w, c.b, **c.how), y)
    near(of("conv2d.forward_relu", variant)(c.x, c.w, c.b, **c.how), np.maximum(y, 0))
    y = conv2d_numpy.conv2d_forward_reference(x, w, None, **c.how)
    near(of("conv2d.forward", variant)(c.x, c.w, None, **c.how), y)
    near(of("conv2d.forward_relu", variant)(c.x, c.w, None, **c.how), np.maximum(y, 0))
    gx = conv2d_numpy.conv2d_grad_x_reference(gy, w, input_size=c.size, **c.how)
    near(of("conv2d.grad_x", variant)(c.gy, c.w, input_size=c.size, **c.how), gx)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_filters", [True, False])
@pytest.mark.parametrize("name", BY_FILTERS)
def test_both_walks_give_the_definition(name, by_filters, dtype, monkeypatch):
    from gpunet.kernels.conv2d import conv2d_numba_cpu

    monkeypatch.setattr(config.settings, "poison", True)
    monkeypatch.setattr(conv2d_numba_cpu, "fills_lanes", lambda *sizes: by_filters)
    check("implicit_gemm", made(BY_FILTERS[name], dtype))


@pytest.mark.parametrize("by_filters", [True, False])
def test_what_is_not_finite_stays_in_its_windows(by_filters, monkeypatch):
    """Rows of a are filled up with zeros, and outputs read what lies between them: neither may reach a result."""
    from gpunet.kernels.conv2d import conv2d_numba_cpu

    monkeypatch.setattr(conv2d_numba_cpu, "fills_lanes", lambda *sizes: by_filters)
    c = made(BY_FILTERS["padded"], "float32")
    c.x[1, 2, 3, 4], c.x[0, 0, 0, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        wanted = conv2d_numpy.conv2d_forward_reference(c.x, c.w, c.b, **c.how)
    found = of("conv2d.forward", "implicit_gemm")(c.x, c.w, c.b, **c.how)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(wanted))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SLIDING)
def test_windows_of_one_channel(name, dtype, monkeypatch):
    monkeypatch.setattr(config.settings, "poison", True)
    c = made(SLIDING[name], dtype, 2 if name == "dilated" else 1)
    check("direct", c)
    c.x[0, 0, 1, 2] = np.nan
    wanted = conv2d_numpy.conv2d_forward_reference(c.x, c.w, c.b, **c.how)
    relu = of("conv2d.forward_relu", "direct")(c.x, c.w, c.b, **c.how)
    np.testing.assert_array_equal(np.isnan(relu), np.isnan(wanted))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("filters", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("groups", [1, 3])
def test_gradient_of_so_many_filters(filters, groups, dtype):
    c = made(((3, 2 * groups, 9, 8), filters * groups, (3, 2), 1, 1, groups), dtype)
    wide = c.gy.astype(np.float64), c.x.astype(np.float64)
    wanted = conv2d_numpy.conv2d_grad_w_reference(*wide, kernel_size=c.window, **c.how)
    near(of("conv2d.grad_w", "direct")(c.gy, c.x, kernel_size=c.window, **c.how), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("images", "groups"), [(1, 1), (2, 1), (2, 3)])
def test_gradient_of_the_filters_from_several_patches_a_task(images, groups, dtype, monkeypatch):
    """So many channels that a patch has a few rows of an image only, and more patches than tasks."""
    from gpunet.kernels.conv2d import grad_w_numba_cpu, patches_numba_cpu

    monkeypatch.setattr(config.settings, "poison", True)
    shares, whole = [], patches_numba_cpu.plan_of

    def plan_of(*sizes):
        shares.append((len(whole(*sizes).blocks), sizes[-1]))
        return whole(*sizes)

    monkeypatch.setattr(grad_w_numba_cpu, "plan_of", plan_of)
    c = made(((images, 300 * groups, 21, 19), 3 * groups, (3, 3), 1, 1, groups), dtype)
    wanted = conv2d_numpy.conv2d_grad_w_reference(
        c.gy.astype(np.float64), c.x.astype(np.float64), kernel_size=c.window, **c.how
    )
    near(of("conv2d.grad_w", "implicit_gemm")(c.gy, c.x, kernel_size=c.window, **c.how), wanted)
    ((patches, most),) = shares
    assert patches > most


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_the_filters_over_many_outputs(dtype, monkeypatch):
    """More outputs in a patch than are summed up before they are added to the ones before."""
    from gpunet.kernels.conv2d import grad_w_numba_cpu

    monkeypatch.setattr(config.settings, "poison", True)
    c = made(((1, 2, 47, 46), 5, (3, 3), 1, 1, 1), dtype)
    assert c.gy[0, 0].size > 2 * grad_w_numba_cpu.SPAN
    wide = c.gy.astype(np.float64), c.x.astype(np.float64)
    wanted = conv2d_numpy.conv2d_grad_w_reference(*wide, kernel_size=c.window, **c.how)
    near(of("conv2d.grad_w", "implicit_gemm")(c.gy, c.x, kernel_size=c.window, **c.how), wanted)


@pytest.mark.parametrize(("count", "found"), [(0, 1), (1, 1), (3, 2), (4, 4), (15, 8), (16, 16)])
def test_tasks_of_a_gradient_are_even(count, found):
    from gpunet.kernels.conv2d.grad_w_numba_cpu import even

    assert even(count) == found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pixels", [1, 15, 16, 47, 64, 65, 200])
def test_gradient_of_the_bias_over_so_many_pixels(pixels, dtype):
    gy = np.random.default_rng(pixels).standard_normal((3, 5, 1, pixels)).astype(dtype)
    near(of("conv2d.grad_b", "direct")(gy), gy.astype(np.float64).sum((0, 2, 3)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("C", "F", "size", "stride", "padding", "groups"),
    [
        (5, 7, (16, 17), (1, 1), 0, 1),  # a product for each image
        (64, 33, (31, 19), (1, 1), 0, 1),
        (6, 4, (20, 20), (2, 2), 10, 1),  # outputs as many as inputs, and yet a stride
        (6, 4, (16, 16), (1, 1), 0, 2),
        (6, 4, (3, 3), (1, 1), 0, 1),
    ],
)
def test_grad_x_of_windows_of_one_pixel(C, F, size, stride, padding, groups, dtype):
    rng = np.random.default_rng(0)
    outputs = tuple((extent + 2 * padding - 1) // step + 1 for extent, step in zip(size, stride, strict=True))
    gy, w = (
        rng.standard_normal((3, F, *outputs)).astype(dtype),
        rng.standard_normal((F, C // groups, 1, 1)).astype(dtype),
    )
    params = {
        "input_size": size, "stride": stride, "padding": (padding,) * 4, "dilation": (1, 1), "groups": groups,
    }  # fmt: skip
    rungs = {each.variant: each.function for each in dispatch.variants("conv2d.grad_x", "numba_cpu")}
    (definition,) = [
        each.function for each in dispatch.variants("conv2d.grad_x", "numpy") if each.variant == "reference"
    ]
    wanted = definition(gy.astype(np.float64), w.astype(np.float64), **params)
    found = rungs["implicit_gemm"](gy, w, **params)
    assert found.dtype == dtype
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4 * F * np.finfo(dtype).eps * np.abs(wanted).max())
