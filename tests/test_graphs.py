"""Models as graphs: how they are made, what they say and refuse, and their copies."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graphs import (
    GRAPHS,
    Doubled,
    graph,
    listed,
    refuse_to_draw,
    same_bits,
    samples,
    targets,
)
from slopes import same, slope

from fastcnn import CNNClassifier, Input, Model, Sequential
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    Add,
    Average,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Layer,
    Maximum,
    Merge,
    Multiply,
    ReLU,
    Residual,
    Shape,
    Softmax,
    Spec,
    Subtract,
)
from fastcnn.nn.layers import Tensor
from fastcnn.optimizers import SGD

Thunk = Callable[[], object]


@pytest.fixture
def nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """No parameter is drawn, and no memory taken for any."""
    refuse_to_draw(monkeypatch)


class Shuffled(Merge):
    """The inputs one after the other, each times a weight: a merging layer of a user's own."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault

    def infer(self, input_shape: tuple[Shape, ...]) -> Shape:  # type: ignore[override]
        return (sum(shape[0] for shape in input_shape),)

    def parameter_specs(self, input_shape: tuple[Shape, ...]) -> dict[str, Spec]:  # type: ignore[override]
        return {"w": Spec((len(input_shape),), "ones")}

    def forward(self, x: Any, training: bool, rng: Any, engine: str | None) -> Any:
        assert not any(part.flags.writeable for part in x)
        w = self.parameters["w"]
        y = np.concatenate([part * w[i] for i, part in enumerate(x)], axis=1)
        return y[:, :-1] if self.fault == "output" else y, x

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        parts = np.split(dy, np.cumsum([part.shape[1] for part in saved])[:-1], axis=1)
        dw = [(part * x).sum() for part, x in zip(parts, saved, strict=True)]
        dx = [part * w for part, w in zip(parts, self.parameters["w"], strict=True)]
        faults: dict[str, Any] = {
            "one": dx[0], "few": dx[:1], "shape": [dx[0][:, 1:], *dx[1:]], "nothing": None,
            "NaN": [part * np.nan for part in dx],
        }  # fmt: skip
        return faults.get(self.fault, tuple(dx)), {"w": dw}


Layer.registry.pop("Shuffled")  # other tests take every layer that is known


# --- tensors and calls ----------------------------------------------------------------------------


def test_layers_called_on_tensors_tell_shapes_and_compute_nothing() -> None:
    images = Input((6, 5))
    assert images.shape == (6, 5, 1)
    assert Input([6, 5, 2]).shape == (6, 5, 2)
    assert Input((7,)).shape == (7,)
    layer = Conv2D(4, (3, 2))
    result = layer(images)
    assert (result.shape, result.layer, result.inputs) == ((4, 4, 4), layer, (images,))
    assert layer.output is result
    assert layer.input_shape is None
    assert not layer.parameters
    assert repr(result) == "<Tensor of shape (4, 4, 4) from Conv2D(4, (3, 2))>"
    assert repr(images) == "Input((6, 5, 1))"
    assert repr(Input((3,), name="left")) == "Input((3,), name='left')"
    assert Add()([result, result]).shape == (4, 4, 4)
    assert Concatenate()((result, result)).shape == (4, 4, 8)


def test_a_tensor_has_no_numbers_and_cannot_change() -> None:
    tensor = Dense(2)(Input((3,)))
    for change in (
        lambda: setattr(tensor, "shape", (4,)),
        lambda: delattr(tensor, "shape"),
    ):
        with pytest.raises(AttributeError, match="shape of a tensor cannot be"):
            change()
    for use, error in [
        (lambda: np.asarray(tensor), "a tensor has no numbers; make a Model"),
        (lambda: list(tensor), "a tensor has no numbers to iterate over"),  # type: ignore[call-overload]
        (lambda: pickle.dumps(tensor), "cannot be pickled.*pickle the model"),
    ]:
        with pytest.raises(TypeError, match=error):
            use()
    assert copy.copy(tensor) is copy.deepcopy(tensor) is tensor


