"""Layers that normalise each sample by itself: LayerNorm, GroupNorm and LRN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import integer
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, number, truth
from fastcnn.nn.layers.base import Gradients, Layer, Saved
from fastcnn.nn.layers.initializers import Shape, Spec
from fastcnn.nn.layers.operation import OperationLayer


class _ScaledNorm(Layer):
    """A normalisation whose result is scaled and moved by trained numbers."""

    def __init__(
        self, epsilon: float, center: bool, scale: bool, *, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.epsilon = number("epsilon", epsilon)
        self.center, self.scale = truth("center", center), truth("scale", scale)

    def row(self, input_shape: Shape) -> Shape:
        """The shape of gamma and beta, for inputs of this shape."""
        raise NotImplementedError

    def infer(self, input_shape: Shape) -> Shape:
        self.row(input_shape)
        return input_shape

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        row = self.row(input_shape)
        specs = {"gamma": Spec(row, "ones")} if self.scale else {}
        return specs | {"beta": Spec(row, "zeros")} if self.center else specs

    def _gamma_and_beta(self, x: Array) -> tuple[Array, Array]:
        parameters, row = self._own_parameters, self.row(x.shape[1:])
        gamma = parameters["gamma"] if self.scale else np.ones(row, x.dtype)
        beta = parameters["beta"] if self.center else np.zeros(row, x.dtype)
        return gamma, beta

    def _trained(self, dgamma: Array, dbeta: Array) -> Gradients:
        """The gradients of the parameters that there are; none if the layer is frozen."""
        if not self.trainable:
            return {}
        both = {"gamma": dgamma, "beta": dbeta}
        return {name: gradient for name, gradient in both.items() if name in self.parameters}


class LayerNorm(_ScaledNorm):
    """Layer normalisation: the last axes of each sample with mean ``beta`` and deviation ``gamma``.

    It is the same in training and in prediction, and does not depend on the batch.

    Args:
        axis: -1, which normalises the channels of each pixel, or a tuple of the last axes, such as
            (-3, -2, -1) for a whole image.

    Example:
        >>> layer = LayerNorm(axis=(-2, -1))
        >>> _ = layer.build((28, 26, 8), np.random.default_rng(0))
        >>> layer.output_shape, layer.parameters["gamma"].shape
        ((28, 26, 8), (26, 8))

    Parameters: ``gamma`` and ``beta``, in the shape of the axes.

    Source: J. Ba, J. Kiros, G. Hinton, "Layer Normalization", arXiv:1607.06450.
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(epsilon, center, scale, name=name)
        self.axis: int | tuple[int, ...] = _last_axes(axis)

    def row(self, input_shape: Shape) -> Shape:
        axes = 1 if isinstance(self.axis, int) else len(self.axis)
        if len(input_shape) < axes:
            raise ValueError(
                f"LayerNorm over the axes {self.axis} needs inputs of at least {axes} axes, got "
                f"{input_shape}"
            )
        return input_shape[len(input_shape) - axes :]

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        return ops.layer_norm(x, *self._gamma_and_beta(x), self.epsilon, engine=engine), x

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        gamma, _ = self._gamma_and_beta(saved)
        dx, dgamma, dbeta = ops.layer_norm_backward(dy, saved, gamma, self.epsilon, engine=engine)
        return dx, self._trained(dgamma, dbeta)


class GroupNorm(_ScaledNorm):
    """Group normalisation: channels in groups, each group of a sample normalised by itself.

    The mean and the variance of a group go over its channels and all pixels. It is the same in
    training and in prediction, and does not depend on the batch.

    Args:
        groups: a number that divides the channels. 1 is one group of all channels, and as many
            groups as channels are instance normalisation.

    Example:
        >>> GroupNorm(4).infer((26, 26, 8))
        (26, 26, 8)

    Parameters: ``gamma`` and ``beta`` (C,).

    Source: Y. Wu, K. He, "Group Normalization", arXiv:1803.08494.
    """

    def __init__(
        self,
        groups: int = 32,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(epsilon, center, scale, name=name)
        self.groups = count("groups", groups)

    def row(self, input_shape: Shape) -> Shape:
        if input_shape[-1] % self.groups:
            raise ValueError(
                f"GroupNorm's groups must divide the channels, got {self.groups} for "
                f"{input_shape[-1]}"
            )
        return input_shape[-1:]

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        gamma, beta = self._gamma_and_beta(x)
        return ops.group_norm(x, self.groups, gamma, beta, self.epsilon, engine=engine), x

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        gamma, _ = self._gamma_and_beta(saved)
        dx, dgamma, dbeta = ops.group_norm_backward(
            dy, saved, self.groups, gamma, self.epsilon, engine=engine
        )
        return dx, self._trained(dgamma, dbeta)


class LRN(OperationLayer):
    """Local response normalisation: ``x / (bias + alpha / window * Σ x²) ** beta``.

    The sum goes over a window of channels around each number's own, at the same pixel.

    Args:
        window: channels of the window, which PyTorch and ONNX call ``size``; each layer of fastcnn
            has a ``size`` already, the number of its trained numbers.
        alpha: the weight of the mean of the squares.
        beta: the exponent.
        bias: is added to the weighted mean.

    Example:
        >>> LRN(5).infer((27, 27, 96))
        (27, 27, 96)

    Source: A. Krizhevsky, I. Sutskever, G. Hinton, "ImageNet Classification with Deep Convolutional
    Neural Networks", 2012, section 3.3.
    """

    _operations = ops.local_response_norm, ops.local_response_norm_backward

    def __init__(
        self,
        window: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        bias: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.window = count("window", window)
        self.alpha, self.beta = number("alpha", alpha), number("beta", beta)
        self.bias = number("bias", bias)

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def _arguments(self) -> tuple[object, ...]:
        return self.window, self.alpha, self.beta, self.bias


def _last_axes(value: object) -> int | tuple[int, ...]:
    """``value`` if it is -1 or names the last axes; a tuple in ascending order."""
    expected = "axis must be -1, or a tuple of the last axes such as (-3, -2, -1)"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        axes = tuple(sorted(integer("axis", one, value) for one in value))
        if not axes or axes != tuple(range(-len(axes), 0)):
            raise ValueError(f"{expected}, got {quoted(value)}")
        return axes
    if integer("axis", value, value) != -1:
        raise ValueError(f"{expected}, got {quoted(value)}")
    return -1
