"""How layers become steps: the table :data:`LOWERINGS`, from a layer's class to its lowering.

A :class:`Lowering` writes the steps of one layer, forward and backward, and says whether the layer
stands alone instead. A class that is not in the table stands alone.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.hardware import L2_BYTES
from fastcnn.engine.numba.contraction.contraction import Plan
from fastcnn.engine.numba.contraction.packing import Layout
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.dense.chooser import dense_input_plan, dense_plan, dense_weight_plan
from fastcnn.engine.numba.elementwise import activations, steps
from fastcnn.engine.numba.pool import chooser as pool_chooser
from fastcnn.engine.numba.pool.windows import pooling_of_pixels
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand, fixed_address, number
from fastcnn.engine.registry import implementation
from fastcnn.models.execution.layer_facts import (
    Convolution,
    Pool,
    ends_in_plain_relu,
    input_of,
    normalises_batch,
    output_of,
    pooling_of,
)
from fastcnn.models.execution.lone import (
    LoneConvolution,
    LoneDense,
    LoneLayer,
    LoneNormalisation,
)
from fastcnn.models.execution.step_list import StepList
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import (
    AvgPool2D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    MinPool2D,
    ReLU,
    own_arrays,
)

# A layer of more operations for a sample than _HEAVY keeps all threads busy in any batch. With
# fewer than _LIGHT, a better algorithm gains less than standing alone costs.
_HEAVY, _LIGHT = 4_000_000, 1_000_000
# Larger weights, in bytes, are read once for the batch, not once for each slice.
_LARGE_WEIGHTS = 3 * L2_BYTES // 8

L = TypeVar("L", bound=Layer)


class Lowering(Generic[L]):
    """How a layer becomes steps.

    Attributes:
        lone: the class that runs such a layer where it stands alone.
        layer: the layer.
        i: its index in the segment.
        parameters: its parameters by name.
        gradients: the gradients of the parameters that train, by name.
        count: numbers of its output, for one sample.
        has_steps: whether it does anything to numbers.
        rectifies: whether it ends in a ReLU, or is one.
    """

    lone: ClassVar[type[LoneLayer]] = LoneLayer
    has_steps: ClassVar[bool] = True

    def __init__(self, layer: L, i: int, weights: Weights) -> None:
        self.layer, self.i = layer, i
        self.parameters, self.gradients = weights.of(layer), weights.gradients_of(layer)
        self.count = prod(output_of(layer))
        self.rectifies = ends_in_plain_relu(layer)

    @classmethod
    def stands_alone(cls, layer: L, dtype: np.dtype[np.floating]) -> str | None:
        """The reason why a built layer stands alone; None for one that has steps."""
        if layer.flops(input_of(layer)) > _HEAVY:
            return "its work is worth all threads"
        if any(array.nbytes > _LARGE_WEIGHTS for array in own_arrays(layer.parameters).values()):
            return "its weights are passed over once for the batch"
        return None

    def forward(self, to: StepList, x: Operand, y: Operand) -> None:
        """Steps from the layer's input at ``x`` to its output at ``y``."""
        raise NotImplementedError

    def bias_gradient(self, to: StepList, dy: Operand, count: int) -> None:
        """Steps to the bias's gradient, from the output's with ``count`` numbers for a sample."""
        if "b" in self.gradients:
            channels = output_of(self.layer)[-1]
            to.sum_rows(to.n * count // channels, channels, dy, to.gradient(self.gradients["b"]))

    def weight_gradient(self, to: StepList, x: Operand, dy: Operand) -> None:
        """Steps to the gradient of the weights; ``dy`` is the output's gradient before its ReLU."""

    def input_gradient(self, to: StepList, x: Operand, dy: Operand, dx: Operand) -> None:
        """Steps to the input's gradient at ``dx``; ``dy`` is the output's before its ReLU."""
        raise NotImplementedError

    def _bias(self, to: StepList) -> Operand:
        return fixed_address(self.parameters["b"]) if "b" in self.parameters else to.zeros


class ConvolutionLowering(Lowering[Convolution]):
    """A convolution, which can pool in registers."""

    lone = LoneConvolution

    @classmethod
    def stands_alone(cls, layer: Convolution, dtype: np.dtype[np.floating]) -> str | None:
        if layer.flops(input_of(layer)) > _LIGHT:
            g = layer.geometry(input_of(layer))
            algorithm = implementation("conv2d", g, dtype, layer.algorithm).name
            if algorithm != "numba.direct":
                return f"{algorithm} is better for it, or was asked for"
        if layer.algorithm not in ("auto", "direct"):
            return "its algorithm was asked for"
        return super().stands_alone(layer, dtype)

    def geometry(self, n: int) -> ConvGeometry:
        """The geometry of ``n`` images."""
        return self.layer.geometry(input_of(self.layer), n)

    def forward(self, to: StepList, x: Operand, y: Operand) -> None:
        g = self.geometry(to.n)
        layout, plan = direct.forward_plan(g, to.itemsize)
        images, w = to.lay_out(x, layout, g.input_shape), fixed_address(self.parameters["w"])
        to.contract(plan, images, w, self._bias(to), y, self.rectifies)

    def pooled_plan(self, n: int, itemsize: int, indices: bool) -> tuple[Layout, Plan] | None:
        """The plan of the convolution of ``n`` images and 2×2 pooling; None if there is none."""
        return direct.pooled_plan(self.geometry(n), itemsize, indices)

    def forward_pooled(
        self, to: StepList, x: Operand, y: Operand, indices: Operand | None, relu: bool
    ) -> None:
        """Steps of the layer with 2×2 max-pooling; argmax indices go to ``indices`` if not None."""
        plan_and_layout = self.pooled_plan(to.n, to.itemsize, indices is not None)
        assert plan_and_layout is not None
        layout, plan = plan_and_layout
        images, like = to.lay_out(x, layout, self.geometry(to.n).input_shape), to.like
        to.step(
            plan.function, (like, like, like, like, like, True, plan.numbers), plan.items,
            images, fixed_address(self.parameters["w"]), self._bias(to), y, indices or y,
            number(relu), to.constant(plan.numbers), work=plan.work,
        )  # fmt: skip

    def weight_gradient(self, to: StepList, x: Operand, dy: Operand) -> None:
        if "w" not in self.gradients:
            return
        g = self.geometry(to.n)
        layout, plan = direct.filter_sum_plan(g, to.itemsize)
        images = to.lay_out(x, layout, g.input_shape)
        to.contract(plan, images, dy, to.zeros, to.gradient(self.gradients["w"]))

    def input_gradient(self, to: StepList, x: Operand, dy: Operand, dx: Operand) -> None:
        g = self.geometry(to.n)
        plan = direct.input_gradient_plan(g, to.itemsize)
        images, w = to.lay_out(dy, plan.layout, g.output_shape), fixed_address(self.parameters["w"])
        if width := plan.transposed_width:
            blocks = g.groups * -(-g.group_ic // width)
            w = to.transposed(self.i, width, blocks * g.kh * g.kw * g.group_oc * width)
        if plan.phases_without_taps:
            to.step(steps.zero, (to.like, to.like), prod(g.input_shape), dy, dx)
        for phase in plan.phases:
            to.contract(phase, images, w, to.zeros, dx)


class DenseLowering(Lowering[Dense]):
    """A dense layer."""

    lone = LoneDense

    def forward(self, to: StepList, x: Operand, y: Operand) -> None:
        w = self.parameters["w"]
        inputs, outputs = w.shape
        plan = dense_plan(to.n, inputs, outputs, to.itemsize)
        to.contract(plan, x, fixed_address(w), self._bias(to), y, self.rectifies)

    def weight_gradient(self, to: StepList, x: Operand, dy: Operand) -> None:
        if "w" in self.gradients:
            gradient = self.gradients["w"]
            inputs, outputs = self.parameters["w"].shape
            plan = dense_weight_plan(to.n, inputs, outputs, to.itemsize)
            to.contract(plan, x, dy, to.zeros, to.gradient(gradient))

    def input_gradient(self, to: StepList, x: Operand, dy: Operand, dx: Operand) -> None:
        inputs, outputs = self.parameters["w"].shape
        plan, width = dense_input_plan(to.n, inputs, outputs, to.itemsize)
        w = fixed_address(self.parameters["w"])
        if width:
            w = to.transposed(self.i, width, -(-inputs // width) * outputs * width)
        to.contract(plan, dy, w, to.zeros, dx)


class ReLULowering(Lowering[ReLU]):
    """A ReLU without a maximum.

    A slice masks the gradient, because it does so for ReLUs that end other layers.
    """

    @classmethod
    def stands_alone(cls, layer: ReLU, dtype: np.dtype[np.floating]) -> str | None:
        if layer.max_value is not None:
            return "its maximum is an operation of its own"
        return super().stands_alone(layer, dtype)

    def forward(self, to: StepList, x: Operand, y: Operand) -> None:
        to.step(activations.relu_kernel, (to.like, to.like), to.n * self.count, x, y)


class FlattenLowering(Lowering[Flatten]):
    """A Flatten, which does nothing to numbers: its input is its output."""

    has_steps = False

    def input_gradient(self, to: StepList, x: Operand, dy: Operand, dx: Operand) -> None:
        """A copy, where the gradient must lie at ``dx``."""
        to.step(steps.copy, (to.like, to.like), to.n * self.count, dy, dx)


class PoolLowering(Lowering[Pool]):
    """A pooling; ``kind`` is "max", "min" or "average"."""

    kind: ClassVar[str]

    @classmethod
    def stands_alone(cls, layer: Pool, dtype: np.dtype[np.floating]) -> str | None:
        if pool_chooser.sums_are_long(pooling_of(layer, 1)):
            return "so many windows meet in each pixel that their gradients are summed in float64"
        return super().stands_alone(layer, dtype)

    def forward(self, to: StepList, x: Operand, y: Operand) -> None:
        g = pooling_of(self.layer, to.n)
        kernel, items = pool_chooser.forward_kernel(self.kind, g, to.itemsize)
        numbers = record(pooling_of_pixels(g))
        work = prod(g.output_shape) * g.kh * g.kw
        to.step(kernel, (to.like, to.like, numbers), items, x, y, to.constant(numbers), work=work)

    def unpool(self, to: StepList, dy: Operand, indices: Operand, dx: Operand) -> None:
        """Steps to the gradient before a 2×2 max-pooling, from its argmax indices."""
        g = pooling_of(self.layer, to.n)
        kernel, items = pool_chooser.argmax_gradient_kernel(g, to.itemsize)
        like, numbers = to.like, record(g)
        examples = like, like, like, numbers
        to.step(kernel, examples, items, dy, indices, dx, to.constant(numbers))

    def input_gradient(self, to: StepList, x: Operand, dy: Operand, dx: Operand) -> None:
        g = pooling_of(self.layer, to.n)
        kernel, items = pool_chooser.gradient_kernel(self.kind, g, to.itemsize)
        like, numbers = to.like, record(g)
        last = to.constant(numbers)
        if self.kind == "average":
            to.step(kernel, (like, like, numbers), items, dy, dx, last)
        else:
            to.step(kernel, (like, like, like, numbers), items, dy, x, dx, last)


class MaxPoolLowering(PoolLowering):
    """A max-pooling, over windows or over the image."""

    kind = "max"


class MinPoolLowering(PoolLowering):
    """A min-pooling."""

    kind = "min"


class AveragePoolLowering(PoolLowering):
    """An average pooling, over windows or over the image."""

    kind = "average"


LOWERINGS: dict[type[Layer], type[Lowering[Any]]] = {
    Conv2D: ConvolutionLowering,
    DepthwiseConv2D: ConvolutionLowering,
    Dense: DenseLowering,
    ReLU: ReLULowering,
    Flatten: FlattenLowering,
    MaxPool2D: MaxPoolLowering,
    GlobalMaxPool2D: MaxPoolLowering,
    MinPool2D: MinPoolLowering,
    AvgPool2D: AveragePoolLowering,
    GlobalAvgPool2D: AveragePoolLowering,
}
"""The lowering of each class of layers. Classes of users are not here, even if they derive from one
of these, because they may do something else."""


def stands_alone(layer: Layer, dtype: np.dtype[np.floating]) -> str | None:
    """The reason why a built layer is no part of a segment; None for one that has steps."""
    lowering = LOWERINGS.get(type(layer))
    if lowering is None:
        return "an operation of its own over the whole batch"
    return lowering.stands_alone(layer, dtype)


def lone_kind(layer: Layer) -> type[LoneLayer]:
    """What runs a layer that stands alone."""
    if normalises_batch(layer):
        return LoneNormalisation
    lowering = LOWERINGS.get(type(layer))
    return LoneLayer if lowering is None else lowering.lone
