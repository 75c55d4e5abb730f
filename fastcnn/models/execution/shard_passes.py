"""Shards of a batch through the units of an executor; see :mod:`fastcnn.models.shard_layers`.

All shards of a process go through a unit at once, because the results of a sample do not depend on
the batch around it. What does depend on it is taken by shards: sums of gradients, statistics of a
batch normalisation, and random numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import Divergence
from fastcnn.core.halving import parts_of_shards, sum_by_halves
from fastcnn.engine.numba.elementwise.merging import sum_of
from fastcnn.engine.numba.runtime import arrays
from fastcnn.models import shared_norms
from fastcnn.models.execution.compiled import CompiledSegment
from fastcnn.models.execution.lone import LoneLayer, LoneNormalisation
from fastcnn.models.execution.preparation import is_built_in
from fastcnn.models.execution.training_units import LoneNode, Unit, UnitCall, uses_randomness
from fastcnn.models.layer_by_layer import NO_FIGURES, Figures, loss_of
from fastcnn.models.shard_layers import Joint, ShardedBatch
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Saved
from fastcnn.nn.losses import CrossEntropy
from fastcnn.train.output_losses import Goal

_Values: TypeAlias = Any
"""An array of a value, or a tuple of them, where a unit takes several."""


class _Gradients(NamedTuple):
    """The gradients that a unit writes.

    Attributes:
        arrays: views of the flat gradient.
        parts: where they lie in it.
        is_complete: whether no other unit adds to them afterwards.
        adds: whether other units have added to them before.
    """

    arrays: tuple[Array, ...]
    parts: tuple[slice, ...]
    is_complete: bool
    adds: bool

    @property
    def key(self) -> int:
        """A number that the calls of a shared layer have in common."""
        return self.arrays[0].ctypes.data if self.arrays else 0


@dataclass(frozen=True, eq=False)
class _Step:
    """What units need of a step.

    Attributes:
        batch, joint: as for :meth:`UnitPasses.run`.
        rows: the rows of each shard.
        slots: for each slot its rows, and the samples of its shards.
        alike: rows of shards of equal size, with the number of these shards.
        shared: for the calls of a shared layer the gradients of each shard, so far.
    """

    batch: ShardedBatch
    joint: Joint
    rows: list[slice]
    slots: list[tuple[slice, tuple[int, ...]]]
    alike: list[tuple[slice, int]]
    shared: dict[int, list[list[Array]]] = field(default_factory=dict)


class UnitPasses:
    """Runs shards through the units of an executor."""

    def __init__(
        self,
        units: Sequence[UnitCall],
        outputs: Sequence[int],
        weights: Weights,
        inputs: Callable[[Sequence[Array]], Sequence[Array] | None],
    ) -> None:
        self._units, self._outputs, self._inputs = units, outputs, inputs
        self._joins = any(_normalisation(one.unit) is not None for one in units)
        self._gradients = dict[int, _Gradients]()
        users: dict[int, int] = {}  # of a shared layer's gradient the unit that runs last
        for one in reversed(units):
            for array in one.unit.gradients():
                users[array.ctypes.data] = one.output
        for one in units:
            gradients = tuple(one.unit.gradients()) if one.goes_back else ()
            is_complete = all(users[array.ctypes.data] == one.output for array in gradients)
            adds = bool(gradients) and isinstance(one.unit, LoneNode) and one.unit.adds
            self._gradients[one.output] = _Gradients(
                gradients, weights.parts(gradients), is_complete, adds
            )

    @property
    def parts(self) -> Sequence[Sequence[slice]]:
        """The parts of the flat gradient, in the order in which they leave."""
        of_units = [self._gradients[one.output] for one in reversed(self._units)]
        return [one.parts for one in of_units if one.is_complete and one.parts]

    def run(self, batch: ShardedBatch, loss: Goal, joint: Joint) -> Sequence[Figures] | None:
        """The figures of each shard; None where layers must run one by one."""
        units, first_values = list(self._units), self._inputs(batch.inputs)
        if first_values is None:
            return None  # on all processes, because it is a matter of the weights
        sizes = [call.size for call in batch.shards]
        rows = parts_of_shards(sizes)
        slots = [
            (slice(rows[run][0].start, rows[run][-1].stop), tuple(sizes[run])) for run in joint.runs
        ]
        large = sizes.count(sizes[0])  # the others have a sample less
        alike = [(slice(0, rows[large - 1].stop), large)]
        if large < len(rows):
            alike.append((slice(rows[large].start, rows[-1].stop), len(rows) - large))
        step = _Step(batch, joint, rows, slots, alike)
        values, saved = dict(enumerate(first_values)), dict[int, Saved]()
        gradients_of_value, last = defaultdict[int, list[Array]](list), units[-1]
        ends_in_loss = (
            type(loss) is CrossEntropy
            and isinstance(last.unit, CompiledSegment)
            and last.unit.makes_rows
        )
        if ends_in_loss:
            units.pop()
        for call in units:
            operands = [values[value] for value in call.inputs]
            x: Any = tuple(operands) if call.unit.takes_several else operands[0]
            output = _forward(call, x, step)
            if output is None:
                return None  # on all processes, because it is a matter of the weights
            values[call.output] = output[0]
            if call.goes_back:
                saved[call.output] = output[1]
        figures: list[Figures] | None
        if ends_in_loss:
            figures, own_dx = self._loss_in_segment(last, values[last.inputs[0]], loss, step)
            if own_dx is not None:
                gradients_of_value[last.inputs[0]].append(own_dx)
        else:
            figures, dys = self._loss(values, loss, step)
            for value, dy in zip(self._outputs, dys, strict=True):
                gradients_of_value[value].append(dy)
        if joint.over_batch and self._joins:  # all processes go back, or none
            failed = np.array([float(figures is None)])
            if joint.combined(np.repeat(failed, len(rows))[:, np.newaxis])[0]:
                return None
        if figures is None:
            return None
        if ends_in_loss:
            self._finish_segment(last, step)
        del values
        need_gradient = {call.output for call in units if call.goes_back}
        for call in reversed(units):
            if not call.goes_back:
                continue
            dy = sum_of(gradients_of_value.pop(call.output))
            dx: Any = self._backward(call, dy, saved.pop(call.output), step)
            if dx is None:
                continue
            for value, part in zip(
                call.inputs, dx if call.unit.takes_several else (dx,), strict=True
            ):
                if value in need_gradient and part is not None:
                    gradients_of_value[value].append(part)
        return figures

    # --- the loss ---------------------------------------------------------------------------------

    def _loss(
        self, values: dict[int, Array], loss: Goal, step: _Step
    ) -> tuple[list[Figures] | None, list[Array]]:
        """The figures of each shard, and the gradients at the outputs of the net."""
        batch, figures, of_shards = step.batch, list[Figures](), list[list[Array]]()
        for rows in step.rows:
            outputs = [values[value][rows] for value in self._outputs]
            weights = None if batch.weights is None else batch.weights[rows]
            try:
                own, dys = loss_of(
                    loss, outputs, batch.targets[rows], None, weights, batch.total, batch.observe
                )
            except Divergence:
                return None, [np.empty(0)] * len(self._outputs)
            figures.append(own)
            of_shards.append(dys)
        return figures, [_joined(parts) for parts in zip(*of_shards, strict=True)]

    def _loss_in_segment(
        self, last: UnitCall, x: Array, loss: Goal, step: _Step
    ) -> tuple[list[Figures] | None, Array | None]:
        """The figures of each shard, and the gradient at the input of the last segment.

        The gradients of the segment's parameters are put, but have not left.
        """
        segment, goal, batch = (
            cast(CompiledSegment, last.unit),
            cast(CrossEntropy, loss),
            step.batch,
        )
        targets, figures, dxs = cast(Array, batch.targets), list[Figures](), list[Array | None]()
        if batch.observe is not None:  # a segment has no randomness: these are the step's outputs
            outputs = segment.forward(x, None)
            if outputs is None:
                return None, None
            batch.observe(outputs[0], targets)
        for slot, (rows, sizes) in reversed([*enumerate(step.slots)]):
            weights = None if batch.weights is None else batch.weights[rows]
            result = segment.step(
                x[rows], targets[rows], goal, weights, total=batch.total, shards=sizes
            )
            if result is None:
                return None, None
            figures[:0] = [(losses, right, NO_FIGURES) for losses, right in result.of_shards]
            dxs.insert(0, result.dx)
            if slot:
                step.joint.put(slot, self._gradients[last.output].parts)
        return figures, _joined(dxs)

    def _finish_segment(self, last: UnitCall, step: _Step) -> None:
        """Let the gradients of the last segment leave."""
        step.joint.put(0, self._gradients[last.output].parts)

    # --- the way back -----------------------------------------------------------------------------

    def _backward(self, call: UnitCall, dy: Array, saved: Saved, step: _Step) -> _Values | None:
        """The gradient of a unit's input; those of its parameters leave."""
        unit, own = call.unit, self._gradients[call.output]
        norm = _normalisation(unit)
        if norm is not None:
            return self._normalised_back(norm, dy, saved, own, step)
        if isinstance(unit, CompiledSegment) or unit.sums_shards:
            summing, dxs = cast(_SumsShards, unit), list[Array | None]()
            for slot, (rows, sizes) in reversed([*enumerate(step.slots)]):
                dxs.insert(0, summing.backward(dy[rows], saved[slot], sizes))
                step.joint.put(slot, own.parts)
            return _joined(dxs)
        if _takes_all(unit):
            return unit.backward(dy, saved)
        of_shards, results = list[list[Array]](), list[Any]()
        before = step.shared.pop(own.key, None) if own.adds else None
        for i, rows in enumerate(step.rows):
            if before is not None:
                for array, values in zip(own.arrays, before[i], strict=True):
                    array[...] = values
            results.append(unit.backward(dy[rows], saved[i]))
            of_shards.append([array.copy() for array in own.arrays])
        self._put(own, of_shards, step)
        return _joined(results)

    def _put(self, own: _Gradients, of_shards: list[list[Array]], step: _Step) -> None:
        """Let gradients of shards leave, or wait for those of other calls of a shared layer."""
        if not own.is_complete:
            step.shared[own.key] = of_shards
            return
        for slot, run in reversed([*enumerate(step.joint.runs)]):
            for array, values in zip(own.arrays, zip(*of_shards[run], strict=True), strict=True):
                array[...] = sum_by_halves(values)
            step.joint.put(slot, own.parts)

    def _normalised_back(
        self, norm: _Normalisation, dy: Array, saved: Saved, own: _Gradients, step: _Step
    ) -> _Values:
        """The way back through a batch normalisation."""
        joint, rows = step.joint, step.rows
        saved_by_shard = [saved] * len(rows) if joint.over_batch else saved
        if joint.over_batch:
            dy = norm.before_activation(dy, saved)
            of_alike = [norm.backward_sums(dy[some], saved, some, n) for some, n in step.alike]
            sums = _joined(of_alike)
        else:
            dys = [
                norm.before_activation(dy[some], saved_of_shard)
                for some, saved_of_shard in zip(rows, saved, strict=True)
            ]
            pairs = zip(dys, saved, strict=True)
            sums = np.concatenate([norm.backward_sums(*pair, None, 1) for pair in pairs])
        if joint.over_batch:
            results = [norm.backward_by(dy, saved, joint.combined(sums))]
        else:
            results = [
                norm.backward_by(of_shard, saved_of_shard, own_sums)
                for of_shard, saved_of_shard, own_sums in zip(dys, saved, sums, strict=True)
            ]
        joint.follow(norm.layer, [moments for _, moments in results])
        if own.arrays:
            of_shards = [
                norm.parameter_gradients(own_sums, saved_of_shard)
                for own_sums, saved_of_shard in zip(sums, saved_by_shard, strict=True)
            ]
            if own.adds:
                before = step.shared.pop(own.key)
                of_shards = [
                    [a + b for a, b in zip(*pair, strict=True)]
                    for pair in zip(before, of_shards, strict=True)
                ]
            self._put(own, of_shards, step)
        return _joined([dx for dx, _ in results])