WRONG_CALLS: list[tuple[Thunk, type[Exception], str]] = [
    (lambda: Input(3), ValueError, r"shape must be \(H, W, C\), \(H, W\) or \(features,\), got 3"),  # type: ignore[arg-type]
    (lambda: Input((None, 8, 8, 3)), ValueError, "; the batch is no part of it"),  # type: ignore[arg-type]
    (lambda: Input((3, 0)), ValueError, "shape must be at least 1"),
    (
        lambda: Input((3,), name=""),
        TypeError,
        "name must be text, not empty, or None, got ''",
    ),
    (
        lambda: Input((3,), name=5),
        TypeError,
        "name must be text, not empty, or None, got 5",
    ),  # type: ignore[arg-type]
    (
        lambda: Dense(2)(np.zeros((4, 3))),
        TypeError,
        r"Dense\(2\) must be called on a tensor, such as fastcnn.Input(.|\n)*make a Model and call",
    ),
    (lambda: Dense(2)(None), TypeError, "must be called on a tensor, .*got None"),  # type: ignore[arg-type]
    (
        lambda: Dense(2)([Input((3,)), Input((3,))]),
        TypeError,
        r"Dense\(2\) must be called on one tensor, got 2; a layer that merges several, such as",
    ),
    (
        lambda: Add()(Input((3,))),
        TypeError,
        r"Add\(\) must be called on a list of tensors, such as \[a, b\], got one",
    ),
    (
        lambda: Multiply()([Input((4, 6, 3)), Input((3,))]),
        ValueError,
        r"got \(4, 6, 3\) and \(3,\); Reshape\(\(1, 1, 3\)\) before it makes a vector fit",
    ),
    (
        lambda: Multiply()([Input((5,)), Input((4, 6, 3))]),
        ValueError,
        r"got \(5,\) and \(4, 6, 3\)$",
    ),
    (lambda: Input((3,)) + Input((3,)), TypeError, r"layers do arithmetic, such as Add\(\)"),  # type: ignore[operator]
    (lambda: 2 * Input((3,)), TypeError, r"layers do arithmetic, such as Add\(\)"),  # type: ignore[operator]
    (
        lambda: Sequential([graph("two_of_each"), Dense(2)]),  # type: ignore[list-item]
        TypeError,
        r"got Model\( ○ .*at place 0; \[\*model\.layers\] lists a model's layers",
    ),
    (lambda: Add()([]), TypeError, r"Add\(\) must be called on a list of tensors, .*got \[\]"),
    (lambda: Add()([Input((3,))]), ValueError, "Add needs at least two inputs"),
    (lambda: Add()([Input((3,)), np.zeros(3)]), TypeError, "must be called on a list of tensors"),
    (
        lambda: Dense(2)(Input((6, 5))),
        ValueError,
        r"Dense\(2\) got an input of shape \(6, 5, 1\): Dense needs vectors.*Flatten\(\)",
    ),
    *(
        (
            lambda kind=kind: kind()([Input((4, 6, 3)), Input((4, 5, 3))]),
            ValueError,
            rf"{kind.__name__}\(\) got an input of shape \(\(4, 6, 3\), \(4, 5, 3\)\): "
            rf"{kind.__name__} needs inputs whose axes are equal, or 1 in one of them, got "
            rf"\(4, 6, 3\).*\(4, 5, 3\)",
        )
        for kind in (Add, Subtract, Multiply, Average, Maximum)
    ),
    (lambda: Add()([Input((4,)), Input((4, 1))]), ValueError, r"\(4,\).*\(4, 1, 1\)"),
    (
        lambda: Concatenate()([Input((4, 6, 3)), Input((4, 5, 3))]),
        ValueError,
        r"Concatenate needs inputs that are equal but for axis -1, got \(4, 6, 3\).*\(4, 5, 3\)",
    ),
    (lambda: Concatenate(0), ValueError, "axis must not be 0, which is that of the samples"),
    (lambda: Concatenate("1"), TypeError, "axis must be"),  # type: ignore[arg-type]
    (
        lambda: Concatenate(3)([Input((3,)), Input((3,))]),
        ValueError,
        r"axis must be from 1 to 1, or from -1 to -1, for inputs of shapes .*got 3",
    ),
    (lambda: Concatenate()([Input((3,))]), ValueError, "Concatenate needs at least two inputs"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG_CALLS)
def test_wrong_calls_are_told(call: Thunk, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()


def test_output_is_that_of_one_call() -> None:
    layer = Dense(3)
    with pytest.raises(ValueError, match=r"output of .*must be that of one call, .*called 0 times"):
        _ = layer.output
    first = layer(Input((3,)))
    assert layer.output is first
    layer(first)
    with pytest.raises(ValueError, match="called 2 times; keep the tensors that the calls return"):
        _ = layer.output
    with pytest.raises(AttributeError):
        layer.output = first  # type: ignore[misc]
    assert copy.deepcopy(layer)._outputs == ()


# --- what is no model -----------------------------------------------------------------------------


def _two_inputs() -> tuple[Tensor, Tensor, Tensor]:
    a, b = Input((3,)), Input((4,), name="b")
    return a, b, Concatenate()([Dense(2)(a), Dense(2)(b)])


def _of_other_model() -> Thunk:
    other = Sequential([Dense(4)], (3,))
    return lambda: Model(Input((3,)), Dense(2)(other.outputs[0]))


def _shared_by_two_shapes(layer: Layer) -> Thunk:
    a, b = Input((3,)), Input((4,))
    return lambda: Model([a, b], Concatenate()([layer(a), layer(b)]))


def _named(*names: str) -> Thunk:
    x = inputs = Input((3,))
    for name in names:
        layer = Dense(3)
        layer.name = name
        x = layer(x)
    return lambda: Model(inputs, x)


_a, _b, _both = _two_inputs()
_inner = Dense(3)
_OTHER = Input((5,))

WRONG_MODELS: dict[str, tuple[Thunk, type[Exception], str]] = {
    "an input that is missing": (
        lambda: Model(_a, _both),
        ValueError,
        r"outputs must come from the inputs alone, but Dense\(2\) was called on Input\(\(4,\), "
        r"name='b'\), which is not among them; add it to the inputs, or take outputs that come "
        r"from Input\(\(3,\)\)",
    ),
    "a layer of another model": (
        _of_other_model(),
        ValueError,
        r"Dense\(4\), a layer of another model, was called on Input\(\(3,\)\), which is not among",
    ),
    "an input that leads nowhere": (
        lambda: Model([_a, _b, _OTHER], _both),
        ValueError,
        r"inputs must all lead to an output, but no layer on the way to the outputs takes input 2, "
        r"Input\(\(5,\)\); leave it out",
    ),
    "an input behind an inner tensor": (
        lambda: Model([_a, _b, _both], Dense(2)(_both)),
        ValueError,
        "inputs must all lead to an output, .*takes input 0",
    ),
    "an output that is an input": (
        lambda: Model(_a, _a),
        ValueError,
        r"outputs must be results of layers, got Input\(\(3,\)\)",
    ),
    "one input twice": (lambda: Model([_a, _a], _both), ValueError, "inputs must be different"),
    "one output twice": (
        lambda: Model([_a, _b], [_both, _both]),
        ValueError,
        "outputs must be different tensors",
    ),
    "no inputs": (lambda: Model([], _both), ValueError, "inputs must be at least one tensor"),
    "no outputs": (lambda: Model([_a], []), ValueError, "outputs must be at least one tensor"),
    "layers": (
        lambda: Model(_a, [Dense(2)]),  # type: ignore[list-item]
        TypeError,
        r"outputs must be a tensor or a list of tensors, .*got \[Dense\(2\)\]",
    ),
    "a shape": (lambda: Model((28, 28), _both), TypeError, r"inputs must be .*got \(28, 28\)"),  # type: ignore[arg-type]
    "inputs of one name": (
        lambda: Model([_b, (c := Input((4,), name="b"))], Add()([_b, c])),
        ValueError,
        "inputs must have different names, got 'b' twice",
    ),
    "layers of one name": (
        _named("one", "two", "one"),
        ValueError,
        "layers must have different names, got two of the name 'one'",
    ),
    "a shared layer that needs other parameters": (
        _shared_by_two_shapes(Dense(2)),
        ValueError,
        r"Dense\(2\) is shared, so all its inputs must need the same parameters, got inputs of "
        r"shapes \(3,\) and \(4,\); give each a layer of its own",
    ),
    "a shared normalisation of other channels": (
        _shared_by_two_shapes(BatchNorm()),
        ValueError,
        r"BatchNorm\(\) is shared, .*shapes \(3,\) and \(4,\)",
    ),
    "a layer that is also inside of another": (
        lambda: Model(_a, Residual([_inner])(_inner(_a))),
        ValueError,
        r"layers must not hold one layer twice, got Dense\(3\)",
    ),
    "a dtype": (
        lambda: Model([_a, _b], _both, dtype="float16"),  # type: ignore[arg-type]
        ValueError,
        'dtype must be "float32" or "float64"',
    ),
    "an engine": (
        lambda: Model([_a, _b], _both, engine="gpu"),
        ValueError,
        "engine must be .*'gpu'",
    ),
}


@pytest.mark.usefixtures("nothing_drawn")
@pytest.mark.parametrize("name", WRONG_MODELS)
def test_wrong_models_are_told_before_anything_is_drawn(name: str) -> None:
    make, error, text = WRONG_MODELS[name]
    with pytest.raises(error, match=text):
        make()


def test_a_model_may_begin_and_end_in_the_middle() -> None:
    base = graph("inception")
    middle = base.get_layer("concatenate").output
    first, rest = Model(base.inputs, middle), Model(middle, base.outputs)
    assert first.output_shape == rest.input_shape == middle.shape
    x = samples(base, 3)
    np.testing.assert_allclose(rest.predict(first.predict(x)), base.predict(x), rtol=1e-4)
    head = Model(base.inputs, [*base.outputs, middle])
    same_bits(head.predict(x)[1], first.predict(x))


# --- what a model says ----------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["naive", "im2col", None])
def test_outputs_are_arrays_of_their_own(engine: str | None) -> None:
    """Layers that only move numbers return views, here of another output and of the input."""
    inputs = Input((4, 6))
    x = ReLU()(inputs)
    model = Model(inputs, [x, Flatten()(x), Dropout(0.5)(inputs)], engine=engine)
    model.loss = "mse"  # type: ignore[assignment]
    data = np.random.default_rng(0).standard_normal((2, 4, 6)).astype(np.float32)
    one, other, moved = model.predict(data)
    assert not np.shares_memory(one, other)
    assert not np.shares_memory(moved, data)
    same_bits(one.reshape(2, -1), other)


@pytest.mark.parametrize("engine", ["im2col", None])
def test_a_net_without_its_last_layer_takes_values_in_the_same_order(engine: str | None) -> None:
    """Training and prediction leave out a softmax that the loss implies."""
    inputs = Input((4,))
    first = Dense(3)(inputs)
    second = ReLU()(first)
    model = Model(inputs, Softmax()(Subtract()([second, first])), seed=0, engine=engine)
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    scores = np.maximum(x @ model.layers[0].parameters["w"], 0)
    scores -= x @ model.layers[0].parameters["w"]
    powers = np.exp(scores)
    np.testing.assert_allclose(
        model.predict(x), powers / powers.sum(axis=1, keepdims=True), rtol=1e-5
    )


def test_a_model_knows_its_shapes_tensors_and_layers() -> None:
    model = graph("two_of_each")
    assert model.built
    assert model.input_shape == ((5, 6, 2), (3,))
    assert model.output_shape == ((4,), (2,))
    assert [tensor.name for tensor in model.inputs] == ["images", "numbers"]
    assert [tensor.layer for tensor in model.outputs] == [
        model.get_layer("classes"), model.get_layer("size"),
    ]  # fmt: skip
    for layer in model.layers:
        assert layer.output.layer is layer
    single = graph("inception")
    assert (single.input_shape, single.output_shape) == ((7, 9, 3), (4,))
    assert (len(single.inputs), len(single.outputs)) == (1, 1)
    row = Sequential([Dense(3), Dense(2)])
    for unknown in (lambda: row.inputs, lambda: row.outputs, row.summary, row.draw, row.explain):
        with pytest.raises(ValueError, match="input_shape must be known"):
            unknown()
    row.build((4,))
    assert row.inputs[0].shape == (4,)
    assert row.outputs[0] is row.layers[1].output


def test_layers_have_names_by_which_they_are_found() -> None:
    inputs, named = Input((3,)), Dense(3)
    named.name = "dense_1"
    x = Dense(3)(Dense(3)(named(Dense(3)(inputs))))
    model = Model(inputs, Dense(2)(BatchNorm()(x)))
    assert [layer.name for layer in model.layers] == [
        "dense", "dense_1", "dense_2", "dense_3", "batch_norm", "dense_4",
    ]  # fmt: skip
    for layer in model.layers:
        assert model.get_layer(layer.name) is layer
    with pytest.raises(
        ValueError, match=r"name must be that of a layer, dense, dense_1, .*got 'conv'"
    ):
        model.get_layer("conv")
    with pytest.raises(AttributeError, match="name cannot change, because the layer belongs to"):
        model.layers[0].name = "first"
    with pytest.raises(TypeError, match="name must be text, not empty, or None, got 7"):
        named.name = 7  # type: ignore[assignment]
    # In another model a given name stays, and others are counted anew.
    rest = Model(model.get_layer("dense_1").output, model.outputs)
    assert [layer.name for layer in rest.layers] == ["dense", "dense_1", "batch_norm", "dense_2"]
    loose = copy.deepcopy(model.layers[1])
    assert (loose.name, loose._own_name, loose._owner) == ("dense_1", "dense_1", None)
    for unbuilt, name in ((Dense(2), "dense"), (GlobalAvgPool2D(), "global_avg_pool2d")):
        assert unbuilt.name == name
    row = Sequential([Dense(3), Dense(2)])
    assert row.get_layer("dense_1") is row.layers[1], "also before it is built"


def test_a_layer_of_a_model_keeps_its_tensor_when_it_is_called_again() -> None:
    model = graph("two_of_each")
    layer = model.get_layer("dense")
    before = layer.output
    other = layer(Input((3,)))
    assert layer.output is before is not other
    model([Input((5, 6, 2)), Input((3,))])
    assert layer.output is before
    transfer = Model(model.inputs[1], Dense(2)(before), seed=0)
    same_bits([*transfer.layers[0].parameters.values()], [*layer.parameters.values()])


def test_summary_and_drawing_show_the_graph(capsys: pytest.CaptureFixture[str]) -> None:
    graph("two_of_each").summary()
    table = capsys.readouterr().out
    assert [re.split(r"\s{2,}", line)[:3] for line in table.splitlines()] == [
        ["name", "layer", "input"],
        ["conv2d", "Conv2D(6, (2, 3), activation='relu')", "images"],
        ["global_avg_pool2d", "GlobalAvgPool2D()", "conv2d"],
        ["dense", "Dense(4)", "numbers"],
        ["tanh", "Tanh()", "dense"],
        ["concatenate", "Concatenate()", "global_avg_pool2d, tanh"],
        ["classes", "Dense(4)", "concatenate"],
        ["dense_1", "Dense(6)", "concatenate"],
        ["subtract", "Subtract()", "dense_1, global_avg_pool2d"],
        ["size", "Dense(2)", "subtract"],
        ["total", "218", "0.003"],
    ]
    assert graph("two_of_each").draw().splitlines() == [
        "○      images             (5, 6, 2)",
        "│ ○    numbers            (3,)",
        "● │    conv2d             Conv2D(6, (2, 3), activation='relu')  (4, 4, 6)",
        "● │    global_avg_pool2d  GlobalAvgPool2D()  (6,)",
        "├─┼─╮",
        "│ ● │  dense              Dense(4)  (4,)",
        "│ ● │  tanh               Tanh()  (4,)",
        "├─╯ │",
        "●   │  concatenate        Concatenate()  (10,)",
        "├─╮ │",
        "● │ │  classes            Dense(4)  (4,)  → output",
        "  ● │  dense_1            Dense(6)  (6,)",
        "  ├─╯",
        "  ●    subtract           Subtract()  (6,)",
        "  ●    size               Dense(2)  (2,)  → output",
    ]


def test_a_shared_layer_is_shown_at_each_call_and_counted_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inputs, layer = Input((3,)), Dense(3)
    model = Model(inputs, Add()([layer(layer(inputs)), inputs]))
    model.summary()
    table = capsys.readouterr().out
    assert table.splitlines()[1:] == [
        "dense, call 1  Dense(3)  input_0                 (3,)                  12  0.000",
        "dense, call 2  Dense(3)  dense, call 1           (3,)                      0.000",
        "add            Add()     dense, call 2, input_0  (3,)",
        "total                                                                  12  0.000",
    ]
    assert model.draw().count("dense, call 2") == 1
    assert len(model.layers) == 2
    assert repr(model) == f"Model(\n{model.draw()}\n)"
    assert "<td>dense, call 2</td>" in model._repr_html_()


@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_can_be_drawn_so_that_each_line_leads_somewhere(name: str) -> None:
    """Each call has a line with one mark; no lane is left over below the last one."""
    model = graph(name)
    lines = model.draw().splitlines()
    marks = [line for line in lines if "●" in line or "○" in line]
    assert len(marks) == len(model.inputs) + len(model._graph.nodes)
    assert all(line.count("●") + line.count("○") <= 1 for line in lines)
    assert "│" not in lines[-1]
    assert len(lines) < 3 * len(marks)


# --- a model as a layer ---------------------------------------------------------------------------


def test_a_model_called_on_tensors_is_part_of_another() -> None:
    inner = graph("two_of_each")
    images, numbers = Input((5, 6, 2)), Input((3,))
    result = inner([images, numbers])
    assert isinstance(result, tuple)
    classes, size = result
    assert (classes.shape, size.shape) == ((4,), (2,))
    outer = Model([images, numbers], [classes, size])
    x = samples(inner, 3)
    outer.loss = ["cross_entropy", "mse"]  # type: ignore[assignment]
    same_bits(outer.predict(x), inner.predict(x))
    before = inner.get_weights()
    outer.train_on_batch(x, targets(inner, 3))
    assert not np.array_equal(outer.get_weights()[0], before[0])
    same_bits(inner.get_weights(), before)
    for wrong, error in [
        (images, ValueError),
        ([numbers, images], ValueError),
        ([images, numbers, numbers], ValueError),
        (x, TypeError),
        ([images, images], ValueError),
    ]:
        with pytest.raises(error, match="inputs must be"):
            inner(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="input_shape must be known"):
        Sequential([Dense(2)])(numbers)


def test_a_model_called_twice_shares_its_layers() -> None:
    model = graph("called")
    inner = [layer for layer in model.layers if isinstance(layer, Conv2D)]
    assert len(inner) == 3, "two of the inner model, and one of the outer"
    assert len(model._graph.nodes) > len(model.layers)
    x, y = samples(model, 4), targets(model, 4)
    before = model.predict(x)
    model.fit(x, y, 2, verbose=0)
    assert not np.array_equal(model.predict(x), before)


# --- wrong samples, targets and losses ------------------------------------------------------------

_IMAGES, _NUMBERS = np.zeros((4, 5, 6, 2)), np.zeros((4, 3))
_X = [_IMAGES, _NUMBERS]
_Y = [[0, 1, 2, 3], np.zeros((4, 2))]


def _fit(**changes: Any) -> Callable[[Model], object]:
    def fit(model: Model) -> object:
        return model.fit(**{"x": _X, "y": _Y, "verbose": 0, **changes})

    return fit


WRONG_DATA: list[tuple[Callable[[Model], object], type[Exception], str]] = [
    (_fit(x=_IMAGES), TypeError, "x must be a list of 2, one for each input, or a dict by the na"),
    (_fit(x=[_IMAGES]), ValueError, "x must have one item for each input, images, numbers, got 1"),
    (_fit(x=[*_X, _NUMBERS]), ValueError, "x must have one item for each input.*got 3 of 2"),
    (
        _fit(x={"images": _IMAGES}),
        ValueError,
        "x must have an item for each input, images, numbers, got images",
    ),
    (_fit(x={}), ValueError, "x must have an item for each input, images, numbers, got none"),
    (
        _fit(x={"images": _IMAGES, "number": _NUMBERS}),
        ValueError,
        "x must have .* images, numbers, got images, number",
    ),
    (_fit(x=[_NUMBERS, _IMAGES]), ValueError, r"x\['images'\] must have the shape \(N, 5, 6, 2\)"),
    (_fit(x=[_IMAGES, "?"]), TypeError, r"x\['numbers'\] must hold real numbers"),
    (
        _fit(x=[_IMAGES, _NUMBERS[:3]]),
        ValueError,
        "x must have as many samples for each, got 4 for 'images' and 3 for 'numbers'",
    ),
    (_fit(x=[_IMAGES, _NUMBERS * np.nan]), ValueError, r"x\[1\] must hold finite numbers"),
    (_fit(x=[_IMAGES[:0], _NUMBERS[:0]]), ValueError, "x must hold at least one sample"),
    (_fit(y=_Y[0]), ValueError, "y must have one item for each output, classes, size, got 4 of 2"),
    (_fit(y=_NUMBERS), TypeError, "y must be a list of 2, one for each output, .*got ndarray"),
    (_fit(y={"classes": _Y[0]}), ValueError, "y must have .*classes, size, got classes"),
    (_fit(y=[_Y[0], np.zeros((3, 2))]), ValueError, "y must have one label per sample, 4, got 3"),
    (_fit(y=[[0, 1, 2, 4], _Y[1]]), ValueError, "y for output 'classes': .* below 4"),
    (_fit(y=[_Y[0], np.zeros((4, 3))]), ValueError, "y for output 'size': "),
    (_fit(loss=["mse"]), ValueError, "loss must have one item for each output, classes, size"),
    (_fit(loss={"size": "mse"}), ValueError, "loss must have .*classes, size, got size"),
    (_fit(loss={"size": "mse", "classes": "msee"}), ValueError, "loss must be .*'msee'"),
    (_fit(loss=5), TypeError, "loss must be a list of 2, one for each output"),
    (_fit(loss_weights=[1]), ValueError, "loss_weights must have one item for each output"),
    (_fit(loss_weights={"size": 1}), ValueError, "loss_weights must have .*got size"),
    (_fit(loss_weights=2), TypeError, "loss_weights must be a list of 2"),
    (
        _fit(loss_weights=[1, -1]),
        ValueError,
        r"loss_weights\['size'\] must be a finite number of at least 0, got -1",
    ),
    (_fit(loss_weights=[1, "1"]), TypeError, r"loss_weights\['size'\] must be a number"),
    (_fit(class_weight={0: 1}), ValueError, "class_weight must be None for a model with several"),
    (
        _fit(augment=lambda images, rng: images),
        ValueError,
        "augment must be None for a model with several inputs",
    ),
    (_fit(validation_data=_X), TypeError, "validation_data must be a list of 2"),
    (_fit(validation_data=(_IMAGES, _Y)), TypeError, "validation_data must be a list of 2"),
    (_fit(validation_data=(_X, [_Y[0], _Y[0]])), ValueError, "validation_data: y for output 'si"),
    (lambda model: model.predict(_IMAGES), TypeError, "x must be a list of 2"),
    (lambda model: model.predict({"images": _IMAGES}), ValueError, "x must have an item for"),
    (lambda model: model.evaluate(_X, _Y[:1]), ValueError, "y must have one item for each output"),
    (lambda model: model.train_on_batch(_X, _Y[:1]), ValueError, "y must have one item for each"),
    (
        lambda model: model.train_on_batch(_X, _Y, class_weight={0: 1}),
        ValueError,
        "class_weight needs a model with one output",
    ),
    (lambda model: model.predict_classes(_X), ValueError, "predict_classes needs a net with one"),
    (
        lambda model: model.input_gradient(_X, 1),
        TypeError,
        "output must be a list of 2, one for each output",
    ),
    (
        lambda model: model.input_gradient(_X, {"classes": 1}),
        ValueError,
        "output must have an item for each output, classes, size, got classes",
    ),
    (lambda model: model.input_gradient(_X, [1, 2]), ValueError, "output must be from 0 to 1"),
    (lambda model: setattr(model, "loss", ["mse"]), ValueError, "loss must have one item for eac"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG_DATA)
def test_wrong_datatargets_and_losses_are_told_before_anything_changes(
    call: Callable[[Model], object], error: type[Exception], text: str
) -> None:
    model = graph("two_of_each")
    before, state = model.get_weights(), model.rng.bit_generator.state
    with pytest.raises(error, match=text):
        call(model)
    same_bits(model.get_weights(), before)
    assert model.rng.bit_generator.state == state
    assert model.progress is None


def test_a_model_with_one_output_takes_no_loss_weights() -> None:
    model = graph("gated")
    with pytest.raises(ValueError, match="loss_weights must be None for a model with one output"):
        model.fit(samples(model, 2), targets(model, 2), loss_weights=[1.0], verbose=0)


def test_each_input_remembers_what_it_was_trained_on() -> None:
    model = graph("two_of_each")
    x, y = samples(model, 6), targets(model, 6)
    x[0] = np.random.default_rng(0).integers(0, 256, x[0].shape).astype(np.uint8)
    assert model.trained_on == (None, None)
    model.fit(x, y, verbose=0)
    assert model.trained_on == ("uint8", "floats")
    with pytest.raises(ValueError, match=r"x\[1\] must .*floats"):
        model.predict([x[0], x[1].astype(np.uint8)])
    model.trained_on = ("uint8", None)
    assert model.predict([x[0], x[1].astype(np.uint8)])[0].shape == (6, 4)
    for wrong in (("uint8",), "uint8", ("bytes", None)):
        with pytest.raises(ValueError, match=r"trained_on must"):
            model.trained_on = wrong  # type: ignore[assignment]


def test_an_estimator_and_programs_for_pictures_take_nets_with_one_input_and_output() -> None:
    from fastcnn.models.described import only_input

    assert only_input(graph("inception")) == (7, 9, 3)
    with pytest.raises(ValueError, match="must have one input and one output, got 2 inputs and 2"):
        only_input(graph("two_of_each"))
    with pytest.raises(TypeError, match="net must"):
        CNNClassifier(graph("inception")).fit(np.zeros((4, 7, 9, 3)), [0, 1, 0, 1])


# --- layers of a user's own -----------------------------------------------------------------------


@pytest.mark.parametrize("engine", [None, "im2col", "naive"])
def test_a_merging_layer_of_a_users_own_trains_in_every_engine(engine: str | None) -> None:
    a, b = Input((3,)), Input((2,))
    merged = Shuffled()([a, Dense(2)(b), b])
    model = Model([a, b], Dense(2)(merged), seed=0, dtype="float64", engine=engine)
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((6, 3)), rng.standard_normal((6, 2))]
    y = rng.standard_normal((6, 2))
    for part in x:
        part.setflags(write=False)
    model.loss = "mse"  # type: ignore[assignment]
    before = model.get_weights()
    slopes = [slope(lambda: model.evaluate(x, y)["loss"], array) for _, array in model._arrays()]
    model.train_on_batch(x, y, SGD(1.0))
    for new, old, expected in zip(model.get_weights(), before, slopes, strict=True):
        same(old - new, expected)

    def outputs() -> float:
        return float(model.predict(writable)[:, 1].sum())

    writable = [part.copy() for part in x]
    for result, part in zip(model.input_gradient(writable, 1), writable, strict=True):
        same(result, slope(outputs, part))


@pytest.mark.parametrize("engine", [None, "im2col"])
@pytest.mark.parametrize("fault", ["output", "one", "few", "shape", "nothing", "NaN"])
def test_a_merging_layer_that_returns_something_else_is_named(
    fault: str, engine: str | None
) -> None:
    a, b = Input((3,)), Input((2,))
    outputs = Dense(2)(Shuffled(fault)([Dense(3)(a), Dense(2)(b)]))
    model = Model([a, b], outputs, seed=0, engine=engine)
    before = model.get_weights()
    x = [np.ones((4, 3)), np.ones((4, 2))]
    method = "forward" if fault == "output" else "backward"
    text = rf"Shuffled\(fault={fault!r}\)\.{method} (must return|returned a gradient .* with NaN)"
    with pytest.raises((TypeError, ValueError, FloatingPointError), match=text):
        model.train_on_batch(x, [0, 1, 0, 1])
    same_bits(model.get_weights(), before)
    if fault == "output":
        with pytest.raises(ValueError, match=text):
            model.predict(x)


@pytest.mark.parametrize("engine", [None, "im2col"])
def test_a_layer_of_a_users_own_may_be_shared_by_images_of_two_sizes(engine: str | None) -> None:
    a, b, layer = Input((3, 2, 4)), Input((2, 5, 4)), Doubled()
    pooled = [GlobalAvgPool2D()(layer(Conv2D(4, 1)(x))) for x in (a, b)]
    model = Model([a, b], Dense(3)(Add()(pooled)), seed=0, engine=engine)
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((4, 3, 2, 4)), rng.standard_normal((4, 2, 5, 4))]
    plain = Model(
        [a, b], Dense(3)(Add()([GlobalAvgPool2D()(Conv2D(4, 1)(one)) for one in (a, b)])), seed=0
    )
    plain.set_weights(model.get_weights())
    for one in (model, plain):
        one.train_on_batch(x, [0, 1, 2, 0], SGD(0.5))
    np.testing.assert_allclose(model.predict(x), plain.predict(x), rtol=1e-5)


# --- copies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deep", "shallow", "pickle"],
)
@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "u_net"])
def test_copies_train_like_the_model_and_leave_it_alone(
    name: str, copied: Callable[[Model], Model]
) -> None:
    model = graph(name)
    x, y = samples(model, 6), targets(model, 6)
    model.fit(x, y, 1, 3, SGD(0.1, momentum=0.9), seed=1, verbose=0)
    before, weights_before = model.predict(x), model.get_weights()
    other = copied(model)
    assert type(other) is Model
    assert other.draw() == model.draw()
    assert [tensor.name for tensor in other.inputs] == [tensor.name for tensor in model.inputs]
    assert [tensor.layer for tensor in other.outputs] == [
        other.get_layer(tensor.layer.name) for tensor in model.outputs if tensor.layer is not None
    ]
    same_bits(other.predict(x), before)
    descent = SGD(0.1)
    other.fit(x, y, 2, 3, descent, verbose=0)
    same_bits(model.get_weights(), weights_before)
    same_bits(model.predict(x), before)
    model.fit(x, y, 2, 3, SGD(0.1), verbose=0)
    same_bits(model.get_weights(), other.get_weights())


