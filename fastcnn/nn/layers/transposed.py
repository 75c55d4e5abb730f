"""Conv2DTranspose: transposed convolution, which enlarges images by filters."""

from __future__ import annotations

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, Padding, Pair, pair, transposed_geometry
from fastcnn.core.scalars import count
from fastcnn.engine.registry import checked_algorithm
from fastcnn.nn.layers.base import as_pair
from fastcnn.nn.layers.convolution import ConvolutionArguments, _Convolution
from fastcnn.nn.layers.initializers import Shape, initializer


class Conv2DTranspose(_Convolution):
    """Transposed convolution of images, (H, W, IC) to (OH, OW, filters).

    Args:
        kernel_size: sides of the filters, an int or (vertical, horizontal).
        strides: pixels of the output from one pixel of the input to the next, an int or a pair.
        padding: "valid", "same", an int, a pair, or ((top, bottom), (left, right)): which pixels of
            the output are left out. :func:`fastcnn.conv2d_transpose` says which sides they give.
        output_padding: pixels that are added at the bottom and at the right, an int or a pair, or
            None for as many as the padding asks for.
        algorithm: "auto", "direct", "winograd" or "im2col", as for
            :func:`fastcnn.conv2d_transpose`, for the layer and its gradients.

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
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.filters = count("filters", filters)
        self.groups = count("groups", groups)
        self.algorithm = checked_algorithm(algorithm)
        self.output_padding: Pair | None = None
        if output_padding is not None:
            self.output_padding = as_pair(pair("output_padding", output_padding, least=0))
        self.kernel_initializer = initializer("kernel_initializer", kernel_initializer)
        self._take(kernel_size, strides, padding, dilation, activation, use_bias)

    def _channels(self, ic: int) -> tuple[int, int]:
        return self.groups, self.filters

    def _geometry(self, x: tuple[int, int, int, int], groups: int, oc: int) -> ConvGeometry:
        """The geometry of the convolution that goes the other way."""
        return transposed_geometry(
            x,
            (*pair("kernel_size", self.kernel_size), oc // groups, x[3]),
            stride=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=groups,
        )

    def infer(self, input_shape: Shape) -> Shape:
        return self.geometry(input_shape).input_shape[1:]

    def _fans(self, g: ConvGeometry) -> tuple[int, int]:
        fan_out, fan_in = super()._fans(g)  # those of the convolution that goes the other way
        return fan_in, fan_out

    def _output(self, x: Array, w: Array, b: Array | None, engine: str | None) -> Array:
        return ops.conv2d_transpose(
            x,
            w,
            b,
            stride=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
            activation=self.activation,
            algorithm=self.algorithm,
            engine=engine,
        )

    def _input_gradient(self, dy: Array, x: Array, engine: str | None) -> Array:
        return ops.conv2d(dy, self._own_parameters["w"], **self._call(x), engine=engine)

    def _filter_gradient(self, dy: Array, x: Array, engine: str | None) -> Array:
        # dy are the images of the convolution that goes the other way, and x its output's gradient.
        size = pair("kernel_size", self.kernel_size)
        return ops.conv2d_filter_gradient(x, dy, size, **self._call(x), engine=engine)

    def _call(self, x: Array) -> ConvolutionArguments:
        """Arguments of the convolution that goes the other way."""
        g = self.geometry(x.shape[1:])
        padding = (g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)
        return {**super()._call(x), "padding": padding}
