"""Group normalisation as compiled loops on images (N, P, C): P pixels of C channels in G groups.

The pixels of an image are cut into chunks, so that threads share an image. The first kernel takes
the moments of each chunk, channel by channel: the mean of the channel's group in the chunk, and
sums of distances from it. The second merges the chunks of an image in order, and gives each channel
its coefficients. The third goes through the pixels. So numbers are read from memory twice.

A mean is summed in float64, and kept as two numbers (:mod:`.distances`). Sums of distances over a
chunk, which has at most a stretch of pixels (:mod:`fastcnn.core.long_sums`), are taken in the
images' dtype, sums over chunks in float64.

Source of the merge: T. Chan, G. Golub, R. LeVeque, "Updating Formulae and a Pairwise Algorithm for
Computing Sample Variances", 1979.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.long_sums import STRETCH
from fastcnn.engine.numba.elementwise.distances import distance_from
from fastcnn.engine.numba.elementwise.totals import Totals, add_chunks
from fastcnn.engine.numba.runtime import arrays
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable, record
from fastcnn.engine.numba.runtime.inlining import device, ordered_device
from fastcnn.engine.numba.runtime.instruction_sets import kernel_factory
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.runs import zero_run
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel

_CHUNK = 16 * 1024  # numbers of a chunk, about; they stay in the second-level cache
_MEAN, _SQUARES, _GRADIENTS, _PRODUCTS = range(4)
"""Moments of a channel in a chunk: the mean of its group, and sums of squared distances, of dy, and
of dy · distance. Prediction takes the first two."""


def group_norm(x: Array, groups: int, gamma: Array, beta: Array, epsilon: float) -> Array:
    """y (N, P, C): groups with mean 0 and variance 1, times gamma (C,), plus beta (C,)."""
    n, pixels, channels = x.shape
    y, flat = empty_like_type(x, *x.shape), readable(x).reshape(-1)
    if x.size:
        numbers, moments = _moments((flat,), x, groups, epsilon)
        coefficients = empty_like_type(x, n * 3 * channels)
        operands = moments, readable(gamma), coefficients, numbers
        parallel_for(group_coefficients, n, 2 * moments.size, *operands)
        rows = flat, coefficients, readable(beta), y.reshape(-1), numbers
        parallel_for(group_norm_rows, n * pixels, 2 * x.size, *rows)
    return y


def group_norm_backward(
    dy: Array, x: Array, groups: int, gamma: Array, epsilon: float
) -> tuple[Array, Array, Array]:
    """``dx`` (N, P, C), ``dgamma`` and ``dbeta`` (C,)."""
    n, pixels, channels = x.shape
    dx, flat = empty_like_type(x, *x.shape), (readable(dy).reshape(-1), readable(x).reshape(-1))
    dgamma, dbeta = empty_like_type(dy, channels), empty_like_type(dy, channels)
    totals = arrays.allocate((n * 2 * channels,), np.float64)
    if x.size:
        numbers, moments = _moments(flat, x, groups, epsilon)
        coefficients = empty_like_type(x, n * 5 * channels)
        operands = moments, readable(gamma), coefficients, totals, numbers
        parallel_for(group_gradient_coefficients, n, 2 * moments.size, *operands)
        rows = *flat, coefficients, dx.reshape(-1), numbers
        parallel_for(group_norm_gradient_rows, n * pixels, 4 * x.size, *rows)
    images = n if x.size else 0
    add_chunks(totals, dgamma, 1, Totals(images, channels, 0, 2 * channels))
    add_chunks(totals, dbeta, 1, Totals(images, channels, channels, 2 * channels))
    return dx, dgamma, dbeta


class GroupNormSizes(NamedTuple):
    """Sizes of an image, and what is added to the variance. A chunk has ``grain`` pixels."""

    pixels: int
    channels: int
    groups: int
    grain: int
    chunks: int
    epsilon: float


class MomentsPlan(NamedTuple):
    """A kernel ``(dy, x, moments, scratch, record(sizes))`` and its items.

    ``moments`` counts numbers in float64, ``scratch`` numbers of the dtype of x.
    """

    function: Kernel
    items: int
    work: int
    sizes: GroupNormSizes
    moments: int
    scratch: int


def moments_plan(
    shape: tuple[int, ...], groups: int, epsilon: float, gradients: bool
) -> MomentsPlan:
    """The plan for the moments of images (N, P, C); dy is not read without ``gradients``."""
    n, pixels, channels = shape
    grain = max(1, min(STRETCH, pixels, _CHUNK // channels))
    chunks, kinds = -(-pixels // grain), 4 if gradients else 2
    sizes, items = GroupNormSizes(pixels, channels, groups, grain, chunks, epsilon), n * chunks
    return MomentsPlan(
        _group_moments(gradients), items, 2 * kinds * n * pixels * channels, sizes,
        items * kinds * channels, items * (kinds + 1) * channels,
    )  # fmt: skip


def _moments(flat: tuple[Array, ...], x: Array, groups: int, epsilon: float) -> tuple[Array, Array]:
    """The record of GroupNormSizes, and the moments of x (N, P, C), or of dy and x."""
    plan = moments_plan(x.shape, groups, epsilon, len(flat) == 2)
    moments, numbers = arrays.allocate((plan.moments,), np.float64), record(plan.sizes)
    operands = flat[0], flat[-1], moments, empty_like_type(x, plan.scratch), numbers
    parallel_for(plan.function, plan.items, plan.work, *operands)
    return numbers, moments


# --- the moments of a chunk ----------------------------------------------------------------------


@device
def _add_four(totals: Array, a: Array, b: Array, c: Array, d: Array) -> None:
    number = totals.dtype.type
    for i in range(totals.size):
        totals[i] += (number(a[i]) + number(b[i])) + (number(c[i]) + number(d[i]))


@device
def _add(totals: Array, x: Array) -> None:
    for i in range(totals.size):
        totals[i] += x[i]


@device
def _add_rows(totals: Array, x: Array) -> None:
    """Add the rows of ``x``, which are as long as ``totals``, in the dtype of ``totals``."""
    c, at = totals.size, 0
    while at + 4 * c <= x.size:
        a, b = x[at : at + c], x[at + c : at + 2 * c]
        _add_four(totals, a, b, x[at + 2 * c : at + 3 * c], x[at + 3 * c : at + 4 * c])
        at += 4 * c
    while at < x.size:
        _add(totals, x[at : at + c])
        at += c


@device
def _means_of_groups(sums: Array, groups: int, rows: int) -> None:
    """Replace the sums of channels over rows by the mean of each channel's group."""
    width = sums.size // groups
    for first in range(0, sums.size, width):
        total = np.float64(0)
        for c in range(first, first + width):
            total += sums[c]
        for c in range(first, first + width):
            sums[c] = total / (rows * width)


