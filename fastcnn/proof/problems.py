"""The matrix of problems on which engines are compared with the specification.

``fastcnn compare``, the agreement tests and the benchmarks use these problems. A problem is a
public function, the shapes of its arrays, and its parameters. A case is a problem in one dtype and
one mode of data (see :mod:`fastcnn.proof.data`). Its name can be typed, such as
``conv2d/stride-2x1/float32/exact``.

Only the article's images are square, and kernels have every form. Channels and widths are equal to,
below and above the sides of register tiles, so that all tails occur. Everything is small enough for
Python loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any, NamedTuple, TypeAlias

from fastcnn.core.broadcasting import merged_shape
from fastcnn.core.geometry import (
    ConvGeometry,
    Padding,
    PoolGeometry,
    conv_geometry,
    four_sides,
    pool_geometry,
    transposed_geometry,
)
from fastcnn.core.resizing import ResizeGeometry, resize_geometry
from fastcnn.engine.policy import squares

Shape: TypeAlias = tuple[int, ...]

CHANNELS = (1, 3, 6, 8, 10, 16, 17, 31, 33)
WIDTHS = tuple(range(5, 18))
DTYPES = ("float32", "float64")
ARTICLE_NET = "article_net"
WINOGRAD = {
    "winograd": "conv2d",
    "winograd_dx": "conv2d_input_gradient",
    "winograd_dw": "conv2d_filter_gradient",
    "winograd_transpose": "conv2d_transpose",
}
"""Names of problems with ``algorithm="winograd"``, and the functions that they call."""


@dataclass(frozen=True, eq=False)
class Problem:
    """One call of one public function, without the numbers in its arrays.

    ``op`` is the function's name, or a name of :data:`WINOGRAD` for this algorithm. ``arrays`` has
    the shape of each array argument, or of each array in the list that ``concatenate`` takes, and
    ``parameters`` has the keyword arguments. ``modes`` and
    ``dtypes`` name the data. ``quick`` says whether a quick run includes the problem.
    """

    op: str
    label: str
    arrays: Mapping[str, Shape]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    geometry: ConvGeometry | PoolGeometry | ResizeGeometry | None = None
    modes: tuple[str, ...] = ("exact", "float")
    quick: bool = False
    dtypes: tuple[str, ...] = DTYPES

    @property
    def name(self) -> str:
        """``op/label``."""
        return f"{self.op}/{self.label}"

    @property
    def function(self) -> str:
        """The public function's name."""
        return WINOGRAD.get(self.op, self.op)

    def runs_on(self, engine: str) -> bool:
        """Whether the engine has the algorithm of this problem."""
        return engine in ("naive", "numba") or self.op not in WINOGRAD


class Case(NamedTuple):
    """A problem in one dtype, on one mode of data."""

    problem: Problem
    dtype: str
    mode: str

    @property
    def op(self) -> str:
        """The operation."""
        return self.problem.op

    @property
    def name(self) -> str:
        """``op/label/dtype/mode``, the name for ``fastcnn compare --case``."""
        return f"{self.problem.name}/{self.dtype}/{self.mode}"


class _Conv(NamedTuple):
    label: str
    x: Shape
    w: Shape
    parameters: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    bias: bool = True
    relu: bool = False
    quick: bool = False


class _Pool(NamedTuple):
    label: str
    x: Shape
    parameters: dict[str, Any]
    quick: bool = False


class _Resize(NamedTuple):
    label: str
    x: Shape
    size: tuple[int, int]
    method: str
    coordinates: str
    rounding: str = "floor"
    exact: bool = True
    quick: bool = False


