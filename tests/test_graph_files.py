"""Files and checkpoints of models that are graphs: what they keep, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from graphs import GRAPHS, graph, refuse_to_draw, same_bits, samples, targets

import fastcnn
from fastcnn import Input, Model, Sequential, load_model
from fastcnn.layers import (
    Add,
    Dense,
    ReLU,
)
from fastcnn.models.graph import MOST_VALUES, graph_from
from fastcnn.nn.layers import to_dict
from fastcnn.optimizers import SGD
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFileError


@pytest.fixture(autouse=True)
def nothing_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call compiles what it needs."""
    monkeypatch.setenv("FASTCNN_COMPILE_AHEAD", "0")


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "u_net"])
def test_files_keep_a_graph(
    name: str, dtype: Literal["float32", "float64"], tmp_path: Path
) -> None:
    model = graph(name, dtype)
    x, y = samples(model, 6), targets(model, 6)
    model.fit(x, y, verbose=0, seed=1)
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = load_model(path)
    assert type(again) is Model
    assert again.draw() == model.draw()
    assert repr(again.loss) == repr(model.loss)
    assert again.trained_on == model.trained_on
    assert (again.input_shape, again.output_shape) == (model.input_shape, model.output_shape)
    same_bits(again.predict(x), model.predict(x))
    same_bits(again.get_weights(), model.get_weights())
    other = tmp_path / "other.safetensors"
    again.save(other)
    assert other.read_bytes() == path.read_bytes()


def test_only_what_needs_it_is_written_as_version_2(tmp_path: Path) -> None:
    inputs, path = Input((3,)), tmp_path / "model.safetensors"
    named = Dense(2)
    named.name = "scores"
    left = Input((3,), name="left")
    for model, version, kind in [
        (Sequential([Dense(3), Dense(2)], (3,)), "1", Sequential),
        (Model(inputs, Dense(2)(Dense(3)(inputs))), "1", Sequential),
        (Sequential([Dense(3), named], (3,)), "2", Sequential),
        (Model(left, Dense(2)(left)), "2", Model),
        (Model(inputs, Add()([Dense(3)(inputs), inputs])), "2", Model),
    ]:
        model.save(path)
        header, _ = read(path)
        assert header["__metadata__"]["version"] == version
        again = load_model(path)
        assert type(again) is kind
        assert again.layers[-1].name == model.layers[-1].name
        assert [tensor.name for tensor in again.inputs] == [tensor.name for tensor in model.inputs]


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """The file with another architecture, signed anew."""
    file = checkpoint.read(path)
    arrays, model = file.arrays(), json.loads(json.dumps(file.model))
    change(model)
    checkpoint.write(path, model, arrays)


def _graph_with(**parts: Any) -> Callable[[dict[str, Any]], object]:
    return lambda model: model["graph"].update(parts)


# A graph of two inputs: 2 = dense(0), 3 = dense_1(1), 4 = add(2, 3), 5 = dense_2(4).
_NODES = [[0, 0], [1, 1], [2, 2, 3], [3, 4]]

