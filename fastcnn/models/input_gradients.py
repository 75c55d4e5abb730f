"""Gradients of predictions at a net's input: what an output depends on, pixel by pixel.

Layers run forward as in prediction, so a batch normalisation uses its running statistics and a
dropout does nothing, and then backward. Nothing of the layers changes.

Source: K. Simonyan, A. Vedaldi, A. Zisserman, "Deep Inside Convolutional Networks: Visualising
Image Classification Models and Saliency Maps", arXiv:1312.6034.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.core.float_errors import unreported
from fastcnn.models.graph import Graph, Node
from fastcnn.models.layer_by_layer import add_gradient, gradients_of_inputs
from fastcnn.models.net import Net
from fastcnn.nn.layers import Layer, Saved, Shape, Sigmoid, Softmax, all_layers
from fastcnn.nn.losses import BinaryCrossEntropy, CrossEntropy, Loss
from fastcnn.train.output_losses import OutputLosses


def graph_to(model: Net, of: str) -> Graph:
    """The graph of a built model that leads to the scores or the predictions.

    Raises ``ValueError`` for another ``of``, and for predictions of a user's own loss.
    """
    if of == "scores":
        graph = model._graph
        kinds = [type(graph.nodes[value - graph.inputs].layer) for value in graph.outputs]
        ends = [kind.__name__ if kind in (Softmax, Sigmoid) else None for kind in kinds]
        return graph.without_last(ends)
    if of != "predictions":
        raise ValueError(f'of must be "scores" or "predictions", got {of!r}')
    goal = model._predicting()
    losses = goal.losses if isinstance(goal, OutputLosses) else (goal,)
    trunk = model._trunk(goal)
    nodes, outputs = list(trunk.nodes), list(trunk.outputs)
    shapes = trunk.infer(model._known_shapes())
    for i, (loss, value) in enumerate(zip(losses, trunk.outputs, strict=True)):
        last = _last_layer(loss)
        if last is not None:
            last.input_shape = last.output_shape = shapes[value]
            outputs[i] = trunk.inputs + len(nodes)
            nodes.append(Node(last, (value,), outputs[i]))
    return Graph(trunk.names, nodes, outputs)


def _last_layer(loss: Loss) -> Layer | None:
    """The layer that computes a loss's predictions from raw outputs; None where they are the same.

    Raises ``ValueError`` for a loss of a user's own, because its gradient is not known.
    """
    kinds = {CrossEntropy.predictions: Softmax, BinaryCrossEntropy.predictions: Sigmoid}
    how = type(loss).predictions
    if how is Loss.predictions:
        return None
    if how not in kinds:
        raise ValueError(
            f'of must be "scores" with a loss of your own, got "predictions" and {loss!r}, whose '
            f"predictions have no known gradient"
        )
    return kinds[how]()


def upstream(output: ArrayLike, count: int, shape: Shape, dtype: np.dtype[np.floating]) -> Array:
    """The gradient at the outputs, (count, …), that ``output`` stands for.

    Args:
        output: the number of an output, one number for each sample, or the gradient itself.
        count: how many samples there are.
        shape: of one sample's outputs.
        dtype: of the result.

    Raises:
        TypeError, ValueError: a wrong dtype, shape or number, named in the message.

    >>> upstream([1, 0], 2, (3,), np.dtype("float32"))
    array([[0., 1., 0.],
           [1., 0., 0.]], dtype=float32)
    """
    try:
        values = np.asarray(output)
    except ValueError as error:
        raise ValueError(f"output must be an array, got a ragged sequence: {error}") from None
    if values.ndim > 1 and values.shape == (count, *shape):
        if values.dtype.kind not in "fiub":
            raise TypeError(f"output must hold numbers, got dtype {values.dtype}")
        if not np.isfinite(values).all():
            raise ValueError("output must hold finite numbers, got NaN or infinity")
        return np.ascontiguousarray(values, dtype)
    if values.shape not in ((), (count,)) or len(shape) != 1:
        which = "" if len(shape) > 1 else f"the number of an output, {count} such numbers, or "
        raise ValueError(
            f"output must be {which}a gradient of the shape {(count, *shape)}, got the shape "
            f"{values.shape}"
        )
    if values.dtype.kind not in "iu" and values.size:
        raise TypeError(f"output must be an integer or integers, got dtype {values.dtype}")
    (outputs,) = shape
    wrong = values[(values < 0) | (values >= outputs)]
    if wrong.size:
        raise ValueError(f"output must be from 0 to {outputs - 1}, got {wrong.reshape(-1)[0]}")
    result = np.zeros((count, outputs), dtype)
    result[np.arange(count), values.astype(np.int64)] = 1
    return result


@unreported
def through(
    graph: Graph, inputs: Sequence[Array], dys: Sequence[Array], engine: str | None
) -> list[Array]:
    """The gradient at each input (N, …), from those at the outputs.

    All as the layers take them. Raises ``TypeError`` for a layer of a user's own that does not
    save in prediction what its ``backward`` needs.
    """
    # A layer of a user's own may move its state in backward, as in training.
    layers_of_users = [one for one in all_layers(graph.layers) if not is_own(type(one))]
    before = [(array, array.copy()) for one in layers_of_users for array in one.state.values()]
    values, saved = list(inputs), list[Saved]()
    gradients_of_value = dict[int, Array]()
    try:
        for node in graph.nodes:
            x = node.input_among(values)
            y, saved_of_node = node.layer.forward(x, False, None, engine)
            values.append(y)
            saved.append(saved_of_node)
        for value, dy in zip(graph.outputs, dys, strict=True):
            add_gradient(gradients_of_value, value, dy)  # two outputs may be one value
        for i in reversed(range(len(graph.nodes))):
            node = graph.nodes[i]
            dx = _back(i, node.layer, gradients_of_value.pop(node.output), saved[i], engine)
            for value, part in zip(node.inputs, gradients_of_inputs(node.layer, dx), strict=True):
                assert part is not None
                add_gradient(gradients_of_value, value, part)
    finally:
        for array, old in before:
            array[...] = old
    return [gradients_of_value[value] for value in range(graph.inputs)]


def _back(i: int, layer: Layer, dy: Array, saved: Saved, engine: str | None) -> Any:
    if is_own(type(layer)):
        return layer.input_gradient(dy, saved, engine)
    try:
        dx = layer.input_gradient(dy, saved, engine)
        if dx is None:
            raise TypeError("it returns None as the gradient of its input")
        if layer.takes_several:
            return tuple(np.ascontiguousarray(part, dy.dtype) for part in dx)
        return np.ascontiguousarray(dx, dy.dtype)
    except (TypeError, AttributeError) as error:
        raise TypeError(
            f"layer {i}, {layer!r}, has no gradient in prediction: its forward must save, also "
            f"with training=False, what its backward needs: {error}"
        ) from error