# --- layers in a graph ----------------------------------------------------------------------------


def test_dropout_and_residuals_draw_as_layer_by_layer() -> None:
    states = []
    for engine in (None, "im2col"):
        inputs = Input((6,))
        x = Add()([Dropout(0.3)(Dense(6)(inputs)), Residual([Dropout(0.2), Dense(6)])(inputs)])
        first = Dense(6)(x)  # another branch draws before the layer behind it does
        x = Add()([Dropout(0.4)(x), Dropout(0.1)(first)])
        model = Model(inputs, Dense(2)(x), seed=0, dtype="float64", engine=engine)
        data = np.random.default_rng(1).standard_normal((5, 6))
        model.train_on_batch(data, [0, 1, 1, 0, 1])
        states.append((model.rng.bit_generator.state, model.get_weights()))
    assert states[0][0] == states[1][0]
    for a, b in zip(listed(states[0][1]), listed(states[1][1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_flatten_of_a_graph_is_a_view_of_no_sample() -> None:
    """Layers that only move numbers return views, and a prediction is a new array."""
    inputs = Input((2, 3))
    model = Model(inputs, [Flatten()(inputs), Dense(2)(Flatten()(inputs))])
    model.loss = "mse"  # type: ignore[assignment]
    x = np.random.default_rng(0).standard_normal((4, 2, 3, 1)).astype(np.float32)
    moved, _ = model.predict(x)
    assert not np.shares_memory(moved, x)
    np.testing.assert_array_equal(moved, x.reshape(4, 6))
