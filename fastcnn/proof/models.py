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

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from time import perf_counter
from typing import NamedTuple
from zlib import crc32

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import pool_geometry
from fastcnn.models.nets import article, lenet5, resnet8, small
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import (
    AvgPool2D,
    BatchNorm,
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
    Layer,
    LeakyReLU,
    MaxPool2D,
    MinPool2D,
    Permute,
    ReLU,
    Reshape,
    Residual,
    Resize,
    SeparableConv2D,
    Sigmoid,
    Softmax,
    Tanh,
    UpSampling2D,
    ZeroPadding2D,
)
from fastcnn.nn.losses import CrossEntropy, Loss, MeanSquaredError
from fastcnn.proof.bounds import gamma, unit_roundoff
from fastcnn.proof.check import REFERENCE, Result, judge
from fastcnn.proof.problems import DTYPES

EXECUTOR = "executor"
"""Name for the compiled programs that models use by default, beside the engines' names."""

_V = 2.0**-53
_CLASSES = 8  # a power of two, so that the mean of squares over outputs is exact
_TAPS = 3  # taps of a filter that are not 0, in exact nets
_FUNCTION = 21  # roundings that count for an exponential and the function around it
_MOVE = 8  # roundings by which parameters are changed


Data = tuple[Array, Array, Array | None]
"""Samples, their targets, and the weights of their losses."""


class Net(NamedTuple):
    """Layers for a number of classes, the shape and number of samples, and the modes of data."""

    layers: Callable[[int], list[Layer]]
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
    """Every kind of layer, but those of :func:`shaping_layers`.

    >>> def kinds(layers):
    ...     for layer in layers:
    ...         yield type(layer).__name__
    ...         yield from kinds([*getattr(layer, "layers", ()), *getattr(layer, "shortcut", ())])
    >>> of_others = {name for name in Layer.known if "fastcnn." not in str(Layer.known[name])}
    >>> Layer.known.keys() - of_others - {*kinds([*all_layers(10), *shaping_layers(10)])}
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
        Softmax(),
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
    images: Array
    targets: Array
    weights: Array | None
    names: tuple[str, ...]
    outputs: tuple[Array, ...]
    bounds: tuple[Array, ...]
    seconds: float


def model_reference_of(case: ModelCase, seed: int) -> ModelReference:
    """Draw the data of a case, run the specification on it, and compute the bounds."""
    net = NETS[case.op]
    model, loss = _model(case, REFERENCE), _loss(case)
    for attempt in range(20):
        rng = np.random.default_rng([seed, crc32(case.name.encode()), attempt])
        parameters, images = _draw(case, net, model, rng)
        weights = None
        if case.mode == "exact":
            model.set_weights(parameters)
            off = rng.integers(-1, 2, (net.samples, _CLASSES)) * 4
            targets = np.asarray(model._forward_batch(images) + off, case.dtype)
            break
        targets = rng.integers(0, _CLASSES, net.samples)
        if case.mode == "weighted":
            targets = rng.dirichlet(np.ones(_CLASSES), net.samples).astype(case.dtype)
            weights = rng.uniform(0, 2, net.samples).astype(case.dtype)
        data = images, targets, weights
        if case.dtype == "float64" or _clear(case, parameters, data, rng):
            break
    model = _model(case, REFERENCE)
    model.set_weights(parameters)
    start = perf_counter()
    names, outputs = _results(model, (images, targets, weights), loss)
    seconds = perf_counter() - start
    return ModelReference(
        case, seed, parameters, images, targets, weights, names, outputs,
        _bounds(case, model, names, outputs), seconds,
    )  # fmt: skip


def check_model(reference: ModelReference, engine: str) -> Result:
    """Run a case with the executor, or layer by layer on an engine, and compare the results.

    >>> check_model(model_reference_of(ModelCase("article", "float32", "exact"), 0), "im2col").ok
    True
    """
    case, seconds = reference.case, 0.0
    data = reference.images, reference.targets, reference.weights

    def run() -> tuple[Array, ...]:
        nonlocal seconds
        model = _model(case, engine)
        times = []
        for _ in range(3):  # the first run may compile
            model.set_weights(reference.parameters)
            start = perf_counter()
            results = _results(model, data, _loss(case))[1]
            times.append(perf_counter() - start)
        seconds = min(times)
        return results

    inputs = {"images": reference.images, "targets": reference.targets}
    judged = judge(run, reference.names, reference.outputs, reference.bounds, inputs)
    return Result(
        case, engine, reference.seed, judged.absolute, judged.relative, judged.bound, judged.share,
        seconds, reference.seconds, judged.problem,
    )  # fmt: skip


def _loss(case: ModelCase) -> Loss:
    return MeanSquaredError() if case.mode == "exact" else CrossEntropy()


def _model(case: ModelCase, engine: str, seed: int = 0) -> Sequential:
    net = NETS[case.op]
    return Sequential(
        net.layers(_CLASSES),
        net.shape,
        seed=seed,
        dtype="float64" if case.dtype == "float64" else "float32",
        engine=None if engine == EXECUTOR else engine,
    )


def _draw(
    case: ModelCase, net: Net, model: Sequential, rng: np.random.Generator
) -> tuple[list[Array], Array]:
    """Random parameters and images."""
    shape = net.samples, *net.shape
    if case.mode == "exact":
        images = rng.integers(-3, 4, shape).astype(case.dtype)
        parameters = [_few_integers(a.shape, rng).astype(a.dtype) for a in model.get_weights()]
    else:
        images = rng.integers(0, 256, shape).astype(np.uint8)
        model = _model(case, REFERENCE, int(rng.integers(2**32)))
        parameters = [  # biases, scales and statistics that are not all 0 or 1
            a + np.asarray((a.ndim == 1) * rng.uniform(0.01, 0.2, a.shape), a.dtype)
            for a in model.get_weights()
        ]
    images.setflags(write=False)
    return parameters, images


def _few_integers(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """−1, 0 and 1. A few numbers of each filter, or of each output's weights, are not 0."""
    if len(shape) == 1:
        return rng.integers(-1, 2, shape)
    columns = np.zeros((shape[-1], int(np.prod(shape[:-1]))), np.int64)
    for column in columns:
        places = rng.permutation(column.size)[:_TAPS]
        column[places] = rng.choice((-1, 1), len(places))
    return columns.T.reshape(shape)


