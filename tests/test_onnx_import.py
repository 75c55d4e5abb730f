"""Models of ONNX files: ONNX's own cases for each operator, and nets made for their patterns."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastcnn
from fastcnn.exchange.onnx_functions import OnnxFileError
from fastcnn.exchange.onnx_operation import OnnxOperation

onnx = pytest.importorskip("onnx", reason="files are read through the package onnx")

from onnx_files import node, normal, reference, write  # noqa: E402

OPERATORS = (
    "Conv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool",
    "BatchNormalization", "LayerNormalization", "Relu", "LeakyRelu", "PRelu", "Elu", "Clip",
    "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu", "Softmax", "LogSoftmax", "Add",
    "Sub", "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Sum", "Min", "Max", "Gemm", "MatMul",
    "Concat", "Split", "Slice", "Pad", "Resize", "Upsample", "DepthToSpace", "Reshape", "Flatten",
    "Transpose", "Squeeze", "Unsqueeze", "ReduceMean", "ReduceSum", "ReduceMax", "LRN", "Constant",
    "ConstantOfShape", "Identity", "Dropout", "Shape", "Gather", "Cast", "Range", "Expand", "Where",
    "Equal", "Einsum", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "If",
    "RNN", "GRU", "LSTM", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip

SKIPPED = {
    "training_dropout_default": "training",
    "training_dropout_default_mask": "training",
    "training_dropout": "training",
    "training_dropout_mask": "training",
    "equal_string": "text",
    "equal_string_broadcast": "text",
    "identity_sequence": "sequences of tensors",
    "identity_opt": "optional tensors",
    "if_seq": "sequences of tensors",
    "if_opt": "optional tensors",
}
"""Cases of what is no prediction, or no tensor of numbers: they are refused, with a reason."""
NARROW = (
    "FLOAT8", "FLOAT4", "INT4", "INT2", "e4m3fn", "e5m2", "float4e2m1", "linear_int4",
    "linear_uint4", "linear_int2", "linear_uint2",
)  # fmt: skip
"""Element types of less than 16 bits, which NumPy lacks; casts from and to them are refused."""


@lru_cache
def node_cases() -> dict[str, list[Any]]:
    """ONNX's cases by operator, those of one node or of several."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX's cases overflow on purpose
        cases = collect_testcases(None)
    result: dict[str, list[Any]] = {name: [] for name in (*OPERATORS, "several")}
    for case in cases:
        kinds = {node.op_type for node in case.model.graph.node}
        if kinds <= set(OPERATORS):
            result[min(kinds) if len(kinds) == 1 else "several"].append(case)
    return result


def is_refused(name: str) -> bool:
    return name in SKIPPED or any(kind in name for kind in NARROW)


@pytest.mark.parametrize("operator", [*OPERATORS, "several"])
def test_onnx_own_cases(operator: str, tmp_path: Path) -> None:
    cases = node_cases()[operator]
    assert cases
    for case in cases:
        path = tmp_path / f"{case.name}.onnx"
        path.write_bytes(case.model.SerializeToString())
        if is_refused(case.name.removeprefix("test_")):
            with pytest.raises(OnnxFileError):
                predicted(path, case)
            continue
        model = fastcnn.load_onnx(path)
        model.engine = "im2col"
        for inputs, outputs in case.data_sets:
            results = model.predict(case_inputs(case, inputs))
            results = results if isinstance(results, list) else [results]
            for expected, result in zip(map(as_array, outputs), results, strict=True):
                assert result.dtype == expected.dtype, case.name
                assert result.shape == expected.shape, case.name
                np.testing.assert_allclose(
                    result.astype(np.float64), expected.astype(np.float64),
                    rtol=case.rtol, atol=1e-6, err_msg=case.name,
                )  # fmt: skip


def predicted(path: Path, case: Any) -> Any:
    return fastcnn.load_onnx(path).predict(case_inputs(case, case.data_sets[0][0]))


