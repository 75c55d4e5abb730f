"""``load_weights``: nets of PyTorch and Keras come over, or nothing changes and an error tells.

The judge of layouts is a forward pass in NumPy with channels first, written here, and PyTorch
itself where it is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import state_files
from hypothesis import given, settings
from hypothesis import strategies as st

import fastcnn
from fastcnn import Input, Model, Sequential, WeightsWarning, load_weights
from fastcnn.core.arguments import Array
from fastcnn.layers import (
    Add,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool2D,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    SeparableConv2D,
    Spec,
    Tanh,
)

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> Array:
    """Small random numbers, float32."""
    return RNG.standard_normal(shape).astype(np.float32) / 2


def raw(model: Model) -> Model:
    """The model, which predicts the outputs of its last layer, without compiled kernels."""
    model.loss, model.engine = "mse", "im2col"
    return model


def write(path: Path, state: dict[str, Array]) -> Path:
    """Write a state dictionary in the format of the path's ending."""
    if path.suffix == ".pt":
        state_files.write_state_dict(path, state)
    else:
        state_files.write_safetensors(path, state)
    return path


# --- the forward pass with channels first --------------------------------------------------------


def conv(x: Array, w: Array, stride: int = 1, pad: int = 0, groups: int = 1) -> Array:
    """x (N, C, H, W), w (OC, C/groups, KH, KW) -> (N, OC, OH, OW), in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))
    windows = windows[:, :, ::stride, ::stride]
    parts = [
        np.einsum("nchwij,ocij->nohw", part, filters)
        for part, filters in zip(
            np.split(windows, groups, axis=1), np.split(w, groups, axis=0), strict=True
        )
    ]
    return np.concatenate(parts, axis=1)


def norm(x: Array, state: dict[str, Array], name: str, epsilon: float = 1e-5) -> Array:
    """Batch normalisation of x (N, C, …) by the running statistics of a module."""
    gamma, beta, mean, variance = (
        state[f"{name}.{one}"].reshape(1, -1, *[1] * (x.ndim - 2))
        for one in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def pool(x: Array) -> Array:
    """2×2 max-pooling."""
    n, c, h, w = x.shape
    return x[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2).max((3, 5))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def norm_state(name: str, channels: int) -> dict[str, Array]:
    return {
        f"{name}.weight": numbers(channels),
        f"{name}.bias": numbers(channels),
        f"{name}.running_mean": numbers(channels),
        f"{name}.running_var": np.abs(numbers(channels)) + np.float32(0.5),
        f"{name}.num_batches_tracked": np.array(7),
    }


def lenet_state() -> dict[str, Array]:
    return {
        "conv1.weight": numbers(4, 1, 5, 3), "conv1.bias": numbers(4),
        "conv2.weight": numbers(6, 4, 3, 3), "conv2.bias": numbers(6),
        "fc1.weight": numbers(10, 6 * 2 * 3), "fc1.bias": numbers(10),
        "fc2.weight": numbers(3, 10), "fc2.bias": numbers(3),
    }  # fmt: skip


def lenet() -> Model:
    layers = [
        Conv2D(4, (5, 3), activation="relu"), MaxPool2D(), Conv2D(6, 3, activation="relu"),
        MaxPool2D(), Flatten(), Dense(10, activation="relu"), Dense(3),
    ]  # fmt: skip
    return raw(Sequential(layers, (16, 18, 1), seed=0))


def lenet_forward(state: dict[str, Array], x: Array) -> Array:
    x = pool(relu(conv(x, state["conv1.weight"]) + state["conv1.bias"].reshape(-1, 1, 1)))
    x = pool(relu(conv(x, state["conv2.weight"]) + state["conv2.bias"].reshape(-1, 1, 1)))
    x = relu(x.reshape(len(x), -1) @ state["fc1.weight"].T + state["fc1.bias"])
    return x @ state["fc2.weight"].T + state["fc2.bias"]


def separable_state() -> dict[str, Array]:
    return {
        "stem.weight": numbers(4, 3, 3, 3), **norm_state("bn0", 4),
        "blocks.0.dw.weight": numbers(4, 1, 3, 3), **norm_state("blocks.0.bn1", 4),
        "blocks.0.pw.weight": numbers(8, 4, 1, 1), **norm_state("blocks.0.bn2", 8),
        "blocks.1.dw.weight": numbers(8, 1, 3, 3), **norm_state("blocks.1.bn1", 8),
        "blocks.1.pw.weight": numbers(8, 8, 1, 1), **norm_state("blocks.1.bn2", 8),
        "head.weight": numbers(5, 8), "head.bias": numbers(5),
    }  # fmt: skip


def separable() -> Model:
    layers: list[Layer] = [Conv2D(4, 3, 2, 1, use_bias=False), BatchNorm(), ReLU()]
    for channels, strides in ((8, 1), (8, 2)):
        layers += [DepthwiseConv2D(3, strides, 1, use_bias=False), BatchNorm(), ReLU()]
        layers += [Conv2D(channels, 1, use_bias=False), BatchNorm(), ReLU()]
    return raw(Sequential([*layers, GlobalAvgPool2D(), Dense(5)], (12, 16, 3), seed=0))


def separable_forward(state: dict[str, Array], x: Array) -> Array:
    x = relu(norm(conv(x, state["stem.weight"], 2, 1), state, "bn0"))
    for block, channels, stride in ((0, 4, 1), (1, 8, 2)):
        name = f"blocks.{block}"
        x = conv(x, state[f"{name}.dw.weight"], stride, 1, channels)
        x = relu(norm(x, state, f"{name}.bn1"))
        x = relu(norm(conv(x, state[f"{name}.pw.weight"]), state, f"{name}.bn2"))
    return x.mean((2, 3)) @ state["head.weight"].T + state["head.bias"]


Nets = tuple[
    Callable[[], dict[str, Array]], Callable[[], Model], Callable[[dict[str, Array], Array], Array]
]
NETS: dict[str, Nets] = {
    "lenet": (lenet_state, lenet, lenet_forward),
    "separable": (separable_state, separable, separable_forward),
}


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize("net", NETS)
def test_nets_come_over(tmp_path: Path, net: str, ending: str) -> None:
    state_of, model_of, forward = NETS[net]
    state, model = state_of(), model_of()
    path = write(tmp_path / f"net{ending}", state)
    x = numbers(2, model.input_shape[2], *model.input_shape[:2])  # type: ignore[index, misc]
    moved = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    before = model.predict(moved)
    report = load_weights(model, path, epsilon=1e-5)
    expected = forward(state, x)
    assert np.abs(model.predict(moved) - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(before - expected).max() > 0.1
    assert {match.source for match in report.matches} == {
        name for name in state if "num_batches" not in name
    }
    assert set(report.left_out) == {name for name in state if "num_batches" in name}
    assert report.notes == ()
    assert all(match.source in repr(report) for match in report.matches if match.source)


def test_the_compiled_program_has_the_new_weights_and_epsilon(tmp_path: Path) -> None:
    state, model = separable_state(), separable()
    model.engine = None
    path = write(tmp_path / "net.pt", state)
    x = numbers(1, 12, 16, 3)
    before = model.predict(x)
    load_weights(model, path, epsilon=1e-5)
    expected = separable_forward(state, x.transpose(0, 3, 1, 2))
    assert np.abs(model.predict(x) - expected).max() < 1e-5 * np.abs(expected).max()
    assert (model.predict(x) != before).any()
    again = tmp_path / "model.safetensors"
    model.save(again)
    assert fastcnn.load_model(again).layers[1].epsilon == 1e-5  # type: ignore[attr-defined]


# --- the order of features -----------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3)),
    between=st.lists(
        st.sampled_from(["relu", "norm", "dropout", "prelu", "layer norm"]), max_size=3
    ),
    data=st.data(),
)
def test_dense_behind_flatten(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    between: Sequence[str],
    data: st.DataObject,
) -> None:
    """Whatever is between a Flatten and a Dense, each number meets its own row."""
    h, w, c = shape
    size = h * w * c
    layers: list[Layer] = [Flatten()]
    state = dict[str, Array]()
    x = numbers(3, c, h, w)
    y = x.reshape(3, size).astype(np.float64)
    for i, kind in enumerate(between):
        name = f"{i}"
        if kind == "norm":
            layers.append(BatchNorm(epsilon=1e-5))
            state |= norm_state(name, size)
            y = norm(y, state, name)
        elif kind == "prelu":
            layers.append(PReLU())
            state[f"{name}.weight"] = numbers(size)
            y = np.where(y > 0, y, y * state[f"{name}.weight"])
        elif kind == "layer norm":
            layers.append(LayerNorm(epsilon=1e-5))
            state[f"{name}.weight"], state[f"{name}.bias"] = numbers(size), numbers(size)
            y = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
            y = y * state[f"{name}.weight"] + state[f"{name}.bias"]
        else:
            layers.append(ReLU() if kind == "relu" else Dropout(0.5))
            y = relu(y) if kind == "relu" else y
    state |= {"9.weight": numbers(4, size), "9.bias": numbers(4)}
    expected = y @ state["9.weight"].T + state["9.bias"]
    path = write(tmp_path_factory.mktemp("flatten") / "net.pt", state)
    model = raw(Sequential([*layers, Dense(4)], shape))
    load_weights(model, path)
    result = model.predict(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    assert np.abs(result - expected).max() < 1e-4


def test_dense_before_a_reshape_to_images(tmp_path: Path) -> None:
    """A decoder: the columns of the Dense are in the order that the image needs."""
    state = {
        "fc.weight": numbers(2 * 3 * 4, 5), "fc.bias": numbers(24), **norm_state("bn", 24),
        "up.weight": numbers(4, 6, 2, 2), "up.bias": numbers(6),
    }  # fmt: skip
    layers = [
        Dense(24), BatchNorm(epsilon=1e-5), ReLU(), Reshape((2, 3, 4)), Conv2DTranspose(6, 2, 2)
    ]  # fmt: skip
    model = raw(Sequential(layers, (5,)))
    load_weights(model, write(tmp_path / "net.pt", state))
    x = numbers(2, 5)
    y = norm((x @ state["fc.weight"].T + state["fc.bias"]), state, "bn")
    y = relu(y).reshape(2, 4, 2, 3)
    expected = np.einsum("nchw,coij->nohiwj", y, state["up.weight"]).reshape(2, 6, 4, 6)
    expected += state["up.bias"].reshape(-1, 1, 1)
    assert np.abs(model.predict(x).transpose(0, 3, 1, 2) - expected).max() < 1e-5


def test_two_flattened_branches_side_by_side(tmp_path: Path) -> None:
    first, second, plain = Input((2, 3, 4)), Input((3, 1, 2)), Input((5,))
    joined = Concatenate()([Flatten()(first), plain, ReLU()(Flatten()(second))])
    model = raw(Model([first, second, plain], Dense(3)(joined)))
    state = {"fc.weight": numbers(3, 35), "fc.bias": numbers(3)}
    load_weights(model, write(tmp_path / "net.pt", state))
    a, b, c = numbers(2, 4, 2, 3), numbers(2, 2, 3, 1), numbers(2, 5)
    whole = np.concatenate([a.reshape(2, -1), c, relu(b.reshape(2, -1))], axis=1)
    expected = whole @ state["fc.weight"].T + state["fc.bias"]
    result = model.predict([a.transpose(0, 2, 3, 1), b.transpose(0, 2, 3, 1), c])
    assert np.abs(result - expected).max() < 1e-5


def test_nets_that_order_their_features_themselves(tmp_path: Path) -> None:
    state = {"fc.weight": numbers(3, 24), "fc.bias": numbers(3)}
    path, x = write(tmp_path / "net.pt", state), numbers(2, 2, 3, 4)
    first = raw(Sequential([Permute((3, 1, 2)), Flatten(), Dense(3)], (2, 3, 4)))
    load_weights(first, path)
    moved = x.transpose(0, 3, 1, 2).reshape(2, -1)
    expected = moved @ state["fc.weight"].T + state["fc.bias"]
    assert np.abs(first.predict(x) - expected).max() < 1e-5
    last = raw(Sequential([Flatten(), Dense(3)], (2, 3, 4)))
    load_weights(last, path, flatten="channels_last")
    expected = x.reshape(2, -1) @ state["fc.weight"].T + state["fc.bias"]
    assert np.abs(last.predict(x) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("layers", "doubt"),
    [
        ([Dense(12), Reshape((2, 6)), Flatten(), Dense(2)], "reads the numbers"),
        ([Dense(2), Reshape((1, 1, 2)), Reshape((1, 2)), Flatten()], "reads the numbers"),
        ([Reshape((2, 1, 3)), Flatten(), Dense(2)], "reads the numbers"),
        ([Dense(12), Reshape((2, 3, 2)), Flatten()], "an output lists"),
        ([Dense(12), Reshape((2, 3, 2)), Permute((2, 1, 3)), Flatten(), Dense(2)], "Permute"),
    ],
)
def test_reshapes_that_differ_are_told(tmp_path: Path, layers: list[Layer], doubt: str) -> None:
    model = Sequential(layers, (6,))
    state = dict[str, Array]()
    for i, layer in enumerate(model.layers):
        if isinstance(layer, Dense):
            state[f"{i}.weight"] = numbers(*layer.parameters["w"].shape[::-1])
            state[f"{i}.bias"] = numbers(layer.units)
    if not state:
        state = {"0.weight": numbers(2, 6), "0.bias": numbers(2)}
    with pytest.warns(WeightsWarning, match=doubt):
        load_weights(model, write(tmp_path / "net.pt", state))


# --- other layers --------------------------------------------------------------------------------


def test_separable_convolutions_take_two_modules(tmp_path: Path) -> None:
    state = {
        "block.depthwise.weight": numbers(6, 1, 3, 3),
        "block.pointwise.weight": numbers(4, 6, 1, 1),
    }
    model = raw(Sequential([SeparableConv2D(4, 3, padding=1, depth_multiplier=2)], (5, 6, 3)))
    report = load_weights(model, write(tmp_path / "net.pt", state))
    x = numbers(2, 3, 5, 6)
    y = conv(conv(x, state["block.depthwise.weight"], 1, 1, 3), state["block.pointwise.weight"])
    assert np.abs(model.predict(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) - y).max() < 1e-5
    (absent,) = (match for match in report.matches if match.source is None)
    assert (absent.array, absent.value) == ("b", 0.0)
    assert "all 0: the file has none" in repr(report)


def test_layers_inside_of_residuals_and_a_single_slope(tmp_path: Path) -> None:
    state = {
        "0.weight": numbers(4, 3, 3, 3), **norm_state("1", 4), "2.weight": numbers(4, 3, 1, 1),
        "2.bias": numbers(4), "act.weight": numbers(1),
    }  # fmt: skip
    block = Residual(
        [Conv2D(4, 3, padding=1, use_bias=False), BatchNorm(epsilon=1e-5)], [Conv2D(4, 1)]
    )
    model = raw(Sequential([block, PReLU()], (5, 6, 3)))
    report = load_weights(model, write(tmp_path / "net.pt", state))
    assert [match.layer for match in report.matches][-3:-1] == ["residual.shortcut.0"] * 2
    x = numbers(2, 3, 5, 6)
    y = norm(conv(x, state["0.weight"], 1, 1), state, "1")
    y += conv(x, state["2.weight"]) + state["2.bias"].reshape(-1, 1, 1)
    y = np.where(y > 0, y, y * state["act.weight"])
    assert np.abs(model.predict(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) - y).max() < 1e-5


def test_groups_and_normalisations_of_samples(tmp_path: Path) -> None:
    state = {
        "0.weight": numbers(6, 2, 3, 2), "0.bias": numbers(6), "1.weight": numbers(6),
        "1.bias": numbers(6), "2.weight": numbers(6, 3, 5), "2.bias": numbers(6, 3, 5),
    }  # fmt: skip
    layers = [
        Conv2D(6, (3, 2), groups=2), GroupNorm(3, epsilon=1e-5),
        LayerNorm((-3, -2, -1), epsilon=1e-5),
    ]  # fmt: skip
    model = raw(Sequential(layers, (5, 6, 4)))
    load_weights(model, write(tmp_path / "net.safetensors", state))
    x = numbers(2, 4, 5, 6)
    y = conv(x, state["0.weight"], groups=2) + state["0.bias"].reshape(-1, 1, 1)
    parts = y.reshape(2, 3, -1)
    y = (parts - parts.mean(2, keepdims=True)) / np.sqrt(parts.var(2, keepdims=True) + 1e-5)
    y = y.reshape(2, 6, 3, 5) * state["1.weight"].reshape(-1, 1, 1)
    y += state["1.bias"].reshape(-1, 1, 1)
    mean, variance = y.mean((1, 2, 3), keepdims=True), y.var((1, 2, 3), keepdims=True)
    y = (y - mean) / np.sqrt(variance + 1e-5) * state["2.weight"] + state["2.bias"]
    assert np.abs(model.predict(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) - y).max() < 1e-4


class Scaled(Layer):
    """A layer of a user's own with a parameter."""

    def infer(self, input_shape: Any) -> Any:
        return input_shape

    def parameter_specs(self, input_shape: Any) -> dict[str, Spec]:
        return {"by": Spec(input_shape[-1:], "ones")}

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> tuple[Array, Any]:
        return x * self.parameters["by"], x

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy * self.parameters["by"], {"by": (dy * saved).sum(axis=0)}


