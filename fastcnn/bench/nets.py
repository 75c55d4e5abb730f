"""Whole nets as contests: inference and training steps, as users run them.

Small nets on MNIST are here, through ``Sequential``; :mod:`fastcnn.bench.standard` has the standard
nets.

Results are verified before they are timed: the probabilities of inference, and the losses of a few
training steps, which agree with the reference only if every gradient is right. The reference is the
same net in float64 on the im2col engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np

from fastcnn.bench import standard
from fastcnn.bench.contest import Contest, Runner, Skipped, in_strict_math, on_one_thread
from fastcnn.bench.pages import at_page
from fastcnn.bench.problems import NetProblem
from fastcnn.bench.report import ALONE, OURS, STRICT
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import pair
from fastcnn.data.datasets import load_mnist
from fastcnn.models.nets import NETS
from fastcnn.models.sequential import Sequential
from fastcnn.nn.layers import Conv2D, Dense, Flatten, Layer, MaxPool2D
from fastcnn.nn.optimizers import SGD

INPUT_SHAPE = (28, 28, 1)
RATE = 0.005
STEPS = 5  # training steps whose losses are compared
TITLES = {"article": "article's net", "lenet5": "LeNet-5", "wide": "wide CNN"}
# Largest error of probabilities and losses in float32, with sums of some thousand terms.
TOLERANCE = 2e-5


@dataclass(frozen=True, eq=False)
class NetTask:
    """A net with its first weights, and one batch of MNIST digits."""

    name: str
    mode: str
    x: Array
    labels: Array

    @property
    def batch(self) -> int:
        return len(self.x)

    def model(
        self, engine: str | None = None, dtype: Literal["float32", "float64"] = "float32"
    ) -> Sequential:
        """A new model, always with the same weights."""
        net = Sequential(NETS[self.name](), INPUT_SHAPE, seed=0, dtype=dtype, engine=engine)
        if self.name == "article":  # with the article's small weights all classes would be alike
            rng = np.random.default_rng(0)
            net.set_weights(
                [3 * w + 0.05 * rng.standard_normal(w.shape) for w in net.get_weights()]
            )
        return net


@dataclass(frozen=True)
class Part:
    """One layer, as peers need it. ``padding`` is (top, bottom, left, right)."""

    kind: str
    w: Array | None = None
    b: Array | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] = (0, 0)
    relu: bool = False
    shape: tuple[int, ...] = ()


def parts(model: Sequential) -> list[Part]:
    """The layers of a built model, with copies of their weights and the shapes of their inputs.

    Raises ``NotImplementedError`` for a layer that peers do not support.
    """
    return [_part(layer) for layer in model.layers]


def _part(layer: Layer) -> Part:
    shape = layer.input_shape or ()
    if isinstance(layer, Conv2D):
        g = layer.geometry(shape)
        b = layer.parameters.get("b")
        return Part(
            "conv",
            layer.parameters["w"].copy(),
            None if b is None else b.copy(),
            (g.stride_h, g.stride_w),
            (g.pad_top, g.pad_bottom, g.pad_left, g.pad_right),
            relu=layer.activation == "relu",
            shape=shape,
        )
    if isinstance(layer, MaxPool2D) and layer.strides is None and layer.padding == "valid":
        return Part("pool", size=pair("pool_size", layer.pool_size), shape=shape)
    if isinstance(layer, Flatten):
        return Part("flatten", shape=shape)
    if isinstance(layer, Dense):
        w, b = layer.parameters["w"].copy(), layer.parameters["b"].copy()
        return Part("dense", w, b, relu=layer.activation == "relu", shape=shape)
    raise NotImplementedError(f"{type(layer).__name__} is not among the layers that peers build")


def task(name: str, mode: str, batch: int) -> NetTask | StandardTask:
    """A net of :data:`fastcnn.nets.NETS` on MNIST's first digits, with a mode of "predict" or
    "train"; or a standard net, whose mode is "predict"."""
    if name in standard.TITLES:
        return standard.task(name, batch)
    (images, labels), _ = load_mnist()
    x = (images[:batch, :, :, np.newaxis] / np.float32(255) - np.float32(0.5)).astype(np.float32)
    return NetTask(name, mode, at_page(x), at_page(labels[:batch].astype(np.int64)))


def title(of: NetTask | NetProblem) -> str:
    """The title of a net's contest, such as "LeNet-5, inference, batch 32"."""
    name = of.net if isinstance(of, NetProblem) else of.name
    if name in standard.TITLES:
        return standard.title(name, of.batch)
    mode = "inference" if of.mode == "predict" else "training step"
    return f"{TITLES[name]}, {mode}, batch {of.batch}"


