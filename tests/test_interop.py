"""Tensors among other people's arrays: NumPy's protocols, DLPack, pickle, copies."""

import copy
import importlib.util
import pickle
from typing import Any

import numpy as np
import pytest

import gpunet as gn
from gpunet.errors import ArgumentError, GraphError
from gpunet.tensor import _rebuild

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


# --------------------------------------------------------------------------------------------------------------- NumPy


def test_asarray_shares_and_array_copies():
    t = gn.tensor([1.0, 2.0])
    shared, copied = np.asarray(t), np.array(t)
    t.add_(1)
    assert shared.tolist() == [2.0, 3.0]
    assert copied.tolist() == [1.0, 2.0]
    assert shared is t.data


def test_array_protocol_with_dtype_and_copy():
    t = gn.tensor([1.0, 2.0])
    assert np.asarray(t, dtype=np.float64).dtype == np.float64
    assert np.asarray(t, copy=False) is t.data
    assert np.asarray(t, copy=True) is not t.data
    with pytest.raises(ArgumentError, match="array: no copy is possible from float32 to float64; pass copy=None"):
        np.asarray(t, dtype=np.float64, copy=False)


def test_numpy_functions_take_tensors():
    t = gn.tensor([3.0, 1.0, 2.0])
    assert np.sort(t).tolist() == [1.0, 2.0, 3.0]
    np.testing.assert_allclose(t, [3.0, 1.0, 2.0])
    assert np.concatenate([np.zeros(1), t]).tolist() == [0.0, 3.0, 1.0, 2.0]


@pytest.mark.parametrize("take", [np.asarray, np.array, np.sort, lambda t: t.numpy()])
def test_a_gradient_is_not_lost_silently(take):
    t = gn.ones(2, requires_grad=True)
    for each in (t, t * 2):
        with pytest.raises(GraphError, match=r"must not need a gradient, got requires_grad=True; use .detach\(\)"):
            take(each)
    assert take(t.detach()) is not None


@pytest.mark.parametrize(
    ("left", "dtype"),
    [
        (np.float64(2), "float32"),
        (np.float32(2), "float32"),
        (np.int64(2), "float32"),
        (np.array([2.0, 2.0], np.float32), "float32"),
        (np.array([2.0, 2.0]), "float64"),
        (np.array([2, 2]), "float32"),
    ],
)
def test_numpy_on_the_left(left, dtype):
    t = gn.tensor([1.0, 4.0], requires_grad=True)
    values = np.array([1.0, 4.0])
    results = {
        "add": (left + t, left + values),
        "sub": (left - t, left - values),
        "mul": (left * t, left * values),
        "div": (left / t, left / values),
        "pow": (left**t, left**values),
    }
    for name, (result, expected) in results.items():
        assert isinstance(result, gn.Tensor), name
        assert result.dtype == dtype
        assert result.requires_grad
        np.testing.assert_allclose(result.detach().numpy(), expected, rtol=1e-6)
    assert (left < t).tolist() == [False, True]
    assert (left == t).dtype == "bool"


def test_matrix_product_with_an_array():
    a, t = np.ones((2, 3), np.float32), gn.ones(3, 2)
    assert isinstance(gn.tensor(a) @ t, gn.Tensor)


def test_ufuncs_are_refused_rather_than_run_element_by_element():
    t = gn.ones(2)
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.add(np.ones(2), t)
    with pytest.raises(TypeError):
        np.sin(t)


