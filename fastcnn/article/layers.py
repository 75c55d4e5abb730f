"""``Conv3x3``, ``MaxPool2`` and ``Softmax`` as in the article, computed by fastcnn's engines.

Each layer takes one image at a time, keeps the values for its ``backprop`` in ``last_…``
attributes, and updates its own parameters. All numbers are float64, as in the article. The public
functions of fastcnn compute them; the classes only arrange axes. ``iterate_regions`` shows the
pixels that each output sees, but the engines do not use it.

The layers differ from the article's code on purpose:

- a ``Conv3x3`` takes the output of another one, (h, w, channels), and returns its gradient;
- the gradient of a tied maximum goes to the first in row-major order, not to every tie;
- the softmax cannot overflow;
- ``Softmax.backprop`` takes any gradient, not only one with a single entry that is not zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import index

import numpy as np
from numpy.typing import ArrayLike

from fastcnn import ops
from fastcnn.core.arguments import Array, floats, shaped
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted


class Conv3x3:
    """A convolution layer of 3×3 filters, without padding or bias.

    ``filters`` has the shape (num_filters, 3, 3) for 2-D images, drawn as N(0, 1) / 9. A layer on
    top of another needs filter taps for each channel. If its first image is (h, w, channels) with
    several channels, the filters are drawn anew as (num_filters, 3, 3, channels), again as
    N(0, 1) / 9. Filters that were assigned, changed or trained are never drawn anew; images that do
    not fit them raise a ``ValueError``.

    Args:
        num_filters: number of filters.
        engine: an engine's name, or None for the fastest.
        rng: the generator that draws the filters, or None for a fresh one.

    Raises:
        TypeError, ValueError: a number of filters that is not an integer of at least 1.

    Example:
        >>> import numpy as np
        >>> first, second = Conv3x3(8), Conv3x3(16)
        >>> second.forward(first.forward(np.zeros((28, 28)))).shape
        (24, 24, 16)
        >>> first.filters.shape, second.filters.shape
        ((8, 3, 3), (16, 3, 3, 8))
    """

    def __init__(
        self,
        num_filters: int,
        *,
        engine: str | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.num_filters = _count("num_filters", num_filters)
        self.engine = engine
        self.last_input: Array | None = None
        self._rng = np.random.default_rng() if rng is None else rng
        self.filters: Array = self._draw(())
        self._initial_filters = self.filters.copy()

    def __repr__(self) -> str:
        return f"Conv3x3({self.num_filters})"

    def iterate_regions(self, image: Array) -> Iterator[tuple[Array, int, int]]:
        """Yield ``(im_region, i, j)``: each 3×3 region of the image, and its place in the output.

        >>> import numpy as np
        >>> regions = Conv3x3(1).iterate_regions(np.arange(20).reshape(4, 5))
        >>> [(int(im_region[0, 0]), i, j) for im_region, i, j in regions]
        [(0, 0, 0), (1, 0, 1), (2, 0, 2), (5, 1, 0), (6, 1, 1), (7, 1, 2)]
        """
        h, w = image.shape[:2]
        for i in range(h - 2):
            for j in range(w - 2):
                yield image[i : i + 3, j : j + 3], i, j

    def forward(self, input: ArrayLike) -> Array:
        """Apply all filters to an image (h, w) or (h, w, channels): (h − 2, w − 2, num_filters).

        Raises ``ValueError`` for another rank, an image below 3×3, or filters that do not fit it.
        """
        image = _float64("input", input)
        if image.ndim not in (2, 3) or min(image.shape[:2]) < 3 or image.shape[-1] < 1:
            raise ValueError(
                f"input must be an image (h, w) or (h, w, channels) of at least 3 by 3 pixels, "
                f"got {image.shape}"
            )
        w = self._filters_for(image)
        self.last_input = image
        out: Array = ops.conv2d(_batch(image), w, engine=self.engine)[0]
        return out

    @unreported
    def backprop(self, d_L_d_out: ArrayLike, learn_rate: float) -> Array | None:
        """Take one step of gradient descent on the filters.

        Args:
            d_L_d_out: gradient of the loss for the last output, (h − 2, w − 2, num_filters).
            learn_rate: size of the step.

        Returns:
            The gradient for the last input, (h, w, channels), with the filters before the step. It
            is None if the last input was (h, w), because then this is the first layer.
        """
        image = _require(self.last_input)
        dy = _float64("d_L_d_out", d_L_d_out)
        h, w = image.shape[:2]
        shaped("d_L_d_out", dy, (h - 2, w - 2, self.num_filters), "the shape of the last output")
        filters = self._filters_for(image)
        x, dy = _batch(image), dy[np.newaxis]
        dx = None
        if image.ndim == 3:
            dx = ops.conv2d_input_gradient(dy, filters, x.shape, engine=self.engine)[0]
        dw = ops.conv2d_filter_gradient(dy, x, 3, engine=self.engine)
        self.filters -= learn_rate * dw.transpose(3, 0, 1, 2).reshape(self.filters.shape)
        return dx

    def _filters_for(self, image: Array) -> Array:
        """The filters as (3, 3, channels, num_filters), drawn anew if this image is the first."""
        channels = 1 if image.ndim == 2 else image.shape[2]
        untouched = self.last_input is None and np.array_equal(self.filters, self._initial_filters)
        if channels > 1 and untouched:
            self.filters = self._draw((channels,))
        one_image = (self.num_filters, 3, 3)
        fitting = (*one_image, channels)
        if self.filters.shape != fitting and (channels, self.filters.shape) != (1, one_image):
            raise ValueError(
                f"filters must have the shape {fitting} for an input of shape {image.shape}, "
                f"got {self.filters.shape}"
            )
        return _float64("filters", self.filters).reshape(fitting).transpose(1, 2, 3, 0)

    def _draw(self, channels: tuple[int, ...]) -> Array:
        # The article divides by 9 to keep outputs near the size of the inputs.
        return self._rng.standard_normal((self.num_filters, 3, 3, *channels)) / 9


class MaxPool2:
    """A max-pooling layer of 2×2 windows; an odd row or column at the end is left out.

    Args:
        engine: an engine's name, or None for the fastest.

    Example:
        >>> import numpy as np
        >>> MaxPool2().forward(np.zeros((26, 26, 8))).shape
        (13, 13, 8)
    """

    def __init__(self, *, engine: str | None = None) -> None:
        self.engine = engine
        self.last_input: Array | None = None

    def __repr__(self) -> str:
        return "MaxPool2()"

    def iterate_regions(self, image: Array) -> Iterator[tuple[Array, int, int]]:
        """Yield ``(im_region, i, j)``: each 2×2 region, side by side, and its place.

        >>> import numpy as np
        >>> regions = MaxPool2().iterate_regions(np.arange(20).reshape(4, 5, 1))
        >>> [(int(im_region[0, 0, 0]), i, j) for im_region, i, j in regions]
        [(0, 0, 0), (2, 0, 1), (10, 1, 0), (12, 1, 1)]
        """
        h, w = image.shape[:2]
        for i in range(h // 2):
            for j in range(w // 2):
                yield image[i * 2 : i * 2 + 2, j * 2 : j * 2 + 2], i, j

    def forward(self, input: ArrayLike) -> Array:
        """The largest value of each region: (h, w, num_filters) to (h // 2, w // 2, num_filters).

        Raises ``ValueError`` for another rank, or an image below 2×2.
        """
        image = _float64("input", input)
        if image.ndim != 3 or min(image.shape[:2]) < 2 or image.shape[2] < 1:
            raise ValueError(
                f"input must have the shape (h, w, num_filters), at least 2 by 2 pixels, "
                f"got {image.shape}"
            )
        self.last_input = image
        out: Array = ops.max_pool2d(_batch(image), 2, engine=self.engine)[0]
        return out

    def backprop(self, d_L_d_out: ArrayLike, learn_rate: float | None = None) -> Array:
        """The gradient for the last input, (h, w, num_filters), routed to each region's maximum.

        The first of tied maxima in row-major order gets the gradient. The article's code gives it
        to each of them, which matters on MNIST, because the digits' background is one large tie.

        Args:
            d_L_d_out: gradient of the loss for the last output, (h // 2, w // 2, num_filters).
            learn_rate: not used. All three layers have this parameter, so that a script can call
                them alike.
        """
        image = _require(self.last_input)
        dy = _float64("d_L_d_out", d_L_d_out)
        h, w, num_filters = image.shape
        shaped("d_L_d_out", dy, (h // 2, w // 2, num_filters), "the shape of the last output")
        x, dy = _batch(image), dy[np.newaxis]
        dx: Array = ops.max_pool2d_backward(dy, x, 2, engine=self.engine)[0]
        return dx


class Softmax:
    """A fully connected layer with softmax activation.

    ``weights`` has the shape (input_len, nodes), drawn as N(0, 1) / input_len; ``biases`` (nodes,),
    zeros.

    Args:
        input_len: number of input values.
        nodes: number of outputs, one for each class.
        engine: an engine's name, or None for the fastest.
        rng: the generator that draws the weights, or None for a fresh one.

    Raises:
        TypeError, ValueError: a length that is not an integer of at least 1.

    Example:
        >>> import numpy as np
        >>> Softmax(13 * 13 * 8, 10).forward(np.zeros((13, 13, 8)))
        array([0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    """

    def __init__(
        self,
        input_len: int,
        nodes: int,
        *,
        engine: str | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        sides = _count("input_len", input_len), _count("nodes", nodes)
        rng = np.random.default_rng() if rng is None else rng
        self.engine = engine
        # The article divides by input_len to keep the totals small.
        self.weights: Array = rng.standard_normal(sides) / input_len
        self.biases: Array = np.zeros(nodes)
        self.last_input_shape: tuple[int, ...] = ()
        self.last_input: Array | None = None
        self.last_totals: Array | None = None

    def __repr__(self) -> str:
        return f"Softmax({self.weights.shape[0]}, {self.weights.shape[1]})"

    def forward(self, input: ArrayLike) -> Array:
        """Probabilities, (nodes,), for an input of any shape that holds input_len values.

        Raises ``ValueError`` for an input of another length.
        """
        values = _float64("input", input)
        input_len = len(self.weights)
        if values.size != input_len:
            raise ValueError(f"input must hold input_len = {input_len} values, got {values.shape}")
        self.last_input_shape = values.shape
        self.last_input = values.reshape(-1)
        totals = ops.dense(
            self.last_input[np.newaxis], self.weights, self.biases, engine=self.engine
        )[0]
        self.last_totals = totals
        return ops.softmax(totals, engine=self.engine)

    @unreported
    def backprop(self, d_L_d_out: ArrayLike, learn_rate: float) -> Array:
        """Take one step of gradient descent on weights and biases.

        Args:
            d_L_d_out: gradient of the loss for the last output's probabilities, (nodes,); any
                values. (The article's is zero but for −1 / probability at the label.)
            learn_rate: size of the step.

        Returns:
            The gradient for the last input, in its shape, with the weights before the step.
        """
        values, totals = _require(self.last_input), _require(self.last_totals)
        d_out = _float64("d_L_d_out", d_L_d_out)
        shaped("d_L_d_out", d_out, totals.shape, "one number per node")
        d_totals = ops.softmax_backward(d_out, totals, engine=self.engine)
        d_input, d_weights, d_biases = ops.dense_backward(
            d_totals[np.newaxis], values[np.newaxis], self.weights, engine=self.engine
        )
        self.weights -= learn_rate * d_weights
        self.biases -= learn_rate * d_biases
        return d_input.reshape(self.last_input_shape)


def _float64(name: str, value: ArrayLike) -> Array:
    (array,) = floats(**{name: value})
    return array.astype(np.float64, copy=False)


def _batch(image: Array) -> Array:
    """One image, (h, w) or (h, w, channels), as the batch (1, h, w, channels)."""
    return image.reshape(1, *image.shape[:2], -1)


def _require(last: Array | None) -> Array:
    if last is None:
        raise RuntimeError("backprop needs a forward pass before it: call forward first")
    return last


def _count(name: str, value: int) -> int:
    try:
        count = index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {quoted(value)}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {quoted(value)}")
    return count