def contest(of: NetTask | StandardTask, naive_seconds: float) -> Contest:
    """The contest of fastcnn: by default, on one thread, in strict mathematics, and layer by
    layer on each engine.

    ``naive_seconds`` is the longest time of a call of the naive engine, as for operations.
    """
    if isinstance(of, StandardTask):
        return standard.contest(of)
    model = of.model()
    forward = sum(layer.flops(layer.input_shape or ()) for layer in model.layers)
    first = model.layers[0].flops(INPUT_SHAPE)
    flops = forward if of.mode == "predict" else 3 * forward - first  # no gradient of the images
    weights = sum(w.nbytes for w in model.get_weights())
    result = Contest(
        title(of),
        f"net_{of.mode}",
        flops * of.batch,
        of.x.nbytes + weights * (1 if of.mode == "predict" else 3),
        reference_of(of),
        TOLERANCE,
    )
    result.runners.append(ours(of, None, OURS))
    result.runners.append(on_one_thread(ours(of, None, ALONE)))
    result.runners.append(in_strict_math(ours(of, None, OURS), STRICT))
    result.runners.append(ours(of, "im2col", "im2col"))
    _join_naive(result, of, model, naive_seconds)
    return result


def _join_naive(contest: Contest, of: NetTask, model: Sequential, seconds: float) -> None:
    """Enter the naive engine, on as many images as its time allows; training needs all images."""
    once = 12e-6 * sum(prod(layer.output_shape or ()) for layer in model.layers) / 8
    if of.mode == "train":
        once *= 3
    images = min(of.batch, int(seconds / once))
    if images == of.batch:
        contest.runners.append(ours(of, "naive", "naive"))
    elif images and of.mode == "predict":
        part = replace(of, x=of.x[:images], labels=of.labels[:images])
        runner = ours(part, "naive", "naive")
        expected = tuple(y[:images] for y in contest.reference)
        contest.runners.append(replace(runner, share=images / of.batch, expected=expected))
    else:
        contest.skipped.append(Skipped("naive", f"one call takes it about {once * of.batch:.1f} s"))


def reference_of(of: NetTask) -> tuple[Array, ...]:
    """The right result. It is checked itself, because constant numbers would prove nothing."""
    model = of.model("im2col", "float64")
    if of.mode == "predict":
        y = model.predict(of.x)
        if not y.std() > 100 * TOLERANCE:
            raise ArithmeticError("probabilities that are all alike prove nothing")
        return (y,)
    losses = losses_of(lambda: model.train_on_batch(of.x, of.labels, SGD(RATE))[0])
    drop = float(losses[0] - losses[-1])
    if not abs(drop) > 100 * TOLERANCE:
        raise ArithmeticError("losses that do not move prove nothing")
    return (losses,)


def losses_of(step: Callable[[], Any]) -> Array:
    """The losses of a few steps."""
    return np.array([float(step()) for _ in range(STEPS)])


def ours(of: NetTask, engine: str | None, name: str) -> Runner:
    """fastcnn on an engine as a runner; None means the default of ``Sequential``."""
    model = of.model(engine)
    if of.mode == "predict":
        return Runner(name, "fastcnn", lambda: model.predict(of.x), lambda: (model.predict(of.x),))
    descent = SGD(RATE)

    def step() -> float:
        return model.train_on_batch(of.x, of.labels, descent)[0]

    return Runner(name, "fastcnn", step, lambda: (losses_of(step),))
