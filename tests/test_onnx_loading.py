"""How the weights of ONNX files come into models: from each form of tensor, and without copies."""

from __future__ import annotations

import pickle
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.core.copies import copy_into
from fastcnn.exchange.onnx_functions import OnnxFileError

onnx = pytest.importorskip("onnx", reason="files are read through the package onnx")

from onnx_files import node, normal, reference, write  # noqa: E402

CONSTANTS = {
    "w": normal(9, 2, 3, 2), "filters": normal(200, 9, 5, 2), "b": normal(200),
    "scale": normal(1, 200, 1, 1), "v": normal(130, 200 * 2 * 4),
}  # fmt: skip


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A net with filters and a matrix of more than 64 KiB."""
    nodes = [
        node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r filters b", "d"),
        node("Mul", "d scale", "s"), node("MaxPool", "s", "p", kernel_shape=[2, 2]),
        node("Flatten", "p", "f"), node("Gemm", "f v", "y", transB=1),
    ]  # fmt: skip
    return write(tmp_path / "large.onnx", nodes, {"x": ["N", 2, 9, 7]}, ["y"], CONSTANTS)


def in_form(path: Path, form: str) -> Path:
    """The file with the numbers of its tensors in another form."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        if form == "floats":
            tensor.float_data.extend(array.reshape(-1).tolist())
        elif form == "constants":
            tensor.raw_data = raw
            proto.graph.node.insert(
                0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor)
            )
        elif form == "external":
            tensor.data_location = 1
            place = path.with_name(f"{tensor.name}.bin")
            place.write_bytes(raw)
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", place.name
    if form == "constants":
        del proto.graph.initializer[:]
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.parametrize("form", ["floats", "constants", "external"])
def test_each_form_of_tensor_gives_the_same_model(large: Path, form: str) -> None:
    expected = fastcnn.load_onnx(large).get_weights()
    weights = fastcnn.load_onnx(in_form(large, form)).get_weights()
    assert len(weights) == len(expected) == 4
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(np.array_equal(one, CONSTANTS["w"].transpose(2, 3, 1, 0)) for one in weights)


@pytest.mark.parametrize("form", ["two pieces", "of another type"])
def test_numbers_in_two_pieces_are_joined_and_those_of_another_type_refused(
    tmp_path: Path, form: str
) -> None:
    path = write(tmp_path / "net.onnx", [node("Add", "x c", "y")], {"x": ["N", 6]}, ["y"], {})
    proto = onnx.load(path)
    array = normal(6)
    tensor = onnx.TensorProto(name="c", dims=[6], data_type=1, float_data=array[:2].tolist())
    rest = onnx.TensorProto(float_data=array[2:].tolist())
    if form == "of another type":
        tensor = onnx.TensorProto(name="c", dims=[3], data_type=1, double_data=array[:3].tolist())
        rest = onnx.TensorProto()
    both = tensor.SerializeToString() + rest.SerializeToString()
    graph = proto.graph.SerializeToString() + b"\x2a" + bytes([len(both)]) + both
    proto.ClearField("graph")
    path.write_bytes(proto.SerializeToString() + b"\x3a" + bytes([len(graph)]) + graph)
    if form == "of another type":
        with pytest.raises(OnnxFileError, match="'c' has numbers of another element type"):
            fastcnn.load_onnx(path)
        return
    x = normal(2, 6, seed=1)
    np.testing.assert_array_equal(fastcnn.load_onnx(path).predict(x), x + array)


def copied(model: Any, way: str) -> Any:
    if way == "pickle":
        return pickle.loads(pickle.dumps(model))
    return deepcopy(model) if way == "deepcopy" else model


@pytest.mark.parametrize("way", ["itself", "deepcopy", "pickle"])
def test_later_shapes_find_the_weights(large: Path, way: str) -> None:
    model = copied(fastcnn.load_onnx(large), way)
    model.engine = "im2col"
    for n in (2, 1, 3):
        x = normal(n, 2, 9, 7)
        expected = reference(large, x=x)[0]
        error = np.abs(model.predict(x) - expected).max() / np.abs(expected).max()
        assert error < 1e-5


def check(path: Path, model: Any, **inputs: Any) -> None:
    """Compare a prediction with ONNX's own evaluator."""
    expected = reference(path, **inputs)[0]
    result = model.predict(inputs)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operator", ["MatMul", "Conv"])
