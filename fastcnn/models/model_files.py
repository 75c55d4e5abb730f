"""Model files: what ``save``, ``save_checkpoint`` and ``load_model`` write and read."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import module_of
from fastcnn.core.files import FilePath
from fastcnn.core.quoting import quoted
from fastcnn.data.preparation import preparation_from
from fastcnn.data.scaling import SCALING, known_from
from fastcnn.models.net import Net, image_shape
from fastcnn.nn.layers import Shape, infer_stack, layers_from_list, to_dict
from fastcnn.nn.losses import loss_from_dict
from fastcnn.train import checkpoint
from fastcnn.train.checkpoint import ModelFile, ModelFileError
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
    model._known_shape()
    checkpoint.write(path, description(model), dict(model._arrays()), _check)


def save_checkpoint(model: Net, path: FilePath) -> None:
    """Write a model and its training to a file."""
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
    checkpoint.write(path, description(model) | {"training": training}, arrays, _check)


def description(model: Net) -> dict[str, Any]:
    """The model as JSON holds it, without its arrays."""
    loss = model._loss()
    return {
        "layers": [to_dict(layer) for layer in model.layers],
        "input_shape": model.input_shape,
        "dtype": model.dtype.name,
        "loss": {"name": loss.name, **module_of(type(loss)), "config": loss.config()},
        "bytes": SCALING,
        "trained_on": model._known.kind,
        "samples": model._known.as_dict(),
        "preparation": None if model._preparation is None else model._preparation.as_dict(),
    }


def named(model: Net, flat: Array) -> list[tuple[str, Array]]:
    """Parts of a flat array under the names of the parameters."""
    return [
        (f"layers.{i}.{name}", part)
        for i, parts in enumerate(model._weights.split(flat))
        for name, part in parts.items()
    ]


def _check(file: ModelFile) -> None:
    """Raise where a file that was written could not be read again."""
    _contents(file, Net)


def model_from(file: ModelFile, kind: type[M]) -> M:
    """The model of a file, of class ``kind``, and its training where the file holds one."""
    model, shape, slots = _contents(file, kind)
    arrays, progress = file.arrays(), model.progress
    model._known.is_known("layout")  # to whoever made the model
    model._build_once(shape)
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


def _contents(file: ModelFile, kind: type[M]) -> tuple[M, Shape, list[str]]:
    """What a file says of its model, before any array is read.

    The model, not built, with its training where the file holds one; the shape of its input; the
    names of its optimizer's arrays.
    """
    description, slots = file.model, list[str]()
    try:
        model = kind(layers_from_list(description["layers"]), dtype=description["dtype"])
        shape = image_shape(description["input_shape"])
        model.loss = loss_from_dict(description["loss"])
        if description["bytes"] != SCALING:
            raise ValueError(
                f"its bytes are scaled as {quoted(description['bytes'])}, not as {SCALING!r}"
            )
        model._known = known_from(description["trained_on"], description.get("samples"))
        model._preparation = preparation_from(description.get("preparation"))
        shapes = infer_stack(model.layers, shape)
        parameters, expected = {}, {}
        for i, layer in enumerate(model.layers):
            for name, spec in layer.parameter_specs(shapes[i]).items():
                parameters[f"layers.{i}.{name}"] = spec.shape, model.dtype.name
            for name, spec in layer.state_specs(shapes[i]).items():
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
    return model, shape, slots
