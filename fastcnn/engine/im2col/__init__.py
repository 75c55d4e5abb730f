"""The engine "im2col": convolution as matrix multiplication, everything else on whole arrays.

No Python code loops over pixels. Windows are views (``windows``), and ``WORKSPACE_BYTES`` bounds
the memory. The split of a call into steps depends on its problem, never on the machine.
"""

# ruff: noqa: F401 (the registry and the tests take the operations from this package)

from fastcnn.engine.im2col.activations import (
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
from fastcnn.engine.im2col.convolution import (
    conv2d,
    conv2d_bias_gradient,
    conv2d_filter_gradient,
    conv2d_input_gradient,
    conv2d_transpose,
)
from fastcnn.engine.im2col.dense import dense, dense_backward
from fastcnn.engine.im2col.loss import cross_entropy, cross_entropy_backward
from fastcnn.engine.im2col.merging import (
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
from fastcnn.engine.im2col.normalization import (
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
from fastcnn.engine.im2col.padding import zero_pad2d, zero_pad2d_backward
from fastcnn.engine.im2col.pooling import (
    avg_pool2d,
    avg_pool2d_backward,
    max_pool2d,
    max_pool2d_backward,
    min_pool2d,
    min_pool2d_backward,
)
from fastcnn.engine.im2col.rearranging import permute
from fastcnn.engine.im2col.resizing import resize2d, resize2d_backward
from fastcnn.engine.im2col.windows import WORKSPACE_BYTES