def test_own_layers_take_arrays_of_their_names(tmp_path: Path) -> None:
    model = raw(Sequential([Scaled()], (3,)))
    by = numbers(3)
    load_weights(model, write(tmp_path / "net.pt", {"scaled.by": by}))
    assert (model.predict(np.ones((1, 3), np.float32)) == by).all()


# --- traps ---------------------------------------------------------------------------------------


def test_epsilon_of_another_library_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt", {"conv.weight": numbers(2, 3, 1, 1), **norm_state("bn", 2)})

    def model_of(epsilon: float) -> Model:
        return Sequential([Conv2D(2, 1, use_bias=False), BatchNorm(epsilon=epsilon)], (4, 5, 3))

    with pytest.warns(WeightsWarning, match=r"batch_norm adds the epsilon 0\.001 .* epsilon=1e-05"):
        report = load_weights(model_of(1e-3), path)
    assert len(report.notes) == 1
    assert "note: batch_norm" in repr(report)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model_of(1e-5), path)
        model = model_of(1e-3)
        load_weights(model, path, epsilon=0.001)
        load_weights(model, path, epsilon=1e-5)
    assert model.layers[1].epsilon == 1e-5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("layer", "size", "doubt"),
    [
        (Conv2D(2, 3, 2, "same"), 8, "padding=1$"),
        (Conv2D(2, (5, 3), 2, "same"), 8, r"padding=\(2, 1\)$"),
        (Conv2D(2, 3, 2, "same", dilation=2), 8, "padding=2$"),
        (DepthwiseConv2D(3, 2, "same"), 8, "padding=1$"),
        (MaxPool2D(3, 2, "same"), 8, "padding=1$"),
        (AvgPool2D(3, 2, 1), 8, "count_include_pad"),
        (Conv2D(2, 3, 2, "same"), 9, None),
        (Conv2D(2, 3, 2, 1), 8, None),
        (Conv2D(2, 4, 1, "same"), 8, None),
        (MaxPool2D(2), 8, None),
        (AvgPool2D(2), 8, None),
    ],
)
def test_padding_that_pytorch_has_not_is_told(
    tmp_path: Path, layer: Layer, size: int, doubt: str | None
) -> None:
    for inner in (False, True):
        block: Layer = Residual([layer], [layer.from_config(layer.config())]) if inner else layer
        model = Sequential([block, Flatten(), Dense(1)], (size, size, 2))
        state = dict[str, Array]()
        for match in range(2 if inner else 1):
            for name, array in layer_state(layer, model).items():
                state[f"conv{match}.{name}"] = array
        w = model.layers[2].parameters["w"]
        state |= {"fc.weight": numbers(*w.shape[::-1]), "fc.bias": numbers(1)}
        path = write(tmp_path / "net.pt", state)
        if doubt is None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                load_weights(model, path)
        else:
            with pytest.warns(WeightsWarning, match=doubt):
                load_weights(model, path)


