"""Whole nets on one batch: the executor, or an engine layer by layer, against the specification.

These results are compared: the outputs in prediction; the loss, the gradients of all parameters and
the running statistics of one training step; and the gradient of an output with respect to the
images, in prediction.

- ``exact``: parameters, pixels and the distances from the targets are small integers, and few
  weights of a filter are not 0. Then each number, forward and backward, is an integer times a power
  of two, and the dtype holds it. All results must be equal to the last bit.
- ``float``: bytes as images, random parameters, and softmax cross-entropy. Each result must lie
  within a share of its own largest value: γ of its :func:`roundings`.
- ``weighted``: the same with rows of probabilities as targets, and a weight for each sample.

**Why a share of the largest value.** In the worst case all roundings have the same sign, and the
error is that of the net on absolute values. This error grows with every layer by about √n for sums
of n terms, and exceeds the signal in deep nets. Real roundings have random signs, so errors grow as
the signal does. Let n be the number of roundings that a number goes through in a row. Then γ(n, u)
of the signal covers them. This share must be smaller than :data:`~fastcnn.proof.bounds.SIGNAL`, so
that wrong numbers cannot hide below it.

**Choices.** If ReLU or a pooling chooses between numbers that differ only by rounding, another
choice is equally right and gives another gradient. Therefore float32 takes a batch on which no such
choice matters: its gradients stay within half of their bounds when all parameters are changed by
some roundings, up and down. In float64 rounding does not change choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from time import perf_counter
from typing import Any, Literal, NamedTuple
from zlib import crc32

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import pool_geometry
from fastcnn.data.several import Several
from fastcnn.models.graph import Graph
from fastcnn.models.model import Model
from fastcnn.models.nets import article, lenet5, resnet8, small
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import (
    ELU,
    GELU,
    LRN,
    Add,
    Average,
    AvgPool2D,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Cropping2D,
    Dense,
    DepthToSpace,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    GroupNorm,
    HardSigmoid,
    HardSwish,
    Input,
    Layer,
    LayerNorm,
    LeakyReLU,
    Maximum,
    MaxPool2D,
    Merge,
    MinPool2D,
    Multiply,
    Permute,
    PReLU,
    ReLU,
    Reshape,
    Residual,
    Resize,
    SeparableConv2D,
    Shape,
    Sigmoid,
    Softmax,
    Softplus,
    Subtract,
    Swish,
    Tanh,
    Tensor,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.nn.losses import CrossEntropy, MeanSquaredError
from fastcnn.proof.bounds import gamma, unit_roundoff
from fastcnn.proof.check import REFERENCE, Result, judge
from fastcnn.proof.problems import DTYPES
from fastcnn.train.output_losses import Goal

EXECUTOR = "executor"
"""Name for the compiled programs that models use by default, beside the engines' names."""

_V = 2.0**-53
_CLASSES = 8  # a power of two, so that the mean of squares over outputs is exact
_TAPS = 3  # taps of a filter that are not 0, in exact nets
_FUNCTION = 21  # roundings that count for an exponential and the function around it
_MOVE = 8  # roundings by which parameters are changed
# Layers that move numbers, or leave some out.
_MOVES = (
    Cropping2D,
    DepthToSpace,
    Flatten,
    GlobalMaxPool2D,
    Permute,
    ReLU,
    Reshape,
    ZeroPadding2D,
)


Data = tuple[list[Array], list[Array], Array | None]
"""The samples of each input, the targets of each output, and the weights of the losses."""


Tensors = tuple[list[Tensor], list[Tensor]]
"""The inputs and the outputs of a graph."""


class Net(NamedTuple):
    """A net for a number of classes, as layers in a row or as a graph.

    Attributes:
        form: the layers, or the inputs and the outputs of a graph.
        shape: of a sample; each input of a graph has it.
        samples: in the batch.
        modes: of data.
    """

    form: Callable[[int], list[Layer] | Tensors]
    shape: tuple[int, int, int]
    samples: int
    modes: tuple[str, ...]


