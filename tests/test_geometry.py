"""Geometry by enumeration: every number is counted, pixel by pixel, from the one relation

    ih = oh * stride_h - pad_top + kh * dilation_h

which every engine shares, so that nothing else would notice a mistake here.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastcnn.core.geometry import (
    ConvGeometry,
    PoolGeometry,
    conv_geometry,
    pads,
    pair,
    pool_geometry,
    taps,
)


def test_taps_are_the_outputs_that_meet_the_image() -> None:
    cases = product(range(4), range(6), range(1, 6), (1, 2, 3), range(5), (1, 2, 3))
    for k, out, size, stride, pad, dilation in cases:
        counted = [o for o in range(out) if 0 <= o * stride - pad + k * dilation < size]
        first, last = taps(k, out, size, stride, pad, dilation)
        assert list(range(first, last)) == counted, (k, out, size, stride, pad, dilation)
        assert 0 <= first <= last <= out


def positions(size: int, margin: int, reach: int, stride: int) -> int:
    """How many windows fit: every start is tried."""
    return sum(start + reach <= size + margin for start in range(0, size + margin, stride))


SIDES = st.integers(1, 12)
SMALL = st.integers(1, 4)
MARGIN = st.integers(0, 5)


@given(
    size=st.tuples(SIDES, SIDES),
    kernel=st.tuples(SMALL, SMALL),
    stride=st.tuples(SMALL, SMALL),
    dilation=st.tuples(SMALL, SMALL),
    margins=st.tuples(st.tuples(MARGIN, MARGIN), st.tuples(MARGIN, MARGIN)),
    channels=st.tuples(SMALL, SMALL, SMALL),
    n=st.integers(0, 3),
)
@settings(deadline=None)
def test_convolution_by_counting(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    margins: tuple[tuple[int, int], tuple[int, int]],
    channels: tuple[int, int, int],
    n: int,
) -> None:
    groups, group_ic, group_oc = channels
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    assume(all(r <= s + sum(m) for r, s, m in zip(reach, size, margins, strict=True)))
    g = conv_geometry(
        (n, *size, groups * group_ic),
        (*kernel, group_ic, groups * group_oc),
        stride=stride,
        padding=margins,
        dilation=dilation,
        groups=groups,
    )
    (top, bottom), (left, right) = margins
    oh = positions(size[0], top + bottom, reach[0], stride[0])
    ow = positions(size[1], left + right, reach[1], stride[1])
    assert g == ConvGeometry(
        n, *size, groups * group_ic, *kernel, oh, ow, groups * group_oc, *stride,
        top, bottom, left, right, *dilation, groups,
    )  # fmt: skip
    assert g.input_shape == (n, *size, groups * group_ic)
    assert g.filter_shape == (*kernel, group_ic, groups * group_oc)
    assert g.output_shape == (n, oh, ow, groups * group_oc)
    assert (g.group_ic, g.group_oc) == (group_ic, group_oc)
    assert g.depthwise == (groups > 1 and group_ic == 1)
    products = sum(
        0 <= o * stride[0] - top + kh * dilation[0] < size[0]
        and 0 <= p * stride[1] - left + kw * dilation[1] < size[1]
        for o, p, kh, kw in product(range(oh), range(ow), range(kernel[0]), range(kernel[1]))
    )
    assert g.flops == 2 * n * products * group_ic * groups * group_oc


@given(
    size=st.tuples(SIDES, SIDES),
    window=st.tuples(SMALL, SMALL),
    stride=st.one_of(st.none(), st.tuples(SMALL, SMALL)),
    margins=st.tuples(st.tuples(MARGIN, MARGIN), st.tuples(MARGIN, MARGIN)),
)
def test_pooling_by_counting(
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int] | None,
    margins: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    fits = all(k <= s + sum(m) for k, s, m in zip(window, size, margins, strict=True))
    if not fits or any(max(m) >= k for k, m in zip(window, margins, strict=True)):
        with pytest.raises(ValueError, match=r"padding must be smaller|kernel spans"):
            pool_geometry((2, *size, 3), window, stride=stride, padding=margins)
        return
    g = pool_geometry((2, *size, 3), window, stride=stride, padding=margins)
    steps = stride or window
    (top, bottom), (left, right) = margins
    oh = positions(size[0], top + bottom, window[0], steps[0])
    ow = positions(size[1], left + right, window[1], steps[1])
    assert g == PoolGeometry(2, *size, 3, *window, oh, ow, *steps, top, bottom, left, right)
    assert g.input_shape == (2, *size, 3)
    assert g.output_shape == (2, oh, ow, 3)
    for o, p in product(range(oh), range(ow)):  # no window lies in the padding alone
        assert any(
            0 <= o * steps[0] - top + kh < size[0] and 0 <= p * steps[1] - left + kw < size[1]
            for kh, kw in product(range(window[0]), range(window[1]))
        )


@given(
    size=st.tuples(SIDES, SIDES),
    kernel=st.tuples(SIDES, SIDES),
    stride=st.tuples(SMALL, SMALL),
    dilation=st.tuples(SMALL, SMALL),
)
def test_same_padding(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    g = conv_geometry(
        (1, *size, 1), (*kernel, 1, 1), stride=stride, padding="same", dilation=dilation
    )
    sides = zip(
        size,
        stride,
        ((kernel[0] - 1) * dilation[0] + 1, (kernel[1] - 1) * dilation[1] + 1),
        (g.oh, g.ow),
        ((g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)),
        strict=True,
    )
    for side, step, reach, out, (before, after) in sides:
        assert out == math.ceil(side / step)
        assert before <= after <= before + 1  # the odd pixel at the end
        # The last window ends with the padding, or without any padding not beyond the image.
        assert (out - 1) * step + reach == side + before + after or before == after == 0


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        ("valid", (0, 0, 0, 0)),
        ("same", (1, 1, 0, 1)),
        (0, (0, 0, 0, 0)),
        (2, (2, 2, 2, 2)),
        ((1, 2), (1, 1, 2, 2)),
        ([1, 2], (1, 1, 2, 2)),
        (((1, 2), (3, 4)), (1, 2, 3, 4)),
        ([[1, 2], [3, 4]], (1, 2, 3, 4)),
        ((1, (3, 4)), (1, 1, 3, 4)),
    ],
)
def test_forms_of_padding(padding: object, expected: tuple[int, ...]) -> None:
    assert pads(padding, (7, 5), (3, 2), (1, 1)) == expected


def test_forms_of_pairs() -> None:
    assert pair("stride", 3) == pair("stride", (3, 3)) == pair("stride", [3, 3]) == (3, 3)
    assert pair("size", (1, 2)) == (1, 2)


def test_numpy_integers_are_integers() -> None:
    import numpy as np

    three = np.int64(3)
    assert pair("stride", three) == (3, 3)
    assert pads((three, three), (7, 5), (3, 2), (1, 1)) == (3, 3, 3, 3)
    g = conv_geometry((1, 9, 9, 3), (2, 2, 1, 3), stride=three, groups=three)
    assert all(type(number) is int for number in g)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x_shape": (5, 6, 2)}, ValueError, r"x must have the shape \(N, H, W, IC\), got \(5, 6, 2\)"),
    ({"w_shape": (3, 2, 2)}, ValueError, r"w must have the shape .* got \(3, 2, 2\)"),
    ({"w_shape": (0, 2, 2, 4)}, ValueError, r"w must have at least one .* got \(0, 2, 2, 4\)"),
    ({"w_shape": (3, 2, 2, 0)}, ValueError, r"w must have at least one .* got \(3, 2, 2, 0\)"),
    ({"w_shape": (3, 2, 3, 4)}, ValueError, r"w must have IC/groups = 2 input channels, got 3"),
    ({"x_shape": (1, 5, 6, 0)}, ValueError, r"x must have at least one channel, got \(1, 5, 6, 0"),
    ({"x_shape": (1, 0, 6, 2), "padding": 3}, ValueError, "x must be at least one pixel in height"),
    ({"x_shape": (1, 5, 0, 2), "padding": 3}, ValueError, "x must be at least one pixel in width"),
    ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    ({"stride": (1, -2)}, ValueError, r"stride must be at least 1, got \(1, -2\)"),
    ({"stride": 1.0}, TypeError, "stride must be made of integers, got 1.0"),
    ({"stride": True}, TypeError, "stride must be made of integers, got True"),
    ({"stride": (1, 2, 3)}, ValueError, r"stride must be an int or a pair .* got \(1, 2, 3\)"),
    ({"stride": "2"}, TypeError, "stride must be made of integers, got '2'"),
    ({"stride": None}, TypeError, "stride must be made of integers, got None"),
    ({"dilation": 0}, ValueError, "dilation must be at least 1, got 0"),
    ({"dilation": (1, 1.5)}, TypeError, r"dilation must be made of integers, got \(1, 1.5\)"),
    ({"groups": 0}, ValueError, "groups must be at least 1, got 0"),
    ({"groups": -1}, ValueError, "groups must be at least 1, got -1"),
    ({"groups": 3}, ValueError, "groups must divide .* got 3 for 2 input and 4 output channels"),
    ({"groups": 2.0}, TypeError, "groups must be made of integers, got 2.0"),
    ({"groups": True}, TypeError, "groups must be made of integers, got True"),
    ({"padding": "full"}, ValueError, "padding must be .* got 'full'"),
    ({"padding": -1}, ValueError, "padding must not be negative, got -1"),
    ({"padding": ((0, 1), (0, -1))}, ValueError, r"padding must not be negative, got \(\(0, 1\)"),
    ({"padding": (1, 2, 3)}, ValueError, r"padding must be .* got \(1, 2, 3\)"),
    ({"padding": ((1, 2, 3), 1)}, ValueError, r"padding must be .* got \(\(1, 2, 3\), 1\)"),
    ({"padding": 1.5}, TypeError, "padding must be made of integers, got 1.5"),
    ({"padding": ("same", 1)}, TypeError, r"padding must be made of integers, got \('same', 1\)"),
    ({"padding": None}, TypeError, "padding must be made of integers, got None"),
    ({"w_shape": (6, 2, 2, 4)}, ValueError, "kernel spans 6 pixels in height .* image's 5"),
    ({"w_shape": (3, 7, 2, 4)}, ValueError, "kernel spans 7 pixels in width .* image's 6"),
    ({"dilation": 3}, ValueError, "kernel spans 7 pixels in height .* image's 5"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_convolution_errors(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    right: dict[str, Any] = {"x_shape": (1, 5, 6, 2), "w_shape": (3, 2, 2, 4)}
    conv_geometry(**right)
    with pytest.raises(error, match=message):
        conv_geometry(**{**right, **wrong})


POOL_WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x_shape": (5, 6, 2)}, ValueError, r"x must have the shape \(N, H, W, C\), got \(5, 6, 2\)"),
    ({"x_shape": (1, 5, 6, 0)}, ValueError, "x must have at least one channel"),
    ({"size": 0}, ValueError, "size must be at least 1, got 0"),
    ({"size": (2, -1)}, ValueError, r"size must be at least 1, got \(2, -1\)"),
    ({"size": 2.0}, TypeError, "size must be made of integers, got 2.0"),
    ({"size": None}, TypeError, "size must be made of integers, got None"),
    ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
    ({"stride": False}, TypeError, "stride must be made of integers, got False"),
    ({"padding": 2}, ValueError, r"padding must be smaller than the window.*\(2, 2, 2, 2\)"),
    ({"padding": ((0, 0), (0, 3))}, ValueError, r"padding must be smaller .*\(0, 0, 0, 3\)"),
    ({"padding": "half"}, ValueError, "padding must be .* got 'half'"),
    ({"size": (6, 2)}, ValueError, "kernel spans 6 pixels in height"),
]


@pytest.mark.parametrize(("wrong", "error", "message"), POOL_WRONG)
def test_pooling_errors(wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    right: dict[str, Any] = {"x_shape": (1, 5, 6, 2), "size": (2, 3)}
    pool_geometry(**right)
    with pytest.raises(error, match=message):
        pool_geometry(**{**right, **wrong})


def test_turned_is_the_gradient_of_the_input() -> None:
    """Input ih and output oh meet at tap k forward just where they meet at tap K − 1 − k back."""
    for h, w, kh, kw, padding in (
        (5, 7, 3, 2, ((0, 1), (2, 0))),
        (4, 3, 1, 3, ((2, 3), (0, 1))),
        (6, 6, 5, 4, ((1, 0), (4, 5))),
    ):
        g = conv_geometry((2, h, w, 3), (kh, kw, 3, 8), padding=padding)
        back = g.turned
        assert back.input_shape == g.output_shape
        assert back.output_shape == g.input_shape
        assert back.turned == g
        for size, out, side, pad, turned_pad in (
            (h, g.oh, kh, g.pad_top, back.pad_top),
            (w, g.ow, kw, g.pad_left, back.pad_left),
        ):
            forward = {
                (o - pad + k, o, k)
                for o in range(out)
                for k in range(side)
                if 0 <= o - pad + k < size
            }
            backward = {
                (i, i - turned_pad + k, side - 1 - k)
                for i in range(size)
                for k in range(side)
                if 0 <= i - turned_pad + k < out
            }
            assert forward == backward
