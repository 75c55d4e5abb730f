"""A model's parameters in one flat array, and their gradients in another.

So an optimizer's step does not depend on the number of layers. Each layer's arrays are views; each
view starts on a cache line of its own. The gaps between them stay 0.

Compiled programs take addresses and sizes from views that :class:`Weights` alone has, because a
user can set the shape of a layer's own array in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.class_registry import is_own
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.nn.layers import (
    Arrays,
    Conv2D,
    DepthwiseConv2D,
    Layer,
    SeparableConv2D,
    Watch,
    all_layers,
    own_arrays,
)
from fastcnn.nn.optimizers import Optimizer


class Weights:
    """The parameters of built layers, moved into one array.

    Attributes:
        parameters, gradient: flat, of one size and dtype.
        gradients: for each layer its gradients by name, as views of ``gradient``.
        spans: the parts of the flat arrays that training moves, in order; a single part, which is
            all of them, where no layer is frozen. The gradient of the rest is 0.
        frozen: whether training leaves some of the parameters as they are.
        watch: knows whether values may have changed.
        repeats_samples: whether a training runs whose epochs take the same samples, so that results
            of frozen layers are worth keeping.
    """

    def __init__(self, layers: Sequence[Layer], dtype: np.dtype[np.floating]) -> None:
        step = CACHE_LINE // dtype.itemsize
        size = sum(
            -(-array.size // step) * step for layer in layers for array in layer.parameters.values()
        )
        self.parameters, self.gradient = _aligned(size, dtype), _aligned(size, dtype)
        self.gradients: list[dict[str, Array]] = []
        self.watch = Watch()
        self.repeats_samples = False
        self._layers = list(layers)  # kept alive, because the keys of _views are their ids
        self._views: dict[int, dict[str, Array]] = {}
        first = 0
        for layer in layers:
            views: dict[str, Array] = {}
            gradients: dict[str, Array] = {}
            for name, array in layer.parameters.items():
                part = slice(first, first + array.size)
                views[name] = self.parameters[part].reshape(array.shape)
                views[name][...] = array
                gradients[name] = self.gradient[part].reshape(array.shape)
                first += -(-array.size // step) * step
            own_views = {name: view[...] for name, view in views.items()}
            self._views[id(layer)] = own_views
            _enter_inner(self._views, layer, own_views)
            layer.adopt(views)
            self.gradients.append(gradients)
        self._convolutions: dict[int, tuple[DepthwiseConv2D, Conv2D]] = {}
        for layer in all_layers(layers):
            if type(layer) is SeparableConv2D:
                self._enter_convolutions(layer)
            for arrays in (vars(layer).get("parameters"), vars(layer).get("state")):
                if isinstance(arrays, Arrays):
                    arrays.watch = self.watch
        self.spans: tuple[slice, ...] = ()
        self.frozen = False
        self._trained: dict[int, dict[str, Array]] = {}
        self.update()

    def update(self) -> None:
        """Follow the layers' ``trainable``."""
        step, start = CACHE_LINE // self.gradient.itemsize, self.gradient.ctypes.data
        trained, spans, frozen = {}, list[slice](), list[Array]()
        for layer, gradients in zip(self._layers, self.gradients, strict=True):
            names = layer.trained_names()
            trained_of_layer = {name: gradients[name] for name in gradients if name in names}
            trained[id(layer)] = trained_of_layer
            _enter_inner(trained, layer, trained_of_layer)
            for name, gradient in gradients.items():
                if name not in names:
                    frozen.append(gradient)
                    continue
                first = (gradient.ctypes.data - start) // gradient.itemsize
                stop = first + -(-gradient.size // step) * step
                if spans and spans[-1].stop == first:
                    first = spans.pop().start
                spans.append(slice(first, stop))
        for gradient in frozen:
            gradient[...] = 0
        self._trained, self.spans, self.frozen = trained, tuple(spans), bool(frozen)

    def gradients_of(self, layer: Layer) -> dict[str, Array]:
        """The gradients of a layer's parameters that train, by name."""
        return self._trained.get(id(layer), {})

    def parts(self, gradients: Iterable[Array]) -> tuple[slice, ...]:
        """The parts of the flat gradient that hold these views of it, in order."""
        step, start = CACHE_LINE // self.gradient.itemsize, self.gradient.ctypes.data
        result = list[slice]()
        firsts = {(one.ctypes.data - start) // one.itemsize: one.size for one in gradients}
        for first, size in sorted(firsts.items()):
            stop = first + -(-size // step) * step
            if result and result[-1].stop == first:
                first = result.pop().start
            result.append(slice(first, stop))
        return tuple(result)

    def move(self, optimizer: Optimizer) -> None:
        """Take an optimizer's step with the gradient, on all that training moves."""
        if not is_own(type(optimizer)):
            self.watch.always = True  # it may keep the array, and write to it at any time
        try:
            if self.frozen:
                optimizer.step_within(self.parameters, self.gradient, self.spans)
            else:
                optimizer.step(self.parameters, self.gradient)
        finally:
            self.watch.moved()

    def state_of(self, layer: Layer) -> dict[str, Array]:
        """The running statistics of a layer by name, as compiled programs take them."""
        return own_arrays(layer.state)

    def of(self, layer: Layer) -> dict[str, Array]:
        """The parameters of one of the layers by name, as views of ``parameters``."""
        return self._views.get(id(layer), {})

    def all_of(self, layers: Iterable[Layer]) -> list[Array]:
        """All parameters and running statistics of some of the layers, as programs take them."""
        return [
            array
            for layer in layers
            for arrays in (self.of(layer), self.state_of(layer))
            for array in arrays.values()
        ]

    def convolutions_of(self, layer: SeparableConv2D) -> tuple[DepthwiseConv2D, Conv2D]:
        """The two convolutions of one of the layers; :meth:`of` knows their parameters."""
        return self._convolutions[id(layer)]

    def _enter_convolutions(self, layer: SeparableConv2D) -> None:
        """Enter the two convolutions of a layer, whose parameters are the layer's own."""
        both = depthwise, pointwise = layer.convolutions()
        views = self._views[id(layer)]
        self._convolutions[id(layer)] = both
        self._views[id(depthwise)] = {"w": views["depthwise_w"]}
        bias = {"b": views["b"]} if "b" in views else {}
        self._views[id(pointwise)] = {"w": views["pointwise_w"], **bias}

    def split(self, flat: Array) -> list[dict[str, Array]]:
        """Views by layer and name of an array of the parameters' layout, such as a momentum."""
        start = self.gradient.ctypes.data
        return [
            {
                name: flat[
                    (first := (g.ctypes.data - start) // g.itemsize) : first + g.size
                ].reshape(g.shape)
                for name, g in gradients.items()
            }
            for gradients in self.gradients
        ]


def _enter_inner(
    entries: dict[int, dict[str, Array]], layer: Layer, arrays: dict[str, Array]
) -> None:
    """Enter the arrays of the layers inside of a layer, by their own names."""
    for path, inner in layer.inner_layers():
        prefix = f"{path}."
        inner_arrays = {
            k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)
        }
        entries[id(inner)] = inner_arrays
        _enter_inner(entries, inner, inner_arrays)


def _aligned(size: int, dtype: np.dtype[np.floating]) -> Array:
    memory = np.zeros(size * dtype.itemsize + CACHE_LINE, np.uint8)
    offset = -memory.ctypes.data % CACHE_LINE
    return memory[offset : offset + size * dtype.itemsize].view(dtype)
