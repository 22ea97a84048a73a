"""How far a result may be off, as an assertion; the bound itself is derived in gpunet/measure/tolerances.py.

A result passes when it is within ``eps * (16 + 4 * sqrt(terms))`` of the definition, relative to the definition's
largest value. ``terms`` is the number of operations behind one output element, by the op's own ``work``. An entry
that needs more gets a factor in :data:`EXTRA`, with its reason; there is no other place where a bound can be widened.
"""

from typing import Any

import numpy as np

from gpunet import dispatch
from gpunet.dispatch import Call
from gpunet.measure import tolerances

#: entry -> factor on the bound, each with its reason
EXTRA: dict[str, float] = {}

AGREEMENT = 3.0  # two kernels may differ by this many times the error of plain NumPy in the same dtype


def outputs(result: Any) -> tuple[np.ndarray, ...]:
    """The arrays a launcher returned, as a tuple."""
    return result if isinstance(result, tuple) else (result,)


def terms_of(call: Call, output: np.ndarray) -> float:
    """Operations behind one element of ``output``."""
    op = call.entry.partition(".")[0]
    work = dispatch.title(op).work(call.entry, *call.arrays, **call.params)
    return max(1.0, work.flops / max(output.size, 1)) * EXTRA.get(call.entry, 1.0) ** 2


def assert_within(result: Any, definition: Any, call: Call, what: str) -> None:
    """Every output of ``result`` has the definition's shape, the inputs' dtype, and values within the bound."""
    got, wanted = outputs(result), outputs(definition)
    assert len(got) == len(wanted), f"{what}: {len(wanted)} outputs expected, got {len(got)}"
    floats = [each.dtype for each in call.arrays if each is not None and each.dtype.kind == "f"]
    for k, (one, other) in enumerate(zip(got, wanted, strict=True)):
        one, other = np.asarray(one), np.asarray(other)
        assert one.shape == other.shape, f"{what}: output {k} must have shape {other.shape}, got {one.shape}"
        dtype = floats[0] if other.dtype.kind == "f" else other.dtype
        assert one.dtype == dtype, f"{what}: output {k} must be {dtype}, got {one.dtype}"
        error = tolerances.compare(one, other, terms_of(call, other))
        assert error.ok, (
            f"{what}: output {k} is off by {error.reached:.3g} of its largest value, allowed {error.allowed:.3g}, "
            f"at {error.where}: got {one[error.where]}, definition {other[error.where]}"
        )


def assert_same_bits(result: Any, wanted: Any, what: str) -> None:
    """Equal element by element, NaN beside NaN, and with the same sign of zero."""
    for k, (one, other) in enumerate(zip(outputs(result), outputs(wanted), strict=True)):
        np.testing.assert_array_equal(one, other, err_msg=f"{what}: output {k}", strict=True)
        if one.dtype.kind == "f":
            np.testing.assert_array_equal(np.signbit(one), np.signbit(other), err_msg=f"{what}: signs of output {k}")


def assert_near(one: np.ndarray, other: np.ndarray, dtype: Any, terms: float, what: str) -> None:
    """Two results of whole ops, within the bound of ``terms`` products in ``dtype``."""
    error = tolerances.compare(np.asarray(one).astype(dtype, copy=False), np.asarray(other, np.float64), terms)
    assert error.ok, (
        f"{what}: off by {error.reached:.3g} of the largest value, allowed {error.allowed:.3g}, at {error.where}"
    )
