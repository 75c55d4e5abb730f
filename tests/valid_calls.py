"""Every public function with arguments that are right; what several tests start from."""

from __future__ import annotations

from typing import Any

import numpy as np

Call = dict[str, Any]


def normal(*shape: int) -> Any:
    """Numbers of their own for each shape, float32."""
    return np.random.default_rng(shape).standard_normal(shape, np.float32)


CONV: Call = {"stride": 1, "padding": "valid", "dilation": 1, "groups": 2, "engine": None}
POOL: Call = {"size": (2, 3), "stride": None, "padding": "valid", "engine": None}
RESIZE: Call = {
    "method": "bilinear", "coordinates": "half_pixel", "rounding": "floor", "engine": None
}  # fmt: skip
CHANNELS: Call = {"gamma": normal(3), "beta": normal(3)}
STATISTICS: Call = {"mean": normal(3), "variance": normal(3) ** 2}

RIGHT: dict[str, Call] = {
    "conv2d": {"x": normal(2, 5, 6, 4), "w": normal(3, 2, 2, 6), "b": normal(6), **CONV},
    "conv2d_backward": {
        "dy": normal(2, 3, 5, 6), "x": normal(2, 5, 6, 4), "w": normal(3, 2, 2, 6), **CONV
    },
    "conv2d_input_gradient": {
        "dy": normal(2, 3, 5, 6), "w": normal(3, 2, 2, 6), "x_shape": (2, 5, 6, 4), **CONV
    },
    "conv2d_filter_gradient": {
        "dy": normal(2, 3, 5, 6), "x": normal(2, 5, 6, 4), "kernel_size": (3, 2), **CONV
    },
    "max_pool2d": {"x": normal(2, 5, 7, 3), **POOL},
    "min_pool2d": {"x": normal(2, 5, 7, 3), **POOL},
    "avg_pool2d": {"x": normal(2, 5, 7, 3), **POOL},
    "max_pool2d_backward": {"dy": normal(2, 2, 2, 3), "x": normal(2, 5, 7, 3), **POOL},
    "min_pool2d_backward": {"dy": normal(2, 2, 2, 3), "x": normal(2, 5, 7, 3), **POOL},
    "avg_pool2d_backward": {"dy": normal(2, 2, 2, 3), "x": normal(2, 5, 7, 3), **POOL},
    "dense": {"x": normal(2, 5), "w": normal(5, 3), "b": normal(3), "engine": None},
    "dense_backward": {"dy": normal(2, 3), "x": normal(2, 5), "w": normal(5, 3), "engine": None},
    "conv2d_bias_gradient": {"dy": normal(2, 3, 5, 6), "engine": None},
    "leaky_relu": {"x": normal(2, 3), "slope": 0.1, "engine": None},
    "leaky_relu_backward": {"dy": normal(2, 3), "x": normal(2, 3), "slope": 0.1, "engine": None},
    "tanh": {"x": normal(2, 3), "engine": None},
    "tanh_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "sigmoid": {"x": normal(2, 3), "engine": None},
    "sigmoid_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "dropout": {"x": normal(2, 3), "mask": normal(2, 3) > 0, "rate": 0.3, "engine": None},
    "zero_pad2d": {"x": normal(2, 5, 7, 3), "padding": ((1, 2), (0, 3)), "engine": None},
    "zero_pad2d_backward": {
        "dy": normal(2, 5, 7, 3), "padding": ((1, 2), (0, 3)), "engine": None
    },
    "batch_norm": {"x": normal(2, 5, 7, 3), **CHANNELS, "epsilon": 1e-3, "engine": None},
    "batch_norm_inference": {
        "x": normal(2, 5, 7, 3), **CHANNELS, **STATISTICS, "epsilon": 1e-3, "engine": None
    },
    "batch_norm_backward": {
        "dy": normal(2, 5, 7, 3), "x": normal(2, 5, 7, 3), "gamma": normal(3), **STATISTICS,
        "epsilon": 1e-3, "engine": None,
    },
    "relu": {"x": normal(2, 3), "engine": None},
    "relu_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "softmax": {"x": normal(2, 3), "engine": None},
    "softmax_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "log_softmax": {"x": normal(2, 3), "engine": None},
    "log_softmax_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "cross_entropy": {
        "logits": normal(2, 3), "labels": [0, 2], "reduction": "mean", "engine": None
    },
    "cross_entropy_backward": {
        "logits": normal(2, 3), "labels": [0, 2], "reduction": "mean", "engine": None
    },
    **{
        op: {"a": normal(2, 5, 7, 3), "b": normal(2, 1, 7, 1), "engine": None}
        for op in ("add", "subtract", "multiply", "maximum")
    },
    **{
        f"{op}_backward": {
            "dy": normal(2, 5, 7, 3), "a_shape": (2, 5, 7, 3), "b_shape": (2, 1, 7, 1),
            "engine": None,
        }
        for op in ("add", "subtract")
    },
    **{
        f"{op}_backward": {
            "dy": normal(2, 5, 7, 3), "a": normal(2, 5, 7, 3), "b": normal(2, 1, 7, 1),
            "engine": None,
        }
        for op in ("multiply", "maximum")
    },
    "layer_norm": {"x": normal(2, 5, 7, 3), **CHANNELS, "epsilon": 1e-3, "engine": None},
    "layer_norm_backward": {
        "dy": normal(2, 5, 7, 3), "x": normal(2, 5, 7, 3), "gamma": normal(3), "epsilon": 1e-3,
        "engine": None,
    },
    "group_norm": {
        "x": normal(2, 5, 7, 3), "groups": 1, **CHANNELS, "epsilon": 1e-3, "engine": None
    },
    "group_norm_backward": {
        "dy": normal(2, 5, 7, 3), "x": normal(2, 5, 7, 3), "groups": 1, "gamma": normal(3),
        "epsilon": 1e-3, "engine": None,
    },
    "local_response_norm": {
        "x": normal(2, 5, 7, 3), "size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0, "engine": None
    },
    "local_response_norm_backward": {
        "dy": normal(2, 5, 7, 3), "x": normal(2, 5, 7, 3), "size": 5, "alpha": 1e-4, "beta": 0.75,
        "bias": 1.0, "engine": None,
    },
    "concatenate": {"arrays": [normal(2, 5, 3), normal(2, 5, 1)], "axis": -1, "engine": None},
    "concatenate_backward": {
        "dy": normal(2, 5, 4), "sizes": (3, 1), "axis": -1, "engine": None
    },
    "clipped_relu": {"x": normal(2, 3), "top": 0.5, "engine": None},
    "clipped_relu_backward": {"dy": normal(2, 3), "x": normal(2, 3), "top": 0.5, "engine": None},
    "elu": {"x": normal(2, 3), "alpha": 0.7, "engine": None},
    "elu_backward": {"dy": normal(2, 3), "x": normal(2, 3), "alpha": 0.7, "engine": None},
    "hard_sigmoid": {"x": normal(2, 3), "slope": 0.2, "offset": 0.4, "engine": None},
    "hard_sigmoid_backward": {
        "dy": normal(2, 3), "x": normal(2, 3), "slope": 0.2, "offset": 0.4, "engine": None
    },
    "hard_swish": {"x": normal(2, 3), "engine": None},
    "hard_swish_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "swish": {"x": normal(2, 3), "engine": None},
    "swish_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "gelu": {"x": normal(2, 3), "approximate": False, "engine": None},
    "gelu_backward": {
        "dy": normal(2, 3), "x": normal(2, 3), "approximate": True, "engine": None
    },
    "softplus": {"x": normal(2, 3), "engine": None},
    "softplus_backward": {"dy": normal(2, 3), "x": normal(2, 3), "engine": None},
    "prelu": {"x": normal(2, 5, 7, 3), "slope": normal(3), "engine": None},
    "prelu_backward": {
        "dy": normal(2, 5, 7, 3), "x": normal(2, 5, 7, 3), "slope": normal(3), "engine": None
    },
    "conv2d_transpose": {
        "x": normal(2, 3, 5, 6), "w": normal(3, 2, 2, 6), "b": normal(4), "output_padding": None,
        **CONV,
    },
    "conv2d_transpose_backward": {
        "dy": normal(2, 5, 6, 4), "x": normal(2, 3, 5, 6), "w": normal(3, 2, 2, 6),
        "output_padding": None, **CONV,
    },
    "crop2d": {"x": normal(2, 5, 7, 3), "cropping": ((1, 2), (0, 3)), "engine": None},
    "crop2d_backward": {"dy": normal(2, 5, 7, 3), "cropping": ((1, 2), (0, 3)), "engine": None},
    "permute": {"x": normal(2, 5, 7, 3), "order": (3, 1, 2), "engine": None},
    "permute_backward": {"dy": normal(2, 3, 5, 7), "order": (3, 1, 2), "engine": None},
    "depth_to_space": {"x": normal(2, 5, 7, 12), "block": 2, "order": "CRD", "engine": None},
    "space_to_depth": {"x": normal(2, 6, 8, 3), "block": 2, "order": "CRD", "engine": None},
    "resize2d": {"x": normal(2, 5, 7, 3), "size": (9, 8), **RESIZE},
    "resize2d_backward": {"dy": normal(2, 9, 8, 3), "x_shape": (2, 5, 7, 3), **RESIZE},
}  # fmt: skip