class ModelCase(NamedTuple):
    """A net in one dtype and one mode of data."""

    op: str
    dtype: str
    mode: str

    @property
    def name(self) -> str:
        """``model/net/dtype/mode``, the name for ``fastcnn compare --case``."""
        return f"model/{self.op}/{self.dtype}/{self.mode}"


def all_layers(classes: int) -> list[Layer]:
    """Every kind of layer but those of :func:`all_activations`, :func:`shaping_layers` and
    :func:`merging`.

    >>> def kinds(layers):
    ...     for layer in layers:
    ...         yield type(layer).__name__
    ...         yield from kinds([*getattr(layer, "layers", ()), *getattr(layer, "shortcut", ())])
    >>> modules = {name: str(kind) for name, kind in Layer.registry.items()}
    >>> of_others = {name for name in modules if "fastcnn.nn." not in modules[name]}
    >>> merging_layers = Model(*merging(10)).layers
    >>> others = [*all_activations(10), *shaping_layers(10), *merging_layers]
    >>> Layer.registry.keys() - of_others - {*kinds([*all_layers(10), *others])}
    set()
    """
    return [
        ZeroPadding2D(((1, 0), (0, 2))),
        Conv2D(6, (3, 2), strides=(2, 1), padding=((0, 2), (1, 0)), use_bias=False),
        BatchNorm(),
        LeakyReLU(0.2),
        DepthwiseConv2D((2, 3), padding="same", depth_multiplier=2, activation="relu"),
        MaxPool2D((2, 3), strides=1),
        Conv2D(10, (2, 1), dilation=(2, 1), groups=2),
        Tanh(),
        GroupNorm(5),
        LRN(3, alpha=0.5),
        Dropout(0.3),
        Residual(
            [Conv2D(9, 3, padding="same"), ReLU(), MinPool2D(2, strides=1, padding="same")],
            [AvgPool2D((1, 2), strides=1, padding="same"), Conv2D(9, 1)],
            activation="relu",
        ),
        Residual([GlobalAvgPool2D()], [GlobalMaxPool2D()]),
        Sigmoid(),
        Flatten(),
        Dense(12, activation="relu"),
        LayerNorm(),
        Softmax(),
        Dense(classes),
    ]


def all_activations(classes: int) -> list[Layer]:
    """The activations by formulas, each on numbers that reach its bends."""
    return [
        Conv2D(7, (3, 2), strides=(2, 1)),
        ReLU(max_value=0.2),
        Conv2D(6, (2, 3), padding="same"),
        PReLU(),
        ELU(0.7),
        BatchNorm(),
        HardSigmoid(0.4, 0.6),
        Conv2D(9, (1, 2), use_bias=False),
        BatchNorm(),
        HardSwish(),
        Swish(),
        DepthwiseConv2D((2, 3), use_bias=False),
        BatchNorm(),
        GELU(),
        GELU(approximate=True),
        Softplus(),
        Flatten(),
        Dense(12),
        PReLU(),
        Dense(classes),
    ]


def exact_layers(classes: int) -> list[Layer]:
    """The kinds of layers that are exact on small integers."""
    return [
        ZeroPadding2D(((1, 0), (0, 2))),
        Conv2D(6, (3, 2), strides=(2, 1), padding=((0, 2), (1, 0)), activation="relu"),
        DepthwiseConv2D((2, 3), padding="same", depth_multiplier=2),
        LeakyReLU(0.5),
        MaxPool2D((2, 3), strides=1),
        Conv2D(10, (2, 1), dilation=(2, 1), groups=2, use_bias=False),
        Dropout(0.5),
        Residual([Conv2D(10, 3, padding="same"), ReLU(), MinPool2D(2, strides=1, padding="same")]),
        AvgPool2D((1, 2)),
        Flatten(),
        Dense(classes),
    ]


