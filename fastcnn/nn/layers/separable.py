"""SeparableConv2D: a depthwise convolution, and a pointwise one that mixes the channels."""

from __future__ import annotations

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, Padding, Pair, conv_geometry, pair
from fastcnn.core.scalars import count
from fastcnn.nn.layers.base import Gradients, Saved, image
from fastcnn.nn.layers.convolution import (
    Conv2D,
    ConvolutionArguments,
    DepthwiseConv2D,
    FilterLayer,
    before_activation,
)
from fastcnn.nn.layers.initializers import Shape, Spec, initializer


class SeparableConv2D(FilterLayer):
    """Separable convolution of images, (H, W, C) to (OH, OW, filters).

    Each channel is convolved on its own, with ``depth_multiplier`` filters, and filters of one
    pixel then mix the channels. The activation comes after both.

    Args:
        kernel_size: sides of the depthwise filters, an int or (vertical, horizontal).
        strides: pixels between outputs, an int or a pair.
        padding: "valid", "same", an int, a pair, or ((top, bottom), (left, right)).
        depth_multiplier: depthwise filters for each channel.
        use_bias: whether a bias is added, after the pointwise convolution.
        depthwise_initializer, pointwise_initializer: the filters' initialisers, names of
            :data:`fastcnn.nn.layers.INITIALIZERS`.

    Example:
        >>> SeparableConv2D(16, 3, padding="same").infer((28, 28, 4))
        (28, 28, 16)

    Parameters: ``depthwise_w`` (KH, KW, 1, C · depth_multiplier), ``pointwise_w``
    (1, 1, C · depth_multiplier, filters) and ``b`` (filters,).

    Source: F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions",
    arXiv:1610.02357.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: Padding = "valid",
        dilation: Pair = 1,
        depth_multiplier: int = 1,
        activation: ops.Activation = None,
        use_bias: bool = True,
        depthwise_initializer: str = "glorot_uniform",
        pointwise_initializer: str = "glorot_uniform",
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.filters = count("filters", filters)
        self.depth_multiplier = count("depth_multiplier", depth_multiplier)
        self._take(kernel_size, strides, padding, dilation, activation, use_bias)
        self.depthwise_initializer = initializer("depthwise_initializer", depthwise_initializer)
        self.pointwise_initializer = initializer("pointwise_initializer", pointwise_initializer)

    def _geometries(self, input_shape: Shape) -> tuple[ConvGeometry, ConvGeometry]:
        """The geometries of both convolutions, for one sample."""
        h, w, c = image("SeparableConv2D", input_shape)
        depth = c * self.depth_multiplier
        depthwise = conv_geometry(
            (1, h, w, c),
            (*pair("kernel_size", self.kernel_size), 1, depth),
            stride=self.strides,
            padding=self.padding,
            dilation=self.dilation,
            groups=c,
        )
        return depthwise, conv_geometry(depthwise.output_shape, (1, 1, depth, self.filters))

    def convolutions(self) -> tuple[DepthwiseConv2D, Conv2D]:
        """Layers that do the same one after the other; they are not built.

        >>> SeparableConv2D(16, 3, activation="relu").convolutions()
        (DepthwiseConv2D(3, use_bias=False), Conv2D(16, 1, activation='relu'))
        """
        depthwise = DepthwiseConv2D(
            self.kernel_size, self.strides, self.padding, self.dilation, self.depth_multiplier,
            use_bias=False,
        )  # fmt: skip
        pointwise = Conv2D(self.filters, 1, activation=self.activation, use_bias=self.use_bias)
        return depthwise, pointwise

    def infer(self, input_shape: Shape) -> Shape:
        return self._geometries(input_shape)[1].output_shape[1:]

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        depthwise, pointwise = self._geometries(input_shape)
        taps = depthwise.kh * depthwise.kw
        fans = taps, taps * depthwise.group_oc
        specs = {
            "depthwise_w": Spec(depthwise.filter_shape, self.depthwise_initializer, *fans),
            "pointwise_w": Spec(
                pointwise.filter_shape, self.pointwise_initializer, pointwise.ic, pointwise.oc
            ),
        }
        if self.use_bias:
            specs["b"] = Spec((self.filters,), "zeros")
        return specs

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Saved]:
        w, b = self._own_parameters["pointwise_w"], self._own_parameters.get("b")
        z = ops.conv2d(x, self._own_parameters["depthwise_w"], **self._depthwise(x), engine=engine)
        y = ops.conv2d(z, w, b, activation=self.activation, engine=engine)
        return y, (x, z, y if self.activation else None)

    def backward(
        self, dy: Array, saved: Saved, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        x, z, y = saved
        dy = before_activation(self.activation, dy, y, engine)
        if not (needs_dx or self.trainable):
            return None, {}
        dz = self._pointwise_gradient(dy, z, engine)
        dx = self._depthwise_gradient(dz, x, engine) if needs_dx else None
        if not self.trainable:
            return dx, {}
        size, depthwise = pair("kernel_size", self.kernel_size), self._depthwise(x)
        gradients = {
            "depthwise_w": ops.conv2d_filter_gradient(dz, x, size, **depthwise, engine=engine),
            "pointwise_w": ops.conv2d_filter_gradient(dy, z, 1, engine=engine),
        }
        if self.use_bias:
            gradients["b"] = ops.conv2d_bias_gradient(dy, engine=engine)
        return dx, gradients

    def input_gradient(self, dy: Array, saved: Saved, engine: str | None) -> Array:
        x, z, y = saved
        dy = before_activation(self.activation, dy, y, engine)
        return self._depthwise_gradient(self._pointwise_gradient(dy, z, engine), x, engine)

    def _pointwise_gradient(self, dy: Array, z: Array, engine: str | None) -> Array:
        """The gradient of ``z``, the output of the depthwise convolution."""
        w = self._own_parameters["pointwise_w"]
        return ops.conv2d_input_gradient(dy, w, z.shape, engine=engine)

    def _depthwise_gradient(self, dz: Array, x: Array, engine: str | None) -> Array:
        """The gradient of the input."""
        w = self._own_parameters["depthwise_w"]
        return ops.conv2d_input_gradient(dz, w, x.shape, **self._depthwise(x), engine=engine)

    def _depthwise(self, x: Array) -> ConvolutionArguments:
        """Arguments of the depthwise convolution."""
        return {
            "stride": self.strides,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": x.shape[3],
            "algorithm": "auto",
        }

    def flops(self, input_shape: Shape) -> int:
        return sum(g.flops for g in self._geometries(input_shape))
