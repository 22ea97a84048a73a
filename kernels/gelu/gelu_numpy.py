"""gelu on NumPy: the definition that every other kernel of this op is held against."""
# op: gpunet/ops/gelu.py

import math

import numpy as np

from gpunet.dispatch import kernel

from ..common.erf import erf

SQRT_HALF = math.sqrt(0.5)
DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)  # of the standard normal
SLOPE_AT_0 = math.sqrt(2 / math.pi)  # of u in the tanh form
CUBIC = 0.044715


@kernel("gelu.forward", backend="numpy")
def gelu_forward_reference(x, *, approximate):
    """y = x * Phi(x)."""
    with np.errstate(all="ignore"):  # -inf * 0, and powers of large x
        if approximate == "none":
            return x * (0.5 * (1 + erf(x * SQRT_HALF)))
        return x * _sigmoid_2u(x)


@kernel("gelu.grad_x", backend="numpy")
def gelu_grad_x_reference(gy, x, *, approximate):
    """gx = gy * (Phi(x) + x * Phi'(x))."""
    with np.errstate(all="ignore"):
        if approximate == "none":
            density = DENSITY_AT_0 * np.exp(-0.5 * x * x)
            return gy * (0.5 * (1 + erf(x * SQRT_HALF)) + x * density)
        s = _sigmoid_2u(x)
        slope = SLOPE_AT_0 * (1 + 3 * CUBIC * x * x)  # u'
        return gy * (s + 2 * x * s * (1 - s) * slope)


def _sigmoid_2u(x):
    """(1 + tanh(u)) / 2 without cancellation: exp overflows to inf where the result is 0 anyway."""
    u = SLOPE_AT_0 * x * (1 + CUBIC * x * x)
    return 1 / (1 + np.exp(-2 * u))
