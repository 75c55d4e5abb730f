"""``save_onnx``: every layer and every net, judged by other programs on the same inputs.

The judge is ONNX Runtime where it is installed, else the reference evaluator of the package onnx.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn import Input, Model, Preparation, Sequential
from fastcnn import layers as public_layers
from fastcnn.core.arguments import Array
from fastcnn.exchange import onnx_export
from fastcnn.layers import (
    ELU,
    GELU,
    LRN,
    Add,
    Average,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Layer,
    LayerNorm,
    LeakyReLU,
    Maximum,
    MaxPool2D,
    Merge,
    MinPool2D,
    Multiply,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    SeparableConv2D,
    Sigmoid,
    Softmax,
    Softplus,
    Subtract,
    Swish,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.nn.layers import all_layers

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
try:
    import onnxruntime
except ImportError:
    onnxruntime = None

RNG = np.random.default_rng(0)


def run(path: Path, feed: dict[str, Array]) -> list[Array]:
    """The outputs of a file, computed by another program."""
    results: list[Array]
    if onnxruntime is None:
        from onnx.reference import ReferenceEvaluator

        results = ReferenceEvaluator(str(path)).run(None, feed)
        return results
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    results = onnxruntime.InferenceSession(str(path), options).run(None, feed)
    return results


def randomised(model: Model) -> Model:
    """The model with random parameters and statistics, and without compiled kernels."""
    model.engine = "im2col"
    for layer in all_layers(model.layers):
        if layer.inner_layers():
            continue
        for arrays in (layer.parameters, layer.state):
            for name, array in arrays.items():
                values = RNG.standard_normal(array.shape) * 0.5
                array[...] = np.abs(values) + 0.5 if name == "variance" else values
    return model


def first(array: Array) -> Array:
    """Images with their channels first."""
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2)) if array.ndim == 4 else array


def compare(model: Model, path: Path, layout: Any, of: Any = "raw", bound: float = 1e-5) -> Any:
    """Save the model, run the file, and compare; the file as onnx reads it."""
    if of == "raw":
        model.loss, of = "mse", "predictions"
    model.save_onnx(path, layout, of)
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    shapes = model._known_shapes()
    inputs = [RNG.standard_normal((3, *shape)).astype(np.float32) for shape in shapes]
    names = [value.name for value in proto.graph.input]
    assert names == model._input_names()
    assert [value.name for value in proto.graph.output] == model._output_names()
    placed = [first(one) for one in inputs] if layout == "channels_first" else inputs
    results = run(path, dict(zip(names, placed, strict=True)))
    if of == "scores":
        model.loss = "mse"
    expected = model.predict(inputs if len(inputs) > 1 else inputs[0])
    for result, one in zip(
        results, expected if isinstance(expected, list) else [expected], strict=True
    ):
        right = first(one) if layout == "channels_first" else one
        assert result.shape == right.shape
        assert result.dtype == np.float32
        assert np.abs(result - right).max() <= bound * max(1e-6, np.abs(right).max())
    return proto


IMAGE, VECTOR = (4, 5, 6), (6,)
IN_PLACE = (
    ReLU(), ReLU(6), LeakyReLU(0.1), Tanh(), Sigmoid(), Softmax(), ELU(0.7), HardSigmoid(0.3, 0.4),
    HardSwish(), Swish(), GELU(), GELU(approximate=True), Softplus(), PReLU(), Dropout(0.3),
    BatchNorm(), LayerNorm(), LayerNorm(scale=False), LayerNorm(center=False, scale=False),
    GroupNorm(2), GroupNorm(3, scale=False, center=False), LRN(5, 0.5), LRN(4, 0.3, 0.6, 2.0),
)  # fmt: skip
"""Layers that take samples of any number of axes."""
CASES: list[tuple[Sequence[Layer], tuple[int, ...]]] = [
    ([Conv2D(6, 3, 2, "same", activation="relu", groups=3)], (8, 9, 3)),
    ([Conv2D(4, (3, 2), padding=((1, 0), (2, 1)), dilation=2, use_bias=False)], (8, 9, 3)),
    ([DepthwiseConv2D(3, 2, 1, depth_multiplier=2)], (8, 9, 3)),
    ([SeparableConv2D(5, 3, depth_multiplier=2, activation="relu")], (8, 9, 3)),
    ([SeparableConv2D(5, (3, 2), 2, "same", use_bias=False)], (8, 9, 3)),
    ([Conv2DTranspose(4, 3, 2, "same")], (5, 6, 3)),
    ([Conv2DTranspose(6, (3, 2), (2, 3), 1, 1, groups=3, activation="relu")], (5, 6, 3)),
    ([Conv2DTranspose(6, 3, 2, dilation=2, use_bias=False)], (5, 6, 3)),
    ([MaxPool2D(3, 2, "same")], (8, 9, 3)),
    ([MinPool2D(3, 2, 1)], (8, 9, 3)),
    ([AvgPool2D(3, 2, 1)], (8, 9, 3)),
    ([AvgPool2D((3, 2), 2, ((0, 1), (0, 0)))], (8, 9, 3)),
    ([GlobalAvgPool2D()], IMAGE),
    ([GlobalMaxPool2D()], IMAGE),
    ([LayerNorm((-2, -1))], IMAGE),
    ([LayerNorm((-3, -2, -1))], IMAGE),
    ([Reshape((3, 4)), LayerNorm((-2, -1))], (12,)),
    ([UpSampling2D((2, 3))], IMAGE),
    ([UpSampling2D(2, "bilinear")], IMAGE),
    ([Resize(1, 3, "bilinear", "align_corners")], IMAGE),
    ([Resize(7, 3, "bilinear", "asymmetric")], IMAGE),
    ([Resize(7, 3, "bilinear", "half_pixel")], IMAGE),
    ([Resize(7, 3, "nearest", "half_pixel", "round_prefer_floor")], IMAGE),
    ([Resize(7, 3, "nearest", "align_corners", "round_prefer_ceil")], IMAGE),
    ([Resize(7, 13, "nearest", "asymmetric", "ceil")], IMAGE),
    ([Resize(7, 13, "nearest", "asymmetric", "floor")], IMAGE),
    ([ZeroPadding2D(((0, 1), (2, 3)))], IMAGE),
    ([Cropping2D(((0, 1), (2, 1)))], IMAGE),
    ([DepthToSpace(2)], (4, 5, 8)),
    ([DepthToSpace(2, "CRD")], (4, 5, 8)),
    ([Permute((3, 1, 2))], IMAGE),
    ([Permute((2, 1, 3)), Flatten(), Dense(2)], IMAGE),
    ([Reshape((3, 4)), Permute((2, 1)), Flatten()], (12,)),
    ([Flatten(), Dense(5, activation="relu"), Dense(3, use_bias=False)], IMAGE),
    ([Flatten()], IMAGE),
    ([Flatten(), Reshape((2, 15))], (2, 5, 3)),
    ([Reshape((5, 4, 3)), Conv2D(2, 2)], (4, 5, 3)),
    ([Dense(24), ReLU(), Reshape((2, 3, 4)), Conv2D(2, 2)], (5,)),
    ([Flatten(), BatchNorm(), PReLU(), LayerNorm(), Softmax(), Dense(3)], (2, 3, 4)),
    ([Flatten(), GroupNorm(2), Dense(3)], (2, 3, 4)),
    ([Flatten(), LRN(3, 1.0), Dense(3)], (2, 3, 4)),
    ([Flatten(), Reshape((2, 3, 4)), Conv2D(2, 2)], (2, 3, 4)),
    ([Flatten(), Residual([Dense(24)], activation="relu"), Dense(2)], (2, 3, 4)),
    ([Residual([Conv2D(6, 3, padding=1), BatchNorm()], activation="relu")], IMAGE),
    ([Residual([Conv2D(4, 1)], [Residual([Conv2D(6, 1)]), Conv2D(4, 1)])], IMAGE),
    *(([layer], shape) for layer in IN_PLACE for shape in (IMAGE, VECTOR)),
    *(([Reshape((3, 4)), layer], (12,)) for layer in (Softmax(), BatchNorm(), LayerNorm())),
    ([Reshape((3, 4)), GroupNorm(2)], (12,)),
    ([Reshape((3, 4)), LRN(3, 1.0)], (12,)),
    ([Reshape((3, 4)), PReLU()], (12,)),
]


def _is_wrong_in_the_reference(layers: Sequence[Layer]) -> bool:
    """Whether the evaluator of onnx 1.23 fails: groups of ConvTranspose, channels of LRN."""
    return any(
        (isinstance(layer, Conv2DTranspose) and layer.groups > 1)
        or (isinstance(layer, LRN) and layer.window % 2 == 1)
        for layer in layers
    )


def label(case: Any) -> str:
    return repr(case[0]) if isinstance(case, tuple) else str(case)


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("case", CASES, ids=label)
def test_layers(tmp_path: Path, case: Any, layout: str) -> None:
    layers, shape = case
    if onnxruntime is None and _is_wrong_in_the_reference(layers):
        pytest.skip("the reference evaluator of onnx is wrong for this layer")
    copies = [layer.from_config(layer.config()) for layer in layers]
    compare(randomised(Sequential(copies, shape)), tmp_path / "net.onnx", layout)


MERGES = (Add(), Subtract(), Multiply(), Maximum(), Average(), Concatenate(), Concatenate(1))


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("layer", MERGES, ids=repr)
def test_layers_of_several_inputs(tmp_path: Path, layer: Layer, layout: str) -> None:
    inputs = [Input((4, 5, 3), name="left"), Input((4, 5, 3)), Input((1, 1, 3))]
    if isinstance(layer, Concatenate):
        inputs = inputs[:2]
    output = layer.from_config(layer.config())(inputs)
    compare(randomised(Model(inputs, output)), tmp_path / "net.onnx", layout)


@pytest.mark.parametrize("layer", MERGES[:-1], ids=repr)
def test_vectors_in_several_orders(tmp_path: Path, layer: Layer) -> None:
    image, vector, one = Input((2, 3, 4)), Input((24,)), Input((1,))
    flat = ReLU()(Flatten()(image))
    for inputs, values in (
        ([image, vector], [flat, vector]),
        ([image, vector], [vector, flat]),
        ([image, one], [one, flat]),
        ([image, one], [flat, flat, one]),
    ):
        output = Dense(3)(layer.from_config(layer.config())(values))
        compare(randomised(Model(inputs, output)), tmp_path / "net.onnx", "channels_last")


def test_every_public_layer_is_tested() -> None:
    """None of the classes of ``fastcnn.layers`` is missing in the tests above, nor in the table."""
    tested = {type(one) for layers, _ in CASES for one in all_layers(layers)}
    tested |= {type(layer) for layer in MERGES}
    classes = {
        value
        for name in public_layers.__all__
        if isinstance(value := getattr(public_layers, name), type) and issubclass(value, Layer)
    }
    assert classes - {Layer, Merge, public_layers.Composite} == tested


NETS = {**fastcnn.nets.NETS, **fastcnn.nets.STANDARD_NETS}
WIDTHS = {"vgg16": ((32, 32, 3), 0.0625), "u_net": ((16, 32, 3), 0.25)}


def net(name: str) -> Any:
    """A net by name, small."""
    if name in fastcnn.nets.STANDARD_NETS:
        shape, width = WIDTHS.get(name, ((64, 64, 3), 0.125))
        return NETS[name](5, shape, width=width, seed=0)
    return Sequential(NETS[name](5), (32, 32, 1), seed=0)


@pytest.mark.parametrize("name", NETS)
def test_nets_by_name(tmp_path: Path, name: str) -> None:
    """Nets agree, and images are transposed at the border alone."""
    model = net(name)
    model.engine = "im2col"
    for layout, of, transposes in (
        ("channels_last", "predictions", 1 if name != "u_net" else 2),
        ("channels_first", "scores", 0),
    ):
        model.loss = None
        proto = compare(model, tmp_path / f"{layout}.onnx", layout, of)
        operators = [node.op_type for node in proto.graph.node]
        assert operators.count("Transpose") == transposes
        assert "Gather" not in operators


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("case", CASES, ids=label)
def test_layers_come_back(tmp_path: Path, case: Any, layout: str) -> None:
    """``load_onnx`` reads the file as a model that computes the same."""
    layers, shape = case
    copies = [layer.from_config(layer.config()) for layer in layers]
    model = randomised(Sequential(copies, shape))
    model.loss = "mse"
    model.save_onnx(tmp_path / "net.onnx", layout)  # type: ignore[arg-type]
    other = fastcnn.load_onnx(
        tmp_path / "net.onnx", "file" if layout == "channels_last" else "channels_last"
    )
    other.engine = "im2col"
    x = RNG.standard_normal((2, *shape)).astype(np.float32)
    expected, result = model.predict(x), other.predict(x)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= 1e-5 * max(1e-6, np.abs(expected).max())


def program_of(model: Model) -> list[str]:
    """The steps of ``explain()``, and the layers of its segments without what moves no number."""
    result = list[str]()
    for line in model.explain().splitlines():
        if line.startswith("    "):
            result.append(line.split("in registers: ReLU; ")[-1].strip())
        elif line.startswith(("compiled together", "alone")):
            kinds = re.findall(r"[A-Z]\w+(?=\()", line)
            names = [kind for kind in kinds if kind not in ("ReLU", "Flatten")]
            result += [f"{line.split(':')[0]}: {', '.join(names)}"] if names else []
    return result


@pytest.mark.parametrize("name", NETS)
def test_nets_come_back_as_the_same_program(tmp_path: Path, name: str) -> None:
    """``load_onnx`` makes the same steps of the file, which compute the same bits."""
    model = net(name)
    model.loss = "mse"
    x = RNG.random((2, *model._known_shapes()[0]), np.float32)
    model.engine = "im2col"
    expected = model.predict(x)
    model.engine = None
    # A file has no dropout, which cuts the segments of training in the model.
    drops = any(isinstance(layer, Dropout) for layer in model.layers)
    for layout, back in (("channels_last", "file"), ("channels_first", "channels_last")):
        model.save_onnx(tmp_path / "net.onnx", layout)  # type: ignore[arg-type]
        other = fastcnn.load_onnx(tmp_path / "net.onnx", back)  # type: ignore[arg-type]
        other.engine = "im2col"
        np.testing.assert_array_equal(other.predict(x), expected)
        other.engine = None
        if not drops:
            assert program_of(model) == program_of(other)


def test_names_are_those_of_the_model(tmp_path: Path) -> None:
    conv = Conv2D(4, 3, activation="relu")
    conv.name = "stem"
    model = Sequential([conv, Flatten(), Dropout(0.5), Dense(3)], (6, 7, 2))
    model.preparation = Preparation(background="dark")
    model.save_onnx(tmp_path / "net.onnx", "channels_first")
    proto = onnx.load(tmp_path / "net.onnx")
    nodes = ["stem/convolution", "stem", "flatten", "dense", "softmax"]
    assert [node.name for node in proto.graph.node] == nodes
    assert [one.name for one in proto.graph.output] == ["dense"]
    assert {one.name for one in proto.graph.initializer} == {
        "stem.w", "stem.b", "dense.w", "dense.b"
    }  # fmt: skip
    shape = proto.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in shape] == ["batch", 2, 6, 7]
    assert (proto.producer_name, proto.producer_version) == ("fastcnn", fastcnn.__version__)
    metadata = {one.key: one.value for one in proto.metadata_props}
    assert metadata["layout"] == "channels_first"
    assert json.loads(metadata["preparation"])["background"] == "dark"
    assert [one.version for one in proto.opset_import] == [17]


def test_outputs_that_are_also_taken_inside(tmp_path: Path) -> None:
    x = Input((4, 5, 3))
    y = Conv2D(3, 1)(x)
    dropped = Dropout(0.5)(y)
    outputs = [y, dropped, ReLU()(y), Flatten()(y), Dropout(0.1)(x), Dense(2)(Flatten()(dropped))]
    model = randomised(Model(x, outputs))
    for layout in ("channels_last", "channels_first"):
        compare(model, tmp_path / "net.onnx", layout)


def test_a_shared_layer_has_its_weights_once(tmp_path: Path) -> None:
    a, b, dense = Input((6,)), Input((6,)), Dense(6, activation="relu")
    model = randomised(Model([a, b], Add()([dense(dense(a)), dense(b)])))
    proto = compare(model, tmp_path / "net.onnx", "channels_last")
    assert sorted(one.name for one in proto.graph.initializer) == ["dense.b", "dense.w"]


def test_predictions_and_scores(tmp_path: Path) -> None:
    x = RNG.standard_normal((5, 6)).astype(np.float32)
    nets = (
        ([Dense(3)], "Softmax"),
        ([Dense(3), Softmax()], "Softmax"),
        ([Dense(1), Sigmoid()], "Sigmoid"),
    )
    for layers, operator in nets:
        model = Sequential(layers, (6,), seed=0)
        for of, last in (("predictions", operator), ("scores", "Gemm")):
            model.save_onnx(tmp_path / "net.onnx", of=of)  # type: ignore[arg-type]
            proto = onnx.load(tmp_path / "net.onnx")
            assert proto.graph.node[-1].op_type == last
            assert [node.op_type for node in proto.graph.node].count(operator) == (of != "scores")
        model.save_onnx(tmp_path / "net.onnx")
        (result,) = run(tmp_path / "net.onnx", {"input_0": x})
        assert np.abs(result - model.predict(x)).max() < 1e-6


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
def test_a_model_of_bytes_takes_bytes(tmp_path: Path, layout: Any) -> None:
    model = Sequential([Conv2D(4, 3), Flatten(), Dense(3)], (6, 7, 2), seed=0, engine="im2col")
    model.trained_on = "uint8"
    images = RNG.integers(0, 256, (4, 6, 7, 2), dtype=np.uint8)
    model.save_onnx(tmp_path / "net.onnx", layout)
    moved = first(images) if layout == "channels_first" else images
    (result,) = run(tmp_path / "net.onnx", {"input_0": moved})
    assert np.abs(result - model.predict(images)).max() < 1e-6
    metadata = onnx.load(tmp_path / "net.onnx").metadata_props
    assert {one.key: one.value for one in metadata}["bytes"] == "x / 255 - 0.5"


def test_a_trained_model_has_the_same_accuracy(tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = fastcnn.load_mnist()
    model = Sequential(fastcnn.nets.article(), seed=0, engine="im2col")
    model.fit(x[:1500], y[:1500], 1, optimizer="adam", seed=0, verbose=0)
    accuracy = model.evaluate(x_test[:1000], y_test[:1000])["accuracy"]
    assert accuracy > 0.7
    model.save_onnx(tmp_path / "net.onnx")
    (result,) = run(tmp_path / "net.onnx", {"input_0": x_test[:1000, :, :, None]})
    assert (result.argmax(1) == y_test[:1000]).mean() == accuracy


class Doubled(Layer):
    """A layer of a user's own that can be exported."""

    def infer(self, input_shape: Any) -> Any:
        return input_shape

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> tuple[Array, Any]:
        return x * 2, None

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy * 2, {}

    def to_onnx(self, graph: Any, x: str) -> str:
        name: str = graph.add("Mul", (x, graph.constant(np.float32(2), "two")))
        return name