@pytest.mark.parametrize("way", ["itself", "pickle"])
def test_later_shapes_that_need_the_weights_in_another_form(
    tmp_path: Path, operator: str, way: str
) -> None:
    """The second shape mixes samples, so the operator itself takes the weights of the file."""
    nodes = [node(operator, "a w", "m"), node("Add", "m d", "y")]
    sides, w, out = ((50,), (50, 7), (7,)) if operator == "MatMul" else (
        (2, 5, 6), (3, 2, 3, 2), (3, 3, 5)
    )  # fmt: skip
    inputs = {"a": ["N", *sides], "d": ["M", *out]}
    path = write(tmp_path / "net.onnx", nodes, inputs, ["y"], {"w": normal(*w)})
    model = fastcnn.load_onnx(path)
    model.engine = "im2col"
    check(path, model, a=normal(3, *sides), d=normal(3, *out))
    model = copied(model, way)
    for _ in range(2):
        check(path, model, a=normal(3, *sides), d=normal(1, *out))
    model.set_weights([one + 1 for one in model.get_weights()])
    for again in (model, copied(model, way)):
        with pytest.raises(ValueError, match="may have changed since; save the model"):
            again.predict({"a": normal(3, *sides), "d": normal(1, *out)})


def test_numbers_for_more_channels_than_a_later_shape_has(tmp_path: Path) -> None:
    """Squeeze leaves a row for two samples, and the channels for one."""
    nodes = [
        node("Squeeze", "x", "s"), node("Slice", "s zero two zero", "c"),
        node("Mul", "c three", "y"),
    ]  # fmt: skip
    constants = {"zero": np.array([0]), "two": np.array([2]), "three": np.array([3], np.float32)}
    path = write(tmp_path / "net.onnx", nodes, {"x": ["N", 1, 5]}, ["y"], constants)
    model = fastcnn.load_onnx(path)
    for n in (2, 1, 4):
        check(path, model, x=normal(n, 1, 5))


@pytest.mark.parametrize("n", [1, 3])
def test_the_batch_moves_behind_new_axes(tmp_path: Path, n: int) -> None:
    """Rows are unsqueezed and joined before the batch; the layers are those of two samples."""
    nodes = [
        node("MatMul", "x v", "a"), node("Unsqueeze", "a first", "b"),
        node("Unsqueeze", "x first", "c"), node("Concat", "b c", "d", axis=0),
        node("Transpose", "d", "e", perm=[1, 0, 2]), node("MatMul", "e w", "f"),
        node("Gather", "f one", "g", axis=1), node("Add", "g half", "y"),
    ]  # fmt: skip
    constants = {
        "v": normal(6, 6), "w": normal(6, 4, seed=1), "first": np.array([0]), "one": np.array(1),
        "half": np.array(0.5, np.float32),
    }  # fmt: skip
    path = write(tmp_path / "net.onnx", nodes, {"x": ["N", 6]}, ["y"], constants)
    model = fastcnn.load_onnx(path)
    assert not model._whole
    check(path, model, x=normal(n, 6))
    traced = model._traced(((n, 6),))
    assert traced.batched
    assert traced.weights is None


def test_a_number_without_axes_beside_the_largest_of_all(tmp_path: Path) -> None:
    nodes = [node("ReduceMax", "x", "m", keepdims=0), node("Sub", "m c", "s"),
             node("Max", "x s", "y")]  # fmt: skip
    path = write(
        tmp_path / "net.onnx", nodes, {"x": ["N", 700]}, ["y"], {"c": np.array(2, np.float32)}
    )
    check(path, fastcnn.load_onnx(path), x=normal(1, 700))


