"""``OnnxOperation``: an operator of ONNX as a layer, for what no other layer computes.

It computes with NumPy, by the functions of :mod:`fastcnn.exchange.onnx_functions`, and has a
gradient where the operator has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fastcnn.core.arguments import Array as Floats
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.exchange.onnx_functions import FUNCTIONS, Array, OnnxFileError, OnnxNode
from fastcnn.exchange.onnx_functions.gradients import GRADIENTS
from fastcnn.nn.layers import Merge, Shape, Spec
from fastcnn.nn.layers.base import Gradients, Saved

MOST_NUMBERS = 4096  # of a constant that stands in the layer's description


@dataclass(frozen=True)
class Source:
    """Where an input of the operator comes from.

    Attributes:
        kind: "input" of the layer, "values" in its description, "array" of its state, or "nothing".
        dtype: of the numbers, as the file declares it.
        shape: of a constant.
        values: of a constant in the description, in row-major order.
        order: of an input: for each axis of the operator's array the axis of the layer's, or None
            where they are the same.
    """

    kind: str = "nothing"
    dtype: str = "float32"
    shape: Shape = ()
    values: tuple[float | int | bool, ...] = ()
    order: tuple[int, ...] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The source as JSON values."""
        order = None if self.order is None else list(self.order)
        return {
            "kind": self.kind, "dtype": self.dtype, "shape": list(self.shape),
            "values": list(self.values), "order": order,
        }  # fmt: skip


def _source(value: Any) -> Source:
    """A source from JSON values."""
    if isinstance(value, Source):
        return value
    try:
        order = value["order"]
        source = Source(
            value["kind"], _dtype(value["dtype"]).name, tuple(map(int, value["shape"])),
            tuple(value["values"]), None if order is None else tuple(map(int, order)),
        )  # fmt: skip
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"sources must describe inputs, got {quoted(value)}") from error
    numbers = prod(source.shape) if source.kind == "values" else len(source.values)
    if source.kind not in ("nothing", "input", "values", "array") or numbers != len(source.values):
        raise ValueError(f"sources must describe inputs, got {quoted(value)}")
    return source


