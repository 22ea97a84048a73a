"""Every benchmark suite: its sizes, its tensors, and that it runs forward and backward on each quick size."""

from typing import Any

import numpy as np
import pytest

from gpunet import devices, dispatch, random
from gpunet.errors import ArgumentError
from gpunet.measure import calls
from gpunet.measure.calls import suites

OPS = suites.names()
SMALL = [(op, size) for op in OPS for size in suites.sizes(op, ("proof", "quick"))]
IDS = [f"{op}-{size.name}" for op, size in SMALL]


def test_every_op_with_kernels_has_a_suite():
    assert set(dispatch.ops()) <= set(OPS)


@pytest.mark.parametrize("op", OPS)
def test_sizes_are_named_placed_and_told_apart(op: str):
    sizes = suites.load(op).SIZES
    assert len({size.name for size in sizes}) == len(sizes)
    assert {"proof", "quick"} <= {size.tier for size in sizes} <= set(suites.TIERS)
    for size in sizes:
        assert size.origin
        assert size.shapes
    assert [each for tier in suites.TIERS for each in suites.sizes(op, (tier,))] == sorted(
        sizes, key=lambda size: suites.TIERS.index(size.tier)
    )


@pytest.mark.parametrize(("op", "size"), SMALL, ids=IDS)
def test_runs_forward_and_backward(op: str, size: Any):
    suite = suites.load(op)
    tensors = suite.tensors(size, "float32", "cpu", 3)
    wanted = [each for each in tensors.values() if each.requires_grad]
    y = suite.run(size, tensors)
    y.backward(np.ones(y.shape, np.float32))
    assert wanted
    for each in wanted:
        assert each.grad.shape == each.shape
        assert np.isfinite(each.grad.data).all()
        assert each.data.dtype == np.float32


@pytest.mark.parametrize("op", OPS)
def test_tensors_depend_on_the_seed_alone_and_are_not_zeros(op: str):
    suite, size = suites.load(op), suites.sizes(op, ("proof",))[0]
    first, again, other = (suite.tensors(size, "float64", "cpu", seed) for seed in (5, 5, 6))
    for name, each in first.items():
        assert np.array_equal(each.data, again[name].data)
        assert each.data.any()
    assert any(not np.array_equal(each.data, other[name].data) for name, each in first.items())
    assert set(size.shapes) <= set(first)


def test_small_sizes_reach_every_entry():
    found = {
        case.entry
        for op, size in SMALL
        if size.tier == "proof"
        for case in calls.capture(suites.load(op), size, "float32", 0, second=True)
    }
    assert found == {entry for op in dispatch.ops() for entry in dispatch.entries(op)}


def test_unknown_suite_is_refused():
    with pytest.raises(ArgumentError, match=r"suites: op must be one of matmul, .*got 'conv3d'"):
        suites.load("conv3d")


def test_capture_tells_two_ways_of_one_entry_apart():
    size = suites.sizes("matmul", ("proof",))[0]
    cases = calls.capture(suites.load("matmul"), size, "float32", 0)
    assert [(each.phase, each.label) for each in cases] == [
        ("forward", "matmul.forward"),
        ("backward", "matmul.forward (transpose_b)"),
        ("backward", "matmul.forward (transpose_a)"),
    ]
    assert cases[0].shapes == [[17, 31], [31, 13]]
    assert cases[0].work.flops == 2 * 17 * 31 * 13
    assert cases[0].nbytes == 4 * (17 * 31 + 31 * 13)


def test_a_case_gives_fresh_copies_with_the_same_layout():
    size = suites.sizes("matmul", ("proof",))[1]
    case = calls.capture(suites.load("matmul"), size, "float32", 0)[0]
    given = case.arrays_on(devices.CPU)
    for array, copy in zip(case.call.arrays, given, strict=True):
        assert np.array_equal(array, copy)
        assert array.strides == copy.strides
        assert not np.shares_memory(array, copy)


def test_capture_leaves_the_random_state_alone():
    random.manual_seed(4)
    wanted = (random.next_dropout_key(), random.generator().random(3).tolist())
    random.manual_seed(4)
    calls.capture(suites.load("dropout"), suites.sizes("dropout", ("proof",))[0], "float32", 0)
    assert (random.next_dropout_key(), random.generator().random(3).tolist()) == wanted
