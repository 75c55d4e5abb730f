"""Convolution layers: Conv2D and DepthwiseConv2D."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, Padding, Pair, conv_geometry, pads, pair
from fastcnn.core.quoting import quoted
from fastcnn.core.scalars import count, truth
from fastcnn.engine.policy import winograd_cannot
from fastcnn.engine.registry import checked_algorithm
from fastcnn.nn.layers.base import Gradients, Layer, Saved, as_pair, as_tuples, image
from fastcnn.nn.layers.initializers import Shape, Spec, initializer


class ConvolutionArguments(TypedDict):
    """Arguments that :func:`fastcnn.conv2d` and its gradients share."""

    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    algorithm: ops.Algorithm


class FilterLayer(Layer, abstract=True):
    """The common base of layers that move filters over images."""

    kernel_size: Pair
    strides: Pair
    padding: Padding
    dilation: Pair
    activation: ops.Activation
    use_bias: bool

    def _take(
        self,
        kernel_size: object,
        strides: object,
        padding: Padding,
        dilation: object,
        activation: object,
        use_bias: object,
    ) -> None:
        """Check arguments of the constructor, and set the attributes of the same names."""
        sides = pair("kernel_size", kernel_size)
        self.kernel_size = as_pair(sides)
        self.strides = as_pair(pair("strides", strides))
        pads(padding, sides, sides, (1, 1))  # raises the error for a wrong padding
        self.padding = as_tuples(padding)
        self.dilation = as_pair(pair("dilation", dilation))
        self.activation = fused_activation(activation)
        self.use_bias = truth("use_bias", use_bias)


class _Convolution(FilterLayer):
    """The common base of convolutions, which differ in groups and number of filters."""

    kernel_initializer: str
    algorithm: ops.Algorithm = "auto"

    def _channels(self, ic: int) -> tuple[int, int]:
        """Groups and output channels, for ``ic`` input channels."""
        raise NotImplementedError

    def _geometry(self, x: tuple[int, int, int, int], groups: int, oc: int) -> ConvGeometry:
        """The geometry of images in the shape ``x``."""
        filters = (*pair("kernel_size", self.kernel_size), x[3] // groups, oc)
        stride, padding, dilation = self.strides, self.padding, self.dilation
        return conv_geometry(
            x, filters, stride=stride, padding=padding, dilation=dilation, groups=groups
        )

    def geometry(self, input_shape: Shape, n: int = 1) -> ConvGeometry:
        """The geometry for a batch of ``n``."""
        h, w, ic = image(type(self).__name__, input_shape)
        groups, oc = self._channels(ic)
        if ic % groups or oc % groups:
            raise ValueError(
                f"groups must divide the channels of input and output, got {groups} for {ic} "
                f"input and {oc} output channels"
            )
        g = self._geometry((n, h, w, ic), groups, oc)
        cannot = winograd_cannot(g) if self.algorithm == "winograd" else None
        if cannot:
            raise ValueError(f'algorithm must not be "winograd" for this layer: {cannot}')
        return g

    def infer(self, input_shape: Shape) -> Shape:
        return self.geometry(input_shape).output_shape[1:]

    def _fans(self, g: ConvGeometry) -> tuple[int, int]:
        """How many inputs an output sums, and how many outputs an input reaches."""
        return g.kh * g.kw * g.group_ic, g.kh * g.kw * g.group_oc

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        g = self.geometry(input_shape)
        specs = {"w": Spec(g.filter_shape, self.kernel_initializer, *self._fans(g))}
        if self.use_bias:
            specs["b"] = Spec(self.infer(input_shape)[-1:], "zeros")
        return specs

    def _output(self, x: Array, w: Array, b: Array | None, engine: str | None) -> Array:
        """The output for a batch."""
        return ops.conv2d(x, w, b, **self._call(x), activation=self.activation, engine=engine)

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        y = self._output(x, self._own_parameters["w"], self._own_parameters.get("b"), engine)
        return y, (x, y if self.activation else None)

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        x, y = saved
        dy = before_activation(self.activation, dy, y, engine)
        dx = self._input_gradient(dy, x, engine) if needs_dx else None
        if not self.trainable:
            return dx, {}
        gradients = {"w": self._filter_gradient(dy, x, engine)}
        if self.use_bias:
            gradients["b"] = ops.conv2d_bias_gradient(dy, engine=engine)
        return dx, gradients

    def input_gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        x, y = saved
        return self._input_gradient(before_activation(self.activation, dy, y, engine), x, engine)

    def _input_gradient(self, dy: Array, x: Array, engine: str | None) -> Array:
        """The gradient of the input, from the gradient ``dy`` before the activation."""
        w = self._own_parameters["w"]
        return ops.conv2d_input_gradient(dy, w, x.shape, **self._call(x), engine=engine)

    def _filter_gradient(self, dy: Array, x: Array, engine: str | None) -> Array:
        size = pair("kernel_size", self.kernel_size)
        return ops.conv2d_filter_gradient(dy, x, size, **self._call(x), engine=engine)

    def _call(self, x: Array) -> ConvolutionArguments:
        """Arguments of the operations for images ``x``."""
        return {
            "stride": self.strides,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self._channels(x.shape[3])[0],
            "algorithm": self.algorithm,
        }

    def flops(self, input_shape: Shape) -> int:
        return self.geometry(input_shape).flops


class Conv2D(_Convolution):
    """Convolution of images, (H, W, IC) to (OH, OW, filters).

    Args:
        kernel_size: sides of the filters, an int or (vertical, horizontal).
        strides: pixels between outputs, an int or a pair.
        padding: "valid", "same", an int, a pair, or ((top, bottom), (left, right)).
        algorithm: "auto", "direct", "winograd" or "im2col", as for :func:`fastcnn.conv2d`, for the
            layer and its gradients.

    Example:
        >>> Conv2D(8, 3).infer((28, 28, 1))
        (26, 26, 8)

    Parameters: ``w`` (KH, KW, IC/groups, filters) and ``b`` (filters,).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: Padding = "valid",
        dilation: Pair = 1,
        groups: int = 1,
        activation: ops.Activation = None,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        algorithm: ops.Algorithm = "auto",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.filters = count("filters", filters)
        self.groups = count("groups", groups)
        self.algorithm = checked_algorithm(algorithm)
        self.kernel_initializer = initializer("kernel_initializer", kernel_initializer)
        self._take(kernel_size, strides, padding, dilation, activation, use_bias)

    def _channels(self, ic: int) -> tuple[int, int]:
        return self.groups, self.filters


