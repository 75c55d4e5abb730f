"""The exponential, and the functions of activations that are made of it, for loops over vectors.

Each function takes and returns single numbers, float32 or float64. It has no calls and no branches,
so a loop that calls it is compiled to vectors (:mod:`fastcnn.engine.numba.runtime.floats`), and a
number's result does not depend on its position in the loop. No activation needs the exponential of
a number above 0, so nothing overflows.

**The exponential.** With k the integer next to x / ln 2, and r = x − k · ln 2, exp(x) is
2ᵏ · exp(r), where r lies between −0.35 and 0.35. There the Taylor series of exp(r) − 1 is short. To
keep the digits of r, ln 2 is the sum of 355/512, whose product with k is exact, and a small rest
(W. J. Cody, W. Waite, "Software Manual for the Elementary Functions", 1980).

Errors, in units in the last place: the exponential 1.1, the exponential less one 1.1, the
logarithm 2.7, the upper tail 6, and where a is large a²/2 more, because a² is rounded.
"""

from __future__ import annotations

from math import factorial

from fastcnn.core import normal_tail
from fastcnn.engine.numba.runtime.floats import (
    SHIFT_32,
    SHIFT_64,
    by_type,
    multiply_add,
    polynomial,
    power_of_two,
)
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.types import Float

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 355 / 512, -2.1219444005469058e-4
# exp(r) as a series, for float32 and for float64. The first term that is left out is less than a
# quarter of a unit in the last place.
_EXP_32 = tuple(1 / factorial(n) for n in range(8))
_EXP_64 = tuple(1 / factorial(n) for n in range(14))
# artanh(s) / s as a series in s², for s up to 1/3.
_ARTANH_32 = tuple(1 / n for n in range(1, 16, 2))
_ARTANH_64 = tuple(1 / n for n in range(1, 34, 2))
_LESS_ONE_32, _LESS_ONE_64 = _EXP_32[2:], _EXP_64[2:]  # of (exp(r) − 1 − r) / r²
_CENTRE, _TAIL_32, _TAIL_64 = normal_tail.CENTRE, normal_tail.FLOAT32, normal_tail.FLOAT64


@ordered_device
def at_least(x: Float, low: Float) -> Float:
    """The larger of x and ``low``; NaN stays NaN."""
    return low if x < low else x


@ordered_device
def at_most(x: Float, high: Float) -> Float:
    """The smaller of x and ``high``; NaN stays NaN."""
    return high if x > high else x


@ordered_device
def _halvings(x: Float) -> tuple[Float, Float]:
    """k, as :func:`power_of_two` takes it, and r, where x = k · ln 2 + r."""
    number = type(x)
    shift = by_type(x, SHIFT_32, SHIFT_64)
    shifted = multiply_add(x, number(_LOG2_E), shift)
    k = shifted - shift
    r = multiply_add(k, number(-_LN2_HIGH), x)
    return shifted, multiply_add(k, number(-_LN2_LOW), r)


@ordered_device
def exponential(x: Float) -> Float:
    """exp(x) for x ≤ 0, also where the result is subnormal; 1 at 0, 0 at −∞, NaN at NaN."""
    shifted, r = _halvings(at_least(x, by_type(x, -105.0, -746.0)))  # the least result is 0
    # Two factors, because 2ᵏ may be too small for a normal number.
    y: Float = polynomial(r, _EXP_32, _EXP_64) * power_of_two(shifted, 64) * type(x)(2.0**-64)
    return y


@ordered_device
def exponential_less_one(x: Float) -> Float:
    """exp(x) − 1 for x ≤ 0, with all digits near 0; −1 at −∞, NaN at NaN."""
    number = type(x)
    shifted, r = _halvings(at_least(x, number(-80)))  # the least result is −1
    power = power_of_two(shifted, 0)
    less_one = multiply_add(r * r, polynomial(r, _LESS_ONE_32, _LESS_ONE_64), r)
    y: Float = multiply_add(power, less_one, power - number(1))
    return y


@ordered_device
def log_of_one_plus(x: Float) -> Float:
    """log(1 + x) for x from 0 to 1, with all digits near 0; it is 2 · artanh(x / (2 + x))."""
    number = type(x)
    s = x / (number(2) + x)
    y: Float = number(2) * s * polynomial(s * s, _ARTANH_32, _ARTANH_64)
    return y


@ordered_device
def upper_tail(a: Float) -> tuple[Float, Float]:
    """The probability that a standard normal number is above a ≥ 0, and exp(−a²/2).

    :mod:`fastcnn.core.normal_tail` describes the polynomial.
    """
    number = type(a)
    inverse = number(1) / (a + number(_CENTRE))
    t = multiply_add(number(-2 * _CENTRE), inverse, number(1))
    e = exponential(number(-0.5) * a * a)
    return e * (polynomial(t, _TAIL_32, _TAIL_64) * inverse), e