def test_weights_where_shapes_depend_on_numbers(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "m"), node("Reshape", "m shape", "y")]
    path = write(tmp_path / "net.onnx", nodes, {"x": [4, 5]}, ["y"], {"w": normal(5, 6)})
    proto = onnx.load(path)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("shape", 7, ["R"]))
    onnx.save(proto, path)
    model, x = fastcnn.load_onnx(path), normal(4, 5)
    for shape in ([3, 8], [2, 3, 4]):
        inputs = {"x": x, "shape": np.array(shape)}
        expected = reference(path, **inputs)[0]
        np.testing.assert_allclose(model.predict(inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n", [1, 3])
def test_convolutions_of_a_net_that_runs_as_a_whole(tmp_path: Path, n: int) -> None:
    nodes = [node("Conv", "x w", "c"), node("ReduceMean", "c", "y", axes=[0], keepdims=0)]
    path = write(
        tmp_path / "net.onnx", nodes, {"x": ["N", 2, 5, 6]}, ["y"], {"w": normal(3, 2, 3, 2)}
    )
    x = normal(n, 2, 5, 6)
    expected = reference(path, x=x)[0]
    np.testing.assert_allclose(fastcnn.load_onnx(path).predict(x), expected, rtol=1e-4, atol=1e-4)


def test_constants_of_nothing_join_samples(tmp_path: Path) -> None:
    nodes = [node("Concat", "x none", "y", axis=1)]
    path = write(tmp_path / "net.onnx", nodes, {"x": ["N", 4]}, ["y"], {"none": normal(2, 0)})
    model, x = fastcnn.load_onnx(path), normal(2, 4)
    np.testing.assert_array_equal(model.predict(x), x)
    assert not model._whole


@pytest.fixture
def free(tmp_path: Path) -> Path:
    """A small classifier of images of any size."""
    nodes = [
        node("Conv", "x w", "c"), node("Relu", "c", "r"), node("GlobalAveragePool", "r", "g"),
        node("Flatten", "g", "f"), node("MatMul", "f v", "y"),
    ]  # fmt: skip
    constants = {"w": normal(6, 3, 3, 3), "v": normal(6, 4)}
    return write(tmp_path / "free.onnx", nodes, {"x": ["N", 3, "H", "W"]}, ["y"], constants)


@pytest.mark.parametrize(("layout", "shape"), [("file", (3, 9, 7)), ("channels_last", (9, 7, 3))])
def test_free_sizes_train_at_the_shape_that_is_asked_for(
    free: Path, layout: Any, shape: tuple[int, ...]
) -> None:
    x, y = normal(8, *shape), np.arange(8) % 4
    usual = fastcnn.load_onnx(free, layout)
    with pytest.raises(ValueError, match=re.escape(f"load_onnx(path, input_shape={shape})")):
        usual.fit(x, y, loss="cross_entropy", verbose=0)
    model = fastcnn.load_onnx(free, layout, input_shape=shape)
    model.engine = "im2col"
    model.fit(x, y, loss="cross_entropy", epochs=1, verbose=0)
    model.save(free.with_name("free.safetensors"))
    model.save_onnx(free.with_name("again.onnx"))
    assert fastcnn.load_model(free.with_name("free.safetensors")).input_shape == shape
    assert fastcnn.load_onnx(free.with_name("again.onnx")).input_shape == shape
    other = {"file": (3, 12, 8), "channels_last": (12, 8, 3)}[layout]
    for samples in (x, normal(3, *other)):  # probabilities, for other sizes too
        np.testing.assert_allclose(model.predict(samples).sum(1), 1, rtol=1e-5)
    model.loss = "mse"
    assert not np.allclose(model.predict(normal(3, *other)).sum(1), 1)


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ((3, 9), ValueError), ((4, 9, 7), ValueError), ((3, 0, 7), ValueError),
        ({"z": (3, 9, 7)}, ValueError), ("abc", TypeError), (5, TypeError),
        ((3, 9, 1.5), TypeError),
    ],
)  # fmt: skip
def test_shapes_that_the_file_does_not_take(free: Path, shape: Any, error: Any) -> None:
    with pytest.raises(error, match="input_shape must"):
        fastcnn.load_onnx(free, input_shape=shape)


def test_nothing_of_the_file_stays_in_memory(large: Path) -> None:
    model = fastcnn.load_onnx(large)
    constants = model._source.constants
    weights = ["v", *(name for name in constants if name.endswith("w"))]
    assert len(weights) == 3
    assert all(not any(constants[name].strides) for name in weights)
    assert all(one.flags.owndata for name, one in constants.items() if name not in weights)


def test_copies_between_orders_of_axes() -> None:
    source = normal(3, 130, 5).transpose(2, 0, 1)
    for one in (source, source.transpose(1, 2, 0), source[:, ::2, ::-1], source[:, :, :0]):
        target = np.zeros(one.shape, np.float64)
        copy_into(target, one)
        np.testing.assert_array_equal(target, one)
