"""Steps of layers that normalise each sample by itself: LayerNorm, GroupNorm and LRN."""

from __future__ import annotations

from math import prod
from typing import cast

import numpy as np

from fastcnn.engine.numba.elementwise import group_norm as group_norm_kernels
from fastcnn.engine.numba.elementwise import layer_norm as layer_norm_kernels
from fastcnn.engine.numba.elementwise.response_norm import response, response_rows
from fastcnn.engine.numba.runtime.arrays import record
from fastcnn.engine.numba.runtime.program import Operand
from fastcnn.models.execution.fusion import Fused
from fastcnn.models.execution.prediction_list import PredictionList
from fastcnn.nn.layers import LRN, GroupNorm, LayerNorm


def layer_norm(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A layer normalisation; a row are the last axes of a sample."""
    layer, like = cast(LayerNorm, fused.layer), to.like
    features, count = prod(layer.row(fused.shape)), to.n * prod(fused.shape)
    numbers = record(layer_norm_kernels.LayerNormSizes(features, layer.epsilon))
    gamma, beta = _scale_and_shift(fused, features, to)
    to.step(
        layer_norm_kernels.layer_norm_rows, (like, like, like, like, numbers), count // features,
        places[0], gamma, beta, y, to.constant(numbers), work=6 * count,
    )  # fmt: skip


def group_norm(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A group normalisation: moments of chunks, coefficients of channels, and the pixels."""
    layer, like, channels = cast(GroupNorm, fused.layer), to.like, fused.shape[-1]
    pixels = prod(fused.shape) // channels
    shape = to.n, pixels, channels
    plan = group_norm_kernels.moments_plan(shape, layer.groups, layer.epsilon, gradients=False)
    numbers, (gamma, beta) = record(plan.sizes), _scale_and_shift(fused, channels, to)
    wide, last = np.zeros(1, np.float64), to.constant(numbers)
    moments, scratch = to.bytes_room(plan.moments * wide.itemsize), to.room(plan.scratch)
    to.step(
        plan.function, (like, like, wide, like, numbers), plan.items,
        places[0], places[0], moments, scratch, last, work=plan.work,
    )  # fmt: skip
    coefficients = to.room(to.n * 3 * channels)
    to.step(
        group_norm_kernels.group_coefficients, (wide, like, like, numbers), to.n,
        moments, gamma, coefficients, last, work=2 * plan.moments,
    )  # fmt: skip
    to.step(
        group_norm_kernels.group_norm_rows, (like, like, like, like, numbers), to.n * pixels,
        places[0], coefficients, beta, y, last, work=2 * prod(shape),
    )  # fmt: skip


def _scale_and_shift(fused: Fused, count: int, to: PredictionList) -> tuple[Operand, Operand]:
    """The layer's gamma and beta; ones and zeros where it has none."""
    arrays = to.weights.of(fused.layer)
    gamma = to.constant(arrays["gamma"]) if "gamma" in arrays else to.filled(count, 1)
    beta = to.constant(arrays["beta"]) if "beta" in arrays else to.filled(count, 0)
    return gamma, beta


def response_norm(fused: Fused, places: list[Operand], y: Operand, to: PredictionList) -> None:
    """A local response normalisation."""
    layer, channels, like = cast(LRN, fused.layer), fused.shape[-1], to.like
    shape = to.n * prod(fused.shape) // channels, channels
    plan = response(shape, layer.window, layer.alpha, layer.beta, layer.bias, to.itemsize)
    numbers, sums = record(plan.sizes), np.zeros(1, plan.dtype)
    scratch = to.bytes_room(plan.items * channels * sums.itemsize)
    to.step(
        response_rows(layer.beta == 0.75), (like, like, sums, numbers), plan.items,
        places[0], y, scratch, to.constant(numbers), work=plan.work,
    )  # fmt: skip
