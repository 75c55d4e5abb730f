"""The specification: every operation in the plainest form that still runs.

This engine defines what is correct. It goes region by region through each image, as the article
"CNNs, Part 1" does, and its files can be read next to it: :mod:`~fastcnn.engine.naive.regions`
(``iterate_regions``), then ``convolution``, ``pooling``, ``dense``, ``activations``, ``loss``.

Everything is computed in float64 and rounded once, at the end, to the dtype of the input. NumPy
computes the sums, products are written out, and no matrix library takes part. :mod:`fastcnn.ops`
has checked the arguments. Results are new arrays.
"""

# ruff: noqa: F401 (the registry and the tests take the operations from this package)

from fastcnn.engine.naive.activations import (
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
    prelu,
    prelu_backward,
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
from fastcnn.engine.naive.convolution import (
    conv2d,
    conv2d_bias_gradient,
    conv2d_filter_gradient,
    conv2d_input_gradient,
    conv2d_transpose,
)
from fastcnn.engine.naive.dense import dense, dense_backward
from fastcnn.engine.naive.loss import cross_entropy, cross_entropy_backward
from fastcnn.engine.naive.merging import (
    add,
    add_backward,
    concatenate,
    concatenate_backward,
    maximum,
    maximum_backward,
    multiply,
    multiply_backward,
    subtract,
    subtract_backward,
)
from fastcnn.engine.naive.normalization import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    group_norm,
    group_norm_backward,
    layer_norm,
    layer_norm_backward,
    local_response_norm,
    local_response_norm_backward,
)
from fastcnn.engine.naive.padding import zero_pad2d, zero_pad2d_backward
from fastcnn.engine.naive.pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    min_pool2d,
    min_pool2d_backward,
)
from fastcnn.engine.naive.rearranging import permute
from fastcnn.engine.naive.resizing import resize2d, resize2d_backward
