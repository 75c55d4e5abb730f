"""Layers that stand alone: one operation over the whole batch, shared out over the threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.core.halving import parts_of_shards, sum_by_halves
from fastcnn.core.settings import get_math
from fastcnn.core.user_code import Source, numbers
from fastcnn.engine.numba.conv import direct, winograd, winograd_gradient
from fastcnn.engine.numba.dense.backward import dense_gradients
from fastcnn.engine.numba.dense.forward import dense
from fastcnn.engine.numba.elementwise import normalization
from fastcnn.engine.numba.elementwise.activations import relu_backward
from fastcnn.engine.numba.elementwise.normalization import normalise, normalise_backward
from fastcnn.engine.numba.pool.operations import argmax_gradient, max_pool2d, max_pool2d_backward
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.registry import choose
from fastcnn.models.execution.layer_facts import (
    Convolution,
    Pool,
    ends_in_plain_relu,
    input_of,
    output_of,
    pooling_of,
    pools_2x2,
)
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Dense, Layer, Saved

# Batch sizes whose choices are remembered.
_BATCHES = 64


class LoneLayer:
    """A layer on the whole batch, run by its own methods, and the layers done with it.

    Attributes:
        padded: whether the executor must look for filters that are not finite and meet padding.
            It is False, because the layer's operations look for them.
        is_deterministic: whether ``forward`` is the same in training and prediction. It is False
            for classes of users, because their code is unknown.
        takes_several: whether it takes a tuple of arrays.
        layer: the layer.
        sums_shards: whether :meth:`backward` takes the samples of each shard, and sums the
            gradients of shards by the tree of :mod:`fastcnn.distributed.tree`.
    """

    padded = False
    is_deterministic = False
    takes_several = False
    sums_shards = False

    def __init__(
        self, layers: Sequence[Layer], layer: Layer, weights: Weights, needs_dx: bool, reason: str
    ) -> None:
        self._layers, self._layer, self._needs_dx, self._reason = layers, layer, needs_dx, reason
        self.layer: Any = layer
        self._parameters, self._gradients = weights.of(layer), weights.gradients_of(layer)
        self._dtype = weights.parameters.dtype

    def gradients(self) -> list[Array]:
        """The gradients that :meth:`backward` writes, as views of the flat one."""
        return list(self._gradients.values())

    def explain(self) -> str:
        """The unit's line in ``Model.explain``."""
        return f"alone: {', '.join(map(repr, self._layers))}, {self._reason}"

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Saved] | None:
        """The output (N, …), and what :meth:`backward` needs; ``rng`` is None in prediction."""
        y, saved = self._layer.forward(x, rng is not None, rng, None)
        return self._checked("forward", y, (len(x), *output_of(self._layer))), saved

    def backward(self, dy: Array, saved: Saved) -> Array | None:
        """The gradient of the input, if it is needed; parameters' gradients go to the weights."""
        dx, gradients = self._layer.backward(dy, saved, None, needs_dx=self._needs_dx)
        for name, gradient in gradients.items():
            if name in self._gradients:
                self._gradients[name][...] = gradient
        if not self._needs_dx:
            return None
        return self._checked("backward", dx, (len(dy), *input_of(self._layer)))

    def _checked(self, method: str, array: Array | None, shape: tuple[int, ...]) -> Array:
        return checked_result(self._layer, method, array, shape, self._dtype)


def checked_result(
    layer: Layer, method: str, array: object, shape: tuple[int, ...], dtype: np.dtype[np.floating]
) -> Array:
    """The result of a layer's method as a C-contiguous array of this shape and dtype.

    It is checked, because a kernel takes it by its address. Raises ``TypeError`` if it does not
    hold real numbers, and ``ValueError`` for another shape.
    """
    if type(array) is np.ndarray and array.dtype is dtype and array.shape == shape:
        return np.ascontiguousarray(array)
    return numbers(Source(layer, method), "an array", array, shape, dtype)


