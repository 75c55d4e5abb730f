"""NumPy's error state is the caller's own: it changes no result, and diverging means the loss."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tiny import net, stripes

import fastcnn
from fastcnn import Sequential
from fastcnn.article import ArticleNet
from fastcnn.core.arguments import Array
from fastcnn.data.augmentation import Augment
from fastcnn.layers import BatchNorm, Dense, Flatten, Layer
from fastcnn.losses import CrossEntropy
from fastcnn.optimizers import SGD, Adam, RMSprop

ENGINES = ("numba", "im2col", "naive")


@pytest.fixture(params=["raised", "warnings are errors"])
def strict(request: pytest.FixtureRequest) -> Iterator[None]:
    """What numerical programs set."""
    state: Any = "raise" if request.param == "raised" else "warn"
    with np.errstate(all=state), warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Numbers whose products, exponentials and quotients leave the range of float32, on both sides.
WIDE = np.float32([[1e-38, 3e38, -3e38, 200], [-200, 0, 1e-45, 1], [3e38, 3e38, 1e-30, -1e-30]])
IMAGES = np.tile(WIDE.reshape(1, 3, 4, 1), (2, 2, 2, 1))
CALLS = {
    "softmax": lambda e: fastcnn.softmax(WIDE, engine=e),
    "log_softmax": lambda e: fastcnn.log_softmax(WIDE, engine=e),
    "sigmoid": lambda e: fastcnn.sigmoid(WIDE, engine=e),
    "sigmoid_backward": lambda e: fastcnn.sigmoid_backward(WIDE, WIDE, engine=e),
    "tanh": lambda e: fastcnn.tanh(WIDE, engine=e),
    "tanh_backward": lambda e: fastcnn.tanh_backward(WIDE, WIDE, engine=e),
    "cross_entropy": lambda e: fastcnn.cross_entropy(WIDE, [1, 0, 3], engine=e),
    "cross_entropy of doubles": lambda e: fastcnn.cross_entropy(
        np.float64([[1e-300, 300, -1e300]]), [1], engine=e
    ),
    "dense": lambda e: fastcnn.dense(WIDE, WIDE.T.copy(), engine=e),
    "conv2d": lambda e: fastcnn.conv2d(IMAGES, IMAGES[:1, :3, :3].reshape(3, 3, 1, 1), engine=e),
    "avg_pool2d": lambda e: fastcnn.avg_pool2d(IMAGES, 2, engine=e),
    "leaky_relu": lambda e: fastcnn.leaky_relu(WIDE, 1e-20, engine=e),
    "batch_norm": lambda e: fastcnn.batch_norm(WIDE, np.ones(4, np.float32), WIDE[0], engine=e)[0],
    "clipped_relu": lambda e: fastcnn.clipped_relu(WIDE, 1e300, engine=e),
    "elu": lambda e: fastcnn.elu(WIDE, 1e-30, engine=e),
    "elu_backward": lambda e: fastcnn.elu_backward(WIDE, WIDE, 1e-30, engine=e),
    "hard_sigmoid": lambda e: fastcnn.hard_sigmoid(WIDE, 1e10, 1e-45, engine=e),
    "hard_swish": lambda e: fastcnn.hard_swish(WIDE, engine=e),
    "hard_swish_backward": lambda e: fastcnn.hard_swish_backward(WIDE, WIDE, engine=e),
    "swish": lambda e: fastcnn.swish(WIDE, engine=e),
    "swish_backward": lambda e: fastcnn.swish_backward(WIDE, WIDE, engine=e),
    "gelu": lambda e: fastcnn.gelu(WIDE, engine=e),
    "gelu_backward": lambda e: fastcnn.gelu_backward(WIDE, WIDE, engine=e),
    "gelu in the tanh form": lambda e: fastcnn.gelu_backward(WIDE, WIDE, True, engine=e),
    "softplus": lambda e: fastcnn.softplus(WIDE, engine=e),
    "prelu": lambda e: fastcnn.prelu(WIDE, WIDE[2], engine=e),
    "prelu_backward": lambda e: fastcnn.prelu_backward(WIDE, WIDE, WIDE[0], engine=e)[1],
}


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", CALLS)
def test_an_operation_gives_the_same_under_any_state(name: str, engine: str) -> None:
    with np.errstate(all="ignore"):
        expected = CALLS[name](engine)
    np.testing.assert_array_equal(CALLS[name](engine), expected)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("engine", [None, "im2col", "naive"])
@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [
        ("cross_entropy", Adam(1e-30, epsilon=1e-30)),
        ("cross_entropy", SGD(1e-30, momentum=0.5, weight_decay=1e-30)),
        (CrossEntropy(label_smoothing=0.1), RMSprop(1e-30)),
        ("mse", SGD(1e-40, clip_norm=1.0)),
        ("binary_cross_entropy", SGD(1e-40)),
    ],
)
def test_a_training_whose_numbers_underflow_is_healthy(
    loss: Any, optimizer: Any, engine: str | None
) -> None:
    labels = not isinstance(loss, str) or loss == "cross_entropy"
    x = np.float32([[-2, 1e-30], [2, -1e-30]] * 8)
    y = np.array([0, 1] * 8) if labels else np.float32([[0], [1]] * 8)
    layers = [BatchNorm(), Dense(2 if labels else 1)]
    model = Sequential(layers, (2,), seed=0, engine=engine)
    weights = model.get_weights()
    model.set_weights([w * np.float32(60) if w.ndim == 2 else w for w in weights])
    history = model.fit(x, y, loss=loss, optimizer=optimizer, verbose=0, epochs=2)
    assert np.isfinite(history.history["loss"]).all()
    assert np.isfinite(model.predict(x)).all()
    assert np.isfinite(model.evaluate(x, y)["loss"])
    model.predict(np.full((3, 2), 1e-300))  # converted: what is small becomes 0
    model.train_on_batch(x, y)


@pytest.mark.usefixtures("strict")
def test_the_classifier_the_article_and_augmentation_know_no_state() -> None:
    x, y = stripes(12)
    article = ArticleNet()
    article.conv.filters *= 1e-200
    article.softmax.weights *= 1e-200
    loss, _ = article.train(np.zeros((28, 28)) + 1e-3, 3)
    assert np.isfinite(loss)
    with np.errstate(all="ignore"):
        small = x[..., np.newaxis] * np.float32(1e-44)
    moved = Augment(rotate=10)(small, np.random.default_rng(0))
    assert moved.shape == small.shape
    model = Sequential(net(), (9, 8), seed=0)
    assert np.isfinite(model.fit(x, y, verbose=0).history["loss"]).all()


class Told(Layer):
    """A layer of a user's own, which says what is wrong in its own way."""

    def infer(self, input_shape: Any) -> Any:
        return input_shape

    def forward(self, x: Array, training: bool, rng: Any, engine: str | None) -> Any:
        if training:
            with np.errstate(all="raise"):
                np.float32(1e-30) * x.dtype.type(1e-30)
        return x, None

    def backward(self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True) -> Any:
        return dy, {}


