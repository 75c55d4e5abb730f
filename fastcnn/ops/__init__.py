"""The public functions: each checks its arguments, derives the geometry, and calls an engine.

Activations are NHWC, filters HWIO. Every function takes ``engine=None``, which means the fastest
that serves the call, or the name of an engine. Dtypes and layouts follow the two rules of
:mod:`fastcnn.core.arguments`. Results are new arrays. Empty batches give empty results.
"""

from fastcnn.ops.activations import leaky_relu as leaky_relu
from fastcnn.ops.activations import leaky_relu_backward as leaky_relu_backward
from fastcnn.ops.activations import log_softmax as log_softmax
from fastcnn.ops.activations import log_softmax_backward as log_softmax_backward
from fastcnn.ops.activations import relu as relu
from fastcnn.ops.activations import relu_backward as relu_backward
from fastcnn.ops.activations import sigmoid as sigmoid
from fastcnn.ops.activations import sigmoid_backward as sigmoid_backward
from fastcnn.ops.activations import softmax as softmax
from fastcnn.ops.activations import softmax_backward as softmax_backward
from fastcnn.ops.activations import tanh as tanh
from fastcnn.ops.activations import tanh_backward as tanh_backward
from fastcnn.ops.checks import Activation as Activation
from fastcnn.ops.checks import Algorithm as Algorithm
from fastcnn.ops.checks import Math as Math
from fastcnn.ops.checks import Reduction as Reduction
from fastcnn.ops.convolution import conv2d as conv2d
from fastcnn.ops.convolution import conv2d_backward as conv2d_backward
from fastcnn.ops.convolution import conv2d_bias_gradient as conv2d_bias_gradient
from fastcnn.ops.convolution import conv2d_filter_gradient as conv2d_filter_gradient
from fastcnn.ops.convolution import conv2d_input_gradient as conv2d_input_gradient
from fastcnn.ops.dense import dense as dense
from fastcnn.ops.dense import dense_backward as dense_backward
from fastcnn.ops.explain import EXPLAINABLE as EXPLAINABLE
from fastcnn.ops.explain import Explanations as Explanations
from fastcnn.ops.explain import explain as explain
from fastcnn.ops.losses import cross_entropy as cross_entropy
from fastcnn.ops.losses import cross_entropy_backward as cross_entropy_backward
from fastcnn.ops.normalization import batch_norm as batch_norm
from fastcnn.ops.normalization import batch_norm_backward as batch_norm_backward
from fastcnn.ops.normalization import batch_norm_inference as batch_norm_inference
from fastcnn.ops.padding import crop2d as crop2d
from fastcnn.ops.padding import crop2d_backward as crop2d_backward
from fastcnn.ops.padding import zero_pad2d as zero_pad2d
from fastcnn.ops.padding import zero_pad2d_backward as zero_pad2d_backward
from fastcnn.ops.pooling import avg_pool2d as avg_pool2d
from fastcnn.ops.pooling import avg_pool2d_backward as avg_pool2d_backward
from fastcnn.ops.pooling import max_pool2d as max_pool2d
from fastcnn.ops.pooling import max_pool2d_backward as max_pool2d_backward
from fastcnn.ops.pooling import min_pool2d as min_pool2d
from fastcnn.ops.pooling import min_pool2d_backward as min_pool2d_backward
from fastcnn.ops.rearranging import DepthOrder as DepthOrder
from fastcnn.ops.rearranging import depth_to_space as depth_to_space
from fastcnn.ops.rearranging import permute as permute
from fastcnn.ops.rearranging import permute_backward as permute_backward
from fastcnn.ops.rearranging import space_to_depth as space_to_depth
from fastcnn.ops.regularization import dropout as dropout
from fastcnn.ops.resizing import Coordinates as Coordinates
from fastcnn.ops.resizing import Method as Method
from fastcnn.ops.resizing import Rounding as Rounding
from fastcnn.ops.resizing import resize2d as resize2d
from fastcnn.ops.resizing import resize2d_backward as resize2d_backward
from fastcnn.ops.transposed import conv2d_transpose as conv2d_transpose
from fastcnn.ops.transposed import conv2d_transpose_backward as conv2d_transpose_backward