def layer_state(layer: Layer, model: Model) -> dict[str, Array]:
    """Arrays for a convolution of the model, as PyTorch names them."""
    specs = layer.parameter_specs((8, 8, 2))
    if not specs:
        return {}
    kh, kw, ic, oc = specs["w"].shape
    return {"weight": numbers(oc, ic, kh, kw), "bias": numbers(oc)}


def test_bytes_are_refused_afterwards(tmp_path: Path) -> None:
    model = lenet()
    model.trained_on = "uint8"
    load_weights(model, write(tmp_path / "net.pt", lenet_state()))
    assert model.trained_on == "floats"
    with pytest.raises(ValueError, match="uint8"):
        model.predict(np.zeros((1, 16, 18, 1), np.uint8))
    model.trained_on = "uint8"
    model.predict(np.zeros((1, 16, 18, 1), np.uint8))


# --- matching ------------------------------------------------------------------------------------


def twins(count: int = 2) -> Model:
    """Dense layers of one shape."""
    return raw(Sequential([Dense(3) for _ in range(count)], (3,)))


def twin_state(*names: str) -> dict[str, Array]:
    return {
        f"{name}.{one}": numbers(*shape)
        for name in names
        for one, shape in (("weight", (3, 3)), ("bias", (3,)))
    }


