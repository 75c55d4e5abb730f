"""Direct convolution as contractions: forward, gradient of the input, gradient of the filters.

Where there is padding, the images are copied between zeros, so that all offsets are affine. The
copy is one pass over the input, against KH·KW·OC products for each of its numbers. Depthwise
convolution has KH·KW products for each, and a kernel that reads the images where they lie. Both
multiply padding as zero. The specification skips it, which differs only where the other factor is
infinite or NaN: the plain loops compute such a result again.

Each direction has a plan, which follows from the geometry alone and is made once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np

from fastcnn.core.arguments import Array
from fastcnn.core.geometry import ConvGeometry
from fastcnn.engine.numba.contraction import chooser
from fastcnn.engine.numba.contraction.chooser import (
    CONTRACTIONS,
    CONVOLUTIONS,
    PACKED_FILTERS,
    POOLED_LINES,
    Problem,
    elementwise_tile,
    tile_for,
    with_packed_weights,
)
from fastcnn.engine.numba.contraction.column_sums import column_sums
from fastcnn.engine.numba.contraction.contraction import (
    Columns,
    Contraction,
    Groups,
    ImageRows,
    Plan,
    Rows,
    Steps,
    Tile,
    contract,
    plan_contraction,
)
from fastcnn.engine.numba.contraction.epilogue import Epilogue
from fastcnn.engine.numba.contraction.packing import (
    Layout,
    lay_out,
    layout_of,
    pack_filters,
    transpose_filters,
)
from fastcnn.engine.numba.conv import loops as convolution_loops
from fastcnn.engine.numba.conv.depthwise import Side, depthwise_plan
from fastcnn.engine.numba.runtime.arrays import bias_or_zeros, empty_like_type, readable
from fastcnn.engine.numba.runtime.bound import allocator, bound_by, launcher, zeros
from fastcnn.engine.numba.runtime.decisions import Decision, decide
from fastcnn.engine.numba.runtime.finite import all_finite
from fastcnn.engine.numba.runtime.instruction_sets import cached_choice

Triple = tuple[int, int, int]

# Bytes of images and dy in a slab of the filters' gradient. Each tile of the gradient reads the
# whole slab, so it must stay in the second-level cache.
_SLAB_BYTES = 512 * 1024


def _bind_conv2d(
    g: ConvGeometry, dtype: np.dtype[Any], activation: str | None
) -> Callable[..., Array]:
    shape, relu = g.output_shape, activation == "relu"
    new = allocator(shape, dtype)
    if 0 in shape:
        return lambda x, w, b=None: new()
    layout, decision = forward_decision(g, dtype.itemsize, packable=True)
    plan, padded, no_bias = decision.plan, has_padding(g), zeros(g.oc, dtype)
    launch, numbers = launcher(plan.function, plan.items, plan.work), plan.numbers
    packed, copied = decision.name == PACKED_FILTERS.name, layout.copied
    few_filters = prod(g.filter_shape) < prod(shape)

    def bound(x: Array, w: Array, b: Array = no_bias) -> Array:
        y = new()
        flat_w, flat_y = w.ravel(), y.ravel()
        images = lay_out(x, layout) if copied else x.ravel()
        if packed:
            _contract_packed(images, w, b, flat_y, relu, g)
        else:
            launch(images, flat_w, b, flat_y, relu, numbers)
        # Infinity or NaN in a filter makes NaN of every number for which it meets the padding.
        if padded and not all_finite(flat_w if few_filters else flat_y):
            return convolution_loops.conv2d(x, w, b, activation, g)
        return y

    return bound


@bound_by(_bind_conv2d)
def conv2d(x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry) -> Array:
    """``y`` (N, OH, OW, OC) of ``x`` (N, H, W, IC), ``w`` (KH, KW, IC/groups, OC) and ``b`` (OC,).

    ``b`` may be None. Rows of the contraction are output pixels, its steps taps and input channels.
    """
    operands = [readable(array) for array in (x, w, b) if array is not None]
    return _bind_conv2d(g, x.dtype, activation)(*operands)


def _bind_transpose(
    g: ConvGeometry, dtype: np.dtype[Any], activation: str | None = None
) -> Callable[..., Array]:
    shape, relu = g.input_shape, activation == "relu"
    new = allocator(shape, dtype)
    if 0 in shape:
        return lambda x, w, b=None: new()
    gradient, no_bias = input_gradient_plan(g, dtype.itemsize), zeros(g.ic, dtype)
    layout, width, padded = gradient.layout, gradient.transposed_width, gradient.padded
    phases = [
        (launcher(plan.function, plan.items, plan.work), plan.numbers) for plan in gradient.phases
    ]
    few_filters = prod(g.filter_shape) < prod(shape)

    def bound(x: Array, w: Array, b: Array = no_bias) -> Array:
        y = new()
        flat_y = y.ravel()
        transposed = transpose_filters(w, g.groups, width) if width else w.ravel()
        images = lay_out(x, layout) if layout.copied else x.ravel()
        for first_h, first_w in gradient.phases_without_taps:
            without_taps = np.maximum(b, 0) if relu else b
            y[:, first_h :: g.stride_h, first_w :: g.stride_w] = without_taps
        for launch, numbers in phases:
            launch(images, transposed, b, flat_y, relu, numbers)
        if padded and not all_finite(transposed if few_filters else flat_y):
            return convolution_loops.conv2d_transpose(x, w, b, activation, g)
        return y

    return bound


@bound_by(_bind_transpose)
def conv2d_input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """``dx`` (N, H, W, IC) of ``dy`` (N, OH, OW, OC) and ``w`` (KH, KW, IC/groups, OC).

    Rows of the contraction are input pixels, its steps taps and output channels. With a stride, an
    input pixel meets only the taps of its phase, ``kh·D ≡ ih + P`` modulo S: each phase is a
    contraction of its own over a part of the filters.
    """
    return conv2d_transpose(dy, w, None, None, g)


@bound_by(_bind_transpose)
def conv2d_transpose(
    x: Array, w: Array, b: Array | None, activation: str | None, g: ConvGeometry
) -> Array:
    """``y``: the input's gradient, whose sums begin at the bias and end in the activation."""
    operands = [readable(array) for array in (x, w, b) if array is not None]
    return _bind_transpose(g, x.dtype, activation)(*operands)


