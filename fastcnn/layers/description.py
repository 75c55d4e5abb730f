"""Layers as JSON holds them: a class and its constructor's arguments."""

from __future__ import annotations

from typing import Any

from fastcnn.layers.base import Layer
from fastcnn.registry import module_of

_OPTIONAL = {"module", "trainable"}


def to_dict(layer: Layer) -> dict[str, Any]:
    """A layer as JSON holds it: its class and its config.

    With the module of a class of the user's own, and with ``trainable`` where that is False.

    >>> from fastcnn.layers import Flatten
    >>> to_dict(Flatten())
    {'class': 'Flatten', 'config': {}}
    """
    kind = type(layer)
    described = {"class": kind.__name__, **module_of(kind), "config": layer.config()}
    return described if layer.trainable else {**described, "trainable": False}


def layer_from_dict(described: Any) -> Layer:
    """The layer that :func:`to_dict` described, unbuilt.

    Raises ``ValueError`` or ``TypeError`` for a class that this version does not know, or for
    arguments that it does not take.

    >>> layer_from_dict({"class": "Flatten", "config": {}})
    Flatten()
    """
    if not isinstance(described, dict) or described.keys() - _OPTIONAL != {"class", "config"}:
        raise ValueError(f"a layer must be given by class and config, got {described!r}")
    kind = Layer.known.find(described["class"], described.get("module"))
    config = described["config"]
    if not isinstance(config, dict):
        raise ValueError(f"the config of {kind.__name__} must be an object, got {config!r}")
    layer = kind.from_config(config)
    if "trainable" in described:
        layer.trainable = described["trainable"]
    return layer