def sources(report: Any) -> list[str]:
    return [match.source.rpartition(".")[0] for match in report.matches if match.array == "w"]


def test_the_order_of_torch_files_is_that_of_the_net(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt", twin_state("z", "a"))
    assert sources(load_weights(twins(), path)) == ["z", "a"]


def test_the_order_of_names_is_taken_where_numbers_tell_it(tmp_path: Path) -> None:
    names = [f"fc{i}" for i in (2, 10, 1, 9)]
    path = write(tmp_path / "net.safetensors", twin_state(*names))
    assert sources(load_weights(twins(4), path)) == ["fc1", "fc2", "fc9", "fc10"]


def test_two_orders_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "net.safetensors", twin_state("head", "body"))
    model = twins()
    with pytest.raises(ValueError, match=r"several orders.*dense may be body or head") as raised:
        load_weights(model, path)
    assert 'names={"body": "dense"}' in str(raised.value)
    assert sources(load_weights(model, path, {"body": "dense"})) == ["body", "head"]
    assert sources(load_weights(model, path, {"head": "dense"})) == ["head", "body"]
    by_function = {"head": "dense_1", "body": "dense"}
    assert sources(load_weights(model, path, by_function.get)) == ["body", "head"]


def test_lists_that_take_turns(tmp_path: Path) -> None:
    state = dict[str, Array]()
    for i in range(3):
        state |= {f"convs.{i}.weight": numbers(2, 2, 1, 1), **norm_state(f"norms.{i}", 2)}
    layers: list[Layer] = []
    for _ in range(3):
        layers += [Conv2D(2, 1, use_bias=False), BatchNorm(epsilon=1e-5)]
    report = load_weights(Sequential(layers, (3, 4, 2)), write(tmp_path / "net.safetensors", state))
    assert sources(report) == ["convs.0", "convs.1", "convs.2"]
    assert [m.source for m in report.matches if m.array == "gamma"] == [
        f"norms.{i}.weight" for i in range(3)
    ]