def inception(classes: int) -> Tensors:
    """Branches side by side, a gate of their channels, a sum, and two heads."""
    images = Input((9, 11, 3))
    x = Conv2D(8, 3, padding="same", activation="relu")(images)
    narrow = Conv2D(6, 1, activation="relu")(x)
    middle = Conv2D(8, 3, padding="same")(Conv2D(4, 1, activation="relu")(x))
    broad = ReLU()(Conv2D(5, 5, padding="same")(Conv2D(3, 1)(x)))
    pooled = Conv2D(4, 1)(MaxPool2D(3, strides=1, padding="same")(x))
    x = Concatenate()([narrow, middle, broad, pooled])
    gate = Conv2D(6, 1, activation="relu")(AvgPool2D((9, 11))(x))  # squeeze and excitation
    x = Multiply()([x, Sigmoid()(Conv2D(23, 1)(gate))])
    x = ReLU()(BatchNorm()(x))
    early = Dense(classes)(GlobalAvgPool2D()(x))
    x = ReLU()(Add()([BatchNorm()(Conv2D(23, 3, padding="same", use_bias=False)(x)), x]))
    return [images], [Dense(classes)(Flatten()(MaxPool2D()(x))), early]


def merging(classes: int) -> Tensors:
    """Two inputs, shared layers, and every kind of layer that merges several values.

    On small integers it is exact.
    """
    left, right = Input((7, 6, 3)), Input((7, 6, 3))
    shared = Conv2D(5, (2, 3), padding="same", activation="relu")
    a, b = shared(left), shared(right)
    x = Concatenate()([Subtract()([a, b]), Maximum()([a, b])])
    x = Conv2D(4, 1)(x)
    block = Residual([Conv2D(4, 3, padding="same")], activation="relu")
    x = Add()([block(x), Average()([x, Conv2D(4, (3, 1), padding="same", use_bias=False)(right)])])
    rows = MaxPool2D((7, 6))(Conv2D(4, 1)(a))
    early = Dense(classes)(Flatten()(rows))
    x = MaxPool2D((2, 3))(Multiply()([x, rows]))
    return [left, right], [Dense(classes)(Flatten()(x)), early]


def shaping_layers(classes: int) -> list[Layer]:
    """Layers that resize images or move their numbers, on images of 7 × 5 pixels."""
    return [
        Cropping2D(((1, 0), (0, 1))),
        SeparableConv2D(12, (3, 2), padding="same", depth_multiplier=2, activation="relu"),
        DepthToSpace(2),
        UpSampling2D((1, 2), "bilinear"),
        Conv2DTranspose(6, (3, 2), (2, 1), "same", activation="relu"),
        Resize(9, 7, coordinates="align_corners"),
        Permute((2, 3, 1)),
        Conv2DTranspose(4, 2, strides=(1, 3), padding=1, output_padding=(0, 2), use_bias=False),
        UpSampling2D(2),
        Reshape((-1, 8, 4)),
        MaxPool2D(2),
        Flatten(),
        Dense(classes),
    ]


def exact_shaping_layers(classes: int) -> list[Layer]:
    """The same kinds, where they are exact on small integers."""
    return [
        Cropping2D(((1, 0), (0, 1))),
        SeparableConv2D(8, (3, 2), padding="same", activation="relu"),
        DepthToSpace(2, "CRD"),
        Resize(6, 4, "nearest"),
        Conv2DTranspose(3, (3, 2), (2, 1), "same"),
        Permute((2, 3, 1)),
        UpSampling2D(2),
        Reshape((-1, 6)),
        Flatten(),
        Dense(classes),
    ]


NETS = {
    "article": Net(article, (28, 28, 1), 16, ("exact", "float", "weighted")),
    "lenet5": Net(lenet5, (28, 28, 1), 4, ("exact", "float")),
    "small": Net(small, (28, 28, 1), 2, ("exact", "float")),
    "resnet8": Net(resnet8, (32, 32, 3), 2, ("float",)),
    "all_layers": Net(all_layers, (13, 9, 3), 9, ("float", "weighted")),
    "exact_layers": Net(exact_layers, (13, 9, 3), 16, ("exact",)),
    "inception": Net(inception, (9, 11, 3), 4, ("float", "weighted")),
    "merging": Net(merging, (7, 6, 3), 4, ("exact", "float")),
    "all_activations": Net(all_activations, (11, 9, 2), 5, ("float", "weighted")),
    "shaping_layers": Net(shaping_layers, (7, 5, 3), 6, ("float", "weighted")),
    "exact_shaping_layers": Net(exact_shaping_layers, (7, 5, 3), 8, ("exact",)),
}