# --- units ----------------------------------------------------------------------------------------


class _SumsShards(Protocol):
    """A unit whose ``sums_shards`` is True."""

    def backward(self, dy: Array, saved: Saved, shards: tuple[int, ...]) -> Array | None: ...


class _Normalisation(Protocol):
    """A unit that takes statistics of the batch, as ``LoneNormalisation`` describes it."""

    layer: Any

    def moments(self, x: _Values, shards: int) -> Array: ...

    def forward_by(self, x: _Values, moments: Array) -> tuple[Array, Saved]: ...

    def before_activation(self, dy: Array, saved: Saved) -> Array: ...

    def backward_sums(self, dy: Array, saved: Saved, part: slice | None, shards: int) -> Array: ...

    def backward_by(self, dy: Array, saved: Saved, sums: Array) -> tuple[_Values, Array]: ...

    def parameter_gradients(self, own: Array, saved: Saved) -> list[Array]: ...


def _normalisation(unit: Unit) -> _Normalisation | None:
    """The unit, if it takes statistics of the batch."""
    if isinstance(unit, LoneNormalisation):
        return unit
    is_shared = isinstance(unit, LoneNode) and shared_norms.normalises(unit.layer)
    return cast(_Normalisation, unit) if is_shared else None


def _takes_all(unit: LoneLayer | LoneNode) -> bool:
    """Whether a lone layer takes all shards at once: it draws nothing, and sums nothing."""
    layer = unit.layer
    return is_built_in(layer) and not uses_randomness(layer) and not unit.gradients()


