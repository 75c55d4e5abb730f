"""fastcnn: a CNN engine for the CPU that you can read, at the speed of the hardware.

Every operation exists three times: as an executable specification (``naive``), as stride tricks
on matrix multiplication (``im2col``), and as compiled kernels (``numba``). This file lists the
public names; those from modules with heavier imports arrive when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastcnn.core.settings import get_math, get_num_threads, set_math, set_num_threads, use_math
from fastcnn.engine.registry import engines, use_engine
from fastcnn.ops import (
    add,
    add_backward,
    avg_pool2d,
    avg_pool2d_backward,
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    clipped_relu,
    clipped_relu_backward,
    concatenate,
    concatenate_backward,
    conv2d,
    conv2d_backward,
    conv2d_bias_gradient,
    conv2d_filter_gradient,
    conv2d_input_gradient,
    conv2d_transpose,
    conv2d_transpose_backward,
    crop2d,
    crop2d_backward,
    cross_entropy,
    cross_entropy_backward,
    dense,
    dense_backward,
    depth_to_space,
    dropout,
    elu,
    elu_backward,
    explain,
    gelu,
    gelu_backward,
    group_norm,
    group_norm_backward,
    hard_sigmoid,
    hard_sigmoid_backward,
    hard_swish,
    hard_swish_backward,
    layer_norm,
    layer_norm_backward,
    leaky_relu,
    leaky_relu_backward,
    local_response_norm,
    local_response_norm_backward,
    log_softmax,
    log_softmax_backward,
    max_pool2d,
    max_pool2d_backward,
    maximum,
    maximum_backward,
    min_pool2d,
    min_pool2d_backward,
    multiply,
    multiply_backward,
    permute,
    permute_backward,
    prelu,
    prelu_backward,
    relu,
    relu_backward,
    resize2d,
    resize2d_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    softplus,
    softplus_backward,
    space_to_depth,
    subtract,
    subtract_backward,
    swish,
    swish_backward,
    tanh,
    tanh_backward,
    zero_pad2d,
    zero_pad2d_backward,
)
from fastcnn.ops.layout import hwio_to_oihw, nchw_to_nhwc, nhwc_to_nchw, oihw_to_hwio
from fastcnn.version import __version__

if TYPE_CHECKING:
    from fastcnn import plots
    from fastcnn.data import augmentation
    from fastcnn.data.augmentation import Augment
    from fastcnn.data.datasets import load_mnist
    from fastcnn.data.image_sets import ImageSet, load_images
    from fastcnn.data.picture_folders import load_pictures
    from fastcnn.data.pixel_scaling import Scaling
    from fastcnn.data.preparation import Preparation
    from fastcnn.data.scaling import InputWarning
    from fastcnn.estimator.classifier import CNNClassifier
    from fastcnn.estimator.regressor import CNNRegressor
    from fastcnn.exchange.onnx_functions.nodes import OnnxFileError
    from fastcnn.exchange.onnx_import import load_onnx
    from fastcnn.exchange.weight_files import read_weights
    from fastcnn.exchange.weights import WeightsReport, WeightsWarning, load_weights
    from fastcnn.models import nets
    from fastcnn.models.model import Model
    from fastcnn.models.sequential import Sequential, load_model
    from fastcnn.nn import layers, losses, metrics, optimizers, schedules
    from fastcnn.nn.layers import Input
    from fastcnn.proof import compare
    from fastcnn.train import callbacks
    from fastcnn.train.callbacks import Callback, StopTraining
    from fastcnn.train.checkpoint import ModelFileError
    from fastcnn.train.progress import History

_LATER = {
    "Augment": ("fastcnn.data.augmentation", "Augment"),
    "CNNRegressor": ("fastcnn.estimator.regressor", "CNNRegressor"),
    "CNNClassifier": ("fastcnn.estimator.classifier", "CNNClassifier"),
    "Callback": ("fastcnn.train.callbacks", "Callback"),
    "ImageSet": ("fastcnn.data.image_sets", "ImageSet"),
    "Input": ("fastcnn.nn.layers", "Input"),
    "InputWarning": ("fastcnn.data.scaling", "InputWarning"),
    "History": ("fastcnn.train.progress", "History"),
    "Preparation": ("fastcnn.data.preparation", "Preparation"),
    "Model": ("fastcnn.models.model", "Model"),
    "OnnxFileError": ("fastcnn.exchange.onnx_functions.nodes", "OnnxFileError"),
    "ModelFileError": ("fastcnn.train.checkpoint", "ModelFileError"),
    "Scaling": ("fastcnn.data.pixel_scaling", "Scaling"),
    "Sequential": ("fastcnn.models.sequential", "Sequential"),
    "StopTraining": ("fastcnn.train.callbacks", "StopTraining"),
    "article": ("fastcnn.article", None),
    "augmentation": ("fastcnn.augmentation", None),
    "callbacks": ("fastcnn.callbacks", None),
    "compare": ("fastcnn.proof", "compare"),
    "distributed": ("fastcnn.distributed", None),
    "layers": ("fastcnn.layers", None),
    "load_model": ("fastcnn.models.sequential", "load_model"),
    "load_images": ("fastcnn.data.image_sets", "load_images"),
    "load_mnist": ("fastcnn.data.datasets", "load_mnist"),
    "load_onnx": ("fastcnn.exchange.onnx_import", "load_onnx"),
    "load_weights": ("fastcnn.exchange.weights", "load_weights"),
    "load_pictures": ("fastcnn.data.picture_folders", "load_pictures"),
    "losses": ("fastcnn.losses", None),
    "metrics": ("fastcnn.metrics", None),
    "nets": ("fastcnn.nets", None),
    "optimizers": ("fastcnn.optimizers", None),
    "plots": ("fastcnn.plots", None),
    "read_weights": ("fastcnn.exchange.weight_files", "read_weights"),
    "schedules": ("fastcnn.schedules", None),
    "WeightsReport": ("fastcnn.exchange.weights", "WeightsReport"),
    "WeightsWarning": ("fastcnn.exchange.weights", "WeightsWarning"),
}

__all__ = [
    "Augment",
    "CNNClassifier",
    "CNNRegressor",
    "Callback",
    "History",
    "ImageSet",
    "Input",
    "InputWarning",
    "Model",
    "ModelFileError",
    "OnnxFileError",
    "Preparation",
    "Scaling",
    "Sequential",
    "StopTraining",
    "WeightsReport",
    "WeightsWarning",
    "__version__",
    "add",
    "add_backward",
    "article",
    "augmentation",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_inference",
    "callbacks",
    "clipped_relu",
    "clipped_relu_backward",
    "compare",
    "concatenate",
    "concatenate_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_bias_gradient",
    "conv2d_filter_gradient",
    "conv2d_input_gradient",
    "conv2d_transpose",
    "conv2d_transpose_backward",
    "crop2d",
    "crop2d_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "dense",
    "dense_backward",
    "depth_to_space",
    "distributed",
    "dropout",
    "elu",
    "elu_backward",
    "engines",
    "explain",
    "gelu",
    "gelu_backward",
    "get_math",
    "get_num_threads",
    "group_norm",
    "group_norm_backward",
    "hard_sigmoid",
    "hard_sigmoid_backward",
    "hard_swish",
    "hard_swish_backward",
    "hwio_to_oihw",
    "layer_norm",
    "layer_norm_backward",
    "layers",
    "leaky_relu",
    "leaky_relu_backward",
    "load_images",
    "load_mnist",
    "load_model",
    "load_onnx",
    "load_pictures",
    "load_weights",
    "local_response_norm",
    "local_response_norm_backward",
    "log_softmax",
    "log_softmax_backward",
    "losses",
    "max_pool2d",
    "max_pool2d_backward",
    "maximum",
    "maximum_backward",
    "metrics",
    "min_pool2d",
    "min_pool2d_backward",
    "multiply",
    "multiply_backward",
    "nchw_to_nhwc",
    "nets",
    "nhwc_to_nchw",
    "oihw_to_hwio",
    "optimizers",
    "permute",
    "permute_backward",
    "plots",
    "prelu",
    "prelu_backward",
    "read_weights",
    "relu",
    "relu_backward",
    "resize2d",
    "resize2d_backward",
    "schedules",
    "set_math",
    "set_num_threads",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "softplus",
    "softplus_backward",
    "space_to_depth",
    "subtract",
    "subtract_backward",
    "swish",
    "swish_backward",
    "tanh",
    "tanh_backward",
    "use_engine",
    "use_math",
    "zero_pad2d",
    "zero_pad2d_backward",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'fastcnn' has no attribute {name!r}")
    module, attribute = _LATER[name]
    loaded = import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