def conv2d_filter_gradient(dy: Array, x: Array, g: ConvGeometry) -> Array:
    """``dw``, as :func:`write_filter_gradient` computes it."""
    dw = empty_like_type(dy, *g.filter_shape)
    write_filter_gradient(dy, x, g, dw)
    return dw


def write_filter_gradient(dy: Array, x: Array, g: ConvGeometry, dw: Array) -> None:
    """Write ``dw``, C-contiguous; rows are taps and input channels, steps output pixels.

    The images are summed in slabs, which stay in the cache, each into a ``dw`` of its own, and
    these then in order.
    """
    if g.n == 0:
        dw[...] = 0
        return
    gradient = filter_gradient_plan(g, dy.itemsize)
    images, flat_dy = lay_out(readable(x), gradient.layout), readable(dy).reshape(-1)
    zeros = bias_or_zeros(None, gradient.whole_slabs * g.oc, dy)
    if gradient.slabs == 1:
        contract(gradient.slabs_plan, images, flat_dy, zeros, dw.reshape(-1))
    else:
        slabs = empty_like_type(dy, gradient.slabs, dw.size)
        contract(gradient.slabs_plan, images, flat_dy, zeros, slabs.reshape(-1))
        if gradient.tail is not None:
            x_tail, dy_tail = images[gradient.tail_x :], flat_dy[gradient.tail_dy :]
            contract(gradient.tail, x_tail, dy_tail, zeros, slabs[-1])
        column_sums(slabs, dw.reshape(-1))
    if has_padding(g) and not all_finite(dw.reshape(-1)):
        dw[...] = convolution_loops.conv2d_filter_gradient(dy, x, g)


