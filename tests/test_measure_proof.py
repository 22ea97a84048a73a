"""Proof refuses wrong kernels, each for the right reason, and passes right ones."""

import importlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpunet import config, devices
from gpunet.dispatch import Kernel
from gpunet.measure import calls, proof
from gpunet.measure.calls import Case, suites

CPU = devices.CPU


def case_of(op: str, phase: str = "forward", dtype: str = "float32", number: int = 0, seed: int = 0) -> Case:
    """The first call of an op's proof size in one half of the pass."""
    size = suites.sizes(op, ("proof",))[number]
    return next(each for each in calls.capture(suites.load(op), size, dtype, seed, True) if each.phase == phase)


def kernel_of(entry: str, function: Callable[..., Any], when: Callable[..., bool | str] | None = None) -> Kernel:
    """A launcher that is not registered."""
    return Kernel(entry, "numpy", "wrong", function, when, __file__, 1)


def right(x: np.ndarray) -> np.ndarray:
    out = devices.empty(x.shape, x.dtype)
    np.maximum(x, 0, out=out)
    return out


def zeros(x: np.ndarray) -> np.ndarray:
    return np.zeros_like(x)


def constant(x: np.ndarray) -> np.ndarray:
    return np.full_like(x, 0.5)


def in_place(x: np.ndarray) -> np.ndarray:
    result = right(x)
    x[...] = result
    return result


def returns_input(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape)