@cache
def model_cases() -> tuple[ModelCase, ...]:
    """All cases.

    >>> model_cases()[0].name
    'model/article/float32/exact'
    """
    return tuple(
        ModelCase(name, dtype, mode)
        for name, net in NETS.items()
        for dtype in DTYPES
        for mode in net.modes
    )


class ModelReference(NamedTuple):
    """A case's data, and the specification's results by name, bounds, and time."""

    case: ModelCase
    seed: int
    parameters: list[Array]
    data: Data
    names: tuple[str, ...]
    outputs: tuple[Array, ...]
    bounds: tuple[Array, ...]
    seconds: float


def model_reference_of(case: ModelCase, seed: int) -> ModelReference:
    """Draw the data of a case, run the specification on it, and compute the bounds."""
    net = NETS[case.op]
    model = _model(case, REFERENCE)
    loss = _loss(case, model)
    data: Data
    for attempt in range(20):
        rng = np.random.default_rng([seed, crc32(case.name.encode()), attempt])
        parameters, images = _draw(case, net, model, rng)
        if case.mode == "exact":
            model.set_weights(parameters)
            data = images, _near(forward(model, images), rng), None
            break
        data = images, *_targets(case, net, len(model.outputs), rng)
        if case.dtype == "float64" or _clear(case, parameters, data, rng):
            break
    model = _model(case, REFERENCE)
    model.set_weights(parameters)
    start = perf_counter()
    names, outputs = results_of(model, data, loss)
    seconds = perf_counter() - start
    return ModelReference(
        case, seed, parameters, data, names, outputs, _bounds(case, model, names, outputs), seconds
    )


def check_model(reference: ModelReference, engine: str) -> Result:
    """Run a case with the executor, or layer by layer on an engine, and compare the results.

    >>> check_model(model_reference_of(ModelCase("article", "float32", "exact"), 0), "im2col").ok
    True
    """
    case, seconds = reference.case, 0.0

    def run() -> tuple[Array, ...]:
        nonlocal seconds
        model = _model(case, engine)
        times = []
        for _ in range(3):  # the first run may compile
            model.set_weights(reference.parameters)
            start = perf_counter()
            results = results_of(model, reference.data, _loss(case, model))[1]
            times.append(perf_counter() - start)
        seconds = min(times)
        return results

    images, targets, _ = reference.data
    inputs = {f"images {i}": array for i, array in enumerate(images)}
    inputs |= {f"targets {i}": array for i, array in enumerate(targets)}
    judged = judge(run, reference.names, reference.outputs, reference.bounds, inputs)
    return Result(
        case, engine, reference.seed, judged.absolute, judged.relative, judged.bound, judged.share,
        seconds, reference.seconds, judged.problem,
    )  # fmt: skip


def _loss(case: ModelCase, model: Model) -> Goal:
    return model._goal(MeanSquaredError() if case.mode == "exact" else CrossEntropy())


def _model(case: ModelCase, engine: str, seed: int = 0) -> Model:
    net = NETS[case.op]
    form = net.form(_CLASSES)
    dtype: Literal["float32", "float64"] = "float64" if case.dtype == "float64" else "float32"
    engine_of_model = None if engine == EXECUTOR else engine
    if isinstance(form, list):
        return Sequential(form, net.shape, seed=seed, dtype=dtype, engine=engine_of_model)
    return Model(*form, seed=seed, dtype=dtype, engine=engine_of_model)


def _draw(
    case: ModelCase, net: Net, model: Model, rng: np.random.Generator
) -> tuple[list[Array], list[Array]]:
    """Random parameters, and images for each input."""
    inputs, shape = len(model.inputs), (net.samples, *net.shape)
    if case.mode == "exact":
        images = [rng.integers(-3, 4, shape).astype(case.dtype) for _ in range(inputs)]
        parameters = [_few_integers(a.shape, rng).astype(a.dtype) for a in model.get_weights()]
    else:
        images = [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(inputs)]
        model = _model(case, REFERENCE, int(rng.integers(2**32)))
        parameters = [  # biases, scales and statistics that are not all 0 or 1
            a + np.asarray((a.ndim == 1) * rng.uniform(0.01, 0.2, a.shape), a.dtype)
            for a in model.get_weights()
        ]
    for array in images:
        array.setflags(write=False)
    return parameters, images


