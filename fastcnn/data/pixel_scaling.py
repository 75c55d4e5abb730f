"""The scaling of bytes as pixels, which belongs to a model and travels with it."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import DTypeLike

from fastcnn.core.arguments import Array
from fastcnn.core.float_errors import unreported
from fastcnn.core.json_arrays import JsonObject
from fastcnn.core.quoting import quoted

_MOST_CHANNELS = 1 << 16


@dataclass(frozen=True)
class Scaling:
    """The scaling of bytes (uint8) to ``(x / 255 − mean) / std``, for all pixels or each channel.

    ``model.scaling`` is one of these, by default ``Scaling(0.5)``, which is ``x / 255 − 0.5``.
    ``Scaling()`` is ``x / 255``.

    Args:
        mean: a number, or one for each channel: what is subtracted from ``x / 255``.
        std: a number above 0, or one for each channel: what the difference is divided by.

    Raises:
        TypeError, ValueError: no finite numbers, a ``std`` that is not above 0, or ``mean`` and
            ``std`` for different numbers of channels.

    Example:
        >>> Scaling().of(np.array([[0, 255]], np.uint8), np.float32)
        array([[0., 1.]], dtype=float32)
        >>> print(Scaling(0.5), "or", Scaling((0.48, 0.46, 0.41), (0.23, 0.22, 0.23)))
        x / 255 - 0.5 or (x / 255 - (0.48, 0.46, 0.41)) / (0.23, 0.22, 0.23)
    """

    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        if np.min(self.std) <= 0:
            raise ValueError(f"std must be above 0, got {quoted(self.std)}")
        both = isinstance(self.mean, tuple) and isinstance(self.std, tuple)
        if both and np.shape(self.mean) != np.shape(self.std):
            raise ValueError(
                f"mean and std must be for as many channels, got {np.size(self.mean)} and "
                f"{np.size(self.std)}"
            )

    @property
    def channels(self) -> int | None:
        """The number of channels that it is for; None if it is for any number."""
        for numbers in (self.mean, self.std):
            if isinstance(numbers, tuple):
                return len(numbers)
        return None

    @property
    def low(self) -> float:
        """The smallest number that a byte becomes."""
        return float((-np.asarray(self.mean) / self.std).min())

    @property
    def high(self) -> float:
        """The largest number that a byte becomes."""
        return float(((1 - np.asarray(self.mean)) / self.std).max())

    def factors(self, dtype: DTypeLike) -> tuple[Array, Array]:
        """The factor of each byte, and what is subtracted from the product; () or (C,).

        Both are rounded to ``dtype`` once, and so are the product and the difference.
        """
        std = np.asarray(self.std, np.float64)
        return np.asarray(1 / (255 * std), dtype), np.asarray(np.asarray(self.mean) / std, dtype)

    @unreported
    def of(self, array: Array, dtype: DTypeLike) -> Array:
        """Bytes (N, …, C), scaled: a new C-contiguous array of ``dtype``."""
        factor, subtrahend = self.factors(dtype)
        scaled: Array = np.multiply(array, factor, dtype=dtype, order="C")
        scaled -= subtrahend
        return scaled

    def as_dict(self) -> JsonObject:
        """The constructor's arguments as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in (("mean", self.mean), ("std", self.std))
        }

    def __str__(self) -> str:
        shifted = "x / 255" if self.mean == 0 else f"x / 255 - {_shown(self.mean)}"
        if self.std == 1:
            return shifted
        return f"({shifted}) / {_shown(self.std)}"


def scaling_from(record: object) -> Scaling:
    """The scaling from a file: the text of :data:`CENTRED`, or a result of ``as_dict``.

    Raises ``ValueError`` or ``TypeError`` for anything else.

    >>> scaling_from("x / 255 - 0.5") == CENTRED, scaling_from({"mean": 0.0, "std": 1.0})
    (True, Scaling(mean=0.0, std=1.0))
    """
    if record == str(CENTRED):
        return CENTRED
    if not isinstance(record, dict) or record.keys() != {"mean", "std"}:
        raise ValueError(
            f"its bytes are scaled as {quoted(record)}, not as {str(CENTRED)!r} or by mean and std"
        )
    return Scaling(**record)


def check_channels(scaling: Scaling, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` where it is for another number of channels than samples have."""
    if scaling.channels not in (None, shape[-1]):
        raise ValueError(
            f"scaling must be for {shape[-1]} channels, as the model's inputs of shape {shape}, "
            f"got {scaling!r}"
        )


def _numbers(name: str, value: object) -> float | tuple[float, ...]:
    """A number, or a tuple of numbers of a sequence."""
    if isinstance(value, tuple | list | np.ndarray) and np.ndim(value) == 1:
        if not 0 < len(value) <= _MOST_CHANNELS:
            raise ValueError(f"{name} must have a number for each channel, got {len(value)}")
        return tuple(_number(name, one) for one in value)
    return _number(name, value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(
            f"{name} must be a number, or a list of one for each channel, got {quoted(value)}"
        )
    if not abs(value) < 1e30 or not isfinite(value):  # type: ignore[operator]
        raise ValueError(f"{name} must be finite, got {quoted(value)}")
    return float(value)


def _shown(value: float | tuple[float, ...]) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(f'{one:g}' for one in value)})"
    return f"{value:g}"


CENTRED = Scaling(0.5)
"""The default scaling, ``x / 255 − 0.5``, as in the article."""
