"""Convolution and pooling against PyTorch: every option, values with ties, NaN and infinities, second derivatives."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import gpunet as gn
import gpunet.functional as F
from tests.peers.twins import compare, configurations, dtypes, filled, kinds, normal, seeds, torch

TF = torch.nn.functional
# PyTorch says so about its own speed, in rare cases of padding="same".
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore:Using padding='same'")]

sizes = st.integers(1, 3)
steps = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))
pads = st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2)))
sides = st.tuples(st.integers(3, 9), st.integers(3, 9))
windows = st.tuples(st.integers(1, 4), st.integers(1, 4))
batches = st.sampled_from([None, 0, 1, 2, 3])  # None: one image without a batch axis


def image(batch: int | None, *shape: int) -> tuple[int, ...]:
    return shape if batch is None else (batch, *shape)


@configurations(260)
@given(
    dtypes, seeds, batches, sides, windows, steps, steps, st.sampled_from([1, 1, 2, 3]), sizes, sizes, st.booleans(),
    st.one_of(pads, pads, st.sampled_from(["same", "valid"])), st.sampled_from(["normal", "normal", "special"]),
)  # fmt: skip
def test_conv2d(dtype, seed, batch, side, window, stride, dilation, groups, depth, filters, bias, padding, kind):
    if padding == "same":
        stride = 1
    C, N_F = groups * depth, groups * filters
    x = filled(kind, seed, *image(batch, C, *side))
    w = normal(seed + 1, N_F, depth, *window)
    b = normal(seed + 2, N_F) if bias else None
    args = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    # With NaN among the inputs the second derivative multiplies it by the padding's zeros, which is not specified.
    compare(
        "test_conv2d", lambda *t: F.conv2d(*t, **args), lambda *t: TF.conv2d(*t, **args), (x, w, b), dtype,
        seed=seed, second=kind == "normal",
    )  # fmt: skip


@configurations(140)
@given(
    dtypes, seeds, batches, st.tuples(st.integers(1, 5), st.integers(1, 5)), windows, steps, pads, pads, steps,
    st.sampled_from([1, 1, 2, 3]), sizes, sizes, st.booleans(),
)  # fmt: skip
def test_conv_transpose2d(
    dtype, seed, batch, side, window, stride, padding, more, dilation, groups, depth, filters, bias
):
    pairs = [(v, v) if isinstance(v, int) else v for v in (more, stride, padding, dilation)]
    out = [
        (n - 1) * step - 2 * cut + hole * (k - 1) + extra + 1
        for n, k, extra, step, cut, hole in zip(side, window, *pairs, strict=True)
    ]
    assume(0 not in out)  # gpunet refuses a result without pixels, PyTorch only one of a negative size
    fits = all(extra < max(step, hole) for extra, step, _, hole in zip(*pairs, strict=True))
    assume(batch != 0 or (fits and min(out) > 0))  # PyTorch does not check an empty batch
    x = normal(seed, *image(batch, groups * depth, *side))
    w = normal(seed + 1, groups * depth, filters, *window)
    b = normal(seed + 2, groups * filters) if bias else None
    args = {"stride": stride, "padding": padding, "output_padding": more, "dilation": dilation, "groups": groups}
    compare(
        "test_conv_transpose2d", lambda *t: F.conv_transpose2d(*t, **args), lambda *t: TF.conv_transpose2d(*t, **args),
        (x, w, b), dtype, seed=seed,
    )  # fmt: skip


def test_windows_without_pixels_are_refused():
    # PyTorch gives -inf, and a position outside of the image.
    assert TF.max_pool2d(torch.zeros(1, 1, 1, 1), (2, 1), 1, (1, 0), (2, 1)).isinf().all()
    with pytest.raises(gn.errors.ArgumentError, match="must hold a pixel"):
        F.max_pool2d(gn.zeros(1, 1, 1, 1), (2, 1), 1, (1, 0), (2, 1))


strides = st.one_of(st.none(), steps)


@configurations(320)
@given(dtypes, seeds, batches, sizes, sides, windows, strides, pads, steps, st.booleans(), st.booleans(), kinds)
def test_max_pool2d(dtype, seed, batch, C, side, window, stride, padding, dilation, ceil_mode, indices, kind):
    x = filled(kind, seed, *image(batch, C, *side))
    args: dict[str, Any] = {"padding": padding, "dilation": dilation, "ceil_mode": ceil_mode, "return_indices": indices}
    both = (padding, padding) if isinstance(padding, int) else padding
    holes = (dilation, dilation) if isinstance(dilation, int) else dilation
    # Narrower images have windows of padding alone; see test_windows_without_pixels_are_refused.
    assume(all(p == 0 or n >= d for p, d, n in zip(both, holes, side, strict=True)))
    compare(
        "test_max_pool2d", lambda t: F.max_pool2d(t, window, stride, **args),
        lambda t: TF.max_pool2d(t, window, stride, **args), (x,), dtype, seed=seed,
    )  # fmt: skip


@configurations(240)
@given(
    dtypes, seeds, batches, sizes, sides, windows, strides, pads, st.booleans(), st.booleans(),
    st.sampled_from([None, None, 1, 5, -2]), st.sampled_from(["normal", "normal", "special"]),
)  # fmt: skip
def test_avg_pool2d(dtype, seed, batch, C, side, window, stride, padding, ceil_mode, counted, divisor, kind):
    x = filled(kind, seed, *image(batch, C, *side))
    args = {
        "padding": padding, "ceil_mode": ceil_mode, "count_include_pad": counted, "divisor_override": divisor
    }  # fmt: skip
    compare(
        "test_avg_pool2d", lambda t: F.avg_pool2d(t, window, stride, **args),
        lambda t: TF.avg_pool2d(t, window, stride, **args), (x,), dtype, seed=seed,
    )  # fmt: skip


targets = st.one_of(st.integers(1, 6), st.tuples(*[st.one_of(st.none(), st.integers(1, 11))] * 2))


@configurations(110)
@given(dtypes, seeds, batches, sizes, sides, targets, st.sampled_from(["normal", "normal", "special"]))
def test_adaptive_avg_pool2d(dtype, seed, batch, C, side, size, kind):
    x = filled(kind, seed, *image(batch, C, *side))
    compare(
        "test_adaptive_avg_pool2d", lambda t: F.adaptive_avg_pool2d(t, size),
        lambda t: TF.adaptive_avg_pool2d(t, size), (x,), dtype, seed=seed,
    )  # fmt: skip


@configurations(140)
@given(dtypes, seeds, batches, sizes, sides, targets, st.booleans(), kinds)
def test_adaptive_max_pool2d(dtype, seed, batch, C, side, size, indices, kind):
    x = filled(kind, seed, *image(batch, C, *side))
    compare(
        "test_adaptive_max_pool2d", lambda t: F.adaptive_max_pool2d(t, size, indices),
        lambda t: TF.adaptive_max_pool2d(t, size, indices), (x,), dtype, seed=seed,
    )  # fmt: skip
