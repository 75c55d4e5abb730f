"""Direct convolution as contractions: forward, gradient of the input, gradient of the filters.

The image is copied between zeros where there is padding (a pass over the input, against KH·KW·OC
products for each number of it), so that all offsets are affine; depthwise convolution, which has
KH·KW products, has a kernel that reads it where it lies. Either multiplies padding as zero, which
differs from skipping it only where the other factor is infinite or NaN: such a result is computed
again by the plain loops.

Each direction has a plan that follows from the geometry alone and is made once for each.
"""

from __future__ import annotations

from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.engine.numba.contraction.column_sums import column_sums
from fastcnn.engine.numba.contraction.contraction import (
    Contraction,
    Plan,
    Tile,
    contract,
    elementwise_tile,
    narrowed,
    packing_pays,
    plan,
    plan_pooled,
    pooled_tile,
    tile_for,
)
from fastcnn.engine.numba.contraction.packing import (
    Layout,
    lay_out,
    layout,
    pack_filters,
    turn_filters,
)
from fastcnn.engine.numba.conv import loops as convolution_loops
from fastcnn.engine.numba.conv.depthwise import Side, depthwise_plan
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable
from fastcnn.engine.numba.runtime.finite import all_finite
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice

# Blocks of filters that are packed at once: on AVX2, 512 channels on 7×7 take 2.4 ms on one thread,
# all packed beforehand 2.7, two blocks at a time 2.8.
PACKED_BLOCKS = 8


def conv2d(x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry) -> Array:
    """``y``; rows are output pixels, steps taps and input channels."""
    y = empty_like_type(x, *g.output_shape)
    if y.size == 0:
        return y
    to, steps = forward_plan(g, x.itemsize)
    flat_w, flat_y = readable(w).reshape(-1), y.reshape(-1)
    images, bias, relu = lay_out(readable(x), to), bias_or_zeros(b, g.oc, x), activation == "relu"
    if (tile := _packed_for(g, x.itemsize)) is None:
        contract(steps, images, flat_w, bias, flat_y, relu)
    else:
        _contract_packed(tile, images, readable(w), bias, flat_y, relu, g)
    # A filter's infinity or NaN shows in every number that it meets a zero of the padding for.
    if has_padding(g) and not all_finite(flat_w if w.size < y.size else flat_y):
        return convolution_loops.conv2d(x, w, b, activation, g)
    return y


def conv2d_input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """``dx``; rows are input pixels, steps taps and output channels.

    With a stride, an input pixel meets only the taps of its phase, ``kh·D ≡ ih + P`` modulo S:
    each phase is a contraction of its own over a part of the filters.
    """
    dx = empty_like_type(dy, *g.input_shape)
    if dx.size == 0:
        return dx
    gradient = input_gradient_plan(g, dy.itemsize)
    turned = readable(w).reshape(-1)
    if gradient.turned_width:
        turned = turn_filters(readable(w), g.groups, gradient.turned_width)
    images, zeros = lay_out(readable(dy), gradient.to), bias_or_zeros(None, g.ic, dy)
    for first_h, first_w in gradient.untouched:
        dx[:, first_h :: g.stride_h, first_w :: g.stride_w] = 0
    for phase in gradient.phases:
        contract(phase, images, turned, zeros, dx.reshape(-1))
    if gradient.padded and not all_finite(turned if w.size < dx.size else dx.reshape(-1)):
        return convolution_loops.conv2d_input_gradient(dy, w, g)
    return dx


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """``dw``; rows are taps and input channels, steps output pixels.

    Where ``dw`` has too few tiles to share out, the images are summed in slabs, each into a
    ``dw`` of its own, and these then in order.
    """
    dw = empty_like_type(dy, *g.filter_shape)
    if g.n == 0:
        dw[...] = 0
        return dw
    gradient = _filter_gradient(g, dy.itemsize)
    images, flat_dy = lay_out(readable(x), gradient.to), readable(dy).reshape(-1)
    zeros = bias_or_zeros(None, gradient.whole_slabs * g.oc, dy)
    if gradient.slabs == 1:
        contract(gradient.whole, images, flat_dy, zeros, dw.reshape(-1))
    else:
        slabs = empty_like_type(dy, gradient.slabs, dw.size)
        contract(gradient.whole, images, flat_dy, zeros, slabs.reshape(-1))
        if gradient.rest is not None:
            x_rest, dy_rest = images[gradient.rest_x :], flat_dy[gradient.rest_dy :]
            contract(gradient.rest, x_rest, dy_rest, zeros, slabs[-1])
        column_sums(slabs, dw.reshape(-1))
    if has_padding(g) and not all_finite(dw.reshape(-1)):
        return convolution_loops.conv2d_filter_gradient(dy, x, g)
    return dw


