"""``Segment``: layers that run as one compiled program, and their facts for any batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.runtime import arrays, program
from fastcnn.engine.numba.runtime.program import address
from fastcnn.models.execution.layer_facts import input_of, output_of
from fastcnn.models.execution.lowering import (
    LOWERINGS,
    ConvolutionLowering,
    DenseLowering,
    Lowering,
)
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Layer

# Most dense layers with gradients that are summed over the whole batch: each keeps two arrays.
_OVER_BATCH = (program.BASES - program.FIRST_BATCH_ARRAY) // 2


@dataclass(frozen=True, eq=False)
class Segment:
    """Built layers in a row that have steps.

    Attributes:
        layers: the layers.
        lowerings: for each layer how it becomes steps.
        dtype: the dtype of parameters and activations.
        needs_dx: whether the gradient of the segment's input is wanted.
        first: the first layer that trains, or 0 with ``needs_dx``: no gradient goes beyond it.
        parameters, gradient: the parts of the flat arrays of all parameters, and of all gradients,
            from the first to the last number that training moves.
        zeros: as many zeros as any layer has channels or features.
        padded_filters: the filters that meet images between zeros, flat.
        over_batch: indices of dense layers with gradients summed after all slices.
    """

    layers: Sequence[Layer]
    lowerings: Sequence[Lowering[Layer]]
    dtype: np.dtype[np.floating]
    needs_dx: bool
    first: int
    parameters: Array
    gradient: Array
    zeros: Array
    padded_filters: Sequence[Array]
    over_batch: frozenset[int]

    @property
    def inputs(self) -> int:
        """Numbers of a sample."""
        return prod(input_of(self.layers[0]))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the output of a sample."""
        return output_of(self.layers[-1])

    @property
    def outputs(self) -> int:
        """Numbers of the output of a sample."""
        return self.lowerings[-1].count

    @property
    def flops(self) -> int:
        """Operations for a sample, forward."""
        return sum(layer.flops(input_of(layer)) for layer in self.layers)

    def producer(self, i: int) -> int | None:
        """The last layer before layer ``i`` that does anything to numbers."""
        return next((j for j in range(i - 1, -1, -1) if self.lowerings[j].has_steps), None)

    def consumer(self, i: int) -> int | None:
        """The first layer from layer ``i`` on that does anything to numbers."""
        layers_after = range(i, len(self.layers))
        return next((j for j in layers_after if self.lowerings[j].has_steps), None)


def segment_of(layers: Sequence[Layer], weights: Weights, needs_dx: bool) -> Segment:
    """The segment of these layers, whose parameters are parts of ``weights``."""
    dtype = weights.parameters.dtype
    lowerings = [LOWERINGS[type(layer)](layer, i, weights) for i, layer in enumerate(layers)]
    trainable = [one.i for one in lowerings if one.gradients]
    gradients = [array for one in lowerings for array in one.gradients.values()]
    ends = [
        (address(array) - address(weights.gradient)) // dtype.itemsize + size
        for array in gradients
        for size in (0, array.size)
    ]
    span = slice(min(ends, default=0), max(ends, default=0))
    zeros = arrays.allocate(
        (max(shape(layer)[-1] for layer in layers for shape in (input_of, output_of)),), dtype
    )
    zeros[...] = 0
    convolutions = [one for one in lowerings if isinstance(one, ConvolutionLowering)]
    dense = [one.i for one in lowerings if isinstance(one, DenseLowering) and one.gradients]
    return Segment(
        layers,
        lowerings,
        dtype,
        needs_dx,
        first=0 if needs_dx else min(trainable, default=len(layers)),
        parameters=weights.parameters[span],
        gradient=weights.gradient[span],
        zeros=zeros,
        padded_filters=[
            one.parameters["w"].reshape(-1)
            for one in convolutions
            if direct.has_padding(one.geometry(1))
        ],
        over_batch=frozenset(dense[:_OVER_BATCH]),
    )