def _targets(
    case: ModelCase, net: Net, outputs: int, rng: np.random.Generator
) -> tuple[list[Array], Array | None]:
    """Random targets for each output, and the weights of the samples' losses."""
    targets = [rng.integers(0, _CLASSES, net.samples) for _ in range(outputs)]
    if case.mode != "weighted":
        return targets, None
    ones = np.ones(_CLASSES)
    targets = [rng.dirichlet(ones, net.samples).astype(case.dtype) for _ in range(outputs)]
    return targets, rng.uniform(0, 2, net.samples).astype(case.dtype)


def _near(outputs: list[Array], rng: np.random.Generator) -> list[Array]:
    """Targets whose distances from these outputs are small integers."""
    return [np.asarray(y + rng.integers(-1, 2, y.shape) * 4, y.dtype) for y in outputs]


def _few_integers(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """−1, 0 and 1. A few numbers of each filter, or of each output's weights, are not 0."""
    if len(shape) == 1:
        return rng.integers(-1, 2, shape)
    columns = np.zeros((shape[-1], int(np.prod(shape[:-1]))), np.int64)
    for column in columns:
        places = rng.permutation(column.size)[:_TAPS]
        column[places] = rng.choice((-1, 1), len(places))
    return columns.T.reshape(shape)


def forward(model: Model, images: list[Array], loss: Goal | None = None) -> list[Array]:
    """The raw outputs of a model, one array for each output."""
    outputs = model._forward_batch(_one_or_several(images), loss)
    return outputs if isinstance(outputs, list) else [outputs]


def _one_or_several(arrays: list[Array]) -> Any:
    """Samples or targets in the form in which models take them."""
    return arrays[0] if len(arrays) == 1 else Several(tuple(arrays))


def results_of(model: Model, data: Data, loss: Goal) -> tuple[tuple[str, ...], tuple[Array, ...]]:
    """Names and values of outputs, loss, gradients, and running statistics after the step."""
    (images, targets, weights), trunk = data, model._trunk(loss)
    rng, x, y = np.random.default_rng(0), _one_or_several(images), _one_or_several(targets)
    if model.engine is None:
        executor = model._executor(trunk)
        if executor is None:
            raise RuntimeError(f"the model runs {model.explain()}")
        # In training an input may have to be floats.
        samples, taught = (model._executor_inputs(x, executor, training=t) for t in (False, True))
        outputs = executor.forward(samples)
        result = executor.gradients(taught, y, loss, rng, weights)
        if outputs is None or result is None:
            raise RuntimeError("the executor hands the batch back to single operations")
        total, gradients = result[0], model._weights.gradients
    else:
        outputs = forward(model, images, loss)
        total, _, gradients = model._gradients(x, y, loss, rng, weights)
    results = dict(zip(output_names(len(outputs)), outputs, strict=True))
    results["loss"] = np.array(total / len(images[0]), model.dtype)
    classes: list[Any] = [np.arange(len(one)) % one.shape[1] for one in outputs]
    at_images = model.input_gradient(
        images if len(images) > 1 else images[0], classes if len(classes) > 1 else classes[0]
    )
    for i, (layer, by_name) in enumerate(zip(trunk.layers, gradients, strict=False)):
        results |= {f"gradient of layers.{i}.{k}": a.copy() for k, a in by_name.items()}
        results |= {f"layers.{i}.{k}": a.copy() for k, a in layer.state.items()}
    at_images = at_images if isinstance(at_images, list) else [at_images]
    results |= dict(zip(image_names(len(images)), at_images, strict=True))
    return tuple(results), tuple(results.values())


def output_names(count: int) -> list[str]:
    """The names of so many outputs in reports."""
    return ["outputs"] if count == 1 else [f"outputs {i}" for i in range(count)]


def image_names(count: int) -> list[str]:
    """The names of the gradients of so many inputs in reports."""
    name = "gradient of images"
    return [name] if count == 1 else [f"{name} {i}" for i in range(count)]


def _clear(case: ModelCase, parameters: list[Array], data: Data, rng: np.random.Generator) -> bool:
    """Whether roundings cannot change a choice that a gradient depends on."""
    model = _model(case._replace(dtype="float64"), "im2col")
    loss = _loss(case, model)
    model.set_weights(parameters)
    images, targets, weights = data
    if weights is not None:
        data = images, [one.astype(np.float64) for one in targets], weights.astype(np.float64)
    names, outputs = results_of(model, data, loss)
    allowed = _bounds(case, model, names, outputs)
    for _ in range(2):
        moves = [rng.normal(0, _MOVE * unit_roundoff("float32"), a.shape) for a in parameters]
        for sign in (-1, 1):
            moved = [a * (1 + sign * d) for a, d in zip(parameters, moves, strict=True)]
            model.set_weights(moved)
            repeated = results_of(model, data, loss)[1]
            for a, b, bound in zip(repeated, outputs, allowed, strict=True):
                if not (abs(a - b) <= bound / 2).all():
                    return False
    return True


# --- bounds ---------------------------------------------------------------------------------------


def roundings(model: Model, samples: int) -> dict[str, int]:
    """The number of roundings in a row of each result, by the names of the results.

    In a graph it is that of the path with the most.

    >>> roundings(Sequential([Flatten(), Dense(10)], (2, 3, 1)), samples=4)["outputs"]
    7
    """
    graph = model._graph
    shapes = graph.infer(model._known_shapes())
    index = {id(layer): i for i, layer in enumerate(model.layers)}
    counts, values = list[tuple[int, int, int]](), [0] * graph.inputs
    for node in graph.nodes:
        inputs = [shapes[value] for value in node.inputs]
        counts.append(_of_layer(node.layer, inputs, shapes[node.output], samples))
        values.append(max(values[value] for value in node.inputs) + counts[-1][0])
    of_outputs = [values[value] for value in graph.outputs]
    by_name = dict(zip(output_names(len(of_outputs)), of_outputs, strict=True))
    classes = sum(prod(shapes[value]) for value in graph.outputs)
    by_name["loss"] = max(of_outputs) + _FUNCTION + classes + samples
    behind_loss = _behind(graph, counts, by_name["loss"])
    for node, (_, _, summed) in zip(graph.nodes, counts, strict=True):
        i = index[id(node.layer)]
        for name in node.layer.parameters:  # those of a shared layer are added
            key = f"gradient of layers.{i}.{name}"
            count = behind_loss[node.output] + summed
            by_name[key] = max(by_name[key] + 1, count) if key in by_name else count
        for name in node.layer.state:
            by_name[f"layers.{i}.{name}"] = by_name["loss"]
    of_images = _behind(graph, counts, max(of_outputs))
    for value, name in enumerate(image_names(graph.inputs)):
        by_name[name] = of_images[value]
    return by_name


def _behind(graph: Graph, counts: list[tuple[int, int, int]], at_outputs: int) -> list[int]:
    """The roundings of the gradient at each value, where those at the outputs have so many."""
    behind = [0] * (graph.inputs + len(graph.nodes))
    arrivals = Counter(graph.outputs)
    for value in graph.outputs:
        behind[value] = at_outputs
    for node, (_, back, _) in reversed([*zip(graph.nodes, counts, strict=True)]):
        for value in node.inputs:  # each further gradient that arrives is one addition
            count = behind[node.output] + back + (arrivals[value] > 0)
            behind[value] = max(behind[value] + (arrivals[value] > 0), count)
            arrivals[value] += 1
    return behind


def _of_layer(
    layer: Layer, inputs: list[Shape], output: Shape, samples: int
) -> tuple[int, int, int]:
    """Roundings in a row of the output, and of the gradients of input and parameters."""
    shape = inputs[0]
    if isinstance(layer, Residual):
        paths = [_of_row(p, shape, samples) for p in (layer.layers, layer.shortcut)]
        forward, back = (max(sum(one[k] for one in p) for p in paths) + 1 for k in (0, 1))
        summed = max((one[2] for p in paths for one in p), default=0)
        return forward, back, summed + forward + back  # a bound for the layers inside
    if isinstance(layer, Merge):
        if isinstance(layer, Concatenate):
            return 0, 0, 0
        # A gradient is summed over the axes along which its input is repeated.
        repeated = max(prod(output) // prod(one) for one in inputs)
        others = len(inputs) - 1
        return others + isinstance(layer, Average), 2 * others + repeated, 0
    if isinstance(layer, Conv2D | DepthwiseConv2D):
        g = layer.geometry(shape, samples)
        taps = g.kh * g.kw
        return taps * g.group_ic + 1, taps * g.group_oc, g.n * g.oh * g.ow
    if isinstance(layer, Conv2DTranspose):
        g = layer.geometry(shape, samples)
        taps = g.kh * g.kw
        return taps * g.group_oc + 1, taps * g.group_ic, g.n * g.h * g.w
    if isinstance(layer, SeparableConv2D):
        taps, pixels = prod(layer.parameters["depthwise_w"].shape[:2]), prod(output[:2])
        between, filters = layer.parameters["pointwise_w"].shape[2:]
        back = filters + taps * layer.depth_multiplier
        return taps + between + 1, back, filters + samples * pixels
    if isinstance(layer, UpSampling2D | Resize):
        resized = layer.geometry(shape)
        sides = resized.outputs_of_rows, resized.outputs_of_columns
        return 9, prod(int(side.counts.max()) for side in sides) + 5, 0
    if isinstance(layer, Dense):
        return shape[0] + 1, output[0], samples
    if isinstance(layer, BatchNorm):
        # Sums are taken in float64. Then a distance from the mean has two roundings, a scale two,
        # and each product and sum one; the way back computes the normalised number again.
        return 6, 8, 8
    if isinstance(layer, LayerNorm | GroupNorm):
        row = layer.parameters["gamma"].size
        block = row if isinstance(layer, LayerNorm) else prod(shape) // layer.groups
        forward = block + 8  # the sum of the squares, and a few numbers more
        return forward, 2 * forward, forward + samples * prod(shape) // row
    if isinstance(layer, LRN):
        return layer.window + _FUNCTION, 2 * (layer.window + _FUNCTION), 0
    if isinstance(layer, Tanh | Sigmoid | ELU | Swish | GELU | Softplus):
        return _FUNCTION, _FUNCTION, 0
    if isinstance(layer, HardSigmoid | HardSwish):
        return 4, 4, 0
    if isinstance(layer, PReLU):  # the sum for a slope is taken in float64
        return 1, 1, 2
    if isinstance(layer, Softmax):
        return _FUNCTION + shape[-1], 2 * (_FUNCTION + shape[-1]), 0
    if isinstance(layer, LeakyReLU | Dropout):
        return 3, 3, 0
    if isinstance(layer, GlobalAvgPool2D):
        return shape[0] * shape[1] + 1, 2, 0
    if isinstance(layer, AvgPool2D | MaxPool2D | MinPool2D):
        g_pool = pool_geometry(
            (samples, *shape), layer.pool_size, stride=layer.strides, padding=layer.padding
        )
        window = g_pool.kh * g_pool.kw + 1
        return window if isinstance(layer, AvgPool2D) else 0, window, 0
    if isinstance(layer, _MOVES):
        return 0, 0, 0
    raise NotImplementedError(f"the roundings of {layer!r} are not known")


def _of_row(layers: Sequence[Layer], shape: Shape, samples: int) -> list[tuple[int, int, int]]:
    """:func:`_of_layer` of layers in a row."""
    result = []
    for layer in layers:
        result.append(_of_layer(layer, [shape], layer.infer(shape), samples))
        shape = layer.infer(shape)
    return result


def _bounds(
    case: ModelCase, model: Model, names: Sequence[str], outputs: Sequence[Array]
) -> tuple[Array, ...]:
    if case.mode == "exact":
        return tuple(np.zeros(y.shape) for y in outputs)
    counts, u = roundings(model, NETS[case.op].samples), unit_roundoff(case.dtype)
    return tuple(
        np.full(y.shape, (gamma(counts[name], u) + gamma(counts[name], _V)) * abs(y).max())
        for name, y in zip(names, outputs, strict=True)
    )
