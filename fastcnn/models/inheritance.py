"""What a model takes over from the model whose layers it is made of: how its inputs are prepared.

Layers that were trained on scaled bytes need the same bytes scaled in the same way. So a model that
begins with the first layers of another one scales and prepares its inputs as that one does. A model
that also ends with its last layers has its classes, and its loss decides what ``predict`` returns.
A model that ends with inner layers predicts their results as they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastcnn.data.pixel_scaling import CENTRED, Scaling
from fastcnn.models.graph import Graph
from fastcnn.nn.layers import Ownership

TRAITS = frozenset(("_knowledge", "_preparation", "_classes", "loss"))
"""Attributes of a model that :attr:`Ownership.traits` holds too."""


class Inherited(NamedTuple):
    """What a model takes over.

    Attributes:
        scaling: of bytes.
        kind: what samples the first layers were trained on.
        preparation: of pictures.
        classes: the names of the classes, or None where the last layers are others.
        loss: that of the training, or None where the last layers are others.
        is_part: whether the model ends with inner layers of the other one.
    """

    scaling: Scaling = CENTRED
    kind: Any = None
    preparation: Any = None
    classes: tuple[str, ...] | None = None
    loss: Any = None
    is_part: bool = False


def note_ends(ownership: Ownership, graph: Graph) -> None:
    """Note the layers at the ends of a model's graph."""
    ownership.first, ownership.last = _ends(graph)


def inherited(graph: Graph) -> Inherited | None:
    """What a new model takes over from the model that owns the first layers; None for nothing.

    ``graph`` has the layers that the caller gave, not their copies.
    """
    first, last = _ends(graph)
    owners = {id(layer._owner): layer._owner for layer in graph.layers if id(layer) in first[0]}
    owner = next(iter(owners.values()))
    if len(owners) > 1 or owner is None or owner.first != first:
        return None
    traits, is_whole = owner.traits, owner.last == last
    knowledge = traits["_knowledge"]
    ends = [graph.nodes[value - graph.inputs].layer for value in graph.outputs]
    return Inherited(
        knowledge.scaling,
        knowledge.kind,
        traits.get("_preparation"),
        traits.get("_classes") if is_whole else None,
        traits.get("loss") if is_whole and len(last) == 1 else None,
        not is_whole and all(layer._owner is owner for layer in ends),
    )


def _ends(graph: Graph) -> tuple[tuple[frozenset[int], ...], tuple[int, ...]]:
    """For each input the ids of the layers that take it, and those of the outputs' layers."""
    first = tuple(
        frozenset(id(node.layer) for node in graph.nodes if value in node.inputs)
        for value in range(graph.inputs)
    )
    last = tuple(id(graph.nodes[value - graph.inputs].layer) for value in graph.outputs)
    return first, last