class LoneConvolution(LoneLayer):
    """A convolution by its operations without their checks, and ReLU and max-pooling with it.

    Where Winograd's filtering pools, the values before the pooling are never stored, and gradients
    go back by argmax indices; docs/measurements.md, "Winograd pools in registers".
    """

    is_deterministic = True
    sums_shards = True

    def __init__(
        self, layers: Sequence[Layer], layer: Layer, weights: Weights, needs_dx: bool, reason: str
    ) -> None:
        super().__init__(layers, layer, weights, needs_dx, reason)
        self._activation = "relu" if any(map(ends_in_plain_relu, layers)) else None
        self._choices: dict[int, _Operations] = {}
        self._math = get_math()

    def _operations(self, n: int) -> _Operations:
        operations = self._choices.get(n)
        if operations is None:
            if len(self._choices) >= _BATCHES:
                self._choices.clear()
            operations = self._choices[n] = _operations_for(
                self._layers, n, self._dtype, self._math
            )
        return operations

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Saved] | None:
        parameters, operations = self._parameters, self._operations(len(x))
        operands = x, parameters["w"], parameters.get("b"), self._activation, operations.geometry
        if operations.pools_in_registers and rng is None:
            return winograd.conv2d_pooled(*operands), None
        if operations.pools_in_registers:
            y, indices = winograd.conv2d_pooled_with_indices(*operands)
            return y, _SavedConvolution(x, y, indices, None)
        sums = operations.forward(*operands)
        y = max_pool2d(sums, operations.pooling) if operations.pooling else sums
        return y, None if rng is None else _SavedConvolution(x, y, None, sums)

    def backward(self, dy: Array, saved: Saved, shards: tuple[int, ...] = ()) -> Array | None:
        x, y, indices, sums = cast(_SavedConvolution, saved)
        operations = self._operations(len(x))
        parts = parts_of_shards(shards or (len(x),))
        of_parts = [self._operations(part.stop - part.start) for part in parts]
        if self._activation:
            # ReLU before unpooling, because dy is smaller there. The result is the same: a number
            # that is the largest of its window passes the ReLU where the pooled number does.
            dy = _through_relu(dy, y)
        if "b" in self._gradients:  # unpooling would not change the sum
            of_bias = [
                one.to_bias(dy[part], one.geometry_of_dy)
                for part, one in zip(parts, of_parts, strict=True)
            ]
            self._gradients["b"][...] = sum_by_halves(of_bias)
        if operations.pooling and indices is not None:
            dy = argmax_gradient(dy, indices, operations.pooling)
        elif operations.pooling and sums is not None:
            dy = max_pool2d_backward(dy, sums, operations.pooling)
        dx = None
        if self._needs_dx:
            dx = operations.to_input(dy, self._parameters["w"], operations.geometry)
        if self._gradients:
            w = self._gradients["w"]
            of_filters = [w]
            if len(of_parts) > 1:
                of_filters = [arrays.allocate(w.shape, w.dtype) for _ in of_parts]
            for part, one, dw in zip(parts, of_parts, of_filters, strict=True):
                one.to_filters(dy[part], x[part], one.geometry, dw)
            if len(of_filters) > 1:
                w[...] = sum_by_halves(of_filters)
        return dx


class _SavedConvolution(NamedTuple):
    """What the way back of a convolution takes.

    Attributes:
        x, y: its input and output.
        indices: argmax indices, if it pooled in registers.
        sums: the convolution's result before the pooling, if it did not.
    """

    x: Array
    y: Array
    indices: Array | None
    sums: Array | None


class _Operations(NamedTuple):
    """The engine's functions for a convolution of some samples, under the executor's ``math``.

    With ``pools_in_registers`` the convolution pools, and gradients go back by argmax indices.
    """

    geometry: ConvGeometry
    geometry_of_dy: ConvGeometry  # with the pixels that the pooling leaves
    pooling: PoolGeometry | None
    pools_in_registers: bool
    forward: Callable[..., Array]
    to_input: Callable[..., Array]
    to_filters: Callable[[Array, Array, ConvGeometry, Array], None]
    to_bias: Callable[..., Array]


def _operations_for(
    layers: Sequence[Layer], n: int, dtype: np.dtype[np.floating], math: str
) -> _Operations:
    layer = cast(Convolution, layers[0])
    g = layer.geometry(input_of(layer), n)
    forward, to_input, to_filters = (
        choose(op, g, dtype, None, layer.algorithm, math)
        for op in ("conv2d", "conv2d_input_gradient", "conv2d_filter_gradient")
    )
    pooling = pooling_of(cast(Pool, layers[-1]), n) if len(layers) > 1 else None
    in_registers = forward is winograd.conv2d and pooling is not None and pools_2x2(pooling)
    to_bias = choose("conv2d_bias_gradient", g, dtype, None)
    of_dy = g._replace(oh=pooling.oh, ow=pooling.ow) if pooling else g
    return _Operations(
        g, of_dy, pooling, in_registers, forward, to_input, _writing(to_filters), to_bias
    )


