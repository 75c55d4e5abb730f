"""The compiled engine, "numba": kernels in plain Python under one JIT decorator.

This package exports the engine's functions; the registry imports it with the first call that
needs it.
"""

# ruff: noqa: F401 (the registry and the tests take the operations from this package)

from __future__ import annotations

from fastcnn.engine.numba.conv.loops import (
    conv2d,
    conv2d_bias_gradient,
    conv2d_filter_gradient,
    conv2d_input_gradient,
    conv2d_transpose,
)
from fastcnn.engine.numba.dense.backward import dense_backward
from fastcnn.engine.numba.dense.forward import dense
from fastcnn.engine.numba.elementwise.activations import (
    clipped_relu,
    clipped_relu_backward,
    dropout,
    elu,
    elu_backward,
    gelu,
    gelu_backward,
    hard_sigmoid,
    hard_sigmoid_backward,
    hard_swish,
    hard_swish_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    softplus,
    softplus_backward,
    swish,
    swish_backward,
    tanh,
    tanh_backward,
)
from fastcnn.engine.numba.elementwise.concatenation import concatenate, concatenate_backward
from fastcnn.engine.numba.elementwise.group_norm import group_norm, group_norm_backward
from fastcnn.engine.numba.elementwise.layer_norm import layer_norm, layer_norm_backward
from fastcnn.engine.numba.elementwise.loss import cross_entropy, cross_entropy_backward
from fastcnn.engine.numba.elementwise.merging import (
    add,
    add_backward,
    maximum,
    maximum_backward,
    multiply,
    multiply_backward,
    subtract,
    subtract_backward,
)
from fastcnn.engine.numba.elementwise.normalization import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
)
from fastcnn.engine.numba.elementwise.padding import zero_pad2d, zero_pad2d_backward
from fastcnn.engine.numba.elementwise.prelu import prelu, prelu_backward
from fastcnn.engine.numba.elementwise.rearranging import permute
from fastcnn.engine.numba.elementwise.resizing import resize2d, resize2d_backward
from fastcnn.engine.numba.elementwise.response_norm import (
    local_response_norm,
    local_response_norm_backward,
)
from fastcnn.engine.numba.pool.operations import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    min_pool2d,
    min_pool2d_backward,
)
