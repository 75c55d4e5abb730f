"""``Prediction``: a graph that is lowered once to programs that predict.

Layers are fused (:mod:`.fusion`). Fused layers that follow on each other and have steps
(:mod:`.prediction_steps`) become a section: one compiled call runs all of it, step by step, and the
threads share each step. Values between the steps share the memory of one arena. A layer without
steps runs by its own ``forward`` between two sections.

Some steps mark samples with results that are not finite, because only the operations themselves
treat infinity and NaN as the specification does. If one sample is marked, :meth:`Prediction.run`
returns None, and the layers run one by one for the whole batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.settings import get_math, get_num_threads, use_math
from fastcnn.engine.numba.elementwise import activations, steps
from fastcnn.engine.numba.runtime import arrays, rehearsal
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand, address
from fastcnn.engine.numba.runtime.turns import ARENA, EDGES, NUMBERS, PREPARED, Turns, take_turns
from fastcnn.models.execution.fusion import Fused, fuse
from fastcnn.models.execution.lone import checked_result
from fastcnn.models.execution.moving_steps import POOLINGS, axis_of
from fastcnn.models.execution.prediction_list import PredictionList
from fastcnn.models.execution.prediction_steps import (
    STEPS,
    can_pool,
    can_spread,
    overwritable_inputs,
    pitch_of_input,
    reason,
    serves,
)
from fastcnn.models.execution.prepared import Prepared
from fastcnn.models.expansion import expand
from fastcnn.models.graph import Graph
from fastcnn.models.inputs import batch
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Concatenate, MaxPool2D, Shape, input_of_call

# Programs of a section that are kept; another one removes all of them.
_PROGRAMS = 64
# An arena has about so many bytes at most, if one sample does not need more. Larger batches run in
# parts.
_ARENA = 32 << 20


class Section(NamedTuple):
    """Fused layers that run as one program, or a single layer that runs by its ``forward``.

    Attributes:
        layers: the fused layers.
        compiled: whether they have steps.
        inputs: values that come from outside.
        outputs: values that something outside takes.
    """

    layers: tuple[Fused, ...]
    compiled: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class _Program:
    """A section's program for one number of samples.

    Attributes:
        turns: its steps.
        constants: arrays that steps name by their addresses.
        arena: bytes of its arena.
        suspects: the place in the arena of one byte for each sample, which is 1 where a result is
            not finite; None if no step looks for such results.
    """

    turns: Turns
    constants: list[Array]
    arena: int
    suspects: int | None


class _ProgramKey(NamedTuple):
    """What a program depends on: the section's index, the samples of a run, and how it runs."""

    section: int
    samples: int
    are_bytes: tuple[bool, ...]
    softmax: bool
    threads: int