def test_a_residual_net_in_alphabetical_order(tmp_path: Path) -> None:
    """Norms come before convolutions in the alphabet; blocks stay together all the same."""
    state = {"conv1.weight": numbers(4, 3, 3, 3), **norm_state("bn1", 4)}
    inputs = x = Input((8, 8, 3))
    x = ReLU()(BatchNorm(epsilon=1e-5)(Conv2D(4, 3, padding=1, use_bias=False)(x)))
    for i, (before, channels) in enumerate(((4, 4), (4, 6), (6, 6))):
        block = f"layer{i + 1}.0"
        state |= {
            f"{block}.conv1.weight": numbers(channels, before, 3, 3),
            f"{block}.conv2.weight": numbers(channels, channels, 3, 3),
            **norm_state(f"{block}.bn1", channels), **norm_state(f"{block}.bn2", channels),
        }  # fmt: skip
        y = BatchNorm(epsilon=1e-5)(Conv2D(channels, 3, padding=1, use_bias=False)(x))
        y = BatchNorm(epsilon=1e-5)(Conv2D(channels, 3, padding=1, use_bias=False)(ReLU()(y)))
        if before != channels:
            state |= {f"{block}.downsample.0.weight": numbers(channels, before, 1, 1)}
            state |= norm_state(f"{block}.downsample.1", channels)
            x = BatchNorm(epsilon=1e-5)(Conv2D(channels, 1, use_bias=False)(x))
        x = ReLU()(Add()([y, x]))
    state |= {"fc.weight": numbers(2, 6), "fc.bias": numbers(2)}
    model = Model(inputs, Dense(2)(GlobalAvgPool2D()(x)))
    report = load_weights(model, write(tmp_path / "net.safetensors", state))
    assert [m.source for m in report.matches if m.array == "gamma"] == [
        "bn1.weight", "layer1.0.bn1.weight", "layer1.0.bn2.weight", "layer2.0.bn1.weight",
        "layer2.0.bn2.weight", "layer2.0.downsample.1.weight", "layer3.0.bn1.weight",
        "layer3.0.bn2.weight",
    ]  # fmt: skip


