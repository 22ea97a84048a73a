"""Exponential and logarithm that LLVM turns into vectors: arithmetic alone, no branch, no call.

Numba's own exp calls the C library for each number. These are pasted into loops, and LLVM computes as many at once as
its vectors hold. They are within 2 units of the last digit of the exact value, with inf, -inf, NaN and results below
the normal numbers.

    exp(x) = 2**n * exp(r)       n is x / log 2 rounded, r = x - n log 2, so |r| <= log(2) / 2; exp(r) is a polynomial
    log(x) = e log 2 + log(m)    x = m * 2**e, m from sqrt(1/2) to sqrt(2); log(m) = 2 artanh((m - 1) / (m + 1))

2**n is built from its bits. The result takes two such factors, since one does not hold all n: the product with the
first is exact, so that the result is rounded once.
"""
# n is rounded by adding and subtracting MAGIC, which "reassoc" would take for nothing: so what computes here names its
# liberties itself. Loops that call it may take more: an instruction keeps the liberties of the function it stands in.

import math

import numpy as np
from numba import types
from numba.extending import overload

from gpunet.cpu.jit import compiled

F32, I32, F64, I64 = np.float32, np.int32, np.float64, np.int64

MAGIC32, MAGIC64 = F32(1.5 * 2**23), F64(1.5 * 2**52)  # added to a number it leaves its whole part in the last bits
BITS32, BITS64 = I32(MAGIC32.view(I32)), I64(MAGIC64.view(I64))
PER_LOG2_32, PER_LOG2_64 = F32(1 / math.log(2)), F64(1 / math.log(2))
# log 2 in two parts, the first with so few digits that its product with n is exact
HIGH32, LOW32 = F32(0.693359375), F32(-2.12194440e-4)
HIGH64, LOW64 = F64(6.93147180369123816490e-1), F64(1.90821492927058770002e-10)
LEAST32, MOST32, LEAST64, MOST64 = F32(-104), F32(89), F64(-746), F64(710)  # beyond, the result is 0 or inf
DOWN32, DOWN64 = F32(2.0**-64), F64(2.0**-64)
ONE32, ONE64 = F32(1), F64(1)

# (exp(r) - 1 - r) / r**2, the least maximal error for |r| <= log(2) / 2: 4e-9
E2, E3, E4, E5, E6 = (F32(q) for q in (0.49999994, 0.16666521, 0.04166839, 0.008368745, 0.0013814539))
# the same by Taylor's series
D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12, D13 = (F64(1 / math.factorial(k)) for k in range(2, 14))
# 2 artanh(f) = 2 f + f**3 * (A0 + A1 f**2 + ...)
A0, A1, A2, A3, A4, A5, A6, A7, A8, A9 = (F64(2 / k) for k in range(3, 23, 2))
B0, B1, B2, B3 = (F32(2 / k) for k in range(3, 11, 2))
ROOT32, ROOT64 = I32(F32(math.sqrt(0.5)).view(I32)), I64(F64(math.sqrt(0.5)).view(I64))


@compiled(fastmath={"contract"})
def _split32(x):
    """Number n as bits above those of MAGIC, and exp(r)."""
    shifted = x * PER_LOG2_32 + MAGIC32
    n = shifted - MAGIC32
    r = (x - n * HIGH32) - n * LOW32
    q = E2 + r * (E3 + r * (E4 + r * (E5 + r * E6)))
    return I32(F32(shifted).view(I32) - BITS32), ONE32 + (r + r * r * q)


@compiled(fastmath={"contract"})
def _exp32(x):
    x = LEAST32 if x < LEAST32 else x
    x = MOST32 if x > MOST32 else x
    n, p = _split32(x)
    half = I32(n >> I32(1))
    one = I32((half + I32(127)) << I32(23)).view(F32)
    other = I32((n - half + I32(127)) << I32(23)).view(F32)
    return p * one * other


@compiled(fastmath={"contract"})
def _exp_below32(x):
    n, p = _split32(LEAST32 if x < LEAST32 else x)
    return p * I32((n + I32(191)) << I32(23)).view(F32) * DOWN32


@compiled(fastmath={"contract"})
def _split64(x):
    shifted = x * PER_LOG2_64 + MAGIC64
    n = shifted - MAGIC64
    r = (x - n * HIGH64) - n * LOW64
    q = D8 + r * (D9 + r * (D10 + r * (D11 + r * (D12 + r * D13))))
    q = D2 + r * (D3 + r * (D4 + r * (D5 + r * (D6 + r * (D7 + r * q)))))
    return I64(F64(shifted).view(I64) - BITS64), ONE64 + (r + r * r * q)


