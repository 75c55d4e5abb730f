"""The standard nets as contests: inference on ImageNet's shape, with random weights.

All runners have the same weights. These are random, and as sane as trained ones: each batch
normalisation has the statistics of random images, and the scores of classes differ by some units.
So a number that an engine computes wrongly shows in the probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from fastcnn.bench.contest import Contest, Runner, Skipped, in_strict_math, on_one_thread
from fastcnn.bench.pages import at_page
from fastcnn.bench.report import ALONE, OURS, STRICT
from fastcnn.core.arguments import Array
from fastcnn.models.model import Model
from fastcnn.models.standard_nets import IMAGENET, STANDARD_NETS
from fastcnn.nn.layers import BatchNorm
from fastcnn.nn.optimizers import SGD

TITLES = {
    "mobilenet_v1": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "squeezenet": "SqueezeNet 1.1",
    "vgg16": "VGG-16",
    "u_net": "U-net",
}
BATCHES = (1, 8)
TOLERANCE = 1e-4
"""Largest error of a result, as a share of its largest value.

Rounding errors of float32 have random signs, so they grow as the root of the number of layers in a
row, to some 1e-6 of the largest value. A wrong, missing or misplaced filter changes the results by
some per cent.
"""
SPREAD = 2.0
"""Standard deviation of the scores of classes."""


@dataclass(frozen=True)
class StandardTask:
    """A standard net with weights, and one batch of random images.

    Attributes:
        name: a name of :data:`fastcnn.nets.STANDARD_NETS`.
        batch: number of images.
        shape: of an image.
        classes: of a classifier; channels of the result of a net whose results are images.
        width: the factor of all numbers of channels.
    """

    name: str
    batch: int
    shape: tuple[int, int, int]
    classes: int
    width: float = 1.0

    @property
    def classifies(self) -> bool:
        """Whether the net returns scores of classes, which ``predict`` turns into probabilities."""
        return self.name != "u_net"

    def images(self) -> Array:
        """The images. Those of a smaller batch are the first of a larger one."""
        return at_page(_random_images(self.batch, self.shape))

    def model(
        self, engine: str | None = None, dtype: Literal["float32", "float64"] = "float32"
    ) -> Model:
        """A new model, always with the same weights."""
        model = _first_weights(self, engine, dtype)
        model.set_weights(_weights(replace(self, batch=1)))
        return model


def task(name: str, batch: int) -> StandardTask:
    """A standard net at its usual size."""
    if name == "u_net":
        return StandardTask(name, batch, (128, 128, 3), 1)
    return StandardTask(name, batch, IMAGENET, 1000)


def title(name: str, batch: int) -> str:
    """The title of a contest.

    >>> title("resnet50", 8)
    'ResNet-50, inference, batch 8'
    """
    return f"{TITLES[name]}, inference, batch {batch}"


def contest(of: StandardTask) -> Contest:
    """The contest of fastcnn: by default, on one thread, in strict mathematics, and layer by
    layer on NumPy."""
    reference = of.model("im2col", "float64").predict(of.images())
    tolerance = TOLERANCE * float(abs(reference).max())
    if not reference.std() > 10 * tolerance:
        raise ArithmeticError("results that are all alike prove nothing")
    model = of.model()
    weights = sum(array.nbytes for array in model.get_weights())
    result = Contest(
        title(of.name, of.batch),
        "net_standard",
        model_flops(model) * of.batch,
        of.images().nbytes + weights,
        (reference,),
        tolerance,
    )
    runner = _runner(OURS, model, of)
    result.runners.append(runner)
    result.runners.append(on_one_thread(replace(runner, name=ALONE)))
    result.runners.append(in_strict_math(_runner(OURS, of.model(), of), STRICT))
    result.runners.append(_runner("im2col", of.model("im2col"), of))
    result.skipped.append(Skipped("naive", "one image takes it minutes"))
    return result


def model_flops(model: Model) -> int:
    """Multiply-adds of one sample, times 2."""
    return sum(layer.flops(layer.input_shape or ()) for layer in model.layers)


def _runner(name: str, model: Model, of: StandardTask) -> Runner:
    x = of.images()
    return Runner(name, "fastcnn", lambda: model.predict(x), lambda: (model.predict(x),))


def _random_images(count: int, shape: tuple[int, ...]) -> Array:
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, *shape), dtype=np.float32)


def _first_weights(
    of: StandardTask, engine: str | None, dtype: Literal["float32", "float64"]
) -> Model:
    return STANDARD_NETS[of.name](
        of.classes, of.shape, of.width, seed=0, engine=engine, dtype=dtype
    )


@lru_cache(maxsize=1)
def _weights(of: StandardTask) -> list[Array]:
    """The weights of a net, for any batch; ``of.batch`` does not count.

    Biases, scales and shifts are random. A training step on two images yields the statistics of the
    batch normalisations. At last a factor of the last layer's parameters gives scores their spread.
    """
    model, rng = _first_weights(of, "im2col", "float32"), np.random.default_rng(1)
    for layer in model.layers:
        for array in layer.parameters.values():
            if array.ndim == 1:
                array += rng.normal(0, 0.1, array.shape).astype(array.dtype)
    images = _random_images(2, of.shape)
    _measure_statistics(model, images, of)
    if of.classifies:
        last = next(layer for layer in reversed(model.layers) if layer.parameters)
        scores = np.log(model.predict(images))  # but for a number that all classes share
        factor = np.float32(SPREAD / scores.std(1).mean())
        for array in last.parameters.values():
            array *= factor
    return model.get_weights()


def _measure_statistics(model: Model, images: Array, of: StandardTask) -> None:
    """Let all batch normalisations have the statistics of these images.

    Each variance gets a share of the layer's mean variance too. Without it, a channel that is
    constant on these images would be far too large on others.
    """
    normalisations = [layer for layer in model.layers if isinstance(layer, BatchNorm)]
    if not normalisations:
        return
    before = model.get_weights()
    first = [{name: array.copy() for name, array in one.state.items()} for one in normalisations]
    if of.classifies:
        model.train_on_batch(images, np.zeros(len(images), np.int64), SGD(1e-3))
    else:
        model.train_on_batch(images, model.predict(images), SGD(1e-3), loss="mse")
    after = [{name: array.copy() for name, array in one.state.items()} for one in normalisations]
    model.set_weights(before)
    for layer, old, new in zip(normalisations, first, after, strict=True):
        for name, array in layer.state.items():
            array[...] = (new[name] - layer.momentum * old[name]) / (1 - layer.momentum)
        layer.state["variance"][...] += layer.state["variance"].mean() * np.float32(0.1)
