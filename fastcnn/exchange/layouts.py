"""How the arrays of a layer lie in the files of other libraries.

A *slot* is what takes one module of a file: a layer with parameters, or one of the two convolutions
of a ``SeparableConv2D``. Its *parts* say for each of its arrays where it comes from, which shape it
has there, and how it is turned into the layer's array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.exchange.feature_order import FeatureOrders, Order
from fastcnn.exchange.weight_files import Library
from fastcnn.nn.layers import (
    BatchNorm,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    GroupNorm,
    Layer,
    LayerNorm,
    PReLU,
    SeparableConv2D,
    Shape,
    own_arrays,
)

COUNTERS = frozenset(("num_batches_tracked",))
"""Arrays of PyTorch's modules that are no weights."""


_KERAS_KINDS: dict[str, tuple[type[Layer], tuple[str, ...]]] = {
    "separable_conv2d": (SeparableConv2D, ("depthwise_w", "pointwise_w", "b")),
    "depthwise_conv2d": (DepthwiseConv2D, ("w", "b")),
    "conv2d": (Conv2D, ("w", "b")),
    "conv2d_transpose": (Conv2DTranspose, ("w", "b")),
    "dense": (Dense, ("w", "b")),
    "batch_normalization": (BatchNorm, ("gamma", "beta", "mean", "variance")),
    "layer_normalization": (LayerNorm, ("gamma", "beta")),
    "group_normalization": (GroupNorm, ("gamma", "beta")),
    "p_re_lu": (PReLU, ("slope",)),
}
"""The layers of Keras by the names that they have in files, with their arrays in order."""


class Part(NamedTuple):
    """One array of a slot.

    Attributes:
        target: the name of the layer's array.
        source: the name of the array in its module.
        shapes: the shapes that it may have in the file.
        convert: makes the layer's array of it.
        absent: the value that stands for an array that the module does not have; None if it must
            have it.
    """

    target: str
    source: str
    shapes: tuple[Shape, ...]
    convert: Callable[[Array], Array]
    absent: float | None = None


class Slot(NamedTuple):
    """What takes one module of a file.

    Attributes:
        name: the name of the layer, with a path inside of it.
        layer: the layer.
        parts: its arrays.
        kind: the name of the layer's class in Keras, in small letters; None for PyTorch, whose
            files do not tell it.
    """

    name: str
    layer: Layer
    parts: tuple[Part, ...]
    kind: str | None = None

    def misfit(self, module: str, shapes: Mapping[str, Shape]) -> str | None:
        """Why a module with arrays of these shapes does not fit, or None if it fits."""
        stem = re.sub(r"_\d+$", "", module.rpartition(".")[2])
        if self.kind is not None and stem != self.kind and stem in _KERAS_KINDS:
            return f"it is a {stem}"
        for part in self.parts:
            shape = shapes.get(part.source)
            if shape is None:
                if part.absent is None:
                    return f"it has no {part.source}"
            elif shape not in part.shapes:
                expected = " or ".join(map(str, part.shapes))
                return f"its {part.source} is {shape}, and must be {expected}"
        unused = shapes.keys() - {part.source for part in self.parts} - COUNTERS
        if unused:
            hint = "; the layer has use_bias=False" if unused == {"bias"} else ""
            return f"the layer has no array for its {', '.join(sorted(unused))}{hint}"
        return None


def slots_of(
    named: Iterable[tuple[str, Layer]], library: Library, orders: FeatureOrders | None
) -> list[Slot]:
    """The slots of layers with their names, in order."""
    result = list[Slot]()
    for name, layer in named:
        inner = layer.inner_layers()
        if inner:
            below = [(f"{name}.{path}", one) for path, one in inner]
            result += slots_of(below, library, orders)
        elif layer.parameters or layer.state:
            make = _pytorch if library == "pytorch" else _keras
            result += make(name, layer, orders)
    return result