def test_a_new_head_keeps_its_values(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt", twin_state("0", "1") | {"fc.weight": numbers(9, 3)})
    model = raw(Sequential([Dense(3), Dense(3), Dense(2)], (3,)))
    before = model.layers[2].parameters["w"].copy()
    with pytest.raises(ValueError, match="fc weight"):
        load_weights(model, path)
    report = load_weights(model, path, {"fc": None}, keep=["dense_2"])
    assert report.kept == ("dense_2",)
    assert report.left_out == ("fc.weight",)
    assert (model.layers[2].parameters["w"] == before).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"names": {"fc9": "dense"}}, ValueError, "'fc9'"),
        ({"names": {"a": "dance"}}, ValueError, "'dance'"),
        ({"names": {"a": "dense", "b": "dense"}}, ValueError, "twice"),
        ({"names": {"a": 3}}, TypeError, "got 3"),
        ({"names": ["a"]}, TypeError, "names must be a dict"),
        ({"names": {"a": None}}, ValueError, "1 modules with weights, and the model 2"),
        ({"keep": "dense"}, TypeError, "keep must be a list"),
        ({"keep": ["dance"]}, ValueError, "'dance'"),
        ({"keep": ["dense"]}, ValueError, "2 modules with weights, and the model 1"),
        ({"epsilon": -1}, ValueError, "epsilon"),
        ({"epsilon": "small"}, TypeError, "epsilon"),
        ({"flatten": "nchw"}, ValueError, "flatten"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    model, path = twins(), write(tmp_path / "net.pt", twin_state("a", "b"))
    before = model.get_weights()
    with pytest.raises(error, match=message):
        load_weights(model, path, **arguments)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))


