"""``CompiledSegment``: a segment with its programs, and their runs on the arrays of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.user_code import numbers
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.finite import all_finite
from fastcnn.engine.numba.runtime.program import (
    NO_STEPS,
    address,
    indices_of_totals,
    run,
    run_apart,
    train,
)
from fastcnn.models.execution.programs import BatchPrograms, Programs, Scratch
from fastcnn.models.execution.segment import segment_of
from fastcnn.models.execution.slices import Aim
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Layer, Saved
from fastcnn.nn.losses import CrossEntropy

_NO_GRADIENT = np.zeros(0, np.uint8)


class _Forward(NamedTuple):
    """Input, output, scratch and programs of a forward pass, for the way back."""

    x: Array
    y: Array
    scratch: Scratch
    programs: BatchPrograms


class StepResult(NamedTuple):
    """The result of a step.

    Attributes:
        loss_sum, correct: the sum of the losses, and the number of right samples.
        dx: the gradient of the samples (N, …); None if nothing needs it.
        of_shards: both figures of each shard, if there are shards.
    """

    loss_sum: float
    correct: int
    dx: Array | None
    of_shards: list[tuple[float, int]]


class CompiledSegment:
    """Layers through which one call takes each slice; it has the attributes of ``LoneLayer``."""

    is_deterministic, takes_several = True, False
    sums_shards = True

    def __init__(self, layers: Sequence[Layer], weights: Weights, needs_dx: bool) -> None:
        self._segment = segment_of(layers, weights, needs_dx)
        self._programs = Programs(self._segment)
        self._dtype, self._output = self._segment.dtype, self._segment.output_shape
        self._needs_dx, self._filters = needs_dx, self._segment.padded_filters
        self.padded = bool(self._filters)

    def gradients(self) -> list[Array]:
        """The gradients that the way back writes, as views of the flat one."""
        return [one for lowering in self._segment.lowerings for one in lowering.gradients.values()]

    @property
    def makes_rows(self) -> bool:
        """Whether the output of a sample is a row, on which :meth:`step` computes a loss."""
        return len(self._output) == 1

    def explain(self) -> str:
        """The unit's line in ``Model.explain``."""
        return f"compiled together: {', '.join(map(repr, self._segment.layers))}"

    def forward(
        self,
        x: Array,
        rng: np.random.Generator | None,
        aim: Aim = "predict",
        shards: tuple[int, ...] = (),
    ) -> tuple[Array, Saved] | None:
        """The output (N, …), and what :meth:`backward` needs; ``rng`` is None in prediction.

        With ``shards``, the samples of each shard, gradients are summed by the tree of
        :mod:`fastcnn.distributed.tree`. The result is None where padding by zeros meets filters
        that are not finite.
        """
        if self.padded and not all(map(all_finite, self._filters)):
            return None
        if not len(x):
            return arrays.allocate((0, *self._output), self._dtype), None
        aim = aim if rng is None else "train"
        programs = self._programs.of_batch(len(x), aim, x.itemsize == 1, None, shards)
        scratch = programs.scratch()
        forward, bases = programs.forward, scratch.bases
        if rng is None and scratch.output is not None:
            run(forward, scratch.address, bases, address(x), scratch.output_address)
            y = scratch.output.copy()
        else:
            y = arrays.allocate((len(x), *self._output), self._dtype)
            run(forward, scratch.address, bases, address(x), address(y))
        if rng is None:
            programs.give_back(scratch)
            return y, None
        return y, _Forward(x, y, scratch, programs)

    def backward(self, dy: Array, saved: Saved, shards: tuple[int, ...] = ()) -> Array | None:
        """The gradient of the input, if it is needed; parameters' gradients go to the weights.

        ``shards`` are those of :meth:`forward`, whose programs know them.
        """
        forward: _Forward = saved
        x, y, scratch, programs = forward
        if dy.shape != y.shape or dy.dtype is not self._dtype or not dy.flags.c_contiguous:
            dy = numbers("the layer or loss behind", "a gradient", dy, y.shape, self._dtype)
        work = 4 * self._segment.parameters.size
        if programs.transposes is not None:
            run_apart(programs.transposes, scratch.address, work)
        dx = arrays.allocate(x.shape, self._dtype) if self._needs_dx else _NO_GRADIENT
        if programs.backward is not None:
            addresses = address(x), address(y), address(dy), address(dx)
            run(programs.backward, scratch.address, scratch.bases, *addresses)
        if programs.after is not None:
            run_apart(programs.after, scratch.address, len(x) * work, address(x), address(dy))
        programs.give_back(scratch)
        return dx if self._needs_dx else None

    def step(
        self,
        x: Array,
        targets: Array,
        loss: CrossEntropy,
        sample_weights: Array | None,
        moves: Array = NO_STEPS,
        *,
        checks: bool = False,
        total: int | None = None,
        shards: tuple[int, ...] = (),
    ) -> StepResult | None:
        """Forward, softmax cross-entropy, backward, and an optimizer's step.

        Args:
            x: samples (N, …), of the dtype or bytes.
            targets: class numbers (N,), or rows of probabilities (N, C).
            loss: the loss.
            sample_weights: a weight for each sample, or None.
            moves: the optimizer's steps. They do not run if the loss is not finite.
            checks: whether they do not run either if the gradient is not finite.
            total: what the sum of the losses is divided by; by default the number of samples.
            shards: the samples of each shard, or nothing.

        Returns:
            The result; its ``dx`` is None where nothing needs the gradient of the input. None alone
            if the loss or a gradient that was checked is not finite.
        """
        if self.padded and not all(map(all_finite, self._filters)):
            return None
        if loss.label_smoothing:
            targets = loss.smoothed(targets, self._output[0], self._dtype)
        aim: Aim = "step" if targets.ndim == 1 else "soft step"
        programs = self._programs.of_batch(len(x), aim, x.itemsize == 1, total, shards)
        assert programs.training is not None
        scratch = programs.scratch()
        dx = arrays.allocate(x.shape, self._dtype) if self._needs_dx else _NO_GRADIENT
        gradient = self._segment.gradient
        train(
            programs.training,
            scratch.address,
            scratch.numbers,
            scratch.bases,
            scratch.totals,
            gradient if checks else gradient[:0],
            moves,
            address(x),
            address(dx) if self._needs_dx else 0,
            address(targets),
            programs.ones_address if sample_weights is None else address(sample_weights),
        )
        loss_sum, correct = scratch.totals.tolist()
        of_shards = list[tuple[float, int]]()
        if shards:
            at = indices_of_totals(programs.training)
            losses, right = scratch.numbers[at].tolist(), scratch.numbers[at + 1].tolist()
            of_shards = [(loss, int(number)) for loss, number in zip(losses, right, strict=True)]
        programs.give_back(scratch)
        if isnan(loss_sum):
            return None
        return StepResult(loss_sum, int(correct), dx if self._needs_dx else None, of_shards)
