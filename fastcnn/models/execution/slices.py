"""The steps of a row of layers for some samples.

:class:`Slice` gives each layer a place for its output in the slice's workspace, and steps forward
and backward; :class:`OverBatch` holds what is better done once for all slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry, pool_geometry
from fastcnn.core.hardware import CACHE_LINE
from fastcnn.engine.numba.contraction import column_sums, packing
from fastcnn.engine.numba.contraction.contraction import Plan
from fastcnn.engine.numba.contraction.packing import Layout
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.dense.forward import dense_input_plan, dense_plan, dense_weight_plan
from fastcnn.engine.numba.elementwise import activations, steps
from fastcnn.engine.numba.pool import chooser as pooling
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Place, constant, number
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
)

if TYPE_CHECKING:
    from fastcnn.models.execution.plan import Plans

POOLS = {
    MaxPool2D: "max",
    GlobalMaxPool2D: "max",
    MinPool2D: "min",
    AvgPool2D: "average",
    GlobalAvgPool2D: "average",
}
CONVOLUTIONS = (Conv2D, DepthwiseConv2D)

# Parts of a step that can run at once, at most.
_PARTS = 16


class Steps:
    """What all lists of steps for ``n`` samples need.

    Attributes:
        slab: where the gradient of all parameters goes.
        kept: arrays that steps name by their addresses.
    """

    def __init__(self, plans: Plans, n: int, batch: int) -> None:
        self.plans, self.n, self.batch, self.dtype = plans, n, batch, plans.dtype
        self.itemsize = plans.dtype.itemsize
        self.slab = constant(plans.gradient)
        self.kept: list[Array] = []
        self._do: list[Array] = []

    @property
    def _f(self) -> Array:
        return np.zeros(1, self.dtype)

    def _step(self, function: Any, samples: tuple[Any, ...], stop: int, *operands: Place) -> None:
        if stop:
            self._do.append(program.step(function, samples, stop, *operands))

    def _contract(
        self, plan: Plan, x: Place, w: Place, b: Place, y: Place, relu: bool = False
    ) -> None:
        f = self._f
        self._step(
            plan.function, (f, f, f, f, True, plan.numbers), plan.items,
            x, w, b, y, number(relu), self._numbers(plan.numbers),
        )  # fmt: skip

    def _numbers(self, numbers: Array) -> Place:
        self.kept.append(numbers)
        return constant(numbers)

    def _gradient(self, layer: Layer, name: str) -> Place:
        at = self.plans.offset(layer, name) - self.plans.part.start * self.itemsize
        return Place(self.slab.base, self.slab.at + at)

    def _sum_bias(self, layer: Layer, rows: int, columns: int, dy: Place) -> None:
        if "b" not in self.plans.of(layer) or not self.plans.trains(layer):
            return
        function, items = column_sums.column_sums_for(columns, self.itemsize)
        numbers = column_sums.matrix(rows, columns)
        samples = self._f, self._f, numbers
        to = self._gradient(layer, "b")
        self._step(function, samples, items, dy, to, self._numbers(numbers))

    def _dense_gradients(self, layer: Layer, x: Place, dy: Place) -> None:
        inputs, outputs = self.plans.of(layer)["w"].shape
        self._sum_bias(layer, self.n, outputs, dy)
        plan = dense_weight_plan(self.n, inputs, outputs, self.itemsize)
        w = self._gradient(layer, "w")
        self._contract(plan, x, dy, constant(self.plans.zeros), w)


class Shared:
    """Where that lies which the slices of one batch have in common.

    Attributes:
        turned: for each layer's number and the width of its blocks, the first byte of its filters.
        kept: for each array of the batch its base, and the bytes of a sample.
    """

    def __init__(self) -> None:
        self.turned: dict[tuple[int, int], int] = {}
        self.kept: dict[tuple[str, int], tuple[int, int]] = {}
        self._turned_size = 0

    def turn(self, i: int, width: int, size: int) -> int:
        """A place for turned filters."""
        if (i, width) not in self.turned:
            self.turned[i, width] = self._turned_size
            self._turned_size += size
        return self.turned[i, width]

    def base(self, what: str, i: int, by_sample: int) -> int:
        """The base of an array of the batch."""
        base, _ = self.kept.setdefault((what, i), (program.KEPT + len(self.kept), by_sample))
        return base

    def origins(self, count: int) -> tuple[dict[int, int], int]:
        """Where the arrays of so many samples begin, after the filters, and the bytes of all."""
        found, size = {}, self._turned_size
        for base, by_sample in self.kept.values():
            found[base] = size
            size += -(-count * by_sample // CACHE_LINE) * CACHE_LINE
        return found, size


class Slice(Steps):
    """Steps for ``n`` samples.

    Attributes:
        forward, loss, backward: the steps. The last layer's output is at OUTPUT, with ``softmax``
            its softmax; with ``ends`` in the workspace, where ``loss`` takes it from. ``ends``
            says what stands at TARGETS: "labels" or "probabilities".
        size: bytes of the workspace.
        totals, slab: where the loss goes, and the gradient of all parameters: in the workspace
            with ``slab``, else at once to where all gradients lie.
        shared: what slices of one batch have in common.
        over_batch: for each dense layer whose gradients are summed over the whole batch, when all
            slices are done, where its input and its output's gradient lie.
    """

    def __init__(
        self,
        plans: Plans,
        n: int,
        shared: Shared,
        *,
        training: bool,
        ends: Literal["labels", "probabilities"] | None,
        softmax: bool,
        slab: bool,
        batch: int,
        bytes_in: bool,
    ) -> None:
        super().__init__(plans, n, batch)
        self.size, self.shared = 0, shared
        self.forward: list[Array] = []
        self.loss: list[Array] = []
        self.backward: list[Array] = []
        self.over_batch: dict[int, tuple[Place, Place]] = {}
        self._do = self.forward
        self._laid_out: dict[tuple[Place, Layout], Place] = {}
        # First, so that they lie alike in each slice.
        self.totals = self._room(CACHE_LINE // self.itemsize)
        if training and slab:
            self.slab = self._room(plans.part.stop - plans.part.start)
        self._summed_later = plans.over_batch if training and slab else frozenset()
        layers = plans.layers
        at = Place(program.INPUT, 0)
        if bytes_in:
            count = n * prod(plans.input_shape)
            given, at = at, self._input_room(0, count)
            bytes_like = np.zeros(1, np.uint8)
            self._step(steps.scale_bytes, (bytes_like, self._f), count, given, at)
        stages = self._stages()
        outputs = [
            self._input_room(one.stop, n * prod(output_of(layers[one[-1]])))
            if makes(layers[one[-1]])
            else None
            for one in stages
        ]
        if not ends and not softmax:
            outputs = _with_last(outputs, Place(program.OUTPUT, 0))
        saved = []
        for stage, to in zip(stages, outputs, strict=True):
            x, places = at, None
            if to is not None:
                if training and len(stage) > 1 and stage.start >= plans.first:
                    places = self._room(n * prod(output_of(layers[stage[-1]])))
                self._forward(layers[stage.start : stage.stop], at, to, places)
                at = to
            saved.append((stage, x, at, places))
        if softmax:
            self._softmax(at)
        if not training:
            return
        dy = Place(program.DY, 0)
        if ends:
            self._do = self.loss
            dy = self._gradient_room(len(layers)) or self._room(n * prod(output_of(layers[-1])))
            self._loss_of(at, dy, ends)
        self._do = self.backward
        sizes = [n * prod(output_of(one)) for one in layers]
        self._free = [self._room(max(sizes)), self._room(max(sizes))]
        self._masked: set[int] = set()
        self._summed: set[int] = set()  # layers whose bias has its gradient already
        for stage, x, y, places in reversed(saved):
            i = stage.start
            if i < plans.first:
                break
            if places is not None:
                dy = self._unpooled(stage, y, places, dy)
            to = self._gradient_room(i)
            if i == plans.first and plans.needs_dx:
                to = Place(program.DX, 0)
            needs_dx = i > plans.first or plans.needs_dx
            dy = self._backward(i, layers[i], x, y, dy, to, needs_dx)

    def _room(self, count: int) -> Place:
        """A place for so many numbers, at the start of a cache line."""
        at = self.size
        self.size += -(-count * self.itemsize // CACHE_LINE) * CACHE_LINE
        return Place(program.ITEM, at)

    def _input_room(self, i: int, count: int) -> Place:
        """A place for what layer ``i`` takes; an array of the batch where it is needed later."""
        user = next((j for j in range(i, len(self.plans.layers)) if self._is_work(j)), None)
        return (
            self._kept_array("x", user, count) if user in self._summed_later else self._room(count)
        )

    def _gradient_room(self, i: int) -> Place | None:
        """Where the gradient of layer ``i``'s input must lie, if it matters."""
        maker = next((j for j in range(i - 1, -1, -1) if self._is_work(j)), None)
        if maker not in self._summed_later or is_relu(self.plans.layers[maker]):
            return None
        return self._kept_array("dy", maker, self.n * prod(output_of(self.plans.layers[maker])))

    def _is_work(self, i: int) -> bool:
        return makes(self.plans.layers[i])

    def _kept_array(self, what: str, i: int, count: int) -> Place:
        """A place in an array of the whole batch."""
        by_sample = count // self.n * self.itemsize
        return Place(self.shared.base(what, i, by_sample), 0)

    def _other(self, dy: Place) -> Place:
        """One of the two places for gradients, not that of ``dy``."""
        return self._free[1] if dy == self._free[0] else self._free[0]

    def _parameter(self, layer: Layer, name: str) -> Place:
        return constant(self.plans.of(layer)[name])

    def _bias(self, layer: Layer) -> Place:
        if "b" in self.plans.of(layer):
            return self._parameter(layer, "b")
        return constant(self.plans.zeros)

    # --- forward ----------------------------------------------------------------------------------

    def _stages(self) -> list[range]:
        """Layers that are done together: a convolution with its ReLU and 2×2 max-pooling, or one.

        28×28 digits through LeNet-5's first two layers then take 3.7 µs each instead of 4.9.
        """
        layers, found, i = self.plans.layers, [], 0
        while i < len(layers):
            last = with_pooling(layers, i)
            if last > i + 1:
                g = self.plans.convolution(layers[i], self.n)
                squares = pools_squares(pooling_of(layers[last - 1], self.n))
                last = last if squares and direct.pooled_plan(g, self.itemsize) else i + 1
            found.append(range(i, last))
            i = last
        return found

    def _forward(self, layers: Sequence[Layer], x: Place, y: Place, places: Place | None) -> None:
        """Steps of one stage; ``places`` are those of its pooling, for the way back."""
        layer = layers[0]
        if isinstance(layer, CONVOLUTIONS):
            g = self.plans.convolution(layer, self.n)
            pooled = None
            if len(layers) > 1:
                pooled = direct.pooled_plan(g, self.itemsize, places is not None)
            to, plan = pooled or direct.forward_plan(g, self.itemsize)
            x = self._lay_out(x, to, g.input_shape)
            w, b, relu = self._parameter(layer, "w"), self._bias(layer), any(map(is_relu, layers))
            if pooled is None:
                self._contract(plan, x, w, b, y, relu)
                return
            f = self._f
            self._step(
                plan.function, (f, f, f, f, f, True, plan.numbers), plan.items,
                x, w, b, y, places or y, number(relu), self._numbers(plan.numbers),
            )  # fmt: skip
        elif isinstance(layer, Dense):
            inputs, outputs = self.plans.of(layer)["w"].shape
            plan = dense_plan(self.n, inputs, outputs, self.itemsize)
            w, b = self._parameter(layer, "w"), self._bias(layer)
            self._contract(plan, x, w, b, y, layer.activation == "relu")
        elif isinstance(layer, ReLU):
            count = self.n * prod(output_of(layer))
            self._step(activations.relu_kernel, (self._f, self._f), count, x, y)
        else:
            g_pool, kind = pooling_of(layer, self.n), POOLS[type(layer)]
            function, items = pooling.forward_kernel(kind, g_pool, self.itemsize)
            numbers = record(g_pool)
            samples = self._f, self._f, numbers
            self._step(function, samples, items, x, y, self._numbers(numbers))

    def _lay_out(self, x: Place, to: Layout, shape: tuple[int, ...]) -> Place:
        """Where the images at ``x`` lie under a layout: as they are, or copied."""
        if not to.copied:
            return x
        n, h, w, c = shape
        if (x, to) in self._laid_out:
            return self._laid_out[x, to]
        place = self._room(n * to.height * to.width * to.pitch)
        if self._do is self.forward:  # these stay; gradients give way to others
            self._laid_out[x, to] = place
        numbers = record(to)
        self._step(
            packing.lay_out_rows, (self._f, self._f, 0, 0, 0, numbers),
            n * to.height, x, place, number(h), number(w), number(c), self._numbers(numbers),
        )  # fmt: skip
        return place

    def _softmax(self, x: Place) -> None:
        (classes,) = output_of(self.plans.layers[-1])
        numbers = record(steps.Rows(self.n, classes, self.batch))
        samples, y = (self._f, self._f, numbers), Place(program.OUTPUT, 0)
        last = self._numbers(numbers)
        self._step(steps.softmax_rows, samples, self.n, x, y, last)

    # --- loss -------------------------------------------------------------------------------------

    def _loss_of(self, x: Place, dy: Place, ends: str) -> None:
        (classes,) = output_of(self.plans.layers[-1])
        numbers = record(steps.Rows(self.n, classes, self.batch))
        f, total = self._f, np.zeros(1)
        function: Any = steps.loss_rows if ends == "labels" else steps.soft_loss_rows
        wanted = np.zeros(1, np.int64) if ends == "labels" else f
        targets, weights = Place(program.TARGETS, 0), Place(program.WEIGHTS, 0)
        places = x, targets, weights, dy, self.totals, self._numbers(numbers)
        self._step(function, (f, wanted, f, f, total, numbers), self.n, *places)

    # --- backward ---------------------------------------------------------------------------------

    def _backward(
        self, i: int, layer: Layer, x: Place, y: Place, dy: Place, to: Place | None, needs_dx: bool
    ) -> Place:
        """Steps of one layer; where the gradient of its input lies."""
        layers = self.plans.layers
        if isinstance(layer, Flatten):
            if to is None:
                return dy
            count = self.n * prod(output_of(layer))  # the row of layers begins with it
            self._step(steps.copy, (self._f, self._f), count, dy, to)
            return to
        if is_relu(layer) and i not in self._masked:
            masked = to if isinstance(layer, ReLU) else None
            if i in self._summed_later:
                masked = self._kept_array("dy", i, self.n * prod(output_of(layer)))
            dy = self._mask(self.n * prod(output_of(layer)), dy, y, masked)
        before = layers[i - 1] if i > self.plans.first else None
        if POOLS.get(type(layer)) == "max" and getattr(before, "activation", None) == "relu":
            # The largest of a window is above zero, or no number of it is: fewer to look at.
            self._masked.add(i - 1)
            dy = self._mask(self.n * prod(output_of(layer)), dy, y, None)
        dx = to or self._other(dy)
        if isinstance(layer, CONVOLUTIONS):
            g = self.plans.convolution(layer, self.n)
            if i not in self._summed:
                self._sum_bias(layer, self.n * g.oh * g.ow, g.oc, dy)
            if self.plans.trains(layer):
                layout, plan = direct.filter_sum_plan(g, self.itemsize)
                x = self._lay_out(x, layout, g.input_shape)
                w = self._gradient(layer, "w")
                self._contract(plan, x, dy, constant(self.plans.zeros), w)
            if needs_dx:
                self._conv_input(i, layer, g, dy, dx)
            return dx
        if isinstance(layer, Dense):
            inputs, outputs = self.plans.of(layer)["w"].shape
            if i in self._summed_later:
                self.over_batch[i] = x, dy
            elif self.plans.trains(layer):
                self._dense_gradients(layer, x, dy)
            if needs_dx:
                plan, width = dense_input_plan(self.n, inputs, outputs, self.itemsize)
                w = self._parameter(layer, "w")
                if width:
                    w = self._turned(i, width, -(-inputs // width) * outputs * width)
                self._contract(plan, dy, w, constant(self.plans.zeros), dx)
            return dx
        if isinstance(layer, ReLU):
            return dy
        if needs_dx:
            self._pool_input(layer, x, dy, dx)
        return dx

    def _unpooled(self, stage: range, y: Place, places: Place, dy: Place) -> Place:
        """The gradient before a stage's pooling, and before its ReLU.

        And the bias's, the sum of all: nothing is lost on the way back through the pooling.
        """
        layers = self.plans.layers
        layer, pool = layers[stage.start], layers[stage[-1]]
        count = self.n * prod(output_of(pool))
        if any(is_relu(layers[i]) for i in stage):  # while it is small, as in _backward
            dy = self._mask(count, dy, y, None)
        channels = output_of(pool)[-1]
        self._sum_bias(layer, count // channels, channels, dy)
        self._masked.add(stage.start)
        self._summed.add(stage.start)
        g, dx = pooling_of(pool, self.n), self._other(dy)
        function, items = pooling.argmax_gradient_kernel(g, self.itemsize)
        numbers, f = record(g), self._f
        last = self._numbers(numbers)
        self._step(function, (f, f, f, numbers), items, dy, places, dx, last)
        return dx

    def _mask(self, count: int, dy: Place, y: Place, to: Place | None) -> Place:
        """ReLU's gradient, from its output; where it is, or ``to`` another place."""
        if to is None:
            self._step(steps.mask, (self._f, self._f), count, y, dy)
            return dy
        samples = self._f, self._f, self._f
        self._step(activations.relu_gradient_kernel, samples, count, dy, y, to)
        return to

    def _pool_input(self, layer: Layer, x: Place, dy: Place, dx: Place) -> None:
        g, kind = pooling_of(layer, self.n), POOLS[type(layer)]
        function, items = pooling.gradient_kernel(kind, g, self.itemsize)
        numbers, f = record(g), self._f
        last = self._numbers(numbers)
        if kind == "average":
            self._step(function, (f, f, numbers), items, dy, dx, last)
        else:
            self._step(function, (f, f, f, numbers), items, dy, x, dx, last)

    def _conv_input(self, i: int, layer: Layer, g: ConvGeometry, dy: Place, dx: Place) -> None:
        plan = direct.input_gradient_plan(g, self.itemsize)
        laid_out = self._lay_out(dy, plan.to, g.output_shape)
        w = self._parameter(layer, "w")
        if width := plan.turned_width:
            blocks = g.groups * -(-g.group_ic // width)
            w = self._turned(i, width, blocks * g.kh * g.kw * g.group_oc * width)
        if plan.untouched:
            count = prod(g.input_shape)
            self._step(steps.zero, (self._f, self._f), count, dy, dx)
        for phase in plan.phases:
            self._contract(phase, laid_out, w, constant(self.plans.zeros), dx)

    def _turned(self, i: int, width: int, count: int) -> Place:
        size = -(-count * self.itemsize // CACHE_LINE) * CACHE_LINE
        return Place(program.SHARED, self.shared.turn(i, width, size))


class OverBatch(Steps):
    """Gradients of dense layers, summed over the whole batch after all slices are done.

    One pass instead of one for each slice and one over their sums. With it and with fuller slices a
    training step of the article's net on 32 images takes 335 µs instead of 375 (one thread).
    """

    def __init__(
        self, plans: Plans, batch: int, layers: dict[int, tuple[Place, Place]],
        origins: dict[int, int],
    ) -> None:  # fmt: skip
        super().__init__(plans, batch, batch)
        for i, (x, dy) in layers.items():
            self._dense_gradients(plans.layers[i], _whole(x, origins), _whole(dy, origins))
        self.steps = [part for step in self._do for part in program.parts(step, _PARTS)]


def _whole(place: Place, origins: dict[int, int]) -> Place:
    """An array of the batch as all of it, where no slice is."""
    return Place(program.SHARED, origins[place.base]) if place.base in origins else place


def with_pooling(layers: Sequence[Layer], i: int) -> int:
    """The end of those that can be done with convolution ``i``: its ReLU and max-pooling.

    ``i + 1`` where it is none, or no such pooling follows on it.
    """
    last = i + 1
    while last < len(layers) and type(layers[last]) is ReLU:
        last += 1
    pools = type(layers[i]) in CONVOLUTIONS and last < len(layers)
    return last + 1 if pools and type(layers[last]) is MaxPool2D else i + 1


def pools_squares(g: PoolGeometry) -> bool:
    """Whether it is pooling over 2×2 pixels, each in one window, without padding."""
    return (g.kh, g.kw, g.stride_h, g.stride_w) == (2, 2, 2, 2) and not any(g[-4:])


def pooling_of(layer: Any, n: int) -> PoolGeometry:
    """The geometry of a pooling of n images."""
    shape = n, *input_of(layer)
    if isinstance(layer, GlobalMaxPool2D | GlobalAvgPool2D):
        return pool_geometry(shape, shape[1:3])
    return pool_geometry(shape, layer.pool_size, stride=layer.strides, padding=layer.padding)


def makes(layer: Layer) -> bool:
    """Whether a layer does anything to numbers."""
    return not isinstance(layer, Flatten)


def input_of(layer: Layer) -> tuple[int, ...]:
    """The shape of what a built layer takes."""
    assert layer.input_shape is not None
    return layer.input_shape


def output_of(layer: Layer) -> tuple[int, ...]:
    """The shape of what a built layer gives."""
    assert layer.output_shape is not None
    return layer.output_shape


def is_relu(layer: Layer) -> bool:
    """Whether it ends in a ReLU, or is one."""
    return isinstance(layer, ReLU) or getattr(layer, "activation", None) == "relu"


def _with_last(outputs: list[Place | None], last: Place) -> list[Place | None]:
    i = max(i for i, one in enumerate(outputs) if one is not None)
    return [*outputs[:i], last, *outputs[i + 1 :]]
