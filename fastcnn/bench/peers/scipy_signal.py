"""SciPy: convolution by Fourier transforms, and pooling by its filters, on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
from scipy import ndimage, signal

from fastcnn.bench.contest import Runner, Skipped
from fastcnn.bench.nets import NetTask
from fastcnn.bench.standard import StandardTask
from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry, PoolGeometry
from fastcnn.proof.problems import Problem

FAMILY = "SciPy"
LARGEST = 1 << 23  # numbers in an array of the products of all pairs of channels


def set_threads(n: int) -> None:
    """Do nothing, because these functions of SciPy run on the calling thread."""


def net_runners(task: NetTask | StandardTask, compiled: bool) -> Iterator[Runner | Skipped]:
    """Yield nothing, because SciPy has no layers."""
    yield Skipped(FAMILY, "it has no layers")


def operation_runners(
    problem: Problem, arrays: dict[str, Array], compiled: bool
) -> Iterator[Runner | Skipped]:
    """Convolution with stride 1, and max-pooling, forward only."""
    g = problem.geometry
    if problem.op == "conv2d" and isinstance(g, ConvGeometry):
        yield _convolution(g, arrays)
    elif problem.op == "max_pool2d" and isinstance(g, PoolGeometry):
        yield _pooling(g, arrays)
    else:
        yield Skipped(FAMILY, f"it has no {problem.op}")


def _convolution(g: ConvGeometry, arrays: dict[str, Array]) -> Runner | Skipped:
    if g.groups > 1 or (g.stride_h, g.stride_w) != (1, 1):
        return Skipped(FAMILY, "its convolution has no strides and no groups")
    if prod((g.n, g.h, g.w, g.ic, g.oc)) > LARGEST:
        return Skipped(FAMILY, "its arrays of all pairs of channels would be too large")
    x, b = arrays["x"][..., np.newaxis], arrays["b"]
    turned = arrays["w"][np.newaxis, ::-1, ::-1]
    sides = ((g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right))

    def run() -> Array:
        padded = np.pad(x, ((0, 0), *sides, (0, 0), (0, 0)))
        pairs = signal.oaconvolve(padded, turned, mode="valid", axes=(1, 2))
        y: Array = pairs.sum(3) + b
        return y

    return Runner(FAMILY, FAMILY, run, lambda: (run(),))


def _pooling(g: PoolGeometry, arrays: dict[str, Array]) -> Runner:
    x = arrays["x"]
    # The filter's window is centred on each pixel, so the result is read at the centres of the
    # pooling's windows.
    top, left = g.kh // 2 - g.pad_top, g.kw // 2 - g.pad_left
    rows = slice(top, top + (g.oh - 1) * g.stride_h + 1, g.stride_h)
    columns = slice(left, left + (g.ow - 1) * g.stride_w + 1, g.stride_w)

    def run() -> Array:
        y: Array = ndimage.maximum_filter(
            x, size=(1, g.kh, g.kw, 1), mode="constant", cval=-np.inf
        )[:, rows, columns]
        return y

    return Runner(FAMILY, FAMILY, run, lambda: (run(),))
