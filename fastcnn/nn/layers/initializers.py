"""Initialisers: the distributions of new parameters, by name.

``fan_in`` is the number of inputs that one output sums. ``fan_out`` is the number of outputs that
one input reaches.

Sources: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
networks", 2010; K. He et al., "Delving Deep into Rectifiers", arXiv:1502.01852; Y. LeCun et al.,
"Efficient BackProp", 1998; V. Zhou, "CNNs, Part 1", 2019 (``article``).
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple, TypeAlias

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.quoting import quoted

Shape: TypeAlias = tuple[int, ...]


class Spec(NamedTuple):
    """The shape and the initialiser of a parameter or a state array."""

    shape: Shape
    initializer: str
    fan_in: int = 1
    fan_out: int = 1


def _normal(spec: Spec, deviation: float, rng: np.random.Generator) -> Array:
    return rng.standard_normal(spec.shape) * deviation


def _uniform(spec: Spec, limit: float, rng: np.random.Generator) -> Array:
    return rng.uniform(-limit, limit, spec.shape)


_INITIALIZERS: dict[str, Callable[[Spec, np.random.Generator], Array]] = {
    "zeros": lambda spec, rng: np.zeros(spec.shape),
    "ones": lambda spec, rng: np.ones(spec.shape),
    "quarters": lambda spec, rng: np.full(spec.shape, 0.25),  # of PReLU's slopes, He et al.
    "glorot_uniform": lambda s, rng: _uniform(s, sqrt(6 / (s.fan_in + s.fan_out)), rng),
    "glorot_normal": lambda s, rng: _normal(s, sqrt(2 / (s.fan_in + s.fan_out)), rng),
    "he_uniform": lambda s, rng: _uniform(s, sqrt(6 / s.fan_in), rng),
    "he_normal": lambda s, rng: _normal(s, sqrt(2 / s.fan_in), rng),
    "lecun_normal": lambda s, rng: _normal(s, sqrt(1 / s.fan_in), rng),
    # N(0, 1) / 9 for the article's 3×3 filters on one channel, N(0, 1) / inputs for its softmax.
    "article": lambda s, rng: _normal(s, 1 / s.fan_in, rng),
}

INITIALIZERS = tuple(_INITIALIZERS)
"""Names of the initialisers."""


def initializer(name: str, value: object) -> str:
    """``value`` if it names an initialiser; otherwise a ``ValueError`` that names the argument.

    >>> initializer("kernel_initializer", "he_normal")
    'he_normal'
    """
    if not isinstance(value, str) or value not in _INITIALIZERS:
        raise ValueError(f"{name} must be one of {', '.join(INITIALIZERS)}, got {quoted(value)}")
    return value


@unreported
def draw(spec: Spec, rng: np.random.Generator, dtype: np.dtype[np.floating]) -> Array:
    """A new array for ``spec``, drawn in float64 and rounded to ``dtype``.

    >>> draw(Spec((2, 3), "ones"), np.random.default_rng(0), np.dtype("float32")).sum()
    np.float32(6.0)
    """
    return _INITIALIZERS[spec.initializer](spec, rng).astype(dtype)