def one_element(x: np.ndarray) -> np.ndarray:
    result = right(x)
    result.flat[result.size // 2] += 1e-3
    return result


def one_element_nan(x: np.ndarray) -> np.ndarray:
    result = right(x)
    result.flat[3] = np.nan
    return result


def partial(x: np.ndarray) -> np.ndarray:
    out = devices.empty(x.shape, x.dtype)
    np.maximum(x.reshape(-1)[:-1], 0, out=out.reshape(-1)[:-1])
    return out


def wrong_shape(x: np.ndarray) -> np.ndarray:
    return right(x).reshape(-1)


def wrong_dtype(x: np.ndarray) -> np.ndarray:
    return right(x).astype(np.float64)


def too_many(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return right(x), right(x)


def no_array(x: np.ndarray) -> Any:
    return right(x).tolist()


def raises(x: np.ndarray) -> np.ndarray:
    raise ValueError("the grid is empty")


WRONG = [
    (zeros, "is 0.0 everywhere, the definition is not"),
    (constant, "is 0.5 everywhere, the definition is not"),
    (in_place, "changes input 0"),
    (returns_input, "shares memory with an input"),
    (one_element, "is off by"),
    (one_element_nan, r"holds NaN, first at \(0, 0, 0, 3\)"),
    (partial, r"holds NaN, first at \(0, 2, 6, 4\)"),
    (wrong_shape, r"must be float32 \(1, 3, 7, 5\), got float32 \(105,\)"),
    (wrong_dtype, "must be float32 .* got float64"),
    (too_many, "must return 1 arrays, got 2"),
    (no_array, "must be an array of the device, got list"),
    (raises, "raises ValueError: the grid is empty"),
]


@pytest.mark.parametrize(("function", "reason"), WRONG, ids=[function.__name__ for function, _ in WRONG])
def test_wrong_kernel_is_refused(function: Callable[..., Any], reason: str):
    verdict = proof.prove(case_of("relu"), kernel_of("relu.forward", function), CPU)
    assert verdict.status == "failed"
    assert re.search(reason, verdict.reason), verdict.reason


def test_right_kernel_passes():
    verdict = proof.prove(case_of("relu"), kernel_of("relu.forward", right), CPU)
    assert (verdict.status, verdict.reason, verdict.deterministic) == ("passed", "", True)
    assert verdict.reached is not None
    assert verdict.allowed is not None
    assert 0 <= verdict.reached <= verdict.allowed
    assert verdict.first_call > 0


def test_float32_inside_float64_is_refused():
    def hidden(x: np.ndarray) -> np.ndarray:
        return right(x.astype(np.float32)).astype(np.float64)

    verdict = proof.prove(case_of("relu", dtype="float64"), kernel_of("relu.forward", hidden), CPU)
    assert verdict.reason.startswith("output 0 is off by")
    assert verdict.reached is not None
    assert 1e-9 < verdict.reached < 1e-6


def test_kernel_that_differs_between_runs_is_refused():
    random = np.random.default_rng(0)

    def shaky(x: np.ndarray) -> np.ndarray:
        return right(x) * np.float32(1 + 3e-7 * random.random())

    case = case_of("relu")
    verdict = proof.prove(case, kernel_of("relu.forward", shaky), CPU)
    assert verdict.deterministic is False
    assert "differ in their bits" in verdict.reason
    assert proof.prove(case, kernel_of("relu.forward", shaky), CPU, repeats=1).status == "passed"


def test_result_kept_from_the_first_call_is_refused():
    kept: list[np.ndarray] = []

    def cached(x: np.ndarray) -> np.ndarray:
        kept.append(right(x)) if not kept else None
        return kept[0]

    verdict = proof.prove(case_of("relu"), kernel_of("relu.forward", cached), CPU)
    assert "an earlier call's output" in verdict.reason

    def copied(x: np.ndarray) -> np.ndarray:
        kept.append(right(x)) if not kept else None
        return kept[0].copy()

    assert "keep no answers" in proof.prove(case_of("relu"), kernel_of("relu.forward", copied), CPU).reason
    assert proof.prove(case_of("relu", seed=9), kernel_of("relu.forward", copied), CPU).status == "failed"


def test_wrong_second_output_is_refused():
    definition = calls.definition("max_pool2d.forward").function

    def wrong_index(x: np.ndarray, **params: Any) -> Any:
        y, index = definition(x, **params)
        index.flat[0] = (index.flat[0] + 1) % 4
        return y, index

    case = case_of("max_pool2d")
    verdict = proof.prove(case, kernel_of("max_pool2d.forward", wrong_index), CPU)
    assert verdict.reason.startswith("output 1 is off by")


def test_refusal_is_neither_passed_nor_failed():
    verdict = proof.prove(case_of("relu"), kernel_of("relu.forward", right, lambda x: "more than 4 axes"), CPU)
    assert (verdict.status, verdict.reason) == ("refused", "more than 4 axes")


def test_definition_that_is_constant_proves_nothing():
    case = case_of("relu")
    case.call.arrays[0][...] = -1
    verdict = proof.prove(case, kernel_of("relu.forward", right), CPU)
    assert "constant by its definition" in verdict.reason


def test_nan_and_infinity_must_stand_where_the_definition_has_them():
    case = case_of("relu")
    case.call.arrays[0].flat[:3] = [np.nan, np.inf, -np.inf]
    assert proof.prove(case, kernel_of("relu.forward", right), CPU).status == "passed"

    def lost(x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, 0).astype(x.dtype)  # NaN > 0 is false

    assert "is off by inf" in proof.prove(case, kernel_of("relu.forward", lost), CPU).reason


def test_poison_is_what_it_was_afterwards():
    config.settings.poison = False
    proof.prove(case_of("relu"), kernel_of("relu.forward", raises), CPU)
    assert config.settings.poison is False


@pytest.mark.parametrize("op", suites.names())
def test_every_definition_is_proved(op: str):
    suite = suites.load(op)
    for size in suites.sizes(op, ("proof",)):
        for dtype in ("float32", "float64"):
            for case in calls.capture(suite, size, dtype, 1, second=True):
                verdict = proof.prove(case, calls.definition(case.entry), CPU)
                assert verdict.status == "passed", f"{size.name} {dtype} {case.label}: {verdict.reason}"


@pytest.mark.parametrize("op", suites.names())
def test_gradients_of_every_definition_are_proved(op: str):
    for size in suites.sizes(op, ("proof",)):
        row = proof.prove_gradient(suites.load(op), size, 1)
        assert (row.status, row.reason) == ("passed", "")


def test_wrong_gradient_is_refused():
    from types import SimpleNamespace

    import gpunet as gn

    class Wrong(gn.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.data * 2

        @staticmethod
        def backward(ctx: Any, gy: Any) -> Any:
            return gy * 2.01

    relu = suites.load("relu")
    suite: Any = SimpleNamespace(
        __name__="suites.doubled", tensors=relu.tensors, run=lambda size, tensors: Wrong.apply(tensors["x"])
    )
    row = proof.prove_gradient(suite, suites.sizes("relu", ("proof",))[0], 0)
    assert row.status == "failed"
    assert row.reason
    suite.run = lambda size, tensors: 1 / 0
    assert "ZeroDivisionError" in proof.prove_gradient(suite, suites.sizes("relu", ("proof",))[0], 0).reason


def test_cases_are_captured_on_the_cpu_whatever_the_default_device(monkeypatch: pytest.MonkeyPatch):
    if devices.backend("cupy").why_not("sim"):
        pytest.skip("device sim cannot run here")
    monkeypatch.setattr(config.settings, "device", "sim")
    suite = importlib.import_module("gpunet.bench.suites.relu")
    cases = calls.capture(suite, suite.SIZES[0], "float32", seed=0)
    assert {str(case.call.device) for case in cases} == {"cpu"}
    assert {case.entry for case in cases} == {"relu.forward", "relu.grad_x"}