class _Division(NamedTuple):
    """The channels in ``groups`` of ``channels`` input channels and ``columns`` output channels.

    A depthwise convolution is a single group in which each column has its own input.
    """

    groups: int
    channels: int
    columns: int
    elementwise: bool


def _division(g: ConvGeometry) -> _Division:
    if g.depthwise and g.group_oc == 1:
        return _Division(1, 1, g.oc, True)
    return _Division(g.groups, g.group_ic, g.group_oc, False)


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
    return layout_of(g.input_shape, itemsize, margins, stride), g


def _rows(extents: Triple, x: Triple, y: Triple, x_start: int = 0, y_start: int = 0) -> Rows:
    """The rows of a contraction; sides that follow on each other become one."""
    (a, b, c), (x_a, x_b, x_c), (y_a, y_b, y_c) = extents, x, y
    if (x_b, y_b) == (c * x_c, c * y_c) or b == 1:
        b, c, x_b, y_b = 1, b * c, b * c * x_c, b * c * y_c
    if b == 1 and ((x_a, y_a) == (c * x_c, c * y_c) or a == 1):
        a, c = 1, a * c
    return Rows(a, b, c, x_start, x_a, x_b, x_c, y_start, y_a, y_b, y_c)


def _image_rows(rows: Rows, count: int, real: ImageRows) -> ImageRows:
    """``real`` if the rows b are the ``count`` rows of an image, else no known rows.

    Otherwise :func:`_rows` has merged rows and columns of the image into one side, so a kernel
    cannot tell which image row a row belongs to, and skips no padding.
    """
    return real if rows.b == count else ImageRows()


def _contract_packed(
    images: Array, w: Array, b: Array, y: Array, relu: bool, g: ConvGeometry
) -> None:
    """Compute some blocks of columns at a time, and pack their filters just before."""
    division, tile = _division(g), _forward_tile(g, w.itemsize)
    most = chooser.PACKED_BLOCKS * tile.columns
    for group, first in product(range(division.groups), range(0, division.columns, most)):
        at, columns = group * division.columns + first, min(most, division.columns - first)
        filters = pack_filters(w, at, columns, tile.vectors, tile.lanes)
        plan = _packed_plan(g, w.itemsize, columns)
        contract(plan, images[group * division.channels :], filters, b[at:], y[at:], relu)


def _forward_tile(g: ConvGeometry, itemsize: int) -> Tile:
    """The tile of a convolution: output pixels × output channels."""
    return tile_for(g.n * g.oh * g.ow, g.group_oc, itemsize)


@cached_choice
def _packed_plan(g: ConvGeometry, itemsize: int, columns: int) -> Plan:
    """The plan for so many columns of one group, on filters from :func:`pack_filters`."""
    tile = _forward_tile(g, itemsize)
    _, c = _forward(g, itemsize)
    return plan_contraction(with_packed_weights(c, tile.columns, columns), tile, itemsize)


