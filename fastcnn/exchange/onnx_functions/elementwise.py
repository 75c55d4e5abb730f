"""ONNX's operators that compute number by number."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import pi, sqrt

import numpy as np

from fastcnn.core import normal_tail
from fastcnn.exchange.onnx_functions.nodes import Array, OnnxNode, function_of

DTYPES: dict[int, np.dtype[np.generic]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
}
"""The dtypes of ONNX's numbers for element types that NumPy has."""


def wide(x: Array) -> Array:
    """``x`` in a dtype that sums and exponentials can be computed in: at least float32."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _formula(function: Callable[[Array], Array]) -> Callable[[OnnxNode, Array], Array]:
    """An operator that is a formula of one number, computed in at least float32."""

    def compute(node: OnnxNode, x: Array) -> Array:
        return np.asarray(function(wide(x))).astype(x.dtype, copy=False)

    return compute


def _logistic(x: Array) -> Array:
    # tanh cannot overflow.
    half = x.dtype.type(0.5)
    return np.asarray(half * (1 + np.tanh(half * x)))


def erf(x: Array) -> Array:
    """The error function, computed in float64."""
    a = np.abs(x.astype(np.float64)) * sqrt(2)
    inverse = 1 / (a + normal_tail.CENTRE)
    t = 1 - 2 * normal_tail.CENTRE * inverse
    polynomial = np.full_like(a, normal_tail.FLOAT64[-1])
    for coefficient in normal_tail.FLOAT64[-2::-1]:
        polynomial = polynomial * t + coefficient
    tail = polynomial * inverse * np.exp(-0.5 * a * a)
    return np.asarray(np.sign(x) * (1 - 2 * tail))


_FORMULAS: dict[str, Callable[[Array], Array]] = {
    "Erf": erf,
    "Exp": np.exp,
    "Log": np.log,
    "Relu": lambda x: np.maximum(x, 0),
    "Sigmoid": _logistic,
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Abs": np.abs,
    "Neg": np.negative,
    "Reciprocal": lambda x: 1 / x,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Sign": np.sign,
    "Softplus": lambda x: np.logaddexp(0, x),
    "Not": np.logical_not,
    "Sin": np.sin,
    "Cos": np.cos,
}
for _name, _of_one in _FORMULAS.items():
    function_of(_name)(_formula(_of_one))


@function_of("Swish")
def swish(node: OnnxNode, x: Array) -> Array:
    """``x`` times the sigmoid of ``alpha * x``."""
    y = wide(x)
    return np.asarray(y * _logistic(y * y.dtype.type(node.number("alpha", 1.0)))).astype(x.dtype)


@function_of("Mish")
def mish(node: OnnxNode, x: Array) -> Array:
    """``x`` times the tanh of its softplus."""
    y = wide(x)
    return np.asarray(y * np.tanh(np.logaddexp(0, y))).astype(x.dtype)


@function_of("LeakyRelu")
def leaky_relu(node: OnnxNode, x: Array) -> Array:
    """``x``, or ``alpha`` times x where it is below 0."""
    return np.where(x < 0, x * x.dtype.type(node.number("alpha", 0.01)), x)


@function_of("PRelu")
def prelu(node: OnnxNode, x: Array, slope: Array) -> Array:
    """``x``, or ``slope`` times x where it is below 0."""
    return np.where(x < 0, x * slope, x).astype(x.dtype)


@function_of("Elu")
def elu(node: OnnxNode, x: Array) -> Array:
    """``x``, or ``alpha * (exp(x) - 1)`` where it is below 0."""
    y = wide(x)
    alpha = y.dtype.type(node.number("alpha", 1.0))
    return np.where(y < 0, alpha * np.expm1(np.minimum(y, 0)), y).astype(x.dtype)


@function_of("HardSigmoid")
def hard_sigmoid(node: OnnxNode, x: Array) -> Array:
    """``alpha * x + beta``, from 0 to 1."""
    alpha, beta = node.number("alpha", 0.2), node.number("beta", 0.5)
    result: Array = np.clip(x * x.dtype.type(alpha) + x.dtype.type(beta), 0, 1)
    return result.astype(x.dtype)


@function_of("Gelu")
def gelu(node: OnnxNode, x: Array) -> Array:
    """``x * Φ(x)``, or its form with tanh."""
    y = wide(x)
    if node.text("approximate", "none", ("none", "tanh")) == "tanh":
        inner = sqrt(2 / pi) * (y + 0.044715 * y**3)
        return np.asarray(0.5 * y * (1 + np.tanh(inner))).astype(x.dtype)
    return np.asarray(0.5 * y * (1 + erf(y / sqrt(2)))).astype(x.dtype)


@function_of("Clip")
def clip(node: OnnxNode, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """``x``, at least ``low`` and then at most ``high``: attributes before opset 11."""
    if node.opset < 11:
        if "min" in node.attributes:
            low = np.asarray(node.number("min", 0.0), x.dtype)
        if "max" in node.attributes:
            high = np.asarray(node.number("max", 0.0), x.dtype)
    for name, bound in (("min", low), ("max", high)):
        if bound is not None and bound.size != 1:
            raise node.error(f"{name} must be a single number, got shape {bound.shape}")
    y = x if low is None else np.maximum(x, low.reshape(()))
    return (y if high is None else np.minimum(y, high.reshape(()))).astype(x.dtype)


def _alike(node: OnnxNode, *arrays: Array) -> None:
    if len({array.dtype for array in arrays}) > 1:
        raise node.error(
            "inputs must have one type, got " + ", ".join(str(array.dtype) for array in arrays)
        )


@function_of("Add", "Sub", "Mul", "Div")
def arithmetic(node: OnnxNode, a: Array, b: Array) -> Array:
    """The four operations, with NumPy's broadcasting; quotients of integers are truncated."""
    _alike(node, a, b)
    if node.operator == "Add":
        return np.asarray(a + b)
    if node.operator == "Sub":
        return np.asarray(a - b)
    if node.operator == "Mul":
        return np.asarray(a * b)
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    with np.errstate(divide="ignore"):  # a quotient by 0, which ONNX leaves open, is 0
        quotient, rest = np.divmod(a, b)
    return np.asarray(quotient + ((rest != 0) & ((a < 0) != (b < 0)))).astype(a.dtype)


