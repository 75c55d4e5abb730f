"""Tensors: the values between layers, before there are any numbers.

A layer called on a tensor returns a tensor, so an expression of calls describes a graph, as in
Keras's functional API. Nothing is computed and no parameter is drawn until a model is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count as counter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.nn.layers.initializers import Shape

if TYPE_CHECKING:
    from fastcnn.nn.layers.base import Layer

_numbers = counter()

T = TypeVar("T")


class Tensor:
    """A value of a graph: an input, or the result of a layer's call. It cannot change.

    Attributes:
        shape: of one sample, without the batch.
        layer: the layer that was called, or None for an input.
        inputs: the tensors that the layer was called on.
        name: the name of an input, or None.
        number: counts all tensors of the process, so a layer's inputs have smaller numbers.
    """

    __slots__ = ("__weakref__", "inputs", "layer", "name", "number", "shape")

    shape: Shape
    layer: Layer | None
    inputs: tuple[Tensor, ...]
    name: str | None
    number: int

    def __init__(
        self,
        shape: Shape,
        layer: Layer | None = None,
        inputs: tuple[Tensor, ...] = (),
        name: str | None = None,
    ) -> None:
        for attribute, value in (
            ("shape", shape), ("layer", layer), ("inputs", inputs), ("name", name),
            ("number", next(_numbers)),
        ):  # fmt: skip
            object.__setattr__(self, attribute, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{name} of a tensor cannot be set, because layers were called on it")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{name} of a tensor cannot be taken away")

    def __copy__(self) -> Tensor:
        return self

    def __deepcopy__(self, memo: object) -> Tensor:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a tensor cannot be pickled, because it has no numbers; pickle the model")

    def __array__(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(
            "a tensor has no numbers; make a Model of tensors, and call its predict on arrays"
        )

    def _refuse_arithmetic(self, _: object) -> NoReturn:
        raise TypeError(
            "a tensor has no numbers; layers do arithmetic, such as Add()([a, b]), "
            "Subtract()([a, b]) or Multiply()([a, b])"
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse_arithmetic

    def __iter__(self) -> NoReturn:
        raise TypeError("a tensor has no numbers to iterate over; call layers on it")

    def __repr__(self) -> str:
        if self.layer is None:
            name = "" if self.name is None else f", name={self.name!r}"
            return f"Input({self.shape}{name})"
        return f"<Tensor of shape {self.shape} from {quoted(self.layer)}>"


def Input(shape: Sequence[int], name: str | None = None) -> Tensor:
    """An input of a model, which layers are called on.

    Args:
        shape: of one sample: (H, W, C), (H, W) for one channel, or (features,).
        name: names the input in messages, and in a dict of samples.

    Returns:
        The tensor.

    Raises:
        TypeError, ValueError: a wrong shape or name.

    Example:
        >>> from fastcnn.nn.layers import Conv2D
        >>> Conv2D(8, 3)(Input((28, 28)))
        <Tensor of shape (26, 26, 8) from Conv2D(8, 3)>
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"name must be text, not empty, or None, got {quoted(name)}")
    return Tensor(image_shape(shape, "shape"), name=name)


def image_shape(sides: Sequence[int], name: str = "input_shape") -> Shape:
    """The shape of a sample: (H, W) is one channel.

    >>> image_shape((28, 28))
    (28, 28, 1)
    """
    if not isinstance(sides, tuple | list) or not 1 <= len(sides) <= 3:
        batch = isinstance(sides, tuple | list) and len(sides) == 4
        remedy = "; the batch is no part of it" if batch else ""
        raise ValueError(
            f"{name} must be (H, W, C), (H, W) or (features,), got {quoted(sides)}{remedy}"
        )
    shape = tuple(count(name, side) for side in sides)
    return (*shape, 1) if len(shape) == 2 else shape


def tensors_of(layer: Layer, values: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The tensors that a layer is called on, as a tuple; ``TypeError`` for anything else."""
    several = layer.takes_several
    if isinstance(values, Tensor):
        if several:
            raise TypeError(
                f"{quoted(layer)} must be called on a list of tensors, such as [a, b], got one"
            )
        return (values,)
    if isinstance(values, list | tuple) and all(isinstance(one, Tensor) for one in values):
        if several and values:
            return tuple(values)
        if not several:
            raise TypeError(
                f"{quoted(layer)} must be called on one tensor, got {len(values)}; a layer that "
                f"merges several, such as Concatenate(), comes before it"
            )
    requirement = "a list of tensors" if several else "a tensor"
    raise TypeError(
        f"{quoted(layer)} must be called on {requirement}, such as fastcnn.Input((28, 28, 1)), got "
        f"{quoted(values)}; to compute numbers, make a Model and call its predict"
    )


class Node(NamedTuple):
    """A call of a layer in a graph, whose values are numbered.

    Attributes:
        layer: the layer.
        inputs: the values that it takes; one, but for layers that merge several.
        output: the value that it makes.
    """

    layer: Layer
    inputs: tuple[int, ...]
    output: int

    def input_among(self, values: Sequence[T] | Mapping[int, T]) -> Any:
        """The input of this call among the shapes or arrays of all values of the graph."""
        return input_of_call(self.layer, [values[value] for value in self.inputs])


def infer_calls(
    nodes: Iterable[Node], shapes: Sequence[Shape], numbered: bool = False
) -> list[Shape]:
    """The shapes of all values of a graph, from those of its inputs.

    Raises a ``ValueError`` that names the layer that does not fit and its input. If ``numbered``,
    it also says which layer of the graph that is.
    """
    result = list(shapes)
    for i, node in enumerate(nodes):
        input_shape = node.input_among(result)
        try:
            result.append(node.layer.infer(input_shape))
        except ValueError as error:
            call = f"layer {i}, {quoted(node.layer)}," if numbered else quoted(node.layer)
            raise ValueError(f"{call} got an input of shape {input_shape}: {error}") from None
    return result


def input_of_call(layer: Layer, values: Sequence[T]) -> Any:
    """What a layer's methods take for these shapes or arrays: a tuple of them, or the only one."""
    return tuple(values) if layer.takes_several else values[0]