class _Part(NamedTuple):
    """How the channels are divided: ``groups`` of ``channels`` input and ``columns`` output ones.

    A depthwise convolution is a single group in which each column has its own input.
    """

    groups: int
    channels: int
    columns: int
    elementwise: bool


def _part(g: ConvGeometry) -> _Part:
    if g.depthwise and g.group_oc == 1:
        return _Part(1, 1, g.oc, True)
    return _Part(g.groups, g.group_ic, g.group_oc, False)


def _as_it_is(shape: tuple[int, int, int, int]) -> Layout:
    _, h, w, c = shape
    return Layout(h, w, c, 0, 0, 1, 1, copied=False)


def has_padding(g: ConvGeometry) -> bool:
    """Whether there is any padding."""
    return max(g.pad_top, g.pad_bottom, g.pad_left, g.pad_right) > 0


def _images(g: ConvGeometry, itemsize: int) -> tuple[Layout, ConvGeometry]:
    """The input's layout, and the geometry on it: a 1×1 filter needs only the pixels it meets."""
    stride = (1, 1)
    if g.kh == g.kw == 1 and not has_padding(g):
        stride = g.stride_h, g.stride_w
        g = g._replace(stride_h=1, stride_w=1)
    margins = g.pad_top, g.pad_bottom, g.pad_left, g.pad_right
    return layout(g.input_shape, itemsize, margins, stride), g


def _rows(
    extents: tuple[int, int, int], x: tuple[int, int, int], y: tuple[int, int, int]
) -> dict[str, Any]:
    """The rows' part of a contraction; sides that follow on each other become one."""
    (a, b, c), (xa, xb, xc), (ya, yb, yc) = extents, x, y
    if (xb, yb) == (c * xc, c * yc) or b == 1:
        b, c, xb, yb = 1, b * c, b * c * xc, b * c * yc
    if b == 1 and ((xa, ya) == (c * xc, c * yc) or a == 1):
        a, c = 1, a * c
    names = ("rows_a", "rows_b", "rows_c", "x_a", "x_b", "x_c", "y_a", "y_b", "y_c")
    return dict(zip(names, (a, b, c, xa, xb, xc, ya, yb, yc), strict=True))


def _real_rows(
    grid: dict[str, Any], rows: int, top: int, size: int, start: int, by_row: int, by_step: int
) -> dict[str, Any]:
    """Which rows of the laid out images are no padding, where row b of the grid is one of them."""
    if grid["rows_b"] != rows:  # rows and columns have become one side: nothing to tell them by
        return {}
    return {
        "real_first": top,
        "real_last": top + size,
        "real_start": start,
        "real_b": by_row,
        "real_step": by_step,
    }


@cached_choice
def _packed_for(g: ConvGeometry, itemsize: int) -> Tile | None:
    """The tile for whose columns the filters are packed beforehand; None if as they are is best."""
    part, rows = _part(g), g.n * g.oh * g.ow
    tile = tile_for(rows, part.columns, itemsize)
    size = prod(g.filter_shape) * itemsize
    return tile if not part.elementwise and packing_pays(rows, size, tile) else None


