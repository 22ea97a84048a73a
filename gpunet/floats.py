"""NumPy's floating-point warnings, switched off around every op: inf and NaN are values, as IEEE says."""

import contextvars
from typing import Any

import numpy as np


def _ignored_errors() -> tuple[Any, Any]:
    """The variable that holds NumPy's floating-point error settings, and its value under ``errstate(all="ignore")``.

    Setting the variable takes a seventh of the time of entering ``np.errstate``, which every op would have to do.
    """
    with np.errstate(all="ignore"):
        for variable, value in contextvars.copy_context().items():
            if variable.name == "numpy.ufunc.extobj":
                return variable, value
    return _ErrorSettings(), object()


class _ErrorSettings:
    """The same by public means, should NumPy keep its settings elsewhere."""

    def get(self, default: Any) -> Any:
        return default

    def set(self, _: Any) -> Any:
        return np.seterr(all="ignore")

    def reset(self, before: Any) -> None:
        np.seterr(**before)


#: 1/0 is inf and 0/0 is NaN, as IEEE says; NumPy need not warn of it. Set around every forward and backward.
float_errors, IGNORE = _ignored_errors()
