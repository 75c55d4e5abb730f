"""``Executor``: a net's forward pass and its gradients, in as few compiled calls as can be.

Layers that follow on each other and that have steps make a **segment**: one call takes each slice
of the batch through all of them. The others stand **alone**, and see the whole batch: layers that
couple it (BatchNorm in training), and those whose work or weights are so large that one operation
over the batch, shared out over the threads, is the better way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from operator import is_

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.user_code import unchanged_by_errors
from fastcnn.engine.numba.runtime import program
from fastcnn.engine.numba.runtime.compile_ahead import Progress
from fastcnn.engine.numba.runtime.finite import all_finite
from fastcnn.engine.numba.runtime.program import NO_STEPS, constant
from fastcnn.engine.numba.runtime.types import Kernel
from fastcnn.models.execution.compiled import CompiledSegment
from fastcnn.models.execution.lone import LoneLayer
from fastcnn.models.execution.lowering import lone_kind, stands_alone
from fastcnn.models.execution.preparation import (
    PURPOSES,
    Purpose,
    compiles_ahead,
    is_built_in,
    prepare,
)
from fastcnn.models.execution.stages import input_of, stage_end
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Dense, Dropout, Flatten, Layer, Residual
from fastcnn.nn.losses import CrossEntropy, Loss
from fastcnn.nn.optimizers import Optimizer
from fastcnn.ops import softmax
from fastcnn.train.sample_weights import scale_to_mean, weighted

# Parameters that one step moves, at most.
_MOVED = 200_000

Unit = CompiledSegment | LoneLayer
"""What an executor runs one after the other."""


def _training_on(targets: Array) -> Purpose:
    """The purpose under which a training on such targets counts as prepared."""
    return "train" if targets.ndim == 1 else "train on rows"


def _uses_randomness(layers: Sequence[Layer]) -> bool:
    """Whether layers may draw random numbers, as those of the user's own may."""
    return any(
        isinstance(layer, Dropout)
        or not is_built_in(layer)
        or (isinstance(layer, Residual) and _uses_randomness([*layer.layers, *layer.shortcut]))
        for layer in layers
    )


def _units(layers: Sequence[Layer], weights: Weights) -> list[Unit]:
    """The layers as segments and lone layers.

    A lone convolution has its ReLU and max-pooling with it, a lone dense layer the Flatten before.
    """
    dtype, units, i = weights.parameters.dtype, list[Unit](), 0
    first = next((i for i, layer in enumerate(layers) if weights.gradients_of(layer)), len(layers))
    while i < len(layers):
        end = i
        while end < len(layers) and stands_alone(layers[end], dtype) is None:
            end += 1
        row = layers[i:end]
        if any(not isinstance(layer, Flatten) for layer in row):
            units.append(CompiledSegment(row, weights, needs_dx=i > first))
            i = end
            continue
        flattens_before = len(row) == 1 and end < len(layers) and type(layers[end]) is Dense
        at = end if flattens_before else i
        last = stage_end(layers, at)
        reason = stands_alone(layers[at], dtype) or "nothing to compile"
        kind, needs_dx = lone_kind(layers[at]), at > first
        units.append(kind(layers[i:last], layers[at], weights, needs_dx, reason))
        i = last
    return units


