"""``OnnxModel``: the model of an ONNX file, which plans a program for each shape that comes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from json import dumps
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fastcnn.core.arguments import Array as Floats
from fastcnn.core.files import FilePath
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count
from fastcnn.core.settings import get_math
from fastcnn.data.image_sets import ImageSet
from fastcnn.data.scaling import Kind
from fastcnn.engine.registry import imported, whole_nets_refused
from fastcnn.exchange import onnx_images, onnx_numbers, onnx_products, onnx_shapes
from fastcnn.exchange.onnx_functions import Array, OnnxFileError
from fastcnn.exchange.onnx_metadata import has_images_last
from fastcnn.exchange.onnx_operation import OnnxOperation
from fastcnn.exchange.onnx_reading import Declared, OnnxGraph
from fastcnn.exchange.onnx_store import LayerStore, NeedsWeights
from fastcnn.exchange.onnx_tracing import NeedsInputs, NotBatched, Trace, Value
from fastcnn.models import layer_by_layer
from fastcnn.models.graph import Graph, graph_of
from fastcnn.models.inputs import Source
from fastcnn.models.model import Model
from fastcnn.models.net import Net
from fastcnn.models.weights import Weights
from fastcnn.nn.layers import Layer, Reshape, Shape, Tensor
from fastcnn.nn.layers.description import to_dict
from fastcnn.train.streams import is_stream

EMITTER_MODULES = (onnx_images, onnx_numbers, onnx_products, onnx_shapes)
"""Modules whose functions make layers of nodes; they enter themselves when they are imported."""

MOST_TRACES = 64
MOST_KNOWN = 4096
"""Bytes of inputs whose numbers decide shapes, up to which the layers for them are remembered."""
MOST_PROGRAMS = 16
PROBES = (64, 224, 32, 128, 256, 96, 160, 320, 48, 512, 8, 16, 1, 2048, 16384)
"""Numbers that stand for a free size until samples come."""

TraceKey = tuple[Shape | bytes, ...]
"""The shapes of all inputs, and the bytes of those whose numbers decide shapes."""
Inputs = ArrayLike | Mapping[str, ArrayLike] | Sequence[ArrayLike]


@dataclass(frozen=True)
class Traced:
    """What a file becomes for inputs of known shapes.

    Attributes:
        graph: the layers.
        outputs: the values of the file's outputs.
        used: the numbers of the inputs that the graph takes.
        batched: whether the first axis of all inputs is the batch.
        weights: of the layers, if they are not the model's own.
    """

    graph: Graph
    outputs: tuple[Value, ...]
    used: tuple[int, ...]
    batched: bool
    weights: Weights | None = None


class OnnxModel(Model):
    """The model of an ONNX file; :func:`fastcnn.load_onnx` makes it.

    It is a :class:`fastcnn.Model` for the sizes that the file declares, and trains as such. Where
    the file leaves sizes free, ``predict`` takes any that fit, and plans a program for each shape
    when it first comes; all programs use the same weights.
    """

    def __init__(
        self,
        source: OnnxGraph,
        *,
        channels_last: bool,
        dtype: type[np.float32] | type[np.float64],
        input_shapes: Mapping[str, Shape] | None = None,
    ) -> None:
        store = LayerStore(np.dtype(dtype))
        self._asked_shapes = input_shapes or {}
        self._source, self._channels_last, self._store = source, channels_last, store
        self._whole, self._needed = False, frozenset[str]()
        graph = self._first_graph()
        name: Literal["float32", "float64"] = "float64" if dtype is np.float64 else "float32"
        Net.__init__(self, graph, dtype=name, owns_layers=True)
        self._usual = self._of_sigmoid = self._raw  # type: ignore[assignment]
        shapes = tuple(tensor.shape for tensor in self._starts)
        del self._starts
        self._knowledge.is_known("layout")
        self._build_anew(shapes)
        own_layers = set(map(id, self.layers))
        store.forget([key for key, layer in store.layers.items() if id(layer) not in own_layers])
        if not self._needed:
            store.settle(source)
        self._file_version = self._weights.watch.version()
        self._traces: OrderedDict[TraceKey, Traced] = OrderedDict()
        self._programs: OrderedDict[str, Any] = OrderedDict()
        self._signatures: dict[tuple[int, str, tuple[Shape, ...]], tuple[Graph, str]] = {}

    def _first_graph(self) -> Graph:
        """The layers that the model is built of."""
        self._starts = [Tensor((1,))]
        while not self._needed:
            try:
                graph = self._probe().graph
            except NeedsInputs as error:
                if not error.names:
                    raise OnnxFileError("a shape depends on numbers that nothing gives") from None
                self._needed, self._whole = frozenset(error.names), True
                self._starts = [Tensor((1,))]
                break
            return graph if graph.nodes else _nothing()
        return _nothing()

    # --- traces -----------------------------------------------------------------------------------

    def _probe(self) -> Traced:
        """The trace that the model is built of: of the sizes declared, and some for free ones."""
        errors: list[OnnxFileError] = []
        self._free_batch = any(
            not isinstance((one.shape or (1,))[0], int) for one in self._source.inputs
        )
        for probe in PROBES:
            batches = [1, 2] if self._whole else [2]
            while batches:
                known = len(self._store.layers)
                try:
                    return self._traced_first(batches.pop(0), probe)
                except NotBatched:
                    batches = [1]
                except OnnxFileError as error:
                    errors.append(error)
                self._store.forget(list(self._store.layers)[known:])
            if all(_is_fixed(one) or one.name in self._asked_shapes for one in self._source.inputs):
                break
        raise errors[0]

    def _traced_first(self, batch: int, probe: int) -> Traced:
        """The layers for ``batch`` samples where the file leaves the batch free.

        Raises :class:`NotBatched` where the file mixes several samples. Then the model is built for
        one sample, which most calls have.
        """
        shapes = tuple(self._probe_shape(one, probe, batch) for one in self._source.inputs)
        self._first_shapes = shapes
        return self._traced_for(shapes, None, first=True)

    def _probe_shape(self, declared: Declared, probe: int, batch: int) -> Shape:
        requested = self._asked_shapes.get(declared.name)
        if requested is not None:
            first = (declared.shape or (None,))[0]
            return (first if isinstance(first, int) else batch, *requested)
        if declared.shape is None:
            raise OnnxFileError(
                f"input {quoted(declared.name)} has no declared number of axes, which fastcnn needs"
            )
        free = [side for side in declared.shape[1:] if not isinstance(side, int)]
        batches = {one.shape[0] for one in self._source.inputs if one.shape} - {None}
        result = []
        for i, side in enumerate(declared.shape):
            if isinstance(side, int):
                result.append(side)
            elif i == 0 or side in batches:
                result.append(batch)
            else:
                channels = i == 1 and len(declared.shape) == 4 and len(free) == 3
                result.append(3 if channels else probe)
        return tuple(result)

    def _traced_for(
        self,
        shapes: tuple[Shape, ...],
        arrays: dict[str, Array] | None = None,
        first: bool = False,
        apart: bool = False,
    ) -> Traced:
        """The layers for inputs of these shapes, of which some are known by name.

        With ``apart`` the layers have weights of their own, which are those of the file.
        """
        lead = {shape[0] for shape in shapes if shape}
        can_batch = not self._whole and len(lead) == 1 and all(shapes) and 0 not in lead
        if first and not can_batch and not self._whole:
            self._whole = True
            if self._free_batch:
                raise NotBatched
        if can_batch:
            known = len(self._store.layers)
            try:
                return self._trace(shapes, arrays or {}, batched=True, apart=apart)
            except NotBatched:
                if first:
                    self._store.forget(list(self._store.layers)[known:])
                    self._whole = max(lead) > 1
                    if self._whole and self._free_batch:
                        raise
        try:
            return self._trace(shapes, arrays or {}, batched=False, apart=apart)
        except NotBatched:
            raise OnnxFileError(
                "the file needs a shape without numbers, which no layer has"
            ) from None

    def _trace(
        self, shapes: tuple[Shape, ...], arrays: dict[str, Array], *, batched: bool, apart: bool
    ) -> Traced:
        last, source, store = self._channels_last and batched, self._source, self._store
        if apart:
            source, store = store.with_numbers(source), LayerStore(self.dtype)
        trace = Trace(
            source, shapes, store, batched=batched, channels_last=last, known_inputs=arrays
        )
        graph, outputs, used = trace.finished(last)
        weights = None
        if apart:
            store.build()
            weights = Weights(graph.layers, self.dtype)
        self._starts = [trace.tensors[i] for i in used] or [Tensor((1,))]
        return Traced(graph, tuple(outputs), tuple(used), batched, weights)

    def _traced_with(self, arrays: list[Array]) -> Traced:
        """The layers for a file whose shapes depend on the numbers of some inputs."""
        named = {one.name: array for one, array in zip(self._source.inputs, arrays, strict=True)}
        shapes = self._file_shapes(arrays)
        while True:
            known = {name: named[name] for name in sorted(self._needed)}
            is_small = sum(array.nbytes for array in known.values()) <= MOST_KNOWN
            key: TraceKey = ()
            if is_small:
                key = *shapes, *(array.tobytes() for array in known.values())
            with suppress(KeyError):
                self._traces.move_to_end(key)
                return self._traces[key]
            try:
                traced = self._traced_for(shapes, known, apart=is_small)
                if is_small:
                    return self._remembered(key, traced)
                self._store.build()
                return traced
            except NeedsInputs as error:
                if error.names <= self._needed:
                    raise OnnxFileError("a shape depends on numbers that nothing gives") from None
                self._needed |= error.names

    def _traced(self, shapes: tuple[Shape, ...]) -> Traced:
        """The layers for inputs of these shapes, from the memory of the last ones."""
        try:
            self._traces.move_to_end(shapes)
            traced = self._traces[shapes]
        except KeyError:
            pass
        else:
            if traced.weights is not None:
                self._check_weights(shapes)
            return traced
        try:
            traced = self._traced_for(shapes)
        except NeedsWeights:
            self._check_weights(shapes)
            traced = self._traced_for(shapes, apart=True)
        del self._starts
        return self._remembered(shapes, traced)

    def _remembered(self, key: TraceKey, traced: Traced) -> Traced:
        """The layers, which calls for the same shapes find again."""
        while len(self._traces) >= MOST_TRACES:
            self._traces.popitem(last=False)
        self._traces[key] = traced
        return traced

    def _check_weights(self, shapes: tuple[Shape, ...]) -> None:
        """Raise an error if the weights may not be those of the file any more.

        Layers for inputs of these shapes need the weights in another form, which only the file has.
        """
        if self._weights.watch.version() != self._file_version:
            raise ValueError(
                f"inputs of shapes {', '.join(map(str, shapes))} need the weights of the file in "
                f"another form than those that the model was built for, of shapes "
                f"{', '.join(map(str, self._first_shapes))}, and the model's weights may have "
                f"changed since; save the model with save_onnx, and load it for these shapes"
            )

    # --- predictions ------------------------------------------------------------------------------

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says beside its graph, by key."""
        return MappingProxyType(self._source.metadata)

    @property
    def input_dtypes(self) -> tuple[np.dtype[np.generic], ...]:
        """The types of the inputs' numbers, as the file declares them."""
        return tuple(one.dtype for one in self._source.inputs)

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that each call must have, if the file fixes one."""
        for one in self._source.inputs:
            if one.shape and isinstance(one.shape[0], int):
                return one.shape[0]
        return None

    def predict(self, x: Source, batch_size: int = 256) -> Any:
        """The outputs of the file: an array, or a list in the file's order for several.

        Args:
            x: an array; for several inputs a dict by their names, or a list in the file's order.
                Layout and types are those that the file declares; with
                ``layout="channels_last"`` images are NHWC.
            batch_size: samples that run together, where nothing in the file mixes samples.

        Raises:
            TypeError, ValueError: a wrong argument, or an input of another shape or type.
        """
        size = count("batch_size", batch_size)
        if isinstance(x, ImageSet):
            x = np.asarray(x.images)
        elif is_stream(x):
            return self._predicted_of(x, size)
        arrays = self._arrays_of(x)  # type: ignore[arg-type]
        if self.loss is not None and len(arrays) == 1 and self._fits_main(arrays):
            return super().predict(arrays[0], size)
        lead = {len(array) if array.ndim else 0 for array in arrays}
        n = max(lead, default=0)
        if n > size and len(lead) == 1 and not self._whole and self._splits(arrays, size):
            parts = [
                self._outputs_for([array[i : i + size] for array in arrays])
                for i in range(0, n, size)
            ]
            results = [np.concatenate(several) for several in zip(*parts, strict=True)]
        else:
            results = self._outputs_for(arrays)
        return self._predictions_of(results[0]) if len(results) == 1 else results

    def _predictions_of(self, output: Array) -> Array:
        """The only output as predictions, if the model has a loss and its graph gives scores."""
        goal: Any = self.loss
        if goal is None or self._trunk(goal) is not self._graph:
            return output
        return np.asarray(goal.predictions(np.ascontiguousarray(output, self.dtype), self.engine))

    def _for_other_samples(self, shape: Shape) -> str:
        (declared, *others) = self._source.inputs
        if (
            others
            or self._whole
            or not _fit((declared.shape or ())[1:], self._in_file_order(shape))
        ):
            return ""
        return f"; load_onnx(path, input_shape={shape}) makes a model that trains on these"

    def _in_file_order(self, shape: Shape) -> Shape:
        """The shape of a sample of this model as that of one of its file."""
        last = self._channels_last and len(shape) == 3
        return (shape[2], *shape[:2]) if last else shape

    def _splits(self, arrays: list[Array], size: int) -> bool:
        """Whether parts of the batch give parts of the outputs."""
        traced = self._traced(self._file_shapes([array[:size] for array in arrays]))
        alike = all(value.batch == 0 for value in traced.outputs)
        free = all(
            one.shape is not None and not isinstance(one.shape[0], int)
            for one in self._source.inputs
        )
        return traced.batched and alike and free

    def _fits_main(self, arrays: list[Array]) -> bool:
        return arrays[0].ndim > 0 and arrays[0].shape[1:] == self.input_shape

    def _arrays_of(self, x: Inputs) -> list[Array]:
        """The inputs in the file's order, checked against what it declares."""
        declared = self._source.inputs
        names = [one.name for one in declared]
        if isinstance(x, Mapping):
            unknown = [name for name in x if name not in names]
            missing = [name for name in names if name not in x]
            if unknown or missing:
                raise ValueError(
                    f"x must have an array for each of {quoted(names)}, got {quoted(list(x))}"
                )
            several: list[Any] = [x[name] for name in names]
        elif len(declared) == 1:
            several = [x]
        elif isinstance(x, list | tuple) and len(x) == len(declared):
            several = list(x)
        else:
            raise ValueError(f"x must be a dict with an array for each of {quoted(names)}")
        return [
            self._checked_array(one, array) for one, array in zip(declared, several, strict=True)
        ]

    def _checked_array(self, declared: Declared, x: Any) -> Array:
        array: Array = np.asarray(x)
        name = f"x[{declared.name!r}]"
        fits = array.dtype == declared.dtype or (
            array.dtype.kind == "f"
            and (declared.dtype.kind == "f" or declared.dtype.name == "bfloat16")
        )
        scales = self._scales_bytes and array.dtype == np.uint8
        if not (fits or scales):
            raise TypeError(
                f"{name} must be numbers of type {declared.dtype}, as the file declares, got "
                f"{array.dtype}; convert them with astype"
            )
        sides = declared.shape or ()
        if self._channels_last and not self._whole and len(sides) == 4:
            sides = sides[0], sides[2], sides[3], sides[1]
        if not _fit(sides, array.shape):
            raise ValueError(
                f"{name} must have the shape {_shown(sides)}, got {array.shape}"
                + self._remedy(sides, array.shape)
            )
        return self.scaling.of(array, self.dtype) if scales else array

    @property
    def _scales_bytes(self) -> bool:
        """Whether bytes for the only input become floats by the model's own scaling."""
        return self.trained_on == "uint8" and self._source.inputs[0].dtype.kind == "f"

    def _remedy(self, sides: Sequence[Any], actual: Shape) -> str:
        """How an array of another shape could fit, where its shape suggests it."""
        if len(sides) == len(actual) + 1:
            return "; a single sample is x[numpy.newaxis]"
        if len(sides) != len(actual):
            return ""
        last = self._channels_last and not self._whole
        n, *rest = actual
        if len(sides) == 4 and not last and _fit(sides, (n, rest[2], *rest[:2])):
            return (
                "; its channels seem to come last: fastcnn.nhwc_to_nchw(x) moves them, and "
                "load_onnx(path, layout='channels_last') makes a model that takes such images"
            )
        if len(sides) == 4 and last and _fit(sides, (n, *rest[1:], rest[0])):
            return "; its channels seem to come first: fastcnn.nchw_to_nhwc(x) moves them"
        if sides and isinstance(sides[0], int) and _fit(sides[1:], actual[1:]):
            return (
                f"; the file fixes its first axis, the batch, at {sides[0]}: give it {sides[0]} at "
                f"a time, or write the file again with a batch that is free"
            )
        return ""

    def _file_shapes(self, arrays: list[Array]) -> tuple[Shape, ...]:
        """The shapes of the inputs in the layout of the file."""
        last = self._channels_last and not self._whole
        return tuple(
            (a.shape[0], a.shape[3], a.shape[1], a.shape[2]) if last and a.ndim == 4 else a.shape
            for a in arrays
        )

    def _outputs_for(self, arrays: list[Array]) -> list[Array]:
        """The outputs of the file for its inputs."""
        if self._source.inputs and self._channels_last and self._whole:
            arrays = [a.transpose(0, 3, 1, 2) if a.ndim == 4 else a for a in arrays]
        if not self._whole and arrays and all(a.ndim and not len(a) for a in arrays):
            return self._of_no_samples(arrays)
        if self._needed:
            traced = self._traced_with(arrays)
        else:
            traced = self._traced(self._file_shapes(arrays))
        inputs = []
        for i in traced.used:
            array = arrays[i] if traced.batched else arrays[i][None]
            array = array[:, None] if array.ndim == 1 else array
            inputs.append(np.ascontiguousarray(array, self.dtype))
        computed = iter(self._run(traced, inputs)) if traced.graph.nodes else iter(())
        return [
            self._output(value, None if value.constant is not None else next(computed), traced)
            for value in traced.outputs
        ]

    def _of_no_samples(self, arrays: list[Array]) -> list[Array]:
        """The outputs for an empty batch, whose shapes are those of a sample."""
        one = [np.zeros((1, *a.shape[1:]), a.dtype) for a in arrays]
        outputs = self._traced(self._file_shapes(one)).outputs
        results = []
        for value, result in zip(outputs, self._outputs_for(one), strict=True):
            at = value.batch if value.batch is not None else 0
            results.append(result.take([], at) if result.ndim else result)
        return results

    def _run(self, traced: Traced, inputs: list[Floats]) -> list[Floats]:
        """The outputs of the graph, by a compiled program where one serves."""
        graph = traced.graph
        is_foreign = bool(self._needed) and traced.weights is None  # no program has its weights
        if is_foreign or whole_nets_refused(self.engine) is not None:
            return layer_by_layer.forward(graph, inputs, self.engine)
        executor = self._program_of(traced, tuple(array.shape[1:] for array in inputs))
        results = None if executor is None else executor.forward(inputs)
        return layer_by_layer.forward(graph, inputs, self.engine) if results is None else results

    def _program_of(self, traced: Traced, shapes: tuple[Shape, ...]) -> Any:
        """The executor of a graph; equal graphs on equal shapes have one."""
        graph = traced.graph
        if self._derived_for != self._ownership.version:
            self._derive()
            self._programs.clear()
            self._signatures.clear()
        # The program keeps the weights alive, so no others have their address.
        key = self._signature(graph, shapes) if traced.weights is None else str(id(traced.weights))
        with suppress(KeyError):  # it may be missing, or another thread forgets it
            self._programs.move_to_end(key)
            return self._programs[key]
        imported("fastcnn.models.execution")
        from fastcnn.models.execution import Executor, compiles

        weights = traced.weights or self._weights
        executor = Executor(graph, weights, shapes) if compiles() else None
        while len(self._programs) >= MOST_PROGRAMS:
            self._programs.popitem(last=False)
        return self._programs.setdefault(key, executor)

    def _signature(self, graph: Graph, shapes: tuple[Shape, ...]) -> str:
        """A text that is equal for equal programs; a graph's own text is made once."""
        math = get_math()
        signature = self._signatures.get((id(graph), math, shapes))
        if signature is not None and signature[0] is graph:  # not another graph at its address
            return signature[1]
        owned = {id(layer): i for i, layer in enumerate(self.layers)}
        layers = [
            owned[id(layer)] if id(layer) in owned else _description(layer)
            for layer in graph.layers
        ]
        text = dumps([math, layers, graph.as_dict(), shapes])
        if len(self._signatures) >= MOST_TRACES:
            self._signatures.clear()
        self._signatures[id(graph), math, shapes] = graph, text
        return text

    def _output(self, value: Value, computed: Floats | None, traced: Traced) -> Array:
        """An output as the file declares it."""
        if computed is None:
            assert value.constant is not None
            return value.constant.copy()
        result: Array = computed
        if not value.axes:  # a sample without axes is stored with one of one number
            result = computed[:, 0]
        if value.batch is None:
            result = result[0]
        elif value.batch:
            result = np.moveaxis(result, 0, value.batch)
        if value.dtype == np.bool_:
            truths: Array = result != 0
            return truths
        kind = value.dtype
        return (
            np.array(result, kind, order="C")
            if result.dtype != kind or not result.flags.owndata
            else result
        )

    def random_inputs(self, batch: int, rng: np.random.Generator) -> dict[str, Array]:
        """Random inputs of the sizes that the model was built for, in the layout of ``predict``.

        Floats have the mean 0 and the variance 1, bytes are from 0 to 255, other integers 0 or 1.

        Args:
            batch: the first side of each input.
            rng: the source of the numbers.

        Raises:
            ValueError: the file fixes another first side.
        """
        result = {}
        for declared, sizes in zip(self._source.inputs, self._first_shapes, strict=True):
            first = (declared.shape or (None,))[0]
            if isinstance(first, int) and first != batch:
                raise ValueError(
                    f"batch must be {first}, because the file fixes it for input "
                    f"{quoted(declared.name)}, got {batch}"
                )
            shape = (batch, *sizes[1:]) if sizes else ()
            if self._channels_last and not self._whole and len(shape) == 4:
                shape = shape[0], shape[2], shape[3], shape[1]
            kind = np.dtype(np.uint8) if self._scales_bytes else declared.dtype
            if kind.kind in "iub":
                numbers = rng.integers(0, 256 if kind == np.uint8 else 2, shape)
                result[declared.name] = np.asarray(numbers).astype(kind)
            else:
                result[declared.name] = np.asarray(rng.standard_normal(shape)).astype(kind)
        return result

    # --- the rest ---------------------------------------------------------------------------------

    def save(self, path: FilePath) -> None:
        """Write the model for the sizes that it was built for, as :meth:`fastcnn.Model.save`.

        Raises ``ValueError`` for a file whose inputs or outputs are no samples of floats.
        """
        main = self._main()
        plain = main.batched and main.used == tuple(range(len(self._source.inputs)))
        plain &= all(one.dtype.kind == "f" for one in self._source.inputs)
        if not plain or any(
            value.constant is not None or value.batch != 0 or value.dtype != self.dtype
            for value in main.outputs
        ):
            raise ValueError(
                "the model cannot be saved, because a model file holds nets whose inputs and "
                "outputs are samples of floats; keep the ONNX file"
            )
        dtype: Literal["float32", "float64"] = "float64" if self.dtype == np.float64 else "float32"
        plain_model = Model.__new__(Model)
        Net.__init__(plain_model, graph_of(self.inputs, self.outputs), dtype=dtype)
        plain_model._knowledge.is_known("layout")  # because the file declares it
        plain_model._build_anew(tuple(tensor.shape for tensor in self.inputs))
        plain_model.scaling, plain_model.trained_on = self.scaling, self.trained_on
        plain_model.preparation, plain_model.classes = self.preparation, self.classes
        if self.trained_on is None:  # else the saved model would take bytes, and scale them
            inputs = len(self._source.inputs)
            floats: Kind = "floats"
            plain_model.trained_on = floats if inputs == 1 else (floats,) * inputs
        # A file without a loss stands for the usual one, whose predictions are probabilities.
        plain_model.loss = self._loss()
        plain_model.save(path)

    def save_onnx(
        self,
        path: FilePath,
        layout: Literal["channels_last", "channels_first"] = "channels_last",
        of: Literal["predictions", "scores"] = "predictions",
    ) -> None:
        """Write the model to an ONNX file, as :meth:`fastcnn.Model.save_onnx`.

        The default ``layout`` keeps the layout that the model takes, which is that of its own file
        unless ``load_onnx`` had ``layout="channels_last"``.

        Raises ``ValueError`` for ``layout="channels_first"`` where the model takes images in the
        layout of its file, because these are no images (N, H, W, C) that could be turned.
        """
        turns = self._channels_last or has_images_last(self._source)
        if layout == "channels_first" and not turns:
            images = [one for one in self._source.inputs if len(one.shape or ()) == 4]
            if images:
                raise ValueError(
                    "layout='channels_first' needs a model that takes images (N, H, W, C), but "
                    "this one takes them as its own file declares; leave layout out, which keeps "
                    "them so, or load the file by load_onnx(path, layout='channels_last')"
                )
        super().save_onnx(path, layout, of)

    def _main(self) -> Traced:
        return self._probe()

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        source = self._store.without_stand_ins(self._source)
        changed = self._weights.watch.version() != self._file_version
        state |= {"_source": source, "_file_version": -1 if changed else None}
        state.pop("_traces", None)
        state.pop("_programs", None)
        state.pop("_signatures", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._store.enter_stand_ins(self._source)
        if self._file_version is None:
            self._file_version = self._weights.watch.version()
        object.__setattr__(self, "_traces", OrderedDict())
        object.__setattr__(self, "_programs", OrderedDict())
        object.__setattr__(self, "_signatures", {})


def _description(layer: Layer) -> Any:
    described: Any = to_dict(layer)
    if isinstance(layer, OnnxOperation) and layer.state:
        described = [described, {k: hash(v.tobytes()) for k, v in layer.state.items()}]
    return described


def _nothing() -> Graph:
    """The graph of a file whose outputs need no inputs."""
    from fastcnn.models.graph import chain

    return chain([Reshape((1,))])


def _is_fixed(declared: Declared) -> bool:
    return declared.shape is not None and all(isinstance(side, int) for side in declared.shape)


def _fit(sides: Sequence[Any], actual: Shape) -> bool:
    """Whether an array of the shape ``actual`` has all sides that are declared as numbers."""
    return len(sides) == len(actual) and all(
        not isinstance(side, int) or side == length
        for side, length in zip(sides, actual, strict=True)
    )


def _shown(sides: Sequence[Any]) -> str:
    return (
        "("
        + ", ".join(str(side) if isinstance(side, int) else str(side or "?") for side in sides)
        + ")"
    )