class Undocumented(Doubled):
    """A layer that cannot."""

    to_onnx = None  # type: ignore[assignment]


class Rectified(Conv2D):
    """A class that derives from a built-in one may compute anything."""


def test_layers_of_users(tmp_path: Path) -> None:
    for layers in ([Doubled()], [Flatten(), Doubled(), Dense(2)]):
        compare(randomised(Sequential(layers, IMAGE)), tmp_path / "net.onnx", "channels_last")
    for layer in (Undocumented(), Rectified(2, 1)):
        model = Sequential([Conv2D(6, 1), layer], IMAGE)
        before = (tmp_path / "net.onnx").read_bytes()
        with pytest.raises(ValueError, match=rf"{layer.name}, {re.escape(repr(layer))}.*to_onnx"):
            model.save_onnx(tmp_path / "net.onnx")
        assert (tmp_path / "net.onnx").read_bytes() == before
    Doubled.to_onnx, kept = (lambda self, graph, x: 3), Doubled.to_onnx  # type: ignore[assignment]
    try:
        with pytest.raises(TypeError, match="to_onnx of Doubled must return"):
            Sequential([Doubled()], IMAGE).save_onnx(tmp_path / "net.onnx")
    finally:
        Doubled.to_onnx = kept  # type: ignore[method-assign]


def test_what_cannot_be_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(ValueError, match="input_shape must be known"):
        Sequential([Dense(2)]).save_onnx(path)
    with pytest.raises(ValueError, match=r"float64.*float32"):
        Sequential([Dense(2)], (3,), dtype="float64").save_onnx(path)
    model = Sequential([Dense(2)], (3,))
    with pytest.raises(ValueError, match="layout must be"):
        model.save_onnx(path, "nchw")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of must be"):
        model.save_onnx(path, of="logits")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.save_onnx(tmp_path / "nowhere" / "net.onnx")
    monkeypatch.setattr(onnx_export, "_LARGEST", 31)
    with pytest.raises(ValueError, match="32 bytes of weights"):
        model.save_onnx(path)
    assert not path.exists()


def test_without_onnx_a_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ImportError, match=r"fastcnn\[onnx\]"):
        Sequential([Dense(2)], (3,)).save_onnx(tmp_path / "net.onnx")
