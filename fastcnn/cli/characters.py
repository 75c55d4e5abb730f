"""Images and lists of numbers as characters, as wide as a terminal allows."""

from __future__ import annotations

import shutil
import sys
from textwrap import wrap

import numpy as np
from numpy.typing import NDArray

from fastcnn.core.arguments import Array
from fastcnn.data.pictures import drawing

_SHADES = " ░▒▓█"
_NARROWEST = 40


def terminal_width() -> int:
    """Columns of the terminal, or of ``COLUMNS``; 80 where there is neither."""
    return max(_NARROWEST, shutil.get_terminal_size((80, 24)).columns)


def wrapped(line: str, width: int, indent: str = "  ") -> list[str]:
    """A sentence in lines for a terminal, broken at spaces; one line where the output is a file.

    >>> wrapped("scaled to 2×20, as in MNIST", 14)
    ['  scaled to 2×20, as in MNIST']
    """
    if not sys.stdout.isatty():
        return [indent + line]
    return wrap(line, width, initial_indent=indent, subsequent_indent=indent + "  ")


def shaded(image: Array, columns: int, low: float, high: float) -> list[str]:
    """An image (H, W) as lines of at most ``columns`` characters, each for two rows of pixels.

    A larger image is reduced by means over boxes. ``low`` is blank, ``high`` is full.

    >>> shaded(np.array([[0.0, 1.0, 0.5, 0.0]] * 2), 4, 0.0, 1.0)
    [' █▒ ']
    >>> shaded(np.array([[0.0, 1.0, 0.5, 0.0]] * 4), 2, 0.0, 1.0)
    ['▒░']
    """
    values = _bytes(np.asarray(image, np.float64), low, high)
    factor = -(-values.shape[1] // columns)
    return drawing(_reduced(values, factor))


def strip(values: Array, columns: int, low: float, high: float) -> list[str]:
    """Numbers (N,) as shades, one character for each, in lines of at most ``columns``."""
    shades = _bytes(np.asarray(values, np.float64), low, high) / 256 * len(_SHADES)
    text = "".join(_SHADES[int(shade)] for shade in shades)
    return [text[first : first + columns] for first in range(0, len(text), columns)]


def _bytes(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Numbers from ``low`` to ``high`` as numbers from 0 to 255; constant ones are 0."""
    if not high > low:
        return np.zeros_like(values)
    return np.nan_to_num((values - low) / (high - low)).clip(0, 1) * 255


def _reduced(values: NDArray[np.float64], factor: int) -> NDArray[np.float64]:
    """Means over boxes of ``factor`` × ``factor`` pixels; those at the ends may be smaller."""
    if factor == 1:
        return values
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], factor)
        counts = np.diff(np.append(starts, values.shape[axis]))
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / (counts[:, None] if axis == 0 else counts)
    return values