WRONG_FILES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a cycle": (
        _graph_with(nodes=[[0, 4], *_NODES[1:]]),
        r"node 0, Dense\(3\), must take values that are computed before it, got value 4, so the "
        r"graph has a cycle",
    ),
    "itself": (_graph_with(nodes=[[0, 2], *_NODES[1:]]), "node 0.* got value 2, so the graph has"),
    "a value that does not exist": (
        _graph_with(nodes=[*_NODES[:3], [3, 99]]),
        "node 3, .* got value 99, which does not exist",
    ),
    "a negative value": (_graph_with(nodes=[[0, -1], *_NODES[1:]]), "node 0 must be at least 0"),
    "a value that is no number": (
        _graph_with(nodes=[[0, "0"], *_NODES[1:]]),
        "node 0 must be made of integers|node 0 must be an integer",
    ),
    "a layer that does not exist": (
        _graph_with(nodes=[*_NODES[:3], [4, 4]]),
        "node 3 must call one of 4 layers, got 4",
    ),
    "a layer that no node calls": (
        lambda model: (
            model["layers"].append(to_dict(ReLU())) or model["names"].append(None)
            if "names" in model
            else model["layers"].append(to_dict(ReLU()))
        ),
        "each node must lead to an output, and each layer must have a node",
    ),
    "a node that leads nowhere": (
        _graph_with(nodes=[*_NODES, [3, 4]]),
        "each node must lead to an output, and each layer must have a node",
    ),
    "an input that leads nowhere": (
        lambda model: (
            _graph_with(
                inputs=["left", "right", None],
                outputs=[6],
                nodes=[[0, 0], [1, 1], [2, 3, 4], [3, 5]],
            )(model),
            model.update(input_shape=[[3], [4], [5]]),
        ),
        "inputs must all lead to an output, but no node takes 2",
    ),
    "layers in another order": (
        _graph_with(nodes=[[1, 1], [0, 0], [2, 2, 3], [3, 4]]),
        "layers must be in the order of their first nodes",
    ),
    "one value for a merging layer": (
        _graph_with(nodes=[[0, 0], [1, 1], [2, 2], [3, 4]]),
        "each node must lead to an output|Add needs at least two inputs",
    ),
    "several values for a layer": (
        _graph_with(nodes=[*_NODES[:3], [3, 4, 2]]),
        r"node 3, Dense\(2\), must take one value, got 2",
    ),
    "a node without inputs": (
        _graph_with(nodes=[[0], *_NODES[1:]]),
        r"node 0 must be a layer and its inputs, got \[0\]",
    ),
    "no nodes": (_graph_with(nodes=[]), "nodes of the graph must be a list"),
    "nodes that are no list": (_graph_with(nodes={"0": 1}), "nodes of the graph must be a list"),
    "an output that is an input": (_graph_with(outputs=[0]), "outputs must be at least 2"),
    "an output that does not exist": (
        _graph_with(outputs=[6]),
        r"outputs must be different results of nodes, got \[6\]",
    ),
    "an output twice": (_graph_with(outputs=[5, 5]), "outputs must be different results of nodes"),
    "no outputs": (_graph_with(outputs=[]), "outputs of the graph must be a list"),
    "a name that is no text": (_graph_with(inputs=["left", 3]), "a name of an input must be text"),
    "inputs of one name": (
        _graph_with(inputs=["left", "left"]),
        "inputs must have different names, got 'left' twice",
    ),
    "something else": (_graph_with(more=1), "graph must have inputs, nodes and outputs"),
    "no graph": (lambda model: model.update(graph=3), "graph must have inputs, nodes and outputs"),
    "other shapes": (
        lambda model: model.update(input_shape=[[3], [5]]),
        r"the array layers.1.w is float32 of shape \(4, 3\), but the architecture needs float32 of "
        r"shape \(5, 3\)",
    ),
    "shapes in another order": (
        lambda model: model.update(input_shape=[[4], [3]]),
        "the array layers.0.w is float32 of shape",
    ),
    "a shape too few": (
        lambda model: model.update(input_shape=[[3]]),
        "input_shape must have a shape for each of 2 inputs",
    ),
    "one shape": (lambda model: model.update(input_shape=3), "input_shape must have a shape for"),
    "images": (
        lambda model: model.update(input_shape=[[3, 3, 1], [4]]),
        "Dense needs vectors",
    ),
    "two names": (
        lambda model: model.update(names=["one", "one", None, None]),
        "layers must have different names, got two of the name 'one'",
    ),
    "too few names": (lambda model: model.update(names=["one"]), "names must be 4, one for each"),
    "a name of a layer that is no text": (
        lambda model: model.update(names=[3, None, None, None]),
        "name must be text, not empty, or None, got 3",
    ),
    "samples of one input": (
        lambda model: model.update(trained_on=["uint8"]),
        "the samples of 2 inputs must be known for each",
    ),
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    left, right = Input((3,), name="left"), Input((4,), name="right")
    path = tmp_path / "model.safetensors"
    Model([left, right], Dense(2)(Add()([Dense(3)(left), Dense(3)(right)]))).save(path)
    return path


