"""What the im2col engine promises on its own: bounded memory, and images that ignore each other.

That it agrees with the specification is tested where all engines are.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.engine.im2col import WORKSPACE_BYTES, windows

# Python's own objects, and the buffers that NumPy's loops have: 8,192 numbers of each operand.
FEW_KIB = 128 * 1024


@pytest.fixture
def small_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every call go in many steps, down to single rows."""
    monkeypatch.setattr(windows, "WORKSPACE_BYTES", 700)


def extra_bytes(call: Callable[[], Any]) -> int:
    """Peak memory of a call beyond its result."""
    tracemalloc.start()
    try:
        result = call()
        size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result is not None
    return peak - size


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


CONVOLUTIONS = {
    # x, w, parameters: columns of 50 to 100 MB each, were they made in one piece
    "batch": ((64, 50, 40, 11), (3, 5, 11, 4), {}),
    "padded": ((32, 60, 51, 16), (3, 3, 16, 8), {"padding": "same"}),
    "one large image": ((1, 500, 391, 9), (3, 3, 9, 8), {"padding": ((2, 0), (1, 3))}),
    "strides and dilation": (
        (8, 250, 201, 6),
        (5, 3, 6, 4),
        {"stride": (1, 2), "dilation": (3, 2), "padding": 4},
    ),
    "groups": ((16, 100, 81, 12), (3, 3, 4, 9), {"groups": 3, "padding": 1}),
    "depthwise": ((16, 100, 81, 12), (3, 3, 1, 24), {"groups": 12, "padding": 1}),
}


