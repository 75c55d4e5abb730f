"""Residual: a stack of layers whose input is added to its output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.json_arrays import JsonObject
from fastcnn.nn.layers.arrays import JoinedArrays
from fastcnn.nn.layers.base import Gradients, Layer, Saved, all_layers
from fastcnn.nn.layers.convolution import before_activation, fused_activation
from fastcnn.nn.layers.description import layer_from_dict, to_dict
from fastcnn.nn.layers.initializers import Shape, Spec
from fastcnn.nn.layers.stack import checked_layers, infer_stack


class Residual(Layer):
    """``activation(layers(x) + shortcut(x))``.

    Args:
        layers: the main path, applied in turn.
        shortcut: layers of the other path, needed if the main path changes the shape. None or an
            empty list adds the input itself.
        activation: "relu" or None, applied to the sum.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value, or (at build) the paths end
            in different shapes.

    Example:
        >>> from fastcnn.nn.layers import Conv2D
        >>> Residual([Conv2D(16, 3, padding="same")], activation="relu").infer((32, 32, 16))
        (32, 32, 16)

    Names of parameters begin with the path: ``layers.0.w``, ``shortcut.0.w``.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shortcut: Sequence[Layer] | None = None,
        activation: ops.Activation = None,
        *,
        name: str | None = None,
    ) -> None:
        self.layers: Sequence[Layer] = tuple(checked_layers("layers", layers))
        self.shortcut: Sequence[Layer] = tuple(
            checked_layers("shortcut", shortcut or (), empty=True)
        )
        shortcut_ids = {*map(id, all_layers(self.shortcut))}
        if shortcut_ids and not shortcut_ids.isdisjoint(map(id, all_layers(self.layers))):
            raise ValueError("shortcut must have layers of its own, got one of the main path")
        self.activation = fused_activation(activation)
        self.input_shape = self.output_shape = None
        self.name = name

    def _paths(self) -> Iterator[tuple[str, Layer]]:
        for name, layers in (("layers", self.layers), ("shortcut", self.shortcut)):
            for i, layer in enumerate(layers):
                yield f"{name}.{i}", layer

    def inner_layers(self) -> tuple[tuple[str, Layer], ...]:
        return tuple(self._paths())

    @property
    def parameters(self) -> dict[str, Array]:  # type: ignore[override]  # a view of the parts'
        parts = {f"{p}.{k}": v for p, layer in self._paths() for k, v in layer.parameters.items()}
        return JoinedArrays(parts)

    @property
    def state(self) -> dict[str, Array]:  # type: ignore[override]
        parts = {f"{p}.{k}": v for p, layer in self._paths() for k, v in layer.state.items()}
        return JoinedArrays(parts)

    @property
    def trainable(self) -> bool:
        """Whether training moves any of the layers inside. An assignment sets all of them."""
        return any(layer.trainable for _, layer in self._paths())

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._set_trainable(value)

    def least_batch(self, input_shape: Shape) -> int:
        return max(layer.least_batch(shape) for _, layer, shape in self._shapes(input_shape))

    def adopt(self, parameters: dict[str, Array]) -> None:
        self._check_change("input_shape")
        for path, layer in self._paths():
            inside = f"{path}."
            layer.adopt(
                {k.removeprefix(inside): v for k, v in parameters.items() if k.startswith(inside)}
            )

    def infer(self, input_shape: Shape) -> Shape:
        main = infer_stack(self.layers, input_shape, "Residual's layer")[-1]
        shortcut_shape = infer_stack(self.shortcut, input_shape, "Residual's shortcut layer")[-1]
        if main != shortcut_shape:
            raise ValueError(
                f"Residual adds two paths, which must end in one shape: its layers give {main}, "
                f"its shortcut {shortcut_shape}; give shortcut=[…] layers that end in {main}"
            )
        return main

    def _shapes(self, input_shape: Shape) -> Iterator[tuple[str, Layer, Shape]]:
        for name, layers in (("layers", self.layers), ("shortcut", self.shortcut)):
            shapes = infer_stack(layers, input_shape, f"Residual's {name}")
            for i, layer in enumerate(layers):
                yield f"{name}.{i}", layer, shapes[i]

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {
            f"{path}.{name}": spec
            for path, layer, shape in self._shapes(input_shape)
            for name, spec in layer.parameter_specs(shape).items()
        }

    def state_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {
            f"{path}.{name}": spec
            for path, layer, shape in self._shapes(input_shape)
            for name, spec in layer.state_specs(shape).items()
        }

    def build(
        self, input_shape: Shape, rng: np.random.Generator, dtype: object = np.float32
    ) -> Shape:
        self._check_change("input_shape")
        output = self.infer(input_shape)
        for _, layer, shape in self._shapes(input_shape):
            layer.build(shape, rng, dtype)
        self.input_shape, self.output_shape = input_shape, output
        return output

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        main, other = x, x
        saved: list[Saved] = []
        for layer in self.layers:
            main, saved_arrays = layer.forward(main, training, rng, engine)
            saved.append(saved_arrays)
        for layer in self.shortcut:
            other, saved_arrays = layer.forward(other, training, rng, engine)
            saved.append(saved_arrays)
        y: Array = main + other
        if self.activation:
            y = ops.relu(y, engine=engine)
        return y, (saved, y)

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        parts, y = saved
        dy = before_activation(self.activation, dy, y, engine)
        gradients: Gradients = {}
        ends: list[Array | None] = []
        first = 0
        for name, layers in (("layers", self.layers), ("shortcut", self.shortcut)):
            d: Array | None = dy
            # Without needs_dx, gradients are needed only back to the first trainable layer.
            trained = (i for i, layer in enumerate(layers) if layer.trained_names())
            last = 0 if needs_dx else next(trained, len(layers))
            for i in reversed(range(last, len(layers))):
                assert d is not None
                d, inner = layers[i].backward(d, parts[first + i], engine, needs_dx or i > last)
                gradients |= {f"{name}.{i}.{k}": v for k, v in inner.items()}
            ends.append(d)
            first += len(layers)
        if not needs_dx or ends[0] is None or ends[1] is None:
            return None, gradients
        return ends[0] + ends[1], gradients

    def input_gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        parts, y = saved
        dy = before_activation(self.activation, dy, y, engine)
        main, shortcut_gradient = dy, dy
        for layer, part in zip(self.layers[::-1], parts[: len(self.layers)][::-1], strict=True):
            main = layer.input_gradient(main, part, engine)
        for layer, part in zip(self.shortcut[::-1], parts[len(self.layers) :][::-1], strict=True):
            shortcut_gradient = layer.input_gradient(shortcut_gradient, part, engine)
        result: Array = main + shortcut_gradient
        return result

    def config(self) -> JsonObject:
        named = {} if self._own_name is None else {"name": self._own_name}
        return {
            "layers": [to_dict(layer) for layer in self.layers],
            "shortcut": [to_dict(layer) for layer in self.shortcut],
            "activation": self.activation,
            **named,
        }

    @classmethod
    def from_config(cls, config: JsonObject) -> Layer:
        paths = {
            name: [layer_from_dict(part) for part in config.get(name, [])]
            for name in ("layers", "shortcut")
        }
        return cls(**{**config, **paths})

    def flops(self, input_shape: Shape) -> int:
        return sum(layer.flops(shape) for _, layer, shape in self._shapes(input_shape))
