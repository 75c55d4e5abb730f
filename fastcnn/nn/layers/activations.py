"""Activations as layers of their own; the output has the input's shape."""

from __future__ import annotations

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.scalars import above_zero, number, share, truth
from fastcnn.nn.layers.base import Gradients, Layer, Saved
from fastcnn.nn.layers.initializers import Shape, Spec
from fastcnn.nn.layers.operation import OperationLayer
from fastcnn.ops.checks import finite_number


class _Activation(OperationLayer):
    """An activation, whose output has the input's shape."""

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape


class ReLU(_Activation):
    """``max(x, 0)``, or ``min(max(x, 0), max_value)``.

    Without a maximum it costs no extra pass as ``activation="relu"`` of the layer before it.

    Args:
        max_value: the largest output, above 0, such as 6 in MobileNets. None means no limit.

    Example:
        >>> ReLU(6).infer((26, 26, 8))
        (26, 26, 8)
        >>> ReLU(6), ReLU()
        (ReLU(max_value=6.0), ReLU())
    """

    def __init__(self, max_value: float | None = None, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.max_value = above_zero("max_value", max_value)

    def _operation(self, x: Array, engine: str | None) -> Array:
        if self.max_value is None:
            return ops.relu(x, engine=engine)
        return ops.clipped_relu(x, self.max_value, engine=engine)

    def _gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        if self.max_value is None:
            return ops.relu_backward(dy, saved, engine=engine)
        return ops.clipped_relu_backward(dy, saved, self.max_value, engine=engine)


class LeakyReLU(_Activation):
    """x where it is above 0, else ``slope * x``.

    Args:
        slope: from 0 to 1.
    """

    _operations = ops.leaky_relu, ops.leaky_relu_backward

    def __init__(self, slope: float = 0.01, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.slope = share("slope", slope)

    def _arguments(self) -> tuple[object, ...]:
        return (self.slope,)


class Tanh(_Activation):
    """Hyperbolic tangent."""

    _operations = ops.tanh, ops.tanh_backward


class Sigmoid(_Activation):
    """``1 / (1 + exp(-x))``. If it is a net's last layer, training with binary cross-entropy omits
    it, because the loss contains a sigmoid."""

    _operations = ops.sigmoid, ops.sigmoid_backward


class Softmax(_Activation):
    """Softmax over the last axis. If it is a net's last layer, training with cross-entropy omits
    it, because the loss contains a softmax."""

    _operations = ops.softmax, ops.softmax_backward


class ELU(_Activation):
    """x where it is above 0, else ``alpha * (exp(x) - 1)``.

    Args:
        alpha: the output approaches ``-alpha`` where x is far below 0; at least 0.

    Example:
        >>> ELU(0.5).infer((26, 26, 8))
        (26, 26, 8)
    """

    _operations = ops.elu, ops.elu_backward

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.alpha = number("alpha", alpha)

    def _arguments(self) -> tuple[object, ...]:
        return (self.alpha,)


class HardSigmoid(_Activation):
    """``slope * x + offset``, but at least 0 and at most 1: three lines in place of a sigmoid.

    Args:
        slope: the factor of x, at least 0.
        offset: the output where x is 0.

    Example:
        >>> HardSigmoid(0.2).infer((128,))
        (128,)
    """

    _operations = ops.hard_sigmoid, ops.hard_sigmoid_backward

    def __init__(
        self, slope: float = 1 / 6, offset: float = 0.5, *, name: str | None = None
    ) -> None:
        super().__init__(name=name)
        self.slope, self.offset = number("slope", slope), finite_number("offset", offset)

    def _arguments(self) -> tuple[object, ...]:
        return self.slope, self.offset


class HardSwish(_Activation):
    """``x * hard_sigmoid(x)``, as in MobileNetV3.

    Example:
        >>> HardSwish().infer((26, 26, 8))
        (26, 26, 8)
    """

    _operations = ops.hard_swish, ops.hard_swish_backward


class Swish(_Activation):
    """``x * sigmoid(x)``. ``SiLU`` is another name of this class.

    Example:
        >>> SiLU()
        Swish()
    """

    _operations = ops.swish, ops.swish_backward


SiLU = Swish


class GELU(_Activation):
    """``x * Φ(x)``, where Φ(x) is the probability that a standard normal number is at most x.

    Args:
        approximate: True computes ``x * (1 + tanh(√(2/π) * (x + 0.044715 * x³))) / 2`` instead.

    Example:
        >>> GELU(approximate=True).infer((26, 26, 8))
        (26, 26, 8)
    """

    _operations = ops.gelu, ops.gelu_backward

    def __init__(self, approximate: bool = False, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.approximate = truth("approximate", approximate)

    def _arguments(self) -> tuple[object, ...]:
        return (self.approximate,)


class Softplus(_Activation):
    """``log(1 + exp(x))``, a smooth ReLU.

    Example:
        >>> Softplus().infer((26, 26, 8))
        (26, 26, 8)
    """

    _operations = ops.softplus, ops.softplus_backward


class PReLU(Layer):
    """x where it is above 0, else ``slope * x``, with a slope that the net learns.

    Images have a slope for each channel, vectors one for each feature. All begin at 0.25.

    Example:
        >>> layer = PReLU()
        >>> layer.build((26, 26, 3), np.random.default_rng(0))
        (26, 26, 3)
        >>> layer.parameters["slope"]
        array([0.25, 0.25, 0.25], dtype=float32)

    Parameter: ``slope`` (C,).
    """

    def infer(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        return {"slope": Spec(input_shape[-1:], "quarters")}

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        return ops.prelu(x, self._own_parameters["slope"], engine=engine), x

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        dx, dslope = ops.prelu_backward(dy, saved, self._own_parameters["slope"], engine=engine)
        return dx, {"slope": dslope}
