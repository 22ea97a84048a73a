"""How far a result may be off: derived from the dtype and the number of terms behind one output element.

A sum of K rounded products errs by about ``eps * sqrt(K)`` of its typical size (Higham and Mary 2019; the worst case
is ``eps * K``), and an element-wise formula by a few ``eps``. So with R the definition in float64::

    max |result - R|  <=  eps * (16 + 4 * sqrt(K)) * max |R|

NaN and infinities must stand at the same places with the same sign. The bound is per output array, it never grows with
the array's size, and it is tight enough that float32 arithmetic hidden in a float64 kernel fails by a factor of 1e5.
"""

from typing import Any, NamedTuple

import numpy as np


class Error(NamedTuple):
    """How far a result was off, beside how far it may be: both relative to the largest value of the definition."""

    reached: float
    allowed: float
    where: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether the result is within its tolerance; NaN is not."""
        return bool(self.reached <= self.allowed)


def allowed(dtype: Any, terms: float) -> float:
    """Tolerance relative to the largest value, for outputs of ``dtype`` that are sums of ``terms`` products."""
    return float(np.finfo(dtype).eps) * (16 + 4 * float(np.sqrt(max(terms, 1))))


def compare(result: np.ndarray, definition: np.ndarray, terms: float) -> Error:
    """``result`` held against the float64 ``definition``; integer and bool results must be equal."""
    if result.shape != definition.shape:
        return Error(float("inf"), 0.0, ())
    if result.size == 0:
        return Error(0.0, 0.0, ())
    if result.dtype.kind != "f":
        wrong = result != definition
        return Error(float(wrong.any()), 0.0, _first(wrong))
    bound = allowed(result.dtype, terms)
    finite = np.isfinite(definition)
    with np.errstate(invalid="ignore", over="ignore"):
        special = ~finite & ~((result == definition) | (np.isnan(result) & np.isnan(definition)))
        special |= finite & ~np.isfinite(result)
        if special.any():
            return Error(float("inf"), bound, _first(special))
        distance = np.where(finite, np.abs(result.astype(np.float64) - np.where(finite, definition, 0)), 0)
        scale = float(np.abs(np.where(finite, definition, 0)).max()) or 1.0
    return Error(float(distance.max()) / scale, bound, _first(distance == distance.max()))


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(mask)), np.shape(mask))) if np.any(mask) else ()
