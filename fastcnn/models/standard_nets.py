"""Standard nets by name: functions that return a :class:`fastcnn.Model` with new weights.

All but :func:`u_net` are classifiers of images that return scores of classes; their usual input is
(224, 224, 3). Paddings and the order of layers are torchvision's, so weights that PyTorch has
trained fit one to one: filters OIHW become HWIO, and the weights of dense layers (outputs, inputs)
are transposed; those behind ``Flatten`` of VGG-16 take pixel by pixel what they took channel by
channel in PyTorch.

Each function takes ``width``, a factor of all numbers of channels, as MobileNet's. The scaled
numbers are multiples of 8, see :func:`scaled`.

Sources: A. Howard et al., "MobileNets", arXiv:1704.04861; M. Sandler et al., "MobileNetV2",
arXiv:1801.04381; K. He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385;
F. Iandola et al., "SqueezeNet", arXiv:1602.07360; K. Simonyan and A. Zisserman, "Very Deep
Convolutional Networks", arXiv:1409.1556; O. Ronneberger et al., "U-Net", arXiv:1505.04597.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypedDict, Unpack

from fastcnn.core.geometry import Pair
from fastcnn.models.model import Model
from fastcnn.nn.layers import (
    Add,
    BatchNorm,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Input,
    MaxPool2D,
    ReLU,
    Tensor,
)

EPSILON = 1e-5
"""What torchvision's nets add to the variance of a batch normalisation."""
IMAGENET = (224, 224, 3)
"""Shape of the images of the classifiers."""

MOBILENET_V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *(((512, 1),) * 5), (1024, 2),
    (1024, 1),
)  # fmt: skip
"""Channels and stride of each pair of convolutions."""
MOBILENET_V2_BLOCKS = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, number of blocks, and stride of the first of them."""
RESNET_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
"""Blocks of the four stages, by the number of layers."""
SQUEEZENET_FIRES = (
    ((16, 64), (16, 64)),
    ((32, 128), (32, 128)),
    ((48, 192), (48, 192), (64, 256), (64, 256)),
)
"""Squeezed channels and channels of each branch, for the modules after each pooling."""
VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions before each pooling."""
U_NET_CHANNELS = 16
"""Channels of the first level."""
U_NET_LEVELS = 4
"""How often the U-net halves its images."""


class Options(TypedDict, total=False):
    """Further arguments of the functions, which are those of :class:`fastcnn.Model`."""

    seed: int | None
    dtype: Literal["float32", "float64"]
    engine: str | None