def _convolutions() -> Iterator[_Conv]:
    """The layers of the problems, forward and backward."""
    yield _Conv("article-3x3", (1, 28, 28, 1), (3, 3, 1, 8), bias=False, quick=True)
    yield _Conv("article-stacked", (1, 13, 14, 8), (3, 3, 8, 16), relu=True)
    yield _Conv("lenet-5x5", (2, 14, 13, 6), (5, 5, 6, 16), quick=True)

    for i, width in enumerate(WIDTHS):  # tails of a row of pixels
        ic, oc = CHANNELS[i % 9], CHANNELS[(2 * i + 3) % 9]
        padding = ("valid", "same", 1)[i % 3]
        yield _Conv(
            f"width-{width}", (1 + i % 2, 4, width, ic), (3, 2, ic, oc), {"padding": padding}
        )
    for i, ic in enumerate(CHANNELS):  # tails of a vector of channels
        oc = CHANNELS[(i + 4) % 9]
        yield _Conv(f"channels-{ic}-to-{oc}", (1, 5, 7, ic), (3, 3, ic, oc), quick=ic in (1, 17))
        yield _Conv(f"pointwise-{oc}-to-{ic}", (2, 3, 7, oc), (1, 1, oc, ic), relu=i % 2 == 0)

    def kernel(label: str, sides: Shape, parameters: dict[str, Any], **more: Any) -> _Conv:
        return _Conv(label, (2, 9, 10, 3), (*sides, 3, 10), parameters, **more)

    yield kernel("kernel-1x3", (1, 3), {})
    yield kernel("kernel-5x1", (5, 1), {})
    yield kernel("kernel-4x5", (4, 5), {}, quick=True)
    yield kernel("kernel-2x2", (2, 2), {"padding": 1})
    yield kernel("kernel-7x6", (7, 6), {"padding": (3, 2)})
    yield kernel("kernel-is-image", (9, 10), {})
    yield kernel("kernel-beyond-image", (11, 12), {"padding": 2})
    yield kernel("no-bias", (3, 2), {}, bias=False)
    yield kernel("relu", (3, 2), {}, relu=True, quick=True)
    yield kernel("relu-no-bias", (2, 3), {"padding": "same"}, bias=False, relu=True)
    yield kernel("same-even-kernel", (4, 2), {"padding": "same"})
    yield kernel("same-stride-2x3", (3, 4), {"padding": "same", "stride": (2, 3)}, quick=True)
    yield kernel("padding-four-sides", (3, 4), {"padding": ((0, 2), (3, 1))}, quick=True)
    yield kernel("padding-beyond-kernel", (2, 1), {"padding": ((4, 3), (2, 5))})
    yield kernel("stride-2x1", (4, 5), {"stride": (2, 1), "padding": (1, 3)}, quick=True)
    yield kernel("stride-1x3", (3, 3), {"stride": (1, 3)})
    yield kernel("stride-3x2", (2, 3), {"stride": (3, 2), "padding": ((1, 0), (0, 2))})
    yield kernel("stride-beyond-kernel", (1, 2), {"stride": (3, 4)})
    yield kernel("pointwise-stride-2", (1, 1), {"stride": 2})
    yield kernel("dilation-2x1", (3, 3), {"dilation": (2, 1)})
    yield kernel("dilation-1x3", (2, 3), {"dilation": (1, 3), "padding": (0, 2)})
    yield kernel(
        "dilation-and-stride",
        (3, 2),
        {"dilation": (3, 2), "stride": (2, 3), "padding": ((2, 3), (1, 0))},
        quick=True,
    )

    def grouped(
        label: str, ic: int, oc: int, groups: int, parameters: dict[str, Any], quick: bool = False
    ) -> _Conv:
        return _Conv(
            label,
            (2, 7, 6, ic),
            (3, 2, ic // groups, oc),
            {"groups": groups, **parameters},
            quick=quick,
        )

    yield grouped("groups-2", 6, 10, 2, {}, quick=True)
    yield grouped("groups-3-stride", 33, 6, 3, {"stride": (2, 1), "padding": 1})
    yield grouped("groups-2-dilation", 16, 34, 2, {"dilation": (2, 3), "padding": (1, 2)})
    yield grouped("depthwise", 17, 17, 17, {"padding": "same"}, quick=True)
    yield grouped("depthwise-33", 33, 33, 33, {"stride": (1, 2)})
    yield grouped("depthwise-times-2", 8, 16, 8, {"stride": 2, "padding": ((1, 2), (0, 1))})
    yield grouped("depthwise-dilated", 6, 18, 6, {"dilation": (2, 1)})
    # Taps and outputs at equal distances, but not side by side.
    apart = {"groups": 5, "stride": (1, 2), "dilation": (3, 2), "padding": ((3, 2), (1, 2))}
    yield _Conv("depthwise-apart", (2, 7, 9, 5), (2, 3, 1, 5), apart, quick=True)

    yield _Conv("one-pixel", (1, 1, 1, 3), (1, 1, 3, 6))
    yield _Conv("one-row", (1, 1, 17, 8), (1, 4, 8, 3), {"stride": (1, 2)})
    yield _Conv("one-column", (3, 11, 1, 3), (2, 1, 3, 17), {"padding": (1, 0)})
    yield _Conv("batch-5", (5, 6, 5, 3), (2, 3, 3, 8), quick=True)
    yield _Conv("batch-0", (0, 6, 5, 3), (2, 3, 3, 8), quick=True)


def _winograds() -> Iterator[_Conv]:
    """Layers for Winograd's filtering, with whole and incomplete squares of 4×4 and 2×2."""
    yield _Conv("whole-squares", (1, 10, 14, 16), (3, 3, 16, 32), quick=True)
    yield _Conv("edges", (2, 7, 13, 5), (3, 3, 5, 37), {"padding": 1}, relu=True)
    yield _Conv("padding-four-sides", (2, 6, 9, 33), (3, 3, 33, 17), {"padding": ((0, 4), (3, 1))})
    yield _Conv(
        "small-squares", (3, 5, 2, 17), (3, 3, 17, 8), {"padding": ((1, 2), (2, 0))}, quick=True
    )
    yield _Conv("one-row", (1, 1, 17, 3), (3, 3, 3, 6), {"padding": (1, 0)}, bias=False)
    yield _Conv("many-filters", (1, 5, 6, 131), (3, 3, 131, 130), {"padding": 1})
    yield _Conv("batch-0", (0, 6, 5, 3), (3, 3, 3, 8))


def _poolings() -> Iterator[_Pool]:
    """The windows, for the maximum, the minimum and the mean, forward and backward."""
    yield _Pool("article-2x2", (1, 26, 26, 8), {"size": 2}, quick=True)
    for i, width in enumerate(WIDTHS):
        channels = CHANNELS[(i + 5) % 9]
        size = ((2, 3), 2, (3, 2))[i % 3]
        padding: Any = ("valid", "same", (1, 0))[i // 3 % 3]
        x = (1 + i % 2, 4, width, channels)
        yield _Pool(f"width-{width}", x, {"size": size, "padding": padding}, quick=width == 17)
    for i, channels in enumerate(CHANNELS):
        stride = ((2, 1), 2, None)[i % 3]
        yield _Pool(f"channels-{channels}", (2, 5, 7, channels), {"size": (3, 2), "stride": stride})

    def window(label: str, parameters: dict[str, Any], quick: bool = False) -> _Pool:
        return _Pool(label, (2, 9, 8, 3), parameters, quick)

    yield window("overlapping-3x3", {"size": 3, "stride": 2, "padding": 1}, quick=True)
    yield window("overlapping-4x3", {"size": (4, 3), "stride": 1}, quick=True)
    yield window("same-3x2", {"size": (3, 2), "stride": (2, 1), "padding": "same"})
    yield window("same-2x3", {"size": (2, 3), "padding": "same"})
    yield window(
        "padding-four-sides",
        {"size": (3, 4), "stride": (1, 3), "padding": ((0, 2), (3, 1))},
        quick=True,
    )
    yield window("padding-at-the-top", {"size": (3, 2), "padding": ((2, 1), (0, 1))})
    yield window("gaps", {"size": (1, 2), "stride": (3, 4)})
    yield window("window-1x1", {"size": 1})
    yield window("window-is-image", {"size": (9, 8)})
    yield window("window-beyond-image", {"size": (11, 9), "padding": ((1, 2), (1, 0))})
    yield _Pool("one-row", (1, 1, 17, 6), {"size": (1, 3), "stride": (1, 2)})
    yield _Pool("batch-0", (0, 6, 5, 3), {"size": (2, 3)}, quick=True)


def _transposed() -> Iterator[_Conv]:
    """The layers of transposed convolution, forward and backward."""
    yield _Conv("unet-2x2", (2, 5, 7, 17), (2, 2, 8, 17), {"stride": 2}, quick=True)
    same: dict[str, Any] = {"padding": "same"}
    yield _Conv("same-3x3", (1, 6, 5, 8), (3, 3, 3, 8), {"stride": 2} | same, relu=True, quick=True)
    yield _Conv("same-4x3", (2, 4, 3, 6), (4, 3, 10, 6), {"stride": (2, 3)} | same)
    extra = {"stride": 2, "output_padding": 1}
    yield _Conv("same-output-padding", (1, 4, 5, 3), (3, 3, 5, 3), extra | same)
    uneven = {"stride": (3, 2), "padding": (1, 0), "output_padding": (2, 1)}
    yield _Conv("output-padding", (2, 4, 5, 6), (3, 2, 4, 6), uneven, quick=True)
    # Some pixels of the result meet no tap, and are the bias alone.
    apart = {"stride": (3, 4)}
    yield _Conv("stride-beyond-kernel", (2, 3, 4, 5), (1, 2, 6, 5), apart, quick=True)
    yield _Conv("stride-beyond-kernel-relu", (1, 3, 4, 5), (2, 1, 17, 5), {"stride": 3}, relu=True)
    sides = {"stride": (2, 1), "padding": ((1, 2), (0, 1))}
    yield _Conv("padding-four-sides", (2, 5, 4, 3), (4, 3, 10, 3), sides, bias=False)
    dilated = {"dilation": (2, 3), "stride": (1, 2), "padding": (1, 2)}
    yield _Conv("dilation-and-stride", (1, 4, 5, 6), (3, 2, 7, 6), dilated, quick=True)
    yield _Conv("groups-2", (2, 4, 5, 6), (3, 2, 5, 6), {"groups": 2, "stride": (2, 1)})
    depthwise = {"groups": 17, "stride": 2, "padding": 1, "output_padding": 1}
    yield _Conv("depthwise", (2, 5, 4, 17), (3, 3, 1, 17), depthwise, relu=True, quick=True)
    yield _Conv("depthwise-apart", (1, 3, 4, 6), (1, 2, 1, 6), {"groups": 6, "stride": (2, 3)})
    yield _Conv("two-to-one", (2, 3, 4, 8), (3, 2, 1, 8), {"groups": 4, "padding": (1, 0)})
    yield _Conv("pointwise", (2, 3, 7, 31), (1, 1, 33, 31))
    yield _Conv("channels-33-to-16", (1, 5, 6, 33), (3, 3, 16, 33), {"padding": 1}, relu=True)
    yield _Conv("one-pixel", (1, 1, 1, 3), (3, 2, 6, 3))
    yield _Conv("batch-0", (0, 3, 4, 3), (2, 2, 5, 3), {"stride": 2}, quick=True)


def _resizes() -> Iterator[_Resize]:
    """Images in another size. Where the weights are few halves in a row, sums are exact."""
    twice: tuple[Shape, tuple[int, int]] = (2, 5, 7, 3), (10, 14)
    roundings = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    for coordinates in ("half_pixel", "align_corners", "asymmetric"):
        for rounding in roundings:
            label, named = f"{coordinates}-{rounding}", (coordinates, rounding)
            yield _Resize(f"nearest-{label}-up", (2, 5, 4, 3), (8, 9), "nearest", *named)
            yield _Resize(f"nearest-{label}-down", (1, 9, 8, 2), (5, 3), "nearest", *named)
        up, down = (f"bilinear-{coordinates}-{word}" for word in ("up", "down"))
        linear = "bilinear", coordinates, "floor", False
        yield _Resize(up, (2, 5, 7, 3), (8, 9), *linear)
        yield _Resize(down, (1, 9, 8, 33), (5, 3), *linear)
    half, plain = ("bilinear", "half_pixel"), ("nearest", "asymmetric")
    yield _Resize("nearest-times-2", *twice, *plain, quick=True)
    yield _Resize("nearest-times-3x9", (1, 4, 3, 70), (12, 27), *plain)
    yield _Resize("bilinear-times-2", *twice, *half, quick=True)
    yield _Resize("bilinear-times-2-wide", (2, 4, 5, 70), (8, 10), *half)
    yield _Resize("bilinear-times-4", (1, 3, 4, 17), (12, 16), *half)
    yield _Resize("bilinear-to-half", (2, 8, 6, 16), (4, 3), *half, quick=True)
    yield _Resize("bilinear-corners", (2, 5, 7, 3), (9, 13), "bilinear", "align_corners")
    yield _Resize("bilinear-asymmetric", (1, 4, 3, 5), (8, 6), "bilinear", "asymmetric")
    yield _Resize("bilinear-to-one", (2, 4, 6, 3), (1, 1), *half)
    yield _Resize("bilinear-from-one-row", (1, 1, 2, 17), (5, 8), *half)
    yield _Resize("bilinear-one-side", (2, 3, 5, 1), (3, 10), *half)
    yield _Resize("same-size", (2, 3, 4, 6), (3, 4), *half)
    yield _Resize("batch-0", (0, 3, 4, 6), (6, 8), *half, quick=True)


_PERMUTATIONS: tuple[tuple[Shape, tuple[int, ...]], ...] = (
    ((2, 5, 7, 3), (3, 1, 2)),  # colours
    ((2, 3, 5, 7), (2, 3, 1)),
    ((2, 9, 8, 33), (3, 1, 2)),  # channels
    ((2, 33, 5, 9), (2, 3, 1)),
    ((2, 130, 70), (2, 1)),  # more than one block
    ((1, 67, 137), (2, 1)),
    ((2, 20, 2), (2, 1)),  # planes with short sides
    ((2, 2, 21), (2, 1)),
    ((1, 19, 4), (2, 1)),
    ((2, 4, 18), (2, 1)),
    ((2, 5, 6), (2, 1)),
    ((1, 8, 9), (2, 1)),
    ((2, 2, 3), (2, 1)),
    ((2, 3, 4, 5), (2, 1, 3)),  # runs
    ((1, 7, 3, 40), (2, 1, 3)),
    ((2, 4, 3, 70), (2, 1, 3)),
    ((2, 3, 4, 2, 5), (4, 2, 1, 3)),
    ((2, 3, 2, 2, 4, 3), (1, 4, 2, 5, 3)),
    ((3, 4, 5), (1, 2)),  # nothing moves
    ((2, 17), (1,)),
    ((2, 1, 6, 1), (3, 2, 1)),
    ((0, 3, 4, 2), (3, 1, 2)),
)

_BLOCKS: tuple[tuple[Shape, int], ...] = (
    ((2, 3, 4, 12), 2),
    ((1, 2, 3, 27), 3),
    ((1, 3, 2, 80), 4),
    ((2, 5, 3, 4), 2),
    ((2, 3, 2, 5), 1),
    ((0, 3, 2, 8), 2),
)

_DENSE = (
    (1, 1352, 10),
    (32, 130, 10),
    (3, 17, 33),
    (7, 263, 10),
    (5, 1, 1),
    (4, 33, 6),
    (7, 8, 31),
    (2, 10, 16),
    (17, 6, 8),
    (0, 5, 3),
    (9, 1040, 130),
)

_ROWS = ((1, 10), (3, 17), (5, 1), (33, 6), (4, 31), (2, 1000), (0, 7))

_CHANNEL_ROWS: tuple[Shape, ...] = (
    (2, 5, 7, 3),
    (33, 17),
    (700, 6),
    (2, 9, 31, 8),
    (1, 4),
    (2, 4),
    (0, 3),
)

_PRELU_ROWS: tuple[Shape, ...] = (*_CHANNEL_ROWS, (2, 5, 300), (9001, 2))

_MARGINS: tuple[tuple[str, Shape, Any], ...] = (
    ("four-sides", (2, 5, 7, 3), ((1, 2), (0, 3))),
    ("pair", (1, 3, 4, 17), (2, 1)),
    ("none", (2, 4, 3, 1), 0),
    ("batch-0", (0, 3, 2, 2), 1),
)

_MERGES: tuple[tuple[str, Shape, Shape], ...] = (
    ("equal", (2, 5, 7, 3), (2, 5, 7, 3)),
    ("channels", (2, 5, 7, 17), (2, 1, 1, 17)),
    ("pixels", (3, 4, 5, 33), (3, 4, 5, 1)),
    ("channels-first", (2, 1, 1, 6), (2, 7, 3, 6)),
    ("pixels-by-channels", (2, 3, 7, 1), (2, 1, 1, 10)),
    ("columns", (2, 5, 7, 6), (2, 1, 7, 1)),
    ("rows-and-columns", (2, 5, 1, 3), (2, 1, 4, 3)),
    ("numbers", (3, 4, 2, 5), (3, 1, 1, 1)),
    ("vectors", (4, 31), (4, 31)),
    ("many-channels", (2, 9, 2100), (2, 1, 2100)),
    ("many-pixels", (2, 40, 41, 33), (2, 1, 1, 33)),
    ("six-axes", (2, 3, 1, 2, 4, 1), (2, 1, 5, 2, 1, 3)),
    ("one-number", (1, 1), (1, 1)),
    ("batch-0", (0, 3, 4, 2), (0, 1, 1, 2)),
)

_JOINED: tuple[tuple[str, tuple[Shape, ...], int], ...] = (
    ("channels", ((2, 3, 5, 17), (2, 3, 5, 6)), -1),
    ("four", ((2, 3, 4, 1), (2, 3, 4, 8), (2, 3, 4, 33), (2, 3, 4, 3)), -1),
    ("five", ((3, 2, 1), (3, 2, 4), (3, 2, 2), (3, 2, 7), (3, 2, 5)), 2),
    ("alone", ((3, 4, 2),), -1),
    ("rows", ((2, 3, 5, 4), (2, 1, 5, 4), (2, 2, 5, 4)), 1),
    ("columns", ((2, 3, 5, 4), (2, 3, 1, 4)), -2),
    ("long-rows", ((2, 3, 91, 100), (2, 5, 91, 100)), 1),
    ("one-is-empty", ((2, 3), (2, 0), (2, 4)), 1),
    ("samples", ((2, 3), (1, 3)), 0),
    ("batch-0", ((0, 2, 3), (0, 2, 1)), -1),
)

_FEATURES: tuple[tuple[Shape, Shape], ...] = (
    ((3, 17), (17,)),
    ((2, 5, 7, 3), (3,)),
    ((2, 4, 5, 6), (4, 5, 6)),
    ((2, 3, 4, 33), (4, 33)),
    ((700, 64), (64,)),
    ((6, 1), (1,)),
    ((1, 40), (40,)),
    ((3, 4200), (4200,)),
    ((0, 3), (3,)),
)

_GROUPS: tuple[tuple[Shape, int], ...] = (
    ((2, 5, 7, 6), 3),
    ((3, 4, 5, 8), 1),
    ((2, 3, 4, 5), 5),
    ((2, 31, 9, 64), 8),
    ((4, 12), 4),
    ((1, 1, 1, 4), 2),
    ((2, 5, 3, 17), 1),
    ((3, 2, 3, 34), 17),
    ((0, 3, 2, 4), 2),
)

_RESPONSES: tuple[tuple[Shape, dict[str, Any]], ...] = (
    ((2, 5, 7, 17), {}),
    ((3, 4, 33), {"size": 5, "alpha": 0.7, "bias": 2.0}),
    ((2, 3, 6), {"size": 4, "alpha": 2.0}),
    ((7, 8), {"size": 1, "alpha": 0.5}),
    ((5, 3), {"size": 9, "alpha": 3.0, "bias": 0.5}),
    ((4, 31), {"size": 6, "alpha": 1.5, "beta": 0.5}),
    ((3, 16), {"size": 3, "alpha": 1.0, "beta": 1.2}),
    ((2, 4200), {"size": 4100, "alpha": 2.0}),
    ((0, 4), {"size": 3}),
)

_ELEMENTS: tuple[Shape, ...] = ((2, 5, 7, 3), (3, 17), (33,), (1,), (), (0, 4))


def _conv_problems(c: _Conv) -> Iterator[Problem]:
    g = conv_geometry(c.x, c.w, **c.parameters)
    dy = g.output_shape
    bias: dict[str, Shape] = {"b": (g.oc,)} if c.bias else {}
    activation = {"activation": "relu"} if c.relu else {}
    forward = {"x": c.x, "w": c.w} | bias
    yield Problem("conv2d", c.label, forward, c.parameters | activation, g, quick=c.quick)
    if c.relu:
        return  # the gradient functions have no activation
    yield Problem(
        "conv2d_backward", c.label, {"dy": dy, "x": c.x, "w": c.w}, c.parameters, g, quick=c.quick
    )
    yield Problem("conv2d_bias_gradient", c.label, {"dy": dy}, geometry=g, quick=c.quick)
    yield Problem(
        "conv2d_input_gradient",
        c.label,
        {"dy": dy, "w": c.w},
        {"x_shape": c.x} | c.parameters,
        g,
        quick=c.quick,
    )
    yield Problem(
        "conv2d_filter_gradient",
        c.label,
        {"dy": dy, "x": c.x},
        {"kernel_size": c.w[:2]} | c.parameters,
        g,
        quick=c.quick,
    )


def _transposed_problems(c: _Conv) -> Iterator[Problem]:
    g = transposed_geometry(c.x, c.w, **c.parameters)
    bias: dict[str, Shape] = {"b": (g.ic,)} if c.bias else {}
    activation = {"activation": "relu"} if c.relu else {}
    forward, both = {"x": c.x, "w": c.w} | bias, {"dy": g.input_shape, "x": c.x, "w": c.w}
    parameters = c.parameters | activation
    yield Problem("conv2d_transpose", c.label, forward, parameters, g, quick=c.quick)
    yield Problem("conv2d_transpose_backward", c.label, both, c.parameters, g, quick=c.quick)


def _other_way(c: _Conv) -> _Conv:
    """The transposed convolution that goes the other way, for a layer of stride 1."""
    g = conv_geometry(c.x, c.w, **c.parameters)
    padding = (g.pad_top, g.pad_bottom), (g.pad_left, g.pad_right)
    return c._replace(x=g.output_shape, parameters={"padding": padding})


def _winograd_problems(c: _Conv) -> Iterator[Problem]:
    """Problems of a layer. Small squares of 3×3 filters are exact on integers, because their
    matrices divide by at most 4."""
    both_ways = (*_conv_problems(c), *_transposed_problems(_other_way(c)))
    by_function = {problem.op: problem for problem in both_ways}
    for op, function in WINOGRAD.items():
        if problem := by_function.get(function):
            g = problem.geometry
            assert isinstance(g, ConvGeometry)
            cut = squares(g.turned if op in ("winograd_dx", "winograd_transpose") else g)
            exact = cut.side == 2 and g.kh == 3 and g.n > 0
            modes = ("exact", "float") if exact else ("float",)
            yield replace(problem, op=op, modes=modes, dtypes=("float32",))


def _pool_problems(p: _Pool) -> Iterator[Problem]:
    keywords = dict(p.parameters)
    g = pool_geometry(
        p.x,
        keywords["size"],
        stride=keywords.get("stride"),
        padding=keywords.get("padding", "valid"),
    )
    for kind in ("max", "min", "avg"):
        modes = ("exact", "float") if kind == "avg" else ("exact", "float", "special")
        yield Problem(f"{kind}_pool2d", p.label, {"x": p.x}, keywords, g, modes, p.quick)
        gradient = {"dy": g.output_shape, "x": p.x}
        yield Problem(f"{kind}_pool2d_backward", p.label, gradient, keywords, g, modes, p.quick)


def _dense_problems(sides: Shape) -> Iterator[Problem]:
    n, i, o = sides
    label, quick = f"{n}x{i}-to-{o}", sides in _DENSE[:3]
    arrays = {"x": (n, i), "w": (i, o)}
    with_bias = arrays | {"b": (o,)}
    yield Problem("dense", label, with_bias, quick=quick)
    yield Problem("dense", f"{label}-no-bias", arrays)
    yield Problem("dense", f"{label}-relu", with_bias, {"activation": "relu"})
    yield Problem("dense_backward", label, {"dy": (n, o)} | arrays, quick=quick)


def _row_problems(rows: Shape) -> Iterator[Problem]:
    n, classes = rows
    label, quick, modes = f"{n}x{classes}", rows in _ROWS[:2], ("float", "shifted")
    for op in ("softmax", "log_softmax"):
        yield Problem(op, label, {"x": rows}, modes=modes, quick=quick)
        yield Problem(f"{op}_backward", label, {"dy": rows, "x": rows}, modes=modes, quick=quick)
    for op in ("cross_entropy", "cross_entropy_backward"):
        for reduction in ("mean", "sum", "none"):
            yield Problem(
                op,
                f"{label}-{reduction}",
                {"logits": rows, "labels": (n,)},
                {"reduction": reduction},
                modes=modes,
                quick=quick,
            )
        soft, none = {"logits": rows, "labels": rows}, {"reduction": "none"}
        yield Problem(op, f"{label}-soft", soft, none, modes=modes, quick=quick)


def _element_problems(shape: Shape) -> Iterator[Problem]:
    label = "x".join(map(str, shape)) or "scalar"
    modes, quick = ("exact", "float", "special"), len(shape) > 2
    yield Problem("relu", label, {"x": shape}, modes=modes, quick=quick)
    yield Problem("relu_backward", label, {"dy": shape, "x": shape}, modes=modes, quick=quick)
    both = {"dy": shape, "x": shape}
    slope = {"slope": 0.25}  # a power of two: exact
    yield Problem("leaky_relu", label, {"x": shape}, slope, modes=modes, quick=quick)
    yield Problem("leaky_relu_backward", label, both, slope, modes=modes, quick=quick)
    uneven, name = {"slope": 0.3}, f"{label}-uneven"
    yield Problem("leaky_relu", name, {"x": shape}, uneven, modes=("float",))
    yield Problem("leaky_relu_backward", name, both, uneven, modes=("float",))
    smooth = _smooth_modes(shape)
    for op in ("tanh", "sigmoid"):
        yield Problem(op, label, {"x": shape}, modes=smooth, quick=quick)
        yield Problem(f"{op}_backward", label, both, modes=smooth, quick=quick)
    masked = {"x": shape, "mask": shape}
    yield Problem("dropout", label, masked, {"rate": 0.5}, modes=modes, quick=quick)
    yield Problem("dropout", f"{label}-uneven", masked, {"rate": 0.3}, modes=("float",))


def _smooth_modes(shape: Shape) -> tuple[str, ...]:
    """The modes of smooth activations. Far from 0 one number alone may be no signal."""
    return ("float",) if prod(shape) == 1 else ("float", "wide")


def _activation_problems(shape: Shape) -> Iterator[Problem]:
    """Activations by formulas: those of straight lines, then the smooth ones."""
    label = "x".join(map(str, shape)) or "scalar"
    exact, quick = ("exact", "float", "special"), len(shape) > 2
    x, both = {"x": shape}, {"dy": shape, "x": shape}

    def pair(op: str, name: str, modes: tuple[str, ...], **parameters: object) -> Iterator[Problem]:
        yield Problem(op, name, x, parameters, modes=modes, quick=quick)
        yield Problem(f"{op}_backward", name, both, parameters, modes=modes, quick=quick)

    yield from pair("clipped_relu", label, exact, top=2.0)
    yield from pair("clipped_relu", f"{label}-uneven", ("float",), top=0.7)
    yield from pair("hard_sigmoid", label, exact, slope=0.25, offset=0.5)  # powers of two: exact
    yield from pair("hard_sigmoid", f"{label}-uneven", ("float",), slope=1 / 6, offset=0.4)
    smooth = _smooth_modes(shape)
    yield from pair("hard_swish", label, smooth)
    yield from pair("elu", label, smooth, alpha=0.3)
    yield from pair("softplus", label, smooth)
    yield from pair("swish", label, smooth)
    yield from pair("gelu", label, smooth, approximate=False)
    yield from pair("gelu", f"{label}-tanh", smooth, approximate=True)


def _prelu_problems(shape: Shape) -> Iterator[Problem]:
    label, quick, modes = "x".join(map(str, shape)), len(shape) > 2, ("exact", "float", "special")
    arrays = {"x": shape, "slope": shape[-1:]}
    yield Problem("prelu", label, arrays, modes=modes, quick=quick)
    yield Problem("prelu_backward", label, {"dy": shape} | arrays, modes=modes, quick=quick)


def _padding_problems(label: str, shape: Shape, padding: Padding) -> Iterator[Problem]:
    modes, quick = ("exact", "float", "special"), label == "four-sides"
    top, bottom, left, right = four_sides("padding", padding, "margins")
    n, h, w, c = shape
    padded = n, top + h + bottom, left + w + right, c
    for op, back, name, small, large in (
        ("zero_pad2d", "zero_pad2d_backward", "padding", "x", "dy"),
        ("crop2d_backward", "crop2d", "cropping", "dy", "x"),
    ):
        parameters = {name: padding}
        for function, argument, sides in ((op, small, shape), (back, large, padded)):
            some = modes if argument == "x" else modes[:2]
            arrays = {argument: sides}
            yield Problem(function, label, arrays, parameters, modes=some, quick=quick)


def _permutation_problems(shape: Shape, order: tuple[int, ...]) -> Iterator[Problem]:
    modes, quick = ("exact", "float", "special"), len(shape) > 3
    label = f"{'x'.join(map(str, shape))}-by-{'-'.join(map(str, order))}"
    result = (shape[0], *[shape[axis] for axis in order])
    named = {"order": order}
    yield Problem("permute", label, {"x": shape}, named, modes=modes, quick=quick)
    yield Problem("permute_backward", label, {"dy": result}, named, modes=modes[:2], quick=quick)


def _block_problems(shape: Shape, block: int) -> Iterator[Problem]:
    modes, quick = ("exact", "float", "special"), shape[0] == 2
    n, h, w, c = shape
    space = n, h * block, w * block, c // block**2
    for order in ("DCR", "CRD"):
        label, parameters = f"{order}-{block}-{'x'.join(map(str, shape))}", {"block": block}
        for op, sides in (("depth_to_space", shape), ("space_to_depth", space)):
            named = parameters | {"order": order}
            yield Problem(op, label, {"x": sides}, named, modes=modes, quick=quick)


def _resize_problems(r: _Resize) -> Iterator[Problem]:
    g = resize_geometry(r.x, r.size, r.method, r.coordinates, r.rounding)
    modes: tuple[str, ...] = ("exact", "float", "special") if r.exact else ("float",)
    how = {"method": r.method, "coordinates": r.coordinates, "rounding": r.rounding}
    arrays, forward = {"x": r.x}, {"size": r.size} | how
    yield Problem("resize2d", r.label, arrays, forward, g, modes, r.quick)
    arrays, backward = {"dy": g.output_shape}, {"x_shape": r.x} | how
    yield Problem("resize2d_backward", r.label, arrays, backward, g, modes[:2], r.quick)


def _normalization_problems(shape: Shape) -> Iterator[Problem]:
    label, quick, modes = "x".join(map(str, shape)), len(shape) > 2, ("float",)
    channels = shape[-1:]
    scale = {"gamma": channels, "beta": channels}
    moments = {"mean": channels, "variance": channels}
    x = {"x": shape}
    parameters = {"epsilon": 0.01}
    back = {"dy": shape, "x": shape, "gamma": channels} | moments
    several = prod(shape[:-1]) != 1  # one value for each channel is an error: it has no variance
    if several:
        yield Problem("batch_norm", label, x | scale, parameters, modes=modes, quick=quick)
    yield Problem(
        "batch_norm_inference", label, x | scale | moments, parameters, modes=modes, quick=quick
    )
    if several:
        yield Problem("batch_norm_backward", label, back, parameters, modes=modes, quick=quick)


def _merging_problems(label: str, a: Shape, b: Shape) -> Iterator[Problem]:
    quick, modes = label in ("equal", "channels", "pixels"), ("exact", "float")
    both, dy = {"a": a, "b": b}, {"dy": merged_shape(a, b)}
    shapes = {"a_shape": a, "b_shape": b}
    for op in ("add", "subtract"):
        yield Problem(op, label, both, modes=modes, quick=quick)
        yield Problem(f"{op}_backward", label, dy, shapes, modes=modes, quick=quick)
    yield Problem("multiply", label, both, modes=modes, quick=quick)
    yield Problem("multiply_backward", label, dy | both, modes=modes, quick=quick)
    selecting = (*modes, "special")
    yield Problem("maximum", label, both, modes=selecting, quick=quick)
    yield Problem("maximum_backward", label, dy | both, modes=selecting, quick=quick)


def _joining_problems(label: str, shapes: tuple[Shape, ...], axis: int) -> Iterator[Problem]:
    quick, modes = label in ("channels", "rows"), ("exact", "float", "special")
    sizes = tuple(shape[axis] for shape in shapes)
    joined = list(shapes[0])
    joined[axis] = sum(sizes)
    arrays = dict(zip("abcde", shapes, strict=False))
    yield Problem("concatenate", label, arrays, {"axis": axis}, modes=modes, quick=quick)
    parameters = {"sizes": sizes, "axis": axis}
    dy = {"dy": tuple(joined)}
    yield Problem("concatenate_backward", label, dy, parameters, modes=modes[:2], quick=quick)


def _row_norm_problems(x: Shape, features: Shape) -> Iterator[Problem]:
    label, quick = f"{'x'.join(map(str, x))}-by-{'x'.join(map(str, features))}", len(x) > 3
    parameters, modes = {"epsilon": 0.01}, ("float",)
    arrays = {"x": x, "gamma": features, "beta": features}
    yield Problem("layer_norm", label, arrays, parameters, modes=modes, quick=quick)
    arrays = {"dy": x, "x": x, "gamma": features}
    yield Problem("layer_norm_backward", label, arrays, parameters, modes=modes, quick=quick)


def _group_norm_problems(x: Shape, groups: int) -> Iterator[Problem]:
    label, quick = f"{'x'.join(map(str, x))}-in-{groups}", x[0] == 2 and groups > 1
    parameters, modes, channels = {"groups": groups, "epsilon": 0.01}, ("float",), x[-1:]
    arrays = {"x": x, "gamma": channels, "beta": channels}
    yield Problem("group_norm", label, arrays, parameters, modes=modes, quick=quick)
    arrays = {"dy": x, "x": x, "gamma": channels}
    yield Problem("group_norm_backward", label, arrays, parameters, modes=modes, quick=quick)


def _response_problems(x: Shape, parameters: dict[str, Any]) -> Iterator[Problem]:
    label, quick, modes = "x".join(map(str, x)), len(x) > 2, ("float",)
    op = "local_response_norm"
    yield Problem(op, label, {"x": x}, parameters, modes=modes, quick=quick)
    arrays = {"dy": x, "x": x}
    yield Problem(f"{op}_backward", label, arrays, parameters, modes=modes, quick=quick)


def _long_problems() -> Iterator[Problem]:
    """Sums so long that adding in float32, term by term, would lose most of a term."""

    def of_layer(
        op: str, x: Shape, w: Shape, *names: str, quick: bool = False, **parameters: object
    ) -> Problem:
        g = conv_geometry(x, w, **parameters)
        arrays = {"x": x, "w": w, "dy": g.output_shape}
        label = f"long-{'x'.join(map(str, x))}-by-{'x'.join(map(str, w))}"
        if op == "conv2d_filter_gradient":
            parameters["kernel_size"] = w[:2]
        if op == "conv2d_input_gradient":
            parameters["x_shape"] = x
        operands = {name: arrays[name] for name in names}
        return Problem(op, label, operands, parameters, g, ("long",), quick, ("float32",))

    def of_rows(op: str, mode: str = "long", **arrays: Shape) -> Problem:
        label = f"long-{'x'.join(map(str, next(iter(arrays.values()))))}"
        parameters: dict[str, Any] = {"epsilon": 0.01} if "norm" in op else {}
        if op == "group_norm":
            parameters["groups"] = 2
        return Problem(op, label, arrays, parameters, modes=(mode,), dtypes=("float32",))

    def of_operands(op: str, a: Shape, b: Shape) -> Problem:
        label = f"long-{'x'.join(map(str, a))}-and-{'x'.join(map(str, b))}"
        arrays, parameters = {"dy": a, "a": a, "b": b}, {}
        if op == "add_backward":
            arrays, parameters = {"dy": a}, {"a_shape": a, "b_shape": b}
        return Problem(op, label, arrays, parameters, modes=("long",), dtypes=("float32",))

    yield of_layer("conv2d_bias_gradient", (1, 3000, 2001, 1), (1, 1, 1, 1), "dy", quick=True)
    yield of_layer("conv2d_bias_gradient", (2, 301, 207, 5), (1, 1, 5, 17), "dy")
    op, *both = "conv2d_filter_gradient", "dy", "x"
    yield of_layer(op, (1, 160, 403, 1), (3, 3, 1, 8), *both, quick=True)
    yield of_layer(op, (1, 324, 205, 1), (5, 5, 1, 6), *both)
    yield of_layer(op, (1, 160, 403, 2), (1, 1, 2, 70), *both)
    yield of_layer(op, (1, 403, 160, 20), (1, 2, 20, 33), *both)
    yield of_layer(op, (1, 322, 204, 2), (2, 1, 1, 2), *both, groups=2)
    yield of_layer("conv2d", (2, 301, 407, 1), (300, 407, 1, 3), "x", "w", quick=True)
    yield of_layer("conv2d", (1, 1, 2, 100_003), (1, 1, 100_003, 40), "x", "w")
    yield of_layer("conv2d", (1, 301, 203, 2), (301, 202, 1, 2), "x", "w", groups=2)
    yield of_layer("conv2d_input_gradient", (1, 2, 3, 5), (1, 1, 5, 100_003), "dy", "w")
    yield of_rows("dense", x=(2, 1_000_003), w=(1_000_003, 3), b=(3,))
    yield of_rows("dense", x=(7, 300_001), w=(300_001, 10), b=(10,))
    yield of_rows("dense", x=(3, 100_003), w=(100_003, 65), b=(65,))
    yield of_rows("dense_backward", dy=(65_537, 3), x=(65_537, 2), w=(2, 3))
    yield of_rows("dense_backward", dy=(3, 100_003), x=(3, 20), w=(20, 100_003))
    yield of_rows("batch_norm", x=(1_000_003, 2), gamma=(2,), beta=(2,))
    yield of_rows("layer_norm", x=(2, 1_000_003), gamma=(1_000_003,), beta=(1_000_003,))
    yield of_rows("group_norm", x=(1, 500_009, 4), gamma=(4,), beta=(4,))
    yield of_rows("softmax", mode="float", x=(2, 1_000_003))
    for b in ((1, 1, 1, 3), (1, 160, 1, 1)):
        yield of_operands("add_backward", (1, 160, 9001, 3), b)
        yield of_operands("multiply_backward", (1, 160, 9001, 3), b)
    yield of_rows("log_softmax", mode="float", x=(1, 1_000_003))
    window: dict[str, Any] = {"size": (261, 307)}
    x, modes, dtypes = (1, 261, 307, 3), ("long",), ("float32",)
    g = pool_geometry(x, window["size"])
    yield Problem("avg_pool2d", "long-window", {"x": x}, window, g, modes, False, dtypes)
    how = {"method": "bilinear", "coordinates": "half_pixel", "rounding": "floor"}
    resized = resize_geometry((1, 1, 2, 3), (1, 66_000), *how.values())
    dy, parameters = {"dy": resized.output_shape}, {"x_shape": (1, 1, 2, 3)} | how
    yield Problem("resize2d_backward", "long-row", dy, parameters, resized, modes, False, dtypes)


def _article_problems() -> Iterator[Problem]:
    """The article's net on real digits: the loss of each digit, and all gradients."""
    for digits, quick in ((4, True), (16, False)):
        yield Problem(
            ARTICLE_NET,
            f"mnist-{digits}",
            {
                "x": (digits, 28, 28, 1),
                "labels": (digits,),
                "filters": (3, 3, 1, 8),
                "weights": (13 * 13 * 8, 10),
                "bias": (10,),
            },
            modes=("digits",),
            quick=quick,
        )


@cache
def problems() -> tuple[Problem, ...]:
    """All problems, grouped by operation.

    >>> len({p.name for p in problems()}) == len(problems())
    True
    """
    result: list[Problem] = []
    for layer in _convolutions():
        result += _conv_problems(layer)
    for layer in _winograds():
        result += _winograd_problems(layer)
    for window in _poolings():
        result += _pool_problems(window)
    for sides in _DENSE:
        result += _dense_problems(sides)
    for shape in _ELEMENTS:
        result += _element_problems(shape)
    for label, images, padding in _MARGINS:
        result += _padding_problems(label, images, padding)
    for layer in _transposed():
        result += _transposed_problems(layer)
    for samples, axes in _PERMUTATIONS:
        result += _permutation_problems(samples, axes)
    for images, block in _BLOCKS:
        result += _block_problems(images, block)
    for resize in _resizes():
        result += _resize_problems(resize)
    for batch in _CHANNEL_ROWS:
        result += _normalization_problems(batch)
    for label, a, b in _MERGES:
        result += _merging_problems(label, a, b)
    for label, shapes, axis in _JOINED:
        result += _joining_problems(label, shapes, axis)
    for x, features in _FEATURES:
        result += _row_norm_problems(x, features)
    for x, groups in _GROUPS:
        result += _group_norm_problems(x, groups)
    for x, parameters in _RESPONSES:
        result += _response_problems(x, parameters)
    for rows in _ROWS:
        result += _row_problems(rows)
    for shape in _ELEMENTS:
        result += _activation_problems(shape)
    for batch in _PRELU_ROWS:
        result += _prelu_problems(batch)
    result += _long_problems()
    result += _article_problems()
    order = list(dict.fromkeys(problem.op for problem in result))
    return tuple(sorted(result, key=lambda problem: order.index(problem.op)))


def operations() -> tuple[str, ...]:
    """Names of the operations in the matrix: the public functions, and the article's net.

    >>> operations()[0], operations()[-1]
    ('conv2d', 'article_net')
    """
    return tuple(dict.fromkeys(problem.op for problem in problems()))


def cases(ops: Sequence[str] | None = None, quick: bool = False) -> tuple[Case, ...]:
    """The cases of these operations (default: all), all of them or only the quick ones.

    >>> cases(["relu"], quick=True)[0].name
    'relu/2x5x7x3/float32/exact'
    """
    names = operations() if ops is None else ops
    selection: Iterable[Problem] = (p for p in problems() if p.op in names and p.quick >= quick)
    return tuple(Case(p, dtype, mode) for p in selection for dtype in p.dtypes for mode in p.modes)


def case_named(name: str) -> Case:
    """The case of this name. Raises ``ValueError`` with the closest names for an unknown name.

    >>> case_named("dense/3x17-to-33/float64/float").problem.arrays["w"]
    (17, 33)
    """
    for case in cases():
        if case.name == name:
            return case
    from difflib import get_close_matches

    close = get_close_matches(name, [case.name for case in cases()], n=2, cutoff=0.3)
    raise ValueError(
        f"case must name one of the matrix, such as {' or '.join(close)}, got {name!r}"
    )
