"""``PredictionList``: the steps of a section, with what layers need to write them."""

from __future__ import annotations

from collections.abc import Callable

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.elementwise import steps
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.program import Operand
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.prepared import Prepared
from fastcnn.models.execution.turn_list import TurnList
from fastcnn.models.weights import Weights


class PredictionList(TurnList):
    """Steps for ``n`` samples, with what layers need to write them.

    Attributes:
        weights: the model's parameters.
        prepared: the arrays that follow from these alone.
        suspects: a byte for each sample, which a step sets where a result is not finite.
        pitch: numbers from a pixel of the next result to the next; 0 for its channels.
        pitches: the same for each value that lies in the result of a concatenation.
        spread: values whose pixels lie apart, because the convolution that takes them needs it.
    """

    def __init__(self, n: int, zeros: Array, weights: Weights, prepared: Prepared) -> None:
        super().__init__(n, zeros)
        self.weights, self.prepared = weights, prepared
        self.suspects: Operand | None = None
        self.pitch = 0
        self.pitches: dict[int, int] = {}
        self.spread: set[int] = set()

    def filled(self, count: int, value: float) -> Operand:
        """The operand of an array of so many equal numbers."""
        array = arrays.allocate((count,), self.dtype)
        array[...] = value
        return self.constant(array)

    def suspects_room(self) -> Operand:
        """The room of the suspects; the first call adds the step that sets them to 0."""
        if self.suspects is None:
            self.suspects = self.bytes_room(self.n)
            count = -(-self.n // self.itemsize)
            self.step(steps.zero, (self.like, self.like), count, self.suspects, self.suspects)
        return self.suspects


Steps = Callable[[Fused, list[Operand], Operand, PredictionList], None]
"""Adds the steps from places of the inputs, and of the residual, to the place of the output."""