class OnnxOperation(Merge):
    """An operator of ONNX on its inputs; :func:`fastcnn.load_onnx` makes such layers.

    Args:
        operator: its name, such as "Exp".
        attributes: of the operator, by name.
        opset: the version of its meaning.
        outputs: how many outputs the operator has.
        result: which of them is the layer's output.
        sources: where each input of the operator comes from.
        input_shapes: of a sample of each input of the layer.
        result_shape: of a sample of the output.
        order: for each axis of the layer's output the axis of the operator's; None if they are the
            same.
        whole: whether the operator takes a sample without the axis of the batch.
        node_name: the name of the file's node, for messages.

    Raises:
        ValueError: an operator that is not known, or sources that do not fit.
    """

    def __init__(
        self,
        operator: str,
        attributes: dict[str, Any],
        opset: int,
        outputs: int,
        result: int,
        sources: Sequence[Any],
        input_shapes: Sequence[Sequence[int]],
        result_shape: Sequence[int],
        order: Sequence[int] | None = None,
        whole: bool = False,
        node_name: str = "",
    ) -> None:
        super().__init__()
        if operator not in FUNCTIONS:
            raise ValueError(f"operator must be one that is known, got {quoted(operator)}")
        self.operator, self.attributes, self.opset = operator, dict(attributes), opset
        self.outputs, self.result, self.whole = outputs, result, whole
        self.node_name = node_name
        self.sources = [_source(one).as_dict() for one in sources]
        self.input_shapes = tuple(tuple(shape) for shape in input_shapes)
        self.result_shape, self.order = tuple(result_shape), None if order is None else tuple(order)
        self._sources = [_source(one) for one in sources]
        names = tuple("y" if i == result else "" for i in range(outputs))
        extra = {"result": result} if outputs > 1 else {}
        self._node = OnnxNode(operator, node_name, (), names, {**self.attributes, **extra}, opset)
        self._constants = [
            np.array(one.values, one.dtype).reshape(one.shape) if one.kind == "values" else None
            for one in self._sources
        ]

    @property
    def lacks_gradient(self) -> str | None:
        reduction = self.attributes.get("reduction", "none")  # of a Scatter
        if self.operator in GRADIENTS and reduction in ("none", "add"):
            return None
        return f"the operator {self.operator} of node {quoted(self.node_name)} has no gradient"

    def infer(self, input_shape: tuple[Shape, ...]) -> Shape:  # type: ignore[override]
        if tuple(input_shape) != self.input_shapes:
            raise ValueError(
                f"{self!r} was made for inputs of shapes {self.input_shapes}, got {input_shape}"
            )
        return self.result_shape

    def state_specs(self, input_shape: tuple[Shape, ...]) -> dict[str, Spec]:  # type: ignore[override]
        return {
            f"constant_{i}": Spec(one.shape, "zeros")
            for i, one in enumerate(self._sources)
            if one.kind == "array"
        }

    def _arguments(self, x: Sequence[Array]) -> list[Array | None]:
        """The operator's inputs, as the file declares them."""
        inputs, result, state = iter(x), list[Array | None](), self._own_state
        for i, (source, constant) in enumerate(zip(self._sources, self._constants, strict=True)):
            if source.kind == "input":
                array = next(inputs)
                if source.order is not None:
                    # A sample without axes is stored with one of one number.
                    array = array.reshape(array.shape[: len(source.order)])
                    array = array.transpose(source.order)
                result.append(_converted(array, source.dtype))
            elif source.kind == "array":
                result.append(_converted(state[f"constant_{i}"], source.dtype))
            else:
                result.append(constant)
        return result

    def _computed(self, x: Sequence[Array]) -> tuple[Array, list[Array | None], Array]:
        """The output as the layer's, the operator's inputs, and its output."""
        arguments = self._arguments(x)
        try:
            results = FUNCTIONS[self.operator](self._node, *arguments)
        except OnnxFileError:
            raise
        except (ValueError, TypeError, IndexError) as error:
            raise OnnxFileError(f"{self!r} does not fit its inputs: {error}") from error
        output = results[self.result] if isinstance(results, tuple) else results
        return output if self.order is None else output.transpose(self.order), arguments, output

    @unreported
    def forward(  # type: ignore[override]
        self,
        x: tuple[Floats, ...],
        training: bool,
        rng: np.random.Generator | None,
        engine: str | None,
    ) -> tuple[Floats, Saved]:
        kind, count = x[0].dtype, len(x[0])
        if self.whole:
            parts = [self._computed([one[i] for one in x]) for i in range(count)]
            shape = self.result_shape if not parts else parts[0][0].shape or (1,)
            y: Array = np.zeros((count, *shape), parts[0][0].dtype if parts else kind)
            for i, part in enumerate(parts):
                y[i] = part[0]
        else:
            parts = [self._computed(x)]
            y = parts[0][0]
            y = y[:, None] if y.ndim == 1 else y
        _check_integers(self, y, kind)
        if y.shape != (count, *self.result_shape):
            raise OnnxFileError(f"{self!r} yields shape {y.shape[1:]}, not {self.result_shape}")
        return np.ascontiguousarray(y, kind), (parts, kind)

    @unreported
    def backward(  # type: ignore[override]
        self, dy: Floats, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[tuple[Floats, ...] | None, Gradients]:
        if not needs_dx:
            return None, {}
        parts, kind = saved
        if self.lacks_gradient is not None:
            raise ValueError(
                f"{self.lacks_gradient}; set trainable = False on the layers before it"
            )
        if not self.whole:
            gradients = self._gradients(dy, parts[0], kind)
            return tuple(one[:, None] if one.ndim == 1 else one for one in gradients), {}
        several = [self._gradients(dy[i], parts[i], kind) for i in range(len(dy))]
        stacks = [np.stack(one) for one in zip(*several, strict=True)]
        shapes = self.input_shapes
        return tuple(s.reshape(-1, *n) for s, n in zip(stacks, shapes, strict=True)), {}

    def _gradients(
        self, dy: Array, part: tuple[Array, list[Array | None], Array], kind: np.dtype[Any]
    ) -> list[Floats]:
        """The gradients of the layer's inputs, from what :meth:`_computed` returns."""
        _, arguments, output = part
        dy = dy.reshape(dy.shape[: output.ndim])
        dy = dy if self.order is None else dy.transpose(np.argsort(self.order))
        floats = tuple(
            one if one is None or one.dtype.kind != "f" else one.astype(kind, copy=False)
            for one in arguments
        )
        results = GRADIENTS[self.operator](self._node, dy, output.astype(kind), floats)
        parts = []
        for source, array, one in zip(self._sources, arguments, results, strict=True):
            if source.kind == "input":
                assert array is not None
                gradient = np.zeros(array.shape) if one is None else one
                if source.order is not None:
                    gradient = gradient.transpose(np.argsort(source.order))
                parts.append(np.ascontiguousarray(gradient, kind).reshape(gradient.shape))
        return parts

    def __repr__(self) -> str:
        return f"OnnxOperation({self.operator!r})"


def _converted(array: Array, dtype: str) -> Array:
    if array.dtype.name == dtype:
        return array
    return array != 0 if dtype == "bool" else array.astype(_dtype(dtype))


def _dtype(name: str) -> np.dtype[np.generic]:
    if name == "bfloat16":
        import ml_dtypes

        kind: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
        return kind
    return np.dtype(name)


def _check_integers(layer: OnnxOperation, y: Array, kind: np.dtype[Any]) -> None:
    """Raise an error for integers that the model's type does not hold."""
    limit = 1 << (24 if kind == np.float32 else 53)
    if y.dtype.kind in "iu" and y.size and (y.max() > limit or y.min() < -limit):
        raise OverflowError(
            f"{layer!r} yields integers beyond {limit:,}, which {kind} does not hold"
        )
