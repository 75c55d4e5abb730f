"""``Inspection``: what a model's layers compute, and what its predictions depend on.

The layers run one by one, as in prediction: a batch normalisation uses its running statistics, and
a dropout does nothing. So the result of each layer is there, also of one that a compiled program
joins with its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.data.several import Several, in_order
from fastcnn.models import layer_by_layer
from fastcnn.models.described import DescribedNet
from fastcnn.models.graph import Graph, Node
from fastcnn.models.input_gradients import graph_to, through, upstream
from fastcnn.models.inputs import Inputs, batch
from fastcnn.models.net import Net, outputs_of
from fastcnn.models.summary import value_names
from fastcnn.nn.layers import Layer, Tensor, input_of_call

LayerChoice = str | int | Layer | Tensor
"""How a caller names a layer's call: by name, by its number in ``model.layers``, or itself."""

_MOST_NAMES = 40  # in a message


class Point(NamedTuple):
    """Where a value comes from in a graph.

    Attributes:
        value: the value; for a layer inside of another one, the value of the outer layer.
        path: the names of ``inner_layers`` that lead to the layer inside; empty for a layer of the
            graph.
    """

    value: int
    path: tuple[str, ...] = ()


class Inspection(DescribedNet):
    """The methods of a model that show what is inside; :class:`fastcnn.Model` says more."""

    def activations(
        self, x: Inputs, layer: LayerChoice | Sequence[LayerChoice], batch_size: int = 256
    ) -> Any:
        """What a layer computes of samples, in prediction: its feature maps.

        Args:
            x: samples as for :meth:`predict`.
            layer: a name, as :meth:`get_layer` takes it and :meth:`summary` prints it for graphs;
                the layer's number in ``model.layers``, from the end if it is negative; the layer
                itself; or a tensor of this model, such as ``layer.output``. A layer inside of a
                ``Residual`` has the name of its path, "residual.layers.0". Of a layer that is
                called several times, the name of a call, "dense, call 2". A list of these gives a
                list of arrays, from one pass over the samples.
            batch_size: samples that run together; it does not change the result.

        Returns:
            The layer's results, (N, OH, OW, channels) or (N, features), of the model's dtype. An
            activation that is an argument of the layer is applied. A last softmax that belongs to
            the loss is not.

        Raises:
            TypeError, ValueError: a wrong argument or shape; a layer that is not the model's, or
                that is called several times; a model that is not built.

        Example:
            >>> from fastcnn import Sequential
            >>> from fastcnn.nn.layers import Conv2D, Dense, Flatten
            >>> model = Sequential([Conv2D(8, 3), Flatten(), Dense(10)], (28, 28, 1), seed=0)
            >>> images = np.zeros((5, 28, 28), np.uint8)
            >>> model.activations(images, "conv2d").shape
            (5, 26, 26, 8)
            >>> [array.shape for array in model.activations(images, [0, -1])]
            [(5, 26, 26, 8), (5, 10)]
        """
        size = count("batch_size", batch_size)
        self._known_shapes()
        choices: list[Any] = list(layer) if isinstance(layer, list | tuple) else [layer]
        if not choices:
            raise ValueError("layer must be at least one layer, got an empty list")
        points = [self._point(choice) for choice in choices]
        images = self._samples("x", x)
        self._knowledge.glance("x", images)
        parts = images.parts if isinstance(images, Several) else (images,)
        results: list[Array] = []
        for first in range(0, max(len(images), 1), size):
            rows = slice(first, first + size)
            arrays = self._values(
                [batch(part[rows], self.dtype, self.scaling) for part in parts], points
            )
            if not first:
                shapes = [(len(images), *array.shape[1:]) for array in arrays]
                results = [np.empty(shape, self.dtype) for shape in shapes]
            for result, array in zip(results, arrays, strict=True):
                result[rows] = array
        return results if isinstance(layer, list | tuple) else results[0]

    def _point(self, layer: LayerChoice) -> Point:
        """The call that a caller names; errors name the argument ``layer``."""
        if isinstance(layer, Layer | Tensor):
            return self._point_of_object(layer)
        if isinstance(layer, str):
            points = _named_points(self)
            if layer in points:
                return _single(layer, points[layer], points)
            names = [name for name, calls in points.items() if len(calls) == 1]
            near = get_close_matches(layer, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            ending = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
            raise ValueError(
                f"layer must be the name of one of the model's layers, "
                f"{', '.join(names[:_MOST_NAMES])}{ending}, got {quoted(layer)}{hint}"
            )
        if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
            raise TypeError(
                "layer must be a name, a number, a layer or a tensor of the model, or a list of "
                f"these, got {quoted(layer)}"
            )
        number = len(self.layers)
        if not -number <= layer < number:
            raise ValueError(
                f"layer must be from {-number} to {number - 1}, because the model has {number} "
                f"layers, got {layer}"
            )
        return self._point_of_object(self.layers[int(layer)])

    def _point_of_object(self, layer: Layer | Tensor) -> Point:
        points = _named_points(self)
        if isinstance(layer, Tensor):
            for value, tensor in enumerate(_tensors(self)):
                if tensor is layer:
                    return Point(value)
        else:
            for name, calls in points.items():
                if all(_layer_at(self._graph, call) is layer for call in calls):
                    return _single(name, calls, points)
        raise ValueError(
            f"layer must be one of the model's own, got {quoted(layer)}, which is not; a model "
            f"copies the layers that it is given, so its own are in model.layers"
        )

    @unreported
    def _values(self, inputs: list[Array], points: Sequence[Point]) -> list[Array]:
        """The values at these points, for the samples of a batch."""
        graph, values_of_points = self._graph, list[int]()
        for point in points:
            values_of_points += _node(graph, point).inputs if point.path else [point.value]
        arrays = iter(
            layer_by_layer.forward(graph.to_outputs(values_of_points), inputs, self.engine)
        )
        results = list[Array]()
        for point in points:
            if not point.path:
                results.append(next(arrays))
                continue
            node = _node(graph, point)
            input_arrays = [next(arrays) for _ in node.inputs]
            results.append(_value_inside(node, input_arrays, point.path, self.engine))
        return results

    def input_gradient(
        self,
        x: Inputs,
        output: Inputs,
        *,
        of: Literal["scores", "predictions"] = "scores",
        batch_size: int = 256,
    ) -> Any:
        """The gradient of an output at the samples, in prediction: what a prediction depends on.

        BatchNorm uses its running statistics and Dropout does nothing. The model is left as it is.
        Its absolute values show which pixels matter (a saliency map). For the gradient at the
        output of an inner layer k, as Grad-CAM needs it, cut the net there::

            maps = Sequential(model.layers[:k], model.input_shape)
            rest = Sequential(model.layers[k:], maps.output_shape)
            rest.input_gradient(maps.predict(x), output)

        Args:
            x: samples as for :meth:`predict`.
            output: the number of an output (a class), an integer for all samples or one for each,
                (N,); or the gradient at the outputs, (N, …) in their shape. For several outputs a
                list or dict of these, with None for an output that does not count.
            of: "scores" are the raw outputs, before a last softmax or sigmoid, whether that is a
                layer or part of the loss; "predictions" are what :meth:`predict` returns.
            batch_size: samples that run together; it does not change the result.

        Returns:
            The gradient in the shape of x, of the model's dtype; a list for several inputs. For
            bytes it is the gradient at the scaled values.

        Raises:
            TypeError, ValueError: a wrong argument or shape; a model that is not built; a layer of
                your own that saves nothing for its way back in prediction.

        Example:
            >>> from fastcnn import Sequential
            >>> from fastcnn.nn.layers import Dense
            >>> model = Sequential([Dense(2)], (3,))
            >>> model.layers[0].parameters["w"] = [[1, 2], [3, 4], [5, 6]]
            >>> model.input_gradient(np.zeros((1, 3)), 1)
            array([[2., 4., 6.]], dtype=float32)

        Source: K. Simonyan et al., "Deep Inside Convolutional Networks", arXiv:1312.6034.
        """
        size = count("batch_size", batch_size)
        self._known_shapes()
        images = self._samples("x", x)
        self._knowledge.glance("x", images)
        graph = graph_to(self, of)
        dys = self._upstream(output, len(images), outputs_of(graph, self._known_shapes()))
        parts = images.parts if isinstance(images, Several) else (images,)
        results = [np.empty(part.shape, self.dtype) for part in parts]
        for first in range(0, len(images), size):
            rows = slice(first, first + size)
            batches = [batch(part[rows], self.dtype, self.scaling) for part in parts]
            of_some = through(graph, batches, [dy[rows] for dy in dys], self.engine)
            for result, gradient in zip(results, of_some, strict=True):
                result[rows] = gradient
        if isinstance(images, Several):
            return results
        return results[0].reshape(np.shape(x))  # type: ignore[arg-type]

    def _upstream(self, output: Inputs, samples: int, shapes: Any) -> list[Array]:
        """The gradient at each output that the argument ``output`` stands for."""
        if len(self._graph.outputs) == 1:
            return [upstream(output, samples, shapes, self.dtype)]  # type: ignore[arg-type]
        values = in_order("output", output, self._output_names(), "output")
        return [
            np.zeros((samples, *shape), self.dtype)
            if value is None
            else upstream(value, samples, shape, self.dtype)  # type: ignore[arg-type]
            for value, shape in zip(values, shapes, strict=True)
        ]


def _named_points(model: Net) -> dict[str, list[Point]]:
    """The calls of each layer by the names that a caller may use.

    A layer that is called several times has an entry with all its calls, and one for each of them.
    """
    graph = model._graph
    result: dict[str, list[Point]] = {}
    for node in graph.nodes:
        _enter(node.layer, Point(node.output), node.layer.name, result)
    names = value_names(graph, model._input_names())
    for node in graph.nodes:
        result.setdefault(names[node.output], [Point(node.output)])
    return result


def _enter(layer: Layer, point: Point, name: str, points: dict[str, list[Point]]) -> None:
    """Enter a call of a layer, and of the layers inside of it."""
    points.setdefault(name, []).append(point)
    for path, inner in layer.inner_layers():
        _enter(inner, point._replace(path=(*point.path, path)), f"{name}.{path}", points)


def _single(name: str, calls: list[Point], points: dict[str, list[Point]]) -> Point:
    """The only call; ``ValueError`` where there are several."""
    if len(calls) == 1:
        return calls[0]
    names = [one for one, each in points.items() if len(each) == 1 and each[0] in calls]
    choices = f": {', '.join(map(repr, names[:_MOST_NAMES]))}" if names else ""
    raise ValueError(
        f"layer must be one call, but {name!r} is called {len(calls)} times; name one of the calls"
        f"{choices}"
    )


def _node(graph: Graph, point: Point) -> Node:
    return graph.nodes[point.value - graph.inputs]


def _layer_at(graph: Graph, point: Point) -> Layer:
    layer = _node(graph, point).layer
    for path in point.path:
        layer = dict(layer.inner_layers())[path]
    return layer


def _tensors(model: Net) -> list[Tensor]:
    """The tensor of each value of a built model."""
    graph, calls = model._graph, dict[int, int]()
    result = list(model._tensors[0])
    for node in graph.nodes:
        call = calls.get(id(node.layer), 0)
        calls[id(node.layer)] = call + 1
        result.append(node.layer._outputs[call])
    return result


def _value_inside(
    node: Node, inputs: Sequence[Array], path: Sequence[str], engine: str | None
) -> Array:
    """The result of a layer inside of a node's layer.

    A copy of the outer layer runs, in which the inner one records its result, so that other threads
    may use the model meanwhile.
    """
    outer = inner = deepcopy(node.layer)
    for name in path:
        inner = dict(inner.inner_layers())[name]
    values, forward = list[Array](), inner.forward

    def recording(*arguments: Any, **named: Any) -> Any:
        y, saved = forward(*arguments, **named)
        values.append(y)
        return y, saved

    vars(inner)["forward"] = recording
    outer.forward(input_of_call(outer, inputs), False, None, engine)
    if len(values) != 1:
        raise ValueError(
            f"layer must be one call, but {quoted(node.layer)} calls its layer {'.'.join(path)} "
            f"{len(values)} times in a prediction"
        )
    return values[0]
