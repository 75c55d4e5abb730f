"""Layers that behave differently in training and in prediction: Dropout and BatchNorm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import prod

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.scalars import below_one, number
from fastcnn.nn.layers.arrays import note_moved
from fastcnn.nn.layers.base import Gradients, Layer, Saved
from fastcnn.nn.layers.initializers import Shape, Spec

_statistics_move: ContextVar[bool] = ContextVar("fastcnn_statistics_move", default=True)


@contextmanager
def statistics_unchanged() -> Iterator[None]:
    """Within this context and the current thread or task, no running statistics move."""
    token = _statistics_move.set(False)
    try:
        yield
    finally:
        _statistics_move.reset(token)


class Dropout(Layer):
    """Sets each number to 0 with probability ``rate``, and divides the others by ``1 - rate``.

    It does so in training only. In prediction the output is the input.

    Args:
        rate: at least 0 and below 1.
    """

    def __init__(self, rate: float, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.rate = below_one("rate", rate)

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        if not training or not self.rate:
            return x, None
        assert rng is not None
        mask = rng.random(x.shape, np.float32) >= self.rate
        return ops.dropout(x, mask, self.rate, engine=engine), mask

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        if saved is None:
            return dy, {}
        return ops.dropout(dy, saved, self.rate, engine=engine), {}


class BatchNorm(Layer):
    """Batch normalisation: each channel with mean ``beta`` and deviation ``gamma``.

    Training uses the mean and variance of the batch, and updates running ones. Prediction uses the
    running ones; so does training if the layer is not ``trainable``. A training batch must have at
    least two values for each channel, because one value has no variance.

    Args:
        momentum: the share of the running statistics that each batch keeps, at least 0 and below 1.

    Example:
        >>> BatchNorm().infer((26, 26, 8))
        (26, 26, 8)

    Parameters: ``gamma`` and ``beta`` (C,). State: ``mean`` and ``variance`` (C,), which
    ``backward`` updates.
    """

    def __init__(
        self, momentum: float = 0.9, epsilon: float = 1e-3, *, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.momentum = below_one("momentum", momentum)
        self.epsilon = number("epsilon", epsilon)

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def least_batch(self, input_shape: Shape) -> int:
        return 2 if self.trainable and prod(input_shape[:-1]) == 1 else 1

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        channels = input_shape[-1:]
        return {"gamma": Spec(channels, "ones"), "beta": Spec(channels, "zeros")}

    def state_specs(self, input_shape: Shape) -> dict[str, Spec]:
        channels = input_shape[-1:]
        return {"mean": Spec(channels, "zeros"), "variance": Spec(channels, "ones")}

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        gamma, beta = self._own_parameters["gamma"], self._own_parameters["beta"]
        if training and self.trainable:
            y, mean, variance = ops.batch_norm(x, gamma, beta, self.epsilon, engine=engine)
            return y, (x, mean, variance)
        running = self._own_state["mean"], self._own_state["variance"]
        y = ops.batch_norm_inference(x, gamma, beta, *running, self.epsilon, engine=engine)
        return y, (x, None, None)

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        x, mean, variance = saved
        if mean is None:
            dx = self.input_gradient(dy, saved, engine) if needs_dx else None
            return dx, self._gradients_by_running(dy, x, engine) if self.trainable else {}
        dx, dgamma, dbeta = ops.batch_norm_backward(
            dy, x, self._own_parameters["gamma"], mean, variance, self.epsilon, engine=engine
        )
        self.follow(mean, variance)
        return dx, {"gamma": dgamma, "beta": dbeta}

    def follow(self, mean: Array, variance: Array) -> None:
        """Move the running statistics towards those of a batch (C,).

        They stay as they are within :func:`statistics_unchanged`.
        """
        if not _statistics_move.get():
            return
        own = self._own_state
        for name, batch in (("mean", mean), ("variance", variance)):
            running = own[name]
            running *= self.momentum
            running += (1 - self.momentum) * batch
        note_moved(self.state)

    def input_gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        # The running statistics are constants, so the gradient of each channel is only scaled.
        gamma, variance = self._own_parameters["gamma"], self._own_state["variance"]
        zeros = np.zeros_like(gamma)
        return ops.batch_norm_inference(
            dy, gamma, zeros, zeros, variance, self.epsilon, engine=engine
        )

    @unreported
    def _gradients_by_running(self, dy: Array, x: Array, engine: str | None) -> Gradients:
        gamma = self._own_parameters["gamma"]
        running = self._own_state["mean"], self._own_state["variance"]
        ones, zeros = np.ones_like(gamma), np.zeros_like(gamma)
        normal = ops.batch_norm_inference(x, ones, zeros, *running, self.epsilon, engine=engine)
        rows = 1, 1, -1, len(gamma)
        return {
            "gamma": ops.conv2d_bias_gradient((dy * normal).reshape(rows), engine=engine),
            "beta": ops.conv2d_bias_gradient(dy.reshape(rows), engine=engine),
        }
