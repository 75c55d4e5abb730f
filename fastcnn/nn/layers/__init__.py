"""Layers: they hold parameters and shapes, and call the operations that compute."""

from fastcnn.nn.layers.activations import (
    ELU,
    GELU,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Swish,
    Tanh,
)
from fastcnn.nn.layers.arrays import Arrays, Watch, own_arrays
from fastcnn.nn.layers.base import (
    Layer,
    all_layers,
    change_argument,
    repr_without_name,
    settle,
    snake_case,
)
from fastcnn.nn.layers.convolution import Conv2D, DepthwiseConv2D
from fastcnn.nn.layers.dense import Dense, Flatten
from fastcnn.nn.layers.description import layer_from_dict, layers_from_list, to_dict
from fastcnn.nn.layers.initializers import INITIALIZERS, Shape, Spec
from fastcnn.nn.layers.merging import (
    Add,
    Average,
    Concatenate,
    Maximum,
    Merge,
    Multiply,
    Shapes,
    Subtract,
)
from fastcnn.nn.layers.normalization import LRN, GroupNorm, LayerNorm
from fastcnn.nn.layers.ownership import INSTEAD, FixedList, Ownership
from fastcnn.nn.layers.padding import Cropping2D, ZeroPadding2D
from fastcnn.nn.layers.pooling import (
    AvgPool2D,
    GlobalAvgPool2D,
    GlobalMaxPool2D,
    MaxPool2D,
    MinPool2D,
)
from fastcnn.nn.layers.rearranging import DepthToSpace, Permute, Reshape
from fastcnn.nn.layers.regularization import BatchNorm, Dropout
from fastcnn.nn.layers.residual import Residual
from fastcnn.nn.layers.resizing import Resize, UpSampling2D
from fastcnn.nn.layers.separable import SeparableConv2D
from fastcnn.nn.layers.stack import checked_layers, infer_stack
from fastcnn.nn.layers.tensors import Input, Tensor, image_shape, input_of_call
from fastcnn.nn.layers.transposed import Conv2DTranspose

__all__ = [
    "ELU",
    "GELU",
    "INITIALIZERS",
    "INSTEAD",
    "LRN",
    "Add",
    "Arrays",
    "Average",
    "AvgPool2D",
    "BatchNorm",
    "Concatenate",
    "Conv2D",
    "Conv2DTranspose",
    "Cropping2D",
    "Dense",
    "DepthToSpace",
    "DepthwiseConv2D",
    "Dropout",
    "FixedList",
    "Flatten",
    "GlobalAvgPool2D",
    "GlobalMaxPool2D",
    "GroupNorm",
    "HardSigmoid",
    "HardSwish",
    "Input",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2D",
    "Maximum",
    "Merge",
    "MinPool2D",
    "Multiply",
    "Ownership",
    "PReLU",
    "Permute",
    "ReLU",
    "Reshape",
    "Residual",
    "Resize",
    "SeparableConv2D",
    "Shape",
    "Shapes",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Spec",
    "Subtract",
    "Swish",
    "Tanh",
    "Tensor",
    "UpSampling2D",
    "Watch",
    "ZeroPadding2D",
    "all_layers",
    "change_argument",
    "checked_layers",
    "image_shape",
    "infer_stack",
    "input_of_call",
    "layer_from_dict",
    "layers_from_list",
    "own_arrays",
    "repr_without_name",
    "settle",
    "snake_case",
    "to_dict",
]
