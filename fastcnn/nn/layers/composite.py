"""Composite: the base class of layers that are made of other layers.

A subclass says with :meth:`Composite.connect` how tensors pass through its layers, and everything
else follows: shapes, parameters, gradients, files. A model runs the layers inside as if they were
its own, so they are compiled together with the layers around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.user_code import Source, refuse
from fastcnn.nn.layers.arrays import JoinedArrays
from fastcnn.nn.layers.base import Gradients, Layer, Saved, snake_case
from fastcnn.nn.layers.contract import CONTRACT
from fastcnn.nn.layers.description import layer_from_dict, to_dict
from fastcnn.nn.layers.initializers import Shape, Spec
from fastcnn.nn.layers.tensors import Node, Tensor, infer_calls, input_of_call


class Composite(Layer, abstract=True):
    """Base class of layers that are made of other layers.

    A subclass defines :meth:`connect`. Its layers are attributes, or lists, tuples or dicts of
    layers; ``connect`` may also make layers, such as one whose size follows from the shape of the
    input. It defines none of the other methods of :class:`fastcnn.nn.layers.Layer`.

    The names of parameters begin with the attribute that holds their layer, ``narrow.w`` or
    ``blocks.0.w``; those of a layer that ``connect`` makes begin with its class, ``dense.w``.
    Arguments of the constructor may be layers and lists of layers; files keep them. With
    ``takes_several = True`` the layer is called on a list of tensors, and so is ``connect``.

    Raises:
        TypeError: ``connect`` returns no tensor, or a subclass defines another method of a layer.
        ValueError: the tensor does not come from the input.

    Example:
        >>> from fastcnn.nn.layers import Concatenate, Conv2D, Input
        >>> class _Inception(Composite):
        ...     def __init__(self, filters, *, name=None):
        ...         super().__init__(name=name)
        ...         self.filters = filters
        ...
        ...     def connect(self, x):
        ...         narrow = Conv2D(self.filters, 1, activation="relu")(x)
        ...         wide = Conv2D(self.filters, 3, padding="same", activation="relu")(x)
        ...         return Concatenate()([narrow, wide])
        >>> _Inception(8)(Input((28, 28, 3)))
        <Tensor of shape (28, 28, 16) from _Inception(8)>

    Source: the functional API of Keras.
    """

    # The calls of layers for the input's shape that ``connect`` had last, and their layers.
    _nodes: tuple[Node, ...] = ()
    _connected_for: object = None
    _layers_inside: tuple[tuple[str, Layer], ...] = ()
    _held: tuple[Layer, ...] = ()
    # Paths of the frozen layers of a file, until the layers are known.
    _frozen: tuple[str, ...] = ()

    def __init__(self, *, name: str | None = None) -> None:
        self.name = name
        self.input_shape = self.output_shape = None

    def __init_subclass__(cls, abstract: bool = False) -> None:
        if not is_own(cls):
            wrong = sorted(name for name in (*CONTRACT, "adopt", "config") if name in vars(cls))
            if wrong:
                raise TypeError(
                    f"{cls.__name__} must not define {wrong[0]}, because it follows from connect; "
                    f"derive from Layer to define it"
                )
        super().__init_subclass__(abstract)

    def connect(self, x: Any) -> Tensor:
        """The result of the layers on a tensor, or on a list of tensors; nothing is computed.

        It must do the same for the same shapes, because a model calls it when it is built.
        """
        raise NotImplementedError(
            f"{type(self).__name__} must define connect(self, x), which calls layers on the tensor "
            f"x and returns the tensor of the last one"
        )

    # --- the graph inside -------------------------------------------------------------------------

    def connected(self, input_shape: Any) -> tuple[Node, ...]:
        """The calls of the layers inside, in an order in which they can run.

        Values are numbered: the inputs, and then the result of each call. The last one is the
        output.
        """
        is_fixed = self._owner is not None or self.input_shape is not None
        if self._connected_for is None or (not is_fixed and self._connected_for != input_shape):
            nodes = self._trace(input_shape)
            inside = _with_paths(self, nodes)
            held_layers = tuple(layer for _, layer in inside)
            vars(self).update(_nodes=nodes, _layers_inside=inside, _held=held_layers)
            vars(self)["_connected_for"] = input_shape
            self._freeze()
        return self._nodes

    def _freeze(self) -> None:
        """Freeze the layers that ``connect`` has made of a frozen layer, and those of a file."""
        for path, layer in self._layers_inside:
            frozen = not self._trainable or path in self._frozen
            if isinstance(layer, Composite):
                inside = f"{path}."
                below = [one for one in self._frozen if one.startswith(inside)]
                vars(layer)["_frozen"] = tuple(one.removeprefix(inside) for one in below)
                layer._freeze()
            if frozen:
                layer.trainable = False

    def frozen_inside(self) -> list[str]:
        """The paths of the frozen layers inside of this one, where it is not frozen itself."""
        result = list[str]()
        for path, layer in self._layers_inside:
            if not layer.trainable:
                result.append(path)
            elif isinstance(layer, Composite):
                result += [f"{path}.{one}" for one in layer.frozen_inside()]
        return result

    def _trace(self, input_shape: Any) -> tuple[Node, ...]:
        several = self.takes_several
        inputs = [Tensor(shape) for shape in (input_shape if several else (input_shape,))]
        source = Source(self, "connect")
        result = self.connect(inputs if several else inputs[0])
        if not isinstance(result, Tensor):
            refuse(source, "a tensor", result, TypeError)
        values, tensors, waiting = {id(one): i for i, one in enumerate(inputs)}, {}, [result]
        while waiting:
            tensor = waiting.pop()
            if id(tensor) in values or id(tensor) in tensors:
                continue
            if tensor.layer is None or tensor.layer is self:
                refuse(source, "a tensor that comes from its input alone", result)
            tensors[id(tensor)] = tensor
            waiting += tensor.inputs
        nodes = list[Node]()
        for tensor in sorted(tensors.values(), key=lambda one: one.number):
            layer = tensor.layer
            assert layer is not None
            calls = tuple(values[id(one)] for one in tensor.inputs)
            values[id(tensor)] = len(inputs) + len(nodes)
            nodes.append(Node(layer, calls, values[id(tensor)]))
            if layer._owner is None:  # the layer's own calls are not those of this trace
                earlier_outputs = tuple(
                    one for one in layer._outputs if one.number < inputs[0].number
                )
                vars(layer)["_outputs"] = earlier_outputs
        used = {value for node in nodes for value in node.inputs}
        if not used.issuperset(range(len(inputs))):
            refuse(source, "a tensor that comes from all of its inputs", result)
        return tuple(nodes)

    def _shapes(self, input_shape: Any) -> list[Shape]:
        """The shapes of all values."""
        shapes = list(input_shape) if self.takes_several else [input_shape]
        return infer_calls(self.connected(input_shape), shapes)

    def _layers_with_shapes(self, input_shape: Any) -> Iterator[tuple[str, Layer, Shape]]:
        """The path of each layer inside, the layer, and the shape of its first input."""
        shapes, firsts = self._shapes(input_shape), dict[int, Shape]()
        for node in self._nodes:
            firsts.setdefault(id(node.layer), node.input_among(shapes))
        for path, layer in self._layers_inside:
            yield path, layer, firsts[id(layer)]

    # --- the methods of a layer -------------------------------------------------------------------

    def inner_layers(self) -> tuple[tuple[str, Layer], ...]:
        return self._layers_inside

    @property
    def trainable(self) -> bool:
        """Whether training moves any of the layers inside. An assignment sets all of them."""
        layers = [layer for _, layer in self._layers_inside]
        return any(layer.trainable for layer in layers) if layers else self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_trainable(value)

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]  # a view of the parts'
        parts = {f"{p}.{k}": v for p, one in self._layers_inside for k, v in one.parameters.items()}
        return JoinedArrays(parts)

    @property
    def state(self) -> dict[str, Array]:  # type: ignore[override]
        parts = {f"{p}.{k}": v for p, one in self._layers_inside for k, v in one.state.items()}
        return JoinedArrays(parts)

    def least_batch(self, input_shape: Shape) -> int:
        return max(
            one.least_batch(shape) for _, one, shape in self._layers_with_shapes(input_shape)
        )

    def adopt(self, parameters: dict[str, Array]) -> None:
        self._check_change("input_shape")
        for path, layer in self._layers_inside:
            inside = f"{path}."
            layer.adopt(
                {k.removeprefix(inside): v for k, v in parameters.items() if k.startswith(inside)}
            )

    def infer(self, input_shape: Shape) -> Shape:
        result: Shape = self._shapes(input_shape)[-1]
        return result

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {
            f"{path}.{name}": spec
            for path, layer, shape in self._layers_with_shapes(input_shape)
            for name, spec in layer.parameter_specs(shape).items()
        }

    def state_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {
            f"{path}.{name}": spec
            for path, layer, shape in self._layers_with_shapes(input_shape)
            for name, spec in layer.state_specs(shape).items()
        }

    def build(self, input_shape: Shape, rng: np.random.Generator, dtype: Any = np.float32) -> Shape:
        self._check_change("input_shape")
        output = self.infer(input_shape)
        for _, layer, shape in self._layers_with_shapes(input_shape):
            layer.build(shape, rng, dtype)
        self.input_shape, self.output_shape = input_shape, output
        return output

    def forward(
        self, x: Any, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        values, saved = list(x) if self.takes_several else [x], list[Saved]()
        for node in self._nodes:
            y, of_backward = node.layer.forward(node.input_among(values), training, rng, engine)
            values.append(y)
            saved.append(of_backward)
        return values[-1], saved

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Any, Gradients]:
        inputs = self._nodes[0].output
        values_with_gradient = set(range(inputs)) if needs_dx else set[int]()
        for node in self._nodes:
            if node.layer.trained_names() or not values_with_gradient.isdisjoint(node.inputs):
                values_with_gradient.add(node.output)
        sums, gradients = {self._nodes[-1].output: dy}, Gradients()
        paths = {id(layer): path for path, layer in self._layers_inside}
        for node, of_node in zip(reversed(self._nodes), reversed(saved), strict=True):
            if node.output not in values_with_gradient:
                continue
            needs_inputs = not values_with_gradient.isdisjoint(node.inputs)
            dx: Any
            dx, layer_gradients = node.layer.backward(
                sums.pop(node.output), of_node, engine, needs_inputs
            )
            for key, gradient in layer_gradients.items():
                name = f"{paths[id(node.layer)]}.{key}"
                gradients[name] = gradients[name] + gradient if name in gradients else gradient
            parts = (dx if node.layer.takes_several else (dx,)) if needs_inputs else ()
            for value, part in zip(node.inputs, parts, strict=False):
                if value in values_with_gradient:
                    sums[value] = sums[value] + part if value in sums else part
        if not needs_dx:
            return None, gradients
        return input_of_call(self, [sums[value] for value in range(inputs)]), gradients

    def config(self) -> JsonObject:
        values = self._constructor_values().items()
        frozen = self.frozen_inside() if self.trainable else []
        inside = {_FROZEN: frozen} if frozen else {}
        return {name: _plain(value) for name, (_, value) in values} | inside

    @classmethod
    def from_config(cls, config: JsonObject) -> Layer:
        values = {name: _with_layers(value) for name, value in config.items()}
        frozen = values.pop(_FROZEN, ())
        layer = cls(**values)
        if frozen:
            vars(layer)["_frozen"] = tuple(map(str, frozen))
        return layer

    def flops(self, input_shape: Shape) -> int:
        shapes = self._shapes(input_shape)
        return sum(node.layer.flops(node.input_among(shapes)) for node in self._nodes)


_FROZEN = "frozen layers"  # no argument has this name


def _with_paths(layer: Composite, nodes: Sequence[Node]) -> tuple[tuple[str, Layer], ...]:
    """The layers of calls, each once, with a path: its attribute, or else its class."""
    attributes = dict[int, str]()
    for name, value in vars(layer).items():
        if name == "_held":
            continue
        stem = name.lstrip("_")
        if isinstance(value, Layer):
            attributes.setdefault(id(value), stem)
        elif isinstance(value, list | tuple):
            for i, one in enumerate(value):
                attributes.setdefault(id(one), f"{stem}.{i}")
        elif isinstance(value, dict):
            for key, one in value.items():
                attributes.setdefault(id(one), f"{stem}.{str(key).replace('.', '_')}")
    layers = {id(node.layer): node.layer for node in nodes}
    paths, result = set(attributes.values()), list[tuple[str, Layer]]()
    for key, inner in layers.items():
        path = attributes.get(key)
        if path is None or path in {other for other, _ in result}:
            stem = path or snake_case(type(inner).__name__)
            number, path = 0, stem
            while path in paths:
                number += 1
                path = f"{stem}_{number}"
        paths.add(path)
        result.append((path, inner))
    return tuple(result)


def _plain(value: object) -> Any:
    """An argument as JSON values, with layers as dicts."""
    if isinstance(value, Layer):
        return to_dict(value)
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value


def _with_layers(value: Any) -> Any:
    """The argument of a result of :func:`_plain`."""
    if isinstance(value, dict) and value.keys() >= {"class", "config"}:
        return layer_from_dict(value)
    return [_with_layers(one) for one in value] if isinstance(value, list) else value
