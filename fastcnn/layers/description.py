"""Layers as JSON holds them: a class and its constructor's arguments."""

from __future__ import annotations

from typing import Any

from fastcnn.layers.base import Layer


def to_dict(layer: Layer) -> dict[str, Any]:
    """A layer as JSON holds it: its class and its config.

    >>> from fastcnn.layers import Flatten
    >>> to_dict(Flatten())
    {'class': 'Flatten', 'config': {}}
    """
    return {"class": type(layer).__name__, "config": layer.config()}


def layer_from_dict(described: Any) -> Layer:
    """The layer that :func:`to_dict` described, unbuilt.

    Raises ``ValueError`` or ``TypeError`` for a class that this version does not know, or for
    arguments that it does not take.

    >>> layer_from_dict({"class": "Flatten", "config": {}})
    Flatten()
    """
    if not isinstance(described, dict) or described.keys() != {"class", "config"}:
        raise ValueError(f"a layer must be given by class and config, got {described!r}")
    name, config = described["class"], described["config"]
    if not isinstance(name, str) or name not in Layer.known:
        raise ValueError(f"layer {name!r} is unknown to this version of fastcnn")
    if not isinstance(config, dict):
        raise ValueError(f"the config of {name} must be an object, got {config!r}")
    return Layer.known[name].from_config(config)
