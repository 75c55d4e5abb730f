"""``Executor``: a net's forward pass and its gradients, in as few compiled calls as can be.

Layers that follow on each other and that programs know make a **run**: one call takes each slice
of the batch through all of them. The others stand **alone**, and see the whole batch: layers that
couple it (BatchNorm in training), and those whose work or weights are so large that one operation
over the batch, shared out over the threads, is the better way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite, isnan
from operator import is_
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.core.hardware import L2_BYTES
from fastcnn.core.user_code import Source, numbers, unchanged_by_errors
from fastcnn.engine.numba.contraction.packing import all_finite
from fastcnn.engine.numba.conv import winograd
from fastcnn.engine.numba.dense.forward import dense
from fastcnn.engine.numba.elementwise.activations import relu_backward
from fastcnn.engine.numba.pool.chooser import sums_are_long
from fastcnn.engine.numba.pool.operations import (
    argmax_gradient,
    max_pool2d,
    max_pool2d_backward,
)
from fastcnn.engine.numba.runtime import arrays, program
from fastcnn.engine.numba.runtime.compile_ahead import Progress
from fastcnn.engine.numba.runtime.program import NO_STEPS, address, constant, run, run_apart, train
from fastcnn.engine.registry import choose, implementation
from fastcnn.models.execution.by_inputs import dense_gradients
from fastcnn.models.execution.plan import Made, Plans, Scratch
from fastcnn.models.execution.preparation import (
    PURPOSES,
    Purpose,
    compiles_ahead,
    is_built_in,
    prepare,
)
from fastcnn.models.execution.slices import (
    CONVOLUTIONS,
    POOLS,
    input_of,
    is_relu,
    pooling_of,
    pools_squares,
    with_pooling,
)
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Dense, Dropout, Flatten, Layer, ReLU, Residual
from fastcnn.nn.losses import CrossEntropy, Loss
from fastcnn.nn.optimizers import Optimizer
from fastcnn.ops import softmax
from fastcnn.train.sample_weights import scale_to_mean, weighted

# Operations for one sample. A layer of more has enough for all threads in any batch; one of fewer
# gains less from a better algorithm than it would lose by standing alone.
_HEAVY, _LIGHT = 4_000_000, 1_000_000
# Weights that are better passed over once for the batch than once for each slice.
_LARGE = 3 * L2_BYTES // 8
# Parameters that an optimizer moves in one item of work.
_MOVED = 200_000
# Batch sizes whose ways are remembered.
_BATCHES = 64
_NONE = np.zeros(0, np.uint8)


def stands_alone(layer: Layer, dtype: np.dtype[Any]) -> str | None:
    """Why programs leave this built layer out; None for one that they take."""
    if type(layer) not in (*CONVOLUTIONS, Dense, Flatten, ReLU, *POOLS):
        return "an operation of its own over the whole batch"
    assert layer.input_shape is not None
    if isinstance(layer, CONVOLUTIONS) and layer.flops(layer.input_shape) > _LIGHT:
        g = layer.geometry(layer.input_shape)
        chosen = implementation("conv2d", g, dtype, layer.algorithm)
        if chosen.name != "numba.direct":
            return f"{chosen.name} is better for it, or was asked for"
    if getattr(layer, "algorithm", "auto") not in ("auto", "direct"):
        return "its algorithm was asked for"
    if layer.flops(layer.input_shape) > _HEAVY:
        return "its work is worth all threads"
    if type(layer) in POOLS and sums_are_long(pooling_of(layer, 1)):
        return "so many windows meet in each pixel that their gradients are summed in float64"
    if any(array.nbytes > _LARGE for array in layer.parameters.values()):
        return "its weights are passed over once for the batch"
    return None


def _training_on(targets: Array) -> Purpose:
    """The purpose under which a training on such targets counts as prepared."""
    return "train" if targets.ndim == 1 else "train on rows"


def _has_chance(layers: Sequence[Layer]) -> bool:
    """Whether layers may draw random numbers, as those of the user's own may."""
    return any(
        isinstance(one, Dropout)
        or not is_built_in(one)
        or (isinstance(one, Residual) and _has_chance([*one.layers, *one.shortcut]))
        for one in layers
    )