def scaled(channels: int, width: float) -> int:
    """``channels * width`` as a multiple of 8: at least 8, and at least 90 % of the product.

    It is the rule of MobileNetV2's authors.

    >>> scaled(64, 1.0), scaled(64, 0.3), scaled(64, 0.1), scaled(16, 1.4)
    (64, 24, 8, 24)
    """
    product = channels * width
    nearest = max(8, int(product + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * product else nearest + 8


def _convolution(
    x: Tensor, filters: int, kernel_size: Pair, strides: int = 1, *, padding: int = 0
) -> Tensor:
    """A convolution without bias, and batch normalisation."""
    conv = Conv2D(
        filters, kernel_size, strides, padding, use_bias=False, kernel_initializer="he_normal"
    )
    return BatchNorm(epsilon=EPSILON)(conv(x))


def _depthwise(x: Tensor, strides: int) -> Tensor:
    """A depthwise 3×3 convolution without bias, and batch normalisation."""
    conv = DepthwiseConv2D(3, strides, 1, use_bias=False, kernel_initializer="he_normal")
    return BatchNorm(epsilon=EPSILON)(conv(x))


def _with_bias(
    x: Tensor, filters: int, kernel_size: int, strides: int = 1, padding: int = 0
) -> Tensor:
    """A convolution with bias and ReLU."""
    conv = Conv2D(
        filters, kernel_size, strides, padding, activation="relu", kernel_initializer="he_normal"
    )
    return conv(x)


def mobilenet_v1(
    classes: int = 1000,
    input_shape: Sequence[int] = IMAGENET,
    width: float = 1.0,
    **options: Unpack[Options],
) -> Model:
    """MobileNet: depthwise and 1×1 convolutions in turn, with batch normalisation and ReLU.

    4,231,976 parameters. Source: A. Howard et al., "MobileNets: Efficient Convolutional Neural
    Networks for Mobile Vision Applications", arXiv:1704.04861.

    >>> mobilenet_v1(10, (64, 64, 3), width=0.25).output_shape
    (10,)
    """
    inputs = Input(input_shape)
    x = ReLU()(_convolution(inputs, scaled(32, width), 3, 2, padding=1))
    for channels, strides in MOBILENET_V1_BLOCKS:
        x = ReLU()(_depthwise(x, strides))
        x = ReLU()(_convolution(x, scaled(channels, width), 1))
    return Model(inputs, Dense(classes)(GlobalAvgPool2D()(x)), **options)


def mobilenet_v2(
    classes: int = 1000,
    input_shape: Sequence[int] = IMAGENET,
    width: float = 1.0,
    **options: Unpack[Options],
) -> Model:
    """MobileNetV2: blocks that expand their channels, convolve each, and add their input.

    3,504,872 parameters. Source: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear
    Bottlenecks", arXiv:1801.04381.

    >>> mobilenet_v2(10, (64, 64, 3), width=0.25).output_shape
    (10,)
    """
    inputs = Input(input_shape)
    x = ReLU(6)(_convolution(inputs, scaled(32, width), 3, 2, padding=1))
    for expansion, channels, blocks, first_strides in MOBILENET_V2_BLOCKS:
        filters = scaled(channels, width)
        for strides in (first_strides, *[1] * (blocks - 1)):
            y = x
            if expansion > 1:
                y = ReLU(6)(_convolution(y, expansion * x.shape[2], 1))
            y = ReLU(6)(_depthwise(y, strides))
            y = _convolution(y, filters, 1)
            x = Add()([y, x]) if x.shape == y.shape else y
    x = ReLU(6)(_convolution(x, scaled(1280, width), 1))
    scores = Dense(classes)(Dropout(0.2)(GlobalAvgPool2D()(x)))
    return Model(inputs, scores, **options)


def _resnet(
    blocks: Sequence[int],
    bottleneck: bool,
    classes: int,
    input_shape: Sequence[int],
    width: float,
    options: Options,
) -> Model:
    inputs = Input(input_shape)
    x = ReLU()(_convolution(inputs, scaled(64, width), 7, 2, padding=3))
    x = MaxPool2D(3, 2, 1)(x)
    for stage, count in enumerate(blocks):
        filters = scaled(64 * 2**stage, width)
        for i in range(count):
            strides = 2 if stage and i == 0 else 1
            if bottleneck:
                y = ReLU()(_convolution(x, filters, 1))
                y = ReLU()(_convolution(y, filters, 3, strides, padding=1))
                y = _convolution(y, 4 * filters, 1)
            else:
                y = ReLU()(_convolution(x, filters, 3, strides, padding=1))
                y = _convolution(y, filters, 3, padding=1)
            shortcut = x if x.shape == y.shape else _convolution(x, y.shape[2], 1, strides)
            x = ReLU()(Add()([y, shortcut]))
    return Model(inputs, Dense(classes)(GlobalAvgPool2D()(x)), **options)


def resnet18(
    classes: int = 1000,
    input_shape: Sequence[int] = IMAGENET,
    width: float = 1.0,
    **options: Unpack[Options],
) -> Model:
    """ResNet-18: eight residual blocks of two 3×3 convolutions.

    11,689,512 parameters. Source: K. He et al., "Deep Residual Learning for Image Recognition",
    arXiv:1512.03385.

    >>> resnet18(10, (64, 64, 3), width=0.25).output_shape
    (10,)
    """
    return _resnet(RESNET_BLOCKS[18], False, classes, input_shape, width, options)


def resnet50(
    classes: int = 1000,
    input_shape: Sequence[int] = IMAGENET,
    width: float = 1.0,
    **options: Unpack[Options],
) -> Model:
    """ResNet-50: sixteen residual blocks of 1×1, 3×3 and 1×1 convolutions.

    A block that halves the image does so in its 3×3 convolution, as in torchvision. 25,557,032
    parameters. Source: K. He et al., "Deep Residual Learning for Image Recognition",
    arXiv:1512.03385.

    >>> resnet50(10, (64, 64, 3), width=0.125).output_shape
    (10,)
    """
    return _resnet(RESNET_BLOCKS[50], True, classes, input_shape, width, options)


def squeezenet(
    classes: int = 1000,
    input_shape: Sequence[int] = IMAGENET,
    width: float = 1.0,
    **options: Unpack[Options],
) -> Model:
    """SqueezeNet 1.1: modules that squeeze the channels, and join a 1×1 and a 3×3 convolution.

    1,235,496 parameters. Source: F. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x
    fewer parameters and <0.5MB model size", arXiv:1602.07360; version 1.1 is of the authors' files.

    >>> squeezenet(10, (64, 64, 3), width=0.25).output_shape
    (10,)
    """
    inputs = Input(input_shape)
    x = _with_bias(inputs, scaled(64, width), 3, 2)
    for fires in SQUEEZENET_FIRES:
        x = _pooled(x)
        for squeezed, expanded in fires:
            x = _with_bias(x, scaled(squeezed, width), 1)
            filters = scaled(expanded, width)
            x = Concatenate()([_with_bias(x, filters, 1), _with_bias(x, filters, 3, padding=1)])
    x = _with_bias(Dropout(0.5)(x), classes, 1)
    return Model(inputs, GlobalAvgPool2D()(x), **options)


def _pooled(x: Tensor) -> Tensor:
    """3×3 max-pooling of stride 2, in which the last window may exceed the image by a pixel."""
    h, w, _ = x.shape
    return MaxPool2D(3, 2, ((0, (h - 3) % 2), (0, (w - 3) % 2)))(x)


def vgg16(
    classes: int = 1000,
    input_shape: Sequence[int] = IMAGENET,
    width: float = 1.0,
    **options: Unpack[Options],
) -> Model:
    """VGG-16: thirteen 3×3 convolutions, five poolings, and three dense layers.

    138,357,544 parameters. Source: K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks
    for Large-Scale Image Recognition", arXiv:1409.1556.

    >>> vgg16(10, (64, 64, 3), width=0.125).output_shape
    (10,)
    """
    inputs = x = Input(input_shape)
    for channels, count in VGG16_BLOCKS:
        for _ in range(count):
            x = _with_bias(x, scaled(channels, width), 3, padding=1)
        x = MaxPool2D()(x)
    x = Flatten()(x)
    for _ in range(2):
        dense = Dense(scaled(4096, width), activation="relu", kernel_initializer="he_normal")
        x = Dropout(0.5)(dense(x))
    return Model(inputs, Dense(classes)(x), **options)


def u_net(
    classes: int = 1,
    input_shape: Sequence[int] = (128, 128, 3),
    width: float = 1.0,
    **options: Unpack[Options],
) -> Model:
    """A U-net with batch normalisation: images to images of ``classes`` channels.

    A level has two 3×3 convolutions on its way down and two on its way up. Max-pooling leads down,
    a transposed 2×2 convolution leads up, and the images of the way down are joined to those from
    below. Four levels with 16, 32, 64 and 128 channels stand above the last with 256, so the sides
    of the images must be multiples of 16. 1,942,577 parameters. Source: O. Ronneberger et al.,
    "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv:1505.04597, which has
    64 channels in the first level, and neither padding nor batch normalisation.

    >>> u_net(3, (32, 48, 1), width=0.5).output_shape
    (32, 48, 3)
    """
    inputs = Input(input_shape)

    def twice(x: Tensor, filters: int) -> Tensor:
        for _ in range(2):
            x = ReLU()(_convolution(x, filters, 3, padding=1))
        return x

    def level(x: Tensor, depth: int) -> Tensor:
        filters = scaled(U_NET_CHANNELS * 2**depth, width)
        x = twice(x, filters)
        if depth == U_NET_LEVELS:
            return x
        below = level(MaxPool2D()(x), depth + 1)
        above = Conv2DTranspose(filters, 2, 2, kernel_initializer="he_normal")(below)
        return twice(Concatenate()([x, above]), filters)

    return Model(inputs, Conv2D(classes, 1)(level(inputs, 0)), **options)


STANDARD_NETS: Mapping[str, Callable[..., Model]] = MappingProxyType(
    {
        "mobilenet_v1": mobilenet_v1,
        "mobilenet_v2": mobilenet_v2,
        "resnet18": resnet18,
        "resnet50": resnet50,
        "squeezenet": squeezenet,
        "vgg16": vgg16,
        "u_net": u_net,
    }
)
"""Standard nets by name, each a function of classes, shape of the images, and width."""
