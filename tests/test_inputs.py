"""What goes in stays as it was, in whatever memory order it comes; what comes out is written completely."""

from collections.abc import Callable

import numpy as np
import pytest

import gpunet as gn
from gpunet import config
from tests.cases import CASES, Case
from tests.product import definition, proof_of, proofs, random_like, run, takes, wanted_of
from tests.tolerances import assert_near, assert_same_bits, assert_within, outputs

PROOFS = proofs(lambda entry: True, only_running=True, dtypes=("float32",))


def turned(a: np.ndarray) -> np.ndarray:
    """The axes in reverse order in memory."""
    return a.T.copy().T


def strided(a: np.ndarray) -> np.ndarray:
    """Every second element of a larger array, with NaN (or the largest integer) in between."""
    gap = np.nan if a.dtype.kind == "f" else np.iinfo(a.dtype).max
    room = np.full((*a.shape, 2), gap, a.dtype)
    room[..., 0] = a
    return room[..., 0]


def backwards(a: np.ndarray) -> np.ndarray:
    """Negative strides on every axis."""
    flip = (slice(None, None, -1),) * a.ndim
    return a[flip].copy()[flip] if a.ndim else a


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"turned": turned, "strided": strided, "backwards": backwards}


@pytest.mark.parametrize("parameter", PROOFS)
def test_kernel_leaves_its_inputs_alone_and_writes_all_of_its_output(parameter):
    proof = proof_of(parameter)
    for call in proof.calls:
        before = [None if each is None else each.copy() for each in call.arrays]
        poisoned = run(proof.kernel, call)
        config.settings.poison = False
        plain = run(proof.kernel, call)
        config.settings.poison = True
        for array, old in zip(call.arrays, before, strict=True):
            if array is not None:
                assert_same_bits(array, old, f"{proof}: an input")
        assert_same_bits(poisoned, plain, f"{proof}: with and without poison, two runs")


@pytest.mark.parametrize("parameter", PROOFS)
def test_kernel_takes_any_memory_order(parameter):
    proof = proof_of(parameter)
    for call in proof.calls:
        for name, layout in LAYOUTS.items():
            other = call._replace(arrays=tuple(None if each is None else layout(each) for each in call.arrays))
            if takes(proof.kernel, other):
                assert_within(run(proof.kernel, other), definition(other), other, f"{proof}, {name}")


@pytest.mark.parametrize("parameter", PROOFS)
def test_kernel_takes_a_broadcast_view(parameter):
    proof = proof_of(parameter)
    for call in proof.calls:
        first, *rest = call.arrays
        if first.ndim < 2 or first.dtype.kind != "f":
            continue
        view = np.broadcast_to(first[:1], first.shape)  # stride 0 on the first axis
        seen, copied = (call._replace(arrays=(each, *rest)) for each in (view, view.copy()))
        if takes(proof.kernel, seen) and takes(proof.kernel, copied):
            pairs = zip(outputs(run(proof.kernel, seen)), outputs(run(proof.kernel, copied)), strict=True)
            for one, other in pairs:  # equal slices may cancel out, so the bound is absolute; the inputs are near 1
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5, err_msg=str(proof))


def _forward_and_backward(case: Case, tensors: list[gn.Tensor | None]) -> list[np.ndarray]:
    y = case.run(*tensors)
    wanted = wanted_of(tensors)
    grads = gn.grad(y, wanted, random_like(y, np.random.default_rng(5)), allow_unused=True)
    return [each.data for each in (y, *grads) if each is not None]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_op_leaves_its_inputs_alone(case):
    tensors = case.draw("float32")
    # Running statistics are there to be changed.
    kept = [
        each for k, each in enumerate(tensors) if each is not None and not (case.op == "batch_norm" and k in (1, 2))
    ]
    before = [each.data.copy() for each in kept]
    _forward_and_backward(case, tensors)
    for tensor, old in zip(kept, before, strict=True):
        assert_same_bits(tensor.data, old, f"{case}: an input")
        assert tensor.grad is None


@pytest.mark.parametrize("layout", ["turned", "strided", "backwards"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_op_takes_any_memory_order(case, layout):
    plain = _forward_and_backward(case, case.draw("float64"))
    tensors: list[gn.Tensor | None] = []
    for each in case.draw("float64"):
        if each is not None:
            other = gn.from_numpy(LAYOUTS[layout](each.data))
            each = other.requires_grad_() if each.requires_grad else other
        tensors.append(each)
    for one, other in zip(_forward_and_backward(case, tensors), plain, strict=True):
        assert_near(one, other, np.float64, 10 + other.size, f"{case}, {layout}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_op_gives_the_same_bits_twice(case):
    one, other = (_forward_and_backward(case, case.draw("float32")) for _ in range(2))
    assert_same_bits(tuple(one), tuple(other), str(case))
