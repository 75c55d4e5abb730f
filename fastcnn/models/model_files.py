"""Model files: what ``save``, ``save_checkpoint`` and ``load_model`` write and read."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.files import FilePath, checked_path
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.data.class_names import checked_names
from fastcnn.data.known_inputs import knowledge_from
from fastcnn.data.pixel_scaling import CENTRED, check_channels, scaling_from
from fastcnn.data.preparation import preparation_from
from fastcnn.models.graph import Graph, chain, graph_from, names_of
from fastcnn.models.net import Net
from fastcnn.nn.layers import Shape, checked_layers, image_shape, layers_from_list, to_dict
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFile, ModelFileError
from fastcnn.train.output_losses import goal_from_dict, goal_to_dict
from fastcnn.train.progress import (
    UNREADABLE,
    as_dict,
    generator_from,
    progress_from,
    shapes_of,
    take_arrays,
)

M = TypeVar("M", bound=Net)


def save(model: Net, path: FilePath) -> None:
    """Write a built model to a file."""
    check_suffix(path)
    model._known_shapes()
    checkpoint.write(path, description(model), dict(model._arrays()), check)


def check_suffix(path: FilePath) -> None:
    """Raise ``ValueError`` for a name of another kind of file, which nothing could load again."""
    text = checked_path(path)
    if text.lower().endswith(".onnx"):
        raise ValueError(
            f"path must not end in .onnx, because save writes a safetensors file, got "
            f"{quoted(text)}; save_onnx writes an ONNX file"
        )


def save_checkpoint(model: Net, path: FilePath) -> None:
    """Write a model and its training to a file."""
    check_suffix(path)
    if model.progress is None:
        raise ValueError("save_checkpoint needs a training, and the model has had no fit")
    at, of_model = model.progress, model._arrays()
    if at.in_batch:
        raise ValueError("save_checkpoint must be called between batches, not inside of one")
    training, arrays = as_dict(at, model.rng)
    arrays |= dict(of_model)
    last = at.weights_to_save([array for _, array in of_model])
    training["has_weights"] = last is not None
    if last is not None:
        names = [f"training.{name}" for name, _ in of_model]
        arrays |= dict(zip(names, last, strict=True))
    for slot, flat in at.optimizer.state.items():
        at.optimizer.check_state(slot, model._weights.parameters)
        for name, part in named(model, flat):
            arrays[f"optimizer.{slot}.{name}"] = part
    checkpoint.write(path, description(model) | {"training": training}, arrays, check)


def description(model: Net) -> JsonObject:
    """The model as JSON holds it, without its arrays."""
    own_graph = model._graph
    in_a_row = own_graph.is_chain and own_graph.names == (
        None,
    )  # else the file keeps the input's name
    graph = {} if in_a_row else {"graph": own_graph.as_dict()}
    names = [layer._own_name for layer in model.layers]
    scaling = model._knowledge.scaling
    classes = {} if model._classes is None else {"classes": list(model._classes)}
    return {
        "layers": [to_dict(layer) for layer in model.layers],
        **graph,
        **({"names": names} if any(names) else {}),
        "input_shape": model.input_shape,
        "dtype": model.dtype.name,
        "loss": goal_to_dict(model._loss()),
        "has_loss": model.loss is not None,
        "bytes": str(CENTRED) if scaling == CENTRED else scaling.as_dict(),
        "trained_on": model._knowledge.kind,
        "samples": model._knowledge.as_dict(),
        "preparation": None if model._preparation is None else model._preparation.as_dict(),
        **classes,
    }


def named(model: Net, flat: Array) -> list[tuple[str, Array]]:
    """Parts of a flat array under the names of the parameters."""
    return [
        (f"layers.{i}.{name}", part)
        for i, parts in enumerate(model._weights.split(flat))
        for name, part in parts.items()
    ]


def check(file: ModelFile) -> None:
    """Raise where a file that was written could not be read again."""
    _contents(file, Net)


def model_from(file: ModelFile, kind: type[M]) -> M:
    """The model of a file, of class ``kind``, and its training where the file holds one."""
    model, shapes, slots = _contents(file, kind)
    arrays, progress = file.arrays(), model.progress
    model._knowledge.is_known("layout")  # because the model's maker knew it
    model._build_once(shapes)
    for name, array in model._arrays():
        array[...] = arrays[name]
    if progress is not None:
        model.rng = generator_from(file.model["training"]["generator"])
        for slot in slots:
            flat = progress.optimizer.state[slot] = np.zeros_like(model._weights.parameters)
            for name, array in named(model, flat):
                array[...] = arrays[f"optimizer.{slot}.{name}"]
        if file.model["training"].get("has_weights"):
            last = [arrays[f"training.{name}"] for name, _ in model._arrays()]
            progress.remember_weights(last, model.get_weights())
        try:
            take_arrays(progress, arrays)
        except UNREADABLE as error:
            raise file.error(f"its training: {error}") from None
        progress.optimizer.belong(model._ownership, progress)
    return model


def _contents(file: ModelFile, kind: type[M]) -> tuple[M, tuple[Shape, ...], list[str]]:
    """What a file says of its model, before any array is read.

    The model, not built, with its training where the file holds one; the shapes of its inputs; the
    names of its optimizer's arrays.
    """
    description, slots = file.model, list[str]()
    try:
        graph = _graph(description)
        model = kind.of_graph(graph, description["dtype"])
        shapes = _shapes(description["input_shape"], graph.inputs)
        names = model._output_names() if len(graph.outputs) > 1 else None
        loss = goal_from_dict(description["loss"], names)
        # Files of earlier versions do not say whether the loss is the usual one. With this loss
        # their nets could not learn classes of pixels.
        values = graph.infer(shapes)
        in_vectors = all(len(values[value]) == 1 for value in graph.outputs)
        model.loss = loss if description.get("has_loss", in_vectors) else None
        scaling = scaling_from(description["bytes"])
        for shape in shapes:
            check_channels(scaling, shape)
        model._knowledge = knowledge_from(
            description["trained_on"], description.get("samples"), graph.inputs, scaling
        )
        outputs = [values[value] for value in graph.outputs]
        model._classes = checked_names(description.get("classes"), outputs)
        model._preparation = preparation_from(description.get("preparation"))
        input_shapes = model._graph.input_shapes(model._graph.infer(shapes))
        parameters, expected = {}, {}
        for i, layer in enumerate(model.layers):
            for name, spec in layer.parameter_specs(input_shapes[i]).items():
                parameters[f"layers.{i}.{name}"] = spec.shape, model.dtype.name
            for name, spec in layer.state_specs(input_shapes[i]).items():
                expected[f"layers.{i}.{name}"] = spec.shape, model.dtype.name
        expected |= parameters
        training = description.get("training")
        if training is not None:
            if training.get("has_weights"):
                expected |= {f"training.{name}": one for name, one in expected.items()}
            model.progress, slots = progress_from(training)
            generator_from(training["generator"])
            expected |= {f"optimizer.{s}.{k}": v for s in slots for k, v in parameters.items()}
            expected |= shapes_of(training)
        file.expect(expected)
    except ModelFileError:
        raise
    except UNREADABLE as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise file.error(f"its architecture: {reason}") from None
    return model, shapes, slots


def _graph(description: JsonObject) -> Graph:
    """The graph of a file's layers, which are in a row if the file says nothing else."""
    layers = checked_layers("layers", layers_from_list(description["layers"]))
    names = description.get("names", [None] * len(layers))
    if not isinstance(names, list) or len(names) != len(layers):
        raise ValueError(f"names must be {len(layers)}, one for each layer, got {quoted(names)}")
    for layer, name in zip(layers, names, strict=True):
        if name is not None:
            layer.name = name
    names_of(layers)  # raises the error for two of one name
    if "graph" not in description:
        return chain(layers)
    return graph_from(description["graph"], layers)


def _shapes(record: object, inputs: int) -> tuple[Shape, ...]:
    """The shapes of the inputs."""
    shapes = record if inputs > 1 else [record]
    if not isinstance(shapes, list) or len(shapes) != inputs:
        raise ValueError(f"input_shape must have a shape for each of {inputs} inputs")
    return tuple(image_shape(shape) for shape in shapes)