class DepthwiseConv2D(_Convolution):
    """Convolution of each channel on its own, (H, W, C) to (OH, OW, C · depth_multiplier).

    Args:
        depth_multiplier: filters for each channel. The outputs of a channel are adjacent.
        kernel_size, strides, padding, dilation, activation, use_bias, kernel_initializer: as for
            :class:`Conv2D`.

    Example:
        >>> DepthwiseConv2D(3, padding="same", depth_multiplier=2).infer((28, 28, 4))
        (28, 28, 8)

    Parameters: ``w`` (KH, KW, 1, C · depth_multiplier) and ``b`` (C · depth_multiplier,).
    """

    def __init__(
        self,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: Padding = "valid",
        dilation: Pair = 1,
        depth_multiplier: int = 1,
        activation: ops.Activation = None,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.depth_multiplier = count("depth_multiplier", depth_multiplier)
        self.kernel_initializer = initializer("kernel_initializer", kernel_initializer)
        self._take(kernel_size, strides, padding, dilation, activation, use_bias)

    def _channels(self, ic: int) -> tuple[int, int]:
        return ic, ic * self.depth_multiplier


def fused_activation(value: object) -> ops.Activation:
    """``value`` if operations apply this activation without an extra pass; otherwise an error."""
    if value is None:
        return None
    if value != "relu":
        raise ValueError(
            f'activation must be "relu" or None, got {quoted(value)}; for another activation put '
            f"its layer after this one: LeakyReLU(), Tanh(), Sigmoid() or Softmax()"
        )
    return "relu"


def before_activation(activation: ops.Activation, dy: Array, y: Array, engine: str | None) -> Array:
    """The gradient before a fused activation, from the gradient ``dy`` of its output ``y``.

    The output of a ReLU is above 0 exactly where its input is, so the input need not be saved.
    """
    return ops.relu_backward(dy, y, engine=engine) if activation else dy