def _writing(
    to_filters: Callable[..., Array],
) -> Callable[[Array, Array, ConvGeometry, Array], None]:
    """A gradient of filters that writes its result to its last argument."""
    if to_filters is direct.conv2d_filter_gradient:
        return direct.write_filter_gradient
    if to_filters is winograd_gradient.conv2d_filter_gradient:
        return winograd_gradient.write_filter_gradient

    def write(dy: Array, x: Array, g: ConvGeometry, dw: Array) -> None:
        dw[...] = to_filters(dy, x, g)

    return write


def _through_relu(dy: Array, y: Array) -> Array:
    return relu_backward(dy.reshape(-1), y.reshape(-1)).reshape(dy.shape)


class LoneDense(LoneLayer):
    """A dense layer, and a Flatten before it.

    Gradients are written straight into the arrays of ``weights``, because the gradient of a dense
    layer's weights is often most of all bytes, and a copy of it would cost more than the rest.
    """

    is_deterministic = True
    sums_shards = True

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Saved] | None:
        layer = cast(Dense, self._layer)
        flat = x.reshape(len(x), *input_of(layer))
        y = dense(flat, self._parameters["w"], self._parameters.get("b"), layer.activation)
        return y, (x, y)

    def backward(self, dy: Array, saved: Saved, shards: tuple[int, ...] = ()) -> Array | None:
        x, y = saved
        if ends_in_plain_relu(self._layer):
            dy = _through_relu(dy, y)
        flat = x.reshape(len(x), *input_of(self._layer))
        dx = arrays.allocate(flat.shape, x.dtype) if self._needs_dx else None
        dw, db = self._gradients.get("w"), self._gradients.get("b")
        dense_gradients(dy, flat, self._parameters["w"], dx, dw, db, shards)
        return None if dx is None else dx.reshape(x.shape)


class LoneNormalisation(LoneLayer):
    """A batch normalisation that trains, and its ReLU, done in the same passes."""

    def __init__(
        self, layers: Sequence[Layer], layer: Layer, weights: Weights, needs_dx: bool, reason: str
    ) -> None:
        super().__init__(layers, layer, weights, needs_dx, reason)
        self._relu_of_norm = len(layers) > 1

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Saved] | None:
        gamma, beta = self._parameters["gamma"], self._parameters["beta"]
        rows, epsilon = x.reshape(-1, len(gamma)), self.layer.epsilon
        result = normalise(rows, gamma, beta, epsilon, relu=self._relu_of_norm)
        return result.y.reshape(x.shape), (rows, result)

    def backward(self, dy: Array, saved: Saved) -> Array | None:
        rows, result = saved
        of_channels = self._gradients["gamma"], self._gradients["beta"]
        dx = normalise_backward(
            dy.reshape(rows.shape),
            rows,
            result,
            self.layer.epsilon,
            *of_channels,
            relu=self._relu_of_norm,
        )
        self.layer.follow(result.mean, result.variance)
        return dx.reshape(dy.shape) if self._needs_dx else None

    # --- a shard of a batch: statistics are those of all shards -----------------------------------

    def moments(self, x: Any, shards: int) -> Array:
        """The moments (shards, 3, C) of so many shards of equal size.

        They are the number of rows, their mean, and their squared distances from it.
        """
        return normalization.moments(x.reshape(-1, x.shape[-1]), shards)

    def forward_by(self, x: Any, moments: Array) -> tuple[Array, Saved]:
        """The output, by the moments of all shards; and what the way back takes."""
        gamma, beta = self._parameters["gamma"], self._parameters["beta"]
        rows, epsilon = x.reshape(-1, len(gamma)), self.layer.epsilon
        result = normalization.normalise_by(
            rows, gamma, beta, moments, epsilon, relu=self._relu_of_norm
        )
        return result.y.reshape(x.shape), (rows, result, moments)

    def before_activation(self, dy: Array, saved: Saved) -> Array:
        """The gradient before a ReLU that :meth:`backward_sums` does not know."""
        return dy

    def backward_sums(self, dy: Array, saved: Saved, part: slice | None, shards: int) -> Array:
        """The sums (shards, 2, C) of shards of equal size: ``Σ g`` and ``Σ g·(x − mean)``.

        ``g`` is ``dy``, or 0 where the ReLU stops the number. The gradient of the input needs them.
        ``part`` are their samples in the input that ``saved`` is of; None if they are all.
        """
        rows, result, _ = saved
        dy_rows = dy.reshape(-1, rows.shape[1])
        if part is not None:
            pixels = len(dy_rows) // (part.stop - part.start)
            rows = rows[part.start * pixels : part.stop * pixels]
        return normalization.gradient_sums(
            dy_rows, rows, result, self.layer.epsilon, relu=self._relu_of_norm, parts=shards
        )

    def parameter_gradients(self, own: Array, saved: Saved) -> list[Array]:
        """The gradients of a shard from its sums, in the order of :meth:`gradients`."""
        moments = saved[-1]
        deviation = np.sqrt(moments[2] / moments[0] + self.layer.epsilon)
        by_name = {"gamma": own[1] / deviation, "beta": own[0]}
        return [by_name[name].astype(self._dtype) for name in self._gradients]

    def backward_by(self, dy: Array, saved: Saved, sums: Array) -> tuple[Any, Array]:
        """The gradient of the input, by the sums of all shards; and the moments."""
        rows, result, moments = saved
        if not self._needs_dx:
            return None, moments
        dx = normalization.gradient_by(
            dy.reshape(rows.shape), rows, result, sums, moments, self.layer.epsilon,
            relu=self._relu_of_norm,
        )  # fmt: skip
        return dx.reshape(dy.shape), moments


