"""What pictures take: a model, one sample, and the layer of a title."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.quoting import quoted
from fastcnn.models.inspection import LayerChoice
from fastcnn.models.model import Model
from fastcnn.models.summary import value_names
from fastcnn.nn.layers import Layer, Shape, repr_of_structure


def checked_model(model: Any) -> None:
    """Raise ``TypeError`` for anything but a model, ``ValueError`` for one that is not built."""
    if not isinstance(model, Model):
        raise TypeError(f"model must be a fastcnn.Model, got {quoted(model)}")
    model._known_shapes()


def one_sample(model: Model, x: Any) -> Any:
    """One sample as a batch of one; for several inputs a list of such.

    Raises ``ValueError`` for several samples, and for other shapes.
    """
    shapes = model._known_shapes()
    if len(shapes) == 1:
        remedy = model._for_other_samples(np.shape(x)[-len(shapes[0]) :])
        return _batch_of_one("x", x, shapes[0], remedy)
    names = model._input_names()
    if isinstance(x, Mapping):
        if x.keys() != {*names}:
            raise ValueError(
                f"x must have a sample for each of {quoted(names)}, got {quoted(list(x))}"
            )
        x = [x[name] for name in names]
    if not isinstance(x, list | tuple) or len(x) != len(names):
        raise ValueError(f"x must be a list or a dict of {len(names)} samples, got {quoted(x)}")
    return [
        _batch_of_one(f"x[{name!r}]", one, shape)
        for name, one, shape in zip(names, x, shapes, strict=True)
    ]


def _batch_of_one(name: str, x: Any, shape: Shape, more: str = "") -> NDArray[Any]:
    array = np.asarray(x)
    plain = shape[:2] if len(shape) == 3 and shape[2] == 1 else shape
    for whole in (shape, plain):
        if array.shape == whole:
            return array.reshape(1, *shape)
        if array.shape == (1, *whole):
            return array.reshape(1, *shape)
    raise ValueError(f"{name} must be one sample of the shape {shape}, got {array.shape}{more}")


def pictures_of(model: Model, sample: Any) -> list[tuple[str, NDArray[Any]]]:
    """The inputs of a sample that are images, (H, W, C), with their names."""
    parts = sample if isinstance(sample, list) else [sample]
    names = model._input_names() if len(parts) > 1 else ["input"]
    return [(n, part[0]) for n, part in zip(names, parts, strict=True) if part.ndim == 4]


def image_layer(model: Model, layer: LayerChoice | None) -> tuple[LayerChoice, Shape]:
    """The layer, or by default the first convolution, else the first layer; and its shape.

    A net without convolutions has its first layer.
    """
    if layer is None:
        values = model._graph.infer(model._known_shapes())
        nodes = model._graph.nodes
        named = value_names(model._graph, model._input_names())
        images = [node for node in nodes if len(values[node.output]) == 3 and _filters(node.layer)]
        node = (images or list(nodes))[0]
        return named[node.output], values[node.output]
    point = model._point(layer)
    value = model._graph.infer(model._known_shapes())[point.value]
    return layer, value


def _filters(layer: Layer) -> bool:
    return any(array.ndim == 4 for array in layer.parameters.values())


@overload
def layer_title(model: Model, layer: LayerChoice) -> str: ...
@overload
def layer_title(
    model: Model, layer: LayerChoice, *, with_layer: Literal[True]
) -> tuple[Layer, str]: ...
def layer_title(model: Model, layer: LayerChoice, *, with_layer: bool = False) -> Any:
    """The name of a layer and how it was made, for a title; with the layer itself if asked."""
    point = model._point(layer)
    name = value_names(model._graph, model._input_names())[point.value]
    if point.value < model._graph.inputs:
        title, owner = name, None
    else:
        owner = model._graph.nodes[point.value - model._graph.inputs].layer
        for path in point.path:
            owner = dict(owner.inner_layers())[path]
            name = f"{name}.{path}"
        text = repr_of_structure(owner)
        title = f"{name}, {text if len(text) <= 60 else text[:59] + '…'}"
    if not with_layer:
        return title
    if owner is None:
        raise ValueError(f"layer must be a layer, got the input {name!r}")
    return owner, title
