"""Layers: they hold parameters and shapes, and call the operations that compute."""

from fastcnn.nn.layers.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from fastcnn.nn.layers.base import Arrays, Layer, all_layers, settle
from fastcnn.nn.layers.convolution import Conv2D, DepthwiseConv2D
from fastcnn.nn.layers.dense import Dense, Flatten
from fastcnn.nn.layers.description import layer_from_dict, layers_from_list, to_dict
from fastcnn.nn.layers.initializers import INITIALIZERS, Shape, Spec
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
from fastcnn.nn.layers.transposed import Conv2DTranspose

__all__ = [
    "INITIALIZERS",
    "INSTEAD",
    "Arrays",
    "AvgPool2D",
    "BatchNorm",
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
    "Layer",
    "LeakyReLU",
    "MaxPool2D",
    "MinPool2D",
    "Ownership",
    "Permute",
    "ReLU",
    "Reshape",
    "Residual",
    "Resize",
    "SeparableConv2D",
    "Shape",
    "Sigmoid",
    "Softmax",
    "Spec",
    "Tanh",
    "UpSampling2D",
    "ZeroPadding2D",
    "all_layers",
    "checked_layers",
    "infer_stack",
    "layer_from_dict",
    "layers_from_list",
    "settle",
    "to_dict",
]