def test_from_numpy_shares_memory_both_ways():
    array = np.zeros((2, 3), np.float32)
    t = gn.from_numpy(array)
    t[0, 1] = 5.0
    array[1, 2] = 7.0
    assert array[0, 1] == 5.0
    assert t[1, 2].item() == 7.0
    assert gn.from_numpy(array[:, ::2]).data.base is array
    with pytest.raises(ArgumentError, match=r"from_numpy: array must be a NumPy array, got list; use gn.tensor\(\)"):
        gn.from_numpy([1.0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be floating, integer or bool, got <U1"):
        gn.from_numpy(np.array(["a"]))


# -------------------------------------------------------------------------------------------------------------- DLPack


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "int32", "uint8", "bool"])
def test_dlpack_to_and_from_numpy(dtype):
    t = gn.ones(2, 3, dtype=dtype)
    array = np.from_dlpack(t)
    assert array.dtype == dtype
    assert np.shares_memory(array, t.data)
    back = gn.from_dlpack(array)
    assert back.dtype == dtype
    assert np.shares_memory(back.data, t.data)
    assert gn.from_dlpack(t).data.ctypes.data == t.data.ctypes.data


def test_dlpack_refusals():
    with pytest.raises(GraphError, match=r"dlpack: the tensor must not need a gradient.*use .detach\(\)"):
        np.from_dlpack(gn.ones(2, requires_grad=True))
    with pytest.raises(ArgumentError, match=r"from_dlpack: array must have __dlpack__, got list; use gn.tensor\(\)"):
        gn.from_dlpack([1.0])


@needs_torch
def test_torch_both_ways():
    import torch

    t = gn.arange(6, dtype="float32").reshape(2, 3)
    there = torch.from_dlpack(t)
    there[0, 1] = 50.0
    assert t[0, 1].item() == 50.0
    back = gn.from_dlpack(there.T)
    assert back.shape == (3, 2)
    back[0, 1] = 70.0
    assert there[1, 0].item() == 70.0
    own = gn.tensor(there)
    there.zero_()
    assert own.dtype == np.float32
    assert own[0, 1].item() == 50.0
    assert torch.as_tensor(np.asarray(t)).shape == (2, 3)


def test_cuda_array_interface_is_absent_on_the_cpu():
    assert not hasattr(gn.ones(2), "__cuda_array_interface__")
    with pytest.raises(AttributeError, match="must be on a GPU, got cpu"):
        gn.ones(2).__cuda_array_interface__


# ------------------------------------------------------------------------------------------------------ pickle and copy


@pytest.mark.parametrize("make", [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy])
def test_pickle_and_deepcopy_keep_what_matters(make):
    t = gn.tensor([[1.0, 2.0]], dtype="float64", requires_grad=True)
    again = make(t)
    assert type(again) is gn.Tensor
    assert (again.tolist(), again.dtype, again.requires_grad, again.device) == (t.tolist(), t.dtype, True, t.device)
    with gn.no_grad():
        again.add_(1)
    assert t.tolist() == [[1.0, 2.0]]
    (again * 2).sum().backward()
    assert t.grad is None


@pytest.mark.parametrize("make", [lambda t: pickle.loads(pickle.dumps(t)), copy.deepcopy])
def test_pickle_and_deepcopy_refuse_tensors_with_history(make):
    t = gn.ones(2, requires_grad=True) * 2
    with pytest.raises(GraphError, match=r"must be a leaf, got one made by Mul; use .detach\(\)"):
        make(t)
    assert make(t.detach()).tolist() == [2.0, 2.0]


def test_deepcopy_copies_the_gradient_and_shares_within():
    t = gn.ones(2, requires_grad=True)
    (t * 3).sum().backward()
    a, b = copy.deepcopy([t, t])
    assert a is b
    assert a.grad is not None
    assert a.grad is not t.grad
    assert a.grad.tolist() == [3.0, 3.0]


def test_a_tensor_of_a_missing_device_is_loaded_on_the_cpu_with_a_warning():
    with pytest.warns(UserWarning, match="loaded on the cpu instead of cuda:7"):
        t = _rebuild(gn.Tensor, np.ones(2), "cuda:7", True)
    assert t.device == "cpu"
    assert t.requires_grad


def test_devices_pickle_to_themselves():
    device: Any = gn.ones(1).device
    assert pickle.loads(pickle.dumps(device)) is device