def _contract_packed(
    tile: Tile, images: Array, w: Array, b: Array, y: Array, relu: bool, g: ConvGeometry
) -> None:
    """Some blocks of columns after the others, their filters packed just before."""
    part, most = _part(g), PACKED_BLOCKS * tile.columns
    for group, first in product(range(part.groups), range(0, part.columns, most)):
        at, columns = group * part.columns + first, min(most, part.columns - first)
        filters = pack_filters(w, at, columns, tile.vectors, tile.lanes)
        _, steps = forward_plan(g, w.itemsize, packed=columns)
        contract(steps, images[group * part.channels :], filters, b[at:], y[at:], relu)


@cached_choice
def forward_plan(g: ConvGeometry, itemsize: int, packed: int = 0) -> tuple[Layout, Plan]:
    """How the images must lie, and the plan.

    ``packed``: for so many columns of one group, from :func:`pack_filters`.
    """
    part = _part(g)
    if part.elementwise:
        vertical = Side(g.oh, g.kh, g.h, g.stride_h, -g.pad_top, g.dilation_h, g.ow, g.kw)
        horizontal = Side(g.ow, g.kw, g.w, g.stride_w, -g.pad_left, g.dilation_w, 1, 1)
        image = g.oh * g.ow, 0
        made = depthwise_plan((g.n, g.oc), vertical, horizontal, image, 0, itemsize)
        return _as_it_is(g.input_shape), made
    tile = tile_for(g.n * g.oh * g.ow, part.columns, itemsize)
    to, c = _forward(g, tile, itemsize, packed)
    if not packed and (narrow := narrowed(c, tile)) != tile:
        tile = narrow
        to, c = _forward(g, tile, itemsize)
    return to, plan(c, tile, itemsize)


@cached_choice
def pooled_plan(g: ConvGeometry, itemsize: int, places: bool = False) -> tuple[Layout, Plan] | None:
    """The same for the convolution with 2×2 max-pooling at once, in float32; None if not at once.

    The result is that of both operations, but for the sign of a zero, see :mod:`.contraction`. The
    kernel has an operand more, for the ``places`` in the windows where the result comes from.
    """
    part = _part(g)
    if part.elementwise or itemsize != 4:
        return None
    to, c = _forward(g, pooled_tile(part.columns, itemsize), itemsize, pooled=True)
    made = plan_pooled(c._replace(places=places), itemsize)
    return made and (to, made)


def _forward(
    g: ConvGeometry, tile: Tile, itemsize: int, packed: int = 0, pooled: bool = False
) -> tuple[Layout, Contraction]:
    part, oh, ow = _part(g), g.oh, g.ow
    to, g = _images(g, itemsize)
    channels, pixel = part.channels, to.pitch
    row = to.width * pixel
    if channels == pixel and g.dilation_w == 1:  # a row of taps is one run over (kw, ic)
        taps, run = 1, g.kw * channels
    else:
        taps, run = g.kw, channels
    steps = g.kh * g.kw * channels
    groups, columns, step_w, w_block = part.groups, part.columns, g.oc, tile.columns
    if packed:
        groups, columns, step_w, w_block = 1, packed, tile.columns, steps * tile.columns
    rows = g.oh, g.ow
    if pooled:
        oh, ow = oh // 2, ow // 2
        rows = 2 * oh, 2 * ow  # a last one alone is in no window
    grid = _rows(
        (g.n, *rows),
        (to.height * row, g.stride_h * row, g.stride_w * pixel),
        (oh * ow * g.oc, ow * g.oc, g.oc),
    )
    c = Contraction(
        **grid,
        x_start=0,
        y_start=0,
        steps_a=g.kh,
        steps_b=taps,
        run=run,
        step_x_a=g.dilation_h * row,
        step_x_b=g.dilation_w * pixel,
        step_x=1,
        w_start=0,
        step_w_a=g.kw * channels * step_w,
        step_w_b=channels * step_w,
        step_w=step_w,
        columns=columns,
        w_block=w_block,
        **_real_rows(grid, g.oh, to.top, g.h, 0, g.stride_h, g.dilation_h),
        groups=groups,
        x_group=channels,
        y_group=columns,
        w_group=columns,
    )
    return to, c


