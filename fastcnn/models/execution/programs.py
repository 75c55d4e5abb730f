"""The programs of a segment, for each size of a batch and each aim.

:class:`Programs` puts the steps of :mod:`fastcnn.models.execution.slices` together for a batch, and
keeps the programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.hardware import L2_BYTES
from fastcnn.engine.numba.contraction import column_sums, packing
from fastcnn.engine.numba.runtime import arrays, program, rehearsal
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import (
    NO_STEPS,
    Operand,
    Program,
    Training,
    fixed_address,
    number,
)
from fastcnn.models.execution.lowering import ConvolutionLowering
from fastcnn.models.execution.segment import Segment
from fastcnn.models.execution.slices import Aim, Batch, OverBatch, Slice
from fastcnn.models.execution.step_list import Shared

# Going forward, a slice's activations take at most so many bytes, if one sample needs no more.
_SLICE_BYTES = L2_BYTES // 4
# Slices of a batch in training, at most, because each has gradients of its own.
_TRAINING_SLICES = 8
# Samples that fill the rows of a register tile; docs/measurements.md, "Eight samples fill a slice".
_TILE_SAMPLES = 8
# So many operations are worth a slice of their own, however few their samples are.
_SLICE_FLOPS = 32_000_000
# At most so many slices run at once going forward.
_MOST_ITEMS = 16
# Scratch of at most so many bytes is kept from call to call.
_MOST_SPARE_BYTES = 4 << 20
# An output of at most so many bytes is copied from memory that is used again.
_MOST_COPIED_BYTES = 16 * 1024
# Multiply-adds that take as long as a number which is read or written.
_NUMBER_WORK = 4
# Programs that are kept; another one removes all of them.
_PROGRAMS = 64
# One step transposes or sums at most so many numbers.
_NUMBERS_OF_STEP = 4096
_NO_WEIGHTS = np.zeros(0)


class Programs:
    """The programs of a segment, which are made when they are first needed."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._programs: dict[Batch, BatchPrograms] = {}

    def of_batch(
        self,
        count: int,
        aim: Aim,
        bytes_in: bool,
        total: int | None = None,
        shards: tuple[int, ...] = (),
    ) -> BatchPrograms:
        """The programs for a batch of so many samples, which are bytes or of the dtype.

        The mean loss is that of ``total`` samples, by default of the batch's own. Each of the
        ``shards``, if there are any, is a slice.
        """
        batch = Batch(count, aim, bytes_in, total or count, shards)
        if rehearsal.active and rehearsal.rehearsing():
            return _programs_of(self._segment, batch)
        result = self._programs.get(batch)  # another thread may forget it now
        if result is None:
            if len(self._programs) >= _PROGRAMS:
                self._programs.clear()
            result = self._programs[batch] = _programs_of(self._segment, batch)
        return result


@dataclass
class BatchPrograms:
    """Programs for one batch size, and memory for their runs.

    Attributes:
        forward: the forward pass; for an aim with a loss, forward and backward pass.
        backward: the backward pass, in the same scratch; None for an aim with a loss.
        output_shape, dtype: shape and dtype of the outputs of the batch.
        transposes: steps that transpose filters, which run before the backward pass.
        after: steps that add up the gradients of several slices.
        training: for an aim with a loss, all steps as :func:`.program.train` takes them.
        constants: arrays that steps name by their addresses.
        ones, ones_address: weights for samples that have none, and their address.
    """

    forward: Program
    backward: Program | None
    output_shape: tuple[int, ...]
    dtype: np.dtype[np.floating]
    constants: list[Array]
    transposes: Array | None = None
    after: Array | None = None
    training: Training | None = None
    ones: Array = field(default_factory=lambda: _NO_WEIGHTS)
    ones_address: int = 0
    _spare: list[Scratch] = field(default_factory=list)

    def scratch(self) -> Scratch:
        """Memory for one run, which no other run uses."""
        try:
            return self._spare.pop()
        except IndexError:
            return Scratch(self.forward, self.output_shape, self.dtype)

    def give_back(self, scratch: Scratch) -> None:
        """Keep the memory for the next run, unless it is large."""
        if scratch.memory.nbytes <= _MOST_SPARE_BYTES:
            self._spare.append(scratch)


