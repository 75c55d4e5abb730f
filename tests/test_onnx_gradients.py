"""Gradients of ONNX's operators beside central differences, and what ``fit`` refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slopes
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcnn
from fastcnn.exchange.onnx_functions import FUNCTIONS, OnnxNode
from fastcnn.exchange.onnx_functions.gradients import GRADIENTS
from fastcnn.exchange.onnx_functions.recurrent import GATES
from fastcnn.optimizers import Adam

FORMULAS = {"RNN": 1, "GRU": 2, "LSTM": 3}
STEP = 1e-6
"""The step of central differences."""


def check(node: OnnxNode, inputs: list[Any], result: int, moved: tuple[int, ...]) -> None:
    """The gradients of the inputs ``moved`` for a random gradient of the output ``result``."""

    def output() -> Any:
        outputs = FUNCTIONS[node.operator](node, *inputs)
        return outputs[result] if isinstance(outputs, tuple) else outputs

    y = output()
    dy = np.random.default_rng(5).standard_normal(y.shape)
    own = OnnxNode(
        node.operator, attributes={**node.attributes, "result": result}, opset=node.opset
    )
    gradients = GRADIENTS[node.operator](own, dy, y.astype(np.float64), tuple(inputs))
    assert len(gradients) == len(inputs)
    # The sum of many ReLUs over time is large, and a central difference has the sum's rounding
    # errors, divided by the step.
    rounding = 4 * np.finfo(np.float64).eps * float(np.abs(y * dy).sum()) / STEP
    for i in moved:
        expected = slopes.slope(lambda: float((output() * dy).sum()), inputs[i], STEP)
        assert gradients[i].shape == inputs[i].shape
        np.testing.assert_allclose(gradients[i], expected, rtol=1e-4, atol=1e-6 + rounding)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), operator=st.sampled_from(sorted(GATES)), seed=st.integers(0, 99))
def test_recurrent_operators(data: st.DataObject, operator: str, seed: int) -> None:
    """Every option: directions, layouts, lengths, bounds, peepholes, first states, formulas."""
    draw, rng = data.draw, np.random.default_rng(seed)
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    d, t, n, size, units = 1 + (direction == "bidirectional"), 3, 2, 4, 3
    gates, layout = GATES[operator], draw(st.integers(0, 1))
    names = draw(st.lists(st.sampled_from(["Sigmoid", "Tanh", "Relu"]), min_size=3, max_size=3))
    attributes: dict[str, Any] = {"direction": direction, "layout": layout, "hidden_size": units}
    attributes |= {"activations": names[: FORMULAS[operator]] * d}
    if draw(st.booleans()):
        attributes["clip"] = 0.7
    if operator == "GRU":
        attributes["linear_before_reset"] = draw(st.integers(0, 1))
    if operator == "LSTM":
        attributes["input_forget"] = draw(st.integers(0, 1))

    def numbers(*shape: int, has: bool = True) -> Any:
        return rng.standard_normal(shape) if has else None

    batch = draw(st.sampled_from([1, n]))
    states = (batch, d, units) if layout else (d, batch, units)
    inputs = [
        numbers(n, t, size) if layout else numbers(t, n, size),
        numbers(d, gates * units, size), numbers(d, gates * units, units),
        numbers(d, 2 * gates * units, has=draw(st.booleans())),
        np.array([3, draw(st.integers(0, 3))]) if draw(st.booleans()) else None,
        numbers(*states, has=draw(st.booleans())),
    ]  # fmt: skip
    if operator == "LSTM":
        inputs += [numbers(*states, has=draw(st.booleans()))]
        inputs += [numbers(d, 3 * units, has=draw(st.booleans()))]
    moved = tuple(i for i, one in enumerate(inputs) if one is not None and i != 4)
    result = draw(st.integers(0, 2 if operator == "LSTM" else 1))
    check(OnnxNode(operator, attributes=attributes), inputs, result, moved)


@pytest.mark.parametrize("axes", [(1,), (0, 2), ()])
def test_products_have_gradients_also_at_zero(axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 2))
    x[0, 1, 0] = x[1, 1, 1] = x[1, 2, 1] = 0
    attributes = {"axes": list(axes)} if axes else {}
    check(OnnxNode("ReduceProd", attributes=attributes), [x], 0, (0,))


INDICES = {
    "GatherElements": ({"axis": 1}, np.array([[0, 2, -1], [1, 1, 0]]), None),
    "GatherND": ({}, np.array([[0, 1], [2, -1], [0, 1]]), None),
    "GatherND of a batch": ({"batch_dims": 1}, np.array([[1], [0], [2]]), None),
    "ScatterElements": ({"axis": 0}, np.array([[0, 2, 1], [-1, 1, 1]]), (2, 3)),
    "ScatterElements add": ({"axis": 0, "reduction": "add"}, np.array([[0, 0, 1]]), (1, 3)),
    "ScatterND": ({}, np.array([[2], [0], [2]]), (3, 3)),
    "ScatterND add": ({"reduction": "add"}, np.array([[2, 0], [0, 1], [2, 0]]), (3,)),
}  # fmt: skip


@pytest.mark.parametrize("name", INDICES)
def test_numbers_at_indices(name: str) -> None:
    attributes, indices, updates = INDICES[name]
    rng = np.random.default_rng(0)
    inputs: list[Any] = [rng.standard_normal((3, 3)), indices]
    if updates is not None:
        inputs.append(rng.standard_normal(updates))
    moved = (0,) if updates is None else (0, 2)
    check(OnnxNode(name.split()[0], attributes=attributes, opset=18), inputs, 0, moved)


EQUATIONS = {
    "bij,bjk->bik": [(2, 3, 4), (2, 4, 2)], "ij": [(3, 4)], "ji": [(3, 4)], "ii->i": [(3, 3)],
    "ii": [(3, 3)], "ij,jk,k->i": [(2, 3), (3, 4), (4,)], "...ij,...j->...i": [(2, 3, 4), (4,)],
    "ij->j": [(3, 4)], "i,j": [(3,), (4,)], "...->...": [(2, 3)], "bi,bi->b": [(3, 2), (1, 2)],
}  # fmt: skip


@pytest.mark.parametrize("equation", EQUATIONS)
def test_sums_of_products(equation: str) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape) for shape in EQUATIONS[equation]]
    node = OnnxNode("Einsum", attributes={"equation": equation})
    expected = np.einsum(equation, *inputs)
    np.testing.assert_allclose(FUNCTIONS["Einsum"](node, *inputs), expected, rtol=1e-12)
    check(node, inputs, 0, tuple(range(len(inputs))))


@pytest.mark.parametrize(
    ("attributes", "scale"),
    [({}, np.array(0.25)), ({"axis": 0}, np.array([0.25, 0.5])),
     ({"axis": 1, "block_size": 2}, np.array([[0.25, 0.5], [1.0, 2.0]]))],
)  # fmt: skip
def test_quantised_numbers_pass_the_gradient_within_their_limits(
    attributes: dict[str, Any], scale: Any
) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3)), rng.standard_normal((2, 3))
    x[0, 0], x[1, 1] = 1000.0, -1000.0  # beyond the limits
    zero = np.zeros(scale.shape, np.int8)
    by_axes = (scale, scale.reshape(-1, 1), scale.repeat(2, -1)[..., :3])
    wide = np.broadcast_to(by_axes[scale.ndim], x.shape)
    node = OnnxNode("QuantizeLinear", attributes=attributes, opset=21)
    y = FUNCTIONS["QuantizeLinear"](node, x, scale, zero).astype(np.float64)
    dx = GRADIENTS["QuantizeLinear"](node, dy, y, (x, scale, zero))[0]
    np.testing.assert_allclose(dx, np.where(np.abs(x) < 999, dy / wide, 0))
    node = OnnxNode("DequantizeLinear", attributes=attributes, opset=21)
    check(node, [np.round(x).clip(-9, 9), scale, zero], 0, (1,))
    output = FUNCTIONS["DequantizeLinear"](node, y, scale, zero).astype(np.float64)
    dx = GRADIENTS["DequantizeLinear"](node, dy, output, (y, scale, zero))[0]
    np.testing.assert_allclose(dx, dy * wide)


def net(folder: Path, nodes: list[Any], shape: list[Any], **constants: Any) -> fastcnn.Model:
    files = pytest.importorskip("onnx_files", reason="the package onnx is not installed")
    path = files.write(folder / "net.onnx", nodes, {"x": shape}, ["y"], constants)
    model = fastcnn.load_onnx(path)
    model.engine = "im2col"
    return model


@pytest.mark.parametrize("operator", sorted(GATES))
def test_fit_trains_through_recurrent_operators(tmp_path: Path, operator: str) -> None:
    files = pytest.importorskip("onnx_files", reason="the package onnx is not installed")
    gates, rng = GATES[operator], np.random.default_rng(0)
    nodes = [
        files.node("MatMul", "x a", "e"), files.node("Transpose", "e", "t", perm=[1, 0, 2]),
        files.node(operator, "t w r", "o last", hidden_size=4),
        files.node("Squeeze", "last axis", "s"), files.node("MatMul", "s b", "y"),
    ]  # fmt: skip
    model = net(
        tmp_path, nodes, ["N", 5, 3], axis=np.array([0]),
        **{name: rng.standard_normal(shape).astype(np.float32) for name, shape in
           {"a": (3, 6), "w": (1, gates * 4, 6), "r": (1, gates * 4, 4), "b": (4, 2)}.items()},
    )  # fmt: skip
    x = rng.standard_normal((40, 5, 3)).astype(np.float32)
    y = (x[:, :, 0].sum(1) > 0).astype(int)
    model.layers[-1].trainable = False  # so that all that is learned comes through the operator
    history = model.fit(
        x,
        y,
        epochs=12,
        batch_size=10,
        loss="cross_entropy",
        verbose=0,
        seed=0,
        optimizer=Adam(0.05),
    )
    losses = history.history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_fit_refuses_at_once_what_has_no_gradient(tmp_path: Path) -> None:
    files = pytest.importorskip("onnx_files", reason="the package onnx is not installed")
    nodes = [
        files.node("MatMul", "x a", "m"), files.node("Mod", "m seven", "k", fmod=1),
        files.node("MatMul", "k b", "y"),
    ]  # fmt: skip
    nodes[1].name = "the_remainder"
    rng = np.random.default_rng(0)
    model = net(
        tmp_path, nodes, ["N", 3], seven=np.float32(7),
        a=rng.standard_normal((3, 6)).astype(np.float32),
        b=rng.standard_normal((6, 2)).astype(np.float32),
    )  # fmt: skip
    x, y = rng.standard_normal((8, 3)).astype(np.float32), np.arange(8) % 2
    first, remainder = model.layers[0], model.layers[1]
    with pytest.raises(
        ValueError, match=f"'{remainder.name}'.*Mod of node 'the_remainder'"
    ) as error:
        model.fit(x, y, loss="cross_entropy", verbose=0)
    assert f"trainable = False on all layers before '{remainder.name}'" in str(error.value)
    with pytest.raises(ValueError, match="the_remainder"):
        model.train_on_batch(x, y, loss="cross_entropy")
    first.trainable = False
    before = model.predict(x)
    model.fit(x, y, loss="cross_entropy", verbose=0)
    assert not np.array_equal(model.predict(x), before)
