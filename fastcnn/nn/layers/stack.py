"""Checks of a list of layers: their types, number, nesting, and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fastcnn.core.quoting import quoted
from fastcnn.nn.layers.base import Layer, layers_with_depth
from fastcnn.nn.layers.initializers import Shape

MOST_LAYERS = 10_000
"""Largest number of layers of a model, including layers inside of other layers."""
DEEPEST = 16
"""Largest number of levels of layers inside of each other."""


def checked_layers(name: str, layers: Iterable[Layer], empty: bool = False) -> list[Layer]:
    """``layers`` as a list, checked.

    Raises ``TypeError`` for an item that is no layer. Raises ``ValueError`` for a layer that
    appears twice, also inside of another one, and beyond :data:`MOST_LAYERS` and :data:`DEEPEST`.
    """
    try:
        stack = list(layers)
    except TypeError:
        raise TypeError(f"{name} must be a list of layers, got {quoted(layers)}") from None
    identities: set[int] = set()
    for i, layer in enumerate(stack):
        if not isinstance(layer, Layer):
            remedy = "; [*model.layers] lists a model's layers" if hasattr(layer, "layers") else ""
            raise TypeError(
                f"{name} must be layers such as Dense(10), got {quoted(layer)} at place {i}{remedy}"
            )
        for one, depth in layers_with_depth([layer]):
            if id(one) in identities:
                raise ValueError(
                    f"{name} must not hold one layer twice, got {quoted(one)} at place {i}"
                )
            if not hasattr(one, "input_shape"):  # the constructor sets this attribute last
                raise TypeError(
                    f"{name} must be layers whose constructor calls super().__init__(), got "
                    f"{quoted(one)} at place {i}"
                )
            identities.add(id(one))
            check_number(name, len(identities), depth)
    if not stack and not empty:
        raise ValueError(f"{name} must hold at least one layer")
    return stack


def check_number(name: str, count: int, depth: int) -> None:
    """Raise ``ValueError`` for too many layers, or layers nested too deeply."""
    if count > MOST_LAYERS:
        raise ValueError(f"{name} must hold at most {MOST_LAYERS:,} layers in all, got more")
    if depth > DEEPEST:
        raise ValueError(f"{name} must lie at most {DEEPEST} deep inside of each other, got more")


def infer_stack(layers: Sequence[Layer], input_shape: Shape, called: str = "layer") -> list[Shape]:
    """The shapes between the layers, from the input to the last output.

    Raises a ``ValueError`` that names the layer that does not fit, its input and its needs.

    >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten
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
                f"{called} {i}, {quoted(layer)}, got an input of shape {shapes[-1]}: {error}"
            ) from None
    return shapes