@function_of("ScaleShift")
def scale_shift(node: OnnxNode, x: Array, scale: Array, shift: Array) -> Array:
    """A product and a sum: two nodes of a file, which are joined."""
    return np.asarray(x * scale + shift)


@function_of("Mod")
def remainder(node: OnnxNode, a: Array, b: Array) -> Array:
    """The remainder, with the divisor's sign, or the dividend's where ``fmod`` is 1."""
    _alike(node, a, b)
    with np.errstate(divide="ignore"):
        return np.asarray(np.fmod(a, b) if node.integer("fmod", 0) else np.mod(a, b))


@function_of("Pow")
def power(node: OnnxNode, a: Array, b: Array) -> Array:
    """``a`` to the power of ``b``, in the type of ``a``."""
    if b.dtype.kind == "u":
        b = b.astype(np.float64)
    if b.dtype.kind == "i" and a.dtype.kind in "iu" and np.any(b < 0):
        b = b.astype(np.float64)
    return np.power(a, b).astype(a.dtype)


@function_of("Sum", "Min", "Max", "Mean")
def several(node: OnnxNode, *arrays: Array) -> Array:
    """The sum, mean, minimum or maximum of several inputs, with broadcasting."""
    if not arrays:
        raise node.error("at least one input is needed")
    _alike(node, *arrays)
    if node.operator in ("Sum", "Mean"):
        total = reduce(np.add, arrays)
        return np.asarray(total if node.operator == "Sum" else total / len(arrays))
    return np.asarray(reduce(np.minimum if node.operator == "Min" else np.maximum, arrays))


@function_of("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor")
def comparison(node: OnnxNode, a: Array, b: Array) -> Array:
    """A comparison of numbers, or a logical operation."""
    _alike(node, a, b)
    ufunc: np.ufunc = {
        "Equal": np.equal,
        "Less": np.less,
        "Greater": np.greater,
        "LessOrEqual": np.less_equal,
        "GreaterOrEqual": np.greater_equal,
        "And": np.logical_and,
        "Or": np.logical_or,
        "Xor": np.logical_xor,
    }[node.operator]
    return np.asarray(ufunc(a, b))


@function_of("Where")
def where(node: OnnxNode, condition: Array, a: Array, b: Array) -> Array:
    """``a`` where the condition holds, else ``b``."""
    if condition.dtype != np.bool_:
        raise node.error(f"the condition must be booleans, got {condition.dtype}")
    _alike(node, a, b)
    return np.where(condition, a, b)


@function_of("Cast")
def cast(node: OnnxNode, x: Array) -> Array:
    """The numbers in another type; towards zero where it holds integers."""
    kind = dtype_of(node, node.integer("to", 0))
    return x != 0 if kind == np.bool_ else x.astype(kind)


@function_of("CastLike")
def cast_like(node: OnnxNode, x: Array, target: Array) -> Array:
    """The numbers in the type of another input."""
    return x != 0 if target.dtype == np.bool_ else x.astype(target.dtype)


def dtype_of(node: OnnxNode, number: int) -> np.dtype[np.generic]:
    """The dtype of an element type's number."""
    kind = dtype_named(number)
    if kind is None:
        raise node.error(f"the element type {number} is not supported")
    return kind


def dtype_named(number: int) -> np.dtype[np.generic] | None:
    """The dtype of an element type's number; None for one that is not supported."""
    if number == 16:  # bfloat16
        try:
            import ml_dtypes
        except ModuleNotFoundError:
            return None
        kind: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
        return kind
    return DTYPES.get(number)


@function_of("Identity")
def identity(node: OnnxNode, x: Array) -> Array:
    """The input itself."""
    return x


@function_of("Dropout")
def dropout(
    node: OnnxNode, x: Array, ratio: Array | None = None, training: Array | None = None
) -> tuple[Array, ...]:
    """The input itself and a mask of ones, because nothing is left out in prediction."""
    if training is not None and training.size and bool(training.reshape(-1)[0]):
        share = 0.5 if ratio is None else float(ratio.reshape(-1)[0])
        if share:
            raise node.error("training_mode must be false, because the file is read for prediction")
    return x, np.ones(x.shape, np.bool_)