@cached_choice
def forward_decision(
    g: ConvGeometry,
    itemsize: int,
    packable: bool = False,
    pooled: bool = False,
    argmax: bool = False,
    fused: Epilogue | None = None,
    pitch: int = 0,
) -> tuple[Layout, Decision[Plan]]:
    """Layout and kernel of the convolution; with ``pooled``, 2×2 max-pooling follows.

    Where no kernel pools too, the plan is that of the convolution alone. With ``fused``, the kernel
    has this epilogue. With ``pitch``, neighbouring pixels of the result lie so many numbers apart.
    """
    if _division(g).elementwise:
        vertical = Side(g.oh, g.kh, g.h, g.stride_h, -g.pad_top, g.dilation_h, g.ow, g.kw)
        horizontal = Side(g.ow, g.kw, g.w, g.stride_w, -g.pad_left, g.dilation_w, 1, 1)
        image = g.oh * g.ow, 0
        plan = depthwise_plan((g.n, g.oc), vertical, horizontal, image, 0, itemsize, fused, pitch)
        return _as_it_is(g.input_shape), Decision("depthwise", _DEPTHWISE, plan)
    (layout, c), tile = _forward(g, itemsize, pitch=pitch), _forward_tile(g, itemsize)
    to_windows = _forward(g, itemsize, pooled=True, pitch=pitch)[1] if pooled else None
    problem = Problem(
        c, tile, itemsize, pooled=to_windows, argmax=argmax, packable=packable, fused=fused
    )
    return layout, decide(CONVOLUTIONS, problem)


class PackedPlan(NamedTuple):
    """A convolution on filters that a caller has packed, in blocks of columns.

    Attributes:
        layout: how the images must lie.
        decision: the kernel.
        tile: its columns are those of a block.
        steps, blocks: rows of a block, and how many blocks there are.
    """

    layout: Layout
    decision: Decision[Plan]
    tile: Tile
    steps: int
    blocks: int


