"""The Winograd rung of conv2d on the processor: edge tiles, every padding, inf and NaN, rounds, threads and images."""

from itertools import product

import numpy as np
import pytest
from gpunet.kernels.common.shapes import conv_out_size
from gpunet.kernels.conv2d import conv2d_numpy

from gpunet import dispatch
from gpunet.cpu import threads

pytestmark = pytest.mark.numba_cpu

SIZES = [(1, 1), (1, 9), (2, 3), (4, 4), (7, 7), (14, 14), (9, 33), (30, 66)]
PADDINGS = [(1, 1, 1, 1), (0, 0, 0, 0), (2, 2, 2, 2), (0, 1, 2, 0), (3, 0, 1, 4)]
CHANNELS = [(2, 3, 5), (1, 17, 33), (3, 32, 16)]
LARGEST_ERROR = 1e-5


@pytest.fixture(autouse=True)
def _threads():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def run(entry: str, *arrays, variant: str = "winograd_4x4", **params):
    kernel = next(each for each in dispatch.variants(entry, "numba_cpu") if each.variant == variant)
    assert kernel.when is None or kernel.when(*arrays, **params) is True
    return kernel.function(*arrays, **params)


def geometry(padding: tuple[int, ...] = (1, 1, 1, 1)) -> dict:
    return {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}


def normal(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def error(result: np.ndarray, definition: np.ndarray) -> float:
    """The largest, relative to the largest number; inf and NaN must stand at the same places."""
    finite = np.isfinite(definition)
    np.testing.assert_array_equal(result[~finite], definition[~finite].astype(np.float32))
    assert np.isfinite(result[finite]).all()
    return np.abs(result - definition)[finite].max() / np.abs(definition[finite]).max()


@pytest.mark.parametrize(("N", "C", "F"), CHANNELS)
@pytest.mark.parametrize("size", SIZES)
def test_every_padding(N: int, C: int, F: int, size: tuple[int, int]):
    for padding in PADDINGS:
        out = conv_out_size(size, (3, 3), (1, 1), padding, (1, 1))
        if min(out) < 1:
            continue
        x, w, b, gy = normal((N, C, *size), (F, C, 3, 3), (F,), (N, F, *out))
        wide, how = [each.astype(np.float64) for each in (x, w, b, gy)], geometry(padding)
        y = conv2d_numpy.conv2d_forward_reference(*wide[:3], **how)
        assert error(run("conv2d.forward", x, w, b, **how), y) < LARGEST_ERROR
        assert error(run("conv2d.forward_relu", x, w, b, **how), np.maximum(y, 0)) < LARGEST_ERROR
        gx = conv2d_numpy.conv2d_grad_x_reference(wide[3], wide[1], input_size=size, **how)
        assert error(run("conv2d.grad_x", gy, w, input_size=size, **how), gx) < LARGEST_ERROR


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inf_and_nan_reach_the_outputs_whose_windows_hold_them(value: float):
    x, w, b = normal((3, 5, 9, 30), (7, 5, 3, 3), (7,))
    for place in [(0, 1, -1, -1), (1, 2, 4, 5), (2, 0, 0, 0)]:
        x[place] = value
    wide = [each.astype(np.float64) for each in (x, w, b)]
    with np.errstate(invalid="ignore"):
        y = conv2d_numpy.conv2d_forward_reference(*wide, **geometry())
        assert error(run("conv2d.forward", x, w, b, **geometry()), y) < LARGEST_ERROR
        assert error(run("conv2d.forward_relu", x, w, b, **geometry()), np.maximum(y, 0)) < LARGEST_ERROR


def test_an_image_has_the_same_bits_in_every_batch_and_on_every_number_of_threads():
    x, w = normal((6, 64, 30, 30), (70, 64, 3, 3))
    threads.set_num_threads(1)
    alone = [run("conv2d.forward", x[n : n + 1], w, None, **geometry()) for n in range(len(x))]
    for count in (1, 2, 3):
        threads.set_num_threads(count)
        np.testing.assert_array_equal(run("conv2d.forward", x, w, None, **geometry()), np.concatenate(alone))


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("F", [5, 140])
def test_rounds(blocks: int, F: int, monkeypatch: pytest.MonkeyPatch):
    from gpunet.kernels.conv2d import winograd_numba_cpu as winograd
    from gpunet.kernels.conv2d import winograd_transforms_numba_cpu as transforms

    x, w = normal((3, 4, 30, 34), (F, 4, 3, 3))
    whole = run("conv2d.forward", x, w, None, **geometry())
    block = transforms.PLACES * (4 * transforms.PITCH + transforms.LANES)
    monkeypatch.setattr(winograd, "ROUND", blocks * block)
    monkeypatch.setattr(winograd, "STRIP", 20)
    np.testing.assert_array_equal(run("conv2d.forward", x, w, None, **geometry()), whole)


def test_what_it_refuses_and_when_it_pays():
    kernel = next(each for each in dispatch.variants("conv2d.forward", "numba_cpu") if each.variant == "winograd_4x4")
    assert kernel.when
    assert kernel.pays
    x, w = normal((8, 64, 28, 28), (64, 64, 3, 3))
    assert "float32" in str(kernel.when(x.astype(np.float64), w.astype(np.float64), None, **geometry()))
    for other, name in product([{"stride": (2, 1)}, {"dilation": (1, 2)}, {"groups": 2}], ["stride 1"]):
        assert name in str(kernel.when(x, w, None, **{**geometry(), **other}))
    assert "3x3" in str(kernel.when(x, w[:, :, :1], None, **geometry()))
    assert kernel.pays(x, w, None, **geometry()) is True
    assert kernel.pays(x[:, :3], w[:8, :3], None, **geometry()) is not True