@device
def _split(means: Array, mean: Array, mean_low: Array) -> None:
    """The means as sums of two numbers of a narrower dtype."""
    number = mean.dtype.type
    for c in range(mean.size):
        mean[c] = number(means[c])
    for c in range(mean_low.size):
        mean_low[c] = number(means[c] - number(means[c]))


@device
def _add_squares(sums: Array, x: Array, second_x: Array, mean: Array, mean_low: Array) -> None:
    for c in range(sums.size):
        first = distance_from(x[c], mean[c], mean_low[c])
        second = distance_from(second_x[c], mean[c], mean_low[c])
        sums[c] += first * first + second * second


@device
def _add_last_squares(sums: Array, x: Array, mean: Array, mean_low: Array) -> None:
    for c in range(sums.size):
        distance = distance_from(x[c], mean[c], mean_low[c])
        sums[c] += distance * distance


@device
def _add_products(
    sums: Array,
    dy: Array,
    second_dy: Array,
    x: Array,
    second_x: Array,
    mean: Array,
    mean_low: Array,
) -> None:
    for c in range(sums.size):
        first = distance_from(x[c], mean[c], mean_low[c])
        second = distance_from(second_x[c], mean[c], mean_low[c])
        sums[c] += dy[c] * first + second_dy[c] * second


@device
def _add_last_products(sums: Array, dy: Array, x: Array, mean: Array, mean_low: Array) -> None:
    for c in range(sums.size):
        sums[c] += dy[c] * distance_from(x[c], mean[c], mean_low[c])


