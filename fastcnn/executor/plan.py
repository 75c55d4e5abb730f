"""From layers to the programs that compiled code runs.

:class:`Slice` plans a row of layers for so many samples: each layer gets a place for its output in
the slice's workspace, and steps forward and backward. :class:`Plans` puts slices together to
programs for a batch, and keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np

from fastcnn.arguments import Array
from fastcnn.geometry import ConvGeometry, PoolGeometry, pool_geometry
from fastcnn.kernels import activations, arrays, direct, packing, pooling, program, steps
from fastcnn.kernels.arrays import record
from fastcnn.kernels.contraction import Plan
from fastcnn.kernels.dense import dense_input_plan, dense_plan, dense_weight_plan
from fastcnn.kernels.packing import Layout
from fastcnn.kernels.program import Place, Program, constant, number
from fastcnn.layers import (
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
from fastcnn.weights import Weights

POOLS = {
    MaxPool2D: "max",
    GlobalMaxPool2D: "max",
    MinPool2D: "min",
    AvgPool2D: "average",
    GlobalAvgPool2D: "average",
}
CONVOLUTIONS = (Conv2D, DepthwiseConv2D)

# Going forward, a slice's activations take no more than this, if those of one sample do not.
_WORKSPACE = 256 * 1024
# Slices of a batch in training, at most: each has gradients of its own.
_SLABS = 8
# Slices going forward that can run at once, at most.
_ITEMS = 16
_LINE = 64
# Bytes of scratch that are kept from call to call.
_SPARE = 1 << 20
# Batch sizes that are remembered.
_PROGRAMS = 64
# Numbers that are turned in one item of work.
_TURNED = 4096


class Turned:
    """Where the turned filters of one batch lie, for all its slices.

    Attributes:
        places: for each layer's number and the width of its blocks, the first byte.
        size: bytes of all of them.
    """

    def __init__(self) -> None:
        self.places: dict[tuple[int, int], int] = {}
        self.size = 0


class Slice:
    """Steps for ``n`` samples.

    Attributes:
        forward, loss, backward: the steps. The last layer's output is at OUTPUT, with ``softmax``
            its softmax; with ``ends`` in the workspace, where ``loss`` takes it from.
        size: bytes of the workspace.
        totals, slab: where the loss goes, and the gradient of all parameters: in the workspace
            with ``slab``, else at once to where all gradients lie.
        turned: where filters lie that are turned; slices of one batch have it in common.
        kept: arrays that steps name by their addresses.
    """

    def __init__(
        self,
        plans: Plans,
        n: int,
        turned: Turned,
        *,
        training: bool,
        ends: bool,
        softmax: bool,
        slab: bool,
        batch: int,
        bytes_in: bool,
    ) -> None:
        self.plans, self.n, self.dtype, self.turned = plans, n, plans.dtype, turned
        self.itemsize, self.size, self.batch = plans.dtype.itemsize, 0, batch
        self.forward: list[Array] = []
        self.loss: list[Array] = []
        self.backward: list[Array] = []
        self.kept: list[Array] = []
        self._do = self.forward
        self._laid_out: dict[tuple[Place, Layout], Place] = {}
        # First, so that they lie alike in each slice.
        self.totals = self._room(_LINE // self.itemsize)
        if training and slab:
            self.slab = self._room(plans.part.stop - plans.part.start)
        else:
            self.slab = constant(plans.gradient)
        layers = plans.layers
        at = Place(program.INPUT, 0)
        if bytes_in:
            count = n * prod(plans.input_shape)
            given, at = at, self._room(count)
            bytes_like = np.zeros(1, np.uint8)
            self._step(program.TWO, steps.scale_bytes, (bytes_like, self._f), count, given, at)
        outputs = [self._room(n * prod(_output(one))) if _makes(one) else None for one in layers]
        if not ends and not softmax:
            outputs = _with_last(outputs, Place(program.OUTPUT, 0))
        saved = []
        for layer, to in zip(layers, outputs, strict=True):
            x = at
            if to is not None:
                self._forward(layer, at, to)
                at = to
            saved.append((x, at))
        if softmax:
            self._softmax(at)
        if not training:
            return
        dy = Place(program.DY, 0)
        if ends:
            self._do, dy = self.loss, self._room(n * prod(_output(layers[-1])))
            self._loss_of(at, dy)
        self._do = self.backward
        sizes = [n * prod(_output(one)) for one in layers]
        self._free = [self._room(max(sizes)), self._room(max(sizes))]
        for i in range(len(layers) - 1, plans.first - 1, -1):
            to = Place(program.DX, 0) if i == plans.first and plans.needs_dx else None
            needs_dx = i > plans.first or plans.needs_dx
            dy = self._backward(i, layers[i], *saved[i], dy, to, needs_dx)

    @property
    def _f(self) -> Array:
        return np.zeros(1, self.dtype)

    def _room(self, count: int) -> Place:
        """A place for so many numbers, at the start of a cache line."""
        at = self.size
        self.size += -(-count * self.itemsize // _LINE) * _LINE
        return Place(program.ITEM, at)

    def _other(self, dy: Place) -> Place:
        """One of the two places for gradients, not that of ``dy``."""
        return self._free[1] if dy == self._free[0] else self._free[0]

    def _step(
        self, form: int, function: Any, samples: tuple[Any, ...], stop: int, *operands: Place
    ) -> None:
        if stop:
            self._do.append(program.step(form, function, samples, stop, *operands))

    def _contract(
        self, plan: Plan, x: Place, w: Place, b: Place, y: Place, relu: bool = False
    ) -> None:
        f = self._f
        self._step(
            program.CONTRACTION, plan.function, (f, f, f, f, True, plan.numbers), plan.items,
            x, w, b, y, number(relu), self._numbers(plan.numbers),
        )  # fmt: skip

    def _numbers(self, numbers: Array) -> Place:
        self.kept.append(numbers)
        return constant(numbers)

    def _parameter(self, layer: Layer, name: str) -> Place:
        return constant(layer.parameters[name])

    def _gradient(self, layer: Layer, name: str) -> Place:
        at = self.plans.offset(layer, name) - self.plans.part.start * self.itemsize
        return Place(self.slab.base, self.slab.at + at)

    def _bias(self, layer: Layer) -> Place:
        if "b" in layer.parameters:
            return self._parameter(layer, "b")
        return constant(self.plans.zeros)

    # --- forward ----------------------------------------------------------------------------------

    def _forward(self, layer: Layer, x: Place, y: Place) -> None:
        """Steps of one layer."""
        if isinstance(layer, CONVOLUTIONS):
            g = self.plans.convolution(layer, self.n)
            to, plan = direct.forward_plan(g, self.itemsize)
            x = self._lay_out(x, to, g.input_shape)
            w, b = self._parameter(layer, "w"), self._bias(layer)
            self._contract(plan, x, w, b, y, layer.activation == "relu")
        elif isinstance(layer, Dense):
            inputs, outputs = layer.parameters["w"].shape
            plan = dense_plan(self.n, inputs, outputs, self.itemsize)
            w, b = self._parameter(layer, "w"), self._bias(layer)
            self._contract(plan, x, w, b, y, layer.activation == "relu")
        elif isinstance(layer, ReLU):
            count = self.n * prod(_output(layer))
            self._step(program.TWO, activations.relu_kernel, (self._f, self._f), count, x, y)
        else:
            g_pool, kind = self.plans.pooling(layer, self.n), POOLS[type(layer)]
            function, items = pooling.forward_kernel(kind, g_pool, self.itemsize)
            numbers = record(g_pool)
            samples = self._f, self._f, numbers
            self._step(program.THREE, function, samples, items, x, y, self._numbers(numbers))

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
            program.LAY_OUT, packing.lay_out_rows, (self._f, self._f, 0, 0, 0, numbers),
            n * to.height, x, place, number(h), number(w), number(c), self._numbers(numbers),
        )  # fmt: skip
        return place

    def _softmax(self, x: Place) -> None:
        (classes,) = _output(self.plans.layers[-1])
        numbers = record(steps.Rows(self.n, classes, self.batch))
        samples, y = (self._f, self._f, numbers), Place(program.OUTPUT, 0)
        last = self._numbers(numbers)
        self._step(program.THREE, steps.softmax_rows, samples, self.n, x, y, last)

    # --- loss -------------------------------------------------------------------------------------

    def _loss_of(self, x: Place, dy: Place) -> None:
        (classes,) = _output(self.plans.layers[-1])
        numbers = record(steps.Rows(self.n, classes, self.batch))
        samples = self._f, np.zeros(1, np.int64), self._f, np.zeros(1, np.float64), numbers
        places = Place(program.TARGETS, 0), dy, self.totals, self._numbers(numbers)
        self._step(program.FIVE, steps.loss_rows, samples, self.n, x, *places)

    # --- backward ---------------------------------------------------------------------------------

    def _backward(
        self, i: int, layer: Layer, x: Place, y: Place, dy: Place, to: Place | None, needs_dx: bool
    ) -> Place:
        """Steps of one layer; where the gradient of its input lies."""
        if isinstance(layer, Flatten):
            if to is None:
                return dy
            count = self.n * prod(_output(layer))  # the row of layers begins with it
            self._step(program.TWO, steps.copy, (self._f, self._f), count, dy, to)
            return to
        if isinstance(layer, ReLU) or getattr(layer, "activation", None) == "relu":
            masked = self._other(dy)
            if isinstance(layer, ReLU) and to is not None:
                masked = to
            count, f = self.n * prod(_output(layer)), self._f
            self._step(
                program.THREE, activations.relu_gradient_kernel, (f, f, f), count, dy, y, masked
            )
            dy = masked
        dx = to or self._other(dy)
        if isinstance(layer, CONVOLUTIONS):
            g = self.plans.convolution(layer, self.n)
            self._sum_bias(layer, self.n * g.oh * g.ow, g.oc, dy)
            layout, plan = direct.filter_sum_plan(g, self.itemsize)
            x = self._lay_out(x, layout, g.input_shape)
            w = self._gradient(layer, "w")
            self._contract(plan, x, dy, constant(self.plans.zeros), w)
            if needs_dx:
                self._conv_input(i, layer, g, dy, dx)
            return dx
        if isinstance(layer, Dense):
            inputs, outputs = layer.parameters["w"].shape
            self._sum_bias(layer, self.n, outputs, dy)
            plan = dense_weight_plan(self.n, inputs, outputs, self.itemsize)
            w = self._gradient(layer, "w")
            self._contract(plan, x, dy, constant(self.plans.zeros), w)
            if needs_dx:
                plan, width = dense_input_plan(self.n, inputs, outputs, self.itemsize)
                turned = self._turned(i, width, -(-inputs // width) * outputs * width)
                self._contract(plan, dy, turned, constant(self.plans.zeros), dx)
            return dx
        if isinstance(layer, ReLU):
            return dy
        if needs_dx:
            self._pool_input(layer, x, dy, dx)
        return dx

    def _pool_input(self, layer: Layer, x: Place, dy: Place, dx: Place) -> None:
        g, kind = self.plans.pooling(layer, self.n), POOLS[type(layer)]
        function, items = pooling.gradient_kernel(kind, g, self.itemsize)
        numbers, f = record(g), self._f
        last = self._numbers(numbers)
        if kind == "average":
            self._step(program.THREE, function, (f, f, numbers), items, dy, dx, last)
        else:
            self._step(program.FOUR, function, (f, f, f, numbers), items, dy, x, dx, last)

    def _sum_bias(self, layer: Layer, rows: int, columns: int, dy: Place) -> None:
        if "b" not in layer.parameters:
            return
        function, items = steps.column_sums_for(columns, self.itemsize)
        numbers = record(steps.Rows(rows, columns, self.batch))
        samples = self._f, self._f, numbers
        to = self._gradient(layer, "b")
        self._step(program.THREE, function, samples, items, dy, to, self._numbers(numbers))

    def _conv_input(self, i: int, layer: Layer, g: ConvGeometry, dy: Place, dx: Place) -> None:
        plan = direct.input_gradient_plan(g, self.itemsize)
        laid_out = self._lay_out(dy, plan.to, g.output_shape)
        w = self._parameter(layer, "w")
        if width := plan.turned_width:
            blocks = g.groups * -(-g.group_ic // width)
            w = self._turned(i, width, blocks * g.kh * g.kw * g.group_oc * width)
        if plan.untouched:
            count = prod(g.input_shape)
            self._step(program.TWO, steps.zero, (self._f, self._f), count, dy, dx)
        for phase in plan.phases:
            self._contract(phase, laid_out, w, constant(self.plans.zeros), dx)

    def _turned(self, i: int, width: int, count: int) -> Place:
        if (i, width) not in self.turned.places:
            self.turned.places[i, width] = self.turned.size
            self.turned.size += -(-count * self.itemsize // _LINE) * _LINE
        return Place(program.SHARED, self.turned.places[i, width])


class Plans:
    """Programs for a row of built layers, by the batch's size and what is asked of them.

    Attributes:
        layers: the layers.
        first: the first of them that has parameters, or 0 where ``needs_dx``: no gradient goes
            beyond it.
        needs_dx: whether the gradient of the row's input is wanted.
        padded: whether images are laid out between zeros.
        part, parameters, gradient: where the row's parameters lie among all, and that part.
        pieces: the parameters of that part, cut into pieces (first, length); between them are gaps.
    """

    def __init__(self, layers: Sequence[Layer], weights: Weights, needs_dx: bool) -> None:
        parameters = weights.parameters
        self.layers, self.dtype, self.needs_dx = layers, parameters.dtype, needs_dx
        self.input_shape = _input(layers[0])
        self._start = parameters.ctypes.data
        first = next((i for i, one in enumerate(layers) if one.parameters), len(layers))
        self.first = 0 if needs_dx else first
        channels = [s[-1] for one in layers for s in (_input(one), _output(one))]
        self.zeros = arrays.allocate((max(channels),), self.dtype)
        self.zeros[...] = 0
        self._made: dict[tuple[int, str, bool], Made] = {}
        offsets = [self.offset(one, name) for one in layers for name in one.parameters]
        ends = [
            self.offset(one, name) + array.nbytes
            for one in layers
            for name, array in one.parameters.items()
        ]
        self.part = slice(
            min(offsets, default=0) // parameters.itemsize,
            max(ends, default=0) // parameters.itemsize,
        )
        self.parameters, self.gradient = parameters[self.part], weights.gradient[self.part]
        self.pieces = self._pieces()
        self.padded = any(
            isinstance(one, CONVOLUTIONS) and direct.has_padding(self.convolution(one, 1))
            for one in layers
        )

    def offset(self, layer: Layer, name: str) -> int:
        """Bytes from the start of all parameters to one."""
        return layer.parameters[name].ctypes.data - self._start

    def convolution(self, layer: Any, n: int) -> ConvGeometry:
        """The geometry of a convolution of n images."""
        g: ConvGeometry = layer.geometry(layer.input_shape, n)
        return g

    def pooling(self, layer: Any, n: int) -> PoolGeometry:
        """The geometry of a pooling of n images."""
        shape = (n, *layer.input_shape)
        if isinstance(layer, GlobalMaxPool2D | GlobalAvgPool2D):
            return pool_geometry(shape, shape[1:3])
        return pool_geometry(shape, layer.pool_size, stride=layer.strides, padding=layer.padding)

    def made(self, count: int, purpose: str, bytes_in: bool) -> Made:
        """The programs for a batch of so many samples.

        ``purpose`` is "predict"; "softmax", the same with softmax at the end; "train", forward and
        backward apart; or "step": forward, softmax cross-entropy and backward at once.
        """
        key = count, purpose, bytes_in
        made = self._made.get(key)  # another thread may forget it now
        if made is None:
            if len(self._made) >= _PROGRAMS:
                self._made.clear()
            made = self._made[key] = self._make(*key)
        return made

    def _make(self, count: int, purpose: str, bytes_in: bool) -> Made:
        size = -(-count // _SLABS)

        training, turned = purpose in ("train", "step"), Turned()

        def of(n: int) -> Slice:
            return Slice(
                self, n, turned, training=training, ends=purpose == "step",
                softmax=purpose == "softmax", slab=size < count, batch=count, bytes_in=bytes_in,
            )  # fmt: skip

        if not training:
            size = max(1, min(size, _WORKSPACE // of(1).size))
        slices = -(-count // size)
        whole, rest = of(size), of(count - (slices - 1) * size)
        turns = [
            part
            for (i, width), at in sorted(turned.places.items())
            for part in self._turn(i, width, at)
        ]
        flops = sum(one.flops(one.input_shape) for one in self.layers if one.input_shape)
        inputs, outputs = prod(self.input_shape), prod(_output(self.layers[-1]))
        itemsize = self.dtype.itemsize

        def program_of(a: list[Array], b: list[Array], times: int) -> Program:
            return program.program(
                a,
                b,
                size=size,
                slices=slices,
                items=slices if training else min(slices, _ITEMS),
                shared=turned.size,
                workspace=whole.size,
                per_sample={
                    program.INPUT: inputs * (1 if bytes_in else itemsize),
                    program.OUTPUT: outputs * itemsize,
                    program.DY: outputs * itemsize,
                    program.DX: inputs * itemsize,
                    program.TARGETS: 8,
                },
                work=flops * count * times // 4,
            )

        before = [] if slices > 1 else turns  # one slice alone turns them on its way
        forward, back = (whole.forward, rest.forward), (whole.backward, rest.backward)
        if purpose == "step":
            a, b = ([*before, *one.forward, *one.loss, *one.backward] for one in (whole, rest))
            first, second = program_of(a, b, 3), None
        else:
            first = program_of(*forward, 1)
            second = program_of(before + back[0], before + back[1], 2) if back[0] else None
        apart = np.concatenate(turns) if turns and slices > 1 else None
        return Made(first, second, apart, slices, whole, rest)

    def _turn(self, i: int, width: int, at: int) -> list[Array]:
        """Steps that turn a layer's filters."""
        layer, f = self.layers[i], np.zeros(1, self.dtype)
        w = layer.parameters["w"]
        taps, ic, oc, groups = 1, *w.shape[-2:], 1
        if isinstance(layer, CONVOLUTIONS):
            g = self.convolution(layer, 1)
            taps, groups = g.kh * g.kw, g.groups
        blocks = groups * -(-ic // width) * taps
        one = program.step(
            program.TURN, packing.turn_kernel(width, oc // groups, self.dtype.itemsize),
            (f, f, 0, 0, 0, 0, 0), blocks,
            constant(w), Place(program.SHARED, at),
            *map(number, (taps, ic, oc, oc // groups, width)),
        )  # fmt: skip
        return program.parts(one, -(-w.size // _TURNED))

    def _pieces(self) -> Array:
        pieces = [
            (place + first - self.part.start, min(_TURNED, array.size - first))
            for layer in self.layers
            for name, array in layer.parameters.items()
            for place in (self.offset(layer, name) // array.itemsize,)
            for first in range(0, array.size, _TURNED)
        ]
        return np.array(pieces, np.int64).reshape(-1, 2)


class Made:
    """Programs for one batch size.

    Attributes:
        forward: with the purpose "step" all of it.
        backward: what follows on it, in the same scratch.
        turns: steps that turn filters, to be run before the way back.
        slices: how many slices there are.
        totals: where each slice's totals begin in scratch, in float64 numbers.
        slabs: where the slices' gradients begin in scratch, and how far they lie apart, in
            numbers of the parameters' dtype.
    """

    def __init__(
        self,
        forward: Program,
        backward: Program | None,
        turns: Array | None,
        slices: int,
        whole: Slice,
        rest: Slice,
    ) -> None:
        self.forward, self.backward, self.turns, self.slices = forward, backward, turns, slices
        shared, workspace, size = forward.shared, whole.size, whole.itemsize
        self.totals = [(shared + i * workspace + whole.totals.at) // 8 for i in range(slices)]
        self.slabs = (shared + whole.slab.at) // size, workspace // size
        self._dtype, self._kept = whole.dtype, (whole.kept, rest.kept)
        self._spare: list[Scratch] = []

    def scratch(self) -> Scratch:
        """Memory for one run, which nobody else uses."""
        with suppress(IndexError):
            return self._spare.pop()
        return Scratch(self.forward.scratch, self._dtype)

    def give_back(self, scratch: Scratch) -> None:
        """Keep the memory for the next run; large ones go back to where all memory comes from."""
        if scratch.memory.nbytes <= _SPARE:
            self._spare.append(scratch)


class Scratch:
    """Memory of a run: as bytes, as float64 numbers, and in the parameters' dtype."""

    def __init__(self, size: int, dtype: np.dtype[Any]) -> None:
        self.memory = arrays.allocate((size,), np.uint8)
        self.address = program.address(self.memory)
        self.numbers, self.parameters = self.memory.view(np.float64), self.memory.view(dtype)


def _makes(layer: Layer) -> bool:
    return not isinstance(layer, Flatten)


def _input(layer: Layer) -> tuple[int, ...]:
    assert layer.input_shape is not None
    return layer.input_shape


def _output(layer: Layer) -> tuple[int, ...]:
    assert layer.output_shape is not None
    return layer.output_shape


def _with_last(outputs: list[Place | None], last: Place) -> list[Place | None]:
    i = max(i for i, one in enumerate(outputs) if one is not None)
    return [*outputs[:i], last, *outputs[i + 1 :]]
