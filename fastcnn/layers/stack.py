"""Layers in a row: which may follow which, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastcnn.layers.base import Layer, all_layers
from fastcnn.layers.initializers import Shape
from fastcnn.user_code import shown


def checked_layers(name: str, layers: Iterable[Layer], empty: bool = False) -> list[Layer]:
    """``layers`` as a list, all of them layers, none of them twice, also not inside of another."""
    try:
        found = list(layers)
    except TypeError:
        raise TypeError(f"{name} must be a list of layers, got {layers!r}") from None
    seen: set[int] = set()
    for i, layer in enumerate(found):
        if not isinstance(layer, Layer):
            raise TypeError(f"{name} must be layers such as Dense(10), got {layer!r} at place {i}")
        for one in all_layers([layer]):
            if id(one) in seen:
                raise ValueError(f"{name} must not hold one layer twice, got {one!r} at place {i}")
            if not hasattr(one, "parameters"):
                raise TypeError(
                    f"{name} must be layers whose constructor calls super().__init__(), got "
                    f"{shown(one)} at place {i}"
                )
            seen.add(id(one))
    if not found and not empty:
        raise ValueError(f"{name} must hold at least one layer")
    return found


def infer_stack(layers: Sequence[Layer], input_shape: Shape, called: str = "layer") -> list[Shape]:
    """The shapes between the layers, from the input to the last output.

    Raises ``ValueError`` that says which layer does not fit, what it got and what it needs.

    >>> from fastcnn.layers import Conv2D, Dense, Flatten
    >>> infer_stack([Conv2D(8, 3), Flatten()], (28, 28, 1))
    [(28, 28, 1), (26, 26, 8), (5408,)]
    >>> infer_stack([Conv2D(8, 3), Dense(10)], (28, 28, 1))
    Traceback (most recent call last):
    ...
    ValueError: layer 1, Dense(10), got an input of shape (26, 26, 8): Dense needs vectors
    (features,), got (26, 26, 8); put a Flatten() before it, which makes them (5408,)
    """
    shapes = [input_shape]
    for i, layer in enumerate(layers):
        try:
            shapes.append(layer.infer(shapes[-1]))
        except ValueError as error:
            raise ValueError(
                f"{called} {i}, {layer!r}, got an input of shape {shapes[-1]}: {error}"
            ) from None
    return shapes
