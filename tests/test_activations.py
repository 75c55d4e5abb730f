"""Activations by formulas: values of other libraries, bends, ends, and the digits of their parts.

``test_agreement.py`` holds the engines against the specification on other numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from math import erfc, sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastcnn
from fastcnn.core import normal_tail
from fastcnn.core.arguments import Array
from fastcnn.engine import naive
from fastcnn.engine import numba as kernels
from fastcnn.engine.im2col import windows
from fastcnn.engine.numba.elementwise import activations, prelu
from fastcnn.engine.numba.elementwise.activations import Parameters
from fastcnn.engine.numba.elementwise.formulas import FORMULAS
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.layers import PReLU, ReLU
from fastcnn.models.execution.layer_facts import ends_in_plain_relu

ENGINES = fastcnn.engines()
DTYPES = [np.float32, np.float64]
INF, NAN = np.inf, np.nan

NUMBERS = np.array([-4.0, -1.5, -0.5, 0.0, 0.25, 1.0, 5.0])
# The results and the gradients of PyTorch 2.14 at NUMBERS, in float64.
OF_PYTORCH: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    "clipped_relu": ({"top": 3}, [0, 0, 0, 0, 0.25, 1, 3], [0, 0, 0, 0, 1, 1, 0]),
    "elu": (
        {"alpha": 0.5},
        [-0.4908421805556329, -0.3884349199257851, -0.1967346701436833, 0, 0.25, 1, 5],
        [0.00915781944436709, 0.11156508007421491, 0.3032653298563167, 0.5, 1, 1, 1],
    ),
    "hard_sigmoid": (
        {},
        [0, 0.25, 0.4166666666666667, 0.5, 0.5416666666666666, 0.6666666666666666, 1],
        [0, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 0],
    ),
    "hard_swish": (
        {},
        [0, -0.375, -0.20833333333333334, 0, 0.13541666666666666, 0.6666666666666666, 5],
        [0, 0, 0.33333333333333337, 0.5, 0.5833333333333334, 0.8333333333333333, 1],
    ),
    "swish": (
        {},
        [
            *(-0.07194483984836623, -0.2736382857095345, -0.1887703343990727, 0),
            *(0.14054412522144952, 0.7310585786300049, 4.966535745378576),
        ],
        [
            *(-0.05266461489107291, -0.041294154299142946, 0.2600388126973482, 0.5),
            *(0.6237100215701977, 0.9276705118714869, 1.0265474324296655),
        ],
    ),
    "gelu": (
        {},
        [
            *(-0.00012668496733247991, -0.10021080190328704, -0.15426876936299344, 0),
            *(0.14967658142073093, 0.841344746068543, 4.999998566742141),
        ],
        [
            *(-0.0005036496612264215, -0.1274691922299796, 0.13250487534383712, 0.5),
            *(0.695373354883636, 1.0833154705876864, 1.000007146946002),
        ],
    ),
    "gelu, tanh": (
        {"approximate": True},
        [
            *(-7.024594819227126e-05, -0.10042842301976707, -0.15428599017485606, 0),
            *(0.149675350701685, 0.8411919906082768, 4.999999770820381),
        ],
        [
            *(-0.00033512319712218684, -0.12771079315143308, 0.13263009646535764, 0.5),
            *(0.6953540951510604, 1.0829640838457826, 1.000001546361988),
        ],
    ),
    "softplus": (
        {},
        [
            *(0.018149927917809738, 0.2014132779827524, 0.4740769841801067, 0.6931471805599453),
            *(0.8259394198788436, 1.3132616875182228, 5.006715348489118),
        ],
        [
            *(0.017986209962091555, 0.18242552380635632, 0.37754066879814546, 0.5),
            *(0.5621765008857981, 0.7310585786300049, 0.9933071490757152),
        ],
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OF_PYTORCH)
def test_results_and_gradients_are_those_of_pytorch(name: str, engine: str) -> None:
    parameters, values, slopes = OF_PYTORCH[name]
    forward, backward = _functions(name)
    # PyTorch computes the tail of GELU as 1 + erf, which loses digits.
    near = {"rtol": 1e-14, "atol": 1e-15}
    np.testing.assert_allclose(forward(NUMBERS, **parameters, engine=engine), values, **near)
    dy = np.arange(1.0, 8.0)
    dx = backward(dy, NUMBERS, **parameters, engine=engine)
    np.testing.assert_allclose(dx, dy * slopes, rtol=1e-13, atol=1e-14)


def _functions(name: str) -> tuple[Callable[..., Array], Callable[..., Array]]:
    op = name.partition(",")[0]
    return getattr(fastcnn, op), getattr(fastcnn, f"{op}_backward")


BENDS: dict[str, tuple[dict[str, Any], list[float], list[float]]] = {
    "clipped_relu": ({"top": 0.7}, [0, 0.7, NAN], [0, 0, 0]),
    "elu": ({"alpha": 0.25}, [0, NAN], [0.25, NAN]),
    "hard_sigmoid": ({}, [-3, 3, NAN], [0, 0, 0]),
    "hard_swish": ({}, [-3, 3, NAN], [0, 1, NAN]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("op", BENDS)
def test_gradients_at_bends_are_those_of_the_documentation(
    op: str, engine: str, dtype: type
) -> None:
    parameters, bends, slopes = BENDS[op]
    _, backward = _functions(op)
    dx = backward(np.ones(len(bends), dtype), np.array(bends, dtype), **parameters, engine=engine)
    np.testing.assert_array_equal(dx, np.array(slopes, dtype))


FAR = [-INF, -1e30, -800, 800, 1e30, INF, NAN]
AT_ENDS: dict[str, tuple[list[float], list[float]]] = {
    "swish": ([0, 0, 0, 800, 1e30, INF, NAN], [0, 0, 0, 1, 1, 1, NAN]),
    "gelu": ([0, 0, 0, 800, 1e30, INF, NAN], [0, 0, 0, 1, 1, 1, NAN]),
    "gelu, tanh": ([0, 0, 0, 800, 1e30, INF, NAN], [0, 0, 0, 1, 1, 1, NAN]),
    "hard_swish": ([0, 0, 0, 800, 1e30, INF, NAN], [0, 0, 0, 1, 1, 1, NAN]),
    "softplus": ([0, 0, 0, 800, 1e30, INF, NAN], [0, 0, 0, 1, 1, 1, NAN]),
    "elu": ([-1, -1, -1, 800, 1e30, INF, NAN], [0, 0, 0, 1, 1, 1, NAN]),
    "hard_sigmoid": ([0, 0, 0, 1, 1, 1, NAN], [0] * 7),
    "clipped_relu": ([0, 0, 0, 6, 6, 6, NAN], [0] * 7),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", AT_ENDS)
def test_ends_of_the_number_line(name: str, engine: str, dtype: type) -> None:
    values, slopes = AT_ENDS[name]
    forward, backward = _functions(name)
    parameters: dict[str, Any] = {"approximate": True} if "tanh" in name else {}
    if name == "clipped_relu":
        parameters = {"top": 6}
    x = np.array(FAR, dtype)
    with np.errstate(all="raise", under="ignore"):
        y = forward(x, **parameters, engine=engine)
        dx = backward(np.ones_like(x), x, **parameters, engine=engine)
    np.testing.assert_array_equal(y, np.array(values, dtype))
    np.testing.assert_array_equal(dx, np.array(slopes, dtype))


# --- the digits of the compiled formulas ----------------------------------------------------------


def numbers(dtype: type) -> Array:
    """Numbers close to 0, near it, and as far as exponentials go, subnormal ones among them."""
    rng = np.random.default_rng(0)
    far = 104 if dtype is np.float32 else 744
    parts = [rng.standard_normal(20_000) * 1e-3, rng.standard_normal(40_000) * 3,
             rng.uniform(-far, far, 40_001)]  # fmt: skip
    return np.concatenate(parts).astype(dtype)


class _Exact(NamedTuple):
    """A function on extended numbers, and the units in the last place by which the engine errs."""

    function: Callable[[Array], Array]
    units: float


def _share(x: Array) -> Array:
    e = np.exp(-abs(x))
    share: Array = np.where(x < 0, e, 1) / (1 + e)
    return share


EXACT = {
    "tanh": _Exact(np.tanh, 2.5),
    "sigmoid": _Exact(_share, 2.25),
    "softplus": _Exact(lambda x: np.maximum(x, 0) + np.log1p(np.exp(-abs(x))), 3.25),
    "elu": _Exact(lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), 1.25),
}


@pytest.mark.each_instruction_set
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs numbers of more digits")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", EXACT)
def test_the_last_digits_are_right(op: str, dtype: type) -> None:
    x = numbers(dtype)
    with np.errstate(under="ignore"):
        exact = EXACT[op].function(x.astype(np.longdouble))
    error = abs(getattr(fastcnn, op)(x, engine="numba") - exact)
    assert (error / np.spacing(abs(exact).astype(dtype))).max() <= EXACT[op].units


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_exponential_is_right_to_the_last_subnormal_number(dtype: type) -> None:
    x = -abs(numbers(dtype))
    exact = np.exp(x.astype(np.longdouble))
    error = abs(fastcnn.elu_backward(np.ones_like(x), x, engine="numba") - exact)
    assert (error / np.spacing(exact.astype(dtype))).max() <= 1.5


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("engine", ["numba", "im2col"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_keeps_its_digits_where_it_is_small(engine: str, dtype: type) -> None:
    """``x * (1 + erf(x / √2)) / 2`` would lose all of them."""
    x = np.linspace(-12, 0, 3001)[:-1].astype(dtype)
    exact = np.array([float(v) * erfc(-float(v) / sqrt(2)) / 2 for v in x])
    units = 8 + 2 * x.astype(np.float64) ** 2  # the square of x rounds, as does erfc's argument
    error = abs(fastcnn.gelu(x, engine=engine) - exact)
    assert (error <= units * np.finfo(dtype).eps * abs(exact)).all()
    assert abs(exact).min() < 1e-30


@pytest.mark.parametrize(("coefficients", "far", "share"), [
    (normal_tail.FLOAT32, 14.0, 2e-8), (normal_tail.FLOAT64, 37.0, 4e-15),
])  # fmt: skip
def test_the_polynomial_of_the_tail_is_the_tail(
    coefficients: tuple[float, ...], far: float, share: float
) -> None:
    for a in np.linspace(0, far, 4001):
        t = (a - normal_tail.CENTRE) / (a + normal_tail.CENTRE)
        value = np.polynomial.polynomial.polyval(t, coefficients) / (a + normal_tail.CENTRE)
        exact = erfc(a / sqrt(2)) / 2
        # The exponential and erfc err by a² roundings, because their arguments round.
        assert abs(value * np.exp(-a * a / 2) / exact - 1) <= share + 4e-16 * a * a


# --- the compiled loops ---------------------------------------------------------------------------

P = {"leaky_relu": 0.1, "clipped_relu": 0.7, "elu": 0.6, "hard_sigmoid": 0.2}


def applied(name: str, x: Array, p: float, q: float) -> Array:
    """The formula of flat ``x`` by the compiled engine."""
    return activations._bind_formula(name, x.shape, x.dtype, p, q)(x)


def gradient(name: str, dy: Array, x: Array, p: float, q: float) -> Array:
    """The gradient of :func:`applied` with respect to ``x``."""
    return activations._bind_gradient(name, x.shape, x.dtype, p, q)(dy, x)


@pytest.mark.each_instruction_set
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_number_gives_the_same_bits_in_each_position(name: str, dtype: type) -> None:
    """Vectors, what is left after them, and single numbers compute alike."""
    rng = np.random.default_rng(1)
    x, dy = (rng.standard_normal(150) * 3).astype(dtype), rng.standard_normal(150).astype(dtype)
    p = P.get(name, 0.0)
    y = applied(name, x, p, 0.4)
    dx = gradient(name, dy, x, p, 0.4)
    for size in range(1, 150):
        some = slice(150 - size, 150)
        np.testing.assert_array_equal(applied(name, x[some].copy(), p, 0.4), y[some])
        again = gradient(name, dy[some].copy(), x[some].copy(), p, 0.4)
        np.testing.assert_array_equal(again, dx[some])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FORMULAS)
def test_the_kernels_of_a_formula_are_steps_of_a_program(name: str, dtype: type) -> None:
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal(77).astype(dtype), rng.standard_normal(77).astype(dtype)
    y, dx, numbers = np.zeros_like(x), np.zeros_like(x), record(Parameters(P.get(name, 0.0), 0.4))
    _run(activations.activation_kernel(name, False), 77, x, y, numbers)
    over = x.copy()
    _run(activations.activation_kernel(name, True), 77, over, over, numbers)
    assert over.tobytes() == y.tobytes()
    _run(activations.gradient_kernel(name), 77, dy, x, dx, numbers)
    p = P.get(name, 0.0)
    np.testing.assert_array_equal(y, applied(name, x, p, 0.4))
    np.testing.assert_array_equal(dx, gradient(name, dy, x, p, 0.4))


@pytest.mark.parametrize("channels", [3, 300])
def test_the_kernels_of_prelu_are_steps_of_a_program(channels: int) -> None:
    rng = np.random.default_rng(3)
    x, dy = rng.standard_normal((2, 131, channels)).astype(np.float32)
    slope = rng.standard_normal(channels).astype(np.float32)
    rows = prelu.rows_of(x.shape)
    y, dx, dslope, numbers = np.zeros_like(x), np.zeros_like(x), np.zeros_like(slope), record(rows)
    sums, row = np.full(rows.chunks * rows.period, NAN), prelu._row_of(slope, rows)
    flat_x, flat_dy, flat_dx = x.reshape(-1), dy.reshape(-1), dx.reshape(-1)
    _run(prelu.prelu_kernel(False), rows.chunks, flat_x, row, y.reshape(-1), numbers)
    over = flat_x.copy()
    _run(prelu.prelu_kernel(True), rows.chunks, over, row, over, numbers)
    assert over.tobytes() == y.tobytes()
    _run(prelu.prelu_gradient_kernel, rows.chunks, flat_dy, flat_x, row, flat_dx, sums, numbers)
    _run(prelu.slope_sums_kernel, channels, sums, dslope, numbers)
    np.testing.assert_array_equal(y, kernels.prelu(x, slope))
    for result, expected in zip((dx, dslope), kernels.prelu_backward(dy, x, slope), strict=True):
        np.testing.assert_array_equal(result, expected)


def _run(kernel: Any, stop: int, *operands: Array) -> None:
    """Run a kernel as a step, which knows its arrays by their addresses alone."""
    one = program.step(kernel, operands, stop, *map(program.fixed_address, operands))
    program.run_apart(one, 0, 1)


# --- PReLU ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_prelu_takes_any_memory_layout(engine: str) -> None:
    rng = np.random.default_rng(4)
    x, dy = rng.standard_normal((2, 4, 7, 5, 6))[..., ::2]
    slope = rng.standard_normal(6)[::2]
    y = fastcnn.prelu(x, slope, engine=engine)
    np.testing.assert_array_equal(y, np.where(x > 0, x, slope * x))
    dx, dslope = fastcnn.prelu_backward(np.asfortranarray(dy), x, slope, engine=engine)
    np.testing.assert_array_equal(dx, np.where(x > 0, dy, slope * dy))
    np.testing.assert_allclose(dslope, (np.minimum(x, 0) * dy).sum((0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize("engine", ["numba", "im2col"])
@pytest.mark.parametrize(("rows", "channels"), [(1, 700), (5461, 3), (5462, 3), (70_001, 1)])
def test_gradients_of_slopes_are_sums_over_all_rows(
    rows: int, channels: int, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than a chunk, whole chunks, one number more, and several chunks of one channel."""
    monkeypatch.setattr(windows, "WORKSPACE_BYTES", 9000)  # so that "im2col" takes several steps
    rng = np.random.default_rng(6)
    x, dy = rng.integers(-3, 4, (2, rows, channels)).astype(np.float32)
    slope = rng.integers(-3, 4, channels).astype(np.float32)
    expected = naive.prelu_backward(dy, x, slope)
    for result, exact in zip(
        fastcnn.prelu_backward(dy, x, slope, engine=engine), expected, strict=True
    ):
        np.testing.assert_array_equal(result, exact)


def test_slopes_begin_at_a_quarter_and_one_belongs_to_each_channel() -> None:
    layer = PReLU()
    layer.build((5, 4, 3), np.random.default_rng(0))
    np.testing.assert_array_equal(layer.parameters["slope"], np.full(3, 0.25, np.float32))
    x = -np.ones((2, 5, 4, 3), np.float32)
    layer.parameters["slope"][...] = [0, 1, 2]
    y, _ = layer.forward(x, False, None, None)
    np.testing.assert_array_equal(y, x * [0, 1, 2])


# --- ReLU with a maximum, and records -------------------------------------------------------------


def test_only_a_relu_without_a_maximum_is_done_with_the_layer_before_it() -> None:
    assert ends_in_plain_relu(ReLU())
    assert not ends_in_plain_relu(ReLU(6))


def test_a_record_holds_floats_where_its_class_says_so() -> None:
    class Sizes(NamedTuple):
        rows: int
        share: float

    for share in (1, 1.0, 0.25):
        array = record(Sizes(3, share))
        assert array.dtype == [("rows", np.int64), ("share", np.float64)]
        assert array[0].tolist() == (3, share)
