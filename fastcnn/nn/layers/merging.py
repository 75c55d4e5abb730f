"""Layers of several inputs: sums, products, maxima, and what is laid side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.broadcasting import merged_shape
from fastcnn.core.geometry import integer
from fastcnn.nn.layers.base import Gradients, Layer, Saved
from fastcnn.nn.layers.initializers import Shape, Spec

Shapes = tuple[Shape, ...]
"""The shapes of a sample of several inputs."""
Inputs = tuple[Array, ...]
"""Arrays of several inputs, or their gradients."""


class Merge(Layer, abstract=True):
    """Base class of layers of several inputs, which are called on a list of tensors.

    The methods are those of :class:`fastcnn.nn.layers.Layer`, but take a tuple with a shape or an
    array for each input, and ``backward`` returns a tuple with a gradient for each, or None in its
    place where ``needs_dx`` is false. ``input_shape`` is a tuple of shapes.

    Example:
        >>> from fastcnn import Input, Model
        >>> class _Difference(Merge):
        ...     def infer(self, input_shape):
        ...         return input_shape[0]
        ...
        ...     def forward(self, x, training, rng, engine):
        ...         return x[0] - x[1], None
        ...
        ...     def backward(self, dy, saved, engine, needs_dx=True):
        ...         return (dy, -dy), {}
        >>> a, b = Input((3,)), Input((3,))
        >>> model = Model([a, b], _Difference()([a, b]))
        >>> model.loss = "mse"
        >>> model.predict([np.full((1, 3), 5.0), np.ones((1, 3))])
        array([[4., 4., 4.]], dtype=float32)
    """

    takes_several = True

    # These methods take what their base takes of one input for several, so the types differ.

    def infer(self, input_shape: Shapes) -> Shape:  # type: ignore[override]
        return super().infer(input_shape)  # type: ignore[arg-type]  # an error

    def parameter_specs(self, input_shape: Shapes) -> dict[str, Spec]:  # type: ignore[override]
        return {}

    def state_specs(self, input_shape: Shapes) -> dict[str, Spec]:  # type: ignore[override]
        return {}

    def forward(  # type: ignore[override]
        self, x: Inputs, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        return super().forward(x, training, rng, engine)  # type: ignore[arg-type]  # an error

    def backward(  # type: ignore[override]
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Inputs | None, Gradients]:
        return super().backward(dy, saved, engine, needs_dx)  # type: ignore[return-value]


class _Elementwise(Merge):
    """An operation on two arrays, applied from left to right.

    Shapes broadcast as in :func:`fastcnn.add`: an axis of a sample is equal in all inputs, or 1.
    """

    _operation: ClassVar[Callable[..., Array]]
    _gradients: ClassVar[Callable[..., tuple[Array, Array]]]

    def infer(self, input_shape: Shapes) -> Shape:  # type: ignore[override]
        return _merged(type(self).__name__, input_shape)

    def forward(  # type: ignore[override]
        self, x: Inputs, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        results = [x[0]]
        for other in x[1:]:
            results.append(type(self)._operation(results[-1], other, engine=engine))
        return results[-1], (x, results[:-1])

    def backward(  # type: ignore[override]
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Inputs | None, Gradients]:
        if not needs_dx:
            return None, {}
        x, lefts = saved
        gradients: list[Array] = []
        for left, right in zip(reversed(lefts), reversed(x[1:]), strict=True):
            dy, right_gradient = type(self)._gradients(dy, left, right, engine=engine)
            gradients.append(right_gradient)
        return (dy, *reversed(gradients)), {}


class Add(_Elementwise):
    """The sum of the inputs.

    Example:
        >>> Add().infer(((26, 26, 8), (26, 26, 8)))
        (26, 26, 8)
    """

    _operation = staticmethod(ops.add)

    @staticmethod
    def _gradients(dy: Array, left: Array, right: Array, engine: str | None) -> tuple[Array, Array]:
        if left.shape == right.shape:
            return dy, dy
        return ops.add_backward(dy, left.shape, right.shape, engine=engine)


class Subtract(_Elementwise):
    """The first input minus the others.

    Example:
        >>> Subtract().infer(((10,), (1,)))
        (10,)
    """

    _operation = staticmethod(ops.subtract)

    @staticmethod
    def _gradients(dy: Array, left: Array, right: Array, engine: str | None) -> tuple[Array, Array]:
        return ops.subtract_backward(dy, left.shape, right.shape, engine=engine)


class Multiply(_Elementwise):
    """The product of the inputs. A gate (1, 1, C) scales the channels of images (H, W, C).

    Example:
        >>> Multiply().infer(((26, 26, 8), (1, 1, 8)))
        (26, 26, 8)

    Source: J. Hu et al., "Squeeze-and-Excitation Networks", arXiv:1709.01507.
    """

    _operation, _gradients = staticmethod(ops.multiply), staticmethod(ops.multiply_backward)


class Maximum(_Elementwise):
    """The largest of the inputs, element by element. Of equal numbers the first is taken.

    Example:
        >>> Maximum().infer(((10,), (10,), (10,)))
        (10,)
    """

    _operation, _gradients = staticmethod(ops.maximum), staticmethod(ops.maximum_backward)


class Average(Add):
    """The mean of the inputs, element by element.

    Example:
        >>> Average().infer(((26, 26, 8), (26, 26, 8)))
        (26, 26, 8)
    """

    def forward(  # type: ignore[override]
        self, x: Inputs, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        total, saved = super().forward(x, training, rng, engine)
        return total * total.dtype.type(1 / len(x)), saved

    def backward(  # type: ignore[override]
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Inputs | None, Gradients]:
        if not needs_dx:
            return None, {}
        share = dy.dtype.type(1 / len(saved[0]))
        return super().backward(dy * share, saved, engine, needs_dx)


class Concatenate(Merge):
    """The inputs side by side along an axis.

    Args:
        axis: along which, with the batch as axis 0; by default the last one, of the channels.

    Example:
        >>> Concatenate().infer(((26, 26, 8), (26, 26, 4)))
        (26, 26, 12)
    """

    def __init__(self, axis: int = -1, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axis = integer("axis", axis, axis)
        if self.axis == 0:
            raise ValueError("axis must not be 0, which is that of the samples")

    def infer(self, input_shape: Shapes) -> Shape:  # type: ignore[override]
        _several("Concatenate", input_shape)
        axes = len(input_shape[0])
        axis = self.axis - 1 if self.axis > 0 else axes + self.axis
        if not 0 <= axis < axes:
            raise ValueError(
                f"axis must be from 1 to {axes}, or from {-axes} to -1, for inputs of shapes "
                f"{_listed(input_shape)}, got {self.axis}"
            )
        rests = {shape[:axis] + shape[axis + 1 :] for shape in input_shape}
        if len(rests) > 1 or any(len(shape) != axes for shape in input_shape):
            raise ValueError(
                f"Concatenate needs inputs that are equal but for axis {self.axis}, got "
                f"{_listed(input_shape)}"
            )
        side = sum(shape[axis] for shape in input_shape)
        return (*input_shape[0][:axis], side, *input_shape[0][axis + 1 :])

    def forward(  # type: ignore[override]
        self, x: Inputs, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        sides = tuple(one.shape[self.axis] for one in x)
        return ops.concatenate(x, self.axis, engine=engine), sides

    def backward(  # type: ignore[override]
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Inputs | None, Gradients]:
        if not needs_dx:
            return None, {}
        return ops.concatenate_backward(dy, saved, self.axis, engine=engine), {}


def _merged(name: str, shapes: Shapes) -> Shape:
    """The shape of the result; ``ValueError`` for shapes that do not broadcast."""
    _several(name, shapes)
    result = shapes[0]
    for shape in shapes[1:]:
        try:
            result = merged_shape((1, *result), (1, *shape))[1:]
        except ValueError:
            raise ValueError(
                f"{name} needs inputs whose axes are equal, or 1 in one of them, got "
                f"{_listed(shapes)}{_remedy(result, shape)}"
            ) from None
    return result


def _remedy(a: Shape, b: Shape) -> str:
    """What makes a vector of channels fit to an image with as many; "" for other shapes."""
    image, vector = (a, b) if len(a) > len(b) else (b, a)
    if len(image) == 3 and vector == (image[2],):
        return f"; Reshape((1, 1, {image[2]})) before it makes a vector fit to images"
    return ""


def _several(name: str, shapes: Shapes) -> None:
    """Raise ``ValueError`` for fewer than two inputs, or the shape of a single one."""
    if len(shapes) < 2 or not all(isinstance(shape, tuple) for shape in shapes):
        raise ValueError(f"{name} needs at least two inputs, such as {name}()([a, b])")


def _listed(shapes: Shapes) -> str:
    return " and ".join(map(str, shapes))
