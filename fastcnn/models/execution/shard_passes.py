"""Shards of a batch through the units of an executor; see :mod:`fastcnn.models.shard_layers`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import Divergence
from fastcnn.data.several import Data
from fastcnn.engine.numba.elementwise.merging import sum_of
from fastcnn.models import shared_norms
from fastcnn.models.execution.compiled import CompiledSegment
from fastcnn.models.execution.lone import LoneNormalisation
from fastcnn.models.execution.training_units import LoneNode, Unit, UnitCall
from fastcnn.models.layer_by_layer import NO_FIGURES, Figures, loss_of
from fastcnn.models.shard_layers import ShardContext, ShardPass
from fastcnn.models.shared_norms import Exchange
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Saved
from fastcnn.nn.losses import CrossEntropy
from fastcnn.train.output_losses import Goal


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
            arrays = tuple(one.unit.gradients()) if one.goes_back else ()
            is_complete = all(users[array.ctypes.data] == one.output for array in arrays)
            adds = bool(arrays) and isinstance(one.unit, LoneNode) and one.unit.adds
            self._gradients[one.output] = _Gradients(
                arrays, weights.parts(arrays), is_complete, adds
            )

    @property
    def parts(self) -> Sequence[Sequence[slice]]:
        """The parts of the flat gradient, in the order in which they are stored."""
        of_units = [self._gradients[one.output] for one in reversed(self._units)]
        return [one.parts for one in of_units if one.is_complete and one.parts]

    def run(
        self,
        inputs: Sequence[Array],
        targets: Data,
        loss: Goal,
        rng: np.random.Generator,
        weights: Array | None,
        context: ShardContext,
    ) -> ShardPass:
        """The pass of a shard; None where layers must run one by one."""
        units, of_units = list(self._units), self._inputs(inputs)
        if of_units is None:
            return None  # for all shards, because it is a matter of the weights
        values = dict(enumerate(of_units))
        saved, last = dict[int, Saved](), units[-1]
        reached = defaultdict[int, list[Array]](list)
        fused = (
            type(loss) is CrossEntropy
            and isinstance(last.unit, CompiledSegment)
            and last.unit.makes_rows
        )
        if fused:
            units.pop()
        for one in units:
            taken = [values[value] for value in one.inputs]
            x: Any = tuple(taken) if one.takes_several else taken[0]
            goes_back = one.goes_back or not one.unit.is_deterministic
            output: tuple[Array, Saved] | None
            if (norm := _normalisation(one.unit)) is not None:
                output = yield from _normalised(norm, x, context)
            else:
                output = one.unit.forward(x, rng if goes_back else None)
            if output is None:
                return None  # for all shards, because it is a matter of the weights
            values[one.output] = output[0]
            if one.goes_back:
                saved[one.output] = output[1]
        figures: Figures | None = None
        if fused:
            segment, x = cast(CompiledSegment, last.unit), values[last.inputs[0]]
            goal, labels = cast(CrossEntropy, loss), cast(Array, targets)
            result = segment.step(x, labels, goal, weights, total=context.total)
            if result is not None:
                figures = result[0], result[1], NO_FIGURES
                reached[last.inputs[0]].append(result[2])
        else:
            outputs = [values[value] for value in self._outputs]
            try:
                figures, dys = loss_of(loss, outputs, targets, None, weights, context.total)
                for value, dy in zip(self._outputs, dys, strict=True):
                    reached[value].append(dy)
            except Divergence:
                figures = None
        # Weights that are not finite fail on all shards, but the loss may be finite on some.
        if context.over_batch and self._joins:
            arrays = self._gradients[last.output].arrays if fused else ()
            copies = [array.copy() for array in arrays]  # other shards write here meanwhile
            failures = yield Exchange(np.array([float(figures is None)]))
            figures = None if failures[0] else figures
            for array, own_values in zip(arrays, copies, strict=True):
                array[...] = own_values
        if figures is None:
            return None
        if fused:
            context.store(self._gradients[last.output].parts)
        del values
        trained = {one.output for one in units if one.goes_back}
        partial = dict[int, list[Array]]()
        for one in reversed(units):
            if not one.goes_back:
                continue
            dy, kept = sum_of(reached.pop(one.output)), saved.pop(one.output)
            own = self._gradients[one.output]
            key = own.arrays[0].ctypes.data if own.arrays else 0
            norm, sums = _normalisation(one.unit), None
            if norm is not None:
                sums = yield from _joined_sums(norm, dy, kept, context)
            if own.adds:  # another shard may have written here since
                for array, before in zip(own.arrays, partial.pop(key), strict=True):
                    array[...] = before
            dx: Any
            if norm is not None and sums is not None:
                dx, moments = norm.backward_by(dy, kept, *sums)
                context.follow(norm.layer, moments)
            else:
                dx = one.unit.backward(dy, kept)
            if own.is_complete:
                context.store(own.parts)
            else:
                partial[key] = [array.copy() for array in own.arrays]
            if dx is None:
                continue
            for value, part in zip(one.inputs, dx if one.takes_several else (dx,), strict=True):
                if value in trained and part is not None:
                    reached[value].append(part)
        return figures


class _Normalisation(Protocol):
    """A unit that takes statistics of the batch, as ``LoneNormalisation`` describes it."""

    layer: Any

    def moments(self, x: Any) -> Array: ...

    def forward_by(self, x: Any, moments: Array) -> tuple[Array, Saved]: ...

    def backward_sums(self, dy: Array, saved: Saved) -> Array: ...

    def backward_by(
        self, dy: Array, saved: Saved, own: Array, sums: Array
    ) -> tuple[Any, Array]: ...


def _normalisation(unit: Unit) -> _Normalisation | None:
    """The unit, if it takes statistics of the batch."""
    if isinstance(unit, LoneNormalisation):
        return unit
    is_shared = isinstance(unit, LoneNode) and shared_norms.normalises(unit.layer)
    return cast(_Normalisation, unit) if is_shared else None


def _normalised(
    unit: _Normalisation, x: Any, context: ShardContext
) -> Generator[Exchange, Array, tuple[Array, Saved]]:
    """The output of a batch normalisation, and what its way back takes."""
    moments = unit.moments(x)
    if context.over_batch:
        moments = yield Exchange(moments, shared_norms.joined)
    return unit.forward_by(x, moments)


def _joined_sums(
    unit: _Normalisation, dy: Array, saved: Saved, context: ShardContext
) -> Generator[Exchange, Array, tuple[Array, Array]]:
    """The sums that the gradient of a batch normalisation's input needs: the shard's, and all."""
    own = unit.backward_sums(dy, saved)
    if not context.over_batch:
        return own, own
    sums = yield Exchange(own)
    return own, sums