FAR = 2**31 - 1
LOST_IN_PADDING = {
    # x, w, parameters: nearly all taps read padding, or nearly all rows are stepped over
    "stride": ((2, 7, 2, 1), (1, 1, 1, 1), {"stride": (FAR, 2), "padding": 1}),
    "stride, 3×1": ((1, 4, 3, 2), (3, 1, 2, 1), {"stride": FAR, "padding": ((2, 2), (1, 1))}),
    "width 1": ((2, 6, 5, 2), (3, 1, 2, 3), {"dilation": (FAR, FAR), "padding": "same"}),
    "height 1": ((2, 6, 5, 2), (1, 3, 2, 3), {"dilation": (FAR, FAR), "padding": "same"}),
    "groups": ((1, 5, 6, 4), (2, 3, 2, 2), {"dilation": (FAR, 2), "padding": "same", "groups": 2}),
    "depthwise": ((1, 5, 6, 2), (3, 3, 1, 2), {"dilation": FAR, "padding": "same", "groups": 2}),
    "not finite": ((1, 5, 6, 1), (3, 1, 1, 2), {"dilation": FAR // 2, "padding": "same"}),
}


@pytest.mark.parametrize("case", LOST_IN_PADDING)
def test_padding_and_strides_take_no_memory(case: str) -> None:
    shape, filters, parameters = LOST_IN_PADDING[case]
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, shape).astype(np.float32)
    w = rng.integers(-3, 4, filters).astype(np.float32)
    w[0, 0, 0, 0] = np.inf if case == "not finite" else 1

    def results(engine: str) -> Any:
        y = fastcnn.conv2d(x, w, **parameters, engine=engine)
        dy = np.resize(np.arange(-3, 4), y.shape).astype(np.float32)
        dx = fastcnn.conv2d_input_gradient(dy, w, shape, **parameters, engine=engine)
        dw = fastcnn.conv2d_filter_gradient(dy, x, w.shape[:2], **parameters, engine=engine)
        return y, dx, dw

    assert extra_bytes(lambda: results("im2col")) < 1 << 20
    for result, expected in zip(results("im2col"), results("naive"), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_many_taps_take_little_memory() -> None:
    many = 10_000
    w = normal(1, many, 1, 1)
    x, parameters = np.ones((1, 1, 1, 1), np.float32), {"padding": ((0, 0), (many - 1, many - 1))}

    def results() -> Any:
        y = fastcnn.conv2d(x, w, **parameters, engine="im2col")
        dx = fastcnn.conv2d_input_gradient(y, w, x.shape, **parameters, engine="im2col")
        dw = fastcnn.conv2d_filter_gradient(y, x, (1, many), **parameters, engine="im2col")
        return y, dx, dw

    tracemalloc.start()
    y, dx, dw = results()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20  # with what is kept for the next call
    np.testing.assert_array_equal(y.ravel(), w.ravel()[::-1])
    np.testing.assert_allclose(dx, np.sum(np.square(w), dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(dw, w)


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("finite", [True, False])
def test_convolution_holds_to_its_workspace(case: str, finite: bool) -> None:
    x_shape, w_shape, parameters = CONVOLUTIONS[case]
    x, w = normal(*x_shape), normal(*w_shape)
    if not finite:
        w[0, 0, 0, 0] = np.inf
    parameters = {**parameters, "engine": "im2col"}
    with np.errstate(invalid="ignore"):
        dy = fastcnn.conv2d(x, w, **parameters)
        assert extra_bytes(lambda: fastcnn.conv2d(x, w, **parameters)) < WORKSPACE_BYTES + FEW_KIB
        workspace = extra_bytes(lambda: fastcnn.conv2d_input_gradient(dy, w, x.shape, **parameters))
        assert workspace < WORKSPACE_BYTES + FEW_KIB
        workspace = extra_bytes(
            lambda: fastcnn.conv2d_filter_gradient(dy, x, w_shape[:2], **parameters)
        )
        assert workspace < WORKSPACE_BYTES + w.nbytes + FEW_KIB


@pytest.mark.parametrize("kind", ["max", "min", "avg"])
@pytest.mark.parametrize("shape", [(40, 60, 51, 16), (1, 1300, 1501, 1)])
def test_pooling_holds_to_its_workspace(kind: str, shape: tuple[int, ...]) -> None:
    x = normal(*shape)
    arguments = ((3, 2), (1, 2), ((1, 1), (0, 1)))
    forward = getattr(fastcnn, f"{kind}_pool2d")
    backward = getattr(fastcnn, f"{kind}_pool2d_backward")
    dy = forward(x, *arguments, engine="im2col")
    workspace = extra_bytes(lambda: forward(x, *arguments, engine="im2col"))
    assert workspace < WORKSPACE_BYTES + FEW_KIB
    workspace = extra_bytes(lambda: backward(dy, x, *arguments, engine="im2col"))
    assert workspace < WORKSPACE_BYTES + FEW_KIB


@pytest.mark.parametrize("shape", [(1_500_000, 1), (800_000, 3), (300, 9_000)])
def test_activations_and_loss_hold_to_their_workspace(shape: tuple[int, int]) -> None:
    x, dy = normal(*shape), normal(*shape)
    labels = np.arange(len(x)) % shape[1]
    calls: list[Callable[[], Any]] = [
        lambda: fastcnn.relu(x, engine="im2col"),
        lambda: fastcnn.relu_backward(dy, x, engine="im2col"),
        lambda: fastcnn.softmax(x, engine="im2col"),
        lambda: fastcnn.softmax_backward(dy, x, engine="im2col"),
        lambda: fastcnn.log_softmax(x, engine="im2col"),
        lambda: fastcnn.log_softmax_backward(dy, x, engine="im2col"),
        lambda: fastcnn.clipped_relu_backward(dy, x, 0.7, engine="im2col"),
        lambda: fastcnn.elu(x, engine="im2col"),
        lambda: fastcnn.elu_backward(dy, x, engine="im2col"),
        lambda: fastcnn.hard_sigmoid_backward(dy, x, engine="im2col"),
        lambda: fastcnn.hard_swish(x, engine="im2col"),
        lambda: fastcnn.hard_swish_backward(dy, x, engine="im2col"),
        lambda: fastcnn.swish(x, engine="im2col"),
        lambda: fastcnn.swish_backward(dy, x, engine="im2col"),
        lambda: fastcnn.gelu(x, engine="im2col"),
        lambda: fastcnn.gelu_backward(dy, x, engine="im2col"),
        lambda: fastcnn.gelu_backward(dy, x, True, engine="im2col"),
        lambda: fastcnn.softplus(x, engine="im2col"),
        lambda: fastcnn.softplus_backward(dy, x, engine="im2col"),
        lambda: fastcnn.prelu(x, x[0], engine="im2col"),
        lambda: fastcnn.prelu_backward(dy, x, x[0], engine="im2col"),
    ]
    for call in calls:
        assert extra_bytes(call) < WORKSPACE_BYTES + FEW_KIB
    from fastcnn.engine import (
        im2col,  # the public functions below scale and reduce in their own arrays
    )

    for loss in (im2col.cross_entropy, im2col.cross_entropy_backward):
        assert extra_bytes(lambda loss=loss: loss(x, labels)) < WORKSPACE_BYTES + FEW_KIB


CASES = [
    ((5, 9, 7, 1), (3, 3, 1, 8), {"padding": "same"}),
    ((5, 9, 7, 1), (9, 7, 1, 1), {}),
    ((4, 8, 11, 5), (2, 3, 5, 6), {"stride": (2, 1), "padding": ((0, 1), (2, 0))}),
    ((4, 8, 11, 6), (3, 2, 2, 9), {"groups": 3, "dilation": (2, 3), "padding": 3}),
    ((4, 8, 11, 3), (3, 2, 1, 6), {"groups": 3, "padding": 1}),
    ((7, 30, 28, 16), (1, 1, 16, 33), {}),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "parameters"), CASES)
def test_an_image_ignores_the_rest_of_its_batch(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], parameters: dict[str, Any]
) -> None:
    x, w, b = normal(*x_shape), normal(*w_shape), normal(w_shape[3])
    together = fastcnn.conv2d(x, w, b, **parameters, engine="im2col")
    dy = normal(*together.shape)
    dx = fastcnn.conv2d_input_gradient(dy, w, x.shape, **parameters, engine="im2col")
    for i in range(len(x)):
        one = slice(i, i + 1)
        alone = fastcnn.conv2d(x[one], w, b, **parameters, engine="im2col")
        np.testing.assert_array_equal(alone, together[one])
        alone = fastcnn.conv2d_input_gradient(
            dy[one], w, x[one].shape, **parameters, engine="im2col"
        )
        np.testing.assert_array_equal(alone, dx[one])


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("classes", [1, 3, 10, 17, 1000])
def test_a_row_ignores_the_others(name: str, classes: int) -> None:
    x, dy = normal(9, classes), normal(9, classes)
    forward, backward = getattr(fastcnn, name), getattr(fastcnn, f"{name}_backward")
    together, gradients = forward(x, engine="im2col"), backward(dy, x, engine="im2col")
    for i in range(len(x)):
        np.testing.assert_array_equal(forward(x[i], engine="im2col"), together[i])
        np.testing.assert_array_equal(backward(dy[i], x[i], engine="im2col"), gradients[i])


@pytest.mark.usefixtures("small_workspace")
@pytest.mark.parametrize(("x_shape", "w_shape", "parameters"), CASES)
def test_steps_of_single_rows_agree_with_the_specification(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], parameters: dict[str, Any]
) -> None:
    rng = np.random.default_rng(1)
    x, w = (rng.integers(-3, 4, shape).astype(np.float32) for shape in (x_shape, w_shape))
    reference = fastcnn.conv2d(x, w, **parameters, engine="naive")
    fast = fastcnn.conv2d(x, w, **parameters, engine="im2col")
    np.testing.assert_array_equal(fast, reference)
    dy = rng.integers(-3, 4, fast.shape).astype(np.float32)
    for name, arguments in (
        ("conv2d_input_gradient", (dy, w, x.shape)),
        ("conv2d_filter_gradient", (dy, x, w.shape[:2])),
    ):
        reference = getattr(fastcnn, name)(*arguments, **parameters, engine="naive")
        fast = getattr(fastcnn, name)(*arguments, **parameters, engine="im2col")
        np.testing.assert_array_equal(fast, reference)


@pytest.mark.usefixtures("small_workspace")
@pytest.mark.parametrize("kind", ["max", "min", "avg"])
def test_pooling_in_steps_of_single_rows_agrees_with_the_specification(kind: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(-3, 4, (3, 13, 10, 7)).astype(np.float64)
    arguments = ((3, 2), (2, 3), ((2, 1), (0, 1)))
    forward = getattr(fastcnn, f"{kind}_pool2d")
    backward = getattr(fastcnn, f"{kind}_pool2d_backward")
    reference = forward(x, *arguments, engine="naive")
    np.testing.assert_allclose(forward(x, *arguments, engine="im2col"), reference, rtol=1e-15)
    # Multiples of 12 share evenly among 1 to 4 and 6 pixels: every gradient is exact.
    dy = 12.0 * rng.integers(-3, 4, reference.shape)
    reference = backward(dy, x, *arguments, engine="naive")
    np.testing.assert_array_equal(backward(dy, x, *arguments, engine="im2col"), reference)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_padding_is_never_multiplied(groups: int) -> None:
    """An infinite weight or gradient over padding makes no NaN."""
    x = np.ones((1, 3, 4, 4), np.float32)
    w = np.full((3, 3, 4 // groups, 4), np.inf, np.float32)
    parameters: dict[str, Any] = {"padding": "same", "groups": groups, "engine": "im2col"}
    y = fastcnn.conv2d(x, w, **parameters)
    assert (y == np.inf).all()
    dw = fastcnn.conv2d_filter_gradient(np.full(y.shape, np.inf), x, 3, **parameters)
    assert (dw == np.inf).all()
    dx = fastcnn.conv2d_input_gradient(np.ones_like(y), w, x.shape, **parameters)
    assert (dx == np.inf).all()
