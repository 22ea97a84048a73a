"""Every pair of backends that run here agrees, to three times the error that plain NumPy makes in the same dtype."""

import itertools
from typing import Any

import numpy as np
import pytest

from gpunet import devices, dispatch
from gpunet.dispatch import Call, Kernel
from tests import product
from tests.cases import CASES, Case
from tests.product import DTYPES, calls, definition, run, takes, why_not
from tests.tolerances import AGREEMENT, outputs


def rung_of(backend: str, call: Call) -> Kernel | None:
    """What the backend would choose by itself: its highest rung that takes the call and is worth it."""
    rungs = dispatch.ladder(call.entry.partition(".")[0])
    found = [each for each in dispatch.variants(call.entry, backend) if each.variant in rungs and takes(each, call)]
    worth = [each for each in found if each.waste(call.arrays, call.params) is None]
    return (worth or found or [None])[-1]


def parameters() -> list[Any]:
    running = [name for name in devices.BACKENDS if why_not(name) is None]
    found = []
    for case, dtype, (a, b) in itertools.product(CASES, DTYPES, itertools.combinations(running, 2)):
        if any(rung_of(a, call) and rung_of(b, call) for call in calls(case, dtype)):
            marks = [getattr(pytest.mark, a), getattr(pytest.mark, b)]
            found.append(pytest.param(case, dtype, a, b, id=f"{case}-{a}-{b}-{dtype}", marks=marks))
    for name in product.GPU_BACKENDS if product.require_gpu else ():
        if reason := why_not(name):
            marks = [getattr(pytest.mark, name), pytest.mark.skip(reason=reason)]
            found.append(pytest.param(None, "", "", "", id=f"all-{name}", marks=marks))
    if not found:
        have = [
            name
            for name in running
            if any(dispatch.variants(e, name) for o in dispatch.ops() for e in dispatch.entries(o))
        ]
        reason = f"agreement needs two backends that have kernels and run here; there is {', '.join(have)}"
        found = [pytest.param(None, "", "", "", id="none", marks=pytest.mark.skip(reason=reason))]
    return found


def plain_error(call: Call) -> list[float]:
    """How far NumPy in this dtype is from the exact result, for each output, relative to its largest value.

    For float64 there is nothing more exact at hand: the error in float32 is scaled by the ratio of the roundings. That
    says little of entries whose sums are float64 in both, so what the rounding of the inputs alone explains counts too.
    """
    dtype = next(a.dtype for a in call.arrays if a is not None and a.dtype.kind == "f")
    single = tuple(a.astype(np.float32) if a is not None and a.dtype.kind == "f" else a for a in call.arrays)
    plain = call._replace(arrays=single)
    eps = float(np.finfo(dtype).eps)
    pairs = zip(outputs(run(dispatch.variants(call.entry, "numpy")[0], plain)), outputs(definition(plain)), strict=True)
    ratio = eps / float(np.finfo(np.float32).eps)
    found = [max(distance(one, exact) * ratio, 2 * eps) for one, exact in pairs]
    return found if dtype == np.float32 else [max(pair) for pair in zip(found, rounded_inputs(call), strict=True)]


def rounded_inputs(call: Call) -> list[float]:
    """How far results move when each float64 input does by half its last digit; 0 for one that jumps."""
    rng = np.random.default_rng(5)
    eps = float(np.finfo(np.float64).eps)

    def moved(a: Any) -> Any:
        if a is None or a.dtype != np.float64:
            return a
        return a * (1 + eps * (rng.integers(0, 2, a.shape) - 0.5))

    plain = dispatch.variants(call.entry, "numpy")[0]
    with np.errstate(all="ignore"):
        other = outputs(run(plain, call._replace(arrays=tuple(moved(each) for each in call.arrays))))
    found = [distance(a, b) for a, b in zip(outputs(run(plain, call)), other, strict=True)]
    return [each if each < 1000 * eps else 0.0 for each in found]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference, relative to the largest value; infinite where NaN or infinities differ."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(other)
    if not np.array_equal(one[~finite], other[~finite], equal_nan=True) or not np.isfinite(one[finite]).all():
        return float("inf")
    scale = float(np.abs(other[finite]).max(initial=0)) or 1.0
    return float(np.abs(one[finite] - other[finite]).max(initial=0)) / scale


@pytest.mark.parametrize(("case", "dtype", "first", "second"), parameters())
def test_two_backends_agree(case: Case, dtype: str, first: str, second: str):
    for call in calls(case, dtype):
        one, other = rung_of(first, call), rung_of(second, call)
        if one is None or other is None:
            continue
        pairs = zip(outputs(run(one, call)), outputs(run(other, call)), plain_error(call), strict=True)
        for k, (a, b, error) in enumerate(pairs):
            assert a.dtype == b.dtype, f"{one.name} and {other.name}: output {k} has dtypes {a.dtype} and {b.dtype}"
            reached = distance(a, b)
            assert reached <= AGREEMENT * error, (
                f"{one.name} and {other.name} differ by {reached:.3g} in output {k}, "
                f"plain NumPy errs by {error:.3g}, allowed is {AGREEMENT:g} times that"
            )


def test_the_measure_sees_a_small_difference():
    call = next(each for each in calls(CASES[0], "float32") if each.entry == "matmul.forward")
    exact = outputs(definition(call))[0]
    allowed = AGREEMENT * plain_error(call)[0]
    assert distance(exact, exact) == 0
    assert distance(exact * (1 + 2 * allowed), exact) > allowed
    assert distance(np.full_like(exact, np.nan), exact) == float("inf")
