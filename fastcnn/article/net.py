"""The article's network and its training step: conv 8 → pool → softmax, one digit at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastcnn import ops
from fastcnn.article.layers import Conv3x3, MaxPool2, Softmax
from fastcnn.core.arguments import Array, class_labels, floats, shaped
from fastcnn.core.float_errors import unreported

CLASSES = 10


class ArticleNet:
    """28×28 pixels → ``conv`` 26×26×8 → ``pool`` 13×13×8 → ``softmax`` 10 probabilities.

    Nets with generators of the same seed are equal on all engines.

    Args:
        engine: an engine's name, or None for the fastest.
        rng: the generator that draws filters and weights, or None for a fresh one.

    Example:
        >>> import numpy as np
        >>> net = ArticleNet(rng=np.random.default_rng(0))
        >>> digit = np.zeros((28, 28), np.uint8)
        >>> digit[4:24, 13:15] = 255
        >>> before, _ = net.train(digit, 1)
        >>> _, after, accuracy = net.forward(digit, 1)
        >>> bool(after < before)
        True
    """

    def __init__(
        self, *, engine: str | None = None, rng: np.random.Generator | None = None
    ) -> None:
        rng = np.random.default_rng() if rng is None else rng
        self.conv = Conv3x3(8, engine=engine, rng=rng)
        self.pool = MaxPool2(engine=engine)
        self.softmax = Softmax(13 * 13 * 8, CLASSES, engine=engine, rng=rng)
        self.engine = engine

    @unreported
    def forward(self, image: ArrayLike, label: int) -> tuple[Array, float, int]:
        """One digit through the net.

        Args:
            image: the digit, (28, 28), values from 0 to 255; the net sees −0.5 to 0.5.
            label: the digit's value, 0 to 9.

        Returns:
            out: the probabilities, (10,).
            loss: cross-entropy, −log of the label's probability.
            acc: 1 if the label is the most probable class, else 0.

        Raises:
            TypeError, ValueError: an argument is no image or no label.
        """
        (pixels,) = floats(image=image)
        shaped("image", pixels, (28, 28), "the shape of an MNIST digit")
        labels = class_labels([label], 1, CLASSES)
        out = self.conv.forward(pixels.astype(np.float64) / 255 - 0.5)
        out = self.pool.forward(out)
        out = self.softmax.forward(out)
        # The loss is computed from the totals, so that it stays finite if a probability underflows.
        totals = self.softmax.last_totals
        assert totals is not None
        loss = float(ops.cross_entropy(totals[np.newaxis], labels, engine=self.engine))
        return out, loss, int(np.argmax(out) == label)

    @unreported
    def train(self, im: ArrayLike, label: int, lr: float = 0.005) -> tuple[float, int]:
        """One step of gradient descent on one digit.

        Args:
            im: the digit, as for :meth:`forward`.
            label: the digit's value, 0 to 9.
            lr: the learning rate.

        Returns:
            The loss and acc of :meth:`forward`, before the step.
        """
        out, loss, acc = self.forward(im, label)
        gradient = np.zeros(CLASSES)
        # The bound keeps the gradient finite for a probability that underflows to 0.
        gradient[label] = -1 / max(out[label], np.finfo(np.float64).tiny)
        gradient = self.softmax.backprop(gradient, lr)
        gradient = self.pool.backprop(gradient)
        self.conv.backprop(gradient, lr)
        return loss, acc
