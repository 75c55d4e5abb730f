"""The numbers in the arrays of a case, reproducible from the case's name and a seed.

- ``exact``: small integers. Every product and every partial sum, in any order, is an integer that
  the dtype holds. So there is one right answer for all algorithms, and engines must agree on it to
  the last bit. For means, the integers are multiples of every divisor. Small integers also tie
  often, which tests the rule for the first maximum.
- ``float``: normal numbers, on which engines may differ by the roundings of their order of
  summation.
- ``wide``: numbers up to 30 times as far from 0, where exponentials vanish.
- ``special``: small integers among NaN and infinities, for operations that only select.
- ``shifted``: rows around +800 and −800, each with one class far below the others. An exponential
  overflows unless the row's maximum is subtracted first.
- ``long``: numbers that a float32 sum of 2¹⁵ or more rounds down, each by almost half of its
  spacing, so that the errors add up. For functions that subtract a mean, numbers far from 0, whose
  squares would lose these digits.
- ``digits``: real MNIST digits, and parameters from the article's distributions.

No array is constant, so that results of zeros cannot pass. All arrays are read-only, so that an
engine that writes to its inputs raises an error.
"""

from __future__ import annotations

from math import isqrt, lcm
from zlib import crc32

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import PoolGeometry
from fastcnn.proof.article_net import clear_maxima
from fastcnn.proof.bounds import sum_lengths
from fastcnn.proof.problems import Case, Problem, Shape

MODES = ("exact", "float", "wide", "special", "shifted", "long", "digits")

_LARGEST = 4  # of the small integers, so few that maxima tie


def make_arrays(case: Case, seed: int) -> dict[str, Array]:
    """The arrays of a case, by the names of the function's arguments.

    >>> from fastcnn.proof.problems import case_named
    >>> arrays = make_arrays(case_named("dense/3x17-to-33/float32/exact"), seed=0)
    >>> arrays["w"].shape, arrays["w"].dtype, bool((arrays["w"] == arrays["w"].round()).all())
    ((17, 33), dtype('float32'), True)
    """
    rng = np.random.default_rng([seed, crc32(case.name.encode())])
    if case.mode == "digits":
        arrays = _digits(case, rng)
    else:
        arrays = {
            name: _draw(rng, case, name, shape) for name, shape in case.problem.arrays.items()
        }
    for name, array in arrays.items():
        if array.dtype.kind == "f" or name not in ("labels", "mask"):
            arrays[name] = np.asarray(array, case.dtype)
        arrays[name].setflags(write=False)
    return arrays


def _draw(rng: np.random.Generator, case: Case, name: str, shape: Shape) -> Array:
    if name == "labels" and len(shape) == 2:
        return _probabilities(rng, shape)
    if name == "labels":
        classes = case.problem.arrays["logits"][1]
        return rng.integers(classes, size=shape)
    if name == "mask":
        return rng.random(shape) < 0.6
    if name == "variance":
        return rng.random(shape) + 0.1
    if case.mode in ("float", "wide"):
        far = rng.uniform(1, 30, shape) if case.mode == "wide" and name == "x" else 1
        return np.asarray(rng.standard_normal(shape) * far)
    if case.mode == "long":
        return _lost_in_long_sums(rng, case, name, shape)
    if case.mode == "shifted":
        return _shifted(rng, shape) if name in ("x", "logits") else rng.standard_normal(shape)
    integers = _small_integers(rng, shape, case)
    if case.mode == "special" and name in ("x", "a", "b"):
        _sprinkle(rng, integers)
    elif case.mode not in ("exact", "special"):
        raise ValueError(f"{case.name}: mode must be one of {', '.join(MODES)}")
    return integers


def _small_integers(rng: np.random.Generator, shape: Shape, case: Case) -> Array:
    terms = max(1, *sum_lengths(case.problem))
    unit = _divisors(case.problem)
    exact_below = 2 ** (np.finfo(case.dtype).nmant + 1)
    # A sum of ``terms`` products of two of them, in any order, stays below the largest exact
    # integer.
    largest = min(_LARGEST, isqrt(exact_below // (terms * unit)) - 1)
    if largest < 1:
        raise ValueError(f"{case.name}: sums of {terms} terms are too long to be exact")
    while True:
        values = np.asarray(rng.integers(-largest, largest + 1, size=shape), np.float64)
        if values.size == 0 or (values.any() and (values.size == 1 or np.ptp(values) > 0)):
            return np.asarray(values * unit)


def _divisors(problem: Problem) -> int:
    """A common multiple of all divisors of an average pooling; 1 for other operations."""
    g = problem.geometry
    if not isinstance(g, PoolGeometry) or not problem.op.startswith("avg"):
        return 1
    down = {
        min(o * g.stride_h - g.pad_top + g.kh, g.h) - max(o * g.stride_h - g.pad_top, 0)
        for o in range(g.oh)
    }
    across = {
        min(o * g.stride_w - g.pad_left + g.kw, g.w) - max(o * g.stride_w - g.pad_left, 0)
        for o in range(g.ow)
    }
    return lcm(*(a * b for a in down for b in across))


def _sprinkle(rng: np.random.Generator, array: Array) -> None:
    """Write NaN and both infinities over about a quarter of the array."""
    dice = rng.integers(12, size=array.shape)
    array[dice == 0] = np.nan
    array[dice == 1] = np.inf
    array[dice == 2] = -np.inf


def _lost_in_long_sums(rng: np.random.Generator, case: Case, name: str, shape: Shape) -> Array:
    if case.op in ("batch_norm", "layer_norm", "group_norm"):
        return rng.standard_normal(shape) + (1e4 if name == "x" else 0)
    factors = 1 if len(case.problem.arrays) == 1 else 2
    beyond_one = rng.uniform(0.4, 0.5, shape) / 256  # above 2¹⁵ the spacing is 1/256
    return np.asarray(1 + beyond_one / factors)


def _shifted(rng: np.random.Generator, shape: Shape) -> Array:
    rows = 3 * rng.standard_normal(shape)
    rows[::2] += 800
    rows[1::2] -= 800
    if shape[1] > 2:
        rows[:, 1] -= 2000
    return rows


def _probabilities(rng: np.random.Generator, shape: Shape) -> Array:
    """Rows that add up to 1. A third of the classes, but not the first, are 0."""
    numbers: Array = rng.random(shape)
    numbers[:, 1:] *= rng.random(shape)[:, 1:] < 2 / 3
    numbers /= numbers.sum(axis=1, keepdims=True)
    return numbers


def _digits(case: Case, rng: np.random.Generator) -> dict[str, Array]:
    """Test digits in the article's range, −0.5 to 0.5, its parameters, and a bias.

    Digits on which rounding may change the maximum of a window are left out, because their
    gradients have no single right answer.
    """
    from fastcnn.data.datasets import load_mnist

    _, (images, labels) = load_mnist()
    shapes = case.problem.arrays
    count = shapes["x"][0]
    filters = rng.standard_normal(shapes["filters"]) / 9
    drawn = rng.permutation(len(images))[: 4 * count + 16]
    x = (images[drawn, :, :, None] / 255 - 0.5).astype(case.dtype)
    indices = np.flatnonzero(clear_maxima(x, filters.astype(case.dtype)))[:count]
    if len(indices) < count:
        raise ValueError(f"{case.name}: the data set has too few images, {len(images)}")
    return {
        "x": x[indices],
        "labels": labels[drawn[indices]],
        "filters": filters,
        "weights": rng.standard_normal(shapes["weights"]) / shapes["weights"][0],
        "bias": rng.standard_normal(shapes["bias"]) / 10,
    }