class Executor:
    """Runs built layers; their parameters and gradients are parts of ``weights``."""

    def __init__(self, layers: Sequence[Layer], weights: Weights) -> None:
        self._weights, self._dtype = weights, weights.parameters.dtype
        self._parts = self._cut(layers)
        trained = [i for i, part in enumerate(self._parts) if part.trained]
        self._first = trained[0] if trained else len(self._parts)
        self._padded = any(part.padded for part in self._parts)
        self._chance = _has_chance(layers)
        self._state = [array for one in layers for array in one.state.values()]
        only = self._parts[0] if len(self._parts) == 1 else None
        self._only = only if isinstance(only, _Run) else None
        self._layers = layers
        self._prepared: set[Purpose] = set() if compiles_ahead() else {*PURPOSES}
        # Of the last optimizer its loop, arrays and numbers, and the step made of them.
        self._last: tuple[Any, list[Array], Array, Array] = None, [], _NONE, NO_STEPS

    def _cut(self, layers: Sequence[Layer]) -> list[_Run | _Alone]:
        """Runs and lone layers.

        A lone convolution has its ReLU and max-pooling with it, a dense layer the Flatten before.
        """
        weights, parts, i = self._weights, list[_Run | _Alone](), 0
        first = next((i for i, one in enumerate(layers) if weights.trained(one)), len(layers))
        while i < len(layers):
            j = i
            while j < len(layers) and stands_alone(layers[j], self._dtype) is None:
                j += 1
            row = layers[i:j]
            if any(not isinstance(one, Flatten) for one in row):
                parts.append(_Run(row, weights, needs_dx=i > first))
                i = j
                continue
            kind: type[_Alone] = _Alone
            at, last = i, with_pooling(layers, i)
            if len(row) == 1 and j < len(layers) and type(layers[j]) is Dense:
                at, last = j, j + 1
            # A class of a user's own may do something else, even if it derives from one of these.
            if type(layers[at]) in CONVOLUTIONS:
                kind = _AloneConvolution
            elif type(layers[at]) is Dense:
                kind = _AloneDense
            arguments = layers[at], weights, weights.trained(layers[at]), at > first
            parts.append(kind(layers[i:last], *arguments))
            i = last
        return parts

    def explain(self) -> str:
        """A line for each run, and for each layer that stands alone with the reason."""
        return "\n".join(part.explain() for part in self._parts)

    def takes_bytes(self) -> bool:
        """Whether inputs may be bytes, which are then scaled slice by slice."""
        return isinstance(self._parts[0], _Run)

    def forward(self, x: Array) -> Array | None:
        """Raw outputs for inputs (N, …); None where single operations must decide.

        That is where padding by zeros meets parameters that are not finite.
        """
        if "predict" not in self._prepared:
            self.prepare_prediction(x)
        return self._through(self._parts, x)

    def probabilities(self, x: Array) -> Array | None:
        """The softmax of :meth:`forward`, on its way where the last layers make a run."""
        if "predict" not in self._prepared:
            self.prepare_prediction(x)
        last = self._parts[-1]
        if not isinstance(last, _Run):
            y = self.forward(x)
            return None if y is None else softmax(y)
        before = x if last is self._only else self._through(self._parts[:-1], x)
        if before is None:
            return None
        found = last.forward(before, None, "softmax")
        return None if found is None else found[0]

    def prepare_prediction(self, like: Array, progress: Progress | None = None) -> int:
        """Compile what predictions of any batch size need; how many kernels that were.

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
        """Compile what training steps of any batch size need; how many kernels that were."""
        state = [array.copy() for array in self._state]
        least = max(one.least_batch(input_of(one)) for one in self._layers)

        def run(x: Array) -> None:
            if len(x) < least:
                return
            # Of the first sample, because zeros are no targets of every loss.
            wanted = np.repeat(targets[:1], len(x), axis=0)
            self.gradients(x, wanted, loss, np.random.default_rng(0))
            y = self._through(self._parts, x)  # validation
            if y is not None:
                loss.values(y, wanted)
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
                purpose += [",".join(self._weights.trained(one)) for one in self._layers]
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

    def _through(self, parts: list[_Run | _Alone], x: Array) -> Array | None:
        if self._only is not None:  # compiled code alone
            output = self._only.forward(x, None)
            return None if output is None else output[0]
        return self._through_all(parts, x)

    @unreported
    def _through_all(self, parts: list[_Run | _Alone], x: Array) -> Array | None:
        for part in parts:
            found = part.forward(x, None)
            if found is None:
                return None
            x = found[0]
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
        """:meth:`gradients` and then the optimizer's step: in one call, where one run is all."""
        purpose: Purpose = "train" if targets.ndim == 1 else "train on rows"
        if purpose not in self._prepared:
            self.prepare_training(x, targets, loss, optimizer)
        part, weights, ahead = self._only, self._weights, None
        if part is not None and type(loss) is CrossEntropy:
            ahead = optimizer.ahead(weights.parameters)
        if part is None or ahead is None:
            with unchanged_by_errors(self._state):
                found = self.gradients(x, targets, loss, rng, sample_weights)
                if found is not None:
                    weights.move(optimizer)
            return found
        moves = self._moves(*ahead)
        went = part.step(x, targets, loss, sample_weights, moves, checks=self._padded)
        if went is None:
            return None
        optimizer.count_step()
        return went[:2]

    def _moves(self, loop: Any, state: list[Array], numbers: Array) -> Array:
        """An optimizer's step, as those of programs."""
        of, arrays, told, moves = self._last
        same = loop is of and numbers is told and len(state) == len(arrays)
        if not (same and all(map(is_, state, arrays))):
            moves = np.concatenate(self._steps_of(loop, state, numbers))
            self._last = loop, state, numbers, moves
        return moves

    def _steps_of(self, loop: Any, state: list[Array], numbers: Array) -> list[Array]:
        """Steps of the optimizer on each span of the parameters that training moves."""
        parts = []
        for some in self._weights.spans:
            p, g = self._weights.parameters[some], self._weights.gradient[some]
            # Optimizers without state pass the gradient in its place, which the kernel never reads.
            first, second = [*(array[some] for array in state), g, g][:2]
            operands = p, g, first, second, numbers
            one = program.step(loop, operands, p.size, *map(constant, operands))
            parts += program.parts(one, 1 + p.size // _MOVED)
        return parts

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

        None where single operations must decide: the loss is not finite, or padding by zeros met
        a number that is not. Then nothing has changed but the gradient.
        """
        if not (self._chance or self._state):
            return self._gradients(x, targets, loss, rng, sample_weights)
        before = self._chance and rng.bit_generator.state
        try:
            with unchanged_by_errors(self._state):
                found = self._gradients(x, targets, loss, rng, sample_weights)
                if found is None:
                    raise _Undecided
        except _Undecided:
            if before:
                rng.bit_generator.state = before
            return None
        return found

    def _gradients(
        self,
        x: Array,
        targets: Array,
        loss: Loss,
        rng: np.random.Generator,
        sample_weights: Array | None,
    ) -> tuple[float, float] | None:
        parts = list(self._parts)
        last = parts[-1]
        if fused := isinstance(last, _Run) and type(loss) is CrossEntropy:
            parts.pop()
        saved = []
        for i, part in enumerate(parts):
            goes_back = i >= self._first
            output = part.forward(x, rng if goes_back or not part.alike else None)
            if output is None:
                return None
            x = output[0]
            saved.append(output[1] if goes_back else None)
        dy: Array | None
        correct: float
        if fused:
            assert isinstance(last, _Run)
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
        for part in reversed(parts[self._first :]):
            assert dy is not None
            dy = part.backward(dy, saved.pop())
        # Padding makes NaN of what is infinite: the plain loops tell where it is not.
        if self._padded and not all_finite(self._weights.gradient):
            return None
        return total, correct


class _Undecided(Exception):
    """Single operations must decide."""


class _Alone:
    """A layer that sees the whole batch, and those that are done with it."""

    padded = False
    alike = False  # in training and prediction; nobody knows of a layer of a user's own

    def __init__(
        self,
        layers: Sequence[Layer],
        layer: Layer,
        weights: Weights,
        gradients: dict[str, Array],
        needs_dx: bool,
    ) -> None:
        self.layer: Any = layer
        self._parameters, self._dtype = weights.of(layer), weights.parameters.dtype
        self._layers, self._gradients, self._needs_dx = layers, gradients, needs_dx
        self._reason = stands_alone(layer, weights.parameters.dtype) or "nothing to compile"
        self.trained = bool(gradients)

    def explain(self) -> str:
        return f"alone: {', '.join(map(repr, self._layers))}, {self._reason}"

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Any] | None:
        y, saved = self.layer.forward(x, rng is not None, rng, None)
        return self._as_kernels_take("forward", y, (len(x), *self.layer.output_shape)), saved

    def backward(self, dy: Array, saved: Any) -> Array | None:
        dx, found = self.layer.backward(dy, saved, None, needs_dx=self._needs_dx)
        for name, gradient in found.items():
            if name in self._gradients:
                self._gradients[name][...] = gradient
        if not self._needs_dx:
            return None
        return self._as_kernels_take("backward", dx, (len(dy), *self.layer.input_shape))

    def _as_kernels_take(self, method: str, array: Any, shape: tuple[int, ...]) -> Array:
        """What a method has given, because a kernel takes it by its address."""
        if type(array) is np.ndarray and array.dtype is self._dtype and array.shape == shape:
            return np.ascontiguousarray(array)
        return numbers(Source(self.layer, method), "an array", array, shape, self._dtype)


class _AloneConvolution(_Alone):
    """As the layer itself does it, without the checks of each operation, and max-pooling with it.

    Where Winograd's filtering pools, what is pooled never lies in memory, and the way back need not
    look for the largest: a step of a net with 64 channels of 24×24 pixels before its pooling takes
    18.6 ms for 32 images instead of 22.2 (two threads, Zen 3, AVX2).
    """

    alike = True

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._activation = "relu" if any(map(is_relu, self._layers)) else None
        self._ways: dict[int, _Ways] = {}

    def _way(self, count: int) -> _Ways:
        way = self._ways.get(count)
        if way is None:
            if len(self._ways) >= _BATCHES:
                self._ways.clear()
            dtype = self._parameters["w"].dtype
            way = self._ways[count] = _ways(self._layers, count, dtype)
        return way

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Any] | None:
        parameters, way = self._parameters, self._way(len(x))
        given = x, parameters["w"], parameters.get("b"), self._activation, way.geometry
        if way.at_once and rng is None:
            return winograd.conv2d_pooled(*given), None
        if way.at_once:
            y, before = winograd.conv2d_pooled_with_indices(*given)
        else:
            before = way.forward(*given)
            y = max_pool2d(before, way.pooling) if way.pooling else before
        return y, None if rng is None else (x, y, before)

    def backward(self, dy: Array, saved: Any) -> Array | None:
        x, y, before = saved
        way = self._way(len(x))
        g = way.geometry
        if self._activation:  # while it is small: the largest is above 0, or no number is
            dy = _through_relu(dy, y)
        if "b" in self._gradients:  # nothing is lost on the way back through the pooling
            self._gradients["b"][...] = way.to_bias(dy, way.geometry_of_dy)
        if way.pooling:
            unpooled = argmax_gradient if way.at_once else max_pool2d_backward
            dy = unpooled(dy, before, way.pooling)
        dx = way.to_input(dy, self._parameters["w"], g) if self._needs_dx else None
        if self.trained:
            self._gradients["w"][...] = way.to_filters(dy, x, g)
        return dx


class _Ways(NamedTuple):
    """What computes a convolution of some samples, under the ``math`` of the executor.

    With ``at_once`` the pooling too, and gradients go back by the places that it tells.
    """

    geometry: ConvGeometry
    geometry_of_dy: ConvGeometry  # with the pixels that the pooling leaves
    pooling: PoolGeometry | None
    at_once: bool
    forward: Callable[..., Array]
    to_input: Callable[..., Array]
    to_filters: Callable[..., Array]
    to_bias: Callable[..., Array]


def _ways(layers: Sequence[Layer], count: int, dtype: np.dtype[Any]) -> _Ways:
    layer: Any = layers[0]
    g = layer.geometry(layer.input_shape, count)
    forward, to_input, to_filters = (
        choose(op, g, dtype, None, layer.algorithm)
        for op in ("conv2d", "conv2d_input_gradient", "conv2d_filter_gradient")
    )
    pooling = pooling_of(layers[-1], count) if len(layers) > 1 else None
    at_once = forward is winograd.conv2d and pooling is not None and pools_squares(pooling)
    to_bias = choose("conv2d_bias_gradient", g, dtype, None)
    of_dy = g._replace(oh=pooling.oh, ow=pooling.ow) if pooling else g
    return _Ways(g, of_dy, pooling, at_once, forward, to_input, to_filters, to_bias)


def _through_relu(dy: Array, y: Array) -> Array:
    return relu_backward(dy.reshape(-1), y.reshape(-1)).reshape(dy.shape)


class _AloneDense(_Alone):
    """The weights' gradient, often most of all bytes, is written where it belongs."""

    alike = True

    def forward(self, x: Array, rng: np.random.Generator | None) -> tuple[Array, Any] | None:
        layer, flat = self.layer, x.reshape(len(x), *self.layer.input_shape)
        w, b = self._parameters["w"], self._parameters.get("b")
        y = dense(flat, w, b, layer.activation)
        return y, (x, y)

    def backward(self, dy: Array, saved: Any) -> Array | None:
        x, y = saved
        if self.layer.activation:
            dy = _through_relu(dy, y)
        flat = x.reshape(len(x), *self.layer.input_shape)
        dx = arrays.allocate(flat.shape, x.dtype) if self._needs_dx else None
        given, w = self._gradients, self._parameters["w"]
        dense_gradients(dy, flat, w, dx, given.get("w"), given.get("b"))
        return None if dx is None else dx.reshape(x.shape)


class _Run:
    """Layers that one call takes a slice through.

    What is saved for the way back is the input, the output, the workspace, and the programs.
    """

    alike = True

    def __init__(self, layers: Sequence[Layer], weights: Weights, needs_dx: bool) -> None:
        self._plans = Plans(layers, weights, needs_dx)
        self._dtype = weights.parameters.dtype
        output = layers[-1].output_shape
        assert output is not None
        self._output, self._needs_dx = output, needs_dx
        self.padded = bool(self._plans.padded)
        self.trained = bool(self._plans.parameters.size)

    def explain(self) -> str:
        return f"compiled together: {', '.join(map(repr, self._plans.layers))}"

    def forward(
        self, x: Array, rng: np.random.Generator | None, purpose: str = "predict"
    ) -> tuple[Array, Any] | None:
        if self.padded and not all(map(all_finite, self._plans.padded)):
            return None
        if not len(x):
            return arrays.allocate((0, *self._output), self._dtype), None
        purpose = purpose if rng is None else "train"
        made = self._plans.made(len(x), purpose, x.itemsize == 1)
        scratch = made.scratch()
        if rng is None and scratch.output is not None:
            run(made.forward, scratch.address, scratch.places, address(x), scratch.output_address)
            y = scratch.output.copy()
        else:
            y = arrays.allocate((len(x), *self._output), self._dtype)
            run(made.forward, scratch.address, scratch.places, address(x), address(y))
        if rng is None:
            made.give_back(scratch)
            return y, None
        return y, (x, y, scratch, made)

    def backward(self, dy: Array, saved: Any) -> Array | None:
        x, y, scratch, made = saved
        if dy.shape != y.shape or dy.dtype is not self._dtype or not dy.flags.c_contiguous:
            dy = numbers("the layer or loss behind", "a gradient", dy, y.shape, self._dtype)
        self._turn(made, scratch)
        dx = arrays.allocate(x.shape, self._dtype) if self._needs_dx else _NONE
        if made.backward is not None:
            at = address(x), address(y), address(dy), address(dx)
            run(made.backward, scratch.address, scratch.places, *at)
        self._finish(made, scratch, x, dy)
        made.give_back(scratch)
        return dx

    def step(
        self,
        x: Array,
        targets: Array,
        loss: Loss,
        sample_weights: Array | None,
        moves: Array = NO_STEPS,
        *,
        checks: bool = False,
    ) -> tuple[float, int, Array] | None:
        """Forward, softmax cross-entropy, backward: loss, samples that are right, ``dx``.

        Targets are class numbers or rows of probabilities. Then the ``moves`` of an optimizer,
        which are left out if the loss is not finite or, with ``checks``, the gradient.
        """
        if self.padded and not all(map(all_finite, self._plans.padded)):
            return None
        assert isinstance(loss, CrossEntropy)
        if loss.label_smoothing:
            targets = loss.smoothed(targets, self._output[0], self._dtype)
        purpose = "step" if targets.ndim == 1 else "soft step"
        made = self._plans.made(len(x), purpose, x.itemsize == 1)
        assert made.training is not None
        scratch = made.scratch()
        dx = arrays.allocate(x.shape, self._dtype) if self._needs_dx else _NONE
        weights = made.ones_address if sample_weights is None else address(sample_weights)
        at = address(x), address(dx) if self._needs_dx else 0, address(targets), weights
        checked = self._plans.gradient if checks else self._plans.gradient[:0]
        where = scratch.address, scratch.numbers, scratch.places, scratch.found
        train(made.training, *where, checked, moves, *at)
        total, correct = scratch.found.tolist()
        made.give_back(scratch)
        return None if isnan(total) else (total, int(correct), dx)

    def _turn(self, made: Made, scratch: Scratch) -> None:
        if made.turns is not None:
            run_apart(made.turns, scratch.address, 4 * self._plans.parameters.size)

    def _finish(self, made: Made, scratch: Scratch, x: Array, dy: Array) -> None:
        """Make one of the gradients of the slices."""
        if made.after is not None:
            work = 4 * len(x) * self._plans.parameters.size
            run_apart(made.after, scratch.address, work, address(x), address(dy))