def test_what_is_no_built_model(tmp_path: Path) -> None:
    path = write(tmp_path / "net.pt", twin_state("a"))
    with pytest.raises(TypeError, match="model must be"):
        load_weights(path, path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="built"):
        load_weights(Sequential([Dense(3)]), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv2.weight": numbers(6, 4, 3, 4)}, "no order of the modules fits"),
        ({"fc1.weight": numbers(10, 35)}, "no order of the modules fits"),
        ({"extra.weight": numbers(3)}, "5 modules with weights, and the model 4"),
        ({"conv1.running": numbers(4)}, "no order of the modules fits"),
        ({"fc2.weight": np.zeros((3, 10), np.int8)}, "fc2.weight must hold floats, got int8"),
        ({"fc2.bias": np.array([1e300, 0, 0])}, "fc2.bias has numbers that float32 does not hold"),
    ],
)
def test_nothing_changes_where_anything_does_not_fit(
    tmp_path: Path, change: dict[str, Array], message: str
) -> None:
    model = lenet()
    before = model.get_weights()
    path = write(tmp_path / "net.pt", lenet_state() | change)
    with pytest.raises(ValueError, match=message):
        load_weights(model, path, epsilon=1e-5)
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    assert model.trained_on is None


def test_a_bias_that_the_layer_has_not_is_an_error(tmp_path: Path) -> None:
    model = Sequential([Dense(3, use_bias=False)], (3,))
    with pytest.raises(ValueError, match="use_bias=False"):
        load_weights(model, write(tmp_path / "net.pt", twin_state("fc")), {"fc": "dense"})