@kernel_factory
def _group_moments(gradients: bool) -> Kernel:
    kinds = 4 if gradients else 2

    @kernel
    def group_moments(
        start: int, stop: int, dy: Array, x: Array, moments: Array, scratch: Array, numbers: Array
    ) -> None:
        """Chunks ``start`` to ``stop`` of the images dy and x (N, P, C); dy is not always read.

        Writes moments (N, chunks, kinds, C). ``scratch`` is (N, chunks, kinds + 1, C): two parts of
        the means, and the sums. ``numbers`` is one record of GroupNormSizes.
        """
        c, chunks, grain = numbers[0].channels, numbers[0].chunks, numbers[0].grain
        for item in range(start, stop):
            image = item // chunks
            first = (item - image * chunks) * grain
            rows = min(grain, numbers[0].pixels - first)
            first = (image * numbers[0].pixels + first) * c
            last = first + rows * c
            begin = item * kinds * c
            means = moments[begin : begin + c]
            for i in range(c):
                means[i] = 0
            _add_rows(means, x[first:last])
            _means_of_groups(means, numbers[0].groups, rows)
            begin = item * (kinds + 1) * c
            mean, mean_low = scratch[begin : begin + c], scratch[begin + c : begin + 2 * c]
            _split(means, mean, mean_low)
            sums = scratch[begin + 2 * c : begin + (kinds + 1) * c]
            zero_run(scratch, begin + 2 * c, (kinds - 1) * c)
            at = first
            while at + 2 * c <= last:
                first_x, second_x = x[at : at + c], x[at + c : at + 2 * c]
                _add_squares(sums[:c], first_x, second_x, mean, mean_low)
                if gradients:
                    first_dy, second_dy = dy[at : at + c], dy[at + c : at + 2 * c]
                    _add_products(
                        sums[2 * c : 3 * c], first_dy, second_dy, first_x, second_x, mean, mean_low
                    )
                at += 2 * c
            if at < last:
                first_x = x[at : at + c]
                _add_last_squares(sums[:c], first_x, mean, mean_low)
                if gradients:
                    _add_last_products(
                        sums[2 * c : 3 * c], dy[at : at + c], first_x, mean, mean_low
                    )
            if gradients:
                _add_rows(sums[c : 2 * c], dy[first:last])
            begin = (item * kinds + _SQUARES) * c
            sums_of_chunk = moments[begin : begin + (kinds - 1) * c]
            for i in range(sums_of_chunk.size):
                sums_of_chunk[i] = sums[i]

    return group_moments


# --- the coefficients of an image ----------------------------------------------------------------


class _Group(NamedTuple):
    """The mean of a group of an image, and 1 / √(variance + epsilon)."""

    mean: np.float64
    inverse: np.float64


@device
def _merged_group(moments: Array, first: int, kinds: int, numbers: Array) -> _Group:
    """The statistics of the group whose first channel is ``first``, from moments (chunks, …)."""
    channels, pixels, grain = numbers[0].channels, numbers[0].pixels, numbers[0].grain
    width, total = channels // numbers[0].groups, np.float64(0)
    for chunk in range(numbers[0].chunks):
        rows = min(grain, pixels - chunk * grain)
        total += rows * moments[chunk * kinds * channels + first]
    mean, squares = total / pixels, np.float64(0)
    for chunk in range(numbers[0].chunks):
        rows, at = min(grain, pixels - chunk * grain), chunk * kinds * channels + first
        distance = moments[at] - mean
        squares += rows * width * (distance * distance)
        for c in range(width):
            squares += moments[at + channels + c]
    return _Group(mean, 1 / np.sqrt(squares / (pixels * width) + numbers[0].epsilon))


@kernel
def group_coefficients(
    start: int, stop: int, moments: Array, gamma: Array, coefficients: Array, numbers: Array
) -> None:
    """Images ``start`` to ``stop`` of (N, 3, C): two parts of the mean, and gamma / deviation."""
    channels, number = numbers[0].channels, coefficients.dtype.type
    width, size = channels // numbers[0].groups, numbers[0].chunks * 2 * channels
    for n in range(start, stop):
        image_moments = moments[n * size : (n + 1) * size]
        of_image = coefficients[n * 3 * channels : (n + 1) * 3 * channels]
        for first in range(0, channels, width):
            group = _merged_group(image_moments, first, 2, numbers)
            for c in range(first, first + width):
                of_image[c] = number(group.mean)
                of_image[channels + c] = number(group.mean - number(group.mean))
                of_image[2 * channels + c] = number(group.inverse * gamma[c])