@pytest.mark.parametrize("name", WRONG_FILES)
def test_files_of_impossible_graphs_are_refused_before_anything_is_allocated(
    name: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, text = WRONG_FILES[name]
    edited(saved, change)
    refuse_to_draw(monkeypatch)
    with pytest.raises(ModelFileError, match=f"its architecture: .*{text}|{text}"):
        load_model(saved)


def test_graphs_of_very_many_calls_are_refused() -> None:
    calls = MOST_VALUES // 3
    described = {"inputs": [None], "nodes": [[0, i, i] for i in range(calls)], "outputs": [calls]}
    assert len(graph_from(described, [Add()]).nodes) == calls
    wide: dict[str, Any] = {"inputs": [None], "nodes": [[0] * (MOST_VALUES + 1)], "outputs": [1]}
    longer = {**described, "nodes": [*described["nodes"], [0, 0]], "outputs": [calls + 1]}  # type: ignore[misc]
    for many in (wide, longer):
        with pytest.raises(ValueError, match="at most 300,000 calls"):
            graph_from(many, [Add()])


def test_losses_of_several_outputs_in_a_file_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    graph("two_of_each").save(path)
    loss = read_loss(path)
    for wrong, text in [
        (loss["losses"][0], "loss must be one for each output"),
        ({**loss, "losses": loss["losses"][:1]}, "loss must have one item for each output"),
        ({**loss, "weights": [1]}, "loss_weights must have one item for each output"),
        ({**loss, "weights": [1, -1]}, r"loss_weights\['size'\] must be a finite number"),
    ]:
        graph("two_of_each").save(path)
        edited(path, lambda model, wrong=wrong: model.update(loss=wrong))  # type: ignore[misc]
        with pytest.raises(ModelFileError, match=text):
            load_model(path)


def read_loss(path: Path) -> dict[str, Any]:
    loss: dict[str, Any] = checkpoint.read(path).model["loss"]
    return loss


# --- checkpoints and resuming ---------------------------------------------------------------------


class Stop(fastcnn.Callback):
    """Save and stop after some batches."""

    def __init__(self, path: Path, after: int) -> None:
        self.path, self.after, self.seen = path, after, 0

    def on_batch_end(self, model: Model, batch: int, logs: dict[str, float]) -> None:
        self.seen += 1
        if self.seen == self.after:
            model.save_checkpoint(self.path)
            model.stop_training = True


@pytest.mark.parametrize("after", [1, 3, 5])
@pytest.mark.parametrize("name", ["two_of_each", "shared", "nested"])
def test_an_interrupted_training_ends_in_the_same_bits(
    name: str, after: int, tmp_path: Path
) -> None:
    """Also the figures of each output, in the middle of an epoch."""
    path = tmp_path / "training.safetensors"

    def fit(model: Model, callbacks: list[fastcnn.Callback], **more: Any) -> dict[str, Any]:
        x, y = samples(model, 11), targets(model, 11)
        history = model.fit(
            x, y, 3, 4, SGD(0.05, momentum=0.9), seed=5, verbose=0, callbacks=callbacks,
            validation_data=(x, y), **more,
        ).history  # fmt: skip
        return {name: values for name, values in history.items() if name != "seconds"}

    whole = graph(name)
    expected = fit(whole, [])
    stopped = graph(name)
    fit(stopped, [Stop(path, after)])
    resumed = graph(name, seed=9)
    result = fit(resumed, [], resume=path)
    same_bits(resumed.get_weights(), whole.get_weights())
    assert result == expected
    again = load_model(path)
    same_bits(again.get_weights(), stopped.get_weights())


def test_a_checkpoint_of_another_graph_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"

    def model_of(other: bool) -> Model:
        inputs = Input((4,))
        a, b = Dense(4), Dense(4)
        x = a(inputs)
        return Model(inputs, Add()([b(x), x if other else inputs]), seed=0)

    x, y = np.random.default_rng(0).standard_normal((6, 4)), [0, 1, 2, 3, 0, 1]
    first = model_of(False)
    first.fit(x, y, verbose=0)
    first.save_checkpoint(path)
    second = model_of(True)
    before = second.get_weights()
    with pytest.raises(ValueError, match="resume must be a training of this model's layers"):
        second.fit(x, y, 2, verbose=0, resume=path)
    same_bits(second.get_weights(), before)
    weighted = graph("two_of_each")
    x, y = samples(weighted, 6), targets(weighted, 6)
    weighted.fit(x, y, verbose=0)
    weighted.save_checkpoint(path)
    for changes, text in [
        ({"loss_weights": [1, 2]}, "loss must be that of the training"),
        ({"x": [x[0], x[1] + 1]}, "x must be the data"),
        ({"y": [y[0], y[1] + 1]}, "y must be the data"),
    ]:
        arguments: dict[str, Any] = {"x": x, "y": y, **changes}
        with pytest.raises(ValueError, match=text):
            graph("two_of_each").fit(**arguments, epochs=2, verbose=0, resume=path)