def _forward(call: UnitCall, x: _Values, step: _Step) -> tuple[Array, Saved] | None:
    """The output of a unit, and what its way back takes: for each slot, or for each shard."""
    unit, batch = call.unit, step.batch
    norm = _normalisation(unit)
    if norm is not None:
        return _normalised(norm, x, step)
    if not call.goes_back and unit.is_deterministic:
        return unit.forward(x, None)
    results = list[tuple[Array, Saved] | None]()
    if isinstance(unit, CompiledSegment):
        for rows, sizes in step.slots:
            results.append(unit.forward(x[rows], batch.rng, shards=sizes))
    elif unit.sums_shards:
        results = [unit.forward(x[rows], batch.rng) for rows, _ in step.slots]
    elif _takes_all(unit):
        return unit.forward(x, batch.rng)
    else:
        for shard, rows in zip(batch.shards, step.rows, strict=True):
            results.append(unit.forward(_rows_of(x, rows), shard.rng or batch.rng))
    complete = [one for one in results if one is not None]
    if len(complete) < len(results):
        return None
    return _joined([one[0] for one in complete]), [one[1] for one in complete]


def _normalised(norm: _Normalisation, x: _Values, step: _Step) -> tuple[Array, Saved]:
    """The output of a batch normalisation, and what its way back takes.

    With statistics of the batch this is one object, and else one for each shard.
    """
    moments = _joined([norm.moments(_rows_of(x, rows), count) for rows, count in step.alike])
    if step.joint.over_batch:
        return norm.forward_by(x, step.joint.combined(moments, shared_norms.joined))
    of_shards = [_rows_of(x, rows) for rows in step.rows]
    results = [norm.forward_by(*pair) for pair in zip(of_shards, moments, strict=True)]
    return _joined([one[0] for one in results]), [one[1] for one in results]


def _rows_of(x: _Values, rows: slice) -> _Values:
    return tuple(one[rows] for one in x) if isinstance(x, tuple) else x[rows]


def _joined(parts: Sequence[Any]) -> Any:
    """Arrays one after the other; parts of tuples one by one; None where there is nothing."""
    if len(parts) == 1 or parts[0] is None:
        return parts[0]
    if isinstance(parts[0], tuple):
        return tuple(_joined(some) for some in zip(*parts, strict=True))
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    return np.concatenate(parts, out=arrays.allocate(shape, parts[0].dtype))
