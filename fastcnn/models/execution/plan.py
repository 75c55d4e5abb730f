"""From layers to the programs that compiled code runs.

:class:`Plans` puts the steps of :mod:`fastcnn.models.execution.slices` together to programs for a
batch, and keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, Literal

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.core.hardware import L2_BYTES
from fastcnn.engine.numba.contraction import packing
from fastcnn.engine.numba.conv import direct
from fastcnn.engine.numba.elementwise import steps
from fastcnn.engine.numba.runtime import arrays, program, rehearsal
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import (
    NO_STEPS,
    Place,
    Program,
    Training,
    constant,
    number,
)
from fastcnn.models.execution.slices import (
    CONVOLUTIONS,
    OverBatch,
    Shared,
    Slice,
    input_of,
    output_of,
)
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Dense, Layer

# Going forward, a slice's activations take no more than this, if those of one sample do not.
_WORKSPACE = L2_BYTES // 4
# Slices of a batch, at most (in training each has gradients of its own), and the samples in one
# that fill the rows of a register tile: eight of LeNet-5 take 10 % less time each than four.
_SLABS, _FILLING = 8, 8
# Operations that are worth a slice of their own with however few samples.
_WORTH = 32_000_000
# Dense layers whose gradients are summed over the whole batch, at most: each keeps two arrays.
_OVER_BATCH = (program.BASES - program.KEPT) // 2
# Slices going forward that can run at once, at most.
_ITEMS = 16
# Bytes of scratch that are kept from call to call.
_SPARE = 4 << 20
# Bytes of an output that is copied rather than new.
_COPIED = 16 * 1024
# Batch sizes that are remembered.
_PROGRAMS = 64
# Numbers that are turned in one item of work.
_TURNED = 4096
_NONE = np.zeros(0)
# What stands in the place of the targets, for the purposes that take some.
_ENDS: dict[str, Literal["labels", "probabilities"]] = {
    "step": "labels",
    "soft step": "probabilities",
}


class Plans:
    """Programs for a row of built layers, by the batch's size and what is asked of them.

    Attributes:
        layers: the layers.
        first: the first of them that trains, or 0 where ``needs_dx``: no gradient goes beyond it.
        needs_dx: whether the gradient of the row's input is wanted.
        padded: the filters that meet images between zeros, flat.
        of: a layer's parameters by name, see :meth:`Weights.of`.
        trains: whether training moves a layer's parameters.
        part, parameters, gradient: where what trains lies among all parameters, and that part.
        over_batch: dense layers whose gradients are summed over all slices at once.
    """

    def __init__(self, layers: Sequence[Layer], weights: Weights, needs_dx: bool) -> None:
        parameters = weights.parameters
        self.layers, self.dtype, self.needs_dx = layers, parameters.dtype, needs_dx
        self.input_shape = input_of(layers[0])
        self._start, self.of = parameters.ctypes.data, weights.of
        self._trained = {id(one) for one in layers if weights.trained(one)}
        first = next((i for i, one in enumerate(layers) if self.trains(one)), len(layers))
        self.first = 0 if needs_dx else first
        channels = [s[-1] for one in layers for s in (input_of(one), output_of(one))]
        self.zeros = arrays.allocate((max(channels),), self.dtype)
        self.zeros[...] = 0
        self._made: dict[tuple[int, str, bool], Made] = {}
        trained = [one for one in layers if self.trains(one)]
        offsets = [self.offset(one, name) for one in trained for name in self.of(one)]
        ends = [
            self.offset(one, name) + array.nbytes
            for one in trained
            for name, array in self.of(one).items()
        ]
        self.part = slice(
            min(offsets, default=0) // parameters.itemsize,
            max(ends, default=0) // parameters.itemsize,
        )
        self.parameters, self.gradient = parameters[self.part], weights.gradient[self.part]
        dense = [i for i, one in enumerate(layers) if isinstance(one, Dense) and self.trains(one)]
        self.over_batch = frozenset(dense[:_OVER_BATCH])
        self.padded = [
            self.of(one)["w"].reshape(-1)
            for one in layers
            if isinstance(one, CONVOLUTIONS) and direct.has_padding(self.convolution(one, 1))
        ]

    def trains(self, layer: Layer) -> bool:
        """Whether training moves the parameters of a layer."""
        return id(layer) in self._trained

    def offset(self, layer: Layer, name: str) -> int:
        """Bytes from the start of all parameters to one."""
        return self.of(layer)[name].ctypes.data - self._start

    def convolution(self, layer: Any, n: int) -> ConvGeometry:
        """The geometry of a convolution of n images."""
        g: ConvGeometry = layer.geometry(layer.input_shape, n)
        return g

    def made(self, count: int, purpose: str, bytes_in: bool) -> Made:
        """The programs for a batch of so many samples.

        ``purpose`` is "predict"; "softmax", the same with softmax at the end; "train", forward and
        backward apart; or "step": forward, softmax cross-entropy of class numbers and backward at
        once, "soft step" the same with rows of probabilities.
        """
        key = count, purpose, bytes_in
        if rehearsal.active and rehearsal.rehearsing():
            return self._make(*key)
        made = self._made.get(key)  # another thread may forget it now
        if made is None:
            if len(self._made) >= _PROGRAMS:
                self._made.clear()
            made = self._made[key] = self._make(*key)
        return made

    def _make(self, count: int, purpose: str, bytes_in: bool) -> Made:
        ends = _ENDS.get(purpose)
        training, shared = purpose == "train" or ends is not None, Shared()
        flops = sum(one.flops(one.input_shape) for one in self.layers if one.input_shape)
        flops *= count * (3 if training else 1)
        pieces = max(2, count // _FILLING, flops // _WORTH)
        pieces = min(_SLABS, 1 << (pieces.bit_length() - 1))  # as many for each of 2, 4, 8 threads
        size = -(-count // pieces)

        def of(n: int) -> Slice:
            return Slice(
                self, n, shared, training=training, ends=ends,
                softmax=purpose == "softmax", slab=size < count, batch=count, bytes_in=bytes_in,
            )  # fmt: skip

        if not training:  # cut in equal parts, so that threads get equal work
            size = -(-size // -(-size // max(1, _WORKSPACE // of(1).size)))
        slices = -(-count // size)
        whole, rest = of(size), of(count - (slices - 1) * size)
        turns = [
            part
            for (i, width), at in sorted(shared.turned.items())
            for part in self._turn(i, width, at)
        ]
        inputs, outputs = prod(self.input_shape), prod(output_of(self.layers[-1]))
        itemsize = self.dtype.itemsize
        origins, total = shared.origins(count)

        def program_of(a: list[Array], b: list[Array], part: float) -> Program:
            return program.program(
                a,
                b,
                size=size,
                slices=slices,
                items=slices if training else min(slices, _ITEMS),
                shared=total,
                workspace=whole.size,
                per_sample={
                    program.INPUT: inputs * (1 if bytes_in else itemsize),
                    program.OUTPUT: outputs * itemsize,
                    program.DY: outputs * itemsize,
                    program.DX: inputs * itemsize,
                    program.TARGETS: 8 if ends == "labels" else outputs * itemsize,
                    program.WEIGHTS: itemsize,
                    **dict(shared.kept.values()),
                },
                origins=origins,
                work=int(flops * part) // 4,
            )

        before = [] if slices > 1 else turns  # one slice alone turns them on its way
        forward, back = (whole.forward, rest.forward), (whole.backward, rest.backward)
        if ends:
            a, b = ([*before, *one.forward, *one.loss, *one.backward] for one in (whole, rest))
            first, second = program_of(a, b, 1), None
        else:
            first = program_of(*forward, 1 / 3 if training else 1)
            second = program_of(before + back[0], before + back[1], 2 / 3) if back[0] else None
        apart = np.concatenate(turns) if turns and slices > 1 else None
        output = (count, *output_of(self.layers[-1])), self.dtype
        made = Made(first, second, apart, slices, whole, rest, output)
        if self.gradient.size and training and slices > 1:
            made.after = self._after(made, OverBatch(self, count, whole.over_batch, origins))
        if ends:
            made.training = self._training(made, count)
            made.ones = arrays.allocate((count,), self.dtype)
            made.ones[...] = 1
            made.ones_address = program.address(made.ones)
        return made

    def _training(self, made: Made, count: int) -> Training:
        turns, after = (NO_STEPS if one is None else one for one in (made.turns, made.after))
        works = 4 * self.parameters.size, 4 * count * self.parameters.size
        return program.training(turns, made.forward, after, made.totals, works)

    def _after(self, made: Made, over: OverBatch) -> Array:
        """The steps after all slices: their gradients are added up, others taken at once."""
        pieces = [
            (place + first - self.part.start, min(_TURNED, array.size - first))
            for i, layer in enumerate(self.layers)
            if i not in self.over_batch and self.trains(layer)
            for name, array in self.of(layer).items()
            for place in (self.offset(layer, name) // array.itemsize,)
            for first in range(0, array.size, _TURNED)
        ]
        table, numbers = np.array(pieces, np.int64), record(steps.Slabs(made.slices, *made.slabs))
        over.kept += [table, numbers]
        made.kept += over.kept
        added = []
        if pieces:
            f = np.zeros(1, self.dtype)
            at = Place(program.SHARED, 0), constant(self.gradient), constant(table)
            samples = f, f, table.reshape(-1), numbers
            one = program.step(steps.sum_slabs, samples, len(pieces), *at, constant(numbers))
            added = program.parts(one, len(pieces))
        return np.concatenate([*over.steps, *added])

    def _turn(self, i: int, width: int, at: int) -> list[Array]:
        """Steps that turn a layer's filters."""
        layer, f = self.layers[i], np.zeros(1, self.dtype)
        w = self.of(layer)["w"]
        taps, ic, oc, groups = 1, *w.shape[-2:], 1
        if isinstance(layer, CONVOLUTIONS):
            g = self.convolution(layer, 1)
            taps, groups = g.kh * g.kw, g.groups
        blocks = groups * -(-ic // width) * taps
        one = program.step(
            packing.turn_kernel(width, oc // groups, self.dtype.itemsize),
            (f, f, 0, 0, 0, 0, 0), blocks,
            constant(w), Place(program.SHARED, at),
            *map(number, (taps, ic, oc, oc // groups, width)),
        )  # fmt: skip
        return program.parts(one, -(-w.size // _TURNED))


class Made:
    """Programs for one batch size.

    Attributes:
        forward: with a purpose that has a loss all of it.
        backward: what follows on it, in the same scratch.
        turns: steps that turn filters, to be run before the way back.
        after: steps after it, where there are several slices; all their gradients become one.
        kept: arrays that steps name by their addresses.
        slices: how many slices there are.
        totals: where each slice's totals begin in scratch, in float64 numbers.
        slabs: where the slices' gradients begin in scratch, and how far they lie apart, in
            numbers of the parameters' dtype.
        training: with a purpose that has a loss, all of that as one call takes it.
        ones, ones_address: the weights of samples that were given none, and where they lie.
    """

    def __init__(
        self,
        forward: Program,
        backward: Program | None,
        turns: Array | None,
        slices: int,
        whole: Slice,
        rest: Slice,
        output: tuple[tuple[int, ...], np.dtype[Any]],
    ) -> None:
        self.forward, self.backward, self.turns, self.slices = forward, backward, turns, slices
        shared, workspace, size = forward.shared, whole.size, whole.itemsize
        self.totals = [(shared + i * workspace + whole.totals.at) // 8 for i in range(slices)]
        self.slabs = (shared + whole.slab.at) // size, workspace // size
        self.after: Array | None = None
        self.training: Training | None = None
        self.kept = [*whole.kept, *rest.kept]
        self.ones, self.ones_address = _NONE, 0
        self._output = output
        self._spare: list[Scratch] = []

    def scratch(self) -> Scratch:
        """Memory for one run, which nobody else uses."""
        try:
            return self._spare.pop()
        except IndexError:
            return Scratch(self.forward, self._output)

    def give_back(self, scratch: Scratch) -> None:
        """Keep the memory for the next run; large ones go back to where all memory comes from."""
        if scratch.memory.nbytes <= _SPARE:
            self._spare.append(scratch)


class Scratch:
    """Memory of a run: as bytes, and as float64 numbers; room for its bases and for what it finds.

    And for its ``output``, where that is small: to copy it takes half as long as to ask for new
    memory and where it lies.
    """

    def __init__(self, made: Program, output: tuple[tuple[int, ...], np.dtype[Any]]) -> None:
        self.places = program.places_for(made)
        self.memory = arrays.allocate((made.scratch,), np.uint8)
        self.address = program.address(self.memory)
        self.numbers = self.memory.view(np.float64)
        self.found = arrays.allocate((2,), np.float64)
        shape, dtype = output
        self.output = None
        if prod(shape) * dtype.itemsize <= _COPIED:
            self.output = arrays.allocate(shape, dtype)
            self.output_address = program.address(self.output)
