"""Bounds for the distance between an engine and the specification; they are derived, not tuned.

**Sums of products.** Let u be the unit roundoff of the dtype (2⁻²⁴, 2⁻⁵³) and
γ(n, u) = n·u / (1 − n·u). A sum of n products, evaluated in any order, with or without fused
multiply-adds, is off by at most γ(n, u)·S, where S = Σ|x||w| is the same sum over absolute values
(N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd edition, section 3.1). The
specification computes S when it runs on absolute values. A bias is one more term. The specification
adds in float64 and rounds its result once, so it is off by at most γ(n, 2⁻⁵³)·S + u·|y| itself:

    |engine − specification| ≤ (γ(n, u) + γ(n, 2⁻⁵³))·S + u·|y|

For float64 both γ are equal, because the reference is no better than the engine; the bound covers
both. ReLU never moves two numbers further apart. S is computed with the same kind of error, which
one more γ covers.

**Long sums** are taken in stretches whose sums are added in float64
(:mod:`fastcnn.core.long_sums`). In float32 a term is rounded at most r(n) =
:func:`~fastcnn.core.long_sums.roundings` times, for any number of terms. The totals add
γ(n, 2⁻⁵³) once more:

    |engine − specification| ≤ (γ(r(n), u) + 2·γ(n, 2⁻⁵³))·S + u·|y|

**Winograd's filtering** has a bound of its own: :mod:`fastcnn.proof.winograd_bound`.

**Selections.** Maximum, minimum and ReLU return one of their inputs: the bound is 0.

**Means.** n numbers are added and divided. The sum takes n − 1 roundings, and a reciprocal and its
product two more: γ(r(n + 1), u). Gradients of poolings are sums over the windows that hold a pixel.

**Resized images.** A number is a sum over n pixels, each times the weights of its row and of its
column. The two weights are rounded, and the sums over R rows and C columns, which follow on each
other, multiply and add: a pixel goes through at most R + C + 4 roundings, and so through at most
n + 5. If R + C is more than a stretch, engines compute in float64. γ(r(n + 5), u) covers both.
"nearest" selects.

**Softmax.** Let d = x − max(x). The difference is rounded, so d is off by |d|·u, and exp(d) by a
factor of 1 + |d|·u. exp errs by at most E = 8u (4 units in the last place). The sum of n numbers
adds (n − 1)·u, and averages the errors of its terms by their weights p. The quotient adds u:

    |Δp| ≤ p·ρ,    ρ = (|d| + Σ p|d| + 2·8 + n)·u   to first order, ρ / (1 − ρ) to all orders

The specification has the same errors with 2⁻⁵³ in place of u, and one rounding. The bounds of
related functions follow by the product and sum rules, as their docstrings say.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, pi, prod, sqrt

import numpy as np
from numpy.typing import DTypeLike

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.core.long_sums import STRETCH, roundings
from fastcnn.core.resizing import ResizeGeometry
from fastcnn.engine.policy import squares
from fastcnn.proof.problems import Problem
from fastcnn.proof.winograd_bound import gradient_magnitude, magnitude
from fastcnn.proof.winograd_bound import roundings as of_winograd

SIGNAL = 1e-2
"""A bound must be smaller than this share of the largest value of the reference."""

_V = 2.0**-53  # unit roundoff of float64, in which the specification computes
_EXP = 8.0  # error of exp and log in units of u: 4 units in the last place


def unit_roundoff(dtype: DTypeLike) -> float:
    """Largest relative error of rounding to the dtype.

    >>> unit_roundoff("float32") == 2.0**-24
    True
    """
    return float(np.finfo(dtype).eps) / 2


def gamma(n: float, u: float) -> float:
    """γ(n, u) = n·u / (1 − n·u): relative error of n roundings in a row.

    >>> gamma(1000, 2.0**-24) < 6e-5
    True
    """
    return n * u / (1 - n * u)


def sum_lengths(problem: Problem) -> tuple[int, ...]:
    """The largest number of terms in the sums of each output's elements; one number per output."""
    g = problem.geometry
    if isinstance(g, ConvGeometry):
        forward = g.kh * g.kw * g.group_ic + ("b" in problem.arrays)
        to_input, over_pixels = g.kh * g.kw * g.group_oc, g.n * g.oh * g.ow
        return {
            "conv2d": (forward,),
            "conv2d_input_gradient": (to_input,),
            "conv2d_filter_gradient": (over_pixels,),
            "conv2d_bias_gradient": (over_pixels,),
            "conv2d_backward": (to_input, over_pixels, over_pixels),
            "conv2d_transpose": (to_input + ("b" in problem.arrays),),
            "conv2d_transpose_backward": (forward, over_pixels, g.n * g.h * g.w),
        }[problem.function]
    if isinstance(g, ResizeGeometry):
        sides = g.rows, g.columns
        if problem.op.endswith("_backward"):
            sides = g.outputs_of_rows, g.outputs_of_columns
        return (prod(int(side.counts.max()) for side in sides),)
    if isinstance(g, PoolGeometry):
        if problem.op.endswith("_backward"):  # the number of windows that hold one pixel
            return (-(-g.kh // g.stride_h) * -(-g.kw // g.stride_w),)
        return (g.kh * g.kw,)
    if problem.op == "dense":
        return (problem.arrays["w"][0] + ("b" in problem.arrays),)
    if problem.op == "dense_backward":
        n, o = problem.arrays["dy"]
        return o, n, n
    if problem.op in _MERGING_GRADIENTS:
        of = problem.parameters or {f"{name}_shape": problem.arrays[name] for name in ("a", "b")}
        terms = prod(problem.arrays["dy"])
        return tuple(max(1, terms // max(1, prod(of[f"{name}_shape"]))) for name in ("a", "b"))
    if problem.op == "prelu_backward":
        return 1, prod(problem.arrays["x"][:-1])
    return (1,)


_MERGING_GRADIENTS = (
    "add_backward",
    "subtract_backward",
    "multiply_backward",
    "maximum_backward",
)


def bounds(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> tuple[Array, ...]:
    """The bound of each element of each output, in float64; the module's docstring derives it."""
    derived = _DERIVED[problem.op](problem, arrays, reference)
    return tuple(np.asarray(bound, np.float64) for bound in derived)


def linear_bound(n: int, magnitude: Array, y: Array, u: float) -> Array:
    """The bound of a sum of n products with Σ|x||w| = ``magnitude`` and reference ``y``."""
    exact = magnitude * (1 + gamma(n, _V))
    bound: Array = _sum_error(n, u) * exact + u * np.abs(y.astype(np.float64))
    return bound


def _sum_error(n: int, u: float) -> float:
    """The error of a sum of n products, of engine and specification together, as a share of S."""
    if u > _V and n > STRETCH:
        return gamma(roundings(n), u) + 2 * gamma(n, _V)
    return gamma(n, u) + gamma(n, _V)


def _absolute(arrays: dict[str, Array], *names: str) -> dict[str, Array]:
    """The arrays in float64, with absolute values of the arrays in ``names`` (default: all)."""
    return {
        name: np.abs(array.astype(np.float64)) if not names or name in names else array
        for name, array in arrays.items()
    }


def _sums(problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]) -> list[Array]:
    """Convolution, dense and their gradients, by the specification on absolute values."""
    u = unit_roundoff(reference[0].dtype)
    if all((array >= 0).all() for array in arrays.values()):  # the sums are those of magnitudes
        magnitudes = tuple(y.astype(np.float64) * (1 + 2 * u) for y in reference)
    else:
        parameters = {k: v for k, v in problem.parameters.items() if k != "activation"}
        function = getattr(ops, problem.function)
        magnitudes = function(**_absolute(arrays), **parameters, engine="naive")
        if not isinstance(magnitudes, tuple):
            magnitudes = (magnitudes,)
    return [
        linear_bound(n, magnitude, y, u)
        for n, magnitude, y in zip(sum_lengths(problem), magnitudes, reference, strict=True)
    ]


def _winograd(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Convolution and its gradients by Winograd's filtering."""
    (y,), (terms,), g = reference, sum_lengths(problem), problem.geometry
    assert isinstance(g, ConvGeometry)
    if problem.function == "conv2d_filter_gradient":
        size = gradient_magnitude(arrays["dy"], arrays["x"], g)
        cut = squares(g)
        steps = of_winograd(roundings(g.n * cut.number), g.kh, cut.side)
    else:
        x, w = arrays["dy" if "dy" in arrays else "x"], arrays["w"]
        if problem.function != "conv2d":
            w, g = w[::-1, ::-1].swapaxes(2, 3), g.turned
        size = magnitude(x, w, g) + np.abs(arrays.get("b", np.zeros(1)).astype(np.float64))
        steps = of_winograd(g.ic, squares(g).side, g.kh)
    u = unit_roundoff(y.dtype)
    bound = (gamma(steps, u) + 2 * gamma(terms, _V)) * size * (1 + gamma(terms + steps, _V))
    return [bound + u * np.abs(y.astype(np.float64))]


def _selected(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Functions that return numbers of their inputs, unchanged."""
    return [np.zeros(y.shape) for y in reference]


def _routed(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Gradient of max and min: the sum of dy over the windows whose extreme is the pixel."""
    (windows,) = sum_lengths(problem)
    if windows == 1:  # each gradient is moved, and none are added
        return [np.zeros(reference[0].shape)]
    magnitude = getattr(ops, problem.function)(
        **_absolute(arrays, "dy"), **problem.parameters, engine="naive"
    )
    return [linear_bound(windows, magnitude, reference[0], unit_roundoff(reference[0].dtype))]


def _means(problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]) -> list[Array]:
    """Average pooling and its gradient."""
    (n,) = sum_lengths(problem)
    magnitude = getattr(ops, problem.function)(
        **_absolute(arrays), **problem.parameters, engine="naive"
    )
    return [linear_bound(n + 1, magnitude, reference[0], unit_roundoff(reference[0].dtype))]


def _resized(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Resized images and their gradient, whose weights are above 0."""
    (y,), (terms,) = reference, sum_lengths(problem)
    if problem.op == "resize2d" and problem.parameters["method"] == "nearest":
        return [np.zeros(y.shape)]
    magnitude = getattr(ops, problem.function)(
        **_absolute(arrays), **problem.parameters, engine="naive"
    )
    return [linear_bound(terms + 5, magnitude, y, unit_roundoff(y.dtype))]


def _products(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """One number times a constant that is rounded to the dtype: 3u, and the reference's own
    rounding. A constant that is a quotient adds 2u."""
    (y,) = reference
    return [5 * unit_roundoff(y.dtype) * np.abs(y.astype(np.float64))]


def _merged(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """One sum, difference or product. The engine rounds once; the reference rounds to float64 and
    to the dtype."""
    (y,) = reference
    return [3 * unit_roundoff(y.dtype) * np.abs(y.astype(np.float64))]


def _merging_gradients(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Sums of gradients, or of their products with the other operand. A sum of one gradient is this
    gradient. The maximum is chosen from the operands as they are."""
    names = ("dy",) if problem.op == "maximum_backward" else ()
    magnitudes = getattr(ops, problem.op)(
        **_absolute(arrays, *names), **problem.parameters, engine="naive"
    )
    selects, u = problem.op != "multiply_backward", unit_roundoff(reference[0].dtype)
    return [
        np.zeros(y.shape) if n == 1 and selects else linear_bound(n, np.abs(magnitude), y, u)
        for n, magnitude, y in zip(sum_lengths(problem), magnitudes, reference, strict=True)
    ]


def _exponential(
    factor: float, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """``factor`` relative errors of u in the engine and of 2⁻⁵³ in the reference, and the
    reference's rounding. Below the smallest normal number errors are absolute."""
    (y,) = reference
    u, tiny = unit_roundoff(y.dtype), float(np.finfo(y.dtype).tiny)
    t = factor * (u + _V)
    size = np.abs(arrays["dy"].astype(np.float64)) if "dy" in arrays else 0
    return [np.abs(y.astype(np.float64)) * (t / (1 - t) + u) + 4 * tiny * (1 + size)]


def _tanh(problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]) -> list[Array]:
    """A function that errs by 4 units in the last place, like the exponential."""
    return _exponential(_EXP, arrays, reference)


def _sigmoid(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """e / (1 + e) or 1 / (1 + e) with e = exp(−|x|) ≤ 1: e errs by E in numerator and denominator,
    and the sum and the quotient round."""
    return _exponential(2 * _EXP + 2, arrays, reference)


def _bell(problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]) -> list[Array]:
    """dy·e / (1 + e)², e = exp(−|x|) or exp(−2|x|): e errs by E. The sum 1 + e errs by at most E/2
    of itself, because e ≤ 1, and its square by at most E. The sum (twice), the square, the quotient
    and the product round."""
    return _exponential(2 * _EXP + 5, arrays, reference)


def _wide_arrays(arrays: dict[str, Array]) -> tuple[Array, Array]:
    """x, and |dy| or 1, in float64."""
    dy = arrays.get("dy", np.ones(arrays["x"].shape))
    return arrays["x"].astype(np.float64), np.abs(dy.astype(np.float64))


def _within(size: Array, scale: Array | int, y: Array) -> list[Array]:
    """``size`` roundings of the engine and of the reference, and the reference's last one.

    ``size`` is the sum of the sizes of all terms, each times its number of roundings. ``scale``
    multiplies the errors of numbers below the smallest normal one, which are absolute.
    """
    u, tiny = unit_roundoff(y.dtype), float(np.finfo(y.dtype).tiny)
    return [1.01 * size * (u + _V) + u * np.abs(y.astype(np.float64)) + 8 * tiny * scale]


def _elu(problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]) -> list[Array]:
    """alpha·(exp(x) − 1), or dy·alpha·exp(x): the function errs by E, alpha and the products
    round."""
    return _exponential(_EXP + 3, arrays, reference)


def _softplus(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """max(x, 0) + log(1 + e), e = exp(−|x|): e errs by E, which changes the logarithm by at most E
    of its value. The logarithm errs by E, and the sum rounds."""
    return _exponential(2 * _EXP + 1, arrays, reference)


def _softplus_backward(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """dy times a sigmoid, which errs by 2·E + 2; the product rounds."""
    return _exponential(2 * _EXP + 3, arrays, reference)


def _hard_sigmoid(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """slope·x + offset: both constants, the product and the sum round. A limit never moves two
    numbers further apart."""
    slope, offset = (abs(problem.parameters[name]) for name in ("slope", "offset"))
    x, _ = _wide_arrays(arrays)
    return _within(3 * (slope * np.abs(x) + offset), 1, reference[0])


def _hard_swish(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """x·(x/6 + 1/2) or dy·(x/3 + 1/2), with x at most 3 from 0 in the factor: the constant, the
    product and the sum of the factor round, and the product with the factor."""
    x, dy = _wide_arrays(arrays)
    near = np.minimum(np.abs(x), 3)
    if "dy" in arrays:
        return _within(4 * dy * (near / 3 + 0.5), 1, reference[0])
    return _within(4 * np.where(x < 0, near, np.abs(x)) * (near / 6 + 0.5), near, reference[0])


def _times_sigmoid(
    x: Array, w: Array, dw: Array | None, of_w: Array | int, dy: Array, y: Array
) -> list[Array]:
    """x·s with s = sigmoid(w), or its gradient dy·(s + x·w′·s·(1 − s)) if w′ is ``dw``.

    e = exp(−|w|) errs by E, and by the error ``of_w`` of w, which is absolute and in units of u.
    The relative error of e changes s by 1 − s of it, and s·(1 − s) by at most all of it. Sums,
    products and the quotient round up to 10 times.
    """
    e = np.exp(-np.abs(w))
    s, rest = (np.where(w < 0, *pair) / (1 + e) for pair in ((e, 1), (1, e)))
    of_e = _EXP + of_w
    if dw is None:
        return _within(np.abs(x) * s * (rest * of_e + 4), 1 + np.abs(x), y)
    slope = np.abs(x) * dw * s * rest
    size = dy * (s * (rest * of_e + 4) + slope * (of_e + 10))
    return _within(size, 1 + dy * (1 + np.abs(x) * dw), y)


def _swish(problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]) -> list[Array]:
    x, dy = _wide_arrays(arrays)
    dw = np.ones(x.shape) if "dy" in arrays else None
    return _times_sigmoid(x, x, dw, 0, dy, reference[0])


def _gelu(problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]) -> list[Array]:
    """x·Φ(x), or dy·(Φ(x) + x·φ(x)).

    The tail Q = Φ(−|x|) is exp(−x²/2), which errs by E, times a polynomial, which errs by 2·E. x²
    rounds, and changes the exponential by x²/2 of its value. The specification takes Q from
    erfc(|x|/√2); the quotient errs by 2u, which changes Q by at most 2·(x² + 1). Where x is above
    0, 1 − Q rounds. Products and the sum round.

    In the tanh form w = x·(c + d·x²), whose constants, products and sum round 5 times.
    """
    x, dy = _wide_arrays(arrays)
    y, square = reference[0], x * x
    if problem.parameters["approximate"]:
        c, d = sqrt(8 / pi), sqrt(8 / pi) * 0.044715
        w, dw = x * (c + d * square), c + 3 * d * square
        return _times_sigmoid(x, w, dw if "dy" in arrays else None, 5 * np.abs(w), dy, y)
    tail = np.array([erfc(abs(number) / sqrt(2)) / 2 for number in x.flat]).reshape(x.shape)
    phi = np.exp(-square / 2) / sqrt(2 * pi)
    share = tail * (3 * _EXP + 2 + 3 * square) + 2 * np.where(x < 0, tail, 1 - tail)
    if "dy" in arrays:
        slope = np.abs(x) * phi * (_EXP + 4 + square)
        return _within(dy * (share + slope), 1 + dy * (1 + np.abs(x)), y)
    return _within(np.abs(x) * share, 1 + np.abs(x), y)


def _prelu_backward(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """dx is dy or a product. dslope is a sum of R products in float64, in any order; engine and
    reference round the result."""
    (x, dy), (dx, dslope) = _wide_arrays(arrays), reference
    over = tuple(range(x.ndim - 1))
    size = np.where(x > 0, 0, dy * np.abs(x)).sum(axis=over)
    _, count = sum_lengths(problem)
    u = unit_roundoff(dslope.dtype)
    bound = 2 * gamma(count + 1, _V) * size + 2 * u * np.abs(dslope.astype(np.float64))
    return [*_products(problem, arrays, (dx,)), bound]


def _batch_statistics(x: Array, dtype: DTypeLike) -> tuple[Array, Array, list[Array]]:
    """Mean and variance over all but the last axis, and the bounds of both.

    All engines sum in float64. The mean of R rows errs by δ := γ(R + 1)·mean|x| and its rounding.
    An error δ of the mean changes the mean of the squared distances by δ². Each distance rounds,
    and squares and sums add γ(R + 4)."""
    rows = x.astype(np.float64).reshape(-1, x.shape[-1])
    count = max(len(rows), 1)
    mean = rows.sum(axis=0) / count
    variance = np.square(rows - mean).sum(axis=0) / count
    slip = gamma(count + 1, _V) * np.abs(rows).sum(axis=0) / count
    u = unit_roundoff(dtype)
    of_mean = 2 * slip + 2 * u * np.abs(mean)
    of_variance = 2 * (gamma(count + 4, _V) * variance + slip * slip) + 2 * u * variance
    return mean, variance, [of_mean, of_variance]


def _normalised(
    count: int, arrays: dict[str, Array], mean: Array, variance: Array, epsilon: float, u: float
) -> Array:
    """y = gamma·(x − mean)·r + beta, r = 1 / √(variance + epsilon).

    The error is that of sums of ``count`` rows in mean and variance, and about ten roundings in
    float64, relative to the sum of the absolute terms. An engine may keep the mean as two numbers
    of the dtype, which errs by u² of it, and round the distance, the scale, the product and the sum
    to the dtype. Engine and reference round y."""
    x, scale, shift = (arrays[name].astype(np.float64) for name in ("x", "gamma", "beta"))
    r = 1 / np.sqrt(variance + epsilon)
    size = np.abs(scale) * r * (np.abs(x) + np.abs(mean)) + np.abs(shift)
    product = scale * r * (x - mean)
    bound: Array = (2 * gamma(count + 16, _V) + u * u) * size
    bound += 8 * u * (np.abs(product) + np.abs(shift)) + 2 * u * np.abs(product + shift)
    return bound


def _batch_norm(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    x, dtype = arrays["x"], reference[0].dtype
    mean, variance, of_statistics = _batch_statistics(x, dtype)
    count, u = max(x.size // x.shape[-1], 1), unit_roundoff(dtype)
    epsilon = problem.parameters["epsilon"]
    return [_normalised(count, arrays, mean, variance, epsilon, u), *of_statistics]


def _batch_norm_inference(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    mean, variance = (arrays[name].astype(np.float64) for name in ("mean", "variance"))
    u = unit_roundoff(reference[0].dtype)
    return [_normalised(1, arrays, mean, variance, problem.parameters["epsilon"], u)]


def _batch_norm_backward(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Sums of R products and about ten roundings in float64, relative to the sums of absolute
    values. An engine may add up to four products in the dtype before it adds to a sum in float64,
    and compute dx in the dtype; each is at most 16 roundings. Engine and reference round the
    results."""
    x, scale, mean, variance, dy = (
        arrays[name].astype(np.float64) for name in ("x", "gamma", "mean", "variance", "dy")
    )
    r = 1 / np.sqrt(variance + problem.parameters["epsilon"])
    count = max(x.size // x.shape[-1], 1)
    over = tuple(range(x.ndim - 1))
    normal, size = np.abs(x - mean) * r, np.abs(dy)
    dbeta, dgamma = size.sum(axis=over), (size * normal).sum(axis=over)
    dx = np.abs(scale) * r * (size + (dbeta + normal * dgamma) / count)
    u = unit_roundoff(reference[0].dtype)
    slip = 2 * gamma(count + 16, _V) + gamma(16, u)
    return [
        slip * magnitude + 2 * u * np.abs(y.astype(np.float64))
        for magnitude, y in zip((dx, dgamma, dbeta), reference, strict=True)
    ]


class _Blocks:
    """Blocks of numbers, normalised each by its own mean and variance, and what they may err by.

    ``x`` has such axes that ``axes`` are those of a block. A mean is summed in float64 and kept as
    two numbers of the dtype, so the distance d of a number from it errs by 2u·|d|, and by the error
    of the mean: ``slip`` := γ(n + 2, 2⁻⁵³)·mean|x| + u²·|mean|, for engine and specification
    together. The sum of the n squares errs by a share of itself, σ(n) of :func:`_sum_error`, and
    each square by 4u, so the variance errs by

        Δ = variance·(σ(n) + 8u) + 2·slip·mean|d| + slip²,

    and 1 / √(variance + epsilon) by the share ``share`` / 2 and by 2u, where ``share`` :=
    Δ / (variance + epsilon).
    """

    def __init__(self, x: Array, axes: tuple[int, ...], epsilon: float, u: float) -> None:
        self.count, self.u, self.axes = max(1, prod(x.shape[axis] for axis in axes)), u, axes
        self.sum_error = _sum_error(self.count, u)
        centre = self.mean(x)
        self.distance = np.abs(x - centre)
        self.variance = self.mean(np.square(self.distance)) + epsilon
        self.slip = 2 * gamma(self.count + 2, _V) * self.mean(np.abs(x)) + u * u * np.abs(centre)
        variance = self.variance * (self.sum_error + 8 * (u + _V))
        variance += 2 * self.slip * self.mean(self.distance) + np.square(self.slip)
        self.share = variance / self.variance
        self.inverse = 1 / np.sqrt(self.variance)

    def mean(self, numbers: Array) -> Array:
        """The mean of each block."""
        mean: Array = numbers.sum(axis=self.axes, keepdims=True) / self.count
        return mean

    def result(self, scale: Array, shift: Array, y: Array) -> Array:
        """y = scale·d·inverse + shift. Three roundings, and the errors of d and of the inverse."""
        size = np.abs(scale) * self.inverse
        relative = self.share / 2 + 10 * (self.u + _V)
        error = size * (self.distance * relative + self.slip) * (1 + relative)
        rounding = 2 * self.u * (size * self.distance + np.abs(shift))
        bound: Array = error + rounding + self.u * np.abs(y)
        return bound

    def gradients(
        self, dy: Array, scale: Array, over: tuple[int, ...], reference: tuple[Array, ...]
    ) -> list[Array]:
        """dx = inverse·(g − mean g − d·mean(g·d) / variance) with g = scale·dy; the gradients of
        scale and shift are Σ dy·d·inverse and Σ dy over the axes ``over``.

        Each sum errs by σ of its length, each of its terms by the errors of d and of the inverse,
        and by some roundings. A sum over a part of a block may take distances from the mean of this
        part, which lies within the largest distance from the mean of the block.
        """
        u, (dx, dgamma, dbeta) = self.u, reference
        few, size = 16 * (u + _V), np.abs(scale) * dy
        reach = self.distance
        if dy.size:
            reach = reach + self.distance.max(axis=self.axes, keepdims=True)
        product = self.mean(size * reach) / self.variance
        factor = self.inverse * (size + self.mean(size) + self.distance * product)
        relative = self.sum_error + few + 2 * self.share
        slip = self.distance * self.mean(size) / self.variance + product
        of_x = factor * relative * (1 + relative) + self.inverse * self.slip * slip
        length = max(1, prod(dy.shape[axis] for axis in over))
        each = _sum_error(length, u) + few + self.share
        terms = dy * self.inverse * (reach * each * (1 + each) + self.slip)
        return [
            of_x + u * np.abs(dx),
            terms.sum(axis=over) + u * np.abs(dgamma),
            linear_bound(length, dy.sum(axis=over), dbeta, u),
        ]


def _row_norm(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Layer normalisation and its gradients: a block is a row (R, F)."""
    return _of_blocks(problem, arrays, reference, (-1, arrays["gamma"].size), (1,), (0,))


def _group_norm(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """Group normalisation and its gradients: a block is a group of an image (N, P, G, C / G)."""
    shape, groups = arrays["x"].shape, problem.parameters["groups"]
    blocks = shape[0], prod(shape[1:-1]), groups, shape[-1] // groups
    return _of_blocks(problem, arrays, reference, blocks, (1, 3), (0, 1))


def _of_blocks(
    problem: Problem,
    arrays: dict[str, Array],
    reference: tuple[Array, ...],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    over: tuple[int, ...],
) -> list[Array]:
    """Bounds of :class:`_Blocks` for x in this shape; gamma varies over all axes but ``over``."""
    u = unit_roundoff(reference[0].dtype)
    if not arrays["x"].size:
        return [np.zeros(y.shape) for y in reference]
    x = arrays["x"].astype(np.float64).reshape(shape)
    inner = tuple(side for axis, side in enumerate(x.shape) if axis not in over)
    scale = arrays["gamma"].astype(np.float64).reshape(inner)
    blocks = _Blocks(x, axes, problem.parameters["epsilon"], u)
    if "dy" not in arrays:
        shift = arrays["beta"].astype(np.float64).reshape(inner)
        (y,) = reference
        return [blocks.result(scale, shift, y.reshape(x.shape)).reshape(y.shape)]
    dy = np.abs(arrays["dy"].astype(np.float64)).reshape(x.shape)
    shapes = x.shape, inner, inner
    flat = tuple(y.reshape(side) for y, side in zip(reference, shapes, strict=True))
    bounds = blocks.gradients(dy, scale, over, flat)
    return [bound.reshape(y.shape) for bound, y in zip(bounds, reference, strict=True)]


_RESPONSE = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}


def _response_norm(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """y = x·base^−beta, base = bias + alpha/size·Σ x². All terms of a base are positive, so it errs
    by the share r := σ(n + 6), and its power by |beta|·r and by E, as an exponential does.

    dx = dy·base^−beta − 2·alpha/size·beta·x·Σ t, t = dy·x·base^(−beta−1), with one more σ(n)."""
    (y,) = reference
    u, tiny = unit_roundoff(y.dtype), float(np.finfo(y.dtype).tiny)
    of = _RESPONSE | dict(problem.parameters)
    size, scale, beta = of["size"], of["alpha"] / of["size"], of["beta"]
    x = np.abs(arrays["x"].astype(np.float64)).reshape(-1, y.shape[-1])
    before, n = (size - 1) // 2, min(size, y.shape[-1])
    base = of["bias"] + scale * _window_sums(np.square(x), before, size - 1 - before)
    of_base = _sum_error(n + 6, u)
    power, both = base**-beta, u + _V
    relative = abs(beta) * of_base + (_EXP + 4) * both
    if "dy" not in arrays:
        return [(x * power).reshape(y.shape) * (relative * (1 + relative) + u) + 4 * tiny]
    dy = np.abs(arrays["dy"].astype(np.float64)).reshape(x.shape)
    direct = dy * power
    terms = _window_sums(direct * x / base, size - 1 - before, before)
    indirect = 2 * scale * abs(beta) * x * terms
    more = relative + of_base + _sum_error(n, u) + 8 * both
    bound = direct * relative * (1 + relative) + indirect * more * (1 + more)
    return [(bound + 2 * u * (direct + indirect)).reshape(y.shape) + 4 * tiny * (1 + size)]


def _window_sums(rows: Array, before: int, after: int) -> Array:
    """The sum over so many channels before and after each channel of (R, C)."""
    channels = rows.shape[1]
    sums = np.concatenate([np.zeros((len(rows), 1)), np.cumsum(rows, axis=1)], axis=1)
    first = np.maximum(np.arange(channels) - before, 0)
    last = np.minimum(np.arange(channels) + after + 1, channels)
    windows: Array = sums[:, last] - sums[:, first]
    return windows


class Rows:
    """Softmax of the rows of ``x`` in float64, and the relative errors it may have."""

    def __init__(self, x: Array, dtype: np.dtype[np.generic] | None = None) -> None:
        self.u = unit_roundoff(dtype or x.dtype)
        self.least = float(np.finfo(dtype or x.dtype).tiny)  # below this, errors are absolute
        x = x.astype(np.float64)
        # Roundings of a sum of n terms: of float32 in stretches, of float64 in units of u.
        terms = x.shape[-1]
        self.n = terms if self.u == _V else roundings(terms) + terms * _V / self.u
        self.d = x - x.max(axis=-1, keepdims=True)
        e = np.exp(self.d)
        self.sum = e.sum(axis=-1, keepdims=True)
        self.p = e / self.sum
        spread = (self.p * -self.d).sum(axis=-1, keepdims=True)
        self.first_order = spread + _EXP + self.n  # error of the sum, in units of u
        self.both = self.u + _V  # the engine's roundings and the specification's
        t = (self.first_order - self.d + _EXP) * self.both
        self.rho = t / (1 - t)

    def log_softmax(self) -> tuple[Array, Array]:
        """y = d − log Σ exp(d) and its bound.

        d errs by |d|·u. The logarithm errs by the relative error of its argument and by 8u of its
        own value. The difference is rounded.
        """
        log = np.log(self.sum)
        y = self.d - log
        t = (self.first_order + _EXP * log - self.d - y) * self.both
        return y, t / (1 - t) + self.u * -y


def _softmax(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    rows = Rows(arrays["x"])
    return [rows.p * (rows.rho + rows.u) + rows.least]


def _softmax_backward(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """dx = p·(dy − c), c = Σ p·dy: with D = Σ p|dy|, c errs by D·(ρ + γ(n, u)). The difference and
    the product add a rounding each, and p errs by ρ once more."""
    rows, dy = Rows(arrays["x"]), np.abs(arrays["dy"].astype(np.float64))
    terms = rows.p * dy
    total = terms.sum(axis=-1, keepdims=True)
    slip = (terms * (rows.rho + rows.n * rows.both)).sum(axis=-1, keepdims=True)
    relative = rows.rho + 2 * rows.both + rows.u
    return [rows.p * (relative * (dy + total) + slip) * (1 + relative) + rows.least]


def _log_softmax(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    return [Rows(arrays["x"]).log_softmax()[1]]


def _log_softmax_backward(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """dx = dy − p·Σdy: the sum errs by γ(n, u)·Σ|dy|, p by ρ, product and difference round."""
    rows, dy = Rows(arrays["x"]), np.abs(arrays["dy"].astype(np.float64))
    product = rows.p * dy.sum(axis=-1, keepdims=True)
    relative = rows.rho + (rows.n + 1) * rows.both
    rounding = (rows.both + rows.u) * (dy + product)
    return [product * relative * (1 + relative) + rounding + rows.least]


def _cross_entropy(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """The loss is −log_softmax at the label. The public function adds the losses in float64, scales
    and rounds once. With rows of probabilities the loss is a sum of products over classes."""
    rows, labels = Rows(arrays["logits"]), arrays["labels"]
    y, bound = rows.log_softmax()
    if labels.ndim < y.ndim:
        at = labels[..., None].astype(np.int64)
        losses, each = (np.take_along_axis(one, at, -1)[..., 0] for one in (-y, bound))
    else:
        losses = -(labels * y).sum(axis=-1, dtype=np.float64)
        each = (labels * bound).sum(axis=-1, dtype=np.float64)
        each += gamma(rows.n + 1, rows.u) * (losses + each)
    reduction = problem.parameters["reduction"]
    if reduction == "none":
        return [each]
    scale = 1 / max(losses.size, 1) if reduction == "mean" else 1.0
    rounding = 2 * (rows.u + gamma(losses.size + 1, _V)) * losses.sum()
    return [np.asarray((each.sum() + rounding) * scale)]


def _cross_entropy_backward(
    problem: Problem, arrays: dict[str, Array], reference: tuple[Array, ...]
) -> list[Array]:
    """p − 1 at the label and p elsewhere, or p less a row of probabilities. p errs by ρ, and the
    difference and the scaling round."""
    rows, labels = Rows(arrays["logits"]), arrays["labels"]
    gradient = rows.p.copy()
    if labels.ndim < gradient.ndim:
        at = labels[..., None].astype(np.int64)
        np.put_along_axis(gradient, at, np.take_along_axis(gradient, at, -1) - 1, -1)
    else:
        gradient -= labels
    mean = problem.parameters["reduction"] == "mean"
    scale = 1 / max(gradient[..., 0].size, 1) if mean else 1.0
    rounding = (2 * rows.both + 3 * rows.u) * np.abs(gradient)
    return [(rows.p * rows.rho * (1 + rows.rho) + rounding + rows.least) * scale]


_Derivation = Callable[[Problem, dict[str, Array], tuple[Array, ...]], list[Array]]

_DERIVED: dict[str, _Derivation] = {
    "conv2d": _sums,
    "winograd": _winograd,
    "winograd_dx": _winograd,
    "winograd_dw": _winograd,
    "conv2d_backward": _sums,
    "conv2d_input_gradient": _sums,
    "conv2d_filter_gradient": _sums,
    "conv2d_bias_gradient": _sums,
    "dense": _sums,
    "dense_backward": _sums,
    "max_pool2d": _selected,
    "min_pool2d": _selected,
    "max_pool2d_backward": _routed,
    "min_pool2d_backward": _routed,
    "avg_pool2d": _means,
    "avg_pool2d_backward": _means,
    "relu": _selected,
    "relu_backward": _selected,
    "leaky_relu": _products,
    "leaky_relu_backward": _products,
    "dropout": _products,
    "tanh": _tanh,
    "tanh_backward": _bell,
    "sigmoid": _sigmoid,
    "sigmoid_backward": _bell,
    "zero_pad2d": _selected,
    "zero_pad2d_backward": _selected,
    "batch_norm": _batch_norm,
    "batch_norm_inference": _batch_norm_inference,
    "batch_norm_backward": _batch_norm_backward,
    "softmax": _softmax,
    "softmax_backward": _softmax_backward,
    "log_softmax": _log_softmax,
    "log_softmax_backward": _log_softmax_backward,
    "cross_entropy": _cross_entropy,
    "cross_entropy_backward": _cross_entropy_backward,
    "add": _merged,
    "subtract": _merged,
    "multiply": _merged,
    "maximum": _selected,
    "concatenate": _selected,
    "concatenate_backward": _selected,
    **dict.fromkeys(_MERGING_GRADIENTS, _merging_gradients),
    "clipped_relu": _selected,
    "clipped_relu_backward": _selected,
    "elu": _elu,
    "elu_backward": _elu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_sigmoid_backward": _products,
    "hard_swish": _hard_swish,
    "hard_swish_backward": _hard_swish,
    "swish": _swish,
    "swish_backward": _swish,
    "gelu": _gelu,
    "gelu_backward": _gelu,
    "softplus": _softplus,
    "softplus_backward": _softplus_backward,
    "prelu": _products,
    "prelu_backward": _prelu_backward,
    "conv2d_transpose": _sums,
    "winograd_transpose": _winograd,
    "conv2d_transpose_backward": _sums,
    "crop2d": _selected,
    "crop2d_backward": _selected,
    "permute": _selected,
    "permute_backward": _selected,
    "depth_to_space": _selected,
    "space_to_depth": _selected,
    "resize2d": _resized,
    "resize2d_backward": _resized,
    "layer_norm": _row_norm,
    "layer_norm_backward": _row_norm,
    "group_norm": _group_norm,
    "group_norm_backward": _group_norm,
    "local_response_norm": _response_norm,
    "local_response_norm_backward": _response_norm,
}