@kernel
def group_gradient_coefficients(
    start: int,
    stop: int,
    moments: Array,
    gamma: Array,
    coefficients: Array,
    totals: Array,
    numbers: Array,
) -> None:
    """Images ``start`` to ``stop`` of the coefficients (N, 5, C) of channels.

    Their rows: the mean, what rounding took from it, gamma / deviation, and the offset and slope of
    dx.

    Writes totals (N, 2, C): what each image adds to dgamma and to dbeta.
    """
    channels, chunks, number = numbers[0].channels, numbers[0].chunks, coefficients.dtype.type
    width = channels // numbers[0].groups
    count = np.float64(numbers[0].pixels * width)
    for n in range(start, stop):
        image_moments = moments[n * chunks * 4 * channels : (n + 1) * chunks * 4 * channels]
        of_image = coefficients[n * 5 * channels : (n + 1) * 5 * channels]
        of_gamma = totals[2 * n * channels : (2 * n + 1) * channels]
        of_beta = totals[(2 * n + 1) * channels : (2 * n + 2) * channels]
        for first in range(0, channels, width):
            group = _merged_group(image_moments, first, 4, numbers)
            offset, slope = np.float64(0), np.float64(0)
            for c in range(first, first + width):
                gradients, products = np.float64(0), np.float64(0)
                for chunk in range(chunks):
                    at = chunk * 4 * channels + c
                    of_chunk = image_moments[at + _GRADIENTS * channels]
                    gradients += of_chunk
                    products += (
                        image_moments[at + _PRODUCTS * channels]
                        + (image_moments[at] - group.mean) * of_chunk
                    )
                of_gamma[c], of_beta[c] = products * group.inverse, gradients
                offset += gamma[c] * gradients
                slope += gamma[c] * products
            offset *= group.inverse / count
            slope *= group.inverse * group.inverse * group.inverse / count
            for c in range(first, first + width):
                of_image[c] = number(group.mean)
                of_image[channels + c] = number(group.mean - number(group.mean))
                of_image[2 * channels + c] = number(group.inverse * gamma[c])
                of_image[3 * channels + c] = number(offset)
                of_image[4 * channels + c] = number(slope)


# --- the pixels ----------------------------------------------------------------------------------


@ordered_device
def _normalise(x: Array, mean: Array, mean_low: Array, scale: Array, beta: Array, y: Array) -> None:
    for c in range(y.size):
        y[c] = distance_from(x[c], mean[c], mean_low[c]) * scale[c] + beta[c]


@kernel
def group_norm_rows(
    start: int, stop: int, x: Array, coefficients: Array, beta: Array, y: Array, numbers: Array
) -> None:
    """Pixels ``start`` to ``stop`` of y (N, P, C), flat, from coefficients (N, 3, C)."""
    c, pixels, row = numbers[0].channels, numbers[0].pixels, start
    shift = beta[:c]
    while row < stop:
        n = row // pixels
        of_image = coefficients[3 * n * c : 3 * (n + 1) * c]
        mean, mean_low, scale = of_image[:c], of_image[c : 2 * c], of_image[2 * c : 3 * c]
        last = min(stop, (n + 1) * pixels)
        for at in range(row * c, last * c, c):
            _normalise(x[at : at + c], mean, mean_low, scale, shift, y[at : at + c])
        row = last


@ordered_device
def _write_gradient(
    dy: Array,
    x: Array,
    mean: Array,
    mean_low: Array,
    scale: Array,
    offset: Array,
    slope: Array,
    dx: Array,
) -> None:
    for c in range(dx.size):
        correction = offset[c] + distance_from(x[c], mean[c], mean_low[c]) * slope[c]
        dx[c] = dy[c] * scale[c] - correction


@kernel
def group_norm_gradient_rows(
    start: int, stop: int, dy: Array, x: Array, coefficients: Array, dx: Array, numbers: Array
) -> None:
    """Pixels ``start`` to ``stop`` of dx (N, P, C), flat, from coefficients (N, 5, C)."""
    c, pixels, row = numbers[0].channels, numbers[0].pixels, start
    while row < stop:
        n = row // pixels
        of_image = coefficients[5 * n * c : 5 * (n + 1) * c]
        mean, mean_low, scale = of_image[:c], of_image[c : 2 * c], of_image[2 * c : 3 * c]
        offset, slope = of_image[3 * c : 4 * c], of_image[4 * c : 5 * c]
        last = min(stop, (n + 1) * pixels)
        for at in range(row * c, last * c, c):
            dx_row = dx[at : at + c]
            rows = dy[at : at + c], x[at : at + c]
            _write_gradient(*rows, mean, mean_low, scale, offset, slope, dx_row)
        row = last
