"""Layers as JSON values: a class, and the arguments of its constructor."""

from __future__ import annotations

from typing import Any

from fastcnn.core.class_registry import module_of
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted
from fastcnn.nn.layers.base import Layer
from fastcnn.nn.layers.stack import check_number

_OPTIONAL = {"module", "trainable"}


def to_dict(layer: Layer) -> JsonObject:
    """A layer as a JSON object: its class and its config.

    For a user's class it also holds the module. It holds ``trainable`` if that is False.

    >>> from fastcnn.nn.layers import Flatten
    >>> to_dict(Flatten())
    {'class': 'Flatten', 'config': {}}
    """
    kind = type(layer)
    record = {"class": kind.__name__, **module_of(kind), "config": layer.config()}
    return record if layer.trainable else {**record, "trainable": False}


def layers_from_list(record: object) -> list[Layer]:
    """Layers that are not built yet, from a list of results of :func:`to_dict`.

    Raises ``ValueError`` for too many layers, or layers nested too deeply, before it makes any.
    Other errors are those of :func:`layer_from_dict`.

    >>> layers_from_list([{"class": "Flatten", "config": {}}])
    [Flatten()]
    """
    if not isinstance(record, list):
        raise ValueError(f"layers must be a list, got {quoted(record)}")
    _check_number(record)
    return [layer_from_dict(one) for one in record]


def _check_number(record: list[Any]) -> None:
    """Count the layers in the list and inside of each other, and raise an error for too many."""
    count = 0
    below: list[tuple[Any, int]] = [(record, 0)]
    while below:
        node, depth = below.pop()
        if isinstance(node, dict):
            if "class" in node:
                count, depth = count + 1, depth + 1
                check_number("layers", count, depth)
            values: Any = node.values()
        else:
            values = node
        below += [(value, depth) for value in values if isinstance(value, dict | list)]


def layer_from_dict(record: object) -> Layer:
    """A layer that is not built yet, from the result of :func:`to_dict`.

    Raises ``ValueError`` or ``TypeError`` for an unknown class, or for arguments that the class
    does not take.

    >>> layer_from_dict({"class": "Flatten", "config": {}})
    Flatten()
    """
    if not isinstance(record, dict) or record.keys() - _OPTIONAL != {"class", "config"}:
        raise ValueError(f"a layer must be an object with class and config, got {quoted(record)}")
    kind = Layer.registry.find(record["class"], record.get("module"))
    config = record["config"]
    if not isinstance(config, dict):
        raise ValueError(f"the config of {kind.__name__} must be an object, got {quoted(config)}")
    layer = kind.from_config(config)
    if "trainable" in record:
        layer.trainable = record["trainable"]
    return layer