class Scratch:
    """Memory of a run.

    Attributes:
        memory, address, numbers: the scratch as bytes, its address, and as float64 numbers.
        bases: room for the bases of operands.
        totals: gets the sum of the losses, and how many samples are right.
        output, output_address: an array for the outputs, if they are small: a copy of it costs
            less than new memory and its address.
    """

    def __init__(
        self, forward: Program, output_shape: tuple[int, ...], dtype: np.dtype[np.floating]
    ) -> None:
        self.bases = program.new_bases(forward)
        self.memory = arrays.allocate((forward.scratch_bytes,), np.uint8)
        self.address = program.address(self.memory)
        self.numbers = self.memory.view(np.float64)
        self.totals = arrays.allocate((2,), np.float64)
        self.output: Array | None = None
        if prod(output_shape) * dtype.itemsize <= _MOST_COPIED_BYTES:
            self.output = arrays.allocate(output_shape, dtype)
            self.output_address = program.address(self.output)


def _programs_of(segment: Segment, batch: Batch) -> BatchPrograms:
    count, shared = batch.size, Shared()
    flops = segment.flops * count * (3 if batch.trains else 1)
    ends = count * (segment.inputs + segment.outputs)
    size = batch.shards[0] if batch.shards else _slice_size(segment, batch, flops)
    slices = len(batch.shards) or -(-count // size)
    rest_size = batch.shards[-1] if batch.shards else count - (slices - 1) * size
    rests = batch.shards.count(rest_size) if rest_size < size and batch.shards else 1
    whole, rest = (Slice(segment, n, shared, batch, is_only=slices == 1) for n in (size, rest_size))
    transposes = _transposes(segment, shared)
    origins, shared_bytes = shared.origins(count)

    def program_of(first: list[Array], last: list[Array], work: int) -> Program:
        return program.make_program(
            first,
            last,
            size=size,
            slices=slices,
            items=slices if batch.trains else min(slices, _MOST_ITEMS),
            shared=shared_bytes,
            workspace=whole.size,
            per_sample=_bytes_per_sample(segment, batch) | dict(shared.arrays.values()),
            origins=origins,
            work=max(work // 4, _NUMBER_WORK * ends),
            rests=rests,
            rest_size=rest_size,
        )

    before = [] if slices > 1 else transposes  # a single slice transposes the filters itself
    if batch.has_loss:
        steps_of = [[*before, *one.forward, *one.loss, *one.backward] for one in (whole, rest)]
        forward, backward = program_of(steps_of[0], steps_of[1], flops), None
    else:
        forward = program_of(whole.forward, rest.forward, flops // 3 if batch.trains else flops)
        backward = None
        if whole.backward:
            back = before + whole.backward, before + rest.backward
            backward = program_of(*back, 2 * flops // 3)
    constants, output_shape = whole.constants + rest.constants, (count, *segment.output_shape)
    result = BatchPrograms(forward, backward, output_shape, segment.dtype, constants)
    if transposes and slices > 1:
        result.transposes = np.concatenate(transposes)
    if segment.gradient.size and batch.trains and slices > 1:
        over_batch = OverBatch(segment, count, whole.over_batch, origins)
        sums, numbers = _sums_of_slabs(segment, forward, whole, slices)
        result.constants += over_batch.constants + numbers
        result.after = np.concatenate([*over_batch.steps, *sums])
    if batch.has_loss:
        result.training = _training(segment, count, result, whole, slices)
        result.ones = arrays.allocate((count,), segment.dtype)
        result.ones[...] = 1
        result.ones_address = program.address(result.ones)
    return result


def _slice_size(segment: Segment, batch: Batch, flops: int) -> int:
    """The samples of a slice, which follow from the problem alone."""
    count = batch.size
    slices = max(2, count // _TILE_SAMPLES, flops // _SLICE_FLOPS)
    slices = min(_TRAINING_SLICES, 1 << (slices.bit_length() - 1))  # 2, 4 and 8 threads share alike
    size = -(-count // slices)
    if batch.trains:
        return size
    sample = Slice(segment, 1, Shared(), batch, is_only=True).size
    return -(-size // -(-size // max(1, _SLICE_BYTES // sample)))  # equal parts, and equal work


def _bytes_per_sample(segment: Segment, batch: Batch) -> dict[int, int]:
    """For each base the bytes of a sample."""
    itemsize = segment.dtype.itemsize
    return {
        program.INPUT: segment.inputs * (1 if batch.bytes_in else itemsize),
        program.OUTPUT: segment.outputs * itemsize,
        program.DY: segment.outputs * itemsize,
        program.DX: segment.inputs * itemsize,
        program.TARGETS: 8 if batch.aim == "step" else segment.outputs * itemsize,
        program.WEIGHTS: itemsize,
    }


def _training(
    segment: Segment, count: int, programs: BatchPrograms, whole: Slice, slices: int
) -> Training:
    """A training step in one call."""
    forward = programs.forward
    totals = [
        (forward.shared_bytes + i * whole.size + whole.totals.at) // 8  # in float64 numbers
        for i in range(slices)
    ]
    before, after = (
        NO_STEPS if steps is None else steps for steps in (programs.transposes, programs.after)
    )
    works = 4 * segment.parameters.size, 4 * count * segment.parameters.size
    return program.make_training(before, forward, after, totals, works)


def _sums_of_slabs(
    segment: Segment, forward: Program, whole: Slice, slices: int
) -> tuple[list[Array], list[Array]]:
    """Steps that add up the gradients of all slices, and the arrays that they name.

    Gradients that are summed over the whole batch are left out.
    """
    start, itemsize = program.address(segment.gradient), segment.dtype.itemsize
    pieces = [
        (
            (program.address(array) - start) // itemsize + first,
            min(_NUMBERS_OF_STEP, array.size - first),
        )
        for layer in segment.lowerings
        if layer.i not in whole.over_batch
        for array in layer.gradients.values()
        for first in range(0, array.size, _NUMBERS_OF_STEP)
    ]
    if not pieces:
        return [], []
    first_slab = (forward.shared_bytes + whole.slab.at) // itemsize
    numbers = record(column_sums.Slabs(slices, first_slab, whole.size // itemsize))
    table, like = np.array(pieces, np.int64), np.zeros(1, segment.dtype)
    places = Operand(program.SHARED, 0), fixed_address(segment.gradient), fixed_address(table)
    examples = like, like, table.reshape(-1), numbers
    step = program.step(
        column_sums.sum_slabs, examples, len(pieces), *places, fixed_address(numbers)
    )
    return program.split_step(step, len(pieces)), [table, numbers]


def _transposes(segment: Segment, shared: Shared) -> list[Array]:
    """Steps that transpose the filters of layers, in blocks of the widths that slices asked for."""
    result, like, itemsize = [], np.zeros(1, segment.dtype), segment.dtype.itemsize
    for (i, width), at in sorted(shared.transposed.items()):
        layer = segment.lowerings[i]
        w = layer.parameters["w"]
        taps, ic, oc, groups = 1, *w.shape[-2:], 1
        if isinstance(layer, ConvolutionLowering):
            g = layer.geometry(1)
            taps, groups = g.kh * g.kw, g.groups
        step = program.step(
            packing.transpose_kernel(width, oc // groups, itemsize),
            (like, like, 0, 0, 0, 0, 0), groups * -(-ic // width) * taps,
            fixed_address(w), Operand(program.SHARED, at),
            *map(number, (taps, ic, oc, oc // groups, width)),
        )  # fmt: skip
        result += program.split_step(step, -(-w.size // _NUMBERS_OF_STEP))
    return result