@compiled(fastmath={"contract"})
def _exp64(x):
    x = LEAST64 if x < LEAST64 else x
    x = MOST64 if x > MOST64 else x
    n, p = _split64(x)
    half = n >> I64(1)
    one = I64((half + I64(1023)) << I64(52)).view(F64)
    other = I64((n - half + I64(1023)) << I64(52)).view(F64)
    return p * one * other


@compiled(fastmath={"contract"})
def _exp_below64(x):
    n, p = _split64(LEAST64 if x < LEAST64 else x)
    return p * I64((n + I64(1087)) << I64(52)).view(F64) * DOWN64


@compiled(fastmath={"contract"})
def _log32(x):
    away = I32(F32(x).view(I32) - ROOT32)
    e = I32(away >> I32(23))
    f = I32((away & I32(0x7FFFFF)) + ROOT32).view(F32) - ONE32
    f = f / (f + F32(2))
    s = f * f
    tail = f * s * (B0 + s * (B1 + s * (B2 + s * B3)))
    y = F32(e) * HIGH32 + (F32(2) * f + (tail + F32(e) * LOW32))
    return y if x > F32(0) and x < F32(np.inf) else x + F32(np.nan)


@compiled(fastmath={"contract"})
def _log64(x):
    away = I64(F64(x).view(I64) - ROOT64)
    e = I64(away >> I64(52))
    f = I64((away & I64(0xFFFFFFFFFFFFF)) + ROOT64).view(F64) - ONE64
    f = f / (f + F64(2))
    s = f * f
    tail = A5 + s * (A6 + s * (A7 + s * (A8 + s * A9)))
    tail = f * s * (A0 + s * (A1 + s * (A2 + s * (A3 + s * (A4 + s * tail)))))
    y = F64(e) * HIGH64 + (F64(2) * f + (tail + F64(e) * LOW64))
    return y if x > F64(0) and x < F64(np.inf) else x + F64(np.nan)


def exp(x):
    """The exponential of one number, float32 or float64, for loops that are compiled."""
    return np.exp(x)


def exp_below(x):
    """The same for x up to 43: where the largest of a row has been subtracted. Three instructions fewer."""
    return np.exp(x)


def log(x):
    """The natural logarithm of one normal number above 0; NaN of anything else."""
    return np.log(x)


def order(x):
    """Float x as an integer of the same size and order; :func:`from_order` is the way back.

    The largest of integers is found in vectors without any liberty, which that of floats is not, as NaN has no order.
    A NaN comes out above inf or below -inf, by its sign.
    """
    bits = x.view(np.dtype(f"i{x.itemsize}"))
    return bits ^ (bits >> 8 * x.itemsize - 1 & np.iinfo(bits.dtype).max)


def from_order(i):
    """The float whose :func:`order` is i."""
    bits = i ^ (i >> 8 * i.itemsize - 1 & np.iinfo(i.dtype).max)
    return bits.view(np.dtype(f"f{i.itemsize}"))


@compiled
def _order32(x):
    bits = F32(x).view(I32)
    return I32(bits ^ I32(I32(bits >> I32(31)) & I32(0x7FFFFFFF)))


@compiled
def _order64(x):
    bits = F64(x).view(I64)
    return I64(bits ^ I64((bits >> I64(63)) & I64(0x7FFFFFFFFFFFFFFF)))


@compiled
def _from_order32(i):
    return I32(i ^ I32(I32(i >> I32(31)) & I32(0x7FFFFFFF))).view(F32)


@compiled
def _from_order64(i):
    return I64(i ^ I64((i >> I64(63)) & I64(0x7FFFFFFFFFFFFFFF))).view(F64)


def _by_type(function, single, double):
    """Inside compiled loops, ``function`` stands for one of two, by the size of its argument."""

    @overload(function, inline="never")
    def chosen(x):
        if x in (types.float32, types.int32):
            return lambda x: single(x)
        if x in (types.float64, types.int64):
            return lambda x: double(x)
        return None


_by_type(exp, _exp32, _exp64)
_by_type(exp_below, _exp_below32, _exp_below64)
_by_type(log, _log32, _log64)
_by_type(order, _order32, _order64)
_by_type(from_order, _from_order32, _from_order64)
