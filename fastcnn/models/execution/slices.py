"""The steps of a segment for the samples of one slice, and those after all slices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.elementwise import activations, steps
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.models.execution.layer_facts import pooling_of, pools_2x2
from fastcnn.models.execution.lowering import (
    ConvolutionLowering,
    FlattenLowering,
    Lowering,
    MaxPoolLowering,
    ReLULowering,
)
from fastcnn.models.execution.segment import Segment
from fastcnn.models.execution.stages import stage_end
from fastcnn.models.execution.step_list import Shared, StepList
from fastcnn.nn.layers import Layer

Aim = Literal["predict", "softmax", "train", "step", "soft step"]
"""The purpose of a program.

"predict" makes the outputs and "softmax" their softmax. "train" goes forward and backward in two
calls. "step" and "soft step" do forward, softmax cross-entropy and backward in one call: "step" for
targets that are class numbers, "soft step" for rows of probabilities.
"""

# A step after the slices is cut into at most so many parts.
_CUTS = 16


class Batch(NamedTuple):
    """A batch, as programs are made for it.

    Attributes:
        size: its samples.
        aim: what is asked.
        bytes_in: whether samples are bytes.
        total: the samples that the mean loss is of; more than ``size`` for shards of a batch.
        shards: the samples of each shard, the largest first; each shard is a slice. Without
            shards, the problem decides the slices.
    """

    size: int
    aim: Aim
    bytes_in: bool
    total: int
    shards: tuple[int, ...] = ()

    @property
    def has_loss(self) -> bool:
        """Whether the program goes to the loss and back."""
        return self.aim in ("step", "soft step")

    @property
    def trains(self) -> bool:
        """Whether there is a way back."""
        return self.aim == "train" or self.has_loss


class _Stage(NamedTuple):
    """Layers that are done together, with their places.

    Attributes:
        start: the first layer's index.
        layers: a convolution with its ReLU and 2×2 max-pooling, or one layer.
        x, y: where its input and its output lie.
        indices: where the argmax indices of its pooling lie, for the way back.
    """

    start: int
    layers: Sequence[Lowering[Layer]]
    x: Operand
    y: Operand
    indices: Operand | None


class Slice(StepList):
    """Steps of a segment for ``n`` samples of a batch.

    Attributes:
        forward, loss, backward: the steps. The last layer's output is at OUTPUT, or in the
            workspace if a loss or a softmax takes it.
        totals: where the loss goes.
        slab: where the gradient of all parameters goes: with several slices into the workspace.
        over_batch: for each dense layer whose gradients are summed over the whole batch, when all
            slices are done, where its input and its output's gradient lie.
    """

    def __init__(
        self, segment: Segment, n: int, shared: Shared, batch: Batch, *, is_only: bool
    ) -> None:
        super().__init__(n, segment.zeros, segment.gradient, shared)
        self._segment, self._batch = segment, batch
        self.forward, self.loss, self.backward = list[Array](), list[Array](), list[Array]()
        self.over_batch: dict[int, tuple[Operand, Operand]] = {}
        # First, so that they lie alike in each slice.
        self.totals = self.room(CACHE_LINE // self.itemsize)
        has_slab = batch.trains and not is_only
        if has_slab:
            self.slab = self.room(segment.gradient.size)
        is_summed_later = has_slab and not batch.shards
        self._summed_later = segment.over_batch if is_summed_later else frozenset()
        self.steps = self.forward
        stages = self._go_forward()
        if batch.aim == "softmax":
            self._softmax(stages[-1].y)
        if batch.trains:
            dy = Operand(program.DY, 0)
            if batch.has_loss:
                self.steps = self.loss
                dy = self._loss(stages[-1].y)
            # Copies are not kept, because later gradients overwrite the places of earlier ones.
            self.steps, self.keeps_copies = self.backward, False
            self._go_back(stages, dy)

    # --- forward ----------------------------------------------------------------------------------

    def _go_forward(self) -> list[_Stage]:
        """The steps of all stages, one after the other."""
        segment, x = self._segment, Operand(program.INPUT, 0)
        if self._batch.bytes_in:
            samples, x = x, self._input_room(0, segment.inputs)
            bytes_like = np.zeros(1, np.uint8)
            count = self.n * segment.inputs
            self.step(steps.scale_bytes, (bytes_like, self.like), count, samples, x)
        groups = self._groups()
        outputs = self._outputs(groups)
        stages = []
        for layers, output in zip(groups, outputs, strict=True):
            start, y, indices = layers[0].i, output or x, None
            if output is not None:
                if self._batch.trains and len(layers) > 1 and start >= segment.first:
                    indices = self.room(self.n * layers[-1].count)
                if len(layers) > 1:
                    relu = any(one.rectifies for one in layers)
                    convolution = cast(ConvolutionLowering, layers[0])
                    convolution.forward_pooled(self, x, y, indices, relu)
                else:
                    layers[0].forward(self, x, y)
            stages.append(_Stage(start, layers, x, y, indices))
            x = y
        return stages

    def _groups(self) -> list[Sequence[Lowering[Layer]]]:
        """Layers that are done together.

        docs/measurements.md, "Convolution, ReLU and pooling are one step".
        """
        lowerings, groups, i = self._segment.lowerings, list[Sequence[Lowering[Layer]]](), 0
        while i < len(lowerings):
            end, convolution = stage_end(self._segment.layers, i), lowerings[i]
            if end > i + 1:
                assert isinstance(convolution, ConvolutionLowering)
                pool = cast(MaxPoolLowering, lowerings[end - 1]).layer
                pools = pools_2x2(pooling_of(pool, self.n))
                if not (pools and convolution.pooled_plan(self.n, self.itemsize, False)):
                    end = i + 1
            groups.append(lowerings[i:end])
            i = end
        return groups

    def _outputs(self, groups: Sequence[Sequence[Lowering[Layer]]]) -> list[Operand | None]:
        """Where each group's output lies; None for a group that does nothing to numbers."""
        outputs = [
            self._input_room(group[-1].i + 1, group[-1].count) if group[-1].has_steps else None
            for group in groups
        ]
        if self._batch.aim in ("predict", "train"):
            last = max(i for i, output in enumerate(outputs) if output is not None)
            outputs[last] = Operand(program.OUTPUT, 0)
        return outputs

    def _input_room(self, i: int, count: int) -> Operand:
        """A place for the input of layer ``i``: in an array of the batch if it is needed later."""
        consumer = self._segment.consumer(i)
        if consumer in self._summed_later:
            return self.batch_array("x", consumer, self.n * count)
        return self.room(self.n * count)

    def _softmax(self, x: Operand) -> None:
        numbers, like = self._rows(), self.like
        last, y = self.constant(numbers), Operand(program.OUTPUT, 0)
        self.step(activations.softmax_rows, (like, like, numbers), self.n, x, y, last)

    def _rows(self) -> Array:
        """The record of the outputs as rows of classes."""
        (classes,) = self._segment.output_shape
        return record(activations.SoftmaxRows(self.n, classes, self._batch.total))

    # --- loss -------------------------------------------------------------------------------------

    def _loss(self, x: Operand) -> Operand:
        """Steps from the outputs at ``x`` to the loss and its gradient; the gradient's place."""
        count = self._segment.outputs
        dy = self._gradient_room(len(self._segment.layers)) or self.room(self.n * count)
        numbers, like, total = self._rows(), self.like, np.zeros(1)
        kernel: Kernel = steps.soft_loss_rows
        targets_like = like
        if self._batch.aim == "step":
            kernel, targets_like = steps.loss_rows, np.zeros(1, np.int64)
        targets, weights = Operand(program.TARGETS, 0), Operand(program.WEIGHTS, 0)
        operands = x, targets, weights, dy, self.totals, self.constant(numbers)
        self.step(kernel, (like, targets_like, like, like, total, numbers), self.n, *operands)
        return dy

    # --- backward ---------------------------------------------------------------------------------

    def _go_back(self, stages: Sequence[_Stage], dy: Operand) -> None:
        """The steps of all stages back to the first layer that trains."""
        segment = self._segment
        largest = self.n * max(one.count for one in segment.lowerings)
        self._rooms = self.room(largest), self.room(largest)
        self._masked = set[int]()  # layers whose ReLU the gradient has passed already
        for stage in reversed(stages):
            if stage.start < segment.first:
                break
            unpools = stage.indices is not None
            if stage.indices is not None:
                dy = self._unpooled(stage, stage.indices, dy)
            dx = self._gradient_room(stage.start)
            if stage.start == segment.first and segment.needs_dx:
                dx = Operand(program.DX, 0)
            dy = self._back(stage, dy, dx, sum_bias=not unpools)

    def _unpooled(self, stage: _Stage, indices: Operand, dy: Operand) -> Operand:
        """Steps to the gradient before a stage's pooling and ReLU, and to the bias's gradient.

        Both take the gradient before it is unpooled, because it is smaller there. Unpooling
        changes no sum. It changes no ReLU either: the number that gets a window's gradient is the
        largest of the window, so it is above 0 exactly where the pooled number is.
        """
        convolution, pool = stage.layers[0], cast(MaxPoolLowering, stage.layers[-1])
        if any(one.rectifies for one in stage.layers):
            dy = self.mask(self.n * pool.count, dy, stage.y, self._place_of_mask(dy))
        self._masked.add(stage.start)
        convolution.bias_gradient(self, dy, pool.count)
        dx = self._free_gradient_place(dy)
        pool.unpool(self, dy, indices, dx)
        return dx

    def _back(
        self, stage: _Stage, dy: Operand, target: Operand | None, *, sum_bias: bool
    ) -> Operand:
        """Steps back through a stage's first layer; returns where ``dx`` lies.

        ``target`` is where ``dx`` must lie, or None. ``sum_bias`` says whether the bias's gradient
        is not summed yet.
        """
        segment, i, x, y = self._segment, stage.start, stage.x, stage.y
        layer = segment.lowerings[i]
        if isinstance(layer, FlattenLowering):
            if target is None:
                return dy
            layer.input_gradient(self, x, dy, target)  # the segment begins with this layer
            return target
        count = self.n * layer.count
        if layer.rectifies and i not in self._masked:
            place = target if isinstance(layer, ReLULowering) else None
            if i in self._summed_later:
                place = self.batch_array("dy", i, count)
            dy = self.mask(count, dy, y, place or self._place_of_mask(dy))
        if isinstance(layer, ReLULowering):
            return dy
        if isinstance(layer, MaxPoolLowering) and i > segment.first:
            before = segment.lowerings[i - 1]
            if before.rectifies and not isinstance(before, ReLULowering):
                # The pooled gradient has fewer numbers to mask; see _unpooled.
                self._masked.add(before.i)
                dy = self.mask(count, dy, y, self._place_of_mask(dy))
        if i in self._summed_later:
            self.over_batch[i] = x, dy
        else:
            if sum_bias:
                layer.bias_gradient(self, dy, layer.count)
            layer.weight_gradient(self, x, dy)
        dx = target or self._free_gradient_place(dy)
        if i > segment.first or segment.needs_dx:
            layer.input_gradient(self, x, dy, dx)
        return dx

    def _place_of_mask(self, dy: Operand) -> Operand | None:
        """Where a mask writes the gradient at ``dy``; None stands for in place.

        The gradient of the segment's output is not changed in place, because other units may read
        it as well.
        """
        return self._free_gradient_place(dy) if dy.base == program.DY else None

    def _gradient_room(self, i: int) -> Operand | None:
        """Where the gradient of layer ``i``'s input must lie, if it matters."""
        producer = self._segment.producer(i)
        if producer is None or producer not in self._summed_later:
            return None
        layer = self._segment.lowerings[producer]
        return None if layer.rectifies else self.batch_array("dy", producer, self.n * layer.count)

    def _free_gradient_place(self, dy: Operand) -> Operand:
        """The place for gradients that does not hold ``dy``: the second if it is the first."""
        return self._rooms[1] if dy == self._rooms[0] else self._rooms[0]


class OverBatch(StepList):
    """Gradients of dense layers, summed over the whole batch after all slices are done.

    One pass instead of one for each slice and one over their sums; docs/measurements.md, "Dense
    gradients once over the batch". ``layers`` says where the input and the output's gradient of
    each layer lie, and ``origins`` where the arrays of the batch begin.
    """

    def __init__(
        self,
        segment: Segment,
        count: int,
        layers: dict[int, tuple[Operand, Operand]],
        origins: dict[int, int],
    ) -> None:
        super().__init__(count, segment.zeros, segment.gradient, Shared())
        for i, (x, dy) in layers.items():
            layer, whole_dy = segment.lowerings[i], _whole(dy, origins)
            layer.bias_gradient(self, whole_dy, layer.count)
            layer.weight_gradient(self, _whole(x, origins), whole_dy)
        self.steps = [part for step in self.steps for part in program.split_step(step, _CUTS)]


def _whole(place: Operand, origins: dict[int, int]) -> Operand:
    """The place of an array of the batch, where no slice is."""
    return Operand(program.SHARED, origins[place.base]) if place.base in origins else place
