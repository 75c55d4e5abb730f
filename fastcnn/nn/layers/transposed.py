"""Conv2DTranspose: transposed convolution, which enlarges images by filters."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, Padding, Pair, pair, transposed_geometry
from fastcnn.core.scalars import count
from fastcnn.engine.policy import winograd_cannot
from fastcnn.engine.registry import checked_algorithm
from fastcnn.nn.layers.base import Gradients, as_pair, image
from fastcnn.nn.layers.convolution import _Convolution
from fastcnn.nn.layers.initializers import Shape, Spec


class Conv2DTranspose(_Convolution):
    """Transposed convolution of images, (H, W, IC) to (OH, OW, filters).

    Args:
        filters: output channels.
        kernel_size: sides of the filters, an int or (vertical, horizontal).
        strides: pixels of the output from one pixel of the input to the next, an int or a pair.
        padding: "valid", "same", an int, a pair, or ((top, bottom), (left, right)): which pixels of
            the output are left out. :func:`fastcnn.conv2d_transpose` says which sides they give.
        output_padding: pixels that are added at the bottom and at the right, an int or a pair, or
            None for as many as the padding asks for.
        dilation: pixels between filter taps, an int or a pair.
        groups: the number of independent convolutions that share the channels.
        activation: "relu" or None; for another activation put its layer after this one.
        use_bias: whether a bias is added.
        kernel_initializer: the filters' initialiser, a name of
            :data:`fastcnn.nn.layers.INITIALIZERS`.
        algorithm: "auto", "direct", "winograd" or "im2col", as for
            :func:`fastcnn.conv2d_transpose`, for the layer and its gradients.

    Raises:
        TypeError, ValueError: an argument of the wrong type or value, named in the message.

    Example:
        >>> Conv2DTranspose(8, 2, strides=2).infer((14, 13, 16))
        (28, 26, 8)

    Parameters: ``w`` (KH, KW, filters/groups, IC) and ``b`` (filters,).
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Pair,
        strides: Pair = 1,
        padding: Padding = "valid",
        output_padding: Pair | None = None,
        dilation: Pair = 1,
        groups: int = 1,
        activation: ops.Activation = None,
        use_bias: bool = True,
        kernel_initializer: str = "glorot_uniform",
        algorithm: ops.Algorithm = "auto",
    ) -> None:
        super().__init__()
        self.filters = count("filters", filters)
        self.groups = count("groups", groups)
        self.algorithm = checked_algorithm(algorithm)
        self.output_padding: Any = None
        if output_padding is not None:
            self.output_padding = as_pair(pair("output_padding", output_padding, least=0))
        self._take(
            kernel_size, strides, padding, dilation, activation, use_bias, kernel_initializer
        )

    def geometry(self, input_shape: Shape, n: int = 1) -> ConvGeometry:
        """The geometry of the convolution that goes the other way, for a batch of ``n``."""
        h, w, ic = image("Conv2DTranspose", input_shape)
        if ic % self.groups or self.filters % self.groups:
            raise ValueError(
                f"groups must divide the channels of input and output, got {self.groups} for {ic} "
                f"input and {self.filters} output channels"
            )
        g = transposed_geometry(
            (n, h, w, ic),
            (*pair("kernel_size", self.kernel_size), self.filters // self.groups, ic),
            stride=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        cannot = winograd_cannot(g) if self.algorithm == "winograd" else None
        if cannot:
            raise ValueError(f'algorithm must not be "winograd" for this layer: {cannot}')
        return g

    def infer(self, input_shape: Shape) -> Shape:
        return self.geometry(input_shape).input_shape[1:]

    def parameter_specs(self, input_shape: Shape) -> dict[str, Spec]:
        g = self.geometry(input_shape)
        taps = g.kh * g.kw
        fans = taps * g.group_oc, taps * g.group_ic  # of the layer, not of the other way
        specs = {"w": Spec(g.filter_shape, self.kernel_initializer, *fans)}
        if self.use_bias:
            specs["b"] = Spec((g.ic,), "zeros")
        return specs

    def forward(
        self, x: Array, training: bool, rng: np.random.Generator | None, engine: str | None
    ) -> tuple[Array, Any]:
        y = ops.conv2d_transpose(
            x,
            self._own_parameters["w"],
            self._own_parameters.get("b"),
            stride=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=self.activation,
            algorithm=self.algorithm,
            engine=engine,
        )
        return y, (x, y if self.activation else None)

    def backward(
        self, dy: Array, saved: Any, engine: str | None, needs_dx: bool = True
    ) -> tuple[Array | None, Gradients]:
        x, y = saved
        if self.activation:
            dy = ops.relu_backward(dy, y, engine=engine)  # y > 0 exactly where ReLU's input was
        dx = self._before(dy, x, engine) if needs_dx else None
        if not self.trainable:
            return dx, {}
        size = self._own_parameters["w"].shape[:2]
        # The images and the output's gradient of the other way.
        gradients = {"w": ops.conv2d_filter_gradient(x, dy, size, **self._call(x), engine=engine)}
        if self.use_bias:
            gradients["b"] = ops.conv2d_bias_gradient(dy, engine=engine)
        return dx, gradients

    def _before(self, dy: Array, x: Array, engine: str | None) -> Array:
        return ops.conv2d(dy, self._own_parameters["w"], **self._call(x), engine=engine)

    def _call(self, x: Array) -> dict[str, Any]:
        """The arguments of the convolution that goes the other way."""
        g = self.geometry(x.shape[1:])
        return {
            "stride": self.strides,
            "padding": ((g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)),
            "dilation": self.dilation,
            "groups": self.groups,
            "algorithm": self.algorithm,
        }