def case_inputs(case: Any, arrays: list[Any]) -> dict[str, Any]:
    names = [one.name for one in case.model.graph.input]
    return dict(zip(names, map(as_array, arrays), strict=True))


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """An array of a case, some of which hold tensors of ONNX."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value)


@pytest.fixture
def convnet(tmp_path: Path) -> Path:
    """Convolution, batch norm, a gate, a Flatten before a Gemm; height and width are known."""
    return write(
        tmp_path / "convnet.onnx",
        [
            node("Conv", "x w b", "c", pads=[0, 1, 1, 0], strides=[2, 1]),
            node("BatchNormalization", "c scale shift mean variance", "n"),
            node("Relu", "n", "r"),
            node("GlobalAveragePool", "r", "g"),
            node("Sigmoid", "g", "gate"),
            node("Mul", "r gate", "m"),
            node("MaxPool", "m", "p", kernel_shape=[2, 3], strides=[1, 2]),
            node("Flatten", "p", "f"),
            node("Gemm", "f v u", "y", transB=1),
        ],
        {"x": ["N", 2, 7, 9]},
        ["y"],
        {
            "w": normal(4, 2, 3, 2), "b": normal(4), "scale": normal(4), "shift": normal(4),
            "mean": normal(4), "variance": np.abs(normal(4)) + 1, "v": normal(5, 32),
            "u": normal(5),
        },
    )  # fmt: skip


@pytest.mark.parametrize("engine", [None, "im2col", "naive"])
def test_convnet_in_every_engine(convnet: Path, engine: str | None) -> None:
    model = fastcnn.load_onnx(convnet)
    model.engine = engine
    for n in (1, 3):
        x = normal(n, 2, 7, 9, seed=n)
        expected = reference(convnet, x=x)[0]
        np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-4)
    assert not any("Onnx" in type(layer).__name__ for layer in model.layers)
    assert [type(layer).__name__ for layer in model.layers].count("Permute") == 1  # at the border


def test_channels_last_permutes_nothing(convnet: Path) -> None:
    model, x = fastcnn.load_onnx(convnet, layout="channels_last"), normal(3, 2, 7, 9)
    images = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    images.flags.writeable = False
    np.testing.assert_allclose(
        model.predict(images), reference(convnet, x=x)[0], rtol=1e-4, atol=1e-4
    )
    assert "Permute" not in [type(layer).__name__ for layer in model.layers]


def test_an_empty_batch_and_a_large_one(convnet: Path) -> None:
    model = fastcnn.load_onnx(convnet)
    x = normal(7, 2, 7, 9)
    assert model.predict(x[:0]).shape == (0, 5)
    np.testing.assert_array_equal(model.predict(x, batch_size=3), model.predict(x))


def test_free_sizes_share_the_weights(tmp_path: Path) -> None:
    path = write(
        tmp_path / "free.onnx",
        [
            node("Conv", "x w", "c", auto_pad="SAME_LOWER"),
            node("Shape", "c", "s"),
            node("Slice", "s two four", "hw"),
            node("Mul", "hw twice", "size"),
            node("Slice", "s zero two", "nc"),
            node("Concat", "nc size", "sizes", axis=0),
            node("Resize", "c   sizes", "y", mode="nearest"),
        ],
        {"x": ["N", 2, "H", "W"]},
        ["y"],
        {
            "w": normal(3, 2, 2, 2), "two": np.array([2]), "four": np.array([4]),
            "zero": np.array([0]), "twice": np.array([2, 2]),
        },
    )  # fmt: skip
    proto = onnx.load(path)
    proto.graph.node[-1].input[:] = ["c", "", "", "sizes"]
    onnx.save(proto, path)
    model = fastcnn.load_onnx(path)
    for shape in ((1, 2, 5, 8), (2, 2, 9, 4), (1, 2, 5, 8)):
        x = normal(*shape)
        np.testing.assert_allclose(model.predict(x), reference(path, x=x)[0], rtol=1e-4, atol=1e-5)
    model.set_weights([2 * array for array in model.get_weights()])
    x = normal(2, 2, 9, 4)
    np.testing.assert_allclose(model.predict(x), 2 * reference(path, x=x)[0], rtol=1e-4, atol=1e-5)


def test_attention_with_the_batch_in_the_middle(tmp_path: Path) -> None:
    path = write(
        tmp_path / "attention.onnx",
        [
            node("MatMul", "x w", "p"),
            node("Add", "p b", "a"),
            node("Reshape", "a heads", "h"),
            node("Transpose", "h", "t", perm=[2, 0, 3, 1, 4]),
            node("Split", "t", "q k v", axis=0),
            node("Squeeze", "q first", "q1"),
            node("Squeeze", "k first", "k1"),
            node("Squeeze", "v first", "v1"),
            node("Transpose", "k1", "kt", perm=[0, 1, 3, 2]),
            node("MatMul", "q1 kt", "s"),
            node("Softmax", "s", "m", axis=-1),
            node("MatMul", "m v1", "o"),
            node("Transpose", "o", "z", perm=[0, 2, 1, 3]),
            node("Reshape", "z flat", "f"),
            node("LayerNormalization", "f scale", "y"),
        ],
        {"x": ["N", 5, 6]},
        ["y"],
        {
            "w": normal(6, 18), "b": normal(18), "heads": np.array([0, 5, 3, 2, 3]),
            "first": np.array([0]), "flat": np.array([0, 5, 6]), "scale": normal(6),
        },
    )  # fmt: skip
    model = fastcnn.load_onnx(path)
    for n in (1, 4):
        x = normal(n, 5, 6, seed=n)
        np.testing.assert_allclose(model.predict(x), reference(path, x=x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("equation", ["bct,bcs->bts", "bct,bcs->tbs", "bct,bcs->ts"])
def test_sums_of_products_of_a_batch(equation: str, tmp_path: Path) -> None:
    nodes = [node("Mul", "x c", "z"), node("Einsum", "x z", "y", equation=equation)]
    path = write(
        tmp_path / "net.onnx", nodes, {"x": ["N", 3, 4]}, ["y"], {"c": normal(1, 3, 1)}, opset=18
    )
    model = fastcnn.load_onnx(path)
    for n in (1, 3):
        x = normal(n, 3, 4, seed=n)
        np.testing.assert_allclose(model.predict(x), reference(path, x=x)[0], rtol=1e-4, atol=1e-5)


WRONG_INDICES = {
    "ScatterND": ([[7]], "indices must be from -3 to 2"),
    "GatherND": ([[0, 0, 0]], "do not fit the shape"),
    "ScatterElements": ([[0, 9]], "indices must be from -3 to 2"),
    "GatherElements": ([0], "indices must have 2 axes"),
}


@pytest.mark.parametrize("operator", WRONG_INDICES)
def test_indices_that_do_not_fit(operator: str, tmp_path: Path) -> None:
    indices, message = WRONG_INDICES[operator]
    inputs = "x i u" if "Scatter" in operator else "x i"
    updates = normal(1, 4) if operator == "ScatterND" else normal(1, 2)
    path = write(
        tmp_path / "net.onnx", [node(operator, inputs, "y")], {"x": [3, 4]}, ["y"],
        {"i": np.array(indices), "u": updates}, opset=18,
    )  # fmt: skip
    with pytest.raises(OnnxFileError, match=message):
        fastcnn.load_onnx(path)


@pytest.mark.parametrize("operator", ["RNN", "GRU", "LSTM"])
def test_recurrent_operators_with_the_batch_in_the_middle(operator: str, tmp_path: Path) -> None:
    """The states have the batch that the exporter reads from the shape of the input."""
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[operator]
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]), node("Shape", "x", "s"),
        node("Slice", "s zero one", "n"), node("Concat", "d n u", "sizes", axis=0),
        node("Expand", "h sizes", "states"),
        node(operator, "t w r b", "o last", direction="bidirectional", hidden_size=4),
        node("Transpose", "o", "p", perm=[2, 0, 1, 3]), node("Reshape", "p flat", "f"),
        node("Transpose", "last", "q", perm=[1, 0, 2]), node("Reshape", "q flat", "g"),
        node("Concat", "f g", "y", axis=1),
    ]  # fmt: skip
    nodes[5].input[:] = ["t", "w", "r", "b", "", "states"]
    path = write(
        tmp_path / "recurrent.onnx", nodes, {"x": ["N", 5, 6]}, ["y"],
        {
            "w": normal(2, gates * 4, 6), "r": normal(2, gates * 4, 4), "b": normal(2, gates * 8),
            "h": normal(2, 1, 4), "zero": np.array([0]), "one": np.array([1]),
            "d": np.array([2]), "u": np.array([4]), "flat": np.array([0, -1]),
        },
    )  # fmt: skip
    model = fastcnn.load_onnx(path)
    model.engine = "im2col"
    for n in (1, 3):
        x = normal(n, 5, 6, seed=n)
        np.testing.assert_allclose(model.predict(x), reference(path, x=x)[0], rtol=1e-4, atol=1e-5)
    assert model.input_shape == (5, 6)  # of a sample, because nothing mixes samples


ONE = {"one": np.float32(1), "two": np.float32(2), "three": np.float32(3), "six": np.float32(6)}
ONE |= {"zero": np.float32(0), "half": np.float32(0.5), "root": np.float32(np.sqrt(2))}
MEAN = {"axes": [-1]}
PATTERNS: dict[str, tuple[list[Any], list[str]]] = {
    "hard swish": (
        [
            node("Add", "x three", "a"), node("Clip", "a zero six", "c"), node("Mul", "x c", "m"),
            node("Div", "m six", "y"),
        ],
        ["HardSwish"],
    ),
    "hard sigmoid": (
        [node("Add", "three x", "a"), node("Clip", "a zero six", "c"), node("Div", "c six", "y")],
        ["HardSigmoid"],
    ),
    "swish": ([node("Sigmoid", "x", "s"), node("Mul", "s x", "y")], ["Swish"]),
    "swish of x times one": (
        [
            node("Mul", "x one", "p"), node("Div", "p one", "q"), node("Sigmoid", "q", "s"),
            node("Mul", "p s", "y"),
        ],
        ["Swish"],
    ),
    "gelu": (
        [
            node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "p"),
            node("Mul", "x p", "m"), node("Mul", "m half", "y"),
        ],
        ["GELU"],
    ),
    "gelu, halved first": (
        [
            node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "one e", "p"),
            node("Mul", "half x", "h"), node("Mul", "h p", "y"),
        ],
        ["GELU"],
    ),
    "layer norm": (
        [
            node("ReduceMean", "x", "m", **MEAN), node("Sub", "x m", "d"),
            node("Pow", "d two", "q"),
            node("ReduceMean", "q", "v", **MEAN), node("Add", "v half", "e"),
            node("Sqrt", "e", "r"),
            node("Div", "d r", "n"), node("Mul", "n gamma", "g"), node("Add", "g beta", "y"),
        ],
        ["LayerNorm"],
    ),
    "bias": (
        [node("MatMul", "x w", "m"), node("Add", "beta m", "y")], ["Reshape", "Conv2D", "Reshape"]
    ),
    "relu 6": ([node("Clip", "x zero six", "y")], ["ReLU"]),
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_become_layers(name: str, tmp_path: Path) -> None:
    nodes, layers = PATTERNS[name]
    constants = ONE | {"gamma": normal(6), "beta": normal(6), "w": normal(6, 6)}
    path = write(tmp_path / "pattern.onnx", nodes, {"x": ["N", 5, 6]}, ["y"], constants)
    model, x = fastcnn.load_onnx(path), 4 * normal(3, 5, 6)
    model.engine = "im2col"
    assert [type(layer).__name__ for layer in model.layers] == layers
    np.testing.assert_allclose(model.predict(x), reference(path, x=x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("by_a_node", [False, True])
def test_others_may_take_values_between_the_nodes_of_a_pattern(
    name: str, by_a_node: bool, tmp_path: Path
) -> None:
    nodes, _ = PATTERNS[name]
    constants = ONE | {"gamma": normal(6), "beta": normal(6), "w": normal(6, 6)}
    x = 4 * normal(3, 5, 6)
    for inner in nodes[:-1]:
        between = inner.output[0]
        every = [*nodes, node("Tanh", between, "t")] if by_a_node else nodes
        outputs = ["y", "t" if by_a_node else between]
        path = write(tmp_path / "pattern.onnx", every, {"x": ["N", 5, 6]}, outputs, constants)
        results, expected = fastcnn.load_onnx(path).predict(x), reference(path, x=x)
        for result, one in zip(results, expected, strict=True):
            np.testing.assert_allclose(result, one, rtol=1e-4, atol=1e-5)


def test_a_factor_of_one_stays_where_it_adds_an_axis_or_is_an_output(tmp_path: Path) -> None:
    nodes = [node("ReduceSum", "x", "s", keepdims=0), node("Mul", "s ones", "m")]
    nodes += [node("Exp", "m", "y")]
    nodes += [node("Mul", "x ones", "z"), node("Tanh", "z", "t")]
    outputs = ["y", "z", "t"]
    path = write(tmp_path / "one.onnx", nodes, {"x": [2, 3]}, outputs, {"ones": np.ones(1, "f")})
    x = normal(2, 3)
    for result, expected in zip(
        fastcnn.load_onnx(path).predict(x), reference(path, x=x), strict=True
    ):
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, rtol=1e-5)


CUTS: dict[str, tuple[list[int], list[int], list[int]]] = {
    "first": ([1], [3], [1]),
    "middle": ([1], [-1], [2]),
    "last": ([-3], [9], [3]),
    "two": ([2, 1], [3, 4], [1, 3]),
    "three": ([1, -3, 0], [9, 4, 5], [1, 2, 3]),
}
"""Starts, ends and axes of slices."""


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 2, 1)])
def test_slices_crop(name: str, order: tuple[int, ...], tmp_path: Path) -> None:
    starts, ends, axes = map(np.array, CUTS[name])
    nodes = [node("Tanh", "x", "t"), node("Transpose", "t", "p", perm=order)]
    nodes += [node("Slice", "p starts ends axes", "s"), node("Exp", "s", "y")]
    constants = {"starts": starts, "ends": ends, "axes": axes}
    path = write(tmp_path / "cut.onnx", nodes, {"x": ["N", 4, 6, 5]}, ["y"], constants)
    model, x = fastcnn.load_onnx(path), normal(3, 4, 6, 5)
    assert "Cropping2D" in {type(layer).__name__ for layer in model.layers}
    assert "OnnxOperation('Slice')" not in map(repr, model.layers)
    for engine in (None, "im2col"):
        model.engine = engine
        np.testing.assert_allclose(model.predict(x), reference(path, x=x)[0], rtol=1e-4)


@pytest.mark.parametrize("operator", ["HardSwish", "Sigmoid"])
def test_a_value_that_something_else_takes_stays(operator: str, tmp_path: Path) -> None:
    path = write(
        tmp_path / "taken.onnx",
        [node("Sigmoid", "x", "s"), node("Mul", "s x", "p"), node("Add", "p s", "y")],
        {"x": ["N", 5]},
        ["y", "s"] if operator == "Sigmoid" else ["y"],
        {},
    )
    model, x = fastcnn.load_onnx(path), normal(3, 5)
    results = model.predict(x)
    results = results if isinstance(results, list) else [results]
    for result, expected in zip(results, reference(path, x=x), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-5)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_numbers_behind_a_convolution_and_zeros_before_it(operator: str, tmp_path: Path) -> None:
    shape = (4, 2, 2, 3) if operator == "Conv" else (2, 4, 2, 3)
    path = write(
        tmp_path / "scaled.onnx",
        [
            node("Pad", "x pads", "p"),
            node(operator, "p w", "c"),
            node("Mul", "c scale", "m"),
            node("Sub", "three m", "s"),
            node("Add", "s shift", "a"),
            node("Div", "a scale", "y"),
        ],
        {"x": ["N", 2, 5, 6]},
        ["y"],
        ONE | {
            "w": normal(*shape), "pads": np.array([0, 0, 1, 2, 0, 0, 0, 1]),
            "scale": normal(4, 1, 1), "shift": normal(1, 4, 1, 1),
        },
    )  # fmt: skip
    model, x = fastcnn.load_onnx(path), normal(3, 2, 5, 6)
    model.engine = "im2col"
    np.testing.assert_allclose(model.predict(x), reference(path, x=x)[0], rtol=1e-3, atol=1e-4)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert "DepthwiseConv2D" not in kinds
    assert ("ZeroPadding2D" in kinds) == (operator == "ConvTranspose")


def softmax_from(x: Any, axis: int) -> Any:
    """Softmax over the axes from one on together, as before version 13."""
    rows = np.exp(x.reshape(int(np.prod(x.shape[:axis])), -1).astype(np.float64))
    return (rows / rows.sum(1, keepdims=True)).reshape(x.shape)


EARLIER: dict[str, tuple[int, list[Any], Any]] = {
    "slice": (
        9, [node("Slice", "x", "y", starts=[1, -3], ends=[9, -1], axes=[1, 3])],
        lambda x: x[:, 1:, :, -3:-1],
    ),
    "pad": (
        10, [node("Pad", "x", "y", pads=[0, 0, 1, 2, 0, 0, 3, 0], value=2.5)],
        lambda x: np.pad(x, ((0, 0), (0, 0), (1, 3), (2, 0)), constant_values=2.5),
    ),
    "clip": (
        10, [node("Clip", "x", "y", min=-0.5, max=0.75)], lambda x: np.clip(x, -0.5, 0.75)
    ),
    "squeeze": (
        12, [node("Unsqueeze", "x", "u", axes=[1, 3]), node("Squeeze", "u", "y", axes=[1])],
        lambda x: x[:, :, None],
    ),
    "sum": (
        12, [node("ReduceSum", "x", "y", axes=[1, 3], keepdims=0)], lambda x: x.sum((1, 3))
    ),
    "mean": (
        17, [node("ReduceMean", "x", "y", axes=[2])], lambda x: x.mean(2, keepdims=True)
    ),
    "split": (
        12, [node("Split", "x", "a b", axis=3, split=[2, 4]), node("Concat", "b a", "y", axis=3)],
        lambda x: np.concatenate([x[..., 2:], x[..., :2]], 3),
    ),
    "upsample": (
        8, [node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 3.0])],
        lambda x: x.repeat(2, 2).repeat(3, 3),
    ),
    "softmax": (12, [node("Softmax", "x", "y", axis=2)], lambda x: softmax_from(x, 2)),
    "log softmax": (12, [node("LogSoftmax", "x", "y")], lambda x: np.log(softmax_from(x, 1))),
    "dropout": (11, [node("Dropout", "x", "y", ratio=0.3)], lambda x: x),
}  # fmt: skip
"""Nodes in a form that ended: the last version that has it, the nodes, and what they compute."""


@pytest.mark.parametrize("opset", ["first", "last"])
@pytest.mark.parametrize("name", EARLIER)
def test_forms_of_earlier_versions(name: str, opset: str, tmp_path: Path) -> None:
    last, nodes, formula = EARLIER[name]
    version = 7 if opset == "first" else last
    path = write(tmp_path / "net.onnx", nodes, {"x": ["N", 3, 5, 6]}, ["y"], {}, version)
    model, x = fastcnn.load_onnx(path), normal(2, 3, 5, 6)
    model.engine = "im2col"
    result, expected = model.predict(x), formula(x)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("net", ["shufflenet", "squeezenet", "inception_v1", "densenet121"])
def test_light_nets_of_onnx(net: str) -> None:
    """Four of the nine nets that the package onnx carries, with its own expected outputs.

    The weights are constants, so the outputs are alike within a net: what fails here is a graph
    that is read wrongly. All nine run with random weights in benchmarks/imported_nets.py, because
    VGG-19 alone takes half a minute.
    """
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    tensor = onnx.TensorProto.FromString((folder / f"light_{net}_output_0.pb").read_bytes())
    model, expected = fastcnn.load_onnx(folder / f"light_{net}.onnx"), as_array(tensor)
    model.engine = "im2col"
    shape = (1, 3, 224, 224)
    result = model.predict(np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape))
    assert result.shape == expected.shape
    assert result.dtype == expected.dtype
    np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    path = write(
        tmp_path / "several.onnx",
        [node("Add", "a b", "s"), node("Mul", "a s", "p"), node("Relu", "a", "r")],
        {"a": ["N", 3], "b": ["N", 3]},
        ["p", "s", "r"],
        {},
    )
    model, a, b = fastcnn.load_onnx(path), normal(4, 3), normal(4, 3, seed=1)
    results = model.predict({"b": b, "a": a})
    for result, expected in zip(results, reference(path, a=a, b=b), strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="'a', 'b'"):
        model.predict({"a": a})
    with pytest.raises(TypeError, match="float32"):
        model.predict({"a": a.astype(np.uint8), "b": b})
    with pytest.raises(ValueError, match="shape"):
        model.predict({"a": a[:, :2], "b": b})


def test_what_mixes_samples_runs_as_a_whole(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mixed.onnx",
        [node("ReduceMean", "x", "m", axes=[0]), node("Sub", "x m", "y")],
        {"x": ["N", 3]},
        ["y"],
        {},
    )
    model, x = fastcnn.load_onnx(path), normal(5, 3)
    np.testing.assert_allclose(model.predict(x, batch_size=2), x - x.mean(0), rtol=1e-5, atol=1e-6)


def test_saved_and_loaded(convnet: Path, tmp_path: Path) -> None:
    model, x = fastcnn.load_onnx(convnet), normal(3, 2, 7, 9)
    model.save(tmp_path / "model.safetensors")
    again = fastcnn.load_model(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_shapes_that_do_not_fit_say_what_would(convnet: Path, tmp_path: Path) -> None:
    x, bias = normal(3, 2, 7, 9), {"b": normal(9)}
    images = x.transpose(0, 2, 3, 1)
    fixed = write(
        tmp_path / "fixed.onnx", [node("Add", "x b", "y")], {"x": [2, 2, 7, 9]}, ["y"], bias
    )
    for path, layout, samples, remedy in (
        (convnet, "file", images, "; its channels seem to come last: fastcnn.nhwc_to_nchw"),
        (convnet, "file", x[0], r"; a single sample is x\[numpy.newaxis\]"),
        (convnet, "file", x[..., :4], r"got \(3, 2, 7, 4\)$"),
        (convnet, "channels_last", x, "; its channels seem to come first: fastcnn.nchw_to_nhwc"),
        (fixed, "file", x, "; the file fixes its first axis, the batch, at 2: give it 2 at a time"),
    ):
        with pytest.raises(ValueError, match=r"must have the shape \(.*" + remedy):
            fastcnn.load_onnx(path, layout=layout).predict(samples)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("error::fastcnn.InputWarning")
def test_saved_in_the_layout_that_the_model_takes(convnet: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path / "image.onnx", [node("Relu", "x", "y")], {"x": ["N", 3, 16, 16]}, ["y"], {}
    )
    fastcnn.load_onnx(path).save(tmp_path / "image.safetensors")  # without a doubt of its layout
    model, x = fastcnn.load_onnx(convnet), normal(3, 2, 7, 9)
    model.save_onnx(tmp_path / "kept.onnx")
    again = fastcnn.load_onnx(tmp_path / "kept.onnx")
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="needs a model that takes images \\(N, H, W, C\\)"):
        model.save_onnx(tmp_path / "turned.onnx", layout="channels_first")
    assert not (tmp_path / "turned.onnx").exists()
    last = fastcnn.load_onnx(convnet, layout="channels_last")
    last.save_onnx(tmp_path / "turned.onnx", layout="channels_first")
    again = fastcnn.load_onnx(tmp_path / "turned.onnx")
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pads", "padding"), [([1, 1, 1, 1], 1), ([0, 1, 0, 1], ((0, 0), (1, 1))), ([0] * 4, "valid")]
)
def test_padding_is_as_short_as_a_user_writes_it(tmp_path: Path, pads: Any, padding: Any) -> None:
    path, x = tmp_path / "padded.onnx", normal(2, 3, 5, 6)
    conv = node("Conv", "x w", "y", pads=pads)
    write(path, [conv], {"x": ["N", 3, 5, 6]}, ["y"], {"w": normal(4, 3, 3, 3)})
    model = fastcnn.load_onnx(path, layout="channels_last")
    assert model.layers[0].padding == padding  # type: ignore[attr-defined]
    assert "initializer" not in model.draw()
    result = model.predict(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(result, reference(path, x=x)[0], rtol=1e-4, atol=1e-4)


def test_class_numbers_need_a_loss_of_classes(convnet: Path) -> None:
    model, x = fastcnn.load_onnx(convnet), normal(4, 2, 7, 9)
    with pytest.raises(ValueError, match=r"got \(4,\); class numbers need 'cross_entropy' as the"):
        model.fit(x, [0, 1, 2, 3])


def test_trains(convnet: Path) -> None:
    model, x = fastcnn.load_onnx(convnet), normal(12, 2, 7, 9)
    labels = np.arange(12) % 5
    optimizer = fastcnn.optimizers.SGD(0.02)
    before = model.fit(x, labels, epochs=1, optimizer=optimizer, loss="cross_entropy")
    after = model.fit(x, labels, epochs=8, optimizer=optimizer)
    assert after.history["loss"][-1] < before.history["loss"][0]


def test_missing_operators_are_named_together(tmp_path: Path) -> None:
    path = write(
        tmp_path / "missing.onnx",
        [node("Det", "x", "d"), node("Relu", "d", "r"), node("NonZero", "r", "y", name="last")],
        {"x": ["N", 3, 3]},
        ["y"],
        {},
    )
    with pytest.raises(OnnxFileError, match=r"'Det' \(node 'd'\); 'NonZero' \(node 'last'\)"):
        fastcnn.load_onnx(path)


def test_damaged_files(convnet: Path, tmp_path: Path) -> None:
    data, rng = convnet.read_bytes(), np.random.default_rng(0)
    path = tmp_path / "damaged.onnx"
    for i in range(60):
        damaged = bytearray(data if i % 2 else data[: int(rng.integers(len(data)))])
        for at in rng.integers(0, max(1, len(damaged)), 3):
            if damaged:
                damaged[at] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        try:
            fastcnn.load_onnx(path)
        except OnnxFileError as error:
            assert "damaged.onnx" in str(error)  # noqa: PT017 - many damages do no harm


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_external_data_stay_in_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(24))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = write(
        folder / "net.onnx", [node("Add", "x c", "y")], {"x": ["N", 6]}, ["y"], {"c": normal(6)}
    )
    proto = onnx.load(path)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(OnnxFileError, match="folder"):
        fastcnn.load_onnx(path)


def test_cycles_and_wrong_shapes(tmp_path: Path) -> None:
    cycle = [node("Add", "x b", "a"), node("Relu", "a", "b")]
    with pytest.raises(OnnxFileError, match="cycle"):
        fastcnn.load_onnx(write(tmp_path / "cycle.onnx", cycle, {"x": ["N", 3]}, ["b"], {}))
    wrong = [node("MatMul", "x w", "y")]
    path = write(tmp_path / "wrong.onnx", wrong, {"x": ["N", 3]}, ["y"], {"w": normal(4, 2)})
    with pytest.raises(OnnxFileError, match="no product"):
        fastcnn.load_onnx(path)


@pytest.mark.parametrize(
    ("operator", "inputs", "needed"),
    [("Div", "x", "2"), ("Relu", "x x", "1"), ("Conv", "x", "2 to 3"), ("Pad", "", "2 to 4")],
)
def test_numbers_of_inputs(operator: str, inputs: str, needed: str, tmp_path: Path) -> None:
    nodes = [node(operator, inputs, "y")]
    path = write(tmp_path / "net.onnx", nodes, {"x": ["N", 3, 4, 4]}, ["y"], {}, opset=18)
    message = rf"node 'y' \({operator}\): the number of inputs must be {needed}, got"
    with pytest.raises(OnnxFileError, match=message):
        fastcnn.load_onnx(path)


def test_a_softmax_over_a_batch_of_two_behind_a_product(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "r"), node("MatMul", "r v", "m"), node("Softmax", "m", "y", axis=0)]
    path = write(tmp_path / "net.onnx", nodes, {"x": [2, 4]}, ["y"], {"v": normal(4, 3)})
    x = normal(2, 4)
    result = fastcnn.load_onnx(path).predict(x)
    np.testing.assert_allclose(result, reference(path, x=x)[0], rtol=1e-5)


@pytest.mark.parametrize("operator", ["ReduceMax", "Relu"])
def test_shapes_of_too_many_numbers(operator: str, tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node(operator, "c", "y")]
    shape = ["N", 1, 2, 1 << 31]
    path = write(tmp_path / "net.onnx", nodes, {"x": shape}, ["y"], {"w": normal(1, 1, 1, 1)})
    with pytest.raises(OnnxFileError, match="is too large"):
        fastcnn.load_onnx(path)


def test_a_little_of_the_fuzz(tmp_path: Path) -> None:
    import fuzz_onnx

    assert list(fuzz_onnx.failures(80, 0, tmp_path)) == []


LIMITS = {
    "Clip": (-0.5, 0.75), "Clip low": (-0.5, None), "Clip high": (None, 0.75), "Max": (-0.5, None),
    "Min": (None, 0.75), "Max above": (0.25, None), "Clip above": (0.25, 0.75),
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_exact(name: str, tmp_path: Path) -> None:
    """Limits around 0 become ReLUs, to the bit, for every number."""
    low, high = (None if one is None else np.float32(one) for one in LIMITS[name])
    operator = name.split()[0]
    names = [label for label, one in (("low", low), ("high", high)) if one is not None]
    inputs = "x low high" if operator == "Clip" and len(names) == 2 else f"x {names[0]}"
    limits = node(operator, inputs, "y")
    if name == "Clip high":
        limits.input[:] = ["x", "", "high"]
    constants = {
        label: np.asarray(one) for label, one in (("low", low), ("high", high)) if one is not None
    }
    path = write(tmp_path / "net.onnx", [limits], {"x": ["N", 3, 5, 4]}, ["y"], constants)
    model = fastcnn.load_onnx(path)
    model.engine = "im2col"
    x = normal(2, 3, 5, 4)
    x[0, 0, 0], x[1, 2, 3, :3] = [np.nan, 0, -0.5, 0.75], [1e30, np.inf, -np.inf]
    expected = np.clip(x, low, high)
    np.testing.assert_array_equal(model.predict(x), expected)
    of_layers = not any(isinstance(layer, OnnxOperation) for layer in model.layers)
    assert of_layers == (low is None or low < 0)
    assert not [layer for layer in model.layers if layer.parameters and layer.trainable]