def _pytorch(name: str, layer: Layer, orders: FeatureOrders | None) -> list[Slot]:
    """Slots of PyTorch's layout: channels first, output channels before input channels."""
    arrays = arrays_of(layer)
    before = after = None
    if orders is not None:
        before, after = orders.of_input(layer), orders.of_output(layer)
    bias = _bias(arrays, "b", after)
    if isinstance(layer, SeparableConv2D):
        depthwise, pointwise = (
            _filters(arrays, target) for target in ("depthwise_w", "pointwise_w")
        )
        return [
            Slot(f"{name}.depthwise", layer, (depthwise,)),
            Slot(f"{name}.pointwise", layer, (pointwise, *bias)),
        ]
    if isinstance(layer, Conv2D | DepthwiseConv2D | Conv2DTranspose):
        return [Slot(name, layer, (_filters(arrays, "w"), *bias))]
    if isinstance(layer, Dense):
        shape = arrays["w"].shape[::-1]
        convert = partial(_matrix, before=before, after=after)
        return [Slot(name, layer, (Part("w", "weight", (shape,), convert), *bias))]
    if isinstance(layer, BatchNorm):
        row = partial(_vector, order=before)
        shape = arrays["gamma"].shape
        sources = ("gamma", "weight", 1.0), ("beta", "bias", 0.0), ("mean", "running_mean", None)
        parts = [Part(t, s, (shape,), row, default) for t, s, default in sources]
        return [Slot(name, layer, (*parts, Part("variance", "running_var", (shape,), row)))]
    if isinstance(layer, LayerNorm | GroupNorm):
        parts = [
            _normalised(target, source, arrays[target].shape, before)
            for target, source in (("gamma", "weight"), ("beta", "bias"))
            if target in arrays
        ]
        return [Slot(name, layer, tuple(parts))]
    if isinstance(layer, PReLU):
        shape = arrays["slope"].shape
        row = partial(_slope, shape=shape, order=before)
        return [Slot(name, layer, (Part("slope", "weight", (shape, (1,)), row),))]
    return [_generic(name, layer)]


def _keras(name: str, layer: Layer, orders: FeatureOrders | None) -> list[Slot]:
    """Slots of Keras's layout, which is that of fastcnn but for depthwise filters."""
    arrays = arrays_of(layer)
    for keras_kind, (kind, targets) in _KERAS_KINDS.items():
        if not isinstance(layer, kind):
            continue
        parts = list[Part]()
        for target in targets:
            if target not in arrays:
                continue
            shape = arrays[target].shape
            shapes: tuple[Shape, ...] = (shape,)
            convert = partial(_in_shape, shape=shape)
            if target == "depthwise_w" or (target == "w" and kind is DepthwiseConv2D):
                kh, kw, _, channels = shape
                ic = (layer.input_shape or (1,))[-1]
                shapes = ((kh, kw, ic, channels // ic),)
            elif target == "slope":
                shapes = (shape, (1, 1, *shape))
            absent = 0.0 if target == "b" else None
            parts.append(Part(target, str(len(parts)), shapes, convert, absent))
        return [Slot(name, layer, tuple(parts), keras_kind)]
    return [_generic(name, layer)]


def _generic(name: str, layer: Layer) -> Slot:
    """The slot of a layer of a user's own, whose arrays have the same names in the file."""
    parts = (
        Part(target, target, (array.shape,), np.asarray)
        for target, array in arrays_of(layer).items()
    )
    return Slot(name, layer, tuple(parts))


def arrays_of(layer: Layer) -> dict[str, Array]:
    """Parameters and running statistics of a layer, to look at."""
    return own_arrays(layer.parameters) | own_arrays(layer.state)


def _filters(arrays: Mapping[str, Array], target: str) -> Part:
    """Filters (KH, KW, IC, OC) from (OC, IC, KH, KW); of a transposed convolution likewise."""
    shape = arrays[target].shape
    moved = tuple(shape[axis] for axis in (3, 2, 0, 1))
    return Part(target, "weight", (moved,), partial(np.transpose, axes=(2, 3, 1, 0)))


def _bias(arrays: Mapping[str, Array], target: str, order: Order) -> tuple[Part, ...]:
    if target not in arrays:
        return ()
    convert = partial(_vector, order=order)
    return (Part(target, "bias", (arrays[target].shape,), convert, 0.0),)


def _matrix(array: Array, before: Order, after: Order) -> Array:
    """(units, features) as (features, units), with both in the order of fastcnn."""
    if after is not None:
        array = array[after]
    return array.T if before is None else array.T[before]


def _in_shape(array: Array, shape: Shape) -> Array:
    return array.reshape(shape)


def _vector(array: Array, order: Order) -> Array:
    return array if order is None else array[order]


def _slope(array: Array, shape: Shape, order: Order) -> Array:
    """A slope for each channel; a single one stands for all."""
    return np.broadcast_to(array, shape) if array.shape == (1,) else _vector(array, order)


def _normalised(target: str, source: str, shape: Shape, order: Order) -> Part:
    """A parameter of a normalisation: of channels, or of whole images with channels first."""
    if len(shape) == 3:
        moved = shape[2], shape[0], shape[1]
        return Part(target, source, (moved,), partial(np.transpose, axes=(1, 2, 0)))
    return Part(target, source, (shape,), partial(_vector, order=order))