@cached_choice
def packed_decision(
    g: ConvGeometry, itemsize: int, fused: Epilogue | None = None, pitch: int = 0
) -> PackedPlan | None:
    """The plan on packed filters, which :func:`pack_filters` makes; None for several groups.

    A tile then reads its block of filters from one end to the other. In filters that are not
    packed, the columns of one step lie as far from those of the next step as the filters have
    output channels.
    """
    if g.groups != 1:
        return None
    (layout, c), tile = _forward(g, itemsize, pitch=pitch), _forward_tile(g, itemsize)
    problem = Problem(with_packed_weights(c, tile.columns, g.oc), tile, itemsize, fused=fused)
    decision = decide(CONTRACTIONS, problem)
    return PackedPlan(layout, decision, tile, c.step_count, -(-g.oc // tile.columns))


_DEPTHWISE = "each channel has filters of its own, and images are read where they lie"


def input_pitch(g: ConvGeometry, itemsize: int) -> int:
    """How far neighbouring pixels of the images must lie apart so that nothing is copied.

    0 where the images are read as they are, or are copied for another reason as well.
    """
    layout = _images(g, itemsize)[0]
    if _division(g).elementwise or has_padding(g) or (layout.stride_h, layout.stride_w) != (1, 1):
        return 0
    return layout.pitch if layout.copied else 0


def forward_plan(g: ConvGeometry, itemsize: int) -> tuple[Layout, Plan]:
    """How the images must lie, and the plan on filters as they are."""
    layout, decision = forward_decision(g, itemsize)
    return layout, decision.plan


def pooled_plan(
    g: ConvGeometry, itemsize: int, argmax: bool = False, pitch: int = 0
) -> tuple[Layout, Plan] | None:
    """The same with 2×2 max-pooling in the kernel; None where no such kernel serves.

    The result equals that of the two operations, but a zero may have another sign. The kernel has
    one more operand, for the ``argmax`` indices.
    """
    layout, decision = forward_decision(g, itemsize, False, True, argmax, None, pitch)
    return (layout, decision.plan) if decision.name == POOLED_LINES.name else None


def _forward(
    g: ConvGeometry, itemsize: int, pooled: bool = False, pitch: int = 0
) -> tuple[Layout, Contraction]:
    division, oh, ow, pitch = _division(g), g.oh, g.ow, pitch or g.oc
    layout, g = _images(g, itemsize)
    channels, pixel = division.channels, layout.pitch
    row = layout.width * pixel
    if channels == pixel and g.dilation_w == 1:  # a row of taps is one run over (kw, ic)
        taps, run = 1, g.kw * channels
    else:
        taps, run = g.kw, channels
    extents = g.n, g.oh, g.ow
    if pooled:
        oh, ow = oh // 2, ow // 2
        extents = g.n, 2 * oh, 2 * ow  # an odd last row or column is in no window
    rows = _rows(
        extents,
        (layout.height * row, g.stride_h * row, g.stride_w * pixel),
        (oh * ow * pitch, ow * pitch, pitch),
    )
    c = Contraction(
        rows,
        Steps(
            a=g.kh, b=taps, run=run,
            x_a=g.dilation_h * row, x_b=g.dilation_w * pixel, x_run=1,
            w_a=g.kw * channels * g.oc, w_b=channels * g.oc, w_run=g.oc,
        ),
        Columns(division.columns),
        Groups(division.groups, channels, division.columns, division.columns),
        _image_rows(
            rows, g.oh,
            ImageRows(layout.top, layout.top + g.h, 0, g.stride_h, g.dilation_h),
        ),
    )  # fmt: skip
    return layout, c


class InputGradient(NamedTuple):
    """The plan of the input's gradient.

    Attributes:
        layout: how the output's gradient must lie.
        padded: whether zeros stand around it.
        transposed_width: of blocks of transposed filters; 0 where filters are read as they are.
        decisions: one for each phase that meets a tap.
        phases_without_taps: the first pixel, (h, w), of each phase that meets no tap.
    """

    layout: Layout
    padded: bool
    transposed_width: int
    decisions: tuple[Decision[Plan], ...]
    phases_without_taps: tuple[tuple[int, int], ...]

    @property
    def phases(self) -> tuple[Plan, ...]:
        """The plans of the phases."""
        return tuple(decision.plan for decision in self.decisions)


class _Phase:
    """Input positions ``first + stride·j`` along one side, and the taps that they meet.

    Tap t is filter position ``tap + t·tap_step``, at output position ``out + j − t·out_step``.
    """

    def __init__(self, first: int, size: int, k: int, stride: int, pad: int, dilation: int) -> None:
        self.first = first
        self.size = size
        self.stride = stride
        self.count = -(-(size - first) // stride)
        taps = [tap for tap in range(k) if (first + pad - tap * dilation) % stride == 0]
        self.taps = len(taps)
        self.tap = taps[0] if taps else 0
        self.tap_step = stride // gcd(stride, dilation)
        self.out = (first + pad - self.tap * dilation) // stride if taps else 0
        self.out_step = self.tap_step * dilation // stride

    def side(self, size: int, pixels: int, taps: int) -> Side:
        """As a side of a depthwise sum over ``size`` outputs.

        Neighbouring inputs lie ``pixels`` apart, and neighbouring taps ``taps``.
        """
        out, filters = self.stride * pixels, self.tap_step * taps
        return Side(self.count, self.taps, size, 1, self.out, -self.out_step, out, filters)


def _margins(phases: list[_Phase], out: int) -> tuple[int, int]:
    """How far the phases reach before and beyond ``out`` output positions."""
    active = [phase for phase in phases if phase.taps]
    before = max([-(p.out - (p.taps - 1) * p.out_step) for p in active] + [0])
    beyond = max([p.out + p.count - out for p in active] + [0])
    return before, beyond


@cached_choice
def input_gradient_plan(g: ConvGeometry, itemsize: int, pitch: int = 0) -> InputGradient:
    """A contraction for each phase of the stride that meets a tap.

    With ``pitch``, neighbouring pixels of the result lie so many numbers apart, not g.ic. There is
    no such plan for a convolution of each channel on its own.
    """
    vertical = [
        _Phase(r, g.h, g.kh, g.stride_h, g.pad_top, g.dilation_h)
        for r in range(min(g.stride_h, g.h))
    ]
    horizontal = [
        _Phase(r, g.w, g.kw, g.stride_w, g.pad_left, g.dilation_w)
        for r in range(min(g.stride_w, g.w))
    ]
    margins = *_margins(vertical, g.oh), *_margins(horizontal, g.ow)
    elementwise = _division(g).elementwise
    layout, tile = _as_it_is(g.output_shape), tile_for(g.n * g.h * g.w, g.group_ic, itemsize)
    if not elementwise:
        layout = layout_of(g.output_shape, itemsize, margins)
    decisions: list[Decision[Plan]] = []
    without_taps = []
    for v in vertical:
        for h in horizontal:
            if not (v.taps and h.taps):
                without_taps.append((v.first, h.first))
            elif elementwise:
                image = g.h * g.w, v.first * g.w + h.first
                sides = v.side(g.oh, g.w, g.kw), h.side(g.ow, 1, 1)
                tap = v.tap * g.kw + h.tap
                plan = depthwise_plan((g.n, g.ic), *sides, image, tap, itemsize)
                decisions.append(Decision("depthwise", _DEPTHWISE, plan))
            else:
                c = _input_gradient_of_phase(g, layout, tile, v, h, pitch or g.ic)
                decisions.append(decide(CONTRACTIONS, Problem(c, tile, itemsize)))
    width = 0 if elementwise else tile.columns
    return InputGradient(layout, max(margins) > 0, width, tuple(decisions), tuple(without_taps))


def _input_gradient_of_phase(
    g: ConvGeometry, layout: Layout, tile: Tile, v: _Phase, h: _Phase, pitch: int
) -> Contraction:
    pixel, row = layout.pitch, layout.width * layout.pitch
    rows = _rows(
        (g.n, v.count, h.count),
        (layout.height * row, row, pixel),
        (g.h * g.w * pitch, g.stride_h * g.w * pitch, g.stride_w * pitch),
        x_start=(v.out + layout.top) * row + (h.out + layout.left) * pixel,
        y_start=(v.first * g.w + h.first) * pitch,
    )
    # Transposed: [group][block][kh][kw][oc][tile columns].
    run, columns, width = g.group_oc, g.group_ic, tile.columns
    block = g.kh * g.kw * run * width
    return Contraction(
        rows,
        Steps(
            a=v.taps, b=h.taps, run=run,
            x_a=-v.out_step * row, x_b=-h.out_step * pixel, x_run=1,
            w_a=v.tap_step * g.kw * run * width, w_b=h.tap_step * run * width, w_run=width,
        ),
        Columns(columns, (v.tap * g.kw + h.tap) * run * width, block),
        Groups(g.groups, run, columns, -(-columns // width) * block),
        _image_rows(
            rows, v.count,
            ImageRows(layout.top, layout.top + g.oh, v.out + layout.top, 1, -v.out_step),
        ),
    )  # fmt: skip


class FilterGradient(NamedTuple):
    """Plans of the filters' gradient.

    Attributes:
        layout: how the images must lie.
        slabs: how many slabs there are.
        whole_slabs: how many slabs have the same number of images. One more slab holds the images
            that are left, if there are any.
        decision: the kernel that sums all whole slabs.
        tail: the plan of the last slab, or None if all slabs are whole.
        tail_x, tail_dy: where the images of the last slab begin in x, and their gradients in dy, in
            numbers.
    """

    layout: Layout
    slabs: int
    whole_slabs: int
    decision: Decision[Plan]
    tail: Plan | None
    tail_x: int
    tail_dy: int

    @property
    def slabs_plan(self) -> Plan:
        """The plan of the whole slabs."""
        return self.decision.plan


@cached_choice
def filter_gradient_plan(g: ConvGeometry, itemsize: int) -> FilterGradient:
    """The plan of the filters' gradient, in slabs of images."""
    layout, division, tile = _images(g, itemsize)[0], _division(g), _filter_tile(g, itemsize)
    rows = g.kh * g.kw * division.channels
    tiles = -(-rows // tile.rows) * -(-division.columns // tile.columns)
    images = _images_of_slab(g, tiles, itemsize) if division.groups == 1 else g.n
    whole_slabs, tail = divmod(g.n, images)
    return FilterGradient(
        layout,
        slabs=whole_slabs + (tail > 0),
        whole_slabs=whole_slabs,
        decision=_slabs_decision(g, itemsize, images, whole_slabs),
        tail=_slabs_decision(g, itemsize, tail, 1).plan if tail else None,
        tail_x=whole_slabs * images * layout.height * layout.width * layout.pitch,
        tail_dy=whole_slabs * images * g.oh * g.ow * g.oc,
    )


def _images_of_slab(g: ConvGeometry, tiles: int, itemsize: int) -> int:
    """Images of a slab, at most as many as stay in the cache while all tiles read them.

    Where there are too few tiles to share out, an eighth of the images at most. Where the gradients
    of so many slabs would be half as large as the images, there is one slab.
    """
    most = -(-g.n // min(g.n, 8)) if tiles < 8 else g.n
    image = (g.h * g.w * g.ic + g.oh * g.ow * g.oc) * itemsize
    images = max(1, _SLAB_BYTES // image)
    slabs, filters = -(-g.n // images), g.kh * g.kw * g.group_ic * g.oc * itemsize
    return min(most, images if 2 * slabs * filters <= g.n * image else g.n)


@cached_choice
def filter_sum_plan(g: ConvGeometry, itemsize: int) -> tuple[Layout, Plan]:
    """How images are laid out for the filters' gradient, and all of it as one sum."""
    return _images(g, itemsize)[0], _slabs_decision(g, itemsize, g.n, 1).plan


def _filter_tile(g: ConvGeometry, itemsize: int) -> Tile:
    """The tile of the filters' gradient: taps and input channels × output channels."""
    division = _division(g)
    if division.elementwise:
        return elementwise_tile(itemsize)
    return tile_for(g.kh * g.kw * division.channels, division.columns, itemsize)


def _slabs_decision(g: ConvGeometry, itemsize: int, images: int, slabs: int) -> Decision[Plan]:
    """What serves the filters' gradient by so many slabs of so many images."""
    division, tile = _division(g), _filter_tile(g, itemsize)
    layout, g = _images(g, itemsize)
    channels, pixel = division.channels, layout.pitch
    row = layout.width * pixel
    groups = Groups(division.groups, channels, division.columns, division.columns)
    if slabs > 1:  # then there is one group
        groups = Groups(
            slabs,
            images * layout.height * row,
            g.kh * g.kw * channels * g.oc,
            images * g.oh * g.ow * g.oc,
        )
    c = Contraction(
        _rows(
            (g.kh, g.kw, channels),
            (g.dilation_h * row, g.dilation_w * pixel, 1),
            (g.kw * channels * g.oc, channels * g.oc, g.oc),
        ),
        Steps(
            a=images, b=g.oh, run=g.ow,
            x_a=layout.height * row, x_b=g.stride_h * row, x_run=g.stride_w * pixel,
            w_a=g.oh * g.ow * g.oc, w_b=g.ow * g.oc, w_run=g.oc,
        ),
        Columns(division.columns),
        groups,
    )  # fmt: skip
    return decide(CONTRACTIONS, Problem(c, tile, itemsize, division.elementwise))


def explanation(op: str, g: ConvGeometry, itemsize: int) -> Iterator[str]:
    """Which kernels serve an operation, and why; what :func:`fastcnn.explain` prints."""
    if g.n == 0:
        yield "kernel: none, because the batch is empty"
    elif op == "conv2d":
        yield from forward_decision(g, itemsize, packable=True)[1].lines()
    elif op == "conv2d_filter_gradient":
        yield from filter_gradient_plan(g, itemsize).decision.lines()
    else:
        decisions = input_gradient_plan(g, itemsize).decisions
        for name in dict.fromkeys(decision.name for decision in decisions):
            yield from next(each for each in decisions if each.name == name).lines()