def _results(
    model: Sequential, data: Data, loss: Loss
) -> tuple[tuple[str, ...], tuple[Array, ...]]:
    """Names and values of outputs, loss, gradients, and running statistics after the step."""
    (images, targets, weights), trunk = data, model._trunk(loss)
    rng = np.random.default_rng(0)
    if model.engine is None:
        executor = model._executor(trunk)
        if executor is None:
            raise RuntimeError(f"the model runs {model.explain()}")
        samples = model._executor_input(images, executor)
        outputs = executor.forward(samples)
        result = executor.gradients(samples, targets, loss, rng, weights)
        if outputs is None or result is None:
            raise RuntimeError("the executor hands the batch back to single operations")
        total, gradients = result[0], model._weights.gradients
    else:
        outputs = model._forward_batch(images, loss)
        total, _, gradients = model._gradients(images, targets, loss, rng, weights)
    results = {"outputs": outputs, "loss": np.array(total / len(images), model.dtype)}
    classes = np.arange(len(images)) % outputs.shape[1]
    gradient_at_images = model.input_gradient(images, classes)
    for i, (layer, by_name) in enumerate(zip(trunk, gradients, strict=False)):
        results |= {f"gradient of layers.{i}.{k}": a.copy() for k, a in by_name.items()}
        results |= {f"layers.{i}.{k}": a.copy() for k, a in layer.state.items()}
    results["gradient of images"] = gradient_at_images
    return tuple(results), tuple(results.values())


def _clear(case: ModelCase, parameters: list[Array], data: Data, rng: np.random.Generator) -> bool:
    """Whether roundings cannot change a choice that a gradient depends on."""
    model, loss = _model(case._replace(dtype="float64"), "im2col"), _loss(case)
    model.set_weights(parameters)
    images, targets, weights = data
    if weights is not None:
        data = images, targets.astype(np.float64), weights.astype(np.float64)
    names, outputs = _results(model, data, loss)
    allowed = _bounds(case, model, names, outputs)
    for _ in range(2):
        moves = [rng.normal(0, _MOVE * unit_roundoff("float32"), a.shape) for a in parameters]
        for sign in (-1, 1):
            moved = [a * (1 + sign * d) for a, d in zip(parameters, moves, strict=True)]
            model.set_weights(moved)
            for a, b, bound in zip(_results(model, data, loss)[1], outputs, allowed, strict=True):
                if not (abs(a - b) <= bound / 2).all():
                    return False
    return True


# --- bounds ---------------------------------------------------------------------------------------


def roundings(model: Sequential, samples: int) -> dict[str, int]:
    """The number of roundings in a row of each result, by the names of the results.

    >>> roundings(Sequential([Flatten(), Dense(10)], (2, 3, 1)), samples=4)["outputs"]
    7
    """
    counts = [_of_layer(layer, samples) for layer in model.layers]
    outputs = sum(forward for forward, _, _ in counts)
    (classes,) = model.output_shape or (0,)
    by_name = {"outputs": outputs, "loss": outputs + _FUNCTION + classes + samples}
    behind = by_name["loss"]
    for i in reversed(range(len(counts))):
        layer, (_, back, summed) = model.layers[i], counts[i]
        for name in layer.parameters:
            by_name[f"gradient of layers.{i}.{name}"] = behind + summed
        for name in layer.state:
            by_name[f"layers.{i}.{name}"] = behind
        behind += back
    by_name["gradient of images"] = outputs + sum(back for _, back, _ in counts)
    return by_name


def _of_layer(layer: Layer, samples: int) -> tuple[int, int, int]:
    """Roundings in a row of the output, and of the gradients of input and parameters."""
    shape, output = layer.input_shape, layer.output_shape
    assert shape is not None
    assert output is not None
    if isinstance(layer, Residual):
        paths = [[_of_layer(one, samples) for one in p] for p in (layer.layers, layer.shortcut)]
        forward, back = (max(sum(one[k] for one in p) for p in paths) + 1 for k in (0, 1))
        summed = max((one[2] for p in paths for one in p), default=0)
        return forward, back, summed + forward + back  # a bound for the layers inside
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
    if isinstance(layer, BatchNorm):  # it computes in float64, and rounds at the end of each pass
        return 4, 4, 4
    if isinstance(layer, Tanh | Sigmoid):
        return _FUNCTION, _FUNCTION, 0
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
    return 0, 0, 0  # the layer moves numbers, or leaves some out


def _bounds(
    case: ModelCase, model: Sequential, names: Sequence[str], outputs: Sequence[Array]
) -> tuple[Array, ...]:
    if case.mode == "exact":
        return tuple(np.zeros(y.shape) for y in outputs)
    counts, u = roundings(model, NETS[case.op].samples), unit_roundoff(case.dtype)
    return tuple(
        np.full(y.shape, (gamma(counts[name], u) + gamma(counts[name], _V)) * abs(y).max())
        for name, y in zip(names, outputs, strict=True)
    )