def test_other_dtypes_of_files_and_models(tmp_path: Path) -> None:
    state = twin_state("fc")
    model = raw(Sequential([Dense(3)], (3,), dtype="float64"))
    for dtype in (np.float16, np.float64):
        given_state = {name: array.astype(dtype) for name, array in state.items()}
        load_weights(model, write(tmp_path / "net.pt", given_state))
        w = model.layers[0].parameters["w"]
        assert w.dtype == np.float64
        assert (w == given_state["fc.weight"].T).all()


def test_a_search_without_end_ends(tmp_path: Path) -> None:
    """Many modules of one shape, and one that fits nowhere: the search has a bound."""
    names = [chr(97 + i) + "x" for i in range(14)]
    state = twin_state(*names) | {"zz.weight": numbers(4, 4)}
    with pytest.raises(ValueError, match="no order of the modules was found"):
        load_weights(twins(15), write(tmp_path / "net.safetensors", state))


# --- PyTorch itself ------------------------------------------------------------------------------


def test_nets_of_pytorch(tmp_path: Path) -> None:
    """Every layer with weights, against PyTorch; CI without PyTorch has the tests above."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    nn = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6), nn.PReLU(6),
        nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False), nn.GroupNorm(3, 12), nn.SiLU(),
        nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1, groups=2), nn.Tanh(),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.LayerNorm([8, 6, 5]), nn.Flatten(),
        nn.BatchNorm1d(240), nn.Dropout(0.3), nn.Linear(240, 10), nn.ReLU(), nn.LayerNorm(10),
        nn.Linear(10, 24), nn.Unflatten(1, (4, 2, 3)), nn.ConvTranspose2d(4, 3, 2, 2),
    )  # fmt: skip
    for module in net.modules():
        for name in ("weight", "bias", "running_mean"):
            if getattr(module, name, None) is not None:
                getattr(module, name).data.normal_(std=0.5)
    net.eval()
    layers = [
        Conv2D(6, 3, 2, 1, groups=2), BatchNorm(), PReLU(),
        DepthwiseConv2D(3, padding=1, depth_multiplier=2, use_bias=False), GroupNorm(3),
        fastcnn.layers.SiLU(), Conv2DTranspose(8, 3, 2, 1, 1, groups=2), Tanh(),
        AvgPool2D(3, 2, 1), LayerNorm((-3, -2, -1)), Flatten(), BatchNorm(), Dropout(0.3),
        Dense(10), ReLU(), LayerNorm(), Dense(24), Reshape((2, 3, 4)), Conv2DTranspose(3, 2, 2),
    ]  # fmt: skip
    x = torch.randn(3, 4, 12, 10)
    expected = net(x).detach().numpy().transpose(0, 2, 3, 1)
    for path in (tmp_path / "net.pt", tmp_path / "whole.pt"):
        state = net.state_dict()
        torch.save(state if path.stem == "net" else {"epoch": 3, "state_dict": state}, path)
        model = raw(Sequential([one.from_config(one.config()) for one in layers], (12, 10, 4)))
        with pytest.warns(WeightsWarning, match="count_include_pad"):
            load_weights(model, path, epsilon=1e-5)
        result = model.predict(x.numpy().transpose(0, 2, 3, 1))
        assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()


def test_dtypes_and_objects_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    path = tmp_path / "net.pt"
    matrix = torch.arange(12.0).reshape(3, 4)
    state = {
        "half": matrix.half(), "bfloat16": matrix.bfloat16(), "double": matrix.double(),
        "turned": matrix.T, "row": matrix[1], "int": torch.arange(3), "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(matrix), "empty": torch.zeros(0, 3),
    }  # fmt: skip
    torch.save(state, path)
    result = fastcnn.read_weights(path)
    for name, tensor in state.items():
        expected = tensor.detach().float() if name == "bfloat16" else tensor.detach()
        assert result[name].dtype == expected.numpy().dtype
        assert result[name].shape == expected.shape
        assert (result[name] == expected.numpy()).all()
    torch.save(torch.nn.Linear(2, 3), path)
    with pytest.raises(fastcnn.ModelFileError, match=r"torch\.nn\.modules\.linear\.Linear"):
        fastcnn.read_weights(path)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with pytest.raises(fastcnn.ModelFileError, match=r"before version 1\.6"):
        fastcnn.read_weights(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), path)
    with pytest.raises(fastcnn.ModelFileError, match="TorchScript"):
        fastcnn.read_weights(path)
