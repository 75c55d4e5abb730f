"""The activations that take each number by itself: a formula for each, forward and backward.

:mod:`fastcnn.engine.numba.elementwise.activations` makes two kernels of each :class:`Formula`. A
formula's functions take and return single numbers of one dtype, and are compiled into the kernels.
``p`` and ``q`` are the activation's parameters. To be compiled to vectors, a function computes all
sides of a choice before it chooses, and it has no other branches.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import NamedTuple

from fastcnn.engine.numba.elementwise.exponentials import (
    at_least,
    at_most,
    exponential,
    exponential_less_one,
    log_of_one_plus,
    upper_tail,
)
from fastcnn.engine.numba.runtime.floats import multiply_add
from fastcnn.engine.numba.runtime.inlining import ordered_device
from fastcnn.engine.numba.runtime.types import DeviceFunction, Float

_FAR, _FAR_GELU = 2048.0, 64.0
"""At −_FAR the sigmoid of x is 0, and at −_FAR_GELU Φ(x) is. A formula that multiplies by x takes
this number for one that is farther away, because ∞ · 0 would be NaN."""
_PHI = 1 / sqrt(2 * pi)
# Twice the coefficients of x and x³ in the tanh form of GELU.
_LINEAR, _CUBIC = 2 * sqrt(2 / pi), 2 * sqrt(2 / pi) * 0.044715


class Formula(NamedTuple):
    """An activation.

    Attributes:
        value: the function ``value(x, p, q)``.
        gradient: the function ``gradient(dy, x, p, q)``, dy times the slope at x.
        work: operations that a number counts for, when work is split over threads.
    """

    value: DeviceFunction
    gradient: DeviceFunction
    work: int


@ordered_device
def _leaky_relu(x: Float, p: Float, q: Float) -> Float:
    """x where it is above 0, else p · x."""
    return x if x > 0 else p * x


@ordered_device
def _leaky_relu_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    return dy if x > 0 else p * dy


@ordered_device
def _clipped_relu(x: Float, p: Float, q: Float) -> Float:
    """min(max(x, 0), p)."""
    return at_most(at_least(x, type(x)(0)), p)


@ordered_device
def _clipped_relu_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    zero = type(x)(0)
    dx = dy if x < p else zero
    return dx if x > zero else zero


@ordered_device
def _hard_sigmoid(x: Float, p: Float, q: Float) -> Float:
    """p · x + q between 0 and 1."""
    number = type(x)
    return at_most(at_least(p * x + q, number(0)), number(1))


@ordered_device
def _hard_sigmoid_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    number = type(x)
    y, dx = p * x + q, p * dy
    dx = dx if y < number(1) else number(0)
    return dx if y > number(0) else number(0)


@ordered_device
def _hard_swish(x: Float, p: Float, q: Float) -> Float:
    """x · (x / 6 + ½), the factor between 0 and 1."""
    number = type(x)
    x = at_least(x, number(-3))
    return x * at_most(x * number(1 / 6) + number(0.5), number(1))


@ordered_device
def _hard_swish_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    number = type(x)
    dx = dy * (x * number(1 / 3) + number(0.5))
    dx = dy if x >= number(3) else dx
    return number(0) if x <= number(-3) else dx


@ordered_device
def _tanh(x: Float, p: Float, q: Float) -> Float:
    """(1 − e) / (1 + e) with e = exp(−2|x|), and the sign of x; 0 has none."""
    number = type(x)
    less_one = exponential_less_one(number(-2) * abs(x))
    y = less_one / (number(2) + less_one)
    return -y if x > 0 else y


@ordered_device
def _tanh_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    """dy · 4e / (1 + e)² with e = exp(−2|x|)."""
    number = type(x)
    e = exponential(number(-2) * abs(x))
    below = number(1) + e
    return dy * (number(4) * e / (below * below))


@ordered_device
def _sigmoid(x: Float, p: Float, q: Float) -> Float:
    """1 / (1 + e) with e = exp(−|x|), or e / (1 + e) where x is negative."""
    number = type(x)
    e = exponential(-abs(x))
    above = e if x < 0 else number(1)
    return above / (number(1) + e)


@ordered_device
def _sigmoid_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    """dy · e / (1 + e)²."""
    number = type(x)
    e = exponential(-abs(x))
    below = number(1) + e
    return dy * (e / (below * below))


@ordered_device
def _softplus(x: Float, p: Float, q: Float) -> Float:
    """max(x, 0) + log(1 + exp(−|x|))."""
    return at_least(x, type(x)(0)) + log_of_one_plus(exponential(-abs(x)))


@ordered_device
def _softplus_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    return dy * _sigmoid(x, p, q)


@ordered_device
def _elu(x: Float, p: Float, q: Float) -> Float:
    """x where it is above 0, else p · (exp(x) − 1)."""
    below = p * exponential_less_one(at_most(x, type(x)(0)))
    return x if x > 0 else below


@ordered_device
def _elu_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    below = dy * (p * exponential(at_most(x, type(x)(0))))
    return dy if x > 0 else below


@ordered_device
def _times_sigmoid(x: Float, w: Float) -> Float:
    """x · sigmoid(w), where w has the sign of x."""
    number = type(x)
    e = exponential(-abs(w))
    above = x * e if x < 0 else x
    return above / (number(1) + e)


@ordered_device
def _times_sigmoid_slope(x: Float, w: Float, dw: Float) -> Float:
    """The slope of x · sigmoid(w) in x: s + x · dw · s · (1 − s) with s = sigmoid(w)."""
    number = type(x)
    e = exponential(-abs(w))
    below = number(1) + e
    above = e if x < 0 else number(1)
    return (above * below + x * dw * e) / (below * below)


@ordered_device
def _swish(x: Float, p: Float, q: Float) -> Float:
    """x · sigmoid(x)."""
    x = at_least(x, type(x)(-_FAR))
    return _times_sigmoid(x, x)


@ordered_device
def _swish_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    number = type(x)
    x = at_most(at_least(x, number(-_FAR)), number(_FAR))
    return dy * _times_sigmoid_slope(x, x, number(1))


@ordered_device
def _gelu(x: Float, p: Float, q: Float) -> Float:
    """x · Φ(x)."""
    number = type(x)
    x = at_least(x, number(-_FAR_GELU))
    tail, _ = upper_tail(abs(x))
    return x * (tail if x < 0 else number(1) - tail)


@ordered_device
def _gelu_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    """dy · (Φ(x) + x · φ(x))."""
    number = type(x)
    x = at_most(at_least(x, number(-_FAR_GELU)), number(_FAR_GELU))
    tail, e = upper_tail(abs(x))
    probability = tail if x < 0 else number(1) - tail
    dx: Float = dy * multiply_add(x, number(_PHI) * e, probability)
    return dx


@ordered_device
def _gelu_tanh(x: Float, p: Float, q: Float) -> Float:
    """x · ½ · (1 + tanh(w / 2)), which is x · sigmoid(w), w = √(8/π) · (x + 0.044715 · x³)."""
    number = type(x)
    x = at_least(x, number(-_FAR_GELU))
    near = at_most(x, number(_FAR_GELU))
    return _times_sigmoid(x, near * multiply_add(number(_CUBIC), near * near, number(_LINEAR)))


@ordered_device
def _gelu_tanh_gradient(dy: Float, x: Float, p: Float, q: Float) -> Float:
    number = type(x)
    x = at_most(at_least(x, number(-_FAR_GELU)), number(_FAR_GELU))
    square = x * x
    w = x * multiply_add(number(_CUBIC), square, number(_LINEAR))
    dw = multiply_add(number(3 * _CUBIC), square, number(_LINEAR))
    return dy * _times_sigmoid_slope(x, w, dw)


FORMULAS = {
    "leaky_relu": Formula(_leaky_relu, _leaky_relu_gradient, 1),
    "clipped_relu": Formula(_clipped_relu, _clipped_relu_gradient, 1),
    "hard_sigmoid": Formula(_hard_sigmoid, _hard_sigmoid_gradient, 1),
    "hard_swish": Formula(_hard_swish, _hard_swish_gradient, 1),
    "tanh": Formula(_tanh, _tanh_gradient, 3),
    "sigmoid": Formula(_sigmoid, _sigmoid_gradient, 3),
    "softplus": Formula(_softplus, _softplus_gradient, 4),
    "elu": Formula(_elu, _elu_gradient, 3),
    "swish": Formula(_swish, _swish_gradient, 3),
    "gelu": Formula(_gelu, _gelu_gradient, 5),
    "gelu_tanh": Formula(_gelu_tanh, _gelu_tanh_gradient, 3),
}
"""The activations by name."""
