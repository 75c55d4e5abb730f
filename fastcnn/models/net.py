"""``Net``: the graph of a model's layers with their arrays, and how one batch runs through it.

Training, files and predictions of a :class:`fastcnn.Model` stand on it, and it knows none of them.
Layers run through ``_forward_batch``, ``_gradients`` and ``_step`` alone: as compiled programs
where these serve, else layer by layer (:mod:`fastcnn.models.layer_by_layer`).

**Building** happens once, however many threads make the first call: the others wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from math import inf
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array
from fastcnn.core.attributes import suggestion
from fastcnn.core.capacity import affordable
from fastcnn.core.class_registry import is_own
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import generator, truth
from fastcnn.core.settings import get_math, use_math
from fastcnn.core.user_code import unchanged_by_errors
from fastcnn.data.class_names import check_number
from fastcnn.data.image_sets import ImageSet
from fastcnn.data.known_inputs import Knowledge, knowledge, knowledge_from
from fastcnn.data.on_demand import SamplesOnDemand
from fastcnn.data.pixel_scaling import CENTRED, check_channels
from fastcnn.data.preparation import Preparation
from fastcnn.data.scaling import KnownSamples
from fastcnn.data.several import Data, Several, in_order, of_equal_length, parts_of
from fastcnn.engine.registry import checked_engine, imported, whole_nets_refused
from fastcnn.models import layer_by_layer
from fastcnn.models.graph import Graph, chain, names_of
from fastcnn.models.inheritance import TRAITS, inherited, note_ends
from fastcnn.models.inputs import Inputs, batch, layout_doubt, samples
from fastcnn.models.layer_by_layer import Observer
from fastcnn.models.other_libraries import no_attribute
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import (
    INSTEAD,
    BatchNorm,
    FixedList,
    Layer,
    Ownership,
    Shape,
    Tensor,
    all_layers,
    input_of_call,
    settle,
)
from fastcnn.nn.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from fastcnn.nn.optimizers import SGD, Optimizer
from fastcnn.train.output_losses import Goal, Losses, OutputLosses, goal_named, implied_by
from fastcnn.train.progress import Progress

if TYPE_CHECKING:
    from fastcnn.models.execution import Executor

# One for all models, because a model with a lock of its own could not be pickled.
_building = RLock()


def _after_fork() -> None:
    global _building
    _building = RLock()  # the child lacks the thread that may hold the old lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Net:
    """A graph of layers, with the arrays that they share; :class:`fastcnn.Model` says more."""

    def __init__(
        self,
        graph: Graph,
        *,
        seed: int | None = None,
        dtype: Literal["float32", "float64"] = "float32",
        engine: str | None = None,
        owns_layers: bool = False,
    ) -> None:
        self._ownership = Ownership()
        copies = list(graph.layers) if owns_layers else _copied(graph.layers)
        self._graph = graph.with_layers(copies)
        self.layers: Sequence[Layer] = FixedList(copies)
        name = dtype if isinstance(dtype, str) else getattr(dtype, "name", None)
        if not isinstance(name, str) or name not in ("float32", "float64"):
            raise ValueError(f'dtype must be "float32" or "float64", got {quoted(dtype)}')
        self.dtype = np.dtype(dtype)
        self.engine = engine
        self.rng = generator("seed", seed)
        self._seeded = seed is not None
        self.input_shape: Shape | tuple[Shape, ...] | None = None
        self.output_shape: Shape | tuple[Shape, ...] | None = None
        self.loss: Goal | None = None
        # Default losses; the model's own objects, because ``loss`` may become one of them.
        self._usual, self._of_sigmoid = CrossEntropy(), BinaryCrossEntropy()
        self._raw, self._ends_in_vector = MeanSquaredError(), True
        self._is_part = False  # of another model, so that it predicts what its last layers give
        self._knowledge: Knowledge = knowledge(self._graph.inputs)
        self._preparation: Preparation | None = None
        self._classes: tuple[str, ...] | None = None
        if not owns_layers and (traits := inherited(graph)) is not None:
            self._knowledge = knowledge_from(traits.kind, None, graph.inputs, traits.scaling)
            self._preparation, self._classes = traits.preparation, traits.classes
            self.loss, self._is_part = traits.loss, traits.is_part
        self.stop_training = False
        self.progress: Progress | None = None
        self._own_sgd = SGD(0.005)
        # What is derived from the layers, in their version ``_derived_for``.
        self._executors: dict[tuple[Graph, str], Executor | None] = {}
        self._trunks: dict[tuple[str | None, ...], Graph] = {}
        self._raw_shapes: dict[Graph, Any] = {}
        self._figures: dict[str, float] = {}  # sums of the last batch, of each of several outputs
        self._least_batch: float = 1
        self._derived_for = -1
        # During a build, the attributes of layers and the state of the generator from before.
        self._unfinished: tuple[list[tuple[Layer, dict[str, Any]]], Any] | None = None
        self._fits = 0  # the id of the process in which a fit runs

    @classmethod
    def of_graph(cls, graph: Graph, dtype: Literal["float32", "float64"]) -> Self:
        """A model of this class that is not built, of a graph as it is in a file."""
        model = cls.__new__(cls)
        Net.__init__(model, graph, dtype=dtype)
        return model

    if not TYPE_CHECKING:  # a type checker would take any attribute for one that there is

        def __getattr__(self, name: str) -> NoReturn:
            raise no_attribute(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        # Only this method knows which attributes may not be set, and which values others take.
        if name[0] != "_":
            fixed = _INSTEAD.get(name)
            if fixed is not None and (name in _COMPUTED or hasattr(self, name)):
                raise AttributeError(f"{name} of a model cannot be set; {fixed}")
            if name in _CHECKED:
                value = _CHECKED[name](self, value)
                if name in TRAITS:
                    self._ownership.traits[name] = value
            elif fixed is None and not hasattr(type(self), name) and is_own(type(self)):
                raise AttributeError(
                    f"{type(self).__name__} has no attribute {name!r}"
                    + suggestion(name, (*_CHECKED, *_INSTEAD, "trainable", "stop_training"))
                )
        elif name in TRAITS:
            self._ownership.traits[name] = value
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in _CHECKED or name in _INSTEAD:
            raise AttributeError(f"{name} of a model cannot be taken away")
        super().__delattr__(name)

    # --- building ---------------------------------------------------------------------------------

    @property
    def built(self) -> bool:
        """Whether shapes are known and parameters drawn."""
        return self.input_shape is not None

    def _build_anew(self, shapes: tuple[Shape, ...]) -> None:
        """Build the model; a model that is built already is a ``ValueError``."""
        with _building:
            if self.built:
                raise ValueError(
                    f"the model is built already, for inputs of shape {self.input_shape}"
                )
            self._build(shapes)

    def _build_with(self, shapes: tuple[Shape, ...], rng: np.random.Generator | None) -> None:
        """Build the model and go on with ``rng``, if there is one.

        A model with a seed of its own draws its parameters from that seed.
        """
        with _building:
            if self._seeded:
                self._build_once(shapes)
            if rng is not None:
                self.rng = rng
            self._build_once(shapes)

    def _build_once(self, shapes: tuple[Shape, ...]) -> None:
        """Build the model, unless another thread has built it for samples of these shapes."""
        with _building:
            if not self.built:
                self._build(shapes)
        if shapes != self._known_shapes():
            shape = shapes if len(shapes) > 1 else shapes[0]
            raise ValueError(f"x must hold samples of shape {self.input_shape}, got {shape}")

    def _build(self, input_shapes: tuple[Shape, ...]) -> None:
        settle(self.layers)
        names = names_of(self.layers)
        for shape in input_shapes:
            self._doubt_layout("input_shape", shape)
            check_channels(self._knowledge.scaling, shape)
        values = self._graph.infer(input_shapes)  # nothing is drawn where a layer does not fit
        shapes = self._graph.input_shapes(values)
        check_number(self._classes, [values[value] for value in self._graph.outputs])
        for layer, one in zip(self.layers, shapes, strict=True):
            for name, spec in (layer.parameter_specs(one) | layer.state_specs(one)).items():
                affordable(f"{name} of {quoted(layer)}", spec.shape, self.dtype, copies=3)
        if self._unfinished is not None:  # by a thread that a fork has lost
            self._undo(*self._unfinished)
        before = [(one, vars(one).copy()) for one in all_layers(self.layers)]
        self._unfinished = before, self.rng.bit_generator.state
        try:
            for i, (layer, one) in enumerate(zip(self.layers, shapes, strict=True)):
                arrays_before = arrays_of(layer)
                if _is_built_for(layer, one, self.dtype):
                    layer.state = {k: np.array(v, order="C") for k, v in layer.state.items()}
                    continue
                layer.build(one, self.rng, self.dtype)
                _check_inside(layer)
                arrays = dict(arrays_of(layer))
                for name, array in arrays_before:
                    expected = arrays[name].shape if name in arrays else "no such array"
                    if array.shape != expected:
                        raise ValueError(
                            f"layer {i}, {quoted(layer)}, is built and holds {name} of shape "
                            f"{array.shape}, but for an input of shape {one} it needs {expected}: "
                            f"make a new layer, or give it the input that it was built for"
                        )
                    arrays[name][...] = array
            if self.built:  # meanwhile, by a signal handler on this thread
                return
            weights = Weights(self.layers, self.dtype)
            self._ownership.take([*all_layers(self.layers)])
        except BaseException as error:
            if self._unfinished is not None:
                self._undo(*self._unfinished)
            if self.built and isinstance(error, AttributeError):
                return  # by a signal handler, after which the layers refuse to be built again
            raise
        self._weights, self._executors, self._unfinished = weights, {}, None
        self._name_layers(names, values)
        outputs = tuple(values[value] for value in self._graph.outputs)
        self._ends_in_vector = not self._is_part and all(len(shape) == 1 for shape in outputs)
        # Not through the dict, see fastcnn/core/attributes.py. The input's shape is last, because
        # it tells other threads that all of the model is built.
        object.__setattr__(self, "output_shape", outputs if len(outputs) > 1 else outputs[0])
        several = len(input_shapes) > 1
        object.__setattr__(self, "input_shape", input_shapes if several else input_shapes[0])

    def _name_layers(self, names: Sequence[str], shapes: Sequence[Shape]) -> None:
        """Give the layers their names, and the tensors of this model's graph."""
        graph = self._graph
        note_ends(self._ownership, graph)
        tensors = [Tensor(shapes[i], name=name) for i, name in enumerate(graph.names)]
        outputs: dict[int, list[Tensor]] = {}
        calls: dict[int, dict[Any, Shape]] = {}
        for node in graph.nodes:
            inputs = tuple(tensors[value] for value in node.inputs)
            tensors.append(Tensor(shapes[node.output], node.layer, inputs))
            outputs.setdefault(id(node.layer), []).append(tensors[-1])
            input_shape = input_of_call(node.layer, [tensor.shape for tensor in inputs])
            calls.setdefault(id(node.layer), {})[input_shape] = shapes[node.output]
        for layer, name in zip(self.layers, names, strict=True):
            of_layer = tuple(calls[id(layer)].items())
            vars(layer).update(_name=name, _outputs=tuple(outputs[id(layer)]), _calls=of_layer)
        ends = tuple(tensors[value] for value in graph.outputs)
        self._tensors = tuple(tensors[: graph.inputs]), ends

    def _undo(self, before: list[tuple[Layer, dict[str, Any]]], state: Any) -> None:
        """Restore layers and generator after a build that did not end."""
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)
        self.rng.bit_generator.state = state
        self._unfinished = None

    def _normalises(self) -> bool:
        """Whether the first layer makes the scale of the samples irrelevant."""
        return isinstance(self.layers[0], BatchNorm)

    def __copy__(self) -> Self:
        return deepcopy(self)  # a layer's arrays are parts of one model's

    def __getstate__(self) -> dict[str, object]:
        left_out = (
            "_weights", "_executors", "_unfinished", "_ownership", "_derived_for", "_fits",
            "_trunks", "_raw_shapes", "_tensors", "_figures",
        )  # fmt: skip
        with _building:  # layers that another thread builds are not copied half
            state = {name: value for name, value in vars(self).items() if name not in left_out}
            if not self.built:
                copies = _copied(self.layers)
                state |= {"layers": FixedList(copies), "rng": deepcopy(self.rng)}
                state["_graph"] = self._graph.with_layers(copies)
            return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # The arrays of a copied or pickled model's layers are no longer parts of one array.
        if "trained_on" in state:  # pickled by an earlier version
            state = dict(state)
            state["_knowledge"] = KnownSamples(state.pop("trained_on"))
            state["_preparation"] = None
        if "_classes" not in state:  # pickled by a version without names of classes
            state = state | {"_classes": None}
        if "_known" in state:  # the attribute's name in earlier versions
            state = dict(state)
            state["_knowledge"] = state.pop("_known")
        if "_graph" not in state:  # pickled by a version without graphs
            state = state | {"_graph": chain(state["layers"])}
        for name, value in (state | {"layers": FixedList(state["layers"])}).items():
            object.__setattr__(self, name, value)
        self._executors, self._unfinished, self._fits = {}, None, 0
        self._trunks, self._raw_shapes, self._figures = {}, {}, {}
        self._ownership, self._derived_for = Ownership(), -1
        self._ownership.traits.update({name: state[name] for name in TRAITS})
        if "_is_part" not in state:  # pickled by a version without it
            object.__setattr__(self, "_is_part", False)
        if self.built:
            self._weights = Weights(self.layers, self.dtype)
            self._ownership.take([*all_layers(self.layers)])
            self._name_layers(names_of(self.layers), self._graph.infer(self._known_shapes()))
        if self.progress is not None:
            self.progress.optimizer.belong(self._ownership, self.progress)

    def _known_shapes(self) -> tuple[Shape, ...]:
        """The shape of each input of a built model."""
        if self.input_shape is None:
            raise ValueError("input_shape must be known: give it to Sequential, or fit the model")
        shapes: Any = self.input_shape if self._graph.inputs > 1 else (self.input_shape,)
        return tuple(shapes)

    # --- weights ----------------------------------------------------------------------------------

    def _arrays(self) -> list[tuple[str, Array]]:
        """Every array of the model with its name: layer by layer, parameters before state."""
        return [
            (f"layers.{i}.{name}", array)
            for i, layer in enumerate(self.layers)
            for name, array in arrays_of(layer)
        ]

    def get_weights(self) -> list[Array]:
        """Copies of all arrays, layer by layer: parameters, then running statistics.

        Raises ``ValueError`` before the model is built.
        """
        self._known_shapes()
        return [array.copy() for _, array in self._arrays()]

    @unreported
    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Write the arrays of :meth:`get_weights` into the model.

        Raises ``ValueError`` for another number of arrays or another shape, before any is written.
        """
        self._known_shapes()
        arrays = self._arrays()
        if len(weights) != len(arrays):
            raise ValueError(f"weights must be {len(arrays)} arrays, got {len(weights)}")
        new = [np.asarray(values) for values in weights]
        for (name, array), values in zip(arrays, new, strict=True):
            if values.shape != array.shape or values.dtype.kind not in "fiub":
                raise ValueError(
                    f"weights must hold numbers of shape {array.shape} for {name}, got "
                    f"{values.dtype} of shape {values.shape}"
                )
        for (_, array), values in zip(arrays, new, strict=True):
            array[...] = values

    # --- running layers ---------------------------------------------------------------------------

    def _forward_batch(self, images: Data, loss: Goal | None = None) -> Any:
        """Raw outputs of the layers for samples (N, …), bytes or floats; a list of several.

        Without the last layer, where it is the activation that the loss (by default the model's)
        implies.
        """
        trunk = self._trunk(loss or self._predicting())
        executor, results = self._executor(trunk), None
        if executor is not None:
            results = executor.forward(self._executor_inputs(images, executor, training=False))
        if results is None:
            results = layer_by_layer.forward(trunk, self._batch(images), self.engine)
        return results if len(results) > 1 else results[0]

    def _batch(self, images: Data) -> list[Array]:
        """Samples as the layers take them, one array for each input."""
        scaling = self._knowledge.scaling
        return [batch(np.asarray(part), self.dtype, scaling) for part in parts_of(images)]

    def _gradients(
        self,
        images: Data,
        targets: Data,
        loss: Goal,
        rng: np.random.Generator,
        weights: Array | None = None,
        optimizer: Optimizer | None = None,
        observe: Observer | None = None,
    ) -> tuple[float, float, list[dict[str, Array]]]:
        """One batch forward and backward: sum of the losses, samples that are right, gradients.

        With the ``optimizer`` that will take a step, the kernels of such steps are compiled first.
        ``weights`` (N,) of the model's dtype say how much each sample's loss counts. ``observe``
        gets the outputs.
        The gradients are those of the mean loss, and are views of ``self._weights.gradient``,
        one dict for each layer. Nothing of the model changes but running statistics, and those
        only where the loss is finite; else ``FloatingPointError`` is raised.
        """
        executor, before = self._executor(self._trunk(loss)), len(observe or ())
        if executor is not None:
            samples = self._executor_inputs(images, executor, training=True)
            if optimizer is not None:
                executor.prepare_step(samples, targets, loss, optimizer)
            result = executor.gradients(samples, targets, loss, rng, weights, observe)
            if result is not None:
                total, correct, self._figures = result
                return total, correct, self._weights.gradients
        if observe is not None:
            observe.truncate(before)
        sums = self._one_by_one(images, targets, loss, rng, weights, observe)
        return *sums, self._weights.gradients

    def _one_by_one(
        self,
        images: Data,
        targets: Data,
        loss: Goal,
        rng: np.random.Generator,
        weights: Array | None,
        observe: Observer | None = None,
    ) -> tuple[float, float]:
        """As ``_gradients``, layer by layer, with the engine asked for."""
        total, correct, self._figures = layer_by_layer.gradients(
            self._trunk(loss), self._weights, self._batch(images), targets, loss, rng,
            self.engine, weights, observe,
        )  # fmt: skip
        return total, correct

    def _step(
        self,
        images: Data,
        targets: Data,
        loss: Goal,
        optimizer: Optimizer,
        weights: Array | None = None,
        observe: Observer | None = None,
    ) -> tuple[float, float]:
        """As :meth:`_gradients`, and then the optimizer's step."""
        executor, before = self._executor(self._trunk(loss)), len(observe or ())
        if len(images) < self._least_batch:
            raise ValueError(too_few("x must hold", self._least_batch, len(images)))
        if executor is not None:
            samples = self._executor_inputs(images, executor, training=True)
            result = executor.step(samples, targets, loss, self.rng, optimizer, weights, observe)
            if result is not None:
                total, correct, self._figures = result
                return total, correct
        if observe is not None:
            observe.truncate(before)
        with unchanged_by_errors(array for layer in self.layers for array in layer.state.values()):
            sums = self._one_by_one(images, targets, loss, self.rng, weights, observe)
            self._weights.move(optimizer)
        return sums

    def _executor(self, trunk: Graph) -> Executor | None:
        """The executor of these layers; None where they run layer by layer."""
        if self._derived_for != self._ownership.version:
            self._derive()
        if whole_nets_refused(self.engine) is not None:
            return None
        math = get_math()  # once, because another thread may set it meanwhile
        key = trunk, math
        try:
            return self._executors[key]
        except KeyError:
            imported("fastcnn.models.execution")
            from fastcnn.models.execution import Executor, compiles

            new = None
            if compiles():
                with use_math(math):
                    new = Executor(trunk, self._weights, self._known_shapes())
            return self._executors.setdefault(key, new)  # all threads use one

    def _give_up_memory(self) -> None:
        """Give up memory that a training needed and that nothing needs now."""
        for executor in list(self._executors.values()):
            if executor is not None:
                executor.give_up_memory()

    def _derive(self) -> None:
        """Derive anew what depends on the layers, after they have changed."""
        version = self._ownership.version
        self._weights.update()
        self._executors = {}
        values = self._graph.infer(self._known_shapes())
        self._least_batch = self._graph.least_batch(values)
        if self._weights.frozen and not self._weights.spans:
            self._least_batch = inf
        self._derived_for = version

    def _executor_inputs(self, images: Data, executor: Executor, *, training: bool) -> list[Array]:
        """Samples as the executor reads them: bytes where it can, else the model's dtype."""
        result, scaling = list[Array](), self._knowledge.scaling
        for part in parts_of(images):
            array = part if isinstance(part, np.ndarray) else np.asarray(part)
            is_bytes = array.dtype is not self.dtype and array.dtype == np.uint8
            if is_bytes and scaling == CENTRED and executor.takes_bytes(training):
                result.append(np.ascontiguousarray(array))
            else:
                result.append(batch(array, self.dtype, scaling))
        return result

    def _trunk(self, loss: Goal) -> Graph:
        """The graph without the last layers that the loss implies."""
        implied = implied_by(loss, len(self._graph.outputs))
        try:
            return self._trunks[implied]
        except KeyError:
            return self._trunks.setdefault(implied, self._graph.without_last(implied))

    def _loss(self) -> Goal:
        if self.loss is not None:
            return self.loss
        graph = self._graph
        usual: list[Loss] = []
        for value in graph.outputs:
            last = type(graph.nodes[value - graph.inputs].layer).__name__
            usual.append(self._of_sigmoid if last == "Sigmoid" else self._usual)
        return usual[0] if len(usual) == 1 else OutputLosses(self._output_names(), usual)

    def _output_names(self) -> list[str]:
        """The names of the outputs, which are those of the last layers."""
        names, graph = names_of(self.layers), self._graph
        index = {id(layer): i for i, layer in enumerate(self.layers)}
        last = [graph.nodes[value - graph.inputs].layer for value in graph.outputs]
        return [names[index[id(layer)]] for layer in last]

    def _input_names(self) -> list[str]:
        """The names of the inputs: their own, or "input_0" and so on."""
        return [name or f"input_{i}" for i, name in enumerate(self._graph.names)]

    def _goal(
        self, loss: Losses, weights: Sequence[float] | Mapping[str, float] | None = None
    ) -> Goal:
        """The loss or losses of an argument."""
        several = len(self._graph.outputs) > 1
        return goal_named(loss, self._output_names() if several else None, weights)

    def _samples(self, name: str, x: Inputs | SamplesOnDemand | ImageSet) -> Any:
        """Samples of the input, or of each of several, as views with checked shapes."""
        if isinstance(x, ImageSet):
            x = x.images
        if isinstance(x, SamplesOnDemand):
            if self._graph.inputs > 1 or x.shape[1:] != self.input_shape:
                raise ValueError(
                    f"{name} must hold samples of shape {self.input_shape}, got {x.shape[1:]}"
                )
            return x
        if self._graph.inputs == 1:
            try:
                return samples(name, x, self.input_shape)  # type: ignore[arg-type]
            except ValueError as error:
                hint = self._for_other_samples(np.shape(x)[1:]) if hasattr(x, "shape") else ""
                if not hint:
                    raise
                raise ValueError(f"{error}{hint}") from None
        names, shapes = self._input_names(), self._known_shapes()
        parts = in_order(name, x, names, "input")
        checked = [
            samples(f"{name}[{label!r}]", part, shape)  # type: ignore[arg-type]
            for label, part, shape in zip(names, parts, shapes, strict=True)
        ]
        return of_equal_length(name, Several(tuple(checked)), names)

    def _predicting(self) -> Goal:
        """The loss whose ``predictions`` are those of the model."""
        loss = self._loss()
        if self.loss is not None:
            return loss
        if isinstance(loss, OutputLosses):
            return loss.without_softmax_of_maps(self._output_shapes())
        if self._ends_in_vector or not isinstance(loss, CrossEntropy):
            return loss
        return self._raw  # results of layers that have learned no classes are no scores of classes

    def _for_other_samples(self, shape: Shape) -> str:
        """How to get a model for samples of another shape, as the end of a message."""
        return ""

    def _output_shapes(self) -> tuple[Shape, ...]:
        """The shape of each output of a built model."""
        shapes: Any = self.output_shape if len(self._graph.outputs) > 1 else (self.output_shape,)
        return tuple(shapes)

    def _outputs(self, loss: Goal) -> Any:
        """The shape of the raw outputs, or of each of several."""
        trunk = self._trunk(loss)
        try:
            return self._raw_shapes[trunk]
        except KeyError:
            return self._raw_shapes.setdefault(trunk, outputs_of(trunk, self._known_shapes()))

    def _doubt_layout(self, name: str, shape: Shape, count: int | None = None) -> None:
        """Warn, once, of samples that are probably laid out in another way."""
        doubt = layout_doubt(name, shape, count)
        if doubt is not None:
            self._knowledge.warn_once("layout", doubt)


def _checked_loss(model: Net, value: object) -> Goal | None:
    if getattr(model, "_fits", 0) == os.getpid():
        raise AttributeError(
            "loss of a model cannot be set while a fit runs, because its targets were checked for "
            "the loss that it began with; stop it, and give the next fit another loss"
        )
    if value is None:
        return None
    several = len(model._graph.outputs) > 1
    return goal_named(value, model._output_names() if several else None)


def _checked_rng(model: Net, value: object) -> np.random.Generator:
    if not isinstance(value, np.random.Generator):
        raise TypeError(
            f"rng must be a numpy.random.Generator such as numpy.random.default_rng(0), got "
            f"{value!r}"
        )
    return value


def _checked_kind(model: Net, value: object) -> object:
    inputs = model._graph.inputs
    if inputs > 1:
        if value is not None and (not isinstance(value, tuple | list) or len(value) != inputs):
            raise ValueError(
                f"trained_on must be None, or have a kind for each of {inputs} inputs, got "
                f"{quoted(value)}"
            )
        kinds: Sequence[object] = (None,) * inputs if value is None else value
        return tuple(map(_checked_kind_of_one, kinds))
    return _checked_kind_of_one(value)


def _checked_kind_of_one(value: object) -> object:
    if value not in (None, "uint8", "floats"):
        raise ValueError(f'trained_on must be "uint8", "floats" or None, got {quoted(value)}')
    return value


def _checked_progress(model: Net, value: object) -> Progress | None:
    if value is not None and not isinstance(value, Progress):
        raise TypeError(f"progress must be None or that of a training, got {quoted(value)}")
    if getattr(model, "_fits", 0) == os.getpid():
        raise AttributeError("progress of a model cannot be set while a fit runs")
    return value


_CHECKED: dict[str, Callable[[Net, Any], object]] = {
    "engine": lambda model, value: checked_engine(value),
    "loss": _checked_loss,
    "progress": _checked_progress,
    "rng": _checked_rng,
    "stop_training": lambda model, value: truth("stop_training", value),
    "trained_on": _checked_kind,
}
"""Public attributes that may be set, and what checks the new value."""

_COMPUTED = ("optimizer", "built")
_INSTEAD = {
    "layers": INSTEAD,
    "dtype": "make another model: Sequential(model.layers, model.input_shape, dtype=…), which "
    "keeps the parameters",
    "input_shape": "make another model: Sequential(model.layers, input_shape), or build() one "
    "that has no shape yet",
    "output_shape": "it follows from the layers and the input_shape",
    "optimizer": "give it to fit; learning_rate and the like of the one that is there may be set",
    "built": "build() makes it True",
}
"""Public attributes that cannot be set, and what to do instead."""


def too_few(what: str, least: float, samples: int) -> str:
    """The error for a training batch that is too small."""
    if least == inf:
        return "all layers with parameters are frozen: set trainable=True for one that is to learn"
    return (
        f"{what} at least {least} samples in training, because in a batch of one sample a "
        f"BatchNorm gets one value for each channel, which has no variance; got {samples}"
    )


def _copied(layers: Iterable[Layer]) -> list[Layer]:
    """Copies of the layers, with the values of their arrays."""
    copies, memo = list[Layer](), dict[int, object]()
    for layer in layers:
        try:
            copies.append(deepcopy(layer, memo))
        except Exception as error:
            raise TypeError(
                f"layers must be such as can be copied, got {quoted(layer)}: {error}"
            ) from error
    return copies


def _is_built_for(layer: Layer, input_shape: Shape, dtype: np.dtype[np.generic]) -> bool:
    """Whether a layer of fastcnn's own has all arrays for an input, so that nothing is drawn."""
    if layer.input_shape != input_shape or type(layer).build is not Layer.build:
        return False
    specs = layer.parameter_specs(input_shape) | layer.state_specs(input_shape)
    arrays = dict(arrays_of(layer))
    return arrays.keys() == specs.keys() and all(
        arrays[name].shape == spec.shape and arrays[name].dtype == dtype
        for name, spec in specs.items()
    )


def _check_inside(layer: Layer) -> None:
    """Raise ``ValueError`` for a user's layer whose layers inside would never be trained."""
    if is_own(type(layer)) or layer.inner_layers():
        return
    for inner in all_layers([layer]):
        if inner is not layer and type(inner).parameter_specs is not Layer.parameter_specs:
            raise ValueError(
                f"{quoted(layer)} holds {quoted(inner)}, whose parameters belong to no layer that "
                f"the model knows; derive {type(layer).__name__} from fastcnn.layers.Composite, "
                f"which builds and trains the layers that it holds"
            )


def arrays_of(layer: Layer) -> list[tuple[str, Array]]:
    """All arrays of a layer with their names: parameters, then state."""
    return [*layer.parameters.items(), *layer.state.items()]


def outputs_of(graph: Graph, shapes: Sequence[Shape]) -> Any:
    """The shape of a graph's output, or of each of several, from the shapes of its inputs."""
    values = graph.infer(shapes)
    outputs = tuple(values[value] for value in graph.outputs)
    return outputs if len(outputs) > 1 else outputs[0]
