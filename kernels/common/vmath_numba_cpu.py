"""Functions of one number that LLVM turns into vectors, built on the exponential of kernels/common/vexp_numba_cpu.py.

    tanh(x) = +-(-t / (t + 2))       t = exp(-2 |x|) - 1, computed without the 1: small x keep their digits
    log1p(e) = 2 artanh(e / (2 + e)) for 0 <= e <= 1, so that the series in the square of at most 1/9 is short
    erf(x)                           as kernels/common/erf.py, both of its ranges computed and one chosen

In float32 the polynomials of erf are shorter fits of the same two functions, with errors below 3e-8.
"""

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from gpunet.cpu.jit import compiled

from . import erf as double
from .vexp_numba_cpu import BITS32, BITS64, E2, E3, E4, E5, E6, HIGH32, HIGH64, LOW32, LOW64, MAGIC32, MAGIC64, exp

F32, I32, F64, I64 = np.float32, np.int32, np.float64, np.int64
PER_LOG2_32, PER_LOG2_64 = F32(1 / math.log(2)), F64(1 / math.log(2))
LEAST32, LEAST64 = F32(-60), F64(-60)  # exp(x) - 1 is -1 there

P32 = tuple(
    F32(q)
    for q in (
        1.128379166,
        -0.3761262667,
        0.1128359472,
        -0.02685421201,
        0.005189087424,
        -0.0008016864292,
        7.875875079e-05,
    )
)
Q32 = tuple(
    F32(q)
    for q in (
        0.1790011512,
        -0.3262335605,
        0.2456038043,
        -0.1501158897,
        0.07166573959,
        -0.02439384421,
        0.004269816851,
        0.0007227405243,
        -0.0005900929444,
        -1.363630257e-05,
    )
)
E32 = (E2, E3, E4, E5, E6)  # of (exp(r) - 1 - r) / r**2 for |r| <= log(2) / 2
E64 = tuple(F64(1 / math.factorial(k)) for k in range(2, 14))
L32 = tuple(F32(2 / k) for k in range(3, 19, 2))
L64 = tuple(F64(2 / k) for k in range(3, 37, 2))
P64, Q64 = tuple(F64(c) for c in double.P), tuple(F64(c) for c in double.Q)


@compiled(fastmath={"contract"}, inline=True)
def _series(coefficients, z):
    """The polynomial with these coefficients, lowest power first."""
    last = len(coefficients) - 1
    y = coefficients[last]
    for k in range(last):
        y = y * z + coefficients[last - 1 - k]
    return y


@compiled(fastmath={"contract"})
def _expm1_32(x):
    """exp(x) - 1 for x <= 0."""
    x = LEAST32 if x < LEAST32 else x
    shifted = x * PER_LOG2_32 + MAGIC32
    n = shifted - MAGIC32
    r = (x - n * HIGH32) - n * LOW32
    p = r + r * r * _series(E32, r)
    power = I32((F32(shifted).view(I32) - BITS32 + I32(127)) << I32(23)).view(F32)
    return power * p + (power - F32(1))


@compiled(fastmath={"contract"})
def _expm1_64(x):
    x = LEAST64 if x < LEAST64 else x
    shifted = x * PER_LOG2_64 + MAGIC64
    n = shifted - MAGIC64
    r = (x - n * HIGH64) - n * LOW64
    p = r + r * r * _series(E64, r)
    power = I64((F64(shifted).view(I64) - BITS64 + I64(1023)) << I64(52)).view(F64)
    return power * p + (power - F64(1))


@compiled(fastmath={"contract"})
def _tanh32(x):
    t = _expm1_32(F32(-2) * abs(x))
    return np.copysign(-t / (t + F32(2)), x)


@compiled(fastmath={"contract"})
def _tanh64(x):
    t = _expm1_64(F64(-2) * abs(x))
    return np.copysign(-t / (t + F64(2)), x)


@compiled(fastmath={"contract"})
def _log1p32(e):
    f = e / (F32(2) + e)
    return F32(2) * f + f * (f * f) * _series(L32, f * f)


@compiled(fastmath={"contract"})
def _log1p64(e):
    f = e / (F64(2) + e)
    return F64(2) * f + f * (f * f) * _series(L64, f * f)


@compiled(fastmath={"contract"}, inline=True)
def _erf32(x):
    a = abs(x)
    near = F32(1) if a > F32(1) else a  # a NaN stays one, here alone
    u = F32(6) if a > F32(6) else a
    body = near * _series(P32, near * near)
    tail = F32(1) - exp(-u * u) * _series(Q32, (u - F32(3)) / (u + F32(3)))
    return np.copysign(tail if a > F32(1) else body, x)  # both at hand, so no branch


@compiled(fastmath={"contract"}, inline=True)
def _erf64(x):
    a = abs(x)
    near = F64(1) if a > F64(1) else a
    u = F64(6) if a > F64(6) else a
    body = near * _series(P64, near * near)
    tail = F64(1) - exp(-u * u) * _series(Q64, (u - F64(3)) / (u + F64(3)))
    return np.copysign(tail if a > F64(1) else body, x)  # both at hand, so no branch


def tanh(x):
    """The hyperbolic tangent of one number, float32 or float64, for loops that are compiled."""
    return np.tanh(x)


def log1p_of_share(x):
    """log(1 + x) for 0 <= x <= 1."""
    return np.log1p(x)


def erf(x):
    """The error function."""
    return math.erf(x)


def _by_type(function, single, double, inline: Any = "never"):
    """Inside compiled loops, ``function`` stands for one of two, by the type of its argument."""

    @overload(function, inline=inline)
    def chosen(x):
        if x == types.float32:
            return lambda x: single(x)
        if x == types.float64:
            return lambda x: double(x)
        return None


_by_type(tanh, _tanh32, _tanh64)
_by_type(erf, _erf32, _erf64, inline="always")  # too long for LLVM to paste in by itself
_by_type(log1p_of_share, _log1p32, _log1p64)
