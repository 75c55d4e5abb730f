"""What an ONNX file says beside its graph: class names, the layout of images, their preparation.

``save_onnx`` writes it under the keys "classes", "layout", "preparation" and "scaling". Other
exporters write class names under other keys, as JSON, as a Python literal, or as lines of text.
"""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np

from fastcnn.data.pixel_scaling import Scaling, scaling_from
from fastcnn.data.preparation import preparation_from
from fastcnn.exchange.onnx_functions import OnnxNode
from fastcnn.exchange.onnx_reading import OnnxGraph
from fastcnn.models.model import Model

NAME_KEYS = (
    "classes", "names", "labels", "class_names", "classnames", "class_labels", "id2label",
    "categories", "label_names",
)  # fmt: skip
"""Keys of class names, in any case; the first that fits the outputs counts."""
_LONGEST = 1 << 20  # characters of a text that is parsed


def is_own(graph: OnnxGraph) -> bool:
    """Whether fastcnn wrote the file."""
    return graph.producer == "fastcnn"


def has_images_last(graph: OnnxGraph) -> bool:
    """Whether the file says that its images are (N, H, W, C)."""
    return is_own(graph) and graph.metadata.get("layout") == "channels_last"


def describe(model: Model, graph: OnnxGraph, scaling: Scaling | None) -> None:
    """Give a model what the metadata of its file say; what does not fit the model is left out.

    ``scaling`` is that of :func:`without_scaling`.
    """
    units = {shape[-1] for shape in model._output_shapes() if len(shape) == 1}
    names = class_names(graph.metadata, units)
    if names is not None:
        with suppress(ValueError, TypeError):
            model.classes = names
    if is_own(graph) and "preparation" in graph.metadata:
        with suppress(ValueError, TypeError, RecursionError):
            model.preparation = preparation_from(json.loads(graph.metadata["preparation"]))
    if scaling is not None:
        model.scaling, model.trained_on = scaling, "uint8"


def without_scaling(graph: OnnxGraph, images_last: bool) -> tuple[OnnxGraph, Scaling | None]:
    """The graph without the nodes that scale its bytes, and the scaling that they compute.

    So the model scales bytes itself, as the model did that was saved: it trains, and becomes a file
    again. The graph stays as it is, and the scaling is None, if the file is not one of fastcnn's,
    has several inputs, or has nodes of another meaning.
    """
    scaling = None
    with suppress(ValueError, TypeError, RecursionError):
        if is_own(graph) and "scaling" in graph.metadata and len(graph.inputs) == 1:
            scaling = scaling_from(json.loads(graph.metadata["scaling"]))
    if scaling is None or graph.inputs[0].dtype != np.uint8:
        return graph, None
    if scaling.channels is not None and not images_last:
        return graph, None
    name, nodes = graph.inputs[0].name, list[OnnxNode]()
    factor, subtrahend = scaling.factors(np.float32)
    for operator, needed in (("Cast", None), ("Mul", factor), ("Sub", subtrahend)):
        users = [node for node in graph.nodes if name in node.inputs]
        if len(users) != 1 or users[0].operator != operator or users[0].inputs[0] != name:
            return graph, None
        if needed is not None:
            constant = graph.constants.get(users[0].inputs[1])
            if constant is None or not np.array_equal(constant.reshape(-1), needed.reshape(-1)):
                return graph, None
        nodes.append(users[0])
        name = users[0].outputs[0]
    if name in {one.name for one in graph.outputs}:
        return graph, None
    start = graph.inputs[0]
    other_nodes = [
        replace(node, inputs=tuple(start.name if one == name else one for one in node.inputs))
        for node in graph.nodes
        if node not in nodes
    ]
    inputs = [replace(start, dtype=np.dtype(np.float32))]
    return replace(graph, inputs=inputs, nodes=other_nodes), scaling


def class_names(metadata: Mapping[str, str], counts: set[int]) -> list[str] | None:
    """The names of the classes, if there are as many as one of ``counts``.

    >>> class_names({"names": "{0: 'cat', 1: 'dog'}"}, {2})
    ['cat', 'dog']
    >>> class_names({"Labels": '{"dog": 1, "cat": 0}'}, {2})
    ['cat', 'dog']
    """
    by_key = {key.lower(): text for key, text in metadata.items()}
    for key in NAME_KEYS:
        names = _names(by_key[key]) if key in by_key else None
        if names is not None and len(names) in counts:
            return names
    return None


def _names(text: str) -> list[str] | None:
    """Names in the order of their numbers."""
    value = _parsed(text)
    if isinstance(value, list | tuple):
        names = list(value)
    elif isinstance(value, dict):
        numbered = _numbered(value) or _numbered({v: k for k, v in value.items() if _hashable(v)})
        if numbered is None or sorted(numbered) != list(range(len(value))):
            return None
        names = [numbered[i] for i in range(len(value))]
    else:
        return None
    return [str(one) for one in names] if all(isinstance(one, str) for one in names) else None


def _hashable(value: object) -> bool:
    return isinstance(value, str | int)


def _numbered(value: Mapping[object, object]) -> dict[int, object] | None:
    """A dict whose keys are numbers, perhaps as text."""
    result: dict[int, object] = {}
    for key, name in value.items():
        if isinstance(key, bool) or not isinstance(key, int | str):
            return None
        try:
            result[int(key)] = name
        except ValueError:
            return None
    return result


def _parsed(text: str) -> object:
    """The value of a JSON text or a Python literal; else the lines, or what commas separate."""
    if len(text) > _LONGEST:
        return None
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    with suppress(ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return literal_eval(text.strip())  # it runs no code
    if text.lstrip().startswith(("{", "[", "(")):
        return None
    lines = [line.strip() for line in text.strip().splitlines()]
    return lines if len(lines) > 1 else [one.strip() for one in text.split(",")]