class Prediction:
    """The programs of a graph; its layers' parameters are parts of ``weights``.

    With ``is_frozen``, training moves none of these parameters.

    Attributes:
        sections: what runs, one after the other.
        only_moves: whether an output has the numbers of an input, so that nothing is computed.
    """

    def __init__(
        self,
        graph: Graph,
        weights: Weights,
        input_shapes: Sequence[Shape],
        *,
        is_frozen: bool = False,
    ) -> None:
        self._weights, self._dtype = weights, weights.parameters.dtype
        expanded = expand(graph, weights.convolutions_of)
        shapes = expanded.infer(input_shapes)

        def has_steps(fused: Fused) -> bool:
            return serves(fused, self._dtype)

        def pools(fused: Fused, _: MaxPool2D) -> bool:
            return can_pool(fused, self._dtype)

        layers, self._outputs = fuse(expanded, shapes, has_steps, pools)
        self._output_shapes = [shapes[value] for value in expanded.outputs]
        self._shapes = {value: shapes[value] for value in range(expanded.inputs)}
        self._shapes |= {fused.output: fused.shape for fused in layers}
        self._math = get_math()
        self.only_moves = min(self._outputs) < expanded.inputs
        self.sections = _sections(layers, self._outputs, self._dtype)
        widest = max(shape[-1] for shape in shapes)
        self._zeros = arrays.allocate((widest,), self._dtype)
        self._zeros[...] = 0
        version = weights.watch.frozen_version if is_frozen else weights.watch.version
        self._prepared = Prepared(self._zeros, version)
        self._programs: dict[_ProgramKey, _Program] = {}

    def explain(self) -> str:
        """The program of one sample: each fused layer, its kernels, what they do, and bytes."""
        with use_math(self._math):
            return "\n".join(line for one in self.sections for line in self._explain_section(one))

    def _explain_section(self, section: Section) -> Iterator[str]:
        if not section.compiled:
            (fused,) = section.layers
            yield f"by its own forward: {fused.layer!r}, an operation of its own"
            return
        to, places = self._list_of_one_sample(section)
        lines: list[str] = []
        for fused, first in self._write(section, to, places):
            lines.append("  " + " + ".join(map(repr, fused.members)))
            if why := reason(fused, self._dtype):
                lines.append(f"    {why}")
            if to.length == first:
                lines.append("    nothing to do, because its inputs were written into its place")
                continue
            lines += [f"    {kernel}" for kernel in to.kernels(first)]
            place = ""
            if fused.output in to.pitches:
                place = " where the concatenation needs it"
            elif fused.output in to.spread:
                place = " with a free cache line after each pixel"
            elif any(places[value] == places[fused.output] for value in fused.inputs):
                place = " over its input"
            lines.append(f"    {self._effects(fused)}{place}")
        turns, arena = to.finish()
        yield (
            f"one program of {len(turns.works)} steps, which the threads share one by one; arena "
            f"{_bytes(arena)} for a sample, and {_bytes(to.prepared.size)} made of the weights once"
        )
        yield from lines

    def _effects(self, fused: Fused) -> str:
        """What a fused layer does in registers, and the bytes that it reads and writes."""
        itemsize = self._dtype.itemsize
        arrays_of_layer = self._weights.of(fused.layer).values()
        parts = (
            [f"in registers: {fused.epilogue}"] if fused.epilogue and len(fused.members) > 1 else []
        )
        weights = sum(array.nbytes for array in arrays_of_layer)
        if weights:
            parts.append(f"weights {_bytes(weights)}")
        read = sum(map(prod, fused.shapes)) + (
            prod(fused.shape) if fused.residual is not None else 0
        )
        parts.append(f"reads {_bytes(read * itemsize)}")
        parts.append(f"writes {_bytes(prod(fused.shape) * itemsize)}")
        return "; ".join(parts)

    def run(self, inputs: Sequence[Array], softmax: bool = False) -> list[Array] | None:
        """The outputs for samples (N, …) of each input, bytes or of the dtype.

        With ``softmax``, the softmax of the single output. None where layers must run one by one,
        because a number of some sample is not finite.
        """
        count = len(inputs[0])
        if not count:
            return [arrays.allocate((0, *shape), self._dtype) for shape in self._output_shapes]
        samples_of_part = min(count, max(1, _ARENA // self._bytes_of_sample)) if count > 1 else 1
        samples_of_part = -(-count // -(-count // samples_of_part))  # equal parts
        values: dict[int, Array] = dict(enumerate(inputs))
        in_program = softmax and self.sections[-1].compiled
        for index, section in enumerate(self.sections):
            last = index == len(self.sections) - 1
            if not section.compiled:
                self._run_forward(section, values)
            elif not self._run_program(
                index, section, values, samples_of_part, in_program and last
            ):
                return None
        results = list[Array]()
        for i, (value, shape) in enumerate(zip(self._outputs, self._output_shapes, strict=True)):
            result = values[value].reshape(count, *shape)
            results.append(result.copy() if value in self._outputs[:i] else result)
        if softmax and not in_program:
            results = [ops.softmax(result) for result in results]
        return results

    @unreported
    def _run_forward(self, section: Section, values: dict[int, Array]) -> None:
        (fused,) = section.layers
        inputs = [
            batch(values[value], self._dtype).reshape(-1, *shape)
            for value, shape in zip(fused.inputs, fused.shapes, strict=True)
        ]
        x = input_of_call(fused.layer, inputs)
        y, _ = fused.layer.forward(x, False, None, None)
        shape = (len(inputs[0]), *fused.shape)
        values[fused.output] = checked_result(fused.layer, "forward", y, shape, self._dtype)

    def _run_program(
        self,
        index: int,
        section: Section,
        values: dict[int, Array],
        part_size: int,
        softmax: bool,
    ) -> bool:
        """Run a section on all samples, ``part_size`` at a time; False if a result is suspect."""
        edge_arrays = [values[value] for value in section.inputs]
        count = len(edge_arrays[0])
        for value in section.outputs:
            values[value] = arrays.allocate((count, *self._shapes[value]), self._dtype)
            edge_arrays.append(values[value])
        are_bytes = tuple(array.itemsize == 1 for array in edge_arrays[: len(section.inputs)])
        bases = arrays.allocate((EDGES + len(edge_arrays),), np.int64)
        bases[NUMBERS], parts = 0, range(0, count, part_size)
        prepared = self._prepared
        if rehearsal.active and rehearsal.rehearsing():  # its entries would stay for ever
            prepared = Prepared(self._zeros, self._weights.watch.version)
        programs = {
            n: self._program(index, section, n, are_bytes, softmax, prepared)
            for n in {min(part_size, count - first) for first in parts}
        }
        version = prepared.newest()  # after all programs have asked for their entries
        if not version.finite:
            return False
        for first in parts:
            n = min(part_size, count - first)
            program = programs[n]
            arena = arrays.allocate((program.arena,), np.uint8)
            bases[ARENA], bases[PREPARED] = address(arena), address(version.memory)
            for i, array in enumerate(edge_arrays):
                bases[EDGES + i] = address(array) + first * (array.nbytes // count)
            take_turns(program.turns, bases)
            at = program.suspects
            if at is not None and b"\1" in arena[at : at + n].tobytes():
                return False
        return True

    def _program(
        self,
        index: int,
        section: Section,
        n: int,
        are_bytes: tuple[bool, ...],
        softmax: bool,
        prepared: Prepared,
    ) -> _Program:
        key = _ProgramKey(index, n, are_bytes, softmax, get_num_threads())
        if prepared is not self._prepared:
            return self._make_program(section, n, are_bytes, softmax, prepared)
        program = self._programs.get(key)
        if program is None:
            if len(self._programs) >= _PROGRAMS * len(self.sections):
                self._programs.clear()
            program = self._make_program(section, n, are_bytes, softmax, prepared)
            self._programs[key] = program
        return program

    def _make_program(
        self,
        section: Section,
        n: int,
        are_bytes: tuple[bool, ...],
        softmax: bool,
        prepared: Prepared,
    ) -> _Program:
        to = PredictionList(n, self._zeros, self._weights, prepared)
        places: dict[int, Operand] = {}
        for i, (value, is_bytes) in enumerate(zip(section.inputs, are_bytes, strict=True)):
            places[value] = Operand(EDGES + i, 0)
            if is_bytes:
                count = n * prod(self._shapes[value])
                pixels, places[value] = places[value], to.room(count)
                kinds = np.zeros(1, np.uint8), to.like
                to.step(steps.scale_bytes, kinds, count, pixels, places[value])
        scores: Operand | None = None
        for i, value in enumerate(section.outputs):
            places[value] = Operand(EDGES + len(section.inputs) + i, 0)
        if softmax:
            last = section.layers[-1]
            scores = places[last.output] = to.room(n * prod(last.shape))
        with use_math(self._math):
            list(self._write(section, to, places))  # runs the generator to its end
        if scores is not None:
            classes = prod(section.layers[-1].shape)  # an image's numbers before a Flatten
            rows = record(activations.SoftmaxRows(n, classes, n))
            examples = to.like, to.like, rows
            end = Operand(EDGES + len(section.inputs), 0)
            to.step(activations.softmax_rows, examples, n, scores, end, to.constant(rows))
        suspects = None
        if to.suspects is not None:
            to.keep(to.suspects)
        program, size = to.finish()
        if to.suspects is not None:
            suspects = to.place_of(to.suspects)
        return _Program(program, to.constants, size, suspects)

    def _write(
        self, section: Section, to: PredictionList, places: dict[int, Operand]
    ) -> Iterator[tuple[Fused, int]]:
        """Add the steps of a section; yields each fused layer and the number of its first step.

        ``places`` has the places of inputs and outputs, and gets the places of all other values.
        """
        concatenated, homes = _concatenated(section), _homes(section)
        spread_pitches = _input_pitches(section, to.n, self._dtype)

        def place_for(fused: Fused) -> Operand:
            home = homes.get(fused.output, fused.output)
            if home not in places:
                pitch = spread_pitches.get(fused.output, fused.shape[-1])
                places[home] = to.room(to.n * prod(fused.shape[:-1]) * pitch)
            return places[home]

        for fused in section.layers:
            first, to.pitch = to.length, 0
            if fused.output in concatenated:
                concatenation, column = concatenated[fused.output]
                base, at = place_for(concatenation)
                place, to.pitch = Operand(base, at + column * to.itemsize), concatenation.shape[-1]
                to.pitches[fused.output] = to.pitch
            else:
                place = place_for(fused)
                if fused.output in spread_pitches:
                    to.pitch = spread_pitches[fused.output]
                    to.spread.add(fused.output)
            places[fused.output] = place
            STEPS[type(fused.layer)](
                fused, [places[value] for value in fused.all_inputs], place, to
            )
            yield fused, first

    def _list_of_one_sample(self, section: Section) -> tuple[PredictionList, dict[int, Operand]]:
        """The list for a program of one sample that never runs, and the places of its ends."""
        prepared = Prepared(self._zeros, self._weights.watch.version)
        edges = dict.fromkeys((*section.inputs, *section.outputs))
        places = {value: Operand(EDGES + i, 0) for i, value in enumerate(edges)}
        return PredictionList(1, self._zeros, self._weights, prepared), places

    @cached_property
    def _bytes_of_sample(self) -> int:
        """Bytes of the arena for one sample, in the section that needs most; at least 1."""
        sizes = [1]
        for section in self.sections:
            if section.compiled:
                to, places = self._list_of_one_sample(section)
                with use_math(self._math):
                    list(self._write(section, to, places))  # runs the generator to its end
                sizes.append(to.arena_bytes())
        return max(sizes)


def _sections(
    layers: list[Fused], outputs: Sequence[int], dtype: np.dtype[np.floating]
) -> list[Section]:
    """The layers as sections."""
    runs: list[tuple[bool, list[Fused]]] = []
    for fused in layers:
        compiled = serves(fused, dtype)
        if compiled and runs and runs[-1][0]:
            runs[-1][1].append(fused)
        else:
            runs.append((compiled, [fused]))
    result = []
    for i, (compiled, run) in enumerate(runs):
        values_inside = {fused.output for fused in run}
        values_taken_later = {
            value for _, after in runs[i + 1 :] for fused in after for value in fused.all_inputs
        }
        values = [value for fused in run for value in fused.all_inputs]
        inputs = dict.fromkeys(value for value in values if value not in values_inside)
        ends = [
            fused.output
            for fused in run
            if fused.output in values_taken_later or fused.output in outputs
        ]
        result.append(Section(tuple(run), compiled, tuple(inputs), tuple(ends)))
    return result


def _homes(section: Section) -> dict[int, int]:
    """For each value that a later value overwrites, the last value at its place.

    A layer writes over an input that the section makes and nothing else takes.
    """
    values_inside = {fused.output for fused in section.layers}
    uses = Counter([value for fused in section.layers for value in fused.all_inputs])
    homes: dict[int, int] = {}
    for fused in reversed(section.layers):
        for index in overwritable_inputs(fused):
            value = fused.inputs[index]
            if value in values_inside and uses[value] == 1 and value not in section.outputs:
                homes[value] = homes.get(fused.output, fused.output)
                break
    return homes


def _concatenated(section: Section) -> dict[int, tuple[Fused, int]]:
    """Values that can be written straight into the result of a concatenation of channels.

    For each such value the concatenation, and the value's first channel in its result.
    """
    makers = {fused.output: fused for fused in section.layers}
    uses = Counter([value for fused in section.layers for value in fused.all_inputs])
    result = {}
    for index, concatenation in enumerate(section.layers):
        if (
            type(concatenation.layer) is not Concatenate
            or axis_of(concatenation) < len(concatenation.shape) - 1
        ):
            continue
        first, layers_before = 0, section.layers[:index]
        for value, shape in zip(concatenation.inputs, concatenation.shapes, strict=True):
            # Poolings before the concatenation may read the value too, because they can read pixels
            # that lie apart. Layers after it may not, because its result may be overwritten.
            readers = sum(
                value in fused.all_inputs
                for fused in layers_before
                if type(fused.layer) in POOLINGS
            )
            is_free = uses[value] == 1 + readers and value not in section.outputs
            maker = makers.get(value)
            # A Flatten between the two would need the numbers of pixels side by side.
            if is_free and maker is not None and maker.shape == shape and can_spread(maker):
                result[value] = concatenation, first
            first += shape[-1]
    return result


def _input_pitches(section: Section, n: int, dtype: np.dtype[np.floating]) -> dict[int, int]:
    """For values that a single convolution takes, how far apart it needs their pixels."""
    spreadable = _spreadable(section)
    return {
        fused.inputs[0]: pitch
        for fused in section.layers
        if spreadable.get(fused.inputs[0]) == fused.shapes[0]
        and (pitch := pitch_of_input(fused, n, dtype))
    }


def _spreadable(section: Section) -> dict[int, Shape]:
    """The shapes of values whose pixels can lie apart, because a single layer takes them.

    A layer that takes them in another shape, behind a Flatten, needs the pixels side by side.
    """
    uses = Counter([value for fused in section.layers for value in fused.all_inputs])
    return {
        fused.output: fused.shape
        for fused in section.layers
        if can_spread(fused) and uses[fused.output] == 1 and fused.output not in section.outputs
    }


def _bytes(count: int) -> str:
    """A number of bytes for readers.

    >>> _bytes(3 << 20), _bytes(1500), _bytes(40)
    ('3.0 MiB', '1.5 KiB', '40 bytes')
    """
    if count < 100:
        return f"{count} bytes"
    return f"{count / 2**20:.1f} MiB" if count >= 1 << 20 else f"{count / 2**10:.1f} KiB"
