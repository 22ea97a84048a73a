"""Bad input on device ``sim``: made right by the launcher, or refused by name; never a silent wrong number."""

import numpy as np
import pytest

import gpunet as gn
from gpunet import cuda, devices, dispatch
from gpunet import functional as F
from gpunet.errors import DeviceError, DTypeError, KernelError, NoKernelError
from tests.emulated import needs_emulator

pytestmark = [needs_emulator, pytest.mark.cupy]
RNG = np.random.default_rng(0)


def on_sim(array: np.ndarray) -> gn.Tensor:
    return gn.tensor(array, device="sim")


def test_transposed_views_are_made_right():
    x = RNG.standard_normal((7, 5)).astype(np.float32)
    np.testing.assert_array_equal(F.relu(on_sim(x).T).numpy(), np.maximum(x.T, 0))
    a = RNG.standard_normal((6, 7)).astype(np.float32)
    np.testing.assert_allclose((on_sim(x).T @ on_sim(a).T).numpy(), x.T @ a.T, rtol=2e-5, atol=1e-6)
    images = RNG.standard_normal((2, 6, 5, 3)).astype(np.float32)
    seen = np.moveaxis(images, 3, 1)
    np.testing.assert_array_equal(
        F.max_pool2d(gn.Tensor._wrap(seen, devices.device("sim")), 2).numpy(), F.max_pool2d(gn.tensor(seen), 2).numpy()
    )


def test_steps_backwards_are_made_right():
    x = RNG.standard_normal((4, 6)).astype(np.float32)
    for view in (x[::-1], x[:, ::2], np.broadcast_to(x[0], (4, 6))):
        for kernel in dispatch.variants("softmax.forward", "cupy"):
            if kernel.refusal((view,), {"axis": 1}) is None:
                wanted = dispatch.variants("softmax.forward", "numpy")[0].function(view, axis=1)
                np.testing.assert_allclose(kernel.function(view, axis=1), wanted, rtol=1e-5)


def test_a_python_number_where_an_array_belongs_is_refused():
    relu = cuda.load("relu", real="float")
    x = np.zeros(8, np.float32)
    with pytest.raises(KernelError, match=r"relu_forward_plain: argument 1 '.*x' must be a NumPy or CuPy array"):
        relu.relu_forward_plain((1,), (32,), (x, 3.0, 8))
    with pytest.raises(KernelError, match=r"argument 2 'long long size' must be an integer, got 8\.0"):
        relu.relu_forward_plain((1,), (32,), (np.zeros(8, np.float32), x, 8.0))


@pytest.mark.parametrize("dtype", ["int32", "float16", "bool"])
def test_other_dtypes_are_refused_by_the_op(dtype: str):
    with pytest.raises(DTypeError, match="relu: x must"):
        F.relu(on_sim(np.ones(4, dtype)))


def test_two_dtypes_are_refused():
    with pytest.raises(DTypeError, match="matmul"):
        F.matmul(on_sim(np.ones((2, 2), np.float32)), on_sim(np.ones((2, 2), np.float64)))
    x = np.zeros(8)
    with pytest.raises(KernelError, match="must be float32, got float64"):
        cuda.load("relu", real="float").relu_forward_plain((1,), (32,), (x, x.copy(), 8))


def test_two_devices_are_refused():
    with pytest.raises(DeviceError, match="matmul"):
        F.matmul(on_sim(np.ones((2, 2), np.float32)), gn.ones(2, 2))


def test_wide_integers_where_the_kernel_takes_narrow_ones_are_refused():
    x = RNG.standard_normal((1, 1, 4, 8)).astype(np.float32)
    params = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
    _, index = dispatch.launch(devices.device("sim"), "max_pool2d.forward", x, output_size=(2, 4), **params)
    gy = np.ones((1, 1, 2, 4), np.float32)
    assert index.dtype == np.uint8
    arrays, more = (gy, index.astype(np.int64)), {"input_size": (4, 8), **params}
    for kernel in dispatch.variants("max_pool2d.grad_x", "cupy"):
        if kernel.refusal(arrays, more) is None:
            with pytest.raises(KernelError, match=r"index' must be .*int.*, got int64"):
                kernel.function(*arrays, **more)
    with pytest.raises((KernelError, NoKernelError), match="int64"):
        dispatch.launch(devices.device("sim"), "max_pool2d.grad_x", gy, index.astype(np.int64), **more)


def test_empty_batches_give_empty_results():
    x = np.zeros((0, 3, 6, 6), np.float32)
    assert F.max_pool2d(on_sim(x), 2).shape == (0, 3, 3, 3)
    assert F.conv2d(on_sim(x), on_sim(np.ones((2, 3, 3, 3), np.float32))).shape == (0, 2, 4, 4)
    assert F.softmax(on_sim(np.zeros((0, 5), np.float32)), dim=1).shape == (0, 5)
    w = on_sim(np.ones((2, 3, 3, 3), np.float32)).requires_grad_()
    F.conv2d(on_sim(x), w).sum().backward()
    assert w.grad is not None
    np.testing.assert_array_equal(w.grad.numpy(), np.zeros((2, 3, 3, 3)))


def test_a_grid_over_the_limit_is_refused():
    x = np.zeros(8, np.float32)
    relu = cuda.load("relu", real="float").relu_forward_plain
    with pytest.raises(KernelError, match=r"grid must be at most .*65535.*, got \(1, 70000, 1\)"):
        relu((1, 70000), (32,), (x, x.copy(), 8))
    with pytest.raises(KernelError, match="block must have at most 1024 threads"):
        relu((1,), (1024, 2), (x, x.copy(), 8))
    with pytest.raises(KernelError, match="must be from -9223372036854775808"):
        relu((1,), (32,), (x, x.copy(), 2**63))


def test_rows_beyond_the_grid_are_taken_by_another_rung_or_refused_with_the_limit():
    a = np.broadcast_to(np.ones(1, np.float32), (2**21, 1))
    b = np.ones((1, 1), np.float32)
    flags = {"transpose_a": False, "transpose_b": False}
    for kernel in dispatch.variants("matmul.forward", "cupy"):
        refusal = kernel.refusal((a, b), flags)
        assert refusal is None or "rows" in refusal or "elements" in refusal or "tile" in refusal, (kernel, refusal)
