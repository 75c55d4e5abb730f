"""Facts about single layers: shapes, ReLUs, poolings."""

from __future__ import annotations

from fastcnn.core.geometry import PoolGeometry, pool_geometry
from fastcnn.nn.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    DepthwiseConv2D,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    Layer,
    MaxPool2D,
    MinPool2D,
    ReLU,
    Shape,
)

Pool = MaxPool2D | MinPool2D | AvgPool2D | GlobalMaxPool2D | GlobalAvgPool2D
Convolution = Conv2D | DepthwiseConv2D


def input_of(layer: Layer) -> tuple[int, ...]:
    """The shape of a sample that a built layer takes."""
    assert layer.input_shape is not None
    return layer.input_shape


def output_of(layer: Layer) -> tuple[int, ...]:
    """The shape of a sample that a built layer returns."""
    assert layer.output_shape is not None
    return layer.output_shape


def ends_in_plain_relu(layer: Layer) -> bool:
    """Whether a layer ends in a ReLU without a maximum, or is one."""
    if isinstance(layer, ReLU):
        return layer.max_value is None
    return getattr(layer, "activation", None) == "relu"


def pooling_of(layer: Pool, n: int, image: Shape | None = None) -> PoolGeometry:
    """The geometry of a pooling of ``n`` images.

    ``image`` is the shape of an image, by default the layer's own input shape. A shared layer has
    images of several shapes.
    """
    shape = n, *(input_of(layer) if image is None else image)
    if isinstance(layer, GlobalMaxPool2D | GlobalAvgPool2D):
        return pool_geometry(shape, shape[1:3])
    return pool_geometry(shape, layer.pool_size, stride=layer.strides, padding=layer.padding)


def pools_2x2(g: PoolGeometry) -> bool:
    """Whether the pooling is over 2×2 pixels, each in one window, without padding."""
    return (g.kh, g.kw, g.stride_h, g.stride_w) == (2, 2, 2, 2) and not any(g[-4:])


def normalises_batch(layer: Layer) -> bool:
    """Whether training normalises by the batch's own mean and variance."""
    return type(layer) is BatchNorm and layer.trainable