class InputGradient(NamedTuple):
    """The plan of the input's gradient."""

    to: Layout
    padded: bool
    turned_width: int  # of the turned filters' blocks; 0 where the filters are read as they are
    phases: tuple[Plan, ...]
    untouched: tuple[tuple[int, int], ...]  # first pixels of the phases that meet no tap


class _Phase:
    """Input positions ``first + stride·j`` along one side, and the taps that they meet.

    Tap t is filter position ``tap + t·tap_step``, at output position ``out + j − t·out_step``.
    """

    def __init__(self, first: int, size: int, k: int, stride: int, pad: int, dilation: int) -> None:
        self.first = first
        self.size = size
        self.stride = stride
        self.count = -(-(size - first) // stride)
        places = [tap for tap in range(k) if (first + pad - tap * dilation) % stride == 0]
        self.taps = len(places)
        self.tap = places[0] if places else 0
        self.tap_step = stride // gcd(stride, dilation)
        self.out = (first + pad - self.tap * dilation) // stride if places else 0
        self.out_step = self.tap_step * dilation // stride

    def side(self, size: int, pixels: int, taps: int) -> Side:
        """As a side of a depthwise sum over ``size`` outputs.

        Neighbouring inputs lie ``pixels`` apart, and neighbouring taps ``taps``.
        """
        out, filters = self.stride * pixels, self.tap_step * taps
        return Side(self.count, self.taps, size, 1, self.out, -self.out_step, out, filters)


def _margins(phases: list[_Phase], out: int) -> tuple[int, int]:
    """How far the phases reach before and beyond ``out`` output positions."""
    met = [phase for phase in phases if phase.taps]
    before = max([-(p.out - (p.taps - 1) * p.out_step) for p in met] + [0])
    beyond = max([p.out + p.count - out for p in met] + [0])
    return before, beyond


@cached_choice
def input_gradient_plan(g: ConvGeometry, itemsize: int) -> InputGradient:
    """A contraction for each phase of the stride that meets a tap."""
    vertical = [
        _Phase(r, g.h, g.kh, g.stride_h, g.pad_top, g.dilation_h)
        for r in range(min(g.stride_h, g.h))
    ]
    horizontal = [
        _Phase(r, g.w, g.kw, g.stride_w, g.pad_left, g.dilation_w)
        for r in range(min(g.stride_w, g.w))
    ]
    margins = *_margins(vertical, g.oh), *_margins(horizontal, g.ow)
    part = _part(g)
    if part.elementwise:
        to, width = _as_it_is(g.output_shape), 0
    else:
        to = layout(g.output_shape, itemsize, margins)
        tile = tile_for(g.n * g.h * g.w, g.group_ic, itemsize)
        width = tile.columns
    phases, untouched = [], []
    for v in vertical:
        for h in horizontal:
            if not (v.taps and h.taps):
                untouched.append((v.first, h.first))
            elif part.elementwise:
                image = g.h * g.w, v.first * g.w + h.first
                sides = v.side(g.oh, g.w, g.kw), h.side(g.ow, 1, 1)
                tap = v.tap * g.kw + h.tap
                phases.append(depthwise_plan((g.n, g.ic), *sides, image, tap, itemsize))
            else:
                c = _input_gradient_of_phase(g, to, tile, v, h)
                phases.append(plan(c, tile, itemsize))
    return InputGradient(to, max(margins) > 0, width, tuple(phases), tuple(untouched))


def _input_gradient_of_phase(
    g: ConvGeometry, to: Layout, tile: Tile, v: _Phase, h: _Phase
) -> Contraction:
    pixel, row = to.pitch, to.width * to.pitch
    grid = _rows(
        (g.n, v.count, h.count),
        (to.height * row, row, pixel),
        (g.h * g.w * g.ic, g.stride_h * g.w * g.ic, g.stride_w * g.ic),
    )
    # Turned filters, [group][block][kh][kw][oc][tile columns].
    run, columns, step = g.group_oc, g.group_ic, tile.columns
    block = g.kh * g.kw * run * step
    return Contraction(
        **grid,
        x_start=(v.out + to.top) * row + (h.out + to.left) * pixel,
        y_start=(v.first * g.w + h.first) * g.ic,
        steps_a=v.taps,
        steps_b=h.taps,
        run=run,
        step_x_a=-v.out_step * row,
        step_x_b=-h.out_step * pixel,
        step_x=1,
        w_start=(v.tap * g.kw + h.tap) * run * step,
        step_w_a=v.tap_step * g.kw * run * step,
        step_w_b=h.tap_step * run * step,
        step_w=step,
        columns=columns,
        w_block=block,
        **_real_rows(grid, v.count, to.top, g.oh, v.out + to.top, 1, -v.out_step),
        groups=g.groups,
        x_group=g.group_oc,
        y_group=columns,
        w_group=-(-columns // tile.columns) * block,
    )


class _FilterGradient(NamedTuple):
    to: Layout
    slabs: int
    whole_slabs: int  # of equal numbers of images; the rest of them, if any, is a slab of its own
    whole: Plan
    rest: Plan | None
    rest_x: int
    rest_dy: int


@cached_choice
def _filter_gradient(g: ConvGeometry, itemsize: int) -> _FilterGradient:
    to, g = _images(g, itemsize)
    part = _part(g)
    rows = g.kh * g.kw * part.channels
    if part.elementwise:
        tile = elementwise_tile(itemsize)
    else:
        tile = tile_for(rows, part.columns, itemsize)
    tiles = -(-rows // tile.rows) * -(-part.columns // tile.columns)
    images = -(-g.n // (1 if part.groups > 1 or tiles >= 8 else min(g.n, 8)))
    whole, rest = divmod(g.n, images)

    def of(count: int, slabs: int) -> Plan:
        c = _filter_gradient_of_slabs(g, part, to, tile, count, slabs)
        return plan(c, tile, itemsize, elementwise=part.elementwise)

    return _FilterGradient(
        to,
        slabs=whole + (rest > 0),
        whole_slabs=whole,
        whole=of(images, whole),
        rest=of(rest, 1) if rest else None,
        rest_x=whole * images * to.height * to.width * to.pitch,
        rest_dy=whole * images * g.oh * g.ow * g.oc,
    )


@cached_choice
def filter_sum_plan(g: ConvGeometry, itemsize: int) -> tuple[Layout, Plan]:
    """How images are laid out for the filters' gradient, and all of it as one sum."""
    to, g = _images(g, itemsize)
    part = _part(g)
    if part.elementwise:
        tile = elementwise_tile(itemsize)
    else:
        tile = tile_for(g.kh * g.kw * part.channels, part.columns, itemsize)
    c = _filter_gradient_of_slabs(g, part, to, tile, g.n, 1)
    return to, plan(c, tile, itemsize, elementwise=part.elementwise)


def _filter_gradient_of_slabs(
    g: ConvGeometry, part: _Part, to: Layout, tile: Tile, images: int, slabs: int
) -> Contraction:
    channels, pixel = part.channels, to.pitch
    row = to.width * pixel
    grid = _rows(
        (g.kh, g.kw, channels),
        (g.dilation_h * row, g.dilation_w * pixel, 1),
        (g.kw * channels * g.oc, channels * g.oc, g.oc),
    )
    by_group: dict[str, Any] = {
        "groups": part.groups,
        "x_group": channels,
        "y_group": part.columns,
        "w_group": part.columns,
    }
    by_slab: dict[str, Any] = {
        "groups": slabs,
        "x_group": images * to.height * row,
        "y_group": g.kh * g.kw * channels * g.oc,
        "w_group": images * g.oh * g.ow * g.oc,
    }
    return Contraction(
        **grid,
        x_start=0,
        y_start=0,
        steps_a=images,
        steps_b=g.oh,
        run=g.ow,
        step_x_a=to.height * row,
        step_x_b=g.stride_h * row,
        step_x=g.stride_w * pixel,
        w_start=0,
        step_w_a=g.oh * g.ow * g.oc,
        step_w_b=g.ow * g.oc,
        step_w=g.oc,
        columns=part.columns,
        w_block=tile.columns,
        **(by_group if slabs == 1 else by_slab),
    )
