"""Sizes, padding and work counts of convolutions and poolings: integers only.

All engines take these numbers from here, the specification included. Therefore this file is tested
on its own, by enumeration. A geometry is a ``NamedTuple`` of plain integers: the registry hashes
it, and Numba reads its fields by name.

All functions follow from one relation. Output row ``oh`` and filter row ``kh`` meet at input row

    ih = oh * stride_h - pad_top + kh * dilation_h

If ``ih`` is outside ``0 <= ih < H``, it lies in the padding. Columns follow the same relation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import index
from typing import Literal, NamedTuple, TypeAlias

from fastcnn.core.quoting import quoted

MOST = 2**31 - 1
"""Largest stride, dilation, window or padding."""
_MOST_BITS = 128  # of an argument, because Python does not print integers of thousands of digits

Pair: TypeAlias = int | tuple[int, int]
Padding: TypeAlias = (
    Literal["valid", "same"] | int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]
)


class ConvGeometry(NamedTuple):
    """All the integers of one convolution, NHWC by HWIO; made by :func:`conv_geometry`.

    ``n, h, w, ic`` are the input's sides, ``kh, kw`` the filter's, ``oh, ow, oc`` the output's.
    The filters have the shape ``(kh, kw, ic // groups, oc)``. The record is flat, with more fields
    than others, because choosers unpack it, compare it and keep it as a key.
    """

    n: int
    h: int
    w: int
    ic: int
    kh: int
    kw: int
    oh: int
    ow: int
    oc: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    dilation_h: int
    dilation_w: int
    groups: int

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of ``x`` and ``dx``: (N, H, W, IC)."""
        return self.n, self.h, self.w, self.ic

    @property
    def filter_shape(self) -> tuple[int, int, int, int]:
        """Shape of ``w`` and ``dw``: (KH, KW, IC/groups, OC)."""
        return self.kh, self.kw, self.ic // self.groups, self.oc

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of ``y`` and ``dy``: (N, OH, OW, OC)."""
        return self.n, self.oh, self.ow, self.oc

    @property
    def group_ic(self) -> int:
        """Input channels of one group."""
        return self.ic // self.groups

    @property
    def group_oc(self) -> int:
        """Output channels of one group."""
        return self.oc // self.groups

    @property
    def depthwise(self) -> bool:
        """Whether each group has one input channel (the output may have several per group)."""
        return self.groups == self.ic and self.groups > 1

    @property
    def turned(self) -> ConvGeometry:
        """The convolution of ``dy`` that gives the input's gradient, if stride and dilation are 1.

        Its filters are turned by 180°, and their input and output channels are exchanged. If the
        padding is larger than the filter's reach, the new padding is negative: no input meets these
        rows of ``dy``.
        """
        return self._replace(
            h=self.oh,
            w=self.ow,
            ic=self.oc,
            oh=self.h,
            ow=self.w,
            oc=self.ic,
            pad_top=self.kh - 1 - self.pad_top,
            pad_bottom=self.kh - 1 - self.pad_bottom,
            pad_left=self.kw - 1 - self.pad_left,
            pad_right=self.kw - 1 - self.pad_right,
        )

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiply-add counts as 2, a product with padding as 0."""
        rows = sum(
            len(range(*taps(kh, self.oh, self.h, self.stride_h, self.pad_top, self.dilation_h)))
            for kh in range(self.kh)
        )
        columns = sum(
            len(range(*taps(kw, self.ow, self.w, self.stride_w, self.pad_left, self.dilation_w)))
            for kw in range(self.kw)
        )
        return 2 * self.n * rows * columns * self.group_ic * self.oc


class PoolGeometry(NamedTuple):
    """All the integers of one pooling, NHWC; made by :func:`pool_geometry`.

    Each window holds at least one pixel of the image: padding is smaller than the window.
    """

    n: int
    h: int
    w: int
    c: int
    kh: int
    kw: int
    oh: int
    ow: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of ``x`` and ``dx``: (N, H, W, C)."""
        return self.n, self.h, self.w, self.c

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Shape of ``y`` and ``dy``: (N, OH, OW, C)."""
        return self.n, self.oh, self.ow, self.c


def taps(k: int, out: int, size: int, stride: int, pad: int, dilation: int) -> tuple[int, int]:
    """Half-open range of output positions at which filter position ``k`` meets the image.

    Along one side, these are all ``o`` in ``range(out)`` with ``0 <= o * stride - pad + k *
    dilation < size``. The range may be empty (first == last).

    >>> taps(0, 5, 5, 1, 1, 1), taps(2, 5, 5, 1, 1, 1)
    ((1, 5), (0, 4))
    """
    offset = k * dilation - pad
    first = max(0, -(offset // stride))
    last = min(out, (size - 1 - offset) // stride + 1)
    return min(first, out), max(min(first, out), last)


def pair(name: str, value: object, least: int = 1) -> tuple[int, int]:
    """``value`` as (vertical, horizontal): an int stands for both sides.

    Raises ``TypeError`` unless ``value`` is an integer or a pair of integers, and ``ValueError`` if
    one is below ``least``. Both name the argument.

    >>> pair("stride", 2), pair("stride", (2, 1))
    ((2, 2), (2, 1))
    """
    both = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(both) != 2:
        raise ValueError(
            f"{name} must be an int or a pair (vertical, horizontal), got {quoted(value)}"
        )
    first, second = (integer(name, side, value) for side in both)
    if first < least or second < least:
        raise ValueError(f"{name} must be at least {least}, got {quoted(value)}")
    if first > MOST or second > MOST:
        raise ValueError(f"{name} must be at most {MOST}, got {quoted(value)}")
    return first, second


def pads(
    padding: object, size: tuple[int, int], reach: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int, int, int]:
    """``padding`` as (top, bottom, left, right), for an image of ``size``.

    ``reach`` is the number of pixels that the filter or window spans, ``(K - 1) * dilation + 1``.
    "valid" pads nothing. "same" pads so that the output has ⌈size / stride⌉ pixels, with the odd
    pixel of padding at the end. An int pads all four sides, a pair means (vertical, horizontal),
    and a pair of pairs pads each side.

    >>> pads("same", (28, 28), (3, 4), (1, 1))
    (1, 1, 1, 2)
    >>> pads(((0, 1), (2, 3)), (28, 28), (3, 3), (1, 1))
    (0, 1, 2, 3)
    """
    expected = '"valid", "same", an int, (vertical, horizontal) or ((top, bottom), (left, right))'
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0, 0, 0
        if padding != "same":
            raise ValueError(f"padding must be {expected}, got {quoted(padding)}")
        totals = [
            max((-(-side // step) - 1) * step + span - side, 0)
            for side, span, step in zip(size, reach, stride, strict=True)
        ]
        (top, left) = (total // 2 for total in totals)
        return top, totals[0] - top, left, totals[1] - left
    return four_sides("padding", padding, expected)


def four_sides(name: str, value: object, expected: str) -> tuple[int, int, int, int]:
    """``value`` as pixels at the (top, bottom, left, right).

    An int stands for all four sides, a pair means (vertical, horizontal), and a pair of pairs means
    each side. Raises ``TypeError`` or ``ValueError`` that names the argument; ``expected`` says
    which forms it may have.

    >>> four_sides("cropping", (1, (2, 3)), "an int or a pair")
    (1, 1, 2, 3)
    """
    sides = value if isinstance(value, Sequence) else (value, value)
    if isinstance(value, str) or len(sides) != 2:
        raise ValueError(f"{name} must be {expected}, got {quoted(value)}")
    ends: list[int] = []
    for side in sides:
        if isinstance(side, Sequence) and not isinstance(side, str):
            if len(side) != 2:
                raise ValueError(f"{name} must be {expected}, got {quoted(value)}")
            ends += [integer(name, end, value) for end in side]
        else:
            ends += [integer(name, side, value)] * 2
    if min(ends) < 0:
        raise ValueError(f"{name} must not be negative, got {quoted(value)}")
    if max(ends) > MOST:
        raise ValueError(f"{name} must be at most {MOST}, got {quoted(value)}")
    return ends[0], ends[1], ends[2], ends[3]


def _to_images(shape: tuple[int, ...]) -> str:
    """How an array without axes for samples or channels becomes images, as the end of a message."""
    return "; one image of one channel is x[None, :, :, None]" if len(shape) == 2 else ""


def conv_geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: object = 1,
    padding: object = "valid",
    dilation: object = 1,
    groups: object = 1,
) -> ConvGeometry:
    """The geometry of ``conv2d`` on these shapes and parameters, checked.

    Raises ``ValueError`` or ``TypeError`` that names the argument, its value and valid values.

    >>> g = conv_geometry((1, 28, 28, 1), (3, 3, 1, 8))
    >>> g.output_shape, g.flops
    ((1, 26, 26, 8), 97344)
    """
    parameters = stride, padding, dilation, groups
    make = _cached_conv_geometry if _all_plain(parameters) else _conv_geometry
    return make(x_shape, w_shape, *parameters)


def _conv_geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
) -> ConvGeometry:
    if len(x_shape) != 4:
        raise ValueError(f"x must have the shape (N, H, W, IC), got {x_shape}{_to_images(x_shape)}")
    if len(w_shape) != 4:
        remedy = "; one filter of one channel is w[:, :, None, None]" if len(w_shape) == 2 else ""
        raise ValueError(f"w must have the shape (KH, KW, IC/groups, OC), got {w_shape}{remedy}")
    strides, dilations = pair("stride", stride), pair("dilation", dilation)
    count = integer("groups", groups, groups)
    n, h, w, ic = x_shape
    kh, kw, group_ic, oc = w_shape
    reach = (kh - 1) * dilations[0] + 1, (kw - 1) * dilations[1] + 1
    margins = top, bottom, left, right = pads(padding, (h, w), reach, strides)
    if ic < 1:
        raise ValueError(f"x must have at least one channel, got {x_shape}")
    if count < 1:
        raise ValueError(f"groups must be at least 1, got {count}")
    if ic % count or oc % count:
        raise ValueError(
            f"groups must divide the channels of input and output, got {count} for {ic} input "
            f"and {oc} output channels"
        )
    if min(w_shape) < 1:
        raise ValueError(f"w must have at least one element on each side, got {w_shape}")
    if group_ic * count != ic:
        raise ValueError(
            f"w must have IC/groups = {ic // count} input channels, got {group_ic} "
            f"(x {x_shape}, w {w_shape}, groups {count})"
        )
    oh = _output_side("height", h, top + bottom, reach[0], strides[0])
    ow = _output_side("width", w, left + right, reach[1], strides[1])
    return ConvGeometry(n, h, w, ic, kh, kw, oh, ow, oc, *strides, *margins, *dilations, count)


def transposed_geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    *,
    stride: object = 1,
    padding: object = "valid",
    output_padding: object = None,
    dilation: object = 1,
    groups: object = 1,
) -> ConvGeometry:
    """The geometry of ``conv2d_transpose`` on these shapes and parameters, checked.

    It is the geometry of the convolution that goes the other way: its ``input_shape`` is the shape
    of the result, its ``output_shape`` is ``x_shape``, and its ``filter_shape`` is ``w_shape``. The
    sides of the result follow from the padding, as :func:`fastcnn.conv2d_transpose` says.

    Raises ``ValueError`` or ``TypeError`` that names the argument, its value and valid values.

    >>> g = transposed_geometry((1, 14, 13, 8), (2, 2, 3, 8), stride=2)
    >>> g.output_shape, g.input_shape
    ((1, 14, 13, 8), (1, 28, 26, 3))
    """
    parameters = stride, padding, output_padding, dilation, groups
    plain = _all_plain(parameters)
    make = _cached_transposed_geometry if plain else _transposed_geometry
    return make(x_shape, w_shape, *parameters)


def _transposed_geometry(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: object,
    padding: object,
    output_padding: object,
    dilation: object,
    groups: object,
) -> ConvGeometry:
    if len(x_shape) != 4:
        raise ValueError(f"x must have the shape (N, H, W, IC), got {x_shape}{_to_images(x_shape)}")
    if len(w_shape) != 4:
        raise ValueError(f"w must have the shape (KH, KW, OC/groups, IC), got {w_shape}")
    strides, dilations = pair("stride", stride), pair("dilation", dilation)
    count = integer("groups", groups, groups)
    n, *sides, ic = x_shape
    kh, kw, group_oc, filters_ic = w_shape
    if min(x_shape[1:]) < 1:
        raise ValueError(f"x must have at least one pixel and one channel, got {x_shape}")
    if count < 1:
        raise ValueError(f"groups must be at least 1, got {count}")
    if ic % count:
        raise ValueError(
            f"groups must divide the channels of input and output, got {count} for {ic} input "
            f"and {group_oc * count} output channels"
        )
    if min(w_shape) < 1:
        raise ValueError(f"w must have at least one element on each side, got {w_shape}")
    if filters_ic != ic:
        raise ValueError(
            f"w must have IC = {ic} input channels, got {filters_ic} (x {x_shape}, w {w_shape})"
        )
    reaches = (kh - 1) * dilations[0] + 1, (kw - 1) * dilations[1] + 1
    by_name = isinstance(padding, str)
    top, bottom, left, right = pads(padding, (1, 1), (1, 1), (1, 1))
    extra = None
    if output_padding is not None:
        extra = pair("output_padding", output_padding, least=0)
        if extra[0] >= strides[0] or extra[1] >= strides[1]:
            raise ValueError(
                f"output_padding must be below the stride, {strides}, got {quoted(output_padding)}"
            )
    result = []
    for k, (size, step, reach) in enumerate(zip(sides, strides, reaches, strict=True)):
        if padding == "same":
            full_side = size * step if extra is None else (size - 1) * step + reach % 2 + extra[k]
        elif by_name and extra is None:
            full_side = (size - 1) * step + max(reach, step)
        else:
            cut = (top + bottom, left + right)[k]
            full_side = (size - 1) * step + reach - cut + (extra[k] if extra else 0)
        if full_side < 1:
            raise ValueError(
                f"padding must leave at least one pixel of the result, got {quoted(padding)}, "
                f"which leaves {full_side}"
            )
        result.append(full_side)
    g = _conv_geometry((n, *result, group_oc * count), w_shape, stride, padding, dilation, groups)
    if g.output_shape != x_shape:
        raise ValueError(
            f'output_padding must be None, or such that a convolution with padding "same" takes '
            f"the result, {result[0]} × {result[1]} pixels, back to {sides[0]} × {sides[1]}, got "
            f"{quoted(output_padding)}"
        )
    return g


def pool_geometry(
    x_shape: tuple[int, ...], size: object, *, stride: object = None, padding: object = "valid"
) -> PoolGeometry:
    """The geometry of a pooling on this shape, checked; ``stride=None`` means ``size``.

    Raises ``ValueError`` or ``TypeError`` that names the argument, its value and valid values.

    >>> pool_geometry((1, 26, 26, 8), 2).output_shape
    (1, 13, 13, 8)
    """
    parameters = size, stride, padding
    make = _cached_pool_geometry if _all_plain(parameters) else _pool_geometry
    return make(x_shape, *parameters)


def _pool_geometry(
    x_shape: tuple[int, ...], size: object, stride: object, padding: object
) -> PoolGeometry:
    if len(x_shape) != 4:
        raise ValueError(f"x must have the shape (N, H, W, C), got {x_shape}{_to_images(x_shape)}")
    window = pair("size", size)
    strides = window if stride is None else pair("stride", stride)
    n, h, w, c = x_shape
    margins = top, bottom, left, right = pads(padding, (h, w), window, strides)
    if c < 1:
        raise ValueError(f"x must have at least one channel, got {x_shape}")
    if max(top, bottom) >= window[0] or max(left, right) >= window[1]:
        raise ValueError(
            f"padding must be smaller than the window, so that each window meets the image, "
            f"got (top, bottom, left, right) = {margins} for a window of {window}"
        )
    oh = _output_side("height", h, top + bottom, window[0], strides[0])
    ow = _output_side("width", w, left + right, window[1], strides[1])
    return PoolGeometry(n, h, w, c, *window, oh, ow, *strides, *margins)


# Geometries are cached, because the same call comes again and again. Only calls with plain
# parameters use the cache: a tuple could hold True, which equals 1 but is no number of pixels.
_PLAIN = frozenset({int, str, type(None)})
_cached_conv_geometry = lru_cache(maxsize=4096, typed=True)(_conv_geometry)
_cached_transposed_geometry = lru_cache(maxsize=4096, typed=True)(_transposed_geometry)
_cached_pool_geometry = lru_cache(maxsize=4096, typed=True)(_pool_geometry)


def _all_plain(parameters: tuple[object, ...]) -> bool:
    return _PLAIN.issuperset(map(type, parameters))


def _output_side(name: str, size: int, margin: int, reach: int, stride: int) -> int:
    if size < 1:
        raise ValueError(f"x must be at least one pixel in {name}, got {size}")
    if reach > size + margin:
        raise ValueError(
            f"the kernel spans {reach} pixels in {name} (dilation included), more than the padded "
            f"image's {size + margin}; make the kernel or dilation smaller, or the padding larger"
        )
    return (size + margin - reach) // stride + 1


def integer(name: str, value: object, whole: object) -> int:
    """``value`` as an int. ``whole`` is the argument that holds ``value``, for the message."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be made of integers, got {quoted(whole)}")
    try:
        result = index(value)  # type: ignore[arg-type]  # index() refuses other types
    except TypeError:
        raise TypeError(f"{name} must be made of integers, got {quoted(whole)}") from None
    if result.bit_length() > _MOST_BITS:
        raise ValueError(f"{name} must be made of smaller integers, got {quoted(whole)}")
    return result