class Executor:
    """Runs built layers; their parameters and gradients are parts of ``weights``."""

    def __init__(self, layers: Sequence[Layer], weights: Weights) -> None:
        self._weights, self._dtype, self._layers = weights, weights.parameters.dtype, layers
        self._units = _units(layers, weights)
        trained = [i for i, unit in enumerate(self._units) if unit.trained]
        self._first = trained[0] if trained else len(self._units)
        self._padded = any(unit.padded for unit in self._units)
        self._uses_randomness = _uses_randomness(layers)
        self._state = [array for layer in layers for array in layer.state.values()]
        only = self._units[0] if len(self._units) == 1 else None
        self._only_segment = only if isinstance(only, CompiledSegment) else None
        self._prepared: set[Purpose] = set() if compiles_ahead() else {*PURPOSES}
        # Of the last optimizer its loop, state and numbers, and the steps made of them.
        self._last_moves: tuple[Kernel | None, list[Array], Array, Array]
        self._last_moves = None, [], NO_STEPS, NO_STEPS

    def explain(self) -> str:
        """A line for each segment, and for each layer that stands alone with the reason."""
        return "\n".join(unit.explain() for unit in self._units)

    def takes_bytes(self) -> bool:
        """Whether inputs may be bytes, which are then scaled slice by slice."""
        return isinstance(self._units[0], CompiledSegment)

    def forward(self, x: Array) -> Array | None:
        """Raw outputs for inputs (N, …); None where layers must run one by one.

        That is where padding by zeros meets parameters that are not finite.
        """
        if "predict" not in self._prepared:
            self.prepare_prediction(x)
        return self._through(self._units, x)

    def probabilities(self, x: Array) -> Array | None:
        """The softmax of :meth:`forward`, in the same call where a segment is last."""
        if "predict" not in self._prepared:
            self.prepare_prediction(x)
        last = self._units[-1]
        if not isinstance(last, CompiledSegment):
            y = self.forward(x)
            return None if y is None else softmax(y)
        before = x if last is self._only_segment else self._through(self._units[:-1], x)
        if before is None:
            return None
        output = last.forward(before, None, "softmax")
        return None if output is None else output[0]

    def prepare_prediction(self, like: Array, progress: Progress | None = None) -> int:
        """Compile what predictions of any batch size need; the number of these kernels.

        ``like`` are samples of the shape and dtype that :meth:`forward` takes.
        """

        ends_in_vector = len(self._layers[-1].output_shape or ()) == 1

        def run(x: Array) -> None:
            self.forward(x)
            if ends_in_vector:  # there are no classes among pixels
                self.probabilities(x)

        with self._preparing("predict"):
            if not all(map(is_built_in, self._layers)):
                return 0
            return prepare(self._layers, run, like, "predict", self._dtype.char, progress=progress)

    def prepare_training(
        self,
        like: Array,
        targets: Array,
        loss: Loss,
        optimizer: Optimizer,
        progress: Progress | None = None,
    ) -> int:
        """Compile what training steps of any batch size need; the number of these kernels."""
        state = [array.copy() for array in self._state]
        least = max(layer.least_batch(input_of(layer)) for layer in self._layers)

        def run(x: Array) -> None:
            if len(x) < least:
                return
            # Those of the first sample, because zeros are no targets of every loss.
            repeated = np.repeat(targets[:1], len(x), axis=0)
            self.gradients(x, repeated, loss, np.random.default_rng(0))
            y = self._through(self._units, x)  # validation
            if y is not None:
                loss.values(y, repeated)
            # Another optimizer of its kind, so that this one and its schedule take no part. The
            # kernel depends on neither its settings nor the length of its state.
            ahead = type(optimizer)().ahead(self._weights.parameters[:1])
            if ahead is not None:
                self._steps_of(ahead[0], [], ahead[2])

        with self._preparing(_training_on(targets)):
            if not all(map(is_built_in, (*self._layers, loss, optimizer))):
                return 0
            purpose = ["train", self._dtype.char, repr(loss), type(optimizer).__name__]
            if self._weights.frozen:
                purpose += [",".join(self._weights.gradients_of(layer)) for layer in self._layers]
            targets_kind = targets.dtype.char, targets.ndim
            try:
                return prepare(self._layers, run, like, *purpose, *targets_kind, progress=progress)
            finally:
                for array, before in zip(self._state, state, strict=True):
                    array[...] = before

    @contextmanager
    def _preparing(self, purpose: Purpose) -> Iterator[None]:
        """Within this context and after it the purpose counts as prepared, if there is no error.

        So the preparation does not begin another, and one that was interrupted begins again.
        """
        self._prepared.add(purpose)
        try:
            yield
        except BaseException:
            self._prepared.discard(purpose)
            raise

    def _through(self, units: list[Unit], x: Array) -> Array | None:
        if self._only_segment is not None:  # compiled code reports no float errors
            output = self._only_segment.forward(x, None)
            return None if output is None else output[0]
        return self._through_all(units, x)

    @unreported
    def _through_all(self, units: list[Unit], x: Array) -> Array | None:
        for unit in units:
            output = unit.forward(x, None)
            if output is None:
                return None
            x = output[0]
        return x

    def step(
        self,
        x: Array,
        targets: Array,
        loss: Loss,
        rng: np.random.Generator,
        optimizer: Optimizer,
        sample_weights: Array | None = None,
    ) -> tuple[float, float] | None:
        """:meth:`gradients` and then the optimizer's step; in one call where one segment is all."""
        if _training_on(targets) not in self._prepared:
            self.prepare_training(x, targets, loss, optimizer)
        segment, weights, ahead = self._only_segment, self._weights, None
        if segment is not None and type(loss) is CrossEntropy:
            ahead = optimizer.ahead(weights.parameters)
        if segment is None or ahead is None:
            with unchanged_by_errors(self._state):
                result = self.gradients(x, targets, loss, rng, sample_weights)
                if result is not None:
                    weights.move(optimizer)
            return result
        assert isinstance(loss, CrossEntropy)
        moves = self._moves(*ahead)
        output = segment.step(x, targets, loss, sample_weights, moves, checks=self._padded)
        if output is None:
            return None
        optimizer.count_step()
        return output[:2]

    def _moves(self, loop: Kernel, state: list[Array], numbers: Array) -> Array:
        """An optimizer's step, as steps of programs."""
        last_loop, last_state, last_numbers, moves = self._last_moves
        same = loop is last_loop and numbers is last_numbers and len(state) == len(last_state)
        if not (same and all(map(is_, state, last_state))):
            moves = np.concatenate(self._steps_of(loop, state, numbers))
            self._last_moves = loop, state, numbers, moves
        return moves

    def _steps_of(self, loop: Kernel, state: list[Array], numbers: Array) -> list[Array]:
        """Steps of the optimizer on each span of the parameters that training moves."""
        result = []
        for span in self._weights.spans:
            p, g = self._weights.parameters[span], self._weights.gradient[span]
            # Optimizers without state pass the gradient in its place, which the kernel never reads.
            first, second = [*(array[span] for array in state), g, g][:2]
            operands = p, g, first, second, numbers
            step = program.step(loop, operands, p.size, *map(constant, operands))
            result += program.split_step(step, 1 + p.size // _MOVED)
        return result

    @unreported
    def gradients(
        self,
        x: Array,
        targets: Array,
        loss: Loss,
        rng: np.random.Generator,
        sample_weights: Array | None = None,
    ) -> tuple[float, float] | None:
        """Sum of the losses and samples that are right; the mean's gradient goes to the weights.

        Each loss counts by its sample's weight, if there are ``sample_weights`` (N,) of the
        parameters' dtype.

        None where layers must run one by one: the loss is not finite, or padding by zeros met
        a number that is not. Then nothing has changed but the gradient.
        """
        if not (self._uses_randomness or self._state):
            return self._gradients(x, targets, loss, rng, sample_weights)
        before = self._uses_randomness and rng.bit_generator.state
        try:
            with unchanged_by_errors(self._state):
                result = self._gradients(x, targets, loss, rng, sample_weights)
                if result is None:
                    raise _Undecided
        except _Undecided:
            if before:
                rng.bit_generator.state = before
            return None
        return result

    def _gradients(
        self,
        x: Array,
        targets: Array,
        loss: Loss,
        rng: np.random.Generator,
        sample_weights: Array | None,
    ) -> tuple[float, float] | None:
        units = list(self._units)
        last = units[-1]
        fused = isinstance(last, CompiledSegment) and type(loss) is CrossEntropy
        if fused:
            units.pop()
        saved = []
        for i, unit in enumerate(units):
            goes_back = i >= self._first
            output = unit.forward(x, rng if goes_back or not unit.is_deterministic else None)
            if output is None:
                return None
            x = output[0]
            saved.append(output[1] if goes_back else None)
        dy: Array | None
        correct: float
        if fused:
            assert isinstance(last, CompiledSegment)
            assert isinstance(loss, CrossEntropy)
            result = last.step(x, targets, loss, sample_weights)
            if result is None:
                return None
            total, correct, dy = result
        else:
            losses = weighted(loss.values(x, targets), sample_weights)
            total = float(losses.sum(dtype=np.float64))
            if not isfinite(total):
                return None
            correct = loss.correct(x, targets)
            dy = loss.gradient(x, targets)
            scale_to_mean(dy, sample_weights)
        for unit in reversed(units[self._first :]):
            assert dy is not None
            dy = unit.backward(dy, saved.pop())
        # Padding makes NaN of what is infinite: the plain loops tell where it is not.
        if self._padded and not all_finite(self._weights.gradient):
            return None
        return total, correct


class _Undecided(Exception):
    """Layers must run one by one."""
