"""Batch normalisations over the shards of a batch, by the operations of any engine.

The moments of each shard are joined along the tree of a group, so all shards are normalised by the
mean and variance of the whole batch. The way back needs two sums of each shard, which are joined in
the same way.

Source: T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances", 1982.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn import ops
from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.halving import Add
from fastcnn.nn.layers import BatchNorm, own_arrays


class Exchange(NamedTuple):
    """An array of a shard, which is combined with those of other shards.

    Attributes:
        array: the array.
        add: what makes one array of two.
        within_process: whether the arrays of this process alone are combined.
    """

    array: Array
    add: Add = np.add
    within_process: bool = False


def joined(a: Array, b: Array) -> Array:
    """The moments (…, 3, C) of two parts together: numbers, means, sums of squared distances.

    >>> joined(np.array([[1.0], [3.0], [0.0]]), np.array([[1.0], [5.0], [0.0]]))[:, 0]
    array([2., 4., 2.])
    """
    (a_count, a_mean, a_squares), (b_count, b_mean, b_squares) = (
        (one[..., 0, :], one[..., 1, :], one[..., 2, :]) for one in (a, b)
    )
    result = np.empty(a.shape)
    result[..., 0, :] = count = a_count + b_count
    distance, share = b_mean - a_mean, b_count / count
    result[..., 1, :] = a_mean + distance * share
    result[..., 2, :] = a_squares + b_squares + distance * distance * (a_count * share)
    return result


def normalises(layer: object) -> bool:
    """Whether a layer takes its mean and variance of the batch in training."""
    return isinstance(layer, BatchNorm) and layer.trainable


@unreported
def moments_of(layer: BatchNorm, x: Array, engine: str | None) -> Array:
    """The moments (3, C) of the rows of ``x``, whose last axis is that of the channels."""
    channels = x.shape[-1]
    count = x.size // channels
    if count == 1:  # one row has no variance, and batch_norm refuses it
        return np.stack([np.ones(channels), x.reshape(channels).astype(float), np.zeros(channels)])
    ones, zeros = np.ones(channels, x.dtype), np.zeros(channels, x.dtype)
    _, mean, variance = ops.batch_norm(x, ones, zeros, layer.epsilon, engine=engine)
    return np.stack([np.full(channels, float(count)), mean, count * variance.astype(float)])


@unreported
def forward(layer: BatchNorm, x: Array, moments: Array, engine: str | None) -> Array:
    """``y`` in the shape of ``x``, by the moments (3, C) of the whole batch."""
    own, (mean, variance) = own_arrays(layer.parameters), _statistics(moments, x)
    return ops.batch_norm_inference(
        x, own["gamma"], own["beta"], mean, variance, layer.epsilon, engine=engine
    )


@unreported
def backward_sums(
    layer: BatchNorm, dy: Array, x: Array, moments: Array, engine: str | None
) -> Array:
    """The gradients of gamma and beta of a shard, (2, C), in float64."""
    mean, variance = _statistics(moments, x)
    channels = x.shape[-1]
    if x.size == channels:
        normal = (x - mean) / np.sqrt(variance + x.dtype.type(layer.epsilon))
        return np.stack([(dy * normal).reshape(channels), dy.reshape(channels)]).astype(float)
    ones = np.ones(channels, x.dtype)
    _, dgamma, dbeta = ops.batch_norm_backward(
        dy, x, ones, mean, variance, layer.epsilon, engine=engine
    )
    return np.stack([dgamma, dbeta]).astype(float)


@unreported
def backward(
    layer: BatchNorm, dy: Array, x: Array, moments: Array, sums: Array, engine: str | None
) -> Array:
    """``dx``, from the gradients (2, C) of gamma and beta of the whole batch, in float64.

    It is the difference of two normalisations: ``γ·(dy − dβ/n)/σ − γ·(dγ/n)·(x − mean)/σ²`` with
    ``σ = √(variance + ε)``. The scale of the second one holds one of its two divisions by σ.
    """
    mean, variance = _statistics(moments, x)
    gamma, count = own_arrays(layer.parameters)["gamma"], moments[0]
    zeros = np.zeros_like(gamma)
    inverse = 1 / np.sqrt(moments[2] / count + layer.epsilon)
    share = (sums[1] / count).astype(x.dtype)
    slope = (gamma * (sums[0] / count) * inverse).astype(x.dtype)
    of_dy, of_x = (
        ops.batch_norm_inference(
            array, scale, zeros, centre, variance, layer.epsilon, engine=engine
        )
        for array, scale, centre in ((dy, gamma, share), (x, slope, mean))
    )
    result: Array = of_dy - of_x
    return result


def follow(layer: BatchNorm, moments: Array) -> None:
    """Move the running statistics of a layer towards those of a batch."""
    dtype = own_arrays(layer.state)["mean"].dtype
    layer.follow(moments[1].astype(dtype), (moments[2] / moments[0]).astype(dtype))


def _statistics(moments: Array, x: Array) -> tuple[Array, Array]:
    """The mean and the variance (C,) in the dtype of ``x``."""
    return moments[1].astype(x.dtype), (moments[2] / moments[0]).astype(x.dtype)