class NormalisedSum(LoneNormalisation):
    """A batch normalisation that trains, the sum with another value behind it, and perhaps a ReLU.

    It takes two values: the normalisation's input, and the other one. Forward, one pass does all
    of it after the statistics; docs/measurements.md, "Normalise, add and rectify in one pass".

    ``needs`` says which of the two values need a gradient.
    """

    takes_several = True

    def __init__(
        self, layers: Sequence[Layer], weights: Weights, needs: tuple[bool, bool], reason: str
    ) -> None:
        super().__init__(layers[:1], layers[0], weights, needs[0], reason)
        self._layers, self._relu_of_sum, self._needs = layers, len(layers) > 2, needs
        self._relu_of_norm = False  # the ReLU comes after the sum

    def forward(self, x: Any, rng: np.random.Generator | None) -> tuple[Array, Saved] | None:
        own, summand = x
        gamma, beta = self._parameters["gamma"], self._parameters["beta"]
        rows, epsilon = own.reshape(-1, len(gamma)), self.layer.epsilon
        residual = summand.reshape(rows.shape)
        result = normalise(rows, gamma, beta, epsilon, relu=self._relu_of_sum, residual=residual)
        return result.y.reshape(own.shape), (rows, result)

    def backward(self, dy: Array, saved: Saved) -> Any:
        rows, result = saved
        if self._relu_of_sum:
            dy = _through_relu(dy, result.y)
        of_channels = self._gradients["gamma"], self._gradients["beta"]
        dx = normalise_backward(
            dy.reshape(rows.shape), rows, result, self.layer.epsilon, *of_channels, relu=False
        )
        self.layer.follow(result.mean, result.variance)
        return dx.reshape(dy.shape) if self._needs[0] else None, dy if self._needs[1] else None

    # --- a shard of a batch -----------------------------------------------------------------------

    def moments(self, x: Any, shards: int) -> Array:
        return super().moments(x[0], shards)

    def forward_by(self, x: Any, moments: Array) -> tuple[Array, Saved]:
        own, summand = x
        gamma, beta = self._parameters["gamma"], self._parameters["beta"]
        rows, epsilon = own.reshape(-1, len(gamma)), self.layer.epsilon
        result = normalization.normalise_by(
            rows, gamma, beta, moments, epsilon,
            relu=self._relu_of_sum, residual=summand.reshape(rows.shape),
        )  # fmt: skip
        return result.y.reshape(own.shape), (rows, result, moments)

    def before_activation(self, dy: Array, saved: Saved) -> Array:
        return _through_relu(dy, saved[1].y) if self._relu_of_sum else dy

    def backward_by(self, dy: Array, saved: Saved, sums: Array) -> tuple[Any, Array]:
        dx, moments = super().backward_by(dy, saved, sums)
        return (dx, dy if self._needs[1] else None), moments
