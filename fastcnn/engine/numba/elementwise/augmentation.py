"""Images that are moved, each by its own map: cut at whole pixels, or turned and scaled.

Augmentation calls it between the batches of a training. An item of the kernels is an image of
(N, H, W, C). Maps between pixels are in fixed point, so that bytes are equal to the last bit on
every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastcnn.core.arguments import Array
from fastcnn.engine.numba.runtime.arrays import empty_like_type, readable
from fastcnn.engine.numba.runtime.inlining import device
from fastcnn.engine.numba.runtime.jit import kernel
from fastcnn.engine.numba.runtime.threads import parallel_for
from fastcnn.engine.numba.runtime.types import Kernel, Number

FRACTION_BITS = 16
"""Bits of the fraction of a position; bytes are blended with the first eight of them."""
_FRACTION = (1 << FRACTION_BITS) - 1


def cut_out(
    images: Array, size: tuple[int, int], corners: Array, flips: Array, fill: float
) -> Array:
    """Windows of the images, ``fill`` beyond their borders.

    Args:
        images: (N, H, W, C).
        size: height and width of the windows.
        corners: int64 (N, 2), the image's row and column at the window's first pixel.
        flips: bool (N,), which images to mirror first, left to right.
        fill: a number of the images' dtype.
    """
    n, _, _, channels = images.shape
    windows = empty_like_type(images, n, *size, channels)
    parallel_for(
        _cut_images,
        n,
        windows.size,
        readable(images),
        windows,
        corners,
        flips,
        images.dtype.type(fill),
    )
    return windows


def blend(images: Array, size: tuple[int, int], maps: Array, fill: float) -> Array:
    """Each output pixel from the four pixels around its position in the image.

    Args:
        images: (N, H, W, C).
        size: height and width of the results.
        maps: int64 (N, 2, 3) in units of 2⁻¹⁶ pixel. The position of pixel (i, j) is row
            ``maps[n, 0] @ (i, j, 1)`` and column ``maps[n, 1] @ (i, j, 1)`` of the image.
        fill: the value of pixels beyond the borders, a number of the images' dtype.
    """
    n, _, _, channels = images.shape
    results = empty_like_type(images, n, *size, channels)
    function = _blend_bytes if images.dtype.kind == "u" else _blend_floats
    parallel_for(
        function, n, 10 * results.size, readable(images), results, maps, images.dtype.type(fill)
    )
    return results


@kernel
def _cut_images(
    start: int, stop: int, images: Array, windows: Array, corners: Array, flips: Array, fill: Number
) -> None:
    """Cut windows (N, rows, columns, C) out of some images (N, H, W, C)."""
    _, height, width, channels = images.shape
    rows, columns = windows.shape[1:3]
    for n in range(start, stop):
        top, left = corners[n, 0], corners[n, 1]
        first, last = max(-left, 0), min(width - left, columns)
        for i in range(rows):
            y = top + i
            if y < 0 or y >= height or first >= last:
                windows[n, i] = fill
                continue
            windows[n, i, :first] = fill
            windows[n, i, last:] = fill
            if flips[n]:
                for j in range(first, last):
                    for c in range(channels):
                        windows[n, i, j, c] = images[n, y, width - 1 - left - j, c]
            elif channels == 1:
                for j in range(first, last):
                    windows[n, i, j, 0] = images[n, y, left + j, 0]
            else:
                for j in range(first, last):
                    for c in range(channels):
                        windows[n, i, j, c] = images[n, y, left + j, c]


@device
def _within(position: int, step: int, limit: int, count: int) -> tuple[int, int]:
    """The range of j in ``range(count)`` where ``position + j * step`` is in ``range(limit)``."""
    first, last = 0, count
    while first < last and not 0 <= position + first * step < limit:
        first += 1
    while first < last and not 0 <= position + (last - 1) * step < limit:
        last -= 1
    return first, last


@device
def _at(
    image: Array, y: int, x: int, height: int, width: int, step: int, c: int, fill: Number
) -> Any:
    """The number of channel ``c`` at row ``y`` and column ``x``; ``fill`` beyond the image.

    ``image`` is (H, W, C), flat; ``step`` is the number of channels.
    """
    if y < 0 or y >= height or x < 0 or x >= width:
        return fill
    return image[(y * width + x) * step + c]


@device
def _mixed_bytes(a: Number, b: Number, c: Number, d: Number, y: int, x: int) -> int:
    """The mean of the upper pixels a, b and the lower c, d, weighted by the fractions of y, x."""
    down, right = (y >> 8) & 255, (x >> 8) & 255
    upper = (int(a) << 8) + (int(b) - int(a)) * right
    lower = (int(c) << 8) + (int(d) - int(c)) * right
    return ((upper << 8) + (lower - upper) * down + 32768) >> 16


@device
def _mixed_floats(a: Any, b: Any, c: Any, d: Any, y: int, x: int) -> Any:
    """As :func:`_mixed_bytes` for floats; the NaN of a pixel counts even if its weight is 0."""
    unit = type(a)(1 / (1 << FRACTION_BITS))
    down, right = type(a)(y & _FRACTION) * unit, type(a)(x & _FRACTION) * unit
    upper = a + right * (b - a)
    lower = c + right * (d - c)
    return upper + down * (lower - upper)


def _blender(mixed: Callable[..., Any]) -> Kernel:
    """The kernel of :func:`blend` that computes the mean of four pixels by ``mixed``."""

    @device
    def blend_at_border(
        image: Array, y: int, x: int, height: int, width: int, step: int, c: int, fill: Number
    ) -> Any:
        top, left = y >> FRACTION_BITS, x >> FRACTION_BITS
        return mixed(
            _at(image, top, left, height, width, step, c, fill),
            _at(image, top, left + 1, height, width, step, c, fill),
            _at(image, top + 1, left, height, width, step, c, fill),
            _at(image, top + 1, left + 1, height, width, step, c, fill),
            y,
            x,
        )

    @kernel
    def blend_images(
        start: int, stop: int, images: Array, results: Array, maps: Array, fill: Number
    ) -> None:
        """Compute results (N, rows, columns, C) from some images (N, H, W, C)."""
        _, height, width, channels = images.shape
        columns = results.shape[2]
        below, beside = width * channels, channels
        for n in range(start, stop):
            image = images[n].reshape(-1)
            down, right = maps[n, 0, 1], maps[n, 1, 1]
            for i in range(results.shape[1]):
                y0 = maps[n, 0, 0] * i + maps[n, 0, 2]
                x0 = maps[n, 1, 0] * i + maps[n, 1, 2]
                # Between ``first`` and ``last`` all four pixels lie in the image.
                first, last = _within(y0, down, (height - 1) << FRACTION_BITS, columns)
                first_x, last_x = _within(x0, right, (width - 1) << FRACTION_BITS, columns)
                first, last = max(first, first_x), min(last, last_x)
                last = max(first, last)
                row = results[n, i].reshape(-1)
                for c in range(channels):
                    for j in range(first, last):
                        y, x = y0 + j * down, x0 + j * right
                        at = (y >> FRACTION_BITS) * below + (x >> FRACTION_BITS) * beside + c
                        row[j * channels + c] = mixed(
                            image[at],
                            image[at + beside],
                            image[at + below],
                            image[at + below + beside],
                            y,
                            x,
                        )
                    for side in range(2):
                        for j in range(last if side else 0, columns if side else first):
                            y, x = y0 + j * down, x0 + j * right
                            row[j * channels + c] = blend_at_border(
                                image, y, x, height, width, channels, c, fill
                            )

    return blend_images


_blend_bytes = _blender(_mixed_bytes)
_blend_floats = _blender(_mixed_floats)