Layer.registry.pop("Told")  # other tests take every layer that is known


def test_what_a_users_layer_raises_is_not_told_as_divergence() -> None:
    x, y = stripes(6)
    model = Sequential([Told(), Flatten(), Dense(3)], (9, 8), seed=0)
    with pytest.raises(FloatingPointError, match=r"^underflow encountered"):
        model.fit(x, y, verbose=0)
    with pytest.raises(FloatingPointError, match=r"^underflow encountered"):
        model.train_on_batch(x, y)


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("engine", [None, "im2col"])
def test_a_loss_that_is_not_finite_is_divergence_under_any_state(engine: str | None) -> None:
    x, y = stripes(6)
    model = Sequential([Flatten(), Dense(3)], (9, 8), seed=0, engine=engine)
    model.set_weights([w + np.float32(1e38) for w in model.get_weights()])
    said = re.escape(", in batch 1 of epoch 1; the model keeps the weights from before it")
    with pytest.raises(FloatingPointError, match=f"the loss of a batch is .*{said}"):
        model.fit(x.astype(np.float32) / 255, y, verbose=0)


def test_callbacks_and_augmentation_of_a_users_own_keep_their_state() -> None:
    x, y = stripes(6)
    states = []

    class Look(fastcnn.callbacks.Callback):
        def on_batch_end(self, model: Any, batch: int, logs: Any) -> None:
            states.append(np.geterr()["under"])

    def augment(images: Array, rng: np.random.Generator) -> Array:
        states.append(np.geterr()["under"])
        return images

    with np.errstate(all="raise"):
        model = Sequential(net(), (9, 8), seed=0)
        model.fit(x, y, callbacks=[Look()], augment=augment, verbose=0)
        assert np.geterr()["under"] == "raise"
    assert set(states) == {"raise"}
